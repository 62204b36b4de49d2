//! File systems of a test's own, which it may fill.

use std::fs;
use std::io::Write;

use camino::Utf8PathBuf;

use super::{command, said};

/// A file system in memory that is this large, at a folder; gone with this.
#[derive(Debug)]
pub(crate) struct Small(pub(crate) Utf8PathBuf);

impl Small {
    /// Makes the folder and mounts it. Called `epht-full`, it is no other test's business.
    pub(crate) fn at(place: Utf8PathBuf, mib: u32) -> Self {
        fs::create_dir(&place).unwrap();
        let size = format!("size={mib}m,mode=755");
        let mounted = command("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs", place.as_str()])
            .output()
            .unwrap();
        assert!(mounted.status.success(), "{}", said(&mounted));
        Self(place)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Whoever still uses it keeps it until he ends.
        let _ = command("umount").args(["--lazy", self.0.as_str()]).output();
    }
}

/// A file that takes all the room there is on a file system.
#[derive(Debug)]
pub(crate) struct Filler(Utf8PathBuf);

impl Small {
    /// Leaves no room.
    pub(crate) fn fill(&self) -> Filler {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        // The last bytes by the page.
        for size in [1 << 20, 4096] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
        Filler(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
