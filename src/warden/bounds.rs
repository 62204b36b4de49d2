//! What the warden does not do, whoever asks: it takes no account, no place and no name on trust.
//!
//! The dispatcher faces the network, so that one day it may be somebody else's. What it can then ask for is what any job is
//! given: a process as an account of the family, in a folder of its own. It cannot have a process as root or as anybody
//! else, a path of its choice written or removed, or another account's processes killed. What a launch shows to a job is
//! the dispatcher's to say, and is opened as the job's account, but for what the configuration grants.

use camino::{Utf8Component, Utf8PathBuf};

use super::Request;
use crate::config::Config;
use crate::job::Acquisition;
use crate::profile::policy::{Access, PathRule};
use crate::sandbox::launch::Confinement;
use crate::slot::Account;
use crate::workspace::homebrew::HostBrew;

/// The devices that the profiles show (profiles/linux/10-devices.toml).
const DEVICES: [&str; 6] = [
    "/dev/full",
    "/dev/null",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];

/// What there is to be had.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The name that all accounts of jobs begin with.
    pub family: String,
    /// Those of the slots, as they were found at the start.
    pub accounts: Vec<Account>,
    /// Guests' tools run as this account. Nothing is done as it but trying the packet filter.
    pub patron: Option<Account>,
    /// Where Homebrew usually is and where the configuration says it is, which is what jobs may have a copy of.
    pub homebrew: (Utf8PathBuf, Option<Utf8PathBuf>),
    /// What jobs are shown although their accounts may not get there: what is the program's own.
    pub own: Vec<Utf8PathBuf>,
    /// Likewise, what the configuration grants; it changes with that.
    pub granted: Vec<Utf8PathBuf>,
}

/// What `config` grants to jobs, as it is written and where it leads.
pub(crate) fn granted(config: &Config) -> Vec<Utf8PathBuf> {
    let native = [&config.native.extra_read, &config.native.extra_write];
    let repos = config.repos.values();
    let repos = repos.flat_map(|repo| [&repo.extra_read, &repo.extra_write]);
    let named = native.into_iter().chain(repos).flatten();
    named
        .flat_map(|path| [Some(path.clone()), path.canonicalize_utf8().ok()])
        .flatten()
        .collect()
}

impl Bounds {
    /// What root opens for a job, with everything below.
    pub(crate) fn openly(&self) -> Vec<Utf8PathBuf> {
        self.own.iter().chain(&self.granted).cloned().collect()
    }

    /// Whether a request is one that may be answered at all.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn check(&self, request: &Request) -> Result<(), String> {
        match request {
            Request::Prepare {
                account, homebrew, ..
            } => {
                if let Some(order) = homebrew {
                    let (usual, named) = &self.homebrew;
                    let found =
                        HostBrew::locate(usual, named.as_deref()).map_err(|error| crate::chain(&error))?;
                    if found.is_none_or(|found| found.prefix() != order.host) {
                        return Err(format!(
                            "`{}` is not the Homebrew prefix of this host",
                            order.host
                        ));
                    }
                }
                self.all(account.iter())
            }
            Request::Launch(plan) => {
                if let Confinement::Linux(policy) = &plan.confinement {
                    policy.paths.iter().try_for_each(shown)?;
                }
                self.all(plan.account.iter())
            }
            Request::Scrub {
                account,
                acquisitions,
                ..
            } => {
                self.all(account.iter())?;
                acquisitions.iter().try_for_each(|held| self.held(held))
            }
            Request::Usage { uid, .. } => uid.map_or(Ok(()), |uid| self.uid(uid)),
            // Guests that send as it have places of their own.
            Request::Canary { slots, .. } => {
                let accounts = slots.iter().map(|slot| &slot.account);
                self.all(accounts.filter(|account| self.patron.as_ref() != Some(*account)))
            }
            Request::Entrance { account, .. } => self.all(std::iter::once(account)),
            // These build every path and choose every account themselves.
            Request::Signal { .. }
            | Request::Folders
            | Request::Compare
            | Request::CloseEntrance { .. }
            | Request::Look { .. }
            | Request::Secrets
            | Request::Prune { .. }
            | Request::Tell { .. }
            | Request::Attend { .. }
            | Request::Keep { .. }
            | Request::Forget { .. }
            | Request::Recall { .. }
            | Request::Link
            | Request::Guest { .. } => Ok(()),
        }
    }

    fn held(&self, held: &Acquisition) -> Result<(), String> {
        match held {
            Acquisition::Processes { uid, exclusive: true } => self.uid(*uid),
            Acquisition::UserDomain { account } => self.account(account),
            Acquisition::Processes { .. }
            | Acquisition::Group
            | Acquisition::Profile
            | Acquisition::Homebrew { .. }
            | Acquisition::Runner { .. }
            | Acquisition::Workspace
            | Acquisition::Vm { .. } => Ok(()),
        }
    }

    fn all<'a>(&self, mut accounts: impl Iterator<Item = &'a Account>) -> Result<(), String> {
        accounts.try_for_each(|account| self.account(account))
    }

    /// Whether the account is one of the family, as the system knows it. Without root there is nobody to become.
    fn account(&self, account: &Account) -> Result<(), String> {
        if self.accounts.contains(account) {
            return Ok(());
        }
        // One that has a slot no more may still have something to be torn down.
        let known = users::get_user_by_name(&account.name);
        let is_it =
            known.is_some_and(|user| (user.uid(), user.primary_group_id()) == (account.uid, account.gid));
        match self.is_of_family(&account.name) && is_it && account.uid != 0 {
            true => Ok(()),
            false => Err(format!(
                "account `{}` with uid {} and gid {} is none that jobs run as",
                account.name, account.uid, account.gid
            )),
        }
    }

    /// The same, of an account by its number.
    fn uid(&self, uid: u32) -> Result<(), String> {
        if self.accounts.iter().any(|account| account.uid == uid) {
            return Ok(());
        }
        let known = users::get_user_by_uid(uid);
        let name = known.as_ref().and_then(|user| user.name().to_str());
        match uid != 0 && name.is_some_and(|name| self.is_of_family(name)) {
            true => Ok(()),
            false => Err(format!("uid {uid} is none that jobs run as")),
        }
    }

    /// Whether a name is that of an account of a slot; the family's own name is the dispatcher's. See
    /// [`crate::host::accounts`].
    fn is_of_family(&self, name: &str) -> bool {
        let rest = name.strip_prefix(self.family.as_str());
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

/// Whether root may act upon a rule of a job's view: no way leads back up, and a device is one that every job may have.
fn shown(rule: &PathRule) -> Result<(), String> {
    let source = rule.source.as_ref().unwrap_or(&rule.path);
    let is_plain = |path: &Utf8PathBuf| {
        let is_up = |part| matches!(part, Utf8Component::ParentDir);
        path.is_absolute() && !path.components().any(is_up)
    };
    if let Some(path) = [&rule.path, source].into_iter().find(|path| !is_plain(path)) {
        return Err(format!("`{path}` is no plain path"));
    }
    match rule.access {
        Access::Device if !DEVICES.contains(&source.as_str()) => {
            Err(format!("`{source}` is no device of a job's"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;
    use crate::slot::Slot;
    use crate::workspace::homebrew::{Layout, Order};

    fn account(name: &str, uid: u32) -> Account {
        let name = name.to_owned();
        Account { name, uid, gid: 450 }
    }

    fn bounds() -> Bounds {
        Bounds {
            family: "_ephemerd".to_owned(),
            accounts: vec![account("_ephemerd1", 451), account("_ephemerd2", 452)],
            patron: Some(account("builder", 501)),
            homebrew: ("/nowhere/usual".into(), None),
            own: vec![],
            granted: vec![],
        }
    }

    fn job() -> JobId {
        "0a1b2c3d4e5".parse().unwrap()
    }

    /// Every request that names an account.
    fn naming(account: &Account) -> Vec<Request> {
        let slot = Slot {
            index: 1,
            account: account.clone(),
            first_port: 1,
            last_port: 2,
        };
        let scrub = |account: Option<Account>, acquisitions| Request::Scrub {
            job: job(),
            account,
            acquisitions,
            keep: false,
        };
        let uid = account.uid;
        vec![
            Request::Prepare {
                job: job(),
                account: Some(account.clone()),
                homebrew: None,
                runner: None,
            },
            scrub(Some(account.clone()), vec![]),
            scrub(None, vec![Acquisition::Processes { uid, exclusive: true }]),
            scrub(
                None,
                vec![Acquisition::UserDomain {
                    account: account.clone(),
                }],
            ),
            Request::Usage {
                job: job(),
                uid: Some(uid),
                disk: false,
            },
            Request::Canary {
                slots: vec![slot],
                avoid: vec![],
            },
            Request::Entrance {
                slot: 1,
                account: account.clone(),
            },
        ]
    }

    #[test]
    fn accounts_that_are_no_jobs_are_refused_wherever_they_are_named() {
        let own = account("_ephemerd1", 451);
        for request in naming(&own) {
            assert_eq!(bounds().check(&request), Ok(()), "{request:?}");
        }
        let strangers = [
            account("root", 0),
            // The number is another's than the name says.
            account("_ephemerd1", 0),
            // Nobody of this host's; the family's name is no more than a name.
            account("_ephemerd7", 4_000_000),
            account("_ephemerd1x", 4_000_001),
            account("nobody", 65_534),
            // The dispatcher's own.
            account("_ephemerd", 450),
        ];
        for stranger in strangers {
            for request in naming(&stranger) {
                assert!(bounds().check(&request).is_err(), "{request:?}");
            }
        }
    }

    #[test]
    fn as_the_account_of_guests_tools_nothing_is_done_but_trying_the_packet_filter() {
        let patron = account("builder", 501);
        for request in naming(&patron) {
            let is_canary = matches!(request, Request::Canary { .. });
            assert_eq!(bounds().check(&request).is_ok(), is_canary, "{request:?}");
        }
    }

    #[test]
    fn of_the_hosts_devices_a_job_is_shown_a_few_and_no_rule_leads_back_up() {
        let rule = |path: &str, access, source: Option<&str>| PathRule {
            path: path.into(),
            access,
            source: source.map(Into::into),
            target: None,
            size_mib: None,
            optional: false,
            why: String::new(),
        };
        assert_eq!(shown(&rule("/dev/null", Access::Device, None)), Ok(()));
        assert_eq!(
            shown(&rule("/etc/hosts", Access::Read, Some("/etc/hosts"))),
            Ok(())
        );
        for (path, access, source) in [
            ("/dev/mem", Access::Device, None),
            ("/dev/null", Access::Device, Some("/dev/sda")),
            ("/a/../b", Access::Link, None),
            ("/work", Access::Write, Some("/srv/../etc")),
            ("etc", Access::Read, None),
        ] {
            assert!(shown(&rule(path, access, source)).is_err(), "{path} {source:?}");
        }
    }

    #[test]
    fn a_homebrew_that_is_not_the_hosts_is_not_copied_for_a_job() {
        let request = Request::Prepare {
            job: job(),
            account: None,
            homebrew: Some(Order {
                host: "/root".into(),
                layout: Layout::Links,
                slot: 1,
            }),
            runner: None,
        };
        let refused = bounds().check(&request).unwrap_err();
        assert!(
            refused.contains("`/root` is not the Homebrew prefix"),
            "{refused}"
        );
    }
}
