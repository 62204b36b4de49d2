//! The service: ephemerd as something that the host starts at boot, installed, brought up to date and taken away.
//!
//! ```text
//!  Settings ─► systemd | launchd (texts) ─► wanted: steps ─┐
//!                        host::service::see: what is there ─┴─ plan ─► Standing of each step ─► receipts, host
//! ```
//!
//! Steps are those of [`crate::provision::step`], and are written down before they are taken as those are, in a file of
//! their own. Everything here is pure: it says what the files hold and which commands are run. [`crate::host::service`]
//! looks and does.

pub mod launchd;
pub mod plan;
pub mod skeleton;
pub mod systemd;
pub mod upgrade;

use std::fmt;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::host::command::CommandSpec;
use crate::host::{Host, Os};
use crate::provision::report::Planned;
use crate::provision::step::{Action, Place, Step};

/// The unit, as systemd names it.
pub const UNIT: &str = "ephemerd.service";

/// The service, as launchd names it.
pub const LABEL: &str = "dev.ephemerd";

/// How long the end of a job may take once it is told to end: its processes, its folders, its guest.
const SCRUB: Duration = Duration::from_secs(60);

/// What starts ephemerd at boot and keeps it running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manager {
    /// systemd(1)
    Systemd,
    /// launchd(8)
    Launchd,
}

impl Manager {
    /// That of a system, if it has one that runs. On Linux that is for the host to say (sd_booted(3)).
    pub fn of(os: Os, has_systemd: bool) -> Option<Self> {
        match os {
            Os::Linux => has_systemd.then_some(Self::Systemd),
            Os::MacOs => Some(Self::Launchd),
        }
    }

    /// The file it reads about the service.
    pub fn file(self, host: &Host) -> Utf8PathBuf {
        match self {
            Self::Systemd => host.service.units.join(UNIT),
            Self::Launchd => host.service.daemons.join(format!("{LABEL}.plist")),
        }
    }

    /// The commands that have the service started at every boot and start it now.
    pub fn start(self, host: &Host, file: &Utf8Path) -> Vec<CommandSpec> {
        match self {
            Self::Systemd => systemd::start(host),
            Self::Launchd => launchd::start(host, file),
        }
    }

    /// The commands that stop it until it is started again, or the next boot.
    pub fn halt(self, host: &Host) -> Vec<CommandSpec> {
        match self {
            Self::Systemd => systemd::halt(host),
            Self::Launchd => launchd::halt(host),
        }
    }

    /// The commands that stop it for good.
    pub fn remove(self, host: &Host) -> Vec<CommandSpec> {
        match self {
            Self::Systemd => systemd::remove(host),
            Self::Launchd => launchd::halt(host),
        }
    }

    /// The commands by which it forgets a service whose file is gone.
    pub fn forget(self, host: &Host) -> Vec<CommandSpec> {
        match self {
            Self::Systemd => systemd::forget(host),
            Self::Launchd => vec![],
        }
    }

    /// Commands that all end well when the service is started at every boot and runs.
    pub fn is_up(self, host: &Host) -> Vec<CommandSpec> {
        match self {
            Self::Systemd => systemd::is_up(host),
            Self::Launchd => vec![launchd::print(host)],
        }
    }

    /// Where people find what the daemon says.
    pub fn log(self, settings: &Settings) -> String {
        match (&settings.log, self) {
            (Some(log), _) => log.to_string(),
            (None, Self::Systemd) => format!("journalctl -u {UNIT}"),
            (None, Self::Launchd) => "standard error".to_owned(),
        }
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Systemd => "systemd",
            Self::Launchd => "launchd",
        })
    }
}

/// What the texts of the service depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the program is.
    pub program: Utf8PathBuf,
    /// Its configuration.
    pub config_file: Utf8PathBuf,
    /// The file it logs to; `None` for standard error.
    pub log: Option<Utf8PathBuf>,
    /// How long its end may take, jobs included.
    pub stop: Duration,
}

impl Settings {
    /// Those of a host and its configuration.
    pub fn new(host: &Host, config: &Config, config_file: &Utf8Path, rotates: bool) -> Self {
        let github = config.github.as_ref().map(|github| github.stop_grace);
        let grace = config.native.stop_grace.max(github.unwrap_or_default());
        Self {
            program: host.service.program.clone(),
            config_file: config_file.to_owned(),
            // A file that nothing rotates would fill the disk; the journal keeps to limits of its own.
            log: rotates.then(|| host.service.logs.join("ephemerd.log")),
            stop: grace + SCRUB,
        }
    }

    /// The words by which the daemon is let read its configuration again.
    fn reload(&self) -> [String; 4] {
        [
            self.program.to_string(),
            "--config".to_owned(),
            self.config_file.to_string(),
            "reload".to_owned(),
        ]
    }

    /// The words of the command line that is the daemon.
    fn command(&self) -> Vec<String> {
        let config = ["--config".to_owned(), self.config_file.to_string()];
        let log = self
            .log
            .iter()
            .flat_map(|log| ["--log-file".to_owned(), log.to_string()]);
        [self.program.to_string()]
            .into_iter()
            .chain(config)
            .chain(["run".to_owned()])
            .chain(log)
            .collect()
    }
}

/// Where a program comes from, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Where it is.
    pub path: Utf8PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Everything that an installation is made of, in an order in which it can be made, on a host that has none of it.
pub fn wanted(
    host: &Host,
    manager: Manager,
    settings: &Settings,
    (accounts, origin): (Vec<crate::host::accounts::Step>, &Origin),
) -> Vec<Planned> {
    let folder = |path: &Utf8Path| Action::Folder(place(path, 0o755));
    let file = |path: Utf8PathBuf, content: String| Action::File {
        place: place(&path, 0o644),
        content: Some(content),
    };
    let parent = |path: &Utf8Path| folder(path.parent().unwrap_or(path));
    let unit = manager.file(host);
    let mut steps = vec![
        ("folder of the configuration", parent(&settings.config_file)),
        (
            "configuration",
            file(settings.config_file.clone(), skeleton::text(host.os)),
        ),
    ];
    steps.extend(
        accounts
            .into_iter()
            .map(|step| ("account", Action::Account(step))),
    );
    let program = Action::Program {
        from: origin.path.clone(),
        place: place(&settings.program, 0o755),
        sha256: origin.sha256.clone(),
    };
    steps.extend([
        ("folder of the program", parent(&settings.program)),
        ("program", program),
    ]);
    if let Some(log) = &settings.log {
        let rotation = match manager {
            Manager::Systemd => (host.service.logrotate.join("ephemerd"), systemd::logrotate(log)),
            Manager::Launchd => (
                host.service.newsyslog.join("ephemerd.conf"),
                launchd::newsyslog(log),
            ),
        };
        steps.extend([
            ("folder of the log", parent(log)),
            ("rotation of the log", file(rotation.0, rotation.1)),
        ]);
    }
    let text = match manager {
        Manager::Systemd => systemd::unit(settings),
        Manager::Launchd => launchd::plist(settings),
    };
    steps.push(("service file", file(unit.clone(), text)));
    steps.push(("service", Action::Service { manager, file: unit }));
    let planned = steps.into_iter().map(|(item, action)| Planned {
        item: item.to_owned(),
        step: Step { action, undo: None },
    });
    planned.collect()
}

/// A path of root's.
fn place(path: &Utf8Path, mode: u32) -> Place {
    Place {
        path: path.to_owned(),
        // By number: its name differs between systems.
        owner: Some("0".to_owned()),
        group: Some("0".to_owned()),
        mode: Some(mode),
    }
}

#[cfg(test)]
#[path = "service/tests.rs"]
mod tests;
