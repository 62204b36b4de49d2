//! What is wrong with a configuration, and where. All of a file's problems are told at once.

use std::fmt;

use camino::Utf8PathBuf;
use serde::Serialize;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("could not read the configuration `{path}`")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file was read and is wrong.
    #[error("{}", listing(file, problems))]
    Invalid {
        /// The file.
        file: String,
        /// Everything wrong with it, in the order of the file; never empty.
        problems: Vec<Problem>,
    },
}

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What, with its remedy as a line of its own that starts with `hint: `.
    pub message: String,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

impl Place {
    /// The file's first character.
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    /// The place of the byte at `offset` in `text`.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

fn listing(file: &str, problems: &[Problem]) -> String {
    let mut lines = vec![match problems.len() {
        1 => "the configuration has an error".to_owned(),
        count => format!("the configuration has {count} errors"),
    }];
    lines.extend(
        problems
            .iter()
            .map(|p| format!("{file}:{}: {}", p.place, p.message)),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "a = 1\n# é\nb = 2\n";
        let cases = [
            (0, (1, 1)),
            (4, (1, 5)),
            (6, (2, 1)),
            (10, (2, 4)),
            (11, (3, 1)),
            (99, (4, 1)),
        ];
        for (offset, (line, column)) in cases {
            assert_eq!(Place::of(text, offset), Place { line, column }, "{offset}");
        }
        // Within the two bytes of the accented letter.
        assert_eq!(Place::of(text, 9), Place { line: 2, column: 3 });
    }
}
