//! Everything that can go wrong on the way.

use std::io::ErrorKind;

use serde_json::{Value, json};

use super::{LABELS, hub};
use crate::hub::faults::{Fault, Gate};

const RUNS: &str = "/repos/o/r/actions/runs";

#[test]
fn a_fault_hits_so_many_requests_of_its_kind() {
    let (hub, caller) = hub();
    hub.push("o/r", &LABELS);
    hub.inject("GET /repos/*/actions/runs", 2, Fault::status(502));
    let statuses = [
        caller.get("/meta").status,
        caller.get(RUNS).status,
        caller.get(RUNS).status,
        caller.get(RUNS).status,
    ];
    assert_eq!(statuses, [200, 502, 502, 200]);
    hub.inject("GET *", u32::MAX, Fault::status(500));
    hub.heal();
    let logged: Vec<_> = hub.requests().iter().map(|it| it.status).collect();
    assert_eq!(logged, statuses);
}

#[test]
fn answers_can_be_pages_plain_text_marked_or_endless() {
    let (hub, caller) = hub();
    hub.push("o/r", &LABELS);
    hub.inject("GET *", 1, Fault::Html(503));
    let page = caller.get(RUNS);
    assert_eq!((page.status, page.header("content-type")), (503, "text/html"));
    assert!(page.body.starts_with(b"<!DOCTYPE html>"));
    hub.inject("GET *", 1, Fault::WrongType);
    assert_eq!(caller.get(RUNS).header("content-type"), "text/plain");
    hub.inject("GET *", 1, Fault::ByteOrderMark);
    assert!(caller.get(RUNS).body.starts_with(b"\xef\xbb\xbf{"));
    hub.inject("GET *", 1, Fault::Huge);
    assert_eq!(caller.get(RUNS).body.len(), 10 * 1024 * 1024);
}

#[test]
fn a_redirect_leads_to_itself() {
    let (hub, caller) = hub();
    hub.inject("GET /meta", 1, Fault::RedirectLoop);
    let answer = caller.get("/meta?x=1");
    assert_eq!((answer.status, answer.header("location")), (302, "/meta?x=1"));
}

#[test]
fn an_answer_can_end_in_the_middle() {
    let (hub, caller) = hub();
    hub.push("o/r", &LABELS);
    hub.inject("GET *", 1, Fault::Truncated);
    let error = caller.send("GET", RUNS, &[], &Value::Null).unwrap_err();
    assert_eq!(error.to_string(), "the body ends early");
}

#[test]
fn a_connection_can_be_reset_before_or_after_the_request_is_carried_out() {
    let (hub, caller) = hub();
    hub.repository("o/r", true);
    let asked = json!({"name": "a", "runner_group_id": 1, "labels": LABELS});
    let path = "/repos/o/r/actions/runners/generate-jitconfig";
    for (fault, runners) in [(Fault::Reset, 0), (Fault::LoseAnswer, 1)] {
        hub.inject("POST *", 1, fault);
        let error = caller.send("POST", path, &[], &asked).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(hub.runners().len(), runners);
    }
    assert_eq!(hub.ghosts().len(), 1, "made, but nobody knows its id");
}

#[test]
fn a_request_can_be_held_until_the_test_lets_it_go() {
    let (hub, caller) = hub();
    hub.push("o/r", &LABELS);
    let gate = Gate::default();
    hub.inject("GET *", 1, Fault::Hold(gate.clone()));
    std::thread::scope(|scope| {
        let held = scope.spawn(|| caller.get(RUNS).json()["total_count"].clone());
        hub.wait("the request to be held", |state| state.held().then_some(()));
        hub.push("o/r", &LABELS);
        assert!(hub.requests().is_empty(), "it is not answered");
        gate.open();
        assert_eq!(held.join().unwrap(), 2, "it is carried out only now");
    });
    hub.wait("the answer to be logged", |state| {
        (state.requests().len() == 1).then_some(())
    });
}

#[test]
fn limits_say_when_to_come_back() {
    let (hub, caller) = hub();
    hub.push("o/r", &LABELS);
    hub.inject("GET *", 1, Fault::PrimaryLimit(90));
    let primary = caller.get(RUNS);
    assert_eq!(
        (primary.status, primary.header("x-ratelimit-remaining")),
        (403, "0")
    );
    assert!(primary.header("x-ratelimit-reset").parse::<u64>().unwrap() > 1_700_000_000);
    hub.inject("GET *", 1, Fault::SecondaryLimit(60));
    let secondary = caller.get(RUNS);
    assert_eq!((secondary.status, secondary.header("retry-after")), (403, "60"));
    assert!(
        secondary.json()["message"]
            .as_str()
            .unwrap()
            .contains("secondary rate limit")
    );
    hub.inject("GET *", 1, Fault::TooMany(7));
    let too_many = caller.get(RUNS);
    assert_eq!((too_many.status, too_many.header("retry-after")), (429, "7"));
    assert_eq!(hub.faults_left(|pattern| pattern == "GET *"), 0);
}

#[test]
fn what_exists_can_be_not_found_for_a_while() {
    let (hub, caller) = hub();
    let run = hub.push("o/r", &LABELS);
    hub.inject("GET /repos/o/r/actions/runs/*", 1, Fault::status(404));
    let path = format!("{RUNS}/{run}");
    assert_eq!(caller.get(&path).status, 404);
    assert_eq!(caller.get(&path).status, 200);
}
