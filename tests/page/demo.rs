//! A busy day, the same every time.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use ephemerd::control::{SlotNow, SlotReport, StatusReport, Story};
use ephemerd::daemon::github::{GitHubReport, HeldReport};
use ephemerd::daemon::reload::ConfigReport;
use ephemerd::daemon::vm::report::{KindReport, VmReport};
use ephemerd::egress::{Blocked, BlockedDestination, EgressReport};
use ephemerd::github::ticket::{AtGitHub, Ticket};
use ephemerd::job::ledger::{JobRow, Transition};
use ephemerd::job::{JobId, Outcome};
use ephemerd::page::{Disk, Snapshot};
use ephemerd::sandbox::Axis;
use ephemerd::sandbox::axes::{AxisReport, Standing};
use ephemerd::trust::Route;
use ephemerd::vm::{Guest, Isolation};

/// 2026-11-26 17:20:00 UTC.
pub(crate) const NOW_MS: u64 = 1_795_713_600_000;

const HOUR_MS: u64 = 3_600_000;

/// Repository, event, and how many seconds its jobs take at least and at most.
const KINDS: [(&str, &str, u64, u64); 5] = [
    ("acme/ios", "push", 300, 1400),
    ("acme/web", "push", 70, 260),
    ("acme/api", "pull_request", 100, 420),
    ("acme/design-system", "push", 20, 90),
    ("acme/weather", "schedule", 5, 40),
];

/// How many jobs come in each hour of the day, UTC.
const RHYTHM: [u64; 24] = [
    3, 2, 3, 2, 2, 3, 7, 14, 24, 28, 26, 20, 15, 25, 29, 27, 22, 16, 11, 8, 6, 4, 4, 3,
];

/// Chance that comes out the same every time (Knuth's MMIX generator).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn id(ms: u64, chance: u64) -> JobId {
    JobId::new(
        UNIX_EPOCH + Duration::from_millis(ms),
        u32::try_from(chance).unwrap(),
    )
}

/// A job that has just come.
pub(crate) fn job(ms: u64, repo: &str, event: &str) -> JobRow {
    JobRow {
        id: id(ms, ms * 7919 % 46_656),
        repo: repo.parse().unwrap(),
        event: event.to_owned(),
        route: Route::Native,
        reason: "trust.repos.\"acme/*\" sends it to native".to_owned(),
        command: vec!["run".to_owned()],
        state: "queued".to_owned(),
        slot: None,
        account: None,
        outcome: None,
        clean: None,
        axes: None,
        memory_peak_byte: None,
        output_byte: None,
        queued_ms: ms,
        claimed_ms: None,
        started_ms: None,
        exited_ms: None,
        finished_ms: None,
        egress: None,
        isolation: None,
        backend: None,
        github: None,
    }
}

fn outcome(chance: &mut Chance) -> Outcome {
    match chance.below(100) {
        0..9 => Outcome::Exited { code: 1 },
        9..11 => Outcome::TimedOut { limit_s: 1800 },
        11 => Outcome::OverLimit {
            what: "memory 8.2 GiB of 8 GiB".to_owned(),
        },
        12..15 => Outcome::Cancelled,
        15 => Outcome::Failed {
            reason: "the egress filter is not in force: nft: Device or resource busy".to_owned(),
        },
        _ => Outcome::Exited { code: 0 },
    }
}

/// Takes a job through a slot that is free from `free_ms` on; when it is free again.
fn live(job: &mut JobRow, slot: u32, free_ms: u64, run_ms: u64, chance: &mut Chance) -> u64 {
    let claimed = free_ms.max(job.queued_ms + 1 + chance.below(4));
    let started = claimed + 4 + chance.below(20);
    let exited = started + run_ms;
    let finished = exited + 5 + chance.below(60);
    job.slot = Some(slot);
    job.account = Some(format!("_ephemerd{slot}"));
    job.isolation = Some(Isolation::Sandbox);
    job.claimed_ms = Some(claimed);
    job.started_ms = Some(started);
    job.state = "running".to_owned();
    if finished <= NOW_MS {
        job.exited_ms = Some(exited);
        job.finished_ms = Some(finished);
        job.state = "done".to_owned();
        job.outcome = Some(outcome(chance));
        job.clean = Some(true);
        job.memory_peak_byte = Some((200 + chance.below(3000)) << 20);
        job.output_byte = Some(4000 + chance.below(900_000));
    }
    finished
}

fn axes() -> Vec<AxisReport> {
    let why = |axis| match axis {
        Axis::Accounts => "an account per slot, no capabilities, no_new_privs",
        Axis::Filesystem => "a root of its own, Landlock ABI 7",
        Axis::Processes => "a pid namespace, no ptrace, Landlock's signal scope",
        Axis::Ipc => "an ipc namespace, Landlock's scope of abstract sockets",
        Axis::Network => "nftables, verified before every job and while jobs run",
        Axis::Limits => "rlimits; memory and disk are measured",
        Axis::Credentials => "a minimal environment; the daemon's files are hidden",
    };
    let report = |axis| AxisReport {
        axis,
        standing: Standing::Enforced,
        why: why(axis).to_owned(),
        hint: None,
    };
    Axis::ALL.map(report).to_vec()
}

fn ticket(repo: &str, run: u64, name: &str) -> Ticket {
    Ticket {
        repo: repo.parse().unwrap(),
        run,
        attempt: 1,
        job: run * 3,
        name: name.to_owned(),
        pull: None,
        url: format!("https://github.com/{repo}/actions/runs/{run}"),
    }
}

/// A host with four slots and a guest, on a busy afternoon.
pub(crate) fn busy_day() -> Snapshot {
    let mut chance = Chance(11);
    let mut jobs = Vec::new();
    let first = (NOW_MS - 24 * HOUR_MS) / HOUR_MS * HOUR_MS;
    let mut arrivals = Vec::new();
    for hour in 0..25 {
        let start = first + hour * HOUR_MS;
        let of_day = usize::try_from(start / HOUR_MS % 24).unwrap();
        for _ in 0..RHYTHM[of_day] {
            arrivals.push(start + chance.below(HOUR_MS));
        }
    }
    arrivals.retain(|ms| *ms < NOW_MS - 60_000);
    // The rush that the queue at this moment comes of.
    arrivals.extend([9 * 60, 8 * 60, 7 * 60, 300, 200, 95, 62, 41, 12].map(|s| NOW_MS - s * 1000));
    arrivals.sort_unstable();
    let mut free: BTreeMap<u32, u64> = (1..=4).map(|slot| (slot, 0)).collect();
    for ms in arrivals {
        let rush = ms > NOW_MS - 10 * 60_000;
        let (repo, event, least, most) =
            KINDS[usize::try_from(chance.below(if rush { 2 } else { 5 })).unwrap()];
        let mut one = job(ms, repo, event);
        if chance.below(23) == 0 && !rush {
            one.event = "pull_request".to_owned();
            one.route = Route::Refuse;
            one.state = "done".to_owned();
            let reason = format!(
                "{repo} allows native, but the code comes from stranger/fork, and a fork's code is never native"
            );
            one.reason.clone_from(&reason);
            one.outcome = Some(Outcome::Refused { reason });
            one.finished_ms = Some(ms);
            one.clean = Some(true);
        } else {
            let (slot, since) = free
                .iter()
                .map(|(slot, since)| (*slot, *since))
                .min_by_key(|(slot, since)| (*since.max(&ms), *slot))
                .unwrap();
            let run_ms = (least + chance.below(most - least)) * 1000 + chance.below(1000);
            if since.max(ms) < NOW_MS {
                free.insert(slot, live(&mut one, slot, since, run_ms, &mut chance));
            }
        }
        jobs.push(one);
    }
    jobs.extend(in_guests());
    jobs.retain(|job| job.finished_ms.is_none_or(|ms| ms >= NOW_MS - 24 * HOUR_MS));
    jobs.sort_by(|one, other| other.id.cmp(&one.id));
    let status = status(&jobs);
    Snapshot {
        now_ms: NOW_MS,
        host: "mini-7".to_owned(),
        status,
        jobs,
        disk: Some(Disk {
            free_byte: 212 << 30,
            total_byte: 460 << 30,
        }),
    }
}

/// Jobs of forks, which get guests.
fn in_guests() -> Vec<JobRow> {
    let one = |hours: u64, minutes: u64, is_over: bool| {
        let came = NOW_MS - hours * HOUR_MS - 7 * 60_000 - 13_400;
        let mut job = job(came, "acme/web", "pull_request");
        job.route = Route::Vm;
        "trust.repos.\"acme/web\" sends pull requests of forks to a guest".clone_into(&mut job.reason);
        job.backend = Some("tart".to_owned());
        job.isolation = Some(Isolation::Vm);
        job.claimed_ms = Some(came + 900);
        job.started_ms = Some(came + 24_000);
        job.state = "running".to_owned();
        if is_over {
            let exited = came + 24_000 + minutes * 60_000;
            job.exited_ms = Some(exited);
            job.finished_ms = Some(exited + 3_100);
            job.outcome = Some(Outcome::Exited { code: 0 });
            job.clean = Some(true);
            job.state = "done".to_owned();
        }
        job
    };
    vec![
        one(0, 9, false),
        one(2, 11, true),
        one(3, 8, true),
        one(7, 14, true),
        one(8, 6, true),
    ]
}

fn status(jobs: &[JobRow]) -> StatusReport {
    let running = |slot| {
        jobs.iter()
            .find(|job| job.slot == Some(slot) && job.outcome.is_none())
    };
    let slot = |index| SlotReport {
        index,
        account: format!("_ephemerd{index}"),
        now: running(index).map_or(SlotNow::Free, |job| SlotNow::Busy { job: job.id.clone() }),
    };
    let oldest_first = jobs.iter().rev();
    let waiting = oldest_first.filter(|job| job.claimed_ms.is_none() && job.outcome.is_none());
    let guests = jobs
        .iter()
        .filter(|job| job.backend.is_some() && job.outcome.is_none());
    StatusReport {
        version: "0.1.0".to_owned(),
        pid: 4711,
        data_dir: "/var/lib/ephemerd".to_owned(),
        draining: false,
        queued: waiting.map(|job| job.id.clone()).collect(),
        slots: (1..=4).map(slot).collect(),
        axes: axes(),
        full: None,
        shut: None,
        github: Some(GitHubReport {
            asked_ms: Some(NOW_MS - 4000),
            held: vec![HeldReport {
                ticket: ticket("acme/api", 9_714_553, "integration (postgres 17)"),
                why: "its runner was not made: GitHub answers 503; tried again in 20 s".to_owned(),
            }],
            failing: BTreeMap::new(),
            runner_version: Some("2.336.0".to_owned()),
            runner_notice: None,
            stopped: 0,
            requests: 21_840,
            unchanged: 20_117,
            remaining: Some(4_712),
            clock_ahead_s: None,
        }),
        vm: Some(VmReport {
            kinds: vec![KindReport {
                guest: Guest::MacOs,
                permits: 2,
                running: guests.map(|job| job.id.clone()).collect(),
                queued: vec![],
                blocked: None,
                lost: vec![],
            }],
        }),
        listen: Some("127.0.0.1:9123".to_owned()),
        fence: None,
        killed: 0,
        config: ConfigReport {
            read_ms: NOW_MS - 26 * 60 * 60_000,
            failed: None,
            restart_needed: vec![],
        },
    }
}

/// The story of a job of GitHub's that failed, with a look at the network behind it.
pub(crate) fn story() -> Story {
    let came = NOW_MS - 40 * 60_000;
    let mut row = job(came, "acme/api", "pull_request");
    live(&mut row, 3, came, 141_300, &mut Chance(3));
    row.outcome = Some(Outcome::Exited { code: 1 });
    row.axes = serde_json::to_value(axes()).ok();
    let to = |address: &str, port, packets| BlockedDestination {
        address: address.parse().unwrap(),
        transport: ephemerd::egress::Transport::Tcp,
        port,
        packets,
    };
    row.egress = Some(EgressReport {
        blocked: Blocked {
            packets: 9,
            destinations: vec![to("10.0.0.12", 5432, 6), to("169.254.169.254", 80, 3)],
        },
        incidents: vec![],
    });
    row.github = Some(AtGitHub {
        ticket: Ticket {
            pull: Some(218),
            ..ticket("acme/api", 9_714_102, "test (stable)")
        },
        runner: None,
        runner_id: None,
        taken: None,
    });
    let step = |ms: Option<u64>, state: &str, reason: Option<&str>| Transition {
        at_ms: ms.unwrap(),
        state: state.to_owned(),
        reason: reason.map(str::to_owned),
    };
    let transitions = vec![
        step(Some(row.queued_ms), "queued", Some(&row.reason)),
        step(row.claimed_ms, "preparing", None),
        step(row.claimed_ms.map(|ms| ms + 3), "launching", None),
        step(row.started_ms, "running", None),
        step(row.exited_ms, "scrubbing", None),
        step(row.finished_ms, "done", Some("exit 1")),
    ];
    Story {
        job: row,
        transitions,
        left: None,
    }
}
