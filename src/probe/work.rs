//! Benign probes of processes, memory and events: what compilers, test runners and language runtimes do.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::WaitStatus;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, execv, fork, pause};

use super::{Attempt, Probes, Target, leave, nested, reap, tried};

pub(super) const PROBES: Probes = &[
    ("run-shell", |_| tried(run_shell(), "/bin/sh -c 'exit 7'")),
    ("signal-own-child", |_| {
        tried(kill_child(), "kill and reap a child")
    }),
    ("start-thread", |_| {
        tried(start_thread(), "start and join a thread")
    }),
    ("open-terminal", |_| {
        tried(write_through_terminal(), "write through a pseudo-terminal")
    }),
    ("run-made-code", made_code),
    ("watch-files", |t| tried(watch(t), "inotify")),
    ("count-events", |_| tried(count_events(), "eventfd")),
    ("memory-file", |_| tried(memory_file(), "memfd")),
    ("wait-on-timer", |_| tried(wait_on_timer(), "timerfd")),
];

/// The exit code of a child that could not execute its program; shells use the same.
pub(super) const NOT_EXECUTED: u8 = 127;

/// Replaces this process by `program`, with /dev/null as its descriptors 0 to 2.
pub(super) fn execute(program: &str, args: &[&str]) -> ! {
    if let Ok(null) = open("/dev/null", OFlag::O_RDWR, Mode::empty()) {
        // Each fails only for a descriptor that is not open, and `null` is.
        let _ = dup2_stdin(&null).and(dup2_stdout(&null)).and(dup2_stderr(&null));
    }
    let words = [program].into_iter().chain(args.iter().copied());
    if let Ok(words) = words.map(CString::new).collect::<Result<Vec<_>, _>>() {
        let _ = execv(&words[0], &words);
    }
    leave(i32::from(NOT_EXECUTED))
}

/// An error for an answer that is not the right one.
fn unexpected(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

fn run_shell() -> io::Result<()> {
    match nested(|| execute("/bin/sh", &["-c", "exit 7"]))? {
        WaitStatus::Exited(_, 7) => Ok(()),
        WaitStatus::Exited(_, code) if code == i32::from(NOT_EXECUTED) => {
            Err(io::Error::from_raw_os_error(libc::EACCES))
        }
        other => Err(unexpected(format!("{other:?}"))),
    }
}

fn kill_child() -> io::Result<()> {
    // SAFETY: probes run in a process of one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            pause();
            leave(0)
        }
        ForkResult::Parent { child } => {
            kill(child, Signal::SIGTERM)?;
            match reap(child)? {
                WaitStatus::Signaled(_, Signal::SIGTERM, _) => Ok(()),
                other => Err(unexpected(format!("{other:?}"))),
            }
        }
    }
}

fn start_thread() -> io::Result<()> {
    let thread = thread::Builder::new().spawn(|| 7)?;
    match thread.join() {
        Ok(7) => Ok(()),
        other => Err(unexpected(format!("{other:?}"))),
    }
}

fn write_through_terminal() -> io::Result<()> {
    let pty = openpty(None, None)?;
    let (mut outer, mut inner) = (File::from(pty.master), File::from(pty.slave));
    inner.write_all(b"hello\n")?;
    let mut heard = [0; 5];
    outer.read_exact(&mut heard)?;
    if &heard == b"hello" {
        Ok(())
    } else {
        Err(unexpected("the terminal changed the text"))
    }
}

/// Code of a function that only returns, for the two architectures this is built for.
#[cfg(target_arch = "x86_64")]
const RETURN: &[u8] = &[0xC3];
#[cfg(target_arch = "aarch64")]
const RETURN: &[u8] = &[0xC0, 0x03, 0x5F, 0xD6];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const RETURN: &[u8] = &[];

fn made_code(_: &Target) -> Attempt {
    const PAGE: usize = 4096;
    if RETURN.is_empty() {
        return Attempt::not_applicable("no code is known for this architecture");
    }
    let (rights, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new anonymous mapping at an address of the kernel's choice disturbs no other.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, rights, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return tried(Err::<(), _>(Errno::last()), "mmap");
    }
    // SAFETY: `page` is a writable mapping longer than the code.
    unsafe { std::ptr::copy_nonoverlapping(RETURN.as_ptr(), page.cast(), RETURN.len()) };
    // SAFETY: the mapping is ours alone and nothing refers to what it holds.
    let result = unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) };
    if let Err(errno) = Errno::result(result) {
        return tried(Err::<(), _>(errno), "mprotect to executable");
    }
    // SAFETY: the page holds a complete function of this signature and is executable; a core that had cached
    // other instructions of a page just mapped does not exist.
    let function: extern "C" fn() = unsafe { std::mem::transmute(page) };
    function();
    Attempt::succeeded("called code made in memory")
}

/// Owns a descriptor a call has just returned.
fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    let fd = Errno::result(fd)?;
    // SAFETY: the caller passes what a system call just returned, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn watch(target: &Target) -> io::Result<()> {
    // SAFETY: inotify_init1 takes an integer.
    let watcher = owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })?;
    let path = CString::new(target.workspace.join("tmp").as_str())?;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    Errno::result(unsafe { libc::inotify_add_watch(watcher.as_raw_fd(), path.as_ptr(), libc::IN_CREATE) })?;
    Ok(())
}

fn count_events() -> io::Result<()> {
    // SAFETY: eventfd takes two integers.
    let mut counter = File::from(owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?);
    counter.write_all(&7u64.to_ne_bytes())?;
    let mut count = [0; 8];
    counter.read_exact(&mut count)?;
    if u64::from_ne_bytes(count) == 7 {
        Ok(())
    } else {
        Err(unexpected("lost events"))
    }
}

fn memory_file() -> io::Result<()> {
    // SAFETY: the name is a NUL-terminated static.
    let fd = owned(unsafe { libc::memfd_create(c"ephemerd-probe".as_ptr(), libc::MFD_CLOEXEC) })?;
    let mut file = File::from(fd);
    file.write_all(b"hello")?;
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    if text == "hello" {
        Ok(())
    } else {
        Err(unexpected("lost the text"))
    }
}

fn wait_on_timer() -> io::Result<()> {
    // SAFETY: timerfd_create takes two integers.
    let fd = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) })?;
    let at_once = libc::timespec {
        tv_sec: 0,
        tv_nsec: 1,
    };
    let never_again = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let setting = libc::itimerspec {
        it_interval: never_again,
        it_value: at_once,
    };
    // SAFETY: `setting` outlives the call and the old setting is not asked for.
    let set = unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut()) };
    Errno::result(set)?;
    File::from(fd).read_exact(&mut [0; 8])
}
