use std::collections::BTreeMap;

use super::*;
use crate::host::accounts;
use crate::provision::receipt::{Before, Receipt, State};
use crate::service::plan::{Seen, Standing, plan};

fn host(os: Os) -> Host {
    let mut host = Host { os, ..Host::system() };
    host.service.logs = "/var/log/ephemerd".into();
    host
}

fn settings(log: Option<&str>) -> Settings {
    Settings {
        program: "/usr/local/bin/ephemerd".into(),
        config_file: "/etc/ephemerd/ephemerd.toml".into(),
        log: log.map(Into::into),
        stop: Duration::from_secs(90),
    }
}

fn steps(os: Os, log: Option<&str>) -> Vec<Planned> {
    let group = accounts::Step::CreateGroup {
        name: "_ephemerd".to_owned(),
        gid: None,
    };
    let origin = Origin {
        path: "/home/me/ephemerd".into(),
        sha256: "aa".to_owned(),
    };
    let manager = Manager::of(os, true).unwrap();
    wanted(&host(os), manager, &settings(log), (vec![group], &origin))
}

fn file_of<'a>(steps: &'a [Planned], item: &str) -> &'a str {
    let found = steps.iter().find(|planned| planned.item == item).unwrap();
    match &found.step.action {
        Action::File {
            content: Some(content),
            ..
        } => content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_unit_is_as_people_will_read_it() {
    insta::assert_snapshot!(systemd::unit(&settings(Some("/var/log/ephemerd/ephemerd.log"))));
}

#[test]
fn the_rotations_are_as_people_will_read_them() {
    let log = Utf8Path::new("/var/log/ephemerd/ephemerd.log");
    insta::assert_snapshot!(systemd::logrotate(log) + "\n" + &launchd::newsyslog(log));
}

#[test]
fn the_property_list_is_as_people_will_read_it() {
    insta::assert_snapshot!(launchd::plist(&settings(Some("/var/log/ephemerd/ephemerd.log"))));
}

#[test]
fn a_parser_of_property_lists_reads_what_was_meant_whatever_the_paths_hold() {
    let odd = Settings {
        config_file: "/etc/<&>\"' é/x.toml".into(),
        ..settings(None)
    };
    let list: BTreeMap<String, plist::Value> = plist::from_bytes(launchd::plist(&odd).as_bytes()).unwrap();
    let words: Vec<&str> = list["ProgramArguments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_string().unwrap())
        .collect();
    assert_eq!(
        words,
        [
            "/usr/local/bin/ephemerd",
            "--config",
            "/etc/<&>\"' é/x.toml",
            "run"
        ]
    );
    let number = |key: &str| list[key].as_unsigned_integer();
    assert_eq!(list["Label"].as_string(), Some(LABEL));
    assert_eq!(list["ProcessType"].as_string(), Some("Interactive"));
    assert_eq!(list["SessionCreate"].as_boolean(), Some(true));
    assert_eq!(list["KeepAlive"].as_boolean(), Some(true));
    assert_eq!(number("ExitTimeOut"), Some(90));
    assert_eq!(number("Umask"), Some(0o077));
}

#[test]
fn words_of_the_command_line_mean_nothing_else_to_systemd() {
    let odd = Settings {
        config_file: "/etc/100% $HOME/x.toml".into(),
        ..settings(None)
    };
    let unit = systemd::unit(&odd);
    let line = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    assert_eq!(
        line,
        "ExecStart=/usr/local/bin/ephemerd --config '/etc/100%% $$HOME/x.toml' run"
    );
}

#[test]
fn the_skeleton_is_a_configuration_that_trusts_nobody() {
    for os in [Os::Linux, Os::MacOs] {
        let keep = tempfile::tempdir().unwrap();
        let file = Utf8PathBuf::from_path_buf(keep.path().join("ephemerd.toml")).unwrap();
        std::fs::write(&file, skeleton::text(os)).unwrap();
        let config = crate::config::load(&file).unwrap().config;
        assert_eq!(config.trust.default, crate::trust::DefaultRoute::Refuse);
        assert!(config.trust.repos.is_empty());
        assert_eq!(config.native.allow_degraded.is_empty(), os == Os::Linux);
    }
}

#[test]
fn an_installation_is_these_steps_in_this_order() {
    let lines = |os, log| -> String {
        let lines = steps(os, log).into_iter();
        lines
            .map(|it| format!("{}: {}\n", it.item, it.step.action))
            .collect()
    };
    insta::assert_snapshot!(format!(
        "{}\n{}\n{}",
        lines(Os::Linux, None),
        lines(Os::Linux, Some("/var/log/ephemerd/ephemerd.log")),
        lines(Os::MacOs, Some("/private/var/log/ephemerd/ephemerd.log"))
    ));
}

#[test]
fn the_commands_of_both_service_managers() {
    let mut lines = vec![];
    for (os, manager) in [(Os::Linux, Manager::Systemd), (Os::MacOs, Manager::Launchd)] {
        let host = host(os);
        let file = manager.file(&host);
        for (what, commands) in [
            ("start", manager.start(&host, &file)),
            ("halt", manager.halt(&host)),
            ("remove", manager.remove(&host)),
            ("forget", manager.forget(&host)),
            ("is up", manager.is_up(&host)),
        ] {
            for command in commands {
                lines.push(format!("{what}: {command}"));
            }
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

fn standings(wanted: &[Planned], seen: impl Fn(&Planned) -> Seen, receipts: &[Receipt]) -> Vec<Standing> {
    let seen: Vec<Seen> = wanted.iter().map(seen).collect();
    plan(wanted, &seen, receipts)
}

#[test]
fn where_everything_is_there_nothing_is_done_and_where_nothing_is_everything() {
    let wanted = steps(Os::Linux, None);
    let all = standings(&wanted, |_| Seen::Same, &[]);
    assert!(all.iter().all(|it| *it == Standing::Fits), "{all:?}");
    let none = standings(&wanted, |_| Seen::Absent, &[]);
    assert!(none.iter().all(|it| *it == Standing::Todo), "{none:?}");
}

/// The standings of the items in which something else is found.
fn with_other(item: &str, found: &str, receipts: &[Receipt]) -> Vec<(String, Standing)> {
    let wanted = steps(Os::Linux, None);
    let seen = |planned: &Planned| {
        if planned.item == item {
            Seen::Other(found.to_owned())
        } else {
            Seen::Same
        }
    };
    let standings = standings(&wanted, seen, receipts);
    let named = wanted.into_iter().map(|planned| planned.item).zip(standings);
    named
        .filter(|(_, standing)| *standing != Standing::Fits)
        .collect()
}

#[test]
fn a_configuration_that_is_there_is_kept() {
    let kept = [("configuration".to_owned(), Standing::Kept)];
    assert_eq!(with_other("configuration", "[native]\n", &[]), kept);
}

#[test]
fn a_unit_that_somebody_changed_is_not_replaced_and_one_of_ours_is_and_is_read_anew() {
    let wanted = steps(Os::Linux, None);
    let step = wanted
        .iter()
        .find(|planned| planned.item == "service file")
        .unwrap();
    let mut step = step.step.clone();
    if let Action::File { content, .. } = &mut step.action {
        *content = Some("of an earlier version".to_owned());
    }
    let receipt = |state| Receipt {
        number: 1,
        item: "service file".to_owned(),
        step: step.clone(),
        before: Before::Absent,
        state,
    };
    let ours = with_other("service file", "of an earlier version", &[receipt(State::Done)]);
    let todo = |item: &str| (item.to_owned(), Standing::Todo);
    assert_eq!(ours, [todo("service file"), todo("service")]);
    for (found, state) in [
        ("changed", State::Done),
        ("of an earlier version", State::Reverted),
    ] {
        let found = with_other("service file", found, &[receipt(state)]);
        assert!(matches!(found[..], [(_, Standing::Taken(_))]), "{found:?}");
    }
}

#[test]
fn another_program_in_its_place_is_for_upgrade_to_replace() {
    let found = with_other("program", "bb", &[]);
    let [(_, Standing::Taken(why))] = found[..] else {
        panic!("{found:?}")
    };
    assert!(why.contains("host upgrade"), "{why}");
    assert!(!file_of(&steps(Os::Linux, None), "service file").contains("--log-file"));
}
