//! Jobs that GitHub offers to a runner scale set, in place of being asked for them.

use std::time::Duration;

use ephemerd::job::ledger::JobRow;
use ephemerd::job::{JobId, Outcome};
use serde_json::json;

use super::crash::killed_while_its_hook_waits;
use super::forge::{Forge, LABELS, prepare, push};
use super::hub::Hub;
use super::hub::faults::{Fault, Gate};
use super::hub::scale_sets::{MessageFault, ScaleSet};
use crate::harness::{Daemon, Family, out, said, wait_for};

/// What makes a daemon consume a scale set.
const SCALE_SET: &str = "acquire = \"scale-set\"\n";

const SESSIONS: &str = "/_tenant/_apis/runtime/runnerscalesets/*/sessions";

/// A GitHub that has the repository whose set it is to be.
fn hub() -> Hub {
    let hub = Hub::start();
    hub.repository("acme/app", true);
    hub
}

/// A daemon that consumes a scale set of `hub`'s; `more` is more of `[github]`.
fn serve(hub: Hub, more: &str) -> Forge {
    let site = prepare(&hub, Family::take(), &format!("{SCALE_SET}{more}"), "");
    Forge {
        daemon: Some(Daemon::start_at(site)),
        hub,
    }
}

/// Both, with a session that is open.
pub(super) fn start() -> Forge {
    let forge = serve(hub(), "");
    consumed(&forge);
    forge
}

/// Waits until the set is consumed; how it is then.
#[track_caller]
fn consumed(forge: &Forge) -> ScaleSet {
    wait_for("a long poll", || {
        let sets = forge.hub.scale_sets();
        sets.into_values()
            .find(|set| set.session.is_some() && set.capacity.is_some_and(|it| it > 0))
    })
}

/// How often something was asked: a method, and what the path has in it.
fn asked(hub: &Hub, method: &str, part: &str) -> usize {
    let requests = hub.requests();
    let is_it = |path: &str| path.contains(part);
    requests
        .iter()
        .filter(|it| it.method == method && is_it(&it.path))
        .count()
}

fn status(forge: &Forge) -> String {
    out(&forge.daemon().cli(&["status"]))
}

#[test]
fn a_push_is_acquired_runs_here_and_leaves_nothing_here_or_there() {
    let forge = start();
    let job = push(&forge.hub, &["test \"$(id -un)\" != root", "touch done"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let made = forge.made_for(job);
    assert_eq!(made.len(), 1, "{made:?}");
    let taken = made[0].github.as_ref().unwrap().taken.as_ref();
    assert_eq!(taken.map(|taken| taken.job), Some(job));
    assert!(matches!(made[0].outcome, Some(Outcome::Ran { .. })), "{made:?}");
    let set = consumed(&forge);
    assert!(
        set.name.starts_with("eph-") && set.name.contains("-native-"),
        "{}",
        set.name
    );
    assert_eq!(set.labels, LABELS);
    // Nobody asked for lists of runs, and the runner is the set's.
    let listed = |path: &str| path.ends_with("/actions/runs");
    assert!(!forge.hub.requests().iter().any(|it| listed(&it.path)));
    assert_eq!(
        asked(&forge.hub, "POST", "/actions/runners/generate-jitconfig"),
        0
    );
    assert!(asked(&forge.hub, "DELETE", "/_tenant/message/") >= 1);
    let secrets = forge.hub.secrets();
    let log = forge.daemon().log();
    assert!(secrets.iter().all(|secret| !log.contains(secret.as_str())));
}

#[test]
fn a_forks_job_is_not_acquired_and_holds_nobody() {
    let forge = start();
    let run = forge.hub.fork_pull_request("acme/app", "eve/app", &LABELS);
    let strange = forge.hub.jobs_of(run)[0];
    let reason = forge.refusal(strange);
    assert!(reason.contains("eve/app") || reason.contains("fork"), "{reason}");
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let strange = forge.hub.job(strange);
    assert_eq!((strange.acquired_by, strange.handed_out), (None, 0));
}

#[test]
fn a_matrix_that_is_larger_than_the_host_runs_each_job_once() {
    let forge = start();
    let run = forge.hub.matrix("acme/app", 6, &LABELS);
    forge.each_ran_once(&forge.hub.jobs_of(run));
}

#[test]
fn the_set_of_an_organisation_is_in_its_runner_group() {
    let hub = hub();
    hub.repository("acme/other", true);
    let group = hub.runner_group("native", None, false);
    let serves = "org = \"acme\"\nrepos = [\"acme/app\"]\nrunner_group = \"native\"\n";
    let forge = serve(hub, serves);
    assert_eq!(consumed(&forge).group, group);
    let others = forge.hub.push("acme/other", &LABELS);
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    // A repository that is not served is none of our business.
    let others = forge.hub.jobs_of(others)[0];
    assert_eq!(forge.hub.job(others).acquired_by, None);
    assert_eq!(forge.made_for(others).len(), 0);
}

#[test]
fn a_daemon_that_is_killed_ends_its_own_session_at_the_next_start_and_goes_on() {
    let mut forge = start();
    let first = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(first), "success");
    let before = consumed(&forge).session.unwrap().id;
    let site = forge.daemon.take().unwrap().kill();
    let second = push(&forge.hub, &["true"]);
    forge.daemon = Some(Daemon::start_at(site));
    assert_eq!(forge.conclusion(second), "success");
    forge.settled();
    assert_ne!(consumed(&forge).session.unwrap().id, before);
    assert_eq!(asked(&forge.hub, "DELETE", &before), 1);
    assert_eq!(
        forge.hub.scale_sets().len(),
        1,
        "the set is found, and not made again"
    );
}

#[test]
fn a_job_that_was_acquired_before_a_kill_gets_its_runner_after_it() {
    let mut forge = start();
    let gate = Gate::default();
    forge
        .hub
        .inject("POST /_tenant/*/generatejitconfig", 1, Fault::Hold(gate.clone()));
    let job = push(&forge.hub, &["true"]);
    forge
        .hub
        .wait("a runner that is made", |state| state.held().then_some(()));
    let site = forge.daemon.take().unwrap().kill();
    gate.open();
    forge.daemon = Some(Daemon::start_at(site));
    // No message tells of it any more.
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    assert_eq!(forge.hub.job(job).handed_out, 1);
}

#[test]
fn a_runner_of_the_set_goes_on_when_the_dispatcher_is_killed_and_the_next_has_the_session() {
    let mut forge = start();
    killed_while_its_hook_waits(&mut forge);
    let next = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(next), "success");
    forge.settled();
}

#[test]
fn a_daemon_that_ends_ends_its_session_and_leaves_the_set() {
    let mut forge = start();
    let stopped = forge.daemon.take().unwrap().stop();
    drop(stopped);
    let sets = forge.hub.scale_sets();
    assert_eq!(sets.len(), 1);
    assert!(sets.values().all(|set| set.session.is_none()));
}

#[test]
fn a_token_of_the_queue_that_is_over_is_renewed_once_and_a_session_that_is_over_is_opened_again() {
    let forge = start();
    let before = consumed(&forge).session.unwrap().id;
    forge
        .hub
        .inject("GET /_tenant/message", 1, Fault::Answer(401, json!({})));
    let first = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(first), "success");
    wait_for("another token", || {
        (asked(&forge.hub, "PATCH", &before) == 1).then_some(())
    });
    assert_eq!(consumed(&forge).session.unwrap().id, before);
    forge
        .hub
        .inject("GET /_tenant/message", 1, Fault::Answer(404, json!({})));
    wait_for("another session", || {
        let session = consumed(&forge).session?;
        (session.id != before).then_some(())
    });
    let second = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(second), "success");
    forge.settled();
}

#[test]
fn an_administrators_token_that_is_over_at_once_is_asked_for_each_time() {
    let hub = hub();
    hub.set_admin_life_s(1);
    let forge = serve(hub, "");
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
}

#[test]
fn messages_that_come_twice_reversed_or_with_what_nobody_knows_change_nothing() {
    let forge = start();
    let faults = [
        MessageFault::Twice,
        MessageFault::Reversed,
        MessageFault::UnknownType,
    ];
    for fault in faults {
        forge.hub.spoil_message(fault);
        let job = push(&forge.hub, &["true"]);
        assert_eq!(forge.conclusion(job), "success", "{fault:?}");
        forge.settled();
        assert_eq!(forge.hub.job(job).handed_out, 1, "{fault:?}");
        assert_eq!(forge.made_for(job).len(), 1, "{fault:?}");
    }
}

#[test]
fn a_message_that_cannot_be_read_hides_no_other() {
    let forge = start();
    forge.hub.spoil_message(MessageFault::BrokenBody);
    let lost = push(&forge.hub, &["true"]);
    wait_for("the message that cannot be read", || {
        forge
            .daemon()
            .log()
            .contains("a message of the scale set cannot be read")
            .then_some(())
    });
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    assert_eq!(forge.hub.job(lost).acquired_by, None, "it stays for others");
    forge.settled();
}

#[test]
fn the_faults_of_the_wire_are_waited_out() {
    let forge = start();
    forge.hub.inject("GET /_tenant/message", 2, Fault::status(503));
    forge.hub.inject("POST /_tenant/*/acquirejobs", 1, Fault::Reset);
    forge
        .hub
        .inject("POST /_tenant/*/generatejitconfig", 1, Fault::ByteOrderMark);
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    assert_eq!(forge.hub.job(job).handed_out, 1);
    // It is acquired, and nobody here is told; and messages come cut, and with a mark before them.
    forge
        .hub
        .inject("POST /_tenant/*/acquirejobs", 1, Fault::LoseAnswer);
    for fault in [Fault::Truncated, Fault::ByteOrderMark] {
        forge.hub.inject("GET /_tenant/message", 1, fault);
    }
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    assert_eq!(forge.hub.job(job).handed_out, 1);
    assert_eq!(forge.made_for(job).len(), 1);
}

#[test]
fn a_job_that_github_takes_back_is_acquired_again() {
    let forge = start();
    let (job, gate) = forge.held_runner();
    forge.hub.take_back(job);
    gate.open();
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    assert_eq!(forge.hub.job(job).handed_out, 1);
}

#[test]
fn a_session_of_somebody_else_is_told_and_waited_for() {
    let hub = hub();
    let conflict = json!({
        "typeName": "GitHub.Actions.Runtime.WebApi.RunnerScaleSetSessionConflictException, GitHub.Actions.Runtime.WebApi",
        "message": "The actions scale set mac already has an active session for owner mallory.",
    });
    hub.inject(&format!("POST {SESSIONS}"), 9999, Fault::Answer(409, conflict));
    let forge = serve(hub, "");
    wait_for("the reason", || {
        let status = status(&forge);
        (status.contains("not answering: scale set eph-") && status.contains("session for owner mallory"))
            .then_some(())
    });
    forge.hub.heal();
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    assert!(!status(&forge).contains("mallory"));
    forge.settled();
}

#[test]
fn labels_that_github_leaves_out_are_told() {
    let hub = hub();
    let bare = json!({"id": 7, "name": "x", "runnerGroupId": 1, "labels": [{"type": "System", "name": "self-hosted"}]});
    hub.inject(
        "POST /_tenant/_apis/runtime/runnerscalesets",
        9999,
        Fault::Answer(200, bare),
    );
    let forge = serve(hub, "");
    wait_for("the reason", || {
        let status = status(&forge);
        status.contains("left out eph-native of its labels").then_some(())
    });
}

#[test]
fn a_drained_host_states_no_capacity_and_acquires_nothing() {
    let forge = start();
    let drained = forge.daemon().cli(&["drain"]);
    assert!(drained.status.success(), "{}", said(&drained));
    wait_for("no capacity", || {
        let sets = forge.hub.scale_sets();
        sets.values().all(|set| set.capacity == Some(0)).then_some(())
    });
    let job = push(&forge.hub, &["true"]);
    let polls = asked(&forge.hub, "GET", "/_tenant/message");
    wait_for("two more long polls", || {
        (asked(&forge.hub, "GET", "/_tenant/message") >= polls + 2).then_some(())
    });
    assert_eq!(forge.hub.job(job).acquired_by, None);
    assert_eq!(asked(&forge.hub, "POST", "acquirejobs"), 0);
    let resumed = forge.daemon().cli(&["resume"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
}

#[test]
fn a_runner_that_github_keeps_busy_is_deleted_when_it_lets_us() {
    let forge = start();
    forge.hub.set_stays_busy(true);
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    let refused = |it: &super::hub::state::Logged| it.status == 400 && it.path.contains("/agents/");
    wait_for("a refusal", || {
        forge.hub.requests().iter().any(refused).then_some(())
    });
    forge.hub.set_stays_busy(false);
    forge.settled();
}

/// Jobs handed over here that have every slot; cancelled with `cancel`.
pub(super) fn occupy(forge: &Forge) -> Vec<JobId> {
    let slots = forge.daemon().site().family.slots;
    let jobs: Vec<JobId> = (0..slots)
        .map(|_| forge.daemon().script("touch begun; sleep 1000"))
        .collect();
    for job in &jobs {
        wait_for("a job that runs", || {
            forge.daemon().work(job).join("begun").exists().then_some(())
        });
    }
    jobs
}

#[test]
fn a_job_that_has_no_slot_is_not_acquired_before_it_has() {
    let forge = start();
    // Longer than anybody waits here: that a slot is free again is noticed by itself.
    forge.hub.set_long_poll(Duration::from_secs(60));
    let own = occupy(&forge);
    let job = push(&forge.hub, &["true"]);
    wait_for("the reason", || {
        status(&forge)
            .contains("not acquired: every slot has a job")
            .then_some(())
    });
    assert_eq!(forge.hub.job(job).acquired_by, None);
    let cancelled = forge.daemon().cli(&["cancel", own[0].as_str()]);
    assert!(cancelled.status.success(), "{}", said(&cancelled));
    assert_eq!(forge.conclusion(job), "success");
    for job in &own[1..] {
        forge.daemon().cli(&["cancel", job.as_str()]);
    }
    forge.settled();
}

#[test]
fn what_was_on_offer_before_a_kill_is_acquired_after_it() {
    let mut forge = start();
    occupy(&forge);
    let job = push(&forge.hub, &["true"]);
    wait_for("the offer that is held", || {
        status(&forge)
            .contains("not acquired: every slot has a job")
            .then_some(())
    });
    let site = forge.daemon.take().unwrap().kill();
    forge.daemon = Some(Daemon::start_at(site));
    // It is offered once only.
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
}

#[test]
fn a_job_that_was_taken_back_before_it_had_a_slot_is_acquired_after_a_kill() {
    let mut forge = start();
    let gate = Gate::default();
    forge
        .hub
        .inject("POST /_tenant/*/acquirejobs", 1, Fault::Hold(gate.clone()));
    let job = push(&forge.hub, &["true"]);
    forge
        .hub
        .wait("an acquisition", |state| state.held().then_some(()));
    // The slot that it was to have is somebody else's by then.
    occupy(&forge);
    gate.open();
    wait_for("a job of ours that waits", || {
        forge.made_for(job).first().map(drop)
    });
    forge.hub.take_back(job);
    wait_for("its end", || {
        matches!(forge.made_for(job)[0].outcome, Some(Outcome::Refused { .. })).then_some(())
    });
    let site = forge.daemon.take().unwrap().kill();
    forge.daemon = Some(Daemon::start_at(site));
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    assert_eq!(forge.hub.job(job).handed_out, 1);
}

#[test]
fn every_repository_has_a_set_of_its_own() {
    let hub = hub();
    hub.repository("acme/lib", true);
    let forge = serve(hub, "repos = [\"acme/app\", \"acme/lib\"]\n");
    wait_for("two sessions", || {
        let sets = forge.hub.scale_sets();
        (sets.values().filter(|set| set.session.is_some()).count() == 2).then_some(())
    });
    let run = forge.hub.push("acme/lib", &LABELS);
    let jobs = [push(&forge.hub, &["true"]), forge.hub.jobs_of(run)[0]];
    for job in jobs {
        assert_eq!(forge.conclusion(job), "success");
        assert_eq!(forge.hub.job(job).handed_out, 1);
    }
    forge.settled();
}

#[test]
fn a_runners_name_that_is_taken_is_rolled_again_at_once() {
    let forge = start();
    let taken = json!({
        "typeName": "GitHub.DistributedTask.WebApi.AgentExistsException, GitHub.DistributedTask.WebApi",
        "message": "The runner already exists.",
    });
    forge
        .hub
        .inject("POST /_tenant/*/generatejitconfig", 1, Fault::Answer(400, taken));
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    assert_eq!(forge.made_for(job).len(), 1);
}

#[test]
fn a_limit_of_the_service_is_waited_out_and_gives_no_job_up() {
    let forge = start();
    forge
        .hub
        .inject("POST /_tenant/*/generatejitconfig", 1, Fault::TooMany(30));
    let job = push(&forge.hub, &["true"]);
    wait_for("the wait for the limit", || {
        let status = status(&forge);
        (status.contains("held: acme/app") && status.contains("tried again in")).then_some(())
    });
    let reasons: Vec<_> = forge
        .made_for(job)
        .into_iter()
        .filter_map(|row| row.outcome)
        .collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(!reasons[0].to_string().contains("blocked"), "{reasons:?}");
    forge.hub.cancel(forge.hub.job(job).run);
    forge.settled();
}

#[test]
fn a_message_asks_for_the_runs_that_it_names_and_for_no_others() {
    let forge = serve(hub(), "poll = \"60s\"\nidle_poll = \"60s\"\n");
    consumed(&forge);
    let long = push(&forge.hub, &["while [ ! -e ~/go ]; do sleep 0.05; done"]);
    let row = wait_for("the job that runs", || {
        let taken = |row: &JobRow| row.github.as_ref().is_some_and(|at| at.taken.is_some());
        forge.made_for(long).into_iter().find(taken)
    });
    let run = format!("/runs/{}", forge.hub.job(long).run);
    let quiet = asked(&forge.hub, "GET", "/_tenant/message");
    wait_for("the last news of it", || {
        (asked(&forge.hub, "GET", "/_tenant/message") >= quiet + 2).then_some(())
    });
    let before = asked(&forge.hub, "GET", &run);
    assert!(before > 0);
    for _ in 0..4 {
        let job = push(&forge.hub, &["true"]);
        assert_eq!(forge.conclusion(job), "success");
    }
    let after = asked(&forge.hub, "GET", &run);
    // All runs are looked through once, at the most, for a job that is not known here yet: the run and its jobs.
    assert!(after <= before + 2, "{before} and then {after}");
    let native = forge.daemon().site().data_dir.join("native");
    std::fs::write(native.join(row.id.as_str()).join("home/go"), "").unwrap();
    assert_eq!(forge.conclusion(long), "success");
    forge.settled();
}

#[test]
fn an_idle_set_costs_nothing() {
    let forge = start();
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let polls = || asked(&forge.hub, "GET", "/_tenant/message");
    // The run is over with the message that says so.
    let before = polls();
    wait_for("the last news", || (polls() >= before + 2).then_some(()));
    let (before, counted) = (polls(), forge.hub.counted_calls());
    wait_for("more long polls", || (polls() >= before + 3).then_some(()));
    assert_eq!(forge.hub.counted_calls(), counted);
}

#[test]
fn the_check_goes_through_the_chain_of_tokens_and_makes_nothing() {
    let hub = hub();
    let serves = "org = \"acme\"\nrepos = [\"acme/app\"]\nrunner_group = \"native\"\n";
    // No daemon, whose set would be there.
    let site = prepare(&hub, Family::take(), &format!("{SCALE_SET}{serves}"), "");
    let check = || site.run(&["github", "check"]);
    let missing = check();
    assert_eq!(missing.status.code(), Some(1), "{}", said(&missing));
    let told = "fail     scale set of acme: it would be in runner group `native`, and there is none";
    assert!(out(&missing).contains(told), "{}", said(&missing));
    hub.runner_group("native", Some(&["acme/app"]), false);
    let good = check();
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert!(
        out(&good).contains("ok       scale set of acme: GitHub lets us in"),
        "{}",
        said(&good)
    );
    hub.inject("POST /actions/runner-registration", 1, Fault::status(500));
    assert_eq!(check().status.code(), Some(3));
    assert_eq!(hub.scale_sets().len(), 0);
}
