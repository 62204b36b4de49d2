//! What an upgrade keeps so that it can go back: its record, and the ledger.
//!
//! A newer program may change the ledger so that the older one does not open it. So it is copied while nothing has it
//! open, and put back with the older program; jobs that the newer one took are none, since it was never ready.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};

use super::super::files::replace;
use super::super::program::{self, ProgramError};
use crate::service::upgrade::{Record, VERSION};

/// The files of the ledger that hold something while nobody has it open.
const LEDGER: [&str; 2] = ["ledger.db", "ledger.db-wal"];

/// Bytes that a file of the ledger may have, which is read as a whole: some twenty times what one has that is full.
const LARGEST: u64 = 1 << 30;

/// What cannot be kept or put back.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A file cannot be read or changed.
    #[error("could not {doing} `{path}`")]
    Path {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record makes no sense.
    #[error(
        "the record of an upgrade `{path}` makes no sense: {why}\nhint: was it written by a newer version? Upgrade to that one"
    )]
    Record {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The program cannot be put back.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

fn fail(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> KeepError {
    let path = path.to_owned();
    move |source| KeepError::Path { doing, path, source }
}

fn record_file(data_dir: &Utf8Path) -> Utf8PathBuf {
    data_dir.join("host/upgrade.json")
}

/// Where a file of the ledger is, and where it is kept.
fn ledger_files(data_dir: &Utf8Path) -> [(Utf8PathBuf, Utf8PathBuf); 2] {
    let (state, host) = (data_dir.join("state"), data_dir.join("host"));
    LEDGER.map(|name| (state.join(name), host.join(format!("before-upgrade-{name}"))))
}

/// The upgrade that has begun and not ended, if there is one.
///
/// # Errors
/// See [`KeepError`].
pub fn read_record(data_dir: &Utf8Path) -> Result<Option<Record>, KeepError> {
    let path = record_file(data_dir);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail("read", &path)(error)),
    };
    let wrong = |why: String| KeepError::Record {
        path: path.clone(),
        why,
    };
    let record: Record = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if record.version != VERSION {
        return Err(wrong(format!("version {} is not known", record.version)));
    }
    Ok(Some(record))
}

/// Writes down that an upgrade begins; it is on disk when this returns.
///
/// # Errors
/// See [`KeepError`].
pub fn write_record(data_dir: &Utf8Path, record: &Record) -> Result<(), KeepError> {
    // What an earlier upgrade kept is not what this one goes back to.
    drop_ledger(data_dir)?;
    let path = record_file(data_dir);
    let bytes = serde_json::to_vec(record).map_err(io::Error::from);
    bytes
        .and_then(|bytes| replace(&path, &bytes))
        .map_err(fail("write", &path))
}

/// Writes down that it has ended, whichever way.
///
/// # Errors
/// See [`KeepError`].
pub fn end_record(data_dir: &Utf8Path) -> Result<(), KeepError> {
    remove(&record_file(data_dir))?;
    drop_ledger(data_dir)
}

fn drop_ledger(data_dir: &Utf8Path) -> Result<(), KeepError> {
    ledger_files(data_dir)
        .iter()
        .try_for_each(|(_, kept)| remove(kept))
}

fn remove(path: &Utf8Path) -> Result<(), KeepError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Keeps a copy of the ledger, which nobody may have open.
///
/// # Errors
/// See [`KeepError`].
pub fn keep_ledger(data_dir: &Utf8Path) -> Result<(), KeepError> {
    // The database itself last: as long as it is not there, nothing counts as kept.
    for (path, kept) in ledger_files(data_dir).iter().rev() {
        copy(path, kept)?;
    }
    Ok(())
}

/// Copies a file as a whole; one that is not there leaves none behind.
fn copy(from: &Utf8Path, to: &Utf8Path) -> Result<(), KeepError> {
    // The dispatcher's folder is not ours: what is a link there leads wherever it likes.
    let mut options = fs::File::options();
    let opened = options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let read = opened.open(from).and_then(|file| {
        let found = file.metadata()?;
        // A second name may be that of somebody else's file.
        if !found.is_file() || found.nlink() != 1 || found.len() > LARGEST {
            return Err(io::Error::other("this is no file of a ledger's"));
        }
        let mut bytes = vec![];
        file.take(LARGEST).read_to_end(&mut bytes).map(|_| bytes)
    });
    match read {
        Ok(bytes) => replace(to, &bytes).map_err(fail("write", to)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => remove(to),
        Err(error) => Err(fail("read", from)(error)),
    }
}

/// Puts back what an upgrade has changed, as far as it came: the program, and the ledger. The service must be stopped.
///
/// # Errors
/// See [`KeepError`].
pub fn go_back(data_dir: &Utf8Path, path: &Utf8Path, record: &Record) -> Result<(), KeepError> {
    let is_old =
        |path: &Utf8Path| Ok::<_, KeepError>(program::sha256(path)?.as_ref() == Some(&record.from_sha256));
    if !is_old(path)? {
        let kept = program::kept(path);
        if !is_old(&kept)? {
            return Err(ProgramError::Another { path: kept }.into());
        }
        program::swap_back(path)?;
    }
    let files = ledger_files(data_dir);
    if files[0].1.exists() {
        for (path, kept) in &files {
            copy(kept, path)?;
        }
    }
    program::discard(&program::staged(path))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stand {
        data: Utf8PathBuf,
        path: Utf8PathBuf,
        _keep: tempfile::TempDir,
    }

    fn stand() -> (Stand, Record) {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        let stand = Stand {
            data: top.join("data"),
            path: top.join("ephemerd"),
            _keep: keep,
        };
        fs::create_dir_all(stand.data.join("state")).unwrap();
        fs::create_dir_all(stand.data.join("host")).unwrap();
        fs::write(&stand.path, "old").unwrap();
        fs::write(top.join("download"), "new").unwrap();
        fs::write(stand.data.join("state/ledger.db"), "schema 1").unwrap();
        let record = Record {
            version: VERSION,
            from: "1".to_owned(),
            from_sha256: program::sha256(&stand.path).unwrap().unwrap(),
            to: "2".to_owned(),
            to_sha256: program::stage(&top.join("download"), &stand.path).unwrap(),
        };
        (stand, record)
    }

    /// Does the steps of an upgrade up to the one with this number.
    fn until(stand: &Stand, record: &Record, last: usize) {
        let state = stand.data.join("state");
        let steps: [&dyn Fn(); 5] = [
            &|| write_record(&stand.data, record).unwrap(),
            &|| keep_ledger(&stand.data).unwrap(),
            &|| program::swap(&stand.path, true).unwrap(),
            &|| fs::write(state.join("ledger.db"), "schema 2").unwrap(),
            &|| fs::write(state.join("ledger.db-wal"), "more").unwrap(),
        ];
        steps[..=last].iter().for_each(|step| step());
    }

    #[test]
    fn an_upgrade_that_ends_anywhere_is_taken_back_to_what_was_there_before() {
        for last in 0..5 {
            let (stand, record) = stand();
            until(&stand, &record, last);
            assert_eq!(read_record(&stand.data).unwrap().as_ref(), Some(&record));
            // Twice: going back may be interrupted as well.
            for _ in 0..2 {
                go_back(&stand.data, &stand.path, &record).unwrap();
            }
            end_record(&stand.data).unwrap();
            assert_eq!(fs::read_to_string(&stand.path).unwrap(), "old", "{last}");
            let left: Vec<_> = stand.data.join("state").read_dir_utf8().unwrap().collect();
            assert_eq!(left.len(), 1, "{last}: {left:?}");
            let ledger = fs::read_to_string(stand.data.join("state/ledger.db")).unwrap();
            assert_eq!(ledger, "schema 1", "{last}");
        }
    }

    #[test]
    fn nothing_is_put_in_place_of_a_program_that_is_neither_the_old_one_nor_has_it_beside_itself() {
        let (stand, record) = stand();
        fs::write(&stand.path, "somebody's").unwrap();
        assert!(go_back(&stand.data, &stand.path, &record).is_err());
        assert_eq!(fs::read_to_string(&stand.path).unwrap(), "somebody's");
    }

    #[test]
    fn a_record_of_a_later_version_is_not_understood_and_says_so() {
        let (stand, record) = stand();
        let later = Record { version: 2, ..record };
        write_record(&stand.data, &later).unwrap();
        let error = read_record(&stand.data).unwrap_err().to_string();
        assert!(error.contains("version 2 is not known\nhint: "), "{error}");
    }
}
