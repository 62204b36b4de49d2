//! What all guests of this host share, and the two times when guests are touched that are nobody's job: what an earlier
//! daemon left is undone, and what no ledger knows is swept. The end of every guest comes here, too.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getegid, geteuid};
use tokio::time::{Instant, sleep};
use tracing::warn;
use users::os::unix::UserExt;

use super::life::{Class, Infra, Stage};
use super::name::{Owner, VmName};
use super::stage::{Tools, complaint, judge, names};
use super::template::Argv;
use super::{Backend, Guest, VmConfig, Wanted};
use crate::config::Config;
use crate::host::command::attend::{Attendant, Patron};
use crate::host::command::{CommandError, CommandSpec, Output};
use crate::host::files::{make_dir, wipe};
use crate::host::{Host, Os, os};
use crate::job::ledger::{AcquisitionId, Ledger, LedgerError};
use crate::slot::Account;

/// The folder of all guests, in the data folder.
pub const FOLDER: &str = "vm";

/// How long a guest may take to be switched off.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(30);

/// How often a removal is tried that fails, as with a guest that is still busy, and the pause between.
const DELETE_TRIES: u32 = 3;
const DELETE_PAUSE: Duration = Duration::from_secs(1);

/// What a guest of QEMU says on its console, in its folder.
const CONSOLE: &str = "console.log";

/// How much of that there may be: enough for a boot.
const CONSOLE_BYTE: u64 = 1 << 20;

/// How long killed processes may take to go away.
const DEATH_WITHIN: Duration = Duration::from_secs(10);

/// What all guests of this host share.
#[derive(Debug)]
pub struct Room {
    /// `[vm]`.
    pub config: VmConfig,
    /// Starts tools.
    pub attendant: Attendant,
    /// What our guests are called.
    pub owner: Owner,
    /// The data folder.
    pub data_dir: Utf8PathBuf,
}

impl Room {
    /// The room of this host under `config`, with its folder in `data_dir`; `program` is ephemerd itself.
    ///
    /// # Errors
    /// In words, with a hint: the account of `vm.user` is not there or cannot be become, or the folder cannot be made.
    pub fn open(
        host: &Host,
        config: &Config,
        (data_dir, program): (&Utf8Path, &Utf8Path),
    ) -> Result<Self, String> {
        let patron = config
            .vm
            .user
            .as_deref()
            .map(|name| patron(name, config))
            .transpose()?;
        if let Some(why) = lacks_user(host.os, geteuid().is_root(), &config.vm) {
            return Err(why);
        }
        // Without root the tools run as we do.
        let own = geteuid().as_raw();
        let patron = patron.filter(|patron| patron.account.uid != own);
        if let (Some(patron), false) = (&patron, geteuid().is_root()) {
            return Err(format!(
                "`vm.user` is `{}`, whom only root can become\nhint: run the daemon as root, or leave `vm.user` out",
                patron.account.name
            ));
        }
        let folder = data_dir.join(FOLDER);
        // Who only asks before the daemon ever ran has no data folder.
        if data_dir.exists() && folder.symlink_metadata().is_err() {
            make_dir(&folder, Mode::from_bits_truncate(0o711), own, getegid().as_raw())
                .map_err(|error| crate::chain(&error))?;
        }
        let id = crate::host::installation(data_dir).map_err(|error| {
            format!(
                "could not read or write `{data_dir}/{}`: {error}",
                crate::host::INSTALLATION
            )
        })?;
        Ok(Self {
            config: config.vm.clone(),
            attendant: Attendant {
                program: program.to_owned(),
                os: host.os,
                launchctl: host.mac.launchctl.clone(),
                patron,
            },
            owner: Owner::new(&id, data_dir),
            data_dir: data_dir.to_owned(),
        })
    }

    /// The folder of a guest on this host.
    pub(super) fn dir(&self, name: &VmName) -> Utf8PathBuf {
        self.data_dir.join(FOLDER).join(name.as_str())
    }

    /// Undoes guests that an earlier process left, from the ledger alone; returns what is left of them.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn recover(
        &self,
        ledger: &Ledger,
        guests: &[(AcquisitionId, String, String)],
    ) -> Result<Vec<String>, LedgerError> {
        let mut all = vec![];
        for (held, backend, text) in guests {
            let leftovers = match self.owner.own(text) {
                Some(name) => self.undo(backend, &name).await,
                None => vec![format!("guest {text}, which is not ours by its name")],
            };
            if leftovers.is_empty() {
                ledger.released(*held, SystemTime::now())?;
            }
            all.extend(leftovers);
        }
        Ok(all)
    }

    /// Removes guests of ours that are in no ledger: after a power cut it may have forgotten its last jobs. Foreign guests
    /// are not touched. Returns what was found, in words.
    pub async fn sweep(&self) -> Vec<String> {
        let mut found = BTreeSet::new();
        let mut report = vec![];
        for (backend, it) in &self.config.backends {
            match self.list(it).await {
                None => {}
                Some(Ok(all)) => found.extend(all.iter().filter_map(|name| {
                    let name = self.owner.own(name)?;
                    Some((backend.clone(), name))
                })),
                Some(Err(why)) => report.push(format!("guests of `{backend}`: {why}")),
            }
        }
        let folders = self.data_dir.join(FOLDER).read_dir_utf8();
        for entry in folders.into_iter().flatten().flatten() {
            let Some(name) = self.owner.own(entry.file_name()) else {
                continue;
            };
            if found.iter().all(|(_, known)| *known != name) {
                // Whichever backend it is of, its processes and its folder go.
                found.insert((String::new(), name));
            }
        }
        for (backend, name) in found {
            let leftovers = self.undo(&backend, &name).await;
            let left = if leftovers.is_empty() {
                "removed".to_owned()
            } else {
                leftovers.join(", ")
            };
            report.push(format!("unknown guest {name}: {left}"));
        }
        report
    }

    /// The names of all guests that a backend has, ours and others'; `None` when it has no command for that.
    async fn list(&self, backend: &Backend) -> Option<Result<Vec<String>, String>> {
        let argv = backend.commands.list.as_ref()?;
        Some(self.names(backend, argv).await)
    }

    /// The names that one of a backend's commands lists.
    ///
    /// # Errors
    /// It cannot be asked, in words.
    pub async fn names(&self, backend: &Backend, argv: &Argv) -> Result<Vec<String>, String> {
        let spec = self.command(backend, argv);
        let output = self
            .attendant
            .run(&spec)
            .await
            .map_err(|error| crate::chain(&error))?;
        if !output.status.success() {
            return Err(complaint(&spec, output.status, &output.stderr));
        }
        names(backend.dialect, &output.stdout)
    }

    /// How many guests of a backend run, whosever they are.
    ///
    /// # Errors
    /// It cannot be asked, in words.
    pub async fn running(&self, backend: &Backend) -> Result<usize, String> {
        let argv = backend
            .commands
            .list
            .as_ref()
            .ok_or("the backend has no `list`")?;
        let spec = self.command(backend, argv);
        let output = self
            .attendant
            .run(&spec)
            .await
            .map_err(|error| crate::chain(&error))?;
        let rows = super::tart::list(&output.stdout).map_err(|error| error.to_string())?;
        Ok(rows.iter().filter(|row| row.is_running()).count())
    }

    /// Where a backend keeps its images, as far as that is known: the home of whoever its tools run as.
    pub fn store(&self, backend: &Backend) -> Utf8PathBuf {
        match (backend.env.get("TART_HOME"), &self.attendant.patron) {
            (Some(home), _) => home.into(),
            (None, Some(patron)) => patron.home.clone(),
            (None, None) => self.data_dir.clone(),
        }
    }

    /// A command of a backend that is about no guest.
    pub fn command(&self, backend: &Backend, argv: &Argv) -> CommandSpec {
        let wanted = Wanted::plain("", backend);
        let nobody = VmName::nobody();
        let tools = Tools {
            backend,
            wanted: &wanted,
            name: &nobody,
            dir: &self.data_dir.join(FOLDER),
            program: &self.attendant.program,
        };
        tools.command(argv, backend.stage_timeout)
    }

    /// Removes everything of a guest, whatever there is of it, and verifies; doing so again changes nothing. Returns what
    /// is left.
    async fn undo(&self, backend: &str, name: &VmName) -> Vec<String> {
        let dir = self.dir(name);
        let Some(it) = self.config.backends.get(backend) else {
            let mut leftovers = self.remove_traces(name).await;
            if !backend.is_empty() {
                leftovers.push(format!(
                    "guest {name} of the backend `{backend}`, which is not configured any more"
                ));
            }
            return leftovers;
        };
        let wanted = Wanted::plain(backend, it);
        let tools = Tools {
            backend: it,
            wanted: &wanted,
            name,
            dir: &dir,
            program: &self.attendant.program,
        };
        if let Some(mut spec) = tools.of(Stage::Stop) {
            spec.timeout = spec.timeout.min(STOP_WITHIN);
            // What it does not stop is killed below.
            let _ = self.attendant.run(&spec).await;
        }
        self.delete(&tools).await
    }

    /// Removes a guest that is switched off, as far as that could be done; returns what is left.
    pub(super) async fn delete(&self, tools: &Tools<'_>) -> Vec<String> {
        let mut leftovers = self.end_processes(tools.name).await;
        let mut stays = None;
        for attempt in 1..=DELETE_TRIES {
            if attempt > 1 {
                sleep(DELETE_PAUSE).await;
            }
            stays = self.try_delete(tools).await;
            match &stays {
                None => break,
                Some(why) => warn!(guest = %tools.name, attempt, why, "could not remove a guest"),
            }
        }
        leftovers.extend(stays);
        leftovers.extend(self.remove_folder(tools.name));
        leftovers
    }

    /// Removes a guest and looks whether it is gone; what is left, in words.
    async fn try_delete(&self, tools: &Tools<'_>) -> Option<String> {
        let name = tools.name;
        let failed = match tools.of(Stage::Delete) {
            Some(spec) => {
                let output = self.attendant.run(&spec).await;
                performed(tools.backend, Stage::Delete, &spec, output).err()
            }
            None => None,
        };
        match self.list(tools.backend).await {
            Some(Ok(all)) if all.iter().any(|listed| listed == name.as_str()) => {
                let why = failed.map(|infra| format!(": {}", infra.why)).unwrap_or_default();
                Some(format!("guest {name}{why}"))
            }
            // It is gone, whatever the tool said of its removal.
            Some(Ok(_)) => None,
            Some(Err(why)) => Some(format!("guest {name}, perhaps: {why}")),
            None => failed.map(|infra| format!("guest {name}: {}", infra.why)),
        }
    }

    async fn remove_traces(&self, name: &VmName) -> Vec<String> {
        let mut leftovers = self.end_processes(name).await;
        leftovers.extend(self.remove_folder(name));
        leftovers
    }

    fn remove_folder(&self, name: &VmName) -> Option<String> {
        let parent = self.data_dir.join(FOLDER);
        let error = wipe(&parent, name.as_str()).err()?;
        Some(format!("folder {}: {}", self.dir(name), crate::chain(&error)))
    }

    /// Kills processes of the tools' account whose arguments name the guest, until there are none; whoever else names it,
    /// as somebody who reads its log, is left alone. Returns what does not die.
    async fn end_processes(&self, name: &VmName) -> Vec<String> {
        let uid = self.uid();
        // Anybody may read a log of a guest's as root.
        if uid == 0 {
            return vec![];
        }
        let deadline = Instant::now() + DEATH_WITHIN;
        loop {
            let named = named(uid, name);
            if named.is_empty() {
                return vec![];
            }
            if Instant::now() >= deadline {
                return vec![format!("processes {named:?} of guest {name} do not die")];
            }
            for pid in named {
                // One that has ended meanwhile is what was wanted.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Empties what a guest has said on its console, if that is much: a job can say as much as it likes there.
    pub(super) fn cut_console(&self, name: &VmName) {
        use std::os::unix::fs::OpenOptionsExt;
        let opened = std::fs::File::options()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.dir(name).join(CONSOLE));
        // There is none of most backends.
        let Ok(console) = opened else { return };
        if console.metadata().is_ok_and(|meta| meta.len() > CONSOLE_BYTE)
            && let Err(error) = console.set_len(0)
        {
            warn!(guest = %name, %error, "could not empty what a guest said on its console");
        }
    }

    /// Whom tools run as.
    pub(super) fn uid(&self) -> u32 {
        match &self.attendant.patron {
            Some(patron) => patron.account.uid,
            None => geteuid().as_raw(),
        }
    }

    pub(super) fn make_folder(&self, name: &VmName) -> Result<(), String> {
        let (uid, gid) = match &self.attendant.patron {
            Some(patron) => (patron.account.uid, patron.account.gid),
            None => (geteuid().as_raw(), getegid().as_raw()),
        };
        make_dir(&self.dir(name), Mode::S_IRWXU, uid, gid).map_err(|error| crate::chain(&error))
    }
}

/// The processes of an account whose arguments name a guest.
pub(super) fn named(uid: u32, name: &VmName) -> Vec<i32> {
    let mut pids = os::processes_of(uid).unwrap_or_default();
    pids.retain(|pid| {
        let args = os::arguments_of(*pid).unwrap_or_default();
        name.is_in(args.iter().map(String::as_str))
    });
    pids
}

/// What a command that was run came to.
pub(super) fn performed(
    backend: &Backend,
    stage: Stage,
    spec: &CommandSpec,
    output: Result<Output, CommandError>,
) -> Result<(), Infra> {
    match output {
        Ok(output) => judge(backend.dialect, stage, spec, &output),
        Err(error) => {
            let class = match error {
                CommandError::Relative(_) | CommandError::Start { .. } => Class::Setup,
                _ => Class::Tool,
            };
            Err(Infra::new(class, stage, crate::chain(&error)))
        }
    }
}

/// The account of this name; `None` when there is none.
pub(crate) fn account(name: &str) -> Option<Account> {
    let user = users::get_user_by_name(name)?;
    Some(Account {
        name: name.to_owned(),
        uid: user.uid(),
        gid: user.primary_group_id(),
    })
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
