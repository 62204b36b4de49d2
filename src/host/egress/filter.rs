//! The rules of one configuration, held: compared with what is loaded as often as somebody asks, and loaded again where they
//! were changed. What it knows is the configuration of whoever made it, so that nobody who asks can have other rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hold::{Held, hold};
use super::{EgressError, Expected, canary, expected, load, surroundings, verify};
use crate::config::Config;
use crate::egress::{Blocked, Policy};
use crate::host::Host;
use crate::slot::Slot;

/// The rules, as long as this lives.
#[derive(Debug)]
pub struct Filter {
    host: Host,
    config: Config,
    slots: Vec<Slot>,
    policy: Policy,
    expected: Expected,
    held: Held,
}

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// What the system has counted by slot since the rules were loaded.
    pub blocked: BTreeMap<u32, Blocked>,
    /// What was wrong with the rules, which are loaded again now.
    pub lost: Option<String>,
    /// Whether the rules follow a network that has changed.
    pub followed: bool,
}

impl Filter {
    /// Loads the rules for `slots`, or joins whoever has loaded the same.
    ///
    /// # Errors
    /// They cannot be loaded, or jobs run under others.
    pub fn hold(host: &Host, config: &Config, slots: &[Slot]) -> Result<Self, EgressError> {
        let policy = Policy::new(&config.egress, &config.host.account, slots, &surroundings(host)?);
        let expected = expected(host, &policy)?;
        let held = hold(host, &expected)?;
        Ok(Self {
            host: host.clone(),
            config: config.clone(),
            slots: slots.to_vec(),
            policy,
            expected,
            held,
        })
    }

    /// What the rules had blocked, by slot, when they were taken.
    pub fn blocked_before(&self) -> &BTreeMap<u32, Blocked> {
        &self.held.blocked
    }

    /// Follows the network around this host, compares the rules and loads them again where they were changed.
    ///
    /// # Errors
    /// They cannot be compared, or were changed and cannot be loaded again.
    pub fn compare(&mut self) -> Result<Compared, EgressError> {
        let around = surroundings(&self.host)?;
        let (egress, account) = (&self.config.egress, &self.config.host.account);
        let policy = Policy::new(egress, account, &self.slots, &around);
        let followed = policy != self.policy;
        if followed {
            self.expected = expected(&self.host, &policy)?;
            self.policy = policy;
            load(&self.host, &self.expected)?;
            self.held.note(&self.expected)?;
        }
        canary::add_addresses(&self.host)?;
        let (blocked, lost) = match verify(&self.host, &self.expected) {
            Ok(blocked) => (blocked, None),
            Err(EgressError::Lost { why }) => {
                load(&self.host, &self.expected)?;
                (verify(&self.host, &self.expected)?, Some(why))
            }
            Err(error) => return Err(error),
        };
        Ok(Compared {
            blocked,
            lost,
            followed,
        })
    }
}
