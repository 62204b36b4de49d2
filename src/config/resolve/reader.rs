//! Reads values out of entries and gathers what is wrong with them.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;

use super::super::grants::{self, Grant};
use super::super::keys::{self, Key};
use super::super::problem::{Place, Problem};
use super::super::raw::{self, Entry, Raw, RawFile};
use super::values;

/// Something wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    /// Where, when that is not simply where the value stands.
    place: Option<Place>,
    text: String,
}

impl Complaint {
    pub(super) fn at(place: Place, text: String) -> Self {
        Self {
            place: Some(place),
            text,
        }
    }
}

impl From<String> for Complaint {
    fn from(text: String) -> Self {
        Self { place: None, text }
    }
}

/// Everything wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaints(pub(super) Vec<Complaint>);

impl From<Complaint> for Complaints {
    fn from(complaint: Complaint) -> Self {
        Self(vec![complaint])
    }
}

impl From<String> for Complaints {
    fn from(text: String) -> Self {
        Complaint::from(text).into()
    }
}

/// Entries, and the problems found while reading them.
#[derive(Debug)]
pub(super) struct Reader {
    file: RawFile,
    /// The folder that grants must keep away from; `None` while it is not known.
    pub(super) data_dir: Option<Utf8PathBuf>,
}

impl Reader {
    pub(super) fn new(file: RawFile) -> Self {
        Self { file, data_dir: None }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.file.problems
    }

    /// The value at `path`, the key's default when the file has none; `None` when a problem was told.
    pub(super) fn must<T>(
        &mut self,
        path: &[&str],
        parse: impl FnOnce(&Key, &Raw) -> Result<T, Complaints>,
    ) -> Option<T> {
        let value = self.may(path, parse)?;
        if value.is_none() {
            let name = keys::dotted(path.iter().copied());
            self.problem(Place::START, format!("`{name}` is not set and has no default"));
        }
        value
    }

    /// As [`Reader::must`], with `Some(None)` when there is no default either.
    pub(super) fn may<T>(
        &mut self,
        path: &[&str],
        parse: impl FnOnce(&Key, &Raw) -> Result<T, Complaints>,
    ) -> Option<Option<T>> {
        let name = keys::dotted(path.iter().copied());
        let (key, raw, place) = match self.file.entries.get(&name) {
            Some(entry) => (entry.key, entry.raw.clone()?, entry.place),
            None => {
                let default = keys::find(path).and_then(|key| Some((key, raw::default_of(key)?)));
                let Some((key, raw)) = default else {
                    return Some(None);
                };
                (key, raw, Place::START)
            }
        };
        match parse(key, &raw) {
            Ok(value) => Some(Some(value)),
            Err(Complaints(all)) => {
                for complaint in all {
                    self.problem(
                        complaint.place.unwrap_or(place),
                        format!("`{name}`: {}", complaint.text),
                    );
                }
                None
            }
        }
    }

    /// The paths granted at `path`.
    pub(super) fn grants(&mut self, path: &[&str], grant: Grant) -> Option<Vec<Utf8PathBuf>> {
        let data_dir = self.data_dir.clone();
        self.must(path, |_, raw| {
            values::each(raw, |text| grants::granted(text, grant, data_dir.as_deref()))
        })
    }

    /// The variables of the section `path`.
    pub(super) fn env(&mut self, path: &[&str]) -> Option<BTreeMap<String, String>> {
        let mut variables = Some(BTreeMap::new());
        for Entry { path, key_place, .. } in self.children(path) {
            let segments: Vec<&str> = path.iter().map(String::as_str).collect();
            let name = path.last().cloned().unwrap_or_default();
            let value = self.may(&segments, |_, raw| {
                values::variable(&name).map_err(|text| Complaint::at(key_place, text))?;
                Ok(values::variable_value(values::text(raw))?)
            });
            match (&mut variables, value.flatten()) {
                (Some(variables), Some(value)) => {
                    variables.insert(name, value);
                }
                (_, None) => variables = None,
                (None, Some(_)) => {}
            }
        }
        variables
    }

    /// The entries directly below a section, in the order of the file.
    pub(super) fn children(&self, section: &[&str]) -> Vec<Entry> {
        self.file.children(section).into_iter().cloned().collect()
    }

    /// Whether the file sets the key.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.file.entries.contains_key(name)
    }

    /// Tells that values which are right by themselves cannot stand together, at the first of `names` that
    /// the file sets.
    pub(super) fn contradiction(&mut self, names: &[&str], message: String) {
        let entries = &self.file.entries;
        let place = names
            .iter()
            .find_map(|name| entries.get(*name).map(|entry| entry.place));
        self.problem(place.unwrap_or(Place::START), message);
    }

    pub(super) fn problem(&mut self, place: Place, message: String) {
        self.file.problems.push(Problem { place, message });
    }
}
