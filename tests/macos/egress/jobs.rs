//! Jobs under pf: what they reach, when none starts, and what becomes of one that runs when the filter is lost.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{ANCHOR, Filtered};
use crate::stand::Mac;

impl Filtered {
    /// Starts a job that says when it runs and ends with 7 once it is told to.
    fn start_job(&self) -> Child {
        let shared = self.top.join("shared");
        let script = format!(
            "echo > {shared}/started; while [ ! -e {shared}/go ]; do sleep 0.02; done; rm {shared}/started; exit 7"
        );
        let mut program = self.program(&["exec", "--", "/bin/sh", "-c", &script]);
        let job = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        until("the job runs", || shared.join("started").exists());
        job.unwrap()
    }

    fn go(&self) {
        fs::write(self.top.join("shared/go"), "").unwrap();
    }
}

/// A daemon that does not outlive its test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 60 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How a program ended, and what it said to standard error.
fn ended(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Listens in the Mac's network; connections are accepted by the kernel.
fn listener(mac: &Mac, address: &str) -> (TcpListener, SocketAddr) {
    let listener = mac
        .network
        .as_ref()
        .unwrap()
        .within(|| TcpListener::bind((address, 0)));
    let listener = listener.unwrap();
    let to = listener.local_addr().unwrap();
    (listener, to)
}

#[test]
fn a_job_is_kept_from_the_lan_and_reaches_loopback() {
    let mac = Filtered::applied();
    let (denied, to_denied) = listener(&mac, "192.0.0.8");
    let (own, to_own) = listener(&mac, "127.0.0.1");
    let network = mac.network.as_ref().unwrap();
    for to in [to_denied, to_own] {
        network
            .within(|| TcpStream::connect(to))
            .expect("root reaches it");
    }
    denied.accept().unwrap();
    denied.set_nonblocking(true).unwrap();
    let reach = |to: SocketAddr| {
        format!(
            "if (exec 3<>/dev/tcp/{}/{}); then echo reached; else echo kept; fi",
            to.ip(),
            to.port()
        )
    };
    let script = format!("{}; {}", reach(to_denied), reach(to_own));
    let output = mac.ephemerd(&["exec", "--", "/bin/bash", "-c", &script]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "kept\nreached\n",
        "{errors}"
    );
    assert!(errors.contains("ephemerd: blocked "), "{errors}");
    assert_eq!(denied.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(own);
    let (code, text) = mac.egress("status");
    assert_eq!(code, 0, "the rules stay when the job has ended: {text}");
    assert_eq!(mac.count("-E"), 1);
}

#[test]
fn no_job_starts_without_pfctl() {
    let mac = Filtered::new();
    fs::remove_file(mac.top.join("bin/pfctl")).unwrap();
    let error = mac.refused();
    assert!(error.contains("/bin/pfctl` is not there"), "{error}");
    assert!(error.contains("axis `network` is absent"), "{error}");
}

#[test]
fn a_load_that_fails_half_way_lets_no_job_start_and_the_next_one_takes_it_up() {
    let mac = Filtered::new();
    let fails = json!({"code": 1, "stderr": "pfctl: DIOCSTARTREF: Operation not permitted"});
    mac.fail("pfctl", "-E", 1, &fails);
    let error = mac.refused();
    assert!(error.contains("DIOCSTARTREF: Operation not permitted"), "{error}");
    assert!(mac.tokens().is_empty());
    assert_eq!(mac.exec("exit 5").0, 5);
    assert_eq!(mac.tokens().len(), 1);

    let mac = Filtered::new();
    let syntax = "stdin:1: syntax error\npfctl: Syntax error in config file: pf rules not loaded";
    let fails = json!({"code": 1, "stderr": syntax});
    mac.fail("pfctl", &format!("-a {ANCHOR} -f -"), 1, &fails);
    let error = mac.refused();
    assert!(error.contains("pf rules not loaded"), "{error}");
    assert_eq!(mac.count("-E"), 0, "pf is not needed for nothing");
}

#[test]
fn what_pfctl_complains_about_counts_though_it_ends_well() {
    let mac = Filtered::new();
    for when in ["-n -v -f -", "-s info", &format!("-a {ANCHOR} -f -")] {
        let odd = json!({"code": 0, "stderr": "pfctl: DIOCXCOMMIT: Device busy"});
        mac.fail("pfctl", when, 1, &odd);
        let error = mac.refused();
        assert!(error.contains("says: pfctl: DIOCXCOMMIT: Device busy"), "{error}");
    }
    let odd = json!({"code": 0, "stderr": "pfctl: something new"});
    mac.fail("pfctl", "-s labels", 1, &odd);
    let (code, text) = mac.egress("status");
    assert_ne!(code, 0);
    assert!(
        text.contains("pf is off") || text.contains("something new"),
        "{text}"
    );
}

#[test]
fn a_token_is_kept_although_pfctl_complains_so_that_no_try_takes_one_more() {
    let mac = Filtered::new();
    let said = "pf enabled\nToken : 4711471147114711\npfctl: something new";
    mac.fail("pfctl", "-E", 1, &json!({"code": 0, "stderr": said}));
    let error = mac.refused();
    assert!(error.contains("something new"), "{error}");
    let kept = fs::read_to_string(mac.top.join("run/ephemerd/ephemerd.pf-token")).unwrap();
    assert!(kept.ends_with(" 4711471147114711\n"), "{kept}");
}

#[test]
fn rules_are_not_taken_out_while_a_job_runs_under_them() {
    let mac = Filtered::new();
    let job = mac.start_job();
    let (code, text) = mac.egress("remove");
    assert_ne!(code, 0);
    assert!(
        text.contains("another ephemerd runs jobs under the rules"),
        "{text}"
    );
    mac.go();
    assert_eq!(ended(job).0, 7);
}

#[test]
fn a_running_job_is_stopped_when_what_asks_our_rules_is_gone() {
    let mac = Filtered::new();
    let job = mac.start_job();
    mac.other_tool(&["flush"]);
    let (code, err) = ended(job);
    assert_eq!(code, 125, "{err}");
    assert!(
        err.contains("the main ruleset has no `anchor \"com.apple/*\" all`"),
        "{err}"
    );
    assert!(
        mac.top.join("shared/started").exists(),
        "it did not end by itself"
    );
    fs::remove_file(mac.top.join("shared/started")).unwrap();
    assert_eq!(mac.remains(), [""; 0]);
}

#[test]
fn a_running_job_goes_on_when_its_rules_could_be_loaded_again() {
    let mac = Filtered::new();
    let job = mac.start_job();
    mac.other_tool(&["disable"]);
    until("pf is on again", || mac.state("pf")["on"] == true);
    mac.go();
    let (code, err) = ended(job);
    assert_eq!(code, 7, "{err}");
    assert!(
        err.contains("the egress filter was lost and loaded again: pf is off"),
        "{err}"
    );
    assert_eq!(mac.tokens().len(), 1);
}

#[test]
fn with_alert_a_job_goes_on_and_its_record_says_what_it_went_without() {
    let mac = Filtered(Mac::with_filter("on_loss = \"alert\"\n"));
    let config = mac.top.join("ephemerd.toml");
    let text = fs::read_to_string(&config).unwrap() + "[trust.repos]\n\"acme/ios\" = \"native\"\n";
    fs::write(&config, text).unwrap();
    let (log, shared) = (mac.top.join("log"), mac.top.join("shared"));
    let mut program = mac.program(&["run"]);
    let daemon = program.stderr(fs::File::create(&log).unwrap()).spawn();
    let mut daemon = Daemon(daemon.unwrap());
    until("the daemon listens", || {
        mac.top.join("data/run/ephemerd.sock").exists()
    });
    let script = format!("echo > {shared}/started; while [ ! -e {shared}/go ]; do sleep 0.02; done; exit 7");
    let submitted = mac.ephemerd(&["submit", "--repo", "acme/ios", "--", "/bin/sh", "-c", &script]);
    let id = String::from_utf8(submitted.stdout).unwrap().trim().to_owned();
    until("the job runs", || shared.join("started").exists());
    let logged = |what: &str| fs::read_to_string(&log).unwrap().matches(what).count();

    mac.other_tool(&["flush"]);
    until("it was noticed twice", || logged("the egress filter is lost") > 1);
    mac.other_tool(&["main"]);
    until("it was mended", || {
        logged("the egress filter is in force again") == 1
    });
    mac.go();
    let show = || String::from_utf8(mac.ephemerd(&["jobs", "show", &id]).stdout).unwrap();
    until("the job has ended", || show().contains("network  "));
    let record = show();
    assert!(record.contains("outcome  exit 7"), "{record}");
    assert_eq!(
        record.matches("the main ruleset has no `anchor").count(),
        1,
        "{record}"
    );
    assert!(
        record.contains("network  the egress filter is in force again"),
        "{record}"
    );
    let pid = Pid::from_raw(i32::try_from(daemon.0.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(daemon.0.wait().unwrap().success());
}
