//! Accounts of macOS, which its directory services keep: what dscl(1) prints, as values, and the commands that
//! make a hidden account nobody can log in to.
//!
//! An account there is a record of attributes, each set by a call of its own, so a set-up that is interrupted
//! leaves one with some of them; dscl(1) shows it while the rest of the system knows no such account. Every
//! attribute is looked at by itself, therefore, and id(1) is asked for name and uid both ways.
//!
//! None of this was run on a Mac: whether a launchd daemon may write these records without further permission
//! (TCC, `SysAdminFiles`) is not known.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use plist::Value;

use super::AccountsError;
use super::observed::{Group, Observed, Partial, User};
use super::step::Ids;
use crate::host::command::{CommandError, CommandSpec, Output, run};
use crate::host::{Host, MacTools};

/// Ids that macOS 26 takes for role accounts, sysadminctl(8) above all; it has overwritten accounts of others
/// below 450 (NixOS/nix#10892).
pub(super) const ROLE_IDS: std::ops::RangeInclusive<u32> = 450..=499;

/// How often a tool that is refused for no lasting reason is asked, as nix-installer does
/// (`src/action/base/create_user.rs`).
const TRIES: u32 = 10;

/// A home that exists, is empty and belongs to root.
const HOME: &str = "/var/empty";

/// A shell that ends at once.
pub(crate) const SHELL: &str = "/usr/bin/false";

/// dscl(1) says so when there is no such record: 14136 & 0xff, `eDSRecordNotFound`.
pub(crate) const NO_RECORD: i32 = 56;

/// dscl(1) says so for 14988 & 0xff, `eNotYetImplemented`, which passes.
const NOT_YET: i32 = 140;

/// dseditgroup(8) says so when somebody is no member.
pub(crate) const NO_MEMBER: i32 = 67;

/// Groups whose members can do more than a job should.
pub(crate) const POWERFUL: [&str; 2] = ["admin", "wheel"];

/// How long one tool may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Attributes that a password leaves in a record. Their presence is what counts: `Password` shows `********` then.
const CREDENTIALS: [&str; 2] = ["ShadowHashData", "AuthenticationAuthority"];

/// The directory services of a host, which pass over what passes.
pub(super) struct Directory<'a> {
    tools: &'a MacTools,
    pause: Duration,
}

impl<'a> Directory<'a> {
    /// The directory services of `host`.
    pub(super) fn of(host: &'a Host) -> Self {
        Self {
            tools: &host.mac,
            pause: host.retry_pause,
        }
    }

    /// Runs a tool, again and again while it is refused for a reason that passes: directory services that are
    /// not ready (`-14988`), or a kill by the system (`SIGKILL`).
    ///
    /// # Errors
    /// It cannot be started or does not end.
    pub(super) fn ask(&self, spec: &CommandSpec) -> Result<Output, CommandError> {
        for _ in 1..TRIES {
            let output = run(spec)?;
            if !is_passing(&output) {
                return Ok(output);
            }
            std::thread::sleep(self.pause);
        }
        run(spec)
    }

    /// What there is, with the whole record of each of `accounts`.
    pub(super) fn observe(&self, accounts: &BTreeSet<String>) -> Result<Observed, AccountsError> {
        let mut observed = Observed {
            users: pairs(&self.list("/Users", "UniqueID")?)?
                .into_iter()
                .filter(|(name, _)| !accounts.contains(name))
                .map(|(name, uid)| User::stranger(name, uid))
                .collect(),
            groups: groups(
                &self.list("/Groups", "PrimaryGroupID")?,
                &self.list("/Groups", "GroupMembership")?,
            )?,
            ..Observed::default()
        };
        for name in accounts {
            match self.record(name)? {
                None => {}
                Some(Record::Whole(mut user)) => {
                    user.remarks.extend(self.remarks(&user)?);
                    observed.users.push(user);
                }
                Some(Record::Partial(partial)) => {
                    observed.partial.insert(name.clone(), partial);
                }
            }
        }
        Ok(observed)
    }

    fn list(&self, kind: &str, attribute: &str) -> Result<String, AccountsError> {
        let spec = command(&self.tools.dscl, &[".", "-list", kind, attribute]);
        let output = self.ask(&spec).and_then(|output| output.require_success(&spec));
        Ok(output.map_err(AccountsError::Directory)?.stdout)
    }

    fn record(&self, name: &str) -> Result<Option<Record>, AccountsError> {
        let path = format!("/Users/{name}");
        let spec = command(&self.tools.dscl, &["-plist", ".", "-read", &path]);
        let output = self.ask(&spec).map_err(AccountsError::Directory)?;
        if output.status.code() == Some(NO_RECORD) {
            return Ok(None);
        }
        let output = output.require_success(&spec).map_err(AccountsError::Directory)?;
        Record::parse(name, &output.stdout).map(Some)
    }

    /// What only the tools tell of an account: whether the rest of the system knows it, and by the same ids, and
    /// whether it is a member of a powerful group, if by way of another.
    fn remarks(&self, user: &User) -> Result<Vec<String>, AccountsError> {
        let mut found = Vec::new();
        let uid = user.uid.to_string();
        for (args, expected) in [(["-u", &user.name], &uid), (["-un", &uid], &user.name)] {
            let output = self
                .ask(&command(&self.tools.id, &args))
                .map_err(AccountsError::Directory)?;
            let said = output.stdout.trim();
            if !output.status.success() || said != expected {
                found.push(format!(
                    "is not what the system knows: id {} says `{said}`, not `{expected}`",
                    args.join(" ")
                ));
            }
        }
        for group in POWERFUL {
            let spec = command(
                &self.tools.dseditgroup,
                &["-o", "checkmember", "-m", &user.name, group],
            );
            let output = self.ask(&spec).map_err(AccountsError::Directory)?;
            match output.status.code() {
                Some(NO_MEMBER) => {}
                Some(0) => found.push(format!("is a member of group `{group}`")),
                _ => found.push(format!(
                    "may be a member of group `{group}`: dseditgroup ended with {}",
                    output.status
                )),
            }
        }
        Ok(found)
    }
}

/// Whether a tool was refused for a reason that passes.
fn is_passing(output: &Output) -> bool {
    let not_yet = output.status.code() == Some(NOT_YET) && output.stderr.contains("-14988");
    not_yet || output.status.signal() == Some(libc::SIGKILL)
}

/// What there is of an account.
#[derive(Debug, PartialEq, Eq)]
enum Record {
    Whole(User),
    Partial(Partial),
}

impl Record {
    /// Reads what `dscl -plist . -read /Users/NAME` prints: a dictionary from attribute to a list of values.
    fn parse(name: &str, text: &str) -> Result<Self, AccountsError> {
        let malformed = || AccountsError::Record {
            name: name.to_owned(),
        };
        let attributes = attributes(text).ok_or_else(malformed)?;
        let text = |attribute: &str| attributes.get(attribute).and_then(Option::as_deref);
        let number = |attribute| {
            text(attribute)
                .map(|text| id(text).ok_or_else(malformed))
                .transpose()
        };
        let (uid, gid) = (number("UniqueID")?, number("PrimaryGroupID")?);
        let (home, shell, password) = (text("NFSHomeDirectory"), text("UserShell"), text("Password"));
        let minted = CREDENTIALS
            .into_iter()
            .filter(|attribute| attributes.contains_key(*attribute));
        // Stars stand for a hash that is kept elsewhere; one star is no password at all.
        let starred = password
            .filter(|stars| stars.len() > 1 && stars.bytes().all(|b| b == b'*'))
            .map(|_| "Password");
        let remarks: Vec<String> = minted
            .chain(starred)
            .map(|attribute| format!("has a password ({attribute})"))
            .collect();
        if let (Some(uid), Some(gid), Some(home), Some(shell), Some(password)) =
            (uid, gid, home, shell, password)
        {
            return Ok(Self::Whole(User {
                name: name.to_owned(),
                password: password.to_owned(),
                uid,
                gid,
                home: home.into(),
                shell: shell.to_owned(),
                remarks,
            }));
        }
        Ok(Self::Partial(Partial {
            uid,
            gid,
            home: home.map(Utf8PathBuf::from),
            shell: shell.map(str::to_owned),
            remarks,
        }))
    }
}

/// The attributes of a record that `dscl -plist . -read` prints, by their names, each with its first value where that is
/// text; `None` when it is no record.
pub(crate) fn attributes(text: &str) -> Option<BTreeMap<String, Option<String>>> {
    let parsed: Value = plist::from_bytes(text.as_bytes()).ok()?;
    let of = |(key, value): (&String, &Value)| {
        let first = value.as_array().and_then(|values| values.first());
        // `dsAttrTypeStandard:UniqueID`, `dsAttrTypeNative:accountPolicyData`
        let name = key.rsplit(':').next().unwrap_or(key);
        (
            name.to_owned(),
            first.and_then(Value::as_string).map(str::to_owned),
        )
    };
    Some(parsed.as_dictionary()?.iter().map(of).collect())
}

/// What dscl(1) printed of one account and of all ids and groups, as what was observed.
///
/// # Errors
/// One of the texts makes no sense.
pub(crate) fn observed(
    name: &str,
    record: &str,
    uids: &str,
    [gids, members]: [&str; 2],
) -> Result<Observed, AccountsError> {
    let mut observed = Observed {
        users: pairs(uids)?
            .into_iter()
            .filter(|(other, _)| other != name)
            .map(|(name, uid)| User::stranger(name, uid))
            .collect(),
        groups: groups(gids, members)?,
        ..Observed::default()
    };
    match Record::parse(name, record)? {
        Record::Whole(user) => observed.users.push(user),
        Record::Partial(partial) => {
            observed.partial.insert(name.to_owned(), partial);
        }
    }
    Ok(observed)
}

/// Reads an id as dscl(1) prints it: `nobody` is -2 there.
fn id(text: &str) -> Option<u32> {
    let signed: i64 = text.trim().parse().ok()?;
    u32::try_from(signed)
        .ok()
        .or_else(|| i32::try_from(signed).ok().map(i32::cast_unsigned))
}

/// Reads what `dscl . -list PATH ATTRIBUTE` prints for an attribute that is an id: a name, spaces and the id.
fn pairs(text: &str) -> Result<Vec<(String, u32)>, AccountsError> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            line.trim_end()
                .rsplit_once(char::is_whitespace)
                .and_then(|(name, number)| Some((name.trim_end().to_owned(), id(number)?)))
                .ok_or(AccountsError::List { line: index + 1 })
        })
        .collect()
}

/// Groups from the list of their ids and the list of their members.
fn groups(ids: &str, members: &str) -> Result<Vec<Group>, AccountsError> {
    let members: BTreeMap<&str, Vec<String>> = members
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.map(str::to_owned).collect()))
        })
        .collect();
    let group = |(name, gid): (String, u32)| Group {
        members: members.get(name.as_str()).cloned().unwrap_or_default(),
        name,
        gid,
    };
    Ok(pairs(ids)?.into_iter().map(group).collect())
}

/// The command that makes a group.
pub(super) fn create_group(tools: &MacTools, name: &str, gid: u32) -> CommandSpec {
    let gid = gid.to_string();
    command(
        &tools.dseditgroup,
        &["-o", "create", "-r", "ephemerd jobs", "-i", &gid, name],
    )
}

/// The command that deletes an account.
pub(super) fn delete_user(tools: &MacTools, name: &str) -> CommandSpec {
    command(&tools.dscl, &[".", "-delete", &format!("/Users/{name}")])
}

/// The commands that make an account, or complete one. Its uid comes last of what counts, so that nobody can run
/// as an account that is not closed yet; hiding it comes after that, because it may be refused
/// ([`may_be_refused`]).
pub(super) fn create_user(tools: &MacTools, name: &str, ids: Ids, comment: &str) -> Vec<CommandSpec> {
    let path = format!("/Users/{name}");
    let (uid, gid) = (ids.uid.to_string(), ids.gid.to_string());
    let attributes = [
        ("Password", "*"),
        ("UserShell", SHELL),
        ("NFSHomeDirectory", HOME),
        ("RealName", comment),
        ("PrimaryGroupID", &gid),
        ("UniqueID", &uid),
        ("IsHidden", "1"),
    ];
    std::iter::once(command(&tools.dscl, &[".", "-create", &path]))
        .chain(
            attributes
                .into_iter()
                .map(|(attribute, value)| command(&tools.dscl, &[".", "-create", &path, attribute, value])),
        )
        .collect()
}

/// Whether an account is as good without this step: accounts below 500 do not show in the login window anyway, and
/// the system kills dscl(1) where it may not hide one (nix-installer).
pub(super) fn may_be_refused(spec: &CommandSpec) -> bool {
    spec.args.iter().any(|arg| arg == "IsHidden")
}

/// The command after which every program sees what was changed.
pub(super) fn flush(tools: &MacTools) -> CommandSpec {
    command(&tools.dscacheutil, &["-flushcache"])
}

fn command(program: &Utf8Path, args: &[&str]) -> CommandSpec {
    CommandSpec::new(program, args, TIMEOUT)
}
