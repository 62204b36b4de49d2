//! What a job sees: questions answered inside a real job's sandbox, by this program, as the slot's account.

use std::time::SystemTime;

use camino::Utf8Path;
use tokio_util::sync::CancellationToken;

use crate::job::JobId;
use crate::job::aside::{self, Aside, AsideError};
use crate::job::ledger::LedgerError;
use crate::job::run::Pipeline;
use crate::job::{NounError, Origin};
use crate::provision::question::{Answer, Question, shortened};
use crate::slot::Slot;

/// Longest argument of questions, well below the 128 KiB that Linux allows for one (MAX_ARG_STRLEN of execve(2)).
const ARGUMENT_BYTE: usize = 64 * 1024;

/// Why nobody looked.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The job could not be run.
    #[error(transparent)]
    Job(#[from] AsideError),
    /// No job could be begun.
    #[error("no job that looks could be begun")]
    Ledger(#[from] LedgerError),
    /// It answered something else.
    #[error("a job that looks answered nonsense: {0}")]
    Nonsense(String),
    /// It was cancelled.
    #[error("nobody looked to the end: it was cancelled")]
    Cancelled,
    /// The name that such jobs have is none.
    #[error(transparent)]
    Nobody(NounError),
}

impl LookError {
    /// The job that looked and is still to be torn down.
    pub fn unsettled(&self) -> Option<&JobId> {
        match self {
            Self::Job(AsideError::Run { job, .. }) => Some(job),
            _ => None,
        }
    }

    /// Whether the slot is out of use until the next start, and not only nothing was seen.
    pub fn spoils_the_slot(&self) -> bool {
        match self {
            Self::Job(AsideError::Run { .. }) => true,
            Self::Job(AsideError::Outcome { leftovers, .. }) => !leftovers.is_empty(),
            Self::Job(AsideError::Output { .. })
            | Self::Ledger(_)
            | Self::Nonsense(_)
            | Self::Cancelled
            | Self::Nobody(_) => false,
        }
    }
}

/// What the line of answers begins with.
pub const ANSWERS: &str = "ephemerd answers ";

/// Who looks, and where.
#[derive(Debug, Clone, Copy)]
pub struct Eyes<'a> {
    /// Runs the job that looks.
    pub pipeline: &'a Pipeline,
    /// Where; nobody else uses it.
    pub slot: &'a Slot,
    /// This program, which jobs must be able to see.
    pub program: &'a Utf8Path,
    /// Whether no daemon keeps the packet filter meanwhile.
    pub alone: bool,
    /// Ends the looking.
    pub cancel: &'a CancellationToken,
}

/// Answers `questions` as a job of `origin` would see it.
///
/// # Errors
/// See [`LookError`].
pub async fn look(eyes: Eyes<'_>, origin: Origin, questions: &[Question]) -> Result<Vec<Answer>, LookError> {
    if questions.is_empty() {
        return Ok(vec![]);
    }
    let mut command = vec![eyes.program.to_string(), "__look".to_owned()];
    for argument in arguments(questions)? {
        command.extend(["--ask".to_owned(), argument]);
    }
    let aside = Aside {
        origin,
        command,
        reason: "looks what a job sees",
        alone: eyes.alone,
        cancel: eyes.cancel.clone(),
    };
    let id = eyes.pipeline.ledger.fresh_id(SystemTime::now())?;
    let output = aside::run(eyes.pipeline, eyes.slot, id, aside).await?;
    let nonsense = |error: serde_json::Error| LookError::Nonsense(error.to_string());
    // What the loader or a library says of itself stands before it.
    let told = output.lines().rev().find_map(|line| line.strip_prefix(ANSWERS));
    let told = told.ok_or_else(|| LookError::Nonsense(shortened(&output)))?;
    let answers: Vec<Answer> = serde_json::from_str(told).map_err(nonsense)?;
    if answers.len() == questions.len() {
        Ok(answers)
    } else {
        Err(LookError::Nonsense("it left questions open".to_owned()))
    }
}

/// The questions as JSON arrays, none of them too long for an argument.
fn arguments(questions: &[Question]) -> Result<Vec<String>, LookError> {
    let mut arguments = vec![];
    let mut texts: Vec<String> = vec![];
    let mut length = 0;
    for question in questions {
        let text = serde_json::to_string(question).map_err(|error| LookError::Nonsense(error.to_string()))?;
        if length + text.len() > ARGUMENT_BYTE && !texts.is_empty() {
            arguments.push(format!("[{}]", std::mem::take(&mut texts).join(",")));
            length = 0;
        }
        length += text.len() + 1;
        texts.push(text);
    }
    arguments.push(format!("[{}]", texts.join(",")));
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_questions_are_split_into_arguments_that_are_short_enough_and_lose_none() {
        let questions: Vec<Question> = (0..5000)
            .map(|n| Question::Read(format!("/some/long/path/{n}").into()))
            .collect();
        let arguments = arguments(&questions).unwrap();
        assert!(arguments.len() > 1);
        let mut back: Vec<Question> = vec![];
        for argument in &arguments {
            assert!(argument.len() < 128 * 1024);
            back.extend(serde_json::from_str::<Vec<Question>>(argument).unwrap());
        }
        assert_eq!(back, questions);
    }
}
