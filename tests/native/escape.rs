//! The escape suite: two jobs run at the same time, and one of them attacks the other, the daemon and the host
//! in every way the probes know.
//!
//! ```text
//!  sibling    a real job: secret file, sockets, shared memory, a queue, all as open as they can be
//!  attacker   a real job beside it: every attack must be held, everything benign must work
//!  control    the same attacks on the same sibling from where no sandbox is: they must succeed
//! ```
//!
//! What the attacks claim by themselves, without a real sibling, is controlled in `tests/probe_control.rs`.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::job::{JobId, Outcome};
use ephemerd::probe::{Attempt, Class, Report, Target, Verdict, table};

use nix::errno::Errno;

use crate::harness::{Daemon, PROGRAM, Site, command, processes_of, said, wait_for};

mod sibling;

/// Attacks on a real sibling and a real daemon that root, outside, succeeds with. Those that would disturb the
/// daemon even if they are undone at once are controlled on a stage instead.
const BY_ROOT: &[&str] = &[
    "read-sibling-file",
    "list-sibling-folder",
    "find-siblings",
    "stat-sibling-file",
    "chmod-sibling-file",
    "plant-file-in-sibling",
    "plant-symlink-in-sibling",
    "rename-sibling-file",
    "hardlink-sibling-file",
    "follow-symlink-to-sibling",
    "follow-proc-root-to-sibling",
    "read-host-tmp",
    "write-host-tmp",
    "read-host-var-tmp",
    "read-daemon-state",
    "write-daemon-state",
    "find-foreign-processes",
    "read-foreign-environ",
    "read-foreign-cmdline",
    "enter-foreign-root",
    "enter-foreign-cwd",
    "list-foreign-descriptors",
    "open-foreign-memory",
    "signal-foreign-process",
    "open-foreign-pidfd",
    "connect-sibling-socket",
    "connect-control-socket",
];

/// The same for the account of another slot: what only the sandbox keeps it from, because the sibling is
/// careless.
const BY_ANOTHER_ACCOUNT: &[&str] = &[
    "read-sibling-file",
    "list-sibling-folder",
    "stat-sibling-file",
    "plant-file-in-sibling",
    "connect-sibling-socket",
    "connect-control-socket",
    "read-daemon-state",
    "read-host-tmp",
    "write-host-tmp",
    "read-host-var-tmp",
    "find-foreign-processes",
    "read-foreign-cmdline",
    "open-foreign-pidfd",
    "open-sibling-message-queue",
];

/// The same for the sibling's own account, outside.
const BY_SIBLINGS_ACCOUNT: &[&str] = &[
    "read-foreign-environ",
    "signal-foreign-process",
    "list-foreign-descriptors",
    "enter-foreign-cwd",
];

/// Attacks that succeed inside the sibling's own sandbox, where its objects are.
const BY_SIBLING: &[&str] = &[
    "read-sibling-file",
    "connect-sibling-socket",
    "connect-sibling-abstract-socket",
    "attach-sibling-shm",
    "open-sibling-posix-shm",
];

/// A daemon with a careless sibling in one of its slots and everything an attacker needs to know about it.
struct Scene {
    daemon: Daemon,
    sibling: JobId,
    target: Target,
    /// This program, where jobs may see it.
    program: Utf8PathBuf,
    /// Files on the host that are removed at the end.
    left: [Utf8PathBuf; 2],
    /// A queue on the host: Landlock lets no job have one of its own.
    _queue: Queue,
}

impl Scene {
    fn set(posture: &str) -> Self {
        let site = Site::new("");
        let program = site.copy(PROGRAM.into(), "ephemerd");
        let test = Utf8PathBuf::from_path_buf(std::env::current_exe().unwrap()).unwrap();
        let test = site.copy(&test, "sibling");
        site.configure(&format!(
            "[native]\nposture = {posture:?}\nextra_read = [{program:?}, {test:?}]\n[native.limits]\nprocesses = 256\n"
        ));
        let daemon = Daemon::start_at(site);
        let mark = format!("eph{:08x}", daemon.pid());
        let sibling = daemon.submit(
            "acme/app",
            &[
                test.as_str(),
                "--ignored",
                "--exact",
                sibling::NAME,
                "--nocapture",
                "--test-threads=1",
            ],
        );
        let root = daemon.work(&sibling).with_file_name("");
        wait_for("the sibling's folder", || {
            root.join("work").exists().then_some(())
        });
        // Known from the outside only after the job was handed over, so it cannot be among its arguments.
        fs::write(root.join("work/mark"), &mark).unwrap();
        daemon.wait_for_output(&sibling, "the stage is set");
        let left = [
            Utf8PathBuf::from(format!("/tmp/{mark}")),
            Utf8PathBuf::from(format!("/var/tmp/{mark}")),
        ];
        for file in &left {
            open_file(file);
        }
        let queue = Queue::make(&mark);
        let target = target(&daemon, &sibling, mark);
        Self {
            daemon,
            sibling,
            target,
            program,
            left,
            _queue: queue,
        }
    }

    /// Runs the probes as a job of `repo` beside the sibling.
    fn attack(&self, repo: &str) -> Vec<Report> {
        // The attacker learns its own folder from HOME.
        let script = r#"exec "$0" __probe --target "$(printf %s "$1" | sed "s|@OWN@|${HOME%/home}|; s|\"own_port\":null|\"own_port\":${EPHEMERD_PORTS%-*}|")""#;
        let mut target = self.target.clone();
        target.workspace = "@OWN@".into();
        let target = serde_json::to_string(&target).unwrap();
        let job = self
            .daemon
            .submit(repo, &["sh", "-c", script, self.program.as_str(), &target]);
        let story = self.daemon.ended(&job);
        let output = self.daemon.output(&job);
        assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 0 }), "{output}");
        assert_eq!(story.job.clean, Some(true), "{story:?}");
        assert_ne!(story.job.slot, self.daemon.story(&self.sibling).job.slot);
        let mut reports = parse(&output);
        self.settle(&mut reports);
        reports
    }

    /// Replaces what can only be seen from outside by what is seen there.
    fn settle(&self, reports: &mut [Report]) {
        for report in reports
            .iter_mut()
            .filter(|report| matches!(report.attempt, Attempt::Planted { .. }))
        {
            let info = table().into_iter().find(|info| info.name == report.name).unwrap();
            let attempt = match report.name.as_str() {
                // The sibling itself says at its end whether it was signalled.
                "signal-everyone" => Attempt::failed(libc::ESRCH, "the sibling tells"),
                "survive-the-job" if self.survivors().is_empty() => {
                    Attempt::failed(libc::ESRCH, "no survivor")
                }
                _ => Attempt::succeeded("seen from outside"),
            };
            *report = Report::new(&info, attempt);
        }
    }

    /// Pids of processes called like the mark.
    fn survivors(&self) -> Vec<i32> {
        let uids = self.daemon.site().family.uids();
        let named = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim_end() == self.target.mark)
        };
        uids.into_iter().flat_map(processes_of).filter(named).collect()
    }

    /// Runs some probes outside of any sandbox, as `uid`.
    fn control(&self, uid: u32, own: &Utf8Path, only: &[&str]) -> Vec<Report> {
        let mut target = self.target.clone();
        target.workspace = own.to_owned();
        let gid = nix::unistd::User::from_uid(uid.into()).unwrap().unwrap().gid;
        let (uid, gid) = (format!("--reuid={uid}"), format!("--regid={gid}"));
        let output = command("setpriv")
            .args([
                uid.as_str(),
                gid.as_str(),
                "--clear-groups",
                self.program.as_str(),
                "__probe",
                "--target",
            ])
            .arg(serde_json::to_string(&target).unwrap())
            .args(only.iter().flat_map(|name| ["--only", name]))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Tells the sibling to look around and end; fails when it was touched.
    fn end(self) {
        fs::write(self.daemon.work(&self.sibling).join("end"), "").unwrap();
        let outcome = self.daemon.outcome(&self.sibling);
        let output = self.daemon.output(&self.sibling);
        assert_eq!(
            outcome,
            Outcome::Exited { code: 0 },
            "the sibling was touched: {output}"
        );
        assert!(output.contains("nobody was here"), "{output}");
        assert!(self.daemon.run("true").status.success(), "the daemon was touched");
        for file in &self.left {
            assert_eq!(fs::read_to_string(file).unwrap(), "left", "{file}");
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for file in &self.left {
            let _ = fs::remove_file(file);
        }
    }
}

/// A POSIX message queue that anybody may use.
struct Queue(CString);

impl Queue {
    fn make(name: &str) -> Self {
        let name = CString::new(format!("/{name}")).unwrap();
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: `name` is NUL-terminated and outlives the call; null attributes mean the defaults.
        let queue = unsafe { libc::mq_open(name.as_ptr(), flags, 0o666, std::ptr::null::<libc::mq_attr>()) };
        let queue = Errno::result(queue).unwrap();
        // SAFETY: `queue` was just opened; fchmod takes integers.
        unsafe { libc::fchmod(queue, 0o666) };
        // SAFETY: as above, and nothing uses it afterwards.
        unsafe { libc::mq_close(queue) };
        Self(name)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the name is NUL-terminated and outlives the call.
        unsafe { libc::mq_unlink(self.0.as_ptr()) };
    }
}

/// A file that anybody may read and write.
fn open_file(path: &Utf8Path) {
    fs::write(path, "left").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
}

/// Describes the real sibling and the real daemon, whose files are opened to everybody so that only the sandbox
/// can be in the way.
fn target(daemon: &Daemon, sibling: &JobId, mark: String) -> Target {
    let site = daemon.site();
    let key = site.data_dir.join("run/app.pem");
    open_file(&key);
    let readable = [
        site.config.clone(),
        site.data_dir.join(format!("logs/{sibling}.log")),
        site.data_dir.join("state/ledger.db"),
    ];
    for file in &readable {
        fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
    }
    for folder in ["logs", "state", "run", "native"] {
        fs::set_permissions(site.data_dir.join(folder), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(site.socket(), fs::Permissions::from_mode(0o777)).unwrap();
    let uid = site.family.uid(daemon.slot_of(sibling));
    let is_sibling = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(sibling::NAME))
    };
    let pid = processes_of(uid).into_iter().find(is_sibling).unwrap();
    Target {
        workspace: site.top.clone(),
        sibling_workspace: daemon.work(sibling).parent().unwrap().to_owned(),
        sibling_pid: pid,
        sibling_start_ticks: start_ticks(pid),
        daemon_pid: daemon.pid(),
        daemon_start_ticks: start_ticks(daemon.pid()),
        outer_pid_namespace: fs::metadata("/proc/self/ns/pid").map(|meta| meta.ino()).ok(),
        sibling_abstract_socket: mark.clone(),
        sysv_shm_key: sibling::SHM_KEY,
        posix_shm: mark.clone(),
        message_queue: mark.clone(),
        state_files: [vec![key, site.data_dir.join("run/slot-1.lock")], readable.into()].concat(),
        control_socket: site.socket(),
        host_tmp_file: Utf8Path::new("/tmp").join(&mark),
        host_var_tmp_file: Utf8Path::new("/var/tmp").join(&mark),
        loopback_port: None,
        own_port: None,
        shown: vec![],
        process_limit: 256,
        mark,
    }
}

/// When a process started; field 22 of proc_pid_stat(5).
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn parse(output: &str) -> Vec<Report> {
    serde_json::from_str(output).unwrap_or_else(|error| panic!("{error}\n{output}"))
}

/// Fails unless every attack was held and everything benign worked.
#[track_caller]
fn assert_fenced(reports: &[Report], posture: &str) {
    assert_eq!(reports.len(), table().len());
    let wrong: Vec<_> = reports
        .iter()
        .filter(|report| !is_as_it_must_be(report))
        .collect();
    assert!(wrong.is_empty(), "posture {posture}: {wrong:#?}");
    let untried: Vec<_> = reports
        .iter()
        .filter(|report| matches!(report.attempt, Attempt::NotApplicable { .. }))
        .map(|report| report.name.as_str())
        .collect();
    // Descriptors 0 to 2 of a job are pipes, so there is no terminal to type into.
    assert_eq!(untried, ["type-into-inherited-terminal"]);
}

fn is_as_it_must_be(report: &Report) -> bool {
    match report.class {
        Class::Attack => {
            report.verdict == Verdict::Held || matches!(report.attempt, Attempt::NotApplicable { .. })
        }
        Class::Benign => report.verdict == Verdict::Works,
    }
}

/// Fails unless every one of these attacks succeeded.
#[track_caller]
fn assert_succeeded(who: &str, reports: &[Report], names: &[&str]) {
    let failed: Vec<_> = reports
        .iter()
        .filter(|report| report.verdict != Verdict::Broken)
        .collect();
    assert!(failed.is_empty(), "{who}: {failed:#?}");
    assert_eq!(reports.len(), names.len(), "{who}");
}

#[test]
fn heavy_nothing_escapes_the_strict_posture() {
    let mut scene = Scene::set("strict");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    scene.target.loopback_port = Some(listener.local_addr().unwrap().port());
    assert_fenced(&scene.attack("other/app"), "strict");
    assert_fenced(&scene.attack("acme/app"), "strict");
    scene.end();
}

#[test]
fn heavy_nothing_escapes_the_standard_posture() {
    let mut scene = Scene::set("standard");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    scene.target.loopback_port = Some(listener.local_addr().unwrap().port());
    assert_fenced(&scene.attack("other/app"), "standard");
    assert_fenced(&scene.attack("acme/app"), "standard");
    scene.end();
}

#[test]
fn nothing_reaches_the_warden_or_the_first_process_of_a_sibling() {
    let mut scene = Scene::set("strict");
    let sibling = crate::harness::status_field(scene.target.sibling_pid, "PPid")
        .unwrap()
        .parse()
        .unwrap();
    (scene.target.sibling_pid, scene.target.sibling_start_ticks) = (sibling, start_ticks(sibling));
    let warden = scene.daemon.warden();
    (scene.target.daemon_pid, scene.target.daemon_start_ticks) = (warden, start_ticks(warden));
    let reports = scene.attack("acme/app");
    let wrong: Vec<_> = reports.iter().filter(|report| !report.is_fine()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    scene.end();
}

#[test]
fn without_the_sandbox_the_same_attacks_succeed() {
    let scene = Scene::set("strict");
    // Beside the sibling's, as a job's own folder is; no job has this name.
    let own = scene.daemon.site().data_dir.join("native/own");
    for folder in ["home", "tmp", "work"] {
        let folder = own.join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let family = &scene.daemon.site().family;
    let slot = scene.daemon.slot_of(&scene.sibling);
    let other = if slot == 4 { 3 } else { 4 };
    assert_succeeded("sibling", &scene.inside_the_sibling(), BY_SIBLING);
    assert_succeeded("root", &scene.control(0, &own, BY_ROOT), BY_ROOT);
    assert_succeeded(
        "another account",
        &scene.control(family.uid(other), &own, BY_ANOTHER_ACCOUNT),
        BY_ANOTHER_ACCOUNT,
    );
    assert_succeeded(
        "the sibling's account",
        &scene.control(family.uid(slot), &own, BY_SIBLINGS_ACCOUNT),
        BY_SIBLINGS_ACCOUNT,
    );
    fs::remove_dir_all(&own).unwrap();
    // The sibling was touched, which is what this test shows.
    assert!(
        scene
            .daemon
            .cli(&["cancel", scene.sibling.as_str()])
            .status
            .success()
    );
    scene.daemon.ended(&scene.sibling);
}

impl Scene {
    /// Lets the sibling run probes on itself, in its own sandbox.
    fn inside_the_sibling(&self) -> Vec<Report> {
        let work = self.daemon.work(&self.sibling);
        let mut target = self.target.clone();
        target.workspace = target.sibling_workspace.clone();
        let mut args = vec![
            self.program.to_string(),
            "__probe".into(),
            "--target".into(),
            serde_json::to_string(&target).unwrap(),
        ];
        args.extend(
            BY_SIBLING
                .iter()
                .flat_map(|name| ["--only".to_owned(), (*name).to_owned()]),
        );
        fs::write(work.join("probe.new"), args.join("\n")).unwrap();
        fs::rename(work.join("probe.new"), work.join("probe")).unwrap();
        let answer = wait_for("the sibling's answer", || {
            fs::read_to_string(work.join("answer")).ok()
        });
        parse(&answer)
    }
}
