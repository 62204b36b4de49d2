//! Every posture: how it is found right, wrong and unclear, and what would help.

mod linux;
mod mac;

use ephemerd::host::Os;
use ephemerd::provision::kind::Kind;
use ephemerd::provision::kind::posture::{Posture, Want, names};
use ephemerd::provision::question::Answer;

use crate::told::{assert_every_answer_counts, fix, host, printed, said, verdict};
use mac::{icloud, unset};

fn posture(name: &str, want: Want) -> Kind {
    Kind::Posture(name.to_owned(), Posture { want })
}

fn off() -> Want {
    Want::Switch(false)
}

fn on() -> Want {
    Want::Switch(true)
}

fn policy(name: &str) -> Want {
    Want::Named(name.to_owned())
}

type Told = Vec<(&'static str, Answer)>;

/// A posture, what is wanted, what is told, the verdict, and what would help.
struct Case {
    name: &'static str,
    os: Os,
    want: Want,
    told: Told,
    verdict: &'static str,
    fix: Vec<&'static str>,
}

fn case(
    (name, os, want): (&'static str, Os, Want),
    told: Told,
    verdict: &'static str,
    fix: &[&'static str],
) -> Case {
    Case {
        name,
        os,
        want,
        told,
        verdict,
        fix: fix.to_vec(),
    }
}

const UNCLEAR: &str = "? see what keeps it from being asked";

fn cases() -> Vec<Case> {
    let parts = [
        mac::safety(),
        mac::people(),
        mac::settings(),
        mac::indexing(),
        linux::settings(),
    ];
    parts.into_iter().flatten().collect()
}

#[test]
fn every_posture_is_told_from_what_the_tools_say() {
    for Case {
        name,
        os,
        want,
        told,
        verdict: expected,
        fix: helps,
    } in cases()
    {
        let (kind, context) = (posture(name, want), host(os));
        // A verdict is one line, whatever a tool says.
        let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(verdict(&kind, &context, &told), expected, "{name} on {os:?}");
        assert_eq!(fix(&kind, &context, &told), helps, "{name} on {os:?}: {expected}");
    }
}

#[test]
fn every_posture_has_a_case_that_is_met_one_that_is_not_and_one_that_nobody_can_tell() {
    for name in names() {
        for standing in ["ok", "wrong", "unknown"] {
            let has = cases()
                .iter()
                .any(|case| case.name == name && case.verdict.starts_with(standing));
            assert!(has, "no case of {name} is {standing}");
        }
    }
}

#[test]
fn no_posture_is_met_by_an_answer_that_tells_nothing() {
    for Case {
        name,
        os,
        want,
        told,
        verdict: expected,
        ..
    } in cases()
    {
        if expected.starts_with("ok") {
            let idle: &[&str] = match expected {
                "ok: the kernel offers none" if matches!(told[0].1, Answer::Missing) => &["systemctl"],
                "ok: the kernel offers none" => &["systemctl", "resolve"],
                "ok: masked" => &["resolve"],
                text if text.contains(".metadata_never_index") => &["mdutil"],
                "ok: does not index /System/Volumes/Data" => &["mdutil -s /"],
                _ => &[],
            };
            assert_every_answer_counts(&posture(name, want), &host(os), &told, idle);
        }
    }
}

#[test]
fn only_root_can_tell_that_nobody_is_signed_in() {
    let mut context = host(Os::MacOs);
    context.root = false;
    let told = icloud(unset(), printed("icloud-nobody", 0));
    let kind = posture("icloud", off());
    assert_eq!(
        verdict(&kind, &context, &told),
        "unknown: only root sees who is signed in"
    );
    let told = icloud(unset(), printed("icloud-everybody", 0));
    assert!(verdict(&kind, &context, &told).starts_with("wrong"));
}

#[test]
fn spotlight_is_asked_about_the_volume_of_workspaces() {
    let mut context = host(Os::MacOs);
    context.data_dir = "/Volumes/ci/ephemerd".into();
    let told = [
        ("look /Volumes/ci", Answer::Missing),
        (
            "mdutil -s /Volumes/ci",
            said("/Volumes/ci:\n\tIndexing disabled. ", 0),
        ),
    ];
    assert_eq!(
        verdict(&posture("spotlight", off()), &context, &told),
        "ok: does not index /Volumes/ci"
    );
}

#[test]
fn what_means_nothing_on_a_system_is_not_asked_there() {
    for (name, os, want) in [
        ("filevault", Os::Linux, on()),
        ("landlock", Os::MacOs, Want::AtLeast(6)),
    ] {
        let (kind, context) = (posture(name, want), host(os));
        assert!(kind.questions(&context).is_empty());
        assert_eq!(
            verdict(&kind, &context, &[]),
            "not here: it means nothing on this system"
        );
    }
}

#[test]
fn how_other_distributions_update_is_not_guessed() {
    let mut context = host(Os::Linux);
    context.distribution = vec!["fedora".to_owned()];
    let found = verdict(&posture("automatic_updates", policy("off")), &context, &[]);
    assert_eq!(
        found,
        "unknown: how this distribution updates itself is not known here"
    );
}
