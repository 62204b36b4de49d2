//! A runner that an earlier dispatcher has started, and that goes on.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Entrance, Has, Made};
use crate::daemon::Daemon;
use crate::daemon::door::Door;
use crate::daemon::github::{Life, Source};
use crate::github::admission::course::{Course, Event};
use crate::github::demand::Stage;
use crate::github::runner::jit::JitConfig;
use crate::github::runner::tree::Build;
use crate::github::ticket::{AtGitHub, Ticket};
use crate::job::JobId;
use crate::job::run::RunnerOrder;
use crate::job::run::memo::{Resumed, RunnerMemo};

impl Daemon {
    /// Counts a runner of an earlier dispatcher among ours, so that no other is made for its job.
    pub(in crate::daemon) fn take_up_runner(&self, source: &Source, id: &JobId, resumed: &Resumed) {
        let build = resumed.launched.runner.as_ref().map(|runner| &runner.build);
        let build = build.and_then(|build| build.parse::<Build>().ok());
        let at = self.at_github(id);
        let (
            Some(build),
            Some(AtGitHub {
                ticket,
                runner,
                runner_id,
                taken,
            }),
        ) = (build, at)
        else {
            return;
        };
        let Some(runner) = runner else { return };
        let stage = match &taken {
            Some(_) => Stage::Taken,
            None => Stage::Free,
        };
        let life = Life {
            made_for: ticket,
            scope: runner.scope,
            in_guest: false,
            runner: runner_id,
            stage,
            version: Some(build.version),
            has: watch::Sender::new(taken),
        };
        source.sight().lives.insert(id.clone(), life);
    }

    fn at_github(&self, id: &JobId) -> Option<AtGitHub> {
        self.pipeline.ledger.at_github(id).unwrap_or_else(|error| {
            warn!(job = %id, error = crate::chain(&error), "could not look up a job of GitHub's");
            None
        })
    }

    /// Goes on with it. Returns why the slot is of no use afterwards, if it is not.
    pub(in crate::daemon) async fn go_on_as_runner(
        &self,
        source: &Source,
        id: &JobId,
        mut resumed: Resumed,
        cancel: &CancellationToken,
    ) -> Option<String> {
        let law = self.law(source);
        let slot = resumed.slot.clone();
        let how = (self.stream_of(id), cancel);
        let found = match self.found(source, id, &mut resumed) {
            Ok(found) => found,
            Err(why) => {
                // Nobody could let its job through, or keep it out.
                resumed.unfit = Some(format!("the runner cannot go on: {why}"));
                let ended = self.pipeline.resume(id, resumed, None, how).await;
                return self.after_job(id, &slot, ended).await;
            }
        };
        let Found {
            made,
            build,
            memo,
            entrance,
            ticket,
            has,
        } = found;
        let Entrance { mut door, hook, kept } = entrance;
        let lease = source.trees.lease(build);
        if let Some(pid) = resumed.pid {
            door.launched(pid);
        }
        let (said, heard) = mpsc::unbounded_channel();
        let (order, ordered) = mpsc::unbounded_channel();
        let runner = RunnerOrder {
            build,
            config: made.config.clone(),
            hook: Some(hook),
            grace: memo.grace,
            door: Some(kept),
            admitted: memo.admitted,
            said,
            has: has.clone(),
        };
        let begin = match (memo.admitted, has.borrow().is_some()) {
            (true, _) => Course::Admitted,
            // Its hook may have spoken to an earlier dispatcher, and then speaks again.
            (false, true) => Course::default().step(Event::Expected, Duration::ZERO).0,
            (false, false) => Course::default(),
        };
        let running = self.pipeline.resume(id, resumed, Some((runner, ordered)), how);
        let watching = self.watch_over(source, (id, &made), (&mut door, has), (heard, order), begin);
        let ended = tokio::select! {
            ended = running => ended,
            never = watching => match never {},
        };
        drop(lease);
        let unusable = self.after_job(id, &slot, ended).await;
        self.close_entrance(&slot).await;
        let version = build.version;
        self.learn(source, id, (&ticket, version, &law), cancel.is_cancelled());
        unusable
    }

    /// What there is of it.
    ///
    /// # Errors
    /// Something is missing, in words.
    fn found(&self, source: &Source, id: &JobId, resumed: &mut Resumed) -> Result<Found, String> {
        let memo = resumed.launched.runner.take().ok_or("it is none")?;
        let build = memo.build.parse::<Build>().map_err(|error| error.to_string())?;
        let config = JitConfig::try_from(memo.config.clone()).map_err(|error| error.to_string())?;
        let socket = resumed.door.take().ok_or("it has no entrance")?;
        let kept = socket.try_clone().map_err(|error| error.to_string())?;
        let account = resumed.slot.account.uid;
        let door = Door::open(socket.into(), account).map_err(|error| error.to_string())?;
        let hook = memo.hook.clone().ok_or("it has no hook")?;
        let at = self.at_github(id).ok_or("nobody knows what it is at GitHub")?;
        let (runner, number) = at.runner.zip(at.runner_id).ok_or("it has no number")?;
        let has = source.sight().lives.get(id).map(|life| life.has.subscribe());
        Ok(Found {
            made: Made {
                id: number,
                name: runner.name,
                scope: runner.scope,
                config,
            },
            build,
            memo,
            entrance: Entrance { door, hook, kept },
            ticket: at.ticket,
            has: has.ok_or("it is not counted")?,
        })
    }
}

/// What an earlier dispatcher has left of a runner.
struct Found {
    made: Made,
    build: Build,
    memo: RunnerMemo,
    entrance: Entrance,
    /// The job that it was made for.
    ticket: Ticket,
    has: Has,
}
