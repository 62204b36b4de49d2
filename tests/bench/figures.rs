//! What the benchmarks share: samples, percentiles, and the peer they are compared with.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Times of one thing, in the order they were taken.
#[derive(Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Takes one more.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that `percent` of the samples do not exceed, in milliseconds.
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted.get((sorted.len() * percent / 100).min(sorted.len() - 1)).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// bubblewrap with the profile of a CI job: read-only root, private /tmp, own pid, ipc and uts namespaces.
pub const BWRAP: [&str; 13] = [
    "bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--unshare-pid",
    "--unshare-ipc", "--unshare-uts",
];

/// Runs a program to its end and returns how long that took.
pub fn timed(args: &[&str]) -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a benchmark starts the programs it compares with")]
    let mut command = Command::new(args[0]);
    command.args(&args[1..]).stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status().expect("the program starts");
    assert!(status.success(), "{args:?}: {status}");
    begin.elapsed()
}
