//! System calls the sandbox must refuse, each made in a form that harms nothing where it is allowed.
//!
//! Either the object made is private to the calling process and gone with it, or the arguments are such that the
//! kernel checks the caller's privilege first, where it asks for any, and then finds the arguments wrong. In the
//! second case the later error is the proof that the call got through; it is listed as `reached`.

use libc::{EBADF, EFAULT, EINVAL, ENODEV, ENOENT, ENOEXEC, ENOKEY, ENOTBLK, EOPNOTSUPP, ESTALE};
use nix::errno::Errno;

use super::processes::open_pidfd;
use super::{Attempt, Probes, Target, leave, tried};

pub(super) const PROBES: Probes = &[
    ("trace-process", trace),
    ("read-process-memory", |t| {
        foreign_memory(t, libc::process_vm_readv, "process_vm_readv")
    }),
    ("write-process-memory", |t| {
        foreign_memory(t, libc::process_vm_writev, "process_vm_writev")
    }),
    ("steal-descriptor", steal_descriptor),
    ("compare-processes", compare),
    // A folder every process has and nobody mounts on.
    ("unmount", |_| {
        call(
            (libc::SYS_umount2, "umount2"),
            &[Arg::Text(c"/proc/self/fd"), Arg::Int(0)],
            &[EINVAL],
        )
    }),
    ("pivot-root", |_| {
        call(
            (libc::SYS_pivot_root, "pivot_root"),
            &[NOWHERE, NOWHERE],
            &[ENOENT],
        )
    }),
    ("open-filesystem", |_| {
        call((libc::SYS_fsopen, "fsopen"), &[Arg::Text(c"tmpfs")], &[])
    }),
    ("pick-filesystem", |_| {
        call((libc::SYS_fspick, "fspick"), &[Arg::Int(-1), NOWHERE], &[ENOENT])
    }),
    ("configure-filesystem", |_| {
        call(
            (libc::SYS_fsconfig, "fsconfig"),
            &[Arg::Int(-1), Arg::Int(-1)],
            &[EINVAL, EBADF],
        )
    }),
    ("make-mount", |_| {
        call((libc::SYS_fsmount, "fsmount"), &[Arg::Int(-1)], &[EBADF, EINVAL])
    }),
    // 1 is OPEN_TREE_CLONE; without it open_tree is no more than open with O_PATH.
    ("clone-mount-tree", |_| {
        call(
            (libc::SYS_open_tree, "open_tree"),
            &[Arg::Int(-1), Arg::Text(c"/"), Arg::Int(1)],
            &[],
        )
    }),
    ("move-mount", |_| {
        let nowhere = [Arg::Int(-1), NOWHERE, Arg::Int(-1), NOWHERE, Arg::Int(0)];
        call((libc::SYS_move_mount, "move_mount"), &nowhere, &[ENOENT, EBADF])
    }),
    // 32 is the size of struct mount_attr; privilege is checked before the pointer is followed.
    ("change-mount", |_| {
        let nothing = [Arg::Int(-1), NOWHERE, Arg::Int(0), Arg::Null, Arg::Int(32)];
        call(
            (libc::SYS_mount_setattr, "mount_setattr"),
            &nothing,
            &[EFAULT, ENOENT],
        )
    }),
    // A file handle of eight zero bytes, which is no file's.
    ("open-by-handle", |_| {
        let handle = [Arg::Int(libc::AT_FDCWD as i64), Arg::Words(&[8, 1]), Arg::Int(0)];
        call(
            (libc::SYS_open_by_handle_at, "open_by_handle_at"),
            &handle,
            &[ESTALE, EINVAL, EOPNOTSUPP],
        )
    }),
    ("io-uring", |_| {
        call(
            (libc::SYS_io_uring_setup, "io_uring_setup"),
            &[Arg::Int(1), Arg::Words(&[])],
            &[],
        )
    }),
    // KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING, without creating it.
    ("read-keyring", |_| {
        call(
            (libc::SYS_keyctl, "keyctl"),
            &[Arg::Int(0), Arg::Int(-3), Arg::Int(0)],
            &[ENOKEY],
        )
    }),
    // -2 is KEY_SPEC_PROCESS_KEYRING, which ends with the process.
    ("add-key", |_| {
        let text = Arg::Text(c"ephemerd-probe");
        call(
            (libc::SYS_add_key, "add_key"),
            &[Arg::Text(c"user"), text, text, Arg::Int(1), Arg::Int(-2)],
            &[],
        )
    }),
    // No callout text, so no helper program is started.
    ("request-key", |_| {
        call(
            (libc::SYS_request_key, "request_key"),
            &[Arg::Text(c"user"), Arg::Text(c"ephemerd-probe-none")],
            &[ENOKEY],
        )
    }),
    // BPF_MAP_CREATE of an array with one entry of four bytes.
    ("bpf", |_| {
        call(
            (libc::SYS_bpf, "bpf"),
            &[Arg::Int(0), Arg::Words(&[2, 4, 4, 1]), Arg::Int(72)],
            &[],
        )
    }),
    // The CPU clock, a software counter, of this process; 64 is the attribute's first size.
    ("perf-event", |_| {
        let this = [
            Arg::Words(&[1, 64]),
            Arg::Int(0),
            Arg::Int(-1),
            Arg::Int(-1),
            Arg::Int(0),
        ];
        call((libc::SYS_perf_event_open, "perf_event_open"), &this, &[])
    }),
    ("userfaultfd", |_| {
        call(
            (libc::SYS_userfaultfd, "userfaultfd"),
            &[Arg::Int(libc::O_CLOEXEC as i64)],
            &[],
        )
    }),
    // reboot(2) checks the capability, then the magic numbers, and zero is neither.
    ("reboot", |_| {
        call(
            (libc::SYS_reboot, "reboot"),
            &[Arg::Int(0), Arg::Int(0), Arg::Int(0)],
            &[EINVAL],
        )
    }),
    // kexec_load(2) takes at most sixteen segments and knows no such flags.
    ("load-kernel", |_| {
        let absurd = [Arg::Int(0), Arg::Int(0xFFFF), Arg::Null, Arg::Int(0xFFF0)];
        call((libc::SYS_kexec_load, "kexec_load"), &absurd, &[EINVAL])
    }),
    ("load-module", |_| {
        call(
            (libc::SYS_init_module, "init_module"),
            &[Arg::Null, Arg::Int(0), Arg::Text(c"")],
            &[ENOEXEC, EFAULT, EINVAL],
        )
    }),
    ("load-module-file", |_| {
        call(
            (libc::SYS_finit_module, "finit_module"),
            &[Arg::Int(-1), Arg::Text(c"")],
            &[EBADF, EINVAL],
        )
    }),
    ("unload-module", |_| {
        let name = Arg::Text(c"ephemerd-no-such-module");
        call(
            (libc::SYS_delete_module, "delete_module"),
            &[name, Arg::Int(libc::O_NONBLOCK as i64)],
            &[ENOENT],
        )
    }),
    ("add-swap", |_| {
        call((libc::SYS_swapon, "swapon"), &[NOWHERE], &[ENOENT])
    }),
    ("remove-swap", |_| {
        call((libc::SYS_swapoff, "swapoff"), &[NOWHERE], &[ENOENT])
    }),
    // SYSLOG_ACTION_READ_ALL: reads and removes nothing (syslog(2)).
    ("read-kernel-log", |_| {
        call(
            (libc::SYS_syslog, "syslog"),
            &[Arg::Int(3), Arg::Words(&[]), Arg::Int(64)],
            &[],
        )
    }),
    ("account-processes", |_| {
        call((libc::SYS_acct, "acct"), &[NOWHERE], &[ENOENT])
    }),
    // QCMD(Q_GETFMT, USRQUOTA).
    ("change-quota", |_| {
        let query = [Arg::Int(0x0080_0004 << 8), NOWHERE, Arg::Int(0), Arg::Words(&[])];
        call(
            (libc::SYS_quotactl, "quotactl"),
            &query,
            &[ENOENT, ENODEV, ENOTBLK],
        )
    }),
    // With neither time nor zone settimeofday checks the privilege and does nothing.
    ("set-clock", |_| {
        call(
            (libc::SYS_settimeofday, "settimeofday"),
            &[Arg::Null, Arg::Null],
            &[],
        )
    }),
    // A session of its own has no terminal that could be hung up.
    ("hang-up-terminal", |_| {
        call((libc::SYS_vhangup, "vhangup"), &[], &[])
    }),
];

/// A path no host has.
const NOWHERE: Arg = Arg::Text(c"/ephemerd-no-such-path");

/// One argument of a system call.
#[derive(Clone, Copy)]
pub(super) enum Arg {
    /// A number.
    Int(i64),
    /// A NUL-terminated text.
    Text(&'static std::ffi::CStr),
    /// A null pointer.
    Null,
    /// A writable buffer of 256 bytes that starts with these words and goes on with zeros.
    Words(&'static [u32]),
}

/// Makes a system call, given by number and name. An error in `reached` counts as success: the kernel took the call and only then
/// stumbled over the arguments.
pub(super) fn call((number, name): (libc::c_long, &str), args: &[Arg], reached: &[i32]) -> Attempt {
    let mut buffers = [[0u32; 64]; 6];
    let mut raw: [libc::c_long; 6] = [0; 6];
    for ((slot, arg), buffer) in raw.iter_mut().zip(args).zip(&mut buffers) {
        *slot = match arg {
            Arg::Int(value) => *value as libc::c_long,
            Arg::Null => 0,
            Arg::Text(text) => text.as_ptr() as libc::c_long,
            Arg::Words(words) => {
                for (place, word) in buffer.iter_mut().zip(*words) {
                    *place = *word;
                }
                buffer.as_mut_ptr() as libc::c_long
            }
        };
    }
    let [a, b, c, d, e, f] = raw;
    // SAFETY: every pointer among the arguments is null, a NUL-terminated static, or a buffer of 256 bytes
    // that outlives the call, and none of the calls in this crate is told of a longer one.
    let result = Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) });
    got_through(result, reached, name.to_owned())
}

/// Judges the `result` of a call as `call` does; a kernel without the call makes the probe not applicable.
pub(super) fn got_through<T>(result: nix::Result<T>, reached: &[i32], what: String) -> Attempt {
    match result {
        Ok(_) => Attempt::succeeded(what),
        Err(Errno::ENOSYS) => Attempt::not_applicable(format!("this kernel has no {what}")),
        Err(errno) if reached.contains(&(errno as i32)) => {
            Attempt::succeeded(format!("the kernel took {what} and then found {errno:?}"))
        }
        Err(errno) => tried(Err::<(), _>(errno), what),
    }
}

/// PTRACE_SEIZE does not stop the process, and ends with the tracer.
fn trace(target: &Target) -> Attempt {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_SEIZE uses neither address nor data when both are null (ptrace(2)).
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, target.sibling_pid, nothing, nothing) };
    got_through(Errno::result(result), &[], "ptrace".to_owned())
}

/// process_vm_readv or process_vm_writev.
type Copy = unsafe extern "C" fn(
    libc::pid_t,
    *const libc::iovec,
    libc::c_ulong,
    *const libc::iovec,
    libc::c_ulong,
    libc::c_ulong,
) -> libc::ssize_t;

/// Copies one byte to or from address 1 of the sibling, which is never mapped: whoever may access its memory
/// gets EFAULT.
fn foreign_memory(target: &Target, copy: Copy, what: &str) -> Attempt {
    let mut byte = 0u8;
    let local = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let remote = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(1),
        iov_len: 1,
    };
    // SAFETY: both vectors hold one element and outlive the call; the local one is one writable byte.
    let result = unsafe { copy(target.sibling_pid, &raw const local, 1, &raw const remote, 1, 0) };
    got_through(Errno::result(result), &[EFAULT], what.to_owned())
}

/// Takes standard input out of a child of its own, so that nothing but pidfd_getfd itself is in question.
fn steal_descriptor(_: &Target) -> Attempt {
    // SAFETY: probes run in a process of one thread.
    let child = match unsafe { nix::unistd::fork() } {
        Ok(nix::unistd::ForkResult::Child) => {
            nix::unistd::pause();
            leave(0)
        }
        Ok(nix::unistd::ForkResult::Parent { child }) => child,
        Err(errno) => return Attempt::not_applicable(format!("could not fork: {errno}")),
    };
    let attempt = match open_pidfd(child.as_raw()) {
        Err(errno) => Attempt::not_applicable(format!("could not open a pidfd of its own child: {errno}")),
        Ok(pidfd) => {
            use std::os::fd::AsRawFd;
            // SAFETY: pidfd_getfd takes three integers.
            let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), 0, 0) };
            got_through(Errno::result(result), &[EBADF], "pidfd_getfd".to_owned())
        }
    };
    super::end(child);
    attempt
}

/// Compares its own descriptor table with itself; 2 is KCMP_FILES.
fn compare(_: &Target) -> Attempt {
    let own = std::process::id();
    // SAFETY: kcmp takes five integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            own,
            own,
            2 as libc::c_long,
            0 as libc::c_long,
            0 as libc::c_long,
        )
    };
    got_through(Errno::result(result), &[], "kcmp".to_owned())
}
