//! One runner, in its slot: made at GitHub, started, admitted or stopped, and gone. One in a guest is in `guest`.

mod admit;
mod again;
mod guest;

use std::os::fd::OwnedFd;
use std::time::{Instant, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub(in crate::daemon) use guest::InGuest;

use super::Source;
use super::poll::{DRAINED, WITHDRAWN};
use super::reload::Law;
use super::trees::Lease;
use crate::daemon::Daemon;
use crate::daemon::door::Door;
use crate::github::admission::course::Course;
use crate::github::admission::hook::{Place, TooLong};
use crate::github::api::runners::{JitRunner, NewRunner};
use crate::github::claim::Failure;
use crate::github::client::{ClientError, Retry};
use crate::github::runner::jit::{JitConfig, JitError};
use crate::github::runner::version::{Event as Known, RunnerVersion};
use crate::github::ticket::{Runner, Scope, Ticket};
use crate::job::ledger::LedgerError;
use crate::job::run::RunnerOrder;
use crate::job::{JobId, JobSpec, Outcome};
use crate::slot::Slot;
use crate::warden::Request;
use crate::warden::client::WardenError;
use crate::workspace::Workspace;

/// How often another name is tried when GitHub has a runner of that name.
const NAMES: u32 = 3;

/// The number of the group that runners of repositories are in (docs.github.com, "Self-hosted runner groups": every
/// repository has the default one alone).
const DEFAULT_GROUP: u64 = 1;

/// Why a runner could not be made.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    /// GitHub did not make one.
    #[error("could not make a runner")]
    GitHub(#[from] ClientError),
    /// The organisation has no such group, as far as we may see.
    #[error(
        "{org} has no runner group `{name}` that we may use\nhint: `ephemerd github check` lists the groups; set `github.runner_group`"
    )]
    NoGroup {
        /// The organisation.
        org: String,
        /// The group.
        name: String,
    },
    /// What it made cannot be used.
    #[error("GitHub's configuration of the runner cannot be used")]
    Jit(#[from] JitError),
    /// It made another one than was asked for.
    #[error("GitHub made runner {id} `{name}`, and its configuration is that of another")]
    Another {
        /// GitHub's number.
        id: u64,
        /// Its name.
        name: String,
    },
    /// It cannot be remembered, so it must not be made.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The slot has no entrance for the hook.
    #[error(transparent)]
    Entrance(#[from] WardenError),
    /// The warden has made none.
    #[error("the warden has made no entrance for the job's hook")]
    NoEntrance,
    /// Its path would be too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// Its socket cannot be used.
    #[error("could not listen for the job's hook")]
    Door(#[source] std::io::Error),
}

/// Where a job's hook reports.
struct Entrance {
    door: Door,
    hook: Utf8PathBuf,
    /// Its socket, for the dispatcher that follows.
    kept: OwnedFd,
}

/// Tells which job a runner has.
type Has = watch::Receiver<Option<Ticket>>;

/// A runner that was made.
#[derive(Debug)]
pub(super) struct Made {
    /// GitHub's number of it.
    pub(super) id: u64,
    /// Its name.
    pub(super) name: String,
    pub(super) scope: Scope,
    config: JitConfig,
}

impl MakeError {
    /// What it means for the job that the runner was for.
    fn failure(&self) -> Failure {
        let why = crate::chain(self);
        match self {
            Self::GitHub(error) => match error.retry() {
                // A name that is taken is another one the next time.
                Retry::Never if is_conflict(error) => Failure::Passing(why),
                Retry::Never => Failure::Final(why),
                Retry::Soon => Failure::Passing(why),
                Retry::After(wait) => Failure::Later { wait, why },
            },
            Self::NoGroup { .. } => Failure::Final(why),
            Self::Jit(_)
            | Self::Another { .. }
            | Self::Ledger(_)
            | Self::Entrance(_)
            | Self::NoEntrance
            | Self::TooLong(_)
            | Self::Door(_) => Failure::Passing(why),
        }
    }
}

fn is_conflict(error: &ClientError) -> bool {
    matches!(error, ClientError::Conflict { .. })
}

/// Whether GitHub said no, so that there is no runner. After anything else there may be one.
fn was_refused(error: &ClientError) -> bool {
    !matches!(error.retry(), Retry::Soon)
}

impl Daemon {
    /// Runs the runner of a job that has a slot. Returns why the slot is of no use afterwards, if it is not.
    pub(in crate::daemon) async fn run_runner(
        &self,
        source: &Source,
        (id, spec): (&JobId, &JobSpec),
        slot: &Slot,
        cancel: &CancellationToken,
    ) -> Option<String> {
        let law = self.law(source);
        let Some((scope, ticket, has)) = source.start(id) else {
            let reason = WITHDRAWN.to_owned();
            self.end_unstarted(id, Outcome::Refused { reason });
            return None;
        };
        // Waiting for a slot took time, and so did looking whether the host has what it must.
        if self.is_closed() {
            let reason = DRAINED.to_owned();
            self.end_unstarted(id, Outcome::Refused { reason });
            return None;
        }
        let lease = match source.trees.admit(Instant::now()) {
            Ok(lease) => lease,
            Err((why, wait)) => {
                source.failed(
                    &ticket,
                    Failure::Later {
                        wait,
                        why: why.clone(),
                    },
                );
                self.end_unstarted(id, Outcome::Refused { reason: why });
                return None;
            }
        };
        source.is_of(id, lease.build.version);
        let made = self.make_runner(source, id, scope, slot).await;
        match made {
            Ok((made, entrance)) => {
                let build = lease.build;
                let unusable = self
                    .run_made(source, (id, spec), slot, (&made, lease), (entrance, has), cancel)
                    .await;
                self.close_entrance(slot).await;
                self.learn(source, id, (&ticket, build.version, &law), cancel.is_cancelled());
                unusable
            }
            Err(error) => {
                let reason = crate::chain(&error);
                error!(job = %id, error = reason, "no runner");
                source.trees.note(Known::Idle(lease.build.version));
                source.failed(&ticket, error.failure());
                self.end_unstarted(id, Outcome::Failed { reason });
                None
            }
        }
    }

    /// Makes a runner, and the entrance by which its hook reports.
    async fn make_runner(
        &self,
        source: &Source,
        id: &JobId,
        scope: Scope,
        slot: &Slot,
    ) -> Result<(Made, Entrance), MakeError> {
        let place = Place::new(&source.host.run, self.pipeline.planner().data_dir(), slot.index)?;
        let work = Workspace::new(self.pipeline.planner().data_dir(), id).work();
        let made = self.register(source, id, scope, &work).await?;
        source.made(id, made.id);
        let make = Request::Entrance {
            slot: slot.index,
            account: slot.account.clone(),
        };
        let (_, sockets) = self.pipeline.warden.ask_for(make, &[]).await?;
        let socket = sockets.into_iter().next().ok_or(MakeError::NoEntrance)?;
        let kept = socket.try_clone().map_err(MakeError::Door)?;
        let door = Door::open(socket.into(), slot.account.uid).map_err(MakeError::Door)?;
        let hook = place.hook();
        Ok((made, Entrance { door, hook, kept }))
    }

    /// Removes the entrance of a slot.
    async fn close_entrance(&self, slot: &Slot) {
        let close = Request::CloseEntrance { slot: slot.index };
        if let Err(error) = self.pipeline.warden.ask(close, &[]).await {
            warn!(
                slot = slot.index,
                error = crate::chain(&error),
                "could not remove the entrance of a slot"
            );
        }
    }

    /// Makes a runner at GitHub, whose jobs work in `work`. It is in the ledger by its name before it is made, and by its
    /// number as soon as that is known.
    async fn register(
        &self,
        source: &Source,
        id: &JobId,
        scope: Scope,
        work: &Utf8Path,
    ) -> Result<Made, MakeError> {
        let group = source.group_of(&scope).await?;
        let ledger = &self.pipeline.ledger;
        let mut roll = 0;
        loop {
            let again = if roll == 0 {
                String::new()
            } else {
                format!("-{roll}")
            };
            let name = format!("{}{id}{again}", source.prefix);
            let runner = Runner {
                scope: scope.clone(),
                name: name.clone(),
            };
            ledger.registering(id, &runner)?;
            let wanted = NewRunner {
                name: name.clone(),
                group,
                labels: source.config().labels.clone(),
            };
            let error = match source.generate(&scope, &wanted).await {
                Ok(jit) => {
                    ledger.registered(id, jit.runner_id)?;
                    let config = JitConfig::decode(&jit.encoded, work)?;
                    if (config.agent_id(), config.agent_name()) != (jit.runner_id, name.as_str()) {
                        let id = jit.runner_id;
                        return Err(MakeError::Another { id, name });
                    }
                    info!(job = %id, runner = name, number = jit.runner_id, %scope, "runner made");
                    return Ok(Made {
                        id: jit.runner_id,
                        name,
                        scope,
                        config,
                    });
                }
                Err(error) => error,
            };
            if was_refused(&error) {
                ledger.gone(id, SystemTime::now())?;
            }
            roll += 1;
            if !is_conflict(&error) || roll == NAMES {
                return Err(error.into());
            }
        }
    }

    async fn run_made(
        &self,
        source: &Source,
        (id, spec): (&JobId, &JobSpec),
        slot: &Slot,
        (made, lease): (&Made, Lease),
        (entrance, has): (Entrance, Has),
        cancel: &CancellationToken,
    ) -> Option<String> {
        let Entrance { mut door, hook, kept } = entrance;
        let (said, heard) = mpsc::unbounded_channel();
        let (order, ordered) = mpsc::unbounded_channel();
        let runner = RunnerOrder {
            build: lease.build,
            config: made.config.clone(),
            hook: Some(hook),
            grace: source.config().stop_grace,
            door: Some(kept),
            admitted: false,
            said,
            has: has.clone(),
        };
        let running = self.run_admitted((id, spec), Some((runner, ordered)), slot, cancel);
        let begin = Course::default();
        let watching = self.watch_over(source, (id, made), (&mut door, has), (heard, order), begin);
        tokio::select! {
            unusable = running => unusable,
            never = watching => match never {},
        }
    }

    /// What follows from how a runner ended, for the job it was made for and for its version.
    fn learn(
        &self,
        source: &Source,
        id: &JobId,
        (made_for, version, law): (&Ticket, RunnerVersion, &Law),
        was_cancelled: bool,
    ) {
        let row = self.pipeline.ledger.job(id).unwrap_or_else(|error| {
            warn!(job = %id, error = crate::chain(&error), "could not look up how a runner ended");
            None
        });
        let (outcome, at) = row.map(|row| (row.outcome, row.github)).unwrap_or_default();
        let taken = at.and_then(|at| at.taken);
        source.trees.note(match &outcome {
            Some(Outcome::Ran { .. }) => Known::TookJob(version),
            Some(Outcome::Outdated) => Known::Refused(version),
            // However it ended: nobody need wait for it to tell whether its version is taken.
            _ => Known::Idle(version),
        });
        let Some(outcome) = outcome else { return };
        if taken.is_some() || matches!(outcome, Outcome::Ran { .. } | Outcome::Outdated) || self.is_closed() {
            return;
        }
        // It went because another one is to be made.
        if outcome == Outcome::Idle && !self.is_still(source, law) {
            return;
        }
        // It was for nothing, and without waiting longer each time that could go on for ever.
        source.failed(
            made_for,
            match outcome {
                Outcome::Cancelled if was_cancelled => Failure::cancelled(),
                Outcome::Failed { reason } | Outcome::Refused { reason } => Failure::Passing(reason),
                other => Failure::Passing(other.to_string()),
            },
        );
    }
}

impl Source {
    /// Makes a runner, of the scale set where there is one.
    async fn generate(&self, scope: &Scope, wanted: &NewRunner) -> Result<JitRunner, ClientError> {
        match self.set(scope) {
            Some(set) => set.generate(&wanted.name).await,
            None => self.client.generate_jit(scope, wanted).await,
        }
    }

    /// The number of the group that runners of a scope are put in; those of a scale set are in its group.
    async fn group_of(&self, scope: &Scope) -> Result<u64, MakeError> {
        let Scope::Org(org) = scope else {
            return Ok(DEFAULT_GROUP);
        };
        if self.set(scope).is_some() {
            return Ok(DEFAULT_GROUP);
        }
        let config = self.config();
        let name = &config.runner_group;
        let found = self
            .group
            .get_or_try_init(|| async {
                let groups = self.client.runner_groups(org).await?.items;
                let group = groups
                    .into_iter()
                    .find(|group| group.name.eq_ignore_ascii_case(name));
                group.map(|group| group.id).ok_or_else(|| MakeError::NoGroup {
                    org: org.clone(),
                    name: name.clone(),
                })
            })
            .await;
        found.copied()
    }
}
