//! The start, shared by `run` and `exec`: data folder, axes, slots, ledger, warden, and the tear-down of what
//! an earlier process left, in that order. Nothing is started before everything is checked.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use super::egress::{Keeper, KeeperError};
use super::gate::Manifests;
use super::ground::{self, Ground};
use super::recover::{Recovered, TakenUp, close_entrances, recover};
use crate::config::{Accounts, Config, EgressMode};
use crate::host::accounts::{self, AccountsError, Wanted};
use crate::host::egress::{self, EgressError};
use crate::host::mac::MacError;
use crate::host::{Host, probe};
use crate::job::ledger::{Ledger, LedgerError};
use crate::job::plan::{PlanError, Planner, Platform};
use crate::job::run::pressure::Pressure;
use crate::job::run::{Pipeline, RunError};
use crate::latest::Latest;
use crate::provision::manifest::ManifestError;
use crate::sandbox::axes::{self, AxisReport};
use crate::slot::{Account, Slot};
use crate::vm::room::Room;
use crate::warden::Hello;
use crate::warden::client::{Warden, WardenError};
use crate::workspace::WorkspaceError;

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
    /// Its account cannot be taken for a moment.
    #[error("could not open the ledger as the dispatcher's account")]
    Dispatcher(#[source] io::Error),
    /// There is no account for the dispatcher.
    #[error(
        "there is no account `{0}`, which the daemon's unprivileged half runs as\nhint: run `ephemerd host setup`"
    )]
    NoService(String),
    /// The rules of the warden's packet filter cannot be kept.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
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
    /// What was torn down or taken up, in words.
    pub recovered: Vec<String>,
    /// The jobs of an earlier dispatcher that go on.
    pub taken_up: Vec<TakenUp>,
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

/// Makes `host` ready to run jobs in one free slot, with `program` (ephemerd itself) as the warden.
///
/// # Errors
/// See [`StartError`]; then nothing was started and nothing is left.
pub async fn start(
    host: &Host,
    config: Config,
    config_file: Utf8PathBuf,
    (program, claim): (&Utf8Path, Claim),
) -> Result<Started, StartError> {
    let ground = ground::lay(host, &config, (program, claim))?;
    let shared = ground.shared_locks(host, &config);
    let all = slots(&config, ground.accounts.as_deref());
    let footing = Footing::new(host, config, config_file, (program, &ground))?;
    let data_dir = footing.planner.data_dir().to_owned();
    let all = match claim {
        Claim::Everything => all,
        Claim::OneSlot => without_quarantined(all, &footing.ledger)?,
    };
    let (slots, locks) = ground::lock(&data_dir, shared.as_deref(), all, claim)?;
    let warden = Arc::new(Warden::start(program, &data_dir)?);
    let rules = RulesOf::Us;
    let hello = Hello {
        ground,
        kept: vec![],
        killed: 0,
    };
    footing
        .finish(host, (warden, rules), (program, claim), hello, (slots, locks))
        .await
}

/// Takes a daemon's jobs up on ground that the warden has laid, whose slots it has locked. `changes` is what tells of
/// changes of the network.
///
/// # Errors
/// See [`StartError`].
pub async fn join(
    host: &Host,
    config: Config,
    config_file: Utf8PathBuf,
    (program, warden): (&Utf8Path, Arc<Warden>),
    (hello, changes): (Hello, Vec<OwnedFd>),
) -> Result<Started, StartError> {
    let all = slots(&config, hello.ground.accounts.as_deref());
    let footing = Footing::new(host, config, config_file, (program, &hello.ground))?;
    let whole = (program, Claim::Everything);
    let rules = RulesOf::Warden(changes);
    footing
        .finish(host, (warden, rules), whole, hello, (all, vec![]))
        .await
}

/// Who holds the packet filter.
enum RulesOf {
    Us,
    /// With what tells of changes of the network.
    Warden(Vec<OwnedFd>),
}

/// What can be had without the warden.
struct Footing {
    planner: Planner,
    manifests: Manifests,
    ledger: Ledger,
    notes: Vec<String>,
}

impl Footing {
    fn new(
        host: &Host,
        config: Config,
        config_file: Utf8PathBuf,
        (program, ground): (&Utf8Path, &Ground),
    ) -> Result<Self, StartError> {
        let platform = ground.platform();
        let notes = match &platform {
            Platform::MacOs(mac) if mac.developer_dir.is_none() => vec![NO_DEVELOPER_DIR.to_owned()],
            Platform::Linux | Platform::MacOs(_) => vec![],
        };
        let manifests = Manifests::load(host, &config)?;
        let environments = manifests.environments(host, &config);
        let planner = Planner::new(config, &config_file, platform)?
            .with_environments(environments)
            .with_program(program.to_owned())
            .with_groups(ground.has_groups);
        let account = planner.config().host.account.clone();
        let ledger = accounts::as_dispatcher(&account, || {
            let ledger = Ledger::open(&planner.data_dir().join("state/ledger.db"))?;
            if let Err(error) = ledger.keep_ballast() {
                tracing::warn!(%error, "no room could be kept for the ledger");
            }
            Ok::<_, LedgerError>(ledger)
        })
        .map_err(StartError::Dispatcher)??;
        Ok(Self {
            planner,
            manifests,
            ledger,
            notes,
        })
    }

    async fn finish(
        self,
        host: &Host,
        (warden, rules): (Arc<Warden>, RulesOf),
        (program, claim): (&Utf8Path, Claim),
        Hello { ground, kept, .. }: Hello,
        (slots, locks): (Vec<Slot>, Vec<File>),
    ) -> Result<Started, StartError> {
        let kept = kept.into_iter().collect();
        let every = egress_slots(
            self.planner.config(),
            self::slots(self.planner.config(), ground.accounts.as_deref()),
        );
        let has_filter = ground.has_filter(self.planner.config());
        let mut pipeline = Pipeline {
            planner: Latest::new(self.planner),
            ledger: self.ledger,
            warden,
            axes: ground.axes,
            pressure: Pressure::default(),
            root: ground.accounts.is_some(),
            keep: false,
            egress: None,
        };
        // Under the rules that it ran under, whatever is left of an earlier process ends first.
        let room = match claim {
            Claim::Everything => room(host, &pipeline, (program, has_filter), ground.dispatcher.as_ref())?,
            Claim::OneSlot => None,
        };
        let Recovered { taken_up, report } =
            recover(&pipeline, room.as_ref(), (&slots, claim), &kept).await?;
        let mut recovered = report;
        recovered.extend(close_entrances(host, &pipeline, &slots, &taken_up).await);
        pipeline.egress = match (rules, has_filter) {
            (RulesOf::Us, true) => Some(Keeper::start(host, pipeline.planner().config(), &every)?),
            (RulesOf::Warden(changes), true) => {
                Some(Keeper::join(pipeline.planner().config(), &every, &pipeline.warden, changes).await?)
            }
            // Whoever lets jobs run although it cannot be enforced has said so by name, and the report does.
            (RulesOf::Us, false) => {
                open(host, pipeline.planner().config())?;
                None
            }
            (RulesOf::Warden(_), false) => None,
        };
        Ok(Started {
            manifests: self.manifests,
            pipeline,
            room,
            only_guests: ground.only_guests,
            slots,
            recovered,
            taken_up,
            notes: self.notes,
            locks,
        })
    }
}

/// What guests are made in, where a backend is configured.
fn room(
    host: &Host,
    pipeline: &Pipeline,
    (program, filtered): (&Utf8Path, bool),
    dispatcher: Option<&Account>,
) -> Result<Option<Room>, StartError> {
    let planner = pipeline.planner();
    let config = planner.config();
    if !config.has_vm_backend() {
        return Ok(None);
    }
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
    let by = dispatcher.map(|account| (&pipeline.warden, account));
    Room::open(
        host,
        config,
        program,
        by.filter(|(warden, _)| warden.is_of_daemon()),
    )
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

/// In the mode that is open, takes rules that are left of another one out, unless others run jobs under them.
///
/// # Errors
/// They are there and cannot be taken out.
pub fn open(host: &Host, config: &Config) -> Result<(), EgressError> {
    let is_root = nix::unistd::geteuid().is_root();
    if config.egress.mode != EgressMode::Open || !is_root || egress::available(host).is_err() {
        return Ok(());
    }
    match egress::hold::remove(host, &crate::egress::name(&config.host.account)) {
        Ok(()) | Err(EgressError::Busy { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Said where xcode-select(1) names no folder.
const NO_DEVELOPER_DIR: &str = "no developer folder is selected, so jobs have no DEVELOPER_DIR, git or clang\nhint: xcode-select --install, or xcode-select -s PATH";

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
