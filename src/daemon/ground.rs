//! What a dispatcher stands on: what only the privileged half of the daemon can find out and make ready.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::start::{Claim, StartError, slots, survey};
use crate::config::{Accounts, Config, EgressMode, Groups};
use crate::host::mac::{self, MacError};
use crate::host::{Host, Os, accounts, cgroup};
use crate::job::plan::{MacHomebrew, MacHost, MacSlot, Platform};
use crate::profile::sbpl::Release;
use crate::sandbox::Axis;
use crate::sandbox::axes::{self, AxisReport, Standing};
use crate::slot::{Account, Slot};
use crate::workspace;

/// What was found and made ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// What this host enforces.
    pub axes: Vec<AxisReport>,
    /// Why no native job can run here, where that is so and guests can.
    pub only_guests: Option<String>,
    /// The accounts of the slots, where jobs have accounts of their own.
    pub accounts: Option<Vec<Account>>,
    /// The dispatcher's own, where it has one.
    pub dispatcher: Option<Account>,
    /// What this Mac has for jobs, on one.
    pub mac: Option<MacHost>,
    /// Whether jobs can have control groups.
    pub has_groups: bool,
    /// How often the service manager wants to hear that the daemon lives.
    pub watchdog: Option<Duration>,
    /// What the service manager and others see as the daemon.
    pub pid: u32,
    /// The version of the program; both halves must be of one.
    pub version: String,
}

impl Ground {
    /// Whether jobs run as accounts of their own.
    pub fn is_root(&self) -> bool {
        self.accounts.is_some()
    }

    /// What jobs are prepared for.
    pub fn platform(&self) -> Platform {
        match self.mac.clone() {
            Some(mac) => Platform::MacOs(mac),
            None => Platform::Linux,
        }
    }

    /// Whether a packet filter keeps jobs of `config` off the LAN.
    pub fn has_filter(&self, config: &Config) -> bool {
        let found = self.axes.iter().find(|report| report.axis == Axis::Network);
        let is_enforced = found.is_some_and(|report| report.standing == Standing::Enforced);
        config.egress.mode == EgressMode::BlockLan && is_enforced
    }

    /// The folder by which the whole host shares locks of accounts, where slots have accounts of their own.
    pub fn shared_locks(&self, host: &Host, config: &Config) -> Option<Utf8PathBuf> {
        let exclusive = self.is_root() && config.native.accounts == Accounts::PerSlot;
        exclusive.then(|| host.run.join("ephemerd"))
    }
}

/// Looks at `host` and makes the data folder ready for jobs under `config`, with `program` (ephemerd itself).
///
/// # Errors
/// See [`StartError`]; then nothing was started.
pub fn lay(host: &Host, config: &Config, (program, claim): (&Utf8Path, Claim)) -> Result<Ground, StartError> {
    let (reports, found) = survey(host, config);
    let refusal = axes::refusal(&reports, config);
    // Guests need nothing of what native jobs are fenced in with.
    let guests_do = config.has_vm_backend() && claim == Claim::Everything;
    let only_guests = match refusal {
        Some(reason) if !guests_do => return Err(StartError::Axes { reason, reports }),
        refusal => refusal,
    };
    let is_root = nix::unistd::geteuid().is_root();
    let dispatcher = accounts::dispatcher(&config.host.account);
    if is_root && dispatcher.is_none() {
        return Err(StartError::NoService(config.host.account.clone()));
    }
    let ids = accounts::dispatcher_ids(&config.host.account);
    workspace::prepare_data_dir(&config.host.data_dir, ids)?;
    if host.os == Os::MacOs {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        workspace::prepare_profiles(&config.host.data_dir, uid.as_raw(), gid.as_raw())?;
    }
    // The dispatcher could not write it.
    workspace::name_installation(&config.host.data_dir)?;
    // Without root there are no accounts to become; the axes above have said so.
    let accounts = found.ok().filter(|_| is_root);
    let mac = match host.os {
        Os::Linux => None,
        Os::MacOs => Some(mac_host(host, program, &slots(config, accounts.as_deref()))?),
    };
    let wants_groups = config.native.limits.cgroup != Groups::Off;
    let has_groups = wants_groups && host.os == Os::Linux && is_root && cgroup::look().is_ok();
    Ok(Ground {
        axes: reports,
        only_guests,
        accounts,
        dispatcher,
        mac,
        has_groups,
        watchdog: None,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

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

/// Locks slots against other processes; the kernel drops the locks when this one ends, however it ends. Where
/// slots have accounts of their own, those are locked too, in the folder `shared` by the whole host: the end
/// of a job kills everything of its account, whichever data folder that belongs to.
pub fn lock(
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
