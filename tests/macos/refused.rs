//! Jobs that a Mac cannot fence in, and slots that a job did not leave clean: what is said, and what is left.

use std::fs;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use crate::stand::Mac;

/// Runs a job that must not start: its error. Nothing of it ran, and nothing is left.
fn refused(mac: &Mac) -> String {
    let ran = mac.top.join("shared/ran");
    let (code, out, err) = mac.exec(&format!("echo ran > {ran}; echo ran"));
    assert_eq!((code, out.as_str()), (125, ""), "{err}");
    assert!(!ran.exists(), "the command ran all the same");
    assert_eq!(mac.remains(), [""; 0], "{err}");
    err
}

fn misbehave(mac: &Mac, mode: &str) {
    fs::write(mac.top.join("state/sandbox"), mode).unwrap();
}

#[test]
fn a_sandbox_that_is_not_applied_is_noticed_before_anything_runs() {
    let mac = Mac::with_accounts();
    misbehave(&mac, "pretend");
    let error = refused(&mac);
    assert!(
        error.contains("sandbox step `proof` failed: the sandbox does not hold"),
        "{error}"
    );
    assert!(error.contains("can still be read"), "{error}");
}

#[test]
fn a_profile_that_macos_refuses_is_told_with_what_it_said() {
    let mac = Mac::with_accounts();
    misbehave(&mac, "older");
    let error = refused(&mac);
    assert!(
        error.contains("sandbox step `sandbox` failed: sandbox-exec refuses the profile (65)"),
        "{error}"
    );
    assert!(
        error.contains("\n  sandbox-exec:") && error.contains("hint: `ephemerd profile lint`"),
        "{error}"
    );
}

#[test]
fn a_sandbox_that_cannot_be_applied_is_told_as_nesting() {
    let mac = Mac::with_accounts();
    misbehave(&mac, "nested");
    let error = refused(&mac);
    assert!(error.contains("(71): this process is in one already"), "{error}");
    assert!(
        error.contains("sandbox_apply: Operation not permitted"),
        "{error}"
    );
}

#[test]
fn a_daemon_inside_a_sandbox_starts_no_job_and_names_the_axis() {
    let mac = Mac::with_accounts();
    let program = mac.top.join("bin/ephemerd");
    let config = mac.top.join("ephemerd.toml");
    let output = std::process::Command::new(mac.top.join("bin/sandbox-exec"))
        .args([
            "-p",
            "(version 1)(allow default)",
            program.as_str(),
            "--config",
            config.as_str(),
        ])
        .args(["exec", "--", "/bin/true"])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{error}");
    assert!(
        error.contains("axis `filesystem` is absent: sandbox-exec cannot apply a profile"),
        "{error}"
    );
    assert!(error.contains("start ephemerd from launchd"), "{error}");
}

#[test]
fn a_mac_whose_jobs_would_share_an_account_runs_none() {
    let mac = Mac::with_accounts();
    let config = mac.top.join("ephemerd.toml");
    let axes = "allow_degraded = [\"accounts\", \"processes\", \"ipc\", \"limits\", \"network\"]";
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("allow_degraded = [\"ipc\"]", axes);
    fs::write(&config, text + "accounts = \"single\"\n").unwrap();
    let error = refused(&mac);
    assert!(
        error.contains("axis `credentials` is degraded: jobs share one uid"),
        "{error}"
    );
}

#[test]
fn a_sandbox_inside_of_a_job_is_refused_as_on_a_mac() {
    let mac = Mac::with_accounts();
    let inner = mac.top.join("bin/sandbox-exec");
    let (code, _, err) = mac.exec(&format!("{inner} -p '(version 1)(allow default)' /bin/true"));
    assert_eq!(code, 71);
    assert!(err.contains("sandbox_apply: Operation not permitted"), "{err}");
}

#[test]
fn a_program_that_the_account_may_not_execute_is_told_as_such() {
    let mac = Mac::with_accounts();
    let mut perms = fs::metadata(mac.top.join("bin/sandbox-exec"))
        .unwrap()
        .permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut perms, 0o700);
    // Its own copy, because the file may be shared with other tests.
    let own = mac.top.join("bin/own");
    fs::copy(mac.top.join("bin/sandbox-exec"), &own).unwrap();
    fs::set_permissions(&own, perms).unwrap();
    let mut mac = mac;
    mac.host.mac.sandbox_exec = own;
    mac.write_host();
    let error = refused(&mac);
    assert!(
        error.contains("sandbox step `sandbox` failed") && error.contains("EACCES"),
        "{error}"
    );
}

#[test]
fn without_a_keychain_a_job_does_not_start() {
    let mac = Mac::with_accounts();
    let failed = json!({"code": 51, "stderr": "security: SecKeychainUnlock <NULL>: The user name or passphrase you entered is not correct."});
    mac.fail("security", "-i", 1, &failed);
    let error = refused(&mac);
    assert!(
        error.contains("sandbox step `keychain` failed: security create-keychain: exit status: 51"),
        "{error}"
    );
    assert!(error.contains("(the password is wrong)"), "{error}");

    let elsewhere = json!({"code": 0, "stdout": "    \"/Library/Keychains/System.keychain\"\n"});
    let asked = "list-keychains -d user";
    mac.fail("security", asked, 2, &elsewhere);
    let error = refused(&mac);
    assert!(
        error.contains("says `\"/Library/Keychains/System.keychain\"`"),
        "{error}"
    );
    assert!(error.contains("which session the job is in"), "{error}");
}

/// Runs a job after which its slot must be in quarantine, for a reason with `what` in it, and what is said then.
fn quarantined(mac: &Mac, script: &str, what: &str) {
    let (code, _, err) = mac.exec(script);
    assert_eq!(code, 0, "the job keeps its outcome: {err}");
    assert!(
        err.contains("slot 1 is in quarantine") && err.contains(what),
        "{err}"
    );
    let (code, _, err) = mac.exec("true");
    assert_eq!(code, 125);
    assert!(err.contains("every slot is in quarantine"), "{err}");
}

#[test]
fn a_launchd_domain_that_stays_takes_the_slot_out_of_use() {
    let mac = Mac::with_accounts();
    mac.write_state("domains", &json!([format!("user/{}", mac.uid)]));
    let refused =
        json!({"code": 125, "stderr": "Boot-out failed: 125: Domain does not support specified action"});
    mac.fail("launchctl", "bootout", 1, &refused);
    quarantined(&mac, "true", &format!("launchd domain user/{}", mac.uid));
}

#[test]
fn a_domain_that_never_finishes_going_away_is_not_waited_for_forever() {
    let mac = Mac::with_accounts();
    let busy = json!({"code": 36, "stderr": "Boot-out failed: 36: Operation now in progress"});
    mac.fail("launchctl", "bootout", 100, &busy);
    quarantined(&mac, "true", "is still going away");
}

#[test]
fn a_domain_that_cannot_be_asked_for_is_not_taken_for_none() {
    let mac = Mac::with_accounts();
    let denied = json!({"code": 1, "stderr": "Operation not permitted"});
    mac.fail("launchctl", "print", 100, &denied);
    quarantined(
        &mac,
        "true",
        &format!("cannot ask for launchd domain user/{}", mac.uid),
    );
}

#[test]
fn a_list_of_objects_that_names_no_owners_takes_the_slot_out_of_use() {
    let mac = Mac::with_accounts();
    let other =
        json!({"code": 0, "stdout": "T     ID     KEY        MODE\nm  65536 0x00000000 --rw-------\n"});
    mac.fail("ipcs", "", 100, &other);
    quarantined(&mac, "true", "does not say who owns what it lists");
}

#[test]
fn an_object_that_cannot_be_removed_and_a_file_in_a_shared_place_are_named() {
    let mac = Mac::with_accounts();
    mac.write_state("ipc", &json!([["s", "7", "_ephemerd1"]]));
    mac.fail(
        "ipcrm",
        "-s 7",
        1,
        &json!({"code": 1, "stderr": "ipcrm: semid(7): Operation not permitted"}),
    );
    quarantined(&mac, "true", "semaphores 7");

    let mac = Mac::with_accounts();
    let left = mac.top.join("shared/left");
    quarantined(&mac, &format!("echo x > {left}"), &format!("file {left}"));
}

/// Runs a job in whose workspace something appears that no removal gets over, as an access control list may be on a
/// Mac; the workspace, and what was said.
fn job_with_something_that_stays(mac: &Mac) -> (String, String) {
    let ready = mac.top.join("shared/ready");
    let go = mac.top.join("shared/go");
    let script = format!("mkdir hole; pwd > {ready}; while [ ! -e {go} ]; do sleep 0.02; done; rm {ready}");
    std::thread::scope(|scope| {
        let job = scope.spawn(|| mac.exec(&script));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while fs::read_to_string(&ready).unwrap_or_default().is_empty() {
            assert!(std::time::Instant::now() < deadline, "the job does not run");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let work = fs::read_to_string(&ready).unwrap().trim().to_owned();
        mount_on(&format!("{work}/hole"));
        fs::write(&go, "").unwrap();
        let (code, _, err) = job.join().unwrap();
        assert_eq!(code, 0, "{err}");
        (work.strip_suffix("/work").unwrap().to_owned(), err)
    })
}

fn mount_on(folder: &str) {
    mount(
        Some("none"),
        folder,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
}

fn unmount(folder: &str) {
    umount2(folder, MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn access_control_lists_are_taken_off_by_the_account_where_something_stays() {
    let mac = Mac::with_accounts();
    let (workspace, err) = job_with_something_that_stays(&mac);
    assert!(
        err.contains("slot 1 is in quarantine") && err.contains("is a mount point"),
        "{err}"
    );
    assert_eq!(mac.calls("chmod"), [format!("-RN {workspace}")]);
    let callers = fs::read_to_string(mac.top.join("state/callers")).unwrap();
    assert_eq!(callers, format!("chmod {}\n", mac.uid), "and by nobody else");
    unmount(&format!("{workspace}/work/hole"));
}

#[test]
fn nobody_goes_by_path_through_a_tree_that_no_ledger_knows() {
    let mac = Mac::with_accounts();
    mac.exec("true");
    let hole = mac.top.join("data/native/0a1b2c3d4e5/hole");
    fs::create_dir_all(&hole).unwrap();
    mount_on(hole.as_str());
    let mut daemon = std::process::Command::new(mac.top.join("bin/ephemerd"))
        .args(["--config", mac.top.join("ephemerd.toml").as_str(), "run"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !mac.top.join("data/run/ephemerd.sock").exists() {
        assert!(std::time::Instant::now() < deadline, "the daemon does not listen");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    daemon.wait().unwrap();
    assert!(hole.exists(), "it was swept as far as possible");
    assert_eq!(mac.calls("chmod"), [""; 0]);
    unmount(hole.as_str());
}

#[test]
fn a_release_that_nobody_knows_profiles_for_runs_no_jobs() {
    let mac = Mac::with_accounts();
    mac.write_state("version", &json!("99.1"));
    let (code, _, err) = mac.exec("true");
    assert_eq!(code, 125);
    assert!(
        err.contains("macOS 99.1 is not known to this version of ephemerd"),
        "{err}"
    );
}
