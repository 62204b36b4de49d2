//! The source of jobs that is GitHub: asks what waits, hands over what may run here, and sees that no runner is left.
//!
//! ```text
//!  poll ─► ask each repository ─► sort ─► account, per class ─┬─ make ─► a job of ours in the queue
//!   ▲                                                         ├─ withdraw
//!   └─ every `poll` or `idle_poll`, and when something ended  └─ tell: written down as not for here
//!
//!  a job of ours that has a slot ─► runner: register ─► start ─► admit ─► end ─┐
//!  reap: a runner whose job here is over is deleted by its number ◄────────────┘
//! ```
//!
//! With `github.acquire = "scale-set"`, `sets` is in the place of `poll`: GitHub offers jobs, and those that may run here are
//! acquired. Everything after that is the same.
//!
//! Whatever happens is found by looking again, and nothing by being told: an event that never comes changes nothing. What a
//! runner has is what GitHub says it has, never what it was made for.

mod earlier;
mod hints;
mod poll;
mod reap;
mod reload;
mod runner;
mod sets;
mod trees;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OnceCell, watch};

use crate::config::{self, Accounts, Config, Identity, Serves};
use crate::github::claim::{Claims, Failure};
use crate::github::client::{Client, ClientError, Credentials, GITHUB_COM, Options};
use crate::github::demand::{Held, Ours, Stage};
use crate::github::runner::tree::{Arch, Platform, RUNNERS};
use crate::github::runner::version::RunnerVersion;
use crate::github::secret::Secret;
use crate::github::seen::JobSeen;
use crate::github::ticket::{Key, Scope, Ticket};
use crate::github::webhook::{Ear, NoSecret};
use crate::host::secrets::{SecretError, Secrets};
use crate::host::{Host, INSTALLATION, installation};
use crate::job::{JobId, Repo};
use crate::latest::Latest;
use crate::trust::Route;
pub(super) use runner::InGuest;
use sets::Set;
use trees::Trees;

/// Why jobs of GitHub cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Jobs would share an account.
    #[error(
        "jobs of GitHub need an account each: whoever runs as the same one could read the runner's credentials\nhint: run as root, with `native.accounts = \"per-slot\"`"
    )]
    Accounts,
    /// There is no runner for this processor.
    #[error("GitHub makes no runner for a processor called `{0}`")]
    Processor(String),
    /// A file of a secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The client cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The webhook's secret is none.
    #[error(transparent)]
    Webhook(#[from] NoSecret),
    /// The host's own name for itself cannot be kept.
    #[error("could not read or write `{path}`")]
    HostId {
        /// Its file.
        path: Utf8PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The source.
#[derive(Debug)]
pub struct Source {
    config: Latest<config::GitHub>,
    client: Client,
    /// Who knows the latest release of the runner.
    releases: Client,
    host: Host,
    /// What names of our runners begin with, so that no other host has one of the same name.
    prefix: String,
    /// The number of the runner group.
    group: OnceCell<u64>,
    trees: Trees,
    /// Who hears webhooks, until they are taken.
    ear: tokio::sync::Mutex<Option<Ear>>,
    /// The repositories that it hears of.
    heard: Option<Arc<Latest<BTreeSet<Repo>>>>,
    sight: Mutex<Sight>,
    /// The scale sets that jobs come from; none where GitHub is polled.
    sets: BTreeMap<Scope, Set>,
    /// Somebody says that there may be something new.
    news: watch::Sender<()>,
    /// A runner has ended.
    ended: Notify,
}

/// What was last seen, and what is going on.
#[derive(Debug, Default)]
struct Sight {
    /// Jobs of each repository, as they were when it last answered.
    jobs: BTreeMap<Repo, Vec<JobSeen>>,
    /// Since when each job is seen to wait.
    since: BTreeMap<Key, Instant>,
    claims: Claims,
    /// Where each job that waits goes, by what this host can do now; its decision says where it may.
    routes: BTreeMap<Key, Route>,
    /// Jobs of which it is written down that they may not run here.
    told: BTreeSet<Key>,
    held: Vec<Held>,
    lives: BTreeMap<JobId, Life>,
    /// Jobs of the last look: one that is not there for once is not forgotten.
    last: BTreeSet<Key>,
    /// Repositories that did not answer, or the organisation that did not name them, and why.
    failing: BTreeMap<String, String>,
    asked: Option<SystemTime>,
    stopped: u64,
}

/// One of our jobs, from the queue to the end of its runner.
#[derive(Debug)]
struct Life {
    made_for: Ticket,
    scope: Scope,
    /// Whether its runner has a guest instead of a slot.
    in_guest: bool,
    /// The runner's number, once it is made.
    runner: Option<u64>,
    stage: Stage,
    /// The version of its runner, once that is known.
    version: Option<RunnerVersion>,
    /// Tells whoever watches over the runner which job it has.
    has: watch::Sender<Option<Ticket>>,
}

/// How things stand with GitHub, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitHubReport {
    /// When it was last asked, in milliseconds since 1970.
    pub asked_ms: Option<u64>,
    /// Jobs that nothing is made for at the moment, and why.
    pub held: Vec<HeldReport>,
    /// Repositories and scale sets that did not answer, or the organisation that did not name its repositories, and why.
    pub failing: BTreeMap<String, String>,
    /// The version of the next runner.
    pub runner_version: Option<String>,
    /// What somebody should know about the runner.
    pub runner_notice: Option<String>,
    /// Jobs that a runner was given and must not run, and that were stopped before their first step.
    pub stopped: u64,
    /// Requests to GitHub since the start, and how many of those changed nothing and cost nothing.
    pub requests: u64,
    /// Those that were answered with "not modified".
    pub unchanged: u64,
    /// Requests that are left in this hour, where GitHub has said so.
    pub remaining: Option<u64>,
    /// How far this host's clock is ahead of GitHub's, in seconds, when that is too much.
    pub clock_ahead_s: Option<i64>,
}

/// A job that nothing is made for at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReport {
    /// The job.
    pub ticket: Ticket,
    /// Why.
    pub why: String,
}

impl Source {
    /// The source that `config` describes, if it does. `root` is whether jobs run as accounts of their own. Nothing is
    /// asked yet.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn open(
        host: &Host,
        config: &Config,
        (data_dir, root): (&Utf8Path, bool),
        secrets: &Secrets,
    ) -> Result<Option<Self>, SourceError> {
        let Some(github) = config.github.clone() else {
            return Ok(None);
        };
        if !root || config.native.accounts != Accounts::PerSlot {
            return Err(SourceError::Accounts);
        }
        let machine = host.machine();
        let arch = Arch::of_machine(&machine).ok_or(SourceError::Processor(machine))?;
        let platform = Platform { os: host.os, arch };
        let (client, releases) = clients(&github, secrets)?;
        let ear = hints::ear(&github, secrets)?;
        let trees = Trees::new(
            host,
            (data_dir.join(RUNNERS), platform),
            github.runner_releases.clone(),
            github.runner.clone(),
        );
        let id = installation(data_dir).map_err(|source| SourceError::HostId {
            path: data_dir.join(INSTALLATION),
            source,
        })?;
        let prefix = format!("eph-{id}-");
        let sets = sets::open(&client, &github, (&data_dir.join("state"), &prefix))?;
        Ok(Some(Self {
            config: Latest::new(github),
            client,
            releases,
            host: host.clone(),
            prefix,
            group: OnceCell::new(),
            trees,
            heard: ear.as_ref().map(Ear::repos),
            ear: tokio::sync::Mutex::new(ear),
            sight: Mutex::default(),
            sets,
            news: watch::Sender::new(()),
            ended: Notify::new(),
        }))
    }

    /// What it goes by now.
    fn config(&self) -> Arc<config::GitHub> {
        self.config.get()
    }

    fn sight(&self) -> MutexGuard<'_, Sight> {
        // Every change is complete in itself.
        self.sight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where runners for jobs of a repository are registered.
    fn scope(&self, repo: &Repo) -> Scope {
        match &self.config().serves {
            Serves::Repos(_) => Scope::Repo(repo.clone()),
            Serves::Org { org, .. } => Scope::Org(org.clone()),
        }
    }

    /// Takes up a job that has a slot or a guest: where its runner is made, for which job, and what tells the job it has.
    /// `None` when it is one too many by now.
    fn start(&self, id: &JobId) -> Option<(Scope, Ticket, watch::Receiver<Option<Ticket>>)> {
        let mut sight = self.sight();
        let Sight {
            jobs, lives, routes, ..
        } = &mut *sight;
        let life = lives.get(id)?;
        let (scope, in_guest) = (life.scope.clone(), life.in_guest);
        let of_class = |stage| {
            let same = |life: &&Life| life.scope == scope && life.in_guest == in_guest;
            lives
                .values()
                .filter(same)
                .filter(|life| life.stage == stage)
                .count()
        };
        let route = if in_guest { Route::Vm } else { Route::Native };
        let wanted = match self.set(&scope) {
            Some(set) => set.wanted(of_class(Stage::Taken)).most,
            None => {
                let wanted = jobs.iter().filter(|(repo, _)| self.scope(repo) == scope);
                let goes = |job: &JobSeen| routes.get(&job.ticket.key()).copied() == Some(route);
                let wanted = wanted
                    .flat_map(|(_, jobs)| jobs)
                    .filter(|job| job.runner.is_none() && goes(job));
                wanted.count()
            }
        };
        if wanted <= of_class(Stage::Free) {
            return None;
        }
        let life = lives.get_mut(id)?;
        life.stage = Stage::Free;
        Some((scope, life.made_for.clone(), life.has.subscribe()))
    }

    /// Takes in that a job waits for another guest.
    pub(super) fn waits_again(&self, id: &JobId) {
        if let Some(life) = self.sight().lives.get_mut(id) {
            life.stage = Stage::NoSlot;
        }
    }

    /// Notes which version the runner of a job is.
    fn is_of(&self, id: &JobId, version: RunnerVersion) {
        if let Some(life) = self.sight().lives.get_mut(id) {
            life.version = Some(version);
        }
    }

    /// Notes the number of a job's runner.
    fn made(&self, id: &JobId, runner: u64) {
        if let Some(life) = self.sight().lives.get_mut(id) {
            life.runner = Some(runner);
        }
    }

    /// Takes in that one of our jobs is over.
    pub(super) fn over(&self, id: &JobId) {
        self.sight().lives.remove(id);
        self.ended.notify_one();
        self.wake();
    }

    /// Lets everybody look who asks GitHub for jobs.
    pub(super) fn wake(&self) {
        self.news.send_replace(());
    }

    /// Whether a job of ours is of this source.
    pub(super) fn has(&self, id: &JobId) -> bool {
        self.sight().lives.contains_key(id)
    }

    /// Takes in that somebody here does not want one of our jobs, which has no runner yet.
    pub(super) fn cancelled(&self, id: &JobId) {
        let life = self.sight().lives.remove(id);
        if let Some(life) = life {
            self.failed(&life.made_for, Failure::cancelled());
        }
    }

    /// Takes in that one of our jobs was not let through.
    pub(super) fn refused(&self, id: &JobId, why: &str) {
        let made_for = self.sight().lives.get(id).map(|life| life.made_for.clone());
        if let Some(ticket) = made_for {
            self.failed(&ticket, Failure::Passing(why.to_owned()));
        }
    }

    /// Notes that an attempt for one of our jobs came to nothing.
    fn failed(&self, ticket: &Ticket, failure: Failure) {
        let chance = getrandom::u32().unwrap_or_default();
        let key = ticket.key();
        self.sight().claims.failed(&key, failure, Instant::now(), chance);
    }

    /// How things stand.
    pub fn report(&self) -> GitHubReport {
        let counts = self.client.report();
        let (version, runner_notice) = self.trees.now();
        let sight = self.sight();
        let jobs: BTreeMap<Key, &Ticket> = sight
            .jobs
            .values()
            .flatten()
            .map(|job| (job.ticket.key(), &job.ticket))
            .collect();
        let held = sight.held.iter().filter_map(|held| {
            let ticket = (*jobs.get(&held.job)?).clone();
            let why = held.why.clone();
            Some(HeldReport { ticket, why })
        });
        let since_1970 = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok();
        let ms = |since: Duration| u64::try_from(since.as_millis()).ok();
        GitHubReport {
            asked_ms: sight.asked.and_then(since_1970).and_then(ms),
            held: held.collect(),
            failing: sight
                .failing
                .clone()
                .into_iter()
                .chain(self.sets.values().filter_map(Set::trouble))
                .collect(),
            runner_version: version.map(|version| version.to_string()),
            runner_notice,
            stopped: sight.stopped,
            requests: counts.requests,
            unchanged: counts.unchanged,
            remaining: counts.remaining,
            clock_ahead_s: counts.clock_skew_s.filter(|_| counts.is_clock_wrong()),
        }
    }
}

impl Life {
    fn ours(&self, job: &JobId) -> Ours {
        Ours {
            job: job.clone(),
            made_for: self.made_for.key(),
            in_guest: self.in_guest,
            stage: self.stage,
        }
    }
}

/// The repositories or the organisation that runners are registered at.
fn scopes(github: &config::GitHub) -> Vec<Scope> {
    match &github.serves {
        Serves::Repos(repos) => repos.iter().cloned().map(Scope::Repo).collect(),
        Serves::Org { org, .. } => vec![Scope::Org(org.clone())],
    }
}

/// The client, with its secrets read, and the one that knows the latest release of the runner. Needs a runtime.
///
/// # Errors
/// A secret cannot be read or used.
pub fn clients(github: &config::GitHub, secrets: &Secrets) -> Result<(Client, Client), SourceError> {
    let client = client(github, secrets)?;
    let releases = releases(github, &client)?;
    Ok((client, releases))
}

/// The client, with its secrets read.
fn client(github: &config::GitHub, secrets: &Secrets) -> Result<Client, SourceError> {
    let credentials = match &github.identity {
        Identity::App {
            app_id,
            installation_id,
            private_key,
        } => Credentials::App {
            app: app_id.to_string(),
            installation: u64::from(*installation_id),
            private_key: secrets.of(private_key)?,
        },
        Identity::Token { file } => Credentials::Token(Secret::new(secrets.of(file)?.expose().trim())),
    };
    Ok(Client::new(Options {
        url: github.api.clone(),
        ..Options::new(credentials)
    })?)
}

/// Whom the latest release of the runner is asked of: a server of one's own has none.
fn releases(github: &config::GitHub, client: &Client) -> Result<Client, SourceError> {
    // A server for tests, which is github.com and not one of one's own, has no folder in its address.
    let is_enterprise = github.api.ends_with("/api/v3");
    if github.api == GITHUB_COM || !is_enterprise {
        return Ok(client.clone());
    }
    Ok(Client::new(Options::new(Credentials::Nobody))?)
}
