//! Expectations: what any profile must guarantee, as data with a reason each.
//!
//! They are checked by evaluation on every rendered policy before a job starts, on any host, and again by
//! live probes inside the real sandbox (`profile verify`).

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::decide::{Operation, Ruling, Verdict, decide};
use super::policy::Policy;

/// The version of `expectations.toml` this program reads.
const VERSION: u32 = 1;

/// Why the expectations could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ExpectError {
    /// Not TOML, an unknown key or a wrong type.
    #[error("could not read the expectations")]
    Text(#[source] Box<toml::de::Error>),
    /// Another version.
    #[error("expectations version {0} is not {VERSION}")]
    Version(u32),
    /// A placeholder nobody fills.
    #[error(
        "expectation `{id}` names the unknown placeholder `{name}`\nhint: known are workspace, sibling, data_dir and config"
    )]
    Placeholder {
        /// The expectation.
        id: String,
        /// The placeholder.
        name: String,
    },
}

/// One thing a profile must guarantee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expectation {
    /// A stable name.
    pub id: String,
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

/// What the placeholders stand for in one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The job's own folder.
    pub workspace: Utf8PathBuf,
    /// A folder another job could have.
    pub sibling: Utf8PathBuf,
    /// Where daemon state lives.
    pub data_dir: Utf8PathBuf,
    /// The configuration file.
    pub config: Utf8PathBuf,
}

/// One expectation beside what the policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was expected.
    pub expectation: Expectation,
    /// The target with placeholders filled.
    pub target: String,
    /// What the policy says.
    pub ruling: Ruling,
}

impl Finding {
    /// Whether the policy guarantees what was expected.
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
    Ok(file.expect)
}

/// Evaluates every expectation on `policy`.
///
/// # Errors
/// A placeholder is unknown.
pub fn evaluate(
    expectations: &[Expectation],
    policy: &Policy,
    places: &Places,
) -> Result<Vec<Finding>, ExpectError> {
    expectations
        .iter()
        .map(|expectation| {
            let target = fill(expectation, places)?;
            let ruling = decide(policy, expectation.op, &target);
            Ok(Finding {
                expectation: expectation.clone(),
                target,
                ruling,
            })
        })
        .collect()
}

fn fill(expectation: &Expectation, places: &Places) -> Result<String, ExpectError> {
    let Places {
        workspace,
        sibling,
        data_dir,
        config,
    } = places;
    let filled = [
        ("workspace", workspace),
        ("sibling", sibling),
        ("data_dir", data_dir),
        ("config", config),
    ]
    .into_iter()
    .fold(expectation.target.clone(), |text, (name, path)| {
        text.replace(&format!("{{{name}}}"), path.as_str())
    });
    // A path may hold braces of its own, so look for placeholders in the expectation's text.
    let unknown = expectation
        .target
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name);
    match unknown
        .into_iter()
        .find(|name| !["workspace", "sibling", "data_dir", "config"].contains(name))
    {
        Some(name) => Err(ExpectError::Placeholder {
            id: expectation.id.clone(),
            name: name.to_owned(),
        }),
        None => Ok(filled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Posture;
    use crate::profile::policy::Network;
    use crate::profile::render::{RenderInput, Renderer};

    fn places() -> Places {
        Places {
            workspace: "/data/native/aaaaaaaaaaa".into(),
            sibling: "/data/native/bbbbbbbbbbb".into(),
            data_dir: "/data".into(),
            config: "/etc/ephemerd/ephemerd.toml".into(),
        }
    }

    fn unmet(posture: Posture, change: impl FnOnce(&mut RenderInput)) -> Vec<String> {
        let mut input = RenderInput {
            workspace: places().workspace,
            data_dir: places().data_dir,
            daemon_files: vec![places().config],
            extra_read: vec![],
            extra_write: vec![],
            network: Network::None,
        };
        change(&mut input);
        let (_, policy) = Renderer::new().unwrap().render(posture, &input).unwrap();
        let findings = evaluate(&built_in().unwrap(), &policy, &places()).unwrap();
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

    #[test]
    fn an_unknown_placeholder_is_an_error() {
        let text = "version = 1\n[[expect]]\nid=\"x\"\nop=\"file-read\"\ntarget=\"{siblings}/a\"\nverdict=\"deny\"\nwhy=\"\"";
        let (_, policy) = Renderer::new()
            .unwrap()
            .render(
                Posture::Strict,
                &RenderInput {
                    workspace: "/w".into(),
                    data_dir: "/d".into(),
                    daemon_files: vec![],
                    extra_read: vec![],
                    extra_write: vec![],
                    network: Network::None,
                },
            )
            .unwrap();
        let error = evaluate(&parse(text).unwrap(), &policy, &places()).unwrap_err();
        assert!(matches!(error, ExpectError::Placeholder { name, .. } if name == "siblings"));
    }
}
