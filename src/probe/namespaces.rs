//! Attacks with namespaces and mounts: the tools with which a process could build itself another view.
//!
//! Each runs in a child of its own, so a namespace that is made ends with it, and mounts are made in a private
//! one where that can be had.

use std::fs::{self, File};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, chroot};

use super::calls::got_through;
use super::{Attempt, Probes, Target, leave, reap, tried};

pub(super) const PROBES: Probes = &[
    ("new-user-namespace", |_| {
        tried(unshare(CloneFlags::CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
    }),
    ("new-mount-namespace", |_| {
        tried(unshare(CloneFlags::CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    }),
    ("clone-user-namespace", clone_user),
    ("clone3-user-namespace", clone3_user),
    ("join-namespace", join),
    ("change-root", |t| {
        tried(
            chroot(t.workspace.as_std_path()),
            format!("chroot {}", t.workspace),
        )
    }),
    ("mount", mount_tmpfs),
];

/// Ends the child's side of a clone at once, or reaps it.
fn cloned(result: libc::c_long) -> nix::Result<()> {
    match Errno::result(result)? {
        0 => leave(0),
        child => reap(Pid::from_raw(i32::try_from(child).map_err(|_| Errno::EOVERFLOW)?)).map(drop),
    }
}

fn clone_user(_: &Target) -> Attempt {
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack, clone is fork (clone(2)); this process has one thread.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    tried(cloned(result), "clone(CLONE_NEWUSER)")
}

fn clone3_user(_: &Target) -> Attempt {
    // struct clone_args of the first version (clone(2)): flags, pidfd, child_tid, parent_tid, exit_signal,
    // stack, stack_size, tls.
    let mut args = [0u64; 8];
    args[0] = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    args[4] = u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: `args` is a struct clone_args of the size given and outlives the call; as fork otherwise.
    let result = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    tried(cloned(result), "clone3(CLONE_NEWUSER)")
}

/// Joins the UTS namespace it is in already, which still needs the privilege.
fn join(_: &Target) -> Attempt {
    let path = "/proc/self/ns/uts";
    match File::open(path) {
        Ok(file) => tried(setns(file, CloneFlags::CLONE_NEWUTS), format!("setns {path}")),
        Err(error) => tried(Err::<(), _>(error), format!("open {path}")),
    }
}

fn mount_tmpfs(target: &Target) -> Attempt {
    let point = target
        .workspace
        .join("tmp")
        .join(format!("{}.mount", target.mark));
    if let Err(error) = fs::create_dir(&point) {
        return Attempt::not_applicable(format!("could not make a folder in its own workspace: {error}"));
    }
    // Unconfined, the mount must not reach the host's namespace; confined, unshare is refused and mount itself
    // is in question.
    let private = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
    });
    let result = match private {
        Ok(()) | Err(Errno::EPERM) => mount(
            Some("tmpfs"),
            point.as_std_path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=4k"),
        ),
        Err(errno) => Err(errno),
    };
    // Busy while mounted, and then the stage removes it after this namespace has gone.
    let _ = nix::mount::umount2(point.as_std_path(), nix::mount::MntFlags::MNT_DETACH);
    let _ = fs::remove_dir(&point);
    got_through(result, &[], format!("mount on {point}"))
}
