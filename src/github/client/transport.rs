//! One request, one answer: the connection, the headers that every request has, the deadline and the size.
//!
//! octocrab's own client is not used: it follows redirects, asks again and keeps tokens by rules of its own, and names
//! itself in every request. What it offers without that is: its service with our connections and our layers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HeaderName, HeaderValue, IF_NONE_MATCH, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use octocrab::service::middleware::extra_headers::ExtraHeadersLayer;
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};

use super::answer::Answer;
use super::error::{ClientError, Oddity, SetupError};
use crate::github::secret::Secret;

/// The most that is read of an answer. A page of a hundred runs is about 2 MiB, since each repeats two repositories.
pub(super) const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// The version of the API that everything here was written for.
const API_VERSION: &str = "2022-11-28";

/// What is sent.
#[derive(Debug, Clone)]
pub(super) struct Outgoing<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    /// What errors call it.
    pub(super) asked: &'a str,
    pub(super) credential: Option<&'a Secret>,
    /// What stands before the credential: `Bearer` but for one question.
    pub(super) scheme: &'static str,
    /// Headers besides those that every request of this transport has.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The validator of an answer that we have.
    pub(super) etag: Option<&'a str>,
    pub(super) body: Option<Vec<u8>>,
}

/// The connections to GitHub.
#[derive(Clone)]
pub(super) struct Transport {
    octocrab: Octocrab,
    deadline: Duration,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// Connections to the REST API that are made when they are needed, in the runtime that this is called in.
    pub(super) fn new(deadline: Duration) -> Result<Self, SetupError> {
        let fixed = [
            (
                USER_AGENT,
                HeaderValue::from_static(concat!("ephemerd/", env!("CARGO_PKG_VERSION"))),
            ),
            (ACCEPT, HeaderValue::from_static("application/vnd.github+json")),
            (
                HeaderName::from_static("x-github-api-version"),
                HeaderValue::from_static(API_VERSION),
            ),
        ];
        Self::with(deadline, fixed.to_vec())
    }

    /// Connections whose every request has the headers `fixed`.
    pub(super) fn with(
        deadline: Duration,
        fixed: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Self, SetupError> {
        let tls = HttpsConnectorBuilder::new().with_native_roots();
        let connector = tls.map_err(|error| SetupError::Roots(Arc::new(error)))?;
        // Plain HTTP is for this host only, which `super::address` sees to.
        let connector = connector.https_or_http().enable_http1().build();
        let client = legacy::Client::builder(TokioExecutor::new()).build::<_, OctoBody>(connector);
        let built = OctocrabBuilder::new_empty()
            .with_service(client)
            .with_layer(&ExtraHeadersLayer::new(Arc::new(fixed)))
            .with_auth(AuthState::None)
            .build();
        let octocrab = built.unwrap_or_else(|never| match never {});
        Ok(Self { octocrab, deadline })
    }

    /// Sends a request and reads its answer to the end, within the deadline.
    pub(super) async fn send(&self, outgoing: Outgoing<'_>) -> Result<Answer, ClientError> {
        self.send_within(self.deadline, outgoing).await
    }

    /// The same, within another deadline.
    pub(super) async fn send_within(
        &self,
        after: Duration,
        outgoing: Outgoing<'_>,
    ) -> Result<Answer, ClientError> {
        let asked = outgoing.asked.to_owned();
        let answered = tokio::time::timeout(after, self.answer(outgoing)).await;
        answered.unwrap_or(Err(ClientError::TimedOut { asked, after }))
    }

    async fn answer(&self, outgoing: Outgoing<'_>) -> Result<Answer, ClientError> {
        let asked = outgoing.asked;
        let network = |source| ClientError::Network {
            asked: asked.to_owned(),
            source,
        };
        let odd = |oddity| ClientError::NotGitHub {
            asked: asked.to_owned(),
            oddity,
        };
        let request = request(&outgoing).map_err(|error| network(Arc::new(error)))?;
        let sent = self.octocrab.execute(request).await;
        let (parts, body) = sent
            .map(Response::into_parts)
            .map_err(|error| network(cause(error)))?;
        let read = Limited::new(body, BODY_LIMIT).collect().await;
        let body = read.map_err(|error| {
            let is_large = error.downcast_ref::<LengthLimitError>().is_some();
            odd(if is_large {
                Oddity::TooLarge(BODY_LIMIT)
            } else {
                Oddity::Cut
            })
        })?;
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }
}

fn request(outgoing: &Outgoing<'_>) -> Result<Request<OctoBody>, http::Error> {
    let mut request = Request::builder().method(outgoing.method).uri(outgoing.uri);
    if let Some(credential) = outgoing.credential {
        let mut value = HeaderValue::from_str(&format!("{} {}", outgoing.scheme, credential.expose()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    if let Some(etag) = outgoing.etag {
        request = request.header(IF_NONE_MATCH, etag);
    }
    for (name, value) in &outgoing.headers {
        request = request.header(name, value);
    }
    match outgoing.body.clone() {
        Some(body) => request
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(OctoBody::from(body)),
        None => request.body(OctoBody::empty()),
    }
}

/// What the connection said, without octocrab's wrapping, which prints a backtrace.
fn cause(error: octocrab::Error) -> Arc<dyn Error + Send + Sync> {
    match error {
        octocrab::Error::Service { source, .. } | octocrab::Error::Other { source, .. } => Arc::from(source),
        octocrab::Error::Hyper { source, .. } => Arc::new(source),
        other => Arc::new(other),
    }
}
