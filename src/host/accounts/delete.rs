//! Deleting accounts, which only an installation that is taken back does, and only those that it has made.

use std::collections::BTreeSet;

use super::mac::Directory;
use super::{AccountsError, Observed, Step};
use crate::host::command::run;
use crate::host::{Host, Os};

/// Deletes what a step created, unless it is gone already.
///
/// # Errors
/// It cannot be looked for, or the tool fails.
pub(crate) fn delete(host: &Host, step: &Step) -> Result<(), AccountsError> {
    let (name, is_group) = match step {
        Step::CreateGroup { name, .. } => (name, true),
        Step::CreateUser { name, .. } => (name, false),
    };
    let observed = Observed::read(host, &BTreeSet::from([name.clone()]))?;
    let is_there = if is_group {
        observed.groups.iter().any(|group| group.name == *name)
    } else {
        observed.users.iter().any(|user| user.name == *name)
    };
    if !is_there {
        return Ok(());
    }
    let command = step.deletion(host);
    let done = match host.os {
        Os::Linux => run(&command),
        Os::MacOs => Directory::of(host).ask(&command),
    };
    done.and_then(|output| output.require_success(&command))
        .map(drop)
        .map_err(|source| AccountsError::Delete {
            step: step.to_string(),
            source,
        })
}
