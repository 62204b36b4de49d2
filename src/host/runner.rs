//! Runner trees on this host: installed once per version, copied for every job, and the files of a runner written into
//! its copy; what it logged is kept. What they are called and which may go is decided by [`crate::github::runner::tree`].

mod logs;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, getegid, geteuid, unlinkat};

use super::Host;
use super::files::{
    Copying, Entry, FilesError, What, Wiped, cannot_clone, entries_of, make_dir, make_tree, open_folder, wipe,
};
use super::provision::archive::{self, ArchiveError};
use crate::github::runner::jit::{JitConfig, JitFile};
use crate::github::runner::listener::PROGRAM;
use crate::github::runner::tree::{Build, Sha256};
use crate::provision::kind::archive::STAMP;
use crate::provision::step::{Fetch, Place};

pub use logs::keep_logs;

/// Why a tree or a file of a runner is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// It could not be fetched and unpacked.
    #[error("could not install runner {build}")]
    Install {
        /// Which.
        build: Build,
        /// What went wrong.
        source: ArchiveError,
    },
    /// What was fetched is no runner.
    #[error(
        "the archive of runner {build} holds no {PROGRAM}\nhint: compare address and hash with GitHub's release"
    )]
    NoProgram {
        /// Which.
        build: Build,
    },
    /// The folder of trees cannot be read.
    #[error("could not read `{runners}`")]
    List {
        /// The folder.
        runners: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A tree could not be removed.
    #[error("could not remove runner {build}")]
    Remove {
        /// Which.
        build: Build,
        /// What went wrong.
        source: FilesError,
    },
    /// It could not be copied; what was made of the copy was removed again.
    #[error("could not copy runner {build} to `{to}`")]
    Copy {
        /// Which.
        build: Build,
        /// Where to.
        to: Utf8PathBuf,
        /// What went wrong.
        source: FilesError,
    },
    /// A file of the runner could not be written; those before it were removed again.
    #[error("could not write `{path}`")]
    Write {
        /// The file.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How a copy came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// It shares blocks with the tree until one side is written.
    Cloned,
    /// Byte by byte, as the file system cannot share.
    InFull,
}

/// Puts a tree in its place in `runners`, which is made if it is missing, unless it is there: the archive below `releases` that has this hash. It belongs to
/// us, and nobody else can write to it. Returns whether it was fetched.
///
/// # Errors
/// When it cannot be fetched, has another hash, or is no runner; nothing is left of it then.
pub fn install(
    host: &Host,
    runners: &Utf8Path,
    build: Build,
    (releases, sha256): (&str, &Sha256),
) -> Result<bool, RunnerError> {
    let folder = build.folder(runners);
    if is_complete(&folder) && hash_of(&folder).as_deref() == Some(sha256.as_str()) {
        return Ok(false);
    }
    if runners.symlink_metadata().is_err() {
        make_dir(runners, Mode::S_IRWXU, geteuid().as_raw(), getegid().as_raw()).map_err(|source| {
            let source = source.into();
            RunnerError::Install { build, source }
        })?;
    }
    let fetch = Fetch {
        url: build.url(releases),
        sha256: sha256.as_str().to_owned(),
        to: Place {
            path: folder.clone(),
            owner: None,
            group: None,
            mode: None,
        },
        strip: 0,
    };
    archive::install(host, &fetch, (geteuid().as_raw(), getegid().as_raw()))
        .map_err(|source| RunnerError::Install { build, source })?;
    if is_complete(&folder) {
        return Ok(true);
    }
    remove(runners, build)?;
    Err(RunnerError::NoProgram { build })
}

/// The hash of the archive that a tree was unpacked from.
fn hash_of(folder: &Utf8Path) -> Option<String> {
    let stamp = fs::read_to_string(folder.join(STAMP)).ok()?;
    Some(stamp.trim_end().to_owned())
}

/// Whether the program is there. A tree is moved to its place when everything else is.
fn is_complete(folder: &Utf8Path) -> bool {
    let program = folder.join(PROGRAM).symlink_metadata();
    program.is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// The trees in `runners`; none when the folder is not there.
///
/// # Errors
/// When it cannot be read.
pub fn installed(runners: &Utf8Path) -> Result<BTreeSet<Build>, RunnerError> {
    let failed = |source| RunnerError::List {
        runners: runners.to_owned(),
        source,
    };
    let entries = match runners.read_dir_utf8() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // What has another name is not ours, or still being made.
        let Ok(build) = entry.file_name().parse::<Build>() else {
            continue;
        };
        if entry.file_type().map_err(failed)?.is_dir() && is_complete(entry.path()) {
            found.insert(build);
        }
    }
    Ok(found)
}

/// Removes a tree; none there is nothing.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove(runners: &Utf8Path, build: Build) -> Result<Wiped, RunnerError> {
    wipe(runners, &build.to_string()).map_err(|source| RunnerError::Remove { build, source })
}

/// Makes the folder `to` a copy of a tree, owned by `owner`. It shares no file with the tree: blocks at most, and those only
/// until one side is written. So whatever a job does to its runner, the next job has another.
///
/// # Errors
/// When something is there already, or the system refuses.
pub fn copy(
    runners: &Utf8Path,
    build: Build,
    to: &Utf8Path,
    owner: (u32, u32),
) -> Result<Copied, RunnerError> {
    let failed = |source| RunnerError::Copy {
        build,
        to: to.to_owned(),
        source,
    };
    let entries = entries_of(&build.folder(runners)).map_err(failed)?;
    let entries: Vec<_> = entries.into_iter().filter_map(unshared).collect();
    match make(to, &entries, owner, Copying::Clone) {
        Ok(()) => Ok(Copied::Cloned),
        Err(error) if cannot_clone(&error) => {
            make(to, &entries, owner, Copying::Bytes).map_err(failed)?;
            Ok(Copied::InFull)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Makes the empty folder of a runner whose program the sandbox shows in it.
///
/// # Errors
/// When something is there already, or the system refuses.
pub fn make_root(to: &Utf8Path, (uid, gid): (u32, u32)) -> Result<(), RunnerError> {
    make_dir(to, Mode::S_IRWXU, uid, gid).map_err(|source| RunnerError::Write {
        path: to.to_owned(),
        source: io::Error::other(source),
    })
}

/// An entry as it is copied for a job: no second name for a link of the tree, and not the note of where that came from.
fn unshared(Entry { path, what }: Entry) -> Option<Entry> {
    let what = match what {
        What::Twin { of: _, target } => What::Link(target),
        other @ (What::Folder | What::Link(_) | What::Copy(_)) => other,
    };
    (path.as_os_str() != STAMP).then_some(Entry { path, what })
}

/// Makes a tree or nothing.
fn make(to: &Utf8Path, entries: &[Entry], owner: (u32, u32), copying: Copying) -> Result<(), FilesError> {
    let there = to.symlink_metadata().is_ok();
    make_tree(to, entries, owner, copying).inspect_err(|_| {
        if let (false, Some(parent), Some(name)) = (there, to.parent(), to.file_name()) {
            // The first failure is the one to report; what stays is found by the scrub.
            let _ = wipe(parent, name);
        }
    })
}

/// Writes the files of a configuration into the copy at `root`, closed to everybody but `owner`. Follows no link and
/// replaces nothing: what is there already was not put there by us.
///
/// # Errors
/// When one of them is there already, or the system refuses.
pub fn write_files(root: &Utf8Path, config: &JitConfig, owner: (u32, u32)) -> Result<(), RunnerError> {
    let failed = |path: &Utf8Path, source: io::Error| RunnerError::Write {
        path: path.to_owned(),
        source,
    };
    let folder = open_folder(root).map_err(|error| failed(root, io::Error::other(error)))?;
    for (at, file) in config.files().iter().enumerate() {
        let written = write(folder.as_fd(), file, owner);
        if let Err((was_made, source)) = written {
            let ours = config.files().iter().take(at + usize::from(was_made));
            for file in ours {
                // The first failure is the one to report; the whole copy goes with the job.
                let _ = unlinkat(&folder, file.name, UnlinkatFlags::NoRemoveDir);
            }
            return Err(failed(&root.join(file.name), source));
        }
    }
    Ok(())
}

/// Writes one file. When that fails, says whether it was made.
fn write(
    folder: BorrowedFd<'_>,
    JitFile { name, content, mode }: &JitFile,
    (uid, gid): (u32, u32),
) -> Result<(), (bool, io::Error)> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let closed = Mode::S_IRUSR | Mode::S_IWUSR;
    let made = openat(folder, *name, flags, closed).map_err(|errno| (false, errno.into()))?;
    let mut file = fs::File::from(made);
    let filled = file.write_all(content.expose().as_bytes()).and_then(|()| {
        // The umask may have taken something away.
        file.set_permissions(fs::Permissions::from_mode(*mode))?;
        // Last, so that its owner never sees half of it.
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        Ok(())
    });
    filled.map_err(|error| (true, error))
}

#[cfg(test)]
#[path = "runner/tests.rs"]
mod tests;
