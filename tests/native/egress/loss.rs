//! The filter lost while jobs run: loaded again at once, or the jobs are stopped.

use std::fs;

use camino::Utf8PathBuf;
use ephemerd::job::{JobId, Outcome};
use ephemerd::sandbox::Axis;
use ephemerd::sandbox::axes::Standing;

use ephemerd::daemon::egress::INTERVAL;

use super::BLOCK_LAN;
use crate::harness::net::Net;
use crate::harness::{Daemon, Site, err, out, said, wait_for};

/// Sends to the LAN again and again until a file called `stop` lies in the job's folder; then prints how many
/// datagrams went through, and in how many milliseconds from the first to the last of a row.
const KNOCK: &str = r#"
import os, socket, time
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sent, longest, since = 0, 0.0, None
print("knocking", flush=True)
while not os.path.exists("stop"):
    try:
        one.sendto(b"x", ("10.9.8.7", 8080))
        now = time.monotonic()
        since = since or now
        sent, longest = sent + 1, max(longest, now - since)
    except PermissionError:
        since = None
    time.sleep(0.001)
print(f"sent {sent} open {longest * 1000:.0f} ms")
"#;

/// A daemon on the host of a net, with jobs that knock in all four slots.
fn knocking(net: &Net, site: Site) -> (Daemon, Vec<JobId>) {
    let command = net.ephemerd(&site, &["run"]);
    knock(Daemon::start_by(site, command))
}

fn knock(daemon: Daemon) -> (Daemon, Vec<JobId>) {
    let jobs: Vec<JobId> = (0..4)
        .map(|_| daemon.submit("acme/app", &["/usr/bin/python3", "-c", KNOCK]))
        .collect();
    for job in &jobs {
        daemon.wait_for_output(job, "knocking");
    }
    (daemon, jobs)
}

/// What is done to the table of the family behind the daemon's back.
fn faults(table: &str) -> [(&'static str, String); 7] {
    [
        ("flushed", format!("flush table inet {table}")),
        ("deleted", format!("delete table inet {table}")),
        ("everything flushed", "flush ruleset".to_owned()),
        (
            "replaced",
            format!(
                "delete table inet {table}\ntable inet {table} {{ chain output {{ type filter hook output priority 0; }}; }}"
            ),
        ),
        (
            "a rule in front",
            format!("insert rule inet {table} slot1 accept"),
        ),
        ("a set emptied", format!("flush set inet {table} denied4")),
        ("asleep", format!("add table inet {table} {{ flags dormant; }}")),
    ]
}

#[test]
fn rules_that_are_changed_while_four_jobs_run_are_loaded_again_and_the_jobs_go_on() {
    let net = Net::new();
    let (daemon, jobs) = knocking(&net, Site::new(BLOCK_LAN));
    let table = ephemerd::egress::name(daemon.site().family.name);
    for (fault, script) in faults(&table) {
        net.nft(&script);
        wait_for(&format!("the rules after they were {fault}"), || {
            net.run(daemon.site(), &["egress", "status"])
                .status
                .success()
                .then_some(())
        });
    }
    for job in &jobs {
        // Whoever asks about a job asks about its slot's account.
        let check = |to| {
            net.run(daemon.site(), &["egress", "check", job.as_str(), to])
                .status
                .code()
        };
        assert_eq!((check("10.9.8.7"), check("203.0.113.10")), (Some(1), Some(0)));
        assert_eq!(daemon.story(job).job.outcome, None, "{}", daemon.log());
        fs::write(daemon.work(job).join("stop"), "").unwrap();
    }
    for job in &jobs {
        let story = daemon.ended(job);
        let output = daemon.output(job);
        assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 0 }), "{output}");
        let egress = story.job.egress.unwrap();
        assert_eq!(
            egress.incidents.len(),
            faults(&table).len(),
            "{:?}",
            egress.incidents
        );
        assert!(
            egress
                .incidents
                .iter()
                .all(|incident| incident.starts_with("the egress filter was lost and loaded again")),
            "{:?}",
            egress.incidents
        );
        assert!(egress.blocked.packets > 0, "{egress:?}");
        let open_ms = output.rsplit(' ').nth(1).and_then(|ms| ms.parse::<u128>().ok());
        let open_ms = open_ms.unwrap_or_else(|| panic!("{output}"));
        assert!(open_ms < INTERVAL.as_millis(), "open for {open_ms} ms");
    }
}

/// An `nft` that obeys the word in a file beside it: `works`, `fails`, or `lies`, which tells what the table was like
/// when it last worked, whatever it is like now.
fn obedient_nft(site: &Site) -> (Utf8PathBuf, Utf8PathBuf) {
    let (program, mood, real) = (
        site.top.join("nft"),
        site.top.join("mood"),
        site.top.join("real-nft"),
    );
    fs::copy("/usr/sbin/nft", &real).unwrap();
    let script = format!(
        r#"#!/bin/sh
case "$(cat {mood}) $*" in
"works -j list"*) {real} "$@" >{mood}.$$ || exit; mv {mood}.$$ {mood}.listing; cat {mood}.listing ;;
"works "*) exec {real} "$@" ;;
"lies -j list"*) cat {mood}.listing ;;
*) echo 'nft: out of order' >&2; exit 1 ;;
esac
"#
    );
    fs::write(&program, script).unwrap();

    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(&program, mode).unwrap();
    fs::write(&mood, "works").unwrap();
    (program, mood)
}

/// Why a job has failed, once it has.
#[track_caller]
fn failure(daemon: &Daemon, job: &JobId) -> String {
    match daemon.outcome(job) {
        Outcome::Failed { reason } => reason,
        other => panic!("{other:?}\n{}", daemon.log()),
    }
}

#[test]
fn jobs_are_killed_when_the_rules_are_lost_and_cannot_be_loaded_again() {
    let (net, site) = (Net::new(), Site::new(BLOCK_LAN));
    let (program, mood) = obedient_nft(&site);
    let command = net.ephemerd_with_nft(&site, &program, &["run"]);
    let (daemon, jobs) = knock(Daemon::start_by(site, command));
    fs::write(&mood, "fails").unwrap();
    net.nft("flush ruleset");
    for job in &jobs {
        let reason = failure(&daemon, job);
        assert!(
            reason.starts_with("the egress filter is not in force") && reason.contains("out of order"),
            "{reason}"
        );
    }
    // Nothing new starts, and says why.
    let refused = daemon.run("true");
    assert!(
        err(&refused).contains("the egress filter is not in force"),
        "{}",
        said(&refused)
    );
    let network = daemon
        .status()
        .axes
        .into_iter()
        .find(|report| report.axis == Axis::Network)
        .unwrap();
    assert!(
        network.standing == Standing::Absent && network.why.contains("out of order"),
        "{network:?}"
    );
    // Once it can be had again, jobs run again.
    fs::write(&mood, "works").unwrap();
    assert!(daemon.run("true").status.success());
}

#[test]
fn jobs_are_killed_when_the_rules_look_right_and_packets_get_through() {
    let (net, site) = (Net::new(), Site::new(BLOCK_LAN));
    let (program, mood) = obedient_nft(&site);
    let command = net.ephemerd_with_nft(&site, &program, &["run"]);
    let (daemon, jobs) = knock(Daemon::start_by(site, command));
    fs::write(&mood, "lies").unwrap();
    net.nft("flush ruleset");
    for job in &jobs {
        let reason = failure(&daemon, job);
        assert!(
            reason.starts_with("the egress filter does not hold")
                && reason.contains("gets allow instead of deny"),
            "{reason}"
        );
    }
}

#[test]
fn the_canarys_addresses_are_given_back_when_somebody_takes_them() {
    let net = Net::new();
    let (daemon, jobs) = knocking(&net, Site::new(BLOCK_LAN));
    for address in ["192.0.0.8/32", "fd65:7068:656d::1/128"] {
        net.ip_on_host(&format!("address del {address} dev lo"));
        let shown = || {
            let listed = net
                .on_host("/usr/sbin/ip")
                .args(["address", "show", "dev", "lo"])
                .output()
                .unwrap();
            out(&listed).contains(address).then_some(())
        };
        wait_for(&format!("{address} on the loopback interface"), shown);
    }
    for job in &jobs {
        fs::write(daemon.work(job).join("stop"), "").unwrap();
        assert_eq!(
            daemon.outcome(job),
            Outcome::Exited { code: 0 },
            "{}",
            daemon.log()
        );
    }
}

#[test]
fn the_end_of_one_job_which_ends_everything_of_its_account_loses_no_other() {
    let (net, site) = (Net::new(), Site::new(BLOCK_LAN));
    let command = net.ephemerd(&site, &["run"]);
    let daemon = Daemon::start_by(site, command);
    let jobs: Vec<JobId> = (0..120).map(|_| daemon.submit("acme/app", &["true"])).collect();
    // Every change wakes the keeper, which tries as the accounts of jobs that are just ending.
    let add = |turn: u8| net.ip_on_host(&format!("address add 198.51.100.{turn}/32 dev lo"));
    (1..40).for_each(add);
    for job in &jobs {
        assert_eq!(
            daemon.outcome(job),
            Outcome::Exited { code: 0 },
            "{}",
            daemon.log()
        );
    }
    assert!(
        !daemon.log().contains("the egress filter is lost"),
        "{}",
        daemon.log()
    );
}

/// Sends to an address that is the internet until that is refused.
const UNTIL_REFUSED: &str = r#"
import socket, time
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.sendto(b"x", ("198.51.100.7", 8080))
print("sent", flush=True)
try:
    while True:
        one.sendto(b"x", ("198.51.100.7", 8080))
        time.sleep(0.001)
except PermissionError:
    print("refused")
"#;

#[test]
fn a_network_that_the_host_joins_is_closed_to_a_job_that_runs() {
    let (net, site) = (Net::new(), Site::new(BLOCK_LAN));
    let command = net.ephemerd(&site, &["run"]);
    let daemon = Daemon::start_by(site, command);
    let job = daemon.submit("acme/app", &["/usr/bin/python3", "-c", UNTIL_REFUSED]);
    daemon.wait_for_output(&job, "sent");
    net.ip_on_host("address add 198.51.100.1/24 dev lan");
    assert_eq!(daemon.outcome(&job), Outcome::Exited { code: 0 });
    assert!(
        daemon.output(&job).ends_with("refused\n"),
        "{}",
        daemon.output(&job)
    );
    let incidents = daemon.ended(&job).job.egress.unwrap().incidents;
    assert_eq!(incidents, [""; 0], "following the network is no incident");
}

#[test]
fn with_on_loss_alert_jobs_go_on_and_their_records_say_so() {
    let (net, site) = (
        Net::new(),
        Site::new(&format!("{BLOCK_LAN}on_loss = \"alert\"\n")),
    );
    let (program, mood) = obedient_nft(&site);
    let command = net.ephemerd_with_nft(&site, &program, &["run"]);
    let (daemon, jobs) = knock(Daemon::start_by(site, command));
    fs::write(&mood, "fails").unwrap();
    net.nft("flush ruleset");
    wait_for("the daemon's alarm", || {
        daemon.log().contains("the egress filter is lost").then_some(())
    });
    for job in &jobs {
        fs::write(daemon.work(job).join("stop"), "").unwrap();
        let story = daemon.ended(job);
        assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 0 }));
        let egress = story.job.egress.unwrap();
        assert!(egress.incidents[0].contains("out of order"), "{egress:?}");
    }
}

#[test]
fn no_job_starts_where_the_rules_cannot_be_loaded() {
    let (net, site) = (Net::new(), Site::new(BLOCK_LAN));
    let (program, mood) = obedient_nft(&site);
    fs::write(&mood, "fails").unwrap();
    let output = net
        .ephemerd_with_nft(&site, &program, &["exec", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    assert!(err(&output).contains("out of order"), "{}", said(&output));
    let tables = net
        .on_host("/usr/sbin/nft")
        .args(["list", "ruleset"])
        .output()
        .unwrap();
    assert_eq!(out(&tables), "", "nothing is half loaded");
}

#[test]
fn rules_that_jobs_run_under_are_neither_replaced_nor_removed_by_another_configuration() {
    let net = Net::new();
    let (daemon, jobs) = knocking(&net, Site::new(BLOCK_LAN));
    let site = daemon.site();
    let other = site.top.join("other.toml");
    let text = fs::read_to_string(&site.config).unwrap();
    let text = text.replace(
        "mode = \"block-lan\"",
        "mode = \"block-lan\"\nallow = [\"10.9.8.7\"]",
    );
    let text = text.replace(site.data_dir.as_str(), site.top.join("elsewhere").as_str());
    fs::write(&other, text).unwrap();
    let with_other = |args: &[&str]| {
        let mut command = net.on_host(crate::harness::PROGRAM);
        command.arg("--config").arg(&other).args(args).output().unwrap()
    };
    for args in [
        &["egress", "apply"][..],
        &["egress", "remove"],
        &["exec", "--", "true"],
    ] {
        let refused = with_other(args);
        assert!(!refused.status.success(), "{args:?}: {}", said(&refused));
        // All slots' accounts are the daemon's, so `exec` does not come as far as the rules.
        assert!(
            err(&refused).contains("another ephemerd"),
            "{args:?}: {}",
            said(&refused)
        );
    }
    assert!(net.run(site, &["egress", "status"]).status.success());
    for job in &jobs {
        fs::write(daemon.work(job).join("stop"), "").unwrap();
        assert_eq!(daemon.outcome(job), Outcome::Exited { code: 0 });
        assert!(daemon.output(job).contains("sent 0 "), "{}", daemon.output(job));
    }
}

#[test]
fn rules_follow_the_interfaces_of_the_host() {
    let net = Net::new();
    net.ip_in_world("address add 198.51.100.7/32 dev lo");
    let site = Site::new(BLOCK_LAN);
    let command = net.ephemerd(&site, &["run"]);
    let daemon = Daemon::start_by(site, command);
    let attempt = |daemon: &Daemon| {
        let targets = [
            "tcp 198.51.100.7 53".to_owned(),
            "tcp 198.51.100.7 8080".to_owned(),
        ];
        let mut command = vec!["/usr/bin/python3", "-c", crate::harness::net::ATTEMPT];
        command.extend(targets.iter().map(String::as_str));
        let job = daemon.submit("acme/app", &command);
        daemon.outcome(&job);
        daemon.output(&job)
    };
    assert!(attempt(&daemon).contains("8080 reached"));
    net.ip_on_host("address add 198.51.100.1/24 dev lan");
    assert!(attempt(&daemon).contains("8080 refused"));
    net.ip_on_host("address del 198.51.100.1/24 dev lan");
    assert!(attempt(&daemon).contains("8080 reached"));
}
