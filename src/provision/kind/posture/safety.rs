//! What keeps a Mac's system and files safe: FileVault, System Integrity Protection, Gatekeeper; and Spotlight, which
//! reads files of jobs.

use super::{Asked, Found, unclear};
use crate::provision::context::Context;
use crate::provision::question::{Question, Ran, Tool, shortened};
use crate::provision::step::{Fix, Step};

/// Why what a tool said is no answer.
fn strange(ran: &Ran) -> String {
    match ran.stdout.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) if ran.code == Some(0) => format!("it says `{}`", shortened(line)),
        _ => ran.ending(),
    }
}

/// Whether the disk is encrypted.
pub(super) mod filevault {
    use super::*;

    fn tool(context: &Context) -> Tool {
        Tool::at(&context.host.mac.fdesetup, &["status"])
    }

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        vec![Question::Run(tool(context))]
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        let ran = asked.ran(&tool(asked.context))?;
        let mut lines = ran
            .stdout
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty());
        let first = lines.next();
        // While it changes, the first line tells what it changes to, and further ones how far it is.
        if let (Some(_), Some(more)) = (first, lines.next()) {
            return Err(format!("it is changing: {}", shortened(more)));
        }
        match (ran.code, first) {
            (Some(0), Some("FileVault is On.")) => Ok(Found::switch(true, "on")),
            (Some(0), Some("FileVault is Off.")) => Ok(Found::switch(false, "off")),
            _ => Err(strange(&ran)),
        }
    }

    pub(in super::super) fn fix(on: bool) -> Fix {
        // It shows a recovery key that nobody but its owner should see.
        let verb = if on { "enable" } else { "disable" };
        Fix::ByHand(format!(
            "System Settings → Privacy & Security → FileVault, or: sudo fdesetup {verb}"
        ))
    }
}

/// System Integrity Protection.
pub(super) mod sip {
    use super::*;

    const STATUS: &str = "System Integrity Protection status: ";

    fn tool(context: &Context) -> Tool {
        Tool::at(&context.host.mac.csrutil, &["status"])
    }

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        vec![Question::Run(tool(context))]
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        let ran = asked.ran(&tool(asked.context))?;
        let status = ran
            .stdout
            .lines()
            .next()
            .and_then(|line| line.trim_end().strip_prefix(STATUS));
        match (ran.code, status) {
            (Some(0), Some("enabled.")) => Ok(Found::switch(true, "on")),
            (Some(0), Some("disabled.")) => Ok(Found::switch(false, "off")),
            // Parts of it are off then, and a list says which.
            (Some(0), Some(custom)) if custom.contains("Custom Configuration") => {
                Ok(Found::neither("on in part (custom configuration)"))
            }
            _ => Err(strange(&ran)),
        }
    }

    pub(in super::super) fn fix(on: bool) -> Fix {
        let verb = if on { "enable" } else { "disable" };
        Fix::ByHand(format!(
            "start recoveryOS, open Utilities → Terminal there, and: csrutil {verb}"
        ))
    }
}

/// Gatekeeper.
pub(super) mod gatekeeper {
    use super::*;

    fn tool(context: &Context) -> Tool {
        Tool::at(&context.host.mac.spctl, &["--status"])
    }

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        vec![Question::Run(tool(context))]
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        let ran = asked.ran(&tool(asked.context))?;
        // Which exit code and which stream go with "disabled" differs between releases; the words do not.
        let said = format!("{}{}", ran.stdout, ran.stderr);
        match (ran.code, said.trim()) {
            (Some(0), "assessments enabled") => Ok(Found::switch(true, "on")),
            (Some(0 | 1), "assessments disabled") => Ok(Found::switch(false, "off")),
            _ => Err(strange(&ran)),
        }
    }

    pub(in super::super) fn fix(on: bool) -> Fix {
        // From macOS 15 on a program cannot take it back.
        let verb = if on { "enable" } else { "disable" };
        Fix::ByHand(format!(
            "System Settings → Privacy & Security → Security, or: sudo spctl --global-{verb}"
        ))
    }
}

/// Whether Spotlight indexes the volume of workspaces.
pub(super) mod spotlight {
    use camino::{Utf8Path, Utf8PathBuf};

    use super::*;
    use crate::provision::kind::command::said;
    use crate::provision::question::Answer;

    /// Where macOS keeps everything but itself (the other half of `/`, since macOS 10.15).
    const DATA: &str = "/System/Volumes/Data";

    /// Spotlight passes over a folder that holds a file of this name.
    const MARKER: &str = ".metadata_never_index";

    /// What mdutil(1) prints of a volume it keeps no state for. Of the data volume some Macs say that although they index
    /// it, by way of `/`.
    const NO_STATE: &str = "Error: unknown indexing state.";

    /// The volumes that are asked about, that of workspaces first.
    fn volumes(context: &Context) -> Vec<Utf8PathBuf> {
        let mut parts = context.data_dir.components().map(|part| part.as_str());
        match (parts.next(), parts.next(), parts.next()) {
            (Some("/"), Some("Volumes"), Some(name)) => vec![format!("/Volumes/{name}").into()],
            _ => vec![DATA.into(), "/".into()],
        }
    }

    fn tool(context: &Context, volume: &Utf8Path) -> Tool {
        Tool::at(&context.host.mac.mdutil, &["-s", volume.as_str()])
    }

    fn marker(context: &Context) -> Question {
        Question::Look {
            path: context.data_dir.join(MARKER),
            digest: false,
        }
    }

    pub(in super::super) fn questions(context: &Context) -> Vec<Question> {
        let volumes = volumes(context).into_iter();
        let asked = volumes.map(|volume| Question::Run(tool(context, &volume)));
        std::iter::once(marker(context)).chain(asked).collect()
    }

    /// The first volume that a state is kept for, and whether it is indexed.
    fn indexing(asked: &Asked<'_>) -> Result<(Utf8PathBuf, bool), String> {
        let mut why = String::new();
        for volume in volumes(asked.context) {
            let ran = asked.ran(&tool(asked.context, &volume))?;
            let mut lines = ran.stdout.lines().map(str::trim);
            let is_it = lines.next().and_then(|line| line.strip_suffix(':')) == Some(volume.as_str());
            let (state, more) = (lines.next().unwrap_or_default(), lines.next());
            match (ran.code, is_it && more.is_none(), state) {
                (Some(0), true, "Indexing disabled." | "Indexing and searching disabled.") => {
                    return Ok((volume, false));
                }
                // "Scan in progress." may follow.
                (Some(0), true, on) if on.starts_with("Indexing enabled.") => return Ok((volume, true)),
                (_, true, NO_STATE) => why = format!("mdutil says of {volume}: {NO_STATE}"),
                (Some(0), true, other) => {
                    return Err(format!("mdutil says of {volume}: {}", shortened(other)));
                }
                _ => return Err(strange(&ran)),
            }
        }
        Err(why)
    }

    pub(in super::super) fn found(asked: &Asked<'_>) -> Result<Found, String> {
        match asked.get(&marker(asked.context)) {
            Answer::Entry(_) => {
                return Ok(Found::switch(
                    false,
                    format!("`{MARKER}` in {}", asked.context.data_dir),
                ));
            }
            Answer::Missing => {}
            other => return Err(said(&other)),
        }
        let (volume, on) = indexing(asked)?;
        let verb = if on { "indexes" } else { "does not index" };
        Ok(Found::switch(on, format!("{verb} {volume}")))
    }

    pub(in super::super) fn fix(on: bool, asked: &Asked<'_>) -> Fix {
        if let (true, Answer::Entry(_)) = (on, asked.get(&marker(asked.context))) {
            return Fix::ByHand(format!("remove {}", asked.context.data_dir.join(MARKER)));
        }
        let Ok((volume, _)) = indexing(asked) else {
            return unclear();
        };
        let set = |to: &str| Tool::at(&asked.context.host.mac.mdutil, &["-i", to, volume.as_str()]);
        let (to, former) = if on { ("on", "off") } else { ("off", "on") };
        Fix::Steps(vec![Step::undone_by(set(to), set(former))])
    }
}
