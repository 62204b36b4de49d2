//! `ephemerd profile diff`: what one profile allows and another denies.

use std::process::ExitCode;

use camino::Utf8Path;
use clap::Args;
use similar::TextDiff;

use super::source::{Source, SourceArgs};
use crate::cli::Format;
use crate::config::Config;
use crate::profile::Rules;
use crate::profile::diff::{Comparison, Difference, Side, diff, diff_policies};
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
        (Rules::Linux(a), Rules::Linux(b)) => Comparison {
            differences: diff_policies(a, b),
            ..Comparison::default()
        },
        (Rules::MacOs(a), Rules::MacOs(b)) => diff(a, b, &Semantics::of(args.source.release())),
        _ => anyhow::bail!(
            "`{}` and `{}` are profiles for different systems\nhint: --os chooses the system for both",
            a.name,
            b.name
        ),
    };
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&found.differences)?),
        Format::Text => print!("{}", as_text(&a, &b, &found)),
    }
    if !found.cut.is_empty() {
        anyhow::bail!(
            "the rules for {} draw too many boundaries to try them all\nhint: compare smaller parts, or the texts with --text",
            names_of(&found.cut)
        );
    }
    Ok(ExitCode::from(u8::from(!found.differences.is_empty())))
}

fn as_text(a: &Source, b: &Source, found: &Comparison) -> String {
    let told = found
        .differences
        .iter()
        .flat_map(|difference| told(a, b, difference));
    let mut lines: Vec<String> = told.collect();
    let same = format!("{} and {} have the same effect", a.name, b.name);
    lines.push(match (found.differences.len(), found.expressions) {
        (0, _) if a.text == b.text => same,
        // Nothing is equal of which a part was not looked at; the error says so.
        (0, _) if !found.cut.is_empty() => "no difference found so far".to_owned(),
        (0, 0) => same,
        (0, 1) => same + ", as far as samples of 1 regular expression show",
        (0, count) => same + &format!(", as far as samples of {count} regular expressions show"),
        (1, _) => "1 difference".to_owned(),
        (count, _) => format!("{count} differences"),
    });
    lines.join("\n") + "\n"
}

/// The first of these operations, and how many more there are.
fn names_of(operations: &[String]) -> String {
    let shown: Vec<&str> = operations
        .iter()
        .take(OPERATIONS_SHOWN)
        .map(String::as_str)
        .collect();
    match operations.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn told(a: &Source, b: &Source, difference: &Difference) -> Vec<String> {
    let Difference {
        operations,
        witness,
        count,
        left,
        right,
    } = difference;
    let names = names_of(operations);
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
