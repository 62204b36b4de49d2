//! Rendering: one template, one job, one text.
//!
//! The templates are compiled in from `profiles/`. Every value is escaped by the engine itself as it is put
//! into a string, so a template cannot forget to; a value that is missing is an error.

use std::io::Write;

use camino::Utf8PathBuf;
use serde::Serialize;
use tera::{Context, Tera};

use super::Posture;
use super::policy::{Network, Policy, PolicyError};

/// The templates, by the name they include each other with.
const TEMPLATES: [(&str, &str); 8] = [
    ("strict.toml", include_str!("../../profiles/linux/strict.toml")),
    (
        "standard.toml",
        include_str!("../../profiles/linux/standard.toml"),
    ),
    (
        "10-devices.toml",
        include_str!("../../profiles/linux/10-devices.toml"),
    ),
    (
        "20-system.toml",
        include_str!("../../profiles/linux/20-system.toml"),
    ),
    (
        "30-private.toml",
        include_str!("../../profiles/linux/30-private.toml"),
    ),
    (
        "70-grants.toml",
        include_str!("../../profiles/linux/70-grants.toml"),
    ),
    (
        "80-workspace.toml",
        include_str!("../../profiles/linux/80-workspace.toml"),
    ),
    (
        "90-daemon.toml",
        include_str!("../../profiles/linux/90-daemon.toml"),
    ),
];

/// Why no policy came of a template.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The template does not render; the source names the line.
    #[error("could not render profile `{posture}`")]
    Template {
        /// Which template.
        posture: Posture,
        /// What is wrong.
        #[source]
        source: Box<tera::Error>,
    },
    /// It renders to something that is not a policy.
    #[error("profile `{posture}` does not render to a policy")]
    Policy {
        /// Which template.
        posture: Posture,
        /// What is wrong.
        #[source]
        source: PolicyError,
    },
}

/// What a template is rendered with. All paths are absolute and resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RenderInput {
    /// The job's folder, with `home`, `tmp` and `work` in it.
    pub workspace: Utf8PathBuf,
    /// Where daemon state lives.
    pub data_dir: Utf8PathBuf,
    /// Files and folders of the daemon outside `data_dir`, its configuration above all.
    pub daemon_files: Vec<Utf8PathBuf>,
    /// Named grants to read.
    pub extra_read: Vec<Utf8PathBuf>,
    /// Named grants to write.
    pub extra_write: Vec<Utf8PathBuf>,
    /// What the job reaches.
    pub network: Network,
}

/// A set of templates, parsed once and rendered per job.
#[derive(Debug)]
pub struct Renderer {
    tera: Tera,
}

impl Renderer {
    /// Parses the built-in templates.
    ///
    /// # Errors
    /// A template does not parse, which the tests of this module rule out for the built-in ones.
    pub fn new() -> Result<Self, RenderError> {
        let mut tera = Tera::new();
        tera.autoescape_on(vec![".toml"]);
        tera.set_escape_fn(toml_string);
        tera.add_raw_templates(TEMPLATES)
            .map_err(|source| RenderError::Template {
                posture: Posture::Strict,
                source: Box::new(source),
            })?;
        Ok(Self { tera })
    }

    /// Renders `posture` for one job and reads the text back: the text for people and files, the policy for
    /// the sandbox.
    ///
    /// # Errors
    /// See [`RenderError`].
    pub fn render(&self, posture: Posture, input: &RenderInput) -> Result<(String, Policy), RenderError> {
        let template = |source| RenderError::Template {
            posture,
            source: Box::new(source),
        };
        let mut input = input.clone();
        // One rule per path: what the configuration grants twice is granted once, the wider grant winning.
        input.extra_write.sort();
        input.extra_write.dedup();
        input.extra_read.sort();
        input.extra_read.dedup();
        input.extra_read.retain(|path| !input.extra_write.contains(path));
        let context = Context::from_serialize(&input).map_err(template)?;
        let text = self
            .tera
            .render(&format!("{posture}.toml"), &context)
            .map_err(template)?;
        let policy = Policy::parse(&text).map_err(|source| RenderError::Policy { posture, source })?;
        Ok((text, policy))
    }
}

/// Escapes a value for the inside of a TOML basic string (TOML 1.0, "String").
fn toml_string(value: &str, out: &mut dyn Write) -> std::io::Result<()> {
    for c in value.chars() {
        match c {
            '"' => out.write_all(b"\\\"")?,
            '\\' => out.write_all(b"\\\\")?,
            c if c.is_control() => write!(out, "\\u{:04X}", u32::from(c))?,
            c => write!(out, "{c}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::policy::{Access, PathRule};
    use proptest::prelude::*;

    fn input() -> RenderInput {
        RenderInput {
            workspace: "/data/native/01234567890".into(),
            data_dir: "/data".into(),
            daemon_files: vec!["/etc/ephemerd".into()],
            extra_read: vec![],
            extra_write: vec![],
            network: Network::None,
        }
    }

    #[test]
    fn both_postures_render_to_policies() {
        let renderer = Renderer::new().unwrap();
        for posture in [Posture::Strict, Posture::Standard] {
            let (text, policy) = renderer.render(posture, &input()).unwrap();
            assert_eq!(policy.posture, posture);
            assert_eq!(Policy::parse(&text).unwrap(), policy);
        }
    }

    #[test]
    fn the_rules_of_the_strict_posture_are_these() {
        let (_, policy) = Renderer::new()
            .unwrap()
            .render(Posture::Strict, &input())
            .unwrap();
        insta::assert_snapshot!(listing(&policy));
    }

    #[test]
    fn the_rules_of_the_standard_posture_are_these() {
        let (_, policy) = Renderer::new()
            .unwrap()
            .render(Posture::Standard, &input())
            .unwrap();
        insta::assert_snapshot!(listing(&policy));
    }

    fn listing(policy: &Policy) -> String {
        let line = |rule: &PathRule| format!("{:?} {} — {}", rule.access, rule.path, rule.why);
        let groups = format!(
            "view {:?}, network {:?}, denied {:?}",
            policy.view, policy.network, policy.deny_syscalls
        );
        std::iter::once(groups)
            .chain(policy.paths.iter().map(line))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn a_path_granted_twice_has_one_rule_and_the_wider_access() {
        let mut input = input();
        input.extra_read = vec!["/cache".into(), "/cache".into()];
        input.extra_write = vec!["/cache".into()];
        let (_, policy) = Renderer::new().unwrap().render(Posture::Strict, &input).unwrap();
        let access: Vec<_> = policy
            .paths
            .iter()
            .filter(|r| r.path == "/cache")
            .map(|r| r.access)
            .collect();
        assert_eq!(access, [Access::Write]);
    }

    proptest! {
        #[test]
        fn any_path_comes_back_as_exactly_one_rule_with_exactly_that_path(name in "[^/\\x00-\\x1f\\x7f-\\x9f]{1,40}") {
            prop_assume!(name != "." && name != "..");
            let path = Utf8PathBuf::from(format!("/grant/{name}"));
            let mut input = input();
            input.extra_read = vec![path.clone()];
            let renderer = Renderer::new().unwrap();
            let (_, without) = renderer.render(Posture::Strict, &self::input()).unwrap();
            let (_, with) = renderer.render(Posture::Strict, &input).unwrap();
            let added: Vec<&PathRule> = with.paths.iter().filter(|rule| !without.paths.contains(rule)).collect();
            prop_assert_eq!(added.len(), 1);
            prop_assert_eq!(&added[0].path, &path);
            prop_assert_eq!(added[0].access, Access::Read);
        }

        #[test]
        fn a_path_with_control_characters_is_refused_and_never_rendered_as_another(c in "[\\x00-\\x1f\\x7f]") {
            let mut input = input();
            input.extra_read = vec![Utf8PathBuf::from(format!("/grant/a{c}b"))];
            let refused = matches!(
                Renderer::new().unwrap().render(Posture::Strict, &input),
                Err(RenderError::Policy { source: PolicyError::Path { .. }, .. })
            );
            prop_assert!(refused);
        }
    }
}
