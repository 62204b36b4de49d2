//! The check: questions to the host and to a job's sandbox at the same time, and what the answers mean.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use camino::{Utf8Path, Utf8PathBuf};

use tokio_util::sync::CancellationToken;

use super::apply::Subject;
use super::{CheckArgs, ReportFormat, format};
use crate::cli::own_program;
use crate::config::Config;
use crate::control::client::ask;
use crate::control::{self, Ask};
use crate::daemon::check::{Asked, Looked, NOBODY};
use crate::daemon::look::{Eyes, look};
use crate::daemon::start::{Claim, StartError, Started, start};
use crate::host::Host;
use crate::host::provision::answer::answer_all;
use crate::job::{Origin, Repo};
use crate::provision::manifest;
use crate::provision::question::{Answer, Question, View};

/// Checks, and prints the report.
///
/// # Errors
/// The manifest is wrong.
pub(super) fn run(subject: &Subject<'_>, format: ReportFormat) -> anyhow::Result<ExitCode> {
    let report = subject.look()?.report();
    print!("{}", format::rendered(&report, format)?);
    Ok(ExitCode::from(report.standing.exit_code()))
}

/// The manifest that is asked about.
///
/// # Errors
/// There is none.
pub(super) fn named(args: &CheckArgs, host: &Host, config: &Config) -> anyhow::Result<String> {
    if let Some(manifest) = &args.manifest {
        return Ok(manifest.clone());
    }
    if let Some(repo) = &args.repo {
        let manifest = config.repos.get(repo).and_then(|it| it.manifest.clone());
        return manifest.ok_or_else(|| {
            anyhow::anyhow!("{repo} has no manifest of its own\nhint: repos.\"{repo}\".manifest names one")
        });
    }
    let manifest = config.host.manifest(host.os).map(str::to_owned);
    manifest.ok_or_else(|| {
        anyhow::anyhow!("this host has no manifest\nhint: name one with `host.manifest` or --manifest")
    })
}

/// Loads a manifest and asks everything it wants to know.
///
/// # Errors
/// The manifest is wrong.
pub(crate) fn look_at(
    host: &Host,
    config: &Config,
    config_file: &Utf8Path,
    (name, repo): (&str, Option<&Repo>),
) -> anyhow::Result<Looked> {
    let here = Utf8PathBuf::try_from(std::env::current_dir()?)?;
    let manifest = manifest::load(name, &here)?;
    let mut config = config.clone();
    if repo.is_none() {
        // Its variables are what jobs would see.
        config.host.manifest = Some(here.join(name).into_string()).filter(|_| !manifest.files.is_empty());
        config.host.manifest = config.host.manifest.or_else(|| Some(name.to_owned()));
    }
    let nobody: Repo = NOBODY.parse()?;
    let repo = repo.unwrap_or(&nobody);
    let asked = Asked::new(host, &config, manifest);
    let progress = Progress::new(asked.outside.len());
    let (outside, inside) = std::thread::scope(|scope| {
        let asking =
            scope.spawn(|| answer_all(host, View::Host, &asked.outside, &|done| progress.tell(done)));
        let inside = as_a_job(host, config, config_file, (repo, &asked.inside));
        (asking.join().unwrap_or_default(), inside)
    });
    progress.end();
    Ok(asked.answered(outside, inside))
}

/// What a job of `repo` sees, told by a job of this process, or by the daemon where it has every slot. What keeps a
/// job from looking keeps it from running too, so that it is an answer.
fn as_a_job(
    host: &Host,
    config: Config,
    config_file: &Utf8Path,
    (repo, questions): (&Repo, &[Question]),
) -> Result<Vec<Answer>, String> {
    if questions.is_empty() {
        return Ok(vec![]);
    }
    let socket = config.control.socket.clone();
    let program = own_program().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let claim = (program.as_path(), Claim::OneSlot);
    let seen = runtime.block_on(async {
        let started = match start(host, config, config_file.to_owned(), claim).await {
            Ok(started) => started,
            Err(StartError::Busy { .. }) => return Err(None),
            Err(error) => return Err(Some(crate::chain(&error))),
        };
        let Started { pipeline, slots, .. } = &started;
        let slot = slots.first().ok_or_else(|| Some("there is no slot".to_owned()))?;
        let eyes = Eyes {
            pipeline,
            slot,
            program: &program,
            alone: true,
            cancel: &CancellationToken::new(),
        };
        let seen = look(eyes, Origin::own(repo), questions).await;
        seen.map_err(|error| Some(crate::chain(&error)))
    });
    match seen {
        Ok(answers) => Ok(answers),
        Err(Some(why)) => Err(why),
        Err(None) => ask_daemon(&socket, repo, questions),
    }
}

fn ask_daemon(socket: &Utf8Path, repo: &Repo, questions: &[Question]) -> Result<Vec<Answer>, String> {
    let question = Ask::Look {
        repo: repo.clone(),
        questions: questions.to_vec(),
    };
    match ask(socket, &question) {
        Ok((control::Answer::Seen { answers }, _)) if answers.len() == questions.len() => Ok(answers),
        Ok((control::Answer::Error { message }, _)) => Err(message),
        Ok(_) => Err("the daemon answered nonsense".to_owned()),
        Err(error) => Err(crate::chain(&error)),
    }
}

/// How far it is, on a terminal.
struct Progress {
    all: usize,
    shown: bool,
}

impl Progress {
    fn new(all: usize) -> Self {
        Self {
            all,
            shown: std::io::stderr().is_terminal(),
        }
    }

    fn tell(&self, done: usize) {
        if self.shown {
            // A terminal that has gone is no reason to stop.
            let _ = write!(std::io::stderr(), "\rlooked at {done} of {}", self.all);
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
