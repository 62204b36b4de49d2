//! Accounts: those of jobs, and others. An account of a job must be one that nobody can log in to and that can do no
//! more than a job may.
//!
//! What is not seen: rules of sudoers(5), and on macOS the groups that are computed (`staff`, `everyone`,
//! `localaccounts`: every account is in them) and membership by way of another group, but for `admin` and `wheel`.

mod difference;
mod seen;

use serde::Deserialize;

use super::files::mode;
use crate::host::Os;
use crate::provision::Verdict;
use crate::provision::context::Context;
use crate::provision::question::{Answers, Question, View};
use crate::provision::step::{Action, Fix, Step};
use difference::{Difference, Remedy, differences};
use seen::{Seen, see};

/// The name that means all accounts of jobs.
const JOBS: &str = "jobs";

/// `[account.NAME]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Whether it may administer the host.
    pub admin: Option<bool>,
    /// Whether it may have a password.
    pub password: Option<bool>,
    /// Whether it may have a shell that lets it log in.
    pub login: Option<bool>,
    /// Whether the login window leaves it out; macOS only.
    pub hidden: Option<bool>,
    /// Permissions of its home folder in octal, where it has one.
    pub home_mode: Option<String>,
    /// Exactly the groups it is a member of; the accounts of jobs are in their own alone without.
    pub groups: Option<Vec<String>>,
}

/// How one account was found.
enum Standing {
    Missing,
    Unknown(String),
    Differs(Vec<Difference>),
    Fits,
}

impl Account {
    pub(super) fn complaint(&self, name: &str) -> Option<String> {
        // A name that begins like an option would be one; the tools take no others.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let is_name = |name: &str| {
            name.bytes().all(allowed) && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        };
        let groups = self.groups.iter().flatten().map(String::as_str);
        if let Some(bad) = std::iter::once(name).chain(groups).find(|name| !is_name(name)) {
            return Some(format!(
                "`{bad}` is no name of an account or group\nhint: letters, digits and `._-`"
            ));
        }
        let bad = self.home_mode.as_deref().filter(|text| mode(text).is_none())?;
        Some(format!(
            "`{bad}` is no mode\nhint: write octal digits, for example \"700\""
        ))
    }

    /// The accounts that are meant.
    fn names<'a>(name: &'a str, context: &'a Context) -> Vec<&'a str> {
        match name {
            JOBS => context.accounts.iter().map(String::as_str).collect(),
            name => vec![name],
        }
    }

    /// The groups an account must be in, where that is said.
    fn wanted_groups<'a>(&'a self, name: &str, context: &'a Context) -> Option<Vec<&'a str>> {
        match &self.groups {
            Some(groups) => Some(groups.iter().map(String::as_str).collect()),
            None if name == JOBS => Some(vec![&context.group]),
            None => None,
        }
    }

    pub(super) fn questions(&self, name: &str, context: &Context) -> Vec<(View, Question)> {
        let names = Self::names(name, context).into_iter();
        let mut all: Vec<Question> = names.flat_map(|name| seen::questions(name, context)).collect();
        all.sort();
        all.dedup();
        all.into_iter().map(|question| (View::Host, question)).collect()
    }

    fn standings<'a>(
        &self,
        name: &'a str,
        context: &'a Context,
        answers: &Answers,
    ) -> Vec<(&'a str, Standing)> {
        let groups = self.wanted_groups(name, context);
        let standing = |account: &'a str| {
            let standing = match see(account, context, answers) {
                Err(why) => Standing::Unknown(why),
                Ok(Seen::Nothing) => Standing::Missing,
                Ok(Seen::Record(record)) => match differences(self, groups.as_deref(), context, &record) {
                    Err(why) => Standing::Unknown(why),
                    Ok(found) if found.is_empty() => Standing::Fits,
                    Ok(found) => Standing::Differs(found),
                },
            };
            (account, standing)
        };
        Self::names(name, context).into_iter().map(standing).collect()
    }

    pub(super) fn judge(&self, name: &str, context: &Context, answers: &Answers) -> Verdict {
        let standings = self.standings(name, context, answers);
        if standings.is_empty() {
            return Verdict::unknown("jobs have no accounts of their own here");
        }
        let (mut found, mut wanted, mut unknown) = (vec![], vec![], None);
        let mut missing = 0;
        for (account, standing) in &standings {
            match standing {
                Standing::Fits => {}
                Standing::Missing => {
                    missing += 1;
                    found.push(format!("no `{account}`"));
                    wanted.push("all of them".to_owned());
                }
                Standing::Unknown(why) => unknown = unknown.or_else(|| Some(format!("`{account}`: {why}"))),
                Standing::Differs(all) => {
                    for difference in all {
                        found.push(format!("`{account}` {}", difference.found));
                        wanted.push(difference.wanted.clone());
                    }
                }
            }
        }
        if missing == standings.len() {
            return Verdict::Missing;
        }
        wanted.dedup();
        match (found.is_empty(), unknown) {
            (false, _) => Verdict::wrong(found.join(", "), wanted.join(", ")),
            (true, Some(why)) => Verdict::unknown(why),
            (true, None) => {
                let names: Vec<&str> = standings.iter().map(|(account, _)| *account).collect();
                Verdict::ok(names.join(", "))
            }
        }
    }

    pub(super) fn fix(&self, name: &str, context: &Context, answers: &Answers, _verdict: &Verdict) -> Fix {
        let (mut steps, mut by_hand, mut create) = (vec![], vec![], false);
        for (account, standing) in self.standings(name, context, answers) {
            match standing {
                Standing::Fits => {}
                Standing::Unknown(why) => by_hand.push(why),
                Standing::Missing if context.accounts.iter().any(|own| own == account) => create = true,
                Standing::Missing => by_hand.push(creation(account, context)),
                Standing::Differs(all) => {
                    for difference in all {
                        match difference.remedy {
                            Remedy::Steps(more) => steps.extend(more),
                            Remedy::Complete => create = true,
                            Remedy::ByHand(what) => by_hand.push(what),
                        }
                    }
                }
            }
        }
        if create {
            // It refuses accounts that are not as they must be, so that comes first.
            steps.push(Step {
                action: Action::JobAccounts,
                undo: None,
            });
        }
        if steps.is_empty() {
            by_hand.dedup();
            return Fix::ByHand(by_hand.join("; "));
        }
        Fix::Steps(steps)
    }
}

/// What creates an account that is not one of jobs.
fn creation(name: &str, context: &Context) -> String {
    match context.os() {
        Os::Linux => format!("{} --system {name}", context.host.tools.useradd),
        Os::MacOs => format!("sysadminctl -addUser {name}"),
    }
}
