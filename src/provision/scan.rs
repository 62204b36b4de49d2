//! What workflows presume of the host that runs them.
//!
//! [`scan`] reads one workflow and yields its [`Need`]s, each with its line; nothing is run and nothing is asked
//! of this host, so that a Linux machine can tell what a Mac lacks. Three readers do the work, each of which
//! knows nothing of the others: `yaml` yields nodes that know their lines, `shell` the commands of a script,
//! `commands` and `actions` what one command or action presumes. `workflow` puts them together.
//!
//! Not a need is what a job fetches into folders of its own: an action that downloads a toolchain provides its
//! commands, and so does `pip install` as the job's account. This is a reader for advice, not a judge: a tool that
//! a script downloads by itself is reported although it will be there, and what a test suite runs goes unseen.

mod actions;
mod base;
pub(in crate::provision) mod commands;
mod environment;
mod error;
mod files;
mod matrix;
mod shell;
mod target;
mod workflow;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

pub use self::base::is_base;
pub use self::error::ScanError;
pub use self::files::collect;
use crate::host::Os;

/// One thing a workflow presumes of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// What has to be there.
    pub what: What,
    /// The file that presumes it.
    pub file: String,
    /// Line of the file, from 1.
    pub line: usize,
    /// What in that line says so, ready to be shown.
    pub because: String,
    /// The only system it is needed on, where the workflow or the thing itself tells.
    pub os: Option<Os>,
}

/// What a workflow can presume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "name")]
pub enum What {
    /// A formula of Homebrew.
    Brew(String),
    /// A cask of Homebrew.
    Cask(String),
    /// A repository of formulae for Homebrew.
    Tap(String),
    /// A package of Debian or Ubuntu.
    Apt(String),
    /// A package of Fedora or its kin.
    Dnf(String),
    /// A package of Python that is installed for everybody.
    Pip(String),
    /// A package of Node.js that is installed for everybody.
    Npm(String),
    /// A program on `PATH`.
    Command(String),
    /// A file or folder, by its absolute path.
    Path(String),
    /// Xcode, of this version if one is named.
    Xcode(Option<String>),
    /// A simulator runtime of Xcode: `iOS`, or `iOS 17.2` if a version is named.
    Simulator(String),
    /// A runner with all of these labels.
    RunsOn(Vec<String>),
    /// The rights of root, which no job has.
    Root,
    /// Something that jobs on a host cannot have, such as containers.
    Action(String),
}

impl What {
    /// The only system that can have it.
    fn os(&self) -> Option<Os> {
        match self {
            Self::Apt(_) | Self::Dnf(_) => Some(Os::Linux),
            Self::Cask(_) | Self::Xcode(_) | Self::Simulator(_) => Some(Os::MacOs),
            Self::Brew(_)
            | Self::Tap(_)
            | Self::Pip(_)
            | Self::Npm(_)
            | Self::Command(_)
            | Self::Path(_)
            | Self::RunsOn(_)
            | Self::Root
            | Self::Action(_) => None,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Brew(name) => write!(f, "formula {name}"),
            Self::Cask(name) => write!(f, "cask {name}"),
            Self::Tap(name) => write!(f, "tap {name}"),
            Self::Apt(name) => write!(f, "apt package {name}"),
            Self::Dnf(name) => write!(f, "dnf package {name}"),
            Self::Pip(name) => write!(f, "Python package {name}"),
            Self::Npm(name) => write!(f, "npm package {name}"),
            Self::Command(name) => write!(f, "command {name}"),
            Self::Path(path) => write!(f, "path {path}"),
            Self::Xcode(None) => write!(f, "Xcode"),
            Self::Xcode(Some(version)) => write!(f, "Xcode {version}"),
            Self::Simulator(runtime) => write!(f, "simulator {runtime}"),
            Self::RunsOn(labels) => write!(f, "runner {}", labels.join(", ")),
            Self::Root => write!(f, "root"),
            Self::Action(what) => write!(f, "unavailable: {what}"),
        }
    }
}

/// What the workflow, or composite action, `text` presumes, in the order of its lines. `file` is only its name.
///
/// # Errors
/// Says where `text` is not YAML, or that it is neither kind of file or too large to be one.
pub fn scan(file: &str, text: &str) -> Result<Vec<Need>, ScanError> {
    let root = yaml::parse(file, text)?;
    workflow::needs(file, text, &root)
}

/// A need that is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack<'a> {
    /// The need, where it is seen first.
    pub need: &'a Need,
    /// How many lines of the file have it.
    pub count: usize,
}

/// The needs for which `has` is false, by file and line; what a file needs more than once is told once. A caller
/// that asks about one system lets `has` be true for needs of the other.
pub fn lacking<'a>(needs: &'a [Need], has: impl Fn(&Need) -> bool) -> Vec<Lack<'a>> {
    let mut missing: Vec<&Need> = needs.iter().filter(|need| !has(need)).collect();
    missing.sort_by_key(|need| (&need.file, need.line));
    let mut seen = BTreeMap::new();
    let mut lacks: Vec<Lack<'a>> = Vec::new();
    for need in missing {
        let at = *seen.entry((&need.file, &need.what)).or_insert(lacks.len());
        match lacks.get_mut(at) {
            Some(lack) => lack.count += 1,
            None => lacks.push(Lack { need, count: 1 }),
        }
    }
    lacks
}

/// What one command or action does to a job's host.
#[derive(Debug, Default)]
struct Effect {
    /// What has to be there before.
    needs: Vec<What>,
    /// Commands that are there afterwards, since the job has fetched them itself.
    provides: Vec<String>,
}

impl Effect {
    /// Something that needs `what` and provides nothing.
    fn needs(what: What) -> Self {
        Self {
            needs: vec![what],
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(file: &str, line: usize, command: &str) -> Need {
        Need {
            what: What::Command(command.into()),
            file: file.into(),
            line,
            because: String::new(),
            os: None,
        }
    }

    #[test]
    fn what_a_file_lacks_is_told_once_where_it_is_seen_first() {
        let needs = [
            need("b.yml", 3, "jq"),
            need("a.yml", 9, "jq"),
            need("a.yml", 2, "jq"),
            need("a.yml", 5, "git"),
        ];
        let lacks = lacking(&needs, |need| need.what == What::Command("git".into()));
        let told: Vec<_> = lacks
            .iter()
            .map(|lack| (lack.need.file.as_str(), lack.need.line, lack.count))
            .collect();
        assert_eq!(told, [("a.yml", 2, 2), ("b.yml", 3, 1)]);
    }
}
