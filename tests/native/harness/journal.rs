//! A ledger that is stopped from outside, so that a daemon can be killed between any two of its writes. Nothing in the daemon
//! knows of it: triggers in the file number the writes, and the one that is not to come takes as long as it should, for ever
//! if need be, so that its transaction is not committed until then.

use std::time::Duration;

use camino::Utf8PathBuf;
use rusqlite::{Connection, ErrorCode};

use super::wait_for;

/// Numbers the writes of a ledger, each transaction once, and lets none begin that comes after the one that `stop` names.
const JOURNAL: &str = "
    CREATE TABLE journal (n INTEGER PRIMARY KEY, what TEXT NOT NULL);
    CREATE TABLE stop (after INTEGER NOT NULL, turns INTEGER NOT NULL);
    CREATE VIEW spin AS
      WITH RECURSIVE turn (x) AS (
        SELECT 1 WHERE (SELECT count(*) FROM journal) = (SELECT after FROM stop)
        UNION ALL SELECT x + 1 FROM turn WHERE x < (SELECT turns FROM stop)
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

/// How late after a write the daemon is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// As soon as the write is there.
    Early,
    /// When everything is done that comes before the next one.
    Late,
}

/// Turns that take longer than anybody waits.
pub(crate) const FOR_EVER: i64 = i64::MAX;

/// Turns that take a second or so.
pub(crate) const A_WHILE: i64 = 2_000_000;

/// A ledger whose writes are counted.
#[derive(Debug)]
pub(crate) struct Journal(pub(crate) Utf8PathBuf);

impl Journal {
    /// Begins to number the writes of the ledger at `path`.
    pub(crate) fn begin(path: Utf8PathBuf) -> Self {
        let journal = Self(path);
        let db = journal.open();
        db.busy_timeout(Duration::from_secs(5)).unwrap();
        db.execute_batch(JOURNAL).unwrap();
        journal
    }

    /// A connection that waits for nobody. Not kept: a ledger that nobody has open is recovered by who opens it next.
    pub(crate) fn open(&self) -> Connection {
        let db = Connection::open(&self.0).unwrap();
        db.busy_timeout(Duration::ZERO).unwrap();
        db
    }

    /// What was written so far.
    pub(crate) fn written(db: &Connection) -> Vec<String> {
        let mut all = db.prepare_cached("SELECT what FROM journal ORDER BY n").unwrap();
        let rows = all.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn count(db: &Connection) -> usize {
        let mut count = db.prepare_cached("SELECT count(*) FROM journal").unwrap();
        let count: u32 = count.query_row([], |row| row.get(0)).unwrap();
        count as usize
    }

    /// Lets so many writes happen, and the next one so many turns later; all of them at once without a number.
    pub(crate) fn stop_after(&self, count: Option<usize>, turns: i64) {
        let mut db = self.open();
        db.busy_timeout(Duration::from_secs(5)).unwrap();
        let tx = db.transaction().unwrap();
        tx.execute("DELETE FROM stop", []).unwrap();
        if let Some(count) = count {
            let count = i64::try_from(count).unwrap();
            tx.execute("INSERT INTO stop VALUES (?1, ?2)", [count, turns])
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

    /// Waits until so many writes have come, and until `when` for the next.
    #[track_caller]
    pub(crate) fn wait_for_write(&self, what: &str, count: usize, when: When) {
        let db = self.open();
        let mut looks = 0;
        wait_for(what, || {
            let is_there = Self::count(&db) == count;
            // The end of the write before is one, too, but a short one.
            looks = if is_there && Self::is_writing(&db) {
                looks + 1
            } else {
                0
            };
            (is_there && (when == When::Early || looks == 10)).then_some(())
        });
    }
}
