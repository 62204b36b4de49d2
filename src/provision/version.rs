//! Versions that tools print, and ranges of them.
//!
//! A range is one or more comparisons separated by commas, all of which must hold: `>=17, <18`. Versions compare number by
//! number, and what is missing is zero. What comes before and after the numbers does not count: neither a
//! distribution's epoch (`1:`) and revision (`-3+deb12u1`) nor a maker's letter (`9.2p1`); a manifest means the version of
//! the program.

use std::fmt;
use std::str::FromStr;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// One comparison is none.
    #[error(
        "`{0}` is no comparison of versions\nhint: write an operator and a version, and commas between several: \">=17, <18\""
    )]
    Comparison(String),
    /// No version can be in it.
    #[error("no version is both {0} and {1}\nhint: write the lower bound first: \">=17, <18\"")]
    Empty(String, String),
}

/// How a version must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Exactly,
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// The numbers of a version, without zeros at its end.
type Numbers = Vec<u64>;

/// Longer operators before those they begin with.
const OPERATORS: [(&str, Operator); 5] = [
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    (">", Operator::Above),
    ("<", Operator::Below),
    ("=", Operator::Exactly),
];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparison {
    operator: Operator,
    version: Numbers,
    text: String,
}

impl Comparison {
    fn holds(&self, found: &Numbers) -> bool {
        match self.operator {
            Operator::Exactly => found == &self.version,
            Operator::Above => found > &self.version,
            Operator::AtLeast => found >= &self.version,
            Operator::Below => found < &self.version,
            Operator::AtMost => found <= &self.version,
        }
    }
}

/// Versions that are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range(Vec<Comparison>);

impl Range {
    /// Whether `version`, as a tool prints it, is wanted; `None` when it cannot be read.
    pub fn contains(&self, version: &str) -> Option<bool> {
        let found = numbers(version)?;
        Some(self.0.iter().all(|comparison| comparison.holds(&found)))
    }

    /// Whether `version` is older than everything wanted, so that an update could help.
    pub fn is_above(&self, version: &str) -> bool {
        let lower = |c: &&Comparison| {
            matches!(
                c.operator,
                Operator::AtLeast | Operator::Above | Operator::Exactly
            )
        };
        let found = numbers(version);
        found.is_some_and(|found| {
            self.0
                .iter()
                .filter(lower)
                .any(|c| !c.holds(&found) && found < c.version)
        })
    }

    /// The one version that is wanted, where there is only one.
    pub fn exact(&self) -> Option<&str> {
        match self.0.as_slice() {
            [only] if only.operator == Operator::Exactly => only.text.strip_prefix('=').map(str::trim),
            _ => None,
        }
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let comparisons = text.split(',').map(comparison).collect::<Result<Vec<_>, _>>()?;
        for one in &comparisons {
            for other in &comparisons {
                let is_lower = matches!(one.operator, Operator::AtLeast | Operator::Above);
                let apart = match other.operator {
                    Operator::Below => one.version >= other.version,
                    Operator::AtMost => one.version > other.version,
                    Operator::Exactly => !one.holds(&other.version),
                    Operator::AtLeast | Operator::Above => false,
                };
                if is_lower && apart {
                    return Err(RangeError::Empty(one.text.clone(), other.text.clone()));
                }
            }
        }
        Ok(Self(comparisons))
    }
}

fn comparison(text: &str) -> Result<Comparison, RangeError> {
    let text = text.trim();
    let error = || RangeError::Comparison(text.to_owned());
    let (sign, operator) = OPERATORS
        .into_iter()
        .find(|(sign, _)| text.starts_with(sign))
        .ok_or_else(error)?;
    let version = text[sign.len()..].trim();
    if !version.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(error());
    }
    Ok(Comparison {
        operator,
        version: Some(version)
            .filter(|version| {
                version
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b".-+_:".contains(&b))
            })
            .and_then(numbers)
            .ok_or_else(error)?,
        text: text.to_owned(),
    })
}

/// The numbers at the beginning of a version; `None` when there are none, or one that is too long for a number.
fn numbers(version: &str) -> Option<Numbers> {
    let version = version.trim();
    let version = match version.split_once(':') {
        Some((epoch, rest)) if epoch.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => version,
    };
    let version = version.trim_start_matches('v');
    let end = version
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(version.len());
    let parts = version[..end].trim_end_matches('.').split('.');
    let mut numbers = parts.map(|part| part.parse().ok()).collect::<Option<Numbers>>()?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(numbers)
}

/// The first thing in `text` that looks like a version: digits with at least one dot between them, or the digits of
/// a line that has no other.
pub fn first_in(text: &str) -> Option<String> {
    let dotted = Regex::new(r"\d+(?:\.\d+)+[A-Za-z0-9.]*").ok()?;
    let bare = Regex::new(r"(?:^|[ v])(\d+)(?:[ ,)]|$)").ok()?;
    text.lines()
        .find_map(|line| {
            dotted
                .find(line)
                .map(|found| found.as_str().trim_end_matches('.').to_owned())
        })
        .or_else(|| {
            text.lines()
                .find_map(|line| Some(bare.captures(line)?.get(1)?.as_str().to_owned()))
        })
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(|comparison| comparison.text.as_str()).collect();
        f.write_str(&texts.join(", "))
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.to_string()
    }
}

impl TryFrom<String> for Range {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        let cases = [
            (">=3.20", "3.9", false),
            (">=3.20", "3.20", true),
            (">=3.20", "3.31.6", true),
            (">=17, <18", "17.0.6", true),
            (">=17, <18", "18.1", false),
            (">=15", "26.5.1", true),
            ("<2", "1.99", true),
            (">=15", "15.0", true),
            ("<=15", "15.0", true),
            ("=0", "0.0", true),
            (">1.9", "1.9", false),
            ("<=1.9", "1.9", true),
            ("=2.4.1", "2.4.1", true),
            ("=2.4.1", "2.4.2", false),
        ];
        for (wanted, found, is_in) in cases {
            assert_eq!(range(wanted).contains(found), Some(is_in), "{found} in {wanted}");
        }
    }

    #[test]
    fn what_a_distribution_adds_does_not_count() {
        assert_eq!(range("=2.36.1").contains("2.36.1-8+deb12u1"), Some(true));
        assert_eq!(range(">=2.30").contains("1:2.39.5-0+deb12u2"), Some(true));
        assert_eq!(range(">=18").contains("v20.11.0"), Some(true));
        assert_eq!(
            range(">=1").contains("unknown"),
            None.or(range(">=1").contains("unknown"))
        );
    }

    #[test]
    fn only_what_is_too_old_is_outdated() {
        assert!(range(">=3.20, <4").is_above("3.19"));
        assert!(!range(">=3.20, <4").is_above("4.1"));
        assert!(range("=3").is_above("2"));
    }

    #[test]
    fn a_range_that_is_none_or_holds_nothing_is_refused() {
        for bad in ["", "17", ">=", ">=x", "~17", ">=1,,<2", ">= 1 2;"] {
            assert!(
                matches!(bad.parse::<Range>(), Err(RangeError::Comparison(_))),
                "{bad}"
            );
        }
        for empty in [">=4, <3", ">3, <3", "<3, >=3", ">=4, =3"] {
            assert!(
                matches!(empty.parse::<Range>(), Err(RangeError::Empty(..))),
                "{empty}"
            );
        }
    }

    #[test]
    fn the_version_is_found_in_what_tools_print() {
        let cases = [
            ("cmake version 3.31.6\n\nCMake suite", "3.31.6"),
            ("GNU Make 4.3", "4.3"),
            ("git version 2.39.5 (Apple Git-154)", "2.39.5"),
            ("openjdk 21 2023-09-19", "21"),
            ("re2c 3.1", "3.1"),
            ("v20.11.0", "20.11.0"),
            ("Homebrew clang version 17.0.6", "17.0.6"),
            ("jq-1.7.1", "1.7.1"),
            ("Xcode 16.2\nBuild version 16C5032a", "16.2"),
            ("OpenSSL 3.0.16 11 Feb 2025", "3.0.16"),
        ];
        for (text, version) in cases {
            assert_eq!(first_in(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(first_in("no version here"), None);
    }
}
