//! A daemon for benchmarks, which is ended with its benchmark however that ends.

use std::process::{Child, Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::control::client::ask;
use ephemerd::control::{Answer, Ask};
use ephemerd::job::ledger::JobRow;
use ephemerd::job::{JobId, JobSpec, Origin};

pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) socket: Utf8PathBuf,
}

impl Daemon {
    /// Starts a daemon in `dir` without a manifest, configured with `more`, which begins in the table `[host]`, and waits
    /// until it answers.
    pub(crate) fn start(dir: &Utf8Path, more: &str) -> Self {
        let file = dir.join("ephemerd.toml");
        let text = format!(
            "[log]\nlevel = \"error\"\n[host]\ndata_dir = \"{dir}/data\"\nmanifest = \"none\"\n{more}"
        );
        std::fs::write(&file, text).expect("a configuration");
        #[expect(
            clippy::disallowed_methods,
            reason = "a benchmark starts the program it measures"
        )]
        let mut command = Command::new(env!("CARGO_BIN_EXE_ephemerd"));
        let child = command
            .args(["--config", file.as_str(), "run"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let socket = dir.join("data/run/ephemerd.sock");
        let mut daemon = Self { child, socket };
        while ask(&daemon.socket, &Ask::Status {}).is_err() {
            let ended = daemon.child.try_wait().expect("a child");
            assert!(ended.is_none(), "the daemon has ended");
            std::thread::yield_now();
        }
        daemon
    }

    fn ask(&self, question: &Ask) -> Answer {
        ask(&self.socket, question).expect("an answer").0
    }

    /// Hands over a job of a repository.
    pub(crate) fn submit(&self, repo: &str, command: &[&str]) -> JobId {
        let spec = JobSpec {
            origin: Origin::own(&repo.parse().expect("a repository")),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: [].into(),
            timeout_s: None,
        };
        match self.ask(&Ask::Submit { spec }) {
            Answer::Submitted { job, .. } => job,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a job's end.
    pub(crate) fn ended(&self, job: &JobId) -> JobRow {
        match self.ask(&Ask::Wait { job: job.clone() }) {
            Answer::Story(story) => story.job,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
