//! Tools that fail, one fault after the other and at random.

use std::fs;
use std::time::Duration;

use ephemerd::job::Outcome;

use super::{Stand, assert_gone, guests, tart, tart_site};
use crate::harness::{Daemon, wait_within};

/// Faults of the tool, what becomes of the job, and a word of the reason.
const FAULTS: [(&str, Option<u8>, &str); 14] = [
    ("clone:1", Some(0), ""),
    ("clone:late", Some(0), ""),
    ("clone:disk:always", None, "No space left"),
    ("set:bad", None, "ended with"),
    ("run:die", None, "log `vm.user` in once"),
    ("run:start", Some(0), ""),
    ("run:crash:always", None, ""),
    ("exec:never:1", Some(0), ""),
    ("exec:1:1", Some(0), ""),
    ("stop:hang", Some(0), ""),
    ("delete:busy", Some(0), ""),
    ("list:garbage:1", None, "not what Tart prints"),
    ("run:deaf", Some(0), ""),
    ("set:hang:1", Some(0), ""),
];

#[test]
fn whatever_fails_before_the_job_runs_it_ends_once_and_nothing_is_left() {
    each(&FAULTS[..7]);
}

#[test]
fn whatever_fails_once_it_was_started_the_job_ends_once_and_nothing_is_left() {
    each(&FAULTS[7..]);
}

/// Runs a job under each fault, and looks how it ended and what it left.
fn each(faults: &[(&str, Option<u8>, &str)]) {
    let stand = Stand::tart();
    for &(fault, code, why) in faults {
        stand.faults(&format!("{fault}\n"));
        let job = stand.submit("sleep 0.6; echo done");
        let story = wait_within(Duration::from_secs(90), fault, || {
            let story = stand.daemon.story(&job);
            story.job.outcome.is_some().then_some(story)
        });
        match (code, story.job.outcome.as_ref().unwrap()) {
            (Some(code), outcome) => {
                assert_eq!(*outcome, Outcome::Exited { code }, "{fault}: {story:?}");
            }
            (None, Outcome::Failed { reason }) => assert!(reason.contains(why), "{fault}: {reason}"),
            (None, other) => panic!("{fault}: {other:?}"),
        }
        fs::remove_file(stand.home.join("faults")).unwrap();
        assert_eq!(stand.guests(), Vec::<String>::new(), "{fault}: {story:?}");
        assert_eq!(story.job.clean, Some(true), "{fault}: {story:?}");
        assert_gone(stand.daemon.site());
        let ends = story
            .transitions
            .iter()
            .filter(|step| step.state == "done")
            .count();
        assert_eq!(ends, 1, "{fault}");
    }
}

#[test]
fn fifty_jobs_whose_tool_fails_at_random_end_once_each_and_a_foreign_guest_survives() {
    let (site, home) = tart_site("");
    tart(&home, &["__foreign", "theirs", "linux"]);
    fs::write(home.join("env"), "TART_FAKE_CHAOS=7:8\nTART_FAKE_BOOT_S=0.05\n").unwrap();
    let stand = Stand {
        daemon: Daemon::start_at(site),
        home,
    };
    let jobs: Vec<_> = (0..50)
        .map(|n| stand.submit(&format!("exit {}", n % 3)))
        .collect();
    let mut right = 0;
    for (n, job) in (0..).zip(&jobs) {
        let story = wait_within(Duration::from_secs(110), "the end of a job", || {
            // Jobs that a cordon keeps waiting are blocked, and say so; its owner lets them go on.
            let kinds = stand.daemon.status().vm.unwrap().kinds;
            if kinds[0].blocked.is_some() {
                assert!(stand.daemon.cli(&["resume"]).status.success());
            }
            let story = stand.daemon.story(job);
            story.job.outcome.is_some().then_some(story)
        });
        match story.job.outcome.as_ref().unwrap() {
            Outcome::Exited { code } => {
                assert_eq!(*code, n % 3, "{story:?}");
                right += 1;
            }
            Outcome::Failed { .. } => {}
            other => panic!("{other:?}"),
        }
        let ends = story
            .transitions
            .iter()
            .filter(|step| step.state == "done")
            .count();
        assert_eq!(ends, 1, "{story:?}");
    }
    assert!(right >= 25, "only {right} of 50 had their result");
    fs::write(stand.home.join("env"), "").unwrap();
    let Stand { daemon, home } = stand;
    // What a tool refused to remove goes with the next start, if not before.
    let daemon = Daemon::start_at(daemon.stop());
    assert_eq!(guests(&home), Vec::<String>::new());
    assert_gone(daemon.site());
    let all = tart(&home, &["list", "--source", "local", "--format", "json"]);
    assert!(all.contains("theirs") && all.contains("running"), "{all}");
    tart(&home, &["stop", "theirs"]);
}
