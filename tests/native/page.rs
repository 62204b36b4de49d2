//! The status page of a real daemon: in a browser, to Prometheus, and to those who should not see it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ephemerd::control::{Answer, Ask};
use ephemerd::job::{JobId, JobSpec, Origin};

use crate::browser::{Look, dom, screenshot};
use crate::harness::net::{Net, lines_of};
use crate::harness::{Daemon, Site, command, out, said, wait_for};

const ANY_PORT: &str = "[control]\nlisten = \"127.0.0.1:0\"\n";

/// An account that no rule is about.
const NOBODY: u32 = 65534;

/// A name of an event whose script would change the title.
const HOSTILE: &str = "<script>document.title='owned'</script>";

/// Where a daemon says that it serves the page.
fn address(daemon: &Daemon) -> String {
    wait_for("the address of the page", || daemon.status().listen)
}

/// Says something over a connection and hears it out: head and body.
fn talk(mut stream: impl Read + Write, words: &str) -> (String, String) {
    // Whoever is not answered may be hung up on before all is said.
    let _ = stream.write_all(words.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) => (head.to_owned(), body.to_owned()),
        None => (answer, String::new()),
    }
}

/// What is answered at an address.
fn get(address: &str, path: &str) -> (String, String) {
    let words = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    talk(TcpStream::connect(address).unwrap(), &words)
}

/// Hands over a job of an event that somebody has named.
fn submit(daemon: &Daemon, repo: &str, event: &str) -> JobId {
    let origin = Origin {
        event: event.to_owned(),
        ..Origin::own(&repo.parse().unwrap())
    };
    let spec = JobSpec {
        origin,
        command: vec!["true".to_owned()],
        env: std::collections::BTreeMap::new(),
        timeout_s: None,
    };
    match daemon.site().ask(&Ask::Submit { spec }).unwrap() {
        Answer::Submitted { job, .. } => job,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_daemon_shows_its_jobs_to_a_browser_and_its_figures_to_prometheus() {
    let daemon = Daemon::start(ANY_PORT);
    let address = address(&daemon);
    let good = daemon.script("true");
    let bad = daemon.script("exit 3");
    let refused = submit(&daemon, "acme/app", HOSTILE);
    for job in [&good, &bad, &refused] {
        daemon.ended(job);
    }
    let running = daemon.script("echo begun; exec sleep 1000");
    daemon.wait_for_output(&running, "begun");

    let ended = "ephemerd_jobs_total{mode=\"native\",result=\"failed\"} 1";
    let figures = wait_for("the figure of a job that failed", || {
        let (head, body) = get(&address, "/metrics");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        body.contains(ended).then_some(body)
    });
    for line in [
        "ephemerd_jobs_total{mode=\"native\",result=\"ok\"} 1",
        "ephemerd_jobs_total{mode=\"refuse\",result=\"refused\"} 1",
        "ephemerd_decision_total{route=\"native\"} 3",
        "ephemerd_run_seconds_count{mode=\"native\"} 2",
        "ephemerd_queue_wait_seconds_count 2",
        "ephemerd_slots{state=\"busy\"} 1",
        "ephemerd_jobs_active{mode=\"native\"} 1",
        "ephemerd_axis_enforced{axis=\"filesystem\"} 1",
        "ephemerd_shut 0",
        "ephemerd_config_last_reload_successful 1",
        "ephemerd_config_restart_needed 0",
    ] {
        assert!(figures.lines().any(|found| found == line), "{line}\n{figures}");
    }
    assert!(figures.contains("ephemerd_disk_free_bytes{"), "{figures}");
    assert!(!figures.contains("acme"), "{figures}");
    let mut promtool = command("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut promtool = promtool
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(figures.as_bytes())
        .unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let silent = checked.stdout.is_empty() && checked.stderr.is_empty();
    assert!(checked.status.success() && silent, "{}", said(&checked));

    let url = format!("http://{address}/");
    let shown = dom(&url);
    for job in [&good, &bad, &refused, &running] {
        assert!(shown.contains(&format!("href=\"/jobs/{job}\"")), "{job}\n{shown}");
    }
    assert!(
        shown.contains("&lt;script&gt;") && !shown.contains("<script"),
        "{shown}"
    );
    assert!(shown.contains("· ephemerd</title>"), "{shown}");
    let story = dom(&format!("{url}jobs/{bad}"));
    for text in ["exit 3", "scrubbing", "filesystem", "enforced"] {
        assert!(story.contains(text), "{text}\n{story}");
    }
    let look = Look {
        width: 1280,
        height: 1500,
        is_dark: false,
    };
    let picture = daemon.site().top.join("page.png");
    let seen = screenshot(&url, look, picture.as_std_path());
    assert_eq!((seen.width, seen.height), (1280, 1500));
    assert!(seen.corner[0] > 200 && seen.colours > 100, "{seen:?}");

    assert!(get(&address, "/healthz").1 == "ok\n");
    assert!(get(&address, "/jobs/00000000000").0.starts_with("HTTP/1.1 404 "));
    let told = out(&daemon.cli(&["status"]));
    assert!(told.contains(&format!("page: http://{address}/\n")), "{told}");
    assert!(daemon.cli(&["cancel", running.as_str()]).status.success());
    daemon.ended(&running);
}

#[test]
fn who_calls_this_host_by_another_name_or_wants_to_change_something_is_turned_away() {
    let daemon = Daemon::start(ANY_PORT);
    let address = address(&daemon);
    let ask = |words: &str| talk(TcpStream::connect(&address).unwrap(), words).0;
    let status = |words: &str| {
        ask(words)
            .split(' ')
            .nth(1)
            .map(str::to_owned)
            .unwrap_or_default()
    };
    assert_eq!(status("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"), "200");
    for (words, wanted) in [
        ("GET / HTTP/1.1\r\nhost: rebound.example\r\n\r\n", "421"),
        ("GET / HTTP/1.0\r\n\r\n", "421"),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\nhost: rebound.example\r\n\r\n",
            "421",
        ),
        (
            "GET http://rebound.example/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "421",
        ),
        (
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n",
            "405",
        ),
        ("GET /../../etc/passwd HTTP/1.1\r\nhost: localhost\r\n\r\n", "404"),
        (
            "GET /jobs/%3Cscript%3E HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "404",
        ),
    ] {
        assert_eq!(status(words), wanted, "{words}");
    }
    for words in [
        "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "DELETE / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        let head = ask(words);
        for header in [
            "content-security-policy: default-src 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.contains(header), "{header}\n{head}");
        }
    }
    let (head, body) = talk(
        TcpStream::connect(&address).unwrap(),
        "HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    );
    assert!(
        head.starts_with("HTTP/1.1 200 ") && body.is_empty(),
        "{head}\n{body}"
    );
}

#[test]
fn whoever_asks_without_end_does_not_get_all_of_the_daemons_time() {
    let daemon = Daemon::start(ANY_PORT);
    let address = address(&daemon);
    let began = Instant::now();
    for _ in 0..50 {
        assert!(get(&address, "/healthz").0.starts_with("HTTP/1.1 200 "));
    }
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_host_that_lets_no_job_through_is_not_healthy() {
    let daemon = Daemon::start(&format!("manifest = \"linux-base\"\n{ANY_PORT}"));
    let address = address(&daemon);
    let (head, body) = get(&address, "/healthz");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(body.contains("this host is not enabled"), "{body}");
    assert!(get(&address, "/metrics").1.contains("\nephemerd_shut 1\n"));
    assert!(get(&address, "/").1.contains("this host is not enabled"));
}

/// Asks a socket for the figures and prints the first line of the answer.
const FETCH_UNIX: &str = r#"
import socket, sys
with socket.socket(socket.AF_UNIX) as one:
    try:
        one.connect(sys.argv[1])
        one.sendall(b"GET /metrics HTTP/1.1\r\nhost: anything\r\n\r\n")
        print(one.recv(12).decode() or "closed")
    except PermissionError:
        print("refused")
    except (BrokenPipeError, ConnectionResetError):
        print("closed")
"#;

#[test]
fn a_socket_is_for_those_who_may_use_the_control_socket() {
    let site = Site::new("");
    let socket = site.top.join("page.sock");
    site.configure(&format!("[control]\nlisten = \"unix:{socket}\"\n"));
    let daemon = Daemon::start_at(site);
    assert_eq!(address(&daemon), format!("unix:{socket}"));
    let (head, _) = talk(
        UnixStream::connect(&socket).unwrap(),
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    );
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o660);
    let fetch = |uid: u32| {
        let id = uid.to_string();
        let fetched = command("setpriv")
            .args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                FETCH_UNIX,
            ])
            .arg(&socket)
            .output()
            .unwrap();
        lines_of(&fetched).concat()
    };
    assert_eq!(fetch(0), "HTTP/1.1 200", "the control");
    assert_eq!(fetch(NOBODY), "refused", "by the mode");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(fetch(NOBODY), "closed", "by the kernel's word on who asks");
    assert_eq!(
        fetch(daemon.site().family.uid(1)),
        "closed",
        "an account of a slot"
    );
    assert!(daemon.log().contains("refused a connection to the status page"));
    daemon.stop();
    assert!(!socket.exists());
}

/// Asks loopback for the page and prints the first line of the answer.
const FETCH: &str = r#"
import socket, sys
for address in sys.argv[1:]:
    try:
        with socket.create_connection((address, 9123), 5) as one:
            one.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            print(address, one.recv(12).decode())
    except (ConnectionRefusedError, PermissionError):
        print(address, "refused")
"#;

#[test]
fn jobs_do_not_reach_the_page_on_loopback_that_they_share_and_others_do() {
    let net = Net::new();
    let site = Site::new(
        "[control]\nlisten = \"127.0.0.1:9123\"\n[egress]\nmode = \"block-lan\"\ndns = [\"192.168.77.53\"]\n",
    );
    let command = net.ephemerd(&site, &["run"]);
    let daemon = Daemon::start_by(site, command);
    address(&daemon);
    let ways = ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1"].map(str::to_owned);
    let ended = |word: &str| ways.each_ref().map(|way| format!("{way} {word}"));
    assert_eq!(
        net.script_as(NOBODY, FETCH, &ways),
        ended("HTTP/1.1 200"),
        "the control"
    );
    let words: Vec<&str> = ["/usr/bin/python3", "-c", FETCH]
        .into_iter()
        .chain(ways.iter().map(String::as_str))
        .collect();
    let job = daemon.submit("acme/app", &words);
    daemon.ended(&job);
    let output = daemon.output(&job);
    assert_eq!(output.lines().collect::<Vec<_>>(), ended("refused"), "{output}");
}

#[test]
fn jobs_that_nothing_keeps_from_loopback_are_warned_about() {
    let net = Net::new();
    let site = Site::new("[control]\nlisten = \"127.0.0.1:9123\"\n[egress]\nmode = \"open\"\n");
    let command = net.ephemerd(&site, &["run"]);
    let daemon = Daemon::start_by(site, command);
    address(&daemon);
    assert!(
        daemon.log().contains("reach the status page at 127.0.0.1:9123"),
        "{}",
        daemon.log()
    );
}

#[test]
fn every_line_of_the_log_about_a_job_has_its_id_in_a_field_of_its_own() {
    let daemon = Daemon::start("[log]\nformat = \"json\"\n");
    let job = daemon.script("true");
    daemon.ended(&job);
    let log = daemon.log();
    let about: Vec<&str> = log.lines().filter(|line| line.contains(job.as_str())).collect();
    assert!(about.len() >= 2, "{log}");
    for line in about {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["fields"]["job"], job.as_str(), "{line}");
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn a_story_has_every_state_with_its_moment() {
    let daemon = Daemon::start("");
    let job = daemon.script("exit 3");
    let story = daemon.ended(&job);
    let shown = out(&daemon.cli(&["jobs", "show", job.as_str()]));
    for step in &story.transitions {
        let state = format!(" ms  {}", step.state);
        let line = shown.lines().find(|line| line.contains(&state));
        let line = line.unwrap_or_else(|| panic!("{}\n{shown}", step.state));
        assert!(line.starts_with("  20") && line.contains(" UTC "), "{line}");
    }
    assert!(
        shown.contains("blocked  ") || story.job.egress.is_none(),
        "{shown}"
    );
}
