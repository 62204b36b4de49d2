//! The service behind runner scale sets, which is not the REST API: another server, another token, other headers.
//!
//! ```text
//!  REST ─► registration token ─► runner-registration ─► address and token of the tenant ─► sets, sessions, runners
//!                                                                       session ─► token of the queue ─► messages, acquiring
//! ```
//!
//! The tenant's token says itself when it ends. It is asked for anew before that, and once when it is not taken. Long polls
//! take no part in the limits of the REST API.

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{ACCEPT, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::{Base, private};
use super::answer::{Answer, clean};
use super::call::{Call, Reply};
use super::error::{ClientError, Oddity};
use super::transport::{Outgoing, Transport};
use super::{Client, DEADLINE, unix_s};
use crate::github::limits::{Verdict, verdict};
use crate::github::scale_set::{Trouble, web_address};
use crate::github::secret::Secret;
use crate::github::ticket::Scope;

/// How long a long poll may take: GitHub answers after about fifty seconds when there is nothing.
pub(crate) const LONG_POLL: Duration = Duration::from_secs(65);

/// How long before its end the tenant's token is no longer used, as `actions/scaleset` has it.
const MARGIN: Duration = Duration::from_secs(60);

/// How long a token is used at the most, whatever it says.
const AT_MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a token is used that does not say when it ends.
const UNSAID: Duration = Duration::from_secs(5 * 60);

/// Waits before a fresh registration token is shown again: it is not known everywhere at once (`actions/scaleset`,
/// `client.go`).
const NOT_KNOWN_YET: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The version of the service that everything here was written for.
const VERSION: &str = "api-version=6.0-preview";

/// How many runners a set may have at once, besides those that GitHub counts.
const CAPACITY: HeaderName = HeaderName::from_static("x-scalesetmaxcapacity");

/// The service behind the scale sets of one repository or organisation.
pub struct Tenant {
    client: Client,
    transport: Transport,
    scope: Scope,
    admin: tokio::sync::Mutex<Option<Admin>>,
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Where the service is, and what it takes.
#[derive(Clone)]
struct Admin {
    base: Base,
    token: Secret,
    good_until: Instant,
}

/// The service did not do what it was asked for.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The exception that it names, where we know it.
    pub trouble: Option<Trouble>,
    /// What to tell.
    pub error: ClientError,
}

impl From<Refused> for ClientError {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

impl From<ClientError> for Refused {
    fn from(error: ClientError) -> Self {
        Self {
            status: None,
            trouble: None,
            error,
        }
    }
}

/// The answer to a request for a registration token.
#[derive(Deserialize)]
struct Registration {
    token: Secret,
}

/// Where the tenant is.
#[derive(Deserialize)]
struct Registered {
    url: String,
    token: Secret,
}

/// A question to the service.
struct Question<'a> {
    method: Method,
    uri: Uri,
    /// What errors call it.
    asked: String,
    scheme: &'static str,
    token: &'a Secret,
    capacity: Option<u32>,
    body: Option<Value>,
    deadline: Duration,
}

impl Client {
    /// The services behind the scale sets of these repositories or organisations; nothing is asked yet.
    ///
    /// # Errors
    /// This host has no certificate authorities.
    pub fn tenants(&self, scopes: impl IntoIterator<Item = Scope>) -> Result<Vec<Tenant>, ClientError> {
        // As the clients that there are name themselves; the service keeps counts by it.
        let version = env!("CARGO_PKG_VERSION");
        let agent = json!({
            "system": "ephemerd", "version": version, "subsystem": "listener", "kind": "scaleset",
            "commit_sha": "", "build_version": version, "build_commit_sha": "",
        });
        let agent = HeaderValue::from_str(&agent.to_string());
        let agent = agent.unwrap_or(HeaderValue::from_static("ephemerd"));
        let accept = HeaderValue::from_static("application/json; api-version=6.0-preview");
        let transport = Transport::with(DEADLINE, vec![(USER_AGENT, agent), (ACCEPT, accept)])?;
        let tenant = |scope| Tenant {
            client: self.clone(),
            transport: transport.clone(),
            scope,
            admin: tokio::sync::Mutex::default(),
        };
        Ok(scopes.into_iter().map(tenant).collect())
    }
}

impl Tenant {
    /// Asks as the administrator, with the path below the tenant's address.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Reply, Refused> {
        let (admin, is_new) = self.admin(None).await?;
        match self.administer(&admin, &method, path, body.clone()).await {
            Err(Refused {
                status: Some(401), ..
            }) if !is_new => {
                let (admin, _) = self.admin(Some(&admin.token)).await?;
                self.administer(&admin, &method, path, body).await
            }
            answered => answered,
        }
    }

    async fn administer(
        &self,
        admin: &Admin,
        method: &Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Reply, Refused> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let asked = asked(method, path);
        let target = format!("{path}{separator}{VERSION}");
        let uri = admin.base.join(&target).ok_or_else(|| odd(&asked))?;
        let question = Question {
            method: method.clone(),
            uri,
            asked,
            scheme: "Bearer",
            token: &admin.token,
            capacity: None,
            body,
            deadline: DEADLINE,
        };
        self.ask(question).await.map(|(_, reply)| reply)
    }

    /// Acquires jobs: a path below the tenant's address, with the token of a queue.
    pub(crate) async fn acquire(&self, path: &str, token: &Secret, body: Value) -> Result<Reply, Refused> {
        let (admin, _) = self.admin(None).await?;
        let asked = asked(&Method::POST, path);
        let target = format!("{path}?{VERSION}");
        let uri = admin.base.join(&target).ok_or_else(|| odd(&asked))?;
        let question = Question {
            method: Method::POST,
            uri,
            asked,
            scheme: "Bearer",
            token,
            capacity: None,
            body: Some(body),
            deadline: DEADLINE,
        };
        self.ask(question).await.map(|(_, reply)| reply)
    }

    /// Asks a queue, at an address that GitHub gave; the status and the answer. With a capacity it is a long poll.
    pub(crate) async fn queue(
        &self,
        method: Method,
        address: &str,
        (token, capacity): (&Secret, Option<u32>),
    ) -> Result<(u16, Reply), Refused> {
        // Not the address, which is as long as it is dull.
        let asked = format!("{method} message of the scale set");
        let question = Question {
            uri: private(address).ok_or_else(|| odd(&asked))?,
            method,
            asked,
            scheme: "Bearer",
            token,
            capacity,
            body: None,
            deadline: if capacity.is_some() { LONG_POLL } else { DEADLINE },
        };
        self.ask(question).await
    }

    /// Goes through the chain and forgets what it gave.
    pub(crate) async fn try_chain(&self) -> Result<(), ClientError> {
        self.admin(None).await.map(drop)
    }

    /// What the tenant takes, and whether it was asked for just now; not `refused` any more.
    async fn admin(&self, refused: Option<&Secret>) -> Result<(Admin, bool), ClientError> {
        let mut held = self.admin.lock().await;
        let is_good = |admin: &&Admin| {
            admin.good_until > Instant::now() && refused.is_none_or(|it| it.expose() != admin.token.expose())
        };
        if let Some(admin) = held.as_ref().filter(is_good) {
            return Ok((admin.clone(), false));
        }
        *held = None;
        let path = format!("{}/registration-token", self.scope.runners());
        let call = Call::post(self.scope.grant(), path, None);
        let registration: Registration = self.client.call(call, Reply::json).await?;
        let admin = self.registered(&registration.token).await?;
        *held = Some(admin.clone());
        Ok((admin, true))
    }

    /// Registers as a consumer of scale sets, which leaves nothing at GitHub.
    async fn registered(&self, registration: &Secret) -> Result<Admin, ClientError> {
        let base = &self.client.inner.base;
        let asked = "POST /actions/runner-registration".to_owned();
        let address = web_address(base.text(), &self.scope);
        let mut waits = NOT_KNOWN_YET.into_iter();
        let reply = loop {
            let question = Question {
                method: Method::POST,
                uri: base
                    .join("/actions/runner-registration")
                    .ok_or_else(|| odd(&asked))?,
                asked: asked.clone(),
                scheme: "RemoteAuth",
                token: registration,
                capacity: None,
                body: Some(json!({"url": address, "runner_event": "register"})),
                deadline: DEADLINE,
            };
            match (self.ask(question).await, waits.next()) {
                (Ok((_, reply)), _) => break reply,
                (
                    Err(Refused {
                        status: Some(401 | 403),
                        ..
                    }),
                    Some(wait),
                ) => tokio::time::sleep(wait).await,
                (Err(refused), _) => return Err(refused.error),
            }
        };
        let Registered { url, token } = reply.json()?;
        let now_unix_s = self.client.state().github_unix_s(unix_s());
        let life = ends_unix_s(token.expose()).map_or(UNSAID + MARGIN, |ends| {
            Duration::from_secs(ends.saturating_sub(now_unix_s)).min(AT_MOST)
        });
        tracing::debug!(scope = %self.scope, life_s = life.as_secs(), "the service of scale sets gave a token");
        Ok(Admin {
            base: Base::parse(&url)?,
            token,
            good_until: Instant::now() + life.saturating_sub(MARGIN),
        })
    }

    async fn ask(&self, question: Question<'_>) -> Result<(u16, Reply), Refused> {
        let Question {
            method,
            uri,
            asked,
            scheme,
            token,
            capacity,
            body,
            deadline,
        } = question;
        self.client.state().report.requests += 1;
        let outgoing = Outgoing {
            method: &method,
            uri: &uri,
            asked: &asked,
            credential: Some(token),
            scheme,
            headers: capacity
                .map(|capacity| (CAPACITY, HeaderValue::from(capacity)))
                .into_iter()
                .collect(),
            etag: None,
            body: body.map(|it| it.to_string().into_bytes()),
        };
        let answer = self.transport.send_within(deadline, outgoing).await?;
        let status = answer.status.as_u16();
        tracing::debug!(asked, status, "the service of scale sets answered");
        if !answer.status.is_success() {
            return Err(refused(&answer, &asked, token));
        }
        if let Some(oddity) = answer.oddity() {
            return Err(ClientError::NotGitHub { asked, oddity }.into());
        }
        let body = answer.body.slice_ref(answer.json());
        let reply = Reply {
            asked,
            address: uri.to_string(),
            body,
            next: None,
        };
        Ok((status, reply))
    }
}

/// What an answer that is no success means.
fn refused(answer: &Answer, asked: &str, token: &Secret) -> Refused {
    let error = match verdict(&answer.told(), 0) {
        // No refusal of what was asked: a job that was acquired is nobody else's to run.
        Verdict::Wait(wait) => ClientError::Limited {
            asked: asked.to_owned(),
            until: Instant::now() + wait,
            wait,
        },
        Verdict::Free => answer.error(asked, Some(token.expose())),
    };
    Refused {
        status: Some(answer.status.as_u16()),
        trouble: answer.trouble(),
        error,
    }
}

fn asked(method: &Method, path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    format!("{method} {}", clean(path, None))
}

/// An address that is none, or that a credential must not be sent to.
fn odd(asked: &str) -> ClientError {
    ClientError::NotGitHub {
        asked: asked.to_owned(),
        oddity: Oddity::NotJson("an address in it is none".to_owned()),
    }
}

/// When a JSON web token ends, in seconds since 1970. Nobody here can verify it, and nobody needs to: a wrong time only
/// makes us ask for another too early or too late.
fn ends_unix_s(token: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let claims = token.split('.').nth(1)?.trim_end_matches('=');
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice::<Claims>(&claims)
        .ok()
        .map(|claims| claims.exp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_when_it_ends_or_nothing_is_made_of_it() {
        let token = |claims: &str| format!("x.{}.y", BASE64_URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(
            ends_unix_s(&token(r#"{"exp":1700000000,"x":"y"}"#)),
            Some(1_700_000_000)
        );
        for none in ["", "x", "x.!.y", &token("{}"), &token(r#"{"exp":"soon"}"#)] {
            assert_eq!(ends_unix_s(none), None, "{none}");
        }
    }
}
