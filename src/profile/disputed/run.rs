//! Asks the kernel: runs the trials of a probe through sandbox-exec.
//!
//! Everything happens in a folder of its own, and everything that is tried is harmless where it is allowed. A trial
//! is prepared anew each time, so that what one leaves does not change the next.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::thread;
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};

use super::{Finding, Outcome, Probe, Seen, Trial};
use crate::host::Host;
use crate::host::command::{self, CommandError, CommandSpec, Output};
use crate::job::JobId;
use crate::profile::denials::{DEADLINE, Query, ask, tag};
use crate::profile::sbpl::Release;

/// How long one run may take; creating a volume takes longest.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How often the log is asked for a report before there is taken to be none.
const LOOKS: u32 = 4;

/// How much of a profile and of what was said is kept.
const KEPT: usize = 400;

/// What sandbox-exec ends with when it does not accept a profile, and when it cannot apply it (sysexits.h).
const REFUSALS: [i32; 2] = [65, 71];

/// Runs a program in the folder `$1`, under the profile `$3` by the sandbox-exec `$2` unless it is empty; with `$4` a
/// victim beside it.
const DRIVER: &str = r#"
cd "$1" || exit 125
sandbox=$2 profile=$3 victim=$4
shift 4
confined() {
    if [ -n "$profile" ]; then exec "$sandbox" -f "$profile" "$@"; else exec "$@"; fi
}
if [ -n "$victim" ]; then
    (confined /bin/sleep 50) &
    echo $! > victim
    sleep 1
fi
(confined "$@")
"#;

/// Prepares a trial in the folder `$1`, by the commands `$2`.
const SETUP: &str = r#"cd "$1" && rm -rf work && mkdir work && echo x > work/file && eval "$2""#;

/// Clears up after a trial in the folder `$1`, by the commands `$2`.
const CLEANUP: &str = r#"cd "$1" && eval "$2""#;

/// Why no question can be asked.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The folder cannot be made.
    #[error("could not make the folder `{0}`")]
    Folder(Utf8PathBuf, #[source] io::Error),
    /// Its path would have to be escaped.
    #[error("the folder `{0}` has a name that is not plain\nhint: set TMPDIR to a folder with a plain name")]
    Name(Utf8PathBuf),
}

/// Where questions are asked: a folder, removed in the end, and a host.
#[derive(Debug)]
pub struct Bench {
    host: Host,
    folder: Utf8PathBuf,
    log_pause: Duration,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What is left of a folder for temporary files is the system's to remove.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Bench {
    /// A bench in a new folder in `parent`; the log is given `log_pause` before it is asked, and again each time.
    ///
    /// # Errors
    /// The folder cannot be made, or has a name that a profile could not hold as it is.
    pub fn set(host: Host, parent: &Utf8Path, log_pause: Duration) -> Result<Self, BenchError> {
        // The kernel compares resolved paths.
        let parent = parent
            .canonicalize_utf8()
            .map_err(|source| BenchError::Folder(parent.to_owned(), source))?;
        let folder = parent.join(format!("ephemerd-probes-{}", std::process::id()));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
        if !folder.as_str().chars().all(is_plain) {
            return Err(BenchError::Name(folder));
        }
        let error = |source| BenchError::Folder(folder.clone(), source);
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(error)?;
        let bench = Self {
            host,
            folder,
            log_pause,
        };
        bench.build_look();
        Ok(bench)
    }

    /// The folder.
    pub fn folder(&self) -> &Utf8Path {
        &self.folder
    }

    /// Compiles `look`, without which some probes are not tried.
    fn build_look(&self) {
        let source = self.folder.join("look.c");
        if fs::write(&source, include_str!("look.c")).is_ok() {
            // A host without a compiler is no failure; the probes that need it say that they were not tried.
            let _ = self.shell("cd \"$1\" && cc -o look look.c", &[]);
        }
    }

    /// Asks one question.
    pub fn ask(&self, probe: &Probe, release: Release) -> Finding {
        let believed = probe.believed(release);
        let mut finding = Finding {
            id: probe.id,
            question: probe.question,
            answer: "not-tried",
            believed,
            agrees: None,
            why: None,
            raw: Vec::new(),
        };
        match self.trials(probe, &mut finding.raw) {
            Ok(()) => {
                let outcomes: Vec<Outcome> = finding.raw.iter().map(|seen| seen.outcome).collect();
                let answer = probe.answer(&outcomes);
                finding.answer = answer.unwrap_or("unclear");
                finding.agrees = answer.map(|answer| answer == believed);
            }
            Err(why) => finding.why = Some(why),
        }
        finding
    }

    /// Runs everything a probe tries; says what kept it from it.
    fn trials(&self, probe: &Probe, seen: &mut Vec<Seen>) -> Result<(), String> {
        let control = self.prepared(probe, || self.act(probe, None))?;
        if control.status.code() != Some(0) {
            return Err(format!(
                "it fails without a sandbox: {}",
                start_of(control.stderr.trim())
            ));
        }
        for (number, trial) in (0..).zip(&probe.trials) {
            let job = JobId::new(SystemTime::now(), number);
            let work = self.folder.join("work");
            let text = profile(probe.id, trial, work.as_str(), &tag(&job));
            let file = self.folder.join("profile.sb");
            fs::write(&file, &text).map_err(|error| error.to_string())?;
            let output = self.prepared(probe, || self.act(probe, Some(&file)))?;
            let mut outcome = outcome(&output);
            if outcome == Outcome::Denied && probe.asks_the_log() {
                outcome = self.reported(job)?;
            }
            seen.push(Seen {
                rules: start_of(&trial.rules.join("\n")),
                code: output.status.code(),
                outcome,
                said: start_of(output.stderr.trim()),
            });
        }
        Ok(())
    }

    /// What `run` gives between setup and cleanup.
    fn prepared(
        &self,
        probe: &Probe,
        run: impl FnOnce() -> Result<Output, CommandError>,
    ) -> Result<Output, String> {
        let said = |error: CommandError| error.to_string();
        let output = self.shell(SETUP, &[probe.setup]).map_err(said)?;
        let result = if output.status.success() {
            run().map_err(said)
        } else {
            Err(format!(
                "it cannot be prepared: `{}` {}",
                probe.setup,
                start_of(output.stderr.trim())
            ))
        };
        self.shell(CLEANUP, &[probe.cleanup]).map_err(said)?;
        result
    }

    /// Runs what is tried, under a profile or without one.
    fn act(&self, probe: &Probe, profile: Option<&Utf8Path>) -> Result<Output, CommandError> {
        let profile = profile.map_or("", Utf8Path::as_str);
        let victim = if probe.victim { "yes" } else { "" };
        let mut args = vec![self.host.mac.sandbox_exec.as_str(), profile, victim];
        args.extend(&probe.act);
        self.shell(DRIVER, &args)
    }

    /// Whether the log has the message of a trial.
    fn reported(&self, job: JobId) -> Result<Outcome, String> {
        let query = Query {
            job: Some(job),
            last: TIMEOUT,
            deadline: DEADLINE,
        };
        for _ in 0..LOOKS {
            thread::sleep(self.log_pause);
            let reading = ask(&self.host, &query).map_err(|error| error.to_string())?;
            if !reading.records.is_empty() {
                return Ok(Outcome::Tagged);
            }
        }
        Ok(Outcome::Untagged)
    }

    fn shell(&self, script: &str, args: &[&str]) -> Result<Output, CommandError> {
        let fixed = ["-c", script, "sh", self.folder.as_str()];
        let args = [&fixed, args].concat();
        command::run(&CommandSpec::new("/bin/sh".into(), &args, TIMEOUT))
    }
}

/// The text of a trial's profile, with the probe's id as a comment; `work` is its folder.
pub fn profile(id: &str, trial: &Trial, work: &str, tag: &str) -> String {
    let rules = trial.rules.join("\n");
    format!("(version 1)\n; {id}\n{rules}\n")
        .replace("{work}", work)
        .replace("{tag}", tag)
}

fn outcome(output: &Output) -> Outcome {
    match output.status.code() {
        Some(0) => Outcome::Allowed,
        Some(code) if REFUSALS.contains(&code) && output.stderr.contains("sandbox-exec: ") => {
            Outcome::Refused
        }
        Some(_) | None => Outcome::Denied,
    }
}

/// The first of a text.
fn start_of(text: &str) -> String {
    match text.char_indices().nth(KEPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
