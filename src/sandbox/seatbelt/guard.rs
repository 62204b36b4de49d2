//! The guard of one job: starts its first process, tells the dispatcher how that goes, and ends it when the warden
//! says so or is gone. macOS has nothing that kills a process together with its parent.
//!
//! It stays root and outside of the sandbox, runs nothing of the job's, and reads nothing of the job's either: the
//! first program inside talks to it until it executes the command, which closes that pipe.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::select::{FdSet, pselect};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use super::child::{self, Ends, Launch};
use super::{Confined, End, refusal};
use crate::sandbox::launch::{Status, Stop};
use crate::sandbox::step::{Given, Step, StepError, give_pipes, say};

/// Said on the leash: ask every process of the job to end.
pub(crate) const ASK: &[u8] = b"t";

/// Said on the leash: end them. The end of the leash means the same.
pub(crate) const KILL: &[u8] = b"k";

/// Most bytes kept of a complaint, and of one line.
const LONGEST: usize = 8192;

/// Starts a job and stays until its first process has ended.
pub(super) fn run(launch: &Launch<'_>, given: Given, leash: PipeReader) {
    give_pipes(&given.job, launch.plan.account.as_ref());
    let mut status = File::from(given.status);
    match Guard::start(launch, given.job, leash, &status) {
        Ok(mut guard) => {
            if let Err(error) = guard.watch(&mut status) {
                guard.kill(Signal::SIGKILL);
                say(&mut status, &StepError::new("guard", error).into());
            }
        }
        Err(error) => say(&mut status, &error.into()),
    }
}

struct Guard {
    child: Pid,
    stop: Stop,
    leash: Option<PipeReader>,
    /// What is still to be told to the child; its pipe is closed after that.
    plan: Option<(File, Vec<u8>)>,
    said: Listener,
    complaint: Listener,
    /// Whether the first program has proved itself.
    ready: bool,
    /// Whether the outcome is known already.
    settled: bool,
}

/// One pipe from the child, and what came by it and was not dealt with yet.
struct Listener {
    pipe: Option<File>,
    text: Vec<u8>,
}

impl Listener {
    /// Reads what has come; the rest of too much is dropped.
    fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = [0; 4096];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => {
                    let room = LONGEST.saturating_sub(self.text.len());
                    self.text.extend_from_slice(&buffer[..got.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.pipe = None;
    }

    /// Takes the next whole line.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.text.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.text.drain(..=end).collect();
        line.pop();
        Some(line)
    }
}

impl Guard {
    fn start(
        launch: &Launch<'_>,
        job: [OwnedFd; 3],
        leash: PipeReader,
        status: &File,
    ) -> Result<Self, StepError> {
        const STEP: &str = "guard";
        // launchd kills the process group of a daemon that ends; this one has still something to do then.
        setsid().step(STEP)?;
        let keep = [
            leash.as_raw_fd(),
            status.as_raw_fd(),
            job[0].as_raw_fd(),
            job[1].as_raw_fd(),
            job[2].as_raw_fd(),
        ];
        close_all_but(&keep).step(STEP)?;
        let (instructions, plan) = pipe().step(STEP)?;
        let (said, says) = pipe().step(STEP)?;
        let (complaint, complains) = pipe().step(STEP)?;
        let told = Confined {
            command: launch.plan.command.clone(),
            env: launch.plan.env.clone(),
            account: launch.plan.account.clone(),
            limits: launch.plan.limits,
            profile: launch.profile.to_owned(),
        };
        let told = serde_json::to_vec(&told).step(STEP)?;
        // SAFETY: this process has one thread, so the child may do whatever it likes.
        match unsafe { fork() }.step(STEP)? {
            ForkResult::Child => {
                // What is not dropped here closes when the next program is executed.
                let mut voice = says.try_clone().map(File::from);
                let ends = Ends {
                    plan: instructions,
                    said: says,
                    complaint: complains,
                    job,
                };
                let error = child::run(launch, ends);
                if let Ok(voice) = &mut voice {
                    say(voice, &error.into());
                }
                // SAFETY: ends the child without running the parent's destructors.
                unsafe { libc::_exit(1) }
            }
            ForkResult::Parent { child } => {
                for end in [&plan, &said, &complaint] {
                    fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).step(STEP)?;
                }
                Ok(Self {
                    child,
                    stop: launch.plan.stop,
                    leash: Some(leash),
                    plan: Some((File::from(plan), told)),
                    said: listener(said),
                    complaint: listener(complaint),
                    ready: false,
                    settled: false,
                })
            }
        }
    }

    /// Passes on what is said either way until the first process has ended.
    fn watch(&mut self, status: &mut File) -> io::Result<()> {
        // The warden waits with SIGCHLD blocked, and so does this.
        let mut unblocked = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, None, Some(&mut unblocked))?;
        unblocked.remove(Signal::SIGCHLD);
        loop {
            if let Some(end) = ended(self.child)? {
                self.conclude(end, status);
                return Ok(());
            }
            self.wait(&unblocked)?;
            self.obey();
            self.tell();
            self.listen(status);
        }
    }

    fn wait(&self, unblocked: &SigSet) -> io::Result<()> {
        let (mut readable, mut writable) = (FdSet::new(), FdSet::new());
        let heard = [&self.said.pipe, &self.complaint.pipe];
        heard
            .into_iter()
            .flatten()
            .for_each(|pipe| readable.insert(pipe.as_fd()));
        if let Some(leash) = &self.leash {
            readable.insert(leash.as_fd());
        }
        if let Some((plan, _)) = &self.plan {
            writable.insert(plan.as_fd());
        }
        match pselect(None, &mut readable, &mut writable, None, None, Some(unblocked)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Does what the warden says.
    fn obey(&mut self) {
        let Some(leash) = &mut self.leash else { return };
        if !is_readable(leash) {
            return;
        }
        let mut word = [0; 1];
        match leash.read(&mut word) {
            Ok(1) if word == ASK => self.ask(),
            Ok(1) => self.kill(Signal::SIGKILL),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                self.leash = None;
                self.kill(Signal::SIGKILL);
            }
        }
    }

    /// Tells the child as much as it takes.
    fn tell(&mut self) {
        let Some((pipe, left)) = &mut self.plan else {
            return;
        };
        let written = match pipe.write(left) {
            Ok(written) => written,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) =>
            {
                return;
            }
            // Nobody reads any more; how the child ends tells why.
            Err(_) => left.len(),
        };
        left.drain(..written);
        if left.is_empty() {
            self.plan = None;
        }
    }

    /// Passes on what the child says.
    fn listen(&mut self, status: &mut File) {
        self.complaint.read();
        self.said.read();
        while let Some(line) = self.said.line() {
            let said = serde_json::from_slice(&line).unwrap_or_else(|error| {
                StepError::new("guard", format!("`{}`: {error}", String::from_utf8_lossy(&line))).into()
            });
            match said {
                Status::Ready => self.ready = true,
                Status::StepFailed { .. } | Status::NotExecuted { .. } => self.settled = true,
                // How it ends is for the kernel to say.
                Status::Exited { .. } | Status::Signalled { .. } => continue,
            }
            say(status, &said);
        }
    }

    /// Says how it ended, and kills what it left in its process group.
    fn conclude(&mut self, end: End, status: &mut File) {
        // Its pid is still its own: it has not been reaped.
        self.kill(Signal::SIGKILL);
        self.listen(status);
        if self.settled {
            return;
        }
        if !self.ready {
            let complaint = String::from_utf8_lossy(&self.complaint.text).into_owned();
            say(status, &refusal(end, &complaint).into());
            return;
        }
        say(
            status,
            &match end {
                End::Code(code) => Status::Exited { code },
                End::Signal(signal) => Status::Signalled { signal },
            },
        );
    }

    /// Asks the job to end.
    fn ask(&self) {
        match self.stop {
            Stop::Terminate => self.kill(Signal::SIGTERM),
            Stop::Interrupt => {
                let _ = kill(self.child, Signal::SIGINT);
            }
        }
    }

    /// Signals the child and its process group, which are the same until it has a session of its own.
    fn kill(&self, signal: Signal) {
        if killpg(self.child, signal).is_err() {
            let _ = kill(self.child, signal);
        }
    }
}

fn listener(end: OwnedFd) -> Listener {
    Listener {
        pipe: Some(File::from(end)),
        text: Vec::new(),
    }
}

/// A pipe whose ends do not go to other programs; the end to read from comes first.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    io::pipe().map(|(reader, writer)| (reader.into(), writer.into()))
}

fn is_readable(pipe: &PipeReader) -> bool {
    let mut readable = FdSet::new();
    readable.insert(pipe.as_fd());
    let now = nix::sys::time::TimeSpec::new(0, 0);
    pselect(None, Some(&mut readable), None, None, Some(&now), None).is_ok_and(|ready| ready > 0)
}

/// How the child ended, if it has; it is left a zombie, so that its pid stays its own until this process ends.
/// Not by a library that knows signals by name: a real-time signal has none.
fn ended(child: Pid) -> io::Result<Option<End>> {
    // SAFETY: all-zero bytes are a valid siginfo_t: integers, and a union of integers and pointers.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = libc::id_t::try_from(child.as_raw()).map_err(io::Error::other)?;
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is valid for writing and outlives the call.
    Errno::result(unsafe { libc::waitid(libc::P_PID, id, &raw mut info, how) })?;
    // SAFETY: waitid filled it in, or left the zeroes.
    let (pid, value) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then(|| match info.si_code {
        libc::CLD_EXITED => End::Code(u8::try_from(value & 0xff).unwrap_or(u8::MAX)),
        _ => End::Signal(value),
    }))
}

/// Closes every descriptor of this process but these. The warden's socket and the leashes of other jobs are among
/// the rest: as long as somebody holds them, nobody sees their end.
fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let open: Vec<RawFd> = std::fs::read_dir("/dev/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| !keep.contains(fd))
        .collect();
    for fd in open {
        // SAFETY: nothing in this process uses these descriptors any more.
        unsafe { libc::close(fd) };
    }
    Ok(())
}
