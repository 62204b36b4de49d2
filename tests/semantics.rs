//! `ephemerd profile probe-semantics` against a stand-in for sandbox-exec(1) that ends every trial as a plan says.
//! What it shows is that questions are asked and answers read as they should; no kernel of macOS is asked here.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use camino::Utf8PathBuf;
use ephemerd::cli::Format;
use ephemerd::cli::semantics::{SemanticsArgs, run_in};
use ephemerd::host::{Host, MacTools, Os};
use ephemerd::profile::disputed::run::{Bench, profile};
use ephemerd::profile::disputed::{Outcome, Probe, table};
use ephemerd::profile::sbpl::Release;
use serde_json::Value;

const FAKES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fakes");

struct Stand {
    top: Utf8PathBuf,
    host: Host,
    _keep: tempfile::TempDir,
}

/// How a trial with this outcome ends.
fn end(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allowed => "allowed",
        Outcome::Denied => "denied",
        Outcome::Refused => "refused",
        Outcome::Tagged => "tagged",
        Outcome::Untagged => "untagged",
    }
}

impl Stand {
    /// A kernel that ends the trials of each probe as `outcomes` says.
    fn new(outcomes: impl Fn(&Probe) -> Vec<Outcome>) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        symlink(format!("{FAKES}/sandbox-exec-by-plan"), top.join("sandbox-exec")).unwrap();
        symlink(format!("{FAKES}/log"), top.join("log")).unwrap();
        fs::write(top.join("rows"), "").unwrap();
        let work = top.join(format!("ephemerd-probes-{}/work", std::process::id()));
        for probe in table() {
            let plan = top.join("plan").join(probe.id);
            fs::create_dir_all(&plan).unwrap();
            for (number, (trial, outcome)) in probe.trials.iter().zip(outcomes(&probe)).enumerate() {
                let text = profile(probe.id, trial, work.as_str(), "ephemerd:TAG");
                fs::write(plan.join(format!("{number}.sb")), text).unwrap();
                fs::write(plan.join(format!("{number}.end")), end(outcome)).unwrap();
            }
        }
        let system = Host::system();
        let host = Host {
            os: Os::MacOs,
            mac: MacTools {
                log: top.join("log"),
                sandbox_exec: top.join("sandbox-exec"),
                ..system.mac
            },
            ..system
        };
        Self {
            top,
            host,
            _keep: keep,
        }
    }

    /// The exit code, as text, and what was printed.
    fn run(&self, only: &[&str], format: Format) -> (String, String) {
        let args = SemanticsArgs {
            os: Release::MacOs26,
            only: only.iter().map(|id| (*id).to_owned()).collect(),
            format,
        };
        let mut out = Vec::new();
        let pause = Duration::from_millis(1);
        let code = run_in(&args, &self.host, &self.top, pause, &mut out).unwrap();
        (format!("{code:?}"), String::from_utf8(out).unwrap())
    }
}

/// The outcomes of the answer this program goes by.
fn as_believed(probe: &Probe) -> Vec<Outcome> {
    let believed = probe.believed(Release::MacOs26);
    let belief = probe.beliefs.iter().find(|belief| belief.answer == believed);
    belief.unwrap().outcomes.clone()
}

fn findings(printed: &str) -> Vec<Value> {
    printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn code(number: u8) -> String {
    format!("{:?}", std::process::ExitCode::from(number))
}

#[test]
fn every_question_that_can_be_tried_is_answered_as_the_kernel_does() {
    let stand = Stand::new(as_believed);
    let (ended, printed) = stand.run(&[], Format::Json);
    let findings = findings(&printed);
    assert_eq!(findings.len(), table().len());
    let mut tried = 0;
    for finding in &findings {
        if finding["answer"] == "not-tried" {
            assert!(finding["why"].is_string(), "{finding}");
            continue;
        }
        assert_eq!(finding["answer"], finding["believed"], "{finding}");
        assert_eq!(finding["agrees"], true, "{finding}");
        assert!(finding["raw"].as_array().unwrap().len() >= 2, "{finding}");
        tried += 1;
    }
    assert!(tried >= 15, "only {tried} were tried:\n{printed}");
    assert_eq!(ended, code(0));
    let left = stand.top.read_dir_utf8().unwrap();
    let left: Vec<String> = left.map(|entry| entry.unwrap().file_name().to_owned()).collect();
    assert!(!left.iter().any(|name| name.contains("probes")), "{left:?}");
}

#[test]
fn an_answer_that_is_not_believed_is_told_and_ends_with_1() {
    let stand = Stand::new(|probe| match probe.id {
        "P1" => probe.beliefs[1].outcomes.clone(),
        _ => as_believed(probe),
    });
    let (ended, printed) = stand.run(&["P1"], Format::Text);
    insta::assert_snapshot!(printed, @r"
    ID  ANSWER          STANDING               QUESTION
    P1  filtered-first  BELIEVED: exact-first  does a rule without filters for the operation go before one with filters for its parent?
    ");
    assert_eq!(ended, code(1));
}

#[test]
fn outcomes_that_fit_no_answer_are_unclear() {
    let stand = Stand::new(|probe| vec![Outcome::Refused; probe.trials.len()]);
    let (ended, printed) = stand.run(&["P1", "P6"], Format::Json);
    for finding in findings(&printed) {
        assert_eq!(finding["answer"], "unclear", "{finding}");
        assert_eq!(finding["agrees"], Value::Null);
        assert_eq!(finding["raw"][0]["outcome"], "refused");
        assert_eq!(finding["raw"][0]["code"], 65);
        assert!(
            finding["raw"][0]["said"]
                .as_str()
                .unwrap()
                .contains("unbound variable")
        );
    }
    assert_eq!(ended, code(0));
}

#[test]
fn what_fails_without_a_sandbox_is_not_tried_in_one() {
    let stand = Stand::new(as_believed);
    let bench = Bench::set(stand.host.clone(), &stand.top, Duration::ZERO).unwrap();
    let probe = Probe {
        act: vec!["/nonexistent/program"],
        ..table().remove(0)
    };
    let finding = bench.ask(&probe, Release::MacOs26);
    assert_eq!((finding.answer, finding.agrees), ("not-tried", None));
    let why = finding.why.unwrap();
    assert!(why.starts_with("it fails without a sandbox: "), "{why}");
    assert_eq!(finding.raw, []);

    let probe = Probe {
        setup: "echo no room >&2; false",
        ..table().remove(0)
    };
    let why = bench.ask(&probe, Release::MacOs26).why.unwrap();
    assert!(
        why.starts_with("it cannot be prepared: ") && why.ends_with("no room"),
        "{why}"
    );
}

#[test]
fn a_folder_with_a_name_that_needs_escaping_is_no_place_to_ask() {
    let keep = tempfile::tempdir().unwrap();
    let folder = Utf8PathBuf::from_path_buf(keep.path().join("a\"b")).unwrap();
    fs::create_dir(&folder).unwrap();
    let error = Bench::set(Host::system(), &folder, Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("not plain"), "{error}");
}

#[test]
fn messages_are_looked_for_in_the_log() {
    for answer in ["yes", "no"] {
        let stand = Stand::new(|probe| {
            let belief = probe.beliefs.iter().find(|belief| belief.answer == answer);
            belief.map_or_else(|| as_believed(probe), |belief| belief.outcomes.clone())
        });
        let (_, printed) = stand.run(&["P8"], Format::Json);
        assert_eq!(findings(&printed)[0]["answer"], answer);
    }
}

#[test]
fn there_is_nothing_to_ask_on_linux_and_no_other_question() {
    let mut stand = Stand::new(as_believed);
    stand.host.os = Os::Linux;
    let (ended, printed) = stand.run(&[], Format::Json);
    assert_eq!((ended, printed), (code(3), String::new()));
    let args = SemanticsArgs {
        os: Release::MacOs26,
        only: vec!["P10".into()],
        format: Format::Text,
    };
    let error = run_in(&args, &stand.host, &stand.top, Duration::ZERO, &mut Vec::new()).unwrap_err();
    assert!(
        error.to_string().contains("there is no question `P10`"),
        "{error}"
    );
}
