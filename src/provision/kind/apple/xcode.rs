//! Xcode: which there is, which is selected, and whether it was made ready.

use camino::{Utf8Path, Utf8PathBuf};
use plist::Value;
use serde::Deserialize;

use super::{FETCH_MS, ran};
use crate::provision::Verdict;
use crate::provision::context::Context;
use crate::provision::kind::command::{in_range, said};
use crate::provision::kind::files::absolute;
use crate::provision::question::{Answer, Answers, Question, Ran, Tool, View, shortened};
use crate::provision::step::{Fix, Step};
use crate::provision::version::Range;

/// Where applications are.
const APPLICATIONS: &str = "/Applications";

/// What xcodebuild(1) ends with where the licence was not accepted, or the first launch not done: `EX_UNAVAILABLE` of
/// sysexits(3), as others report it of Xcode 26.
const NOT_READY: i32 = 69;

/// `[xcode.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xcode {
    /// The versions that will do.
    pub version: Option<Range>,
    /// Where it is, where several are installed.
    #[serde(default = "application")]
    pub app: Utf8PathBuf,
    /// Whether it must be the one that is selected.
    #[serde(default)]
    pub selected: bool,
    /// Whether its licence must have been accepted.
    #[serde(default)]
    pub licence: bool,
    /// Whether it must have been launched for the first time.
    #[serde(default)]
    pub first_launch: bool,
}

fn application() -> Utf8PathBuf {
    Utf8Path::new(APPLICATIONS).join("Xcode.app")
}

impl Xcode {
    pub(in crate::provision::kind) fn complaint(&self) -> Option<String> {
        if (self.licence || self.first_launch) && !self.selected {
            return Some(
                "`licence` and `first_launch` are told of the selected Xcode alone\nhint: say `selected = true` as well"
                    .to_owned(),
            );
        }
        if self.app.extension() != Some("app") {
            return Some(format!(
                "`{}` is no application\nhint: app = \"/Applications/Xcode.app\"",
                self.app
            ));
        }
        absolute(self.app.as_str())
    }

    fn installed(&self) -> Question {
        Question::Read(self.app.join("Contents/version.plist"))
    }

    fn applications() -> Question {
        Question::List(APPLICATIONS.into())
    }

    fn developer_dir(&self) -> Utf8PathBuf {
        self.app.join("Contents/Developer")
    }

    fn selection(context: &Context) -> Question {
        Question::Run(Tool::at(&context.host.mac.xcode_select, &["-p"]))
    }

    fn xcodebuild(context: &Context, args: &[&str]) -> Question {
        Question::Run(Tool {
            // The first call after an installation takes long.
            timeout_ms: 60_000,
            passes_on: Some(super::SELECTED.into()),
            ..Tool::at(&context.host.mac.xcodebuild, args)
        })
    }

    fn version(context: &Context) -> Question {
        Self::xcodebuild(context, &["-version"])
    }

    fn licence(context: &Context) -> Question {
        Self::xcodebuild(context, &["-license", "check"])
    }

    fn first_launch(context: &Context) -> Question {
        Self::xcodebuild(context, &["-checkFirstLaunchStatus"])
    }

    pub(in crate::provision::kind) fn questions(&self, context: &Context) -> Vec<(View, Question)> {
        let mut all = vec![self.installed(), Self::applications()];
        if self.selected {
            all.extend([Self::selection(context), Self::version(context)]);
        }
        if self.licence {
            all.push(Self::licence(context));
        }
        if self.first_launch {
            all.push(Self::first_launch(context));
        }
        all.into_iter().map(|question| (View::Host, question)).collect()
    }

    pub(in crate::provision::kind) fn judge(&self, context: &Context, answers: &Answers) -> Verdict {
        let there = self.judge_installed(answers);
        if !self.selected || !there.is_met() {
            return there;
        }
        let verdict = there.and(self.judge_selected(context, answers));
        let ready = |question: Question, what: &str| match ran(answers.get(View::Host, &question)) {
            Ok(ran) if ran.code == Some(0) => None,
            Ok(ran) if is_not_ready(&ran) => Some(Verdict::wrong(format!("no {what}"), what)),
            Ok(ran) => Some(Verdict::unknown(ran.ending())),
            Err(why) => Some(Verdict::unknown(why)),
        };
        let licence = self
            .licence
            .then(|| ready(Self::licence(context), "accepted licence"));
        let launch = self
            .first_launch
            .then(|| ready(Self::first_launch(context), "first launch"));
        [licence, launch]
            .into_iter()
            .flatten()
            .flatten()
            .fold(verdict, worse)
    }

    /// What is at its place.
    fn judge_installed(&self, answers: &Answers) -> Verdict {
        let text = match answers.get(View::Host, &self.installed()) {
            Answer::Text(text) => text,
            Answer::Missing => return self.elsewhere(answers),
            other => return Verdict::unknown(said(&other)),
        };
        let parsed = plist::from_bytes::<Value>(text.as_bytes()).ok();
        let version = parsed.as_ref().and_then(|value| {
            let version = value.as_dictionary()?.get("CFBundleShortVersionString")?;
            version.as_string()
        });
        match (version, &self.version) {
            (None, _) => Verdict::unknown(format!("`{}` does not say its version", self.app)),
            (Some(version), Some(wanted)) => in_range(wanted, version, self.app.as_str()),
            (Some(version), None) => Verdict::ok(format!("{version} ({})", self.app)),
        }
    }

    /// What to say where it is not at its place: another may be there under another name.
    fn elsewhere(&self, answers: &Answers) -> Verdict {
        let names = match answers.get(View::Host, &Self::applications()) {
            Answer::Names(names) => names,
            Answer::Missing => return Verdict::Missing,
            other => return Verdict::unknown(said(&other)),
        };
        let is_xcode = |name: &&String| name.starts_with("Xcode") && name.ends_with(".app");
        let others: Vec<&str> = names.iter().filter(is_xcode).map(String::as_str).collect();
        if others.is_empty() {
            return Verdict::Missing;
        }
        Verdict::wrong(
            format!("{} in {APPLICATIONS}", others.join(", ")),
            format!("`{}`; name another in `app`", self.app),
        )
    }

    fn judge_selected(&self, context: &Context, answers: &Answers) -> Verdict {
        let wanted = self.developer_dir();
        match ran(answers.get(View::Host, &Self::selection(context))).and_then(|ran| selection(&ran)) {
            Ok(Some(found)) if found == wanted => {}
            Ok(Some(found)) => {
                return Verdict::wrong(format!("{found} selected"), format!("{wanted} selected"));
            }
            Ok(None) => return Verdict::wrong("nothing selected", format!("{wanted} selected")),
            Err(why) => return Verdict::unknown(format!("xcode-select: {why}")),
        }
        // That it says its version shows that it runs at all.
        match ran(answers.get(View::Host, &Self::version(context))) {
            Ok(ran) if ran.code == Some(0) => match xcode_version(&ran.stdout) {
                Some(version) => match &self.version {
                    Some(range) => in_range(range, version, self.app.as_str()),
                    None => Verdict::ok(format!("{version} ({})", self.app)),
                },
                None => Verdict::unknown(format!("xcodebuild says `{}`", shortened(ran.stdout.trim()))),
            },
            Ok(ran) => Verdict::unknown(format!("xcodebuild: {}", ran.ending())),
            Err(why) => Verdict::unknown(format!("xcodebuild: {why}")),
        }
    }

    pub(in crate::provision::kind) fn fix(
        &self,
        context: &Context,
        answers: &Answers,
        verdict: &Verdict,
    ) -> Fix {
        if !self.judge_installed(answers).is_met() {
            let version = self
                .version
                .as_ref()
                .map_or_else(String::new, |range| format!(" {range}"));
            return Fix::ByHand(format!(
                "install Xcode{version} as {} from https://developer.apple.com/download/all, then: xcode-select -s {}",
                self.app,
                self.developer_dir()
            ));
        }
        if let Verdict::Unknown { .. } = verdict {
            return Fix::ByHand("see what keeps it from being asked".to_owned());
        }
        let mac = &context.host.mac;
        let mut steps = vec![];
        let wanted = self.developer_dir();
        let former = ran(answers.get(View::Host, &Self::selection(context))).and_then(|ran| selection(&ran));
        let is_selected = former
            .as_ref()
            .is_ok_and(|former| former.as_ref() == Some(&wanted));
        if self.selected && !is_selected {
            let select = |path: &Utf8Path| Tool::at(&mac.xcode_select, &["-s", path.as_str()]);
            let undo = match former {
                Ok(Some(former)) => select(&former),
                Ok(None) | Err(_) => Tool::at(&mac.xcode_select, &["--reset"]),
            };
            steps.push(Step::undone_by(select(&wanted), undo));
        }
        let tool = |args: &[&str]| Tool {
            timeout_ms: FETCH_MS,
            ..Tool::at(&mac.xcodebuild, args)
        };
        // What another Xcode says of itself is nothing; doing either again changes nothing.
        let needs = |question: Question| {
            let ready = ran(answers.get(View::Host, &question)).is_ok_and(|ran| ran.code == Some(0));
            !is_selected || !ready
        };
        if self.licence && needs(Self::licence(context)) {
            steps.push(Step::run(tool(&["-license", "accept"])));
        }
        if self.first_launch && needs(Self::first_launch(context)) {
            steps.push(Step::run(tool(&["-runFirstLaunch"])));
        }
        match steps.is_empty() {
            true => Fix::ByHand(format!("see what is wrong with {}", self.app)),
            false => Fix::Steps(steps),
        }
    }
}

/// Whether xcodebuild(1) says that something is to be done first; the words alone were seen with exit code 1 too.
fn is_not_ready(ran: &Ran) -> bool {
    let refuses = ran.stderr.contains("not agreed to the Xcode license");
    ran.code == Some(NOT_READY) || (ran.code.is_some_and(|code| code != 0) && refuses)
}

/// The worse of two, with both told where both are wrong.
fn worse(one: Verdict, other: Verdict) -> Verdict {
    match (one, other) {
        (
            Verdict::Wrong { found, wanted },
            Verdict::Wrong {
                found: also,
                wanted: too,
            },
        ) => Verdict::wrong(format!("{found}, {also}"), format!("{wanted}, {too}")),
        (one, other) => one.and(other),
    }
}

/// The developer directory that `xcode-select -p` prints; `None` where there is none.
fn selection(ran: &Ran) -> Result<Option<Utf8PathBuf>, String> {
    let path = Utf8PathBuf::from(ran.stdout.trim_end());
    match ran.code {
        Some(0) if path.is_absolute() && !path.as_str().contains('\n') => Ok(Some(path)),
        // "unable to get active developer directory"
        Some(2) => Ok(None),
        _ => Err(ran.ending()),
    }
}

/// The version in `Xcode 16.2` and a line `Build version 16C5032a`.
fn xcode_version(text: &str) -> Option<&str> {
    let version = text.lines().next()?.strip_prefix("Xcode ")?.trim();
    version
        .starts_with(|c: char| c.is_ascii_digit())
        .then_some(version)
}
