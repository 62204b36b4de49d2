//! The whole of `provision` on a Mac made of stand-ins: the check, putting it right, and taking that back.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::fake::{FakeHomebrew, Repository};
use crate::stand::Mac;

/// A Mac that has everything that `macos-base` says.
fn mac() -> Mac {
    let mac = Mac::with_accounts();
    FakeHomebrew::make(&mac.host.homebrew, Repository::Prefix);
    mac
}

fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Verdicts by item, and how the check ended.
fn verdicts(mac: &Mac, manifest: &str) -> (Vec<(String, String)>, Option<i32>) {
    let output = mac.ephemerd(&["provision", "--manifest", manifest, "--format", "json"]);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let lines = report["items"].as_array().unwrap();
    let items = lines
        .iter()
        .map(|line| {
            let id = format!("{} {}", text(line, "section"), text(line, "name"));
            (id, text(line, "verdict"))
        })
        .collect();
    (items, output.status.code())
}

/// The items that are not as they must be.
fn unmet(mac: &Mac, manifest: &str) -> Vec<(String, String)> {
    let is_met = |verdict: &str| ["ok", "not-here"].contains(&verdict);
    let (verdicts, _) = verdicts(mac, manifest);
    verdicts
        .into_iter()
        .filter(|(_, verdict)| !is_met(verdict))
        .collect()
}

fn pair(id: &str, verdict: &str) -> (String, String) {
    (id.to_owned(), verdict.to_owned())
}

fn manifest(mac: &Mac, items: &str) -> String {
    let path = mac.top.join("m.toml");
    fs::write(&path, format!("version = 1\nos = \"macos\"\n{items}")).unwrap();
    path.into_string()
}

#[test]
fn a_mac_that_is_as_it_must_be_is_found_so_and_enabled() {
    let mac = mac();
    assert_eq!(unmet(&mac, "macos-base"), []);
    let (verdicts, code) = verdicts(&mac, "macos-base");
    assert_eq!(code, Some(0));
    let ok = verdicts.iter().filter(|(_, verdict)| verdict == "ok").count();
    assert!(ok >= 20, "{verdicts:?}");
    assert_eq!(mac.remains(), [""; 0]);
}

#[test]
fn a_setting_is_told_put_right_and_taken_back() {
    let mac = mac();
    mac.write_state(
        "pmset",
        &serde_json::json!({"AC Power": {"sleep": 10, "autorestart": 1}}),
    );
    let sleeps = [pair("posture sleep", "wrong")];
    assert_eq!(unmet(&mac, "macos-base"), sleeps);
    let apply = ["provision", "--apply", "--manifest", "macos-base"];
    let applied = mac.ephemerd(&apply);
    assert_eq!(applied.status.code(), Some(0), "{}", said(&applied));
    assert_eq!(unmet(&mac, "macos-base"), []);
    let calls = mac.calls("pmset").len();
    let again = mac.ephemerd(&apply);
    assert!(
        again.status.success() && again.stderr.is_empty(),
        "{}",
        said(&again)
    );
    let changes = mac
        .calls("pmset")
        .split_off(calls)
        .into_iter()
        .filter(|call| call.contains("-a"));
    assert_eq!(
        changes.collect::<Vec<_>>(),
        Vec::<String>::new(),
        "a second run does nothing"
    );
    let reverted = mac.ephemerd(&["provision", "revert"]);
    assert!(reverted.status.success(), "{}", said(&reverted));
    assert_eq!(unmet(&mac, "macos-base"), sleeps);
}

#[test]
fn a_formula_that_the_profile_hides_is_not_good_enough() {
    let mac = mac();
    mac.brewed(&[("llvm@17", "17.0.6_1", &["clang-17"])]);
    let path = manifest(
        &mac,
        "[brew.\"llvm@17\"]\nwhy = \"w\"\nversion = \">=17, <18\"\nkeg = [\"bin/clang-17\"]\n[brew.cmake]\nwhy = \"w\"\n",
    );
    assert_eq!(unmet(&mac, &path), [pair("brew cmake", "missing")]);
    // The same program behind what the profile closes; the stand-in closes nothing that no rule names.
    let program = mac.host.homebrew.join("Cellar/llvm@17/17.0.6_1/bin/clang-17");
    let behind = mac.top.join("data/clang-17");
    fs::rename(&program, &behind).unwrap();
    std::os::unix::fs::symlink(&behind, &program).unwrap();
    let expected = [pair("brew cmake", "missing"), pair("brew llvm@17", "hidden")];
    assert_eq!(unmet(&mac, &path), expected);
    let older = manifest(&mac, "[brew.\"llvm@17\"]\nwhy = \"w\"\nversion = \">=18\"\n");
    assert_eq!(unmet(&mac, &older), [pair("brew llvm@17", "outdated")]);
}

#[test]
fn what_builds_php_is_planned_for_a_mac_without_it_and_brew_is_never_run_as_root() {
    let mac = mac();
    let plan = mac.ephemerd(&["provision", "--plan", "--manifest", "php-sdk"]);
    assert_eq!(plan.status.code(), Some(1), "{}", said(&plan));
    let text = String::from_utf8_lossy(&plan.stdout);
    for formula in ["llvm@17", "re2c", "bison", "ninja", "pkgconf"] {
        let line = format!(
            "/bin/brew: {}/bin/brew install --formula {formula}\n",
            mac.host.homebrew
        );
        assert!(text.contains(&line), "{formula}\n{text}");
    }
    for line in text.lines().filter(|line| line.contains("brew install")) {
        assert!(line.contains("as the owner of"), "{line}");
    }
}

#[test]
fn a_tool_that_prints_garbage_is_never_taken_for_a_yes() {
    let mac = mac();
    for (tool, item) in [
        ("fdesetup", "posture filevault"),
        ("csrutil", "posture sip"),
        ("pkgutil", "command_line_tools any"),
    ] {
        mac.fail(
            tool,
            "",
            9,
            &serde_json::json!({"stdout": "\u{1}garbage", "code": 0}),
        );
        let found = unmet(&mac, "macos-base");
        assert!(
            found
                .iter()
                .any(|(id, verdict)| id == item && verdict == "unknown"),
            "{tool}: {found:?}"
        );
    }
}

#[test]
fn every_manifest_for_macs_is_told_in_full_and_planned_by_a_mac_that_lacks_most_of_it() {
    let mac = mac();
    for (name, must_plan) in [
        ("macos-base", vec![]),
        ("php-sdk", vec!["brew llvm@17", "brew re2c"]),
        (
            "elfuse-m4",
            vec!["brew qemu", "folder /opt/toolchain", "archive aarch64-none-elf"],
        ),
        ("xcode", vec![]),
    ] {
        let (verdicts, _) = verdicts(&mac, name);
        // The shim of that name is there, and what it would call is not, where this Mac is made of stand-ins.
        let is_shim = |id: &str| id == "command xcodebuild";
        let unknown: Vec<_> = verdicts
            .iter()
            .filter(|(id, verdict)| verdict == "unknown" && !is_shim(id))
            .collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let plan = mac.ephemerd(&["provision", "--plan", "--manifest", name, "--format", "json"]);
        let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
        let items: Vec<&str> = plan["steps"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|step| step["item"].as_str())
            .collect();
        for item in must_plan {
            assert!(items.contains(&item), "{name}: {item} of {items:?}");
        }
    }
}
