//! The control of the live probes: unconfined, the same code that the sandbox must stop has to succeed, else a
//! probe that "held" would prove nothing. And the stage on which they play leaves nothing behind.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::process::{Command, Output};

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::probe::{Attempt, Class, Control, Report, Stage, Target, Verdict, table};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ephemerd");

/// Families and calls a kernel may be built without, so that the control has nothing to show.
const OPTIONAL: &[&str] = &[
    "compare-processes",
    "crypto-socket",
    "ia32-system-call",
    "io-uring",
    "load-kernel",
    "load-module",
    "load-module-file",
    "open-ports",
    "read-kernel-memory",
    "raise-port-privilege",
    "realtime-scheduling",
    "unload-module",
    "vsock-socket",
    "write-sysrq-trigger",
];

/// What even root cannot show without CAP_SYS_RESOURCE, which some hosts take away from all.
const NEED_RESOURCE: &[&str] = &["fork-bomb", "raise-process-limit", "dodge-oom-killer"];

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    (dir, path)
}

fn stage(dir: &Utf8Path) -> Stage {
    Stage::set(dir, Utf8Path::new(PROGRAM)).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the program under test must be started")]
fn program(name: &str, args: &[&str]) -> Output {
    Command::new(name).args(args).output().unwrap()
}

fn probe(target: &Target, only: &[&str]) -> Vec<Report> {
    let target = serde_json::to_string(target).unwrap();
    let mut args = vec!["__probe", "--target", target.as_str()];
    args.extend(only.iter().flat_map(|name| ["--only", name]));
    let output = program(PROGRAM, &args);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_attack_that_has_a_control_succeeds_unconfined() {
    let (_dir, path) = folder();
    let stage = stage(&path);
    let mut reports = probe(stage.target(), &[]);
    stage.settle(&mut reports);
    let root = nix::unistd::geteuid().is_root();
    let has_resource =
        caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE).unwrap();
    let failed: Vec<_> = table()
        .into_iter()
        .zip(&reports)
        .inspect(|(info, report)| assert_eq!(info.name, report.name))
        .filter(|(info, _)| info.class == Class::Attack)
        .filter(|(info, _)| match info.control {
            Control::Anyone => true,
            Control::Root => root && (has_resource || !NEED_RESOURCE.contains(&info.name)),
            Control::None { .. } => false,
        })
        .filter(|(_, report)| match &report.attempt {
            Attempt::Succeeded { .. } => false,
            Attempt::NotApplicable { .. }
            | Attempt::Failed {
                errno: libc::ENOENT, ..
            } => !OPTIONAL.contains(&report.name.as_str()),
            Attempt::Failed { .. }
            | Attempt::Killed { .. }
            | Attempt::Refused { .. }
            | Attempt::Planted { .. } => true,
        })
        .map(|(_, report)| report)
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_benign_probe_works_unconfined() {
    let (_dir, path) = folder();
    let stage = stage(&path);
    let reports = probe(stage.target(), &[]);
    let hampered: Vec<_> = reports
        .iter()
        .filter(|report| report.class == Class::Benign && report.verdict != Verdict::Works)
        .collect();
    assert!(hampered.is_empty(), "{hampered:#?}");
}

#[test]
fn sees_a_survivor_from_outside_and_ends_it() {
    let (_dir, path) = folder();
    let stage = stage(&path);
    let mut reports = probe(stage.target(), &["survive-the-job"]);
    assert_eq!(reports[0].verdict, Verdict::Unknown);
    stage.settle(&mut reports);
    assert_eq!(reports[0].verdict, Verdict::Broken, "{reports:?}");
    let mark = stage.target().mark.clone();
    drop(stage);
    let alive = |process: fs::DirEntry| {
        let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
        status.starts_with(&format!("Name:\t{mark}\n")) && !status.contains("\nState:\tZ")
    };
    assert!(!fs::read_dir("/proc").unwrap().flatten().any(alive));
}

#[test]
fn sees_from_outside_whether_a_signal_to_everyone_reached_the_sibling() {
    let (_dir, path) = folder();
    let stage = stage(&path);
    let info = table()
        .into_iter()
        .find(|info| info.name == "signal-everyone")
        .unwrap();
    let planted = || {
        [Report::new(
            &info,
            Attempt::Planted {
                detail: String::new(),
            },
        )]
    };
    let mut reports = planted();
    stage.settle(&mut reports);
    assert_eq!(reports[0].verdict, Verdict::Held, "{reports:?}");
    let sibling = nix::unistd::Pid::from_raw(stage.target().sibling_pid);
    nix::sys::signal::kill(sibling, nix::sys::signal::Signal::SIGURG).unwrap();
    let mut reports = planted();
    stage.settle(&mut reports);
    assert_eq!(reports[0].verdict, Verdict::Broken, "{reports:?}");
}

#[test]
fn the_stage_leaves_nothing_behind() {
    let (_dir, path) = folder();
    let stage = stage(&path);
    probe(stage.target(), &[]);
    let target = stage.target().clone();
    assert!(target.host_tmp_file.exists());
    drop(stage);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    let shm = Utf8Path::new("/dev/shm").join(&target.posix_shm);
    for gone in [&target.host_tmp_file, &target.host_var_tmp_file, &shm] {
        assert!(!gone.exists(), "{gone}");
    }
    let key = target.sysv_shm_key.to_string();
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    assert!(
        !segments
            .lines()
            .any(|line| line.split_whitespace().next() == Some(&key))
    );
}

#[test]
fn a_stage_keeps_what_others_have_in_its_folder() {
    let (_dir, path) = folder();
    let other = path.join("native/0abc0000xyz");
    fs::create_dir_all(&other).unwrap();
    drop(stage(&path));
    assert!(other.exists());
}

#[test]
fn reports_a_descriptor_it_inherited() {
    let (_dir, path) = folder();
    let stage = stage(&path);
    let target = serde_json::to_string(stage.target()).unwrap();
    let script = r#"exec "$@" 9</dev/null"#;
    let args = [
        "-c",
        script,
        "sh",
        PROGRAM,
        "__probe",
        "--target",
        &target,
        "--only",
        "inherited-descriptors",
    ];
    let output = program("/bin/sh", &args);
    let reports: Vec<Report> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reports[0].verdict, Verdict::Broken, "{reports:?}");
    assert!(
        reports[0].attempt.to_string().contains("9 is /dev/null"),
        "{reports:?}"
    );
    // Whoever runs this test may have left descriptors open, too, but not that one.
    let without = probe(stage.target(), &["inherited-descriptors"]);
    assert!(!without[0].attempt.to_string().contains("9 is"), "{without:?}");
}

#[test]
fn does_not_mistake_a_process_of_its_own_for_one_outside() {
    let (_dir, path) = folder();
    let stage = stage(&path);
    let mut target = stage.target().clone();
    target.sibling_start_ticks = target.sibling_start_ticks.map(|ticks| ticks + 1);
    target.daemon_pid = target.sibling_pid;
    target.daemon_start_ticks = target.sibling_start_ticks;
    for report in probe(&target, &["signal-foreign-process", "read-foreign-environ"]) {
        assert_eq!(report.verdict, Verdict::Held, "{report:?}");
    }
}

#[test]
fn refuses_an_unknown_probe_and_names_the_nearest() {
    let (_dir, path) = folder();
    let stage = stage(&path);
    let target = serde_json::to_string(stage.target()).unwrap();
    let output = program(PROGRAM, &["__probe", "--target", &target, "--only", "io-ring"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the nearest is `io-uring`"));
}

#[test]
fn a_hostile_run_says_so_when_something_got_through() {
    let (_dir, path) = folder();
    let stage = stage(&path);
    let target = serde_json::to_string(stage.target()).unwrap();
    let args = [
        "__probe",
        "--target",
        &target,
        "--hostile",
        "--only",
        "read-sibling-file",
    ];
    let output = program(PROGRAM, &args);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("BROKEN"));
    fs::remove_file(stage.target().sibling_workspace.join("home/secret")).unwrap();
    assert_eq!(program(PROGRAM, &args).status.code(), Some(0));
}
