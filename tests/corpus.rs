//! The seeds of the fuzz targets, asked what the targets ask (`scripts/fuzz.sh` goes on from them).

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read what it checks has failed"
)]

use std::fs;

#[path = "fuzz/oracle/profile.rs"]
mod profile;
#[path = "fuzz/oracle/regex.rs"]
mod regex;
#[path = "fuzz/oracle/wire.rs"]
mod wire;

/// Every seed of `target`, in the order of their names.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = format!("{}/tests/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut seeds: Vec<_> = entries
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn what_must_hold_of_any_profile_holds_of_the_seeds() {
    let seeds = seeds("profile");
    assert!(seeds.len() >= 19, "found {} seeds", seeds.len());
    for (name, text) in seeds {
        println!("{name}");
        profile::holds(&text);
    }
}

#[test]
fn what_must_hold_of_any_regular_expression_holds_of_the_seeds() {
    let seeds = seeds("regex");
    assert!(seeds.len() >= 10, "found {} seeds", seeds.len());
    for (name, text) in seeds {
        println!("{name}");
        regex::holds(&text);
    }
}

#[test]
fn what_must_hold_of_whatever_a_dispatcher_sends_holds_of_the_seeds() {
    let seeds = seeds("wire");
    assert!(seeds.len() >= 14, "found {} seeds", seeds.len());
    let mut understood = 0;
    for (name, sent) in seeds {
        println!("{name}");
        understood += ephemerd::warden::wire::requests(&sent).unwrap().len();
        wire::holds(&sent);
    }
    // All but half a message and one that is too long; one seed is two.
    assert_eq!(understood, 13);
}
