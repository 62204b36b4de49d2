//! Programs the daemon itself starts: described as data, started in one place.
//!
//! A [`CommandSpec`] says what to run and can be printed, compared and serialised before anything happens.
//! [`run`] starts it with an environment of our own making, in a process group of its own, and never returns
//! before that group is dead: neither a hanging tool nor something it left behind outlives the call.

pub mod attend;
pub(crate) mod halves;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::slot::Account;

/// Most bytes kept of each output stream; the rest is read and dropped, so that the program never blocks.
const OUTPUT_CAP_BYTE: usize = 1024 * 1024;

/// How long to wait for the end of the output once the program's group is dead. Only a process that left
/// the group (setsid(2)) can hold a pipe open that long.
const DRAIN: Duration = Duration::from_secs(2);

/// The search path programs get, for those that start others.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program did not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Looking programs up by name would let the environment choose them.
    #[error("`{0}` is not an absolute path\nhint: programs are started by their absolute path only")]
    Relative(Utf8PathBuf),
    /// It could not be started.
    #[error("could not start `{program}`")]
    Start {
        /// The program.
        program: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its end could not be waited for.
    #[error("could not wait for `{program}`")]
    Wait {
        /// The program.
        program: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ran longer than allowed and was killed.
    #[error("killed after {} ms: {command}", timeout.as_millis())]
    TimedOut {
        /// The command line.
        command: String,
        /// The limit.
        timeout: Duration,
    },
    /// It ended, but not with exit code 0.
    #[error("{status}: {command}{}", said(stderr))]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
}

/// A program's complaint as further lines of a message, or nothing.
fn said(stderr: &str) -> String {
    stderr.trim().lines().map(|line| format!("\n  {line}")).collect()
}

/// A program to start, as data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// Absolute path of the program.
    pub program: Utf8PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<String>,
    /// Text for its standard input, which is empty otherwise. Never printed nor serialised.
    #[serde(skip)]
    pub stdin: Option<String>,
    /// The value of `HOME` in its environment, for a tool that keeps something there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Utf8PathBuf>,
    /// Further variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// How long it may run.
    pub timeout: Duration,
}

impl CommandSpec {
    /// A program with arguments, without input and home.
    pub fn new(program: &Utf8Path, args: &[&str], timeout: Duration) -> Self {
        Self {
            program: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            stdin: None,
            home: None,
            env: BTreeMap::new(),
            timeout,
        }
    }
}

/// Leaves the text for standard input out, which may be a password.
impl fmt::Debug for CommandSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            args,
            stdin,
            home,
            env,
            timeout,
        } = self;
        f.debug_struct("CommandSpec")
            .field("program", program)
            .field("args", args)
            .field("stdin", &stdin.as_ref().map(|_| "…"))
            .field("home", home)
            .field("env", env)
            .field("timeout", timeout)
            .finish()
    }
}

/// Prints a line that a POSIX shell reads back as the same program and arguments.
impl fmt::Display for CommandSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shell_line(self.program.as_str(), &self.args))
    }
}

/// A line that a POSIX shell reads back as `program` with `args`.
pub fn shell_line(program: &str, args: &[String]) -> String {
    let words = std::iter::once(program).chain(args.iter().map(String::as_str));
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// `word` so that a POSIX shell takes it as one word and changes nothing in it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What a program left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, the first MiB, with bytes that are not UTF-8 replaced.
    pub stdout: String,
    /// Its standard error, likewise.
    pub stderr: String,
}

impl Output {
    /// The output of a program that ended well.
    ///
    /// # Errors
    ///
    /// [`CommandError::Failed`] with its standard error when it ended otherwise.
    pub fn require_success(self, spec: &CommandSpec) -> Result<Self, CommandError> {
        if self.status.success() {
            return Ok(self);
        }
        let Self { status, stderr, .. } = self;
        let command = spec.to_string();
        Err(CommandError::Failed {
            command,
            status,
            stderr,
        })
    }
}

/// Runs a program to its end and returns its status and output, whatever its status is.
///
/// It starts in `/` with `PATH`, `LC_ALL=C` and what the spec says as its whole environment. Whatever it leaves running in
/// its process group is killed when it ends.
///
/// # Errors
///
/// When the path is relative, the program cannot be started or waited for, or its time is up.
pub fn run(spec: &CommandSpec) -> Result<Output, CommandError> {
    run_in(spec, Surroundings::Clean(None))
}

/// Runs a program as [`run`] does, but where this process stands and with its environment: what a job's own process
/// sees is wanted.
///
/// # Errors
///
/// As [`run`].
pub fn run_here(spec: &CommandSpec) -> Result<Output, CommandError> {
    run_in(spec, Surroundings::Own)
}

/// What a program finds around itself.
#[derive(Clone, Copy)]
enum Surroundings<'a> {
    /// A clean environment, and the root folder; as an account, where one is given.
    Clean(Option<&'a Account>),
    /// Those of this process.
    Own,
}

/// Runs a program as [`run`] does, as another account where one is given; that takes root.
///
/// # Errors
///
/// As [`run`], and when the account cannot be become.
pub fn run_as(spec: &CommandSpec, account: Option<&Account>) -> Result<Output, CommandError> {
    run_in(spec, Surroundings::Clean(account))
}

fn run_in(spec: &CommandSpec, surroundings: Surroundings<'_>) -> Result<Output, CommandError> {
    let start_error = |source| CommandError::Start {
        program: spec.program.clone(),
        source,
    };
    let wait_error = |source| CommandError::Wait {
        program: spec.program.clone(),
        source,
    };
    if !spec.program.is_absolute() {
        return Err(CommandError::Relative(spec.program.clone()));
    }
    let mut group = Group(start(spec, surroundings).map_err(start_error)?);
    if let (Some(text), Some(mut pipe)) = (spec.stdin.clone(), group.0.stdin.take()) {
        // A program that does not read its input ends this thread by closing the pipe.
        thread::Builder::new()
            .spawn(move || pipe.write_all(text.as_bytes()))
            .map_err(start_error)?;
    }
    let stdout = collect(group.0.stdout.take()).map_err(start_error)?;
    let stderr = collect(group.0.stderr.take()).map_err(start_error)?;
    let in_time = group.ends_within(spec.timeout).map_err(wait_error)?;
    let status = group.finish().map_err(wait_error)?;
    if !in_time {
        return Err(CommandError::TimedOut {
            command: spec.to_string(),
            timeout: spec.timeout,
        });
    }
    Ok(Output {
        status,
        stdout: stdout.take(),
        stderr: stderr.take(),
    })
}

/// Starts the program with nothing of ours but three pipes.
#[expect(clippy::disallowed_methods, reason = "the one place that starts programs")]
fn start(spec: &CommandSpec, surroundings: Surroundings<'_>) -> io::Result<Child> {
    let stdin = match spec.stdin {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    };
    let mut command = std::process::Command::new(&spec.program);
    match surroundings {
        Surroundings::Clean(account) => {
            if let Some(account) = account {
                // Supplementary groups go with it (std::os::unix::process::CommandExt::uid).
                command.uid(account.uid).gid(account.gid);
            }
            command.env_clear().env("PATH", PATH).current_dir("/");
        }
        Surroundings::Own => {}
    }
    command
        .args(&spec.args)
        .env("LC_ALL", "C")
        .envs(spec.home.iter().map(|home| ("HOME", home)))
        .envs(&spec.env)
        .process_group(0)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// A started program and its process group. Dropped early, it kills the group all the same.
struct Group(Child);

impl Group {
    /// The id of the program, which is also that of its group.
    fn pid(&self) -> Pid {
        // The kernel's process ids fit in i32 (pid_t).
        Pid::from_raw(i32::try_from(self.0.id()).unwrap_or(i32::MAX))
    }

    /// Whether the program ends in time. It is not reaped here: its id must not be given to another process
    /// while its group is still to be killed.
    fn ends_within(&self, timeout: Duration) -> io::Result<bool> {
        let pid = self.0.id();
        let (tell, told) = channel();
        thread::Builder::new().spawn(move || tell.send(await_end(pid)))?;
        match told.recv_timeout(timeout) {
            Ok(ended) => ended.map(|()| true),
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Kills whatever is left of the group and reaps the program.
    fn finish(&mut self) -> io::Result<ExitStatus> {
        // ESRCH and, on macOS, EPERM say that nothing but the zombie is left.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        self.0.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once reaped the id may belong to somebody else.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.finish();
        }
    }
}

/// Blocks until the child has ended, and leaves it a zombie.
fn await_end(pid: u32) -> io::Result<()> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: `info` is valid for writing a siginfo_t and outlives the call.
        let result =
            unsafe { libc::waitid(libc::P_PID, pid, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// One output stream on its way in.
struct Stream {
    kept: Arc<Mutex<Vec<u8>>>,
    end: Receiver<()>,
}

impl Stream {
    /// What has come, waiting for the end of the stream no longer than [`DRAIN`].
    fn take(self) -> String {
        // Disconnection is the end of the stream; nothing is ever sent.
        let _ = self.end.recv_timeout(DRAIN);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

/// Starts reading a stream to its end, keeping its first bytes.
fn collect(stream: Option<impl Read + Send + 'static>) -> io::Result<Stream> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (open, end) = channel::<()>();
    let shared = Arc::clone(&kept);
    thread::Builder::new().spawn(move || {
        let _open = open;
        let Some(mut stream) = stream else { return };
        let mut buffer = [0; 8192];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(got) => {
                    let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = OUTPUT_CAP_BYTE.saturating_sub(kept.len());
                    kept.extend_from_slice(&buffer[..got.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(Stream { kept, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;
    use std::os::unix::process::ExitStatusExt;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::stat::Mode;

    fn sh(script: &str) -> CommandSpec {
        CommandSpec {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            stdin: None,
            home: None,
            env: BTreeMap::new(),
            timeout: Duration::from_secs(60),
        }
    }

    /// A fifo, opened for reading; its end is reached only when nobody has it open for writing.
    fn fifo(folder: &tempfile::TempDir) -> (String, File) {
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        (path.to_str().unwrap().to_owned(), reader)
    }

    #[test]
    fn returns_status_and_both_streams() {
        let output = run(&sh("echo out; echo err >&2; exit 3")).unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("out\n", "err\n")
        );
    }

    #[test]
    fn gives_an_environment_of_two_variables_and_the_root_folder() {
        let spec = CommandSpec {
            program: "/usr/bin/env".into(),
            args: vec![],
            ..sh("")
        };
        assert_eq!(run(&spec).unwrap().stdout, format!("LC_ALL=C\nPATH={PATH}\n"));
        assert_eq!(run(&sh("pwd")).unwrap().stdout, "/\n");
    }

    #[test]
    fn passes_standard_input_and_survives_a_program_that_ignores_it() {
        let mut spec = sh("cat");
        spec.stdin = Some("a line".into());
        assert_eq!(run(&spec).unwrap().stdout, "a line");
        let mut spec = sh("exit 0");
        spec.stdin = Some("x".repeat(4 * OUTPUT_CAP_BYTE));
        assert!(run(&spec).unwrap().status.success());
    }

    #[test]
    fn keeps_the_first_mib_and_lets_the_program_write_on() {
        let output = run(&sh("head -c 3000000 /dev/zero; exit 7")).unwrap();
        assert_eq!(output.stdout.len(), OUTPUT_CAP_BYTE);
        assert_eq!(output.status.code(), Some(7));
    }

    #[test]
    fn kills_the_whole_group_when_the_time_is_up() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut reader) = fifo(&folder);
        let mut spec = sh(&format!("exec 3>{path}; sleep 1000 & sleep 1000"));
        spec.timeout = Duration::from_millis(500);
        let error = run(&spec).unwrap_err();
        assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
        // Would block for as long as any of the sleeps lives.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn kills_what_a_program_leaves_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut reader) = fifo(&folder);
        run(&sh(&format!("exec 3>{path}; sleep 1000 & exit 0"))).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn reports_a_signal_as_failure_with_what_was_said() {
        let spec = sh("echo 'no room' >&2; kill -9 $$");
        let output = run(&spec).unwrap();
        assert_eq!(output.status.signal(), Some(9));
        let text = output.require_success(&spec).unwrap_err().to_string();
        assert!(
            text.contains("signal: 9") && text.ends_with("\n  no room"),
            "{text}"
        );
    }

    #[test]
    fn refuses_a_program_without_a_path() {
        let spec = CommandSpec {
            program: "sh".into(),
            ..sh("")
        };
        assert!(matches!(run(&spec), Err(CommandError::Relative(_))));
        let spec = CommandSpec {
            program: "/nonexistent/tool".into(),
            ..sh("")
        };
        assert!(matches!(run(&spec), Err(CommandError::Start { .. })));
    }

    #[test]
    fn prints_a_line_that_a_shell_reads_back() {
        let mut spec = CommandSpec {
            program: "/usr/bin/printf".into(),
            args: ["%s\\n", "it's", "", "$(id)", "a b", "ok-1.2"]
                .map(str::to_owned)
                .to_vec(),
            ..sh("")
        };
        spec.stdin = Some("secret".into());
        assert!(!spec.to_string().contains("secret"));
        assert_eq!(
            run(&sh(&spec.to_string())).unwrap().stdout,
            "it's\n\n$(id)\na b\nok-1.2\n"
        );
    }
}
