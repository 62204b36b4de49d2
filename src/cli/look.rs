//! `__look`: answers questions with the eyes of whoever runs it, hidden because only `provision` and the daemon call
//! it, inside a job's sandbox.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::daemon::look::ANSWERS;
use crate::host::Host;
use crate::host::provision::answer::{self, NO_LIBRARY};
use crate::provision::question::{Question, View};

/// Arguments of `__look`.
#[derive(Debug, Args)]
pub struct LookArgs {
    /// Questions, as a JSON array; may be repeated, because one argument must not be longer than 128 KiB (execve(2)).
    #[arg(long, value_name = "JSON")]
    ask: Vec<String>,
    /// Load this library and say how that went.
    #[arg(long, value_name = "NAME", conflicts_with = "ask")]
    load: Option<String>,
}

impl LookArgs {
    /// Prints the answers as one JSON array.
    ///
    /// # Errors
    /// The questions cannot be read.
    pub fn run(&self, host: &Host) -> anyhow::Result<ExitCode> {
        if let Some(library) = &self.load {
            return Ok(match answer::load(library) {
                Ok(found) => {
                    println!("{found}");
                    ExitCode::SUCCESS
                }
                Err((_, true)) => ExitCode::from(NO_LIBRARY),
                Err((why, false)) => {
                    println!("{why}");
                    ExitCode::FAILURE
                }
            });
        }
        let mut questions: Vec<Question> = vec![];
        for text in &self.ask {
            questions
                .extend(serde_json::from_str::<Vec<Question>>(text).context("could not read the questions")?);
        }
        let answers = answer::answer_all(host, View::Job, &questions, &|_| {});
        println!("{ANSWERS}{}", serde_json::to_string(&answers)?);
        Ok(ExitCode::SUCCESS)
    }
}
