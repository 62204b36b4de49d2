//! What must keep working.

use super::{Row, benign};

pub(super) const BENIGN_FILESYSTEM: &[Row] = &[
    benign(
        "use-own-folders",
        "Writes, reads and removes a file in its home, tmp and work folders.",
    ),
    benign(
        "rename-across-folders",
        "Renames a file from its tmp folder into its work folder.",
    ),
    benign(
        "link-in-workspace",
        "Makes a folder, a symbolic link and a hard link in its workspace.",
    ),
    benign("use-tmp", "Writes and removes a file in /tmp."),
    benign("read-accounts", "Looks up its own account's name."),
    benign(
        "read-proc-self",
        "Reads its own status, maps and environment in /proc.",
    ),
    benign("write-dev-null", "Writes to /dev/null."),
    benign("read-dev-urandom", "Reads from /dev/urandom."),
    benign("reopen-stdout", "Opens /dev/stdout for writing."),
];

pub(super) const BENIGN_PROCESSES: &[Row] = &[
    benign("run-shell", "Runs /bin/sh and sees its exit code."),
    benign("signal-own-child", "Kills a child of its own and reaps it."),
    benign("start-thread", "Starts a thread and joins it."),
    benign("open-terminal", "Opens a pseudo-terminal and writes through it."),
    benign(
        "run-made-code",
        "Makes code in memory, makes it executable and calls it, as JIT compilers do.",
    ),
    benign("watch-files", "Watches a folder with inotify."),
    benign("count-events", "Signals itself through an eventfd."),
    benign("memory-file", "Writes a memfd and reads it back."),
    benign("wait-on-timer", "Waits for a timerfd."),
];

pub(super) const BENIGN_IPC: &[Row] = &[
    benign(
        "unix-socket-in-tmp",
        "Listens on and connects to a Unix socket in its tmp folder.",
    ),
    benign(
        "own-abstract-socket",
        "Listens on and connects to an abstract Unix socket of its own.",
    ),
    benign("own-sysv-shm", "Makes, attaches and removes a System V segment."),
    benign("own-posix-shm", "Makes, reads and removes a file in /dev/shm."),
];

pub(super) const BENIGN_NETWORK: &[Row] = &[
    benign("own-loopback", "Listens on and connects to a port on loopback."),
    benign("resolve-localhost", "Resolves localhost."),
];
