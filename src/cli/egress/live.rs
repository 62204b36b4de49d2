//! `ephemerd egress status`, `apply`, `remove` and `test`: the packet filter of this host, as it is.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Ground, unfiltered};
use crate::cli::Format;
use crate::cli::table::table;
use crate::config::{Config, EgressMode};
use crate::daemon::start;
use crate::egress::{Blocked, name};
use crate::host::egress::canary::{self, Attempt};
use crate::host::egress::hold::{self, hold};
use crate::host::egress::{EgressError, expected, verify};
use crate::host::{Host, Os};

/// Arguments of commands that answer.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Status {
    mode: EgressMode,
    filter: &'static str,
    name: String,
    /// Whether what is loaded is what should be.
    loaded: bool,
    /// Whether it does what it should as well.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    slots: Vec<SlotStatus>,
}

#[derive(Debug, Serialize)]
struct SlotStatus {
    slot: u32,
    account: String,
    #[serde(flatten)]
    blocked: Blocked,
}

/// The slots and rules of this host, which must be this host's own and not assumed.
fn ground(host: &Host, config: &Config) -> anyhow::Result<Ground> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "only root may ask the packet filter\nhint: run this as root"
    );
    let (_, accounts) = start::survey(host, config);
    accounts?;
    Ground::of(host.os, host, config)
}

/// Says so and ends well where there is nothing to filter.
fn nothing(config: &Config) -> Option<ExitCode> {
    if config.egress.mode == EgressMode::BlockLan {
        return None;
    }
    println!("no packet filter: {}", unfiltered(config.egress.mode));
    Some(ExitCode::SUCCESS)
}

fn filter(os: Os) -> &'static str {
    match os {
        Os::Linux => "nftables",
        Os::MacOs => "pf",
    }
}

pub(super) fn status(args: &FormatArgs, host: &Host, config: &Config) -> anyhow::Result<ExitCode> {
    if let (Format::Text, Some(code)) = (args.format, nothing(config)) {
        return Ok(code);
    }
    let ground = ground(host, config)?;
    let (blocked, why) = match config.egress.mode {
        EgressMode::BlockLan => match verify(host, &expected(host, &ground.policy)?) {
            Ok(blocked) => (blocked, None),
            Err(EgressError::Lost { why }) => (BTreeMap::new(), Some(why)),
            Err(error) => return Err(error.into()),
        },
        mode => (BTreeMap::new(), Some(unfiltered(mode).to_owned())),
    };
    let loaded = why.is_none();
    let why = if loaded { flaw(&ground, config) } else { why };
    let slots = ground.slots.iter().map(|slot| SlotStatus {
        slot: slot.index,
        account: slot.account.name.clone(),
        blocked: blocked.get(&slot.index).cloned().unwrap_or_default(),
    });
    let status = Status {
        mode: config.egress.mode,
        filter: filter(host.os),
        name: ground.policy.name.clone(),
        loaded,
        verified: why.is_none(),
        why,
        slots: slots.collect(),
    };
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Format::Text => print!("{}", as_text(&status)),
    }
    let wanted = config.egress.mode == EgressMode::BlockLan;
    Ok(ExitCode::from(u8::from(wanted && !status.verified)))
}

/// What is wrong with rules that are loaded as they should be, by trying them.
fn flaw(ground: &Ground, config: &Config) -> Option<String> {
    match fly(ground, config) {
        Ok(attempts) => attempts
            .iter()
            .find(|attempt| !attempt.is_met())
            .map(ToString::to_string),
        Err(error) => Some(crate::chain(error.as_ref())),
    }
}

fn as_text(status: &Status) -> String {
    let Status { filter, name, .. } = status;
    let standing = match &status.why {
        None => format!("{filter} rules `{name}` are loaded as they should be, and hold\n"),
        Some(why) if status.loaded => format!("{filter} rules `{name}` do not hold: {why}\n"),
        Some(why) => format!("{filter} rules `{name}` are not in force: {why}\n"),
    };
    if !status.loaded {
        return standing;
    }
    let row = |slot: &SlotStatus| {
        [
            slot.slot.to_string(),
            slot.account.clone(),
            slot.blocked.to_string(),
        ]
    };
    let rows: Vec<_> = status.slots.iter().map(row).collect();
    standing + &table(["SLOT", "ACCOUNT", "BLOCKED"], &rows)
}

pub(super) fn apply(args: &FormatArgs, host: &Host, config: &Config) -> anyhow::Result<ExitCode> {
    if let Some(code) = nothing(config) {
        return Ok(code);
    }
    let ground = ground(host, config)?;
    let held = hold(host, &expected(host, &ground.policy)?)?;
    let done = if held.loaded {
        "loaded"
    } else {
        "were loaded already"
    };
    if args.format == Format::Text {
        println!("{} rules `{}` {done}", filter(host.os), ground.policy.name);
    }
    tell(args, &fly(&ground, config)?)
}

pub(super) fn remove(host: &Host, config: &Config) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "only root may change the packet filter\nhint: run this as root"
    );
    hold::remove(host, &name(&config.host.account))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn test(args: &FormatArgs, host: &Host, config: &Config) -> anyhow::Result<ExitCode> {
    if let Some(code) = nothing(config) {
        return Ok(code);
    }
    let ground = ground(host, config)?;
    verify(host, &expected(host, &ground.policy)?).map_err(|error| {
        anyhow::Error::new(error)
            .context("there is nothing to try\nhint: `ephemerd egress apply` loads the rules")
    })?;
    tell(args, &fly(&ground, config)?)
}

fn fly(ground: &Ground, config: &Config) -> anyhow::Result<Vec<Attempt>> {
    Ok(canary::fly(&ground.slots, &config.egress.local_ports())?)
}

/// Prints what was tried; ends with 1 when anything is not as it must be.
fn tell(args: &FormatArgs, attempts: &[Attempt]) -> anyhow::Result<ExitCode> {
    let failed = attempts.iter().filter(|attempt| !attempt.is_met()).count();
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(attempts)?),
        Format::Text => {
            let row = |attempt: &Attempt| {
                let verdict = match (attempt.is_met(), attempt.found) {
                    (true, found) => found.to_string(),
                    (false, found) => format!("{} INSTEAD OF {}", found, attempt.wanted),
                };
                [
                    attempt.account.clone(),
                    format!("{}/{}", attempt.to, attempt.transport),
                    verdict,
                    attempt.said.clone(),
                ]
            };
            let rows: Vec<_> = attempts.iter().map(row).collect();
            print!("{}", table(["ACCOUNT", "TO", "FOUND", "THE SYSTEM SAYS"], &rows));
            println!("{} attempts, {failed} not as they must be", attempts.len());
        }
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}
