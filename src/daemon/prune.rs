//! Housekeeping of a daemon that runs: every day, and when the disk is nearly full.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::Daemon;
use crate::host::free;
use crate::host::prune::prune;

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
            let daemon = Arc::clone(self);
            let pruning =
                tokio::task::spawn_blocking(move || prune(planner.config(), &daemon.pipeline.ledger, false));
            match pruning.await {
                Ok(Ok(pruned)) => {
                    for chosen in &pruned.gone {
                        info!("pruned {chosen}");
                    }
                    for (chosen, error) in &pruned.failed {
                        warn!(error = crate::chain(error), "could not prune {chosen}");
                    }
                }
                Ok(Err(error)) => warn!(error = crate::chain(&error), "could not prune"),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
    }
}
