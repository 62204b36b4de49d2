//! Step 9: the first program inside the sandbox. It proves that it is what it should be and then becomes the
//! command.
//!
//! What proves the sandbox: moments before, the same process as the same account opened its profile's file, which
//! everybody may read as far as modes go. Every profile closes the data folder to jobs, so now opening it must
//! fail, and with the very error that the sandbox gives (`EPERM` on macOS; modes give `EACCES`). Between the two
//! lies nothing but sandbox-exec. A profile that does not close the data folder fails here, too.
//!
//! The rest of the proof asks the kernel: user, group, groups, session and limits.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use camino::Utf8Path;
use nix::errno::Errno;
use nix::unistd::{
    dup2_stderr, dup2_stdin, dup2_stdout, execve, getegid, geteuid, getgid, getpgrp, getpid, getsid, getuid,
};

use super::Confined;
use super::child::{JOB, Limit, PLAN, SAID, close_on_exec, default_signals};
use crate::host::os;
use crate::sandbox::launch::Status;
use crate::sandbox::step::{Step, StepError, say};
use crate::slot::Account;

const STEP: &str = "proof";

/// Proves, and becomes the command; the result is the exit code where that fails.
///
/// # Errors
/// There are no instructions: somebody else started this.
pub(crate) fn run() -> io::Result<u8> {
    let (mut plan, mut said) = (inherited(PLAN)?, inherited(SAID)?);
    let mut text = Vec::new();
    plan.read_to_end(&mut text)?;
    let confined: Confined = serde_json::from_slice(&text)?;
    if let Err(error) = prove(&confined) {
        say(&mut said, &error.into());
        return Ok(1);
    }
    say(&mut said, &Status::Ready);
    let error = match become_command(&confined) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let code = if error == Errno::ENOENT { 127 } else { 126 };
    let detail = error.desc().to_owned();
    say(&mut said, &Status::NotExecuted { code, detail });
    Ok(code)
}

/// A descriptor that was set up for this program.
fn inherited(fd: RawFd) -> io::Result<File> {
    // SAFETY: asks for a flag, touches no memory.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: it is open, and this is the only place that takes it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn prove(confined: &Confined) -> Result<(), StepError> {
    if let Some(account) = &confined.account {
        prove_account(account)?;
    }
    let own = getpid();
    check(
        getpgrp() == own && getsid(None).step(STEP)? == own,
        "the process is in the session or group of another",
    )?;
    for (limit, most) in Limit::all(confined.limits) {
        let (soft, hard) = limit.get().step(STEP)?;
        check(
            soft <= most && hard <= most,
            &format!("the limit {limit:?} is {soft}, not {most}"),
        )?;
    }
    prove_sandbox(&confined.profile)
}

fn prove_account(account: &Account) -> Result<(), StepError> {
    let Account { uid, gid, .. } = account;
    check(
        [getuid().as_raw(), geteuid().as_raw()] == [*uid; 2],
        "the user is another",
    )?;
    check(
        [getgid().as_raw(), getegid().as_raw()] == [*gid; 2],
        "the group is another",
    )?;
    let groups = os::groups().step(STEP)?;
    check(
        groups == [*gid],
        &format!("the groups are {groups:?}, not {gid} alone"),
    )
}

fn prove_sandbox(profile: &Utf8Path) -> Result<(), StepError> {
    let hint = "hint: the profile must close the data folder to jobs, and sandbox-exec must apply it";
    match File::open(profile) {
        Ok(_) => Err(StepError::new(
            STEP,
            format!("the sandbox does not hold: `{profile}` can still be read\n{hint}"),
        )),
        Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(os::SANDBOX_DENIAL) => Ok(()),
        Err(error) => Err(StepError::new(
            STEP,
            format!("the sandbox cannot be told from other causes: `{profile}`: {error}\n{hint}"),
        )),
    }
}

fn check(holds: bool, what: &str) -> Result<(), StepError> {
    if holds {
        Ok(())
    } else {
        Err(StepError::new(STEP, what))
    }
}

fn become_command(confined: &Confined) -> Result<Infallible, Errno> {
    let own = |fd| {
        // SAFETY: these descriptors were set up for this program, and this is the only place that takes them.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    let [stdin, stdout, stderr] = JOB.map(own);
    dup2_stdin(&stdin)?;
    dup2_stdout(&stdout)?;
    dup2_stderr(&stderr)?;
    close_on_exec(PLAN).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    default_signals()?;
    let text = |text: String| CString::new(text).map_err(|_| Errno::EINVAL);
    let args = confined
        .command
        .iter()
        .cloned()
        .map(text)
        .collect::<Result<Vec<_>, _>>()?;
    let env = confined
        .env
        .iter()
        .map(|(name, value)| text(format!("{name}={value}")))
        .collect::<Result<Vec<_>, _>>()?;
    let mut worst = Errno::ENOENT;
    for candidate in confined.candidates() {
        match execve(&text(candidate)?, &args, &env) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            // Another folder may have one that can be executed; a sandbox says `EPERM`.
            Err(error @ (Errno::EACCES | Errno::EPERM)) => worst = error,
            other => return other,
        }
    }
    Err(worst)
}

impl Confined {
    /// Where the program may be: as it is named, or in the folders of the job's own `PATH`, as execvp(3) does.
    fn candidates(&self) -> Vec<String> {
        let Some(program) = self.command.first().filter(|program| !program.is_empty()) else {
            return Vec::new();
        };
        if program.contains('/') {
            return vec![program.clone()];
        }
        let path = self.env.get("PATH").map(String::as_str).unwrap_or_default();
        path.split(':')
            .map(|folder| format!("{folder}/{program}"))
            .collect()
    }
}
