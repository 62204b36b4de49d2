//! Another configuration for a daemon that goes on.
//!
//! ```text
//!  file ─► read ─► compared with what is in force ─► put together ─► manifests ─► profiles ─► applied
//!            └────────── wrong anywhere: what is in force stays, and status says why ──────────┘
//! ```
//!
//! Everything before the last step changes nothing, and happens where it keeps nobody waiting. The last one has no pause in
//! it, so that nobody sees half of it. Whoever has begun goes on with what it began with ([`crate::latest`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::Daemon;
use super::check::now_unix_ms;
use super::gate::Manifests;
use super::resume::Text;
use crate::config::diff::{Apart, Applies, Change, diff, merged, text};
use crate::config::{ConfigError, Loaded, default_path, load, load_or_default};
use crate::control::Answer;
use crate::host::Host;
use crate::job::plan::{PlanError, Planner};
use crate::job::{JobId, JobSpec, Outcome, Repo};
use crate::provision::manifest::ManifestError;
use crate::trust::{self, Route};
use crate::vm::plan::Plan;
use crate::warden::News;

/// Why the configuration that is in force stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read, or is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A manifest that it names is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Some of it cannot apply without the rest.
    #[error(transparent)]
    Apart(#[from] Apart),
    /// No job could be planned by it.
    #[error("no job{} could be run by it", of(repo.as_ref()))]
    Plan {
        /// Whose jobs; anybody's where it does not say.
        repo: Option<Repo>,
        /// Why.
        source: Box<PlanError>,
    },
    /// Nobody could look.
    #[error("it could not be looked at: {0}")]
    Panicked(String),
}

fn of(repo: Option<&Repo>) -> String {
    repo.map_or(String::new(), |repo| format!(" of {repo}"))
}

/// What another reading of the configuration comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file.
    pub file: String,
    /// Whether nothing was done yet.
    pub dry_run: bool,
    /// Every key that has another value than what is in force.
    pub changes: Vec<Change>,
    /// Manifests that say something else than before.
    pub manifests: Vec<String>,
    /// Jobs that waited and must not run here any more.
    pub refused: Vec<JobId>,
}

/// How the configuration is, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigReport {
    /// When what is in force was read, in milliseconds since 1970.
    pub read_ms: u64,
    /// Why the last reading came to nothing, where it did.
    pub failed: Option<FailedReload>,
    /// Keys that have another value in the file, which applies at the next start.
    pub restart_needed: Vec<String>,
}

/// A reading that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedReload {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why, with a line for each problem.
    pub why: String,
}

/// The configuration that is in force, and where it comes from.
#[derive(Debug)]
pub struct Reading {
    host: Host,
    file: Utf8PathBuf,
    now: Mutex<Now>,
    /// One after the other.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Now {
    loaded: Arc<Loaded>,
    report: ConfigReport,
}

impl Reading {
    /// What was read from `file`, or is the default where there is none, and has just been put in force.
    pub fn new(host: &Host, file: Utf8PathBuf, loaded: Loaded) -> Self {
        let report = ConfigReport {
            read_ms: now_unix_ms(),
            ..ConfigReport::default()
        };
        Self {
            host: host.clone(),
            file,
            now: Mutex::new(Now {
                loaded: Arc::new(loaded),
                report,
            }),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // Every change is complete in itself.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in force, as it can be read again.
    pub(super) fn in_force(&self) -> Text {
        let now = self.now();
        Text {
            file: now.loaded.file.clone(),
            text: text(&now.loaded),
        }
    }

    /// How it is.
    pub(super) fn report(&self) -> ConfigReport {
        self.now().report.clone()
    }
}

/// What can be read again without the daemon.
struct Before {
    host: Host,
    file: Utf8PathBuf,
    loaded: Arc<Loaded>,
    planner: Arc<Planner>,
    manifests: Manifests,
    /// Whether native jobs run here.
    has_native: bool,
}

/// What is ready to be put in force.
struct Prepared {
    /// The file that was read.
    file: String,
    /// What of it can be in force, and the rest as it was.
    loaded: Loaded,
    changes: Vec<Change>,
    planner: Planner,
    manifests: Manifests,
    /// The manifests that say something else.
    other: Vec<String>,
}

impl Before {
    /// Reads and judges everything.
    fn prepare(self) -> Result<Prepared, ReloadError> {
        let file = self.read()?;
        let changes = diff(&self.loaded, &file);
        let loaded = merged(&self.loaded, &file)?;
        let manifests = Manifests::load(&self.host, &loaded.config)?;
        let environments = manifests.environments(&self.host, &loaded.config);
        let planner = self
            .planner
            .under(loaded.config.clone(), environments)
            .map_err(|error| ReloadError::Plan {
                repo: None,
                source: Box::new(error),
            })?;
        if self.has_native {
            self.try_profiles(&planner)?;
        }
        let other = manifests.changed_since(&self.manifests);
        Ok(Prepared {
            file: file.file,
            loaded,
            changes,
            planner,
            manifests,
            other,
        })
    }

    /// As a start reads it; but a file that was there must be.
    fn read(&self) -> Result<Loaded, ConfigError> {
        let was_there = self.loaded.file == self.file.as_str();
        if was_there || self.file != default_path(self.host.os) {
            load(&self.file)
        } else {
            load_or_default(None, self.host.os)
        }
    }

    /// Renders and checks the profile of every repository that is configured, and of all others. What could not be made before
    /// either is no reason to refuse what may be more urgent; its jobs are refused as they were.
    fn try_profiles(&self, planner: &Planner) -> Result<(), ReloadError> {
        let config = planner.config();
        let named = config.repos.keys().cloned().map(Some);
        for repo in std::iter::once(None).chain(named) {
            let Err(error) = planner.rehearse(repo.as_ref()) else {
                continue;
            };
            if self.planner.rehearse(repo.as_ref()).is_ok() {
                return Err(ReloadError::Plan {
                    repo,
                    source: Box::new(error),
                });
            }
            warn!(
                error = crate::chain(&error),
                "jobs{} cannot be run, as before",
                of(repo.as_ref())
            );
        }
        Ok(())
    }
}

impl Daemon {
    /// Reads the configuration again because of a signal, and tells the log what came of it.
    pub async fn reload_on_signal(self: Arc<Self>) {
        info!("reading the configuration again");
        // What came of it is told already.
        let _ = self.reload(false).await;
    }

    /// Reads the configuration again for whoever asks.
    pub(super) async fn answer_reload(self: &Arc<Self>, dry_run: bool) -> Answer {
        match self.reload(dry_run).await {
            Ok(reloaded) => Answer::Reloaded(Box::new(reloaded)),
            Err(error) => Answer::Kept {
                message: crate::chain(&error),
            },
        }
    }

    /// Reads the configuration again and puts it in force as far as that can be; with `dry_run` it only says what that would
    /// come to.
    ///
    /// # Errors
    /// It is wrong. Then what is in force stays.
    async fn reload(self: &Arc<Self>, dry_run: bool) -> Result<Reloaded, ReloadError> {
        let _turn = self.reading.turn.lock().await;
        let before = Before {
            host: self.reading.host.clone(),
            file: self.reading.file.clone(),
            loaded: Arc::clone(&self.reading.now().loaded),
            planner: self.pipeline.planner(),
            manifests: self.gate.manifests(),
            has_native: self.only_guests.is_none(),
        };
        let prepared = tokio::task::spawn_blocking(move || before.prepare())
            .await
            .unwrap_or_else(|error| Err(ReloadError::Panicked(error.to_string())));
        if dry_run {
            return prepared.map(|prepared| prepared.told(true));
        }
        match prepared {
            Ok(prepared) => Ok(self.apply(prepared)),
            Err(error) => {
                let why = crate::chain(&error);
                warn!(error = why, "the configuration is wrong, and the old one stays");
                let at_ms = now_unix_ms();
                self.reading.now().report.failed = Some(FailedReload { at_ms, why });
                self.tell();
                Err(error)
            }
        }
    }

    /// Puts another configuration in force.
    fn apply(self: &Arc<Self>, prepared: Prepared) -> Reloaded {
        let told = prepared.told(false);
        let keys = |when: Applies| {
            let keys = told.changes.iter().filter(|change| change.applies == when);
            keys.map(|change| change.key.clone()).collect::<Vec<_>>()
        };
        let (applied, waits) = (keys(Applies::AtOnce), keys(Applies::AtNextStart));
        let Prepared {
            loaded,
            planner,
            manifests,
            ..
        } = prepared;
        let loaded = Arc::new(loaded);
        *self.reading.now() = Now {
            loaded: Arc::clone(&loaded),
            report: ConfigReport {
                read_ms: now_unix_ms(),
                failed: None,
                restart_needed: waits.clone(),
            },
        };
        let config = &loaded.config;
        // Before anything that is asked of it because of this.
        self.tell_service(News::Reloaded);
        self.leave_word();
        self.pipeline.planner.set(planner);
        self.gate.go_by(config.clone(), manifests);
        if let Some(guests) = &self.guests {
            let (total, native) = (crate::host::total_memory_byte(), &config.native);
            let plan = Plan::new(
                total,
                native.slots,
                native.limits.memory_byte,
                &guests.room.config,
            );
            guests.plan.set(plan);
        }
        if let Some(github) = &config.github {
            self.reload_source(github);
        }
        let refused = self.judge_waiting();
        info!(
            applied = applied.join(", "),
            waits_for_restart = waits.join(", "),
            manifests = told.manifests.join(", "),
            refused = refused.len(),
            "the configuration was read again"
        );
        self.pump();
        self.pump_guests();
        Reloaded { refused, ..told }
    }

    /// Judges anew the jobs of the control socket that wait, and refuses those that must not run here any more. One that waits
    /// for a guest goes on waiting for that, though it might be native now. Those of GitHub are its source's.
    fn judge_waiting(self: &Arc<Self>) -> Vec<JobId> {
        let planner = self.pipeline.planner();
        let config = planner.config();
        let waiting: Vec<(JobId, JobSpec, bool)> = {
            let state = self.state();
            let native = state.specs.iter().map(|(id, spec)| (id, spec, true));
            let for_guests = state.vms.specs().map(|(id, spec)| (id, spec, false));
            let all = native.chain(for_guests);
            all.map(|(id, spec, is_native)| (id.clone(), spec.clone(), is_native))
                .collect()
        };
        let mut refused = vec![];
        for (id, spec, is_native) in waiting.into_iter().filter(|(id, ..)| !self.is_of_source(id)) {
            let decision = trust::decide(&config.trust, config.has_vm_backend(), &spec.origin);
            match (decision.route, is_native) {
                (Route::Native, _) | (Route::Vm, false) => {}
                (Route::Vm, true) => {
                    if self.unqueue(&id) && !self.to_guest(&id, &spec, decision) {
                        refused.push(id);
                    }
                }
                (Route::Refuse, _) => {
                    if self.unqueue(&id) {
                        info!(job = %id, reason = decision.reason, "the job must not run here any more");
                        let reason = decision.reason;
                        self.end_unstarted(&id, Outcome::Refused { reason });
                        refused.push(id);
                    }
                }
            }
        }
        refused
    }

    /// Sends a job that waited for a slot to a guest; it is refused when there is none for it, and then this is false.
    fn to_guest(self: &Arc<Self>, id: &JobId, spec: &JobSpec, decision: trust::Decision) -> bool {
        let (decision, wanted) = self.in_guest(decision);
        let Some(wanted) = wanted else {
            let reason = decision.reason;
            self.end_unstarted(id, Outcome::Refused { reason });
            return false;
        };
        let now = SystemTime::now();
        if let Err(error) = self.pipeline.ledger.reroute(id, Route::Vm, &decision.reason, now) {
            let reason = format!("it could not be recorded where it goes: {}", crate::chain(&error));
            self.end_unstarted(id, Outcome::Failed { reason });
            return false;
        }
        info!(job = %id, reason = decision.reason, "the job goes to a guest");
        self.await_guest(id.clone(), spec.clone(), wanted);
        true
    }

    /// Whether trust still lets a job be native that has passed the gate; the configuration may be another one by now.
    ///
    /// # Errors
    /// It does not, in words.
    pub(super) fn is_native_still(&self, spec: &JobSpec) -> Result<(), String> {
        let planner = self.pipeline.planner();
        let config = planner.config();
        let decision = trust::decide(&config.trust, config.has_vm_backend(), &spec.origin);
        match decision.route {
            Route::Native => Ok(()),
            Route::Vm | Route::Refuse => Err(decision.reason),
        }
    }
}

impl Prepared {
    /// What it comes to, in words.
    fn told(&self, dry_run: bool) -> Reloaded {
        Reloaded {
            file: self.file.clone(),
            dry_run,
            changes: self.changes.clone(),
            manifests: self.other.clone(),
            refused: vec![],
        }
    }
}
