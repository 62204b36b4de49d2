//! Receipts: what was done to this host, written down before it is done.
//!
//! ```text
//!  began {step, before} ─► done | failed        the step, by the process that began it
//!          └──── killed ─► found | failed       by the next one, which looks first
//!  done | found ─► reverted                     `provision revert`, newest first
//! ```
//!
//! One line of JSON for each event, appended and on disk before anything else happens; a receipt is all events with
//! one number. A line that a kill or a power cut left unfinished is none: what it announced was not begun.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::question::{Entry, EntryKind, Tool};
use super::step::{Action, Place, Step};
use crate::host::accounts;
use crate::service::Manager;

/// Version of a record.
pub const VERSION: u32 = 1;

/// The longest content of a file that is kept to be put back, in bytes.
pub const CONTENT_MAX_BYTE: usize = 64 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of this form.
    pub version: u32,
    /// Which receipt it belongs to.
    pub receipt: u64,
    /// When, in seconds since 1970.
    pub at_unix_s: u64,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A step is about to be taken.
    Began {
        /// The item it is for.
        item: String,
        /// The step.
        step: Box<Step>,
        /// What was there before.
        before: Before,
    },
    /// It was taken.
    Done,
    /// It was interrupted, and its item is as it must be all the same.
    Found,
    /// It was not taken, or not to its end.
    Failed {
        /// Why.
        why: String,
    },
    /// It was taken back.
    Reverted,
}

/// What was there before a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Before {
    /// What a program changes, only the program knows.
    Untold,
    /// Nothing was at the path.
    Absent,
    /// Something was.
    Present {
        /// What, and whose.
        entry: Entry,
        /// Its content, of a file that would be overwritten and is not too long to keep.
        content: Option<String>,
    },
}

/// How a receipt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The process that began it did not come to its end.
    Open,
    /// The change is there.
    Done,
    /// The process that began it did not come to its end, and the change is there all the same; who made it is not known.
    Found,
    /// It may be there in part.
    Failed(String),
    /// It is taken back.
    Reverted,
}

/// A step, what was there before, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its number; later ones are higher.
    pub number: u64,
    /// The item it is for.
    pub item: String,
    /// The step.
    pub step: Step,
    /// What was there before.
    pub before: Before,
    /// What became of it.
    pub state: State,
}

/// Why receipts cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// A line in the middle is none.
    #[error(
        "line {line} of the receipts makes no sense: {why}\nhint: keep the file, and put its last good copy in its place"
    )]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// All receipts in a file's text, oldest first, and how many bytes of it are whole lines.
///
/// # Errors
/// A whole line makes no sense.
pub fn parse(text: &str) -> Result<(Vec<Receipt>, usize), ReceiptError> {
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let mut receipts: BTreeMap<u64, Receipt> = BTreeMap::new();
    for (at, line) in text[..whole].lines().enumerate() {
        let error = |why: String| ReceiptError::Line { line: at + 1, why };
        let record: Record = serde_json::from_str(line).map_err(|e| error(e.to_string()))?;
        if record.version != VERSION {
            return Err(error(format!("version {} is not known", record.version)));
        }
        let number = record.receipt;
        let state = match record.event {
            Event::Began { item, step, before } => {
                let receipt = Receipt {
                    number,
                    item,
                    step: *step,
                    before,
                    state: State::Open,
                };
                if receipts.insert(number, receipt).is_some() {
                    return Err(error(format!("receipt {number} begins a second time")));
                }
                continue;
            }
            Event::Done => State::Done,
            Event::Found => State::Found,
            Event::Failed { why } => State::Failed(why),
            Event::Reverted => State::Reverted,
        };
        let receipt = receipts.get_mut(&number);
        receipt
            .ok_or_else(|| error(format!("receipt {number} ends and never began")))?
            .state = state;
    }
    Ok((receipts.into_values().collect(), whole))
}

/// How a step is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// By a program.
    Run(Tool),
    /// By removing a file, if it holds what was written.
    RemoveFile {
        /// Where it is.
        path: Utf8PathBuf,
        /// What was written.
        content: String,
    },
    /// By removing a folder, if it is empty.
    RemoveFolder(Utf8PathBuf),
    /// By removing what was unpacked, if it is still that archive.
    RemoveArchive {
        /// Where it is.
        path: Utf8PathBuf,
        /// The SHA-256 of the archive.
        sha256: String,
    },
    /// By giving back owner, group and mode, and the content if it was replaced.
    Restore {
        /// The path, and how it was.
        place: Place,
        /// What it held, where that was replaced.
        content: Option<String>,
    },
    /// By removing a program, if it is the one that was copied there.
    RemoveProgram {
        /// Where it is.
        path: Utf8PathBuf,
        /// The SHA-256 of what was copied.
        sha256: String,
    },
    /// By deleting an account or group.
    DeleteAccount(accounts::Step),
    /// By stopping the service, now and for good.
    StopService {
        /// The service manager.
        manager: Manager,
        /// What it reads about the service.
        file: Utf8PathBuf,
    },
    /// Not at all, in words.
    Impossible(&'static str),
}

/// How `receipt` is taken back.
pub fn undo(receipt: &Receipt) -> Undo {
    let Receipt {
        step, before, state, ..
    } = receipt;
    match (&step.action, before) {
        // Somebody else may have done since what it did not.
        (Action::Run(_), _) if *state != State::Done => {
            Undo::Impossible("it did not come to its end, so that what is there may be somebody else's")
        }
        (Action::Run(_), _) => match &step.undo {
            Some(tool) => Undo::Run(tool.clone()),
            None => Undo::Impossible("nothing takes this command back"),
        },
        (Action::JobAccounts, _) => Undo::Impossible("accounts of jobs are not deleted"),
        // It is one of ours by its name, whoever created it after we said that we would.
        (Action::Account(step), _) => Undo::DeleteAccount(step.clone()),
        (Action::Program { place, sha256, .. }, _) => Undo::RemoveProgram {
            path: place.path.clone(),
            sha256: sha256.clone(),
        },
        (Action::Service { manager, file }, _) => Undo::StopService {
            manager: *manager,
            file: file.clone(),
        },
        (Action::Folder(place), Before::Absent) => Undo::RemoveFolder(place.path.clone()),
        (Action::File { place, content }, Before::Absent) => Undo::RemoveFile {
            path: place.path.clone(),
            content: content.clone().unwrap_or_default(),
        },
        (Action::Archive(fetch), Before::Absent) => Undo::RemoveArchive {
            path: fetch.to.path.clone(),
            sha256: fetch.sha256.clone(),
        },
        (Action::Archive(_), _) => Undo::Impossible("what was there before the archive is gone"),
        (Action::File { content: Some(_), .. }, Before::Present { content: None, .. }) => {
            Undo::Impossible("what the file held was too long to keep")
        }
        (Action::Folder(place) | Action::File { place, .. }, Before::Present { entry, content }) => {
            Undo::Restore {
                place: Place {
                    path: place.path.clone(),
                    owner: Some(entry.owner.clone()),
                    group: Some(entry.group.clone()),
                    mode: Some(entry.mode),
                },
                content: content.clone().filter(|_| entry.is == EntryKind::File),
            }
        }
        (Action::Folder(_) | Action::File { .. }, Before::Untold) => {
            Undo::Impossible("it is not known what was there before")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(number: u64) -> Record {
        Record {
            version: VERSION,
            receipt: number,
            at_unix_s: 1,
            event: Event::Began {
                item: "folder /opt/x".to_owned(),
                step: Box::new(Step {
                    action: Action::Folder(Place {
                        path: "/opt/x".into(),
                        owner: None,
                        group: None,
                        mode: Some(0o755),
                    }),
                    undo: None,
                }),
                before: Before::Absent,
            },
        }
    }

    fn ended(number: u64, event: Event) -> Record {
        Record {
            event,
            ..began(number)
        }
    }

    fn text(records: &[Record]) -> String {
        records
            .iter()
            .map(|record| serde_json::to_string(record).unwrap() + "\n")
            .collect()
    }

    fn states(text: &str) -> Vec<State> {
        parse(text)
            .unwrap()
            .0
            .into_iter()
            .map(|receipt| receipt.state)
            .collect()
    }

    #[test]
    fn a_receipt_is_all_events_of_its_number() {
        let why = "no room".to_owned();
        let records = [
            began(1),
            ended(1, Event::Done),
            began(2),
            began(3),
            ended(3, Event::Failed { why: why.clone() }),
            ended(1, Event::Reverted),
        ];
        assert_eq!(
            states(&text(&records)),
            [State::Reverted, State::Open, State::Failed(why)]
        );
    }

    #[test]
    fn a_line_that_was_not_finished_announced_nothing() {
        let whole = text(&[began(1)]);
        let cut = format!("{whole}{}", &text(&[ended(1, Event::Done)])[..30]);
        assert_eq!(parse(&cut).unwrap().1, whole.len());
        assert_eq!(states(&cut), [State::Open]);
        assert_eq!(states(&whole[..whole.len() - 1]), []);
    }

    #[test]
    fn whole_lines_that_make_no_sense_are_told_with_their_number() {
        for bad in [
            text(&[ended(7, Event::Done)]),
            text(&[began(1), began(1)]),
            text(&[began(1)]) + "{}\n",
            text(&[Record {
                version: 9,
                ..began(1)
            }]),
        ] {
            let error = parse(&bad).unwrap_err().to_string();
            assert!(
                error.starts_with("line ") && error.contains("\nhint: "),
                "{error}"
            );
        }
    }

    /// Receipts that are on disks must be read for ever.
    #[test]
    fn receipts_of_the_first_version_are_read() {
        let text = include_str!("../../tests/fixtures/receipts-v1.jsonl");
        let (receipts, _) = parse(text).unwrap();
        let undone: Vec<Undo> = receipts.iter().map(undo).collect();
        insta::assert_debug_snapshot!(undone);
    }
}
