//! `ephemerd prune`: what the daemon does every day, now.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::Format;
use crate::config::Config;
use crate::host::accounts;
use crate::host::prune::{Pruned, prune};
use crate::job::ledger::Ledger;
use crate::prune::{Chosen, rounded};

/// Version of the JSON answer.
const VERSION: u32 = 1;

/// `ephemerd prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Only say what would be removed, and why
    #[arg(long)]
    dry_run: bool,
    /// How to answer
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    /// Whether nothing was removed.
    dry_run: bool,
    removed: &'a [Chosen],
    failed: Vec<Failure<'a>>,
    forgotten_jobs: usize,
}

#[derive(Serialize)]
struct Failure<'a> {
    #[serde(flatten)]
    chosen: &'a Chosen,
    why: String,
}

/// Prunes; ends with 1 when something that should go could not be removed.
///
/// # Errors
/// The ledger cannot be read, without which nobody knows what jobs still use.
pub fn run(args: &PruneArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let path = config.host.data_dir.join("state/ledger.db");
    let (pruned, jobs) = if path.exists() {
        let ledger = accounts::as_dispatcher(&config.host.account, || Ledger::open(&path))??;
        let live = || {
            let unfinished = ledger.unfinished()?;
            Ok::<_, anyhow::Error>(unfinished.into_iter().map(|job| job.id).collect())
        };
        let pruned = prune(config, live, args.dry_run)?;
        let keep = usize::try_from(config.prune.jobs).unwrap_or(usize::MAX);
        let forgotten = if args.dry_run {
            0
        } else {
            ledger.prune(keep)?.len()
        };
        (pruned, forgotten)
    } else {
        anyhow::ensure!(
            path.symlink_metadata()
                .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound),
            "could not look at `{path}`\nhint: run this as root"
        );
        (Pruned::default(), 0)
    };
    let Pruned { gone, failed } = &pruned;
    match args.format {
        Format::Json => {
            let failures = failed.iter().map(|(chosen, error)| Failure {
                chosen,
                why: crate::chain(error),
            });
            let answer = Answer {
                version: VERSION,
                dry_run: args.dry_run,
                removed: gone,
                failed: failures.collect(),
                forgotten_jobs: jobs,
            };
            println!("{}", serde_json::to_string_pretty(&answer)?);
        }
        Format::Text => {
            let word = if args.dry_run { "would remove" } else { "removed" };
            for chosen in gone {
                println!("{word}  {chosen}");
            }
            for (chosen, error) in failed {
                println!(
                    "stays  {chosen}\n       {}",
                    crate::chain(error).replace('\n', "\n       ")
                );
            }
            let bytes = gone.iter().map(|chosen| chosen.found.size_byte).sum();
            println!(
                "{word} {} of {} things; jobs forgotten: {jobs}",
                rounded(bytes),
                gone.len()
            );
        }
    }
    Ok(ExitCode::from(u8::from(!failed.is_empty())))
}
