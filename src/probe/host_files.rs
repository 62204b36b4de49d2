//! Attacks on the host's and the daemon's files: state, secrets, homes, tool and spool folders.
//!
//! Where a probe must show that it could *change* a folder it creates a file without a name (`O_TMPFILE`), which
//! is gone with its descriptor; where it must show that it could change a file it opens it and writes nothing.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use super::{Attempt, Probes, Target, most_telling, tried};

pub(super) const PROBES: Probes = &[
    ("read-daemon-state", |t| {
        most_telling(t.state_files.iter().map(|path| open_to_read(path.as_str())))
    }),
    ("write-daemon-state", |t| {
        most_telling(t.state_files.iter().map(|path| open_to_write(path.as_str())))
    }),
    ("read-host-secrets", |_| {
        most_telling(SECRETS.iter().map(|path| open_to_read(path)))
    }),
    ("list-host-homes", |t| {
        most_telling(["/root", "/home"].iter().map(|home| list_home(home, t)))
    }),
    ("write-tool-folders", |t| {
        most_telling(TOOLS.iter().map(|dir| create_in(dir, t)))
    }),
    ("write-spool-folders", |t| {
        most_telling(SPOOLS.iter().map(|dir| create_in(dir, t)))
    }),
    ("write-core-pattern", |_| {
        open_to_write("/proc/sys/kernel/core_pattern")
    }),
    ("write-sysrq-trigger", |_| open_to_write("/proc/sysrq-trigger")),
    ("leave-cgroup", |_| {
        most_telling(CGROUPS.iter().map(|path| open_to_write(path)))
    }),
];

/// Secrets every host has or may have.
const SECRETS: &[&str] = &[
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/sudoers",
    "/root/.ssh/id_ed25519",
];

/// Folders whose programs or settings other jobs and the host itself use.
const TOOLS: &[&str] = &[
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/bin",
    "/usr/lib",
    "/bin",
    "/sbin",
    "/etc",
    "/etc/profile.d",
    "/opt",
    "/",
];

/// Folders whose files the host would execute later: crontab(5), at(1), systemd.unit(5).
const SPOOLS: &[&str] = &[
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
    "/var/spool/cron/atjobs",
    "/var/spool/at",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
];

/// Process lists of root cgroups, version 2 and then two controllers of version 1 (cgroups(7)).
const CGROUPS: &[&str] = &[
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/pids/cgroup.procs",
    "/sys/fs/cgroup/memory/cgroup.procs",
];

/// Opens a file or folder for reading.
pub(super) fn open_to_read(path: &str) -> Attempt {
    let result = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    tried(result, format!("open {path} for reading"))
}

/// Opens a file for writing, but writes nothing.
fn open_to_write(path: &str) -> Attempt {
    let result = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    tried(result, format!("open {path} for writing"))
}

/// Creates a file in `dir` that never has a name, or, where the file system cannot do that, one whose name is
/// removed at once.
fn create_in(dir: &str, target: &Target) -> Attempt {
    let nameless = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(dir);
    let result = match nameless {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let path = format!("{dir}/.{}", target.mark);
            let named = OpenOptions::new().write(true).create_new(true).open(&path);
            if named.is_ok() {
                // Whoever could create it can remove it.
                let _ = fs::remove_file(&path);
            }
            named
        }
        other => other,
    };
    tried(result, format!("create a file in {dir}"))
}

/// Lists `home` and looks for anything but the way to its own workspace and to what is shown on purpose.
fn list_home(home: &str, target: &Target) -> Attempt {
    let found = fs::read_dir(home).and_then(|entries| {
        for entry in entries {
            let path = entry?.path();
            let mut known = std::iter::once(&target.workspace).chain(&target.shown);
            if !known.any(|known| known.as_std_path().starts_with(&path)) {
                return Ok(());
            }
        }
        // An empty folder in its place hides it just as well.
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    });
    tried(found, format!("list {home}"))
}
