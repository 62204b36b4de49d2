//! What the benchmarks share: the peer they are compared with, and the clock.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// bubblewrap with the profile of a CI job: read-only root, private /tmp, own pid, ipc and uts namespaces.
pub(crate) const BWRAP: [&str; 13] = [
    "bwrap",
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
    "--tmpfs",
    "/tmp",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
];

/// Runs a program to its end and returns how long that took.
pub(crate) fn timed(args: &[&str]) -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "a benchmark starts the programs it compares with"
    )]
    let mut command = Command::new(args[0]);
    command
        .args(&args[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status().expect("the program starts");
    assert!(status.success(), "{args:?}: {status}");
    begin.elapsed()
}
