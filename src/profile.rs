//! Profiles.

use serde::{Deserialize, Serialize};

/// Which template renders a job's profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Posture {
    /// Deny by default: only what is listed exists.
    Strict,
    /// Allow by default with denies: the host is readable, what matters is hidden.
    Standard,
}
