//! The same questions asked of a sandbox profile of macOS.
//!
//! An operation that both systems have is several there, and a profile can allow one of them and deny the next.
//! So each of them must have the verdict that is wanted.

use super::{Operation, Ruling, Verdict};
use crate::profile::sbpl::target::TargetError;
use crate::profile::sbpl::{Ruleset, Semantics, Target};

/// Why a question cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The release has no such operation.
    #[error(
        "`{name}` is no operation of this release{}",
        .nearest.as_ref().map(|name| format!("\nhint: did you mean `{name}`?")).unwrap_or_default()
    )]
    Operation {
        /// What was asked for.
        name: String,
        /// What is nearest to it.
        nearest: Option<String>,
    },
    /// The target is none of the operation's.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// What reading takes.
const READ: [&str; 4] = [
    "file-read-data",
    "file-read-metadata",
    "file-read-xattr",
    "file-test-existence",
];

/// What is reading by another name, so that a file that must not be read must not have this done to it either.
const READ_OTHERWISE: [&str; 3] = ["file-clone", "file-link", "file-map-executable"];

/// What writing takes.
const WRITE: [&str; 10] = [
    "file-write-acl",
    "file-write-create",
    "file-write-data",
    "file-write-finderinfo",
    "file-write-flags",
    "file-write-mode",
    "file-write-owner",
    "file-write-times",
    "file-write-unlink",
    "file-write-xattr",
];

/// What is writing too, but no job needs it.
const WRITE_OTHERWISE: [&str; 1] = ["file-write-setugid"];

/// What executing takes.
const EXECUTE: [&str; 3] = ["process-exec*", "process-exec-interpreter", "file-map-executable"];

/// The operations of macOS that must all have the verdict `wanted` for `operation` to have it.
pub fn leaves(operation: &Operation, wanted: Verdict) -> Vec<&str> {
    let otherwise = |names: &'static [&'static str]| match wanted {
        Verdict::Allow => [].iter(),
        Verdict::Deny => names.iter(),
    };
    match operation {
        Operation::FileRead => READ.iter().chain(otherwise(&READ_OTHERWISE)).copied().collect(),
        Operation::FileWrite => WRITE.iter().chain(otherwise(&WRITE_OTHERWISE)).copied().collect(),
        Operation::FileExec => EXECUTE.to_vec(),
        Operation::Network => vec!["network-outbound"],
        Operation::Syscall => Vec::new(),
        Operation::Sbpl(name) => vec![name],
    }
}

/// Decides whether `ruleset` has the verdict `wanted` for `operation` on `target`; the ruling is the first of
/// its operations that has another one, or else the first of all. Targets are written as [`Target::parse`] reads
/// them.
///
/// # Errors
/// The operation is not one of the release, or the target not one of the operation.
pub fn decide(
    ruleset: &Ruleset,
    (operation, target): (&Operation, &str),
    wanted: Verdict,
    semantics: &Semantics,
) -> Result<Ruling, AskError> {
    let mut first = None;
    for name in leaves(operation, wanted) {
        let ruling = ask(ruleset, name, target, semantics)?;
        if ruling.verdict != wanted {
            return Ok(ruling);
        }
        first.get_or_insert(ruling);
    }
    first.ok_or_else(|| AskError::Operation {
        name: operation.to_string(),
        nearest: None,
    })
}

fn ask(ruleset: &Ruleset, name: &str, target: &str, semantics: &Semantics) -> Result<Ruling, AskError> {
    let vocabulary = ruleset.vocabulary;
    let id = vocabulary.asked(name).ok_or_else(|| AskError::Operation {
        name: name.to_owned(),
        nearest: vocabulary.nearest(name).map(ToOwned::to_owned),
    })?;
    let target = Target::parse(vocabulary, id, target)?;
    let ruling = ruleset.decide(id, &target, semantics);
    let rule = match &ruling.at {
        Some(at) => format!("{name} by line {}: {}", at.line, ruling.rule),
        None => ruling.rule,
    };
    Ok(Ruling {
        verdict: ruling.verdict,
        rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sbpl::{Release, Settings, compile};

    fn ruling(text: &str, operation: &Operation, target: &str, wanted: Verdict) -> Result<Ruling, AskError> {
        let release = Release::NEWEST;
        let ruleset = compile("t.sb", text.as_bytes(), &Settings::new(release)).unwrap();
        decide(&ruleset, (operation, target), wanted, &Semantics::of(release))
    }

    #[test]
    fn one_operation_of_several_decides_when_it_is_not_as_wanted() {
        let text = "(version 1)\n(deny default)\n(allow file-read-data (subpath \"/a\"))";
        let found = ruling(text, &Operation::FileRead, "/a/b", Verdict::Deny).unwrap();
        assert_eq!(found.verdict, Verdict::Allow);
        assert!(
            found.rule.starts_with("file-read-data by line 3: "),
            "{}",
            found.rule
        );
        let found = ruling(text, &Operation::FileRead, "/a/b", Verdict::Allow).unwrap();
        assert_eq!(found.verdict, Verdict::Deny, "metadata is denied still");
    }

    #[test]
    fn what_must_not_be_read_must_not_be_linked_cloned_or_mapped_either() {
        let text = "(version 1)\n(deny default)\n(deny file-test-existence file-link file-clone)";
        let found = ruling(text, &Operation::FileRead, "/a", Verdict::Deny).unwrap();
        assert!(found.rule.contains("file-map-executable"), "{}", found.rule);
    }

    #[test]
    fn a_misspelt_operation_is_an_error_with_the_nearest_one() {
        let misspelt = Operation::Sbpl("mach-lokup".into());
        let error = ruling("(version 1)\n(deny default)", &misspelt, "x", Verdict::Deny).unwrap_err();
        assert!(
            error.to_string().contains("hint: did you mean `mach-lookup`?"),
            "{error}"
        );
    }
}
