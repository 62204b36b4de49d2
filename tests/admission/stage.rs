//! What the tests share: a slot's entrance with a door behind it, and jobs made of real processes in front of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::daemon::door::{Claim, Door, Refusal};
use ephemerd::github::admission::hook::Place;
use ephemerd::host::entrance;
use ephemerd::slot::Account;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};
use serde_json::json;
use tokio::runtime::Runtime;

/// The slot's account.
pub(crate) const UID: u32 = 61_234;

/// That of another slot, whose group is the same.
pub(crate) const OTHER: u32 = 61_236;

/// The group of both.
pub(crate) const GID: u32 = 61_235;

/// An account and a group that have nothing to do with them.
pub(crate) const STRANGER: u32 = 61_237;

/// What a client hears that is let in.
pub(crate) const GO: &str = "{\"answer\":\"go\"}\n";

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What the runner says to a hook.
pub(crate) const SAID: [(&str, &str); 7] = [
    ("GITHUB_REPOSITORY", "o/r"),
    ("GITHUB_RUN_ID", "77"),
    ("GITHUB_RUN_ATTEMPT", "1"),
    ("GITHUB_JOB", "build"),
    ("GITHUB_EVENT_NAME", "push"),
    ("GITHUB_SHA", "c0ffee"),
    ("RUNNER_NAME", "mac01-9f2c"),
];

/// A client that says what its standard input says, and prints what it hears.
const CLIENT: &str = "import socket, sys
door = socket.socket(socket.AF_UNIX)
door.connect(sys.argv[1])
try:
    door.sendall(sys.stdin.buffer.read())
except BrokenPipeError:
    pass
try:
    print(door.makefile().readline(), end='', flush=True)
except ConnectionResetError:
    pass
";

/// A slot's entrance with a door behind it, and a job in front of it.
pub(crate) struct Stage {
    pub(crate) runtime: Runtime,
    pub(crate) door: Door,
    pub(crate) place: Place,
    pub(crate) job: Family,
    /// The program, as an account reaches it.
    pub(crate) program: Utf8PathBuf,
    /// The socket of the door.
    socket: UnixListener,
    uid: u32,
    _keep: tempfile::TempDir,
}

impl Stage {
    /// A door for a job of the slot's account.
    pub(crate) fn new() -> Self {
        Self::of(UID, None)
    }

    /// A door for jobs of `uid`, of which `first` is the first process if it is not one of the stage's own.
    pub(crate) fn of(uid: u32, first: Option<&Family>) -> Self {
        assert!(
            geteuid().is_root(),
            "tests named root_ need root: jobs are of other accounts"
        );
        let keep = tempfile::tempdir().unwrap();
        fs::set_permissions(keep.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let run = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        let place = Place::new(&run, "/data".into(), 1).unwrap();
        let account = Account {
            name: "slot1".to_owned(),
            uid,
            gid: GID,
        };
        // Where the account gets to it, wherever this was built.
        let program = run.join("program");
        fs::hard_link(env!("CARGO_BIN_EXE_ephemerd"), &program)
            .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_ephemerd"), &program).map(drop))
            .unwrap();
        let socket = entrance::make(&place, &program, &account).unwrap();
        // The door must be kept by somebody while the test waits for processes.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let kept = socket.try_clone().unwrap();
        let door = runtime.block_on(async { Door::open(socket, uid) }).unwrap();
        let job = Family::start(uid, GID);
        door.launched(first.unwrap_or(&job).pid());
        Self {
            runtime,
            door,
            place,
            job,
            program,
            socket: kept,
            uid,
            _keep: keep,
        }
    }

    /// Puts another door in the place of this one, as a dispatcher does that follows a killed one.
    pub(crate) fn open_again(&mut self) {
        let socket = self.socket.try_clone().unwrap();
        let uid = self.uid;
        self.door = self.runtime.block_on(async { Door::open(socket, uid) }).unwrap();
        self.door.launched(self.job.pid());
    }

    /// Waits for a report.
    pub(crate) fn handshake(&mut self) -> Claim {
        let Self { runtime, door, .. } = self;
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, door.handshake()).await })
            .unwrap()
    }

    /// Whether somebody has reported.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let Self { runtime, door, .. } = self;
        let waited = runtime.block_on(async { tokio::time::timeout(Duration::ZERO, door.handshake()).await });
        waited.is_err()
    }

    pub(crate) fn refused(&self) -> Vec<(Refusal, u64)> {
        self.door.refusals().into_iter().collect()
    }

    /// The hook, as the runner runs it, with these variables instead of others.
    pub(crate) fn hook(&self, instead: &[(&str, &str)]) -> String {
        let said: BTreeMap<_, _> = SAID.iter().chain(instead).copied().collect();
        let said: Vec<_> = said
            .iter()
            .map(|(name, value)| format!("{name}='{value}'"))
            .collect();
        format!("exec env {} bash -e '{}'", said.join(" "), self.place.hook())
    }

    /// A client that says this.
    pub(crate) fn client(&self, text: &str) -> String {
        format!(
            "{text} | /usr/bin/env python3 -c \"{CLIENT}\" '{}'",
            self.place.socket()
        )
    }

    /// What a report of the job's would be.
    pub(crate) fn message() -> String {
        let message = json!({"repository": "o/r", "run_id": 77, "run_attempt": 1, "job": "build", "event": "push",
            "sha": "c0ffee", "runner": "mac01-9f2c", "event_file": false});
        format!("echo '{message}'")
    }

    /// The benign neighbour: the job's own hook gets in, and the job goes on.
    pub(crate) fn hook_gets_in(&mut self) {
        let hook = self.job.run(&self.hook(&[]));
        let claim = self.handshake();
        assert_eq!(claim.message.runner, "mac01-9f2c");
        self.runtime.block_on(claim.answer.go()).unwrap();
        assert_eq!(hook.end(), (0, String::new()));
    }
}

/// A job's first process: a shell that runs what it is told to, as its children.
pub(crate) struct Family {
    shell: Child,
    pub(crate) folder: tempfile::TempDir,
    count: Cell<u32>,
}

/// Something that a [`Family`] runs.
pub(crate) struct Ran {
    /// Where its output, its pid and its end come, but for the last part of the name.
    path: Utf8PathBuf,
}

impl Family {
    #[expect(
        clippy::disallowed_methods,
        reason = "a process of another account must be started"
    )]
    pub(crate) fn start(uid: u32, gid: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        chown(folder.path(), Some(uid), Some(gid)).unwrap();
        let path = std::env::var("PATH").unwrap();
        let serve = r#"while read -r it; do
            (sh "$it.sh" > "$it.out" 2>&1 & echo $! > "$it.pid"; wait $!; echo $? > "$it.tmp"; mv "$it.tmp" "$it.end") &
        done; wait"#;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", serve]).env_clear().env("PATH", path);
        command.uid(uid).gid(gid).process_group(0).stdin(Stdio::piped());
        Self {
            shell: command.spawn().unwrap(),
            folder,
            count: Cell::new(0),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.shell.id().try_into().unwrap()
    }

    /// Starts this script.
    pub(crate) fn run(&self, script: &str) -> Ran {
        self.count.set(self.count.get() + 1);
        let path = Utf8Path::from_path(self.folder.path()).unwrap();
        let path = path.join(self.count.get().to_string());
        fs::write(path.with_extension("sh"), script).unwrap();
        writeln!(self.shell.stdin.as_ref().unwrap(), "{path}").unwrap();
        Ran { path }
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.shell.wait();
    }
}

impl Ran {
    pub(crate) fn told(&self, part: &str) -> Option<String> {
        let text = fs::read_to_string(self.path.with_extension(part)).ok()?;
        text.ends_with('\n').then(|| text.trim_end().to_owned())
    }

    pub(crate) fn pid(&self) -> i32 {
        wait_for("a pid", || self.told("pid")).parse().unwrap()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.told("end").is_some()
    }

    /// Its exit code and what it printed.
    pub(crate) fn end(&self) -> (i32, String) {
        let code = wait_for("an end", || self.told("end")).parse().unwrap();
        (code, fs::read_to_string(self.path.with_extension("out")).unwrap())
    }
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
        std::thread::sleep(Duration::from_millis(5));
    }
}
