//! `__job-started`: what the hook of a GitHub job runs inside the job's sandbox. It reports the job to the daemon and holds
//! it until the daemon says that it may run.
//!
//! A daemon whose half that answers was killed has another soon, which is asked once more.
//!
//! It ends with 0 then. Otherwise it does not end: after a hook that fails, steps with `if: always()` would run. So once it
//! knows its socket, no error ends it, and none of the signals that the runner ends steps with; `SIGKILL` does, by which the
//! daemon ends jobs. When even that came from elsewhere, the shell that started it holds the job, see
//! [`crate::github::admission::hook`].

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::github::admission::{Answer, Message};

/// How soon another dispatcher is asked.
const AGAIN: Duration = Duration::from_millis(200);

/// Bytes an answer may have; the reasons for a refusal stay far below.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// What the runner sends a step that should end, and what a terminal would.
const HELD_AGAINST: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Arguments of `__job-started`.
#[derive(Debug, Args)]
pub struct JobStartedArgs {
    /// The daemon's socket for this job.
    socket: Utf8PathBuf,
}

impl JobStartedArgs {
    /// Ends when the job may run, and only then.
    pub fn run(&self) -> ExitCode {
        for number in HELD_AGAINST {
            // SAFETY: ignores a signal; no handler is involved. It fails for no signal of these.
            let _ = unsafe { signal(number, SigHandler::SigIgn) };
        }
        match ask(&self.socket) {
            Ok((Answer::Go, _)) => ExitCode::SUCCESS,
            Ok((Answer::Stop { reason }, stream)) => {
                hold(&format!("this job may not run: {reason}"), Some(stream))
            }
            Err(error) => {
                let why = crate::chain(error.as_ref());
                hold(&format!("this job could not be reported: {why}"), None)
            }
        }
    }
}

/// Reports the job, and waits for the answer as long as it takes.
fn ask(socket: &Utf8Path) -> anyhow::Result<(Answer, UnixStream)> {
    let variable = |name| std::env::var(name).ok();
    let message = Message::from_environment(variable, |path| Utf8Path::new(path).is_file())?;
    let mut line = serde_json::to_vec(&message)?;
    line.push(b'\n');
    let mut is_told = false;
    loop {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("could not connect to `{socket}`"))?;
        match ask_once(&stream, &line) {
            Ok(answer) => return Ok((answer, stream)),
            // Whoever refuses says so; only one that is killed hangs up.
            Err(error) if is_hung_up(&error) => {
                if !is_told {
                    let _ = writeln!(io::stderr(), "ephemerd: no answer came; asking again");
                }
                is_told = true;
                std::thread::sleep(AGAIN);
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_hung_up(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(BrokenPipe | ConnectionReset | UnexpectedEof))
}

/// Reports it to one dispatcher.
fn ask_once(mut stream: &UnixStream, line: &[u8]) -> anyhow::Result<Answer> {
    stream.write_all(line).context("could not send it")?;
    let mut answer = String::new();
    let got = BufReader::new(stream.take(LONGEST_ANSWER))
        .read_line(&mut answer)
        .context("no answer came")?;
    if got == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).context("no answer came");
    }
    serde_json::from_str(&answer).context("the answer is none")
}

/// Holds the job, with its connection open, until somebody kills it.
fn hold(why: &str, _connection: Option<UnixStream>) -> ! {
    // Into the job's log, if anybody reads that.
    let _ = writeln!(io::stderr(), "ephemerd: {why}");
    loop {
        nix::unistd::pause();
    }
}
