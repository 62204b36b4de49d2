//! The stand-in for GitHub's runner, against a server of a few lines: it must behave as the facts say, and what the
//! library makes of it must be right.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "fakes/runner/bench.rs"]
mod bench;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use ephemerd::github::runner::listener::{Ending, Next, Observed, TaskResult};
use ephemerd::github::runner::output::Event;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::{Value, json};

use bench::{Bench, Started};

const NAME: &str = "build (linux)";

fn completed(result: TaskResult) -> Event {
    let name = NAME.to_owned();
    Event::Completed { name, result }
}

#[test]
fn a_job_runs_from_its_message_to_its_result_and_the_credentials_are_gone() {
    let bench = Bench::new();
    bench.server.offer(&[
        "printf %s \"$OF_JOB $GITHUB_REPOSITORY $RUNNER_NAME\" > first; echo Exiting...",
        "cat \"$GITHUB_EVENT_PATH\" > second",
    ]);
    let left = bench.run();
    let name = NAME.to_owned();
    assert_eq!(
        left.events,
        [
            Event::Connected,
            Event::Version("2.336.0".parse().unwrap()),
            Event::Listening,
            Event::Running { name },
            completed(TaskResult::Succeeded),
        ]
    );
    assert_eq!(left.ending, Ending::Ran(TaskResult::Succeeded));
    assert_eq!(
        left.ending.next(Observed::Job, 0),
        Next::Finished(Some(TaskResult::Succeeded))
    );
    assert_eq!(bench.wrote("first").unwrap(), "x o/r mac01-9f2c");
    assert_eq!(bench.wrote("second").unwrap(), r#"{"action": "queued"}"#);
    assert_eq!(bench.results(), [json!({"job": 7, "result": "succeeded"})]);
    assert_eq!(bench.server.asked("DELETE /session").len(), 1);
    let session = bench.server.asked("POST /session");
    assert_eq!(
        session,
        [json!({"agentId": 23, "agentName": "mac01-9f2c", "version": "2.336.0"})]
    );
    let names = bench
        .root
        .read_dir_utf8()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["_diag", "bin"]);
}

#[test]
fn after_a_step_that_fails_only_those_that_always_run_do() {
    let bench = Bench::new();
    bench
        .server
        .offer(&["false", "touch skipped", "always:touch always"]);
    assert_eq!(bench.run().ending, Ending::Ran(TaskResult::Failed));
    assert!(bench.wrote("skipped").is_none());
    assert!(bench.wrote("always").is_some());
    assert_eq!(bench.results(), [json!({"job": 7, "result": "failed"})]);
}

#[test]
fn the_hook_comes_first_without_the_jobs_variables_and_steps_that_always_run_survive_it() {
    let mut bench = Bench::new();
    bench.hook("printf %s \"[$OF_JOB$BASH_ENV] $GITHUB_REPOSITORY\" > hook; test ! -e first; exit 3");
    bench.server.offer(&["touch first", "always:touch always"]);
    assert_eq!(bench.run().ending, Ending::Ran(TaskResult::Failed));
    assert_eq!(bench.wrote("hook").unwrap(), "[] o/r");
    assert!(bench.wrote("first").is_none());
    assert!(bench.wrote("always").is_some(), "so a hook alone stops nothing");
}

#[test]
fn an_interrupt_while_the_hook_waits_lets_no_step_run_whatever_it_says() {
    let mut bench = Bench::new();
    bench.hook("touch waiting; exec sleep 60");
    bench.server.offer(&["touch first", "always:touch always"]);
    let child = bench.start();
    bench.wait_for("waiting");
    child.signal(Signal::SIGINT);
    let left = child.end();
    assert_eq!(left.ending, Ending::Silent);
    assert_eq!(left.ending.next(Observed::Job, 0), Next::Finished(None));
    assert!(left.events.contains(&Event::Exiting));
    assert!(left.events.contains(&completed(TaskResult::Failed)));
    assert!(bench.wrote("first").is_none() && bench.wrote("always").is_none());
    assert_eq!(bench.results(), [json!({"job": 7, "result": "failed"})]);
}

#[test]
fn a_step_that_ignores_every_signal_is_killed_with_what_it_started() {
    let bench = Bench::new();
    bench.faults(json!({"grace": [0.2, 0.2]}));
    bench.server.offer(&[
        "trap '' INT TERM; touch waiting; sleep 60; touch survived",
        "always:touch always",
    ]);
    let child = bench.start();
    bench.wait_for("waiting");
    let start = Instant::now();
    child.signal(Signal::SIGINT);
    assert_eq!(child.end().ending, Ending::Silent);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(bench.wrote("survived").is_none() && bench.wrote("always").is_none());
}

#[test]
fn a_job_that_is_cancelled_at_github_still_runs_what_always_runs() {
    let bench = Bench::new();
    bench.server.offer(&[
        "touch waiting; exec sleep 60",
        "touch skipped",
        "always:touch always",
    ]);
    let child = bench.start();
    bench.wait_for("waiting");
    bench.server.will_say(200, json!({"cancel": 7}));
    assert_eq!(child.end().ending, Ending::Ran(TaskResult::Canceled));
    assert!(bench.wrote("skipped").is_none());
    assert!(bench.wrote("always").is_some());
}

#[test]
fn an_interrupt_without_a_job_ends_the_session() {
    let bench = Bench::new();
    let child = bench.start();
    while bench.server.asked("GET /message").is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.signal(Signal::SIGINT);
    let left = child.end();
    assert_eq!(left.ending.next(Observed::NoJob, 0), Next::NothingRan);
    assert!(left.events.contains(&Event::Exiting));
    assert_eq!(bench.server.asked("DELETE /session").len(), 1);
}

#[test]
fn a_version_that_is_refused_after_listening_is_told_apart_only_because_we_ask_for_it() {
    let refusal = json!({"source": "actions-broker-listener", "statusCode": 403, "errorKind": "RunnerVersionTooOld",
        "errorMessage": "Runner version v2.336.0 is deprecated and cannot receive messages."});
    let bench = Bench::new();
    bench.server.will_say(403, refusal.clone());
    let left = bench.run();
    assert_eq!(left.ending.next(Observed::NoJob, 0), Next::UpgradeRunner);
    assert!(left.events.contains(&Event::Listening), "which proves nothing");
    assert!(
        left.events
            .contains(&Event::Deprecated("2.336.0".parse().unwrap()))
    );
    bench.server.will_say(403, refusal);
    let mut plain = bench.environment();
    plain.retain(|name, _| !name.contains("RETURN"));
    assert_eq!(
        Started::new(bench.command(plain)).end().ending,
        Ending::Terminated
    );
}

#[test]
fn without_the_variable_the_result_of_a_job_is_not_told() {
    let bench = Bench::new();
    bench.server.offer(&["false"]);
    let mut plain = bench.environment();
    plain.retain(|name, _| !name.contains("RETURN"));
    assert_eq!(Started::new(bench.command(plain)).end().ending, Ending::Silent);
}

#[test]
fn a_session_that_is_refused_or_taken_and_a_runner_that_is_gone_end_as_they_do() {
    let session = |status, body| {
        let bench = Bench::new();
        bench.faults(json!({"conflict": [2, 0.01]}));
        bench.server.script.lock().unwrap().session = Some((status, body));
        let left = bench.run();
        let tries = bench.server.asked("POST /session").len();
        (left, tries)
    };
    let (left, _) = session(403, json!({"errorMessage": "no"}));
    assert_eq!(left.ending, Ending::Terminated);
    assert!(
        left.said.ends_with("Failed to create session. no\n"),
        "{}",
        left.said
    );
    assert_eq!(left.events, [Event::Connected], "said before anything works");
    let (left, tries) = session(409, json!({}));
    assert_eq!((left.ending, tries), (Ending::SessionConflict, 3));
    assert_eq!(left.ending.next(Observed::NoJob, 0), Next::Conflict);

    let bench = Bench::new();
    bench.server.will_say(403, json!({"errorKind": "RunnerNotFound"}));
    let left = bench.run();
    assert_eq!(left.ending, Ending::Silent);
    assert!(left.events.contains(&Event::Gone));
    assert!(!bench.root.join(".runner").exists());
}

#[test]
fn a_runner_without_its_files_does_not_start() {
    for (name, ending) in [
        (".runner", Ending::Terminated),
        (".credentials", Ending::Retryable),
        (".credentials_rsaparams", Ending::Retryable),
    ] {
        let bench = Bench::new();
        fs::remove_file(bench.root.join(name)).unwrap();
        let left = bench.run();
        assert_eq!((left.ending, left.events), (ending, vec![]), "{name}");
        assert!(left.said.starts_with("An error occurred: "), "{}", left.said);
    }
}

/// The folders above a workspace can be passed through but not listed, so a runner in one needs another view of them.
#[test]
fn root_a_runner_that_may_not_list_every_folder_above_its_own_does_not_start() {
    assert!(
        geteuid().is_root(),
        "tests named root_ need root: runs as another account"
    );
    let mut bench = Bench::new();
    bench.server.offer(&["true"]);
    let (uid, gid) = (61_234, 61_235);
    let own = |path: &Utf8Path| std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    own(&bench.root);
    own(&bench.work);
    for entry in bench.root.read_dir_utf8().unwrap() {
        own(entry.unwrap().path());
    }
    bench.hook("true");
    let start = |mode| {
        fs::set_permissions(bench.keep.path(), fs::Permissions::from_mode(mode)).unwrap();
        let mut command = bench.command(bench.environment());
        command.uid(uid).gid(gid);
        Started::new(command).end()
    };
    let left = start(0o711);
    assert_eq!(left.ending, Ending::Terminated);
    assert!(
        left.said.contains("each directory up the hierarchy"),
        "{}",
        left.said
    );
    let left = start(0o755);
    assert_eq!(left.ending, Ending::Ran(TaskResult::Succeeded), "{}", left.said);
}

#[test]
fn faults_are_made_as_they_are_asked_for() {
    let with = |faults: Value| {
        let bench = Bench::new();
        bench.faults(faults);
        bench.server.offer(&["true"]);
        bench.run()
    };
    assert_eq!(with(json!({"exit": 3})).ending, Ending::Updating);
    assert_eq!(
        with(json!({"exit": 2})).ending.next(Observed::NoJob, 0),
        Next::Relaunch
    );
    for place in ["session", "listening", "running", "done"] {
        assert_eq!(with(json!({"die": place})).ending, Ending::Signal(9), "{place}");
    }
    assert_eq!(with(json!({"mute": true})).events, []);
    let events = with(json!({"disconnect": 2})).events;
    let lost = Event::Reconnecting("Connection refused.".to_owned());
    let at = events.iter().position(|event| *event == lost).unwrap();
    assert_eq!(events[at + 1], Event::Reconnected, "said once");
    let lies = [
        "2026-08-17 10:00:00Z: Running job: other",
        "Current runner version: '9.0.0'",
    ];
    let events = with(json!({"says": lies})).events;
    assert_eq!(events.len(), 5, "{events:?}");
}

#[test]
fn nothing_secret_is_in_arguments_or_environment_while_a_job_runs() {
    let bench = Bench::new();
    bench.server.offer(&[
        "cat /proc/$PPID/environ /proc/$PPID/cmdline > seen 2>/dev/null || ps -E -ww -p $PPID > seen; env >> seen",
    ]);
    assert_eq!(bench.run().ending, Ending::Ran(TaskResult::Succeeded));
    let seen = fs::read(bench.work.join("job/seen")).unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("Runner.Listener"), "{seen}");
    assert!(!seen.contains("planted"), "{seen}");
    drop(bench.keep);
}
