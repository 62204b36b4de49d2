//! Jobs: 500 no-op jobs through a running daemon with 4 slots, against `xargs -P4 bwrap` in the same run; and
//! the resident memory of the daemon, idle, before and after.
//!
//! Needs root and the accounts of `ephemerd host setup`; `scripts/bench.sh jobs` sees to both.

#[path = "daemon.rs"]
mod daemon;
#[path = "figures.rs"]
mod figures;

use std::collections::BTreeSet;
use std::time::Instant;

use camino::Utf8Path;
use daemon::Daemon;
use ephemerd::job::Outcome;
use figures::{BWRAP, timed};

const JOBS: usize = 500;
/// Each side is measured this often, in turns.
const ROUNDS: usize = 3;

fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = Utf8Path::from_path(dir.path()).expect("UTF-8");
    let daemon = Daemon::start(
        dir,
        "[native]\nslots = 4\n[egress]\nmode = \"open\"\n[trust.repos]\n\"bench/*\" = \"native\"\n",
    );
    let idle_before = resident_mib(daemon.child.id());
    let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        ours = ours.min(through_the_daemon(&daemon));
        theirs = theirs.min(through_bwrap());
    }
    let idle_after = resident_mib(daemon.child.id());
    drop(daemon);
    let per_second = |seconds: f64| JOBS as f64 / seconds;
    println!("ours   {:6.0} jobs/s", per_second(ours));
    println!("bwrap  {:6.0} jobs/s", per_second(theirs));
    println!(
        "daemon and warden, resident: {idle_before:.1} MiB idle at first, {idle_after:.1} MiB idle after {} jobs",
        JOBS * ROUNDS
    );
    println!(
        "RESULT jobs n={JOBS} slots=4 ours_per_s={:.0} bwrap_per_s={:.0} ratio={:.2} idle_mib={idle_before:.1} idle_after_mib={idle_after:.1}",
        per_second(ours),
        per_second(theirs),
        theirs / ours
    );
}

/// Submits all jobs and waits until every one has ended well; returns the seconds that took.
fn through_the_daemon(daemon: &Daemon) -> f64 {
    let begin = Instant::now();
    let open: BTreeSet<_> = (0..JOBS)
        .map(|_| daemon.submit("bench/jobs", &["/bin/true"]))
        .collect();
    for job in &open {
        let row = daemon.ended(job);
        assert_eq!(
            (row.outcome, row.clean),
            (Some(Outcome::Exited { code: 0 }), Some(true))
        );
    }
    begin.elapsed().as_secs_f64()
}

fn through_bwrap() -> f64 {
    let command = format!("seq {JOBS} | xargs -P4 -I{{}} {} /bin/true", BWRAP.join(" "));
    timed(&["sh", "-c", &command]).as_secs_f64()
}

/// Resident memory of the daemon and its warden together, in MiB.
fn resident_mib(pid: u32) -> f64 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let all = std::iter::once(pid.to_string()).chain(children.split_whitespace().map(str::to_owned));
    all.map(|pid| resident_kib(&pid)).sum::<f64>() / 1024.0
}

fn resident_kib(pid: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or("0");
    line.split_whitespace()
        .next()
        .and_then(|kib| kib.parse().ok())
        .unwrap_or_default()
}
