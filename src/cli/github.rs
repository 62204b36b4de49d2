//! `ephemerd github`: whether GitHub lets this host do what its configuration wants.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Format;
use crate::config::Config;
use crate::daemon::github;
use crate::finding;
use crate::github::check::check;
use crate::host::secrets::Secrets;

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
        let (client, releases) = github::clients(github, &Secrets::read(github)?)?;
        anyhow::Ok(check(&client, &releases, config, github).await)
    })?;
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&found)?),
        Format::Text => print!("{}", finding::text(&found)),
    }
    Ok(ExitCode::from(finding::code(&found)))
}
