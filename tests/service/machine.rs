//! A machine that systemd has booted, gone when it is dropped.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/boot.sh");

/// The program under test, which the machine sees where it lies here.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_ephemerd");

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Machine {
    boot: Child,
    /// Its first process, as seen from here.
    init: u32,
    cgroup: Utf8PathBuf,
    _keep: tempfile::TempDir,
}

impl Machine {
    /// Boots one.
    pub(crate) fn boot() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        let keep = tempfile::tempdir().unwrap();
        let cgroup = cgroup2().join(format!("ephemerd-test-{}", std::process::id()));
        fs::create_dir_all(&cgroup).unwrap();
        // systemd takes the group that it is started in for the root of all.
        let script = format!(
            "echo $$ >'{cgroup}/cgroup.procs' && exec unshare --mount --propagation private --pid --fork --kill-child \
             --uts --ipc --cgroup --net '{BOOT}' \"$1\" \"$2\""
        );
        let boot = Command::new("/bin/sh")
            .args(["-c", &script, "sh"])
            .arg(keep.path())
            .arg(PROGRAM)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut machine = Self {
            init: 0,
            boot,
            cgroup,
            _keep: keep,
        };
        machine.init = wait_for("the first process", || machine.first());
        wait_for("a booted system", || {
            let said = machine.run(&["systemctl", "is-system-running"]);
            text(&said.stdout).starts_with("running").then_some(())
        });
        machine
    }

    /// The child of unshare, once it is systemd.
    fn first(&self) -> Option<u32> {
        let boot = self.boot.id();
        let children = fs::read_to_string(format!("/proc/{boot}/task/{boot}/children")).ok()?;
        let pid = children.trim().parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "systemd").then_some(pid)
    }

    /// A command inside of it.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args(["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--"])
            .args(words);
        command
    }

    /// Runs a command inside of it.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must end with this code; what it printed, errors last.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        said
    }

    /// A file of it, as a path of here.
    pub(crate) fn path(&self, inside: &str) -> Utf8PathBuf {
        format!("/proc/{}/root{inside}", self.init).into()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // unshare kills the first process, and the kernel everything else.
        let _ = self.boot.kill();
        let _ = self.boot.wait();
        wait_for("an empty control group", || {
            remove_groups(&self.cgroup).then_some(())
        });
    }
}

/// Removes a control group and those in it. Whether it is gone.
fn remove_groups(group: &Utf8Path) -> bool {
    let inner = group.read_dir_utf8().into_iter().flatten().flatten();
    for entry in inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_groups(entry.path());
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

/// Where control groups of version 2 are.
fn cgroup2() -> Utf8PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (place, kind) = (words.nth(1)?, words.next()?);
        (kind == "cgroup2").then(|| place.into())
    });
    found.expect("a cgroup2 file system")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Looks again and again until `look` finds something; the pause only spares the processor.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}
