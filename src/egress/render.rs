//! Rules as text, in the language of the system's packet filter. The templates are in `pf/`.

use std::io::Write;

use ipnet::IpNet;
use serde::Serialize;
use tera::{Context, Tera};

use super::rules::{Rule, Verdict, Where};
use super::{Policy, ranges};
use crate::host::Os;

const NFT: (&str, &str) = ("nftables.nft", include_str!("../../pf/nftables.nft"));
const PF: (&str, &str) = ("anchor.pf", include_str!("../../pf/anchor.pf"));

/// A template does not render.
#[derive(Debug, thiserror::Error)]
#[error("the rules of the packet filter do not render from `{name}`")]
pub struct RenderError {
    name: &'static str,
    #[source]
    source: Box<tera::Error>,
}

#[derive(Serialize)]
struct View {
    name: String,
    log: bool,
    denied4: String,
    denied6: String,
    canary4: String,
    canary6: String,
    slots: Vec<SlotView>,
}

#[derive(Serialize)]
struct SlotView {
    index: u32,
    uid: u32,
    lines: Vec<LineView>,
}

/// A rule for one family of addresses, or for both when it names none.
#[derive(Serialize)]
struct LineView {
    denies: bool,
    on_loopback: bool,
    /// Whether it is about everything that is not the internet.
    denied: bool,
    family: &'static str,
    nets: String,
    transports: String,
    ports: String,
}

/// The language of a packet filter, where they differ in more than the template.
#[derive(Clone, Copy)]
struct Language {
    template: (&'static str, &'static str),
    /// Between the values of a list.
    comma: &'static str,
    /// Between the first and the last port of a range.
    dash: &'static str,
    /// Whether one set holds addresses of both families.
    mixes_families: bool,
}

impl Language {
    const fn of(os: Os) -> Self {
        match os {
            Os::Linux => Self {
                template: NFT,
                comma: ", ",
                dash: "-",
                mixes_families: false,
            },
            Os::MacOs => Self {
                template: PF,
                comma: " ",
                dash: ":",
                mixes_families: true,
            },
        }
    }

    fn list<T: ToString>(self, values: impl IntoIterator<Item = T>) -> String {
        let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
        values.join(self.comma)
    }

    /// A value as it stands in a rule: one alone, which is compared faster, or several in braces.
    fn values<T: ToString>(self, values: impl IntoIterator<Item = T>) -> String {
        let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
        match values.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            several => format!("{{ {} }}", self.list(several)),
        }
    }

    /// The lines of one rule.
    fn lines(self, rule: &Rule) -> Vec<LineView> {
        let line = |family, nets: String| LineView {
            denies: rule.verdict == Verdict::Deny,
            on_loopback: rule.to == Where::Loopback,
            denied: rule.to == Where::Denied,
            family,
            nets,
            transports: self.values(&rule.transports),
            ports: self.values(
                rule.ports
                    .iter()
                    .map(|ports| ports.to_string().replace('-', self.dash)),
            ),
        };
        let by_family = |nets: &[IpNet]| {
            let [v4, v6] = families(nets);
            [("4", v4), ("6", v6)]
                .into_iter()
                .filter(|(_, nets)| !nets.is_empty())
                .map(|(family, nets)| line(family, self.values(nets)))
                .collect()
        };
        match &rule.to {
            Where::Anywhere => vec![line("", String::new())],
            Where::Denied if self.mixes_families => vec![line("", String::new())],
            Where::Denied => vec![line("4", String::new()), line("6", String::new())],
            Where::Loopback => by_family(&ranges::loopback()),
            Where::Nets(nets) => by_family(nets),
        }
    }
}

/// The networks of IPv4, and those of IPv6.
fn families(nets: &[IpNet]) -> [Vec<String>; 2] {
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = nets.iter().partition(|net| matches!(net, IpNet::V4(_)));
    [v4, v6].map(|nets| nets.iter().map(written).collect())
}

/// A network as packet filters write it: one address has no length.
fn written(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// The rules of `policy` as the text that the packet filter of `os` loads. The same policy gives the same text.
///
/// # Errors
/// The template does not render, which the tests of this module rule out.
pub fn render(policy: &Policy, os: Os) -> Result<String, RenderError> {
    let language = Language::of(os);
    let (name, template) = language.template;
    let failed = |source| RenderError {
        name,
        source: Box::new(source),
    };
    let mut tera = Tera::new();
    // All values are numbers, addresses and names of accounts, whose letters the configuration has checked.
    tera.autoescape_on(vec![name]);
    tera.set_escape_fn(|text: &str, out: &mut dyn Write| out.write_all(text.as_bytes()));
    tera.add_raw_template(name, template).map_err(failed)?;
    let [denied4, denied6] = families(&policy.denied);
    let view = View {
        name: policy.name.clone(),
        log: policy.log,
        denied4: language.list(denied4),
        denied6: language.list(denied6),
        canary4: ranges::CANARY_V4.to_string(),
        canary6: ranges::CANARY_V6.to_string(),
        slots: policy
            .slots
            .iter()
            .map(|slot| SlotView {
                index: slot.index,
                uid: slot.uid,
                lines: policy
                    .rules(slot)
                    .iter()
                    .flat_map(|rule| language.lines(rule))
                    .collect(),
            })
            .collect(),
    };
    let context = Context::from_serialize(&view).map_err(failed)?;
    let text = tera.render(name, &context).map_err(failed)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(lines.flat_map(|line| [line, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Loopback;
    use crate::egress::{Packet, Ports, SlotPorts, Transport, nft, pf};

    fn policy() -> Policy {
        let slot = |index, uid, first| SlotPorts {
            index,
            uid,
            ports: Some(Ports {
                first,
                last: first + 99,
            }),
        };
        let guest = SlotPorts {
            index: 3,
            uid: 460,
            ports: None,
        };
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Policy {
            name: "ephemerd".into(),
            slots: vec![slot(1, 451, 20_000), slot(2, 452, 20_100), guest],
            resolvers: ["10.0.0.53", "fd00::53"].map(|text| text.parse().unwrap()).into(),
            dns_ports: vec![53],
            protected_ports: vec![22, 5900, 5901],
            loopback: Loopback::OwnPorts,
            deny: list(&["198.51.100.0/24", "203.0.113.7:443/tcp"]),
            allow: list(&["10.0.0.5:3128/tcp", "[fd00::5]:8080-8089"]),
            denied: ["10.0.0.0/8", "168.63.129.16/32", "fc00::/7"]
                .map(|text| text.parse().unwrap())
                .into(),
            log: true,
        }
    }

    #[test]
    fn a_policy_is_this_table_of_nftables() {
        insta::assert_snapshot!(render(&policy(), Os::Linux).unwrap());
    }

    #[test]
    fn a_policy_is_this_anchor_of_pf() {
        insta::assert_snapshot!(render(&policy(), Os::MacOs).unwrap());
    }

    #[test]
    fn what_is_rendered_is_read_back_and_decides_as_it_is_meant() {
        let read = [
            nft::read(&render(&policy(), Os::Linux).unwrap()).unwrap(),
            pf::read(&render(&policy(), Os::MacOs).unwrap()).unwrap(),
        ];
        for (to, port, wanted) in [
            ("10.0.0.53", 53, Verdict::Allow),
            ("10.0.0.53", 54, Verdict::Deny),
            ("9.9.9.9", 53, Verdict::Deny),
            ("9.9.9.9", 54, Verdict::Allow),
            ("127.0.0.1", 5901, Verdict::Deny),
            ("::1", 20_150, Verdict::Deny),
            ("::1", 20_050, Verdict::Allow),
            ("198.51.100.1", 80, Verdict::Deny),
            ("203.0.113.7", 443, Verdict::Deny),
            ("203.0.113.7", 444, Verdict::Allow),
            ("10.0.0.5", 3128, Verdict::Allow),
            ("10.0.0.5", 3129, Verdict::Deny),
            ("fd00::5", 8089, Verdict::Allow),
            ("fd00::5", 8090, Verdict::Deny),
        ] {
            let packet = Packet {
                to: to.parse().unwrap(),
                transport: Some((Transport::Tcp, Some(port))),
            };
            for chains in &read {
                assert_eq!(chains.decide(451, &packet).verdict, wanted, "{to} {port}");
                let of_guest = match packet.to.is_loopback() {
                    true => Verdict::Deny,
                    false => wanted,
                };
                assert_eq!(chains.decide(460, &packet).verdict, of_guest, "{to} {port}");
            }
        }
    }
}
