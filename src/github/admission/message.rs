//! What a hook says, and its bounds.

use serde::{Deserialize, Serialize};

use crate::job::{NounError, Repo};

/// Bytes a message may have, with the end of its line.
pub const LONGEST: usize = 16 * 1024;

/// Bytes one word of it may have. GitHub's own names are shorter.
const WORD: usize = 1024;

/// What a job says of itself before its first step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The repository whose workflow it is.
    pub repository: Repo,
    /// The run it belongs to.
    pub run_id: u64,
    /// Which attempt of the run.
    pub run_attempt: u64,
    /// Its key in the workflow's file.
    pub job: String,
    /// The event that caused it.
    pub event: String,
    /// The commit it runs for.
    pub sha: String,
    /// The name of its runner.
    pub runner: String,
    /// Whether the file is there that tells of the event. GitHub writes it before the hook runs.
    pub event_file: bool,
}

/// Why something is no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The runner did not say it.
    #[error("`{0}` is not set\nhint: only GitHub's runner starts this, as its job-started hook")]
    Unset(&'static str),
    /// What the runner said is not what it should be.
    #[error("`{name}` is `{value}`, which is no number")]
    Number {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The repository is none.
    #[error("`GITHUB_REPOSITORY` names no repository")]
    Repository(#[source] NounError),
    /// A word is too long, or holds what a terminal would obey.
    #[error("`{0}` is not one word of at most {WORD} bytes")]
    Word(&'static str),
    /// It is longer than [`LONGEST`].
    #[error("it has more than {LONGEST} bytes")]
    TooLong,
    /// It is something else.
    #[error("it is no message")]
    Parse(#[source] serde_json::Error),
}

impl Message {
    /// What the runner says of its job in the environment of a hook (docs/adrs/1751-runner-job-hooks.md); `is_there` says
    /// whether there is a file.
    ///
    /// # Errors
    /// It does not say everything.
    pub fn from_environment(
        variable: impl Fn(&'static str) -> Option<String>,
        is_there: impl Fn(&str) -> bool,
    ) -> Result<Self, MessageError> {
        let text = |name| {
            variable(name)
                .filter(|value| !value.is_empty())
                .ok_or(MessageError::Unset(name))
        };
        let number = |name| {
            let value = text(name)?;
            value.parse().map_err(|_| MessageError::Number { name, value })
        };
        let message = Self {
            repository: text("GITHUB_REPOSITORY")?
                .parse()
                .map_err(MessageError::Repository)?,
            run_id: number("GITHUB_RUN_ID")?,
            run_attempt: number("GITHUB_RUN_ATTEMPT")?,
            job: text("GITHUB_JOB")?,
            event: text("GITHUB_EVENT_NAME")?,
            sha: text("GITHUB_SHA")?,
            runner: text("RUNNER_NAME")?,
            event_file: variable("GITHUB_EVENT_PATH").is_some_and(|path| is_there(&path)),
        };
        message.bounded()
    }

    /// Reads one line, with or without its end.
    ///
    /// # Errors
    /// It is too long, no message, or one of its words is too long.
    pub fn parse(line: &[u8]) -> Result<Self, MessageError> {
        if line.len() > LONGEST {
            return Err(MessageError::TooLong);
        }
        let message: Self = serde_json::from_slice(line).map_err(MessageError::Parse)?;
        message.bounded()
    }

    fn bounded(self) -> Result<Self, MessageError> {
        let words = [
            ("job", &self.job),
            ("event", &self.event),
            ("sha", &self.sha),
            ("runner", &self.runner),
        ];
        let is_word =
            |word: &str| !word.is_empty() && word.len() <= WORD && !word.chars().any(char::is_control);
        let wrong = words.into_iter().find(|(_, word)| !is_word(word));
        match wrong.map(|(name, _)| name) {
            Some(name) => Err(MessageError::Word(name)),
            None => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn runner(name: &'static str) -> Option<String> {
        let value = match name {
            "GITHUB_REPOSITORY" => "acme/app",
            "GITHUB_RUN_ID" => "77",
            "GITHUB_RUN_ATTEMPT" => "2",
            "GITHUB_JOB" => "build",
            "GITHUB_EVENT_NAME" => "push",
            "GITHUB_SHA" => "c0ffee",
            "RUNNER_NAME" => "mac01-9f2c",
            "GITHUB_EVENT_PATH" => "/jobs/7/event.json",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn what_the_runner_says_becomes_one_line_and_is_read_back() {
        let message = Message::from_environment(runner, |path| path == "/jobs/7/event.json").unwrap();
        let line = serde_json::to_string(&message).unwrap();
        insta::assert_snapshot!(line, @r#"{"repository":"acme/app","run_id":77,"run_attempt":2,"job":"build","event":"push","sha":"c0ffee","runner":"mac01-9f2c","event_file":true}"#);
        assert_eq!(Message::parse(line.as_bytes()).unwrap(), message);
        assert_eq!(Message::parse(format!("{line}\n").as_bytes()).unwrap(), message);
        assert!(!Message::from_environment(runner, |_| false).unwrap().event_file);
    }

    #[test]
    fn what_the_runner_does_not_say_or_says_badly_is_named() {
        for missing in [
            "GITHUB_REPOSITORY",
            "GITHUB_RUN_ID",
            "GITHUB_RUN_ATTEMPT",
            "GITHUB_JOB",
            "GITHUB_EVENT_NAME",
            "GITHUB_SHA",
            "RUNNER_NAME",
        ] {
            for value in [None, Some(String::new())] {
                let without = |name| {
                    if name == missing {
                        value.clone()
                    } else {
                        runner(name)
                    }
                };
                let error = Message::from_environment(without, |_| true).unwrap_err();
                assert!(
                    error
                        .to_string()
                        .starts_with(&format!("`{missing}` is not set\nhint:")),
                    "{error}"
                );
            }
        }
        let with = |name, value: &str| {
            let variable = |asked| {
                if asked == name {
                    Some(value.to_owned())
                } else {
                    runner(asked)
                }
            };
            Message::from_environment(variable, |_| true)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            with("GITHUB_RUN_ID", "-1"),
            "`GITHUB_RUN_ID` is `-1`, which is no number"
        );
        assert_eq!(
            with("GITHUB_REPOSITORY", "acme"),
            "`GITHUB_REPOSITORY` names no repository"
        );
        assert_eq!(
            with("GITHUB_JOB", "a\nb"),
            "`job` is not one word of at most 1024 bytes"
        );
        assert_eq!(
            with("RUNNER_NAME", &"x".repeat(1025)),
            "`runner` is not one word of at most 1024 bytes"
        );
    }

    #[test]
    fn more_than_a_message_is_none() {
        let good = serde_json::to_value(Message::from_environment(runner, |_| true).unwrap()).unwrap();
        let parse = |value: &serde_json::Value| Message::parse(value.to_string().as_bytes());
        let with = |key: &str, value: serde_json::Value| {
            let mut more = good.clone();
            more[key] = value;
            parse(&more).unwrap_err()
        };
        assert!(parse(&good).is_ok());
        assert!(matches!(with("admin", json!(true)), MessageError::Parse(_)));
        assert!(matches!(with("run_id", json!("77")), MessageError::Parse(_)));
        assert!(matches!(
            with("repository", json!("../..")),
            MessageError::Parse(_)
        ));
        assert!(matches!(
            with("event", json!("a\u{1b}[2J")),
            MessageError::Word("event")
        ));
        assert!(matches!(
            with("sha", json!("x".repeat(LONGEST))),
            MessageError::TooLong
        ));
        for line in ["", "{}", "null", "[1]", "{\"repository\":", "\u{0}"] {
            assert!(
                matches!(Message::parse(line.as_bytes()), Err(MessageError::Parse(_))),
                "{line:?}"
            );
        }
    }

    proptest! {
        /// Whatever comes, it is read or refused, and what is read is as bounded as it should be.
        #[test]
        fn nothing_that_comes_breaks_the_bounds(line in proptest::collection::vec(any::<u8>(), 0..200), word in ".*") {
            let _ = Message::parse(&line);
            let mut value = serde_json::to_value(Message::from_environment(runner, |_| true).unwrap()).unwrap();
            value["job"] = word.into();
            if let Ok(message) = Message::parse(value.to_string().as_bytes()) {
                prop_assert!(message.job.len() <= WORD && !message.job.chars().any(char::is_control));
            }
        }
    }
}
