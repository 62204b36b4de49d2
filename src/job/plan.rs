//! From a job and a slot to a launch plan: grants resolved, profile rendered and parsed back, expectations
//! checked.

pub mod platform;

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use camino::{Utf8Path, Utf8PathBuf};

use super::{JobId, JobSpec, Repo};
use crate::config::{Config, EgressMode, RepoConfig};
use crate::github::admission::hook;
use crate::github::runner::listener;
use crate::github::runner::tree::{Build, RUNNERS};
use crate::host::Os;
use crate::profile::expect::{self, ExpectError, Expectation, Finding, Places};
use crate::profile::policy::Network;
use crate::profile::render::{
    HomebrewInput, RenderError, RenderInput, Rendered, Renderer, RunnerInput, System,
};
use crate::profile::{Posture, Rules};
use crate::sandbox::keychain::Keychain;
use crate::sandbox::launch::{Confinement, GroupLimits, LaunchPlan, ProcessLimits, Seatbelt, Stop};
use crate::slot::Slot;
use crate::workspace::homebrew::{self, HomebrewError, HostBrew, Mode, Order};
use crate::workspace::{self, Place, Workspace};

pub use platform::{MacHomebrew, MacHost, MacSlot, Platform};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A granted path is not there.
    #[error(
        "`{key}` names `{path}`, which cannot be used\nhint: create it, or take it out of the configuration"
    )]
    Grant {
        /// The configuration key.
        key: &'static str,
        /// The path as configured.
        path: Utf8PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A granted path leads, through a symbolic link, to daemon state.
    #[error(
        "`{key}` names `{path}`, which leads to daemon state at `{resolved}`\nhint: grant another folder"
    )]
    DaemonState {
        /// The configuration key.
        key: &'static str,
        /// The path as configured.
        path: Utf8PathBuf,
        /// Where it leads.
        resolved: Utf8PathBuf,
    },
    /// The host has no such slot.
    #[error("nothing is known of slot {0} of this host\nhint: slots are numbered from 1 to `native.slots`")]
    Slot(u32),
    /// There is no randomness for a password.
    #[error("the system gives no random numbers")]
    Chance(#[source] getrandom::Error),
    /// Homebrew cannot be had as configured.
    #[error(transparent)]
    Homebrew(#[from] HomebrewError),
    /// The host's Homebrew would show daemon state.
    #[error(
        "Homebrew in `{prefix}`, which jobs read and copy, overlaps the daemon's `{state}`\nhint: move `{state}`"
    )]
    HomebrewInState {
        /// Its prefix.
        prefix: Utf8PathBuf,
        /// The data folder, the configuration or the socket.
        state: Utf8PathBuf,
    },
    /// The profile did not render.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The expectations could not be evaluated.
    #[error(transparent)]
    Expect(#[from] ExpectError),
    /// The profile does not guarantee what every profile must.
    #[error(
        "the profile misses expectation `{id}`: {op} `{target}` must be {wanted}, but `{rule}` decides otherwise\nhint: {why}; `ephemerd profile verify` shows all",
        id = .0.expectation.id,
        op = .0.expectation.op,
        target = .0.target,
        wanted = .0.expectation.verdict,
        rule = .0.ruling.rule,
        why = .0.expectation.why
    )]
    Unmet(Box<Finding>),
}

/// A profile that guarantees what every profile must.
fn met(profile: Profile) -> Result<Profile, PlanError> {
    match profile.findings.iter().find(|finding| !finding.is_met()) {
        Some(unmet) => Err(PlanError::Unmet(Box::new(unmet.clone()))),
        None => Ok(profile),
    }
}

/// A number that nobody can guess.
fn chance() -> Result<u128, PlanError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(PlanError::Chance)?;
    Ok(u128::from_ne_bytes(bytes))
}

/// What rendering a profile takes besides the job: parsed once.
#[derive(Debug)]
pub struct Planner {
    config: Config,
    platform: Platform,
    /// Resolved, as the kernel sees it.
    data_dir: Utf8PathBuf,
    config_file: Utf8PathBuf,
    renderer: Renderer,
    expectations: Vec<Expectation>,
    environments: Environments,
    /// This very program, which a job that runs it must be able to see.
    program: Option<Utf8PathBuf>,
    /// Whether each job has a control group of its own.
    has_groups: bool,
}

/// Variables that manifests give to jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environments {
    /// To every job; the configuration's own win over them.
    pub host: BTreeMap<String, String>,
    /// To jobs of a repository; the configuration's own for it win over them.
    pub repos: BTreeMap<Repo, BTreeMap<String, String>>,
}

/// What GitHub's runner takes, for a job that is one.
#[derive(Debug, Clone, Copy)]
pub struct RunnerPlan<'a> {
    /// Its tree, which is in its place in the data folder.
    pub build: Build,
    /// What runs before the first step of its job; the folder that this is in is shown to the job.
    pub hook: Option<&'a Utf8Path>,
}

/// Folders of a runner's tree that a runner needs: its program, and the Node.js of actions. The others are for people.
const RUNNER_PARTS: [&str; 2] = ["bin", "externals"];

/// One profile, rendered and checked.
#[derive(Debug)]
pub struct Profile {
    /// The text.
    pub text: String,
    /// The text, read back.
    pub rules: Rules,
    /// Every expectation beside what the profile says.
    pub findings: Vec<Finding>,
}

/// One job, planned.
#[derive(Debug)]
pub struct Planned {
    /// What the sandbox is told.
    pub launch: LaunchPlan,
    /// The text of its profile.
    pub text: String,
    /// The Homebrew prefix of its own that it needs, where it gets one.
    pub homebrew: Option<Order>,
}

impl Planner {
    /// Prepares planning on `platform` for `config`, which was read from `config_file`.
    ///
    /// # Errors
    /// The built-in templates or expectations do not parse.
    pub fn new(config: Config, config_file: &Utf8Path, platform: Platform) -> Result<Self, PlanError> {
        Ok(Self {
            data_dir: platform.resolved(&config.host.data_dir),
            config_file: platform.resolved(config_file),
            platform,
            renderer: Renderer::new()?,
            expectations: expect::built_in()?,
            environments: Environments::default(),
            program: None,
            has_groups: false,
            config,
        })
    }

    /// The same host planned for under another configuration, of which nothing differs that is decided at a start.
    ///
    /// # Errors
    /// As [`Planner::new`].
    pub fn under(&self, config: Config, environments: Environments) -> Result<Self, PlanError> {
        Ok(Self {
            config,
            platform: self.platform.clone(),
            data_dir: self.data_dir.clone(),
            config_file: self.config_file.clone(),
            renderer: Renderer::new()?,
            expectations: expect::built_in()?,
            environments,
            program: self.program.clone(),
            has_groups: self.has_groups,
        })
    }

    /// Whether jobs of `repo`, or of anybody, are planned alike by both.
    pub fn plans_alike(&self, other: &Self, repo: Option<&Repo>) -> bool {
        let repos = match repo {
            Some(repo) => self.config.repos.get(repo) == other.config.repos.get(repo),
            None => self.config.repos == other.config.repos,
        };
        repos && self.config.native == other.config.native && self.environments == other.environments
    }

    /// The same, with variables that manifests give to jobs.
    #[must_use]
    pub fn with_environments(self, environments: Environments) -> Self {
        Self { environments, ..self }
    }

    /// The same, with a control group for each job, or without.
    #[must_use]
    pub fn with_groups(self, has_groups: bool) -> Self {
        Self { has_groups, ..self }
    }

    /// The same, for jobs of our own, whose command is this very `program`: it may lie where other jobs do not look.
    #[must_use]
    pub fn with_program(self, program: Utf8PathBuf) -> Self {
        Self {
            program: Some(program),
            ..self
        }
    }

    /// The configuration planned with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The system that is planned for.
    pub fn os(&self) -> Os {
        self.platform.os()
    }

    /// The data folder, resolved.
    pub fn data_dir(&self) -> &Utf8Path {
        &self.data_dir
    }

    /// What jobs of `repo`'s configuration get of the host's Homebrew.
    fn homebrew_mode(&self, repo: Option<&RepoConfig>) -> Mode {
        repo.and_then(|repo| repo.homebrew)
            .unwrap_or(self.config.native.homebrew)
    }

    /// Homebrew of this host as jobs of `repo`'s configuration get it; `None` on a host without, where jobs get
    /// none, and for a host that cannot be looked at.
    ///
    /// # Errors
    /// There is none where the configuration names it, or one of which no copy would work.
    fn homebrew(&self, repo: Option<&RepoConfig>) -> Result<Option<(Mode, HostBrew)>, PlanError> {
        let mode = self.homebrew_mode(repo);
        let (Some(usual), false) = (self.platform.usual_homebrew(), mode == Mode::None) else {
            return Ok(None);
        };
        let named = self.config.native.homebrew_prefix.as_deref();
        let Some(host) = HostBrew::locate(usual, named)? else {
            return Ok(None);
        };
        let prefix = host.prefix();
        let overlaps = |path: &Utf8Path| prefix.starts_with(path) || path.starts_with(prefix);
        let state = [&self.data_dir]
            .into_iter()
            .chain(&self.daemon_files())
            .find(|path| overlaps(path))
            .cloned();
        if let Some(state) = state {
            let prefix = prefix.to_owned();
            return Err(PlanError::HomebrewInState { prefix, state });
        }
        Ok(Some((mode, host)))
    }

    /// The host's prefix as profiles show it: [`Planner::homebrew`]'s, or one that is supposed to be there.
    fn homebrew_shown(&self, repo: Option<&RepoConfig>) -> Result<Option<(Mode, Utf8PathBuf)>, PlanError> {
        let mode = self.homebrew_mode(repo);
        match self.platform.supposed_homebrew() {
            Some(_) if mode == Mode::None => Ok(None),
            Some(supposed) => {
                let named = self.config.native.homebrew_prefix.as_ref();
                Ok(Some((mode, named.unwrap_or(supposed).clone())))
            }
            None => {
                let found = self.homebrew(repo)?;
                Ok(found.map(|(mode, host)| (mode, host.prefix().to_owned())))
            }
        }
    }

    /// Where jobs of slot `slot` have a Homebrew prefix of their own.
    pub(super) fn prefix(&self, workspace: &Workspace, slot: u32) -> Place {
        Place::of_homebrew(self.platform.os(), self.platform.prefixes(), workspace, slot)
    }

    /// Where jobs of slot `slot` that are GitHub's runner have it.
    pub(super) fn runner_place(&self, workspace: &Workspace, slot: u32) -> Place {
        Place::of_runner(self.platform.os(), self.platform.runner_places(), workspace, slot)
    }

    /// Renders the profile of a job of `repo`'s configuration in slot `slot` and evaluates the expectations on it.
    ///
    /// # Errors
    /// A grant cannot be used, or the template does not render to a profile.
    pub fn profile(
        &self,
        job: &JobId,
        slot: u32,
        posture: Posture,
        repo: Option<&RepoConfig>,
    ) -> Result<Profile, PlanError> {
        self.profile_showing(job, slot, (posture, repo), (&[], None))
    }

    /// The profile, with more paths to read, and of a runner.
    fn profile_showing(
        &self,
        job: &JobId,
        slot: u32,
        (posture, repo): (Posture, Option<&RepoConfig>),
        (shown, runner): (&[Utf8PathBuf], Option<RunnerPlan<'_>>),
    ) -> Result<Profile, PlanError> {
        let native = &self.config.native;
        let (mut extra_read, mut extra_write) = (native.extra_read.clone(), native.extra_write.clone());
        extra_read.extend(shown.iter().cloned());
        if let Some(repo) = repo {
            extra_read.extend(repo.extra_read.clone());
            extra_write.extend(repo.extra_write.clone());
        }
        let workspace = Workspace::new(&self.data_dir, job);
        let homebrew = self.homebrew_shown(repo)?.map(|(mode, host)| HomebrewInput {
            host: Some(host),
            own: (mode == Mode::Own).then(|| self.prefix(&workspace, slot)),
        });
        let protected = &self.config.egress.protect_local_ports;
        let system = self
            .platform
            .system(slot, protected)
            .ok_or(PlanError::Slot(slot))?;
        let input = RenderInput {
            job: job.clone(),
            workspace: workspace.root(),
            data_dir: self.data_dir.clone(),
            daemon_files: self.daemon_files(),
            extra_read: self.grants("extra_read", &extra_read)?,
            extra_write: self.grants("extra_write", &extra_write)?,
            homebrew,
            runner: runner.map(|runner| RunnerInput {
                root: self.runner_place(&workspace, slot).shown,
                tree: runner.build.folder(&self.data_dir.join(RUNNERS)),
                parts: RUNNER_PARTS.map(str::to_owned).into(),
                door: runner.hook.map(hook::socket_beside),
            }),
            network: match self.config.egress.mode {
                EgressMode::Offline => Network::None,
                EgressMode::BlockLan | EgressMode::Open => Network::Host,
            },
            system,
        };
        let Rendered { text, rules } = self.renderer.render(posture, &input)?;
        let findings = expect::evaluate(&self.expectations, &rules, &self.places(&input))?;
        Ok(Profile {
            text,
            rules,
            findings,
        })
    }

    /// What the placeholders of expectations stand for.
    fn places(&self, input: &RenderInput) -> Places {
        // No id and no account's folder have this form, so they stand for every other job.
        let sibling = self.data_dir.join("native").join("sibling");
        let mut places = Places::from([
            ("workspace", input.workspace.to_string()),
            ("sibling", sibling.into_string()),
            ("data_dir", self.data_dir.to_string()),
            ("config", self.config_file.to_string()),
        ]);
        if let System::MacOs(mac) = &input.system {
            let other = mac.user_folder.with_file_name("sibling");
            let port = mac.protected_ports.first().copied();
            let shown = input.homebrew.as_ref().and_then(|shown| shown.host.as_deref());
            let host_homebrew = shown.unwrap_or(Utf8Path::new("/opt/homebrew"));
            places.extend([
                ("program", mac.program.to_string()),
                ("user_folder", mac.user_folder.to_string()),
                ("sibling_user_folder", other.into_string()),
                ("developer_dir", mac.developer_dir.to_string()),
                ("host_homebrew", host_homebrew.to_string()),
                ("sibling_homebrew", mac.prefixes.join("sibling").into_string()),
                ("sibling_runner", mac.runner_places.join("sibling").into_string()),
                ("protected_port", port.unwrap_or_default().to_string()),
            ]);
        }
        places
    }

    /// The profile of one job in one slot, as [`Planner::profile`] renders it with the posture that the
    /// configuration says.
    ///
    /// # Errors
    /// As there; and a profile that misses an expectation is none.
    pub fn checked(&self, job: &JobId, spec: &JobSpec, slot: &Slot) -> Result<Profile, PlanError> {
        self.checked_showing(job, spec, slot, None)
    }

    /// Renders and checks the profile of no job in particular, of `repo` or of anybody.
    ///
    /// # Errors
    /// As [`Planner::checked`].
    pub fn rehearse(&self, repo: Option<&Repo>) -> Result<(), PlanError> {
        let repo = repo.and_then(|repo| self.config.repos.get(repo));
        let posture = repo
            .and_then(|repo| repo.posture)
            .unwrap_or(self.config.native.posture);
        let profile = self.profile(&JobId::new(UNIX_EPOCH, 0), 1, posture, repo)?;
        met(profile).map(drop)
    }

    fn checked_showing(
        &self,
        job: &JobId,
        spec: &JobSpec,
        slot: &Slot,
        runner: Option<RunnerPlan<'_>>,
    ) -> Result<Profile, PlanError> {
        let repo = self.config.repos.get(&spec.origin.repo);
        let posture = repo
            .and_then(|repo| repo.posture)
            .unwrap_or(self.config.native.posture);
        let hook = runner.and_then(|runner| runner.hook?.parent());
        // The hook runs this program, as jobs of our own do.
        let runs_us =
            |own: &&Utf8PathBuf| hook.is_some() || spec.command.first().is_some_and(|first| *first == ***own);
        let own = self.program.as_ref().filter(runs_us).cloned();
        let shown: Vec<Utf8PathBuf> = own.into_iter().chain(hook.map(Utf8Path::to_owned)).collect();
        let profile = self.profile_showing(job, slot.index, (posture, repo), (&shown, runner))?;
        met(profile)
    }

    /// The launch plan of one job in one slot, and what has to be there before.
    ///
    /// # Errors
    /// See [`PlanError`]; a profile that misses an expectation gives no plan.
    pub fn plan(
        &self,
        (job, spec): (&JobId, &JobSpec),
        runner: Option<RunnerPlan<'_>>,
        slot: &Slot,
        root: bool,
    ) -> Result<Planned, PlanError> {
        let Profile { text, rules, .. } = self.checked_showing(job, spec, slot, runner)?;
        let repo = self.config.repos.get(&spec.origin.repo);
        let workspace = Workspace::new(&self.data_dir, job);
        let none = BTreeMap::new();
        let homebrew = self.homebrew(repo)?;
        let (brew_env, order) = match &homebrew {
            Some((mode, host)) => self.brew(*mode, host, &workspace, slot.index),
            None => (BTreeMap::new(), None),
        };
        let layers = [
            &self.platform.environment(&workspace),
            &brew_env,
            &self.environments.host,
            &self.config.native.env,
            self.environments.repos.get(&spec.origin.repo).unwrap_or(&none),
            repo.map_or(&none, |repo| &repo.env),
            &spec.env,
        ];
        let mut env = workspace::environment(&workspace, slot, job, &layers);
        let confinement = match rules {
            Rules::Linux(policy) => Confinement::Linux(policy),
            Rules::MacOs(_) => {
                let keychain = Keychain::new(workspace.home(), chance()?);
                env.extend(keychain.environment());
                Confinement::Seatbelt(Seatbelt {
                    profile: text.clone(),
                    keychain,
                })
            }
        };
        let (command, stop) = match runner {
            None => (spec.command.clone(), Stop::Terminate),
            Some(runner) => {
                env = listener::environment(self.os(), &env, runner.hook);
                let root = self.runner_place(&workspace, slot.index).shown;
                (listener::argv(&root), Stop::Interrupt)
            }
        };
        let limits = &self.config.native.limits;
        let plan = LaunchPlan {
            job: job.clone(),
            confinement,
            account: root.then(|| slot.account.clone()),
            command,
            env,
            stop,
            work_dir: workspace.work(),
            limits: ProcessLimits {
                processes: limits.processes,
                open_files: limits.open_files,
                file_byte: limits.disk_byte,
                nice: limits.nice,
            },
            group: self.has_groups.then_some(GroupLimits {
                memory_byte: limits.memory_byte,
                processes: limits.processes,
            }),
        };
        Ok(Planned {
            launch: plan,
            text,
            homebrew: order,
        })
    }

    /// What Homebrew adds to a job's environment, and the prefix to make for it.
    fn brew(
        &self,
        mode: Mode,
        host: &HostBrew,
        workspace: &Workspace,
        slot: u32,
    ) -> (BTreeMap<String, String>, Option<Order>) {
        let own = mode == Mode::Own;
        let place = self.prefix(workspace, slot);
        let prefix = if own { &place.shown } else { host.prefix() };
        let env = homebrew::environment(self.platform.os(), workspace, mode, prefix);
        let order = own.then(|| Order {
            host: host.prefix().to_owned(),
            layout: self.config.native.homebrew_layout,
            slot,
        });
        (env, order)
    }

    /// Files of the daemon that lie outside the data folder.
    fn daemon_files(&self) -> Vec<Utf8PathBuf> {
        let socket = self.platform.resolved(&self.config.control.socket);
        // A configuration of /dev/null is all defaults, and the device is for jobs too.
        let outside = |path: &Utf8PathBuf| {
            !path.starts_with(&self.data_dir)
                && !path.starts_with(&self.config.host.data_dir)
                && path != "/dev/null"
        };
        [self.config_file.clone(), socket]
            .into_iter()
            .filter(outside)
            .collect()
    }

    /// Resolves granted paths, because the kernel compares resolved ones, and refuses those that lead to
    /// daemon state.
    fn grants(&self, key: &'static str, paths: &[Utf8PathBuf]) -> Result<Vec<Utf8PathBuf>, PlanError> {
        let resolve = |path: &Utf8PathBuf| {
            let resolved = self.platform.existing(path).map_err(|source| PlanError::Grant {
                key,
                path: path.clone(),
                source,
            })?;
            let (granted, ours) = (
                self.platform.compared(&resolved),
                self.platform.compared(&self.data_dir),
            );
            if granted.starts_with(&ours) || ours.starts_with(&granted) {
                return Err(PlanError::DaemonState {
                    key,
                    path: path.clone(),
                    resolved,
                });
            }
            Ok(resolved)
        };
        paths.iter().map(resolve).collect()
    }
}
