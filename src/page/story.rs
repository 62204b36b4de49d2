//! What the page of one job says, in words.

use serde::Serialize;

use super::chart::{self, Stretch};
use super::view::{self, AxisLine, Fact, Pill};
use super::words;
use crate::control::Story;
use crate::github::ticket::{AtGitHub, Ticket};
use crate::job::ledger::JobRow;
use crate::sandbox::axes::AxisReport;

#[derive(Debug, Serialize)]
pub(super) struct StoryView {
    job: String,
    repo: String,
    now: String,
    result: Pill,
    outcome: Option<String>,
    facts: Vec<Fact>,
    link: Option<String>,
    phases: Vec<Phase>,
    steps: Vec<Step>,
    axes: Vec<AxisLine>,
    blocked: Vec<Blocked>,
    incidents: Vec<String>,
}

/// A part of a job's life.
#[derive(Debug, Serialize)]
struct Phase {
    name: &'static str,
    at: Stretch,
    time: String,
}

#[derive(Debug, Serialize)]
struct Step {
    at: String,
    after: String,
    state: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Blocked {
    to: String,
    packets: u64,
}

pub(super) fn view(story: &Story, now_ms: u64) -> StoryView {
    let Story {
        job,
        transitions,
        left,
    } = story;
    let steps = transitions.iter().map(|step| Step {
        at: words::moment(step.at_ms),
        after: words::between(Some(job.queued_ms), Some(step.at_ms)),
        state: step.state.clone(),
        reason: step.reason.clone().unwrap_or_default(),
    });
    let axes = job
        .axes
        .clone()
        .and_then(|axes| serde_json::from_value::<Vec<AxisReport>>(axes).ok());
    let blocked = job.egress.iter().flat_map(|egress| &egress.blocked.destinations);
    let blocked = blocked.map(|to| {
        let address = std::net::SocketAddr::new(to.address, to.port);
        Blocked {
            to: format!("{address}/{}", to.transport),
            packets: to.packets,
        }
    });
    let mut facts = facts(job);
    facts.extend(left.iter().map(|left| fact("left", left.clone())));
    StoryView {
        job: job.id.to_string(),
        repo: job.repo.to_string(),
        now: words::moment(now_ms),
        result: view::standing(job),
        outcome: job.outcome.as_ref().map(ToString::to_string),
        facts,
        link: job.github.as_ref().and_then(page_of),
        phases: phases(job, now_ms),
        steps: steps.collect(),
        axes: view::axes(&axes.unwrap_or_default()),
        blocked: blocked.collect(),
        incidents: job
            .egress
            .iter()
            .flat_map(|egress| egress.incidents.clone())
            .collect(),
    }
}

fn fact(label: &str, text: String) -> Fact {
    Fact {
        label: label.to_owned(),
        text,
    }
}

fn facts(job: &JobRow) -> Vec<Fact> {
    let mut facts = vec![
        fact("repository", job.repo.to_string()),
        fact("event", job.event.clone()),
        fact("route", format!("{}: {}", job.route.as_str(), job.reason)),
        fact("place", view::place(job)),
        fact("account", job.account.clone().unwrap_or_else(|| "–".to_owned())),
    ];
    if let Some(isolation) = job.isolation {
        facts.push(fact("fence", isolation.as_str().to_owned()));
    }
    if let Some(at) = &job.github {
        facts.extend(at_github(at));
    }
    facts.push(fact(
        "memory",
        job.memory_peak_byte.map_or("not measured".to_owned(), |byte| {
            format!("{} at most", words::size(byte))
        }),
    ));
    facts.push(fact(
        "output",
        job.output_byte.map_or("–".to_owned(), words::size),
    ));
    if let Some(egress) = &job.egress {
        facts.push(fact("blocked", format!("{} packets", egress.blocked.packets)));
    }
    facts
}

fn at_github(at: &AtGitHub) -> Vec<Fact> {
    let words = |ticket: &Ticket| {
        let pull = ticket
            .pull
            .map_or(String::new(), |number| format!(", pull request {number}"));
        format!(
            "run {}, attempt {}{pull}, {}",
            ticket.run, ticket.attempt, ticket.name
        )
    };
    let mut facts = vec![fact("GitHub", words(&at.ticket))];
    if let Some(runner) = &at.runner {
        facts.push(fact("runner", format!("{} at {}", runner.name, runner.scope)));
    }
    if let Some(taken) = at.taken.as_ref().filter(|taken| taken.key() != at.ticket.key()) {
        facts.push(fact("was given", words(taken)));
    }
    facts
}

/// The job's page at GitHub. Only where a browser would go there and do nothing else.
fn page_of(at: &AtGitHub) -> Option<String> {
    let url = &at.taken.as_ref().unwrap_or(&at.ticket).url;
    url.starts_with("https://").then(|| url.clone())
}

/// What a job's time went into.
fn phases(job: &JobRow, now_ms: u64) -> Vec<Phase> {
    let end = job.finished_ms.unwrap_or(now_ms);
    let all = [
        ("queue", Some(job.queued_ms), job.claimed_ms.or(Some(end))),
        (
            "prepare",
            job.claimed_ms,
            job.started_ms.or(job.exited_ms).or(Some(end)),
        ),
        ("run", job.started_ms, job.exited_ms.or(Some(end))),
        ("scrub", job.exited_ms, Some(end)),
    ];
    let phase = |(name, from, to): (&'static str, Option<u64>, Option<u64>)| {
        let (from, to) = (from?, to?);
        Some(Phase {
            name,
            at: chart::stretch((job.queued_ms, end), (from, to))?,
            time: words::between(Some(from), Some(to)),
        })
    };
    all.into_iter().filter_map(phase).collect()
}
