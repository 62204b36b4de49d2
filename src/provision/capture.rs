//! A manifest written from a host as it is: what somebody has installed there, and not what that needed besides.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use super::context::Context;
use super::question::{Answer, Answers, Question, Tool, View};
use super::version::Range;
use crate::host::Os;

/// Commands that jobs often call; of those that are there a minimum version is written down.
const COMMANDS: [&str; 30] = [
    "autoconf",
    "automake",
    "bison",
    "cargo",
    "cc",
    "clang",
    "cmake",
    "curl",
    "gcc",
    "git",
    "go",
    "gradle",
    "java",
    "jq",
    "libtool",
    "make",
    "ninja",
    "node",
    "npm",
    "perl",
    "pkg-config",
    "python3",
    "re2c",
    "ruby",
    "rustc",
    "swift",
    "tar",
    "unzip",
    "wget",
    "xcodebuild",
];

/// What a capture asks first.
pub fn questions(context: &Context) -> Vec<(View, Question)> {
    let mut questions: Vec<(View, Question)> = COMMANDS
        .iter()
        .map(|name| (View::Host, find(name, context)))
        .collect();
    questions.extend(COMMANDS.iter().map(|name| (View::Host, version(name, context))));
    match context.os() {
        Os::MacOs => {}
        Os::Linux => {
            questions.extend([asked_for(context), versions(context)].map(|question| (View::Host, question)))
        }
    }
    if context.brew.is_some() {
        questions.push((View::Host, cellar(context)));
        questions.push((View::Host, Question::List(context.brewed("Caskroom"))));
    }
    questions
}

fn find(name: &str, context: &Context) -> Question {
    Question::Find {
        name: name.into(),
        path: context.job_path.clone(),
    }
}

fn version(name: &str, context: &Context) -> Question {
    let args: &[&str] = match name {
        "go" => &["version"],
        "java" | "xcodebuild" => &["-version"],
        _ => &["--version"],
    };
    Question::Run(Tool {
        path: context.job_path.clone(),
        ..Tool::at(name.into(), args)
    })
}

/// Packages that somebody has asked for, apt-mark(8).
fn asked_for(context: &Context) -> Question {
    Question::Run(Tool::at(&context.host.tools.apt_mark, &["showmanual"]))
}

fn versions(context: &Context) -> Question {
    Question::Run(Tool::at(
        &context.host.tools.dpkg_query,
        &["-W", "-f=${Package}\\t${Version}\\t${Priority}\\t${Essential}\\n"],
    ))
}

fn cellar(context: &Context) -> Question {
    Question::List(context.brewed("Cellar"))
}

/// What a capture asks when it knows which formulae there are.
pub fn more_questions(context: &Context, answers: &Answers) -> Vec<(View, Question)> {
    formulae(context, answers)
        .iter()
        .flat_map(|name| [opt(name, context), receipt(name, context)])
        .map(|question| (View::Host, question))
        .collect()
}

fn formulae(context: &Context, answers: &Answers) -> Vec<String> {
    match answers.get(View::Host, &cellar(context)) {
        Answer::Names(names) => names.into_iter().filter(|name| !name.starts_with('.')).collect(),
        _ => vec![],
    }
}

fn opt(name: &str, context: &Context) -> Question {
    Question::Resolve(context.brewed(&format!("opt/{name}")))
}

fn receipt(name: &str, context: &Context) -> Question {
    Question::Read(context.brewed(&format!("opt/{name}/INSTALL_RECEIPT.json")))
}

/// The part of Homebrew's receipt of a formula that says whether somebody asked for it.
#[derive(Deserialize)]
struct Receipt {
    installed_on_request: Option<bool>,
}

/// The manifest as TOML.
pub fn manifest(context: &Context, answers: &Answers) -> String {
    let os = match context.os() {
        Os::MacOs => "macos",
        Os::Linux => "linux",
    };
    let mut text = format!(
        "version = 1\ndescription = \"what was there when this was captured\"\nos = \"{os}\"\n\n# Say why each is there: whoever takes it out wants to know what breaks.\n"
    );
    let (release, name) = match (context.os(), context.distribution.first()) {
        (Os::Linux, Some(id)) => (&context.distribution_version, id.as_str()),
        (Os::Linux, None) => (&context.release, "linux"),
        (Os::MacOs, _) => (&context.release, "macos"),
    };
    if let Some(least) = at_least(release) {
        section(&mut text, "release", name, &[("version", least)]);
    }
    section(
        &mut text,
        "arch",
        "machine",
        &[("any", format!("[{}]", quoted(&context.arch)))],
    );
    for (section_name, packages) in packages(context, answers) {
        for (name, version) in packages {
            let version = at_least(&version).map(|least| ("version", least));
            section(
                &mut text,
                section_name,
                &name,
                &version.into_iter().collect::<Vec<_>>(),
            );
        }
    }
    for name in COMMANDS {
        if !matches!(answers.get(View::Host, &find(name, context)), Answer::At(_)) {
            continue;
        }
        let question = version(name, context);
        let mut keys = vec![];
        if let (Answer::Ran(ran), Question::Run(tool)) = (answers.get(View::Host, &question), &question) {
            let printed = format!("{}\n{}", ran.stdout, ran.stderr);
            let least = super::version::first_in(&printed).and_then(|found| at_least(&found));
            if let Some(least) = least.filter(|_| ran.code == Some(0)) {
                keys.push(("version", least));
                if tool.args != ["--version"] {
                    keys.push(("args", format!("[{}]", quoted(&tool.args.join(" ")))));
                }
            }
        }
        section(&mut text, "command", name, &keys);
    }
    text
}

/// Packages that somebody asked for, by section, with their versions.
fn packages(context: &Context, answers: &Answers) -> BTreeMap<&'static str, BTreeMap<String, String>> {
    let mut found: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    if let (Answer::Ran(manual), Answer::Ran(all)) = (
        answers.get(View::Host, &asked_for(context)),
        answers.get(View::Host, &versions(context)),
    ) {
        let versions: BTreeMap<&str, &str> = all
            .stdout
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split('\t').collect();
                match fields.as_slice() {
                    // Every Debian has these.
                    [_, _, "required" | "important", _] | [_, _, _, "yes"] => None,
                    [name, version, ..] => Some((*name, *version)),
                    _ => None,
                }
            })
            .collect();
        let names = manual
            .stdout
            .lines()
            .filter_map(|name| Some((name.to_owned(), (*versions.get(name)?).to_owned())));
        found.entry("apt").or_default().extend(names);
    }
    for name in formulae(context, answers) {
        let requested = match answers.get(View::Host, &receipt(&name, context)) {
            Answer::Text(text) => serde_json::from_str::<Receipt>(&text)
                .ok()
                .and_then(|it| it.installed_on_request),
            _ => None,
        };
        if let (true, Answer::At(keg)) = (
            requested.unwrap_or(true),
            answers.get(View::Host, &opt(&name, context)),
        ) {
            let version = keg.file_name().unwrap_or_default().to_owned();
            found.entry("brew").or_default().insert(name, version);
        }
    }
    if let Answer::Names(casks) = answers.get(View::Host, &Question::List(context.brewed("Caskroom"))) {
        let casks = casks.into_iter().filter(|name| !name.starts_with('.'));
        found
            .entry("cask")
            .or_default()
            .extend(casks.map(|name| (name, String::new())));
    }
    found
}

/// A range that begins at what was found, to two numbers: what is newer will do. `None` for what is no version.
fn at_least(version: &str) -> Option<String> {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let numbers: Vec<&str> = version
        .split('.')
        .take(2)
        .map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            &part[..end]
        })
        .take_while(|part| !part.is_empty())
        .collect();
    let text = format!(">={}", numbers.join("."));
    text.parse::<Range>().ok().map(|range| quoted(&range.to_string()))
}

fn section(text: &mut String, section: &str, name: &str, keys: &[(&str, String)]) {
    let bare = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let name = if bare { name.to_owned() } else { quoted(name) };
    let _ = writeln!(text, "\n[{section}.{name}]\nwhy = \"it was there\"");
    for (key, value) in keys {
        let _ = writeln!(text, "{key} = {value}");
    }
}

/// A string of TOML's.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
