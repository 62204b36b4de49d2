//! A runner that has a guest instead of a slot: the guest's image brings its program, and it gets a configuration of its own.
//!
//! No hook holds its job: a guest is made for what is not trusted, so that nothing is lost when GitHub gives it another job
//! than the one it was made for. Only one that is refused everywhere is ended, as soon as GitHub tells that the runner has it,
//! which may be some seconds after its first step.

use std::time::{Duration, Instant, SystemTime};

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
use crate::github::ticket::{Scope, Ticket};
use crate::host::Os;
use crate::job::run::runner::outcome;
use crate::job::{JobId, Outcome};
use crate::trust::Route;
use crate::vm::Wanted;
use crate::vm::script::GuestFile;

/// The folder of a runner's jobs, in that of the runner; what the runner itself chooses.
const WORK: &str = "_work";

/// How often GitHub is asked whether a runner of an organisation has a job that is not known here.
const STRANGER_EVERY: Duration = Duration::from_secs(10);

/// How soon GitHub is asked again whether a runner without a job may go, when it did not say.
const IDLE_AGAIN: Duration = Duration::from_secs(30);

/// A runner that was made for a guest, and is used by the first one that starts its job.
#[derive(Debug)]
pub(in crate::daemon) struct InGuest {
    made: Made,
    made_for: Ticket,
    has: Has,
    root: Utf8PathBuf,
    wanted: Wanted,
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
        let planner = self.pipeline.planner();
        let backend = planner.config().vm.backends.get(&wanted.backend)?;
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
                    wanted: wanted.clone(),
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
    /// `github.idle_timeout`, or one that must not run in this guest.
    pub(in crate::daemon) async fn must_end(
        &self,
        source: &Source,
        runner: &InGuest,
        boot: Duration,
    ) -> Outcome {
        let mut has = runner.has.clone();
        let mut idle_at = Instant::now() + boot + source.config().idle_timeout;
        let mut is_served = true;
        loop {
            let given = has.borrow_and_update().clone();
            if let Some(why) = given
                .as_ref()
                .and_then(|ticket| self.why_not_here(source, runner, ticket))
            {
                source.sight().stopped += 1;
                warn!(
                    runner = runner.made.name,
                    why, "the runner's job is stopped: it must not run in this guest"
                );
                let reason = format!("the runner was given a job that must not run in its guest: {why}");
                return Outcome::Failed { reason };
            }
            tokio::select! {
                Ok(()) = has.changed() => {}
                why = source.strangers_job(&runner.made), if given.is_none() => {
                    source.sight().stopped += 1;
                    warn!(runner = runner.made.name, why, "the runner's job is stopped: it is not known here");
                    return Outcome::Failed { reason: why };
                }
                () = source.serves_no_more(&runner.made.scope), if is_served && given.is_none() => {
                    is_served = false;
                    idle_at = Instant::now();
                }
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

impl Daemon {
    /// Why a job must not run in the guest of a runner that was given it, as it was last seen: it may run nowhere here, or only
    /// in a guest of another kind. One that might be native may run in any.
    fn why_not_here(&self, source: &Source, runner: &InGuest, ticket: &Ticket) -> Option<String> {
        let key = ticket.key();
        let decision = {
            let sight = source.sight();
            let mut seen = sight.jobs.values().flatten();
            seen.find(|job| job.ticket.key() == key)?.decision.clone()
        };
        let (decision, wanted) = self.in_guest(decision);
        let own = &runner.wanted;
        match (decision.route, wanted) {
            (Route::Refuse, _) => Some(decision.reason),
            (Route::Vm, Some(wanted)) if (&wanted.backend, &wanted.image) != (&own.backend, &own.image) => {
                Some(format!(
                    "it is for a guest of `{}` with image `{}`, and this is one of `{}` with `{}`",
                    wanted.backend, wanted.image, own.backend, own.image
                ))
            }
            (Route::Native | Route::Vm, _) => None,
        }
    }
}

impl Source {
    /// Waits until GitHub says that a runner is busy although no job of those seen is its own, twice with a look in between, and
    /// says so. Only a runner of an organisation can be given a job of a repository that is not looked at.
    async fn strangers_job(&self, made: &Made) -> String {
        if !matches!(made.scope, Scope::Org(_)) {
            return std::future::pending().await;
        }
        let mut busy_since = None;
        loop {
            tokio::time::sleep(STRANGER_EVERY).await;
            let is_busy = match self.client.runners(&made.scope, Some(&made.name)).await {
                Ok(found) => found
                    .items
                    .iter()
                    .any(|runner| runner.id == made.id && runner.busy),
                // It is asked again.
                Err(_) => false,
            };
            let (asked, is_all_known) = {
                let sight = self.sight();
                (sight.asked, sight.failing.is_empty())
            };
            match busy_since {
                _ if !is_busy => busy_since = None,
                None => {
                    busy_since = Some(SystemTime::now());
                    self.wake();
                }
                Some(since) if is_all_known && asked.is_some_and(|asked| asked > since) => {
                    return format!(
                        "the runner has a job of {} that is of no repository that is served here\nhint: name it in `github.repos`, or keep it out of the runner group",
                        made.scope
                    );
                }
                Some(_) => {}
            }
        }
    }
}
