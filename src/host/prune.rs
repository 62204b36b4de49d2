//! What there is to prune, and its removal. Folders that jobs have written are entered and removed as
//! [`super::files`] does it: no link is followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};

use super::files::{FilesError, usage, wipe};
use crate::config::Config;
use crate::github::runner::tree::{Build, Platform};
use crate::job::JobId;
use crate::prune::{Chosen, Class, Found, choose};

/// How old something must be to be nobody's.
const FRESH: Duration = Duration::from_secs(60);

/// Why it cannot be told what there is to prune.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// A folder cannot be read.
    #[error("could not look at `{path}`")]
    Look {
        /// The folder.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A tree cannot be measured.
    #[error(transparent)]
    Files(#[from] FilesError),
}

/// What goes, and what did not.
#[derive(Debug, Default)]
pub struct Pruned {
    /// What is gone, or would go.
    pub gone: Vec<Chosen>,
    /// What is still there, and why.
    pub failed: Vec<(Chosen, FilesError)>,
}

/// Removes what the limits say, or only says what that is. What belongs to a job that has not ended, which is what `live`
/// tells after it was listed, stays.
///
/// # Errors
/// See [`PruneError`], or what `live` says; what is chosen and cannot be removed is no error.
pub fn prune<E: From<PruneError>>(
    config: &Config,
    live: impl FnOnce() -> Result<BTreeSet<JobId>, E>,
    dry_run: bool,
) -> Result<Pruned, E> {
    let data_dir = &config.host.data_dir;
    let mut found = list(data_dir, SystemTime::now())?;
    let live = live()?;
    let pinned = config.github.as_ref().and_then(|github| github.runner.as_ref());
    for item in &mut found {
        item.is_live = match item.class {
            // What has just been written may be of a job that came after the last who was counted.
            Class::Log | Class::Kept => {
                item.age < FRESH || job_of(&item.path).is_none_or(|job| live.contains(&job))
            }
            // Which job runs which is for the daemon to know; here it is enough that one may.
            Class::Runner => {
                !live.is_empty()
                    || pinned.is_some_and(|(version, _)| item.path.contains(&format!("/{version}-")))
            }
        };
    }
    let room = super::free(data_dir).map_err(look(data_dir))?.disk_byte;
    let mut pruned = Pruned::default();
    for chosen in choose(found, &config.prune, room) {
        if dry_run {
            pruned.gone.push(chosen);
            continue;
        }
        let path = data_dir.join(&chosen.found.path);
        let (parent, name) = (
            path.parent().unwrap_or(data_dir),
            path.file_name().unwrap_or_default(),
        );
        match wipe(parent, name) {
            Ok(_) => pruned.gone.push(chosen),
            Err(error) => pruned.failed.push((chosen, error)),
        }
    }
    Ok(pruned)
}

/// The job that something belongs to.
fn job_of(path: &str) -> Option<JobId> {
    let name = path.rsplit('/').next()?;
    let name = name
        .strip_suffix(".log")
        .or_else(|| name.strip_suffix("-diag"))
        .unwrap_or(name);
    name.parse().ok()
}

fn look(path: &Utf8Path) -> impl FnOnce(io::Error) -> PruneError {
    let path = path.to_owned();
    move |source| PruneError::Look { path, source }
}

/// Everything that may be pruned, by its class. What has a name that none of ours has is not listed.
fn list(data_dir: &Utf8Path, now: SystemTime) -> Result<Vec<Found>, PruneError> {
    let mut found = vec![];
    for (class, folder) in [
        (Class::Log, "logs"),
        (Class::Kept, "kept"),
        (Class::Runner, "runners"),
    ] {
        let path = data_dir.join(folder);
        let entries = match path.read_dir_utf8() {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(look(&path)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(look(&path))?;
            let is_ours = match class {
                Class::Log | Class::Kept => job_of(entry.file_name()).is_some(),
                Class::Runner => entry.file_name().parse::<Build>().is_ok(),
            };
            if is_ours {
                found.extend(measured(class, folder, entry.path(), now)?);
            }
        }
    }
    rank(&mut found);
    Ok(found)
}

/// Something with its size and age; `None` when it is gone by now.
fn measured(
    class: Class,
    folder: &str,
    path: &Utf8Path,
    now: SystemTime,
) -> Result<Option<Found>, PruneError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(look(path)(error)),
    };
    let size_byte = if metadata.is_dir() {
        usage(path)?.bytes
    } else {
        // stat(2): blocks of 512 bytes, whatever the disk's are.
        metadata.blocks().saturating_mul(512)
    };
    // What was written in the future, by a clock that was wrong, is new.
    let age = metadata
        .modified()
        .ok()
        .and_then(|then| now.duration_since(then).ok());
    Ok(Some(Found {
        class,
        path: format!("{folder}/{}", path.file_name().unwrap_or_default()),
        size_byte,
        age: age.unwrap_or_default(),
        is_live: false,
        newer: 0,
    }))
}

/// Counts for each runner how many of its platform are newer.
fn rank(found: &mut [Found]) {
    let build = |item: &Found| {
        item.path
            .rsplit('/')
            .next()
            .and_then(|name| name.parse::<Build>().ok())
    };
    let mut all: BTreeMap<Platform, Vec<Build>> = BTreeMap::new();
    for build in found
        .iter()
        .filter(|item| item.class == Class::Runner)
        .filter_map(build)
    {
        all.entry(build.platform).or_default().push(build);
    }
    for item in found.iter_mut().filter(|item| item.class == Class::Runner) {
        if let Some(own) = build(item) {
            let others = all.get(&own.platform).into_iter().flatten();
            item.newer = others.filter(|other| other.version > own.version).count();
        }
    }
}
