//! Lints of paths: spellings that the kernel never compares, and what moving and writing does to rules.

use super::super::sbpl::decide::{Decider, Verdict};
use super::super::sbpl::filter::Pattern;
use super::super::sbpl::target::resolved;
use super::super::sbpl::vocabulary::Shape;
use super::super::sbpl::{Rule, Target};
use super::codes::{DOTS, MOVABLE, RELATIVE, TRAILING_SLASH, UNRESOLVED, WIDER_WRITE};
use super::{
    FRESH, Finding, Profile, QUESTIONS_MAX, about, all_paths, folders_above, names, place_of, plain_paths,
};

/// Operations by which a deny keeps the content of a place.
const CONTENT: [&str; 6] = [
    "file*",
    "file-read*",
    "file-read-data",
    "file-write*",
    "file-write-data",
    "process-exec*",
];

/// Where a firmlink or an automounter puts `/home`.
const HOME_LINK: &str = "/home";

pub(super) fn lint(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    for (_, rule) in profile.rules() {
        findings.extend(all_paths(rule).filter_map(|pattern| spelling(rule, pattern)));
    }
    let mut questions = 0;
    for (index, rule) in profile.rules() {
        if rule.verdict == Verdict::Deny && names(profile, rule, &CONTENT) && questions < QUESTIONS_MAX {
            questions += plain_paths(rule)
                .map(|pattern| pattern.text.matches('/').count())
                .sum::<usize>();
            findings.extend(movable(profile, index));
        }
    }
    wider_write(profile, findings);
}

/// What is wrong with how a path is written; the first thing.
fn spelling(rule: &Rule, pattern: &Pattern) -> Option<Finding> {
    let text = &*pattern.text;
    if pattern.shape == Shape::Regex {
        let anchored = text.strip_prefix('^')?.replace('\\', "");
        return unresolved(rule, pattern, &anchored);
    }
    if !text.starts_with('/') {
        let hint = if text.starts_with('~') {
            "`~` means nothing to the kernel; write (string-append (param \"HOME\") \"/…\")"
        } else {
            "the kernel compares absolute paths; put the folder in front, as (string-append (param \"WORK\") \"/…\")"
        };
        return Some(about(
            rule,
            RELATIVE,
            format!("`{text}` is not absolute, so it never matches"),
            hint,
        ));
    }
    let inner = text.trim_end_matches('/');
    let odd = inner
        .split('/')
        .skip(1)
        .any(|part| [".", "..", ""].contains(&part));
    if odd && !inner.is_empty() {
        return Some(about(
            rule,
            DOTS,
            format!("`{text}` has a part that no resolved path has, so it never matches"),
            "write the path without `.`, `..` and `//`",
        ));
    }
    if inner != text && text != "/" && pattern.shape != Shape::Prefix {
        return Some(about(
            rule,
            TRAILING_SLASH,
            format!("`{text}` ends with a slash, and the folder itself does not"),
            format!("write \"{inner}\""),
        ));
    }
    unresolved(rule, pattern, text)
}

fn unresolved(rule: &Rule, pattern: &Pattern, path: &str) -> Option<Finding> {
    let of_link = match pattern.shape {
        // A link by itself is a thing of its own, which programs look at.
        Shape::Literal => path.to_owned(),
        Shape::Prefix | Shape::Regex => path.to_owned(),
        Shape::Subpath => format!("{path}/"),
    };
    let home = of_link
        .strip_prefix(HOME_LINK)
        .filter(|rest| rest.starts_with('/'));
    let really = match home {
        Some(rest) => format!("/System/Volumes/Data/home{rest}"),
        None => resolved(&of_link),
    };
    if really == of_link || path.starts_with("/System/Volumes/Data/") {
        return None;
    }
    let shown = really.trim_end_matches('/').to_owned();
    // Whoever writes both spellings in one rule has thought of it.
    let both = |other: &Pattern| {
        let text = other.text.trim_start_matches('^').replace('\\', "");
        other.shape == pattern.shape && text.trim_end_matches('/') == shown
    };
    if all_paths(rule).any(both) {
        return None;
    }
    Some(about(
        rule,
        UNRESOLVED,
        format!(
            "`{}` leads through a link, and the kernel compares what links lead to",
            pattern.text
        ),
        format!("write {shown}"),
    ))
}

/// A deny of the content of a place below a folder that may be moved.
fn movable(profile: &Profile<'_>, index: usize) -> Option<Finding> {
    let rule = &profile.ruleset.rules[index];
    let (place, folder) = plain_paths(rule)
        .find_map(|pattern| Some((place_of(pattern)?, above_that_moves(profile, index, pattern)?)))?;
    Some(about(
        rule,
        MOVABLE,
        format!("`{place}` stops being denied when `{folder}`, which may be moved, is moved"),
        format!("add behind it (deny file-write-unlink (literal \"{folder}\")), for each such folder"),
    ))
}

/// A folder above what a deny speaks of that may be moved away, together with it.
fn above_that_moves(profile: &Profile<'_>, index: usize, pattern: &Pattern) -> Option<String> {
    let place = place_of(pattern).filter(|place| place.starts_with('/'))?;
    let decides = ["file-read-data", "file-write-data", "process-exec"]
        .iter()
        .any(|name| {
            let id = profile.operation(name);
            id.is_some_and(|id| {
                profile.verdict(id, &Target::file(place)) == (Verdict::Deny, Decider::Rule(index))
            })
        });
    if !decides {
        return None;
    }
    // Moving takes a name away in the folder around. What is writable for want of a rule is so for want of
    // anything better, and who may move there is said by the modes of files.
    let unlink = profile.operation("file-write-unlink")?;
    let moves = |folder: &str| match profile.verdict(unlink, &Target::folder(folder)) {
        (Verdict::Allow, Decider::Rule(grant)) => !profile.ruleset.rules[grant].filters.is_empty(),
        _ => false,
    };
    let movable: Vec<&str> = folders_above(place).filter(|folder| moves(folder)).collect();
    // The outermost is what was granted: there is nowhere to move it to within itself.
    let (_, inside) = movable.split_last()?;
    inside.first().map(|folder| (*folder).to_owned())
}

/// Folders that are granted to read by name, inside of one that is granted to write as a whole.
fn wider_write(profile: &Profile<'_>, findings: &mut Vec<Finding>) {
    const READS: [&str; 3] = ["file-read*", "file-read-data", "file-map-executable"];
    const WRITES: [&str; 3] = ["file-write*", "file-write-data", "file*"];
    let writable: Vec<&Pattern> = profile
        .allows()
        .filter(|rule| names(profile, rule, &WRITES))
        .flat_map(plain_paths)
        .filter(|pattern| pattern.shape == Shape::Subpath)
        .collect();
    let mut questions = 0;
    for rule in profile.allows() {
        if !names(profile, rule, &READS) || names(profile, rule, &WRITES) || questions > QUESTIONS_MAX {
            continue;
        }
        let hit = plain_paths(rule).find_map(|pattern| {
            questions += writable.len() + 1;
            let inside = |wide: &&&Pattern| {
                let rest = pattern.text.strip_prefix(&*wide.text);
                rest.is_some_and(|rest| rest.len() > 1 && (rest.starts_with('/') || wide.text.ends_with('/')))
            };
            let wide = writable.iter().find(inside)?;
            if pattern.shape != Shape::Subpath {
                return None;
            }
            let target = Target::file(&format!("{}/{FRESH}", pattern.text));
            (profile.asked("file-write-data", &target) == Verdict::Allow).then_some((pattern, wide))
        });
        findings.extend(hit.map(|(pattern, wide)| {
            about(
                rule,
                WIDER_WRITE,
                format!(
                    "`{}` is granted to read, and lies in `{}`, which is granted to write",
                    pattern.text, wide.text
                ),
                format!(
                    "add behind the grant (deny file-write* (subpath \"{}\")) if it is only to be read",
                    pattern.text
                ),
            )
        }));
    }
}
