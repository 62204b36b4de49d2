//! The accounts jobs run as: which there must be, which there are, and the steps between.
//!
//! ```text
//!  Wanted ─┐
//!          ├─ plan ─► steps ─► setup runs them, looks again, and must find nothing left to do
//!  Observed┘    └──► every difference of an account that exists but does not fit; never changed by us
//! ```
//!
//! Accounts are created once and never deleted: a uid that is given out again would own what is left of
//! the former. Only the local files are read (passwd(5), group(5), shadow(5)): an account that exists solely
//! in LDAP or another name service is taken as missing, and useradd(8) then refuses to create it again.

mod fit;
mod observed;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::time::Duration;

use camino::Utf8PathBuf;
use serde::Serialize;

pub use fit::Difference;
pub use observed::{Group, Home, Observed, User};

use super::command::{CommandError, CommandSpec, run};
use super::{Host, Os};
use crate::config::Accounts;
use crate::slot::Account;

/// Longest name of an account in bytes, useradd(8).
const NAME_BYTE: usize = 32;

/// How long one tool may take. They wait for a lock that another one may hold (lckpwdf(3): 15 s).
const TOOL_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the accounts are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// Only Linux is served so far.
    #[error(
        "account creation on macOS is not available in this version\nhint: run without root to use the current account"
    )]
    MacOs,
    /// Not a name that every tool accepts.
    #[error(
        "`{0}` cannot be an account's name\nhint: set `host.account` to at most 30 characters of a-z, 0-9, `_` and `-`, starting with a letter or `_`"
    )]
    Name(String),
    /// A file of accounts could not be read.
    #[error("could not read `{path}`")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line that has too few fields or no number where one must be.
    #[error("line {line} of the {file} file makes no sense\nhint: pwck and grpck check these files")]
    Malformed {
        /// Which of the files.
        file: &'static str,
        /// Counted from 1.
        line: usize,
    },
    /// Accounts exist but cannot be used for jobs.
    #[error(
        "existing accounts do not fit:{}\nhint: set this right (usermod, gpasswd, groupmod), or choose other accounts with `host.account`",
        listed(.0)
    )]
    Unfit(Vec<Difference>),
    /// Accounts do not exist.
    #[error("missing: {}\nhint: run `ephemerd host setup`", .0.join(", "))]
    Missing(Vec<String>),
    /// A tool failed.
    #[error(
        "could not create {step}\nhint: this needs root; once the cause is gone, run `ephemerd host setup` again"
    )]
    Step {
        /// What was to be created.
        step: String,
        /// What the tool said.
        source: CommandError,
    },
    /// The tools reported success, but what they should have made is not there.
    #[error("still missing after its tool reported success: {}\nhint: see whether accounts are kept elsewhere than in the local files", .0.join(", "))]
    Ineffective(Vec<String>),
}

/// Differences as further lines of a message.
fn listed(differences: &[Difference]) -> String {
    differences
        .iter()
        .map(|difference| format!("\n  {difference}"))
        .collect()
}

/// What the configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Name of the service account and group.
    pub account: &'a str,
    /// Number of slots.
    pub slots: u32,
    /// One account per slot, or one for all.
    pub accounts: Accounts,
}

impl Wanted<'_> {
    /// The name of the account that slot `index` (from 1) runs as.
    fn slot_account(&self, index: u32) -> String {
        match self.accounts {
            Accounts::PerSlot => format!("{}{index}", self.account),
            Accounts::Single => self.account.to_owned(),
        }
    }

    /// Everything there must be, as the steps that would make it on a host that has none of it.
    pub fn steps(&self) -> Vec<Step> {
        let user = |name, comment| Step::CreateUser {
            name,
            group: self.account.to_owned(),
            comment,
        };
        let group = Step::CreateGroup {
            name: self.account.to_owned(),
        };
        let service = user(self.account.to_owned(), "ephemerd service".to_owned());
        let slots = match self.accounts {
            Accounts::PerSlot => self.slots,
            Accounts::Single => 0,
        };
        let slots = (1..=slots).map(|n| user(self.slot_account(n), format!("ephemerd job slot {n}")));
        [group, service].into_iter().chain(slots).collect()
    }

    /// Checks the longest of the names, which the others begin like.
    fn check_names(&self) -> Result<(), AccountsError> {
        let longest = self.slot_account(self.slots);
        let letter = |b: u8| b.is_ascii_lowercase() || b == b'_';
        let fits = self.account.bytes().next().is_some_and(letter)
            && self
                .account
                .bytes()
                .all(|b| letter(b) || b.is_ascii_digit() || b == b'-')
            && longest.len() <= NAME_BYTE;
        if fits {
            Ok(())
        } else {
            Err(AccountsError::Name(self.account.to_owned()))
        }
    }
}

/// One thing to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "create", rename_all = "kebab-case")]
pub enum Step {
    /// A group.
    #[serde(rename = "group")]
    CreateGroup {
        /// Its name.
        name: String,
    },
    /// An account that nobody can log in to.
    #[serde(rename = "account")]
    CreateUser {
        /// Its name.
        name: String,
        /// Its primary and only group.
        group: String,
        /// What it is for.
        comment: String,
    },
}

impl Step {
    /// The command that takes this step on `host`.
    pub fn command(&self, host: &Host) -> CommandSpec {
        let (program, args) = match self {
            Self::CreateGroup { name } => (&host.tools.groupadd, vec!["--system", name]),
            Self::CreateUser { name, group, comment } => {
                // System accounts get no subordinate ids unless asked for, see useradd(8).
                let args = [
                    "--system",
                    "--gid",
                    group,
                    "--no-create-home",
                    "--home-dir",
                    "/nonexistent",
                    "--shell",
                    "/usr/sbin/nologin",
                    "--no-log-init",
                    "--comment",
                    comment,
                    name,
                ];
                (&host.tools.useradd, args.to_vec())
            }
        };
        CommandSpec {
            program: program.clone(),
            args: args.into_iter().map(str::to_owned).collect(),
            stdin: None,
            timeout: TOOL_TIMEOUT,
        }
    }
}

/// Prints what it creates.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateGroup { name } => write!(f, "group `{name}`"),
            Self::CreateUser { name, comment, .. } => write!(f, "account `{name}` ({comment})"),
        }
    }
}

/// Returns the steps that are missing between what is observed and what is wanted, in their order.
///
/// # Errors
///
/// When accounts exist that do not fit, listing every difference, when the name cannot be an account's, and
/// on macOS.
pub fn plan(os: Os, wanted: &Wanted<'_>, observed: &Observed) -> Result<Vec<Step>, AccountsError> {
    match os {
        Os::MacOs => return Err(AccountsError::MacOs),
        Os::Linux => wanted.check_names()?,
    }
    let mut differences = Vec::new();
    let mut missing = Vec::new();
    for step in wanted.steps() {
        let found = match &step {
            Step::CreateGroup { name } => fit::group_differences(name, observed),
            Step::CreateUser { name, group, .. } => fit::user_differences(name, group, observed),
        };
        match found {
            Some(found) => differences.extend(found),
            None => missing.push(step),
        }
    }
    if differences.is_empty() {
        Ok(missing)
    } else {
        Err(AccountsError::Unfit(differences))
    }
}

/// Returns the account of each slot, slot 1 first.
///
/// # Errors
///
/// As [`plan`], and when any of the accounts is missing.
pub fn resolve(os: Os, wanted: &Wanted<'_>, observed: &Observed) -> Result<Vec<Account>, AccountsError> {
    let missing = plan(os, wanted, observed)?;
    if !missing.is_empty() {
        return Err(AccountsError::Missing(names(&missing)));
    }
    (1..=wanted.slots)
        .map(|index| {
            let name = wanted.slot_account(index);
            let Some(user) = observed.user(&name) else {
                return Err(AccountsError::Missing(vec![format!("account `{name}`")]));
            };
            let User { uid, gid, .. } = *user;
            Ok(Account { name, uid, gid })
        })
        .collect()
}

/// What the steps create, for messages.
fn names(steps: &[Step]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// There was nothing to do.
    AlreadyFits,
    /// It would be done without `--dry-run`.
    WouldDo,
    /// It was done.
    Done,
}

/// Returns what is observed of the accounts `wanted` names.
///
/// # Errors
///
/// When passwd or group cannot be read or parsed. An unreadable shadow file is no error here; it is one for
/// every existing account whose password it would show.
pub fn observe(host: &Host, wanted: &Wanted<'_>) -> Result<Observed, AccountsError> {
    let users: BTreeSet<String> = wanted
        .steps()
        .into_iter()
        .filter_map(|step| match step {
            Step::CreateGroup { .. } => None,
            Step::CreateUser { name, .. } => Some(name),
        })
        .collect();
    Observed::read(host, &users)
}

/// Creates what is missing, or only says so, and reports every step as it is settled.
///
/// # Errors
///
/// As [`plan`], when a tool fails, and when something is missing although its tool reported success. What was
/// created by then stays; doing it again continues there.
pub fn setup(
    host: &Host,
    wanted: &Wanted<'_>,
    dry_run: bool,
    report: &mut dyn FnMut(&Step, Status),
) -> Result<(), AccountsError> {
    let missing = plan(host.os, wanted, &observe(host, wanted)?)?;
    for step in wanted.steps() {
        let status = match (missing.contains(&step), dry_run) {
            (false, _) => Status::AlreadyFits,
            (true, true) => Status::WouldDo,
            (true, false) => {
                take(host, &step)?;
                Status::Done
            }
        };
        report(&step, status);
    }
    if dry_run {
        return Ok(());
    }
    // Tools can be wrappers of the distribution: what counts is what is there now.
    let left = plan(host.os, wanted, &observe(host, wanted)?)?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(AccountsError::Ineffective(names(&left)))
    }
}

fn take(host: &Host, step: &Step) -> Result<(), AccountsError> {
    let command = step.command(host);
    run(&command)
        .and_then(|output| output.require_success(&command))
        .map(drop)
        .map_err(|source| AccountsError::Step {
            step: step.to_string(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n";
    const GROUP: &str = "root:x:0:\n_ephemerd:x:900:\n";

    fn wanted(accounts: Accounts) -> Wanted<'static> {
        Wanted {
            account: "_ephemerd",
            slots: 2,
            accounts,
        }
    }

    fn line(name: &str, uid: u32) -> String {
        format!("{name}:x:{uid}:900::/nonexistent:/usr/sbin/nologin\n")
    }

    fn complete() -> Observed {
        let users = line("_ephemerd", 900) + &line("_ephemerd1", 901) + &line("_ephemerd2", 902);
        let shadow = "_ephemerd:!:1::::::\n_ephemerd1:!:1::::::\n_ephemerd2:!*:1::::::\n";
        Observed::parse(&format!("{PASSWD}{users}"), GROUP, Some(shadow)).unwrap()
    }

    #[test]
    fn plans_everything_on_a_host_that_has_nothing() {
        let observed = Observed::parse(PASSWD, "root:x:0:\n", None).unwrap();
        let steps = plan(Os::Linux, &wanted(Accounts::PerSlot), &observed).unwrap();
        let host = Host::system();
        let text: String = steps
            .iter()
            .map(|step| format!("{step}\n  {}\n", step.command(&host)))
            .collect();
        insta::assert_snapshot!(text, @r"
        group `_ephemerd`
          /usr/sbin/groupadd --system _ephemerd
        account `_ephemerd` (ephemerd service)
          /usr/sbin/useradd --system --gid _ephemerd --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --no-log-init --comment 'ephemerd service' _ephemerd
        account `_ephemerd1` (ephemerd job slot 1)
          /usr/sbin/useradd --system --gid _ephemerd --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --no-log-init --comment 'ephemerd job slot 1' _ephemerd1
        account `_ephemerd2` (ephemerd job slot 2)
          /usr/sbin/useradd --system --gid _ephemerd --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --no-log-init --comment 'ephemerd job slot 2' _ephemerd2
        ");
        let single = plan(Os::Linux, &wanted(Accounts::Single), &observed).unwrap();
        assert_eq!(single, steps[..2]);
    }

    #[test]
    fn plans_nothing_where_everything_fits_and_only_the_rest_where_some_does() {
        let mut observed = complete();
        assert_eq!(
            plan(Os::Linux, &wanted(Accounts::PerSlot), &observed).unwrap(),
            []
        );
        observed.users.retain(|user| user.name != "_ephemerd2");
        let left = plan(Os::Linux, &wanted(Accounts::PerSlot), &observed).unwrap();
        assert_eq!(names(&left), ["account `_ephemerd2` (ephemerd job slot 2)"]);
        assert_eq!(plan(Os::Linux, &wanted(Accounts::Single), &observed).unwrap(), []);
    }

    #[test]
    fn resolves_one_account_per_slot_or_the_same_for_all() {
        let ids = |accounts| -> Vec<(String, u32, u32)> {
            let found = resolve(Os::Linux, &wanted(accounts), &complete()).unwrap();
            found.into_iter().map(|a| (a.name, a.uid, a.gid)).collect()
        };
        let account = |name: &str, uid| (name.to_owned(), uid, 900);
        assert_eq!(
            ids(Accounts::PerSlot),
            [account("_ephemerd1", 901), account("_ephemerd2", 902)]
        );
        assert_eq!(
            ids(Accounts::Single),
            [account("_ephemerd", 900), account("_ephemerd", 900)]
        );
    }

    #[test]
    fn does_not_resolve_what_is_missing_or_does_not_fit() {
        let mut observed = complete();
        observed.users.retain(|user| user.name != "_ephemerd2");
        let text = resolve(Os::Linux, &wanted(Accounts::PerSlot), &observed)
            .unwrap_err()
            .to_string();
        assert_eq!(
            text,
            "missing: account `_ephemerd2` (ephemerd job slot 2)\nhint: run `ephemerd host setup`"
        );
        observed.users[1].shell = "/bin/bash".into();
        let error = resolve(Os::Linux, &wanted(Accounts::PerSlot), &observed).unwrap_err();
        assert!(matches!(error, AccountsError::Unfit(_)), "{error}");
    }

    #[test]
    fn refuses_names_that_tools_refuse_or_take_for_options() {
        let nothing = Observed::default();
        for (account, slots) in [("", 1), ("-x", 1), ("1a", 1), ("a b", 1), ("A", 1), ("a:b", 1)]
            .into_iter()
            .chain([("a234567890123456789012345678901", 10)])
        {
            let wanted = Wanted {
                account,
                slots,
                accounts: Accounts::PerSlot,
            };
            let error = plan(Os::Linux, &wanted, &nothing).unwrap_err();
            assert!(matches!(error, AccountsError::Name(_)), "{account}: {error}");
        }
    }

    #[test]
    fn says_that_macos_accounts_are_not_available() {
        let error = plan(Os::MacOs, &wanted(Accounts::PerSlot), &complete()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("account creation on macOS is not available in this version")
        );
    }
}
