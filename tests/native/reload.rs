//! A daemon that reads its configuration again while it runs.

use std::fs;

use ephemerd::job::Outcome;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Daemon, Site, out, said, wait_for};

/// What trusts a repository that is not trusted otherwise.
const NEW: &str = "\"new/app\" = \"native\"\n[native]\n";

/// Writes the configuration anew with one part of its text in place of another.
fn rewrite(site: &Site, from: &str, to: &str) {
    let text = fs::read_to_string(&site.config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&site.config, text.replace(from, to)).unwrap();
}

/// Reloads, which must succeed; what is said.
#[track_caller]
fn reload(daemon: &Daemon, args: &[&str]) -> String {
    let output = daemon.cli(&[&["reload"], args].concat());
    assert!(output.status.success(), "{}", said(&output));
    out(&output)
}

/// Reloads, which must fail as a wrong configuration does; what is said.
#[track_caller]
fn refused(daemon: &Daemon) -> String {
    let output = daemon.cli(&["reload"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    said(&output)
}

fn hang_up(daemon: &Daemon) {
    kill(Pid::from_raw(daemon.pid()), Signal::SIGHUP).unwrap();
}

fn is_trusted(daemon: &Daemon, repo: &str) -> bool {
    let job = daemon.submit(repo, &["true"]);
    match daemon.outcome(&job) {
        Outcome::Exited { code: 0 } => true,
        Outcome::Refused { .. } => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_repository_that_is_trusted_from_now_on_is_let_through_after_a_reload() {
    let daemon = Daemon::start("");
    assert!(!is_trusted(&daemon, "new/app"));
    daemon.site().configure(NEW);
    assert!(!is_trusted(&daemon, "new/app"));
    let told = reload(&daemon, &[]);
    assert_eq!(
        told,
        "applied:\n  trust.repos.\"new/app\": not set -> \"native\"\n"
    );
    assert!(is_trusted(&daemon, "new/app"));
    let again = reload(&daemon, &[]);
    assert!(again.contains("nothing has changed"), "{again}");
}

#[test]
fn a_hangup_has_the_daemon_read_its_configuration_again_and_not_end() {
    let daemon = Daemon::start("");
    daemon.site().configure(NEW);
    hang_up(&daemon);
    wait_for("the new configuration", || {
        daemon
            .log()
            .contains("the configuration was read again")
            .then_some(())
    });
    assert!(is_trusted(&daemon, "new/app"));
}

#[test]
fn a_wrong_file_keeps_the_old_one_and_status_says_where_it_is_wrong_until_it_is_not() {
    let daemon = Daemon::start("[control]\nlisten = \"127.0.0.1:0\"\n");
    let site = daemon.site();
    let before = daemon.status().config;
    assert!(before.failed.is_none() && before.read_ms > 0, "{before:?}");
    let right = fs::read_to_string(&site.config).unwrap();
    let line = right.lines().count() + 2;
    let wrong = format!("{}[nonsense]\n", right.replace("\"acme/*\" = \"native\"\n", "\n"));
    fs::write(&site.config, format!("{wrong}\n[log]\nlevel = 7\n")).unwrap();
    // The socket is found all the same.
    let told = refused(&daemon);
    assert!(told.contains("keeps the configuration that it has"), "{told}");
    for place in [
        format!("{}:{}:", site.config, line - 1),
        format!("{}:{}:9: ", site.config, line + 2),
    ] {
        assert!(told.contains(&place), "{place}\n{told}");
    }
    let failed = daemon.status().config.failed.unwrap();
    assert!(
        failed.why.contains("nonsense") && failed.at_ms >= before.read_ms,
        "{failed:?}"
    );
    assert!(is_trusted(&daemon, "acme/app"));
    assert_eq!(daemon.status().config.read_ms, before.read_ms);
    // No TOML at all.
    fs::write(&site.config, format!("{right}[native\n")).unwrap();
    hang_up(&daemon);
    wait_for("the other reason", || {
        let failed = daemon.status().config.failed.unwrap();
        (!failed.why.contains("nonsense")).then_some(())
    });
    assert!(
        daemon
            .log()
            .contains("the configuration is wrong, and the old one stays")
    );
    refused(&daemon);
    fs::write(&site.config, right).unwrap();
    let text = out(&daemon.cli(&["status"]));
    assert!(text.contains("not reloaded at "), "{text}");
    reload(&daemon, &[]);
    assert_eq!(daemon.status().config.failed, None);
    assert!(!out(&daemon.cli(&["status"])).contains("not reloaded"));
}

#[test]
fn a_file_that_is_gone_is_no_empty_one() {
    let daemon = Daemon::start("");
    let aside = daemon.site().top.join("aside.toml");
    fs::rename(&daemon.site().config, &aside).unwrap();
    hang_up(&daemon);
    let failed = wait_for("the reason", || daemon.status().config.failed);
    assert!(failed.why.contains("could not read"), "{failed:?}");
    assert!(is_trusted(&daemon, "acme/app"));
    fs::rename(&aside, &daemon.site().config).unwrap();
}

#[test]
fn what_no_job_could_run_under_is_refused_and_what_could_not_run_before_is_in_nobodys_way() {
    let daemon = Daemon::start("");
    let grant = |more: &str| {
        let repos = "[repos.\"acme/app\"]\nextra_read = [\"/no/such/folder\"]\n";
        daemon.site().configure(&format!("{more}{repos}"));
    };
    grant("[native]\n");
    let told = refused(&daemon);
    assert!(
        told.contains("acme/app") && told.contains("/no/such/folder"),
        "{told}"
    );
    assert!(is_trusted(&daemon, "acme/app"));
    let site = daemon.stop();
    // It started with that, so that it does not keep another change from being made.
    let daemon = Daemon::start_at(site);
    assert!(!is_trusted(&daemon, "acme/app"));
    daemon.site().configure(&format!(
        "{NEW}[repos.\"acme/app\"]\nextra_read = [\"/no/such/folder\"]\n"
    ));
    reload(&daemon, &[]);
    assert!(is_trusted(&daemon, "new/app"));
}

#[test]
fn what_waits_for_a_restart_is_named_and_the_rest_applies() {
    let daemon = Daemon::start("");
    let slots = daemon.status().slots.len();
    daemon
        .site()
        .configure("\"new/app\" = \"native\"\n[native]\nslots = 1\n[egress]\nmode = \"open\"\n");
    let told = reload(&daemon, &[]);
    let (applied, waits) = told.split_once("waits for a restart of the daemon:\n").unwrap();
    assert!(applied.contains("new/app"), "{told}");
    assert_eq!(
        waits,
        format!("  native.slots: {slots} -> 1\n  egress.mode: \"offline\" -> \"open\"\n")
    );
    let status = daemon.status();
    assert_eq!(status.slots.len(), slots);
    assert_eq!(status.config.restart_needed, ["native.slots", "egress.mode"]);
    let text = out(&daemon.cli(&["status"]));
    assert!(
        text.contains("waits for a restart: native.slots, egress.mode"),
        "{text}"
    );
    assert!(is_trusted(&daemon, "new/app"));
    daemon.site().configure(NEW);
    reload(&daemon, &[]);
    assert_eq!(daemon.status().config.restart_needed, [""; 0]);
}

#[test]
fn a_running_job_outlives_that_its_repository_goes_and_one_that_waits_is_refused() {
    let daemon = Daemon::start("[native]\nslots = 1\n");
    let running = daemon.script("echo begun; while [ ! -e go ]; do sleep 0.05; done; echo over");
    daemon.wait_for_output(&running, "begun");
    let waiting = daemon.script("true");
    let other = daemon.submit("other/app", &["true"]);
    rewrite(daemon.site(), "\"acme/*\" = \"native\"\n", "");
    let told = reload(&daemon, &[]);
    assert!(
        told.contains(&format!("may not run here any more: {waiting}")),
        "{told}"
    );
    let Outcome::Refused { reason } = daemon.outcome(&waiting) else {
        panic!("{:?}", daemon.outcome(&waiting));
    };
    assert!(
        reason.contains("no entry of trust.repos names acme/app"),
        "{reason}"
    );
    assert_eq!(daemon.story(&running).job.outcome, None);
    fs::write(daemon.work(&running).join("go"), "").unwrap();
    assert_eq!(daemon.outcome(&running), Outcome::Exited { code: 0 });
    assert!(daemon.output(&running).ends_with("over\n"));
    assert_eq!(daemon.outcome(&other), Outcome::Exited { code: 0 });
    assert!(!is_trusted(&daemon, "acme/app"));
}

#[test]
fn a_job_that_runs_keeps_its_limits_and_a_floor_that_is_raised_lets_none_begin() {
    let daemon = Daemon::start("[native.limits]\nmemory = \"64MiB\"\n");
    // As long as it takes to be measured twice.
    let running = daemon.script("echo begun; sleep 3; echo over");
    daemon.wait_for_output(&running, "begun");
    rewrite(daemon.site(), "memory = \"64MiB\"", "memory = \"1B\"");
    rewrite(daemon.site(), "\"64MiB\"\ndata_dir", "\"1000TiB\"\ndata_dir");
    reload(&daemon, &[]);
    let waiting = daemon.script("true");
    let full = daemon.status().full.unwrap();
    assert!(full.contains("disk"), "{full}");
    assert_eq!(daemon.outcome(&running), Outcome::Exited { code: 0 });
    assert_eq!(daemon.story(&waiting).job.claimed_ms, None);
    rewrite(daemon.site(), "memory = \"1B\"", "memory = \"64MiB\"");
    rewrite(daemon.site(), "1000TiB", "64MiB");
    reload(&daemon, &[]);
    assert_eq!(daemon.outcome(&waiting), Outcome::Exited { code: 0 });
}

#[test]
fn jobs_that_begin_after_a_reload_run_under_it() {
    let daemon = Daemon::start("[native]\nslots = 1\n[native.env]\nWHICH = \"old\"\n");
    let script = "echo begun $WHICH; while [ ! -e go ]; do sleep 0.05; done; echo $WHICH";
    let running = daemon.script(script);
    daemon.wait_for_output(&running, "begun old");
    let waiting = daemon.script("echo $WHICH");
    daemon
        .site()
        .configure("[native]\nslots = 1\njob_timeout = \"1ms\"\n[native.env]\nWHICH = \"new\"\n[repos.\"acme/app\"]\njob_timeout = \"1h\"\n");
    reload(&daemon, &[]);
    let late = daemon.submit("other/app", &["sleep", "1000"]);
    fs::write(daemon.work(&running).join("go"), "").unwrap();
    assert_eq!(daemon.outcome(&running), Outcome::Exited { code: 0 });
    assert_eq!(daemon.outcome(&waiting), Outcome::Exited { code: 0 });
    assert_eq!(daemon.output(&waiting), "new\n");
    let outcome = daemon.outcome(&late);
    assert!(matches!(outcome, Outcome::TimedOut { .. }), "{outcome:?}");
}

#[test]
fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let daemon = Daemon::start("");
    let before = daemon.status().config;
    daemon
        .site()
        .configure("\"new/app\" = \"native\"\n[native]\nslots = 1\n");
    let told = reload(&daemon, &["--dry-run"]);
    assert!(
        told.starts_with("would apply at once:\n  trust.repos.\"new/app\""),
        "{told}"
    );
    assert!(
        told.contains("would wait for a restart of the daemon:\n  native.slots"),
        "{told}"
    );
    assert!(!is_trusted(&daemon, "new/app"));
    fs::write(&daemon.site().config, "nonsense = 1\n").unwrap();
    let socket = daemon.site().socket();
    let output = daemon.cli(&["reload", "--dry-run", "--socket", socket.as_str()]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_eq!(daemon.status().config, before);
}

#[test]
fn a_manifest_that_says_something_else_counts_after_a_reload() {
    let site = Site::new("");
    let manifest = site.top.join("m.toml");
    let write = |items: &str| {
        let text = format!("version = 1\nos = \"linux\"\n[command.sh]\nwhy = \"w\"\n{items}");
        fs::write(&manifest, text).unwrap();
    };
    write("");
    site.configure(&format!("manifest = {manifest:?}\n"));
    let enable = site.run(&["host", "enable"]);
    assert!(enable.status.success(), "{}", said(&enable));
    let daemon = Daemon::start_at(site);
    assert!(is_trusted(&daemon, "acme/app"));
    write("[command.true]\nwhy = \"w\"\n");
    let shut = wait_for("a gate that is shut", || daemon.status().shut);
    assert!(shut.contains("ephemerd reload"), "{shut}");
    let told = reload(&daemon, &[]);
    assert_eq!(told, format!("manifests that say something else: {manifest}\n"));
    let shut = daemon.status().shut.unwrap();
    assert!(
        shut.contains("`ephemerd host enable` checks what it says now"),
        "{shut}"
    );
    let enable = daemon.cli(&["host", "enable"]);
    assert!(enable.status.success(), "{}", said(&enable));
    assert!(is_trusted(&daemon, "acme/app"));
    write("[nonsense]\n");
    let told = refused(&daemon);
    assert!(told.contains("m.toml") && told.contains("nonsense"), "{told}");
}
