//! From a machine that knows nothing of ephemerd to one that knows nothing of it any more.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use camino::Utf8PathBuf;

use crate::machine::{Machine, PROGRAM, text, wait_for};

const INSTALLED: &str = "/usr/local/bin/ephemerd";
const UNIT: &str = "/etc/systemd/system/ephemerd.service";
const CONFIG: &str =
    "[host]\nmanifest = \"none\"\n[native]\nslots = 2\n[trust.repos]\n\"acme/app\" = \"native\"\n";

/// A program that does what the first one does and says that it is newer: every `0.1.0` in it is a `0.2.0`.
fn newer() -> Vec<u8> {
    let mut bytes = fs::read(PROGRAM).unwrap();
    let (old, new) = (env!("CARGO_PKG_VERSION").as_bytes(), b"0.2.0");
    assert_eq!(
        old.len(),
        new.len(),
        "versions have one length, so that nothing moves"
    );
    let places: Vec<usize> = (0..bytes.len() - old.len())
        .filter(|at| bytes[*at..].starts_with(old))
        .collect();
    for at in places {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
    bytes
}

/// Puts a program into the machine.
fn put(machine: &Machine, inside: &str, bytes: &[u8]) {
    let path = machine.path(inside);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Every path where an installation could leave something.
fn paths(machine: &Machine) -> BTreeSet<String> {
    let found = machine.ends(
        0,
        &[
            "find",
            "/etc",
            "/usr/local",
            "/var",
            "/opt",
            "/root",
            "/run",
            "/tmp",
            "-xdev",
        ],
    );
    // What others do on the machine that this one is a copy of shows through.
    let own = |path: &&str| fs::symlink_metadata(path).is_err() && !path.contains("/epht-");
    found.lines().filter(own).map(str::to_owned).collect()
}

fn status(machine: &Machine) -> serde_json::Value {
    let said = machine.run(&[INSTALLED, "status", "--format", "json"]);
    serde_json::from_slice(&said.stdout).unwrap_or_default()
}

#[track_caller]
fn runs_a_job(machine: &Machine) {
    let said = machine.ends(
        0,
        &[
            INSTALLED,
            "submit",
            "--repo",
            "acme/app",
            "--wait",
            "--",
            "sh",
            "-c",
            "id -un; cat /proc/self/cgroup",
        ],
    );
    assert!(
        said.contains("_ephemerd1") && said.contains("/ephemerd.service"),
        "{said}"
    );
}

#[test]
fn heavy_under_systemd_it_is_installed_upgraded_goes_back_and_is_gone() {
    let machine = Machine::boot();
    let before = paths(&machine);
    installs(&machine);
    takes_a_changed_configuration_and_runs_jobs(&machine);
    reloads_while_a_job_runs(&machine);
    its_log_is_rotated(&machine);
    a_hanging_daemon_is_started_anew(&machine);
    upgrades_when_jobs_have_ended(&machine);
    refuses_an_older_program(&machine);
    goes_back_from_one_that_does_not_run(&machine);
    uninstalls(&machine, &before);
}

fn installs(machine: &Machine) {
    let planned = machine.ends(0, &[PROGRAM, "host", "install", "--dry-run"]);
    assert!(
        planned.contains("would do") && !planned.contains("done"),
        "{planned}"
    );
    assert!(!machine.path("/etc/ephemerd").exists() && !machine.path(UNIT).exists());
    let done = machine.ends(0, &[PROGRAM, "host", "install"]);
    assert!(done.contains("ready: ephemerd"), "{done}");
    machine.ends(0, &["systemctl", "is-enabled", "--quiet", "ephemerd"]);
    machine.ends(0, &["systemctl", "is-active", "--quiet", "ephemerd"]);
    assert_eq!(machine.ends(0, &["systemd-analyze", "verify", UNIT]), "");
    let (unit, pid) = (
        fs::read(machine.path(UNIT)).unwrap(),
        status(machine)["pid"].clone(),
    );
    let again = machine.ends(0, &[PROGRAM, "host", "install"]);
    assert!(
        again.contains("nothing was to be done") && !again.contains("done  "),
        "{again}"
    );
    assert_eq!(fs::read(machine.path(UNIT)).unwrap(), unit);
    assert_eq!(status(machine)["pid"], pid);
}

fn takes_a_changed_configuration_and_runs_jobs(machine: &Machine) {
    // What is wrong is not started again and again.
    fs::write(machine.path("/etc/ephemerd/ephemerd.toml"), "nonsense = 1\n").unwrap();
    let failed = machine.run(&["systemctl", "restart", "ephemerd"]);
    assert!(!failed.status.success());
    machine.ends(3, &["systemctl", "is-active", "--quiet", "ephemerd"]);
    let result = machine.ends(
        0,
        &[
            "systemctl",
            "show",
            "ephemerd",
            "--property",
            "ExecMainStatus,NRestarts,ActiveState",
        ],
    );
    assert_eq!(result, "NRestarts=0\nExecMainStatus=2\nActiveState=failed\n");
    fs::write(machine.path("/etc/ephemerd/ephemerd.toml"), CONFIG).unwrap();
    machine.ends(0, &["systemctl", "restart", "ephemerd"]);
    machine.ends(0, &[INSTALLED, "host", "enable"]);
    runs_a_job(machine);
    let kept = machine.ends(0, &[PROGRAM, "host", "install"]);
    assert!(kept.contains("kept as it is  configuration"), "{kept}");
    assert_eq!(
        fs::read_to_string(machine.path("/etc/ephemerd/ephemerd.toml")).unwrap(),
        CONFIG
    );
}

fn reloads_while_a_job_runs(machine: &Machine) {
    let config = machine.path("/etc/ephemerd/ephemerd.toml");
    let wait = "until [ -e \"$TMPDIR/go\" ]; do sleep 0.1; done";
    let submit = |repo| {
        [
            INSTALLED, "submit", "--repo", repo, "--wait", "--", "sh", "-c", wait,
        ]
    };
    let job = machine.command(&submit("acme/app")).spawn().unwrap();
    wait_for("a running job", || {
        (status(machine)["slots"][0]["state"] == "busy").then_some(())
    });
    let before = status(machine);
    fs::write(
        &config,
        CONFIG
            .replace("slots = 2", "slots = 3")
            .replace("acme/app", "acme/new"),
    )
    .unwrap();
    machine.ends(0, &["systemctl", "reload", "ephemerd"]);
    let after = status(machine);
    assert_eq!(after["pid"], before["pid"]);
    assert_eq!(after["slots"], before["slots"]);
    assert_eq!(
        after["config"]["restart_needed"],
        serde_json::json!(["native.slots"])
    );
    machine.ends(1, &[INSTALLED, "submit", "--repo", "acme/app", "--", "true"]);
    // What is wrong fails the reload and nothing else.
    fs::write(&config, "nonsense = 1\n").unwrap();
    assert!(!machine.run(&["systemctl", "reload", "ephemerd"]).status.success());
    machine.ends(0, &["systemctl", "is-active", "--quiet", "ephemerd"]);
    fs::write(&config, CONFIG).unwrap();
    machine.ends(
        0,
        &[
            "systemctl",
            "kill",
            "--kill-whom=main",
            "--signal=HUP",
            "ephemerd",
        ],
    );
    wait_for("the old configuration", || {
        let config = &status(machine)["config"];
        (config["failed"].is_null() && config["restart_needed"] == serde_json::json!([])).then_some(())
    });
    assert_eq!(status(machine)["pid"], before["pid"]);
    let jobs = machine.path("/var/lib/ephemerd/native");
    let job_folder = jobs.read_dir_utf8().unwrap().next().unwrap().unwrap();
    fs::write(job_folder.path().join("tmp/go"), "").unwrap();
    assert!(job.wait_with_output().unwrap().status.success());
    runs_a_job(machine);
}

/// By logrotate itself, which nobody tells the daemon of.
fn its_log_is_rotated(machine: &Machine) {
    const LOG: &str = "/var/log/ephemerd/ephemerd.log";
    assert!(fs::read_to_string(machine.path(LOG)).unwrap().contains("ready"));
    machine.ends(0, &["logrotate", "--force", "/etc/logrotate.d/ephemerd"]);
    assert!(!machine.path(LOG).exists() && machine.path(&format!("{LOG}.1")).exists());
    machine.ends(0, &["systemctl", "restart", "ephemerd"]);
    // The old daemon's last words are in the new file.
    assert!(
        fs::read_to_string(machine.path(LOG))
            .unwrap()
            .contains("stopping")
    );
}

fn a_hanging_daemon_is_started_anew(machine: &Machine) {
    let folder = Utf8PathBuf::from(format!("{UNIT}.d"));
    fs::create_dir(machine.path(folder.as_str())).unwrap();
    let file = machine.path(folder.join("quick.conf").as_str());
    fs::write(file, "[Service]\nWatchdogSec=1\nRestartSec=0\n").unwrap();
    machine.ends(0, &["systemctl", "daemon-reload"]);
    machine.ends(0, &["systemctl", "restart", "ephemerd"]);
    let pid = status(machine)["pid"].clone();
    let beat = || {
        machine.ends(
            0,
            &[
                "systemctl",
                "show",
                "ephemerd",
                "--property",
                "WatchdogTimestampMonotonic",
            ],
        )
    };
    let first = beat();
    wait_for("a second sign of life", || (beat() != first).then_some(()));
    assert_eq!(status(machine)["pid"], pid);
    machine.ends(0, &["kill", "-STOP", &pid.to_string()]);
    wait_for("another daemon", || {
        let now = status(machine)["pid"].clone();
        (now.is_number() && now != pid).then_some(())
    });
    fs::remove_dir_all(machine.path(folder.as_str())).unwrap();
    machine.ends(0, &["systemctl", "daemon-reload"]);
}

fn upgrades_when_jobs_have_ended(machine: &Machine) {
    put(machine, "/tmp/newer", &newer());
    let planned = machine.ends(0, &[INSTALLED, "host", "upgrade", "--dry-run", "/tmp/newer"]);
    assert!(planned.contains("would replace"), "{planned}");
    let job = machine
        .command(&[
            INSTALLED,
            "submit",
            "--repo",
            "acme/app",
            "--wait",
            "--",
            "sh",
            "-c",
            "until [ -e \"$TMPDIR/go\" ]; do sleep 0.1; done",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("a running job", || {
        (status(machine)["slots"][0]["state"] == "busy").then_some(())
    });
    let upgrade = machine
        .command(&[INSTALLED, "host", "upgrade", "/tmp/newer"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("a drain", || (status(machine)["draining"] == true).then_some(()));
    let jobs = machine.path("/var/lib/ephemerd/native");
    let job_folder = jobs.read_dir_utf8().unwrap().next().unwrap().unwrap();
    fs::write(job_folder.path().join("tmp/go"), "").unwrap();
    let upgraded = upgrade.wait_with_output().unwrap();
    let said = text(&upgraded.stdout) + &text(&upgraded.stderr);
    assert_eq!(upgraded.status.code(), Some(0), "{said}");
    assert!(
        said.contains("draining: 1 running") && said.contains("upgraded from 0.1.0 to 0.2.0"),
        "{said}"
    );
    let job = job.wait_with_output().unwrap();
    assert!(job.status.success(), "{}", text(&job.stderr));
    assert_eq!(status(machine)["version"], "0.2.0");
    assert_eq!(
        fs::read(machine.path("/usr/local/bin/ephemerd.old")).unwrap(),
        fs::read(PROGRAM).unwrap()
    );
    runs_a_job(machine);
}

fn refuses_an_older_program(machine: &Machine) {
    let older = machine.ends(1, &[INSTALLED, "host", "upgrade", PROGRAM]);
    assert!(
        older.contains("older than 0.2.0") && older.contains("hint: --allow-downgrade"),
        "{older}"
    );
    let hash = machine.ends(1, &[INSTALLED, "host", "upgrade", "--sha256", "00", PROGRAM]);
    assert!(hash.contains("its SHA-256 is"), "{hash}");
    machine.ends(1, &[INSTALLED, "host", "upgrade", "/etc/passwd"]);
    let same = machine.ends(0, &[INSTALLED, "host", "upgrade", INSTALLED]);
    assert!(same.contains("nothing was to be done"), "{same}");
    assert!(!machine.path("/usr/local/bin/.ephemerd.new").exists());
}

fn goes_back_from_one_that_does_not_run(machine: &Machine) {
    let jobs = machine.ends(0, &[INSTALLED, "jobs", "--all"]);
    let broken = Utf8PathBuf::try_from(std::env::current_exe().unwrap()).unwrap();
    let broken = broken.ancestors().nth(2).unwrap().join("examples/service-broken");
    assert!(broken.exists(), "{broken} is missing: cargo build --examples");
    machine.ends(0, &[INSTALLED, "drain"]);
    let back = machine.ends(1, &[INSTALLED, "host", "upgrade", broken.as_str()]);
    assert!(
        back.contains("9.0.0 is not ready") && back.contains("not upgraded: 0.2.0 is back"),
        "{back}"
    );
    assert_eq!(status(machine)["version"], "0.2.0");
    // As it was, in what nobody asked to change.
    assert_eq!(status(machine)["draining"], true);
    machine.ends(0, &[INSTALLED, "resume"]);
    assert_eq!(machine.ends(0, &[INSTALLED, "jobs", "--all"]), jobs);
    runs_a_job(machine);
}

fn uninstalls(machine: &Machine, before: &BTreeSet<String>) {
    assert!(machine.ends(0, &["nft", "list", "tables"]).contains("ephemerd"));
    let planned = machine.ends(0, &[INSTALLED, "host", "uninstall", "--dry-run"]);
    assert!(
        planned.contains("would") && !planned.contains("done"),
        "{planned}"
    );
    fs::remove_file(machine.path("/tmp/newer")).unwrap();
    let said = machine.ends(0, &[INSTALLED, "host", "uninstall", "--accounts"]);
    machine.ends(3, &["systemctl", "is-active", "--quiet", "ephemerd"]);
    let tables = machine.ends(0, &["nft", "list", "tables"]);
    assert_eq!(tables, "");
    let accounts = fs::read_to_string(machine.path("/etc/passwd")).unwrap();
    assert!(!accounts.contains("_ephemerd"), "{accounts}");
    // Whatever is there now and was not before is named.
    let named: Vec<&str> = said
        .lines()
        .filter_map(|line| {
            line.strip_prefix("stays")
                .or_else(|| line.strip_prefix("not done"))
        })
        .filter_map(|line| line.split(&[' ', ':'][..]).find(|word| word.starts_with('/')))
        .collect();
    assert!(
        named.contains(&"/var/lib/ephemerd") && named.contains(&"/etc/ephemerd/ephemerd.toml"),
        "{said}"
    );
    let systems = [
        "/var/lib/logrotate",
        "/run/systemd",
        "/var/lib/systemd",
        "/run/log",
        "/etc/passwd-",
        "/etc/group-",
        "/etc/shadow-",
        "/etc/gshadow-",
        "/etc/.pwd.lock",
    ];
    let after = paths(machine);
    let left: Vec<&String> = after
        .difference(before)
        .filter(|path| {
            !named
                .iter()
                .any(|named| path.starts_with(named) || named.starts_with(path.as_str()))
        })
        .filter(|path| !systems.iter().any(|system| path.starts_with(system)))
        .collect();
    assert!(left.is_empty(), "{left:?}\n{said}");
}
