//! Who asks, and with what.

use std::slice;

use ephemerd::github::api::Scope;
use ephemerd::github::api::runs::RunStatus;
use ephemerd::github::client::{Client, ClientError, Credentials, Options, SetupError};
use ephemerd::github::secret::Secret;
use serde_json::json;

use super::{app, asked, client, mints, of_app, options, repo, run};
use crate::checks::LABELS;
use crate::hub::Hub;
use crate::hub::auth::{APP_ID, CLIENT_ID, app_key_pem};
use crate::hub::faults::Fault;

const MINT: &str = "POST /app/installations/9/access_tokens 201";

#[test]
fn the_app_asks_with_tokens_for_one_repository_and_one_purpose() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        let client = of_app(&hub);
        assert_eq!(
            client.runs(&repo(), RunStatus::Queued).await.unwrap().items.len(),
            1
        );
        client.runners(&Scope::Repo(repo()), None).await.unwrap();
        client.runners(&Scope::Org("o".into()), None).await.unwrap();
        // The same purpose again needs no other token.
        client.runs(&repo(), RunStatus::InProgress).await.unwrap();
        assert_eq!(client.report().minted, 3);
    });
    let requests = hub.requests();
    let bodies: Vec<_> = requests
        .iter()
        .filter(|it| it.method == "POST")
        .map(|it| it.body.clone())
        .collect();
    assert_eq!(
        bodies,
        [
            json!({"repositories": ["r"], "permissions": {"actions": "read"}}),
            json!({"repositories": ["r"], "permissions": {"administration": "write"}}),
            json!({"permissions": {"organization_self_hosted_runners": "write"}}),
        ]
    );
    assert_eq!(
        asked(&hub),
        [
            MINT,
            "GET /repos/o/r/actions/runs 200",
            MINT,
            "GET /repos/o/r/actions/runners 200",
            MINT,
            "GET /orgs/o/actions/runners 200",
            "GET /repos/o/r/actions/runs 200",
        ]
    );
}

#[test]
fn an_app_goes_by_its_client_id_or_its_number() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        for name in [CLIENT_ID.to_owned(), APP_ID.to_string()] {
            assert!(
                client(&hub, app(&name))
                    .runs(&repo(), RunStatus::Queued)
                    .await
                    .is_ok()
            );
        }
        let stranger = client(&hub, app("somebody"))
            .runs(&repo(), RunStatus::Queued)
            .await;
        let Err(ClientError::Unauthorized { asked, message }) = stranger else {
            panic!("another answer: {stranger:?}");
        };
        assert_eq!(
            (asked.as_str(), message.as_str()),
            ("POST /app/installations/9/access_tokens", "Integration not found")
        );
    });
}

#[test]
fn a_personal_token_is_used_as_it_is_and_nobody_sends_none() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    let token = hub.any_token();
    run(async {
        let person = client(&hub, Credentials::Token(Secret::from(token.clone())));
        person.runs(&repo(), RunStatus::Queued).await.unwrap();
        client(&hub, Credentials::Nobody).latest_runner().await.unwrap();
    });
    let sent: Vec<_> = hub.requests().into_iter().map(|it| it.token).collect();
    assert_eq!(sent, [token, String::new()]);
}

#[test]
fn i14_a_burst_of_questions_asks_for_one_token() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        let client = of_app(&hub);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let client = client.clone();
            tasks.spawn(async move { client.runs(&repo(), RunStatus::Queued).await.is_ok() });
        }
        assert!(tasks.join_all().await.into_iter().all(|is_ok| is_ok));
    });
    assert_eq!((mints(&hub), hub.requests().len()), (1, 21));
}

#[test]
fn a_burst_fails_together_when_there_is_no_token() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.inject("POST *", u32::MAX, Fault::status(502));
    run(async {
        let client = of_app(&hub);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let client = client.clone();
            tasks.spawn(async move { client.runs(&repo(), RunStatus::Queued).await });
        }
        let answers = tasks.join_all().await;
        assert!(
            answers
                .iter()
                .all(|it| matches!(it, Err(ClientError::Server { status: 502, .. })))
        );
        assert_eq!(mints(&hub), 1);
        hub.heal();
        client.runs(&repo(), RunStatus::Queued).await.unwrap();
    });
}

#[test]
fn i14_a_token_is_not_used_in_its_last_five_minutes() {
    for (life_s, expected) in [(299, 3), (400, 1), (3_600, 1)] {
        let hub = Hub::start();
        hub.push("o/r", &LABELS);
        hub.set_token_life_s(life_s);
        run(async {
            let client = of_app(&hub);
            for _ in 0..3 {
                client.runs(&repo(), RunStatus::Queued).await.unwrap();
            }
        });
        assert_eq!(mints(&hub), expected, "tokens of {life_s} s");
    }
}

#[test]
fn a_token_that_is_not_taken_is_asked_for_anew_once() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        let client = of_app(&hub);
        client.runs(&repo(), RunStatus::Queued).await.unwrap();
        hub.revoke_tokens();
        client.runs(&repo(), RunStatus::Queued).await.unwrap();
        assert_eq!(mints(&hub), 2);
        // Expired by GitHub's clock, which jumped: the same.
        hub.set_clock_ahead_s(7_200);
        client.runs(&repo(), RunStatus::Queued).await.unwrap();
        hub.set_clock_ahead_s(0);
        hub.inject("GET *", 2, Fault::status(401));
        let before = hub.requests().len();
        let refused = client.runs(&repo(), RunStatus::Queued).await;
        assert!(
            matches!(refused, Err(ClientError::Unauthorized { .. })),
            "{refused:?}"
        );
        let gets = hub.requests()[before..]
            .iter()
            .filter(|it| it.method == "GET")
            .count();
        assert_eq!(gets, 2, "once more, not for ever");
    });
}

#[test]
fn a_personal_token_that_is_not_taken_is_not_tried_again() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        let client = super::of_person(&hub);
        hub.revoke_tokens();
        let refused = client.runs(&repo(), RunStatus::Queued).await.unwrap_err();
        insta::assert_snapshot!(refused, @r"
        GET /repos/o/r/actions/runs: GitHub does not take our credential: Bad credentials
        hint: was the token revoked, or is the key another App's? `ephemerd github check` tells more
        ");
    });
    assert_eq!(asked(&hub), ["GET /repos/o/r/actions/runs 401"]);
}

#[test]
fn a_clock_that_is_ten_minutes_wrong_works_and_is_reported() {
    for ahead_s in [600, -600] {
        let hub = Hub::start();
        hub.push("o/r", &LABELS);
        hub.set_clock_ahead_s(ahead_s);
        run(async {
            let client = of_app(&hub);
            client.runs(&repo(), RunStatus::Queued).await.unwrap();
            client.runners(&Scope::Repo(repo()), None).await.unwrap();
            client.installation().await.unwrap().unwrap();
            let report = client.report();
            assert!(report.is_clock_wrong());
            let off_by = report.clock_skew_s.unwrap() + ahead_s;
            assert!(off_by.abs() < 60, "{report:?}");
            assert_eq!(report.failed, 0, "nobody who asked has noticed");
        });
        let refused = hub.requests().iter().filter(|it| it.status == 401).count();
        assert_eq!(refused, 1, "what the first refusal told is kept in mind");
    }
}

#[test]
fn what_the_app_may_not_do_is_told_with_the_permission() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.push("o/other", &LABELS);
    hub.installation("actions:read", Some(&["o/r"]));
    run(async {
        let client = of_app(&hub);
        let refused = client.runners(&Scope::Repo(repo()), None).await.unwrap_err();
        insta::assert_snapshot!(refused, @r"
        POST /app/installations/9/access_tokens: GitHub refuses: The permissions requested are not granted to this installation.
        hint: the credential needs the permission administration=write
        ");
        let other = "o/other".parse().unwrap();
        let unseen = client.runs(&other, RunStatus::Queued).await;
        // That a token is not given says nothing of what it was to be asked with.
        assert!(matches!(unseen, Err(ClientError::Forbidden { .. })), "{unseen:?}");
        let absent = Credentials::App {
            app: CLIENT_ID.to_owned(),
            installation: 10,
            private_key: Secret::from(app_key_pem()),
        };
        let absent = super::client(&hub, absent).runs(&repo(), RunStatus::Queued).await;
        assert!(matches!(absent, Err(ClientError::Forbidden { .. })), "{absent:?}");
    });
}

#[test]
fn what_a_personal_token_may_not_do_is_told_with_the_permission() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    let token = hub.personal_token("actions:read", None);
    run(async {
        let client = client(&hub, Credentials::Token(Secret::from(token)));
        let Err(ClientError::Forbidden { message, needs, .. }) =
            client.runners(&Scope::Repo(repo()), None).await
        else {
            panic!("another answer");
        };
        assert_eq!(message, "Resource not accessible by personal access token");
        assert_eq!(needs.as_deref(), Some("administration=read"));
    });
}

#[test]
fn settings_that_make_no_client_are_refused_at_once() {
    let hub = Hub::start();
    let made = |change: fn(&mut Options)| {
        let mut options = options(&hub, app(CLIENT_ID));
        change(&mut options);
        match Client::new(options) {
            Err(ClientError::Setup(error)) => error,
            other => panic!("another answer: {other:?}"),
        }
    };
    let broken = Secret::new("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n");
    let broken = Credentials::App {
        app: CLIENT_ID.to_owned(),
        installation: 9,
        private_key: broken,
    };
    run(async {
        let remote = made(|it| it.url = "http://github.example.com/api/v3".into());
        assert!(matches!(remote, SetupError::Url(_)));
        let token = made(|it| it.credentials = Credentials::Token(Secret::new("ghp_x\n")));
        assert!(matches!(token, SetupError::Token));
        let error = Client::new(options(&hub, broken)).unwrap_err();
        assert!(matches!(error, ClientError::Setup(SetupError::Key(_))));
        for shown in slice::from_ref(&error).iter().map(|it| format!("{it:?} {it}")) {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    });
    assert!(hub.requests().is_empty());
}
