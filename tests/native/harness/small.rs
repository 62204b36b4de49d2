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

/// A file system in a file, which becomes read-only at its first error, as disks do that begin to fail (ext4(5)).
#[derive(Debug)]
pub(crate) struct Failing {
    image: Utf8PathBuf,
    pub(crate) place: Utf8PathBuf,
}

impl Failing {
    /// Makes the folder and mounts it. Called `epht-full`, it is no other test's business.
    pub(crate) fn at(place: Utf8PathBuf, mib: u64) -> Self {
        let image = place.with_extension("img");
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run("mkfs.ext4", &["-q", image.as_str()]);
        fs::create_dir(&place).unwrap();
        let disk = Self { image, place };
        disk.mount();
        disk
    }

    fn mount(&self) {
        let options = "loop,errors=remount-ro";
        run(
            "mount",
            &["-o", options, self.image.as_str(), self.place.as_str()],
        );
    }

    /// Writes everything down, so that what is lost is what came later.
    pub(crate) fn sync(&self) {
        run("sync", &["-f", self.place.as_str()]);
    }

    /// The first error.
    pub(crate) fn fail(&self) {
        let device = run("findmnt", &["-no", "SOURCE", self.place.as_str()]);
        let name = device.trim().strip_prefix("/dev/").unwrap().to_owned();
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test").unwrap();
        fs::write(self.place.join("probe"), "x").unwrap_err();
    }

    /// Has it checked and mounted again. Nobody may use it.
    pub(crate) fn repair(&self) {
        super::wait_for("a file system that nobody uses", || {
            let output = command("umount").arg(&self.place).output().unwrap();
            output.status.success().then_some(())
        });
        let checked = command("e2fsck")
            .args(["-fy", self.image.as_str()])
            .output()
            .unwrap();
        // 1: errors were put right (e2fsck(8)).
        assert!(
            checked.status.code().is_some_and(|code| code <= 1),
            "{}",
            said(&checked)
        );
        self.mount();
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ = command("umount").args(["--lazy", self.place.as_str()]).output();
        let _ = fs::remove_file(&self.image);
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = command(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", said(&output));
    super::out(&output)
}
