//! Manifests: text as items, with everything it includes.
//!
//! A manifest says which version of the format it is written in, which systems it is for, which others it includes,
//! and items in sections. What it says itself wins over what it includes; two that it includes must not disagree,
//! unless it says itself what holds. Everything that is wrong is told at once, with file, line and column.

mod contradictions;
mod read;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Item;
use super::context::Context;
use super::kind::SECTIONS;
use crate::config::Problem;
use crate::host::Os;
use read::{Include, Written, read};

/// The version of the format.
pub const VERSION: i64 = 1;

/// The manifests that come with the program, by name.
const BUILT_IN: [(&str, &str); 5] = [
    ("elfuse-m4", include_str!("../../provision/elfuse-m4.toml")),
    ("linux-base", include_str!("../../provision/linux-base.toml")),
    ("macos-base", include_str!("../../provision/macos-base.toml")),
    ("php-sdk", include_str!("../../provision/php-sdk.toml")),
    ("xcode", include_str!("../../provision/xcode.toml")),
];

/// The names of the manifests that come with the program.
pub fn built_in() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// The manifest of a system that nobody has named another for.
pub const fn default_name(os: Os) -> &'static str {
    match os {
        Os::MacOs => "macos-base",
        Os::Linux => "linux-base",
    }
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Nothing of that name comes with the program.
    #[error("there is no manifest `{name}`{}\nhint: {remedy}", asked(by.as_ref()))]
    NoSuch {
        /// The name.
        name: String,
        /// The file that includes it.
        by: Option<String>,
        /// The names there are, or the nearest.
        remedy: String,
    },
    /// A file cannot be read.
    #[error("could not read the manifest `{path}`{}", asked(by.as_ref()))]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// The file that includes it.
        by: Option<String>,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Manifests include each other.
    #[error("manifests include each other: {}\nhint: take one of the includes out", .0.join(" → "))]
    Cycle(Vec<String>),
    /// Manifests are wrong.
    #[error("{}", listing(.0))]
    Invalid(Vec<Located>),
}

fn asked(by: Option<&String>) -> String {
    by.map(|file| format!(", which `{file}` includes"))
        .unwrap_or_default()
}

/// A problem and the file it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The file.
    pub file: String,
    /// What is wrong, and where.
    pub problem: Problem,
}

fn listing(problems: &[Located]) -> String {
    let mut text = String::new();
    for (at, Located { file, problem }) in problems.iter().enumerate() {
        let Problem { place, message } = problem;
        let line = if at == 0 { "" } else { "\n" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{line}{file}:{}:{}: {message}", place.line, place.column);
    }
    text
}

/// Where an item stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The file, as it was named.
    pub file: String,
    /// The line of its name, from 1.
    pub line: usize,
}

/// A manifest with everything it includes; the default asks for nothing, of no system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// What it was called when it was asked for.
    pub name: String,
    /// What it is for, in its own words.
    pub description: String,
    /// The systems it is for.
    pub os: Vec<Os>,
    /// Its items, in the order of [`SECTIONS`] and then by name.
    pub items: Vec<Item>,
    /// SHA-256 in hexadecimal of everything that was read.
    pub digest: String,
    /// The files that were read; those that come with the program have no path.
    pub files: Vec<Utf8PathBuf>,
}

impl Manifest {
    /// The variables that jobs get on a host.
    pub fn environment(&self, context: &Context) -> BTreeMap<String, String> {
        use super::kind::Kind;
        if !self.os.contains(&context.os()) {
            return BTreeMap::new();
        }
        let of = |item: &Item| match &item.kind {
            Kind::Env(name, env) if context.excludes(item.os, &item.only_if).is_none() => {
                Some((name.clone(), env.value.clone()))
            }
            _ => None,
        };
        self.items.iter().filter_map(of).collect()
    }
}

/// Reads the manifest `name`: one that comes with the program, or a path, which is one when it holds a `/` or ends in
/// `.toml`. Relative paths start at `from`.
///
/// # Errors
/// See [`ManifestError`].
pub fn load(name: &str, from: &Utf8Path) -> Result<Manifest, ManifestError> {
    let mut reading = Reading::default();
    let (os, description, items) = reading.manifest(&Include::unplaced(name), from, None, &mut vec![])?;
    let mut items: Vec<Item> = items.into_values().map(|it| it.item).collect();
    items.sort_by_key(|item| {
        let section = SECTIONS
            .iter()
            .position(|section| *section == item.kind.section());
        (section, item.kind.name().to_owned())
    });
    reading.problems.extend(contradictions::find(&items));
    if !reading.problems.is_empty() {
        reading
            .problems
            .sort_by(|a, b| (&a.file, a.problem.place).cmp(&(&b.file, b.problem.place)));
        reading.problems.dedup();
        return Err(ManifestError::Invalid(reading.problems));
    }
    Ok(Manifest {
        name: name.to_owned(),
        description,
        os,
        items,
        digest: hex(&reading.hash.finalize()),
        files: reading.files,
    })
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

type Items = BTreeMap<String, Written>;

/// What was read until now.
#[derive(Default)]
struct Reading {
    hash: Sha256,
    files: Vec<Utf8PathBuf>,
    problems: Vec<Located>,
}

impl Reading {
    /// One manifest and what it includes; `chain` names those that are being read.
    fn manifest(
        &mut self,
        wanted: &Include,
        from: &Utf8Path,
        by: Option<&str>,
        chain: &mut Vec<String>,
    ) -> Result<(Vec<Os>, String, Items), ManifestError> {
        let (name, text, folder) = self.text(&wanted.name, from, by)?;
        if let Some(start) = chain.iter().position(|earlier| *earlier == name) {
            let mut cycle = chain[start..].to_vec();
            cycle.push(name);
            return Err(ManifestError::Cycle(cycle));
        }
        self.hash.update(name.as_bytes());
        self.hash.update([0]);
        self.hash.update(&text);
        let file = read(&name, &text, &mut self.problems);
        chain.push(name.clone());
        let mut included = Items::new();
        for include in &file.include {
            let (systems, _, more) = self.manifest(include, &folder, Some(&name), chain)?;
            for (id, mut item) in more {
                // What is for one system stays so, whatever includes it.
                if let ([only], None) = (systems.as_slice(), item.item.os) {
                    item.item.os = Some(*only);
                }
                if file.items.contains_key(&id) {
                    continue;
                }
                match included.get(&id) {
                    Some(other) if !other.agrees(&item) => {
                        let (a, b) = (&other.item.origin, &item.item.origin);
                        let message = format!(
                            "what is included says two things of `{id}`: {}:{} and {}:{}\nhint: say here what holds",
                            a.file, a.line, b.file, b.line
                        );
                        self.problems.push(Located {
                            file: name.clone(),
                            problem: Problem {
                                place: include.place,
                                message,
                            },
                        });
                    }
                    Some(_) => {}
                    None => {
                        included.insert(id, item);
                    }
                }
            }
        }
        chain.pop();
        let mut items = file.items;
        for (id, item) in included {
            items.entry(id).or_insert(item);
        }
        Ok((file.os, file.description, items))
    }

    /// The name, the text and the folder of a manifest.
    fn text(
        &mut self,
        name: &str,
        from: &Utf8Path,
        by: Option<&str>,
    ) -> Result<(String, String, Utf8PathBuf), ManifestError> {
        let by = by.map(str::to_owned);
        if !name.contains('/') && !name.ends_with(".toml") {
            let found = BUILT_IN.iter().find(|(known, _)| *known == name);
            let (known, text) = found.ok_or_else(|| ManifestError::NoSuch {
                name: name.to_owned(),
                by,
                remedy: nearest(name),
            })?;
            return Ok(((*known).to_owned(), (*text).to_owned(), from.to_owned()));
        }
        let path = from.join(name);
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|source| ManifestError::Read {
            path: path.clone(),
            by,
            source,
        })?;
        // One file has one name, however it is reached.
        let path = path.canonicalize_utf8().unwrap_or(path);
        if !self.files.contains(&path) {
            self.files.push(path.clone());
        }
        let folder = path.parent().unwrap_or(from).to_owned();
        Ok((path.into_string(), text, folder))
    }
}

/// What to do about a name that there is not.
fn nearest(name: &str) -> String {
    let likeness = |known: &&str| strsim::jaro_winkler(known, name);
    let best = built_in().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let all = built_in().collect::<Vec<_>>().join(", ");
    match best.filter(|best| likeness(best) > 0.8) {
        Some(best) => format!("did you mean `{best}`? A file of your own is named by its path"),
        None => format!("there are {all}; a file of your own is named by its path"),
    }
}

#[cfg(test)]
mod tests;
