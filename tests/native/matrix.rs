//! Every point of a native job's life, and who is killed there: the dispatcher, the warden, or both, with a neighbour that
//! runs. After the next start nothing is left, and every job has ended once. Each test prints its rows.

use std::process::{Child, Stdio};
use std::time::Duration;

use ephemerd::control::{SlotNow, SlotReport, Story};
use ephemerd::job::ledger::Ledger;
use ephemerd::job::{JobId, Outcome};

use crate::harness::journal::{A_WHILE, FOR_EVER, Journal, When};
use crate::harness::small::{Failing, Small};
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

/// Has the job handed over, which is answered or not, as things go.
fn hand_over(daemon: &Daemon) -> Child {
    let mut submit = daemon
        .site()
        .ephemerd(&["submit", "--repo", "acme/app", "--", "sh", "-c", JOB]);
    let quiet = submit
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.spawn().unwrap()
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
    let mut submit = hand_over(&daemon);
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

/// One point at which the disk becomes full, and has room again some time later. Returns how the job ended, and whether its
/// slot was out of use meanwhile.
fn full_after(daemon: &Daemon, disk: &Small, n: usize) -> (Outcome, bool) {
    let point = format!("full after `{}`", LIFE[n - 1]);
    let journal = Journal(daemon.site().data_dir.join("state/ledger.db"));
    let before = Journal::written(&journal.open()).len();
    journal.stop_after(Some(before + n), A_WHILE);
    let mut submit = hand_over(daemon);
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
    // As far as it comes: to its end, or to a slot that is out of use.
    let out = || daemon.log().matches("slot out of use").count();
    let before = out();
    wait_within(Duration::from_secs(40), &point, || {
        (newest().outcome.is_some() || out() > before).then_some(())
    });
    drop(filler);
    let is_out = newest().outcome.is_none();
    // Once there is room again, everything comes to its end by itself.
    wait_within(Duration::from_secs(40), &point, || newest().outcome);
    drop(ledger);
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
    let is_free = |slot: &SlotReport| slot.now == SlotNow::Free;
    wait_within(Duration::from_secs(40), "slots that are of use", || {
        daemon.status().slots.iter().all(is_free).then_some(())
    });
    (row.outcome.unwrap(), is_out)
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
    let daemon = Daemon::start_at(site);
    let _journal = Journal::begin(daemon.site().data_dir.join("state/ledger.db"));
    for n in 1..LIFE.len() {
        let (outcome, is_out) = full_after(&daemon, &disk, n);
        let how = if is_out { "once there was room" } else { "at once" };
        println!("| disk full | {} | clean {how}: {outcome} |", LIFE[n - 1]);
    }
    let _site = daemon.stop();
    drop(disk);
}

/// One point at which the disk takes nothing more, until it is repaired and the daemon started again; how the job ended, if the
/// ledger has it still.
fn read_only_after(daemon: Daemon, disk: &Failing, n: usize) -> (Daemon, Option<Outcome>) {
    let point = format!("read-only after `{}`", LIFE[n - 1]);
    let journal = Journal(daemon.site().data_dir.join("state/ledger.db"));
    let before = Journal::written(&journal.open()).len();
    journal.stop_after(Some(before + n), A_WHILE);
    disk.sync();
    let mut submit = hand_over(&daemon);
    journal.wait_for_write(&point, before + n, When::Late);
    disk.fail();
    submit.wait().unwrap();
    wait_within(Duration::from_secs(40), &point, || {
        daemon.log().contains("slot out of use").then_some(())
    });
    // Nothing runs that nobody could write about.
    for uid in daemon.site().family.uids() {
        wait_for(&format!("{point}: the end of what ran"), || {
            processes_of(uid).is_empty().then_some(())
        });
    }
    let next = daemon.run("true");
    assert!(!next.status.success(), "{point}");
    let site = daemon.kill();
    disk.repair();
    let daemon = Daemon::start_at(site);
    journal.stop_after(None, 0);
    let ledger = Ledger::open(&journal.0).unwrap();
    assert_eq!(ledger.unfinished().unwrap(), [], "{point}");
    assert_eq!(ledger.quarantined().unwrap(), [], "{point}");
    let newest = ledger.jobs(ephemerd::job::ledger::Listing::Newest(1)).unwrap();
    let newest = newest.into_iter().next();
    assert!(
        newest.iter().all(|row| row.clean == Some(true)),
        "{point}: {newest:?}"
    );
    let uids = daemon.site().family.uids();
    assert_eq!(files_of_accounts(&uids), Vec::<String>::new(), "{point}");
    daemon.site().assert_clean();
    let next = daemon.script("true");
    assert!(daemon.outcome(&next).is_success(), "{point}");
    (daemon, newest.and_then(|row| row.outcome))
}

#[test]
fn heavy_a_disk_that_is_read_only_after_any_write_leaves_nothing_once_it_is_repaired() {
    let mut site = Site::new("");
    let disk = Failing::at(site.top.join("epht-full"), 128);
    site.data_dir = disk.place.join("data");
    site.configure("");
    let mut daemon = Daemon::start_at(site);
    let _journal = Journal::begin(daemon.site().data_dir.join("state/ledger.db"));
    for n in 1..LIFE.len() {
        let (next, outcome) = read_only_after(daemon, &disk, n);
        daemon = next;
        let how = outcome.map_or("not known any more".to_owned(), |outcome| outcome.to_string());
        println!(
            "| disk read-only | {} | clean after another start: {how} |",
            LIFE[n - 1]
        );
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
