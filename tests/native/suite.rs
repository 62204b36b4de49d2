//! The escape suite as a list: what a job must not be able to do, and what shows for each item that it cannot.
//!
//! Probes run between two jobs at the same time, in both postures, for two repositories and for one (see
//! [`crate::escape`]); tests show what takes more than one process or a look from outside.

use std::collections::BTreeSet;

use ephemerd::probe::{Class, table};

/// One item: what it is, the probes about it, and the tests.
type Item = (&'static str, &'static [&'static str], &'static [&'static str]);

const SUITE: &[Item] = &[
    (
        "read a sibling's workspace",
        &[
            "read-sibling-file",
            "follow-symlink-to-sibling",
            "follow-proc-root-to-sibling",
        ],
        &[],
    ),
    ("list it", &["list-sibling-folder", "find-siblings"], &[]),
    ("stat in it by guess", &["stat-sibling-file"], &[]),
    (
        "write in it",
        &[
            "write-sibling-file",
            "truncate-sibling-file",
            "chmod-sibling-file",
            "plant-file-in-sibling",
        ],
        &[],
    ),
    ("rename in it", &["rename-sibling-file"], &[]),
    ("hard-link into it", &["hardlink-sibling-file"], &[]),
    ("symlink into it", &["plant-symlink-in-sibling"], &[]),
    (
        "rename an ancestor",
        &["rename-own-workspace", "rename-workspaces-folder"],
        &[],
    ),
    (
        "read or change the daemon's configuration, ledger, keys, logs",
        &["read-daemon-state", "write-daemon-state"],
        &[],
    ),
    (
        "connect to the control socket",
        &["connect-control-socket"],
        &["an_account_of_a_slot_is_refused_whatever_groups_it_is_in"],
    ),
    (
        "/proc/PID/environ",
        &["read-foreign-environ"],
        &["nothing_reaches_the_warden_or_the_first_process_of_a_sibling"],
    ),
    (
        "/proc/PID/cmdline",
        &["read-foreign-cmdline", "find-foreign-processes"],
        &[],
    ),
    ("/proc/PID/root", &["enter-foreign-root"], &[]),
    ("/proc/PID/cwd", &["enter-foreign-cwd"], &[]),
    ("/proc/PID/fd", &["list-foreign-descriptors"], &[]),
    ("/proc/PID/mem", &["open-foreign-memory"], &[]),
    (
        "signal",
        &[
            "signal-foreign-process",
            "open-foreign-pidfd",
            "renice-foreign-process",
        ],
        &[],
    ),
    ("ptrace", &["trace-process"], &[]),
    (
        "process_vm_readv",
        &["read-process-memory", "write-process-memory"],
        &[],
    ),
    ("pidfd_getfd", &["steal-descriptor"], &[]),
    (
        "abstract sockets of the sibling",
        &["connect-sibling-abstract-socket"],
        &[],
    ),
    ("sockets of the sibling", &["connect-sibling-socket"], &[]),
    ("System V IPC", &["attach-sibling-shm"], &[]),
    (
        "POSIX IPC",
        &["open-sibling-posix-shm", "open-sibling-message-queue"],
        &[],
    ),
    (
        "/tmp",
        &["read-host-tmp", "write-host-tmp"],
        &["files_in_shared_places_are_the_jobs_own_and_go_with_it"],
    ),
    (
        "/dev/shm",
        &["open-sibling-posix-shm"],
        &["files_in_shared_places_are_the_jobs_own_and_go_with_it"],
    ),
    (
        "/var/tmp",
        &["read-host-var-tmp"],
        &["files_in_shared_places_are_the_jobs_own_and_go_with_it"],
    ),
    (
        "setuid programs",
        &[
            "gain-root-by-setuid",
            "gain-new-privileges",
            "become-root",
            "hold-capabilities",
        ],
        &[],
    ),
    (
        "a new user namespace",
        &[
            "new-user-namespace",
            "clone-user-namespace",
            "clone3-user-namespace",
        ],
        &[],
    ),
    (
        "mount",
        &[
            "mount",
            "unmount",
            "open-filesystem",
            "move-mount",
            "change-mount",
            "pivot-root",
        ],
        &[],
    ),
    ("unshare", &["new-mount-namespace", "join-namespace"], &[]),
    ("chroot", &["change-root"], &[]),
    ("io_uring", &["io-uring"], &[]),
    ("keyctl", &["read-keyring", "add-key", "request-key"], &[]),
    ("bpf", &["bpf"], &[]),
    ("perf", &["perf-event"], &[]),
    ("ia32 system calls", &["ia32-system-call"], &[]),
    ("x32 system calls", &["x32-system-call"], &[]),
    (
        "TIOCSTI",
        &[
            "type-into-terminal",
            "type-into-inherited-terminal",
            "controlling-terminal",
        ],
        &["has_no_terminal_and_a_session_of_its_own"],
    ),
    (
        "inherited descriptors",
        &["inherited-descriptors"],
        &["descriptors_of_the_caller_do_not_reach_the_command"],
    ),
    (
        "a survivor that forked twice into a session of its own",
        &["survive-the-job"],
        &["a_process_that_forked_twice_into_a_session_of_its_own_is_gone"],
    ),
    (
        "a fork bomb",
        &["fork-bomb", "raise-process-limit"],
        &["a_fork_bomb_stays_inside_its_limit_while_a_neighbour_works"],
    ),
    (
        "kill -9 -1",
        &["signal-everyone"],
        &["killing_everything_kills_only_the_job_itself"],
    ),
    ("writing to the host's tool folders", &["write-tool-folders"], &[]),
    ("crontab and at", &["write-spool-folders"], &[]),
    (
        "core dumps into shared places",
        &["change-core-limit", "write-core-pattern"],
        &["a_crash_leaves_no_core_dump"],
    ),
    (
        "the same repository's other job",
        &[],
        &[
            "heavy_nothing_escapes_the_strict_posture",
            "heavy_nothing_escapes_the_standard_posture",
        ],
    ),
];

/// The sources of the tests named above.
const SOURCES: [&str; 4] = [
    include_str!("control.rs"),
    include_str!("escape.rs"),
    include_str!("exec.rs"),
    include_str!("hostile.rs"),
];

#[test]
fn every_item_of_the_escape_suite_has_a_probe_or_a_test() {
    let attacks: BTreeSet<_> = table()
        .iter()
        .filter(|info| info.class == Class::Attack)
        .map(|info| info.name)
        .collect();
    for (item, probes, tests) in SUITE {
        assert!(!probes.is_empty() || !tests.is_empty(), "nothing shows `{item}`");
        for probe in *probes {
            assert!(
                attacks.contains(probe),
                "`{item}` names the probe `{probe}`, which there is not"
            );
        }
        for test in *tests {
            let line = format!("fn {test}()");
            assert!(
                SOURCES.iter().any(|source| source.contains(&line)),
                "`{item}` names the test `{test}`, which there is not"
            );
        }
    }
}
