//! Arguments that say where a job comes from, shared by `route`, `submit` and `exec`.

use clap::Args;

use crate::job::{Origin, Repo};

/// Where a job comes from, apart from its repository.
#[derive(Debug, Clone, Args)]
pub struct OriginArgs {
    /// The event, as GitHub names it.
    #[arg(long, value_name = "EVENT", default_value = "push")]
    pub event: String,
    /// The repository the code comes from; without it the repository itself, and for pull requests unknown.
    #[arg(long, value_name = "OWNER/NAME")]
    pub head: Option<Repo>,
    /// The branch pushed to, or a pull request's base branch.
    #[arg(long, value_name = "BRANCH")]
    pub branch: Option<String>,
    /// A label of the pull request; may be repeated.
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,
    /// Who caused the event.
    #[arg(long, value_name = "LOGIN")]
    pub actor: Option<String>,
}

impl OriginArgs {
    /// The origin of a job of `repo`.
    pub fn origin(&self, repo: &Repo) -> Origin {
        let is_pull_request = self.event.starts_with("pull_request");
        Origin {
            repo: repo.clone(),
            event: self.event.clone(),
            head: self
                .head
                .clone()
                .or_else(|| (!is_pull_request).then(|| repo.clone())),
            branch: self.branch.clone(),
            labels: self.labels.clone(),
            actor: self.actor.clone(),
        }
    }
}
