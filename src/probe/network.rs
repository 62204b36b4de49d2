//! Attacks over the network. Nothing leaves the host: connections go to loopback, and sockets of other kinds
//! are opened and never used.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::{Attempt, Probes, Target, tried};

pub(super) const PROBES: Probes = &[
    ("connect-host-loopback", |t| {
        connect(t, Ipv4Addr::LOCALHOST.into())
    }),
    ("connect-host-loopback-mapped", |t| {
        connect(t, Ipv4Addr::LOCALHOST.to_ipv6_mapped().into())
    }),
    ("raw-socket", |_| {
        open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
    }),
    ("packet-socket", |_| open(libc::AF_PACKET, libc::SOCK_RAW, 0)),
    ("vsock-socket", |_| open(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    ("crypto-socket", |_| open(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ("ping-socket", |t| match t.loopback_port {
        Some(_) => open(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        None => Attempt::not_applicable("the egress mode lets the job reach the network"),
    }),
    ("change-network", change_network),
    // The privilege is checked before the port is found to be taken (bind(2)).
    ("bind-privileged-port", |_| {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, 1)) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
                Attempt::succeeded("bind 127.0.0.1:1")
            }
            other => tried(other, "bind 127.0.0.1:1"),
        }
    }),
];

fn connect(target: &Target, to: IpAddr) -> Attempt {
    let Some(port) = target.loopback_port else {
        return Attempt::not_applicable("the egress mode lets the job reach the host's loopback");
    };
    let address = SocketAddr::new(to, port);
    tried(
        TcpStream::connect_timeout(&address, Duration::from_secs(2)),
        format!("connect to {address}"),
    )
}

/// Opens a socket; a kernel without the family makes the probe not applicable.
fn open(family: i32, kind: i32, protocol: i32) -> Attempt {
    let what = format!("socket of family {family}, type {kind}");
    match socket(family, kind, protocol) {
        Err(Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT) => {
            Attempt::not_applicable(format!("this kernel has no {what}"))
        }
        other => tried(other, what),
    }
}

fn socket(family: i32, kind: i32, protocol: i32) -> nix::Result<OwnedFd> {
    // SAFETY: socket takes three integers.
    let fd = Errno::result(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel just returned `fd`, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A request to rtnetlink(7): struct nlmsghdr followed by struct ifaddrmsg, both without padding.
#[repr(C)]
struct NewAddress {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    prefix_length: u8,
    address_flags: u8,
    scope: u8,
    index: u32,
}

/// What the kernel answers: struct nlmsghdr and the start of struct nlmsgerr.
#[repr(C)]
#[derive(Default)]
struct Answer {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    error: i32,
}

/// Asks for an address on an interface no host has: who may change the network is told that it is missing, who
/// may not is told that.
fn change_network(_: &Target) -> Attempt {
    let what = "RTM_NEWADDR";
    match ask_for_address() {
        Ok(Errno::EPERM) => Attempt::failed(libc::EPERM, what),
        Ok(Errno::ENODEV | Errno::EINVAL) => Attempt::succeeded(format!(
            "{what} passed the privilege check and missed the interface"
        )),
        Ok(other) | Err(other) => tried(Err::<(), _>(other), what),
    }
}

/// The error the kernel answers with.
fn ask_for_address() -> nix::Result<Errno> {
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    let request = NewAddress {
        length: u32::try_from(size_of::<NewAddress>()).unwrap_or(0),
        kind: libc::RTM_NEWADDR,
        flags: u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or(0),
        sequence: 1,
        port: 0,
        family: u8::try_from(libc::AF_INET).unwrap_or(0),
        prefix_length: 32,
        address_flags: 0,
        scope: 0,
        index: i32::MAX.cast_unsigned(),
    };
    let size = size_of_val(&request);
    // SAFETY: `request` is `size` bytes without padding and outlives the call.
    Errno::result(unsafe { libc::send(socket.as_raw_fd(), (&raw const request).cast(), size, 0) })?;
    let mut answer = Answer::default();
    let size = size_of_val(&answer);
    // SAFETY: `answer` is `size` writable bytes, any of whose values is valid, and outlives the call.
    Errno::result(unsafe { libc::recv(socket.as_raw_fd(), (&raw mut answer).cast(), size, 0) })?;
    Ok(Errno::from_raw(-answer.error))
}
