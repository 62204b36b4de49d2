//! No job starts while this host has less free than it keeps; those that wait say so.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{error, info, warn};

use super::Daemon;
use crate::job::JobId;
use crate::job::state::QUEUED;

/// How often is looked whether there is room again.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the ledger says of jobs that wait, once there is room again.
const ROOM: &str = "there is room again";

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
        }
    }
}
