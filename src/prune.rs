//! What is removed of what finished jobs and earlier versions left, so that a disk does not fill up.
//!
//! ```text
//!  limits ─────────────┐
//!  found, each with    ├─ choose ─► what goes, each with its reason, oldest first
//!  size, age, is_live ─┘
//! ```
//!
//! Pure. [`crate::host::prune`] lists and removes; the daemon does it every day, and when the disk is nearly full. What a
//! job that has not ended uses is never chosen, nor what is younger than an hour.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::config::size::{show_duration, show_size};

/// `[prune]`: how much is kept of what finished jobs leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// How long a job's log is kept.
    pub logs_max_age: Duration,
    /// How much disk all logs may take.
    pub logs_max_byte: u64,
    /// How long a workspace is kept that `exec --keep` kept.
    pub kept_max_age: Duration,
    /// How much disk all of them may take.
    pub kept_max_byte: u64,
    /// Finished jobs that the ledger keeps.
    pub jobs: u32,
    /// The room on the disk of the data folder below which more is removed.
    pub min_free_byte: u64,
}

/// Runner trees that stay for each platform: the newest, and the one to go back to.
pub const RUNNERS: usize = 2;

/// What is younger stays, however full the disk is: somebody may be about to read it.
const YOUNG: Duration = Duration::from_secs(60 * 60);

/// What kind of thing it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A job's log, or what GitHub's runner logged about itself.
    Log,
    /// A workspace that `exec --keep` kept.
    Kept,
    /// The program of GitHub's runner.
    Runner,
}

/// Something that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What it is.
    pub class: Class,
    /// Its path below the data folder.
    pub path: String,
    /// Bytes of disk it occupies.
    pub size_byte: u64,
    /// How long ago it was written.
    #[serde(skip)]
    pub age: Duration,
    /// Whether a job that has not ended uses it.
    #[serde(skip)]
    pub is_live: bool,
    /// Of a runner: its platform, and how many of that are newer.
    #[serde(skip)]
    pub newer: usize,
}

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It is older than its kind may be.
    Old,
    /// What is newer fills the room that its kind has.
    Room,
    /// Newer versions are there.
    Superseded,
    /// The disk is nearly full.
    Pressure,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "too old",
            Self::Room => "beyond the size of its kind",
            Self::Superseded => "newer versions are there",
            Self::Pressure => "the disk is nearly full",
        })
    }
}

/// Something that goes, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// What.
    #[serde(flatten)]
    pub found: Found,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found {
            path, size_byte, age, ..
        } = &self.found;
        let hours = Duration::from_secs(age.as_secs() / 3600 * 3600);
        let age = if hours.is_zero() {
            "new".to_owned()
        } else {
            show_duration(hours) + " old"
        };
        write!(f, "{path}: {}, {age}: {}", rounded(*size_byte), self.reason)
    }
}

/// A size for people.
pub fn rounded(byte: u64) -> String {
    const UNITS: [(u64, u64); 3] = [(1 << 30, 1 << 20), (1 << 20, 1 << 10), (1 << 10, 1)];
    let unit = UNITS
        .iter()
        .find(|(unit, _)| byte >= *unit)
        .map(|(unit, _)| *unit);
    match unit {
        Some(unit) => show_size(byte / unit * unit),
        None => format!("{byte}B"),
    }
}

/// What of `found` goes, oldest first; `free_byte` is the room that is left on the disk.
pub fn choose(mut found: Vec<Found>, limits: &Limits, free_byte: u64) -> Vec<Chosen> {
    // Newest first, with the name as the last word, so that the same disk gives the same answer.
    found.sort_by(|a, b| (a.age, &a.path).cmp(&(b.age, &b.path)));
    let mut room: BTreeMap<Class, u64> = BTreeMap::new();
    let mut chosen: Vec<Chosen> = vec![];
    let mut spared: Vec<Found> = vec![];
    for item in found {
        // What is live takes its room all the same.
        let used = room.entry(item.class).or_default();
        *used = used.saturating_add(item.size_byte);
        let reason = if item.is_live || item.age < YOUNG {
            None
        } else {
            reason(&item, *used, limits)
        };
        match reason {
            Some(reason) => {
                *used = used.saturating_sub(item.size_byte);
                chosen.push(Chosen { found: item, reason });
            }
            None => spared.push(item),
        }
    }
    let gained: u64 = chosen.iter().map(|chosen| chosen.found.size_byte).sum();
    let mut free = free_byte.saturating_add(gained);
    // Logs before workspaces that somebody wanted to keep; the oldest first.
    let under_pressure = |class| spared.iter().rev().filter(move |item| item.class == class);
    for item in under_pressure(Class::Log).chain(under_pressure(Class::Kept)) {
        if free >= limits.min_free_byte {
            break;
        }
        if !item.is_live && item.age >= YOUNG {
            free = free.saturating_add(item.size_byte);
            chosen.push(Chosen {
                found: item.clone(),
                reason: Reason::Pressure,
            });
        }
    }
    chosen.sort_by(|a, b| (b.found.age, &b.found.path).cmp(&(a.found.age, &a.found.path)));
    chosen
}

fn reason(item: &Found, used_byte: u64, limits: &Limits) -> Option<Reason> {
    let (max_age, max_byte) = match item.class {
        Class::Log => (limits.logs_max_age, limits.logs_max_byte),
        Class::Kept => (limits.kept_max_age, limits.kept_max_byte),
        Class::Runner => return (item.newer >= RUNNERS).then_some(Reason::Superseded),
    };
    if item.age > max_age {
        Some(Reason::Old)
    } else if used_byte > max_byte {
        Some(Reason::Room)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 60 * 60;
    const FULL: u64 = u64::MAX;

    fn limits() -> Limits {
        Limits {
            logs_max_age: Duration::from_secs(100 * HOUR),
            logs_max_byte: 100,
            kept_max_age: Duration::from_secs(10 * HOUR),
            kept_max_byte: 1000,
            jobs: 10,
            min_free_byte: 500,
        }
    }

    fn found(class: Class, name: &str, size_byte: u64, hours: u64) -> Found {
        Found {
            class,
            path: name.to_owned(),
            size_byte,
            age: Duration::from_secs(hours * HOUR),
            is_live: false,
            newer: 0,
        }
    }

    fn names(found: Vec<Found>, free_byte: u64) -> Vec<(String, Reason)> {
        let chosen = choose(found, &limits(), free_byte);
        chosen.into_iter().map(|it| (it.found.path, it.reason)).collect()
    }

    #[test]
    fn what_is_old_goes_and_then_the_oldest_until_the_rest_has_room() {
        let all = vec![
            found(Class::Log, "new", 60, 2),
            found(Class::Log, "middle", 60, 3),
            found(Class::Log, "small", 30, 4),
            found(Class::Log, "ancient", 1, 101),
            found(Class::Kept, "kept", 1, 11),
        ];
        let expected = [
            ("ancient", Reason::Old),
            ("kept", Reason::Old),
            ("middle", Reason::Room),
        ];
        assert_eq!(
            names(all, FULL),
            expected.map(|(name, why)| (name.to_owned(), why))
        );
    }

    #[test]
    fn on_a_full_disk_logs_go_before_what_somebody_kept_and_no_more_than_is_needed() {
        let all = vec![
            found(Class::Log, "new", 20, 2),
            found(Class::Log, "old", 20, 3),
            found(Class::Kept, "kept", 100, 5),
        ];
        let pressed = |free| {
            names(all.clone(), free)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(pressed(500), [""; 0]);
        assert_eq!(pressed(490), ["old"]);
        assert_eq!(pressed(465), ["old", "new"]);
        assert_eq!(pressed(0), ["kept", "old", "new"]);
    }

    #[test]
    fn of_runners_the_newest_two_stay() {
        let tree = |name: &str, newer| Found {
            newer,
            ..found(Class::Runner, name, 10_000, 1000)
        };
        let all = vec![tree("3", 0), tree("2", 1), tree("1", 2)];
        assert_eq!(names(all, 0), [("1".to_owned(), Reason::Superseded)]);
    }

    #[test]
    fn is_told_as_people_read_it() {
        let chosen = Chosen {
            found: found(Class::Log, "logs/a.log", 3 * 1024 * 1024 + 7, 49),
            reason: Reason::Old,
        };
        assert_eq!(chosen.to_string(), "logs/a.log: 3MiB, 49h old: too old");
    }

    proptest! {
        #[test]
        fn nothing_live_or_young_goes_and_what_stays_is_within_its_limits_or_so(
            items in proptest::collection::vec((0..3u8, 0..200u64, 0..200u64, any::<bool>(), 0..4usize), 0..30),
            free in 0..1000u64,
        ) {
            let all: Vec<Found> = items.into_iter().enumerate().map(|(at, (class, size, hours, is_live, newer))| {
                let class = [Class::Log, Class::Kept, Class::Runner][usize::from(class)];
                Found { is_live, newer, ..found(class, &at.to_string(), size, hours) }
            }).collect();
            let chosen = choose(all.clone(), &limits(), free);
            for it in &chosen {
                prop_assert!(!it.found.is_live && it.found.age >= YOUNG);
            }
            let stays = |item: &&Found| chosen.iter().all(|it| it.found.path != item.path);
            let free_to_go = |item: &&Found| !item.is_live && item.age >= YOUNG;
            let left: Vec<&Found> = all.iter().filter(stays).collect();
            prop_assert!(left.iter().filter(|it| it.class == Class::Log).filter(|it| free_to_go(it)).all(|it| it.age <= limits().logs_max_age));
            let logs: u64 = left.iter().filter(|it| it.class == Class::Log).map(|it| it.size_byte).sum();
            let held: u64 = left.iter().filter(|it| it.class == Class::Log && !free_to_go(it)).map(|it| it.size_byte).sum();
            prop_assert!(logs <= limits().logs_max_byte + held);
        }
    }
}
