//! Filters: the conditions of a rule, as the kernel tests them against a target.

use std::fmt;
use std::sync::Arc;

use super::decide::Semantics;
use super::target::{Host, Target};
use super::vocabulary::Shape;

/// Deepest nesting of `require-all`, `require-any` and `require-not`.
pub(super) const DEPTH_MAX: usize = 64;

/// What a compiled expression takes at least, and for each byte of its text, in bytes. Measured with regex 1.13:
/// 32 to 100 KiB for one of 50 to 90 bytes, and 100 bytes to 2 KiB for each byte of longer ones.
const REGEX_BYTE: usize = 16 * 1024;
const REGEX_PER_BYTE: usize = 1024;

/// A condition.
#[derive(Debug, Clone)]
pub enum Filter {
    /// `require-all`.
    All(Vec<Filter>),
    /// `require-any`; also what several filters of one rule are.
    Any(Vec<Filter>),
    /// `require-not`.
    Not(Box<Filter>),
    /// One test.
    Test(Test),
}

/// One test of one property of the target.
#[derive(Debug, Clone)]
pub enum Test {
    /// A path, or the path of a socket.
    Path(Pattern),
    /// Another text; the name says which.
    Text {
        /// The filter's name.
        filter: &'static str,
        /// What it must be.
        pattern: Pattern,
    },
    /// A number, or one of several.
    Number {
        /// The filter's name.
        filter: &'static str,
        /// The numbers, with their names where they have one.
        values: Vec<(i64, String)>,
    },
    /// An end of an IP connection.
    Endpoint {
        /// Whether the near end is meant.
        local: bool,
        /// What it must be.
        endpoint: EndpointPattern,
    },
    /// An end of a Unix connection, with a condition on its path.
    UnixSocket {
        /// Whether the near end is meant.
        local: bool,
        /// What its path must be.
        path: Option<Box<Filter>>,
    },
    /// Something about the process or the file that no job of ours has: an entitlement, an extension, an
    /// attribute. It never holds.
    Unheld {
        /// The filter as written.
        text: String,
    },
}

/// What a text must be.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// How it is compared.
    pub shape: Shape,
    /// The text as written.
    pub text: Arc<str>,
    /// The text without regard to case.
    folded: Arc<str>,
    /// For [`Shape::Regex`]: with and without regard to case.
    regex: Option<Arc<(regex::Regex, regex::Regex)>>,
}

/// What an end of an IP connection must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPattern {
    /// `ip`, `tcp4`, … as written.
    pub protocol: &'static str,
    /// The protocol as bits: 1 IPv4, 2 IPv6, 4 TCP, 8 UDP.
    pub bits: u8,
    /// Whether only the machine itself is meant.
    pub localhost: bool,
    /// The only port, if one was given.
    pub port: Option<u16>,
}

impl Pattern {
    /// A pattern of the shape.
    ///
    /// # Errors
    /// A regular expression that cannot be translated; the reason is a fragment of a sentence.
    pub(super) fn new(shape: Shape, text: &str) -> Result<Self, String> {
        let regex = match shape {
            Shape::Regex => Some(Arc::new((
                super::regex::compile(text, false)?,
                super::regex::compile(text, true)?,
            ))),
            Shape::Literal | Shape::Prefix | Shape::Subpath => None,
        };
        Ok(Self {
            shape,
            text: text.into(),
            folded: fold(text).into(),
            regex,
        })
    }

    /// How much memory it takes, in bytes, about; copies share it.
    pub(super) fn size_byte(&self) -> usize {
        let texts = 2 * self.text.len();
        match self.shape {
            Shape::Regex => texts + REGEX_BYTE + REGEX_PER_BYTE * self.text.len(),
            Shape::Literal | Shape::Prefix | Shape::Subpath => texts,
        }
    }

    /// Whether the path of `target` is what it must be.
    pub(in crate::profile) fn matches_path(&self, target: &Target, semantics: &Semantics) -> bool {
        target.path().is_some_and(|path| {
            let folded = semantics.fold_case.then(|| target.folded_path());
            self.matches(path, folded)
        })
    }

    /// Whether `text` is what it must be; `folded` is the same text without regard to case, if it is to be
    /// compared so.
    fn matches(&self, text: &str, folded: Option<&str>) -> bool {
        let (own, other) = match folded {
            Some(folded) => (&*self.folded, folded),
            None => (&*self.text, text),
        };
        match (self.shape, &self.regex) {
            (Shape::Literal, _) => own == other,
            (Shape::Prefix, _) => other.starts_with(own),
            (Shape::Subpath, _) => match other.strip_prefix(own) {
                // A slash at the end of a folder is reported not to work; `/` itself does.
                Some(rest) => rest.is_empty() || rest.starts_with('/') || own == "/",
                None => false,
            },
            (Shape::Regex, Some(regex)) if folded.is_some() => regex.1.is_match(text),
            (Shape::Regex, Some(regex)) => regex.0.is_match(text),
            (Shape::Regex, None) => false,
        }
    }
}

/// `text` as a volume that ignores case compares it.
pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        use unicode_normalization::UnicodeNormalization;
        text.nfd().flat_map(char::to_lowercase).collect()
    }
}

impl Filter {
    /// Whether `target` meets the condition.
    pub fn matches(&self, target: &Target, semantics: &Semantics) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.matches(target, semantics)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(target, semantics)),
            Self::Not(filter) => !filter.matches(target, semantics),
            Self::Test(test) => test.holds(target, semantics),
        }
    }

    /// How deep combinations nest.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::All(filters) | Self::Any(filters) => {
                1 + filters.iter().map(Self::depth).max().unwrap_or_default()
            }
            Self::Not(filter)
            | Self::Test(Test::UnixSocket {
                path: Some(filter), ..
            }) => 1 + filter.depth(),
            Self::Test(_) => 1,
        }
    }

    /// How much memory a copy takes, in bytes, about. Texts are shared.
    pub(super) fn size_byte(&self) -> usize {
        let inside = match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().map(Self::size_byte).sum(),
            Self::Not(filter)
            | Self::Test(Test::UnixSocket {
                path: Some(filter), ..
            }) => filter.size_byte(),
            Self::Test(Test::Number { values, .. }) => values
                .iter()
                .map(|(_, name)| size_of::<(i64, String)>() + name.len())
                .sum(),
            Self::Test(Test::Unheld { text }) => text.len(),
            Self::Test(_) => 0,
        };
        size_of::<Self>() + inside
    }

    /// Every test in it, in order.
    pub fn tests(&self) -> Vec<&Test> {
        match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().flat_map(Self::tests).collect(),
            Self::Not(filter) => filter.tests(),
            Self::Test(Test::UnixSocket { path: Some(path), .. }) => path.tests(),
            Self::Test(test) => vec![test],
        }
    }
}

impl Test {
    fn holds(&self, target: &Target, semantics: &Semantics) -> bool {
        match self {
            Self::Path(pattern) => pattern.matches_path(target, semantics),
            Self::Text { filter, pattern } => target
                .texts()
                .any(|(name, text)| name == *filter && pattern.matches(text, None)),
            Self::Number { filter, values } => target
                .numbers()
                .any(|(name, number)| name == *filter && values.iter().any(|(value, _)| *value == number)),
            Self::Endpoint { local, endpoint } => match target.end(*local) {
                Some(end) => endpoint.matches(end, semantics),
                // The near end of a socket that is not bound is anything: this is the hole of
                // `(allow network-outbound (local ip "localhost:*"))`.
                None => *local && target.end(false).is_some_and(|far| endpoint.is_spoken_by(far)),
            },
            Self::UnixSocket { path, .. } => {
                target.is_unix_socket()
                    && path
                        .as_ref()
                        .is_none_or(|filter| filter.matches(target, semantics))
            }
            Self::Unheld { .. } => false,
        }
    }
}

impl EndpointPattern {
    fn matches(&self, end: &super::target::End, semantics: &Semantics) -> bool {
        let host = !self.localhost
            || match end.host {
                Host::Loopback => true,
                Host::Own => semantics.localhost_covers_own_addresses,
                Host::MappedLoopback | Host::Other => false,
            };
        let port = self.port.is_none_or(|port| end.port == Some(port));
        self.is_spoken_by(end) && host && port
    }

    /// Whether the protocol of `end` is one of those that are meant.
    fn is_spoken_by(&self, end: &super::target::End) -> bool {
        (self.bits & 3 == 0 || self.bits & end.bits() & 3 != 0)
            && (self.bits & 12 == 0 || self.bits & end.bits() & 12 != 0)
    }
}

/// Quotes `text` as a string of SBPL.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let combined = |f: &mut fmt::Formatter<'_>, name: &str, filters: &[Filter]| {
            write!(f, "({name}")?;
            for filter in filters {
                write!(f, " {filter}")?;
            }
            write!(f, ")")
        };
        match self {
            Self::All(filters) => combined(f, "require-all", filters),
            Self::Any(filters) => combined(f, "require-any", filters),
            Self::Not(filter) => write!(f, "(require-not {filter})"),
            Self::Test(test) => test.fmt(f),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(pattern) => {
                let name = match pattern.shape {
                    Shape::Literal => "literal",
                    Shape::Prefix => "prefix",
                    Shape::Subpath => "subpath",
                    Shape::Regex => "regex",
                };
                write!(f, "({name} {pattern})")
            }
            Self::Text { filter, pattern } => {
                let suffix = match pattern.shape {
                    Shape::Literal => "",
                    Shape::Prefix => "-prefix",
                    Shape::Subpath => "-subpath",
                    Shape::Regex => "-regex",
                };
                write!(f, "({filter}{suffix} {pattern})")
            }
            Self::Number { filter, values } => {
                write!(f, "({filter}")?;
                for (_, name) in values {
                    write!(f, " {name}")?;
                }
                write!(f, ")")
            }
            Self::Endpoint { local, endpoint } => {
                let end = if *local { "local" } else { "remote" };
                let host = if endpoint.localhost { "localhost" } else { "*" };
                let port = endpoint
                    .port
                    .map_or_else(|| "*".to_owned(), |port| port.to_string());
                write!(f, "({end} {} \"{host}:{port}\")", endpoint.protocol)
            }
            Self::UnixSocket { local, path } => {
                let end = if *local { "local" } else { "remote" };
                match path {
                    Some(path) => write!(f, "({end} unix-socket {path})"),
                    None => write!(f, "({end} unix-socket)"),
                }
            }
            Self::Unheld { text } => f.write_str(text),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shape {
            Shape::Regex if !self.text.contains('"') => write!(f, "#\"{}\"", self.text),
            _ => f.write_str(&quoted(&self.text)),
        }
    }
}
