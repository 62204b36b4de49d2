//! The webhook over HTTP, with deliveries as a GitHub made for tests sends them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "only some of it is needed here")]
#[path = "github/hub/mod.rs"]
mod hub;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use ephemerd::daemon::webhook::{WAITING, serve};
use ephemerd::github::secret::Secret;
use ephemerd::github::webhook::{Ear, Hint, LONGEST, PATH};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use hub::Hub;
use hub::client::request;
use hub::state::Phase;
use hub::webhooks::{Delivery, deliver};

const SECRET: &str = "planted-secret";

/// The labels of the jobs.
const LABELS: [&str; 2] = ["self-hosted", "eph-native"];

fn ear() -> Ear {
    let repos: BTreeSet<_> = ["o/r".parse().unwrap()].into();
    Ear::new(&Secret::new(SECRET), repos).unwrap()
}

/// A served webhook.
struct Server {
    address: SocketAddr,
    hints: mpsc::Receiver<Hint>,
    _runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, hints) = mpsc::channel(WAITING);
        runtime.spawn(serve(listener, ear(), sender));
        Self {
            address,
            hints,
            _runtime: runtime,
        }
    }

    fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Sends a delivery, and returns the status of the answer and how many hints it made.
    fn send(&mut self, delivery: &Delivery) -> (u16, usize) {
        let status = delivery.send(&self.url()).unwrap();
        (status, self.count())
    }

    fn count(&mut self) -> usize {
        let mut count = 0;
        while let Ok(hint) = self.hints.try_recv() {
            assert_eq!(hint.repo.as_str(), "o/r");
            count += 1;
        }
        count
    }
}

/// A delivery that is a hint; no two are the same.
fn good(number: usize) -> Delivery {
    let payload =
        json!({"action": "queued", "workflow_job": {"id": number}, "repository": {"full_name": "o/r"}});
    deliver(&payload, SECRET)
}

/// The delivery with one header changed, added or, by an empty value, left out.
fn with(mut delivery: Delivery, name: &str, value: &str) -> Delivery {
    delivery.headers.retain(|(header, _)| header != name);
    if !value.is_empty() {
        delivery.headers.push((name.to_owned(), value.to_owned()));
    }
    delivery
}

#[test]
fn what_github_sends_of_a_jobs_life_wakes_us_up_once_each_in_any_order() {
    let hub = Hub::start();
    let job = hub.jobs_of(hub.push("o/r", &LABELS))[0];
    let mut server = Server::start();
    let mut deliveries = hub.deliveries(job, SECRET);
    deliveries.push(deliver(&hub.payload(job, Phase::InProgress), SECRET));
    deliveries.reverse();
    for delivery in &deliveries {
        assert_eq!(server.send(delivery), (202, 1));
    }
    for delivery in &deliveries {
        assert_eq!(server.send(delivery), (204, 0), "heard already");
        assert_eq!(
            server.send(&with(delivery.clone(), "x-github-delivery", "new")),
            (204, 0)
        );
    }
    let ping = with(
        deliver(&json!({"zen": "Keep it logically awesome."}), SECRET),
        "x-github-event",
        "ping",
    );
    assert_eq!(server.send(&ping), (204, 0));
    let elsewhere = deliver(
        &json!({"action": "queued", "repository": {"full_name": "o/other"}}),
        SECRET,
    );
    assert_eq!(server.send(&elsewhere), (204, 0));
    assert_eq!(server.send(&with(good(1), "x-github-event", "push")), (204, 0));
}

#[test]
fn what_is_no_delivery_of_githubs_is_refused_and_wakes_nobody() {
    let mut server = Server::start();
    let signature = |delivery: &Delivery| {
        let found = delivery
            .headers
            .iter()
            .find(|(name, _)| name == "x-hub-signature-256");
        found.unwrap().1.clone()
    };
    let other = deliver(
        &json!({"action": "queued", "repository": {"full_name": "o/r"}}),
        "another secret",
    );
    let mut twice = good(1);
    let header = ("x-hub-signature-256".to_owned(), signature(&twice));
    twice.headers.push(header);
    let mut changed = good(2);
    changed.body.push(b' ');
    let garbage = |text: &str| {
        let mut delivery = deliver(&Value::Null, SECRET);
        let of_text = deliver(&Value::String(text.to_owned()), SECRET);
        (delivery.headers, delivery.body) = (of_text.headers, of_text.body);
        delivery
    };
    let table = [
        (401, other),
        (401, changed),
        (401, twice),
        (401, with(good(3), "x-hub-signature-256", "")),
        (401, with(good(4), "x-hub-signature-256", "sha256=00")),
        (
            415,
            with(good(5), "content-type", "application/x-www-form-urlencoded"),
        ),
        (415, with(good(6), "content-type", "")),
        (400, with(good(7), "x-github-delivery", "")),
        (400, with(good(8), "x-github-event", "")),
        (400, garbage("not an object")),
        (400, deliver(&json!({"action": "queued"}), SECRET)),
    ];
    for (status, delivery) in &table {
        assert_eq!(server.send(delivery), (*status, 0), "{delivery:?}");
    }
    let delivery = good(9);
    for path in ["/", "/webhook/", "/metrics"] {
        let url = format!("http://{}{path}", server.address);
        assert_eq!(delivery.send(&url).unwrap(), 404, "{path}");
    }
    let headers: Vec<_> = delivery
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let got = request("GET", &server.url(), &headers, &delivery.body).unwrap();
    assert_eq!((got.status, got.header("allow")), (405, "POST"));
    // None of them was heard.
    assert_eq!(server.send(&delivery), (202, 1));
}

#[test]
fn more_than_a_delivery_may_have_is_refused_whether_it_is_announced_or_not() {
    let mut server = Server::start();
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-github-event: workflow_job\r\nx-github-delivery: a\r\nx-hub-signature-256: sha256=00\r\n"
    );
    write!(stream, "{head}content-length: {}\r\n\r\n", LONGEST + 1).unwrap();
    assert!(answer(&mut stream).starts_with("HTTP/1.1 413 "));
    let mut stream = TcpStream::connect(server.address).unwrap();
    write!(
        stream,
        "{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n",
        LONGEST + 1
    )
    .unwrap();
    // The server may have answered and hung up before everything was sent.
    let _ = stream.write_all(&vec![b' '; LONGEST + 1]);
    let _ = stream.write_all(b"\r\n0\r\n\r\n");
    let told = answer(&mut stream);
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 413 "), "{told}");
    let mut stream = TcpStream::connect(server.address).unwrap();
    let _ = write!(stream, "{head}x-long: {}\r\n\r\n", "x".repeat(64 * 1024));
    let told = answer(&mut stream);
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 431 "), "{told}");
    assert_eq!(server.count(), 0);
    assert_eq!(server.send(&good(1)), (202, 1));
}

/// What is answered until the connection ends, however it does.
fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn hints_that_nobody_takes_are_dropped_and_deliveries_are_still_answered() {
    let mut server = Server::start();
    for number in 0..WAITING + 5 {
        assert_eq!(good(number).send(&server.url()).unwrap(), 202);
    }
    assert_eq!(server.count(), WAITING);
    assert_eq!(server.send(&good(WAITING + 5)), (202, 1));
}

#[test]
fn connections_beyond_the_limit_wait_for_those_before_them() {
    let mut server = Server::start();
    let mut silent: Vec<_> = (0..32)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect();
    let url = server.url();
    let waits = std::thread::spawn(move || good(1).send(&url).unwrap());
    drop(silent.pop());
    assert_eq!(waits.join().unwrap(), 202);
    assert_eq!(server.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_slow_is_let_go_wherever_it_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut hints) = mpsc::channel(WAITING);
    let _server = tokio::spawn(serve(listener, ear(), sender));
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-github-event: ping\r\nx-github-delivery: a\r\nx-hub-signature-256: sha256=00\r\ncontent-length: 10\r\n\r\n"
    );
    let start = tokio::time::Instant::now();
    for sent in ["", "POST /web", &head, &format!("{head}12345")] {
        let (sender, told) = tokio::sync::oneshot::channel();
        let sent = sent.to_owned();
        // The runtime's clock goes on when nothing else does, and does not wait for threads of the test.
        std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.write_all(sent.as_bytes());
            sender.send(answer(&mut stream)).unwrap();
        });
        assert_eq!(told.await.unwrap(), "");
    }
    assert!(
        start.elapsed() >= std::time::Duration::from_secs(40),
        "each took its ten seconds"
    );
    hints.try_recv().unwrap_err();
}
