//! The daemon that the service is, asked while it is started, emptied and stopped.

use std::thread;
use std::time::{Duration, Instant};

use camino::Utf8Path;

use crate::control::client::{ControlError, ask};
use crate::control::{Answer, Ask, SlotNow, StatusReport};

/// How often the daemon is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// How the daemon is; `None` where nobody answers.
///
/// # Errors
/// Somebody answers, and not with that.
pub(super) fn status(socket: &Utf8Path) -> anyhow::Result<Option<StatusReport>> {
    match ask(socket, &Ask::Status {}) {
        Ok((Answer::Status(status), _)) => Ok(Some(*status)),
        Ok((other, _)) => anyhow::bail!("the daemon answered {other:?}"),
        // An answer of another version than this program's may have another form; it is an answer.
        Err(ControlError::Connect { .. } | ControlError::Broken(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a daemon of this version, or any, answers.
///
/// # Errors
/// None has within this time.
pub(super) fn await_ready(
    socket: &Utf8Path,
    version: Option<&str>,
    within: Duration,
) -> anyhow::Result<StatusReport> {
    let deadline = Instant::now() + within;
    let mut last = "nobody answers".to_owned();
    while Instant::now() < deadline {
        match status(socket) {
            Ok(Some(status)) if version.is_none_or(|version| version == status.version) => return Ok(status),
            Ok(Some(status)) => last = format!("version {} answers", status.version),
            Ok(None) => {}
            Err(error) => last = crate::chain(error.as_ref()),
        }
        thread::sleep(PAUSE);
    }
    anyhow::bail!(
        "the daemon was not ready within {} s at `{socket}`: {last}",
        within.as_secs()
    )
}

/// What a daemon was emptied of.
#[derive(Debug, Default)]
pub(super) struct Drained {
    /// Whether it was draining before, by somebody's wish.
    pub(super) was_draining: bool,
    /// Jobs that wait, which a stop ends.
    pub(super) waiting: usize,
}

/// Lets the daemon, if one runs, start no more jobs, and waits for those that run; not for them with `now`.
///
/// # Errors
/// Jobs still run after this time; then the daemon starts jobs again.
pub(super) fn drain(socket: &Utf8Path, now: bool, within: Duration) -> anyhow::Result<Drained> {
    let Some(before) = status(socket)? else {
        return Ok(Drained::default());
    };
    let drained = Drained {
        was_draining: before.draining,
        waiting: before.queued.len(),
    };
    ask(socket, &Ask::Drain {})?;
    if now {
        return Ok(drained);
    }
    let deadline = Instant::now() + within;
    let mut said = 0;
    loop {
        let Some(status) = status(socket)? else {
            return Ok(drained);
        };
        let running = running(&status);
        if running == 0 {
            return Ok(Drained {
                waiting: status.queued.len(),
                ..drained
            });
        }
        if said != running {
            eprintln!("draining: {running} running");
            said = running;
        }
        if Instant::now() >= deadline {
            if !drained.was_draining {
                ask(socket, &Ask::Resume { slot: None })?;
            }
            anyhow::bail!(
                "{running} jobs still run after {} s, and nothing was changed\nhint: wait for them with `ephemerd drain`, or end them with --now",
                within.as_secs()
            );
        }
        thread::sleep(PAUSE);
    }
}

/// How many jobs run, in slots and in guests.
fn running(status: &StatusReport) -> usize {
    let busy = |now: &SlotNow| match now {
        SlotNow::Busy { .. } | SlotNow::Looking {} => true,
        SlotNow::Free | SlotNow::Quarantined { .. } => false,
    };
    let slots = status.slots.iter().filter(|slot| busy(&slot.now)).count();
    let guests = status
        .vm
        .iter()
        .flat_map(|vm| &vm.kinds)
        .map(|kind| kind.running.len())
        .sum::<usize>();
    slots + guests
}
