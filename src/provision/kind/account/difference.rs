//! In what an account differs from what is wanted of it, and what would help.

use camino::{Utf8Path, Utf8PathBuf};

use super::Account;
use super::seen::{Home, Record};
use crate::host::Os;
use crate::host::accounts::fit::{NO_LOGIN, identity, password};
use crate::host::accounts::mac::SHELL;
use crate::host::accounts::{Observed, User};
use crate::provision::context::Context;
use crate::provision::question::Tool;
use crate::provision::step::{Action, Place, Step};

/// Groups of Linux whose members can become root, by default or by what they may do.
const ROOTLIKE: [&str; 7] = ["root", "wheel", "sudo", "admin", "docker", "lxd", "disk"];

/// One difference.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) found: String,
    pub(super) wanted: String,
    pub(super) remedy: Remedy,
}

/// What would help.
#[derive(Debug)]
pub(super) enum Remedy {
    Steps(Vec<Step>),
    /// Setting the accounts of jobs up again.
    Complete,
    ByHand(String),
}

fn difference(found: impl Into<String>, wanted: impl Into<String>, remedy: Remedy) -> Difference {
    Difference {
        found: found.into(),
        wanted: wanted.into(),
        remedy,
    }
}

/// Everything in which `record` differs from `wanted`; an error is why that cannot be told.
pub(super) fn differences(
    wanted: &Account,
    groups: Option<&[&str]>,
    context: &Context,
    record: &Record,
) -> Result<Vec<Difference>, String> {
    let Account {
        admin,
        password,
        login,
        hidden,
        home_mode,
        groups: _,
    } = wanted;
    let comparing = Comparing { context, record };
    let Some(user) = record.observed.user(&record.name) else {
        return Ok(comparing.partial());
    };
    let mut found = comparing.identity(user);
    if let Some(wanted) = admin {
        found.extend(comparing.admin(user, *wanted));
    }
    if let Some(wanted) = password {
        found.extend(comparing.password(user, *wanted)?);
    }
    if let Some(wanted) = login {
        found.extend(comparing.login(user, *wanted));
    }
    if let Some(wanted) = hidden {
        found.extend(comparing.hidden(*wanted));
    }
    if let Some(mode) = home_mode.as_deref().and_then(crate::provision::kind::files::mode) {
        found.extend(comparing.home(user, mode)?);
    }
    if let Some(groups) = groups {
        // Leaving a group twice would fail.
        let further = comparing.groups(user, groups).into_iter();
        let new: Vec<_> = further
            .filter(|it| !found.iter().any(|other| other.found == it.found))
            .collect();
        found.extend(new);
    }
    Ok(found)
}

struct Comparing<'a> {
    context: &'a Context,
    record: &'a Record,
}

/// The groups an account is in, its primary one first.
fn memberships(user: &User, observed: &Observed) -> Vec<String> {
    let of = |primary: bool| {
        let in_it = move |group: &&crate::host::accounts::Group| {
            (group.gid == user.gid) == primary && (primary || group.members.contains(&user.name))
        };
        observed
            .groups
            .iter()
            .filter(in_it)
            .map(|group| group.name.clone())
    };
    of(true).chain(of(false)).collect()
}

impl Comparing<'_> {
    fn is_of_jobs(&self) -> bool {
        self.context.accounts.contains(&self.record.name)
    }

    /// A record that lacks something, as an interrupted set-up leaves it.
    fn partial(&self) -> Vec<Difference> {
        let remedy = if self.is_of_jobs() {
            Remedy::Complete
        } else {
            Remedy::ByHand(format!("complete the record /Users/{}", self.record.name))
        };
        vec![difference("is there in part", "whole records", remedy)]
    }

    /// Ids that are shared, or that the system reads differently.
    fn identity(&self, user: &User) -> Vec<Difference> {
        let observed = &self.record.observed;
        let by_hand = || Remedy::ByHand("give every account ids of its own".to_owned());
        let told = |found: String| difference(found, "ids of its own", by_hand());
        let ids = if user.name == "root" {
            vec![]
        } else {
            identity(user, observed)
        };
        let mut found: Vec<Difference> = ids.into_iter().map(told).collect();
        found.extend(self.record.mismatch.clone().map(told));
        if !observed.groups.iter().any(|group| group.gid == user.gid) {
            found.push(told(format!("has primary group {}, which has no name", user.gid)));
        }
        found
    }

    fn admin(&self, user: &User, wanted: bool) -> Vec<Difference> {
        let groups: Vec<String> = match self.context.os() {
            Os::MacOs => self.record.powerful.clone(),
            Os::Linux => memberships(user, &self.record.observed)
                .into_iter()
                .filter(|group| ROOTLIKE.contains(&group.as_str()))
                .collect(),
        };
        match (wanted, groups.is_empty() && user.uid != 0) {
            (true, true) => vec![difference(
                "is no administrator",
                "an administrator",
                Remedy::ByHand(format!("make `{}` an administrator", user.name)),
            )],
            (false, false) if groups.is_empty() => vec![difference(
                "is root",
                "no administrator",
                Remedy::ByHand("use another account".to_owned()),
            )],
            (false, false) => groups
                .iter()
                .map(|group| self.leave(user, group, "no administrator"))
                .collect(),
            (true, false) | (false, true) => vec![],
        }
    }

    fn groups(&self, user: &User, wanted: &[&str]) -> Vec<Difference> {
        let found = memberships(user, &self.record.observed);
        let shown = format!("{} and no other group", wanted.join(", "));
        let further = found.iter().filter(|group| !wanted.contains(&group.as_str()));
        let lacking = wanted
            .iter()
            .filter(|group| !found.iter().any(|other| other == *group));
        further
            .map(|group| self.leave(user, group, &shown))
            .chain(lacking.map(|group| self.join(user, group, &shown)))
            .collect()
    }

    fn leave(&self, user: &User, group: &str, wanted: &str) -> Difference {
        let primary = self.record.observed.group(group).map(|group| group.gid) == Some(user.gid);
        let remedy = if primary {
            Remedy::ByHand(format!(
                "give `{}` another primary group than `{group}`",
                user.name
            ))
        } else {
            let (join, leave) = self.membership(&user.name, group);
            Remedy::Steps(vec![Step::undone_by(leave, join)])
        };
        difference(format!("is in group `{group}`"), wanted, remedy)
    }

    fn join(&self, user: &User, group: &str, wanted: &str) -> Difference {
        let (join, leave) = self.membership(&user.name, group);
        difference(
            format!("is not in group `{group}`"),
            wanted,
            Remedy::Steps(vec![Step::undone_by(join, leave)]),
        )
    }

    /// What makes an account a member of a group, and what takes that back.
    fn membership(&self, name: &str, group: &str) -> (Tool, Tool) {
        let host = &self.context.host;
        let both = |program: &Utf8Path, join: &[&str], leave: &[&str]| {
            (Tool::at(program, join), Tool::at(program, leave))
        };
        match self.context.os() {
            Os::Linux => {
                // gpasswd(1) lies with the programs for everybody.
                let at = |tool: Tool| Tool {
                    path: vec!["/usr/bin".into(), "/bin".into()],
                    ..tool
                };
                let (join, leave) = both("gpasswd".into(), &["-a", name, group], &["-d", name, group]);
                (at(join), at(leave))
            }
            Os::MacOs => both(
                &host.mac.dseditgroup,
                &["-o", "edit", "-a", name, "-t", "user", group],
                &["-o", "edit", "-d", name, "-t", "user", group],
            ),
        }
    }

    /// A tool of shadow-utils that lies beside useradd(8).
    fn usermod(&self, args: &[&str]) -> Tool {
        Tool::at(&self.context.host.tools.useradd.with_file_name("usermod"), args)
    }

    fn dscl(&self, args: &[&str]) -> Tool {
        Tool::at(&self.context.host.mac.dscl, args)
    }

    fn password(&self, user: &User, wanted: bool) -> Result<Option<Difference>, String> {
        let observed = &self.record.observed;
        if user.password == "x" && observed.passwords.is_none() && self.context.os() == Os::Linux {
            return Err(format!("{} cannot be read; root can", self.context.host.shadow));
        }
        let has = match self.context.os() {
            Os::Linux => password(user, observed),
            Os::MacOs if self.record.credentials.is_empty() => None,
            Os::MacOs => Some(format!("has a password ({})", self.record.credentials.join(", "))),
        };
        Ok(match (wanted, has) {
            (true, None) => Some(difference(
                "has no password",
                "a password",
                Remedy::ByHand(format!("give `{}` a password with passwd", user.name)),
            )),
            (false, Some(found)) => Some(difference(found, "no password", self.lock(user))),
            (true, Some(_)) | (false, None) => None,
        })
    }

    /// What takes a password away. On Linux it is locked and can be unlocked; on macOS it is gone, so that only accounts
    /// of jobs lose theirs.
    fn lock(&self, user: &User) -> Remedy {
        let name = &user.name;
        match self.context.os() {
            Os::Linux => {
                let lock = self.usermod(&["--lock", name]);
                let passwords = self.record.observed.passwords.as_ref();
                let hash = passwords
                    .and_then(|all| all.get(name))
                    .is_some_and(|field| !field.is_empty());
                // usermod(8) unlocks no account that would have no password then.
                Remedy::Steps(vec![if hash {
                    Step::undone_by(lock, self.usermod(&["--unlock", name]))
                } else {
                    Step::run(lock)
                }])
            }
            Os::MacOs if self.is_of_jobs() => {
                let path = format!("/Users/{name}");
                let step = |attribute: &String| {
                    // With its prefix, `dsAttrTypeNative:`, nothing would be deleted.
                    Step::run(match attribute.as_str() {
                        "Password" => self.dscl(&[".", "-create", &path, "Password", "*"]),
                        other => self.dscl(&[".", "-delete", &path, other]),
                    })
                };
                Remedy::Steps(self.record.credentials.iter().map(step).collect())
            }
            Os::MacOs => Remedy::ByHand(format!("take the password of `{name}` away")),
        }
    }

    fn login(&self, user: &User, wanted: bool) -> Option<Difference> {
        let shell = if user.shell.is_empty() {
            "/bin/sh"
        } else {
            &user.shell
        };
        match (wanted, NO_LOGIN.contains(&user.shell.as_str())) {
            (true, true) => Some(difference(
                format!("has shell {shell}"),
                "a shell that lets it log in",
                Remedy::ByHand(format!("give `{}` a shell", user.name)),
            )),
            (false, false) => Some(difference(
                format!("has login shell {shell}"),
                "none",
                Remedy::Steps(vec![self.shell(&user.name, shell)]),
            )),
            (true, false) | (false, true) => None,
        }
    }

    fn shell(&self, name: &str, former: &str) -> Step {
        let to = |shell: &str| match self.context.os() {
            Os::Linux => self.usermod(&["--shell", shell, name]),
            Os::MacOs => self.dscl(&[".", "-create", &format!("/Users/{name}"), "UserShell", shell]),
        };
        let none = match self.context.os() {
            Os::Linux => NO_LOGIN[0],
            Os::MacOs => SHELL,
        };
        Step::undone_by(to(none), to(former))
    }

    fn hidden(&self, wanted: bool) -> Option<Difference> {
        let said = self.record.hidden.as_deref()?;
        let is_hidden = said == "1";
        let path = format!("/Users/{}", self.record.name);
        let set = |value: &str| match value {
            "" => self.dscl(&[".", "-delete", &path, "IsHidden"]),
            value => self.dscl(&[".", "-create", &path, "IsHidden", value]),
        };
        (is_hidden != wanted).then(|| {
            let (found, shown, value) = if wanted {
                ("shows in the login window", "hidden", "1")
            } else {
                ("is hidden", "in the login window", "0")
            };
            difference(
                found,
                shown,
                Remedy::Steps(vec![Step::undone_by(set(value), set(said))]),
            )
        })
    }

    fn home(&self, user: &User, mode: u32) -> Result<Option<Difference>, String> {
        let home: &Utf8PathBuf = &user.home;
        let entry = match self.record.home(home)? {
            Home::Nothing => return Ok(None),
            Home::There(entry) => entry,
        };
        Ok((entry.mode != mode).then(|| {
            let place = Place {
                path: home.clone(),
                owner: None,
                group: None,
                mode: Some(mode),
            };
            difference(
                format!("has home {home} with mode {:03o}", entry.mode),
                format!("mode {mode:03o}"),
                Remedy::Steps(vec![Step {
                    action: Action::Folder(place),
                    undo: None,
                }]),
            )
        }))
    }
}
