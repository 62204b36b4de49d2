//! Answers that are kept, come in pages, or are elsewhere.

use ephemerd::github::api::Scope;
use ephemerd::github::api::runs::RunStatus;
use ephemerd::github::client::{ClientError, Oddity};

use super::{asked, of_app, of_person, repo, run};
use crate::checks::LABELS;
use crate::hub::Hub;
use crate::hub::faults::Fault;

#[test]
fn a_list_that_did_not_change_costs_nothing() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        let client = of_person(&hub);
        let first = client.runs(&repo(), RunStatus::Queued).await.unwrap();
        let counted = hub.counted_calls();
        for _ in 0..5 {
            assert_eq!(client.runs(&repo(), RunStatus::Queued).await.unwrap(), first);
        }
        assert_eq!((hub.counted_calls(), client.report().unchanged), (counted, 5));
        hub.push("o/r", &LABELS);
        assert_eq!(
            client.runs(&repo(), RunStatus::Queued).await.unwrap().items.len(),
            2
        );
        assert_eq!(hub.counted_calls(), counted + 1);
    });
}

#[test]
fn what_one_token_was_answered_is_not_held_against_the_next() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        let client = of_app(&hub);
        for _ in 0..2 {
            client.runs(&repo(), RunStatus::Queued).await.unwrap();
        }
        hub.revoke_tokens();
        for _ in 0..2 {
            client.runs(&repo(), RunStatus::Queued).await.unwrap();
        }
    });
    let gets: Vec<_> = hub
        .requests()
        .into_iter()
        .filter(|it| it.method == "GET")
        .map(|it| (it.status, it.conditional))
        .collect();
    // The third is asked with the token that is revoked, and again with the new one.
    assert_eq!(
        gets,
        [(200, false), (304, true), (401, true), (200, false), (304, true)]
    );
}

#[test]
fn lists_are_read_to_their_last_page() {
    let hub = Hub::start();
    let runs: Vec<u64> = (0..250).map(|_| hub.push("o/r", &LABELS)).collect();
    run(async {
        let client = of_person(&hub);
        let list = client.runs(&repo(), RunStatus::Queued).await.unwrap();
        let mut found: Vec<_> = list.items.iter().map(|it| it.id).collect();
        found.reverse();
        assert_eq!((found, list.unreadable), (runs, 0));
        assert_eq!(hub.requests().len(), 3);
        let counted = hub.counted_calls();
        assert_eq!(client.runs(&repo(), RunStatus::Queued).await.unwrap(), list);
        assert_eq!(hub.counted_calls(), counted, "every page is kept");
    });
}

#[test]
fn a_list_without_an_end_is_left() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    let same = format!("{}/repos/o/r/actions/runs?page=1", hub.url());
    hub.inject("GET *", u32::MAX, Fault::Next(same));
    run(async {
        let endless = of_person(&hub).runs(&repo(), RunStatus::Queued).await;
        let Err(ClientError::NotGitHub {
            oddity: Oddity::Endless(pages),
            ..
        }) = endless
        else {
            panic!("another answer: {endless:?}");
        };
        assert_eq!(hub.requests().len(), pages);
    });
}

#[test]
fn a_repository_that_was_renamed_is_followed_once() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.repository("o/old", true);
    let old = "o/old".parse().unwrap();
    for status in [301, 302, 307, 308] {
        let to = format!("{}/repos/o/r/actions/runs?status=queued", hub.url());
        hub.inject("GET /repos/o/old/*", 1, Fault::Redirect(status, to));
        run(async {
            let list = of_person(&hub).runs(&old, RunStatus::Queued).await.unwrap();
            // Whoever looks at the run sees that it is of another repository.
            assert_eq!(list.items[0].repository.full_name, "o/r");
        });
    }
}

#[test]
fn a_redirect_that_leads_to_itself_is_left() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.inject("GET *", u32::MAX, Fault::RedirectLoop);
    run(async {
        let looped = of_person(&hub).runs(&repo(), RunStatus::Queued).await;
        assert!(
            matches!(looped, Err(ClientError::Redirected { .. })),
            "{looped:?}"
        );
    });
    assert_eq!(hub.requests().len(), 2);
}

#[test]
fn nothing_is_sent_to_another_server() {
    let (hub, elsewhere) = (Hub::start(), Hub::start());
    hub.push("o/r", &LABELS);
    elsewhere.push("o/r", &LABELS);
    let there = format!("{}/repos/o/r/actions/runs", elsewhere.url());
    run(async {
        let client = of_person(&hub);
        hub.inject("GET *", 1, Fault::Redirect(301, there.clone()));
        let Err(ClientError::Redirected { to, .. }) = client.runs(&repo(), RunStatus::Queued).await else {
            panic!("another answer");
        };
        assert_eq!(to, there);
        hub.inject("GET *", 1, Fault::Next(there.clone()));
        let page = client.runs(&repo(), RunStatus::Queued).await;
        assert!(matches!(page, Err(ClientError::Redirected { .. })), "{page:?}");
    });
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn what_changes_something_is_not_sent_twice_because_of_a_redirect() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    let to = format!("{}/repos/o/r/actions/runners/1", hub.url());
    hub.inject("DELETE *", 1, Fault::Redirect(307, to));
    run(async {
        let moved = of_person(&hub).delete_runner(&Scope::Repo(repo()), 1).await;
        assert!(matches!(moved, Err(ClientError::Redirected { .. })), "{moved:?}");
    });
    assert_eq!(asked(&hub), ["DELETE /repos/o/r/actions/runners/1 307"]);
}
