//! What people read: help, decisions, errors and profiles, as the program prints them.

use std::fs;
use std::process::Output;

use camino::Utf8PathBuf;

use crate::harness::{PROGRAM, command, err, out, said};

/// A configuration that needs no host.
const CONFIG: &str = r#"
[host]
data_dir = "/srv/ephemerd"

[native]
slots = 2
job_timeout = "30m"

[trust]
default = "refuse"

[trust.repos]
"acme/*" = "native"
"acme/ios" = { route = "native", require_label = "ci-native", branches = ["main", "release/*"] }

[repos."acme/ios"]
posture = "standard"
extra_read = ["/usr/share"]
"#;

struct Desk {
    config: Utf8PathBuf,
    _keep: tempfile::TempDir,
}

impl Desk {
    fn new(config: &str) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(keep.path().join("ephemerd.toml")).unwrap();
        fs::write(&path, config).unwrap();
        Self {
            config: path,
            _keep: keep,
        }
    }

    fn run(&self, args: &[&str]) -> Output {
        command(PROGRAM)
            .env_remove("COLUMNS")
            .arg("--config")
            .arg(&self.config)
            .args(args)
            .output()
            .unwrap()
    }

    /// Everything that was printed, with the code, and the configuration's place by a name that stays.
    fn told(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = format!(
            "{}{}(exit code {})",
            out(&output),
            err(&output),
            output.status.code().unwrap()
        );
        text.replace(self.config.as_str(), "/etc/ephemerd.toml")
    }
}

#[test]
fn every_command_explains_itself() {
    let desk = Desk::new("");
    let commands: [&[&str]; 26] = [
        &[],
        &["run"],
        &["exec"],
        &["submit"],
        &["jobs"],
        &["jobs", "show"],
        &["status"],
        &["logs"],
        &["cancel"],
        &["drain"],
        &["resume"],
        &["route"],
        &["profile"],
        &["profile", "render"],
        &["profile", "verify"],
        &["profile", "lint"],
        &["profile", "denials"],
        &["profile", "probe-semantics"],
        &["host"],
        &["host", "setup"],
        &["host", "install"],
        &["host", "upgrade"],
        &["host", "uninstall"],
        &["prune"],
        &["config", "check"],
        &["config", "show"],
    ];
    let help: Vec<String> = commands
        .iter()
        .map(|command| {
            let output = desk.run(&[command, &["--help"][..]].concat());
            assert!(output.status.success(), "{}", said(&output));
            format!(
                "$ ephemerd {}\n{}",
                [command, &["--help"][..]].concat().join(" "),
                out(&output)
            )
        })
        .collect();
    insta::assert_snapshot!("help", help.join("\n"));
}

#[test]
fn no_command_and_a_wrong_one_are_explained() {
    let desk = Desk::new("");
    let none = desk.run(&[]);
    assert_eq!(none.status.code(), Some(2));
    assert!(err(&none).contains("Usage: ephemerd"), "{}", said(&none));
    insta::assert_snapshot!(desk.told(&["sumbit"]), @r"
    error: unrecognized subcommand 'sumbit'

      tip: a similar subcommand exists: 'submit'

    Usage: ephemerd [OPTIONS] <COMMAND>

    For more information, try '--help'.
    (exit code 2)
    ");
    insta::assert_snapshot!(desk.told(&["exec", "true"]), @r"
    error: unexpected argument 'true' found

    Usage: ephemerd exec [OPTIONS] -- <COMMAND>...

    For more information, try '--help'.
    (exit code 2)
    ");
    insta::assert_snapshot!(desk.told(&["submit", "--repo", "acme", "--", "true"]), @r"
    error: invalid value 'acme' for '--repo <OWNER/NAME>': `acme` is not a repository
    hint: write it as OWNER/NAME, letters, digits, `.`, `_` and `-` only

    For more information, try '--help'.
    (exit code 2)
    ");
    insta::assert_snapshot!(desk.told(&["logs", "../../etc/passwd"]), @r"
    error: invalid value '../../etc/passwd' for '<JOB>': `../../etc/passwd` is not a job id
    hint: a job id is eleven characters of 0-9 and a-z, as `ephemerd jobs` prints it

    For more information, try '--help'.
    (exit code 2)
    ");
}

#[test]
fn route_tells_where_and_why() {
    let desk = Desk::new(CONFIG);
    insta::assert_snapshot!(desk.told(&["route", "acme/web"]), @r#"
    route:  native
    reason: trust.repos."acme/*" sends acme/web to native
    rule:   trust.repos."acme/*"
    fence:  sandbox
    considered:
      1. no entry names acme/web exactly
      2. trust.repos."acme/*" says native
      3. event `push` may be native
      4. the code comes from acme/web itself
    (exit code 0)
    "#);
    insta::assert_snapshot!(desk.told(&["route", "ACME/ios", "--event", "pull_request", "--head", "mallory/ios", "--branch", "main", "--label", "ci-native"]), @r#"
    route:  refuse
    reason: trust.repos."acme/ios" allows native, but the code comes from mallory/ios, and a fork's code is never native; trust.default says refuse
    rule:   trust.default
    considered:
      1. trust.repos."acme/ios" says native
      2. event `pull_request` may be native
      3. not native: the code comes from mallory/ios, and a fork's code is never native
      4. trust.default says refuse
    (exit code 1)
    "#);
    insta::assert_snapshot!(desk.told(&["route", "zeta/x", "--format", "json"]), @r#"
    {
      "route": "refuse",
      "reason": "no entry of trust.repos names zeta/x; trust.default says refuse",
      "rule": "trust.default",
      "chain": [
        "no entry names zeta/x exactly",
        "no entry names all of zeta",
        "trust.default says refuse"
      ],
      "isolation": null
    }
    (exit code 1)
    "#);
}

#[test]
fn config_check_lists_everything_that_is_wrong() {
    let desk = Desk::new(
        r#"
[native]
slotz = 4
slots = 0
job_timeout = "5 parsecs"
extra_write = ["/etc"]

[native.limits]
memory = "-1GiB"

[trust]
default = "native"

[trust.repos]
"acme/ios" = "native"
"Acme/IOS" = "vm"
"#,
    );
    insta::assert_snapshot!(desk.told(&["config", "check"]), @r#"
    the configuration has 7 errors
    /etc/ephemerd.toml:3:1: unknown key `native.slotz`
    hint: did you mean `native.slots`?
    /etc/ephemerd.toml:4:9: `native.slots`: 0 is not within 1 to 64
    /etc/ephemerd.toml:5:15: `native.job_timeout`: `5 parsecs` has an unknown unit ` parsecs`
    hint: units are ms, s, m, h, d
    /etc/ephemerd.toml:6:16: `native.extra_write`: `/etc` cannot be granted for writing: a job could change the host through it
    hint: grant a folder that holds nothing of the system
    /etc/ephemerd.toml:9:10: `native.limits.memory`: `-1GiB` is not above zero
    hint: for example "8GiB"
    /etc/ephemerd.toml:12:11: `trust.default`: the default cannot be `native`: only repositories that are named may run on the host
    hint: name them below `[trust.repos]`, for example `"acme/*" = "native"`
    /etc/ephemerd.toml:16:1: `trust.repos."Acme/IOS"` stands in line 15 already, since GitHub's names ignore case
    hint: keep one of the two
    (exit code 2)
    "#);
    assert_eq!(desk.run(&["config", "check"]).status.code(), Some(2));
    assert_eq!(
        desk.run(&["run"]).status.code(),
        Some(2),
        "a file with any error is not used at all"
    );
}

#[test]
fn config_check_says_that_all_is_well() {
    insta::assert_snapshot!(Desk::new(CONFIG).told(&["config", "check"]), @r"
    /etc/ephemerd.toml: no errors
    (exit code 0)
    ");
}

#[test]
fn a_configuration_that_is_not_there_or_not_toml_is_an_error() {
    let desk = Desk::new("[native\nslots");
    insta::assert_snapshot!(desk.told(&["config", "check"]), @r"
    the configuration has 2 errors
    /etc/ephemerd.toml:1:8: unclosed table, expected `]`
    /etc/ephemerd.toml:2:6: key with no value, expected `=`
    (exit code 2)
    ");
    fs::remove_file(&desk.config).unwrap();
    insta::assert_snapshot!(desk.told(&["config", "check"]), @r"
    error: could not read the configuration `/etc/ephemerd.toml`: No such file or directory (os error 2)
    (exit code 2)
    ");
    insta::assert_snapshot!(desk.told(&["exec", "--", "true"]), @r"
    error: could not read the configuration `/etc/ephemerd.toml`: No such file or directory (os error 2)
    (exit code 125)
    ");
}

#[test]
fn config_show_prints_every_value_with_its_origin() {
    insta::assert_snapshot!("config_show", Desk::new(CONFIG).told(&["config", "show"]));
}

#[test]
fn profiles_render_as_these_texts() {
    // Whatever the host of the tests has.
    let desk = Desk::new(&CONFIG.replace("[native]", "[native]\nhomebrew = \"none\""));
    insta::assert_snapshot!("profile_strict", desk.told(&["profile", "render"]));
    insta::assert_snapshot!(
        "profile_standard",
        desk.told(&["profile", "render", "--repo", "acme/ios"])
    );
}

#[test]
fn a_daemon_that_is_not_there_is_named_with_a_hint() {
    let desk = Desk::new("[host]\ndata_dir = \"/no/such/place\"\n");
    insta::assert_snapshot!(desk.told(&["status"]), @r"
    error: could not reach the daemon at `/no/such/place/run/ephemerd.sock`: No such file or directory (os error 2)
    hint: start it with `ephemerd run`, or name its configuration with --config
    (exit code 1)
    ");
    insta::assert_snapshot!(desk.told(&["submit", "--repo", "acme/app", "--", "true"]), @r"
    error: could not reach the daemon at `/no/such/place/run/ephemerd.sock`: No such file or directory (os error 2)
    hint: start it with `ephemerd run`, or name its configuration with --config
    (exit code 125)
    ");
}
