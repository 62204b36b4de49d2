//! Attacks on IPC objects of a sibling, the daemon and the host.

use std::ffi::CString;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use camino::Utf8Path;
use nix::errno::Errno;

use super::calls::got_through;
use super::{Attempt, Probes, Target, most_telling, tried};

pub(super) const PROBES: Probes = &[
    ("connect-sibling-socket", |t| {
        connect(&t.sibling_workspace.join("tmp/sock"))
    }),
    ("connect-sibling-abstract-socket", connect_abstract),
    ("connect-control-socket", |t| connect(&t.control_socket)),
    ("connect-host-services", |_| {
        most_telling(SERVICES.iter().map(|path| connect(Utf8Path::new(path))))
    }),
    ("attach-sibling-shm", attach_sysv),
    ("open-sibling-posix-shm", |t| {
        let path = format!("/dev/shm/{}", t.posix_shm);
        tried(fs::read(&path), format!("read {path}"))
    }),
    ("open-sibling-message-queue", open_queue),
];

/// Sockets behind which the host does what it is told.
const SERVICES: &[&str] = &[
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/systemd/notify",
    "/run/udev/control",
];

fn connect(path: &Utf8Path) -> Attempt {
    tried(UnixStream::connect(path), format!("connect to {path}"))
}

fn connect_abstract(target: &Target) -> Attempt {
    let result = SocketAddr::from_abstract_name(&target.sibling_abstract_socket)
        .and_then(|address| UnixStream::connect_addr(&address));
    tried(result, format!("connect to @{}", target.sibling_abstract_socket))
}

fn attach_sysv(target: &Target) -> Attempt {
    // SAFETY: shmget takes three integers.
    let id = unsafe { libc::shmget(target.sysv_shm_key, 0, 0) };
    got_through(
        Errno::result(id),
        &[],
        format!("shmget of key {}", target.sysv_shm_key),
    )
}

fn open_queue(target: &Target) -> Attempt {
    let name = CString::new(format!("/{}", target.message_queue)).unwrap_or_default();
    // SAFETY: `name` is NUL-terminated and outlives the call; without O_CREAT there are no further arguments.
    let queue = unsafe { libc::mq_open(name.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK) };
    got_through(
        Errno::result(queue),
        &[],
        format!("mq_open of /{}", target.message_queue),
    )
}
