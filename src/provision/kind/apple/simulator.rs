//! Runtimes of simulators.

use serde::Deserialize;

use super::{FETCH_MS, ran};
use crate::provision::Verdict;
use crate::provision::context::Context;
use crate::provision::kind::command::in_range;
use crate::provision::question::{Answers, Question, Tool, View};
use crate::provision::step::{Fix, Step};
use crate::provision::version::Range;

/// The platforms that have simulators, as `xcodebuild -downloadPlatform` takes them, and what the identifiers of their
/// runtimes call them.
const PLATFORMS: [(&str, &str); 4] = [
    ("iOS", "iOS-"),
    ("tvOS", "tvOS-"),
    ("watchOS", "watchOS-"),
    ("visionOS", "xrOS-"),
];

/// What every identifier of a runtime begins with.
const RUNTIME: &str = "com.apple.CoreSimulator.SimRuntime.";

/// `[simulator.NAME]`, where the name is that of a platform: `iOS`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulator {
    /// The versions of its runtime that will do.
    pub version: Option<Range>,
}

/// What `simctl list runtimes -j` prints.
#[derive(Deserialize)]
struct Runtimes {
    runtimes: Vec<Runtime>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Runtime {
    identifier: String,
    version: String,
    is_available: bool,
}

impl Simulator {
    pub(in crate::provision::kind) fn complaint(&self, name: &str) -> Option<String> {
        let names = PLATFORMS.map(|(name, _)| name);
        (!names.contains(&name)).then(|| {
            format!(
                "`{name}` is no platform with a simulator\nhint: there are {}",
                names.join(", ")
            )
        })
    }

    fn list(context: &Context) -> Question {
        // It starts a service when it is asked first.
        Question::Run(Tool {
            timeout_ms: 60_000,
            passes_on: Some(super::SELECTED.into()),
            ..Tool::at(&context.host.mac.xcrun, &["simctl", "list", "runtimes", "-j"])
        })
    }

    pub(in crate::provision::kind) fn questions(&self, _: &str, context: &Context) -> Vec<(View, Question)> {
        vec![(View::Host, Self::list(context))]
    }

    pub(in crate::provision::kind) fn judge(
        &self,
        name: &str,
        context: &Context,
        answers: &Answers,
    ) -> Verdict {
        let ran = match ran(answers.get(View::Host, &Self::list(context))) {
            Ok(ran) if ran.code == Some(0) => ran,
            Ok(ran) => return Verdict::unknown(ran.ending()),
            Err(why) => return Verdict::unknown(why),
        };
        let Ok(Runtimes { runtimes }) = serde_json::from_str(&ran.stdout) else {
            return Verdict::unknown("what simctl lists is no list of runtimes");
        };
        let prefix = PLATFORMS
            .iter()
            .find(|(known, _)| *known == name)
            .map_or("", |(_, prefix)| prefix);
        let of = |runtime: &&Runtime| {
            let rest = runtime.identifier.strip_prefix(RUNTIME);
            rest.is_some_and(|rest| rest.starts_with(prefix))
        };
        let (available, broken): (Vec<_>, Vec<_>) =
            runtimes.iter().filter(of).partition(|it| it.is_available);
        let verdict = |runtime: &&Runtime| match &self.version {
            Some(wanted) => in_range(wanted, &runtime.version, ""),
            None => Verdict::ok(&runtime.version),
        };
        let verdicts: Vec<Verdict> = available.iter().map(verdict).collect();
        // One that will do is enough; simctl lists the latest last.
        let best = verdicts
            .iter()
            .rfind(|verdict| verdict.is_met())
            .or(verdicts.last());
        match (best, broken.last()) {
            (Some(verdict), _) => verdict.clone(),
            (None, Some(broken)) => Verdict::wrong(
                format!("{}, which this Xcode cannot use", broken.version),
                "one that is available",
            ),
            (None, None) => Verdict::Missing,
        }
    }

    pub(in crate::provision::kind) fn fix(&self, name: &str, context: &Context, verdict: &Verdict) -> Fix {
        match verdict {
            Verdict::Missing | Verdict::Outdated { .. } | Verdict::Wrong { .. } => {
                Fix::Steps(vec![Step::run(Tool {
                    timeout_ms: FETCH_MS,
                    passes_on: Some(super::SELECTED.into()),
                    ..Tool::at(&context.host.mac.xcodebuild, &["-downloadPlatform", name])
                })])
            }
            _ => Fix::ByHand("select an Xcode whose `xcrun simctl list runtimes` answers".to_owned()),
        }
    }
}
