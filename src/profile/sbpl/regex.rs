//! Regular expressions of SBPL, translated for the `regex` crate or refused.
//!
//! The kernel's matcher knows `^ $ . * + ? | ( ) [ ]` and a backslash before a character that shall mean
//! itself; it looks for a match anywhere. What it does not know, or what nobody has shown to mean the same
//! there, is refused and never guessed: counted repetition, classes like `\d`, references, `(?…)`.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

/// Most memory one compiled expression may take, in bytes.
const COMPILED_MAX_BYTE: usize = 4 * 1024 * 1024;

/// Compiles `pattern`; `fold` compares without regard to case.
///
/// # Errors
/// What in it cannot be translated, as a fragment of a sentence.
pub(super) fn compile(pattern: &str, fold: bool) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    RegexBuilder::new(&translated)
        .case_insensitive(fold)
        .dot_matches_new_line(true)
        .size_limit(COMPILED_MAX_BYTE)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "is too large".to_owned(),
            _ => "is malformed".to_owned(),
        })
}

/// The translation of a pattern that was compiled before; nothing for one that is no expression.
pub(crate) fn of(pattern: &super::filter::Pattern) -> String {
    translate(&pattern.text).unwrap_or_default()
}

/// `pattern` in the syntax of the `regex` crate.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    let mut repeated = false;
    while let Some(c) = chars.next() {
        let repeats = matches!(c, '*' | '+' | '?');
        if repeats && repeated {
            // `a*?` is lazy for one matcher and a repetition of a repetition for the other.
            return Err(format!("has `{c}` behind a repetition"));
        }
        repeated = repeats;
        match c {
            '\\' => match chars.next() {
                None => return Err("ends with a backslash".to_owned()),
                Some(c) if c.is_alphanumeric() => {
                    return Err(format!("has `\\{c}`, which means nothing there"));
                }
                Some(c) => push_literal(&mut out, c),
            },
            '[' => class(&mut chars, &mut out)?,
            '(' if chars.peek() == Some(&'?') => return Err("has `(?`, which means nothing there".to_owned()),
            '{' | '}' => {
                return Err(format!(
                    "has `{c}`: counted repetition is not known there, and a brace that means itself is written `\\{c}`"
                ));
            }
            '^' | '$' | '.' | '*' | '+' | '?' | '|' | '(' | ')' => out.push(c),
            c => push_literal(&mut out, c),
        }
    }
    Ok(out)
}

fn push_literal(out: &mut String, c: char) {
    // Not every punctuation: `\<` and `\>` are the ends of words here.
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// Translates from behind `[` to behind `]`.
fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    loop {
        match chars.next() {
            None => return Err("has a `[` without its `]`".to_owned()),
            Some(']') if !first => {
                out.push(']');
                return Ok(());
            }
            Some('[') if chars.peek() == Some(&':') => {
                let name: String = chars.by_ref().skip(1).take_while(|c| *c != ':').collect();
                let known = [
                    "alnum", "alpha", "digit", "lower", "upper", "xdigit", "space", "punct",
                ];
                if !known.contains(&name.as_str()) || chars.next() != Some(']') {
                    return Err("has a character class it does not know".to_owned());
                }
                out.push_str("[:");
                out.push_str(&name);
                out.push_str(":]");
            }
            Some(c) => {
                push_literal(out, member(c, chars)?);
                let mut ahead = chars.clone();
                if ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']') {
                    chars.next();
                    let last = chars.next().ok_or("has a `[` without its `]`")?;
                    if last == '[' && chars.peek() == Some(&':') {
                        return Err("has a range that ends with a class".to_owned());
                    }
                    out.push('-');
                    push_literal(out, member(last, chars)?);
                }
            }
        }
        first = false;
    }
}

/// The character of a class that begins with `c`, which may be a backslash.
fn member(c: char, chars: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    if c != '\\' {
        return Ok(c);
    }
    match chars.next() {
        None => Err("ends with a backslash".to_owned()),
        Some(c) if c.is_alphanumeric() => Err(format!("has `\\{c}`, which means nothing there")),
        Some(c) => Ok(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        compile(pattern, false).unwrap().is_match(text)
    }

    #[test]
    fn what_profiles_write_means_the_same() {
        assert!(matches(r"^/dev/ttys[0-9]+$", "/dev/ttys012"));
        assert!(!matches(r"^/dev/ttys[0-9]+$", "/dev/ttys"));
        assert!(matches(r"/\.git(/|$)", "/a/.git"));
        assert!(!matches(r"/\.git(/|$)", "/a/xgit"));
        assert!(matches(
            r"^com\.apple\.CoreSimulator(\.|$)",
            "com.apple.CoreSimulator"
        ));
        assert!(matches("[]a]", "]"));
        assert!(matches(r"[[:digit:]]x", "1x"));
        assert!(matches("^/a.b", "/a\nb"));
        assert!(matches("a&&b~~[&&]", "a&&b~~&"));
    }

    #[test]
    fn what_only_the_crate_gives_a_meaning_means_itself() {
        // Found by reading: `\\<` was the beginning of a word, `[a--z]` a difference of sets.
        assert!(matches("<a>", "<a>"));
        assert!(!matches("<a>", "a"));
        assert!(matches("[<]", "<"));
        assert!(matches("^[+--]$", ",") && !matches("^[+--]$", "a"));
        assert!(matches("^[--/]$", ".") && matches("^[a-]$", "-") && matches("^[]-a]$", "^"));
    }

    #[test]
    fn case_counts_unless_it_is_folded() {
        assert!(!matches("^/Users", "/users"));
        assert!(compile("^/Users", true).unwrap().is_match("/users"));
    }

    #[test]
    fn what_means_something_else_here_is_refused() {
        for pattern in [
            r"\d",
            r"(a)\1",
            "a{2}",
            "(?i)a",
            "a*?",
            "[",
            "a\\",
            "[[:word:]]",
            "[+-[:digit:]]",
            "(",
            "*a",
        ] {
            assert!(compile(pattern, false).is_err(), "{pattern}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(pattern in ".{0,40}") {
            let _ = compile(&pattern, true);
        }
    }
}
