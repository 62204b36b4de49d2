//! How a job ended, as one of a few words that never become more.

use crate::job::Outcome;

/// How a job ended, for a label and for a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobResult {
    /// The command succeeded.
    Ok,
    /// The command failed.
    Failed,
    /// A signal ended it that was not ours.
    Killed,
    /// It ran longer than allowed.
    TimedOut,
    /// It went over a limit.
    OverLimit,
    /// Somebody cancelled it.
    Cancelled,
    /// It may not run here, or cannot.
    Refused,
    /// Something of ours failed.
    Error,
    /// A runner of GitHub's that was given no job, or is too old.
    Idle,
}

impl JobResult {
    /// Every result.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Failed,
        Self::Killed,
        Self::TimedOut,
        Self::OverLimit,
        Self::Cancelled,
        Self::Refused,
        Self::Error,
        Self::Idle,
    ];

    /// What an outcome comes to.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Exited { .. } | Outcome::Ran { .. } if outcome.is_success() => Self::Ok,
            Outcome::Exited { .. } | Outcome::Ran { .. } => Self::Failed,
            Outcome::Signalled { .. } => Self::Killed,
            Outcome::TimedOut { .. } => Self::TimedOut,
            Outcome::OverLimit { .. } => Self::OverLimit,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Refused { .. } => Self::Refused,
            Outcome::Failed { .. } => Self::Error,
            Outcome::Idle | Outcome::Outdated => Self::Idle,
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Killed => "killed",
            Self::TimedOut => "timed_out",
            Self::OverLimit => "over_limit",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Error => "error",
            Self::Idle => "idle",
        }
    }
}
