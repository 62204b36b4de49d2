//! What can go wrong with the ledger, told so that the reader knows which file and what to do.

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::ErrorCode;

use crate::job::JobId;

/// Why the ledger could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file could not be made, or not be made private.
    #[error(
        "could not create the ledger `{path}`\nhint: its folder must exist and be writable by this account"
    )]
    Create {
        /// The ledger's file.
        path: Utf8PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is damaged, or no database at all.
    #[error(
        "the ledger `{path}` is damaged\nhint: move it away together with `{path}-wal` and start again; \
         workspaces the new ledger does not know are swept"
    )]
    Corrupt {
        /// The ledger's file.
        path: Utf8PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A later version of this program wrote it.
    #[error(
        "the ledger `{path}` has schema version {found}, this program knows up to {known}\n\
         hint: use the newer ephemerd that wrote it, or move the file away"
    )]
    Newer {
        /// The ledger's file.
        path: Utf8PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// A database of something else.
    #[error("`{path}` is a database, but not a ledger\nhint: check `host.data_dir`, or move the file away")]
    NotALedger {
        /// The file.
        path: Utf8PathBuf,
    },
    /// The file system cannot hold a write-ahead log.
    #[error(
        "the ledger `{path}` cannot have a write-ahead log, SQLite stays with `{mode}`\n\
         hint: put `host.data_dir` on a local disk"
    )]
    NoWal {
        /// The ledger's file.
        path: Utf8PathBuf,
        /// The journal mode SQLite took instead.
        mode: String,
    },
    /// Reading or writing failed.
    #[error("could not {doing} in the ledger `{path}`\nhint: {hint}")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// The ledger's file.
        path: Utf8PathBuf,
        /// What to do about it.
        hint: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The job is not in the ledger, or is finished.
    #[error("the ledger has no unfinished job `{0}`\nhint: `ephemerd jobs` shows what it has")]
    NotOpen(JobId),
    /// A job cannot be finished as clean while it holds something.
    #[error(
        "job `{0}` is not clean, it still holds something\nhint: release what it acquired, or finish it as not clean"
    )]
    StillHeld(JobId),
    /// The system gave no random number.
    #[error("could not make a job id\nhint: the system's source of random numbers must be readable")]
    Chance(#[source] getrandom::Error),
}

impl LedgerError {
    /// Whether there was no room on the disk.
    pub fn is_full(&self) -> bool {
        let code = match self {
            Self::Database { source, .. } => source.sqlite_error_code(),
            _ => None,
        };
        code == Some(ErrorCode::DiskFull)
    }
}

/// Returns the error for SQLite's refusal to do something, with the remedy that fits its cause.
pub(super) fn failed(doing: &'static str, path: &Utf8Path, source: rusqlite::Error) -> LedgerError {
    let path = path.to_owned();
    let hint = match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            return LedgerError::Corrupt { path, source };
        }
        Some(ErrorCode::DiskFull) => "the disk is full: free some space",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "this account must be able to write the file and its folder, and the disk must not be read-only"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has held it for seconds: see `fuser` on the file"
        }
        Some(ErrorCode::SystemIoFailure) => "the disk reports errors: see the system's log",
        // Whatever is left is about the contents: a row or a table nobody here wrote.
        _ => "its contents are not what this version writes; if nobody edited the file, this is a bug",
    };
    LedgerError::Database {
        doing,
        path,
        hint,
        source,
    }
}
