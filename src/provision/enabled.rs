//! Whether jobs may run on this host: what the last check found, what that rested on, and what follows from both.
//!
//! A host is enabled by its owner, for one manifest as it was then. From then on the check is repeated by itself: when
//! it is too old, and at once when a file that it rested on is not what it was: a tool that somebody removes is
//! noticed before the next job.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::kind::Kind;
use super::manifest::Manifest;
use super::question::{Answer, Answers};
use super::report::{self, Report, Standing};

/// Version of the record.
pub const VERSION: u32 = 1;

/// How long a check that failed stands, unless something it rested on changes.
const FAILED_FOR: Duration = Duration::from_secs(60);

/// Folders whose files change all the time, or are not there for their own sake.
const RESTLESS: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/private/tmp"];

/// The owner's word that this host may run jobs, as it is kept in the data folder. Only `host enable` and `host disable`
/// write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enabled {
    /// Version of this form.
    pub version: u32,
    /// The manifest, as it was named.
    pub manifest: String,
    /// SHA-256 of everything it said.
    pub digest: String,
    /// How many items were as they must be.
    pub met: usize,
    /// When that was, in seconds since 1970.
    pub enabled_unix_s: u64,
}

impl Enabled {
    /// The word that follows from a report that is met.
    pub fn new(report: &Report, now_unix_s: u64) -> Self {
        Self {
            version: VERSION,
            manifest: report.manifest.clone(),
            digest: report.digest.clone(),
            met: report.count(super::Verdict::is_met),
            enabled_unix_s: now_unix_s,
        }
    }
}

/// The last check of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The manifest, as it was named.
    pub manifest: String,
    /// What was found.
    pub standing: Standing,
    /// The first item that kept it from being met, in words.
    pub failing: Option<String>,
    /// When that was, in milliseconds since 1970.
    pub checked_unix_ms: u64,
    /// What the check rested on, and how that looked before it was asked; `None` is what was not there.
    pub rests_on: Stamps,
}

/// How paths look; `None` is what is not there.
pub type Stamps = BTreeMap<Utf8PathBuf, Option<Stamp>>;

/// How a file looks without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Its number on its file system.
    pub inode: u64,
    /// Its length in bytes.
    pub size_byte: u64,
    /// When its content changed, in seconds and nanoseconds.
    pub modified: (i64, i64),
    /// When anything about it changed.
    pub changed: (i64, i64),
}

/// Whether jobs may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// They may.
    Open,
    /// Nobody knows until somebody looks again.
    Stale(String),
    /// They may not, in words with a hint.
    Shut(String),
}

impl Check {
    /// A check, from its report.
    pub fn new(report: &Report, rests_on: Stamps, now_unix_ms: u64) -> Self {
        Self {
            manifest: report.manifest.clone(),
            standing: report.standing,
            failing: report.failing(),
            checked_unix_ms: now_unix_ms,
            rests_on,
        }
    }

    /// Why jobs may not run, as far as this check alone tells.
    pub fn why_shut(&self) -> Option<String> {
        match (self.standing, &self.failing) {
            (Standing::Met, _) => None,
            (Standing::NotMet | Standing::CannotTell, failing) => Some(format!(
                "this host does not meet `{}`: {}\nhint: `ephemerd provision --check` tells everything that is missing",
                self.manifest,
                failing.as_deref().unwrap_or("something is missing")
            )),
        }
    }

    /// Whether jobs may run at `now_unix_ms`, when `now` is how what the check rested on looks.
    pub fn gate(&self, recheck: Duration, now_unix_ms: u64, now: &Stamps) -> Gate {
        let changed = self
            .rests_on
            .iter()
            .find(|(path, stamp)| now.get(*path) != Some(*stamp));
        if let Some((path, _)) = changed {
            return Gate::Stale(format!("`{path}` has changed"));
        }
        // A clock that was set back says nothing about age.
        let age = now_unix_ms
            .checked_sub(self.checked_unix_ms)
            .map(Duration::from_millis);
        let lasts = if self.standing == Standing::Met {
            recheck
        } else {
            FAILED_FOR
        };
        if age.is_none_or(|age| age > lasts) {
            return Gate::Stale("the last check is too old".to_owned());
        }
        self.why_shut().map_or(Gate::Open, Gate::Shut)
    }
}

/// The paths that a check of `manifest` will rest on, whatever is answered.
pub fn rests_on(manifest: &Manifest, context: &Context) -> BTreeSet<Utf8PathBuf> {
    let mut paths: BTreeSet<Utf8PathBuf> = manifest.files.iter().cloned().collect();
    for (_, question) in report::questions(manifest, context) {
        paths.extend(question.paths().into_iter().map(Utf8Path::to_owned));
    }
    for item in &manifest.items {
        // What is not there yet may make an item count.
        paths.extend(item.only_if.exists.clone());
        if let Kind::Package(manager, ..) = &item.kind {
            paths.extend(manager.databases(context));
        }
    }
    lasting(paths, context)
}

/// The paths that were found besides.
pub fn found(manifest: &Manifest, context: &Context, answers: &Answers) -> BTreeSet<Utf8PathBuf> {
    let questions = report::questions(manifest, context).into_iter();
    let paths = questions.filter_map(|(view, question)| match answers.get(view, &question) {
        Answer::At(found) => Some(found),
        _ => None,
    });
    lasting(paths.collect(), context)
}

/// Those that are there for their own sake: a job's own folders are gone when it is.
fn lasting(mut paths: BTreeSet<Utf8PathBuf>, context: &Context) -> BTreeSet<Utf8PathBuf> {
    let is_restless = |path: &Utf8PathBuf| RESTLESS.iter().any(|folder| path.starts_with(folder));
    paths.retain(|path| path.is_absolute() && !is_restless(path) && !path.starts_with(&context.data_dir));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(inode: u64) -> Option<Stamp> {
        Some(Stamp {
            inode,
            size_byte: 1,
            modified: (1, 2),
            changed: (3, 4),
        })
    }

    fn record(standing: Standing) -> Check {
        Check {
            manifest: "linux-base".to_owned(),
            standing,
            failing: (standing != Standing::Met).then(|| "command jq is missing: not there".to_owned()),
            checked_unix_ms: 1_000_000,
            rests_on: [("/usr/bin/jq".into(), stamp(1)), ("/usr/bin/x".into(), None)].into(),
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_check_that_was_met_holds_until_it_is_too_old() {
        let met = record(Standing::Met);
        let same = met.rests_on.clone();
        assert_eq!(met.gate(HOUR, 1_000_000, &same), Gate::Open);
        assert_eq!(met.gate(HOUR, 4_600_000, &same), Gate::Open);
        assert!(matches!(met.gate(HOUR, 4_600_001, &same), Gate::Stale(_)));
        assert!(matches!(met.gate(HOUR, 999_999, &same), Gate::Stale(_)));
    }

    #[test]
    fn what_changes_appears_or_goes_makes_a_check_stale_whatever_it_found() {
        for standing in [Standing::Met, Standing::NotMet, Standing::CannotTell] {
            let record = record(standing);
            for (path, stamp) in [
                ("/usr/bin/jq", stamp(2)),
                ("/usr/bin/jq", None),
                ("/usr/bin/x", stamp(1)),
            ] {
                let mut now = record.rests_on.clone();
                now.insert(path.into(), stamp);
                assert!(matches!(record.gate(HOUR, 1_000_000, &now), Gate::Stale(why) if why.contains(path)));
            }
            assert!(matches!(
                record.gate(HOUR, 1_000_000, &BTreeMap::new()),
                Gate::Stale(_)
            ));
        }
    }

    #[test]
    fn a_check_that_failed_shuts_for_a_minute_and_names_the_item() {
        let record = record(Standing::NotMet);
        let same = record.rests_on.clone();
        assert!(
            matches!(record.gate(HOUR, 1_060_000, &same), Gate::Shut(why) if why.contains("command jq is missing"))
        );
        assert!(matches!(record.gate(HOUR, 1_060_001, &same), Gate::Stale(_)));
    }
}
