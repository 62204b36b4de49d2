//! `ephemerd provision`: what this host must have, beside what it has.

mod apply;
mod check;
mod format;
mod other;
mod scan;

pub(crate) use apply::undo_text;
pub(crate) use check::look_at;
pub(crate) use format::rendered;

use std::process::ExitCode;

use camino::Utf8PathBuf;
use clap::{Args, Subcommand, ValueEnum};

use crate::config::Loaded;
use crate::host::Host;
use crate::job::Repo;

/// `ephemerd provision`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ProvisionArgs {
    /// What else to do with manifests.
    #[command(subcommand)]
    command: Option<ProvisionCommand>,
    #[command(flatten)]
    check: CheckArgs,
}

/// The commands of `ephemerd provision`.
#[derive(Debug, Subcommand)]
enum ProvisionCommand {
    /// Find what workflows presume of a host and its manifest lacks
    Scan(scan::ScanArgs),
    /// Write a manifest from what is on this host
    Capture(other::CaptureArgs),
    /// Write a manifest as another tool wants it
    Export(other::ExportArgs),
    /// Take back what `--apply` has done, as far as that can be
    Revert(apply::RevertArgs),
}

/// Arguments of the check, the plan and the change.
#[derive(Debug, Args)]
struct CheckArgs {
    /// Say how the host stands; this is what is done when nothing is asked for
    #[arg(long, group = "verb")]
    check: bool,
    /// Say what would be done to put it right
    #[arg(long, group = "verb")]
    plan: bool,
    /// Put it right (needs root for most of it)
    #[arg(long, group = "verb")]
    apply: bool,
    /// This manifest instead of `host.manifest`: one that comes with the program, or a path
    #[arg(long, value_name = "NAME|FILE")]
    manifest: Option<String>,
    /// The manifest of this repository, as its jobs see the host
    #[arg(long, value_name = "OWNER/NAME", conflicts_with = "manifest")]
    repo: Option<Repo>,
    /// How to answer
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ReportFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON value.
    Json,
    /// XML as test runners write it, for CI systems that show it.
    Junit,
    /// A table for a summary page.
    Markdown,
}

impl ProvisionArgs {
    /// Whether its 1 is an answer.
    pub(super) fn compares(&self) -> bool {
        match &self.command {
            Some(ProvisionCommand::Scan(_) | ProvisionCommand::Export(_)) => true,
            Some(ProvisionCommand::Capture(_) | ProvisionCommand::Revert(_)) => false,
            None => !self.check.apply,
        }
    }

    /// Whether it does nothing but answer.
    pub(super) fn only_answers(&self) -> bool {
        match &self.command {
            Some(ProvisionCommand::Scan(_) | ProvisionCommand::Capture(_) | ProvisionCommand::Export(_)) => {
                true
            }
            Some(ProvisionCommand::Revert(_)) => false,
            // A check runs a job, which is to be ended and not left.
            None => false,
        }
    }
}

/// Does what is asked.
///
/// # Errors
/// The manifest is wrong, or what is asked cannot be done.
pub fn run(
    args: &ProvisionArgs,
    host: &Host,
    loaded: Loaded,
    config_file: Utf8PathBuf,
) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(ProvisionCommand::Scan(args)) => scan::run(args, host, &loaded.config),
        Some(ProvisionCommand::Capture(args)) => other::capture(args, host, &loaded.config),
        Some(ProvisionCommand::Export(args)) => other::export(args, host, &loaded.config),
        Some(ProvisionCommand::Revert(args)) => apply::run_revert(args, host, &loaded),
        None => {
            let subject = apply::subject(&args.check, host, &loaded, &config_file)?;
            match &args.check {
                CheckArgs {
                    plan: true, format, ..
                } => apply::print_plan(&subject, *format),
                CheckArgs {
                    apply: true, format, ..
                } => apply::apply(&subject, *format),
                CheckArgs { format, .. } => check::run(&subject, *format),
            }
        }
    }
}
