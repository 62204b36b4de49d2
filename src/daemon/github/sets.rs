//! One runner scale set each for a repository or the organisation: the set itself, its session and what is written down.
//!
//! ```text
//!  chain of tokens ─► group ─► set, found or made ─► labels as asked? ─► own old session ended ─► session ─► attend
//!        ▲                                                                                                    │
//!        └──────────────── again, later each time, whenever the session is lost or cannot be had ◄────────────┘
//! ```
//!
//! The session and the offers are in a file: a daemon that was killed ends its own session at the next start, because GitHub
//! lets a set have one only, and still knows what was offered to it and is offered no more.

mod attend;

pub(super) use attend::taken;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::Source;
use crate::config::{self, Acquire};
use crate::github::api::runners::{Deletion, JitRunner};
use crate::github::client::{Client, ClientError, Refused, Tenant};
use crate::github::demand::Wanted;
use crate::github::scale_set::{self, Offer, ScaleSet, Session, Statistics, Trouble, dropped};
use crate::github::ticket::Scope;
use crate::host::files;
use crate::job::Repo;

/// The number of the group that every repository and organisation has.
const DEFAULT_GROUP: u64 = 1;

/// What that group is called.
const DEFAULT_NAME: &str = "Default";

/// Why a scale set cannot be consumed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SetError {
    /// GitHub does not answer, or refuses.
    #[error(transparent)]
    GitHub(#[from] ClientError),
    /// The organisation has no such group.
    #[error("there is no runner group `{}`\nhint: `ephemerd github check` looks; set `github.runner_group`", .0.escape_debug())]
    NoGroup(String),
    /// The server has its own opinion of labels.
    #[error(
        "GitHub left out {} of its labels, so that no job that asks for them is offered\nhint: a server of your own must allow custom labels of scale sets; with `github.acquire = \"poll\"` they work",
        .0.join(", ")
    )]
    Labels(Vec<String>),
    /// Somebody consumes it.
    #[error(
        "it has another session: {0}\nhint: one that a killed daemon left ends by itself after some minutes; no two hosts may have the same `state/host-id`"
    )]
    Session(String),
    /// The session cannot be written down, so that nobody could end it after a crash.
    #[error("could not write `{path}`: {why}")]
    File {
        /// The file.
        path: Utf8PathBuf,
        /// What the system says.
        why: String,
    },
    /// The session is over.
    #[error("GitHub has ended the session: {0}")]
    Lost(ClientError),
}

/// A scale set of this host's.
#[derive(Debug)]
pub(super) struct Set {
    scope: Scope,
    /// What it is called.
    name: String,
    /// Who we are, for whoever else wants its session.
    owner: String,
    labels: Vec<String>,
    tenant: Tenant,
    file: Utf8PathBuf,
    now: Mutex<Now>,
}

/// How things stand with it.
#[derive(Debug, Default)]
struct Now {
    id: Option<u64>,
    session: Option<Session>,
    statistics: Statistics,
    /// Jobs acquired since the statistics were made.
    acquired: usize,
    /// By request, with since when they are known here.
    offers: BTreeMap<i64, (Offer, Instant)>,
    /// Whether some of them must be looked at again soon.
    is_open: bool,
    /// Runs that are looked at.
    runs: BTreeSet<(Repo, u64)>,
    /// Those of them that a message told of since they were looked at last.
    fresh: BTreeSet<(Repo, u64)>,
    /// When all of them were looked at.
    asked: Option<Instant>,
    /// How long not to look at all of them again, so that GitHub's limit lasts.
    pace: Duration,
    /// Those of them that GitHub did not tell of when they were looked at last.
    unseen: BTreeSet<(Repo, u64)>,
    /// Whether it has jobs that are not known here.
    missing: bool,
    /// When all runs were looked through for jobs that nobody told of.
    looked: Option<Instant>,
    /// Why it is not consumed.
    trouble: Option<String>,
}

/// What is written down.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    /// The set and its session, while there is one.
    session: Option<(u64, String)>,
    offers: Vec<Offer>,
}

/// The sets of a configuration, none of which is there yet; `prefix` is what names of this host's runners begin with.
pub(super) fn open(
    client: &Client,
    github: &config::GitHub,
    (state, prefix): (&Utf8Path, &str),
) -> Result<BTreeMap<Scope, Set>, ClientError> {
    if github.acquire == Acquire::Poll {
        return Ok(BTreeMap::new());
    }
    let name = scale_set::name(prefix, &github.labels);
    let tenants = client.tenants(super::scopes(github))?;
    let scopes = super::scopes(github).into_iter().zip(tenants);
    let set = |(scope, tenant): (Scope, Tenant)| {
        // No name of a repository or organisation has an `@`.
        let file = state.join(format!("scale-set-{}.json", scope.to_string().replace('/', "@")));
        let offers = saved(&file).offers.into_iter();
        let now = Now {
            offers: offers
                .map(|offer| (offer.request, (offer, Instant::now())))
                .collect(),
            ..Now::default()
        };
        let set = Set {
            scope: scope.clone(),
            name: name.clone(),
            owner: prefix.trim_end_matches('-').to_owned(),
            labels: github.labels.clone(),
            tenant,
            file,
            now: Mutex::new(now),
        };
        (scope, set)
    };
    Ok(scopes.map(set).collect())
}

/// What was written down. What cannot be read is as good as nothing: the session then ends by itself.
fn saved(file: &Utf8Path) -> Saved {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Saved::default(),
        Err(error) => {
            warn!(%file, %error, "could not read what is known of a scale set");
            return Saved::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        warn!(%file, %error, "could not read what is known of a scale set");
        Saved::default()
    })
}

impl Set {
    fn now(&self) -> MutexGuard<'_, Now> {
        // Every change is complete in itself.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what must be known after a crash.
    fn save(&self) -> Result<(), SetError> {
        let saved = {
            let now = self.now();
            let session = now.id.zip(now.session.as_ref());
            Saved {
                session: session.map(|(id, session)| (id, session.session_id.clone())),
                offers: now.offers.values().map(|(offer, _)| offer.clone()).collect(),
            }
        };
        let failed = |why: String| SetError::File {
            path: self.file.clone(),
            why,
        };
        let text = serde_json::to_vec(&saved).map_err(|error| failed(error.to_string()))?;
        files::replace(&self.file, &text).map_err(|error| failed(error.to_string()))
    }

    /// How many runners without a job it needs; `taken` is how many of ours have one.
    pub(super) fn wanted(&self, taken: usize) -> Wanted {
        scale_set::wanted(self.now().statistics, taken)
    }

    /// Why it is not consumed, and what it is called.
    pub(super) fn trouble(&self) -> Option<(String, String)> {
        let why = self.now().trouble.clone()?;
        Some((format!("scale set {} of {}", self.name, self.scope), why))
    }

    /// Finds the set or makes it, and opens its session.
    async fn attach(&self, group: &str) -> Result<(), SetError> {
        let group = self.group(group).await?;
        let set = self.find_or_make(group).await?;
        self.open_session(&set).await
    }

    async fn group(&self, name: &str) -> Result<u64, SetError> {
        if matches!(self.scope, Scope::Repo(_)) || name.eq_ignore_ascii_case(DEFAULT_NAME) {
            return Ok(DEFAULT_GROUP);
        }
        let found = self.tenant.runner_group(name).await?;
        found.ok_or_else(|| SetError::NoGroup(name.to_owned()))
    }

    async fn find_or_make(&self, group: u64) -> Result<ScaleSet, SetError> {
        if let Some(set) = self.tenant.find_set(group, &self.name).await? {
            return Ok(set);
        }
        match self.tenant.create_set(group, &self.name, &self.labels).await {
            Ok(set) => {
                info!(set = self.name, scope = %self.scope, number = set.id, "scale set made");
                Ok(set)
            }
            // An answer was lost, and the set is there after all.
            Err(Refused {
                trouble: Some(Trouble::SetExists),
                error,
                ..
            }) => match self.tenant.find_set(group, &self.name).await? {
                Some(set) => Ok(set),
                None => Err(error.into()),
            },
            Err(refused) => Err(refused.error.into()),
        }
    }

    async fn open_session(&self, set: &ScaleSet) -> Result<(), SetError> {
        // Also of one that was found: whoever made it may not have looked.
        let dropped = dropped(&self.labels, set);
        if !dropped.is_empty() {
            return Err(SetError::Labels(dropped));
        }
        if let Some((id, old)) = saved(&self.file).session {
            match self.tenant.close_session(id, &old).await {
                Ok(()) => info!(set = self.name, "ended the session that this host had before"),
                // Whether it is in the way is told when another is opened.
                Err(error) => warn!(
                    set = self.name,
                    error = crate::chain(&error),
                    "could not end the session that this host had before"
                ),
            }
        }
        let session = match self.tenant.open_session(set.id, &self.owner).await {
            Ok(session) => session,
            Err(Refused {
                status: Some(409),
                error: ClientError::Conflict { message, .. },
                ..
            }) => return Err(SetError::Session(message)),
            Err(refused) => return Err(refused.error.into()),
        };
        {
            let mut now = self.now();
            now.id = Some(set.id);
            now.statistics = session.statistics.unwrap_or_default();
            now.acquired = 0;
            now.session = Some(session);
            now.trouble = None;
        }
        self.save()?;
        info!(set = self.name, scope = %self.scope, "session of the scale set opened");
        Ok(())
    }

    /// Ends the session.
    pub(super) async fn leave(&self) {
        let session = {
            let now = self.now();
            now.id.zip(now.session.as_ref().map(|it| it.session_id.clone()))
        };
        let Some((id, session)) = session else { return };
        match self.tenant.close_session(id, &session).await {
            Ok(()) => {
                self.now().session = None;
                if let Err(error) = self.save() {
                    warn!(
                        error = crate::chain(&error),
                        "could not write down that a session ended"
                    );
                }
            }
            Err(error) => warn!(
                error = crate::chain(&error),
                "could not end the session of a scale set"
            ),
        }
    }

    /// Makes a runner of the set.
    pub(super) async fn generate(&self, name: &str) -> Result<JitRunner, ClientError> {
        let id = self.now().id;
        let id = id.ok_or_else(|| ClientError::NotFound {
            asked: format!("scale set {}", self.name),
            message: "it is not there yet".to_owned(),
        })?;
        self.tenant.generate_jit(id, name).await
    }

    /// The number of a runner of a name.
    pub(super) async fn find_runner(&self, name: &str) -> Result<Option<u64>, ClientError> {
        self.tenant.agent(name).await
    }

    /// Deletes a runner.
    pub(super) async fn delete_runner(&self, runner: u64) -> Result<Deletion, ClientError> {
        self.tenant.delete_agent(runner).await
    }
}

impl Source {
    /// The scale set that jobs of a scope come from, if they do.
    pub(super) fn set(&self, scope: &Scope) -> Option<&Set> {
        self.sets.get(scope)
    }
}
