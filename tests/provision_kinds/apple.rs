//! Xcode, the command line tools, simulators and Rosetta.

use ephemerd::host::Os;
use ephemerd::provision::kind::Kind;
use ephemerd::provision::kind::apple::{CommandLineTools, Rosetta, Simulator, Xcode};
use ephemerd::provision::question::Answer;

use crate::told::{assert_every_answer_counts, complained, fix, fixture, host, printed, said, text, verdict};

fn tools(version: Option<&str>) -> Kind {
    let version = version.map(|text| text.parse().unwrap());
    Kind::CommandLineTools("any".to_owned(), CommandLineTools { version })
}

fn xcode(version: &str) -> Kind {
    let xcode = Xcode {
        version: Some(version.parse().unwrap()),
        app: "/Applications/Xcode.app".into(),
        selected: true,
        licence: true,
        first_launch: true,
    };
    Kind::Xcode("selected".to_owned(), xcode)
}

fn ios(version: Option<&str>) -> Kind {
    let version = version.map(|text| text.parse().unwrap());
    Kind::Simulator("iOS".to_owned(), Simulator { version })
}

fn rosetta() -> Kind {
    Kind::Rosetta("x86_64".to_owned(), Rosetta {})
}

type Told = Vec<(&'static str, Answer)>;

fn receipt(pkgutil: Answer, selected: Answer) -> Told {
    vec![("pkgutil --pkg-info", pkgutil), ("xcode-select -p", selected)]
}

/// A Mac whose Xcode is ready, but for what `other` says.
fn ready(other: Told) -> Told {
    let mut told = other;
    told.extend([
        (
            "read /Applications/Xcode.app/Contents/version.plist",
            text(&fixture("version-plist-xcode")),
        ),
        (
            "list /Applications",
            Answer::Names(vec!["Safari.app".to_owned(), "Xcode.app".to_owned()]),
        ),
        ("xcode-select -p", printed("xcode-select-xcode", 0)),
        ("xcodebuild -version", printed("xcodebuild-version", 0)),
        ("xcodebuild -license check", said("", 0)),
        ("xcodebuild -checkFirstLaunchStatus", said("", 0)),
    ]);
    told
}

#[test]
fn the_command_line_tools_are_told_by_their_receipt() {
    let context = host(Os::MacOs);
    let selected = || printed("xcode-select-tools", 0);
    let cases = [
        (
            tools(None),
            receipt(printed("pkgutil-tools", 0), selected()),
            "ok: 15.3.0.0.1.1708646388",
        ),
        (
            tools(Some(">=15")),
            receipt(printed("pkgutil-tools", 0), selected()),
            "ok: 15.3.0.0.1.1708646388",
        ),
        (
            tools(Some(">=16")),
            receipt(printed("pkgutil-tools", 0), selected()),
            "outdated: found 15.3.0.0.1.1708646388, wanted >=16",
        ),
        (
            tools(None),
            receipt(complained("pkgutil-no-receipt", 1), selected()),
            "missing: not there",
        ),
        (
            tools(None),
            receipt(printed("pkgutil-no-receipt", 1), selected()),
            "missing: not there",
        ),
        (
            tools(None),
            receipt(printed("pkgutil-no-version", 0), selected()),
            "unknown: pkgutil tells no version of them",
        ),
        (
            tools(None),
            receipt(printed("pkgutil-tools", 0), complained("xcode-select-none", 2)),
            "wrong: found no developer directory, wanted one that is selected",
        ),
    ];
    for (kind, told, expected) in cases {
        assert_eq!(verdict(&kind, &context, &told), expected);
    }
    let good = receipt(printed("pkgutil-tools", 0), selected());
    assert_every_answer_counts(&tools(None), &context, &good, &[]);
    let lost = receipt(printed("pkgutil-tools", 0), complained("xcode-select-none", 2));
    assert_eq!(
        fix(&tools(None), &context, &lost),
        ["+ /usr/bin/xcode-select --reset"]
    );
    let none = receipt(complained("pkgutil-no-receipt", 1), selected());
    assert!(fix(&tools(None), &context, &none)[0].starts_with("? xcode-select --install"));
}

#[test]
fn an_xcode_is_installed_selected_licensed_and_launched() {
    let context = host(Os::MacOs);
    let plist = "read /Applications/Xcode.app/Contents/version.plist";
    let names = |names: &[&str]| Answer::Names(names.iter().map(|name| (*name).to_owned()).collect());
    let cases = [
        (">=16", ready(vec![]), "ok: 16.2 (/Applications/Xcode.app)"),
        (
            ">=26",
            ready(vec![]),
            "outdated: found 16.2 (/Applications/Xcode.app), wanted >=26",
        ),
        (
            "<16",
            ready(vec![]),
            "wrong: found 16.2 (/Applications/Xcode.app), wanted <16",
        ),
        (
            ">=16",
            ready(vec![
                (plist, Answer::Missing),
                ("list /Applications", names(&["Safari.app"])),
            ]),
            "missing: not there",
        ),
        (
            ">=16",
            ready(vec![
                (plist, Answer::Missing),
                ("list /Applications", names(&["Xcode-16.2.app", "Xcodes.txt"])),
            ]),
            "wrong: found Xcode-16.2.app in /Applications, wanted `/Applications/Xcode.app`; name another in `app`",
        ),
        (
            ">=16",
            ready(vec![(plist, text(&fixture("version-plist-without")))]),
            "unknown: `/Applications/Xcode.app` does not say its version",
        ),
        (
            ">=16",
            ready(vec![("xcode-select -p", printed("xcode-select-tools", 0))]),
            "wrong: found /Library/Developer/CommandLineTools selected, wanted /Applications/Xcode.app/Contents/Developer selected",
        ),
        (
            ">=16",
            ready(vec![("xcode-select -p", complained("xcode-select-none", 2))]),
            "wrong: found nothing selected, wanted /Applications/Xcode.app/Contents/Developer selected",
        ),
        (
            ">=16",
            ready(vec![
                ("xcodebuild -license", said("", 69)),
                ("xcodebuild -check", said("", 69)),
            ]),
            "wrong: found no accepted licence, no first launch, wanted accepted licence, first launch",
        ),
        (
            ">=16",
            ready(vec![(
                "xcodebuild -version",
                complained("xcodebuild-needs-xcode", 1),
            )]),
            "unknown: xcodebuild: exit code 1: xcode-select: error: tool 'xcodebuild' requires Xcode, but active developer directory '/Library/Developer/CommandLineToo…",
        ),
        (
            ">=16",
            ready(vec![(
                "xcodebuild -license",
                complained("xcodebuild-not-agreed", 1),
            )]),
            "wrong: found no accepted licence, wanted accepted licence",
        ),
        (
            ">=16",
            ready(vec![("xcodebuild -license", said("", 1))]),
            "unknown: exit code 1",
        ),
    ];
    for (version, told, expected) in cases {
        assert_eq!(verdict(&xcode(version), &context, &told), expected);
    }
    assert_every_answer_counts(&xcode(">=16"), &context, &ready(vec![]), &["list"]);
}

#[test]
fn an_xcode_is_selected_and_made_ready_and_the_former_selection_comes_back() {
    let context = host(Os::MacOs);
    let kind = xcode(">=16");
    let unready = ready(vec![
        ("xcode-select -p", printed("xcode-select-tools", 0)),
        ("xcodebuild -license", said("", 69)),
    ]);
    assert_eq!(
        fix(&kind, &context, &unready),
        [
            "+ /usr/bin/xcode-select -s /Applications/Xcode.app/Contents/Developer",
            "- /usr/bin/xcode-select -s /Library/Developer/CommandLineTools",
            // Whether another Xcode is ready tells nothing of this one.
            "+ /usr/bin/xcodebuild -license accept",
            "+ /usr/bin/xcodebuild -runFirstLaunch",
        ]
    );
    let unlicensed = ready(vec![("xcodebuild -license", said("", 69))]);
    assert_eq!(
        fix(&kind, &context, &unlicensed),
        ["+ /usr/bin/xcodebuild -license accept"]
    );
    let unselected = ready(vec![("xcode-select -p", complained("xcode-select-none", 2))]);
    assert_eq!(
        fix(&kind, &context, &unselected)[1],
        "- /usr/bin/xcode-select --reset"
    );
    let absent = ready(vec![("read", Answer::Missing), ("list", Answer::Names(vec![]))]);
    assert_eq!(
        fix(&kind, &context, &absent),
        [
            "? install Xcode >=16 as /Applications/Xcode.app from https://developer.apple.com/download/all, then: xcode-select -s /Applications/Xcode.app/Contents/Developer"
        ]
    );
    let late = ready(vec![("xcodebuild -version", Answer::TimedOut)]);
    assert_eq!(
        fix(&kind, &context, &late),
        ["? see what keeps it from being asked"]
    );
}

#[test]
fn a_simulator_is_there_when_a_runtime_of_its_platform_can_be_used() {
    let context = host(Os::MacOs);
    let list = |answer| vec![("xcrun simctl list runtimes -j", answer)];
    let vision = Kind::Simulator("visionOS".to_owned(), Simulator { version: None });
    let runtimes = || list(printed("simctl-runtimes", 0));
    let cases = [
        (ios(None), runtimes(), "ok: 18.2"),
        (ios(Some(">=17, <18")), runtimes(), "ok: 17.5"),
        (ios(Some(">=26")), runtimes(), "outdated: found 18.2, wanted >=26"),
        (ios(None), list(printed("simctl-none", 0)), "missing: not there"),
        (
            vision,
            runtimes(),
            "wrong: found 2.2, which this Xcode cannot use, wanted one that is available",
        ),
        (
            ios(None),
            list(printed("garbage", 0)),
            "unknown: what simctl lists is no list of runtimes",
        ),
        (
            ios(None),
            list(complained("xcrun-no-simctl", 72)),
            "unknown: exit code 72: xcrun: error: unable to find utility \"simctl\", not a developer tool or in PATH",
        ),
    ];
    for (kind, told, expected) in cases {
        assert_eq!(verdict(&kind, &context, &told), expected);
    }
    assert_every_answer_counts(&ios(None), &context, &runtimes(), &[]);
    let none = list(printed("simctl-none", 0));
    assert_eq!(
        fix(&ios(None), &context, &none),
        ["+ /usr/bin/xcodebuild -downloadPlatform iOS"]
    );
}

#[test]
fn rosetta_is_there_when_it_starts_something_for_a_job_too() {
    let context = host(Os::MacOs);
    let at = || Answer::At("/Library/Apple/usr/libexec/oah/libRosettaRuntime".into());
    let told = |runtime, host, job| {
        vec![
            ("resolve", runtime),
            ("arch -x86_64 /usr/bin/true", host),
            ("job: arch", job),
        ]
    };
    let (yes, no) = (|| said("", 0), || complained("arch-no-rosetta", 1));
    let cases = [
        (told(at(), yes(), yes()), "ok: programs for x86_64 run"),
        // Where its runtime is was not confirmed for every release; what starts is there.
        (told(Answer::Missing, yes(), yes()), "ok: programs for x86_64 run"),
        (told(Answer::Missing, no(), no()), "missing: not there"),
        (
            told(at(), no(), no()),
            "wrong: found its runtime, which starts nothing: exit code 1: arch: posix_spawnp: /usr/bin/true: Bad CPU type in executable, wanted programs for x86_64 that run",
        ),
        (
            told(at(), yes(), no()),
            "hidden by profile: `/Library/Apple/usr/libexec/oah/libRosettaRuntime` does not run in a job's sandbox",
        ),
    ];
    for (told, expected) in cases {
        assert_eq!(verdict(&rosetta(), &context, &told), expected);
    }
    assert_every_answer_counts(&rosetta(), &context, &told(at(), yes(), yes()), &[]);
    assert_eq!(
        fix(&rosetta(), &context, &told(Answer::Missing, no(), no())),
        ["+ /usr/sbin/softwareupdate --install-rosetta --agree-to-license"]
    );
    let mut intel = host(Os::MacOs);
    intel.arch = "x86_64".to_owned();
    let found = verdict(&rosetta(), &intel, &told(Answer::Missing, no(), no()));
    assert_eq!(found, "not here: this machine runs such programs itself");
}

#[test]
fn none_of_it_is_asked_on_linux() {
    let context = host(Os::Linux);
    for kind in [tools(None), xcode(">=16"), ios(None), rosetta()] {
        assert!(kind.questions(&context).is_empty());
        assert!(verdict(&kind, &context, &[]).starts_with("not here"));
    }
}
