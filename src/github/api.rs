//! What GitHub is asked for: one function for each question, with its path, the permission it needs and what is made of
//! the answer.
//!
//! Answers are read leniently. GitHub adds members and leaves some null, so that only what is used is demanded, and an entry
//! of a list that cannot be read is left out and counted: one strange run must not hide all others. Lists are read to
//! their last page.
//!
//! - [`runs`]: runs, jobs, pull requests.
//! - [`runners`]: runners, made, listed and removed; runner groups.
//! - [`scale_sets`]: scale sets, their sessions, messages and runners.
//! - [`about`]: repositories, the installation, limits, the latest runner.

pub mod about;
pub mod runners;
pub mod runs;
pub mod scale_sets;

use std::fmt::Write;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use super::ticket::Scope;

use super::client::{Call, Client, ClientError, Grant, Oddity, Purpose, Reply};

/// The most pages of a list, of a hundred entries each. An organization has up to 10,000 runners (docs.github.com, "Actions
/// limits"); a list of runs ends at 1,000.
const PAGES: usize = 100;

/// A list, whole but for what could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T> {
    /// Its entries, in GitHub's order.
    pub items: Vec<T>,
    /// How many entries are missing because they could not be read. Whoever concludes something from what is not in a list
    /// must look at this first.
    pub unreadable: usize,
}

impl Scope {
    /// The path of its runners.
    pub(in crate::github) fn runners(&self) -> String {
        match self {
            Self::Repo(repo) => format!("/repos/{repo}/actions/runners"),
            Self::Org(org) => format!("/orgs/{}/actions/runners", encoded(org)),
        }
    }

    pub(in crate::github) fn grant(&self) -> Grant {
        match self {
            Self::Repo(repo) => Grant::Repo(repo.clone(), Purpose::Runners),
            Self::Org(_) => Grant::Installation(Purpose::OrgRunners),
        }
    }
}

/// A text as a part of an address: everything but what may stand there as it is, is written as `%XX` (RFC 3986, 2.3).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

impl Client {
    /// The value that a question is answered with.
    async fn value<T: DeserializeOwned>(&self, grant: Grant, path: String) -> Result<T, ClientError> {
        self.call(Call::get(grant, path), Reply::json).await
    }

    /// All pages of a list, whose entries are in the member `name`.
    async fn list<T: DeserializeOwned>(
        &self,
        grant: Grant,
        path: String,
        name: &str,
    ) -> Result<List<T>, ClientError> {
        let mut list = List {
            items: Vec::new(),
            unreadable: 0,
        };
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut target = format!("{path}{separator}per_page=100");
        for _ in 0..PAGES {
            let call = Call::get(grant.clone(), target);
            let (entries, next) = self.call(call, |reply| entries(reply, name)).await?;
            for entry in entries {
                match serde_json::from_value(entry) {
                    Ok(item) => list.items.push(item),
                    Err(_) => list.unreadable += 1,
                }
            }
            match next {
                Some(next) => target = next,
                None => {
                    if list.unreadable > 0 {
                        self.count_unreadable(list.unreadable);
                        tracing::warn!(
                            path,
                            unreadable = list.unreadable,
                            "entries of GitHub's list cannot be read"
                        );
                    }
                    return Ok(list);
                }
            }
        }
        let error = ClientError::NotGitHub {
            asked: format!("GET {path}"),
            oddity: Oddity::Endless(PAGES),
        };
        self.note(&error);
        Err(error)
    }
}

/// The entries of a page, and the next one.
fn entries(reply: &Reply, name: &str) -> Result<(Vec<Value>, Option<String>), ClientError> {
    let mut page: Value = reply.json()?;
    match page.get_mut(name).map(Value::take) {
        Some(Value::Array(entries)) => Ok((entries, reply.next.clone())),
        _ => Err(reply.odd(Oddity::NotJson(format!("there is no list `{name}`")))),
    }
}

/// What does not exist is nothing.
fn if_found<T>(answered: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answered {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_an_address() {
        assert_eq!(encoded("mac01-9f2c"), "mac01-9f2c");
        assert_eq!(
            encoded("a/b?c=d&e f#%\u{e4}"),
            "a%2Fb%3Fc%3Dd%26e%20f%23%25%C3%A4"
        );
        assert_eq!(
            Scope::Org("a/../b".into()).runners(),
            "/orgs/a%2F..%2Fb/actions/runners"
        );
    }
}
