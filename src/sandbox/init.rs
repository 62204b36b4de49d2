//! The sandbox's init on Linux: the process that applies every protection to itself, proves it, and then
//! starts the job.
//!
//! It is a child of the single-threaded [warden](crate::warden), born into namespaces of its own, so ordinary
//! Rust is safe in it. The steps, in order; each has one name, and a failing one is reported by it:
//!
//! 1. `die-with-parent`: the kernel kills this process when the warden dies.
//! 2. `user-namespace`: only without root, the caller's own ids are mapped onto themselves.
//! 3. `session`: a session of its own, without a terminal.
//! 4. `mounts`: the job's view of the file system is built from the policy and becomes the root.
//! 5. `hostname`, `loopback`: what is left of the new namespaces.
//! 6. `limits`: rlimits, before the account changes, so that the process limit counts from the start.
//! 7. `account`: bounding set, supplementary groups, group, user, every capability set.
//! 8. `no-new-privs`
//! 9. `landlock`: the same file rules once more, and the scopes for signals and abstract sockets.
//! 10. `seccomp`: the denied system calls.
//! 11. `proof`: reads its own state back from the kernel and compares.
//! 12. readiness, then fork: the child executes the command, this process stays as pid 1, reaps, forwards
//!     `SIGTERM` and reports how the command ended. When pid 1 ends, the kernel kills the rest.

mod clone;
mod confine;
mod identity;
mod mounts;
mod reaper;
mod seccomp;

pub(crate) use clone::Launcher;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{SFlag, fstat};

use super::launch::{LaunchPlan, Status};

/// A step that failed, by name.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {detail}")]
pub(crate) struct StepError {
    /// The step's name, as in the module's list.
    pub(crate) step: &'static str,
    /// What the kernel said about what.
    pub(crate) detail: String,
}

impl StepError {
    fn new(step: &'static str, detail: impl std::fmt::Display) -> Self {
        Self {
            step,
            detail: detail.to_string(),
        }
    }
}

/// Turns any error into the failure of a named step.
trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, StepError>;
}

impl<T, E: std::fmt::Display> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, StepError> {
        self.map_err(|e| StepError::new(step, e))
    }
}

/// What a launch is given besides its plan.
#[derive(Debug)]
pub(crate) struct Given {
    /// Effective user and group outside, which a new user namespace no longer tells.
    pub(crate) outer: (u32, u32),
    /// The job's standard input, output and error.
    pub(crate) job: [OwnedFd; 3],
    /// Where [`Status`] lines go.
    pub(crate) status: OwnedFd,
}

/// Runs the whole sequence in a freshly cloned child and never returns to the caller's code: the result is
/// the exit code this process must end with.
pub(crate) fn run(plan: &LaunchPlan, filters: &seccomp::Filters, given: Given) -> i32 {
    let mut status = File::from(given.status);
    let [stdin, stdout, stderr] = given.job;
    if let Some(account) = &plan.account {
        // A job opens /dev/stdout by name, which the kernel checks against the pipe's owner. What is not a pipe
        // (/dev/null, say) is the host's and stays so.
        for stream in [&stdin, &stdout, &stderr]
            .into_iter()
            .filter(|stream| is_pipe(stream))
        {
            let _ = nix::unistd::fchown(stream, Some(account.uid.into()), Some(account.gid.into()));
        }
    }
    if let Err(error) = apply(plan, filters, given.outer) {
        say(
            &mut status,
            &Status::StepFailed {
                step: error.step.to_owned(),
                detail: error.detail,
            },
        );
        return 1;
    }
    say(&mut status, &Status::Ready);
    reaper::run(plan, [stdin, stdout, stderr], status)
}

fn is_pipe(stream: &OwnedFd) -> bool {
    let kind = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    fstat(stream).is_ok_and(|found| kind(found.st_mode) == SFlag::S_IFIFO)
}

/// Steps 1 to 11.
fn apply(plan: &LaunchPlan, filters: &seccomp::Filters, outer: (u32, u32)) -> Result<(), StepError> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("die-with-parent")?;
    if plan.account.is_none() {
        identity::map_self(outer).step("user-namespace")?;
    }
    // The scheduler shares the processors out by session where autogroups are on (sched(7)).
    nix::unistd::setsid().step("session")?;
    mounts::build(&plan.policy, plan.account.is_some())?;
    nix::unistd::sethostname("ephemerd").step("hostname")?;
    identity::loopback_up(plan.policy.network).step("loopback")?;
    identity::limits(plan.limits)?;
    identity::become_account(plan.account.as_ref())?;
    // Changing the account cleared it (prctl(2), PR_SET_PDEATHSIG).
    prctl::set_pdeathsig(Signal::SIGKILL).step("die-with-parent")?;
    prctl::set_no_new_privs().step("no-new-privs")?;
    // Keeps the job out of this process's /proc entries, its status pipe above all; becoming another account has
    // done so already, without root it has not.
    prctl::set_dumpable(false).step("no-new-privs")?;
    confine::landlock(&plan.policy)?;
    filters.apply(&plan.policy.deny_syscalls)?;
    identity::prove(plan.account.as_ref())
}

/// Writes one status line. There is nobody to tell when that fails: the reader then sees the end of the pipe.
fn say(status: &mut File, what: &Status) {
    if let Ok(mut line) = serde_json::to_vec(what) {
        line.push(b'\n');
        let _ = status.write_all(&line);
    }
}

/// The last error of the C library.
fn last() -> io::Error {
    io::Error::last_os_error()
}
