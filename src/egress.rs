//! Egress: which packets a job's account may send, as rules of a packet filter that go by account.
//!
//! ```text
//!  [egress] + slots + Surroundings ─► Policy ─► rules ─► render (in pf/) ─► text   for pf or nftables
//!                                                                               │ nft, pf: read it back
//!                                          decide ◄── Chains ◄──────────────────┘
//! ```
//!
//! [`Policy::rules`] says, for one slot, which rule applies to what, in order; the first that matches decides.
//! `render` writes them in the language of the system's packet filter, [`nft`] and [`pf`] read that language back,
//! and [`Chains::decide`] answers from what was read: so `egress check` knows nothing but the text that the kernel
//! is given. Everything here is pure; [`crate::host::egress`] loads the text, compares what is loaded with it and
//! tries it.

pub mod destination;
pub mod nft;
pub mod pf;
pub mod ranges;
pub mod render;
pub mod resolvers;
pub mod rules;
mod words;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::{Egress, Loopback};
use crate::slot::Slot;
pub use destination::{Destination, Ports};
pub use rules::{Chains, Decision, Rule, Verdict, Where};

/// Destinations that are shown to people, those with the most packets.
const SHOWN: usize = 5;

/// The service account whose table and anchor are called plainly `ephemerd`.
const USUAL_ACCOUNT: &str = "_ephemerd";

/// A transport protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl std::str::FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(format!("`{text}` is not tcp or udp")),
        }
    }
}

/// A packet that an account sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Where to.
    pub to: IpAddr,
    /// By which protocol, where it is one that has ports, and to which port, where that is said.
    pub transport: Option<(Transport, Option<u16>)>,
}

/// The network around this host, as far as the rules depend on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Its own addresses but for loopback, with the prefixes of what is reached without a router.
    pub interfaces: BTreeSet<IpNet>,
    /// The resolvers of the system, from resolv.conf(5).
    pub resolvers: BTreeSet<IpAddr>,
}

/// A slot, as the packet filter knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotPorts {
    /// The slot's number.
    pub index: u32,
    /// The account's number, by which its packets are known.
    pub uid: u32,
    /// The ports that are its own. One without any is of a guest: its tool gives it the host's loopback under another name,
    /// and it reaches nothing there but resolvers and what is allowed.
    pub ports: Option<Ports>,
}

impl From<&Slot> for SlotPorts {
    fn from(slot: &Slot) -> Self {
        Self {
            index: slot.index,
            uid: slot.account.uid,
            ports: (!slot.is_of_guest()).then_some(Ports {
                first: slot.first_port,
                last: slot.last_port,
            }),
        }
    }
}

/// Everything the rules are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The name of the table, and the end of the anchor's.
    pub name: String,
    /// The slots, by number. Slots that share an account share the first one's rules.
    pub slots: Vec<SlotPorts>,
    /// The only addresses that answer on `dns_ports`.
    pub resolvers: BTreeSet<IpAddr>,
    /// The ports that names are asked on.
    pub dns_ports: Vec<u16>,
    /// Ports of the host's loopback that are not for jobs.
    pub protected_ports: Vec<u16>,
    /// Whether slots reach each other's ports.
    pub loopback: Loopback,
    /// What is denied besides.
    pub deny: Vec<Destination>,
    /// What is allowed in spite of `denied`.
    pub allow: Vec<Destination>,
    /// Every address range that is not the internet.
    pub denied: Vec<IpNet>,
    /// Whether the kernel logs what is blocked.
    pub log: bool,
}

impl Policy {
    /// The policy of `config` for `slots`, in these surroundings, of the installation whose service account is
    /// `account`.
    pub fn new(config: &Egress, account: &str, slots: &[Slot], around: &Surroundings) -> Self {
        let mut by_uid: Vec<SlotPorts> = Vec::new();
        for slot in slots {
            if by_uid.iter().all(|known| known.uid != slot.account.uid) {
                by_uid.push(slot.into());
            }
        }
        Self {
            name: name(account),
            slots: by_uid,
            resolvers: config.dns.clone().unwrap_or_else(|| around.resolvers.clone()),
            dns_ports: config.dns_ports.clone(),
            protected_ports: config.protect_local_ports.clone(),
            loopback: config.loopback,
            deny: config.deny.clone(),
            allow: config.allow.clone(),
            denied: ranges::denied(&around.interfaces),
            log: config.log,
        }
    }

    /// The rules for one slot, in order. What none of them matches is allowed.
    pub fn rules(&self, slot: &SlotPorts) -> Vec<Rule> {
        let rule = |verdict, to: Where, transports: &[Transport], ports: Vec<Ports>| Rule {
            verdict,
            to,
            transports: transports.to_vec(),
            ports,
        };
        let both = [Transport::Tcp, Transport::Udp];
        let dns: Vec<Ports> = self.dns_ports.iter().map(|port| Ports::one(*port)).collect();
        let mut rules = Vec::new();
        // Without ports a rule is about all of them.
        if !self.resolvers.is_empty() && !dns.is_empty() {
            let resolvers = self.resolvers.iter().map(|address| IpNet::from(*address));
            rules.push(rule(
                Verdict::Allow,
                Where::Nets(resolvers.collect()),
                &both,
                dns.clone(),
            ));
        }
        if !dns.is_empty() {
            rules.push(rule(Verdict::Deny, Where::Anywhere, &both, dns));
        }
        let protected = Ports::merged(self.protected_ports.iter().map(|port| Ports::one(*port)));
        if !protected.is_empty() {
            rules.push(rule(Verdict::Deny, Where::Loopback, &both, protected));
        }
        if self.loopback == Loopback::OwnPorts {
            let others = self.slots.iter().filter(|other| other.index != slot.index);
            let others = Ports::merged(others.filter_map(|other| other.ports));
            if !others.is_empty() {
                rules.push(rule(Verdict::Deny, Where::Loopback, &both, others));
            }
        }
        let listed = |verdict| {
            move |to: &Destination| Rule {
                verdict,
                to: Where::Nets(vec![to.net]),
                transports: match (to.transport, to.ports) {
                    (Some(transport), _) => vec![transport],
                    (None, Some(_)) => both.to_vec(),
                    (None, None) => vec![],
                },
                ports: to.ports.into_iter().collect(),
            }
        };
        rules.extend(self.deny.iter().map(listed(Verdict::Deny)));
        let loopback = |verdict| rule(verdict, Where::Loopback, &[], vec![]);
        rules.extend(slot.ports.map(|_| loopback(Verdict::Allow)));
        rules.extend(self.allow.iter().map(listed(Verdict::Allow)));
        if slot.ports.is_none() {
            rules.push(loopback(Verdict::Deny));
        }
        rules.push(rule(Verdict::Deny, Where::Denied, &[], vec![]));
        rules
    }
}

/// The name of the table for the installation of this service account: `ephemerd`, and for another account than
/// the usual one that with the account after it, so that two installations on one host keep apart.
pub fn name(account: &str) -> String {
    if account == USUAL_ACCOUNT {
        "ephemerd".to_owned()
    } else {
        format!("ephemerd.{account}")
    }
}

/// What was blocked of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// Packets, of every protocol.
    pub packets: u64,
    /// Where they went, as far as it is known. macOS counts, and does not tell where to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<BlockedDestination>,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            packets,
            destinations,
        } = self;
        match packets {
            0 => return f.write_str("nothing"),
            1 => f.write_str("1 packet")?,
            _ => write!(f, "{packets} packets")?,
        }
        let mut most: Vec<_> = destinations.iter().collect();
        most.sort_by_key(|destination| std::cmp::Reverse(destination.packets));
        for (index, destination) in most.iter().take(SHOWN).enumerate() {
            write!(f, "{}{destination}", if index == 0 { ": " } else { ", " })?;
        }
        match most.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more destinations"),
        }
    }
}

/// A destination that was blocked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockedDestination {
    /// The address.
    pub address: IpAddr,
    /// The protocol.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// How many packets.
    pub packets: u64,
}

impl fmt::Display for BlockedDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            transport,
            port,
            packets,
        } = self;
        match address {
            IpAddr::V4(address) => write!(f, "{address}:{port}/{transport} ×{packets}"),
            IpAddr::V6(address) => write!(f, "[{address}]:{port}/{transport} ×{packets}"),
        }
    }
}

/// What egress came to for one job, for its record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressReport {
    /// What was blocked.
    pub blocked: Blocked,
    /// What happened to the filter while the job ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incidents: Vec<String>,
}
