//! `ephemerd reload`: lets the daemon read its configuration again.

use std::process::ExitCode;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::Format;
use crate::config::diff::{Applies, Change};
use crate::config::{load_or_default, socket_of};
use crate::control::client::{ControlError, ask};
use crate::control::{Answer, Ask};
use crate::daemon::reload::Reloaded;
use crate::host::Host;

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Only say what would change, and whether anything is wrong.
    #[arg(long)]
    dry_run: bool,
    /// The daemon's control socket, where the file names another one by now.
    #[arg(long, value_name = "PATH")]
    socket: Option<Utf8PathBuf>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The daemon found something wrong, and keeps what it has.
#[derive(Debug, thiserror::Error)]
#[error("the daemon keeps the configuration that it has: {0}")]
pub struct Kept(String);

/// Asks the daemon to read its configuration again, and prints what differs. A file with errors does not keep it from being
/// asked: the daemon then knows as well.
///
/// # Errors
/// The daemon cannot be reached, or has found something wrong.
pub fn run(args: &ReloadArgs, path: Option<&Utf8Path>, host: &Host) -> anyhow::Result<ExitCode> {
    let (socket, wrong) = match load_or_default(path, host.os) {
        Ok(loaded) => (Some(loaded.config.control.socket), None),
        Err(error) => (socket_of(&super::config_file(path, host)), Some(error)),
    };
    let dry_run = args.dry_run;
    let answer = match (args.socket.as_ref().or(socket.as_ref()), wrong) {
        (Some(socket), wrong) => match (ask(socket, &Ask::Reload { dry_run }), wrong) {
            // Where it listens was a guess, then.
            (Err(ControlError::Connect { .. }), Some(wrong)) => return Err(wrong.into()),
            (answered, _) => answered?.0,
        },
        (None, Some(wrong)) => return Err(wrong.into()),
        (None, None) => anyhow::bail!("no control socket is configured"),
    };
    match (answer, args.format) {
        (Answer::Reloaded(reloaded), Format::Json) => {
            println!("{}", serde_json::to_string_pretty(&reloaded)?);
        }
        (Answer::Reloaded(reloaded), Format::Text) => print!("{}", text(&reloaded)),
        (Answer::Kept { message }, _) => return Err(Kept(message).into()),
        (other, _) => anyhow::bail!("the daemon answered {other:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// What differs, in words.
fn text(reloaded: &Reloaded) -> String {
    let Reloaded {
        file,
        dry_run,
        changes,
        manifests,
        refused,
    } = reloaded;
    let mut lines = vec![];
    let (applied, waiting) = if *dry_run {
        ("would apply at once", "would wait for a restart of the daemon")
    } else {
        ("applied", "waits for a restart of the daemon")
    };
    for (when, title) in [(Applies::AtOnce, applied), (Applies::AtNextStart, waiting)] {
        let of = changes.iter().filter(|change| change.applies == when);
        let of: Vec<String> = of.map(line).collect();
        if !of.is_empty() {
            lines.push(format!("{title}:"));
            lines.extend(of);
        }
    }
    if !manifests.is_empty() {
        lines.push(format!(
            "manifests that say something else: {}",
            manifests.join(", ")
        ));
    }
    if lines.is_empty() {
        lines.push(format!("{file}: nothing has changed"));
    }
    let jobs: Vec<String> = refused.iter().map(ToString::to_string).collect();
    if !jobs.is_empty() {
        lines.push(format!(
            "waited and may not run here any more: {}",
            jobs.join(", ")
        ));
    }
    lines.join("\n") + "\n"
}

fn line(change: &Change) -> String {
    let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
    format!("  {}: {} -> {}", change.key, side(&change.old), side(&change.new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_applies_and_what_waits_are_told_apart() {
        let change = |key: &str, old: Option<&str>, new: Option<&str>, applies| Change {
            key: key.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
            applies,
        };
        let reloaded = Reloaded {
            file: "e.toml".to_owned(),
            dry_run: false,
            changes: vec![
                change("native.slots", Some("2"), Some("3"), Applies::AtNextStart),
                change("trust.repos.\"a/b\"", None, Some("\"native\""), Applies::AtOnce),
                change("native.env.A", Some("\"1\""), None, Applies::AtOnce),
            ],
            manifests: vec!["/etc/m.toml".to_owned()],
            refused: vec![],
        };
        insta::assert_snapshot!(text(&reloaded), @r#"
        applied:
          trust.repos."a/b": not set -> "native"
          native.env.A: "1" -> not set
        waits for a restart of the daemon:
          native.slots: 2 -> 3
        manifests that say something else: /etc/m.toml
        "#);
        let nothing = Reloaded {
            changes: vec![],
            manifests: vec![],
            ..reloaded
        };
        insta::assert_snapshot!(text(&nothing), @"e.toml: nothing has changed");
    }
}
