//! Starts init: one clone3(2) straight into every namespace the policy asks for.

use std::io;
use std::os::fd::AsRawFd;

use camino::Utf8PathBuf;

use crate::profile::policy::{Network, Policy};
use crate::sandbox::launch::LaunchPlan;

use super::identity;
use super::seccomp::Filters;
use crate::sandbox::step::Given;

/// Of clone3(2), since Linux 5.7; the library has it as a number that is too small for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Starts jobs. Holds what is prepared once and inherited by every launch.
#[derive(Debug)]
pub(crate) struct Launcher {
    filters: Filters,
}

impl Launcher {
    /// Prepares launches, and as root gives up the bounding set of this process for good.
    ///
    /// # Errors
    /// The bounding set cannot be emptied.
    pub(crate) fn new() -> io::Result<Self> {
        if nix::unistd::geteuid().is_root() {
            // The warden executes nothing itself, and what it starts must have none of these.
            identity::empty_bounding_set()
                .and_then(|()| identity::keep_what_the_warden_needs())
                .map_err(io::Error::other)?;
        }
        Ok(Self {
            filters: Filters::for_all_groups(),
        })
    }

    /// Starts the job's init in namespaces of its own and returns its pid. How the launch went is said on
    /// the status pipe. The caller must have one thread.
    ///
    /// # Errors
    /// The kernel refuses the namespaces; the message says what to look at.
    pub(crate) fn spawn(
        &self,
        plan: &LaunchPlan,
        (policy, openly): (&Policy, Option<&[Utf8PathBuf]>),
        given: Given,
    ) -> io::Result<i32> {
        let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if policy.network == Network::None {
            flags |= libc::CLONE_NEWNET;
        }
        if plan.account.is_none() {
            flags |= libc::CLONE_NEWUSER;
        }
        let outer = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        // SAFETY: all-zero bytes are a valid clone_args: integers only.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = u64::from(flags.unsigned_abs());
        if let Some(group) = &given.group {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
        }
        args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
        // SAFETY: without CLONE_VM this is a fork; the process has one thread, so the child's memory is whole.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let code = super::run((plan, policy), (&self.filters, openly), outer, given);
                // SAFETY: ends the child without running the parent's destructors.
                unsafe { libc::_exit(code) }
            }
            pid => i32::try_from(pid).map_err(io::Error::other),
        }
    }
}
