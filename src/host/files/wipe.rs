//! Removing a tree, whatever a hostile job left in it.
//!
//! Each folder is emptied of everything but folders as it is read; the folders found are entered one after
//! another and removed on the way back up. What stands in the way is set aside: missing permissions are
//! given, immutable flags cleared, folders that filled up again read again. A mount is the one thing that is
//! not for us to decide about: the walk stops there and names it.

use std::ffi::{CStr, CString};

use camino::{Utf8Path, Utf8PathBuf};
use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use super::trail::{Trail, allocated};
use super::{FilesError, is, mode_of};
use crate::host::os;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiped {
    /// Number of files, folders and everything else with a name.
    pub entries: u64,
    /// Bytes of disk they occupied; a file that has another name elsewhere frees none.
    pub bytes: u64,
}

/// How much a removal may cost.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Most names of subfolders held per folder; more are found by reading it again.
    pending: usize,
    /// How often folders may be read again, in all.
    rescans: u32,
}

/// Enough for a folder with hundreds of millions of subfolders; a process that keeps creating files is given
/// up on after as many files.
const BOUNDS: Bounds = Bounds {
    pending: 8192,
    rescans: 65_536,
};

/// Removes `parent/name` and everything beneath it and returns how much that was; nothing there is zero.
///
/// `parent` must be a folder only we can write to. Symbolic links are removed, never followed.
///
/// # Errors
///
/// When something is mounted inside, when somebody keeps adding to the tree, or when the system refuses even
/// after permissions and flags were set right. What was removed by then stays removed.
pub fn wipe(parent: &Utf8Path, name: &str) -> Result<Wiped, FilesError> {
    wipe_within(parent, name, BOUNDS)
}

fn wipe_within(parent: &Utf8Path, name: &str, bounds: Bounds) -> Result<Wiped, FilesError> {
    let single = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    let Some(root) = CString::new(name).ok().filter(|_| single) else {
        let name = name.to_owned();
        return Err(FilesError::Name { name });
    };
    let mut sweep = Sweep {
        trail: Trail::start(parent)?,
        root: root.clone(),
        bounds,
        wiped: Wiped::default(),
    };
    sweep.unlink(&root)?;
    loop {
        if let Some(name) = sweep.trail.frame().pending.pop() {
            sweep.descend(&name)?;
        } else if sweep.trail.at_base() {
            return Ok(sweep.wiped);
        } else {
            sweep.ascend()?;
        }
    }
}

/// A removal under way.
struct Sweep {
    trail: Trail,
    root: CString,
    bounds: Bounds,
    wiped: Wiped,
}

impl Sweep {
    fn error(&self, doing: &'static str, name: &CStr, source: Errno) -> FilesError {
        let path = self.trail.path_of(name);
        match source {
            // unlinkat(2): "being used by the system"; openat2(2) with RESOLVE_NO_XDEV.
            Errno::EBUSY | Errno::EXDEV => FilesError::MountPoint { path },
            _ => FilesError::from_errno(doing, path, source),
        }
    }

    /// Enters the folder `name` and empties it of everything but folders.
    fn descend(&mut self, name: &CStr) -> Result<(), FilesError> {
        let mut entered = self.trail.enter(name);
        if entered == Err(Errno::EACCES) {
            // Not root, and the job took the permissions away. Should this fail, the next call says why.
            let _ = fchmodat(
                self.trail.here(),
                name,
                Mode::S_IRWXU,
                FchmodatFlags::NoFollowSymlink,
            );
            entered = self.trail.enter(name);
        }
        match entered {
            Ok(status) => {
                if !mode_of(&status).contains(Mode::S_IRWXU) {
                    // Refused for an immutable folder, whose turn comes when its first entry resists.
                    let _ = fchmod(self.trail.here(), Mode::S_IRWXU);
                }
                self.empty()
            }
            Err(Errno::ENOENT) => Ok(()),
            // Replaced by something else since it was read; gone for good once that is unlinked.
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                self.spend_rescan(name)?;
                self.unlink(name)
            }
            Err(source) => Err(self.error("open", name, source)),
        }
    }

    /// Removes everything but folders from the folder the walk is in, and notes the folders.
    fn empty(&mut self) -> Result<(), FilesError> {
        let names = self.trail.names().map_err(|e| self.error("read", c".", e))?;
        for entry in names {
            let entry = entry.map_err(|e| self.error("read", c".", e))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entry.file_type() == Some(Type::Directory) {
                self.trail.frame().pending.push(name.to_owned());
            } else {
                self.unlink(name)?;
            }
            if self.trail.frame().pending.len() >= self.bounds.pending {
                break;
            }
        }
        Ok(())
    }

    /// Removes an entry of the folder the walk is in, or notes it when it is a folder.
    fn unlink(&mut self, name: &CStr) -> Result<(), FilesError> {
        let here = self.trail.here();
        let status = match fstatat(here, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(Errno::ENOENT) => return Ok(()),
            Err(source) => return Err(self.error("look at", name, source)),
        };
        if is(&status, SFlag::S_IFDIR) {
            self.trail.frame().pending.push(name.to_owned());
            return Ok(());
        }
        match self.remove(name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {
                self.wiped.entries += 1;
                if status.st_nlink < 2 {
                    self.wiped.bytes = self.wiped.bytes.saturating_add(allocated(&status));
                }
                Ok(())
            }
            Err(Errno::ENOENT) => Ok(()),
            // Replaced by a folder in this very moment.
            Err(Errno::EISDIR) => {
                self.spend_rescan(name)?;
                self.trail.frame().pending.push(name.to_owned());
                Ok(())
            }
            Err(source) => Err(self.error("remove", name, source)),
        }
    }

    /// Leaves the folder the walk is in and removes it.
    fn ascend(&mut self) -> Result<(), FilesError> {
        let left = self.trail.leave().map_err(|e| self.error("leave", c".", e))?;
        let Some(frame) = left else {
            // Moved away under our hands. Folders above are read again when they turn out not to be empty;
            // the root has none above it that would be.
            let root = self.root.clone();
            self.spend_rescan(&root)?;
            if self.trail.at_base() {
                self.trail.frame().pending.push(root);
            }
            return Ok(());
        };
        match self.remove(&frame.name, UnlinkatFlags::RemoveDir) {
            Ok(()) => {
                self.wiped.entries += 1;
                self.wiped.bytes = self.wiped.bytes.saturating_add(frame.bytes);
                Ok(())
            }
            Err(Errno::ENOENT) => Ok(()),
            // POSIX allows either of the first two for a folder that is not empty.
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {
                self.spend_rescan(&frame.name)?;
                self.trail.frame().pending.push(frame.name);
                Ok(())
            }
            Err(source) => Err(self.error("remove", &frame.name, source)),
        }
    }

    /// Unlinks `name`, and once more after setting aside permissions and flags that forbid it.
    fn remove(&self, name: &CStr, flag: UnlinkatFlags) -> Result<(), Errno> {
        let here = self.trail.here();
        match unlinkat(here, name, flag) {
            Err(Errno::EPERM | Errno::EACCES) => {}
            result => return result,
        }
        // Each may be impossible or needless; the second attempt tells. The base is ours and needs none.
        if !self.trail.at_base() {
            let _ = os::clear_flags(here);
            let _ = fchmod(here, Mode::S_IRWXU);
        }
        let _ = os::clear_flags_at(here, name);
        unlinkat(here, name, flag)
    }

    fn spend_rescan(&mut self, name: &CStr) -> Result<(), FilesError> {
        let path = || -> Utf8PathBuf { self.trail.path_of(name) };
        self.bounds.rescans = self
            .bounds
            .rescans
            .checked_sub(1)
            .ok_or_else(|| FilesError::Growing { path: path() })?;
        Ok(())
    }
}

/// Makes `levels` folders named `d`, each in the one before, and returns the last.
#[cfg(test)]
pub(super) fn nest(top: &Utf8Path, levels: usize) -> std::os::fd::OwnedFd {
    use nix::fcntl::{OFlag, openat};
    let mut here = super::open_folder(top).unwrap();
    for _ in 0..levels {
        nix::sys::stat::mkdirat(&here, c"d", Mode::S_IRWXU).unwrap();
        here = openat(&here, c"d", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    }
    here
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
        (folder, path)
    }

    fn is_gone(path: Utf8PathBuf) -> bool {
        fs::symlink_metadata(path).is_err()
    }

    #[test]
    fn nothing_there_is_no_error() {
        let (_keep, top) = folder();
        assert_eq!(wipe(&top, "none").unwrap(), Wiped::default());
        wipe(&top.join("none"), "x").unwrap_err();
    }

    #[test]
    fn refuses_names_that_are_paths() {
        let (_keep, top) = folder();
        for name in ["", ".", "..", "a/b", "/", "../x", "a\0b"] {
            let error = wipe(&top, name).unwrap_err();
            assert!(matches!(error, FilesError::Name { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn removes_every_kind_of_entry_and_counts_them() {
        let (_keep, top) = folder();
        let tree = top.join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/file"), vec![1; 50_000]).unwrap();
        nix::unistd::mkfifo(tree.join("fifo").as_std_path(), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(tree.join("socket")).unwrap();
        symlink("/nonexistent", tree.join("dangling")).unwrap();
        symlink("..", tree.join("a/b/up")).unwrap();
        let wiped = wipe(&top, "tree").unwrap();
        assert_eq!(wiped.entries, 8);
        assert!(wiped.bytes >= 50_000);
        assert!(is_gone(tree));
    }

    #[test]
    fn leaves_the_targets_of_links_alone() {
        let (_keep, top) = folder();
        let (_other, outside) = folder();
        fs::write(outside.join("precious"), "x").unwrap();
        fs::create_dir(top.join("tree")).unwrap();
        symlink(&outside, top.join("tree/folder")).unwrap();
        symlink(outside.join("precious"), top.join("tree/file")).unwrap();
        symlink(&outside, top.join("itself")).unwrap();
        wipe(&top, "tree").unwrap();
        wipe(&top, "itself").unwrap();
        assert!(is_gone(top.join("tree")) && is_gone(top.join("itself")));
        assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "x");
    }

    #[test]
    fn does_not_follow_a_link_that_took_the_place_of_a_folder_after_it_was_read() {
        let (_keep, top) = folder();
        let (_other, outside) = folder();
        fs::write(outside.join("precious"), "x").unwrap();
        fs::create_dir(top.join("tree")).unwrap();
        symlink(&outside, top.join("tree/swapped")).unwrap();
        let mut sweep = Sweep {
            trail: Trail::start(&top.join("tree")).unwrap(),
            root: c"tree".to_owned(),
            bounds: BOUNDS,
            wiped: Wiped::default(),
        };
        // As if reading had shown a folder of this name.
        sweep.descend(c"swapped").unwrap();
        assert!(outside.join("precious").exists());
        assert!(is_gone(top.join("tree/swapped")));
    }

    #[test]
    fn removes_trees_without_any_permission() {
        let (_keep, top) = folder();
        fs::create_dir_all(top.join("tree/closed/inner")).unwrap();
        fs::write(top.join("tree/closed/inner/file"), "x").unwrap();
        fs::write(top.join("tree/file"), "x").unwrap();
        for name in [
            "tree/closed/inner/file",
            "tree/closed/inner",
            "tree/closed",
            "tree",
        ] {
            fs::set_permissions(top.join(name), fs::Permissions::from_mode(0o0)).unwrap();
        }
        assert_eq!(wipe(&top, "tree").unwrap().entries, 5);
        assert!(is_gone(top.join("tree")));
    }

    #[test]
    fn removes_a_nest_deeper_than_paths_descriptors_and_the_stack_allow() {
        let (_keep, top) = folder();
        drop(nest(&top, 20_000));
        assert_eq!(wipe(&top, "d").unwrap().entries, 20_000);
        assert!(is_gone(top.join("d")));
    }

    #[test]
    fn removes_100_000_files() {
        let (_keep, top) = folder();
        for part in 0..10 {
            let sub = top.join(format!("tree/{part}"));
            fs::create_dir_all(&sub).unwrap();
            fs::write(sub.join("0"), "x").unwrap();
            // Names are what removing costs; links make them faster than files do.
            for number in 1..10_000 {
                fs::hard_link(sub.join("0"), sub.join(number.to_string())).unwrap();
            }
        }
        assert_eq!(wipe(&top, "tree").unwrap().entries, 100_011);
        assert!(is_gone(top.join("tree")));
    }

    #[test]
    fn removes_more_subfolders_than_it_notes_at_once() {
        let (_keep, top) = folder();
        for number in 0..100 {
            fs::create_dir_all(top.join(format!("tree/{number}"))).unwrap();
        }
        let bounds = |rescans| Bounds { pending: 10, rescans };
        let error = wipe_within(&top, "tree", bounds(3)).unwrap_err();
        assert!(matches!(error, FilesError::Growing { .. }), "{error}");
        wipe_within(&top, "tree", bounds(10)).unwrap();
        assert!(is_gone(top.join("tree")));
    }

    #[test]
    fn removes_a_tree_to_which_files_are_being_added() {
        let (_keep, top) = folder();
        fs::create_dir_all(top.join("tree/busy")).unwrap();
        std::thread::scope(|scope| {
            let (started, start) = std::sync::mpsc::channel();
            let path = top.join("tree/busy");
            scope.spawn(move || {
                // Fewer than the rescans allowed; ends early once the folder is gone.
                for number in 0..20_000 {
                    if fs::File::create(path.join(number.to_string())).is_err() {
                        break;
                    }
                    let _ = started.send(());
                }
            });
            start.recv().unwrap();
            assert!(wipe(&top, "tree").unwrap().entries >= 3);
        });
        assert!(is_gone(top.join("tree")));
    }
}
