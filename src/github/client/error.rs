//! What can go wrong between us and GitHub, and whether asking again would help.
//!
//! No error holds a secret: GitHub's own words are cut, freed of control characters, and searched for the credential that
//! was sent, because what stands between us and GitHub may echo it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why GitHub did not give what it was asked for. `asked` is the method and the path.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// 401: GitHub does not take the credential, not even a new one.
    #[error(
        "{asked}: GitHub does not take our credential: {message}\nhint: was the token revoked, or is the key another App's? `ephemerd github check` tells more"
    )]
    Unauthorized {
        /// What was asked.
        asked: String,
        /// GitHub's words.
        message: String,
    },
    /// 403, and no limit: something that the credential may not do.
    #[error("{asked}: GitHub refuses: {message}\nhint: {}", needed(.needs.as_deref()))]
    Forbidden {
        /// What was asked.
        asked: String,
        /// GitHub's words.
        message: String,
        /// The permission that is needed, where GitHub says: `administration=write`.
        needs: Option<String>,
    },
    /// 404 or 410: it does not exist, or the credential does not see it.
    #[error(
        "{asked}: GitHub knows no such thing: {message}\nhint: it answers the same for what exists and the credential may not see"
    )]
    NotFound {
        /// What was asked.
        asked: String,
        /// GitHub's words.
        message: String,
    },
    /// 409: it collides with something that is there, such as a runner of the same name.
    #[error("{asked}: it collides with what is there: {message}")]
    Conflict {
        /// What was asked.
        asked: String,
        /// GitHub's words.
        message: String,
    },
    /// 422, or another 4xx: GitHub does not do this.
    #[error("{asked}: GitHub does not do this ({status}): {message}")]
    Unprocessable {
        /// What was asked.
        asked: String,
        /// The HTTP status.
        status: u16,
        /// GitHub's words.
        message: String,
    },
    /// A limit is reached: nothing is asked until it is over.
    #[error("{asked}: GitHub's limit is reached, and nothing is asked for {} s", .wait.as_secs())]
    Limited {
        /// What was asked, or was to be.
        asked: String,
        /// When the limit is over.
        until: Instant,
        /// How long that is from when this error was made.
        wait: Duration,
    },
    /// 5xx: GitHub itself is in trouble.
    #[error(
        "{asked}: GitHub answers {status}\nhint: https://www.githubstatus.com says whether others see it too"
    )]
    Server {
        /// What was asked.
        asked: String,
        /// The HTTP status.
        status: u16,
    },
    /// There was no connection, or it broke before an answer came. What was asked may have been done all the same.
    #[error("{asked}: no answer comes from GitHub")]
    Network {
        /// What was asked.
        asked: String,
        /// What the connection says.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The answer was not there in time. What was asked may have been done all the same.
    #[error("{asked}: no whole answer came within {} s", .after.as_secs_f32())]
    TimedOut {
        /// What was asked.
        asked: String,
        /// The deadline.
        after: Duration,
    },
    /// Somebody answered, and it was not the API of GitHub.
    #[error(
        "{asked}: this is no answer of GitHub's API: {oddity}\nhint: does a proxy or a portal answer in its place?"
    )]
    NotGitHub {
        /// What was asked.
        asked: String,
        /// What is wrong with the answer.
        oddity: Oddity,
    },
    /// The answer leads elsewhere, and was not followed.
    #[error(
        "{asked}: GitHub says to look at `{to}`, which is not followed\nhint: was the repository renamed? Name it as it is called now"
    )]
    Redirected {
        /// What was asked.
        asked: String,
        /// Where it leads.
        to: String,
    },
    /// There can be no client of these settings.
    #[error("{0}")]
    Setup(#[from] SetupError),
}

/// Why settings make no client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SetupError {
    /// The address is no address of an API.
    #[error(
        "`{}` is no address of GitHub's API\nhint: https://api.github.com, or https://HOST/api/v3 for a server of your own; http only to this host", .0.escape_debug()
    )]
    Url(String),
    /// The key of the App is no RSA key in PEM.
    #[error(
        "the private key of the App cannot be read\nhint: it is the .pem file that GitHub lets one download once"
    )]
    Key(#[source] jsonwebtoken::errors::Error),
    /// The credential has characters that no credential has.
    #[error("the token has characters that no token has\nhint: is there nothing but the token in its file?")]
    Token,
    /// The certificates of this host cannot be read, so that nobody could be told from GitHub.
    #[error(
        "the certificate authorities of this host cannot be read\nhint: install the package ca-certificates"
    )]
    Roots(#[source] Arc<std::io::Error>),
}

/// What is wrong with an answer that is not GitHub's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Oddity {
    /// A page for people.
    Html,
    /// Another type than JSON, or none.
    ContentType(String),
    /// What claims to be JSON is none, or lacks what was asked for.
    NotJson(String),
    /// More than is ever read; the limit in bytes.
    TooLarge(usize),
    /// It ended before its end.
    Cut,
    /// A list that has more than so many pages.
    Endless(usize),
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Html => f.write_str("a page in HTML"),
            Self::ContentType(kind) if kind.is_empty() => f.write_str("it does not say what it is"),
            Self::ContentType(kind) => write!(f, "it is `{}` instead of JSON", kind.escape_debug()),
            Self::NotJson(why) => write!(f, "it is no JSON that we know: {why}"),
            Self::TooLarge(limit) => write!(f, "it is larger than {limit} bytes"),
            Self::Cut => f.write_str("it ends in the middle"),
            Self::Endless(pages) => write!(f, "a list of more than {pages} pages"),
        }
    }
}

/// Whether the same may be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The answer would be the same, or the question has to change first: a runner needs another name after a conflict.
    Never,
    /// Whenever whoever asks would ask again.
    Soon,
    /// Not before so much time has passed.
    After(Duration),
}

impl ClientError {
    /// Whether asking the same again could help. The client itself never does, but for a new token after a 401.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Unprocessable { .. }
            | Self::Redirected { .. }
            | Self::Setup(_) => Retry::Never,
            Self::Limited { wait, .. } => Retry::After(*wait),
            Self::Server { .. } | Self::Network { .. } | Self::TimedOut { .. } | Self::NotGitHub { .. } => {
                Retry::Soon
            }
        }
    }
}

fn needed(needs: Option<&str>) -> String {
    match needs {
        Some(needs) => format!("the credential needs the permission {needs}"),
        None => "what may the App or the token do, and for which repositories?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_what_was_asked_and_the_remedy() {
        let asked = || "POST /repos/o/r/actions/runners/generate-jitconfig".to_owned();
        let refused = ClientError::Forbidden {
            asked: asked(),
            message: "Resource not accessible by integration".into(),
            needs: Some("administration=write".into()),
        };
        insta::assert_snapshot!(refused, @r"
        POST /repos/o/r/actions/runners/generate-jitconfig: GitHub refuses: Resource not accessible by integration
        hint: the credential needs the permission administration=write
        ");
        let page = ClientError::NotGitHub {
            asked: asked(),
            oddity: Oddity::Html,
        };
        insta::assert_snapshot!(page, @r"
        POST /repos/o/r/actions/runners/generate-jitconfig: this is no answer of GitHub's API: a page in HTML
        hint: does a proxy or a portal answer in its place?
        ");
        let url = ClientError::from(SetupError::Url("ftp://x".into()));
        insta::assert_snapshot!(url, @r"
        `ftp://x` is no address of GitHub's API
        hint: https://api.github.com, or https://HOST/api/v3 for a server of your own; http only to this host
        ");
    }

    #[test]
    fn only_what_passes_by_itself_is_worth_asking_again() {
        let asked = || "GET /x".to_owned();
        let wait = Duration::from_secs(30);
        let message = String::new;
        for (error, retry) in [
            (
                ClientError::Conflict {
                    asked: asked(),
                    message: message(),
                },
                Retry::Never,
            ),
            (
                ClientError::NotFound {
                    asked: asked(),
                    message: message(),
                },
                Retry::Never,
            ),
            (
                ClientError::Unprocessable {
                    asked: asked(),
                    status: 422,
                    message: message(),
                },
                Retry::Never,
            ),
            (
                ClientError::Server {
                    asked: asked(),
                    status: 502,
                },
                Retry::Soon,
            ),
            (
                ClientError::TimedOut {
                    asked: asked(),
                    after: wait,
                },
                Retry::Soon,
            ),
            (
                ClientError::NotGitHub {
                    asked: asked(),
                    oddity: Oddity::Cut,
                },
                Retry::Soon,
            ),
            (
                ClientError::Limited {
                    asked: asked(),
                    until: Instant::now(),
                    wait,
                },
                Retry::After(wait),
            ),
        ] {
            assert_eq!(error.retry(), retry, "{error}");
        }
    }
}
