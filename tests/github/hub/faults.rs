//! What can go wrong between a client and GitHub, made to happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::runners::broker_error;
use super::wire::{Call, Reply};

/// A fault of one answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The request is not looked at; this is the answer.
    Answer(u16, Value),
    /// The same with a page for people.
    Html(u16),
    /// The true answer ends in the middle of its body.
    Truncated,
    /// The true answer is padded to 10 MB.
    Huge,
    /// The true answer claims to be plain text.
    WrongType,
    /// The true answer begins with a byte order mark.
    ByteOrderMark,
    /// A redirect to the same place.
    RedirectLoop,
    /// The true answer, with a link to this as the next page.
    Next(String),
    /// A redirect elsewhere.
    Redirect(u16, String),
    /// The request waits at a gate before it is looked at.
    Hold(Gate),
    /// The connection is reset before the request is looked at.
    Reset,
    /// The request is carried out, and the connection reset instead of an answer.
    LoseAnswer,
    /// The hourly limit is used up; it is reset so many seconds from now.
    PrimaryLimit(i64),
    /// Too many requests at once; retry after so many seconds.
    SecondaryLimit(u64),
    /// The same by the other status, and in the header alone.
    TooMany(u64),
}

impl Fault {
    /// An error with GitHub's kind of body.
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer(
            status,
            json!({"message": "Injected", "documentation_url": "", "status": status.to_string()}),
        )
    }

    /// The broker's word that the runner is too old.
    pub(crate) fn version_too_old() -> Self {
        let message = "Runner version v2.320.0 is deprecated and cannot receive messages.";
        Self::Answer(403, broker_error(403, "RunnerVersionTooOld", message))
    }

    /// Another refusal of the broker, such as `RunnerSessionInvalid` or `HostedRunnerDeprovisioned`.
    pub(crate) fn broker(status: u16, kind: &str) -> Self {
        Self::Answer(status, broker_error(status, kind, kind))
    }

    /// The answer of a fault that needs no look at the request.
    pub(super) fn instead(&self, call: &Call, now_s: i64) -> Option<Reply> {
        let limit = |status, text: &str| Reply::error(status, text);
        match self {
            Self::Answer(status, body) => {
                let reply = Reply::json(*status, body);
                let is_kept = *status == 200 && call.method == "GET";
                Some(if is_kept { reply.with("etag", "W/\"injected\"".to_owned()) } else { reply })
            }
            Self::Html(status) => {
                let page = "<!DOCTYPE html><html><title>Unicorn!</title><p>This page is taking too long to load.</html>";
                Some(Reply { status: *status, content_type: "text/html", headers: Vec::new(), body: page.into() })
            }
            Self::RedirectLoop => Some(Reply::empty(302).with("location", call.target())),
            Self::Redirect(status, to) => Some(Reply::empty(*status).with("location", to.clone())),
            Self::PrimaryLimit(reset_s) => Some(
                limit(403, "API rate limit exceeded for installation.")
                    .with("x-ratelimit-remaining", "0".to_owned())
                    .with("x-ratelimit-reset", (now_s + reset_s).to_string()),
            ),
            Self::SecondaryLimit(retry_s) => Some(
                limit(403, "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.")
                    .with("retry-after", retry_s.to_string()),
            ),
            Self::TooMany(retry_s) => Some(limit(429, "Too Many Requests").with("retry-after", retry_s.to_string())),
            Self::Truncated | Self::Huge | Self::WrongType | Self::ByteOrderMark | Self::Next(_) => None,
            Self::Hold(_) | Self::Reset | Self::LoseAnswer => None,
        }
    }

    /// Spoils the true answer.
    pub(super) fn spoil(&self, reply: &mut Reply) {
        match self {
            Self::Huge => reply.body.resize(10 * 1024 * 1024, b' '),
            Self::WrongType => reply.content_type = "text/plain",
            Self::Next(to) => reply.headers.push(("link", format!("<{to}>; rel=\"next\""))),
            Self::ByteOrderMark => drop(reply.body.splice(0..0, *b"\xef\xbb\xbf")),
            Self::Answer(..)
            | Self::Html(_)
            | Self::RedirectLoop
            | Self::Redirect(..)
            | Self::PrimaryLimit(_)
            | Self::SecondaryLimit(_)
            | Self::TooMany(_) => {}
            Self::Truncated | Self::Hold(_) | Self::Reset | Self::LoseAnswer => {}
        }
    }
}

/// A fault that waits for its requests.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) pattern: String,
    pub(super) fault: Fault,
    pub(super) left: u32,
}

/// Holds requests until it is opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(AtomicBool, Notify)>);

impl Gate {
    /// Lets everything through that waits, or comes later.
    pub(crate) fn open(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    pub(super) async fn pass(&self) {
        let opened = self.0.1.notified();
        tokio::pin!(opened);
        opened.as_mut().enable();
        if !self.0.0.load(Ordering::SeqCst) {
            opened.await;
        }
    }
}

/// Whether a text is like a pattern, in which `*` stands for anything.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, rest)) => text.strip_prefix(before).is_some_and(|text| {
            (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))
        }),
    }
}
