//! Attacks that only x86-64 has: its two other system call tables and its I/O ports.

use super::Probes;

pub(super) const PROBES: Probes = &[
    ("ia32-system-call", arch::ia32),
    ("x32-system-call", arch::x32),
    ("raise-port-privilege", arch::iopl),
    ("open-ports", arch::ioperm),
];

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::arch::asm;

    use nix::errno::Errno;
    use nix::sys::signal::Signal;
    use nix::sys::wait::WaitStatus;

    use super::super::calls::{Arg, call};
    use super::super::{Attempt, Target, nested, tried};

    /// Asks for its pid through `int 0x80`, in a child because a kernel without that table kills it.
    pub(in super::super) fn ia32(_: &Target) -> Attempt {
        let ended = nested(|| {
            let answer: u64;
            // SAFETY: 20 is getpid of the 32-bit table; it takes no argument and touches no memory. Older
            // kernels clear r8 to r11.
            unsafe {
                asm!("int 0x80", inlateout("rax") 20u64 => answer,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            }
            u8::from(answer != u64::from(std::process::id()))
        });
        match ended {
            Ok(WaitStatus::Exited(_, 0)) => Attempt::succeeded("int 0x80 answered getpid"),
            Ok(WaitStatus::Exited(..)) => Attempt::failed(libc::EPERM, "int 0x80 answered with an error"),
            Ok(WaitStatus::Signaled(_, Signal::SIGSEGV, _)) => {
                Attempt::not_applicable("this kernel has no 32-bit system calls")
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => Attempt::Killed {
                signal: signal as i32,
            },
            Ok(other) => Attempt::not_applicable(format!("{other:?}")),
            Err(errno) => tried(Err::<(), _>(errno), "fork"),
        }
    }

    /// Asks for its pid through the x32 table: bit 30 of the number (`__X32_SYSCALL_BIT`).
    pub(in super::super) fn x32(_: &Target) -> Attempt {
        // SAFETY: getpid takes no argument and touches no memory.
        let result = unsafe { libc::syscall(libc::SYS_getpid | 0x4000_0000) };
        tried(Errno::result(result), "getpid of the x32 table")
    }

    /// The privilege is the process's and ends with it.
    pub(in super::super) fn iopl(_: &Target) -> Attempt {
        call((libc::SYS_iopl, "iopl"), &[Arg::Int(3)], &[])
    }

    /// Port 0x80 is the diagnostics port; it is opened, not used.
    pub(in super::super) fn ioperm(_: &Target) -> Attempt {
        call(
            (libc::SYS_ioperm, "ioperm"),
            &[Arg::Int(0x80), Arg::Int(1), Arg::Int(1)],
            &[],
        )
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod arch {
    use super::super::{Attempt, Target};

    const WHY: &str = "only x86-64 has this";

    pub(in super::super) fn ia32(_: &Target) -> Attempt {
        Attempt::not_applicable(WHY)
    }

    pub(in super::super) fn x32(_: &Target) -> Attempt {
        Attempt::not_applicable(WHY)
    }

    pub(in super::super) fn iopl(_: &Target) -> Attempt {
        Attempt::not_applicable(WHY)
    }

    pub(in super::super) fn ioperm(_: &Target) -> Attempt {
        Attempt::not_applicable(WHY)
    }
}
