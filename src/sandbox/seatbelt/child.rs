//! Steps 1 to 8: from a fork of the guard to sandbox-exec.

use std::ffi::CString;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;

use camino::Utf8Path;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, execve, setgid, setsid, setuid};

use super::sandbox_exec_args;
use crate::host::{Host, command, os};
use crate::sandbox::keychain::Keychain;
use crate::sandbox::launch::{LaunchPlan, ProcessLimits};
use crate::sandbox::step::{Step, StepError, be_nice};
use crate::slot::Account;

/// Where the first program inside finds its instructions.
pub(super) const PLAN: RawFd = 3;

/// Where it says how it went.
pub(super) const SAID: RawFd = 4;

/// The job's standard input, output and error.
pub(super) const JOB: [RawFd; 3] = [5, 6, 7];

/// Beyond every descriptor above, with room to move.
const ABOVE: RawFd = 64;

/// The environment of sandbox-exec and the first program. The job's own comes with the instructions.
const ENVIRONMENT: [&str; 1] = ["PATH=/usr/bin:/bin:/usr/sbin:/sbin"];

/// One launch.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) host: &'a Host,
    /// ephemerd itself.
    pub(super) program: &'a Utf8Path,
    pub(super) plan: &'a LaunchPlan,
    pub(super) keychain: &'a Keychain,
    /// The file of the profile.
    pub(super) profile: &'a Utf8Path,
}

/// The ends of pipes a child gets.
#[derive(Debug)]
pub(super) struct Ends {
    /// Its instructions.
    pub(super) plan: OwnedFd,
    /// What it says.
    pub(super) said: OwnedFd,
    /// What sandbox-exec complains of.
    pub(super) complaint: OwnedFd,
    /// The job's streams.
    pub(super) job: [OwnedFd; 3],
}

/// Takes every step and becomes sandbox-exec; returns only the step that failed.
pub(super) fn run(launch: &Launch<'_>, ends: Ends) -> StepError {
    match apply(launch, ends) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn apply(launch: &Launch<'_>, ends: Ends) -> Result<std::convert::Infallible, StepError> {
    let LaunchPlan {
        account,
        limits: wanted,
        work_dir,
        ..
    } = launch.plan;
    setsid().step("session")?;
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    if account.is_some() {
        // Takes root, as a whole account does; without one a job stays in the caller's session.
        os::new_audit_session().step("audit-session")?;
    }
    limits(*wanted)?;
    if let Some(account) = account {
        become_account(account)?;
    }
    chdir(work_dir.as_std_path()).step("work-dir")?;
    make_keychain(launch)?;
    // As the job's account and not yet in the sandbox: whoever cannot read it inside is kept from it by the sandbox.
    File::open(launch.profile).step("profile")?;
    arrange(ends).step("sandbox")?;
    default_signals().step("sandbox")?;
    let text = |text: &str| CString::new(text).step("sandbox");
    let program = text(launch.host.mac.sandbox_exec.as_str())?;
    let args = std::iter::once(launch.host.mac.sandbox_exec.to_string())
        .chain(sandbox_exec_args(launch.profile, launch.program))
        .map(|arg| text(&arg))
        .collect::<Result<Vec<_>, _>>()?;
    let env = ENVIRONMENT.map(text).into_iter().collect::<Result<Vec<_>, _>>()?;
    execve(&program, &args, &env)
        .map_err(|error| StepError::new("sandbox", format!("`{}`: {error}", launch.host.mac.sandbox_exec)))
}

/// Sets the limits, soft and hard alike; a lower hard limit of the host stays.
fn limits(limits: ProcessLimits) -> Result<(), StepError> {
    for (limit, most) in Limit::all(limits) {
        limit
            .set(most)
            .map_err(|error| StepError::new("limits", format!("{limit:?}: {error}")))?;
    }
    be_nice(limits.nice).step("limits")
}

/// A limit that the kernel keeps (setrlimit(2)). Not by a library, because none names the first on macOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// Processes of the real user.
    Processes,
    /// Open files of a process.
    OpenFiles,
    /// Bytes of one file.
    FileSize,
    /// Bytes of a core file, which would hold the job's secrets, in a folder of the host's (`/cores`).
    Core,
}

impl Limit {
    /// Every limit with its value.
    pub(super) fn all(limits: ProcessLimits) -> [(Self, u64); 4] {
        let ProcessLimits {
            processes,
            open_files,
            file_byte,
            nice: _,
        } = limits;
        let open_files = os::open_files_ceiling().map_or(open_files, |most| open_files.min(most));
        [
            (Self::Processes, processes),
            (Self::OpenFiles, open_files),
            (Self::FileSize, file_byte),
            (Self::Core, 0),
        ]
    }

    /// What holds for this process, soft and hard.
    pub(super) fn get(self) -> io::Result<(u64, u64)> {
        let mut found = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `found` is valid for writing and outlives the call.
        Errno::result(unsafe {
            match self {
                Self::Processes => libc::getrlimit(libc::RLIMIT_NPROC, &raw mut found),
                Self::OpenFiles => libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut found),
                Self::FileSize => libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut found),
                Self::Core => libc::getrlimit(libc::RLIMIT_CORE, &raw mut found),
            }
        })?;
        Ok((found.rlim_cur, found.rlim_max))
    }

    fn set(self, most: u64) -> io::Result<()> {
        let most = most.min(self.get()?.1);
        let wanted = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        // SAFETY: the kernel only reads `wanted`, which outlives the call.
        Errno::result(unsafe {
            match self {
                Self::Processes => libc::setrlimit(libc::RLIMIT_NPROC, &raw const wanted),
                Self::OpenFiles => libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted),
                Self::FileSize => libc::setrlimit(libc::RLIMIT_FSIZE, &raw const wanted),
                Self::Core => libc::setrlimit(libc::RLIMIT_CORE, &raw const wanted),
            }
        })?;
        Ok(())
    }
}

/// Becomes the account, with its one group. The order matters: each call needs a privilege that a later one gives
/// up. As root setgid(2) and setuid(2) set the saved ids too.
fn become_account(account: &Account) -> Result<(), StepError> {
    const STEP: &str = "account";
    let Account { name, uid, gid } = account;
    if *uid == 0 || *gid == 0 {
        return Err(StepError::new(STEP, format!("`{name}` has id 0")));
    }
    os::set_groups(&[*gid]).step(STEP)?;
    setgid(Gid::from_raw(*gid)).step(STEP)?;
    setuid(Uid::from_raw(*uid)).step(STEP)
}

/// Makes the keychain, in a HOME that nothing of the job's has touched yet.
fn make_keychain(launch: &Launch<'_>) -> Result<(), StepError> {
    const STEP: &str = "keychain";
    let keychain = launch.keychain;
    for folder in keychain.folders() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|e| StepError::new(STEP, format!("`{folder}`: {e}")))?;
    }
    for call in keychain.calls(&launch.host.mac.security).step(STEP)? {
        let output = command::run(&call.spec).map_err(|e| StepError::new(STEP, crate::chain(&e)))?;
        keychain.judge(&call, &output).step(STEP)?;
    }
    Ok(())
}

/// Puts every descriptor in its place and lets nothing else through.
fn arrange(ends: Ends) -> io::Result<()> {
    let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?);
    let Ends {
        plan,
        said,
        complaint,
        job: [stdin, stdout, stderr],
    } = ends;
    let places = [
        (&null, 0),
        (&null, 1),
        (&complaint, 2),
        (&plan, PLAN),
        (&said, SAID),
        (&stdin, JOB[0]),
        (&stdout, JOB[1]),
        (&stderr, JOB[2]),
    ];
    // Out of the way first, for one's place may be where another one is.
    let mut moved = Vec::new();
    for (fd, place) in places {
        let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE))?;
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        moved.push((unsafe { OwnedFd::from_raw_fd(copy) }, place));
    }
    // The copies at their places live until the program is executed, and beyond.
    std::mem::forget((null, plan, said, complaint, stdin, stdout, stderr));
    for (fd, place) in &moved {
        // SAFETY: duplicates a descriptor, touches no memory; what was at `place` is not used any more.
        Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), *place) })?;
    }
    std::mem::forget(moved);
    close_on_exec(JOB[2] + 1)
}

/// Marks every descriptor from `first` on, so that the next program does not get it.
pub(super) fn close_on_exec(first: RawFd) -> io::Result<()> {
    // The list is made before anything is changed, because reading it takes a descriptor, too.
    let open: Vec<RawFd> = std::fs::read_dir("/dev/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd >= first)
        .collect();
    for fd in open {
        // SAFETY: sets a flag, touches no memory.
        let marked = Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, FdFlag::FD_CLOEXEC.bits()) });
        match marked {
            // The one the list was read with.
            Ok(_) | Err(Errno::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Gives every signal its default meaning and blocks none, as a job expects it; Rust ignores `SIGPIPE`.
pub(super) fn default_signals() -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: sets a default disposition; no handler is involved.
        unsafe { sigaction(signal, &default) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}
