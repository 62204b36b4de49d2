//! The service on a machine with a real systemd: one that is booted in namespaces over a copy of this machine.
//!
//! Needs root, systemd, and the kernel's cgroup2 and overlayfs.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]
#![expect(clippy::disallowed_methods, reason = "tests start machines")]

mod flow;
mod machine;
