//! Another configuration while jobs wait for slots and guests.

use std::fs;

use ephemerd::job::Outcome;
use ephemerd::trust::Route;

use super::Stand;
use crate::harness::{out, said};

#[test]
fn a_job_that_waits_for_a_slot_goes_to_a_guest_and_one_that_waits_for_a_guest_may_be_refused() {
    let stand = Stand::tart();
    let daemon = &stand.daemon;
    assert!(daemon.cli(&["drain"]).status.success());
    let (native, guest) = (daemon.script("true"), stand.submit("true"));
    assert_eq!(daemon.story(&native).job.route, Route::Native);
    assert_eq!(daemon.story(&guest).job.route, Route::Vm);
    let config = &daemon.site().config;
    let text = fs::read_to_string(config).unwrap();
    let text = text.replace("\"acme/*\" = \"native\"", "\"acme/*\" = \"vm\"");
    fs::write(config, text.replace("\"vm/*\" = \"vm\"\n", "")).unwrap();
    let output = daemon.cli(&["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    let told = out(&output);
    assert!(
        told.contains(&format!("may not run here any more: {guest}\n")),
        "{told}"
    );
    let outcome = daemon.outcome(&guest);
    let Outcome::Refused { reason } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        reason.contains("no entry of trust.repos names vm/app"),
        "{reason}"
    );
    let sent = daemon.story(&native).job;
    assert_eq!((sent.route, sent.outcome), (Route::Vm, None));
    assert!(daemon.cli(&["resume"]).status.success());
    assert_eq!(daemon.outcome(&native), Outcome::Exited { code: 0 });
}
