//! The warden: the small, single-threaded process that alone makes privileged changes for jobs.
//!
//! The dispatcher starts it once, by running its own program again, and talks to it over a socket pair in
//! the messages below. It has one thread and little memory, so that its forks are cheap: every launch is a
//! fork of it, on Linux straight into new namespaces (see [`crate::sandbox`]), and everything that takes long (kill,
//! wipe, count) happens in a forked worker, so that a large wipe does not hold up the next launch. It builds
//! the paths of workspaces itself from job ids and the folder it was started with; what a launch plan shows to
//! the job it takes from the dispatcher.
//!
//! When the dispatcher of a daemon is killed, the warden starts another, which takes the jobs up ([`supervise`]); when that of a
//! single command goes away, the warden kills what it started and ends. When the warden goes away, the kernel kills the jobs
//! (`PR_SET_PDEATHSIG`), or on macOS the guard of each does.

mod again;
pub mod bounds;
pub mod client;
pub(crate) mod domain;
mod filter;
mod kept;
mod post;
pub(crate) mod scrub;
pub mod serve;
mod shift;
pub mod supervise;
pub mod wire;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::daemon::ground::Ground;
use crate::egress::Ports;
use crate::github::runner::jit;
use crate::host::command::CommandSpec;
use crate::host::egress::canary::Attempt;
use crate::host::egress::filter::Compared;
use crate::host::secrets::Packed;
use crate::job::{Acquisition, JobId, Repo};
use crate::provision::question::Answer;
use crate::sandbox::launch::LaunchPlan;
use crate::slot::{Account, Slot};
use crate::workspace::homebrew::Order;
pub use kept::Memo;

/// What the dispatcher asks of the warden. A [`Request::Launch`] carries four descriptors: standard input,
/// output and error of the job, and the status pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Make the job's folder and give it to the account; `None` keeps the warden's own.
    Prepare {
        /// Whose folder.
        job: JobId,
        /// Who gets it.
        account: Option<Account>,
        /// The Homebrew prefix to make for it as well.
        homebrew: Option<Order>,
        /// What makes it GitHub's runner, where it is one.
        runner: Option<Box<RunnerSetup>>,
    },
    /// Start the job's process.
    Launch(Box<LaunchPlan>),
    /// Ask every process of the job to end, or end them.
    Signal {
        /// Whose processes.
        job: JobId,
        /// Whether they may finish (`SIGTERM`) or not (`SIGKILL`).
        politely: bool,
    },
    /// Undo acquisitions, in the order given, and look for anything that is left.
    Scrub {
        /// Whose.
        job: JobId,
        /// The account's name, for the files it may have left in shared places.
        account: Option<Account>,
        /// Newest first.
        acquisitions: Vec<Acquisition>,
        /// Whether the folder is moved to `kept` instead of removed.
        keep: bool,
    },
    /// Count what the job uses.
    Usage {
        /// Whose.
        job: JobId,
        /// The account whose processes are counted, where it has the account for itself.
        uid: Option<u32>,
        /// Whether to walk its folder as well.
        disk: bool,
    },
    /// Try the packet filter as the accounts of these slots.
    Canary {
        /// The slots.
        slots: Vec<Slot>,
        /// Ports at which the rules treat loopback in a way of their own.
        avoid: Vec<Ports>,
    },
    /// Name the jobs that have a folder below `native` or a profile.
    Folders,
    /// Compare the packet filter's rules with what they should be, and load them again where they are not.
    Compare,
    /// Make the entrance of a slot, by which the hook of its GitHub job reports. The answer carries the socket.
    Entrance {
        /// The slot.
        slot: u32,
        /// Its account, which may connect.
        account: Account,
    },
    /// Remove the entrance of a slot.
    CloseEntrance {
        /// The slot.
        slot: u32,
    },
    /// Answer what the manifest of the host, or of a repository, asks of the bare host.
    Look {
        /// Whose manifest; the host's where there is none.
        subject: Option<Repo>,
        /// The manifest as the dispatcher knows it.
        digest: String,
    },
    /// Tell the secrets that the configuration names.
    Secrets,
    /// Remove what the configuration has no room for.
    Prune {
        /// The jobs that have not ended.
        live: BTreeSet<JobId>,
    },
    /// Take news of the daemon, most of which the service manager is told.
    Tell {
        /// What.
        news: News,
    },
    /// Run a tool of guests as the account of `vm.user` until it ends, with the three descriptors that the request carries.
    /// Its standard input is its lifeline, see [`crate::host::command::attend`].
    Attend {
        /// The tool.
        spec: CommandSpec,
    },
    /// Keep a memo, which is not answered, and the descriptors that come with it, for the dispatcher that follows when this one is killed. Without
    /// descriptors, those that came with an earlier one stay.
    Keep {
        /// The job that it is about, if it is about one.
        of: Option<JobId>,
        /// What it says.
        memo: Memo,
    },
    /// Forget what is kept of a job. It is not answered.
    Forget {
        /// The job.
        job: JobId,
    },
    /// Tell what is kept. Its descriptors come with the answer.
    Recall {
        /// As it was kept.
        of: Option<JobId>,
    },
    /// Answer another dispatcher from now on, at the end of a socket that comes with this. Only the steward is told.
    Link,
    /// Do something to what a guest has on this host.
    Guest {
        /// Its name.
        name: String,
        /// What.
        deed: GuestDeed,
    },
}

/// What the service manager and the steward are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum News {
    /// Jobs are taken from now on.
    Ready,
    /// The daemon still works.
    Lives,
    /// It ends, and takes its time. Nobody is let in any more.
    Stops,
    /// It has read its configuration anew.
    Reloaded,
}

/// What is done to what a guest has on this host besides its backend's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestDeed {
    /// Make its folder.
    MakeFolder,
    /// Remove its folder.
    RemoveFolder,
    /// Kill every process of the tools' account whose arguments name it.
    Kill,
    /// Count what its tools use, and empty its console, if that is large.
    Measure,
}

/// What the warden puts into the folder of a job that is GitHub's runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerSetup {
    /// The job's slot.
    pub slot: u32,
    /// Its tree. On macOS it is copied; on Linux the sandbox shows it, and nothing is.
    pub build: String,
    /// Its configuration.
    pub config: jit::Packed,
}

/// What the warden answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Done.
    Done,
    /// The job's folders are there.
    Prepared {
        /// What is not as it was asked for, in words.
        note: Option<String>,
    },
    /// The process was started.
    Launched {
        /// Its pid as the host sees it.
        pid: i32,
    },
    /// The acquisitions were undone as far as possible.
    Scrubbed {
        /// How many of the acquisitions, counted from the first, are undone.
        undone: usize,
        /// What is left, in words; empty when the job left nothing.
        leftovers: Vec<String>,
    },
    /// What the job uses.
    Usage(Usage),
    /// What was tried of the packet filter.
    Canary {
        /// The attempts.
        attempts: Vec<Attempt>,
    },
    /// The jobs that have one.
    Folders {
        /// Their ids.
        jobs: Vec<JobId>,
        /// Guests that have a folder on this host, by name.
        guests: Vec<String>,
    },
    /// The rules of the packet filter are as they should be, now.
    Compared(Compared),
    /// They are not, although they were loaded again.
    Lost {
        /// What is different.
        why: String,
    },
    /// The answers to a manifest's questions, in their order.
    Answers {
        /// The answers.
        answers: Vec<Answer>,
    },
    /// The secrets.
    Secrets(Packed),
    /// What was pruned.
    Pruned {
        /// In words, what is gone.
        gone: Vec<String>,
        /// What is still there, and why.
        failed: Vec<String>,
    },
    /// A tool has ended.
    Attended {
        /// As wait(2) tells it.
        status: i32,
    },
    /// What is kept.
    Kept {
        /// What was written, where something was.
        memo: Option<Memo>,
        /// The job's first process, as the host sees it, while it has one.
        pid: Option<i32>,
    },
    /// Said first, before anything is asked.
    Hello(Box<Hello>),
    /// It could not be done.
    Failed {
        /// What and why, with a hint where there is one.
        reason: String,
    },
}

/// What a dispatcher begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What it stands on.
    pub ground: Ground,
    /// The jobs that an earlier one has left a memo of.
    pub kept: Vec<JobId>,
    /// How many have been killed before it since the daemon was started.
    pub killed: u32,
}

/// What a job uses at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processes.
    pub processes: u64,
    /// Resident bytes of all processes; pages they share count once for each.
    pub memory_byte: u64,
    /// Whether the kernel has ended a process of it because its control group had no memory left.
    pub was_out_of_memory: bool,
    /// Bytes allocated on disk below its folder, where that was asked for.
    pub disk_byte: Option<u64>,
}
