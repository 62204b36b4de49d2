//! How much disk a tree occupies, while somebody may be changing it.

use std::collections::BTreeSet;
use std::ffi::CStr;

use camino::Utf8Path;
use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{SFlag, fstatat};
use serde::{Deserialize, Serialize};

use super::trail::{Trail, allocated};
use super::{FilesError, is};

/// What lies below a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of disk occupied; a file with several names counts once, a hole in a file not at all.
    pub bytes: u64,
    /// Number of files, folders and everything else with a name.
    pub entries: u64,
}

/// Returns what lies below `dir`, not counting `dir` itself, nor what is mounted inside.
///
/// Entries that vanish or move while it looks may be missing from the sum; folders that this process may not
/// read count without their content.
///
/// # Errors
///
/// When `dir` itself cannot be read.
pub fn usage(dir: &Utf8Path) -> Result<Usage, FilesError> {
    let mut trail = Trail::start(dir)?;
    let mut count = Count::default();
    let io = |source| FilesError::from_errno("measure", dir, source);
    count.add_entries(&mut trail).map_err(io)?;
    loop {
        if let Some(name) = trail.frame().pending.pop() {
            // Whatever cannot be entered or read was counted as an entry, and that is all there is to it.
            if trail.enter(&name).is_ok() {
                let _ = count.add_entries(&mut trail);
            }
        } else if trail.at_base() {
            return Ok(count.usage);
        } else {
            trail.leave().map_err(io)?;
        }
    }
}

/// A sum in the making.
#[derive(Debug, Default)]
struct Count {
    usage: Usage,
    /// Files with several names that were counted under one of them.
    seen: BTreeSet<(libc::dev_t, libc::ino_t)>,
}

impl Count {
    /// Adds the entries of the folder the walk is in, and notes the folders among them.
    fn add_entries(&mut self, trail: &mut Trail) -> Result<(), Errno> {
        for entry in trail.names()? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.add(trail, name, entry.file_type());
            }
        }
        Ok(())
    }

    fn add(&mut self, trail: &mut Trail, name: &CStr, kind: Option<Type>) {
        let Ok(status) = fstatat(trail.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
            return;
        };
        let folder = kind == Some(Type::Directory) || is(&status, SFlag::S_IFDIR);
        self.usage.entries += 1;
        if folder || status.st_nlink < 2 || self.seen.insert((status.st_dev, status.st_ino)) {
            self.usage.bytes = self.usage.bytes.saturating_add(allocated(&status));
        }
        if folder {
            trail.frame().pending.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use camino::Utf8PathBuf;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
        (folder, path)
    }

    fn blocks(path: Utf8PathBuf) -> u64 {
        fs::symlink_metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn counts_blocks_of_every_level_once_and_follows_no_link() {
        let (_keep, top) = folder();
        let (_other, outside) = folder();
        fs::write(outside.join("big"), vec![1; 1_000_000]).unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(top.join("a/b/file"), top.join("a/again")).unwrap();
        symlink(&outside, top.join("link")).unwrap();
        let expected: u64 = ["a", "a/b", "a/b/file", "link"]
            .into_iter()
            .map(|name| blocks(top.join(name)))
            .sum();
        assert_eq!(
            usage(&top).unwrap(),
            Usage {
                bytes: expected,
                entries: 5
            }
        );
        assert!(expected >= 100_000);
    }

    #[test]
    fn does_not_count_the_holes_of_a_sparse_file() {
        let (_keep, top) = folder();
        fs::File::create(top.join("sparse"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        assert!(usage(&top).unwrap().bytes < 1 << 20);
    }

    #[test]
    fn sees_a_file_below_more_levels_than_a_path_can_name() {
        let (_keep, top) = folder();
        let bottom = super::super::wipe::nest(&top, 3_000);
        let file = nix::fcntl::openat(
            &bottom,
            "big",
            nix::fcntl::OFlag::O_CREAT | nix::fcntl::OFlag::O_WRONLY,
            nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
        nix::unistd::write(&file, &[1; 200_000]).unwrap();
        let found = usage(&top).unwrap();
        assert_eq!(found.entries, 3_001);
        assert!(found.bytes >= 200_000);
        super::super::wipe(&top, "d").unwrap();
    }

    #[test]
    fn reports_a_folder_that_is_not_there() {
        let (_keep, top) = folder();
        usage(&top.join("none")).unwrap_err();
    }
}
