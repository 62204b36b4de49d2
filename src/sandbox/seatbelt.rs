//! The launch on macOS: a guard outside, sandbox-exec(1), and a first program inside that proves it is fenced in.
//!
//! ```text
//!  warden ─fork─► guard (root)                 holds the status pipe, kills on the warden's word or end
//!                   └─fork─► child             1 to 8, one after the other
//!                              └─exec─► sandbox-exec -f PROFILE ephemerd __confined
//!                                         └─exec─► ephemerd __confined      9, then readiness
//!                                                    └─exec─► the command
//! ```
//!
//! The steps, in order; each has one name, and a failing one is reported by it:
//!
//! 1. `session`: a session and process group of its own, without a terminal; umask 077.
//! 2. `audit-session`: a security session of its own, which decides whose keychains count.
//! 3. `limits`: rlimits, before the account changes. None for memory: macOS refuses those (setrlimit(2) says
//!    `EINVAL` for `RLIMIT_AS`, `RLIMIT_DATA` and `RLIMIT_RSS`, seen on 26.2), so it is measured instead.
//! 4. `account`: the one group, the group, the user. initgroups(3) would add the groups that macOS computes.
//! 5. `work-dir`: where the command starts.
//! 6. `keychain`: made by security(1) as the account, in this session.
//! 7. `profile`: the profile's file can be read, which is one half of the proof.
//! 8. `sandbox`: only the descriptors the rest needs, then sandbox-exec.
//! 9. `proof`: see `confined`.
//!
//! The warden writes the profile to a file of its own in a folder no job can write to, because sandbox-exec reads
//! it before it applies it. It starts with an environment of ours, since the job's own could load code into it
//! (`DYLD_INSERT_LIBRARIES`). A sandbox cannot be left or widened, and does not nest: what a job starts under
//! sandbox-exec once more fails with exit code 71.
//!
//! All of this is ordinary code that runs on Linux against stand-ins; only `audit-session` and the meaning of a
//! denial differ (`host::os`). None of it was run on a Mac.

mod child;
pub(crate) mod confined;
pub(crate) mod guard;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::{ForkResult, fork};
use serde::{Deserialize, Serialize};

use super::launch::{LaunchPlan, ProcessLimits, Seatbelt};
use super::launcher::First;
use super::step::{Given, StepError};
use crate::host::Host;
use crate::job::Names;
use crate::slot::Account;

/// The name of the subcommand that runs first inside the sandbox.
pub const CONFINED: &str = "__confined";

/// What the first program inside is told, and has to check.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Confined {
    /// Program and arguments of the job.
    command: Vec<String>,
    /// The job's environment.
    env: BTreeMap<String, String>,
    /// Who it must be; `None` is whoever started it.
    account: Option<Account>,
    /// Limits that must hold.
    limits: ProcessLimits,
    /// The file that could be read outside.
    profile: Utf8PathBuf,
}

/// Leaves the values of variables out.
impl fmt::Debug for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            command,
            env,
            account,
            limits,
            profile,
        } = self;
        f.debug_struct("Confined")
            .field("command", command)
            .field("env", &Names(env))
            .field("account", account)
            .field("limits", limits)
            .field("profile", profile)
            .finish()
    }
}

/// Starts jobs. Holds what every launch needs.
#[derive(Debug)]
pub(crate) struct Launcher {
    host: Host,
    program: Utf8PathBuf,
}

impl Launcher {
    /// Prepares launches on `host`, with `program` (ephemerd itself) as the first inside.
    pub(crate) fn new(host: &Host, program: Utf8PathBuf) -> Self {
        Self {
            host: host.clone(),
            program,
        }
    }

    /// Starts the guard of a job, whose profile must be at `profile` already.
    ///
    /// # Errors
    /// There are no pipes or processes left.
    pub(crate) fn spawn(
        &self,
        plan: &LaunchPlan,
        (seatbelt, profile): (&Seatbelt, &Utf8Path),
        given: Given,
    ) -> io::Result<First> {
        let (leash, held) = io::pipe()?;
        // SAFETY: the warden has one thread, so the child may do whatever it likes.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                let held: OwnedFd = held.into();
                Ok(First {
                    pid: child,
                    leash: Some(File::from(held)),
                })
            }
            ForkResult::Child => {
                drop(held);
                let launch = child::Launch {
                    host: &self.host,
                    program: &self.program,
                    plan,
                    keychain: &seatbelt.keychain,
                    profile,
                };
                guard::run(&launch, given, leash);
                // SAFETY: ends the child without running the parent's destructors.
                unsafe { libc::_exit(0) }
            }
        }
    }
}

/// The command line of the sandboxed first program, without the path of sandbox-exec itself.
fn sandbox_exec_args(profile: &Utf8Path, program: &Utf8Path) -> [String; 4] {
    [
        "-f".to_owned(),
        profile.to_string(),
        program.to_string(),
        CONFINED.to_owned(),
    ]
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Code(u8),
    Signal(i32),
}

/// Why nothing of the job ran, from how sandbox-exec ended (sysexits(3)) and what it wrote to standard error.
fn refusal(end: End, said: &str) -> StepError {
    let (what, hint) = match end {
        End::Code(65) => (
            "sandbox-exec refuses the profile (65)",
            "`ephemerd profile lint` names what this release of macOS does not know",
        ),
        End::Code(71) if said.contains("sandbox_apply") => (
            "the sandbox cannot be applied (71): this process is in one already",
            "sandboxes do not nest; start ephemerd from launchd, not from a sandboxed program",
        ),
        End::Code(71) => (
            "sandbox-exec cannot start the first program (71)",
            "the profile and the modes of all folders above must let the job's account execute ephemerd itself",
        ),
        End::Code(64) => (
            "sandbox-exec does not take these options (64)",
            "see sandbox-exec(1) of this release of macOS",
        ),
        End::Code(_) => (
            "the first program ended before it could prove anything",
            "see what the unified log says of sandbox-exec at this time",
        ),
        End::Signal(_) => (
            "the first program was killed before it could prove anything",
            "a program that may not read what dyld needs dies so; `ephemerd profile denials` shows what was denied",
        ),
    };
    let how = match end {
        End::Code(65 | 71 | 64) => String::new(),
        End::Code(code) => format!(": exit code {code}"),
        End::Signal(signal) => format!(": signal {signal}"),
    };
    let said: String = said.trim().lines().map(|line| format!("\n  {line}")).collect();
    StepError::new("sandbox", format!("{what}{how}{said}\nhint: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_sandbox_exec_has_its_own_words_and_remedy() {
        let text = |end, said| refusal(end, said).to_string();
        let nested = text(
            End::Code(71),
            "sandbox-exec: sandbox_apply: Operation not permitted\n",
        );
        assert!(nested.contains("in one already") && nested.contains("\nhint: sandboxes do not nest"));
        assert!(nested.contains("\n  sandbox-exec: sandbox_apply"), "{nested}");
        let execvp = text(
            End::Code(71),
            "sandbox-exec: execvp() of '/x' failed: Operation not permitted",
        );
        assert!(execvp.contains("cannot start the first program"), "{execvp}");
        assert!(text(End::Code(65), "").starts_with("sandbox: sandbox-exec refuses the profile (65)\nhint:"));
        assert!(text(End::Code(64), "usage").contains("(64)"));
        assert!(text(End::Code(9), "").contains("exit code 9"));
        assert!(text(End::Signal(6), "").contains("signal 6"));
    }

    #[test]
    fn no_debug_text_of_what_the_first_program_is_told_holds_the_value_of_a_variable() {
        let told = Confined {
            command: vec!["make".to_owned()],
            env: [("TOKEN".to_owned(), "s3cret".to_owned())].into(),
            account: None,
            limits: ProcessLimits {
                processes: 1,
                open_files: 1,
                file_byte: 1,
                nice: 0,
            },
            profile: "/data/profiles/j.sb".into(),
        };
        let text = format!("{told:?}{told:#?}");
        assert!(text.contains("TOKEN") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn the_profile_is_named_by_file() {
        assert_eq!(
            sandbox_exec_args("/data/profiles/j.sb".into(), "/usr/local/bin/ephemerd".into()),
            [
                "-f",
                "/data/profiles/j.sb",
                "/usr/local/bin/ephemerd",
                "__confined"
            ]
        );
    }
}
