//! Runs, jobs, pull requests and what else can be read.

use serde_json::{Value, json};

use super::{LABELS, Listener, hub};
use crate::hub::Hub;
use crate::hub::client::Caller;
use crate::hub::scenario::Trigger;
use crate::hub::state::{JobSpec, Phase};

#[test]
fn a_push_is_a_queued_run_with_a_queued_job() {
    let (hub, caller) = hub();
    let run = hub.push("o/r", &LABELS);
    let listed = caller
        .get("/repos/o/r/actions/runs?status=queued&per_page=100")
        .json();
    assert_eq!(listed["total_count"], 1);
    assert_eq!(listed["workflow_runs"][0]["id"], run);
    assert_eq!(listed["workflow_runs"][0]["event"], "push");
    let jobs = caller
        .get(&format!("/repos/o/r/actions/runs/{run}/jobs?filter=latest"))
        .json();
    assert_eq!(jobs["jobs"][0]["labels"], json!(LABELS));
    assert_eq!(jobs["jobs"][0]["status"], "queued");
    assert_eq!(jobs["jobs"][0]["runner_id"], Value::Null);
    let job = caller
        .get(&format!("/repos/o/r/actions/jobs/{}", hub.jobs_of(run)[0]))
        .json();
    assert_eq!(job, jobs["jobs"][0]);
    assert_eq!(
        caller.get("/repos/o/r/actions/runs?status=in_progress").json()["total_count"],
        0
    );
}

#[test]
fn a_fork_shows_in_the_run_and_a_deleted_one_is_null() {
    let (hub, caller) = hub();
    let run = hub.fork_pull_request("o/r", "mallory/r", &LABELS);
    let path = format!("/repos/o/r/actions/runs/{run}");
    let shown = caller.get(&path).json();
    assert_eq!(shown["head_repository"]["full_name"], "mallory/r");
    assert_eq!(shown["head_repository"]["fork"], true);
    assert_eq!(shown["actor"]["login"], "mallory");
    assert_eq!(
        shown["pull_requests"],
        json!([]),
        "GitHub leaves it empty for forks"
    );
    hub.delete_fork("mallory/r");
    assert_eq!(caller.get(&path).json()["head_repository"], Value::Null);
}

#[test]
fn a_pull_request_shows_its_labels_and_where_it_is_from() {
    let (hub, caller) = hub();
    let run = hub.pull_request("o/r", "feature", &LABELS, &["run-native"]);
    let shown = caller.get(&format!("/repos/o/r/actions/runs/{run}")).json();
    let number = hub.run(run).pull_request.expect("it is one");
    assert_eq!(shown["pull_requests"][0]["number"], number);
    let pull = caller.get(&format!("/repos/o/r/pulls/{number}")).json();
    assert_eq!(pull["labels"][0]["name"], "run-native");
    assert_eq!(pull["head"]["repo"]["full_name"], "o/r");
    assert_eq!(caller.get("/repos/o/r/pulls/1").status, 404);
}

#[test]
fn pull_request_target_runs_on_the_base_in_the_name_of_the_fork() {
    let (hub, caller) = hub();
    let run = hub.pull_request_target("o/r", "mallory/r", &LABELS);
    let shown = caller.get(&format!("/repos/o/r/actions/runs/{run}")).json();
    assert_eq!(shown["event"], "pull_request_target");
    assert_eq!(shown["head_branch"], "main");
    assert_eq!(shown["actor"]["login"], "mallory");
}

#[test]
fn lists_come_in_pages_that_link_to_each_other() {
    let (hub, caller) = hub();
    let run = hub.matrix("o/r", 8, &LABELS);
    let path = format!("/repos/o/r/actions/runs/{run}/jobs");
    let first = caller.get(&format!("{path}?per_page=3"));
    assert_eq!(first.json()["total_count"], 8);
    assert_eq!(first.json()["jobs"].as_array().map(Vec::len), Some(3));
    let url = hub.url();
    assert_eq!(
        first.header("link"),
        format!(
            "<{url}{path}?per_page=3&page=2>; rel=\"next\", <{url}{path}?per_page=3&page=3>; rel=\"last\""
        )
    );
    let last = caller.get(&format!("{path}?per_page=3&page=3"));
    assert_eq!(last.json()["jobs"].as_array().map(Vec::len), Some(2));
    assert!(!last.header("link").contains("next"));
}

#[test]
fn what_did_not_change_is_304_and_costs_nothing() {
    let (hub, caller) = hub();
    hub.push("o/r", &LABELS);
    let path = "/repos/o/r/actions/runs?status=queued";
    let first = caller.get(path);
    let known = [("if-none-match", first.header("etag"))];
    let again = caller.send("GET", path, &known, &Value::Null).unwrap();
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(hub.counted_calls(), 1);
    assert_eq!(again.header("x-ratelimit-used"), "1");
    let counted: Vec<_> = hub.requests().iter().map(|it| (it.status, it.counted)).collect();
    assert_eq!(counted, [(200, true), (304, false)]);

    let other = Caller::new(&hub, &hub.any_token());
    assert_eq!(
        other.send("GET", path, &known, &Value::Null).unwrap().status,
        200,
        "an ETag is of one token"
    );
    hub.push("o/r", &LABELS);
    assert_eq!(
        caller.send("GET", path, &known, &Value::Null).unwrap().status,
        200
    );
}

#[test]
fn a_waiting_job_is_not_queued_until_it_is_approved() {
    let (hub, caller) = hub();
    let waiting = JobSpec {
        waiting: true,
        ..JobSpec::new("deploy", &LABELS)
    };
    let run = hub.launch(Trigger::push("o/r"), vec![waiting]);
    assert_eq!(
        caller.get("/repos/o/r/actions/runs?status=waiting").json()["total_count"],
        1
    );
    hub.approve(hub.jobs_of(run)[0]);
    assert_eq!(
        caller.get("/repos/o/r/actions/runs?status=queued").json()["total_count"],
        1
    );
}

#[test]
fn a_job_that_needs_another_is_queued_in_a_run_in_progress() {
    let (hub, caller) = hub();
    let run = hub.push("o/r", &LABELS);
    let (runner, _) = caller.runner("o/r", "a", &LABELS);
    let listener = Listener::connect(&hub, runner);
    listener.finish(listener.job(), "Succeeded");
    let next = hub.add_job(run, JobSpec::new("test", &LABELS));
    assert_eq!(
        caller.get("/repos/o/r/actions/runs?status=queued").json()["total_count"],
        0
    );
    assert_eq!(
        caller.get("/repos/o/r/actions/runs?status=in_progress").json()["workflow_runs"][0]["id"],
        run
    );
    assert_eq!(hub.job(next).phase, Phase::Queued);
}

#[test]
fn cancelling_ends_what_is_queued_and_tells_the_runner_of_what_runs() {
    let (hub, caller) = hub();
    let run = hub.matrix("o/r", 2, &LABELS);
    let (runner, _) = caller.runner("o/r", "a", &LABELS);
    let listener = Listener::connect(&hub, runner);
    let job = listener.job();
    let path = format!("/repos/o/r/actions/runs/{run}/cancel");
    assert_eq!(caller.post(&path, &Value::Null).status, 202);
    assert_eq!(listener.message().json(), json!({"cancel": job}));
    listener.finish(job, "Canceled");
    assert_eq!(caller.post(&path, &Value::Null).status, 409);
    let shown = caller.get(&format!("/repos/o/r/actions/runs/{run}")).json();
    assert_eq!(
        (&shown["status"], &shown["conclusion"]),
        (&json!("completed"), &json!("cancelled"))
    );
    hub.cancel(hub.push("o/r", &LABELS));
}

#[test]
fn a_job_is_run_again_as_a_new_job_of_the_next_attempt() {
    let (hub, caller) = hub();
    let run = hub.push("o/r", &LABELS);
    let job = hub.jobs_of(run)[0];
    let path = format!("/repos/o/r/actions/jobs/{job}/rerun");
    assert_eq!(
        caller.post(&path, &Value::Null).status,
        403,
        "it has not ended yet"
    );
    hub.cancel(run);
    assert_eq!(caller.post(&path, &Value::Null).status, 201);
    let again = hub.jobs_of(run)[0];
    assert_ne!(again, job);
    assert_eq!((hub.job(again).attempt, hub.job(again).phase), (2, Phase::Queued));
    let shown = caller.get(&format!("/repos/o/r/actions/runs/{run}")).json();
    assert_eq!(shown["triggering_actor"]["login"], "ephemerd[bot]");
    assert_eq!(shown["actor"]["login"], "alice");
    let all = caller
        .get(&format!("/repos/o/r/actions/runs/{run}/jobs?filter=all"))
        .json();
    assert_eq!(all["total_count"], 2);
    hub.cancel(run);
    hub.rerun(again, "bob");
    assert_eq!(hub.run(run).triggering_actor, "bob");
}

#[test]
fn answers_what_a_check_of_the_configuration_asks() {
    let (hub, caller) = hub();
    hub.repository("o/r", false);
    let group = hub.runner_group("private", Some(&["o/r"]), false);
    let groups = caller.get("/orgs/o/actions/runner-groups").json();
    assert_eq!(groups["total_count"], 2);
    assert_eq!(groups["runner_groups"][1]["id"], group);
    let seen = caller
        .get("/orgs/o/actions/runner-groups?visible_to_repository=r")
        .json();
    assert_eq!(
        seen["total_count"], 1,
        "a public repository may not use the other"
    );
    let approval = caller
        .get("/repos/o/r/actions/permissions/fork-pr-contributor-approval")
        .json();
    assert_eq!(approval["approval_policy"], "all_external_contributors");
    assert_eq!(
        caller.get("/repos/actions/runner/releases/latest").json()["tag_name"],
        "v2.336.0"
    );
    let before = hub.counted_calls();
    assert_eq!(
        caller.get("/rate_limit").json()["resources"]["core"]["used"],
        before
    );
    let meta = caller.get("/meta");
    assert!(meta.header("date").ends_with(" GMT"));
    assert_eq!(hub.counted_calls(), before);
}

#[test]
fn every_request_is_logged_as_it_came() {
    let hub = Hub::start();
    hub.repository("o/r", true);
    let token = hub.any_token();
    let asked = json!({"name": "a", "runner_group_id": 1, "labels": LABELS});
    Caller::new(&hub, &token).post("/repos/o/r/actions/runners/generate-jitconfig", &asked);
    Caller::new(&hub, &token).get("/repos/o/r/actions/runners?name=a%20b");
    let requests = hub.requests();
    assert_eq!((requests[0].method.as_str(), &requests[0].body), ("POST", &asked));
    assert_eq!(requests[0].path, "/repos/o/r/actions/runners/generate-jitconfig");
    assert_eq!(
        (requests[1].query.as_str(), &requests[1].token),
        ("name=a%20b", &token)
    );
}
