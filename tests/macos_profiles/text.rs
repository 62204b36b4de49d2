//! The text, as `profile render` prints it.

use std::process::{Output, Stdio};

use ephemerd::cli::profile::render::TargetOs;
use ephemerd::host::Os;
use ephemerd::job::plan::Planner;

const CONFIG: &str = "\
[host]
data_dir = \"/var/lib/ephemerd\"
[native]
extra_read = [\"/opt/toolchain\"]
[repos.\"acme/ios\"]
posture = \"standard\"
extra_write = [\"/tmp/shared \\\"cache\\\"\"]
";

/// The text for a job in `slot` of a Mac that has the usual places.
fn profile(os: TargetOs, slot: u32, repo: Option<&str>) -> String {
    let config = ephemerd::config::parse(CONFIG, "test").unwrap().config;
    let platform = os.platform(&config);
    let repo = repo.map(|name| config.repos[&name.parse().unwrap()].clone());
    let posture = repo.as_ref().and_then(|repo| repo.posture);
    let posture = posture.unwrap_or(config.native.posture);
    let planner = Planner::new(config, "/etc/ephemerd/ephemerd.toml".into(), platform).unwrap();
    let job = "00000000000".parse().unwrap();
    planner.profile(&job, slot, posture, repo.as_ref()).unwrap().text
}

#[test]
fn the_strict_profile_for_macos_26_is_this_text() {
    insta::assert_snapshot!(profile(TargetOs::MacOs26, 1, None));
}

#[test]
fn the_standard_profile_for_macos_26_is_this_text() {
    insta::assert_snapshot!(profile(TargetOs::MacOs26, 3, Some("acme/ios")));
}

/// What the program answers to `profile render` with `arguments` and this configuration, in an empty environment
/// and in the configuration's folder.
#[expect(clippy::disallowed_methods, reason = "a test runs the program as people do")]
fn render(config: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ephemerd.toml"), config).unwrap();
    let mut output = std::process::Command::new(env!("CARGO_BIN_EXE_ephemerd"))
        .env_clear()
        .args(["profile", "render", "--config", "ephemerd.toml"])
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    // The folder has another name in each run.
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    output.stdout = stdout.replace(name, "config").into_bytes();
    output
}

fn text(config: &str, arguments: &[&str]) -> String {
    let output = render(config, arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn rendering_twice_gives_the_same_bytes() {
    for os in ["macos-15", "macos-26", "linux"] {
        let once = || text("", &["--os", os, "--posture", "standard"]);
        assert_eq!(once(), once(), "{os}");
    }
}

#[test]
fn without_an_os_it_is_this_hosts() {
    let host = if Os::host() == Os::Linux {
        "linux"
    } else {
        "macos-26"
    };
    assert_eq!(text("", &[]), text("", &["--os", host]));
}

#[test]
fn json_says_what_was_rendered_for_what() {
    let answer = text(
        "",
        &[
            "--os", "macos-15", "--format", "json", "--repo", "acme/app", "--slot", "2",
        ],
    );
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["os"], "macos-15");
    assert_eq!(answer["posture"], "strict");
    assert_eq!(answer["repo"], "acme/app");
    assert_eq!(answer["slot"], 2);
    assert!(
        answer["text"]
            .as_str()
            .unwrap()
            .contains("/private/var/folders/zz/_ephemerd2/T")
    );
}

#[test]
fn a_slot_that_is_not_there_is_an_error_with_a_hint() {
    for slot in ["0", "5"] {
        let output = render("", &["--os", "macos-26", "--slot", slot]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            errors.contains("hint: slots are numbered from 1 to `native.slots`, which is 4"),
            "{errors}"
        );
    }
}

#[test]
fn a_grant_that_a_mac_could_not_keep_is_an_error_with_a_hint() {
    let output = render(
        "[native]\nextra_read = [\"/srv/caf\u{e9}\"]",
        &["--os", "macos-26"],
    );
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("is not ASCII") && errors.contains("hint: "),
        "{errors}"
    );
}
