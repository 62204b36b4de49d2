//! Texts that a regular expression matches.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Most samples of one expression.
const SAMPLES_MAX: usize = 16;

/// Longest sample in characters.
const LENGTH_MAX: usize = 4_096;

/// A few texts that `pattern`, already translated, matches if it can be satisfied at all: each alternative,
/// repetitions as short as they may be and once longer, two members of each class.
pub(super) fn samples(pattern: &str) -> Vec<String> {
    match regex_syntax::Parser::new().parse(pattern) {
        Ok(hir) => of(&hir),
        Err(_) => Vec::new(),
    }
}

fn of(hir: &Hir) -> Vec<String> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => vec![String::new()],
        HirKind::Literal(literal) => vec![String::from_utf8_lossy(&literal.0).into_owned()],
        HirKind::Class(class) => members(class).into_iter().map(String::from).collect(),
        HirKind::Capture(capture) => of(&capture.sub),
        HirKind::Repetition(repetition) => {
            let once = of(&repetition.sub);
            let least = usize::try_from(repetition.min)
                .unwrap_or(LENGTH_MAX)
                .min(LENGTH_MAX);
            if least == 0 {
                let mut samples = vec![String::new()];
                samples.extend(once);
                samples.truncate(SAMPLES_MAX);
                return samples;
            }
            let most = repetition.max.and_then(|max| usize::try_from(max).ok());
            let longer = (most != Some(least)).then_some(least + 1);
            let counts = [Some(least), longer];
            let repeated = counts
                .into_iter()
                .flatten()
                .flat_map(|count| once.iter().map(move |sample| sample.repeat(count)));
            repeated.take(SAMPLES_MAX).collect()
        }
        HirKind::Concat(parts) => parts.iter().fold(vec![String::new()], |heads, part| {
            let tails = of(part);
            let joined = heads
                .iter()
                .flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}")));
            joined
                .filter(|sample| sample.len() <= LENGTH_MAX)
                .take(SAMPLES_MAX)
                .collect()
        }),
        HirKind::Alternation(alternatives) => alternatives.iter().flat_map(of).take(SAMPLES_MAX).collect(),
    }
}

/// Two members of the class that a name could have, or what there is.
fn members(class: &Class) -> Vec<char> {
    const LIKELY: &str = "ab01A_.-~ ";
    match class {
        Class::Unicode(class) => {
            let holds = |c: char| {
                class
                    .iter()
                    .any(|range| (range.start()..=range.end()).contains(&c))
            };
            let first = class.iter().next().map(|range| range.start());
            let likely: Vec<char> = LIKELY.chars().filter(|c| holds(*c)).take(2).collect();
            if likely.is_empty() {
                first.into_iter().collect()
            } else {
                likely
            }
        }
        Class::Bytes(class) => class
            .iter()
            .next()
            .map(|range| char::from(range.start()))
            .into_iter()
            .collect(),
    }
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
