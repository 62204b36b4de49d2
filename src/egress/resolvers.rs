//! The resolvers that resolv.conf(5) names.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// The addresses on the `nameserver` lines of `text`; without any this host itself, as resolv.conf(5) says. The
/// interface behind a `%` is left out: the filter goes by address. Lines that are none are ignored, as the resolver
/// library does.
pub fn resolvers(text: &str) -> BTreeSet<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let named = words
            .next()
            .filter(|word| *word == "nameserver")
            .and(words.next())?;
        named.split('%').next()?.parse().ok()
    };
    let named: BTreeSet<IpAddr> = text.lines().filter_map(address).collect();
    if named.is_empty() {
        return BTreeSet::from([Ipv4Addr::LOCALHOST.into()]);
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_nameserver_it_is_this_host() {
        for text in ["", "search lan\n"] {
            assert_eq!(
                resolvers(text),
                BTreeSet::from([Ipv4Addr::LOCALHOST.into()]),
                "{text}"
            );
        }
    }

    #[test]
    fn the_nameservers_are_found_and_nothing_else() {
        let text = "# nameserver 9.9.9.9\nsearch lan\nnameserver 127.0.0.53\n nameserver\tfe80::1%eth0\n\
                    nameserver example.org\nnameserver\noptions edns0\nnameserverx 1.1.1.1\n";
        let found: Vec<String> = resolvers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.53", "fe80::1"]);
    }
}
