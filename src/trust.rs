//! Trust: may this job run on the bare host, and why.

use serde::{Deserialize, Serialize};

/// `[trust]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrustConfig {}

/// Where a job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// On this host, in a fenced slot.
    Native,
    /// In a throw-away virtual machine.
    Vm,
    /// Nowhere here.
    Refuse,
}
