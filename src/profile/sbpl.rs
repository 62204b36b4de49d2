//! The sandbox profile language of macOS (SBPL), read, evaluated and decided without a Mac.
//!
//! ```text
//!  text ─► read ─► forms ─► eval ─► Ruleset: per operation, rules in their order
//!                             │         │
//!                   vocabulary of       ├─► decide(operation, target) → verdict, rule, chain
//!                   one OS release      ├─► diff: by effect, with witnesses
//!                                       └─► lint
//! ```
//!
//! A profile is a Scheme program: it defines functions, loops and imports before any rule is made, so it has to
//! be run and not just parsed. [`compile`] runs it against the operations and filters that one [`Release`]
//! knows; [`Ruleset::decide`] then answers as the kernel is understood to do. Where the sources for that
//! understanding disagree, [`decide::Semantics`] has a switch. Nothing here was compared with a live kernel by
//! us: `profile probe-semantics` does so.

pub mod decide;
mod eval;
pub mod filter;
mod forms;
mod procedures;
mod read;
mod regex;
mod rules;
pub mod target;
mod value;
pub mod vocabulary;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::str::FromStr;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

pub use decide::{Ruling, Semantics};
pub(crate) use regex::of as regex_of;
pub use rules::{Modifier, Rule, Ruleset};
pub use target::Target;

/// Most problems reported for one profile; the rest follow from these more often than not.
const PROBLEMS_MAX: usize = 50;

/// A release of macOS whose vocabulary and semantics are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Release {
    /// macOS 10.15, the last whose tables were extracted whole.
    #[serde(rename = "macos-10.15")]
    MacOs10_15,
    /// macOS 14 (tables of 14.4.1).
    #[serde(rename = "macos-14")]
    MacOs14,
    /// macOS 15.
    #[serde(rename = "macos-15")]
    MacOs15,
    /// macOS 26.
    #[serde(rename = "macos-26")]
    MacOs26,
}

impl Release {
    /// Every release, oldest first.
    pub const ALL: [Self; 4] = [Self::MacOs10_15, Self::MacOs14, Self::MacOs15, Self::MacOs26];

    /// The newest release; what is assumed where nothing is said.
    pub const NEWEST: Self = Self::MacOs26;

    /// The release that a full version, `26.1.1` for example, belongs to.
    pub fn of_version(version: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|release| {
            version
                .strip_prefix(release.version())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// The release's version as Apple writes it, without the patch.
    pub const fn version(self) -> &'static str {
        match self {
            Self::MacOs10_15 => "10.15",
            Self::MacOs14 => "14",
            Self::MacOs15 => "15",
            Self::MacOs26 => "26",
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "macos-{}", self.version())
    }
}

/// Not a release this program knows.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no release of macOS that is known here\nhint: known are macos-10.15, macos-14, macos-15 and macos-26"
)]
pub struct UnknownRelease(String);

impl FromStr for Release {
    type Err = UnknownRelease;

    fn from_str(text: &str) -> Result<Self, UnknownRelease> {
        Self::ALL
            .into_iter()
            .find(|release| release.to_string() == text)
            .ok_or_else(|| UnknownRelease(text.to_owned()))
    }
}

/// A place in a profile's text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file, as it was named or imported.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Something that keeps a text from being a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{at}: {}{}", on_one_line(message), .hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
pub struct Problem {
    /// Where.
    pub at: Place,
    /// What is wrong.
    pub message: String,
    /// What would be right, where that can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// `message` with its control characters escaped: what it quotes is somebody else's text, and a terminal obeys it.
fn on_one_line(message: &str) -> String {
    let shown = message.chars().map(|c| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    });
    shown.collect()
}

/// Why a text is not a profile: everything that was found, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// Where `(import …)` finds other profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imports {
    /// Below these folders, in their order; on a Mac `/System/Library/Sandbox/Profiles` and
    /// `/usr/share/sandbox`. An absolute name is looked up below each of them as well.
    Folders(Vec<Utf8PathBuf>),
    /// Nowhere: every import is skipped and listed in [`Ruleset::skipped`], because what it would allow is not
    /// known.
    Skipped,
}

/// What a profile is compiled for and with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whose operations, filters and semantics.
    pub release: Release,
    /// What `(param NAME)` gives, as `sandbox-exec -D NAME=VALUE` sets it.
    pub params: BTreeMap<String, String>,
    /// Where imports come from.
    pub imports: Imports,
}

impl Settings {
    /// The settings for a profile that needs neither parameters nor imports.
    pub fn new(release: Release) -> Self {
        Self {
            release,
            params: BTreeMap::new(),
            imports: Imports::Folders(Vec::new()),
        }
    }
}

/// Runs the profile `text`, called `name` in messages, and returns its rules.
///
/// # Errors
/// Everything that `sandbox-exec` would refuse and everything that runs past the limits (see `eval`), at its
/// place; at most fifty of them.
pub fn compile(name: &str, text: &[u8], settings: &Settings) -> Result<Ruleset, Problems> {
    eval::run(name, text, settings)
}

/// The text of the profile at `path`, as far as it can be one: a file without end is read to just beyond the
/// limit, and is then refused for its size.
///
/// # Errors
/// It cannot be read.
pub fn read_file(path: &Utf8Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let limit = u64::try_from(read::TEXT_MAX_BYTE).unwrap_or(u64::MAX);
    File::open(path)?.take(limit + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Checks only that `text` is made of well-formed expressions, and returns how many.
///
/// # Errors
/// What is malformed, at its place.
pub fn check_syntax(name: &str, text: &[u8]) -> Result<usize, Problems> {
    let (forms, problems) = read::read(&Arc::from(name), text);
    if problems.is_empty() {
        Ok(forms.len())
    } else {
        Err(Problems(problems))
    }
}

#[cfg(test)]
mod tests;
