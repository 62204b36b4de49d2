//! `ephemerd host setup` on a Mac made of stand-ins.

use ephemerd::config::Accounts;
use ephemerd::host::Os;
use ephemerd::host::accounts::{AccountsError, Status, Step, Wanted, observe, plan, resolve, setup};
use serde_json::{Value, json};

use crate::stand::Mac;

fn wanted() -> Wanted<'static> {
    Wanted {
        account: "_ephemerd",
        slots: 2,
        accounts: Accounts::PerSlot,
    }
}

fn set_up(mac: &Mac, dry_run: bool) -> (Vec<Status>, Result<(), AccountsError>) {
    let mut seen = Vec::new();
    let result = setup(&mac.host, &wanted(), dry_run, &mut |_, status| seen.push(status));
    (seen, result)
}

fn ids(mac: &Mac) -> Vec<(String, u32, u32)> {
    let observed = observe(&mac.host, &wanted()).unwrap();
    let found = resolve(Os::MacOs, &wanted(), &observed).unwrap();
    found.into_iter().map(|a| (a.name, a.uid, a.gid)).collect()
}

fn set(mac: &Mac, kind: &str, name: &str, record: &Value) {
    let mut records = mac.state("records");
    records[kind][name] = record.clone();
    mac.write_state("records", &records);
}

#[test]
fn makes_hidden_accounts_without_a_password_once_and_finds_nothing_to_do_the_second_time() {
    let mac = Mac::new();
    let (seen, result) = set_up(&mac, false);
    result.unwrap();
    assert_eq!(seen, [Status::Done; 4]);
    assert_eq!(
        mac.state("records")["Users"]["_ephemerd1"],
        json!({
            "RecordName": ["_ephemerd1"], "Password": ["*"], "UserShell": ["/usr/bin/false"],
            "NFSHomeDirectory": ["/var/empty"], "RealName": ["ephemerd job slot 1"],
            "PrimaryGroupID": ["450"], "UniqueID": ["452"], "IsHidden": ["1"],
        })
    );
    let slots = [
        ("_ephemerd1".to_owned(), 452, 450),
        ("_ephemerd2".to_owned(), 453, 450),
    ];
    assert_eq!(ids(&mac), slots);

    let before = mac.state("records");
    let (seen, result) = set_up(&mac, false);
    result.unwrap();
    assert_eq!(seen, [Status::AlreadyFits; 4]);
    assert_eq!(mac.state("records"), before);
}

#[test]
fn a_dry_run_says_every_command_and_changes_nothing() {
    let mac = Mac::new();
    std::fs::write(mac.top.join("ephemerd.toml"), "[native]\nslots = 1\n").unwrap();
    let before = mac.state("records");
    let output = mac.ephemerd(&["host", "setup", "--dry-run"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for part in [
        "dseditgroup -o create -r 'ephemerd jobs' -i 450 _ephemerd",
        "dscl . -create /Users/_ephemerd1 UniqueID 452",
        "dscl . -create /Users/_ephemerd1 Password '*'",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(mac.state("records"), before);
}

#[test]
fn takes_ids_that_neither_a_user_nor_a_group_has() {
    let mac = Mac::new();
    set(&mac, "Users", "nobody", &json!({"UniqueID": ["-2"]}));
    set(&mac, "Users", "_other", &json!({"UniqueID": ["450"]}));
    set(&mac, "Groups", "_others", &json!({"PrimaryGroupID": ["452"]}));
    set_up(&mac, false).1.unwrap();
    assert_eq!(
        mac.state("records")["Groups"]["_ephemerd"]["PrimaryGroupID"],
        json!(["451"])
    );
    let slots = [
        ("_ephemerd1".to_owned(), 454, 451),
        ("_ephemerd2".to_owned(), 455, 451),
    ];
    assert_eq!(ids(&mac), slots);
}

#[test]
fn says_when_every_id_of_the_range_is_taken() {
    let mac = Mac::new();
    for id in 450..=498 {
        set(
            &mac,
            "Users",
            &format!("_other{id}"),
            &json!({"UniqueID": [id.to_string()]}),
        );
    }
    let (seen, result) = set_up(&mac, false);
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("no free id for account `_ephemerd`"), "{error}");
    assert!(error.contains("450 to 499"), "{error}");
    assert!(
        seen.is_empty() && mac.calls("dseditgroup").is_empty(),
        "nothing is half made"
    );
}

#[test]
fn asks_again_while_directory_services_are_not_ready_and_when_the_system_kills_dscl() {
    let mac = Mac::new();
    let not_yet = json!({"code": 140, "stderr": "<main> attribute status: eNotYetImplemented\n<dscl_cmd> DS Error: -14988 (eNotYetImplemented)"});
    mac.fail("dscl", "/Users/_ephemerd1 UniqueID", 9, &not_yet);
    mac.fail("dseditgroup", "create", 2, &json!({"signal": 9}));
    set_up(&mac, false).1.unwrap();
    let tries = mac
        .calls("dscl")
        .iter()
        .filter(|call| call.contains("_ephemerd1 UniqueID"))
        .count();
    assert_eq!(tries, 10);

    let mac = Mac::new();
    mac.fail("dscl", "/Users/_ephemerd1 UniqueID", 10, &not_yet);
    let (seen, result) = set_up(&mac, false);
    let error = result.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("could not create account `_ephemerd1`"),
        "{error}"
    );
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("-14988")
    );
    assert_eq!(seen, [Status::Done; 2]);
}

#[test]
fn another_failure_is_not_asked_again() {
    let mac = Mac::new();
    let denied = json!({"code": 40, "stderr": "<dscl_cmd> DS Error: -14120 (eDSPermissionError)"});
    mac.fail("dscl", "-create /Users/_ephemerd ", 1, &denied);
    let error = set_up(&mac, false).1.unwrap_err();
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("eDSPermissionError")
    );
    set_up(&mac, false).1.unwrap();
}

#[test]
fn an_account_that_may_not_be_hidden_is_made_all_the_same() {
    let mac = Mac::new();
    mac.fail("dscl", "IsHidden", 1000, &json!({"signal": 9}));
    set_up(&mac, false).1.unwrap();
    assert_eq!(mac.state("records")["Users"]["_ephemerd2"].get("IsHidden"), None);
}

#[test]
fn completes_a_record_that_an_interrupted_set_up_left() {
    let mac = Mac::new();
    mac.fail("dscl", "/Users/_ephemerd1 PrimaryGroupID", 1, &json!({"code": 1}));
    set_up(&mac, false).1.unwrap_err();
    let half = &mac.state("records")["Users"]["_ephemerd1"];
    assert!(
        half.get("UserShell").is_some() && half.get("UniqueID").is_none(),
        "{half}"
    );

    let (seen, result) = set_up(&mac, false);
    result.unwrap();
    assert_eq!(
        seen,
        [
            Status::AlreadyFits,
            Status::AlreadyFits,
            Status::Done,
            Status::Done
        ]
    );
    assert_eq!(ids(&mac)[0].1, 452);
}

#[test]
fn a_record_with_an_id_keeps_it_when_it_is_completed() {
    let mac = Mac::new();
    set(&mac, "Users", "_ephemerd2", &json!({"UniqueID": ["470"]}));
    let observed = observe(&mac.host, &wanted()).unwrap();
    let steps = plan(Os::MacOs, &wanted(), &observed).unwrap();
    let Step::CreateUser {
        ids: Some(planned), ..
    } = &steps[3]
    else {
        panic!("{steps:?}")
    };
    assert_eq!(planned.uid, 470);
    set_up(&mac, false).1.unwrap();
    assert_eq!(ids(&mac)[1].1, 470);
}

#[test]
fn names_everything_that_keeps_an_existing_account_from_running_jobs() {
    let mac = Mac::new();
    set_up(&mac, false).1.unwrap();
    let mut records = mac.state("records");
    records["Users"]["mallory"] = json!({"UniqueID": ["452"]});
    records["Users"]["_ephemerd2"]["AuthenticationAuthority"] = json!([";ShadowHash;"]);
    records["Users"]["_ephemerd2"]["Password"] = json!(["********"]);
    records["Groups"]["admin"] = json!({"PrimaryGroupID": ["80"], "GroupMembership": ["root", "_ephemerd2"]});
    mac.write_state("records", &records);
    let (seen, result) = set_up(&mac, false);
    let error = result.unwrap_err().to_string();
    for part in [
        "`_ephemerd1` shares uid 452 with `mallory`: uid clash",
        "`_ephemerd2` has a password (AuthenticationAuthority)",
        "`_ephemerd2` has a password (Password)",
        "`_ephemerd2` is also a member of group `admin`",
        "`_ephemerd2` is a member of group `admin`",
    ] {
        assert!(error.contains(part), "{part}\n{error}");
    }
    assert!(seen.is_empty(), "nothing is changed");
}

#[test]
fn a_name_that_the_system_resolves_to_another_uid_is_not_used() {
    let mac = Mac::new();
    set_up(&mac, false).1.unwrap();
    mac.fail(
        "id",
        "-u _ephemerd1",
        1,
        &json!({"code": 1, "stderr": "id: _ephemerd1: no such user"}),
    );
    let observed = observe(&mac.host, &wanted()).unwrap();
    let error = resolve(Os::MacOs, &wanted(), &observed).unwrap_err().to_string();
    assert!(
        error.contains("`_ephemerd1` is not what the system knows"),
        "{error}"
    );
}

#[test]
fn an_answer_that_tells_nothing_of_membership_counts_against_the_account() {
    let mac = Mac::new();
    set_up(&mac, false).1.unwrap();
    mac.fail(
        "dseditgroup",
        "checkmember -m _ephemerd1 wheel",
        1,
        &json!({"code": 64}),
    );
    let observed = observe(&mac.host, &wanted()).unwrap();
    let error = resolve(Os::MacOs, &wanted(), &observed).unwrap_err().to_string();
    assert!(
        error.contains("`_ephemerd1` may be a member of group `wheel`"),
        "{error}"
    );
}
