//! What all guests of this host share, and the two times when guests are touched that are nobody's job: what an earlier
//! daemon left is undone, and what no ledger knows is swept. The end of every guest comes here, too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use tokio::time::sleep;
use tracing::warn;

use super::hands::{Hands, folders};
use super::life::{Class, Infra, Stage};
use super::name::VmName;
use super::stage::{Tools, complaint, judge, names};
use super::template::Argv;
use super::{Backend, VmConfig, Wanted};
use crate::config::Config;
use crate::host::Host;
use crate::host::command::{CommandError, CommandSpec, Output};
use crate::job::ledger::{AcquisitionId, Ledger, LedgerError};
use crate::slot::Account;
use crate::warden::client::Warden;
use crate::warden::{GuestDeed, Reply, Request};

/// The folder of all guests, in the data folder.
pub const FOLDER: &str = "vm";

/// How long a guest may take to be switched off.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(30);

/// How often a removal is tried that fails, as with a guest that is still busy, and the pause between.
const DELETE_TRIES: u32 = 3;
const DELETE_PAUSE: Duration = Duration::from_secs(1);

/// What all guests of this host share.
#[derive(Debug)]
pub struct Room {
    /// `[vm]`.
    pub config: VmConfig,
    /// What makes and ends what they have on this host.
    pub hands: Hands,
    /// The data folder.
    pub data_dir: Utf8PathBuf,
}

impl Room {
    /// The room of this host under `config`; `program` is ephemerd itself, and `by` the warden of the daemon, where this process
    /// is its dispatcher and has an account of its own.
    ///
    /// # Errors
    /// In words, with a hint: the account of `vm.user` is not there or cannot be become, or the folder cannot be made.
    pub fn open(
        host: &Host,
        config: &Config,
        program: &Utf8Path,
        by: Option<(&Arc<Warden>, &Account)>,
    ) -> Result<Self, String> {
        let hands = match by {
            None => Hands::open(host, config, program),
            Some(by) => Hands::of_dispatcher(host, config, program, by),
        }?;
        Ok(Self {
            config: config.vm.clone(),
            hands,
            data_dir: config.host.data_dir.clone(),
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
            let leftovers = match self.hands.owner.own(text) {
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
                    let name = self.hands.owner.own(name)?;
                    Some((backend.clone(), name))
                })),
                Some(Err(why)) => report.push(format!("guests of `{backend}`: {why}")),
            }
        }
        for name in self.folders().await {
            let Some(name) = self.hands.owner.own(&name) else {
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
            .hands
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
            .hands
            .attendant
            .run(&spec)
            .await
            .map_err(|error| crate::chain(&error))?;
        let rows = super::tart::list(&output.stdout).map_err(|error| error.to_string())?;
        Ok(rows.iter().filter(|row| row.is_running()).count())
    }

    /// Where a backend keeps its images, as far as that is known: the home of whoever its tools run as.
    pub fn store(&self, backend: &Backend) -> Utf8PathBuf {
        match (backend.env.get("TART_HOME"), &self.hands.attendant.patron) {
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
            program: &self.hands.attendant.program,
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
            program: &self.hands.attendant.program,
        };
        if let Some(mut spec) = tools.of(Stage::Stop) {
            spec.timeout = spec.timeout.min(STOP_WITHIN);
            // What it does not stop is killed below.
            let _ = self.hands.attendant.run(&spec).await;
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
        leftovers.extend(self.remove_folder(tools.name).await);
        leftovers
    }

    /// Removes a guest and looks whether it is gone; what is left, in words.
    async fn try_delete(&self, tools: &Tools<'_>) -> Option<String> {
        let name = tools.name;
        let failed = match tools.of(Stage::Delete) {
            Some(spec) => {
                let output = self.hands.attendant.run(&spec).await;
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
        leftovers.extend(self.remove_folder(name).await);
        leftovers
    }

    /// The names of our guests that have a folder on this host.
    async fn folders(&self) -> Vec<String> {
        match &self.hands.attendant.warden {
            None => folders(&self.data_dir),
            Some(warden) => match warden.ask(Request::Folders, &[]).await {
                Ok(Reply::Folders { guests, .. }) => guests,
                Ok(_) | Err(_) => vec![],
            },
        }
    }

    async fn remove_folder(&self, name: &VmName) -> Option<String> {
        let why = self.hands.ask(name, GuestDeed::RemoveFolder).await.err()?;
        Some(format!("folder {}: {why}", self.dir(name)))
    }

    async fn end_processes(&self, name: &VmName) -> Vec<String> {
        let ended = self.hands.ask(name, GuestDeed::Kill).await;
        ended.err().into_iter().collect()
    }

    /// The resident bytes of a guest's tools, as far as they can be counted.
    pub(super) async fn measure(&self, name: &VmName) -> Option<u64> {
        match self.hands.ask(name, GuestDeed::Measure).await {
            Ok(Reply::Usage(usage)) => Some(usage.memory_byte).filter(|sum| *sum > 0),
            Ok(_) => None,
            Err(why) => {
                warn!(guest = %name, why, "could not look what a guest uses");
                None
            }
        }
    }

    pub(super) async fn make_folder(&self, name: &VmName) -> Result<(), String> {
        self.hands.ask(name, GuestDeed::MakeFolder).await.map(drop)
    }
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
