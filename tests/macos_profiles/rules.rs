//! What holds for all rules of a profile.

use std::collections::BTreeSet;

use ephemerd::profile::Posture;
use ephemerd::profile::decide::Verdict;
use ephemerd::profile::lint::lint;
use ephemerd::profile::policy::Network;
use ephemerd::profile::sbpl::Semantics;
use ephemerd::profile::sbpl::decide::Decider;
use ephemerd::profile::sbpl::{Release, Target};

use crate::subject::{POSTURES, RELEASES, path, rendered, try_rendered};

const SIBLING: &str = "/private/var/lib/ephemerd/native/bbbbbbbbbbb/work/file";

#[test]
fn every_deny_carries_the_tag_of_the_job() {
    for posture in POSTURES {
        let subject = rendered(posture, |input| {
            input.extra_write = vec![path("/srv/cache")];
            input.extra_read = vec![path("/srv/cache/read")];
        });
        let denies = subject
            .ruleset()
            .rules
            .iter()
            .filter(|rule| rule.verdict == Verdict::Deny);
        let untagged: Vec<_> = denies
            .filter(|rule| rule.message() != Some("ephemerd:aaaaaaaaaaa"))
            .map(ToString::to_string)
            .collect();
        assert_eq!(untagged, Vec::<String>::new(), "{posture}");
    }
}

#[test]
fn no_lint_finds_anything() {
    let semantics = [true, false].map(|limit_per_rule| Semantics {
        limit_per_rule,
        ..Semantics::of(Release::NEWEST)
    });
    for posture in POSTURES {
        for (release, network) in RELEASES.into_iter().zip([Network::None, Network::Host]) {
            let subject = try_rendered(posture, release, |input| {
                input.network = network;
                input.extra_write = vec![path("/srv/cache")];
                input.extra_read = vec![path("/srv/cache/read"), path("/Users/me/tools")];
            });
            let subject = subject.unwrap();
            let found = semantics
                .iter()
                .flat_map(|semantics| lint(subject.ruleset(), semantics, release));
            let told: Vec<String> = found.map(|finding| finding.to_string()).collect();
            assert_eq!(told, Vec::<String>::new(), "{posture} {release}");
        }
    }
}

#[test]
fn a_sibling_is_denied_for_every_operation_that_can_be_about_a_path() {
    for posture in POSTURES {
        for release in RELEASES {
            let subject = try_rendered(posture, release, |_| ()).unwrap();
            let ruleset = subject.ruleset();
            let semantics = Semantics::of(release);
            let mut asked = 0;
            for (id, operation) in ruleset.vocabulary.operations() {
                let about_files =
                    operation.name.starts_with("file") || operation.name.starts_with("process-exec");
                let about_sockets = operation.name.starts_with("network");
                if !ruleset.vocabulary.goes_with(id, "path") || !(about_files || about_sockets) {
                    continue;
                }
                let target = if about_sockets {
                    Target::unix_socket(SIBLING)
                } else {
                    Target::file(SIBLING)
                };
                let (verdict, decider) = ruleset.verdict(id, &target, &semantics);
                assert_eq!(verdict, Verdict::Deny, "{posture} {release} {}", operation.name);
                let Decider::Rule(index) = decider else {
                    panic!("{} is denied by no rule", operation.name);
                };
                assert!(
                    ruleset.rules[index]
                        .operations
                        .iter()
                        .any(|(named, _)| *named == id),
                    "{posture} {release}: the last deny does not name {}",
                    operation.name
                );
                asked += 1;
            }
            assert!(asked >= 34, "{asked}");
        }
    }
}

#[test]
fn every_operation_that_ignores_the_default_is_decided_by_a_rule() {
    // Only inside of a filter for messages, where there is none.
    let left: BTreeSet<&str> = ["default", "default-message-filter"].into();
    for posture in POSTURES {
        for release in RELEASES {
            let subject = try_rendered(posture, release, |_| ()).unwrap();
            let ruleset = subject.ruleset();
            let named: BTreeSet<_> = ruleset
                .rules
                .iter()
                .filter(|rule| rule.filters.is_empty())
                .flat_map(|rule| rule.operations.iter().map(|(id, _)| *id))
                .collect();
            let open: Vec<&str> = ruleset
                .vocabulary
                .operations()
                .filter(|(id, operation)| operation.parent.is_none() && !named.contains(id))
                .map(|(_, operation)| operation.name)
                .filter(|name| !left.contains(name))
                .collect();
            assert_eq!(open, Vec::<&str>::new(), "{posture} {release}");
        }
    }
}

#[test]
fn no_rule_comes_near_the_size_the_compiler_refuses() {
    let many = |kind: &str| {
        (0..500)
            .map(|n| path(&format!("/srv/{kind}/{n:0>200}")))
            .collect::<Vec<_>>()
    };
    for posture in POSTURES {
        let subject = rendered(posture, |input| {
            input.extra_read = many("read");
            input.extra_write = many("write");
        });
        let longest = subject
            .ruleset()
            .rules
            .iter()
            .map(|rule| rule.to_string().len())
            .max();
        assert!(longest.unwrap() < 32 * 1024, "{longest:?}");
        assert!(subject.ruleset().rules.len() > 1000);
    }
}

#[test]
fn nothing_is_granted_about_the_near_end_of_what_goes_out() {
    for posture in POSTURES {
        for network in [Network::None, Network::Host] {
            let subject = rendered(posture, |input| input.network = network);
            let bad = subject.ruleset().rules.iter().map(ToString::to_string);
            let bad: Vec<_> = bad
                .filter(|rule| rule.starts_with("(allow network-outbound") && rule.contains("(local "))
                .collect();
            assert_eq!(bad, Vec::<String>::new());
        }
    }
}

#[test]
fn offline_reaches_nothing_but_this_machine_and_asks_for_no_names() {
    for posture in POSTURES {
        let offline = rendered(posture, |input| input.network = Network::None);
        let open = rendered(posture, |input| input.network = Network::Host);
        for (operation, target) in [
            ("network-outbound", "tcp:192.0.2.1:443"),
            ("network-outbound", "udp:192.0.2.1:53"),
            ("network-outbound", "tcp:[2001:db8::1]:443"),
            ("network-outbound", "/private/var/run/mDNSResponder"),
            ("mach-lookup", "com.apple.dnssd.service"),
            ("mach-lookup", "com.apple.networkd"),
            (
                "mach-lookup",
                "xpc-service-name=com.apple.security.XPCTimeStampingService",
            ),
            ("network-inbound", "tcp:*:8080"),
        ] {
            assert!(
                !offline.allows(operation, target),
                "{posture} offline {operation} {target}"
            );
            assert!(
                open.allows(operation, target),
                "{posture} open {operation} {target}"
            );
        }
        for subject in [&offline, &open] {
            assert!(subject.allows("network-outbound", "tcp:localhost:8080"));
            assert!(!subject.allows("network-outbound", "tcp:localhost:5900"));
            assert!(!subject.allows("network-outbound", "ip:192.0.2.1"));
            for socket in [
                "AF_INET/SOCK_DGRAM/1",
                "AF_INET6/SOCK_DGRAM/58",
                "AF_INET6/SOCK_RAW",
                "AF_SYSTEM/SOCK_DGRAM/1",
            ] {
                assert!(!subject.allows("system-socket", socket), "{posture} {socket}");
            }
            assert!(subject.allows("system-socket", "AF_INET6/SOCK_STREAM/6"));
        }
    }
}

#[test]
fn a_grant_to_read_inside_of_one_to_write_stays_read_only_and_back() {
    for posture in POSTURES {
        let subject = rendered(posture, |input| {
            input.extra_write = ["/srv/a", "/srv/a/b/c"].map(path).to_vec();
            input.extra_read = vec![path("/srv/a/b")];
        });
        let writes = |target| subject.allows_all(&["file-write-data", "file-write-create"], target);
        assert!(
            writes("/srv/a/x") && !writes("/srv/a/b/x") && writes("/srv/a/b/c/x"),
            "{posture}"
        );
        assert!(subject.allows("file-read-data", "/srv/a/b/x"));
        assert!(
            !subject.allows("network-outbound", "/srv/a/b/socket"),
            "a socket is more than reading"
        );
    }
}

#[test]
fn reading_a_folder_does_not_connect_to_the_sockets_in_it() {
    for posture in POSTURES {
        let subject = rendered(posture, |input| {
            input.extra_read = vec![path("/private/var/run/engine")]
        });
        assert!(subject.allows("file-read-data", "/private/var/run/engine/info"));
        assert!(
            !subject.allows("network-outbound", "/private/var/run/engine/socket"),
            "{posture}"
        );
    }
}

#[test]
fn standard_allows_what_strict_allows_among_files_to_read() {
    let strict = rendered(Posture::Strict, |_| ());
    let standard = rendered(Posture::Standard, |_| ());
    for target in [
        "/bin/sh",
        "/usr/lib/libSystem.B.dylib",
        "/private/etc/hosts",
        "/Library/Java/JavaVirtualMachines/x",
        "/opt/homebrew/bin/brew",
        "/Applications/Xcode_16.4.app/Contents/Info.plist",
        "/dev/urandom",
        "/System/Library/OpenSSL/openssl.cnf",
        "/private/var/db/mds/system/mdsObject.db",
    ] {
        assert!(strict.allows("file-read-data", target), "strict {target}");
        assert!(standard.allows("file-read-data", target), "standard {target}");
    }
    assert!(standard.allows("file-read-data", "/opt/local/bin/port"));
    assert!(!strict.allows("file-read-data", "/opt/local/bin/port"));
    assert!(
        standard.allows("file-write-data", "/private/tmp/x"),
        "programs that ignore TMPDIR"
    );
    assert!(
        !strict.allows("file-write-data", "/private/tmp/x"),
        "shared by every account"
    );
}

#[test]
fn both_releases_get_the_same_rules_but_for_what_only_one_knows() {
    for posture in POSTURES {
        let subjects = RELEASES.map(|release| try_rendered(posture, release, |_| ()).unwrap());
        let [old, new] = subjects.each_ref().map(|subject| {
            let rules = subject.ruleset().rules.iter();
            rules.map(ToString::to_string).collect::<Vec<_>>()
        });
        let (more, shared): (Vec<_>, Vec<_>) = new.into_iter().partition(|rule| {
            let only_new = ["file-graft", "sandbox-check", "mach-task-exception", "qtn-exec"];
            only_new.iter().any(|name| rule.contains(name))
        });
        assert_eq!(shared, old);
        assert_eq!(more.len(), 6, "{more:?}");
    }
    assert!(
        try_rendered(Posture::Strict, Release::MacOs10_15, |_| ()).is_err(),
        "names that came later are errors"
    );
}
