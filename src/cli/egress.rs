//! `ephemerd egress`: the rules of the packet filter, shown, explained, loaded and tried.

mod check;
mod live;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::{Accounts, Config, EgressMode};
use crate::daemon::start;
use crate::egress::{Policy, Surroundings, render};
use crate::host::{Host, Os, accounts, egress};
use crate::slot::{Account, Slot};

/// The first number of accounts where there are none, from the range that macOS leaves to such accounts.
const ASSUMED_UID: u32 = 451;

/// Arguments of `egress`.
#[derive(Debug, Args)]
pub struct EgressArgs {
    #[command(subcommand)]
    pub(super) command: EgressCommand,
}

/// What to do with the packet filter.
#[derive(Debug, Subcommand)]
pub enum EgressCommand {
    /// Print the rules, as they are loaded. Works on any host, without accounts or root.
    Render(RenderArgs),
    /// Say whether an account may send to an address, and by which rule. Decides from the rendered rules alone.
    /// Ends with 0 when it may, with 1 when it may not. Works on any host.
    Check(check::CheckArgs),
    /// Tell whether the rules are loaded as they should be and hold, and what they blocked (needs root). Ends with 1
    /// when they are not or do not.
    Status(live::FormatArgs),
    /// Load the rules and try them (needs root). The daemon and `exec` do so themselves.
    Apply(live::FormatArgs),
    /// Take the rules out (needs root). Refused while jobs may run under them.
    Remove,
    /// Try the rules as every slot's account, without a packet leaving this machine (needs root). Ends with 1 when
    /// anything is not as it must be.
    Test(live::FormatArgs),
}

/// Arguments of `egress render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// For this system instead of this host's.
    #[arg(long, value_enum)]
    os: Option<System>,
}

/// A system with a packet filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum System {
    /// nftables
    Linux,
    /// pf
    Macos,
}

impl From<System> for Os {
    fn from(system: System) -> Self {
        match system {
            System::Linux => Self::Linux,
            System::Macos => Self::MacOs,
        }
    }
}

impl EgressArgs {
    /// Whether nothing is changed that has to be ended.
    pub(super) fn only_answers(&self) -> bool {
        matches!(
            self.command,
            EgressCommand::Render(_) | EgressCommand::Check(_) | EgressCommand::Status(_)
        )
    }

    /// Whether the exit code 1 is an answer, so that errors need another one.
    pub(super) fn compares(&self) -> bool {
        matches!(self.command, EgressCommand::Check(_))
    }
}

/// Does it.
///
/// # Errors
/// The rules cannot be made, or the packet filter cannot be asked.
pub fn run(args: &EgressArgs, host: &Host, config: &Config) -> anyhow::Result<ExitCode> {
    match &args.command {
        EgressCommand::Render(args) => show(args, host, config),
        EgressCommand::Check(args) => check::run(args, host, config),
        EgressCommand::Status(args) => live::status(args, host, config),
        EgressCommand::Apply(args) => live::apply(args, host, config),
        EgressCommand::Remove => live::remove(host, config),
        EgressCommand::Test(args) => live::test(args, host, config),
    }
}

/// Slots and policy of a system.
struct Ground {
    slots: Vec<Slot>,
    policy: Policy,
    /// What is not as it is on the host that this is for, in words.
    assumed: Vec<&'static str>,
}

impl Ground {
    /// What is known of `os` here: of another system than this host's the accounts' numbers and the network around
    /// it are not.
    fn of(os: Os, host: &Host, config: &Config) -> anyhow::Result<Self> {
        let mut assumed = Vec::new();
        let here = os == host.os;
        let found = here.then(|| known_accounts(host, config)).flatten();
        let found = found.unwrap_or_else(|| {
            assumed.push("the accounts are not there; their numbers are assumed");
            assumed_accounts(config)
        });
        let around = if here {
            egress::surroundings(host)?
        } else {
            assumed.push("this is for another system; its addresses and resolvers are not known here");
            Surroundings::default()
        };
        let slots = start::egress_slots(config, start::slots(config, Some(&found)));
        Ok(Self {
            policy: Policy::new(&config.egress, &config.host.account, &slots, &around),
            slots,
            assumed,
        })
    }
}

/// The accounts of this host, or where looking at them takes more rights, those that have their names; `None` when one
/// is missing.
fn known_accounts(host: &Host, config: &Config) -> Option<Vec<Account>> {
    let wanted = start::wanted(config);
    let seen = accounts::observe(host, &wanted).and_then(|seen| accounts::resolve(host.os, &wanted, &seen));
    if let Ok(found) = seen {
        return Some(found);
    }
    let account = |name: String| {
        let user = users::get_user_by_name(&name)?;
        Some(Account {
            name,
            uid: user.uid(),
            gid: user.primary_group_id(),
        })
    };
    names(config).into_iter().map(account).collect()
}

/// Accounts as `host setup` would make them, but for their numbers.
fn assumed_accounts(config: &Config) -> Vec<Account> {
    let numbered = names(config).into_iter().zip(ASSUMED_UID..);
    let account = |(name, uid)| Account {
        name,
        uid,
        gid: ASSUMED_UID,
    };
    numbered.map(account).collect()
}

/// The names of the slots' accounts, in the order of the slots.
fn names(config: &Config) -> Vec<String> {
    let account = &config.host.account;
    match config.native.accounts {
        Accounts::Single => vec![account.clone()],
        Accounts::PerSlot => (1..=config.native.slots)
            .map(|index| format!("{account}{index}"))
            .collect(),
    }
}

fn show(args: &RenderArgs, host: &Host, config: &Config) -> anyhow::Result<ExitCode> {
    let os = args.os.map_or(host.os, Os::from);
    let ground = Ground::of(os, host, config)?;
    if config.egress.mode != EgressMode::BlockLan {
        println!("# not loaded: {}", unfiltered(config.egress.mode));
    }
    for what in &ground.assumed {
        println!("# {what}");
    }
    print!("{}", render::render(&ground.policy, os)?);
    Ok(ExitCode::SUCCESS)
}

/// Why there is no packet filter in a mode.
fn unfiltered(mode: EgressMode) -> &'static str {
    match mode {
        EgressMode::BlockLan => "egress.mode is \"block-lan\"",
        EgressMode::Offline => "egress.mode is \"offline\": jobs have no network to filter",
        EgressMode::Open => "egress.mode is \"open\": jobs reach whatever this host reaches",
    }
}
