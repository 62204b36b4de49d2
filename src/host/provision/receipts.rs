//! The file of receipts.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};

use crate::daemon::check::now_unix_s;
use crate::provision::receipt::{Before, Event, Receipt, ReceiptError, Record, State, VERSION, parse};
use crate::provision::report::Planned;

/// Why receipts cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptsError {
    /// The file cannot be read or written.
    #[error("could not {doing} the receipts `{path}`")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else is at work.
    #[error("another ephemerd changes this host\nhint: wait until it has ended")]
    Busy,
    /// It holds nonsense.
    #[error(transparent)]
    Parse(#[from] ReceiptError),
}

/// The receipts of one host, locked against other processes as long as this lives.
#[derive(Debug)]
pub struct Receipts {
    path: Utf8PathBuf,
    file: File,
    /// Oldest first.
    pub all: Vec<Receipt>,
}

/// Where they are in a data folder.
fn file(data_dir: &Utf8Path) -> Utf8PathBuf {
    data_dir.join("host/receipts.jsonl")
}

impl Receipts {
    /// Whether there are any in a data folder.
    pub fn exist(data_dir: &Utf8Path) -> bool {
        file(data_dir).exists()
    }

    /// Opens the receipts in a data folder, and makes the file when there is none. A line that was not finished is taken
    /// away.
    ///
    /// # Errors
    /// See [`ReceiptsError`].
    pub fn open(data_dir: &Utf8Path) -> Result<Self, ReceiptsError> {
        Self::open_file(file(data_dir))
    }

    /// Opens the receipts in a file, as [`Receipts::open`] does.
    ///
    /// # Errors
    /// As there.
    pub fn open_file(path: Utf8PathBuf) -> Result<Self, ReceiptsError> {
        let fail = |doing| {
            let path = path.clone();
            move |source| ReceiptsError::Io { doing, path, source }
        };
        let mut options = File::options();
        let options = options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(fail("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ReceiptsError::Busy),
            Err(TryLockError::Error(source)) => return Err(fail("lock")(source)),
        }
        let text = io::read_to_string(&file).map_err(fail("read"))?;
        let (all, whole) = parse(&text)?;
        if whole < text.len() {
            let length = u64::try_from(whole).unwrap_or(u64::MAX);
            file.set_len(length).map_err(fail("mend"))?;
        }
        Ok(Self { path, file, all })
    }

    /// The receipt of a step that is about to be taken: a new one, or one that an earlier process began for the same
    /// step and did not end, which knows what was there before it.
    ///
    /// # Errors
    /// It cannot be written, and then the step must not be taken.
    pub fn begin(&mut self, planned: &Planned, before: Before) -> Result<u64, ReceiptsError> {
        let same = |it: &&Receipt| it.state == State::Open && it.step == planned.step;
        if let Some(open) = self.all.iter().find(same) {
            return Ok(open.number);
        }
        let number = self.all.last().map_or(1, |last| last.number + 1);
        let receipt = Receipt {
            number,
            item: planned.item.clone(),
            step: planned.step.clone(),
            before,
            state: State::Open,
        };
        let event = Event::Began {
            item: receipt.item.clone(),
            step: Box::new(receipt.step.clone()),
            before: receipt.before.clone(),
        };
        self.write(number, event)?;
        self.all.push(receipt);
        Ok(number)
    }

    /// Writes down how a step ended.
    ///
    /// # Errors
    /// It cannot be written; the next process finds the receipt open.
    pub fn end(&mut self, number: u64, event: Event) -> Result<(), ReceiptsError> {
        let state = match &event {
            // A beginning is no end; `begin` writes it.
            Event::Began { .. } => return Ok(()),
            Event::Done => State::Done,
            Event::Found => State::Found,
            Event::Failed { why } => State::Failed(why.clone()),
            Event::Reverted => State::Reverted,
        };
        self.write(number, event)?;
        if let Some(receipt) = self.all.iter_mut().find(|receipt| receipt.number == number) {
            receipt.state = state;
        }
        Ok(())
    }

    /// Appends one line, and returns when it is on disk.
    fn write(&mut self, receipt: u64, event: Event) -> Result<(), ReceiptsError> {
        let record = Record {
            version: VERSION,
            receipt,
            at_unix_s: now_unix_s(),
            event,
        };
        let written = serde_json::to_string(&record)
            .map_err(io::Error::from)
            .and_then(|line| {
                self.file.write_all(format!("{line}\n").as_bytes())?;
                self.file.sync_data()
            });
        written.map_err(|source| ReceiptsError::Io {
            doing: "write",
            path: self.path.clone(),
            source,
        })
    }
}
