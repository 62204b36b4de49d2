//! What would put a host right: steps as data, each of which is one change and knows how it is taken back.

use std::fmt;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::question::Tool;
use crate::host::accounts;
use crate::service::Manager;

/// What would help an item that is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// It needs nothing.
    Nothing,
    /// These changes, in this order.
    Steps(Vec<Step>),
    /// Somebody has to do it, in words or as a command line.
    ByHand(String),
}

/// One change of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// The program that takes it back, where one does; what is done to files is taken back from what was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Tool>,
}

impl Step {
    /// Runs a program; nothing takes it back.
    pub fn run(tool: Tool) -> Self {
        Self {
            action: Action::Run(tool),
            undo: None,
        }
    }

    /// Runs a program that `undo` takes back.
    pub fn undone_by(tool: Tool, undo: Tool) -> Self {
        Self {
            action: Action::Run(tool),
            undo: Some(undo),
        }
    }
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Runs a program, which must end with exit code 0.
    Run(Tool),
    /// Makes a folder, or gives the one that is there the owner, group and mode that are named.
    Folder(Place),
    /// Writes a file where content is given, and gives it the owner, group and mode that are named.
    File {
        /// Where, and whose.
        place: Place,
        /// All of it; `None` leaves it.
        content: Option<String>,
    },
    /// Fetches an archive, compares its hash, unpacks it beside its place and moves it there.
    Archive(Fetch),
    /// Creates the accounts of jobs, as `ephemerd host setup` does.
    JobAccounts,
    /// Creates one of them, or their group.
    Account(accounts::Step),
    /// Copies a program into its place, in one step: whoever starts it meanwhile starts the old one or the new one.
    Program {
        /// Where it is copied from.
        from: Utf8PathBuf,
        /// Where it is to be, and whose.
        place: Place,
        /// The SHA-256 of what is copied, in hexadecimal.
        sha256: String,
    },
    /// Tells the service manager about the service, has it started at every boot, and starts it.
    Service {
        /// The service manager.
        manager: Manager,
        /// What it reads about the service: a unit, a property list.
        file: Utf8PathBuf,
    },
}

/// A path, and who it is to belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The path.
    pub path: Utf8PathBuf,
    /// The name of its owner; `None` leaves it.
    pub owner: Option<String>,
    /// The name of its group; `None` leaves it.
    pub group: Option<String>,
    /// Its permissions; `None` leaves them.
    pub mode: Option<u32>,
}

/// An archive to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Where from.
    pub url: String,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// The folder it becomes.
    pub to: Place,
    /// How many leading folders of its paths are left out.
    pub strip: u32,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = crate::host::command::shell_line(self.program.as_str(), &self.args);
        if self.as_owner {
            write!(f, "as the owner of {}: {line}", self.program)
        } else {
            f.write_str(&line)
        }
    }
}

/// A line that says what is done; of a program, one that a shell takes.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(tool) => write!(f, "{tool}"),
            Self::Folder(place) => write!(f, "folder {place}"),
            Self::File {
                place,
                content: Some(content),
            } => write!(f, "write {} bytes to {place}", content.len()),
            Self::File { place, content: None } => write!(f, "file {place}"),
            Self::Archive(fetch) => write!(f, "fetch {} and unpack it to {}", fetch.url, fetch.to),
            Self::JobAccounts => f.write_str("ephemerd host setup"),
            Self::Account(step) => write!(f, "{step}"),
            Self::Program { from, place, .. } => write!(f, "copy {from} to {place}"),
            Self::Service { manager, .. } => {
                write!(f, "start the service, now and at every boot ({manager})")
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            owner,
            group,
            mode,
        } = self;
        write!(f, "{path}")?;
        if owner.is_some() || group.is_some() {
            let of = |name: &Option<String>| name.clone().unwrap_or_default();
            write!(f, ", {}:{}", of(owner), of(group))?;
        }
        match mode {
            Some(mode) => write!(f, ", mode {mode:03o}"),
            None => Ok(()),
        }
    }
}
