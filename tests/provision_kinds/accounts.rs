//! Accounts, by the files of Linux and the directory services of macOS.

use ephemerd::host::Os;
use ephemerd::provision::context::Context;
use ephemerd::provision::kind::Kind;
use ephemerd::provision::kind::account::Account;
use ephemerd::provision::question::{Answer, EntryKind};

use crate::told::{
    assert_every_answer_counts, complained, fix, fixture, host, printed, said, text, there, verdict,
};

type Told = Vec<(&'static str, Answer)>;

fn closed() -> Account {
    Account {
        admin: Some(false),
        password: Some(false),
        login: Some(false),
        hidden: Some(true),
        ..Account::default()
    }
}

fn jobs() -> Kind {
    Kind::Account("jobs".to_owned(), closed())
}

fn one(name: &str, account: Account) -> Kind {
    Kind::Account(name.to_owned(), account)
}

/// The files of a host whose accounts are as they must be, but for what is replaced in them.
fn linux(replace: &[(&str, &str)]) -> Told {
    let text_of = |name: &str| {
        let all = replace.iter();
        text(&all.fold(fixture(name), |text, (from, to)| text.replace(from, to)))
    };
    vec![
        ("read /etc/passwd", text_of("passwd")),
        ("read /etc/group", text_of("group")),
        ("read /etc/shadow", text_of("shadow")),
        ("look /home/alice", there(EntryKind::Folder, 0o755)),
        ("look", Answer::Missing),
    ]
}

/// The same on a Mac, but for what `other` says.
fn mac(other: Told) -> Told {
    let mut told = other;
    told.extend([
        ("dscl -plist . -read /Users/_eph1", printed("dscl-record", 0)),
        ("dscl -plist . -read", complained("dscl-no-record", 56)),
        ("dscl . -list /Users UniqueID", printed("dscl-uids", 0)),
        ("dscl . -list /Groups PrimaryGroupID", printed("dscl-gids", 0)),
        ("dscl . -list /Groups GroupMembership", printed("dscl-members", 0)),
        ("id -u _eph1", said("451", 0)),
        ("id -u", said("", 1)),
        ("dseditgroup -o checkmember", printed("dseditgroup-no", 67)),
        ("look /var/empty", there(EntryKind::Folder, 0o555)),
        ("look", Answer::Missing),
    ]);
    told
}

fn two_slots(os: Os) -> Context {
    let mut context = host(os);
    context.accounts = vec!["_eph1".to_owned(), "_eph2".to_owned()];
    context
}

#[test]
fn accounts_of_jobs_are_closed_on_linux() {
    let context = host(Os::Linux);
    let line = "_eph1:x:901:900:ephemerd slot 1:/nonexistent:/usr/sbin/nologin";
    let usermod = |args: &str| format!("/usr/sbin/usermod {args}");
    let cases: Vec<(Told, &str, Vec<String>)> = vec![
        (linux(&[]), "ok: _eph1", vec![]),
        (
            linux(&[(line, "other:x:5:5::/:")]),
            "missing: not there",
            vec!["+ ephemerd host setup".to_owned()],
        ),
        (
            linux(&[(
                "slot 1:/nonexistent:/usr/sbin/nologin",
                "slot 1:/nonexistent:/bin/bash",
            )]),
            "wrong: found `_eph1` has login shell /bin/bash, wanted none",
            vec![
                format!("+ {}", usermod("--shell /usr/sbin/nologin _eph1")),
                format!("- {}", usermod("--shell /bin/bash _eph1")),
            ],
        ),
        (
            linux(&[("_eph1:!:", "_eph1:$y$hash:")]),
            "wrong: found `_eph1` has a password, wanted no password",
            vec![
                format!("+ {}", usermod("--lock _eph1")),
                format!("- {}", usermod("--unlock _eph1")),
            ],
        ),
        (
            linux(&[("_eph1:!:", "_eph1::")]),
            "wrong: found `_eph1` can log in without a password, wanted no password",
            vec![format!("+ {}", usermod("--lock _eph1"))],
        ),
        (
            linux(&[("docker:x:990:", "docker:x:990:_eph1")]),
            "wrong: found `_eph1` is in group `docker`, wanted no administrator",
            vec![
                "+ gpasswd -d _eph1 docker".to_owned(),
                "- gpasswd -a _eph1 docker".to_owned(),
            ],
        ),
        (
            linux(&[("daemon:x:1:\n", "daemon:x:1:_eph1\n")]),
            "wrong: found `_eph1` is in group `daemon`, wanted _eph and no other group",
            vec![
                "+ gpasswd -d _eph1 daemon".to_owned(),
                "- gpasswd -a _eph1 daemon".to_owned(),
            ],
        ),
        (
            linux(&[("alice:x:1000:", "alice:x:901:")]),
            "wrong: found `_eph1` shares uid 901 with `alice`: uid clash, wanted ids of its own",
            vec!["? give every account ids of its own".to_owned()],
        ),
        (
            linux(&[("_eph1:x:901:900", "_eph1:x:901:77")]),
            "wrong: found `_eph1` has primary group 77, which has no name, `_eph1` is not in group `_eph`, wanted ids of its own, _eph and no other group",
            vec![
                "+ gpasswd -a _eph1 _eph".to_owned(),
                "- gpasswd -d _eph1 _eph".to_owned(),
            ],
        ),
    ];
    for (told, expected, steps) in cases {
        assert_eq!(verdict(&jobs(), &context, &told), expected);
        assert_eq!(fix(&jobs(), &context, &told), steps, "{expected}");
    }
}

#[test]
fn files_that_cannot_be_read_tell_nothing() {
    let context = host(Os::Linux);
    let mut told = linux(&[]);
    told.insert(0, ("read /etc/shadow", Answer::Denied));
    assert_eq!(
        verdict(&jobs(), &context, &told),
        "unknown: `_eph1`: /etc/shadow cannot be read; root can"
    );
    assert_eq!(
        fix(&jobs(), &context, &told),
        ["? /etc/shadow cannot be read; root can"]
    );
    told.insert(0, ("read /etc/passwd", text("")));
    assert_eq!(
        verdict(&jobs(), &context, &told),
        "unknown: `_eph1`: /etc/passwd names no account"
    );
    told.insert(0, ("read /etc/passwd", text("%PDF-1.7")));
    assert_eq!(
        verdict(&jobs(), &context, &told),
        "unknown: `_eph1`: line 1 of the passwd file makes no sense"
    );
    assert_every_answer_counts(&jobs(), &context, &linux(&[]), &["look"]);
}

#[test]
fn some_accounts_of_jobs_can_be_missing() {
    let context = two_slots(Os::Linux);
    assert_eq!(
        verdict(&jobs(), &context, &linux(&[])),
        "wrong: found no `_eph2`, wanted all of them"
    );
    // What is wrong is put right first: setting up refuses it.
    let told = linux(&[("_eph1:!:", "_eph1:$y$hash:")]);
    assert_eq!(
        fix(&jobs(), &context, &told),
        [
            "+ /usr/sbin/usermod --lock _eph1",
            "- /usr/sbin/usermod --unlock _eph1",
            "+ ephemerd host setup",
        ]
    );
    let mut none = host(Os::Linux);
    none.accounts.clear();
    assert_eq!(
        verdict(&jobs(), &none, &linux(&[])),
        "unknown: jobs have no accounts of their own here"
    );
}

#[test]
fn other_accounts_are_compared_by_what_is_said_of_them() {
    let context = host(Os::Linux);
    let told = linux(&[]);
    let alice = |account| one("alice", account);
    let cases = [
        (alice(Account::default()), "ok: alice", vec![]),
        (
            alice(Account {
                admin: Some(false),
                ..Account::default()
            }),
            "wrong: found `alice` is in group `sudo`, wanted no administrator",
            vec!["+ gpasswd -d alice sudo", "- gpasswd -a alice sudo"],
        ),
        (
            alice(Account {
                groups: Some(vec!["alice".to_owned(), "docker".to_owned()]),
                ..Account::default()
            }),
            "wrong: found `alice` is in group `sudo`, `alice` is not in group `docker`, wanted alice, docker and no other group",
            vec![
                "+ gpasswd -d alice sudo",
                "- gpasswd -a alice sudo",
                "+ gpasswd -a alice docker",
                "- gpasswd -d alice docker",
            ],
        ),
        (
            alice(Account {
                home_mode: Some("700".to_owned()),
                ..Account::default()
            }),
            "wrong: found `alice` has home /home/alice with mode 755, wanted mode 700",
            vec!["+ folder /home/alice, mode 700"],
        ),
        (
            one(
                "_eph1",
                Account {
                    home_mode: Some("700".to_owned()),
                    ..Account::default()
                },
            ),
            "ok: _eph1",
            vec![],
        ),
        (
            one(
                "daemon",
                Account {
                    home_mode: Some("700".to_owned()),
                    ..Account::default()
                },
            ),
            "unknown: `daemon`: its home `/usr/sbin` is not where homes are looked for",
            vec!["? its home `/usr/sbin` is not where homes are looked for"],
        ),
        (
            one("bob", Account::default()),
            "missing: not there",
            vec!["? /usr/sbin/useradd --system bob"],
        ),
        (
            one(
                "root",
                Account {
                    admin: Some(false),
                    ..Account::default()
                },
            ),
            "wrong: found `root` is in group `root`, wanted no administrator",
            vec!["? give `root` another primary group than `root`"],
        ),
    ];
    for (kind, expected, steps) in cases {
        assert_eq!(verdict(&kind, &context, &told), expected);
        assert_eq!(fix(&kind, &context, &told), steps, "{expected}");
    }
}

#[test]
fn accounts_of_jobs_are_closed_and_hidden_on_macos() {
    let context = host(Os::MacOs);
    let record = "dscl -plist . -read /Users/_eph1";
    let dscl = |args: &str| format!("/usr/bin/dscl . {args}");
    let cases: Vec<(Told, &str, Vec<String>)> = vec![
        (mac(vec![]), "ok: _eph1", vec![]),
        (
            mac(vec![(record, complained("dscl-no-record", 56))]),
            "missing: not there",
            vec!["+ ephemerd host setup".to_owned()],
        ),
        (
            mac(vec![(record, printed("dscl-record-in-part", 0))]),
            "wrong: found `_eph1` is there in part, wanted whole records",
            vec!["+ ephemerd host setup".to_owned()],
        ),
        (
            mac(vec![(record, printed("dscl-record-shown", 0))]),
            "wrong: found `_eph1` shows in the login window, wanted hidden",
            vec![
                format!("+ {}", dscl("-create /Users/_eph1 IsHidden 1")),
                format!("- {}", dscl("-delete /Users/_eph1 IsHidden")),
            ],
        ),
        (
            mac(vec![(record, printed("dscl-record-login", 0))]),
            "wrong: found `_eph1` has login shell /bin/zsh, wanted none",
            vec![
                format!("+ {}", dscl("-create /Users/_eph1 UserShell /usr/bin/false")),
                format!("- {}", dscl("-create /Users/_eph1 UserShell /bin/zsh")),
            ],
        ),
        (
            mac(vec![(record, printed("dscl-record-password", 0))]),
            "wrong: found `_eph1` has a password (ShadowHashData, AuthenticationAuthority, Password), wanted no password",
            vec![
                format!("+ {}", dscl("-delete /Users/_eph1 ShadowHashData")),
                format!("+ {}", dscl("-delete /Users/_eph1 AuthenticationAuthority")),
                format!("+ {}", dscl("-create /Users/_eph1 Password '*'")),
            ],
        ),
        (
            mac(vec![(
                "dseditgroup -o checkmember -m _eph1 admin",
                printed("dseditgroup-yes", 0),
            )]),
            "wrong: found `_eph1` is in group `admin`, wanted no administrator",
            vec![
                "+ /usr/sbin/dseditgroup -o edit -d _eph1 -t user admin".to_owned(),
                "- /usr/sbin/dseditgroup -o edit -a _eph1 -t user admin".to_owned(),
            ],
        ),
        (
            mac(vec![(
                "dscl . -list /Groups GroupMembership",
                printed("dscl-members-developer", 0),
            )]),
            "wrong: found `_eph1` is in group `_developer`, wanted _eph and no other group",
            vec![
                "+ /usr/sbin/dseditgroup -o edit -d _eph1 -t user _developer".to_owned(),
                "- /usr/sbin/dseditgroup -o edit -a _eph1 -t user _developer".to_owned(),
            ],
        ),
        (
            mac(vec![(
                "dscl . -list /Users UniqueID",
                printed("dscl-uids-clash", 0),
            )]),
            "wrong: found `_eph1` shares uid 451 with `_appserver`: uid clash, wanted ids of its own",
            vec!["? give every account ids of its own".to_owned()],
        ),
        (
            mac(vec![("id -u _eph1", said("301", 0))]),
            "wrong: found `_eph1` has uid 451, and the system says 301, wanted ids of its own",
            vec!["? give every account ids of its own".to_owned()],
        ),
        (
            mac(vec![("id -u _eph1", said("", 1))]),
            "wrong: found `_eph1` has uid 451, and the system does not know it, wanted ids of its own",
            vec!["? give every account ids of its own".to_owned()],
        ),
        (
            mac(vec![(record, printed("garbage", 0))]),
            "unknown: `_eph1`: the record of account `_eph1` makes no sense",
            vec!["? the record of account `_eph1` makes no sense".to_owned()],
        ),
    ];
    for (told, expected, steps) in cases {
        assert_eq!(verdict(&jobs(), &context, &told), expected);
        assert_eq!(fix(&jobs(), &context, &told), steps, "{expected}");
    }
    assert_every_answer_counts(&jobs(), &context, &mac(vec![]), &["look"]);
}

#[test]
fn nobody_but_a_job_loses_a_password_for_good() {
    let mut context = host(Os::MacOs);
    context.accounts = vec!["_eph".to_owned()];
    let told = mac(vec![(
        "dscl -plist . -read /Users/_eph1",
        printed("dscl-record-password", 0),
    )]);
    let kind = one(
        "_eph1",
        Account {
            password: Some(false),
            ..Account::default()
        },
    );
    assert_eq!(
        fix(&kind, &context, &told),
        ["? take the password of `_eph1` away"]
    );
}
