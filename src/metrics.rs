//! Figures for Prometheus: what is counted as jobs come and end, and what is so at the moment.
//!
//! Counts begin at nothing with the daemon, which Prometheus expects; what was before is in the ledger. No label names a
//! repository, a branch or an actor: whoever opens a pull request could make a new time series with every one.
//! docs/metrics.md lists every metric, and a test compares.

mod result;

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::control::{SlotNow, StatusReport};
use crate::daemon::github::GitHubReport;
use crate::daemon::vm::report::VmReport;
use crate::job::ledger::JobRow;
use crate::sandbox::axes::Standing;
use crate::trust::Route;

pub use result::JobResult;

/// What the answer is, for its `Content-Type`.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Bounds of buckets in seconds, for what takes as long as a job.
const LONG_S: [f64; 16] = [
    0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0,
];

/// The same for what is ours to be quick with: milliseconds natively, and up to minutes where a guest boots.
const SHORT_S: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 120.0, 300.0,
];

/// Where jobs go; the word is the label `mode`, or `route` of decisions.
const ROUTES: [Route; 3] = [Route::Native, Route::Vm, Route::Refuse];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModeAndResult {
    mode: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMode {
    mode: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRoute {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfGuest {
    guest: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    guest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAxis {
    axis: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPath {
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVersion {
    version: String,
}

type Times = Family<OfMode, Histogram, fn() -> Histogram>;

/// What has been counted since the start.
#[derive(Debug)]
pub struct Tally {
    decisions: Family<OfRoute, Counter>,
    jobs: Family<ModeAndResult, Counter>,
    scrub_failures: Counter,
    waited: Histogram,
    startup: Times,
    ran: Times,
    scrubbed: Times,
}

impl Default for Tally {
    /// Nothing, with every label there is: a series that begins with its first job would hide that one from `rate()`.
    fn default() -> Self {
        let times = |new: fn() -> Histogram| Times::new_with_constructor(new);
        let tally = Self {
            decisions: Family::default(),
            jobs: Family::default(),
            scrub_failures: Counter::default(),
            waited: Histogram::new(LONG_S),
            startup: times(|| Histogram::new(SHORT_S)),
            ran: times(|| Histogram::new(LONG_S)),
            scrubbed: times(|| Histogram::new(SHORT_S)),
        };
        for route in ROUTES {
            let route = route.as_str();
            drop(tally.decisions.get_or_create(&OfRoute { route }));
        }
        for route in [Route::Native, Route::Vm] {
            let mode = route.as_str();
            for result in JobResult::ALL {
                let result = result.as_str();
                drop(tally.jobs.get_or_create(&ModeAndResult { mode, result }));
            }
            for times in [&tally.startup, &tally.ran, &tally.scrubbed] {
                drop(times.get_or_create(&OfMode { mode }));
            }
        }
        tally
    }
}

impl Tally {
    /// Counts where a job was sent.
    pub fn decided(&self, route: Route) {
        let route = route.as_str();
        self.decisions.get_or_create(&OfRoute { route }).inc();
    }

    /// Counts a job that has ended.
    pub fn ended(&self, job: &JobRow) {
        let mode = job.route.as_str();
        if let Some(outcome) = &job.outcome {
            let result = JobResult::of(outcome).as_str();
            self.jobs.get_or_create(&ModeAndResult { mode, result }).inc();
        }
        if job.clean == Some(false) {
            self.scrub_failures.inc();
        }
        if let Some(s) = seconds(Some(job.queued_ms), job.claimed_ms) {
            self.waited.observe(s);
        }
        let spans = [
            (&self.startup, job.claimed_ms, job.started_ms),
            (&self.ran, job.started_ms, job.exited_ms),
            (&self.scrubbed, job.exited_ms, job.finished_ms),
        ];
        for (times, from, to) in spans {
            if let Some(s) = seconds(from, to) {
                times.get_or_create(&OfMode { mode }).observe(s);
            }
        }
    }
}

/// Seconds between two moments in milliseconds, where there are both.
fn seconds(from: Option<u64>, to: Option<u64>) -> Option<f64> {
    let ms = to?.saturating_sub(from?);
    Some(std::time::Duration::from_millis(ms).as_secs_f64())
}

/// What is so at the moment, besides what has been counted.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// How the daemon is.
    pub status: &'a StatusReport,
    /// Since when the oldest job waits that does, in milliseconds.
    pub oldest_wait_ms: Option<u64>,
    /// What is free where the daemon's state lives, in bytes, where that is known.
    pub disk_free_byte: Option<u64>,
}

/// Everything as text in the format that Prometheus reads, version 0.0.4.
///
/// # Errors
/// None that depends on what there is to tell; the library's encoder may fail.
pub fn render(tally: &Tally, now: &Now<'_>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("ephemerd");
    register_counts(&mut registry, tally);
    register_host(&mut registry, now);
    register_places(&mut registry, now);
    if let Some(github) = &now.status.github {
        register_github(&mut registry, github);
    }
    if let Some(vm) = &now.status.vm {
        register_guests(&mut registry, vm);
    }
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

fn register_counts(registry: &mut Registry, tally: &Tally) {
    let Tally {
        decisions,
        jobs,
        scrub_failures,
        waited,
        startup,
        ran,
        scrubbed,
    } = tally;
    let mut add = |name: &str, help: &str, family: &Times| registry.register(name, help, family.clone());
    add(
        "startup_seconds",
        "From a slot or permit until the command started",
        startup,
    );
    add("run_seconds", "From the command's start until it ended", ran);
    add(
        "scrub_seconds",
        "From a command's end until nothing of it was left",
        scrubbed,
    );
    registry.register(
        "queue_wait_seconds",
        "From submission until a slot or permit",
        waited.clone(),
    );
    registry.register("jobs", "Jobs that have ended", jobs.clone());
    registry.register("decision", "Where trust has sent jobs", decisions.clone());
    registry.register(
        "scrub_failures",
        "Jobs of which something was left",
        scrub_failures.clone(),
    );
}

fn register_host(registry: &mut Registry, now: &Now<'_>) {
    let status = now.status;
    let build = Family::<OfVersion, Gauge>::default();
    let version = status.version.clone();
    build.get_or_create(&OfVersion { version }).set(1);
    registry.register("build_info", "The version of this daemon; always 1", build);
    gauge(
        registry,
        "draining",
        "Whether no more jobs are started until `resume`",
        u64::from(status.draining),
    );
    gauge(
        registry,
        "shut",
        "Whether no job is let through, because the host is not enabled or lacks something",
        u64::from(status.shut.is_some()),
    );
    gauge(
        registry,
        "full",
        "Whether no job starts, because less disk or memory is free than this host keeps",
        u64::from(status.full.is_some()),
    );
    gauge(
        registry,
        "dispatcher_killed",
        "Dispatchers that were killed before the one that answers, since the daemon was started",
        u64::from(status.killed),
    );
    gauge(
        registry,
        "config_last_reload_successful",
        "Whether the configuration could be read when it was read last",
        u64::from(status.config.failed.is_none()),
    );
    let read: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
    read.set(seconds(Some(0), Some(status.config.read_ms)).unwrap_or_default());
    registry.register(
        "config_last_reload_success_timestamp_seconds",
        "When the configuration that is in force was read, since 1970",
        read,
    );
    gauge(
        registry,
        "config_restart_needed",
        "Keys of the configuration whose new values wait for a restart",
        u64::try_from(status.config.restart_needed.len()).unwrap_or(u64::MAX),
    );
    let axes = Family::<OfAxis, Gauge>::default();
    for report in &status.axes {
        let axis = report.axis.to_string();
        let enforced = report.standing == Standing::Enforced;
        axes.get_or_create(&OfAxis { axis }).set(i64::from(enforced));
    }
    registry.register("axis_enforced", "Whether the host enforces an axis", axes);
    let free = Family::<OfPath, Gauge>::default();
    if let Some(byte) = now.disk_free_byte {
        let path = status.data_dir.clone();
        free.get_or_create(&OfPath { path }).set(whole(byte));
    }
    registry.register(
        "disk_free_bytes",
        "What is free where the daemon's state and workspaces are",
        free,
    );
}

fn register_places(registry: &mut Registry, now: &Now<'_>) {
    let status = now.status;
    let slots = Family::<OfState, Gauge>::default();
    for state in ["free", "busy", "looking", "quarantined"] {
        let here = status.slots.iter().filter(|slot| word(&slot.now) == state);
        slots.get_or_create(&OfState { state }).set(count(here.count()));
    }
    registry.register("slots", "Slots by what goes on in them", slots);
    let (active, queued) = (
        Family::<OfMode, Gauge>::default(),
        Family::<OfMode, Gauge>::default(),
    );
    let kinds = status.vm.iter().flat_map(|vm| &vm.kinds);
    let (in_guests, for_guests) = kinds.fold((0, 0), |(running, waiting), kind| {
        (running + kind.running.len(), waiting + kind.queued.len())
    });
    let busy = status.slots.iter().filter(|slot| word(&slot.now) == "busy");
    for (route, runs, waits) in [
        (Route::Native, busy.count(), status.queued.len()),
        (Route::Vm, in_guests, for_guests),
    ] {
        let of = OfMode { mode: route.as_str() };
        active.get_or_create(&of).set(count(runs));
        queued.get_or_create(&of).set(count(waits));
    }
    registry.register("jobs_active", "Jobs that have a slot or a guest", active);
    registry.register("jobs_queued", "Jobs that wait for a slot or a guest", queued);
    let oldest: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
    oldest.set(seconds(Some(0), now.oldest_wait_ms).unwrap_or_default());
    registry.register(
        "queue_oldest_seconds",
        "How long the job has waited that waits longest; 0 when none does",
        oldest,
    );
}

fn register_github(registry: &mut Registry, github: &GitHubReport) {
    let mut add = |name: &str, help: &str, value: u64| {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    add(
        "policy_mismatch_kills",
        "Jobs that a runner was given, may not run here, and were stopped before their first step",
        github.stopped,
    );
    add("github_requests", "Requests to GitHub", github.requests);
    add(
        "github_unchanged",
        "Requests to GitHub that nothing had changed for, which cost nothing",
        github.unchanged,
    );
    let failing = u64::try_from(github.failing.len()).unwrap_or(u64::MAX);
    gauge(
        registry,
        "github_failing",
        "Repositories and scale sets that do not answer",
        failing,
    );
    if let Some(left) = github.remaining {
        gauge(
            registry,
            "github_rate_remaining",
            "Requests that are left in this hour",
            left,
        );
    }
}

fn register_guests(registry: &mut Registry, vm: &VmReport) {
    let (guests, permits) = (
        Family::<OfGuest, Gauge>::default(),
        Family::<OfKind, Gauge>::default(),
    );
    for kind in &vm.kinds {
        let of = |state| OfGuest {
            guest: kind.guest.to_string(),
            state,
        };
        let of_state = [
            ("running", kind.running.len()),
            ("queued", kind.queued.len()),
            ("lost", kind.lost.len()),
        ];
        for (state, number) in of_state {
            guests.get_or_create(&of(state)).set(count(number));
        }
        let guest = kind.guest.to_string();
        permits
            .get_or_create(&OfKind { guest })
            .set(i64::from(kind.permits));
    }
    registry.register(
        "vm_guests",
        "Guests that run, jobs that wait for one, and guests that could not be removed",
        guests,
    );
    registry.register("vm_permits", "Guests that may run at once", permits);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(whole(value));
    registry.register(name, help, gauge);
}

fn word(now: &SlotNow) -> &'static str {
    match now {
        SlotNow::Free => "free",
        SlotNow::Busy { .. } => "busy",
        SlotNow::Looking {} => "looking",
        SlotNow::Quarantined { .. } => "quarantined",
    }
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
