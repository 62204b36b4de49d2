//! How a ledger is, without changing it.

use std::sync::Mutex;

use camino::Utf8Path;
use rusqlite::{Connection, OpenFlags};

use super::ballast::Ballast;
use super::error::failed;
use super::read::Quarantined;
use super::{Ledger, LedgerError, open};
use crate::job::JobId;

/// How a ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Bytes of its file.
    pub size_byte: u64,
    /// What SQLite finds wrong with it; nothing when it is sound.
    pub problems: Vec<String>,
    /// Slots that must not be used.
    pub quarantined: Vec<Quarantined>,
    /// Jobs that are not finished, oldest first.
    pub unfinished: Vec<JobId>,
}

impl Ledger {
    /// Looks at the ledger at `path`, which is only read.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is something else, or was not written by this version.
    pub fn inspect(path: &Utf8Path) -> Result<Health, LedgerError> {
        let told = |source| failed("open the database", path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(told)?;
        db.busy_timeout(open::BUSY_TIMEOUT).map_err(told)?;
        open::recognise(&db, path)?;
        let ledger = Self {
            path: path.to_owned(),
            db: Mutex::new(db),
            ballast: Ballast::of(path),
            counting: std::sync::OnceLock::new(),
        };
        let problems = ledger.read("check the database", open::problems)?;
        let size_byte = std::fs::metadata(path).map_or(0, |meta| meta.len());
        Ok(Health {
            size_byte,
            problems,
            quarantined: ledger.quarantined()?,
            unfinished: ledger.unfinished()?.into_iter().map(|job| job.id).collect(),
        })
    }
}
