//! `__probe`: runs live probes, hidden because only `profile verify`, tests and the hostile job call it.
//!
//! It must run before any thread is started: probes fork.

use std::process::ExitCode;

use anyhow::Context;
use camino::Utf8PathBuf;
use clap::Args;

use crate::probe::{self, Attempt, Report, Target, Verdict};

/// Arguments of `__probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// What is outside, as JSON; guessed from HOME when left out.
    #[arg(long, value_name = "JSON")]
    target: Option<String>,
    /// Run the probes of macOS, with what is outside as JSON.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["target", "only", "hostile"])]
    outside: Option<String>,
    /// Run only this probe; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Print a table for people, and end with 1 if anything got through.
    #[arg(long)]
    hostile: bool,
    /// Play the sibling that is attacked.
    #[arg(long, hide = true)]
    stand_in: bool,
}

/// How many processes a job may have by default; only used where no target says otherwise.
const PROCESS_LIMIT: u64 = 2048;

impl ProbeArgs {
    /// Runs the probes and prints the reports: one JSON array, or with `--hostile` a table.
    ///
    /// # Errors
    /// When the target cannot be read or guessed, or a probe has no such name.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let Self {
            target,
            outside,
            only,
            hostile,
            stand_in,
        } = self;
        if let Some(text) = outside {
            let outside = serde_json::from_str(text).context("could not read what is outside")?;
            println!(
                "{}",
                serde_json::to_string(&probe::seatbelt::attempt_all(&outside))?
            );
            return Ok(ExitCode::SUCCESS);
        }
        if *stand_in {
            probe::stand_in()?;
            return Ok(ExitCode::SUCCESS);
        }
        let target = match target {
            Some(text) => serde_json::from_str(text).context("could not read the target")?,
            None => {
                let home = std::env::var("HOME").context("could not read HOME")?;
                Target::guess(&Utf8PathBuf::from(home), PROCESS_LIMIT)?
            }
        };
        let only = (!only.is_empty()).then_some(only.as_slice());
        let reports = probe::attempt_all(&target, only)?;
        if *hostile {
            print!("{}", as_table(&reports));
            let held = reports.iter().all(Report::is_fine);
            return Ok(if held {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        println!("{}", serde_json::to_string(&reports)?);
        Ok(ExitCode::SUCCESS)
    }
}

/// The verdict in one word; what only the outside can judge is called so.
fn verdict(report: &Report) -> String {
    match report.attempt {
        Attempt::Planted { .. } => "outside".to_owned(),
        _ => report.verdict.to_string(),
    }
}

/// The reports for people: one line each, and a summary.
fn as_table(reports: &[Report]) -> String {
    let width = reports.iter().map(|report| report.name.len()).max().unwrap_or(0);
    let mut lines = vec![format!("{:width$}  {:8}  {}", "attempt", "verdict", "stopped by")];
    lines.extend(reports.iter().map(|report| {
        format!(
            "{:width$}  {:8}  {}",
            report.name,
            verdict(report),
            stopped_by(report)
        )
    }));
    let count = |verdict| reports.iter().filter(|report| report.verdict == verdict).count();
    lines.push(format!(
        "\n{} held, {} broken, {} work, {} hampered, {} unknown",
        count(Verdict::Held),
        count(Verdict::Broken),
        count(Verdict::Works),
        count(Verdict::Hampered),
        count(Verdict::Unknown),
    ));
    lines.join("\n") + "\n"
}

/// What stopped the attempt; a benign one that worked was stopped by nothing, and that is no news.
fn stopped_by(report: &Report) -> String {
    match report.verdict {
        Verdict::Works => "-".to_owned(),
        Verdict::Held | Verdict::Broken | Verdict::Hampered | Verdict::Unknown => report.attempt.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Attempt;

    #[test]
    fn the_table_names_what_stopped_each_attempt() {
        let attempts = [
            ("ia32-system-call", Attempt::Killed { signal: libc::SIGSYS }),
            (
                "io-uring",
                Attempt::Succeeded {
                    detail: "io_uring_setup".to_owned(),
                },
            ),
            (
                "write-dev-null",
                Attempt::Succeeded {
                    detail: "write /dev/null".to_owned(),
                },
            ),
        ];
        let table = probe::table();
        let reports: Vec<_> = attempts
            .into_iter()
            .map(|(name, attempt)| Report::new(table.iter().find(|info| info.name == name).unwrap(), attempt))
            .collect();
        insta::assert_snapshot!(as_table(&reports), @r"
        attempt           verdict   stopped by
        ia32-system-call  held      SIGSYS
        io-uring          BROKEN    done: io_uring_setup
        write-dev-null    works     -

        1 held, 1 broken, 1 work, 0 hampered, 0 unknown
        ");
    }
}
