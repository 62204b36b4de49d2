//! What must hold of any text that is taken for a profile. The fuzz target asks it of what it makes up, and
//! `tests/corpus.rs` of the seeds.

use std::collections::BTreeMap;

use ephemerd::profile::decide::Verdict;
use ephemerd::profile::lint::{OLDEST, codes, lint};
use ephemerd::profile::sbpl::vocabulary::Vocabulary;
use ephemerd::profile::sbpl::{
    Imports, Problems, Release, Rule, Ruleset, Semantics, Settings, Target, check_syntax, compile,
};

/// What every compiled profile is asked: operations of each family, on targets that filters like to name.
const QUESTIONS: [(&str, &str); 26] = [
    ("default", "-"),
    ("file-read-data", "/Users/ci/src/main.c"),
    ("file-read-data", "/private/etc/hosts"),
    ("file-read-metadata", "/"),
    ("file-read-metadata", "/etc"),
    ("file-read-xattr", "/a"),
    ("file-write-create", "/private/tmp/x/"),
    ("file-write-unlink", "/Users/ci/.ssh"),
    ("file-write-setugid", "/a"),
    ("file-map-executable", "/usr/lib/libSystem.B.dylib"),
    ("file-link", "/Users/CI/Src"),
    ("process-exec", "/bin/sh"),
    ("process-fork", "-"),
    ("process-info-pidinfo", "others"),
    ("process-info-pidinfo", "self"),
    ("signal", "same-sandbox"),
    ("mach-lookup", "com.apple.trustd"),
    ("sysctl-read", "kern.procargs2"),
    ("sysctl-write", "kern.x"),
    ("network-outbound", "tcp:127.0.0.1:22"),
    ("network-outbound", "udp:[::1]:53"),
    ("network-outbound", "/private/var/run/mDNSResponder"),
    ("network-bind", "tcp:localhost:8080"),
    ("system-socket", "AF_INET/SOCK_RAW"),
    ("ipc-posix-shm-read-data", "apple.shm"),
    ("job-creation", "-"),
];

/// Asks everything of `text` as a profile: without parameters for the newest release, and with some for the
/// oldest.
///
/// # Panics
/// Something does not hold.
pub(crate) fn holds(text: &[u8]) {
    let bare = Settings::new(Release::NEWEST);
    let params = ["HOME", "TMPDIR", "WORK", "_HOME"].map(|name| (name.to_owned(), "/Users/ci".to_owned()));
    let generous = Settings {
        release: Release::MacOs10_15,
        params: BTreeMap::from(params),
        imports: Imports::Skipped,
    };
    for settings in [&bare, &generous] {
        match compile("fuzz.sb", text, settings) {
            Ok(ruleset) => {
                assert!(
                    check_syntax("fuzz.sb", text).is_ok(),
                    "compiles without being well formed"
                );
                same_when_printed(&ruleset, settings);
                let findings = lint(&ruleset, &Semantics::of(settings.release), OLDEST);
                let known = |code| codes::ALL.iter().any(|known| known.id == code);
                assert!(findings.iter().all(|finding| known(finding.code)));
            }
            Err(problems) => are_told(&problems),
        }
    }
}

/// Problems are some, and none is ours.
fn are_told(problems: &Problems) {
    assert!(!problems.0.is_empty() && problems.0.len() <= 50);
    for problem in &problems.0 {
        assert!(!problem.message.starts_with("the evaluator failed"), "{problem}");
        let shown = problem.to_string();
        assert!(
            !shown.replace("\nhint: ", "").contains(char::is_control),
            "{shown:?}"
        );
        assert!(problem.at.line > 0 && problem.at.column > 0, "{problem}");
    }
}

/// The rules of a profile, printed as a profile, are the same rules and decide the same.
fn same_when_printed(ruleset: &Ruleset, settings: &Settings) {
    let lines: Vec<String> = ruleset.rules.iter().map(Rule::to_string).collect();
    let printed = format!("(version 1)\n{}", lines.join("\n"));
    let again = match compile("printed.sb", printed.as_bytes(), settings) {
        Ok(again) => again,
        // What a loop makes of a short text can be too long for a text.
        Err(problems)
            if ["memory", "bytes", "steps"]
                .iter()
                .any(|limit| problems.to_string().contains(limit)) =>
        {
            return;
        }
        Err(problems) => panic!("the printed rules do not compile: {problems}\n{printed}"),
    };
    let lines_again: Vec<String> = again.rules.iter().map(Rule::to_string).collect();
    assert_eq!(lines, lines_again);
    let believed = Semantics::of(settings.release);
    let otherwise = Semantics {
        unfiltered_exact_first: false,
        file_map_executable: Verdict::Deny,
        same_sandbox_by_text: true,
        procargs_has_name: true,
        fold_case: false,
        localhost_covers_own_addresses: false,
        ..believed
    };
    for (operation, target) in QUESTIONS {
        let (id, target) = question(ruleset.vocabulary, operation, target);
        for semantics in [believed, otherwise] {
            let ruling = ruleset.decide(id, &target, &semantics);
            assert_eq!(
                ruleset.verdict(id, &target, &semantics),
                again.verdict(id, &target, &semantics),
                "{operation} {target}\n{printed}"
            );
            assert_eq!(ruling.verdict, ruleset.verdict(id, &target, &semantics).0);
            assert!(!ruling.chain.is_empty());
        }
    }
}

fn question(
    vocabulary: &Vocabulary,
    operation: &str,
    target: &str,
) -> (ephemerd::profile::sbpl::vocabulary::OperationId, Target) {
    let id = vocabulary
        .asked(operation)
        .expect("an operation of every release");
    (
        id,
        Target::parse(vocabulary, id, target).expect("a target of that operation"),
    )
}
