//! A runner that has a guest instead of a slot: the guest's image brings its program, and it gets a configuration of its own.
//!
//! No hook holds its job: a guest is made for what is not trusted, so that nothing is lost when GitHub gives it another job
//! than the one it was made for. Only one that is refused everywhere is ended, as soon as GitHub tells that the runner has it,
//! which may be some seconds after its first step.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use camino::Utf8PathBuf;
use tracing::{error, warn};

use super::{Has, Made};
use crate::daemon::Daemon;
use crate::daemon::github::Source;
use crate::daemon::github::poll::WITHDRAWN;
use crate::github::claim::Failure;
use crate::github::runner::listener::{Exit, RELAUNCHES};
use crate::github::ticket::Ticket;
use crate::host::Os;
use crate::job::run::runner::outcome;
use crate::job::{JobId, Outcome};
use crate::trust::Route;
use crate::vm::Wanted;
use crate::vm::script::GuestFile;

/// The folder of a runner's jobs, in that of the runner; what the runner itself chooses.
const WORK: &str = "_work";

/// How soon GitHub is asked again whether a runner without a job may go, when it did not say.
const IDLE_AGAIN: Duration = Duration::from_secs(30);

/// A runner that was made for a guest, and is used by the first one that starts its job.
#[derive(Debug)]
pub(in crate::daemon) struct InGuest {
    made: Made,
    made_for: Ticket,
    has: Has,
    root: Utf8PathBuf,
}

impl InGuest {
    /// Its configuration, which is put into the guest.
    pub(in crate::daemon) fn files(&self) -> Vec<GuestFile> {
        let files = self.made.config.files().iter();
        files
            .map(|file| GuestFile {
                name: file.name.to_owned(),
                folder: Some(self.root.to_string()),
                base64: STANDARD.encode(file.content.expose()),
            })
            .collect()
    }

    /// What the exit code of its listener means.
    pub(in crate::daemon) fn ended(&self, code: u8) -> Outcome {
        let has_job = self.has.borrow().is_some();
        // Whatever it would be started again for, another guest will do.
        outcome(Exit::Code(i32::from(code)), has_job, RELAUNCHES).unwrap_or(Outcome::Idle)
    }
}

impl Daemon {
    /// Where the runner is in the image of a guest, and of which system that is.
    pub(in crate::daemon) fn runner_in(&self, wanted: &Wanted) -> Option<(Utf8PathBuf, Os)> {
        let backends = &self.pipeline.planner.config().vm.backends;
        let backend = backends.get(&wanted.backend)?;
        Some((Utf8PathBuf::from(&backend.runner_dir), wanted.guest.os()))
    }

    /// Makes the runner of a job whose turn for a guest has come, unless it has one from an earlier guest.
    ///
    /// # Errors
    /// How the job ends, because there is no runner.
    pub(in crate::daemon) async fn make_in_guest(
        &self,
        source: &Source,
        id: &JobId,
        wanted: &Wanted,
        old: Option<InGuest>,
    ) -> Result<InGuest, Outcome> {
        let Some((scope, ticket, has)) = source.start(id) else {
            let reason = WITHDRAWN.to_owned();
            return Err(Outcome::Refused { reason });
        };
        if let Some(old) = old {
            return Ok(old);
        }
        let Some((root, _)) = self.runner_in(wanted) else {
            let reason = format!("there is no backend `{}`", wanted.backend);
            return Err(Outcome::Refused { reason });
        };
        match self.register(source, id, scope, &root.join(WORK)).await {
            Ok(made) => {
                source.made(id, made.id);
                Ok(InGuest {
                    made,
                    made_for: ticket,
                    has,
                    root,
                })
            }
            Err(error) => {
                let reason = crate::chain(&error);
                error!(job = %id, error = reason, "no runner");
                source.failed(&ticket, error.failure());
                Err(Outcome::Failed { reason })
            }
        }
    }

    /// Waits until a runner must end before its job does, and returns how that ends: it was given none within `boot` and
    /// `github.idle_timeout`, or one that may run nowhere here.
    pub(in crate::daemon) async fn must_end(
        &self,
        source: &Source,
        runner: &InGuest,
        boot: Duration,
    ) -> Outcome {
        let mut has = runner.has.clone();
        let mut idle_at = Instant::now() + boot + source.config.idle_timeout;
        loop {
            let given = has.borrow_and_update().clone();
            if let Some(why) = given.as_ref().and_then(|ticket| source.why_nowhere(ticket)) {
                source.sight().stopped += 1;
                warn!(
                    runner = runner.made.name,
                    why, "the runner's job is stopped: it may not run here"
                );
                let reason = format!("the runner was given a job that may not run here: {why}");
                return Outcome::Failed { reason };
            }
            tokio::select! {
                Ok(()) = has.changed() => {}
                () = tokio::time::sleep_until(idle_at.into()), if given.is_none() => {
                    idle_at = Instant::now() + IDLE_AGAIN;
                    if source.is_gone(&runner.made).await {
                        return Outcome::Idle;
                    }
                }
            }
        }
    }

    /// What follows from how a job with a runner in a guest ended, for the job it was made for.
    pub(in crate::daemon) fn learn_in_guest(&self, source: &Source, runner: &InGuest, outcome: &Outcome) {
        if runner.has.borrow().is_some() || self.is_closed() {
            return;
        }
        let failure = match outcome {
            Outcome::Ran { .. } => return,
            Outcome::Outdated => Failure::Final(format!(
                "{outcome}\nhint: the image of the guest brings the runner: make it again with a newer one"
            )),
            Outcome::Cancelled => Failure::cancelled(),
            Outcome::Failed { reason } | Outcome::Refused { reason } => Failure::Passing(reason.clone()),
            other => Failure::Passing(other.to_string()),
        };
        source.failed(&runner.made_for, failure);
    }
}

impl Source {
    /// Why a job may run neither natively nor in a guest, as it was last seen.
    fn why_nowhere(&self, ticket: &Ticket) -> Option<String> {
        let key = ticket.key();
        let sight = self.sight();
        let mut seen = sight.jobs.values().flatten();
        let seen = seen.find(|job| job.ticket.key() == key)?;
        (seen.decision.route == Route::Refuse).then(|| seen.decision.reason.clone())
    }
}
