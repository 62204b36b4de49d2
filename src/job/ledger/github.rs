//! What jobs are at GitHub. A runner's name is written before the runner is made, so that after a crash at any point
//! the ledger knows at least the runners there are; one that GitHub has no more is written down as gone.

use std::time::SystemTime;

use rusqlite::{OptionalExtension, Row, params};

use super::value::{Json, Whole, Word, ms};
use super::{Ledger, LedgerError};
use crate::github::ticket::{AtGitHub, Key, Runner, Ticket};
use crate::job::{JobId, Outcome};
use crate::trust::Route;

/// A runner that GitHub may still have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The job of ours it was made for.
    pub job: JobId,
    /// Where it is, and its name.
    pub runner: Runner,
    /// GitHub's number of it; `None` when a crash came before the answer.
    pub id: Option<u64>,
    /// Whether our job is over.
    pub finished: bool,
}

/// A job of ours that was made for a job of GitHub's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Ours.
    pub job: JobId,
    /// Where it went.
    pub route: Route,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
    /// The job its runner was given.
    pub taken: Option<Ticket>,
}

impl Ledger {
    /// Writes down that a runner is about to be made for a job.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; then none may be made.
    pub fn registering(&self, id: &JobId, runner: &Runner) -> Result<(), LedgerError> {
        self.set(
            "record a runner",
            "UPDATE github SET runner = ?2, runner_id = NULL, gone_ms = NULL WHERE job = ?1",
            params![id.as_str(), Json(runner)],
        )
    }

    /// Writes down GitHub's number of the runner that was made for a job.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written.
    pub fn registered(&self, id: &JobId, runner_id: u64) -> Result<(), LedgerError> {
        self.set(
            "record a runner's number",
            "UPDATE github SET runner_id = ?2 WHERE job = ?1",
            params![id.as_str(), Whole(runner_id)],
        )
    }

    /// Writes down which job the runner was given.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written.
    pub fn taken(&self, id: &JobId, ticket: &Ticket) -> Result<(), LedgerError> {
        self.set(
            "record a runner's job",
            "UPDATE github SET taken = ?2 WHERE job = ?1",
            params![id.as_str(), Json(ticket)],
        )
    }

    /// Writes down that GitHub has the runner no more.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written.
    pub fn gone(&self, id: &JobId, now: SystemTime) -> Result<(), LedgerError> {
        self.set(
            "record the end of a runner",
            "UPDATE github SET gone_ms = ?2 WHERE job = ?1",
            params![id.as_str(), ms(now)],
        )
    }

    fn set(
        &self,
        doing: &'static str,
        sql: &str,
        with: impl rusqlite::Params + Copy,
    ) -> Result<(), LedgerError> {
        self.write(doing, |tx| tx.prepare_cached(sql)?.execute(with).map(drop))
    }

    /// Returns every runner that GitHub may still have, oldest first.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn registrations(&self) -> Result<Vec<Registered>, LedgerError> {
        self.read("list runners", |db| {
            db.prepare_cached(
                "SELECT github.job, runner, runner_id, finished_ms IS NOT NULL
                 FROM github JOIN job ON job.id = github.job
                 WHERE runner IS NOT NULL AND gone_ms IS NULL ORDER BY github.job",
            )?
            .query_map([], |row| {
                let (Word(job), Json(runner)) = (row.get(0)?, row.get(1)?);
                let id: Option<Whole> = row.get(2)?;
                Ok(Registered {
                    job,
                    runner,
                    id: id.map(|whole| whole.0),
                    finished: row.get(3)?,
                })
            })?
            .collect()
        })
    }

    /// Returns the jobs of ours that were made for a job of GitHub's, oldest first.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn made_for(&self, (repo, job): &Key) -> Result<Vec<Attempt>, LedgerError> {
        self.read("find the attempts for a job", |db| {
            db.prepare_cached(
                "SELECT job.id, job.outcome, github.taken, job.route FROM github JOIN job ON job.id = github.job
                 WHERE json_extract(ticket, '$.job') = ?2 AND lower(json_extract(ticket, '$.repo')) = ?1
                 ORDER BY job.id",
            )?
            .query_map(params![repo, Whole(*job)], |row| {
                let Word(job) = row.get(0)?;
                let outcome: Option<Json<Outcome>> = row.get(1)?;
                let taken: Option<Json<Ticket>> = row.get(2)?;
                let Word(route) = row.get(3)?;
                Ok(Attempt {
                    job,
                    route,
                    outcome: outcome.map(|json| json.0),
                    taken: taken.map(|json| json.0),
                })
            })?
            .collect()
        })
    }

    /// Returns what a job is at GitHub; `None` for one that came from elsewhere.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn at_github(&self, id: &JobId) -> Result<Option<AtGitHub>, LedgerError> {
        self.read("find what a job is at GitHub", |db| {
            db.prepare_cached("SELECT ticket, runner, runner_id, taken FROM github WHERE job = ?1")?
                .query_row([id.as_str()], at_github)
                .optional()
                .map(Option::flatten)
        })
    }
}

/// The columns of the table in a row that may have none of it.
pub(super) fn at_github(row: &Row<'_>) -> rusqlite::Result<Option<AtGitHub>> {
    let Some(Json(ticket)) = row.get::<_, Option<Json<Ticket>>>("ticket")? else {
        return Ok(None);
    };
    let runner: Option<Json<Runner>> = row.get("runner")?;
    let runner_id: Option<Whole> = row.get("runner_id")?;
    let taken: Option<Json<Ticket>> = row.get("taken")?;
    Ok(Some(AtGitHub {
        ticket,
        runner: runner.map(|json| json.0),
        runner_id: runner_id.map(|whole| whole.0),
        taken: taken.map(|json| json.0),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::ticket::Scope;
    use crate::job::ledger::{Ending, Entry, Usage};
    use crate::job::{JobSpec, Origin};
    use crate::trust::Route;
    use camino::Utf8Path;
    use std::time::UNIX_EPOCH;

    fn ticket(job: u64) -> Ticket {
        Ticket {
            repo: "Acme/iOS".parse().unwrap(),
            run: 77,
            attempt: 1,
            job,
            name: "build".to_owned(),
            pull: Some(7),
            url: "https://github.com/Acme/iOS/actions/runs/77/job/29".to_owned(),
        }
    }

    fn runner() -> Runner {
        Runner {
            scope: Scope::Repo("acme/ios".parse().unwrap()),
            name: "eph-1".to_owned(),
        }
    }

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("ledger.db");
        let ledger = Ledger::open(&path).unwrap();
        (folder, ledger)
    }

    fn record(ledger: &Ledger, n: u32, ticket: &Ticket) -> JobId {
        let id = JobId::new(UNIX_EPOCH, n);
        let spec = JobSpec {
            origin: Origin::own(&"acme/ios".parse().unwrap()),
            command: vec![],
            env: [].into(),
            timeout_s: None,
        };
        let entry = Entry {
            id: &id,
            spec: &spec,
            route: Route::Native,
            reason: "r",
            ticket: Some(ticket),
        };
        ledger.record(entry, UNIX_EPOCH).unwrap();
        id
    }

    fn finish(ledger: &Ledger, id: &JobId) {
        let ending = Ending {
            outcome: &Outcome::Cancelled,
            clean: true,
            axes: "[]",
            usage: Usage::default(),
            egress: None,
        };
        ledger.finish(id, &ending, UNIX_EPOCH).unwrap();
    }

    #[test]
    fn a_runner_is_known_from_before_it_is_made_until_it_is_gone() {
        let (_folder, ledger) = ledger();
        let id = record(&ledger, 1, &ticket(29));
        assert_eq!(ledger.registrations().unwrap(), []);
        ledger.registering(&id, &runner()).unwrap();
        let mut known = Registered {
            job: id.clone(),
            runner: runner(),
            id: None,
            finished: false,
        };
        assert_eq!(ledger.registrations().unwrap(), [known.clone()]);
        ledger.registered(&id, 23).unwrap();
        finish(&ledger, &id);
        known.id = Some(23);
        known.finished = true;
        assert_eq!(ledger.registrations().unwrap(), [known]);
        // Whatever is pruned, it stays known.
        assert_eq!(ledger.prune(0).unwrap(), []);
        ledger.gone(&id, UNIX_EPOCH).unwrap();
        assert_eq!(ledger.registrations().unwrap(), []);
        assert_eq!(ledger.prune(0).unwrap(), std::slice::from_ref(&id));
        assert_eq!(ledger.at_github(&id).unwrap(), None);
    }

    #[test]
    fn i15_attempts_for_a_job_are_found_by_repository_and_number_whatever_the_case() {
        let (_folder, ledger) = ledger();
        let first = record(&ledger, 1, &ticket(29));
        finish(&ledger, &first);
        let second = record(&ledger, 2, &ticket(29));
        record(&ledger, 3, &ticket(30));
        ledger.taken(&second, &ticket(30)).unwrap();
        let made = ledger.made_for(&ticket(29).key()).unwrap();
        let told: Vec<_> = made
            .iter()
            .map(|it| (&it.job, it.outcome.is_some(), it.taken.is_some()))
            .collect();
        assert_eq!(told, [(&first, true, false), (&second, false, true)]);
        assert_eq!(ledger.made_for(&("other/ios".to_owned(), 29)).unwrap(), []);
    }

    #[test]
    fn a_jobs_row_tells_what_it_is_at_github() {
        let (_folder, ledger) = ledger();
        let id = record(&ledger, 1, &ticket(29));
        ledger.registering(&id, &runner()).unwrap();
        let row = ledger.job(&id).unwrap().unwrap();
        let at = row.github.unwrap();
        assert_eq!(
            (at.ticket, at.runner, at.runner_id),
            (ticket(29), Some(runner()), None)
        );
    }
}
