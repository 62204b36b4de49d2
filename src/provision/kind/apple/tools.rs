//! The command line tools, and Rosetta.

use camino::Utf8PathBuf;
use serde::Deserialize;

use super::{FETCH_MS, ran};
use crate::provision::Verdict;
use crate::provision::context::{Context, unless_hidden};
use crate::provision::kind::command::{in_range, untold};
use crate::provision::question::{Answer, Answers, Question, Tool, View};
use crate::provision::step::{Fix, Step};
use crate::provision::version::Range;

/// The receipt of the installer for what the command line tools have in /Library/Developer/CommandLineTools/usr.
const RECEIPT: &str = "com.apple.pkg.CLTools_Executables";

/// `[command_line_tools.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandLineTools {
    /// The versions that will do.
    pub version: Option<Range>,
}

impl CommandLineTools {
    fn receipt(context: &Context) -> Question {
        let info = format!("--pkg-info={RECEIPT}");
        Question::Run(Tool::at(&context.host.mac.pkgutil, &[&info]))
    }

    /// Where tools are taken from.
    fn selected(context: &Context) -> Question {
        Question::Run(Tool::at(&context.host.mac.xcode_select, &["-p"]))
    }

    pub(in crate::provision::kind) fn questions(&self, context: &Context) -> Vec<(View, Question)> {
        vec![
            (View::Host, Self::receipt(context)),
            (View::Host, Self::selected(context)),
        ]
    }

    pub(in crate::provision::kind) fn judge(&self, context: &Context, answers: &Answers) -> Verdict {
        let receipt = match ran(answers.get(View::Host, &Self::receipt(context))) {
            Ok(ran) => ran,
            Err(why) => return Verdict::unknown(why),
        };
        let none = [&receipt.stdout, &receipt.stderr]
            .iter()
            .any(|text| text.contains("No receipt for"));
        let version = match receipt.code {
            Some(0) => receipt
                .stdout
                .lines()
                .find_map(|line| line.strip_prefix("version:"))
                .map(str::trim),
            Some(1) if none => return Verdict::Missing,
            _ => return Verdict::unknown(receipt.ending()),
        };
        let Some(version) = version.filter(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        else {
            return Verdict::unknown("pkgutil tells no version of them");
        };
        let verdict = match &self.version {
            Some(wanted) => in_range(wanted, version, ""),
            None => Verdict::ok(version),
        };
        if !verdict.is_met() {
            return verdict;
        }
        // The receipt stays when the folder goes: something must be selected beside it, or the tools offer to be
        // installed instead of running.
        match ran(answers.get(View::Host, &Self::selected(context))) {
            Ok(ran) if ran.code == Some(0) && ran.stdout.trim().starts_with('/') => verdict,
            Ok(ran) if ran.code == Some(2) => {
                Verdict::wrong("no developer directory", "one that is selected")
            }
            Ok(ran) => Verdict::unknown(format!("xcode-select: {}", ran.ending())),
            Err(why) => Verdict::unknown(format!("xcode-select: {why}")),
        }
    }

    pub(in crate::provision::kind) fn fix(&self, context: &Context, _: &Answers, verdict: &Verdict) -> Fix {
        match verdict {
            // xcode-select opens a window for it, and softwareupdate(8) knows them by a label that changes.
            Verdict::Missing => Fix::ByHand(
                "xcode-select --install, or take the label of the command line tools from `softwareupdate --list` and: softwareupdate --install LABEL"
                    .to_owned(),
            ),
            Verdict::Wrong { .. } => Fix::Steps(vec![Step::run(Tool::at(
                &context.host.mac.xcode_select,
                &["--reset"],
            ))]),
            Verdict::Outdated { .. } => Fix::ByHand(
                "take the label of the command line tools from `softwareupdate --list` and: softwareupdate --install LABEL"
                    .to_owned(),
            ),
            Verdict::Ok { .. } | Verdict::Hidden { .. } | Verdict::Unknown { .. } | Verdict::NotHere { .. } => {
                Fix::ByHand("see what keeps it from being asked".to_owned())
            }
        }
    }
}

/// Where Rosetta's runtime is; Homebrew looks there too (`Hardware::CPU.rosetta_installed?`, 2026).
const ROSETTA: &str = "/Library/Apple/usr/libexec/oah/libRosettaRuntime";

/// `[rosetta.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rosetta {}

impl Rosetta {
    fn runtime() -> Question {
        Question::Resolve(Utf8PathBuf::from(ROSETTA))
    }

    fn start(context: &Context) -> Question {
        let mac = &context.host.mac;
        Question::Run(Tool::at(&mac.arch, &["-x86_64", mac.r#true.as_str()]))
    }

    pub(in crate::provision::kind) fn questions(&self, context: &Context) -> Vec<(View, Question)> {
        vec![
            (View::Host, Self::runtime()),
            (View::Host, Self::start(context)),
            (View::Job, Self::start(context)),
        ]
    }

    pub(in crate::provision::kind) fn judge(&self, context: &Context, answers: &Answers) -> Verdict {
        if context.arch == "x86_64" {
            return Verdict::NotHere {
                why: "this machine runs such programs itself".to_owned(),
            };
        }
        let runtime = answers.get(View::Host, &Self::runtime());
        let started = match ran(answers.get(View::Host, &Self::start(context))) {
            Ok(ran) => ran,
            Err(why) => return Verdict::unknown(format!("arch: {why}")),
        };
        let is_started = started.code == Some(0);
        match (runtime, is_started) {
            (Answer::At(_) | Answer::Missing, true) => {}
            (Answer::Missing, false) => return Verdict::Missing,
            (Answer::At(_), false) => {
                return Verdict::wrong(
                    format!("its runtime, which starts nothing: {}", started.ending()),
                    "programs for x86_64 that run",
                );
            }
            (other, _) => return untold(&other),
        }
        let seen = match answers.get(View::Job, &Self::start(context)) {
            Answer::Ran(ran) if ran.code == Some(0) => None,
            Answer::Ran(_) | Answer::Missing | Answer::Denied => Some("does not run"),
            other => return untold(&other),
        };
        unless_hidden(Verdict::ok("programs for x86_64 run"), ROSETTA.into(), seen)
    }

    pub(in crate::provision::kind) fn fix(&self, context: &Context, verdict: &Verdict) -> Fix {
        match verdict {
            // Nothing takes it away again.
            Verdict::Missing | Verdict::Wrong { .. } => Fix::Steps(vec![Step::run(Tool {
                timeout_ms: FETCH_MS,
                ..Tool::at(
                    &context.host.mac.softwareupdate,
                    &["--install-rosetta", "--agree-to-license"],
                )
            })]),
            _ => Fix::ByHand("see what keeps it from being asked".to_owned()),
        }
    }
}
