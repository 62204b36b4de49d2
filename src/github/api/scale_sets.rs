//! Scale sets, their sessions, messages and runners. None of it is in GitHub's documentation of the REST API; see
//! [`crate::github::scale_set`] for where it is from.

use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::encoded;
use super::runners::{Deletion, JitRunner};
use crate::github::client::{ClientError, Refused, Reply, Tenant};
use crate::github::scale_set::{
    Heard, Message, ScaleSet, Session, Trouble, heard, message_address, next_address,
};
use crate::github::secret::Secret;

const SETS: &str = "/_apis/runtime/runnerscalesets";
const AGENTS: &str = "/_apis/distributedtask/pools/0/agents";

/// A list, as the service wraps it.
#[derive(Deserialize)]
struct Wrapped<T> {
    #[serde(default = "Vec::new")]
    value: Vec<T>,
}

/// A group or a runner, of which only this is used.
#[derive(Deserialize)]
struct Named {
    id: u64,
    #[serde(default)]
    name: String,
}

/// The answer to [`Tenant::generate_jit`].
#[derive(Deserialize)]
struct Generated {
    runner: Named,
    // Not in the case of the others.
    #[serde(rename = "encodedJITConfig")]
    encoded: Secret,
}

impl Tenant {
    async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Refused> {
        let list: Wrapped<T> = self.value(Method::GET, path, None).await?;
        Ok(list.value)
    }

    async fn value<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, Refused> {
        Ok(self.call(method, path, body).await?.json()?)
    }

    /// Whether the service lets us in, which leaves nothing there.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn enter(&self) -> Result<(), ClientError> {
        self.try_chain().await
    }

    /// The number of a runner group, if there is one of that name.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn runner_group(&self, name: &str) -> Result<Option<u64>, ClientError> {
        let path = format!("/_apis/runtime/runnergroups/?groupName={}", encoded(name));
        let groups: Vec<Named> = self.list(&path).await?;
        let group = groups
            .into_iter()
            .find(|group| group.name.eq_ignore_ascii_case(name));
        Ok(group.map(|group| group.id))
    }

    /// The scale set of a name in a group, if there is one.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn find_set(&self, group: u64, name: &str) -> Result<Option<ScaleSet>, ClientError> {
        let path = format!("{SETS}?runnerGroupId={group}&name={}", encoded(name));
        let sets: Vec<ScaleSet> = self.list(&path).await?;
        Ok(sets.into_iter().find(|set| set.name.eq_ignore_ascii_case(name)))
    }

    /// Makes a scale set; [`Trouble::SetExists`] when there is one of that name. What it is given back with is what counts:
    /// a server may leave labels out.
    ///
    /// # Errors
    /// Any [`Refused`].
    pub async fn create_set(&self, group: u64, name: &str, labels: &[String]) -> Result<ScaleSet, Refused> {
        let labels: Vec<Value> = labels
            .iter()
            .map(|label| json!({"type": "System", "name": label}))
            .collect();
        let body = json!({
            "name": name, "runnerGroupId": group, "labels": labels, "RunnerSetting": {"disableUpdate": true},
        });
        self.value(Method::POST, SETS, Some(body)).await
    }

    /// Opens the session of a set; [`Trouble::SessionConflict`] when there is one.
    ///
    /// # Errors
    /// Any [`Refused`].
    pub async fn open_session(&self, set: u64, owner: &str) -> Result<Session, Refused> {
        let path = format!("{SETS}/{set}/sessions");
        self.value(Method::POST, &path, Some(json!({"ownerName": owner})))
            .await
    }

    /// The same session with another token for its queue.
    ///
    /// # Errors
    /// Any [`Refused`].
    pub async fn refresh_session(&self, set: u64, session: &str) -> Result<Session, Refused> {
        let path = format!("{SETS}/{set}/sessions/{}", encoded(session));
        self.value(Method::PATCH, &path, None).await
    }

    /// Ends a session, whether or not there is one.
    ///
    /// # Errors
    /// Any [`ClientError`], but not that it does not exist.
    pub async fn close_session(&self, set: u64, session: &str) -> Result<(), ClientError> {
        let path = format!("{SETS}/{set}/sessions/{}", encoded(session));
        match self.call(Method::DELETE, &path, None).await {
            Err(refused) if refused.status != Some(404) => Err(refused.error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits for the message after `last`; `None` when there was none for a while. `capacity` is how many runners the set
    /// may have.
    ///
    /// # Errors
    /// Any [`Refused`].
    pub async fn next_message(
        &self,
        session: &Session,
        last: i64,
        capacity: u32,
    ) -> Result<Option<Message>, Refused> {
        let address = next_address(&session.message_queue_url, last);
        let with = (&session.message_queue_access_token, Some(capacity));
        let (status, reply) = self.queue(Method::GET, &address, with).await?;
        match heard(status, false) {
            Heard::Message => Ok(Some(reply.json()?)),
            _ => Ok(None),
        }
    }

    /// Takes a message out of the queue.
    ///
    /// # Errors
    /// Any [`Refused`], but not that it does not exist.
    pub async fn delete_message(&self, session: &Session, message: i64) -> Result<(), Refused> {
        let address = message_address(&session.message_queue_url, message);
        let with = (&session.message_queue_access_token, None);
        match self.queue(Method::DELETE, &address, with).await {
            Err(refused) if refused.status != Some(404) => Err(refused),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Acquires jobs by their requests; those that are the set's now. Others had the rest.
    ///
    /// # Errors
    /// Any [`Refused`].
    pub async fn acquire_jobs(
        &self,
        set: u64,
        session: &Session,
        requests: &[i64],
    ) -> Result<Vec<i64>, Refused> {
        let path = format!("{SETS}/{set}/acquirejobs");
        let reply: Reply = self
            .acquire(&path, &session.message_queue_access_token, json!(requests))
            .await?;
        let list: Wrapped<i64> = reply.json()?;
        Ok(list.value)
    }

    /// Makes a runner of a set. A name that is taken is a [`ClientError::Conflict`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn generate_jit(&self, set: u64, name: &str) -> Result<JitRunner, ClientError> {
        let path = format!("{SETS}/{set}/generatejitconfig");
        let body = json!({"name": name, "workFolder": "_work"});
        let Generated { runner, encoded } = match self.value(Method::POST, &path, Some(body)).await {
            Ok(generated) => generated,
            Err(Refused {
                trouble: Some(Trouble::AgentExists),
                error: ClientError::Unprocessable { asked, message, .. },
                ..
            }) => return Err(ClientError::Conflict { asked, message }),
            Err(refused) => return Err(refused.error),
        };
        Ok(JitRunner {
            runner_id: runner.id,
            name: runner.name,
            encoded,
        })
    }

    /// The number of a runner, if there is one of that name.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn agent(&self, name: &str) -> Result<Option<u64>, ClientError> {
        let agents: Vec<Named> = self
            .list(&format!("{AGENTS}?agentName={}", encoded(name)))
            .await?;
        Ok(agents
            .into_iter()
            .find(|agent| agent.name == name)
            .map(|agent| agent.id))
    }

    /// Removes a runner, unless it has a job.
    ///
    /// # Errors
    /// Any [`ClientError`], but not that it does not exist, nor that it has a job.
    pub async fn delete_agent(&self, agent: u64) -> Result<Deletion, ClientError> {
        match self
            .call(Method::DELETE, &format!("{AGENTS}/{agent}"), None)
            .await
        {
            Ok(_) => Ok(Deletion::Gone),
            Err(refused) => match (refused.trouble, refused.status) {
                (Some(Trouble::JobStillRunning), _) => Ok(Deletion::Busy),
                (Some(Trouble::AgentNotFound), _) | (_, Some(404)) => Ok(Deletion::Gone),
                _ => Err(refused.error),
            },
        }
    }
}
