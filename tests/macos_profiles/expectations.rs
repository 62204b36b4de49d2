//! Every expectation is met, under every reading of the kernel.

use ephemerd::cli::profile::render::TargetOs;
use ephemerd::job::JobSpec;
use ephemerd::job::plan::{PlanError, Planner};
use ephemerd::profile::Posture;
use ephemerd::profile::decide::{Verdict, macos};
use ephemerd::profile::expect::{self, Finding};
use ephemerd::profile::policy::Network;
use ephemerd::profile::render::RenderInput;
use ephemerd::profile::sbpl::{Rule, Semantics, Target};
use ephemerd::slot::{Account, Slot};

use crate::subject::{POSTURES, RELEASES, Subject, path, places, readings, rendered, try_rendered};

fn findings(subject: &Subject) -> Vec<Finding> {
    expect::evaluate(&expect::built_in().unwrap(), &subject.rules, &places()).unwrap()
}

fn unmet(subject: &Subject) -> Vec<String> {
    let unmet = findings(subject).into_iter().filter(|finding| !finding.is_met());
    unmet
        .map(|f| format!("{}: {}", f.expectation.id, f.ruling.rule))
        .collect()
}

#[test]
fn both_postures_meet_every_expectation_on_both_releases_online_and_offline() {
    for posture in POSTURES {
        for release in RELEASES {
            for network in [Network::None, Network::Host] {
                let subject = try_rendered(posture, release, |input| input.network = network).unwrap();
                assert_eq!(
                    unmet(&subject),
                    Vec::<String>::new(),
                    "{posture} {release} {network:?}"
                );
            }
        }
    }
}

#[test]
fn expectations_hold_whichever_way_the_kernel_decides_what_is_in_doubt() {
    for posture in POSTURES {
        for release in RELEASES {
            let subject = try_rendered(posture, release, |_| ()).unwrap();
            for (name, semantics) in readings(release) {
                for Finding {
                    expectation, target, ..
                } in findings(&subject)
                {
                    // Then every job of the same text would be one sandbox; each text has its own tag.
                    if name == "P4" && expectation.id == "mac-signal-others" {
                        continue;
                    }
                    let asked = (&expectation.op, target.as_str());
                    let ruling =
                        macos::decide(subject.ruleset(), asked, expectation.verdict, &semantics).unwrap();
                    assert_eq!(
                        ruling.verdict, expectation.verdict,
                        "{posture} {release} {name}: {} by {}",
                        expectation.id, ruling.rule
                    );
                }
            }
        }
    }
}

/// The last rule that names the operation or a family it belongs to and whose condition is met, as the common belief
/// has it. It is wrong about the kernel; that the profile does not depend on it costs nothing.
fn last_match(subject: &Subject, operation: &str, target: &str) -> Verdict {
    let ruleset = subject.ruleset();
    let vocabulary = ruleset.vocabulary;
    let semantics = Semantics::of(vocabulary.release());
    let asked = vocabulary.asked(operation).unwrap();
    let target = Target::parse(vocabulary, asked, target).unwrap();
    let family: Vec<_> = std::iter::successors(Some(asked), |id| vocabulary.operation(*id).parent).collect();
    let decides = |rule: &&Rule| {
        let filters = &rule.filters;
        rule.operations.iter().any(|(id, _)| family.contains(id))
            && (filters.is_empty() || filters.iter().any(|filter| filter.matches(&target, &semantics)))
    };
    match ruleset.rules.iter().rev().find(decides) {
        Some(rule) => rule.verdict,
        None => ruleset.verdict(asked, &target, &semantics).0,
    }
}

#[test]
fn expectations_hold_for_who_believes_that_the_last_match_wins() {
    for posture in POSTURES {
        let subject = rendered(posture, |_| ());
        for Finding {
            expectation, target, ..
        } in findings(&subject)
        {
            for operation in macos::leaves(&expectation.op, expectation.verdict) {
                let verdict = last_match(&subject, operation, &target);
                assert_eq!(
                    verdict, expectation.verdict,
                    "{posture} {}: {operation}",
                    expectation.id
                );
            }
        }
    }
}

#[test]
fn a_job_whose_profile_misses_an_expectation_is_not_planned() {
    let planner = |text: &str| {
        let config = ephemerd::config::parse(text, "test").unwrap().config;
        let platform = TargetOs::MacOs26.platform(&config);
        Planner::new(config, "/etc/ephemerd/ephemerd.toml".into(), platform).unwrap()
    };
    let account = Account {
        name: "_ephemerd1".into(),
        uid: 451,
        gid: 450,
    };
    let slot = Slot {
        index: 1,
        account,
        first_port: 21_000,
        last_port: 21_099,
    };
    let job = "aaaaaaaaaaa".parse().unwrap();
    let spec: JobSpec = serde_json::from_value(serde_json::json!({
        "origin": {"repo": "acme/app", "event": "push"}, "command": ["true"], "env": {},
    }))
    .unwrap();
    planner("").checked(&job, &spec, &slot).unwrap();
    let unmet = planner("[native]\nextra_read = [\"/Users/somebody\"]").checked(&job, &spec, &slot);
    assert!(
        matches!(unmet, Err(PlanError::Unmet(finding)) if finding.expectation.id == "mac-home-file-read")
    );
    let elsewhere = Slot { index: 9, ..slot };
    let nowhere = planner("").checked(&job, &spec, &elsewhere);
    assert!(matches!(nowhere, Err(PlanError::Slot(9))));
}

#[test]
fn a_profile_without_its_last_part_misses_expectations() {
    // What is checked is not met by everything: without the denies that come last, it fails.
    let subject = rendered(Posture::Standard, |_| ());
    let cut = subject.text.split("; ---- 85").next().unwrap().to_owned();
    let settings = ephemerd::profile::sbpl::Settings::new(RELEASES[1]);
    let ruleset = ephemerd::profile::sbpl::compile("cut.sb", cut.as_bytes(), &settings).unwrap();
    let subject = Subject {
        text: cut,
        rules: ephemerd::profile::Rules::MacOs(Box::new(ruleset)),
    };
    let unmet = unmet(&subject);
    for id in [
        "sibling-read",
        "ledger-read",
        "mac-open",
        "mac-launch-services",
        "mac-workspace-rename",
    ] {
        assert!(
            unmet.iter().any(|found| found.starts_with(&format!("{id}:"))),
            "{id}: {unmet:#?}"
        );
    }
}

#[test]
fn grants_around_what_is_guarded_open_nothing_of_it() {
    let around = |input: &mut RenderInput| {
        input.extra_read = ["/Users/somebody", "/private/var", "/Library"].map(path).to_vec();
        input.extra_write = ["/opt", "/private/tmp"].map(path).to_vec();
    };
    let opened = |posture| {
        let subject = rendered(posture, around);
        let unmet = findings(&subject).into_iter().filter(|finding| !finding.is_met());
        unmet.map(|finding| finding.expectation.id).collect::<Vec<_>>()
    };
    // The home itself is what was granted; keys, keychains, other jobs and the daemon stay closed. That the host's
    // Homebrew can be written is a reason to start no job.
    for posture in POSTURES {
        assert_eq!(opened(posture), ["mac-host-homebrew-write", "mac-home-file-read"]);
    }
}

#[test]
fn every_expectation_says_why_and_allows_and_denies_are_both_there() {
    let expectations = expect::built_in().unwrap();
    let count = |verdict| expectations.iter().filter(|e| e.verdict == verdict).count();
    assert!(count(Verdict::Allow) > 40 && count(Verdict::Deny) > 80);
    for expectation in &expectations {
        assert!(expectation.why.len() > 5, "{}", expectation.id);
    }
}
