//! Live probes: one table of what a job could try in order to break out or to reach a sibling, the daemon or
//! the host, and of benign neighbours that must keep working.
//!
//! The same code runs three ways, and only all three together prove a claim:
//!
//! ```text
//!  control    unconfined        an attack must succeed, else the attempt itself proves nothing
//!  attack     in the sandbox    it must fail, and with the expected errno or signal
//!  benign     in the sandbox    it must work, else the sandbox is a wall and not a fence
//! ```
//!
//! Every attempt is harmless where it succeeds: what it changes is its own process, a staged file or an object
//! it removes at once, and calls that could hurt the host carry arguments the kernel rejects only *after* it
//! has checked the caller's privilege. [`seatbelt`] is the same for macOS. `table` holds what each probe claims, the Linux modules hold how it is
//! done, [`Stage`] prepares what there is to attack, and [`judge`] compares.

mod guess;
pub mod seatbelt;
mod table;

#[cfg(not(target_os = "linux"))]
#[path = "probe/elsewhere.rs"]
mod system;
#[cfg(target_os = "linux")]
#[path = "probe/linux.rs"]
mod system;

use std::fmt;
use std::io;

use camino::Utf8PathBuf;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::sandbox::Axis;

pub use system::{Stage, attempt_all, stand_in};
pub use table::table;

/// What a probe run is told about the outside: paths that exist there, and pids of the outer pid namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A name nothing else on the host has, 15 bytes at most so that it fits a process name (prctl(2)).
    pub mark: String,
    /// Root of the job's own workspace, with `home`, `tmp` and `work` in it.
    pub workspace: Utf8PathBuf,
    /// Root of a sibling's, with a world-writable `home/secret`, `work` and listening socket `tmp/sock`.
    pub sibling_workspace: Utf8PathBuf,
    /// A process of the sibling.
    pub sibling_pid: i32,
    /// Its start time in clock ticks (proc_pid_stat(5), field 22): the same number inside a pid namespace may
    /// be another process.
    pub sibling_start_ticks: Option<u64>,
    /// A process of the daemon.
    pub daemon_pid: i32,
    /// Its start time in clock ticks.
    pub daemon_start_ticks: Option<u64>,
    /// Inode of the outer pid namespace.
    pub outer_pid_namespace: Option<u64>,
    /// Abstract Unix socket of the sibling, without the leading NUL.
    pub sibling_abstract_socket: String,
    /// Key of a System V shared memory segment of the sibling, mode 0666.
    pub sysv_shm_key: i32,
    /// Name, without the slash, of a POSIX shared memory object of the sibling, mode 0666.
    pub posix_shm: String,
    /// Name, without the slash, of a POSIX message queue of the sibling, mode 0666.
    pub message_queue: String,
    /// Configuration, ledger, logs and keys of the daemon.
    pub state_files: Vec<Utf8PathBuf>,
    /// The daemon's control socket.
    pub control_socket: Utf8PathBuf,
    /// A world-writable file the sibling left in the host's `/tmp`.
    pub host_tmp_file: Utf8PathBuf,
    /// The same in `/var/tmp`.
    pub host_var_tmp_file: Utf8PathBuf,
    /// A TCP listener on the host's 127.0.0.1; `None` where the egress mode lets jobs reach it.
    pub loopback_port: Option<u16>,
    /// First port of the job's own range; `None` lets the kernel choose one.
    pub own_port: Option<u16>,
    /// What the profile shows on purpose, in people's homes as well.
    #[serde(default)]
    pub shown: Vec<Utf8PathBuf>,
    /// How many processes the job may have.
    pub process_limit: u64,
}

/// Whether a probe attacks or does what any build does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Must fail inside the sandbox.
    Attack,
    /// Must work inside the sandbox.
    Benign,
}

/// One way in which an attack is rightly stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The call fails with this errno.
    Errno(i32),
    /// The process is killed by this signal.
    Signal(i32),
    /// A tool of the system ends with a failure of its own.
    Refusal,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => write!(f, "{}", errno_name(*errno)),
            Self::Signal(signal) => write!(f, "{}", signal_name(*signal)),
            Self::Refusal => f.write_str("a failure of the tool"),
        }
    }
}

/// Who can show, unconfined, that an attack works at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Any account.
    Anyone,
    /// Only root.
    Root,
    /// Nobody, for this reason.
    None {
        /// Why there is no harmless or no certain control.
        why: &'static str,
    },
}

/// What one probe claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeInfo {
    /// Stable kebab-case name.
    pub name: &'static str,
    /// The kind of protection it tests.
    pub axis: Axis,
    /// Attack or benign.
    pub class: Class,
    /// What it does, in one sentence.
    pub what: &'static str,
    /// How the sandbox stops it; empty for a benign probe.
    pub expected: &'static [Stop],
    /// Who can show that it works unconfined.
    pub control: Control,
}

/// What came of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Attempt {
    /// It did what it set out to do.
    Succeeded {
        /// What was reached.
        detail: String,
    },
    /// It was stopped by a failing call.
    Failed {
        /// The error number.
        errno: i32,
        /// Its name, `EPERM` for example.
        errno_name: String,
        /// Which call on what.
        detail: String,
    },
    /// It was stopped by a signal.
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// A tool of the system was asked to do it, and did not.
    Refused {
        /// Its exit code; -1 where a signal ended it.
        status: i32,
        /// What was asked for.
        detail: String,
    },
    /// It was set going; only the outside can see, afterwards, whether it got anywhere. See [`Stage::settle`].
    Planted {
        /// What was set going.
        detail: String,
    },
    /// There was nothing to try it on.
    NotApplicable {
        /// Why not.
        why: String,
    },
}

/// What an attempt says about the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// An attack was stopped as expected.
    Held,
    /// An attack succeeded.
    Broken,
    /// A benign probe worked.
    Works,
    /// A benign probe was stopped.
    Hampered,
    /// Nothing can be said: not applicable, not settled yet, or stopped by something unexpected.
    Unknown,
}

/// One probe's outcome, as `__probe` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The probe's name.
    pub name: String,
    /// The kind of protection it tested.
    pub axis: Axis,
    /// Attack or benign.
    pub class: Class,
    /// What came of it.
    pub attempt: Attempt,
    /// What that says about the sandbox.
    pub verdict: Verdict,
}

/// Why probes could not run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Not a name of the table.
    #[error("there is no probe `{name}`\nhint: the nearest is `{nearest}`")]
    UnknownProbe {
        /// What was asked for.
        name: String,
        /// The most similar name.
        nearest: &'static str,
    },
    /// More than one thread: a forked child could inherit a lock nobody will ever release.
    #[error("probes fork and therefore run in a process of one thread; this one has {0}")]
    Threads(usize),
    /// A target could not be guessed.
    #[error(
        "not inside a job of ephemerd: {0}\nhint: run this as a job, or pass --target with a description as JSON"
    )]
    NotAJob(String),
    /// Something to attack could not be set up.
    #[error("could not stage {what}")]
    Stage {
        /// What was to be set up.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// These probes are for another operating system.
    #[error(
        "these probes are for Linux\nhint: on a Mac `ephemerd profile verify` runs those of `probe::seatbelt`"
    )]
    LinuxOnly,
}

impl Attempt {
    /// A success that reached `detail`.
    pub fn succeeded(detail: impl Into<String>) -> Self {
        Self::Succeeded {
            detail: detail.into(),
        }
    }

    /// A failure with `errno` of what `detail` names.
    pub fn failed(errno: i32, detail: impl Into<String>) -> Self {
        Self::Failed {
            errno,
            errno_name: errno_name(errno),
            detail: detail.into(),
        }
    }

    /// Nothing to try it on, because of `why`.
    pub fn not_applicable(why: impl Into<String>) -> Self {
        Self::NotApplicable { why: why.into() }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded { detail } => write!(f, "done: {detail}"),
            Self::Failed {
                errno_name, detail, ..
            } => write!(f, "{errno_name} ({detail})"),
            Self::Killed { signal } => write!(f, "{}", signal_name(*signal)),
            Self::Refused { status, detail } => write!(f, "exit code {status} ({detail})"),
            Self::Planted { detail } => write!(f, "seen only from outside: {detail}"),
            Self::NotApplicable { why } => write!(f, "not tried: {why}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Broken => "BROKEN",
            Self::Works => "works",
            Self::Hampered => "HAMPERED",
            Self::Unknown => "unknown",
        })
    }
}

impl Report {
    /// The report of `info`'s probe that came to `attempt`.
    pub fn new(info: &ProbeInfo, attempt: Attempt) -> Self {
        let verdict = judge(info, &attempt);
        Self {
            name: info.name.to_owned(),
            axis: info.axis,
            class: info.class,
            attempt,
            verdict,
        }
    }

    /// Whether nothing speaks against the sandbox: it held or works, or the probe had nothing to say. An attack
    /// stopped by something *unexpected* is not fine: what stopped it may be luck.
    pub fn is_fine(&self) -> bool {
        match self.verdict {
            Verdict::Held | Verdict::Works => true,
            Verdict::Broken | Verdict::Hampered => false,
            Verdict::Unknown => {
                matches!(
                    self.attempt,
                    Attempt::NotApplicable { .. } | Attempt::Planted { .. }
                )
            }
        }
    }
}

/// What `attempt`, made inside the sandbox, says about it.
pub fn judge(info: &ProbeInfo, attempt: &Attempt) -> Verdict {
    let stop = match attempt {
        Attempt::NotApplicable { .. } | Attempt::Planted { .. } => return Verdict::Unknown,
        Attempt::Succeeded { .. } => None,
        Attempt::Failed { errno, .. } => Some(Stop::Errno(*errno)),
        Attempt::Killed { signal } => Some(Stop::Signal(*signal)),
        Attempt::Refused { .. } => Some(Stop::Refusal),
    };
    match (info.class, stop) {
        (Class::Benign, None) => Verdict::Works,
        (Class::Benign, Some(_)) => Verdict::Hampered,
        (Class::Attack, None) => Verdict::Broken,
        (Class::Attack, Some(stop)) if info.expected.contains(&stop) => Verdict::Held,
        (Class::Attack, Some(_)) => Verdict::Unknown,
    }
}

/// The name of an error number, `EPERM` for example.
fn errno_name(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => format!("errno {errno}"),
        known => format!("{known:?}"),
    }
}

/// The name of a signal, `SIGSYS` for example.
fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |s| s.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str) -> ProbeInfo {
        table().into_iter().find(|info| info.name == name).unwrap()
    }

    #[test]
    fn an_attack_that_succeeds_breaks_the_sandbox() {
        assert_eq!(
            judge(&info("new-user-namespace"), &Attempt::succeeded("")),
            Verdict::Broken
        );
    }

    #[test]
    fn an_attack_stopped_as_expected_is_held() {
        let attempt = Attempt::failed(libc::EPERM, "unshare");
        assert_eq!(judge(&info("new-user-namespace"), &attempt), Verdict::Held);
        assert_eq!(
            judge(
                &info("ia32-system-call"),
                &Attempt::Killed { signal: libc::SIGSYS }
            ),
            Verdict::Held
        );
    }

    #[test]
    fn an_attack_stopped_by_something_else_is_not_fine() {
        let report = Report::new(
            &info("new-user-namespace"),
            Attempt::failed(libc::ENOSPC, "unshare"),
        );
        assert_eq!(report.verdict, Verdict::Unknown);
        assert!(!report.is_fine());
    }

    #[test]
    fn a_probe_with_nothing_to_try_is_fine_and_unknown() {
        let report = Report::new(&info("new-user-namespace"), Attempt::not_applicable("none"));
        assert_eq!(report.verdict, Verdict::Unknown);
        assert!(report.is_fine());
    }

    #[test]
    fn a_benign_probe_that_fails_hampers() {
        let report = Report::new(
            &info("rename-across-folders"),
            Attempt::failed(libc::EXDEV, "rename"),
        );
        assert_eq!(report.verdict, Verdict::Hampered);
        assert!(!report.is_fine());
    }

    #[test]
    fn reports_survive_the_way_through_json() {
        let report = Report::new(
            &info("ia32-system-call"),
            Attempt::failed(libc::EPERM, "int 0x80"),
        );
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
