//! A daemon whose jobs come from a GitHub made for tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ephemerd::control::{Answer, Ask};
use ephemerd::job::Outcome;
use ephemerd::job::ledger::JobRow;

use super::hub::Hub;
use super::hub::faults::{Fault, Gate};
use super::hub::scenario::Trigger;
use super::hub::state::{JobSpec, Phase, State};
use super::release::publish;
use crate::harness::{Daemon, Family, Site, wait_for};

/// The labels of the daemon's runners.
pub(crate) const LABELS: [&str; 2] = ["self-hosted", "eph-native"];

/// Waits between questions that tests can wait for.
const QUICK: &str = "poll = \"1s\"\nidle_poll = \"1s\"\n";

/// GitHub, and a daemon that serves it.
#[derive(Debug)]
pub(crate) struct Forge {
    pub(crate) daemon: Option<Daemon>,
    pub(crate) hub: Hub,
}

impl Forge {
    /// Both, with `github` in `[github]` and `more` after it.
    pub(crate) fn start(github: &str, more: &str) -> Self {
        let hub = Hub::start();
        let site = prepare(&hub, Family::take(), github, more);
        Self {
            daemon: Some(Daemon::start_at(site)),
            hub,
        }
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// Every job of the daemon's, newest first.
    pub(crate) fn jobs(&self) -> Vec<JobRow> {
        match self.daemon().site().ask(&Ask::Jobs { all: true }).unwrap() {
            Answer::Jobs { jobs } => jobs,
            other => panic!("{other:?}"),
        }
    }

    /// The daemon's jobs that were made for a job of GitHub's, oldest first.
    pub(crate) fn made_for(&self, job: u64) -> Vec<JobRow> {
        let mut jobs = self.jobs();
        jobs.retain(|row| row.github.as_ref().is_some_and(|at| at.ticket.job == job));
        jobs.reverse();
        jobs
    }

    /// A push whose runner is there and gets no further until the gate is opened, so that another job can be given to it.
    #[track_caller]
    pub(crate) fn held_runner(&self) -> (u64, Gate) {
        let gate = Gate::default();
        let hold = Fault::Hold(gate.clone());
        self.hub.inject("POST /_broker/session", 1, hold);
        let job = push(&self.hub, &["true"]);
        let is_held = |state: &State| state.held().then_some(());
        self.hub.wait("a runner that connects", is_held);
        (job, gate)
    }

    /// Waits until a job has ended at GitHub; how.
    #[track_caller]
    pub(crate) fn conclusion(&self, job: u64) -> String {
        self.hub.wait(&format!("the end of job {job}"), |state| {
            let job = state.job(job)?;
            (job.phase == Phase::Completed).then(|| job.conclusion.clone().unwrap_or_default())
        })
    }

    /// Waits until each of these jobs has ended well, given to one runner, and nothing else was run.
    #[track_caller]
    pub(crate) fn each_ran_once(&self, jobs: &[u64]) {
        for job in jobs {
            assert_eq!(self.conclusion(*job), "success");
            assert_eq!(self.hub.job(*job).handed_out, 1);
        }
        self.settled();
        let ran = |row: &JobRow| matches!(row.outcome, Some(Outcome::Ran { .. }));
        assert_eq!(self.jobs().into_iter().filter(ran).count(), jobs.len());
    }

    /// Waits until the daemon has written down that a job may not run here; why.
    #[track_caller]
    pub(crate) fn refusal(&self, job: u64) -> String {
        wait_for(&format!("the refusal of job {job}"), || {
            self.made_for(job).into_iter().find_map(|row| match row.outcome {
                Some(Outcome::Refused { reason }) => Some(reason),
                _ => None,
            })
        })
    }

    /// Waits until the host is at rest and GitHub has no runner of ours.
    #[track_caller]
    pub(crate) fn settled(&self) {
        wait_for("GitHub without a runner", || {
            self.hub.runners().is_empty().then_some(())
        });
        wait_for("the end of every job", || {
            self.jobs().iter().all(|job| job.outcome.is_some()).then_some(())
        });
        self.daemon().site().assert_clean();
    }
}

/// The place of a daemon that serves `hub`, with a runner's tree to fetch.
pub(crate) fn prepare(hub: &Hub, family: Family, github: &str, more: &str) -> Site {
    let site = Site::of(family, "");
    let sha256 = publish(&site.top.join("releases"));
    let token = site.top.join("token");
    fs::write(&token, hub.any_token() + "\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let repos = if github.contains("repos =") || github.contains("org =") {
        ""
    } else {
        "repos = [\"acme/app\"]\n"
    };
    let identity = if github.contains("app_id") {
        String::new()
    } else {
        format!("token_file = {token:?}\n")
    };
    let quick = if github.contains("poll =") { "" } else { QUICK };
    site.configure(&format!(
        "{more}[native]\nallow_degraded = [\"network\"]\n[egress]\nmode = \"open\"\n[github]\napi = {api:?}\n\
         labels = [\"self-hosted\", \"eph-native\"]\n{repos}{identity}{quick}\
         runner_version = \"2.336.0\"\nrunner_sha256 = \"{sha256}\"\nrunner_releases = \"file://{top}/releases\"\n{github}",
        api = hub.url(),
        top = site.top,
    ));
    site
}

/// A job of these steps with our labels; those that begin with `always:` have `if: always()`.
pub(crate) fn steps(name: &str, run: &[&str]) -> JobSpec {
    super::release::steps(name, &LABELS, run)
}

/// A push to `acme/app` with one job of these steps; the job.
pub(crate) fn push(hub: &Hub, run: &[&str]) -> u64 {
    let run = hub.launch(Trigger::push("acme/app"), vec![steps("build", run)]);
    hub.jobs_of(run)[0]
}
