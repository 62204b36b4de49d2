//! A host and the world around it, in two network namespaces of this test's own: nothing that is sent between them ever
//! leaves this machine.
//!
//! ```text
//!  host namespace                           world namespace
//!    192.168.77.1/24, 2001:db8:77::1/64 ──── every address of WORLD, with servers on it
//!    routes to everything through the world
//! ```

use std::io::{IoSlice, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use camino::Utf8Path;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::{Site, command, said, wait_for};

/// The port of every server but resolvers.
pub(crate) const PORT: u16 = 8080;

/// The resolver of the LAN, which the configuration names.
pub(crate) const RESOLVER: &str = "192.168.77.53";

/// Addresses of the internet.
pub(crate) const PUBLIC: [&str; 2] = ["203.0.113.10", "2001:db8:ffff::10"];

/// An address of every range that is denied, and of the prefixes the host is on.
pub(crate) const DENIED: [&str; 21] = [
    "10.9.8.7",
    "100.64.1.1",
    "168.63.129.16",
    "169.254.169.254",
    "172.20.0.1",
    "192.0.0.1",
    "192.168.1.1",
    "192.168.77.2",
    "192.168.77.53",
    "198.18.0.1",
    "240.0.0.1",
    "2001:db8:77::2",
    "2001::1",
    "2002:a00:1::1",
    "64:ff9b:1::1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::c0a8:101",
    "fd12::1",
    "fd00:ec2::254",
    "fec0::1",
    "5f00::1",
];

/// How long one attempt to connect may take; the next one is as good.
const WITHIN: Duration = Duration::from_millis(200);

/// The host's own addresses on the LAN.
const HOST: [&str; 2] = ["192.168.77.1", "2001:db8:77::1"];

/// The world's, which is the router.
const WORLD: [&str; 2] = ["192.168.77.2", "2001:db8:77::2"];

static NETS: AtomicU32 = AtomicU32::new(0);

/// The two namespaces. Dropping it removes them, and what serves in them ends with the test.
#[derive(Debug)]
pub(crate) struct Net {
    host: String,
    world: String,
}

/// `ip` with these arguments, which must succeed.
#[track_caller]
fn ip(args: &str) {
    let output = command("/usr/sbin/ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", said(&output));
}

impl Net {
    /// Makes the host and the world, with servers on [`PORT`] of every address and on port 53.
    pub(crate) fn new() -> Self {
        let number = NETS.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{}-{number}", std::process::id());
        let net = Self {
            host: format!("epht-host-{unique}"),
            world: format!("epht-world-{unique}"),
        };
        let Self { host, world } = &net;
        ip(&format!("netns add {host}"));
        ip(&format!("netns add {world}"));
        ip(&format!(
            "link add name lan netns {host} type veth peer name lan netns {world}"
        ));
        for (space, [v4, v6]) in [(host, HOST), (world, WORLD)] {
            ip(&format!("-n {space} link set lo up"));
            // Without duplicate address detection there is nothing to wait for.
            ip(&format!("-n {space} address add {v4}/24 dev lan"));
            ip(&format!("-n {space} address add {v6}/64 dev lan nodad"));
            ip(&format!("-n {space} link set lan up"));
        }
        ip(&format!("-n {host} route add default via 192.168.77.2"));
        ip(&format!("-n {host} route add default via 2001:db8:77::2"));
        for address in DENIED.into_iter().chain(PUBLIC) {
            let address: IpAddr = address.parse().unwrap();
            let length = if address.is_ipv4() { 32 } else { 128 };
            if !WORLD.contains(&address.to_string().as_str()) {
                ip(&format!("-n {world} address add {address}/{length} dev lo"));
            }
        }
        net.serve();
        // Both ends of a new link take a moment to agree that IPv6 works.
        let public = SocketAddr::from((PUBLIC[1].parse::<Ipv6Addr>().unwrap(), PORT));
        wait_for("the world over IPv6", || {
            net.inside(host, || TcpStream::connect_timeout(&public, WITHIN).ok())
        });
        net
    }

    /// Starts servers in the world: TCP says `hello`, UDP answers.
    fn serve(&self) {
        let (tcp, udp): (Vec<TcpListener>, Vec<UdpSocket>) = self.inside(&self.world, || {
            let any = [PORT, 53].map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
            let tcp = any.iter().map(|any| TcpListener::bind(any).unwrap()).collect();
            // A datagram's answer must come from the address it went to, so every address has a socket.
            let each = DENIED
                .into_iter()
                .chain(PUBLIC)
                .map(|text| text.parse::<IpAddr>().unwrap());
            let udp = each
                .flat_map(|address| [PORT, 53].map(|port| (address, port)))
                // A new link takes a moment until its addresses are there.
                .map(|place| wait_for("an address of the world", || UdpSocket::bind(place).ok()))
                .collect();
            (tcp, udp)
        });
        for listener in tcp {
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let _ = stream.unwrap().write_all(b"hello");
                }
            });
        }
        for socket in udp {
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(b"hello", from);
                }
            });
        }
    }

    /// Starts a server on the host itself: TCP says `hello` on every address, with a port of its own.
    pub(crate) fn listen_on_host(&self, port: u16) {
        self.serve_on_host(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    }

    /// The same on one address.
    pub(crate) fn serve_on_host(&self, at: SocketAddr) {
        let listener = self.inside(&self.host, || TcpListener::bind(at).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(b"hello");
            }
        });
    }

    /// Hands out, on the host's abstract socket `name`, a socket of this very process that is connected to the LAN.
    pub(crate) fn hand_out_sockets(&self, name: &str) {
        let (listener, connected) = self.inside(&self.host, || {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
            let connected = UdpSocket::bind("0.0.0.0:0").unwrap();
            connected.connect((DENIED[0], PORT)).unwrap();
            (UnixListener::bind_addr(&address).unwrap(), connected)
        });
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let handed = [connected.as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&handed)];
                let _ = sendmsg::<()>(
                    stream.as_raw_fd(),
                    &[IoSlice::new(b"x")],
                    &rights,
                    MsgFlags::empty(),
                    None,
                );
            }
        });
    }

    /// Whether somebody in the world, at its address of the LAN, gets an answer from a port of the host.
    pub(crate) fn reaches_host(&self, port: u16) -> bool {
        let to: SocketAddr = (HOST[0].parse::<IpAddr>().unwrap(), port).into();
        self.inside(&self.world, || {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            stream.read_exact(&mut [0]).ok()
        })
        .is_some()
    }

    /// Runs `ip` on the host of this net.
    #[track_caller]
    pub(crate) fn ip_on_host(&self, args: &str) {
        ip(&format!("-n {} {args}", self.host));
    }

    /// Runs `ip` in the world.
    #[track_caller]
    pub(crate) fn ip_in_world(&self, args: &str) {
        ip(&format!("-n {} {args}", self.world));
    }

    /// `ephemerd` on the host of this net, for which `/usr/sbin/nft` is `program`.
    pub(crate) fn ephemerd_with_nft(&self, site: &Site, program: &Utf8Path, args: &[&str]) -> Command {
        let plain = site.ephemerd(args);
        let mut command = self.on_host("/usr/bin/unshare");
        let script = "mount --bind \"$1\" /usr/sbin/nft && shift && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh", program.as_str()]);
        command.arg(plain.get_program()).args(plain.get_args());
        command
    }

    /// Does something in a namespace; what it opens there stays there.
    fn inside<T: Send>(&self, space: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{space}");
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            worker.join().unwrap()
        })
    }

    /// The command that runs `program` on the host of this net.
    pub(crate) fn on_host(&self, program: &str) -> Command {
        let mut nsenter = command("/usr/bin/nsenter");
        nsenter
            .arg(format!("--net=/run/netns/{}", self.host))
            .arg(program);
        nsenter
    }

    /// `ephemerd` of `site` on the host of this net.
    pub(crate) fn ephemerd(&self, site: &Site, args: &[&str]) -> Command {
        let plain = site.ephemerd(args);
        let mut command = self.on_host(plain.get_program().to_str().unwrap());
        command.args(plain.get_args());
        command
    }

    /// Runs `ephemerd` there to its end.
    pub(crate) fn run(&self, site: &Site, args: &[&str]) -> Output {
        self.ephemerd(site, args).output().unwrap()
    }

    /// Runs `nft` on the host of this net, which must succeed.
    #[track_caller]
    pub(crate) fn nft(&self, script: &str) -> String {
        let mut child = self
            .on_host("/usr/sbin/nft")
            .args(["-f", "-"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{script}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Tries targets as `uid` on the host of this net, outside of any sandbox.
    pub(crate) fn attempts_as(&self, uid: u32, targets: &[String]) -> Vec<String> {
        self.script_as(uid, ATTEMPT, targets)
    }

    /// The lines that a script of Python prints as `uid` on the host of this net, outside of any sandbox.
    pub(crate) fn script_as(&self, uid: u32, script: &str, args: &[String]) -> Vec<String> {
        let id = uid.to_string();
        let output = self
            .on_host("/usr/bin/setpriv")
            .args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                script,
            ])
            .args(args)
            .output()
            .unwrap();
        lines_of(&output)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for space in [&self.host, &self.world] {
            let _ = command("/usr/sbin/ip").args(["netns", "delete", space]).output();
        }
    }
}

/// The lines that a script printed, which must have ended well.
#[track_caller]
pub(crate) fn lines_of(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", said(output));
    let mut text = String::new();
    output.stdout.as_slice().read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Tries `PROTOCOL ADDRESS PORT` for every argument and prints what came of it: `reached`, `refused` or `silent`.
pub(crate) const ATTEMPT: &str = r#"
import socket, sys

def attempt(protocol, address, port):
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[protocol]
    family, _, _, _, where = socket.getaddrinfo(address, int(port), type=kind)[0]
    with socket.socket(family, kind) as one:
        # Whoever is refused hears of it at once.
        one.settimeout(0.9)
        try:
            one.connect(where)
            if protocol == "udp":
                one.send(b"x")
            return "reached" if one.recv(16) else "closed"
        except (ConnectionRefusedError, PermissionError):
            return "refused"
        except TimeoutError:
            return "silent"
        except OSError as error:
            return f"failed: {error}"

for target in sys.argv[1:]:
    print(target, attempt(*target.split()))
"#;
