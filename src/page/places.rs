//! What goes on in the slots, and who waits for what.

use std::collections::BTreeMap;

use serde::Serialize;

use super::view::Pill;
use super::words;
use crate::control::{SlotNow, SlotReport, StatusReport};
use crate::daemon::vm::report::KindReport;
use crate::job::JobId;
use crate::job::ledger::JobRow;

#[derive(Debug, Serialize)]
pub(super) struct SlotLine {
    index: u32,
    account: String,
    state: Pill,
    job: Option<String>,
    what: String,
    event: String,
    time: String,
}

#[derive(Debug, Serialize)]
pub(super) struct QueueLine {
    place: String,
    job: Option<String>,
    repo: String,
    event: String,
    waited: String,
    why: String,
}

/// Everybody who waits, for slots and for guests.
pub(super) fn waiting(status: &StatusReport) -> Vec<&JobId> {
    let kinds = status.vm.iter().flat_map(|vm| &vm.kinds);
    let for_guests = kinds.flat_map(|kind| &kind.queued);
    status.queued.iter().chain(for_guests).collect()
}

/// Every slot, and what goes on in it.
pub(super) fn slots(status: &StatusReport, by_id: &BTreeMap<&JobId, &JobRow>, now_ms: u64) -> Vec<SlotLine> {
    let slot_line = |slot: &SlotReport| {
        let pill = |word: &str, colour| Pill {
            word: word.to_owned(),
            colour,
        };
        let row = match &slot.now {
            SlotNow::Busy { job } => by_id.get(job),
            SlotNow::Free | SlotNow::Looking {} | SlotNow::Quarantined { .. } => None,
        };
        let (state, job, what) = match &slot.now {
            SlotNow::Free => (pill("free", "quiet"), None, String::new()),
            SlotNow::Looking {} => (pill("looking", "busy"), None, "what a job would see".to_owned()),
            SlotNow::Quarantined { reason } => (pill("quarantine", "failed"), None, reason.clone()),
            SlotNow::Busy { job } => {
                let what = row.map_or(String::new(), |row| row.repo.to_string());
                let word = row.map_or("busy", |row| row.state.as_str());
                (pill(word, "busy"), Some(job.to_string()), what)
            }
        };
        let since = row.and_then(|row| row.claimed_ms);
        SlotLine {
            index: slot.index,
            account: slot.account.clone(),
            state,
            job,
            what,
            event: row.map_or(String::new(), |row| row.event.clone()),
            time: words::between(since, since.map(|_| now_ms)),
        }
    };
    status.slots.iter().map(slot_line).collect()
}

/// Who waits, in the order they will be served, and why.
pub(super) fn queue(status: &StatusReport, by_id: &BTreeMap<&JobId, &JobRow>, now_ms: u64) -> Vec<QueueLine> {
    let line = |place: String, id: &JobId, why: &str| {
        let row = by_id.get(id);
        QueueLine {
            place,
            job: Some(id.to_string()),
            repo: row.map_or("–".to_owned(), |row| row.repo.to_string()),
            event: row.map_or("–".to_owned(), |row| row.event.clone()),
            waited: words::between(row.map(|row| row.queued_ms), Some(now_ms)),
            why: why.to_owned(),
        }
    };
    let mut lines = Vec::new();
    let why = why_native_waits(status);
    for (place, id) in (1..).zip(&status.queued) {
        lines.push(line(place.to_string(), id, &why));
    }
    for kind in status.vm.iter().flat_map(|vm| &vm.kinds) {
        let why = why_guests_wait(status, kind);
        for (place, id) in (1..).zip(&kind.queued) {
            lines.push(line(format!("{} {place}", kind.guest), id, &why));
        }
    }
    for held in status.github.iter().flat_map(|github| &github.held) {
        lines.push(QueueLine {
            place: "held".to_owned(),
            job: None,
            repo: held.ticket.repo.to_string(),
            event: format!("run {}, {}", held.ticket.run, held.ticket.name),
            waited: "–".to_owned(),
            why: held.why.clone(),
        });
    }
    lines
}

fn why_native_waits(status: &StatusReport) -> String {
    if status.draining {
        return "the daemon drains".to_owned();
    }
    if let Some(why) = &status.shut {
        return format!("no job is let through: {}", words::first_line(why));
    }
    if let Some(why) = &status.full {
        return format!("no job starts: {}", words::first_line(why));
    }
    let lost = |slot: &&SlotReport| matches!(slot.now, SlotNow::Quarantined { .. });
    let (all, lost) = (status.slots.len(), status.slots.iter().filter(lost).count());
    match (all - lost, lost) {
        (0, _) => "every slot is in quarantine".to_owned(),
        (usable, 0) => format!("all {usable} slots are taken"),
        (usable, lost) => format!("all {usable} slots are taken, {lost} more in quarantine"),
    }
}

fn why_guests_wait(status: &StatusReport, kind: &KindReport) -> String {
    match &kind.blocked {
        _ if status.draining => "the daemon drains".to_owned(),
        Some(why) => words::first_line(why).to_owned(),
        None => format!(
            "{} of {} {} guests run; the next starts when there is a permit and memory",
            kind.running.len(),
            kind.permits,
            kind.guest
        ),
    }
}
