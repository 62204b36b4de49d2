//! What a job gets on macOS, decided without a Mac: every expectation, in both postures, on both releases, under
//! every reading of the kernel that is in doubt. Nothing here has been run on a Mac.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot render what it checks has failed"
)]

#[path = "macos_profiles/expectations.rs"]
mod expectations;
#[path = "macos_profiles/paths.rs"]
mod paths;
#[path = "macos_profiles/regressions.rs"]
mod regressions;
#[path = "macos_profiles/rules.rs"]
mod rules;
#[path = "macos_profiles/subject.rs"]
mod subject;
#[path = "macos_profiles/text.rs"]
mod text;
