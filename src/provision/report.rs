//! What was found: one line per item, and whether the host will do.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::manifest::{Manifest, Origin};
use super::question::{Answers, Question, View};
use super::step::{Fix, Step};
use super::{Item, Verdict};

/// Version of the JSON answer.
pub const VERSION: u32 = 1;

/// A manifest beside a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this form.
    pub version: u32,
    /// The manifest, as it was named.
    pub manifest: String,
    /// SHA-256 of everything it says.
    pub digest: String,
    /// How it stands.
    pub standing: Standing,
    /// Every item, in the order of the manifest.
    pub items: Vec<Line>,
}

/// How a host stands to a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It has everything.
    Met,
    /// It lacks something.
    NotMet,
    /// It lacks nothing that could be looked at, and something could not.
    CannotTell,
}

impl Standing {
    /// The exit code of a check (docs/exit-codes.md).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Met => 0,
            Self::NotMet => 1,
            Self::CannotTell => 3,
        }
    }
}

/// One item beside what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The section of the manifest.
    pub section: String,
    /// The name in it.
    pub name: String,
    /// How it was found.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Why the host must have it; a verdict may have a reason of its own.
    pub because: String,
    /// Where it stands.
    pub origin: Origin,
    /// What would help: command lines, or words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fix: Vec<String>,
}

impl Line {
    /// Section and name.
    pub fn id(&self) -> String {
        format!("{} {}", self.section, self.name)
    }
}

impl Report {
    /// The first item that keeps the host from being good enough, in words.
    pub fn failing(&self) -> Option<String> {
        let lacking =
            |line: &&Line| !line.verdict.is_met() && !matches!(line.verdict, Verdict::Unknown { .. });
        let first = self
            .items
            .iter()
            .find(lacking)
            .or_else(|| self.items.iter().find(|line| !line.verdict.is_met()))?;
        Some(format!(
            "{} is {}: {}",
            first.id(),
            first.verdict.name(),
            first.verdict
        ))
    }

    /// How many items have a verdict that `counts`.
    pub fn count(&self, counts: impl Fn(&Verdict) -> bool) -> usize {
        self.items.iter().filter(|line| counts(&line.verdict)).count()
    }
}

/// Everything a manifest wants to know of a host, each question once; items that do not count here ask nothing.
pub fn questions(manifest: &Manifest, context: &Context) -> BTreeSet<(View, Question)> {
    let counts = |item: &&Item| context.excludes(item.os, &item.only_if).is_none();
    if !manifest.os.contains(&context.os()) {
        return BTreeSet::new();
    }
    manifest
        .items
        .iter()
        .filter(counts)
        .flat_map(|item| item.kind.questions(context))
        .collect()
}

/// How one item stands.
fn verdict(item: &Item, context: &Context, answers: &Answers) -> Verdict {
    match context.excludes(item.os, &item.only_if) {
        Some(why) => Verdict::NotHere { why },
        None => item.kind.judge(context, answers),
    }
}

/// A manifest beside what a host answered.
pub fn report(manifest: &Manifest, context: &Context, answers: &Answers) -> Report {
    let items: Vec<Line> = if manifest.os.contains(&context.os()) {
        manifest
            .items
            .iter()
            .map(|item| line(item, context, answers))
            .collect()
    } else {
        vec![other_system(manifest, context)]
    };
    let standing = if items.iter().all(|line| line.verdict.is_met()) {
        Standing::Met
    } else if items
        .iter()
        .all(|line| line.verdict.is_met() || matches!(line.verdict, Verdict::Unknown { .. }))
    {
        Standing::CannotTell
    } else {
        Standing::NotMet
    };
    Report {
        version: VERSION,
        manifest: manifest.name.clone(),
        digest: manifest.digest.clone(),
        standing,
        items,
    }
}

fn line(item: &Item, context: &Context, answers: &Answers) -> Line {
    let verdict = verdict(item, context, answers);
    let mut fix = match item.kind.fix(context, answers, &verdict) {
        Fix::Nothing => vec![],
        Fix::Steps(steps) => steps.iter().map(|step| step.action.to_string()).collect(),
        Fix::ByHand(words) => vec![words],
    };
    if !verdict.is_met()
        && let Some(own) = &item.fix
    {
        // Whoever wrote the manifest knows better.
        fix = vec![own.clone()];
    }
    Line {
        section: item.kind.section().to_owned(),
        name: item.kind.name().to_owned(),
        verdict,
        because: item.why.clone(),
        origin: item.origin.clone(),
        fix,
    }
}

/// The one line of a manifest that is for another system: none of its items counts, so that all of them would be met.
fn other_system(manifest: &Manifest, context: &Context) -> Line {
    let named = |os| match os {
        crate::host::Os::MacOs => "macos",
        crate::host::Os::Linux => "linux",
    };
    let wanted: Vec<&str> = manifest.os.iter().copied().map(named).collect();
    Line {
        section: "os".to_owned(),
        name: manifest.name.clone(),
        verdict: Verdict::wrong(named(context.os()), wanted.join(" or ")),
        because: "the manifest is for another system".to_owned(),
        origin: Origin {
            file: manifest.name.clone(),
            line: 1,
        },
        fix: vec!["name a manifest for this system".to_owned()],
    }
}

/// A step that some item needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The item.
    pub item: String,
    /// The step.
    pub step: Step,
}

/// What would put the host right: the steps, in an order in which each can be taken, and the items that somebody has
/// to see to, with what would help.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps, none of them twice.
    pub steps: Vec<Planned>,
    /// Items without steps, by id.
    pub by_hand: Vec<(String, String)>,
}

/// The plan for a manifest, from what a host answered.
pub fn plan(manifest: &Manifest, context: &Context, answers: &Answers) -> Plan {
    let mut plan = Plan::default();
    if !manifest.os.contains(&context.os()) {
        return plan;
    }
    for item in &manifest.items {
        let verdict = verdict(item, context, answers);
        match item.kind.fix(context, answers, &verdict) {
            Fix::Nothing => {}
            Fix::ByHand(words) => plan.by_hand.push((item.id(), item.fix.clone().unwrap_or(words))),
            Fix::Steps(steps) => {
                for step in steps {
                    // Many packages want the same list to be fetched first.
                    if plan.steps.iter().all(|planned| planned.step != step) {
                        plan.steps.push(Planned {
                            item: item.id(),
                            step,
                        });
                    }
                }
            }
        }
    }
    plan
}
