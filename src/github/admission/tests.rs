use serde_json::{Value, json};

use super::*;
use crate::github::run::origin;
use crate::trust::{self, Conditions, DefaultRoute, TrustConfig, TrustRule};

const RUNNER: Runner<'_> = Runner {
    id: 23,
    name: "mac01-9f2c",
};

fn repo() -> Repo {
    "acme/app".parse().unwrap()
}

fn with(mut base: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

fn claim(more: &Value) -> Message {
    let base = json!({"repository": "acme/app", "run_id": 77, "run_attempt": 2, "job": "build", "event": "push",
        "sha": "c0ffee", "runner": "mac01-9f2c", "event_file": true});
    Message::parse(with(base, more).to_string().as_bytes()).unwrap()
}

fn job(more: &Value) -> Job {
    let base = json!({"id": 290, "run_id": 77, "run_attempt": 2, "name": "build (macos)", "status": "in_progress",
        "labels": ["self-hosted"], "runner_id": 23, "runner_name": "mac01-9f2c"});
    serde_json::from_value(with(base, more)).unwrap()
}

fn run(more: &Value) -> Run {
    let base = json!({"id": 77, "run_attempt": 2, "event": "push", "status": "in_progress", "head_branch": "main",
        "head_sha": "c0ffee", "repository": {"full_name": "acme/app"}, "head_repository": {"full_name": "acme/app"},
        "actor": {"login": "alice"}, "triggering_actor": {"login": "alice"}});
    serde_json::from_value(with(base, more)).unwrap()
}

/// What becomes of a job of a host that trusts `acme/*`.
fn verdict(claim: &Message, job: &Job, run: &Run) -> Verdict {
    let config = TrustConfig {
        default: DefaultRoute::Vm,
        repos: vec![TrustRule {
            pattern: "acme/*".parse().unwrap(),
            route: Route::Native,
            conditions: Conditions::default(),
            fallback: crate::trust::DefaultRoute::Refuse,
            vm: crate::vm::VmChoice::default(),
        }],
    };
    // A run of another repository has no origin, so trust is asked about what it should have been.
    let origin = origin(run, &repo(), &[])
        .or_else(|_| origin(&self::run(&json!({})), &repo(), &[]))
        .unwrap();
    let decision = trust::decide(&config, true, &origin);
    let evidence = Evidence {
        repo: &repo(),
        runner: RUNNER,
        job,
        run,
        decision: &decision,
    };
    judge(claim, &evidence)
}

fn reason(said: &Value, of_job: &Value, of_run: &Value) -> String {
    match verdict(&claim(said), &job(of_job), &run(of_run)) {
        Verdict::Go => "go".to_owned(),
        Verdict::Stop(reason) => reason.to_string(),
    }
}

#[test]
fn the_job_that_github_says_this_runner_has_may_run() {
    let none = json!({});
    assert_eq!(reason(&none, &none, &none), "go");
    // Names of repositories are compared as GitHub compares them.
    assert_eq!(reason(&json!({"repository": "Acme/App"}), &none, &none), "go");
    // The commit of a pull request's job is that of a merge, and a key is not a name.
    let pull = json!({"event": "pull_request"});
    let said = json!({"event": "pull_request", "sha": "badc0de", "job": "other"});
    assert_eq!(reason(&said, &none, &pull), "go");
}

#[test]
fn what_an_old_copy_of_the_run_says_is_asked_again_and_nothing_else() {
    let may_pass = |said, of_job, of_run| match verdict(&claim(&said), &job(&of_job), &run(&of_run)) {
        Verdict::Go => false,
        Verdict::Stop(reason) => reason.may_pass(),
    };
    let none = || json!({});
    assert!(may_pass(none(), none(), json!({"status": "completed"})));
    assert!(may_pass(none(), none(), json!({"run_attempt": 1})));
    assert!(
        !may_pass(none(), none(), json!({"run_attempt": 3})),
        "a newer one"
    );
    assert!(!may_pass(none(), none(), json!({"id": 76})));
    assert!(!may_pass(none(), none(), json!({"head_repository": null})));
    assert!(!may_pass(json!({"runner": "mac01-other"}), none(), none()));
}

#[test]
fn every_mismatch_stops_the_job_and_says_which() {
    let none = json!({});
    let table = [
        (json!({"runner": "mac01-other"}), none.clone(), none.clone()),
        (none.clone(), json!({"runner_id": 24}), none.clone()),
        (none.clone(), json!({"runner_name": "mac01-other"}), none.clone()),
        (
            none.clone(),
            json!({"runner_id": null, "runner_name": null}),
            none.clone(),
        ),
        (none.clone(), json!({"status": "completed"}), none.clone()),
        (json!({"run_id": 78}), none.clone(), none.clone()),
        (json!({"run_attempt": 1}), none.clone(), none.clone()),
        (none.clone(), json!({"run_id": 78}), none.clone()),
        (none.clone(), none.clone(), json!({"id": 78})),
        (none.clone(), none.clone(), json!({"run_attempt": 3})),
        (none.clone(), none.clone(), json!({"status": "completed"})),
        (json!({"repository": "acme/other"}), none.clone(), none.clone()),
        (
            none.clone(),
            none.clone(),
            json!({"repository": {"full_name": "eve/app"}}),
        ),
        (json!({"event": "schedule"}), none.clone(), none.clone()),
        (none.clone(), none.clone(), json!({"head_repository": null})),
        (
            none.clone(),
            none.clone(),
            json!({"actor": {"login": "dependabot[bot]"}}),
        ),
    ];
    let reasons = table.map(|(said, job, run)| reason(&said, &job, &run)).join("\n");
    insta::assert_snapshot!(reasons, @r#"
    the job says that it has runner `mac01-other`, and this is `mac01-9f2c`
    github says that job 290 has runner 24 `mac01-9f2c`, and this is runner 23 `mac01-9f2c`
    github says that job 290 has runner 23 `mac01-other`, and this is runner 23 `mac01-9f2c`
    github says that job 290 has no runner, and this is runner 23 `mac01-9f2c`
    github says that job 290 is `completed` and not in progress
    the job says that it is of run 78, attempt 2; github says run 77, attempt 2
    the job says that it is of run 77, attempt 1; github says run 77, attempt 2
    the job says that it is of run 77, attempt 2; github says run 78, attempt 2
    the job says that it is of run 77, attempt 2; github says run 78, attempt 2
    the job says that it is of run 77, attempt 2; github says run 77, attempt 3
    github says that run 77 is over
    the job says that it is of acme/other, the run is of `acme/app`, and acme/app was asked about
    the job says that it is of acme/app, the run is of `eve/app`, and acme/app was asked about
    the job says that `schedule` caused it; github says `push`
    acme/app may not run on this host but goes to `vm`: trust.repos."acme/*" allows native, but the repository the code comes from is unknown, which is never native; trust.default says vm
    hint: `ephemerd route` tells why; other jobs with these labels reach this runner too
    acme/app may not run on this host but goes to `vm`: trust.repos."acme/*" allows native, but `dependabot[bot]` is a bot and `allow_bots` is false; trust.default says vm
    hint: `ephemerd route` tells why; other jobs with these labels reach this runner too
    "#);
}

#[test]
fn what_a_job_says_does_not_make_it_trusted() {
    let fork = json!({"event": "pull_request", "head_repository": {"full_name": "eve/app"}});
    // Everything else agrees, and the message claims an event that would be trusted.
    let honest = reason(&json!({"event": "pull_request"}), &json!({}), &fork);
    assert!(
        honest.starts_with("acme/app may not run on this host but goes to `vm`"),
        "{honest}"
    );
    assert!(honest.contains("\nhint: "), "{honest}");
    let forged = reason(&json!({}), &json!({}), &fork);
    assert_eq!(
        forged,
        "the job says that `push` caused it; github says `pull_request`"
    );
}

#[test]
fn the_job_of_a_runner_is_picked_by_id_and_name_and_must_be_the_only_one() {
    let others = [
        job(&json!({"id": 1, "runner_id": 24})),
        job(&json!({"id": 2, "runner_name": "mac01-other"})),
        job(&json!({"id": 3, "runner_id": 0, "runner_name": "", "status": "queued"})),
        job(&json!({"id": 4, "status": "completed"})),
    ];
    let picked = |jobs: &[Job]| pick(jobs, RUNNER).map(|job| job.id);
    assert_eq!(picked(&[]), None);
    assert_eq!(picked(&others), None);
    let ours = [&others[..], &[job(&json!({}))]].concat();
    assert_eq!(picked(&ours), Some(290));
    let twice = [&ours[..], &[job(&json!({"id": 291}))]].concat();
    assert_eq!(picked(&twice), None);
}

#[test]
fn answers_are_one_line_each() {
    let stop = Answer::Stop {
        reason: "a\nhint: b".to_owned(),
    };
    let lines = [Answer::Go, stop].map(|answer| serde_json::to_string(&answer).unwrap());
    insta::assert_snapshot!(lines.join("\n"), @r#"
    {"answer":"go"}
    {"answer":"stop","reason":"a\nhint: b"}
    "#);
}
