#!/usr/bin/env bash
# An offline cargo build: the toolchain is shown to this repository by `extra_read`, even where it lies in a
# home folder that jobs otherwise do not see.
set -euo pipefail

cargo init --quiet --lib --name greeting .
cat >src/lib.rs <<'RUST'
/// Returns a greeting.
pub fn greet(name: &str) -> String {
    format!("hello, {name}")
}

#[test]
fn greets_by_name() {
    assert_eq!(greet("world"), "hello, world");
}
RUST

cargo test --offline --lib
