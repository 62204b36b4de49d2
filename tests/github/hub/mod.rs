//! A GitHub made for tests: the REST API, runners with their broker, runner scale sets and webhooks, in one server on
//! a port of 127.0.0.1, with its state open to the test and faults on demand.
//!
//! ```text
//!   test ──Hub──▶ State ◀── rest | broker | tenant ◀── faults ◀── HTTP ── ephemerd, a stand-in listener
//!                   │
//!                   └─ violations: whatever breaks GitHub's own description, in requests and in answers
//! ```
//!
//! What breaks GitHub's published description fails the test when the hub is dropped, unless the test took it with
//! [`Hub::take_violations`]. Nothing sleeps: long polls end when the state changes, and tests wait with [`Hub::wait`].
//!
//! It is a `mod.rs` so that other tests can include it:
//!
//! ```ignore
//! #[expect(dead_code, reason = "only some of it is needed here")]
//! #[path = "../github/hub/mod.rs"]
//! mod hub;
//! ```
//!
//! The hub does not run jobs: a listener takes them from the broker and says how they ended.

pub(crate) mod auth;
pub(crate) mod client;
mod clock;
pub(crate) mod faults;
mod queue;
mod render;
mod rest;
mod runners;
pub(crate) mod scale_sets;
pub(crate) mod scenario;
pub(crate) mod schema;
pub(crate) mod state;
pub(crate) mod webhooks;
mod wire;

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::response::Response;
use tokio::sync::Notify;

use self::clock::http_date;
use self::faults::{Fault, matches};
use self::state::{Logged, State};
use self::wire::{Call, Entrance, Fuse, Reply};

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running hub. It stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Hub {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

/// What the server and the test share.
#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    wake: Notify,
    stop: Notify,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the state, and lets everybody who waits look again.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.lock());
        self.changed.notify_all();
        self.wake.notify_waiters();
        value
    }
}

impl Hub {
    /// Starts a hub that has nothing but the default runner group.
    pub(crate) fn start() -> Self {
        let inner = Arc::new(Inner::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        listener
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        let address = listener.local_addr().expect("a socket has an address");
        inner.lock().begin(format!("http://{address}"));
        let served = Arc::clone(&inner);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime starts");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("the socket is usable");
                let router = Router::new().fallback(answer).with_state(Arc::clone(&served));
                let service = router.into_make_service_with_connect_info::<Fuse>();
                tokio::select! {
                    () = served.stop.notified() => {}
                    ended = axum::serve(Entrance(listener), service) => ended.expect("the server serves"),
                }
            });
        });
        Self {
            inner,
            thread: Some(thread),
        }
    }

    /// Where the REST API is; no slash at the end.
    pub(crate) fn url(&self) -> String {
        self.inner.lock().url.clone()
    }

    /// Waits until `look` finds something in the state.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.inner.lock();
        loop {
            if let Some(found) = look(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}");
            let woken = self.inner.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Lets the next `times` requests that are like `pattern` fail. A pattern is a method and a path, in which `*`
    /// stands for anything: `GET /repos/*/actions/runs`.
    pub(crate) fn inject(&self, pattern: &str, times: u32, fault: Fault) {
        let planned = faults::Planned {
            pattern: pattern.to_owned(),
            fault,
            left: times,
        };
        self.inner.change(|state| state.planned.push(planned));
    }

    /// Forgets every fault that did not happen yet.
    pub(crate) fn heal(&self) {
        self.inner.change(|state| state.planned.clear());
    }

    /// How many requests are still to fail of those that are like this.
    pub(crate) fn faults_left(&self, is_meant: impl Fn(&str) -> bool) -> u32 {
        let state = self.inner.lock();
        let meant = state.planned.iter().filter(|it| is_meant(&it.pattern));
        meant.map(|it| it.left).sum()
    }

    /// Every request that was answered, in order.
    pub(crate) fn requests(&self) -> Vec<Logged> {
        self.inner.lock().requests.clone()
    }

    /// How many calls were taken from the rate limit.
    pub(crate) fn counted_calls(&self) -> u64 {
        self.inner.lock().counted_calls
    }

    /// What broke GitHub's description so far; it no longer fails the test.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.lock().violations)
    }

    /// Every secret that the hub gave out: none may be in a log.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.inner.lock().secrets.iter().cloned().collect()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.inner.change(|state| state.closing = true);
        self.inner.stop.notify_one();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(ended.is_none_or(|it| it.is_ok()), "the hub's own thread panicked");
            let violations = self.take_violations();
            assert!(
                violations.is_empty(),
                "GitHub's description was broken:\n{}",
                violations.join("\n")
            );
        }
    }
}

/// Answers one request.
async fn answer(
    Shared(inner): Shared<Arc<Inner>>,
    ConnectInfo(fuse): ConnectInfo<Fuse>,
    request: Request,
) -> Response {
    let call = read(request).await;
    let fault = inner.change(|state| state.fault_for(&call));
    match &fault {
        Some(Fault::Hold(gate)) => {
            inner.change(|state| state.held += 1);
            gate.pass().await;
            inner.change(|state| state.held -= 1);
        }
        Some(Fault::Reset) => {
            fuse.reset();
            inner.change(|state| state.log(&call, 0));
            return Response::default();
        }
        _ => {}
    }
    let now_s = inner.lock().now_s();
    let mut reply = match fault.as_ref().and_then(|it| it.instead(&call, now_s)) {
        Some(reply) => reply,
        None => when_ready(&inner, &call).await,
    };
    match &fault {
        Some(Fault::Truncated) => fuse.cut(reply.body.len().div_ceil(2)),
        Some(Fault::LoseAnswer) => fuse.reset(),
        Some(fault) => fault.spoil(&mut reply),
        None => {}
    }
    inner.change(|state| state.log(&call, reply.status));
    let now_s = inner.lock().now_s();
    let mut response = Response::builder()
        .status(reply.status)
        .header("date", http_date(now_s));
    if !reply.body.is_empty() {
        response = response.header("content-type", reply.content_type);
    }
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response
        .body(Body::from(reply.body))
        .expect("an answer is well formed")
}

async fn read(request: Request) -> Call {
    let (parts, body) = request.into_parts();
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Call {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        raw_query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: to_bytes(body, 16 * 1024 * 1024)
            .await
            .map(Vec::from)
            .unwrap_or_default(),
    }
}

/// The answer, as soon as there is one: a poll is held until something changes that concerns it.
async fn when_ready(inner: &Inner, call: &Call) -> Reply {
    let deadline = tokio::time::Instant::now() + inner.lock().long_poll;
    loop {
        let changed = inner.wake.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let (ready, closing) = {
            // Not through `change`: a poll that finds nothing must not wake the other polls.
            let mut state = inner.lock();
            (state.answer(call), state.closing)
        };
        if let Some(reply) = ready {
            return reply;
        }
        if closing || tokio::time::timeout_at(deadline, changed).await.is_err() {
            return Reply::empty(202);
        }
    }
}

impl State {
    fn answer(&mut self, call: &Call) -> Option<Reply> {
        if let Some(path) = call.path.strip_prefix("/_broker/") {
            self.broker(call, path)
        } else if let Some(path) = call.path.strip_prefix("/_tenant/") {
            self.tenant(call, path)
        } else if call.path == "/actions/runner-registration" {
            Some(self.register_consumer(call))
        } else {
            Some(self.rest(call))
        }
    }

    /// The first planned fault for a request; one use of it is gone.
    fn fault_for(&mut self, call: &Call) -> Option<Fault> {
        let target = format!("{} {}", call.method, call.path);
        let planned = self
            .planned
            .iter_mut()
            .find(|it| it.left > 0 && matches(&it.pattern, &target))?;
        planned.left -= 1;
        Some(planned.fault.clone())
    }

    fn log(&mut self, call: &Call, status: u16) {
        let counted = !call.path.starts_with("/_") && rest::counts(call, status);
        self.requests.push(Logged {
            method: call.method.clone(),
            path: call.path.clone(),
            query: call.raw_query.clone(),
            body: call.json(),
            token: call.credential().to_owned(),
            status,
            conditional: !call.header("if-none-match").is_empty(),
            counted,
        });
    }
}
