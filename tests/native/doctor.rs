//! `ephemerd doctor`, as somebody with a host that is well, or not, sees it.

use std::fs;

use serde_json::Value;

use crate::harness::{Daemon, Site, out, said};

/// What the doctor says: its exit code, and each finding by what it is about.
fn findings(site: &Site) -> (i32, Vec<(String, Value)>) {
    let output = site.run(&["doctor", "--format", "json"]);
    let sections: Vec<Value> =
        serde_json::from_str(&out(&output)).unwrap_or_else(|_| panic!("{}", said(&output)));
    let all = sections
        .iter()
        .flat_map(|section| section["findings"].as_array().unwrap());
    let named = all.map(|one| (one["what"].as_str().unwrap().to_owned(), one.clone()));
    (output.status.code().unwrap(), named.collect())
}

/// The finding about something.
#[track_caller]
fn about<'a>(found: &'a [(String, Value)], what: &str) -> &'a Value {
    let one = found.iter().find(|(name, _)| name == what);
    &one.unwrap_or_else(|| panic!("nothing about {what}: {found:#?}"))
        .1
}

#[test]
fn a_host_that_is_well_is_told_so_while_jobs_run_on_it() {
    let daemon = Daemon::start("");
    let job = daemon.script("echo begun; sleep 1000");
    daemon.wait_for_output(&job, "begun");
    let (code, found) = findings(daemon.site());
    assert_eq!(code, 0, "{found:#?}");
    for what in [
        "filesystem",
        "accounts",
        "daemon",
        "ledger",
        "room",
        "leftovers",
        "ports",
        "provision --check",
    ] {
        assert_eq!(about(&found, what)["level"], "ok", "{what}: {found:#?}");
    }
    let markdown = out(&daemon.cli(&["doctor", "--format", "markdown"]));
    assert!(
        markdown.starts_with("**nothing is wrong") && markdown.contains("| axes | ok | filesystem |"),
        "{markdown}"
    );
    assert!(daemon.cli(&["cancel", job.as_str()]).status.success());
    daemon.ended(&job);
}

#[test]
fn a_drained_daemon_is_told_with_the_command_that_helps_and_looking_changes_nothing() {
    let daemon = Daemon::start("");
    assert!(daemon.cli(&["drain"]).status.success());
    let (code, found) = findings(daemon.site());
    assert_eq!(code, 0, "{found:#?}");
    let drain = about(&found, "drain");
    assert_eq!(
        (&drain["level"], &drain["fix"]),
        (&"warn".into(), &serde_json::json!(["resume"]))
    );
    assert!(daemon.status().draining);
    let asked = daemon.cli(&["doctor", "--fix"]);
    assert_eq!(
        asked.status.code(),
        Some(1),
        "nobody can be asked: {}",
        said(&asked)
    );
}

#[test]
fn what_a_killed_daemon_left_is_told_and_gone_after_the_next_start() {
    let daemon = Daemon::start("");
    let job = daemon.script("echo begun; sleep 1000");
    daemon.wait_for_output(&job, "begun");
    let site = daemon.kill();
    let (_, found) = findings(&site);
    assert_eq!(about(&found, "daemon")["level"], "warn");
    let left = about(&found, "unfinished");
    assert!(left["found"].as_str().unwrap().contains(job.as_str()), "{left}");
    // One that no ledger knows.
    let stray = site.data_dir.join("native/0a1b2c3d4e5");
    fs::create_dir(&stray).unwrap();
    let (code, found) = findings(&site);
    let left = about(&found, "workspaces");
    assert_eq!((code, &left["level"]), (1, &"fail".into()), "{left}");
    assert!(left["found"].as_str().unwrap().contains("0a1b2c3d4e5"), "{left}");
    let daemon = Daemon::start_at(site);
    let (code, found) = findings(daemon.site());
    assert_eq!(code, 0, "{found:#?}");
    assert!(!stray.exists());
}

#[test]
fn a_configuration_that_is_wrong_is_what_is_told_first() {
    let site = Site::new("");
    fs::write(&site.config, "[native]\nslotz = 4\n").unwrap();
    let (code, found) = findings(&site);
    assert_eq!(code, 1);
    let file = about(&found, "file");
    assert!(file["found"].as_str().unwrap().contains("slotz"), "{file}");
}

#[test]
fn a_damaged_ledger_is_told_and_not_touched() {
    let daemon = Daemon::start("");
    assert!(daemon.outcome(&daemon.script("true")).is_success());
    let site = daemon.stop();
    let file = site.data_dir.join("state/ledger.db");
    let whole = fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    // The header stays, so that it is known for what it is; from the second page on there is nothing.
    bytes[4096..].fill(0x5a);
    fs::write(&file, &bytes).unwrap();
    let (code, found) = findings(&site);
    let ledger = about(&found, "ledger");
    assert_eq!((code, &ledger["level"]), (1, &"fail".into()), "{ledger}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
    fs::write(&file, whole).unwrap();
}
