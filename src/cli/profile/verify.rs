//! `ephemerd profile verify`: what profiles must guarantee, by evaluation and by attempts inside the real sandbox.

use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use camino::Utf8Path;
use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::render::TargetOs;
use crate::cli::table::table;
use crate::cli::{Format, own_program};
use crate::config::{Config, EgressMode};
use crate::daemon::start::{Claim, Started, start};
use crate::host::{Host, Os};
use crate::job::aside::{self, Aside};
use crate::job::plan::Planner;
use crate::job::run::Pipeline;
use crate::job::{JobId, Origin, Repo};
use crate::probe::{Report, Stage, seatbelt};
use crate::profile::expect::Finding;
use crate::profile::policy::Access;
use crate::profile::{Posture, Rules};
use crate::slot::Slot;
use crate::workspace::Workspace;

/// Processes a probed job may have: enough to see that the limit holds, few enough to reach it quickly.
const PROBE_PROCESSES: u64 = 256;

/// Arguments of `profile verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// This posture only, instead of both.
    #[arg(long)]
    posture: Option<Posture>,
    /// Only evaluate; works on any host.
    #[arg(long)]
    pub(super) no_probes: bool,
    /// For this system instead of this host's; of another one profiles are only evaluated.
    #[arg(long)]
    os: Option<TargetOs>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What was verified of one posture.
#[derive(Debug, Serialize)]
struct Verified {
    os: TargetOs,
    posture: Posture,
    expectations: Vec<Finding>,
    probes: Option<Vec<Report>>,
}

impl Verified {
    fn is_fine(&self) -> bool {
        self.expectations.iter().all(Finding::is_met) && self.probes.iter().flatten().all(Report::is_fine)
    }
}

/// Verifies the postures asked for and prints what was found.
///
/// # Errors
/// A profile cannot be made, or the probes cannot be run.
pub(super) fn run(
    args: &VerifyArgs,
    host: &Host,
    config: &Config,
    config_file: &Utf8Path,
) -> anyhow::Result<ExitCode> {
    let os = args.os.unwrap_or_else(|| TargetOs::of(host.os));
    let probes = !args.no_probes && os.is_on(host.os);
    let postures = args.posture.map_or_else(
        || vec![Posture::Strict, Posture::Standard],
        |posture| vec![posture],
    );
    let verified = postures
        .into_iter()
        .map(|posture| verify(host, (os, posture), probes, config, config_file))
        .collect::<anyhow::Result<Vec<_>>>()?;
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&verified)?),
        Format::Text => verified
            .iter()
            .for_each(|verified| print!("{}", as_text(verified))),
    }
    Ok(ExitCode::from(u8::from(!verified.iter().all(Verified::is_fine))))
}

fn verify(
    host: &Host,
    (os, posture): (TargetOs, Posture),
    probes: bool,
    config: &Config,
    config_file: &Utf8Path,
) -> anyhow::Result<Verified> {
    let platform = os.platform(config);
    let planner = Planner::new(config.clone(), config_file, platform)?;
    let expectations = planner.profile(&super::example_job(), 1, posture, None)?.findings;
    let probes = probes
        .then(|| probe_live(host, posture, config.clone(), config_file))
        .transpose()?;
    Ok(Verified {
        os,
        posture,
        expectations,
        probes,
    })
}

/// Runs every probe inside a real job, against a staged sibling.
fn probe_live(
    host: &Host,
    posture: Posture,
    mut config: Config,
    config_file: &Utf8Path,
) -> anyhow::Result<Vec<Report>> {
    let program = own_program()?;
    config.native.posture = posture;
    config.native.limits.processes = config.native.limits.processes.min(PROBE_PROCESSES);
    // The probes are this program, which the job must be able to see.
    config.native.extra_read.push(program.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let claim = (program.as_path(), Claim::OneSlot);
        let started = start(host, config, config_file.to_owned(), claim).await?;
        let Started { pipeline, slots, .. } = &started;
        let slot = slots.first().ok_or_else(|| anyhow::anyhow!("there is no slot"))?;
        match host.os {
            Os::Linux => probe_linux(pipeline, slot, &program).await,
            Os::MacOs => probe_mac(pipeline, slot, &program).await,
        }
    })
}

async fn probe_linux(pipeline: &Pipeline, slot: &Slot, program: &Utf8Path) -> anyhow::Result<Vec<Report>> {
    let planner = &pipeline.planner();
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
    if planner.config().egress.mode != EgressMode::Offline {
        target.loopback_port = None;
    }
    let command = vec![
        program.to_string(),
        "__probe".into(),
        "--target".into(),
        serde_json::to_string(target)?,
    ];
    let mut reports = run_job(pipeline, slot, &id, command).await?;
    stage.settle(&mut reports);
    Ok(reports)
}

async fn probe_mac(pipeline: &Pipeline, slot: &Slot, program: &Utf8Path) -> anyhow::Result<Vec<Report>> {
    let planner = &pipeline.planner();
    let mut stage = seatbelt::Stage::set(planner.data_dir())?;
    let id = pipeline.ledger.fresh_id(SystemTime::now())?;
    let outside = stage.outside_mut();
    outside.workspace = Workspace::new(planner.data_dir(), &id).root();
    outside
        .state_files
        .push(planner.data_dir().join("state/ledger.db"));
    let socket = &planner.config().control.socket;
    outside.control_socket = socket.exists().then(|| socket.clone());
    outside.online = planner.config().egress.mode != EgressMode::Offline;
    outside.own_port = slot.first_port;
    let command = vec![
        program.to_string(),
        "__probe".into(),
        "--outside".into(),
        serde_json::to_string(outside)?,
    ];
    run_job(pipeline, slot, &id, command).await
}

/// Runs the probes as a job like any other; what they reported.
async fn run_job(
    pipeline: &Pipeline,
    slot: &Slot,
    id: &JobId,
    command: Vec<String>,
) -> anyhow::Result<Vec<Report>> {
    let repo: Repo = "local/verify".parse()?;
    let aside = Aside {
        origin: Origin::own(&repo),
        command,
        reason: "profile verify",
        alone: true,
        cancel: CancellationToken::new(),
    };
    let output = aside::run(pipeline, slot, id.clone(), aside).await;
    let output = output.context("the probes did not run to their end")?;
    Ok(serde_json::from_str(&output)?)
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
        text += &reports.len().to_string();
        text += " probes as they must be\n";
    }
    text + "\n"
}
