//! How files look from outside: enough to tell that one is not what it was.

use std::fs;
use std::os::unix::fs::MetadataExt;

use camino::Utf8PathBuf;

use crate::provision::enabled::{Stamp, Stamps};

/// How each of `paths` looks at this moment, with links followed; `None` is what is not there.
pub fn stamps(paths: impl IntoIterator<Item = Utf8PathBuf>) -> Stamps {
    let stamp = |path: &Utf8PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            inode: metadata.ino(),
            size_byte: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    };
    paths
        .into_iter()
        .map(|path| (path.clone(), stamp(&path)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_replaced_or_gone_looks_different() {
        let keep = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(keep.path().join("file")).unwrap();
        let look = || stamps([path.clone()]).remove(&path).unwrap();
        assert_eq!(look(), None);
        fs::write(&path, "one").unwrap();
        let first = look();
        assert_eq!(look(), first);
        fs::write(&path, "two and more").unwrap();
        let second = look();
        assert_ne!(second, first);
        fs::remove_file(&path).unwrap();
        assert_eq!(look(), None);
    }
}
