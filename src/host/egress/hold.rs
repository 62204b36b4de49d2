//! Who may change the rules. Everyone who runs jobs under them holds them shared; whoever loads others needs them alone.
//! So two processes with the same configuration share them, and two with different ones do not take turns.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use camino::Utf8PathBuf;

use super::{EgressError, Expected, load, verify};
use crate::egress::Blocked;
use crate::host::Host;

/// How often to look again while others hold other rules: they follow the network around this host at once, and may
/// just have noticed.
const TRIES: u32 = 4;

/// Rules that stay as long as this lives, unless somebody else changes them.
#[derive(Debug)]
pub struct Held {
    _lock: File,
    /// What they had blocked when they were taken.
    pub blocked: BTreeMap<u32, Blocked>,
    /// Whether they had to be loaded.
    pub loaded: bool,
}

fn lock_file(host: &Host, name: &str) -> Result<(File, Utf8PathBuf), EgressError> {
    let folder = host.run.join("ephemerd");
    let path = folder.join(format!("{name}.egress.lock"));
    let opened = std::fs::create_dir_all(&folder).and_then(|()| {
        // Whoever can open the file can lock it.
        File::options()
            .create(true)
            .truncate(false)
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
    let (file, path) = lock_file(host, &expected.name)?;
    let failed = |source: io::Error| EgressError::State {
        path: path.clone(),
        source,
    };
    for turn in 0..TRIES {
        if turn > 0 {
            std::thread::sleep(host.retry_pause);
        }
        file.lock_shared().map_err(failed)?;
        match verify(host, expected) {
            Ok(blocked) => {
                return Ok(Held {
                    _lock: file,
                    blocked,
                    loaded: false,
                });
            }
            Err(EgressError::Lost { .. }) => {}
            Err(error) => return Err(error),
        }
        match file.try_lock() {
            Ok(()) => {
                load(host, expected)?;
                let blocked = verify(host, expected)?;
                file.lock_shared().map_err(failed)?;
                return Ok(Held {
                    _lock: file,
                    blocked,
                    loaded: true,
                });
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    Err(EgressError::Busy {
        name: expected.name.clone(),
    })
}

/// Takes the rules out, unless somebody holds them.
///
/// # Errors
/// [`EgressError::Busy`] when somebody does.
pub fn remove(host: &Host, name: &str) -> Result<(), EgressError> {
    let (file, path) = lock_file(host, name)?;
    match file.try_lock() {
        Ok(()) => super::remove(host, name),
        Err(TryLockError::WouldBlock) => Err(EgressError::Busy {
            name: name.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(EgressError::State { path, source }),
    }
}
