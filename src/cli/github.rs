//! `ephemerd github`: whether GitHub lets this host do what its configuration wants.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Format;
use crate::config::Config;
use crate::daemon::github;
use crate::github::check::{Finding, Level, check};

/// Arguments of `github`.
#[derive(Debug, Args)]
pub struct GitHubArgs {
    /// What to do.
    #[command(subcommand)]
    command: GitHubCommand,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum GitHubCommand {
    /// Ask GitHub whether everything is there that jobs need, and change nothing. With a scale set this asks for a
    /// registration token, which ends by itself.
    Check {
        /// How to answer.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Asks GitHub and prints what was found. The exit code is 0 when jobs can run, 1 when something keeps them from it, and 3
/// when GitHub did not answer.
///
/// # Errors
/// Nothing of GitHub is configured, or a secret cannot be read.
pub fn run(args: &GitHubArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let GitHubCommand::Check { format } = &args.command;
    let Some(github) = &config.github else {
        anyhow::bail!(
            "no jobs of GitHub are configured\nhint: name repositories in `github.repos`; docs/github.md begins at the beginning"
        );
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async {
        let (client, releases) = github::clients(github)?;
        anyhow::Ok(check(&client, &releases, config, github).await)
    })?;
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&found)?),
        Format::Text => print!("{}", text(&found)),
    }
    Ok(ExitCode::from(code(&found)))
}

fn code(found: &[Finding]) -> u8 {
    match found.iter().map(|one| one.level).max() {
        None | Some(Level::Ok | Level::Warn) => 0,
        Some(Level::Fail) => 1,
        Some(Level::Unknown) => 3,
    }
}

fn text(found: &[Finding]) -> String {
    let line = |one: &Finding| {
        let hint = one.hint.as_ref().map(|hint| format!("         hint: {hint}\n"));
        let Finding {
            level, what, found, ..
        } = one;
        format!(
            "{:<7}  {what}: {found}\n{}",
            level.to_string(),
            hint.unwrap_or_default()
        )
    };
    found.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(level: Level) -> Finding {
        Finding {
            level,
            what: "clock".to_owned(),
            found: "wrong".to_owned(),
            hint: Some("set it".to_owned()),
        }
    }

    #[test]
    fn the_worst_finding_is_the_exit_code() {
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[one(Level::Ok), one(Level::Warn)]), 0);
        assert_eq!(code(&[one(Level::Unknown), one(Level::Ok)]), 3);
        assert_eq!(code(&[one(Level::Fail), one(Level::Unknown)]), 1);
    }

    #[test]
    fn every_finding_is_a_line_with_its_remedy_below() {
        insta::assert_snapshot!(text(&[one(Level::Warn)]), @r"
        warn     clock: wrong
                 hint: set it
        ");
    }
}
