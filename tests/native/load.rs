//! Many jobs at once and many in a row: all of them work, and nothing adds up.

use std::fs;

use ephemerd::control::SlotNow;
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

/// What a daemon has of the host's at one moment.
#[derive(Debug)]
struct Holds {
    daemon_kib: u64,
    warden_kib: u64,
    ledger_kib: u64,
    files: usize,
}

impl Holds {
    fn of(daemon: &Daemon) -> Self {
        let resident_kib = |pid: i32| {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let data_dir = &daemon.site().data_dir;
        let ledger = ["", "-wal", "-shm"].map(|end| data_dir.join(format!("state/ledger.db{end}")));
        let byte: u64 = ledger
            .iter()
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum();
        Self {
            daemon_kib: resident_kib(daemon.pid()),
            warden_kib: resident_kib(daemon.warden()),
            ledger_kib: byte >> 10,
            // One log a job is what is meant to stay.
            files: walkdir::WalkDir::new(data_dir)
                .into_iter()
                .flatten()
                .filter(|entry| !entry.path().starts_with(data_dir.join("logs")))
                .count(),
        }
    }
}

/// Runs so many jobs of nothing, and returns how long each was cleared away, in milliseconds.
fn nothing(daemon: &Daemon, count: usize) -> Vec<u64> {
    let mut scrubs = Vec::new();
    // Some at a time, as a queue has them.
    for _ in 0..count / 50 {
        let jobs: Vec<_> = (0..50).map(|_| daemon.submit("acme/app", &["true"])).collect();
        for job in &jobs {
            let row = daemon.ended(job).job;
            assert_eq!(
                (row.outcome, row.clean),
                (Some(Outcome::Exited { code: 0 }), Some(true))
            );
            scrubs.push(row.finished_ms.unwrap() - row.exited_ms.unwrap());
        }
    }
    scrubs
}

#[test]
#[ignore = "takes many minutes: scripts/soak.sh life"]
fn ten_thousand_jobs_in_one_life_of_a_daemon_add_nothing_up() {
    let daemon = Daemon::start("");
    let mut scrubs = nothing(&daemon, 1000);
    let (first, census) = (Holds::of(&daemon), Census::take(&daemon));
    scrubs.extend(nothing(&daemon, 8000));
    work(&daemon, 200);
    scrubs.extend(nothing(&daemon, 1000));
    let last = Holds::of(&daemon);
    assert_same(&census, &daemon);
    assert!(daemon.status().slots.iter().all(|slot| slot.now == SlotNow::Free));
    scrubs.sort_unstable();
    let p95_ms = scrubs[scrubs.len() * 95 / 100];
    println!(
        "RESULT life jobs={} work=200 scrub_p95_ms={p95_ms} daemon_kib={}/{} warden_kib={}/{} ledger_kib={}/{} files={}/{} quarantined=0",
        scrubs.len(),
        first.daemon_kib,
        last.daemon_kib,
        first.warden_kib,
        last.warden_kib,
        first.ledger_kib,
        last.ledger_kib,
        first.files,
        last.files,
    );
    // What is kept of each job is in the ledger; of everything else there is as much as after the first thousand.
    assert!(last.daemon_kib < first.daemon_kib * 5 / 4, "{first:?} {last:?}");
    assert!(last.warden_kib < first.warden_kib * 5 / 4, "{first:?} {last:?}");
    assert!(last.ledger_kib < first.ledger_kib * 12, "{first:?} {last:?}");
    assert_eq!(last.files, first.files);
}
