//! The two halves of a daemon: what faces the network is not root, has no way to become it, and owns what is its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use ephemerd::job::Outcome;
use nix::unistd::{Gid, Uid, User};

use crate::harness::{Daemon, PROGRAM, Site, command, err, out, processes_of, said, status_field};

/// A field of a process's status, in words.
fn field(pid: i32, name: &str) -> Vec<String> {
    let text = status_field(pid, name).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_dispatcher_is_the_services_account_without_a_capability_and_without_a_way_to_one() {
    let daemon = Daemon::start("");
    let service = User::from_name(daemon.site().family.name).unwrap().unwrap();
    let pid = daemon.pid();
    let (uid, gid) = (service.uid.to_string(), service.gid.to_string());
    assert_eq!(field(pid, "Uid"), [uid.as_str(); 4]);
    assert_eq!(field(pid, "Gid"), [gid.as_str(); 4]);
    assert_eq!(field(pid, "Groups"), Vec::<String>::new());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let bits = field(pid, set).concat();
        assert!(bits.bytes().all(|bit| bit == b'0'), "{set} {bits}");
    }
    assert_eq!(field(pid, "NoNewPrivs"), ["1"]);
    // Nobody can look at a ruleset from outside; the kernel has told the dispatcher that it has all of it.
    let fence = format!("as {}, without a capability, behind Landlock", service.name);
    assert_eq!(daemon.status().fence.as_deref(), Some(fence.as_str()));
    let shown = out(&daemon.cli(&["status"]));
    assert!(shown.contains(&format!("dispatcher: {fence}\n")), "{shown}");
    // The control: its warden has what it takes, and cannot hand any of it on by executing something.
    let warden = daemon.warden();
    assert_eq!(field(warden, "Uid"), ["0"; 4]);
    assert_eq!(field(warden, "CapBnd"), ["0000000000000000"]);
    let (has, may) = (field(warden, "CapEff"), field(warden, "CapPrm"));
    assert_eq!(has, may);
    let has = u64::from_str_radix(&has[0], 16).unwrap();
    // Changing owners, becoming accounts, mounting (capabilities(7)).
    for needed in [0, 6, 7, 21] {
        assert_ne!(has & (1 << needed), 0, "{needed} of {has:x}");
    }
    // Raising its own rights, raw sockets, modules, devices, restarts, the clock, its kernel's programs.
    for other in [8, 13, 16, 17, 22, 25, 38, 39] {
        assert_eq!(has & (1 << other), 0, "{other} of {has:x}");
    }
    // And between the two a job runs as an account of its own.
    let job = daemon.script("echo $(id -un); sleep 1000");
    daemon.wait_for_output(&job, &format!("{}1", daemon.site().family.name));
    assert_ne!(processes_of(daemon.site().family.uid(1)), Vec::<i32>::new());
    daemon.cli(&["cancel", job.as_str()]);
    assert_eq!(daemon.outcome(&job), Outcome::Cancelled);
}

#[test]
fn what_is_the_owners_is_not_the_dispatchers_to_write() {
    let daemon = Daemon::start("");
    let service = User::from_name(daemon.site().family.name).unwrap().unwrap();
    let data = &daemon.site().data_dir;
    let owner = |path: &str| {
        let found = fs::metadata(data.join(path)).unwrap();
        (Uid::from_raw(found.uid()), found.mode() & 0o7777)
    };
    for (part, mode) in [("state", 0o700), ("logs", 0o700), ("runners", 0o700)] {
        assert_eq!(owner(part), (service.uid, mode), "{part}");
    }
    for (part, mode) in [
        (".", 0o711),
        ("host", 0o711),
        ("native", 0o711),
        ("run", 0o711),
        ("kept", 0o700),
        ("templates", 0o700),
    ] {
        assert_eq!(owner(part), (Uid::from_raw(0), mode), "{part}");
    }
    let attempt = |path: &str| {
        let script = format!("echo mine > {}", data.join(path));
        let (uid, gid) = (service.uid.as_raw().to_string(), service.gid.as_raw().to_string());
        command("setpriv")
            .args([
                "--reuid",
                &uid,
                "--regid",
                &gid,
                "--clear-groups",
                "sh",
                "-c",
                &script,
            ])
            .output()
            .unwrap()
    };
    for path in ["host/enabled.json", "native/planted", "run/planted", "planted"] {
        let output = attempt(path);
        assert!(!output.status.success(), "{path}: {}", said(&output));
        assert!(!data.join(path).exists(), "{path}");
    }
    // The control: what is its own it does write.
    let output = attempt("state/note");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        fs::metadata(data.join("state/note")).unwrap().gid(),
        Gid::as_raw(service.gid)
    );
}

#[test]
fn nobody_of_its_account_reads_the_dispatchers_memory_and_it_has_no_terminal() {
    let daemon = Daemon::start("");
    let pid = daemon.pid();
    // What its account may not read of it is root's (proc(5)).
    let owner = |path: &str| fs::metadata(format!("/proc/{pid}/{path}")).unwrap().uid();
    assert_eq!((owner("mem"), owner("environ"), owner("fd")), (0, 0, 0));
    let service = User::from_name(daemon.site().family.name).unwrap().unwrap();
    let read = command("setpriv")
        .args([
            "--reuid",
            &service.uid.to_string(),
            "--regid",
            &service.gid.to_string(),
            "--clear-groups",
        ])
        .args(["ls", &format!("/proc/{pid}/fd")])
        .output()
        .unwrap();
    assert!(!read.status.success(), "{}", said(&read));
    // The control: root does.
    assert!(fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() > 3);
    // After the name: state, parent, group, session, terminal (proc_pid_stat(5)).
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!((fields[3], fields[4]), (pid.to_string().as_str(), "0"), "{stat}");
}

#[test]
fn a_configuration_that_is_named_from_where_one_is_is_found_by_both_halves() {
    let site = Site::new("");
    let mut run = command(PROGRAM);
    run.args(["--config", "ephemerd.toml", "run"])
        .current_dir(&site.top);
    let daemon = Daemon::start_by(site, run);
    assert_eq!(
        daemon.outcome(&daemon.script("exit 5")),
        Outcome::Exited { code: 5 }
    );
}

#[test]
fn a_program_and_a_grant_below_a_folder_of_roots_are_used_although_no_account_gets_there() {
    let site = Site::new("");
    let closed = site.top.join("closed");
    let granted = closed.join("granted");
    fs::create_dir_all(&granted).unwrap();
    fs::write(granted.join("file"), "granted\n").unwrap();
    fs::write(closed.join("file"), "not granted\n").unwrap();
    let program = closed.join("ephemerd");
    fs::copy(PROGRAM, &program).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    site.configure(&format!("[native]\nextra_read = [{granted:?}]\n"));
    let mut run = command(&program);
    run.arg("--config").arg(&site.config).arg("run");
    let daemon = Daemon::start_by(site, run);
    let name = fs::read_to_string(format!("/proc/{}/comm", daemon.pid())).unwrap();
    assert_eq!(name, "ephemerd\n");
    let shown = daemon.run(&format!("cat {granted}/file; cat {closed}/file 2>/dev/null"));
    assert_eq!(out(&shown), "granted\n", "{}", said(&shown));
}

#[test]
fn a_configuration_that_only_root_may_read_is_refused_with_the_way_out() {
    let site = Site::new("");
    fs::set_permissions(&site.config, fs::Permissions::from_mode(0o600)).unwrap();
    let output = site.run(&["run"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let hint = format!("hint: chmod a+r '{}'", site.config);
    assert!(err(&output).contains(&hint), "{}", said(&output));
}

#[test]
fn a_dispatcher_that_is_started_by_nobody_says_so() {
    let daemon = Daemon::start("");
    let output = daemon.cli(&["__dispatch"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(out(&output), "");
}

#[test]
fn root_reads_the_ledger_of_a_running_dispatcher_and_leaves_it_the_dispatchers() {
    let daemon = Daemon::start("");
    let job = daemon.script("true");
    assert_eq!(daemon.outcome(&job), Outcome::Exited { code: 0 });
    let output = daemon.cli(&["prune", "--dry-run"]);
    assert!(output.status.success(), "{}", said(&output));
    let service = User::from_name(daemon.site().family.name).unwrap().unwrap();
    for entry in daemon.site().data_dir.join("state").read_dir_utf8().unwrap() {
        let path = entry.unwrap().into_path();
        assert_eq!(fs::metadata(&path).unwrap().uid(), service.uid.as_raw(), "{path}");
    }
    assert_eq!(
        daemon.outcome(&daemon.script("exit 3")),
        Outcome::Exited { code: 3 }
    );
}

#[test]
fn what_the_dispatcher_puts_in_place_of_its_ledger_leads_root_nowhere() {
    let daemon = Daemon::start("");
    assert_eq!(
        daemon.outcome(&daemon.script("true")),
        Outcome::Exited { code: 0 }
    );
    let site = daemon.stop();
    let (ledger, secret) = (site.data_dir.join("state/ledger.db"), site.top.join("secret"));
    // The control: a ledger is read.
    let output = site.run(&["prune", "--dry-run"]);
    assert!(output.status.success(), "{}", said(&output));
    // An empty file of root's, which a ledger could be made of.
    fs::write(&secret, "").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(&ledger).unwrap();
    std::os::unix::fs::symlink(&secret, &ledger).unwrap();
    for args in [&["prune"][..], &["exec", "--", "true"], &["doctor"]] {
        let output = site.run(args);
        assert!(!output.status.success(), "{args:?}: {}", said(&output));
        let found = fs::metadata(&secret).unwrap();
        assert_eq!((found.len(), found.mode() & 0o7777), (0, 0o640), "{args:?}");
    }
    fs::remove_file(&ledger).unwrap();
    let output = site.run(&["exec", "--", "true"]);
    assert!(output.status.success(), "{}", said(&output));
}
