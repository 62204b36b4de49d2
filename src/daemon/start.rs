//! The start, shared by `run` and `exec`: data folder, axes, slots, ledger, warden, and the tear-down of what
//! an earlier process left, in that order. Nothing is started before everything is checked.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};

use super::egress::Keeper;
use super::gate::Manifests;
use crate::config::{Accounts, Config, EgressMode, Groups};
use crate::github::admission::hook::Place;
use crate::host::accounts::{self, AccountsError, Wanted};
use crate::host::egress::{self, EgressError};
use crate::host::entrance;
use crate::host::mac::{self, MacError};
use crate::host::{Host, Os, probe};
use crate::job::Acquisition;
use crate::job::ledger::{AcquisitionId, Ledger, LedgerError};
use crate::job::plan::{MacHomebrew, MacHost, MacSlot, PlanError, Planner, Platform};
use crate::job::run::pressure::Pressure;
use crate::job::run::{Pipeline, RunError};
use crate::latest::Latest;
use crate::profile::sbpl::Release;
use crate::provision::manifest::ManifestError;
use crate::sandbox::Axis;
use crate::sandbox::axes::{self, AxisReport, Standing};
use crate::slot::{Account, Slot};
use crate::vm::room::Room;
use crate::warden::client::{Warden, WardenError};
use crate::warden::{Reply, Request};
use crate::workspace::{self, WorkspaceError};

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] WorkspaceError),
    /// An axis the configuration requires cannot be enforced.
    #[error("this host cannot run native jobs as configured: {reason}")]
    Axes {
        /// The first axis that is missing, with the remedy.
        reason: String,
        /// Every axis.
        reports: Vec<AxisReport>,
    },
    /// This Mac does not say what it has.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// No profile can be made for this release of macOS.
    #[error(
        "macOS {version} is not known to this version of ephemerd\nhint: profiles are made for macOS 14 and later, up to the newest that `ephemerd profile render --help` names"
    )]
    Release {
        /// What it says it is.
        version: String,
    },
    /// Another process has the slots.
    #[error(
        "{what} in use by another ephemerd\nhint: `ephemerd submit --wait` hands a job to a running daemon"
    )]
    Busy {
        /// Which slots.
        what: String,
    },
    /// Something was left in every slot.
    #[error(
        "every slot is in quarantine\nhint: look at what was left, then `ephemerd resume --slot N` of a running daemon"
    )]
    AllQuarantined,
    /// A slot's lock cannot be made.
    #[error("could not lock `{path}`")]
    Lock {
        /// The lock file.
        path: Utf8PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A manifest that the configuration names is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Profiles cannot be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The warden does not start.
    #[error(transparent)]
    Warden(#[from] WardenError),
    /// The packet filter cannot be loaded, or does not do what it should.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// Guests cannot be made as configured.
    #[error("guests cannot be made as `[vm]` says: {0}")]
    Vm(String),
    /// What an earlier process left cannot be torn down.
    #[error(transparent)]
    Recover(#[from] RunError),
}

/// How much of the host the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Every slot, for the daemon.
    Everything,
    /// One free slot, for `exec`.
    OneSlot,
}

/// Everything that is needed to run jobs.
#[derive(Debug)]
pub struct Started {
    /// Runs them.
    pub pipeline: Pipeline,
    /// The slots that are ours.
    pub slots: Vec<Slot>,
    /// What guests are made in, where a backend is configured.
    pub room: Option<Room>,
    /// Why no native job can run here, where that is so and guests can.
    pub only_guests: Option<String>,
    /// What was torn down, in words.
    pub recovered: Vec<String>,
    /// What jobs will miss on this host, in words.
    pub notes: Vec<String>,
    /// What this host must have.
    pub manifests: Manifests,
    /// Held as long as the slots are ours.
    pub locks: Vec<File>,
}

/// What `host` enforces under `config`, and the accounts its slots would run as.
pub fn survey(host: &Host, config: &Config) -> (Vec<AxisReport>, Result<Vec<Account>, AccountsError>) {
    let wanted = wanted(config);
    let found = accounts::observe(host, &wanted).and_then(|seen| accounts::resolve(host.os, &wanted, &seen));
    let why = found.as_ref().map(|_| ()).map_err(|error| crate::chain(error));
    (axes::assess(&probe::probe(host, why), config), found)
}

/// The accounts `config` wants.
pub fn wanted(config: &Config) -> Wanted<'_> {
    Wanted {
        account: &config.host.account,
        slots: config.native.slots,
        accounts: config.native.accounts,
    }
}

/// Makes `host` ready to run jobs, with `program` (ephemerd itself) as the warden.
///
/// # Errors
/// See [`StartError`]; then nothing was started and nothing is left.
pub async fn start(
    host: &Host,
    config: Config,
    config_file: Utf8PathBuf,
    (program, claim): (&Utf8Path, Claim),
) -> Result<Started, StartError> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let (reports, accounts) = survey(host, &config);
    let refusal = axes::refusal(&reports, &config);
    // Guests need nothing of what native jobs are fenced in with.
    let only_guests = refusal.filter(|_| config.has_vm_backend() && claim == Claim::Everything);
    if let (None, Some(reason)) = (&only_guests, axes::refusal(&reports, &config)) {
        return Err(StartError::Axes { reason, reports });
    }
    workspace::prepare_data_dir(&config.host.data_dir, uid.as_raw(), gid.as_raw())?;
    if host.os == Os::MacOs {
        workspace::prepare_profiles(&config.host.data_dir, uid.as_raw(), gid.as_raw())?;
    }
    // Without root there are no accounts to become; the axes above have said so.
    let accounts = accounts.ok().filter(|_| uid.is_root());
    let all = slots(&config, accounts.as_deref());
    let platform = match host.os {
        Os::Linux => Platform::Linux,
        Os::MacOs => Platform::MacOs(mac_host(host, program, &all)?),
    };
    let every = egress_slots(&config, all.clone());
    let notes = match &platform {
        Platform::MacOs(mac) if mac.developer_dir.is_none() => vec![NO_DEVELOPER_DIR.to_owned()],
        Platform::Linux | Platform::MacOs(_) => vec![],
    };
    let manifests = Manifests::load(host, &config)?;
    let environments = manifests.environments(host, &config);
    let planner = Planner::new(config, &config_file, platform)?
        .with_environments(environments)
        .with_program(program.to_owned());
    let wants_groups = planner.config().native.limits.cgroup != Groups::Off;
    let has_groups =
        wants_groups && host.os == Os::Linux && uid.is_root() && crate::host::cgroup::look().is_ok();
    let planner = planner.with_groups(has_groups);
    let exclusive = accounts.is_some() && planner.config().native.accounts == Accounts::PerSlot;
    let shared = exclusive.then(|| host.run.join("ephemerd"));
    let ledger = Ledger::open(&planner.data_dir().join("state/ledger.db"))?;
    if let Err(error) = ledger.keep_ballast() {
        tracing::warn!(%error, "no room could be kept for the ledger");
    }
    let all = match claim {
        Claim::Everything => all,
        Claim::OneSlot => without_quarantined(all, &ledger)?,
    };
    let (slots, locks) = lock(planner.data_dir(), shared.as_deref(), all, claim)?;
    let warden = Warden::start(program, planner.data_dir())?;
    let mut pipeline = Pipeline {
        planner: Latest::new(planner),
        ledger,
        warden,
        axes: reports,
        pressure: Pressure::default(),
        root: uid.is_root(),
        keep: false,
        egress: None,
    };
    // Under the rules that it ran under, whatever is left of an earlier process ends first.
    let room = match claim {
        Claim::Everything => room(host, &pipeline, program)?,
        Claim::OneSlot => None,
    };
    let mut recovered = recover(&pipeline, room.as_ref(), &slots, claim).await?;
    recovered.extend(close_entrances(host, pipeline.planner().data_dir(), &slots));
    pipeline.egress = keeper(host, &pipeline, &every)?;
    Ok(Started {
        manifests,
        pipeline,
        room,
        only_guests,
        slots,
        recovered,
        notes,
        locks,
    })
}

/// Guests among what a job holds, with their backends and names; and the rest.
#[expect(clippy::type_complexity, reason = "taken apart at once")]
fn apart(
    open: Vec<(AcquisitionId, Acquisition)>,
) -> (
    Vec<(AcquisitionId, String, String)>,
    Vec<(AcquisitionId, Acquisition)>,
) {
    let (mut guests, mut rest) = (vec![], vec![]);
    for (id, what) in open {
        match what {
            Acquisition::Vm { backend, name } => guests.push((id, backend, name)),
            other => rest.push((id, other)),
        }
    }
    (guests, rest)
}

/// What guests are made in, where a backend is configured.
fn room(host: &Host, pipeline: &Pipeline, program: &Utf8Path) -> Result<Option<Room>, StartError> {
    let planner = pipeline.planner();
    let config = planner.config();
    if !config.has_vm_backend() {
        return Ok(None);
    }
    let data_dir = planner.data_dir();
    let filtered = config.egress.mode == EgressMode::BlockLan && is_enforced(Axis::Network, &pipeline.axes);
    let unfiltered = config
        .vm
        .backends
        .iter()
        .find(|(_, backend)| backend.sends_as_user());
    if let (Some((name, _)), false) = (unfiltered, filtered) {
        return Err(StartError::Vm(format!(
            "guests of `{name}` reach the internet as the account of `vm.user`, and no packet filter keeps that off the LAN\nhint: `ephemerd egress status` says why; or set `network = \"none\"`"
        )));
    }
    crate::vm::room::Room::open(host, config, (data_dir, program))
        .map(Some)
        .map_err(StartError::Vm)
}

/// The slots whose accounts the packet filter knows: those of native jobs, and one for each guest that may send as the
/// account of `vm.user`.
pub(crate) fn egress_slots(config: &Config, mut slots: Vec<Slot>) -> Vec<Slot> {
    let sends = config.vm.backends.values().any(crate::vm::Backend::sends_as_user);
    let account = config.vm.user.as_deref().and_then(crate::vm::room::account);
    if let (true, Some(account)) = (sends, account) {
        let first = u32::try_from(slots.len()).unwrap_or_default() + 1;
        slots.extend((first..first + config.vm.linux).map(|index| Slot::of_guest(index, account.clone())));
    }
    slots
}

/// The keeper of the packet filter, in the mode that has one. In the mode that is open, rules that are left of another
/// one go, unless others run jobs under them.
fn keeper(host: &Host, pipeline: &Pipeline, slots: &[Slot]) -> Result<Option<Keeper>, EgressError> {
    let planner = pipeline.planner();
    let config = planner.config();
    match config.egress.mode {
        // Whoever lets jobs run although it cannot be enforced has said so by name, and the report does.
        EgressMode::BlockLan if is_enforced(Axis::Network, &pipeline.axes) => {
            Ok(Some(Keeper::start(host, config, slots)?))
        }
        EgressMode::Open if pipeline.root && egress::available(host).is_ok() => {
            match egress::hold::remove(host, &crate::egress::name(&config.host.account)) {
                Ok(()) | Err(EgressError::Busy { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        }
        EgressMode::BlockLan | EgressMode::Offline | EgressMode::Open => Ok(None),
    }
}

fn is_enforced(axis: Axis, reports: &[AxisReport]) -> bool {
    let found = reports.iter().find(|report| report.axis == axis);
    found.is_some_and(|report| report.standing == Standing::Enforced)
}

/// Said where xcode-select(1) names no folder.
const NO_DEVELOPER_DIR: &str = "no developer folder is selected, so jobs have no DEVELOPER_DIR, git or clang\nhint: xcode-select --install, or xcode-select -s PATH";

/// What this Mac has for jobs in `slots`, with `program` as the first inside of a sandbox.
fn mac_host(host: &Host, program: &Utf8Path, slots: &[Slot]) -> Result<MacHost, StartError> {
    let version = mac::version(host)?;
    let release = Release::of_version(&version)
        .filter(|release| *release >= Release::MacOs14)
        .ok_or(StartError::Release { version })?;
    let developer_dir = mac::developer_dir(host)?;
    let found = |slot: &Slot| {
        let user_folder = mac::user_folder(host, &slot.account)?;
        Ok((slot.index, MacSlot { user_folder }))
    };
    Ok(MacHost {
        release,
        program: program.to_owned(),
        developer_dir,
        homebrew: MacHomebrew::Usually(host.homebrew.clone()),
        prefixes: host.prefixes.clone(),
        runner_places: host.runner_places.clone(),
        user_folders: host.user_folders.clone(),
        slots: slots.iter().map(found).collect::<Result<_, MacError>>()?,
    })
}

/// The slots of `config`; without `accounts` they all run as the caller.
pub(crate) fn slots(config: &Config, accounts: Option<&[Account]>) -> Vec<Slot> {
    let caller = || Account {
        name: users::get_current_username()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_else(|| "job".into()),
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    };
    let native = &config.native;
    let slot = |index: u32| {
        let place = usize::try_from(index - 1).unwrap_or_default();
        let place = if native.accounts == Accounts::Single {
            0
        } else {
            place
        };
        let account = accounts
            .and_then(|accounts| accounts.get(place).cloned())
            .unwrap_or_else(caller);
        // The configuration has made sure that all ranges lie below 65536.
        let offset = u16::try_from(index - 1)
            .unwrap_or_default()
            .saturating_mul(native.ports_per_slot);
        let first_port = native.first_port.saturating_add(offset);
        Slot {
            index,
            account,
            first_port,
            last_port: first_port.saturating_add(native.ports_per_slot - 1),
        }
    };
    (1..=native.slots).map(slot).collect()
}

/// Leaves out the slots that are in quarantine.
fn without_quarantined(mut slots: Vec<Slot>, ledger: &Ledger) -> Result<Vec<Slot>, StartError> {
    let quarantined = ledger.quarantined()?;
    slots.retain(|slot| quarantined.iter().all(|q| q.slot != slot.index));
    if slots.is_empty() {
        return Err(StartError::AllQuarantined);
    }
    Ok(slots)
}

/// Locks slots against other processes; the kernel drops the locks when this one ends, however it ends. Where
/// slots have accounts of their own, those are locked too, in the folder `shared` by the whole host: the end
/// of a job kills everything of its account, whichever data folder that belongs to.
fn lock(
    data_dir: &Utf8Path,
    shared: Option<&Utf8Path>,
    all: Vec<Slot>,
    claim: Claim,
) -> Result<(Vec<Slot>, Vec<File>), StartError> {
    if let Some(folder) = shared {
        std::fs::create_dir_all(folder).map_err(|source| StartError::Lock {
            path: folder.to_owned(),
            source,
        })?;
    }
    let (mut ours, mut locks, mut busy) = (vec![], vec![], vec![]);
    for slot in all {
        let place = data_dir.join(format!("run/slot-{}.lock", slot.index));
        let account = shared.map(|folder| folder.join(format!("{}.lock", slot.account.name)));
        let held = std::iter::once(place)
            .chain(account)
            .map(try_lock)
            .collect::<Result<Option<Vec<File>>, _>>()?;
        match held {
            Some(held) => {
                ours.push(slot);
                locks.extend(held);
            }
            None => busy.push(slot.index.to_string()),
        }
        if claim == Claim::OneSlot && !ours.is_empty() {
            return Ok((ours, locks));
        }
    }
    match claim {
        Claim::Everything if busy.is_empty() => Ok((ours, locks)),
        Claim::Everything => Err(StartError::Busy {
            what: format!("slot {} is", busy.join(", ")),
        }),
        Claim::OneSlot => Err(StartError::Busy {
            what: "every slot is".into(),
        }),
    }
}

/// Locks one file, which is made when it does not exist; `None` when another process has it.
fn try_lock(path: Utf8PathBuf) -> Result<Option<File>, StartError> {
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        // Whoever can open the file can lock it.
        .mode(0o600)
        .open(&path);
    let locked = opened.and_then(|file| match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(source),
    });
    locked.map_err(|source| StartError::Lock { path, source })
}

/// Removes entrances for hooks of GitHub jobs that an earlier process left in slots that are ours; which, in words.
fn close_entrances(host: &Host, data_dir: &Utf8Path, slots: &[Slot]) -> Vec<String> {
    let left = slots.iter().filter_map(|slot| {
        // A path that is too long was never made.
        let place = Place::new(&host.run, data_dir, slot.index).ok()?;
        place.folder().symlink_metadata().ok()?;
        // One that stays is in nobody's way: it is removed before the next is made.
        let how = match entrance::remove(&place) {
            Ok(()) => "removed".to_owned(),
            Err(error) => crate::chain(&error),
        };
        Some(format!("entrance of slot {}: {how}", slot.index))
    });
    left.collect()
}

/// Tears down what earlier processes left: jobs of the slots that are ours, and, for the daemon, jobs that
/// never got a slot and folders no ledger knows.
async fn recover(
    pipeline: &Pipeline,
    room: Option<&Room>,
    slots: &[Slot],
    claim: Claim,
) -> Result<Vec<String>, StartError> {
    let mut report = Vec::new();
    for unfinished in pipeline.ledger.unfinished()? {
        let ours = match &unfinished.slot {
            Some(slot) => claim == Claim::Everything || slots.iter().any(|s| s.index == slot.index),
            None => claim == Claim::Everything,
        };
        if ours {
            let (guests, open) = apart(unfinished.open);
            let of_guests = match room {
                Some(room) => room.recover(&pipeline.ledger, &guests).await?,
                None => guests
                    .iter()
                    .map(|(_, backend, name)| {
                        format!("guest {name} of the backend `{backend}`, which is not configured any more")
                    })
                    .collect(),
            };
            let ended = pipeline
                .recover(&unfinished.id, unfinished.slot.as_ref(), (open, of_guests))
                .await?;
            let left = if ended.leftovers.is_empty() {
                "clean".into()
            } else {
                ended.leftovers.join(", ")
            };
            report.push(format!("job {}: {left}", unfinished.id));
        }
    }
    if claim == Claim::OneSlot {
        return Ok(report);
    }
    if let Some(room) = room {
        report.extend(room.sweep().await);
    }
    // After a power cut the ledger may have forgotten its last jobs; their folders tell.
    if let Reply::Folders { jobs } = pipeline.warden.ask(Request::Folders, &[]).await? {
        for job in jobs {
            let acquisitions = vec![Acquisition::Profile, Acquisition::Workspace];
            let request = Request::Scrub {
                job: job.clone(),
                account: None,
                acquisitions,
                keep: false,
            };
            if let Reply::Scrubbed { leftovers, .. } = pipeline.warden.ask(request, &[]).await? {
                let left = if leftovers.is_empty() {
                    "removed".into()
                } else {
                    leftovers.join(", ")
                };
                report.push(format!("unknown workspace {job}: {left}"));
            }
        }
    }
    Ok(report)
}
