//! The life of a job as its owner sees it: handing over, watching, cancelling, draining, limits of time and
//! output.

use std::fs;
use std::process::Stdio;

use ephemerd::control::SlotNow;
use ephemerd::job::Outcome;
use ephemerd::trust::Route;

use crate::harness::{Daemon, err, out, said, wait_for};

/// One slot, and little patience with jobs that do not end when asked.
const ONE_SLOT: &str = "[native]\nslots = 1\nstop_grace = \"300ms\"\n";

#[test]
fn a_submitted_job_runs_and_is_told_about_everywhere() {
    let daemon = Daemon::start("");
    let handed = daemon.cli(&[
        "submit",
        "--repo",
        "acme/app",
        "--",
        "sh",
        "-c",
        "echo from inside; id -un",
    ]);
    assert!(handed.status.success(), "{}", said(&handed));
    let job = out(&handed).trim().parse().unwrap();
    let story = daemon.ended(&job);
    assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 0 }));
    assert_eq!(story.job.clean, Some(true));
    assert_eq!(story.job.route, Route::Native);
    let account = story.job.account.clone().unwrap();
    assert_eq!(
        account,
        format!("{}{}", daemon.site().family.name, story.job.slot.unwrap())
    );
    assert_eq!(daemon.output(&job), format!("from inside\n{account}\n"));

    let states: Vec<_> = story.transitions.iter().map(|step| step.state.as_str()).collect();
    assert_eq!(
        states,
        ["queued", "preparing", "launching", "running", "scrubbing", "done"]
    );
    let shown = out(&daemon.cli(&["jobs", "show", job.as_str()]));
    for line in [
        "outcome  ok",
        "route    native",
        "repo     acme/app (push)",
        "filesystem   enforced",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(
        !out(&daemon.cli(&["jobs"])).contains(job.as_str()),
        "finished jobs are not listed"
    );
    let listed = out(&daemon.cli(&["jobs", "--all"]));
    let line = listed
        .lines()
        .find(|line| line.starts_with(job.as_str()))
        .unwrap();
    assert!(line.contains(" ok ") && line.contains(" 0  "), "{line}");
    let json: serde_json::Value =
        serde_json::from_slice(&daemon.cli(&["jobs", "--all", "--format", "json"]).stdout).unwrap();
    assert_eq!(json[0]["outcome"]["outcome"], "exited", "{json}");
}

#[test]
fn waiting_for_a_job_prints_its_output_and_ends_with_its_code() {
    let daemon = Daemon::start("");
    let output = daemon.run("echo out; echo err >&2; exit 7");
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert_eq!(out(&output), "out\nerr\n");
    assert!(err(&output).contains(" exit 7"), "{}", said(&output));
    let output = daemon.run("kill -TERM $$");
    assert_eq!(
        output.status.code(),
        Some(128 + libc::SIGTERM),
        "{}",
        said(&output)
    );
    let output = daemon.cli(&["submit", "--repo", "acme/app", "--wait", "--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127), "{}", said(&output));
    assert!(
        out(&output).contains("cannot execute `no-such-program`"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_job_gets_the_variables_it_was_submitted_with() {
    let daemon = Daemon::start("[native.env]\nFROM_CONFIG = \"a\"\n");
    let args = [
        "submit",
        "--repo",
        "acme/app",
        "--env",
        "MINE=b c",
        "--wait",
        "--",
        "sh",
        "-c",
        "echo \"$FROM_CONFIG $MINE\"",
    ];
    assert_eq!(out(&daemon.cli(&args)), "a b c\n");
    let reserved = daemon.cli(&[
        "submit",
        "--repo",
        "acme/app",
        "--env",
        "HOME=/root",
        "--",
        "true",
    ]);
    assert_eq!(reserved.status.code(), Some(2), "{}", said(&reserved));
}

#[test]
fn a_job_of_an_unlisted_repository_is_refused_with_the_reason() {
    let daemon = Daemon::start("");
    let output = daemon.cli(&["submit", "--repo", "stranger/app", "--", "true"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        out(&output).contains("no entry of trust.repos names stranger/app"),
        "{}",
        said(&output)
    );
    let output = daemon.cli(&[
        "submit",
        "--repo",
        "acme/app",
        "--event",
        "pull_request",
        "--head",
        "fork/app",
        "--wait",
        "--",
        "true",
    ]);
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    let listed = out(&daemon.cli(&["jobs", "--all"]));
    assert_eq!(listed.matches(" refused ").count(), 2, "{listed}");
    assert!(
        !daemon
            .site()
            .data_dir
            .join("logs")
            .read_dir_utf8()
            .unwrap()
            .any(|_| true),
        "a refused job ran"
    );
}

#[test]
fn status_says_what_runs_where_and_what_protects_it() {
    let daemon = Daemon::start("");
    let job = daemon.script("echo ready; sleep 1000");
    daemon.wait_for_output(&job, "ready");
    let text = out(&daemon.cli(&["status"]));
    assert!(text.contains(&format!("running {job}")), "{text}");
    assert!(text.contains("queued: 0"), "{text}");
    assert_eq!(text.matches(" enforced ").count(), 7, "{text}");
    let json: serde_json::Value =
        serde_json::from_slice(&daemon.cli(&["status", "--format", "json"]).stdout).unwrap();
    assert_eq!(json["pid"], daemon.pid());
    assert_eq!(json["slots"].as_array().unwrap().len(), 4);
    assert!(daemon.cli(&["cancel", job.as_str()]).status.success());
    assert_eq!(daemon.outcome(&job), Outcome::Cancelled);
}

#[test]
fn following_a_log_prints_what_comes_until_the_job_ends() {
    let daemon = Daemon::start("");
    let job = daemon.script("echo first; until [ -e go ]; do sleep 0.05; done; echo second");
    let mut follow = daemon
        .site()
        .ephemerd(&["logs", "-f", job.as_str()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = std::io::BufReader::new(follow.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    assert_eq!(line, "first\n");
    assert_eq!(daemon.output(&job), "first\n");
    fs::write(daemon.work(&job).join("go"), "").unwrap();
    assert_eq!(std::io::read_to_string(reader).unwrap(), "second\n");
    assert!(follow.wait().unwrap().success());
}

#[test]
fn a_running_job_can_be_cancelled_and_an_ended_one_cannot() {
    let daemon = Daemon::start("");
    let job = daemon.script("trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.05; done");
    daemon.wait_for_output(&job, "ready");
    let cancelled = daemon.cli(&["cancel", job.as_str()]);
    assert!(cancelled.status.success(), "{}", said(&cancelled));
    assert_eq!(daemon.outcome(&job), Outcome::Cancelled);
    let output = daemon.output(&job);
    assert!(
        output.ends_with("asked\n"),
        "it was asked politely first: {output}"
    );
    let again = daemon.cli(&["cancel", job.as_str()]);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(err(&again).contains("has ended already"), "{}", said(&again));
}

#[test]
fn a_waiting_job_can_be_cancelled_and_never_runs() {
    let daemon = Daemon::start(ONE_SLOT);
    let first = daemon.script("echo ready; until [ -e go ]; do sleep 0.05; done");
    daemon.wait_for_output(&first, "ready");
    let second = daemon.script("true");
    assert_eq!(daemon.status().queued, std::slice::from_ref(&second));
    assert!(daemon.cli(&["cancel", second.as_str()]).status.success());
    let story = daemon.ended(&second);
    assert_eq!(story.job.outcome, Some(Outcome::Cancelled));
    assert_eq!(story.job.slot, None);
    fs::write(daemon.work(&first).join("go"), "").unwrap();
    assert!(daemon.outcome(&first).is_success());
}

#[test]
fn a_job_that_does_not_listen_is_killed_after_the_grace_period() {
    let daemon = Daemon::start(ONE_SLOT);
    let job = daemon.script("trap '' TERM; echo ready; while :; do sleep 1000; done");
    daemon.wait_for_output(&job, "ready");
    assert!(daemon.cli(&["cancel", job.as_str()]).status.success());
    let story = daemon.ended(&job);
    assert_eq!(story.job.outcome, Some(Outcome::Cancelled));
    assert_eq!(story.job.clean, Some(true));
    let stopping = story
        .transitions
        .iter()
        .find(|step| step.state == "stopping")
        .unwrap();
    let waited_ms = story.job.exited_ms.unwrap() - stopping.at_ms;
    assert!(
        waited_ms >= 300,
        "killed after {waited_ms} ms, before the grace period was over"
    );
}

#[test]
fn a_job_that_takes_too_long_ends_with_124() {
    let daemon = Daemon::start("");
    let args = [
        "submit",
        "--repo",
        "acme/app",
        "--timeout",
        "1s",
        "--wait",
        "--",
        "sleep",
        "1000",
    ];
    let output = daemon.cli(&args);
    assert_eq!(output.status.code(), Some(124), "{}", said(&output));
    assert!(err(&output).contains("timed out after 1 s"), "{}", said(&output));
}

#[test]
fn output_past_the_limit_is_cut_with_a_mark_and_does_not_stop_the_job() {
    let daemon = Daemon::start("[native.limits]\noutput = \"64KiB\"\n");
    let job = daemon.script("head -c 1000000 /dev/zero | tr '\\0' x; touch done");
    let story = daemon.ended(&job);
    assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 0 }));
    assert_eq!(story.job.output_byte, Some(1_000_000));
    let log = daemon.output(&job);
    assert_eq!(log.matches('x').count(), 64 << 10);
    assert!(log.ends_with("\n[ephemerd: output cut here, at the limit of 65536 bytes]\n"));
}

#[test]
fn a_draining_daemon_starts_nothing_until_it_resumes() {
    let daemon = Daemon::start("");
    let running = daemon.script("echo ready; until [ -e go ]; do sleep 0.05; done");
    daemon.wait_for_output(&running, "ready");
    assert!(daemon.cli(&["drain"]).status.success());
    let waiting = daemon.script("true");
    assert!(daemon.status().draining);
    assert_eq!(daemon.status().queued, std::slice::from_ref(&waiting));
    fs::write(daemon.work(&running).join("go"), "").unwrap();
    assert!(daemon.outcome(&running).is_success(), "running jobs go on");
    wait_for("free slots", || {
        daemon
            .status()
            .slots
            .iter()
            .all(|slot| slot.now == SlotNow::Free)
            .then_some(())
    });
    assert_eq!(daemon.status().queued, std::slice::from_ref(&waiting));
    assert!(daemon.cli(&["resume"]).status.success());
    assert!(daemon.outcome(&waiting).is_success());
}

#[test]
fn repositories_take_turns_for_one_slot() {
    let daemon = Daemon::start(ONE_SLOT);
    assert!(daemon.cli(&["drain"]).status.success());
    let many: Vec<_> = (0..3).map(|_| daemon.submit("acme/many", &["true"])).collect();
    let few = daemon.submit("other/few", &["true"]);
    assert!(daemon.cli(&["resume"]).status.success());
    let claimed = |job| daemon.ended(job).job.claimed_ms.unwrap();
    let last = claimed(&many[2]);
    let order = [claimed(&many[0]), claimed(&few), claimed(&many[1]), last];
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn stopping_the_daemon_ends_running_and_waiting_jobs() {
    let daemon = Daemon::start(ONE_SLOT);
    let running = daemon.script("echo ready; sleep 1000");
    let waiting = daemon.script("true");
    daemon.wait_for_output(&running, "ready");
    let site = daemon.stop();
    site.assert_clean();
    let daemon = Daemon::start_at(site);
    assert_eq!(daemon.outcome(&running), Outcome::Cancelled);
    assert!(matches!(daemon.outcome(&waiting), Outcome::Failed { .. }));
    assert!(daemon.run("true").status.success());
}
