//! `ephemerd host uninstall`: what `install` and `upgrade` did, taken back, and what stays, named.

use std::process::ExitCode;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::daemon::drain;
use super::install::{receipts_file, require_root};
use crate::cli::provision::undo_text;
use crate::config::{Config, EgressMode, Loaded};
use crate::host::egress::hold;
use crate::host::provision::perform::revert;
use crate::host::provision::receipts::Receipts;
use crate::host::{Host, program, service};
use crate::provision::receipt::{Event, State, Undo, undo};

/// `ephemerd host uninstall`
#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// Only say what would be taken back
    #[arg(long)]
    dry_run: bool,
    /// Delete the accounts, too, that `install` has made
    #[arg(long)]
    accounts: bool,
    /// End jobs instead of waiting for them
    #[arg(long)]
    now: bool,
    /// How long to wait for jobs
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = crate::config::size::parse_duration)]
    wait: Duration,
}

/// Takes back the installation; ends with 1 when something stays that should go.
///
/// # Errors
/// Not root, receipts cannot be kept, or jobs still run.
pub(super) fn run(
    args: &UninstallArgs,
    host: &Host,
    loaded: &Loaded,
    config_file: &Utf8Path,
) -> anyhow::Result<ExitCode> {
    let config = &loaded.config;
    let data_dir = &config.host.data_dir;
    let file = receipts_file(data_dir);
    if !file.exists() {
        println!("nothing was installed that could be taken back");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.dry_run {
        require_root("uninstall")?;
    }
    let mut receipts = Receipts::open_file(file)?;
    let mut standing: Vec<_> = receipts
        .all
        .iter()
        .rev()
        .filter(|receipt| receipt.state != State::Reverted)
        .map(|receipt| (receipt.number, undo(receipt)))
        .collect();
    // Whatever came after its start, an upgrade for example: nothing is taken from under a service that runs.
    standing.sort_by_key(|(_, undo)| !matches!(undo, Undo::StopService { .. }));
    if !args.dry_run
        && standing
            .iter()
            .any(|(_, undo)| matches!(undo, Undo::StopService { .. }))
    {
        drain(&config.control.socket, args.now, args.wait)?;
    }
    let mut all = true;
    let mut rules_gone = false;
    let mut left: Vec<(Utf8PathBuf, &str)> = vec![];
    for (number, undo) in standing {
        let what = undo_text(&undo);
        if !args.accounts && matches!(undo, Undo::DeleteAccount(_)) {
            println!(
                "stays     {}, without --accounts",
                what.replacen("delete ", "", 1)
            );
            continue;
        }
        // Nothing needs the rules any more once the service has ended.
        if !rules_gone && !matches!(undo, Undo::StopService { .. }) {
            all &= remove_rules(args.dry_run, host, config);
            rules_gone = true;
        }
        if args.dry_run {
            println!("would     {what}");
            continue;
        }
        match revert(host, &undo) {
            Ok(()) => {
                receipts.end(number, Event::Reverted)?;
                println!("done      {what}");
            }
            // What somebody put into our folder, or our file, is theirs.
            Err(error) => match undo {
                Undo::RemoveFolder(path) => left.push((path, "it is not empty")),
                Undo::RemoveFile { path, .. } => left.push((path, "it is not as it was written by us")),
                // It is named below if it is there.
                Undo::RemoveProgram { .. } => {}
                Undo::Run(_)
                | Undo::RemoveArchive { .. }
                | Undo::DeleteAccount(_)
                | Undo::StopService { .. }
                | Undo::Restore { .. }
                | Undo::Impossible(_) => {
                    all = false;
                    not_done(&what, &error);
                }
            },
        }
    }
    if !args.dry_run {
        if let Some(manager) = service::manager(host) {
            service::forget(host, manager)?;
        }
        let path = &host.service.program;
        for path in [program::kept(path), program::staged(path)] {
            program::discard(&path)?;
        }
    }
    for (path, what) in remains(host, config, config_file) {
        if left.iter().all(|(other, _)| *other != path) {
            left.push((path, what));
        }
    }
    for (path, what) in left.iter().filter(|(path, _)| path.exists()) {
        println!("stays     {path}: {what}");
    }
    if args.accounts && !args.dry_run {
        eprintln!(
            "hint: files of accounts that are gone belong to whoever gets their ids: look with `find / -xdev -nouser -o -xdev -nogroup`"
        );
    }
    Ok(ExitCode::from(u8::from(!all)))
}

fn not_done(what: &str, error: &dyn std::error::Error) {
    let why = crate::chain(error).replace('\n', "\n          ");
    println!("not done  {what}\n          {why}");
}

/// Takes the rules of the packet filter away. Whether they are gone.
fn remove_rules(dry_run: bool, host: &Host, config: &Config) -> bool {
    if config.egress.mode != EgressMode::BlockLan {
        return true;
    }
    let what = "remove the rules of the packet filter";
    if dry_run {
        println!("would     {what}");
        return true;
    }
    match hold::remove(host, &crate::egress::name(&config.host.account)) {
        Ok(()) => {
            println!("done      {what}");
            true
        }
        Err(error) => {
            not_done(what, &error);
            false
        }
    }
}

/// What is there still, and is not ours to remove.
fn remains(host: &Host, config: &Config, config_file: &Utf8Path) -> Vec<(Utf8PathBuf, &'static str)> {
    let places = [
        (
            config.host.data_dir.clone(),
            "every job's record and log, and these receipts",
        ),
        (config_file.to_owned(), "the configuration"),
        (host.service.logs.clone(), "what the daemon said"),
        (host.service.program.clone(), "the program"),
        (host.run.join("ephemerd"), "locks, gone with the next boot"),
    ];
    places.into_iter().filter(|(path, _)| path.exists()).collect()
}
