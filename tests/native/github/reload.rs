//! Another configuration for a daemon whose jobs come from GitHub.

use std::fs;

use ephemerd::job::Outcome;
use ephemerd::job::ledger::JobRow;

use super::forge::{Forge, push, steps};
use super::hub::scenario::Trigger;
use super::scale_sets;
use crate::harness::{out, said, wait_for};

/// Writes the configuration anew with one part of its text in place of another, and has it read.
#[track_caller]
fn reload_with(forge: &Forge, from: &str, to: &str) -> String {
    let config = &forge.daemon().site().config;
    let text = fs::read_to_string(config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(config, text.replace(from, to)).unwrap();
    let output = forge.daemon().cli(&["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    out(&output)
}

/// A job that waits while the trust in its repository is taken away, and is refused for that.
#[track_caller]
fn refused_while_it_waits(forge: &Forge) -> u64 {
    let job = push(&forge.hub, &["true"]);
    wait_for("the job that is held", || {
        let held = forge.daemon().status().github?.held;
        held.iter().any(|held| held.ticket.job == job).then_some(())
    });
    reload_with(forge, "\"acme/*\" = \"native\"\n", "");
    let reason = forge.refusal(job);
    assert!(
        reason.contains("no entry of trust.repos names acme/app"),
        "{reason}"
    );
    job
}

#[test]
fn an_idle_runner_of_a_repository_that_is_served_no_more_goes_and_a_busy_one_ends_its_job() {
    let forge = Forge::start(
        // One that is held while it connects hears no signal.
        "repos = [\"acme/app\", \"acme/busy\"]\nstop_grace = \"1s\"\n",
        "",
    );
    for repo in ["acme/app", "acme/busy", "acme/new"] {
        forge.hub.repository(repo, true);
    }
    let launch = |repo: &str, run: &[&str]| {
        let run = forge.hub.launch(Trigger::push(repo), vec![steps("build", run)]);
        forge.hub.jobs_of(run)[0]
    };
    let busy = launch("acme/busy", &["while [ ! -e ~/go ]; do sleep 0.05; done"]);
    let row = wait_for("the job that runs", || {
        let taken = |row: &JobRow| row.github.as_ref().is_some_and(|at| at.taken.is_some());
        forge.made_for(busy).into_iter().find(taken)
    });
    // Its runner is there and has no job, for five minutes.
    let (idle, _gate) = forge.held_runner();
    forge.hub.cancel(forge.hub.job(idle).run);
    let told = reload_with(
        &forge,
        "repos = [\"acme/app\", \"acme/busy\"]",
        "repos = [\"acme/new\"]",
    );
    assert!(told.contains("github.repos"), "{told}");
    let outcome = wait_for("the end of the idle runner", || {
        forge.made_for(idle)[0].outcome.clone()
    });
    assert_eq!(outcome, Outcome::Idle);
    // From the next turn.
    let new = launch("acme/new", &["true"]);
    assert_eq!(forge.conclusion(new), "success");
    assert_eq!(forge.made_for(busy)[0].outcome, None);
    let native = forge.daemon().site().data_dir.join("native");
    fs::write(native.join(row.id.as_str()).join("home/go"), "").unwrap();
    assert_eq!(forge.conclusion(busy), "success");
    // Nobody asks for its jobs any more.
    let asked = |repo: &str| {
        let path = format!("/repos/{repo}/actions/runs");
        let requests = forge.hub.requests();
        requests
            .iter()
            .filter(|request| request.path.starts_with(&path))
            .count()
    };
    let before = (asked("acme/app"), asked("acme/new"));
    wait_for("two more turns", || {
        (asked("acme/new") >= before.1 + 4).then_some(())
    });
    assert_eq!(asked("acme/app"), before.0);
    forge.settled();
}

#[test]
fn a_job_that_waits_and_is_trusted_no_more_is_refused_with_the_reason() {
    let forge = Forge::start("", "");
    let drained = forge.daemon().cli(&["drain"]);
    assert!(drained.status.success(), "{}", said(&drained));
    let job = refused_while_it_waits(&forge);
    let resumed = forge.daemon().cli(&["resume"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
    forge.settled();
    assert_eq!(forge.hub.job(job).handed_out, 0);
}

#[test]
fn a_job_that_a_runner_was_given_after_its_trust_was_taken_is_stopped_before_its_first_step() {
    let forge = Forge::start("", "");
    let (job, gate) = forge.held_runner();
    reload_with(&forge, "\"acme/*\" = \"native\"\n", "");
    gate.open();
    // Its one step would have succeeded.
    assert_eq!(forge.conclusion(job), "failure");
    forge.settled();
    let status = forge.daemon().status().github.unwrap();
    assert_eq!(status.stopped, 1);
}

#[test]
fn a_runner_without_a_job_gives_way_to_one_that_is_fenced_in_as_it_is_said_now() {
    let forge = Forge::start("stop_grace = \"1s\"\n", "");
    let (job, _gate) = forge.held_runner();
    let told = reload_with(
        &forge,
        "allow_degraded = [\"network\"]\n",
        "allow_degraded = [\"network\"]\nenv = { WHICH = \"new\" }\n",
    );
    assert!(told.contains("native.env.WHICH"), "{told}");
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let made = forge.made_for(job);
    let outcomes: Vec<_> = made.iter().map(|row| row.outcome.clone().unwrap()).collect();
    assert!(
        matches!(outcomes[..], [Outcome::Idle, Outcome::Ran { .. }]),
        "{outcomes:?}"
    );
}

#[test]
fn a_job_on_offer_to_a_scale_set_that_is_trusted_no_more_is_not_acquired() {
    let forge = scale_sets::start();
    let own = scale_sets::occupy(&forge);
    let job = refused_while_it_waits(&forge);
    for own in own {
        assert_eq!(forge.daemon().story(&own).job.outcome, None);
        forge.daemon().cli(&["cancel", own.as_str()]);
    }
    forge.settled();
    let job = forge.hub.job(job);
    assert_eq!((job.acquired_by, job.handed_out), (None, 0));
}
