//! Attacks through terminals: typing into the shell that started the job.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::pty::openpty;
use nix::sys::signal::{SigHandler, Signal, signal};

use super::calls::got_through;
use super::{Attempt, Probes, Target, most_telling, tried};

pub(super) const PROBES: Probes = &[
    ("type-into-terminal", type_into_own),
    ("drive-console", drive_console),
];

pub(super) const IN_PLACE: Probes = &[
    ("controlling-terminal", |_| {
        let path = "/dev/tty";
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        tried(
            OpenOptions::new().read(true).custom_flags(flags).open(path),
            format!("open {path}"),
        )
    }),
    ("type-into-inherited-terminal", type_into_inherited),
];

/// Makes a pseudo-terminal its controlling one, as any shell in a terminal has one, and types into it.
fn type_into_own(_: &Target) -> Attempt {
    let pty = match openpty(None, None) {
        Ok(pty) => pty,
        Err(errno) => return Attempt::not_applicable(format!("could not open a pseudo-terminal: {errno}")),
    };
    // SAFETY: TIOCSCTTY takes an integer.
    let taken = unsafe { libc::ioctl(pty.slave.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if let Err(errno) = Errno::result(taken) {
        return Attempt::not_applicable(format!("could not take a controlling terminal: {errno}"));
    }
    // Closing it hangs up its session, which is this process.
    // SAFETY: no handler is installed.
    if let Err(errno) = unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) } {
        return Attempt::not_applicable(format!("could not ignore SIGHUP: {errno}"));
    }
    let key = b'x';
    // SAFETY: TIOCSTI reads one byte from `key`, which outlives the call.
    let result = unsafe { libc::ioctl(pty.slave.as_raw_fd(), libc::TIOCSTI, &raw const key) };
    tried(Errno::result(result), "ioctl(TIOCSTI)")
}

/// TIOCLINUX is for virtual consoles; a pseudo-terminal answers ENOTTY, which shows that the request got to it.
fn drive_console(_: &Target) -> Attempt {
    let pty = match openpty(None, None) {
        Ok(pty) => pty,
        Err(errno) => return Attempt::not_applicable(format!("could not open a pseudo-terminal: {errno}")),
    };
    let subcode = 0u8;
    // SAFETY: TIOCLINUX reads a subcode from one byte, which outlives the call.
    let result = unsafe { libc::ioctl(pty.slave.as_raw_fd(), libc::TIOCLINUX, &raw const subcode) };
    got_through(
        Errno::result(result),
        &[libc::ENOTTY],
        "ioctl(TIOCLINUX)".to_owned(),
    )
}

/// Types nothing: the null pointer is found out after everything that could refuse the call.
fn type_into_inherited(_: &Target) -> Attempt {
    let terminals: Vec<RawFd> = [
        std::io::stdin().is_terminal(),
        std::io::stdout().is_terminal(),
        std::io::stderr().is_terminal(),
    ]
    .into_iter()
    .zip(0..)
    .filter_map(|(is, fd)| is.then_some(fd))
    .collect();
    if terminals.is_empty() {
        return Attempt::not_applicable("descriptors 0 to 2 are no terminals");
    }
    most_telling(terminals.into_iter().map(|fd| {
        // SAFETY: the kernel reads the byte with a checked copy, so a null pointer yields EFAULT.
        let result = unsafe { libc::ioctl(fd, libc::TIOCSTI, std::ptr::null::<u8>()) };
        got_through(
            Errno::result(result),
            &[libc::EFAULT],
            format!("ioctl(TIOCSTI) on descriptor {fd}"),
        )
    }))
}
