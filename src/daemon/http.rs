//! One connection of the servers that speak HTTP here, which are paced and counted by whoever accepts it.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

/// How long a connection may take. GitHub gives up after ten seconds itself ("Best practices for using webhooks").
const WITHIN: Duration = Duration::from_secs(10);

/// Bytes of a request's head; GitHub's have about one thousand, and hyper wants eight thousand at least.
const HEAD_BYTE: usize = 16 * 1024;

/// Answers the one request of a connection to `what`.
pub(super) async fn converse<S, F, R>(stream: S, what: &'static str, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<Full<Bytes>>>,
{
    let answer = service_fn(|request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTE)
        .serve_connection(TokioIo::new(stream), answer);
    match tokio::time::timeout(WITHIN, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(what, %error, "a connection broke"),
        Err(_) => debug!(what, "a connection took too long"),
    }
}
