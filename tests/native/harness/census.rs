//! What is there on the host, counted from outside: processes, mounts, descriptors, files in shared places.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::Daemon;

/// Folders in which every account may leave files.
const SHARED_PLACES: [&str; 6] = [
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/dev/mqueue",
    "/run/lock",
    "/var/spool/cron/crontabs",
];

/// Counts of everything a job could leave, by name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Census(BTreeMap<&'static str, Vec<String>>);

impl Census {
    /// Counts what belongs to a daemon and its slots.
    pub(crate) fn take(daemon: &Daemon) -> Self {
        let site = daemon.site();
        let uids = site.family.uids();
        let processes = uids
            .iter()
            .flat_map(|uid| processes_of(*uid))
            .map(|pid| format!("process {pid}"));
        let accounts = |path: &str| -> Vec<String> {
            let text = fs::read_to_string(path).unwrap();
            text.lines()
                .filter(|line| line.starts_with(site.family.name))
                .map(str::to_owned)
                .collect()
        };
        Self(BTreeMap::from([
            ("processes of the accounts", processes.collect()),
            (
                "processes of the daemon",
                children_of(daemon.pid()).iter().map(i32::to_string).collect(),
            ),
            ("descriptors of the daemon", descriptors_of(daemon.pid())),
            ("descriptors of the warden", descriptors_of(daemon.warden())),
            ("mounts of the daemon", mounts_of(daemon.pid())),
            ("mounts of the warden", mounts_of(daemon.warden())),
            ("workspaces", site.workspaces()),
            ("kept", names(&site.data_dir.join("kept").into_string())),
            ("run", names(&site.data_dir.join("run").into_string())),
            ("files in shared places", files_of_accounts(&uids)),
            ("shared memory", ipc_of("/proc/sysvipc/shm", &uids)),
            ("passwd", accounts("/etc/passwd")),
            ("group", accounts("/etc/group")),
        ]))
    }
}

/// Pids of the living processes whose real, effective or saved user is `uid`.
pub(crate) fn processes_of(uid: u32) -> Vec<i32> {
    let uid = uid.to_string();
    pids()
        .filter(|pid| {
            let status = |name| status_field(*pid, name).unwrap_or_default();
            status("Uid").split_whitespace().any(|id| id == uid) && !status("State").starts_with(['Z', 'X'])
        })
        .collect()
}

/// Pids of the living children of `parent`.
pub(crate) fn children_of(parent: i32) -> Vec<i32> {
    let parent = parent.to_string();
    pids()
        .filter(|pid| status_field(*pid, "PPid").as_ref() == Some(&parent))
        .collect()
}

/// One field of proc_pid_status(5); `None` when the process is gone.
pub(crate) fn status_field(pid: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn descriptors_of(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    // Sockets and pipes are numbered; what counts is how many there are of each kind.
    let kind = |target: String| target.split(":[").next().unwrap_or_default().to_owned();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut all: Vec<_> = targets.map(|target| kind(target.display().to_string())).collect();
    all.sort();
    all
}

/// Mount points of a process's view, without those of other tests.
fn mounts_of(pid: i32) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let points = table.lines().filter_map(|line| line.split_whitespace().nth(4));
    points
        .filter(|point| !point.contains("/epht-full"))
        .map(str::to_owned)
        .collect()
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut all: Vec<_> = entries
        .map(|entry| entry.file_name().display().to_string())
        .collect();
    all.sort();
    all
}

/// Files of accounts in places where every account may leave some.
pub(crate) fn files_of_accounts(uids: &[u32]) -> Vec<String> {
    SHARED_PLACES
        .iter()
        .flat_map(|place| files_of(place, uids))
        .collect()
}

fn files_of(place: &str, uids: &[u32]) -> Vec<String> {
    let Ok(entries) = fs::read_dir(place) else {
        return vec![];
    };
    let owned = entries
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|found| uids.contains(&found.uid())));
    owned.map(|entry| entry.path().display().to_string()).collect()
}

/// Lines of a table of System V objects whose owner is one of `uids`; the eighth column (proc_sysvipc(5)).
fn ipc_of(table: &str, uids: &[u32]) -> Vec<String> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let owner = |line: &&str| line.split_whitespace().nth(7).and_then(|uid| uid.parse().ok());
    text.lines()
        .filter(|line| owner(line).is_some_and(|uid: u32| uids.contains(&uid)))
        .map(str::to_owned)
        .collect()
}
