//! One file: its head, and its sections as items.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Located, Origin, VERSION};
use crate::config::{Place, Problem};
use crate::host::Os;
use crate::provision::kind::{Kind, SECTIONS};
use crate::provision::{Condition, Item};

/// A manifest that another includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Include {
    pub(super) name: String,
    pub(super) place: Place,
}

impl Include {
    /// One that nothing includes.
    pub(super) fn unplaced(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            place: Place::START,
        }
    }
}

/// An item, as a file wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) item: Item,
}

impl Written {
    /// Whether two files say the same of an item, in whatever words.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let (one, other) = (&self.item, &other.item);
        one.kind == other.kind && one.os == other.os && one.only_if == other.only_if
    }
}

/// One file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) description: String,
    pub(super) os: Vec<Os>,
    pub(super) include: Vec<Include>,
    pub(super) items: BTreeMap<String, Written>,
}

/// What every item can say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Common {
    why: String,
    os: Option<Os>,
    #[serde(default)]
    only_if: Condition,
    fix: Option<String>,
}

/// Its keys, which no kind of item may use otherwise.
const COMMON: [&str; 4] = ["why", "os", "only_if", "fix"];

/// The keys of a file's head.
const HEAD: [&str; 4] = ["version", "description", "os", "include"];

/// Reads one file called `name`; what is wrong with it goes to `problems`, and the rest is read all the same.
pub(super) fn read(name: &str, text: &str, problems: &mut Vec<Located>) -> File {
    let mut reader = Reader { name, text, problems };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What a parser makes of the rest would be guesswork.
        for error in errors {
            reader.error(&error);
        }
        return File::default();
    }
    reader.file(table.into_inner())
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    problems: &'a mut Vec<Located>,
}

impl<'a> Reader<'a> {
    fn problem(&mut self, offset: usize, message: String) {
        self.problems.push(Located {
            file: self.name.to_owned(),
            problem: Problem {
                place: Place::of(self.text, offset),
                message,
            },
        });
    }

    fn error(&mut self, error: &toml::de::Error) {
        let offset = error.span().map_or(0, |span| span.start);
        self.problem(offset, with_nearest(error.message()));
    }

    fn take<T: Deserialize<'a>>(&mut self, value: Option<Spanned<DeValue<'a>>>) -> Option<T> {
        match T::deserialize(value?.into_deserializer()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(&error);
                None
            }
        }
    }

    fn file(&mut self, mut table: DeTable<'a>) -> File {
        let mut file = File::default();
        match self.take::<Spanned<i64>>(table.remove("version")) {
            Some(version) if *version.get_ref() == VERSION => {}
            Some(version) => self.problem(
                version.span().start,
                format!(
                    "this is written for version {} of the format\nhint: this program reads version {VERSION}",
                    version.get_ref()
                ),
            ),
            None => self.problem(0, format!("there is no version\nhint: begin with `version = {VERSION}`")),
        }
        file.description = self.take(table.remove("description")).unwrap_or_default();
        file.os = self.systems(table.remove("os"));
        let include: Vec<Spanned<String>> = self.take(table.remove("include")).unwrap_or_default();
        file.include = include
            .into_iter()
            .map(|name| Include {
                place: Place::of(self.text, name.span().start),
                name: name.into_inner(),
            })
            .collect();
        let systems = file.os.clone();
        for (section, value) in table {
            let offset = section.span().start;
            if !SECTIONS.contains(&section.get_ref().as_ref()) {
                let message = unknown(section.get_ref());
                self.problem(offset, message);
                continue;
            }
            let span = value.span();
            match value.into_inner() {
                DeValue::Table(items) => self.section(section.get_ref(), items, &systems, &mut file.items),
                _ => self.problem(
                    span.start,
                    format!(
                        "`{section}` holds items by their names\nhint: [{section}.NAME]",
                        section = section.get_ref()
                    ),
                ),
            }
        }
        file
    }

    /// The systems a manifest is for: one that is for none would always be met.
    fn systems(&mut self, value: Option<Spanned<DeValue<'a>>>) -> Vec<Os> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Systems {
            One(Os),
            Some(Vec<Os>),
        }
        let place = value.as_ref().map_or(0, |value| value.span().start);
        match self.take::<Systems>(value) {
            Some(Systems::One(os)) => vec![os],
            Some(Systems::Some(all)) if !all.is_empty() => all,
            Some(Systems::Some(_)) | None => {
                self.problem(
                    place,
                    "it is not said which systems this is for\nhint: os = \"macos\", \"linux\", or a list of both"
                        .to_owned(),
                );
                vec![]
            }
        }
    }

    fn section(
        &mut self,
        section: &str,
        items: DeTable<'a>,
        systems: &[Os],
        into: &mut BTreeMap<String, Written>,
    ) {
        for (name, value) in items {
            let offset = name.span().start;
            let (name, span) = (name.into_inner(), value.span());
            let DeValue::Table(mut table) = value.into_inner() else {
                self.problem(
                    offset,
                    format!("`{section}.{name}` is no table\nhint: [{section}.\"{name}\"]"),
                );
                continue;
            };
            let mut common = DeTable::new();
            for key in COMMON {
                if let Some((key, value)) = table.remove_entry(key) {
                    common.insert(key, value);
                }
            }
            let rest = Spanned::new(span.clone(), DeValue::Table(table));
            let common = self.take::<Common>(Some(Spanned::new(span, DeValue::Table(common))));
            let kind = match Kind::read(section, &name, rest) {
                Some(Ok(kind)) => kind,
                Some(Err(error)) => {
                    self.error(&error);
                    continue;
                }
                None => continue,
            };
            if let Some(complaint) = kind.complaint() {
                self.problem(offset, complaint);
            }
            let Some(common) = common else { continue };
            if common.why.trim().is_empty() {
                self.problem(
                    offset,
                    format!("`{}` does not say why\nhint: why = \"…\"", kind.id()),
                );
            }
            let Common {
                why,
                os,
                only_if,
                fix,
            } = common;
            if let Some(complaint) = kind.misplaced(os.as_ref().map_or(systems, std::slice::from_ref)) {
                self.problem(offset, complaint);
            }
            let origin = Origin {
                file: self.name.to_owned(),
                line: Place::of(self.text, offset).line,
            };
            let item = Item {
                kind,
                why,
                os,
                only_if,
                fix,
                origin,
            };
            into.insert(item.id(), Written { item });
        }
    }
}

/// serde's complaint about a key that there is not, with the key that was meant when one is near.
fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let wrong = quoted.next().filter(|_| message.starts_with("unknown field"));
    let Some(wrong) = wrong else {
        return message.to_owned();
    };
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(known, wrong);
    let best = quoted
        .chain(COMMON)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best.filter(|best| likeness(best) > 0.5) {
        Some(best) => format!("{message}\nhint: did you mean `{best}`?"),
        None => message.to_owned(),
    }
}

/// What to say of a section that there is not.
fn unknown(section: &str) -> String {
    let known = SECTIONS.iter().chain(&HEAD);
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(known, section);
    let best = known
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|best| likeness(best) > 0.5);
    let hint = match best {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("there are {}", SECTIONS.join(", ")),
    };
    format!("`{section}` is no kind of item\nhint: {hint}")
}
