//! The canary: tries whether an account is kept from an address that it may not reach, without a packet leaving this
//! machine.
//!
//! The loopback interface gets two addresses out of ranges that are denied. This process listens on them and
//! connects, which must work; then a child that has become the account does the same, which must fail, and connects to
//! 127.0.0.1, which must work unless it is a guest's. Rules can be loaded, counted and compared, and still not be asked; nothing but a
//! packet shows that.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Uid, fork, pipe, setgid, setuid};
use serde::{Deserialize, Serialize};

use super::{EgressError, TIMEOUT, ip};
use crate::egress::ranges::{CANARY_V4 as V4, CANARY_V6 as V6};
use crate::egress::{Ports, Transport, Verdict};
use crate::host::command::{self, CommandSpec};
use crate::host::{Host, Os, os};
use crate::slot::{Account, Slot};

/// Ports that only root may bind, and the usual services are below.
const PRIVILEGED: std::ops::RangeInclusive<u16> = 600..=1023;

/// How long a connection within this machine may take. One that is neither accepted nor refused by then was dropped.
const WITHIN: Duration = Duration::from_secs(2);

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The account that tried.
    pub account: String,
    /// By which protocol.
    pub transport: Transport,
    /// Where to.
    pub to: SocketAddr,
    /// What must come of it.
    pub wanted: Verdict,
    /// What came of it.
    pub found: Verdict,
    /// What the system said.
    pub said: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            account,
            transport,
            to,
            wanted,
            found,
            said,
        } = self;
        write!(
            f,
            "`{account}` sends to {to}/{transport} and gets {found} instead of {wanted}"
        )?;
        match said.as_str() {
            "" => Ok(()),
            said => write!(f, ": {said}"),
        }
    }
}

impl Attempt {
    /// Whether it is as it must be.
    pub fn is_met(&self) -> bool {
        self.wanted == self.found
    }
}

/// Gives the loopback interface the canary's addresses, where it has not got them.
///
/// # Errors
/// The tool fails. Where this host has no IPv6, its address is left out.
pub fn add_addresses(host: &Host) -> Result<(), EgressError> {
    let there = own_addresses()?;
    let mut wanted = vec![IpAddr::V4(V4)];
    if there.contains(&IpAddr::V6(Ipv6Addr::LOCALHOST)) {
        wanted.push(IpAddr::V6(V6));
    }
    for address in wanted.into_iter().filter(|address| !there.contains(address)) {
        let spec = alias(host, address, true);
        command::run(&spec)?.require_success(&spec)?;
    }
    Ok(())
}

/// Every address of this host.
fn own_addresses() -> Result<BTreeSet<IpAddr>, EgressError> {
    let interfaces = getifaddrs().map_err(|error| EgressError::Surroundings {
        what: "this host's interfaces".to_owned(),
        source: error.into(),
    })?;
    Ok(interfaces
        .filter_map(|interface| ip(&interface.address?))
        .collect())
}

/// Takes them away again, where they are.
pub(super) fn remove_addresses(host: &Host) {
    let there = own_addresses().unwrap_or_default();
    for address in [IpAddr::V4(V4), IpAddr::V6(V6)] {
        if there.contains(&address) {
            // An address that stays does no harm.
            let _ = command::run(&alias(host, address, false));
        }
    }
}

/// The command that adds the address to the loopback interface, or removes it: ip-address(8), ifconfig(8).
fn alias(host: &Host, address: IpAddr, add: bool) -> CommandSpec {
    let length = if address.is_ipv4() { 32 } else { 128 };
    let net = format!("{address}/{length}");
    match host.os {
        Os::Linux => {
            let verb = if add { "add" } else { "del" };
            let mut args = vec!["address", verb, &net, "dev", "lo"];
            if add && address.is_ipv4() {
                // Or the kernel would take it as the source of packets that have no better one.
                args.extend(["scope", "host"]);
            }
            CommandSpec::new(&host.tools.ip, &args, TIMEOUT)
        }
        Os::MacOs => {
            let family = if address.is_ipv4() { "inet" } else { "inet6" };
            let verb = if add { "alias" } else { "-alias" };
            let what = if add { net } else { address.to_string() };
            CommandSpec::new(&host.mac.ifconfig, &["lo0", family, &what, verb], TIMEOUT)
        }
    }
}

/// Listens on one address by both protocols.
struct Ears {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Ears {
    /// On a port that no job can have taken, because it takes root, and that rules do not treat in a way of their own.
    fn on(address: IpAddr, avoid: &[Ports]) -> io::Result<Self> {
        let ports = PRIVILEGED
            .rev()
            .filter(|port| !avoid.iter().any(|ports| ports.holds(*port)));
        let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
        for port in ports {
            let bound = TcpListener::bind((address, port))
                .and_then(|tcp| UdpSocket::bind((address, port)).map(|udp| Self { tcp, udp }));
            match bound {
                Ok(ears) => {
                    ears.udp.set_nonblocking(true)?;
                    return Ok(ears);
                }
                Err(error) => refused = error,
            }
        }
        Err(io::Error::new(
            refused.kind(),
            format!("cannot listen on {address}: {refused}"),
        ))
    }

    /// Whether a datagram has come; within this machine it comes before sending it returns.
    fn has_heard(&self) -> bool {
        self.udp.recv(&mut [0]).is_ok()
    }
}

/// Tries as the account of each slot, and before that as this process. Forks: only a process with a single thread may call
/// it.
///
/// # Errors
/// The addresses are not there, this process cannot use them itself, or an account cannot be become.
pub fn fly(slots: &[Slot], avoid: &[Ports]) -> io::Result<Vec<Attempt>> {
    let mut pairs = vec![(IpAddr::V4(V4), IpAddr::V4(Ipv4Addr::LOCALHOST))];
    if own_addresses()
        .map_err(io::Error::other)?
        .contains(&IpAddr::V6(Ipv6Addr::LOCALHOST))
    {
        pairs.push((IpAddr::V6(V6), IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }
    let mut attempts = Vec::new();
    for (denied, own) in pairs {
        let (denied, own) = (Ears::on(denied, avoid)?, Ears::on(own, avoid)?);
        let owner = format!("uid {}", nix::unistd::geteuid());
        let control = [(&denied, Verdict::Allow)];
        for attempt in tried(&owner, &control, run_here)? {
            if !attempt.is_met() {
                let Attempt {
                    account, to, said, ..
                } = attempt;
                return Err(io::Error::other(format!(
                    "{account} itself does not reach {to}: {said}"
                )));
            }
        }
        for slot in slots {
            let mut targets = vec![(&denied, Verdict::Deny)];
            // What a guest is kept from at loopback would be counted as its own.
            if !slot.is_of_guest() {
                targets.push((&own, Verdict::Allow));
            }
            attempts.extend(tried(&slot.account.name, &targets, |targets| {
                run_as(&slot.account, targets)
            })?);
        }
    }
    Ok(attempts)
}

type Targets = [(Transport, SocketAddr)];

/// What comes of trying every target; `run` says what the system said to each, nothing when all was well.
fn tried(
    account: &str,
    targets: &[(&Ears, Verdict)],
    run: impl FnOnce(&Targets) -> io::Result<Vec<String>>,
) -> io::Result<Vec<Attempt>> {
    let mut list = Vec::new();
    for (ears, _) in targets {
        list.push((Transport::Tcp, ears.tcp.local_addr()?));
        list.push((Transport::Udp, ears.udp.local_addr()?));
    }
    let said = run(&list)?;
    let mut attempts = Vec::new();
    for ((transport, to), said) in list.into_iter().zip(said) {
        let (ears, wanted) = targets[attempts.len() / 2];
        // A datagram that is sent without an error counts only when it has come.
        let passed = match transport {
            Transport::Tcp => said.is_empty(),
            Transport::Udp => ears.has_heard(),
        };
        attempts.push(Attempt {
            account: account.to_owned(),
            transport,
            to,
            wanted,
            found: if passed { Verdict::Allow } else { Verdict::Deny },
            said,
        });
    }
    Ok(attempts)
}

fn run_here(targets: &Targets) -> io::Result<Vec<String>> {
    Ok(targets.iter().map(|target| attempt(*target)).collect())
}

/// What the system says to one attempt; nothing when all is well.
fn attempt((transport, to): (Transport, SocketAddr)) -> String {
    let done = match transport {
        Transport::Tcp => TcpStream::connect_timeout(&to, WITHIN).map(drop),
        Transport::Udp => {
            let any: IpAddr = if to.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            UdpSocket::bind((any, 0)).and_then(|socket| socket.send_to(&[0], to).map(drop))
        }
    };
    done.err().map(|error| error.to_string()).unwrap_or_default()
}

/// As [`run_here`], in a child that has become the account.
fn run_as(account: &Account, targets: &Targets) -> io::Result<Vec<String>> {
    let (reader, writer) = pipe()?;
    // SAFETY: the caller has a single thread, so the child may do whatever it likes.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(reader);
            let said = become_account(account)
                .and_then(|()| run_here(targets))
                .and_then(|said| Ok(serde_json::to_vec(&said)?))
                .and_then(|said| std::fs::File::from(writer).write_all(&said));
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(i32::from(said.is_err())) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut said = Vec::new();
            std::fs::File::from(reader.as_fd().try_clone_to_owned()?).read_to_end(&mut said)?;
            waitpid(child, None)?;
            serde_json::from_slice(&said)
                .map_err(|_| io::Error::other(format!("could not try as `{}`", account.name)))
        }
    }
}

fn become_account(account: &Account) -> io::Result<()> {
    os::set_groups(&[account.gid])?;
    setgid(Gid::from_raw(account.gid))?;
    setuid(Uid::from_raw(account.uid))?;
    Ok(())
}
