//! What guests have on this host that only whoever may become the account of `vm.user` can make, remove and end: their
//! folders, and the processes of their tools.

use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getegid, geteuid};

use users::os::unix::UserExt;

use super::name::{Owner, VmName};
use super::room::FOLDER;
use super::{Guest, VmConfig};
use crate::config::Config;
use crate::host::accounts::dispatcher;
use crate::host::command::attend::{Attendant, Patron};
use crate::host::files::{give_dir, make_dir, wipe};
use crate::host::{Host, Os, os};
use crate::slot::Account;
use crate::warden::client::Warden;
use crate::warden::{GuestDeed, Reply, Request, Usage};

/// How long killed processes may take to go away.
const DEATH_WITHIN: Duration = Duration::from_secs(10);

/// Others get through to what is theirs, and see no names.
const PASSABLE: Mode = Mode::S_IRWXU.union(Mode::S_IXGRP).union(Mode::S_IXOTH);

/// What a guest of QEMU says on its console, in its folder.
const CONSOLE: &str = "console.log";

/// How much of that there may be: enough for a boot.
const CONSOLE_BYTE: u64 = 1 << 20;

/// Does it.
#[derive(Debug, Clone)]
pub struct Hands {
    /// Starts tools.
    pub attendant: Attendant,
    /// What our guests are called.
    pub owner: Owner,
    /// The folder of all guests.
    pub folder: Utf8PathBuf,
}

impl Hands {
    /// Makes ready what guests of `config` are made with: `program` is ephemerd itself.
    ///
    /// # Errors
    /// In words, with a hint: the account of `vm.user` is not there or cannot be become, or the folder cannot be made.
    pub fn open(host: &Host, config: &Config, program: &Utf8Path) -> Result<Self, String> {
        let data_dir = &config.host.data_dir;
        let is_root = geteuid().is_root();
        if let Some(why) = lacks_user(host.os, is_root, &config.vm) {
            return Err(why);
        }
        let folder = data_dir.join(FOLDER);
        // Without root the tools run as we do.
        let patron = match config.vm.user.as_deref() {
            Some(name) => Some(patron(name, config)?),
            None => dispatcher(&config.host.account).map(|account| Patron {
                account,
                home: folder.clone(),
            }),
        };
        let patron = patron.filter(|patron| patron.account.uid != geteuid().as_raw());
        // Who only asks before the daemon ever ran has no data folder.
        if data_dir.exists() {
            let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
            match folder.symlink_metadata() {
                Ok(_) => give_dir(&folder, PASSABLE, uid, gid),
                Err(_) => make_dir(&folder, PASSABLE, uid, gid),
            }
            .map_err(|error| crate::chain(&error))?;
        }
        Ok(Self {
            attendant: Attendant {
                program: program.to_owned(),
                os: host.os,
                launchctl: host.mac.launchctl.clone(),
                patron,
                warden: None,
            },
            owner: owner(data_dir)?,
            folder,
        })
    }

    /// Those of a dispatcher that has the account `own`, which may do nothing of this itself: the warden does.
    ///
    /// # Errors
    /// In words, as [`Hands::open`].
    pub fn of_dispatcher(
        host: &Host,
        config: &Config,
        program: &Utf8Path,
        (warden, own): (&Arc<Warden>, &Account),
    ) -> Result<Self, String> {
        let folder = config.host.data_dir.join(FOLDER);
        let patron = match config.vm.user.as_deref() {
            Some(name) => patron(name, config)?,
            None => Patron {
                account: own.clone(),
                home: folder.clone(),
            },
        };
        Ok(Self {
            attendant: Attendant {
                program: program.to_owned(),
                os: host.os,
                launchctl: host.mac.launchctl.clone(),
                patron: Some(patron),
                warden: Some(Arc::clone(warden)),
            },
            owner: owner(&config.host.data_dir)?,
            folder,
        })
    }

    /// Does `deed` to the guest that is called `name`.
    pub(crate) fn perform(&self, name: &str, deed: GuestDeed) -> Reply {
        match self.owner.own(name) {
            Some(name) => self.do_to(&name, deed),
            None => Reply::Failed {
                reason: format!("guest {name} is not ours by its name"),
            },
        }
    }

    /// The same, of a guest that is ours, by whoever may.
    pub(super) async fn ask(&self, name: &VmName, deed: GuestDeed) -> Result<Reply, String> {
        let reply = match &self.attendant.warden {
            Some(warden) => {
                let name = name.to_string();
                let asked = warden.ask(Request::Guest { name, deed }, &[]).await;
                return asked.map_err(|error| crate::chain(&error));
            }
            None => {
                let (hands, name) = (self.clone(), name.clone());
                let done = tokio::task::spawn_blocking(move || hands.do_to(&name, deed)).await;
                done.map_err(|panic| panic.to_string())?
            }
        };
        match reply {
            Reply::Failed { reason } => Err(reason),
            reply => Ok(reply),
        }
    }

    fn do_to(&self, name: &VmName, deed: GuestDeed) -> Reply {
        let done = match deed {
            GuestDeed::MakeFolder => self.make_folder(name),
            GuestDeed::RemoveFolder => wipe(&self.folder, name.as_str())
                .map(drop)
                .map_err(|error| crate::chain(&error)),
            GuestDeed::Kill => self.end_processes(name),
            GuestDeed::Measure => {
                if let Err(reason) = self.cut_console(name) {
                    return Reply::Failed { reason };
                }
                let pids = named(self.ids().0, name);
                return Reply::Usage(Usage {
                    processes: u64::try_from(pids.len()).unwrap_or(u64::MAX),
                    memory_byte: pids.iter().filter_map(|pid| os::resident_byte(*pid)).sum(),
                    ..Usage::default()
                });
            }
        };
        match done {
            Ok(()) => Reply::Done,
            Err(reason) => Reply::Failed { reason },
        }
    }

    /// Whom tools run as.
    pub(super) fn ids(&self) -> (u32, u32) {
        match &self.attendant.patron {
            Some(patron) => (patron.account.uid, patron.account.gid),
            None => (geteuid().as_raw(), getegid().as_raw()),
        }
    }

    fn make_folder(&self, name: &VmName) -> Result<(), String> {
        let (uid, gid) = self.ids();
        let folder = self.folder.join(name.as_str());
        make_dir(&folder, Mode::S_IRWXU, uid, gid).map_err(|error| crate::chain(&error))
    }

    /// Kills processes of the tools' account whose arguments name the guest, until there are none; whoever else names it, as
    /// somebody who reads its log, is left alone.
    fn end_processes(&self, name: &VmName) -> Result<(), String> {
        let (uid, _) = self.ids();
        // Anybody may read a log of a guest's as root.
        if uid == 0 {
            return Ok(());
        }
        let deadline = Instant::now() + DEATH_WITHIN;
        loop {
            let named = named(uid, name);
            if named.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("processes {named:?} of guest {name} do not die"));
            }
            for pid in named {
                // One that has ended meanwhile is what was wanted.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Empties what a guest has said on its console, if that is much: a job can say as much as it likes there.
    fn cut_console(&self, name: &VmName) -> Result<(), String> {
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
        let opened = std::fs::File::options()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.folder.join(name.as_str()).join(CONSOLE));
        // There is none of most backends.
        let Ok(console) = opened else { return Ok(()) };
        // A second name may be that of somebody else's file.
        let is_large =
            |meta: std::fs::Metadata| meta.is_file() && meta.nlink() == 1 && meta.len() > CONSOLE_BYTE;
        if console.metadata().is_ok_and(is_large) {
            console.set_len(0).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// The names of our guests that have a folder on this host; none where it cannot be told which are ours.
pub(crate) fn folders(data_dir: &Utf8Path) -> Vec<String> {
    let Ok(owner) = owner(data_dir) else { return vec![] };
    let entries = data_dir
        .join(FOLDER)
        .read_dir_utf8()
        .into_iter()
        .flatten()
        .flatten();
    let names = entries.map(|entry| entry.file_name().to_owned());
    names.filter(|name| owner.own(name).is_some()).collect()
}

/// The processes of an account whose arguments name a guest.
fn named(uid: u32, name: &VmName) -> Vec<i32> {
    let mut pids = os::processes_of(uid).unwrap_or_default();
    pids.retain(|pid| {
        let args = os::arguments_of(*pid).unwrap_or_default();
        name.is_in(args.iter().map(String::as_str))
    });
    pids
}

fn owner(data_dir: &Utf8Path) -> Result<Owner, String> {
    let id = crate::host::installation(data_dir).map_err(|error| {
        let file = crate::host::INSTALLATION;
        format!("could not read or write `{data_dir}/{file}`: {error}")
    })?;
    Ok(Owner::new(&id, data_dir))
}

/// Why guests need a user of their own: those with macOS do not start for root (Tart's issue 921), which has no login
/// keychain either.
fn lacks_user(os: Os, is_root: bool, vm: &VmConfig) -> Option<String> {
    let has_macos = vm.backends.values().any(|backend| backend.guest == Guest::MacOs);
    (os == Os::MacOs && is_root && has_macos && vm.user.is_none()).then(|| {
        "guests with macOS do not start for root\nhint: set `vm.user` to the account that is logged in on this Mac".to_owned()
    })
}

/// Whom tools run as. None of those that jobs run as: their processes are killed when a job of theirs ends.
fn patron(name: &str, config: &Config) -> Result<Patron, String> {
    let user = users::get_user_by_name(name).ok_or_else(|| {
        format!("there is no account `{name}`, which `vm.user` names\nhint: make it, or name another")
    })?;
    let own = &config.host.account;
    let is_jobs = name
        .strip_prefix(own.as_str())
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
    if is_jobs {
        return Err(format!(
            "`vm.user` names `{name}`, which is an account of native jobs\nhint: name another one"
        ));
    }
    if user.uid() == 0 {
        return Err(format!(
            "`{name}` is root\nhint: name another account for `vm.user`"
        ));
    }
    let home = Utf8PathBuf::from_path_buf(user.home_dir().to_owned())
        .map_err(|home| format!("the home `{}` of `{name}` is not UTF-8", home.display()))?;
    Ok(Patron {
        account: Account {
            name: name.to_owned(),
            uid: user.uid(),
            gid: user.primary_group_id(),
        },
        home,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_mac_guests_with_macos_never_run_as_root() {
        let vm = |more: &str| {
            let text = format!("vm.backends.t = {{ preset = \"tart\"{more} }}");
            crate::config::parse(&text, "e.toml").unwrap().config.vm
        };
        let tart = vm("");
        assert!(lacks_user(Os::MacOs, true, &tart).is_some_and(|why| why.contains("\nhint: set `vm.user`")));
        assert_eq!(lacks_user(Os::MacOs, false, &tart), None);
        assert_eq!(lacks_user(Os::Linux, true, &tart), None);
        assert_eq!(lacks_user(Os::MacOs, true, &vm(", guest = \"linux\"")), None);
        let with_user = VmConfig {
            user: Some("builder".to_owned()),
            ..tart
        };
        assert_eq!(lacks_user(Os::MacOs, true, &with_user), None);
    }
}
