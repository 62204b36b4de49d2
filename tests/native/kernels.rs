//! Kernels that lack something, simulated by filters that answer as such a kernel would: the daemon says what
//! is missing and what to do, before it starts or makes anything.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::harness::{Site, err, out, said};

/// A filter in the kernel's instructions (linux/filter.h).
type Filter = Vec<libc::sock_filter>;

/// A filter that answers `errno` to a system call and allows all others.
fn without(call: libc::c_long, errno: i32) -> Filter {
    // Codes: linux/bpf_common.h; the number of the call is the first field of seccomp_data (seccomp(2)).
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let op = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    vec![
        op(LOAD, 0, 0),
        op(JUMP_IF_EQUAL, 1, u32::try_from(call).unwrap()),
        op(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        op(RETURN, 0, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()),
    ]
}

/// Lets a command run under a filter.
fn under(mut command: Command, mut filter: Filter) -> Output {
    let install = move || {
        let program = libc::sock_fprog {
            len: filter.len().try_into().map_err(io::Error::other)?,
            filter: filter.as_mut_ptr(),
        };
        nix::sys::prctl::set_no_new_privs()?;
        // SAFETY: the program and its instructions outlive the call, which copies them.
        let done = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        Errno::result(done).map(drop).map_err(io::Error::from)
    };
    // SAFETY: installing a filter is two system calls on memory that was made before the fork.
    unsafe { command.pre_exec(install) };
    command.output().unwrap()
}

/// Lets a command run where `/proc/self/ns` is empty, as in a kernel without namespaces.
fn without_namespaces(mut command: Command) -> Output {
    let hide = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_PRIVATE | MsFlags::MS_REC,
            None::<&str>,
        )?;
        mount(
            Some("none"),
            "/proc/self/ns",
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )?;
        Ok(())
    };
    // SAFETY: three system calls on constant strings; nothing is allocated between fork and exec.
    unsafe { command.pre_exec(hide) };
    command.output().unwrap()
}

/// Runs a daemon and a command that must both be refused before anything is made; what they said.
#[track_caller]
fn refused(site: &Site, simulate: impl Fn(Command) -> Output) -> String {
    let run = simulate(site.ephemerd(&["run"]));
    assert_eq!(run.status.code(), Some(3), "{}", said(&run));
    let exec = simulate(site.ephemerd(&["exec", "--", "sh", "-c", "echo ran"]));
    assert_eq!(exec.status.code(), Some(125), "{}", said(&exec));
    assert_eq!(out(&exec), "");
    let text = err(&exec);
    assert!(err(&run).ends_with(&text), "{}\n{}", said(&run), said(&exec));
    assert!(
        !site.data_dir.exists(),
        "nothing is made before everything is checked"
    );
    site.assert_clean();
    text
}

#[test]
fn without_landlock_nothing_is_started() {
    let site = Site::new("");
    let text = refused(&site, |command| {
        under(command, without(libc::SYS_landlock_create_ruleset, libc::ENOSYS))
    });
    assert!(
        text.contains("axis `filesystem` is absent: the kernel has no Landlock"),
        "{text}"
    );
    assert!(
        text.contains("\nhint: boot Linux 6.12 or later with `landlock`"),
        "{text}"
    );
}

#[test]
fn with_landlock_switched_off_nothing_is_started() {
    let site = Site::new("");
    let text = refused(&site, |command| {
        under(
            command,
            without(libc::SYS_landlock_create_ruleset, libc::EOPNOTSUPP),
        )
    });
    assert!(text.contains("the kernel has no Landlock"), "{text}");
}

#[test]
fn without_seccomp_filters_nothing_is_started() {
    let site = Site::new("");
    let text = refused(&site, |command| {
        under(command, without(libc::SYS_seccomp, libc::ENOSYS))
    });
    assert!(
        text.contains("the kernel has no seccomp filters") && text.contains("\nhint: "),
        "{text}"
    );
}

#[test]
fn without_namespaces_nothing_is_started() {
    let site = Site::new("");
    let text = refused(&site, without_namespaces);
    assert!(
        text.contains("the kernel has no mnt and uts namespaces"),
        "{text}"
    );
    assert!(
        text.contains("\nhint: boot a kernel with CONFIG_NAMESPACES"),
        "{text}"
    );
}

#[test]
fn a_step_that_fails_at_the_launch_is_named_and_leaves_nothing() {
    let site = Site::new("");
    for (call, errno, named) in [
        // What libc starts threads and programs with falls back to clone(2).
        (libc::SYS_clone3, libc::ENOSYS, "could not start the sandbox: "),
        (
            libc::SYS_move_mount,
            libc::EPERM,
            "sandbox step `mounts` failed: ",
        ),
        (
            libc::SYS_pivot_root,
            libc::EINVAL,
            "sandbox step `mounts` failed: ",
        ),
        (
            libc::SYS_sethostname,
            libc::EPERM,
            "sandbox step `hostname` failed: ",
        ),
        (
            libc::SYS_setgroups,
            libc::EPERM,
            "sandbox step `account` failed: ",
        ),
        (
            // What is the dispatcher's is opened as the dispatcher, before anything is launched.
            libc::SYS_setresuid,
            libc::EAGAIN,
            "could not open the ledger as the dispatcher's account: ",
        ),
        (
            libc::SYS_landlock_restrict_self,
            libc::E2BIG,
            "sandbox step `landlock` failed: ",
        ),
    ] {
        let exec = site.ephemerd(&["exec", "--", "sh", "-c", "echo ran"]);
        let exec = under(exec, without(call, errno));
        assert_eq!(exec.status.code(), Some(125), "{named}: {}", said(&exec));
        assert_eq!(out(&exec), "");
        assert!(err(&exec).contains(named), "{named}: {}", said(&exec));
        site.assert_clean();
    }
}
