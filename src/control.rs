//! The control socket: how people on this host talk to the daemon.
//!
//! One question and one answer per connection, a line of JSON each; after the answer to [`Ask::Logs`] the
//! job's output follows as it is, until the end of the stream. Only root, the daemon's own user and members
//! of the admin group may ask; the kernel says who asks (unix(7), `SO_PEERCRED`).

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};

use crate::daemon::github::GitHubReport;
use crate::daemon::reload::{ConfigReport, Reloaded};
use crate::daemon::vm::report::VmReport;
use crate::job::ledger::{JobRow, Transition};
use crate::job::{JobId, JobSpec, Repo};
use crate::provision::question::{self, Question};
use crate::sandbox::axes::AxisReport;
use crate::trust::Route;

/// Bytes a question may have.
pub const LONGEST_QUESTION: u64 = 1 << 20;

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Take a job.
    Submit {
        /// The job.
        spec: JobSpec,
    },
    /// Answer when the job has ended.
    Wait {
        /// The job.
        job: JobId,
    },
    /// List jobs.
    Jobs {
        /// Finished ones too.
        all: bool,
    },
    /// Tell everything about one job.
    Show {
        /// The job.
        job: JobId,
    },
    /// Tell how the daemon is.
    Status {},
    /// Send a job's output.
    Logs {
        /// The job.
        job: JobId,
        /// Until it has ended.
        follow: bool,
    },
    /// End a job.
    Cancel {
        /// The job.
        job: JobId,
    },
    /// Answer these as a job sees it.
    Look {
        /// Whose job; its grants decide what there is to see.
        repo: Repo,
        /// The questions.
        questions: Vec<Question>,
    },
    /// Read the configuration again.
    Reload {
        /// Only say what that would come to.
        dry_run: bool,
    },
    /// Start no more jobs.
    Drain {},
    /// Start jobs again.
    Resume {
        /// Take this slot out of quarantine, instead.
        slot: Option<u32>,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The job was taken; a refused one has ended already.
    Submitted {
        /// Its id.
        job: JobId,
        /// Where it runs.
        route: Route,
        /// Why there.
        reason: String,
    },
    /// Jobs, newest first.
    Jobs {
        /// The jobs.
        jobs: Vec<JobRow>,
    },
    /// One job.
    Story(Box<Story>),
    /// How the daemon is.
    Status(Box<StatusReport>),
    /// What a job sees, in the order of the questions.
    Seen {
        /// The answers.
        answers: Vec<question::Answer>,
    },
    /// The configuration was read again.
    Reloaded(Box<Reloaded>),
    /// The configuration is wrong, and what was in force stays.
    Kept {
        /// Why, with the place of every problem and what helps.
        message: String,
    },
    /// Done; for logs, the output follows.
    Done {},
    /// It cannot be answered.
    Error {
        /// Why, with a hint where there is one.
        message: String,
    },
}

/// Everything about one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// The job.
    pub job: JobRow,
    /// Every state it was in.
    pub transitions: Vec<Transition>,
    /// What was left of it, while its slot is in quarantine for that.
    #[serde(default)]
    pub left: Option<String>,
}

/// How the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Where its state lives.
    pub data_dir: String,
    /// Whether it starts no more jobs.
    pub draining: bool,
    /// Jobs that wait for a slot, in the order they will get one.
    pub queued: Vec<JobId>,
    /// Every slot.
    pub slots: Vec<SlotReport>,
    /// What the host enforces.
    pub axes: Vec<AxisReport>,
    /// Why no job is let through, as far as that is known: the host is not enabled, or lacks something.
    #[serde(default)]
    pub shut: Option<String>,
    /// Why no job starts for now, while this host has less free than it keeps.
    pub full: Option<String>,
    /// How things stand with GitHub, where jobs come from there.
    #[serde(default)]
    pub github: Option<GitHubReport>,
    /// How things stand with guests, where a backend is configured.
    #[serde(default)]
    pub vm: Option<VmReport>,
    /// Where the status page and the metrics are served.
    #[serde(default)]
    pub listen: Option<String>,
    /// As whom the part runs that you ask, which faces the network, and behind what.
    #[serde(default)]
    pub fence: Option<String>,
    /// How many of that part were killed before this one since the daemon was started.
    #[serde(default)]
    pub killed: u32,
    /// When the configuration was read, whether the last reading came to nothing, and what waits for a restart.
    #[serde(default)]
    pub config: ConfigReport,
}

/// How a slot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// 1 to N.
    pub index: u32,
    /// Who runs there.
    pub account: String,
    /// What goes on.
    #[serde(flatten)]
    pub now: SlotNow,
}

/// What goes on in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum SlotNow {
    /// Nothing.
    Free,
    /// A job.
    Busy {
        /// The job.
        job: JobId,
    },
    /// Ephemerd looks what a job would see.
    Looking {},
    /// It is not used, because a job left something there.
    Quarantined {
        /// What.
        reason: String,
    },
}
