//! What a question needs to be allowed: the narrowest token that may ask it.
//!
//! Tokens of an App are made for one repository and one purpose. Whoever gets hold of one can do that one thing, in that
//! one place, for an hour.

use serde::Serialize;
use serde_json::{Value, json};

use crate::github::secret::Secret;
use crate::job::Repo;

/// Which token a question is asked with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grant {
    /// The App's own, which says that it is the App and may look at its installations.
    App,
    /// For one repository.
    Repo(Repo, Purpose),
    /// For the whole installation.
    Installation(Purpose),
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// To read runs and jobs.
    Runs,
    /// To run jobs again.
    Reruns,
    /// To read pull requests.
    PullRequests,
    /// To make, list and delete runners of a repository.
    Runners,
    /// To read the settings of a repository.
    Settings,
    /// To make, list and delete runners of an organization, and read its runner groups.
    OrgRunners,
    /// To see what there is.
    Metadata,
}

impl Purpose {
    /// The permission, as docs.github.com, "Permissions required for GitHub Apps" lists it for the questions of a purpose.
    fn permission(self) -> (&'static str, &'static str) {
        match self {
            Self::Runs => ("actions", "read"),
            Self::Reruns => ("actions", "write"),
            Self::PullRequests => ("pull_requests", "read"),
            Self::Runners => ("administration", "write"),
            Self::Settings => ("administration", "read"),
            Self::OrgRunners => ("organization_self_hosted_runners", "write"),
            Self::Metadata => ("metadata", "read"),
        }
    }
}

impl Grant {
    /// The permission it needs, as GitHub writes it in `x-accepted-github-permissions`.
    pub(super) fn needs(&self) -> Option<String> {
        let (Self::Repo(_, purpose) | Self::Installation(purpose)) = self else {
            return None;
        };
        let (name, level) = purpose.permission();
        Some(format!("{name}={level}"))
    }

    /// What GitHub is asked for (`POST /app/installations/{installation_id}/access_tokens`).
    pub(super) fn body(&self) -> Value {
        let permissions = |purpose: &Purpose| {
            let (name, level) = purpose.permission();
            json!({ name: level })
        };
        match self {
            Self::App => Value::Null,
            Self::Repo(repo, purpose) => {
                json!({"repositories": [repo.name()], "permissions": permissions(purpose)})
            }
            Self::Installation(purpose) => json!({"permissions": permissions(purpose)}),
        }
    }
}

/// How long before its beginning an App's token says that it begins, because clocks differ (docs.github.com, "Generating
/// a JSON Web Token (JWT) for a GitHub App").
const BACKDATED_S: u64 = 60;

/// How long it lasts. Ten minutes are the most, counted by GitHub's clock; GitHub's own client takes nine.
const LIFE_S: u64 = 9 * 60;

#[derive(Serialize)]
struct Claims<'a> {
    iat: u64,
    exp: u64,
    iss: &'a str,
}

/// The App's own token; `now_unix_s` is by GitHub's clock.
pub(super) fn app_token(
    app: &str,
    key: &jsonwebtoken::EncodingKey,
    now_unix_s: u64,
) -> Result<Secret, jsonwebtoken::errors::Error> {
    let claims = Claims {
        iat: now_unix_s.saturating_sub(BACKDATED_S),
        exp: now_unix_s + LIFE_S,
        iss: app,
    };
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
    jsonwebtoken::encode(&header, &claims, key).map(Secret::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_for_one_repository_and_one_thing() {
        let repo: Repo = "acme/app".parse().unwrap();
        assert_eq!(
            Grant::Repo(repo.clone(), Purpose::Runners).body(),
            json!({"repositories": ["app"], "permissions": {"administration": "write"}})
        );
        assert_eq!(
            Grant::Repo(repo, Purpose::Runs).body(),
            json!({"repositories": ["app"], "permissions": {"actions": "read"}})
        );
        assert_eq!(
            Grant::Installation(Purpose::OrgRunners).body(),
            json!({"permissions": {"organization_self_hosted_runners": "write"}})
        );
        assert_eq!(
            Grant::Installation(Purpose::Metadata).needs().as_deref(),
            Some("metadata=read")
        );
        assert_eq!(Grant::App.needs(), None);
    }
}
