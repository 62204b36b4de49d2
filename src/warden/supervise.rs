//! The daemon's first process: makes ready what takes root, starts the dispatcher without it, and is its warden from then on.
//!
//! ```text
//!   ephemerd run (root): the warden ──┬── the dispatcher: as the service's account, no capability, fenced in
//!                                     ├── the steward: runs programs of the host's
//!                                     │      └── the packet filter's process
//!                                     └── jobs and workers
//! ```
//!
//! Signals come to the warden, which passes them on; so do the exit code and, where it goes to a file, the log of the
//! dispatcher the other way.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid, fork, setpgid};

use super::again::Again;
use super::bounds::{Bounds, granted};
use super::kept::Kept;
use super::post::{Front, Post};
use super::serve::{Warden, notice};
use super::shift::{Shift, link};
use crate::config::{Config, Listen};
use crate::control::server;
use crate::daemon::ground;
use crate::daemon::start::{self, Claim, StartError, egress_slots, slots};
use crate::github::runner::tree::RUNNERS;
use crate::host::accounts::as_dispatcher;
use crate::host::egress::filter::Filter;
use crate::host::logfile::LogFile;
use crate::host::{Host, Os, os};
use crate::slot::Account;
use crate::vm::hands::Hands;
use crate::workspace::homebrew::LINUXBREW;

/// The signals that are the dispatcher's to obey.
pub(super) const PASSED_ON: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// How long an answer may wait for room in the socket: longer than a disk keeps the dispatcher.
pub(super) const HEARING: Duration = Duration::from_secs(60);

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The host is not ready for it.
    #[error(transparent)]
    Start(Box<StartError>),
    /// The dispatcher cannot read the configuration.
    #[error(
        "`{account}`, as which the daemon's unprivileged half runs, cannot read `{path}`\nhint: chmod a+r '{path}', and a+x the folders above; secrets stay in files of their own"
    )]
    Unread {
        /// The configuration.
        path: Utf8PathBuf,
        /// The dispatcher's account.
        account: String,
        /// What the system said.
        source: io::Error,
    },
    /// A socket of its cannot be made.
    #[error("could not listen on `{path}`")]
    Listen {
        /// The socket.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refuses what it needs.
    #[error("could not {doing}")]
    System {
        /// What, as a verb.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl From<StartError> for SuperviseError {
    fn from(error: StartError) -> Self {
        Self::Start(Box::new(error))
    }
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> SuperviseError {
    move |source| SuperviseError::System { doing, source }
}

/// How the dispatcher is started.
#[derive(Debug)]
pub struct Orders<'a> {
    /// This program.
    pub program: &'a Utf8Path,
    /// Its arguments as the dispatcher.
    pub args: Vec<String>,
    /// The configuration file, where one was named.
    pub config_file: Option<Utf8PathBuf>,
    /// The configuration file that was read, where there is one.
    pub read_from: Option<Utf8PathBuf>,
    /// Where the log goes, if not to standard error.
    pub log: Option<LogFile>,
}

/// Runs a daemon until it was told to stop and has, or until its dispatcher has failed; the dispatcher's exit code. Nothing
/// of any job's runs any more then.
///
/// # Errors
/// The daemon cannot be started; then nothing is left behind.
pub fn supervise(host: &Host, config: &Config, orders: Orders<'_>) -> Result<u8, SuperviseError> {
    let mut ground = ground::lay(host, config, (orders.program, Claim::Everything))?;
    may_read(config, orders.read_from.as_deref())?;
    let all = slots(config, ground.accounts.as_deref());
    let data_dir = &config.host.data_dir;
    let shared = ground.shared_locks(host, config);
    let (_slots, locks) = ground::lock(data_dir, shared.as_deref(), all.clone(), Claim::Everything)?;
    // From here on a signal waits until it can be obeyed, instead of ending us half started.
    let mut noticed = PASSED_ON.to_vec();
    noticed.push(Signal::SIGCHLD);
    let unblocked = notice(&noticed).map_err(system("wait for signals"))?;
    let mut filter = match ground.has_filter(config) {
        true => {
            let every = egress_slots(config, all);
            Some(Filter::hold(host, config, &every).map_err(StartError::from)?)
        }
        // Whoever lets jobs run although it cannot be enforced has said so by name, and the report does.
        false => {
            start::open(host, config).map_err(StartError::from)?;
            None
        }
    };
    let hands = match config.has_vm_backend() {
        true => Some(Hands::open(host, config, orders.program).map_err(StartError::Vm)?),
        false => None,
    };
    ground.watchdog = os::watchdog();
    // Without root there is nobody to become, and who asks is as we are.
    let bounds = nix::unistd::geteuid().is_root().then(|| {
        bounds(
            host,
            config,
            orders.program,
            (hands.as_ref(), ground.accounts.clone()),
        )
    });
    let (ours, theirs) = link().map_err(system("make a socket"))?;
    let mut warden = Warden::new(data_dir, bounds, host, ours).map_err(system("prepare launches"))?;
    let post = Post {
        filter: None,
        hands,
        config: config.clone(),
        config_file: orders.config_file.clone(),
    };
    // Both must be there before launches are prepared, which takes from this process what they need.
    let stewardship = (post, filter.as_mut());
    let (steward, socket) = start_steward(&mut warden, stewardship, (&theirs, &locks), &unblocked)
        .map_err(system("start the steward"))?;
    // After the fork, so that nobody else has them when they are closed.
    warden.front = Some(Front {
        doors: doors(config)?,
        log: None,
        steward: Some(socket),
        config_file: orders.config_file.clone(),
        kept: Kept::default(),
        is_ready: false,
        stops: false,
    });
    let dispatcher = warden
        .start_dispatcher(&orders, &ground, theirs)
        .map_err(system("start the dispatcher"))?;
    let code = warden
        .prepare_launches()
        .and_then(|()| {
            let mut shift = Shift {
                orders: &orders,
                ground: &ground,
                unblocked: &unblocked,
                steward,
                again: Again::default(),
                passed_on: vec![],
            };
            shift.run(&mut warden, dispatcher)
        })
        .map_err(system("serve the dispatcher"));
    if let Some(front) = &mut warden.front {
        for (path, _) in &front.doors {
            let _ = std::fs::remove_file(path);
        }
        front.steward = None;
    }
    warden.end_all();
    code
}

/// Whether the dispatcher can read the configuration, which it does anew with every reload.
fn may_read(config: &Config, file: Option<&Utf8Path>) -> Result<(), SuperviseError> {
    let Some(path) = file else { return Ok(()) };
    let account = &config.host.account;
    let opened = as_dispatcher(account, || File::open(path)).and_then(|opened| opened);
    opened.map(drop).map_err(|source| SuperviseError::Unread {
        path: path.to_owned(),
        account: account.clone(),
        source,
    })
}

/// Starts the process that runs programs of the host's for the daemon, and by it that of the packet filter. `theirs` is the
/// dispatcher's end of the socket, which is nobody else's, as the locks of the slots are this process's. The steward's pid,
/// and where it takes requests.
fn start_steward(
    warden: &mut Warden,
    (post, filter): (Post, Option<&mut Filter>),
    (theirs, locks): (&UnixStream, &[File]),
    unblocked: &SigSet,
) -> io::Result<(i32, UnixStream)> {
    let (ours, requests) = UnixStream::pair()?;
    ours.set_write_timeout(Some(HEARING))?;
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok((child.as_raw(), ours)),
        ForkResult::Child => {
            drop(ours);
            for other in locks.iter().map(AsRawFd::as_raw_fd).chain([theirs.as_raw_fd()]) {
                // SAFETY: this process never uses them; it ends without dropping them.
                unsafe { libc::close(other) };
            }
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            let served = steward(warden, (post, filter), requests, unblocked);
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(i32::from(served.is_err())) }
        }
    }
}

fn steward(
    warden: &mut Warden,
    (mut post, filter): (Post, Option<&mut Filter>),
    requests: UnixStream,
    unblocked: &SigSet,
) -> io::Result<()> {
    let filter = filter.map(|filter| warden.start_filter(filter)).transpose()?;
    let (pid, socket) = filter.unzip();
    post.filter = socket;
    warden.post = Some(post);
    warden.socket = requests;
    warden.serve(unblocked, |warden| {
        // Without it nobody answers for the packet filter any more, and no job may go on.
        let is_filter = |(ended, _): (i32, i32)| Some(ended) == pid;
        !warden.ended.drain(..).any(is_filter)
    })
}

/// The sockets at which the daemon is asked. They are there as long as this process is.
fn doors(config: &Config) -> Result<Vec<(Utf8PathBuf, OwnedFd)>, SuperviseError> {
    let page = match &config.control.listen {
        Some(Listen::Unix(path)) => Some(path),
        Some(Listen::Tcp(_)) | None => None,
    };
    let paths = std::iter::once(&config.control.socket).chain(page);
    paths
        .map(|path| match server::listen(path, &config.control.admin_group) {
            Ok(door) => Ok((path.clone(), door.into())),
            Err(source) => Err(SuperviseError::Listen {
                path: path.clone(),
                source,
            }),
        })
        .collect()
}

fn bounds(
    host: &Host,
    config: &Config,
    program: &Utf8Path,
    (hands, accounts): (Option<&Hands>, Option<Vec<Account>>),
) -> Bounds {
    let usual = match host.os {
        Os::Linux => LINUXBREW.into(),
        Os::MacOs => host.homebrew.clone(),
    };
    let patron = hands.and_then(|hands| hands.attendant.patron.as_ref());
    Bounds {
        patron: patron.map(|patron| patron.account.clone()),
        homebrew: (usual, config.native.homebrew_prefix.clone()),
        family: config.host.account.clone(),
        accounts: accounts.unwrap_or_default(),
        own: vec![program.to_owned(), config.host.data_dir.join(RUNNERS)],
        granted: granted(config),
    }
}
