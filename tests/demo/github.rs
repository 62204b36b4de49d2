//! The jobs of `scripts/quickstart.sh --github`: a GitHub made for tests with the flows that a repository has, for a daemon
//! that runs beside it.
//!
//! Called with the folder to work in, it writes there what the daemon's configuration needs besides (`github.toml`), says
//! `ready`, waits for a line, starts the flows, and prints how each ended. It ends with 0 when all ended as they should.

#![expect(clippy::unwrap_used, reason = "a demonstration that cannot go on has failed")]

use std::io::{Write, stdin, stdout};
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::{env, fs};

use camino::{Utf8Path, Utf8PathBuf};

#[expect(dead_code, reason = "only some of it is needed here")]
#[path = "../github/hub/mod.rs"]
mod hub;
#[path = "../github/release.rs"]
mod release;

use hub::Hub;
use hub::faults::{Fault, Gate};
use hub::scenario::Trigger;
use hub::state::{JobSpec, Phase};
use release::{publish, steps};

const LABELS: [&str; 2] = ["self-hosted", "eph-native"];

fn main() -> ExitCode {
    let place = Utf8PathBuf::from(env::args().nth(1).expect("a folder to work in"));
    let hub = Hub::start();
    configure(&hub, &place);
    println!("ready");
    stdout().flush().unwrap();
    stdin().read_line(&mut String::new()).unwrap();
    let mut all_right = true;
    let mut tell = |what: &str, wanted: &str, got: &str| {
        let verdict = if got == wanted { "ok" } else { "WRONG" };
        all_right &= got == wanted;
        println!("{what:<58} {got:<10} {verdict}");
    };

    let pushed = push(&hub, "acme/app", &["id -un | grep ephemerd", "touch done"]);
    tell(
        "push to a trusted repository",
        "success",
        &conclusion(&hub, pushed),
    );

    let unlabelled = hub.jobs_of(hub.pull_request("acme/labelled", "feature", &LABELS, &["bug"]))[0];
    let fork = hub.jobs_of(hub.fork_pull_request("acme/app", "eve/app", &LABELS))[0];
    let target = hub.jobs_of(hub.pull_request_target("acme/app", "eve/app", &LABELS))[0];
    for (what, job) in [
        ("pull request without the label that is asked for", unlabelled),
        ("pull request from a fork", fork),
        ("pull_request_target", target),
    ] {
        // It waits for somebody else: the daemon looks at it every second, and this is three looks.
        for _ in 0..3 {
            looked(&hub);
        }
        let got = if hub.job(job).handed_out == 0 {
            "refused"
        } else {
            "ran"
        };
        tell(what, "refused", got);
        hub.cancel(hub.job(job).run);
    }

    let labelled = hub.jobs_of(hub.pull_request("acme/labelled", "feature", &LABELS, &["ci-native"]))[0];
    tell(
        "pull request with that label",
        "success",
        &conclusion(&hub, labelled),
    );

    // A runner is on its way for a push that is cancelled; a fork's job takes it.
    let gate = Gate::default();
    hub.inject("POST /_broker/session", 1, Fault::Hold(gate.clone()));
    let bait = push(&hub, "acme/app", &["true"]);
    hub.wait("a runner that connects", |state| state.held().then_some(()));
    hub.cancel(hub.job(bait).run);
    let run = hub.launch(
        Trigger::fork_pull_request("acme/app", "eve/app"),
        vec![steps("steal", &LABELS, &["touch first", "always:touch always"])],
    );
    let stolen = hub.jobs_of(run)[0];
    gate.open();
    tell(
        "a fork's job that is given a native runner: stopped",
        "failure",
        &conclusion(&hub, stolen),
    );

    let matrix = hub.matrix("acme/app", 8, &LABELS);
    let results: Vec<String> = hub
        .jobs_of(matrix)
        .iter()
        .map(|job| conclusion(&hub, *job))
        .collect();
    let once = hub
        .jobs_of(matrix)
        .iter()
        .all(|job| hub.job(*job).handed_out == 1);
    let all = results.iter().all(|result| result == "success") && once;
    tell(
        "matrix of eight jobs, each once",
        "success",
        if all { "success" } else { "failure" },
    );

    let long = push(&hub, "acme/app", &["sleep 1000"]);
    hub.wait("the job that runs", |state| {
        state
            .job(long)
            .filter(|job| job.phase == Phase::InProgress)
            .map(drop)
    });
    hub.cancel(hub.job(long).run);
    tell("cancelled at GitHub", "cancelled", &conclusion(&hub, long));

    let failed = push(&hub, "acme/app", &["test -e ../../nothing"]);
    tell("a job that fails", "failure", &conclusion(&hub, failed));
    let again = hub.rerun(failed, "alice");
    tell("the same, run again", "failure", &conclusion(&hub, again));

    for _ in 0..20 {
        if !hub.runners().is_empty() {
            looked(&hub);
        }
    }
    let left = hub.runners().len();
    tell("runners that are left at GitHub", "0", &left.to_string());
    ExitCode::from(u8::from(!all_right))
}

/// Writes what the daemon needs to serve `hub`.
fn configure(hub: &Hub, place: &Utf8Path) {
    let token = place.join("token");
    fs::write(&token, hub.any_token()).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let sha256 = publish(&place.join("releases"));
    for repo in ["acme/app", "acme/labelled"] {
        hub.repository(repo, true);
    }
    let text = format!(
        "\n[trust.repos.\"acme/labelled\"]\nroute = \"native\"\nrequire_label = \"ci-native\"\n\n[github]\napi = {:?}\nrepos = [\"acme/app\", \"acme/labelled\"]\nlabels = [\"self-hosted\", \"eph-native\"]\n\
         token_file = {token:?}\npoll = \"1s\"\nidle_poll = \"1s\"\nrunner_version = \"2.336.0\"\n\
         runner_sha256 = \"{sha256}\"\nrunner_releases = \"file://{place}/releases\"\n",
        hub.url()
    );
    fs::write(place.join("github.toml"), text).unwrap();
}

fn push(hub: &Hub, repo: &str, run: &[&str]) -> u64 {
    let spec: JobSpec = steps("build", &LABELS, run);
    let run = hub.launch(Trigger::push(repo), vec![spec]);
    hub.jobs_of(run)[0]
}

/// Waits until the daemon has asked once more what waits.
fn looked(hub: &Hub) {
    let asked = |requests: &[hub::state::Logged]| {
        requests
            .iter()
            .filter(|request| request.path.ends_with("/actions/runs"))
            .count()
    };
    let before = asked(&hub.requests());
    hub.wait("another look", |state| {
        (asked(state.requests()) >= before + 4).then_some(())
    });
}

fn conclusion(hub: &Hub, job: u64) -> String {
    hub.wait(&format!("the end of job {job}"), |state| {
        let job = state.job(job)?;
        (job.phase == Phase::Completed).then(|| job.conclusion.clone().unwrap_or_default())
    })
}
