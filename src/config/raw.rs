//! A file's text as entries of the key table: which key, what stands there, where.
//!
//! This stage knows TOML types and nothing of meaning. It walks the parsed file beside [`KEYS`], so that
//! every unknown key and every wrong type is found, each with its place, not only the first.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS, Key, Kind};
use super::problem::{Place, Problem};

/// What stands at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// A string.
    Text(String),
    /// An integer.
    Number(i64),
    /// A boolean.
    Flag(bool),
    /// A list of strings, or of numbers as they are written.
    List(Vec<Item>),
    /// A table, whose keys are entries of their own.
    Table,
}

/// One string of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) place: Place,
}

/// A key that stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The key of the table.
    pub(super) key: &'static Key,
    /// The segments as the file writes them.
    pub(super) path: Vec<String>,
    /// What stands there; `None` when that was of a wrong type, which is a problem already.
    pub(super) raw: Option<Raw>,
    /// Where the key stands.
    pub(super) key_place: Place,
    /// Where the value stands.
    pub(super) place: Place,
}

/// All entries of a file by their dotted names, and what is wrong with the rest.
#[derive(Debug, Default)]
pub(super) struct RawFile {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) problems: Vec<Problem>,
}

impl RawFile {
    /// The entries below `section` that `depth` segments name, in the order of the file.
    pub(super) fn children(&self, section: &[&str]) -> Vec<&Entry> {
        let mut found: Vec<&Entry> = self
            .entries
            .values()
            .filter(|e| e.path.len() == section.len() + 1 && e.path.iter().zip(section).all(|(a, b)| a == b))
            .collect();
        found.sort_by_key(|entry| entry.key_place);
        found
    }
}

/// The entries of a file's `text`. A text that is not TOML has syntax problems alone: what a parser makes of
/// the rest would be guesswork.
pub(super) fn read(text: &str) -> RawFile {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut walk = Walk {
        text,
        file: RawFile::default(),
    };
    if errors.is_empty() {
        walk.table(table.get_ref(), &[], &KEYS.iter().collect::<Vec<_>>());
    } else {
        for error in errors {
            let place = error
                .span()
                .map_or(Place::START, |span| Place::of(text, span.start));
            // The parser does not repeat what it found, a key that stands twice for one.
            let found = error.span().and_then(|span| text.get(span));
            let message = match found.map_or("", str::trim) {
                "" => error.message().to_owned(),
                found => format!("{} at `{}`", error.message(), found.escape_debug()),
            };
            walk.file.problems.push(Problem { place, message });
        }
    }
    walk.file
}

/// The entries of what can be made of a text with errors, for who must do with that.
pub(super) fn read_despite(text: &str) -> RawFile {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut walk = Walk {
        text,
        file: RawFile::default(),
    };
    walk.table(table.get_ref(), &[], &KEYS.iter().collect::<Vec<_>>());
    walk.file
}

/// The default value of `key`, read as if it stood in a file; `None` when the key has none.
pub(super) fn default_of(key: &Key) -> Option<Raw> {
    let text = key.default?;
    let value = DeValue::parse(text).ok()?;
    convert(key, &value, text).ok()
}

struct Walk<'a> {
    text: &'a str,
    file: RawFile,
}

impl Walk<'_> {
    /// Takes up everything in `table`, which stands at `path`; `keys` are those whose names begin so.
    fn table(&mut self, table: &DeTable<'_>, path: &[&str], keys: &[&'static Key]) {
        for (name, value) in table {
            let mut path = path.to_vec();
            path.push(name.get_ref());
            let depth = path.len();
            let keys: Vec<&'static Key> = keys
                .iter()
                .copied()
                .filter(|key| {
                    let pattern = key.segments().nth(depth - 1);
                    pattern.is_some_and(|pattern| keys::segment_matches(pattern, name.get_ref()))
                })
                .collect();
            let ends_here = keys.iter().copied().find(|key| key.segments().count() == depth);
            match (ends_here, value.get_ref()) {
                (None, _) if keys.is_empty() => self.unknown(&path, name.span()),
                (None, DeValue::Table(inner)) => self.table(inner, &path, &keys),
                (None, _) => {
                    let section = keys::dotted(path.iter().copied());
                    let message =
                        format!("`{section}` is a section\nhint: write its keys below `[{section}]`");
                    self.problem(name.span(), message);
                }
                (Some(key), found) => {
                    self.entry(key, &path, name.span(), value);
                    if let (DeValue::Table(inner), Kind::Table | Kind::Rule) = (found, key.kind) {
                        self.table(inner, &path, &keys);
                    }
                }
            }
        }
    }

    fn entry(&mut self, key: &'static Key, path: &[&str], span: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let raw = match convert(key, value, self.text) {
            Ok(raw) => Some(raw),
            Err((span, found)) => {
                self.problem(span, wrong_type(key, path, found));
                None
            }
        };
        let entry = Entry {
            key,
            path: path.iter().map(|&segment| segment.to_owned()).collect(),
            raw,
            key_place: Place::of(self.text, span.start),
            place: Place::of(self.text, value.span().start),
        };
        self.file
            .entries
            .insert(keys::dotted(path.iter().copied()), entry);
    }

    fn unknown(&mut self, path: &[&str], span: Range<usize>) {
        let hint = match keys::nearest(path) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "`ephemerd config show` lists every key that is set or has a default".to_owned(),
        };
        let name = keys::dotted(path.iter().copied());
        self.problem(span, format!("unknown key `{name}`\nhint: {hint}"));
    }

    fn problem(&mut self, span: Range<usize>, message: String) {
        let place = Place::of(self.text, span.start);
        self.file.problems.push(Problem { place, message });
    }
}

/// What `value` is as a value of `key`, or the span and the type of what is of a wrong one.
fn convert(key: &Key, value: &Spanned<DeValue<'_>>, text: &str) -> Result<Raw, (Range<usize>, &'static str)> {
    let wrong = |found: &Spanned<DeValue<'_>>| (found.span(), found.get_ref().type_str());
    match (key.kind, value.get_ref()) {
        (
            Kind::Text(_)
            | Kind::Choice(_)
            | Kind::Size
            | Kind::Duration
            | Kind::Rule
            | Kind::WordOrList { .. },
            DeValue::String(string),
        ) => Ok(Raw::Text(string.to_string())),
        (Kind::Number { .. }, DeValue::Integer(integer)) => {
            // Too many digits for 64 bits is out of every range here, and reported as that.
            let number = i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i64::MAX);
            Ok(Raw::Number(number))
        }
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(Raw::Flag(*flag)),
        (Kind::Table | Kind::Rule, DeValue::Table(_)) => Ok(Raw::Table),
        (Kind::List(_) | Kind::WordOrList { .. } | Kind::Numbers { .. }, DeValue::Array(array)) => {
            let item = |value: &Spanned<DeValue<'_>>| {
                let written = match (key.kind, value.get_ref()) {
                    (Kind::Numbers { .. }, DeValue::Integer(integer)) if integer.radix() == 10 => {
                        integer.as_str().to_owned()
                    }
                    (Kind::List(_) | Kind::WordOrList { .. }, DeValue::String(string)) => string.to_string(),
                    _ => return Err(wrong(value)),
                };
                Ok(Item {
                    text: written,
                    place: Place::of(text, value.span().start),
                })
            };
            array.iter().map(item).collect::<Result<_, _>>().map(Raw::List)
        }
        _ => Err(wrong(value)),
    }
}

/// Says that the value of the type `found` at `path` is none for `key`, and what would be one.
fn wrong_type(key: &Key, path: &[&str], found: &str) -> String {
    let name = keys::dotted(path.iter().copied());
    let last = keys::dotted(path.last().copied());
    let wanted = key.kind.describe();
    let example = key
        .default
        .filter(|default| *default != "[]")
        .unwrap_or(key.kind.example());
    format!("`{name}`: expected {wanted}, found {found}\nhint: for example `{last} = {example}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        let mut problems = read(text).problems;
        problems.sort_by_key(|p| p.place);
        let lines: Vec<String> = problems
            .iter()
            .map(|p| format!("{}: {}", p.place, p.message))
            .collect();
        lines.join("\n")
    }

    #[test]
    fn every_default_is_of_its_keys_type() {
        for key in &KEYS {
            assert_eq!(default_of(key).is_some(), key.default.is_some(), "{}", key.name);
        }
    }

    #[test]
    fn reads_numbers_as_toml_writes_them() {
        let file = read("native.slots = 0x1_0\nnative.first_port = 99999999999999999999999\n");
        assert_eq!(file.entries["native.slots"].raw, Some(Raw::Number(16)));
        assert_eq!(file.entries["native.first_port"].raw, Some(Raw::Number(i64::MAX)));
    }

    #[test]
    fn tells_every_unknown_key_and_wrong_type_at_once() {
        let text = r#"
colour = "red"
log = "text"
[native]
slot = 4
slots = "four"
extra_read = "/opt"
extra_write = ["/opt", 7]
[[egress]]
mode = "open"
[native.limits]
memory = 8
[metrics]
port = 1
[trust.repos]
"acme/*" = true
"acme/ios" = { route = "native", event = [] }
"#;
        insta::assert_snapshot!(problems(text), @r#"
        2:1: unknown key `colour`
        hint: `ephemerd config show` lists every key that is set or has a default
        3:1: `log` is a section
        hint: write its keys below `[log]`
        5:1: unknown key `native.slot`
        hint: did you mean `native.slots`?
        6:9: `native.slots`: expected number, 1 to 64, found string
        hint: for example `slots = 4`
        7:14: `native.extra_read`: expected list of absolute paths, found string
        hint: for example `extra_read = ["…"]`
        8:24: `native.extra_write`: expected list of absolute paths, found integer
        hint: for example `extra_write = ["…"]`
        9:3: `egress` is a section
        hint: write its keys below `[egress]`
        12:10: `native.limits.memory`: expected size, found integer
        hint: for example `memory = "8GiB"`
        13:2: unknown key `metrics`
        hint: `ephemerd config show` lists every key that is set or has a default
        16:12: `trust.repos."acme/*"`: expected route or table, found boolean
        hint: for example `"acme/*" = "native"`
        17:34: unknown key `trust.repos."acme/ios".event`
        hint: did you mean `trust.repos."acme/ios".events`?
        "#);
    }

    #[test]
    fn a_duplicate_key_is_told_with_its_place() {
        insta::assert_snapshot!(problems("[native]\nslots = 4\nslots = 5\n"), @r"3:1: duplicate key at `slots`");
    }

    #[test]
    fn a_syntax_error_is_told_with_its_place_and_without_guesses() {
        insta::assert_snapshot!(problems("[native]\nslots = \nslot = 3\n"), @r"2:9: string values must be quoted, expected literal string");
    }
}
