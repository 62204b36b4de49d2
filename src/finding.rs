//! What was found when something was looked at, and what helps: what `github check` and `doctor` answer with.

use std::fmt;

use serde::Serialize;

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it must be.
    Ok,
    /// It works, and could be better or safer.
    Warn,
    /// Nobody knows: it could not be looked at, or who was asked did not answer.
    Unknown,
    /// Jobs do not run, or not as configured.
    Fail,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Unknown => "unknown",
            Self::Fail => "fail",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it was found.
    pub level: Level,
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub found: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The arguments of the command of this program that puts it right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Vec<String>>,
}

impl Finding {
    /// What was found.
    pub fn new(level: Level, what: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            level,
            what: what.into(),
            found: found.into(),
            hint: None,
            fix: None,
        }
    }

    /// The same from the text of an error, whose hint is told as such.
    pub fn of_error(level: Level, what: impl Into<String>, error: &str) -> Self {
        match error.split_once("\nhint: ") {
            Some((found, hint)) => Self::new(level, what, found).hint(hint),
            None => Self::new(level, what, error),
        }
    }

    /// The same, and what helps.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into());
        Self { hint, ..self }
    }

    /// The same, and the command of this program that puts it right.
    #[must_use]
    pub fn fix(self, args: &[&str]) -> Self {
        let fix = Some(args.iter().map(|arg| (*arg).to_owned()).collect());
        Self { fix, ..self }
    }
}

/// The exit code that says the worst: 0 when everything works, 1 when something does not, 3 when nobody knows.
pub fn code(found: &[Finding]) -> u8 {
    match found.iter().map(|one| one.level).max() {
        None | Some(Level::Ok | Level::Warn) => 0,
        Some(Level::Fail) => 1,
        Some(Level::Unknown) => 3,
    }
}

/// A line for each, with its remedy below.
pub fn text(found: &[Finding]) -> String {
    let line = |one: &Finding| {
        let Finding {
            level, what, found, ..
        } = one;
        let more = |label: &str, text: &str| format!("         {label}: {}\n", indented(text));
        let hint = one.hint.as_ref().map(|hint| more("hint", hint));
        let fix = one
            .fix
            .as_ref()
            .map(|args| more("fix", &format!("ephemerd {}", args.join(" "))));
        format!(
            "{:<7}  {what}: {}\n{}{}",
            level.to_string(),
            indented(found),
            hint.unwrap_or_default(),
            fix.unwrap_or_default()
        )
    };
    found.iter().map(line).collect()
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n         ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(level: Level) -> Finding {
        Finding::new(level, "clock", "wrong").hint("set it")
    }

    #[test]
    fn the_worst_finding_is_the_exit_code() {
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[one(Level::Ok), one(Level::Warn)]), 0);
        assert_eq!(code(&[one(Level::Unknown), one(Level::Ok)]), 3);
        assert_eq!(code(&[one(Level::Fail), one(Level::Unknown)]), 1);
    }

    #[test]
    fn every_finding_is_a_line_with_its_remedy_below() {
        let two = [
            one(Level::Warn),
            Finding::of_error(Level::Fail, "slot 2", "in quarantine:\na process\nhint: end it")
                .fix(&["resume", "--slot", "2"]),
        ];
        insta::assert_snapshot!(text(&two), @r"
        warn     clock: wrong
                 hint: set it
        fail     slot 2: in quarantine:
                 a process
                 hint: end it
                 fix: ephemerd resume --slot 2
        ");
    }
}
