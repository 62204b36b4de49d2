//! Each lint's page has an example that it finds and one that it does not; what the pages leave out is here.

use super::*;
use crate::profile::sbpl::{Settings, compile};

const BASE: &str = "(version 1)(deny default)(deny process-info* nvram* iokit-get-properties)\n";
const OPEN: &str = "(version 1)(allow default)\n";

fn findings_with(text: &str, semantics: &Semantics) -> Vec<Finding> {
    let mut settings = Settings::new(semantics_release());
    settings.imports = crate::profile::sbpl::Imports::Skipped;
    let ruleset =
        compile("t.sb", text.as_bytes(), &settings).unwrap_or_else(|error| panic!("{error}\n{text}"));
    lint(&ruleset, semantics, OLDEST)
}

const fn semantics_release() -> Release {
    Release::NEWEST
}

/// The codes found in `rules` behind `base`, each once.
fn codes(base: &str, rules: &str) -> Vec<&'static str> {
    let found = findings_with(&format!("{base}{rules}"), &Semantics::of(Release::NEWEST));
    let mut codes: Vec<&str> = found.iter().map(|finding| finding.code).collect();
    codes.dedup();
    found.iter().for_each(|finding| println!("{finding}"));
    codes
}

/// The blocks of a page that are profiles.
fn examples(page: &str) -> Vec<&str> {
    let blocks = page.split("\n```").skip(1).step_by(2);
    blocks
        .filter_map(|block| block.strip_prefix("scheme\n"))
        .collect()
}

fn docs() -> camino::Utf8PathBuf {
    camino::Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

#[test]
fn every_code_has_a_page_whose_example_it_finds_and_whose_remedy_is_clean() {
    for code in codes::ALL {
        let page = std::fs::read_to_string(docs().join(format!("lints/{}.md", code.id))).unwrap();
        assert_eq!(
            page.lines().next(),
            Some(&*format!("# {}: {}", code.id, code.title))
        );
        let examples = examples(&page);
        assert_eq!(examples.len(), 2, "{}", code.id);
        assert_eq!(codes("", examples[0]), [code.id], "{}", examples[0]);
        assert_eq!(codes("", examples[1]), [""; 0], "{}: {}", code.id, examples[1]);
    }
}

#[test]
fn every_page_is_of_a_code_and_the_list_has_them_all() {
    let list = std::fs::read_to_string(docs().join("lints.md")).unwrap();
    let rows: Vec<String> = codes::ALL
        .iter()
        .map(|code| format!("| [{0}](lints/{0}.md) | {1} |", code.id, code.title))
        .collect();
    let listed: Vec<&str> = list.lines().filter(|line| line.starts_with("| [SB")).collect();
    assert_eq!(listed, rows);
    let pages = docs().join("lints").read_dir_utf8().unwrap();
    let mut pages: Vec<String> = pages.map(|page| page.unwrap().file_name().to_owned()).collect();
    pages.sort();
    let ids: Vec<String> = codes::ALL.iter().map(|code| format!("{}.md", code.id)).collect();
    assert_eq!(pages, ids, "codes are unique and in order, and each has one page");
}

#[test]
fn profiles_of_this_program_are_clean() {
    // A tagged profile in the way of profiles/macos: deny by default, rules without filters first, families with
    // their members, pins behind grants.
    let text = r#"(version 1)
(deny default (with message "ephemerd:x"))
(deny signal (with message "ephemerd:x"))
(allow signal (target self) (target children) (target same-sandbox))
(deny process-info* process-info-codesignature (with message "ephemerd:x"))
(allow process-info* process-info-codesignature (target self))
(allow process-info-listpids)
(deny nvram* nvram-delete nvram-get nvram-set (with message "ephemerd:x"))
(deny file-map-executable file-test-existence file-link file-clone (with message "ephemerd:x"))
(allow dynamic-code-generation iokit-get-properties)
(allow file-read* file-test-existence (literal "/"))
(allow file-read-metadata file-test-existence (literal "/etc") (literal "/tmp") (literal "/var") (literal "/home"))
(allow file-read* process-exec* (subpath "/usr") (prefix "/Applications/Xcode"))
(deny sysctl* sysctl-read sysctl-write (with message "ephemerd:x"))
(allow sysctl-read (sysctl-name-prefix "hw.") (sysctl-name "kern.ostype") (sysctl-name-prefix "net.routetable."))
(allow sysctl-write (sysctl-name "kern.grade_cputype"))
(allow file-read* file-write-data file-ioctl (literal "/dev/tty") (subpath "/dev/fd"))
(allow file-read* file-write* (require-all (regex #"^/dev/ttys[0-9]+$") (extension "com.apple.sandbox.pty")))
(deny system-socket (with message "ephemerd:x"))
(allow system-socket (socket-domain AF_UNIX) (socket-domain AF_INET) (require-all (socket-domain AF_SYSTEM) (socket-protocol 2)))
(deny network-outbound network-inbound network-bind (subpath "/") (with message "ephemerd:x"))
(allow network-outbound (literal "/private/var/run/syslog"))
(deny network-outbound (remote ip "*:*") (with message "ephemerd:x"))
(allow network-outbound (remote tcp "localhost:*"))
(allow network-inbound network-bind (local tcp "localhost:*"))
(deny system-socket network-outbound (socket-type SOCK_RAW) (require-all (socket-domain AF_INET) (socket-protocol 1)) (with message "ephemerd:x"))
(allow mach-lookup (global-name "com.apple.trustd") (local-name "y"))
(allow file-read* file-write* file-link process-exec* network-outbound network-bind (subpath "/private/var/ephemerd/jobs/a"))
(deny file* file-read* file-read-data file-read-metadata file-read-xattr file-write* file-write-data file-write-create file-write-unlink process-exec* network-outbound
    (require-all (subpath "/private/var/ephemerd") (require-not (subpath "/private/var/ephemerd/jobs/a"))) (with message "ephemerd:x"))
(deny file-write-unlink file-write-create (literal "/private/var") (with message "ephemerd:x"))
"#;
    assert_eq!(codes("", text), [""; 0]);
}

#[test]
fn own_defaults_are_found_however_the_default_is_denied() {
    assert_eq!(codes("", "(version 1)(allow process-fork)"), ["SB101"]);
    assert_eq!(codes("", "(version 1)(allow default)"), [""; 0]);
    assert_eq!(
        codes(
            "",
            "(version 1)(deny default)(deny process-info*)(allow nvram*)(allow iokit-get-properties)"
        ),
        [""; 0]
    );
}

#[test]
fn order_matters_only_where_verdicts_differ() {
    assert_eq!(
        codes(OPEN, "(deny file-write* (subpath \"/a\"))(deny file-write*)"),
        [""; 0]
    );
    assert_eq!(codes(OPEN, "(deny signal)(allow signal (target self))"), [""; 0]);
    assert_eq!(
        codes(OPEN, "(allow signal (target self))(deny signal)"),
        ["SB102"]
    );
}

#[test]
fn a_wildcard_allow_behind_a_specific_deny_is_found_and_a_part_taken_back_is_not() {
    let again = r#"(deny file-read-data (subpath "/s"))(allow file-read* (subpath "/s"))"#;
    assert_eq!(codes(OPEN, again), ["SB103"]);
    let part = r#"(deny file-write* (subpath "/s"))(allow file-write-data (literal "/s/log"))"#;
    assert_eq!(codes(OPEN, part), [""; 0]);
    let all = r#"(deny file-write* (subpath "/s"))(allow file-write-data)"#;
    assert_eq!(codes(OPEN, all), ["SB103"]);
    let names = r#"(allow ipc-posix-shm-read-data)(deny ipc-posix-shm* (ipc-posix-name-prefix "a"))"#;
    assert_eq!(codes(OPEN, names), ["SB103"]);
}

#[test]
fn alternatives_of_one_kind_are_meant_as_alternatives() {
    assert_eq!(
        codes(
            BASE,
            "(allow system-socket (socket-domain AF_UNIX) (socket-type SOCK_STREAM))"
        ),
        ["SB104"]
    );
    assert_eq!(
        codes(
            BASE,
            "(allow system-socket (socket-domain AF_UNIX) (socket-domain AF_ROUTE))"
        ),
        [""; 0]
    );
    assert_eq!(
        codes(BASE, "(allow file-ioctl (literal \"/dev/null\") (tty))"),
        [""; 0]
    );
    assert_eq!(codes(BASE, "(allow file-read* (vnode-type DIRECTORY))"), [""; 0]);
    assert_eq!(
        codes(
            BASE,
            "(allow network-outbound (literal \"/a\") (remote tcp \"*:443\"))"
        ),
        [""; 0]
    );
}

#[test]
fn a_rule_is_dead_only_when_all_of_it_is() {
    assert_eq!(codes(OPEN, "(deny lsopen)(allow lsopen)"), ["SB105"]);
    assert_eq!(
        codes(OPEN, "(deny lsopen appleevent-send)(allow lsopen)"),
        [""; 0]
    );
    assert_eq!(codes(OPEN, "(deny lsopen)(deny lsopen)"), [""; 0]);
    let both = |filters: &str| codes(OPEN, &format!("(deny file-write* (require-all {filters}))"));
    assert_eq!(both("(subpath \"/a\") (subpath \"/b\")"), ["SB105"]);
    assert_eq!(both("(subpath \"/a\") (literal \"/A/b\")"), [""; 0]);
    assert_eq!(both("(subpath \"/\") (subpath \"/b\")"), [""; 0]);
    assert_eq!(both("(subpath \"/a\") (require-not (subpath \"/b\"))"), [""; 0]);
}

#[test]
fn links_are_found_in_every_shape_and_left_alone_by_themselves() {
    let path = |filter: &str| codes(OPEN, &format!("(deny file-read* {filter})"));
    for filter in [
        "(literal \"/etc/hosts\")",
        "(prefix \"/tmp/x\")",
        "(regex #\"^/var/db/\")",
        "(subpath \"/home\")",
    ] {
        assert_eq!(path(filter), ["SB201"], "{filter}");
    }
    for filter in [
        "(literal \"/etc\")",
        "(subpath \"/etcetera\")",
        "(regex #\"^/variable\")",
        "(subpath \"/tmp\") (subpath \"/private/tmp\")",
        "(regex #\"/tmp/\")",
    ] {
        assert_eq!(path(filter), [""; 0], "{filter}");
    }
}

#[test]
fn spellings_that_never_match_are_told_apart() {
    let path = |filter: &str| codes(OPEN, &format!("(deny file-read* {filter})"));
    assert_eq!(path("(subpath \"\")"), ["SB202"]);
    assert_eq!(path("(prefix \"lib\")"), ["SB202"]);
    assert_eq!(path("(literal \"/a//b\")"), ["SB203"]);
    assert_eq!(path("(literal \"/a/./b\")"), ["SB203"]);
    assert_eq!(path("(literal \"/a/..b\")"), [""; 0]);
    assert_eq!(path("(subpath \"/\")"), [""; 0]);
    assert_eq!(path("(prefix \"/a/\")"), [""; 0]);
}

#[test]
fn a_deny_is_movable_only_between_it_and_the_grant() {
    let grant = "(allow file-read* file-write* (subpath \"/w\"))";
    let deny = |path: &str| {
        codes(
            BASE,
            &format!("{grant}(deny file-read* file-write* (subpath \"{path}\"))"),
        )
    };
    assert_eq!(deny("/w/a/b"), ["SB205"]);
    assert_eq!(deny("/w/a"), [""; 0], "only the grant itself is above");
    assert_eq!(deny("/x/a/b"), [""; 0], "nothing above is writable");
}

#[test]
fn a_folder_to_read_beside_or_around_one_to_write_is_fine() {
    let grant = "(allow file-read* file-write* (subpath \"/w\"))";
    let read = |path: &str| codes(BASE, &format!("(allow file-read* (subpath \"{path}\")){grant}"));
    assert_eq!(read("/w/a"), ["SB206"]);
    assert_eq!(read("/w"), [""; 0]);
    assert_eq!(read("/"), [""; 0]);
    assert_eq!(read("/wa"), [""; 0]);
}

#[test]
fn near_ends_are_fine_where_connections_come_in() {
    assert_eq!(
        codes(BASE, "(allow network* (local ip \"localhost:*\"))"),
        ["SB301"]
    );
    assert_eq!(
        codes(
            BASE,
            "(allow network-bind network-inbound (local ip \"localhost:*\"))"
        ),
        [""; 0]
    );
    let both = "(allow network-outbound (require-all (local ip \"*:*\") (remote ip \"localhost:*\")))";
    assert_eq!(codes(BASE, both), [""; 0]);
}

#[test]
fn a_socket_that_cannot_be_connected_to_needs_no_more() {
    let deny = "(deny file-read* file-write* (literal \"/private/var/run/x.sock\"))";
    assert_eq!(codes(OPEN, deny), ["SB302"]);
    assert_eq!(codes(BASE, deny), [""; 0]);
}

#[test]
fn allows_without_a_filter_matter_only_where_they_count() {
    for operation in [
        "sysctl-read",
        "signal",
        "mach-lookup",
        "process-info-pidinfo",
        "file-read-metadata",
    ] {
        assert_eq!(
            codes(BASE, &format!("(allow {operation})")),
            ["SB401"],
            "{operation}"
        );
    }
    assert_eq!(
        codes(OPEN, "(allow sysctl-read)"),
        [""; 0],
        "the default allows it anyway"
    );
    assert_eq!(codes(BASE, "(allow process-info-listpids)"), [""; 0]);
}

#[test]
fn names_of_the_kernel_are_found_by_what_they_cover() {
    for filter in [
        "(sysctl-name-prefix \"k\")",
        "(sysctl-name-regex #\"^kern\\.\")",
        "(sysctl-name \"kern.procargs2\")",
    ] {
        assert_eq!(
            codes(BASE, &format!("(allow sysctl-read {filter})")),
            ["SB402"],
            "{filter}"
        );
    }
    let narrowed = "(allow sysctl-read (require-all (sysctl-name-prefix \"kern.\") (require-not (sysctl-name-prefix \"kern.procargs\"))))";
    assert_eq!(codes(BASE, narrowed), [""; 0]);
}

#[test]
fn looking_into_others_and_leaving_the_sandbox_are_found() {
    assert_eq!(
        codes(BASE, "(allow process-info-pidinfo (target others))"),
        ["SB403"]
    );
    assert_eq!(codes(BASE, "(allow process-info* (target self))"), [""; 0]);
    assert_eq!(
        codes(
            BASE,
            "(allow process-exec (literal \"/bin/a\") (with no-profile))"
        ),
        ["SB404"]
    );
}

#[test]
fn sysctl_write_widens_only_what_nothing_else_decides() {
    assert_eq!(codes(BASE, "(allow sysctl-write)"), ["SB405"]);
    assert_eq!(codes(BASE, "(allow sysctl*  (sysctl-name \"kern.x\"))"), [""; 0]);
    assert_eq!(
        codes(
            BASE,
            "(allow sysctl-read (sysctl-name \"kern.x\"))(allow sysctl-write (sysctl-name \"kern.x\"))"
        ),
        [""; 0]
    );
}

#[test]
fn names_and_texts_are_looked_at_wherever_they_stand() {
    assert_eq!(codes(BASE, "(allow qtn-download process-fork)"), ["SB501"]);
    assert_eq!(
        codes(OPEN, "(deny file-read* (subpath \"/a\") (with errno EPERM))"),
        ["SB502"]
    );
    assert_eq!(codes(OPEN, "(deny lsopen (with telemetry-backtrace))"), ["SB502"]);
    assert_eq!(
        codes(OPEN, "(deny mach-lookup (global-name \"{{ service }}\"))"),
        ["SB503"]
    );
    assert_eq!(
        codes(
            OPEN,
            r#"(deny file-read* (literal "/a\") (allow default) (literal \"/b"))"#
        ),
        ["SB503"]
    );
    assert_eq!(codes(OPEN, "(deny file-read* (literal \"/a b$c#d'e\"))"), [""; 0]);
    assert_eq!(
        codes(OPEN, "; größer\n(deny lsopen)"),
        [""; 0],
        "comments are free"
    );
    assert_eq!(codes(OPEN, "(deny file-read* (literal \"/a\nb\"))"), ["SB504"]);
}

#[test]
fn the_limit_of_length_is_kept_as_the_semantics_say() {
    let rule = format!("(deny file-read* (literal \"/{}\"))", "x".repeat(20_000));
    let text = format!("{OPEN}{rule}{}", rule.replace('x', "y"));
    let per_rule = Semantics::of(Release::NEWEST);
    let per_operation = Semantics {
        limit_per_rule: false,
        ..per_rule
    };
    assert_eq!(findings_with(&text, &per_rule), []);
    let found = findings_with(&text, &per_operation);
    assert_eq!((found.len(), found[0].code), (1, "SB505"));
}

#[test]
fn one_message_on_the_default_serves_for_all() {
    assert_eq!(
        codes(
            "",
            "(version 1)(deny default (with message \"m\"))(deny lsopen process-info* nvram* iokit-get-properties)"
        ),
        [""; 0]
    );
    assert_eq!(
        codes(
            OPEN,
            "(deny lsopen (with message \"m\"))(deny hid-control (with no-report))"
        ),
        [""; 0]
    );
}

#[test]
fn a_finding_says_where_what_and_what_instead() {
    let found = findings_with(
        "(version 1)\n(allow default)\n  (deny file-read* (subpath \"/tmp\"))",
        &Semantics::of(Release::NEWEST),
    );
    assert_eq!(
        found[0].to_string(),
        "t.sb:3:3: SB201: `/tmp` leads through a link, and the kernel compares what links lead to\nhint: write /private/tmp"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_path_makes_a_lint_panic(path in "[/.a-z{}\"\\\\$é~ ]{0,24}", other in "[/.a-z]{0,12}") {
        let quoted = |path: &str| path.replace('\\', "\\\\").replace('"', "\\\"");
        let text = format!(
            "(version 1)(deny default)(allow file* (subpath \"{0}\"))(deny file-read* (subpath \"{1}\"))(deny file-write* (require-all (subpath \"{0}\") (literal \"{1}\")) (prefix \"{0}\"))",
            quoted(&path),
            quoted(&other)
        );
        findings_with(&text, &Semantics::of(Release::NEWEST));
    }
}
