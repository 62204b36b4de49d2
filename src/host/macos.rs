//! System calls that only macOS has: the twin of `linux.rs`, with the same functions.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, openat};
use nix::sys::stat::{Mode, fstat};

/// Opens the folder `name` of `dir`, which is no path; `EXDEV` says that another volume is mounted on it.
pub(super) fn open_folder_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = openat(dir, name, flags, Mode::empty())?;
    // Every mount of macOS has a device number of its own; there are no bind mounts.
    if fstat(&folder)?.st_dev == fstat(dir)?.st_dev {
        Ok(folder)
    } else {
        Err(Errno::EXDEV)
    }
}

/// Sockets that become readable when an interface, an address or a route changes (route(4)). Nothing tells of changes to
/// pf.
pub(crate) fn network_changes() -> std::io::Result<Vec<OwnedFd>> {
    // SAFETY: the call takes no pointers, and the descriptor it makes is nobody else's.
    let socket = unsafe {
        let made = Errno::result(libc::socket(libc::PF_ROUTE, libc::SOCK_RAW, libc::AF_UNSPEC))?;
        OwnedFd::from_raw_fd(made)
    };
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(vec![socket])
}

/// The program at `path`, open, and the path by which a child of this process executes it: no other way is known here, so that
/// the child's account must get there.
pub(crate) fn program_for(path: &camino::Utf8Path) -> std::io::Result<(OwnedFd, String)> {
    Ok((std::fs::File::open(path)?.into(), path.to_string()))
}

/// Nothing to do: a process is called what its program is.
#[expect(clippy::unnecessary_wraps, reason = "as on Linux, where it can fail")]
pub(crate) fn call_self(_name: &CStr) -> std::io::Result<()> {
    Ok(())
}

/// Closes this process to debuggers (ptrace(2), `PT_DENY_ATTACH`). Whether that keeps its task port from others of its
/// account, too, was not tried.
pub(crate) fn close_memory() -> std::io::Result<()> {
    // SAFETY: this request takes no pointers and concerns the calling process alone.
    Errno::result(unsafe { libc::ptrace(libc::PT_DENY_ATTACH, 0, std::ptr::null_mut(), 0) })?;
    Ok(())
}

/// Nothing to do: sandbox-exec(1) starts the dispatcher in its fence. Says that there is none of its own.
///
/// # Errors
/// None.
#[expect(clippy::unnecessary_wraps, reason = "as on Linux, where it can fail")]
pub(crate) fn fence_dispatcher(_folders: &[camino::Utf8PathBuf]) -> std::io::Result<bool> {
    Ok(false)
}

/// Makes this process, which has forked and not yet executed, what a dispatcher is: as user and group `ids`, where there are
/// some. Nothing here ends it with its parent; it does so itself when it hears nothing more of it.
pub(crate) fn become_dispatcher(ids: Option<(u32, u32)>) -> std::io::Result<()> {
    if let Some((uid, gid)) = ids {
        set_groups(&[gid])?;
        nix::unistd::setgid(gid.into())?;
        nix::unistd::setuid(uid.into())?;
    }
    Ok(())
}

/// Clears all flags of an open file or folder, `uchg` and `uappnd` above all; see chflags(2).
pub(super) fn clear_flags(file: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: `file` is open, and the call takes no pointers.
    Errno::result(unsafe { libc::fchflags(file.as_raw_fd(), 0) }).map(drop)
}

/// Clears all flags of `name` in `dir` without opening it: any account can set `uchg` on its own symlinks,
/// sockets and fifos, and setattrlistat(2) reaches those too.
pub(super) fn clear_flags_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let mut list = libc::attrlist {
        bitmapcount: libc::ATTR_BIT_MAP_COUNT,
        reserved: 0,
        commonattr: libc::ATTR_CMN_FLAGS,
        volattr: 0,
        dirattr: 0,
        fileattr: 0,
        forkattr: 0,
    };
    let mut flags: u32 = 0;
    // SAFETY: `name` is NUL-terminated, `list` asks for one u32, `flags` is one, and all outlive the call.
    let result = unsafe {
        libc::setattrlistat(
            dir.as_raw_fd(),
            name.as_ptr(),
            (&raw mut list).cast(),
            (&raw mut flags).cast(),
            size_of::<u32>(),
            libc::FSOPT_NOFOLLOW,
        )
    };
    Errno::result(result).map(drop)
}

/// `CLONE_NOOWNERCOPY` of sys/clonefile.h: the new file belongs to the caller.
const CLONE_NOOWNERCOPY: u32 = 0x2;

/// Makes the file `path` below `folder`, sharing blocks with `source` until one of the two is written
/// (clonefile(2)); `ENOTSUP` or `EXDEV` say that they cannot. Nobody has run this on a Mac.
pub(super) fn clone_file(
    source: BorrowedFd<'_>,
    folder: BorrowedFd<'_>,
    path: &CStr,
) -> Result<OwnedFd, Errno> {
    // SAFETY: both descriptors are open, and `path` is NUL-terminated and outlives the call.
    let made = unsafe {
        libc::fclonefileat(
            source.as_raw_fd(),
            folder.as_raw_fd(),
            path.as_ptr(),
            CLONE_NOOWNERCOPY,
        )
    };
    Errno::result(made)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(folder, path, flags, Mode::empty())
}

#[path = "macos/processes.rs"]
mod processes;
#[path = "macos/service.rs"]
mod service;
#[path = "macos/session.rs"]
mod session;

pub(crate) use processes::*;
pub(crate) use service::*;
pub(crate) use session::*;

/// macOS has no Landlock.
pub(crate) fn landlock_abi() -> std::io::Result<i32> {
    Err(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        "macOS has no Landlock",
    ))
}

/// macOS has no seccomp filters.
pub(crate) fn has_seccomp_filters() -> bool {
    false
}

/// Where the objects lie that the dynamic loader has loaded into this process (dyld(3)).
pub(crate) fn loaded_objects() -> Vec<String> {
    // libc has these, and would rather not.
    unsafe extern "C" {
        fn _dyld_image_count() -> u32;
        fn _dyld_get_image_name(image: u32) -> *const libc::c_char;
    }
    // SAFETY: takes no arguments.
    let count = unsafe { _dyld_image_count() };
    let name = |image| {
        // SAFETY: takes a number; of one that there is not the answer is null.
        let name = unsafe { _dyld_get_image_name(image) };
        if name.is_null() {
            return None;
        }
        // SAFETY: not null, and the names of loaded images are NUL-terminated and stay.
        let name = unsafe { std::ffi::CStr::from_ptr(name) };
        Some(name.to_string_lossy().into_owned())
    };
    (0..count).filter_map(name).collect()
}
