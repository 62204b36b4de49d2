//! The packet filter, really enforced: hosts and networks of namespaces, jobs in real slots.
//!
//! Every refusal has its control: the same attempt by an account that is no slot's must succeed.

mod kernel;
mod loss;
#[path = "../egress/model.rs"]
mod model;

use std::process::Output;

use crate::harness::net::{ATTEMPT, DENIED, Net, PORT, PUBLIC, RESOLVER, lines_of};
use crate::harness::{Daemon, Site, err, out, said};

/// An account that no rule is about.
const NOBODY: u32 = 65534;

const BLOCK_LAN: &str = "[egress]\nmode = \"block-lan\"\ndns = [\"192.168.77.53\"]\n";

/// Every address by both protocols.
fn targets(addresses: &[&str], port: u16) -> Vec<String> {
    let each = |protocol| {
        addresses
            .iter()
            .map(move |address| format!("{protocol} {address} {port}"))
    };
    each("tcp").chain(each("udp")).collect()
}

/// The targets, each followed by what must have come of it.
fn all(targets: &[String], word: &str) -> Vec<String> {
    targets.iter().map(|target| format!("{target} {word}")).collect()
}

/// Tries targets inside a job.
fn job(net: &Net, site: &Site, targets: &[String]) -> Output {
    net.ephemerd(site, &["exec", "--", "/usr/bin/python3", "-c", ATTEMPT])
        .args(targets)
        .output()
        .unwrap()
}

#[test]
fn a_job_reaches_the_internet_and_no_range_that_is_not_while_others_reach_everything() {
    let (net, site) = (Net::new(), Site::new(BLOCK_LAN));
    let (denied, public) = (targets(&DENIED, PORT), targets(&PUBLIC, PORT));
    assert_eq!(
        net.attempts_as(NOBODY, &denied),
        all(&denied, "reached"),
        "the control"
    );
    let everything = [denied.clone(), public.clone()].concat();
    let ran = job(&net, &site, &everything);
    let wanted = [all(&denied, "refused"), all(&public, "reached")].concat();
    assert_eq!(lines_of(&ran), wanted, "{}", err(&ran));
    assert_eq!(
        net.attempts_as(NOBODY, &denied),
        all(&denied, "reached"),
        "others, with the rules loaded"
    );
    // The job's own result says so, and so does the filter.
    let said_of = err(&ran);
    assert!(
        said_of.contains("ephemerd: blocked ") && said_of.contains(":8080/tcp ×"),
        "{said_of}"
    );
    let status = net.run(&site, &["egress", "status"]);
    assert!(status.status.success(), "{}", said(&status));
}

#[test]
fn what_is_verified_of_profiles_holds_behind_the_filter_as_well() {
    let (net, site) = (Net::new(), Site::new(BLOCK_LAN));
    let verified = net.run(&site, &["profile", "verify"]);
    assert!(verified.status.success(), "{}", said(&verified));
    let held = out(&verified).matches(" held ").count();
    assert!(
        held > 200,
        "{held} attacks held in both postures: {}",
        said(&verified)
    );
}

#[test]
fn names_are_asked_of_the_configured_resolver_and_of_nobody_else() {
    let (net, site) = (Net::new(), Site::new(BLOCK_LAN));
    let resolver = targets(&[RESOLVER], 53);
    let others = targets(&["203.0.113.10", "192.168.77.2", "2001:db8:ffff::10"], 53);
    assert_eq!(
        net.attempts_as(NOBODY, &others),
        all(&others, "reached"),
        "the control"
    );
    let lan = targets(&[RESOLVER], PORT);
    let everything = [resolver.clone(), others.clone(), lan.clone()].concat();
    let wanted = [
        all(&resolver, "reached"),
        all(&others, "refused"),
        all(&lan, "refused"),
    ]
    .concat();
    assert_eq!(lines_of(&job(&net, &site, &everything)), wanted);
}

/// Says hello to whoever connects to port 21001 of any address, once it has said that it listens.
const SERVE: &str = r#"
import socket
with socket.create_server(("0.0.0.0", 21001)) as server:
    print("listening", flush=True)
    while True:
        one, _ = server.accept()
        one.send(b"hello")
        one.close()
"#;

#[test]
fn a_server_in_a_job_answers_nobody_on_the_lan() {
    let (net, site) = (Net::new(), Site::new(BLOCK_LAN));
    net.listen_on_host(9999);
    let command = net.ephemerd(&site, &["run"]);
    let daemon = Daemon::start_by(site, command);
    let job = daemon.submit("acme/app", &["/usr/bin/python3", "-c", SERVE]);
    daemon.wait_for_output(&job, "listening");
    assert!(net.reaches_host(9999), "the control");
    assert!(!net.reaches_host(21_001));
    let loopback = ["tcp 127.0.0.1 21001".to_owned()];
    assert_eq!(
        net.attempts_as(NOBODY, &loopback),
        all(&loopback, "reached"),
        "the host itself"
    );
    assert!(daemon.cli(&["cancel", job.as_str()]).status.success());
    daemon.ended(&job);
}

#[test]
fn a_resolver_at_loopback_is_one_as_well() {
    let (net, site) = (
        Net::new(),
        Site::new("[egress]\nmode = \"block-lan\"\ndns = [\"127.0.0.53\"]\nlog = true\n"),
    );
    for address in ["127.0.0.53:53", "127.0.0.54:53"] {
        net.serve_on_host(address.parse().unwrap());
    }
    let tried = ["tcp 127.0.0.53 53", "tcp 127.0.0.54 53"].map(str::to_owned);
    assert_eq!(
        net.attempts_as(NOBODY, &tried),
        all(&tried, "reached"),
        "the control"
    );
    let wanted = ["tcp 127.0.0.53 53 reached", "tcp 127.0.0.54 53 refused"];
    assert_eq!(lines_of(&job(&net, &site, &tried)), wanted);
}

/// Tables as Docker (by iptables-nft), firewalld and ufw make them, as far as they are about what a host sends.
const OF_OTHERS: &str = "
table ip filter {
    chain OUTPUT { type filter hook output priority filter; policy accept; accept; }
    chain DOCKER-USER { return; }
}
table inet firewalld {
    chain filter_OUTPUT { type filter hook output priority filter + 10; policy accept; ct state { established, related } accept; oifname \"lo\" accept; }
}
table ip ufw {
    chain ufw-before-output { oifname \"lo\" accept; ip daddr 10.0.0.0/8 accept; accept; }
    chain output { type filter hook output priority raw - 50; policy accept; jump ufw-before-output; }
}
";

#[test]
fn tables_of_others_neither_open_what_is_closed_nor_are_touched() {
    let (net, site) = (Net::new(), Site::new(BLOCK_LAN));
    net.nft(OF_OTHERS);
    let list = || {
        ["ip filter", "inet firewalld", "ip ufw"].map(|table| {
            let words = ["list", "table"].into_iter().chain(table.split(' '));
            let listed = net.on_host("/usr/sbin/nft").args(words).output().unwrap();
            assert!(listed.status.success(), "{}", said(&listed));
            out(&listed)
        })
    };
    let before = list();
    let tried = [targets(&["10.9.8.7", "fd12::1"], PORT), targets(&PUBLIC, PORT)].concat();
    let wanted = [all(&tried[..4], "refused"), all(&tried[4..], "reached")].concat();
    assert_eq!(lines_of(&job(&net, &site, &tried)), wanted);
    assert_eq!(list(), before);
    let removed = net.run(&site, &["egress", "remove"]);
    assert!(removed.status.success(), "{}", said(&removed));
    assert_eq!(list(), before);
}

#[test]
fn what_is_allowed_is_reached_by_its_port_and_protocol_alone_and_what_is_denied_is_not() {
    let more = "allow = [\"10.9.8.7:8080/tcp\", \"fd12::1\"]\ndeny = [\"203.0.113.0/24:8080/udp\"]\n";
    let (net, site) = (Net::new(), Site::new(&format!("{BLOCK_LAN}{more}")));
    let tried = [
        ("tcp 10.9.8.7 8080", "reached"),
        ("udp 10.9.8.7 8080", "refused"),
        ("tcp 10.9.8.7 53", "refused"),
        ("tcp fd12::1 8080", "reached"),
        ("udp fd12::1 8080", "reached"),
        ("tcp 203.0.113.10 8080", "reached"),
        ("udp 203.0.113.10 8080", "refused"),
    ];
    let targets: Vec<String> = tried.iter().map(|(target, _)| (*target).to_owned()).collect();
    let wanted: Vec<String> = tried
        .iter()
        .map(|(target, found)| format!("{target} {found}"))
        .collect();
    assert_eq!(lines_of(&job(&net, &site, &targets)), wanted);
}

#[test]
fn the_host_itself_is_reached_at_loopback_alone_and_not_on_protected_ports() {
    let more = format!("{BLOCK_LAN}protect_local_ports = [9998]\nloopback = \"own-ports\"\n");
    let (net, site) = (Net::new(), Site::new(&more));
    // The first ports of the ranges of slot 1, which runs the job, and of slot 2.
    let (own, others) = (21_000, 21_100);
    for port in [9998, 9999, own, others] {
        net.listen_on_host(port);
    }
    let tried = [
        ("tcp 127.0.0.1 9999", "reached"),
        ("tcp ::1 9999", "reached"),
        ("tcp 0.0.0.0 9999", "reached"),
        ("tcp 127.0.0.1 21000", "reached"),
        ("tcp 127.0.0.1 9998", "refused"),
        ("tcp 127.8.8.8 9998", "refused"),
        ("tcp ::1 9998", "refused"),
        ("tcp 0.0.0.0 9998", "refused"),
        ("tcp 127.0.0.1 21100", "refused"),
        ("tcp ::1 21100", "refused"),
        ("tcp 192.168.77.1 9999", "refused"),
        ("tcp 2001:db8:77::1 9999", "refused"),
        ("tcp ::ffff:192.168.77.1 9999", "refused"),
    ];
    let targets: Vec<String> = tried.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(
        net.attempts_as(NOBODY, &targets),
        all(&targets, "reached"),
        "the control"
    );
    let wanted: Vec<String> = tried
        .iter()
        .map(|(target, found)| format!("{target} {found}"))
        .collect();
    assert_eq!(lines_of(&job(&net, &site, &targets)), wanted);
}

/// Ways around a filter of connections, each printed with what came of it.
const WAYS: &str = r#"
import errno, socket, struct

def tell(name, way):
    try:
        print(name, way() or "sent")
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, error))

def send(family, kind, protocol, where, prepare=lambda one: None, packet=b"x"):
    def way():
        with socket.socket(family, kind, protocol) as one:
            one.settimeout(0.9)
            prepare(one)
            if kind == socket.SOCK_STREAM:
                one.connect(where)
                return "reached" if one.recv(9) else "closed"
            one.sendto(packet, where)
    return way

four, six = socket.AF_INET, socket.AF_INET6
stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
echo = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
bound = lambda one: one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lan")
loud = lambda one: one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)

tell("mapped", send(six, stream, 0, ("::ffff:10.9.8.7", 8080)))
tell("mapped-datagram", send(six, datagram, 0, ("::ffff:10.9.8.7", 8080)))
tell("link-local", send(six, stream, 0, socket.getaddrinfo("fe80::77%lan", 8080)[0][4]))
tell("bound-to-device", send(four, stream, 0, ("10.9.8.7", 8080), bound))
tell("multicast", send(four, datagram, 0, ("224.0.0.251", 5353)))
tell("broadcast", send(four, datagram, 0, ("192.168.77.255", 8080), loud))
tell("ping", send(four, datagram, socket.IPPROTO_ICMP, ("10.9.8.7", 0), packet=echo))
tell("resolver-elsewhere", send(four, datagram, 0, ("192.168.77.53", 8080)))
# A segment routing header (RFC 8754): by way of the internet to the LAN. The filter sees the first of them.
segments = [socket.inet_pton(six, address) for address in ("fd12::1", "2001:db8:ffff::10")]
header = struct.pack("!BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + b"".join(segments)
routed = lambda one: one.setsockopt(socket.IPPROTO_IPV6, 57, header)
tell("routed", send(six, datagram, 0, ("fd12::1", 8080), routed))
tell("mptcp", send(four, stream, 262, ("10.9.8.7", 8080)))
def handed():
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("\0epht-hand")
        _, rights, _, _ = socket.recv_fds(one, 1, 1)
        with socket.socket(fileno=rights[0]) as connected:
            connected.send(b"x")

tell("handed", handed)
tell("raw", send(four, socket.SOCK_RAW, socket.IPPROTO_ICMP, ("10.9.8.7", 0), packet=echo))
tell("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close())
"#;

#[test]
fn no_other_kind_of_socket_gets_around_the_filter() {
    let (net, site) = (Net::new(), Site::new(BLOCK_LAN));
    net.ip_in_world("address add fe80::77/64 dev lan nodad");
    net.hand_out_sockets("epht-hand");
    // Whoever may ping is a matter of the namespace; here everybody may.
    let ping = "sysctl -qw net.ipv4.ping_group_range='0 2147483647'";
    assert!(
        net.on_host("/bin/sh")
            .args(["-c", ping])
            .status()
            .unwrap()
            .success()
    );
    let control = net.script_as(NOBODY, WAYS, &[]);
    let free = [
        "mapped reached",
        "link-local reached",
        "bound-to-device reached",
        "multicast sent",
        "broadcast sent",
        "ping sent",
        "handed sent",
        "mapped-datagram sent",
        "resolver-elsewhere sent",
        "routed sent",
        "mptcp reached",
    ];
    for way in free {
        assert!(
            control.contains(&way.to_owned()),
            "the control: {way}: {control:?}"
        );
    }
    for posture in ["strict", "standard"] {
        let args = ["exec", "--posture", posture, "--", "/usr/bin/python3", "-c", WAYS];
        let tried = lines_of(&net.run(&site, &args));
        assert_eq!(
            tried,
            [
                "mapped ECONNREFUSED",
                "mapped-datagram EPERM",
                "link-local ECONNREFUSED",
                "bound-to-device ECONNREFUSED",
                "multicast EPERM",
                "broadcast EPERM",
                "ping EPERM",
                "resolver-elsewhere EPERM",
                "routed EPERM",
                "mptcp EPROTONOSUPPORT",
                "handed EPERM",
                "raw EPERM",
                "packet EPERM",
            ],
            "{posture}"
        );
    }
}
