//! Live probes for the sandbox of macOS: a few attempts for every kind of thing its profile closes, and of what
//! builds need. Written with what every Unix has, so that the same probes run against a stand-in elsewhere.
//!
//! The probes of Linux ask the kernel in ways that macOS does not have, and the other way round, so the two tables
//! are apart; reports and verdicts are the same.

mod attempts;
mod stage;

use std::io;

use camino::Utf8PathBuf;
use libc::{EACCES, EPERM};
use serde::{Deserialize, Serialize};

use super::{Attempt, Class, Control, ProbeInfo, Report, Stop};
use crate::sandbox::Axis;

pub use stage::Stage;

/// What a probe run is told about the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    /// Root of the job's own workspace, with `home`, `tmp` and `work` in it.
    pub workspace: Utf8PathBuf,
    /// Root of a sibling's, open to every account, with `home/secret`, `work` and a listening socket `tmp/sock`.
    pub sibling: Utf8PathBuf,
    /// A process of the sibling.
    pub sibling_pid: i32,
    /// Configuration and ledger of the daemon.
    pub state_files: Vec<Utf8PathBuf>,
    /// The daemon's control socket, where one listens.
    pub control_socket: Option<Utf8PathBuf>,
    /// Whether the profile lets jobs open connections to other hosts.
    pub online: bool,
    /// First port of the job's own range.
    pub own_port: u16,
}

/// What a failing call or tool says.
enum Refusal {
    Call(io::Error),
    /// A tool of the system ended with this code.
    Tool(i32),
    /// There is nothing to try it on.
    Nothing(&'static str),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Call(error)
    }
}

/// Does one probe; the text says what was reached.
type Run = fn(&Outside) -> Result<(), Refusal>;

struct Row {
    info: ProbeInfo,
    run: Run,
}

/// The sandbox answers EPERM (sandbox(7) and what XNU's hooks return); the owner and mode of a file, which are asked
/// first, EACCES.
const DENIED: &[Stop] = &[Stop::Errno(EPERM), Stop::Errno(EACCES)];
/// Only the sandbox, or another account, answers this.
const REFUSED: &[Stop] = &[Stop::Errno(EPERM)];
/// A tool that cannot do it, or cannot even be started.
const TOOL_REFUSED: &[Stop] = &[Stop::Errno(EPERM), Stop::Errno(EACCES), Stop::Refusal];

const fn attack(
    name: &'static str,
    axis: Axis,
    expected: &'static [Stop],
    what: &'static str,
    run: Run,
) -> Row {
    let info = ProbeInfo {
        name,
        axis,
        class: Class::Attack,
        what,
        expected,
        control: Control::Root,
    };
    Row { info, run }
}

const fn benign(name: &'static str, axis: Axis, what: &'static str, run: Run) -> Row {
    let info = ProbeInfo {
        name,
        axis,
        class: Class::Benign,
        what,
        expected: &[],
        control: Control::Anyone,
    };
    Row { info, run }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    attack("read-sibling-file", Axis::Filesystem, DENIED, "reads a file of a sibling that is open to every account", attempts::read_sibling),
    attack("list-sibling-folder", Axis::Filesystem, DENIED, "lists the home of a sibling", attempts::list_sibling),
    attack("write-sibling-file", Axis::Filesystem, DENIED, "opens a file of a sibling for writing", attempts::write_sibling),
    attack("create-file-at-sibling", Axis::Filesystem, DENIED, "creates a file in a folder of a sibling", attempts::create_at_sibling),
    attack("rename-sibling-folder", Axis::Filesystem, DENIED, "renames a folder of a sibling and back", attempts::rename_sibling),
    attack("link-sibling-file", Axis::Filesystem, DENIED, "makes a hard link to a file of a sibling", attempts::link_sibling),
    attack("read-state", Axis::Filesystem, DENIED, "reads the configuration or the ledger of the daemon", attempts::read_state),
    attack("rename-own-workspace", Axis::Filesystem, DENIED, "renames its own workspace, which rules name, and back", attempts::rename_workspace),
    attack("change-sudoers", Axis::Accounts, DENIED, "opens /etc/sudoers for writing", attempts::write_sudoers),
    attack("signal-sibling", Axis::Processes, REFUSED, "sends nothing, as signal 0, to a process of a sibling", attempts::signal_sibling),
    attack("trace-sibling", Axis::Processes, TOOL_REFUSED, "reads the environment of a process of a sibling", attempts::environment_of_sibling),
    attack("start-launchd-job", Axis::Processes, TOOL_REFUSED, "has launchd start something that outlives the job", attempts::submit_to_launchd),
    attack("connect-sibling-socket", Axis::Ipc, DENIED, "connects to a Unix socket of a sibling", attempts::connect_sibling),
    attack("connect-control-socket", Axis::Ipc, DENIED, "connects to the control socket of the daemon", attempts::connect_control),
    attack("connect-elsewhere", Axis::Network, DENIED, "connects a UDP socket, which sends nothing, to another host", attempts::connect_elsewhere),
    attack("open-icmp-socket", Axis::Network, DENIED, "opens a socket for ICMP", attempts::icmp_socket),
    benign("write-own-folders", Axis::Filesystem, "writes and reads back a file in each of its own folders", attempts::write_own),
    benign("rename-across-own-folders", Axis::Filesystem, "moves a file from TMPDIR to its working folder", attempts::rename_own),
    benign("find-own-folder", Axis::Filesystem, "asks for the path of its working folder, as getcwd does", attempts::working_folder),
    benign("use-null-and-random", Axis::Filesystem, "writes /dev/null and reads /dev/urandom", attempts::devices),
    benign("run-shell", Axis::Processes, "runs a shell and reads its exit code", attempts::run_shell),
    benign("signal-own-child", Axis::Processes, "kills and reaps a child", attempts::kill_child),
    benign("open-terminal", Axis::Processes, "opens a pseudo-terminal", attempts::terminal),
    benign("unix-socket-in-tmp", Axis::Ipc, "listens on a Unix socket in TMPDIR and connects to it", attempts::own_socket),
    benign("loopback", Axis::Network, "listens on its own port of 127.0.0.1 and connects to it", attempts::loopback),
];

/// What each probe claims, in the order in which they run.
pub fn table() -> Vec<ProbeInfo> {
    ROWS.iter().map(|row| row.info).collect()
}

/// Runs every probe in this process and reports on each.
pub fn attempt_all(outside: &Outside) -> Vec<Report> {
    let report = |row: &Row| {
        let attempt = match (row.run)(outside) {
            Ok(()) => Attempt::succeeded(row.info.what),
            Err(Refusal::Nothing(why)) => Attempt::not_applicable(why),
            Err(Refusal::Tool(status)) => Attempt::Refused {
                status,
                detail: row.info.what.to_owned(),
            },
            Err(Refusal::Call(error)) => match error.raw_os_error() {
                Some(errno) => Attempt::failed(errno, row.info.what),
                None => Attempt::failed(0, format!("{}: {error}", row.info.what)),
            },
        };
        Report::new(&row.info, attempt)
    };
    ROWS.iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_probe_has_a_name_of_its_own_and_every_attack_an_expected_end() {
        let table = table();
        let names: BTreeSet<_> = table.iter().map(|info| info.name).collect();
        assert_eq!(names.len(), table.len());
        for info in table {
            assert_eq!(
                info.class == Class::Attack,
                !info.expected.is_empty(),
                "{}",
                info.name
            );
        }
    }

    #[test]
    fn attacks_work_unconfined_and_leave_everything_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        let stage = Stage::set(&dir).unwrap();
        let reports = attempt_all(stage.outside());
        let of = |name: &str| reports.iter().find(|report| report.name == name).unwrap();
        for name in [
            "read-sibling-file",
            "list-sibling-folder",
            "write-sibling-file",
            "create-file-at-sibling",
            "rename-sibling-folder",
            "link-sibling-file",
            "read-state",
            "rename-own-workspace",
            "signal-sibling",
            "connect-sibling-socket",
        ] {
            assert_eq!(of(name).verdict, super::super::Verdict::Broken, "{:?}", of(name));
        }
        for info in table().iter().filter(|info| info.class == Class::Benign) {
            assert_eq!(
                of(info.name).verdict,
                super::super::Verdict::Works,
                "{:?}",
                of(info.name)
            );
        }
        let secret = stage.outside().sibling.join("home/secret");
        assert!(secret.exists() && !stage.outside().sibling.join("home/made").exists());
        let root = stage.outside().sibling.clone();
        drop(stage);
        assert!(!root.exists());
    }
}
