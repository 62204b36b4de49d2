//! What of an installation is still to be done: what is wanted against what is there.

use serde::Serialize;

use crate::provision::receipt::{Receipt, State};
use crate::provision::report::Planned;
use crate::provision::step::Action;

/// What is there already of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Absent,
    /// All of it.
    Same,
    /// Something else in its place: the text of a file, the hash of a program.
    Other(String),
}

/// What is to be done about a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing: it is there.
    Fits,
    /// Nothing: what is there is its owner's.
    Kept,
    /// It is to be done.
    Todo,
    /// It cannot be done: something that is not ours is in its place.
    Taken(&'static str),
}

/// What is to be done about each step, in their order. `receipts` tell whether what is there was left by us.
pub fn plan(wanted: &[Planned], seen: &[Seen], receipts: &[Receipt]) -> Vec<Standing> {
    let mut standings: Vec<Standing> = wanted
        .iter()
        .zip(seen)
        .map(|(planned, seen)| standing(planned, seen, receipts))
        .collect();
    // The service manager has to be told of a file that changes.
    let is_file = |planned: &Planned| planned.item == "service file";
    let changes = wanted
        .iter()
        .zip(&standings)
        .any(|(planned, standing)| is_file(planned) && *standing == Standing::Todo);
    if changes {
        for (planned, standing) in wanted.iter().zip(&mut standings) {
            if matches!(planned.step.action, Action::Service { .. }) {
                *standing = Standing::Todo;
            }
        }
    }
    standings
}

fn standing(planned: &Planned, seen: &Seen, receipts: &[Receipt]) -> Standing {
    match (seen, &planned.step.action) {
        (Seen::Absent, _) => Standing::Todo,
        (Seen::Same, _) => Standing::Fits,
        (Seen::Other(_), _) if planned.item == "configuration" => Standing::Kept,
        (Seen::Other(found), Action::File { place, .. }) => {
            let ours = receipts
                .iter()
                .rev()
                .find_map(|receipt| match &receipt.step.action {
                    Action::File {
                        place: written,
                        content: Some(content),
                    } if written.path == place.path && receipt.state != State::Reverted => Some(content),
                    _ => None,
                });
            if ours == Some(found) {
                Standing::Todo
            } else {
                Standing::Taken(
                    "it is there and not as it was written by us\nhint: move it away, and put changes of yours into a drop-in",
                )
            }
        }
        (Seen::Other(_), Action::Program { .. }) => Standing::Taken(
            "another version is there\nhint: `ephemerd host upgrade PROGRAM` replaces it, and goes back when it does not run",
        ),
        (
            Seen::Other(_),
            Action::Run(_)
            | Action::Folder(_)
            | Action::Archive(_)
            | Action::JobAccounts
            | Action::Account(_)
            | Action::Service { .. },
        ) => Standing::Todo,
    }
}
