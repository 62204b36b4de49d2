//! Programs and libraries that jobs call, variables they get, and checks of one's own: all seen from inside a job's
//! sandbox, because nothing else counts.

use std::collections::BTreeMap;
use std::time::Duration;

use camino::Utf8PathBuf;
use regex::Regex;
use serde::{Deserialize, Deserializer};

use crate::config::size::parse_duration;
use crate::provision::Verdict;
use crate::provision::context::Context;
use crate::provision::question::{Answer, Answers, Question, TIMEOUT_MS, Tool, View, shortened};
use crate::provision::version::{Range, first_in};

/// `[command.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The versions that will do.
    pub version: Option<Range>,
    /// What makes it print its version.
    #[serde(default = "version_args")]
    pub args: Vec<String>,
    /// A regular expression whose first group is the version in what it prints; the first that looks like one
    /// otherwise.
    pub pattern: Option<String>,
    /// The exit code it ends with when it prints its version.
    #[serde(default)]
    pub exit: i32,
    /// The folders to look in, instead of a job's `PATH`.
    #[serde(default)]
    pub path: Vec<Utf8PathBuf>,
}

fn version_args() -> Vec<String> {
    vec!["--version".to_owned()]
}

impl Command {
    pub(super) fn complaint(&self, name: &str) -> Option<String> {
        if name.is_empty() || name.contains(['/', '\0']) {
            return Some(format!(
                "`{name}` is no name of a command\nhint: name the file alone, and its folder in `path`"
            ));
        }
        if let Some(relative) = self.path.iter().find(|folder| !folder.is_absolute()) {
            return Some(format!(
                "`{relative}` is not absolute\nhint: write the whole path"
            ));
        }
        self.pattern
            .as_deref()
            .and_then(|pattern| regex_complaint(pattern, 1))
    }

    fn find(&self, name: &str, path: &[Utf8PathBuf]) -> Question {
        Question::Find {
            name: name.into(),
            path: path.to_vec(),
        }
    }

    fn run(&self, name: &str) -> Question {
        Question::Run(Tool {
            program: name.into(),
            path: self.path.clone(),
            args: self.args.clone(),
            as_owner: false,
            passes_on: None,
            env: BTreeMap::new(),
            timeout_ms: TIMEOUT_MS,
        })
    }

    /// Where the host looks: a job's `PATH`, as far as it is not its own.
    fn outside(&self, name: &str, context: &Context) -> Question {
        let folders = if self.path.is_empty() {
            &context.job_path
        } else {
            &self.path
        };
        self.find(name, folders)
    }

    pub(super) fn questions(&self, name: &str, context: &Context) -> Vec<(View, Question)> {
        let mut questions = vec![
            (View::Host, self.outside(name, context)),
            (View::Job, self.find(name, &self.path)),
        ];
        if self.version.is_some() {
            questions.push((View::Job, self.run(name)));
        }
        questions
    }

    pub(super) fn judge(&self, name: &str, context: &Context, answers: &Answers) -> Verdict {
        let outside = answers.get(View::Host, &self.outside(name, context));
        let inside = answers.get(View::Job, &self.find(name, &self.path));
        let found = match (inside, outside) {
            (Answer::At(path), _) => path,
            // Nothing inside could show what is not there.
            (_, Answer::Missing) => return Verdict::Missing,
            (Answer::Missing | Answer::Denied, Answer::At(path)) => {
                return Verdict::Hidden {
                    why: format!("`{path}` cannot be started in a job's sandbox"),
                };
            }
            (Answer::Missing, _) => return Verdict::Missing,
            (other, _) => return untold(&other),
        };
        let Some(wanted) = &self.version else {
            return Verdict::ok(found);
        };
        let ran = match answers.get(View::Job, &self.run(name)) {
            Answer::Ran(ran) => ran,
            other => return untold(&other),
        };
        if ran.code != Some(self.exit) {
            // A loader that misses something names versions too.
            return Verdict::wrong(
                format!("`{found}`, {}", ran.ending()),
                format!("exit code {}", self.exit),
            );
        }
        let printed = format!("{}\n{}", ran.stdout, ran.stderr);
        let version = match &self.pattern {
            Some(pattern) => Regex::new(pattern)
                .ok()
                .and_then(|regex| Some(regex.captures(&printed)?.get(1)?.as_str().to_owned())),
            None => first_in(&printed),
        };
        match version {
            Some(version) => in_range(wanted, &version, found.as_str()),
            None => Verdict::unknown(format!("`{found}` prints no version: {}", ran.ending())),
        }
    }
}

/// Whether `version`, found at `place`, is one of those wanted.
pub(super) fn in_range(wanted: &Range, version: &str, place: &str) -> Verdict {
    let shown = match place {
        "" => version.to_owned(),
        place => format!("{version} ({place})"),
    };
    match wanted.contains(version) {
        Some(true) => Verdict::ok(shown),
        Some(false) if wanted.is_above(version) => Verdict::outdated(shown, wanted.to_string()),
        Some(false) => Verdict::wrong(shown, wanted.to_string()),
        None => Verdict::unknown(format!("`{}` is no version", shortened(version))),
    }
}

/// The verdict where an answer says nothing about what was asked.
pub(super) fn untold(answer: &Answer) -> Verdict {
    Verdict::unknown(said(answer))
}

/// Why an answer says nothing about what was asked.
pub(super) fn said(answer: &Answer) -> String {
    match answer {
        Answer::Failed(why) => why.clone(),
        Answer::TimedOut => "it did not answer in time".to_owned(),
        Answer::Denied => "it may not be looked at; root may".to_owned(),
        Answer::Missing => "what tells it is not there".to_owned(),
        Answer::Ran(ran) => format!("{} ", ran.ending()).trim_end().to_owned(),
        Answer::At(_)
        | Answer::Entry(_)
        | Answer::Text(_)
        | Answer::Names(_)
        | Answer::Disk(_)
        | Answer::Yes
        | Answer::No => "the answer makes no sense".to_owned(),
    }
}

/// What is wrong with a regular expression of which `groups` groups are used.
fn regex_complaint(pattern: &str, groups: usize) -> Option<String> {
    match Regex::new(pattern) {
        Ok(regex) if regex.captures_len() <= groups => Some(format!(
            "`{pattern}` has no group\nhint: put the version in parentheses"
        )),
        Ok(_) => None,
        Err(error) => {
            let last = error.to_string();
            let last = last.lines().last().unwrap_or_default().trim().to_owned();
            Some(format!(
                "`{pattern}` is no regular expression: {last}\nhint: see docs.rs/regex for what is"
            ))
        }
    }
}

/// `[library.NAME]`: a library that must load, by its file name or its path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Library {}

impl Library {
    pub(super) fn questions(&self, name: &str) -> Vec<(View, Question)> {
        let mut questions = vec![(View::Job, Question::Load(name.to_owned()))];
        if name.starts_with('/') {
            questions.push((View::Host, Question::Resolve(name.into())));
        }
        questions
    }

    pub(super) fn judge(&self, name: &str, answers: &Answers) -> Verdict {
        let outside = answers.get(View::Host, &Question::Resolve(name.into()));
        match (answers.get(View::Job, &Question::Load(name.to_owned())), outside) {
            (Answer::At(found), _) => Verdict::ok(found),
            (Answer::Missing | Answer::Denied, Answer::At(path)) => Verdict::Hidden {
                why: format!("`{path}` cannot be opened in a job's sandbox"),
            },
            (Answer::Missing, _) | (_, Answer::Missing) => Verdict::Missing,
            // It is there and does not load; the loader says why.
            (Answer::Text(why), _) => Verdict::wrong(shortened(&why), "a library that loads"),
            (other, _) => untold(&other),
        }
    }
}

/// `[env.NAME]`: a variable that jobs get.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Env {
    /// Its value.
    pub value: String,
    /// Whether the value is a path, or several with colons between them, that must be there for a job.
    #[serde(default)]
    pub exists: bool,
}

impl Env {
    pub(super) fn complaint(&self, name: &str) -> Option<String> {
        let is_name = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            return Some(format!(
                "`{name}` is no name of a variable\nhint: letters, digits and _"
            ));
        }
        if let Err(reserved) = crate::config::check_variable(name) {
            return Some(reserved);
        }
        let relative = self.paths().into_iter().find(|path| !path.is_absolute())?;
        Some(format!(
            "`{relative}` is not absolute\nhint: write the whole path"
        ))
    }

    fn paths(&self) -> Vec<Utf8PathBuf> {
        if self.exists {
            self.value.split(':').map(Utf8PathBuf::from).collect()
        } else {
            vec![]
        }
    }

    pub(super) fn questions(&self, name: &str) -> Vec<(View, Question)> {
        let both =
            |path: Utf8PathBuf| [View::Host, View::Job].map(|view| (view, Question::Resolve(path.clone())));
        std::iter::once((View::Job, Question::Variable(name.to_owned())))
            .chain(self.paths().into_iter().flat_map(both))
            .collect()
    }

    pub(super) fn judge(&self, name: &str, answers: &Answers) -> Verdict {
        // The configuration's own variables win over those of manifests.
        match answers.get(View::Job, &Question::Variable(name.to_owned())) {
            Answer::Text(found) if found == self.value => {}
            Answer::Text(found) => return Verdict::wrong(shortened(&found), &self.value),
            Answer::Missing => return Verdict::Missing,
            other => return untold(&other),
        }
        let of = |path: Utf8PathBuf| {
            let question = Question::Resolve(path.clone());
            match (
                answers.get(View::Job, &question),
                answers.get(View::Host, &question),
            ) {
                (Answer::At(_), _) => Verdict::ok(path),
                (Answer::Missing | Answer::Denied, Answer::At(_)) => Verdict::Hidden {
                    why: format!("`{path}` is not to be seen in a job's sandbox"),
                },
                (Answer::Missing, _) | (_, Answer::Missing) => {
                    Verdict::wrong(format!("nothing at `{path}`"), "something there")
                }
                (other, _) => untold(&other),
            }
        };
        self.paths()
            .into_iter()
            .map(of)
            .fold(Verdict::ok(&self.value), Verdict::and)
    }
}

/// `[check.NAME]`: a command whose end decides, run as a job would run it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The program and its arguments; a name is looked up on a job's `PATH`.
    pub command: Vec<String>,
    /// The exit code it must end with.
    #[serde(default)]
    pub exit: i32,
    /// A regular expression that must match in its output; `^` and `$` are the ends of a line.
    pub output: Option<String>,
    /// How long it may take, as text with a unit: 20s.
    #[serde(default = "check_timeout", deserialize_with = "duration")]
    pub timeout: Duration,
}

fn check_timeout() -> Duration {
    Duration::from_millis(TIMEOUT_MS)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

impl Check {
    pub(super) fn complaint(&self) -> Option<String> {
        if self.command.first().is_none_or(String::is_empty) {
            return Some("the command is empty\nhint: command = [\"/bin/sh\", \"-c\", \"…\"]".to_owned());
        }
        self.output
            .as_deref()
            .and_then(|pattern| regex_complaint(pattern, 0))
    }

    fn question(&self) -> Question {
        let (program, args) = self
            .command
            .split_first()
            .map_or((String::new(), vec![]), |(first, rest)| {
                (first.clone(), rest.to_vec())
            });
        Question::Run(Tool {
            program: program.into(),
            path: vec![],
            args,
            as_owner: false,
            passes_on: None,
            env: BTreeMap::new(),
            timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(TIMEOUT_MS),
        })
    }

    pub(super) fn questions(&self) -> Vec<(View, Question)> {
        vec![(View::Job, self.question())]
    }

    pub(super) fn judge(&self, answers: &Answers) -> Verdict {
        let ran = match answers.get(View::Job, &self.question()) {
            Answer::Ran(ran) => ran,
            Answer::Missing => return Verdict::Missing,
            other => return untold(&other),
        };
        if ran.code != Some(self.exit) {
            return Verdict::wrong(ran.ending(), format!("exit code {}", self.exit));
        }
        let output = format!("{}{}", ran.stdout, ran.stderr);
        match &self.output {
            Some(pattern)
                if !Regex::new(&format!("(?m){pattern}")).is_ok_and(|regex| regex.is_match(&output)) =>
            {
                let said = output.lines().next().map_or("nothing".to_owned(), shortened);
                Verdict::wrong(said, format!("output like `{pattern}`"))
            }
            Some(_) | None => Verdict::ok(format!("exit code {}", self.exit)),
        }
    }
}
