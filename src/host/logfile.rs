//! The daemon's log in a file that others rotate.
//!
//! Before every line the file's name is looked up: when it leads to another file than the one that is open, or to none, the
//! file is opened anew. So logrotate(8) and newsyslog(8) need neither a signal nor a copy, and no line is lost.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use tracing_subscriber::fmt::MakeWriter;

/// A log file. Copies of it write to the same.
#[derive(Debug, Clone)]
pub struct LogFile {
    path: Utf8PathBuf,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    /// Opens the log, and makes it when there is none, mode 0640.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Utf8Path) -> io::Result<Self> {
        let file = open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(Mutex::new(file)),
        })
    }
}

/// Opens a log to append to it. A link is not followed: what it leads to may not be a log.
fn open(path: &Utf8Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o640);
    options.custom_flags(libc::O_NOFOLLOW).open(path)
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = file.metadata()?;
        let is_same = fs::symlink_metadata(&self.path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino()));
        if !is_same && let Ok(anew) = open(&self.path) {
            *file = anew;
        }
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_after_a_rotation_is_in_the_new_file_and_nothing_is_lost() {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8Path::from_path(keep.path()).unwrap();
        let (path, old) = (top.join("a.log"), top.join("a.log.1"));
        let mut log = LogFile::open(&path).unwrap();
        log.write_all(b"one\n").unwrap();
        fs::rename(&path, &old).unwrap();
        log.write_all(b"two\n").unwrap();
        fs::remove_file(&path).unwrap();
        log.write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_link_in_its_place_is_not_followed_and_logging_goes_on() {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8Path::from_path(keep.path()).unwrap();
        let path = top.join("a.log");
        let mut log = LogFile::open(&path).unwrap();
        let (moved, other) = (top.join("moved"), top.join("other"));
        fs::rename(&path, &moved).unwrap();
        fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        log.write_all(b"one\n").unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&other).unwrap(), "");
    }
}
