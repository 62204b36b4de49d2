//! Rules: as they are meant, as they were read from a packet filter's text, and what they decide.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::destination::{Ports, mapped};
use super::{Packet, Transport, ranges};
pub use crate::profile::decide::Verdict;

/// Where a rule applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// To every address.
    Anywhere,
    /// To the loopback interface's own addresses.
    Loopback,
    /// To these.
    Nets(Vec<IpNet>),
    /// To everything that is not the internet, [`super::Policy::denied`].
    Denied,
}

/// One rule, as it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it says.
    pub verdict: Verdict,
    /// About which addresses.
    pub to: Where,
    /// About which protocols; all when empty.
    pub transports: Vec<Transport>,
    /// About which ports; all when empty.
    pub ports: Vec<Ports>,
}

/// One rule, as it was read from a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it stands, from 1.
    pub number: usize,
    /// How it is written.
    pub text: String,
    /// What it says.
    pub verdict: Verdict,
    /// Whether it is about the loopback interface only.
    pub on_loopback: bool,
    /// The addresses it is about; all when not set.
    pub nets: Option<Vec<IpNet>>,
    /// The protocols it is about; all when empty.
    pub transports: Vec<Transport>,
    /// The ports it is about; all when empty.
    pub ports: Vec<Ports>,
}

/// What a text says for every account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chains {
    /// By the account's number, its rules in order.
    pub by_uid: BTreeMap<u32, Vec<Line>>,
}

/// A text that is not what ephemerd writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the rules: {what}\nhint: `ephemerd egress render` shows what ephemerd writes")]
pub struct ReadError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// What becomes of a packet, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Whether it is sent.
    pub verdict: Verdict,
    /// The rule that decides; `None` when none matches.
    pub rule: Option<String>,
    /// The line of the rule.
    pub line: Option<usize>,
    /// Why the address is no part of the internet, where that is so wherever the host is.
    pub registration: Option<&'static str>,
    /// The ports that are decided otherwise, where no port was asked for.
    pub except: Vec<String>,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verdict,
            rule,
            line,
            registration,
            except,
        } = self;
        match (rule, line) {
            (Some(rule), Some(line)) => write!(f, "{verdict}  line {line}: {rule}")?,
            (Some(why), None) => write!(f, "{verdict}  {why}")?,
            (None, _) => write!(
                f,
                "{verdict}  no rule matches: what is not denied is the internet"
            )?,
        }
        if let Some(why) = registration {
            write!(f, "\n  {why}")?;
        }
        if !except.is_empty() {
            write!(f, "\n  except on {}", except.join(", "))?;
        }
        Ok(())
    }
}

impl Line {
    fn matches(&self, packet: &Packet) -> bool {
        let loopback = || ranges::loopback().iter().any(|net| net.contains(&packet.to));
        let nets = |nets: &Vec<IpNet>| nets.iter().any(|net| net.contains(&packet.to));
        let transport = packet.transport.map(|(transport, _)| transport);
        let port = packet.transport.and_then(|(_, port)| port);
        (!self.on_loopback || loopback())
            && self.nets.as_ref().is_none_or(nets)
            && (self.transports.is_empty() || transport.is_some_and(|own| self.transports.contains(&own)))
            && (self.ports.is_empty()
                || port.is_some_and(|port| self.ports.iter().any(|ports| ports.holds(port))))
    }
}

impl Chains {
    /// What becomes of a packet that the account `uid` sends. An account without rules may send anything.
    pub fn decide(&self, uid: u32, packet: &Packet) -> Decision {
        let lines = self.by_uid.get(&uid).map(Vec::as_slice).unwrap_or_default();
        // A socket for IPv6 sends to this address by IPv4.
        let to = mapped(packet.to).map_or(packet.to, IpAddr::V4);
        let packet = Packet { to, ..*packet };
        let decided = lines.iter().find(|line| line.matches(&packet));
        let verdict = decided.map_or(Verdict::Allow, |line| line.verdict);
        let except = match packet.transport {
            Some((transport, None)) => exceptions(lines, to, transport, verdict),
            _ => vec![],
        };
        Decision {
            verdict,
            rule: decided.map(|line| line.text.clone()),
            line: decided.map(|line| line.number),
            registration: decided.and_then(|_| ranges::registered(to)),
            except,
        }
    }
}

/// The ports that rules name and that are decided otherwise than `verdict`.
fn exceptions(lines: &[Line], to: IpAddr, transport: Transport, verdict: Verdict) -> Vec<String> {
    let named = Ports::merged(lines.iter().flat_map(|line| line.ports.iter().copied()));
    let decide = |port| {
        let packet = Packet {
            to,
            transport: Some((transport, Some(port))),
        };
        let decided = lines.iter().find(|line| line.matches(&packet));
        decided.map_or(Verdict::Allow, |line| line.verdict)
    };
    let differing = named
        .into_iter()
        .flat_map(|range| range.first..=range.last)
        .filter(|port| decide(*port) != verdict)
        .map(Ports::one);
    Ports::merged(differing).iter().map(ToString::to_string).collect()
}
