//! How probes are run on Linux: each in a forked child, in a session of its own, with an alarm.
//!
//! A child may be killed, crash or hang without ending the run; its result comes back over a pipe. What it
//! leaves in its process group is killed when it has answered. The few probes about what the process was
//! *started* with run in place, because a child in a session of its own no longer has it.

mod accounts;
mod benign;
mod calls;
mod devices;
mod files;
mod host_files;
mod ipc;
mod limits;
mod namespaces;
mod network;
mod processes;
mod stage;
mod terminals;
mod work;
mod x86;

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, fork, setsid};

use super::table::table;
use super::{Attempt, ProbeError, Report, Target};

pub use stage::{Stage, stand_in};

/// Does one probe.
type Run = fn(&Target) -> Attempt;

/// Names and how to do them, of one module.
type Probes = &'static [(&'static str, Run)];

/// How long one probe may take, in seconds. A fork bomb of some thousand processes takes less than one.
const LIMIT_S: u32 = 5;

/// Probes that run in a forked child.
const FORKED: &[Probes] = &[
    accounts::PROBES,
    benign::PROBES,
    calls::PROBES,
    devices::PROBES,
    files::PROBES,
    host_files::PROBES,
    ipc::PROBES,
    limits::PROBES,
    namespaces::PROBES,
    network::PROBES,
    processes::PROBES,
    terminals::PROBES,
    work::PROBES,
    x86::PROBES,
];

/// Probes that run in the process itself.
const IN_PLACE: &[Probes] = &[processes::IN_PLACE, terminals::IN_PLACE];

/// Runs every probe, or `only` those named, and reports on each in the order of the table.
///
/// # Errors
/// When a name of `only` is not in the table, or the process has more than one thread.
pub fn attempt_all(target: &Target, only: Option<&[String]>) -> Result<Vec<Report>, ProbeError> {
    let all = table();
    for name in only.unwrap_or_default() {
        if !all.iter().any(|info| info.name == name) {
            let likeness = |a: &str| strsim::jaro_winkler(a, name);
            let nearest = all.iter().map(|info| info.name);
            let nearest = nearest
                .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
                .unwrap_or_default();
            return Err(ProbeError::UnknownProbe {
                name: name.clone(),
                nearest,
            });
        }
    }
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(ProbeError::Threads(threads));
    }
    let wanted = |name: &str| only.is_none_or(|names| names.iter().any(|n| n == name));
    Ok(all
        .iter()
        .filter(|info| wanted(info.name))
        .map(|info| Report::new(info, attempt(info.name, target)))
        .collect())
}

/// Does the probe called `name`.
fn attempt(name: &str, target: &Target) -> Attempt {
    if let Some(run) = find(IN_PLACE, name) {
        return run(target);
    }
    match find(FORKED, name) {
        Some(run) => in_child(run, target)
            .unwrap_or_else(|e| Attempt::not_applicable(format!("could not run the probe: {e}"))),
        None => Attempt::not_applicable("it is not implemented on this system"),
    }
}

/// How to do the probe called `name`.
fn find(modules: &[Probes], name: &str) -> Option<Run> {
    modules
        .iter()
        .flat_map(|probes| probes.iter())
        .find(|(n, _)| *n == name)
        .map(|(_, run)| *run)
}

/// Runs one probe in a child and collects its result.
fn in_child(run: Run, target: &Target) -> io::Result<Attempt> {
    let (mut reader, mut writer) = io::pipe()?;
    // SAFETY: `attempt_all` made sure that this process has one thread, so no lock is held by another.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(reader);
            // Cannot fail: a process just forked leads no group.
            let _ = setsid();
            alarm::set(LIMIT_S);
            let attempt = catch_unwind(AssertUnwindSafe(|| run(target)))
                .unwrap_or_else(|_| Attempt::failed(libc::ENOTRECOVERABLE, "the probe panicked"));
            let mut line = serde_json::to_vec(&attempt).unwrap_or_default();
            line.push(b'\n');
            let _ = writer.write_all(&line);
            leave(0)
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let line = read_line(&mut reader);
            // The group is the child's session as far as it has not left it; gone already is as good.
            let _ = killpg(child, Signal::SIGKILL);
            let ended = reap(child)?;
            match serde_json::from_slice(&line) {
                Ok(attempt) => Ok(attempt),
                Err(_) => Ok(died(ended)),
            }
        }
    }
}

/// The bytes before the first newline; fewer when everybody who could write has gone, or when for some time
/// longer than the alarm nobody has written.
fn read_line(reader: &mut io::PipeReader) -> Vec<u8> {
    let mut line = Vec::new();
    let mut byte = [0u8];
    loop {
        let mut waiting = libc::pollfd {
            fd: reader.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `waiting` is one initialised pollfd that outlives the call.
        let ready = unsafe { libc::poll(&raw mut waiting, 1, 2 * 1000 * LIMIT_S.cast_signed()) };
        if ready <= 0 || !matches!(reader.read(&mut byte), Ok(1)) || byte[0] == b'\n' {
            return line;
        }
        line.push(byte[0]);
    }
}

/// What it means that a probe's child ended without an answer.
fn died(status: WaitStatus) -> Attempt {
    match status {
        WaitStatus::Signaled(_, Signal::SIGALRM | Signal::SIGKILL, _) => {
            Attempt::failed(libc::ETIMEDOUT, format!("no answer within {LIMIT_S} s"))
        }
        WaitStatus::Signaled(_, signal, _) => Attempt::Killed {
            signal: signal as i32,
        },
        other => Attempt::failed(libc::EIO, format!("ended without an answer: {other:?}")),
    }
}

/// Waits for `child`, however often a signal interrupts.
fn reap(child: Pid) -> nix::Result<WaitStatus> {
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Ends this process at once: a forked child must not run what its parent registered for its own exit.
fn leave(code: i32) -> ! {
    // SAFETY: `_exit` takes any integer and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Runs `body` in a child of the probe and returns how it ended; `body`'s value is the exit code.
fn nested(body: impl FnOnce() -> u8) -> nix::Result<WaitStatus> {
    // SAFETY: probes run in a forked child of a process of one thread, so this process has one thread, too.
    match unsafe { fork() }? {
        ForkResult::Child => leave(i32::from(body())),
        ForkResult::Parent { child } => reap(child),
    }
}

/// Kills and reaps a child.
fn end(child: Pid) {
    // Both fail only when the child has gone.
    let _ = kill(child, Signal::SIGKILL);
    let _ = reap(child);
}

/// An attempt from what the standard library or nix returned.
fn tried<T, E: Into<io::Error>>(result: Result<T, E>, detail: impl Into<String>) -> Attempt {
    match result.map_err(Into::into) {
        Ok(_) => Attempt::succeeded(detail),
        Err(error) => Attempt::failed(errno_of(&error), detail),
    }
}

/// The error number in `error`; `EIO` where the standard library made the error up.
fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// A fact about this process: a success for the attacker when it `holds`, else as if refused.
fn fact(holds: bool, detail: impl Into<String>) -> Attempt {
    if holds {
        Attempt::succeeded(detail)
    } else {
        Attempt::failed(libc::EPERM, detail)
    }
}

/// The attempt that says most: a success before all else, then the most unusual failure.
fn most_telling(attempts: impl IntoIterator<Item = Attempt>) -> Attempt {
    let rank = |attempt: &Attempt| match attempt {
        Attempt::NotApplicable { .. } => 0,
        Attempt::Failed {
            errno: libc::ENOENT, ..
        } => 1,
        Attempt::Failed {
            errno: libc::EACCES | libc::EPERM | libc::EROFS,
            ..
        } => 2,
        Attempt::Failed { .. } | Attempt::Refused { .. } => 3,
        Attempt::Killed { .. } => 4,
        Attempt::Planted { .. } => 5,
        Attempt::Succeeded { .. } => 6,
    };
    attempts
        .into_iter()
        .max_by_key(rank)
        .unwrap_or_else(|| Attempt::not_applicable("the target names nothing of this kind"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_of_the_table_is_implemented_once() {
        for info in table() {
            let count = [FORKED, IN_PLACE]
                .into_iter()
                .flatten()
                .flat_map(|probes| probes.iter())
                .filter(|(name, _)| *name == info.name)
                .count();
            assert_eq!(count, 1, "{}", info.name);
        }
    }

    #[test]
    fn every_implementation_is_in_the_table() {
        let known: Vec<_> = table().iter().map(|info| info.name).collect();
        for (name, _) in [FORKED, IN_PLACE]
            .into_iter()
            .flatten()
            .flat_map(|probes| probes.iter())
        {
            assert!(known.contains(name), "{name}");
        }
    }

    #[test]
    fn one_success_outweighs_any_failure() {
        let many = [
            Attempt::failed(libc::ENOENT, "a"),
            Attempt::succeeded("b"),
            Attempt::failed(libc::EIO, "c"),
        ];
        assert_eq!(most_telling(many), Attempt::succeeded("b"));
    }

    #[test]
    fn an_unusual_failure_is_not_hidden_by_a_usual_one() {
        let many = [
            Attempt::failed(libc::EIO, "a"),
            Attempt::failed(libc::EACCES, "b"),
        ];
        assert_eq!(most_telling(many), Attempt::failed(libc::EIO, "a"));
    }
}
