//! Attacks on the account: who the job is, what it holds, and whether an exec or a call could add to it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{ForkResult, Uid, fork, getegid, geteuid, getgroups, getresuid, setresuid};

use super::{Attempt, Probes, Target, end, fact, leave, tried, work};

pub(super) const PROBES: Probes = &[
    ("run-as-root", |_| match getresuid() {
        Ok(ids) => {
            let root = [ids.real, ids.effective, ids.saved]
                .iter()
                .any(|uid| uid.is_root());
            fact(
                root,
                format!(
                    "real, effective, saved uid {} {} {}",
                    ids.real, ids.effective, ids.saved
                ),
            )
        }
        Err(errno) => tried(Err::<(), _>(errno), "getresuid"),
    }),
    ("extra-groups", extra_groups),
    ("hold-capabilities", hold_capabilities),
    ("gain-new-privileges", |_| {
        match status_field("self", "NoNewPrivs") {
            Ok(value) => fact(value == "0", format!("NoNewPrivs {value}")),
            Err(error) => tried(Err::<(), _>(error), "read /proc/self/status"),
        }
    }),
    ("unfiltered-system-calls", |_| {
        match status_field("self", "Seccomp") {
            // 2 is filter mode (proc_pid_status(5)).
            Ok(value) => fact(value != "2", format!("seccomp mode {value}")),
            Err(error) => tried(Err::<(), _>(error), "read /proc/self/status"),
        }
    }),
    ("gain-root-by-setuid", gain_root_by_setuid),
    ("become-root", |_| {
        tried(
            setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)),
            "setresuid 0",
        )
    }),
];

/// One field of /proc/PID/status.
pub(super) fn status_field(pid: &str, field: &str) -> io::Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value
        .map(|value| value.trim().to_owned())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODATA))
}

fn extra_groups(_: &Target) -> Attempt {
    match getgroups() {
        Ok(groups) => {
            let extra: Vec<_> = groups.into_iter().filter(|gid| *gid != getegid()).collect();
            fact(!extra.is_empty(), format!("supplementary groups {extra:?}"))
        }
        Err(errno) => tried(Err::<(), _>(errno), "getgroups"),
    }
}

fn hold_capabilities(_: &Target) -> Attempt {
    let mut held = Vec::new();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        match status_field("self", set) {
            Ok(value) if value.bytes().all(|b| b == b'0') => {}
            Ok(value) => held.push(format!("{set} {value}")),
            Err(error) => return tried(Err::<(), _>(error), "read /proc/self/status"),
        }
    }
    fact(
        !held.is_empty(),
        if held.is_empty() {
            "all five sets are empty".to_owned()
        } else {
            held.join(", ")
        },
    )
}

/// Setuid-root programs of common systems that only print when called with `--help`.
const SETUID_ROOT: &[&str] = &[
    "/usr/bin/su",
    "/bin/su",
    "/usr/bin/passwd",
    "/usr/bin/chsh",
    "/usr/bin/newgrp",
    "/usr/bin/sudo",
];

fn gain_root_by_setuid(_: &Target) -> Attempt {
    let is_setuid_root = |path: &&&str| {
        Path::new(path)
            .metadata()
            .is_ok_and(|meta| meta.uid() == 0 && meta.mode() & libc::S_ISUID != 0)
    };
    let Some(program) = SETUID_ROOT.iter().find(is_setuid_root) else {
        return Attempt::failed(libc::ENOENT, "there is no setuid-root program to execute");
    };
    match effective_uid_after(program) {
        Ok(0) => Attempt::succeeded(format!("{program} ran with effective uid 0")),
        Ok(uid) => Attempt::failed(libc::EPERM, format!("{program} ran with effective uid {uid}")),
        Err(error) => tried(Err::<(), _>(error), format!("execute {program}")),
    }
}

/// The effective uid that `program` ends with when somebody who is not root executes it.
fn effective_uid_after(program: &str) -> io::Result<u32> {
    // SAFETY: probes run in a process of one thread.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            // Root would have nothing to gain; 65534 is nobody.
            let nobody = Uid::from_raw(65534);
            if geteuid().is_root() && setresuid(nobody, nobody, nobody).is_err() {
                leave(i32::from(work::NOT_EXECUTED));
            }
            work::execute(program, &["--help"])
        }
        ForkResult::Parent { child } => child,
    };
    // A process that has ended but is not reaped keeps its credentials, so there is no race in reading them.
    let ended = waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    let uids = status_field(&child.to_string(), "Uid");
    end(child);
    if let nix::sys::wait::WaitStatus::Exited(_, code) = ended?
        && code == i32::from(work::NOT_EXECUTED)
    {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    // Real, effective, saved, file system (proc_pid_status(5)).
    let effective = uids?.split_whitespace().nth(1).and_then(|uid| uid.parse().ok());
    effective.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODATA))
}
