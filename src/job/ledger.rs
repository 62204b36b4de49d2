//! The ledger: what is known of every job, and what it holds. Written before a thing is acquired, so that
//! after a crash at any point the ledger names at least what there is to undo; read backwards it is the
//! tear-down.
//!
//! ```text
//!   record ─► claim ─► acquire ─► (do it) ─► … ─► (undo it) ─► released ─► finish
//!                         └── a crash here leaves an open acquisition: `unfinished` ──┘
//! ```
//!
//! It is one SQLite file that `exec` and the daemon may share. It decides nothing: which slot, which outcome
//! and what to undo come from elsewhere. A job's environment is not written down, it may hold secrets.

mod ballast;
mod error;
mod github;
mod health;
mod open;
mod read;
mod value;

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::egress::EgressReport;
use crate::github::ticket::Ticket;
use crate::job::state::{DONE, QUEUED, RUNNING, SCRUBBING};
use crate::job::{Acquisition, JobId, JobSpec, Outcome};
use crate::slot::Slot;
use crate::trust::Route;
use crate::vm::Isolation;
use crate::vm::life::DELETING;

use ballast::Ballast;
pub use error::LedgerError;
use error::failed;
pub use github::{Attempt, Registered};
pub use health::Health;
pub use read::{JobRow, Listing, Quarantined, Transition, Unfinished};
use value::{Json, Whole, Word, ms};

/// The ledger of one data directory. Threads may share it; each call is one short transaction.
#[derive(Debug)]
pub struct Ledger {
    path: Utf8PathBuf,
    db: Mutex<Connection>,
    ballast: Ballast,
    /// Whoever counts, once somebody does.
    counting: OnceLock<UnboundedSender<Noted>>,
}

/// What was written down, for whoever counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noted {
    /// A job was sent somewhere.
    Sent(Route),
    /// A job is over.
    Over(JobId),
}

/// Names one acquisition, to release it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AcquisitionId(i64);

/// A job as it comes in.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its id, as [`Ledger::fresh_id`] gave it.
    pub id: &'a JobId,
    /// What it is.
    pub spec: &'a JobSpec,
    /// Where trust sends it.
    pub route: Route,
    /// Why there.
    pub reason: &'a str,
    /// What it is at GitHub, when it comes from there.
    pub ticket: Option<&'a Ticket>,
}

/// A job as it goes out.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// How it ended.
    pub outcome: &'a Outcome,
    /// Whether the scrub left nothing.
    pub clean: bool,
    /// How well each axis was enforced, as JSON text.
    pub axes: &'a str,
    /// What it used.
    pub usage: Usage,
    /// What it was kept from, where a packet filter does that.
    pub egress: Option<&'a EgressReport>,
}

/// What a job used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The most memory its processes had together, in bytes; `None` when it could not be measured.
    pub memory_peak_byte: Option<u64>,
    /// What it wrote to its log, in bytes.
    pub output_byte: u64,
}

impl Ledger {
    /// Returns the ledger at `path`, an absolute path in an existing folder. The file is made when it does not
    /// exist; it is readable by its owner only.
    ///
    /// # Errors
    ///
    /// When the file cannot be made, is damaged, is something else, or was written by a later version.
    pub fn open(path: &Utf8Path) -> Result<Self, LedgerError> {
        Ok(Self {
            path: path.to_owned(),
            db: Mutex::new(open::open(path)?),
            ballast: Ballast::of(path),
            counting: OnceLock::new(),
        })
    }

    /// Takes disk for the moment when there is none, where it is not taken.
    ///
    /// # Errors
    ///
    /// There is none even now.
    pub fn keep_ballast(&self) -> std::io::Result<()> {
        self.ballast.fill()
    }

    /// Tells of every job that this process sends somewhere and ends from now on; `None` when somebody is told already.
    pub fn notes(&self) -> Option<UnboundedReceiver<Noted>> {
        let (sender, receiver) = unbounded_channel();
        self.counting.set(sender).ok().map(|()| receiver)
    }

    fn note(&self, noted: Noted) {
        if let Some(counting) = self.counting.get() {
            // Nobody counts any more when the daemon is about to end.
            let _ = counting.send(noted);
        }
    }

    /// Returns a job id the ledger does not have.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read or the system has no random numbers.
    pub fn fresh_id(&self, now: SystemTime) -> Result<JobId, LedgerError> {
        self.fresh_id_by(now, || getrandom::u32().map_err(LedgerError::Chance))
    }

    fn fresh_id_by(
        &self,
        now: SystemTime,
        mut chance: impl FnMut() -> Result<u32, LedgerError>,
    ) -> Result<JobId, LedgerError> {
        let mut time = now;
        loop {
            let id = JobId::new(time, chance()?);
            let taken = self.read("look up a job id", |db| {
                db.prepare_cached("SELECT 1 FROM job WHERE id = ?1")?
                    .exists([id.as_str()])
            })?;
            if !taken {
                return Ok(id);
            }
            // A millisecond has few ids; the next one has others, so this ends even without good chance.
            time += Duration::from_millis(1);
        }
    }

    /// Enters a new job, queued from now on.
    ///
    /// # Errors
    ///
    /// When the ledger has the id already or cannot be written.
    pub fn record(&self, entry: Entry<'_>, now: SystemTime) -> Result<(), LedgerError> {
        let Entry {
            id,
            spec,
            route,
            reason,
            ticket,
        } = entry;
        self.write("record a job", |tx| {
            tx.prepare_cached(
                "INSERT INTO job (id, repo, event, route, reason, command, state, queued_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                id.as_str(),
                spec.origin.repo.as_str(),
                spec.origin.event,
                Word(&route),
                reason,
                Json(&spec.command),
                QUEUED,
                ms(now)
            ])?;
            if let Some(ticket) = ticket {
                tx.prepare_cached("INSERT INTO github (job, ticket) VALUES (?1, ?2)")?
                    .execute(params![id.as_str(), Json(ticket)])?;
            }
            pass(tx, id, (QUEUED, Some(reason)), now)
        })?;
        self.note(Noted::Sent(route));
        Ok(())
    }

    /// Writes down that a job is in a new state, by the name `State::name` gives it. `record` and `finish` do so
    /// themselves for the first and the last.
    ///
    /// # Errors
    ///
    /// When the job is not there or finished, or the ledger cannot be written.
    pub fn enter(
        &self,
        id: &JobId,
        state: &str,
        reason: Option<&str>,
        now: SystemTime,
    ) -> Result<(), LedgerError> {
        let known = self.write("record a job's state", |tx| {
            let changed = tx
                .prepare_cached(
                    "UPDATE job SET state = ?2,
                       started_ms = CASE ?2 WHEN ?4 THEN coalesce(started_ms, ?3) ELSE started_ms END,
                       exited_ms = CASE WHEN ?2 IN (?5, ?6) THEN coalesce(exited_ms, ?3) ELSE exited_ms END
                     WHERE id = ?1 AND finished_ms IS NULL",
                )?
                .execute(params![id.as_str(), state, ms(now), RUNNING, SCRUBBING, DELETING])?;
            if changed == 1 {
                pass(tx, id, (state, reason), now)?;
            }
            Ok(changed == 1)
        })?;
        open_or(id, known)
    }

    /// Writes down how a job ended of which everything is about to be undone: whoever does that after a crash knows it then.
    ///
    /// # Errors
    ///
    /// As [`Ledger::enter`].
    pub fn ending(&self, id: &JobId, outcome: &Outcome, now: SystemTime) -> Result<(), LedgerError> {
        let known = self.write("record how a job ended", |tx| {
            let changed = tx
                .prepare_cached(
                    "UPDATE job SET state = ?2, ending = ?3, exited_ms = coalesce(exited_ms, ?4)
                     WHERE id = ?1 AND finished_ms IS NULL",
                )?
                .execute(params![id.as_str(), SCRUBBING, Json(outcome), ms(now)])?;
            if changed == 1 {
                pass(tx, id, (SCRUBBING, Some(&outcome.to_string())), now)?;
            }
            Ok(changed == 1)
        })?;
        open_or(id, known)
    }

    /// Writes down which slot a job got. That no other job has it is the caller's business.
    ///
    /// # Errors
    ///
    /// When the job is not there or finished, or the ledger cannot be written.
    pub fn claim(&self, id: &JobId, slot: &Slot, now: SystemTime) -> Result<(), LedgerError> {
        let known = self.write("record a job's slot", |tx| {
            let changed = tx
                .prepare_cached(
                    "UPDATE job SET slot = ?2, claimed_ms = ?3, isolation = ?4 WHERE id = ?1 AND finished_ms IS NULL",
                )?
                .execute(params![id.as_str(), Json(slot), ms(now), Word(&Isolation::Sandbox)])?;
            Ok(changed == 1)
        })?;
        open_or(id, known)
    }

    /// Writes down that a job gets a guest, of which backend and behind which fence. That there is a permit is the
    /// caller's business.
    ///
    /// # Errors
    ///
    /// When the job is not there or finished, or the ledger cannot be written.
    pub fn permit(
        &self,
        id: &JobId,
        (backend, isolation): (&str, Isolation),
        now: SystemTime,
    ) -> Result<(), LedgerError> {
        let known = self.write("record a job's permit", |tx| {
            let changed = tx
                .prepare_cached(
                    "UPDATE job SET claimed_ms = ?2, backend = ?3, isolation = ?4, started_ms = NULL, exited_ms = NULL
                     WHERE id = ?1 AND finished_ms IS NULL",
                )?
                .execute(params![id.as_str(), ms(now), backend, Word(&isolation)])?;
            Ok(changed == 1)
        })?;
        open_or(id, known)
    }

    /// Writes down that a job goes elsewhere than it was first sent, and why.
    ///
    /// # Errors
    ///
    /// When the job is not there or finished, or the ledger cannot be written.
    pub fn reroute(
        &self,
        id: &JobId,
        route: Route,
        reason: &str,
        now: SystemTime,
    ) -> Result<(), LedgerError> {
        let known = self.write("record a job's route", |tx| {
            let changed = tx
                .prepare_cached(
                    "UPDATE job SET route = ?2, reason = ?3, slot = NULL, claimed_ms = NULL, state = ?4
                     WHERE id = ?1 AND finished_ms IS NULL",
                )?
                .execute(params![id.as_str(), Word(&route), reason, QUEUED])?;
            if changed == 1 {
                pass(tx, id, (QUEUED, Some(reason)), now)?;
            }
            Ok(changed == 1)
        })?;
        open_or(id, known)?;
        self.note(Noted::Sent(route));
        Ok(())
    }

    /// Writes down that a job is about to hold something, and returns its name. Only when this has returned may
    /// the thing be acquired.
    ///
    /// # Errors
    ///
    /// When the job is not there or finished, or the ledger cannot be written; then nothing may be acquired.
    pub fn acquire(
        &self,
        id: &JobId,
        what: &Acquisition,
        now: SystemTime,
    ) -> Result<AcquisitionId, LedgerError> {
        let written = self.write("record an acquisition", |tx| {
            let changed = tx
                .prepare_cached(
                    "INSERT INTO acquisition (job, what, acquired_ms)
                     SELECT id, ?2, ?3 FROM job WHERE id = ?1 AND finished_ms IS NULL",
                )?
                .execute(params![id.as_str(), Json(what), ms(now)])?;
            Ok((changed == 1).then(|| AcquisitionId(tx.last_insert_rowid())))
        })?;
        written.ok_or_else(|| LedgerError::NotOpen(id.clone()))
    }

    /// Writes down that an acquisition is undone and verified gone. Doing so again changes nothing: a crash may
    /// come between the two.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written.
    pub fn released(&self, acquisition: AcquisitionId, now: SystemTime) -> Result<(), LedgerError> {
        self.write("record a release", |tx| {
            tx.prepare_cached(
                "UPDATE acquisition SET released_ms = ?2 WHERE id = ?1 AND released_ms IS NULL",
            )?
            .execute(params![acquisition.0, ms(now)])
            .map(drop)
        })
    }

    /// Writes down how a job ended; it is done and takes nothing more.
    ///
    /// # Errors
    ///
    /// When the job is not there or finished, is said to be clean while it still holds something, or the ledger
    /// cannot be written.
    pub fn finish(&self, id: &JobId, ending: &Ending<'_>, now: SystemTime) -> Result<(), LedgerError> {
        let Ending {
            outcome,
            clean,
            axes,
            usage: Usage {
                memory_peak_byte,
                output_byte,
            },
            egress,
        } = *ending;
        self.write("record a job's end", |tx| {
            let held = tx
                .prepare_cached("SELECT 1 FROM acquisition WHERE job = ?1 AND released_ms IS NULL")?
                .exists([id.as_str()])?;
            if clean && held {
                return Ok(Err(LedgerError::StillHeld(id.clone())));
            }
            let changed = tx
                .prepare_cached(
                    "UPDATE job SET state = ?2, outcome = ?3, clean = ?4, axes = ?5,
                       memory_peak_byte = ?6, output_byte = ?7, finished_ms = ?8, egress = ?9
                     WHERE id = ?1 AND finished_ms IS NULL",
                )?
                .execute(params![
                    id.as_str(),
                    DONE,
                    Json(outcome),
                    clean,
                    axes,
                    memory_peak_byte.map(Whole),
                    Whole(output_byte),
                    ms(now),
                    egress.map(Json)
                ])?;
            if changed == 1 {
                pass(tx, id, (DONE, Some(&outcome.to_string())), now)?;
            }
            Ok(open_or(id, changed == 1))
        })??;
        self.note(Noted::Over(id.clone()));
        Ok(())
    }

    /// Writes down that a slot must not be used. For one that is in quarantine already the reason is replaced,
    /// the time stays.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written.
    pub fn quarantine(&self, slot_index: u32, reason: &str, now: SystemTime) -> Result<(), LedgerError> {
        self.write("record a quarantine", |tx| {
            tx.prepare_cached(
                "INSERT INTO quarantine (slot, reason, since_ms) VALUES (?1, ?2, ?3)
                 ON CONFLICT (slot) DO UPDATE SET reason = excluded.reason",
            )?
            .execute(params![slot_index, reason, ms(now)])
            .map(drop)
        })
    }

    /// Ends a slot's quarantine; false when it had none.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written.
    pub fn lift_quarantine(&self, slot_index: u32) -> Result<bool, LedgerError> {
        self.write("lift a quarantine", |tx| {
            let changed = tx
                .prepare_cached("DELETE FROM quarantine WHERE slot = ?1")?
                .execute([slot_index])?;
            Ok(changed == 1)
        })
    }

    /// Forgets finished jobs except the `keep_finished` that finished last, and returns the forgotten ones so
    /// that their logs can go too. A job that still holds something is never forgotten, nor one whose runner GitHub may
    /// still have.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written.
    pub fn prune(&self, keep_finished: usize) -> Result<Vec<JobId>, LedgerError> {
        let keep = i64::try_from(keep_finished).unwrap_or(i64::MAX);
        self.write("prune finished jobs", |tx| {
            tx.prepare_cached(
                "DELETE FROM job WHERE finished_ms IS NOT NULL
                   AND id NOT IN (SELECT id FROM job WHERE finished_ms IS NOT NULL
                                  ORDER BY finished_ms DESC, id DESC LIMIT ?1)
                   AND NOT EXISTS (SELECT 1 FROM acquisition
                                   WHERE acquisition.job = job.id AND released_ms IS NULL)
                   AND NOT EXISTS (SELECT 1 FROM github
                                   WHERE github.job = job.id AND runner IS NOT NULL AND gone_ms IS NULL)
                 RETURNING id",
            )?
            .query_map([keep], |row| row.get(0).map(|Word(id)| id))?
            .collect()
        })
    }

    fn read<T>(
        &self,
        doing: &'static str,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        // A panic elsewhere rolled its transaction back; the connection is as good as before.
        let db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&db).map_err(|source| failed(doing, &self.path, source))
    }

    /// Runs `work` in a transaction, which is undone when `work` or the commit fails. IMMEDIATE: whoever takes
    /// the write lock only after reading may be refused at once instead of waiting for the other process. When the disk is
    /// full, what was kept for that is given for it.
    fn write<T>(
        &self,
        doing: &'static str,
        work: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let mut db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let mut run = || -> rusqlite::Result<T> {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&tx)?;
            tx.commit()?;
            Ok(done)
        };
        let done = match run() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) && self.ballast.give() => {
                run()
            }
            done => done,
        };
        done.map_err(|source| failed(doing, &self.path, source))
    }
}

/// Adds one row to a job's history.
fn pass(
    tx: &Transaction<'_>,
    id: &JobId,
    (state, reason): (&str, Option<&str>),
    now: SystemTime,
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO transition (job, at_ms, state, reason) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id.as_str(), ms(now), state, reason])
        .map(drop)
}

fn open_or(id: &JobId, known: bool) -> Result<(), LedgerError> {
    if known {
        Ok(())
    } else {
        Err(LedgerError::NotOpen(id.clone()))
    }
}

#[cfg(test)]
mod tests;
