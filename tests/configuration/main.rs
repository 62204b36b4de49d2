//! What a configuration file may say, and what a user reads when it says something else.

mod control;
mod egress;
mod github;

use std::collections::BTreeMap;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::config::{self, ConfigError, KeyOrigin, Loaded, parse};
use ephemerd::host::Os;
use ephemerd::profile::Posture;
use ephemerd::sandbox::Axis;
use ephemerd::trust::{Conditions, DefaultRoute, PullRequests, Route};

fn right(text: &str) -> Loaded {
    parse(text, "e.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// Everything that is wrong with `text`, as a user reads it.
fn wrong(text: &str) -> String {
    match parse(text, "e.toml") {
        Ok(_) => format!("nothing is wrong with {text:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_empty_file_is_the_defaults() {
    let loaded = right("");
    insta::assert_snapshot!(serde_json::to_string_pretty(&loaded.config).unwrap(), @r#"
    {
      "host": {
        "data_dir": "/var/lib/ephemerd",
        "account": "_ephemerd",
        "manifest": null,
        "recheck": {
          "secs": 86400,
          "nanos": 0
        },
        "floors": {
          "disk_byte": 5368709120,
          "memory_byte": 536870912
        }
      },
      "native": {
        "slots": 4,
        "accounts": "per-slot",
        "posture": "strict",
        "job_timeout": {
          "secs": 7200,
          "nanos": 0
        },
        "stop_grace": {
          "secs": 10,
          "nanos": 0
        },
        "allow_degraded": [],
        "extra_read": [],
        "extra_write": [],
        "homebrew": "own",
        "homebrew_prefix": null,
        "homebrew_layout": "links",
        "first_port": 21000,
        "ports_per_slot": 100,
        "limits": {
          "processes": 2048,
          "memory_byte": 8589934592,
          "disk_byte": 32212254720,
          "open_files": 65536,
          "output_byte": 104857600,
          "nice": 5,
          "cgroup": "auto"
        },
        "env": {}
      },
      "trust": {
        "default": "vm",
        "repos": []
      },
      "repos": {},
      "egress": {
        "mode": "block-lan",
        "allow": [],
        "deny": [],
        "dns": null,
        "dns_ports": [
          53
        ],
        "protect_local_ports": [
          22,
          88,
          445,
          548,
          3283,
          5900
        ],
        "loopback": "shared",
        "log": false,
        "on_loss": "stop"
      },
      "github": null,
      "vm": {
        "user": null,
        "macos": 2,
        "linux": 2,
        "host_memory_byte": 2147483648,
        "capacity_wait": {
          "secs": 1800,
          "nanos": 0
        },
        "backend": null,
        "backends": {}
      },
      "control": {
        "socket": "/var/lib/ephemerd/run/ephemerd.sock",
        "admin_group": "_ephemerd-admin",
        "listen": null
      },
      "log": {
        "format": "text",
        "level": "info"
      },
      "prune": {
        "logs_max_age": {
          "secs": 2592000,
          "nanos": 0
        },
        "logs_max_byte": 4294967296,
        "kept_max_age": {
          "secs": 1209600,
          "nanos": 0
        },
        "kept_max_byte": 21474836480,
        "jobs": 20000,
        "min_free_byte": 10737418240
      }
    }
    "#);
    assert_eq!(loaded.config, config::defaults().unwrap().config);
    assert!(
        loaded
            .origins
            .values()
            .all(|origin| *origin == KeyOrigin::Default)
    );
}

#[test]
fn values_and_the_lines_they_stand_in_are_read() {
    let loaded = right(
        r#"
[host]
data_dir = "/srv//ephemerd/"
[native]
slots = 6
allow_degraded = ["network"]
extra_read = ["/opt/toolchain/"]
limits = { memory = "512MiB" }
[native.env]
LANG = "C.UTF-8"
[trust]
default = "refuse"
[trust.repos]
"acme/*" = "native"
"acme/ios" = { route = "native", require_label = "ci", branches = ["main", "release/*"] }
[repos."acme/ios"]
posture = "standard"
job_timeout = "90m"
env.LANG = "de_DE.UTF-8"
[repos."acme/web"]
"#,
    );
    let config = &loaded.config;
    assert_eq!(config.host.data_dir, "/srv/ephemerd");
    assert_eq!(config.control.socket, "/srv/ephemerd/run/ephemerd.sock");
    assert_eq!(config.native.slots, 6);
    assert_eq!(config.native.allow_degraded, [Axis::Network].into());
    assert_eq!(config.native.extra_read, [Utf8PathBuf::from("/opt/toolchain")]);
    assert_eq!(config.native.limits.memory_byte, 512 << 20);
    assert_eq!(
        config.native.env,
        BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())])
    );
    assert_eq!(config.trust.default, DefaultRoute::Refuse);
    let [all, ios] = config.trust.repos.as_slice() else {
        panic!("{:?}", config.trust.repos);
    };
    assert_eq!(
        (all.route, all.name().as_str()),
        (Route::Native, "trust.repos.\"acme/*\"")
    );
    assert_eq!(all.conditions, Conditions::default());
    let expected = Conditions {
        events: None,
        pull_requests: PullRequests::SameRepo,
        require_label: Some("ci".to_owned()),
        allow_bots: false,
        branches: Some(vec!["main".to_owned(), "release/*".to_owned()]),
    };
    assert_eq!(ios.conditions, expected);
    let repo = &config.repos[&"Acme/iOS".parse().unwrap()];
    assert_eq!(repo.posture, Some(Posture::Standard));
    assert_eq!(repo.job_timeout, Some(Duration::from_secs(5400)));
    assert_eq!(config.repos[&"acme/web".parse().unwrap()].job_timeout, None);

    for (key, line) in [
        ("native.slots", 5),
        ("native.limits.memory", 8),
        ("native.env.LANG", 10),
        ("trust.repos.\"acme/ios\"", 15),
        ("repos.\"acme/ios\".env.LANG", 19),
    ] {
        assert_eq!(loaded.origins.get(key), Some(&KeyOrigin::File { line }), "{key}");
    }
    assert_eq!(loaded.origins["native.limits.disk"], KeyOrigin::Default);
}

#[test]
fn an_unknown_key_is_told_with_its_place_and_the_nearest_known_one() {
    insta::assert_snapshot!(wrong("[native]\n\n  slot = 4\n"), @r"
    the configuration has an error
    e.toml:3:3: unknown key `native.slot`
    hint: did you mean `native.slots`?
    ");
}

#[test]
fn a_section_that_does_not_exist_is_an_error() {
    insta::assert_snapshot!(wrong("[qqq]\nbackend = \"tart\"\n[egress]\nproxy = \"10.0.0.5\"\n"), @"
    the configuration has 2 errors
    e.toml:1:2: unknown key `qqq`
    hint: `ephemerd config show` lists every key that is set or has a default
    e.toml:4:1: unknown key `egress.proxy`
    hint: `ephemerd config show` lists every key that is set or has a default
    ");
}

#[test]
fn several_errors_are_told_at_once_in_the_order_of_the_file() {
    let text = r#"
[native]
slots = 0
posture = "Strict"
job_timeout = 7200
stop_grace = "-1s"
allow_degraded = ["network", "filesystem", "credentials", "netwrk"]
extra_read = ["opt", "/opt", "/proc/1"]
[native.limits]
memory = "0GiB"
disk = "30"
procs = 1
[native.env]
HOME = "/root"
LD_PRELOAD = "/x.so"
EPHEMERD_JOB = "1"
"A-B" = "1"
NUL = "a\u0000b"
[log]
level = "verbose"
"#;
    insta::assert_snapshot!(wrong(text), @r#"
    the configuration has 18 errors
    e.toml:3:9: `native.slots`: 0 is not within 1 to 64
    e.toml:4:11: `native.posture`: `Strict` is not a known value
    hint: did you mean `strict`?
    e.toml:5:15: `native.job_timeout`: expected duration, found integer
    hint: for example `job_timeout = "2h"`
    e.toml:6:14: `native.stop_grace`: `-1s` is not above zero
    hint: for example "30m"
    e.toml:7:30: `native.allow_degraded`: `filesystem` can never be degraded: without it a job reaches what belongs to others
    hint: axes that can be are `accounts`, `processes`, `ipc`, `network`, `limits`
    e.toml:7:44: `native.allow_degraded`: `credentials` can never be degraded: without it a job reaches what belongs to others
    hint: axes that can be are `accounts`, `processes`, `ipc`, `network`, `limits`
    e.toml:7:59: `native.allow_degraded`: `netwrk` is not a known value
    hint: did you mean `network`?
    e.toml:8:15: `native.extra_read`: `opt` is not an absolute path
    hint: begin it with `/`
    e.toml:8:30: `native.extra_read`: `/proc/1` cannot be granted: `/proc` shows the host and other jobs
    e.toml:10:10: `native.limits.memory`: `0GiB` is not above zero
    hint: for example "8GiB"
    e.toml:11:8: `native.limits.disk`: `30` has no unit
    hint: write the unit as well, for example "8GiB"
    e.toml:12:1: unknown key `native.limits.procs`
    hint: `ephemerd config show` lists every key that is set or has a default
    e.toml:14:1: `native.env.HOME`: `HOME` is reserved: every job gets its own
    hint: remove it
    e.toml:15:1: `native.env.LD_PRELOAD`: `LD_PRELOAD` is reserved: the dynamic loader would load other code into every program of the job
    hint: remove it
    e.toml:16:1: `native.env.EPHEMERD_JOB`: `EPHEMERD_JOB` is reserved: ephemerd tells a job about itself with it
    hint: remove it
    e.toml:17:1: `native.env.A-B`: `A-B` cannot be a variable's name
    hint: use letters, digits and `_`, and no digit first
    e.toml:18:7: `native.env.NUL`: a variable cannot hold a NUL character
    e.toml:20:9: `log.level`: `verbose` is not a known value
    hint: use one of `error`, `warn`, `info`, `debug`, `trace`
    "#);
}

#[test]
fn native_is_no_default() {
    insta::assert_snapshot!(wrong("trust.default = \"native\""), @r#"
    the configuration has an error
    e.toml:1:17: `trust.default`: the default cannot be `native`: only repositories that are named may run on the host
    hint: name them below `[trust.repos]`, for example `"acme/*" = "native"`
    "#);
}

#[test]
fn every_mistake_in_a_trust_rule_is_told() {
    let text = r#"
[trust.repos]
"acme/*" = "nativ"
"acme/a" = { branches = ["main"] }
"acme/b" = { route = "vm", events = ["push"], allow_bots = true }
"acme/c" = { route = "native", events = ["pull_request_target", "pushed", "push"] }
"acme/d" = { route = "native", events = [], branches = [""], require_label = "" }
"acme" = "native"
"*" = "native"
"#;
    insta::assert_snapshot!(wrong(text), @r#"
    the configuration has 11 errors
    e.toml:3:12: `trust.repos."acme/*"`: `nativ` is not a route
    hint: did you mean `native`?
    e.toml:4:1: `trust.repos."acme/a"` has no `route`
    hint: add one, for example `route = "native"`
    e.toml:5:28: `trust.repos."acme/b".events` is a condition for native, and the rule's route is `vm`
    hint: remove it
    e.toml:5:47: `trust.repos."acme/b".allow_bots` is a condition for native, and the rule's route is `vm`
    hint: remove it
    e.toml:6:42: `trust.repos."acme/c".events`: `pull_request_target` is not an event that may be native
    hint: did you mean `pull_request`?
    e.toml:6:65: `trust.repos."acme/c".events`: `pushed` is not an event that may be native
    hint: did you mean `push`?
    e.toml:7:41: `trust.repos."acme/d".events`: an empty list lets nothing be native
    hint: leave the key out to restrict nothing
    e.toml:7:57: `trust.repos."acme/d".branches`: is empty
    hint: write a name or leave it out
    e.toml:7:78: `trust.repos."acme/d".require_label`: is empty
    hint: write a name or leave it out
    e.toml:8:1: `acme` names no repository
    hint: write `OWNER/NAME`, or `OWNER/*` for all of an owner's repositories
    e.toml:9:1: `*` names no repository
    hint: write `OWNER/NAME`, or `OWNER/*` for all of an owner's repositories
    "#);
}

#[test]
fn repositories_that_differ_only_in_case_stand_twice() {
    let text = r#"
[trust.repos]
"acme/x" = "native"
"Acme/x" = "refuse"
"acme/*" = "vm"
"ACME/*" = "vm"
[repos."acme/x"]
[repos."acme/X"]
"#;
    insta::assert_snapshot!(wrong(text), @r#"
    the configuration has 3 errors
    e.toml:4:1: `trust.repos."Acme/x"` stands in line 3 already, since GitHub's names ignore case
    hint: keep one of the two
    e.toml:6:1: `trust.repos."ACME/*"` stands in line 5 already, since GitHub's names ignore case
    hint: keep one of the two
    e.toml:8:8: `repos."acme/X"` stands in line 7 already, since GitHub's names ignore case
    hint: keep one of the two
    "#);
}

#[test]
fn a_key_that_stands_twice_is_told_with_its_line() {
    insta::assert_snapshot!(wrong("[log]\nlevel = \"info\"\nlevel = \"warn\"\n"), @r"
    the configuration has an error
    e.toml:3:1: duplicate key at `level`
    ");
}

#[test]
fn contradictions_are_refused() {
    let cases = [
        "native.slots = 65",
        "native.first_port = 1023",
        "native.first_port = 65236\n",
        "native.first_port = 65000\nnative.slots = 6",
        "native.ports_per_slot = 20000",
        "native.accounts = \"single\"",
        "native.accounts = \"single\"\nnative.slots = 2\nnative.allow_degraded = [\"limits\"]",
        "host.data_dir = \"/\"",
        "host.data_dir = \"var\"",
        "host.data_dir = \"/opt/e\"\nnative.extra_read = [\"/opt\"]",
        "repos.\"a/b\".extra_write = [\"/var/lib/ephemerd/native\", \"/etc/x\"]",
        "host.account = \"Ephemerd\"",
        "host.account = \"a234567890123456789012\"",
        "control.admin_group = \"_ephemerd\"",
        "host.account = \"ci\"\ncontrol.admin_group = \"ci3\"",
        "control.socket = \"../e.sock\"",
        "control.socket = \"\"",
    ];
    let told: Vec<String> = cases.iter().map(|text| wrong(text)).collect();
    insta::assert_snapshot!(told.join("\n\n"), @r#"
    the configuration has an error
    e.toml:1:16: `native.slots`: 65 is not within 1 to 64

    the configuration has an error
    e.toml:1:21: `native.first_port`: 1023 is not within 1024 to 65535

    the configuration has an error
    e.toml:1:21: 4 slots of 100 ports from 65236 end at port 65635, above 65535
    hint: lower `native.first_port`, `native.ports_per_slot` or `native.slots`

    the configuration has an error
    e.toml:1:21: 6 slots of 100 ports from 65000 end at port 65599, above 65535
    hint: lower `native.first_port`, `native.ports_per_slot` or `native.slots`

    the configuration has an error
    e.toml:1:25: 4 slots of 20000 ports from 21000 end at port 100999, above 65535
    hint: lower `native.first_port`, `native.ports_per_slot` or `native.slots`

    the configuration has an error
    e.toml:1:19: `native.accounts` is "single" with 4 slots, so jobs of different slots share an account
    hint: set `native.slots` to 1, or admit it with `native.allow_degraded = ["accounts"]`

    the configuration has an error
    e.toml:1:19: `native.accounts` is "single" with 2 slots, so jobs of different slots share an account
    hint: set `native.slots` to 1, or admit it with `native.allow_degraded = ["accounts"]`

    the configuration has an error
    e.toml:1:17: `host.data_dir`: `/` is the whole file system
    hint: name a folder

    the configuration has an error
    e.toml:1:17: `host.data_dir`: `var` is not an absolute path
    hint: begin it with `/`

    the configuration has an error
    e.toml:2:22: `native.extra_read`: `/opt` overlaps `host.data_dir` (`/opt/e`), which holds the daemon's state and other jobs
    hint: keep what jobs share elsewhere

    the configuration has 2 errors
    e.toml:1:28: `repos."a/b".extra_write`: `/var/lib/ephemerd/native` overlaps `host.data_dir` (`/var/lib/ephemerd`), which holds the daemon's state and other jobs
    hint: keep what jobs share elsewhere
    e.toml:1:56: `repos."a/b".extra_write`: `/etc/x` cannot be granted for writing: a job could change the host through it
    hint: grant a folder that holds nothing of the system

    the configuration has an error
    e.toml:1:16: `host.account`: `Ephemerd` cannot be an account's name
    hint: begin with a-z or `_` and go on with at most 20 of a-z, 0-9, `_` and `-`

    the configuration has an error
    e.toml:1:16: `host.account`: `a234567890123456789012` cannot be an account's name
    hint: begin with a-z or `_` and go on with at most 20 of a-z, 0-9, `_` and `-`

    the configuration has an error
    e.toml:1:23: `control.admin_group`: `_ephemerd` is a group of the accounts that jobs run as, so jobs could control the daemon
    hint: name a group of people

    the configuration has an error
    e.toml:2:23: `control.admin_group`: `ci3` is a group of the accounts that jobs run as, so jobs could control the daemon
    hint: name a group of people

    the configuration has an error
    e.toml:1:18: `control.socket`: `/var/lib/ephemerd/../e.sock` holds `..`
    hint: write the path that is meant

    the configuration has an error
    e.toml:1:18: `control.socket`: `` is `host.data_dir` itself
    hint: name a file in it
    "#);
}

#[test]
fn a_socket_path_that_no_socket_can_have_is_refused() {
    let folder = "x".repeat(103 - "/var/lib/ephemerd/".len());
    assert_eq!(
        right(&format!("control.socket = \"{folder}\""))
            .config
            .control
            .socket
            .as_str()
            .len(),
        103
    );
    assert!(wrong(&format!("control.socket = \"{folder}x\"")).contains("longer than the 103 bytes"));
}

#[test]
fn what_only_looks_like_a_contradiction_is_accepted() {
    for text in [
        "native.slots = 64",
        "native.first_port = 65136",
        "native.accounts = \"single\"\nnative.slots = 1",
        "native.accounts = \"single\"\nnative.allow_degraded = [\"accounts\"]",
        "control.admin_group = \"_ephemerds\"",
        "host.account = \"a23456789012345678901\"",
        "control.socket = \"/run/ephemerd.sock\"",
        "native.env.HOMEBREW_PREFIX = \"\"",
        "native.env.PATH = \"/opt/bin\"",
    ] {
        right(text);
    }
}

#[test]
fn a_file_is_read_and_its_name_is_in_the_messages() {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(folder.path().join("e.toml")).unwrap();
    assert!(matches!(config::load(&path), Err(ConfigError::Read { .. })));
    assert!(config::load_or_default(Some(&path), Os::Linux).is_err());
    std::fs::write(&path, "native.slots = 3\n").unwrap();
    assert_eq!(config::load(&path).unwrap().config.native.slots, 3);
    std::fs::write(&path, "native.slots = 0\n").unwrap();
    let told = config::load(&path).unwrap_err().to_string();
    assert!(told.contains(&format!("{path}:1:16: ")), "{told}");
}

#[test]
fn each_system_has_its_default_path() {
    assert_eq!(
        config::default_path(Os::Linux),
        Utf8Path::new("/etc/ephemerd/ephemerd.toml")
    );
    assert_eq!(
        config::default_path(Os::MacOs),
        Utf8Path::new("/private/etc/ephemerd/ephemerd.toml")
    );
}
