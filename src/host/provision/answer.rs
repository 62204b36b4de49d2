//! Answers, by looking. All questions are answered at the same time, each in a thread of its own: most of them wait
//! for a tool, and the slowest decides how long all take.

mod disk;
mod files;
mod library;
mod tools;

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use self::files::{hash, look_entry};
pub use self::library::{NO_LIBRARY, load};
pub use self::tools::AnswerError;
pub(super) use self::tools::prepared;

use self::disk::disk;
use self::files::{list, look, read, resolve, writable};
use self::library::load_elsewhere;
use self::tools::{find, run_tool};
use crate::host::{Host, egress, os, probe};
use crate::provision::question::{Ability, Answer, Question, View};

/// Questions that are answered at once; more than any manifest has, and few enough for the limits of a job.
const AT_ONCE: usize = 128;

/// How long a question about files may take: a dead network file system never answers.
const FILES: Duration = Duration::from_secs(20);

/// What a tool gets besides its own time, to be ended and to hand over what it said.
const SLACK: Duration = Duration::from_secs(5);

/// Answers all `questions`, in their order, with the eyes of this process. `view` says what those are: as a job it
/// starts tools in its own surroundings, otherwise in a clean one. `told` is called with the number of answers so far.
pub fn answer_all(host: &Host, view: View, questions: &[Question], told: &dyn Fn(usize)) -> Vec<Answer> {
    let limit = |question: &Question| match question {
        Question::Run(tool) => Duration::from_millis(tool.timeout_ms) + SLACK,
        _ => FILES + SLACK,
    };
    let rounds = u32::try_from(questions.len().div_ceil(AT_ONCE)).unwrap_or(u32::MAX);
    let slowest = questions.iter().map(limit).max().unwrap_or_default();
    let deadline = Instant::now() + slowest.saturating_mul(rounds);
    let left: Vec<(usize, Question)> = questions.iter().cloned().enumerate().rev().collect();
    let left = Arc::new(Mutex::new(left));
    let (send, answered) = channel();
    let mut threads = 0;
    for _ in 0..questions.len().min(AT_ONCE) {
        let (left, send, host) = (Arc::clone(&left), send.clone(), host.clone());
        let work = move || {
            loop {
                let taken = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some((at, question)) = taken else { return };
                if send.send((at, answer(&host, view, &question))).is_err() {
                    return;
                }
            }
        };
        // A job may have fewer threads than questions; the others do the rest. One that never comes back is left
        // alone: nothing can end a system call that hangs.
        if std::thread::Builder::new().spawn(work).is_err() {
            break;
        }
        threads += 1;
    }
    drop(send);
    let mut answers = vec![None; questions.len()];
    let mut count = 0;
    while threads > 0 && count < questions.len() {
        match answered.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((at, answer)) => {
                answers[at] = Some(answer);
                count += 1;
                told(count);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    let unanswered = if threads > 0 {
        Answer::TimedOut
    } else {
        Answer::Failed("no thread could be started to look".to_owned())
    };
    answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(|| unanswered.clone()))
        .collect()
}

/// Answers one question.
fn answer(host: &Host, view: View, question: &Question) -> Answer {
    match question {
        Question::Run(tool) => run_tool(view, tool),
        Question::Find { name, path } => find(name, path),
        Question::Look { path, digest } => look(path, *digest),
        Question::Resolve(path) => resolve(path),
        Question::Read(path) => read(path),
        Question::List(path) => list(path),
        Question::Load(library) => load_elsewhere(library),
        Question::Variable(name) => match std::env::var(name) {
            Ok(value) => Answer::Text(value),
            Err(std::env::VarError::NotPresent) => Answer::Missing,
            Err(error @ std::env::VarError::NotUnicode(_)) => Answer::Failed(error.to_string()),
        },
        Question::Writable(path) => writable(path),
        Question::Disk(path) => disk(host, path),
        Question::Ability(ability) => able(host, *ability),
    }
}

/// What an error says about the thing that was asked for.
fn failed(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Answer::Missing,
        io::ErrorKind::PermissionDenied => Answer::Denied,
        _ => Answer::Failed(error.to_string()),
    }
}

fn able(host: &Host, ability: Ability) -> Answer {
    match ability {
        Ability::PacketFilter => match egress::available(host) {
            Ok(()) => Answer::Text("available".to_owned()),
            Err(error) => Answer::Failed(crate::chain(&error)),
        },
        Ability::Landlock => match os::landlock_abi() {
            Ok(abi) => Answer::Text(abi.to_string()),
            Err(_) => Answer::Missing,
        },
        Ability::Namespaces => match probe::missing_namespaces() {
            missing if missing.is_empty() => Answer::Text("available".to_owned()),
            missing => Answer::Failed(format!("the kernel has no namespaces of {}", missing.join(", "))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use camino::{Utf8Path, Utf8PathBuf};

    use crate::provision::question::Tool;

    pub(super) fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        (folder, path)
    }

    pub(super) fn ask(question: Question) -> Answer {
        answer(&Host::system(), View::Host, &question)
    }

    pub(super) fn program(path: &Utf8Path, text: &str) {
        fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn everything_is_answered_at_once_and_in_order() {
        let (_keep, top) = folder();
        // Each waits for all others, so that one after the other would never end.
        program(
            &top.join("meet"),
            "touch \"$1/met-$2\"; while [ $(ls \"$1\" | grep -c met-) -lt 20 ]; do sleep 0.05; done; echo $2",
        );
        let questions: Vec<_> = (0..20)
            .map(|n| Question::Run(Tool::at(&top.join("meet"), &[top.as_str(), &n.to_string()])))
            .collect();
        let answers = answer_all(&Host::system(), View::Host, &questions, &|_| {});
        for (n, answer) in answers.iter().enumerate() {
            assert!(
                matches!(answer, Answer::Ran(ran) if ran.stdout == format!("{n}\n")),
                "{answer:?}"
            );
        }
    }
}
