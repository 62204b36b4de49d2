//! `ephemerd doctor`: what is wrong with this host, and what helps.

use std::io::{self, IsTerminal, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, ValueEnum};

use crate::config::{Config, ConfigError, EgressMode, Loaded};
use crate::control::client::ask;
use crate::control::{Answer, Ask, SlotNow, StatusReport};
use crate::daemon::start::{slots, survey};
use crate::doctor::{self, DaemonSeen, Ran, Section};
use crate::finding::{Finding, Level, code};
use crate::host::command::{self, CommandSpec};
use crate::host::{Host, accounts, os, service};
use crate::job::JobId;
use crate::job::ledger::Ledger;
use crate::slot::Slot;

/// The longest that another command may take: probes of two profiles are the slowest.
const WITHIN: Duration = Duration::from_secs(120);

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    format: DoctorFormat,
    /// Offer to run the commands that put things right, one by one.
    #[arg(long)]
    fix: bool,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DoctorFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON value.
    Json,
    /// A table for an issue.
    Markdown,
}

/// Looks at everything and changes nothing, unless it was asked to fix and somebody says yes. The exit code says the worst: 0
/// when nothing is wrong, 1 when something is, 3 when something could not be looked at.
///
/// # Errors
/// To fix, there must be somebody to ask.
pub fn run(
    args: &DoctorArgs,
    host: &Host,
    loaded: Result<Loaded, ConfigError>,
    config_file: &Utf8Path,
) -> anyhow::Result<ExitCode> {
    if args.fix && !io::stdin().is_terminal() {
        anyhow::bail!(
            "--fix asks before each command, and standard input is no terminal\nhint: run the commands that `ephemerd doctor` names"
        );
    }
    let program = super::own_program()?;
    let sections = look(host, loaded, (&program, config_file));
    match args.format {
        DoctorFormat::Text => print!("{}", doctor::text(&sections)),
        DoctorFormat::Json => println!("{}", serde_json::to_string_pretty(&sections)?),
        DoctorFormat::Markdown => print!("{}", doctor::markdown(&sections)),
    }
    let found = doctor::all(&sections);
    if args.fix {
        for one in &found {
            offer(one, &program, config_file)?;
        }
    }
    Ok(ExitCode::from(code(&found)))
}

fn look(
    host: &Host,
    loaded: Result<Loaded, ConfigError>,
    (program, config_file): (&Utf8Path, &Utf8Path),
) -> Vec<Section> {
    let mut sections = vec![Section {
        name: "host",
        findings: system(host),
    }];
    let config = match loaded {
        Ok(loaded) => loaded.config,
        Err(error) => {
            let wrong = Finding::of_error(Level::Fail, "file", &crate::chain(&error));
            sections.push(Section {
                name: "configuration",
                findings: vec![wrong],
            });
            return sections;
        }
    };
    let mut add = |name, findings: Vec<Finding>| sections.push(Section { name, findings });
    let there = if config_file.exists() {
        "understood"
    } else {
        "not there; the defaults apply"
    };
    add(
        "configuration",
        vec![Finding::new(
            Level::Ok,
            "file",
            format!("`{config_file}`: {there}"),
        )],
    );
    let (axes, accounts) = survey(host, &config);
    add(
        "axes",
        doctor::axes(&axes, &config, nix::unistd::geteuid().is_root()),
    );
    let seen = match ask(&config.control.socket, &Ask::Status {}) {
        Ok((Answer::Status(status), _)) => DaemonSeen::Answers(status),
        Ok((other, _)) => DaemonSeen::Silent(format!("answers what was not asked: {other:?}")),
        Err(error) => DaemonSeen::Silent(crate::chain(&error)),
    };
    let mut daemon = doctor::daemon(&seen, env!("CARGO_PKG_VERSION"));
    daemon.extend(service(host));
    add("daemon", daemon);
    let status = match &seen {
        DaemonSeen::Answers(status) => Some(&**status),
        DaemonSeen::Silent(_) => None,
    };
    let slots = slots(&config, accounts.as_deref().ok());
    add("state", state(&config, &slots, status));
    let own = |args: &[&str]| {
        let what = args.join(" ");
        let named = [&["--config", config_file.as_str()], args].concat();
        let args = if config_file.exists() {
            named
        } else {
            args.to_vec()
        };
        doctor::of_command(&what, &ran(program, &args))
    };
    let provisioning = match config.host.manifest(host.os) {
        Some(_) => own(&["provision", "--check"]),
        None => Finding::new(
            Level::Ok,
            "provision --check",
            "this host need not meet a manifest",
        ),
    };
    add("provisioning", vec![provisioning]);
    add("protection", protection(&config, status, &own));
    if config.github.is_some() {
        add("github", vec![own(&["github", "check"])]);
    }
    if config.has_vm_backend() {
        add("guests", vec![own(&["vm", "check"])]);
    }
    sections
}

/// What this host is.
fn system(host: &Host) -> Vec<Finding> {
    let kernel = nix::sys::utsname::uname().map_or_else(
        |error| error.to_string(),
        |name| {
            format!(
                "{} {}",
                name.sysname().to_string_lossy(),
                name.release().to_string_lossy()
            )
        },
    );
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = crate::host::total_memory_byte() >> 20;
    let what = format!("{kernel} on {}, {cores} processors, {memory} MiB", host.machine());
    let mut found = vec![
        Finding::new(Level::Ok, "ephemerd", env!("CARGO_PKG_VERSION")),
        Finding::new(Level::Ok, "system", what),
    ];
    if !nix::unistd::geteuid().is_root() {
        found.push(
            Finding::new(
                Level::Unknown,
                "root",
                "not everything can be looked at without it",
            )
            .hint("run `ephemerd doctor` as root"),
        );
    }
    found.extend(doctor::clock(os::is_clock_set()));
    found
}

/// Whether whoever supervises services here runs the daemon, where somebody does.
fn service(host: &Host) -> Option<Finding> {
    let manager = service::manager(host)?;
    Some(match service::is_up(host, manager) {
        Ok(true) => Finding::new(Level::Ok, "service", "runs"),
        Ok(false) => Finding::new(
            Level::Warn,
            "service",
            "does not run, so that nobody starts the daemon again",
        )
        .hint("`ephemerd host install` sees to it"),
        Err(error) => Finding::of_error(Level::Unknown, "service", &crate::chain(&error)),
    })
}

/// What the daemon keeps, and what jobs left.
fn state(config: &Config, slots: &[Slot], status: Option<&StatusReport>) -> Vec<Finding> {
    let data_dir = &config.host.data_dir;
    // Where nothing has run yet it is not there.
    let disk = data_dir
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(data_dir);
    let room = match crate::host::free(disk) {
        Ok(free) => doctor::room(free, config.host.floors),
        Err(error) => Finding::new(Level::Unknown, "room", format!("`{data_dir}`: {error}")),
    };
    let file = data_dir.join("state/ledger.db");
    match file.try_exists() {
        Ok(true) => {}
        Ok(false) => {
            let nothing = format!("nothing has run yet: there is no `{file}`");
            return vec![Finding::new(Level::Ok, "ledger", nothing), room];
        }
        Err(error) => {
            return vec![Finding::new(
                Level::Unknown,
                "ledger",
                format!("`{file}`: {error}"),
            )];
        }
    }
    let inspected = accounts::as_dispatcher(&config.host.account, || Ledger::inspect(&file));
    let health = match inspected.map_err(anyhow::Error::from).and_then(|it| Ok(it?)) {
        Ok(health) => health,
        Err(error) => {
            let why = crate::chain(error.as_ref());
            return vec![Finding::of_error(Level::Fail, "ledger", &why)];
        }
    };
    let mut found = doctor::ledger(&health, status.is_some());
    found.push(room);
    let folders: Vec<JobId> = data_dir
        .join("native")
        .read_dir_utf8()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().parse().ok())
        .filter(|job| !health.unfinished.contains(job))
        .collect();
    let is_free = |slot: &&Slot| match status {
        Some(status) => status
            .slots
            .iter()
            .any(|one| one.index == slot.index && one.now == SlotNow::Free),
        None => true,
    };
    let free: Vec<&Slot> = slots.iter().filter(is_free).collect();
    let processes = free
        .iter()
        .filter(|slot| slot.account.uid != nix::unistd::geteuid().as_raw())
        .filter_map(|slot| {
            let pids = os::processes_of(slot.account.uid).ok()?;
            (!pids.is_empty()).then(|| (slot.account.name.clone(), pids))
        })
        .collect::<Vec<_>>();
    found.extend(doctor::leftovers(&folders, &processes));
    let taken: Vec<(u32, u16)> = free
        .iter()
        .flat_map(|slot| (slot.first_port..=slot.last_port).map(|port| (slot.index, port)))
        .filter(|(_, port)| {
            TcpListener::bind(("127.0.0.1", *port))
                .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
        })
        .collect();
    found.push(doctor::ports(&taken));
    found
}

/// Whether what protects is there, tried rather than believed where nothing is in the way of that.
fn protection(
    config: &Config,
    status: Option<&StatusReport>,
    own: &dyn Fn(&[&str]) -> Finding,
) -> Vec<Finding> {
    let mut found = Vec::new();
    match (config.egress.mode, status) {
        (EgressMode::BlockLan, Some(_)) => found.push(own(&["egress", "status"])),
        (EgressMode::BlockLan, None) => found.push(Finding::new(
            Level::Warn,
            "egress status",
            "not looked at: the rules are loaded by the daemon, which does not run",
        )),
        (EgressMode::Offline | EgressMode::Open, _) => {}
    }
    found.push(match status {
        // The daemon has every slot, and looks at the profile of every job before it starts.
        Some(_) => Finding::new(
            Level::Ok,
            "profile verify",
            "not tried: the daemon has the slots, and holds each job's profile against what it must guarantee",
        ),
        None => own(&["profile", "verify"]),
    });
    found
}

fn ran(program: &Utf8Path, args: &[&str]) -> Ran {
    let spec = CommandSpec::new(program, args, WITHIN);
    match command::run(&spec) {
        Ok(output) => Ran {
            code: output.status.code(),
            said: output.stderr + &output.stdout,
        },
        Err(error) => Ran {
            code: None,
            said: crate::chain(&error),
        },
    }
}

/// Asks whether to run the command that puts something right, and runs it.
fn offer(one: &Finding, program: &Utf8PathBuf, config_file: &Utf8Path) -> anyhow::Result<()> {
    let Some(fix) = &one.fix else { return Ok(()) };
    eprint!(
        "{}: {}\nrun `ephemerd {}`? [y/N] ",
        one.what,
        one.found,
        fix.join(" ")
    );
    io::stderr().flush()?;
    let mut said = String::new();
    io::stdin().read_line(&mut said)?;
    if !matches!(said.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    let mut args: Vec<&str> = vec!["--config", config_file.as_str()];
    args.extend(fix.iter().map(String::as_str));
    let ran = ran(program, &args);
    eprintln!("{}", ran.said.trim_end());
    Ok(())
}
