//! The program in its place: put there, replaced and removed, always as a whole.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::stat::{Mode, fchmod};

use super::files::{FilesError, check_above};
use super::provision::answer::hash;
use crate::provision::step::Place;
use crate::service::upgrade::{Machine, machine};

/// Why a program is not in its place.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Somebody else could put another program there.
    #[error(transparent)]
    Above(#[from] FilesError),
    /// A path cannot be read or changed.
    #[error("could not {doing} `{path}`")]
    Path {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is another one than was planned with.
    #[error(
        "`{path}` is not the program that it was\nhint: somebody else changes it; try again when they have done"
    )]
    Changed {
        /// The program.
        path: Utf8PathBuf,
    },
    /// It is not what was put there.
    #[error(
        "`{path}` is another program by now, and is left as it is\nhint: remove it by hand if it is not needed"
    )]
    Another {
        /// The program.
        path: Utf8PathBuf,
    },
}

fn fail(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> ProgramError {
    let path = path.to_owned();
    move |source| ProgramError::Path { doing, path, source }
}

/// Where a program waits that is to replace the one at `path`: in the same folder, so that a rename does it.
pub fn staged(path: &Utf8Path) -> Utf8PathBuf {
    path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default()))
}

/// Where the program is kept that was replaced at `path`.
pub fn kept(path: &Utf8Path) -> Utf8PathBuf {
    path.with_file_name(format!("{}.old", path.file_name().unwrap_or_default()))
}

/// The SHA-256 of a program, in hexadecimal; `None` where there is none.
///
/// # Errors
/// It cannot be read.
pub fn sha256(path: &Utf8Path) -> Result<Option<String>, ProgramError> {
    match hash(path) {
        Ok(sha256) => Ok(Some(sha256)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail("read", path)(error)),
    }
}

/// What a program says it is built for.
///
/// # Errors
/// It cannot be read.
pub fn machine_of(path: &Utf8Path) -> Result<Option<Machine>, ProgramError> {
    let mut start = vec![];
    let file = File::open(path).map_err(fail("open", path))?;
    file.take(64)
        .read_to_end(&mut start)
        .map_err(fail("read", path))?;
    Ok(machine(&start))
}

/// Copies a program beside `path`, where nobody but root can change it, and returns its hash. It is never written over a
/// program that may run: macOS kills one whose signed pages change, and Linux refuses.
///
/// # Errors
/// See [`ProgramError`].
pub fn stage(from: &Utf8Path, path: &Utf8Path) -> Result<String, ProgramError> {
    check_above(path, nix::unistd::geteuid().as_raw())?;
    let to = staged(path);
    discard(&to)?;
    let mut source = File::open(from).map_err(fail("open", from))?;
    if !source.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(fail("copy", from)(io::ErrorKind::InvalidInput.into()));
    }
    let mut options = File::options();
    let mut copy = options.create_new(true).write(true).mode(0o700).open(&to);
    let copied = copy
        .as_mut()
        .map_err(|error| io::Error::from(error.kind()))
        .and_then(|copy| {
            io::copy(&mut source, copy)?;
            // Not by the mode of the source, which may have bits that set the user.
            fchmod(copy.as_fd(), Mode::from_bits_truncate(0o755))?;
            copy.sync_all()
        });
    copied.map_err(fail("write", &to))?;
    hash(&to).map_err(fail("read", &to))
}

/// Removes what an earlier attempt staged.
///
/// # Errors
/// It is there and cannot be removed.
pub fn discard(staged: &Utf8Path) -> Result<(), ProgramError> {
    match fs::remove_file(staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail("remove", staged)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Puts what is staged for `path` in its place. What is there is kept beside it, where `keep` says so.
///
/// # Errors
/// See [`ProgramError`].
pub fn swap(path: &Utf8Path, keep: bool) -> Result<(), ProgramError> {
    if keep {
        // The old one has both names for an instant; there is no instant in which it has none.
        let (kept, next) = (kept(path), path.with_file_name(".ephemerd.keep"));
        discard(&next)?;
        fs::hard_link(path, &next).map_err(fail("keep", path))?;
        fs::rename(&next, &kept).map_err(fail("keep", &kept))?;
    }
    let staged = staged(path);
    fs::rename(&staged, path).map_err(fail("replace", path))?;
    sync_folder(path)
}

/// Puts what was kept back in its place.
///
/// # Errors
/// See [`ProgramError`].
pub fn swap_back(path: &Utf8Path) -> Result<(), ProgramError> {
    let kept = kept(path);
    fs::rename(&kept, path).map_err(fail("put back", &kept))?;
    sync_folder(path)
}

fn sync_folder(path: &Utf8Path) -> Result<(), ProgramError> {
    // The name is part of the folder.
    let folder = path.parent().unwrap_or(path);
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(fail("write", folder))
}

/// Copies a program into its place.
///
/// # Errors
/// See [`ProgramError`].
pub(super) fn install(from: &Utf8Path, place: &Place, sha256: &str) -> Result<(), ProgramError> {
    let found = stage(from, &place.path)?;
    if found != sha256 {
        discard(&staged(&place.path))?;
        return Err(ProgramError::Changed {
            path: from.to_owned(),
        });
    }
    swap(&place.path, false)
}

/// Removes a program, if it is still the one with this hash.
///
/// # Errors
/// See [`ProgramError`].
pub(super) fn remove(path: &Utf8Path, wanted: &str) -> Result<(), ProgramError> {
    match sha256(path)? {
        None => Ok(()),
        Some(found) if found == wanted => fs::remove_file(path).map_err(fail("remove", path)),
        Some(_) => Err(ProgramError::Another {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        (keep, top)
    }

    #[test]
    fn a_program_is_replaced_and_comes_back_with_its_own_content() {
        let (_keep, top) = folder();
        let (path, new) = (top.join("ephemerd"), top.join("download"));
        fs::write(&path, "old").unwrap();
        fs::write(&new, "new").unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o4600)).unwrap();
        stage(&new, &path).unwrap();
        swap(&path, true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
        swap_back(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert!(!kept(&path).exists() && !staged(&path).exists());
    }

    #[test]
    fn another_program_than_was_put_there_is_not_removed() {
        let (_keep, top) = folder();
        let path = top.join("ephemerd");
        fs::write(&path, "somebody's").unwrap();
        assert!(matches!(remove(&path, "aa"), Err(ProgramError::Another { .. })));
        let own = sha256(&path).unwrap().unwrap();
        remove(&path, &own).unwrap();
        remove(&path, &own).unwrap();
    }

    #[test]
    fn a_program_that_changed_since_it_was_looked_at_is_not_installed() {
        let (_keep, top) = folder();
        let from = top.join("download");
        fs::write(&from, "changed").unwrap();
        let place = Place {
            path: top.join("ephemerd"),
            owner: None,
            group: None,
            mode: None,
        };
        assert!(matches!(
            install(&from, &place, "aa"),
            Err(ProgramError::Changed { .. })
        ));
        assert_eq!(top.read_dir_utf8().unwrap().count(), 1);
    }
}
