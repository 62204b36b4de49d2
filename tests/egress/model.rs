//! Packets that are made up, and the host they are made up for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ephemerd::config::parse;
use ephemerd::egress::{Packet, Policy, Surroundings, Transport};
use ephemerd::slot::{Account, Slot};
use proptest::prelude::*;

/// The configuration in which nothing is said.
pub(crate) const DEFAULT: &str = "";

/// Where made-up destinations lie: inside, outside and at the ends of what is denied.
pub(crate) const PLACES: [&str; 17] = [
    "127.0.0.1",
    "10.0.0.0/8",
    "10.0.0.5",
    "172.16.0.0/12",
    "192.168.1.0/24",
    "169.254.169.254",
    "100.64.0.0/10",
    "224.0.0.0/4",
    "203.0.113.0/24",
    "203.0.113.9",
    "8.8.8.8",
    "fd00::/8",
    "fe80::/10",
    "2001:db8::/32",
    "2001:db8::9",
    "64:ff9b::a00:0/104",
    "2002:a00::/24",
];

/// Ports that rules are about, and neighbours of them.
pub(crate) const PORTS: [u16; 14] = [
    1, 22, 23, 52, 53, 54, 443, 853, 5900, 20_999, 21_000, 21_099, 21_100, 65_535,
];

/// The policy of a configuration's `[egress]`, for three slots of a host on two networks.
pub(crate) fn policy(egress: &str) -> Policy {
    let config = parse(&format!("[egress]\n{egress}"), "test.toml").unwrap().config;
    let slot = |index: u16| Slot {
        index: u32::from(index),
        account: Account {
            name: format!("_ephemerd{index}"),
            uid: 450 + u32::from(index),
            gid: 450,
        },
        first_port: 20_900 + 100 * index,
        last_port: 20_999 + 100 * index,
    };
    let around = Surroundings {
        interfaces: ["198.51.100.2/28", "2001:db8:77::2/64"]
            .map(|net| net.parse().unwrap())
            .into(),
        resolvers: ["192.168.1.53", "127.0.0.53"]
            .map(|address| address.parse().unwrap())
            .into(),
    };
    Policy::new(&config.egress, "_ephemerd", &[slot(1), slot(2), slot(3)], &around)
}

/// An address at or beside the ends of a network that rules are about, or any.
pub(crate) fn any_address() -> impl Strategy<Value = IpAddr> {
    let default = policy(DEFAULT);
    let mut ends: Vec<IpAddr> = default.resolvers.iter().copied().collect();
    let named = PLACES.iter().map(|place| {
        let destination: ephemerd::egress::Destination = place.parse().unwrap();
        destination.net
    });
    for net in default.denied.iter().copied().chain(named) {
        match net {
            ipnet::IpNet::V4(net) => {
                let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
                let around = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
                ends.extend(around.map(|bits| IpAddr::V4(Ipv4Addr::from(bits))));
                ends.push(IpAddr::V6(net.network().to_ipv6_mapped()));
            }
            ipnet::IpNet::V6(net) => {
                let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
                let around = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
                ends.extend(around.map(|bits| IpAddr::V6(Ipv6Addr::from(bits))));
            }
        }
    }
    ends.extend(["127.0.0.1", "127.255.255.255", "::1"].map(|address| address.parse::<IpAddr>().unwrap()));
    prop_oneof![
        4 => prop::sample::select(ends),
        1 => any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        1 => any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
    ]
}

/// A packet to such an address.
pub(crate) fn any_packet() -> impl Strategy<Value = Packet> {
    let port = prop_oneof![3 => prop::sample::select(&PORTS[..]), 1 => 1..=u16::MAX];
    let transport = prop_oneof![
        4 => (prop::sample::select(&[Transport::Tcp, Transport::Udp][..]), port).prop_map(|(t, p)| Some((t, Some(p)))),
        1 => Just(None),
    ];
    (any_address(), transport).prop_map(|(to, transport)| Packet { to, transport })
}
