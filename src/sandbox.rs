//! The sandbox: which axes of protection a job gets, and the launch of a process behind all of them.
//!
//! [`axes`] decides what this host can enforce; [`launch`] describes one launch as data; `launcher` does it, with
//! `init` on Linux and [`seatbelt`] on macOS, inside the process that becomes the job.

pub mod axes;
pub mod keychain;
pub mod launch;
pub(crate) mod launcher;
pub mod seatbelt;
pub(crate) mod step;

#[cfg(target_os = "linux")]
pub(crate) mod init;
#[cfg(not(target_os = "linux"))]
#[path = "sandbox/elsewhere.rs"]
pub(crate) mod init;

use std::fmt;

use serde::{Deserialize, Serialize};

/// One kind of protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// Jobs run as accounts of their own.
    Accounts,
    /// Jobs see and change only their own files and what they were granted.
    Filesystem,
    /// Jobs cannot see, signal or trace processes of others.
    Processes,
    /// Jobs share no IPC objects with others.
    Ipc,
    /// Jobs reach only what the egress mode allows.
    Network,
    /// Jobs cannot use more than their share.
    Limits,
    /// Jobs find no credential that is not theirs.
    Credentials,
}

impl Axis {
    /// Every axis, in the order reports show them.
    pub const ALL: [Self; 7] = [
        Self::Accounts,
        Self::Filesystem,
        Self::Processes,
        Self::Ipc,
        Self::Network,
        Self::Limits,
        Self::Credentials,
    ];
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accounts => "accounts",
            Self::Filesystem => "filesystem",
            Self::Processes => "processes",
            Self::Ipc => "ipc",
            Self::Network => "network",
            Self::Limits => "limits",
            Self::Credentials => "credentials",
        })
    }
}
