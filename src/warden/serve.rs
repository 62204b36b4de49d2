//! The warden's side: one loop that takes requests and reaps children.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::select::{FdSet, pselect};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, setpgid};
use rustix::fs::{FlockOperation, fcntl_lock};
use serde::{Deserialize, Serialize};

use super::bounds::Bounds;
use super::client::is_readable;
use super::post::{Front, Post};
use super::{Reply, Request, RunnerSetup, scrub, wire};
use crate::github::admission::hook;
use crate::github::runner::jit::JitConfig;
use crate::github::runner::tree::{Build, NameError, RUNNERS};
use crate::host::cgroup::{self, Tree};
use crate::host::command::halves;
use crate::host::egress::canary;
use crate::host::runner::{self, RunnerError};
use crate::host::{Host, Os, entrance, os};
use crate::job::JobId;
use crate::sandbox::launch::{Confinement, LaunchPlan, Stop};
use crate::sandbox::launcher::{First, Launcher};
use crate::sandbox::step::Given;
use crate::vm;
use crate::workspace::homebrew::{HomebrewError, HostBrew, Order, Served, Shelf};
use crate::workspace::{self, Place, Workspace};

/// How long the first process of a job may take from its last word to its end.
const LAST_WORD: Duration = Duration::from_secs(2);

/// A request with the number its reply will carry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Numbered<T> {
    /// Chosen by the dispatcher.
    pub(crate) number: u64,
    /// The message itself.
    pub(crate) message: T,
}

pub(super) struct Warden {
    pub(super) host: Host,
    pub(super) data_dir: Utf8PathBuf,
    /// Where requests come from.
    pub(super) socket: UnixStream,
    /// Where answers go, which may be elsewhere.
    pub(super) link: UnixStream,
    /// Held by whoever sends, in this process or in a worker of it.
    one_at_a_time: File,
    pub(super) program: Utf8PathBuf,
    /// Starts jobs, where that is this process's to do.
    launcher: Option<Launcher>,
    /// What may be asked for; anything, where who asks is root as we are.
    pub(super) bounds: Option<Bounds>,
    /// The control groups that jobs have here, or why they have none.
    groups: Result<Tree, String>,
    /// The first process of every job that still has one.
    pub(super) jobs: BTreeMap<JobId, First>,
    /// The requests that wait for the end of a tool of guests, by its attendant.
    pub(super) tools: BTreeMap<i32, u64>,
    /// The requests that workers do, by their pids.
    pub(super) workers: RefCell<BTreeMap<i32, u64>>,
    /// What the first process of a daemon has besides.
    pub(super) front: Option<Front>,
    /// What its steward has.
    pub(super) post: Option<Post>,
    /// Which process ended, and how, of those that are no job's.
    pub(super) ended: Vec<(i32, i32)>,
}

/// Serves requests for `host` from the socket on standard input until it ends, then kills what is left. Who asks is whoever
/// has started this process, as whom it runs, and gets what it asks for.
///
/// # Errors
/// The socket or the signal set-up fails; a request that fails is answered instead.
pub fn serve(data_dir: &Utf8Path, host: &Host) -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut warden = Warden::new(data_dir, None, host, socket)?;
    warden.prepare_launches()?;
    let unblocked = notice(&[Signal::SIGCHLD])?;
    warden.serve(&unblocked, |_| true)?;
    warden.end_all();
    Ok(())
}

/// A file that nobody else has, for its lock alone.
fn lock_file(data_dir: &Utf8Path) -> io::Result<File> {
    let path = data_dir.join(format!("run/.warden-{}.lock", std::process::id()));
    let mut options = File::options();
    let file = options.create_new(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// The control groups that are ours, ready for jobs; only root divides them.
fn groups(host: &Host) -> Result<Tree, String> {
    if host.os != Os::Linux || !nix::unistd::geteuid().is_root() {
        return Err("there are no control groups for jobs here".to_owned());
    }
    let tree = cgroup::look()?;
    tree.prepare()
        .map_err(|error| format!("could not divide the control group: {error}"))?;
    Ok(tree)
}

/// Makes these signals interrupt `pselect` and nothing else; returns the mask to wait with.
pub(super) fn notice(signals: &[Signal]) -> io::Result<SigSet> {
    extern "C" fn note(signal: libc::c_int) {
        NOTED.fetch_or(
            1u64.checked_shl(signal.unsigned_abs()).unwrap_or(0),
            Ordering::Relaxed,
        );
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_NOCLDSTOP, SigSet::empty());
    let mut blocked = SigSet::empty();
    for signal in signals {
        // SAFETY: the handler changes an atomic number, which is safe at any moment.
        unsafe { sigaction(*signal, &action) }?;
        blocked.add(*signal);
    }
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before))?;
    for signal in signals {
        before.remove(*signal);
    }
    Ok(before)
}

/// Signals that came, a bit for each.
static NOTED: AtomicU64 = AtomicU64::new(0);

/// The signals among `of` that came since somebody asked.
pub(super) fn noted(of: &[Signal]) -> Vec<Signal> {
    let noted = NOTED.swap(0, Ordering::Relaxed);
    let came = |signal: &&Signal| noted >> (**signal as i32) & 1 == 1;
    of.iter().filter(came).copied().collect()
}

impl Warden {
    /// A warden that serves `socket`.
    ///
    /// # Errors
    /// What every launch needs cannot be prepared.
    pub(super) fn new(
        data_dir: &Utf8Path,
        bounds: Option<Bounds>,
        host: &Host,
        socket: UnixStream,
    ) -> io::Result<Self> {
        let program = Utf8PathBuf::try_from(std::env::current_exe()?).map_err(io::Error::other)?;
        Ok(Self {
            launcher: None,
            program,
            link: socket.try_clone()?,
            host: host.clone(),
            data_dir: data_dir.to_owned(),
            socket,
            one_at_a_time: lock_file(data_dir)?,
            bounds,
            groups: groups(host),
            jobs: BTreeMap::new(),
            tools: BTreeMap::new(),
            workers: RefCell::default(),
            front: None,
            post: None,
            ended: vec![],
        })
    }

    /// Makes this process one that starts jobs, and executes no program with a capability any more.
    ///
    /// # Errors
    /// What is to be given up for good cannot be given up.
    pub(super) fn prepare_launches(&mut self) -> io::Result<()> {
        self.launcher = Some(Launcher::new(&self.host, self.program.clone())?);
        Ok(())
    }

    /// Serves requests until the socket ends, makes no sense, or `goes_on`, which is asked at every turn, says no.
    ///
    /// # Errors
    /// The socket cannot be waited for.
    pub(super) fn serve(
        &mut self,
        unblocked: &SigSet,
        mut goes_on: impl FnMut(&mut Self) -> bool,
    ) -> io::Result<()> {
        loop {
            // Whoever asks without end must not keep a signal out: pselect lets it in only when there is nothing to read.
            let mut blocked = SigSet::empty();
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(unblocked), Some(&mut blocked))?;
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None)?;
            self.reap();
            if !goes_on(self) {
                return Ok(());
            }
            let mut readable = FdSet::new();
            readable.insert(self.socket.as_fd());
            let log = self.front.as_ref().and_then(|front| front.log.as_ref());
            if let Some((log, _)) = log {
                readable.insert(log.as_fd());
            }
            match pselect(None, Some(&mut readable), None, None, None, Some(unblocked)) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            self.pump_log();
            if !is_readable(self.socket.as_fd()) {
                continue;
            }
            match wire::receive::<Numbered<Request>>(&self.socket) {
                Ok(Some((request, descriptors))) => {
                    // Nobody reads the answers any more. The steward waits for who does next.
                    if self.answer(request, descriptors).is_err() && self.post.is_none() {
                        return Ok(());
                    }
                }
                // Whoever sends what is no message, or half of one, is not spoken with any more.
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    }

    /// Kills every job, and waits for whatever still works.
    pub(super) fn end_all(&mut self) {
        for first in self.jobs.values_mut() {
            let _ = first.signal(false);
        }
        // Workers finish what they began; jobs are gone at once.
        while waitpid(None, None).is_ok() {}
    }

    /// Reaps whatever has ended, however it ended: a real-time signal has no name that a library would know.
    pub(super) fn reap(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: the kernel writes one int, which `status` is.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            let before = self.jobs.len();
            self.jobs.retain(|_, first| first.pid.as_raw() != pid);
            if self.jobs.len() < before {
                continue;
            }
            let worker = self.workers.borrow_mut().remove(&pid);
            // Who does not read the answer is gone, which is seen by itself.
            let _ = match (self.tools.remove(&pid), worker) {
                (Some(number), _) => self.reply(number, Ok::<_, io::Error>(Reply::Attended { status })),
                (None, Some(_)) if status == 0 => Ok(()),
                (None, Some(number)) => {
                    let died = io::Error::other("what did this was killed, or could not answer");
                    self.reply(number, Err::<Reply, _>(died))
                }
                (None, None) => {
                    self.ended.push((pid, status));
                    Ok(())
                }
            };
        }
    }

    pub(super) fn answer(&mut self, request: Numbered<Request>, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let Numbered { number, message } = request;
        if let Some(Err(refusal)) = self.bounds.as_ref().map(|bounds| bounds.check(&message)) {
            return self.reply(number, Err::<Reply, _>(io::Error::other(refusal)));
        }
        match message {
            Request::Prepare {
                job,
                account,
                homebrew,
                runner,
            } => {
                let workspace = Workspace::new(&self.data_dir, &job);
                let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
                let owner = account.map_or(own, |account| (account.uid, account.gid));
                let made = workspace::create(&workspace, owner.0, owner.1);
                let made = made.and_then(|()| match self.host.os {
                    Os::Linux => Ok(()),
                    Os::MacOs => workspace::add_shims(&workspace),
                });
                let hand_over = || workspace::hand_over(&workspace, owner.0, owner.1);
                match made {
                    Ok(()) if homebrew.is_some() || runner.is_some() => self.in_worker(number, || {
                        let furnished =
                            self.furnish(&workspace, homebrew.as_ref(), runner.map(|it| *it), owner);
                        match hand_over() {
                            Ok(()) => furnished,
                            Err(error) => Reply::Failed {
                                reason: crate::chain(&error),
                            },
                        }
                    }),
                    made => {
                        let made = made.and_then(|()| hand_over());
                        self.reply(number, made.map(|()| Reply::Prepared { note: None }))
                    }
                }
            }
            Request::Launch(plan) => {
                let launched = self.launch(&plan, descriptors);
                self.reply(number, launched)
            }
            Request::Signal { job, politely } => {
                // A job without a process has ended already.
                let sent = self
                    .jobs
                    .get_mut(&job)
                    .map_or(Ok(()), |first| first.signal(politely));
                self.reply(number, sent.map(|()| Reply::Done))
            }
            Request::Scrub {
                job,
                account,
                acquisitions,
                keep,
            } => {
                let first = self.jobs.get_mut(&job).map(|first| {
                    // The worker waits for its end. It may have ended since; then there is nobody to kill.
                    let _ = first.signal(false);
                    first.pid
                });
                let workspace = Workspace::new(&self.data_dir, &job);
                let scrub = scrub::Scrub {
                    host: &self.host,
                    workspace: &workspace,
                    first,
                    groups: self.groups.as_ref().ok(),
                    account: account.as_ref(),
                    keep,
                };
                self.in_worker(number, || scrub.undo(&acquisitions))
            }
            Request::Usage { job, uid, disk } => {
                let workspace = Workspace::new(&self.data_dir, &job);
                let groups = self.groups.as_ref().ok();
                self.in_worker(number, || {
                    Reply::Usage(scrub::usage(&workspace, (groups, &job), uid, disk))
                })
            }
            Request::Canary { slots, avoid } => {
                self.in_worker(number, || match canary::fly(&slots, &avoid) {
                    Ok(attempts) => Reply::Canary { attempts },
                    Err(error) => Reply::Failed {
                        reason: error.to_string(),
                    },
                })
            }
            Request::Folders => {
                let found = scrub::folders(&self.data_dir);
                let guests = vm::hands::folders(&self.data_dir);
                self.reply(number, found.map(|jobs| Reply::Folders { jobs, guests }))
            }
            Request::Entrance { slot, account } => match self.make_entrance(slot, &account) {
                Ok(socket) => self.reply_with(number, Reply::Done, &[socket.as_fd()]),
                Err(reason) => self.reply(number, Err::<Reply, _>(io::Error::other(reason))),
            },
            Request::CloseEntrance { slot } => {
                let closed = hook::Place::new(&self.host.run, &self.data_dir, slot)
                    .map_err(|error| error.to_string())
                    .and_then(|place| entrance::remove(&place).map_err(|error| crate::chain(&error)));
                self.reply(number, closed.map(|()| Reply::Done).map_err(io::Error::other))
            }
            Request::Compare
            | Request::Secrets
            | Request::Prune { .. }
            | Request::Look { .. }
            | Request::Tell { .. }
            | Request::Attend { .. }
            | Request::Guest { .. } => self.answer_daemon(number, message, descriptors),
            Request::Keep { .. } | Request::Forget { .. } | Request::Recall { .. } => {
                self.answer_kept(number, message, descriptors)
            }
            Request::Link => self.link_to(number, descriptors),
        }
    }

    fn launch(&mut self, plan: &LaunchPlan, descriptors: Vec<OwnedFd>) -> io::Result<Reply> {
        let [stdin, stdout, stderr, status] = <[OwnedFd; 4]>::try_from(descriptors)
            .map_err(|got| io::Error::other(format!("a launch needs 4 descriptors, not {}", got.len())))?;
        if plan.stop == Stop::Interrupt
            && let Some(first) = self.jobs.get(&plan.job)
        {
            // A runner that is started again: the last one has said how it ended, which is the last thing it does.
            os::wait_for_end(first.pid.as_raw(), Instant::now() + LAST_WORD)?;
            self.reap();
        }
        if self.jobs.contains_key(&plan.job) {
            return Err(io::Error::other(format!("job {} is running already", plan.job)));
        }
        if plan.account.is_none() && nix::unistd::geteuid().is_root() {
            return Err(io::Error::other(
                "a job never runs as root\nhint: run `ephemerd host setup`",
            ));
        }
        let workspace = Workspace::new(&self.data_dir, &plan.job);
        if let Confinement::Seatbelt(seatbelt) = &plan.confinement {
            workspace::write_profile(&workspace, &seatbelt.profile).map_err(io::Error::other)?;
        }
        let group = match (plan.group, &self.groups) {
            (None, _) => None,
            (Some(limits), Ok(tree)) => Some(tree.make(&plan.job, limits)?),
            (Some(_), Err(why)) => return Err(io::Error::other(why.clone())),
        };
        let given = Given {
            job: [stdin, stdout, stderr],
            status,
            group,
        };
        let openly = self.bounds.as_ref().map(Bounds::openly);
        let launcher = self.launcher.as_ref();
        let launcher = launcher.ok_or_else(|| io::Error::other("this process starts no jobs"))?;
        let first = launcher.spawn(plan, &workspace.profile(), (given, openly.as_deref()))?;
        let pid = first.pid.as_raw();
        self.jobs.insert(plan.job.clone(), first);
        Ok(Reply::Launched { pid })
    }

    /// Makes what may take long.
    fn furnish(
        &self,
        workspace: &Workspace,
        homebrew: Option<&Order>,
        runner: Option<RunnerSetup>,
        owner: (u32, u32),
    ) -> Reply {
        let made = runner.map_or(Ok(()), |setup| self.make_runner(workspace, setup, owner));
        match (made, homebrew) {
            (Err(reason), _) => Reply::Failed { reason },
            (Ok(()), Some(order)) => self.make_homebrew(workspace, order, owner),
            (Ok(()), None) => Reply::Prepared { note: None },
        }
    }

    /// Makes the folder of a job's runner, with its configuration in it. Nothing of the job's runs yet.
    fn make_runner(
        &self,
        workspace: &Workspace,
        setup: RunnerSetup,
        owner: (u32, u32),
    ) -> Result<(), String> {
        let RunnerSetup { slot, build, config } = setup;
        let build: Build = build.parse().map_err(|error: NameError| error.to_string())?;
        let config = JitConfig::try_from(config).map_err(|error| error.to_string())?;
        let words = |error: RunnerError| crate::chain(&error);
        let place = Place::of_runner(self.host.os, &self.host.runner_places, workspace, slot);
        place
            .make_room(workspace, true)
            .map_err(|error| crate::chain(&error))?;
        match self.host.os {
            Os::Linux => runner::make_root(&place.real, owner),
            Os::MacOs => {
                let trees = self.data_dir.join(RUNNERS);
                runner::copy(&trees, build, &place.real, owner).map(drop)
            }
        }
        .map_err(words)?;
        runner::write_files(&place.real, &config, owner).map_err(words)
    }

    /// Makes a job's own Homebrew prefix. It is made in the job's folder or in the slot's place, where nothing of
    /// the job's runs yet.
    fn make_homebrew(&self, workspace: &Workspace, order: &Order, owner: (u32, u32)) -> Reply {
        let place = Place::of_homebrew(self.host.os, &self.host.prefixes, workspace, order.slot);
        let room = place.make_room(workspace, false);
        let made = room.map_err(HomebrewError::from).and_then(|()| {
            let host = HostBrew::at(&order.host)?;
            Shelf::new(&self.data_dir).serve(&host, order.layout, &place.real, owner)
        });
        match made {
            Ok(Served { note, .. }) => Reply::Prepared { note },
            Err(error) => Reply::Failed {
                reason: crate::chain(&error),
            },
        }
    }

    /// Lets a forked child do the work and send the reply.
    pub(super) fn in_worker(&self, number: u64, work: impl FnOnce() -> Reply) -> io::Result<()> {
        // SAFETY: this process has one thread, so the child may do whatever it likes.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => {
                self.workers.borrow_mut().insert(child.as_raw(), number);
                Ok(())
            }
            Ok(ForkResult::Child) => {
                // What comes from a terminal is not for it, and what it starts must hear signals.
                let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
                let _ = halves::accept_signals();
                let sent = self.reply(number, Ok::<_, io::Error>(work()));
                // SAFETY: ends the child without running the parent's destructors.
                unsafe { libc::_exit(i32::from(sent.is_err())) }
            }
            Err(error) => self.reply(number, Err::<Reply, _>(error)),
        }
    }

    pub(super) fn reply<E: std::error::Error>(
        &self,
        number: u64,
        result: Result<Reply, E>,
    ) -> io::Result<()> {
        let message = result.unwrap_or_else(|error| Reply::Failed {
            reason: crate::chain(&error),
        });
        self.reply_with(number, message, &[])
    }

    pub(super) fn reply_with(
        &self,
        number: u64,
        message: Reply,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        // Several processes write into the socket. Locks of fcntl(2) are a process's, and go with it.
        fcntl_lock(&self.one_at_a_time, FlockOperation::LockExclusive)?;
        let sent = match wire::send(&self.link, &Numbered { number, message }, descriptors) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let reason = "the answer is too long to be told".to_owned();
                let message = Reply::Failed { reason };
                wire::send(&self.link, &Numbered { number, message }, &[])
            }
            sent => sent,
        };
        fcntl_lock(&self.one_at_a_time, FlockOperation::Unlock)?;
        sent
    }
}

impl std::fmt::Debug for Warden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warden")
            .field("data_dir", &self.data_dir)
            .field("fd", &self.socket.as_raw_fd())
            .finish()
    }
}
