//! Late admission with real processes: who may report for a job, and what a job does that is not admitted. Attacks come
//! in threes: what they would do unopposed, that they fail, and that what is allowed beside them works.
//!
//! All of it needs root, because it is about accounts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "only some of it is needed here")]
#[path = "../fakes/runner/bench.rs"]
mod bench;
mod stage;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;

use camino::Utf8Path;
use ephemerd::daemon::door::Refusal;
use ephemerd::github::admission::{Evidence, Message, Reason, Runner, Verdict, judge};
use ephemerd::github::run::{Job, Run};
use ephemerd::github::runner::listener::{Ending, TaskResult};
use ephemerd::host::entrance;
use ephemerd::trust::{Decision, Route};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use bench::Bench;
use stage::{Family, GID, GO, OTHER, PATIENCE, SAID, STRANGER, Stage, UID, wait_for};

#[test]
fn root_a_job_waits_in_its_hook_until_it_is_admitted() {
    let mut stage = Stage::new();
    let hook = stage.job.run(&stage.hook(&[]));
    let claim = stage.handshake();
    let said = serde_json::to_value(&claim.message).unwrap().to_string();
    assert!(Stage::message().contains(&said), "{said}");
    assert!(!hook.has_ended());
    stage.runtime.block_on(claim.answer.go()).unwrap();
    assert_eq!(hook.end(), (0, String::new()));
    assert_eq!(stage.refused(), []);
}

#[test]
fn root_a_hook_that_is_hung_up_on_asks_whoever_is_there_next_and_holds_the_job_meanwhile() {
    let mut stage = Stage::new();
    let hook = stage.job.run(&stage.hook(&[]));
    let first = stage.handshake();
    let said = first.message.clone();
    // As when the dispatcher is killed: before anything was answered.
    drop(first);
    stage.open_again();
    let second = stage.handshake();
    assert_eq!(second.message, said);
    assert!(!hook.has_ended());
    stage.runtime.block_on(second.answer.go()).unwrap();
    let (code, told) = hook.end();
    assert_eq!(
        (code, told.as_str()),
        (0, "ephemerd: no answer came; asking again\n")
    );
}

#[test]
fn root_another_slots_account_cannot_report_for_a_job() {
    let other = Family::start(OTHER, GID);
    // The control: where the door is for that account, it is let in by the same words.
    let mut control = Stage::of(OTHER, Some(&other));
    let client = other.run(&control.client(&Stage::message()));
    let claim = control.handshake();
    control.runtime.block_on(claim.answer.go()).unwrap();
    assert_eq!(client.end(), (0, GO.to_owned()));
    // The attack.
    let mut stage = Stage::new();
    let client = other.run(&stage.client(&Stage::message()));
    let (_, heard) = client.end();
    assert!(heard.contains("another account"), "{heard}");
    assert_eq!(stage.refused(), [(Refusal::Account, 1)]);
    assert!(stage.is_quiet());
    // The neighbour.
    stage.hook_gets_in();
}

#[test]
fn root_who_is_not_in_the_slots_group_cannot_even_connect_and_nobody_can_change_the_entrance() {
    let mut stage = Stage::new();
    let (folder, socket) = (stage.place.folder().to_owned(), stage.place.socket());
    let tries = [
        format!("rm -f {socket}"),
        format!("chmod 666 {socket}"),
        format!("mv {folder}/job-started.sh {folder}/x"),
        format!("echo exit 0 > {folder}/job-started.sh"),
        format!("touch {folder}/new"),
    ];
    // The control: in a folder of the account's own, each of them works.
    let own = Utf8Path::from_path(stage.job.folder.path()).unwrap().to_owned();
    fs::write(own.join("job-started.sh"), "").unwrap();
    fs::write(own.join("admission.sock"), "").unwrap();
    for entry in own.read_dir_utf8().unwrap() {
        chown(entry.unwrap().path(), Some(UID), Some(GID)).unwrap();
    }
    for attempt in tries.iter().rev() {
        let ours = attempt.replace(folder.as_str(), own.as_str());
        assert_eq!(stage.job.run(&ours).end(), (0, String::new()), "{ours}");
    }
    for attempt in &tries {
        let (code, said) = stage.job.run(attempt).end();
        assert!(code != 0 && is_denied(&said), "{attempt}: {said}");
    }
    let stranger = Family::start(STRANGER, STRANGER);
    let (_, said) = stranger.run(&stage.client(&Stage::message())).end();
    assert!(said.contains("Permission denied"), "{said}");
    assert_eq!(stage.refused(), []);
    stage.hook_gets_in();
}

fn is_denied(said: &str) -> bool {
    said.contains("ermission denied") || said.contains("not permitted")
}

#[test]
fn root_a_process_of_the_account_that_the_job_did_not_start_cannot_report() {
    let left_over = Family::start(UID, GID);
    // The control: of the job whose first process this is, it is believed.
    let mut control = Stage::of(UID, Some(&left_over));
    let client = left_over.run(&control.client(&Stage::message()));
    let claim = control.handshake();
    control.runtime.block_on(claim.answer.go()).unwrap();
    assert_eq!(client.end(), (0, GO.to_owned()));
    // The attack, as of a process that an earlier job left.
    let mut stage = Stage::new();
    let (_, heard) = left_over.run(&stage.client(&Stage::message())).end();
    assert!(heard.contains("did not start"), "{heard}");
    assert_eq!(stage.refused(), [(Refusal::Outside, 1)]);
    assert!(stage.is_quiet());
    stage.hook_gets_in();
}

#[test]
fn root_a_job_reports_once() {
    let mut stage = Stage::new();
    let hook = stage.job.run(&stage.hook(&[]));
    let claim = stage.handshake();
    let (_, heard) = stage.job.run(&stage.client(&Stage::message())).end();
    assert!(heard.contains("a second time"), "{heard}");
    stage.runtime.block_on(claim.answer.go()).unwrap();
    assert_eq!(hook.end().0, 0);
    let (_, heard) = stage.job.run(&stage.client(&Stage::message())).end();
    assert!(heard.contains("a second time"), "{heard}");
    assert_eq!(stage.refused(), [(Refusal::Again, 2)]);
    assert!(stage.is_quiet());
}

#[test]
fn root_neither_much_nor_slow_nor_wrong_words_keep_the_hook_out() {
    let mut stage = Stage::new();
    let (_, heard) = stage
        .job
        .run(&stage.client("head -c 20000000 /dev/zero | tr '\\0' x"))
        .end();
    assert!(
        heard.is_empty() || heard.contains("more than 16384 bytes"),
        "{heard}"
    );
    let (_, heard) = stage.job.run(&stage.client("echo '{}'")).end();
    assert!(heard.contains("is not one"), "{heard}");
    assert_eq!(stage.refused(), [(Refusal::Long, 1), (Refusal::Garbage, 1)]);
    // Says nothing, and does not end before the family does.
    let silent = stage.job.run(&format!(
        "exec python3 -c \"import socket, time
door = socket.socket(socket.AF_UNIX)
door.connect('{}')
print('in', flush=True)
time.sleep(600)\"",
        stage.place.socket()
    ));
    wait_for("a silent client", || silent.told("out"));
    stage.hook_gets_in();
}

#[test]
fn root_a_forged_runner_gets_through_the_door_and_no_further() {
    let job: Job = serde_json::from_value(
        json!({"id": 290, "run_id": 77, "run_attempt": 1, "status": "in_progress",
        "runner_id": 23, "runner_name": "mac01-9f2c"}),
    )
    .unwrap();
    let run: Run = serde_json::from_value(
        json!({"id": 77, "run_attempt": 1, "event": "push", "status": "in_progress",
        "repository": {"full_name": "o/r"}, "head_repository": {"full_name": "o/r"}}),
    )
    .unwrap();
    let decision = Decision {
        route: Route::Native,
        reason: "trusted".to_owned(),
        rule: "trust.repos.\"o/r\"".to_owned(),
        chain: vec![],
        fallback: None,
        vm: Default::default(),
    };
    let repo = "o/r".parse().unwrap();
    let runner = Runner {
        id: 23,
        name: "mac01-9f2c",
    };
    let judged = |message: &Message| {
        let evidence = Evidence {
            repo: &repo,
            runner,
            job: &job,
            run: &run,
            decision: &decision,
        };
        judge(message, &evidence)
    };
    let mut stage = Stage::new();
    let hook = stage.job.run(&stage.hook(&[("RUNNER_NAME", "mac01-other")]));
    let claim = stage.handshake();
    let Verdict::Stop(reason @ Reason::RunnerName { .. }) = judged(&claim.message) else {
        panic!("{:?}", judged(&claim.message));
    };
    stage
        .runtime
        .block_on(claim.answer.stop(reason.to_string()))
        .unwrap();
    let why = "ephemerd: this job may not run: the job says that it has runner `mac01-other`, and this is `mac01-9f2c`";
    assert_eq!(wait_for("a reason", || hook.told("out")), why);
    assert!(!hook.has_ended());
    // The neighbour says the truth.
    let mut stage = Stage::new();
    let hook = stage.job.run(&stage.hook(&[]));
    let claim = stage.handshake();
    assert_eq!(judged(&claim.message), Verdict::Go);
    stage.runtime.block_on(claim.answer.go()).unwrap();
    assert_eq!(hook.end().0, 0);
}

#[test]
fn root_a_hook_without_an_answer_holds_the_job_against_every_signal_but_one() {
    let mut stage = Stage::new();
    let hook = stage.job.run(&stage.hook(&[]));
    let mut claim = stage.handshake();
    let shell = Pid::from_raw(hook.pid());
    let program = child_of(shell);
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        kill(program, signal).unwrap();
        kill(shell, signal).unwrap();
    }
    // Were one of them taken, it would be before this.
    kill(program, Signal::SIGKILL).unwrap();
    stage
        .runtime
        .block_on(async { tokio::time::timeout(PATIENCE, claim.answer.gone()).await })
        .unwrap();
    wait_for("a shell that stopped itself", || {
        (state_of(shell) == Some('T')).then_some(())
    });
    // Neither the end of its program nor being woken lets it go.
    kill(shell, Signal::SIGCONT).unwrap();
    wait_for("a shell that stopped itself", || {
        (state_of(shell) == Some('T')).then_some(())
    });
    assert!(!hook.has_ended());
    kill(shell, Signal::SIGKILL).unwrap();
    assert_eq!(hook.end().0, 128 + Signal::SIGKILL as i32);
}

#[test]
fn root_a_hook_that_cannot_report_holds_the_job_and_says_why() {
    let stage = Stage::new();
    let hook = stage.job.run(&stage.hook(&[("GITHUB_RUN_ID", "")]));
    let said = wait_for("a reason", || hook.told("out"));
    assert!(
        said.starts_with("ephemerd: this job could not be reported: `GITHUB_RUN_ID` is not set"),
        "{said}"
    );
    entrance::remove(&stage.place).unwrap();
    let program = &stage.program;
    let socket = stage.place.socket();
    let said: String = SAID.map(|(name, value)| format!("{name}={value} ")).concat();
    let lost = stage
        .job
        .run(&format!("exec env {said} '{program}' __job-started '{socket}'"));
    let why = wait_for("a reason", || lost.told("out"));
    assert!(why.contains("could not connect to"), "{why}");
    assert!(!hook.has_ended() && !lost.has_ended());
}

/// The one child of a process, when it is there.
fn child_of(parent: Pid) -> Pid {
    let children = format!("/proc/{parent}/task/{parent}/children");
    let children = || {
        fs::read_to_string(&children)
            .unwrap()
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    Pid::from_raw(wait_for("a child", children))
}

/// The letter of a process's state (proc_pid_stat(5)).
fn state_of(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A stand-in runner whose job begins with the hook, as the slot's account.
fn listener(stage: &Stage) -> (Bench, bench::Started) {
    let mut bench = Bench::new();
    bench.faults(json!({"grace": [0.2, 0.2]}));
    bench.hook = Some(stage.place.hook());
    bench.server.offer(&["touch first", "always:touch always"]);
    fs::set_permissions(bench.keep.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let own = |path: &Utf8Path| chown(path, Some(UID), Some(GID)).unwrap();
    own(&bench.root);
    own(&bench.work);
    for entry in bench.root.read_dir_utf8().unwrap() {
        own(entry.unwrap().path());
    }
    let mut command = bench.command(bench.environment());
    command.uid(UID).gid(GID);
    let started = bench::Started::new(command);
    stage.door.launched(started.child.id().try_into().unwrap());
    (bench, started)
}

#[test]
fn root_the_steps_of_an_admitted_job_run() {
    let mut stage = Stage::new();
    let (bench, started) = listener(&stage);
    let claim = stage.handshake();
    assert_eq!((claim.message.run_id, claim.message.event_file), (77, true));
    assert!(bench.wrote("first").is_none());
    stage.runtime.block_on(claim.answer.go()).unwrap();
    assert_eq!(started.end().ending, Ending::Ran(TaskResult::Succeeded));
    assert!(bench.wrote("first").is_some() && bench.wrote("always").is_some());
}

#[test]
fn root_no_step_of_a_job_that_is_stopped_runs_not_even_one_that_always_does() {
    let mut stage = Stage::new();
    let (bench, started) = listener(&stage);
    let claim = stage.handshake();
    stage
        .runtime
        .block_on(claim.answer.stop("of a fork".to_owned()))
        .unwrap();
    started.signal(Signal::SIGINT);
    assert_eq!(started.end().ending, Ending::Silent);
    assert!(bench.wrote("first").is_none() && bench.wrote("always").is_none());
    assert_eq!(bench.results(), [json!({"job": 7, "result": "failed"})]);
}

#[test]
fn root_a_job_that_is_cancelled_while_it_waits_is_noticed_so_that_it_can_be_killed() {
    let mut stage = Stage::new();
    let (bench, started) = listener(&stage);
    let mut claim = stage.handshake();
    bench.server.will_say(200, json!({"cancel": 7}));
    stage
        .runtime
        .block_on(async { tokio::time::timeout(PATIENCE, claim.answer.gone()).await })
        .unwrap();
    stage.runtime.block_on(claim.answer.go()).unwrap_err();
    started.end();
    assert!(bench.wrote("first").is_none());
}
