//! A dispatcher that is killed is followed by another, which knows what the last one knew.

use std::fs;

use ephemerd::control::Ask;
use ephemerd::job::{JobSpec, Origin, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::net::Net;
use crate::harness::{Census, Daemon, Site, out, processes_of, wait_for};

/// Waits until a job is in a state.
fn wait_for_state(daemon: &Daemon, job: &ephemerd::job::JobId, state: &str) {
    wait_for(&format!("a job that is {state}"), || {
        (daemon.story(job).job.state == state).then_some(())
    });
}

#[test]
fn the_next_dispatcher_goes_by_what_was_in_force_and_reads_the_file_again_when_it_is_told() {
    let mut daemon = Daemon::start("[native.env]\nWHICH = \"first\"\n");
    let file = daemon.site().config.clone();
    let before = fs::read_to_string(&file).unwrap();
    let second = before.replace("first", "second");
    fs::write(&file, &second).unwrap();
    assert!(daemon.cli(&["reload"]).status.success());
    // Since then somebody has begun to write a third, and slots wait for a restart.
    fs::write(&file, "[native\n").unwrap();
    daemon.kill_dispatcher();
    let job = daemon.script("echo $WHICH");
    assert!(daemon.outcome(&job).is_success(), "{}", daemon.log());
    // A command would read the file.
    let log = daemon.site().data_dir.join(format!("logs/{job}.log"));
    assert_eq!(fs::read_to_string(log).unwrap(), "second\n");
    let third = second
        .replace("second", "third")
        .replace("[native]\n", "[native]\nslots = 2\n");
    fs::write(&file, third).unwrap();
    assert!(daemon.cli(&["reload"]).status.success());
    let job = daemon.script("echo $WHICH");
    assert!(daemon.outcome(&job).is_success());
    assert_eq!(daemon.output(&job), "third\n");
    let status = daemon.status();
    assert_eq!(status.config.restart_needed, ["native.slots"]);
    assert_eq!((status.slots.len(), status.killed), (4, 1));
    let shown = out(&daemon.cli(&["status"]));
    assert!(shown.contains("; 1 before it were killed"), "{shown}");
}

#[test]
fn a_host_that_is_drained_stays_so_and_what_waits_waits() {
    let mut daemon = Daemon::start("");
    assert!(daemon.cli(&["drain"]).status.success());
    let spec = JobSpec {
        origin: Origin::own(&"acme/app".parse().unwrap()),
        command: ["sh", "-c", "echo $SECRET"].map(str::to_owned).to_vec(),
        env: [("SECRET".to_owned(), "kept".to_owned())].into(),
        timeout_s: None,
    };
    let asked = daemon.site().ask(&Ask::Submit { spec }).unwrap();
    let ephemerd::control::Answer::Submitted { job, .. } = asked else {
        panic!("{asked:?}")
    };
    daemon.kill_dispatcher();
    assert!(daemon.status().draining);
    assert_eq!(daemon.story(&job).job.state, "queued");
    assert!(daemon.cli(&["resume"]).status.success());
    assert!(daemon.outcome(&job).is_success());
    // Of the environment the ledger knows nothing.
    assert_eq!(daemon.output(&job), "kept\n");
}

#[test]
fn a_job_has_the_time_that_it_had_and_one_that_was_told_to_end_ends_for_that_reason() {
    let mut daemon = Daemon::start("[native]\nslots = 2\nstop_grace = \"2s\"\n");
    let timed = JobSpec {
        origin: Origin::own(&"acme/app".parse().unwrap()),
        command: ["sh", "-c", "echo begun; sleep 1000"].map(str::to_owned).to_vec(),
        env: [].into(),
        timeout_s: Some(4),
    };
    let asked = daemon.site().ask(&Ask::Submit { spec: timed }).unwrap();
    let ephemerd::control::Answer::Submitted { job: timed, .. } = asked else {
        panic!("{asked:?}")
    };
    let told = daemon.script("trap '' TERM; echo begun; while :; do sleep 1000; done");
    for job in [&timed, &told] {
        daemon.wait_for_output(job, "begun");
        wait_for_state(&daemon, job, "running");
    }
    assert!(daemon.cli(&["cancel", told.as_str()]).status.success());
    wait_for_state(&daemon, &told, "stopping");
    daemon.kill_dispatcher();
    assert_eq!(daemon.outcome(&told), Outcome::Cancelled);
    assert_eq!(daemon.outcome(&timed), Outcome::TimedOut { limit_s: 4 });
}

#[test]
fn output_goes_on_in_its_order_however_often_the_dispatcher_is_killed_and_nothing_is_left() {
    let mut daemon = Daemon::start("[native]\nslots = 1\n");
    assert!(daemon.run("true").status.success());
    let before = Census::take(&daemon);
    let script = "i=0; until [ -e go ]; do i=$((i+1)); echo $i; done; echo over";
    let job = daemon.script(script);
    daemon.wait_for_output(&job, "\n100\n");
    for _ in 0..2 {
        daemon.kill_dispatcher();
        let log = daemon.site().data_dir.join(format!("logs/{job}.log"));
        let length = fs::metadata(&log).unwrap().len();
        wait_for("more of its output", || {
            (fs::metadata(&log).unwrap().len() > length + 10_000).then_some(())
        });
    }
    fs::write(daemon.work(&job).join("go"), "").unwrap();
    assert!(daemon.outcome(&job).is_success());
    let output = daemon.output(&job);
    let (numbers, end) = output.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(end, "over");
    // What was read when it was killed, and not written yet, may be missing: a part of it at a time, and no more.
    let mut last = 0;
    let mut gaps = 0;
    for line in numbers.lines() {
        match line.parse::<u64>() {
            Ok(number) if number == last + 1 => last = number,
            Ok(number) => {
                assert!(number > last, "{number} after {last}");
                gaps += 1;
                last = number;
            }
            Err(_) => gaps += 1,
        }
    }
    assert!(gaps <= 4, "{gaps}");
    let after = Census::take(&daemon);
    assert_eq!(after, before);
}

#[test]
fn who_is_told_to_stop_while_there_is_no_dispatcher_stops_in_order() {
    let site = Site::new("");
    let log = site.top.join("own.log");
    let command = site.ephemerd(&["run", "--log-file", log.as_str()]);
    let mut daemon = Daemon::start_by(site, command);
    let job = daemon.script("echo begun; sleep 1000");
    daemon.wait_for_output(&job, "begun");
    daemon.kill_dispatcher();
    daemon.kill_dispatcher();
    // The third waits for a second before it comes.
    kill(Pid::from_raw(daemon.pid()), Signal::SIGKILL).unwrap();
    wait_for("the end of the dispatcher", || {
        let log = fs::read_to_string(&log).unwrap();
        (log.matches("the dispatcher was killed").count() == 3).then_some(())
    });
    let daemon = Daemon::start_at(daemon.stop());
    assert_eq!(daemon.outcome(&job), Outcome::Cancelled);
    assert_eq!(daemon.ended(&job).job.clean, Some(true));
    // What each of them said is in the log.
    let log = fs::read_to_string(&log).unwrap();
    assert_eq!(log.matches("ephemerd::cli::run: ready").count(), 4, "{log}");
}

#[test]
fn heavy_one_that_is_killed_too_often_has_no_next_and_the_daemon_ends_with_its_jobs() {
    let mut daemon = Daemon::start("");
    let job = daemon.script("echo begun; sleep 1000");
    daemon.wait_for_output(&job, "begun");
    for _ in 0..5 {
        daemon.kill_dispatcher();
        assert_eq!(daemon.story(&job).job.outcome, None);
    }
    let site = daemon.kill_last_dispatcher();
    for uid in site.family.uids() {
        wait_for("the end of the jobs", || {
            processes_of(uid).is_empty().then_some(())
        });
    }
    let daemon = Daemon::start_at(site);
    assert!(matches!(daemon.outcome(&job), Outcome::Failed { .. }));
    assert_eq!(daemon.ended(&job).job.clean, Some(true));
}

#[test]
fn a_job_that_goes_on_stays_behind_the_packet_filter_and_the_next_ones_are_behind_it() {
    let (net, site) = (
        Net::new(),
        Site::new("[egress]\nmode = \"block-lan\"\ndns = [\"192.168.77.53\"]\n"),
    );
    let command = net.ephemerd(&site, &["run"]);
    let mut daemon = Daemon::start_by(site, command);
    let script = "echo begun; until [ -e go ]; do sleep 0.05; done; echo over";
    let job = daemon.script(script);
    daemon.wait_for_output(&job, "begun");
    daemon.kill_dispatcher();
    // Whoever takes the rules away is noticed by the one that follows, which has them loaded again.
    net.nft("flush ruleset");
    wait_for("rules that were loaded again", || {
        daemon
            .log()
            .contains("the egress filter was lost and loaded again")
            .then_some(())
    });
    fs::write(daemon.work(&job).join("go"), "").unwrap();
    assert!(daemon.outcome(&job).is_success(), "{}", daemon.log());
    let egress = daemon.story(&job).job.egress.unwrap();
    assert!(
        egress.incidents.iter().any(|what| what.contains("loaded again")),
        "{egress:?}"
    );
    assert!(daemon.run("true").status.success());
}
