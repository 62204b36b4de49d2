//! The real program on a real host: daemons are started, jobs run as accounts of their own, and what they try,
//! use and leave is looked at from outside.
//!
//! These tests need root and a host that can enforce every axis, and fail where either is missing: what was not
//! shown is not so. Every test that runs jobs takes an account family for itself, because the end of a job ends
//! everything that runs as its account.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../page/browser.rs"]
mod browser;
mod cli;
mod codes;
mod control;
mod data_dir;
mod doctor;
mod egress;
mod escape;
mod exec;
#[path = "../fakes/homebrew.rs"]
mod fake;
mod github;
mod harness;
mod homebrew;
mod hostile;
mod jobs;
mod kernels;
mod limits;
mod load;
mod matrix;
mod page;
mod power;
mod provision;
mod prune;
mod recovery;
mod reload;
mod split;
mod succession;
mod suite;
mod unprivileged;
mod vm;
mod vm_real;
