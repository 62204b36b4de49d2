//! Disputed points: what sources say differently of the sandbox of macOS, as questions to a live kernel.
//!
//! A [`Probe`] runs one harmless program under profiles that differ from one to the next in exactly one rule, and
//! once without any profile, where it must succeed. Each answer that somebody believes says how these trials would
//! end; the one that fits them all is the kernel's.
//!
//! ```text
//!  table ─► Probe ─► run: sandbox-exec, per trial ─► Outcome ─► Finding, beside what is believed
//! ```
//!
//! What is believed is [`Semantics`] and the operations' table of one release. A finding that disagrees means that
//! `explain`, `diff` and `verify` answer for another kernel than the one at hand. No finding has been made so far.

pub mod run;
mod table;

use serde::Serialize;

use super::decide::Verdict;
use super::sbpl::vocabulary::Vocabulary;
use super::sbpl::{Release, Semantics};

pub use table::table;

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The program succeeded.
    Allowed,
    /// It failed or was killed.
    Denied,
    /// The profile was not accepted, so that nothing ran.
    Refused,
    /// It was denied, and the log has the report with the rule's message.
    Tagged,
    /// It was denied, and the log has no such report.
    Untagged,
}

/// A profile to try the program under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The rules, in their order, after `(version 1)`; `{work}` stands for the folder of the trial and `{tag}` for
    /// a message of its own.
    pub rules: Vec<String>,
}

/// What somebody believes, and how every trial would end if it were so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Belief {
    /// In a word.
    pub answer: &'static str,
    /// One per trial.
    pub outcomes: Vec<Outcome>,
}

/// Where what this program believes stands.
#[derive(Clone, Copy)]
pub enum Believed {
    /// In a switch: the answer it means.
    Switch(fn(&Semantics) -> &'static str),
    /// In the table of operations: whether this one, which has no parent, is allowed by itself.
    Terminal(&'static str),
    /// Everywhere.
    Always(&'static str),
}

impl std::fmt::Debug for Believed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Switch(_) => f.write_str("Switch"),
            Self::Terminal(operation) => f.debug_tuple("Terminal").field(operation).finish(),
            Self::Always(answer) => f.debug_tuple("Always").field(answer).finish(),
        }
    }
}

/// One question.
#[derive(Debug, Clone)]
pub struct Probe {
    /// P1 to P9 are the points on which sources disagree.
    pub id: &'static str,
    /// What is asked.
    pub question: &'static str,
    /// Shell commands that prepare a trial, in the folder that holds `work` and, where a compiler was found,
    /// `look`. `work` is new, with a `file` in it.
    pub setup: &'static str,
    /// Shell commands after each trial.
    pub cleanup: &'static str,
    /// What is tried: program and arguments.
    pub act: Vec<&'static str>,
    /// Whether a process sleeps meanwhile under a sandbox of its own with the same profile; the file `victim` has
    /// its id.
    pub victim: bool,
    /// The operation and target that decide, where the program's own evaluation can tell.
    pub decides: Option<(&'static str, &'static str)>,
    /// The profiles.
    pub trials: Vec<Trial>,
    /// The answers.
    pub beliefs: Vec<Belief>,
    /// The answer this program goes by.
    pub believed: Believed,
}

impl Probe {
    /// The answer that fits how the trials ended; `None` when none does.
    pub fn answer(&self, outcomes: &[Outcome]) -> Option<&'static str> {
        let fits = |belief: &&Belief| belief.outcomes == outcomes;
        self.beliefs.iter().find(fits).map(|belief| belief.answer)
    }

    /// The answer this program goes by for `release`.
    pub fn believed(&self, release: Release) -> &'static str {
        match self.believed {
            Believed::Switch(answer) => answer(&Semantics::of(release)),
            Believed::Always(answer) => answer,
            Believed::Terminal(name) => {
                let vocabulary = Vocabulary::of(release);
                let terminal = vocabulary
                    .asked(name)
                    .and_then(|id| vocabulary.operation(id).terminal);
                match terminal {
                    Some(verdict) => by_itself(verdict),
                    None => "unknown",
                }
            }
        }
    }

    /// Whether the log tells how the trials ended.
    fn asks_the_log(&self) -> bool {
        let in_the_log = [Outcome::Tagged, Outcome::Untagged];
        self.beliefs
            .iter()
            .flat_map(|belief| &belief.outcomes)
            .any(|outcome| in_the_log.contains(outcome))
    }
}

/// The answer that says `verdict` of an operation that no rule names.
const fn by_itself(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
    }
}

/// What came of one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The question's id.
    pub id: &'static str,
    /// The question.
    pub question: &'static str,
    /// The kernel's answer, `unclear` or `not-tried`.
    pub answer: &'static str,
    /// The answer this program goes by.
    pub believed: &'static str,
    /// Whether they are the same; absent without an answer.
    pub agrees: Option<bool>,
    /// Why it was not tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What was seen.
    pub raw: Vec<Seen>,
}

/// What one trial showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The rules, the first of them where there are many.
    pub rules: String,
    /// The exit code of the program or of sandbox-exec; none where a signal ended both.
    pub code: Option<i32>,
    /// What that means.
    pub outcome: Outcome,
    /// What was said, the first of it.
    pub said: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::sbpl::{Settings, Target, compile};
    use super::*;

    const RELEASES: [Release; 2] = [Release::MacOs15, Release::MacOs26];

    #[test]
    fn every_question_can_be_answered_in_more_than_one_way() {
        let mut ids = BTreeSet::new();
        for probe in table() {
            assert!(ids.insert(probe.id), "{} is there twice", probe.id);
            assert!(probe.question.ends_with('?'), "{}", probe.id);
            assert!(probe.beliefs.len() > 1, "{}", probe.id);
            let mut seen = BTreeSet::new();
            for belief in &probe.beliefs {
                assert_eq!(belief.outcomes.len(), probe.trials.len(), "{}", probe.id);
                let told = format!("{:?}", belief.outcomes);
                assert!(seen.insert(told), "{}: two answers look the same", probe.id);
            }
            for release in RELEASES {
                let believed = probe.believed(release);
                let known = probe.beliefs.iter().any(|belief| belief.answer == believed);
                assert!(known, "{}: {believed} is no answer", probe.id);
            }
        }
        for point in 1..=9 {
            let id = format!("P{point}");
            assert!(ids.iter().any(|known| known.starts_with(&id)), "{id} is missing");
        }
    }

    #[test]
    fn trials_differ_from_one_to_the_next_in_exactly_one_rule() {
        for probe in table() {
            for pair in probe.trials.windows(2) {
                let [before, after] = pair else { continue };
                let gone = before.rules.iter().filter(|rule| !after.rules.contains(rule));
                let come = after.rules.iter().filter(|rule| !before.rules.contains(rule));
                let (gone, come) = (gone.count(), come.count());
                assert!(gone.max(come) == 1, "{}: {gone} gone, {come} came", probe.id);
            }
        }
    }

    #[test]
    fn the_evaluation_ends_every_trial_as_is_believed() {
        let mut asked = 0;
        for probe in table() {
            for release in RELEASES {
                let believed = probe.believed(release);
                let belief = probe.beliefs.iter().find(|belief| belief.answer == believed);
                for (trial, outcome) in probe.trials.iter().zip(&belief.unwrap().outcomes) {
                    let text = run::profile(probe.id, trial, "/private/tmp/w", "ephemerd:0000000000a");
                    let compiled = compile("trial", text.as_bytes(), &Settings::new(release));
                    let rules = match compiled {
                        Ok(rules) => rules,
                        Err(_) if *outcome == Outcome::Refused => continue,
                        Err(problems) => panic!("{} on {release}: {problems}", probe.id),
                    };
                    let Some((op, target)) = probe.decides else {
                        continue;
                    };
                    let vocabulary = Vocabulary::of(release);
                    let id = vocabulary.asked(op).unwrap();
                    let target = target.replace("{work}", "/private/tmp/w");
                    let target = Target::parse(vocabulary, id, &target).unwrap();
                    let (verdict, _) = rules.verdict(id, &target, &Semantics::of(release));
                    let expected = match outcome {
                        Outcome::Allowed => Verdict::Allow,
                        Outcome::Denied | Outcome::Tagged | Outcome::Untagged => Verdict::Deny,
                        Outcome::Refused => panic!("{}: {text} was compiled", probe.id),
                    };
                    assert_eq!(verdict, expected, "{} on {release}:\n{text}", probe.id);
                    asked += 1;
                }
            }
        }
        assert!(asked > 60, "only {asked} trials were evaluated");
    }
}
