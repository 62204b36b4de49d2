//! Folders: checking that the daemon's own are safe, making new ones, and measuring and removing those a job
//! has written.
//!
//! A tree that a job has written is hostile. It is entered one folder at a time through descriptors, never by
//! path, so nothing in it can lead out of it: symbolic links are not followed, mounts are not crossed, and
//! neither depth nor width costs more than memory for the names in hand.

mod trail;
mod tree;
mod usage;
mod way;
mod wipe;

use std::fs::Metadata;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, lstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

pub(crate) use tree::{Copying, Entry, Found, Kind, What, cannot_clone, entries_of, make_tree, read_tree};
pub use usage::{Usage, usage};
pub(crate) use way::{Way, way};
pub use wipe::{Wiped, wipe};

/// Write permission for group and others.
const WRITABLE_BY_OTHERS: Mode = Mode::S_IWGRP.union(Mode::S_IWOTH);

/// What is wrong with a folder, or went wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A symbolic link where a folder must be.
    #[error("`{path}` is a symbolic link\nhint: name the folder itself")]
    Symlink {
        /// The link.
        path: Utf8PathBuf,
    },
    /// Something else where a folder must be.
    #[error("`{path}` is not a folder\nhint: move it away or name another folder")]
    NotFolder {
        /// What is there.
        path: Utf8PathBuf,
    },
    /// The folder belongs to somebody else.
    #[error("`{path}` belongs to uid {owner}, not to uid {expected}\nhint: chown {expected} '{path}'")]
    Owner {
        /// The folder.
        path: Utf8PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it must be.
        expected: u32,
    },
    /// The folder's permissions let somebody in who must not, or keep somebody out who must.
    #[error("`{path}` has mode {mode:04o}: {why}\nhint: chmod {remedy} '{path}'")]
    Mode {
        /// The folder.
        path: Utf8PathBuf,
        /// Its permission bits.
        mode: libc::mode_t,
        /// What is wrong with them.
        why: &'static str,
        /// The argument of chmod(1) that sets them right.
        remedy: &'static str,
    },
    /// Somebody else could put another folder in the place of this one.
    #[error(
        "`{path}` is not safe: {why} `{ancestor}`\nhint: set right the owner (root) and mode (go-w) of `{ancestor}`, or choose another place"
    )]
    Ancestor {
        /// The folder.
        path: Utf8PathBuf,
        /// The folder above it that is the reason.
        ancestor: Utf8PathBuf,
        /// Who could do it.
        why: String,
    },
    /// No blocks, no inodes or no quota left.
    #[error("no space for `{path}`\nhint: free space or inodes (df, df -i) or raise the quota there")]
    NoSpace {
        /// What should have been made.
        path: Utf8PathBuf,
        /// What the system said.
        source: Errno,
    },
    /// The file system is read-only.
    #[error(
        "`{path}` is on a read-only file system\nhint: remount it writable; after a disk error the kernel log says why"
    )]
    ReadOnly {
        /// What should have been changed.
        path: Utf8PathBuf,
        /// What the system said.
        source: Errno,
    },
    /// Not one component of a path.
    #[error("`{name}` is not the name of one entry\nhint: no `/`, no `.` and no `..`")]
    Name {
        /// The text.
        name: String,
    },
    /// Something is mounted inside a tree that is to be removed.
    #[error("`{path}` is a mount point and was not touched\nhint: umount '{path}'")]
    MountPoint {
        /// Where.
        path: Utf8PathBuf,
    },
    /// New entries appeared as fast as they were removed.
    #[error(
        "`{path}` fills up again while it is being removed\nhint: end the processes that still write to it"
    )]
    Growing {
        /// Where the last ones were seen.
        path: Utf8PathBuf,
    },
    /// A system call failed.
    #[error("could not {doing} `{path}`")]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To what.
        path: Utf8PathBuf,
        /// What the system said.
        source: Errno,
    },
}

impl FilesError {
    /// A system's answer, sorted, as the standard library tells it.
    pub(crate) fn of_io(doing: &'static str, path: &Utf8Path, error: &std::io::Error) -> Self {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Self::from_errno(doing, path, errno)
    }

    /// Sorts a system's answer into the kinds that have a remedy.
    fn from_errno(doing: &'static str, path: impl Into<Utf8PathBuf>, source: Errno) -> Self {
        let path = path.into();
        match source {
            Errno::ENOSPC | Errno::EDQUOT => Self::NoSpace { path, source },
            Errno::EROFS => Self::ReadOnly { path, source },
            _ => Self::Io { doing, path, source },
        }
    }
}

/// Opens a folder of ours by path; its last component must not be a symbolic link.
pub(super) fn open_folder(path: &Utf8Path) -> Result<OwnedFd, FilesError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path.as_std_path(), flags, Mode::empty()).map_err(|source| {
        let path = path.to_owned();
        match (source, lstat(path.as_std_path()).map(|s| is(&s, SFlag::S_IFLNK))) {
            (Errno::ELOOP | Errno::ENOTDIR, Ok(true)) => FilesError::Symlink { path },
            (Errno::ENOTDIR, Ok(false)) => FilesError::NotFolder { path },
            _ => FilesError::from_errno("open", path, source),
        }
    })
}

/// Whether the file is of this kind.
fn is(status: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == kind
}

/// Permission bits only.
fn mode_of(status: &FileStat) -> Mode {
    Mode::from_bits_truncate(status.st_mode)
}

/// Checks that `path` is a folder which only `owner_uid` and root can write to or replace.
///
/// # Errors
///
/// When it is a symbolic link or no folder, belongs to another account, is writable for group or others, or
/// when a folder above it belongs to a third account or is writable for others without the sticky bit.
pub fn check_data_dir(path: &Utf8Path, owner_uid: u32) -> Result<(), FilesError> {
    let io = |doing, source| FilesError::from_errno(doing, path, source);
    let status = fstat(open_folder(path)?).map_err(|e| io("look at", e))?;
    if status.st_uid != owner_uid {
        return Err(FilesError::Owner {
            path: path.to_owned(),
            owner: status.st_uid,
            expected: owner_uid,
        });
    }
    if mode_of(&status).intersects(WRITABLE_BY_OTHERS) {
        return Err(FilesError::Mode {
            path: path.to_owned(),
            mode: mode_of(&status).bits(),
            why: "others can write to it",
            remedy: "go-w",
        });
    }
    check_above(path, owner_uid)
}

/// Checks that nobody but root and `owner_uid` can make `path`, which need not be there, lead to somewhere else.
///
/// # Errors
///
/// When a folder above it belongs to a third account or is writable for others without the sticky bit.
pub fn check_above(path: &Utf8Path, owner_uid: u32) -> Result<(), FilesError> {
    let Way {
        mut entries,
        is_whole,
    } = way(path).map_err(|e| {
        let errno = e.raw_os_error().map_or(Errno::ELOOP, Errno::from_raw);
        FilesError::from_errno("resolve", path, errno)
    })?;
    if is_whole {
        entries.pop();
    }
    for (entry, metadata) in entries {
        check_passed(path, &entry, &metadata, owner_uid)?;
    }
    Ok(())
}

/// Checks that nobody but root and `owner_uid` can rename what lies in the folder `entry`, or lead the link `entry` to
/// somewhere else.
fn check_passed(
    path: &Utf8Path,
    entry: &Utf8Path,
    metadata: &Metadata,
    owner_uid: u32,
) -> Result<(), FilesError> {
    let (uid, mode) = (metadata.uid(), metadata.mode());
    // The sticky bit keeps everybody from what is not their own (inode(7)).
    let is_open = mode & 0o022 != 0 && mode & 0o1000 == 0;
    let why = if uid != 0 && uid != owner_uid {
        format!("uid {uid} owns")
    } else if is_open && !metadata.is_symlink() {
        "others can write to".to_owned()
    } else {
        return Ok(());
    };
    Err(FilesError::Ancestor {
        path: path.to_owned(),
        ancestor: entry.to_owned(),
        why,
    })
}

/// Makes one folder with exactly this mode and owner; the folder above it must exist and be ours.
///
/// # Errors
///
/// When something is there already, when there is no space, or when the owner cannot be set; nothing is left
/// behind then.
pub fn make_dir(path: &Utf8Path, mode: Mode, uid: u32, gid: u32) -> Result<(), FilesError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        let name = path.to_string();
        return Err(FilesError::Name { name });
    };
    let parent = open_folder(parent)?;
    // Nobody else gets in before owner and mode are final.
    mkdirat(&parent, name, Mode::S_IRWXU).map_err(|e| FilesError::from_errno("make", path, e))?;
    open_folder(path)
        .and_then(|folder| settle(folder.as_fd(), path, mode, (uid, gid)))
        .inspect_err(|_| {
            // The first failure is the one to report; an empty folder that stays is found by the scrub.
            let _ = unlinkat(&parent, name, UnlinkatFlags::RemoveDir);
        })
}

/// Gives an existing folder exactly this mode and owner.
///
/// # Errors
///
/// When `path` is not a folder or the system refuses.
pub fn give_dir(path: &Utf8Path, mode: Mode, uid: u32, gid: u32) -> Result<(), FilesError> {
    settle(open_folder(path)?.as_fd(), path, mode, (uid, gid))
}

/// Gives the files directly in a folder that are ours to another account. One that has a second name is left alone: it may
/// be one of ours elsewhere, to which somebody has given this name.
///
/// # Errors
///
/// When `path` is not a folder or the system refuses.
pub fn give_files(path: &Utf8Path, (uid, gid): (u32, u32)) -> Result<(), FilesError> {
    let io = |doing, source| FilesError::from_errno(doing, path, source);
    let own = Uid::effective().as_raw();
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let mut folder = Dir::from_fd(open_folder(path)?).map_err(|e| io("list", e))?;
    let entries: Vec<_> = folder.iter().map_while(Result::ok).collect();
    for entry in entries {
        // Links and what vanishes meanwhile are nothing to give.
        let Ok(file) = openat(&folder, entry.file_name(), flags, Mode::empty()) else {
            continue;
        };
        let status = fstat(&file).map_err(|e| io("look at", e))?;
        let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFREG && status.st_uid == own && status.st_nlink == 1 {
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|e| io("change the owner of a file in", e))?;
        }
    }
    Ok(())
}

/// Sets owner and mode of an open folder, in this order: changing the owner may clear mode bits.
fn settle(folder: BorrowedFd<'_>, path: &Utf8Path, mode: Mode, owner: (u32, u32)) -> Result<(), FilesError> {
    let io = |doing, source| FilesError::from_errno(doing, path, source);
    let (uid, gid) = owner;
    // chown(2) takes this number for "leave as it is".
    if uid == u32::MAX || gid == u32::MAX {
        return Err(io("change the owner of", Errno::EINVAL));
    }
    let status = fstat(folder).map_err(|e| io("look at", e))?;
    if (status.st_uid, status.st_gid) != owner {
        fchown(folder, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|e| io("change the owner of", e))?;
    }
    fchmod(folder, mode).map_err(|e| io("change the mode of", e))
}

/// Replaces the content of a file by `bytes`, or makes the file, readable and writable for this process's user alone. Whoever
/// reads it meanwhile, or after a power cut, finds the old content or the new one.
///
/// # Errors
/// What the system says; the old content is still there.
pub fn replace(path: &Utf8Path, bytes: &[u8]) -> std::io::Result<()> {
    replace_with(path, bytes, &mut |_| true)
}

/// Replaces a file as [`replace`] does, after `prepare` has made of the new one what it wants; when it says no, nothing is
/// replaced.
///
/// # Errors
/// As there.
pub fn replace_with(
    path: &Utf8Path,
    bytes: &[u8],
    prepare: &mut dyn FnMut(&std::fs::File) -> bool,
) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let name = path.file_name().unwrap_or_default();
    let next = path.with_file_name(format!(".{name}.new"));
    // What a kill has left, or somebody has put there: a link would be followed.
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = std::fs::File::options();
    let mut file = options.create_new(true).write(true).mode(0o600).open(&next)?;
    file.write_all(bytes)?;
    if !prepare(&file) {
        return std::fs::remove_file(&next);
    }
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    match path.parent() {
        // The name is part of the folder.
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use nix::unistd::{getegid, geteuid};

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        (folder, path)
    }

    fn chmod(path: &Utf8Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn check(path: &Utf8Path) -> String {
        check_data_dir(path, geteuid().as_raw()).unwrap_err().to_string()
    }

    #[test]
    fn accepts_a_folder_that_is_only_ours_below_a_sticky_one() {
        let (_keep, top) = folder();
        let data = top.join("data");
        fs::create_dir(&data).unwrap();
        chmod(&data, 0o711);
        check_data_dir(&data, geteuid().as_raw()).unwrap();
        chmod(&top, 0o1777);
        check_data_dir(&data, geteuid().as_raw()).unwrap();
    }

    #[test]
    fn refuses_a_data_dir_that_somebody_else_could_change() {
        let (_keep, top) = folder();
        let data = top.join("data");
        fs::create_dir(&data).unwrap();
        for mode in [0o770, 0o702, 0o777] {
            chmod(&data, mode);
            assert!(check(&data).contains("hint: chmod go-w"), "{mode:o}");
        }
        chmod(&data, 0o700);
        let other = check_data_dir(&data, geteuid().as_raw() + 1).unwrap_err();
        assert!(matches!(other, FilesError::Owner { .. }), "{other}");
        for mode in [0o777, 0o775] {
            chmod(&top, mode);
            let text = check(&data);
            assert!(
                text.contains(&format!("others can write to `{top}`\nhint:")),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_links_and_files_as_data_dir() {
        let (_keep, top) = folder();
        fs::write(top.join("file"), "").unwrap();
        symlink(&top, top.join("link")).unwrap();
        assert!(check(&top.join("link")).contains("is a symbolic link\nhint:"));
        assert!(check(&top.join("file")).contains("is not a folder\nhint:"));
        assert!(check(&top.join("none")).contains("could not open"));
    }

    #[test]
    fn refuses_a_data_dir_reached_through_a_link_into_an_unsafe_place() {
        let (_keep, top) = folder();
        fs::create_dir_all(top.join("unsafe/data")).unwrap();
        chmod(&top.join("unsafe"), 0o777);
        fs::create_dir(top.join("unsafe/safe")).unwrap();
        fs::create_dir(top.join("unsafe/safe/data")).unwrap();
        symlink(top.join("unsafe/safe"), top.join("way")).unwrap();
        let text = check(&top.join("way/data"));
        assert!(
            text.contains(&format!("others can write to `{top}/unsafe`")),
            "{text}"
        );
    }

    #[test]
    fn refuses_a_way_through_a_link_that_is_somebody_elses() {
        if !Uid::effective().is_root() {
            return;
        }
        let (_keep, top) = folder();
        chmod(&top, 0o1777);
        let link = top.join("link");
        std::os::unix::fs::symlink("/usr", &link).unwrap();
        check_above(&link.join("new"), 0).unwrap();
        std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
        // Where it leads at this moment is root's alone.
        let error = check_above(&link.join("new"), 0).unwrap_err().to_string();
        assert!(error.contains("uid 65534 owns"), "{error}");
    }

    #[test]
    fn makes_a_folder_with_the_exact_mode_whatever_the_umask_and_parent_say() {
        let (_keep, top) = folder();
        chmod(&top, 0o2755);
        for (mode, expected) in [(0o711, 0o711), (0o777, 0o777)] {
            let path = top.join(format!("{mode:o}"));
            make_dir(
                &path,
                Mode::from_bits_truncate(mode),
                geteuid().as_raw(),
                getegid().as_raw(),
            )
            .unwrap();
            let made = fs::metadata(&path).unwrap();
            assert_eq!(made.mode() & 0o7777, expected);
            assert_eq!((made.uid(), made.gid()), (geteuid().as_raw(), getegid().as_raw()));
        }
    }

    #[test]
    fn makes_nothing_where_something_is_or_when_the_owner_cannot_be_set() {
        let (_keep, top) = folder();
        symlink("/nonexistent", top.join("link")).unwrap();
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let there = make_dir(&top.join("link"), Mode::S_IRWXU, uid, gid).unwrap_err();
        assert!(
            matches!(
                there,
                FilesError::Io {
                    source: Errno::EEXIST,
                    ..
                }
            ),
            "{there}"
        );
        make_dir(&top.join("new"), Mode::S_IRWXU, u32::MAX, gid).unwrap_err();
        assert!(!top.join("new").exists());
    }

    #[test]
    fn root_gives_a_new_folder_to_another_account() {
        assert!(
            geteuid().is_root(),
            "tests named root_ need root: changes an owner"
        );
        let (_keep, top) = folder();
        make_dir(&top.join("new"), Mode::S_IRWXU, 61_234, 61_235).unwrap();
        let made = fs::metadata(top.join("new")).unwrap();
        assert_eq!((made.uid(), made.gid()), (61_234, 61_235));
    }

    #[test]
    fn names_the_remedy_for_a_full_and_a_read_only_disk() {
        for (errno, hint) in [
            (Errno::ENOSPC, "hint: free space"),
            (Errno::EDQUOT, "hint: free space"),
            (Errno::EROFS, "hint: remount"),
        ] {
            let text = FilesError::from_errno("make", "/x", errno).to_string();
            assert!(text.contains(hint), "{text}");
        }
    }
}
