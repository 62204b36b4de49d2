//! Expectations: what any profile must guarantee, as data with a reason each.
//!
//! They are checked by evaluation on every rendered profile before a job starts, on any host, and again by
//! live probes inside the real sandbox (`profile verify`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Rules;
use super::decide::macos::AskError;
use super::decide::{self, Operation, Ruling, Verdict};
use super::sbpl::Semantics;
use crate::host::Os;

/// The version of `expectations.toml` this program reads.
const VERSION: u32 = 2;

/// Why the expectations could not be read or evaluated.
#[derive(Debug, thiserror::Error)]
pub enum ExpectError {
    /// Not TOML, an unknown key or a wrong type.
    #[error("could not read the expectations")]
    Text(#[source] Box<toml::de::Error>),
    /// Another version.
    #[error("expectations version {0} is not {VERSION}")]
    Version(u32),
    /// Two of one name.
    #[error("there are two expectations `{0}`")]
    Twice(String),
    /// An operation that only one system has, expected of both.
    #[error("expectation `{id}` is about `{op}`, which only {os} has\nhint: add `os = \"{os}\"`")]
    System {
        /// The expectation.
        id: String,
        /// The operation.
        op: Operation,
        /// The system that has it.
        os: &'static str,
    },
    /// A placeholder nobody fills.
    #[error("expectation `{id}` names the unknown placeholder `{name}`\nhint: known are {}", .known.join(", "))]
    Placeholder {
        /// The expectation.
        id: String,
        /// The placeholder.
        name: String,
        /// Those that are filled.
        known: Vec<&'static str>,
    },
    /// A question that macOS does not have.
    #[error("expectation `{id}` cannot be evaluated")]
    Ask {
        /// The expectation.
        id: String,
        /// Why.
        #[source]
        source: AskError,
    },
}

/// One thing a profile must guarantee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expectation {
    /// A stable name.
    pub id: String,
    /// The only system it is about; both without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<Os>,
    /// What is tried.
    pub op: Operation,
    /// On what; may hold placeholders in braces.
    pub target: String,
    /// What must come of it.
    pub verdict: Verdict,
    /// Why it matters.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    expect: Vec<Expectation>,
}

/// What the placeholders stand for in one job, by their names.
pub type Places = BTreeMap<&'static str, String>;

/// One expectation beside what the profile says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was expected.
    pub expectation: Expectation,
    /// The target with placeholders filled.
    pub target: String,
    /// What the profile says.
    pub ruling: Ruling,
}

impl Finding {
    /// Whether the profile guarantees what was expected.
    pub fn is_met(&self) -> bool {
        self.expectation.verdict == self.ruling.verdict
    }
}

/// Reads the expectations that are compiled in from `profiles/expectations.toml`.
///
/// # Errors
/// The text is not what this program reads, which a test rules out for the built-in one.
pub fn built_in() -> Result<Vec<Expectation>, ExpectError> {
    parse(include_str!("../../profiles/expectations.toml"))
}

fn parse(text: &str) -> Result<Vec<Expectation>, ExpectError> {
    let file: File = toml::from_str(text).map_err(|e| ExpectError::Text(Box::new(e)))?;
    if file.version != VERSION {
        return Err(ExpectError::Version(file.version));
    }
    let mut ids: Vec<&str> = file.expect.iter().map(|expectation| &*expectation.id).collect();
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(ExpectError::Twice(pair[0].to_owned()));
    }
    file.expect.iter().try_for_each(check_system)?;
    Ok(file.expect)
}

fn check_system(expectation: &Expectation) -> Result<(), ExpectError> {
    let (needed, os) = match &expectation.op {
        Operation::Syscall => (Os::Linux, "linux"),
        Operation::Sbpl(_) => (Os::MacOs, "macos"),
        Operation::FileRead | Operation::FileWrite | Operation::FileExec | Operation::Network => {
            return Ok(());
        }
    };
    if expectation.os == Some(needed) {
        return Ok(());
    }
    Err(ExpectError::System {
        id: expectation.id.clone(),
        op: expectation.op.clone(),
        os,
    })
}

/// Evaluates on `rules` every expectation that is about their system.
///
/// # Errors
/// A placeholder is unknown, or an operation or a target is not one of the system's.
pub fn evaluate(
    expectations: &[Expectation],
    rules: &Rules,
    places: &Places,
) -> Result<Vec<Finding>, ExpectError> {
    expectations
        .iter()
        .filter(|expectation| expectation.os.is_none_or(|os| os == rules.os()))
        .map(|expectation| {
            let target = fill(expectation, places)?;
            let ruling = ruling(expectation, rules, &target)?;
            Ok(Finding {
                expectation: expectation.clone(),
                target,
                ruling,
            })
        })
        .collect()
}

fn ruling(expectation: &Expectation, rules: &Rules, target: &str) -> Result<Ruling, ExpectError> {
    match rules {
        Rules::Linux(policy) => Ok(decide::decide(policy, &expectation.op, target)),
        Rules::MacOs(ruleset) => {
            let semantics = Semantics::of(ruleset.vocabulary.release());
            let asked = (&expectation.op, target);
            decide::macos::decide(ruleset, asked, expectation.verdict, &semantics).map_err(|source| {
                ExpectError::Ask {
                    id: expectation.id.clone(),
                    source,
                }
            })
        }
    }
}

fn fill(expectation: &Expectation, places: &Places) -> Result<String, ExpectError> {
    let mut filled = String::new();
    // Placeholders are looked for in the expectation's text alone: a path may hold braces of its own.
    let mut rest = expectation.target.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}').unwrap_or((after, ""));
        let place = places.get(name).ok_or_else(|| ExpectError::Placeholder {
            id: expectation.id.clone(),
            name: name.to_owned(),
            known: places.keys().copied().collect(),
        })?;
        filled.push_str(before);
        filled.push_str(place);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Posture;
    use crate::profile::policy::Network;
    use crate::profile::render::{RenderInput, Renderer, System};

    fn places() -> Places {
        Places::from([
            ("workspace", "/data/native/aaaaaaaaaaa".into()),
            ("sibling", "/data/native/bbbbbbbbbbb".into()),
            ("data_dir", "/data".into()),
            ("config", "/etc/ephemerd/ephemerd.toml".into()),
        ])
    }

    fn rules(posture: Posture, change: impl FnOnce(&mut RenderInput)) -> Rules {
        let mut input = RenderInput {
            job: "aaaaaaaaaaa".parse().unwrap(),
            workspace: "/data/native/aaaaaaaaaaa".into(),
            data_dir: "/data".into(),
            daemon_files: vec!["/etc/ephemerd/ephemerd.toml".into()],
            extra_read: vec![],
            extra_write: vec![],
            homebrew: None,
            runner: None,
            network: Network::None,
            system: System::Linux,
        };
        change(&mut input);
        Renderer::new().unwrap().render(posture, &input).unwrap().rules
    }

    fn unmet(posture: Posture, change: impl FnOnce(&mut RenderInput)) -> Vec<String> {
        let findings = evaluate(&built_in().unwrap(), &rules(posture, change), &places()).unwrap();
        findings
            .into_iter()
            .filter(|f| !f.is_met())
            .map(|f| f.expectation.id)
            .collect()
    }

    #[test]
    fn both_postures_meet_every_expectation() {
        assert_eq!(unmet(Posture::Strict, |_| ()), Vec::<String>::new());
        assert_eq!(unmet(Posture::Standard, |_| ()), Vec::<String>::new());
    }

    #[test]
    fn a_grant_that_opens_a_guarded_path_is_found() {
        assert_eq!(
            unmet(Posture::Strict, |i| i.extra_read.push("/root/.ssh".into())),
            ["root-home-read"]
        );
        assert_eq!(
            unmet(Posture::Standard, |i| i.extra_write.push("/usr/local".into())),
            ["tools-write"]
        );
    }

    #[test]
    fn a_grant_above_the_data_folder_does_not_open_it() {
        assert_eq!(
            unmet(Posture::Strict, |i| i.extra_read.push("/".into())),
            ["root-home-read", "home-read"]
        );
    }

    fn one(keys: &str) -> Result<Vec<Expectation>, ExpectError> {
        parse(&format!(
            "version = 2\n[[expect]]\nid = \"x\"\nverdict = \"deny\"\nwhy = \"\"\n{keys}"
        ))
    }

    #[test]
    fn an_unknown_placeholder_is_an_error() {
        let expectations = one("op = \"file-read\"\ntarget = \"{siblings}/a\"").unwrap();
        let error = evaluate(&expectations, &rules(Posture::Strict, |_| ()), &places()).unwrap_err();
        assert!(matches!(error, ExpectError::Placeholder { name, .. } if name == "siblings"));
    }

    #[test]
    fn a_path_with_braces_is_no_placeholder() {
        let expectations = one("op = \"file-read\"\ntarget = \"{workspace}/{data_dir}\"").unwrap();
        let mut places = places();
        places.insert("workspace", "/w/{config}".into());
        assert_eq!(fill(&expectations[0], &places).unwrap(), "/w/{config}//data");
    }

    #[test]
    fn what_only_one_system_has_is_expected_of_that_system_alone() {
        for keys in [
            "op = \"ptrace\"\ntarget = \"\"",
            "op = \"mach-lookup\"\ntarget = \"x\"\nos = \"linux\"",
            "op = \"syscall\"\ntarget = \"ptrace\"",
        ] {
            assert!(matches!(one(keys), Err(ExpectError::System { .. })), "{keys}");
        }
        let expectations = one("op = \"mach-lookup\"\ntarget = \"x\"\nos = \"macos\"").unwrap();
        let findings = evaluate(&expectations, &rules(Posture::Strict, |_| ()), &places()).unwrap();
        assert_eq!(findings, [], "left out on the other");
    }

    #[test]
    fn refuses_two_expectations_of_one_name() {
        let text =
            "[[expect]]\nid = \"x\"\nop = \"file-read\"\ntarget = \"/a\"\nverdict = \"deny\"\nwhy = \"\"\n";
        let error = parse(&format!("version = 2\n{text}{text}")).unwrap_err();
        assert!(matches!(error, ExpectError::Twice(id) if id == "x"));
    }
}
