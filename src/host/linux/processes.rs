//! What Linux says of processes, mounts and itself.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

use camino::Utf8Path;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Pids of the processes whose real or effective user is `uid`, zombies left out: those have ended and hold
/// nothing.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn processes_of(uid: u32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        // A process may end between the listing and the look.
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
            continue;
        };
        if is_live_process_of(&status, uid) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The memory that processes can get without swapping: `MemAvailable` of proc_meminfo(5), in bytes.
pub(crate) fn free_memory_byte() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// Whether the kernel knows that its clock follows a time server (adjtimex(2), `TIME_ERROR`); `None` when it does not say.
pub(crate) fn is_clock_set() -> Option<bool> {
    // SAFETY: all-zero bytes are a valid timex, which asks and sets nothing.
    let mut asked: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one timex, which outlives the call.
    match unsafe { libc::adjtimex(&raw mut asked) } {
        -1 => None,
        state => Some(state != libc::TIME_ERROR),
    }
}

/// Reads the fields `State` and `Uid` of a `/proc/PID/status` (proc_pid_status(5)).
fn is_live_process_of(status: &str, uid: u32) -> bool {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
    };
    let is_zombie = field("State:").trim_start().starts_with(['Z', 'X']);
    let uids = field("Uid:")
        .split_whitespace()
        .filter_map(|id| id.parse::<u32>().ok());
    // A main thread that has ended looks like a zombie while others of its process go on.
    let has_threads = field("Threads:")
        .trim()
        .parse::<u32>()
        .is_ok_and(|threads| threads > 1);
    (!is_zombie || has_threads) && uids.into_iter().any(|id| id == uid)
}

/// The parent of a process; `None` when there is no such process.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn parent_of(pid: i32) -> io::Result<Option<i32>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => parent_in(&stat)
            .map(Some)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat names no parent"))),
        // ESRCH when it ended between opening and reading.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The parent in a `/proc/PID/stat` (proc_pid_stat(5)): the second field after the name, which is in parentheses and may
/// hold any characters, those too.
fn parent_in(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// The arguments of a process, its program first, as far as they are UTF-8; none when it has ended or does not tell.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn arguments_of(pid: i32) -> io::Result<Vec<String>> {
    let text = std::fs::read(format!("/proc/{pid}/cmdline"))?;
    let args = text.split(|byte| *byte == 0).filter(|arg| !arg.is_empty());
    Ok(args
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect())
}

/// Resident bytes of a process; `None` when it has ended.
pub(crate) fn resident_byte(pid: i32) -> Option<u64> {
    // The second field is the resident set in pages (proc_pid_statm(5)).
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page).ok()?)
}

/// Waits until the process has ended (it may still be a zombie).
///
/// # Errors
/// It is still there at `deadline`.
pub(crate) fn wait_for_end(pid: i32, deadline: Instant) -> io::Result<()> {
    // SAFETY: pidfd_open takes two integers and makes a descriptor or fails.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Ok(raw) = RawFd::try_from(opened) else {
        return Err(io::Error::other("not a descriptor"));
    };
    if raw < 0 {
        // There is no such process any more.
        return Ok(());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    let process = unsafe { OwnedFd::from_raw_fd(raw) };
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ended, timeout)? {
        0 => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("process {pid} does not end"),
        )),
        _ => Ok(()),
    }
}

/// Mount points of this process's view at or below `folder`.
///
/// # Errors
/// The list cannot be read.
pub(crate) fn mounts_below(folder: &Utf8Path) -> io::Result<Vec<String>> {
    Ok(mount_points(
        &std::fs::read_to_string("/proc/self/mountinfo")?,
        folder,
    ))
}

/// The mount points at or below `folder` in a mountinfo text: its fifth field (proc_pid_mountinfo(5)).
fn mount_points(mountinfo: &str, folder: &Utf8Path) -> Vec<String> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| Utf8Path::new(point).starts_with(folder))
        .map(str::to_owned)
        .collect()
}

/// The Landlock ABI of this kernel (landlock_create_ruleset(2), `LANDLOCK_CREATE_RULESET_VERSION`).
///
/// # Errors
/// The kernel has no Landlock, or it is switched off.
pub(crate) fn landlock_abi() -> io::Result<i32> {
    const VERSION: u32 = 1;
    // SAFETY: with the version flag the call takes no structure; null and 0 are what it demands.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            VERSION,
        )
    };
    i32::try_from(abi)
        .ok()
        .filter(|abi| *abi >= 0)
        .ok_or_else(io::Error::last_os_error)
}

/// Whether the kernel has seccomp filters: a null filter is then a bad address, and unknown otherwise
/// (seccomp(2), `EFAULT`).
pub(crate) fn has_seccomp_filters() -> bool {
    // Asked the way filters are installed: a host may answer prctl(2) and seccomp(2) differently.
    let (operation, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0);
    // SAFETY: the kernel refuses the null pointer without reading it.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, std::ptr::null::<u8>()) };
    done == -1 && Errno::last() == Errno::EFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsleep\nState:\tS (sleeping)\nUid:\t997\t997\t997\t997\nGid:\t1\t1\t1\t1\n";

    #[test]
    fn a_process_belongs_to_any_of_its_users() {
        assert!(is_live_process_of(STATUS, 997));
        assert!(is_live_process_of(
            &STATUS.replace("997\t997\t997", "0\t997\t0"),
            997
        ));
        assert!(!is_live_process_of(STATUS, 99));
    }

    #[test]
    fn a_zombie_does_not_count() {
        assert!(!is_live_process_of(
            &STATUS.replace("S (sleeping)", "Z (zombie)"),
            997
        ));
    }

    #[test]
    fn mounts_at_and_below_a_folder_are_found_and_neighbours_are_not() {
        let line = |point: &str| format!("36 35 98:0 / {point} rw,noatime shared:1 - ext4 /dev/root rw\n");
        let text =
            line("/data/native/a") + &line("/data/native/a/deep") + &line("/data/native/ab") + &line("/");
        assert_eq!(
            mount_points(&text, Utf8Path::new("/data/native/a")),
            ["/data/native/a", "/data/native/a/deep"]
        );
    }

    #[test]
    fn a_parent_is_read_whatever_the_process_is_called() {
        assert_eq!(parent_in("7 (sleep) S 4 7 7 0 -1"), Some(4));
        assert_eq!(parent_in("7 (a) S 1 (b) S 4 7 7"), Some(4));
        assert_eq!(parent_in("7 (a) R 99) S 4 7"), Some(4));
        assert_eq!(parent_in("7 sleep"), None);
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(parent_of(own).unwrap(), Some(nix::unistd::getppid().as_raw()));
        assert_eq!(parent_of(i32::MAX).unwrap(), None);
    }

    #[test]
    fn this_process_has_memory() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(resident_byte(own).unwrap() > 0);
        assert_eq!(resident_byte(-1), None);
    }
}
