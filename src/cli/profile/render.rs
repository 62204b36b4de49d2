//! `ephemerd profile render`: the profile a job would get, on this system or another one.

use std::fmt;
use std::process::ExitCode;

use camino::Utf8Path;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::Format;
use crate::config::Config;
use crate::host::Os;
use crate::job::Repo;
use crate::job::plan::{MacHost, Planner, Platform};
use crate::profile::Posture;
use crate::profile::sbpl::Release;

/// Arguments of `profile render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// With the grants of this repository.
    #[arg(long, value_name = "OWNER/NAME")]
    repo: Option<Repo>,
    /// For a job in this slot.
    #[arg(long, value_name = "N", default_value_t = 1)]
    slot: u32,
    /// This posture instead of the configured one.
    #[arg(long)]
    posture: Option<Posture>,
    /// For this system instead of this host's. For macOS with usual places where there is no Mac to look at.
    #[arg(long)]
    os: Option<TargetOs>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A system to render for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TargetOs {
    /// Linux.
    Linux,
    /// macOS 15.
    #[value(name = "macos-15")]
    #[serde(rename = "macos-15")]
    MacOs15,
    /// macOS 26.
    #[value(name = "macos-26")]
    #[serde(rename = "macos-26")]
    MacOs26,
}

impl TargetOs {
    /// The system of this host; on macOS its newest release.
    pub fn host() -> Self {
        Self::of(Os::host())
    }

    /// That system; of macOS the newest release.
    pub(super) fn of(os: Os) -> Self {
        match os {
            Os::Linux => Self::Linux,
            Os::MacOs => Self::MacOs26,
        }
    }

    /// Whether a host with that system is one of these.
    pub(super) fn is_on(self, os: Os) -> bool {
        match self {
            Self::Linux => os == Os::Linux,
            Self::MacOs15 | Self::MacOs26 => os == Os::MacOs,
        }
    }

    /// The platform profiles are rendered for, with an example of a Mac where that is what it takes.
    pub fn platform(self, config: &Config) -> Platform {
        let mac = |release| {
            let slots = config.native.slots;
            Platform::MacOs(MacHost::example(release, slots, &config.host.account))
        };
        match self {
            Self::Linux => Platform::Linux,
            Self::MacOs15 => mac(Release::MacOs15),
            Self::MacOs26 => mac(Release::MacOs26),
        }
    }
}

impl fmt::Display for TargetOs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux => "linux",
            Self::MacOs15 => "macos-15",
            Self::MacOs26 => "macos-26",
        })
    }
}

/// The answer as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    os: TargetOs,
    posture: Posture,
    repo: Option<&'a Repo>,
    slot: u32,
    text: &'a str,
}

/// Prints the profile.
///
/// # Errors
/// A grant cannot be used, there is no such slot, or the template does not render.
pub(super) fn run(args: &RenderArgs, config: Config, config_file: &Utf8Path) -> anyhow::Result<ExitCode> {
    let repo = args
        .repo
        .as_ref()
        .and_then(|repo| config.repos.get(repo).cloned());
    let posture = args
        .posture
        .or(repo.as_ref().and_then(|repo| repo.posture))
        .unwrap_or(config.native.posture);
    let slots = config.native.slots;
    anyhow::ensure!(
        (1..=slots).contains(&args.slot),
        "there is no slot {}\nhint: slots are numbered from 1 to `native.slots`, which is {slots}",
        args.slot
    );
    let os = args.os.unwrap_or_else(TargetOs::host);
    let platform = os.platform(&config);
    let planner = Planner::new(config, config_file, platform)?;
    let profile = planner.profile(&super::example_job(), args.slot, posture, repo.as_ref())?;
    match args.format {
        Format::Text => print!("{}", profile.text),
        Format::Json => {
            let answer = Answer {
                os,
                posture,
                repo: args.repo.as_ref(),
                slot: args.slot,
                text: &profile.text,
            };
            println!("{}", serde_json::to_string_pretty(&answer)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
