//! What the ledger can tell: rows for people, and what a crash left behind.

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::github::at_github;
use super::value::{Json, Whole, Word};
use super::{AcquisitionId, Ledger, LedgerError};
use crate::egress::EgressReport;
use crate::github::ticket::AtGitHub;
use crate::job::{Acquisition, JobId, Outcome, Repo};
use crate::slot::Slot;
use crate::trust::Route;
use crate::vm::Isolation;

/// One job as the ledger knows it. Times are milliseconds since 1970; what did not happen yet is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// The repository whose workflow it is.
    pub repo: Repo,
    /// The event's name.
    pub event: String,
    /// Where it was sent.
    pub route: Route,
    /// Why there.
    pub reason: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The state it was last in.
    pub state: String,
    /// The slot it got.
    pub slot: Option<u32>,
    /// The account it ran as.
    pub account: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Whether nothing of it was left.
    pub clean: Option<bool>,
    /// How well each axis was enforced.
    pub axes: Option<serde_json::Value>,
    /// The most memory its processes had together, in bytes; `None` also when it could not be measured.
    pub memory_peak_byte: Option<u64>,
    /// What it wrote to its log, in bytes.
    pub output_byte: Option<u64>,
    /// When it came.
    pub queued_ms: u64,
    /// When it got its slot; waiting is up to here.
    pub claimed_ms: Option<u64>,
    /// When its command began to run; preparing is up to here.
    pub started_ms: Option<u64>,
    /// When its scrub began; running, or preparing in vain, is up to here.
    pub exited_ms: Option<u64>,
    /// When it was over; scrubbing is up to here.
    pub finished_ms: Option<u64>,
    /// What it was kept from by a packet filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressReport>,
    /// How strong the fence is that it really had, once it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// The backend of its guest, if it got one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// What it is at GitHub, when it comes from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub github: Option<AtGitHub>,
}

/// A job entering a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The state it entered.
    pub state: String,
    /// Why, where there is something to say.
    pub reason: Option<String>,
}

/// A job that was not finished, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its id.
    pub id: JobId,
    /// The state it was last in.
    pub state: String,
    /// The slot it has, if it got one.
    pub slot: Option<Slot>,
    /// How it ended, if only its end is still to be recorded.
    pub ending: Option<Outcome>,
    /// What was acquired and not released, newest first: the order of undoing.
    pub open: Vec<(AcquisitionId, Acquisition)>,
}

/// A slot that gets no jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// Its index.
    pub slot: u32,
    /// What was found last.
    pub reason: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// Which jobs to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Those that are not finished.
    Active,
    /// This many, finished or not.
    Newest(u32),
    /// Of the newest, those that are not finished, or were not at a moment.
    Since {
        /// That moment, in milliseconds since 1970.
        ms: u64,
        /// How many are looked at, so that a long history costs nothing.
        newest: u32,
    },
}

impl Ledger {
    /// Returns every job that was never finished, oldest first. On start these are what a crash left behind.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>, LedgerError> {
        self.read("find unfinished jobs", |db| {
            let mut found: Vec<Unfinished> = Vec::new();
            let mut asked = db.prepare_cached(
                "SELECT job.id, job.slot, held.id, held.what, job.state, job.ending
                 FROM job LEFT JOIN acquisition AS held ON held.job = job.id AND held.released_ms IS NULL
                 WHERE job.finished_ms IS NULL ORDER BY job.id, held.id DESC",
            )?;
            let mut rows = asked.query([])?;
            while let Some(row) = rows.next()? {
                let Word(id) = row.get(0)?;
                if found.last().is_none_or(|last| last.id != id) {
                    let slot = row.get::<_, Option<Json<Slot>>>(1)?.map(|json| json.0);
                    let ending = row.get::<_, Option<Json<Outcome>>>(5)?.map(|json| json.0);
                    found.push(Unfinished {
                        id,
                        state: row.get(4)?,
                        slot,
                        ending,
                        open: Vec::new(),
                    });
                }
                let held: Option<i64> = row.get(2)?;
                if let (Some(held), Some(job)) = (held, found.last_mut()) {
                    let Json(what) = row.get(3)?;
                    job.open.push((AcquisitionId(held), what));
                }
            }
            Ok(found)
        })
    }

    /// Returns one job; `None` when the ledger never had it or has pruned it.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn job(&self, id: &JobId) -> Result<Option<JobRow>, LedgerError> {
        self.read("find a job", |db| {
            db.prepare_cached("SELECT * FROM job LEFT JOIN github ON github.job = job.id WHERE id = ?1")?
                .query_row([id.as_str()], job_row)
                .optional()
        })
    }

    /// Returns jobs, newest first.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn jobs(&self, listing: Listing) -> Result<Vec<JobRow>, LedgerError> {
        self.read("list jobs", |db| match listing {
            Listing::Active => db
                .prepare_cached("SELECT * FROM job LEFT JOIN github ON github.job = job.id WHERE finished_ms IS NULL ORDER BY id DESC")?
                .query_map([], job_row)?
                .collect(),
            Listing::Newest(limit) => db
                .prepare_cached("SELECT * FROM job LEFT JOIN github ON github.job = job.id ORDER BY id DESC LIMIT ?1")?
                .query_map([limit], job_row)?
                .collect(),
            Listing::Since { ms, newest } => db
                .prepare_cached(
                    "SELECT * FROM (SELECT * FROM job ORDER BY id DESC LIMIT ?2) AS job
                     LEFT JOIN github ON github.job = job.id
                     WHERE finished_ms IS NULL OR finished_ms >= ?1 ORDER BY id DESC",
                )?
                .query_map(params![Whole(ms), newest], job_row)?
                .collect(),
        })
    }

    /// Returns the states a job went through, oldest first.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn transitions(&self, id: &JobId) -> Result<Vec<Transition>, LedgerError> {
        self.read("list a job's states", |db| {
            db.prepare_cached("SELECT at_ms, state, reason FROM transition WHERE job = ?1 ORDER BY id")?
                .query_map([id.as_str()], |row| {
                    let Whole(at_ms) = row.get("at_ms")?;
                    Ok(Transition {
                        at_ms,
                        state: row.get("state")?,
                        reason: row.get("reason")?,
                    })
                })?
                .collect()
        })
    }

    /// Returns the slots in quarantine, by index.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, LedgerError> {
        self.read("list quarantined slots", |db| {
            db.prepare_cached("SELECT slot, reason, since_ms FROM quarantine ORDER BY slot")?
                .query_map([], |row| {
                    let Whole(since_ms) = row.get("since_ms")?;
                    Ok(Quarantined {
                        slot: row.get("slot")?,
                        reason: row.get("reason")?,
                        since_ms,
                    })
                })?
                .collect()
        })
    }
}

fn job_row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let whole = |column| -> rusqlite::Result<Option<u64>> {
        let number: Option<Whole> = row.get(column)?;
        Ok(number.map(|whole| whole.0))
    };
    let (Word(id), Word(repo), Word(route)) = (row.get("id")?, row.get("repo")?, row.get("route")?);
    let (Json(command), Whole(queued_ms)) = (row.get("command")?, row.get("queued_ms")?);
    let slot = row.get::<_, Option<Json<Slot>>>("slot")?.map(|json| json.0);
    Ok(JobRow {
        id,
        repo,
        event: row.get("event")?,
        route,
        reason: row.get("reason")?,
        command,
        state: row.get("state")?,
        slot: slot.as_ref().map(|slot| slot.index),
        account: slot.map(|slot| slot.account.name),
        outcome: row.get::<_, Option<Json<Outcome>>>("outcome")?.map(|json| json.0),
        clean: row.get("clean")?,
        axes: row.get::<_, Option<Json<_>>>("axes")?.map(|json| json.0),
        memory_peak_byte: whole("memory_peak_byte")?,
        output_byte: whole("output_byte")?,
        queued_ms,
        claimed_ms: whole("claimed_ms")?,
        started_ms: whole("started_ms")?,
        exited_ms: whole("exited_ms")?,
        finished_ms: whole("finished_ms")?,
        egress: row.get::<_, Option<Json<_>>>("egress")?.map(|json| json.0),
        isolation: row
            .get::<_, Option<Word<Isolation>>>("isolation")?
            .map(|word| word.0),
        backend: row.get("backend")?,
        github: at_github(row)?,
    })
}
