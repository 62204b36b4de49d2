//! System calls that only Linux has: opening without crossing a mount, and inode flags.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// `FS_IMMUTABLE_FL | FS_APPEND_FL` of linux/fs.h; see ioctl_iflags(2).
const LOCKING_FLAGS: libc::c_int = 0x10 | 0x20;

/// Opens the folder `name` of `dir`, which is no path; `EXDEV` says that something is mounted on it.
///
/// The kernel compares mounts, not devices: a bind mount of the same file system is told apart, and a btrfs
/// subvolume, which any account can create, is not mistaken for a mount.
pub(super) fn open_folder_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV,
        );
    openat2(dir, name, how)
}

/// Clears the immutable and append-only flags of an open file or folder.
pub(super) fn clear_flags(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut flags: libc::c_int = 0;
    // SAFETY: `file` is open, and the kernel writes one int (not the long of the number's name), which
    // `flags` is.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) })?;
    flags &= !LOCKING_FLAGS;
    // SAFETY: `file` is open, and the kernel only reads `flags`, which outlives the call.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) })?;
    Ok(())
}

/// Clears the same flags of the file or folder `name` in `dir`. Other kinds of file are left alone: opening
/// a device does things, and the flags of a fifo or socket cannot be reached by opening it.
pub(super) fn clear_flags_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let kind = SFlag::from_bits_truncate(fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode);
    if kind & SFlag::S_IFMT != SFlag::S_IFREG && kind & SFlag::S_IFMT != SFlag::S_IFDIR {
        return Ok(());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    clear_flags(openat(dir, name, flags, Mode::empty())?.as_fd())
}

/// Makes the file `path` below `folder`, sharing blocks with `source` until one of the two is written
/// (ioctl_ficlone(2)); `EOPNOTSUPP`, `EXDEV` or `EINVAL` say that they cannot.
pub(super) fn clone_file(
    source: BorrowedFd<'_>,
    folder: BorrowedFd<'_>,
    path: &CStr,
) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(folder, path, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    rustix::fs::ioctl_ficlone(&made, source).map_err(|error| {
        // Empty; whoever copies by other means finds the place free.
        let _ = unlinkat(folder, path, UnlinkatFlags::NoRemoveDir);
        Errno::from_raw(error.raw_os_error())
    })?;
    Ok(made)
}

#[path = "linux/fence.rs"]
mod fence;
#[path = "linux/processes.rs"]
mod processes;
#[path = "linux/service.rs"]
mod service;

pub(crate) use fence::fence_dispatcher;
pub(crate) use processes::*;
pub(crate) use service::*;

/// What opening a file fails with when the sandbox forbids it: Landlock's error, which a stand-in for the sandbox
/// of macOS gives here.
pub(crate) const SANDBOX_DENIAL: Errno = Errno::EACCES;

/// Does nothing: Linux knows no sessions of this kind.
pub(crate) fn new_audit_session() -> std::io::Result<()> {
    Ok(())
}

/// Linux has one limit for all, the hard one.
pub(crate) fn open_files_ceiling() -> Option<u64> {
    None
}

/// Makes `gid` the only supplementary group of this process.
pub(crate) fn set_groups(groups: &[u32]) -> std::io::Result<()> {
    // SAFETY: the kernel reads as many groups as there are, and they outlive the call.
    Errno::result(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
    Ok(())
}

/// Makes this process, which has forked and not yet executed, what a dispatcher is: as user and group `ids`, where there are
/// some, with no capability and no way to one; it ends with its parent.
pub(crate) fn become_dispatcher(ids: Option<(u32, u32)>) -> std::io::Result<()> {
    use nix::sys::prctl;
    use nix::unistd::{setresgid, setresuid};
    if let Some((uid, gid)) = ids {
        for capability in caps::all() {
            // One that this kernel does not know cannot be had either.
            if caps::has_cap(None, caps::CapSet::Bounding, capability).unwrap_or(false) {
                caps::drop(None, caps::CapSet::Bounding, capability).map_err(std::io::Error::other)?;
            }
        }
        caps::clear(None, caps::CapSet::Inheritable).map_err(std::io::Error::other)?;
        set_groups(&[])?;
        setresgid(gid.into(), gid.into(), gid.into())?;
        setresuid(uid.into(), uid.into(), uid.into())?;
    }
    prctl::set_no_new_privs()?;
    // After the account: changing it clears this (prctl(2), PR_SET_PDEATHSIG).
    Ok(prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?)
}

/// The program at `path`, open, and a path by which a child of this process executes it although the child's account does not
/// get to where it lies: its own mode still decides.
pub(crate) fn program_for(path: &camino::Utf8Path) -> std::io::Result<(OwnedFd, String)> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::open(path.as_std_path(), flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    Ok((opened, path))
}

/// What this process is called in lists of processes.
pub(crate) fn call_self(name: &std::ffi::CStr) -> std::io::Result<()> {
    Ok(nix::sys::prctl::set_name(name)?)
}

/// Closes this process's memory and descriptors to others of its account (prctl(2), `PR_SET_DUMPABLE`).
pub(crate) fn close_memory() -> std::io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// Sockets that become readable when an interface or an address changes, and when somebody changes a table of nftables
/// (netlink(7)). What they say does not matter.
pub(crate) fn network_changes() -> std::io::Result<Vec<OwnedFd>> {
    // rtnetlink(7): interfaces, and addresses of both families. linux/netfilter/nfnetlink.h: group 7 is nftables.
    let route = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
    let nftables = 1 << (libc::NFNLGRP_NFTABLES - 1);
    [
        (SockProtocol::NetlinkRoute, route.unsigned_abs()),
        (SockProtocol::NetlinkNetFilter, nftables),
    ]
    .into_iter()
    .map(|(protocol, groups)| {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(socket)
    })
    .collect()
}

/// The supplementary groups of this process.
pub(crate) fn groups() -> std::io::Result<Vec<u32>> {
    Ok(nix::unistd::getgroups()?
        .into_iter()
        .map(nix::unistd::Gid::as_raw)
        .collect())
}

/// What only root on Linux can set up for `files`.
/// Where the objects lie that the dynamic loader has loaded into this process, as it found them (dl_iterate_phdr(3)).
pub(crate) fn loaded_objects() -> Vec<String> {
    extern "C" fn note(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        names: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes a valid object whose name is NUL-terminated, and `names` is the vector below.
        let (name, names) = unsafe {
            (
                CStr::from_ptr((*info).dlpi_name),
                &mut *names.cast::<Vec<String>>(),
            )
        };
        names.push(name.to_string_lossy().into_owned());
        0
    }
    let mut names: Vec<String> = vec![];
    // SAFETY: the callback gets `names`, which outlives the call and is used by nothing else meanwhile.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut names).cast()) };
    names
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use camino::Utf8Path;
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::stat::{makedev, mknod};

    use super::*;
    use crate::host::files::{FilesError, wipe};

    fn require_root() {
        assert!(
            nix::unistd::geteuid().is_root(),
            "tests named root_ need root: sets flags, devices and mounts"
        );
    }

    fn add_flags(path: &Path, more: libc::c_int) {
        let file = File::open(path).unwrap();
        let mut flags: libc::c_int = 0;
        // SAFETY: `file` is open, and the kernel writes one int, which `flags` is.
        let got = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
        Errno::result(got).unwrap();
        flags |= more;
        // SAFETY: `file` is open, and the kernel only reads `flags`, which outlives the call.
        let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) };
        Errno::result(set).unwrap();
    }

    #[test]
    fn root_wipes_immutable_and_append_only_trees() {
        require_root();
        let top = tempfile::tempdir().unwrap();
        let tree = top.path().join("tree");
        fs::create_dir_all(tree.join("append/inner")).unwrap();
        fs::create_dir_all(tree.join("immutable")).unwrap();
        fs::write(tree.join("immutable/file"), "x").unwrap();
        fs::write(tree.join("append/inner/log"), "x").unwrap();
        for (name, flags) in [
            ("immutable/file", 0x10),
            ("immutable", 0x10),
            ("append/inner/log", 0x20),
            ("append/inner", 0x20),
            ("append", 0x10),
        ] {
            add_flags(&tree.join(name), flags);
        }
        assert!(fs::remove_file(tree.join("immutable/file")).is_err());
        let wiped = wipe(Utf8Path::from_path(top.path()).unwrap(), "tree").unwrap();
        assert_eq!(wiped.entries, 6);
        assert!(!tree.exists());
    }

    #[test]
    fn root_wipes_device_nodes_without_opening_them() {
        require_root();
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("tree")).unwrap();
        // A character device nobody registered: opening it would fail with ENXIO.
        let device = top.path().join("tree/device");
        mknod(&device, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(240, 77)).unwrap();
        assert_eq!(
            wipe(Utf8Path::from_path(top.path()).unwrap(), "tree")
                .unwrap()
                .entries,
            2
        );
    }

    /// Runs in a thread of its own, because unshare(2) gives the new mount namespace to the thread only.
    fn in_mount_namespace(body: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                let none = None::<&str>;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
                body();
            });
        });
    }

    #[test]
    fn root_wipe_refuses_to_cross_a_bind_mount_of_the_same_file_system() {
        require_root();
        in_mount_namespace(|| {
            let top = tempfile::tempdir().unwrap();
            let (outside, hole) = (top.path().join("outside"), top.path().join("tree/hole"));
            fs::create_dir(&outside).unwrap();
            fs::create_dir_all(&hole).unwrap();
            fs::write(outside.join("precious"), "x").unwrap();
            let none = None::<&str>;
            mount(Some(&outside), &hole, none, MsFlags::MS_BIND, none).unwrap();
            let error = wipe(Utf8Path::from_path(top.path()).unwrap(), "tree").unwrap_err();
            let FilesError::MountPoint { path } = error else {
                panic!("{error}")
            };
            assert_eq!(path.as_str().as_bytes(), hole.as_os_str().as_bytes());
            assert!(outside.join("precious").exists());
            nix::mount::umount(&hole).unwrap();
        });
    }

    #[test]
    fn root_wipe_names_a_file_that_is_a_mount_point() {
        require_root();
        in_mount_namespace(|| {
            let top = tempfile::tempdir().unwrap();
            let (outside, hole) = (top.path().join("outside"), top.path().join("tree/hole"));
            fs::create_dir(top.path().join("tree")).unwrap();
            fs::write(&outside, "x").unwrap();
            fs::write(&hole, "").unwrap();
            let none = None::<&str>;
            mount(Some(&outside), &hole, none, MsFlags::MS_BIND, none).unwrap();
            let error = wipe(Utf8Path::from_path(top.path()).unwrap(), "tree").unwrap_err();
            assert!(matches!(error, FilesError::MountPoint { .. }), "{error}");
            assert_eq!(fs::read_to_string(&outside).unwrap(), "x");
            nix::mount::umount(&hole).unwrap();
        });
    }
}
