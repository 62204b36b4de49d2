//! What macOS says of processes and mounts. None of it was run on a Mac; the compiler has checked it.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use camino::Utf8Path;
use nix::errno::Errno;

/// `PROC_UID_ONLY` of sys/proc_info.h: processes of this effective user.
const EFFECTIVE_USER: u32 = 4;

/// `PROC_RUID_ONLY` of sys/proc_info.h: processes of this real user. One that executes a set-user-id program has
/// another effective one.
const REAL_USER: u32 = 5;

/// Room for processes beyond those of the last count.
const SPARE: usize = 64;

/// The memory that processes can get without swapping, in bytes: pages that are free, and those that are only kept in case
/// somebody wants them again (vm_stat(1): "inactive" and "speculative", the latter among the free).
pub(crate) fn free_memory_byte() -> Option<u64> {
    // SAFETY: all-zero bytes are valid for a struct of numbers.
    let mut found: libc::vm_statistics64 = unsafe { std::mem::zeroed() };
    let mut count = libc::HOST_VM_INFO64_COUNT;
    #[expect(
        deprecated,
        reason = "the crate that it names instead is another dependency for two calls"
    )]
    // SAFETY: the kernel writes at most `count` integers, for which `found` has room.
    let code = unsafe {
        libc::host_statistics64(
            libc::mach_host_self(),
            libc::HOST_VM_INFO64,
            (&raw mut found).cast(),
            &raw mut count,
        )
    };
    // SAFETY: takes a number and returns one.
    let page_byte = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let pages = u64::from(found.free_count) + u64::from(found.inactive_count);
    (code == libc::KERN_SUCCESS).then(|| pages.saturating_mul(page_byte))
}

/// Whether the clock follows a time server; macOS does not say.
pub(crate) fn is_clock_set() -> Option<bool> {
    None
}

/// Pids of the processes whose real or effective user is `uid`, zombies left out: those have ended and hold
/// nothing.
///
/// # Errors
/// The kernel does not give the list.
pub(crate) fn processes_of(uid: u32) -> io::Result<Vec<i32>> {
    let mut found = listed(EFFECTIVE_USER, uid)?;
    found.extend(listed(REAL_USER, uid)?);
    found.sort_unstable();
    found.dedup();
    found.retain(|pid| *pid > 0 && is_live(*pid));
    Ok(found)
}

/// proc_listpids, as proc_listpids(3) of libproc has it: a first call without room says how much there should be.
fn listed(kind: u32, uid: u32) -> io::Result<Vec<i32>> {
    loop {
        // SAFETY: without a place the call takes no pointers.
        let needed = unsafe { libc::proc_listpids(kind, uid, std::ptr::null_mut(), 0) };
        let needed = usize::try_from(Errno::result(needed)?).map_err(io::Error::other)?;
        let mut pids = vec![0i32; needed / size_of::<i32>() + SPARE];
        let room = libc::c_int::try_from(size_of_val(pids.as_slice())).map_err(io::Error::other)?;
        // SAFETY: `pids` has the room that is told, and outlives the call.
        let filled = unsafe { libc::proc_listpids(kind, uid, pids.as_mut_ptr().cast(), room) };
        let filled = Errno::result(filled)?;
        // A full list may have left some out.
        if filled < room {
            pids.truncate(usize::try_from(filled).unwrap_or_default() / size_of::<i32>());
            return Ok(pids);
        }
    }
}

/// Whether a process still runs. What cannot be looked at for another reason than its end counts as running.
fn is_live(pid: i32) -> bool {
    match about(pid) {
        Ok(info) => info.is_some_and(|info| info.pbi_status != libc::SZOMB),
        Err(_) => true,
    }
}

/// What the kernel tells of a process (proc_pidinfo, `PROC_PIDTBSDINFO` of sys/proc_info.h); `None` when there is no such
/// process.
fn about(pid: i32) -> io::Result<Option<libc::proc_bsdinfo>> {
    let mut info = MaybeUninit::<libc::proc_bsdinfo>::zeroed();
    let size = libc::c_int::try_from(size_of::<libc::proc_bsdinfo>()).map_err(io::Error::other)?;
    // SAFETY: `info` has the room that is told, and outlives the call.
    let got = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDTBSDINFO, 0, info.as_mut_ptr().cast(), size) };
    if got < size {
        return match Errno::last() {
            Errno::ESRCH => Ok(None),
            error => Err(error.into()),
        };
    }
    // SAFETY: the kernel has filled the whole structure, which is made of integers.
    Ok(Some(unsafe { info.assume_init() }))
}

/// The parent of a process; `None` when there is no such process.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn parent_of(pid: i32) -> io::Result<Option<i32>> {
    let parent = |info: libc::proc_bsdinfo| i32::try_from(info.pbi_ppid).map_err(io::Error::other);
    about(pid)?.map(parent).transpose()
}

/// The arguments of a process, its program first, as far as they are UTF-8; none when it has ended or does not tell.
///
/// The kernel gives their number, the path of the program, padding, and the arguments, each ended by NUL, and after them
/// the environment (sysctl(3), `KERN_PROCARGS2`).
///
/// # Errors
/// The process has ended, or may not be looked at.
pub(crate) fn arguments_of(pid: i32) -> io::Result<Vec<String>> {
    let mut what = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid];
    let length = libc::c_uint::try_from(what.len()).map_err(io::Error::other)?;
    // No process has more (sys/syslimits.h, ARG_MAX).
    let mut bytes = vec![0u8; 1024 * 1024];
    let mut got = bytes.len();
    // SAFETY: `what`, `bytes` and `got` are valid for the lengths that are told, and outlive the call.
    let done = unsafe {
        libc::sysctl(
            what.as_mut_ptr(),
            length,
            bytes.as_mut_ptr().cast(),
            &raw mut got,
            std::ptr::null_mut(),
            0,
        )
    };
    Errno::result(done)?;
    let (number, rest) = bytes[..got]
        .split_at_checked(4)
        .ok_or(io::ErrorKind::InvalidData)?;
    let number = u32::from_ne_bytes(number.try_into().map_err(io::Error::other)?);
    let number = usize::try_from(number).map_err(io::Error::other)?;
    let words = rest.split(|byte| *byte == 0);
    // The first is the program's path; what is empty behind it is padding.
    let args = words.skip(1).skip_while(|word| word.is_empty()).take(number);
    Ok(args
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect())
}

/// Memory of a process that nobody else can have, in bytes: what macOS itself holds against a process
/// (`phys_footprint`). `None` when it has ended.
pub(crate) fn resident_byte(pid: i32) -> Option<u64> {
    let mut usage = MaybeUninit::<libc::rusage_info_v4>::zeroed();
    // SAFETY: the flavour is that of the structure, which outlives the call.
    let got = unsafe { libc::proc_pid_rusage(pid, libc::RUSAGE_INFO_V4, usage.as_mut_ptr().cast()) };
    if got != 0 {
        return None;
    }
    // SAFETY: the kernel has filled the structure, which is made of integers.
    Some(unsafe { usage.assume_init() }.ri_phys_footprint)
}

/// Waits until the process has ended (it may still be a zombie).
///
/// # Errors
/// It is still there at `deadline`.
pub(crate) fn wait_for_end(pid: i32, deadline: Instant) -> io::Result<()> {
    // SAFETY: takes nothing, makes a descriptor or fails.
    let queue = Errno::result(unsafe { libc::kqueue() })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    let queue = unsafe { OwnedFd::from_raw_fd(queue) };
    let change = libc::kevent {
        ident: usize::try_from(pid).map_err(io::Error::other)?,
        filter: libc::EVFILT_PROC,
        flags: libc::EV_ADD | libc::EV_ONESHOT,
        fflags: libc::NOTE_EXIT,
        data: 0,
        udata: std::ptr::null_mut(),
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    let mut event = change;
    // SAFETY: one change is read and one event written; both and the timeout outlive the call.
    let got = unsafe {
        libc::kevent(
            queue.as_raw_fd(),
            &raw const change,
            1,
            &raw mut event,
            1,
            &raw const timeout,
        )
    };
    match Errno::result(got) {
        // There is no such process any more.
        Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
        // An error of the change comes as an event.
        Ok(1) if event.flags & libc::EV_ERROR != 0 && event.data != 0 => {
            match i32::try_from(event.data).map(Errno::from_raw) {
                Ok(Errno::ESRCH) => Ok(()),
                Ok(error) => Err(error.into()),
                Err(error) => Err(io::Error::other(error)),
            }
        }
        Ok(0) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("process {pid} does not end"),
        )),
        Ok(_) => Ok(()),
    }
}

/// Mount points at or below `folder`, which must be a resolved path.
///
/// # Errors
/// The kernel does not give the list.
pub(crate) fn mounts_below(folder: &Utf8Path) -> io::Result<Vec<String>> {
    loop {
        // SAFETY: without a place the call takes no pointers.
        let count = Errno::result(unsafe { libc::getfsstat(std::ptr::null_mut(), 0, libc::MNT_NOWAIT) })?;
        let room = usize::try_from(count).map_err(io::Error::other)? + 1;
        // SAFETY: all-zero bytes are a valid statfs: integers and arrays of them.
        let mut mounts: Vec<libc::statfs> = vec![unsafe { std::mem::zeroed() }; room];
        let size = libc::c_int::try_from(size_of_val(mounts.as_slice())).map_err(io::Error::other)?;
        // SAFETY: `mounts` has the room that is told, and outlives the call.
        let filled = unsafe { libc::getfsstat(mounts.as_mut_ptr(), size, libc::MNT_NOWAIT) };
        let filled = usize::try_from(Errno::result(filled)?).map_err(io::Error::other)?;
        // A full list may have left some out.
        if filled < room {
            let points = mounts.iter().take(filled).map(|mount| {
                // SAFETY: the kernel ends the name with a NUL, inside the array.
                let name = unsafe { CStr::from_ptr(mount.f_mntonname.as_ptr()) };
                name.to_string_lossy().into_owned()
            });
            return Ok(points
                .filter(|point| Utf8Path::new(point).starts_with(folder))
                .collect());
        }
    }
}
