//! Every address that is not the internet.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4, each with its registration (IANA IPv4 special-purpose address registry).
const V4: [(&str, &str); 12] = [
    ("0.0.0.0/8", "this network (RFC 791)"),
    ("10.0.0.0/8", "private use (RFC 1918)"),
    ("100.64.0.0/10", "shared address space of carriers (RFC 6598)"),
    (
        "168.63.129.16/32",
        "Azure's platform service, a metadata service at a public address",
    ),
    ("169.254.0.0/16", "link-local, metadata services (RFC 3927)"),
    ("172.16.0.0/12", "private use (RFC 1918)"),
    ("192.0.0.0/24", "protocol assignments (RFC 6890)"),
    ("192.168.0.0/16", "private use (RFC 1918)"),
    ("198.18.0.0/15", "benchmarking (RFC 2544)"),
    ("224.0.0.0/4", "multicast (RFC 5771)"),
    ("240.0.0.0/4", "reserved, and broadcast (RFC 1112, RFC 919)"),
    // Reached by the loopback rule; elsewhere it is nobody's.
    ("127.0.0.0/8", "loopback (RFC 1122)"),
];

/// IPv6, each with its registration (IANA IPv6 special-purpose address registry).
const V6: [(&str, &str); 12] = [
    ("::/96", "unspecified, loopback, IPv4-compatible (RFC 4291)"),
    ("::ffff:0:0/96", "IPv4-mapped (RFC 4291)"),
    ("64:ff9b:1::/48", "translation by the network itself (RFC 8215)"),
    ("::ffff:0:0:0/96", "IPv4-translated (RFC 2765)"),
    ("100::/64", "discard (RFC 6666)"),
    ("2001:2::/48", "benchmarking (RFC 5180)"),
    ("2001::/32", "Teredo, which carries IPv4 addresses (RFC 4380)"),
    ("fc00::/7", "unique local (RFC 4193)"),
    ("fe80::/10", "link-local (RFC 4291)"),
    ("fec0::/10", "site-local (RFC 3879)"),
    ("ff00::/8", "multicast (RFC 4291)"),
    ("5f00::/16", "segment routing (RFC 9602)"),
];

/// Well-known prefix of NAT64 (RFC 6052); an IPv4 address follows it.
const NAT64: &str = "64:ff9b::/96";

/// The prefix of 6to4 (RFC 3056); an IPv4 address follows it.
const SIX_TO_FOUR: &str = "2002::/16";

/// Loopback, which has a rule of its own.
pub const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// The canary's address of IPv4: one that stands for IPv4 where there is none and is never on a network (RFC 7600,
/// section 4.8). Denied with 192.0.0.0/24.
pub const CANARY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// The canary's address of IPv6: unique local, with "ephem" in its letters. Denied with fc00::/7.
pub const CANARY_V6: Ipv6Addr = Ipv6Addr::new(0xfd65, 0x7068, 0x656d, 0, 0, 0, 0, 1);

/// The networks in a table of this module, which a test has read.
fn read<const N: usize>(texts: [&str; N]) -> impl Iterator<Item = IpNet> {
    texts.into_iter().filter_map(|text| text.parse().ok())
}

/// The loopback networks.
pub fn loopback() -> Vec<IpNet> {
    read(LOOPBACK).collect()
}

/// Everything that a job does not reach unless it is allowed: all ranges that are not the internet, the forms in
/// which IPv6 carries those of IPv4, and what the host's interfaces have and are on. Sorted, without overlaps.
pub fn denied(interfaces: &BTreeSet<IpNet>) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = read(V4.map(|row| row.0))
        .chain(read(V6.map(|row| row.0)))
        .collect();
    // The interface's own address is part of the prefix it is on.
    nets.extend(interfaces.iter().map(IpNet::trunc));
    let carried: Vec<IpNet> = nets
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(net) => Some(carriers(*net)),
            IpNet::V6(_) => None,
        })
        .flatten()
        .collect();
    nets.extend(carried);
    IpNet::aggregate(&nets)
}

/// The networks in which IPv6 carries those of IPv4.
fn carriers(net: Ipv4Net) -> impl Iterator<Item = IpNet> {
    read([NAT64, SIX_TO_FOUR]).filter_map(move |prefix| {
        let IpNet::V6(prefix) = prefix else { return None };
        let bits = u128::from(u32::from(net.network())) << (96 - prefix.prefix_len());
        let address = Ipv6Addr::from(u128::from(prefix.network()) | bits);
        let carrier = Ipv6Net::new(address, prefix.prefix_len() + net.prefix_len()).ok()?;
        Some(IpNet::V6(carrier))
    })
}

/// Why `address` is denied by itself, wherever the host is; `None` for an address of the internet.
pub fn registered(address: IpAddr) -> Option<&'static str> {
    V4.iter()
        .chain(&V6)
        .find(|(net, _)| net.parse::<IpNet>().is_ok_and(|net| net.contains(&address)))
        .map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(nets: &[IpNet], address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        nets.iter().any(|net| net.contains(&address))
    }

    #[test]
    fn every_row_is_a_network() {
        assert_eq!(read(V4.map(|row| row.0)).count(), V4.len());
        assert_eq!(read(V6.map(|row| row.0)).count(), V6.len());
        assert_eq!(read([NAT64, SIX_TO_FOUR]).count(), 2);
        assert_eq!(loopback().len(), LOOPBACK.len());
    }

    #[test]
    fn nothing_private_is_left_out_and_nothing_public_is_denied() {
        let nets = denied(&BTreeSet::new());
        for address in [
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "192.0.0.192",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.251",
            "239.255.255.250",
            "255.255.255.255",
            "0.1.2.3",
            "100.100.100.200",
            "168.63.129.16",
            "::",
            "::10.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:808:808",
            "2001:2::1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:a00:1::1",
            "2002:c0a8:101:1::",
            "2001::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(holds(&nets, address), "{address}");
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "203.0.113.7",
            "223.255.255.255",
            "168.63.129.17",
            "2001:db8::1",
            "2606:4700::1111",
            "2a00::1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            assert!(!holds(&nets, address), "{address}");
        }
    }

    #[test]
    fn what_the_host_is_on_is_denied_in_every_form() {
        let interfaces = ["203.0.113.9/29", "2001:db8:1:2:3::9/64"].map(|net| net.parse().unwrap());
        let nets = denied(&BTreeSet::from(interfaces));
        for address in [
            "203.0.113.9",
            "203.0.113.15",
            "2001:db8:1:2::1",
            "64:ff9b::203.0.113.8",
            "2002:cb00:7108::1",
        ] {
            assert!(holds(&nets, address), "{address}");
        }
        for address in ["203.0.113.16", "203.0.113.7", "2001:db8:1:3::1"] {
            assert!(!holds(&nets, address), "{address}");
        }
    }

    #[test]
    fn ranges_neither_overlap_nor_can_be_joined() {
        let nets = denied(&BTreeSet::from(["10.1.2.3/24".parse().unwrap()]));
        assert_eq!(IpNet::aggregate(&nets), nets);
        assert!(nets.contains(&"224.0.0.0/3".parse().unwrap()), "{nets:?}");
    }
}
