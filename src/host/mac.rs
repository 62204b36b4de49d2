//! What a Mac says of itself: its release, where its developer tools are, and which folders an account has.
//!
//! Ordinary code that asks the tools of [`Host`]; the answers of real ones were never seen by us.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::geteuid;

use super::Host;
use super::command::{CommandError, CommandSpec, run, run_as};
use crate::slot::Account;

/// How long one tool may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// xcode-select(1) says so when no developer folder is selected.
const NOTHING_SELECTED: i32 = 2;

/// Why a Mac does not say what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum MacError {
    /// A tool failed.
    #[error("could not ask this Mac")]
    Tool(#[from] CommandError),
    /// A tool said something that makes no sense.
    #[error("`{command}` says `{said}`")]
    Said {
        /// The command line.
        command: String,
        /// Its answer.
        said: String,
    },
    /// The folders of accounts cannot be read.
    #[error("could not look into `{folder}`")]
    Folders {
        /// Where they are.
        folder: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is not one folder that is the account's.
    #[error(
        "`{account}` has {count} folders in `{folder}`, not one\nhint: see what `getconf DARWIN_USER_TEMP_DIR` says as that account"
    )]
    UserFolder {
        /// The account.
        account: String,
        /// How many it has.
        count: usize,
        /// Where they are.
        folder: Utf8PathBuf,
    },
}

/// The version of macOS, `26.1` for example.
///
/// # Errors
/// The tool does not say.
pub fn version(host: &Host) -> Result<String, MacError> {
    let spec = CommandSpec::new(&host.mac.sw_vers, &["-productVersion"], TIMEOUT);
    let said = run(&spec)?.require_success(&spec)?.stdout.trim().to_owned();
    let is_version = !said.is_empty() && said.split('.').all(|part| part.parse::<u32>().is_ok());
    if is_version {
        Ok(said)
    } else {
        let command = spec.to_string();
        Err(MacError::Said { command, said })
    }
}

/// The machine, as `uname -m` says in a process that Rosetta does not translate.
///
/// # Errors
/// The tool does not say.
pub fn arch(host: &Host) -> Result<String, MacError> {
    let spec = CommandSpec::new(&host.mac.sysctl, &["-n", "hw.optional.arm64"], TIMEOUT);
    let output = run(&spec)?;
    let said = output.stdout.trim().to_owned();
    match (output.status.success(), said.as_str()) {
        (true, "1") => Ok("arm64".to_owned()),
        // A Mac with a processor of Intel's does not know the name.
        (true, "0") | (false, _) => Ok("x86_64".to_owned()),
        (true, _) => {
            let command = spec.to_string();
            Err(MacError::Said { command, said })
        }
    }
}

/// The selected developer folder; `None` when none is.
///
/// # Errors
/// The tool fails otherwise, or names no absolute path.
pub fn developer_dir(host: &Host) -> Result<Option<Utf8PathBuf>, MacError> {
    let spec = CommandSpec::new(&host.mac.xcode_select, &["-p"], TIMEOUT);
    let output = run(&spec)?;
    if output.status.code() == Some(NOTHING_SELECTED) {
        return Ok(None);
    }
    let said = output.require_success(&spec)?.stdout.trim().to_owned();
    let path = Utf8PathBuf::from(&said);
    if path.is_absolute() {
        Ok(Some(path))
    } else {
        let command = spec.to_string();
        Err(MacError::Said { command, said })
    }
}

/// The account's folder in `/private/var/folders`, the one above `T` and `C`; getconf(1), run as the account, makes
/// macOS create it where there is none yet. Another account than the caller's takes root.
///
/// # Errors
/// There is none, or more than one that could be it.
pub fn user_folder(host: &Host, account: &Account) -> Result<Utf8PathBuf, MacError> {
    let look = || {
        user_folders(host, account.uid).map_err(|source| MacError::Folders {
            folder: host.user_folders.clone(),
            source,
        })
    };
    let mut found = look()?;
    if found.is_empty() {
        let spec = CommandSpec::new(&host.mac.getconf, &["DARWIN_USER_TEMP_DIR"], TIMEOUT);
        let other = (account.uid != geteuid().as_raw()).then_some(account);
        run_as(&spec, other)?.require_success(&spec)?;
        found = look()?;
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        several => Err(MacError::UserFolder {
            account: account.name.clone(),
            count: several.len(),
            folder: host.user_folders.clone(),
        }),
    }
}

/// The account's own folders in `/private/var/folders/XX/`, found by who owns them: their names are made by macOS,
/// and there is no rule for them to rely on.
pub(crate) fn user_folders(host: &Host, uid: u32) -> io::Result<Vec<Utf8PathBuf>> {
    let mut found = Vec::new();
    for outer in entries(&host.user_folders)? {
        if !outer.symlink_metadata()?.is_dir() {
            continue;
        }
        for inner in entries(&outer)? {
            // What has gone meanwhile is nobody's.
            let is_own = inner
                .symlink_metadata()
                .is_ok_and(|found| found.uid() == uid && found.is_dir());
            found.extend(is_own.then_some(inner));
        }
    }
    Ok(found)
}

/// The entries of a folder, sorted; none where there is no such folder.
pub(crate) fn entries(folder: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    let listed = match folder.read_dir_utf8() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut paths = listed
        .map(|entry| entry.map(|entry| entry.path().to_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
