//! Launch: a plain spawn of `/bin/true`, the same behind bubblewrap, and the same behind the whole sandbox as
//! the daemon launches it (pipes, warden, readiness, exit), interleaved in one run.
//!
//! Needs root and the accounts of `ephemerd host setup`; `scripts/bench.sh launch` sees to both.

#[path = "figures.rs"]
mod figures;

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use camino::Utf8Path;
use ephemerd::daemon::start::survey;
use ephemerd::host::Host;
use ephemerd::job::plan::{Planner, Platform};
use ephemerd::job::{JobId, JobSpec, Origin, Repo};
use ephemerd::sandbox::launch::{LaunchPlan, Status};
use ephemerd::slot::Slot;
use ephemerd::warden::client::Warden;
use ephemerd::warden::{Reply, Request};
use figures::{BWRAP, timed};

const ROUNDS: usize = 400;

fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let data_dir = Utf8Path::from_path(dir.path()).expect("UTF-8").join("data");
    // bubblewrap's profile has no network namespace, so ours has none here either.
    let text = format!("[host]\ndata_dir = \"{data_dir}\"\n[egress]\nmode = \"open\"\n");
    let config = ephemerd::config::parse(&text, "bench.toml")
        .expect("a configuration")
        .config;
    let account = survey(&Host::system(), &config)
        .1
        .expect("accounts: run `ephemerd host setup`")
        .remove(0);
    ephemerd::workspace::prepare_data_dir(&data_dir, (0, 0)).expect("a data folder");

    let config_file = Utf8Path::new("/etc/ephemerd/ephemerd.toml");
    let planner = Planner::new(config, config_file, Platform::Linux).expect("a planner");
    let slot = Slot {
        index: 1,
        account: account.clone(),
        first_port: 21000,
        last_port: 21099,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");

    let warden = {
        let _inside = runtime.enter();
        Warden::start(Utf8Path::new(env!("CARGO_BIN_EXE_ephemerd")), &data_dir).expect("a warden")
    };

    let (mut plain, mut bwrap, mut ours, mut planning) = (
        Samples::default(),
        Samples::default(),
        Samples::default(),
        Samples::default(),
    );
    let job = id(0);
    let prepared = runtime.block_on(warden.ask(
        Request::Prepare {
            job: job.clone(),
            account: Some(account),
            homebrew: None,
            runner: None,
        },
        &[],
    ));
    prepared.expect("a workspace");
    let bwrap_true = [&BWRAP[..], &["/bin/true"]].concat();
    for round in 0..ROUNDS {
        plain.add(timed(&["/bin/true"]));
        bwrap.add(timed(&bwrap_true));
        let begin = Instant::now();
        let mut plan = planner
            .plan((&job, &spec()), None, &slot, true)
            .expect("a plan")
            .launch;
        planning.add(begin.elapsed());
        // Every launch is a job of its own in the same workspace.
        plan.job = id(u32::try_from(round).expect("few rounds") + 1);
        ours.add(runtime.block_on(launch(&warden, plan)));
    }
    let ratio = |percent| ours.percentile_ms(percent) / bwrap.percentile_ms(percent);
    for (name, samples) in [
        ("plain", &plain),
        ("bwrap", &bwrap),
        ("ours", &ours),
        ("plan", &planning),
    ] {
        println!(
            "{name:6} p50 {:6.2} ms  p95 {:6.2} ms",
            samples.percentile_ms(50),
            samples.percentile_ms(95)
        );
    }
    println!(
        "RESULT launch n={} plain_p50_ms={:.2} plain_p95_ms={:.2} bwrap_p50_ms={:.2} bwrap_p95_ms={:.2} \
         ours_p50_ms={:.2} ours_p95_ms={:.2} plan_p50_ms={:.2} ratio_p50={:.2} ratio_p95={:.2}",
        ours.count(),
        plain.percentile_ms(50),
        plain.percentile_ms(95),
        bwrap.percentile_ms(50),
        bwrap.percentile_ms(95),
        ours.percentile_ms(50),
        ours.percentile_ms(95),
        planning.percentile_ms(50),
        ratio(50),
        ratio(95),
    );
}

/// Times of one thing, in the order they were taken.
#[derive(Default)]
struct Samples(Vec<Duration>);

impl Samples {
    /// Takes one more.
    fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that `percent` of the samples do not exceed, in milliseconds.
    fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted
            .get((sorted.len() * percent / 100).min(sorted.len() - 1))
            .map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
    }

    /// How many there are.
    fn count(&self) -> usize {
        self.0.len()
    }
}

fn id(number: u32) -> JobId {
    JobId::new(SystemTime::UNIX_EPOCH, number)
}

fn spec() -> JobSpec {
    let repo: Repo = "bench/launch".parse().expect("a repository");
    let origin = Origin {
        repo: repo.clone(),
        event: "push".into(),
        head: Some(repo),
        branch: None,
        labels: vec![],
        actor: None,
    };
    JobSpec {
        origin,
        command: vec!["/bin/true".into()],
        env: Default::default(),
        timeout_s: None,
    }
}

/// One launch, from making the pipes to having read how the command ended.
async fn launch(warden: &Warden, plan: LaunchPlan) -> Duration {
    let begin = Instant::now();
    let (_output, stdout) = std::io::pipe().expect("a pipe");
    let (said, status) = std::io::pipe().expect("a pipe");
    let stdin = std::fs::File::open("/dev/null").expect("/dev/null");
    let descriptors = [stdin.as_fd(), stdout.as_fd(), stdout.as_fd(), status.as_fd()];
    let launched = warden
        .ask(Request::Launch(Box::new(plan)), &descriptors)
        .await
        .expect("a launch");
    assert!(matches!(launched, Reply::Launched { .. }), "{launched:?}");
    drop(status);
    let last = BufReader::new(said)
        .lines()
        .last()
        .expect("a status")
        .expect("a readable status");
    let took = begin.elapsed();
    assert_eq!(
        serde_json::from_str::<Status>(&last).expect("a status"),
        Status::Exited { code: 0 }
    );
    took
}
