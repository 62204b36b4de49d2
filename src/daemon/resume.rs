//! A dispatcher that follows one that was killed: what it goes on with, and what it leaves for the next.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Daemon;
use super::recover::TakenUp;
use crate::control::SlotNow;
use crate::job::run::memo::Resumed;
use crate::job::{JobId, JobSpec, Outcome};
use crate::trust::Route;

/// What the next dispatcher must know besides its jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonMemo {
    /// The configuration that is in force, whatever its file says by now.
    pub config: Text,
    /// Whether no job is started.
    pub draining: bool,
}

/// A configuration that can be read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The name of the file that it is from, as it is told.
    pub file: String,
    /// What it says.
    pub text: String,
}

impl Daemon {
    /// Goes on with the jobs of an earlier dispatcher. Must be called before anything else is begun.
    pub fn take_up(self: &Arc<Self>, all: Vec<TakenUp>) {
        for one in all {
            match one {
                TakenUp::Running(id, resumed) => {
                    let cancel = CancellationToken::new();
                    {
                        let mut state = self.state();
                        state.running.insert(id.clone(), cancel.clone());
                        let busy = SlotNow::Busy { job: id.clone() };
                        state.taken.insert(resumed.slot.index, busy);
                    }
                    if let Some(source) = &self.source {
                        self.take_up_runner(source, &id, &resumed);
                    }
                    tokio::spawn(Arc::clone(self).go_on(id, *resumed, cancel));
                }
                TakenUp::Waiting(id, spec) => drop(tokio::spawn(Arc::clone(self).wait_again(id, *spec))),
            }
        }
    }

    async fn go_on(self: Arc<Self>, id: JobId, mut resumed: Resumed, cancel: CancellationToken) {
        let slot = resumed.slot.clone();
        info!(job = %id, slot = slot.index, "the job goes on");
        let unusable = match self.source.as_ref().filter(|source| source.has(&id)) {
            Some(source) => self.go_on_as_runner(source, &id, resumed, &cancel).await,
            None => {
                if resumed.launched.runner.is_some() {
                    resumed.unfit =
                        Some("GitHub, whose runner the job is, is not served any more".to_owned());
                }
                let how = (self.stream_of(&id), &cancel);
                let ended = self.pipeline.resume(&id, resumed, None, how).await;
                self.after_job(&id, &slot, ended).await
            }
        };
        self.job_over(&id, &slot, unusable);
    }

    /// Sends a job on its way once more that waits.
    async fn wait_again(self: Arc<Self>, id: JobId, spec: JobSpec) {
        let (decision, wanted) = self.decide(&spec.origin).await;
        let before = self.pipeline.ledger.job(&id).ok().flatten().map(|row| row.route);
        if before != Some(decision.route) && decision.route != Route::Refuse {
            let now = SystemTime::now();
            let rerouted = self
                .pipeline
                .ledger
                .reroute(&id, decision.route, &decision.reason, now);
            if let Err(error) = rerouted {
                error!(job = %id, error = crate::chain(&error), "could not record where the job goes");
                let reason = crate::chain(&error);
                self.end_unstarted(&id, Outcome::Failed { reason });
                return;
            }
        }
        self.send(&id, spec, (&decision, wanted));
    }

    /// Leaves with the warden what the next dispatcher must know besides its jobs.
    pub(super) fn leave_word(&self) {
        let memo = DaemonMemo {
            config: self.reading.in_force(),
            draining: self.state().draining,
        };
        self.pipeline.warden.keep(None, &memo, &[]);
    }

    /// Takes in what an earlier dispatcher has left, if there was one, and leaves the same for the next.
    pub fn begin(&self, memo: Option<&DaemonMemo>, killed: u32) {
        if let Some(memo) = memo {
            self.state().draining = memo.draining;
        }
        self.board
            .killed
            .store(killed, std::sync::atomic::Ordering::Relaxed);
        self.leave_word();
    }
}
