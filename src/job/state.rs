//! What happens next to a native job. Pure: [`step`] takes a state and an event and returns the next state
//! with the effects the driver must perform, in order; it reads no clock and touches nothing.
//!
//! ```text
//!            SlotGranted       Prepared         Started        cancel, time, limit
//!   Queued ─────────────► Preparing ──► Launching ──► Running ──────────────────────► Stopping ⟲ GraceOver
//!     │ refused,              │             │            │ exited, signalled, lost       │   (kill)
//!     │ cancelled,            │ refused, failed to start,│                               │ exited, lost,
//!     │ lost                  │ cancelled, lost          │                               │ second GraceOver
//!     │                       └─────────────┴────────────┴──────► Scrubbing ◄────────────┘
//!     ▼                                                               │ Scrubbed
//!   Done ◄────────────────────────────────────────────────────────────┘
//! ```
//!
//! - A job that got a slot passes `Scrub` exactly once, then exactly one of `ReleaseSlot` and
//!   `QuarantineSlot`; every job ends with exactly one `Report`.
//! - The first reason to stop is the outcome, whatever the command still does.
//! - A job over its limit, or without a protection, harms others while it is asked politely, so it is killed at
//!   once.
//! - No state waits for a process that may never answer: a kill without effect ends in `Scrubbing` after a
//!   second grace period, and the scrub then finds what is left.
//! - Events race. One that comes too late to matter (a second cancel, an exit while scrubbing) is **ignored**:
//!   same state, no effects. One that cannot happen in a state (`Started` while queued), and every event after
//!   `Done`, is [`Rejected`], which the driver logs; the state stays.
//!
//! What the driver owes: it ends or aborts one effect before it performs the next, and `Scrub` always leads
//! to `Scrubbed`; a scrub that could not be carried out names that as a leftover.
//! A dispatcher that follows a killed one goes on with a launched job in the state that it was in, from `Launching` on, and
//! sends one that was not launched back to `Queued`. When the warden was killed as well, every job is torn down by its ledger.

use serde::{Deserialize, Serialize};

use crate::job::Outcome;

/// The name of [`State::Queued`].
pub(crate) const QUEUED: &str = "queued";
/// The name of [`State::Preparing`].
pub(crate) const PREPARING: &str = "preparing";
/// The name of [`State::Launching`].
pub(crate) const LAUNCHING: &str = "launching";
/// The name of [`State::Running`].
pub(crate) const RUNNING: &str = "running";
/// The name of [`State::Scrubbing`].
pub(crate) const SCRUBBING: &str = "scrubbing";
/// The name of [`State::Done`].
pub(crate) const DONE: &str = "done";

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It waits for a slot and holds nothing.
    Queued,
    /// It has a slot; its workspace and profile are being made.
    Preparing,
    /// Its sandbox is being set up; the command does not run yet.
    Launching,
    /// Its command runs.
    Running,
    /// Its command was told to end.
    Stopping {
        /// Why; this becomes the outcome.
        why: StopWhy,
        /// Whether the kill was sent.
        killed: bool,
    },
    /// Everything it acquired is being undone.
    Scrubbing {
        /// How it ended.
        outcome: Outcome,
    },
    /// It is over.
    Done {
        /// How it ended.
        outcome: Outcome,
        /// Whether nothing of it was left.
        clean: bool,
    },
}

impl State {
    /// The state's name, as the ledger and `ephemerd jobs` show it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => QUEUED,
            Self::Preparing => PREPARING,
            Self::Launching => LAUNCHING,
            Self::Running => RUNNING,
            Self::Stopping { .. } => "stopping",
            Self::Scrubbing { .. } => SCRUBBING,
            Self::Done { .. } => DONE,
        }
    }
}

/// Why a running command was told to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopWhy {
    /// Somebody cancelled it.
    Cancelled,
    /// It ran longer than allowed.
    TimeLimit {
        /// The limit in seconds.
        limit_s: u64,
    },
    /// It went over another limit.
    OverLimit {
        /// Which limit, with the figures.
        what: String,
    },
    /// A protection that it needs is no longer there.
    Unprotected {
        /// Which, and why.
        why: String,
    },
    /// Its runner was given a job that may not run here.
    NotAdmitted {
        /// Why not.
        why: String,
    },
    /// Its runner was given no job for too long.
    Idle,
}

impl From<StopWhy> for Outcome {
    fn from(why: StopWhy) -> Self {
        match why {
            StopWhy::Cancelled => Self::Cancelled,
            StopWhy::TimeLimit { limit_s } => Self::TimedOut { limit_s },
            StopWhy::OverLimit { what } => Self::OverLimit { what },
            StopWhy::Unprotected { why } => Self::Failed { reason: why },
            StopWhy::NotAdmitted { why } => Self::Refused { reason: why },
            StopWhy::Idle => Self::Idle,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Trust, or what this host can enforce, forbids the job.
    Refused(String),
    /// A slot was claimed for it.
    SlotGranted,
    /// The workspace is made, the profile rendered and checked.
    Prepared,
    /// The sandbox proved itself ready and the command runs.
    Started,
    /// Something of ours failed before the command ran.
    FailedToStart(String),
    /// The command ended by itself.
    Exited {
        /// Its exit code.
        code: u8,
    },
    /// A signal ended the command.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// The command was GitHub's runner, and this is what its end means.
    RunnerEnded(Outcome),
    /// The runner has a job that may not run here, and still holds it.
    NotAdmitted(String),
    /// The runner has a job that may not run here, and may run it already.
    Escaped(String),
    /// The runner was given no job for too long.
    Idle,
    /// Somebody wants the job to end.
    CancelAsked,
    /// The command's time is up.
    TimeLimit {
        /// The limit in seconds.
        limit_s: u64,
    },
    /// Another limit is exceeded.
    LimitExceeded {
        /// Which limit, with the figures.
        what: String,
    },
    /// A protection that the job needs is no longer there.
    Unprotected(String),
    /// The grace period armed last is over.
    GraceOver,
    /// Whoever knew about the job's processes vanished.
    Lost(String),
    /// The scrub is over.
    Scrubbed {
        /// What it could not remove or verify; empty when clean.
        leftovers: Vec<String>,
    },
}

impl Event {
    /// The event's name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::SlotGranted => "slot granted",
            Self::Prepared => "prepared",
            Self::Started => "started",
            Self::FailedToStart(_) => "failed to start",
            Self::Exited { .. } => "exited",
            Self::Signalled { .. } => "signalled",
            Self::RunnerEnded(_) => "runner ended",
            Self::NotAdmitted(_) => "not admitted",
            Self::Escaped(_) => "escaped",
            Self::Idle => "idle",
            Self::CancelAsked => "cancel asked",
            Self::TimeLimit { .. } => "time limit",
            Self::LimitExceeded { .. } => "limit exceeded",
            Self::Unprotected(_) => "unprotected",
            Self::GraceOver => "grace over",
            Self::Lost(_) => "lost",
            Self::Scrubbed { .. } => "scrubbed",
        }
    }
}

/// Something the driver must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make the workspace, render and check the profile; answer with `Prepared`.
    AcquireWorkspace,
    /// Start the sandbox; answer with `Started`.
    Launch,
    /// Send SIGTERM to the job's processes.
    StopPolitely,
    /// Wait for the grace period; answer with `GraceOver`.
    ArmGrace,
    /// Send SIGKILL to the job's processes.
    Kill,
    /// Undo the ledger backwards and verify; answer with `Scrubbed`.
    Scrub,
    /// Give the slot back.
    ReleaseSlot,
    /// Take the slot out of use.
    QuarantineSlot {
        /// What was left.
        leftovers: Vec<String>,
    },
    /// Tell everyone who waits for the job.
    Report(Outcome),
}

/// Why an event was not taken; the job stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {state} cannot take the event `{event}`")]
pub struct Rejected {
    /// The state's name.
    pub state: &'static str,
    /// The event's name.
    pub event: &'static str,
}

/// The next state and the effects that lead there.
type Step = Result<(State, Vec<Effect>), Rejected>;

/// Returns what becomes of a job in `state` when `event` happens: the next state, and the effects to perform
/// in order. An event that comes too late to matter returns the same state and no effects.
///
/// # Errors
///
/// When the event cannot happen in this state, and for every event after `Done`.
pub fn step(state: &State, event: Event) -> Result<(State, Vec<Effect>), Rejected> {
    match state {
        State::Queued => queued(event),
        State::Preparing | State::Launching => starting(state, event),
        State::Running => running(event),
        State::Stopping { why, killed } => stopping(state, (why, *killed), &event),
        State::Scrubbing { outcome } => scrubbing(state, outcome, event),
        State::Done { .. } => reject(state, &event),
    }
}

fn queued(event: Event) -> Step {
    // Nothing was acquired, so there is nothing to scrub and no slot to settle.
    let end = |outcome: Outcome| {
        let done = State::Done {
            outcome: outcome.clone(),
            clean: true,
        };
        Ok((done, vec![Effect::Report(outcome)]))
    };
    match event {
        Event::SlotGranted => Ok((State::Preparing, vec![Effect::AcquireWorkspace])),
        Event::Refused(reason) => end(Outcome::Refused { reason }),
        Event::CancelAsked => end(Outcome::Cancelled),
        Event::Lost(reason) => end(Outcome::Failed { reason }),
        Event::Prepared
        | Event::Started
        | Event::FailedToStart(_)
        | Event::Exited { .. }
        | Event::Signalled { .. }
        | Event::RunnerEnded(_)
        | Event::NotAdmitted(_)
        | Event::Escaped(_)
        | Event::Idle
        | Event::TimeLimit { .. }
        | Event::LimitExceeded { .. }
        | Event::Unprotected(_)
        | Event::GraceOver
        | Event::Scrubbed { .. } => reject(&State::Queued, &event),
    }
}

/// `Preparing` and `Launching`: the command does not run, so whatever ends the job leads straight to the
/// scrub, which kills what may have been started.
fn starting(state: &State, event: Event) -> Step {
    match event {
        Event::Prepared if *state == State::Preparing => Ok((State::Launching, vec![Effect::Launch])),
        Event::Started if *state == State::Launching => Ok((State::Running, vec![])),
        Event::Exited { code } if *state == State::Launching => scrub(Outcome::Failed {
            reason: format!("the sandbox ended with code {code} before it was ready"),
        }),
        Event::Signalled { signal } if *state == State::Launching => scrub(Outcome::Failed {
            reason: format!("signal {signal} ended the sandbox before it was ready"),
        }),
        Event::Refused(reason) => scrub(Outcome::Refused { reason }),
        Event::FailedToStart(reason) | Event::Lost(reason) => scrub(Outcome::Failed { reason }),
        Event::CancelAsked => scrub(StopWhy::Cancelled.into()),
        Event::TimeLimit { limit_s } => scrub(StopWhy::TimeLimit { limit_s }.into()),
        Event::LimitExceeded { what } => scrub(StopWhy::OverLimit { what }.into()),
        Event::Unprotected(why) => scrub(StopWhy::Unprotected { why }.into()),
        Event::NotAdmitted(why) | Event::Escaped(why) => scrub(StopWhy::NotAdmitted { why }.into()),
        Event::Idle => scrub(StopWhy::Idle.into()),
        // Nothing of it ran before it was ready.
        Event::RunnerEnded(outcome) if *state == State::Launching => scrub(outcome),
        Event::SlotGranted
        | Event::Prepared
        | Event::Started
        | Event::Exited { .. }
        | Event::Signalled { .. }
        | Event::RunnerEnded(_)
        | Event::GraceOver
        | Event::Scrubbed { .. } => reject(state, &event),
    }
}

fn running(event: Event) -> Step {
    let ask = |why| {
        let stopping = State::Stopping { why, killed: false };
        Ok((stopping, vec![Effect::StopPolitely, Effect::ArmGrace]))
    };
    let kill = |why| {
        let stopping = State::Stopping { why, killed: true };
        Ok((stopping, vec![Effect::Kill, Effect::ArmGrace]))
    };
    match event {
        Event::Exited { code } => scrub(Outcome::Exited { code }),
        Event::Signalled { signal } => scrub(Outcome::Signalled { signal }),
        Event::Lost(reason) => scrub(Outcome::Failed { reason }),
        Event::CancelAsked => ask(StopWhy::Cancelled),
        Event::TimeLimit { limit_s } => ask(StopWhy::TimeLimit { limit_s }),
        Event::LimitExceeded { what } => kill(StopWhy::OverLimit { what }),
        Event::Unprotected(why) => kill(StopWhy::Unprotected { why }),
        Event::RunnerEnded(outcome) => scrub(outcome),
        Event::NotAdmitted(why) => ask(StopWhy::NotAdmitted { why }),
        Event::Escaped(why) => kill(StopWhy::NotAdmitted { why }),
        Event::Idle => ask(StopWhy::Idle),
        Event::Refused(_)
        | Event::SlotGranted
        | Event::Prepared
        | Event::Started
        | Event::FailedToStart(_)
        | Event::GraceOver
        | Event::Scrubbed { .. } => reject(&State::Running, &event),
    }
}

fn stopping(state: &State, (why, killed): (&StopWhy, bool), event: &Event) -> Step {
    match event {
        Event::Exited { .. } | Event::Signalled { .. } | Event::RunnerEnded(_) | Event::Lost(_) => {
            scrub(why.clone().into())
        }
        Event::GraceOver if killed => scrub(why.clone().into()),
        Event::Unprotected(_) | Event::Escaped(_) if killed => ignore(state),
        Event::GraceOver | Event::Unprotected(_) | Event::Escaped(_) => {
            let why = why.clone();
            Ok((
                State::Stopping { why, killed: true },
                vec![Effect::Kill, Effect::ArmGrace],
            ))
        }
        Event::CancelAsked
        | Event::TimeLimit { .. }
        | Event::LimitExceeded { .. }
        | Event::NotAdmitted(_)
        | Event::Idle => ignore(state),
        Event::Refused(_)
        | Event::SlotGranted
        | Event::Prepared
        | Event::Started
        | Event::FailedToStart(_)
        | Event::Scrubbed { .. } => reject(state, event),
    }
}

fn scrubbing(state: &State, outcome: &Outcome, event: Event) -> Step {
    match event {
        Event::Scrubbed { leftovers } => {
            let done = State::Done {
                outcome: outcome.clone(),
                clean: leftovers.is_empty(),
            };
            let slot = if leftovers.is_empty() {
                Effect::ReleaseSlot
            } else {
                Effect::QuarantineSlot { leftovers }
            };
            Ok((done, vec![slot, Effect::Report(outcome.clone())]))
        }
        // The scrub may begin while any of these is on its way.
        Event::Refused(_)
        | Event::Prepared
        | Event::Started
        | Event::FailedToStart(_)
        | Event::Exited { .. }
        | Event::Signalled { .. }
        | Event::RunnerEnded(_)
        | Event::NotAdmitted(_)
        | Event::Escaped(_)
        | Event::Idle
        | Event::CancelAsked
        | Event::TimeLimit { .. }
        | Event::LimitExceeded { .. }
        | Event::Unprotected(_)
        | Event::GraceOver
        | Event::Lost(_) => ignore(state),
        Event::SlotGranted => reject(state, &event),
    }
}

fn scrub(outcome: Outcome) -> Step {
    Ok((State::Scrubbing { outcome }, vec![Effect::Scrub]))
}

fn ignore(state: &State) -> Step {
    Ok((state.clone(), vec![]))
}

fn reject(state: &State, event: &Event) -> Step {
    Err(Rejected {
        state: state.name(),
        event: event.name(),
    })
}

#[cfg(test)]
mod tests;
