//! The questions.

mod precedence;
mod targets;
mod terminals;

use super::{Belief, Believed, Outcome, Probe, Trial};

/// What writes to the file of a trial: one open(2) for writing, and nothing else on it.
const WRITE: &[&str] = &["/bin/sh", "-c", "echo y > work/file"];
/// What reads it.
const READ: &[&str] = &["/bin/sh", "-c", ": < work/file"];
/// What does nothing; it shows whether a profile is accepted, and what every program needs.
const TRUE: &[&str] = &["/usr/bin/true"];

/// Allows what the programs above need and what asks `default`, by the names of whole families, so that nothing
/// but operations without a parent is left to itself. Only names that every release has had.
const FAMILIES: &str = "(allow distributed-notification-post file* iokit* ipc* mach* network* process* pseudo-tty signal \
    sysctl* system* user-preference*)";

/// The same, but for writing.
const FAMILIES_BUT_WRITING: &str = "(allow distributed-notification-post file-ioctl file-read* file-search iokit* ipc* \
    mach* network* process* pseudo-tty signal sysctl* system* user-preference*)";

/// Every question, in the order they are asked.
pub fn table() -> Vec<Probe> {
    let mut probes = precedence::rules();
    probes.extend(terminals::all());
    probes.extend(targets::processes());
    probes.extend(targets::addresses());
    probes.extend(targets::paths());
    probes.extend(precedence::messages());
    probes.extend(precedence::limits());
    probes
}

/// A question about what the trial's rules make of `act`; the rest is filled in by who asks.
fn probe(
    id: &'static str,
    question: &'static str,
    act: &[&'static str],
    trials: &[&[&str]],
    beliefs: &[(&'static str, &[Outcome])],
) -> Probe {
    let trial = |rules: &&[&str]| Trial {
        rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
    };
    let belief = |(answer, outcomes): &(&'static str, &[Outcome])| Belief {
        answer,
        outcomes: outcomes.to_vec(),
    };
    Probe {
        id,
        question,
        setup: "",
        cleanup: "",
        act: act.to_vec(),
        victim: false,
        decides: None,
        trials: trials.iter().map(trial).collect(),
        beliefs: beliefs.iter().map(belief).collect(),
        believed: Believed::Always(beliefs[0].0),
    }
}
