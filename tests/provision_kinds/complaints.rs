//! What a manifest cannot mean is refused where it stands, and says what would be meant.

use camino::Utf8Path;
use ephemerd::provision::manifest::load;

/// What is said of a manifest for `os` with `items`, without the place.
fn complaint(os: &str, items: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap().join("it.toml");
    let text = format!("version = 1\nos = {os}\n{items}\n");
    std::fs::write(&path, text).unwrap();
    match load(path.as_str(), Utf8Path::new("/")) {
        Ok(_) => String::new(),
        Err(error) => {
            let text = error.to_string();
            let (place, message) = text.split_once(": ").unwrap();
            assert!(place.ends_with(":1") || place.contains("it.toml:3"), "{text}");
            message.to_owned()
        }
    }
}

const BOTH: &str = "[\"macos\", \"linux\"]";

#[test]
fn what_cannot_be_meant_is_refused() {
    let cases = [
        (
            "posture.filevalt",
            "want = true",
            "`filevalt` is no posture\nhint: did you mean `filevault`?",
        ),
        (
            "posture.colour",
            "want = true",
            "`colour` is no posture\nhint: there are auto_login, automatic_updates, filevault, gatekeeper, icloud, landlock, namespaces, packet_filter, remote_login, restart_after_power_failure, sip, sleep, spotlight, tcc_grants, time_sync",
        ),
        (
            "posture.sip",
            "want = \"on\"",
            "`sip` is on or off\nhint: want = true, or want = false",
        ),
        (
            "posture.sip",
            "want = 1",
            "`sip` is on or off\nhint: want = true, or want = false",
        ),
        (
            "posture.landlock",
            "want = true",
            "`landlock` is a number, and more is better\nhint: want = 6",
        ),
        (
            "posture.landlock",
            "want = 0",
            "`landlock` is a number, and more is better\nhint: want = 6",
        ),
        (
            "posture.automatic_updates",
            "want = \"never\"",
            "`automatic_updates` is one of off, check, download, install\nhint: want = \"off\"",
        ),
        (
            "posture.automatic_updates",
            "want = false",
            "`automatic_updates` is one of off, check, download, install\nhint: want = \"off\"",
        ),
        (
            "service.\"--now\"",
            "",
            "`--now` is no name of a service\nhint: a unit of systemd, or the label of a job of launchd",
        ),
        (
            "service.\"a b\"",
            "",
            "`a b` is no name of a service\nhint: a unit of systemd, or the label of a job of launchd",
        ),
        (
            "account.\"-x\"",
            "",
            "`-x` is no name of an account or group\nhint: letters, digits and `._-`",
        ),
        (
            "account.x",
            "groups = [\"a:b\"]",
            "`a:b` is no name of an account or group\nhint: letters, digits and `._-`",
        ),
        (
            "account.x",
            "home_mode = \"rwx\"",
            "`rwx` is no mode\nhint: write octal digits, for example \"700\"",
        ),
        (
            "xcode.x",
            "licence = true",
            "`licence` and `first_launch` are told of the selected Xcode alone\nhint: say `selected = true` as well",
        ),
        (
            "xcode.x",
            "app = \"/Applications\"",
            "`/Applications` is no application\nhint: app = \"/Applications/Xcode.app\"",
        ),
        (
            "simulator.ios",
            "",
            "`ios` is no platform with a simulator\nhint: there are iOS, tvOS, watchOS, visionOS",
        ),
    ];
    for (head, body, expected) in cases {
        let items = format!("[{head}]\nwhy = \"a test\"\n{body}");
        assert_eq!(complaint(BOTH, &items), expected, "{items}");
    }
}

#[test]
fn what_means_nothing_on_the_only_system_it_is_for_is_refused() {
    let item = |head: &str, body: &str| format!("[{head}]\nwhy = \"a test\"\n{body}");
    let nothing = |id: &str, os: &str| format!("`{id}` means nothing there\nhint: os = \"{os}\"");
    let cases = [
        (
            BOTH,
            item("posture.sip", "want = true\nos = \"linux\""),
            nothing("posture sip", "macos"),
        ),
        (
            BOTH,
            item("posture.landlock", "want = 6\nos = \"macos\""),
            nothing("posture landlock", "linux"),
        ),
        ("\"linux\"", item("xcode.x", ""), nothing("xcode x", "macos")),
        ("\"linux\"", item("rosetta.x", "os = \"macos\""), String::new()),
        (BOTH, item("posture.sip", "want = true"), String::new()),
        (
            BOTH,
            item("posture.sleep", "want = false\nos = \"linux\""),
            String::new(),
        ),
    ];
    for (os, items, expected) in cases {
        assert_eq!(complaint(os, &items), expected, "{items}");
    }
}

#[test]
fn the_manifests_that_come_with_the_program_can_be_meant() {
    for name in ephemerd::provision::manifest::built_in() {
        if let Err(error) = load(name, Utf8Path::new("/")) {
            panic!("{name}: {error}");
        }
    }
}
