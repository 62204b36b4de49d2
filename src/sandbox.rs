//! The sandbox: axes of protection.

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
