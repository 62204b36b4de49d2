//! Whole jobs on a Mac made of stand-ins, from the account to the clean slot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::stand::{Mac, processes_of};

#[test]
fn a_job_runs_as_its_account_in_its_workspace_and_leaves_nothing() {
    let mac = Mac::with_accounts();
    let (code, out, err) = mac.exec("id -u; id -G; pwd; umask; echo to-stderr >&2; exit 3");
    assert_eq!(code, 3, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], mac.uid.to_string());
    assert_eq!(lines[1], "450", "the one group and no other");
    assert!(lines[2].starts_with(mac.top.join("data/native").as_str()) && lines[2].ends_with("/work"));
    assert_eq!(lines[3], "0077");
    assert_eq!(err, "to-stderr\n");
    assert_eq!(mac.remains(), [""; 0]);
    let sandbox = mac.calls("sandbox-exec");
    let launch = sandbox.last().unwrap();
    assert!(
        launch.starts_with(&format!("-f {}/data/profiles/", mac.top)),
        "{launch}"
    );
    assert!(launch.ends_with("/bin/ephemerd __confined"), "{launch}");
    assert!(mac.calls("chmod").is_empty(), "nothing stood in the way");
}

#[test]
fn a_signal_and_a_program_that_does_not_exist_are_told_as_everywhere() {
    let mac = Mac::with_accounts();
    assert_eq!(mac.exec("kill -9 $$").0, 137);
    assert_eq!(mac.exec("kill -TERM $$").0, 143);
    let output = mac.ephemerd(&["exec", "--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot execute `no-such-program`"));
    let output = mac.ephemerd(&["exec", "--", "/etc/hostname"]);
    assert_eq!(output.status.code(), Some(126));
    assert_eq!(mac.remains(), [""; 0]);
}

#[test]
fn a_job_has_the_session_limits_and_descriptors_it_should_and_no_others() {
    let mac = Mac::with_accounts();
    let (code, out, err) = mac.exec(
        "grep -E 'processes|core file|file size' /proc/self/limits; ls /proc/self/fd | wc -l; ps -o sid= -p $$; echo $$",
    );
    assert_eq!(code, 0, "{err}");
    let lines: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0][..5],
        ["Max", "file", "size", "32212254720", "32212254720"]
    );
    assert_eq!(lines[1][..6], ["Max", "core", "file", "size", "0", "0"]);
    assert_eq!(lines[2][..4], ["Max", "processes", "2048", "2048"]);
    // Standard input, output, error, and the folder that ls reads.
    assert_eq!(lines[3], ["4"]);
    assert_eq!(lines[4], lines[5], "a session of its own");
}

#[test]
fn the_environment_keeps_tools_inside_and_names_the_developer_folder() {
    let mac = Mac::with_accounts();
    let (_, out, _) = mac.exec("env; command -v swift; command -v xcodebuild");
    let value = |name: &str| {
        let prefix = format!("{name}=");
        out.lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        value("DEVELOPER_DIR"),
        "/Applications/Xcode.app/Contents/Developer"
    );
    assert_eq!(value("CFFIXED_USER_HOME"), value("HOME"));
    assert!(value("xcrun_db").starts_with(&value("TMPDIR")), "{out}");
    assert!(
        value("PATH").starts_with(&value("HOME").replace("/home", "/shims:")),
        "{out}"
    );
    assert_eq!(
        out.lines().filter(|line| line.ends_with("/shims/swift")).count(),
        1
    );
    assert_eq!(
        out.lines()
            .filter(|line| line.ends_with("/shims/xcodebuild"))
            .count(),
        1
    );
}

#[test]
fn a_mac_without_developer_tools_runs_jobs_and_says_so() {
    let mac = Mac::with_accounts();
    fs::remove_file(mac.top.join("state/developer-dir")).unwrap();
    let (code, out, err) = mac.exec("echo [$DEVELOPER_DIR]");
    assert_eq!((code, out.as_str()), (0, "[]\n"));
    assert!(
        err.contains("no developer folder is selected") && err.contains("xcode-select --install"),
        "{err}"
    );
}

#[test]
fn a_job_finds_one_keychain_which_is_its_own_unlocked_and_never_named_with_its_password() {
    let mac = Mac::with_accounts();
    let security = mac.top.join("bin/security");
    let (code, out, err) = mac.exec(&format!(
        "{security} list-keychains -d user; {security} default-keychain -d user; echo $EPHEMERD_KEYCHAIN $EPHEMERD_KEYCHAIN_PASSWORD; \
         {security} unlock-keychain -p $EPHEMERD_KEYCHAIN_PASSWORD $EPHEMERD_KEYCHAIN; stat -c '%U:%a' $HOME/Library/Keychains"
    ));
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    let (file, password) = lines[2].split_once(' ').unwrap();
    assert!(
        file.ends_with("/home/Library/Keychains/login.keychain-db"),
        "{file}"
    );
    assert_eq!(lines[0], format!("    \"{file}\""));
    assert_eq!(lines[1], lines[0]);
    assert!(lines[3].ends_with(":700"));
    assert_eq!(password.len(), 32);
    // All but the one that the job itself made.
    let named = mac
        .calls("security")
        .iter()
        .filter(|call| call.contains(password))
        .count();
    assert_eq!(named, 1);
    let again = mac.exec("echo $EPHEMERD_KEYCHAIN_PASSWORD").1;
    assert_ne!(again.trim(), password, "every job has another");
}

#[test]
fn the_sandbox_closes_profiles_and_daemon_state_that_modes_leave_open() {
    let mac = Mac::with_accounts();
    mac.exec("true");
    fs::write(mac.top.join("data/run/open"), "x").unwrap();
    let top = &mac.top;
    let (code, _, err) = mac.exec(&format!(
        "cat {top}/data/profiles/$EPHEMERD_JOB_ID.sb && exit 90; cat {top}/data/run/open && exit 91; \
         echo x > $TMPDIR/file && cat $TMPDIR/file"
    ));
    assert_eq!(code, 0, "{err}");
    assert_eq!(err.matches("Permission denied").count(), 2, "{err}");
}

#[test]
fn what_macos_keeps_per_account_goes_with_the_job() {
    let mac = Mac::with_accounts();
    let domain = format!("user/{}", mac.uid);
    mac.write_state("domains", &json!([domain, "user/501"]));
    mac.write_state(
        "ipc",
        &json!([
            ["m", "65536", mac.uid.to_string()],
            ["s", "7", "_ephemerd1"],
            ["q", "9", "root"]
        ]),
    );
    mac.fail(
        "launchctl",
        "bootout",
        3,
        &json!({"code": 36, "stderr": "Boot-out failed: 36: Operation now in progress"}),
    );
    let user_folder = mac.top.join(format!("folders/zz/of{}", mac.uid));
    let (code, _, err) = mac.exec(&format!(
        "mkdir -p {user_folder}/T/deep && echo x > {user_folder}/T/deep/file; setsid sleep 1000 & sleep 0.2; exit 0"
    ));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(mac.remains(), [""; 0]);
    assert_eq!(mac.state("domains"), json!(["user/501"]));
    assert_eq!(mac.state("ipc"), json!([["q", "9", "root"]]));
    let calls = mac.calls("launchctl");
    assert_eq!(calls.iter().filter(|call| call.starts_with("bootout")).count(), 4);
    assert_eq!(
        calls.last().unwrap(),
        &format!("print {domain}"),
        "verified afterwards"
    );
}

/// Starts a job in the background and waits until it runs.
fn background(mac: &Mac, script: &str) -> std::process::Child {
    let child = Command::new(mac.top.join("bin/ephemerd"))
        .arg("--config")
        .arg(mac.top.join("ephemerd.toml"))
        .args(["exec", "--", "/bin/sh", "-c", script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mark = mac.top.join("shared/started");
    until("the job runs", || mark.exists());
    fs::remove_file(mark).unwrap();
    child
}

pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn pid(child: &std::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

#[test]
fn a_cancelled_job_is_asked_first_and_killed_after_that() {
    let mac = Mac::with_accounts();
    let shared = mac.top.join("shared");
    let script = format!(
        "trap 'echo asked > $HOME/../work/asked; cp $HOME/../work/asked {shared}/asked; exit 5' TERM; echo > {shared}/started; sleep 1000 & wait"
    );
    let mut child = background(&mac, &script);
    kill(pid(&child), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert!(shared.join("asked").exists());
    assert!(processes_of(mac.uid).is_empty());
}

#[test]
fn a_job_dies_with_a_killed_daemon_and_the_next_start_clears_up() {
    let mac = Mac::with_accounts();
    let shared = mac.top.join("shared");
    let mut child = background(&mac, &format!("echo > {shared}/started; sleep 1000; true"));
    kill(pid(&child), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    until("the guard has killed the job", || {
        processes_of(mac.uid).is_empty()
    });
    let left = mac.remains();
    assert!(left.iter().any(|path| path.ends_with(".sb")), "{left:?}");
    assert!(left.iter().any(|path| path.contains("/data/native/")), "{left:?}");
    let (code, _, err) = mac.exec("true");
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("recovered job") && err.contains(": clean"), "{err}");
    assert_eq!(mac.remains(), [""; 0]);
}

/// A daemon that trusts a repository, and a command that hands it a job of that.
fn daemon(mac: &Mac) -> std::process::Child {
    let config = mac.top.join("ephemerd.toml");
    let text = fs::read_to_string(&config).unwrap() + "[trust.repos]\n\"acme/ios\" = \"native\"\n";
    fs::write(&config, text).unwrap();
    Command::new(mac.top.join("bin/ephemerd"))
        .args(["--config", config.as_str(), "run"])
        .stderr(fs::File::create(mac.top.join("log")).unwrap())
        .spawn()
        .unwrap()
}

/// The dispatcher of a daemon, once it is there.
fn dispatcher(daemon: Pid) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).ok()?;
    let mut children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    let is_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // Before that it is the program that makes its sandbox.
        line.ends_with(b"\0__dispatch\0") && !line.windows(9).any(|word| word == b"(version ")
    };
    children.find(is_it).map(Pid::from_raw)
}

#[test]
fn a_job_goes_on_when_the_dispatcher_of_a_daemon_is_killed_which_is_in_a_sandbox_of_its_own() {
    let mac = Mac::with_accounts();
    // As under launchd, whose umask leaves others nothing.
    let run = mac.host.run.join("ephemerd");
    fs::create_dir_all(&run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
    let mut daemon = daemon(&mac);
    until("the daemon listens", || {
        mac.top.join("data/run/ephemerd.sock").exists()
    });
    assert_eq!(fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o755);
    let shared = mac.top.join("shared");
    let script = format!(
        "echo > {shared}/started; while [ ! -e {shared}/go ]; do sleep 0.02; done; rm {shared}/started; exit 7"
    );
    let submitted = mac.ephemerd(&["submit", "--repo", "acme/ios", "--", "/bin/sh", "-c", &script]);
    let job = String::from_utf8(submitted.stdout).unwrap().trim().to_owned();
    until("the job runs", || shared.join("started").exists());
    let first = dispatcher(pid(&daemon)).unwrap();
    kill(first, Signal::SIGKILL).unwrap();
    until("another dispatcher", || {
        dispatcher(pid(&daemon)).is_some_and(|next| next != first)
    });
    let status = String::from_utf8(mac.ephemerd(&["status"]).stdout).unwrap();
    assert!(
        status.contains("dispatcher: as _ephemerd, behind Seatbelt; 1 before it were killed"),
        "{status}"
    );
    fs::write(shared.join("go"), "").unwrap();
    until("the end of the job", || {
        let shown = mac.ephemerd(&["jobs", "show", &job]);
        String::from_utf8(shown.stdout).unwrap().contains("exit 7")
    });
    fs::remove_file(shared.join("go")).unwrap();
    kill(pid(&daemon), Signal::SIGTERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert_eq!(mac.remains(), [""; 0]);
}

#[test]
fn a_dispatcher_whose_sandbox_does_not_apply_ends_and_no_daemon_is_there() {
    let mac = Mac::with_accounts();
    fs::write(mac.top.join("state/sandbox"), "pretend-dispatcher").unwrap();
    let mut daemon = daemon(&mac);
    assert_eq!(daemon.wait().unwrap().code(), Some(1));
    let log = fs::read_to_string(mac.top.join("log")).unwrap();
    assert!(log.contains("the dispatcher's sandbox does not apply"), "{log}");
    assert!(!mac.top.join("data/run/ephemerd.sock").exists());
}

#[test]
fn a_daemon_runs_jobs_and_sweeps_profiles_that_no_ledger_knows() {
    let mac = Mac::with_accounts();
    mac.exec("true");
    let forgotten = mac.top.join("data/profiles/0a1b2c3d4e5.sb");
    fs::write(&forgotten, "(version 1)").unwrap();
    let mut daemon = daemon(&mac);
    until("the forgotten profile is gone", || !forgotten.exists());
    let args = [
        "submit",
        "--wait",
        "--repo",
        "acme/ios",
        "--",
        "/bin/sh",
        "-c",
        "id -u; exit 4",
    ];
    let output = mac.ephemerd(&args);
    assert_eq!(
        output.status.code(),
        Some(4),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    kill(pid(&daemon), Signal::SIGTERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert_eq!(mac.remains(), [""; 0]);
}
