//! The control socket: what clients may say, who may say it, and that one bad client is nobody else's problem.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use crate::harness::{Daemon, PROGRAM, command, err, said};

/// A user that has nothing to do with the daemon.
const NOBODY: &str = "65534";

fn answers(daemon: &Daemon) {
    let status = daemon.cli(&["status"]);
    assert!(status.status.success(), "{}", said(&status));
}

fn connect(daemon: &Daemon) -> UnixStream {
    UnixStream::connect(daemon.site().socket()).unwrap()
}

/// Says something and hears the daemon out.
fn talk(daemon: &Daemon, words: &[u8]) -> String {
    let mut stream = connect(daemon);
    // The daemon may hang up on a client that says too much, before it has said it.
    let _ = stream.write_all(words);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn nonsense_is_answered_with_an_error_and_harms_nobody_else() {
    let daemon = Daemon::start("");
    for nonsense in [
        &b"hello?\n"[..],
        b"\0\xff\xfe\n",
        b"{\"ask\":\"jobs\"",
        b"{\"ask\":\"explode\"}\n",
        b"{\"ask\":\"jobs\",\"all\":true,\"more\":1}\n",
        b"{\"ask\":\"cancel\",\"job\":\"../../etc\"}\n",
        b"{\"ask\":\"submit\",\"spec\":{}}\n",
        b"[[[[[[[[[[[[[[[[\n",
        b"",
    ] {
        let answer = talk(&daemon, nonsense);
        assert!(
            answer.contains("\"answer\":\"error\"") && answer.contains("not a question"),
            "{nonsense:?}: {answer}"
        );
        answers(&daemon);
    }
}

#[test]
fn ten_megabytes_are_not_read_to_their_end() {
    let daemon = Daemon::start("");
    talk(&daemon, &vec![b'x'; 10 << 20]);
    let resident = crate::harness::status_field(daemon.pid(), "VmHWM").unwrap();
    let kib: u64 = resident.trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 64 << 10, "the daemon has grown to {resident}");
    answers(&daemon);
}

#[test]
fn silent_and_half_finished_clients_keep_nobody_waiting() {
    let daemon = Daemon::start("");
    let silent: Vec<_> = (0..50).map(|_| connect(&daemon)).collect();
    let mut half = connect(&daemon);
    half.write_all(b"{\"ask\":").unwrap();
    answers(&daemon);
    assert!(daemon.run("true").status.success());
    drop((silent, half));
    answers(&daemon);
}

#[test]
fn a_client_that_never_reads_does_not_hold_up_others() {
    let daemon = Daemon::start("");
    let job = daemon.script("head -c 3000000 /dev/zero");
    assert!(daemon.outcome(&job).is_success());
    let mut deaf = connect(&daemon);
    writeln!(deaf, "{{\"ask\":\"logs\",\"job\":\"{job}\",\"follow\":true}}").unwrap();
    assert!(daemon.run("true").status.success());
    answers(&daemon);
}

#[test]
fn jobs_that_do_not_exist_are_named_with_a_hint() {
    let daemon = Daemon::start("");
    for args in [
        &["logs", "00000000000"][..],
        &["logs", "-f", "00000000000"],
        &["cancel", "00000000000"],
        &["jobs", "show", "00000000000"],
    ] {
        let output = daemon.cli(args);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert_eq!(
            err(&output),
            "error: there is no job 00000000000\nhint: `ephemerd jobs --all` lists them\n"
        );
    }
    let malformed = daemon.cli(&["cancel", "../../etc"]);
    assert_eq!(malformed.status.code(), Some(2), "{}", said(&malformed));
    let slot = daemon.cli(&["resume", "--slot", "1"]);
    assert_eq!(slot.status.code(), Some(1), "{}", said(&slot));
    assert!(
        err(&slot).contains("slot 1 is not in quarantine"),
        "{}",
        said(&slot)
    );
}

#[test]
fn another_user_is_kept_out_by_the_mode_of_the_socket() {
    let daemon = Daemon::start("");
    let mode = fs::metadata(daemon.site().socket()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o660);
    let output = as_nobody(&daemon, &["status"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(err(&output).contains("Permission denied"), "{}", said(&output));
}

#[test]
fn another_user_is_refused_even_where_the_socket_is_open_to_all() {
    let daemon = Daemon::start("");
    fs::set_permissions(daemon.site().socket(), fs::Permissions::from_mode(0o666)).unwrap();
    for args in [
        &["status"][..],
        &["submit", "--repo", "acme/app", "--", "true"],
        &["drain"],
    ] {
        let output = as_nobody(&daemon, args);
        assert_ne!(output.status.code(), Some(0), "{}", said(&output));
        assert!(
            err(&output).contains("this user may not control the daemon\nhint: "),
            "{}",
            said(&output)
        );
    }
    assert!(!daemon.status().draining);
    assert!(daemon.log().contains("refused a control connection"));
}

#[test]
fn an_account_of_a_slot_is_refused_whatever_groups_it_is_in() {
    let daemon = Daemon::start("");
    fs::set_permissions(daemon.site().socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let uid = daemon.site().family.uid(4).to_string();
    let output = as_user(&daemon, &uid, &["status"]);
    assert!(
        err(&output).contains("this user may not control the daemon"),
        "{}",
        said(&output)
    );
}

fn as_nobody(daemon: &Daemon, args: &[&str]) -> std::process::Output {
    as_user(daemon, NOBODY, args)
}

/// Runs `ephemerd` as another user, who may read the configuration.
fn as_user(daemon: &Daemon, uid: &str, args: &[&str]) -> std::process::Output {
    let program = daemon.site().copy(PROGRAM.into(), "ephemerd");
    command("setpriv")
        .args([
            "--reuid",
            uid,
            "--regid",
            NOBODY,
            "--clear-groups",
            program.as_str(),
            "--config",
        ])
        .arg(&daemon.site().config)
        .args(args)
        .output()
        .unwrap()
}
