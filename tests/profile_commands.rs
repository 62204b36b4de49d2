//! `profile explain` and `profile diff`, as a user runs them, on any host.

use std::process::{Command, Output};

use camino::Utf8Path;

fn profile(args: &[&str]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "a test runs the program it tests")]
    let mut command = Command::new(env!("CARGO_BIN_EXE_ephemerd"));
    command
        .args(["--config", "/dev/null", "profile"])
        .args(args)
        .output()
        .expect("the program starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Two files with these texts.
fn files(a: &str, b: &str) -> (tempfile::TempDir, [String; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Utf8Path::from_path(folder.path()).expect("UTF-8");
    let names = ["a.sb", "b.sb"].map(|name| root.join(name).into_string());
    for (name, text) in names.iter().zip([a, b]) {
        std::fs::write(name, format!("(version 1)\n(deny default)\n{text}")).expect("a file");
    }
    (folder, names)
}

#[test]
fn an_allowed_operation_is_explained_with_its_rule_and_line() {
    let output = profile(&["explain", "mach-lookup", "com.apple.trustd", "--os", "macos-26"]);
    assert_eq!(output.status.code(), Some(0));
    let said = said(&output);
    assert!(
        said.starts_with("allow  mach-lookup com.apple.trustd\n"),
        "{said}"
    );
    assert!(said.contains("(global-name \"com.apple.trustd\")"), "{said}");
    assert!(said.contains("strict.sb:"), "{said}");
}

#[test]
fn a_denied_portable_operation_is_explained_by_each_of_its_parts() {
    let output = profile(&[
        "explain",
        "file-read",
        "/Users/somebody/.ssh/id_ed25519",
        "--os",
        "macos-26",
        "--format",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let parts: Vec<&str> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            assert_eq!(one["verdict"], "deny");
            one["operation"].as_str().unwrap()
        })
        .collect();
    assert!(
        parts.contains(&"file-read-data") && parts.contains(&"file-read-metadata"),
        "{parts:?}"
    );
}

#[test]
fn linux_is_explained_the_same_way() {
    let output = profile(&["explain", "file-write", "/usr/bin/cc", "--os", "linux"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("path /usr: read"), "{}", said(&output));
    let output = profile(&["explain", "file-exec", "/usr/bin/cc", "--os", "linux"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_cannot_be_asked_is_an_error_with_the_nearest_name() {
    let output = profile(&["explain", "file-reed", "/a", "--os", "macos-26"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("did you mean `file-read*`?"), "{errors}");
    let output = profile(&["explain", "mach-lookup", "sysctl-name=x", "--os", "macos-26"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn an_order_of_rules_that_matters_is_a_difference_with_a_witness() {
    let (_folder, [a, b]) = files(
        r#"(allow file-read* (subpath "/src")) (deny file-read* (subpath "/src/keys"))"#,
        r#"(deny file-read* (subpath "/src/keys")) (allow file-read* (subpath "/src"))"#,
    );
    let output = profile(&["diff", &a, &b]);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains("/src/keys"), "{said}");
    assert!(
        said.contains(&format!("{a}:3:37")) && said.contains(&format!("{b}:3:41")),
        "{said}"
    );
    assert!(said.ends_with("1 difference\n"), "{said}");
}

#[test]
fn another_text_with_the_same_effect_is_none() {
    let (_folder, [a, b]) = files(
        r#"(allow file-read-data file-read-metadata file-read-xattr (literal "/a") (subpath "/a/b"))"#,
        "; comment\n(define (both p) (require-any (literal p) (subpath (string-append p \"/b\"))))\n(allow file-read* (both \"/a\"))",
    );
    let output = profile(&["diff", &a, &b]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(said(&output), format!("{a} and {b} have the same effect\n"));
    let lines = profile(&["diff", "--text", &a, &b]);
    assert_eq!(lines.status.code(), Some(1));
    assert!(said(&lines).contains("+; comment"));
}

#[test]
fn postures_compare_with_each_other_and_with_files() {
    let output = profile(&["diff", "strict", "standard", "--os", "macos-26"]);
    assert_eq!(output.status.code(), Some(1));
    let output = profile(&["diff", "strict", "strict", "--os", "macos-15"]);
    assert_eq!(said(&output), "strict and strict have the same effect\n");
    let output = profile(&["diff", "strict", "standard", "--os", "linux"]);
    assert!(said(&output).contains("view = listed"), "{}", said(&output));
    let (_folder, [a, _]) = files("", "");
    let output = profile(&["diff", "strict", &a, "--os", "linux"]);
    assert_eq!(
        output.status.code(),
        Some(2),
        "a file of macOS is no policy of Linux"
    );
}

#[test]
fn parameters_and_imports_are_given_on_the_command_line() {
    let (folder, [a, b]) = files(
        r#"(import "base.sb") (allow file-read* (subpath (param "ROOT")))"#,
        r#"(allow file-read* (subpath "/src"))"#,
    );
    std::fs::write(folder.path().join("base.sb"), "(version 1)").unwrap();
    let dir = folder.path().to_str().unwrap();
    let output = profile(&["diff", &a, &b, "--import-dir", dir, "-D", "ROOT=/src"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let output = profile(&["diff", &a, &b, "--import-dir", dir]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        errors.contains("a.sb:3:38") && errors.contains("-D NAME=VALUE"),
        "{errors}"
    );
    let skipped = profile(&["diff", &a, &b, "--skip-imports", "-D", "ROOT=/src"]);
    assert_eq!(skipped.status.code(), Some(0));
}
