//! The configuration, resolved: every value present, checked and in its own unit.
//!
//! ```text
//!  file ─► raw ─► resolve ─► Config ─► show
//!            └─ keys ─┘ one table: types, defaults, suggestions, documentation
//! ```
//!
//! `raw` knows which keys there are and of which TOML type; `resolve` knows what values mean and which
//! contradict each other. All problems of a file are told at once, each with its line and column. Nothing
//! else in the program reads the file. The built-in defaults are the empty file.

pub mod diff;
mod grants;
pub mod keys;
mod listen;
mod problem;
mod raw;
mod resolve;
pub mod show;
pub mod size;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

pub(crate) use grants::{Grant, comparable, granted};
pub use listen::Listen;
pub use problem::{ConfigError, Place, Problem};

use crate::egress::{Destination, Ports};
use crate::github::runner::tree::Sha256;
use crate::github::runner::version::RunnerVersion;
use crate::host::Os;
use crate::job::Repo;
use crate::profile::Posture;
use crate::sandbox::Axis;
use crate::vm::VmConfig;
use crate::workspace::homebrew;

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
    /// `[github]`, where it names a repository or an organisation.
    pub github: Option<GitHub>,
    /// `[vm]`
    pub vm: VmConfig,
    /// `[control]`
    pub control: Control,
    /// `[log]`
    pub log: Log,
    /// `[prune]`
    pub prune: crate::prune::Limits,
}

/// `[host]`: where daemon state lives and who it runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostConfig {
    /// Absolute folder of ledger, logs, control socket and workspaces.
    pub data_dir: Utf8PathBuf,
    /// Name of the service account and group; slots append their number.
    pub account: String,
    /// The manifest this host must meet: a name, an absolute path, or [`NO_MANIFEST`]; the system's when not set.
    pub manifest: Option<String>,
    /// How old a check may be that says the manifest is met.
    pub recheck: Duration,
    /// What this host keeps free.
    pub floors: Floors,
}

/// What a host keeps free: below it no job starts, and the one that has most is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Floors {
    /// Bytes of disk where the data folder is.
    pub disk_byte: u64,
    /// Bytes of memory that processes can still get.
    pub memory_byte: u64,
}

/// The name of a manifest that asks for nothing, so that a host need not be enabled.
pub const NO_MANIFEST: &str = "none";

impl HostConfig {
    /// The manifest a host of this system must meet, if it must meet one.
    pub fn manifest(&self, os: Os) -> Option<&str> {
        match self.manifest.as_deref() {
            Some(NO_MANIFEST) => None,
            Some(named) => Some(named),
            None => Some(crate::provision::manifest::default_name(os)),
        }
    }
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
    /// What jobs get of the host's Homebrew.
    pub homebrew: homebrew::Mode,
    /// Absolute path of the host's Homebrew prefix; looked for when not set.
    pub homebrew_prefix: Option<Utf8PathBuf>,
    /// What a job's own prefix is made of.
    pub homebrew_layout: homebrew::Layout,
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
    /// Its niceness, 0 to 19 (setpriority(2)).
    pub nice: u8,
    /// Whether the kernel keeps a whole job to them.
    pub cgroup: Groups,
}

/// Whether jobs have control groups, on Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Groups {
    /// Where they can be had.
    Auto,
    /// Without them the axis `limits` is degraded.
    Required,
    /// Never.
    Off,
}

/// `[repos."owner/name"]`: what one repository needs beyond the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RepoConfig {
    /// The manifest this host must meet for its jobs: a name or an absolute path.
    pub manifest: Option<String>,
    /// Overrides `native.posture`.
    pub posture: Option<Posture>,
    /// Overrides `native.job_timeout`.
    pub job_timeout: Option<Duration>,
    /// Absolute paths its jobs may read as well.
    pub extra_read: Vec<Utf8PathBuf>,
    /// Absolute paths its jobs may write as well.
    pub extra_write: Vec<Utf8PathBuf>,
    /// Overrides `native.homebrew`.
    pub homebrew: Option<homebrew::Mode>,
    /// Added to its jobs' environment after `native.env`.
    pub env: BTreeMap<String, String>,
}

/// `[egress]`: what a job may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Egress {
    /// The mode.
    pub mode: EgressMode,
    /// What is allowed although it is not the internet.
    pub allow: Vec<Destination>,
    /// What is denied although it is.
    pub deny: Vec<Destination>,
    /// The only resolvers; those of the system when not set.
    pub dns: Option<BTreeSet<IpAddr>>,
    /// The ports on which only resolvers answer.
    pub dns_ports: Vec<u16>,
    /// Ports of the host's loopback that are not for jobs.
    pub protect_local_ports: Vec<u16>,
    /// Whether slots reach each other's ports.
    pub loopback: Loopback,
    /// Whether the kernel logs what is blocked.
    pub log: bool,
    /// What becomes of running jobs when the filter is lost and cannot be loaded again.
    pub on_loss: OnLoss,
}

impl Egress {
    /// Ports at which rules treat loopback in a way of their own.
    pub fn local_ports(&self) -> Vec<Ports> {
        let named = self.dns_ports.iter().chain(&self.protect_local_ports);
        let denied = self.deny.iter().filter(|to| to.is_at_loopback());
        Ports::merged(
            named
                .map(|port| Ports::one(*port))
                .chain(denied.filter_map(|to| to.ports)),
        )
    }
}

/// What a job may reach over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EgressMode {
    /// The internet, and neither the LAN nor the host itself: a packet filter goes by the slots' accounts.
    BlockLan,
    /// Nothing but its own loopback, in a network namespace of its own.
    Offline,
    /// Whatever the host reaches, the LAN included; the network axis is then reported as degraded.
    Open,
}

/// Whether jobs reach what other jobs listen on at the host's loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loopback {
    /// They do.
    Shared,
    /// Not on the ports of another slot's range.
    OwnPorts,
}

/// What becomes of running jobs when the packet filter is lost and cannot be loaded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLoss {
    /// They are killed.
    Stop,
    /// They go on; it is logged, and their results say so.
    Alert,
}

/// `[github]`: the jobs of GitHub Actions that run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GitHub {
    /// Where the REST API is; no slash at the end.
    pub api: String,
    /// Whose runners these are.
    pub serves: Serves,
    /// The runner group, by name, that an organisation's runners are put in.
    pub runner_group: String,
    /// Labels of the runners, as written; never empty. GitHub compares without case.
    pub labels: Vec<String>,
    /// Who we are.
    pub identity: Identity,
    /// How jobs are got.
    pub acquire: Acquire,
    /// Between two questions for jobs while some wait or run.
    pub poll: Duration,
    /// Between two questions for jobs while none do.
    pub idle_poll: Duration,
    /// How long a runner may be without a job.
    pub idle_timeout: Duration,
    /// Between asking a runner to stop and killing it.
    pub stop_grace: Duration,
    /// The version of the runner and the hash of its archive; the latest release when not set.
    pub runner: Option<(RunnerVersion, Sha256)>,
    /// Where archives of the runner are; no slash at the end. What they hold is known by its hash.
    pub runner_releases: String,
    /// Where webhooks are taken.
    pub webhook: Option<Webhook>,
}

/// How jobs of GitHub are got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acquire {
    /// GitHub is asked which jobs wait.
    Poll,
    /// A runner scale set is offered jobs, and acquires those that may run here.
    ScaleSet,
}

/// Where webhooks of GitHub are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// The address that is listened on. Jobs do not reach its port on loopback.
    pub listen: SocketAddr,
    /// Absolute path of the file of the secret that deliveries are signed with.
    pub secret: Utf8PathBuf,
}

/// Whose jobs GitHub gives to our runners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Serves {
    /// Of these repositories, each with runners of its own.
    Repos(BTreeSet<Repo>),
    /// Of an organisation.
    Org {
        /// Its name.
        org: String,
        /// Its repositories that are asked for jobs; all that GitHub lets us see when empty.
        repos: BTreeSet<Repo>,
    },
}

impl Serves {
    /// Whether jobs of `repo` run here, as far as GitHub gives them to us.
    pub fn includes(&self, repo: &Repo) -> bool {
        match self {
            Self::Repos(repos) => repos.contains(repo),
            Self::Org { org, repos } if repos.is_empty() => repo.owner().eq_ignore_ascii_case(org),
            Self::Org { repos, .. } => repos.contains(repo),
        }
    }
}

/// Who we are for GitHub. The secrets stay in their files until they are needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// An installation of a GitHub App.
    App {
        /// The App's number.
        app_id: u32,
        /// The installation's number.
        installation_id: u32,
        /// Absolute path of the App's private key.
        private_key: Utf8PathBuf,
    },
    /// A fine-grained personal access token.
    Token {
        /// Absolute path of the file it is in.
        file: Utf8PathBuf,
    },
}

/// `[control]`: how people talk to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Control {
    /// Absolute path of the control socket.
    pub socket: Utf8PathBuf,
    /// Members of this group may use the socket, when the group exists; otherwise only root.
    pub admin_group: String,
    /// Where the status page and the metrics are served, if they are.
    pub listen: Option<Listen>,
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

impl Config {
    /// Whether jobs can be sent to a VM: a backend is configured.
    pub fn has_vm_backend(&self) -> bool {
        !self.vm.backends.is_empty()
    }
}

/// A configuration and where each of its values comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file's name as it was given.
    pub file: String,
    /// Dotted keys, with names in quotes where TOML wants them, and where their values stand.
    pub origins: BTreeMap<String, KeyOrigin>,
}

/// Where the value of a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum KeyOrigin {
    /// It is the default.
    Default,
    /// It stands in the file.
    File {
        /// Line of the key, from 1.
        line: usize,
    },
}

/// Checks that jobs may be given the variable `name`.
///
/// # Errors
///
/// It may not, in words with a hint.
pub(crate) fn check_variable(name: &str) -> Result<(), String> {
    resolve::values::variable(name)
}

/// The path of the configuration when none is given.
pub fn default_path(os: Os) -> &'static Utf8Path {
    Utf8Path::new(match os {
        Os::Linux => "/etc/ephemerd/ephemerd.toml",
        // /etc is a link to this folder on macOS, and profiles want resolved paths.
        Os::MacOs => "/private/etc/ephemerd/ephemerd.toml",
    })
}

/// The configuration in the file at `path`.
///
/// # Errors
///
/// When the file cannot be read, or with everything that is wrong with it.
pub fn load(path: &Utf8Path) -> Result<Loaded, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, path.as_str())
}

/// Where the daemon of the file at `path` listens, as far as that can be told of one with errors.
pub fn socket_of(path: &Utf8Path) -> Option<Utf8PathBuf> {
    let text = std::fs::read_to_string(path).ok()?;
    resolve::socket(raw::read_despite(&text))
}

/// The configuration in the file at `given`; without one that at the default path, which need not exist:
/// then the defaults apply.
///
/// # Errors
///
/// As [`load`].
pub fn load_or_default(given: Option<&Utf8Path>, os: Os) -> Result<Loaded, ConfigError> {
    if let Some(path) = given {
        return load(path);
    }
    match load(default_path(os)) {
        Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => defaults(),
        other => other,
    }
}

/// The configuration of the empty file.
///
/// # Errors
///
/// None that a test of the key table would not have found.
pub fn defaults() -> Result<Loaded, ConfigError> {
    parse("", "built-in defaults")
}

/// The configuration that `text` states; `file` is its name in messages.
///
/// # Errors
///
/// With everything that is wrong with the text.
pub fn parse(text: &str, file: &str) -> Result<Loaded, ConfigError> {
    let raw = raw::read(text);
    let origins = origins(&raw);
    let config = resolve::resolve(raw).map_err(|problems| ConfigError::Invalid {
        file: file.to_owned(),
        problems,
    })?;
    Ok(Loaded {
        config,
        file: file.to_owned(),
        origins,
    })
}

/// Where each key's value stands: every key with a name of its own, and what the file adds.
fn origins(raw: &raw::RawFile) -> BTreeMap<String, KeyOrigin> {
    let fixed = keys::KEYS.iter().filter(|key| key.is_fixed());
    let mut origins: BTreeMap<String, KeyOrigin> = fixed
        .map(|key| (key.name.to_owned(), KeyOrigin::Default))
        .collect();
    origins.extend(raw.entries.iter().map(|(name, entry)| {
        let line = entry.key_place.line;
        (name.clone(), KeyOrigin::File { line })
    }));
    origins
}
