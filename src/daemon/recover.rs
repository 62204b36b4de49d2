//! What an earlier process has left: jobs that go on, where only the dispatcher was killed, and what is torn down.

use std::collections::BTreeSet;
use std::time::SystemTime;

use tracing::warn;

use super::start::{Claim, StartError};
use crate::github::admission::hook::Place;
use crate::host::Host;
use crate::job::ledger::{AcquisitionId, Unfinished};
use crate::job::run::Pipeline;
use crate::job::run::memo::{Memo, Resumed};
use crate::job::state::{LAUNCHING, PREPARING, QUEUED, RUNNING};
use crate::job::{Acquisition, JobId, JobSpec};
use crate::slot::Slot;
use crate::trust::Route;
use crate::vm::room::Room;
use crate::warden::client::{Recalled, WardenError};
use crate::warden::{Reply, Request};

/// Why a job waits once more that had a slot already.
const WAITS_AGAIN: &str = "the dispatcher was killed before the job was launched";

/// A job of an earlier dispatcher that goes on.
#[derive(Debug)]
pub enum TakenUp {
    /// It runs.
    Running(JobId, Box<Resumed>),
    /// It waits.
    Waiting(JobId, Box<JobSpec>),
}

/// What became of what was left.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// The jobs that go on.
    pub(super) taken_up: Vec<TakenUp>,
    /// In words.
    pub(super) report: Vec<String>,
}

/// Tears down what earlier processes left: jobs of the slots that are ours, and, for the daemon, jobs that
/// never got a slot and folders no ledger knows. Jobs that an earlier dispatcher has left a memo of, and that can go on, do.
pub(super) async fn recover(
    pipeline: &Pipeline,
    room: Option<&Room>,
    (slots, claim): (&[Slot], Claim),
    kept: &BTreeSet<JobId>,
) -> Result<Recovered, StartError> {
    let Recovered {
        mut taken_up,
        mut report,
    } = Recovered::default();
    for unfinished in pipeline.ledger.unfinished()? {
        let ours = match &unfinished.slot {
            Some(slot) => claim == Claim::Everything || slots.iter().any(|s| s.index == slot.index),
            None => claim == Claim::Everything,
        };
        if !ours {
            continue;
        }
        let id = unfinished.id.clone();
        let unfinished = match kept.contains(&id) {
            false => unfinished,
            true => match take_up(pipeline, unfinished).await? {
                Ok(one) => {
                    let how = match &one {
                        TakenUp::Running(..) => "goes on",
                        TakenUp::Waiting(..) => "waits again",
                    };
                    report.push(format!("job {id}: {how}"));
                    taken_up.push(one);
                    continue;
                }
                Err(unfinished) => unfinished,
            },
        };
        let (guests, open) = apart(unfinished.open);
        let of_guests = match room {
            Some(room) => room.recover(&pipeline.ledger, &guests).await?,
            None => guests
                .iter()
                .map(|(_, backend, name)| {
                    format!("guest {name} of the backend `{backend}`, which is not configured any more")
                })
                .collect(),
        };
        let ended = pipeline
            .recover(
                &id,
                unfinished.slot.as_ref(),
                (open, of_guests),
                unfinished.ending,
            )
            .await?;
        let left = if ended.leftovers.is_empty() {
            "clean".into()
        } else {
            ended.leftovers.join(", ")
        };
        report.push(format!("job {id}: {left}"));
    }
    if claim == Claim::OneSlot {
        return Ok(Recovered { taken_up, report });
    }
    for job in kept {
        // Its end was the last that the ledger was told.
        if !taken_up.iter().any(|one| one.job() == job) {
            pipeline.warden.forget(job);
        }
    }
    if let Some(room) = room {
        report.extend(room.sweep().await);
    }
    // After a power cut the ledger may have forgotten its last jobs; their folders tell.
    if let Reply::Folders { jobs, .. } = pipeline.warden.ask(Request::Folders, &[]).await? {
        for job in jobs {
            if taken_up.iter().any(|one| *one.job() == job) {
                continue;
            }
            let acquisitions = vec![Acquisition::Profile, Acquisition::Workspace];
            let request = Request::Scrub {
                job: job.clone(),
                account: None,
                acquisitions,
                keep: false,
            };
            if let Reply::Scrubbed { leftovers, .. } = pipeline.warden.ask(request, &[]).await? {
                let left = if leftovers.is_empty() {
                    "removed".into()
                } else {
                    leftovers.join(", ")
                };
                report.push(format!("unknown workspace {job}: {left}"));
            }
        }
    }
    Ok(Recovered { taken_up, report })
}

/// Takes a job up that an earlier dispatcher has left a memo of; one that cannot go on comes back. GitHub's jobs are found anew
/// unless they were launched. A guest ends with the dispatcher that holds its tools.
async fn take_up(
    pipeline: &Pipeline,
    unfinished: Unfinished,
) -> Result<Result<TakenUp, Unfinished>, StartError> {
    let id = unfinished.id.clone();
    let recalled = match pipeline.warden.recall::<Memo>(Some(&id)).await {
        Ok(Some(recalled)) => recalled,
        Ok(None) => return Ok(Err(unfinished)),
        Err(error @ WardenError::Memo(_)) => {
            warn!(job = %id, error = crate::chain(&error), "the job cannot go on");
            return Ok(Err(unfinished));
        }
        Err(error) => return Err(error.into()),
    };
    let Recalled {
        memo: Memo { spec, launched },
        pid,
        descriptors,
    } = recalled;
    // What is left of it is undone, and its end is known.
    if unfinished.ending.is_some() {
        return Ok(Err(unfinished));
    }
    let row = pipeline.ledger.job(&id)?;
    let (is_of_github, route) = row.map_or((false, Route::Native), |row| (row.github.is_some(), row.route));
    let holds_guest = |held: &(AcquisitionId, Acquisition)| matches!(held.1, Acquisition::Vm { .. });
    // In any other nobody knows that nothing of it ran, a guest's above all.
    let state = unfinished.state.as_str();
    let ran_not = [QUEUED, PREPARING, LAUNCHING].contains(&state) && pid.is_none();
    match (launched, unfinished.slot.clone()) {
        (Some(launched), Some(slot)) => {
            let mut descriptors = descriptors.into_iter();
            let (Some(status), Some(output)) = (descriptors.next(), descriptors.next()) else {
                return Ok(Err(unfinished));
            };
            let resumed = Resumed {
                spec,
                slot,
                launched,
                is_running: unfinished.state == RUNNING,
                held: unfinished.open.into_iter().rev().collect(),
                status,
                output,
                door: descriptors.next(),
                pid,
                unfit: None,
            };
            Ok(Ok(TakenUp::Running(id, Box::new(resumed))))
        }
        (None, slot) if ran_not && !is_of_github && !unfinished.open.iter().any(holds_guest) => {
            if unfinished.state != QUEUED || slot.is_some() {
                // Whatever was made for it is not what the next slot needs.
                let account = slot.as_ref().map(|slot| &slot.account);
                let left = pipeline.undo(&id, account, &unfinished.open).await?;
                if !left.is_empty() {
                    // The ledger has what is undone, and the rest is tried, told and held against the slot.
                    return Ok(Err(open_still(pipeline, unfinished)?));
                }
                let now = SystemTime::now();
                pipeline.ledger.reroute(&id, route, WAITS_AGAIN, now)?;
            }
            Ok(Ok(TakenUp::Waiting(id, Box::new(spec))))
        }
        (Some(_), None) | (None, _) => Ok(Err(unfinished)),
    }
}

/// The job with what it holds by now.
fn open_still(pipeline: &Pipeline, before: Unfinished) -> Result<Unfinished, StartError> {
    let mut now = pipeline.ledger.unfinished()?.into_iter();
    Ok(now.find(|one| one.id == before.id).unwrap_or(before))
}

impl TakenUp {
    /// The job.
    pub(super) fn job(&self) -> &JobId {
        match self {
            Self::Running(id, _) | Self::Waiting(id, _) => id,
        }
    }

    /// Whether its hook reports at the entrance of a slot.
    fn reports_at(&self, slot: &Slot) -> bool {
        match self {
            Self::Running(_, resumed) => resumed.door.is_some() && resumed.slot.index == slot.index,
            Self::Waiting(..) => false,
        }
    }
}

/// Guests among what a job holds, with their backends and names; and the rest.
#[expect(clippy::type_complexity, reason = "taken apart at once")]
fn apart(
    open: Vec<(AcquisitionId, Acquisition)>,
) -> (
    Vec<(AcquisitionId, String, String)>,
    Vec<(AcquisitionId, Acquisition)>,
) {
    let (mut guests, mut rest) = (vec![], vec![]);
    for (id, what) in open {
        match what {
            Acquisition::Vm { backend, name } => guests.push((id, backend, name)),
            other => rest.push((id, other)),
        }
    }
    (guests, rest)
}

/// Removes entrances for hooks of GitHub jobs that an earlier process left in slots that are ours, but for those that are in
/// use; which, in words.
pub(super) async fn close_entrances(
    host: &Host,
    pipeline: &Pipeline,
    slots: &[Slot],
    taken_up: &[TakenUp],
) -> Vec<String> {
    let mut left = vec![];
    for slot in slots {
        if taken_up.iter().any(|one| one.reports_at(slot)) {
            continue;
        }
        // A path that is too long was never made.
        let place = Place::new(&host.run, pipeline.planner().data_dir(), slot.index).ok();
        if place.is_none_or(|place| place.folder().symlink_metadata().is_err()) {
            continue;
        }
        // One that stays is in nobody's way: it is removed before the next is made.
        let close = Request::CloseEntrance { slot: slot.index };
        let how = match pipeline.warden.ask(close, &[]).await {
            Ok(_) => "removed".to_owned(),
            Err(error) => crate::chain(&error),
        };
        left.push(format!("entrance of slot {}: {how}", slot.index));
    }
    left
}
