//! The difference between two profiles by effect: what one allows and the other denies, each with a witness.
//!
//! Two profiles can differ in every line and do the same, or in the order of two lines and do something else. So
//! nothing is compared but answers. Every rule is a boundary between targets that it matches and targets that it
//! does not; `witness` makes targets on both sides of every boundary of both profiles, and each is decided by
//! both. Operations that no rule tells apart are decided once for all of them.
//!
//! For texts and paths this finds every difference that is made of literals, prefixes and folders. A regular
//! expression has samples, and what surrounds them: two of them that differ only in rare texts can pass as equal,
//! so a comparison says how many there were.

mod policy;
mod sample;
mod witness;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::sbpl::decide::Decider;
use super::sbpl::filter::{Filter, Test};
use super::sbpl::vocabulary::{OperationId, Shape};
use super::sbpl::{Ruleset, Semantics};

pub use super::decide::Verdict;
pub use policy::diff as diff_policies;

/// The wildcard that is an operation of its own, because the kernel asks it by this name (`process-exec` is only
/// another word for it in profiles; the operation tables of 10.15 and later).
const ASKED_WILDCARD: &str = "process-exec*";

/// What comparing two profiles came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Everything that was found.
    pub differences: Vec<Difference>,
    /// How many regular expressions the two have. What they match was tried with samples only.
    pub expressions: usize,
    /// Operations whose rules draw more boundaries than are tried; nothing is known of the rest of them.
    pub cut: Vec<String>,
}

/// One thing that two profiles answer differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The operations that differ in this way.
    pub operations: Vec<String>,
    /// A target for which they do.
    pub witness: String,
    /// How many of the targets that were tried differ in this way, each of another kind for the rules.
    pub count: usize,
    /// What the one says.
    pub left: Side,
    /// What the other says.
    pub right: Side,
}

/// What one profile says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Yes or no.
    pub verdict: Verdict,
    /// The deciding rule.
    pub rule: String,
    /// Where it stands, where that can be said.
    pub at: Option<String>,
}

/// Everything that `left` and `right`, compiled for the same release, answer differently, by operation and rule.
pub fn diff(left: &Ruleset, right: &Ruleset, semantics: &Semantics) -> Comparison {
    let paths = witness::Paths::of([left, right], semantics);
    let mut cut = Vec::new();
    let mut found: BTreeMap<(Decider, Decider), Difference> = BTreeMap::new();
    let mut order = Vec::new();
    for group in groups(left, right) {
        let tried = witness::of(&[(left, group.left), (right, group.right)], &paths);
        if tried.cut {
            cut.extend(group.names.iter().cloned());
        }
        for target in tried.witnesses {
            let said = left.verdict(group.left, &target.target, semantics);
            let other = right.verdict(group.right, &target.target, semantics);
            if said.0 == other.0 {
                continue;
            }
            let key = (said.1, other.1);
            if let Some(known) = found.get_mut(&key) {
                known.count += 1;
                for name in &group.names {
                    if !known.operations.contains(name) {
                        known.operations.push(name.clone());
                    }
                }
                continue;
            }
            let side = |ruleset: &Ruleset, id| {
                let ruling = ruleset.decide(id, &target.target, semantics);
                Side {
                    verdict: ruling.verdict,
                    rule: ruling.rule,
                    at: ruling.at.map(|at| at.to_string()),
                }
            };
            order.push(key);
            found.insert(
                key,
                Difference {
                    operations: group.names.clone(),
                    witness: target.shown,
                    count: 1,
                    left: side(left, group.left),
                    right: side(right, group.right),
                },
            );
        }
    }
    Comparison {
        differences: order.into_iter().filter_map(|key| found.remove(&key)).collect(),
        expressions: expressions(left).union(&expressions(right)).count(),
        cut,
    }
}

/// The regular expressions that rules ask for.
fn expressions(ruleset: &Ruleset) -> BTreeSet<String> {
    let filters = ruleset.rules.iter().flat_map(|rule| &rule.filters);
    let patterns = filters.flat_map(Filter::tests).filter_map(|test| match test {
        Test::Path(pattern) | Test::Text { pattern, .. } => Some(pattern),
        Test::UnixSocket { .. } | Test::Number { .. } | Test::Endpoint { .. } | Test::Unheld { .. } => None,
    });
    patterns
        .filter(|pattern| pattern.shape == Shape::Regex)
        .map(|pattern| pattern.text.to_string())
        .collect()
}

/// Operations that both profiles decide alike for every target.
struct Group {
    names: Vec<String>,
    /// One of them, in each profile's vocabulary.
    left: OperationId,
    right: OperationId,
}

/// The operations of both vocabularies that the kernel asks about, in groups.
fn groups(left: &Ruleset, right: &Ruleset) -> Vec<Group> {
    let named: Vec<BTreeSet<OperationId>> = [left, right].map(named).into();
    let mut groups: BTreeMap<_, Group> = BTreeMap::new();
    for (id, operation) in left.vocabulary.operations() {
        // Other wildcards and `default` are only ever what others fall back to.
        let falls_back = operation.name.ends_with('*') && operation.name != ASKED_WILDCARD;
        if falls_back || operation.name == "default" {
            continue;
        }
        let Some(other) = right.vocabulary.asked(operation.name) else {
            continue;
        };
        // The near end of a connection and the far end are different targets.
        let near = ["network-bind", "network-inbound"].contains(&operation.name);
        let key = (
            family(left, id, &named[0]),
            family(right, other, &named[1]),
            operation.categories.clone(),
            near,
            left.is_implicit(id),
        );
        groups
            .entry(key)
            .or_insert_with(|| Group {
                names: Vec::new(),
                left: id,
                right: other,
            })
            .names
            .push(operation.name.to_owned());
    }
    groups.into_values().collect()
}

/// The operations that rules name.
fn named(ruleset: &Ruleset) -> BTreeSet<OperationId> {
    let operations = ruleset.rules.iter().flat_map(|rule| &rule.operations);
    operations.map(|(id, _)| *id).collect()
}

/// What decides about `operation`: those of its parents and itself that rules name, and the last of them all.
fn family(ruleset: &Ruleset, operation: OperationId, named: &BTreeSet<OperationId>) -> Vec<OperationId> {
    let ancestors: Vec<OperationId> = ruleset.ancestors(operation).collect();
    let last = ancestors.last().copied();
    let mut family: Vec<_> = ancestors.into_iter().filter(|id| named.contains(id)).collect();
    family.extend(last);
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sbpl::{Release, Settings, compile};

    fn ruleset(text: &str) -> Ruleset {
        let text = format!("(version 1)\n{text}");
        compile("t.sb", text.as_bytes(), &Settings::new(Release::NEWEST)).unwrap()
    }

    fn differences(left: &str, right: &str) -> Vec<Difference> {
        compared(left, right).differences
    }

    fn compared(left: &str, right: &str) -> Comparison {
        diff(&ruleset(left), &ruleset(right), &Semantics::of(Release::NEWEST))
    }

    fn said(left: &str, right: &str) -> Vec<String> {
        differences(left, right)
            .iter()
            .map(|d| {
                format!(
                    "{} {}: {} by {} / {} by {}",
                    d.operations.join(","),
                    d.witness,
                    d.left.verdict,
                    d.left.rule,
                    d.right.verdict,
                    d.right.rule
                )
            })
            .collect()
    }

    #[test]
    fn an_order_that_matters_is_found_with_a_witness() {
        assert_eq!(
            said(
                r#"(deny default) (allow file-read-data (subpath "/a")) (deny file-read-data (subpath "/a/b"))"#,
                r#"(deny default) (deny file-read-data (subpath "/a/b")) (allow file-read-data (subpath "/a"))"#,
            ),
            [
                r#"file-read-data /a/b: deny by (deny file-read-data (subpath "/a/b")) / allow by (allow file-read-data (subpath "/a"))"#
            ]
        );
    }

    #[test]
    fn an_order_that_does_not_matter_is_no_difference() {
        assert_eq!(
            said(
                r#"(deny default) (allow file-read* (subpath "/a")) (deny file-read* (subpath "/b"))"#,
                r#"(deny default) (deny file-read* (subpath "/b")) (allow file-read* (subpath "/a"))"#,
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn other_words_for_the_same_are_no_difference() {
        assert_eq!(
            said(
                r#"(deny default) (allow file-read-data file-read-metadata file-read-xattr (subpath "/a") (literal "/b"))"#,
                r#"(define (sub x) (subpath x)) (deny default) (allow file-read* (literal "/b")) (allow file-read* (require-any (sub "/a") (literal "/a")))"#,
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_literal_a_prefix_and_a_folder_differ_where_they_do() {
        let witness = |left: &str, right: &str| {
            let rule = |filter: &str| format!("(deny default) (allow file-read-data {filter})");
            let found = differences(&rule(left), &rule(right));
            found.iter().map(|d| d.witness.clone()).collect::<Vec<_>>()
        };
        assert_eq!(witness(r#"(literal "/a")"#, r#"(subpath "/a")"#), ["/a/~"]);
        assert_eq!(witness(r#"(prefix "/a")"#, r#"(subpath "/a")"#), ["/a~"]);
        assert_eq!(
            witness(r##"(regex #"^/a/[0-9]+$")"##, r#"(literal "/a/0")"#).len(),
            1
        );
        assert_eq!(
            witness(
                r##"(require-all (subpath "/a") (regex #"\.key$"))"##,
                r#"(literal "/none")"#
            ),
            ["/a/.key", "/none"]
        );
        assert_eq!(
            witness(
                r#"(require-all (subpath "/a") (vnode-type DIRECTORY))"#,
                r#"(literal "/none")"#
            ),
            ["/none", "/a (DIRECTORY)"]
        );
    }

    #[test]
    fn an_exec_that_only_one_allows_is_a_difference() {
        let found = said(
            r#"(deny default) (allow process-exec (subpath "/usr"))"#,
            "(deny default)",
        );
        assert_eq!(
            found,
            [
                r#"process-exec*,process-exec-interpreter /usr: allow by (allow process-exec (subpath "/usr")) / deny by (deny default)"#
            ]
        );
    }

    #[test]
    fn expressions_differ_where_one_ends_begins_or_crosses_a_folder_and_the_other_does_not() {
        let differ = |operation: &str, left: &str, right: &str| {
            let rule = |filter: &str| format!("(deny default) (allow {operation} ({filter}))");
            !differences(&rule(left), &rule(right)).is_empty()
        };
        let files = [
            (r##"regex #"^/a/b""##, r##"regex #"^/a/b$""##),
            (r##"regex #"^/a/b""##, r#"literal "/a/b""#),
            (r##"regex #"^/a/b""##, r#"subpath "/a/b""#),
            (r##"regex #"^/a/b$""##, r##"regex #"/a/b$""##),
            (r##"regex #"^/a/[^/]+$""##, r##"regex #"^/a/.+$""##),
            (r##"regex #"^/a/x?$""##, r##"regex #"^/a/x*$""##),
            (r##"regex #"^/a/[a-m]$""##, r##"regex #"^/a/[a-z]$""##),
        ];
        for (left, right) in files {
            assert!(differ("file-read-data", left, right), "{left} and {right}");
        }
        let names = [
            (r##"sysctl-name-regex #"^hw""##, r##"sysctl-name-regex #"^hw$""##),
            (r##"sysctl-name-regex #"^hw$""##, r##"sysctl-name-regex #"hw$""##),
        ];
        for (left, right) in names {
            assert!(differ("sysctl-read", left, right), "{left} and {right}");
        }
    }

    #[test]
    fn rules_about_different_properties_of_one_target_are_tried_together() {
        let rules = [
            r#"(deny file-read-xattr (xattr "secret"))"#,
            r#"(allow file-read-xattr (subpath "/a"))"#,
        ];
        let found = said(
            &format!("(deny default) {} {}", rules[0], rules[1]),
            &format!("(deny default) {} {}", rules[1], rules[0]),
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("file-read-xattr /a xattr=secret: allow"),
            "{found:?}"
        );
    }

    #[test]
    fn a_comparison_says_what_it_did_not_try() {
        assert_eq!(
            compared("(deny default)", "(deny default)"),
            Comparison::default()
        );
        let expression = r##"(allow file-read-data (regex #"^/a") (regex #"^/b"))"##;
        assert_eq!(compared(expression, expression).expressions, 2);

        let rules = |what: &str| (0..400).map(|n| format!("({what}{n}\")")).collect::<String>();
        let many = format!(
            "(allow file-read-xattr {} {})",
            rules("literal \"/a"),
            rules("xattr \"x")
        );
        assert_eq!(compared(&many, &many).cut, ["file-read-xattr"]);
    }

    #[test]
    fn operations_that_differ_alike_are_told_together() {
        let found = differences(
            r#"(deny default) (allow file-write* (subpath "/a"))"#,
            "(deny default)",
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].operations.contains(&"file-write-unlink".to_owned()));
        assert!(!found[0].operations.contains(&"file-write-setugid".to_owned()));
    }

    #[test]
    fn ports_ends_processes_and_names_have_witnesses() {
        let first = |left: &str| {
            let found = said(&format!("(deny default) {left}"), "(deny default)");
            found.first().cloned().unwrap_or_default()
        };
        assert!(
            first(r#"(allow network-outbound (remote tcp "localhost:80"))"#)
                .starts_with("network-outbound tcp:127.0.0.1:80: allow")
        );
        assert!(first(r#"(allow network-outbound (local ip "localhost:*"))"#).contains(": allow"));
        assert!(
            first(r#"(allow network-bind (local tcp "*:80"))"#)
                .starts_with("network-bind tcp:127.0.0.1:80: allow")
        );
        assert!(
            first(r#"(allow network-outbound (remote unix-socket (subpath "/s")))"#)
                .starts_with("network-outbound /s: allow")
        );
        assert!(first("(allow signal (target children))").starts_with("signal children: allow"));
        assert!(
            first(r#"(allow mach-lookup (local-name "x"))"#).starts_with("mach-lookup local-name=x: allow")
        );
        assert!(
            first("(allow system-socket (require-all (socket-domain AF_INET) (socket-type SOCK_RAW)))")
                .contains("AF_INET")
        );
        assert!(first("(allow job-creation)").starts_with("job-creation -: allow"));
        assert!(first(r#"(with-filter (mac-policy-name "Sandbox") (allow system-mac-syscall (mac-syscall-number 67)))"#).contains("67"));
    }

    #[test]
    fn another_default_shows_where_no_rule_speaks() {
        let found = said("(deny default)", "(allow default)");
        assert!(
            found
                .iter()
                .any(|said| said.contains("(deny default) / allow by (allow default)")),
            "{found:?}"
        );
        assert!(
            !found.iter().any(|said| said.contains("process-info")),
            "its answer is its own"
        );
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

        /// Whatever two small profiles say of a small world, a difference is found exactly if there is one.
        #[test]
        fn exactly_the_differences_there_are_are_found(left in rules(), right in rules()) {
            let semantics = Semantics::of(Release::NEWEST);
            let (left, right) = (ruleset(&left), ruleset(&right));
            let found = !diff(&left, &right, &semantics).differences.is_empty();
            let mut differs = false;
            let asked = left.vocabulary.operations().filter(|(_, operation)| {
                operation.name == ASKED_WILDCARD
                    || operation.name.starts_with("file-") && !operation.name.ends_with('*')
            });
            for (id, _) in asked {
                for path in ["/a", "/a/b", "/a/b/c", "/a/x", "/ab", "/ab/x", "/x", "/a/b/x", "/a/bx"] {
                    let target = crate::profile::sbpl::Target::file(path);
                    differs |= left.verdict(id, &target, &semantics).0 != right.verdict(id, &target, &semantics).0;
                }
            }
            proptest::prop_assert_eq!(found, differs);
        }
    }

    fn rules() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        let operation = prop::sample::select(vec![
            "file-read*",
            "file-read-data",
            "file*",
            "file-write*",
            "process-exec",
            "process-exec*",
        ]);
        let filter = prop::sample::select(vec![
            r#"(literal "/a")"#,
            r#"(subpath "/a")"#,
            r#"(subpath "/a/b")"#,
            r#"(prefix "/a")"#,
            r#"(require-not (subpath "/a/b"))"#,
            r#"(require-all (subpath "/a") (require-not (literal "/a/b")))"#,
            "",
        ]);
        let rule = (any::<bool>(), operation, filter).prop_map(|(allow, operation, filter)| {
            format!(
                "({} {operation} {filter})\n",
                if allow { "allow" } else { "deny" }
            )
        });
        prop::collection::vec(rule, 1..6).prop_map(|rules| format!("(deny default)\n{}", rules.concat()))
    }
}
