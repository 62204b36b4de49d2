//! A hundred items at once.

use std::fmt::Write as _;

use super::{manifest, verdicts};
use crate::harness::Site;

/// Each check waits until all hundred have begun, so that one after the other, or fifty at a time, none would end.
/// How long it takes is measured by `scripts/bench.sh provision`.
#[test]
fn a_hundred_items_are_looked_at_at_the_same_time() {
    let site = Site::new("");
    let mut items = String::new();
    for n in 0..100 {
        let script = format!(
            "touch $TMPDIR/met-{n}; until [ $(ls $TMPDIR | grep -c met-) -ge 100 ]; do sleep 0.05; done"
        );
        writeln!(
            items,
            "[check.c{n}]\nwhy = \"w\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\ntimeout = \"60s\""
        )
        .unwrap();
    }
    let path = manifest(&site, "hundred.toml", &items);
    let (verdicts, code) = verdicts(&site, &path);
    assert_eq!((verdicts.len(), code), (100, 0), "{verdicts:?}");
}
