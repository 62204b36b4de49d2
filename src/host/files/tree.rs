//! Trees as values: what there is in one, and making one from a list.
//!
//! Reading follows no link and crosses no mount. Making goes into a folder that nobody else is in yet: it is
//! given to its owner when it is complete, and not before.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use camino::Utf8Path;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};

use super::trail::Trail;
use super::{FilesError, give_dir, is, make_dir, mode_of, open_folder};
use crate::host::os;

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Found {
    /// Where, from the top of the tree. Names are bytes, not text.
    pub(crate) path: PathBuf,
    /// What.
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: Mode,
    /// Bytes of its content.
    pub(crate) size: u64,
    /// When its content was changed last: seconds and nanoseconds since 1970.
    pub(crate) modified: (i64, i64),
}

/// What an entry of a tree is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A folder.
    Folder,
    /// A folder that should have been entered and could not be: it is closed to us, or something is mounted
    /// on it.
    Closed,
    /// A regular file.
    File,
    /// A symbolic link, and where it points.
    Link(PathBuf),
    /// A device, fifo or socket.
    Other,
}

impl Found {
    /// Whether every account may read it and, if it is a folder, get through it.
    pub(crate) fn is_public(&self) -> bool {
        self.mode.contains(match self.kind {
            Kind::Folder | Kind::Closed => Mode::S_IROTH.union(Mode::S_IXOTH),
            Kind::File | Kind::Link(_) | Kind::Other => Mode::S_IROTH,
        })
    }
}

/// Returns what is below `root`, each folder before what is in it. Content is listed of the folders for which
/// `enter` says so.
///
/// # Errors
///
/// When `root` cannot be read, or when a folder is moved away while the walk is in it.
pub(crate) fn read_tree(root: &Utf8Path, enter: impl Fn(&Found) -> bool) -> Result<Vec<Found>, FilesError> {
    let mut trail = Trail::start(root)?;
    let mut here = PathBuf::new();
    let mut found = Vec::new();
    let io = |source| FilesError::from_errno("read", root, source);
    list(&mut trail, &here, &enter, &mut found).map_err(io)?;
    loop {
        if let Some(name) = trail.frame().pending.pop() {
            match trail.enter(&name) {
                Ok(_) => {}
                Err(Errno::EACCES | Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => {
                    let path = here.join(OsStr::from_bytes(name.to_bytes()));
                    let closed = found.iter_mut().rfind(|entry: &&mut Found| entry.path == path);
                    closed.into_iter().for_each(|entry| entry.kind = Kind::Closed);
                    continue;
                }
                Err(source) => return Err(io(source)),
            }
            here.push(OsStr::from_bytes(name.to_bytes()));
            list(&mut trail, &here, &enter, &mut found).map_err(io)?;
        } else if trail.at_base() {
            found.sort_by(|a, b| a.path.cmp(&b.path));
            return Ok(found);
        } else if trail.leave().map_err(io)?.is_some() {
            here.pop();
        } else {
            return Err(io(Errno::ESTALE));
        }
    }
}

/// Adds the entries of the folder the walk is in, and notes those to enter.
fn list(
    trail: &mut Trail,
    here: &Path,
    enter: &impl Fn(&Found) -> bool,
    found: &mut Vec<Found>,
) -> Result<(), Errno> {
    for entry in trail.names()? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let status = match fstatat(trail.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            other => other?,
        };
        let kind = if is(&status, SFlag::S_IFDIR) {
            Kind::Folder
        } else if is(&status, SFlag::S_IFREG) {
            Kind::File
        } else if is(&status, SFlag::S_IFLNK) {
            match readlinkat(trail.here(), name) {
                Err(Errno::ENOENT | Errno::EINVAL) => continue,
                other => Kind::Link(other?.into()),
            }
        } else {
            Kind::Other
        };
        let entry = Found {
            path: here.join(OsStr::from_bytes(name.to_bytes())),
            kind,
            mode: mode_of(&status),
            size: u64::try_from(status.st_size).unwrap_or(0),
            modified: (status.st_mtime, status.st_mtime_nsec),
        };
        if entry.kind == Kind::Folder && enter(&entry) {
            trail.frame().pending.push(name.to_owned());
        }
        found.push(entry);
    }
    Ok(())
}

/// One thing to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where, from the top of the new tree.
    pub(crate) path: PathBuf,
    /// What.
    pub(crate) what: What,
}

/// What is made at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A folder that its owner writes and everybody reads.
    Folder,
    /// A symbolic link with this target, as it stands.
    Link(PathBuf),
    /// The symbolic link `of`, which has this target, under one more name: it costs no inode, and on ext4 a target
    /// of 60 bytes or more costs a block that goes through the journal (inode(7), ext4(5)). It stays its owner's,
    /// and nobody can change a link, only remove its name. A link of its own where the system has no second names
    /// for links.
    Twin {
        /// The link, in a tree of ours.
        of: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// A file with the content, time and executability of this one.
    Copy(PathBuf),
}

/// How files get their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copying {
    /// Whatever works.
    Bytes,
    /// By sharing blocks until one side is written, or not at all.
    Clone,
}

/// Makes the folder `root` with `entries` in it, each folder listed before what is in it, for an owner.
/// Nothing is made anywhere but in folders of the list, so no link in it leads out of `root`.
///
/// # Errors
///
/// When something is there already, the system refuses, or a file to copy is not a regular one that everybody
/// may read. What was made by then stays.
pub(crate) fn make_tree(
    root: &Utf8Path,
    entries: &[Entry],
    owner: (u32, u32),
    copying: Copying,
) -> Result<(), FilesError> {
    // Ours until it is complete, so that nobody else is in it while it is being made.
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    make_dir(root, Mode::S_IRWXU, uid.as_raw(), gid.as_raw())?;
    let folder = open_folder(root)?;
    let give = (owner != (uid.as_raw(), gid.as_raw())).then_some(owner);
    let mut folders = BTreeSet::from([Path::new("")]);
    for entry in entries {
        let inside = entry.path.parent().is_some_and(|parent| folders.contains(parent));
        if !inside || entry.path.file_name().is_none() {
            let name = entry.path.display().to_string();
            return Err(FilesError::Name { name });
        }
        if entry.what == What::Folder {
            folders.insert(&entry.path);
        }
        make(folder.as_fd(), entry, give, copying).map_err(|source| {
            let path = root.join(entry.path.to_string_lossy().as_ref());
            FilesError::from_errno("make", path, source)
        })?;
    }
    give_dir(root, FOLDER, owner.0, owner.1)
}

/// Everybody reads, the owner writes.
const FOLDER: Mode = Mode::S_IRWXU
    .union(Mode::S_IRGRP)
    .union(Mode::S_IXGRP)
    .union(Mode::S_IROTH)
    .union(Mode::S_IXOTH);

fn make(
    root: BorrowedFd<'_>,
    entry: &Entry,
    give: Option<(u32, u32)>,
    copying: Copying,
) -> Result<(), Errno> {
    let path = entry.path.as_path();
    match &entry.what {
        What::Folder => {
            mkdirat(root, path, FOLDER)?;
            // The umask may have taken something away.
            fchmodat(root, path, FOLDER, FchmodatFlags::FollowSymlink)?;
        }
        What::Link(target) => symlinkat(target.as_path(), root, path)?,
        What::Twin { of, target } => match linkat(AT_FDCWD, of.as_path(), root, path, AtFlags::empty()) {
            Ok(()) => return Ok(()),
            // What keeps it from being made as well is told by this.
            Err(_) => symlinkat(target.as_path(), root, path)?,
        },
        What::Copy(source) => return copy(source, root, path, (give, copying)),
    }
    match give {
        Some((uid, gid)) => fchownat(
            root,
            path,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        ),
        None => Ok(()),
    }
}

/// Copies one file. The source is looked at once it is open, so that a link or another file put in its place
/// meanwhile gives nothing away.
fn copy(
    source: &Path,
    root: BorrowedFd<'_>,
    path: &Path,
    (give, copying): (Option<(u32, u32)>, Copying),
) -> Result<(), Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let source = open(source, flags, Mode::empty())?;
    let status = fstat(&source)?;
    if !is(&status, SFlag::S_IFREG) || !mode_of(&status).contains(Mode::S_IROTH) {
        return Err(Errno::EACCES);
    }
    let made = match copying {
        Copying::Clone => {
            let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
            os::clone_file(source.as_fd(), root, &name)?
        }
        Copying::Bytes => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let made = openat(root, path, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
            let (mut from, mut to) = (std::fs::File::from(source), std::fs::File::from(made));
            std::io::copy(&mut from, &mut to)
                .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
            to.into()
        }
    };
    settle(made.as_fd(), &status, give)
}

/// Gives a new file owner, permissions and time.
fn settle(made: BorrowedFd<'_>, source: &FileStat, give: Option<(u32, u32)>) -> Result<(), Errno> {
    use nix::sys::stat::futimens;
    use nix::sys::time::TimeSpec;

    if let Some((uid, gid)) = give {
        fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    let mode = mode_of(source).intersection(FOLDER).union(Mode::S_IWUSR);
    fchmod(made, mode)?;
    let modified = TimeSpec::new(source.st_mtime, source.st_mtime_nsec);
    futimens(made, &modified, &modified)
}

/// The entries that make a copy of the tree at `root`, which must be ours and never change.
///
/// # Errors
///
/// When it cannot be read.
pub(crate) fn entries_of(root: &Utf8Path) -> Result<Vec<Entry>, FilesError> {
    let found = read_tree(root, |_| true)?;
    let entry = |found: Found| {
        let what = match found.kind {
            Kind::Folder => What::Folder,
            Kind::File => What::Copy(root.as_std_path().join(&found.path)),
            Kind::Link(target) => What::Twin {
                of: root.as_std_path().join(&found.path),
                target,
            },
            Kind::Closed | Kind::Other => return None,
        };
        Some(Entry {
            path: found.path,
            what,
        })
    };
    Ok(found.into_iter().filter_map(entry).collect())
}

/// Whether the answer of a system means that it cannot share blocks between these two places.
pub(crate) fn cannot_clone(error: &FilesError) -> bool {
    let FilesError::Io { source, .. } = error else {
        return false;
    };
    // ioctl_ficlone(2), clonefile(2); the last is what a file system without the call at all says.
    [
        Errno::EOPNOTSUPP,
        Errno::EXDEV,
        Errno::EINVAL,
        Errno::ENOTTY,
        Errno::ENOSYS,
        Errno::ENOTSUP,
    ]
    .contains(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use camino::Utf8PathBuf;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        (folder, path)
    }

    fn own() -> (u32, u32) {
        (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
    }

    fn entry(path: &str, what: What) -> Entry {
        Entry {
            path: path.into(),
            what,
        }
    }

    #[test]
    fn lists_parents_first_and_enters_what_it_is_told_to() {
        let (_keep, top) = folder();
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::create_dir_all(top.join("skipped/x")).unwrap();
        fs::write(top.join("a/b/file"), "12345").unwrap();
        symlink("b/../b", top.join("a/link")).unwrap();
        symlink("a", top.join("way")).unwrap();
        let found = read_tree(&top, |folder| folder.path != Path::new("skipped")).unwrap();
        let paths: Vec<_> = found.iter().map(|found| found.path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            ["a", "a/b", "a/b/c", "a/b/file", "a/link", "skipped", "way"]
        );
        assert_eq!((&found[3].kind, found[3].size), (&Kind::File, 5));
        assert_eq!(found[4].kind, Kind::Link("b/../b".into()));
    }

    #[test]
    fn makes_a_copy_with_targets_executability_and_times() {
        let (_keep, top) = folder();
        let source = top.join("source");
        fs::create_dir_all(source.join("bin")).unwrap();
        fs::write(source.join("bin/tool"), "x").unwrap();
        fs::set_permissions(source.join("bin/tool"), fs::Permissions::from_mode(0o4575)).unwrap();
        symlink("bin/tool", source.join("link")).unwrap();
        symlink("nowhere", source.join("broken")).unwrap();
        let copy = top.join("copy");
        make_tree(&copy, &entries_of(&source).unwrap(), own(), Copying::Bytes).unwrap();
        let (from, to) = (
            fs::metadata(source.join("bin/tool")).unwrap(),
            fs::metadata(copy.join("bin/tool")).unwrap(),
        );
        assert_eq!(to.mode() & 0o7777, 0o755, "no set-uid, not writable for others");
        assert_eq!((to.mtime(), to.mtime_nsec()), (from.mtime(), from.mtime_nsec()));
        assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("bin/tool"));
        assert_eq!(fs::read_link(copy.join("broken")).unwrap(), Path::new("nowhere"));
    }

    #[test]
    fn a_copied_link_is_the_same_link_and_removing_it_leaves_the_other() {
        let (_keep, top) = folder();
        let (source, copy) = (top.join("source"), top.join("copy"));
        fs::create_dir(&source).unwrap();
        symlink("nowhere", source.join("link")).unwrap();
        make_tree(&copy, &entries_of(&source).unwrap(), own(), Copying::Bytes).unwrap();
        let inode = |path: &Utf8Path| fs::symlink_metadata(path).unwrap().ino();
        assert_eq!(inode(&copy.join("link")), inode(&source.join("link")));
        fs::remove_file(copy.join("link")).unwrap();
        assert_eq!(fs::read_link(source.join("link")).unwrap(), Path::new("nowhere"));
    }

    #[test]
    fn a_link_that_cannot_have_a_second_name_is_made_anew() {
        let (_keep, top) = folder();
        let twin = What::Twin {
            of: top.join("missing").into(),
            target: "target".into(),
        };
        let copy = top.join("copy");
        make_tree(&copy, &[entry("link", twin.clone())], own(), Copying::Bytes).unwrap();
        assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("target"));
        let twice = [entry("link", twin.clone()), entry("link", twin)];
        make_tree(&top.join("twice"), &twice, own(), Copying::Bytes).unwrap_err();
    }

    #[test]
    fn writes_through_no_link_of_its_own_list() {
        let (_keep, top) = folder();
        let outside = top.join("outside");
        fs::create_dir(&outside).unwrap();
        let lists = [
            vec![
                entry("a", What::Link(outside.clone().into())),
                entry("a/b", What::Folder),
            ],
            vec![entry("../outside/b", What::Folder)],
            vec![entry("missing/b", What::Folder)],
            vec![entry("", What::Folder)],
            vec![entry("..", What::Link("x".into()))],
        ];
        for (number, list) in lists.iter().enumerate() {
            let made = make_tree(&top.join(format!("copy-{number}")), list, own(), Copying::Bytes);
            assert!(matches!(made, Err(FilesError::Name { .. })), "{list:?}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn copies_neither_links_nor_what_only_some_may_read() {
        let (_keep, top) = folder();
        fs::write(top.join("secret"), "x").unwrap();
        fs::set_permissions(top.join("secret"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(top.join("public"), "x").unwrap();
        symlink("public", top.join("link")).unwrap();
        for name in ["secret", "link", "."] {
            let list = [entry("copy", What::Copy(top.join(name).into()))];
            let root = top.join(format!("of-{}", name.len()));
            make_tree(&root, &list, own(), Copying::Bytes).unwrap_err();
            assert!(!root.join("copy").exists(), "{name}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_entered_is_told_apart_from_an_empty_one() {
        let (_keep, top) = folder();
        fs::create_dir(top.join("empty")).unwrap();
        let found = read_tree(&top, |folder| {
            // As if something came in between.
            fs::remove_dir(top.join(&*folder.path.to_string_lossy())).unwrap();
            true
        });
        assert_eq!(found.unwrap()[0].kind, Kind::Closed);
    }
}
