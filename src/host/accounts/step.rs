//! One thing to create, and the commands that create it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mac;
use crate::host::command::CommandSpec;
use crate::host::{Host, Os};

/// How long one tool may take. They wait for a lock that another one may hold (lckpwdf(3): 15 s).
const TOOL_TIMEOUT: Duration = Duration::from_secs(60);

/// The ids of an account that is to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// One thing to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "create", rename_all = "kebab-case")]
pub enum Step {
    /// A group.
    #[serde(rename = "group")]
    CreateGroup {
        /// Its name.
        name: String,
        /// Its id, where the system does not choose one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gid: Option<u32>,
    },
    /// An account that nobody can log in to.
    #[serde(rename = "account")]
    CreateUser {
        /// Its name.
        name: String,
        /// Its primary and only group.
        group: String,
        /// What it is for.
        comment: String,
        /// Its ids, where the system does not choose them.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        ids: Option<Ids>,
    },
}

impl Step {
    /// The commands that take this step on `host`, in their order. A step without the ids that its commands need
    /// has not been [planned](super::plan) yet and gives none.
    pub fn commands(&self, host: &Host) -> Vec<CommandSpec> {
        match (host.os, self) {
            (Os::Linux, _) => vec![self.linux_command(host)],
            (Os::MacOs, Self::CreateGroup { name, gid }) => gid
                .map(|gid| mac::create_group(&host.mac, name, gid))
                .into_iter()
                .collect(),
            (
                Os::MacOs,
                Self::CreateUser {
                    name,
                    group: _,
                    comment,
                    ids,
                },
            ) => ids
                .map(|ids| mac::create_user(&host.mac, name, ids, comment))
                .unwrap_or_default(),
        }
    }

    /// The command that deletes what this step creates.
    pub fn deletion(&self, host: &Host) -> CommandSpec {
        let (program, args): (_, Vec<&str>) = match (host.os, self) {
            (Os::Linux, Self::CreateGroup { name, .. }) => (&host.tools.groupdel, vec![name]),
            (Os::Linux, Self::CreateUser { name, .. }) => (&host.tools.userdel, vec![name]),
            (Os::MacOs, Self::CreateGroup { name, .. }) => {
                (&host.mac.dseditgroup, vec!["-o", "delete", name])
            }
            (Os::MacOs, Self::CreateUser { name, .. }) => return mac::delete_user(&host.mac, name),
        };
        CommandSpec::new(program, &args, TOOL_TIMEOUT)
    }

    fn linux_command(&self, host: &Host) -> CommandSpec {
        let (program, args) = match self {
            Self::CreateGroup { name, gid: _ } => (&host.tools.groupadd, vec!["--system", name]),
            Self::CreateUser {
                name,
                group,
                comment,
                ids: _,
            } => {
                // System accounts get no subordinate ids unless asked for, see useradd(8).
                let args = [
                    "--system",
                    "--gid",
                    group,
                    "--no-create-home",
                    "--home-dir",
                    "/nonexistent",
                    "--shell",
                    "/usr/sbin/nologin",
                    "--no-log-init",
                    "--comment",
                    comment,
                    name,
                ];
                (&host.tools.useradd, args.to_vec())
            }
        };
        CommandSpec::new(program, &args, TOOL_TIMEOUT)
    }

    /// Whether both create the same thing, whichever ids they give it.
    pub(crate) fn creates_what(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::CreateGroup { name, .. }, Self::CreateGroup { name: other, .. })
            | (Self::CreateUser { name, .. }, Self::CreateUser { name: other, .. }) => name == other,
            (Self::CreateGroup { .. }, Self::CreateUser { .. })
            | (Self::CreateUser { .. }, Self::CreateGroup { .. }) => false,
        }
    }
}

/// Prints what it creates.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateGroup { name, .. } => write!(f, "group `{name}`"),
            Self::CreateUser { name, comment, .. } => write!(f, "account `{name}` ({comment})"),
        }
    }
}
