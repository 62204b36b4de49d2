//! While a limit is on, nothing is asked.

use std::time::Duration;

use ephemerd::github::api::runs::RunStatus;
use ephemerd::github::client::{ClientError, Retry};
use serde_json::json;

use super::{asked, of_app, of_person, repo, run};
use crate::checks::LABELS;
use crate::hub::Hub;
use crate::hub::faults::Fault;

/// The wait that a fault leads to, after which nothing more is sent.
fn waiting(fault: Fault) -> Duration {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.inject("GET *", 1, fault);
    run(async {
        let client = of_person(&hub);
        let first = client.runs(&repo(), RunStatus::Queued).await.unwrap_err();
        let ClientError::Limited { wait, .. } = first else {
            panic!("another error: {first}");
        };
        assert_eq!(first.retry(), Retry::After(wait));
        for _ in 0..3 {
            let next = client.rate_limit().await.unwrap_err();
            assert!(
                matches!(next, ClientError::Limited { wait: left, .. } if left <= wait),
                "{next}"
            );
        }
        assert_eq!(hub.requests().len(), 1);
        let report = client.report();
        assert_eq!((report.requests, report.limited, report.held_back), (1, 1, 3));
        assert!(report.limited_until.is_some());
        wait
    })
}

fn seconds(range: std::ops::RangeInclusive<u64>) -> std::ops::RangeInclusive<Duration> {
    Duration::from_secs(*range.start())..=Duration::from_secs(*range.end())
}

#[test]
fn the_hourly_limit_lasts_until_github_says() {
    assert!(seconds(500..=501).contains(&waiting(Fault::PrimaryLimit(500))));
}

#[test]
fn a_limit_that_names_its_wait_is_waited_for_so_long() {
    assert_eq!(waiting(Fault::SecondaryLimit(77)), Duration::from_secs(77));
}

#[test]
fn a_limit_that_names_no_wait_is_waited_for_a_minute() {
    let message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
    let minute = Duration::from_secs(60);
    assert_eq!(waiting(Fault::Answer(403, json!({"message": message}))), minute);
    assert_eq!(
        waiting(Fault::Answer(429, json!({"message": "Too many requests"}))),
        minute
    );
}

#[test]
fn a_limit_that_is_over_is_over() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.inject("GET *", 1, Fault::SecondaryLimit(0));
    run(async {
        let client = of_person(&hub);
        let limited = client.runs(&repo(), RunStatus::Queued).await;
        assert!(matches!(limited, Err(ClientError::Limited { .. })));
        client.runs(&repo(), RunStatus::Queued).await.unwrap();
        assert_eq!(client.report().limited_until, None);
    });
}

#[test]
fn a_limit_on_tokens_holds_for_everything() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.inject("POST *", 1, Fault::SecondaryLimit(60));
    run(async {
        let client = of_app(&hub);
        for _ in 0..2 {
            let limited = client.runs(&repo(), RunStatus::Queued).await;
            assert!(matches!(limited, Err(ClientError::Limited { .. })), "{limited:?}");
        }
    });
    assert_eq!(asked(&hub), ["POST /app/installations/9/access_tokens 403"]);
}

#[test]
fn a_missing_permission_is_no_limit() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    hub.inject("GET *", 1, Fault::status(403));
    run(async {
        let client = of_person(&hub);
        let refused = client.runs(&repo(), RunStatus::Queued).await;
        assert!(
            matches!(refused, Err(ClientError::Forbidden { needs: None, .. })),
            "{refused:?}"
        );
        client.runs(&repo(), RunStatus::Queued).await.unwrap();
    });
}

#[test]
fn what_is_left_is_reported() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        let client = of_person(&hub);
        assert_eq!(client.report().limit, None);
        client.runs(&repo(), RunStatus::Queued).await.unwrap();
        let report = client.report();
        assert_eq!((report.limit, report.remaining), (Some(5_000), Some(4_999)));
        assert!(report.reset_unix_s.is_some() && !report.is_clock_wrong());
        let counted = hub.counted_calls();
        let left = client.rate_limit().await.unwrap();
        assert_eq!(
            (left.limit, left.remaining, hub.counted_calls()),
            (5_000, 4_999, counted)
        );
    });
}
