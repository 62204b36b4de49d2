use proptest::prelude::*;
use serde_json::json;

use super::*;

const SETTINGS: &str = r#"{"AgentId":23,"AgentName":"mac01-9f2c","PoolId":1,"Ephemeral":true,"WorkFolder":"_work",
    "DisableUpdate":false,"UseV2Flow":true,"ServerUrlV2":"https://broker.actions.githubusercontent.com/"}"#;
const CREDENTIALS: &str = r#"{"Scheme":"OAuth","Data":{"clientId":"planted-client"}}"#;
const KEY: &str = r#"{"d":"planted-key","modulus":"bQ=="}"#;

/// A configuration of these members, in this order, however often.
fn packed(members: &[(&str, &[u8])]) -> Secret {
    let pairs = members.iter().map(|(name, content)| {
        let name = serde_json::to_string(name).unwrap();
        format!("{name}:\"{}\"", STANDARD.encode(content))
    });
    let text = format!("{{{}}}", pairs.collect::<Vec<_>>().join(","));
    Secret::new(STANDARD.encode(text))
}

fn usual(settings: &str) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (".runner", settings.as_bytes().to_vec()),
        (".credentials", CREDENTIALS.into()),
        (".credentials_rsaparams", KEY.into()),
    ]
}

fn decode(members: &[(&str, Vec<u8>)]) -> Result<JitConfig, JitError> {
    let members: Vec<_> = members
        .iter()
        .map(|(name, content)| (*name, content.as_slice()))
        .collect();
    JitConfig::decode(&packed(&members), Utf8Path::new("/jobs/7/work"))
}

fn settings_of(config: &JitConfig) -> Value {
    serde_json::from_str(config.files()[0].content.expose()).unwrap()
}

/// What is said of a configuration that must be refused.
#[track_caller]
fn refused(members: &[(&str, Vec<u8>)]) -> String {
    decode(members).unwrap_err().to_string()
}

#[test]
fn a_configuration_becomes_three_closed_files_with_the_settings_made_sure() {
    let config = decode(&usual(SETTINGS)).unwrap();
    assert_eq!((config.agent_id(), config.agent_name()), (23, "mac01-9f2c"));
    let names: Vec<_> = config.files().iter().map(|file| (file.name, file.mode)).collect();
    assert_eq!(
        names,
        [
            (".runner", 0o600),
            (".credentials", 0o600),
            (".credentials_rsaparams", 0o600)
        ]
    );
    let settings = settings_of(&config);
    assert_eq!(settings["WorkFolder"], "/jobs/7/work");
    assert_eq!(settings["DisableUpdate"], true);
    assert_eq!(settings["Ephemeral"], true);
    assert_eq!(settings["UseV2Flow"], true, "what is not ours stays");
    assert_eq!(config.files()[1].content.expose(), CREDENTIALS);
    assert_eq!(config.files()[2].content.expose(), KEY);
}

#[test]
fn names_of_settings_count_in_any_case_and_are_there_once_afterwards() {
    let config = decode(&usual(
        r#"{"agentid":5,"AGENTNAME":"n","ephemeral":true,"workfolder":"_work","disableUpdate":false,
            "monitorSocketAddress":"127.0.0.1:9"}"#,
    ))
    .unwrap();
    assert_eq!(
        settings_of(&config),
        json!({"agentid": 5, "AGENTNAME": "n", "ephemeral": true, "WorkFolder": "/jobs/7/work", "DisableUpdate": true})
    );
}

#[test]
fn settings_that_would_take_more_than_one_job_or_are_unclear_are_refused() {
    let cases = [
        (r#"{"AgentId":1,"AgentName":"n"}"#, "`Ephemeral` in `.runner`"),
        (
            r#"{"AgentId":1,"AgentName":"n","Ephemeral":false}"#,
            "is not true",
        ),
        (
            r#"{"AgentId":1,"AgentName":"n","Ephemeral":"true"}"#,
            "is not true",
        ),
        (
            r#"{"AgentId":1,"AgentName":"n","Ephemeral":true,"ephemeral":false}"#,
            "is there twice",
        ),
        (r#"{"AgentId":0,"AgentName":"n","Ephemeral":true}"#, "`AgentId`"),
        (r#"{"AgentName":"n","Ephemeral":true}"#, "is missing"),
        (
            r#"{"AgentId":1,"AgentName":"a\nb","Ephemeral":true}"#,
            "`AgentName`",
        ),
        ("[]", "no JSON object"),
        ("{", "no JSON object"),
        ("", "no JSON object"),
    ];
    for (settings, why) in cases {
        let said = refused(&usual(settings));
        assert!(said.contains(why), "{settings}: {said}");
    }
}

#[test]
fn settings_for_other_servers_are_made_sure_as_well_and_name_the_same_runner() {
    let mut members = usual(SETTINGS);
    members.push((".runner_migrated", SETTINGS.into()));
    members.push((".credentials_migrated", CREDENTIALS.into()));
    let config = decode(&members).unwrap();
    let migrated: Value = serde_json::from_str(config.files()[3].content.expose()).unwrap();
    assert_eq!(migrated, settings_of(&config));
    members[3].1 = SETTINGS.replace("23", "24").into();
    assert!(refused(&members).contains("another runner's"));
    members[3].1 = SETTINGS.replace("true", "false").into();
    assert!(refused(&members).contains("`Ephemeral` in `.runner_migrated`"));
}

#[test]
fn files_that_the_runner_is_not_known_to_read_are_refused() {
    let names = [
        "../.runner",
        "/etc/cron.d/x",
        "bin/Runner.Listener",
        "..",
        ".",
        "",
        ".env",
        ".path",
        ".Runner",
        ".runner ",
        ".runner/",
        ".runner\0",
        "a\u{1b}[2Jb",
    ];
    for name in names {
        let mut members = usual(SETTINGS);
        members.push((name, "{}".into()));
        let said = refused(&members);
        assert!(
            said.contains("none of the runner's files\nhint: "),
            "{name:?}: {said}"
        );
        assert!(!said.contains('\u{1b}') && !said.contains('\0'), "{said:?}");
    }
}

#[test]
fn a_file_that_is_missing_or_there_twice_is_refused() {
    for at in 0..3 {
        let mut fewer = usual(SETTINGS);
        let (name, content) = fewer.remove(at);
        assert!(refused(&fewer).contains(&format!("lacks `{name}`")));
        let mut more = usual(SETTINGS);
        more.push((name, content));
        assert!(refused(&more).contains(&format!("holds `{name}` twice")));
    }
}

#[test]
fn what_is_too_large_or_neither_base64_nor_text_is_refused() {
    let work = Utf8Path::new("/w");
    let said = |text: String| JitConfig::decode(&Secret::new(text), work).unwrap_err();
    assert_eq!(said("A".repeat(LIMIT_BYTE + 1)), JitError::TooLarge);
    assert!(said("<html>".into()).to_string().contains("not base64"));
    assert!(said(String::new()).to_string().contains("no JSON object"));
    assert!(
        said(STANDARD.encode([0xff, 0xfe]))
            .to_string()
            .contains("not UTF-8")
    );
    assert!(
        said(STANDARD.encode(r#"{".runner":7}"#))
            .to_string()
            .contains("no JSON object")
    );
    let mut members = usual(SETTINGS);
    members[1].1 = vec![b'"', 0xc3, b'"'];
    assert!(refused(&members).contains("`.credentials` of the JIT configuration is not UTF-8"));
    members[1].1 = "[".repeat(100_000).into();
    assert!(refused(&members).contains("`.credentials` of the JIT configuration is no JSON"));
}

#[test]
fn the_mark_before_utf_8_and_white_space_around_base64_do_no_harm() {
    let mut members = usual(SETTINGS);
    for (_, content) in &mut members {
        content.splice(0..0, "\u{feff}".bytes());
    }
    let members: Vec<_> = members
        .iter()
        .map(|(name, content)| (*name, content.as_slice()))
        .collect();
    let inner = STANDARD.decode(packed(&members).expose()).unwrap();
    let outer = [b"\xef\xbb\xbf".as_slice(), &inner].concat();
    let text = Secret::new(format!(" {}\r\n", STANDARD.encode(outer)));
    let config = JitConfig::decode(&text, Utf8Path::new("/w")).unwrap();
    assert_eq!(config.files()[1].content.expose(), CREDENTIALS);
}

#[test]
fn the_work_folder_does_not_depend_on_where_the_runner_is() {
    for work in ["_work", "", "/jobs/../etc", "../x"] {
        let made = JitConfig::decode(&packed(&[]), Utf8Path::new(work));
        assert!(matches!(made, Err(JitError::Work { .. })), "{work}");
    }
}

#[test]
fn nothing_that_is_printed_or_said_shows_a_credential() {
    let config = decode(&usual(SETTINGS)).unwrap();
    let mut texts = vec![format!("{config:?}"), format!("{config:#?}")];
    let mut members = usual(SETTINGS);
    members[2].1 = r#"{"d":planted-key}"#.into();
    let error = decode(&members).unwrap_err();
    texts.extend([error.to_string(), format!("{error:?}")]);
    let inner = r#"{".credentials_rsaparams":["planted-key"],"planted-client":}"#;
    let error = JitConfig::decode(&Secret::new(STANDARD.encode(inner)), Utf8Path::new("/w")).unwrap_err();
    texts.push(format!("{error}{error:?}"));
    for text in texts {
        assert!(!text.contains("planted"), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let work = Utf8Path::new("/w");
        prop_assert!(JitConfig::decode(&Secret::new(text), work).is_err());
        prop_assert!(JitConfig::decode(&Secret::new(STANDARD.encode(bytes)), work).is_err());
    }

    #[test]
    fn no_name_of_a_member_becomes_a_file_unless_it_is_known(name in "\\PC{0,30}|(\\.\\./){0,3}\\.runner|\\.[a-z_]{0,20}") {
        let mut members = usual(SETTINGS);
        members.push((&name, "{}".into()));
        if let Ok(config) = decode(&members) {
            prop_assert!(member(&name).is_some());
            for file in config.files() {
                prop_assert!(file.name.starts_with('.') && !file.name.contains('/') && file.name != "..");
            }
        }
    }

    #[test]
    fn credentials_and_foreign_settings_arrive_as_they_were(id in 1u64.., name in "[a-z0-9-]{1,40}", other in "\\PC{0,40}", key in "\\PC{0,40}") {
        let settings = json!({"AgentId": id, "AgentName": name, "Ephemeral": true, "Other": other}).to_string();
        let mut members = usual(&settings);
        members[2].1 = json!({"d": key}).to_string().into();
        let config = decode(&members).unwrap();
        prop_assert_eq!(config.agent_id(), id);
        prop_assert_eq!(config.agent_name(), name.as_str());
        prop_assert_eq!(&settings_of(&config)["Other"], &json!(other));
        prop_assert_eq!(config.files()[2].content.expose().as_bytes(), members[2].1.as_slice());
    }
}
