//! What a dispatcher leaves with the warden about a job, so that the next one can go on with it: see [`crate::warden::Memo`].

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::github::runner::jit::Packed;
use crate::job::ledger::AcquisitionId;
use crate::job::state::StopWhy;
use crate::job::{Acquisition, JobSpec};
use crate::sandbox::launch::LaunchPlan;
use crate::slot::Slot;

/// What the next dispatcher must know of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Memo {
    /// What it is.
    pub spec: JobSpec,
    /// What there is besides once it is launched. Its status socket, the pipe of its output and, of GitHub's runner, the
    /// socket of its hook are left with the memo, in this order.
    pub launched: Option<Launched>,
}

/// What there is to know of a job that is launched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launched {
    pub(super) plan: LaunchPlan,
    /// When its time is up, in milliseconds since 1970, once that is known.
    pub(super) until_ms: Option<u64>,
    /// Why it was told to end, once it was, and whether that left it no choice.
    pub(super) stopping: Option<(StopWhy, bool)>,
    pub(super) memory_peak_byte: Option<u64>,
    pub(super) relaunches: u32,
    /// What makes it GitHub's runner, where it is one.
    pub runner: Option<RunnerMemo>,
}

/// What makes a job GitHub's runner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunnerMemo {
    /// Its tree, by name.
    pub build: String,
    /// Its configuration.
    pub config: Packed,
    /// What runs before the first step of its job.
    pub hook: Option<Utf8PathBuf>,
    /// The time between asking it to end and killing it.
    pub grace: Duration,
    /// Whether its job was let through.
    pub admitted: bool,
}

/// A job that an earlier dispatcher has launched and that goes on.
#[derive(Debug)]
pub struct Resumed {
    /// What it is.
    pub spec: JobSpec,
    /// The slot that it has.
    pub slot: Slot,
    /// What the last dispatcher knew of it.
    pub launched: Launched,
    /// Whether its command was seen to run.
    pub(crate) is_running: bool,
    /// What it holds, newest last.
    pub(crate) held: Vec<(AcquisitionId, Acquisition)>,
    /// Where its first process says how it is.
    pub(crate) status: OwnedFd,
    /// What it writes.
    pub(crate) output: OwnedFd,
    /// Where its hook reports, of GitHub's runner.
    pub door: Option<OwnedFd>,
    /// Its first process, while it has one.
    pub pid: Option<i32>,
    /// Why it must not go on after all.
    pub unfit: Option<String>,
}

/// A moment that other processes know by the clock, in milliseconds since 1970.
pub(super) fn as_ms(moment: Instant) -> u64 {
    let left = moment.saturating_duration_since(Instant::now());
    let at = SystemTime::now().checked_add(left);
    let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or(u64::MAX)
}

/// The moment that the clock says; `None` when that is never.
pub(super) fn at_ms(ms: u64) -> Option<Instant> {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(ms))?;
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_same_for_the_next_dispatcher_and_one_that_is_over_is_over() {
        let moment = Instant::now() + Duration::from_secs(100);
        let found = at_ms(as_ms(moment)).unwrap();
        let apart = moment.max(found) - moment.min(found);
        assert!(apart < Duration::from_secs(1), "{apart:?}");
        assert!(at_ms(0).unwrap() <= Instant::now());
    }
}
