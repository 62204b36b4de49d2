//! What a system says of its accounts, as values.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};

use super::AccountsError;
use super::mac::Directory;
use crate::host::{Host, Os};

/// A line of passwd(5), or what a record of macOS has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// The password field: `x` refers to shadow(5).
    pub password: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home folder.
    pub home: Utf8PathBuf,
    /// Login shell; empty means `/bin/sh`.
    pub shell: String,
    /// What else is wrong with it, where only its record or the tools could tell (macOS).
    pub remarks: Vec<String>,
}

impl User {
    /// An account that is none of ours, of which only name and uid were looked up.
    pub(super) fn stranger(name: String, uid: u32) -> Self {
        Self {
            name,
            password: "*".to_owned(),
            uid,
            gid: u32::MAX,
            home: Utf8PathBuf::new(),
            shell: String::new(),
            remarks: Vec::new(),
        }
    }
}

/// An account whose record lacks something, as an interrupted set-up leaves it (macOS).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partial {
    /// User id.
    pub uid: Option<u32>,
    /// Primary group id.
    pub gid: Option<u32>,
    /// Home folder.
    pub home: Option<Utf8PathBuf>,
    /// Login shell.
    pub shell: Option<String>,
    /// What is wrong with it besides.
    pub remarks: Vec<String>,
}

/// A line of group(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Group name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Accounts that are members without it being their primary group.
    pub members: Vec<String>,
}

/// Owner and permissions of a home folder that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// The accounts and groups of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// passwd(5), in its order.
    pub users: Vec<User>,
    /// Accounts that exist in part, by name.
    pub partial: BTreeMap<String, Partial>,
    /// group(5), in its order.
    pub groups: Vec<Group>,
    /// The password fields of shadow(5) by account; `None` when it could not be read.
    pub passwords: Option<BTreeMap<String, String>>,
    /// The home folders that exist, of the accounts that were asked about.
    pub homes: BTreeMap<Utf8PathBuf, Home>,
}

impl Observed {
    /// Parses the text of the three files; `shadow` is `None` when it could not be read.
    ///
    /// # Errors
    ///
    /// When a line of passwd or group has too few fields or no number where one must be. Comments, blank
    /// lines and the `+` and `-` of NIS are passed over, as the C library does.
    pub fn parse(passwd: &str, group: &str, shadow: Option<&str>) -> Result<Self, AccountsError> {
        let password = |line: &str| {
            let mut fields = line.split(':').map(str::to_owned);
            Some((fields.next()?, fields.next()?))
        };
        Ok(Self {
            users: entries("passwd", passwd, user)?,
            groups: entries("group", group, self::group)?,
            passwords: shadow.map(|text| text.lines().filter_map(password).collect()),
            ..Self::default()
        })
    }

    /// Asks `host` for its accounts, and looks at the home folders of `accounts`.
    ///
    /// # Errors
    ///
    /// When passwd or group cannot be read or parsed, or the directory services of macOS do not answer.
    pub fn read(host: &Host, accounts: &BTreeSet<String>) -> Result<Self, AccountsError> {
        let mut observed = match host.os {
            Os::Linux => Self::read_files(host)?,
            Os::MacOs => Directory::of(host).observe(accounts)?,
        };
        let users = observed.users.iter().filter(|user| accounts.contains(&user.name));
        observed.homes = users
            .filter_map(|user| {
                let status = fs::metadata(&user.home).ok()?;
                let home = Home {
                    uid: status.uid(),
                    gid: status.gid(),
                    mode: status.mode() & 0o7777,
                };
                Some((user.home.clone(), home))
            })
            .collect();
        Ok(observed)
    }

    fn read_files(host: &Host) -> Result<Self, AccountsError> {
        let passwd = read(&host.passwd)?;
        let group = read(&host.group)?;
        // Without root it usually cannot be read. Whether that matters depends on the accounts.
        let shadow = read(&host.shadow).ok();
        Self::parse(&passwd, &group, shadow.as_deref())
    }

    /// The first account of this name, which is the one that counts.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The first group of this name, which is the one that counts.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }
}

/// The text of a file. Names in other encodings than UTF-8 are none of ours and may be garbled.
fn read(path: &Utf8Path) -> Result<String, AccountsError> {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|source| AccountsError::Read {
            path: path.to_owned(),
            source,
        })
}

fn entries<T>(
    file: &'static str,
    text: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, AccountsError> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with(['#', '+', '-']))
        .map(|(index, line)| {
            parse(line).ok_or(AccountsError::Malformed {
                file,
                line: index + 1,
            })
        })
        .collect()
}

fn user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, password, uid, gid, _, home, shell] = fields[..] else {
        return None;
    };
    Some(User {
        name: name.to_owned(),
        password: password.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.into(),
        shell: shell.to_owned(),
        remarks: Vec::new(),
    })
}

fn group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields[..] else {
        return None;
    };
    let members = members.split(',').filter(|member| !member.is_empty());
    Some(Group {
        name: name.to_owned(),
        gid: gid.parse().ok()?,
        members: members.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_accounts_groups_and_passwords() {
        let observed = Observed::parse(
            "# local\n\n+nis::::::\nroot:x:0:0:a, b:/root:/bin/bash\n",
            "-nis:::\nroot:x:0:\nadm:x:4:syslog,alice\n",
            Some("root:$y$hash:19000:0:99999:7:::\nadm:*::::::\n"),
        )
        .unwrap();
        let root = observed.user("root").unwrap();
        assert_eq!(
            (root.uid, root.home.as_str(), root.shell.as_str()),
            (0, "/root", "/bin/bash")
        );
        assert_eq!(observed.group("adm").unwrap().members, ["syslog", "alice"]);
        assert!(observed.group("root").unwrap().members.is_empty());
        assert_eq!(observed.passwords.unwrap()["root"], "$y$hash");
    }

    #[test]
    fn names_the_line_that_makes_no_sense() {
        let good = "a:x:1:1::/:/bin/sh\n";
        for bad in ["b:x:1:1::/", "b:x:one:1::/:/bin/sh", "b:x:-1:1::/:/bin/sh", "b"] {
            let error = Observed::parse(&format!("{good}{bad}\n"), "", None).unwrap_err();
            assert!(
                error.to_string().starts_with("line 2 of the passwd file"),
                "{error}"
            );
        }
        let error = Observed::parse("", "a:x:1\n", None).unwrap_err();
        assert!(
            error.to_string().starts_with("line 1 of the group file"),
            "{error}"
        );
    }

    #[test]
    fn looks_at_the_homes_of_the_accounts_asked_about_only() {
        let folder = tempfile::tempdir().unwrap();
        let top = Utf8Path::from_path(folder.path()).unwrap();
        for (name, text) in [
            (
                "passwd",
                format!("a:x:1:1::{top}:/bin/sh\nb:x:2:2::/tmp:/bin/sh\nc:x:3:3::{top}/none:/bin/sh\n"),
            ),
            ("group", String::new()),
        ] {
            fs::write(top.join(name), text).unwrap();
        }
        let host = Host {
            passwd: top.join("passwd"),
            group: top.join("group"),
            shadow: top.join("shadow"),
            ..Host::system()
        };
        let observed = Observed::read(&host, &["a", "c"].map(str::to_owned).into()).unwrap();
        assert_eq!(observed.homes.keys().collect::<Vec<_>>(), [top]);
        assert_eq!(observed.passwords, None);
    }
}
