//! One launch, as data: what the sandbox's init is told, and what it says back.

use std::collections::BTreeMap;
use std::fmt;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::keychain::Keychain;
use crate::job::{JobId, Names};
use crate::profile::Policy;
use crate::slot::Account;

/// Everything the sandbox's init needs to start one job.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// Whose process it is.
    pub job: JobId,
    /// What it may do, as its system enforces it.
    pub confinement: Confinement,
    /// Who it runs as; `None` keeps the caller's account, inside a user namespace.
    pub account: Option<Account>,
    /// Program and arguments; a program without a slash is looked up on the job's `PATH`, inside the sandbox.
    pub command: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// How it is asked to end.
    pub stop: Stop,
    /// Where it starts.
    pub work_dir: Utf8PathBuf,
    /// Limits the kernel keeps per process or account.
    pub limits: ProcessLimits,
    /// The same for the whole job, where it has a control group.
    pub group: Option<GroupLimits>,
}

/// Leaves the values of variables out.
impl fmt::Debug for LaunchPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            job,
            confinement,
            account,
            command,
            env,
            stop,
            work_dir,
            limits,
            group,
        } = self;
        f.debug_struct("LaunchPlan")
            .field("job", job)
            .field("confinement", confinement)
            .field("account", account)
            .field("command", command)
            .field("env", &Names(env))
            .field("stop", stop)
            .field("work_dir", work_dir)
            .field("limits", limits)
            .field("group", group)
            .finish()
    }
}

/// How a job is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// Every process of it gets `SIGTERM`.
    Terminate,
    /// The command alone gets `SIGINT`, and sees to the rest: GitHub's listener then ends its job in order, and a job whose
    /// processes end otherwise goes on with the steps that always run.
    Interrupt,
}

/// What a job may do, in the form that one system enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confinement {
    /// A policy for the sandbox of Linux.
    Linux(Policy),
    /// A profile for the sandbox of macOS.
    Seatbelt(Seatbelt),
}

/// What a launch on macOS is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seatbelt {
    /// The text that sandbox-exec(1) applies.
    pub profile: String,
    /// The keychain that is made for the job before it starts.
    pub keychain: Keychain,
}

/// Limits that setrlimit(2) keeps, and what setpriority(2) does. A hard limit of the host that is lower stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimits {
    /// Processes and threads of the account (`RLIMIT_NPROC`).
    pub processes: u64,
    /// Open files per process (`RLIMIT_NOFILE`).
    pub open_files: u64,
    /// Largest file in bytes (`RLIMIT_FSIZE`).
    pub file_byte: u64,
    /// Niceness, 0 to 19; a process of the job can raise it and not lower it.
    pub nice: u8,
}

/// What the kernel keeps a whole job to, in a control group of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLimits {
    /// Memory in bytes, without swap.
    pub memory_byte: u64,
    /// Processes and threads.
    pub processes: u64,
}

/// What init says on the status pipe, one JSON object a line. The job itself cannot write there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Status {
    /// Every protection is applied and was read back; the command starts now.
    Ready,
    /// A step failed; nothing of the job's ran.
    StepFailed {
        /// The step's name.
        step: String,
        /// What the kernel said about what.
        detail: String,
    },
    /// The command could not be executed.
    NotExecuted {
        /// 127 when there is no such program, 126 otherwise, as env(1) has it.
        code: u8,
        /// What the kernel said.
        detail: String,
    },
    /// The command ended by itself.
    Exited {
        /// Its exit code.
        code: u8,
    },
    /// A signal ended the command.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warden::Request;

    #[test]
    fn no_debug_text_of_a_launch_holds_a_secret() {
        let keychain = Keychain::new("/data/native/0a1b2c3d4e5/home".into(), 0xfeed);
        let password = keychain.password.clone();
        let env = [
            ("EPHEMERD_KEYCHAIN_PASSWORD", password.as_str()),
            ("TOKEN", "s3cret"),
        ];
        let plan = LaunchPlan {
            job: "0a1b2c3d4e5".parse().unwrap(),
            confinement: Confinement::Seatbelt(Seatbelt {
                profile: "(version 1)".to_owned(),
                keychain,
            }),
            account: None,
            command: vec!["make".to_owned()],
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            stop: Stop::Terminate,
            work_dir: "/data/native/0a1b2c3d4e5/work".into(),
            limits: ProcessLimits {
                processes: 1,
                open_files: 1,
                file_byte: 1,
                nice: 0,
            },
            group: None,
        };
        let request = Request::Launch(Box::new(plan.clone()));
        let text = format!("{plan:?}{plan:#?}{request:?}{request:#?}");
        assert!(text.contains("TOKEN"), "{text}");
        for secret in [password.as_str(), "s3cret"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
