//! Asking GitHub: who we are, what is sent, what comes back, and when nothing may be asked.
//!
//! ```text
//!  call ─► token ────────► limits ─► request ─► answer ─► limits, clock ─┬─► refusal → error
//!           │  ▲            │                                            ├─► 304 → what was kept
//!           ▼  │ one for    └─► Limited, nothing is sent                 └─► 200 → kept with its ETag
//!        App's own token
//! ```
//!
//! - An **App** is given tokens for an hour, each for one repository and one purpose (`grant`); a personal token is used as
//!   it is. A token that GitHub does not take is asked for anew, once.
//! - **Nothing is tried twice** otherwise: whoever asks has the reason to ask again, and [`ClientError::retry`] says whether
//!   it could help.
//! - While a **limit** is on, calls fail without a request. Lists that did not change cost nothing (`cache`).
//! - The **clock** that counts is GitHub's: its answers tell what it shows, and an App's token is dated by it.
//! - **Somebody else** may answer: a proxy, a portal. What is not JSON, too large, cut or leads to another server is an error
//!   of its own, never a 404 that something would be concluded from.
//!
//! The calls themselves are in [`super::api`].

mod address;
mod answer;
mod cache;
mod call;
mod error;
mod grant;
mod state;
mod tenant;
mod tokens;
mod transport;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Uri};
use serde::Deserialize;
use tokio::sync::Semaphore;

use self::address::Base;
use self::answer::{Answer, clean, followed, unix_s_of_iso};
use self::cache::{Cache, Cached};
use self::state::State;
use self::tokens::{MARGIN, Token, Tokens};
use self::transport::{Outgoing, Transport};
use super::limits::pace;
use super::secret::Secret;

pub use self::address::GITHUB_COM;
pub(crate) use self::call::{Call, Reply};
pub use self::error::{ClientError, Oddity, Retry, SetupError};
pub(crate) use self::grant::{Grant, Purpose};
pub use self::state::{Report, WRONG_CLOCK_S};
pub use self::tenant::{Refused, Tenant};

/// How long an answer may take, from the first byte sent to the last one read.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How many requests may be under way together. GitHub allows a hundred and asks for one after the other (docs.github.com,
/// "Best practices for using the REST API").
const TOGETHER: usize = 8;

/// Who asks.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A GitHub App, in one place where it is installed.
    App {
        /// Its client id, or its older numeric id.
        app: String,
        /// The id of the installation.
        installation: u64,
        /// Its private key, RSA in PEM.
        private_key: Secret,
    },
    /// Somebody's personal token.
    Token(Secret),
    /// Nobody, for what everybody may see: the releases of the runner on github.com, for a server of one's own.
    Nobody,
}

/// What makes a client.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the API is: [`GITHUB_COM`], or `https://HOST/api/v3`.
    pub url: String,
    /// Who asks.
    pub credentials: Credentials,
    /// How long an answer may take; [`DEADLINE`].
    pub deadline: Duration,
}

impl Options {
    /// For github.com.
    pub fn new(credentials: Credentials) -> Self {
        Self {
            url: GITHUB_COM.to_owned(),
            credentials,
            deadline: DEADLINE,
        }
    }
}

/// A client of GitHub's API. Clones are the same client.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    base: Base,
    identity: Identity,
    transport: Transport,
    tokens: Tokens,
    cache: Mutex<Cache>,
    state: Mutex<State>,
    permits: Semaphore,
}

/// The credentials, ready for use.
enum Identity {
    App {
        app: String,
        installation: u64,
        key: jsonwebtoken::EncodingKey,
    },
    Token(Secret),
    Nobody,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.inner.base)
            .finish_non_exhaustive()
    }
}

/// The answer to a request for a token.
#[derive(Deserialize)]
struct Minted {
    token: Secret,
    expires_at: String,
}

impl Client {
    /// Makes a client; connections are made when they are needed. Must be called in a tokio runtime, which its connections
    /// then live in.
    ///
    /// # Errors
    /// The address is none, the key or the token cannot be used, or this host has no certificate authorities.
    pub fn new(options: Options) -> Result<Self, ClientError> {
        let Options {
            url,
            credentials,
            deadline,
        } = options;
        let identity = match credentials {
            Credentials::App {
                app,
                installation,
                private_key,
            } => {
                let key = jsonwebtoken::EncodingKey::from_rsa_pem(private_key.expose().as_bytes());
                Identity::App {
                    app,
                    installation,
                    key: key.map_err(SetupError::Key)?,
                }
            }
            Credentials::Token(token) => {
                let is_token =
                    !token.expose().is_empty() && token.expose().bytes().all(|byte| byte.is_ascii_graphic());
                Identity::Token(is_token.then_some(token).ok_or(SetupError::Token)?)
            }
            Credentials::Nobody => Identity::Nobody,
        };
        let inner = Inner {
            base: Base::parse(&url)?,
            identity,
            transport: Transport::new(deadline)?,
            tokens: Tokens::default(),
            cache: Mutex::default(),
            state: Mutex::default(),
            permits: Semaphore::new(TOGETHER),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// How things stand.
    pub fn report(&self) -> Report {
        let mut state = self.state();
        state.wait(Instant::now());
        state.report.clone()
    }

    /// How long to wait at least after a look that cost so many requests: see [`pace`].
    pub(crate) fn pace(&self, cost: u64) -> Duration {
        let state = self.state();
        let report = &state.report;
        let (Some(limit), Some(remaining), Some(reset)) =
            (report.limit, report.remaining, report.reset_unix_s)
        else {
            return Duration::ZERO;
        };
        let left = reset.saturating_sub(state.github_unix_s(unix_s()));
        pace(cost, limit, remaining, Duration::from_secs(left))
    }

    /// The installation that this client asks for, if it is an App's.
    pub(crate) fn installation_id(&self) -> Option<u64> {
        match &self.inner.identity {
            Identity::App { installation, .. } => Some(*installation),
            Identity::Token(_) | Identity::Nobody => None,
        }
    }

    /// Counts entries of a list that could not be read.
    pub(crate) fn count_unreadable(&self, count: usize) {
        self.state().report.unreadable += u64::try_from(count).unwrap_or(u64::MAX);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, reads the answer, and takes note of how that went.
    pub(crate) async fn call<T>(
        &self,
        call: Call,
        read: impl FnOnce(&Reply) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let answered = self.answered(&call).await.and_then(|reply| {
            // What cannot be read is not kept: GitHub would say for ever that it did not change.
            read(&reply).inspect_err(|_| self.cache().remove(&reply.address))
        });
        answered.inspect_err(|error| self.note(error))
    }

    /// Takes note of a failure.
    pub(crate) fn note(&self, error: &ClientError) {
        self.state().failed(error);
        tracing::debug!(%error, "GitHub did not give what it was asked for");
    }

    async fn answered(&self, call: &Call) -> Result<Reply, ClientError> {
        let token = self.token(&call.grant).await?;
        match (self.ask(call, token.as_ref()).await, token) {
            // An App's own token is never old, and a personal one cannot be made anew.
            (Err(ClientError::Unauthorized { .. }), Some(refused)) if self.is_minted(&call.grant) => {
                self.inner.tokens.forget(&call.grant, refused.serial).await;
                let token = self.token(&call.grant).await?;
                self.ask(call, token.as_ref()).await
            }
            (answered, _) => answered,
        }
    }

    fn is_minted(&self, grant: &Grant) -> bool {
        matches!(self.inner.identity, Identity::App { .. }) && *grant != Grant::App
    }

    /// The credential for a question.
    async fn token(&self, grant: &Grant) -> Result<Option<Token>, ClientError> {
        match (&self.inner.identity, grant) {
            (Identity::Nobody, _) => Ok(None),
            (Identity::Token(secret), _) => Ok(Some(lasting(secret.clone()))),
            (Identity::App { app, key, .. }, Grant::App) => self.app_token(app, key).map(Some),
            (
                Identity::App {
                    app,
                    installation,
                    key,
                },
                Grant::Repo(..) | Grant::Installation(_),
            ) => {
                let mint = || self.mint(app, *installation, key, grant);
                self.inner.tokens.get(grant, mint).await.map(Some)
            }
        }
    }

    fn app_token(&self, app: &str, key: &jsonwebtoken::EncodingKey) -> Result<Token, ClientError> {
        let now_unix_s = self.state().github_unix_s(unix_s());
        let token = grant::app_token(app, key, now_unix_s).map_err(SetupError::Key)?;
        Ok(lasting(token))
    }

    /// Asks for a token. When our clock is wrong, the first answer is a refusal that tells GitHub's, and the second is a
    /// token.
    async fn mint(
        &self,
        app: &str,
        installation: u64,
        key: &jsonwebtoken::EncodingKey,
        grant: &Grant,
    ) -> Result<Token, ClientError> {
        let path = format!("/app/installations/{installation}/access_tokens");
        let call = Call::post(Grant::App, path, Some(grant.body()));
        let skew = self.report().clock_skew_s;
        let mut answered = self.ask(&call, Some(&self.app_token(app, key)?)).await;
        let is_news = self.report().clock_skew_s != skew && self.report().is_clock_wrong();
        if matches!(answered, Err(ClientError::Unauthorized { .. })) && is_news {
            answered = self.ask(&call, Some(&self.app_token(app, key)?)).await;
        }
        let reply = answered.map_err(|error| ungranted(error, grant))?;
        let minted: Minted = reply.json()?;
        let expires = unix_s_of_iso(&minted.expires_at);
        let expires =
            expires.ok_or_else(|| reply.odd(Oddity::NotJson("`expires_at` is no time".to_owned())))?;
        // Both by GitHub's clock; from here on only how much time passes counts.
        let life = Duration::from_secs(expires.saturating_sub(self.state().github_unix_s(unix_s())));
        self.state().report.minted += 1;
        tracing::debug!(?grant, life_s = life.as_secs(), "GitHub gave a token");
        Ok(Token {
            secret: minted.token,
            serial: self.inner.tokens.next_serial(),
            good_until: Instant::now() + life.saturating_sub(MARGIN),
        })
    }

    /// One question and its answer, with what we have of it.
    async fn ask(&self, call: &Call, token: Option<&Token>) -> Result<Reply, ClientError> {
        let asked = call.asked();
        let elsewhere = || ClientError::Redirected {
            asked: asked.clone(),
            to: clean(&call.target, token.map(|it| it.secret.expose())),
        };
        let uri = self.inner.base.join(&call.target).ok_or_else(elsewhere)?;
        let address = uri.to_string();
        let serial = token.map_or(0, |it| it.serial);
        let is_kept = call.method == Method::GET && call.grant != Grant::App;
        let cached = is_kept.then(|| self.cache().get(&address, serial)).flatten();
        let outgoing = Outgoing {
            method: &call.method,
            uri: &uri,
            asked: &asked,
            credential: token.map(|it| &it.secret),
            scheme: "Bearer",
            headers: vec![],
            etag: cached.as_ref().map(|it| it.etag.as_str()),
            body: call.body.as_ref().map(|it| it.to_string().into_bytes()),
        };
        let answer = self.follow(outgoing, call).await?;
        if answer.status == http::StatusCode::NOT_MODIFIED {
            let odd = || Oddity::NotJson("304 to a question without a validator".to_owned());
            let Cached { body, next, .. } = cached.ok_or_else(|| ClientError::NotGitHub {
                asked: asked.clone(),
                oddity: odd(),
            })?;
            return Ok(Reply {
                asked,
                address,
                body,
                next,
            });
        }
        if !answer.status.is_success() {
            return Err(answer.error(&asked, token.map(|it| it.secret.expose())));
        }
        if let Some(oddity) = answer.oddity() {
            return Err(ClientError::NotGitHub { asked, oddity });
        }
        let (body, next) = (answer.body.slice_ref(answer.json()), answer.next());
        if let Some(etag) = answer.etag().filter(|_| is_kept) {
            let cached = Cached {
                etag: etag.to_owned(),
                body: body.clone(),
                next: next.clone(),
            };
            self.cache().put(&address, serial, cached);
        }
        Ok(Reply {
            asked,
            address,
            body,
            next,
        })
    }

    /// Sends, and looks once where the answer says to look instead, if that is on the same server.
    async fn follow(&self, outgoing: Outgoing<'_>, call: &Call) -> Result<Answer, ClientError> {
        let answer = self.exchange(outgoing.clone(), call).await?;
        let to: Option<Uri> = answer
            .location()
            .and_then(|to| followed(&call.method, outgoing.uri, to));
        match to {
            Some(to) => self.exchange(Outgoing { uri: &to, ..outgoing }, call).await,
            None => Ok(answer),
        }
    }

    /// Sends unless a limit is on, and hears what the answer says of limits.
    async fn exchange(&self, outgoing: Outgoing<'_>, call: &Call) -> Result<Answer, ClientError> {
        let asked = outgoing.asked;
        let limited = |(until, wait)| ClientError::Limited {
            asked: asked.to_owned(),
            until,
            wait,
        };
        // Never closed, so that there is always a permit in the end.
        let _permit = self.inner.permits.acquire().await;
        {
            let mut state = self.state();
            if let Some(wait) = state.wait(Instant::now()) {
                state.report.held_back += 1;
                return Err(limited(wait));
            }
            state.report.requests += 1;
        }
        let answer = self.inner.transport.send(outgoing.clone()).await?;
        tracing::debug!(asked, status = answer.status.as_u16(), "GitHub answered");
        // The clock and the limits of whoever answered in GitHub's place are not GitHub's.
        if answer.oddity().is_some() {
            return Ok(answer);
        }
        let is_core = answer.is_core() && call.grant != Grant::App;
        let wait = self
            .state()
            .hear(&answer.told(), is_core, Instant::now(), unix_s());
        wait.map_or(Ok(answer), |wait| Err(limited(wait)))
    }
}

/// A credential that is used until somebody says otherwise.
fn lasting(secret: Secret) -> Token {
    Token {
        secret,
        serial: 0,
        good_until: Instant::now(),
    }
}

/// GitHub refuses to make a token with 422: for a permission, or for a repository that the App is not installed for; with
/// 404 where it is not installed any more. None of it says anything of what was to be asked with the token.
fn ungranted(error: ClientError, grant: &Grant) -> ClientError {
    match error {
        ClientError::Unprocessable {
            asked,
            status: 422,
            message,
        } if message.contains("permission") => ClientError::Forbidden {
            asked,
            message,
            needs: grant.needs(),
        },
        ClientError::Unprocessable {
            asked,
            status: 422,
            message,
        }
        | ClientError::NotFound { asked, message } => ClientError::Forbidden {
            asked,
            message,
            needs: None,
        },
        other => other,
    }
}

/// The clock of this host, in seconds since 1970.
fn unix_s() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs())
}
