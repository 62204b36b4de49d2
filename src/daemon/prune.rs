//! Housekeeping of a daemon that runs: every day, and when the disk is nearly full.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::Daemon;
use crate::host::free;
use crate::warden::client::WardenError;
use crate::warden::{Reply, Request};

/// How often it is looked whether the disk is nearly full.
const LOOK: Duration = Duration::from_secs(10 * 60);

/// How often what is too old is removed.
const DAILY: Duration = Duration::from_secs(24 * 60 * 60);

impl Daemon {
    /// Prunes when it is time to. Never returns.
    pub async fn housekeep(self: &Arc<Self>) -> Infallible {
        let mut due = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let planner = self.pipeline.planner();
            let config = planner.config();
            let is_full =
                free(&config.host.data_dir).is_ok_and(|free| free.disk_byte < config.prune.min_free_byte);
            if !is_full && Instant::now() < due {
                continue;
            }
            due = Instant::now() + DAILY;
            match self.prune().await {
                Ok((gone, failed)) => {
                    for what in gone {
                        info!("pruned {what}");
                    }
                    for what in failed {
                        warn!("could not prune {what}");
                    }
                }
                Err(why) => warn!(why, "could not prune"),
            }
        }
    }

    /// Has the warden remove what the limits say, and forgets jobs; what is gone, and what is not and why.
    ///
    /// # Errors
    /// In words.
    async fn prune(&self) -> Result<(Vec<String>, Vec<String>), String> {
        let ledger = &self.pipeline.ledger;
        let unfinished = ledger.unfinished().map_err(|error| crate::chain(&error))?;
        let live = unfinished.into_iter().map(|job| job.id).collect();
        let asked = self.pipeline.warden.ask(Request::Prune { live }, &[]).await;
        let pruned = match asked.map_err(|error| crate::chain(&error))? {
            Reply::Pruned { gone, failed } => (gone, failed),
            other => return Err(WardenError::Unexpected(Box::new(other)).to_string()),
        };
        let keep = usize::try_from(self.pipeline.planner().config().prune.jobs).unwrap_or(usize::MAX);
        ledger.prune(keep).map_err(|error| crate::chain(&error))?;
        Ok(pruned)
    }
}
