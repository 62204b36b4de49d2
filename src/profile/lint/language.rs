//! Lints of names and texts.

use super::super::sbpl::Rule;
use super::super::sbpl::decide::Verdict;
use super::super::sbpl::filter::{Filter, Test};
use super::super::sbpl::vocabulary::Vocabulary;
use super::codes::{
    DROPPED, LATER_VERSION, NO_EFFECT, NOT_ASCII, SKIPPED_IMPORT, TEMPLATE, TOO_LONG, TOO_NEW, UNTAGGED,
};
use super::{Finding, Profile, about, texts};

/// Length of a rule in bytes from which it is near the kernel's limit of 65535; the compiled form is longer than
/// the text by an amount that is not known.
const LONG_BYTE: usize = 32 * 1024;

/// Modifiers that are accepted and do nothing any more.
const FUTILE: [&str; 3] = ["no-callout", "partial-symbolication", "termination"];

/// What templates of one kind or another leave behind.
const TEMPLATE_MARKS: [&str; 7] = ["{{", "}}", "{%", "${", "$(", "<%", "\")"];

pub(super) fn lint(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    for (at, name) in &profile.ruleset.skipped {
        findings.push(Finding {
            code: SKIPPED_IMPORT.id,
            at: at.clone(),
            message: format!("`{name}` was not imported, so what it allows is not known here"),
            hint: "name the folder that has it with --import-dir".to_owned(),
        });
    }
    findings.extend(later_version(profile));
    let oldest = Vocabulary::of(profile.oldest.min(profile.ruleset.vocabulary.release()));
    for (_, rule) in profile.rules() {
        if let Some(name) = rule.dropped.first() {
            findings.push(about(
                rule,
                DROPPED,
                format!(
                    "`{name}` is accepted and ignored: this {} says nothing about it",
                    rule.verdict
                ),
                "remove it",
            ));
        }
        findings.extend(too_new(rule, oldest));
        findings.extend(text(rule));
        findings.extend(futile(rule));
    }
    too_long(profile, findings);
    untagged(profile, findings);
}

fn later_version(profile: &Profile<'_>) -> Option<Finding> {
    let version = profile.ruleset.version;
    let first = profile.ruleset.rules.first().filter(|_| version > 1)?;
    Some(about(
        first,
        LATER_VERSION,
        format!(
            "a profile of version {version} is decided as one of version 1; a Mac may allow less by itself"
        ),
        "ask a Mac about what no rule names, or write (version 1)",
    ))
}

fn too_new(rule: &Rule, oldest: &Vocabulary) -> Option<Finding> {
    let operations = rule.operations.iter().map(|(_, name)| &**name);
    let filters = rule
        .filters
        .iter()
        .flat_map(Filter::tests)
        .filter_map(|test| match test {
            Test::Text { filter, .. } | Test::Number { filter, .. } => Some(*filter),
            // `(name …)`, as written.
            Test::Unheld { text } => text.trim_start_matches('(').split([' ', ')']).next(),
            Test::Path(_) | Test::Endpoint { .. } | Test::UnixSocket { .. } => None,
        });
    let modifiers = rule.modifiers.iter().map(|modifier| modifier.name.as_str());
    let mut names = operations.chain(filters).chain(modifiers);
    let (name, since) = names.find_map(|name| {
        let known = oldest.in_profile(name).is_some()
            || oldest.filter_named(name).is_some()
            || oldest.modifier(name).is_some();
        let since = oldest.since_when(name)?;
        (!known).then_some((name, since))
    })?;
    Some(about(
        rule,
        TOO_NEW,
        format!("`{name}` came with macOS {since}; before, the whole profile is refused for it"),
        format!("leave it out where the profile is for {}", oldest.release()),
    ))
}

/// What is wrong with a text that a rule compares with; the first thing.
fn text(rule: &Rule) -> Option<Finding> {
    texts(rule).find_map(|pattern| {
        let text = &*pattern.text;
        if let Some(mark) = TEMPLATE_MARKS.iter().find(|mark| text.contains(**mark)) {
            return Some(about(
                rule,
                TEMPLATE,
                format!("`{text}` has `{mark}` in it, as if something was to be put there"),
                "put values in by (param \"NAME\"), or quote `\\` and `\"` in them, in this order",
            ));
        }
        let odd = text.chars().find(|c| !c.is_ascii() || c.is_ascii_control())?;
        Some(about(
            rule,
            NOT_ASCII,
            format!(
                "there is {} in a text, for which profiles have no known meaning",
                shown(odd)
            ),
            "give the text as a parameter, or use a name of plain ASCII",
        ))
    })
}

fn shown(c: char) -> String {
    if c.is_control() {
        format!("the control character {}", c.escape_default())
    } else {
        format!("`{c}`")
    }
}

fn futile(rule: &Rule) -> Option<Finding> {
    let modifier = rule
        .modifiers
        .iter()
        .find(|modifier| FUTILE.contains(&modifier.name.as_str()))?;
    Some(about(
        rule,
        NO_EFFECT,
        format!("`{}` is accepted and does nothing", modifier.name),
        "remove it",
    ))
}

fn too_long(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    let length = |rule: &Rule| texts(rule).map(|pattern| pattern.text.len() + 8).sum::<usize>();
    let found = |rule: &Rule, what: &str, length: usize| {
        about(
            rule,
            TOO_LONG,
            format!("{what} has about {length} bytes of texts; more than 65535 are refused"),
            "split it into several rules, or use a folder or a prefix instead of a list",
        )
    };
    if profile.semantics.limit_per_rule {
        for (_, rule) in profile.rules() {
            let length = length(rule);
            if length > LONG_BYTE {
                findings.push(found(rule, "this rule", length));
            }
        }
        return;
    }
    for (id, operation) in profile.ruleset.vocabulary.operations() {
        let rules: Vec<&Rule> = profile.ruleset.rules_for(id).collect();
        let length = rules.iter().map(|rule| length(rule)).sum();
        if let Some(last) = rules.last().filter(|_| length > LONG_BYTE) {
            findings.push(found(
                last,
                &format!("everything about `{}`", operation.name),
                length,
            ));
        }
    }
}

/// Denies that cannot be told apart in the log, in a profile that tags the others.
fn untagged(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    let default = profile.operation("default");
    let is_default = |rule: &Rule| rule.operations.iter().any(|(id, _)| Some(*id) == default);
    let denies = || {
        profile
            .rules()
            .map(|(_, rule)| rule)
            .filter(|rule| rule.verdict == Verdict::Deny && !rule.operations.is_empty())
    };
    if !denies().any(|rule| !is_default(rule) && rule.message().is_some()) {
        return;
    }
    for rule in denies() {
        let silent = rule.modifiers.iter().any(|modifier| modifier.name == "no-report");
        if rule.message().is_none() && !silent {
            findings.push(about(
                rule,
                UNTAGGED,
                "other denies of this profile have a message and this one does not".to_owned(),
                "add the same (with message …), or (with no-report)",
            ));
        }
    }
}
