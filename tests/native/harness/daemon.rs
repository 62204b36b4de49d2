//! A running daemon, ended and looked after at the end of its test.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use camino::Utf8PathBuf;
use ephemerd::control::{Answer, Ask, StatusReport, Story};
use ephemerd::job::{JobId, JobSpec, Origin, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::census::children_of;
use super::{Site, out, said, status_field, wait_for};

/// A running daemon. Dropping it stops it and checks that nothing is left.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Option<Child>,
    /// The process that faces the network, a child of the first.
    dispatcher: i32,
    site: Option<Site>,
}

impl Daemon {
    /// Starts a daemon at a place of its own, configured with `more`.
    pub(crate) fn start(more: &str) -> Self {
        Self::start_at(Site::new(more))
    }

    /// Starts a daemon and waits until it answers.
    pub(crate) fn start_at(site: Site) -> Self {
        let command = site.ephemerd(&["run"]);
        Self::start_by(site, command)
    }

    /// Starts a daemon by a command that becomes `ephemerd run`, and waits until it answers.
    pub(crate) fn start_by(site: Site, mut command: Command) -> Self {
        let log = site.top.join("daemon.log");
        let file = File::create(&log).unwrap();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        wait_for("a daemon that answers", || {
            if let Some(status) = child.try_wait().unwrap() {
                let log = fs::read_to_string(&log).unwrap();
                panic!("the daemon ended with {status}; can this host enforce every axis?\n{log}");
            }
            UnixStream::connect(site.socket()).ok()
        });
        let dispatcher = wait_for("the dispatcher", || dispatcher_of(pid));
        let daemon = Self {
            child: Some(child),
            dispatcher,
            site: Some(site),
        };
        // The socket is there before anybody answers.
        daemon.status();
        daemon
    }

    /// Where it runs.
    pub(crate) fn site(&self) -> &Site {
        self.site.as_ref().unwrap()
    }

    /// The process id of its unprivileged half.
    pub(crate) fn pid(&self) -> i32 {
        self.dispatcher
    }

    /// The process id of its privileged half, which is the one that was started.
    pub(crate) fn warden(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.site().top.join("daemon.log")).unwrap()
    }

    /// Runs `ephemerd` with these arguments.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.site().run(args)
    }

    /// Hands over a job of `acme/app` that runs a shell script; returns its id.
    pub(crate) fn script(&self, script: &str) -> JobId {
        self.submit("acme/app", &["sh", "-c", script])
    }

    /// Hands over a job; returns its id.
    pub(crate) fn submit(&self, repo: &str, command: &[&str]) -> JobId {
        let repo: ephemerd::job::Repo = repo.parse().unwrap();
        let spec = JobSpec {
            origin: Origin {
                repo: repo.clone(),
                event: "push".into(),
                head: Some(repo),
                branch: None,
                labels: vec![],
                actor: None,
            },
            command: command.iter().map(|&word| word.into()).collect(),
            env: std::collections::BTreeMap::new(),
            timeout_s: None,
        };
        match self.site().ask(&Ask::Submit { spec }).unwrap() {
            Answer::Submitted { job, .. } => job,
            other => panic!("{other:?}"),
        }
    }

    /// Runs a script as a job of `acme/app` to its end.
    pub(crate) fn run(&self, script: &str) -> Output {
        self.cli(&["submit", "--repo", "acme/app", "--wait", "--", "sh", "-c", script])
    }

    /// Waits until a job has ended; everything about it.
    pub(crate) fn ended(&self, job: &JobId) -> Story {
        match self.site().ask(&Ask::Wait { job: job.clone() }).unwrap() {
            Answer::Story(story) => *story,
            other => panic!("{other:?}"),
        }
    }

    /// Everything about a job that may still run.
    pub(crate) fn story(&self, job: &JobId) -> Story {
        match self.site().ask(&Ask::Show { job: job.clone() }).unwrap() {
            Answer::Story(story) => *story,
            other => panic!("{other:?}"),
        }
    }

    /// The slot of a job that has one.
    pub(crate) fn slot_of(&self, job: &JobId) -> u32 {
        self.story(job).job.slot.unwrap()
    }

    /// Waits until a job has ended; how.
    pub(crate) fn outcome(&self, job: &JobId) -> Outcome {
        self.ended(job).job.outcome.unwrap()
    }

    /// A job's output so far.
    pub(crate) fn output(&self, job: &JobId) -> String {
        let output = self.cli(&["logs", job.as_str()]);
        assert!(output.status.success(), "{}", said(&output));
        out(&output)
    }

    /// Waits until a job has printed `mark`.
    #[track_caller]
    pub(crate) fn wait_for_output(&self, job: &JobId, mark: &str) {
        let log = self.site().data_dir.join(format!("logs/{job}.log"));
        wait_for(&format!("the output `{mark}`"), || {
            let ended = self.story(job).job.outcome;
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let found = text.contains(mark);
            assert!(found || ended.is_none(), "no `{mark}` but {ended:?}\n{text}");
            found.then_some(())
        });
    }

    /// The folder a job works in.
    pub(crate) fn work(&self, job: &JobId) -> Utf8PathBuf {
        self.site()
            .data_dir
            .join("native")
            .join(job.as_str())
            .join("work")
    }

    /// How the daemon is.
    pub(crate) fn status(&self) -> StatusReport {
        match self.site().ask(&Ask::Status {}).unwrap() {
            Answer::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Tells the daemon to stop, waits for it and gives its place back.
    pub(crate) fn stop(mut self) -> Site {
        let status = self.end(Signal::SIGTERM);
        assert!(status.success(), "the daemon ended with {status}\n{}", self.log());
        self.site.take().unwrap()
    }

    /// Kills the daemon as a power cut would, waits until its processes are gone and gives its place back.
    pub(crate) fn kill(mut self) -> Site {
        kill(Pid::from_raw(self.warden()), Signal::SIGKILL).unwrap();
        // It may be gone with its warden already.
        let _ = kill(Pid::from_raw(self.dispatcher), Signal::SIGKILL);
        self.wait();
        self.site.take().unwrap()
    }

    /// Kills the dispatcher alone, and waits for the one that follows it.
    pub(crate) fn kill_dispatcher(&mut self) {
        self.kill_dispatcher_and(|| ());
    }

    /// The same; what is done before the next one is started is `meanwhile`.
    pub(crate) fn kill_dispatcher_and(&mut self, meanwhile: impl FnOnce()) {
        let before = self.dispatcher;
        let warden = Pid::from_raw(self.warden());
        kill(warden, Signal::SIGSTOP).unwrap();
        kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
        wait_for("the end of the dispatcher", || is_gone(before).then_some(()));
        meanwhile();
        kill(warden, Signal::SIGCONT).unwrap();
        self.dispatcher = wait_for("the next dispatcher", || {
            dispatcher_of(self.warden()).filter(|pid| *pid != before)
        });
        self.status();
    }

    /// Kills a dispatcher that has no next, waits for the end of the daemon and gives its place back.
    pub(crate) fn kill_last_dispatcher(mut self) -> Site {
        kill(Pid::from_raw(self.dispatcher), Signal::SIGKILL).unwrap();
        let status = self.wait();
        assert_eq!(status.code(), Some(1));
        self.site.take().unwrap()
    }

    /// Kills the warden, waits for the dispatcher to end with it, and gives their place back.
    pub(crate) fn kill_warden(mut self) -> Site {
        kill(Pid::from_raw(self.warden()), Signal::SIGKILL).unwrap();
        let status = self.wait();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        self.site.take().unwrap()
    }

    /// Signals the daemon and waits until it is gone.
    fn end(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.warden()), signal).unwrap();
        self.wait()
    }

    /// Waits until both of its processes are gone.
    fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let status = wait_for("the end of the daemon", || child.try_wait().unwrap());
        wait_for("the end of the dispatcher", || {
            is_gone(self.dispatcher).then_some(())
        });
        status
    }
}

/// The process that faces the network, of the daemon whose first process is `warden`.
fn dispatcher_of(warden: i32) -> Option<i32> {
    let is_it = |child: &i32| {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"__dispatch")
    };
    children_of(warden).into_iter().find(is_it)
}

fn is_gone(pid: i32) -> bool {
    status_field(pid, "State").is_none_or(|state| state.starts_with(['Z', 'X']))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        if std::thread::panicking() {
            // Whoever reads about the failure wants to know what the daemon said.
            let log = self.log();
            let last: Vec<_> = log.lines().rev().take(30).collect();
            for log in fs::read_dir(self.site().data_dir.join("logs"))
                .into_iter()
                .flatten()
                .flatten()
            {
                eprintln!(
                    "--- {:?}\n{}",
                    log.path(),
                    fs::read_to_string(log.path()).unwrap_or_default()
                );
            }
            eprintln!("--- daemon, latest first\n{}", last.join("\n"));
            let mut child = self.child.take().unwrap();
            let _ = child.kill();
            let _ = child.wait();
        } else {
            let status = self.end(Signal::SIGTERM);
            assert!(status.success(), "the daemon ended with {status}\n{}", self.log());
        }
    }
}
