//! `docs/exit-codes.md` against the program: every row of its table is made to happen.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::github::hub::Hub;
use crate::github::hub::faults::Fault;
use crate::harness::net::Net;
use crate::harness::{Daemon, Site, command, said};

const DOCUMENT: &str = include_str!("../../docs/exit-codes.md");

/// Rows that no test can make happen without breaking the fence on purpose.
const NOT_MADE: [(&str, &str); 11] = [
    // These take a Mac, or its stand-ins: tests/denials.rs and tests/semantics.rs.
    ("`profile denials`", "0"),
    ("`profile denials`", "1"),
    ("`profile probe-semantics`", "0"),
    ("`profile probe-semantics`", "1"),
    ("`profile verify`", "1"),
    // These take a machine of their own: tests/service and tests/macos/service.rs.
    ("`host install`", "0"),
    ("`host install`", "1"),
    ("`host upgrade`", "0"),
    ("`host upgrade`", "1"),
    ("`host install`, `host upgrade`", "3"),
    ("`host uninstall`", "1"),
];

/// The table as (command, code), in its order.
fn rows() -> Vec<(&'static str, &'static str)> {
    let lines = DOCUMENT.lines().filter(|line| line.starts_with("| ")).skip(1);
    lines
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            (cells[1], cells[2])
        })
        .collect()
}

/// What was made to happen: rows and the codes they ended with.
#[derive(Default)]
struct Seen(Vec<(&'static str, &'static str)>);

impl Seen {
    /// Checks that something ended with a code the table gives for `command` as `cell`.
    #[track_caller]
    fn ended(&mut self, command: &'static str, cell: &'static str, output: &Output) {
        let expected = match cell {
            "0 to 255" => 42,
            "128 + N" => 128 + libc::SIGUSR1,
            number => number.parse().unwrap(),
        };
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{command} {cell}: {}",
            said(output)
        );
        let row = (command, cell);
        assert!(rows().contains(&row), "the document has no row {row:?}");
        self.0.push(row);
    }
}

/// Commands and how they must end, the same with and without a daemon.
const ENDINGS: [(&str, &[&str]); 4] = [
    ("0 to 255", &["sh", "-c", "exit 42"]),
    ("126", &["/etc/passwd"]),
    ("127", &["no-such-program"]),
    ("128 + N", &["sh", "-c", "kill -USR1 $$"]),
];

const DAEMON_COMMANDS: &str = "`jobs`, `jobs show`, `status`, `logs`, `cancel`, `drain`, `resume`";

#[test]
fn every_row_of_the_document_is_as_the_program_does_it() {
    let mut seen = Seen::default();
    let site = Site::new("[native]\njob_timeout = \"1s\"\n");
    without_a_daemon(&mut seen, &site);
    github(&mut seen, &site);
    about_profiles(&mut seen, &site);
    about_egress(&mut seen, &site);
    about_provision(&mut seen, &site);
    site.configure("[native]\njob_timeout = \"1s\"\n");
    exec(&mut seen, &site);
    site.configure("[native.limits]\nmemory = \"64MiB\"\n");
    let daemon = Daemon::start_at(site);
    with_a_daemon(&mut seen, &daemon);
    let status = daemon.cli(&["run"]);
    seen.ended("`run`", "1", &status);
    let site = daemon.stop();
    stopped_in_peace(&mut seen, &site);
    weak_host(&mut seen, &site);
    let missing: Vec<_> = rows()
        .into_iter()
        .filter(|row| !seen.0.contains(row) && !NOT_MADE.contains(row))
        .collect();
    assert!(
        missing.is_empty(),
        "rows that were not made to happen: {missing:?}"
    );
}

fn about_profiles(seen: &mut Seen, site: &Site) {
    let mac = ["--os", "macos-26"];
    let explain = |operation, target| {
        let args = ["profile", "explain", operation, target];
        site.run(&[&args[..], &mac].concat())
    };
    seen.ended(
        "`profile explain`",
        "0",
        &explain("mach-lookup", "com.apple.trustd"),
    );
    seen.ended("`profile explain`", "1", &explain("job-creation", "-"));
    seen.ended("`profile explain`", "2", &explain("no-such-operation", "-"));
    let diff = |a, b| site.run(&[&["profile", "diff", a, b][..], &mac].concat());
    seen.ended("`profile diff`", "0", &diff("strict", "strict"));
    seen.ended("`profile diff`", "1", &diff("strict", "standard"));
    seen.ended("`profile diff`", "2", &diff("strict", "nothing"));
    let hole = site.top.join("hole.sb");
    let text = "(version 1)\n(deny default)\n(allow network-outbound (local ip \"localhost:*\"))\n";
    fs::write(&hole, text).unwrap();
    seen.ended(
        "`profile lint`",
        "1",
        &site.run(&["profile", "lint", hole.as_str()]),
    );
    seen.ended(
        "`profile lint`",
        "2",
        &site.run(&["profile", "lint", "/no/such.sb"]),
    );
    seen.ended("`profile denials`", "3", &site.run(&["profile", "denials"]));
    seen.ended(
        "`profile probe-semantics`",
        "3",
        &site.run(&["profile", "probe-semantics"]),
    );
}

fn about_provision(seen: &mut Seen, site: &Site) {
    let write = |name: &str, text: &str| {
        let path = site.top.join(name);
        fs::write(&path, text).unwrap();
        path.into_string()
    };
    let manifest = |items: &str| write("m.toml", &format!("version = 1\nos = \"linux\"\n{items}"));
    let folder = site.top.join("made");
    let wanted = format!("[folder.{folder:?}]\nwhy = \"w\"\n");
    let met = "[command.sh]\nwhy = \"w\"\n";
    // What would tell is not there.
    let unclear = "[dnf.jq]\nwhy = \"w\"\n";
    let configure = |items: &str| site.configure(&format!("manifest = {:?}\n", manifest(items)));
    let (check, enable) = ("`provision`, `provision --plan`", "`host enable`");
    configure(met);
    seen.ended(check, "0", &site.run(&["provision"]));
    seen.ended(enable, "0", &site.run(&["host", "enable"]));
    configure(unclear);
    seen.ended(check, "3", &site.run(&["provision", "--plan"]));
    seen.ended(enable, "3", &site.run(&["host", "enable"]));
    // There is no ledger yet; then there is one that is none.
    seen.ended("`prune`", "0", &site.run(&["prune"]));
    let ledger = site.data_dir.join("state/ledger.db");
    fs::write(&ledger, "no database at all, and long enough to be read as one").unwrap();
    seen.ended("`prune`", "1", &site.run(&["prune"]));
    fs::remove_file(&ledger).unwrap();
    // Nothing was installed here.
    seen.ended("`host uninstall`", "0", &site.run(&["host", "uninstall"]));
    configure(&wanted);
    seen.ended(check, "1", &site.run(&["provision", "--plan"]));
    seen.ended(enable, "1", &site.run(&["host", "enable"]));
    seen.ended("`provision --apply`", "0", &site.run(&["provision", "--apply"]));
    fs::write(folder.join("kept"), "").unwrap();
    seen.ended("`provision revert`", "1", &site.run(&["provision", "revert"]));
    fs::remove_file(folder.join("kept")).unwrap();
    seen.ended("`provision revert`", "0", &site.run(&["provision", "revert"]));
    configure("[command.no-such-program]\nwhy = \"w\"\n");
    seen.ended("`provision --apply`", "1", &site.run(&["provision", "--apply"]));
    seen.ended(check, "2", &site.run(&["provision", "--manifest", "no-such"]));
    let mac = write("mac.toml", "version = 1\nos = \"macos\"\n");
    let export = [
        "provision",
        "export",
        "--format",
        "dockerfile",
        "--manifest",
        mac.as_str(),
    ];
    seen.ended("`provision export`", "2", &site.run(&export));
    let capture = ["provision", "capture", "--output", mac.as_str()];
    seen.ended("`provision capture`", "1", &site.run(&capture));
    let scan = |steps: &str| {
        let text =
            format!("on: push\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: {steps}\n");
        site.run(&["provision", "scan", &write("w.yml", &text)])
    };
    seen.ended("`provision scan`", "0", &scan("echo hello"));
    seen.ended("`provision scan`", "1", &scan("cmake ."));
    seen.ended(
        "`provision scan`",
        "2",
        &site.run(&["provision", "scan", mac.as_str()]),
    );
}

fn about_egress(seen: &mut Seen, site: &Site) {
    let net = Net::new();
    let run = |args: &[&str]| net.run(site, &[&["egress"], args].concat());
    site.configure("[egress]\nmode = \"block-lan\"\n");
    seen.ended("`egress render`", "0", &run(&["render"]));
    seen.ended("`egress check`", "0", &run(&["check", "1", "203.0.113.10"]));
    seen.ended("`egress check`", "1", &run(&["check", "1", "10.0.0.1:80/udp"]));
    seen.ended("`egress check`", "2", &run(&["check", "nobody-here", "10.0.0.1"]));
    seen.ended("`egress status`", "1", &run(&["status"]));
    // There is nothing to try yet.
    let live = "`egress status`, `egress apply`, `egress test`, `egress remove`";
    seen.ended(live, "3", &run(&["test"]));
    assert_eq!(run(&["apply"]).status.code(), Some(0));
    assert_eq!(run(&["test"]).status.code(), Some(0));
    seen.ended("`egress status`", "0", &run(&["status"]));
    // The rules are as they should be, and somebody else's keep the account from loopback.
    let uid = site.family.uid(1);
    net.nft(&format!(
        "table ip other {{ chain out {{ type filter hook output priority 0; meta skuid {uid} ip daddr 127.0.0.1 reject; }}; }}"
    ));
    seen.ended("`egress apply`, `egress test`", "1", &run(&["test"]));
    assert_eq!(run(&["remove"]).status.code(), Some(0));
}

fn without_a_daemon(seen: &mut Seen, site: &Site) {
    seen.ended("every command", "0", &site.run(&["--version"]));
    for command in [
        "run", "exec", "submit", "jobs", "status", "logs", "cancel", "reload", "drain", "resume", "route",
        "profile", "egress", "host", "config",
    ] {
        seen.ended("every command", "2", &site.run(&[command, "--no-such-option"]));
    }
    let bad = site.top.join("bad.toml");
    fs::write(&bad, "[native]\nslots = 0\n").unwrap();
    let with = |args: &[&str]| {
        command(crate::harness::PROGRAM)
            .arg("--config")
            .arg(&bad)
            .args(args)
            .output()
            .unwrap()
    };
    for args in [
        &["run"][..],
        &["submit", "--repo", "a/b", "--", "true"],
        &["jobs"],
        &["status"],
        &["drain"],
        &["reload"],
        &["route", "a/b"],
        &["profile", "render"],
        &["host", "setup", "--dry-run"],
        &["config", "show"],
    ] {
        seen.ended("every command", "2", &with(args));
    }
    seen.ended("`config check`", "2", &with(&["config", "check"]));
    seen.ended("`exec`", "125", &with(&["exec", "--", "true"]));
    seen.ended(
        "`submit`",
        "125",
        &site.run(&["submit", "--repo", "acme/app", "--", "true"]),
    );
    seen.ended(
        "`submit --wait`",
        "125",
        &site.run(&["submit", "--repo", "acme/app", "--wait", "--", "true"]),
    );
    for args in [
        &["jobs"][..],
        &["jobs", "show", "00000000000"],
        &["status"],
        &["logs", "00000000000"],
        &["cancel", "00000000000"],
        &["drain"],
        &["resume"],
    ] {
        seen.ended(DAEMON_COMMANDS, "1", &site.run(args));
    }
    seen.ended("`reload`", "1", &site.run(&["reload"]));
    seen.ended("`doctor`", "0", &site.run(&["doctor"]));
    seen.ended("`doctor`", "1", &site.run(&["doctor", "--fix"]));
    // Without root not everything can be looked at.
    let unprivileged = command("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ])
        .arg(site.copy(crate::harness::PROGRAM.into(), "ephemerd-of-nobody"))
        .args(["--config", site.config.as_str(), "doctor"])
        .output()
        .unwrap();
    seen.ended("`doctor`", "3", &unprivileged);
    seen.ended("`route`", "0", &site.run(&["route", "acme/app"]));
    seen.ended("`route`", "1", &site.run(&["route", "stranger/app"]));
    fs::write(&bad, "native.extra_read = [\"/no/such/folder\"]\n").unwrap();
    seen.ended("`profile render`", "1", &with(&["profile", "render"]));
    fs::write(&bad, "host.account = \"root\"\n").unwrap();
    seen.ended("`host setup`", "1", &with(&["host", "setup", "--dry-run"]));
}

fn github(seen: &mut Seen, site: &Site) {
    let hub = Hub::start();
    hub.repository("acme/app", true);
    let (file, token) = (site.top.join("github.toml"), site.top.join("token"));
    fs::write(&token, hub.any_token()).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[trust.repos]\n\"acme/*\" = \"native\"\n[github]\napi = {:?}\nrepos = [\"acme/app\"]\nlabels = [\"eph\"]\ntoken_file = {token:?}\n",
        hub.url()
    );
    let check = || {
        let mut ephemerd = command(crate::harness::PROGRAM);
        ephemerd.arg("--config").arg(&file).args(["github", "check"]);
        ephemerd.output().unwrap()
    };
    fs::write(&file, &text).unwrap();
    seen.ended("`github check`", "0", &check());
    hub.inject("GET /repos/*", 1, Fault::Html(502));
    seen.ended("`github check`", "3", &check());
    fs::write(&file, text.replace("acme/app", "acme/other")).unwrap();
    seen.ended("`github check`", "1", &check());
}

fn exec(seen: &mut Seen, site: &Site) {
    for (cell, command) in ENDINGS {
        seen.ended("`exec`", cell, &site.run(&[&["exec", "--"], command].concat()));
    }
    seen.ended("`exec`", "124", &site.run(&["exec", "--", "sleep", "1000"]));
    seen.ended(
        "`exec`",
        "125",
        &site.run(&["exec", "--repo", "stranger/app", "--", "true"]),
    );
    let child = site
        .ephemerd(&["exec", "--", "sleep", "1000"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    crate::harness::wait_for("the command", || (!site.workspaces().is_empty()).then_some(()));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    seen.ended("`exec`", "137", &child.wait_with_output().unwrap());
}

fn with_a_daemon(seen: &mut Seen, daemon: &Daemon) {
    let submit = |args: &[&str]| daemon.cli(&[&["submit", "--repo", "acme/app"], args].concat());
    for (cell, command) in ENDINGS {
        seen.ended(
            "`submit --wait`",
            cell,
            &submit(&[&["--wait", "--"], command].concat()),
        );
    }
    seen.ended(
        "`submit --wait`",
        "124",
        &submit(&["--timeout", "1s", "--wait", "--", "sleep", "1000"]),
    );
    seen.ended(
        "`submit --wait`",
        "137",
        &submit(&[
            "--wait",
            "--timeout",
            "15m",
            "--",
            "perl",
            "-e",
            "$x = 'x' x (300 << 20); sleep 1000",
        ]),
    );
    seen.ended("`submit`", "0", &submit(&["--", "true"]));
    seen.ended(
        "`submit`",
        "1",
        &daemon.cli(&["submit", "--repo", "stranger/app", "--", "true"]),
    );
    for args in [
        &["jobs", "show", "00000000000"][..],
        &["logs", "00000000000"],
        &["cancel", "00000000000"],
        &["resume", "--slot", "1"],
    ] {
        seen.ended(DAEMON_COMMANDS, "1", &daemon.cli(args));
    }
    seen.ended("`reload`", "0", &daemon.cli(&["reload", "--dry-run"]));
    let right = fs::read_to_string(&daemon.site().config).unwrap();
    fs::write(&daemon.site().config, format!("{right}[nonsense]\n")).unwrap();
    seen.ended("`reload`", "2", &daemon.cli(&["reload"]));
    fs::write(&daemon.site().config, right).unwrap();
    for args in [&["jobs"][..], &["status"], &["drain"], &["resume"]] {
        seen.ended("every command", "0", &daemon.cli(args));
    }
}

fn stopped_in_peace(seen: &mut Seen, site: &Site) {
    let child = site.ephemerd(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
    crate::harness::wait_for("the socket", || {
        std::os::unix::net::UnixStream::connect(site.socket()).ok()
    });
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    seen.ended("`run`", "0", &child.wait_with_output().unwrap());
}

/// On a host without the accounts that the configuration names.
fn weak_host(seen: &mut Seen, site: &Site) {
    let text = fs::read_to_string(&site.config).unwrap();
    fs::write(&site.config, text.replace(site.family.name, "_ephtnone")).unwrap();
    seen.ended("`run`", "3", &site.run(&["run"]));
    seen.ended("`exec`", "125", &site.run(&["exec", "--", "true"]));
    seen.ended("`profile verify`", "3", &site.run(&["profile", "verify"]));
}
