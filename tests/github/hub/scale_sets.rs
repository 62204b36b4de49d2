//! The protocol of runner scale sets: the chain of tokens, the sets, and one session each.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::state::{Scope, State, random_hex};
use super::wire::{Call, Reply};

/// A scale set.
#[derive(Debug, Clone)]
pub(crate) struct ScaleSet {
    pub(crate) name: String,
    pub(crate) group: u64,
    pub(crate) labels: Vec<String>,
    pub(crate) scope: Scope,
    pub(crate) session: Option<Session>,
    /// The capacity that the consumer stated last.
    pub(crate) capacity: Option<u64>,
    /// What the next messages will be spoiled by.
    pub(super) faults: Vec<MessageFault>,
    pub(super) pending: Vec<Value>,
    pub(super) messages: BTreeMap<u64, String>,
    pub(super) offered: BTreeSet<u64>,
    pub(super) kept: bool,
}

/// The session of a scale set's one consumer.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) owner: String,
    /// The token that the queue takes.
    pub(crate) queue_token: String,
}

/// What can be wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageFault {
    /// It is delivered again although it was deleted.
    Twice,
    /// Its items are in the opposite order: a job is completed before it is started.
    Reversed,
    /// It begins with an item of a type that nobody knows.
    UnknownType,
    /// Its body is no JSON.
    BrokenBody,
}

fn failed(status: u16, kind: &str, message: &str) -> Reply {
    let name = format!("GitHub.DistributedTask.WebApi.{kind}, GitHub.DistributedTask.WebApi");
    Reply::json(status, &json!({"typeName": name, "message": message}))
}

pub(super) fn list(value: Vec<Value>) -> Reply {
    Reply::json(200, &json!({"count": value.len(), "value": value}))
}

impl State {
    pub(super) fn registration_token(&mut self, scope: Scope) -> String {
        let token = self.secret("AAB");
        self.registrations.insert(token.clone(), scope);
        token
    }

    /// `POST /actions/runner-registration`: a token for the tenant, which says itself when it ends.
    pub(super) fn register_consumer(&mut self, call: &Call) -> Reply {
        let scope = call
            .header("authorization")
            .strip_prefix("RemoteAuth ")
            .and_then(|it| self.registrations.get(it));
        let Some(scope) = scope.cloned() else {
            return Reply::error(401, "Bad credentials");
        };
        let ends_s = self.now_s() + self.admin_life_s;
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!(
            "{}.{}.",
            part(json!({"alg": "none"})),
            part(json!({"exp": ends_s, "jti": random_hex()}))
        );
        self.secrets.insert(token.clone());
        self.admins.insert(token.clone(), (scope, ends_s));
        Reply::json(
            200,
            &json!({"url": format!("{}/_tenant/", self.url), "token": token}),
        )
    }

    /// Answers a consumer of scale sets; `None` means that there is no message yet.
    pub(super) fn tenant(&mut self, call: &Call, path: &str) -> Option<Reply> {
        let segments: Vec<_> = path.trim_end_matches('/').split('/').collect();
        if let ["message", rest @ ..] = segments.as_slice() {
            return self.queue(call, rest.first().copied());
        }
        let bearer = call.credential();
        if let ["_apis", "runtime", "runnerscalesets", id, "acquirejobs"] = segments.as_slice() {
            let set = id.parse().ok().filter(|id| {
                self.scale_sets
                    .get(id)
                    .is_some_and(|it| it.session.as_ref().is_some_and(|it| it.queue_token == bearer))
            });
            return Some(set.map_or_else(|| Reply::empty(401), |id| self.acquire(id, &call.json())));
        }
        let Some((scope, _)) = self.admins.get(bearer).filter(|it| it.1 > self.now_s()).cloned() else {
            return Some(Reply::empty(401));
        };
        if !call
            .parameter("api-version")
            .is_some_and(|it| it.starts_with("6.0-preview"))
        {
            self.violations.push(format!(
                "{} {}: lacks api-version=6.0-preview",
                call.method, call.path
            ));
        }
        Some(match segments.as_slice() {
            ["_apis", "runtime", "runnergroups"] => {
                let wanted = call.parameter("groupName");
                let groups = self
                    .groups
                    .iter()
                    .filter(|(_, it)| wanted.as_ref().is_none_or(|wanted| it.name == *wanted));
                list(groups.map(|(id, it)| json!({"id": id, "name": it.name, "size": 0, "isDefaultGroup": *id == 1})).collect())
            }
            ["_apis", "runtime", "runnerscalesets", rest @ ..] => self.scale_sets(call, scope, rest),
            ["_apis", "distributedtask", "pools", "0", "agents", rest @ ..] => {
                self.agents(call, &scope, rest.first().copied())
            }
            _ => Reply::empty(404),
        })
    }

    fn scale_sets(&mut self, call: &Call, scope: Scope, rest: &[&str]) -> Reply {
        let asked = call.json();
        let id = rest.first().and_then(|it| it.parse::<u64>().ok());
        let known = id.filter(|it| self.scale_sets.get(it).is_some_and(|it| it.scope == scope));
        match (call.method.as_str(), rest, known) {
            ("GET", [], _) => {
                let (name, group) = (call.parameter("name"), call.parameter("runnerGroupId"));
                let found = self.scale_sets.iter().filter(|(_, it)| {
                    it.scope == scope
                        && name.as_ref().is_none_or(|name| it.name == *name)
                        && group.as_ref().is_none_or(|group| it.group.to_string() == *group)
                });
                list(found.map(|(id, it)| it.json(*id)).collect())
            }
            ("POST", [], _) => self.create_scale_set(&asked, scope),
            (_, _, None) => failed(404, "RunnerScaleSetNotFoundException", "No such scale set."),
            ("GET", [_], Some(id)) => Reply::json(200, &self.scale_sets[&id].json(id)),
            ("PATCH", [_], Some(id)) => {
                let set = self.scale_sets.get_mut(&id).expect("known");
                set.change(&asked);
                Reply::json(200, &set.json(id))
            }
            ("DELETE", [_], Some(id)) => {
                self.scale_sets.remove(&id);
                Reply::empty(204)
            }
            ("POST", [_, "sessions"], Some(id)) => {
                self.open_queue(id, asked["ownerName"].as_str().unwrap_or_default())
            }
            (method @ ("PATCH" | "DELETE"), [_, "sessions", session], Some(id)) => {
                let token = self.secret("queue-");
                let open = &mut self.scale_sets.get_mut(&id).expect("known").session;
                let Some(current) = open.as_mut().filter(|it| it.id == *session) else {
                    return Reply::empty(404);
                };
                if method == "DELETE" {
                    *open = None;
                    return Reply::empty(204);
                }
                current.queue_token = token;
                Reply::json(200, &self.session_json(id))
            }
            ("POST", [_, "generatejitconfig"], Some(id)) => {
                let (name, set) = (
                    asked["name"].as_str().unwrap_or_default(),
                    self.scale_sets[&id].clone(),
                );
                match self.register(name, set.labels, set.group, set.scope, Some(id)) {
                    Some((runner, jit)) => Reply::json(
                        200,
                        &json!({"runner": {"id": runner, "name": name, "runnerScaleSetId": id}, "encodedJITConfig": jit}),
                    ),
                    None => failed(
                        409,
                        "AgentExistsException",
                        &format!("The runner {name} already exists."),
                    ),
                }
            }
            _ => Reply::empty(404),
        }
    }

    fn create_scale_set(&mut self, asked: &Value, scope: Scope) -> Reply {
        let mut set = ScaleSet {
            name: String::new(),
            group: 1,
            labels: Vec::new(),
            scope,
            session: None,
            capacity: None,
            faults: Vec::new(),
            pending: Vec::new(),
            messages: BTreeMap::new(),
            offered: BTreeSet::new(),
            kept: false,
        };
        set.change(asked);
        if self
            .scale_sets
            .values()
            .any(|it| it.name == set.name && it.group == set.group && it.scope == set.scope)
        {
            return failed(
                400,
                "RunnerScaleSetExistsException",
                "A scale set of that name exists in the group.",
            );
        }
        let id = self.next_id();
        let reply = Reply::json(200, &set.json(id));
        self.scale_sets.insert(id, set);
        reply
    }

    fn open_queue(&mut self, id: u64, owner: &str) -> Reply {
        let queue_token = self.secret("queue-");
        let set = self.scale_sets.get_mut(&id).expect("known");
        if let Some(Session { owner, .. }) = &set.session {
            let why = format!(
                "The actions scale set {} already has an active session for owner {owner}.",
                set.name
            );
            return failed(409, "RunnerScaleSetSessionConflictException", &why);
        }
        set.session = Some(Session {
            id: random_hex(),
            owner: owner.to_owned(),
            queue_token,
        });
        Reply::json(200, &self.session_json(id))
    }

    fn session_json(&self, id: u64) -> Value {
        let set = &self.scale_sets[&id];
        let Some(Session {
            id: session,
            owner,
            queue_token,
        }) = &set.session
        else {
            return Value::Null;
        };
        json!({
            "sessionId": session, "ownerName": owner, "runnerScaleSet": set.json(id), "statistics": self.statistics(id),
            "messageQueueUrl": format!("{}/_tenant/message?sessionId={session}", self.url), "messageQueueAccessToken": queue_token,
        })
    }

    fn agents(&mut self, call: &Call, scope: &Scope, id: Option<&str>) -> Reply {
        let name = call.parameter("agentName");
        let shown = |it: &super::state::Runner| json!({"id": it.id, "name": it.name, "runnerScaleSetId": it.scale_set});
        let Some(id) = id else {
            let named = self
                .runners
                .values()
                .filter(|it| it.scope == *scope && name.as_ref().is_none_or(|name| it.name == *name));
            return list(named.map(shown).collect());
        };
        match id.parse().ok().and_then(|it: u64| self.runners.get(&it)) {
            None => failed(404, "AgentNotFoundException", "No such runner."),
            Some(runner) if call.method == "GET" => Reply::json(200, &shown(runner)),
            Some(runner) if runner.busy => {
                failed(400, "JobStillRunningException", "The runner is running a job.")
            }
            Some(runner) => {
                let id = runner.id;
                self.runners.remove(&id);
                Reply::empty(204)
            }
        }
    }
}

impl ScaleSet {
    fn json(&self, id: u64) -> Value {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|name| json!({"type": "System", "name": name}))
            .collect();
        json!({"id": id, "name": self.name, "runnerGroupId": self.group, "labels": labels, "RunnerSetting": {"disableUpdate": true}})
    }

    fn change(&mut self, asked: &Value) {
        if let Some(name) = asked["name"].as_str() {
            name.clone_into(&mut self.name);
        }
        self.group = asked["runnerGroupId"].as_u64().unwrap_or(self.group);
        if let Some(labels) = asked["labels"].as_array() {
            self.labels = labels
                .iter()
                .filter_map(|it| it["name"].as_str())
                .map(str::to_owned)
                .collect();
        }
    }
}
