//! Templates: one finished copy of the host's Homebrew for each state it is in, from which jobs get theirs.
//!
//! A template is made beside its place and moved there when it is complete and the host is still as it was
//! found, so one that is half made, for whatever reason, is never used. Who makes or removes templates holds
//! the shelf's lock alone; who copies from one shares it.

use std::fs::{File, read_to_string, rename};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::{getegid, geteuid};

use super::state::{State, observe, taps};
use super::{HomebrewError, HostBrew, Layout, layout};
use crate::host::files::{
    Copying, cannot_clone, check_data_dir, entries_of, make_dir, make_tree, read_tree, wipe,
};
use crate::workspace::{PRIVATE, TEMPLATES, make_missing};

/// How often a host that changes meanwhile is looked at anew.
const ATTEMPTS: u32 = 3;

/// Where a template is while it is being made. No state has this name.
const STAGING: &str = "staging";

/// The lock file.
const LOCK: &str = "lock";

/// The copy, in a template.
const PREFIX: &str = "prefix";

/// Why a template is not what was asked for, in a template; empty when it is.
const NOTE: &str = "note";

/// The folder of all Homebrew templates of a data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    folder: Utf8PathBuf,
}

/// What a job got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Whether its template had to be made first.
    pub made: bool,
    /// Why it is not of the layout that was asked for, if it is not.
    pub note: Option<String>,
}

impl Shelf {
    /// The shelf of a data folder.
    pub fn new(data_dir: &Utf8Path) -> Self {
        Self {
            folder: data_dir.join(TEMPLATES).join("homebrew"),
        }
    }

    /// Makes the folder `copy` a prefix for `owner` from the template that fits the state of `host`, which is
    /// made when there is none.
    ///
    /// # Errors
    ///
    /// When the host's prefix cannot be read or keeps changing, or something cannot be made. What was made of
    /// `copy` by then stays.
    pub fn serve(
        &self,
        host: &HostBrew,
        layout: Layout,
        copy: &Utf8Path,
        owner: (u32, u32),
    ) -> Result<Served, HomebrewError> {
        make_missing(&self.folder, PRIVATE, (geteuid().as_raw(), getegid().as_raw()))?;
        check_data_dir(&self.folder, geteuid().as_raw())?;
        let lock = self.lock_file()?;
        let mut made = false;
        for _ in 0..ATTEMPTS {
            let state = observe(host, layout)?;
            lock.lock_shared().map_err(|e| self.io("lock", LOCK, e))?;
            if self.has(&state) {
                return Ok(Served {
                    made,
                    note: self.copy(&state, layout, copy, owner)?,
                });
            }
            // Taken anew, not changed: whoever gets it first may make the template.
            lock.unlock().map_err(|e| self.io("unlock", LOCK, e))?;
            lock.lock().map_err(|e| self.io("lock", LOCK, e))?;
            if !self.has(&state) {
                made |= self.make(host, layout, &state)?;
            }
            lock.unlock().map_err(|e| self.io("unlock", LOCK, e))?;
        }
        Err(HomebrewError::Changing {
            prefix: host.prefix.clone(),
        })
    }

    fn io(&self, doing: &'static str, name: &str, source: io::Error) -> HomebrewError {
        HomebrewError::Io {
            doing,
            path: self.folder.join(name),
            source,
        }
    }

    fn lock_file(&self) -> Result<File, HomebrewError> {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.folder.join(LOCK))
            .map_err(|e| self.io("open", LOCK, e))
    }

    fn has(&self, state: &State) -> bool {
        self.folder.join(&state.0).symlink_metadata().is_ok()
    }

    /// Makes the template of `state` and removes all others; `false` when the host is in another state
    /// meanwhile. Needs the lock.
    fn make(&self, host: &HostBrew, layout: Layout, state: &State) -> Result<bool, HomebrewError> {
        self.clear()?;
        let own = (geteuid().as_raw(), getegid().as_raw());
        let staging = self.folder.join(STAGING);
        make_dir(&staging, PRIVATE, own.0, own.1)?;
        let note = fill(host, layout, &staging, own)?;
        std::fs::write(staging.join(NOTE), note.unwrap_or_default())
            .map_err(|e| self.io("write", &format!("{STAGING}/{NOTE}"), e))?;
        if observe(host, layout)? != *state {
            wipe(&self.folder, STAGING)?;
            return Ok(false);
        }
        // A template outlives a power cut, and a name must not come to the disk before what it names.
        nix::unistd::sync();
        rename(&staging, self.folder.join(&state.0)).map_err(|e| self.io("finish", &state.0, e))?;
        Ok(true)
    }

    /// Removes templates, finished or not: who needs this one needs another. Needs the lock.
    fn clear(&self) -> Result<(), HomebrewError> {
        let entries = self.folder.read_dir_utf8().map_err(|e| self.io("read", "", e))?;
        for entry in entries {
            let entry = entry.map_err(|e| self.io("read", "", e))?;
            if entry.file_name() != LOCK {
                wipe(&self.folder, entry.file_name())?;
            }
        }
        Ok(())
    }

    /// Copies the template of `state`; returns its note.
    fn copy(
        &self,
        state: &State,
        layout: Layout,
        copy: &Utf8Path,
        owner: (u32, u32),
    ) -> Result<Option<String>, HomebrewError> {
        let template = self.folder.join(&state.0);
        let note = read_to_string(template.join(NOTE))
            .map_err(|e| self.io("read", &format!("{}/{NOTE}", state.0), e))?;
        let copying = match layout {
            Layout::Clone if note.is_empty() => Copying::Clone,
            Layout::Clone | Layout::Links => Copying::Bytes,
        };
        make_tree(copy, &entries_of(&template.join(PREFIX))?, owner, copying)?;
        Ok(Some(note).filter(|note| !note.is_empty()))
    }
}

/// Puts a copy of the host's prefix into the template `staging`; returns why it is made of links where a clone
/// was asked for.
fn fill(
    host: &HostBrew,
    layout: Layout,
    staging: &Utf8Path,
    own: (u32, u32),
) -> Result<Option<String>, HomebrewError> {
    let make = |layout, copying| -> Result<(), HomebrewError> {
        let found = read_tree(&host.prefix, |folder| layout::is_entered(layout, folder))?;
        let entries = layout::describe(host, &found, &taps(host)?, layout);
        Ok(make_tree(&staging.join(PREFIX), &entries, own, copying)?)
    };
    if layout == Layout::Links {
        return make(Layout::Links, Copying::Bytes).map(|()| None);
    }
    match make(Layout::Clone, Copying::Clone) {
        Err(HomebrewError::Files(error)) if cannot_clone(&error) => {
            wipe(staging, PREFIX)?;
            make(Layout::Links, Copying::Bytes)?;
            Ok(Some(format!(
                "made of links, because files of `{}` cannot be cloned into `{staging}`: {}",
                host.prefix,
                crate::chain(&error)
            )))
        }
        other => other.map(|()| None),
    }
}
