//! `ephemerd exec`: the whole pipeline for one command, without a daemon.

use std::process::ExitCode;
use std::time::SystemTime;

use camino::Utf8PathBuf;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::origin::OriginArgs;
use super::table::table;
use crate::config::Loaded;
use crate::daemon::start::{Claim, StartError, Started, start};
use crate::host::{Host, Os};
use crate::job::ledger::Entry;
use crate::job::output::Stream;
use crate::job::{JobSpec, Outcome, Repo};
use crate::profile::Posture;
use crate::profile::denials::exit_hint;
use crate::sandbox::axes::{AxisReport, Standing};
use crate::trust::{self, Route};

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Decide by trust as for a job of this repository, with its grants; without it the command is trusted,
    /// because whoever may run this may run anything.
    #[arg(long, value_name = "OWNER/NAME")]
    repo: Option<Repo>,
    #[command(flatten)]
    origin: OriginArgs,
    /// Use this posture instead of the configured one.
    #[arg(long)]
    posture: Option<Posture>,
    /// Keep the workspace for a look instead of removing it.
    #[arg(long)]
    keep: bool,
    /// Print what protects the command, and what does not, to standard error first.
    #[arg(long)]
    report: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs one command in a fenced slot; ends with its exit code.
///
/// # Errors
/// Something of ours failed before the command started.
pub fn run(
    args: &ExecArgs,
    host: &Host,
    mut loaded: Loaded,
    config_file: Utf8PathBuf,
) -> anyhow::Result<ExitCode> {
    if let Some(posture) = args.posture {
        loaded.config.native.posture = posture;
        for repo in loaded.config.repos.values_mut() {
            repo.posture = None;
        }
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run_one(args, host, loaded, config_file))
}

async fn run_one(
    args: &ExecArgs,
    host: &Host,
    loaded: Loaded,
    config_file: Utf8PathBuf,
) -> anyhow::Result<ExitCode> {
    let spec = JobSpec {
        origin: args
            .origin
            .origin(&args.repo.clone().map_or_else(|| "local/exec".parse(), Ok)?),
        command: args.command.clone(),
        env: std::collections::BTreeMap::new(),
        timeout_s: None,
    };
    let reason = match &args.repo {
        None => "named on the command line by the host's owner".to_owned(),
        Some(_) => {
            let decision = trust::decide(&loaded.config.trust, loaded.config.has_vm_backend(), &spec.origin);
            if decision.route != Route::Native {
                anyhow::bail!(
                    "{} does not run on this host: {}\nhint: `ephemerd route` explains",
                    spec.origin.repo,
                    decision.reason
                );
            }
            decision.reason
        }
    };
    let started = start(
        host,
        loaded.config,
        config_file,
        (&super::own_program()?, Claim::OneSlot),
    )
    .await;
    if let (true, Err(StartError::Axes { reports, .. })) = (args.report, &started) {
        eprint!("{}", report(reports));
    }
    let Started {
        mut pipeline,
        room: _,
        taken_up: _,
        only_guests: _,
        slots,
        recovered,
        notes,
        manifests: _,
        locks: _locks,
    } = started?;
    if args.report {
        eprint!("{}", report(&pipeline.axes));
    }
    for what in recovered {
        eprintln!("recovered {what}");
    }
    for note in notes {
        eprintln!("ephemerd: {note}");
    }
    pipeline.keep = args.keep;
    let slot = slots.first().ok_or_else(|| anyhow::anyhow!("there is no slot"))?;
    let now = SystemTime::now();
    let id = pipeline.ledger.fresh_id(now)?;
    pipeline.ledger.record(
        Entry {
            id: &id,
            spec: &spec,
            route: Route::Native,
            reason: &reason,
            ticket: None,
        },
        now,
    )?;
    let cancel = CancellationToken::new();
    // Before anything is acquired: a signal that nobody waits for yet would end us half done.
    let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(cancel_on_signal(interrupt, terminate, cancel.clone()));
    let ended = pipeline
        .run_alone((&id, &spec), slot, Stream::Own, &cancel)
        .await?;
    match &ended.outcome {
        Outcome::Refused { reason } | Outcome::Failed { reason } => anyhow::bail!("{reason}"),
        Outcome::TimedOut { .. } | Outcome::OverLimit { .. } => eprintln!("ephemerd: {}", ended.outcome),
        Outcome::Exited { .. }
        | Outcome::Signalled { .. }
        | Outcome::Cancelled
        | Outcome::Ran { .. }
        | Outcome::Idle
        | Outcome::Outdated => {}
    }
    if let Some(egress) = &ended.egress {
        if egress.blocked.packets > 0 {
            eprintln!("ephemerd: blocked {}", egress.blocked);
        }
        for incident in &egress.incidents {
            eprintln!("ephemerd: {incident}");
        }
    }
    if let Some(hint) = exit_hint(Os::host(), &id, &ended.outcome) {
        eprintln!("ephemerd: {hint}");
    }
    if args.keep {
        eprintln!(
            "ephemerd: workspace kept at {}/kept/{id}",
            pipeline.planner().data_dir()
        );
    }
    if !ended.leftovers.is_empty() {
        eprintln!(
            "ephemerd: slot {} is in quarantine: {}",
            slot.index,
            ended.leftovers.join(", ")
        );
    }
    Ok(ExitCode::from(ended.outcome.exit_code()))
}

async fn cancel_on_signal(mut interrupt: Signal, mut terminate: Signal, cancel: CancellationToken) {
    tokio::select! {
        _ = interrupt.recv() => cancel.cancel(),
        _ = terminate.recv() => cancel.cancel(),
    }
}

/// The axes as a table.
pub(super) fn report(axes: &[AxisReport]) -> String {
    let row = |report: &AxisReport| {
        let standing = match report.standing {
            Standing::Enforced => "enforced",
            Standing::Degraded => "DEGRADED",
            Standing::Absent => "ABSENT",
        };
        [report.axis.to_string(), standing.to_owned(), report.why.clone()]
    };
    table(
        ["AXIS", "STANDING", "WHY"],
        &axes.iter().map(row).collect::<Vec<_>>(),
    )
}
