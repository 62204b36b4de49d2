//! Steps `user-namespace`, `loopback`, `limits`, `account` and `proof`: who the process is and what it may
//! use.

use std::io;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{Gid, Uid, getgroups, getpid, getresgid, getresuid, setgroups, setresgid, setresuid};
use std::os::fd::AsRawFd;

use super::{Step, StepError};
use crate::profile::policy::Network;
use crate::sandbox::launch::ProcessLimits;
use crate::slot::Account;

/// Maps the caller's own user and group, as they were outside, onto themselves in the new user namespace; a
/// process may do that for itself as long as it gives up setgroups (user_namespaces(7)).
pub(super) fn map_self((uid, gid): (u32, u32)) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Brings up the loopback of a network namespace of its own; there is no other interface in it.
pub(super) fn loopback_up(network: Network) -> nix::Result<()> {
    if network == Network::Host {
        return Ok(());
    }
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all-zero bytes are a valid ifreq: integers, and a union of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = libc::c_char::try_from(*byte).unwrap_or_default();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    nix::errno::Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    })?;
    Ok(())
}

/// Sets the limits, soft and hard alike. A lower hard limit of the host stays, because raising one takes a
/// capability that even root may lack.
pub(super) fn limits(limits: ProcessLimits) -> Result<(), StepError> {
    let ProcessLimits {
        processes,
        open_files,
        file_byte,
        nice,
    } = limits;
    let wanted = [
        (Resource::RLIMIT_NPROC, processes),
        (Resource::RLIMIT_NOFILE, open_files),
        (Resource::RLIMIT_FSIZE, file_byte),
    ];
    for (resource, limit) in wanted {
        let (_, hard) = getrlimit(resource).step("limits")?;
        let limit = limit.min(hard);
        setrlimit(resource, limit, limit)
            .map_err(|e| StepError::new("limits", format!("{resource:?}: {e}")))?;
    }
    stand_back(nice)?;
    // A core dump holds the job's secrets and is written by the kernel, or by a program of the host's, past
    // the sandbox. Zero forbids files only; one byte forbids files, being too few for any, and programs
    // (fs/coredump.c, "RLIMIT_CORE is set to 1, aborting core"). A host that allows not even one byte stays so.
    setrlimit(Resource::RLIMIT_CORE, 1, 1)
        .or_else(|_| setrlimit(Resource::RLIMIT_CORE, 0, 0))
        .map_err(|e| StepError::new("limits", format!("RLIMIT_CORE: {e}")))
}

/// Lets others have the processor first, and the kernel end this job first when there is no memory: it holds what can be
/// done again.
fn stand_back(nice: u8) -> Result<(), StepError> {
    crate::sandbox::step::be_nice(nice).step("limits")?;
    // Where the scheduler shares by session, niceness counts within one only; the session has its own (sched(7)).
    match std::fs::write("/proc/self/autogroup", nice.to_string()) {
        // Without root it may be asked for some times a second.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock) => {
            return Err(StepError::new("limits", format!("/proc/self/autogroup: {error}")));
        }
        Ok(()) | Err(_) => {}
    }
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE)
        .map_err(|error| StepError::new("limits", format!("/proc/self/oom_score_adj: {error}")))
}

/// Half of the memory there is counts on top of what a process has (proc_pid_oom_score_adj(5)).
const OOM_SCORE: &str = "500";

/// What the warden does without being another account: prepare, launch, measure and clear away. What other rights of root's
/// it was started with are for its steward.
const OF_WARDEN: [Capability; 17] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_IPC_OWNER,
    Capability::CAP_KILL,
    Capability::CAP_LINUX_IMMUTABLE,
    Capability::CAP_MKNOD,
    // For the loopback of a network namespace.
    Capability::CAP_NET_ADMIN,
    // For a canary's port, which no job can have taken.
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_RESOURCE,
];

/// Gives up, for this process, what the warden needs not. The bounding set must be empty already.
pub(super) fn keep_what_the_warden_needs() -> Result<(), CapsError> {
    let has = caps::read(None, CapSet::Permitted)?;
    let keeps = OF_WARDEN
        .into_iter()
        .filter(|capability| has.contains(capability));
    let keeps: CapsHashSet = keeps.collect();
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &keeps)?;
    caps::set(None, CapSet::Permitted, &keeps)
}

/// Drops every capability this kernel knows from the bounding set. As root the warden does so once for all
/// launches, and each proves it; a new user namespace starts with all of them again.
pub(super) fn empty_bounding_set() -> Result<(), CapsError> {
    for capability in caps::read(None, CapSet::Bounding)? {
        caps::drop(None, CapSet::Bounding, capability)?;
    }
    Ok(())
}

/// Gives up the bounding set, where the warden has not, and the supplementary groups, becomes the account, and clears every capability
/// set. The order matters: each step needs a privilege that a later one gives up.
pub(super) fn become_account(account: Option<&Account>) -> Result<(), StepError> {
    const STEP: &str = "account";
    if let Some(Account { name, uid, gid }) = account {
        if *uid == 0 || *gid == 0 {
            return Err(StepError::new(STEP, format!("`{name}` has id 0")));
        }
        let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        setgroups(&[]).step(STEP)?;
        setresgid(gid, gid, gid).step(STEP)?;
        setresuid(uid, uid, uid).step(STEP)?;
    } else {
        empty_bounding_set().step(STEP)?;
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).step(STEP)?;
    }
    Ok(())
}

/// Asks the kernel for this process's state and compares it with what the steps before should have made of it.
pub(super) fn prove(account: Option<&Account>) -> Result<(), StepError> {
    const STEP: &str = "proof";
    let check = |holds: bool, what: &str| {
        if holds {
            Ok(())
        } else {
            Err(StepError::new(STEP, what))
        }
    };
    if let Some(Account { uid, gid, .. }) = account {
        let users = getresuid().step(STEP)?;
        check(
            [users.real, users.effective, users.saved] == [Uid::from_raw(*uid); 3],
            "the user is another",
        )?;
        let groups = getresgid().step(STEP)?;
        check(
            [groups.real, groups.effective, groups.saved] == [Gid::from_raw(*gid); 3],
            "the group is another",
        )?;
        check(
            getgroups().step(STEP)?.is_empty(),
            "there are supplementary groups",
        )?;
    }
    for set in [
        CapSet::Inheritable,
        CapSet::Permitted,
        CapSet::Effective,
        CapSet::Bounding,
        CapSet::Ambient,
    ] {
        let left = caps::read(None, set).step(STEP)?;
        check(
            left.is_empty(),
            &format!("the {set:?} capability set holds {left:?}"),
        )?;
    }
    check(prctl::get_no_new_privs().step(STEP)?, "no_new_privs is not set")?;
    // SAFETY: takes no pointers.
    let mode = unsafe { libc::prctl(libc::PR_GET_SECCOMP) };
    // Mode 2 is a filter (prctl(2), PR_GET_SECCOMP).
    check(mode == 2, "there is no system call filter")?;
    check(
        getpid().as_raw() == 1,
        "this is not the first process of a pid namespace",
    )
}
