//! Sends arbitrary bytes to the warden.

#![no_main]

#[path = "../oracle/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::holds(bytes));
