//! `ephemerd profile diff`: what one profile allows and another denies.

use std::process::ExitCode;

use camino::Utf8Path;
use clap::Args;
use similar::TextDiff;

use super::source::{Source, SourceArgs};
use crate::cli::Format;
use crate::config::Config;
use crate::profile::Rules;
use crate::profile::diff::{Difference, Side, diff, diff_policies};
use crate::profile::sbpl::Semantics;

/// Most operations named on one line; the rest is counted.
const OPERATIONS_SHOWN: usize = 6;

/// Arguments of `profile diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A file, strict, standard, installed (what the configuration at its usual place gives), or OWNER/NAME.
    a: String,
    /// What it is compared with.
    b: String,
    /// Compare the lines instead of the effect.
    #[arg(long)]
    text: bool,
    #[command(flatten)]
    source: SourceArgs,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints every difference; ends with 0 if there is none and with 1 otherwise.
///
/// # Errors
/// One of them is no profile, or they are for different systems.
pub(super) fn run(args: &DiffArgs, config: &Config, config_file: &Utf8Path) -> anyhow::Result<ExitCode> {
    let a = args.source.read(&args.a, config, config_file)?;
    let b = args.source.read(&args.b, config, config_file)?;
    if args.text {
        let lines = TextDiff::from_lines(&a.text, &b.text);
        print!("{}", lines.unified_diff().header(&a.name, &b.name));
        return Ok(ExitCode::from(u8::from(a.text != b.text)));
    }
    let found = match (&a.rules, &b.rules) {
        (Rules::Linux(a), Rules::Linux(b)) => diff_policies(a, b),
        (Rules::MacOs(a), Rules::MacOs(b)) => diff(a, b, &Semantics::of(args.source.release())),
        _ => anyhow::bail!(
            "`{}` and `{}` are profiles for different systems\nhint: --os chooses the system for both",
            a.name,
            b.name
        ),
    };
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&found)?),
        Format::Text => print!("{}", as_text(&a, &b, &found)),
    }
    Ok(ExitCode::from(u8::from(!found.is_empty())))
}

fn as_text(a: &Source, b: &Source, found: &[Difference]) -> String {
    let mut lines: Vec<String> = found
        .iter()
        .flat_map(|difference| told(a, b, difference))
        .collect();
    lines.push(match found.len() {
        0 => format!("{} and {} have the same effect", a.name, b.name),
        1 => "1 difference".to_owned(),
        count => format!("{count} differences"),
    });
    lines.join("\n") + "\n"
}

fn told(a: &Source, b: &Source, difference: &Difference) -> Vec<String> {
    let Difference {
        operations,
        witness,
        count,
        left,
        right,
    } = difference;
    let shown: Vec<&str> = operations
        .iter()
        .take(OPERATIONS_SHOWN)
        .map(String::as_str)
        .collect();
    let more = operations.len() - shown.len();
    let rest = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = shown.join(", ") + &rest;
    let others = match count {
        1 => String::new(),
        count => format!("  (and {} more like it)", count - 1),
    };
    let side = |source: &Source, side: &Side| {
        let at = side
            .at
            .as_ref()
            .map(|at| format!("  at {at}"))
            .unwrap_or_default();
        format!(
            "  {:<5}  {}: {}{at}",
            side.verdict.to_string(),
            source.name,
            side.rule
        )
    };
    vec![
        format!("{names}  {witness}{others}"),
        side(a, left),
        side(b, right),
        String::new(),
    ]
}
