//! Lints of what decides: own defaults, order, families of operations, alternatives.

use std::collections::BTreeMap;

use super::super::sbpl::decide::{Decider, Verdict};
use super::super::sbpl::filter::{Filter, Test};
use super::super::sbpl::vocabulary::{OperationId, Shape};
use super::super::sbpl::{Rule, Target};
use super::codes::{DEAD, MISPLACED, MIXED_FILTERS, OWN_DEFAULT, SHADOWED, UNFILTERED_LAST};
use super::{FRESH, Finding, Profile, QUESTIONS_MAX, about, alternatives, place_of};

/// Operations that are allowed by themselves and give something away, each with an operation and a process to
/// ask about. Others that are allowed by themselves are left alone: hardly a program works without them.
const OWN: [(&str, &str, &str); 3] = [
    ("process-info*", "process-info-pidinfo", "others"),
    ("nvram*", "nvram-get", "-"),
    ("iokit-get-properties", "iokit-get-properties", "-"),
];

/// Filters that mostly narrow another one, and say little alone.
const NARROWING: [&str; 8] = [
    "vnode-type",
    "file-mode",
    "device-major",
    "device-minor",
    "socket-type",
    "socket-protocol",
    "signal-number",
    "mac-syscall-number",
];

pub(super) fn lint(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    findings.extend(own_default(profile));
    unfiltered_last(profile, findings);
    shadowed(profile, findings);
    findings.extend(profile.rules().filter_map(|(_, rule)| mixed(rule)));
    overwritten(profile, findings);
    findings.extend(profile.rules().filter_map(|(_, rule)| impossible(rule)));
    misplaced(profile, findings);
}

/// Filters that never match for one of their rule's operations, of each rule the first.
fn misplaced(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    let mut last = None;
    for (rule, test, operation) in profile.ruleset.misplaced() {
        if last.replace(&rule.at) == Some(&rule.at) {
            continue;
        }
        let message = format!("`{test}` never matches for `{operation}`, which has nothing that it asks for");
        findings.push(about(
            rule,
            MISPLACED,
            message,
            "write a rule of its own for this operation, or leave it out",
        ));
    }
}

fn own_default(profile: &Profile<'_>) -> Option<Finding> {
    let at = profile.denies_by_default()?;
    let is_open = |(_, operation, relation): &(&str, &str, &str)| {
        let target = Target::process(relation).unwrap_or_default();
        let id = profile.operation(operation);
        id.is_some_and(|id| {
            matches!(
                profile.verdict(id, &target),
                (Verdict::Allow, Decider::Terminal(_))
            )
        })
    };
    let open: Vec<&str> = OWN
        .into_iter()
        .filter(is_open)
        .map(|(family, ..)| family)
        .collect();
    (!open.is_empty()).then(|| Finding {
        code: OWN_DEFAULT.id,
        at: at.clone(),
        message: format!(
            "no rule decides about `{}`, and the default does not either: they are allowed by themselves",
            open.join("`, `")
        ),
        hint: format!(
            "add (deny {}), and allow what is needed by filters",
            open.join(" ")
        ),
    })
}

fn unfiltered_last(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    let mut filtered: BTreeMap<(OperationId, Verdict), &Rule> = BTreeMap::new();
    for (_, rule) in profile.rules() {
        if !rule.filters.is_empty() {
            let named = rule.operations.iter().map(|(id, _)| ((*id, rule.verdict), rule));
            filtered.extend(named);
            continue;
        }
        let before = rule.operations.iter().find_map(|(id, name)| {
            let other = filtered.get(&(*id, opposite(rule.verdict)))?;
            Some((name, other))
        });
        if let Some((name, other)) = before {
            findings.push(about(
                rule,
                UNFILTERED_LAST,
                format!(
                    "this {} of `{name}` has no filter, so the {} with one at {} goes before it although it stands first",
                    rule.verdict, other.verdict, other.at
                ),
                "put rules without filters first, or give this one a filter",
            ));
        }
    }
}

fn opposite(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Allow => Verdict::Deny,
        Verdict::Deny => Verdict::Allow,
    }
}

fn shadowed(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    let mut questions = 0;
    for (index, rule) in profile.rules() {
        if rule.filters.is_empty() || questions > QUESTIONS_MAX {
            continue;
        }
        let mut hit: Vec<(&str, &Rule)> = Vec::new();
        for filter in alternatives(&rule.filters) {
            let Some((inside, outside)) = witnesses(filter) else {
                continue;
            };
            for (family, _) in &rule.operations {
                let members = profile.below.get(family).map_or(&[][..], Vec::as_slice);
                for member in members.iter().filter(|member| !has(rule, **member)) {
                    questions += inside.len();
                    let target = (&inside[..], &outside);
                    if let Some(other) = goes_before(profile, (index, *family), *member, target) {
                        hit.push((profile.ruleset.vocabulary.operation(*member).name, other));
                    }
                }
            }
        }
        if let Some((_, other)) = hit.first() {
            let mut members: Vec<&str> = hit.iter().map(|(member, _)| *member).collect();
            members.sort_unstable();
            members.dedup();
            findings.push(about(
                rule,
                SHADOWED,
                format!(
                    "the {} at {} names `{}` itself and goes before this {}, wherever the two stand",
                    other.verdict,
                    other.at,
                    members.join("`, `"),
                    rule.verdict
                ),
                format!("name {} in this rule as well", members.join(" ")),
            ));
        }
    }
}

fn has(rule: &Rule, operation: OperationId) -> bool {
    rule.operations.iter().any(|(id, _)| *id == operation)
}

/// The rule that decides otherwise about `member` for everything that the rule at `index` speaks of, because it
/// names something below `family`; none where it looks as if that was meant.
fn goes_before<'a>(
    profile: &Profile<'a>,
    (index, family): (usize, OperationId),
    member: OperationId,
    (inside, outside): (&[Target], &Target),
) -> Option<&'a Rule> {
    let rule = &profile.ruleset.rules[index];
    let decider = |target: &Target| match profile.verdict(member, target) {
        (verdict, Decider::Rule(other)) if verdict != rule.verdict => Some(other),
        _ => None,
    };
    let below = |other: usize| {
        let mut chain = profile.ruleset.ancestors(member).take_while(|id| *id != family);
        chain.any(|id| has(&profile.ruleset.rules[other], id))
    };
    let others: Option<Vec<usize>> = inside.iter().map(decider).collect();
    let others = others?;
    if !others.iter().all(|other| below(*other)) {
        return None;
    }
    let other = *others.first()?;
    // A member that is denied as a whole is denied on purpose, and the family's allow is for the others.
    let stands_first = others.iter().all(|other| {
        let is_part = rule.verdict == Verdict::Deny || !profile.ruleset.rules[*other].filters.is_empty();
        *other < index && is_part
    });
    // What stands behind a deny and is about as much or less takes a part of it back.
    let is_wider = rule.verdict == Verdict::Deny && decider(outside) == Some(other);
    (stands_first || is_wider).then(|| &profile.ruleset.rules[other])
}

/// Targets that tell whether a rule for all that `filter` matches decides, and one beside them.
fn witnesses(filter: &Filter) -> Option<(Vec<Target>, Target)> {
    match filter {
        Filter::Test(Test::Path(pattern)) => {
            let place = place_of(pattern)?.trim_end_matches('/');
            let beside = match place.rsplit_once('/') {
                Some((folder, name)) => format!("{folder}/{FRESH}{name}{FRESH}"),
                None => format!("/{FRESH}{FRESH}"),
            };
            let inside = match pattern.shape {
                Shape::Subpath => vec![
                    Target::folder(if place.is_empty() { "/" } else { place }),
                    Target::file(&format!("{place}/{FRESH}")),
                ],
                _ => vec![Target::file(place)],
            };
            Some((inside, Target::file(&beside)))
        }
        Filter::Test(Test::Text { filter, pattern }) => {
            let inside = match pattern.shape {
                Shape::Literal => vec![Target::named(filter, &pattern.text)],
                Shape::Prefix => vec![
                    Target::named(filter, &pattern.text),
                    Target::named(filter, &format!("{}{FRESH}", pattern.text)),
                ],
                Shape::Subpath | Shape::Regex => return None,
            };
            Some((inside, Target::named(filter, FRESH)))
        }
        _ => None,
    }
}

fn mixed(rule: &Rule) -> Option<Finding> {
    let tests: Vec<&Test> = alternatives(&rule.filters)
        .into_iter()
        .filter_map(|filter| match filter {
            Filter::Test(test) => Some(test),
            Filter::All(_) | Filter::Any(_) | Filter::Not(_) => None,
        })
        .collect();
    let narrowing = tests.iter().find(|test| {
        // A terminal is a thing of its own: (tty).
        NARROWING.contains(&subject(test)) && test.to_string() != "(vnode-type TTY)"
    })?;
    let other = tests
        .iter()
        .find(|test| subject(test) != subject(narrowing) && !matches!(test, Test::Unheld { .. }))?;
    Some(about(
        rule,
        MIXED_FILTERS,
        format!(
            "`{narrowing}` and `{other}` are alternatives: either is enough for this {}",
            rule.verdict
        ),
        format!("write (require-all {other} {narrowing}) if both are to be met, and two rules if not"),
    ))
}

/// What a test is about.
fn subject(test: &Test) -> &str {
    match test {
        Test::Path(_) => "path",
        Test::Text { filter, .. } | Test::Number { filter, .. } => filter,
        Test::Endpoint { .. } | Test::UnixSocket { .. } => "network",
        Test::Unheld { .. } => "process",
    }
}

/// Rules all of whose operations and filters come again behind them with the other verdict.
fn overwritten(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    let mut later: BTreeMap<(OperationId, String), &Rule> = BTreeMap::new();
    let mut found = Vec::new();
    for (_, rule) in profile.rules().collect::<Vec<_>>().into_iter().rev() {
        let mut said: Vec<String> = alternatives(&rule.filters)
            .iter()
            .map(ToString::to_string)
            .collect();
        if said.is_empty() {
            said.push(String::new());
        }
        let keys: Vec<(OperationId, String)> = rule
            .operations
            .iter()
            .flat_map(|(id, _)| said.iter().map(|text| (*id, text.clone())))
            .take(QUESTIONS_MAX)
            .collect();
        let behind: Option<Vec<&Rule>> = keys.iter().map(|key| later.get(key).copied()).collect();
        let contrary = behind
            .iter()
            .flatten()
            .find(|other| other.verdict != rule.verdict);
        if let Some(other) = contrary {
            found.push(about(
                rule,
                DEAD,
                format!(
                    "this {} never decides: the {} at {} says the opposite about the same",
                    rule.verdict, other.verdict, other.at
                ),
                "remove one of the two",
            ));
        }
        for key in keys {
            later.entry(key).or_insert(rule);
        }
    }
    findings.extend(found);
}

/// A rule with a combination that no path meets.
fn impossible(rule: &Rule) -> Option<Finding> {
    let alternatives = alternatives(&rule.filters);
    let never = alternatives.iter().find(|filter| match filter {
        Filter::All(all) => {
            let paths: Vec<_> = all
                .iter()
                .filter_map(|filter| match filter {
                    Filter::Test(Test::Path(pattern)) => Some((pattern, place_of(pattern)?)),
                    _ => None,
                })
                .collect();
            paths.iter().enumerate().any(|(index, (a, place))| {
                let mut others = paths[index + 1..].iter();
                others.any(|(b, other)| !holds(a.shape, place, other) && !holds(b.shape, other, place))
            })
        }
        _ => false,
    })?;
    Some(about(
        rule,
        DEAD,
        format!("`{never}` never matches: no path is both"),
        "write the two as filters of the rule if one is to be enough",
    ))
}

/// Whether some path that is `other`, or lies below it, can be what a pattern of `shape` for `place` matches.
fn holds(shape: Shape, place: &str, other: &str) -> bool {
    let (place, other) = (place.to_lowercase(), other.to_lowercase());
    match other.strip_prefix(&place) {
        Some("") => true,
        Some(rest) => shape == Shape::Subpath && (rest.starts_with('/') || place.ends_with('/')),
        None => false,
    }
}
