//! Webhooks: GitHub tells that something about a job has changed, and it is looked at again sooner than otherwise.
//!
//! ```text
//!  head ─► is it a delivery? ─► body, bounded ─► signature ─► new? ─► event ─► repository ─► Hint
//! ```
//!
//! A delivery is a hint and nothing more: it names a repository, and what is the case there is asked of GitHub's API. GitHub
//! does not send a delivery again when it was lost, nor in order, and leaves out what trust depends on. So nothing depends
//! on one, and what a forged or repeated one could do is cost a question.
//!
//! The signature comes before everything that is in the body. Without a secret there is no [`Ear`].

mod deliveries;
mod signature;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

use super::secret::Secret;
use crate::job::Repo;
use crate::latest::Latest;
use deliveries::Deliveries;
use signature::Key;

/// The path that deliveries are sent to.
pub const PATH: &str = "/webhook";

/// Bytes a delivery may have. GitHub sends up to 25 MiB; those of jobs have some ten thousand, and a thousand steps make
/// them a few hundred thousand.
pub const LONGEST: usize = 512 * 1024;

/// Something has changed about the jobs of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// Which.
    pub repo: Repo,
}

/// What is known of a request before its body is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, without a query.
    pub path: &'a str,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `Content-Length`, where it is told.
    pub length: Option<u64>,
    /// `X-GitHub-Event`.
    pub event: Option<&'a str>,
    /// `X-GitHub-Delivery`.
    pub delivery: Option<&'a str>,
    /// `X-Hub-Signature-256`.
    pub signature: Option<&'a str>,
}

/// Why a request is no delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// There is nothing at this path.
    #[error("nothing is here\nhint: the webhook's URL ends in {PATH}")]
    Path,
    /// Deliveries are posted.
    #[error("only POST is understood")]
    Method,
    /// It is not JSON.
    #[error("only application/json is understood\nhint: set the webhook's content type to application/json")]
    ContentType,
    /// It is too large.
    #[error("more than {LONGEST} bytes")]
    TooLarge,
    /// It does not say which event it is, or which delivery.
    #[error("not a delivery of github: X-GitHub-Event or X-GitHub-Delivery is missing or too long")]
    Headers,
    /// It is not signed.
    #[error("not signed\nhint: set the webhook's secret to the one in the configuration")]
    Unsigned,
    /// Another secret has signed it, or another text.
    #[error("the signature is wrong\nhint: set the webhook's secret to the one in the configuration")]
    Signature,
    /// It is signed, and says nothing that is understood.
    #[error("the body is not what github sends for this event")]
    Body,
}

impl Refusal {
    /// The status it is answered with (RFC 9110).
    pub fn status(self) -> u16 {
        match self {
            Self::Path => 404,
            Self::Method => 405,
            Self::ContentType => 415,
            Self::TooLarge => 413,
            Self::Unsigned | Self::Signature => 401,
            Self::Headers | Self::Body => 400,
        }
    }
}

/// What a delivery means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Something has changed.
    Hint(Hint),
    /// Nothing that matters here.
    Ignored(Ignored),
}

/// Why a delivery does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// GitHub tries the webhook out.
    Ping,
    /// It is of another event.
    Event,
    /// It was heard before.
    Again,
    /// The job waits for somebody's approval; there will be another delivery.
    Waiting,
    /// It is of a repository that is none of ours.
    Repository,
}

/// There is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the webhook has no secret, so nobody could tell github's deliveries from others\nhint: set one here and in the webhook's settings at GitHub"
)]
pub struct NoSecret;

/// Understands deliveries.
#[derive(Debug)]
pub struct Ear {
    key: Key,
    repos: Arc<Latest<BTreeSet<Repo>>>,
    heard: Deliveries,
}

/// What of a `workflow_job` payload is looked at.
#[derive(Deserialize)]
struct Payload {
    action: String,
    repository: Repository,
}

#[derive(Deserialize)]
struct Repository {
    full_name: Repo,
}

/// Bytes that an event's name or a delivery's id may have; GitHub's have some twenty and 36.
const LONGEST_NAME: usize = 100;

impl Head<'_> {
    /// Whether this may be a delivery, as far as can be said before its body is read.
    ///
    /// # Errors
    /// It is none.
    pub fn check(&self) -> Result<(), Refusal> {
        let is_name = |text: &str| {
            !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(|b| b.is_ascii_graphic())
        };
        // `; charset=utf-8` may follow.
        let kind = self
            .content_type
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default();
        if self.path != PATH {
            Err(Refusal::Path)
        } else if self.method != "POST" {
            Err(Refusal::Method)
        } else if !kind.trim().eq_ignore_ascii_case("application/json") {
            Err(Refusal::ContentType)
        } else if self.length.is_some_and(|length| length > LONGEST as u64) {
            Err(Refusal::TooLarge)
        } else if !(self.event.is_some_and(is_name) && self.delivery.is_some_and(is_name)) {
            Err(Refusal::Headers)
        } else if self.signature.is_none() {
            Err(Refusal::Unsigned)
        } else {
            Ok(())
        }
    }
}

impl Ear {
    /// Understands deliveries that `secret` has signed, about `repos`.
    ///
    /// # Errors
    /// The secret is empty.
    pub fn new(secret: &Secret, repos: BTreeSet<Repo>) -> Result<Self, NoSecret> {
        let heard = Deliveries::default();
        let key = Key::new(secret).ok_or(NoSecret)?;
        let repos = Arc::new(Latest::new(repos));
        Ok(Self { key, repos, heard })
    }

    /// The repositories that it hears of, for whoever may change them.
    pub fn repos(&self) -> Arc<Latest<BTreeSet<Repo>>> {
        Arc::clone(&self.repos)
    }

    /// Says what a request means.
    ///
    /// # Errors
    /// It is no delivery that the secret has signed.
    pub fn hear(&mut self, head: &Head<'_>, body: &[u8]) -> Result<Heard, Refusal> {
        head.check()?;
        if body.len() > LONGEST {
            return Err(Refusal::TooLarge);
        }
        let (Some(event), Some(delivery)) = (head.event, head.delivery) else {
            return Err(Refusal::Headers);
        };
        let tag = self
            .key
            .verify(head.signature.ok_or(Refusal::Unsigned)?, body)
            .ok_or(Refusal::Signature)?;
        // Before anything follows from it.
        if !self.heard.note(delivery, tag) {
            return Ok(Heard::Ignored(Ignored::Again));
        }
        match event {
            "workflow_job" => {
                let payload: Payload = serde_json::from_slice(body).map_err(|_| Refusal::Body)?;
                let repo = payload.repository.full_name;
                Ok(match (payload.action.as_str(), self.repos.get().get(&repo)) {
                    (_, None) => Heard::Ignored(Ignored::Repository),
                    ("waiting", Some(_)) => Heard::Ignored(Ignored::Waiting),
                    // As the configuration writes it.
                    (_, Some(known)) => Heard::Hint(Hint { repo: known.clone() }),
                })
            }
            "ping" => Ok(Heard::Ignored(Ignored::Ping)),
            _ => Ok(Heard::Ignored(Ignored::Event)),
        }
    }
}

#[cfg(test)]
mod tests;
