//! Programs that must not outlive the daemon, however it ends: the tools of guests, which run as long as a job.
//!
//! ```text
//!   daemon ── pipe ──► attendant (this program, `__attend`) ──► the tool, in a process group of its own
//!             └─ ends with the daemon, even by SIGKILL: the attendant kills the group
//! ```
//!
//! The pipe first carries what the tool gets on its standard input: a line with the number of bytes, and the bytes.
//! Nothing is started before they are there, so nothing is started for a daemon that died meanwhile. After that its end
//! is all that is waited for. The attendant stays root where the daemon is, so that nothing the tool runs can end it.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::channel as messages;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::Child;

use super::halves::accept_signals;
use super::{CommandError, CommandSpec, DRAIN, Group, OUTPUT_CAP_BYTE, Output, PATH, await_end};
use crate::host::{Os, os};
use crate::slot::Account;
use crate::warden::client::{Answered, Warden, WardenError};
use crate::warden::{Reply, Request};

/// What the attendant ends with when the tool cannot be started, as shells do.
const NOT_STARTED: u8 = 127;

/// How long after one connection to a guest's port the next may come.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// How long an attendant may take to end once it was told to.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Whom tools run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patron {
    /// The account.
    pub account: Account,
    /// Its home.
    pub home: Utf8PathBuf,
}

/// What starts tools that end with this process.
#[derive(Debug, Clone)]
pub struct Attendant {
    /// This very program.
    pub program: Utf8PathBuf,
    /// The system.
    pub os: Os,
    /// launchctl(1) of macOS.
    pub launchctl: Utf8PathBuf,
    /// Whom tools run as; whoever this process runs as when not set.
    pub patron: Option<Patron>,
    /// Who starts tools instead of this process, where that may not become the patron.
    pub warden: Option<Arc<Warden>>,
}

impl Attendant {
    /// The arguments of `spec` as the patron's. On macOS a tool must be part of its user's login session, or it finds
    /// neither keychain nor hypervisor: `launchctl asuser` puts it there, and sudo(8) gives up root, which launchctl
    /// does not.
    fn words(&self, spec: &CommandSpec) -> Vec<String> {
        let tool = std::iter::once(spec.program.to_string()).chain(spec.args.iter().cloned());
        match (&self.patron, self.os) {
            (Some(patron), Os::MacOs) => {
                let uid = patron.account.uid.to_string();
                let kept = spec.env.keys().cloned().collect::<Vec<_>>().join(",");
                [
                    self.launchctl.as_str(),
                    "asuser",
                    &uid,
                    "/usr/bin/sudo",
                    "-n",
                    "-H",
                    "-u",
                ]
                .into_iter()
                .map(str::to_owned)
                .chain([
                    format!("#{uid}"),
                    format!("--preserve-env={kept}"),
                    "--".to_owned(),
                ])
                .chain(tool)
                .collect()
            }
            (Some(_), Os::Linux) | (None, _) => tool.collect(),
        }
    }

    /// The attendant of a tool, not started yet, with these three for standard input, output and error.
    ///
    /// # Errors
    /// There are not three, or the tool's path is not absolute.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where programs are started"
    )]
    fn attendant(&self, spec: &CommandSpec, streams: Vec<OwnedFd>) -> io::Result<std::process::Command> {
        use std::os::unix::process::CommandExt;
        let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(streams)
            .map_err(|got| io::Error::other(format!("a tool needs 3 descriptors, not {}", got.len())))?;
        if !spec.program.is_absolute() {
            return Err(io::Error::other(CommandError::Relative(spec.program.clone())));
        }
        let mut command = std::process::Command::new(&self.program);
        command.arg("__attend");
        if let (Some(patron), Os::Linux) = (&self.patron, self.os) {
            let Account { uid, gid, .. } = patron.account;
            command.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
        }
        command.arg("--").args(self.words(spec));
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .current_dir("/");
        let home = spec
            .home
            .clone()
            .or_else(|| self.patron.as_ref().map(|patron| patron.home.clone()));
        command.envs(home.iter().map(|home| ("HOME", home)));
        if let Some(patron) = &self.patron {
            let Account { name, uid, .. } = &patron.account;
            command.env("USER", name).env("LOGNAME", name);
            let runtime = format!("/run/user/{uid}");
            if self.os == Os::Linux && Utf8Path::new(&runtime).is_dir() {
                command.env("XDG_RUNTIME_DIR", runtime);
            }
        }
        command.envs(&spec.env);
        let apart = || {
            // A terminal's interrupt is the daemon's to handle, and nothing of a guest's may put words into one.
            nix::unistd::setsid()?;
            accept_signals()
        };
        // SAFETY: system calls, which may be made after a fork.
        unsafe { command.pre_exec(apart) };
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        Ok(command)
    }

    /// Starts the attendant of a tool for somebody else, who has the other ends of these three; its pid.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_for(&self, spec: &CommandSpec, streams: Vec<OwnedFd>) -> io::Result<i32> {
        let child = self.attendant(spec, streams)?.spawn()?;
        i32::try_from(child.id()).map_err(io::Error::other)
    }

    /// Starts a tool. Its standard input is empty but for what `spec` says.
    ///
    /// # Errors
    /// The attendant cannot be started.
    pub fn start(&self, spec: &CommandSpec) -> Result<Attended, CommandError> {
        if !spec.program.is_absolute() {
            return Err(CommandError::Relative(spec.program.clone()));
        }
        self.begin(spec).map_err(|source| CommandError::Start {
            program: spec.program.clone(),
            source,
        })
    }

    fn begin(&self, spec: &CommandSpec) -> io::Result<Attended> {
        let (theirs, lifeline) = io::pipe()?;
        let (stdout, out) = io::pipe()?;
        let (stderr, err) = io::pipe()?;
        let streams: Vec<OwnedFd> = vec![theirs.into(), out.into(), err.into()];
        let end = match &self.warden {
            None => {
                let command = self.attendant(spec, streams)?;
                End::Own(Box::new(tokio::process::Command::from(command).spawn()?))
            }
            Some(warden) => {
                let streams: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
                let asked = warden.begin(Request::Attend { spec: spec.clone() }, &streams);
                End::Warden(asked.map_err(io::Error::other)?)
            }
        };
        Ok(Attended {
            end,
            status: None,
            lifeline: Some(Sender::from_owned_fd(lifeline.into())?),
            stdout: Some(Receiver::from_owned_fd(stdout.into())?),
            stderr: Some(Receiver::from_owned_fd(stderr.into())?),
            input: spec.stdin.clone().unwrap_or_default(),
        })
    }

    /// Runs a tool to its end and returns its status and the beginning of its output, whatever its status is. When the
    /// call is given up, the tool is killed.
    ///
    /// # Errors
    /// It cannot be started, or its time is up.
    pub async fn run(&self, spec: &CommandSpec) -> Result<Output, CommandError> {
        let mut tool = self.start(spec)?;
        let stdout = Gathered::from(tool.stdout.take());
        let stderr = Gathered::from(tool.stderr.take());
        let wait_error = |source| CommandError::Wait {
            program: spec.program.clone(),
            source,
        };
        let ended = async {
            tool.begin().await?;
            tool.ended().await
        };
        let Ok(status) = tokio::time::timeout(spec.timeout, ended).await else {
            tool.end().await;
            return Err(CommandError::TimedOut {
                command: spec.to_string(),
                timeout: spec.timeout,
            });
        };
        Ok(Output {
            status: status.map_err(wait_error)?,
            stdout: stdout.text().await,
            stderr: stderr.text().await,
        })
    }
}

/// The first bytes of a stream, gathered while a tool runs.
struct Gathered {
    kept: Arc<Mutex<Vec<u8>>>,
    reading: tokio::task::JoinHandle<()>,
}

impl Gathered {
    fn from(stream: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&kept);
        let reading = tokio::spawn(async move {
            let Some(mut stream) = stream else { return };
            let mut buffer = vec![0; 8192];
            while let Ok(got @ 1..) = stream.read(&mut buffer).await {
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let room = OUTPUT_CAP_BYTE.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..got.min(room)]);
            }
        });
        Self { kept, reading }
    }

    /// What came, once the tool has ended: only what left the tool's group can hold the stream open longer.
    async fn text(mut self) -> String {
        if tokio::time::timeout(DRAIN, &mut self.reading).await.is_err() {
            self.reading.abort();
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

/// A tool that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Attended {
    end: End,
    status: Option<ExitStatus>,
    lifeline: Option<Sender>,
    /// Its standard output.
    pub stdout: Option<Receiver>,
    /// Its standard error.
    pub stderr: Option<Receiver>,
    input: String,
}

/// Who tells how an attendant ended.
#[derive(Debug)]
enum End {
    /// The system: it is this process's child.
    Own(Box<Child>),
    /// The warden, which has started it.
    Warden(Answered),
}

impl End {
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Own(child) => child.wait().await,
            Self::Warden(answered) => match answered.await {
                Ok((Reply::Attended { status }, _)) => Ok(ExitStatus::from_raw(status)),
                Ok((Reply::Failed { reason }, _)) => Err(io::Error::other(reason)),
                Ok((other, _)) => Err(io::Error::other(WardenError::Unexpected(Box::new(other)))),
                Err(_) => Err(io::Error::other(WardenError::Gone)),
            },
        }
    }
}

impl Attended {
    /// Hands the tool's standard input over, upon which it is started.
    ///
    /// # Errors
    /// The attendant is gone.
    pub async fn begin(&mut self) -> io::Result<()> {
        let input = std::mem::take(&mut self.input);
        let Some(lifeline) = &mut self.lifeline else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        lifeline
            .write_all(format!("{}\n", input.len()).as_bytes())
            .await?;
        lifeline.write_all(input.as_bytes()).await?;
        lifeline.flush().await
    }

    /// Waits for the tool to end.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = match self.status {
            Some(status) => status,
            None => *self.status.insert(self.end.wait().await?),
        };
        // The attendant passes on how the tool ended, as shells do.
        Ok(match status.code() {
            Some(code) if code > 128 => ExitStatus::from_raw(code - 128),
            Some(_) | None => status,
        })
    }

    /// Kills the tool and waits until it is gone.
    pub async fn end(&mut self) {
        self.lifeline = None;
        let ended = tokio::time::timeout(END_WITHIN, self.ended()).await;
        if let (Err(_), End::Own(child)) = (ended, &mut self.end) {
            // It is stuck; its group is killed without it, when what it waits for lets go.
            let _ = child.start_kill();
        }
    }
}

/// Whether a tool could not be started at all.
pub fn is_not_started(status: ExitStatus) -> bool {
    status.code() == Some(i32::from(NOT_STARTED))
}

/// Is the attendant: starts the tool `words`, as an account where one is given, when its input has come, and returns
/// with the tool's exit code, or with 128 and the signal's number. When the pipe on standard input ends before, the tool
/// and everything in its process group is killed.
///
/// # Errors
/// The daemon went away before the tool was to be started, or the tool cannot be waited for.
pub fn attend(words: &[String], account: Option<(u32, u32)>) -> io::Result<u8> {
    let mut lifeline = io::stdin().lock();
    let mut line = String::new();
    lifeline.read_line(&mut line)?;
    let length: usize = line.trim().parse().map_err(io::Error::other)?;
    let mut input = vec![0; length];
    lifeline.read_exact(&mut input)?;
    drop(lifeline);
    let mut group = match start(words, account) {
        Ok(child) => Group(child),
        Err(error) => {
            let program = words.first().map(String::as_str).unwrap_or_default();
            // It is the daemon that reads this, as what the tool says.
            let _ = writeln!(io::stderr(), "cannot start `{program}`: {error}");
            return Ok(NOT_STARTED);
        }
    };
    let pid = group.pid();
    if let Some(mut pipe) = group.0.stdin.take() {
        // A tool that does not read its input ends this by closing the pipe.
        thread::Builder::new().spawn(move || pipe.write_all(&input))?;
    }
    thread::Builder::new().spawn(move || {
        // Nothing comes any more but the end.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        kill_group(pid);
    })?;
    let (tell, told) = messages();
    let id = group.0.id();
    thread::Builder::new().spawn(move || tell.send(await_end(id)))?;
    told.recv().map_err(io::Error::other)??;
    let status = group.finish()?;
    let signal = status.signal().map(|signal| 128 + signal);
    Ok(status
        .code()
        .or(signal)
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX))
}

/// The groups of an account: access to what a tool needs, as `/dev/kvm`, is often given by one.
fn groups(uid: u32, gid: u32) -> Vec<u32> {
    let user = users::get_user_by_uid(uid);
    let named = user.and_then(|user| users::get_user_groups(user.name(), gid));
    let mut groups: Vec<u32> = named.into_iter().flatten().map(|group| group.gid()).collect();
    if !groups.contains(&gid) {
        groups.push(gid);
    }
    groups
}

fn kill_group(pid: Pid) {
    let _ = killpg(pid, Signal::SIGKILL);
}

#[expect(
    clippy::disallowed_methods,
    reason = "this module is where programs are started"
)]
fn start(words: &[String], account: Option<(u32, u32)>) -> io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt;

    let (program, args) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = std::process::Command::new(program);
    if let Some((uid, gid)) = account {
        let groups = groups(uid, gid);
        let become_it = move || {
            nix::unistd::setgid(gid.into())?;
            os::set_groups(&groups)?;
            nix::unistd::setuid(uid.into())?;
            Ok(())
        };
        // SAFETY: the three are system calls that may be made after a fork, and allocate nothing.
        unsafe { command.pre_exec(become_it) };
    }
    command.args(args).process_group(0).stdin(Stdio::piped()).spawn()
}

/// Connects standard input and output with the Unix socket at `path`, until the other end of the socket closes it or
/// nobody reads any more. The end of standard input does not end the connection: an answer is still to come.
///
/// # Errors
/// Nobody listens there.
pub fn channel(path: &Utf8Path) -> io::Result<()> {
    // A guest that does not see the end of the last connection takes this one for its rest: the driver in its kernel
    // tells it of both at once when they come close together.
    thread::sleep(RECONNECT_AFTER);
    let mut socket = std::os::unix::net::UnixStream::connect(path)?;
    let mut to = socket.try_clone()?;
    let mut request = Vec::new();
    io::stdin().read_to_end(&mut request)?;
    // The guest is told how long the request is: a serial line has no end.
    to.write_all(format!("{}\n", request.len()).as_bytes())?;
    to.write_all(&request)?;
    let mut buffer = [0; 8192];
    let mut stdout = io::stdout();
    loop {
        let got = socket.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        stdout.write_all(&buffer[..got])?;
        stdout.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attendant(os: Os, patron: Option<Patron>) -> Attendant {
        Attendant {
            program: "/usr/bin/ephemerd".into(),
            os,
            launchctl: "/bin/launchctl".into(),
            patron,
            warden: None,
        }
    }

    #[test]
    fn on_a_mac_tools_run_in_their_users_session_and_without_root() {
        let patron = Patron {
            account: Account {
                name: "builder".to_owned(),
                uid: 501,
                gid: 20,
            },
            home: "/Users/builder".into(),
        };
        let mut spec = CommandSpec::new("/opt/homebrew/bin/tart".into(), &["run", "x"], DRAIN);
        spec.env.insert("TART_NO_AUTO_PRUNE".to_owned(), "1".to_owned());
        assert_eq!(
            attendant(Os::MacOs, Some(patron.clone())).words(&spec).join(" "),
            "/bin/launchctl asuser 501 /usr/bin/sudo -n -H -u #501 --preserve-env=TART_NO_AUTO_PRUNE -- /opt/homebrew/bin/tart run x"
        );
        let plain = "/opt/homebrew/bin/tart run x";
        assert_eq!(attendant(Os::Linux, Some(patron)).words(&spec).join(" "), plain);
        assert_eq!(attendant(Os::MacOs, None).words(&spec).join(" "), plain);
    }
}
