//! Everything that can go wrong on the way: each is told apart, and nothing is concluded from an answer that is not GitHub's.

use std::time::Duration;

use ephemerd::github::api::Scope;
use ephemerd::github::api::runners::{Deletion, NewRunner};
use ephemerd::github::api::runs::RunStatus;
use ephemerd::github::client::{Client, ClientError, Credentials, Oddity, Options, Retry};
use ephemerd::github::secret::Secret;
use serde_json::json;

use super::{of_person, options, repo, run};
use crate::checks::LABELS;
use crate::hub::Hub;
use crate::hub::faults::{Fault, Gate};

/// How the list of runs fails with a fault; the client sees that the fault is over afterwards.
fn failing(fault: Fault) -> ClientError {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        let client = of_person(&hub);
        hub.inject("GET *", 1, fault);
        let error = client.runs(&repo(), RunStatus::Queued).await.unwrap_err();
        assert_eq!(hub.requests().len(), 1, "nothing is asked twice by itself");
        let report = client.report();
        assert_eq!((report.failed, report.last_error), (1, Some(error.to_string())));
        assert_eq!(
            client.runs(&repo(), RunStatus::Queued).await.unwrap().items.len(),
            1
        );
        assert!(!hub.requests()[1].conditional, "nothing is kept of it");
        error
    })
}

fn oddity(fault: Fault) -> Oddity {
    match failing(fault) {
        error @ ClientError::NotGitHub { .. } if error.retry() != Retry::Soon => panic!("{error}"),
        ClientError::NotGitHub { oddity, .. } => oddity,
        other => panic!("another error: {other}"),
    }
}

#[test]
fn an_answer_that_is_not_githubs_is_told_apart() {
    assert_eq!(oddity(Fault::Html(200)), Oddity::Html);
    assert_eq!(oddity(Fault::Html(404)), Oddity::Html);
    assert_eq!(oddity(Fault::WrongType), Oddity::ContentType("text/plain".into()));
    assert_eq!(oddity(Fault::Huge), Oddity::TooLarge(8 * 1024 * 1024));
    assert_eq!(oddity(Fault::Truncated), Oddity::Cut);
    for body in [json!([1]), json!({"workflow_runs": "none"}), json!(null)] {
        let odd = oddity(Fault::Answer(200, body));
        assert_eq!(odd, Oddity::NotJson("there is no list `workflow_runs`".into()));
    }
}

#[test]
fn a_proxys_page_does_not_say_that_a_runner_is_gone() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        let client = of_person(&hub);
        let scope = Scope::Repo(repo());
        for status in [200, 404, 422] {
            hub.inject("DELETE *", 1, Fault::Html(status));
            let deleted = client.delete_runner(&scope, 1).await;
            assert!(
                matches!(
                    deleted,
                    Err(ClientError::NotGitHub {
                        oddity: Oddity::Html,
                        ..
                    })
                ),
                "{deleted:?}"
            );
        }
        assert_eq!(client.delete_runner(&scope, 1).await.unwrap(), Deletion::Gone);
    });
}

#[test]
fn a_byte_order_mark_does_no_harm() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.inject("GET *", 1, Fault::ByteOrderMark);
    run(async {
        let list = of_person(&hub).runs(&repo(), RunStatus::Queued).await.unwrap();
        assert_eq!(list.items.len(), 1);
    });
}

#[test]
fn trouble_at_github_is_worth_asking_again() {
    for status in [500, 502, 503, 504] {
        let error = failing(Fault::status(status));
        assert!(
            matches!(error, ClientError::Server { status: found, .. } if found == status),
            "{error}"
        );
        assert_eq!(error.retry(), Retry::Soon);
    }
    assert!(matches!(
        failing(Fault::Html(503)),
        ClientError::Server { status: 503, .. }
    ));
}

#[test]
fn a_burst_of_errors_is_one_error_for_each_who_asks() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.inject("GET *", 3, Fault::status(502));
    run(async {
        let client = of_person(&hub);
        for _ in 0..3 {
            assert!(client.runs(&repo(), RunStatus::Queued).await.is_err());
        }
        client.runs(&repo(), RunStatus::Queued).await.unwrap();
    });
    assert_eq!(hub.requests().len(), 4);
}

#[test]
fn a_connection_that_breaks_is_an_error_of_the_network() {
    for fault in [Fault::Reset, Fault::LoseAnswer] {
        let error = failing(fault);
        assert!(matches!(error, ClientError::Network { .. }), "{error}");
        assert_eq!(error.retry(), Retry::Soon);
        assert!(std::error::Error::source(&error).is_some(), "it says why");
    }
}

#[test]
fn nobody_there_is_an_error_of_the_network() {
    let gone = Hub::start().url();
    run(async {
        let options = Options {
            url: gone,
            ..Options::new(Credentials::Token(Secret::new("ghp_x")))
        };
        let error = Client::new(options)
            .unwrap()
            .runs(&repo(), RunStatus::Queued)
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::Network { .. }), "{error}");
    });
}

#[test]
fn i19_an_answer_that_does_not_come_is_not_waited_for() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    let gate = Gate::default();
    hub.inject("GET *", 1, Fault::Hold(gate.clone()));
    let deadline = Duration::from_millis(50);
    run(async {
        let options = Options {
            deadline,
            ..options(&hub, Credentials::Token(Secret::from(hub.any_token())))
        };
        let client = Client::new(options).unwrap();
        let error = client.runs(&repo(), RunStatus::Queued).await.unwrap_err();
        assert!(
            matches!(error, ClientError::TimedOut { after, .. } if after == deadline),
            "{error}"
        );
        assert_eq!(error.retry(), Retry::Soon);
    });
    gate.open();
}

#[test]
fn a_runner_whose_making_was_not_answered_is_found_by_its_name() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    let runner = NewRunner {
        name: "mac01-1".into(),
        labels: LABELS.map(str::to_owned).to_vec(),
        group: 1,
    };
    run(async {
        let (client, scope) = (of_person(&hub), Scope::Repo(repo()));
        hub.inject("POST *", 1, Fault::LoseAnswer);
        let lost = client.generate_jit(&scope, &runner).await;
        assert!(matches!(lost, Err(ClientError::Network { .. })), "{lost:?}");
        let found = client.runners(&scope, Some("mac01-1")).await.unwrap();
        assert_eq!(
            client.delete_runner(&scope, found.items[0].id).await.unwrap(),
            Deletion::Gone
        );
    });
    assert!(hub.ghosts().is_empty());
}

#[test]
fn i18_one_run_that_cannot_be_read_does_not_hide_the_others() {
    let hub = Hub::start();
    let run_id = hub.push("o/r", &LABELS);
    run(async {
        let client = of_person(&hub);
        let whole = client.run(&repo(), run_id).await.unwrap();
        let good = json!({
            "id": run_id, "event": "push", "status": "queued", "repository": {"full_name": "o/r"}, "news": [{}],
        });
        let strange = [json!({"id": "seven"}), json!(null), json!({"id": 7}), good];
        hub.inject(
            "GET *",
            1,
            Fault::Answer(200, json!({"total_count": 4, "workflow_runs": strange})),
        );
        let list = client.runs(&repo(), RunStatus::Queued).await.unwrap();
        assert_eq!((list.items.len(), list.unreadable), (1, 3));
        assert_eq!(list.items[0].id, whole.id);
        assert_eq!(client.report().unreadable, 3);
    });
}
