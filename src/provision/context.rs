//! What is known of a host before anything else is asked: everything that questions, verdicts and remedies depend on.

use camino::{Utf8Path, Utf8PathBuf};

use super::question::{Entry, EntryKind};
use super::{Condition, Verdict};
use crate::host::{Host, Os};

/// A host, as far as it is known.
#[derive(Debug, Clone)]
pub struct Context {
    /// Its tools and files.
    pub host: Host,
    /// The machine, as `uname -m` says: `arm64`, `x86_64`, `aarch64`.
    pub arch: String,
    /// The version of macOS, or the release of the Linux kernel.
    pub release: String,
    /// `ID` and then `ID_LIKE` of os-release(5); nothing on macOS.
    pub distribution: Vec<String>,
    /// `VERSION_ID` of os-release(5).
    pub distribution_version: String,
    /// Homebrew's prefix, where there is one.
    pub brew: Option<Utf8PathBuf>,
    /// The folders of a job's `PATH`, as far as they are not the job's own.
    pub job_path: Vec<Utf8PathBuf>,
    /// The accounts of jobs, with the service account last.
    pub accounts: Vec<String>,
    /// The group of those accounts.
    pub group: String,
    /// Where workspaces lie.
    pub data_dir: Utf8PathBuf,
    /// Paths that conditions name and that exist.
    pub present: Vec<Utf8PathBuf>,
    /// Whether whoever checks is root.
    pub root: bool,
}

impl Context {
    /// The system.
    pub fn os(&self) -> Os {
        self.host.os
    }

    /// A file below Homebrew's prefix, or below where it would be.
    pub fn brewed(&self, path: &str) -> Utf8PathBuf {
        self.brew.as_ref().unwrap_or(&self.host.homebrew).join(path)
    }

    /// What keeps an item from counting here, if something does.
    pub fn excludes(&self, os: Option<Os>, condition: &Condition) -> Option<String> {
        let Condition {
            arch,
            distribution,
            exists,
        } = condition;
        if os.is_some_and(|os| os != self.os()) {
            return Some("for another system".to_owned());
        }
        if !arch.is_empty() && !arch.contains(&self.arch) {
            return Some(format!("for {}, and this is {}", arch.join(" and "), self.arch));
        }
        if !distribution.is_empty() && !distribution.iter().any(|name| self.distribution.contains(name)) {
            let own = self
                .distribution
                .first()
                .map_or("no distribution", String::as_str);
            return Some(format!("for {}, and this is {own}", distribution.join(" and ")));
        }
        match exists {
            Some(path) if !self.present.contains(path) => Some(format!("only where `{path}` is")),
            Some(_) | None => None,
        }
    }
}

/// Whether `entry` keeps everybody but its owner from changing what it is: jobs run as accounts of their own, in the
/// group of the service account.
pub(super) fn changeable_by_jobs(entry: &Entry, context: &Context) -> Option<String> {
    if entry.is == EntryKind::Link {
        return None;
    }
    if context.accounts.contains(&entry.owner) {
        return Some(format!("owned by `{}`, which jobs run as", entry.owner));
    }
    let shown = format!("{:03o}", entry.mode);
    if entry.mode & 0o002 != 0 {
        return Some(format!("mode {shown}, which lets everybody write"));
    }
    if entry.mode & 0o020 != 0 && entry.group == context.group {
        return Some(format!(
            "mode {shown} and group `{}`, which lets jobs write",
            entry.group
        ));
    }
    None
}

/// `verdict`, unless the job's own view makes it worse.
pub(super) fn unless_hidden(verdict: Verdict, path: &Utf8Path, seen: Option<&str>) -> Verdict {
    match seen {
        Some(why) if verdict.is_met() => Verdict::Hidden {
            why: format!("`{path}` {why} in a job's sandbox"),
        },
        Some(_) | None => verdict,
    }
}
