//! Late admission: whether the job that a runner was given is the one that may run here.
//!
//! GitHub hands a job to any runner whose labels fit, not to the one that was made for it. So a runner is told to run a
//! hook before the first step, which holds the job, says what it was given, and waits:
//!
//! ```text
//!  listener ─► hook ─► `__job-started` ─ Message ─► door ─► GitHub's API ─► pick ─► judge ─┬─ Go   → the hook ends with 0
//!                           ▲                                                              └─ Stop → the hook stays, and the
//!                           └────────────────────── Answer ◄───────────────────────────────┘         listener is interrupted
//! ```
//!
//! The message comes from inside the sandbox. It says what to ask GitHub for, and must agree with what GitHub says;
//! which job it is, is what GitHub's API tells of *this* runner, and nothing else.
//!
//! A hook that fails stops nothing: steps with `if: always()` run after it. So the hook ends in one way only, with 0 after
//! [`Answer::Go`], and whatever else happens it stays until it is killed; see [`hook`]. When it is gone before it was
//! answered, the job may already run: see [`course`].
//!
//! Here it is decided and described. The door is [`crate::daemon::door`], its folder [`crate::host::entrance`].

pub mod course;
pub mod hook;
mod message;

use serde::{Deserialize, Serialize};

pub use message::{LONGEST, Message, MessageError};

use super::run::{Job, Run};
use crate::job::Repo;
use crate::trust::{Decision, Route};

/// What a hook is answered, as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// The job may run.
    Go,
    /// It may not. Whoever reads the job's log may read this.
    Stop {
        /// Why.
        reason: String,
    },
}

/// A runner, as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runner<'a> {
    /// GitHub's id of it.
    pub id: u64,
    /// Its name.
    pub name: &'a str,
}

/// What is known of a job that waits, from GitHub and from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The repository that GitHub was asked about.
    pub repo: &'a Repo,
    /// Our runner, in the slot whose door it is.
    pub runner: Runner<'a>,
    /// The job that GitHub says this runner has, see [`pick`].
    pub job: &'a Job,
    /// Its run.
    pub run: &'a Run,
    /// What trust makes of that run.
    pub decision: &'a Decision,
}

/// Whether a job may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Go,
    /// It may not.
    Stop(Reason),
}

/// Why a job may not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The message is of another runner.
    #[error("the job says that it has runner `{said}`, and this is `{ours}`")]
    RunnerName {
        /// What the message says.
        said: String,
        /// Our runner's name.
        ours: String,
    },
    /// GitHub says that another runner has the job, or none.
    #[error("github says that job {job} has {has}, and this is runner {id} `{name}`")]
    Runner {
        /// The job.
        job: u64,
        /// Which runner has it, in words.
        has: String,
        /// Our runner's id.
        id: u64,
        /// Its name.
        name: String,
    },
    /// The job does not run.
    #[error("github says that job {job} is `{status}` and not in progress")]
    Status {
        /// The job.
        job: u64,
        /// What it is.
        status: String,
    },
    /// The run is over.
    #[error("github says that run {run} is over")]
    RunIsOver {
        /// The run.
        run: u64,
    },
    /// The message, the job and the run are not of one repository.
    #[error("the job says that it is of {said}, the run is of `{run}`, and {asked} was asked about")]
    Repository {
        /// What the message says.
        said: Repo,
        /// What the run says.
        run: String,
        /// What was asked about.
        asked: Repo,
    },
    /// The message, the job and the run are not of one run.
    #[error(
        "the job says that it is of run {}, attempt {}; github says run {}, attempt {}",
        said.0, said.1, found.0, found.1
    )]
    Run {
        /// Run and attempt that the message says.
        said: (u64, u64),
        /// Those that GitHub says, of the job or of the run, whichever differs.
        found: (u64, u64),
    },
    /// Trust looked at another event than the job was caused by.
    #[error("the job says that `{said}` caused it; github says `{found}`")]
    Event {
        /// What the message says.
        said: String,
        /// What the run says.
        found: String,
    },
    /// Trust does not send it here.
    #[error(
        "{} may not run on this host but goes to `{}`: {}\nhint: `ephemerd route` tells why; other jobs with these labels reach this runner too",
        repo, route.as_str(), reason
    )]
    Trust {
        /// Whose job it is.
        repo: Repo,
        /// Where it goes.
        route: Route,
        /// Why.
        reason: String,
    },
}

impl Reason {
    /// Whether it may be that GitHub told of the run as it was before the job began: it answers from copies, and a run that
    /// was started again is one that was over.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::RunIsOver { .. } => true,
            Self::Run { said, found } => said.0 == found.0 && said.1 > found.1,
            _ => false,
        }
    }
}

/// The job that `runner` has, among those GitHub lists. None when several say so, which cannot be: a runner of ours takes
/// one job.
pub fn pick<'a>(jobs: &'a [Job], runner: Runner<'_>) -> Option<&'a Job> {
    let is_ours = |job: &&Job| job.status == IN_PROGRESS && job.runner() == Some((runner.id, runner.name));
    let mut ours = jobs.iter().filter(is_ours);
    ours.next().filter(|_| ours.next().is_none())
}

/// How GitHub calls a job that a runner has.
const IN_PROGRESS: &str = "in_progress";

/// Says whether the job that says `claim` of itself may run.
///
/// `claim.sha` and `claim.job` decide nothing: the commit of a pull request's job is that of a merge which the run does not
/// name, and a job's key is not the name that GitHub lists it by.
pub fn judge(claim: &Message, evidence: &Evidence<'_>) -> Verdict {
    match objection(claim, evidence) {
        None => Verdict::Go,
        Some(reason) => Verdict::Stop(reason),
    }
}

fn objection(claim: &Message, evidence: &Evidence<'_>) -> Option<Reason> {
    let Evidence {
        repo,
        runner,
        job,
        run,
        decision,
    } = *evidence;
    if claim.runner != runner.name {
        return Some(Reason::RunnerName {
            said: claim.runner.clone(),
            ours: runner.name.to_owned(),
        });
    }
    let has = job.runner();
    if has != Some((runner.id, runner.name)) {
        let has = has.map_or_else(
            || "no runner".to_owned(),
            |(id, name)| format!("runner {id} `{name}`"),
        );
        return Some(Reason::Runner {
            job: job.id,
            has,
            id: runner.id,
            name: runner.name.to_owned(),
        });
    }
    if job.status != IN_PROGRESS {
        return Some(Reason::Status {
            job: job.id,
            status: job.status.clone(),
        });
    }
    let said = (claim.run_id, claim.run_attempt);
    let told = [(job.run_id, job.run_attempt), (run.id, run.run_attempt)];
    if let Some(found) = told.into_iter().find(|found| *found != said) {
        return Some(Reason::Run { said, found });
    }
    if run.status.as_deref() == Some("completed") {
        return Some(Reason::RunIsOver { run: run.id });
    }
    let is_of_run = run.repository.full_name.parse::<Repo>();
    if claim.repository != *repo || is_of_run.as_ref() != Ok(repo) {
        return Some(Reason::Repository {
            said: claim.repository.clone(),
            run: run.repository.full_name.clone(),
            asked: repo.clone(),
        });
    }
    if claim.event != run.event {
        return Some(Reason::Event {
            said: claim.event.clone(),
            found: run.event.clone(),
        });
    }
    match decision.route {
        Route::Native => None,
        route @ (Route::Vm | Route::Refuse) => Some(Reason::Trust {
            repo: repo.clone(),
            route,
            reason: decision.reason.clone(),
        }),
    }
}

#[cfg(test)]
mod tests;
