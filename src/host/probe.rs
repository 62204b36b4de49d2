//! Finds out what this host can enforce, without changing anything.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

use super::command::{self, CommandSpec};
use super::{Host, Os, cgroup, egress, os};
use crate::sandbox::axes::HostProbe;

/// Kinds of namespaces the sandbox uses, by their names in `/proc/self/ns` (namespaces(7)).
const NAMESPACES: [&str; 6] = ["mnt", "pid", "ipc", "uts", "net", "user"];

/// What was found. Whether the slots' accounts can be used is found out elsewhere and passed on.
pub fn probe(host: &Host, accounts: Result<(), String>) -> HostProbe {
    HostProbe {
        os: host.os,
        root: nix::unistd::geteuid().is_root(),
        landlock_abi: os::landlock_abi().map_err(|error| error.to_string()),
        missing_namespaces: missing_namespaces(),
        seatbelt: seatbelt(host),
        seccomp: os::has_seccomp_filters(),
        user_namespaces: user_namespaces(),
        accounts,
        packet_filter: egress::available(host).map_err(|error| {
            // Its hint would stand in the middle of the axis's reason.
            let text = error.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        }),
        groups: match host.os {
            Os::Linux => cgroup::look().map(drop),
            Os::MacOs => Err("macOS has no control groups".to_owned()),
        },
        open_files_hard: getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard),
    }
}

/// The kinds of namespaces that this kernel does not have.
pub(super) fn missing_namespaces() -> Vec<String> {
    let has = |kind: &str| std::fs::symlink_metadata(format!("/proc/self/ns/{kind}")).is_ok();
    NAMESPACES
        .into_iter()
        .filter(|kind| !has(kind))
        .map(str::to_owned)
        .collect()
}

/// Whether an ordinary user may make a user namespace, as far as the switches that forbid it tell.
fn user_namespaces() -> Result<(), String> {
    let switches = [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ];
    let forbidding = switches.into_iter().find(|(path, forbids)| {
        // A switch this kernel does not have forbids nothing.
        std::fs::read_to_string(path).is_ok_and(|value| value.trim() == *forbids)
    });
    match forbidding {
        Some((path, value)) => Err(format!(
            "user namespaces are forbidden to ordinary users: {path} is {value}"
        )),
        None => Ok(()),
    }
}

/// Whether sandbox-exec(1) applies a profile that allows everything: it does not where this process is in a sandbox
/// already. On Linux there is no such tool, and that is no fault.
fn seatbelt(host: &Host) -> Result<(), String> {
    if host.os == Os::Linux {
        return Ok(());
    }
    let args = ["-p", "(version 1)(allow default)", host.mac.r#true.as_str()];
    let spec = CommandSpec::new(&host.mac.sandbox_exec, &args, Duration::from_secs(10));
    command::run(&spec)
        .and_then(|output| output.require_success(&spec))
        .map(drop)
        .map_err(|error| crate::chain(&error))
}
