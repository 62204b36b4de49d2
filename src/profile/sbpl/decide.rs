//! The decision procedure: what the kernel answers for one operation on one target.
//!
//! For the operation, and then for each of its parents up to `default`:
//!
//! 1. the last rule that names exactly this operation, has filters, and one of them matches;
//! 2. else the last rule that names exactly this operation and has no filters.
//!
//! Every profile lets a process signal itself and name its own task, by two rules with a filter that `policy.scm`
//! adds; a rule of the profile's own with a filter that matches goes before them.
//!
//! Where no rule says anything, operations without a parent have an answer of their own, whatever `default`
//! says. So a rule for `file-read-data` goes before any rule for `file-read*`, whichever stands last, and a rule
//! without filters never overrides one with filters that matches. This reading fits every observation that was
//! published; no live kernel was asked by us. Where observations disagree or are missing, [`Semantics`] has a
//! switch, and `profile::disputed` a probe.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::rules::Ruleset;
use super::target::Target;
use super::vocabulary::OperationId;
use super::{Place, Release};

pub use crate::profile::decide::Verdict;

/// How one release of macOS decides, where that is not beyond doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Semantics {
    /// P1: whether a rule without filters for the very operation goes before a rule with filters for its
    /// parent. No source has measured it; `true` follows from the order in which the compiler builds its
    /// decision graph.
    pub unfiltered_exact_first: bool,
    /// P2: what `file-map-executable` is answered when no rule says anything, also under `(deny default)`.
    /// simbple's tables and Nix' profiles, which never mention it and work, say allow; one project saw
    /// processes die without a rule for it.
    pub file_map_executable: Verdict,
    /// P3: the same for `file-write-setugid`; simbple's tables say deny, also under `(allow default)`.
    pub file_write_setugid: Verdict,
    /// P4: whether two runs of `sandbox-exec` with the same text are the same sandbox to `same-sandbox`.
    /// Untested by anybody; `false` until then, and jobs' texts differ in their tag.
    pub same_sandbox_by_text: bool,
    /// P5: whether `(sysctl-name "kern.procargs2")` matches the call that reads another process' arguments.
    /// One project says a deny by name works, two that the numeric call has no name to match.
    pub procargs_has_name: bool,
    /// P6: whether `local:PORT` is an address. `SwiftPM` writes it; every other source says the compiler
    /// takes only `*` and `localhost`.
    pub local_is_a_host: bool,
    /// P7: whether paths are compared without regard to case and to Unicode composition, as a default volume
    /// does. Claimed by one project; a volume may be case-sensitive.
    pub fold_case: bool,
    /// P8: whether `(with message …)` on `default` tags every denial, so that other rules need none.
    pub default_message_suffices: bool,
    /// P9: whether the limit of 65535 bytes is kept for each rule (Nix splits its rules for that), or for all
    /// of an operation's together.
    pub limit_per_rule: bool,
    /// Whether `localhost` covers the machine's own other addresses; measured by one project.
    pub localhost_covers_own_addresses: bool,
}

impl Semantics {
    /// What is believed of `release`. So far nothing that is in doubt is known to differ between releases.
    pub const fn of(release: Release) -> Self {
        match release {
            Release::MacOs10_15 | Release::MacOs14 | Release::MacOs15 | Release::MacOs26 => Self {
                unfiltered_exact_first: true,
                file_map_executable: Verdict::Allow,
                file_write_setugid: Verdict::Deny,
                same_sandbox_by_text: false,
                procargs_has_name: false,
                local_is_a_host: false,
                fold_case: true,
                default_message_suffices: true,
                limit_per_rule: true,
                localhost_covers_own_addresses: true,
            },
        }
    }
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decider {
    /// The rule at this place in [`Ruleset::rules`].
    Rule(usize),
    /// What every profile allows a process towards itself.
    Implicit(OperationId),
    /// The operation's own answer, because no rule says anything.
    Terminal(OperationId),
}

/// A verdict with what led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ruling {
    /// Yes or no.
    pub verdict: Verdict,
    /// The deciding rule, as its text; or why none decided.
    pub rule: String,
    /// Where the rule stands.
    pub at: Option<Place>,
    /// What was looked at, in order.
    pub chain: Vec<Step>,
}

/// One operation on the way up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its name.
    pub operation: String,
    /// What was found there.
    pub found: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.found)
    }
}

impl Ruleset {
    /// What the kernel answers, and by what.
    pub fn verdict(
        &self,
        operation: OperationId,
        target: &Target,
        semantics: &Semantics,
    ) -> (Verdict, Decider) {
        let seen = self.as_seen(operation, target, semantics);
        let target = seen.as_ref().unwrap_or(target);
        if semantics.unfiltered_exact_first {
            let mut next = Some(operation);
            let mut last = operation;
            while let Some(id) = next {
                let decided = self
                    .matching(id, target, semantics)
                    .or_else(|| self.without_filter(id));
                if let Some(decided) = decided {
                    return decided;
                }
                (last, next) = (id, self.vocabulary.operation(id).parent);
            }
            return (self.terminal(last, semantics), Decider::Terminal(last));
        }
        let family = || self.ancestors(operation);
        let found = family()
            .find_map(|id| self.matching(id, target, semantics))
            .or_else(|| family().find_map(|id| self.without_filter(id)));
        found.unwrap_or_else(|| {
            let last = family().last().unwrap_or(operation);
            (self.terminal(last, semantics), Decider::Terminal(last))
        })
    }

    /// The same as [`Ruleset::verdict`], with everything that explains it.
    pub fn decide(&self, operation: OperationId, target: &Target, semantics: &Semantics) -> Ruling {
        let (verdict, decider) = self.verdict(operation, target, semantics);
        let mut chain = Vec::new();
        let mut next = Some(operation);
        while let Some(id) = next {
            let known = self.vocabulary.operation(id);
            let count = self.filtered[usize::from(id.0)].len();
            let (found, decided) = match decider {
                Decider::Rule(index)
                    if self.rules[index].operations.iter().any(|(named, _)| *named == id) =>
                {
                    let rule = &self.rules[index];
                    let kind = if rule.filters.is_empty() {
                        format!(
                            "none of {count} rules with filters matches; the last one without is at {}",
                            rule.at
                        )
                    } else {
                        format!(
                            "the last of {count} rules with filters that matches is at {}",
                            rule.at
                        )
                    };
                    (kind, true)
                }
                Decider::Implicit(named) if named == id => (
                    "every profile allows it towards the process itself".to_owned(),
                    true,
                ),
                Decider::Terminal(last) if last == id => {
                    (format!("no rule decides; by itself it is {verdict}"), true)
                }
                _ if count == 0 => ("no rule names it".to_owned(), false),
                _ => (format!("none of {count} rules with filters matches"), false),
            };
            chain.push(Step {
                operation: known.name.to_owned(),
                found,
            });
            next = if decided { None } else { known.parent };
        }
        let (rule, at) = match decider {
            Decider::Rule(index) => (
                self.relevant(index, operation, target, semantics),
                Some(self.rules[index].at.clone()),
            ),
            Decider::Implicit(named) => {
                let name = self.vocabulary.operation(named).name;
                (format!("(allow {name} (target self)) of policy.scm"), None)
            }
            Decider::Terminal(last) => {
                let name = self.vocabulary.operation(last).name;
                (format!("no rule: {name} is {verdict} by itself"), None)
            }
        };
        Ruling {
            verdict,
            rule,
            at,
            chain,
        }
    }

    /// The text of a rule, with the operation and the filters that decided where it has many.
    fn relevant(
        &self,
        index: usize,
        operation: OperationId,
        target: &Target,
        semantics: &Semantics,
    ) -> String {
        let rule = &self.rules[index];
        let mut shown = rule.clone();
        let named = self
            .ancestors(operation)
            .find_map(|id| rule.operations.iter().find(|(named, _)| *named == id));
        if let Some((id, name)) = named
            && rule.operations.len() > 1
        {
            shown.operations = vec![(*id, name.clone()), (*id, "…".into())];
        }
        let matching: Vec<Filter> = alternatives(&rule.filters)
            .into_iter()
            .filter(|filter| filter.matches(target, semantics))
            .cloned()
            .collect();
        if !matching.is_empty() {
            shown.filters = matching;
        }
        shown.to_string()
    }

    /// The last rule for exactly `operation` with a filter that matches, or what every profile allows.
    fn matching(
        &self,
        operation: OperationId,
        target: &Target,
        semantics: &Semantics,
    ) -> Option<(Verdict, Decider)> {
        let rules = self.filtered[usize::from(operation.0)].iter().rev();
        let found = rules.copied().find(|index| {
            let filters = &self.rules[*index].filters;
            filters.iter().any(|filter| filter.matches(target, semantics))
        });
        match found {
            Some(index) => Some((self.rules[index].verdict, Decider::Rule(index))),
            None if self.implicit.contains(&operation) && target.is_self() => {
                Some((Verdict::Allow, Decider::Implicit(operation)))
            }
            None => None,
        }
    }

    /// The last rule for exactly `operation` without filters.
    fn without_filter(&self, operation: OperationId) -> Option<(Verdict, Decider)> {
        let index = self.unfiltered[usize::from(operation.0)]?;
        Some((self.rules[index].verdict, Decider::Rule(index)))
    }

    /// The answer of an operation without a parent when no rule says anything.
    fn terminal(&self, operation: OperationId, semantics: &Semantics) -> Verdict {
        let known = self.vocabulary.operation(operation);
        match known.name {
            "file-map-executable" => semantics.file_map_executable,
            "file-write-setugid" => semantics.file_write_setugid,
            _ => known.terminal.unwrap_or(Verdict::Deny),
        }
    }

    /// The target as the kernel sees it, where that differs by a switch.
    fn as_seen(&self, operation: OperationId, target: &Target, semantics: &Semantics) -> Option<Target> {
        let name = self.vocabulary.operation(operation).name;
        if !semantics.procargs_has_name
            && name.starts_with("sysctl-")
            && target.texts().any(|(_, text)| text.starts_with("kern.procargs"))
        {
            return Some(target.without_text("sysctl-name"));
        }
        if semantics.same_sandbox_by_text && target.numbers().any(|n| n == ("target", 3)) {
            return Some(target.in_same_sandbox());
        }
        None
    }
}

/// The alternatives of a rule: its filters, with those that `(literal "/a" "/b")` makes spread out.
fn alternatives(filters: &[Filter]) -> Vec<&Filter> {
    filters
        .iter()
        .flat_map(|filter| match filter {
            Filter::Any(inner) => alternatives(inner),
            other => vec![other],
        })
        .collect()
}
