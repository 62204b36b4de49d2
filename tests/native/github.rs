//! Jobs of GitHub, from a queued job to a clean host: a real daemon and real sandboxes, with a GitHub made for tests and a
//! stand-in for its runner.

mod crash;
mod forge;
mod guests;
#[expect(dead_code, reason = "only some of it is needed here")]
#[path = "../github/hub/mod.rs"]
pub(crate) mod hub;
mod invariants;
#[path = "../github/release.rs"]
mod release;
mod reload;
mod runner;
mod scale_sets;
mod soak;

use ephemerd::job::Outcome;
use ephemerd::trust::Route;
use forge::{Forge, LABELS, push, steps};
use hub::scenario::Trigger;

use crate::harness::{out, said, wait_for};

#[test]
fn a_trusted_push_runs_here_and_leaves_nothing_here_or_there() {
    let forge = Forge::start("", "");
    let job = push(&forge.hub, &["test \"$(id -un)\" != root", "touch done"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let made = forge.made_for(job);
    assert_eq!(made.len(), 1, "{made:?}");
    let at = made[0].github.as_ref().unwrap();
    assert_eq!(at.taken.as_ref().map(|taken| taken.job), Some(job));
    assert!(matches!(made[0].outcome, Some(Outcome::Ran { .. })), "{made:?}");
    let told = forge.daemon().cli(&["jobs", "show", made[0].id.as_str()]);
    assert!(out(&told).contains(&format!("/job/{job}")), "{}", said(&told));
    let listed = forge.daemon().cli(&["jobs", "--all"]);
    assert!(
        out(&listed).contains(&at.ticket.run.to_string()),
        "{}",
        said(&listed)
    );
}

#[test]
fn the_check_names_what_is_missing_and_changes_nothing() {
    let forge = Forge::start(
        "org = \"acme\"\nrepos = [\"acme/app\"]\nrunner_group = \"native\"\n",
        "",
    );
    let check = || forge.daemon().cli(&["github", "check"]);
    forge.hub.repository("acme/app", true);
    let group = check();
    assert_eq!(group.status.code(), Some(1), "{}", said(&group));
    assert!(
        out(&group).contains("fail     runner group `native` of acme: there is none"),
        "{}",
        said(&group)
    );
    forge.hub.runner_group("native", Some(&["acme/app"]), false);
    let good = check();
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert!(!out(&good).contains("fail"), "{}", said(&good));
    let changed = forge
        .hub
        .requests()
        .iter()
        .filter(|request| request.method != "GET")
        .count();
    assert_eq!(changed, 0);
    // The group is there now, and its runners serve.
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
}

#[test]
fn a_failing_job_is_a_failure_there_and_here() {
    let forge = Forge::start("", "");
    let job = push(&forge.hub, &["exit 3"]);
    assert_eq!(forge.conclusion(job), "failure");
    forge.settled();
    let outcome = forge.made_for(job)[0].outcome.clone().unwrap();
    assert_eq!(outcome.exit_code(), 1, "{outcome:?}");
}

#[test]
fn pull_requests_run_here_when_they_carry_the_label_that_is_asked_for() {
    let forge = Forge::start(
        "",
        "\"acme/app\" = { route = \"native\", require_label = \"ci-native\" }\n",
    );
    let one = |marks: &[&str]| {
        let run = forge.hub.pull_request("acme/app", "feature", &LABELS, marks);
        forge.hub.jobs_of(run)[0]
    };
    let without = one(&["bug"]);
    let reason = forge.refusal(without);
    assert!(reason.contains("ci-native"), "{reason}");
    // The one that waits for our labels and may not run here would hold the other for a while.
    forge.hub.cancel(forge.hub.job(without).run);
    let with = one(&["bug", "ci-native"]);
    assert_eq!(forge.conclusion(with), "success");
    forge.settled();
    assert_eq!(forge.hub.job(without).handed_out, 0);
    let pull = forge.made_for(with)[0].github.as_ref().unwrap().ticket.pull;
    assert!(pull.is_some());
}

#[test]
fn what_strangers_can_cause_is_refused_with_its_reason() {
    let forge = Forge::start("", "");
    let fork = forge.hub.fork_pull_request("acme/app", "eve/app", &LABELS);
    let target = forge.hub.pull_request_target("acme/app", "eve/app", &LABELS);
    for (run, why) in [(fork, "fork"), (target, "pull_request_target")] {
        let job = forge.hub.jobs_of(run)[0];
        let reason = forge.refusal(job);
        assert!(reason.contains(why) || reason.contains("eve/app"), "{reason}");
        let row = &forge.made_for(job)[0];
        assert_eq!(row.route, Route::Refuse, "{row:?}");
        assert_eq!(forge.hub.job(job).handed_out, 0);
    }
    forge.settled();
}

#[test]
fn a_forks_job_that_steals_a_native_runner_is_stopped_before_its_first_step() {
    let forge = Forge::start("", "");
    // The runner is there before the stranger is, so that nothing but the second look is in the way.
    let (trusted, gate) = forge.held_runner();
    forge.hub.cancel(forge.hub.job(trusted).run);
    let place = forge.daemon().site().top.join("stolen");
    std::fs::create_dir(&place).unwrap();
    let stolen = forge.hub.launch(
        Trigger::fork_pull_request("acme/app", "eve/app"),
        vec![steps(
            "steal",
            &["touch first", "always:touch always; ls > listed"],
        )],
    );
    let stolen = forge.hub.jobs_of(stolen)[0];
    gate.open();
    assert_eq!(forge.conclusion(stolen), "failure");
    forge.settled();
    assert_eq!(forge.hub.job(stolen).handed_out, 1, "it was given to the runner");
    let row = &forge.made_for(trusted)[0];
    let Some(Outcome::Refused { reason }) = &row.outcome else {
        panic!("{row:?}");
    };
    assert!(reason.contains("eve/app") || reason.contains("fork"), "{reason}");
    let log = forge
        .daemon()
        .site()
        .data_dir
        .join(format!("logs/{}-diag", row.id));
    let said: String = log
        .read_dir_utf8()
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap_or_default())
        .collect();
    assert!(
        !said.contains("first") && !said.contains("always"),
        "no step began:\n{said}"
    );
}

#[test]
fn a_matrix_of_eight_jobs_uses_every_slot_and_each_job_runs_once() {
    let forge = Forge::start("", "");
    let run = forge.hub.matrix("acme/app", 8, &LABELS);
    forge.each_ran_once(&forge.hub.jobs_of(run));
}

#[test]
fn no_job_can_change_the_runners_program_for_the_next() {
    let forge = Forge::start("", "");
    let tree = || {
        let trees = forge.daemon().site().data_dir.join("runners");
        let tree = trees.read_dir_utf8().unwrap().next().unwrap().unwrap();
        std::fs::read(tree.path().join("bin/Runner.Listener")).unwrap()
    };
    // The control: the work folder can be written, and the program can be read.
    let allowed = push(
        &forge.hub,
        &["echo x > here", "test -s ../../runner/bin/Runner.Listener"],
    );
    assert_eq!(forge.conclusion(allowed), "success");
    let before = tree();
    let refused = push(
        &forge.hub,
        &[
            "for f in ../../runner/bin ../../runner/externals ../../runner/bin/Runner.Listener; do \
           if echo x > $f/evil || echo x >> $f || mv $f $f.away; then exit 7; fi; done 2> said; \
           grep -q 'Read-only file system' said",
        ],
    );
    assert_eq!(forge.conclusion(refused), "success");
    assert_eq!(tree(), before);
    forge.settled();
}

#[test]
fn a_run_that_is_cancelled_ends_and_one_that_is_run_again_runs_again() {
    let forge = Forge::start("", "");
    let job = push(&forge.hub, &["touch begun; sleep 1000"]);
    wait_for("the job that runs", || {
        let row = forge.made_for(job).into_iter().next()?;
        (row.github?.taken.is_some() && row.state == "running").then_some(())
    });
    forge.hub.cancel(forge.hub.job(job).run);
    assert_eq!(forge.conclusion(job), "cancelled");
    forge.settled();
    let again = forge.hub.rerun(job, "alice");
    forge.hub.wait("the job that runs again", |state| {
        state.job(again).filter(|job| job.handed_out == 1).map(drop)
    });
    forge.hub.cancel(forge.hub.job(again).run);
    assert_eq!(forge.conclusion(again), "cancelled");
    forge.settled();
}

#[test]
fn a_webhook_makes_the_daemon_look_at_once() {
    // A port that was free a moment ago; nobody else is told of it.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "hunter2\n").unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, closed).unwrap();
    let forge = Forge::start(
        &format!(
            "poll = \"1h\"\nidle_poll = \"1h\"\nwebhook_listen = \"127.0.0.1:{port}\"\nwebhook_secret = {secret:?}\n"
        ),
        "",
    );
    wait_for("the first look", || {
        let looked = forge
            .hub
            .requests()
            .iter()
            .filter(|it| it.path.ends_with("/actions/runs"))
            .count();
        (looked >= 2).then_some(())
    });
    let job = push(&forge.hub, &["true"]);
    let url = format!("http://127.0.0.1:{port}/webhook");
    let payload = forge.hub.payload(job, hub::state::Phase::Queued);
    let forged = hub::webhooks::deliver(&payload, "wrong");
    assert_eq!(wait_for("an answer", || forged.send(&url).ok()), 401);
    assert_eq!(
        hub::webhooks::deliver(&payload, "hunter2").send(&url).unwrap(),
        202
    );
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
}
