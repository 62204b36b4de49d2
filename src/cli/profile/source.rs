//! The profile that `explain` and `diff` look at: a file, or what a job would get.

use std::collections::BTreeMap;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, ValueEnum};

use super::render::TargetOs;
use crate::config::{self, Config};
use crate::host::Os;
use crate::job::Repo;
use crate::job::plan::Planner;
use crate::profile::sbpl::{self, Imports, Release, Settings};
use crate::profile::{Policy, Posture, Rules};

/// Options of everything that looks at profiles.
#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// For this system instead of this host's; for files of macOS the release whose words and answers count.
    #[arg(long)]
    os: Option<TargetOs>,
    /// Where `(import …)` finds other profiles. Can be given several times.
    #[arg(long, value_name = "DIR")]
    import_dir: Vec<Utf8PathBuf>,
    /// Go on without what is imported. The answer then leaves out what that allows or denies.
    #[arg(long, conflicts_with = "import_dir")]
    skip_imports: bool,
    /// What `(param "NAME")` gives in a file, as sandbox-exec has it. Can be given several times.
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = definition)]
    define: Vec<(String, String)>,
}

/// A profile that was read.
pub(super) struct Source {
    /// What it was asked for by.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
    /// What it says.
    pub(super) rules: Rules,
}

fn definition(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl SourceArgs {
    /// The release that files of macOS are read for.
    pub(super) fn release(&self) -> Release {
        match self.os {
            Some(TargetOs::MacOs15) => Release::MacOs15,
            Some(TargetOs::MacOs26 | TargetOs::Linux) | None => Release::NEWEST,
        }
    }

    /// Reads what `wanted` names: a posture, `installed`, a file, or a repository.
    ///
    /// # Errors
    /// It is none of these, or cannot be read or rendered.
    pub(super) fn read(
        &self,
        wanted: &str,
        config: &Config,
        config_file: &Utf8Path,
    ) -> anyhow::Result<Source> {
        if let Ok(posture) = Posture::from_str(wanted, false) {
            return self.rendered(wanted, config.clone(), config_file, Some(posture), None);
        }
        if wanted == "installed" {
            let installed = config::default_path(Os::host());
            let loaded = config::load(installed)
                .with_context(|| format!("could not read the installed configuration `{installed}`"))?;
            return self.rendered(wanted, loaded.config, installed, None, None);
        }
        if Utf8Path::new(wanted).exists() {
            return self.file(wanted);
        }
        match wanted.parse::<Repo>() {
            Ok(repo) => self.rendered(wanted, config.clone(), config_file, None, Some(&repo)),
            Err(_) => anyhow::bail!(
                "`{wanted}` is no profile\nhint: name a file, `strict`, `standard`, `installed` or a repository as OWNER/NAME"
            ),
        }
    }

    fn file(&self, name: &str) -> anyhow::Result<Source> {
        let bytes = sbpl::read_file(name.as_ref()).with_context(|| format!("could not read `{name}`"))?;
        let linux = match self.os {
            Some(os) => os == TargetOs::Linux,
            None => name.ends_with(".toml"),
        };
        let rules = if linux {
            let text = std::str::from_utf8(&bytes).with_context(|| format!("`{name}` is not UTF-8"))?;
            Rules::Linux(Policy::parse(text).with_context(|| format!("`{name}` is no policy"))?)
        } else {
            let settings = Settings {
                release: self.release(),
                params: self.define.iter().cloned().collect::<BTreeMap<_, _>>(),
                imports: if self.skip_imports {
                    Imports::Skipped
                } else {
                    Imports::Folders(self.import_dir.clone())
                },
            };
            Rules::MacOs(Box::new(sbpl::compile(name, &bytes, &settings)?))
        };
        Ok(Source {
            name: name.to_owned(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
            rules,
        })
    }

    fn rendered(
        &self,
        name: &str,
        config: Config,
        config_file: &Utf8Path,
        posture: Option<Posture>,
        repo: Option<&Repo>,
    ) -> anyhow::Result<Source> {
        let platform = self.os.unwrap_or_else(TargetOs::host).platform(&config);
        let repo = repo.and_then(|repo| config.repos.get(repo).cloned());
        let posture = posture
            .or(repo.as_ref().and_then(|repo| repo.posture))
            .unwrap_or(config.native.posture);
        let planner = Planner::new(config, config_file, platform)?;
        let profile = planner.profile(&super::example_job(), 1, posture, repo.as_ref())?;
        Ok(Source {
            name: name.to_owned(),
            text: profile.text,
            rules: profile.rules,
        })
    }
}
