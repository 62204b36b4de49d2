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
use std::io;

use camino::Utf8PathBuf;
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::launch::{LaunchPlan, Status};
use super::step::{Given, Step, StepError, give_pipes, say};
use crate::profile::Policy;

/// Runs the whole sequence in a freshly cloned child and never returns to the caller's code: the result is
/// the exit code this process must end with. `outer` is user and group outside, which a new user namespace no longer
/// tells.
pub(crate) fn run(
    (plan, policy): (&LaunchPlan, &Policy),
    (filters, openly): (&seccomp::Filters, Option<&[Utf8PathBuf]>),
    outer: (u32, u32),
    given: Given,
) -> i32 {
    let mut status = File::from(given.status);
    // It is in there already.
    drop(given.group);
    // A job opens /dev/stdout by name, which the kernel checks against the pipe's owner.
    give_pipes(&given.job, plan.account.as_ref());
    if let Err(error) = apply(plan, policy, (filters, openly), outer) {
        say(&mut status, &error.into());
        return 1;
    }
    say(&mut status, &Status::Ready);
    reaper::run(plan, given.job, status)
}

/// Steps 1 to 11.
fn apply(
    plan: &LaunchPlan,
    policy: &Policy,
    (filters, openly): (&seccomp::Filters, Option<&[Utf8PathBuf]>),
    outer: (u32, u32),
) -> Result<(), StepError> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("die-with-parent")?;
    if plan.account.is_none() {
        identity::map_self(outer).step("user-namespace")?;
    }
    // The scheduler shares the processors out by session where autogroups are on (sched(7)).
    nix::unistd::setsid().step("session")?;
    mounts::build(policy, (plan.account.as_ref(), openly))?;
    nix::unistd::sethostname("ephemerd").step("hostname")?;
    identity::loopback_up(policy.network).step("loopback")?;
    identity::limits(plan.limits)?;
    identity::become_account(plan.account.as_ref())?;
    // Changing the account cleared it (prctl(2), PR_SET_PDEATHSIG).
    prctl::set_pdeathsig(Signal::SIGKILL).step("die-with-parent")?;
    prctl::set_no_new_privs().step("no-new-privs")?;
    // Keeps the job out of this process's /proc entries, its status pipe above all; becoming another account has
    // done so already, without root it has not.
    prctl::set_dumpable(false).step("no-new-privs")?;
    confine::landlock(policy)?;
    filters.apply(&policy.deny_syscalls)?;
    identity::prove(plan.account.as_ref())
}

/// The last error of the C library.
fn last() -> io::Error {
    io::Error::last_os_error()
}
