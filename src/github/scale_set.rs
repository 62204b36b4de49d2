//! Runner scale sets: what their protocol says, read leniently, and what follows from it. Pure; [`super::api`] asks.
//!
//! A **scale set** is a named group of runners that GitHub offers jobs to. Its one consumer opens a **session** and asks its
//! queue for messages, one long poll after the other. A job is **offered**; acquiring it makes it one of the set's, which
//! runs on the set's runners and on no other, and not acquiring it leaves it to others.
//!
//! ```text
//!  message ─► offers ─► run, by REST ─► trust ─┬─► acquire ─┐
//!     │                                        └─► declined │
//!     └─► statistics: assigned jobs ◄───── GitHub ◄─────────┘
//!             └─► how many runners there should be
//! ```
//!
//! How many runners there should be follows from the statistics alone, which every message brings. So a message that comes
//! twice, late or spoilt changes nothing: what is counted is how things stand, never what happened.
//!
//! The protocol is not documented. Source: `actions/scaleset` and the Actions Runner Controller, which use nothing else.

mod decide;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::client::GITHUB_COM;
use super::secret::Secret;
use super::ticket::Scope;
use crate::job::Repo;

pub use decide::{Backoff, Chosen, Heard, Trouble, UNLISTED, choose, dropped, heard, wanted};

/// The type of message that tells of jobs.
const JOB_MESSAGES: &str = "RunnerScaleSetJobMessages";

/// A scale set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleSet {
    /// GitHub's number of it.
    pub id: u64,
    /// Its name, which no other of its runner group has.
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    labels: Vec<Label>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Label {
    name: String,
}

impl ScaleSet {
    /// The labels that GitHub gave it.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(|label| label.name.as_str())
    }
}

/// The session of a scale set's consumer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Which one.
    pub session_id: String,
    /// Where its messages are.
    pub message_queue_url: String,
    /// What the queue takes.
    pub message_queue_access_token: Secret,
    /// How things stand.
    #[serde(default)]
    pub statistics: Option<Statistics>,
}

/// How things stand with a scale set. What is not told is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Statistics {
    /// Jobs that could be acquired.
    pub total_available_jobs: i64,
    /// Jobs that the set has, running ones included.
    pub total_assigned_jobs: i64,
    /// Those of them that a runner has.
    pub total_running_jobs: i64,
}

/// A message of a session's queue.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Which one; later ones have higher numbers.
    pub message_id: i64,
    #[serde(default)]
    message_type: String,
    /// A list in JSON, as a text.
    #[serde(default)]
    body: Option<String>,
    /// How things stand, as everything is counted from.
    #[serde(default)]
    pub statistics: Option<Statistics>,
}

/// A job that may be acquired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it is acquired by; it is not the number that the REST API has for the job.
    pub request: i64,
    /// Whose job it is.
    pub repo: Repo,
    /// The run it belongs to.
    pub run: u64,
    /// What the workflow calls it.
    pub name: String,
}

/// What a message says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Jobs that may be acquired.
    pub offers: Vec<Offer>,
    /// Runs of which something changed.
    pub runs: BTreeSet<(Repo, u64)>,
    /// Types of items that nobody here knows.
    pub unknown: BTreeSet<String>,
    /// How many items could not be read.
    pub unreadable: usize,
}

/// An item of a message. Only what is used is read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Item {
    message_type: String,
    runner_request_id: i64,
    owner_name: String,
    repository_name: String,
    workflow_run_id: u64,
    job_display_name: String,
}

impl Message {
    /// What it says, as far as it can be read.
    pub fn read(&self) -> News {
        let mut news = News::default();
        if self.message_type != JOB_MESSAGES {
            news.unknown.insert(self.message_type.clone());
            return news;
        }
        let body = self.body.as_deref().map(str::trim).unwrap_or_default();
        if body.is_empty() {
            return news;
        }
        let Ok(items) = serde_json::from_str::<Vec<Value>>(body) else {
            news.unreadable = 1;
            return news;
        };
        for item in items {
            news.take(item);
        }
        news
    }
}

impl News {
    fn take(&mut self, item: Value) {
        let Ok(item) = serde_json::from_value::<Item>(item) else {
            self.unreadable += 1;
            return;
        };
        let is_offer = item.message_type == "JobAvailable";
        if !is_offer
            && !matches!(
                item.message_type.as_str(),
                "JobAssigned" | "JobStarted" | "JobCompleted"
            )
        {
            self.unknown.insert(item.message_type);
            return;
        }
        let repo = format!("{}/{}", item.owner_name, item.repository_name);
        let has_request = !is_offer || item.runner_request_id != 0;
        let (Ok(repo), 1.., true) = (repo.parse::<Repo>(), item.workflow_run_id, has_request) else {
            self.unreadable += 1;
            return;
        };
        self.runs.insert((repo.clone(), item.workflow_run_id));
        if is_offer {
            self.offers.push(Offer {
                request: item.runner_request_id,
                repo,
                run: item.workflow_run_id,
                name: item.job_display_name,
            });
        }
    }
}

/// What the set for native jobs of a host is called: after the host, and after the labels, which cannot be relied on to
/// change. `prefix` is what names of the host's runners begin with, and the end is six digits of a hash.
pub fn name(prefix: &str, labels: &[String]) -> String {
    let lower: BTreeSet<String> = labels.iter().map(|label| label.to_ascii_lowercase()).collect();
    let joined: Vec<String> = lower.into_iter().collect();
    let hash = Sha256::digest(joined.join("\n"));
    format!("{prefix}native-{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2])
}

/// Whose runners they are, as an address for people, which is how the consumer registers. `api` is where the REST API is.
pub fn web_address(api: &str, scope: &Scope) -> String {
    let web = match api {
        GITHUB_COM => "https://github.com",
        api => api.strip_suffix("/api/v3").unwrap_or(api),
    };
    format!("{web}/{scope}")
}

/// Where the message after `last` is waited for; 0 is before the first.
pub fn next_address(queue: &str, last: i64) -> String {
    match last {
        0 => queue.to_owned(),
        last if queue.contains('?') => format!("{queue}&lastMessageId={last}"),
        last => format!("{queue}?lastMessageId={last}"),
    }
}

/// Where a message is deleted.
pub fn message_address(queue: &str, message: i64) -> String {
    match queue.split_once('?') {
        Some((path, query)) => format!("{}/{message}?{query}", path.trim_end_matches('/')),
        None => format!("{}/{message}", queue.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn message(body: &Value) -> Message {
        let text = match body {
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        serde_json::from_value(json!({
            "messageId": 42, "messageType": JOB_MESSAGES, "body": text,
            "statistics": {"totalAssignedJobs": 1, "totalSomethingNew": 7},
        }))
        .unwrap()
    }

    fn item(kind: &str) -> Value {
        json!({
            "messageType": kind, "runnerRequestId": 1001, "ownerName": "acme", "repositoryName": "app", "jobId": "b2",
            "jobDisplayName": "build", "workflowRunId": 77, "eventName": "push", "requestLabels": ["eph-native"],
            "finishTime": "0001-01-01T00:00:00Z",
        })
    }

    #[test]
    fn an_offer_is_read_and_so_is_of_which_runs_a_message_tells() {
        let news = message(&json!([item("JobAvailable"), item("JobCompleted")])).read();
        let repo: Repo = "acme/app".parse().unwrap();
        assert_eq!(
            news,
            News {
                offers: vec![Offer {
                    request: 1001,
                    repo: repo.clone(),
                    run: 77,
                    name: "build".into()
                }],
                runs: [(repo, 77)].into(),
                ..News::default()
            }
        );
    }

    #[test]
    fn what_nobody_knows_or_can_read_hides_nothing_else() {
        let mut odd = item("JobAvailable");
        odd["workflowRunId"] = json!("seventy-seven");
        let mut nobodys = item("JobAvailable");
        nobodys["ownerName"] = json!("a/../b");
        let mut without_run = item("JobAvailable");
        without_run.as_object_mut().unwrap().remove("workflowRunId");
        let mut without_request = item("JobAvailable");
        without_request.as_object_mut().unwrap().remove("runnerRequestId");
        let all = json!([
            item("JobTeleported"),
            odd,
            3,
            nobodys,
            without_run,
            without_request,
            item("JobAvailable")
        ]);
        let news = message(&all).read();
        assert_eq!((news.offers.len(), news.unreadable), (1, 5));
        assert_eq!(news.unknown, ["JobTeleported".to_owned()].into());
    }

    #[test]
    fn a_spoilt_body_keeps_its_statistics() {
        let cut = message(&json!("[{\"messageType\":\"JobAvail"));
        assert_eq!(cut.read().unreadable, 1);
        assert_eq!(cut.statistics.unwrap().total_assigned_jobs, 1);
        assert_eq!(message(&json!("")).read(), News::default());
        let bare: Message = serde_json::from_value(json!({"messageId": 1, "body": null})).unwrap();
        assert_eq!(bare.read().offers, []);
    }

    #[test]
    fn a_session_is_read_with_no_more_than_it_must_have() {
        let told = json!({"sessionId": "3c2a", "messageQueueUrl": "https://x/m?s=1", "messageQueueAccessToken": "secret"});
        let session: Session = serde_json::from_value(told).unwrap();
        assert_eq!(session.statistics, None);
        assert!(!format!("{session:?}").contains("secret"));
    }

    #[test]
    fn a_set_is_called_after_the_host_and_its_labels_in_any_order() {
        let labels = |all: &[&str]| -> Vec<String> { all.iter().map(|one| (*one).to_owned()).collect() };
        let one = name("eph-a1b2c3-", &labels(&["self-hosted", "Eph"]));
        assert!(one.starts_with("eph-a1b2c3-native-"), "{one}");
        assert_eq!(one, name("eph-a1b2c3-", &labels(&["eph", "self-hosted"])));
        assert_ne!(one, name("eph-a1b2c3-", &labels(&["eph"])));
        assert_ne!(one, name("eph-000000-", &labels(&["self-hosted", "eph"])));
    }

    #[test]
    fn addresses_keep_the_query_of_the_queue() {
        let queue = "https://broker.example/message?sessionId=3c2a";
        assert_eq!(next_address(queue, 0), queue);
        assert_eq!(next_address(queue, 41), format!("{queue}&lastMessageId=41"));
        assert_eq!(next_address("https://x/m", 1), "https://x/m?lastMessageId=1");
        assert_eq!(
            message_address(queue, 42),
            "https://broker.example/message/42?sessionId=3c2a"
        );
        assert_eq!(message_address("https://x/m/", 42), "https://x/m/42");
    }

    #[test]
    fn the_consumer_registers_for_the_address_that_people_know() {
        let repo = Scope::Repo("acme/app".parse().unwrap());
        assert_eq!(web_address(GITHUB_COM, &repo), "https://github.com/acme/app");
        let org = Scope::Org("acme".into());
        assert_eq!(
            web_address("https://ghe.example/api/v3", &org),
            "https://ghe.example/acme"
        );
    }

    proptest! {
        /// No body makes the reader fail, and every offer names a repository and a run.
        #[test]
        fn whatever_a_body_is_it_is_read(
            text in ".*", kind in "Job(Available|Assigned|Started|Completed|X)?", owner in ".{0,5}", run in any::<i64>(),
        ) {
            message(&json!(text)).read();
            let mut one = item(&kind);
            one["ownerName"] = json!(owner);
            one["workflowRunId"] = json!(run);
            let news = message(&json!([one])).read();
            for offer in &news.offers {
                prop_assert!(offer.run > 0 && news.runs.contains(&(offer.repo.clone(), offer.run)));
            }
            prop_assert!(news.offers.len() + news.unreadable + news.unknown.len() <= 1);
        }
    }
}
