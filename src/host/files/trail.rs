//! A walk down and up a hostile tree with one open folder at a time.
//!
//! Going down opens a name of the folder in hand; going up opens its `..` and checks by device and inode that
//! this is the folder the walk came through. So depth is bounded neither by PATH_MAX nor by the limits on
//! descriptors and stack, and a folder that is moved away meanwhile cannot lead the walk astray.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use camino::{Utf8Path, Utf8PathBuf};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat};

use super::open_folder;
use crate::host::files::FilesError;
use crate::host::os;

/// Longest path shown in a message; longer ones lose their middle.
const SHOWN_CHARS: usize = 1024;

/// One folder of the way from the base to where the walk is.
#[derive(Debug)]
pub(super) struct Frame {
    /// Its name in the folder above; empty for the base.
    pub(super) name: CString,
    /// Names found in it that are still to be entered.
    pub(super) pending: Vec<CString>,
    /// Bytes it occupies itself.
    pub(super) bytes: u64,
    id: (libc::dev_t, libc::ino_t),
}

impl Frame {
    fn new(name: CString, status: &FileStat) -> Self {
        Self {
            name,
            pending: Vec::new(),
            bytes: allocated(status),
            id: (status.st_dev, status.st_ino),
        }
    }
}

/// Bytes of disk a file occupies. The unit of `st_blocks` is 512 bytes (stat(2), inode(7)).
pub(super) fn allocated(status: &FileStat) -> u64 {
    u64::try_from(status.st_blocks).unwrap_or(0).saturating_mul(512)
}

/// Where the walk is and how it came there.
#[derive(Debug)]
pub(super) struct Trail {
    base_path: Utf8PathBuf,
    base_folder: OwnedFd,
    base: Frame,
    below: Vec<Frame>,
    here: OwnedFd,
}

impl Trail {
    /// Starts at a folder of ours, the base.
    pub(super) fn start(base: &Utf8Path) -> Result<Self, FilesError> {
        let io = |source| FilesError::from_errno("open", base, source);
        let base_folder = open_folder(base)?;
        let status = fstat(&base_folder).map_err(io)?;
        Ok(Self {
            base_path: base.to_owned(),
            here: duplicate(base_folder.as_fd()).map_err(io)?,
            base: Frame::new(CString::default(), &status),
            base_folder,
            below: Vec::new(),
        })
    }

    /// The folder the walk is in.
    pub(super) fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// What is known about the folder the walk is in.
    pub(super) fn frame(&mut self) -> &mut Frame {
        self.below.last_mut().unwrap_or(&mut self.base)
    }

    /// Whether the walk is where it started.
    pub(super) fn at_base(&self) -> bool {
        self.below.is_empty()
    }

    /// The path of an entry of the folder the walk is in, for messages only.
    pub(super) fn path_of(&self, name: &CStr) -> Utf8PathBuf {
        let mut path = self.base_path.clone();
        path.extend(
            self.below
                .iter()
                .map(|frame| frame.name.to_string_lossy().into_owned()),
        );
        path.push(name.to_string_lossy().as_ref());
        let chars: Vec<char> = path.as_str().chars().collect();
        if chars.len() <= SHOWN_CHARS {
            return path;
        }
        let (head, tail) = (&chars[..SHOWN_CHARS / 2], &chars[chars.len() - SHOWN_CHARS / 2..]);
        let middle = ['…'];
        Utf8PathBuf::from(head.iter().chain(&middle).chain(tail).collect::<String>())
    }

    /// A stream of the names in the folder the walk is in. Good for one pass after each arrival.
    pub(super) fn names(&self) -> Result<Dir, Errno> {
        Dir::from_fd(duplicate(self.here.as_fd())?)
    }

    /// Goes down into the folder `name`.
    pub(super) fn enter(&mut self, name: &CStr) -> Result<FileStat, Errno> {
        let folder = os::open_folder_at(self.here.as_fd(), name)?;
        let status = fstat(&folder)?;
        self.below.push(Frame::new(name.to_owned(), &status));
        self.here = folder;
        Ok(status)
    }

    /// Goes up and returns what was known about the folder left. `None` says that it is no longer where it
    /// was; the walk is then in the deepest folder of its way that still is.
    pub(super) fn leave(&mut self) -> Result<Option<Frame>, Errno> {
        let left = self.below.pop();
        if self.below.is_empty() {
            self.here = duplicate(self.base_folder.as_fd())?;
            return Ok(left);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        if let Ok(up) = openat(&self.here, c"..", flags, Mode::empty())
            && let Ok(status) = fstat(&up)
            && self.frame().id == (status.st_dev, status.st_ino)
        {
            self.here = up;
            return Ok(left);
        }
        self.retrace()?;
        Ok(None)
    }

    /// Goes down the way again from the base, as far as it still is the same.
    fn retrace(&mut self) -> Result<(), Errno> {
        let way = std::mem::take(&mut self.below);
        self.here = duplicate(self.base_folder.as_fd())?;
        for frame in way {
            let Ok(folder) = os::open_folder_at(self.here.as_fd(), &frame.name) else {
                break;
            };
            let status = fstat(&folder)?;
            if frame.id != (status.st_dev, status.st_ino) {
                break;
            }
            self.here = folder;
            self.below.push(frame);
        }
        Ok(())
    }
}

/// A second descriptor of the same open folder.
fn duplicate(folder: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    folder
        .try_clone_to_owned()
        .map_err(|e: io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tree() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b/c")).unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
        (folder, path)
    }

    #[test]
    fn comes_back_up_the_way_it_went_down() {
        let (_keep, top) = tree();
        let mut trail = Trail::start(&top).unwrap();
        for name in [c"a", c"b", c"c"] {
            trail.enter(name).unwrap();
        }
        assert_eq!(trail.path_of(c"x"), top.join("a/b/c/x"));
        for name in [c"c", c"b", c"a"] {
            assert_eq!(trail.leave().unwrap().unwrap().name.as_c_str(), name);
        }
        assert!(trail.at_base());
    }

    #[test]
    fn finds_its_way_back_when_the_folder_it_is_in_is_moved_out_of_the_tree() {
        let (_keep, top) = tree();
        let (_other, outside) = tree();
        let mut trail = Trail::start(&top).unwrap();
        for name in [c"a", c"b", c"c"] {
            trail.enter(name).unwrap();
        }
        fs::rename(top.join("a/b/c"), outside.join("moved")).unwrap();
        assert!(trail.leave().unwrap().is_none());
        assert_eq!(trail.path_of(c"x"), top.join("a/b/x"));
        trail.enter(c"c").unwrap_err();
    }

    #[test]
    fn shortens_a_path_too_long_to_read() {
        let (_keep, top) = tree();
        let trail = Trail::start(&top).unwrap();
        let long = CString::new("x".repeat(5000) + "end").unwrap();
        let shown = trail.path_of(&long);
        assert!(shown.as_str().starts_with(top.as_str()) && shown.as_str().ends_with("end"));
        assert_eq!(shown.as_str().chars().count(), SHOWN_CHARS + 1);
    }
}
