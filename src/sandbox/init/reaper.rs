//! Step 12: starts the command and stays as pid 1 of the job.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout};

use super::say;
use crate::sandbox::launch::{LaunchPlan, Status, Stop};

/// Starts the command and waits for it; the result is the exit code of pid 1.
pub(super) fn run(plan: &LaunchPlan, stdio: [OwnedFd; 3], mut status: File) -> i32 {
    let mut watched = SigSet::empty();
    watched.add(Signal::SIGCHLD);
    watched.add(Signal::SIGTERM);
    watched.add(Signal::SIGINT);
    match start(plan, stdio, &watched) {
        Ok(command) => {
            // Only the job may hold its pipes, or their readers would never see the end.
            close_all_but(&status);
            reap((command, plan.stop), &watched, &mut status)
        }
        Err(error) => {
            let code = if error == Errno::ENOENT { 127 } else { 126 };
            say(
                &mut status,
                &Status::NotExecuted {
                    code,
                    detail: error.desc().to_owned(),
                },
            );
            i32::from(code)
        }
    }
}

/// Starts the command in a process group of its own, with default signals and nothing inherited but the three
/// standard streams. posix_spawn(3) shares this process's memory until the command is executed, which is a
/// fork and its page faults saved.
fn start(plan: &LaunchPlan, [stdin, stdout, stderr]: [OwnedFd; 3], watched: &SigSet) -> Result<Pid, Errno> {
    dup2_stdin(&stdin)?;
    dup2_stdout(&stdout)?;
    dup2_stderr(&stderr)?;
    // Everything else of ours closes when the command starts.
    // SAFETY: marks descriptors, touches no memory.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    nix::unistd::chdir(plan.work_dir.as_str())?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(watched), None)?;

    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_sigmask(&SigSet::empty())?;
    // Rust ignores SIGPIPE in its own programs; a job expects the default.
    attributes.set_sigdefault(&SigSet::all())?;
    let text = |s: String| CString::new(s).map_err(|_| Errno::EINVAL);
    let args = plan
        .command
        .iter()
        .cloned()
        .map(text)
        .collect::<Result<Vec<_>, _>>()?;
    let env = plan
        .env
        .iter()
        .map(|(k, v)| text(format!("{k}={v}")))
        .collect::<Result<Vec<_>, _>>()?;
    spawn_on_path(plan, &attributes, &args, &env)
}

/// Looks the program up on the job's own `PATH`, as execvp(3) does.
fn spawn_on_path(
    plan: &LaunchPlan,
    attributes: &PosixSpawnAttr,
    args: &[CString],
    env: &[CString],
) -> Result<Pid, Errno> {
    let Some(program) = plan.command.first().filter(|program| !program.is_empty()) else {
        return Err(Errno::ENOENT);
    };
    let path = plan.env.get("PATH").map(String::as_str).unwrap_or_default();
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.clone()]
    } else {
        path.split(':')
            .map(|folder| format!("{folder}/{program}"))
            .collect()
    };
    let actions = PosixSpawnFileActions::init()?;
    let mut worst = Errno::ENOENT;
    for candidate in candidates {
        match posix_spawn(candidate.as_str(), &actions, attributes, args, env) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            // Another folder may have one that can be executed.
            Err(Errno::EACCES) => worst = Errno::EACCES,
            other => return other,
        }
    }
    Err(worst)
}

/// Waits until the command ends, reaping whatever else becomes a child of pid 1.
fn reap((command, stop): (Pid, Stop), watched: &SigSet, status: &mut File) -> i32 {
    loop {
        match watched.wait() {
            Ok(Signal::SIGCHLD) => {}
            Ok(signal) => {
                let _ = match stop {
                    // Every process of the job, as a terminal would do it.
                    Stop::Terminate => kill(Pid::from_raw(-1), signal),
                    Stop::Interrupt => kill(command, Signal::SIGINT),
                };
                continue;
            }
            Err(_) => continue,
        }
        while let Some((pid, ended)) = reap_one() {
            if pid == command {
                let code = match ended {
                    Status::Signalled { signal } => 128 + signal,
                    Status::Exited { code } => i32::from(code),
                    _ => 1,
                };
                say(status, &ended);
                return code;
            }
        }
    }
}

/// Reaps one ended child, if there is one. Not by a library that knows signals by name: a real-time signal has
/// none, and its victim would be reaped unseen.
fn reap_one() -> Option<(Pid, Status)> {
    let mut status = 0;
    // SAFETY: `status` is an int that outlives the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let ended = match libc::WIFSIGNALED(status) {
        true => Status::Signalled {
            signal: libc::WTERMSIG(status),
        },
        false => Status::Exited {
            code: u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX),
        },
    };
    (pid > 0).then(|| (Pid::from_raw(pid), ended))
}

/// Closes every descriptor of this process but the status pipe.
fn close_all_but(status: &File) {
    let keep = u32::try_from(status.as_raw_fd()).unwrap_or(u32::MAX);
    for (first, last) in [(0, keep.saturating_sub(1)), (keep.saturating_add(1), u32::MAX)] {
        if first <= last {
            // SAFETY: nothing uses these descriptors any more; this process only waits and writes to `status`.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}
