//! `--plan`, `--apply` and `revert`: what would be done, doing it, and taking it back.

use std::process::ExitCode;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use serde::Serialize;

use super::check::look_at;
use super::{CheckArgs, ReportFormat, format};
use crate::config::{Config, Loaded};
use crate::daemon::check::Looked;
use crate::host::provision::perform::{before, perform, revert};
use crate::host::provision::receipts::{Receipts, ReceiptsError};
use crate::host::{Host, accounts};
use crate::job::Repo;
use crate::provision::receipt::{Event, State, Undo, undo};
use crate::provision::report::{Plan, Planned, Report, plan};
use crate::provision::step::Action;
use crate::workspace;

/// How often the host is looked at again for steps that only became possible: what one installs another needs.
const ROUNDS: usize = 3;

/// Said where there is nothing to take back.
const NOTHING_DONE: &str = "nothing was done here that could be taken back";

/// Version of the JSON answers.
const VERSION: u32 = 1;

/// Where a host and its manifest are found.
pub(super) struct Subject<'a> {
    pub(super) host: &'a Host,
    pub(super) config: &'a Config,
    pub(super) config_file: &'a Utf8Path,
    pub(super) manifest: String,
    pub(super) repo: Option<&'a Repo>,
}

impl Subject<'_> {
    pub(super) fn look(&self) -> anyhow::Result<Looked> {
        look_at(
            self.host,
            self.config,
            self.config_file,
            (&self.manifest, self.repo),
        )
    }
}

#[derive(Serialize)]
struct PlanAnswer<'a> {
    version: u32,
    manifest: &'a str,
    steps: Vec<StepAnswer<'a>>,
    by_hand: Vec<ByHand<'a>>,
}

#[derive(Serialize)]
struct StepAnswer<'a> {
    item: &'a str,
    does: String,
    undone_by: Option<String>,
}

#[derive(Serialize)]
struct ByHand<'a> {
    item: &'a str,
    fix: &'a str,
}

/// Prints the plan; ends with 1 when something would be done or has to be done.
///
/// # Errors
/// The manifest is wrong.
pub(super) fn print_plan(subject: &Subject<'_>, format: ReportFormat) -> anyhow::Result<ExitCode> {
    let looked = subject.look()?;
    let plan = plan(&looked.manifest, &looked.context, &looked.answers);
    match format {
        ReportFormat::Json => {
            let answer = PlanAnswer {
                version: VERSION,
                manifest: &subject.manifest,
                steps: plan.steps.iter().map(as_answer).collect(),
                by_hand: plan
                    .by_hand
                    .iter()
                    .map(|(item, fix)| ByHand { item, fix })
                    .collect(),
            };
            println!("{}", serde_json::to_string_pretty(&answer)?);
        }
        ReportFormat::Text => print!("{}", plan_text(&plan)),
        ReportFormat::Junit | ReportFormat::Markdown => {
            anyhow::bail!("a plan is no report\nhint: --format text or json")
        }
    }
    let report = looked.report();
    Ok(ExitCode::from(report.standing.exit_code()))
}

fn as_answer(planned: &Planned) -> StepAnswer<'_> {
    StepAnswer {
        item: &planned.item,
        does: planned.step.action.to_string(),
        undone_by: planned.step.undo.as_ref().map(ToString::to_string),
    }
}

fn plan_text(plan: &Plan) -> String {
    let mut lines = vec![];
    for (at, planned) in plan.steps.iter().enumerate() {
        lines.push(format!("{:>3}  {}", at + 1, planned.step.action));
        lines.push(format!("     for {}", planned.item));
    }
    if plan.steps.is_empty() {
        lines.push("there is nothing that could be done".to_owned());
    }
    if !plan.by_hand.is_empty() {
        lines.push("\nto be done by hand:".to_owned());
        lines.extend(
            plan.by_hand
                .iter()
                .map(|(item, fix)| format!("     {item}: {fix}")),
        );
    }
    lines.join("\n") + "\n"
}

/// Puts the host right, and prints what is not right afterwards.
///
/// # Errors
/// The manifest is wrong, or receipts cannot be kept.
pub(super) fn apply(subject: &Subject<'_>, report_format: ReportFormat) -> anyhow::Result<ExitCode> {
    let host = &subject.config.host;
    workspace::prepare_data_dir(&host.data_dir, accounts::dispatcher_ids(&host.account))?;
    let mut receipts = Receipts::open(&subject.config.host.data_dir)?;
    let mut looked = subject.look()?;
    let mut tried: Vec<Planned> = vec![];
    let mut failed = false;
    for round in 0..ROUNDS {
        let plan = plan(&looked.manifest, &looked.context, &looked.answers);
        if round == 0 {
            settle(&mut receipts, &plan, &looked.report())?;
        }
        let left: Vec<Planned> = plan
            .steps
            .into_iter()
            .filter(|planned| !tried.contains(planned))
            .collect();
        if left.is_empty() {
            break;
        }
        failed |= !take(subject, &mut receipts, &left)?;
        tried.extend(left);
        looked = subject.look()?;
    }
    let report = looked.report();
    print!("{}", format::rendered(&report, report_format)?);
    let code = report.standing.exit_code();
    Ok(ExitCode::from(if failed && code == 0 { 1 } else { code }))
}

/// Ends the receipts of steps that an earlier process began and that need not be taken any more.
fn settle(receipts: &mut Receipts, plan: &Plan, report: &Report) -> Result<(), ReceiptsError> {
    let is_open = |state: &State| *state == State::Open;
    let open: Vec<_> = receipts
        .all
        .iter()
        .filter(|receipt| is_open(&receipt.state))
        .cloned()
        .collect();
    for receipt in open {
        if plan.steps.iter().any(|planned| planned.step == receipt.step) {
            continue;
        }
        let is_met = report
            .items
            .iter()
            .any(|line| line.id() == receipt.item && line.verdict.is_met());
        let event = if is_met {
            Event::Found
        } else {
            Event::Failed {
                why: "it was interrupted, and is not wanted any more".to_owned(),
            }
        };
        receipts.end(receipt.number, event)?;
    }
    Ok(())
}

/// Takes steps one after the other; those of an item that has failed are left out. Whether all were taken.
fn take(subject: &Subject<'_>, receipts: &mut Receipts, steps: &[Planned]) -> Result<bool, ReceiptsError> {
    let root = nix::unistd::geteuid().is_root();
    let mut failed: Vec<&str> = vec![];
    for (at, planned) in steps.iter().enumerate() {
        if failed.contains(&planned.item.as_str()) {
            continue;
        }
        let action = &planned.step.action;
        eprintln!("{}/{}  {}: {action}", at + 1, steps.len(), planned.item);
        if !root && needs_root(action) {
            eprintln!("     not done: it needs root\nhint: run `ephemerd provision --apply` as root");
            failed.push(&planned.item);
            continue;
        }
        let before = match before(action) {
            Ok(before) => before,
            Err(error) => {
                eprintln!("     not done: {}", crate::chain(&error));
                failed.push(&planned.item);
                continue;
            }
        };
        let number = receipts.begin(planned, before)?;
        match perform(subject.host, subject.config, action) {
            Ok(()) => receipts.end(number, Event::Done)?,
            Err(error) => {
                let why = crate::chain(&error);
                eprintln!("     failed: {why}");
                receipts.end(number, Event::Failed { why })?;
                failed.push(&planned.item);
            }
        }
    }
    Ok(failed.is_empty())
}

/// Whether only root can do it. Whoever is named as the owner of a program can run it as well as root can, and whether
/// a path can be changed the system tells.
fn needs_root(action: &Action) -> bool {
    match action {
        Action::Run(tool) => !tool.as_owner,
        Action::JobAccounts | Action::Account(_) | Action::Program { .. } | Action::Service { .. } => true,
        Action::Folder(_) | Action::File { .. } | Action::Archive(_) => false,
    }
}

/// `ephemerd provision revert`
#[derive(Debug, Args)]
pub(super) struct RevertArgs {
    /// Only say what would be taken back
    #[arg(long)]
    dry_run: bool,
}

/// Takes back what was done, newest first.
///
/// # Errors
/// The receipts cannot be read or written.
pub(super) fn run_revert(args: &RevertArgs, host: &Host, loaded: &Loaded) -> anyhow::Result<ExitCode> {
    let data_dir = &loaded.config.host.data_dir;
    if !Receipts::exist(data_dir) {
        println!("{NOTHING_DONE}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut receipts = Receipts::open(data_dir)?;
    let standing: Vec<_> = receipts
        .all
        .iter()
        .rev()
        .filter(|receipt| receipt.state != State::Reverted)
        .cloned()
        .collect();
    if standing.is_empty() {
        println!("{NOTHING_DONE}");
    }
    let mut all = true;
    for receipt in standing {
        let undo = undo(&receipt);
        let what = format!("{}: {}", receipt.item, receipt.step.action);
        if let Undo::Impossible(why) = undo {
            println!("stays     {what}\n          {why}");
            continue;
        }
        if args.dry_run {
            println!(
                "would be taken back  {what}\n                     {}",
                undo_text(&undo)
            );
            continue;
        }
        match revert(host, &undo) {
            Ok(()) => {
                receipts.end(receipt.number, Event::Reverted)?;
                println!("reverted  {what}");
            }
            Err(error) => {
                all = false;
                println!("stays     {what}\n          {}", crate::chain(&error));
            }
        }
    }
    Ok(ExitCode::from(u8::from(!all)))
}

/// What would be done, in words.
pub(crate) fn undo_text(undo: &Undo) -> String {
    match undo {
        Undo::Run(tool) => tool.to_string(),
        Undo::RemoveFile { path, .. }
        | Undo::RemoveFolder(path)
        | Undo::RemoveArchive { path, .. }
        | Undo::RemoveProgram { path, .. } => format!("remove {path}"),
        Undo::DeleteAccount(step) => format!("delete {step}"),
        Undo::StopService { manager, .. } => format!("stop the service, now and for good ({manager})"),
        Undo::Restore {
            place,
            content: Some(_),
        } => format!("put back what was in {place}"),
        Undo::Restore { place, content: None } => format!("give back {place}"),
        Undo::Impossible(why) => (*why).to_owned(),
    }
}

/// The subject of arguments.
///
/// # Errors
/// There is no manifest.
pub(super) fn subject<'a>(
    args: &'a CheckArgs,
    host: &'a Host,
    loaded: &'a Loaded,
    config_file: &'a Utf8PathBuf,
) -> anyhow::Result<Subject<'a>> {
    Ok(Subject {
        host,
        config: &loaded.config,
        config_file,
        manifest: super::check::named(args, host, &loaded.config)?,
        repo: args.repo.as_ref(),
    })
}
