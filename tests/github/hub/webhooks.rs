//! `workflow_job` webhooks as GitHub would deliver them. Nothing is sent by itself: a test delivers what it wants, as
//! often and in the order it wants.

use std::io;

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::Hub;
use super::client::request;
use super::schema::{webhook_errors, webhook_sample};
use super::state::{Phase, hex, random_hex};

/// A delivery.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// The headers that GitHub sends with it.
    pub(crate) headers: Vec<(String, String)>,
    /// The payload, as it is signed.
    pub(crate) body: Vec<u8>,
}

impl Delivery {
    /// Delivers it; gives the status of the answer.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub(crate) fn send(&self, url: &str) -> io::Result<u16> {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Ok(request("POST", url, &headers, &self.body)?.status)
    }
}

/// Signs a payload with the secret of a webhook.
pub(crate) fn deliver(payload: &Value, secret: &str) -> Delivery {
    let body = payload.to_string().into_bytes();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = format!("sha256={}", hex(hmac::sign(&key, &body).as_ref()));
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("user-agent", "GitHub-Hookshot/044aadd".to_owned()),
        ("x-github-delivery", random_hex()),
        ("x-github-event", "workflow_job".to_owned()),
        ("x-hub-signature-256", signature),
    ];
    Delivery {
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        body,
    }
}

impl Hub {
    /// What GitHub tells about a job when it gets into a phase.
    pub(crate) fn payload(&self, job: u64, phase: Phase) -> Value {
        let state = self.inner.lock();
        let mut job = state.jobs[&job].clone();
        job.phase = phase;
        if phase != Phase::Completed {
            (job.conclusion, job.completed_s) = (None, None);
        }
        if matches!(phase, Phase::Queued | Phase::Waiting) {
            job.runner = None;
        }
        let mut told = state.job_json(&job);
        told["head_branch"] = json!(state.runs[&job.run].head_branch);
        let full_name = &state.runs[&job.run].repository;
        let (owner, name) = full_name.split_once('/').expect("owner/name");
        let repository = &state.repositories[full_name];
        let user = |login: &str| json!({"login": login, "id": 1});
        let payload = webhook_sample(
            &format!("workflow_job${}", phase.word()),
            json!({
                "action": phase.word(), "workflow_job": told, "sender": user(&state.runs[&job.run].actor),
                "repository": {"id": repository.id, "name": name, "full_name": full_name, "private": repository.private, "owner": user(owner)},
                "organization": {"login": owner}, "installation": {"id": 9},
            }),
        );
        let errors = webhook_errors(&payload);
        assert!(errors.is_empty(), "the hub's own webhook: {}", errors.join("\n"));
        payload
    }

    /// The deliveries of a job's life so far, signed, in the right order.
    pub(crate) fn deliveries(&self, job: u64, secret: &str) -> Vec<Delivery> {
        let now = self.job(job).phase;
        let phases: &[Phase] = match now {
            Phase::Waiting => &[Phase::Waiting],
            Phase::Queued => &[Phase::Queued],
            Phase::InProgress => &[Phase::Queued, Phase::InProgress],
            Phase::Completed => &[Phase::Queued, Phase::InProgress, Phase::Completed],
        };
        phases
            .iter()
            .map(|phase| deliver(&self.payload(job, *phase), secret))
            .collect()
    }
}
