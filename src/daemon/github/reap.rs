//! No runner stays at GitHub whose job here is over.
//!
//! Runners are deleted by their number, which the ledger has. One without a number is of an attempt whose answer never
//! came; it is looked for by its name, which nobody else uses. GitHub refuses to delete a runner that is busy, and keeps it
//! busy for a while after its job: that is tried again, and nothing is done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, info, warn};

use super::Source;
use crate::daemon::Daemon;
use crate::github::api::runners::Deletion;
use crate::github::client::ClientError;
use crate::github::ticket::Scope;
use crate::job::JobId;
use crate::job::ledger::Registered;

/// How soon the first ones are tried again; twice as long each further time.
const AGAIN: Duration = Duration::from_secs(5);

/// The longest of these waits.
const AT_MOST: Duration = Duration::from_secs(5 * 60);

/// How long a runner without a number is looked for: a request that was cut off may still be carried out.
const LOOK_FOR: Duration = Duration::from_secs(2 * 60);

/// How long an ending daemon tries.
const FAREWELL: Duration = Duration::from_secs(10);

/// What is known of a runner that should be gone.
#[derive(Debug, Clone, Copy)]
struct Try {
    first: Instant,
    next: Instant,
    wait: Duration,
}

impl Daemon {
    /// Deletes runners that should be gone. Never returns.
    pub(super) async fn reap(&self, source: &Source) -> Infallible {
        self.sweep(source).await;
        let mut tries: BTreeMap<JobId, Try> = BTreeMap::new();
        loop {
            let over = self.over();
            tries.retain(|job, _| over.iter().any(|one| one.job == *job));
            for one in over {
                let now = Instant::now();
                let tried = tries.entry(one.job.clone()).or_insert(Try {
                    first: now,
                    next: now,
                    wait: AGAIN,
                });
                if tried.next > now {
                    continue;
                }
                // Each for itself: what one of them meets is no reason to leave the others.
                self.reap_one(source, &one, now.duration_since(tried.first)).await;
                tried.next = Instant::now() + tried.wait;
                tried.wait = (tried.wait * 2).min(AT_MOST);
            }
            let next = tries.values().map(|tried| tried.next).min();
            let pause = next.map_or(AT_MOST, |next| next.saturating_duration_since(Instant::now()));
            tokio::select! {
                () = tokio::time::sleep(pause.max(Duration::from_millis(100))) => {}
                () = source.ended.notified() => {}
            }
        }
    }

    /// Deletes one runner, if GitHub lets us. `sought` is how long it has been tried.
    async fn reap_one(&self, source: &Source, one: &Registered, sought: Duration) {
        let runner = &one.runner.name;
        match source.delete(one, sought).await {
            Ok(true) => {
                if let Err(error) = self.pipeline.ledger.gone(&one.job, SystemTime::now()) {
                    warn!(
                        error = crate::chain(&error),
                        "could not record the end of a runner"
                    );
                }
            }
            Ok(false) => debug!(runner, "still busy at GitHub, or not found yet"),
            Err(error) => warn!(runner, error = crate::chain(&error), "could not delete a runner"),
        }
    }

    /// Deletes what can be deleted before the daemon ends, and ends sessions of scale sets, within ten seconds; the next start
    /// does the rest.
    pub async fn leave_github(&self) {
        let Some(source) = &self.source else { return };
        let all = async {
            for one in self.over() {
                self.reap_one(source, &one, Duration::ZERO).await;
            }
            for set in source.sets.values() {
                set.leave().await;
            }
        };
        if tokio::time::timeout(FAREWELL, all).await.is_err() {
            warn!("GitHub does not answer; the next start deletes the runners that are left");
        }
    }

    /// Runners that GitHub may still have although their job here is over.
    fn over(&self) -> Vec<Registered> {
        match self.pipeline.ledger.registrations() {
            Ok(all) => all.into_iter().filter(|one| one.finished).collect(),
            Err(error) => {
                warn!(error = crate::chain(&error), "could not look up runners");
                vec![]
            }
        }
    }

    /// Deletes runners that have a name of ours and that the ledger does not know: it may have forgotten its last lines in
    /// a power cut. Once, at the start.
    async fn sweep(&self, source: &Source) {
        for scope in super::scopes(&source.config()) {
            match self.delete_strangers(source, &scope).await {
                Ok(0) => {}
                Ok(count) => info!(%scope, count, "deleted runners of ours that nobody knew"),
                Err(error) => {
                    warn!(%scope, error = crate::chain(&error), "could not look for runners of ours")
                }
            }
        }
    }
}

impl Daemon {
    /// Deletes the runners of a scope that have a name of ours and that the ledger does not know; how many.
    async fn delete_strangers(&self, source: &Source, scope: &Scope) -> Result<usize, ClientError> {
        let all = source.client.runners(scope, None).await?.items;
        // Read after the list was made: a runner is in the ledger before it is at GitHub.
        let known: BTreeSet<String> = match self.pipeline.ledger.registrations() {
            Ok(known) => known.into_iter().map(|one| one.runner.name).collect(),
            Err(error) => {
                warn!(error = crate::chain(&error), "could not look up runners");
                return Ok(0);
            }
        };
        let mut count = 0;
        for runner in all {
            let is_ours = runner.name.starts_with(&source.prefix) && !known.contains(&runner.name);
            if is_ours && source.delete_runner(scope, runner.id).await? == Deletion::Gone {
                count += 1;
            }
        }
        Ok(count)
    }
}

impl Source {
    /// Whether GitHub has a runner no more; it is deleted if it can be. `sought` is how long it has been tried.
    async fn delete(&self, one: &Registered, sought: Duration) -> Result<bool, ClientError> {
        let scope = &one.runner.scope;
        let id = match one.id {
            Some(id) => id,
            None if let Some(set) = self.set(scope) => match set.find_runner(&one.runner.name).await? {
                Some(id) => id,
                None => return Ok(sought >= LOOK_FOR),
            },
            None => {
                let found = self.client.runners(scope, Some(&one.runner.name)).await?;
                match found.items.iter().find(|runner| runner.name == one.runner.name) {
                    Some(runner) => runner.id,
                    None => return Ok(found.unreadable == 0 && sought >= LOOK_FOR),
                }
            }
        };
        Ok(self.delete_runner(scope, id).await? == Deletion::Gone)
    }

    /// Deletes a runner, unless it has a job.
    pub(super) async fn delete_runner(&self, scope: &Scope, id: u64) -> Result<Deletion, ClientError> {
        match self.set(scope) {
            Some(set) => set.delete_runner(id).await,
            None => self.client.delete_runner(scope, id).await,
        }
    }
}
