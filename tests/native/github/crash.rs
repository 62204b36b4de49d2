//! A daemon that is killed at every point of a GitHub job's life: between any two writes to its ledger, as soon as the
//! one is there, and as late as before the next.
//!
//! ```text
//!   write n ─► committed ─► what it was written for is done ─► write n + 1 begins ─► never ends
//!                  └── killed: Early                                  └── killed: Late
//! ```

use std::ops::RangeInclusive;

use camino::Utf8PathBuf;
use ephemerd::job::ledger::Ledger;

use super::forge::{Forge, push};
use super::hub::faults::{Fault, Gate};
use super::hub::state::Phase;
use crate::harness::journal::{FOR_EVER, Journal, When};
use crate::harness::{Daemon, files_of_accounts, processes_of, wait_for};

/// What a job writes in its life, in order.
const LIFE: [&str; 15] = [
    "recorded",
    "runner named",
    "runner made",
    "slot",
    "preparing",
    "acquires workspace",
    "launching",
    "acquires processes",
    "running",
    "runner has job",
    "scrubbing",
    "released processes",
    "released workspace",
    "done",
    "runner gone",
];

/// Steps that leave what they can: a process, and files where every account may make some.
const STEPS: [&str; 2] = [
    "for place in . /tmp /var/tmp /dev/shm; do touch $place/left || true; done; (setsid sleep 1000 &)",
    "test -e left",
];

/// A job whose daemon is killed after its `n`th write, and whose next daemon must find everything.
fn killed_after(forge: &mut Forge, journal: &Journal, n: usize, when: When) {
    let point = format!("{when:?} after `{}`", LIFE[n - 1]);
    let before = Journal::written(&journal.open()).len();
    journal.stop_after(Some(before + n), FOR_EVER);
    let job = push(&forge.hub, &STEPS);
    journal.wait_for_write(&point, before + n, when);
    let site = forge.daemon.take().unwrap().kill();
    let written = Journal::written(&journal.open()).split_off(before);
    assert_eq!(written, LIFE[..n], "killed at that point and no other");
    journal.stop_after(None, 0);
    if (when, LIFE[n - 1]) == (When::Late, "runner named") {
        // The classic: it was made, and its number is known to nobody.
        assert_eq!(forge.hub.ghosts().len(), 1, "{point}");
    }
    // What ran died with the daemon, and GitHub notices.
    let left = forge.hub.job(job);
    if let (Phase::InProgress, Some((runner, _))) = (left.phase, left.runner) {
        forge.hub.lose(runner);
    }
    let had_a_runner = left.handed_out > 0;

    forge.daemon = Some(Daemon::start_at(site));
    let conclusion = forge.conclusion(job);
    assert!(
        conclusion == "success" || (had_a_runner && conclusion == "failure"),
        "{point}: {conclusion}"
    );
    assert_eq!(forge.hub.job(job).handed_out, 1, "{point}");
    forge.settled();
    assert_closed(forge, &point);
}

/// Fails when the ledger is not done with a job.
#[track_caller]
fn assert_closed(forge: &Forge, point: &str) {
    let ledger = Ledger::open(&path(forge)).unwrap();
    // One without a number was not found at GitHub; it is looked for during two minutes before it is believed.
    wait_for(&format!("{point}: a ledger that waits for no runner"), || {
        let left = ledger.registrations().unwrap();
        left.iter()
            .all(|one| one.id.is_none() && one.finished)
            .then_some(())
    });
    assert_eq!(ledger.unfinished().unwrap(), [], "{point}");
    assert_eq!(ledger.quarantined().unwrap(), [], "{point}");
    let uids = forge.daemon().site().family.uids();
    assert_eq!(files_of_accounts(&uids), Vec::<String>::new(), "{point}");
    for row in forge.jobs() {
        assert_eq!(row.clean, Some(true), "{point}: {row:?}");
    }
}

fn path(forge: &Forge) -> Utf8PathBuf {
    forge.daemon().site().data_dir.join("state/ledger.db")
}

/// Kills a daemon after each write of a job's life, one job and one daemon after the other.
fn killed_at_every_point(when: When, points: RangeInclusive<usize>) {
    let mut forge = Forge::start("", "");
    let journal = Journal::begin(path(&forge));
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let life = wait_for("a whole life", || {
        let life = Journal::written(&journal.open());
        (life.len() >= LIFE.len()).then_some(life)
    });
    assert_eq!(life, LIFE, "there is no point that is not tried");
    for n in points {
        killed_after(&mut forge, &journal, n, when);
    }
}

#[test]
fn i9_i20_a_daemon_that_is_killed_right_after_any_write_leaves_nothing_and_its_job_runs_once() {
    killed_at_every_point(When::Early, 1..=LIFE.len());
}

#[test]
fn i9_i20_a_daemon_that_is_killed_right_before_any_write_leaves_nothing_and_its_job_runs_once() {
    killed_at_every_point(When::Late, 1..=LIFE.len() - 1);
}

/// A job whose dispatcher is killed after its `n`th write, and which does not notice.
fn goes_on_after(forge: &mut Forge, journal: &Journal, n: usize, when: When) {
    let point = format!("the dispatcher, {when:?} after `{}`", LIFE[n - 1]);
    let before = Journal::written(&journal.open()).len();
    journal.stop_after(Some(before + n), FOR_EVER);
    let job = push(&forge.hub, &STEPS);
    journal.wait_for_write(&point, before + n, when);
    forge.daemon.as_mut().unwrap().kill_dispatcher_and(|| {
        let written = Journal::written(&journal.open()).split_off(before);
        assert_eq!(written, LIFE[..n], "killed at that point and no other");
        journal.stop_after(None, 0);
    });
    assert_eq!(forge.conclusion(job), "success", "{point}");
    assert_eq!(forge.hub.job(job).handed_out, 1, "{point}");
    forge.settled();
    assert_closed(forge, &point);
}

fn goes_on_at_every_point(when: When, last: usize) {
    let mut forge = Forge::start("", "");
    let journal = Journal::begin(path(&forge));
    for n in 1..=last {
        goes_on_after(&mut forge, &journal, n, when);
        if n % 2 == 0 {
            // Whose dispatcher is killed again and again waits longer each time, and then has no other.
            let site = forge.daemon.take().unwrap().stop();
            forge.daemon = Some(Daemon::start_at(site));
        }
    }
}

/// A job whose hook waits for its admission when the dispatcher is killed.
pub(crate) fn killed_while_its_hook_waits(forge: &mut Forge) {
    let (job, gate) = forge.held_runner();
    // Nobody learns what the job is until it may be told.
    let answers = Gate::default();
    let hold = Fault::Hold(answers.clone());
    forge.hub.inject("GET /repos/acme/app/actions/runs/*", 9999, hold);
    gate.open();
    let uids = forge.daemon().site().family.uids();
    wait_for("a hook that asks", || {
        let mut all = uids.iter().flat_map(|uid| processes_of(*uid));
        let is_hook = |pid: i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"__job-started")
        };
        all.any(is_hook).then_some(())
    });
    forge.daemon.as_mut().unwrap().kill_dispatcher();
    forge.hub.heal();
    answers.open();
    assert_eq!(forge.conclusion(job), "success", "{}", forge.daemon().log());
    assert_eq!(forge.hub.job(job).handed_out, 1);
    forge.settled();
}

#[test]
fn a_job_that_waits_in_its_hook_when_the_dispatcher_is_killed_is_admitted_by_the_next() {
    killed_while_its_hook_waits(&mut Forge::start("", ""));
}

#[test]
fn i9_i20_a_job_whose_dispatcher_is_killed_right_after_any_write_runs_once_and_succeeds() {
    goes_on_at_every_point(When::Early, LIFE.len());
}

#[test]
fn i9_i20_a_job_whose_dispatcher_is_killed_right_before_any_write_runs_once_and_succeeds() {
    goes_on_at_every_point(When::Late, LIFE.len() - 1);
}
