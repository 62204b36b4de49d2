//! Who a process is on macOS, for its kernel and its security services.

use std::io;

use nix::errno::Errno;

/// What opening a file fails with when the sandbox forbids it; modes and access control lists give `EACCES`.
pub(crate) const SANDBOX_DENIAL: Errno = Errno::EPERM;

/// `AU_ASSIGN_ASID` of bsm/audit.h: the kernel chooses a session id that nobody has.
const ASSIGN_SESSION: libc::pid_t = -1;

/// `AU_DEFAUDITID` of bsm/audit.h: nobody logged in.
const NO_AUDIT_USER: libc::uid_t = libc::uid_t::MAX;

/// `AU_IPv4` of bsm/audit.h, the kind of an address that is not used.
const IPV4: u32 = 4;

/// `struct auditinfo_addr` of bsm/audit.h, with its parts laid out in it.
#[repr(C)]
struct AuditInfo {
    audit_user: libc::uid_t,
    mask: [u32; 2],
    port: libc::dev_t,
    address_type: u32,
    address: [u32; 4],
    session: libc::pid_t,
    flags: u64,
}

unsafe extern "C" {
    fn setaudit_addr(info: *const AuditInfo, length: libc::c_uint) -> libc::c_int;
}

/// Puts this process, and what it starts, into a security session of its own (setaudit_addr(2)), without access to
/// the screen. Needs root.
///
/// Security services look at the session for which keychains are searched and which are unlocked; that one made
/// so is enough for them has not been seen on a Mac.
pub(crate) fn new_audit_session() -> io::Result<()> {
    let info = AuditInfo {
        audit_user: NO_AUDIT_USER,
        mask: [0; 2],
        port: 0,
        address_type: IPV4,
        address: [0; 4],
        session: ASSIGN_SESSION,
        flags: 0,
    };
    let length = libc::c_uint::try_from(size_of::<AuditInfo>()).map_err(io::Error::other)?;
    // SAFETY: `info` has the layout of the C structure, `length` is its size, and it outlives the call.
    Errno::result(unsafe { setaudit_addr(&raw const info, length) })?;
    Ok(())
}

/// The most open files the kernel gives one process; it refuses or lowers a limit beyond (setrlimit(2)).
pub(crate) fn open_files_ceiling() -> Option<u64> {
    let mut most: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>();
    // SAFETY: the name is NUL-terminated, the kernel writes one int, and both places outlive the call.
    let asked = unsafe {
        libc::sysctlbyname(
            c"kern.maxfilesperproc".as_ptr(),
            (&raw mut most).cast(),
            &raw mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    (asked == 0).then(|| u64::try_from(most).ok()).flatten()
}

/// Makes `gid` the only group of this process besides its primary one. After this call the kernel no longer asks
/// opendirectoryd for the groups that macOS computes, `staff` among them (setgroups(2)).
pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    let count = libc::c_int::try_from(groups.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads as many groups as there are, and they outlive the call.
    Errno::result(unsafe { libc::setgroups(count, groups.as_ptr()) })?;
    Ok(())
}

/// The groups of this process.
pub(crate) fn groups() -> io::Result<Vec<u32>> {
    // `NGROUPS_MAX` of macOS; a process never has more in its credentials.
    let mut groups = [0; 16];
    let room = libc::c_int::try_from(groups.len()).map_err(io::Error::other)?;
    // SAFETY: `groups` has the room that is told, and outlives the call.
    let got = Errno::result(unsafe { libc::getgroups(room, groups.as_mut_ptr()) })?;
    Ok(groups
        .iter()
        .take(usize::try_from(got).unwrap_or_default())
        .copied()
        .collect())
}
