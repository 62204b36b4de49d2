//! Jobs of GitHub on a Mac made of stand-ins, with a GitHub made for tests.

#[expect(dead_code, reason = "only some of it is needed here")]
#[path = "../github/hub/mod.rs"]
pub(crate) mod hub;
#[expect(dead_code, reason = "only some of it is needed here")]
#[path = "../github/release.rs"]
mod release;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use hub::Hub;
use hub::faults::{Fault, Gate};
use hub::scenario::Trigger;
use hub::state::Phase;
use nix::sys::signal::{Signal, kill};

use crate::job::{pid, until};
use crate::stand::Mac;

/// The labels of the Mac's runners.
const LABELS: [&str; 2] = ["self-hosted", "eph-native"];

/// A Mac that serves a GitHub.
struct Served {
    mac: Mac,
    hub: Hub,
    daemon: Option<Child>,
}

impl Served {
    fn start() -> Self {
        let (mac, hub) = (Mac::with_accounts(), Hub::start());
        let top = &mac.top;
        let sha256 = release::publish_for("osx-arm64", &top.join("releases"), |_| {});
        let token = top.join("token");
        fs::write(&token, hub.any_token()).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        let config = fs::read_to_string(top.join("ephemerd.toml"))
            .unwrap()
            .replace("mode = \"offline\"", "mode = \"open\"")
            .replace("[\"ipc\"]", "[\"ipc\", \"network\"]");
        let more = format!(
            "[trust.repos]\n\"acme/*\" = \"native\"\n[github]\napi = {api:?}\nrepos = [\"acme/app\"]\n\
             labels = [\"self-hosted\", \"eph-native\"]\ntoken_file = {token:?}\npoll = \"1s\"\nidle_poll = \"1s\"\n\
             runner_version = \"2.336.0\"\nrunner_sha256 = \"{sha256}\"\nrunner_releases = \"file://{top}/releases\"\n",
            api = hub.url(),
        );
        fs::write(top.join("ephemerd.toml"), config + &more).unwrap();
        let mut served = Self {
            mac,
            hub,
            daemon: None,
        };
        served.run();
        served
    }

    /// Starts the daemon, and waits until it answers.
    fn run(&mut self) {
        let top = &self.mac.top;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(top.join("daemon.log"))
            .unwrap();
        let daemon = Command::new(top.join("bin/ephemerd"))
            .args(["--config", top.join("ephemerd.toml").as_str(), "run"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
        until("the daemon answers", || {
            self.mac.ephemerd(&["status"]).status.success()
        });
    }

    /// Kills the daemon as a power cut would.
    fn cut(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        kill(pid(&daemon), Signal::SIGKILL).unwrap();
        daemon.wait().unwrap();
    }

    fn push(&self, run: &[&str]) -> u64 {
        let steps = release::steps("build", &LABELS, run);
        let run = self.hub.launch(Trigger::push("acme/app"), vec![steps]);
        self.hub.jobs_of(run)[0]
    }

    fn conclusion(&self, job: u64) -> String {
        self.hub.wait(&format!("the end of job {job}"), |state| {
            let job = state.job(job)?;
            (job.phase == Phase::Completed).then(|| job.conclusion.clone().unwrap_or_default())
        })
    }

    /// Waits until GitHub has no runner of ours, and nothing is left on the Mac.
    fn settled(&self) {
        until("GitHub without a runner", || self.hub.runners().is_empty());
        until("a clean Mac", || {
            let places = self.mac.host.runner_places.read_dir_utf8();
            let is_empty = places.map_or(true, |mut places| places.next().is_none());
            is_empty && self.mac.remains().is_empty()
        });
    }

    /// What the daemon says of its jobs.
    fn jobs(&self) -> String {
        String::from_utf8(self.mac.ephemerd(&["jobs", "--all"]).stdout).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = kill(pid(&daemon), Signal::SIGTERM);
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.mac.top.join("daemon.log")).unwrap_or_default();
            eprintln!("--- daemon\n{log}");
        }
    }
}

#[test]
fn a_trusted_push_runs_on_a_mac_and_leaves_nothing_but_its_logs() {
    let served = Served::start();
    let places = &served.mac.host.runner_places;
    let own = served.mac.runner_place();
    // Of a job of another slot, open to every account.
    fs::create_dir_all(places.join("other-2")).unwrap();
    fs::write(places.join("other-2/.credentials"), "secret").unwrap();
    let shared = served.mac.top.join("shared");
    let job = served.push(&[
        &format!("test \"$(id -u)\" = {}", served.mac.uid),
        &format!("ls {places} > {shared}/listed"),
        &format!("! cat {places}/other-2/.credentials"),
        &format!("test -e {own}/bin/Runner.Listener"),
        &format!("! cat {}/data/runners/*/bin/Runner.Listener", served.mac.top),
    ]);
    assert_eq!(served.conclusion(job), "success");
    fs::remove_dir_all(places.join("other-2")).unwrap();
    let listed = fs::read_to_string(shared.join("listed")).unwrap();
    assert_eq!(listed, format!("{}\nother-2\n", own.file_name().unwrap()));
    fs::remove_file(shared.join("listed")).unwrap();
    served.settled();
    let logs = served.mac.top.join("data/logs").read_dir_utf8().unwrap();
    let kept = logs.filter(|entry| entry.as_ref().unwrap().file_name().ends_with("-diag"));
    assert_eq!(kept.count(), 1);
    assert_eq!(served.hub.job(job).handed_out, 1);
}

#[test]
fn a_forks_job_that_steals_a_runner_of_a_mac_is_stopped_before_its_first_step() {
    let served = Served::start();
    let gate = Gate::default();
    served
        .hub
        .inject("POST /_broker/session", 1, Fault::Hold(gate.clone()));
    let trusted = served.push(&["true"]);
    served
        .hub
        .wait("a runner that connects", |state| state.held().then_some(()));
    served.hub.cancel(served.hub.job(trusted).run);
    let mark = served.mac.top.join("shared/stolen");
    let steal = format!("touch {mark}");
    let always = format!("always:touch {mark}");
    let run = served.hub.launch(
        Trigger::fork_pull_request("acme/app", "eve/app"),
        vec![release::steps("steal", &LABELS, &[&steal, &always])],
    );
    gate.open();
    let stolen = served.hub.jobs_of(run)[0];
    assert_eq!(served.conclusion(stolen), "failure");
    assert_eq!(served.hub.job(stolen).handed_out, 1, "it did have the runner");
    assert!(!mark.exists());
    served.settled();
    until("the reason", || served.jobs().contains("eve/app"));
}

#[test]
fn a_mac_whose_daemon_is_killed_has_neither_a_runner_nor_its_place_after_the_next_start() {
    let mut served = Served::start();
    let mark = served.mac.top.join("shared/begun");
    let job = served.push(&[&format!("touch {mark}; sleep 1000")]);
    until("the job runs", || mark.exists());
    fs::remove_file(&mark).unwrap();
    served.cut();
    assert!(served.mac.runner_place().join("bin").exists());
    // A step may leave the runner's process group, which the guard kills; what is left goes with the next start.
    let runner = served.hub.job(job).runner.unwrap().0;
    served.run();
    served.hub.lose(runner);
    served.settled();
    assert_eq!(served.hub.job(job).handed_out, 1);
}
