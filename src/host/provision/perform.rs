//! Steps, taken and taken back.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown};

use super::answer::{AnswerError, look_entry, prepared};
use super::archive::{self, ArchiveError};
use crate::config::Config;
use crate::daemon::start::wanted;
use crate::host::Host;
use crate::host::accounts::{self, AccountsError, setup};
use crate::host::command::{CommandError, run_as};
use crate::host::files::{FilesError, check_above, replace_with};
use crate::host::program::{self, ProgramError};
use crate::host::service::{self, ServiceError};
use crate::provision::kind::archive::STAMP;
use crate::provision::question::Tool;
use crate::provision::receipt::{Before, CONTENT_MAX_BYTE, Undo};
use crate::provision::step::{Action, Place};

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PerformError {
    /// The program is not there, or its owner is nobody.
    #[error(transparent)]
    Program(#[from] AnswerError),
    /// The program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The archive is not in its place.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Somebody else could make the path lead elsewhere.
    #[error(transparent)]
    Above(#[from] FilesError),
    /// The accounts could not be created.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// The program is not in its place.
    #[error(transparent)]
    Copy(#[from] ProgramError),
    /// The service manager does not do it.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// There is no such account or group.
    #[error("there is no {what} `{name}`\nhint: create it first, or name another")]
    Nobody {
        /// Account or group.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A path cannot be changed.
    #[error("could not {doing} `{path}`{}", hint(source))]
    Path {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what was left there.
    #[error("`{path}` {why}, and is left as it is\nhint: remove it by hand if it is not needed")]
    Changed {
        /// The path.
        path: Utf8PathBuf,
        /// What is different.
        why: &'static str,
    },
    /// Nothing takes it back.
    #[error("it cannot be taken back: {0}")]
    Impossible(&'static str),
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "\nhint: run it as root",
        _ => "",
    }
}

fn path_error(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> PerformError {
    let path = path.to_owned();
    move |source| PerformError::Path { doing, path, source }
}

/// What is there before a step.
///
/// # Errors
/// It cannot be looked at.
pub fn before(action: &Action) -> Result<Before, PerformError> {
    let (place, keeps_content) = match action {
        Action::Run(_) | Action::JobAccounts | Action::Account(_) | Action::Service { .. } => {
            return Ok(Before::Untold);
        }
        Action::Folder(place) | Action::Program { place, .. } => (place, false),
        Action::File { place, content } => (place, content.is_some()),
        Action::Archive(fetch) => (&fetch.to, false),
    };
    let path = &place.path;
    let Some(entry) = look_entry(path).map_err(path_error("look at", path))? else {
        return Ok(Before::Absent);
    };
    let content = if keeps_content {
        fs::read_to_string(path).ok()
    } else {
        None
    };
    let content = content.filter(|text| text.len() <= CONTENT_MAX_BYTE);
    Ok(Before::Present { entry, content })
}

/// Takes a step.
///
/// # Errors
/// See [`PerformError`].
pub fn perform(host: &Host, config: &Config, action: &Action) -> Result<(), PerformError> {
    match action {
        Action::Run(tool) => run_tool(tool),
        Action::Folder(place) => {
            let path = &place.path;
            check_above(path, nix::unistd::geteuid().as_raw())?;
            match fs::create_dir_all(path) {
                Ok(()) => {}
                Err(source) => return Err(path_error("make", path)(source)),
            }
            settle(place)
        }
        Action::File {
            place,
            content: Some(content),
        } => write(place, content),
        Action::File { place, content: None } => {
            check_above(&place.path, nix::unistd::geteuid().as_raw())?;
            settle(place)
        }
        Action::Archive(fetch) => {
            let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
            let (uid, gid) = ids(&fetch.to)?;
            let owner = (uid.unwrap_or(own.0), gid.unwrap_or(own.1));
            Ok(archive::install(host, fetch, owner)?)
        }
        Action::JobAccounts => Ok(setup(host, &wanted(config), false, &mut |_, _| {})?),
        Action::Account(step) => Ok(accounts::take(host, step)?),
        Action::Program { from, place, sha256 } => Ok(program::install(from, place, sha256)?),
        Action::Service { manager, file } => Ok(service::start(host, *manager, file)?),
    }
}

/// Takes a step back.
///
/// # Errors
/// It cannot be, or what is there is not what the step left.
pub fn revert(host: &Host, undo: &Undo) -> Result<(), PerformError> {
    match undo {
        Undo::RemoveFile { path, .. }
        | Undo::RemoveFolder(path)
        | Undo::RemoveArchive { path, .. }
        | Undo::RemoveProgram { path, .. } => {
            check_above(path, nix::unistd::geteuid().as_raw())?;
        }
        Undo::Restore { place, .. } => check_above(&place.path, nix::unistd::geteuid().as_raw())?,
        Undo::Run(_) | Undo::DeleteAccount(_) | Undo::StopService { .. } | Undo::Impossible(_) => {}
    }
    match undo {
        Undo::Run(tool) => run_tool(tool),
        Undo::RemoveFile { path, content } => match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(found) if found == *content => fs::remove_file(path).map_err(path_error("remove", path)),
            Ok(_) | Err(_) => Err(PerformError::Changed {
                path: path.clone(),
                why: "holds something else by now",
            }),
        },
        Undo::RemoveFolder(path) => match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Err(PerformError::Changed {
                path: path.clone(),
                why: "is not empty",
            }),
            removed => removed.map_err(path_error("remove", path)),
        },
        Undo::RemoveArchive { path, sha256 } => match fs::read_to_string(path.join(STAMP)) {
            Err(_) if !path.exists() => Ok(()),
            Ok(found) if found.trim() == sha256 => {
                fs::remove_dir_all(path).map_err(path_error("remove", path))
            }
            Ok(_) | Err(_) => Err(PerformError::Changed {
                path: path.clone(),
                why: "is not that archive any more",
            }),
        },
        Undo::Restore {
            place,
            content: Some(content),
        } => write(place, content),
        Undo::Restore { place, content: None } => settle(place),
        Undo::RemoveProgram { path, sha256 } => Ok(program::remove(path, sha256)?),
        Undo::DeleteAccount(step) => Ok(accounts::delete(host, step)?),
        Undo::StopService { manager, file } => Ok(service::stop_for_good(host, *manager, file)?),
        Undo::Impossible(why) => Err(PerformError::Impossible(why)),
    }
}

fn run_tool(tool: &Tool) -> Result<(), PerformError> {
    let (spec, account) = prepared(tool)?;
    run_as(&spec, account.as_ref())?.require_success(&spec)?;
    Ok(())
}

/// The numbers of an owner and a group that are named; numbers name themselves.
fn ids(place: &Place) -> Result<(Option<u32>, Option<u32>), PerformError> {
    let user = |name: &String| {
        let found = users::get_user_by_name(name).map(|user| user.uid());
        found
            .or_else(|| name.parse().ok())
            .ok_or_else(|| PerformError::Nobody {
                what: "account",
                name: name.clone(),
            })
    };
    let group = |name: &String| {
        let found = users::get_group_by_name(name).map(|group| group.gid());
        found
            .or_else(|| name.parse().ok())
            .ok_or_else(|| PerformError::Nobody {
                what: "group",
                name: name.clone(),
            })
    };
    Ok((
        place.owner.as_ref().map(user).transpose()?,
        place.group.as_ref().map(group).transpose()?,
    ))
}

/// Gives what is at a path its owner, group and mode; a link is not followed.
fn settle(place: &Place) -> Result<(), PerformError> {
    let path = &place.path;
    let mut options = File::options();
    // A pipe would keep us waiting.
    let options = options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(path_error("open", path))?;
    let metadata = file.metadata().map_err(path_error("look at", path))?;
    if metadata.is_file() && metadata.nlink() > 1 {
        return Err(PerformError::Changed {
            path: path.clone(),
            why: "is a file that has other names too",
        });
    }
    give(place, &file)
}

fn give(place: &Place, file: &File) -> Result<(), PerformError> {
    let path = &place.path;
    let (uid, gid) = ids(place)?;
    if uid.is_some() || gid.is_some() {
        let given = fchown(file.as_fd(), uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        given.map_err(|errno| path_error("give away", path)(errno.into()))?;
    }
    // After the owner: changing it takes set-user-id bits away (chown(2)).
    if let Some(mode) = place.mode {
        let bits = Mode::from_bits_truncate(libc::mode_t::try_from(mode).unwrap_or_default());
        fchmod(file.as_fd(), bits).map_err(|errno| path_error("change the mode of", path)(errno.into()))?;
    }
    Ok(())
}

/// Replaces a file, or makes it. What is not named stays as it is, and of a new file is root's and readable.
fn write(place: &Place, content: &str) -> Result<(), PerformError> {
    let path = &place.path;
    check_above(path, nix::unistd::geteuid().as_raw())?;
    let kept = look_entry(path).map_err(path_error("look at", path))?;
    let whole = Place {
        path: path.clone(),
        owner: place
            .owner
            .clone()
            .or_else(|| kept.as_ref().map(|entry| entry.owner.clone())),
        group: place
            .group
            .clone()
            .or_else(|| kept.as_ref().map(|entry| entry.group.clone())),
        mode: place
            .mode
            .or_else(|| Some(kept.as_ref().map_or(0o644, |entry| entry.mode))),
    };
    let mut given = Ok(());
    let replaced = replace_with(path, content.as_bytes(), &mut |file| {
        given = give(&whole, file);
        given.is_ok()
    });
    given?;
    replaced.map_err(path_error("write", path))
}

#[cfg(test)]
#[path = "perform/tests.rs"]
mod tests;
