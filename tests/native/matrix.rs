//! Every point of a native job's life, and who is killed there: the dispatcher, the warden, or both, with a neighbour that
//! runs. After the next start nothing is left, and every job has ended once. Each test prints its rows.

use std::process::Stdio;
use std::time::Duration;

use ephemerd::control::Story;
use ephemerd::job::ledger::Ledger;
use ephemerd::job::{JobId, Outcome};

use crate::harness::journal::{A_WHILE, FOR_EVER, Journal, When};
use crate::harness::small::Small;
use crate::harness::{Daemon, Site, files_of_accounts, processes_of, wait_for, wait_within};

/// What a job writes in its life, in order.
const LIFE: [&str; 11] = [
    "recorded",
    "slot",
    "preparing",
    "acquires workspace",
    "launching",
    "acquires processes",
    "running",
    "scrubbing",
    "released processes",
    "released workspace",
    "done",
];

/// Leaves what it can: a process that does not listen, and files where every account may make some.
const JOB: &str = "for place in . /tmp /var/tmp /dev/shm; do touch $place/left || true; done; (trap '' TERM; setsid sleep 1000 &) ; exit 4";

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Dispatcher,
    Warden,
    Both,
}

/// One cell of the matrix: a daemon that is killed after a job's `n`th write, and the next that must find everything. Returns
/// that one, and how the job ended.
fn killed_after(mut daemon: Daemon, n: usize, (who, when): (Who, When)) -> (Daemon, Outcome) {
    let point = format!("{who:?} {when:?} after `{}`", LIFE[n - 1]);
    let neighbour =
        daemon.script("trap '' TERM; echo ready; until [ -e go ]; do sleep 0.05; done; echo over; exit 6");
    daemon.wait_for_output(&neighbour, "ready");
    // Its word may be there before the ledger's.
    wait_for("a neighbour that runs", || {
        (daemon.story(&neighbour).job.state == "running").then_some(())
    });
    let ledger = daemon.site().data_dir.join("state/ledger.db");
    let journal = Journal(ledger.clone());
    let before = Journal::written(&journal.open()).len();
    // A dispatcher that notices that its warden is gone must be able to go on.
    let turns = if who == Who::Warden { A_WHILE } else { FOR_EVER };
    journal.stop_after(Some(before + n), turns);
    // It is answered or not, as things go.
    let mut submit = daemon
        .site()
        .ephemerd(&["submit", "--repo", "acme/app", "--", "sh", "-c", JOB])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    journal.wait_for_write(&point, before + n, when);
    let as_it_was = || {
        let written = Journal::written(&journal.open()).split_off(before);
        assert_eq!(written, LIFE[..n], "killed at that point and no other");
        journal.stop_after(None, 0);
    };
    let daemon = match who {
        Who::Dispatcher => {
            daemon.kill_dispatcher_and(as_it_was);
            submit.wait().unwrap();
            // It has not noticed.
            assert_eq!(daemon.story(&neighbour).job.state, "running", "{point}");
            std::fs::write(daemon.work(&neighbour).join("go"), "").unwrap();
            daemon
        }
        Who::Warden | Who::Both => {
            let site = match who {
                Who::Warden => daemon.kill_warden(),
                _ => daemon.kill(),
            };
            submit.wait().unwrap();
            match who {
                Who::Warden => journal.stop_after(None, 0),
                _ => as_it_was(),
            }
            for uid in site.family.uids() {
                wait_for(&format!("{point}: the end of what ran"), || {
                    processes_of(uid).is_empty().then_some(())
                });
            }
            Daemon::start_at(site)
        }
    };
    let outcome = assert_closed(&daemon, &point, (&neighbour, who));
    (daemon, outcome)
}

/// Fails when anything is left; how the newest job ended.
#[track_caller]
fn assert_closed(daemon: &Daemon, point: &str, (neighbour, who): (&JobId, Who)) -> Outcome {
    let site: &Site = daemon.site();
    let ledger = Ledger::open(&site.data_dir.join("state/ledger.db")).unwrap();
    let newest = ledger.jobs(ephemerd::job::ledger::Listing::Newest(1)).unwrap();
    for job in [&newest[0].id, neighbour] {
        daemon.ended(job);
    }
    assert_eq!(ledger.unfinished().unwrap(), [], "{point}");
    assert_eq!(ledger.quarantined().unwrap(), [], "{point}");
    assert_eq!(
        files_of_accounts(&site.family.uids()),
        Vec::<String>::new(),
        "{point}"
    );
    site.assert_clean();
    let newest = ledger.jobs(ephemerd::job::ledger::Listing::Newest(1)).unwrap();
    for job in [&newest[0].id, neighbour] {
        let Story {
            job: row,
            transitions,
            ..
        } = daemon.story(job);
        assert_eq!(row.clean, Some(true), "{point}: {row:?}");
        let ends = transitions.iter().filter(|made| made.state == "done").count();
        assert_eq!(ends, 1, "{point}: {transitions:?}");
    }
    let ended = daemon.outcome(neighbour);
    match who {
        Who::Dispatcher => assert_eq!(
            (ended, daemon.output(neighbour).as_str()),
            (Outcome::Exited { code: 6 }, "ready\nover\n"),
            "{point}"
        ),
        Who::Warden | Who::Both => assert!(matches!(ended, Outcome::Failed { .. }), "{point}: {ended}"),
    }
    // Every slot is of use.
    let next = daemon.script("true");
    assert!(daemon.outcome(&next).is_success(), "{point}");
    newest[0].outcome.clone().unwrap()
}

/// A row for each point.
fn row_of_the_matrix(who: Who, when: When) {
    let mut daemon = Daemon::start("");
    let journal = Journal::begin(daemon.site().data_dir.join("state/ledger.db"));
    assert_eq!(daemon.outcome(&daemon.script(JOB)), Outcome::Exited { code: 4 });
    let life = Journal::written(&journal.open());
    assert_eq!(life, LIFE, "there is no point that is not tried");
    // Killed right before a write, it is killed before the last.
    let last = LIFE.len() - usize::from(when == When::Late);
    for n in 1..=last {
        let (next, outcome) = killed_after(daemon, n, (who, when));
        daemon = next;
        if who == Who::Dispatcher && n % 2 == 0 {
            // Whose dispatcher is killed again and again waits longer each time, and then has no other.
            daemon = Daemon::start_at(daemon.stop());
        }
        println!(
            "| {who:?} | {when:?} | {} | clean, ended once: {outcome} |",
            LIFE[n - 1]
        );
        let is_own = outcome == Outcome::Exited { code: 4 };
        let is_known = n > LIFE.iter().position(|&what| what == "scrubbing").unwrap();
        let is_lost = matches!(outcome, Outcome::Failed { .. });
        assert!(
            is_own || is_lost && who != Who::Dispatcher && !is_known,
            "{outcome}"
        );
    }
}

/// One point at which the disk becomes full, and has room again some time later. Returns the daemon, how the job ended, and
/// whether that took another start.
fn full_after(daemon: Daemon, disk: &Small, n: usize) -> (Daemon, Outcome, bool) {
    let point = format!("full after `{}`", LIFE[n - 1]);
    let journal = Journal(daemon.site().data_dir.join("state/ledger.db"));
    let before = Journal::written(&journal.open()).len();
    journal.stop_after(Some(before + n), A_WHILE);
    let mut submit = daemon
        .site()
        .ephemerd(&["submit", "--repo", "acme/app", "--", "sh", "-c", JOB])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    journal.wait_for_write(&point, before + n, When::Late);
    let filler = disk.fill();
    submit.wait().unwrap();
    let ledger = Ledger::open(&journal.0).unwrap();
    let newest = || {
        ledger
            .jobs(ephemerd::job::ledger::Listing::Newest(1))
            .unwrap()
            .remove(0)
    };
    // As far as it comes: to its end, or to a slot that nobody watches any more.
    wait_within(Duration::from_secs(40), &point, || {
        let is_out = daemon.log().contains("slot out of use");
        (newest().outcome.is_some() || is_out).then_some(())
    });
    drop(filler);
    let is_out = newest().outcome.is_none();
    drop(ledger);
    let daemon = if is_out {
        Daemon::start_at(daemon.stop())
    } else {
        daemon
    };
    journal.stop_after(None, 0);
    let row = Ledger::open(&journal.0).unwrap();
    let row = row
        .jobs(ephemerd::job::ledger::Listing::Newest(1))
        .unwrap()
        .remove(0);
    assert_eq!(row.clean, Some(true), "{point}: {row:?}");
    daemon.site().assert_clean();
    assert_eq!(
        files_of_accounts(&daemon.site().family.uids()),
        Vec::<String>::new(),
        "{point}"
    );
    let next = wait_for(&format!("{point}: a slot that is of use"), || {
        let next = daemon.script("true");
        daemon.outcome(&next).is_success().then_some(next)
    });
    assert_eq!(daemon.ended(&next).job.clean, Some(true));
    (daemon, row.outcome.unwrap(), is_out)
}

#[test]
fn heavy_a_disk_that_is_full_after_any_write_leaves_nothing_and_every_job_ended_once() {
    let mut site = Site::new("");
    let disk = Small::at(site.top.join("epht-full"), 64);
    site.data_dir = disk.0.join("data");
    site.configure("");
    let text = std::fs::read_to_string(&site.config).unwrap();
    let text = text.replace("min_free_disk = \"64MiB\"", "min_free_disk = \"1MiB\"");
    std::fs::write(&site.config, text).unwrap();
    let mut daemon = Daemon::start_at(site);
    let _journal = Journal::begin(daemon.site().data_dir.join("state/ledger.db"));
    for n in 1..LIFE.len() {
        let (next, outcome, is_out) = full_after(daemon, &disk, n);
        daemon = next;
        let how = if is_out {
            "after another start"
        } else {
            "by itself"
        };
        println!("| disk full | {} | clean {how}: {outcome} |", LIFE[n - 1]);
    }
    let _site = daemon.stop();
    drop(disk);
}

#[test]
fn heavy_a_dispatcher_that_is_killed_right_after_any_write_leaves_nothing_and_every_job_ended_once() {
    row_of_the_matrix(Who::Dispatcher, When::Early);
}

#[test]
fn heavy_a_dispatcher_that_is_killed_right_before_any_write_leaves_nothing_and_every_job_ended_once() {
    row_of_the_matrix(Who::Dispatcher, When::Late);
}

#[test]
fn heavy_a_warden_that_is_killed_right_after_any_write_leaves_nothing_and_every_job_ended_once() {
    row_of_the_matrix(Who::Warden, When::Early);
}

#[test]
fn heavy_a_warden_that_is_killed_right_before_any_write_leaves_nothing_and_every_job_ended_once() {
    row_of_the_matrix(Who::Warden, When::Late);
}

#[test]
fn heavy_both_killed_right_after_any_write_leave_nothing_and_every_job_ended_once() {
    row_of_the_matrix(Who::Both, When::Early);
}

#[test]
fn heavy_both_killed_right_before_any_write_leave_nothing_and_every_job_ended_once() {
    row_of_the_matrix(Who::Both, When::Late);
}
