//! The language of nftables: rules read back from text, and what `nft -j list table` says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::rules::{Chains, Line, ReadError, Verdict};
use super::words::Words;
use super::{Blocked, BlockedDestination};

/// Reads the text that [`super::render`] writes for Linux.
///
/// # Errors
/// A line that is not written so.
pub fn read(text: &str) -> Result<Chains, ReadError> {
    let mut sets: BTreeMap<&str, Vec<IpNet>> = BTreeMap::new();
    let mut slots: BTreeMap<&str, Vec<Line>> = BTreeMap::new();
    let mut accounts: Vec<(u32, &str)> = Vec::new();
    let mut inside: Option<(&str, &str)> = None;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = Words::of(number, line);
        match inside {
            Some(_) if line == "}" => inside = None,
            Some(("set", name)) if words.take("elements") => {
                words.expect("=")?;
                sets.insert(name, words.nets()?);
            }
            Some(("chain", "output")) if words.take("meta") => {
                words.expect("skuid")?;
                words.expect("vmap")?;
                let values = words.values("an account")?;
                for value in values.chunks(4) {
                    let &[uid, ":", "goto", chain] = value else {
                        return Err(words.error("an account is followed by `: goto CHAIN`"));
                    };
                    accounts.push((words.parse(uid, "an account's number")?, chain));
                }
            }
            // Packets with a route of their own are not what anybody asks about.
            Some(("chain", _)) if line.contains(" exists goto refuse") => {}
            Some(("chain", name)) if name.starts_with("slot") => {
                let line = rule(&mut words, (number, line), &sets)?;
                words.end()?;
                slots.entry(name).or_default().push(line);
            }
            // What a set is like, and how a packet is refused, do not change which packets are.
            Some(_) => {}
            None => {
                let kind = words.must("a statement")?;
                let name = words.next().unwrap_or_default();
                inside = match kind {
                    "set" | "chain" | "counter" if line.ends_with('{') => Some((kind, name)),
                    "table" | "delete" | "}" => None,
                    _ => return Err(words.error(format!("`{kind}` begins no statement of ephemerd"))),
                };
            }
        }
    }
    let by_uid = accounts
        .into_iter()
        .map(|(uid, chain)| (uid, slots.get(chain).cloned().unwrap_or_default()));
    Ok(Chains {
        by_uid: by_uid.collect(),
    })
}

fn rule(
    words: &mut Words<'_>,
    (number, text): (usize, &str),
    sets: &BTreeMap<&str, Vec<IpNet>>,
) -> Result<Line, ReadError> {
    let mut line = Line {
        number,
        text: text.to_owned(),
        verdict: Verdict::Allow,
        on_loopback: false,
        nets: None,
        transports: vec![],
        ports: vec![],
    };
    loop {
        match words.must("a verdict")? {
            "oif" => {
                words.expect("\"lo\"")?;
                line.on_loopback = true;
            }
            "ip" | "ip6" => {
                words.expect("daddr")?;
                line.nets = Some(addresses(words, sets)?);
            }
            "meta" => {
                words.expect("l4proto")?;
                let names = words.values("a protocol")?;
                let read = names.iter().map(|name| words.parse(name, "tcp or udp"));
                line.transports = read.collect::<Result<_, _>>()?;
            }
            "th" => {
                words.expect("dport")?;
                line.ports = words.ports('-')?;
            }
            "accept" => return Ok(line),
            "goto" => {
                let chain = words.must("a chain")?;
                if !chain.starts_with("refuse") {
                    return Err(words.error(format!("`{chain}` is not where packets are refused")));
                }
                line.verdict = Verdict::Deny;
                return Ok(line);
            }
            other => return Err(words.error(format!("`{other}` is no part of a rule"))),
        }
    }
}

fn addresses(words: &mut Words<'_>, sets: &BTreeMap<&str, Vec<IpNet>>) -> Result<Vec<IpNet>, ReadError> {
    for (name, nets) in sets {
        if words.take(&format!("@{name}")) {
            return Ok(nets.clone());
        }
    }
    words.nets()
}

/// A table as `nft -j list table` tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// Everything but what changes by itself: handles, counts, and what was blocked.
    pub rules: Value,
    /// What was blocked, by slot.
    pub blocked: BTreeMap<u32, Blocked>,
}

/// Reads what `nft -j list table` printed.
///
/// # Errors
/// It is not JSON of the form that libnftables-json(5) describes.
pub fn listing(json: &str) -> Result<Listing, String> {
    let mut value: Value =
        serde_json::from_str(json).map_err(|error| format!("nft printed no JSON: {error}"))?;
    let items = value.get_mut("nftables").and_then(Value::as_array_mut);
    let items = items.ok_or("nft printed JSON without `nftables`")?;
    items.retain(|item| item.get("metainfo").is_none());
    let mut blocked: BTreeMap<u32, Blocked> = BTreeMap::new();
    for item in items.iter_mut() {
        let Some((kind, body)) = item.as_object_mut().and_then(|item| item.iter_mut().next()) else {
            continue;
        };
        let kind = kind.clone();
        let Some(body) = body.as_object_mut() else {
            continue;
        };
        body.remove("handle");
        let name = body
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        match kind.as_str() {
            "counter" => {
                let packets = body.remove("packets");
                body.remove("bytes");
                if let (Some(slot), Some(packets)) = (slot_of(&name, "blocked", ""), packets) {
                    blocked.entry(slot).or_default().packets = packets.as_u64().unwrap_or_default();
                }
            }
            "set" => {
                let slot = slot_of(&name, "seen", "v4").or_else(|| slot_of(&name, "seen", "v6"));
                if let Some(slot) = slot {
                    let elements = body.remove("elem");
                    let elements = elements.as_ref().and_then(Value::as_array).into_iter().flatten();
                    blocked
                        .entry(slot)
                        .or_default()
                        .destinations
                        .extend(elements.filter_map(seen));
                }
            }
            _ => {}
        }
    }
    Ok(Listing {
        rules: value,
        blocked,
    })
}

/// The slot's number between `prefix` and `suffix`.
fn slot_of(name: &str, prefix: &str, suffix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok()
}

/// One destination that was blocked: `{"elem": {"val": {"concat": [address, protocol, port]}, "counter": …}}`.
fn seen(element: &Value) -> Option<BlockedDestination> {
    let element = element.get("elem")?;
    let parts = element.get("val")?.get("concat")?.as_array()?;
    let [address, transport, port] = parts.as_slice() else {
        return None;
    };
    Some(BlockedDestination {
        address: address.as_str()?.parse::<IpAddr>().ok()?,
        transport: transport.as_str()?.parse().ok()?,
        port: u16::try_from(port.as_u64()?).ok()?,
        packets: element.get("counter")?.get("packets")?.as_u64()?,
    })
}
