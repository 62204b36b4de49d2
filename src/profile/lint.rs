//! Lints: what a sandbox profile of macOS says that does not mean what it seems to.
//!
//! A profile that compiles can still allow what it looks like denying. Each lint knows one way in which that has
//! happened to somebody, and is asked of the rules after the run, so that it does not matter how they were
//! written. Wherever the effect can be asked for, it is: [`Ruleset::verdict`] decides, not the look of the text.
//! [`codes`] has them all; `docs/lints` has a page for each.

pub mod codes;
mod language;
mod network;
mod order;
mod paths;
mod privilege;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use self::codes::Code;
use super::sbpl::decide::{Decider, Verdict};
use super::sbpl::filter::{Filter, Pattern, Test};
use super::sbpl::vocabulary::{OperationId, Shape};
use super::sbpl::{Place, Release, Rule, Ruleset, Semantics, Target};

/// The oldest release that profiles have to work on, unless somebody says otherwise.
pub const OLDEST: Release = Release::MacOs15;

/// Most decisions that one lint asks for; a profile that would need more is linted as far as that.
const QUESTIONS_MAX: usize = 50_000;

/// A name that no profile has.
const FRESH: &str = "~";

/// Something that a profile says and does not mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which lint found it.
    pub code: &'static str,
    /// The rule, or the import.
    pub at: Place,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}\nhint: {}",
            self.at, self.code, self.message, self.hint
        )
    }
}

/// Everything that the lints find in a profile that has to work from the release `oldest` on, in the order of the
/// text.
pub fn lint(ruleset: &Ruleset, semantics: &Semantics, oldest: Release) -> Vec<Finding> {
    let profile = Profile::new(ruleset, semantics, oldest);
    let mut findings = Vec::new();
    order::lint(&profile, &mut findings);
    paths::lint(&profile, &mut findings);
    network::lint(&profile, &mut findings);
    privilege::lint(&profile, &mut findings);
    language::lint(&profile, &mut findings);
    findings.sort_by(|a, b| (&a.at, a.code, &a.message).cmp(&(&b.at, b.code, &b.message)));
    // A rule in a loop is made many times and stands in one place.
    findings.dedup();
    findings
}

/// What lints ask about.
struct Profile<'a> {
    ruleset: &'a Ruleset,
    semantics: &'a Semantics,
    oldest: Release,
    /// By operation, everything below it.
    below: BTreeMap<OperationId, Vec<OperationId>>,
}

impl<'a> Profile<'a> {
    fn new(ruleset: &'a Ruleset, semantics: &'a Semantics, oldest: Release) -> Self {
        let mut below: BTreeMap<OperationId, Vec<OperationId>> = BTreeMap::new();
        for (id, _) in ruleset.vocabulary.operations() {
            for ancestor in ruleset.ancestors(id).skip(1) {
                below.entry(ancestor).or_default().push(id);
            }
        }
        Self {
            ruleset,
            semantics,
            oldest,
            below,
        }
    }

    fn rules(&self) -> impl Iterator<Item = (usize, &'a Rule)> {
        self.ruleset.rules.iter().enumerate()
    }

    /// Every allow.
    fn allows(&self) -> impl Iterator<Item = &'a Rule> {
        let rules = self.ruleset.rules.iter();
        rules.filter(|rule| rule.verdict == Verdict::Allow)
    }

    fn operation(&self, name: &str) -> Option<OperationId> {
        self.ruleset.vocabulary.asked(name)
    }

    fn verdict(&self, operation: OperationId, target: &Target) -> (Verdict, Decider) {
        self.ruleset.verdict(operation, target, self.semantics)
    }

    /// What is decided about the operation called `name`; denied, where this release has none.
    fn asked(&self, name: &str, target: &Target) -> Verdict {
        let id = self.operation(name);
        id.map_or(Verdict::Deny, |id| self.verdict(id, target).0)
    }

    /// Whether what no rule names is denied, and where that is said.
    fn denies_by_default(&self) -> Option<&'a Place> {
        let default = self.operation("default")?;
        match self.verdict(default, &Target::nothing()) {
            (Verdict::Deny, Decider::Rule(index)) => Some(&self.ruleset.rules[index].at),
            (Verdict::Deny, Decider::Terminal(_) | Decider::Implicit(_)) => {
                self.ruleset.rules.first().map(|rule| &rule.at)
            }
            (Verdict::Allow, _) => None,
        }
    }
}

/// Whether `rule` names one of `names`, whatever it is called there.
fn names(profile: &Profile<'_>, rule: &Rule, names: &[&str]) -> bool {
    let vocabulary = profile.ruleset.vocabulary;
    let mut operations = rule.operations.iter();
    operations.any(|(id, _)| names.contains(&vocabulary.operation(*id).name))
}

/// The alternatives of a rule, where `(literal "/a" "/b")` is two.
fn alternatives(filters: &[Filter]) -> Vec<&Filter> {
    let mut found = Vec::new();
    let mut left: Vec<&Filter> = filters.iter().rev().collect();
    while let Some(filter) = left.pop() {
        match filter {
            Filter::Any(inner) => left.extend(inner.iter().rev()),
            other => found.push(other),
        }
    }
    found
}

/// The paths that are enough for a rule by themselves.
fn plain_paths(rule: &Rule) -> impl Iterator<Item = &Pattern> {
    alternatives(&rule.filters)
        .into_iter()
        .filter_map(|filter| match filter {
            Filter::Test(Test::Path(pattern)) => Some(pattern),
            _ => None,
        })
}

/// Every path a rule speaks of.
fn all_paths(rule: &Rule) -> impl Iterator<Item = &Pattern> {
    let tests = rule.filters.iter().flat_map(Filter::tests);
    tests.filter_map(|test| match test {
        Test::Path(pattern) => Some(pattern),
        _ => None,
    })
}

/// Every text a rule compares with.
fn texts(rule: &Rule) -> impl Iterator<Item = &Pattern> {
    let tests = rule.filters.iter().flat_map(Filter::tests);
    tests.filter_map(|test| match test {
        Test::Path(pattern) | Test::Text { pattern, .. } => Some(pattern),
        _ => None,
    })
}

/// The folder or file a path pattern speaks of, if it is one and not a shape.
fn place_of(pattern: &Pattern) -> Option<&str> {
    match pattern.shape {
        Shape::Literal | Shape::Subpath => Some(&pattern.text),
        Shape::Prefix | Shape::Regex => None,
    }
}

/// The folders that `path` lies in, nearest first, without the root.
fn folders_above(path: &str) -> impl Iterator<Item = &str> {
    let parent = |path: &str| path.rfind('/').filter(|slash| *slash > 0);
    std::iter::successors(parent(path).map(|slash| &path[..slash]), move |folder| {
        parent(folder).map(|slash| &folder[..slash])
    })
}

/// A finding about `rule`.
fn about(rule: &Rule, code: Code, message: String, hint: impl Into<String>) -> Finding {
    Finding {
        code: code.id,
        at: rule.at.clone(),
        message,
        hint: hint.into(),
    }
}

#[cfg(test)]
mod tests;
