//! The runner trees of this host: fetched before they are needed, changed when GitHub asks for it, removed when nobody
//! needs them. What is to be done is decided by [`version`](crate::github::runner::version).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::github::client::{Client, ClientError};
use crate::github::runner::tree::{Build, Platform, Sha256, removable};
use crate::github::runner::version::{Decision, Event, Refusal, RunnerVersion, Watchdog};
use crate::host::Host;
use crate::host::runner::{self, RunnerError};

/// How often the watchdog is told that time passes, and how soon it is tried again to have a first tree.
const TICK: Duration = Duration::from_secs(60);

/// The longest wait before it is tried again to have a first tree.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
enum TreeError {
    /// What the latest release is could not be found out.
    #[error("could not ask which runner is the latest")]
    Latest(#[source] ClientError),
    /// The latest release does not say what its archive should be.
    #[error(
        "the notes of runner {version} have no hash for {platform}\nhint: set `github.runner_version` and `github.runner_sha256`"
    )]
    NoHash {
        /// The release.
        version: RunnerVersion,
        /// The archive that is wanted.
        platform: Platform,
    },
    /// It could not be put in its place.
    #[error(transparent)]
    Install(#[from] RunnerError),
}

/// The trees.
#[derive(Debug)]
pub(super) struct Trees {
    host: Host,
    folder: Utf8PathBuf,
    platform: Platform,
    releases: String,
    pin: Option<(RunnerVersion, Sha256)>,
    state: Mutex<State>,
    wake: Notify,
    /// There is a first tree.
    ready: Notify,
}

#[derive(Debug)]
struct State {
    /// None before there is a first tree.
    watchdog: Option<Watchdog>,
    /// Why there is none, or what somebody should know.
    notice: Option<String>,
    /// What has happened and the watchdog does not know yet.
    events: Vec<Event>,
    /// Hashes of archives, from the notes of their releases.
    hashes: BTreeMap<RunnerVersion, Sha256>,
    in_use: Arc<Mutex<BTreeMap<Build, usize>>>,
}

impl State {
    fn lease(&self, build: Build) -> Lease {
        let in_use = Arc::clone(&self.in_use);
        *in_use
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(build)
            .or_default() += 1;
        Lease { build, in_use }
    }
}

/// A tree that a runner uses, and that stays as long as it does.
#[derive(Debug)]
pub(super) struct Lease {
    /// Which.
    pub(super) build: Build,
    in_use: Arc<Mutex<BTreeMap<Build, usize>>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = in_use.get_mut(&self.build) {
            *count -= 1;
            if *count == 0 {
                in_use.remove(&self.build);
            }
        }
    }
}

impl Trees {
    /// Trees for `platform` in `folder`: the pinned one if there is one, otherwise the latest. Nothing is fetched yet.
    pub(super) fn new(
        host: &Host,
        (folder, platform): (Utf8PathBuf, Platform),
        releases: String,
        pin: Option<(RunnerVersion, Sha256)>,
    ) -> Self {
        Self {
            host: host.clone(),
            folder,
            platform,
            releases,
            pin,
            state: Mutex::new(State {
                watchdog: None,
                notice: Some("the runner's program is not here yet".to_owned()),
                events: vec![],
                hashes: BTreeMap::new(),
                in_use: Arc::default(),
            }),
            wake: Notify::new(),
            ready: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tree for a runner that is made now, or why none may be made and for how long.
    pub(super) fn admit(&self, now: Instant) -> Result<Lease, (String, Duration)> {
        let mut state = self.state();
        let Some(watchdog) = &mut state.watchdog else {
            return Err((state.notice.clone().unwrap_or_default(), TICK));
        };
        let version = watchdog.admit(now).map_err(|refusal| {
            let wait = match refusal {
                Refusal::Paused { left, .. } => left,
                Refusal::Probing { .. } => TICK,
            };
            (refusal.to_string(), wait)
        })?;
        let build = Build {
            version,
            platform: self.platform,
        };
        Ok(state.lease(build))
    }

    /// The tree of a runner that was made by an earlier dispatcher.
    pub(super) fn lease(&self, build: Build) -> Lease {
        self.state().lease(build)
    }

    /// Why there is no tree at all, if there is none.
    pub(super) fn why_none(&self) -> Option<String> {
        let state = self.state();
        let none = state.watchdog.is_none();
        none.then(|| state.notice.clone().unwrap_or_default())
    }

    /// Ends when there is a first tree.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// The version of the next runner, and what somebody should know about it.
    pub(super) fn now(&self) -> (Option<RunnerVersion>, Option<String>) {
        let state = self.state();
        (state.watchdog.as_ref().map(Watchdog::used), state.notice.clone())
    }

    /// Takes in what became of a runner.
    pub(super) fn note(&self, event: Event) {
        let mut state = self.state();
        if matches!(event, Event::TookJob(_)) {
            state.notice = None;
        }
        state.events.push(event);
        drop(state);
        self.wake.notify_one();
    }

    /// Does what the watchdog decides. Never returns.
    pub(super) async fn tend(&self, client: &Client) -> Infallible {
        let mut again = TICK;
        while !self.first(client).await {
            tokio::time::sleep(again).await;
            // What cannot be had is hundreds of megabytes, each time.
            again = (again * 2).min(LONGEST);
        }
        loop {
            let mut events = VecDeque::from(std::mem::take(&mut self.state().events));
            events.push_back(Event::Tick);
            while let Some(event) = events.pop_front() {
                let decisions = match &mut self.state().watchdog {
                    Some(watchdog) => watchdog.on(&event, Instant::now()),
                    None => vec![],
                };
                for decision in decisions {
                    events.extend(self.perform(decision, client).await);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Has a first tree, or says why there is none; whether it has.
    async fn first(&self, client: &Client) -> bool {
        match self.find_first(client).await {
            Ok(version) => {
                info!(%version, "runner in its place");
                let mut state = self.state();
                state.watchdog = Some(Watchdog::new(version));
                state.notice = None;
                self.ready.notify_one();
                true
            }
            Err(error) => {
                let why = crate::chain(&error);
                error!(error = why, "no runner can be made");
                self.state().notice = Some(why);
                false
            }
        }
    }

    async fn find_first(&self, client: &Client) -> Result<RunnerVersion, TreeError> {
        if let Some((version, sha256)) = &self.pin {
            self.install(*version, sha256.clone()).await?;
            return Ok(*version);
        }
        let newest = runner::installed(&self.folder)?
            .into_iter()
            .filter(|build| build.platform == self.platform)
            .max();
        if let Some(build) = newest {
            return Ok(build.version);
        }
        let version = self.latest(client).await?;
        let sha256 = self.hash_of(version)?;
        self.install(version, sha256).await?;
        Ok(version)
    }

    /// Asks for the latest release and remembers what its archive should be.
    async fn latest(&self, client: &Client) -> Result<RunnerVersion, TreeError> {
        let release = client.latest_runner().await.map_err(TreeError::Latest)?;
        if let Some(sha256) = release.sha256(self.platform) {
            self.state().hashes.insert(release.version, sha256);
        }
        Ok(release.version)
    }

    fn hash_of(&self, version: RunnerVersion) -> Result<Sha256, TreeError> {
        let platform = self.platform;
        let known = self.state().hashes.get(&version).cloned();
        known.ok_or(TreeError::NoHash { version, platform })
    }

    /// Fetches and unpacks, on a thread of its own: it takes as long as the network does.
    async fn install(&self, version: RunnerVersion, sha256: Sha256) -> Result<(), TreeError> {
        let build = Build {
            version,
            platform: self.platform,
        };
        let (host, folder, releases) = (self.host.clone(), self.folder.clone(), self.releases.clone());
        let installed =
            tokio::task::spawn_blocking(move || runner::install(&host, &folder, build, (&releases, &sha256)));
        match installed.await {
            Ok(installed) => installed.map(drop).map_err(TreeError::Install),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Does one thing; returns what came of it.
    async fn perform(&self, decision: Decision, client: &Client) -> Option<Event> {
        match decision {
            Decision::AskLatest => Some(match self.latest(client).await {
                Ok(version) => Event::Latest(version),
                Err(error) => {
                    warn!(
                        error = crate::chain(&error),
                        "could not ask for the latest runner"
                    );
                    Event::LatestUnknown
                }
            }),
            Decision::Stage(version) => Some(self.stage(version).await),
            Decision::Use(version) => {
                info!(%version, "the next runner is of this version");
                self.remove_old(version).await;
                None
            }
            Decision::Alert(alert) => {
                warn!("{alert}");
                self.state().notice = Some(alert.to_string());
                None
            }
        }
    }

    async fn stage(&self, version: RunnerVersion) -> Event {
        if let Some((pinned, _)) = self.pin {
            let notice = format!(
                "runner {version} is out, and `github.runner_version` is {pinned}\nhint: set it and `github.runner_sha256` to the newer one"
            );
            warn!("{notice}");
            self.state().notice = Some(notice);
            return Event::NotStaged(version);
        }
        let staged = match self.hash_of(version) {
            Ok(sha256) => self.install(version, sha256).await,
            Err(error) => Err(error),
        };
        match staged {
            Ok(()) => Event::Staged(version),
            Err(error) => {
                error!(%version, error = crate::chain(&error), "could not put the runner in its place");
                Event::NotStaged(version)
            }
        }
    }

    /// Removes the trees that nobody needs beside this one. What cannot be removed costs room and nothing else.
    async fn remove_old(&self, version: RunnerVersion) {
        let current = Build {
            version,
            platform: self.platform,
        };
        let in_use: BTreeSet<Build> = {
            let state = self.state();
            let in_use = state.in_use.lock().unwrap_or_else(PoisonError::into_inner);
            in_use.keys().copied().collect()
        };
        let folder = self.folder.clone();
        let removing = tokio::task::spawn_blocking(move || {
            let installed = runner::installed(&folder)?;
            for build in removable(&installed, current, &in_use) {
                runner::remove(&folder, build)?;
                info!(%build, "runner removed");
            }
            Ok::<_, RunnerError>(())
        });
        match removing.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error = crate::chain(&error), "could not remove an old runner"),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}
