//! Attacks on processes outside: through `/proc`, by signal, by descriptor, and by outliving the job.
//!
//! A pid of the outside may, inside a pid namespace, be the number of a process of the job itself. Start times
//! tell them apart, so that reaching oneself is not mistaken for reaching a sibling.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, alarm, fork, pause, setsid};

use super::{Attempt, Probes, Target, leave, most_telling, reap, tried};

pub(super) const PROBES: Probes = &[
    ("find-foreign-processes", find_foreign),
    ("read-foreign-environ", |t| {
        each_proc(t, "environ", |path| fs::read(path).map(drop))
    }),
    ("read-foreign-cmdline", |t| {
        each_proc(t, "cmdline", |path| fs::read(path).map(drop))
    }),
    ("enter-foreign-root", |t| {
        each_proc(t, "root/", |path| fs::read_dir(path).map(drop))
    }),
    ("enter-foreign-cwd", |t| {
        each_proc(t, "cwd/", |path| fs::read_dir(path).map(drop))
    }),
    ("list-foreign-descriptors", |t| {
        each_proc(t, "fd", |path| fs::read_dir(path).map(drop))
    }),
    ("open-foreign-memory", |t| {
        each_proc(t, "mem", |path| fs::File::open(path).map(drop))
    }),
    ("signal-foreign-process", |t| {
        each(t, libc::ESRCH, |pid| {
            tried(kill(Pid::from_raw(pid), None), format!("kill({pid}, 0)"))
        })
    }),
    ("open-foreign-pidfd", |t| {
        each(t, libc::ESRCH, |pid| {
            tried(open_pidfd(pid), format!("pidfd_open({pid})"))
        })
    }),
    ("renice-foreign-process", |t| each(t, libc::ESRCH, read_priority)),
    ("signal-everyone", signal_everyone),
    ("survive-the-job", survive),
];

pub(super) const IN_PLACE: Probes = &[("inherited-descriptors", inherited_descriptors)];

/// Inode of the pid namespace of a machine that just started: `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// How long a process left behind stays, in seconds: longer than any probe run, not for ever.
const SURVIVOR_S: u32 = 600;

/// The pids of the sibling and of the daemon with their start times.
fn foreigners(target: &Target) -> [(i32, Option<u64>); 2] {
    [
        (target.sibling_pid, target.sibling_start_ticks),
        (target.daemon_pid, target.daemon_start_ticks),
    ]
}

/// When process `pid` started, in clock ticks since boot; field 22 of proc_pid_stat(5).
pub(super) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Makes an attempt on the sibling and on the daemon. Where the pid is in here another process, the outside is
/// out of reach by that number, which counts as failing with `absent`.
fn each(target: &Target, absent: i32, attempt: impl Fn(i32) -> Attempt) -> Attempt {
    most_telling(
        foreigners(target).map(|(pid, start)| match (start, start_ticks(pid)) {
            (Some(outside), Some(here)) if outside != here => {
                Attempt::failed(absent, format!("pid {pid} is in here a process of this job"))
            }
            _ => attempt(pid),
        }),
    )
}

/// The same for a file below /proc/PID.
fn each_proc(target: &Target, name: &str, open: impl Fn(&str) -> io::Result<()>) -> Attempt {
    each(target, libc::ENOENT, |pid| {
        let path = format!("/proc/{pid}/{name}");
        tried(open(&path), path)
    })
}

fn find_foreign(target: &Target) -> Attempt {
    for (pid, start) in foreigners(target) {
        let here = start_ticks(pid);
        if here.is_some() && (start.is_none() || start == here) {
            return Attempt::succeeded(format!("process {pid} of the outside is in /proc"));
        }
    }
    let own = nix::unistd::getuid().as_raw();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Attempt::failed(libc::ENOENT, "list /proc");
    };
    for entry in entries.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok());
        let uid = entry.metadata().map_or(own, |meta| meta.uid());
        // Process 1 is the sandbox's own init, whoever it runs as.
        if let Some(pid) = pid.filter(|pid| *pid != 1 && uid != own) {
            return Attempt::succeeded(format!("process {pid} of uid {uid} is in /proc"));
        }
    }
    Attempt::failed(libc::ENOENT, "every process in /proc is of this job")
}

/// Opens a pidfd.
pub(super) fn open_pidfd(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just returned `fd`, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn read_priority(pid: i32) -> Attempt {
    Errno::clear();
    let who = libc::id_t::try_from(pid).unwrap_or(libc::id_t::MAX);
    // SAFETY: getpriority takes two integers.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, who) };
    // -1 is a valid priority, so only errno tells (getpriority(2)).
    let result = match Errno::last_raw() {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    };
    tried(result, format!("getpriority({pid})"))
}

/// Signals everything within reach with SIGURG, which is ignored by default: the permission check is that of
/// SIGKILL, but whoever is reached lives on, and the staged sibling keeps it pending as evidence.
fn signal_everyone(target: &Target) -> Attempt {
    let here = fs::metadata("/proc/self/ns/pid").map(|meta| meta.ino()).ok();
    if here.is_none() || here == Some(target.outer_pid_namespace.unwrap_or(INITIAL_PID_NAMESPACE)) {
        return Attempt::not_applicable("there is no pid namespace to keep the signal in");
    }
    match kill(Pid::from_raw(-1), Signal::SIGURG) {
        Ok(()) => Attempt::Planted {
            detail: "kill(-1, SIGURG) reached something".to_owned(),
        },
        Err(errno) => tried(Err::<(), _>(errno), "kill(-1, SIGURG)"),
    }
}

/// Leaves a process called like the target's mark in a session of its own, orphaned.
fn survive(target: &Target) -> Attempt {
    let name = std::ffi::CString::new(target.mark.as_str()).unwrap_or_default();
    let (mut settled, unsettled) = match io::pipe() {
        Ok(ends) => ends,
        Err(error) => return tried(Err::<(), _>(error), "pipe"),
    };
    // SAFETY: probes run in a process of one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            // A process just forked leads no group, so this cannot fail.
            let _ = setsid();
            // SAFETY: as above.
            if let Ok(ForkResult::Child) = unsafe { fork() } {
                linger(&name);
            }
            leave(0)
        }
        Ok(ForkResult::Parent { child }) => {
            drop(unsettled);
            let _ = reap(child);
            // Ends when the process left behind has its name and has closed its end.
            let _ = settled.read(&mut [0]);
            Attempt::Planted {
                detail: format!("left a process called {}", target.mark),
            }
        }
        Err(errno) => tried(Err::<(), _>(errno), "fork"),
    }
}

/// Stays until the alarm, called `name`, with nothing open that somebody could wait on.
fn linger(name: &std::ffi::CStr) -> ! {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    // SAFETY: this process uses no descriptor any more and ends without returning.
    unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    alarm::set(SURVIVOR_S);
    loop {
        pause();
    }
}

/// Looks for descriptors besides 0, 1 and 2. Runs in place, before anything of ours is open.
fn inherited_descriptors(_: &Target) -> Attempt {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Attempt::not_applicable("/proc/self/fd cannot be listed");
    };
    let numbers: Vec<RawFd> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // The listing's own descriptor is closed by now, so only what was there before still has a target.
    let open: Vec<String> = numbers
        .into_iter()
        .filter(|fd| *fd > 2)
        .filter_map(|fd| {
            let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
            Some(format!("{fd} is {}", path.display()))
        })
        .collect();
    if open.is_empty() {
        Attempt::failed(libc::ENOENT, "only 0, 1 and 2 are open")
    } else {
        Attempt::succeeded(open.join(", "))
    }
}
