//! `ephemerd prune` beside a daemon that runs jobs.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use camino::Utf8Path;

use crate::harness::{Daemon, Site, command, out, said};

const OLD: Duration = Duration::from_secs(40 * 24 * 60 * 60);

/// Makes it look as if something had been written long ago.
fn age(path: &Utf8Path) {
    let then = SystemTime::now() - OLD;
    let file = fs::File::open(path).unwrap();
    file.set_modified(then).unwrap();
}

fn prune(site: &Site, args: &[&str]) -> String {
    let output = site.run(&[&["prune"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    out(&output)
}

#[test]
fn old_logs_go_and_nothing_of_a_job_that_runs_nor_what_a_link_leads_to() {
    let daemon = Daemon::start("");
    let site = daemon.site();
    let ended = daemon.cli(&["submit", "--repo", "acme/app", "--wait", "--", "echo", "done"]);
    assert!(ended.status.success(), "{}", said(&ended));
    let logs = site.data_dir.join("logs");
    let old = logs.read_dir_utf8().unwrap().next().unwrap().unwrap().into_path();
    let submitted = daemon.cli(&[
        "submit",
        "--repo",
        "acme/app",
        "--",
        "sh",
        "-c",
        "echo here; sleep 1000",
    ]);
    assert!(submitted.status.success());
    let live = crate::harness::wait_for("the log of a job that runs", || {
        let mut all = logs
            .read_dir_utf8()
            .unwrap()
            .map(|entry| entry.unwrap().into_path());
        all.find(|path| *path != old)
    });
    // A folder whose content a job wrote, a link that leads away, and what is not ours at all.
    let target = site.top.join("target");
    fs::write(&target, "somebody's").unwrap();
    let diag = old.with_file_name(old.file_name().unwrap().replace(".log", "-diag"));
    fs::create_dir(&diag).unwrap();
    symlink(&target, diag.join("link")).unwrap();
    let kept = site.data_dir.join("kept/0a1b2c3d4e5");
    fs::create_dir(&kept).unwrap();
    symlink(&site.top, kept.join("work")).unwrap();
    let other = logs.join("notes.txt");
    fs::write(&other, "").unwrap();
    for path in [&old, &live, &diag, &kept, &other] {
        age(path);
    }

    let planned = prune(site, &["--dry-run"]);
    let lines: Vec<&str> = planned.lines().filter(|line| line.contains("too old")).collect();
    assert_eq!(lines.len(), 3, "{planned}");
    assert!(old.exists() && diag.exists() && kept.exists());
    let answer: serde_json::Value = serde_json::from_str(&prune(site, &["--format", "json"])).unwrap();
    assert_eq!(answer["removed"].as_array().unwrap().len(), 3, "{answer}");
    assert_eq!(answer["removed"][0]["reason"], "old");
    assert!(!old.exists() && !diag.exists() && !kept.exists());
    assert!(live.exists() && other.exists());
    assert_eq!(fs::read_to_string(&target).unwrap(), "somebody's");
    assert!(prune(site, &[]).contains("removed 0B of 0 things"));
}

#[test]
fn finished_jobs_beyond_the_number_that_is_kept_are_forgotten() {
    let daemon = Daemon::start("[prune]\njobs = 1\n");
    for _ in 0..3 {
        let ended = daemon.cli(&["submit", "--repo", "acme/app", "--wait", "--", "true"]);
        assert!(ended.status.success(), "{}", said(&ended));
    }
    assert!(prune(daemon.site(), &[]).contains("jobs forgotten: 2"));
    let left = out(&daemon.cli(&["jobs", "--all", "--format", "json"]));
    let left: serde_json::Value = serde_json::from_str(&left).unwrap();
    assert_eq!(left.as_array().unwrap().len(), 1);
}

#[test]
fn without_a_ledger_there_is_nothing_to_prune_and_with_a_broken_one_nothing_is_pruned() {
    let site = Site::new("");
    assert!(prune(&site, &[]).contains("of 0 things"));
    fs::create_dir_all(site.data_dir.join("state")).unwrap();
    fs::create_dir_all(site.data_dir.join("logs")).unwrap();
    fs::write(
        site.data_dir.join("state/ledger.db"),
        "no database at all, and long enough to be read as one",
    )
    .unwrap();
    let log = site.data_dir.join("logs/0a1b2c3d4e5.log");
    fs::write(&log, "").unwrap();
    age(&log);
    let output = command(crate::harness::PROGRAM)
        .arg("--config")
        .arg(&site.config)
        .arg("prune")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(log.exists());
}
