//! `ephemerd host`: what this host needs before it can run jobs.

mod daemon;
pub mod install;
mod uninstall;
mod upgrade;

use std::io::{self, Write};
use std::process::ExitCode;

use camino::Utf8Path;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::Format;
use super::provision::{ReportFormat, look_at, rendered};
use crate::config::{Config, Loaded};
use crate::daemon::check::{now_unix_s, record_file, write_record};
use crate::host::Host;
use crate::host::accounts::{self, Status, Step, Wanted, setup};
use crate::provision::enabled::Enabled;
use crate::provision::report::Standing;
use crate::workspace;

/// Version of the JSON answer.
const VERSION: u32 = 1;

/// `ephemerd host`
#[derive(Debug, Args)]
pub struct HostArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: HostCommand,
}

/// The commands of `ephemerd host`.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Create the group and accounts jobs run as, where they are missing (needs root)
    Setup(SetupArgs),
    /// Check that this host has what its manifest says, and let the daemon run jobs on it from then on
    Enable(EnableArgs),
    /// Let no more jobs run on this host; those that run go on
    Disable,
    /// Install this program as a service that starts at every boot, with all that it needs, and start it (needs root)
    Install(install::InstallArgs),
    /// Replace the installed program by another one; where that does not become ready, go back (needs root)
    Upgrade(upgrade::UpgradeArgs),
    /// Stop the service, take back what `install` did, and name what stays (needs root)
    Uninstall(uninstall::UninstallArgs),
}

/// `ephemerd host enable`
#[derive(Debug, Args)]
pub struct EnableArgs {
    /// How the report is printed
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

/// `ephemerd host setup`
#[derive(Debug, Args)]
pub struct SetupArgs {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// The JSON answer.
#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    steps: &'a [Settled],
}

/// A step and what became of it.
#[derive(Serialize)]
struct Settled {
    status: Status,
    #[serde(flatten)]
    step: Step,
    command: String,
}

/// Runs the command.
///
/// # Errors
///
/// As [`setup_accounts`], and when this host does not have what its manifest says, or that cannot be told.
pub fn run(
    args: &HostArgs,
    host: &Host,
    loaded: &Loaded,
    config_file: &Utf8Path,
) -> anyhow::Result<ExitCode> {
    // What is written into a unit, and asked of another program, must lead to the same file from everywhere.
    let config_file = &camino::absolute_utf8(config_file)?;
    match &args.command {
        HostCommand::Setup(args) => {
            setup_accounts(args, &loaded.config, host, &mut io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        HostCommand::Enable(args) => enable(args, host, &loaded.config, config_file),
        HostCommand::Install(args) => install::run(args, host, loaded, config_file),
        HostCommand::Upgrade(args) => upgrade::run(args, host, loaded, config_file),
        HostCommand::Uninstall(args) => uninstall::run(args, host, loaded, config_file),
        HostCommand::Disable => {
            match std::fs::remove_file(record_file(&loaded.config.host.data_dir)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => println!("disabled: the daemon lets no job through"),
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Checks the host's manifest and, when it is met, writes that down for the daemon.
fn enable(
    args: &EnableArgs,
    host: &Host,
    config: &Config,
    config_file: &Utf8Path,
) -> anyhow::Result<ExitCode> {
    let Some(name) = config.host.manifest(host.os) else {
        println!("this host has no manifest, so that it need not be enabled");
        return Ok(ExitCode::SUCCESS);
    };
    workspace::prepare_data_dir(
        &config.host.data_dir,
        accounts::dispatcher_ids(&config.host.account),
    )?;
    let looked = look_at(host, config, config_file, (name, None))?;
    let report = looked.report();
    print!("{}", rendered(&report, args.format)?);
    if report.standing == Standing::Met {
        write_record(&config.host.data_dir, &Enabled::new(&report, now_unix_s()))?;
        eprintln!("enabled: the daemon lets jobs through as long as this holds");
    } else {
        eprintln!("not enabled\nhint: `ephemerd provision --apply` does what can be done");
    }
    Ok(ExitCode::from(report.standing.exit_code()))
}

/// Creates the accounts, and prints each step to `out`; an error comes after the steps that were taken before it.
///
/// # Errors
///
/// When accounts exist that do not fit, a step fails, or `out` cannot be written to.
pub fn setup_accounts(
    args: &SetupArgs,
    config: &Config,
    host: &Host,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let &SetupArgs { dry_run, format } = args;
    let wanted = Wanted {
        account: &config.host.account,
        slots: config.native.slots,
        accounts: config.native.accounts,
    };
    let mut settled = Vec::new();
    let result = setup(host, &wanted, dry_run, &mut |step, status| {
        settled.push(Settled {
            status,
            step: step.clone(),
            command: line(step, host),
        });
    });
    print(&settled, format, out)?;
    Ok(result?)
}

/// The commands of a step, as one line for a shell.
fn line(step: &Step, host: &Host) -> String {
    let commands: Vec<String> = step.commands(host).iter().map(ToString::to_string).collect();
    commands.join(" && ")
}

fn print(settled: &[Settled], format: Format, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Text => print_text(settled, out),
        Format::Json => {
            let answer = Answer {
                version: VERSION,
                steps: settled,
            };
            serde_json::to_writer_pretty(&mut *out, &answer)?;
            writeln!(out)
        }
    }
}

fn print_text(settled: &[Settled], out: &mut dyn Write) -> io::Result<()> {
    for Settled {
        status,
        step,
        command,
    } in settled
    {
        match status {
            Status::AlreadyFits => writeln!(out, "already fits  {step}")?,
            Status::WouldDo => writeln!(out, "would do      {step}\n              {command}")?,
            Status::Done => writeln!(out, "done          {step}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Os;

    fn printed(format: Format) -> String {
        let host = Host {
            os: Os::Linux,
            ..Host::system()
        };
        let group = |status, name: &str| {
            let step = Step::CreateGroup {
                name: name.to_owned(),
                gid: None,
            };
            Settled {
                status,
                command: line(&step, &host),
                step,
            }
        };
        let settled = [
            group(Status::AlreadyFits, "a"),
            group(Status::WouldDo, "b"),
            group(Status::Done, "c"),
        ];
        let mut out = Vec::new();
        print(&settled, format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn prints_what_fits_and_the_command_of_what_would_be_done() {
        insta::assert_snapshot!(printed(Format::Text), @r"
        already fits  group `a`
        would do      group `b`
                      /usr/sbin/groupadd --system b
        done          group `c`
        ");
    }

    #[test]
    fn prints_one_json_document_with_a_version() {
        insta::assert_snapshot!(printed(Format::Json), @r#"
        {
          "version": 1,
          "steps": [
            {
              "status": "already-fits",
              "create": "group",
              "name": "a",
              "command": "/usr/sbin/groupadd --system a"
            },
            {
              "status": "would-do",
              "create": "group",
              "name": "b",
              "command": "/usr/sbin/groupadd --system b"
            },
            {
              "status": "done",
              "create": "group",
              "name": "c",
              "command": "/usr/sbin/groupadd --system c"
            }
          ]
        }
        "#);
    }
}
