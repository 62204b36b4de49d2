//! System calls that must be refused.

use libc::{ENOSYS, SIGSYS};

use super::super::Stop::{Errno, Signal};
use super::{REFUSED, Row, attack};

pub(super) const SYSTEM_CALLS: &[Row] = &[
    attack(
        "unfiltered-system-calls",
        REFUSED,
        "Runs without a seccomp filter.",
    ),
    attack(
        "trace-process",
        REFUSED,
        "Seizes a sibling's process with ptrace.",
    )
    .root(),
    attack(
        "read-process-memory",
        REFUSED,
        "Reads a sibling's memory with process_vm_readv.",
    )
    .root(),
    attack(
        "write-process-memory",
        REFUSED,
        "Writes a sibling's memory with process_vm_writev.",
    )
    .root(),
    attack(
        "steal-descriptor",
        REFUSED,
        "Takes a descriptor out of its own child with pidfd_getfd.",
    )
    .root(),
    attack(
        "compare-processes",
        REFUSED,
        "Compares kernel objects of two processes with kcmp.",
    ),
    attack("new-user-namespace", REFUSED, "Unshares its user namespace.").root(),
    attack(
        "clone-user-namespace",
        REFUSED,
        "Clones a child into a new user namespace.",
    )
    .root(),
    attack(
        "clone3-user-namespace",
        &[Errno(ENOSYS)],
        "Clones a child into a new user namespace with clone3, whose flags no filter can read.",
    )
    .root(),
    attack("new-mount-namespace", REFUSED, "Unshares its mount namespace.").root(),
    attack("join-namespace", REFUSED, "Joins a namespace with setns.").root(),
    attack("change-root", REFUSED, "Changes its root folder with chroot.").root(),
    attack("mount", REFUSED, "Mounts a tmpfs in its own workspace.").root(),
    attack("unmount", REFUSED, "Unmounts with umount2.").root(),
    attack("pivot-root", REFUSED, "Swaps the root mount with pivot_root.").root(),
    attack("open-filesystem", REFUSED, "Opens a file system with fsopen.").root(),
    attack(
        "pick-filesystem",
        REFUSED,
        "Opens a mounted file system with fspick.",
    )
    .root(),
    attack(
        "configure-filesystem",
        REFUSED,
        "Configures a file system with fsconfig.",
    ),
    attack("make-mount", REFUSED, "Makes a mount with fsmount.").root(),
    attack(
        "clone-mount-tree",
        REFUSED,
        "Clones the mounts below / with open_tree.",
    )
    .root(),
    attack("move-mount", REFUSED, "Moves a mount with move_mount.").root(),
    attack("change-mount", REFUSED, "Changes a mount with mount_setattr.").root(),
    attack(
        "open-by-handle",
        REFUSED,
        "Opens a file by its handle, past every path.",
    )
    .root(),
    attack(
        "io-uring",
        REFUSED,
        "Sets up an io_uring, whose operations no filter sees.",
    ),
    attack(
        "read-keyring",
        REFUSED,
        "Looks up the session keyring with keyctl.",
    ),
    attack("add-key", REFUSED, "Adds a key to its process's keyring."),
    attack("request-key", REFUSED, "Asks for a key with request_key."),
    attack("bpf", REFUSED, "Makes a BPF map.").root(),
    attack("perf-event", REFUSED, "Opens a performance counter.").root(),
    attack("userfaultfd", REFUSED, "Opens a userfaultfd.").root(),
    attack("reboot", REFUSED, "Calls reboot with a wrong magic number.").root(),
    attack("load-kernel", REFUSED, "Calls kexec_load with too many segments.").root(),
    attack("load-module", REFUSED, "Calls init_module with no module.").root(),
    attack("load-module-file", REFUSED, "Calls finit_module with no file.").root(),
    attack(
        "unload-module",
        REFUSED,
        "Calls delete_module with a name no module has.",
    )
    .root(),
    attack(
        "add-swap",
        REFUSED,
        "Calls swapon with a file that does not exist.",
    )
    .root(),
    attack(
        "remove-swap",
        REFUSED,
        "Calls swapoff with a file that does not exist.",
    )
    .root(),
    attack("read-kernel-log", REFUSED, "Reads the kernel's log with syslog.").root(),
    attack(
        "account-processes",
        REFUSED,
        "Calls acct with a file that does not exist.",
    )
    .root(),
    attack(
        "change-quota",
        REFUSED,
        "Calls quotactl with a device that does not exist.",
    ),
    attack("set-clock", REFUSED, "Calls settimeofday with nothing to set.").root(),
    attack("hang-up-terminal", REFUSED, "Calls vhangup without a terminal.").root(),
    attack(
        "type-into-terminal",
        REFUSED,
        "Pushes input into a pseudo-terminal of its own with TIOCSTI.",
    )
    .root(),
    attack(
        "drive-console",
        REFUSED,
        "Sends TIOCLINUX to a pseudo-terminal of its own.",
    ),
    attack(
        "raise-port-privilege",
        REFUSED,
        "Asks for all x86 I/O ports with iopl.",
    )
    .root(),
    attack("open-ports", REFUSED, "Asks for one x86 I/O port with ioperm.").root(),
    attack(
        "ia32-system-call",
        &[Signal(SIGSYS)],
        "Makes a system call through the 32-bit table.",
    ),
    attack(
        "x32-system-call",
        &[Errno(ENOSYS)],
        "Makes a system call through the x32 table.",
    )
    .no_control("most kernels are built without x32"),
];
