//! The protocol of runner scale sets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use serde_json::{Value, json};

use super::{LABELS, Listener, hub};
use crate::hub::Hub;
use crate::hub::client::{Answer, Caller, request};
use crate::hub::faults::Fault;
use crate::hub::scale_sets::MessageFault;
use crate::hub::state::Phase;

/// A consumer of scale sets, after the chain of tokens.
struct Consumer {
    tenant: String,
    token: String,
}

impl Consumer {
    fn new(hub: &Hub, caller: &Caller) -> Self {
        let registration = caller
            .post("/orgs/o/actions/runners/registration-token", &Value::Null)
            .json();
        let header = format!("RemoteAuth {}", registration["token"].as_str().unwrap());
        let url = format!("{}/actions/runner-registration", hub.url());
        let answer = request("POST", &url, &[("authorization", &header)], b"{}")
            .unwrap()
            .json();
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        Self {
            tenant: text("url"),
            token: text("token"),
        }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let separator = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}_apis/{path}{separator}api-version=6.0-preview", self.tenant);
        let bearer = format!("Bearer {}", self.token);
        request(
            method,
            &url,
            &[("authorization", &bearer)],
            body.to_string().as_bytes(),
        )
        .unwrap()
    }

    fn set(&self, name: &str) -> u64 {
        let labels: Vec<_> = LABELS
            .iter()
            .map(|it| json!({"type": "System", "name": it}))
            .collect();
        let made = self.ask(
            "POST",
            "runtime/runnerscalesets",
            &json!({"name": name, "runnerGroupId": 1, "labels": labels}),
        );
        made.json()["id"].as_u64().unwrap()
    }

    fn session(&self, set: u64) -> Queue {
        let opened = self
            .ask(
                "POST",
                &format!("runtime/runnerscalesets/{set}/sessions"),
                &json!({"ownerName": "host01"}),
            )
            .json();
        let text = |name: &str| opened[name].as_str().unwrap().to_owned();
        let (url, token, id) = (
            text("messageQueueUrl"),
            text("messageQueueAccessToken"),
            text("sessionId"),
        );
        Queue {
            url,
            token,
            id,
            set,
            tenant: self.tenant.clone(),
        }
    }
}

/// The queue of a session.
struct Queue {
    url: String,
    token: String,
    id: String,
    set: u64,
    tenant: String,
}

impl Queue {
    fn poll(&self, last: u64, capacity: u32) -> Answer {
        let (bearer, capacity) = (format!("Bearer {}", self.token), capacity.to_string());
        let headers = [
            ("authorization", bearer.as_str()),
            ("x-scalesetmaxcapacity", &capacity),
        ];
        request(
            "GET",
            &format!("{}&lastMessageId={last}", self.url),
            &headers,
            &[],
        )
        .unwrap()
    }

    fn delete(&self, message: &Value) {
        let url = self
            .url
            .replace("/message?", &format!("/message/{}?", message["messageId"]));
        let bearer = format!("Bearer {}", self.token);
        assert_eq!(
            request("DELETE", &url, &[("authorization", &bearer)], &[])
                .unwrap()
                .status,
            204
        );
    }

    fn acquire(&self, jobs: &[u64]) -> Answer {
        let url = format!(
            "{}_apis/runtime/runnerscalesets/{}/acquirejobs?api-version=6.0-preview",
            self.tenant, self.set
        );
        let bearer = format!("Bearer {}", self.token);
        request(
            "POST",
            &url,
            &[("authorization", &bearer)],
            json!(jobs).to_string().as_bytes(),
        )
        .unwrap()
    }

    /// The types of the items of the next message, which is deleted.
    fn news(&self) -> Vec<String> {
        let message = self.poll(0, 4).json();
        self.delete(&message);
        items(&message)
            .iter()
            .map(|it| it["messageType"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn items(message: &Value) -> Vec<Value> {
    serde_json::from_str(message["body"].as_str().unwrap()).unwrap()
}

#[test]
fn a_job_goes_from_the_offer_to_its_end() {
    let (hub, caller) = hub();
    let consumer = Consumer::new(&hub, &caller);
    let set = consumer.set("mac");
    let queue = consumer.session(set);
    let job = hub.jobs_of(hub.push("o/r", &["eph-native"]))[0];
    let message = queue.poll(0, 4).json();
    assert_eq!(message["statistics"]["totalAvailableJobs"], 1);
    let offer = &items(&message)[0];
    assert_eq!(
        (&offer["messageType"], &offer["runnerRequestId"]),
        (&json!("JobAvailable"), &json!(job))
    );
    assert_eq!(offer["eventName"], "push");
    assert_eq!(
        queue.poll(0, 4).json()["messageId"],
        message["messageId"],
        "it stays until it is deleted"
    );
    queue.delete(&message);
    assert_eq!(
        queue.acquire(&[job, 5]).json(),
        json!({"count": 1, "value": [job]})
    );
    assert_eq!(queue.news(), ["JobAssigned"]);

    let path = format!("runtime/runnerscalesets/{set}/generatejitconfig");
    let made = consumer
        .ask("POST", &path, &json!({"name": "host01-a", "workFolder": "_work"}))
        .json();
    assert!(made["encodedJITConfig"].is_string());
    let runner = made["runner"]["id"].as_u64().unwrap();
    let listener = Listener::connect(&hub, runner);
    assert_eq!(listener.job(), job);
    assert_eq!(queue.news(), ["JobStarted"]);
    let agent = format!("distributedtask/pools/0/agents/{runner}");
    assert!(
        consumer.ask("DELETE", &agent, &Value::Null).json()["typeName"]
            .as_str()
            .unwrap()
            .contains("JobStillRunningException")
    );
    listener.finish(job, "Succeeded");
    let ended = queue.poll(0, 4).json();
    assert_eq!(items(&ended)[0]["result"], "succeeded");
    assert_eq!(ended["statistics"]["totalAssignedJobs"], 0);
    assert_eq!(consumer.ask("GET", &agent, &Value::Null).status, 404);
}

#[test]
fn a_job_that_is_not_acquired_stays_for_others() {
    let (hub, caller) = hub();
    let consumer = Consumer::new(&hub, &caller);
    let queue = consumer.session(consumer.set("mac"));
    let job = hub.jobs_of(hub.fork_pull_request("o/r", "mallory/r", &["eph-native"]))[0];
    assert_eq!(queue.news(), ["JobAvailable"]);
    let (runner, _) = caller.runner("o/r", "vm", &["eph-native"]);
    assert_eq!(Listener::connect(&hub, runner).job(), job);
    assert_eq!(queue.acquire(&[job]).json()["count"], 0);
}

#[test]
fn a_job_that_no_runner_took_is_canceled_and_offered_again() {
    let (hub, caller) = hub();
    let consumer = Consumer::new(&hub, &caller);
    let queue = consumer.session(consumer.set("mac"));
    let job = hub.jobs_of(hub.push("o/r", &LABELS))[0];
    assert_eq!(queue.news(), ["JobAvailable"]);
    queue.acquire(&[job]);
    hub.take_back(job);
    assert_eq!(queue.news(), ["JobAssigned", "JobCompleted", "JobAvailable"]);
    assert_eq!(hub.job(job).phase, Phase::Queued);
}

#[test]
fn a_set_has_one_session() {
    let (hub, caller) = hub();
    hub.set_long_poll(Duration::from_millis(10));
    let consumer = Consumer::new(&hub, &caller);
    let set = consumer.set("mac");
    let mut queue = consumer.session(set);
    let path = format!("runtime/runnerscalesets/{set}/sessions");
    let second = consumer.ask("POST", &path, &json!({"ownerName": "host02"}));
    assert_eq!(second.status, 409);
    assert!(
        second.json()["message"]
            .as_str()
            .unwrap()
            .ends_with("already has an active session for owner host01.")
    );
    let session = format!("{path}/{}", queue.id);
    let fresh = consumer.ask("PATCH", &session, &Value::Null).json();
    assert_eq!(queue.poll(0, 1).status, 401, "its token is replaced");
    fresh["messageQueueAccessToken"]
        .as_str()
        .unwrap()
        .clone_into(&mut queue.token);
    assert_eq!(queue.poll(0, 1).status, 202);
    assert_eq!(consumer.ask("DELETE", &session, &Value::Null).status, 204);
    assert_eq!(queue.poll(0, 1).status, 404);
    assert_eq!(
        consumer
            .ask("POST", &path, &json!({"ownerName": "host02"}))
            .status,
        200
    );
    assert_eq!(hub.scale_sets()[&set].session.as_ref().unwrap().owner, "host02");
}

#[test]
fn sets_are_made_found_changed_and_deleted() {
    let (hub, caller) = hub();
    let consumer = Consumer::new(&hub, &caller);
    let set = consumer.set("mac");
    let all = "runtime/runnerscalesets";
    let twin = consumer.ask("POST", all, &json!({"name": "mac", "runnerGroupId": 1}));
    assert_eq!(twin.status, 400);
    assert_eq!(
        consumer
            .ask("GET", &format!("{all}?runnerGroupId=1&name=mac"), &Value::Null)
            .json()["value"][0]["id"],
        set
    );
    let one = format!("{all}/{set}");
    consumer.ask("PATCH", &one, &json!({"labels": [{"name": "other"}]}));
    assert_eq!(
        consumer.ask("GET", &one, &Value::Null).json()["labels"][0]["name"],
        "other"
    );
    let group = consumer
        .ask("GET", "runtime/runnergroups/?groupName=Default", &Value::Null)
        .json();
    assert_eq!(group["value"][0]["isDefaultGroup"], true);
    let jit = json!({"name": "a"});
    let path = format!("{one}/generatejitconfig");
    consumer.ask("POST", &path, &jit);
    assert!(
        consumer.ask("POST", &path, &jit).json()["typeName"]
            .as_str()
            .unwrap()
            .contains("AgentExistsException")
    );
    let named = consumer
        .ask("GET", "distributedtask/pools/0/agents?agentName=a", &Value::Null)
        .json();
    assert_eq!(named["value"][0]["runnerScaleSetId"], set);
    let agent = format!("distributedtask/pools/0/agents/{}", named["value"][0]["id"]);
    assert_eq!(consumer.ask("DELETE", &agent, &Value::Null).status, 204);
    assert_eq!(consumer.ask("DELETE", &one, &Value::Null).status, 204);
    assert_eq!(consumer.ask("GET", &one, &Value::Null).status, 404);
}

#[test]
fn tokens_are_not_interchangeable_and_end() {
    let (hub, caller) = hub();
    hub.set_admin_life_s(0);
    let late = Consumer::new(&hub, &caller);
    assert_eq!(
        late.ask("GET", "runtime/runnerscalesets", &Value::Null).status,
        401
    );
    hub.set_admin_life_s(3_600);
    let consumer = Consumer::new(&hub, &caller);
    let mut queue = consumer.session(consumer.set("mac"));
    consumer.token.clone_into(&mut queue.token);
    assert_eq!(queue.poll(0, 1).status, 401);
    assert_eq!(queue.acquire(&[1]).status, 401);
    let url = format!("{}/actions/runner-registration", hub.url());
    assert_eq!(
        request("POST", &url, &[("authorization", "RemoteAuth nothing")], b"{}")
            .unwrap()
            .status,
        401
    );
}

#[test]
fn the_stated_capacity_bounds_the_offers() {
    let (hub, caller) = hub();
    let consumer = Consumer::new(&hub, &caller);
    let set = consumer.set("mac");
    let queue = consumer.session(set);
    hub.matrix("o/r", 8, &LABELS);
    assert_eq!(queue.poll(0, 0).status, 202, "none while cordoned");
    assert_eq!(hub.scale_sets()[&set].capacity, Some(0));
    assert_eq!(items(&queue.poll(0, 3).json()).len(), 3);
}

#[test]
fn a_backlog_is_cut_to_fifty_but_counted_whole() {
    let (hub, caller) = hub();
    let consumer = Consumer::new(&hub, &caller);
    let queue = consumer.session(consumer.set("mac"));
    hub.matrix("o/r", 60, &LABELS);
    let message = queue.poll(0, 100).json();
    assert_eq!(items(&message).len(), 50);
    assert_eq!(message["statistics"]["totalAvailableJobs"], 60);
}

#[test]
fn messages_can_come_twice_reversed_strange_or_broken() {
    let (hub, caller) = hub();
    let consumer = Consumer::new(&hub, &caller);
    let set = consumer.set("mac");
    let queue = consumer.session(set);
    let push = || hub.jobs_of(hub.push("o/r", &LABELS))[0];
    hub.spoil_message(MessageFault::Twice);
    let first = push();
    let message = queue.poll(0, 9).json();
    queue.delete(&message);
    let last = message["messageId"].as_u64().unwrap();
    let again = queue.poll(last, 9).json();
    assert_eq!(again["messageId"], last);
    queue.delete(&again);

    hub.spoil_message(MessageFault::UnknownType);
    push();
    assert_eq!(queue.news(), ["JobTeleported", "JobAvailable"]);

    hub.spoil_message(MessageFault::BrokenBody);
    push();
    let broken = queue.poll(0, 9).json();
    serde_json::from_str::<Value>(broken["body"].as_str().unwrap()).unwrap_err();
    queue.delete(&broken);

    queue.acquire(&[first]);
    let made = consumer
        .ask(
            "POST",
            &format!("runtime/runnerscalesets/{set}/generatejitconfig"),
            &json!({"name": "a"}),
        )
        .json();
    let listener = Listener::connect(&hub, made["runner"]["id"].as_u64().unwrap());
    listener.finish(listener.job(), "Failed");
    hub.spoil_message(MessageFault::Reversed);
    assert_eq!(queue.news(), ["JobCompleted", "JobStarted", "JobAssigned"]);
    assert_eq!(hub.job(first).phase, Phase::Completed);
}

#[test]
fn the_protocol_has_the_faults_of_the_wire_too() {
    let (hub, caller) = hub();
    let consumer = Consumer::new(&hub, &caller);
    let queue = consumer.session(consumer.set("mac"));
    hub.inject("GET /_tenant/message", 1, Fault::status(401));
    assert_eq!(queue.poll(0, 1).status, 401);
    hub.inject("GET /_tenant/*", 1, Fault::ByteOrderMark);
    assert!(
        consumer
            .ask("GET", "runtime/runnerscalesets", &Value::Null)
            .body
            .starts_with(b"\xef\xbb\xbf")
    );
}
