//! Profiles of macOS: planning one job's, deciding on it, and comparing two, beside the same for Linux.
//!
//! Needs neither root nor a Mac: everything here is computed. `scripts/bench.sh profile` runs it.

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use camino::Utf8Path;
use ephemerd::job::JobId;
use ephemerd::job::plan::{MacHost, Planner, Platform};
use ephemerd::profile::decide::Operation;
use ephemerd::profile::diff::diff;
use ephemerd::profile::sbpl::vocabulary::OperationId;
use ephemerd::profile::sbpl::{Release, Ruleset, Semantics, Target};
use ephemerd::profile::{Posture, Rules, decide};

const ROUNDS: usize = 200;

/// Decisions timed at once; the clock is read between batches only.
const BATCH: usize = 20_000;

/// What jobs do most, and what they must not.
const QUESTIONS: [(&str, &str); 12] = [
    ("file-read-data", "/usr/lib/libSystem.B.dylib"),
    (
        "file-read-metadata",
        "/Applications/Xcode.app/Contents/Developer/usr/bin/clang",
    ),
    (
        "file-read-data",
        "/var/lib/ephemerd/native/00000000000/work/src/main.c",
    ),
    (
        "file-write-create",
        "/var/lib/ephemerd/native/00000000000/work/build/main.o",
    ),
    ("file-read-data", "/var/lib/ephemerd/native/sibling/home/.netrc"),
    ("file-read-data", "/Users/somebody/.ssh/id_ed25519"),
    ("process-exec*", "/usr/bin/git"),
    ("file-map-executable", "/usr/lib/dyld"),
    ("mach-lookup", "com.apple.trustd"),
    ("sysctl-read", "hw.ncpu"),
    ("network-outbound", "tcp:127.0.0.1:8080"),
    ("signal", "others"),
];

fn main() {
    let mac = planner(
        Platform::MacOs(MacHost::example(Release::NEWEST, 4, "_ephemerd")),
        "",
    );
    let linux = planner(Platform::Linux, "");
    let granted = "[native]\nextra_read = [\"/opt/toolchain\"]\n";
    let wider = planner(
        Platform::MacOs(MacHost::example(Release::NEWEST, 4, "_ephemerd")),
        granted,
    );
    let (ours, other) = (ruleset(&mac), ruleset(&wider));
    let semantics = Semantics::of(Release::NEWEST);

    let (mut mac_ms, mut linux_ms, mut diff_ms) = (Vec::new(), Vec::new(), Vec::new());
    let (mut mac_ns, mut linux_ns) = (Vec::new(), Vec::new());
    let questions: Vec<_> = QUESTIONS.iter().map(|question| asked(&ours, *question)).collect();
    let policy = match plan(&linux) {
        Rules::Linux(policy) => policy,
        Rules::MacOs(_) => unreachable!("planned for Linux"),
    };
    for _ in 0..ROUNDS {
        mac_ms.push(timed(|| drop(black_box(plan(&mac)))));
        linux_ms.push(timed(|| drop(black_box(plan(&linux)))));
        diff_ms.push(timed(|| drop(black_box(diff(&ours, &other, &semantics)))));
        mac_ns.push(timed(|| {
            for (operation, target) in questions.iter().cycle().take(BATCH) {
                black_box(ours.verdict(*operation, black_box(target), &semantics));
            }
        }));
        linux_ns.push(timed(|| {
            for (_, target) in QUESTIONS.iter().cycle().take(BATCH) {
                black_box(decide::decide(&policy, &Operation::FileRead, black_box(target)));
            }
        }));
    }
    let plan_p50 = percentile(&mut mac_ms, 50);
    let linux_p50 = percentile(&mut linux_ms, 50);
    let (per_decision, per_linux) = (each_ns(&mut mac_ns), each_ns(&mut linux_ns));
    println!(
        "RESULT profile n={ROUNDS} rules={} plan_p50_ms={plan_p50:.2} plan_p95_ms={:.2} linux_plan_p50_ms={linux_p50:.2} \
         plan_ratio={:.1} decision_ns={per_decision:.0} decisions_per_s={:.0} linux_decision_ns={per_linux:.0} diff_p50_ms={:.1}",
        ours.rules.len(),
        percentile(&mut mac_ms, 95),
        plan_p50 / linux_p50,
        1e9 / per_decision,
        percentile(&mut diff_ms, 50),
    );
}

fn planner(platform: Platform, config: &str) -> Planner {
    let config = ephemerd::config::parse(config, "bench.toml")
        .expect("a configuration")
        .config;
    Planner::new(config, Utf8Path::new("/etc/ephemerd/ephemerd.toml"), platform).expect("a planner")
}

/// Renders the strict profile, reads it back and evaluates every expectation, as before each job.
fn plan(planner: &Planner) -> Rules {
    let job = JobId::new(SystemTime::UNIX_EPOCH, 0);
    let profile = planner
        .profile(&job, 1, Posture::Strict, None)
        .expect("a profile");
    assert!(profile.findings.iter().all(|finding| finding.is_met()));
    profile.rules
}

fn ruleset(planner: &Planner) -> Ruleset {
    match plan(planner) {
        Rules::MacOs(ruleset) => *ruleset,
        Rules::Linux(_) => unreachable!("planned for macOS"),
    }
}

fn asked(ruleset: &Ruleset, (operation, target): (&str, &str)) -> (OperationId, Target) {
    let id = ruleset.vocabulary.asked(operation).expect("an operation");
    (
        id,
        Target::parse(ruleset.vocabulary, id, target).expect("a target"),
    )
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// The percentile of `samples`, in milliseconds.
fn percentile(samples: &mut [Duration], percent: usize) -> f64 {
    samples.sort();
    samples[(samples.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

/// Nanoseconds of one decision at the median of batches.
fn each_ns(batches: &mut [Duration]) -> f64 {
    percentile(batches, 50) * 1e6 / BATCH as f64
}
