//! What must hold of any text that is taken for a regular expression: the engine refuses it, or finds it where a
//! second, plainer reading of it does.

#[path = "matcher.rs"]
mod matcher;

use ephemerd::profile::decide::Verdict;
use ephemerd::profile::sbpl::{Release, Semantics, Settings, Target, compile};

/// Takes the first line of `text` for an expression and the rest for what it is to be found in: the engine must
/// refuse the expression or find it exactly where [`matcher`] does.
///
/// # Panics
/// They differ.
pub(crate) fn holds(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let (pattern, subject) = text.split_once('\n').unwrap_or((text, ""));
    if pattern.contains('\0') || pattern.len() > 200 || subject.len() > 200 {
        return;
    }
    let quoted = pattern.replace('\\', "\\\\").replace('"', "\\\"");
    let profile = format!("(version 1)(deny default)(allow mach-lookup (global-name-regex \"{quoted}\"))");
    let ruleset = match compile("regex.sb", profile.as_bytes(), &Settings::new(Release::NEWEST)) {
        Ok(ruleset) => ruleset,
        Err(_) => return,
    };
    let operation = ruleset.vocabulary.asked("mach-lookup").expect("it is known");
    let target = Target::named("global-name", subject);
    let (verdict, _) = ruleset.verdict(operation, &target, &Semantics::of(Release::NEWEST));
    let expected = matcher::finds(pattern, subject);
    assert_eq!(
        Some(verdict == Verdict::Allow),
        expected,
        "`{pattern}` in `{subject}`"
    );
}
