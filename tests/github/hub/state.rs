//! What the hub knows: repositories, runs, jobs, runners, tokens, and what it was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_lc_rs::rand;
use serde_json::Value;

use super::faults::Planned;
use super::scale_sets::ScaleSet;

/// Everything the hub knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Where the hub listens, without a slash at the end.
    pub(super) url: String,
    /// How many seconds the hub's clock is ahead of the host's.
    pub(super) clock_ahead_s: i64,
    pub(super) last_id: u64,
    pub(super) repositories: BTreeMap<String, Repository>,
    pub(super) pull_requests: BTreeMap<(String, u64), PullRequest>,
    pub(super) runs: BTreeMap<u64, Run>,
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) runners: BTreeMap<u64, Runner>,
    pub(super) groups: BTreeMap<u64, RunnerGroup>,
    pub(super) tokens: BTreeMap<String, Token>,
    pub(super) installations: BTreeMap<u64, Installation>,
    pub(super) scale_sets: BTreeMap<u64, ScaleSet>,
    /// Registration tokens, and the administrators' tokens got with them with the end of their life.
    pub(super) registrations: BTreeMap<String, Scope>,
    pub(super) admins: BTreeMap<String, (Scope, i64)>,
    pub(super) admin_life_s: i64,
    /// How long the tokens of installations are good.
    pub(super) token_life_s: i64,
    pub(super) planned: Vec<Planned>,
    pub(super) requests: Vec<Logged>,
    pub(super) violations: Vec<String>,
    pub(super) secrets: BTreeSet<String>,
    pub(super) counted_calls: u64,
    pub(super) stays_busy: bool,
    pub(super) runner_version: String,
    pub(super) fork_approval: String,
    pub(super) closing: bool,
    /// How long a poll is held when there is nothing to say.
    pub(super) long_poll: Duration,
    /// How many requests are held at gates.
    pub(super) held: u32,
}

/// A repository.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    pub(crate) id: u64,
    pub(crate) private: bool,
    pub(crate) fork: bool,
}

/// A pull request.
#[derive(Debug, Clone)]
pub(crate) struct PullRequest {
    pub(crate) labels: Vec<String>,
    pub(crate) author: String,
    pub(crate) head_repository: Option<String>,
    pub(crate) head_branch: String,
    pub(crate) head_sha: String,
}

/// A workflow run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) id: u64,
    pub(crate) repository: String,
    pub(crate) event: String,
    /// `None` when the fork is deleted.
    pub(crate) head_repository: Option<String>,
    pub(crate) head_branch: String,
    pub(crate) head_sha: String,
    pub(crate) actor: String,
    pub(crate) triggering_actor: String,
    pub(crate) attempt: u64,
    pub(crate) pull_request: Option<u64>,
    pub(crate) created_s: i64,
    pub(crate) cancelled: bool,
}

/// What a job does.
#[derive(Debug, Clone)]
pub(crate) struct JobSpec {
    pub(crate) name: String,
    pub(crate) labels: Vec<String>,
    pub(crate) steps: Vec<Step>,
    /// Its own environment, as its workflow states it.
    pub(crate) env: BTreeMap<String, String>,
    /// Waits for an approval before it is queued.
    pub(crate) waiting: bool,
}

/// A step of a job.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The command of its shell.
    pub(crate) run: String,
    /// Whether it has `if: always()`.
    pub(crate) always: bool,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for an approval.
    Waiting,
    /// Waits for a runner.
    Queued,
    /// A runner has it.
    InProgress,
    /// It ended.
    Completed,
}

/// A job of a run.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) run: u64,
    pub(crate) attempt: u64,
    pub(crate) spec: JobSpec,
    pub(crate) phase: Phase,
    pub(crate) conclusion: Option<String>,
    /// The id and the name of the runner that has or had it.
    pub(crate) runner: Option<(u64, String)>,
    pub(crate) created_s: i64,
    pub(crate) started_s: Option<i64>,
    pub(crate) completed_s: Option<i64>,
    /// The scale set that acquired it.
    pub(crate) acquired_by: Option<u64>,
    /// How often it was handed to a runner: more than once would be a double run.
    pub(crate) handed_out: u32,
}

/// Whom a runner may serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One repository, `owner/name`.
    Repository(String),
    /// The repositories of an organization that its runner group is open to.
    Organization(String),
}

/// A registered runner.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) labels: Vec<String>,
    pub(crate) group: u64,
    pub(crate) scope: Scope,
    pub(crate) scale_set: Option<u64>,
    /// The session of its listener, while there is one.
    pub(crate) session: Option<String>,
    pub(crate) busy: bool,
    /// The job it has.
    pub(crate) job: Option<u64>,
    /// Whether it had its one job.
    pub(crate) spent: bool,
    /// Whether its listener was told that its job is cancelled.
    pub(super) cancel_told: bool,
}

/// A runner group of an organization.
#[derive(Debug, Clone)]
pub(crate) struct RunnerGroup {
    pub(crate) name: String,
    /// `None`: every repository of the organization.
    pub(crate) repositories: Option<BTreeSet<String>>,
    pub(crate) allows_public: bool,
}

/// A credential that the hub gave out.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) app: bool,
    /// `None`: every repository.
    pub(crate) repositories: Option<BTreeSet<String>>,
    /// Name to `read` or `write`.
    pub(crate) permissions: BTreeMap<String, String>,
    pub(crate) expires_s: i64,
    pub(crate) revoked: bool,
}

/// An installation of the App.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    pub(crate) repositories: Option<BTreeSet<String>>,
    pub(crate) permissions: BTreeMap<String, String>,
}

/// A request that arrived, and how it was answered.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
    /// The `Authorization` header without its scheme.
    pub(crate) token: String,
    pub(crate) status: u16,
    /// Whether it named the ETag of an answer that the client has.
    pub(crate) conditional: bool,
    /// Whether it was taken from the rate limit.
    pub(crate) counted: bool,
}

impl State {
    /// The hub's clock, in Unix seconds.
    pub(super) fn now_s(&self) -> i64 {
        let since = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970");
        i64::try_from(since.as_secs()).expect("fits") + self.clock_ahead_s
    }

    /// A number that nothing else has.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A secret that a test can look for in logs.
    pub(super) fn secret(&mut self, prefix: &str) -> String {
        let secret = format!("{prefix}{}", random_hex());
        self.secrets.insert(secret.clone());
        secret
    }

    /// Whether a runner may be handed a job at all; GitHub looks at labels and access, never at who made the
    /// runner for which job.
    fn serves(&self, runner: &Runner, job: &Job) -> bool {
        let repository = &self.runs[&job.run].repository;
        if runner.scale_set.is_some() || job.acquired_by.is_some() {
            return runner.scale_set == job.acquired_by;
        }
        self.may_use(&runner.scope, runner.group, repository) && covers(&runner.labels, &job.spec.labels)
    }

    /// Whether jobs of a repository may go to runners of a scope and group.
    pub(super) fn may_use(&self, scope: &Scope, group: u64, repository: &str) -> bool {
        match scope {
            Scope::Repository(name) => name == repository,
            Scope::Organization(organization) => {
                let group = &self.groups[&group];
                repository.split('/').next() == Some(organization)
                    && group
                        .repositories
                        .as_ref()
                        .is_none_or(|it| it.contains(repository))
                    && (group.allows_public || self.repositories[repository].private)
            }
        }
    }

    /// Hands the oldest queued job that a runner may serve to it.
    pub(super) fn hand_out(&mut self, runner: u64) -> Option<u64> {
        let asking = self.runners.get(&runner)?;
        if asking.busy || asking.spent {
            return None;
        }
        let id = self
            .jobs
            .values()
            .find(|job| job.phase == Phase::Queued && self.serves(asking, job))?
            .id;
        let now = self.now_s();
        let runner = self.runners.get_mut(&runner)?;
        runner.busy = true;
        runner.spent = true;
        runner.job = Some(id);
        let named = (runner.id, runner.name.clone());
        let job = self.jobs.get_mut(&id)?;
        job.phase = Phase::InProgress;
        job.runner = Some(named);
        job.started_s = Some(now);
        job.handed_out += 1;
        self.tell_scale_set(id, "JobStarted");
        Some(id)
    }

    /// Ends a job; its runner, if it has one, had its one job and goes.
    pub(super) fn finish(&mut self, id: u64, conclusion: &str) {
        let now = self.now_s();
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.phase != Phase::Completed) else {
            return;
        };
        job.phase = Phase::Completed;
        job.conclusion = Some(conclusion.to_owned());
        job.completed_s = Some(now);
        let runner = job.runner.as_ref().map(|(id, _)| *id);
        self.tell_scale_set(id, "JobCompleted");
        if let Some(runner) = runner.and_then(|it| self.runners.get_mut(&it)) {
            runner.job = None;
            let id = runner.id;
            if !self.stays_busy {
                self.runners.remove(&id);
            }
        }
    }

    /// The jobs of the latest attempt of a run.
    pub(super) fn latest_jobs(&self, run: u64) -> impl Iterator<Item = &Job> {
        let attempt = self.runs[&run].attempt;
        self.jobs
            .values()
            .filter(move |job| job.run == run && job.attempt == attempt)
    }

    /// The status and the conclusion of a run, which follow from its jobs.
    pub(super) fn outcome(&self, run: u64) -> (&'static str, Option<&'static str>) {
        let phases: Vec<_> = self.latest_jobs(run).map(|job| job.phase).collect();
        if phases.iter().all(|it| *it == Phase::Completed) {
            let failed = self
                .latest_jobs(run)
                .any(|job| job.conclusion.as_deref() != Some("success"));
            let conclusion = if self.runs[&run].cancelled {
                "cancelled"
            } else if failed {
                "failure"
            } else {
                "success"
            };
            return ("completed", Some(conclusion));
        }
        let begun = phases
            .iter()
            .any(|it| matches!(it, Phase::InProgress | Phase::Completed));
        let queued = phases.contains(&Phase::Queued);
        (
            if begun {
                "in_progress"
            } else if queued {
                "queued"
            } else {
                "waiting"
            },
            None,
        )
    }
}

/// Whether all the labels that a job wants are among those of a runner; case does not matter.
pub(super) fn covers(has: &[String], wanted: &[String]) -> bool {
    wanted
        .iter()
        .all(|wanted| has.iter().any(|it| it.eq_ignore_ascii_case(wanted)))
}

/// 32 random hexadecimal digits.
pub(super) fn random_hex() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).expect("there is randomness");
    hex(&bytes)
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}
