//! Disk that is kept for the moment when there is none: a file that goes when the ledger has no room to say that a job is
//! being stopped for filling the disk. It comes back when there is room again.

use std::fs::{self, File};
use std::io::{self, Write};

use camino::{Utf8Path, Utf8PathBuf};

/// Enough for the ends of many jobs: each is a few pages of 4 KiB, and SQLite needs room for its log besides.
const SIZE_BYTE: usize = 4 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Ballast(Utf8PathBuf);

impl Ballast {
    /// The ballast of the ledger at `ledger`.
    pub(super) fn of(ledger: &Utf8Path) -> Self {
        Self(ledger.with_extension("ballast"))
    }

    /// Takes the room, where it is not taken. Not zeros: some file systems keep none of those.
    pub(super) fn fill(&self) -> io::Result<()> {
        if self.0.try_exists()? {
            return Ok(());
        }
        let filled = File::create_new(&self.0).and_then(|mut file| {
            file.write_all(&vec![0xb5; SIZE_BYTE])
                .and_then(|()| file.sync_all())
        });
        if filled.is_err() {
            // Half of it is in the way of whoever needs the room.
            let _ = fs::remove_file(&self.0);
        }
        filled
    }

    /// Gives the room away; false when there was none.
    pub(super) fn give(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_once_and_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Utf8PathBuf::from_path_buf(folder.path().join("ledger.db")).unwrap();
        let ballast = Ballast::of(&ledger);
        assert!(!ballast.give());
        for _ in 0..2 {
            ballast.fill().unwrap();
            assert_eq!(fs::metadata(&ballast.0).unwrap().len(), SIZE_BYTE as u64);
        }
        assert!(ballast.give());
        assert!(!ballast.0.exists());
    }
}
