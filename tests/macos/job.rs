//! Whole jobs on a Mac made of stand-ins, and every way in which one is not started.

use crate::stand::Mac;

#[test]
fn a_job_runs_as_its_account_in_its_workspace_and_leaves_nothing() {
    let mac = Mac::with_accounts();
    let (code, out, err) = mac.exec("id -u; id -G; pwd; umask; echo to-stderr >&2; exit 3");
    assert_eq!(code, 3, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], mac.uid.to_string());
    assert_eq!(lines[1], "450", "the one group and no other");
    assert!(lines[2].starts_with(mac.top.join("data/native").as_str()) && lines[2].ends_with("/work"));
    assert_eq!(lines[3], "0077");
    assert_eq!(err, "to-stderr\n");
    assert_eq!(mac.remains(), [""; 0]);
    let sandbox = mac.calls("sandbox-exec");
    let launch = sandbox.last().unwrap();
    assert!(
        launch.starts_with(&format!("-f {}/data/profiles/", mac.top)),
        "{launch}"
    );
    assert!(launch.ends_with("/bin/ephemerd __confined"), "{launch}");
}
