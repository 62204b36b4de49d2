//! Greedy jobs beside a neighbour: how much longer the neighbour takes than alone, in the same run. It computes on one
//! processor, so that a fair share of two is all it could use.
//!
//! Needs root and the accounts of `ephemerd host setup`; `scripts/bench.sh greedy` sees to them.

#[path = "daemon.rs"]
mod daemon;

use std::fmt::Write;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use daemon::Daemon;
use ephemerd::control::Ask;
use ephemerd::control::client::ask;
use ephemerd::job::Outcome;

/// Each is measured this often, and the least counts.
const ROUNDS: usize = 3;

/// Does as much harm as it can, each in its way, and does not end by itself.
const GREEDY: [(&str, &str); 4] = [
    (
        "memory",
        "echo begun; while :; do perl -e 'my @a; push @a, \"x\" x (8 << 20) for 1 .. 40'; done",
    ),
    ("processes", "echo begun; exec perl -e 'while (1) { fork }'"),
    (
        "files",
        "echo begun; exec perl -e 'my @f; while (1) { open(my $f, \"<\", \"/dev/null\") and push @f, $f }'",
    ),
    (
        "processor",
        "echo begun; for i in $(seq 32); do (while :; do :; done) & done; wait",
    ),
];

/// Computes for a second or two.
const NEIGHBOUR: &str = "perl -e 'my $n = 0; $n += $_ % 7 for 1 .. 60_000_000; print $n'";

fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("UTF-8");
    let daemon = Daemon::start(
        &dir,
        "min_free_disk = \"64MiB\"\n[native]\nslots = 2\n[native.limits]\nmemory = \"1GiB\"\nprocesses = 256\n\
         open_files = 1024\n[egress]\nmode = \"offline\"\n[trust.repos]\n\"bench/*\" = \"native\"\n",
    );
    let least = |beside: Option<&str>| {
        (0..ROUNDS)
            .map(|_| neighbour(&daemon, &dir, beside))
            .min()
            .expect("a round")
    };
    let alone = least(None);
    let mut figures = String::new();
    println!("beside       neighbour   to alone");
    println!("{:<10} {:>8} ms", "nobody", alone.as_millis());
    for (name, script) in GREEDY {
        let took = least(Some(script));
        let ratio = took.as_secs_f64() / alone.as_secs_f64();
        println!("{name:<10} {:>8} ms {ratio:>8.2}", took.as_millis());
        // Writing to a string does not fail.
        let _ = write!(figures, " {name}={ratio:.2}");
    }
    drop(daemon);
    println!("RESULT greedy n={ROUNDS} alone_ms={}{figures}", alone.as_millis());
}

/// How long a neighbour's command runs, beside a greedy job if there is one, which is ended after it.
fn neighbour(daemon: &Daemon, dir: &Utf8Path, beside: Option<&str>) -> Duration {
    let greedy = beside.map(|script| {
        let job = daemon.submit("bench/app", &["sh", "-c", script]);
        let log = dir.join(format!("data/logs/{job}.log"));
        while !std::fs::read_to_string(&log).is_ok_and(|said| said.contains("begun")) {
            std::thread::yield_now();
        }
        job
    });
    let row = daemon.ended(&daemon.submit("bench/app", &["sh", "-c", NEIGHBOUR]));
    assert_eq!(row.outcome, Some(Outcome::Exited { code: 0 }), "the neighbour");
    if let Some(job) = greedy {
        // One that has ended already is refused.
        let _ = ask(&daemon.socket, &Ask::Cancel { job: job.clone() });
        daemon.ended(&job);
    }
    let at = |moment: Option<u64>| moment.expect("a job that ran");
    Duration::from_millis(at(row.exited_ms) - at(row.started_ms))
}
