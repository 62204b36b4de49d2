//! Every key of the configuration: the one table from which the reader, the defaults, the suggestions for
//! misspelt keys and the rows of docs/configuration.md are made.
//!
//! A segment in capitals stands for a name that the file chooses: `repos.REPO.posture` is what
//! `[repos."acme/ios"]` may hold. The rows themselves are in `table`.

mod class;
mod table;

pub use class::Class;
pub use table::KEYS;

/// What may stand at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string for which `0` describes the form.
    Text(&'static str),
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// A string like `"8GiB"`.
    Size,
    /// A string like `"2h"`.
    Duration,
    /// A whole number within these bounds.
    Number {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// `true` or `false`.
    Flag,
    /// A list of strings for which `0` describes the form.
    List(&'static str),
    /// A list of whole numbers within these bounds.
    Numbers {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// This word, or a list of strings for which `of` describes the form.
    WordOrList {
        /// The word.
        word: &'static str,
        /// What the list is of.
        of: &'static str,
    },
    /// A table of further keys.
    Table,
    /// A route, or a table of a route and its conditions.
    Rule,
}

impl Kind {
    /// The kind in words, as the documentation and error messages say it.
    pub fn describe(self) -> String {
        match self {
            Self::Text(form) => form.to_owned(),
            Self::Choice([one, other]) => format!("`{one}` or `{other}`"),
            Self::Choice(names) => format!("one of {}", quoted_list(names)),
            Self::Size => "size".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Number { min, max: u32::MAX } => format!("number, {min} or more"),
            Self::Number { min, max } => format!("number, {min} to {max}"),
            Self::Flag => "`true` or `false`".to_owned(),
            Self::List(of) => format!("list of {of}"),
            Self::Numbers { min, max } => format!("list of numbers, {min} to {max}"),
            Self::WordOrList { word, of } => format!("`{word}` or list of {of}"),
            Self::Table => "table".to_owned(),
            Self::Rule => "route or table".to_owned(),
        }
    }

    /// A right value, as TOML.
    pub fn example(self) -> &'static str {
        match self {
            Self::Text(_) | Self::Choice(_) => "\"…\"",
            Self::Size => "\"8GiB\"",
            Self::Duration => "\"30m\"",
            Self::Number { .. } => "100",
            Self::Flag => "true",
            Self::List(_) | Self::WordOrList { .. } => "[\"…\"]",
            Self::Numbers { .. } => "[100]",
            Self::Table => "{ … }",
            Self::Rule => "\"native\"",
        }
    }
}

/// `names` as they stand in a sentence.
pub(super) fn quoted_list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its dotted name.
    pub name: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// Its value as TOML when the file does not say; `None` when there then is none.
    pub default: Option<&'static str>,
    /// Its meaning, one line.
    pub doc: &'static str,
}

impl Key {
    /// The segments of the name.
    pub fn segments(&self) -> impl Iterator<Item = &'static str> {
        self.name.split('.')
    }

    /// Whether the name holds no segment that the file chooses.
    pub fn is_fixed(&self) -> bool {
        !self.segments().any(is_chosen)
    }

    /// The key's row in the tables of docs/configuration.md.
    pub fn markdown_row(&self) -> String {
        let default = self
            .default
            .map_or("not set".to_owned(), |text| format!("`{text}`"));
        format!(
            "| `{}` | {} | {default} | {} | {} |",
            self.name,
            self.kind.describe(),
            self.class().describe(),
            self.doc
        )
    }

    fn matches(&self, path: &[&str]) -> bool {
        let mut rest = path.iter();
        self.segments().all(|pattern| {
            rest.next()
                .is_some_and(|segment| segment_matches(pattern, segment))
        }) && rest.next().is_none()
    }
}

/// Whether a segment of a key's name stands for a name that the file chooses.
fn is_chosen(pattern: &str) -> bool {
    pattern.bytes().all(|b| b.is_ascii_uppercase())
}

/// Whether `segment` of a file may stand where a key's name has `pattern`.
pub(super) fn segment_matches(pattern: &str, segment: &str) -> bool {
    is_chosen(pattern) || pattern == segment
}

/// The key that a file's `path` names, if there is one.
pub fn find(path: &[&str]) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.matches(path))
}

/// The known key nearest to an unknown one, if one is near; `path` ends with the unknown segment.
pub fn nearest(path: &[&str]) -> Option<String> {
    let (last, parent) = path.split_last()?;
    let mut best: Option<(f64, String)> = None;
    for key in &KEYS {
        let segments: Vec<&str> = key.segments().collect();
        // Sections are candidates as well, so every prefix of a key's name is tried.
        for depth in 1..=segments.len() {
            let Some((name, above)) = segments[..depth].split_last() else {
                continue;
            };
            let here = above.len() == parent.len()
                && above
                    .iter()
                    .zip(parent)
                    .all(|(pattern, segment)| segment_matches(pattern, segment));
            let likeness = strsim::normalized_damerau_levenshtein(last, name);
            if is_chosen(name) || likeness < 0.6 || (!here && above.iter().any(|s| is_chosen(s))) {
                continue;
            }
            // A key of the same table is the likelier meaning, and an equal name elsewhere the next.
            let score = if here { likeness + 0.5 } else { likeness };
            if best.as_ref().is_none_or(|(least, _)| score > *least) {
                let above: &[&str] = if here { parent } else { above };
                best = Some((score, dotted(above.iter().copied().chain([*name]))));
            }
        }
    }
    best.map(|(_, name)| name)
}

/// The segments as TOML writes them with dots between, in quotes where TOML wants them.
pub fn dotted<'a>(path: impl IntoIterator<Item = &'a str>) -> String {
    let bare = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let segments = path
        .into_iter()
        .map(|s| if bare(s) { s.to_owned() } else { quote(s) });
    segments.collect::<Vec<_>>().join(".")
}

/// `text` as a TOML basic string on one line.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // TOML 1.0, "String": control characters must be escaped. C1 and separators are as unreadable.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                out.extend(format!("\\u{:04X}", u32::from(c)).chars());
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_fixed_and_chosen_names() {
        let cases = [
            (vec!["native", "slots"], Some("native.slots")),
            (
                vec!["repos", "acme/ios", "env", "PATH"],
                Some("repos.REPO.env.NAME"),
            ),
            (vec!["trust", "repos", "acme/*"], Some("trust.repos.PATTERN")),
            (vec!["native"], None),
            (vec!["native", "slots", "x"], None),
        ];
        for (path, expected) in cases {
            assert_eq!(find(&path).map(|key| key.name), expected, "{path:?}");
        }
    }

    #[test]
    fn suggests_the_nearest_key_and_prefers_the_same_table() {
        let cases = [
            (vec!["native", "slot"], Some("native.slots")),
            (vec!["natve"], Some("native")),
            (vec!["job_timout"], Some("native.job_timeout")),
            (
                vec!["repos", "acme/ios", "postur"],
                Some("repos.\"acme/ios\".posture"),
            ),
            (vec!["native", "memory"], Some("native.limits.memory")),
            (vec!["log", "lvel"], Some("log.level")),
            (vec!["githob"], Some("github")),
            (vec!["zzz"], None),
        ];
        for (path, expected) in cases {
            assert_eq!(nearest(&path).as_deref(), expected, "{path:?}");
        }
    }

    #[test]
    fn no_key_stands_twice() {
        let names: std::collections::BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(names.len(), KEYS.len());
    }

    #[test]
    fn quotes_what_toml_cannot_hold_bare() {
        let path = ["trust", "repos", "acme/*", "a-b_1", "", "q\"\\\u{1b}"];
        assert_eq!(
            dotted(path),
            r#"trust.repos."acme/*".a-b_1."".Q"#.replace('Q', r#""q\"\\\u001B""#)
        );
    }
}
