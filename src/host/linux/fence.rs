//! The dispatcher's own fence: it writes nothing but what is its own, and reaches no process by a signal.
//!
//! It reads as its account may: what its job needs is all over the host, and nothing secret is open to it.

use std::io;

use camino::Utf8PathBuf;
use landlock::{
    ABI, Access as _, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope,
};

/// Landlock ABI 6 (Linux 6.12): the first with scopes for signals and abstract Unix sockets.
const NEWEST: ABI = ABI::V6;

/// Keeps this thread, and those it starts from now on, from writing anything but below `folders` and to `/dev/null`, from
/// signalling processes that are not fenced in with it, and from abstract sockets of theirs. As far as this kernel can;
/// whether that is all of it.
///
/// # Errors
/// A folder is not there, or the kernel refuses.
pub(crate) fn fence_dispatcher(folders: &[Utf8PathBuf]) -> io::Result<bool> {
    let writing = AccessFs::from_write(NEWEST);
    let mut ruleset = Ruleset::default()
        .handle_access(writing)
        .map_err(io::Error::other)?
        .scope(Scope::from_all(NEWEST))
        .map_err(io::Error::other)?
        .create()
        .map_err(io::Error::other)?;
    for folder in folders {
        let opened = PathFd::new(folder).map_err(io::Error::other)?;
        // Devices are nobody's to make.
        let rights = writing & !AccessFs::MakeBlock & !AccessFs::MakeChar;
        let rule = PathBeneath::new(opened, rights);
        ruleset = ruleset.add_rule(rule).map_err(io::Error::other)?;
    }
    let null = PathFd::new("/dev/null").map_err(io::Error::other)?;
    let ruleset = ruleset
        .add_rule(PathBeneath::new(null, AccessFs::WriteFile))
        .map_err(io::Error::other)?;
    let status = ruleset.restrict_self().map_err(io::Error::other)?;
    Ok(status.ruleset == RulesetStatus::FullyEnforced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::kill;
    use nix::unistd::getppid;

    /// Landlock is a thread's, so a thread of the test's can have it without the rest.
    #[test]
    fn behind_its_fence_a_dispatcher_writes_its_own_and_nothing_else() {
        let top = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(top.path().canonicalize().unwrap()).unwrap();
        let (own, other) = (top.join("own"), top.join("other"));
        std::fs::create_dir(&own).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::thread::spawn(move || {
            // The control: without the fence all of it works.
            std::fs::write(other.join("before"), "x").unwrap();
            kill(getppid(), None).unwrap();
            assert!(
                fence_dispatcher(std::slice::from_ref(&own)).unwrap(),
                "this kernel has all of it"
            );
            let refused = |done: io::Result<()>| {
                assert_eq!(done.unwrap_err().raw_os_error(), Some(libc::EACCES));
            };
            refused(std::fs::write(other.join("after"), "x"));
            refused(std::fs::write(other.join("before"), "y"));
            refused(std::fs::remove_file(other.join("before")));
            refused(std::fs::create_dir(other.join("folder")));
            assert_eq!(kill(getppid(), None), Err(nix::errno::Errno::EPERM));
            // What it is for goes on.
            std::fs::write(own.join("ledger"), "x").unwrap();
            std::fs::rename(own.join("ledger"), own.join("moved")).unwrap();
            std::fs::write("/dev/null", "x").unwrap();
            assert_eq!(std::fs::read_to_string(other.join("before")).unwrap(), "x");
        })
        .join()
        .unwrap();
    }
}
