//! `provision scan`: what workflows presume of a host, beside what a manifest promises.

use std::process::ExitCode;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use serde::Serialize;

use crate::cli::Format;
use crate::config::Config;
use crate::host::Host;
use crate::provision::covers::{covers, remedy, systems};
use crate::provision::manifest;
use crate::provision::scan::{Lack, What, collect, lacking, scan};

/// Version of the JSON answer.
const VERSION: u32 = 1;

/// `ephemerd provision scan`
#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    /// Workflow files, or folders of repositories
    #[arg(required = true, value_name = "WORKFLOW|REPO_DIR")]
    paths: Vec<Utf8PathBuf>,
    /// Beside this manifest instead of `host.manifest`: one that comes with the program, or a path
    #[arg(long, value_name = "NAME|FILE")]
    manifest: Option<String>,
    /// How to answer
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    manifest: &'a str,
    files: usize,
    lacks: Vec<Finding<'a>>,
}

#[derive(Serialize)]
struct Finding<'a> {
    #[serde(flatten)]
    need: &'a crate::provision::scan::Need,
    /// In how many lines of the file.
    lines: usize,
    remedy: String,
}

/// Prints what the manifest lacks; ends with 1 when it lacks something.
///
/// # Errors
/// A file is no workflow, or the manifest is wrong.
pub(super) fn run(args: &ScanArgs, host: &Host, config: &Config) -> anyhow::Result<ExitCode> {
    let here = Utf8PathBuf::try_from(std::env::current_dir()?)?;
    let name = args.manifest.as_deref().or_else(|| config.host.manifest(host.os));
    let name = name.unwrap_or_else(|| manifest::default_name(host.os));
    let manifest = manifest::load(name, &here)?;
    let mut needs = vec![];
    let mut files = 0;
    for path in &args.paths {
        for (file, text) in collect(path)? {
            needs.extend(scan(file.as_str(), &text)?);
            files += 1;
        }
    }
    let lacks = lacking(&needs, |need| covers(&manifest, need));
    let findings: Vec<Finding<'_>> = lacks.iter().map(finding).collect();
    let code = ExitCode::from(u8::from(!findings.is_empty()));
    match args.format {
        Format::Json => {
            let answer = Answer {
                version: VERSION,
                manifest: name,
                files,
                lacks: findings,
            };
            println!("{}", serde_json::to_string_pretty(&answer)?);
        }
        Format::Text => print!("{}", text(&findings, files, (name, systems(&manifest)))),
    }
    Ok(code)
}

fn finding<'a>(lack: &Lack<'a>) -> Finding<'a> {
    Finding {
        need: lack.need,
        lines: lack.count,
        remedy: remedy(lack.need),
    }
}

fn text(findings: &[Finding<'_>], files: usize, (manifest, systems): (&str, &str)) -> String {
    let mut lines = vec![];
    for Finding {
        need,
        lines: count,
        remedy,
    } in findings
    {
        let more = if *count > 1 {
            format!(", and {} more lines", count - 1)
        } else {
            String::new()
        };
        let file = Utf8Path::new(&need.file);
        lines.push(format!("{file}:{}: {}{more}", need.line, need.what));
        lines.push(format!("    {}", need.because));
        let verb = match need.what {
            What::Root | What::Action(_) | What::RunsOn(_) => "",
            _ => "add ",
        };
        lines.push(format!("    {verb}{remedy}"));
    }
    let plural = if files == 1 { "" } else { "s" };
    lines.push(match findings.len() {
        0 => format!("{files} file{plural}: `{manifest}`, for {systems}, has everything they presume"),
        n => format!(
            "\n{files} file{plural}: `{manifest}`, for {systems}, lacks {n} of the things they presume"
        ),
    });
    lines.join("\n") + "\n"
}
