//! `profile verify` tries its probes inside a job of this Mac. Its sandbox-exec models what a profile closes to
//! reading, and accounts are real; so of the attacks, those on a sibling's files must be stopped here.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::stand::Mac;

fn verdicts(output: &std::process::Output) -> BTreeMap<String, String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"));
    let probes = answer[0]["probes"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    probes
        .iter()
        .map(|probe| (text(&probe["name"]), text(&probe["verdict"])))
        .collect()
}

#[test]
fn verify_tries_the_profile_in_a_job_of_this_mac() {
    let mac = Mac::with_accounts();
    for posture in ["strict", "standard"] {
        let output = mac.ephemerd(&["profile", "verify", "--posture", posture, "--format", "json"]);
        let found = verdicts(&output);
        for name in [
            "read-sibling-file",
            "list-sibling-folder",
            "write-sibling-file",
            "create-file-at-sibling",
            "rename-sibling-folder",
            "read-state",
            "rename-own-workspace",
            "signal-sibling",
        ] {
            assert_eq!(found[name], "held", "{posture} {name}: {found:#?}");
        }
        let benign: Vec<_> = ephemerd::probe::seatbelt::table()
            .into_iter()
            .filter(|info| info.class == ephemerd::probe::Class::Benign)
            .collect();
        assert!(benign.len() > 5);
        for info in benign {
            assert_eq!(found[info.name], "works", "{posture} {}: {found:#?}", info.name);
        }
        // What no stand-in stops is told, and not hidden.
        assert_eq!(found["connect-sibling-socket"], "broken", "{found:#?}");
        assert_eq!(output.status.code(), Some(1));
    }
    assert_eq!(mac.remains(), [""; 0]);
}

#[test]
fn where_the_sandbox_does_not_hold_nothing_is_probed() {
    let mac = Mac::with_accounts();
    std::fs::write(mac.top.join("state/sandbox"), "pretend").unwrap();
    let output = mac.ephemerd(&["profile", "verify", "--posture", "strict"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty(), "{errors}");
    assert!(errors.contains("did not run to their end"), "{errors}");
    assert_eq!(mac.remains(), [""; 0]);
}
