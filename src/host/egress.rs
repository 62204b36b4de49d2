//! The packet filter of this host: loads rules, compares what is loaded with what should be, and takes them out.
//!
//! What should be loaded is not what was written but what the system makes of it: nftables is asked in a network
//! namespace of its own that ends with the question, pf by `pfctl -n`. Only the same form counts as loaded. That a
//! rule is loaded does not yet mean that packets meet it; [`canary`] tries.

pub mod canary;
pub mod filter;
pub mod hold;
mod nft;
mod pf;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use camino::Utf8PathBuf;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use serde_json::Value;

use super::command::{self, CommandError, CommandSpec};
use super::{Host, Os};
use crate::egress::resolvers::resolvers;
use crate::egress::{Blocked, Policy, Surroundings, render};

/// How long one tool may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the rules cannot be loaded, compared or taken out.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The rules do not render.
    #[error(transparent)]
    Render(#[from] render::RenderError),
    /// A tool of the packet filter is missing.
    #[error("`{path}` is not there, and the packet filter cannot be loaded without it\nhint: {hint}")]
    Missing {
        /// The tool.
        path: Utf8PathBuf,
        /// What to install.
        hint: &'static str,
    },
    /// A tool failed.
    #[error("the packet filter's tool failed")]
    Tool(#[from] CommandError),
    /// A tool said something that makes no sense, or complained although it ended well.
    #[error("`{command}` says: {said}")]
    Said {
        /// The command line.
        command: String,
        /// What it said.
        said: String,
    },
    /// The interfaces or the resolvers of this host cannot be read.
    #[error("could not read {what}")]
    Surroundings {
        /// What.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// What is loaded is not what should be.
    #[error("the packet filter is not as it should be: {why}")]
    Lost {
        /// What is different.
        why: String,
    },
    /// Others run jobs under rules of the same name.
    #[error(
        "another ephemerd runs jobs under the rules `{name}`, which are to be others\nhint: stop it, or use the configuration it was started with"
    )]
    Busy {
        /// The rules' name.
        name: String,
    },
    /// The filter's state cannot be kept.
    #[error("could not use `{path}`")]
    State {
        /// The file.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What should be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Name of the table, and end of the anchor's.
    name: String,
    /// The text, as it is loaded.
    pub text: String,
    form: Form,
}

/// A text in the form in which the system tells it.
#[derive(Debug, Clone, PartialEq)]
enum Form {
    Nft(Value),
    Pf { rules: Vec<String>, denied: Vec<IpNet> },
}

/// Whether the tools are there, and if not, which one is missing.
///
/// # Errors
/// [`EgressError::Missing`].
pub fn available(host: &Host) -> Result<(), EgressError> {
    let (tools, hint): (&[&Utf8PathBuf], _) = match host.os {
        Os::Linux => (
            &[&host.tools.nft, &host.tools.ip, &host.tools.unshare],
            "install nftables, iproute2 and util-linux",
        ),
        Os::MacOs => (
            &[&host.mac.pfctl, &host.mac.ifconfig, &host.mac.sysctl],
            "these come with macOS",
        ),
    };
    match tools.iter().find(|tool| !tool.exists()) {
        Some(missing) => Err(EgressError::Missing {
            path: (*missing).clone(),
            hint,
        }),
        None => Ok(()),
    }
}

/// What the rules depend on: this host's addresses and resolvers.
///
/// # Errors
/// They cannot be read. A host without a resolv.conf(5) asks itself.
pub fn surroundings(host: &Host) -> Result<Surroundings, EgressError> {
    let failed = |what: &str, source| EgressError::Surroundings {
        what: what.to_owned(),
        source,
    };
    let interfaces = getifaddrs().map_err(|error| failed("this host's interfaces", error.into()))?;
    let mut nets = BTreeSet::new();
    for interface in interfaces {
        let is_link = interface.flags.contains(InterfaceFlags::IFF_POINTOPOINT);
        let Some(address) = interface.address.as_ref().and_then(ip) else {
            continue;
        };
        if !address.is_loopback() {
            nets.insert(prefix(address, interface.netmask.as_ref().and_then(ip)));
        }
        // The other end of a link is as near as a neighbour.
        let peer = interface.destination.as_ref().and_then(ip).filter(|_| is_link);
        nets.extend(peer.map(IpNet::from));
    }
    let text = match std::fs::read_to_string(&host.resolv_conf) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(host.resolv_conf.as_str(), error)),
    };
    Ok(Surroundings {
        interfaces: nets,
        resolvers: resolvers(&text),
    })
}

/// An interface's address with the length of its prefix; alone where the mask is none.
fn prefix(address: IpAddr, mask: Option<IpAddr>) -> IpNet {
    let net = mask.and_then(|mask| IpNet::with_netmask(address, mask).ok());
    net.unwrap_or_else(|| address.into())
}

/// The address in a socket's, where it is one of IP.
fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
        (_, Some(v6)) => Some(IpAddr::V6(v6.ip())),
        (None, None) => None,
    }
}

/// What `policy` must look like once it is loaded.
///
/// # Errors
/// The text does not render, or the system does not take it.
pub fn expected(host: &Host, policy: &Policy) -> Result<Expected, EgressError> {
    available(host)?;
    let text = render::render(policy, host.os)?;
    let form = match host.os {
        Os::Linux => Form::Nft(nft::form(host, &policy.name, &text)?),
        Os::MacOs => Form::Pf {
            rules: pf::form(host, &text)?,
            denied: policy.denied.clone(),
        },
    };
    Ok(Expected {
        name: policy.name.clone(),
        text,
        form,
    })
}

/// Loads the rules in one step in place of those that were loaded, and gives the loopback interface the canary's
/// addresses. It is not yet known that they are in force: see [`verify`].
///
/// # Errors
/// The system does not take them; then those before stay as they were.
pub fn load(host: &Host, expected: &Expected) -> Result<(), EgressError> {
    match host.os {
        Os::Linux => nft::load(host, &expected.text)?,
        Os::MacOs => pf::load(host, &expected.name, &expected.text)?,
    }
    canary::add_addresses(host)
}

/// Compares what is loaded with what should be, and tells what was blocked so far, by slot.
///
/// # Errors
/// [`EgressError::Lost`] when it differs.
pub fn verify(host: &Host, expected: &Expected) -> Result<BTreeMap<u32, Blocked>, EgressError> {
    match &expected.form {
        Form::Nft(form) => nft::verify(host, &expected.name, form),
        Form::Pf { rules, denied } => pf::verify(host, &expected.name, rules, denied),
    }
}

/// Takes the rules called `name` out; what is not there is no error.
fn remove(host: &Host, name: &str) -> Result<(), EgressError> {
    match host.os {
        Os::Linux => nft::remove(host, name),
        Os::MacOs => pf::remove(host, name),
    }
}

/// What is wrong with `found`, where it is not `wanted`: the first thing that is in one and not in the other.
fn difference<T: PartialEq + std::fmt::Display>(wanted: &[T], found: &[T]) -> String {
    let missing = wanted.iter().find(|item| !found.contains(item));
    let strange = found.iter().find(|item| !wanted.contains(item));
    match (missing, strange) {
        (Some(item), _) => format!("`{item}` is missing"),
        (None, Some(item)) => format!("`{item}` does not belong there"),
        (None, None) => "the rules stand in another order".to_owned(),
    }
}

/// Runs a tool that must end well, and returns what it printed.
fn must(spec: &CommandSpec) -> Result<command::Output, EgressError> {
    Ok(command::run(spec)?.require_success(spec)?)
}
