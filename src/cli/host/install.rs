//! `ephemerd host install`: the service, and everything that it needs.

use std::process::ExitCode;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use serde::Serialize;

use super::daemon::await_ready;
use crate::cli::{Format, own_program};
use crate::config::Loaded;
use crate::daemon::start::wanted as wanted_accounts;
use crate::host::accounts::{self, observe};
use crate::host::provision::perform::{before, perform};
use crate::host::provision::receipts::Receipts;
use crate::host::service::{self, manager, see};
use crate::host::{Host, program};
use crate::provision::receipt::{Event, Receipt, State};
use crate::provision::report::Planned;
use crate::service::plan::{Standing, plan};
use crate::service::{Manager, Origin, Settings, wanted};
use crate::workspace;

/// Version of the JSON answer.
const VERSION: u32 = 1;

/// `ephemerd host install`
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// How long the daemon may take until it is ready
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = crate::config::size::parse_duration)]
    ready_within: Duration,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Where receipts of the installation are in a data folder: apart from those of `provision`, which is taken back apart.
pub(super) fn receipts_file(data_dir: &Utf8Path) -> Utf8PathBuf {
    data_dir.join("host/install.jsonl")
}

/// The service manager of this host.
///
/// # Errors
/// There is none.
pub(super) fn require_manager(host: &Host) -> anyhow::Result<Manager> {
    manager(host).ok_or_else(|| NoManager(host.run.join("systemd/system")).into())
}

/// Nothing here starts services.
#[derive(Debug, thiserror::Error)]
#[error(
    "no service manager that ephemerd knows runs here: `{0}` is not there\nhint: `ephemerd host setup` makes the accounts; let what supervises services here run `ephemerd run` as root"
)]
pub struct NoManager(Utf8PathBuf);

/// Fails for everybody but root.
///
/// # Errors
/// Not root.
pub(super) fn require_root(what: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "only root may {what} the service\nhint: run this as root"
    );
    Ok(())
}

/// What is wanted here, and what is to be done about each step.
struct Plan {
    steps: Vec<(Planned, Standing)>,
    settings: Settings,
}

fn look(host: &Host, loaded: &Loaded, config_file: &Utf8Path, receipts: &[Receipt]) -> anyhow::Result<Plan> {
    let config = &loaded.config;
    let manager = require_manager(host)?;
    let settings = Settings::new(host, config, config_file, service::rotates(host));
    let (accounts, missing) = accounts(host, loaded)?;
    let path = own_program()?;
    let own = program::sha256(&path)?;
    let origin = Origin {
        sha256: own.ok_or_else(|| anyhow::anyhow!("`{path}`, which this is, is gone"))?,
        path,
    };
    let wanted = wanted(host, manager, &settings, (accounts, &origin));
    let seen = wanted
        .iter()
        .map(|planned| see(host, planned, &missing))
        .collect::<Result<Vec<_>, _>>()?;
    let standings = plan(&wanted, &seen, receipts);
    Ok(Plan {
        steps: wanted.into_iter().zip(standings).collect(),
        settings,
    })
}

/// The accounts that there must be, those that are missing with the ids they would get; and those that are missing.
fn accounts(host: &Host, loaded: &Loaded) -> anyhow::Result<(Vec<accounts::Step>, Vec<accounts::Step>)> {
    let wanted = wanted_accounts(&loaded.config);
    let missing = accounts::plan(host.os, &wanted, &observe(host, &wanted)?)?;
    let with_ids = |step: accounts::Step| {
        let planned = missing.iter().find(|missing| missing.creates_what(&step));
        planned.cloned().unwrap_or(step)
    };
    let all = wanted.steps().into_iter().map(with_ids).collect();
    Ok((all, missing))
}

#[derive(Serialize)]
struct Answer {
    version: u32,
    steps: Vec<StepAnswer>,
}

#[derive(Serialize)]
struct StepAnswer {
    status: &'static str,
    item: String,
    does: String,
}

/// Installs the service, or says what that would be.
///
/// # Errors
/// There is no service manager, something that is not ours is in the way, a step fails, or the daemon does not become
/// ready. What was done by then is written down, and done again goes on there.
pub(super) fn run(
    args: &InstallArgs,
    host: &Host,
    loaded: &Loaded,
    config_file: &Utf8Path,
) -> anyhow::Result<ExitCode> {
    let data_dir = &loaded.config.host.data_dir;
    // For the plan; it is read again when it is locked.
    let file = receipts_file(data_dir);
    let known = if args.dry_run && file.exists() {
        Receipts::open_file(file.clone())?.all
    } else {
        vec![]
    };
    if args.dry_run {
        let plan = look(host, loaded, config_file, &known)?;
        refuse_taken(&plan.steps)?;
        let has_data = data_dir.exists();
        return print(args.format, &plan.steps, "would do", (data_dir, has_data));
    }
    require_root("install")?;
    require_manager(host)?;
    let has_data = data_dir.exists();
    workspace::prepare_data_dir(data_dir, accounts::dispatcher_ids(&loaded.config.host.account))?;
    let mut receipts = Receipts::open_file(file)?;
    let plan = look(host, loaded, config_file, &receipts.all)?;
    refuse_taken(&plan.steps)?;
    settle(&mut receipts, &plan.steps)?;
    let todo: Vec<&Planned> = of(&plan.steps, &Standing::Todo).collect();
    for (at, planned) in todo.iter().enumerate() {
        let action = &planned.step.action;
        eprintln!("{}/{}  {}: {action}", at + 1, todo.len(), planned.item);
        let number = receipts.begin(planned, before(action)?)?;
        if let Err(error) = perform(host, &loaded.config, action) {
            let why = crate::chain(&error);
            receipts.end(number, Event::Failed { why })?;
            let logged = require_manager(host)?.log(&plan.settings);
            return Err(anyhow::Error::new(error).context(format!(
                "could not do step `{}`; what the daemon said: {logged}\nhint: once the cause is gone, run this again, which goes on here; `ephemerd host uninstall` takes back what was done",
                planned.item
            )));
        }
        receipts.end(number, Event::Done)?;
    }
    print(args.format, &plan.steps, "done", (data_dir, has_data))?;
    if todo.is_empty() {
        eprintln!("nothing was to be done: the service is installed and runs");
        return Ok(ExitCode::SUCCESS);
    }
    let status = await_ready(&loaded.config.control.socket, None, args.ready_within)?;
    eprintln!("ready: ephemerd {}, pid {}", status.version, status.pid);
    if let Some(why) = status.shut {
        eprintln!("no job is let through yet: {why}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends receipts of steps that an earlier process began and that need not be taken any more.
fn settle(receipts: &mut Receipts, steps: &[(Planned, Standing)]) -> anyhow::Result<()> {
    let open: Vec<_> = receipts
        .all
        .iter()
        .filter(|it| it.state == State::Open)
        .cloned()
        .collect();
    for receipt in open {
        let todo = of(steps, &Standing::Todo).any(|planned| planned.step == receipt.step);
        if !todo {
            receipts.end(receipt.number, Event::Found)?;
        }
    }
    Ok(())
}

fn of<'a>(steps: &'a [(Planned, Standing)], wanted: &'a Standing) -> impl Iterator<Item = &'a Planned> {
    let found = steps.iter().filter(move |(_, standing)| standing == wanted);
    found.map(|(planned, _)| planned)
}

/// Fails when something that is not ours is in the place of anything.
fn refuse_taken(steps: &[(Planned, Standing)]) -> anyhow::Result<()> {
    for (planned, standing) in steps {
        if let Standing::Taken(why) = standing {
            anyhow::bail!("could not {}: {why}", planned.step.action);
        }
    }
    Ok(())
}

fn print(
    format: Format,
    steps: &[(Planned, Standing)],
    todo: &'static str,
    (data_dir, has_data): (&Utf8Path, bool),
) -> anyhow::Result<ExitCode> {
    let word = |standing: &Standing| match standing {
        Standing::Fits => "already fits",
        Standing::Kept => "kept as it is",
        Standing::Todo => todo,
        Standing::Taken(_) => "taken",
    };
    let mut answers = vec![StepAnswer {
        status: if has_data { "already fits" } else { todo },
        item: "data folder".to_owned(),
        does: format!("folder {data_dir}"),
    }];
    answers.extend(steps.iter().map(|(planned, standing)| StepAnswer {
        status: word(standing),
        item: planned.item.clone(),
        does: planned.step.action.to_string(),
    }));
    match format {
        Format::Json => {
            let answer = Answer {
                version: VERSION,
                steps: answers,
            };
            println!("{}", serde_json::to_string_pretty(&answer)?);
        }
        Format::Text => {
            for answer in answers {
                println!("{:<13}  {}: {}", answer.status, answer.item, answer.does);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
