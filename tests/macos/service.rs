//! The service on a Mac made of stand-ins: launchd starts what the property list says, which python reads.

use std::fs;
use std::process::Output;

use ephemerd::host::{Host, Os};
use serde_json::Value;

use crate::stand::Mac;

/// A Mac on which the program that is installed is a Mac's, too, and whose launchd ends with it.
struct Site(Mac);

impl Site {
    fn new() -> Self {
        let mac = Mac::new();
        for folder in ["local/bin", "daemons", "newsyslog.d"] {
            fs::create_dir_all(mac.top.join(folder)).unwrap();
        }
        // It looks for what it is beside itself; so does a copy of it that is asked for its version.
        fs::copy(mac.top.join("bin/host.json"), mac.top.join("local/bin/host.json")).unwrap();
        let data = mac.top.join("data");
        let config = format!(
            "[host]\ndata_dir = \"{data}\"\nmanifest = \"none\"\n[egress]\nmode = \"offline\"\n[native]\nslots = 1\nallow_degraded = [\"ipc\"]\n"
        );
        fs::write(mac.top.join("ephemerd.toml"), config).unwrap();
        Self(mac)
    }

    #[track_caller]
    fn ends(&self, code: i32, args: &[&str]) -> String {
        let output: Output = self.0.ephemerd(args);
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        let errors = fs::read_to_string(self.0.top.join("log/ephemerd.err")).unwrap_or_default();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}\n{errors}");
        said
    }

    fn status(&self) -> Value {
        let output = self.0.ephemerd(&["status", "--format", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self
            .0
            .command("launchctl")
            .args(["bootout", "system/dev.ephemerd"])
            .output();
    }
}

#[test]
fn it_is_installed_upgraded_goes_back_and_is_gone() {
    let site = Site::new();
    let mac = &site.0;
    let (program, plist) = (
        mac.host.service.program.clone(),
        mac.top.join("daemons/dev.ephemerd.plist"),
    );
    let planned = site.ends(0, &["host", "install", "--dry-run"]);
    assert!(planned.contains("would do") && !plist.exists(), "{planned}");

    // launchd says no for a while after an end; that is not taken for an answer.
    mac.fail(
        "launchctl",
        "bootstrap",
        2,
        &serde_json::json!({"code": 5, "stderr": "Bootstrap failed: 5: Input/output error"}),
    );
    let done = site.ends(0, &["host", "install"]);
    assert!(done.contains("ready: ephemerd"), "{done}");
    assert_eq!(mac.state("services")["dev.ephemerd"], "running");
    assert!(mac.state("records")["Users"]["_ephemerd1"].is_object());
    let log = fs::read_to_string(mac.top.join("log/ephemerd.log")).unwrap();
    assert!(log.contains("ready"), "{log}");
    // By another name of the same configuration, from another place.
    let again = mac
        .command("ephemerd")
        .current_dir(&mac.top)
        .args(["--config", "ephemerd.toml", "host", "install"])
        .output();
    let again = String::from_utf8(again.unwrap().stderr).unwrap();
    assert!(again.contains("nothing was to be done"), "{again}");

    // The same program with another hash: what is behind the end of a program is nothing to its loader.
    let newer = mac.top.join("newer");
    let bytes = [fs::read(&program).unwrap(), b"newer".to_vec()].concat();
    fs::write(&newer, &bytes).unwrap();
    let pid = site.status()["pid"].clone();
    let upgraded = site.ends(0, &["host", "upgrade", newer.as_str()]);
    assert!(upgraded.contains("upgraded from"), "{upgraded}");
    assert_eq!(fs::read(&program).unwrap(), bytes);
    assert!(site.status()["pid"].is_number() && site.status()["pid"] != pid);

    let broken = mac.top.join("bin/ephemerd").canonicalize_utf8().unwrap();
    let broken = broken.with_file_name("service-broken");
    fs::copy(crate::stand::examples().join("service-broken"), &broken).unwrap();
    let back = site.ends(1, &["host", "upgrade", "--ready-within", "1s", broken.as_str()]);
    assert!(
        back.contains("9.0.0 is not ready") && back.contains("is back, with its ledger"),
        "{back}"
    );
    assert_eq!(fs::read(&program).unwrap(), bytes);
    assert!(site.status()["pid"].is_number());

    let gone = site.ends(0, &["host", "uninstall", "--accounts"]);
    assert_eq!(mac.state("services"), serde_json::json!({}));
    assert!(!plist.exists() && !program.exists(), "{gone}");
    assert!(!mac.top.join("local/bin/ephemerd.old").exists());
    assert!(
        mac.top
            .join("newsyslog.d")
            .read_dir_utf8()
            .unwrap()
            .next()
            .is_none()
    );
    let records = mac.state("records");
    assert!(records["Users"]["_ephemerd1"].is_null() && records["Groups"]["_ephemerd"].is_null());
    for stays in [
        mac.top.join("data"),
        mac.top.join("log"),
        mac.top.join("ephemerd.toml"),
    ] {
        assert!(gone.contains(&format!("{stays}: ")), "{stays}: {gone}");
    }
    let nothing = site.ends(0, &["host", "uninstall", "--accounts"]);
    assert!(!nothing.contains("done"), "{nothing}");
}

#[test]
fn accounts_that_were_there_before_are_nobodys_to_delete() {
    let site = Site::new();
    site.ends(0, &["host", "setup"]);
    site.ends(0, &["host", "install"]);
    site.ends(0, &["host", "uninstall", "--accounts"]);
    assert!(site.0.state("records")["Users"]["_ephemerd1"].is_object());
}

#[test]
fn an_installation_that_failed_halfway_goes_on_there_or_is_taken_back() {
    let site = Site::new();
    let mac = &site.0;
    let how = serde_json::json!({"code": 5, "stderr": "Bootstrap failed: 5: Input/output error"});
    mac.fail("launchctl", "bootstrap", 1000, &how);
    let failed = site.ends(1, &["host", "install"]);
    assert!(
        failed.contains("could not do step `service`") && failed.contains("hint: "),
        "{failed}"
    );
    mac.fail("launchctl", "bootstrap", 0, &how);
    site.ends(0, &["host", "install"]);
    site.ends(0, &["host", "uninstall"]);

    mac.fail("launchctl", "bootstrap", 1000, &how);
    site.ends(1, &["host", "install"]);
    let planned = site.ends(0, &["host", "uninstall", "--dry-run"]);
    assert!(
        planned.contains("would") && mac.host.service.program.exists(),
        "{planned}"
    );
    let gone = site.ends(0, &["host", "uninstall"]);
    assert!(gone.contains("without --accounts"), "{gone}");
    assert!(!mac.host.service.program.exists());
    assert!(mac.top.join("daemons").read_dir_utf8().unwrap().next().is_none());
}

#[test]
fn without_a_service_manager_nothing_is_done_and_it_says_what_to_do() {
    let site = Site::new();
    let linux = Host {
        os: Os::Linux,
        run: site.0.top.join("run"),
        ..site.0.host.clone()
    };
    let text = serde_json::to_vec(&linux).unwrap();
    fs::write(site.0.top.join("bin/host.json"), text).unwrap();
    let said = site.ends(3, &["host", "install"]);
    assert!(
        said.contains("no service manager") && said.contains("hint: `ephemerd host setup`"),
        "{said}"
    );
    assert!(!site.0.top.join("data").exists());
}

/// Whatever a step did is on disk, and that it was done is not.
#[test]
fn a_step_whose_end_was_not_written_down_is_found_and_can_still_be_taken_back() {
    let site = Site::new();
    site.ends(0, &["host", "install"]);
    let file = site.0.top.join("data/host/install.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let last = text.trim_end().rfind('\n').unwrap();
    // A line that was not finished, too.
    fs::write(&file, &text[..last + 10]).unwrap();
    let again = site.ends(0, &["host", "install"]);
    assert!(again.contains("nothing was to be done"), "{again}");
    assert!(fs::read_to_string(&file).unwrap().contains("found"));
    site.ends(0, &["host", "uninstall"]);
    assert_eq!(site.0.state("services"), serde_json::json!({}));
}

#[test]
fn an_upgrade_that_was_killed_is_taken_back_by_the_next_which_then_goes_on() {
    let site = Site::new();
    let mac = &site.0;
    site.ends(0, &["host", "install"]);
    let program = &mac.host.service.program;
    let first = fs::read(program).unwrap();
    let broken = crate::stand::examples().join("service-broken");
    let mut upgrade = mac
        .program(&["host", "upgrade", "--ready-within", "1h", broken.as_str()])
        .spawn()
        .unwrap();
    let broken = fs::read(broken).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while fs::read(program).unwrap() != broken || mac.state("services") == serde_json::json!({}) {
        assert!(
            std::time::Instant::now() < deadline,
            "the program is not replaced"
        );
        std::thread::yield_now();
    }
    upgrade.kill().unwrap();
    upgrade.wait().unwrap();
    assert!(mac.top.join("data/host/upgrade.json").exists());

    let newer = mac.top.join("newer");
    fs::write(&newer, [first, b"newer".to_vec()].concat()).unwrap();
    let said = site.ends(0, &["host", "upgrade", newer.as_str()]);
    assert!(
        said.contains("was interrupted: going back to") && said.contains("upgraded from"),
        "{said}"
    );
    assert_eq!(fs::read(program).unwrap(), fs::read(&newer).unwrap());
    assert!(!mac.top.join("data/host/upgrade.json").exists());
    site.ends(0, &["host", "uninstall", "--accounts"]);
    assert!(!program.exists());
}
