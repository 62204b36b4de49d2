//! Profiles: what a job may do, as the text that the platform enforces.
//!
//! A template of `profiles/` is [rendered](render) for one job, read back into [`Rules`] (a [`Policy`] on Linux, a
//! [`Ruleset`](sbpl::Ruleset) on macOS), [decided](decide) against the [expectations](expect), and only then handed to
//! the sandbox. The text, not the code around it, is the whole truth about a job's files, network and system calls:
//! what `profile render` prints is what the kernel is told.

pub mod decide;
pub mod denials;
pub mod diff;
pub mod disputed;
pub mod expect;
pub mod lint;
pub mod policy;
pub mod render;
pub mod sbpl;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use policy::Policy;

use crate::host::Os;

/// What a profile says, read back from its text.
#[derive(Debug)]
pub enum Rules {
    /// For the sandbox of Linux.
    Linux(Policy),
    /// For the sandbox of macOS.
    MacOs(Box<sbpl::Ruleset>),
}

impl Rules {
    /// The system they are for.
    pub fn os(&self) -> Os {
        match self {
            Self::Linux(_) => Os::Linux,
            Self::MacOs(_) => Os::MacOs,
        }
    }
}

/// Which template renders a job's profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Posture {
    /// Deny by default: only what is listed exists.
    Strict,
    /// Allow by default with denies: the host is readable, what matters is hidden.
    Standard,
}

impl fmt::Display for Posture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Standard => "standard",
        })
    }
}
