//! The kernel decides as the rules say: a sample of addresses on both sides of every boundary, asked of a host whose
//! network leads nowhere.

use std::net::IpAddr;

use ephemerd::egress::{Packet, Transport, Verdict, nft};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::model::any_packet;
use crate::harness::net::Net;
use crate::harness::{Site, out, said};

/// How many packets are sent, by each of two slots.
const SAMPLE: usize = 600;

/// Sends a datagram to every `ADDRESS PORT` and prints whether it was sent. A datagram is all it takes: nothing answers.
const SEND: &str = r#"
import socket, sys
scope = socket.if_nametoindex("nowhere")
for target in sys.argv[1:]:
    address, port = target.split()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = (address, int(port), 0, scope) if family == socket.AF_INET6 else (address, int(port))
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            one.sendto(b"x", where)
            print("allow")
        except PermissionError:
            print("deny")
        except OSError as error:
            print(error)
"#;

#[test]
fn the_kernel_sends_what_the_rules_allow_and_nothing_else() {
    let net = Net::new();
    // Everything leads to an interface that leads nowhere, so that only the filter can refuse.
    for args in [
        "link add nowhere type veth peer name nobody",
        "link set nobody up",
        "link set nowhere arp off",
        "link set nowhere up",
        "route replace default dev nowhere metric 1",
        "-6 route replace default dev nowhere metric 1",
    ] {
        net.ip_on_host(args);
    }
    let more = "mode = \"block-lan\"\ndns = [\"10.0.0.53\"]\nloopback = \"own-ports\"\n\
                allow = [\"192.168.1.0/24:443 force\", \"[fe80::/10]:22 force\"]\n\
                deny = [\"203.0.113.0/24\", \"2001:db8::9\"]\n";
    let site = Site::new(&format!("[egress]\n{more}"));
    let applied = net.run(&site, &["egress", "apply"]);
    assert!(applied.status.success(), "{}", said(&applied));
    let text = out(&net.run(&site, &["egress", "render"]));
    let chains = nft::read(&text).unwrap();

    let mut runner = TestRunner::deterministic();
    let packets: Vec<Packet> =
        std::iter::repeat_with(|| any_packet().new_tree(&mut runner).unwrap().current())
            .filter_map(|packet| {
                let (_, port) = packet.transport?;
                // The kernel takes "no address" for loopback before any filter sees it.
                let mapped = ephemerd::egress::destination::mapped(packet.to).map_or(packet.to, IpAddr::V4);
                (!mapped.is_unspecified()).then_some(Packet {
                    to: packet.to,
                    transport: Some((Transport::Udp, port)),
                })
            })
            .take(SAMPLE)
            .collect();
    let targets: Vec<String> = packets
        .iter()
        .map(|packet| format!("{} {}", packet.to, packet.transport.unwrap().1.unwrap()))
        .collect();
    for uid in [site.family.uid(1), site.family.uid(2)] {
        let meant: Vec<Verdict> = packets
            .iter()
            .map(|packet| chains.decide(uid, packet).verdict)
            .collect();
        let both = [Verdict::Allow, Verdict::Deny]
            .map(|verdict| meant.iter().filter(|one| **one == verdict).count());
        assert!(
            both.iter().all(|count| *count > SAMPLE / 10),
            "a sample of both: {both:?}"
        );
        let found = net.script_as(uid, SEND, &targets);
        assert_eq!(found.len(), SAMPLE);
        for ((target, meant), found) in targets.iter().zip(meant).zip(found) {
            assert_eq!(found, meant.to_string(), "uid {uid} to {target}");
        }
    }
    let control = net.script_as(65534, SEND, &targets);
    assert_eq!(control.len(), SAMPLE);
    assert!(
        control.iter().all(|found| found == "allow"),
        "the control: {control:?}"
    );
}
