//! The Linux half of rendering: TOML.

use std::io::Write;

use serde::Serialize;
use tera::{Context, Tera};

use super::{HomebrewInput, RenderError, RenderInput, Rendered, RunnerInput, parsed};
use crate::profile::policy::{Network, Policy};
use crate::profile::{Posture, Rules};
use camino::Utf8PathBuf;

/// The templates, by the name they include each other with.
const TEMPLATES: [(&str, &str); 10] = [
    ("strict.toml", include_str!("../../../profiles/linux/strict.toml")),
    (
        "standard.toml",
        include_str!("../../../profiles/linux/standard.toml"),
    ),
    (
        "10-devices.toml",
        include_str!("../../../profiles/linux/10-devices.toml"),
    ),
    (
        "20-system.toml",
        include_str!("../../../profiles/linux/20-system.toml"),
    ),
    (
        "30-private.toml",
        include_str!("../../../profiles/linux/30-private.toml"),
    ),
    (
        "60-homebrew.toml",
        include_str!("../../../profiles/linux/60-homebrew.toml"),
    ),
    (
        "70-grants.toml",
        include_str!("../../../profiles/linux/70-grants.toml"),
    ),
    (
        "80-workspace.toml",
        include_str!("../../../profiles/linux/80-workspace.toml"),
    ),
    (
        "85-runner.toml",
        include_str!("../../../profiles/linux/85-runner.toml"),
    ),
    (
        "90-daemon.toml",
        include_str!("../../../profiles/linux/90-daemon.toml"),
    ),
];

/// What the templates are rendered with.
#[derive(Serialize)]
struct Values<'a> {
    workspace: &'a Utf8PathBuf,
    data_dir: &'a Utf8PathBuf,
    daemon_files: &'a [Utf8PathBuf],
    extra_read: Vec<Utf8PathBuf>,
    extra_write: Vec<Utf8PathBuf>,
    homebrew: Option<HomebrewInput>,
    runner: Option<&'a RunnerInput>,
    network: Network,
}

/// The templates, parsed.
pub(super) fn templates() -> Result<Tera, RenderError> {
    parsed(".toml", toml_string, &TEMPLATES)
}

/// Renders `posture` and reads the text back.
pub(super) fn render(tera: &Tera, posture: Posture, input: &RenderInput) -> Result<Rendered, RenderError> {
    let (extra_read, extra_write) = input.grants();
    // One rule per path, here too.
    let mut homebrew = input.homebrew.clone();
    if let Some(homebrew) = &mut homebrew {
        let granted = |path: &Utf8PathBuf| extra_read.contains(path) || extra_write.contains(path);
        homebrew.host = homebrew.host.take().filter(|host| !granted(host));
    }
    let values = Values {
        workspace: &input.workspace,
        data_dir: &input.data_dir,
        daemon_files: &input.daemon_files,
        extra_read,
        extra_write,
        homebrew,
        runner: input.runner.as_ref(),
        network: input.network,
    };
    let template = |source| RenderError::template(posture, source);
    let context = Context::from_serialize(&values).map_err(template)?;
    let text = tera
        .render(&format!("{posture}.toml"), &context)
        .map_err(template)?;
    let policy = Policy::parse(&text).map_err(|source| RenderError::Policy { posture, source })?;
    Ok(Rendered {
        text,
        rules: Rules::Linux(policy),
    })
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
    use crate::profile::policy::{Access, PathRule, PolicyError};
    use crate::profile::render::{Renderer, System};
    use crate::workspace::Place;
    use proptest::prelude::*;

    fn input() -> RenderInput {
        RenderInput {
            job: "01234567890".parse().unwrap(),
            workspace: "/data/native/01234567890".into(),
            data_dir: "/data".into(),
            daemon_files: vec!["/etc/ephemerd".into()],
            extra_read: vec![],
            extra_write: vec![],
            homebrew: None,
            runner: None,
            network: Network::None,
            system: System::Linux,
        }
    }

    fn rendered(posture: Posture, input: &RenderInput) -> Result<(String, Policy), RenderError> {
        let rendered = Renderer::new().unwrap().render(posture, input)?;
        match rendered.rules {
            Rules::Linux(policy) => Ok((rendered.text, policy)),
            Rules::MacOs(_) => panic!("rendered for the other system"),
        }
    }

    #[test]
    fn both_postures_render_to_policies() {
        for posture in [Posture::Strict, Posture::Standard] {
            let (text, policy) = rendered(posture, &input()).unwrap();
            assert_eq!(policy.posture, posture);
            assert_eq!(Policy::parse(&text).unwrap(), policy);
        }
    }

    #[test]
    fn the_rules_of_the_strict_posture_are_these() {
        let (_, policy) = rendered(Posture::Strict, &input()).unwrap();
        insta::assert_snapshot!(listing(&policy));
    }

    #[test]
    fn the_rules_of_the_standard_posture_are_these() {
        let (_, policy) = rendered(Posture::Standard, &input()).unwrap();
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
        let (_, policy) = rendered(Posture::Strict, &input).unwrap();
        let access: Vec<_> = policy
            .paths
            .iter()
            .filter(|r| r.path == "/cache")
            .map(|r| r.access)
            .collect();
        assert_eq!(access, [Access::Write]);
    }

    #[test]
    fn a_job_writes_its_own_homebrew_and_reads_that_of_the_host() {
        let mut input = input();
        let host = Utf8PathBuf::from("/home/linuxbrew/.linuxbrew");
        input.homebrew = Some(HomebrewInput {
            host: Some(host.clone()),
            own: Some(Place {
                shown: "/var/eph/brew".into(),
                real: "/data/native/01234567890/homebrew".into(),
            }),
        });
        for posture in [Posture::Strict, Posture::Standard] {
            let (_, policy) = rendered(posture, &input).unwrap();
            let rule = |path: &str| policy.rule_for(path.into()).unwrap();
            assert_eq!(rule("/home/linuxbrew/.linuxbrew/bin/brew").access, Access::Read);
            let own = rule("/var/eph/brew/Cellar/x");
            assert_eq!(own.access, Access::Write);
            assert_eq!(
                own.source.as_deref(),
                Some("/data/native/01234567890/homebrew".into())
            );
        }
        input.extra_write = vec![host];
        let (_, policy) = rendered(Posture::Strict, &input).unwrap();
        let granted = policy.rule_for("/home/linuxbrew/.linuxbrew/bin".into()).unwrap();
        assert_eq!(
            (granted.access, granted.why.as_str()),
            (Access::Write, "extra_write")
        );
    }

    proptest! {
        #[test]
        fn any_path_comes_back_as_exactly_one_rule_with_exactly_that_path(name in "[^/\\x00-\\x1f\\x7f-\\x9f]{1,40}") {
            prop_assume!(name != "." && name != "..");
            let path = Utf8PathBuf::from(format!("/grant/{name}"));
            let mut input = input();
            input.extra_read = vec![path.clone()];
            let (_, without) = rendered(Posture::Strict, &self::input()).unwrap();
            let (_, with) = rendered(Posture::Strict, &input).unwrap();
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
                rendered(Posture::Strict, &input),
                Err(RenderError::Policy { source: PolicyError::Path { .. }, .. })
            );
            prop_assert!(refused);
        }
    }
}
