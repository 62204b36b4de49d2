//! Runs, their jobs, and the labels of pull requests.

use serde::Deserialize;

use super::List;
use crate::github::client::{Call, Client, ClientError, Grant, Purpose};
use crate::github::run::{Job, Run};
use crate::job::Repo;

/// Where a run stands, as lists are asked for by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// Some of its jobs wait for a runner and none has begun.
    Queued,
    /// Some of its jobs have begun; others may still be queued, or become so.
    InProgress,
}

impl RunStatus {
    fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
        }
    }
}

/// The part of a pull request that a run does not tell.
#[derive(Debug, Deserialize)]
struct PullRequest {
    #[serde(default)]
    labels: Vec<Label>,
}

#[derive(Debug, Deserialize)]
struct Label {
    name: String,
}

impl Client {
    /// The runs of a repository that stand so; GitHub lists the newest thousand. Jobs wait in both kinds: those that need
    /// others are queued when their run is in progress. (`GET /repos/{owner}/{repo}/actions/runs`)
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn runs(&self, repo: &Repo, status: RunStatus) -> Result<List<Run>, ClientError> {
        let path = format!("/repos/{repo}/actions/runs?status={}", status.word());
        self.list(reading(repo), path, "workflow_runs").await
    }

    /// A run (`GET /repos/{owner}/{repo}/actions/runs/{run_id}`).
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn run(&self, repo: &Repo, run: u64) -> Result<Run, ClientError> {
        self.value(reading(repo), format!("/repos/{repo}/actions/runs/{run}"))
            .await
    }

    /// The jobs of a run's latest attempt (`GET /repos/{owner}/{repo}/actions/runs/{run_id}/jobs`).
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn jobs(&self, repo: &Repo, run: u64) -> Result<List<Job>, ClientError> {
        let path = format!("/repos/{repo}/actions/runs/{run}/jobs?filter=latest");
        self.list(reading(repo), path, "jobs").await
    }

    /// A job (`GET /repos/{owner}/{repo}/actions/jobs/{job_id}`).
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn job(&self, repo: &Repo, job: u64) -> Result<Job, ClientError> {
        self.value(reading(repo), format!("/repos/{repo}/actions/jobs/{job}"))
            .await
    }

    /// Runs a job again, and those that need it: a new attempt of its run, with new ids. GitHub refuses with 403 while the
    /// run is still running. (`POST /repos/{owner}/{repo}/actions/jobs/{job_id}/rerun`)
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn rerun_job(&self, repo: &Repo, job: u64) -> Result<(), ClientError> {
        let grant = Grant::Repo(repo.clone(), Purpose::Reruns);
        let call = Call::post(grant, format!("/repos/{repo}/actions/jobs/{job}/rerun"), None);
        self.call(call, |_| Ok(())).await
    }

    /// The labels of a pull request (`GET /repos/{owner}/{repo}/pulls/{pull_number}`).
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn pull_request_labels(&self, repo: &Repo, number: u64) -> Result<Vec<String>, ClientError> {
        let grant = Grant::Repo(repo.clone(), Purpose::PullRequests);
        let pull: PullRequest = self.value(grant, format!("/repos/{repo}/pulls/{number}")).await?;
        Ok(pull.labels.into_iter().map(|label| label.name).collect())
    }
}

fn reading(repo: &Repo) -> Grant {
    Grant::Repo(repo.clone(), Purpose::Runs)
}
