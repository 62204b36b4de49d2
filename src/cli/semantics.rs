//! `ephemerd profile probe-semantics`: asks the sandbox of this Mac what sources say differently.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::Format;
use super::table::table;
use crate::host::{Host, Os};
use crate::profile::disputed::run::Bench;
use crate::profile::disputed::{self, Finding};
use crate::profile::sbpl::Release;

/// How long a report is given to get into the log, each time the log is asked.
const LOG_PAUSE: Duration = Duration::from_secs(2);

/// Arguments of `profile probe-semantics`.
#[derive(Debug, Args)]
pub struct SemanticsArgs {
    /// The release of macOS this is, with whose semantics the answers are compared.
    #[arg(long, value_name = "RELEASE", default_value_t = Release::NEWEST)]
    pub os: Release,
    /// Ask only this; may be repeated.
    #[arg(long, value_name = "ID")]
    pub only: Vec<String>,
    /// How to answer; JSON is one object a line.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Asks every question and prints each answer to `out` as it comes. Ends with 1 when an answer is not what this
/// program believes, and with 3 where there is no such sandbox.
///
/// # Errors
/// There is no such question, no folder to ask in, or `out` cannot be written to.
pub fn run(args: &SemanticsArgs, host: &Host, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let temporary = Utf8PathBuf::try_from(std::env::temp_dir())?;
    run_in(args, host, &temporary, LOG_PAUSE, out)
}

/// The same in a folder below `parent`, with the log given `log_pause` to have a report.
///
/// # Errors
/// As for [`run`].
pub fn run_in(
    args: &SemanticsArgs,
    host: &Host,
    parent: &Utf8Path,
    log_pause: Duration,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let probes = disputed::table();
    if let Some(id) = args
        .only
        .iter()
        .find(|id| probes.iter().all(|probe| probe.id != **id))
    {
        let known: Vec<&str> = probes.iter().map(|probe| probe.id).collect();
        anyhow::bail!(
            "there is no question `{id}`\nhint: there are {}",
            known.join(", ")
        );
    }
    if host.os == Os::Linux {
        eprintln!("the sandbox in question is one of macOS; run this on a Mac");
        return Ok(ExitCode::from(3));
    }
    let bench = Bench::set(host.clone(), parent, log_pause)?;
    let mut findings = Vec::new();
    for probe in &probes {
        if !args.only.is_empty() && args.only.iter().all(|id| id != probe.id) {
            continue;
        }
        let finding = bench.ask(probe, args.os);
        if args.format == Format::Json {
            writeln!(out, "{}", serde_json::to_string(&finding)?)?;
        }
        findings.push(finding);
    }
    if args.format == Format::Text {
        out.write_all(as_text(&findings).as_bytes())?;
    }
    let disagrees = findings.iter().any(|finding| finding.agrees == Some(false));
    Ok(ExitCode::from(u8::from(disagrees)))
}

fn as_text(findings: &[Finding]) -> String {
    let row = |finding: &Finding| {
        let standing = match (finding.agrees, &finding.why) {
            (Some(true), _) => "as believed".to_owned(),
            (Some(false), _) => format!("BELIEVED: {}", finding.believed),
            (None, Some(why)) => why.lines().next().unwrap_or_default().to_owned(),
            (None, None) => format!("believed: {}", finding.believed),
        };
        [
            finding.id.to_owned(),
            finding.answer.to_owned(),
            standing,
            finding.question.to_owned(),
        ]
    };
    table(
        ["ID", "ANSWER", "STANDING", "QUESTION"],
        &findings.iter().map(row).collect::<Vec<_>>(),
    )
}
