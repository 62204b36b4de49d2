//! The language and the decisions, as whole profiles.

mod decide;
mod limits;

use super::*;
use crate::profile::decide::Verdict::{self, Allow, Deny};

fn settings() -> Settings {
    let mut settings = Settings::new(Release::NEWEST);
    settings.params.insert("HOME".into(), "/Users/ci".into());
    settings
}

fn compiled(text: &str) -> Ruleset {
    compile("t.sb", text.as_bytes(), &settings()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The rules of a profile without its first line, as text.
fn rules(text: &str) -> Vec<String> {
    compiled(&format!("(version 1)\n{text}"))
        .rules
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn problems(text: &str) -> Vec<String> {
    match compile("t.sb", text.as_bytes(), &settings()) {
        Ok(_) => panic!("compiles: {text}"),
        Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
    }
}

fn ask_with(ruleset: &Ruleset, semantics: &Semantics, operation: &str, target: &str) -> Ruling {
    let id = ruleset.vocabulary.asked(operation).unwrap();
    let target = Target::parse(ruleset.vocabulary, id, target).unwrap();
    ruleset.decide(id, &target, semantics)
}

fn ask(text: &str, operation: &str, target: &str) -> Verdict {
    let semantics = Semantics::of(Release::NEWEST);
    ask_with(
        &compiled(&format!("(version 1)\n{text}")),
        &semantics,
        operation,
        target,
    )
    .verdict
}

#[test]
fn functions_loops_and_conditions_make_rules() {
    assert_eq!(
        rules(
            r#"(define (home-subpath relative) (subpath (string-append (param "HOME") relative)))
               (allow file-read* (home-subpath "/src"))
               (let loop ((port 8080))
                 (if (< port 8083)
                     (begin (allow network-outbound (remote tcp (string-append "localhost:" (number->string port))))
                            (loop (+ port 1)))))
               (for-each (lambda (name) (allow mach-lookup (global-name name))) '("a" "b"))
               (cond ((param "NONE") (allow file-write*)) (else (deny file-write* (literal "/x"))))
               (when (defined? 'process-fork) (allow process-fork))
               (when (defined? 'process-fork-again) (allow process*))
               (unless (param "HOME") (allow default))"#
        ),
        [
            r#"(allow file-read* (subpath "/Users/ci/src"))"#,
            r#"(allow network-outbound (remote tcp "localhost:8080"))"#,
            r#"(allow network-outbound (remote tcp "localhost:8081"))"#,
            r#"(allow network-outbound (remote tcp "localhost:8082"))"#,
            r#"(allow mach-lookup (global-name "a"))"#,
            r#"(allow mach-lookup (global-name "b"))"#,
            r#"(deny file-write* (literal "/x"))"#,
            "(allow process-fork)",
        ]
    );
}

#[test]
fn macros_templates_and_applied_rules_work() {
    assert_eq!(
        rules(
            r#"(macro (allow-both form)
                 `(begin (allow file-read* (literal ,(cadr form))) (allow file-write* ,@(cddr form))))
               (allow-both "/a" (literal "/b") (literal "/c"))
               (apply allow (append (list file-read-data) (map literal '("/d" "/e"))))
               (define paths (let* ((a "/f") (b (string-append a "/g"))) (list a b)))
               (allow file-read* (apply literal paths))
               (define (rest first . others) (length others))
               (if (= (rest 1 2 3) 2) (allow signal (target self)))
               (do ((i 0 (+ i 1))) ((= i 2)) (allow mach-lookup (global-name (number->string i))))
               (case (string-length "ab") ((1) (allow default)) ((2 3) (allow iokit-open)))"#
        ),
        [
            r#"(allow file-read* (literal "/a"))"#,
            r#"(allow file-write* (literal "/b") (literal "/c"))"#,
            r#"(allow file-read-data (literal "/d") (literal "/e"))"#,
            r#"(allow file-read* (require-any (literal "/f") (literal "/f/g")))"#,
            "(allow signal (target self))",
            r#"(allow mach-lookup (global-name "0"))"#,
            r#"(allow mach-lookup (global-name "1"))"#,
            "(allow iokit-open)",
        ]
    );
}

#[test]
fn old_spellings_and_short_ones_mean_what_the_prelude_says() {
    assert_eq!(
        rules(
            r#"(deny file-write-mount file-write-unmount file-write-umount)
               (allow file-read* (require-all (executable-bundle) (literal "/a")))
               (allow iokit-open (iokit-user-client-class-regex "^IO"))
               (allow file-issue-extension-read (container) (granted-extensions "x"))"#
        ),
        [
            "(deny file-write-mount file-write-unmount file-write-umount)",
            r#"(allow file-read* (require-all (extension "com.apple.sandbox.executable") (literal "/a")))"#,
            r##"(allow iokit-open (iokit-registry-entry-class-regex #"^IO"))"##,
            r#"(allow file-issue-extension-read (extension "com.apple.sandbox.container") (extension "x"))"#,
        ]
    );
    assert_eq!(
        ask("(allow default) (deny file-write-umount)", "file-unmount", "/a"),
        Deny
    );
}

#[test]
fn helpers_of_the_prelude_that_profiles_call_are_there() {
    assert_eq!(
        rules(
            r#"(disable-full-symbolication) (eliminate-duplicate-rules)
               (allow system-fsctl (fsctl-command (_IO "h" 47)))
               (allow file-read* (apply subpath (split-string "/a:/b" ":")))
               (define (flat tree) (if (atom? tree) (list tree) (append (flat (car tree)) (flat (cadr tree)))))
               (for-each (lambda (name) (allow mach-lookup (global-name name))) (flat '("a" ("b" "c"))))
               (define parts (partition sbpl-filter? (list file-read-data (literal "/c") file-read-xattr)))
               (if (positive? (length (car parts))) (apply allow (append (cadr parts) (car parts))))
               (deny file-write* (path-ancestors "/d/x" "/e/x"))
               (allow file-read* (literal (list-ref '("/f" "/g") 1)))"#
        ),
        [
            "(allow system-fsctl (fsctl-command 26671))",
            r#"(allow file-read* (require-any (subpath "/a") (subpath "/b")))"#,
            r#"(allow mach-lookup (global-name "a"))"#,
            r#"(allow mach-lookup (global-name "b"))"#,
            r#"(allow mach-lookup (global-name "c"))"#,
            r#"(allow file-read-data file-read-xattr (literal "/c"))"#,
            r#"(deny file-write* (require-any (require-any (literal "/d") (literal "/")) (require-any (literal "/e") (literal "/"))))"#,
            r#"(allow file-read* (literal "/g"))"#,
        ]
    );
}

#[test]
fn a_profile_may_put_its_own_functions_in_front_of_allow() {
    assert_eq!(
        rules(
            r#"(macro (tagged form)
                 `(let ((plain allow))
                    (set! allow (lambda args (apply plain (with report) args)))
                    ,@(cdr form)
                    (set! allow plain)))
               (tagged (allow process-fork))
               (allow lsopen)
               (if (null? (if #f 1)) (allow pseudo-tty))"#
        ),
        [
            "(allow process-fork (with report))",
            "(allow lsopen)",
            "(allow pseudo-tty)"
        ]
    );
    assert_eq!(
        problems("(version 1)(set! nothing-known 1)"),
        ["t.sb:1:12: `nothing-known` is not defined"]
    );
}

#[test]
fn conditions_and_modifiers_around_rules_go_with_each_of_them() {
    assert_eq!(
        rules(
            r#"(with-filter (mac-policy-name "Sandbox") (allow system-mac-syscall (mac-syscall-number 2 67)))
               (with-modifier (with no-log) (deny mach-lookup (global-name "a")))
               (deny default (with message "ephemerd:x"))"#
        ),
        [
            r#"(allow system-mac-syscall (require-all (require-any (mac-syscall-number 2 67)) (mac-policy-name "Sandbox")))"#,
            r#"(deny mach-lookup (global-name "a") (with no-report))"#,
            r#"(deny default (with message "ephemerd:x"))"#,
        ]
    );
}

#[test]
fn every_file_may_say_the_version_again_but_no_other_one() {
    assert_eq!(
        problems("(deny default)"),
        ["t.sb:1:1: no version specified\nhint: a profile begins with `(version 1)`"]
    );
    compiled("(version 1)(version 1)");
    assert_eq!(
        problems("(version 1)(version 2)"),
        ["t.sb:1:12: only one version may be specified"]
    );
    assert_eq!(
        problems("(version 4)"),
        ["t.sb:1:1: unsupported version\nhint: write `(version 1)`"]
    );
    let of = |version: &str, release| {
        let text = format!("(version {version})(deny default)");
        compile("t.sb", text.as_bytes(), &Settings::new(release)).map(|set| set.version)
    };
    assert_eq!(of("3", Release::MacOs26).unwrap(), 3);
    of("3", Release::MacOs15).unwrap_err();
    assert_eq!(of("2", Release::MacOs14).unwrap(), 2);
    of("2", Release::MacOs10_15).unwrap_err();
}

#[test]
fn unknown_names_are_told_with_the_nearest_known_one() {
    assert_eq!(
        problems("(version 1)\n(allow file-reed* (subpth \"/a\"))\n(deny signal (target selff))"),
        [
            "t.sb:2:8: `file-reed*` means nothing to macos-26\nhint: did you mean `file-read*`?",
            "t.sb:3:22: `selff` means nothing to macos-26\nhint: did you mean `self`?",
        ]
    );
    let old = compile(
        "t.sb",
        b"(version 1)(allow system-mac-syscall)",
        &Settings::new(Release::MacOs10_15),
    );
    assert_eq!(
        old.unwrap_err().to_string(),
        "t.sb:1:19: `system-mac-syscall` is not known to macos-10.15\nhint: it came with macOS 14.4"
    );
}

#[test]
fn what_the_compiler_refuses_is_refused_at_its_place() {
    let refused = |rule: &str| problems(&format!("(version 1)\n{rule}")).join("\n");
    let told = [
        r#"(allow file-read* (subpath (param "NONE")))"#,
        r#"(allow file-read* (subpath (string-append (param "NONE") "/x")))"#,
        r#"(allow network-outbound (remote ip "10.0.0.1:80"))"#,
        r#"(allow network-outbound (remote tcp "localhost:0"))"#,
        r#"(allow network-outbound (remote tcp "localhost:80-90"))"#,
        r#"(allow file-read* (regex "a{2}"))"#,
        r#"(allow file-read* (vnode-type DIRECTROY))"#,
        r#"(allow (subpath "/a"))"#,
        r#"(allow file-read* (if (param "NONE") (subpath "/a") #f))"#,
        r#"(deny default (with whisper))"#,
        r#"(allow file-read* "/a")"#,
        r#"("a" "b")"#,
        r#"(car '())"#,
        r#"(error "no" 1)"#,
        r#"(import "nothing.sb")"#,
    ]
    .map(refused)
    .join("\n");
    insta::assert_snapshot!(told);
}

#[test]
fn every_run_ends() {
    let one = |rule: &str| problems(&format!("(version 1)\n{rule}")).join("\n");
    assert!(one("(let loop () (loop))").ends_with("more than 2000000 steps were taken"));
    assert_eq!(
        one("(define (f n) (+ 1 (f n)))\n(f 1)"),
        "t.sb:2:21: more than 1000 calls are nested here\nhint: a recursion that does not end?"
    );
    assert!(one("(define (f s) (f (string-append s s)))\n(f \"ab\")").contains("bytes"));
    assert!(one("(define (f l) (f (append l l)))\n(f '(1))").contains("too much memory"));
    assert!(one("(define (f x) (f (require-not x)))\n(f (literal \"/a\"))").contains("filters are nested"));
    assert!(
        one("(define (f n) (allow file-read* (literal \"/a\" \"/b\" \"/c\" \"/d\")) (f n))\n(f 1)")
            .contains("too much memory")
    );
}

#[test]
fn imports_come_from_the_folders_given_and_never_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let root = camino::Utf8Path::from_path(folder.path()).unwrap();
    std::fs::write(
        root.join("base.sb"),
        "(version 1)\n(define (both path) (literal path))\n(allow process-fork)",
    )
    .unwrap();
    std::fs::write(root.join("loop.sb"), "(import \"loop.sb\")").unwrap();
    std::fs::write(root.join("bad.sb"), "(allow nothing-known)").unwrap();
    let mut settings = settings();
    settings.imports = Imports::Folders(vec![root.to_owned()]);
    let run = |text: &str| compile("t.sb", text.as_bytes(), &settings);
    let rules = run("(version 1)(import \"base.sb\")(allow file-read* (both \"/a\"))")
        .unwrap()
        .rules;
    assert_eq!(rules.len(), 2);
    assert_eq!(*rules[0].at.file, *root.join("base.sb").as_str());
    assert_eq!(run("(version 3)(import \"base.sb\")").unwrap().version, 3);
    let problem = |text: &str| run(text).unwrap_err().to_string();
    assert!(problem("(version 1)(import \"loop.sb\")").contains("imports itself"));
    assert!(problem("(version 1)(import \"bad.sb\")").contains("bad.sb:1:8"));
    assert!(problem("(version 1)(import \"../etc/passwd\")").contains("leads out"));
    settings.imports = Imports::Skipped;
    let skipped = compile("t.sb", b"(version 1)(import \"base.sb\")", &settings)
        .unwrap()
        .skipped;
    assert_eq!(skipped[0].1, "base.sb");
}

#[test]
fn rules_are_printed_as_they_could_be_written() {
    assert_eq!(
        rules(
            r#"(allow file-read* (extension "a b" "c\\"))
               (allow qtn-download (subpath "/a"))
               (deny file-read* (with send-signal SIGKILL))
               (allow mach-register (apply-message-filter (deny mach-message-send)))"#
        ),
        [
            r#"(allow file-read* (extension "a b" "c\\"))"#,
            r#"(allow qtn-download (subpath "/a"))"#,
            "(deny file-read* (with send-signal SIGKILL))",
            "(allow mach-register (apply-message-filter))",
        ]
    );
}

#[test]
fn a_text_made_of_characters_holds_no_nul_either() {
    assert!(
        problems("(version 1)(allow file-read* (literal (list->string (list #\\a #\\x0))))")[0]
            .contains("NUL")
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_engine_panic(text in "[()'`,\"#; a-z0-9*.\\\\\\-]{0,200}") {
        let _ = compile("p", text.as_bytes(), &settings());
    }

    #[test]
    fn a_quoted_path_comes_back_as_exactly_that_path(path in "/[^\\x00]{0,40}") {
        let text = format!("(version 1)(allow file-read* (literal {}))", super::filter::quoted(&path));
        let ruleset = compile("p", text.as_bytes(), &settings()).unwrap();
        proptest::prop_assert_eq!(ruleset.rules.len(), 1);
        let super::filter::Filter::Test(super::filter::Test::Path(pattern)) = &ruleset.rules[0].filters[0] else {
            return Err(proptest::test_runner::TestCaseError::fail("no path"));
        };
        proptest::prop_assert_eq!(&*pattern.text, path.as_str());
    }
}

#[test]
fn a_full_version_belongs_to_the_release_it_begins_with() {
    assert_eq!(Release::of_version("26.1.1"), Some(Release::MacOs26));
    assert_eq!(Release::of_version("15"), Some(Release::MacOs15));
    assert_eq!(Release::of_version("10.15.7"), Some(Release::MacOs10_15));
    for unknown in ["2", "150.1", "27.0", "10.14", ""] {
        assert_eq!(Release::of_version(unknown), None, "{unknown}");
    }
}
