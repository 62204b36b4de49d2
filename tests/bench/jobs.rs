//! Jobs: 500 no-op jobs through a running daemon with 4 slots, against `xargs -P4 bwrap` in the same run; and
//! the resident memory of the daemon, idle, before and after.
//!
//! Needs root and the accounts of `ephemerd host setup`; `scripts/bench.sh jobs` sees to both.

#[path = "figures.rs"]
mod figures;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use camino::Utf8Path;
use ephemerd::control::client::ask;
use ephemerd::control::{Answer, Ask};
use ephemerd::job::{JobId, JobSpec, Origin, Outcome, Repo};
use figures::{BWRAP, timed};

const JOBS: usize = 500;
/// Each side is measured this often, in turns.
const ROUNDS: usize = 3;

fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = Utf8Path::from_path(dir.path()).expect("UTF-8");
    let file = dir.join("ephemerd.toml");
    let text = format!(
        "[host]\ndata_dir = \"{dir}/data\"\nmanifest = \"none\"\n[native]\nslots = 4\n[egress]\nmode = \"open\"\n[log]\nlevel = \"error\"\n\
         [trust.repos]\n\"bench/*\" = \"native\"\n"
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
    let idle_before = resident_mib(daemon.id());
    let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        ours = ours.min(through_the_daemon(&socket));
        theirs = theirs.min(through_bwrap());
    }
    let idle_after = resident_mib(daemon.id());
    terminate(&mut daemon);
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
fn through_the_daemon(socket: &Utf8Path) -> f64 {
    let begin = Instant::now();
    let mut open = BTreeSet::new();
    for _ in 0..JOBS {
        match ask(socket, &Ask::Submit { spec: spec() }).expect("an answer").0 {
            Answer::Submitted { job, .. } => open.insert(job),
            other => panic!("{other:?}"),
        };
    }
    for job in &open {
        wait(socket, job);
    }
    begin.elapsed().as_secs_f64()
}

fn wait(socket: &Utf8Path, job: &JobId) {
    match ask(socket, &Ask::Wait { job: job.clone() }).expect("an answer").0 {
        Answer::Story(story) => {
            assert_eq!(
                (story.job.outcome, story.job.clean),
                (Some(Outcome::Exited { code: 0 }), Some(true))
            );
        }
        other => panic!("{other:?}"),
    }
}

fn through_bwrap() -> f64 {
    let command = format!("seq {JOBS} | xargs -P4 -I{{}} {} /bin/true", BWRAP.join(" "));
    timed(&["sh", "-c", &command]).as_secs_f64()
}

fn spec() -> JobSpec {
    let repo: Repo = "bench/jobs".parse().expect("a repository");
    let origin = Origin {
        repo: repo.clone(),
        event: "push".into(),
        head: Some(repo),
        branch: None,
        labels: vec![],
        actor: None,
    };
    JobSpec {
        origin,
        command: vec!["/bin/true".into()],
        env: Default::default(),
        timeout_s: None,
    }
}

fn start(config: &Utf8Path) -> Child {
    #[expect(
        clippy::disallowed_methods,
        reason = "a benchmark starts the program it measures"
    )]
    let mut command = Command::new(env!("CARGO_BIN_EXE_ephemerd"));
    command
        .args(["--config", config.as_str(), "run"])
        .stdin(Stdio::null())
        .spawn()
        .expect("the daemon starts")
}

fn terminate(daemon: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("the daemon lives");
    assert!(daemon.wait().expect("an end").success());
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
