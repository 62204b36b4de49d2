//! Webhooks.

use aws_lc_rs::hmac;
use serde_json::Value;

use super::{LABELS, Listener, hub};
use crate::hub::webhooks::deliver;

#[test]
fn deliveries_of_a_job_s_life_are_signed_and_keep_to_the_schemas() {
    let (hub, caller) = hub();
    let run = hub.push("o/r", &LABELS);
    let (runner, _) = caller.runner("o/r", "a", &LABELS);
    let listener = Listener::connect(&hub, runner);
    let job = listener.job();
    listener.finish(job, "Failed");
    let mut deliveries = hub.deliveries(job, "hook secret");
    let payloads: Vec<Value> = deliveries
        .iter()
        .map(|it| serde_json::from_slice(&it.body).unwrap())
        .collect();
    let actions: Vec<_> = payloads.iter().map(|it| &it["action"]).collect();
    assert_eq!(actions, ["queued", "in_progress", "completed"]);
    assert_eq!(payloads[0]["workflow_job"]["runner_id"], Value::Null);
    assert_eq!(payloads[1]["workflow_job"]["runner_id"], runner);
    assert_eq!(payloads[2]["workflow_job"]["conclusion"], "failure");
    assert_eq!(payloads[2]["workflow_job"]["run_id"], run);

    // Out of order and twice is what a test makes of them.
    deliveries.reverse();
    let again = deliver(&payloads[0], "hook secret");
    deliveries.push(again);
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"hook secret");
    for it in deliveries {
        let signature = it
            .headers
            .iter()
            .find(|it| it.0 == "x-hub-signature-256")
            .unwrap()
            .1
            .clone();
        let digits = signature.strip_prefix("sha256=").unwrap();
        let bytes: Vec<_> = (0..32)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        hmac::verify(&key, &it.body, &bytes).unwrap();
    }
}

#[test]
fn a_delivery_can_be_sent_as_often_as_wanted() {
    let (hub, _) = hub();
    let job = hub.jobs_of(hub.push("o/r", &LABELS))[0];
    let delivery = &hub.deliveries(job, "hook secret")[0];
    // Any server will do: this one logs what it gets, and serves nothing there.
    for _ in 0..2 {
        assert_eq!(delivery.send(&format!("{}/webhook", hub.url())).unwrap(), 404);
    }
    hub.take_violations();
    let bodies: Vec<_> = hub
        .requests()
        .iter()
        .map(|it| it.body["workflow_job"]["id"].clone())
        .collect();
    assert_eq!(bodies, [job, job]);
}
