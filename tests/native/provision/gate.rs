//! The gate: no job runs on a host that is not enabled or that lacks something.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ephemerd::job::Outcome;

use super::manifest;
use crate::harness::{Daemon, Site, command, err, out, said, wait_for};

/// A site whose manifest asks for a tool that is there, in a folder that jobs see.
fn site() -> (Site, camino::Utf8PathBuf) {
    let site = Site::new("");
    let tool = site.copy("/bin/true".into(), "tool");
    let bin = site.top.join("bin");
    let path = manifest(
        &site,
        "m.toml",
        &format!("[command.tool]\nwhy = \"w\"\npath = [{bin:?}]\n"),
    );
    site.configure(&format!(
        "manifest = {path:?}\n[native]\nextra_read = [{bin:?}]\n"
    ));
    (site, tool)
}

fn enable(site: &Site) {
    let output = site.run(&["host", "enable"]);
    assert!(output.status.success(), "{}", said(&output));
}

/// Why the daemon did not run a job.
fn refusal(daemon: &Daemon) -> String {
    let job = daemon.script("true");
    match daemon.ended(&job).job.outcome {
        Some(Outcome::Refused { reason }) => reason,
        other => panic!("{other:?}\n{}", daemon.log()),
    }
}

fn runs(daemon: &Daemon) {
    let output = daemon.run("echo ran");
    assert_eq!(out(&output), "ran\n", "{}\n{}", said(&output), daemon.log());
}

#[test]
fn a_host_that_is_not_enabled_runs_no_job_and_says_how_it_becomes_so() {
    let (site, _) = site();
    let daemon = Daemon::start_at(site);
    assert!(refusal(&daemon).contains("this host is not enabled\nhint: `ephemerd host enable`"));
    assert!(out(&daemon.cli(&["status"])).contains("no job is let through: this host is not enabled"));
    // Also while the daemon has every slot.
    enable(daemon.site());
    runs(&daemon);
    assert!(!out(&daemon.cli(&["status"])).contains("no job is let through"));
    assert!(daemon.cli(&["host", "disable"]).status.success());
    assert!(refusal(&daemon).contains("not enabled"));
}

#[test]
fn a_tool_that_goes_is_noticed_before_the_next_job_and_one_that_comes_back_too() {
    let (site, tool) = site();
    enable(&site);
    let daemon = Daemon::start_at(site);
    runs(&daemon);
    fs::rename(&tool, tool.with_file_name("away")).unwrap();
    let reason = refusal(&daemon);
    assert!(reason.contains("command tool is missing"), "{reason}");
    // Known now, so that nothing is queued.
    let output = daemon.cli(&["submit", "--repo", "acme/app", "--", "true"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("command tool is missing"),
        "{}",
        said(&output)
    );
    fs::rename(tool.with_file_name("away"), &tool).unwrap();
    // It is looked for again, because the folder it would be in has changed.
    runs(&daemon);
}

#[test]
fn a_host_that_lacks_something_is_not_enabled() {
    let (site, tool) = site();
    fs::remove_file(tool).unwrap();
    let output = site.run(&["host", "enable"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(err(&output).contains("not enabled"), "{}", said(&output));
    let daemon = Daemon::start_at(site);
    assert!(refusal(&daemon).contains("this host is not enabled"));
}

#[test]
fn a_manifest_that_was_changed_since_must_be_enabled_again() {
    let (site, _) = site();
    enable(&site);
    let path = site.top.join("m.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        format!("{text}[env.ADDED]\nwhy = \"w\"\nvalue = \"yes\"\n"),
    )
    .unwrap();
    let daemon = Daemon::start_at(site);
    assert!(refusal(&daemon).contains("is not what"), "{}", daemon.log());
    enable(daemon.site());
    // Variables of the manifest are jobs' own.
    assert_eq!(out(&daemon.run("echo $ADDED")), "yes\n");
    fs::write(&path, text).unwrap();
    assert!(
        refusal(&daemon).contains("`ephemerd reload`, then `ephemerd host enable`"),
        "{}",
        daemon.log()
    );
}

/// How often a daemon has looked at its host.
fn looks(daemon: &Daemon) -> usize {
    daemon
        .log()
        .matches("looking whether this host has what it must have")
        .count()
}

#[test]
fn a_daemon_looks_before_its_first_job_and_then_when_a_check_is_too_old() {
    let (site, _) = site();
    enable(&site);
    let daemon = Daemon::start_at(site);
    runs(&daemon);
    runs(&daemon);
    assert_eq!(looks(&daemon), 1, "{}", daemon.log());
    let site = daemon.stop();
    let text = fs::read_to_string(&site.config).unwrap();
    fs::write(
        &site.config,
        text.replacen("[host]\n", "[host]\nrecheck = \"1ms\"\n", 1),
    )
    .unwrap();
    let daemon = Daemon::start_at(site);
    runs(&daemon);
    runs(&daemon);
    assert!(looks(&daemon) >= 2, "{}", daemon.log());
}

/// A site whose check waits until the file `go` is there, and says when it has begun.
fn slow_site() -> (Site, camino::Utf8PathBuf) {
    let site = Site::new("");
    let shared = site.top.join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let script = format!("touch {shared}/began; until [ -e {shared}/go ]; do sleep 0.05; done");
    let path = manifest(
        &site,
        "slow.toml",
        &format!(
            "[check.slow]\nwhy = \"w\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\ntimeout = \"100s\"\n"
        ),
    );
    site.configure(&format!(
        "manifest = {path:?}\n[native]\nextra_write = [{shared:?}]\n"
    ));
    fs::write(shared.join("go"), "").unwrap();
    enable(&site);
    for file in ["go", "began"] {
        fs::remove_file(shared.join(file)).unwrap();
    }
    (site, shared)
}

#[test]
fn a_host_that_is_disabled_while_somebody_looks_stays_so() {
    let (site, shared) = slow_site();
    let daemon = Daemon::start_at(site);
    let job = daemon.script("true");
    wait_for("a job that looks", || shared.join("began").exists().then_some(()));
    assert!(daemon.cli(&["host", "disable"]).status.success());
    fs::write(shared.join("go"), "").unwrap();
    let outcome = daemon.ended(&job).job.outcome;
    assert!(
        matches!(&outcome, Some(Outcome::Refused { reason }) if reason.contains("not enabled")),
        "{outcome:?}"
    );
    assert!(refusal(&daemon).contains("not enabled"));
}

#[test]
fn a_job_that_is_cancelled_while_somebody_looks_ends_at_once() {
    let (site, shared) = slow_site();
    let daemon = Daemon::start_at(site);
    let job = daemon.script("true");
    wait_for("a job that looks", || shared.join("began").exists().then_some(()));
    assert!(daemon.cli(&["cancel", job.as_str()]).status.success());
    assert_eq!(daemon.ended(&job).job.outcome, Some(Outcome::Cancelled));
    fs::write(shared.join("go"), "").unwrap();
    runs(&daemon);
}

#[test]
fn a_record_that_makes_no_sense_lets_nothing_through() {
    let (site, _) = site();
    enable(&site);
    fs::write(site.data_dir.join("host/enabled.json"), "{}").unwrap();
    let daemon = Daemon::start_at(site);
    assert!(refusal(&daemon).contains("nobody can tell whether this host is enabled"));
}

#[test]
fn a_repository_whose_needs_are_not_met_is_refused_with_the_item_and_others_run() {
    let site = Site::new("");
    let path = manifest(
        &site,
        "needs.toml",
        "[command.nosuch]\nwhy = \"w\"\n[env.NEEDED]\nwhy=\"w\"\nvalue=\"1\"\n",
    );
    site.configure(&format!("[repos.\"acme/needy\"]\nmanifest = {path:?}\n"));
    let daemon = Daemon::start_at(site);
    let job = daemon.submit("acme/needy", &["true"]);
    let outcome = daemon.ended(&job).job.outcome;
    assert!(
        matches!(&outcome, Some(Outcome::Refused { reason }) if reason.contains("command nosuch is missing")),
        "{outcome:?}"
    );
    runs(&daemon);
    // Once known, it is refused when it is handed over.
    let output = daemon.cli(&["submit", "--repo", "acme/needy", "--", "true"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let output = daemon.cli(&["provision", "--repo", "acme/needy"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

/// Runs a tool of the system's, and fails with what it says.
fn system(program: &str, args: &[&str]) {
    let output = command(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", said(&output));
}

/// The whole way of a new Debian machine, with its real package manager: `hello` is a package that nothing needs. How
/// much room the machine has is its own affair, so what includes `linux-base` says otherwise than that does.
#[test]
fn a_debian_host_is_checked_put_right_enabled_and_watched() {
    system("/usr/bin/apt-get", &["remove", "--yes", "--quiet", "hello"]);
    let site = Site::new("");
    let path = manifest(
        &site,
        "debian.toml",
        "include = [\"linux-base\"]\n[apt.hello]\nwhy = \"the job says hello\"\n[command.hello]\nwhy = \"w\"\nversion = \">=2\"\n\
         [disk.\"/\"]\nfree = \"1MiB\"\nwhy = \"w\"\n",
    );
    site.configure(&format!("manifest = {path:?}\n"));
    let check = || site.run(&["provision", "--check"]);
    let missing = check();
    assert_eq!(missing.status.code(), Some(1), "{}", said(&missing));
    assert!(
        out(&missing).contains("missing") && out(&missing).contains("hello: not there"),
        "{}",
        said(&missing)
    );
    let applied = site.run(&["provision", "--apply"]);
    assert_eq!(applied.status.code(), Some(0), "{}", said(&applied));
    let met = check();
    assert_eq!(met.status.code(), Some(0), "{}", said(&met));
    let again = site.run(&["provision", "--apply"]);
    assert_eq!(
        (again.status.code(), err(&again).as_str()),
        (Some(0), ""),
        "a second run does nothing"
    );
    enable(&site);
    let daemon = Daemon::start_at(site);
    let output = daemon.run("hello");
    assert_eq!(
        out(&output),
        "Hello, world!\n",
        "{}\n{}",
        said(&output),
        daemon.log()
    );
    system("/usr/bin/apt-get", &["remove", "--yes", "--quiet", "hello"]);
    let reason = refusal(&daemon);
    assert!(reason.contains("apt hello is missing"), "{reason}");
    // Put right while the daemon runs, it lets jobs through again.
    let applied = daemon.cli(&["provision", "--apply"]);
    assert_eq!(applied.status.code(), Some(0), "{}", said(&applied));
    assert_eq!(out(&daemon.run("hello")), "Hello, world!\n", "{}", daemon.log());
    let reverted = daemon.cli(&["provision", "revert"]);
    assert!(reverted.status.success(), "{}", said(&reverted));
    wait_for("a host without hello", || {
        (!camino::Utf8Path::new("/usr/bin/hello").exists()).then_some(())
    });
    assert!(refusal(&daemon).contains("hello is missing"));
}

#[test]
fn nobody_else_can_write_the_record_that_opens_the_gate() {
    let (site, _) = site();
    enable(&site);
    let record = site.data_dir.join("host/enabled.json");
    assert_eq!(fs::metadata(&record).unwrap().permissions().mode() & 0o777, 0o644);
    let before = fs::read_to_string(&record).unwrap();
    let attempt = format!("echo inside; echo forged > {record} && echo written");
    let output = site.run(&["exec", "--", "sh", "-c", &attempt]);
    assert_eq!(out(&output), "inside\n", "{}", said(&output));
    assert_eq!(fs::read_to_string(&record).unwrap(), before);
    // The control: the same words of root's do it.
    let output = command("/bin/sh").args(["-c", &attempt]).output().unwrap();
    assert_eq!(out(&output), "inside\nwritten\n", "{}", said(&output));
}
