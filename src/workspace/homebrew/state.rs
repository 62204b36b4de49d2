//! What a template depends on, as a number that changes when the host's Homebrew does.
//!
//! It covers the program, the taps, every rack and version, the entries at the top of each keg with sizes and
//! times (receipts above all), and everything that is linked, pinned or written into the prefix. It does not
//! cover what is deeper in a keg: `brew` replaces kegs, it does not change them. Somebody who changes a file
//! inside a keg by hand sees the change in copies made of links, and removes the template otherwise.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;

use super::{HomebrewError, HostBrew, Layout, layout};
use crate::host::files::{Found, read_tree};

/// Changes with what templates consist of.
const FORMAT: u32 = 1;

/// The state of a host's Homebrew, as sixteen hexadecimal digits. A new version of this program may number
/// the same state in another way, which costs a template that is made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State(pub(crate) String);

/// Returns the state `host` is in.
///
/// # Errors
///
/// When its folders cannot be read.
pub(crate) fn observe(host: &HostBrew, of: Layout) -> Result<State, HomebrewError> {
    let program = host
        .program
        .metadata()
        .map_err(|source| HomebrewError::NotThere {
            prefix: host.prefix.clone(),
            source,
        })?;
    let entered = |folder: &Found| layout::is_entered(of, folder) && !layout::is_in_keg(&folder.path);
    let mut seen = read_tree(&host.prefix, entered)?;
    seen.retain(|found| layout::concerns(of, &found.path));
    for folder in seen.iter_mut().filter(|found| entered(found)) {
        // Its entries tell what changed in it; `brew` touches some without changing anything.
        (folder.size, folder.modified) = (0, (0, 0));
    }
    let mut hasher = DefaultHasher::new();
    (FORMAT, host, of).hash(&mut hasher);
    (program.size(), program.mtime(), program.mtime_nsec()).hash(&mut hasher);
    seen.hash(&mut hasher);
    for tap in taps(host)? {
        (tap.path, tap.kind).hash(&mut hasher);
    }
    Ok(State(format!("{:016x}", hasher.finish())))
}

/// What is in the host's `Library/Taps`: users, and their repositories.
pub(super) fn taps(host: &HostBrew) -> Result<Vec<Found>, HomebrewError> {
    let folder = host.repository.join("Library/Taps");
    if !folder.is_dir() {
        return Ok(vec![]);
    }
    Ok(read_tree(&folder, |found| {
        found.is_public() && found.path.iter().count() == 1
    })?)
}
