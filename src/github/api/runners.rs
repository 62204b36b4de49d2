//! Runners: made just in time, listed, removed; and the groups that say whom they serve.

use serde::Deserialize;
use serde_json::json;

use super::{List, Scope, encoded};
use crate::github::client::{Call, Client, ClientError, Grant, Purpose, Reply};
use crate::github::secret::Secret;

/// A runner to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRunner {
    /// Its name, which no other runner of the scope may have.
    pub name: String,
    /// All its labels, 1 to 100; GitHub adds none, `self-hosted` neither, and stores them in lower case.
    pub labels: Vec<String>,
    /// Its group; 1 is the default one, and the only one of a repository.
    pub group: u64,
}

/// A runner that was made.
#[derive(Debug, Clone)]
pub struct JitRunner {
    /// Its id at GitHub.
    pub runner_id: u64,
    /// Its name.
    pub name: String,
    /// Its settings and credentials; [`crate::github::runner::jit`] unpacks them.
    pub encoded: Secret,
}

/// A runner as GitHub lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Runner {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Whether it has a job. It stays so for some time after a job, and when it has gone away in the middle of one.
    pub busy: bool,
    /// `online` or `offline`.
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    labels: Vec<Label>,
    /// Its group, where that is told.
    #[serde(default)]
    pub runner_group_id: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Label {
    name: String,
}

impl Runner {
    /// Whether its listener is connected.
    pub fn is_online(&self) -> bool {
        self.status.as_deref() == Some("online")
    }

    /// The names of its labels.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(|label| label.name.as_str())
    }
}

/// What became of a runner that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is not there, whether or not it was.
    Gone,
    /// It has a job, or GitHub has not noticed yet that it has none. To be tried again later, never forced.
    Busy,
}

/// A runner group of an organization.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RunnerGroup {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Which repositories may use it: `all`, `private` or `selected`.
    #[serde(default)]
    pub visibility: String,
    /// Whether it is the one that runners are in by default.
    #[serde(default)]
    pub default: bool,
    /// Whether public repositories may use it. Not told is taken for yes: nobody is to feel safe because of a gap.
    #[serde(default = "yes")]
    pub allows_public_repositories: bool,
    /// Whether only the workflows below may use it.
    #[serde(default)]
    pub restricted_to_workflows: bool,
    /// Those workflows: `owner/repo/.github/workflows/ci.yml@refs/heads/main`.
    #[serde(default)]
    pub selected_workflows: Vec<String>,
}

fn yes() -> bool {
    true
}

/// GitHub's answer to [`Client::generate_jit`].
#[derive(Deserialize)]
struct Generated {
    runner: Identified,
    encoded_jit_config: Secret,
}

#[derive(Deserialize)]
struct Identified {
    id: u64,
    name: String,
}

impl Client {
    /// Makes a runner for one job at most. A name that is taken is a [`ClientError::Conflict`]: the next try needs another
    /// name. After [`ClientError::Network`] or [`ClientError::TimedOut`] the runner may have been made all the same:
    /// [`Self::runners`] finds it by its name. (`POST …/actions/runners/generate-jitconfig`)
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn generate_jit(&self, scope: &Scope, runner: &NewRunner) -> Result<JitRunner, ClientError> {
        let NewRunner { name, labels, group } = runner;
        // The folder is replaced by the job's own when the configuration is unpacked; it must be relative here.
        let body = json!({"name": name, "runner_group_id": group, "labels": labels, "work_folder": "_work"});
        let path = format!("{}/generate-jitconfig", scope.runners());
        let call = Call::post(scope.grant(), path, Some(body));
        let Generated {
            runner,
            encoded_jit_config,
        } = self.call(call, Reply::json).await?;
        Ok(JitRunner {
            runner_id: runner.id,
            name: runner.name,
            encoded: encoded_jit_config,
        })
    }

    /// The runners of a scope, or those of a name (`GET …/actions/runners`).
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn runners(&self, scope: &Scope, name: Option<&str>) -> Result<List<Runner>, ClientError> {
        let path = match name {
            Some(name) => format!("{}?name={}", scope.runners(), encoded(name)),
            None => scope.runners(),
        };
        self.list(scope.grant(), path, "runners").await
    }

    /// Removes a runner, unless it has a job (`DELETE …/actions/runners/{runner_id}`).
    ///
    /// # Errors
    /// Any [`ClientError`], but not that it does not exist, nor that it is busy.
    pub async fn delete_runner(&self, scope: &Scope, runner: u64) -> Result<Deletion, ClientError> {
        let path = format!("{}/{runner}", scope.runners());
        match self.call(Call::delete(scope.grant(), path), |_| Ok(())).await {
            Ok(()) | Err(ClientError::NotFound { .. }) => Ok(Deletion::Gone),
            // Told apart from other refusals by nothing but the status; GitHub has no other reason for it here.
            Err(ClientError::Unprocessable { status: 422, .. }) => Ok(Deletion::Busy),
            Err(error) => Err(error),
        }
    }

    /// The runner groups of an organization (`GET /orgs/{org}/actions/runner-groups`).
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn runner_groups(&self, org: &str) -> Result<List<RunnerGroup>, ClientError> {
        let path = format!("/orgs/{}/actions/runner-groups", encoded(org));
        self.list(Grant::Installation(Purpose::OrgRunners), path, "runner_groups")
            .await
    }

    /// The repositories that may use a group whose visibility is `selected`
    /// (`GET /orgs/{org}/actions/runner-groups/{runner_group_id}/repositories`).
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn runner_group_repositories(
        &self,
        org: &str,
        group: u64,
    ) -> Result<List<super::about::Repository>, ClientError> {
        let path = format!(
            "/orgs/{}/actions/runner-groups/{group}/repositories",
            encoded(org)
        );
        self.list(Grant::Installation(Purpose::OrgRunners), path, "repositories")
            .await
    }
}
