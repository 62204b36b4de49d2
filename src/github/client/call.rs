//! A question to GitHub, and what was answered.

use bytes::Bytes;
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::clean;
use super::error::{ClientError, Oddity};
use super::grant::Grant;

/// A question.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// The path with its query, or the whole address of a page that GitHub named.
    pub(crate) target: String,
    pub(crate) grant: Grant,
    pub(crate) body: Option<Value>,
}

impl Call {
    /// A question that changes nothing.
    pub(crate) fn get(grant: Grant, path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            target: path.into(),
            grant,
            body: None,
        }
    }

    /// Something to be done.
    pub(crate) fn post(grant: Grant, path: impl Into<String>, body: Option<Value>) -> Self {
        Self {
            method: Method::POST,
            target: path.into(),
            grant,
            body,
        }
    }

    /// Something to be removed.
    pub(crate) fn delete(grant: Grant, path: impl Into<String>) -> Self {
        Self {
            method: Method::DELETE,
            target: path.into(),
            grant,
            body: None,
        }
    }

    /// What errors call it.
    pub(super) fn asked(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        // The address of a page is somebody else's words.
        format!("{} {}", self.method, clean(path, None))
    }
}

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(super) asked: String,
    /// The whole address that was asked.
    pub(super) address: String,
    pub(super) body: Bytes,
    /// The next page of a list.
    pub(crate) next: Option<String>,
}

impl Reply {
    /// The answer as a value.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // Not its text, which repeats values, and those may be secrets.
            let what = if error.is_data() {
                "a member is missing or of another kind"
            } else {
                "it does not parse"
            };
            self.odd(Oddity::NotJson(format!(
                "{what}, line {} column {}",
                error.line(),
                error.column()
            )))
        })
    }

    /// An error about this answer.
    pub(crate) fn odd(&self, oddity: Oddity) -> ClientError {
        ClientError::NotGitHub {
            asked: self.asked.clone(),
            oddity,
        }
    }
}
