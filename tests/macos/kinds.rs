//! What a Mac must have, asked of the stand-ins: a Mac as it should be is found so, whatever is set otherwise is found
//! too and put right, and taken back to what it was before.

use std::time::Duration;

use camino::Utf8Path;
use ephemerd::host::command::{CommandError, CommandSpec, run};
use ephemerd::provision::context::Context;
use ephemerd::provision::kind::Kind;
use ephemerd::provision::manifest::load;
use ephemerd::provision::question::{Answer, Answers, Entry, EntryKind, Question, Ran, Tool};
use ephemerd::provision::step::{Action, Fix};
use ephemerd::provision::{Item, Verdict};
use serde_json::json;

use crate::stand::Mac;

fn context(mac: &Mac) -> Context {
    Context {
        host: mac.host.clone(),
        arch: "arm64".to_owned(),
        release: "26.1".to_owned(),
        distribution: vec![],
        distribution_version: String::new(),
        brew: Some(mac.host.homebrew.clone()),
        job_path: vec![],
        accounts: vec!["_ephemerd1".to_owned(), "_ephemerd".to_owned()],
        group: "_ephemerd".to_owned(),
        data_dir: mac.top.join("data"),
        present: vec![],
        root: true,
    }
}

/// The items of a manifest whose answers come from tools of macOS.
fn items(manifest: &str) -> Vec<Item> {
    let manifest = load(manifest, Utf8Path::new("/")).unwrap();
    let is_told = |item: &Item| {
        matches!(
            item.kind,
            Kind::Account(..)
                | Kind::CommandLineTools(..)
                | Kind::Xcode(..)
                | Kind::Simulator(..)
                | Kind::Rosetta(..)
                | Kind::Posture(..)
                | Kind::Service(..)
        )
    };
    manifest.items.into_iter().filter(is_told).collect()
}

/// An item written for one test.
fn item(text: &str) -> Item {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap().join("one.toml");
    let text = format!("version = 1\nos = \"macos\"\n{text}\nwhy = \"a test\"\n");
    std::fs::write(&path, text).unwrap();
    let mut items = load(path.as_str(), Utf8Path::new("/")).unwrap().items;
    assert_eq!(items.len(), 1);
    items.remove(0)
}

fn run_tool(tool: &Tool) -> Answer {
    let args: Vec<&str> = tool.args.iter().map(String::as_str).collect();
    let spec = CommandSpec::new(&tool.program, &args, Duration::from_secs(3));
    match run(&spec) {
        Ok(output) => Answer::Ran(Ran {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: output.stderr,
        }),
        Err(CommandError::TimedOut { .. }) => Answer::TimedOut,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

fn answer(question: &Question) -> Answer {
    match question {
        Question::Run(tool) => run_tool(tool),
        Question::Ability(_) => Answer::Text("pf".to_owned()),
        Question::Read(path) => std::fs::read_to_string(path).map_or(Answer::Missing, Answer::Text),
        Question::Resolve(path) => path.canonicalize_utf8().map_or(Answer::Missing, Answer::At),
        Question::Look { path, .. } => match path.symlink_metadata() {
            Err(_) => Answer::Missing,
            Ok(_) => Answer::Entry(Entry {
                is: EntryKind::File,
                owner: "root".to_owned(),
                group: "wheel".to_owned(),
                mode: 0o644,
                sha256: None,
            }),
        },
        Question::List(_) => Answer::Names(vec![]),
        other => panic!("{other:?} is not asked here"),
    }
}

fn ask(item: &Item, context: &Context) -> (Verdict, Answers) {
    let asked = item.kind.questions(context).into_iter();
    let answers = Answers::new(asked.map(|(view, question)| {
        let answer = answer(&question);
        ((view, question), answer)
    }));
    (item.kind.judge(context, &answers), answers)
}

fn verdict(item: &Item, mac: &Mac) -> String {
    let (verdict, _) = ask(item, &context(mac));
    format!("{}: {verdict}", verdict.name())
}

/// Does what would help, asserts that it did, and takes it back again, asserting that what was found before is found
/// again.
fn mend_and_revert(item: &Item, mac: &Mac) {
    let context = context(mac);
    let (before, answers) = ask(item, &context);
    let Fix::Steps(steps) = item.kind.fix(&context, &answers, &before) else {
        panic!("no steps for `{}`: {before}", item.id());
    };
    let must = |tool: &Tool| match run_tool(tool) {
        Answer::Ran(ran) if ran.code == Some(0) => {}
        other => panic!("{tool}: {other:?}"),
    };
    let mut undo = vec![];
    for step in steps {
        let Action::Run(tool) = step.action else {
            panic!("{}", step.action);
        };
        must(&tool);
        undo.extend(step.undo);
    }
    let (after, _) = ask(item, &context);
    assert!(after.is_met(), "`{}` after its steps: {after}", item.id());
    if undo.is_empty() {
        return;
    }
    undo.iter().rev().for_each(must);
    let (reverted, _) = ask(item, &context);
    assert_eq!(reverted, before, "`{}` taken back", item.id());
}

#[test]
fn a_mac_as_it_should_be_is_found_so() {
    let mac = Mac::with_accounts();
    for item in items("macos-base") {
        let (verdict, _) = ask(&item, &context(&mac));
        assert!(
            matches!(verdict, Verdict::Ok { .. }),
            "`{}`: {verdict}",
            item.id()
        );
    }
}

#[test]
fn what_is_set_otherwise_is_put_right_and_taken_back() {
    let mac = Mac::with_accounts();
    let login = json!({"/Library/Preferences/com.apple.loginwindow": {"autoLoginUser": "admin"}});
    let source = |sleep, restart| json!({"AC Power": {"sleep": sleep, "autorestart": restart}});
    for (state, value, text) in [
        ("defaults", login, "[posture.auto_login]\nwant = false"),
        ("pmset", source(10, 1), "[posture.sleep]\nwant = false"),
        (
            "pmset",
            source(0, 0),
            "[posture.restart_after_power_failure]\nwant = true",
        ),
        (
            "indexed",
            json!(["/System/Volumes/Data"]),
            "[posture.spotlight]\nwant = false",
        ),
        (
            "systemsetup",
            json!({"usingnetworktime": "off"}),
            "[posture.time_sync]\nwant = true",
        ),
        (
            "defaults",
            json!({}),
            "[posture.automatic_updates]\nwant = \"download\"",
        ),
        ("rosetta", json!(false), "[rosetta.x86_64]"),
        ("runtimes", json!([]), "[simulator.iOS]\nversion = \">=18\""),
        ("developer-dir", json!(null), "[command_line_tools.any]"),
    ] {
        mac.write_state(state, &value);
        let item = item(text);
        let (verdict, _) = ask(&item, &context(&mac));
        assert!(
            matches!(verdict, Verdict::Wrong { .. } | Verdict::Missing),
            "`{}`: {verdict}",
            item.id()
        );
        mend_and_revert(&item, &mac);
    }
}

#[test]
fn an_account_that_somebody_opened_is_closed_again() {
    let mac = Mac::with_accounts();
    let item = item("[account.jobs]\nadmin = false\npassword = false\nlogin = false\nhidden = true");
    let good = mac.state("records");
    for (pointer, value) in [
        ("/Users/_ephemerd1/IsHidden", json!(["0"])),
        ("/Users/_ephemerd1/UserShell", json!(["/bin/zsh"])),
        ("/Users/_ephemerd1/ShadowHashData", json!(["62706c69"])),
        ("/Groups/wheel/GroupMembership", json!(["root", "_ephemerd1"])),
    ] {
        let mut records = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        records.pointer_mut(parent).unwrap()[key] = value;
        mac.write_state("records", &records);
        assert!(verdict(&item, &mac).starts_with("wrong: "), "{pointer}");
        mend_and_revert(&item, &mac);
    }
}

#[test]
fn everybody_who_is_signed_in_to_icloud_is_found() {
    let mac = Mac::new();
    let item = item("[posture.icloud]\nwant = false");
    let homes = mac.top.join("Users");
    let told = |accounts: &serde_json::Value| {
        let domain = homes.join("alice/Library/Preferences/MobileMeAccounts");
        mac.write_state("defaults", &json!({domain.as_str(): accounts}));
        let asked = item.kind.questions(&context(&mac)).into_iter();
        let answers = Answers::new(asked.map(|(view, question)| {
            let mut really = question.clone();
            if let Question::Run(tool) = &mut really
                && let Some(folder) = tool.args.last_mut().filter(|arg| *arg == "/Users")
            {
                *folder = homes.to_string();
            }
            ((view, question), answer(&really))
        }));
        item.kind.judge(&context(&mac), &answers)
    };
    for user in ["admin", "alice", "Shared"] {
        std::fs::create_dir_all(homes.join(user).join("Library/Preferences")).unwrap();
    }
    assert_eq!(told(&json!({})), Verdict::ok("nobody is signed in"));
    let file = homes.join("alice/Library/Preferences/MobileMeAccounts.plist");
    std::fs::write(file, "").unwrap();
    let signed_in = json!({"Accounts": "(\n    {\n        AccountID = \"a@example.com\";\n    }\n)"});
    assert!(matches!(told(&signed_in), Verdict::Wrong { .. }));
    assert_eq!(told(&json!({})), Verdict::ok("nobody is signed in"));
    assert_eq!(
        told(&json!({"Accounts": "(\n)"})),
        Verdict::ok("nobody is signed in")
    );
    assert!(matches!(
        told(&json!({"Accounts": "%PDF"})),
        Verdict::Unknown { .. }
    ));
}

#[test]
fn a_service_is_loaded_and_unloaded() {
    let mac = Mac::new();
    let runs = item("[service.\"org.example.cache\"]");
    let rests = item("[service.\"org.example.cache\"]\nrunning = false");
    assert!(verdict(&rests, &mac).starts_with("ok"));
    assert_eq!(
        verdict(&runs, &mac),
        "wrong: found no such service, wanted running"
    );
    mac.write_state("services", &json!({"org.example.cache": "not running"}));
    mend_and_revert(&runs, &mac);
}

#[test]
fn a_tool_that_hangs_or_prints_anything_tells_nothing() {
    let mac = Mac::with_accounts();
    for (tool, when, text) in [
        ("pmset", "custom", "[posture.sleep]\nwant = false"),
        ("sqlite3", "access", "[posture.tcc_grants]\nwant = false"),
        ("dscl", "GroupMembership", "[account.jobs]"),
    ] {
        let item = item(text);
        mac.hang(tool, when, 1);
        assert!(
            verdict(&item, &mac).ends_with("it did not answer in time"),
            "{tool}"
        );
        mac.fail(tool, when, 1, &json!({"code": 0, "stdout": "%PDF-1.7\n"}));
        assert!(verdict(&item, &mac).starts_with("unknown"), "{tool}");
        assert!(verdict(&item, &mac).starts_with("ok"), "{tool}");
    }
}

#[test]
fn a_formula_is_found_where_homebrew_links_it() {
    let mac = Mac::new();
    let jq = item("[brew.jq]\nversion = \">=1.7\"");
    assert!(verdict(&jq, &mac).starts_with("missing"));
    mac.brewed(&[("jq", "1.7.1", &["jq"])]);
    assert_eq!(verdict(&jq, &mac), "ok: 1.7.1");
}
