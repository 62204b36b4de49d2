//! The hub does what GitHub does, as far as flows need it.

mod access;
mod client;
mod description;
mod faults;
mod rest;
mod runners;
mod scale_sets;
mod webhooks;

use serde_json::Value;

use crate::hub::Hub;
use crate::hub::client::{Answer, Caller, request};

/// The labels of most jobs.
const LABELS: [&str; 2] = ["self-hosted", "eph-native"];

/// A hub and somebody who may ask it everything.
fn hub() -> (Hub, Caller) {
    let hub = Hub::start();
    let caller = Caller::new(&hub, &hub.any_token());
    (hub, caller)
}

/// A listener without the runner: it takes jobs and says how they ended.
struct Listener<'hub> {
    hub: &'hub Hub,
    session: String,
}

impl<'hub> Listener<'hub> {
    fn connect(hub: &'hub Hub, runner: u64) -> Self {
        let answer = Self::broker(hub, "POST", "session", &serde_json::json!({"agentId": runner}));
        assert_eq!(answer.status, 200);
        let session = answer.json()["sessionId"]
            .as_str()
            .expect("a session has an id")
            .to_owned();
        Self { hub, session }
    }

    fn broker(hub: &Hub, method: &str, path: &str, body: &Value) -> Answer {
        let url = format!("{}/_broker/{path}", hub.url());
        request(method, &url, &[], body.to_string().as_bytes()).expect("an answer comes")
    }

    fn message(&self) -> Answer {
        Self::broker(
            self.hub,
            "GET",
            &format!("message?sessionId={}", self.session),
            &Value::Null,
        )
    }

    /// The id of the job that the broker hands over.
    fn job(&self) -> u64 {
        self.message().json()["job"]["id"]
            .as_u64()
            .expect("there is a job")
    }

    fn finish(&self, job: u64, result: &str) {
        let answer = Self::broker(
            self.hub,
            "POST",
            "finish",
            &serde_json::json!({"job": job, "result": result}),
        );
        assert_eq!(answer.status, 200);
    }

    fn disconnect(self) {
        let answer = Self::broker(
            self.hub,
            "DELETE",
            &format!("session?sessionId={}", self.session),
            &Value::Null,
        );
        assert_eq!(answer.status, 204);
    }
}
