//! What a job of ours is at GitHub: the nouns that the ledger remembers and people look for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::job::Repo;

/// One job of a workflow run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The repository whose workflow it is.
    pub repo: Repo,
    /// The run it belongs to.
    pub run: u64,
    /// Which attempt of the run, from 1.
    pub attempt: u64,
    /// GitHub's number of the job; one that is run again has another.
    pub job: u64,
    /// What the workflow calls it. Anybody who can open a pull request can write it.
    pub name: String,
    /// The pull request, where the run tells it: it does not for those of forks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<u64>,
    /// Its page.
    pub url: String,
}

/// What tells jobs apart whatever else is the same: repositories of one host share no numbers with those of another, and
/// a run that is run again gets jobs of other numbers. The owner and name are in lower case.
pub type Key = (String, u64);

impl Ticket {
    /// What tells it apart.
    pub fn key(&self) -> Key {
        (self.repo.as_str().to_ascii_lowercase(), self.job)
    }
}

/// Where a runner is registered, and so whose jobs it may be given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// At a repository.
    Repo(Repo),
    /// At an organisation, by name.
    Org(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repo(repo) => repo.fmt(f),
            Self::Org(org) => f.write_str(org),
        }
    }
}

/// A runner that was made, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// Where.
    pub scope: Scope,
    /// Its name: no two are the same, of this host or any other.
    pub name: String,
}

/// What GitHub knows of a job of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtGitHub {
    /// The job it was made for.
    pub ticket: Ticket,
    /// Its runner, once one is about to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Runner>,
    /// GitHub's number of that runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<u64>,
    /// The job the runner was given, which may be another than the one it was made for: GitHub goes by labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Ticket>,
}
