//! File systems: their kind, and the room on them.

use std::fs;
use std::io;
use std::time::Duration;

use camino::Utf8Path;

use super::failed;
use crate::host::command::{CommandSpec, run};
use crate::host::{Host, Os};
use crate::provision::question::{Answer, Disk};

pub(super) fn disk(host: &Host, path: &Utf8Path) -> Answer {
    let looked = path.canonicalize_utf8().and_then(|real| {
        let found = nix::sys::statvfs::statvfs(real.as_std_path())?;
        // The widths of the fields differ between the systems.
        #[expect(clippy::useless_conversion, reason = "they are u32 on macOS")]
        let free_byte = u64::from(found.blocks_available()) * u64::from(found.fragment_size());
        let disk = match host.os {
            Os::Linux => mounted(&fs::read_to_string("/proc/self/mounts")?, &real).map(|filesystem| Disk {
                free_byte,
                filesystem,
            }),
            Os::MacOs => {
                let spec = CommandSpec::new(&host.mac.diskutil, &["info", "-plist", real.as_str()], DISKUTIL);
                let output = run(&spec).and_then(|output| output.require_success(&spec));
                let output = output.map_err(|error| io::Error::other(crate::chain(&error)))?;
                volume(&output.stdout, free_byte)
            }
        };
        disk.ok_or_else(|| io::Error::other("nobody says which file system this is"))
    });
    match looked {
        Ok(disk) => Answer::Disk(disk),
        Err(error) => failed(&error),
    }
}

/// How long diskutil(8) may take.
const DISKUTIL: Duration = Duration::from_secs(20);

/// The kind of the file system that `path`, which has no links in it, lies on, from proc_pid_mounts(5). Where a mount point
/// is named twice, the later mount is on top.
fn mounted(mounts: &str, path: &Utf8Path) -> Option<String> {
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let point = fields.nth(1)?.replace("\\040", " ");
        Some((point, fields.next()?))
    });
    let deepest = fields
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.len());
    deepest.map(|(_, kind)| kind.to_owned())
}

/// What `diskutil info -plist` says of a path. Volumes of APFS share the room of their container; of other file systems
/// `free_byte` is what is free.
fn volume(text: &str, free_byte: u64) -> Option<Disk> {
    let value = plist::Value::from_reader_xml(text.as_bytes()).ok()?;
    let told = value.as_dictionary()?;
    let container = told
        .get("APFSContainerFree")
        .and_then(plist::Value::as_unsigned_integer);
    Some(Disk {
        free_byte: container.unwrap_or(free_byte),
        filesystem: told.get("FilesystemType")?.as_string()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;
    use crate::provision::question::Question;

    #[test]
    fn a_disk_tells_its_room_and_kind() {
        let Answer::Disk(disk) = ask(Question::Disk("/".into())) else {
            panic!("no disk");
        };
        assert!(disk.free_byte > 0 && !disk.filesystem.is_empty(), "{disk:?}");
        assert_eq!(ask(Question::Disk("/no/such".into())), Answer::Missing);
    }

    #[test]
    fn the_kind_of_a_file_system_is_that_of_the_deepest_and_latest_mount() {
        let mounts = "/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\ntmpfs /srv/a\\040b tmpfs rw 0 0\n/dev/x /srv/a\\040b xfs rw 0 0\n";
        for (path, kind) in [
            ("/usr/bin", "ext4"),
            ("/proc/1", "proc"),
            ("/process", "ext4"),
            ("/srv/a b/c", "xfs"),
        ] {
            assert_eq!(mounted(mounts, path.into()).as_deref(), Some(kind), "{path}");
        }
        assert_eq!(mounted("", "/".into()), None);
        // tests/fakes/macos/diskutil prints the same.
        let plist = |more: &str| {
            format!(
                "<?xml version=\"1.0\"?><plist version=\"1.0\"><dict><key>FilesystemType</key><string>apfs</string>{more}</dict></plist>"
            )
        };
        let disk = |free_byte| {
            Some(Disk {
                free_byte,
                filesystem: "apfs".to_owned(),
            })
        };
        assert_eq!(volume(&plist(""), 7), disk(7));
        assert_eq!(
            volume(&plist("<key>APFSContainerFree</key><integer>9</integer>"), 7),
            disk(9)
        );
        assert_eq!(volume("garbage", 7), None);
    }
}
