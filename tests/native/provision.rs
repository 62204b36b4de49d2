//! What a host must have: looked up as a job sees it, put right, taken back, and noticed when it goes.

mod apply;
mod gate;
mod speed;

use std::fs;

use crate::harness::{Site, err, out, said, wait_for};

/// A manifest of one line of head and these items, in a site's folder.
fn manifest(site: &Site, name: &str, items: &str) -> String {
    let path = site.top.join(name);
    fs::write(&path, format!("version = 1\nos = \"linux\"\n{items}")).unwrap();
    path.into_string()
}

/// A check's verdicts by item, and its exit code.
fn verdicts(site: &Site, manifest: &str) -> (Vec<(String, String)>, i32) {
    let output = site.run(&["provision", "--manifest", manifest, "--format", "json"]);
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let item = |line: &serde_json::Value| {
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        (format!("{} {}", text("section"), text("name")), text("verdict"))
    };
    let items = report["items"].as_array().unwrap().iter().map(item).collect();
    (items, output.status.code().unwrap())
}

fn verdict(site: &Site, items: &str) -> String {
    let path = manifest(site, "one.toml", items);
    let (verdicts, _) = verdicts(site, &path);
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
    verdicts[0].1.clone()
}

#[test]
fn a_tool_that_is_installed_and_that_the_profile_hides_is_hidden_and_not_ok() {
    let site = Site::new("");
    let bin = site.top.join("bin");
    let tool = site.copy("/bin/true".into(), "tool");
    let items = format!("[command.tool]\nwhy = \"w\"\npath = [{bin:?}]\n");
    assert_eq!(verdict(&site, &items), "hidden");
    // A benign neighbour: the same tool where jobs may look.
    site.configure(&format!("[native]\nextra_read = [{bin:?}]\n"));
    assert_eq!(verdict(&site, &items), "ok");
    fs::remove_file(tool).unwrap();
    assert_eq!(verdict(&site, &items), "missing");
    site.configure("");
    assert_eq!(verdict(&site, &items), "missing");
}

#[test]
fn a_folder_that_jobs_must_see_or_must_not_change_is_tried_as_a_job() {
    let site = Site::new("");
    let folder = site.top.join("shared");
    fs::create_dir(&folder).unwrap();
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o755);
    let plain = format!("[folder.{folder:?}]\nwhy = \"w\"\n");
    let visible = format!("{plain}visible = true\n");
    assert_eq!(verdict(&site, &plain), "ok");
    assert_eq!(verdict(&site, &visible), "hidden");
    site.configure(&format!("[native]\nextra_write = [{folder:?}]\n"));
    assert_eq!(verdict(&site, &visible), "ok");
    // What a job can write to is not what jobs cannot change.
    mode(0o777);
    assert_eq!(verdict(&site, &plain), "wrong");
    assert_eq!(verdict(&site, &format!("{plain}writable = true\n")), "ok");
}

#[test]
fn checks_libraries_and_variables_are_what_a_job_finds() {
    let site = Site::new("");
    let script = |script: &str, more: &str| {
        format!("[check.own]\nwhy = \"w\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n{more}")
    };
    // Not as root, in a home of its own.
    assert_eq!(
        verdict(&site, &script("test $(id -u) != 0 && touch ~/x", "")),
        "ok"
    );
    assert_eq!(verdict(&site, &script("exit 3", "exit = 3\n")), "ok");
    assert_eq!(verdict(&site, &script("exit 3", "")), "wrong");
    assert_eq!(verdict(&site, &script("echo 42", "output = \"^42$\"\n")), "ok");
    assert_eq!(verdict(&site, &script("echo 43", "output = \"^42$\"\n")), "wrong");
    assert_eq!(
        verdict(&site, &script("sleep 1000", "timeout = \"200ms\"\n")),
        "unknown"
    );
    assert_eq!(verdict(&site, &script("kill -9 $$", "")), "wrong");
    assert_eq!(verdict(&site, "[library.\"libc.so.6\"]\nwhy = \"w\"\n"), "ok");
    assert_eq!(
        verdict(&site, "[library.\"libnosuch.so.6\"]\nwhy = \"w\"\n"),
        "missing"
    );
    let bad = site.top.join("libbad.so");
    fs::write(&bad, "no library").unwrap();
    let items = format!("[library.{bad:?}]\nwhy = \"w\"\n");
    assert_eq!(verdict(&site, &items), "hidden");
    site.configure(&format!("[native]\nextra_read = [{bad:?}]\n"));
    assert_eq!(verdict(&site, &items), "wrong");
    assert_eq!(
        verdict(
            &site,
            "[env.A]\nwhy = \"w\"\nvalue = \"/usr/lib:/no/such\"\nexists = true\n"
        ),
        "wrong"
    );
}

#[test]
fn what_a_tool_prints_that_hangs_or_says_nothing_cannot_be_told() {
    let site = Site::new("");
    let bin = site.top.join("bin");
    fs::create_dir(&bin).unwrap();
    site.configure(&format!("[native]\nextra_read = [{bin:?}]\n"));
    let tool = |text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = bin.join("tool");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let items =
        |more: &str| format!("[command.tool]\nwhy = \"w\"\npath = [{bin:?}]\nversion = \">=2, <3\"\n{more}");
    for (text, expected) in [
        ("echo tool 2.7.1", "ok"),
        ("echo tool 2.7.1 >&2", "ok"),
        // A loader that misses something names versions too.
        (
            "echo \"libc.so.6: version 'GLIBC_2.38' not found\" >&2; exit 1",
            "wrong",
        ),
        ("echo tool 2.7.1; kill -9 $$", "wrong"),
        ("echo tool 1.9", "outdated"),
        ("echo tool 3.0", "wrong"),
        ("echo '\u{0}\u{1}garbage'", "unknown"),
        ("exit 0", "unknown"),
    ] {
        tool(text);
        assert_eq!(verdict(&site, &items("")), expected, "{text}");
    }
    tool("echo tool 2.7.1; exit 3");
    assert_eq!(verdict(&site, &items("exit = 3\n")), "ok");
    tool("echo release-2.5 of 1999.01");
    assert_eq!(verdict(&site, &items("pattern = 'release-([0-9.]+)'\n")), "ok");
}

#[test]
fn a_manifest_of_another_system_is_never_met() {
    let site = Site::new("");
    let path = site.top.join("mac.toml");
    fs::write(&path, "version = 1\nos = \"macos\"\n[brew.jq]\nwhy = \"w\"\n").unwrap();
    let (verdicts, code) = verdicts(&site, path.as_str());
    assert_eq!((verdicts[0].1.as_str(), code), ("wrong", 1));
    let output = site.run(&["provision", "--manifest", path.as_str(), "--plan"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

#[test]
fn a_wrong_manifest_is_a_wrong_configuration() {
    let site = Site::new("");
    let bad = manifest(&site, "bad.toml", "[comand.git]\nwhy = \"w\"\n");
    let output = site.run(&["provision", "--manifest", &bad]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        err(&output).contains("did you mean `command`?"),
        "{}",
        said(&output)
    );
    let output = site.run(&["provision", "--manifest", "no/such.toml"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    // The daemon does not start with one either.
    site.configure(&format!("manifest = {bad:?}\n"));
    let output = site.run(&["run"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn reports_come_in_every_format_and_say_how_to_put_things_right() {
    let site = Site::new("");
    let path = manifest(&site, "m.toml", "[apt.ephemerd-nosuch]\nwhy = \"a test\"\n");
    for (format, expected) in [
        ("text", "fix: /usr/bin/apt-get"),
        ("json", "\"verdict\": \"missing\""),
        ("junit", "<failure message=\"missing: not there\">"),
        ("markdown", "| apt ephemerd-nosuch | missing |"),
    ] {
        let output = site.run(&["provision", "--manifest", &path, "--format", format]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(out(&output).contains(expected), "{}", said(&output));
    }
}

#[test]
fn a_host_without_accounts_cannot_tell_what_a_job_sees() {
    let site = Site::new("");
    // The family of another site has accounts; one of this name has none.
    let text = fs::read_to_string(&site.config).unwrap();
    let text = text.replace(&format!("{:?}", site.family.name), "\"_ephnoone\"");
    fs::write(&site.config, text).unwrap();
    let path = manifest(&site, "m.toml", "[command.sh]\nwhy = \"w\"\n");
    let (verdicts, code) = verdicts(&site, &path);
    assert_eq!((verdicts[0].1.as_str(), code), ("unknown", 3));
    let path = manifest(&site, "m.toml", "[command.nosuch]\nwhy = \"w\"\n");
    assert_eq!(self::verdicts(&site, &path).1, 1);
}

#[test]
fn a_capture_is_a_manifest_that_this_host_meets() {
    let site = Site::new("");
    let file = site.top.join("captured.toml");
    let output = site.run(&["provision", "capture", "--output", file.as_str()]);
    assert!(output.status.success(), "{}", said(&output));
    let again = site.run(&["provision", "capture", "--output", file.as_str()]);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("[command.tar]\n"), "{text}");
    let (verdicts, _) = verdicts(&site, file.as_str());
    let unmet: Vec<_> = verdicts
        .iter()
        // What lies in somebody's home is on the `PATH` of whoever captures, and hidden from jobs.
        .filter(|(_, verdict)| !["ok", "hidden"].contains(&verdict.as_str()))
        .collect();
    assert!(unmet.is_empty(), "{unmet:?}");
}

#[test]
fn a_check_that_is_killed_in_the_middle_leaves_nothing_for_the_next_one() {
    let site = Site::new("");
    let began = site.top.join("shared");
    fs::create_dir(&began).unwrap();
    site.configure(&format!("[native]\nextra_write = [{began:?}]\n"));
    fs::set_permissions(&began, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let slow = format!("touch {began}/looking; sleep 1000");
    let path = manifest(
        &site,
        "slow.toml",
        &format!(
            "[check.slow]\nwhy = \"w\"\ncommand = [\"/bin/sh\", \"-c\", {slow:?}]\ntimeout = \"1000s\"\n"
        ),
    );
    let mut child = site
        .ephemerd(&["provision", "--manifest", &path])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("a job that looks", || {
        began.join("looking").exists().then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(verdict(&site, "[command.sh]\nwhy = \"w\"\n"), "ok");
    wait_for("the end of what was looking", || {
        site.workspaces().is_empty().then_some(())
    });
}

#[test]
fn a_variable_is_what_a_job_has_and_not_what_the_manifest_says() {
    let site = Site::new("");
    let items = "[env.TOLD]\nwhy = \"w\"\nvalue = \"from the manifest\"\n";
    assert_eq!(verdict(&site, items), "ok");
    site.configure("[native.env]\nTOLD = \"from the configuration\"\n");
    assert_eq!(verdict(&site, items), "wrong");
    site.configure("");
    // One that does not count here is not given to anybody.
    let other = format!("{items}only_if = {{ arch = [\"pdp11\"] }}\n");
    let path = manifest(&site, "other.toml", &other);
    site.configure(&format!("manifest = {path:?}\n"));
    let output = site.run(&["exec", "--", "sh", "-c", "echo ${TOLD-nothing}"]);
    assert_eq!(out(&output), "nothing\n", "{}", said(&output));
}

#[test]
fn a_file_that_a_job_could_replace_is_not_one_that_it_cannot_change() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new("");
    let open = site.top.join("open");
    fs::create_dir(&open).unwrap();
    let file = open.join("file");
    fs::write(&file, "text").unwrap();
    let items = format!("[file.{file:?}]\nwhy = \"w\"\n");
    site.configure(&format!("[native]\nextra_write = [{open:?}]\n"));
    assert_eq!(verdict(&site, &items), "ok");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(verdict(&site, &items), "wrong");
    // Nothing that a step could do would help, so that none is taken again and again.
    let path = manifest(&site, "m.toml", &items);
    let output = site.run(&["provision", "--apply", "--manifest", &path]);
    assert_eq!(
        (output.status.code(), err(&output).as_str()),
        (Some(1), ""),
        "{}",
        said(&output)
    );
}
