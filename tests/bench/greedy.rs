//! Greedy jobs beside a neighbour: how much longer the neighbour takes than alone, in the same run. It computes on one
//! processor, so that a fair share of two is all it could use.
//!
//! Needs root and the accounts of `ephemerd host setup`; `scripts/bench.sh greedy` sees to them.

use std::fmt::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::control::client::ask;
use ephemerd::control::{Answer, Ask};
use ephemerd::job::ledger::JobRow;
use ephemerd::job::{JobId, JobSpec, Origin, Outcome};

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
    let file = dir.join("ephemerd.toml");
    let text = format!(
        "[host]\ndata_dir = \"{dir}/data\"\nmanifest = \"none\"\nmin_free_disk = \"64MiB\"\n[native]\nslots = 2\n[native.limits]\n\
         memory = \"1GiB\"\nprocesses = 256\nopen_files = 1024\n[egress]\nmode = \"offline\"\n[log]\nlevel = \"error\"\n[trust.repos]\n\"bench/*\" = \"native\"\n"
    );
    std::fs::write(&file, text).expect("a configuration");
    let mut daemon = start(&file);
    let socket = dir.join("data/run/ephemerd.sock");
    while ask(&socket, &Ask::Status {}).is_err() {
        assert!(
            daemon.try_wait().expect("a child").is_none(),
            "the daemon has ended"
        );
        std::thread::yield_now();
    }
    let least = |beside: Option<&str>| {
        (0..ROUNDS)
            .map(|_| neighbour(&socket, &dir, beside))
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
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    daemon.wait().expect("the end of the daemon");
    println!("RESULT greedy n={ROUNDS} alone_ms={}{figures}", alone.as_millis());
}

/// How long a neighbour's command runs, beside a greedy job if there is one, which is ended after it.
fn neighbour(socket: &Utf8Path, dir: &Utf8Path, beside: Option<&str>) -> Duration {
    let greedy = beside.map(|script| {
        let job = submit(socket, script);
        let log = dir.join(format!("data/logs/{job}.log"));
        while !std::fs::read_to_string(&log).is_ok_and(|said| said.contains("begun")) {
            std::thread::yield_now();
        }
        job
    });
    let row = ended(socket, &submit(socket, NEIGHBOUR));
    assert_eq!(row.outcome, Some(Outcome::Exited { code: 0 }), "the neighbour");
    if let Some(job) = greedy {
        // One that has ended already is refused.
        let _ = ask(socket, &Ask::Cancel { job: job.clone() });
        ended(socket, &job);
    }
    let at = |moment: Option<u64>| moment.expect("a job that ran");
    Duration::from_millis(at(row.exited_ms) - at(row.started_ms))
}

fn submit(socket: &Utf8Path, script: &str) -> JobId {
    let spec = JobSpec {
        origin: Origin::own(&"bench/app".parse().expect("a repository")),
        command: ["sh", "-c", script].map(str::to_owned).into(),
        env: [].into(),
        timeout_s: None,
    };
    match ask(socket, &Ask::Submit { spec }).expect("an answer").0 {
        Answer::Submitted { job, .. } => job,
        other => panic!("{other:?}"),
    }
}

fn ended(socket: &Utf8Path, job: &JobId) -> JobRow {
    match ask(socket, &Ask::Wait { job: job.clone() }).expect("an answer").0 {
        Answer::Story(story) => story.job,
        other => panic!("{other:?}"),
    }
}

fn start(config: &Utf8Path) -> Child {
    #[expect(
        clippy::disallowed_methods,
        reason = "a benchmark starts the programs it measures"
    )]
    let mut command = Command::new(env!("CARGO_BIN_EXE_ephemerd"));
    command
        .args(["--config", config.as_str(), "run"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the daemon starts")
}
