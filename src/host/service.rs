//! The service on this host: whether it is there, and starting and stopping it.

pub mod upgrade;

use std::fs;
use std::io;
use std::thread;

use camino::{Utf8Path, Utf8PathBuf};

use super::command::{CommandError, CommandSpec, run};
use super::program::{self, ProgramError};
use super::provision::answer::look_entry;
use super::{Host, Os};
use crate::host::accounts;
use crate::provision::report::Planned;
use crate::provision::step::Action;
use crate::service::Manager;
use crate::service::plan::Seen;

/// How often launchctl(1) is asked again where it said no for no lasting reason.
const ATTEMPTS: u32 = 20;

/// launchctl(1) says so where there is no such service: `ESRCH`.
const NO_SUCH_SERVICE: i32 = 3;

/// launchctl(1) says so while a service is ending: `EINPROGRESS`.
const ENDING: i32 = 36;

/// What the service manager does not do, or cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A tool failed.
    #[error("{manager} did not {doing}\nhint: {}", remedy(*.manager))]
    Tool {
        /// The service manager.
        manager: Manager,
        /// What was wanted.
        doing: &'static str,
        /// What the tool said.
        source: CommandError,
    },
    /// It does not end.
    #[error("the service has not ended although {manager} was told to end it\nhint: {}", remedy(*.manager))]
    Stays {
        /// The service manager.
        manager: Manager,
    },
    /// A file cannot be looked at.
    #[error("could not look at `{path}`")]
    Look {
        /// The path.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program cannot be looked at.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

fn remedy(manager: Manager) -> &'static str {
    match manager {
        Manager::Systemd => "`systemctl status ephemerd` and `journalctl -u ephemerd` say why",
        Manager::Launchd => "`launchctl print system/dev.ephemerd` and the log say why",
    }
}

/// The service manager that runs on this host.
pub fn manager(host: &Host) -> Option<Manager> {
    // sd_booted(3)
    let has_systemd = host.os == Os::Linux && host.run.join("systemd/system").is_dir();
    Manager::of(host.os, has_systemd)
}

/// Whether something rotates logs on this host.
pub fn rotates(host: &Host) -> bool {
    match host.os {
        Os::Linux => host.tools.logrotate.exists(),
        // It is part of macOS.
        Os::MacOs => true,
    }
}

/// Whether the service is started at every boot and runs.
///
/// # Errors
/// The tool cannot be run.
pub fn is_up(host: &Host, manager: Manager) -> Result<bool, ServiceError> {
    for command in manager.is_up(host) {
        if !ask(manager, &command)?.success() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn ask(manager: Manager, command: &CommandSpec) -> Result<std::process::ExitStatus, ServiceError> {
    let output = run(command).map_err(tool(manager, "answer"))?;
    Ok(output.status)
}

fn tool(manager: Manager, doing: &'static str) -> impl FnOnce(CommandError) -> ServiceError {
    move |source| ServiceError::Tool {
        manager,
        doing,
        source,
    }
}

/// Has the service started at every boot, and starts it.
///
/// # Errors
/// See [`ServiceError`].
pub fn start(host: &Host, manager: Manager, file: &Utf8Path) -> Result<(), ServiceError> {
    // launchd takes no second bootstrap; what changed in its file counts from the next start on.
    if manager == Manager::Launchd && is_up(host, manager)? {
        return Ok(());
    }
    for command in manager.start(host, file) {
        persist(host, manager, &command)?;
    }
    Ok(())
}

/// Runs a command; launchctl(1) again where it fails, which it does for a while after an end.
fn persist(host: &Host, manager: Manager, command: &CommandSpec) -> Result<(), ServiceError> {
    let attempts = match manager {
        Manager::Systemd => 1,
        Manager::Launchd => ATTEMPTS,
    };
    let mut attempt = 1;
    loop {
        let done = run(command).and_then(|output| output.require_success(command));
        match done {
            Ok(_) => return Ok(()),
            Err(_) if attempt < attempts => thread::sleep(host.retry_pause),
            Err(error) => return Err(tool(manager, "start the service")(error)),
        }
        attempt += 1;
    }
}

/// Stops the service until it is started again.
///
/// # Errors
/// See [`ServiceError`].
pub fn halt(host: &Host, manager: Manager) -> Result<(), ServiceError> {
    stop(host, manager, &manager.halt(host))
}

/// Stops the service, now and for good. One that is not there is stopped.
///
/// # Errors
/// See [`ServiceError`].
pub fn stop_for_good(host: &Host, manager: Manager, file: &Utf8Path) -> Result<(), ServiceError> {
    if manager == Manager::Systemd && !file.exists() {
        return Ok(());
    }
    stop(host, manager, &manager.remove(host))
}

fn stop(host: &Host, manager: Manager, commands: &[CommandSpec]) -> Result<(), ServiceError> {
    for command in commands {
        let output = run(command).map_err(tool(manager, "stop the service"))?;
        let code = output.status.code();
        if manager == Manager::Launchd && matches!(code, Some(NO_SUCH_SERVICE | ENDING)) {
            continue;
        }
        output
            .require_success(command)
            .map_err(tool(manager, "stop the service"))?;
    }
    if manager == Manager::Systemd {
        return Ok(());
    }
    for _ in 0..ATTEMPTS {
        if !is_up(host, manager)? {
            return Ok(());
        }
        thread::sleep(host.retry_pause);
    }
    Err(ServiceError::Stays { manager })
}

/// Has the service manager forget a service whose file is gone.
///
/// # Errors
/// See [`ServiceError`].
pub fn forget(host: &Host, manager: Manager) -> Result<(), ServiceError> {
    for command in manager.forget(host) {
        run(&command)
            .and_then(|output| output.require_success(&command))
            .map_err(tool(manager, "forget the service"))?;
    }
    Ok(())
}

/// What is there of a step of an installation; `missing` are the accounts that are not there.
///
/// # Errors
/// It cannot be looked at.
pub fn see(host: &Host, planned: &Planned, missing: &[accounts::Step]) -> Result<Seen, ServiceError> {
    let there = |is_there| if is_there { Seen::Same } else { Seen::Absent };
    match &planned.step.action {
        Action::Folder(place) => {
            let found = look_entry(&place.path).map_err(look(&place.path))?;
            Ok(there(found.is_some()))
        }
        Action::File { place, content } => match fs::read_to_string(&place.path) {
            Ok(found) if Some(&found) == content.as_ref() => Ok(Seen::Same),
            Ok(found) => Ok(Seen::Other(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Seen::Absent),
            Err(error) => Err(look(&place.path)(error)),
        },
        Action::Program { place, sha256, .. } => Ok(match program::sha256(&place.path)? {
            None => Seen::Absent,
            Some(found) if found == *sha256 => Seen::Same,
            Some(found) => Seen::Other(found),
        }),
        Action::Account(step) => Ok(there(!missing.contains(step))),
        Action::Service { manager, .. } => Ok(there(is_up(host, *manager)?)),
        // No installation has these.
        Action::Run(_) | Action::Archive(_) | Action::JobAccounts => Ok(Seen::Absent),
    }
}

fn look(path: &Utf8Path) -> impl FnOnce(io::Error) -> ServiceError {
    let path = path.to_owned();
    move |source| ServiceError::Look { path, source }
}
