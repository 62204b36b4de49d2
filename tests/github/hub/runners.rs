//! Runners: their just-in-time configuration, and the sessions of their listeners.
//!
//! The stand-in for `Runner.Listener` finds the broker in `ServerUrlV2` of `.runner` and speaks JSON with it:
//!
//! ```text
//! POST   session {"agentId":23}          → 200 {"sessionId":"…"}
//! GET    message?sessionId=…             → 200 {"job":{…}} | 200 {"cancel":29} | 202 nothing yet
//! POST   finish {"job":29,"result":"succeeded"} → 200
//! DELETE session?sessionId=…             → 204
//! ```

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::state::{Run, Runner, Scope, State, random_hex};
use super::wire::{Call, Reply};

/// What the broker says when it refuses.
pub(super) fn broker_error(status: u16, kind: &str, message: &str) -> Value {
    json!({"source": "actions-broker-listener", "statusCode": status, "errorKind": kind, "errorMessage": message})
}

fn refused(status: u16, kind: &str) -> Reply {
    Reply::json(status, &broker_error(status, kind, kind))
}

impl State {
    /// `POST …/actions/runners/generate-jitconfig`.
    pub(super) fn generate_jit(&mut self, call: &Call, scope: Scope) -> Result<Reply, Reply> {
        let asked = call.json();
        let group = asked["runner_group_id"].as_u64().unwrap_or_default();
        if !self.groups.contains_key(&group) {
            return Err(Reply::error(404, "Not Found"));
        }
        let labels = asked["labels"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        // GitHub implies no label, and stores them in lower case.
        let labels: Vec<_> = labels.map(str::to_ascii_lowercase).collect();
        let name = asked["name"].as_str().unwrap_or_default();
        let clash = format!("Already exists - A runner with the name {name} already exists.");
        let (id, jit) = self
            .register(name, labels, group, scope, None)
            .ok_or_else(|| Reply::error(409, &clash))?;
        let runner = Self::runner_json(&self.runners[&id]);
        Ok(Reply::json(
            201,
            &json!({"runner": runner, "encoded_jit_config": jit}),
        ))
    }

    /// Registers a runner unless there is one of that name; gives its id and its configuration.
    pub(super) fn register(
        &mut self,
        name: &str,
        labels: Vec<String>,
        group: u64,
        scope: Scope,
        scale_set: Option<u64>,
    ) -> Option<(u64, String)> {
        if self
            .runners
            .values()
            .any(|it| it.name == name && it.scope == scope)
        {
            return None;
        }
        let id = self.next_id();
        let (name, session) = (name.to_owned(), None);
        let jit = self.jit_config(id, &name);
        let runner = Runner {
            id,
            name,
            labels,
            group,
            scope,
            scale_set,
            session,
            busy: false,
            job: None,
            spent: false,
            cancel_told: false,
        };
        self.runners.insert(id, runner);
        Some((id, jit))
    }

    /// The three files of a runner, as GitHub packs them.
    fn jit_config(&mut self, id: u64, name: &str) -> String {
        let runner = json!({
            "AgentId": id, "AgentName": name, "PoolId": 1, "PoolName": "Default", "Ephemeral": true,
            "ServerUrl": format!("{}/_tenant/", self.url), "GitHubUrl": "", "WorkFolder": "_work", "DisableUpdate": false,
            "UseV2Flow": true, "ServerUrlV2": format!("{}/_broker/", self.url),
        });
        let client = random_hex();
        let credentials = json!({"Scheme": "OAuth", "Data": {"clientId": client, "authorizationUrl": format!("{}/_oauth", self.url), "requireFipsCryptography": "True"}});
        let parameters = ["d", "dp", "dq", "exponent", "inverseQ", "modulus", "p", "q"];
        let parameters: BTreeMap<_, _> = parameters
            .map(|it| (it, BASE64_STANDARD.encode(self.secret("rsa-"))))
            .into();
        self.secrets.extend(parameters.values().cloned());
        let files = [
            (".runner", runner),
            (".credentials", credentials),
            (".credentials_rsaparams", json!(parameters)),
        ];
        let files: BTreeMap<_, _> = files
            .map(|(name, content)| (name, BASE64_STANDARD.encode(content.to_string())))
            .into();
        let packed = BASE64_STANDARD.encode(json!(files).to_string());
        self.secrets.insert(packed.clone());
        packed
    }

    /// Answers a listener; `None` means that there is nothing yet.
    pub(super) fn broker(&mut self, call: &Call, path: &str) -> Option<Reply> {
        let session = call.parameter("sessionId");
        let runner = session.and_then(|session| {
            self.runners
                .values_mut()
                .find(|it| it.session.as_ref() == Some(&session))
        });
        match (call.method.as_str(), path) {
            ("POST", "session") => Some(self.open_session(&call.json())),
            ("POST", "finish") => Some(self.finish_of(&call.json())),
            ("DELETE", "session") => {
                if let Some(runner) = runner {
                    runner.session = None;
                }
                Some(Reply::empty(204))
            }
            ("GET", "message") => {
                let Some(runner) = runner else {
                    // A session ends with its runner.
                    return Some(refused(404, "RunnerNotFound"));
                };
                let (id, told) = (runner.id, std::mem::replace(&mut runner.cancel_told, true));
                if let Some(job) = runner.job {
                    if !told && self.runs[&self.jobs[&job].run].cancelled {
                        return Some(Reply::json(200, &json!({"cancel": job})));
                    }
                    self.runners.get_mut(&id)?.cancel_told = told;
                    return None;
                }
                self.runners.get_mut(&id)?.cancel_told = false;
                let job = self.hand_out(id)?;
                Some(Reply::json(200, &json!({"job": self.job_message(job)})))
            }
            _ => Some(refused(404, "NotFound")),
        }
    }

    fn open_session(&mut self, asked: &Value) -> Reply {
        let id = asked["agentId"]
            .as_u64()
            .or_else(|| asked["agentId"].as_str()?.parse().ok());
        let Some(runner) = id.and_then(|it| self.runners.get_mut(&it)) else {
            return refused(404, "RunnerNotFound");
        };
        if runner.session.is_some() {
            return refused(409, "SessionConflict");
        }
        let session = random_hex();
        runner.session = Some(session.clone());
        Reply::json(200, &json!({"sessionId": session}))
    }

    fn finish_of(&mut self, asked: &Value) -> Reply {
        let conclusion = match asked["result"]
            .as_str()
            .unwrap_or_default()
            .to_ascii_lowercase()
            .as_str()
        {
            "succeeded" | "succeededwithissues" => "success",
            "canceled" => "cancelled",
            "skipped" => "skipped",
            _ => "failure",
        };
        let id = asked["job"]
            .as_u64()
            .filter(|it| self.jobs.get(it).is_some_and(|job| job.runner.is_some()));
        let Some(id) = id else {
            return refused(404, "JobNotFound");
        };
        self.finish(id, conclusion);
        Reply::json(200, &json!({}))
    }

    /// What a listener needs to run a job: `env` is the job's own, `github` is what GitHub itself vouches for.
    fn job_message(&self, id: u64) -> Value {
        let job = &self.jobs[&id];
        let run = &self.runs[&job.run];
        let steps: Vec<_> = job
            .spec
            .steps
            .iter()
            .map(|it| json!({"run": it.run, "always": it.always}))
            .collect();
        let about_pull = run.pull_request.filter(|_| run.event == "pull_request");
        let reference = about_pull.map_or_else(
            || format!("refs/heads/{}", run.head_branch),
            |it| format!("refs/pull/{it}/merge"),
        );
        json!({
            "id": id, "name": job.spec.name, "steps": steps, "env": job.spec.env, "cancellable": true,
            "github": {
                "repository": run.repository, "run_id": run.id.to_string(), "run_attempt": job.attempt.to_string(),
                "job": job.spec.name, "event_name": run.event, "sha": run.head_sha, "ref": reference,
                "actor": run.actor, "triggering_actor": run.triggering_actor, "api_url": self.url, "event": self.event(run),
            },
        })
    }

    /// The webhook that made a run, as far as jobs look at it.
    fn event(&self, run: &Run) -> Value {
        let repository = self.minimal_repository(Some(&run.repository));
        let mut event = json!({"repository": repository, "sender": Self::user(&run.actor)});
        match run
            .pull_request
            .and_then(|it| Some((it, self.pull_requests.get(&(run.repository.clone(), it))?)))
        {
            Some((number, pull)) => {
                event["number"] = json!(number);
                event["pull_request"] = self.pull_request_json(&run.repository, number, pull);
            }
            None => event["after"] = json!(run.head_sha),
        }
        event
    }
}
