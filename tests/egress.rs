//! The rules of egress: what the texts of nftables and pf decide is what a plain model of the policy decides, for
//! addresses on both sides of every boundary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "egress/model.rs"]
mod model;

use std::net::IpAddr;

use ephemerd::config::parse;
use ephemerd::egress::{Chains, Packet, Policy, SlotPorts, Transport, Verdict, nft, pf, render};
use ephemerd::host::Os;
use model::{DEFAULT, PLACES, PORTS, any_packet, policy};
use proptest::prelude::*;

/// Whether a slot's packet is sent, by what the configuration means.
fn reference(policy: &Policy, slot: &SlotPorts, packet: &Packet) -> Verdict {
    let verdict = |allowed| if allowed { Verdict::Allow } else { Verdict::Deny };
    // An IPv4 address in the form of IPv6 goes out by IPv4.
    let to = match packet.to {
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or(packet.to, IpAddr::V4),
        IpAddr::V4(_) => packet.to,
    };
    let port = packet.transport.and_then(|(_, port)| port);
    if port.is_some_and(|port| policy.dns_ports.contains(&port)) {
        return verdict(policy.resolvers.contains(&to));
    }
    let is_of = |destination: &ephemerd::egress::Destination| {
        destination.net.contains(&to)
            && destination
                .ports
                .is_none_or(|ports| port.is_some_and(|port| ports.first <= port && port <= ports.last))
            && destination
                .transport
                .is_none_or(|wanted| packet.transport.is_some_and(|(own, _)| own == wanted))
    };
    if to.is_loopback() {
        let protected = port.is_some_and(|port| policy.protected_ports.contains(&port));
        let of_others = policy.loopback == ephemerd::config::Loopback::OwnPorts
            && policy
                .slots
                .iter()
                .filter(|other| other.index != slot.index)
                .filter_map(|other| other.ports)
                .any(|ports| port.is_some_and(|port| ports.holds(port)));
        // A guest has no loopback here but what is allowed by name.
        let is_there = slot.ports.is_some() || policy.allow.iter().any(is_of);
        return verdict(is_there && !protected && !of_others && !policy.deny.iter().any(is_of));
    }
    if policy.deny.iter().any(is_of) {
        return Verdict::Deny;
    }
    if policy.allow.iter().any(is_of) {
        return Verdict::Allow;
    }
    verdict(!policy.denied.iter().any(|net| net.contains(&to)))
}

fn any_destination() -> impl Strategy<Value = String> {
    let place = prop::sample::select(&PLACES[..]);
    let ports = prop_oneof![
        Just(String::new()),
        prop::sample::select(&PORTS[..]).prop_map(|port| format!(":{port}")),
        (1u16..1000, 0u16..1000).prop_map(|(first, more)| format!(":{first}-{}", first + more)),
    ];
    let transport = prop::sample::select(&["", "/tcp", "/udp"][..]);
    (place, ports, transport).prop_map(|(place, ports, transport)| {
        if place.contains(':') && !ports.is_empty() {
            format!("[{place}]{ports}{transport}")
        } else {
            format!("{place}{ports}{transport}")
        }
    })
}

/// A policy that somebody might configure.
fn any_policy() -> impl Strategy<Value = Policy> {
    let some = || prop::collection::vec(any_destination(), 0..4);
    let dns = prop::sample::select(
        &[
            "\"system\"",
            "[]",
            "[\"10.0.0.53\", \"2001:db8::53\"]",
            "[\"::1\"]",
        ][..],
    );
    let dns_ports = prop::sample::select(&["[53]", "[53, 853]", "[]"][..]);
    let protected = prop::sample::select(&["[]", "[22]", "[22, 23, 5900]"][..]);
    let loopback = prop::sample::select(&["shared", "own-ports"][..]);
    (some(), some(), dns, dns_ports, protected, loopback, any::<bool>()).prop_filter_map(
        "an allow that a deny covers",
        |(allow, deny, dns, dns_ports, protected, loopback, log)| {
            let allow: Vec<String> = allow.iter().map(|to| format!("{to} force")).collect();
            let text = format!(
                "allow = {allow:?}\ndeny = {deny:?}\ndns = {dns}\ndns_ports = {dns_ports}\n\
                 protect_local_ports = {protected}\nloopback = {loopback:?}\nlog = {log}\n"
            );
            parse(&format!("[egress]\n{text}"), "test.toml").ok()?;
            let mut policy = policy(&text);
            policy.slots.push(SlotPorts {
                index: 9,
                uid: 990,
                ports: None,
            });
            Some(policy)
        },
    )
}

/// What the text for one system says, after it was read back.
fn chains(policy: &Policy, os: Os) -> Chains {
    let text = render::render(policy, os).unwrap();
    match os {
        Os::Linux => nft::read(&text).unwrap(),
        Os::MacOs => pf::read(&text).unwrap(),
    }
}

fn decided(policy: &Policy, os: Os, uid: u32, packet: &Packet) -> Verdict {
    chains(policy, os).decide(uid, packet).verdict
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        // What is found becomes a test with a name.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn both_texts_decide_as_the_policy_means(policy in any_policy(), packets in prop::collection::vec(any_packet(), 1..40)) {
        for os in [Os::Linux, Os::MacOs] {
            let chains = chains(&policy, os);
            // pf knows TCP and UDP by account, and nothing else; the profile closes the rest.
            for packet in packets.iter().filter(|packet| os == Os::Linux || packet.transport.is_some()) {
                for slot in &policy.slots {
                    let meant = reference(&policy, slot, packet);
                    prop_assert_eq!(chains.decide(slot.uid, packet).verdict, meant, "{:?} {:?} {:?}", os, packet, policy);
                }
            }
        }
    }

    #[test]
    fn accounts_of_no_slot_are_not_looked_at(policy in any_policy(), packet in any_packet()) {
        for os in [Os::Linux, Os::MacOs] {
            prop_assert_eq!(decided(&policy, os, 1000, &packet), Verdict::Allow);
        }
    }

    #[test]
    fn the_same_policy_is_the_same_text(policy in any_policy()) {
        for os in [Os::Linux, Os::MacOs] {
            prop_assert_eq!(render::render(&policy, os).unwrap(), render::render(&policy.clone(), os).unwrap());
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*", line in 0usize..60) {
        let policy = policy(DEFAULT);
        for os in [Os::Linux, Os::MacOs] {
            let rendered = render::render(&policy, os).unwrap();
            let mut lines: Vec<&str> = rendered.lines().collect();
            lines.insert(line.min(lines.len()), &text);
            let text = lines.join("\n");
            // Whatever somebody has put between the lines, reading ends.
            let _ = (nft::read(&text).is_ok(), pf::read(&text).is_ok());
        }
    }
}

#[test]
fn the_model_denies_what_the_issue_names_and_allows_the_internet() {
    let policy = policy(DEFAULT);
    let tcp = |to: &str| {
        let packet = Packet {
            to: to.parse::<IpAddr>().unwrap(),
            transport: Some((Transport::Tcp, Some(443))),
        };
        reference(&policy, &policy.slots[0], &packet)
    };
    for denied in [
        "10.0.0.1",
        "169.254.169.254",
        "fd00::1",
        "ff02::1",
        "::ffff:192.168.1.1",
        "255.255.255.255",
    ] {
        assert_eq!(tcp(denied), Verdict::Deny, "{denied}");
    }
    for allowed in ["1.1.1.1", "2606:4700::1111", "127.0.0.1", "::1"] {
        assert_eq!(tcp(allowed), Verdict::Allow, "{allowed}");
    }
}

#[test]
fn without_ports_for_names_resolvers_are_reached_on_none() {
    let policy = policy("dns = [\"10.0.0.53\"]\ndns_ports = []\n");
    let packet = Packet {
        to: "10.0.0.53".parse().unwrap(),
        transport: Some((Transport::Tcp, Some(1))),
    };
    for os in [Os::Linux, Os::MacOs] {
        assert_eq!(decided(&policy, os, policy.slots[0].uid, &packet), Verdict::Deny);
    }
}

#[test]
fn a_rule_that_is_left_out_is_noticed() {
    // What these tests compare would be worth nothing if a changed text decided the same.
    let policy = policy(DEFAULT);
    let packet = Packet {
        to: "10.0.0.1".parse().unwrap(),
        transport: Some((Transport::Udp, Some(9))),
    };
    let uid = policy.slots[0].uid;
    for (os, rule) in [(Os::Linux, "@denied4"), (Os::MacOs, "to <ephemerd_denied>")] {
        let text = render::render(&policy, os).unwrap();
        let without: String = text
            .lines()
            .filter(|line| !line.contains(rule))
            .flat_map(|line| [line, "\n"])
            .collect();
        let chains = match os {
            Os::Linux => nft::read(&without).unwrap(),
            Os::MacOs => pf::read(&without).unwrap(),
        };
        assert_eq!(chains.decide(uid, &packet).verdict, Verdict::Allow);
        assert_eq!(decided(&policy, os, uid, &packet), Verdict::Deny);
    }
}
