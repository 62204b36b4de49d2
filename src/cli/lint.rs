//! `ephemerd profile lint`: reads sandbox profiles of macOS and tells what they say and do not mean.

use std::collections::BTreeMap;
use std::process::ExitCode;

use camino::Utf8PathBuf;
use clap::Args;
use serde::Serialize;

use super::Format;
use crate::profile::lint::{Finding, OLDEST, lint};
use crate::profile::sbpl::{
    Imports, Place, Problem, Problems, Release, Semantics, Settings, check_syntax, compile, read_file,
};

/// Version of the JSON answer.
const VERSION: u32 = 1;

/// Arguments of `profile lint`.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// Only check that the text is well formed, without running it.
    #[arg(long)]
    syntax_only: bool,
    /// The release of macOS that the profile is for, as macos-15; without one it is read as for the newest, and has
    /// to work on macos-15 as well.
    #[arg(long, value_name = "OS")]
    os: Option<Release>,
    /// A folder with profiles to import, in order; without one imports are skipped.
    #[arg(long, value_name = "DIR")]
    import_dir: Vec<Utf8PathBuf>,
    /// What `(param "NAME")` gives.
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = definition)]
    define: Vec<(String, String)>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The profiles.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<Utf8PathBuf>,
}

fn definition(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// The JSON answer.
#[derive(Debug, Serialize)]
struct Answer {
    version: u32,
    files: Vec<Linted>,
}

/// What there is to say about one file.
#[derive(Debug, Serialize)]
struct Linted {
    file: Utf8PathBuf,
    /// Why it is no profile.
    problems: Vec<Problem>,
    findings: Vec<Finding>,
}

/// Prints what is found. Ends with 0 where that is nothing, with 1 otherwise, and with 2 where a file is no
/// profile.
///
/// # Errors
/// The answer cannot be written as JSON.
pub fn run(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let (answer, code) = answer(args)?;
    print!("{answer}");
    Ok(ExitCode::from(code))
}

/// What is printed, and the exit code.
fn answer(args: &LintArgs) -> anyhow::Result<(String, u8)> {
    let settings = Settings {
        release: args.os.unwrap_or(Release::NEWEST),
        params: args.define.iter().cloned().collect::<BTreeMap<_, _>>(),
        imports: if args.import_dir.is_empty() {
            Imports::Skipped
        } else {
            Imports::Folders(args.import_dir.clone())
        },
    };
    let files: Vec<Linted> = args
        .files
        .iter()
        .map(|file| linted(file.clone(), args, &settings))
        .collect();
    let code = if files.iter().any(|linted| !linted.problems.is_empty()) {
        2
    } else {
        u8::from(files.iter().any(|linted| !linted.findings.is_empty()))
    };
    let text = match args.format {
        Format::Json => {
            let version = VERSION;
            serde_json::to_string_pretty(&Answer { version, files })? + "\n"
        }
        Format::Text => files.iter().map(as_text).collect(),
    };
    Ok((text, code))
}

fn linted(file: Utf8PathBuf, args: &LintArgs, settings: &Settings) -> Linted {
    let oldest = args.os.unwrap_or(OLDEST);
    let found = match read_file(&file) {
        Ok(text) if args.syntax_only => check_syntax(file.as_str(), &text).map(|_| Vec::new()),
        Ok(text) => compile(file.as_str(), &text, settings)
            .map(|ruleset| lint(&ruleset, &Semantics::of(settings.release), oldest)),
        Err(error) => Err(Problems(vec![Problem {
            at: Place {
                file: file.as_str().into(),
                line: 1,
                column: 1,
            },
            message: format!("it cannot be read: {error}"),
            hint: None,
        }])),
    };
    let (findings, problems) = match found {
        Ok(findings) => (findings, Vec::new()),
        Err(problems) => (Vec::new(), problems.0),
    };
    Linted {
        file,
        problems,
        findings,
    }
}

fn as_text(linted: &Linted) -> String {
    let problems = linted.problems.iter().map(ToString::to_string);
    let findings = linted.findings.iter().map(ToString::to_string);
    problems.chain(findings).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LintArgs,
    }

    /// What `profile lint` answers in a folder with `files`.
    fn told(files: &[(&str, &str)], words: &[&str]) -> (String, u8) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let top = folder.path().to_str().unwrap();
        let words = words.iter().map(|word| word.replace("TOP", top));
        let line = Line::try_parse_from(std::iter::once("lint".to_owned()).chain(words)).unwrap();
        let (text, code) = answer(&line.args).unwrap();
        (text.replace(top, "TOP"), code)
    }

    const CLEAN: (&str, &str) = ("clean.sb", "(version 1)(allow default)");
    const BAD: (&str, &str) = (
        "bad.sb",
        "(version 1)(allow default)\n(deny file-read* (subpath \"/tmp\"))",
    );
    const BROKEN: (&str, &str) = ("broken.sb", "(version 1)\n(deny file-reed*)");

    #[test]
    fn the_exit_code_tells_clean_from_findings_and_findings_from_what_is_no_profile() {
        assert_eq!(told(&[CLEAN], &["TOP/clean.sb"]), (String::new(), 0));
        let (text, code) = told(&[CLEAN, BAD], &["TOP/clean.sb", "TOP/bad.sb"]);
        assert_eq!(
            (text.as_str(), code),
            (
                "TOP/bad.sb:2:1: SB201: `/tmp` leads through a link, and the kernel compares what links lead to\n\
                 hint: write /private/tmp\n",
                1
            )
        );
        let (text, code) = told(&[BAD, BROKEN], &["TOP/bad.sb", "TOP/broken.sb", "TOP/none.sb"]);
        assert_eq!(code, 2);
        assert!(text.contains("TOP/bad.sb:2:1: SB201"), "{text}");
        assert!(
            text.contains("TOP/broken.sb:2:7: `file-reed*` means nothing to macos-26\nhint: did you mean"),
            "{text}"
        );
        assert!(text.contains("TOP/none.sb:1:1: it cannot be read"), "{text}");
        let (text, code) = told(&[], &["/dev/zero"]);
        assert!(code == 2 && text.contains("more than 1048576"), "{text}");
    }

    #[test]
    fn only_the_syntax_is_looked_at_when_asked() {
        assert_eq!(
            told(&[BROKEN], &["--syntax-only", "TOP/broken.sb"]),
            (String::new(), 0)
        );
        let (text, code) = told(&[("open.sb", "(version 1")], &["--syntax-only", "TOP/open.sb"]);
        assert_eq!(
            (text.as_str(), code),
            ("TOP/open.sb:1:1: there is no `)` for this `(`\n", 2)
        );
    }

    #[test]
    fn parameters_imports_and_the_release_are_given() {
        let base = (
            "base.sb",
            "(deny file-read* (subpath (string-append (param \"W\") \"/x\")))",
        );
        let main = ("main.sb", "(version 1)(allow default)(import \"base.sb\")");
        let with = ["-D", "W=/w", "--import-dir", "TOP", "TOP/main.sb"];
        assert_eq!(told(&[base, main], &with), (String::new(), 0));
        let (text, code) = told(&[base, main], &["TOP/main.sb"]);
        assert!(code == 1 && text.contains("SB506"), "{text}");
        let (text, code) = told(&[base, main], &with[2..]);
        assert!(
            code == 2 && text.contains("TOP/base.sb:1:27: string-append takes strings"),
            "{text}"
        );
        let new = (
            "new.sb",
            "(version 1)(allow default)(deny lsopen (with telemetry-backtrace))",
        );
        assert_eq!(told(&[new], &["TOP/new.sb"]).1, 1);
        assert_eq!(told(&[new], &["--os", "macos-15", "TOP/new.sb"]).1, 2);
        assert!(Line::try_parse_from(["lint", "-D", "=x", "a"]).is_err());
        assert!(Line::try_parse_from(["lint", "--os", "macos-9", "a"]).is_err());
    }

    #[test]
    fn the_json_answer_has_code_place_message_and_hint() {
        let (text, code) = told(&[BAD], &["--format", "json", "TOP/bad.sb"]);
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &answer["version"]), (1, &serde_json::json!(1)));
        let file = &answer["files"][0];
        assert_eq!(file["problems"], serde_json::json!([]));
        assert_eq!(file["findings"][0]["code"], "SB201");
        assert_eq!(
            file["findings"][0]["at"],
            serde_json::json!({"file": "TOP/bad.sb", "line": 2, "column": 1})
        );
        assert_eq!(file["findings"][0]["hint"], "write /private/tmp");
    }
}
