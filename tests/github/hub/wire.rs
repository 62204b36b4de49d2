//! Requests and answers, and connections that can break.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) raw_query: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Call {
    /// A header, or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The credential of the `Authorization` header, whatever its scheme.
    pub(super) fn credential(&self) -> &str {
        self.header("authorization").split_once(' ').map_or("", |it| it.1)
    }

    /// The parameters of the query.
    pub(super) fn query(&self) -> Vec<(String, String)> {
        let pairs = self.raw_query.split('&').filter(|it| !it.is_empty());
        pairs
            .map(|it| it.split_once('=').unwrap_or((it, "")))
            .map(|(name, value)| (decoded(name), decoded(value)))
            .collect()
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.query().into_iter().find(|it| it.0 == name).map(|it| it.1)
    }

    /// The body as JSON, or null.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Path and query.
    pub(super) fn target(&self) -> String {
        if self.raw_query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, self.raw_query)
        }
    }
}

/// Undoes percent-encoding; what is none stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let digits = text
            .get(at + 1..at + 3)
            .and_then(|it| u8::from_str_radix(it, 16).ok());
        let (byte, length) = match (bytes[at], digits) {
            (b'%', Some(byte)) => (byte, 3),
            (b'+', _) => (b' ', 1),
            (byte, _) => (byte, 1),
        };
        plain.push(byte);
        at += length;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            content_type: "application/json; charset=utf-8",
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self {
            body: Vec::new(),
            ..Self::json(status, &Value::Null)
        }
    }

    /// An error as the API words it.
    pub(super) fn error(status: u16, message: &str) -> Self {
        let url = "https://docs.github.com/rest";
        Self::json(
            status,
            &json!({"message": message, "documentation_url": url, "status": status.to_string()}),
        )
    }

    pub(super) fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// How a connection is to end: never early, at once, or after all but so many bytes of the next answer.
const WHOLE: usize = usize::MAX;
const AT_ONCE: usize = usize::MAX - 1;

/// The handle by which a request breaks its own connection.
#[derive(Debug, Clone)]
pub(super) struct Fuse(Arc<AtomicUsize>);

impl Fuse {
    /// The next write resets the connection.
    pub(super) fn reset(&self) {
        self.0.store(AT_ONCE, Ordering::SeqCst);
    }

    /// The next write lacks its last bytes, and is the last.
    pub(super) fn cut(&self, missing_byte: usize) {
        self.0.store(missing_byte, Ordering::SeqCst);
    }
}

/// A connection with a fuse.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    fuse: Fuse,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.fuse.0.load(Ordering::SeqCst) {
            WHOLE => Pin::new(&mut self.stream).poll_write(context, bytes),
            AT_ONCE => {
                // Unsent data is dropped, and the peer is told with RST.
                let _ = self.stream.set_zero_linger();
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            // Only the missing bytes are left: the connection is closed without RST, so that the peer sees the rest.
            missing if bytes.len() <= missing => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            missing => Pin::new(&mut self.stream).poll_write(context, &bytes[..bytes.len() - missing]),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Accepts connections with fuses.
#[derive(Debug)]
pub(super) struct Entrance(pub(super) TcpListener);

impl Listener for Entrance {
    type Io = Wire;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        (
            Wire {
                stream,
                fuse: Fuse(Arc::new(AtomicUsize::new(WHOLE))),
            },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Entrance>> for Fuse {
    fn connect_info(stream: IncomingStream<'_, Entrance>) -> Self {
        stream.io().fuse.clone()
    }
}
