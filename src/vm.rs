//! Guests: where jobs run that are not trusted with this host. A guest is made for one job from an image, by the tools
//! of a backend, and is gone with it.
//!
//! ```text
//!  [vm] ─► Backend ─► stage: the command of each stage, and what its end means
//!    │                   │        (tart: the same, in Tart's own words)
//!    └─► plan: does it fit?       │
//!                                 ▼
//!  job ─► life: what comes next ◄─► drive: does it, through host::attend
//!           script: what the guest is told to run
//! ```
//!
//! A backend is data: words with holes for each stage ([`template`], [`preset`]). One machine ([`life`]) goes through
//! the stages of all of them. Who sends what over the network, and how strong a fence is, is said by
//! [`Isolation`] and [`Network`], and docs/isolation-levels.md says what that means.

mod carry;
pub mod drive;
pub mod hands;
pub mod image;
pub mod life;
pub mod name;
pub mod plan;
pub mod preset;
pub mod room;
pub mod script;
pub mod stage;
pub mod tart;
pub mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

pub use preset::Commands;
use template::Share;

use crate::host::Os;

/// `[vm]`: where jobs run that are not trusted with this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VmConfig {
    /// The account the tools run as; whoever runs the daemon when not set.
    pub user: Option<String>,
    /// Guests with macOS at once. Apple's licence and its kernel allow two per host.
    pub macos: u32,
    /// Guests with Linux at once.
    pub linux: u32,
    /// Memory that neither native slots nor guests get, in bytes.
    pub host_memory_byte: u64,
    /// How long a job may wait for room that others have.
    pub capacity_wait: Duration,
    /// The backend of rules that name none; one of those below.
    pub backend: Option<String>,
    /// `[vm.backends.NAME]`
    pub backends: BTreeMap<String, Backend>,
}

impl VmConfig {
    /// Guests of a kind at once.
    pub fn permits(&self, guest: Guest) -> u32 {
        match guest {
            Guest::MacOs => self.macos,
            Guest::Linux => self.linux,
        }
    }
}

/// The system in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guest {
    /// macOS.
    MacOs,
    /// Linux.
    Linux,
}

impl Guest {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::MacOs, Self::Linux];

    /// The system in it.
    pub const fn os(self) -> Os {
        match self {
            Self::MacOs => Os::MacOs,
            Self::Linux => Os::Linux,
        }
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MacOs => "macos",
            Self::Linux => "linux",
        })
    }
}

/// How strong the fence around a job is, in the words of docs/isolation-levels.md; the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// A kernel of its own, behind a hypervisor.
    Vm,
    /// The host's kernel, with a view of its own of files, processes and the network.
    Container,
    /// The host's kernel, files and network, less what a sandbox and a packet filter take away.
    Sandbox,
    /// An account of the host.
    Account,
}

impl Isolation {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Container => "container",
            Self::Sandbox => "sandbox",
            Self::Account => "account",
        }
    }
}

/// What a guest reaches over the network. None reaches this host or its LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Nothing.
    None,
    /// The internet.
    Internet,
}

/// Whose words a backend's tool speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Exit codes as [`stage`] says, and lists of one name a line.
    #[default]
    Plain,
    /// Those of Tart.
    Tart,
}

/// `[vm.backends.NAME]`: how guests are made and removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// The preset it was made from.
    pub preset: Option<String>,
    /// What tells its answers.
    pub dialect: Dialect,
    /// What runs in it.
    pub guest: Guest,
    /// How strong its fence is.
    pub isolation: Isolation,
    /// What its jobs reach.
    pub network: Network,
    /// Its tool.
    pub tool: Utf8PathBuf,
    /// The image, for jobs whose rule names none.
    pub image: Option<String>,
    /// Processors of a guest, for jobs whose rule does not say.
    pub cpu: u32,
    /// Memory of a guest in bytes, likewise.
    pub memory_byte: u64,
    /// Disk of a guest in bytes, likewise.
    pub disk_byte: u64,
    /// How long a guest may take from its start until it runs commands.
    pub boot_timeout: Duration,
    /// How long each of the other stages of ours may take.
    pub stage_timeout: Duration,
    /// Folders of this host that guests may read.
    pub shares: Vec<Share>,
    /// Where GitHub's runner is in the image, as an absolute path in the guest.
    pub runner_dir: String,
    /// When images may be fetched, in hours and minutes of UTC.
    pub pull_window: Option<Window>,
    /// What an image takes, in bytes; fetching one takes more room than that meanwhile.
    pub image_byte: u64,
    /// The commands.
    pub commands: Commands,
    /// Variables for its tools.
    pub env: BTreeMap<String, String>,
}

impl Backend {
    /// Whether its guests reach the internet as the account of `vm.user`.
    pub fn sends_as_user(&self) -> bool {
        self.network == Network::Internet && self.commands.sends_as_user == Some(true)
    }
}

/// What a rule of `[trust.repos]` says of its jobs' guests; what it does not say is the backend's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VmChoice {
    /// The backend.
    pub backend: Option<String>,
    /// The image.
    pub image: Option<String>,
    /// Processors.
    pub cpu: Option<u32>,
    /// Memory in bytes.
    pub memory_byte: Option<u64>,
    /// Disk in bytes.
    pub disk_byte: Option<u64>,
}

/// A part of each day, in minutes after midnight UTC; the end may lie on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// First minute.
    pub from: u16,
    /// First minute after it.
    pub to: u16,
}

impl Window {
    /// Reads `HH:MM-HH:MM`; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let two = |digits: &str, below: u16| {
                let number = digits.parse::<u16>().ok()?;
                (digits.len() == 2 && number < below).then_some(number)
            };
            Some(two(hour, 24)? * 60 + two(minute, 60)?)
        };
        let (from, to) = text.split_once('-')?;
        let (from, to) = (minute(from)?, minute(to)?);
        (from != to).then_some(Self { from, to })
    }

    /// Whether a moment lies in it, given in seconds since 1970.
    pub fn holds(&self, unix_s: u64) -> bool {
        let minute = u16::try_from(unix_s / 60 % (24 * 60)).unwrap_or_default();
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            from / 60,
            from % 60,
            to / 60,
            to % 60
        )
    }
}

/// What a job's guest is to be: a backend, with what the job's rule says put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The backend's name.
    pub backend: String,
    /// The image; empty when its backend needs none.
    pub image: String,
    /// Processors.
    pub cpu: u32,
    /// Memory in bytes.
    pub memory_byte: u64,
    /// Disk in bytes.
    pub disk_byte: u64,
    /// What runs in it.
    pub guest: Guest,
    /// How strong its fence is.
    pub isolation: Isolation,
}

impl Wanted {
    /// What a guest of a backend is to be when no rule says more.
    pub fn plain(name: &str, backend: &Backend) -> Self {
        Self {
            backend: name.to_owned(),
            image: backend.image.clone().unwrap_or_default(),
            cpu: backend.cpu,
            memory_byte: backend.memory_byte,
            disk_byte: backend.disk_byte,
            guest: backend.guest,
            isolation: backend.isolation,
        }
    }

    /// What a job's guest is to be, by the choice of its rule.
    ///
    /// # Errors
    ///
    /// No backend is meant, or one that is not configured, in words with a hint.
    pub fn new(config: &VmConfig, choice: &VmChoice) -> Result<Self, String> {
        let named = choice.backend.as_ref().or(config.backend.as_ref());
        let only = config
            .backends
            .keys()
            .next()
            .filter(|_| config.backends.len() == 1);
        let name = named.or(only).ok_or_else(|| {
            if config.backends.is_empty() {
                "no VM backend is configured\nhint: name one below `[vm.backends]`, for example `qemu = { preset = \"qemu\" }`".to_owned()
            } else {
                "several VM backends are configured and none is chosen\nhint: set `vm.backend`".to_owned()
            }
        })?;
        let backend = config.backends.get(name).ok_or_else(|| {
            format!("the VM backend `{name}` is not configured\nhint: name it below `[vm.backends]`")
        })?;
        let plain = Self::plain(name, backend);
        Ok(Self {
            image: choice.image.clone().unwrap_or(plain.image),
            cpu: choice.cpu.unwrap_or(plain.cpu),
            memory_byte: choice.memory_byte.unwrap_or(plain.memory_byte),
            disk_byte: choice.disk_byte.unwrap_or(plain.disk_byte),
            ..plain
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_reach_over_midnight() {
        let at = |hour: u64, minute: u64| (20_000 * 24 + hour) * 3600 + minute * 60;
        let night = Window::parse("23:30-02:00").unwrap();
        for (hour, minute, holds) in [
            (23, 29, false),
            (23, 30, true),
            (1, 59, true),
            (2, 0, false),
            (12, 0, false),
        ] {
            assert_eq!(night.holds(at(hour, minute)), holds, "{hour}:{minute}");
        }
        let day = Window::parse("09:00-17:00").unwrap();
        assert!(day.holds(at(9, 0)) && !day.holds(at(17, 0)));
        assert_eq!(night.to_string(), "23:30-02:00");
    }

    #[test]
    fn refuses_what_is_no_window() {
        for bad in [
            "",
            "02:00",
            "2:00-03:00",
            "24:00-01:00",
            "01:60-02:00",
            "01:00-01:00",
        ] {
            assert_eq!(Window::parse(bad), None, "{bad}");
        }
    }
}
