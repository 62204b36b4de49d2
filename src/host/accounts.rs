//! The accounts jobs run as: which there must be, which there are, and the steps between.
//!
//! ```text
//!  Wanted ─┐
//!          ├─ plan ─► steps ─► setup runs them, looks again, and must find nothing left to do
//!  Observed┘    └──► every difference of an account that exists but does not fit; never changed by us
//! ```
//!
//! Accounts are created once and deleted only when an installation is taken back and its owner says so: a uid that is
//! given out again would own what is left of the former. On Linux only the local files are read (passwd(5), group(5), shadow(5)): an account that exists
//! solely in LDAP or another name service is taken as missing, and useradd(8) then refuses to create it again. On
//! macOS the local directory services are asked, and ids are chosen here, since nothing there chooses them.

mod delete;
pub(crate) mod fit;
pub(crate) mod mac;
mod observed;
mod step;

use std::collections::BTreeSet;
use std::io;

use camino::Utf8PathBuf;
use serde::Serialize;

pub(crate) use delete::delete;
pub use fit::Difference;
use mac::Directory;
pub use observed::{Group, Home, Observed, Partial, User};
pub use step::{Ids, Step};

use super::command::{CommandError, run};
use super::{Host, Os};
use crate::config::Accounts;
use crate::slot::Account;

/// Longest name of an account in bytes, useradd(8).
const NAME_BYTE: usize = 32;

/// Why the accounts are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
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
    /// The directory services of macOS do not answer.
    #[error("could not ask the directory services for accounts")]
    Directory(#[source] CommandError),
    /// They answered something that is not a list of ids.
    #[error(
        "line {line} of a list of accounts makes no sense\nhint: see what `dscl . -list /Users UniqueID` says"
    )]
    List {
        /// Counted from 1.
        line: usize,
    },
    /// They answered something that is not a record.
    #[error(
        "the record of account `{name}` makes no sense\nhint: see what `dscl . -read /Users/{name}` says"
    )]
    Record {
        /// The account.
        name: String,
    },
    /// Every id that may be used is.
    #[error(
        "no free id for {step}: each of {first} to {last} is that of a user or a group\nhint: use fewer slots, or remove accounts that nothing uses any more"
    )]
    NoFreeId {
        /// What was to be created.
        step: String,
        /// The lowest id that may be used.
        first: u32,
        /// The highest.
        last: u32,
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
    /// A tool failed.
    #[error("could not delete {step}\nhint: end what runs as it, and try again")]
    Delete {
        /// What was to be deleted.
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
            ids: None,
        };
        let group = Step::CreateGroup {
            name: self.account.to_owned(),
            gid: None,
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

/// The account the dispatcher runs as: the service's, where this process is root and there is such an account; otherwise
/// `None`, and it runs as we do.
pub fn dispatcher(account: &str) -> Option<Account> {
    let user = users::get_user_by_name(account).filter(|_| nix::unistd::geteuid().is_root())?;
    Some(Account {
        name: account.to_owned(),
        uid: user.uid(),
        gid: user.primary_group_id(),
    })
}

/// Does what root does with the dispatcher's own files as the dispatcher would: what it has put in their place leads no
/// further than it gets itself. Every thread of this process is the dispatcher meanwhile.
///
/// # Errors
///
/// The system refuses.
pub fn as_dispatcher<T>(account: &str, what: impl FnOnce() -> T) -> io::Result<T> {
    use nix::unistd::{getegid, geteuid, setegid, seteuid};
    let Some(account) = dispatcher(account) else {
        return Ok(what());
    };
    let (uid, gid) = (geteuid(), getegid());
    setegid(account.gid.into())?;
    let done = seteuid(account.uid.into()).map(|()| what());
    let is_back = || geteuid() == uid || seteuid(uid).is_ok();
    if !is_back() || setegid(gid).is_err() {
        // Half of this process as somebody else is nothing to go on with.
        std::process::abort();
    }
    Ok(done?)
}

/// User and group of the [`dispatcher`], ours where it has no account of its own.
pub fn dispatcher_ids(account: &str) -> (u32, u32) {
    let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    dispatcher(account).map_or(own, |account| (account.uid, account.gid))
}

/// Returns the steps that are missing between what is observed and what is wanted, in their order.
///
/// # Errors
///
/// When accounts exist that do not fit, listing every difference, when the name cannot be an account's, and
/// on macOS when there are no ids left to give.
pub fn plan(os: Os, wanted: &Wanted<'_>, observed: &Observed) -> Result<Vec<Step>, AccountsError> {
    wanted.check_names()?;
    let mut differences = Vec::new();
    let mut missing = Vec::new();
    for step in wanted.steps() {
        let found = match &step {
            Step::CreateGroup { name, .. } => fit::group_differences(name, observed),
            Step::CreateUser { name, group, .. } => fit::user_differences(name, group, observed),
        };
        match found {
            Some(found) => differences.extend(found),
            None => missing.push(step),
        }
    }
    if !differences.is_empty() {
        return Err(AccountsError::Unfit(differences));
    }
    match os {
        Os::Linux => Ok(missing),
        Os::MacOs => with_ids(missing, observed),
    }
}

/// The steps with ids that no user and no group has; what exists keeps its own. Each id serves one of them only,
/// so that a number says who it is wherever it shows.
fn with_ids(steps: Vec<Step>, observed: &Observed) -> Result<Vec<Step>, AccountsError> {
    let partial = observed.partial.values();
    let mut taken: BTreeSet<u32> = observed.users.iter().map(|user| user.uid).collect();
    taken.extend(observed.groups.iter().map(|group| group.gid));
    taken.extend(partial.filter_map(|partial| partial.uid));
    let mut next = |step: &Step| {
        let free = mac::ROLE_IDS.into_iter().find(|id| taken.insert(*id));
        free.ok_or_else(|| AccountsError::NoFreeId {
            step: step.to_string(),
            first: *mac::ROLE_IDS.start(),
            last: *mac::ROLE_IDS.end(),
        })
    };
    let mut new_group = None;
    let mut planned = Vec::new();
    for mut step in steps {
        let id = match &step {
            Step::CreateUser { name, .. } => observed.partial.get(name).and_then(|partial| partial.uid),
            Step::CreateGroup { .. } => None,
        };
        let id = id.map_or_else(|| next(&step), Ok)?;
        match &mut step {
            Step::CreateGroup { gid, .. } => {
                *gid = Some(id);
                new_group = Some(id);
            }
            Step::CreateUser { group, ids, .. } => {
                let gid = observed.group(group).map(|group| group.gid).or(new_group);
                *ids = gid.map(|gid| Ids { uid: id, gid });
            }
        }
        planned.push(step);
    }
    Ok(planned)
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
        let planned = missing.iter().find(|missing| missing.creates_what(&step));
        match (planned, dry_run) {
            (None, _) => report(&step, Status::AlreadyFits),
            (Some(planned), true) => report(planned, Status::WouldDo),
            (Some(planned), false) => {
                take(host, planned)?;
                report(planned, Status::Done);
            }
        }
    }
    if dry_run {
        return Ok(());
    }
    if host.os == Os::MacOs && !missing.is_empty() {
        // The caches expire by themselves; this only saves the wait.
        let _ = run(&mac::flush(&host.mac));
    }
    // Tools can be wrappers of the distribution: what counts is what is there now.
    let left = plan(host.os, wanted, &observe(host, wanted)?)?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(AccountsError::Ineffective(names(&left)))
    }
}

/// Takes one step.
///
/// # Errors
/// A tool fails.
pub(crate) fn take(host: &Host, step: &Step) -> Result<(), AccountsError> {
    for command in step.commands(host) {
        let done = match host.os {
            Os::Linux => run(&command),
            Os::MacOs => Directory::of(host).ask(&command),
        }
        .and_then(|output| output.require_success(&command));
        match done {
            Err(error) if host.os == Os::MacOs && mac::may_be_refused(&command) => {
                tracing::warn!(%step, error = crate::chain(&error), "not hidden");
            }
            Err(source) => {
                return Err(AccountsError::Step {
                    step: step.to_string(),
                    source,
                });
            }
            Ok(_) => {}
        }
    }
    Ok(())
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
        let host = Host {
            os: Os::Linux,
            ..Host::system()
        };
        let text: String = steps
            .iter()
            .map(|step| format!("{step}\n  {}\n", step.commands(&host)[0]))
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
}
