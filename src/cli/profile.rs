//! `ephemerd profile`: renders the profile a job gets, and verifies that profiles hold.

pub mod diff;
pub mod explain;
pub mod render;
mod source;
pub mod verify;

use std::process::ExitCode;
use std::time::SystemTime;

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};

use crate::config::Loaded;
use crate::host::Host;
use crate::job::JobId;

/// Arguments of `profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    #[command(subcommand)]
    pub(super) command: ProfileCommand,
}

impl ProfileArgs {
    /// Whether nothing is started that has to be ended.
    pub(super) fn only_answers(&self) -> bool {
        match &self.command {
            ProfileCommand::Render(_)
            | ProfileCommand::Explain(_)
            | ProfileCommand::Diff(_)
            | ProfileCommand::Lint(_) => true,
            ProfileCommand::Verify(args) => args.no_probes,
            ProfileCommand::Denials(_) | ProfileCommand::ProbeSemantics(_) => false,
        }
    }

    /// Whether the exit code 1 is an answer, so that errors need another one.
    pub(super) fn compares(&self) -> bool {
        matches!(
            self.command,
            ProfileCommand::Explain(_) | ProfileCommand::Diff(_) | ProfileCommand::Lint(_)
        )
    }
}

/// What to do with profiles.
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// Print the profile a job would get. Works on any host, without accounts or root.
    Render(render::RenderArgs),
    /// Say what a profile answers for one operation on one target, and by which rule. Ends with 0 when it is
    /// allowed, with 1 when it is denied. Works on any host.
    Explain(explain::ExplainArgs),
    /// Compare two profiles by effect: for every difference a target, and the rule of each that decides about it.
    /// Ends with 0 when they do the same, with 1 when they do not. Works on any host.
    Diff(diff::DiffArgs),
    /// Check that profiles guarantee what they must: by evaluation, and by attempts inside the real sandbox of
    /// this host. Ends with 1 when anything is not as it must be.
    Verify(verify::VerifyArgs),
    /// Tell what sandbox profiles of macOS say and do not mean. Works on any host. Ends with 1 when anything is
    /// found, and with 2 when a file is no profile.
    Lint(super::lint::LintArgs),
    /// List what the sandbox of macOS kept jobs from, and what would allow it. Reads the unified log of this host.
    Denials(super::denials::DenialsArgs),
    /// Ask the sandbox of this Mac how it decides where sources disagree, and compare the answers with what `explain`
    /// and `verify` go by.
    ProbeSemantics(super::semantics::SemanticsArgs),
}

/// Renders or verifies.
///
/// # Errors
/// A profile cannot be made, or the probes cannot be run.
pub fn run(
    args: &ProfileArgs,
    host: &Host,
    loaded: Loaded,
    config_file: Utf8PathBuf,
) -> anyhow::Result<ExitCode> {
    match &args.command {
        ProfileCommand::ProbeSemantics(args) => super::semantics::run(args, host, &mut std::io::stdout()),
        ProfileCommand::Lint(args) => super::lint::run(args),
        ProfileCommand::Denials(args) => {
            super::denials::run(args, &loaded.config, config_file, host, &mut std::io::stdout())
        }
        ProfileCommand::Render(args) => render::run(args, loaded.config, &config_file),
        ProfileCommand::Explain(args) => explain::run(args, &loaded.config, &config_file),
        ProfileCommand::Diff(args) => diff::run(args, &loaded.config, &config_file),
        ProfileCommand::Verify(args) => verify::run(args, host, &loaded.config, &config_file),
    }
}

/// The id rendered where there is no job.
fn example_job() -> JobId {
    JobId::new(SystemTime::UNIX_EPOCH, 0)
}
