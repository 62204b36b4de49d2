//! Texts that a regular expression matches.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Most samples of one expression.
const SAMPLES_MAX: usize = 48;

/// Most members of one class.
const MEMBERS_MAX: usize = 8;

/// Longest sample in characters.
const LENGTH_MAX: usize = 4_096;

/// A few texts that `pattern`, already translated, matches if it can be satisfied at all: each alternative,
/// repetitions as short as they may be, once and twice longer and as long as they may be, some members of each
/// class. What varies, varies alone: each sample differs in one place from the first.
pub(super) fn samples(pattern: &str) -> Vec<String> {
    match regex_syntax::Parser::new().parse(pattern) {
        Ok(hir) => of(&hir),
        Err(_) => Vec::new(),
    }
}

fn fits(sample: &str) -> bool {
    sample.len() <= LENGTH_MAX
}

fn of(hir: &Hir) -> Vec<String> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => vec![String::new()],
        HirKind::Literal(literal) => vec![String::from_utf8_lossy(&literal.0).into_owned()],
        HirKind::Class(class) => members(class).into_iter().map(String::from).collect(),
        HirKind::Capture(capture) => of(&capture.sub),
        HirKind::Repetition(repetition) => {
            let once = of(&repetition.sub);
            let count = |count| usize::try_from(count).unwrap_or(LENGTH_MAX).min(LENGTH_MAX);
            let least = count(repetition.min);
            let most = repetition.max.map_or(LENGTH_MAX, count);
            let mut counts = vec![least, least + 1, least + 2];
            counts.extend(repetition.max.map(count));
            counts.retain(|count| *count <= most);
            counts.dedup();
            let samples = counts.into_iter().flat_map(|count| {
                // Where nothing is repeated, there is one way to do so.
                let once = if count == 0 {
                    &once[..1.min(once.len())]
                } else {
                    &once
                };
                once.iter().map(move |sample| sample.repeat(count))
            });
            samples.filter(|sample| fits(sample)).take(SAMPLES_MAX).collect()
        }
        HirKind::Concat(parts) => {
            let parts: Vec<Vec<String>> = parts.iter().map(of).collect();
            let first: Option<Vec<&str>> = parts
                .iter()
                .map(|samples| samples.first().map(String::as_str))
                .collect();
            let Some(first) = first else {
                return Vec::new();
            };
            let varied = parts.iter().enumerate().flat_map(|(place, samples)| {
                let first = &first;
                samples.iter().skip(1).map(move |sample| {
                    let mut words = first.clone();
                    words[place] = sample;
                    words.concat()
                })
            });
            let samples = std::iter::once(first.concat()).chain(varied);
            samples.filter(|sample| fits(sample)).take(SAMPLES_MAX).collect()
        }
        HirKind::Alternation(alternatives) => alternatives.iter().flat_map(of).take(SAMPLES_MAX).collect(),
    }
}

/// Members of the class that a name could have: likely ones, the ends of its ranges and the separator of paths;
/// or what there is.
fn members(class: &Class) -> Vec<char> {
    const LIKELY: &str = "ab01A_.-~ ";
    let ranges: Vec<(char, char)> = match class {
        Class::Unicode(class) => class.iter().map(|range| (range.start(), range.end())).collect(),
        Class::Bytes(class) => class
            .iter()
            .map(|range| (char::from(range.start()), char::from(range.end())))
            .collect(),
    };
    let holds = |c: &char| ranges.iter().any(|(start, end)| (*start..=*end).contains(c));
    let mut members: Vec<char> = LIKELY.chars().filter(holds).take(2).collect();
    members.extend(Some('/').filter(holds));
    members.extend(
        ranges
            .iter()
            .flat_map(|(start, end)| [*start, *end])
            .filter(char::is_ascii_graphic),
    );
    if members.is_empty() {
        members.extend(ranges.first().map(|(start, _)| *start));
    }
    let mut known = std::collections::BTreeSet::new();
    members.retain(|c| known.insert(*c));
    members.truncate(MEMBERS_MAX);
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_match_their_expression() {
        for pattern in [
            r"^/dev/ttys[0-9]+$",
            r"/\.git(/|$)",
            "^/a(b|c)?d*$",
            "[^/]+x",
            r"^/private/var/folders/[^/]+/[^/]+/[CT]($|/)",
        ] {
            let found = samples(pattern);
            assert!(!found.is_empty(), "{pattern}");
            let regex = regex::Regex::new(pattern).unwrap();
            for sample in found {
                assert!(regex.is_match(&sample), "{pattern}: {sample}");
            }
        }
    }
}
