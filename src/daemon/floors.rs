//! No job starts while this host has less free than it keeps; those that wait say so.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{debug, error, info, warn};

use super::Daemon;
use crate::job::run::RunError;
use crate::job::state::QUEUED;
use crate::job::{JobId, Outcome};
use crate::slot::Slot;

/// How often is looked whether there is room again.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the ledger says of jobs that wait, once there is room again.
const ROOM: &str = "there is room again";

/// The outcome of a job that ran when nothing could be written.
const NOT_WRITTEN: &str = "what became of the job could not be written down";

impl Daemon {
    /// Whether nothing may start for now. When that changes, it is told and noted with every job that waits.
    pub(super) fn is_full(&self) -> bool {
        let why = self.pipeline.why_full();
        let is_full = why.is_some();
        let waiting: Vec<JobId> = {
            let mut state = self.state();
            let was_full = state.full.is_some();
            state.full.clone_from(&why);
            if was_full == is_full {
                return is_full;
            }
            state.queue.iter().chain(state.vms.waiting()).cloned().collect()
        };
        match &why {
            Some(why) => warn!(why, "no job starts"),
            None => info!("{ROOM}"),
        }
        for job in waiting {
            self.note_waiting(&job, why.as_deref().unwrap_or(ROOM));
        }
        self.wake_source();
        is_full
    }

    /// Notes why a job that is new has to wait, if it is for room.
    pub(super) fn note_if_full(&self, job: &JobId) {
        let why = self.state().full.clone();
        if let Some(why) = why {
            self.note_waiting(job, &why);
        }
    }

    fn note_waiting(&self, job: &JobId, why: &str) {
        if let Err(error) = self
            .pipeline
            .ledger
            .enter(job, QUEUED, Some(why), SystemTime::now())
        {
            error!(job = %job, error = crate::chain(&error), "could not record why it waits");
        }
    }

    /// Starts what waits when there is room again. Never returns.
    pub async fn watch_floors(self: &Arc<Self>) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.state().full.is_some() && !self.is_full() {
                self.pump();
                self.pump_guests();
            }
            if self.state().full.is_none()
                && let Err(error) = self.pipeline.ledger.keep_ballast()
            {
                warn!(%error, "no room could be kept for the ledger");
            }
            self.settle_late().await;
        }
    }

    /// Tears down jobs whose end could not be written when they ended, once it can be, so that their slots are of use again.
    async fn settle_late(self: &Arc<Self>) {
        let unsettled = self.state().unsettled.clone();
        for (index, job) in unsettled {
            let Some(slot) = self.slots.get(&index) else {
                continue;
            };
            match self.torn_down(&job, slot).await {
                Ok(left) => {
                    info!(%job, slot = index, "the job is torn down, and its end is written");
                    self.state().unsettled.remove(&index);
                    if left.is_empty()
                        && let Err(error) = self.pipeline.ledger.lift_quarantine(index)
                    {
                        warn!(
                            slot = index,
                            error = crate::chain(&error),
                            "in quarantine from the next start"
                        );
                    }
                    let why = (!left.is_empty()).then(|| format!("job {job} left {}", left.join(", ")));
                    self.free(slot, why);
                }
                // What it is about was told when the job ended.
                Err(error) => debug!(%job, slot = index, error = crate::chain(&error), "not yet"),
            }
        }
    }

    /// Tears a job down and writes its end; what is left of it.
    async fn torn_down(&self, job: &JobId, slot: &Slot) -> Result<Vec<String>, RunError> {
        let mut unfinished = self.pipeline.ledger.unfinished()?.into_iter();
        let Some(found) = unfinished.find(|one| one.id == *job) else {
            return Ok(vec![]);
        };
        let outcome = found.ending.unwrap_or_else(|| Outcome::Failed {
            reason: NOT_WRITTEN.to_owned(),
        });
        let open = (found.open, vec![]);
        let ended = self
            .pipeline
            .recover(job, Some(slot), open, Some(outcome))
            .await?;
        Ok(ended.leftovers)
    }
}
