//! Use without root: user namespace and Landlock still hold, what is missing is reported, and nothing runs
//! unless its owner has said that less is enough.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Output;

use crate::harness::{PROGRAM, Site, command, err, out, said};

/// A user with no rights at all.
const NOBODY: u32 = 65534;

/// A place that belongs to nobody.
fn place(more: &str) -> Site {
    let site = Site::new(more);
    let top = site.top.join("nobody");
    fs::create_dir(&top).unwrap();
    fs::set_permissions(&top, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&top, Some(NOBODY), Some(NOBODY)).unwrap();
    let text = fs::read_to_string(&site.config).unwrap();
    fs::write(
        &site.config,
        text.replace(site.data_dir.as_str(), top.join("data").as_str()),
    )
    .unwrap();
    site
}

fn as_nobody(site: &Site, args: &[&str]) -> Output {
    let program = site.copy(PROGRAM.into(), "ephemerd");
    command("setpriv")
        .args([
            &format!("--reuid={NOBODY}"),
            &format!("--regid={NOBODY}"),
            "--clear-groups",
            "--no-new-privs",
            program.as_str(),
            "--config",
        ])
        .arg(&site.config)
        .args(args)
        .output()
        .unwrap()
}

const ALLOWED: &str = "[native]\nallow_degraded = [\"accounts\", \"limits\"]\n";

#[test]
fn without_permission_to_run_degraded_nothing_runs() {
    let site = place("");
    let output = as_nobody(&site, &["exec", "--report", "--", "sh", "-c", "echo ran"]);
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    assert_eq!(out(&output), "");
    let text = err(&output);
    assert!(
        text.contains("axis `accounts` is absent: not started as root"),
        "{text}"
    );
    assert!(
        text.contains("\nhint: run as root, or name `accounts` in native.allow_degraded"),
        "{text}"
    );
    assert!(
        text.contains("accounts     ABSENT"),
        "the report comes all the same: {text}"
    );
    let run = as_nobody(&site, &["run"]);
    assert_eq!(run.status.code(), Some(3), "{}", said(&run));
    assert_eq!(
        fs::read_dir(site.top.join("nobody")).unwrap().count(),
        0,
        "nothing half-made"
    );
}

#[test]
fn runs_fenced_by_user_namespace_and_landlock_and_reports_what_is_missing() {
    let site = place(ALLOWED);
    for posture in ["strict", "standard"] {
        let script = "id -u; ls /proc | grep -c '^[0-9]'; cat /etc/shadow; ls -A /root; cat /proc/self/uid_map; hostname; echo x > $HOME/file && echo wrote";
        let output = as_nobody(
            &site,
            &["exec", "--posture", posture, "--report", "--", "sh", "-c", script],
        );
        assert!(output.status.success(), "{posture}: {}", said(&output));
        let text = out(&output);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], NOBODY.to_string(), "{text}");
        assert!(!text.contains("root:"), "{text}");
        assert!(
            lines[1].parse::<u32>().is_ok_and(|count| count <= 5),
            "only its own processes: {text}"
        );
        assert!(text.ends_with("ephemerd\nwrote\n"), "{text}");
        for line in [
            "accounts     ABSENT",
            "limits       DEGRADED",
            "filesystem   enforced",
            "processes    enforced",
            "network      enforced",
        ] {
            assert!(err(&output).contains(line), "{line}: {}", said(&output));
        }
    }
    assert_eq!(
        fs::read_dir(site.top.join("nobody/data/native")).unwrap().count(),
        0
    );
}

#[test]
fn every_probe_holds_without_root_too() {
    let site = place(ALLOWED);
    let output = as_nobody(&site, &["profile", "verify", "--format", "json"]);
    let verified: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let broken: Vec<_> = verified
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|posture| posture["probes"].as_array().unwrap())
        .filter(|report| ["broken", "hampered"].contains(&report["verdict"].as_str().unwrap()))
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn a_workspace_that_took_away_its_own_permissions_is_removed_all_the_same() {
    let site = place(ALLOWED);
    let script = "mkdir -p a/b && touch a/b/f && chmod 0 a/b/f a/b a && chmod 0 ../home ../tmp";
    let output = as_nobody(&site, &["exec", "--", "sh", "-c", script]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        fs::read_dir(site.top.join("nobody/data/native")).unwrap().count(),
        0
    );
}
