//! Who may change the rules. Everyone who runs jobs under them holds them shared; whoever loads others needs them alone.
//! So two processes with the same configuration share them, and two with different ones do not take turns.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};

use super::{EgressError, Expected, canary, load, verify};
use crate::egress::Blocked;
use crate::host::Host;

/// How often to look again while others hold other rules: they follow the network around this host at once, and may
/// just have noticed.
const TRIES: u32 = 4;

/// How the files that are locked end.
const LOCK: &str = ".egress.lock";

/// Rules that stay as long as this lives, unless somebody else changes them.
#[derive(Debug)]
pub struct Held {
    /// Locked. What is written in it are the rules under which jobs run.
    lock: File,
    path: Utf8PathBuf,
    /// What they had blocked when they were taken.
    pub blocked: BTreeMap<u32, Blocked>,
    /// Whether they had to be loaded.
    pub loaded: bool,
}

impl Held {
    /// Writes down the rules under which jobs run now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note(&self, expected: &Expected) -> Result<(), EgressError> {
        note(&self.lock, expected).map_err(|source| EgressError::State {
            path: self.path.clone(),
            source,
        })
    }
}

fn note(mut lock: &File, expected: &Expected) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    lock.write_all(expected.text.as_bytes())
}

fn lock_file(host: &Host, name: &str) -> Result<(File, Utf8PathBuf), EgressError> {
    let folder = host.run.join("ephemerd");
    let path = folder.join(format!("{name}{LOCK}"));
    let opened = std::fs::create_dir_all(&folder).and_then(|()| {
        // Whoever can open the file can lock it.
        File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
    });
    match opened {
        Ok(file) => Ok((file, path)),
        Err(source) => Err(EgressError::State { path, source }),
    }
}

/// Sees to it that the rules are loaded, and holds them.
///
/// # Errors
/// [`EgressError::Busy`] when jobs run under other rules of the same name.
pub fn hold(host: &Host, expected: &Expected) -> Result<Held, EgressError> {
    let (lock, path) = lock_file(host, &expected.name)?;
    let failed = |source: io::Error| EgressError::State {
        path: path.clone(),
        source,
    };
    let mut loaded = false;
    let mut refused = EgressError::Busy {
        name: expected.name.clone(),
    };
    for turn in 0..TRIES {
        if turn > 0 && !loaded {
            std::thread::sleep(host.retry_pause);
        }
        lock.lock_shared().map_err(failed)?;
        canary::add_addresses(host)?;
        match verify(host, expected) {
            Ok(blocked) => {
                return Ok(Held {
                    lock,
                    path,
                    blocked,
                    loaded,
                });
            }
            Err(lost @ EgressError::Lost { .. }) if loaded => refused = lost,
            Err(EgressError::Lost { .. }) => {}
            Err(error) => return Err(error),
        }
        // Those who hold them run jobs under these very rules, or nobody does.
        let may_load = match lock.try_lock() {
            Ok(()) => {
                note(&lock, expected).map_err(failed)?;
                true
            }
            Err(TryLockError::WouldBlock) => written(&lock).map_err(failed)? == expected.text,
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        };
        if may_load {
            load(host, expected)?;
            // Between an exclusive lock and a shared one another may have had it: compared again at the next turn.
            loaded = true;
        }
    }
    Err(refused)
}

/// The rules under which jobs run, as whoever loaded them has written down.
fn written(mut lock: &File) -> io::Result<String> {
    let mut text = String::new();
    lock.seek(SeekFrom::Start(0))?;
    lock.read_to_string(&mut text)?;
    Ok(text)
}

/// Takes the rules out, unless somebody holds them, and the canary's addresses, unless another installation's rules are
/// held.
///
/// # Errors
/// [`EgressError::Busy`] when somebody does.
pub fn remove(host: &Host, name: &str) -> Result<(), EgressError> {
    let (lock, path) = lock_file(host, name)?;
    match lock.try_lock() {
        Ok(()) => super::remove(host, name)?,
        Err(TryLockError::WouldBlock) => {
            return Err(EgressError::Busy {
                name: name.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(EgressError::State { path, source }),
    }
    if !others_hold(host, &path) {
        canary::remove_addresses(host);
    }
    Ok(())
}

/// Whether another lock than `own` is held. One that cannot be asked counts as held.
fn others_hold(host: &Host, own: &Utf8Path) -> bool {
    let Ok(entries) = host.run.join("ephemerd").read_dir_utf8() else {
        return false;
    };
    entries
        .flatten()
        .filter(|entry| entry.path() != own && entry.file_name().ends_with(LOCK))
        .any(|entry| File::open(entry.path()).is_ok_and(|lock| lock.try_lock().is_err()))
}
