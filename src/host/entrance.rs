//! The entrance of a slot: the folder of the hook and the socket by which a GitHub job reports before its first step. See
//! [`crate::github::admission`].
//!
//! Everything in it is ours, and the folder can be changed by nobody else. The socket stays ours too: an owner could give it
//! flags or access control lists that keep root from removing it, on macOS. The slot's group may connect, which keeps
//! everybody else on the host away from it; the other slots, which are in the same group, are told apart by who asks.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use camino::{Utf8Path, Utf8PathBuf};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::unistd::{Gid, Uid, fchownat, getegid, geteuid};

use super::files::{FilesError, check_above, check_data_dir, give_dir, make_dir, open_folder, wipe};
use crate::github::admission::hook::{self, Place};
use crate::slot::Account;

/// Everybody may look, nobody else may change.
const SEEN: Mode = Mode::S_IRWXU
    .union(Mode::S_IRGRP)
    .union(Mode::S_IXGRP)
    .union(Mode::S_IROTH)
    .union(Mode::S_IXOTH);

/// The hook: everybody may read and run it.
const RUN: Mode = SEEN.difference(Mode::S_IWUSR);

/// The socket: the group may connect, which takes writing (unix(7)).
const CONNECT: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR).union(Mode::S_IWGRP);

/// Why a slot has no entrance.
#[derive(Debug, thiserror::Error)]
pub enum EntranceError {
    /// A folder cannot be made, or is not safe.
    #[error("could not prepare the entrance of a slot")]
    Folder(#[from] FilesError),
    /// The hook or the socket cannot be made.
    #[error("could not make `{path}`")]
    Make {
        /// Which.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes the entrance at `place` for jobs that run as `account`, with a hook that runs `program` (ephemerd itself), and
/// returns its socket. What an earlier process left there is removed first.
///
/// # Errors
/// When somebody else could change what is there, or the system refuses; what was made is removed again.
pub fn make(place: &Place, program: &Utf8Path, account: &Account) -> Result<UnixListener, EntranceError> {
    let folder = place.folder();
    let (Some(daemon), Some(name)) = (folder.parent(), folder.file_name()) else {
        let name = folder.to_string();
        return Err(FilesError::Name { name }.into());
    };
    if let Some(shared) = daemon.parent() {
        check_above(shared, geteuid().as_raw())?;
        ensure(shared)?;
    }
    ensure(daemon)?;
    wipe(daemon, name)?;
    fill(place, program, account).inspect_err(|_| {
        // The first failure is the one to report; what stays is removed by the next start.
        let _ = wipe(daemon, name);
    })
}

fn fill(place: &Place, program: &Utf8Path, account: &Account) -> Result<UnixListener, EntranceError> {
    make_dir(place.folder(), SEEN, geteuid().as_raw(), getegid().as_raw())?;
    let folder = open_folder(place.folder())?;
    let socket = place.socket();
    write_hook(&folder, place, &hook::text(program, &socket)).map_err(|source| EntranceError::Make {
        path: place.hook(),
        source,
    })?;
    listen(&folder, place, account).map_err(|source| EntranceError::Make {
        path: socket.clone(),
        source,
    })
}

/// Makes a folder that all slots share, or makes sure that it is ours alone.
fn ensure(folder: &Utf8Path) -> Result<(), FilesError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    match make_dir(folder, SEEN, uid, gid) {
        // Another process with another data folder, or an earlier one.
        Err(FilesError::Io {
            source: Errno::EEXIST,
            ..
        }) => {
            check_data_dir(folder, uid)?;
            give_dir(folder, SEEN, uid, gid)
        }
        made => made,
    }
}

fn write_hook(folder: &OwnedFd, place: &Place, text: &str) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let path = place.hook();
    let file = openat(folder, path.file_name().unwrap_or_default(), flags, Mode::S_IRUSR)?;
    let mut file = std::fs::File::from(file);
    file.write_all(text.as_bytes())?;
    Ok(fchmod(file.as_fd(), RUN)?)
}

fn listen(folder: &OwnedFd, place: &Place, account: &Account) -> io::Result<UnixListener> {
    // chown(2) takes this number for "leave as it is".
    if account.gid == u32::MAX {
        return Err(Errno::EINVAL.into());
    }
    let path = place.socket();
    let listener = UnixListener::bind(&path)?;
    let name = path.file_name().unwrap_or_default();
    // Without root a job runs as we do.
    if account.uid != geteuid().as_raw() {
        let (ours, group) = (Uid::effective(), Gid::from_raw(account.gid));
        fchownat(
            folder,
            name,
            Some(ours),
            Some(group),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )?;
    }
    // It is ours in a folder of ours, so it is still the socket.
    fchmodat(folder, name, CONNECT, FchmodatFlags::FollowSymlink)?;
    Ok(listener)
}

/// Removes the entrance at `place`.
///
/// # Errors
/// When the system refuses.
pub fn remove(place: &Place) -> Result<(), FilesError> {
    let folder = place.folder();
    let (Some(daemon), Some(name)) = (folder.parent(), folder.file_name()) else {
        let name = folder.to_string();
        return Err(FilesError::Name { name });
    };
    wipe(daemon, name).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixStream;

    struct Bench {
        run: Utf8PathBuf,
        _keep: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let keep = tempfile::tempdir().unwrap();
            let run = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
            Self { run, _keep: keep }
        }

        fn place(&self) -> Place {
            Place::new(&self.run, "/data".into(), 1).unwrap()
        }

        fn make(&self) -> Result<UnixListener, EntranceError> {
            make(&self.place(), "/usr/bin/ephemerd".into(), &account())
        }
    }

    fn account() -> Account {
        let (uid, gid) = match geteuid().is_root() {
            true => (61_234, 61_235),
            false => (geteuid().as_raw(), getegid().as_raw()),
        };
        let name = "job".to_owned();
        Account { name, uid, gid }
    }

    fn seen(path: &Utf8Path) -> (u32, u32, u32) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.mode() & 0o7777, found.uid(), found.gid())
    }

    #[test]
    fn everything_is_ours_and_the_slots_group_may_connect() {
        let (bench, uid, gid) = (Bench::new(), geteuid().as_raw(), getegid().as_raw());
        let place = bench.place();
        let _listener = bench.make().unwrap();
        for folder in place
            .folder()
            .ancestors()
            .take_while(|folder| *folder != bench.run)
        {
            assert_eq!(seen(folder), (0o755, uid, gid), "{folder}");
        }
        assert_eq!(seen(&place.hook()), (0o555, uid, gid));
        assert_eq!(seen(&place.socket()), (0o620, uid, account().gid));
        let text = fs::read_to_string(place.hook()).unwrap();
        assert_eq!(text, hook::text("/usr/bin/ephemerd".into(), &place.socket()));
        UnixStream::connect(place.socket()).unwrap();
        remove(&place).unwrap();
        assert!(!place.folder().exists());
    }

    #[test]
    fn what_a_crash_left_is_replaced_and_no_link_is_followed() {
        let bench = Bench::new();
        let place = bench.place();
        drop(bench.make().unwrap());
        UnixStream::connect(place.socket()).unwrap_err();
        let outside = bench.run.join("outside");
        fs::write(&outside, "precious").unwrap();
        fs::remove_file(place.hook()).unwrap();
        symlink(&outside, place.hook()).unwrap();
        let _listener = bench.make().unwrap();
        UnixStream::connect(place.socket()).unwrap();
        assert!(fs::symlink_metadata(place.hook()).unwrap().is_file());
        assert!(
            fs::symlink_metadata(place.socket())
                .unwrap()
                .file_type()
                .is_socket()
        );
        // Nor one in the place of the folder.
        remove(&place).unwrap();
        fs::create_dir(bench.run.join("elsewhere")).unwrap();
        symlink(bench.run.join("elsewhere"), place.folder()).unwrap();
        let _listener = bench.make().unwrap();
        assert_eq!(fs::read_dir(bench.run.join("elsewhere")).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(outside).unwrap(), "precious");
    }

    #[test]
    fn two_slots_have_entrances_beside_each_other() {
        let bench = Bench::new();
        let second = Place::new(&bench.run, "/data".into(), 2).unwrap();
        let _first = bench.make().unwrap();
        let _second = make(&second, "/usr/bin/ephemerd".into(), &account()).unwrap();
        remove(&second).unwrap();
        UnixStream::connect(bench.place().socket()).unwrap();
    }

    #[test]
    fn a_folder_that_others_could_change_is_refused() {
        let bench = Bench::new();
        drop(bench.make().unwrap());
        let daemon = bench.place().folder().parent().unwrap().to_owned();
        for folder in [daemon.clone(), bench.run.clone()] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
            let error = crate::chain(&bench.make().unwrap_err());
            assert!(
                error.starts_with("could not prepare the entrance of a slot: "),
                "{error}"
            );
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        remove(&bench.place()).unwrap();
        fs::remove_dir(&daemon).unwrap();
        fs::create_dir(bench.run.join("elsewhere")).unwrap();
        symlink(bench.run.join("elsewhere"), &daemon).unwrap();
        let error = crate::chain(&bench.make().unwrap_err());
        assert!(error.contains("is a symbolic link"), "{error}");
    }

    #[test]
    fn where_the_socket_cannot_be_made_nothing_is_left() {
        let bench = Bench::new();
        // chown(2) takes this number for "leave as it is".
        let nobody = Account {
            gid: u32::MAX,
            uid: u32::MAX,
            name: "job".to_owned(),
        };
        let error = make(&bench.place(), "/usr/bin/ephemerd".into(), &nobody).unwrap_err();
        assert!(crate::chain(&error).starts_with("could not make `"), "{error}");
        assert!(!bench.place().folder().exists());
    }
}
