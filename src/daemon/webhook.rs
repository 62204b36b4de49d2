//! Serves the webhook: one path, one request per connection, and a hint for whoever looks at GitHub. What is understood is
//! decided by [`crate::github::webhook`].
//!
//! Everybody who reaches the address may try, so everything is bounded: connections at once, the time each takes, the
//! bytes of head and body, and the hints that wait. A hint that finds no room is dropped: whoever takes them is busy
//! looking, and looks again by itself.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::github::webhook::{Ear, Head, Heard, Hint, LONGEST, Refusal};

/// Connections at once. GitHub makes one per delivery.
const CONNECTIONS: usize = 32;

/// How long to wait when no connection can be accepted: out of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// Hints that may wait.
pub const WAITING: usize = 64;

struct Shared {
    ear: Mutex<Ear>,
    hints: mpsc::Sender<Hint>,
    refused: Mutex<BTreeMap<Refusal, u64>>,
}

/// Answers deliveries that come to `listener`, and passes their hints on. It ends when it is dropped, with every
/// connection.
pub async fn serve(listener: TcpListener, ear: Ear, hints: mpsc::Sender<Hint>) -> Infallible {
    let shared = Arc::new(Shared {
        ear: Mutex::new(ear),
        hints,
        refused: Mutex::default(),
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Who comes while all places are taken waits in the system's queue.
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let _place = place;
                    converse(stream, &shared).await;
                });
            }
            Err(error) => {
                warn!(%error, "could not accept a webhook's connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: TcpStream, shared: &Arc<Shared>) {
    super::http::converse(stream, "webhook", |request| async move {
        answer(request, shared).await
    })
    .await;
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    match hear(request, shared).await {
        Ok(Heard::Hint(hint)) => {
            debug!(repo = %hint.repo, "webhook");
            if shared.hints.try_send(hint).is_err() {
                debug!("nobody takes the webhook's hints at the moment");
            }
            respond(StatusCode::ACCEPTED, String::new())
        }
        Ok(Heard::Ignored(why)) => {
            debug!(?why, "webhook");
            respond(StatusCode::NO_CONTENT, String::new())
        }
        Err(refusal) => {
            shared.count(refusal);
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            let mut response = respond(status, format!("{refusal}\n"));
            if refusal == Refusal::Method {
                response
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static("POST"));
            }
            response
        }
    }
}

async fn hear(request: Request<Incoming>, shared: &Shared) -> Result<Heard, Refusal> {
    let (parts, body) = request.into_parts();
    let text = |name: &str| text(&parts.headers, name);
    let head = Head {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        content_type: text(CONTENT_TYPE.as_str()),
        length: text(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok()),
        event: text("x-github-event"),
        delivery: text("x-github-delivery"),
        signature: text("x-hub-signature-256"),
    };
    head.check()?;
    // A body that breaks off is told as one that is too large; nobody is there to be told.
    let body = Limited::new(body, LONGEST)
        .collect()
        .await
        .map_err(|_| Refusal::TooLarge)?;
    let mut ear = shared.ear.lock().unwrap_or_else(PoisonError::into_inner);
    ear.hear(&head, &body.to_bytes())
}

/// A header that is there once. Of two, nobody knows which one whoever signed has meant.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    value.to_str().ok().filter(|_| values.next().is_none())
}

fn respond(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

impl Shared {
    /// Tells the first of each kind, so that nobody can fill the log.
    fn count(&self, refusal: Refusal) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let count = refused.entry(refusal).or_default();
        *count += 1;
        match count {
            1 => warn!("refused a request to the webhook: {refusal}"),
            count if count.is_power_of_two() => info!(count, "refused requests to the webhook: {refusal}"),
            _ => {}
        }
    }
}
