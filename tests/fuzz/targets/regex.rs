//! Translates arbitrary text as a regular expression, and matches with it.

#![no_main]

#[path = "../oracle/regex.rs"]
mod regex;

libfuzzer_sys::fuzz_target!(|text: &[u8]| regex::holds(text));
