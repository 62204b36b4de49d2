//! `[egress]`.

use super::{right, wrong};

#[test]
fn what_egress_says_is_read() {
    let egress = right(
        "[egress]\nmode = \"block-lan\"\nallow = [\"10.0.0.5:3128/tcp\", \"10.1.2.0/24:443/tcp force\", \"[fd00::5]:80-90\"]\n\
         deny = [\"203.0.113.0/24\", \"127.0.0.1:3128\"]\ndns = [\"10.0.0.53\", \"::1\"]\ndns_ports = [853, 53]\n\
         protect_local_ports = []\nloopback = \"own-ports\"\nlog = true\non_loss = \"alert\"\n",
    )
    .config
    .egress;
    let shown = |destinations: &[ephemerd::egress::Destination]| -> Vec<String> {
        destinations.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        shown(&egress.allow),
        ["10.0.0.5:3128/tcp", "10.1.2.0/24:443/tcp", "[fd00::5]:80-90"]
    );
    assert_eq!(shown(&egress.deny), ["203.0.113.0/24", "127.0.0.1:3128"]);
    assert_eq!(egress.dns.unwrap().len(), 2);
    assert_eq!(
        (egress.dns_ports, egress.protect_local_ports),
        (vec![53, 853], vec![])
    );
}

#[test]
fn every_mistake_in_egress_is_told_with_a_remedy() {
    let text = r#"[egress]
mode = "block-wan"
allow = ["10.0.0.1/8", "10.0.0.0/24", "10.0.0.5:0", "proxy.lan:3128", "127.0.0.1:22", "fd00::/8 force"]
deny = ["::1", "::ffff:10.0.0.1"]
dns = "router"
dns_ports = [0, 65536]
protect_local_ports = ["22"]
loopback = "none"
log = "yes"
on_loss = "ignore"
"#;
    insta::assert_snapshot!(wrong(text), @r#"
    the configuration has 16 errors
    e.toml:2:8: `egress.mode`: `block-wan` is not a known value
    hint: did you mean `block-lan`?
    e.toml:3:10: `egress.allow`: `10.0.0.1/8` has bits set behind its prefix
    hint: write 10.0.0.0/8 for the network, or 10.0.0.1 for the address
    e.toml:3:24: `egress.allow`: `10.0.0.0/24` opens more than one address of 10.0.0.0/8, which is not the internet
    hint: name single addresses, or write "10.0.0.0/24 force"
    e.toml:3:39: `egress.allow`: port 0 is no port that anything listens on
    hint: ports are 1 to 65535
    e.toml:3:53: `egress.allow`: `proxy.lan` is not an address
    hint: the filter knows addresses and no names; look the name up and write its address
    e.toml:3:71: `egress.allow`: `127.0.0.1:22` is loopback, which is open but for `egress.protect_local_ports`
    hint: take the port out there
    e.toml:3:87: `egress.allow`: `fd00::/8` opens fd65:7068:656d::1, with which it is tried whether the filter holds
    hint: name less
    e.toml:4:9: `egress.deny`: `::1` is more than a port of loopback
    hint: name single ports, [::1]:3128 for example
    e.toml:4:16: `egress.deny`: `::ffff:10.0.0.1` is an IPv4 address in the form of IPv6
    hint: write 10.0.0.1
    e.toml:5:7: `egress.dns`: `router` is not `system`
    hint: write "system", or a list of addresses, ["10.0.0.53"]
    e.toml:6:14: `egress.dns_ports`: port 0 is no port that anything listens on
    hint: ports are 1 to 65535
    e.toml:6:17: `egress.dns_ports`: `65536` is not a port
    hint: ports are 1 to 65535
    e.toml:7:24: `egress.protect_local_ports`: expected list of numbers, 1 to 65535, found string
    hint: for example `protect_local_ports = [22, 88, 445, 548, 3283, 5900]`
    e.toml:8:12: `egress.loopback`: `none` is not a known value
    hint: use one of `shared`, `own-ports`
    e.toml:9:7: `egress.log`: expected `true` or `false`, found string
    hint: for example `log = false`
    e.toml:10:11: `egress.on_loss`: `ignore` is not a known value
    hint: use one of `stop`, `alert`
    "#);
}

#[test]
fn an_allow_that_nobody_would_notice_to_be_void_is_refused() {
    let denied = "[egress]\nallow = [\"10.0.0.5:3128/tcp\"]\ndeny = [\"10.0.0.0/8\"]\n";
    let resolver = "[egress]\nallow = [\"10.0.0.53:53/udp\"]\n";
    insta::assert_snapshot!(format!("{}\n{}", wrong(denied), wrong(resolver)), @r#"
    the configuration has an error
    e.toml:2:9: `egress.allow` has `10.0.0.5:3128/tcp`, which `egress.deny` denies with `10.0.0.0/8`
    hint: take it out of one of them
    the configuration has an error
    e.toml:2:9: `egress.allow` has `10.0.0.53:53/udp`, and on ports of `egress.dns_ports` jobs reach resolvers only
    hint: name the resolver in `egress.dns`
    "#);
}

#[test]
fn what_is_denied_elsewhere_leaves_the_ports_of_loopback_alone() {
    let text = "[egress]\ndeny = [\"203.0.113.0/24:1-65535\", \"127.0.0.1:700\"]\nallow = [\"10.0.0.5:1-65535\"]\n\
                protect_local_ports = [22]\n";
    let ports = right(text).config.egress.local_ports();
    let shown: Vec<String> = ports.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["22", "53", "700"]);
}
