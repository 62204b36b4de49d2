//! Runners, from their configuration to their end.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{LABELS, Listener, hub};
use crate::hub::faults::Fault;
use crate::hub::scenario::Trigger;
use crate::hub::state::{JobSpec, Phase, Scope, Step};

#[test]
fn the_configuration_is_three_files_that_lead_to_the_broker() {
    let (hub, caller) = hub();
    hub.repository("o/r", true);
    let (id, jit) = caller.runner("o/r", "mac-1", &["Self-Hosted", "macOS"]);
    let unpack = |text: &str| BASE64_STANDARD.decode(text).unwrap();
    let files: BTreeMap<String, String> = serde_json::from_slice(&unpack(&jit)).unwrap();
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(names, [".credentials", ".credentials_rsaparams", ".runner"]);
    let content = |name: &str| -> Value { serde_json::from_slice(&unpack(&files[name])).unwrap() };
    let settings = content(".runner");
    assert_eq!(settings["AgentId"], id);
    assert_eq!(settings["ServerUrlV2"], format!("{}/_broker/", hub.url()));
    assert_eq!(settings["Ephemeral"], true);
    assert_eq!(content(".credentials")["Scheme"], "OAuth");
    assert_eq!(
        content(".credentials_rsaparams")
            .as_object()
            .map(serde_json::Map::len),
        Some(8)
    );
    let runner = caller.get(&format!("/repos/o/r/actions/runners/{id}")).json();
    assert_eq!(
        runner["labels"][0]["name"], "self-hosted",
        "labels are kept in lower case"
    );
    assert_eq!(
        (&runner["status"], &runner["busy"]),
        (&json!("offline"), &json!(false))
    );
}

#[test]
fn refuses_a_name_that_is_taken_and_a_group_that_is_not_there() {
    let (hub, caller) = hub();
    hub.repository("o/r", true);
    caller.runner("o/r", "a", &LABELS);
    let path = "/repos/o/r/actions/runners/generate-jitconfig";
    let clash = caller.post(
        path,
        &json!({"name": "a", "runner_group_id": 1, "labels": LABELS}),
    );
    assert_eq!(clash.status, 409);
    assert_eq!(
        clash.json()["message"],
        "Already exists - A runner with the name a already exists."
    );
    let missing = caller.post(
        path,
        &json!({"name": "b", "runner_group_id": 77, "labels": LABELS}),
    );
    assert_eq!(missing.status, 404);
    assert_eq!(
        caller.get("/repos/o/r/actions/runners?name=a").json()["total_count"],
        1
    );
    assert_eq!(
        caller.get("/repos/o/r/actions/runners?name=b").json()["total_count"],
        0
    );
}

#[test]
fn a_runner_has_one_job_and_is_gone() {
    let (hub, caller) = hub();
    let run = hub.matrix("o/r", 2, &LABELS);
    let (id, _) = caller.runner("o/r", "a", &LABELS);
    assert_eq!(hub.ghosts().len(), 1, "nobody stands behind it yet");
    let listener = Listener::connect(&hub, id);
    assert!(hub.ghosts().is_empty());
    let message = listener.message().json();
    let job = message["job"]["id"].as_u64().unwrap();
    assert_eq!(message["job"]["steps"], json!([{"run": "true", "always": false}]));
    assert_eq!(message["job"]["github"]["run_id"], run.to_string());
    assert_eq!(
        message["job"]["github"]["event"]["repository"]["full_name"],
        "o/r"
    );
    let shown = caller.get(&format!("/repos/o/r/actions/jobs/{job}")).json();
    assert_eq!(
        (&shown["status"], &shown["runner_name"]),
        (&json!("in_progress"), &json!("a"))
    );
    listener.finish(job, "Succeeded");
    assert!(hub.runners().is_empty());
    assert_eq!(listener.message().status, 404, "its session went with it");
    assert_eq!(hub.job(job).conclusion.as_deref(), Some("success"));
    assert_eq!(hub.job(job).handed_out, 1);
    assert_eq!(hub.job(hub.jobs_of(run)[1]).phase, Phase::Queued);
    assert_eq!(
        caller.delete(&format!("/repos/o/r/actions/runners/{id}")).status,
        404
    );
}

#[test]
fn a_runner_made_for_a_trusted_job_is_handed_the_fork_s() {
    let (hub, caller) = hub();
    let stolen = hub.jobs_of(hub.fork_pull_request("o/r", "mallory/r", &["SELF-HOSTED"]))[0];
    let trusted = hub.jobs_of(hub.push("o/r", &LABELS))[0];
    let (id, _) = caller.runner("o/r", "for-the-push", &LABELS);
    let listener = Listener::connect(&hub, id);
    assert_eq!(listener.job(), stolen, "labels decide, and the older job");
    assert_eq!(hub.job(trusted).phase, Phase::Queued);
}

#[test]
fn a_runner_without_all_the_labels_or_of_another_repository_gets_nothing() {
    let (hub, caller) = hub();
    hub.push("o/r", &["self-hosted", "gpu"]);
    hub.push("o/other", &LABELS);
    hub.set_long_poll(Duration::from_millis(10));
    let (id, _) = caller.runner("o/r", "a", &LABELS);
    assert_eq!(Listener::connect(&hub, id).message().status, 202);
}

#[test]
fn a_poll_ends_as_soon_as_there_is_a_job() {
    let (hub, caller) = hub();
    hub.repository("o/r", true);
    let (id, _) = caller.runner("o/r", "a", &LABELS);
    let listener = Listener::connect(&hub, id);
    std::thread::scope(|scope| {
        let polled = scope.spawn(|| {
            loop {
                let answer = listener.message();
                if answer.status == 200 {
                    break answer.json()["job"]["id"].as_u64();
                }
            }
        });
        let job = hub.jobs_of(hub.push("o/r", &LABELS))[0];
        hub.wait("the job to be handed out", |state| {
            (state.job(job)?.phase == Phase::InProgress).then_some(())
        });
        assert_eq!(polled.join().unwrap(), Some(job));
    });
}

#[test]
fn a_runner_of_an_organization_serves_what_its_group_is_open_to() {
    let (hub, caller) = hub();
    hub.repository("o/public", false);
    hub.repository("o/closed", true);
    let group = hub.runner_group("some", Some(&["o/public", "o/open"]), false);
    let scope = Scope::Organization("o".into());
    assert!(!hub.may_use(&scope, group, "o/public"), "it is public");
    assert!(!hub.may_use(&scope, group, "o/closed"), "it is not selected");
    hub.push("o/closed", &LABELS);
    let open = hub.jobs_of(hub.push("o/open", &LABELS))[0];
    let asked = json!({"name": "a", "runner_group_id": group, "labels": LABELS});
    let made = caller.post("/orgs/o/actions/runners/generate-jitconfig", &asked);
    assert_eq!(made.status, 201);
    let id = made.json()["runner"]["id"].as_u64().unwrap();
    assert_eq!(caller.get("/orgs/o/actions/runners").json()["total_count"], 1);
    assert_eq!(Listener::connect(&hub, id).job(), open);
}

#[test]
fn a_busy_runner_cannot_be_deleted_even_a_while_after_its_job() {
    let (hub, caller) = hub();
    hub.push("o/r", &LABELS);
    hub.set_stays_busy(true);
    let (id, _) = caller.runner("o/r", "a", &LABELS);
    let path = format!("/repos/o/r/actions/runners/{id}");
    let listener = Listener::connect(&hub, id);
    let job = listener.job();
    let refused = caller.delete(&path);
    assert_eq!(refused.status, 422);
    assert_eq!(
        refused.json()["message"],
        r#"Runner "a" is currently running a job and cannot be deleted."#
    );
    listener.finish(job, "Succeeded");
    listener.disconnect();
    assert_eq!(caller.delete(&path).status, 422);
    hub.set_stays_busy(false);
    assert_eq!(caller.delete(&path).status, 404);

    let (idle, _) = caller.runner("o/r", "b", &LABELS);
    assert_eq!(
        caller
            .delete(&format!("/repos/o/r/actions/runners/{idle}"))
            .status,
        204
    );
}

#[test]
fn a_runner_that_dies_is_busy_and_offline_until_github_notices() {
    let (hub, caller) = hub();
    hub.push("o/r", &LABELS);
    let (id, _) = caller.runner("o/r", "a", &LABELS);
    let listener = Listener::connect(&hub, id);
    let job = listener.job();
    listener.disconnect();
    let shown = caller.get(&format!("/repos/o/r/actions/runners/{id}")).json();
    assert_eq!(
        (&shown["status"], &shown["busy"]),
        (&json!("offline"), &json!(true))
    );
    assert_eq!(hub.ghosts()[0].id, id);
    hub.lose(id);
    assert_eq!(hub.job(job).conclusion.as_deref(), Some("failure"));
    assert!(hub.runners().is_empty());
}

#[test]
fn the_broker_refuses_a_second_session_a_stranger_and_an_old_runner() {
    let (hub, caller) = hub();
    hub.repository("o/r", true);
    let (id, _) = caller.runner("o/r", "a", &LABELS);
    let listener = Listener::connect(&hub, id);
    assert_eq!(
        Listener::broker(&hub, "POST", "session", &json!({"agentId": id})).status,
        409
    );
    let stranger = Listener::broker(&hub, "POST", "session", &json!({"agentId": 5}));
    assert_eq!(stranger.json()["errorKind"], "RunnerNotFound");
    assert_eq!(
        Listener::broker(&hub, "POST", "finish", &json!({"job": 5})).status,
        404
    );
    hub.inject("GET /_broker/message", 1, Fault::version_too_old());
    let old = listener.message();
    assert_eq!(
        (old.status, &old.json()["errorKind"]),
        (403, &json!("RunnerVersionTooOld"))
    );
    hub.inject(
        "GET /_broker/message",
        1,
        Fault::broker(401, "RunnerSessionInvalid"),
    );
    assert_eq!(listener.message().json()["errorKind"], "RunnerSessionInvalid");
    hub.push("o/r", &LABELS);
    assert_eq!(listener.message().status, 200, "the faults are used up");
}

#[test]
fn a_job_brings_its_steps_its_environment_and_the_event_that_made_it() {
    let (hub, caller) = hub();
    let step = |run: &str, always| Step {
        run: run.to_owned(),
        always,
    };
    let spec = JobSpec {
        steps: vec![step("make", false), step("make clean", true)],
        env: BTreeMap::from([("CC".to_owned(), "gcc".to_owned())]),
        ..JobSpec::new("build", &LABELS)
    };
    let run = hub.launch(Trigger::fork_pull_request("o/r", "mallory/r"), vec![spec]);
    let (id, _) = caller.runner("o/r", "a", &LABELS);
    let message = Listener::connect(&hub, id).message().json();
    let job = &message["job"];
    assert_eq!(job["steps"][1], json!({"run": "make clean", "always": true}));
    assert_eq!(job["env"], json!({"CC": "gcc"}));
    let number = hub.run(run).pull_request.unwrap();
    assert_eq!(job["github"]["ref"], format!("refs/pull/{number}/merge"));
    assert_eq!(
        job["github"]["event"]["pull_request"]["head"]["repo"]["fork"],
        true
    );
}

#[test]
fn a_hundred_jobs_are_handed_out_once_each_to_runners_that_compete() {
    let (hub, caller) = hub();
    let run = hub.matrix("o/r", 100, &LABELS);
    std::thread::scope(|scope| {
        for lane in 0..4 {
            let (hub, caller) = (&hub, &caller);
            scope.spawn(move || {
                for turn in 0..25 {
                    let (id, _) = caller.runner("o/r", &format!("host-{lane}-{turn}"), &LABELS);
                    let listener = Listener::connect(hub, id);
                    listener.finish(listener.job(), "succeeded");
                }
            });
        }
    });
    assert!(hub.jobs_of(run).iter().all(|it| hub.job(*it).handed_out == 1));
    assert!(hub.runners().is_empty());
    let shown = caller.get(&format!("/repos/o/r/actions/runs/{run}")).json();
    assert_eq!(shown["conclusion"], "success");
}
