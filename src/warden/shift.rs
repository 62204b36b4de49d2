//! The dispatchers of a daemon, one after the other: started, greeted, served to their end, and followed by another where one
//! was killed. Jobs do not notice; what the next one needs to go on with them is kept in between ([`super::kept`]).

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use nix::sys::select::pselect;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use super::again::Again;
use super::client::is_readable;
use super::serve::{Numbered, Warden, noted};
use super::supervise::{HEARING, Orders, PASSED_ON};
use super::{Hello, Reply, Request, wire};
use crate::daemon::ground::Ground;
use crate::host::command::halves::{self, Sandbox};
use crate::host::{Os, os};
use crate::profile::render::macos::dispatcher;
use crate::workspace;

/// How long one message may take to come, once it has begun.
const SENTENCE: Duration = Duration::from_secs(10);

/// How often the service manager hears that the daemon lives while it has no dispatcher; the unit wants it every minute.
const BEAT: Duration = Duration::from_secs(10);

/// Requests, or pieces of its log, that one may have left unread, at most. It may have left its ends to somebody, who goes on.
const LAST_WORDS: usize = 1024;

/// How long a dispatcher may take to end that says nothing more.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A socket between the two halves: our end, and the dispatcher's. Whoever says half a sentence, or does not listen, is not
/// waited for.
pub(super) fn link() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(SENTENCE))?;
    ours.set_write_timeout(Some(HEARING))?;
    Ok((ours, theirs))
}

/// The life of a daemon, in which one dispatcher may follow another.
pub(super) struct Shift<'a> {
    pub(super) orders: &'a Orders<'a>,
    pub(super) ground: &'a Ground,
    pub(super) unblocked: &'a SigSet,
    /// The steward, without which there is no daemon.
    pub(super) steward: i32,
    pub(super) again: Again,
    /// Signals that came while there was no dispatcher.
    pub(super) passed_on: Vec<Signal>,
}

impl Shift<'_> {
    /// Serves dispatchers until there is no next one; the exit code of the last.
    pub(super) fn run(&mut self, warden: &mut Warden, mut dispatcher: i32) -> io::Result<u8> {
        loop {
            self.serve(warden, dispatcher)?;
            let status = ended(warden, dispatcher)?;
            match self.next(warden, status)? {
                Some(next) => dispatcher = next,
                None => return Ok(code_of(status)),
            }
        }
    }

    /// Serves one to its end.
    fn serve(&mut self, warden: &mut Warden, dispatcher: i32) -> io::Result<()> {
        // One that is gone already is seen below.
        let _ = greet(warden, self.ground, self.again.count);
        for signal in self.passed_on.drain(..) {
            let _ = kill(Pid::from_raw(dispatcher), signal);
        }
        let steward = self.steward;
        warden.serve(self.unblocked, |warden| {
            // It may have left its end of the socket to somebody.
            if warden.has_seen_end_of(dispatcher) {
                return false;
            }
            for signal in warden.noted() {
                let _ = kill(Pid::from_raw(dispatcher), signal);
            }
            if warden.has_seen_end_of(steward) {
                tracing::error!("the steward of the daemon has ended, and the daemon with it");
                let _ = kill(Pid::from_raw(dispatcher), Signal::SIGKILL);
            }
            true
        })
    }

    /// Starts the dispatcher that follows one that ended with `status`, if it was not to end; its pid. Everything that it had
    /// asked for has been done before: nobody could tell the next one.
    fn next(&mut self, warden: &mut Warden, status: i32) -> io::Result<Option<i32>> {
        // What it still asked for is done, and answered to nobody: it may have left its end of the socket to somebody.
        let _ = warden.link.shutdown(Shutdown::Write);
        warden.hear_out();
        let was_to_go_on = warden
            .front
            .as_ref()
            .is_some_and(|front| front.is_ready && !front.stops);
        if !was_to_go_on || warden.has_seen_end_of(self.steward) {
            return Ok(None);
        }
        let Some(pause) = self.again.after(Instant::now()) else {
            tracing::error!("the dispatcher was killed too often, and there is no other");
            return Ok(None);
        };
        let (how, jobs) = (ExitStatus::from_raw(status), warden.jobs.len());
        tracing::error!(%how, jobs, "the dispatcher was killed; another goes on with its jobs");
        let until = Instant::now() + pause;
        loop {
            warden.reap();
            self.passed_on.extend(warden.noted());
            let left = until.saturating_duration_since(Instant::now());
            let works = !warden.workers.borrow().is_empty();
            if !works && (left.is_zero() || !self.passed_on.is_empty()) {
                break;
            }
            os::service_lives();
            let wait = if works { BEAT } else { left.min(BEAT) };
            let wait = TimeSpec::from_duration(wait);
            match pselect(None, None, None, None, &wait, Some(self.unblocked)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (ours, theirs) = link()?;
        if let Some(steward) = warden.front.as_ref().and_then(|front| front.steward.as_ref()) {
            let message = Request::Link;
            wire::send(steward, &Numbered { number: 0, message }, &[ours.as_fd()])?;
        }
        warden.link = ours.try_clone()?;
        warden.socket = ours;
        warden
            .start_dispatcher(self.orders, self.ground, theirs)
            .map(Some)
    }
}

/// Says first what the dispatcher stands on and who was before it, and hands over the doors and what tells of changes of the
/// network.
fn greet(warden: &Warden, ground: &Ground, killed: u32) -> io::Result<()> {
    let changes = match ground.is_root() {
        true => os::network_changes().unwrap_or_default(),
        false => vec![],
    };
    let front = warden.front.as_ref();
    let doors = front.into_iter().flat_map(|front| &front.doors);
    let doors = doors.map(|(_, door)| door);
    let descriptors: Vec<BorrowedFd<'_>> = doors.chain(&changes).map(AsFd::as_fd).collect();
    let hello = Hello {
        ground: ground.clone(),
        kept: front.map(|front| front.kept.jobs()).unwrap_or_default(),
        killed,
    };
    warden.reply_with(0, Reply::Hello(Box::new(hello)), &descriptors)
}

/// Waits for the end of a dispatcher that says nothing more; how it ended.
fn ended(warden: &mut Warden, dispatcher: i32) -> io::Result<i32> {
    let of_it = |warden: &Warden| {
        let found = warden.ended.iter().find(|(pid, _)| *pid == dispatcher);
        found.map(|(_, status)| *status)
    };
    if of_it(warden).is_none() && os::wait_for_end(dispatcher, Instant::now() + END_WITHIN).is_err() {
        let _ = kill(Pid::from_raw(dispatcher), Signal::SIGKILL);
        os::wait_for_end(dispatcher, Instant::now() + END_WITHIN)?;
    }
    warden.reap();
    for _ in 0..LAST_WORDS {
        if !warden.has_log() {
            break;
        }
        warden.pump_log();
    }
    let status = of_it(warden);
    // Another may have its number.
    warden.ended.retain(|(pid, _)| *pid != dispatcher);
    status.ok_or_else(|| io::Error::other("nobody knows how the dispatcher ended"))
}

/// The exit code of a process that ended in this way.
fn code_of(status: i32) -> u8 {
    let status = ExitStatus::from_raw(status);
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(1),
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            tracing::error!(signal, "the dispatcher was killed, and its jobs with it");
            1
        }
    }
}

impl Warden {
    /// Starts a dispatcher at the other end of our socket, which is `theirs`; its pid.
    pub(super) fn start_dispatcher(
        &mut self,
        orders: &Orders<'_>,
        ground: &Ground,
        theirs: UnixStream,
    ) -> io::Result<i32> {
        let mut log = None;
        if let (Some(file), Some(front)) = (&orders.log, &mut self.front) {
            let (from, into) = io::pipe()?;
            front.log = Some((File::from(OwnedFd::from(from)), file.clone()));
            log = Some(into.into());
        }
        let program = (orders.program, orders.args.as_slice());
        let sandbox = self.sandbox(orders.program, ground)?;
        let as_whom = (ground.dispatcher.as_ref(), sandbox.as_ref());
        let child = halves::start_dispatcher(program, as_whom, theirs.into(), log)?;
        Ok(i32::try_from(child.id()).unwrap_or(i32::MAX))
    }

    /// What a dispatcher is started in, where it does not fence itself in.
    fn sandbox(&self, program: &Utf8Path, ground: &Ground) -> io::Result<Option<Sandbox>> {
        if self.host.os == Os::Linux || ground.dispatcher.is_none() {
            return Ok(None);
        }
        let proof = self.host.fence_proof();
        let mode =
            |path: &Utf8Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        if let Some(folder) = proof.parent() {
            std::fs::create_dir_all(folder)?;
            // Whatever the umask is: launchd's is 077.
            mode(folder, 0o755)?;
        }
        std::fs::write(&proof, "")?;
        mode(&proof, 0o644)?;
        let folders = workspace::of_dispatcher(&self.data_dir);
        let profile = dispatcher(&folders, program, &proof).map_err(io::Error::other)?;
        Ok(Some(Sandbox {
            program: self.host.mac.sandbox_exec.clone(),
            profile,
        }))
    }

    /// Does what a dispatcher that is gone has asked for last.
    fn hear_out(&mut self) {
        for _ in 0..LAST_WORDS {
            if !is_readable(self.socket.as_fd()) {
                return;
            }
            match wire::receive::<Numbered<Request>>(&self.socket) {
                // Nobody is there for the answer.
                Ok(Some((request, descriptors))) => drop(self.answer(request, descriptors)),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// The signals for the dispatcher that came since somebody asked. Those that end it end the daemon.
    fn noted(&mut self) -> Vec<Signal> {
        let noted = noted(&PASSED_ON);
        if let Some(front) = &mut self.front {
            front.stops |= noted.iter().any(|signal| *signal != Signal::SIGHUP);
        }
        noted
    }

    fn has_seen_end_of(&self, process: i32) -> bool {
        self.ended.iter().any(|(pid, _)| *pid == process)
    }

    /// Whether the dispatcher has logged something that is not moved on, or its log has ended.
    fn has_log(&self) -> bool {
        let log = self.front.as_ref().and_then(|front| front.log.as_ref());
        log.is_some_and(|(from, _)| is_readable(from.as_fd()))
    }

    /// Moves what the dispatcher has logged on to the log.
    pub(super) fn pump_log(&mut self) {
        let Some(front) = &mut self.front else { return };
        let Some((from, log)) = &mut front.log else { return };
        if !is_readable(from.as_fd()) {
            return;
        }
        let mut buffer = [0; 16 * 1024];
        // Once at every turn: whoever logs without end must not be all that is served.
        match from.read(&mut buffer) {
            // A log that cannot be written must not keep the daemon from its work.
            Ok(got @ 1..) => drop(log.write_all(&buffer[..got])),
            Ok(0) | Err(_) => front.log = None,
        }
    }
}
