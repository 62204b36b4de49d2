//! What must hold whatever happens: each test names the invariant that it shows, as the architecture numbers them.

use std::fs;

use ephemerd::job::Outcome;
use ephemerd::job::ledger::JobRow;

use super::forge::{Forge, LABELS, prepare, push, steps};
use super::hub::Hub;
use super::hub::faults::Fault;
use super::hub::scenario::Trigger;
use crate::harness::{Daemon, Family, out, said, wait_for};

#[test]
fn i1_a_runner_that_has_another_job_is_left_alone_when_its_own_is_cancelled() {
    let forge = Forge::start("", "");
    let (first, gate) = forge.held_runner();
    // The job it was made for goes, and another takes its place.
    forge.hub.cancel(forge.hub.job(first).run);
    let second = push(&forge.hub, &["touch begun", "test -e begun"]);
    gate.open();
    assert_eq!(forge.conclusion(second), "success");
    forge.settled();
    let taken: Vec<_> = forge
        .jobs()
        .into_iter()
        .filter_map(|row| Some(row.github?.taken?.job))
        .collect();
    assert_eq!(taken, [second]);
    assert_eq!(forge.hub.job(second).handed_out, 1);
}

#[test]
fn i3_a_job_that_is_over_when_its_turn_comes_gets_no_runner() {
    let forge = Forge::start("", "");
    let slots = forge.daemon().site().family.slots;
    let busy: Vec<u64> = (0..slots)
        .map(|_| push(&forge.hub, &["while [ ! -e ~/go ]; do sleep 0.05; done"]))
        .collect();
    let homes: Vec<_> = busy
        .iter()
        .map(|job| {
            let row = wait_for("a job in every slot", || {
                let taken = |row: &JobRow| row.github.as_ref().is_some_and(|at| at.taken.is_some());
                forge.made_for(*job).into_iter().find(taken)
            });
            let native = forge.daemon().site().data_dir.join("native");
            native.join(row.id.as_str()).join("home")
        })
        .collect();
    let late = push(&forge.hub, &["true"]);
    wait_for("the one that waits for a slot", || forge.made_for(late).pop());
    forge.hub.cancel(forge.hub.job(late).run);
    let reason = forge.refusal(late);
    assert!(reason.contains("nobody wants it any more"), "{reason}");
    for home in homes {
        fs::write(home.join("go"), "").unwrap();
    }
    for job in &busy {
        assert_eq!(forge.conclusion(*job), "success");
    }
    forge.settled();
    let requests = forge.hub.requests();
    let made = requests
        .iter()
        .filter(|request| request.path.ends_with("generate-jitconfig"));
    assert_eq!(made.count(), busy.len());
}

#[test]
fn i4_i6_a_runner_that_ends_without_its_job_is_followed_by_another() {
    let forge = Forge::start("", "");
    forge.hub.inject("POST /_broker/session", 1, Fault::status(403));
    let job = push(&forge.hub, &["true"]);
    // After half a minute, by the real clock.
    wait_for("the last seconds of the wait", || {
        let status = out(&forge.daemon().cli(&["status"]));
        status.contains("tried again in 1").then_some(())
    });
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let made = forge.made_for(job);
    assert_eq!(made.len(), 2, "{made:?}");
    assert!(
        matches!(made[0].outcome, Some(Outcome::Failed { .. })),
        "{made:?}"
    );
}

#[test]
fn i8_a_daemon_that_is_told_to_stop_ends_its_runners_in_order_and_github_knows() {
    let mut forge = Forge::start("", "");
    let job = push(&forge.hub, &["touch begun; sleep 1000", "always: touch never"]);
    wait_for("the job that runs", || {
        let made = forge.made_for(job);
        made.first()?.github.clone()?.taken
    });
    let site = forge.daemon.take().unwrap().stop();
    assert_eq!(
        forge.conclusion(job),
        "failure",
        "it is not left to GitHub to find out"
    );
    assert!(forge.hub.runners().is_empty(), "{:?}", forge.hub.runners());
    site.assert_clean();
}

#[test]
fn i12_nothing_at_github_is_changed_but_our_own_runners() {
    let forge = Forge::start("", "");
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let requests = forge.hub.requests();
    let ours = requests
        .iter()
        .filter(|request| request.path.starts_with("/repos/"));
    let changes: Vec<_> = ours.filter(|request| request.method != "GET").collect();
    assert!(!changes.is_empty());
    for request in changes {
        let path = request
            .path
            .strip_prefix("/repos/acme/app/actions/runners/")
            .unwrap_or_default();
        let is_ours = match request.method.as_str() {
            "POST" => path == "generate-jitconfig",
            "DELETE" => path.parse::<u64>().is_ok(),
            _ => false,
        };
        assert!(is_ours, "{request:?}");
    }
}

#[test]
fn i11_jobs_that_were_there_before_the_daemon_are_found() {
    let hub = Hub::start();
    let job = push(&hub, &["true"]);
    let site = prepare(&hub, Family::take(), "", "");
    let forge = Forge {
        daemon: Some(Daemon::start_at(site)),
        hub,
    };
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
}

#[test]
fn jobs_that_others_need_are_found_when_they_are_queued_in_a_run_that_is_in_progress() {
    let forge = Forge::start("", "");
    let run = forge
        .hub
        .launch(Trigger::push("acme/app"), vec![steps("first", &["true"])]);
    let first = forge.hub.jobs_of(run)[0];
    let second = forge.hub.add_job(run, steps("second", &["true"]));
    for job in [first, second] {
        assert_eq!(forge.conclusion(job), "success");
    }
    forge.settled();
}

#[test]
fn i16_a_runner_whose_answer_was_lost_is_found_by_its_name_and_deleted() {
    let forge = Forge::start("", "");
    forge
        .hub
        .inject("POST /repos/*/generate-jitconfig", 1, Fault::LoseAnswer);
    let job = push(&forge.hub, &["true"]);
    wait_for("an attempt that failed", || {
        let made = forge.made_for(job);
        matches!(made.first()?.outcome, Some(Outcome::Failed { .. })).then_some(())
    });
    let ghost = |forge: &Forge| forge.hub.ghosts().len();
    wait_for("GitHub without the ghost", || (ghost(&forge) == 0).then_some(()));
    // It is tried again after half a minute; nobody waits for that here.
    forge.hub.cancel(forge.hub.job(job).run);
    forge.settled();
}

#[test]
fn i6_a_name_that_is_taken_is_rolled_again_at_once() {
    let forge = Forge::start("", "");
    let taken = serde_json::json!({
        "message": "Already exists - A runner with the name x already exists.",
        "documentation_url": "", "status": "409",
    });
    forge
        .hub
        .inject("POST /repos/*/generate-jitconfig", 1, Fault::Answer(409, taken));
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    assert_eq!(forge.made_for(job).len(), 1);
}

#[test]
fn i6_what_github_forbids_is_blocked_with_the_reason_and_not_asked_again() {
    let forge = Forge::start("", "");
    forge
        .hub
        .inject("POST /repos/*/generate-jitconfig", 99, Fault::status(403));
    let job = push(&forge.hub, &["true"]);
    let reason = forge.refusal(job);
    assert!(
        reason.starts_with("blocked: ") && reason.contains("Injected"),
        "{reason}"
    );
    let asked = forge
        .hub
        .requests()
        .iter()
        .filter(|request| request.path.ends_with("generate-jitconfig"))
        .count();
    assert_eq!(asked, 1);
    forge.hub.cancel(forge.hub.job(job).run);
    forge.settled();
}

#[test]
fn i7_a_drained_host_makes_no_runner_and_says_so() {
    let forge = Forge::start("", "");
    let drained = forge.daemon().cli(&["drain"]);
    assert!(drained.status.success(), "{}", said(&drained));
    let job = push(&forge.hub, &["true"]);
    wait_for("the reason", || {
        let status = out(&forge.daemon().cli(&["status"]));
        (status.contains("held: acme/app") && status.contains("drained")).then_some(())
    });
    assert_eq!(forge.made_for(job).len(), 0, "it burns no attempt");
    let resumed = forge.daemon().cli(&["resume"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
}

#[test]
fn i13_a_runner_that_gets_no_job_is_deleted_and_ends() {
    let forge = Forge::start("idle_timeout = \"1s\"\n", "");
    let (job, gate) = forge.held_runner();
    forge.hub.cancel(forge.hub.job(job).run);
    gate.open();
    wait_for("the end of the runner", || {
        let made = forge.made_for(job);
        made.first()?.outcome.clone()
    });
    forge.settled();
    assert_eq!(forge.made_for(job)[0].outcome, Some(Outcome::Idle));
}

#[test]
fn i17_one_repository_that_does_not_answer_keeps_no_other_waiting() {
    let forge = Forge::start("repos = [\"acme/app\", \"acme/broken\"]\n", "");
    forge.hub.repository("acme/broken", true);
    forge
        .hub
        .inject("GET /repos/acme/broken/*", 9999, Fault::Html(502));
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    let status = out(&forge.daemon().cli(&["status"]));
    assert!(status.contains("not answering: acme/broken"), "{status}");
    forge.hub.heal();
    forge.settled();
}

#[test]
fn i18_one_run_that_cannot_be_told_of_hides_no_other() {
    let forge = Forge::start("", "");
    let run = forge.hub.push("acme/app", &["of-others"]);
    forge.hub.inject(
        &format!("GET /repos/acme/app/actions/runs/{run}/jobs"),
        9999,
        Fault::status(500),
    );
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    let status = out(&forge.daemon().cli(&["status"]));
    assert!(status.contains("not answering: acme/app"), "{status}");
    forge.hub.heal();
    wait_for("a status without it", || {
        let status = out(&forge.daemon().cli(&["status"]));
        (!status.contains("not answering")).then_some(())
    });
    forge.settled();
}

#[test]
fn a_runner_of_an_organisation_runs_no_job_of_a_repository_that_is_not_served() {
    let forge = Forge::start("org = \"acme\"\nrepos = [\"acme/app\"]\n", "");
    let (served, gate) = forge.held_runner();
    forge.hub.cancel(forge.hub.job(served).run);
    // Trusted, of the same organisation, with the same labels.
    let run = forge.hub.launch(
        Trigger::push("acme/other"),
        vec![steps("build", &["touch begun"])],
    );
    let other = forge.hub.jobs_of(run)[0];
    gate.open();
    assert_eq!(forge.conclusion(other), "failure");
    forge.settled();
    let outcome = forge.made_for(served)[0].outcome.clone().unwrap().to_string();
    assert!(outcome.contains("does not serve it"), "{outcome}");
}

#[test]
fn i20_i3_a_daemon_that_is_killed_leaves_no_runner_and_its_job_can_run_again() {
    let mut forge = Forge::start("", "");
    let job = push(&forge.hub, &["touch begun; sleep 1000"]);
    wait_for("the job that runs", || {
        let made = forge.made_for(job);
        made.first()?.github.clone()?.taken
    });
    let site = forge.daemon.take().unwrap().kill();
    forge.daemon = Some(Daemon::start_at(site));
    // GitHub notices some time later that the runner is gone.
    let runner = forge.hub.job(job).runner.unwrap().0;
    forge.hub.lose(runner);
    forge.settled();
    assert_eq!(forge.hub.job(job).handed_out, 1);
    let again = forge.hub.rerun(job, "alice");
    forge.hub.wait("the job that runs again", |state| {
        state.job(again).filter(|job| job.handed_out == 1).map(drop)
    });
    forge.hub.cancel(forge.hub.job(again).run);
    forge.settled();
}

#[test]
fn i20_a_daemon_that_is_killed_while_a_runner_is_being_made_deletes_it_afterwards() {
    let mut forge = Forge::start("", "");
    let (job, gate) = forge.held_runner();
    let site = forge.daemon.take().unwrap().kill();
    gate.open();
    assert_eq!(forge.hub.runners().len(), 1);
    forge.daemon = Some(Daemon::start_at(site));
    // The one that was left goes, and another takes the job.
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    assert_eq!(forge.hub.job(job).handed_out, 1);
}

#[test]
fn i21_no_log_holds_a_secret_and_nobody_else_reads_a_runners_credentials() {
    let forge = Forge::start("", "");
    let job = push(
        &forge.hub,
        &[
            "cat ../../runner/.credentials > /dev/null || true",
            "env; ps aux || true",
        ],
    );
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let site = forge.daemon().site();
    let mut texts = vec![("the daemon's log".to_owned(), forge.daemon().log())];
    for entry in walkdir::WalkDir::new(&site.data_dir) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
            texts.push((entry.path().display().to_string(), text));
        }
    }
    assert!(texts.len() > 3, "there is something to look through");
    let secrets = forge.hub.secrets();
    assert!(secrets.len() > 3);
    for (place, text) in &texts {
        let found = secrets.iter().find(|secret| text.contains(secret.as_str()));
        assert_eq!(found, None, "in {place}");
    }
}

#[test]
fn an_idle_hour_costs_nothing() {
    let forge = Forge::start("", "");
    forge.hub.repository("acme/app", true);
    // From when everything is known, polls change nothing and are not counted.
    let polls = |forge: &Forge| {
        forge
            .hub
            .requests()
            .iter()
            .filter(|request| request.path.ends_with("/actions/runs"))
            .count()
    };
    wait_for("a first poll", || (polls(&forge) >= 4).then_some(()));
    let (before, counted) = (polls(&forge), forge.hub.counted_calls());
    wait_for("more polls", || (polls(&forge) >= before + 6).then_some(()));
    assert_eq!(forge.hub.counted_calls(), counted);
}

#[test]
fn i13_two_hosts_with_the_same_labels_run_every_job_once_and_leave_no_runner() {
    let hub = Hub::start();
    let host = || Daemon::start_at(prepare(&hub, Family::take(), "idle_timeout = \"1s\"\n", ""));
    let (first, second) = (host(), host());
    let run = hub.matrix("acme/app", 10, &LABELS);
    let forge = Forge {
        daemon: Some(first),
        hub,
    };
    for job in forge.hub.jobs_of(run) {
        assert_eq!(forge.conclusion(job), "success");
        assert_eq!(forge.hub.job(job).handed_out, 1);
    }
    drop(second.stop());
    // Those that each made for jobs that the other had get none, and go.
    forge.settled();
}

#[test]
fn what_is_wrong_with_our_credential_or_clock_is_told_and_the_job_stays_queued() {
    let forge = Forge::start("", "");
    let status = |what: &str| {
        wait_for(what, || {
            let status = out(&forge.daemon().cli(&["status"]));
            status.contains(what).then_some(())
        });
    };
    forge.hub.repository("acme/app", true);
    forge.hub.set_clock_ahead_s(-600);
    status("clock: this host's is 600 s ahead of GitHub's");
    forge
        .hub
        .inject("GET /repos/acme/app/*", 9999, Fault::status(403));
    status("not answering: acme/app: GET /repos/acme/app/actions/runs: GitHub refuses");
    forge.hub.heal();
    forge.hub.revoke_tokens();
    status("GitHub does not take our credential");
    let job = push(&forge.hub, &["true"]);
    let check = forge.daemon().cli(&["github", "check"]);
    assert_eq!(check.status.code(), Some(1), "{}", said(&check));
    assert_eq!(forge.made_for(job).len(), 0);
    assert_eq!(forge.hub.job(job).handed_out, 0);
    forge.settled();
}

#[test]
fn a_configuration_that_brings_a_strange_file_is_refused_and_tried_again_later() {
    use base64::Engine;
    let forge = Forge::start("", "");
    let packed = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let strange = serde_json::json!({ "../../home/.profile": packed("x") }).to_string();
    let answer = serde_json::json!({
        "runner": {"id": 4711, "name": "x", "os": "unknown", "status": "offline", "busy": false, "labels": []},
        "encoded_jit_config": packed(&strange),
    });
    forge
        .hub
        .inject("POST /repos/*/generate-jitconfig", 1, Fault::Answer(201, answer));
    let job = push(&forge.hub, &["true"]);
    let reason = wait_for("an attempt that failed", || {
        match forge.made_for(job).first()?.outcome.clone() {
            Some(Outcome::Failed { reason }) => Some(reason),
            _ => None,
        }
    });
    assert!(reason.contains("../../home/.profile"), "{reason}");
    wait_for("the wait before the next attempt", || {
        let status = out(&forge.daemon().cli(&["status"]));
        (status.contains("held: acme/app") && status.contains("tried again in")).then_some(())
    });
    assert_eq!(forge.made_for(job).len(), 1);
    forge.hub.cancel(forge.hub.job(job).run);
    forge.settled();
}
