//! GitHub's own description is the judge, and is what was published.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{LABELS, hub};
use crate::hub::schema::{Operation, webhook_errors};

#[test]
fn the_fixtures_are_what_was_published() {
    let files: [(&str, &[u8]); 3] = [
        (
            "openapi.json",
            include_bytes!("../../fixtures/github/openapi.json"),
        ),
        (
            "webhooks.json",
            include_bytes!("../../fixtures/github/webhooks.json"),
        ),
        (
            "workflow-job-examples.json",
            include_bytes!("../../fixtures/github/workflow-job-examples.json"),
        ),
    ];
    let sums = files.map(|(name, bytes)| {
        let digits: String = Sha256::digest(bytes)
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect();
        format!("{digits}  {name}\n")
    });
    assert_eq!(
        sums.concat(),
        include_str!("../../fixtures/github/sha256.txt"),
        "scripts/github-schemas.sh writes them"
    );
}

#[test]
fn github_s_own_examples_of_webhooks_only_lack_what_came_later() {
    let examples: Vec<Value> =
        serde_json::from_str(include_str!("../../fixtures/github/workflow-job-examples.json")).unwrap();
    assert!(!examples.is_empty());
    for example in examples {
        let errors = webhook_errors(&example);
        assert!(errors.iter().all(|it| it.contains(": lacks ")), "{errors:#?}");
    }
}

#[test]
fn a_request_that_breaks_the_description_is_refused_and_noted() {
    let (hub, caller) = hub();
    hub.push("o/r", &LABELS);
    let path = "/repos/o/r/actions/runners/generate-jitconfig";
    let refused = caller.post(path, &json!({"name": "a", "labels": ["x"]}));
    assert_eq!(refused.status, 422);
    assert_eq!(
        hub.take_violations(),
        [format!("POST {path}: body: lacks runner_group_id")]
    );
    assert_eq!(
        caller
            .post(path, &json!({"name": "a", "runner_group_id": 1, "labels": []}))
            .status,
        422
    );
    caller.get("/repos/o/r/actions/runs?status=sleeping&colour=red");
    caller.get("/repos/o/r/actions/runs/one");
    assert_eq!(caller.get("/repos/o/r/stargazers").status, 404);
    let noted = hub.take_violations();
    assert_eq!(noted.len(), 5, "{noted:#?}");
    assert!(noted[0].ends_with("body.labels: has 0 items, which breaks minItems 1"));
}

#[test]
#[should_panic(expected = "GitHub's description was broken")]
fn a_broken_description_fails_the_test_that_did_not_look() {
    let (_hub, caller) = hub();
    caller.get("/repos/o/r/stargazers");
}

#[test]
fn an_answer_that_breaks_the_description_is_seen() {
    let operation = Operation::of("GET", "/repos/o/r/actions/runners/3").unwrap();
    let runner =
        json!({"id": 3, "name": "a", "os": "unknown", "status": "online", "busy": "no", "labels": []});
    assert_eq!(
        operation.answer_errors(200, runner.to_string().as_bytes()),
        [r#"answer.busy: is "no", not of type "boolean""#]
    );
    assert_eq!(
        operation.answer_errors(202, b"{}"),
        ["202: GitHub never answers so"]
    );
    assert_eq!(
        operation.answer_errors(404, br#"{"message": 4}"#),
        [r#"answer.message: is 4, not of type "string""#]
    );
    assert_eq!(
        operation.template,
        "/repos/{owner}/{repo}/actions/runners/{runner_id}"
    );
}
