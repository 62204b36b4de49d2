//! Jobs of our own: a job like any other, in a slot like any other, whose output is wanted and not its log.

use std::collections::BTreeMap;
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use super::ledger::Entry;
use super::output::Stream;
use super::run::{Pipeline, RunError};
use super::{JobId, JobSpec, Origin, Outcome};
use crate::slot::Slot;
use crate::trust::Route;
use crate::warden::Request;

/// Why a job of our own told nothing.
#[derive(Debug, thiserror::Error)]
pub enum AsideError {
    /// It could not be run.
    #[error("job {job}, which looks, could not be run")]
    Run {
        /// The job. The ledger may have it still.
        job: JobId,
        /// Why.
        source: Box<RunError>,
    },
    /// Its output cannot be read.
    #[error("could not read the output of job {job}")]
    Output {
        /// The job.
        job: JobId,
        /// What the system said.
        source: std::io::Error,
    },
    /// It did not get to its end, or left something.
    #[error("job {job} did not do its work: {outcome}{}{}", left(leftovers), said(output))]
    Outcome {
        /// The job.
        job: JobId,
        /// How it ended.
        outcome: Outcome,
        /// What it left.
        leftovers: Vec<String>,
        /// What it wrote.
        output: String,
    },
}

fn left(leftovers: &[String]) -> String {
    match leftovers {
        [] => String::new(),
        some => format!(", and left {}", some.join(", ")),
    }
}

fn said(output: &str) -> String {
    match output.trim() {
        "" => String::new(),
        text => format!("\n{text}"),
    }
}

/// A job of our own.
#[derive(Debug)]
pub struct Aside {
    /// Whose grants it has, and what it is recorded as.
    pub origin: Origin,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Why it runs, for the ledger.
    pub reason: &'static str,
    /// Whether no daemon keeps the packet filter meanwhile.
    pub alone: bool,
    /// Ends it.
    pub cancel: CancellationToken,
}

/// Bytes kept of what it writes; a configuration of less is for the logs of jobs.
const OUTPUT_BYTE: u64 = 64 * 1024 * 1024;

/// Runs the job in `slot`, which nobody else uses; everything it wrote.
///
/// # Errors
/// See [`AsideError`].
pub async fn run(pipeline: &Pipeline, slot: &Slot, id: JobId, aside: Aside) -> Result<String, AsideError> {
    let spec = JobSpec {
        origin: aside.origin,
        command: aside.command,
        env: BTreeMap::new(),
        timeout_s: None,
    };
    let entry = Entry {
        id: &id,
        spec: &spec,
        route: Route::Native,
        reason: aside.reason,
        ticket: None,
    };
    pipeline
        .ledger
        .record(entry, SystemTime::now())
        .map_err(|error| AsideError::Run {
            job: id.clone(),
            source: Box::new(error.into()),
        })?;
    let log = pipeline
        .planner()
        .data_dir()
        .join("logs")
        .join(format!("{id}.log"));
    let stream = Stream::Log {
        file: log.clone(),
        limit_byte: OUTPUT_BYTE,
    };
    let cancel = &aside.cancel;
    let ended = if aside.alone {
        pipeline.run_alone((&id, &spec), slot, stream, cancel).await
    } else {
        pipeline.run((&id, &spec), slot, stream, cancel).await
    };
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => {
            // Nobody watches its limits any more.
            let kill = Request::Signal {
                job: id.clone(),
                politely: false,
            };
            let _ = pipeline.warden.ask(kill, &[]).await;
            pipeline.pressure.forget(&id);
            return Err(AsideError::Run {
                job: id,
                source: Box::new(error),
            });
        }
    };
    let output = std::fs::read_to_string(&log);
    // A job that was refused before it started has written nothing.
    let _ = std::fs::remove_file(&log);
    if !ended.outcome.is_success() || !ended.leftovers.is_empty() {
        return Err(AsideError::Outcome {
            job: id,
            outcome: ended.outcome,
            leftovers: ended.leftovers,
            output: output.unwrap_or_default(),
        });
    }
    output.map_err(|source| AsideError::Output { job: id, source })
}
