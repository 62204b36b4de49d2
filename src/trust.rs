//! Trust: may this job run on the bare host, and why.
//!
//! The allowlist `[trust.repos]` names repositories; what it does not name goes where `trust.default` says,
//! which by its type cannot be this host. Some jobs never run natively whatever the allowlist says: those
//! whose code does not provably come from the repository itself, and those of events that strangers can
//! cause. The nouns are here; `rules` decides, `checks` are what a native job must pass, `pattern` matches
//! names and branches.

mod checks;
mod pattern;
mod rules;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::vm::VmChoice;

pub use pattern::{Pattern, PatternError, branch_matches};
pub use rules::decide;

/// Events that may run natively. Each is caused by somebody who can write to the repository, or, for
/// `pull_request`, is native only when its head is the repository itself.
///
/// Names are those of GitHub's "Events that trigger workflows".
pub const NATIVE_EVENTS: [&str; 8] = [
    "push",
    "pull_request",
    "merge_group",
    "schedule",
    "workflow_dispatch",
    "repository_dispatch",
    "release",
    "create",
];

/// `[trust]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrustConfig {
    /// Where a job goes that no rule sends elsewhere.
    pub default: DefaultRoute,
    /// The rules of `[trust.repos]`, in the order of the file.
    pub repos: Vec<TrustRule>,
}

/// Where a job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// On this host, in a fenced slot.
    Native,
    /// In a throw-away virtual machine.
    Vm,
    /// Nowhere here.
    Refuse,
}

impl Route {
    /// The route's name as the configuration spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Vm => "vm",
            Self::Refuse => "refuse",
        }
    }
}

/// Where a job goes that no rule sends elsewhere: a [`Route`] that cannot be native.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefaultRoute {
    /// In a throw-away virtual machine.
    Vm,
    /// Nowhere here.
    Refuse,
}

impl From<DefaultRoute> for Route {
    fn from(default: DefaultRoute) -> Self {
        match default {
            DefaultRoute::Vm => Self::Vm,
            DefaultRoute::Refuse => Self::Refuse,
        }
    }
}

/// One entry of `[trust.repos]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrustRule {
    /// The repositories it is about.
    pub pattern: Pattern,
    /// Where their jobs run.
    pub route: Route,
    /// What must hold for `route` when that is native; the configuration refuses conditions on other routes.
    pub conditions: Conditions,
    /// Where a native job goes that this host cannot take, for a reason that is the host's.
    pub fallback: DefaultRoute,
    /// What guests of its jobs are like.
    pub vm: VmChoice,
}

impl TrustRule {
    /// The rule's name in reasons, for example `trust.repos."acme/*"`.
    pub fn name(&self) -> String {
        format!("trust.repos.\"{}\"", self.pattern)
    }
}

/// What must hold for a job to be native under a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conditions {
    /// Events of [`NATIVE_EVENTS`] that may be native; `None` is all of them.
    pub events: Option<BTreeSet<String>>,
    /// Which pull requests may be native.
    pub pull_requests: PullRequests,
    /// A label that a pull request must carry.
    pub require_label: Option<String>,
    /// Whether jobs caused by an actor whose name ends in `[bot]` may be native.
    pub allow_bots: bool,
    /// Patterns of the pushed branch, or of a pull request's base branch; `None` is every branch.
    pub branches: Option<Vec<String>>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            events: None,
            pull_requests: PullRequests::SameRepo,
            require_label: None,
            allow_bots: false,
            branches: None,
        }
    }
}

/// Which pull requests may be native.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullRequests {
    /// Those whose head is a branch of the repository itself.
    SameRepo,
    /// None.
    None,
}

/// Where a job runs, and everything that led there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Where the job runs.
    pub route: Route,
    /// Why, in one sentence.
    pub reason: String,
    /// The rule that decided: an entry's name, or `trust.default`.
    pub rule: String,
    /// Every consideration, in order.
    pub chain: Vec<String>,
    /// Where a native job goes that this host cannot take.
    #[serde(skip)]
    pub fallback: Option<DefaultRoute>,
    /// What the job's guest is like, should it get one.
    #[serde(skip)]
    pub vm: VmChoice,
}

impl Decision {
    /// The decision for a native job that this host cannot take, because of `why`.
    pub fn fall_back(mut self, why: &str, vm_backend: bool) -> Self {
        self.chain
            .push(format!("not native: {}", why.lines().next().unwrap_or(why)));
        if self.fallback == Some(DefaultRoute::Vm) && vm_backend {
            self.route = Route::Vm;
            self.reason = format!("{} falls back to vm: {why}", self.rule);
            self.chain.push(format!("{} falls back to vm", self.rule));
        } else {
            self.route = Route::Refuse;
            self.reason = why.to_owned();
        }
        self
    }

    /// The refusal of a job for which there is no guest; `why` not.
    #[must_use]
    pub fn but(mut self, why: &str) -> Self {
        self.route = Route::Refuse;
        self.reason = format!("{}, but {why}", self.reason);
        self
    }
}
