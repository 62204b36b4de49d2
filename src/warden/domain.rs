//! What macOS keeps per account and not per process: the account's launchd domain, its System V IPC objects, and
//! its folders below `/private/var/folders`. All of it outlives the last process.
//!
//! POSIX shared memory and semaphores outlive it, too, and macOS has no call that lists them: what a profile lets a
//! job create by name, the next job of the slot can open. The axis `ipc` says so.

use std::io;
use std::time::Duration;

use camino::Utf8PathBuf;

use crate::host::command::{self, CommandError, CommandSpec};
use crate::host::mac::{entries, user_folders};
use crate::host::{Host, files, os};
use crate::slot::Account;

/// How long one tool may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often launchd is asked while it is still busy.
const TRIES: u32 = 10;

/// launchctl(1) says so when there is no such domain: `ESRCH`, and two of its own, "could not find specified domain"
/// and "could not find specified service" (`launchctl error N`).
const NO_DOMAIN: [i32; 3] = [3, 112, 113];

/// launchctl(1) says so while a domain is going away: `EINPROGRESS`.
const IN_PROGRESS: i32 = 36;

/// Ends and removes everything of an account.
///
/// # Errors
/// Something cannot be removed; the rest is removed all the same.
pub(super) fn end(host: &Host, account: &Account) -> io::Result<()> {
    let failures: Vec<String> = [
        boot_out(host, account.uid).err(),
        remove_objects(host, account).err(),
        empty_folders(host, account.uid).err(),
    ]
    .into_iter()
    .flatten()
    .map(|error| crate::chain(&error))
    .collect();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(io::Error::other(failures.join(", ")))
    }
}

/// What is there of an account that should have nothing any more, in words.
pub(super) fn left(host: &Host, account: &Account) -> Vec<String> {
    let uid = account.uid;
    let mut found = Vec::new();
    match os::processes_of(uid) {
        Ok(pids) => found.extend(pids.iter().map(|pid| format!("process {pid}"))),
        Err(error) => found.push(format!("cannot list the processes of uid {uid}: {error}")),
    }
    match has_domain(host, uid) {
        Ok(true) => found.push(format!("launchd domain {}", domain(uid))),
        Ok(false) => {}
        Err(error) => found.push(format!(
            "cannot ask for launchd domain {}: {}",
            domain(uid),
            crate::chain(&error)
        )),
    }
    match objects(host, account) {
        Ok(objects) => found.extend(objects.iter().map(ToString::to_string)),
        Err(error) => found.push(crate::chain(&error)),
    }
    match leftovers_in_folders(host, uid) {
        Ok(paths) => found.extend(paths.iter().map(|path| format!("file {path}"))),
        Err(error) => found.push(format!("cannot look into {}: {error}", host.user_folders)),
    }
    found
}

fn domain(uid: u32) -> String {
    format!("user/{uid}")
}

/// Whether the account has a launchd domain. Only an answer that says so means that it has none.
fn has_domain(host: &Host, uid: u32) -> Result<bool, CommandError> {
    let spec = CommandSpec::new(&host.mac.launchctl, &["print", &domain(uid)], TIMEOUT);
    let output = command::run(&spec)?;
    if output.status.code().is_some_and(|code| NO_DOMAIN.contains(&code)) {
        return Ok(false);
    }
    output.require_success(&spec).map(|_| true)
}

/// Takes the account's launchd domain away, with everything that runs in it.
fn boot_out(host: &Host, uid: u32) -> io::Result<()> {
    let spec = CommandSpec::new(&host.mac.launchctl, &["bootout", &domain(uid)], TIMEOUT);
    for _ in 0..TRIES {
        let output = command::run(&spec).map_err(io::Error::other)?;
        match output.status.code() {
            Some(code) if code == 0 || NO_DOMAIN.contains(&code) => return Ok(()),
            Some(IN_PROGRESS) => std::thread::sleep(host.retry_pause),
            _ => return output.require_success(&spec).map(drop).map_err(io::Error::other),
        }
    }
    Err(io::Error::other(format!(
        "launchd domain {} is still going away",
        domain(uid)
    )))
}

/// A System V object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Object {
    /// `q`, `m` or `s`, as ipcs(1) and ipcrm(1) have it.
    kind: char,
    id: String,
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            'q' => "message queue",
            'm' => "shared memory",
            _ => "semaphores",
        };
        write!(f, "{kind} {}", self.id)
    }
}

/// The objects that belong to an account.
fn objects(host: &Host, account: &Account) -> io::Result<Vec<Object>> {
    let spec = CommandSpec::new(&host.mac.ipcs, &[], TIMEOUT);
    let output = command::run(&spec).and_then(|output| output.require_success(&spec));
    let listed = output.map_err(io::Error::other)?.stdout;
    owned_objects(&listed, account)
        .ok_or_else(|| io::Error::other(format!("`{spec}` does not say who owns what it lists")))
}

/// The objects in what ipcs(1) lists, `T ID KEY MODE OWNER GROUP`, whose owner is the account: its name, or its number
/// where the system has no name for that. `None` where a line has no heading above it that says what is the owner.
fn owned_objects(listed: &str, account: &Account) -> Option<Vec<Object>> {
    let uid = account.uid.to_string();
    let mut column = None;
    let mut found = Vec::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["T", ..] => column = words.iter().position(|word| *word == "OWNER"),
            [kind @ ("q" | "m" | "s"), id, ..] => {
                let owner = *words.get(column?)?;
                if owner == account.name || owner == uid {
                    let kind = kind.chars().next()?;
                    let id = id.to_owned();
                    found.push(Object { kind, id });
                }
            }
            _ => {}
        }
    }
    column.map(|_| found)
}

fn remove_objects(host: &Host, account: &Account) -> io::Result<()> {
    for Object { kind, id } in objects(host, account)? {
        let spec = CommandSpec::new(&host.mac.ipcrm, &[&format!("-{kind}"), &id], TIMEOUT);
        // One that has gone meanwhile is as good; what stays is found when we look again.
        command::run(&spec).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Removes everything in the account's folders. macOS makes `0`, `C` and `T` again when they are needed, and may not
/// let go of them (`com.apple.rootless`); an empty one that stays is none of the job's doing.
fn empty_folders(host: &Host, uid: u32) -> io::Result<()> {
    for folder in user_folders(host, uid)? {
        for part in entries(&folder)? {
            // By descriptor, for a job can put a link in the place of any of them. What stays is found later.
            let _ = files::wipe(&folder, part.file_name().unwrap_or_default());
        }
    }
    Ok(())
}

/// What lies in the account's folders, but for the empty folders that macOS makes itself.
fn leftovers_in_folders(host: &Host, uid: u32) -> io::Result<Vec<Utf8PathBuf>> {
    let mut found = Vec::new();
    for folder in user_folders(host, uid)? {
        for part in entries(&folder)? {
            let is_empty_folder = part.symlink_metadata()?.is_dir() && entries(&part)?.is_empty();
            found.extend((!is_empty_folder).then_some(part));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8Path;

    const LISTED: &str = "IPC status from <running system> as of Tue Nov 24 10:00:00 CET 2026
T     ID     KEY        MODE       OWNER    GROUP
Message Queues:

T     ID     KEY        MODE       OWNER    GROUP
Shared Memory:
m  65536 0x00000000 --rw------- _ephemerd1 _ephemerd
m 131073 0x5a000dab --rw-rw-rw-      452 _ephemerd
m  65538 0x00000001 --rw------- root    wheel

T     ID     KEY        MODE       OWNER    GROUP
Semaphores:
s 196608 0x0000002a --ra-ra-ra- _ephemerd1 _ephemerd
";

    fn account(name: &str, uid: u32) -> Account {
        Account {
            name: name.to_owned(),
            uid,
            gid: 450,
        }
    }

    #[test]
    fn objects_are_found_by_the_name_or_the_number_of_their_owner() {
        let found = |name, uid| -> Vec<String> {
            let found = owned_objects(LISTED, &account(name, uid)).unwrap();
            found.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            found("_ephemerd1", 451),
            ["shared memory 65536", "semaphores 196608"]
        );
        assert_eq!(found("_ephemerd2", 452), ["shared memory 131073"]);
        assert_eq!(found("OWNER", 499), [""; 0]);
    }

    #[test]
    fn a_list_that_does_not_say_who_owns_what_is_not_taken_for_an_empty_one() {
        let owned = |listed: &str| owned_objects(listed, &account("_ephemerd1", 451));
        let without = LISTED.replace("OWNER", "CREATOR");
        for listed in [
            "",
            "IPC status\n",
            without.as_str(),
            "m 1 0 --rw------- _ephemerd1 x\n",
        ] {
            assert_eq!(owned(listed), None, "{listed}");
        }
        let moved = owned("T ID OWNER\nm 1 _ephemerd1\nm 2 root\n").unwrap();
        assert_eq!(
            moved.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["shared memory 1"]
        );
        assert_eq!(owned("T ID OWNER\nMessage Queues:\n"), Some(vec![]));
        assert_eq!(owned("T ID OWNER\nm\n"), Some(vec![]), "no object without an id");
        assert_eq!(owned("T ID KEY OWNER\nm 1 0\n"), None, "a line cut short");
    }

    #[test]
    fn a_link_in_place_of_a_temporary_folder_is_removed_and_not_followed() {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8Path::from_path(keep.path()).unwrap();
        let own = top.join("folders/zz/abc");
        for folder in ["C/deep", "0"] {
            std::fs::create_dir_all(own.join(folder)).unwrap();
        }
        std::fs::create_dir(top.join("precious")).unwrap();
        std::fs::write(top.join("precious/file"), "x").unwrap();
        std::fs::write(own.join("C/deep/file"), "x").unwrap();
        std::os::unix::fs::symlink(top.join("precious"), own.join("T")).unwrap();
        let host = Host {
            user_folders: top.join("folders"),
            ..Host::system()
        };
        let uid = nix::unistd::geteuid().as_raw();
        assert_eq!(
            leftovers_in_folders(&host, uid).unwrap(),
            [own.join("C"), own.join("T")]
        );
        empty_folders(&host, uid).unwrap();
        assert_eq!(leftovers_in_folders(&host, uid).unwrap(), [""; 0]);
        assert!(top.join("precious/file").exists());
        assert!(own.exists());
        empty_folders(&host, uid + 1).unwrap();
    }
}
