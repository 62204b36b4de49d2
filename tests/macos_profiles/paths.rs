//! Paths of whoever writes the configuration, on their way into rules.

use ephemerd::profile::policy::Network;
use ephemerd::profile::render::macos::resolved_spelling;
use ephemerd::profile::render::{RenderError, RunnerInput};
use ephemerd::profile::sbpl::Release;
use ephemerd::profile::{Posture, sbpl::Ruleset};
use proptest::prelude::*;

use crate::subject::{POSTURES, homebrew, mac, path, rendered, try_rendered};

fn texts(ruleset: &Ruleset) -> Vec<String> {
    ruleset.rules.iter().map(ToString::to_string).collect()
}

/// What `with` has more than `without`.
fn added(with: &Ruleset, without: &Ruleset) -> Vec<String> {
    let mut left = texts(without);
    let mut more = Vec::new();
    for rule in texts(with) {
        match left.iter().position(|known| *known == rule) {
            Some(index) => drop(left.remove(index)),
            None => more.push(rule),
        }
    }
    assert_eq!(left, Vec::<String>::new(), "nothing is lost");
    more
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if c == '"' || c == '\\' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_path_comes_back_as_exactly_one_rule_with_exactly_that_path(
        name in "[ -.0-~]{1,40}",
        hostile in prop::sample::select(vec!["", "\\\"", "\"))(allow default)", "\\", "\\\\\"", ";", "#|", "(param \"X\")"]),
        write in any::<bool>(),
    ) {
        let name = format!("{name}{hostile}");
        prop_assume!(name != "." && name != "..");
        let granted = path("/grant").join(&name);
        for posture in POSTURES {
            let change = |path: &str| {
                let granted = self::path(path);
                rendered(posture, |input| {
                    let list = if write { &mut input.extra_write } else { &mut input.extra_read };
                    list.push(granted);
                })
            };
            // Another grant beside it, so that both have the same folders above them.
            let (with, other) = (change(granted.as_str()), change("/grant/other-name-that-is-long-enough-to-differ"));
            prop_assume!(name != "other-name-that-is-long-enough-to-differ");
            let more: Vec<String> = {
                let known = texts(other.ruleset());
                texts(with.ruleset()).into_iter().filter(|rule| !known.contains(rule)).collect()
            };
            prop_assert_eq!(with.ruleset().rules.len(), other.ruleset().rules.len());
            prop_assert_eq!(more.len(), 1, "{:?}", more);
            let ending = format!("(subpath {}))", quoted(granted.as_str()));
            prop_assert!(more[0].ends_with(&ending), "{}", more[0]);
        }
    }

    #[test]
    fn a_path_with_control_characters_or_beyond_ascii_is_refused(c in "[\\x00-\\x1f\\x7f-\\x{ffff}]") {
        for posture in POSTURES {
            let refused = try_rendered(posture, Release::NEWEST, |input| {
                input.extra_read = vec![path(&format!("/grant/a{c}b"))];
            });
            let is_path_error = matches!(refused, Err(RenderError::Path { .. }));
            prop_assert!(is_path_error);
        }
    }

    #[test]
    fn resolving_a_spelling_twice_changes_nothing(text in "(/(etc|tmp|var|private|System|Volumes|Data|a)){1,5}") {
        let once = resolved_spelling(&path(&text));
        prop_assert_eq!(resolved_spelling(&once), once);
    }
}

#[test]
fn a_grant_adds_its_rule_and_the_folders_above_it() {
    let with = rendered(Posture::Strict, |input| {
        input.extra_read = vec![path("/srv/tools")]
    });
    let without = rendered(Posture::Strict, |_| ());
    let more = added(with.ruleset(), without.ruleset());
    assert_eq!(more.len(), 2, "{more:#?}");
    assert!(more[0].contains("(literal \"/srv\")") && more[1].ends_with("(subpath \"/srv/tools\"))"));
}

#[test]
fn refuses_spellings_that_would_match_something_else() {
    for bad in [
        "srv/x",
        "/srv/../etc",
        "/srv/./x",
        "/srv//x",
        "/srv/x/",
        "/srv/a\nb",
        "/srv/\u{e9}",
        "/srv/e\u{301}",
        "/",
    ] {
        for posture in POSTURES {
            let grant = try_rendered(posture, Release::NEWEST, |input| {
                input.extra_write = vec![path(bad)]
            });
            assert!(matches!(grant, Err(RenderError::Path { .. })), "{bad}");
            let state = try_rendered(posture, Release::NEWEST, |input| {
                input.daemon_files = vec![path(bad)]
            });
            assert!(
                bad == "/" || matches!(state, Err(RenderError::Path { .. })),
                "{bad}"
            );
        }
    }
}

#[test]
fn links_of_the_system_and_the_data_volume_are_resolved_by_text() {
    for (written, resolved) in [
        ("/tmp", "/private/tmp"),
        ("/var/lib/ephemerd", "/private/var/lib/ephemerd"),
        ("/etc/hosts", "/private/etc/hosts"),
        ("/etcetera", "/etcetera"),
        ("/private/tmp", "/private/tmp"),
        ("/System/Volumes/Data/Users/a", "/Users/a"),
        ("/System/Volumes/Data/var/x", "/private/var/x"),
    ] {
        assert_eq!(resolved_spelling(&path(written)), resolved);
    }
}

#[test]
fn two_spellings_of_one_grant_are_one_and_the_wider_one_counts() {
    let subject = rendered(Posture::Strict, |input| {
        input.extra_read = vec![path("/private/var/cache")];
        input.extra_write = vec![path("/var/cache")];
    });
    assert_eq!(
        subject.text.matches("(subpath \"/private/var/cache\")").count(),
        1
    );
    assert!(subject.allows("file-write-data", "/private/var/cache/x"));
}

#[test]
fn a_grant_of_what_stays_closed_is_an_error_and_not_a_surprise_inside_the_job() {
    for granted in [
        "/Users/builder/.ssh",
        "/private/var/folders/zz/two",
        "/private/var/root/cache",
        "/opt/eph/2",
    ] {
        for posture in POSTURES {
            let refused = try_rendered(posture, Release::NEWEST, |input| {
                input.extra_read = vec![path(granted)]
            });
            let Err(RenderError::Grant { path, rule }) = refused else {
                panic!("{granted} was granted");
            };
            assert_eq!(path, granted);
            assert!(rule.contains("(deny "), "{rule}");
        }
    }
}

#[test]
fn refuses_places_that_cannot_be_kept_apart_from_those_of_others() {
    let refused = |change: fn(&mut ephemerd::profile::render::macos::Places)| {
        let subject = try_rendered(Posture::Strict, Release::NEWEST, |input| change(mac(input)));
        assert!(matches!(subject, Err(RenderError::Path { .. })));
    };
    refused(|mac| mac.user_folder = path("/private/var/folders"));
    refused(|mac| mac.user_folder = path("/Users/builder"));
    refused(|mac| mac.prefixes = path("/"));
    refused(|mac| mac.prefixes = path("/opt"));
    refused(|mac| mac.runner_places = path("/opt"));
}

#[test]
fn a_prefix_inside_the_workspace_needs_no_rule_of_its_own() {
    let subject = rendered(Posture::Strict, |input| {
        input.homebrew = Some(homebrew(input.workspace.join("homebrew").as_str()));
        input.network = Network::Host;
    });
    assert!(!subject.text.contains("/opt/eph/1"));
    assert!(subject.allows(
        "file-write-data",
        "/private/var/lib/ephemerd/native/aaaaaaaaaaa/homebrew/bin/x"
    ));
}

#[test]
fn without_homebrew_its_prefix_is_not_readable_in_strict() {
    let subject = rendered(Posture::Strict, |input| {
        input.homebrew = None;
    });
    assert!(!subject.allows("file-read-data", "/opt/homebrew/bin/brew"));
}

#[test]
fn prefixes_of_others_stay_closed_whether_a_job_has_one_or_not() {
    for posture in POSTURES {
        for own in [None, Some(homebrew("/opt/eph/1"))] {
            let subject = rendered(posture, |input| input.homebrew.clone_from(&own));
            for operation in ["file-read-data", "file-write-data"] {
                assert!(
                    !subject.allows(operation, "/opt/eph/2/bin/brew"),
                    "{posture} {own:?}"
                );
                assert_eq!(subject.allows(operation, "/opt/eph/1/bin/brew"), own.is_some());
            }
            assert!(
                !subject.allows("file-write-unlink", "/opt/eph"),
                "{posture} {own:?}"
            );
        }
    }
}

/// GitHub's runner of slot 1.
fn runner() -> RunnerInput {
    RunnerInput {
        root: path("/opt/eph-runner/1"),
        tree: path("/private/var/lib/ephemerd/runners/2.336.0-osx-arm64"),
        parts: vec![],
        door: Some(path("/private/var/run/ephemerd/0011/slot-1/admission.sock")),
    }
}

#[test]
fn a_runner_lists_every_folder_above_its_own_and_reads_no_other_runner() {
    for posture in POSTURES {
        let subject = rendered(posture, |input| input.runner = Some(runner()));
        for folder in ["/", "/opt/", "/opt/eph-runner/", "/opt/eph-runner/1/"] {
            assert!(subject.allows("file-read-data", folder), "{posture} {folder}");
        }
        for (operation, target) in [
            ("process-exec*", "/opt/eph-runner/1/bin/Runner.Listener"),
            ("file-write-data", "/opt/eph-runner/1/_diag/x.log"),
        ] {
            assert!(subject.allows(operation, target), "{posture} {target}");
        }
        for (operation, target) in [
            ("file-read-data", "/opt/eph-runner/2/.credentials"),
            ("file-read-metadata", "/opt/eph-runner/2/"),
            ("file-write-create", "/opt/eph-runner/2/"),
            ("file-write-unlink", "/opt/eph-runner/1/"),
            ("file-write-unlink", "/opt/eph-runner/"),
            // The shared tree is the daemon's, and so are the workspaces of others.
            (
                "file-read-data",
                "/private/var/lib/ephemerd/runners/2.336.0-osx-arm64/bin/x",
            ),
            ("file-read-data", "/private/var/lib/ephemerd/native/"),
        ] {
            assert!(
                !subject.allows(operation, target),
                "{posture} {operation} {target}"
            );
        }
    }
}

#[test]
fn a_runner_asks_at_its_own_door_and_no_other() {
    for posture in POSTURES {
        let own = "/private/var/run/ephemerd/0011/slot-1/admission.sock";
        let other = own.replace("slot-1", "slot-2");
        let subject = rendered(posture, |input| input.runner = Some(runner()));
        assert!(subject.allows("network-outbound", own), "{posture}");
        assert!(!subject.allows("network-outbound", &other), "{posture}");
        assert!(!subject.allows("file-write-data", own), "{posture}");
        let job = rendered(posture, |_| {});
        assert!(!job.allows("network-outbound", own), "{posture}");
        assert!(!job.allows("file-read-data", "/opt/eph-runner/"), "{posture}");
    }
}
