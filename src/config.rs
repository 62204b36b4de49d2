//! The configuration, resolved: every value present, checked and in its own unit.
//!
//! Raw text becomes these types in `resolve`; nothing else in the program reads the file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::job::Repo;
use crate::profile::Posture;
use crate::sandbox::Axis;

/// Everything `ephemerd.toml` says, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// `[host]`
    pub host: HostConfig,
    /// `[native]`
    pub native: Native,
    /// `[trust]`
    pub trust: crate::trust::TrustConfig,
    /// `[repos."owner/name"]`
    pub repos: BTreeMap<Repo, RepoConfig>,
    /// `[egress]`
    pub egress: Egress,
    /// `[control]`
    pub control: Control,
    /// `[log]`
    pub log: Log,
}

/// `[host]`: where daemon state lives and who it runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostConfig {
    /// Absolute folder of ledger, logs, control socket and workspaces.
    pub data_dir: Utf8PathBuf,
    /// Name of the service account and group; slots append their number.
    pub account: String,
}

/// `[native]`: how jobs run on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Native {
    /// Jobs at once, 1 to 64.
    pub slots: u32,
    /// One account per slot, or one for all.
    pub accounts: Accounts,
    /// Which template renders the profile.
    pub posture: Posture,
    /// Longest time a job's command may run.
    pub job_timeout: Duration,
    /// Time between the polite signal and the kill.
    pub stop_grace: Duration,
    /// Axes that may be less than enforced without the job being refused.
    pub allow_degraded: BTreeSet<Axis>,
    /// Absolute paths every job may read.
    pub extra_read: Vec<Utf8PathBuf>,
    /// Absolute paths every job may write.
    pub extra_write: Vec<Utf8PathBuf>,
    /// First port of slot 1's range.
    pub first_port: u16,
    /// Ports per slot.
    pub ports_per_slot: u16,
    /// `[native.limits]`
    pub limits: Limits,
    /// `[native.env]`: added to the minimal environment.
    pub env: BTreeMap<String, String>,
}

/// One account per slot, or one for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accounts {
    /// Slot N runs as `<account>N`.
    PerSlot,
    /// Every slot runs as `<account>`.
    Single,
}

/// `[native.limits]`: what one job may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Processes and threads.
    pub processes: u64,
    /// Bytes of memory of all its processes together.
    pub memory_byte: u64,
    /// Bytes of disk of its workspace; also the largest single file.
    pub disk_byte: u64,
    /// Open files per process.
    pub open_files: u64,
    /// Bytes of output kept in its log.
    pub output_byte: u64,
}

/// `[repos."owner/name"]`: what one repository needs beyond the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepoConfig {
    /// Overrides `native.posture`.
    pub posture: Option<Posture>,
    /// Overrides `native.job_timeout`.
    pub job_timeout: Option<Duration>,
    /// Absolute paths its jobs may read as well.
    pub extra_read: Vec<Utf8PathBuf>,
    /// Absolute paths its jobs may write as well.
    pub extra_write: Vec<Utf8PathBuf>,
    /// Added to its jobs' environment after `native.env`.
    pub env: BTreeMap<String, String>,
}

/// `[egress]`: what a job may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Egress {
    /// The mode.
    pub mode: EgressMode,
}

/// What a job may reach over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EgressMode {
    /// Nothing but its own loopback, in a network namespace of its own.
    Offline,
    /// Whatever the host reaches, the LAN included; the network axis is then reported as degraded.
    Open,
}

/// `[control]`: how people talk to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Control {
    /// Absolute path of the control socket.
    pub socket: Utf8PathBuf,
    /// Members of this group may use the socket, when the group exists; otherwise only root.
    pub admin_group: String,
}

/// `[log]`: the daemon's own log on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// Least severe level shown.
    pub level: LogLevel,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Least severe level shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Only failures.
    Error,
    /// And what degrades.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And everything else.
    Trace,
}
