//! Serves the status page and the metrics, to read and nothing else. What is asked for is decided by
//! [`crate::page::request`], what is answered made by [`crate::page`] and [`crate::metrics`].
//!
//! As for the webhook, everything is bounded: connections at once and in a second, the time each takes, the bytes of its head.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use camino::Utf8Path;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{error, warn};

use super::{Daemon, http};
use crate::config::{EgressMode, Listen};
use crate::control::StatusReport;
use crate::job::JobId;
use crate::job::ledger::{Listing, Noted};
use crate::metrics::{self, Now, Tally};
use crate::page::request::{HEADERS, Head, Refusal, Wish, read};
use crate::page::{Disk, NEWEST, Pages, SPAN_MS, Snapshot};
use crate::sandbox::Axis;
use crate::sandbox::axes::Standing;

/// Connections at once.
const CONNECTIONS: usize = 32;

/// How long to wait when no connection can be accepted: out of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two connections: whoever asks without end gets a small part of the daemon's one thread, which jobs need.
const PACE: Duration = Duration::from_millis(20);

/// How old the page of everything may be, for the same reason: it costs the most.
const FRESH: Duration = Duration::from_secs(1);

const HTML: &str = "text/html; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What only the page and the metrics need.
#[derive(Debug, Default)]
pub(super) struct Board {
    tally: Tally,
    /// Where they are served, once they are.
    pub(super) at: OnceLock<Listen>,
    /// How many dispatchers of this daemon were killed before this one.
    pub(super) killed: AtomicU32,
    /// The last page of everything, and since when it is that.
    overview: Mutex<Option<(Instant, String)>>,
}

/// Where connections come in.
#[derive(Debug)]
pub enum Listener {
    /// Over loopback.
    Tcp(TcpListener),
    /// At a socket, which only those who may use the control socket may use.
    Unix(UnixListener),
}

impl Listener {
    /// Listens where the configuration says; a socket is made by the warden, and is `door`.
    ///
    /// # Errors
    /// Somebody else listens there, or there is no such door.
    pub async fn bind(listen: &Listen, door: Option<UnixListener>) -> io::Result<Self> {
        match (listen, door) {
            (Listen::Tcp(address), _) => TcpListener::bind(address).await.map(Self::Tcp),
            (Listen::Unix(_), Some(door)) => Ok(Self::Unix(door)),
            (Listen::Unix(_), None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Where it really listens: the system chooses a port in place of port 0.
    ///
    /// # Errors
    /// The system does not say.
    pub fn place(&self, listen: &Listen) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix(_) => Ok(listen.clone()),
        }
    }
}

/// Who asks, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// Somebody who came over loopback.
    Tcp,
    /// Somebody who may use the control socket.
    Trusted,
}

impl Daemon {
    /// Answers whoever comes to `listener`, and counts from now on. It ends when it is dropped, with every connection.
    ///
    /// # Errors
    /// The templates of the page are wrong, or somebody counts already.
    pub async fn serve_page(
        self: Arc<Self>,
        listener: Listener,
        place: Listen,
    ) -> anyhow::Result<Infallible> {
        let pages = Arc::new(Pages::new()?);
        if let (Listen::Tcp(_), Some(who)) = (&place, self.who_else_reaches()) {
            warn!("{who} reach the status page at {place}, which shows every job");
        }
        let _ = self.board.at.set(place);
        let notes = self.pipeline.ledger.notes();
        let mut notes = notes.ok_or_else(|| anyhow::anyhow!("jobs are counted twice"))?;
        let counting = async {
            while let Some(noted) = notes.recv().await {
                self.note(&noted);
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            never = counting => match never {},
            never = self.accept(listener, &pages) => match never {},
        }
    }

    /// Which jobs the packet filter does not keep from loopback.
    fn who_else_reaches(&self) -> Option<&'static str> {
        let planner = self.pipeline.planner();
        let config = planner.config();
        let filtered = self
            .pipeline
            .axes
            .iter()
            .any(|report| report.axis == Axis::Network && report.standing == Standing::Enforced);
        match config.egress.mode {
            EgressMode::Open => Some("jobs of `egress.mode = \"open\"`"),
            EgressMode::BlockLan if !filtered => Some("jobs, without a packet filter,"),
            EgressMode::BlockLan | EgressMode::Offline => None,
        }
    }

    async fn accept(self: &Arc<Self>, listener: Listener, pages: &Arc<Pages>) -> Infallible {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // Who comes while all places are taken waits in the system's queue.
            let place = Arc::clone(&places).acquire_owned().await;
            let (daemon, pages) = (Arc::clone(self), Arc::clone(pages));
            let accepted = match &listener {
                Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    connections.spawn(async move {
                        let _place = place;
                        daemon.converse(stream, &pages, Asker::Tcp).await;
                    });
                }),
                Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                    connections.spawn(async move {
                        let _place = place;
                        if daemon.is_trusted(&stream) {
                            daemon.converse(stream, &pages, Asker::Trusted).await;
                        }
                    });
                }),
            };
            if let Err(error) = accepted {
                warn!(%error, "could not accept a connection to the page");
                tokio::time::sleep(PAUSE).await;
            }
            while connections.try_join_next().is_some() {}
            tokio::time::sleep(PACE).await;
        }
    }

    fn is_trusted(&self, stream: &UnixStream) -> bool {
        let Ok(peer) = stream.peer_cred() else {
            return false;
        };
        let is_trusted = self.may_ask(peer.uid(), peer.gid());
        if !is_trusted {
            warn!(uid = peer.uid(), "refused a connection to the status page");
        }
        is_trusted
    }

    async fn converse<S>(self: &Arc<Self>, stream: S, pages: &Arc<Pages>, asker: Asker)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let answer = |request: Request<Incoming>| async move { self.respond(&request, pages, asker).await };
        http::converse(stream, "page", answer).await;
    }

    async fn respond(
        &self,
        request: &Request<Incoming>,
        pages: &Pages,
        asker: Asker,
    ) -> Response<Full<Bytes>> {
        let headers = request.headers().get_all(HOST).iter();
        // A name that is no text is none of ours.
        let named = headers.map(|host| host.to_str().unwrap_or_default());
        let hosts: Vec<&str> = named
            .chain(request.uri().authority().map(hyper::http::uri::Authority::as_str))
            .collect();
        let wish = read(&Head {
            method: request.method().as_str(),
            path: request.uri().path(),
            hosts: &hosts,
            is_tcp: asker == Asker::Tcp,
        });
        let answer = match wish {
            Ok(wish) => self.fulfil(wish, pages).await,
            Err(refusal) => Ok(refused(refusal)),
        };
        answer.unwrap_or_else(|why| {
            error!(why, "could not answer on the page");
            answer_of(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{why}\n"))
        })
    }

    /// # Errors
    /// In words: the ledger cannot be read, or a template is wrong.
    async fn fulfil(&self, wish: Wish, pages: &Pages) -> Result<Response<Full<Bytes>>, String> {
        let status = self.status().await;
        let html = |text| answer_of(StatusCode::OK, HTML, text);
        match wish {
            Wish::Health => Ok(match status.shut.or(status.full) {
                None => answer_of(StatusCode::OK, PLAIN, "ok\n".to_owned()),
                Some(why) => answer_of(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
            }),
            Wish::Metrics => {
                let text = self.figures(&status)?;
                Ok(answer_of(StatusCode::OK, metrics::CONTENT_TYPE, text))
            }
            Wish::Overview => self.overview(status, pages).map(html),
            Wish::Job(job) => match self.story(&job) {
                Ok(story) => pages
                    .story(&story, now_ms())
                    .map(html)
                    .map_err(|error| crate::chain(&error)),
                Err(why) => Ok(answer_of(StatusCode::NOT_FOUND, PLAIN, format!("{why}\n"))),
            },
        }
    }

    fn overview(&self, status: StatusReport, pages: &Pages) -> Result<String, String> {
        let mut last = self.board.overview.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, page)) = last.as_ref().filter(|(since, _)| since.elapsed() < FRESH) {
            return Ok(page.clone());
        }
        let snapshot = self.snapshot(status)?;
        let page = pages.overview(&snapshot).map_err(|error| crate::chain(&error))?;
        *last = Some((Instant::now(), page.clone()));
        Ok(page)
    }

    fn snapshot(&self, status: StatusReport) -> Result<Snapshot, String> {
        let now_ms = now_ms();
        let listing = Listing::Since {
            ms: now_ms.saturating_sub(SPAN_MS),
            newest: NEWEST,
        };
        let jobs = self.pipeline.ledger.jobs(listing);
        Ok(Snapshot {
            now_ms,
            host: host_name(),
            status,
            jobs: jobs.map_err(|error| crate::chain(&error))?,
            disk: disk(self.pipeline.planner().data_dir()),
        })
    }

    fn figures(&self, status: &StatusReport) -> Result<String, String> {
        let active = self.pipeline.ledger.jobs(Listing::Active);
        let active = active.map_err(|error| crate::chain(&error))?;
        let waiting = active.iter().filter(|job| job.claimed_ms.is_none());
        let now = Now {
            status,
            oldest_wait_ms: waiting.map(|job| now_ms().saturating_sub(job.queued_ms)).max(),
            disk_free_byte: disk(self.pipeline.planner().data_dir()).map(|disk| disk.free_byte),
        };
        metrics::render(&self.board.tally, &now).map_err(|error| error.to_string())
    }

    fn note(&self, noted: &Noted) {
        match noted {
            Noted::Sent(route) => self.board.tally.decided(*route),
            Noted::Over(job) => self.count_ended(job),
        }
    }

    fn count_ended(&self, job: &JobId) {
        match self.pipeline.ledger.job(job) {
            Ok(Some(row)) => self.board.tally.ended(&row),
            Ok(None) => {}
            Err(error) => warn!(job = %job, error = crate::chain(&error), "could not count a job"),
        }
    }
}

fn refused(refusal: Refusal) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = answer_of(status, PLAIN, format!("{refusal}\n"));
    if refusal == Refusal::Method {
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

fn answer_of(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    let name = name.and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "this host".to_owned())
}

/// How full the file system of a folder is.
fn disk(folder: &Utf8Path) -> Option<Disk> {
    let found = nix::sys::statvfs::statvfs(folder.as_std_path()).ok()?;
    // Of different width on different systems.
    let bytes = |blocks: u128| u64::try_from(blocks * u128::from(found.fragment_size())).unwrap_or(u64::MAX);
    Some(Disk {
        free_byte: bytes(u128::from(found.blocks_available())),
        total_byte: bytes(u128::from(found.blocks())),
    })
}
