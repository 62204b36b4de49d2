//! `ephemerd egress check`: whether an account may send to an address, and by which rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Ground, System, unfiltered};
use crate::cli::Format;
use crate::config::{Config, EgressMode};
use crate::control::{Answer, Ask, client};
use crate::egress::{Decision, Destination, Packet, Transport, Verdict, nft, pf, ranges, render};
use crate::host::{Host, Os};
use crate::job::JobId;
use crate::slot::Slot;

/// Arguments of `egress check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Who sends: a slot's account or number, any other account, or the id of a job that runs.
    #[arg(value_name = "ACCOUNT|JOB")]
    who: String,
    /// Where to: ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT; with /tcp, /udp or /other after it. TCP if left out; without a
    /// port all of them, and those that are decided otherwise are named.
    #[arg(value_name = "ADDRESS[:PORT][/PROTOCOL]")]
    to: String,
    /// For this system instead of this host's.
    #[arg(long, value_enum)]
    os: Option<System>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Checked<'a> {
    account: &'a str,
    to: String,
    #[serde(flatten)]
    decision: &'a Decision,
}

/// Prints the answer; ends with 0 for allow and 1 for deny.
pub(super) fn run(args: &CheckArgs, host: &Host, config: &Config) -> anyhow::Result<ExitCode> {
    let os = args.os.map_or(host.os, Os::from);
    let ground = Ground::of(os, host, config)?;
    let account = account(&args.who, config, &ground.slots)?;
    let packet = packet(&args.to, os)?;
    let decision = match config.egress.mode {
        EgressMode::BlockLan => {
            let text = render::render(&ground.policy, os)?;
            let chains = match os {
                Os::Linux => nft::read(&text)?,
                Os::MacOs => pf::read(&text)?,
            };
            match account {
                Known::Slot(slot) => chains.decide(slot.account.uid, &packet),
                Known::Other => nobodys(),
            }
        }
        mode => match account {
            Known::Slot(_) => without_filter(mode, &packet),
            Known::Other => nobodys(),
        },
    };
    for what in &ground.assumed {
        eprintln!("ephemerd: {what}");
    }
    match args.format {
        Format::Json => {
            let account = match account {
                Known::Slot(slot) => &slot.account.name,
                Known::Other => &args.who,
            };
            let checked = Checked {
                account,
                to: args.to.clone(),
                decision: &decision,
            };
            println!("{}", serde_json::to_string_pretty(&checked)?);
        }
        Format::Text => println!("{decision}"),
    }
    Ok(ExitCode::from(u8::from(decision.verdict == Verdict::Deny)))
}

/// Whose packets are asked about.
#[derive(Clone, Copy)]
enum Known<'a> {
    Slot(&'a Slot),
    /// An account that no rule is about.
    Other,
}

fn account<'a>(who: &str, config: &Config, slots: &'a [Slot]) -> anyhow::Result<Known<'a>> {
    let named = |slot: &&Slot| slot.account.name == who || slot.index.to_string() == who;
    if let Some(slot) = slots.iter().find(named) {
        return Ok(Known::Slot(slot));
    }
    if let Ok(job) = who.parse::<JobId>() {
        let index = slot_of(&job, config)?;
        let slot = slots.iter().find(|slot| slot.index == index);
        return slot.map(Known::Slot).ok_or_else(|| {
            anyhow::anyhow!("job {job} runs in slot {index}, which the configuration does not have")
        });
    }
    if users::get_user_by_name(who).is_some() {
        return Ok(Known::Other);
    }
    anyhow::bail!(
        "`{who}` is no account here, no slot and no job\nhint: slots are 1 to {}, their accounts {}1 and so on",
        slots.len(),
        config.host.account
    )
}

/// The slot of a job, from the daemon.
fn slot_of(job: &JobId, config: &Config) -> anyhow::Result<u32> {
    let question = Ask::Show { job: job.clone() };
    match client::ask(&config.control.socket, &question)?.0 {
        Answer::Story(story) => story
            .job
            .slot
            .ok_or_else(|| anyhow::anyhow!("job {job} has no slot\nhint: name a slot's account instead")),
        other => anyhow::bail!("the daemon answered {other:?}"),
    }
}

fn packet(text: &str, os: Os) -> anyhow::Result<Packet> {
    let (text, is_other) = match text.strip_suffix("/other") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let to: Destination = text.parse().map_err(anyhow::Error::msg)?;
    anyhow::ensure!(
        !is_other || to.ports.is_none() && to.transport.is_none(),
        "`{text}` has a port or a protocol, and other protocols have neither\nhint: write ADDRESS/other"
    );
    anyhow::ensure!(
        to.is_single() && to.ports.is_none_or(|ports| ports.first == ports.last),
        "`{text}` is more than one address and port\nhint: ask for one"
    );
    let transport = (
        to.transport.unwrap_or(Transport::Tcp),
        to.ports.map(|ports| ports.first),
    );
    let address = match (os, to.net.addr()) {
        // Linux connects to loopback then (ip(7), ipv6(7)).
        (Os::Linux, IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.into(),
        (Os::Linux, IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.into(),
        (_, address) => address,
    };
    Ok(Packet {
        to: address,
        transport: (!is_other).then_some(transport),
    })
}

/// What is decided of an account that is no slot's.
fn nobodys() -> Decision {
    Decision {
        verdict: Verdict::Allow,
        rule: Some("no rule is about this account".to_owned()),
        line: None,
        registration: None,
        except: vec![],
    }
}

fn without_filter(mode: EgressMode, packet: &Packet) -> Decision {
    let is_own = |address: IpAddr| ranges::loopback().iter().any(|net| net.contains(&address));
    let verdict = match mode {
        EgressMode::Offline if !is_own(packet.to) => Verdict::Deny,
        EgressMode::Offline | EgressMode::Open | EgressMode::BlockLan => Verdict::Allow,
    };
    Decision {
        verdict,
        rule: Some(unfiltered(mode).to_owned()),
        line: None,
        registration: None,
        except: vec![],
    }
}
