//! The gate: no job starts on a host that is not enabled, or that does not have what its manifest and the
//! repository's say it must have.
//!
//! What a check rested on is compared before every job, which takes some microseconds per file. Only when something
//! there has changed, or the check is too old, is the host looked at again, in the job's own slot and before the job.
//! While nothing runs, the daemon looks again before a check gets too old. Whether the host is enabled is its owner's word,
//! which nothing here writes; what was found is kept in memory, so that a daemon that has just started looks first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camino::Utf8PathBuf;
use tokio::time::timeout;
use tracing::{info, warn};

use super::check::{Asked, NOBODY, now_unix_ms, read_record};
use super::look::{Eyes, LookError, look};
use crate::config::Config;
use crate::host::Host;
use crate::host::provision::answer::answer_all;
use crate::host::provision::context;
use crate::host::provision::stamp::stamps;
use crate::job::plan::Environments;
use crate::job::{Origin, Repo};
use crate::latest::Latest;
use crate::provision::enabled::{self, Check, Gate as Standing, Stamps};
use crate::provision::manifest::{self, Manifest, ManifestError};
use crate::provision::question::{Answer, View};
use crate::warden::client::Warden;
use crate::warden::{Reply, Request};

/// How long files may take to say how they look; a dead network file system would never.
const STAMPS_WITHIN: Duration = Duration::from_secs(10);

/// How often a host is looked at for one job, when what is looked at changes meanwhile.
const LOOKS: usize = 3;

/// The manifests a configuration names.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    /// That of the host, under no name, unless it has none; those of repositories.
    all: BTreeMap<Option<Repo>, Arc<Manifest>>,
    /// How their files looked when they were read.
    read: Stamps,
}

impl Manifests {
    /// Reads every manifest that `config` names.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn load(host: &Host, config: &Config) -> Result<Self, ManifestError> {
        // The configuration has absolute paths only.
        let load = |name: &str| manifest::load(name, "/".into()).map(Arc::new);
        let of_repos = config
            .repos
            .iter()
            .filter_map(|(repo, it)| Some((Some(repo.clone()), it.manifest.as_deref()?)));
        let of_host = config.host.manifest(host.os).map(|name| (None, name));
        let named: Vec<(Option<Repo>, &str)> = of_host.into_iter().chain(of_repos).collect();
        loop {
            let mut all = BTreeMap::new();
            for (subject, name) in &named {
                all.insert(subject.clone(), load(name)?);
            }
            let read = stamps(all.values().flat_map(|manifest| manifest.files.clone()));
            // What was written between the two would never be noticed.
            let mut all_read = all.values();
            if all_read
                .all(|manifest| load(&manifest.name).is_ok_and(|again| again.digest == manifest.digest))
            {
                return Ok(Self { all, read });
            }
        }
    }

    /// The names of those that say something else than they do in `before`, or were not there.
    pub fn changed_since(&self, before: &Self) -> Vec<String> {
        let is_new = |(subject, manifest): &(&Option<Repo>, &Arc<Manifest>)| {
            let old = before.all.get(*subject);
            old.is_none_or(|old| old.digest != manifest.digest)
        };
        let changed = self.all.iter().filter(is_new);
        let mut names: Vec<String> = changed.map(|(_, manifest)| manifest.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether both ask the same of everybody.
    fn say_the_same_as(&self, other: &Self) -> bool {
        self.all.len() == other.all.len() && self.changed_since(other).is_empty()
    }

    /// The variables they give to jobs on `host`.
    pub fn environments(&self, host: &Host, config: &Config) -> Environments {
        let mut environments = Environments::default();
        for (subject, manifest) in &self.all {
            let variables = manifest.environment(&context(host, config, manifest));
            match subject {
                None => environments.host = variables,
                Some(repo) => {
                    environments.repos.insert(repo.clone(), variables);
                }
            }
        }
        environments
    }
}

/// Why a job was not let through.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// It must not run here, in words with a hint.
    #[error("{0}")]
    Shut(String),
    /// It was cancelled before.
    #[error("the job was cancelled")]
    Cancelled,
    /// The job that looks could not be run, or left something.
    #[error("could not look whether this host has what it must have")]
    Look(#[from] LookError),
}

/// What the gate goes by.
#[derive(Debug)]
struct Rules {
    config: Config,
    manifests: Manifests,
}

impl Rules {
    /// Whether a check by one of them says the same by the other.
    fn looks_at_the_same_as(&self, other: &Self) -> bool {
        let looks_at = |config: &Config| {
            let Config {
                host,
                native,
                repos,
                egress,
                ..
            } = config;
            (host.clone(), native.clone(), repos.clone(), egress.clone())
        };
        looks_at(&self.config) == looks_at(&other.config) && self.manifests.say_the_same_as(&other.manifests)
    }
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    host: Host,
    data_dir: Utf8PathBuf,
    rules: Latest<Rules>,
    /// The last check of each manifest.
    checks: Mutex<BTreeMap<Option<Repo>, Check>>,
    /// Held by whoever looks, so that others who want to know wait for what is found.
    looking: tokio::sync::Mutex<()>,
}

impl Gate {
    /// The gate of a host under `config`, with the manifests that it names.
    pub fn new(host: &Host, config: &Config, manifests: Manifests, data_dir: Utf8PathBuf) -> Self {
        Self {
            host: host.clone(),
            data_dir,
            rules: Latest::new(Rules {
                config: config.clone(),
                manifests,
            }),
            checks: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// Goes by another configuration, and the manifests that it names, from now on. What was found stays where it would be
    /// looked for in the same way.
    pub fn go_by(&self, config: Config, manifests: Manifests) {
        let rules = Rules { config, manifests };
        let keeps = self.rules.get().looks_at_the_same_as(&rules);
        self.rules.set(rules);
        if !keeps {
            self.checks().clear();
        }
    }

    /// The manifests that it goes by.
    pub fn manifests(&self) -> Manifests {
        self.rules.get().manifests.clone()
    }

    /// Why no job of `repo`, or of anybody, would be let through, as far as that is known without looking.
    pub async fn why_shut(&self, repo: Option<&Repo>) -> Option<String> {
        let subjects = [Some(None), repo.cloned().map(Some)];
        for subject in subjects.into_iter().flatten() {
            if let Standing::Shut(why) = self.stands(&subject).await {
                return Some(why);
            }
        }
        None
    }

    /// Lets a job of `repo` through, after looking in its slot where that is necessary.
    ///
    /// # Errors
    /// It must not run here, or was cancelled meanwhile.
    pub async fn admit(&self, repo: &Repo, eyes: Eyes<'_>) -> Result<(), GateError> {
        for subject in [None, Some(repo.clone())] {
            let mut standing = self.stands(&subject).await;
            for _ in 0..LOOKS {
                if !matches!(standing, Standing::Stale(_)) {
                    break;
                }
                let looking = tokio::select! {
                    looking = self.looking.lock() => looking,
                    () = eyes.cancel.cancelled() => return Err(GateError::Cancelled),
                };
                // Somebody else may have looked meanwhile.
                if let Standing::Stale(why) = self.stands(&subject).await {
                    match self.look_again(&subject, &why, eyes).await {
                        Err(LookError::Cancelled) => return Err(GateError::Cancelled),
                        looked => looked?,
                    }
                }
                drop(looking);
                standing = self.stands(&subject).await;
            }
            if eyes.cancel.is_cancelled() {
                return Err(GateError::Cancelled);
            }
            match standing {
                Standing::Open => {}
                Standing::Shut(why) | Standing::Stale(why) => return Err(GateError::Shut(why)),
            }
        }
        Ok(())
    }

    /// What will be too old within `soon`, or is stale already: the host as `None`.
    pub async fn due(&self, soon: Duration) -> Vec<Option<Repo>> {
        // One that is short is not repeated all the time.
        let rules = self.rules.get();
        let recheck = rules.config.host.recheck;
        let recheck = recheck.saturating_sub(soon.min(recheck / 4));
        let mut due = vec![];
        for subject in rules.manifests.all.keys() {
            if matches!(self.stands_for(subject, recheck).await, Standing::Stale(_)) {
                due.push(subject.clone());
            }
        }
        due
    }

    /// Looks again whatever is known.
    ///
    /// # Errors
    /// Nobody could look.
    pub async fn refresh(&self, subject: &Option<Repo>, eyes: Eyes<'_>) -> Result<(), LookError> {
        let _looking = self.looking.lock().await;
        self.look_again(subject, "the last check gets old", eyes).await
    }

    fn checks(&self) -> MutexGuard<'_, BTreeMap<Option<Repo>, Check>> {
        // Every change is complete in itself.
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stands(&self, subject: &Option<Repo>) -> Standing {
        let recheck = self.rules.get().config.host.recheck;
        self.stands_for(subject, recheck).await
    }

    async fn stands_for(&self, subject: &Option<Repo>, recheck: Duration) -> Standing {
        let rules = self.rules.get();
        let Some(manifest) = rules.manifests.all.get(subject).cloned() else {
            return Standing::Open;
        };
        if let (None, Err(why)) = (subject, self.owner_says(&manifest)) {
            return Standing::Shut(why);
        }
        let (check, read) = (self.checks().get(subject).cloned(), rules.manifests.read.clone());
        let compared = blocking(move || {
            if let Some(name) = changed_since(&manifest, &read) {
                return Standing::Shut(format!(
                    "the manifest `{name}` says something else than when the daemon read it\nhint: `ephemerd reload`, then `ephemerd host enable`"
                ));
            }
            match check {
                Some(check) => check.gate(recheck, now_unix_ms(), &stamps(check.rests_on.keys().cloned())),
                None => Standing::Stale("it was not checked since the daemon started".to_owned()),
            }
        });
        match timeout(STAMPS_WITHIN, compared).await {
            Ok(Ok(standing)) => standing,
            Ok(Err(_)) | Err(_) => {
                Standing::Stale("what the last check rested on does not answer".to_owned())
            }
        }
    }

    /// Whether the host's owner has enabled it for its manifest; why not, with a hint.
    fn owner_says(&self, manifest: &Manifest) -> Result<(), String> {
        match read_record(&self.data_dir) {
            Ok(Some(record)) if record.digest == manifest.digest => Ok(()),
            Ok(Some(record)) => Err(format!(
                "this host is enabled for `{}` as it was, and that is not what `{}` says now\nhint: `ephemerd host enable` checks what it says now",
                record.manifest, manifest.name
            )),
            Ok(None) => Err(format!(
                "this host is not enabled\nhint: `ephemerd host enable` checks `{}` and enables it",
                manifest.name
            )),
            Err(error) => Err(format!(
                "nobody can tell whether this host is enabled: {error}\nhint: `ephemerd host enable` writes the record anew"
            )),
        }
    }

    async fn look_again(&self, subject: &Option<Repo>, why: &str, eyes: Eyes<'_>) -> Result<(), LookError> {
        let rules = self.rules.get();
        let Some(manifest) = rules.manifests.all.get(subject).cloned() else {
            return Ok(());
        };
        let name = manifest.name.clone();
        info!(
            manifest = name,
            why, "looking whether this host has what it must have"
        );
        let (host, by) = (self.host.clone(), Arc::clone(&rules));
        let (asked, mut rests_on) = blocking(move || {
            let asked = Asked::new(&host, &by.config, Manifest::clone(&manifest));
            // Before anything is asked: what changes meanwhile must be seen afterwards.
            let before = stamps(enabled::rests_on(&asked.manifest, &asked.context));
            (asked, before)
        })
        .await?;
        let origin = match subject {
            Some(repo) => Origin::own(repo),
            None => Origin::own(&NOBODY.parse().map_err(LookError::Nobody)?),
        };
        let outside = self.look_outside(subject, &asked, &eyes.pipeline.warden);
        let (outside, inside) = tokio::join!(outside, look(eyes, origin, &asked.inside));
        if eyes.cancel.is_cancelled() {
            // What was not looked at to the end says nothing of the host.
            return Err(match inside {
                Err(error) if error.spoils_the_slot() => error,
                Ok(_) | Err(_) => LookError::Cancelled,
            });
        }
        let inside = match inside {
            Ok(answers) => Ok(answers),
            // Then the slot is of no use.
            Err(error) if error.spoils_the_slot() => return Err(error),
            Err(error) => Err(crate::chain(&error)),
        };
        let looked = asked.answered(outside?, inside);
        let check = blocking(move || {
            for (path, stamp) in stamps(enabled::found(&looked.manifest, &looked.context, &looked.answers)) {
                rests_on.entry(path).or_insert(stamp);
            }
            Check::new(&looked.report(), rests_on, now_unix_ms())
        })
        .await?;
        if !self.rules.is_still(&rules) {
            // Whoever wants to know looks again, by what holds now.
            return Ok(());
        }
        match &check.failing {
            None => info!(manifest = name, "this host has it"),
            Some(failing) => warn!(manifest = name, failing, "this host does not have it"),
        }
        self.checks().insert(subject.clone(), check);
        Ok(())
    }
}

impl Gate {
    /// Answers what is asked of the bare host: by the warden, where this process is not all that it may have to be.
    async fn look_outside(
        &self,
        subject: &Option<Repo>,
        asked: &Asked,
        warden: &Warden,
    ) -> Result<Vec<Answer>, LookError> {
        if !warden.is_of_daemon() {
            let (host, questions) = (self.host.clone(), asked.outside.clone());
            return blocking(move || answer_all(&host, View::Host, &questions, &|_| {})).await;
        }
        let request = Request::Look {
            subject: subject.clone(),
            digest: asked.manifest.digest.clone(),
        };
        match warden.ask(request, &[]).await {
            Ok(Reply::Answers { answers }) if answers.len() == asked.outside.len() => Ok(answers),
            Ok(_) => Err(LookError::Nonsense("the warden left questions open".to_owned())),
            Err(error) => Err(LookError::Nonsense(crate::chain(&error))),
        }
    }
}

/// The name of a manifest that is not what was read, when its files looked as `read`.
fn changed_since(manifest: &Manifest, read: &Stamps) -> Option<String> {
    let now = stamps(manifest.files.iter().cloned());
    if now.iter().all(|(path, stamp)| read.get(path) == Some(stamp)) {
        return None;
    }
    // It may have been written anew with the same words.
    let again = manifest::load(&manifest.name, "/".into());
    (!again.is_ok_and(|again| again.digest == manifest.digest)).then(|| manifest.name.clone())
}

/// Does what may take a while, where it keeps nobody waiting.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LookError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| LookError::Nonsense(error.to_string()))
}
