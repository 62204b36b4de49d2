//! `ephemerd profile`: renders the profile a job gets, and verifies that profiles hold.

pub mod diff;
pub mod explain;
pub mod render;
mod source;

use std::process::ExitCode;
use std::time::SystemTime;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Format;
use super::table::table;
use crate::config::{Config, EgressMode, Loaded};
use crate::daemon::start::{Claim, Started, start};
use crate::host::Host;
use crate::job::ledger::Entry;
use crate::job::output::Stream;
use crate::job::plan::Planner;
use crate::job::run::Pipeline;
use crate::job::{JobId, JobSpec, Repo};
use crate::probe::{self, Report, Stage};
use crate::profile::expect::Finding;
use crate::profile::policy::Access;
use crate::profile::{Posture, Rules};
use crate::slot::Slot;
use crate::trust::Route;
use crate::workspace::Workspace;

/// Processes a probed job may have: enough to see that the limit holds, few enough to reach it quickly.
const PROBE_PROCESSES: u64 = 256;

/// Arguments of `profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    #[command(subcommand)]
    pub(super) command: ProfileCommand,
}

impl ProfileArgs {
    /// Whether nothing is started that has to be ended.
    pub(super) fn only_answers(&self) -> bool {
        match &self.command {
            ProfileCommand::Render(_)
            | ProfileCommand::Explain(_)
            | ProfileCommand::Diff(_)
            | ProfileCommand::Lint(_) => true,
            ProfileCommand::Verify { no_probes, .. } => *no_probes,
            ProfileCommand::Denials(_) | ProfileCommand::ProbeSemantics(_) => false,
        }
    }

    /// Whether the exit code 1 is an answer, so that errors need another one.
    pub(super) fn compares(&self) -> bool {
        matches!(
            self.command,
            ProfileCommand::Explain(_) | ProfileCommand::Diff(_) | ProfileCommand::Lint(_)
        )
    }
}

/// What to do with profiles.
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// Print the profile a job would get. Works on any host, without accounts or root.
    Render(render::RenderArgs),
    /// Say what a profile answers for one operation on one target, and by which rule. Ends with 0 when it is
    /// allowed, with 1 when it is denied. Works on any host.
    Explain(explain::ExplainArgs),
    /// Compare two profiles by effect: for every difference a target, and the rule of each that decides about it.
    /// Ends with 0 when they do the same, with 1 when they do not. Works on any host.
    Diff(diff::DiffArgs),
    /// Check that profiles guarantee what they must: by evaluation, and by attempts inside the real sandbox of
    /// this host. Ends with 1 when anything is not as it must be.
    Verify {
        /// This posture only, instead of both.
        #[arg(long)]
        posture: Option<Posture>,
        /// Only evaluate; works on any host.
        #[arg(long)]
        no_probes: bool,
        /// For this system instead of this host's; of another one profiles are only evaluated.
        #[arg(long)]
        os: Option<render::TargetOs>,
        /// How to answer.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Tell what sandbox profiles of macOS say and do not mean. Works on any host. Ends with 1 when anything is
    /// found, and with 2 when a file is no profile.
    Lint(super::lint::LintArgs),
    /// List what the sandbox of macOS kept jobs from, and what would allow it. Reads the unified log of this host.
    Denials(super::denials::DenialsArgs),
    /// Ask the sandbox of this Mac how it decides where sources disagree, and compare the answers with what `explain`
    /// and `verify` go by.
    ProbeSemantics(super::semantics::SemanticsArgs),
}

/// What was verified of one posture.
#[derive(Debug, Serialize)]
struct Verified {
    os: render::TargetOs,
    posture: Posture,
    expectations: Vec<Finding>,
    probes: Option<Vec<Report>>,
}

impl Verified {
    fn is_fine(&self) -> bool {
        self.expectations.iter().all(Finding::is_met) && self.probes.iter().flatten().all(Report::is_fine)
    }
}

/// Renders or verifies.
///
/// # Errors
/// A profile cannot be made, or the probes cannot be run.
pub fn run(args: &ProfileArgs, loaded: Loaded, config_file: Utf8PathBuf) -> anyhow::Result<ExitCode> {
    match &args.command {
        ProfileCommand::ProbeSemantics(args) => {
            super::semantics::run(args, &crate::host::Host::system(), &mut std::io::stdout())
        }
        ProfileCommand::Lint(args) => super::lint::run(args),
        ProfileCommand::Denials(args) => {
            let host = crate::host::Host::system();
            super::denials::run(args, &loaded.config, config_file, &host, &mut std::io::stdout())
        }
        ProfileCommand::Render(args) => render::run(args, loaded.config, &config_file),
        ProfileCommand::Explain(args) => explain::run(args, &loaded.config, &config_file),
        ProfileCommand::Diff(args) => diff::run(args, &loaded.config, &config_file),
        ProfileCommand::Verify {
            posture,
            no_probes,
            os,
            format,
        } => {
            let os = os.unwrap_or_else(render::TargetOs::host);
            let probes = !no_probes && os.is_host();
            let postures = posture.map_or_else(
                || vec![Posture::Strict, Posture::Standard],
                |posture| vec![posture],
            );
            let verified = postures
                .into_iter()
                .map(|posture| verify((os, posture), probes, &loaded.config, &config_file))
                .collect::<anyhow::Result<Vec<_>>>()?;
            match format {
                Format::Json => println!("{}", serde_json::to_string_pretty(&verified)?),
                Format::Text => verified
                    .iter()
                    .for_each(|verified| print!("{}", as_text(verified))),
            }
            Ok(ExitCode::from(u8::from(!verified.iter().all(Verified::is_fine))))
        }
    }
}

/// The id rendered where there is no job.
fn example_job() -> JobId {
    JobId::new(SystemTime::UNIX_EPOCH, 0)
}

fn verify(
    (os, posture): (render::TargetOs, Posture),
    probes: bool,
    config: &Config,
    config_file: &Utf8Path,
) -> anyhow::Result<Verified> {
    let platform = os.platform(config);
    let planner = Planner::new(config.clone(), config_file, platform)?;
    let expectations = planner.profile(&example_job(), 1, posture, None)?.findings;
    let probes = probes
        .then(|| probe_live(posture, config.clone(), config_file))
        .transpose()?;
    Ok(Verified {
        os,
        posture,
        expectations,
        probes,
    })
}

/// Runs every probe inside a real job, against a staged sibling.
fn probe_live(posture: Posture, mut config: Config, config_file: &Utf8Path) -> anyhow::Result<Vec<Report>> {
    let program = super::own_program()?;
    config.native.posture = posture;
    config.native.limits.processes = config.native.limits.processes.min(PROBE_PROCESSES);
    // The probes are this program, which the job must be able to see.
    config.native.extra_read.push(program.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let claim = (program.as_path(), Claim::OneSlot);
        let started = start(&Host::system(), config, config_file.to_owned(), claim).await?;
        let Started { pipeline, slots, .. } = &started;
        let slot = slots.first().ok_or_else(|| anyhow::anyhow!("there is no slot"))?;
        probe_in(pipeline, slot, &program).await
    })
}

async fn probe_in(pipeline: &Pipeline, slot: &Slot, program: &Utf8Path) -> anyhow::Result<Vec<Report>> {
    let planner = &pipeline.planner;
    let mut stage = Stage::set(planner.data_dir(), program)?;
    let now = SystemTime::now();
    let id = pipeline.ledger.fresh_id(now)?;
    let target = stage.target_mut();
    target.workspace = Workspace::new(planner.data_dir(), &id).root();
    target
        .state_files
        .push(planner.data_dir().join("state/ledger.db"));
    target.own_port = Some(slot.first_port);
    let profile = planner.profile(&id, slot.index, planner.config().native.posture, None)?;
    if let Rules::Linux(policy) = profile.rules {
        let shown = policy.paths.into_iter();
        let shown = shown.filter(|rule| matches!(rule.access, Access::Read | Access::Write));
        target.shown = shown.map(|rule| rule.path).collect();
    }
    target.process_limit = planner.config().native.limits.processes;
    if planner.config().egress.mode == EgressMode::Open {
        target.loopback_port = None;
    }
    let repo: Repo = "local/verify".parse()?;
    let spec = JobSpec {
        origin: super::origin::own(&repo),
        command: vec![
            program.to_string(),
            "__probe".into(),
            "--target".into(),
            serde_json::to_string(target)?,
        ],
        env: std::collections::BTreeMap::new(),
        timeout_s: None,
    };
    pipeline.ledger.record(
        Entry {
            id: &id,
            spec: &spec,
            route: Route::Native,
            reason: "profile verify",
        },
        now,
    )?;
    let log = planner.data_dir().join("logs").join(format!("{id}.log"));
    let stream = Stream::Log {
        file: log.clone(),
        limit_byte: planner.config().native.limits.output_byte,
    };
    let ended = pipeline
        .run((&id, &spec), slot, stream, &CancellationToken::new())
        .await?;
    let output = std::fs::read_to_string(&log)?;
    std::fs::remove_file(&log)?;
    if !ended.outcome.is_success() || !ended.leftovers.is_empty() {
        anyhow::bail!(
            "the probes did not run to their end: {}, left {:?}\n{output}",
            ended.outcome,
            ended.leftovers
        );
    }
    let mut reports: Vec<Report> = serde_json::from_str(&output)?;
    stage.settle(&mut reports);
    Ok(reports)
}

fn as_text(verified: &Verified) -> String {
    let Verified {
        os,
        posture,
        expectations,
        probes,
    } = verified;
    let findings: Vec<[String; 5]> = expectations
        .iter()
        .map(|finding| {
            let met = if finding.is_met() { "met" } else { "NOT MET" };
            [
                finding.expectation.id.clone(),
                met.into(),
                format!("{} {}", finding.expectation.op, finding.target),
                finding.ruling.verdict.to_string(),
                finding.ruling.rule.clone(),
            ]
        })
        .collect();
    let mut text = format!("posture {posture} on {os}\n\n");
    text += &table(["EXPECTATION", "STANDING", "WHAT", "VERDICT", "RULE"], &findings);
    if let Some(reports) = probes {
        let rows: Vec<[String; 4]> = reports
            .iter()
            .map(|report| {
                [
                    report.name.clone(),
                    report.axis.to_string(),
                    report.verdict.to_string(),
                    report.attempt.to_string(),
                ]
            })
            .collect();
        text += "\n";
        text += &table(["PROBE", "AXIS", "VERDICT", "WHAT HAPPENED"], &rows);
        let fine = reports.iter().filter(|report| report.is_fine()).count();
        text += &fine.to_string();
        text += " of ";
        text += &probe::table().len().to_string();
        text += " probes as they must be\n";
    }
    text + "\n"
}
