//! The whole macOS path on Linux: the same code as on a Mac, against stand-ins for the tools of macOS that keep
//! state and fail as the real ones do. What it shows is what ephemerd asks of a Mac and how it takes the answers;
//! what a Mac does is not shown.
//!
//! Needs root, because jobs run as accounts of their own, and a kernel with Landlock for the stand-in of
//! sandbox-exec.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests start the program itself and its shims"
)]

mod accounts;
mod brew;
mod egress;
#[path = "../fakes/homebrew.rs"]
mod fake;
mod github;
mod job;
mod kinds;
mod network;
mod provision;
mod refused;
mod service;
mod shims;
mod stand;
mod verify;
