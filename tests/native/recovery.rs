//! What the next start makes of a daemon that did not end in peace.

use std::fs;

use ephemerd::control::SlotNow;
use ephemerd::job::Outcome;

use crate::harness::{Daemon, out, processes_of, wait_for};

#[test]
fn jobs_die_with_a_killed_daemon_and_the_next_start_clears_up() {
    let daemon = Daemon::start("");
    let running: Vec<_> = (0..4)
        .map(|_| daemon.script("trap '' TERM; echo ready; while :; do sleep 1000; done"))
        .collect();
    running
        .iter()
        .for_each(|job| daemon.wait_for_output(job, "ready"));
    let waiting = daemon.script("true");
    let site = daemon.kill();
    for uid in site.family.uids() {
        wait_for("the end of the jobs", || {
            processes_of(uid).is_empty().then_some(())
        });
    }
    assert_eq!(site.workspaces().len(), 4, "nobody was there to remove them");

    let daemon = Daemon::start_at(site);
    for job in running.iter().chain([&waiting]) {
        let Outcome::Failed { reason } = daemon.outcome(job) else {
            panic!("{job}: {:?}", daemon.outcome(job))
        };
        assert_eq!(reason, "the daemon ended before the job did");
    }
    assert!(
        running
            .iter()
            .all(|job| daemon.ended(job).job.clean == Some(true))
    );
    daemon.site().assert_clean();
    assert!(daemon.status().slots.iter().all(|slot| slot.now == SlotNow::Free));
    let all: Vec<_> = (0..4).map(|_| daemon.script("true")).collect();
    assert!(
        all.iter().all(|job| daemon.outcome(job).is_success()),
        "every slot is usable"
    );
}

#[test]
fn a_killed_warden_ends_jobs_and_dispatcher_and_the_next_start_clears_up() {
    let daemon = Daemon::start("");
    let job = daemon.script("echo ready; sleep 1000");
    daemon.wait_for_output(&job, "ready");
    let site = daemon.kill_warden();
    for uid in site.family.uids() {
        wait_for("the end of the jobs", || {
            processes_of(uid).is_empty().then_some(())
        });
    }

    let daemon = Daemon::start_at(site);
    assert!(
        matches!(daemon.outcome(&job), Outcome::Failed { .. }),
        "{:?}",
        daemon.outcome(&job)
    );
    assert_eq!(daemon.ended(&job).job.clean, Some(true));
    daemon.site().assert_clean();
    assert!(daemon.status().slots.iter().all(|slot| slot.now == SlotNow::Free));
}

#[test]
fn a_folder_no_ledger_knows_is_removed_at_the_start() {
    let daemon = Daemon::start("");
    let site = daemon.stop();
    let lost = site.data_dir.join("native/0abc0000xyz/work");
    fs::create_dir_all(&lost).unwrap();
    fs::write(lost.join("file"), "x").unwrap();
    let daemon = Daemon::start_at(site);
    assert!(daemon.site().workspaces().is_empty());
    assert!(
        daemon.log().contains("unknown workspace 0abc0000xyz: removed"),
        "{}",
        daemon.log()
    );
}

#[test]
fn a_slot_in_quarantine_stays_out_of_use_until_its_owner_says_so() {
    let daemon = Daemon::start("");
    let job = daemon.script("echo ready; until [ -e go ]; do sleep 0.05; done");
    daemon.wait_for_output(&job, "ready");
    // A mount in the workspace is what nobody but the owner can decide about.
    let work = daemon.work(&job);
    let point = work.join("mnt");
    fs::create_dir(&point).unwrap();
    nix::mount::mount(
        Some("none"),
        point.as_std_path(),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=4k"),
    )
    .unwrap();
    fs::write(work.join("go"), "").unwrap();
    let story = daemon.ended(&job);
    nix::mount::umount(point.as_std_path()).unwrap();
    assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 0 }));
    assert_eq!(story.job.clean, Some(false));
    let slot = story.job.slot.unwrap();
    let quarantined = |daemon: &Daemon| {
        daemon
            .status()
            .slots
            .iter()
            .any(|report| report.index == slot && matches!(report.now, SlotNow::Quarantined { .. }))
    };
    wait_for("the quarantine", || quarantined(&daemon).then_some(()));
    let left = daemon.story(&job).left.unwrap();
    assert!(left.contains("mnt"), "{left}");
    let shown = out(&daemon.cli(&["jobs", "show", job.as_str()]));
    assert!(shown.contains(&format!("left     {left}")), "{shown}");
    let others: Vec<_> = (0..8).map(|_| daemon.script("true")).collect();
    assert!(others.iter().all(|job| daemon.ended(job).job.slot != Some(slot)));

    let daemon = Daemon::start_at(daemon.stop());
    assert!(quarantined(&daemon), "a new start does not forget it");
    assert!(daemon.site().workspaces().is_empty(), "but removes what it can");
    assert!(
        daemon
            .cli(&["resume", "--slot", &slot.to_string()])
            .status
            .success()
    );
    assert!(!quarantined(&daemon));
    assert_eq!(daemon.story(&job).left, None);
    let used: Vec<_> = (0..8).map(|_| daemon.script("sleep 0.1")).collect();
    assert!(used.iter().any(|job| daemon.ended(job).job.slot == Some(slot)));
}

#[test]
fn however_much_a_job_leaves_its_end_is_told_and_its_slot_is_out_of_use() {
    let daemon = Daemon::start("");
    let job = daemon.script("echo ready; until [ -e go ]; do sleep 0.05; done");
    daemon.wait_for_output(&job, "ready");
    let uid = daemon.site().family.uid(daemon.slot_of(&job));
    // As a job without a mount namespace of its own could leave them: more names than one message can hold.
    let mut left = vec![];
    for number in 0..6000 {
        let path = format!("/dev/shm/epht-{}-{number}-{}", job.as_str(), "x".repeat(200));
        std::os::unix::fs::symlink("/", &path).unwrap();
        std::os::unix::fs::lchown(&path, Some(uid), None).unwrap();
        left.push(path);
    }
    fs::write(daemon.work(&job).join("go"), "").unwrap();
    let story = daemon.ended(&job);
    for path in &left {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 0 }));
    assert_eq!(story.job.clean, Some(false));
    let told = daemon.story(&job).left.unwrap();
    assert!(
        told.contains("file /dev/shm/epht-") && told.contains("and 5900 more"),
        "{told}"
    );
}

#[test]
fn jobs_go_on_when_the_dispatcher_alone_is_killed_and_those_that_wait_wait_again() {
    let mut daemon = Daemon::start("[native]\nslots = 2\n");
    let script = "echo begun; until [ -e go ]; do sleep 0.05; done; echo over; exit 5";
    let running: Vec<_> = (0..2).map(|_| daemon.script(script)).collect();
    running
        .iter()
        .for_each(|job| daemon.wait_for_output(job, "begun"));
    let waiting = daemon.script("echo $(id -un)");
    daemon.kill_dispatcher();
    for job in &running {
        assert_eq!(daemon.story(job).job.state, "running");
        fs::write(daemon.work(job).join("go"), "").unwrap();
    }
    for job in &running {
        assert_eq!(daemon.outcome(job), Outcome::Exited { code: 5 });
        assert_eq!(daemon.ended(job).job.clean, Some(true));
        assert_eq!(daemon.output(job), "begun\nover\n");
        let states = daemon.story(job).transitions;
        let states: Vec<_> = states.iter().map(|made| made.state.as_str()).collect();
        let life = ["queued", "preparing", "launching", "running", "scrubbing", "done"];
        assert_eq!(states, life, "nothing happened to it");
    }
    assert!(daemon.outcome(&waiting).is_success());
    let log = daemon.log();
    assert!(
        log.contains("the dispatcher was killed; another goes on with its jobs") && log.contains("goes on"),
        "{log}"
    );
}
