//! Tear-down: kill until nothing of the job runs, remove its folder, and look for what is left.
//!
//! Runs in a worker of the warden. Nothing here trusts that an earlier step worked: what counts as clean is
//! what the kernel says afterwards.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, Uid, fork, setuid};

use super::{Reply, Usage, domain};
use crate::host::cgroup::Tree;
use crate::host::command::{self, CommandSpec};
use crate::host::runner::keep_logs;
use crate::host::{Host, Os, files, os};
use crate::job::{Acquisition, JobId};
use crate::slot::Account;
use crate::workspace::{self, Place, Workspace};

/// How long killed processes may take to go away; a process stuck in the kernel longer than that makes the
/// slot unusable anyway.
const PATIENCE: Duration = Duration::from_secs(10);

/// Things that are named of what a job left; it may have left any number.
const MOST: usize = 100;

/// Most bytes that are kept of what a runner logged about itself.
const RUNNER_LOGS_BYTE: u64 = 5 * 1024 * 1024;

/// The tear-down of one job.
pub(super) struct Scrub<'a> {
    /// Where it ran.
    pub(super) host: &'a Host,
    /// Its folder.
    pub(super) workspace: &'a Workspace,
    /// Its first process, where that has not ended yet; it has been told to.
    pub(super) first: Option<Pid>,
    /// The control groups that jobs have here.
    pub(super) groups: Option<&'a Tree>,
    /// The account it has for itself, where it has one.
    pub(super) account: Option<&'a Account>,
    /// Whether the folder is moved to `kept` instead of removed.
    pub(super) keep: bool,
}

impl Scrub<'_> {
    /// Undoes `acquisitions` in order and verifies.
    pub(super) fn undo(&self, acquisitions: &[Acquisition]) -> Reply {
        let mut undone = 0;
        let mut leftovers = Vec::new();
        for acquisition in acquisitions {
            let result = match acquisition {
                Acquisition::Processes { uid, exclusive } => {
                    end_processes(self.first, exclusive.then_some(*uid))
                }
                // What launchd started again meanwhile goes, too.
                Acquisition::UserDomain { account } => {
                    domain::end(self.host, account).and_then(|()| end_processes(None, Some(account.uid)))
                }
                Acquisition::Group => match self.groups {
                    Some(tree) => tree.end(self.workspace.job(), Instant::now() + PATIENCE),
                    // It was ours when there was one, and whoever took it away took what was in it.
                    None => Ok(()),
                },
                Acquisition::Profile => workspace::remove_profile(self.workspace).map_err(io::Error::other),
                Acquisition::Homebrew { slot } => {
                    Place::of_homebrew(self.host.os, &self.host.prefixes, self.workspace, *slot)
                        .remove()
                        .map_err(io::Error::other)
                }
                Acquisition::Runner { slot } => {
                    let places = &self.host.runner_places;
                    let place = Place::of_runner(self.host.os, places, self.workspace, *slot);
                    self.keep_logs_of_runner(&place);
                    self.remove_written(&place.real, || place.remove())
                }
                Acquisition::Workspace if self.keep => {
                    workspace::keep(self.workspace).map_err(io::Error::other)
                }
                Acquisition::Vm { name, .. } => Err(io::Error::other(format!(
                    "guest {name} is not the warden's to remove"
                ))),
                Acquisition::Workspace => {
                    if self.host.os == Os::Linux {
                        let places = &self.host.runner_places;
                        self.keep_logs_of_runner(&Place::of_runner(Os::Linux, places, self.workspace, 0));
                    }
                    self.remove_workspace()
                }
            };
            match result {
                Ok(()) if leftovers.is_empty() => undone += 1,
                Ok(()) => {}
                Err(error) => leftovers.push(crate::chain(&error)),
            }
        }
        if let (Os::MacOs, Some(account)) = (self.host.os, self.account) {
            leftovers.extend(domain::left(self.host, account));
        }
        leftovers.extend(left_behind(self.host, self.workspace, self.account));
        let more = leftovers.len().saturating_sub(MOST);
        if more > 0 {
            leftovers.truncate(MOST);
            leftovers.push(format!("and {more} more"));
        }
        Reply::Scrubbed { undone, leftovers }
    }

    /// Keeps what a runner logged about itself, where the job was one. Nothing of the job's runs any more.
    fn keep_logs_of_runner(&self, place: &Place) {
        let Some(account) = self.account else { return };
        let to = self.workspace.runner_logs();
        // Without the logs the tear-down is as good; who wants to read them finds none.
        let _ = keep_logs(&place.real, account.uid, &to, RUNNER_LOGS_BYTE);
    }

    fn remove_workspace(&self) -> io::Result<()> {
        let root = self.workspace.root();
        self.remove_written(&root, || workspace::remove(self.workspace).map(drop))
    }

    /// Removes what a job could write. On macOS access control lists may keep even root out of it; where
    /// something stays, they are taken off by chmod(1) and it is tried once more. chmod goes by path through a
    /// tree that a job wrote, so it runs as the job's account, which could do all of this by itself, and when
    /// nothing else runs as it any more. Where no account is known, as of a folder that no ledger knows, it does
    /// not run: root does not go through such a tree by path.
    fn remove_written<E>(&self, root: &Utf8Path, remove: impl Fn() -> Result<(), E>) -> io::Result<()>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let removed = remove();
        let account = match (self.host.os, self.account) {
            (Os::MacOs, Some(account)) if removed.is_err() => account,
            _ => return removed.map_err(io::Error::other),
        };
        let spec = CommandSpec::new(&self.host.mac.chmod, &["-RN", root.as_str()], PATIENCE);
        // What it cannot change shows when the rest is removed.
        let _ = command::run_as(&spec, Some(account));
        remove().map_err(io::Error::other)
    }
}

/// Waits for the end of the job's first process, which takes its pid namespace or process group along; then, where
/// the account is the job's alone, kills everything else that runs as it, until nothing does.
fn end_processes(first: Option<Pid>, uid: Option<u32>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    if let Some(first) = first {
        os::wait_for_end(first.as_raw(), deadline)?;
    }
    let Some(uid) = uid else { return Ok(()) };
    loop {
        let running = os::processes_of(uid)?;
        let Some(one) = running.first() else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(io::Error::other(format!(
                "processes {running:?} of uid {uid} do not die"
            )));
        }
        kill_account(uid)?;
        os::wait_for_end(*one, deadline)?;
    }
}

/// Kills every process of `uid` with one call, from a child that has become it (kill(2), pid -1): what forks
/// meanwhile cannot get away.
fn kill_account(uid: u32) -> io::Result<()> {
    if uid == 0 || Uid::from_raw(uid) == Uid::current() {
        return Err(io::Error::other(format!(
            "refusing to kill everything of uid {uid}"
        )));
    }
    // SAFETY: the warden and its workers have one thread, so the child may do whatever it likes.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => waitpid(child, None).map(|_| ()).map_err(io::Error::from),
        ForkResult::Child => {
            let uid = Uid::from_raw(uid);
            // As root this sets the saved id too (setuid(2)), and macOS has no setresuid.
            if setuid(uid).is_ok() {
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(0) }
        }
    }
}

/// What the job left that no acquisition covers, in words.
fn left_behind(host: &Host, workspace: &Workspace, account: Option<&Account>) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, path) in [("folder", workspace.root()), ("profile", workspace.profile())] {
        if path.symlink_metadata().is_ok() {
            found.push(format!("{kind} {path}"));
        }
    }
    match os::mounts_below(&workspace.root()) {
        Ok(mounts) => found.extend(mounts.into_iter().map(|mount| format!("mount {mount}"))),
        Err(error) => found.push(format!("cannot read the mounts: {error}")),
    }
    if let Some(account) = account {
        let files = host
            .shared_places
            .iter()
            .flat_map(|place| files_of(account.uid, place));
        found.extend(files.map(|path| format!("file {path}")));
    }
    found
}

/// Entries directly in `place` that `uid` owns.
fn files_of(uid: u32, place: &Utf8Path) -> Vec<Utf8PathBuf> {
    // A place that does not exist, or that this host does not let us read, holds nothing of the account's.
    let Ok(entries) = place.read_dir_utf8() else {
        return Vec::new();
    };
    let owned = |path: &Utf8Path| path.symlink_metadata().is_ok_and(|found| found.uid() == uid);
    entries
        .flatten()
        .map(|entry| entry.path().to_owned())
        .filter(|path| owned(path))
        .collect()
}

/// Counts what the job uses; what vanishes meanwhile counts as nothing.
pub(super) fn usage(
    workspace: &Workspace,
    (groups, job): (Option<&Tree>, &JobId),
    uid: Option<u32>,
    disk: bool,
) -> Usage {
    let pids = uid.and_then(|uid| os::processes_of(uid).ok()).unwrap_or_default();
    Usage {
        processes: u64::try_from(pids.len()).unwrap_or(u64::MAX),
        memory_byte: pids.iter().filter_map(|pid| os::resident_byte(*pid)).sum(),
        was_out_of_memory: groups.is_some_and(|tree| tree.has_ended_one(job)),
        disk_byte: if disk {
            files::usage(&workspace.root()).ok().map(|usage| usage.bytes)
        } else {
            None
        },
    }
}

/// The jobs that have a folder below `native` or a profile. After a power cut there may be some that the ledger
/// forgot.
pub(super) fn folders(data_dir: &Utf8Path) -> io::Result<Vec<JobId>> {
    let folders = data_dir
        .join("native")
        .read_dir_utf8()?
        .collect::<io::Result<Vec<_>>>()?;
    let folders = folders.iter().filter_map(|entry| entry.file_name().parse().ok());
    let found: BTreeSet<JobId> = folders.chain(workspace::profiles(data_dir)?).collect();
    Ok(found.into_iter().collect())
}
