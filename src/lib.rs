//! ephemerd runs CI jobs directly on a host its owner controls, each fenced in by the operating system
//! and gone afterwards without a trace.
//!
//! ```text
//!  source ─► JobSpec ─► trust ─► Route ─┬─ Refuse → reason, shown in `jobs`
//!                                       ├─ Vm     → refused while no VM backend is configured
//!                                       └─ Native → slot
//!    → ledger       every acquisition is recorded before it happens
//!    → workspace    folders of the slot's account
//!    → profile      render → parse back → check expectations
//!    → sandbox      launch plan → warden → confined process
//!    → supervise    output by pipe, limits, timeout, cancel
//!    → scrub        ledger backwards: kill → remove → verify clean
//! ```
//!
//! Three stages are kept apart. **Decide** is pure: [`trust`], [`job::state`], [`profile`]. **Describe** is
//! pure too and yields commands, policies and plans as data. **Do** is [`host`], [`warden`] and the
//! sandbox's init, which alone start programs and change the system.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod doctor;
pub mod egress;
pub mod finding;
pub mod github;
pub mod host;
pub mod job;
pub mod latest;
pub mod metrics;
pub mod page;
pub mod probe;
pub mod profile;
pub mod provision;
pub mod prune;
pub mod sandbox;
pub mod service;
pub mod slot;
pub mod trust;
pub mod vm;
pub mod warden;
pub mod workspace;

/// An error with everything that caused it, outermost first, separated by colons. A remedy that ends one of the
/// messages, on a line `hint: …`, comes last.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let (mut said, mut hints) = (Vec::new(), Vec::new());
    for cause in causes {
        let whole = cause.to_string();
        let (text, hint) = match whole.split_once("\nhint: ") {
            // A message of many lines, each with its own remedy, stays as it is.
            Some((text, hint)) if !hint.contains('\n') => (text, Some(hint.to_owned())),
            _ => (whole.as_str(), None),
        };
        // A transparent error says the same as its cause.
        if said.last().is_none_or(|last| last != text) {
            said.push(text.to_owned());
            hints.extend(hint.map(|hint| format!("hint: {hint}")));
        }
    }
    [vec![said.join(": ")], hints].concat().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Said {
        text: &'static str,
        source: Option<Box<Said>>,
    }

    fn said(texts: &[&'static str]) -> Said {
        let source = texts.get(1).map(|_| Box::new(said(&texts[1..])));
        Said {
            text: texts[0],
            source,
        }
    }

    #[test]
    fn causes_follow_each_other_and_the_hint_comes_last() {
        let error = said(&["could not start\nhint: try again", "no such file"]);
        assert_eq!(chain(&error), "could not start: no such file\nhint: try again");
    }

    #[test]
    fn what_a_transparent_error_repeats_is_said_once() {
        assert_eq!(
            chain(&said(&["broken\nhint: mend it", "broken\nhint: mend it"])),
            "broken\nhint: mend it"
        );
    }

    #[test]
    fn many_lines_with_a_hint_each_stay_whole() {
        let text = "a:1: bad\nhint: one\na:2: worse\nhint: two";
        assert_eq!(chain(&said(&[text])), text);
    }
}
