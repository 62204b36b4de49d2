//! `ephemerd host upgrade`: another program in the place of the one that is installed, or everything as it was.

use std::process::ExitCode;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::daemon::{await_ready, drain};
use super::install::{receipts_file, require_manager, require_root};
use crate::config::Loaded;
use crate::control::Ask;
use crate::control::client::ask;
use crate::host::command::{CommandSpec, run as run_command};
use crate::host::provision::perform::before;
use crate::host::provision::receipts::Receipts;
use crate::host::service::upgrade::{end_record, go_back, keep_ledger, read_record, write_record};
use crate::host::{Host, program, service};
use crate::provision::receipt::{Event, State};
use crate::provision::report::Planned;
use crate::provision::step::{Action, Place, Step};
use crate::service::Manager;
use crate::service::upgrade::{Candidate, Record, Terms, VERSION, Verdict, judge, version_in};

/// How long a program may take to say what it is.
const ASK: Duration = Duration::from_secs(20);

/// `ephemerd host upgrade`
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// The new program
    program: Utf8PathBuf,
    /// What its SHA-256 must be
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// Take it although it is older
    #[arg(long)]
    allow_downgrade: bool,
    /// Only look at the new program, and say what would be done
    #[arg(long)]
    dry_run: bool,
    /// End jobs instead of waiting for them
    #[arg(long)]
    now: bool,
    /// How long to wait for jobs
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = crate::config::size::parse_duration)]
    wait: Duration,
    /// How long the new daemon may take until it is ready
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = crate::config::size::parse_duration)]
    ready_within: Duration,
}

/// What an upgrade works on.
struct Ground<'a> {
    host: &'a Host,
    manager: Manager,
    path: &'a Utf8Path,
    data_dir: &'a Utf8Path,
    socket: &'a Utf8Path,
}

/// Upgrades; ends with 1 when the new program did not become ready and the old one was put back.
///
/// # Errors
/// The new program is refused, jobs still run, or what was there cannot be put back.
pub(super) fn run(
    args: &UpgradeArgs,
    host: &Host,
    loaded: &Loaded,
    config_file: &Utf8Path,
) -> anyhow::Result<ExitCode> {
    require_root("upgrade")?;
    let config = &loaded.config;
    let ground = Ground {
        host,
        manager: require_manager(host)?,
        path: &host.service.program,
        data_dir: &config.host.data_dir,
        socket: &config.control.socket,
    };
    let file = receipts_file(ground.data_dir);
    anyhow::ensure!(
        file.exists() && ground.manager.file(host).exists() && ground.path.exists(),
        "the service is not installed\nhint: `ephemerd host install` installs this program"
    );
    // Also the lock against others who install or upgrade.
    let mut receipts = Receipts::open_file(file)?;
    if let Some(record) = read_record(ground.data_dir)? {
        eprintln!(
            "an upgrade to {} was interrupted: going back to {} first",
            record.to, record.from
        );
        back(&ground, &record, args.ready_within)?;
        let open: Vec<u64> = receipts
            .all
            .iter()
            .filter(|it| it.state == State::Open && matches!(it.step.action, Action::Program { .. }))
            .map(|it| it.number)
            .collect();
        for number in open {
            receipts.end(number, Event::Reverted)?;
        }
    }
    let old = candidate(ground.path, &program_hash(ground.path)?, config_file)?;
    let hash = program::stage(&args.program, ground.path)?;
    let staged = program::staged(ground.path);
    let judged = verify(args, &old, (&staged, &hash), config_file);
    let version = match judged {
        Ok(Verdict::Replaces(version)) => version,
        Ok(Verdict::Same) => {
            program::discard(&staged)?;
            println!("nothing was to be done: {} is installed", args.program);
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            program::discard(&staged)?;
            return Err(error.context(format!("`{}` was not installed", args.program)));
        }
    };
    let record = Record {
        version: VERSION,
        from: old.version.unwrap_or_default(),
        from_sha256: old.sha256,
        to: version,
        to_sha256: hash,
    };
    if args.dry_run {
        program::discard(&staged)?;
        println!(
            "would replace {} {} by {} {}, which reads the present configuration",
            ground.path, record.from, args.program, record.to
        );
        return Ok(ExitCode::SUCCESS);
    }
    let drained = drain(ground.socket, args.now, args.wait).inspect_err(|_| {
        // The next upgrade does it where this does not.
        let _ = program::discard(&staged);
    })?;
    if drained.waiting > 0 {
        eprintln!(
            "{} waiting jobs end with the old daemon: submit them again",
            drained.waiting
        );
    }
    // The receipt of what uninstall is to remove comes before the program is there.
    let planned = as_step(args, &record, ground.path);
    let number = receipts.begin(&planned, before(&planned.step.action)?)?;
    write_record(ground.data_dir, &record)?;
    if let Err(error) = replace(&ground, &record, args.ready_within) {
        let why = crate::chain(error.as_ref());
        eprintln!("{} is not ready: {why}\ngoing back to {}", record.to, record.from);
        back(&ground, &record, args.ready_within)?;
        receipts.end(number, Event::Reverted)?;
        drain_again(&ground, drained.was_draining)?;
        println!("not upgraded: {} is back, with its ledger", record.from);
        return Ok(ExitCode::FAILURE);
    }
    end_record(ground.data_dir)?;
    receipts.end(number, Event::Done)?;
    drain_again(&ground, drained.was_draining)?;
    println!("upgraded from {} to {}", record.from, record.to);
    println!("the old program is {}", program::kept(ground.path));
    Ok(ExitCode::SUCCESS)
}

fn program_hash(path: &Utf8Path) -> anyhow::Result<String> {
    program::sha256(path)?.ok_or_else(|| anyhow::anyhow!("`{path}` is not there"))
}

/// What a program is. It is run, as root: whoever asks for an upgrade trusts it.
fn candidate(path: &Utf8Path, sha256: &str, config_file: &Utf8Path) -> anyhow::Result<Candidate> {
    let said = run_command(&with_config(path, config_file, &["--version"]));
    let version = said.ok().filter(|output| output.status.success());
    Ok(Candidate {
        sha256: sha256.to_owned(),
        machine: program::machine_of(path)?,
        version: version.and_then(|output| version_in(&output.stdout)),
    })
}

fn with_config(path: &Utf8Path, config_file: &Utf8Path, args: &[&str]) -> CommandSpec {
    CommandSpec::new(path, &[&["--config", config_file.as_str()], args].concat(), ASK)
}

/// Whether the program that is staged may replace the old one, and reads the present configuration.
fn verify(
    args: &UpgradeArgs,
    old: &Candidate,
    (staged, sha256): (&Utf8Path, &str),
    config_file: &Utf8Path,
) -> anyhow::Result<Verdict> {
    let terms = Terms {
        sha256: args.sha256.clone(),
        allow_downgrade: args.allow_downgrade,
    };
    // What is not what it should be is not run, not even to be asked for its version.
    let unasked = Candidate {
        sha256: sha256.to_owned(),
        machine: program::machine_of(staged)?,
        version: old.version.clone(),
    };
    judge(old, &unasked, &terms)?;
    let verdict = judge(old, &candidate(staged, sha256, config_file)?, &terms)?;
    if let Verdict::Replaces(version) = &verdict {
        let check = with_config(staged, config_file, &["config", "check"]);
        let output = run_command(&check)?;
        anyhow::ensure!(
            output.status.success(),
            "version {version} finds fault with the present configuration:\n{}{}",
            output.stdout,
            output.stderr
        );
    }
    Ok(verdict)
}

/// Stops the old daemon, keeps what it would need to come back, and starts the new one.
fn replace(ground: &Ground<'_>, record: &Record, ready_within: Duration) -> anyhow::Result<()> {
    let Ground {
        host,
        manager,
        path,
        data_dir,
        socket,
    } = *ground;
    service::halt(host, manager)?;
    keep_ledger(data_dir)?;
    program::swap(path, true)?;
    service::start(host, manager, &manager.file(host))?;
    await_ready(socket, Some(&record.to), ready_within)?;
    Ok(())
}

/// Puts back the old program and its ledger, and waits until it is ready.
fn back(ground: &Ground<'_>, record: &Record, ready_within: Duration) -> anyhow::Result<()> {
    let Ground {
        host,
        manager,
        path,
        data_dir,
        socket,
    } = *ground;
    service::halt(host, manager)?;
    go_back(data_dir, path, record)?;
    service::start(host, manager, &manager.file(host))?;
    await_ready(socket, None, ready_within)?;
    Ok(end_record(data_dir)?)
}

/// Whoever had drained the daemon did not ask for that to end.
fn drain_again(ground: &Ground<'_>, was_draining: bool) -> anyhow::Result<()> {
    if was_draining {
        ask(ground.socket, &Ask::Drain {})?;
        eprintln!("the daemon was draining before, and is again");
    }
    Ok(())
}

/// The upgrade as a step, for its receipt.
fn as_step(args: &UpgradeArgs, record: &Record, path: &Utf8Path) -> Planned {
    let action = Action::Program {
        from: args.program.clone(),
        place: Place {
            path: path.to_owned(),
            owner: Some("0".to_owned()),
            group: Some("0".to_owned()),
            mode: Some(0o755),
        },
        sha256: record.to_sha256.clone(),
    };
    Planned {
        item: "program".to_owned(),
        step: Step { action, undo: None },
    }
}
