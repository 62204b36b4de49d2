//! Many jobs at once and many in a row: all of them work, and nothing adds up.

use std::fs;

use ephemerd::job::{JobId, Outcome};

use crate::harness::{Census, Daemon, Family, Site};

/// Real work in small: writes a program, compiles or runs it, packs the result and unpacks it again.
const WORK: &str = r#"
set -e
mkdir -p src && i=0
while [ $i -lt 40 ]; do i=$((i+1)); echo "line $i of $EPHEMERD_JOB_ID" > src/$i.txt; done
tar -cf src.tar src && mkdir out && tar -xf src.tar -C out
cat out/src/*.txt | sort -u | wc -l > count
sha256sum src/*.txt | (cd out && sha256sum -c --quiet)
perl -e 'my @s = (1) x 200000; my $n = 0; for my $i (2 .. $#s) { next unless $s[$i]; $n++; for (my $j = $i * $i; $j <= $#s; $j += $i) { $s[$j] = 0 } } print "$n primes\n"'
test "$(cat count)" -eq 40
"#;

/// The script prints the job's own id as well, so that outputs cannot be mixed up unseen.
fn work(daemon: &Daemon, count: usize) {
    let jobs: Vec<JobId> = (0..count)
        .map(|index| {
            let script = format!("{WORK}\necho $EPHEMERD_JOB_ID");
            daemon.submit(&format!("acme/app{}", index % 3), &["sh", "-c", &script])
        })
        .collect();
    for job in &jobs {
        let story = daemon.ended(job);
        assert_eq!(
            story.job.outcome,
            Some(Outcome::Exited { code: 0 }),
            "{}",
            daemon.output(job)
        );
        assert_eq!(story.job.clean, Some(true));
        assert_eq!(daemon.output(job), format!("17984 primes\n{job}\n"));
    }
}

/// Jobs that all run at the same time, each seen in a slot of its own.
fn at_once(daemon: &Daemon, count: usize) {
    let jobs: Vec<_> = (0..count)
        .map(|_| daemon.script("echo ready; until [ -e go ]; do sleep 0.05; done"))
        .collect();
    for job in &jobs {
        daemon.wait_for_output(job, "ready");
    }
    let mut slots: Vec<_> = jobs.iter().map(|job| daemon.slot_of(job)).collect();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), count);
    for job in &jobs {
        fs::write(daemon.work(job).join("go"), "").unwrap();
    }
    assert!(jobs.iter().all(|job| daemon.outcome(job).is_success()));
}

/// Counts once more until the last job's connection is closed and its slot is free.
#[track_caller]
fn assert_same(before: &Census, daemon: &Daemon) {
    let mut after = Census::take(daemon);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while after != *before && std::time::Instant::now() < deadline {
        after = Census::take(daemon);
    }
    assert_eq!(after, *before);
}

#[test]
fn heavy_four_slots_do_the_work_of_sixteen_jobs() {
    let daemon = Daemon::start("");
    assert!(daemon.run("true").status.success());
    let before = Census::take(&daemon);
    at_once(&daemon, 4);
    work(&daemon, 16);
    assert_same(&before, &daemon);
}

#[test]
fn heavy_sixteen_slots_do_the_work_of_sixteen_jobs_at_once() {
    let site = Site::of(Family::take_large(), "[native]\nslots = 16\n");
    let daemon = Daemon::start_at(site);
    assert!(daemon.run("true").status.success());
    let before = Census::take(&daemon);
    at_once(&daemon, 16);
    work(&daemon, 16);
    assert_same(&before, &daemon);
}

#[test]
fn heavy_a_thousand_jobs_in_a_row_leave_nothing() {
    let daemon = Daemon::start("");
    // The first jobs make what stays: the ledger's files, the memory of the warden.
    (0..4)
        .map(|_| daemon.script("true"))
        .collect::<Vec<_>>()
        .iter()
        .for_each(|job| assert!(daemon.outcome(job).is_success()));
    let before = Census::take(&daemon);
    let jobs: Vec<_> = (0..1000).map(|_| daemon.submit("acme/app", &["true"])).collect();
    for job in &jobs {
        let row = daemon.ended(job).job;
        assert_eq!(
            (row.outcome, row.clean),
            (Some(Outcome::Exited { code: 0 }), Some(true)),
            "{job}"
        );
    }
    assert_same(&before, &daemon);
    let logs = daemon
        .site()
        .data_dir
        .join("logs")
        .read_dir_utf8()
        .unwrap()
        .count();
    assert_eq!(logs, 1004, "one log a job and nothing else");
}
