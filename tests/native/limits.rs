//! What greedy jobs can do to their neighbours and to the host: nothing but wait. The host is a small file system here.

use std::fs;

use ephemerd::job::{JobId, Outcome};

use crate::harness::small::Small;
use crate::harness::{Daemon, Site, out, wait_for};

/// A daemon whose data is on a file system of 256 MiB, of which the host keeps 64, with room for what a job may use.
fn small(more: &str) -> (Daemon, Small) {
    let mut site = Site::new("");
    let disk = Small::at(site.top.join("epht-full"), 256);
    site.data_dir = disk.0.join("data");
    site.configure(more);
    (Daemon::start_at(site), disk)
}

/// Why a job waits, as its story says.
fn why_waiting(daemon: &Daemon, job: &JobId) -> Option<String> {
    let story = daemon.story(job);
    assert_eq!(story.job.outcome, None, "{story:?}");
    let mut reasons = story.transitions.into_iter().filter_map(|made| made.reason);
    reasons.next_back().filter(|why| why.contains("are free"))
}

#[test]
fn no_job_starts_on_a_host_without_room_and_every_one_does_when_there_is_room_again() {
    let (daemon, disk) = small("");
    let filler = disk.0.join("filler");
    fs::write(&filler, vec![1; 200 << 20]).unwrap();
    let jobs = [daemon.script("true"), daemon.script("exit 3")];
    for job in &jobs {
        let why = wait_for("a reason", || why_waiting(&daemon, job));
        assert!(why.contains("this host keeps 64 MiB"), "{why}");
    }
    let status = out(&daemon.cli(&["status"]));
    assert!(status.contains("no job starts: disk: "), "{status}");
    fs::remove_file(&filler).unwrap();
    assert_eq!(daemon.outcome(&jobs[0]), Outcome::Exited { code: 0 });
    assert_eq!(daemon.outcome(&jobs[1]), Outcome::Exited { code: 3 });
    let status = out(&daemon.cli(&["status"]));
    assert!(!status.contains("no job starts"), "{status}");
    let _site = daemon.stop();
    drop(disk);
}

#[test]
fn a_job_that_fills_the_disk_is_stopped_before_its_own_limit_and_its_neighbour_goes_on() {
    let (daemon, disk) = small("");
    let neighbour = daemon.script(
        "echo begun; for i in $(seq 100000); do test -e go && break; sleep 0.1; done; echo x > mine && cat mine",
    );
    daemon.wait_for_output(&neighbour, "begun");
    let filler =
        daemon.script("head -c 32M /dev/zero > a; while :; do cat a >> b 2>/dev/null || sleep 0.1; done");
    let outcome = daemon.outcome(&filler);
    let Outcome::OverLimit { what } = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(what.contains("this job has most"), "{what}");
    fs::write(daemon.work(&neighbour).join("go"), "").unwrap();
    assert_eq!(daemon.outcome(&neighbour), Outcome::Exited { code: 0 });
    assert!(daemon.output(&neighbour).ends_with("x\n"));
    let _site = daemon.stop();
    drop(disk);
}

/// Does as much harm as it can, each in its way, and never ends by itself.
const GREEDY: [(&str, &str); 4] = [
    (
        "memory",
        "exec perl -e 'my @a; push @a, \"x\" x (8 << 20) while 1'",
    ),
    ("processes", "f() { f & f; }; while :; do f; done 2>/dev/null"),
    (
        "files",
        "exec python3 -c 'import os, time\nwhile True:\n  try: os.dup(0)\n  except OSError: time.sleep(0)'",
    ),
    (
        "processor",
        "for i in $(seq 32); do (while :; do :; done) & done; wait",
    ),
];

/// Forks, opens files and uses memory itself, all the while.
const NEIGHBOUR: &str = "for i in $(seq 20); do python3 -c 'x = bytearray(16 << 20); open(\"f\", \"w\").write(\"y\")' && cat f >/dev/null || exit 9; done; echo done";

#[test]
fn greedy_jobs_run_beside_a_neighbour_that_does_not_fail() {
    let limits = "[native.limits]\nmemory = \"512MiB\"\nprocesses = 256\nopen_files = 512\n";
    let daemon = Daemon::start(limits);
    for pair in GREEDY.chunks(2) {
        let greedy: Vec<_> = pair
            .iter()
            .map(|(name, script)| (name, daemon.script(script)))
            .collect();
        let neighbour = daemon.script(NEIGHBOUR);
        assert_eq!(daemon.outcome(&neighbour), Outcome::Exited { code: 0 });
        assert_eq!(daemon.output(&neighbour), "done\n");
        for (name, job) in greedy {
            if *name != "memory" {
                daemon.cli(&["cancel", job.as_str()]);
            }
            let story = daemon.ended(&job);
            assert_eq!(story.job.clean, Some(true), "{name}: {story:?}");
            let outcome = story.job.outcome.unwrap();
            let is_over = matches!(&outcome, Outcome::OverLimit { what } if what.starts_with("memory "));
            assert_eq!(is_over, *name == "memory", "{name}: {outcome}");
        }
    }
}

#[test]
fn a_job_stands_back_for_the_host_and_is_what_the_kernel_ends_first() {
    let daemon = Daemon::start("[native.limits]\nnice = 7\n");
    let job =
        daemon.script("nice; cat /proc/self/oom_score_adj; nice -n -5 true 2>/dev/null; nice -n 1 nice");
    assert_eq!(daemon.outcome(&job), Outcome::Exited { code: 0 });
    let output = daemon.output(&job);
    assert_eq!(output.lines().collect::<Vec<_>>(), ["7", "500", "8"]);
}
