//! What tools print, and what kinds of items make of it: every parser with good, bad, strange, missing and late answers,
//! on either system. Nothing is asked of the host that runs this.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod accounts;
mod apple;
mod complaints;
mod postures;
mod services;
mod told;
