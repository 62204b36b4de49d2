//! What there is: repositories, the installation of the App, limits, the latest runner.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{List, if_found};
use crate::github::client::{Client, ClientError, Grant, Oddity, Purpose};
use crate::github::runner::tree::{Platform, Sha256};
use crate::github::runner::version::RunnerVersion;
use crate::job::Repo;

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Repository {
    /// Its name as it is now; GitHub answers to the old name of one that was renamed.
    pub full_name: Repo,
    /// Whether only those see it who are let. Not told is taken for no.
    #[serde(default)]
    pub private: bool,
    /// Whether it is a fork.
    #[serde(default)]
    pub fork: bool,
    /// Whether it can no longer be changed, and runs nothing.
    #[serde(default)]
    pub archived: bool,
}

/// An App where it is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The user or organization.
    pub account: Option<String>,
    /// What the App may do there: `administration` to `write`, and so on.
    pub permissions: BTreeMap<String, String>,
    /// Whether it is installed for all repositories, those included that do not exist yet.
    pub is_for_all: bool,
    /// Whether somebody has suspended it; nothing works then.
    pub is_suspended: bool,
}

#[derive(Debug, Deserialize)]
struct Installed {
    #[serde(default)]
    account: Option<Account>,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    #[serde(default)]
    repository_selection: String,
    #[serde(default)]
    suspended_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Account {
    login: Option<String>,
}

/// What is left of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct RateLimit {
    /// Requests in an hour.
    pub limit: u64,
    /// How many are left.
    pub remaining: u64,
    /// When all are there again, in seconds since 1970 by GitHub's clock.
    #[serde(rename = "reset")]
    pub reset_unix_s: u64,
}

#[derive(Debug, Deserialize)]
struct RateLimits {
    resources: Resources,
}

#[derive(Debug, Deserialize)]
struct Resources {
    core: RateLimit,
}

#[derive(Debug, Deserialize)]
struct Approval {
    approval_policy: String,
}

/// A release of the runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its version.
    pub version: RunnerVersion,
    notes: String,
}

impl Release {
    /// The hash of its archive for a platform, if its notes say it.
    pub fn sha256(&self, platform: Platform) -> Option<Sha256> {
        // The template of the notes is `releaseNote.md` of actions/runner.
        let (_, after) = self.notes.split_once(&format!("<!-- BEGIN SHA {platform} -->"))?;
        let (hash, _) = after.split_once("<!-- END SHA")?;
        hash.trim().parse().ok()
    }
}

#[derive(Debug, Deserialize)]
struct Published {
    tag_name: String,
    #[serde(default)]
    body: Option<String>,
}

impl Client {
    /// A repository (`GET /repos/{owner}/{repo}`).
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn repository(&self, repo: &Repo) -> Result<Repository, ClientError> {
        let grant = Grant::Repo(repo.clone(), Purpose::Metadata);
        self.value(grant, format!("/repos/{repo}")).await
    }

    /// The repositories that the App is installed for (`GET /installation/repositories`). For Apps only: GitHub refuses
    /// personal tokens.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn repositories(&self) -> Result<List<Repository>, ClientError> {
        let grant = Grant::Installation(Purpose::Metadata);
        self.list(grant, "/installation/repositories".to_owned(), "repositories")
            .await
    }

    /// The App where it is installed, with what it may do there; `None` without an App
    /// (`GET /app/installations/{installation_id}`). A token with all permissions would tell the same, and be a risk.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn installation(&self) -> Result<Option<Installation>, ClientError> {
        let Some(id) = self.installation_id() else {
            return Ok(None);
        };
        let Installed {
            account,
            permissions,
            repository_selection,
            suspended_at,
        } = self.value(Grant::App, format!("/app/installations/{id}")).await?;
        Ok(Some(Installation {
            account: account.and_then(|it| it.login),
            permissions,
            is_for_all: repository_selection == "all",
            is_suspended: suspended_at.is_some(),
        }))
    }

    /// Whose pull requests from forks wait for an approval before they run: `first_time_contributors_new_to_github`,
    /// `first_time_contributors` or `all_external_contributors`. `None` where GitHub does not say, as older servers do
    /// not. (`GET /repos/{owner}/{repo}/actions/permissions/fork-pr-contributor-approval`)
    ///
    /// # Errors
    /// Any [`ClientError`] but that there is no such setting.
    pub async fn fork_approval(&self, repo: &Repo) -> Result<Option<String>, ClientError> {
        let grant = Grant::Repo(repo.clone(), Purpose::Settings);
        let path = format!("/repos/{repo}/actions/permissions/fork-pr-contributor-approval");
        let approval: Option<Approval> = if_found(self.value(grant, path).await)?;
        Ok(approval.map(|it| it.approval_policy))
    }

    /// What is left of the limit; asking costs nothing (`GET /rate_limit`).
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn rate_limit(&self) -> Result<RateLimit, ClientError> {
        let grant = Grant::Installation(Purpose::Metadata);
        let limits: RateLimits = self.value(grant, "/rate_limit".to_owned()).await?;
        Ok(limits.resources.core)
    }

    /// The latest release of the runner (`GET /repos/actions/runner/releases/latest`). On a server of one's own ask with a
    /// client of github.com that is nobody's: that is where releases are.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn latest_runner(&self) -> Result<Release, ClientError> {
        let grant = Grant::Installation(Purpose::Metadata);
        let call = super::Call::get(grant, "/repos/actions/runner/releases/latest");
        self.call(call, |reply| {
            let Published { tag_name, body } = reply.json()?;
            let wrong = |_| reply.odd(Oddity::NotJson("`tag_name` is no version".to_owned()));
            Ok(Release {
                version: tag_name.parse().map_err(wrong)?,
                notes: body.unwrap_or_default(),
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::runner::tree::Arch;
    use crate::host::Os;

    #[test]
    fn the_hash_of_an_archive_is_in_the_notes() {
        let (mac, linux) = ("0a".repeat(32), "1b".repeat(32));
        let notes = format!(
            "- actions-runner-osx-arm64-2.336.0.tar.gz <!-- BEGIN SHA osx-arm64 -->{mac}<!-- END SHA osx-arm64 -->\n\
             - actions-runner-linux-x64-2.336.0.tar.gz <!-- BEGIN SHA linux-x64 -->{linux}<!-- END SHA linux-x64 -->\n\
             - actions-runner-osx-x64-2.336.0.tar.gz <!-- BEGIN SHA osx-x64 --><OSX_X64_SHA><!-- END SHA osx-x64 -->\n"
        );
        let release = Release {
            version: "2.336.0".parse().unwrap(),
            notes,
        };
        let hash = |os, arch| {
            release
                .sha256(Platform { os, arch })
                .map(|it| it.as_str().to_owned())
        };
        assert_eq!(hash(Os::MacOs, Arch::Arm64), Some(mac));
        assert_eq!(hash(Os::Linux, Arch::X64), Some(linux));
        assert_eq!(hash(Os::MacOs, Arch::X64), None, "the place was not filled in");
        assert_eq!(hash(Os::Linux, Arch::Arm64), None, "there is no such place");
    }
}
