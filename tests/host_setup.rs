//! `ephemerd host setup` against stand-ins for groupadd and useradd that keep accounts in files of their own,
//! so that the whole way from configuration to accounts runs without root and without touching this host.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::fs;
use std::os::unix::fs::symlink;

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::config::Accounts;
use ephemerd::host::accounts::{AccountsError, Status, Wanted, observe, plan, resolve, setup};
use ephemerd::host::{Host, Os, Tools};

struct Stand {
    top: Utf8PathBuf,
    host: Host,
    _keep: tempfile::TempDir,
}

impl Stand {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
        for (name, text) in [
            ("passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("group", "root:x:0:\n"),
            ("shadow", "root:*:20000::::::\n"),
        ] {
            fs::write(top.join(name), text).unwrap();
        }
        let host = Host {
            os: Os::Linux,
            passwd: top.join("passwd"),
            group: top.join("group"),
            shadow: top.join("shadow"),
            run: top.join("run"),
            tools: Tools {
                groupadd: fake(&top, "groupadd"),
                useradd: fake(&top, "useradd"),
                ..Host::system().tools
            },
            ..Host::system()
        };
        Self {
            top,
            host,
            _keep: keep,
        }
    }

    fn setup(&self, wanted: &Wanted<'_>, dry_run: bool) -> (Vec<Status>, Result<(), AccountsError>) {
        let mut seen = Vec::new();
        let result = setup(&self.host, wanted, dry_run, &mut |_, status| seen.push(status));
        (seen, result)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.top.join(name)).unwrap()
    }
}

/// Links a stand-in into the folder whose files it is to change.
fn fake(top: &Utf8Path, name: &str) -> Utf8PathBuf {
    let path = top.join(name);
    let fakes = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes");
    symlink(fakes.join(name), &path).unwrap();
    path
}

fn wanted(accounts: Accounts) -> Wanted<'static> {
    Wanted {
        account: "_ephemerd",
        slots: 3,
        accounts,
    }
}

#[test]
fn creates_every_account_once_and_finds_nothing_to_do_the_second_time() {
    let stand = Stand::new();
    let wanted = wanted(Accounts::PerSlot);
    let (seen, result) = stand.setup(&wanted, false);
    result.unwrap();
    assert_eq!(seen, [Status::Done; 5]);
    let after = stand.text("passwd");

    let observed = observe(&stand.host, &wanted).unwrap();
    assert_eq!(plan(Os::Linux, &wanted, &observed).unwrap(), []);
    let (seen, result) = stand.setup(&wanted, false);
    result.unwrap();
    assert_eq!(seen, [Status::AlreadyFits; 5]);
    assert_eq!(stand.text("passwd"), after);

    let slots = resolve(Os::Linux, &wanted, &observed).unwrap();
    let slots: Vec<_> = slots.iter().map(|a| (a.name.as_str(), a.uid, a.gid)).collect();
    assert_eq!(
        slots,
        [
            ("_ephemerd1", 902, 901),
            ("_ephemerd2", 903, 901),
            ("_ephemerd3", 904, 901)
        ]
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    let stand = Stand::new();
    let (seen, result) = stand.setup(&wanted(Accounts::Single), true);
    result.unwrap();
    assert_eq!(seen, [Status::WouldDo; 2]);
    assert_eq!(stand.text("passwd").lines().count(), 1);
    assert_eq!(stand.text("group").lines().count(), 1);
}

#[test]
fn continues_where_a_failing_useradd_stopped() {
    let stand = Stand::new();
    let wanted = wanted(Accounts::PerSlot);
    fs::write(stand.top.join("broken"), "_ephemerd2").unwrap();
    let (seen, result) = stand.setup(&wanted, false);
    let error = result.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("could not create account `_ephemerd2`"),
        "{error}"
    );
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("cannot lock /etc/passwd"), "{cause}");
    assert_eq!(seen, [Status::Done; 3]);

    fs::remove_file(stand.top.join("broken")).unwrap();
    let (seen, result) = stand.setup(&wanted, false);
    result.unwrap();
    assert_eq!(seen[..3], [Status::AlreadyFits; 3]);
    assert_eq!(seen[3..], [Status::Done; 2]);
}

#[test]
fn does_not_believe_a_tool_that_reports_success_and_does_nothing() {
    let mut stand = Stand::new();
    stand.host.tools.useradd = "/bin/true".into();
    let (_, result) = stand.setup(&wanted(Accounts::Single), false);
    let error = result.unwrap_err();
    assert!(matches!(error, AccountsError::Ineffective(_)), "{error}");
}

#[test]
fn touches_nothing_while_an_account_does_not_fit() {
    let stand = Stand::new();
    let mallory = "_ephemerd3:x:0:0::/root:/bin/bash\n";
    fs::write(stand.top.join("passwd"), mallory).unwrap();
    let (seen, result) = stand.setup(&wanted(Accounts::PerSlot), false);
    let error = result.unwrap_err();
    assert!(matches!(error, AccountsError::Unfit(_)), "{error}");
    assert!(seen.is_empty());
    assert_eq!(stand.text("passwd"), mallory);
    assert_eq!(stand.text("group"), "root:x:0:\n");
}
