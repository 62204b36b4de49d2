//! Services of systemd and launchd.

use ephemerd::host::Os;
use ephemerd::provision::kind::Kind;
use ephemerd::provision::kind::service::Service;
use ephemerd::provision::question::{Answer, EntryKind};

use crate::told::{assert_every_answer_counts, complained, fix, host, printed, said, there, verdict};

const MAC_NAME: &str = "org.example.cache";

fn unit(running: bool) -> Kind {
    Kind::Service("cache.service".to_owned(), Service { running })
}

fn job(running: bool) -> Kind {
    Kind::Service(MAC_NAME.to_owned(), Service { running })
}

type Told = Vec<(&'static str, Answer)>;

fn systemd(active: (&str, i32), enabled: (&str, i32)) -> Told {
    vec![
        ("systemctl is-active cache.service", said(active.0, active.1)),
        ("systemctl is-enabled cache.service", said(enabled.0, enabled.1)),
    ]
}

fn launchd(print: Answer, plist: Answer) -> Told {
    vec![
        ("launchctl print system/org.example.cache", print),
        ("look /Library/LaunchDaemons", plist),
    ]
}

#[test]
fn a_unit_runs_and_starts_with_the_system() {
    let context = host(Os::Linux);
    let (active, inactive) = (("active", 0), ("inactive", 3));
    let (enabled, disabled) = (("enabled", 0), ("disabled", 1));
    let ctl = |verb: &str| format!("/usr/bin/systemctl {verb} cache.service");
    let cases = [
        (
            true,
            active,
            enabled,
            "ok: running, started with the system",
            vec![],
        ),
        (
            true,
            active,
            ("static", 0),
            "ok: running, started when it is needed",
            vec![],
        ),
        (
            true,
            inactive,
            ("static", 0),
            "wrong: found not running, started when it is needed, wanted running, and started with the system",
            vec![("start", "stop")],
        ),
        (
            false,
            inactive,
            ("static", 0),
            "ok: not running, started when it is needed",
            vec![],
        ),
        (
            false,
            active,
            ("static", 0),
            "wrong: found running, started when it is needed, wanted not running, and not started with the system",
            vec![("stop", "start")],
        ),
        (
            true,
            active,
            disabled,
            "wrong: found running, not started with the system, wanted running, and started with the system",
            vec![("enable", "disable")],
        ),
        (
            true,
            ("failed", 3),
            enabled,
            "wrong: found not running, started with the system, wanted running, and started with the system",
            vec![("start", "stop")],
        ),
        (
            true,
            inactive,
            disabled,
            "wrong: found not running, not started with the system, wanted running, and started with the system",
            vec![("enable --now", "disable --now")],
        ),
        (
            true,
            inactive,
            ("masked", 1),
            "wrong: found not running, masked, wanted running, and started with the system",
            vec![("unmask", "mask"), ("enable --now", "disable --now")],
        ),
        (
            false,
            inactive,
            disabled,
            "ok: not running, not started with the system",
            vec![],
        ),
        (false, inactive, ("masked", 1), "ok: not running, masked", vec![]),
        (
            false,
            ("inactive", 4),
            ("not-found", 4),
            "ok: no such service",
            vec![],
        ),
        (
            false,
            active,
            enabled,
            "wrong: found running, started with the system, wanted not running, and not started with the system",
            vec![("disable --now", "enable --now")],
        ),
        (
            false,
            active,
            disabled,
            "wrong: found running, not started with the system, wanted not running, and not started with the system",
            vec![("stop", "start")],
        ),
        (
            false,
            inactive,
            enabled,
            "wrong: found not running, started with the system, wanted not running, and not started with the system",
            vec![("disable", "enable")],
        ),
    ];
    for (running, active, enabled, expected, steps) in cases {
        let told = systemd(active, enabled);
        assert_eq!(verdict(&unit(running), &context, &told), expected);
        let steps: Vec<String> = steps
            .into_iter()
            .flat_map(|(does, undoes)| [format!("+ {}", ctl(does)), format!("- {}", ctl(undoes))])
            .collect();
        assert_eq!(fix(&unit(running), &context, &told), steps, "{expected}");
    }
    assert_every_answer_counts(&unit(true), &context, &systemd(active, enabled), &[]);
    assert_every_answer_counts(&unit(false), &context, &systemd(inactive, disabled), &[]);
}

#[test]
fn a_unit_that_there_is_not_is_missing() {
    let context = host(Os::Linux);
    let told = systemd(("inactive", 4), ("not-found", 4));
    assert_eq!(verdict(&unit(true), &context, &told), "missing: not there");
    assert_eq!(
        fix(&unit(true), &context, &told),
        ["? install what provides `cache.service`"]
    );
    let older = [
        ("systemctl is-active", said("inactive", 3)),
        ("systemctl is-enabled", complained("systemctl-no-unit-file", 1)),
    ];
    assert_eq!(verdict(&unit(true), &context, &older), "missing: not there");
    let told = [
        older[0].clone(),
        ("systemctl is-enabled", complained("systemctl-offline", 1)),
    ];
    assert!(verdict(&unit(true), &context, &told).starts_with("unknown"));
    let told = [
        ("systemctl is-active", complained("systemctl-offline", 1)),
        ("systemctl is-enabled", said("disabled", 1)),
    ];
    assert!(
        verdict(&unit(false), &context, &told).starts_with("unknown"),
        "nothing runs without systemd"
    );
}

#[test]
fn a_job_of_launchd_is_told_by_its_state_alone() {
    let context = host(Os::MacOs);
    let none = || complained("launchctl-no-service", 113);
    let plist = || there(EntryKind::File, 0o644);
    let cases = [
        (
            true,
            printed("launchctl-running", 0),
            "ok: running, started with the system",
        ),
        (
            true,
            printed("launchctl-not-running", 0),
            "wrong: found not running, started with the system, wanted running, and started with the system",
        ),
        (true, none(), "wrong: found no such service, wanted running"),
        (
            true,
            printed("launchctl-no-state", 0),
            "unknown: launchctl tells no state",
        ),
        (true, printed("garbage", 0), "unknown: launchctl tells no state"),
        (false, none(), "ok: no such service"),
        (
            false,
            printed("launchctl-running", 0),
            "wrong: found running, started with the system, wanted not running, and not started with the system",
        ),
    ];
    for (running, print, expected) in cases {
        assert_eq!(
            verdict(&job(running), &context, &launchd(print, plist())),
            expected
        );
    }
    let good = launchd(printed("launchctl-running", 0), plist());
    assert_every_answer_counts(&job(true), &context, &good, &["look"]);
    assert_every_answer_counts(&job(false), &context, &launchd(none(), plist()), &["look"]);
}

#[test]
fn a_job_of_launchd_is_loaded_and_unloaded_where_it_is_described() {
    let context = host(Os::MacOs);
    let none = || complained("launchctl-no-service", 113);
    let running = || printed("launchctl-running", 0);
    let plist = || there(EntryKind::File, 0o644);
    assert_eq!(
        fix(&job(true), &context, &launchd(none(), plist())),
        [
            "+ /bin/launchctl enable system/org.example.cache",
            "+ /bin/launchctl bootstrap system /Library/LaunchDaemons/org.example.cache.plist",
            "- /bin/launchctl bootout system/org.example.cache",
        ]
    );
    assert_eq!(
        fix(
            &job(true),
            &context,
            &launchd(printed("launchctl-not-running", 0), plist())
        ),
        [
            "+ /bin/launchctl kickstart system/org.example.cache",
            "- /bin/launchctl kill SIGTERM system/org.example.cache",
        ]
    );
    assert_eq!(
        fix(&job(false), &context, &launchd(running(), plist())),
        [
            "+ /bin/launchctl disable system/org.example.cache",
            "- /bin/launchctl enable system/org.example.cache",
            "+ /bin/launchctl bootout system/org.example.cache",
            "- /bin/launchctl bootstrap system /Library/LaunchDaemons/org.example.cache.plist",
        ]
    );
    let apples = fix(&job(false), &context, &launchd(running(), Answer::Missing));
    assert_eq!(
        apples,
        [
            "? there is no /Library/LaunchDaemons/org.example.cache.plist: see System Settings → General → Sharing, or: sudo launchctl disable system/org.example.cache"
        ]
    );
}
