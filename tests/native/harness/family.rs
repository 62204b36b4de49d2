//! Account families: a few sets of slot accounts that stay on the test machine, each used by one test at a time.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use super::{PROGRAM, command, said, wait_for};

/// Families of four slots each. A family's name must not be another one's with a number.
const SMALL: [&str; 4] = ["_ephta", "_ephtb", "_ephtc", "_ephtd"];

/// The family of sixteen slots.
const LARGE: &str = "_ephtw";

/// Where the locks are. Not in a folder that anybody may write, so that nobody can plant something there.
const LOCKS: &str = "/run/lock/ephemerd-tests";

/// One account family that is this test's alone.
#[derive(Debug)]
pub(crate) struct Family {
    /// The name of the family, as `host.account` has it.
    pub(crate) name: &'static str,
    /// How many slots it has.
    pub(crate) slots: u32,
    _lock: File,
}

impl Family {
    /// A family of four slots.
    pub(crate) fn take() -> Self {
        Self::first_free(&SMALL, 4)
    }

    /// The family of sixteen slots.
    pub(crate) fn take_large() -> Self {
        Self::first_free(&[LARGE], 16)
    }

    fn first_free(names: &[&'static str], slots: u32) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests start daemons whose jobs run as accounts of their own: run them as root"
        );
        let (name, lock) = wait_for("an account family nobody else uses", || {
            names.iter().find_map(|name| Some((*name, try_lock(name)?)))
        });
        let family = Self {
            name,
            slots,
            _lock: lock,
        };
        family.create();
        family
    }

    /// Creates the accounts where they are missing, one family at a time: useradd(8) locks /etc/passwd.
    fn create(&self) {
        let one_at_a_time = lock_file("host-setup");
        one_at_a_time.lock().unwrap();
        let config = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            config.path(),
            format!(
                "[host]\naccount = {:?}\n[native]\nslots = {}\n",
                self.name, self.slots
            ),
        )
        .unwrap();
        let output = command(PROGRAM)
            .arg("--config")
            .arg(config.path())
            .args(["host", "setup"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }

    /// The user id of a slot's account.
    pub(crate) fn uid(&self, slot: u32) -> u32 {
        let name = format!("{}{slot}", self.name);
        nix::unistd::User::from_name(&name).unwrap().unwrap().uid.as_raw()
    }

    /// The user ids of all slots' accounts.
    pub(crate) fn uids(&self) -> Vec<u32> {
        (1..=self.slots).map(|slot| self.uid(slot)).collect()
    }
}

fn lock_file(name: &str) -> File {
    fs::create_dir_all(LOCKS).unwrap();
    let path = Path::new(LOCKS).join(name);
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap()
}

fn try_lock(name: &str) -> Option<File> {
    let file = lock_file(name);
    match file.try_lock() {
        Ok(()) => Some(file),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => panic!("cannot lock {name}: {error}"),
    }
}
