//! `ephemerd config`: whether a configuration is right, and what it amounts to.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::Format;
use crate::config::show::{Row, rows, show};
use crate::config::{ConfigError, Loaded, Problem, load, load_or_default};
use crate::host::Os;

/// What to do with the configuration.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// What is asked
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// The commands of `ephemerd config`.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong with a configuration; exit code 2 when something is
    Check {
        /// The file; unless given, the one the daemon would read
        file: Option<Utf8PathBuf>,
        /// How to answer
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Print every key with its value and where that stands
    Show {
        /// How to answer
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

/// Answers about the configuration at `path`, or else at the default place.
///
/// # Errors
///
/// When the file cannot be read, when `show` is asked about a wrong one, or when standard output cannot be
/// written.
pub fn run(args: &ConfigArgs, path: Option<&Utf8Path>) -> anyhow::Result<ExitCode> {
    let (code, text) = match &args.command {
        ConfigCommand::Check {
            file: Some(file),
            format,
        } => check(load(file), *format)?,
        ConfigCommand::Check { file: None, format } => check(load_or_default(path, Os::host()), *format)?,
        ConfigCommand::Show { format } => (0, shown(&load_or_default(path, Os::host())?, *format)?),
    };
    writeln!(io::stdout(), "{}", text.trim_end()).context("could not write the answer")?;
    Ok(ExitCode::from(code))
}

/// The exit code and text of `check`. A wrong configuration is an answer here and not an error; 2 is the code
/// with which every other command ends on it.
fn check(loaded: Result<Loaded, ConfigError>, format: Format) -> anyhow::Result<(u8, String)> {
    #[derive(Serialize)]
    struct Checked<'a> {
        file: &'a str,
        problems: &'a [Problem],
    }
    let (code, text, file, problems) = match loaded {
        Ok(loaded) => (0, format!("{}: no errors", loaded.file), loaded.file, Vec::new()),
        Err(error) => {
            let text = error.to_string();
            match error {
                ConfigError::Invalid { file, problems } => (2, text, file, problems),
                ConfigError::Read { .. } => return Err(error.into()),
            }
        }
    };
    let text = match format {
        Format::Text => text,
        Format::Json => serde_json::to_string_pretty(&Checked {
            file: &file,
            problems: &problems,
        })?,
    };
    Ok((code, text))
}

fn shown(loaded: &Loaded, format: Format) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Shown<'a> {
        file: &'a str,
        keys: Vec<Row>,
    }
    match format {
        Format::Text => Ok(show(loaded)),
        Format::Json => Ok(serde_json::to_string_pretty(&Shown {
            file: &loaded.file,
            keys: rows(loaded),
        })?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn check_answers_with_every_problem_and_code_two() {
        let wrong = || parse("[native]\nslot = 4\nposture = \"Strict\"\n", "e.toml");
        let (code, text) = check(wrong(), Format::Text).unwrap();
        assert_eq!(code, 2);
        insta::assert_snapshot!(text, @r"
        the configuration has 2 errors
        e.toml:2:1: unknown key `native.slot`
        hint: did you mean `native.slots`?
        e.toml:3:11: `native.posture`: `Strict` is not a known value
        hint: did you mean `strict`?
        ");
        let (code, text) = check(wrong(), Format::Json).unwrap();
        assert_eq!(code, 2);
        insta::assert_snapshot!(text, @r#"
        {
          "file": "e.toml",
          "problems": [
            {
              "line": 2,
              "column": 1,
              "message": "unknown key `native.slot`\nhint: did you mean `native.slots`?"
            },
            {
              "line": 3,
              "column": 11,
              "message": "`native.posture`: `Strict` is not a known value\nhint: did you mean `strict`?"
            }
          ]
        }
        "#);
    }

    #[test]
    fn check_answers_zero_for_a_right_file() {
        let (code, text) = check(parse("native.slots = 2", "e.toml"), Format::Text).unwrap();
        assert_eq!((code, text.as_str()), (0, "e.toml: no errors"));
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_and_not_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("none.toml")).unwrap();
        assert!(check(load(&path), Format::Text).is_err());
    }

    #[test]
    fn show_answers_in_json_with_origins() {
        let text = shown(&parse("\nnative.slots = 2", "e.toml").unwrap(), Format::Json).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let slots = &answer["keys"].as_array().unwrap();
        let slots = slots.iter().find(|key| key["key"] == "native.slots").unwrap();
        assert_eq!(
            (slots["value"].as_str(), slots["origin"].as_str()),
            (Some("2"), Some("e.toml:2"))
        );
    }
}
