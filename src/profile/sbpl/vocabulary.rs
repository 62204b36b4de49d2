//! The names a release of macOS knows: operations, filters, modifiers and their aliases.
//!
//! The tables are data, `profiles/vocabulary/*.tsv`, with the release each name came with and where it is
//! known from.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::Release;
use super::decide::Verdict;

/// An operation, as an index into its vocabulary. Ids of different releases do not mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub(super) u16);

/// A filter, as an index into its vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(pub(super) u16);

/// Something the kernel asks the sandbox about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its name, as `file-read-data`.
    pub name: &'static str,
    /// Where the answer comes from when no rule names this operation; `None` where [`Self::terminal`] says.
    pub parent: Option<OperationId>,
    /// The answer where no rule says anything and there is no parent, whatever `default` says.
    pub terminal: Option<Verdict>,
    /// Which categories of filters it can be restricted by; `None` while that is unknown.
    pub categories: Option<Vec<&'static str>>,
}

/// What a filter takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// Texts, compared whole, by prefix, by folder or by regular expression; see [`Shape`].
    Pattern,
    /// Names with a number each, or the numbers themselves.
    Named(BTreeMap<&'static str, i64>),
    /// Nothing, or a boolean.
    Flag,
    /// A protocol and `HOST:PORT`.
    Endpoint,
}

/// One condition a rule can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterKind {
    /// Its name, as `global-name`.
    pub name: &'static str,
    /// What it is about, as `mach`.
    pub category: &'static str,
    /// What it takes.
    pub argument: Argument,
}

/// How a pattern is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// The whole text.
    Literal,
    /// Its beginning.
    Prefix,
    /// A path and everything below it.
    Subpath,
    /// A regular expression, found anywhere.
    Regex,
}

/// What a name in the place of an operation means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// This operation.
    Operation(OperationId),
    /// It is accepted and does nothing.
    Dropped,
}

/// Categories that go with every operation, because they are about the process and the system and not about
/// what is tried.
const UNIVERSAL: [&str; 3] = ["process", "system", "extension"];

/// Longest name that is compared with known ones, which are shorter.
const NAME_MAX_BYTE: usize = 100;

/// The names one release knows.
#[derive(Debug)]
pub struct Vocabulary {
    release: Release,
    operations: Vec<Operation>,
    operation_names: BTreeMap<&'static str, OperationId>,
    filters: Vec<FilterKind>,
    filter_names: BTreeMap<String, (FilterId, Shape)>,
    operation_aliases: BTreeMap<&'static str, Option<&'static str>>,
    modifiers: BTreeMap<&'static str, ModifierArgument>,
    modifier_aliases: BTreeMap<&'static str, &'static str>,
    /// Names that stand for a whole filter, with its text.
    expressions: BTreeMap<&'static str, &'static str>,
    constants: BTreeMap<&'static str, ()>,
    /// Names of later releases, for messages.
    later: BTreeMap<&'static str, &'static str>,
}

/// What a modifier takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModifierArgument {
    /// Nothing.
    None,
    /// A number or the name of a signal.
    Number,
    /// A text.
    Text,
}

static TABLES: LazyLock<[Vocabulary; 4]> = LazyLock::new(|| Release::ALL.map(Vocabulary::read));

impl Vocabulary {
    /// The vocabulary of `release`.
    pub fn of(release: Release) -> &'static Self {
        let index = Release::ALL.iter().position(|r| *r == release).unwrap_or(0);
        &TABLES[index]
    }

    fn read(release: Release) -> Self {
        let mut vocabulary = Self {
            release,
            operations: Vec::new(),
            operation_names: BTreeMap::new(),
            filters: Vec::new(),
            filter_names: BTreeMap::new(),
            operation_aliases: BTreeMap::new(),
            modifiers: BTreeMap::new(),
            modifier_aliases: BTreeMap::new(),
            expressions: BTreeMap::new(),
            constants: BTreeMap::new(),
            later: BTreeMap::new(),
        };
        vocabulary.read_operations(include_str!("../../../profiles/vocabulary/operations.tsv"));
        vocabulary.read_filters(include_str!("../../../profiles/vocabulary/filters.tsv"));
        vocabulary.read_aliases(include_str!("../../../profiles/vocabulary/aliases.tsv"));
        vocabulary.read_modifiers(include_str!("../../../profiles/vocabulary/modifiers.tsv"));
        vocabulary
    }

    /// The rows of `table` that this release knows; the names of the others are noted.
    fn known(&mut self, table: &'static str, name: &str) -> Vec<BTreeMap<&'static str, &'static str>> {
        let mut found = Vec::new();
        for row in rows(table) {
            if since(row["since"]) <= self.release
                && row
                    .get("until")
                    .is_none_or(|until| *until == "-" || self.release < since(until))
            {
                found.push(row);
            } else {
                self.later.insert(row[name], row["since"]);
            }
        }
        found
    }

    fn read_operations(&mut self, table: &'static str) {
        let rows = self.known(table, "op");
        for row in &rows {
            let id = OperationId(u16::try_from(self.operations.len()).unwrap_or(u16::MAX));
            self.operation_names.insert(row["op"], id);
            self.operations.push(Operation {
                name: row["op"],
                parent: None,
                terminal: match row["terminal_default"] {
                    "allow" => Some(Verdict::Allow),
                    "deny" => Some(Verdict::Deny),
                    _ => None,
                },
                categories: match row["filter_categories"] {
                    "?" => None,
                    "-" => Some(Vec::new()),
                    listed => Some(listed.split(',').map(category).collect()),
                },
            });
        }
        for row in &rows {
            if let (Some(&id), Some(&parent)) = (
                self.operation_names.get(row["op"]),
                self.operation_names.get(row["fallback"]),
            ) {
                self.operations[usize::from(id.0)].parent = Some(parent);
            }
        }
    }

    fn read_filters(&mut self, table: &'static str) {
        for row in self.known(table, "filter") {
            let id = FilterId(u16::try_from(self.filters.len()).unwrap_or(u16::MAX));
            let (name, names) = (row["filter"], row["named_args"]);
            let argument = match (name, row["arg_type"]) {
                ("local" | "remote", _) => Argument::Endpoint,
                (_, kind) if kind.starts_with("PATTERN") => Argument::Pattern,
                (_, "BOOL" | "NONE") => Argument::Flag,
                _ => Argument::Named(numbers(names)),
            };
            self.constants
                .extend(numbers(names).into_keys().map(|name| (name, ())));
            self.filter_names.insert(name.to_owned(), (id, Shape::Literal));
            for (suffix, shape) in variants(row["arg_type"]) {
                self.filter_names.insert(format!("{name}-{suffix}"), (id, *shape));
            }
            self.filters.push(FilterKind {
                name,
                category: category(row["category"]),
                argument,
            });
        }
    }

    fn read_aliases(&mut self, table: &'static str) {
        for row in self.known(table, "alias") {
            let (alias, name) = (row["alias"], row["name"]);
            match row["kind"] {
                "op" => {
                    self.operation_aliases.insert(alias, Some(name));
                }
                "noop" => {
                    self.operation_aliases.insert(alias, None);
                }
                "modifier" => {
                    self.modifier_aliases.insert(alias, name);
                }
                "filter" if name.starts_with('(') => {
                    self.expressions.insert(alias, name);
                }
                "filter" => {
                    if let Some(&found) = self.filter_names.get(name) {
                        self.filter_names.insert(alias.to_owned(), found);
                    }
                }
                // Procedures have their aliases in their own table.
                _ => {}
            }
        }
    }

    fn read_modifiers(&mut self, table: &'static str) {
        for row in self.known(table, "name") {
            let argument = match row["argument"] {
                "none" => ModifierArgument::None,
                "number" => ModifierArgument::Number,
                _ => ModifierArgument::Text,
            };
            self.modifiers.insert(row["name"], argument);
        }
    }

    /// Whose vocabulary it is.
    pub fn release(&self) -> Release {
        self.release
    }

    /// Every operation with its id, in the order of the table.
    pub fn operations(&self) -> impl Iterator<Item = (OperationId, &Operation)> {
        (0..).map(OperationId).zip(&self.operations)
    }

    /// The operation with this id.
    pub fn operation(&self, id: OperationId) -> &Operation {
        &self.operations[usize::from(id.0)]
    }

    /// What `name` means in a profile, where aliases go before the kernel's own names: `sysctl-write` stands
    /// for `sysctl*`.
    pub fn in_profile(&self, name: &str) -> Option<Named> {
        match self.operation_aliases.get(name) {
            Some(None) => Some(Named::Dropped),
            Some(Some(name)) => self.operation_names.get(name).copied().map(Named::Operation),
            None => self.operation_names.get(name).copied().map(Named::Operation),
        }
    }

    /// What `name` means to somebody who asks: the kernel's own names go before aliases.
    pub fn asked(&self, name: &str) -> Option<OperationId> {
        let own = self.operation_names.get(name).copied();
        own.or_else(|| match self.in_profile(name) {
            Some(Named::Operation(id)) => Some(id),
            Some(Named::Dropped) | None => None,
        })
    }

    /// The filter called `name`, and how it compares.
    pub fn filter_named(&self, name: &str) -> Option<(FilterId, Shape)> {
        self.filter_names.get(name).copied()
    }

    /// The filter with this id.
    pub fn filter(&self, id: FilterId) -> &FilterKind {
        &self.filters[usize::from(id.0)]
    }

    /// The modifier called `name`, by its own name, and what it takes.
    pub fn modifier(&self, name: &str) -> Option<(&'static str, ModifierArgument)> {
        let name = self.modifier_aliases.get(name).copied().unwrap_or(name);
        self.modifiers
            .get_key_value(name)
            .map(|(name, argument)| (*name, *argument))
    }

    /// The text of the filter that `name` alone stands for.
    pub fn expression(&self, name: &str) -> Option<&'static str> {
        self.expressions.get(name).copied()
    }

    /// Whether `name` is one of those that filters take.
    pub fn is_constant(&self, name: &str) -> bool {
        self.constants.contains_key(name)
    }

    /// Whether rules for `operation` may be restricted by filters of `category`.
    pub fn goes_with(&self, operation: OperationId, category: &str) -> bool {
        UNIVERSAL.contains(&category)
            || self
                .operation(operation)
                .categories
                .as_ref()
                .is_none_or(|known| known.contains(&category))
    }

    /// The release a name came with, if it came after this one.
    pub fn since_when(&self, name: &str) -> Option<&'static str> {
        self.later.get(name).copied()
    }

    /// The known name that looks most like `name`, if one does.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let known = self
            .operation_names
            .keys()
            .chain(self.operation_aliases.keys())
            .copied()
            .chain(self.filter_names.keys().map(String::as_str))
            .chain(self.constants.keys().copied());
        nearest(name, known)
    }
}

/// The member of `known` that looks most like `name`, if one looks like it at all.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_MAX_BYTE {
        return None;
    }
    known
        .map(|candidate| (strsim::normalized_damerau_levenshtein(candidate, name), candidate))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The lines of a table as values by column; `#` begins a comment line, and the first other line names the
/// columns.
fn rows(table: &'static str) -> impl Iterator<Item = BTreeMap<&'static str, &'static str>> {
    let mut lines = table
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    lines.map(move |line| header.iter().copied().zip(line.split('\t')).collect())
}

/// The spellings of a filter whose column `arg_type` is `kind`, besides its name.
fn variants(kind: &str) -> &'static [(&'static str, Shape)] {
    const LITERAL: (&str, Shape) = ("literal", Shape::Literal);
    const PREFIX: (&str, Shape) = ("prefix", Shape::Prefix);
    const REGEX: (&str, Shape) = ("regex", Shape::Regex);
    const SUBPATH: (&str, Shape) = ("subpath", Shape::Subpath);
    match kind {
        "PATTERN_LITERAL" => &[LITERAL],
        "PATTERN_PREFIX" => &[LITERAL, PREFIX, REGEX],
        "PATTERN_SUBPATH" | "PATTERN_REGEX" => &[LITERAL, PREFIX, REGEX, SUBPATH],
        _ => &[],
    }
}

/// The tables call one category by two names.
fn category(name: &'static str) -> &'static str {
    match name {
        "iokit-registry-entry-class" => "iokit-user-client",
        name => name,
    }
}

/// `NAME=NUMBER,…`, or `-`.
fn numbers(listed: &'static str) -> BTreeMap<&'static str, i64> {
    let pairs = listed.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .filter_map(|(name, number)| number.parse().ok().map(|number| (name, number)))
        .collect()
}

/// The first release here that has what came with `version`.
fn since(version: &str) -> Release {
    match version.split('.').next() {
        Some("10") => Release::MacOs10_15,
        Some("11" | "12" | "13" | "14") => Release::MacOs14,
        Some("15") => Release::MacOs15,
        _ => Release::MacOs26,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest() -> &'static Vocabulary {
        Vocabulary::of(Release::NEWEST)
    }

    fn parents(vocabulary: &Vocabulary, name: &str) -> Vec<&'static str> {
        let first = vocabulary.asked(name);
        std::iter::successors(first, |id| vocabulary.operation(*id).parent)
            .map(|id| vocabulary.operation(id).name)
            .collect()
    }

    #[test]
    fn operations_fall_back_to_their_parents() {
        assert_eq!(
            parents(newest(), "file-read-data"),
            ["file-read-data", "file-read*", "file*", "default"]
        );
        assert_eq!(
            parents(newest(), "network-bind"),
            ["network-bind", "network-inbound", "network*", "default"]
        );
    }

    #[test]
    fn every_operation_of_every_release_ends_in_an_answer() {
        for release in Release::ALL {
            let vocabulary = Vocabulary::of(release);
            for (id, operation) in vocabulary.operations() {
                let last = std::iter::successors(Some(id), |id| vocabulary.operation(*id).parent)
                    .take(10)
                    .last()
                    .unwrap();
                assert!(
                    vocabulary.operation(last).terminal.is_some(),
                    "{release} {}",
                    operation.name
                );
            }
        }
    }

    #[test]
    fn every_category_an_operation_names_has_a_filter() {
        let vocabulary = newest();
        let categories: Vec<&str> = vocabulary.filters.iter().map(|filter| filter.category).collect();
        for (_, operation) in vocabulary.operations() {
            for category in operation.categories.iter().flatten() {
                assert!(categories.contains(category), "{}: {category}", operation.name);
            }
        }
    }

    #[test]
    fn aliases_mean_one_thing_in_a_profile_and_another_to_who_asks() {
        let vocabulary = newest();
        let name = |id| vocabulary.operation(id).name;
        assert!(
            matches!(vocabulary.in_profile("sysctl-write"), Some(Named::Operation(id)) if name(id) == "sysctl*")
        );
        assert_eq!(vocabulary.asked("sysctl-write").map(name), Some("sysctl-write"));
        assert_eq!(vocabulary.in_profile("system-chud"), Some(Named::Dropped));
        assert_eq!(vocabulary.in_profile("file-reed*"), None);
        assert_eq!(vocabulary.nearest("file-reed*"), Some("file-read*"));
    }

    #[test]
    fn patterns_have_their_variants() {
        let vocabulary = newest();
        let shape = |name| {
            vocabulary
                .filter_named(name)
                .map(|(id, shape)| (vocabulary.filter(id).name, shape))
        };
        assert_eq!(shape("global-name-regex"), Some(("global-name", Shape::Regex)));
        assert_eq!(shape("subpath"), Some(("path", Shape::Subpath)));
        assert_eq!(shape("literal"), Some(("path", Shape::Literal)));
        assert_eq!(shape("sysctl-name"), Some(("sysctl-name", Shape::Literal)));
        assert_eq!(shape("from"), Some(("local", Shape::Literal)));
    }

    #[test]
    fn what_came_later_is_unknown_before_and_says_since_when() {
        let old = Vocabulary::of(Release::MacOs10_15);
        assert_eq!(old.asked("system-mac-syscall"), None);
        assert_eq!(old.since_when("system-mac-syscall"), Some("14.4"));
        assert!(newest().asked("system-mac-syscall").is_some());
    }
}
