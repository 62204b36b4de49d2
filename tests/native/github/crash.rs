//! A daemon that is killed at every point of a GitHub job's life: between any two writes to its ledger, as soon as the
//! one is there, and as late as before the next.
//!
//! The ledger is stopped from outside and nothing in the daemon knows of it: triggers in its file number the writes, and the
//! one that is not to come never ends, so that its transaction is never committed.
//!
//! ```text
//!   write n ─► committed ─► what it was written for is done ─► write n + 1 begins ─► never ends
//!                  └── killed: Early                                  └── killed: Late
//! ```

use std::ops::RangeInclusive;
use std::time::Duration;

use camino::Utf8PathBuf;
use ephemerd::job::ledger::Ledger;
use rusqlite::{Connection, ErrorCode};

use super::forge::{Forge, push};
use super::hub::state::Phase;
use crate::harness::{Daemon, files_of_accounts, wait_for};

/// Numbers the writes of a ledger, each transaction once, and lets none begin that comes after the one that `stop` names.
const JOURNAL: &str = "
    CREATE TABLE journal (n INTEGER PRIMARY KEY, what TEXT NOT NULL);
    CREATE TABLE stop (after INTEGER NOT NULL);
    CREATE VIEW spin AS
      WITH RECURSIVE turn (x) AS (
        SELECT 1 WHERE (SELECT count(*) FROM journal) = (SELECT after FROM stop) UNION ALL SELECT x FROM turn
      ) SELECT x FROM turn;
    CREATE TRIGGER recorded BEFORE INSERT ON job BEGIN
      SELECT count(*) FROM spin; INSERT INTO journal (what) VALUES ('recorded');
    END;
    CREATE TRIGGER entered BEFORE UPDATE ON job BEGIN
      SELECT count(*) FROM spin; INSERT INTO journal (what) VALUES (
        CASE WHEN NEW.claimed_ms IS NOT OLD.claimed_ms THEN 'slot' ELSE NEW.state END);
    END;
    CREATE TRIGGER acquired BEFORE INSERT ON acquisition BEGIN
      SELECT count(*) FROM spin; INSERT INTO journal (what) VALUES ('acquires ' || json_extract(NEW.what, '$.kind'));
    END;
    CREATE TRIGGER released BEFORE UPDATE ON acquisition BEGIN
      SELECT count(*) FROM spin; INSERT INTO journal (what) VALUES ('released ' || json_extract(NEW.what, '$.kind'));
    END;
    CREATE TRIGGER at_github BEFORE UPDATE ON github BEGIN
      SELECT count(*) FROM spin; INSERT INTO journal (what) VALUES (
        CASE WHEN NEW.gone_ms IS NOT NULL THEN 'runner gone' WHEN NEW.taken IS NOT OLD.taken THEN 'runner has job'
             WHEN NEW.runner_id IS NOT NULL THEN 'runner made' ELSE 'runner named' END);
    END;
    CREATE TRIGGER quarantined BEFORE INSERT ON quarantine BEGIN
      SELECT count(*) FROM spin; INSERT INTO journal (what) VALUES ('quarantine');
    END;";

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

/// How late after a write the daemon is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// As soon as the write is there.
    Early,
    /// When everything is done that comes before the next one.
    Late,
}

/// A ledger whose writes are counted.
#[derive(Debug)]
struct Journal(Utf8PathBuf);

impl Journal {
    fn begin(path: Utf8PathBuf) -> Self {
        let journal = Self(path);
        let db = journal.open();
        db.busy_timeout(Duration::from_secs(5)).unwrap();
        db.execute_batch(JOURNAL).unwrap();
        journal
    }

    /// A connection that waits for nobody. Not kept: a ledger that nobody has open is recovered by who opens it next.
    fn open(&self) -> Connection {
        let db = Connection::open(&self.0).unwrap();
        db.busy_timeout(Duration::ZERO).unwrap();
        db
    }

    /// What was written so far.
    fn written(db: &Connection) -> Vec<String> {
        let mut all = db.prepare_cached("SELECT what FROM journal ORDER BY n").unwrap();
        let rows = all.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn count(db: &Connection) -> usize {
        let mut count = db.prepare_cached("SELECT count(*) FROM journal").unwrap();
        let count: u32 = count.query_row([], |row| row.get(0)).unwrap();
        count as usize
    }

    /// Lets so many writes happen and no more; all of them without a number.
    fn stop_after(&self, count: Option<usize>) {
        let mut db = self.open();
        db.busy_timeout(Duration::from_secs(5)).unwrap();
        let tx = db.transaction().unwrap();
        tx.execute("DELETE FROM stop", []).unwrap();
        if let Some(count) = count {
            tx.execute("INSERT INTO stop VALUES (?1)", [u32::try_from(count).unwrap()])
                .unwrap();
        }
        tx.commit().unwrap();
    }

    /// Whether somebody is in the middle of a write.
    fn is_writing(db: &Connection) -> bool {
        match db.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
            Ok(()) => false,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => true,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A job whose daemon is killed after its `n`th write, and whose next daemon must find everything.
fn killed_after(forge: &mut Forge, journal: &Journal, n: usize, when: When) {
    let point = format!("{when:?} after `{}`", LIFE[n - 1]);
    let before = Journal::written(&journal.open()).len();
    journal.stop_after(Some(before + n));
    let job = push(&forge.hub, &STEPS);
    let db = journal.open();
    let mut looks = 0;
    wait_for(&point, || {
        let is_there = Journal::count(&db) == before + n;
        // The end of the write before is one, too, but a short one.
        looks = if is_there && Journal::is_writing(&db) {
            looks + 1
        } else {
            0
        };
        (is_there && (when == When::Early || looks == 10)).then_some(())
    });
    drop(db);
    let site = forge.daemon.take().unwrap().kill();
    let written = Journal::written(&journal.open()).split_off(before);
    assert_eq!(written, LIFE[..n], "killed at that point and no other");
    journal.stop_after(None);
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
