//! What `allow` and `deny` name: addresses, ports and a protocol, written as one word.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};

use super::{Transport, ranges};

/// How the forms look, for hints.
const FORMS: &str = "write ADDRESS, NETWORK/LENGTH, ADDRESS:PORT or ADDRESS:PORT/tcp; IPv6 with a port in brackets, [fd00::5]:3128/tcp";

/// Ports from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Ports {
    /// One port.
    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Whether `port` is one of them.
    pub const fn holds(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// The same ports in order, what overlaps or follows directly made one.
    pub fn merged(ranges: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut sorted: Vec<Self> = ranges.into_iter().collect();
        sorted.sort();
        let mut merged: Vec<Self> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(before) if range.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        merged
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| match text.parse::<u16>() {
            Ok(0) => Err("port 0 is no port that anything listens on\nhint: ports are 1 to 65535".to_owned()),
            Ok(port) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ => Err(format!(
                "`{}` is not a port\nhint: ports are 1 to 65535",
                text.escape_debug()
            )),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(format!(
                "`{text}` ends before it begins\nhint: write {last}-{first}"
            ));
        }
        Ok(Self { first, last })
    }
}

/// A part of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its addresses.
    pub net: IpNet,
    /// Its ports; all when not set.
    pub ports: Option<Ports>,
    /// Its protocol; without it TCP and UDP where there are ports, otherwise every one.
    pub transport: Option<Transport>,
}

impl Destination {
    /// Whether it is no more than one address.
    pub fn is_single(&self) -> bool {
        self.net.prefix_len() == self.net.max_prefix_len()
    }

    /// Whether some of it is loopback.
    pub fn is_at_loopback(&self) -> bool {
        let overlaps = |net: &IpNet| net.contains(&self.net) || self.net.contains(net);
        ranges::loopback().iter().any(overlaps)
    }

    /// Whether everything that is part of `other` is part of it.
    pub fn covers(&self, other: &Self) -> bool {
        let ports = match (self.ports, other.ports) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => own.first <= other.first && other.last <= own.last,
        };
        let transport = self.transport.is_none() && (self.ports.is_none() || other.ports.is_some())
            || self.transport == other.transport && self.transport.is_some();
        self.net.contains(&other.net) && ports && transport
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let net = if self.is_single() {
            self.net.addr().to_string()
        } else {
            self.net.to_string()
        };
        match (self.ports, self.net) {
            (Some(ports), IpNet::V6(_)) => write!(f, "[{net}]:{ports}")?,
            (Some(ports), IpNet::V4(_)) => write!(f, "{net}:{ports}")?,
            (None, _) => f.write_str(&net)?,
        }
        match self.transport {
            Some(transport) => write!(f, "/{transport}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Destination {
    type Err = String;

    /// Reads `ADDRESS[/LENGTH][:PORTS][/PROTOCOL]`, an IPv6 address before ports in brackets.
    ///
    /// # Errors
    /// What is wrong with the text, with a hint.
    fn from_str(text: &str) -> Result<Self, String> {
        let (place, transport) = match text.rsplit_once('/') {
            Some((place, word)) if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let transport = word.parse().map_err(|error| format!("{error}\nhint: {FORMS}"))?;
                (place, Some(transport))
            }
            _ => (text, None),
        };
        let (net, ports) = match place.strip_prefix('[') {
            Some(rest) => {
                let closed = rest.split_once(']');
                let (net, ports) = closed.ok_or_else(|| format!("`{text}` lacks a `]`\nhint: {FORMS}"))?;
                match ports.strip_prefix(':') {
                    Some(ports) => (net, Some(ports)),
                    None if ports.is_empty() => (net, None),
                    None => return Err(format!("`{ports}` after `]` is no port\nhint: {FORMS}")),
                }
            }
            // More than one colon makes an IPv6 address, which has no port unless it is in brackets.
            None if place.matches(':').count() == 1 => {
                let (net, ports) = place.split_once(':').unwrap_or((place, ""));
                (net, Some(ports))
            }
            None => (place, None),
        };
        Ok(Self {
            net: network(net)?,
            ports: ports.map(str::parse).transpose()?,
            transport,
        })
    }
}

/// An address, or a network without bits set behind its length.
fn network(text: &str) -> Result<IpNet, String> {
    let Some((start, length)) = text.split_once('/') else {
        return address(text).map(IpNet::from);
    };
    let start = address(start)?;
    let most = if start.is_ipv4() { 32 } else { 128 };
    let length = length
        .parse::<u8>()
        .ok()
        .filter(|length| *length <= most)
        .ok_or_else(|| {
            format!(
                "`/{}` is no length of a prefix\nhint: here it is 0 to {most}",
                length.escape_debug()
            )
        })?;
    let net = IpNet::new(start, length).map_err(|error| error.to_string())?;
    if net.trunc() != net {
        return Err(format!(
            "`{net}` has bits set behind its prefix\nhint: write {} for the network, or {start} for the address",
            net.trunc()
        ));
    }
    Ok(net)
}

/// An address, written as one.
///
/// # Errors
/// A name, or anything else that is none.
pub fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| not_an_address(text))
}

/// An address as the configuration has it: one of IPv4 is not written as one of IPv6, because no packet has it so.
///
/// # Errors
/// It is.
pub fn plain(address: IpAddr) -> Result<IpAddr, String> {
    match mapped(address) {
        Some(v4) => Err(format!(
            "`{address}` is an IPv4 address in the form of IPv6\nhint: write {v4}"
        )),
        None => Ok(address),
    }
}

/// The IPv4 address that an IPv6 socket reaches by this one.
pub fn mapped(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => address.to_ipv4_mapped(),
    }
}

fn not_an_address(text: &str) -> String {
    let hint = if text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains(':') {
        "the filter knows addresses and no names; look the name up and write its address"
    } else {
        FORMS
    };
    format!("`{}` is not an address\nhint: {hint}", text.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Destination {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_is_read_and_written_as_it_was() {
        for text in [
            "10.0.0.5",
            "10.0.0.0/8",
            "10.0.0.5:3128",
            "10.0.0.5:3128/tcp",
            "10.0.0.0/24:8000-8080/udp",
            "10.0.0.5/udp",
            "fd00::5",
            "fd00::/8",
            "fd00::/8/tcp",
            "[fd00::5]:3128/tcp",
            "[fd00::/8]:1-2",
        ] {
            assert_eq!(read(text).to_string(), text);
        }
        assert_eq!(read("[fd00::5]"), read("fd00::5"));
        assert_eq!(read("10.0.0.5/32"), read("10.0.0.5"));
    }

    #[test]
    fn what_is_no_destination_is_told_with_a_hint() {
        let cases = [
            ("10.0.0.1/8", "bits set behind its prefix\nhint: write 10.0.0.0/8"),
            ("10.0.0.0/33", "no length of a prefix\nhint: here it is 0 to 32"),
            ("fd00::/129", "here it is 0 to 128"),
            ("10.0.0.5:0", "port 0"),
            ("10.0.0.5:65536", "`65536` is not a port"),
            ("10.0.0.5:+1", "`+1` is not a port"),
            ("10.0.0.5:9-8", "hint: write 8-9"),
            ("proxy.example:3128", "knows addresses and no names"),
            ("proxy", "knows addresses and no names"),
            ("10.0.0.5:80/icmp", "`icmp` is not tcp or udp"),
            ("[fd00::5:80", "lacks a `]`"),
            ("[fd00::5]80", "is no port"),
            ("10.0.0", "is not an address"),
            ("", "is not an address"),
            ("fe80::1%eth0", "is not an address"),
        ];
        for (text, said) in cases {
            let error = text.parse::<Destination>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
            assert!(error.contains("\nhint: "), "{text}: {error}");
        }
    }

    #[test]
    fn a_destination_covers_what_is_part_of_it() {
        let covers = |wide: &str, narrow: &str| read(wide).covers(&read(narrow));
        assert!(covers("10.0.0.0/8", "10.0.0.5:3128/tcp"));
        assert!(covers("10.0.0.5:1-9", "10.0.0.5:3/tcp"));
        assert!(covers("10.0.0.5/tcp", "10.0.0.5:3/tcp"));
        for (wide, narrow) in [
            ("10.0.0.5", "10.0.0.0/8"),
            ("10.0.0.5:3", "10.0.0.5"),
            ("10.0.0.5:3/udp", "10.0.0.5:3/tcp"),
            ("10.0.0.5:3/tcp", "10.0.0.5:3"),
            ("10.0.0.0/8", "fd00::5"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

    #[test]
    fn ports_that_touch_become_one_range() {
        let ports = |text: &str| {
            text.split(' ')
                .map(|text| text.parse().unwrap())
                .collect::<Vec<Ports>>()
        };
        assert_eq!(
            Ports::merged(ports("5900 22 23-30 25 32 65535")),
            ports("22-30 32 5900 65535")
        );
    }
}
