//! What a host must have before jobs run on it: said in a manifest, looked up, put right, and proven again and again.
//!
//! ```text
//!  provision/*.toml ─► manifest ─► items ─┬─► questions ─► host (and a job's sandbox) ─► answers ─┐
//!                                         └────────────────────► judge ◄─────────────────────────┘
//!                                                                  │ verdicts
//!                                          report ◄────────────────┼────────────► steps ─► host
//!                                          enabled? ◄──────────────┘                └─► receipts ─► revert
//! ```
//!
//! An [`Item`] is one thing a host must have. Each kind of item says what it asks of the host ([`question`]) and
//! what the answers mean ([`kind`]), both as pure functions, so that everything about macOS is tested on Linux.
//! What counts is what a *job* sees: where that matters an item asks inside a job's sandbox too, and a tool that
//! is there but that the profile hides is not good enough.

pub mod capture;
pub mod context;
pub mod covers;
pub mod enabled;
pub mod export;
pub mod kind;
pub mod manifest;
pub mod question;
pub mod receipt;
pub mod report;
pub mod scan;
pub mod step;
pub mod version;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::Os;
use kind::Kind;
use manifest::Origin;

/// One thing a host must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is, and how much of it is wanted.
    pub kind: Kind,
    /// Why the host must have it.
    pub why: String,
    /// The only system it is for; `None` for every system of its manifest.
    pub os: Option<Os>,
    /// When it counts at all.
    pub only_if: Condition,
    /// What its owner would do about it, in their own words.
    pub fix: Option<String>,
    /// Where it stands.
    pub origin: Origin,
}

impl Item {
    /// Its kind and name, which no two items of a manifest share.
    pub fn id(&self) -> String {
        self.kind.id()
    }
}

/// When an item counts; every part that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The machine is one of these, as `uname -m` says: `arm64`, `x86_64`, `aarch64`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arch: Vec<String>,
    /// The distribution is, or is like, one of these (`ID` and `ID_LIKE` of os-release(5)).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distribution: Vec<String>,
    /// There is something at this path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<camino::Utf8PathBuf>,
}

/// How an item was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// As it must be.
    Ok {
        /// What was found: a version, a path.
        found: String,
    },
    /// Not there.
    Missing,
    /// There, and too old.
    Outdated {
        /// What was found.
        found: String,
        /// What is wanted.
        wanted: String,
    },
    /// There, and not as it must be.
    Wrong {
        /// What was found.
        found: String,
        /// What is wanted.
        wanted: String,
    },
    /// As it must be for the host, and kept from jobs by the profile they run under.
    Hidden {
        /// What a job sees.
        why: String,
    },
    /// Nobody can tell.
    Unknown {
        /// Why not.
        why: String,
    },
    /// It does not count here.
    NotHere {
        /// Which condition does not hold.
        why: String,
    },
}

impl Verdict {
    /// As it must be.
    pub fn ok(found: impl Into<String>) -> Self {
        Self::Ok { found: found.into() }
    }

    /// Not as it must be.
    pub fn wrong(found: impl Into<String>, wanted: impl Into<String>) -> Self {
        let (found, wanted) = (found.into(), wanted.into());
        Self::Wrong { found, wanted }
    }

    /// Too old.
    pub fn outdated(found: impl Into<String>, wanted: impl Into<String>) -> Self {
        let (found, wanted) = (found.into(), wanted.into());
        Self::Outdated { found, wanted }
    }

    /// Nobody can tell.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { why: why.into() }
    }

    /// Whether a host with this is good enough.
    pub fn is_met(&self) -> bool {
        matches!(self, Self::Ok { .. } | Self::NotHere { .. })
    }

    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ok { .. } => "ok",
            Self::Missing => "missing",
            Self::Outdated { .. } => "outdated",
            Self::Wrong { .. } => "wrong",
            Self::Hidden { .. } => "hidden by profile",
            Self::Unknown { .. } => "unknown",
            Self::NotHere { .. } => "not here",
        }
    }

    /// The worse of two, where an item has several parts.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Ok { .. } | Self::NotHere { .. }, _) => other,
            (Self::Unknown { .. }, other_verdict) if !other_verdict.is_met() => other,
            _ => self,
        }
    }
}

/// What was found beside what is wanted, in words and on one line; without the verdict's name.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        match self {
            Self::Ok { found } => f.write_str(&line(found)),
            Self::Missing => f.write_str("not there"),
            Self::Outdated { found, wanted } | Self::Wrong { found, wanted } => {
                write!(f, "found {}, wanted {}", line(found), line(wanted))
            }
            Self::Hidden { why } | Self::Unknown { why } | Self::NotHere { why } => f.write_str(&line(why)),
        }
    }
}
