//! Reads, compiles and decides arbitrary bytes as a profile.

#![no_main]

#[path = "../oracle/profile.rs"]
mod profile;

libfuzzer_sys::fuzz_target!(|text: &[u8]| profile::holds(text));
