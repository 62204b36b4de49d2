//! `ephemerd profile explain`: what a profile says of one operation on one target, and by which rule.

use std::process::ExitCode;

use camino::Utf8Path;
use clap::Args;
use serde::Serialize;

use super::source::SourceArgs;
use crate::cli::Format;
use crate::config::Config;
use crate::profile::Rules;
use crate::profile::decide::{self, Operation, Verdict, macos};
use crate::profile::sbpl::decide::Step;
use crate::profile::sbpl::{Ruleset, Semantics, Target};

/// Arguments of `profile explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// What is tried: file-read, file-write, file-exec, network, syscall, or an operation of macOS by its own
    /// name, as mach-lookup.
    operation: String,
    /// On what: a path (with a slash at its end, a folder), tcp:HOST:PORT, udp:HOST:PORT, a name, a relation
    /// between processes such as `others`, or `-` for nothing.
    #[arg(allow_hyphen_values = true)]
    target: String,
    /// The profile: a file, strict, standard, installed, or OWNER/NAME. The configured posture if left out.
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What one operation got.
#[derive(Debug, Serialize)]
struct Explained {
    operation: String,
    target: String,
    verdict: Verdict,
    rule: String,
    at: Option<String>,
    chain: Vec<Step>,
    /// What was left out of the profile, because its imports were not followed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<String>,
}

/// Prints verdict, rule and chain; ends with 0 if everything is allowed and with 1 otherwise.
///
/// # Errors
/// There is no such profile, operation or target.
pub(super) fn run(args: &ExplainArgs, config: &Config, config_file: &Utf8Path) -> anyhow::Result<ExitCode> {
    let default = config.native.posture.to_string();
    let wanted = args.profile.as_deref().unwrap_or(&default);
    let source = args.source.read(wanted, config, config_file)?;
    let explained = match &source.rules {
        Rules::Linux(policy) => vec![linux(policy, &args.operation, &args.target)?],
        Rules::MacOs(ruleset) => names(&args.operation)
            .iter()
            .map(|name| on_macos(ruleset, name, &args.target))
            .collect::<anyhow::Result<Vec<_>>>()?,
    };
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&explained)?),
        Format::Text => explained.iter().for_each(|one| print!("{}", as_text(one))),
    }
    let denied = explained.iter().any(|one| one.verdict == Verdict::Deny);
    Ok(ExitCode::from(u8::from(denied)))
}

/// The operations of macOS behind a word: those of a portable one, or itself.
fn names(word: &str) -> Vec<String> {
    let operation: Option<Operation> = serde_json::from_value(word.into()).ok();
    let leaves = operation.map(|operation| {
        let leaves = macos::leaves(&operation, Verdict::Allow);
        leaves.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()
    });
    leaves
        .filter(|leaves| !leaves.is_empty())
        .unwrap_or_else(|| vec![word.to_owned()])
}

fn on_macos(ruleset: &Ruleset, name: &str, target: &str) -> anyhow::Result<Explained> {
    let vocabulary = ruleset.vocabulary;
    let release = vocabulary.release();
    let Some(id) = vocabulary.asked(name) else {
        let hint = vocabulary
            .nearest(name)
            .map(|near| format!("\nhint: did you mean `{near}`?"))
            .unwrap_or_default();
        anyhow::bail!("{release} has no operation `{name}`{hint}");
    };
    let target = Target::parse(vocabulary, id, target)?;
    let ruling = ruleset.decide(id, &target, &Semantics::of(release));
    Ok(Explained {
        operation: name.to_owned(),
        target: target.to_string(),
        verdict: ruling.verdict,
        rule: ruling.rule,
        at: ruling.at.map(|at| at.to_string()),
        chain: ruling.chain,
        skipped: ruleset
            .skipped
            .iter()
            .map(|(at, name)| format!("{at}: {name}"))
            .collect(),
    })
}

fn linux(policy: &crate::profile::Policy, operation: &str, target: &str) -> anyhow::Result<Explained> {
    let known: Operation = serde_json::from_value(operation.into())?;
    anyhow::ensure!(
        !matches!(known, Operation::Sbpl(_)),
        "policies of Linux have no operation `{operation}`\nhint: there are file-read, file-write, file-exec, network and syscall; --os macos-26 has its own"
    );
    anyhow::ensure!(
        !matches!(
            known,
            Operation::FileRead | Operation::FileWrite | Operation::FileExec
        ) || target.starts_with('/'),
        "`{target}` is no path\nhint: write an absolute path"
    );
    let ruling = decide::decide(policy, &known, target.trim_end_matches('/'));
    Ok(Explained {
        operation: operation.to_owned(),
        target: target.to_owned(),
        verdict: ruling.verdict,
        rule: ruling.rule,
        at: None,
        chain: Vec::new(),
        skipped: Vec::new(),
    })
}

fn as_text(explained: &Explained) -> String {
    let Explained {
        operation,
        target,
        verdict,
        rule,
        at,
        chain,
        skipped,
    } = explained;
    let mut lines = vec![format!("{verdict:<5}  {operation} {target}")];
    lines.push(format!("  by   {rule}"));
    lines.extend(at.iter().map(|at| format!("  at   {at}")));
    let steps = chain.iter().enumerate();
    lines.extend(steps.map(|(index, step)| format!("  {}    {step}", if index == 0 { "→" } else { " " })));
    lines.extend(skipped.iter().map(|import| format!("  not followed: {import}")));
    lines.join("\n") + "\n"
}
