//! What stands in for the sandbox's init where there is none yet: it starts nothing.

use std::io;
use std::os::fd::OwnedFd;

use super::launch::LaunchPlan;

/// What a launch is given besides its plan.
#[derive(Debug)]
#[expect(dead_code, reason = "nothing is started here, so nothing of it is used")]
pub(crate) struct Given {
    /// Effective user and group outside.
    pub(crate) outer: (u32, u32),
    /// The job's standard input, output and error.
    pub(crate) job: [OwnedFd; 3],
    /// Where status lines go.
    pub(crate) status: OwnedFd,
}

/// Starts no jobs.
#[derive(Debug)]
pub(crate) struct Launcher;

impl Launcher {
    /// Fails: this version fences jobs on Linux only.
    pub(crate) fn new() -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this version fences native jobs on Linux only",
        ))
    }

    /// Fails as [`Launcher::new`] does.
    pub(crate) fn spawn(&self, plan: &LaunchPlan, _: Given) -> io::Result<i32> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("cannot start {} on this system", plan.job),
        ))
    }
}
