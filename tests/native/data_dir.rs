//! Data folders that cannot be used: the daemon says why and what to do, starts nothing and leaves nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Output;

use camino::Utf8Path;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{Daemon, PROGRAM, Site, command, err, said, wait_for};

/// Starts a daemon that must not start, and a command that must not run.
#[track_caller]
fn refused(site: &Site) -> String {
    let run = site.run(&["run"]);
    assert_eq!(run.status.code(), Some(1), "{}", said(&run));
    let exec = site.run(&["exec", "--", "touch", "/tmp/epht-half-started"]);
    assert_eq!(exec.status.code(), Some(125), "{}", said(&exec));
    assert_eq!(last_error(&run), last_error(&exec));
    assert!(!site.socket().exists());
    site.assert_clean();
    last_error(&run)
}

/// The error as it was printed, without the log before it.
fn last_error(output: &Output) -> String {
    let text = err(output);
    let start = text.find("error: ").unwrap_or_else(|| panic!("{}", said(output)));
    text[start..].to_owned()
}

/// A small file system of its own, unmounted at the end.
struct Mounted<'a>(&'a Utf8Path);

impl<'a> Mounted<'a> {
    fn tmpfs(point: &'a Utf8Path, options: &str) -> Self {
        fs::create_dir_all(point).unwrap();
        mount(
            Some("none"),
            point.as_std_path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options),
        )
        .unwrap();
        Self(point)
    }

    fn make_read_only(&self) {
        mount(
            None::<&str>,
            self.0.as_std_path(),
            None::<&str>,
            MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
            None::<&str>,
        )
        .unwrap();
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // At once, even where a failed test has left somebody in it.
        umount2(self.0.as_std_path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_symbolic_link_is_refused() {
    let site = Site::new("");
    let real = site.top.join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, &site.data_dir).unwrap();
    let error = refused(&site);
    assert!(
        error.contains("/data` is a symbolic link\nhint: name the folder itself"),
        "{error}"
    );
    assert_eq!(fs::read_dir(real).unwrap().count(), 0);
}

#[test]
fn a_folder_others_can_write_to_is_refused_and_left_as_it_is() {
    let site = Site::new("");
    fs::create_dir(&site.data_dir).unwrap();
    for mode in [0o770, 0o775, 0o777] {
        fs::set_permissions(&site.data_dir, fs::Permissions::from_mode(mode)).unwrap();
        let error = refused(&site);
        assert!(
            error.contains(&format!(
                "mode 0{mode:o}: others can write to it\nhint: chmod go-w"
            )),
            "{error}"
        );
        assert_eq!(fs::read_dir(&site.data_dir).unwrap().count(), 0);
    }
}

#[test]
fn a_folder_jobs_cannot_get_through_is_refused() {
    let site = Site::new("");
    fs::create_dir(&site.data_dir).unwrap();
    fs::set_permissions(&site.data_dir, fs::Permissions::from_mode(0o700)).unwrap();
    let error = refused(&site);
    assert!(
        error.contains("cannot get through") && error.contains("\nhint: chmod a+x"),
        "{error}"
    );
}

#[test]
fn a_folder_of_somebody_else_is_refused() {
    let site = Site::new("");
    fs::create_dir(&site.data_dir).unwrap();
    std::os::unix::fs::chown(&site.data_dir, Some(site.family.uid(1)), None).unwrap();
    let error = refused(&site);
    assert!(
        error.contains("belongs to uid") && error.contains("\nhint: chown 0"),
        "{error}"
    );
}

#[test]
fn a_file_in_its_place_is_refused() {
    let site = Site::new("");
    fs::write(&site.data_dir, "").unwrap();
    let error = refused(&site);
    assert!(error.contains("is not a folder\nhint: "), "{error}");
}

#[test]
fn a_place_below_a_folder_that_does_not_exist_is_refused() {
    let site = Site::new("");
    let text = fs::read_to_string(&site.config).unwrap();
    fs::write(&site.config, text.replace("/data\"", "/none/data\"")).unwrap();
    let error = refused(&site);
    assert!(error.contains("/none"), "{error}");
    assert!(!site.top.join("none").exists());
}

#[test]
fn a_read_only_file_system_is_named_with_a_hint() {
    let site = Site::new("");
    let point = site.top.join("data");
    let mounted = Mounted::tmpfs(&point, "size=1m,mode=711");
    mounted.make_read_only();
    let run = site.run(&["run"]);
    let exec = site.run(&["exec", "--", "true"]);
    drop(mounted);
    assert_eq!(
        (run.status.code(), exec.status.code()),
        (Some(1), Some(125)),
        "{}",
        said(&run)
    );
    let error = last_error(&run);
    assert!(
        error.contains(
            "is on a read-only file system: EROFS: Read-only file system\nhint: remount it writable"
        ),
        "{error}"
    );
}

#[test]
fn a_full_file_system_is_named_with_a_hint_and_gets_nothing_half_made() {
    let site = Site::new("");
    let point = site.top.join("data");
    for (inodes, fill) in [(1, false), (3, false), (100, true)] {
        let mounted = Mounted::tmpfs(&point, &format!("size=64k,mode=711,nr_inodes={inodes}"));
        if fill {
            let _ = fs::write(point.join("filler"), vec![0; 1 << 20]);
        }
        let run = site.run(&["run"]);
        let exec = site.run(&["exec", "--", "true"]);
        let socket = site.socket().exists();
        drop(mounted);
        assert_eq!(
            (run.status.code(), exec.status.code()),
            (Some(1), Some(125)),
            "{inodes}: {}",
            said(&run)
        );
        let error = last_error(&run);
        assert!(error.contains("\nhint: "), "{inodes} inodes: {error}");
        assert!(!socket);
        site.assert_clean();
    }
}

#[test]
fn a_file_system_that_fills_up_fails_the_job_and_not_the_daemon() {
    let site = Site::new("");
    let point = site.data_dir.join("native");
    fs::create_dir(&site.data_dir).unwrap();
    fs::set_permissions(&site.data_dir, fs::Permissions::from_mode(0o711)).unwrap();
    let data_dir = point.clone();
    let mounted = Mounted::tmpfs(&data_dir, "size=1m,mode=711,nr_inodes=6");
    let daemon = Daemon::start_at(site);
    let job = daemon.script("i=0; while [ $i -lt 100 ]; do touch $i || exit 9; i=$((i+1)); done");
    assert_eq!(daemon.ended(&job).job.clean, Some(true));
    for index in 0..6 {
        let _ = fs::write(point.join(format!("filler{index}")), "");
    }
    let job = daemon.script("true");
    let outcome = daemon.outcome(&job);
    let ephemerd::job::Outcome::Failed { reason } = &outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        reason.contains("no space for") && reason.contains("\nhint: free space"),
        "{reason}"
    );
    for index in 0..6 {
        let _ = fs::remove_file(point.join(format!("filler{index}")));
    }
    // The kernel lets go of an ended job's mounts a little later, and of their inodes with them.
    wait_for("a job that runs", || {
        daemon.run("true").status.success().then_some(())
    });
    let site = daemon.stop();
    drop(mounted);
    drop(site);
}

#[test]
fn a_second_daemon_at_the_same_place_is_refused_with_a_hint() {
    let daemon = Daemon::start("");
    let second = daemon.site().run(&["run"]);
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    let error = last_error(&second);
    assert_eq!(
        error,
        "error: slot 1, 2, 3, 4 is in use by another ephemerd\nhint: `ephemerd submit --wait` hands a job to a running daemon\n"
    );
    assert!(
        daemon.run("true").status.success(),
        "the first one is not disturbed"
    );
}

#[test]
fn another_place_with_the_same_accounts_is_refused_because_jobs_would_kill_each_other() {
    let daemon = Daemon::start("");
    let job = daemon.script("echo ready; until [ -e go ]; do sleep 0.05; done");
    daemon.wait_for_output(&job, "ready");
    let site = daemon.site();
    let other = site.top.join("other.toml");
    let text = fs::read_to_string(&site.config).unwrap();
    fs::write(&other, text.replace("/data\"", "/other\"")).unwrap();
    for (args, code) in [(&["run"][..], 1), (&["exec", "--", "true"], 125)] {
        let output = command(PROGRAM)
            .arg("--config")
            .arg(&other)
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(
            last_error(&output).contains("in use by another ephemerd\nhint: "),
            "{}",
            said(&output)
        );
    }
    fs::write(daemon.work(&job).join("go"), "").unwrap();
    assert!(daemon.outcome(&job).is_success(), "the job was not disturbed");
}

#[test]
fn a_missing_family_of_accounts_is_named_with_the_remedy() {
    let site = Site::new("");
    let text = fs::read_to_string(&site.config).unwrap();
    fs::write(&site.config, text.replace(site.family.name, "_ephtnone")).unwrap();
    let run = site.run(&["run"]);
    assert_eq!(run.status.code(), Some(3), "{}", said(&run));
    let exec = site.run(&["exec", "--", "true"]);
    assert_eq!(exec.status.code(), Some(125), "{}", said(&exec));
    for output in [&run, &exec] {
        let error = last_error(output);
        assert!(
            error.contains("axis `accounts` is absent") && error.contains("_ephtnone"),
            "{error}"
        );
        assert!(error.contains("\nhint: run `ephemerd host setup`"), "{error}");
    }
    assert!(
        !site.data_dir.exists(),
        "nothing is made before everything is checked"
    );
    let gone = command("getent").args(["passwd", "_ephtnone1"]).status().unwrap();
    assert!(!gone.success());
}
