//! `[egress]`: destinations, resolvers and ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::Egress;
use super::super::keys::{Key, Kind};
use super::super::raw::Raw;
use super::reader::{Complaints, Reader};
use super::values;
use crate::egress::{Destination, Ports, destination, ranges};

pub(super) fn egress(r: &mut Reader) -> Option<Egress> {
    let mode = r.must(&["egress", "mode"], values::choice);
    let allow = r.must(&["egress", "allow"], |_, raw| values::each(raw, allowed));
    let deny = r.must(&["egress", "deny"], |_, raw| values::each(raw, denied));
    let dns = r.must(&["egress", "dns"], resolvers);
    let dns_ports = r.must(&["egress", "dns_ports"], ports);
    let protect_local_ports = r.must(&["egress", "protect_local_ports"], ports);
    let loopback = r.must(&["egress", "loopback"], values::choice);
    let log = r.must(&["egress", "log"], values::flag);
    let on_loss = r.must(&["egress", "on_loss"], values::choice);
    let egress = Egress {
        mode: mode?,
        allow: allow?,
        deny: deny?,
        dns: dns?,
        dns_ports: dns_ports?,
        protect_local_ports: protect_local_ports?,
        loopback: loopback?,
        log: log?,
        on_loss: on_loss?,
    };
    refuse_what_is_denied(r, &egress);
    refuse_other_resolvers(r, &egress);
    Some(egress)
}

fn plain(text: &str) -> Result<Destination, String> {
    let destination: Destination = text.parse()?;
    destination::plain(destination.net.addr())?;
    Ok(destination)
}

/// A destination that is denied. At loopback it is a port: without any jobs there would be none left, and the canary
/// could not be flown.
fn denied(text: &str) -> Result<Destination, String> {
    let destination = plain(text)?;
    let is_port = destination.ports.is_some_and(|ports| ports.first == ports.last);
    if !is_port && destination.is_at_loopback() {
        let port = Destination {
            net: destination.net.addr().into(),
            ports: Some(Ports::one(3128)),
            transport: None,
        };
        return Err(format!(
            "`{text}` is more than a port of loopback\nhint: name single ports, {port} for example"
        ));
    }
    Ok(destination)
}

/// A destination that is allowed: one address, or more when `force` is behind it.
fn allowed(text: &str) -> Result<Destination, String> {
    let (text, forced) = match text.strip_suffix(" force") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let destination = plain(text)?;
    if destination.is_at_loopback() && destination.is_single() {
        return Err(format!(
            "`{text}` is loopback, which is open but for `egress.protect_local_ports`\n\
             hint: take the port out there"
        ));
    }
    let canary = [IpAddr::from(ranges::CANARY_V4), IpAddr::from(ranges::CANARY_V6)];
    if let Some(address) = canary
        .into_iter()
        .find(|address| destination.net.contains(address))
    {
        return Err(format!(
            "`{text}` opens {address}, with which it is tried whether the filter holds\nhint: name less"
        ));
    }
    let overlaps = |net: &IpNet| net.contains(&destination.net) || destination.net.contains(net);
    let opened = ranges::denied(&BTreeSet::new())
        .into_iter()
        .find(|net| overlaps(net));
    match opened {
        Some(net) if !destination.is_single() && !forced => Err(format!(
            "`{text}` opens more than one address of {net}, which is not the internet\n\
             hint: name single addresses, or write \"{text} force\""
        )),
        _ => Ok(destination),
    }
}

/// `None` for those of the system.
fn resolvers(key: &Key, raw: &Raw) -> Result<Option<BTreeSet<IpAddr>>, Complaints> {
    match (raw, key.kind) {
        (Raw::Text(text), Kind::WordOrList { word, .. }) if text == word => Ok(None),
        (Raw::Text(text), _) => Err(format!(
            "`{}` is not `system`\nhint: write \"system\", or a list of addresses, [\"10.0.0.53\"]",
            text.escape_debug()
        )
        .into()),
        _ => Ok(Some(
            values::each(raw, |text| destination::plain(destination::address(text)?))?
                .into_iter()
                .collect(),
        )),
    }
}

fn ports(_: &Key, raw: &Raw) -> Result<Vec<u16>, Complaints> {
    let ports = values::each(raw, |text| text.parse::<Ports>().map(|ports| ports.first))?;
    let sorted: BTreeSet<u16> = ports.into_iter().collect();
    Ok(sorted.into_iter().collect())
}

/// On the ports of resolvers there are only those, so that allowing another would be a mistake that nobody notices.
fn refuse_other_resolvers(r: &mut Reader, egress: &Egress) {
    for allowed in &egress.allow {
        let Some(ports) = allowed.ports else { continue };
        if (ports.first..=ports.last).all(|port| egress.dns_ports.contains(&port)) {
            r.contradiction(
                &["egress.allow"],
                format!(
                    "`egress.allow` has `{allowed}`, and on ports of `egress.dns_ports` jobs reach resolvers only\n\
                     hint: name the resolver in `egress.dns`"
                ),
            );
        }
    }
}

/// What `deny` names is denied whatever else says, so that allowing it would be a mistake that nobody notices.
fn refuse_what_is_denied(r: &mut Reader, egress: &Egress) {
    for allowed in &egress.allow {
        if let Some(denied) = egress.deny.iter().find(|denied| denied.covers(allowed)) {
            r.contradiction(
                &["egress.allow", "egress.deny"],
                format!(
                    "`egress.allow` has `{allowed}`, which `egress.deny` denies with `{denied}`\n\
                     hint: take it out of one of them"
                ),
            );
        }
    }
}
