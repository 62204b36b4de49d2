//! Attacks on the limits: more processes, more priority, more memory than its share, dumps in shared folders.

use std::io::{self, Read};

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, fork};

use super::accounts::status_field;
use super::{Attempt, Probes, Target, fact, leave, reap, tried};

pub(super) const PROBES: Probes = &[
    ("fork-bomb", fork_bomb),
    ("raise-process-limit", |_| {
        raise(Resource::RLIMIT_NPROC, "RLIMIT_NPROC")
    }),
    ("change-core-limit", core_limit),
    ("raise-priority", |_| {
        // SAFETY: setpriority takes three integers.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -5) };
        tried(Errno::result(result), "setpriority -5")
    }),
    ("realtime-scheduling", realtime),
    ("dodge-oom-killer", |_| {
        let path = "/proc/self/oom_score_adj";
        tried(std::fs::write(path, "-1000"), format!("write -1000 to {path}"))
    }),
    ("open-umask", |_| match status_field("self", "Umask") {
        Ok(text) => {
            let open = u32::from_str_radix(&text, 8).is_ok_and(|mask| mask & 0o022 != 0o022);
            fact(open, format!("umask {text}"))
        }
        Err(error) => tried(Err::<(), _>(error), "read /proc/self/status"),
    }),
];

/// Forks until the kernel says no or the limit is passed; every child waits for the pipe to close.
fn fork_bomb(target: &Target) -> Attempt {
    let (mut reader, writer) = match io::pipe() {
        Ok(ends) => ends,
        Err(error) => return tried(Err::<(), _>(error), "pipe"),
    };
    let mut children: Vec<Pid> = Vec::new();
    let mut writer = Some(writer);
    let stopped_by = loop {
        if children.len() as u64 > target.process_limit {
            break None;
        }
        // SAFETY: probes run in a process of one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                drop(writer.take());
                let _ = reader.read(&mut [0u8]);
                leave(0);
            }
            Ok(ForkResult::Parent { child }) => children.push(child),
            Err(errno) => break Some(errno),
        }
    };
    drop(writer);
    let detail = format!("{} processes, {} allowed", children.len(), target.process_limit);
    for child in &children {
        let _ = kill(*child, Signal::SIGKILL);
    }
    for child in children {
        let _ = reap(child);
    }
    match stopped_by {
        None => Attempt::succeeded(detail),
        Some(errno) => Attempt::failed(errno as i32, detail),
    }
}

fn raise(resource: Resource, what: &str) -> Attempt {
    match getrlimit(resource) {
        Ok((_, RLIM_INFINITY)) => Attempt::succeeded(format!("{what} is unlimited")),
        Ok(_) => tried(
            setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY),
            format!("setrlimit {what}"),
        ),
        Err(errno) => tried(Err::<(), _>(errno), format!("getrlimit {what}")),
    }
}

/// Asks for other limits of core dumps: more allows files; zero, unlike one, allows a program of the host's to
/// be started with the dump (core(5)). What counts is not what the call returns but what the limit is then.
fn core_limit(_: &Target) -> Attempt {
    let Ok(before) = getrlimit(Resource::RLIMIT_CORE) else {
        return Attempt::not_applicable("getrlimit RLIMIT_CORE fails");
    };
    for limit in [4096, 0] {
        let errno = setrlimit(Resource::RLIMIT_CORE, limit, limit).err();
        match getrlimit(Resource::RLIMIT_CORE) {
            Ok(after) if after == before => {}
            Ok(after) => return Attempt::succeeded(format!("RLIMIT_CORE went from {before:?} to {after:?}")),
            Err(errno) => return tried(Err::<(), _>(errno), "getrlimit RLIMIT_CORE"),
        }
        // A host that allows no dumps at all leaves nothing to lower.
        if errno.is_some() && before.1 == 0 {
            break;
        }
    }
    Attempt::failed(libc::EPERM, format!("RLIMIT_CORE stays {}", before.1))
}

fn realtime(_: &Target) -> Attempt {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: `lowest` is a sched_param that outlives the call; 0 is the caller.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const lowest) };
    tried(Errno::result(result), "sched_setscheduler SCHED_FIFO")
}
