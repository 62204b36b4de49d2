//! The daemon's own two halves, started by each other as programs: this very one, executed anew.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};

use crate::host::os;
use crate::slot::Account;

/// Starts `program` (ephemerd itself) as the warden of `data_dir`, with its end of the socket pair as standard
/// input, an empty environment, and a process group of its own, so that a terminal's interrupt does not reach
/// it.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn start_warden(program: &Utf8Path, data_dir: &Utf8Path, socket: OwnedFd) -> io::Result<Child> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where programs are started"
    )]
    let mut command = Command::new(program);
    command
        .arg("__warden")
        .arg("--data-dir")
        .arg(data_dir)
        .env_clear()
        .process_group(0);
    command.stdin(socket).stdout(Stdio::null()).spawn()
}

/// Lets every signal through to this process again, after a fork of one that waits for some of them at a time of its choice.
///
/// # Errors
/// The system refuses.
pub(crate) fn accept_signals() -> io::Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    Ok(sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::empty()),
        None,
    )?)
}

/// What the dispatcher is started in, where its system has a program for that, sandbox-exec(1).
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// That program.
    pub(crate) program: Utf8PathBuf,
    /// The text that it applies.
    pub(crate) profile: String,
}

/// Starts this very program as the dispatcher of a daemon: as `account`, where it has one of its own, without a capability
/// and without a way to get one, in a session of its own, so that a terminal's interrupt is told to its warden alone, and so that
/// it can put no words into that terminal (ioctl_tty(2), `TIOCSTI`). It ends with this process. Its standard input is `socket`; where it is to `log` elsewhere, its standard error is that.
pub(crate) fn start_dispatcher(
    (program, args): (&Utf8Path, &[String]),
    (account, sandbox): (Option<&Account>, Option<&Sandbox>),
    socket: OwnedFd,
    log: Option<OwnedFd>,
) -> io::Result<Child> {
    let (opened, path) = os::program_for(program)?;
    let path = sandbox.map_or(path, |sandbox| sandbox.program.to_string());
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where programs are started"
    )]
    let mut command = Command::new(path);
    match sandbox {
        None => command.arg0(program),
        Some(sandbox) => command.args(["-p", &sandbox.profile, program.as_str()]),
    };
    command
        .args(args)
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_PID")
        .env_remove("WATCHDOG_USEC")
        .stdin(socket)
        .stdout(Stdio::null());
    if let Some(log) = log {
        command.stderr(log);
    }
    let ids = account.map(|account| (account.uid, account.gid));
    if ids.is_some() {
        // Nothing of whoever started us is this account's.
        command.env("HOME", "/").current_dir("/");
    }
    // Signals stay blocked until it can obey them; see `accept_signals`.
    let become_it = move || {
        nix::unistd::setsid()?;
        os::become_dispatcher(ids)
    };
    // SAFETY: this process has one thread, so what is done between fork and exec may be anything.
    unsafe { command.pre_exec(become_it) };
    let started = command.spawn();
    drop(opened);
    started
}
