//! What the page of everything says, in words.

use std::collections::BTreeMap;

use serde::Serialize;

use super::chart::{self, Histogram, Stretch, Tick};
use super::places::{QueueLine, SlotLine, queue, slots, waiting};
use super::{NEWEST, SPAN_MS, Snapshot, words};
use crate::control::{SlotNow, StatusReport};
use crate::daemon::reload::FailedReload;
use crate::job::JobId;
use crate::job::ledger::JobRow;
use crate::metrics::JobResult;
use crate::sandbox::axes::{AxisReport, Standing};

/// How many of the last jobs are listed.
const LISTED: usize = 50;

#[derive(Debug, Serialize)]
pub(super) struct Overview {
    host: String,
    version: String,
    now: String,
    /// A word for how the daemon is, and its colour.
    state: Pill,
    why: Option<String>,
    tiles: Vec<Tile>,
    slots: Vec<SlotLine>,
    queue: Vec<QueueLine>,
    lanes: Vec<Lane>,
    ticks: Vec<Tick>,
    legend: Vec<Pill>,
    charts: [Histogram; 4],
    axes: Vec<AxisLine>,
    health: Vec<Fact>,
    jobs: Vec<JobLine>,
    cut: Option<String>,
}

/// A word with a colour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Pill {
    pub(super) word: String,
    pub(super) colour: &'static str,
}

#[derive(Debug, Serialize)]
struct Tile {
    label: &'static str,
    figure: String,
    note: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Fact {
    pub(super) label: String,
    pub(super) text: String,
}

#[derive(Debug, Serialize)]
struct Lane {
    name: String,
    bars: Vec<LaneBar>,
}

#[derive(Debug, Serialize)]
struct LaneBar {
    job: String,
    at: Stretch,
    colour: &'static str,
    title: String,
}

#[derive(Debug, Serialize)]
pub(super) struct AxisLine {
    axis: String,
    standing: Pill,
    why: String,
}

#[derive(Debug, Serialize)]
struct JobLine {
    job: String,
    repo: String,
    event: String,
    place: String,
    result: Pill,
    came: String,
    waited: String,
    prepared: String,
    ran: String,
    scrubbed: String,
    reason: String,
}

/// The colour of a result; what did not go its way without anybody's fault shares one.
fn colour(result: JobResult) -> &'static str {
    match result {
        JobResult::Ok => "ok",
        JobResult::Failed => "failed",
        JobResult::Killed | JobResult::TimedOut | JobResult::OverLimit => "stopped",
        JobResult::Cancelled | JobResult::Idle => "quiet",
        JobResult::Refused => "refused",
        JobResult::Error => "error",
    }
}

/// How a job stands.
pub(super) fn standing(job: &JobRow) -> Pill {
    match &job.outcome {
        Some(outcome) => {
            let result = JobResult::of(outcome);
            Pill {
                word: result.as_str().replace('_', " "),
                colour: colour(result),
            }
        }
        None => Pill {
            word: job.state.clone(),
            colour: if job.claimed_ms.is_some() { "busy" } else { "quiet" },
        },
    }
}

/// The axes, each with its reason.
pub(super) fn axes(reports: &[AxisReport]) -> Vec<AxisLine> {
    let line = |report: &AxisReport| {
        let (word, colour) = match report.standing {
            Standing::Enforced => ("enforced", "ok"),
            Standing::Degraded => ("degraded", "stopped"),
            Standing::Absent => ("absent", "failed"),
        };
        AxisLine {
            axis: report.axis.to_string(),
            standing: Pill {
                word: word.to_owned(),
                colour,
            },
            why: report.why.clone(),
        }
    };
    reports.iter().map(line).collect()
}

/// Where a job is or was.
pub(super) fn place(job: &JobRow) -> String {
    match (job.slot, &job.backend) {
        (Some(slot), _) => format!("slot {slot}"),
        (None, Some(backend)) => format!("guest ({backend})"),
        (None, None) => "–".to_owned(),
    }
}

pub(super) fn overview(snapshot: &Snapshot) -> Overview {
    let Snapshot {
        now_ms,
        host,
        status,
        jobs,
        disk: _,
    } = snapshot;
    let by_id: BTreeMap<&JobId, &JobRow> = jobs.iter().map(|job| (&job.id, job)).collect();
    let day = (now_ms.saturating_sub(SPAN_MS), *now_ms);
    let span = |of: fn(&JobRow) -> (Option<u64>, Option<u64>)| {
        let both = |job| match of(job) {
            (Some(from), Some(to)) => Some(to.saturating_sub(from)),
            _ => None,
        };
        jobs.iter().filter_map(both).collect::<Vec<u64>>()
    };
    let waits = span(|job| (Some(job.queued_ms), job.claimed_ms));
    let (state, why) = state(status);
    Overview {
        host: host.clone(),
        version: status.version.clone(),
        now: words::moment(*now_ms),
        state,
        why,
        tiles: tiles(snapshot, &by_id),
        slots: slots(status, &by_id, *now_ms),
        queue: queue(status, &by_id, *now_ms),
        lanes: lanes(status, jobs, day),
        ticks: chart::hours(day),
        legend: legend(jobs),
        charts: [
            chart::histogram("Waiting", waits),
            chart::histogram("Preparing", span(|job| (job.claimed_ms, job.started_ms))),
            chart::histogram("Running", span(|job| (job.started_ms, job.exited_ms))),
            chart::histogram("Scrubbing", span(|job| (job.exited_ms, job.finished_ms))),
        ],
        axes: axes(&status.axes),
        health: health(snapshot),
        jobs: jobs.iter().take(LISTED).map(line).collect(),
        cut: (jobs.len() >= usize::try_from(NEWEST).unwrap_or(usize::MAX))
            .then(|| format!("There were more: this page looks at the newest {NEWEST} jobs.")),
    }
}

fn state(status: &StatusReport) -> (Pill, Option<String>) {
    let pill = |word: &str, colour| Pill {
        word: word.to_owned(),
        colour,
    };
    match (status.shut.as_ref().or(status.full.as_ref()), status.draining) {
        (Some(why), _) => (pill("shut", "failed"), Some(why.clone())),
        (None, true) => (
            pill("draining", "stopped"),
            Some("No more jobs are started until `ephemerd resume`.".to_owned()),
        ),
        (None, false) => (pill("open", "ok"), None),
    }
}

fn tiles(snapshot: &Snapshot, by_id: &BTreeMap<&JobId, &JobRow>) -> Vec<Tile> {
    let Snapshot {
        now_ms,
        status,
        jobs,
        disk,
        ..
    } = snapshot;
    let count = |is: fn(&SlotNow) -> bool| status.slots.iter().filter(|slot| is(&slot.now)).count();
    let busy = count(|now| matches!(now, SlotNow::Busy { .. }));
    let lost = count(|now| matches!(now, SlotNow::Quarantined { .. }));
    let waiting = waiting(status);
    let oldest = waiting
        .iter()
        .filter_map(|id| Some(by_id.get(id)?.queued_ms))
        .min();
    let ended: Vec<JobResult> = jobs
        .iter()
        .filter_map(|job| job.outcome.as_ref().map(JobResult::of))
        .collect();
    let of = |wanted: JobResult| ended.iter().filter(|result| **result == wanted).count();
    let mut tiles = vec![
        Tile {
            label: "Slots busy",
            figure: format!("{busy} / {}", status.slots.len()),
            note: match lost {
                0 => "none in quarantine".to_owned(),
                lost => format!("{lost} in quarantine"),
            },
        },
        Tile {
            label: "Waiting",
            figure: waiting.len().to_string(),
            note: oldest.map_or("nobody".to_owned(), |since| {
                format!("longest {}", words::between(Some(since), Some(*now_ms)))
            }),
        },
        Tile {
            label: "Ended in 24 h",
            figure: ended.len().to_string(),
            note: format!("{} refused", of(JobResult::Refused)),
        },
        Tile {
            label: "Succeeded",
            figure: share(of(JobResult::Ok), ended.len() - of(JobResult::Refused)),
            note: "of those that were let run".to_owned(),
        },
    ];
    if let Some(disk) = disk {
        tiles.push(Tile {
            label: "Disk free",
            figure: words::size(disk.free_byte),
            note: format!("of {}", words::size(disk.total_byte)),
        });
    }
    tiles
}

fn share(part: usize, whole: usize) -> String {
    match whole {
        0 => "–".to_owned(),
        _ => format!("{} %", part * 100 / whole),
    }
}

/// One lane for each slot, and one for all guests where there are any.
fn lanes(status: &StatusReport, jobs: &[JobRow], day: (u64, u64)) -> Vec<Lane> {
    let bars = |is: &dyn Fn(&JobRow) -> bool| {
        let bar = |job: &JobRow| {
            let from = job.claimed_ms?;
            let standing = standing(job);
            let to = job.finished_ms.unwrap_or(day.1);
            let title = format!(
                "{} {} · {} · {} from {} UTC",
                job.repo,
                job.event,
                standing.word,
                words::between(Some(from), Some(to)),
                words::clock(from)
            );
            Some(LaneBar {
                job: job.id.to_string(),
                at: chart::stretch(day, (from, to))?,
                colour: standing.colour,
                title,
            })
        };
        jobs.iter()
            .rev()
            .filter(|job| is(job))
            .filter_map(bar)
            .collect::<Vec<_>>()
    };
    let of_slots = status.slots.iter().map(|slot| Lane {
        name: format!("slot {}", slot.index),
        bars: bars(&|job| job.slot == Some(slot.index)),
    });
    let mut lanes: Vec<Lane> = of_slots.collect();
    let in_guests = bars(&|job| job.slot.is_none() && job.backend.is_some());
    if !in_guests.is_empty() || status.vm.is_some() {
        lanes.push(Lane {
            name: "guests".to_owned(),
            bars: in_guests,
        });
    }
    lanes
}

/// What colours mean, with how many jobs have each.
fn legend(jobs: &[JobRow]) -> Vec<Pill> {
    let words = [
        ("succeeded", "ok"),
        ("failed", "failed"),
        ("killed, timed out or over a limit", "stopped"),
        ("cancelled, or a runner without a job", "quiet"),
        ("could not be run", "error"),
        ("runs now", "busy"),
    ];
    let had_place: Vec<&str> = jobs
        .iter()
        .filter(|job| job.claimed_ms.is_some())
        .map(|job| standing(job).colour)
        .collect();
    let entry = |(word, colour): (&str, &'static str)| {
        let number = had_place.iter().filter(|found| **found == colour).count();
        let word = format!("{word} ({number})");
        (number > 0).then_some(Pill { word, colour })
    };
    words.into_iter().filter_map(entry).collect()
}

/// How host and surroundings are, besides the axes.
fn health(snapshot: &Snapshot) -> Vec<Fact> {
    let status = &snapshot.status;
    let fact = |label: &str, text: String| Fact {
        label: label.to_owned(),
        text,
    };
    let mut facts = vec![fact(
        "daemon",
        format!("version {}, pid {}", status.version, status.pid),
    )];
    let config = &status.config;
    facts.push(fact(
        "configuration",
        format!("read {} UTC", words::moment(config.read_ms)),
    ));
    if let Some(FailedReload { at_ms, why }) = &config.failed {
        // What follows may hold what stands in the file, which not everybody may see who sees this.
        let what = why.lines().next().unwrap_or_default();
        let at = words::moment(*at_ms);
        let text = format!("at {at} UTC, and the old one stays: {what}; `ephemerd status` says where");
        facts.push(fact("not reloaded", text));
    }
    if !config.restart_needed.is_empty() {
        facts.push(fact("waits for a restart", config.restart_needed.join(", ")));
    }
    let disk = snapshot.disk.map_or("–".to_owned(), |disk| {
        format!(
            "{} of {} free",
            words::size(disk.free_byte),
            words::size(disk.total_byte)
        )
    });
    facts.push(fact("disk", format!("{}: {disk}", status.data_dir)));
    if let Some(github) = &status.github {
        let left = github
            .remaining
            .map_or(String::new(), |left| format!(", {left} left in this hour"));
        facts.push(fact(
            "GitHub",
            format!(
                "{} requests, {} unchanged{left}",
                github.requests, github.unchanged
            ),
        ));
        if let Some(version) = &github.runner_version {
            facts.push(fact("runner", format!("version {version}")));
        }
        facts.extend(
            github
                .runner_notice
                .iter()
                .map(|notice| fact("runner", notice.clone())),
        );
        if github.stopped > 0 {
            let text = format!("{} stopped before their first step", github.stopped);
            facts.push(fact("not admitted", text));
        }
        let failing = github.failing.iter();
        facts.extend(failing.map(|(repo, why)| fact("no answer", format!("{repo}: {why}"))));
        let ahead = github.clock_ahead_s.iter();
        facts.extend(ahead.map(|s| fact("clock", format!("{s} s ahead of GitHub's"))));
    }
    for kind in status.vm.iter().flat_map(|vm| &vm.kinds) {
        let label = format!("{} guests", kind.guest);
        let text = format!(
            "{} of {} run, {} wait",
            kind.running.len(),
            kind.permits,
            kind.queued.len()
        );
        facts.push(fact(&label, text));
        facts.extend(
            kind.lost
                .iter()
                .map(|what| fact(&label, format!("not removed: {what}"))),
        );
    }
    facts
}

fn line(job: &JobRow) -> JobLine {
    let reason = match &job.outcome {
        Some(crate::job::Outcome::Refused { reason } | crate::job::Outcome::Failed { reason }) => {
            reason.clone()
        }
        Some(outcome) if !outcome.is_success() => outcome.to_string(),
        _ => job.reason.clone(),
    };
    JobLine {
        job: job.id.to_string(),
        repo: job.repo.to_string(),
        event: job.event.clone(),
        place: place(job),
        result: standing(job),
        came: words::clock(job.queued_ms),
        waited: words::between(Some(job.queued_ms), job.claimed_ms),
        prepared: words::between(job.claimed_ms, job.started_ms),
        ran: words::between(job.started_ms, job.exited_ms),
        scrubbed: words::between(job.exited_ms, job.finished_ms),
        reason: words::first_line(&reason).to_owned(),
    }
}
