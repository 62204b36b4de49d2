//! Whether an account or group that exists can be used for jobs: nobody may log in to it, nothing else may
//! run as it, and it may not be able to do more than an account of a job's should.

use std::fmt;

use super::observed::{Home, Observed, Partial, User};

/// One way in which an existing account or group is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The account or group.
    pub name: String,
    /// What is different.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.name, self.what)
    }
}

/// Shells that end at once.
pub(crate) const NO_LOGIN: [&str; 6] = [
    "/usr/sbin/nologin",
    "/sbin/nologin",
    "/usr/bin/nologin",
    "/bin/false",
    "/usr/bin/false",
    "/sbin/false",
];

/// Returns every difference of an existing group; `None` when there is no such group.
pub(super) fn group_differences(name: &str, observed: &Observed) -> Option<Vec<Difference>> {
    let gid = observed.group(name)?.gid;
    let mut found = Vec::new();
    if gid == 0 {
        found.push("is group 0".to_owned());
    }
    let others = observed
        .groups
        .iter()
        .filter(|other| other.gid == gid && other.name != name);
    found.extend(others.map(|other| format!("shares gid {gid} with group `{}`: gid clash", other.name)));
    Some(differences(name, found))
}

/// Returns every difference of an existing account whose only group must be `group`; `None` when there is no
/// such account, or one that only lacks something.
pub(super) fn user_differences(name: &str, group: &str, observed: &Observed) -> Option<Vec<Difference>> {
    let Some(user) = observed.user(name) else {
        let partial = observed.partial.get(name)?;
        return Some(differences(name, partial_differences(partial, group, observed)))
            .filter(|found| !found.is_empty());
    };
    let mut found = identity(user, observed);
    found.extend(user.remarks.iter().cloned());
    if !NO_LOGIN.contains(&user.shell.as_str()) {
        let shell = if user.shell.is_empty() {
            "/bin/sh"
        } else {
            &user.shell
        };
        found.push(format!("has login shell {shell}, not /usr/sbin/nologin"));
    }
    if observed.group(group).map(|group| group.gid) != Some(user.gid) {
        found.push(format!("has primary group {}, not `{group}`", user.gid));
    }
    let further = observed.groups.iter().filter(|other| {
        other.name != group && other.gid != user.gid && other.members.iter().any(|member| member == name)
    });
    found.extend(further.map(|other| format!("is also a member of group `{}`", other.name)));
    found.extend(password(user, observed));
    if let Some(home) = observed
        .homes
        .get(&user.home)
        .filter(|home| can_write(user, home))
    {
        found.push(format!(
            "can write to its home {} (mode {:04o})",
            user.home, home.mode
        ));
    }
    Some(differences(name, found))
}

/// What of an incomplete account contradicts what it is to become; what it lacks can be added.
fn partial_differences(partial: &Partial, group: &str, observed: &Observed) -> Vec<String> {
    let Partial {
        uid,
        gid,
        home: _,
        shell,
        remarks,
    } = partial;
    let mut found = remarks.clone();
    if *uid == Some(0) {
        found.push("is root (uid 0)".to_owned());
    }
    let others = observed.users.iter().filter(|other| Some(other.uid) == *uid);
    found.extend(others.map(|other| format!("shares uid {} with `{}`: uid clash", other.uid, other.name)));
    if let (Some(gid), Some(group)) = (gid, observed.group(group))
        && *gid != group.gid
    {
        found.push(format!("has primary group {gid}, not `{}`", group.name));
    }
    if let Some(shell) = shell.as_deref().filter(|shell| !NO_LOGIN.contains(shell)) {
        found.push(format!("has login shell {shell}, not /usr/sbin/nologin"));
    }
    found
}

fn differences(name: &str, found: Vec<String>) -> Vec<Difference> {
    let difference = |what| Difference {
        name: name.to_owned(),
        what,
    };
    found.into_iter().map(difference).collect()
}

/// What is wrong with its uid.
pub(crate) fn identity(user: &User, observed: &Observed) -> Vec<String> {
    let mut found = Vec::new();
    if user.uid == 0 {
        found.push("is root (uid 0)".to_owned());
    }
    let lines = observed
        .users
        .iter()
        .filter(|other| other.name == user.name)
        .count();
    if lines > 1 {
        found.push(format!("has {lines} lines in passwd"));
    }
    let others = observed
        .users
        .iter()
        .filter(|other| other.uid == user.uid && other.name != user.name);
    found.extend(others.map(|other| format!("shares uid {} with `{}`: uid clash", user.uid, other.name)));
    found
}

/// Why somebody might log in to it with a password. A field that starts with `!` or `*` is no password's
/// hash (shadow(5)), and an empty one asks for none.
pub(crate) fn password(user: &User, observed: &Observed) -> Option<String> {
    let field = match (user.password.as_str(), &observed.passwords) {
        ("x", None) => return Some("may have a password: the shadow file cannot be read".to_owned()),
        ("x", Some(passwords)) => match passwords.get(&user.name) {
            None => return Some("has no line in shadow, which should lock its password".to_owned()),
            Some(field) => field.as_str(),
        },
        (field, _) => field,
    };
    match field.as_bytes().first() {
        Some(b'!' | b'*') => None,
        Some(_) => Some("has a password".to_owned()),
        None => Some("can log in without a password".to_owned()),
    }
}

/// Whether permission bits let the account write; its further groups are a difference of their own.
fn can_write(user: &User, home: &Home) -> bool {
    let bit = if home.uid == user.uid {
        0o200
    } else if home.gid == user.gid {
        0o020
    } else {
        0o002
    };
    // The owner can give itself what is missing.
    home.uid == user.uid || home.mode & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FITS: &str = "_e1:x:901:900::/nonexistent:/usr/sbin/nologin";
    const GROUP: &str = "_e:x:900:_e1";
    const SHADOW: &str = "_e1:!:1::::::";

    fn user(passwd: &str, group: &str, shadow: Option<&str>) -> Vec<String> {
        let observed = Observed::parse(passwd, group, shadow).unwrap();
        let found = user_differences("_e1", "_e", &observed).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn tells_missing_from_fitting() {
        let nothing = Observed::default();
        assert_eq!(user_differences("_e1", "_e", &nothing), None);
        assert_eq!(group_differences("_e", &nothing), None);
        assert_eq!(user(FITS, GROUP, Some(SHADOW)), [""; 0]);
    }

    #[test]
    fn names_each_difference_of_an_account() {
        let replaced = |from: &str, to: &str| FITS.replace(from, to);
        let table = [
            (
                replaced("/usr/sbin/nologin", "/bin/bash"),
                "`_e1` has login shell /bin/bash, not /usr/sbin/nologin",
            ),
            (
                replaced("/usr/sbin/nologin", ""),
                "`_e1` has login shell /bin/sh, not /usr/sbin/nologin",
            ),
            (
                replaced(":900:", ":901:"),
                "`_e1` has primary group 901, not `_e`",
            ),
            (replaced(":901:", ":0:"), "`_e1` is root (uid 0)"),
            (replaced(":x:", ":hash:"), "`_e1` has a password"),
            (replaced(":x:", "::"), "`_e1` can log in without a password"),
            (
                format!("{FITS}\nalice:x:901:1::/:/bin/sh"),
                "`_e1` shares uid 901 with `alice`: uid clash",
            ),
            (format!("{FITS}\n{FITS}"), "`_e1` has 2 lines in passwd"),
        ];
        for (passwd, expected) in table {
            assert_eq!(user(&passwd, GROUP, Some(SHADOW)), [expected]);
        }
    }

    #[test]
    fn takes_every_way_to_lock_a_password_and_no_other() {
        for field in ["!", "*", "!!", "!*", "!$y$hash", "*LK*"] {
            let shadow = format!("_e1:{field}:1::::::");
            assert_eq!(user(FITS, GROUP, Some(&shadow)), [""; 0], "{field}");
        }
        for (shadow, expected) in [
            (Some("_e1:$y$hash:1::::::"), "`_e1` has a password"),
            (Some("_e1::1::::::"), "`_e1` can log in without a password"),
            (
                Some("root:*:1::::::"),
                "`_e1` has no line in shadow, which should lock its password",
            ),
            (None, "`_e1` may have a password: the shadow file cannot be read"),
        ] {
            assert_eq!(user(FITS, GROUP, shadow), [expected]);
        }
    }

    #[test]
    fn refuses_membership_in_further_groups() {
        let group = format!("{GROUP}\ndocker:x:990:alice,_e1\nsudo:x:27:_e11\n");
        assert_eq!(
            user(FITS, &group, Some(SHADOW)),
            ["`_e1` is also a member of group `docker`"]
        );
    }

    #[test]
    fn refuses_a_home_the_account_can_write_to() {
        let home = |uid, gid, mode| {
            let mut observed = Observed::parse(FITS, GROUP, Some(SHADOW)).unwrap();
            observed
                .homes
                .insert("/nonexistent".into(), Home { uid, gid, mode });
            user_differences("_e1", "_e", &observed).unwrap().len()
        };
        assert_eq!(home(0, 0, 0o755), 0);
        assert_eq!(home(0, 900, 0o2755), 0);
        assert_eq!(home(901, 0, 0o500), 1);
        assert_eq!(home(0, 900, 0o775), 1);
        assert_eq!(home(0, 0, 0o1777), 1);
    }

    #[test]
    fn names_each_difference_of_a_group() {
        let texts = |group: &str| -> Vec<String> {
            let observed = Observed::parse("", group, None).unwrap();
            let found = group_differences("_e", &observed).unwrap();
            found.iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts("root:x:0:\n_e:x:900:\n"), [""; 0]);
        assert_eq!(texts("_e:x:0:"), ["`_e` is group 0"]);
        assert_eq!(
            texts("_e:x:900:\nwww:x:900:"),
            ["`_e` shares gid 900 with group `www`: gid clash"]
        );
    }

    #[test]
    fn reports_all_differences_at_once() {
        let passwd = "_e1:x:0:0::/:/bin/sh";
        assert_eq!(user(passwd, GROUP, Some("_e1:hash:")).len(), 4);
    }
}
