//! The decision procedure for Linux policies: what the kernel will answer, worked out without a kernel.
//! [`macos`] asks the same of sandbox profiles of macOS.

pub mod macos;

use std::fmt;

use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use super::policy::{Access, Network, Policy, SyscallGroup, View};

/// What a job might try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Open for reading, or list.
    FileRead,
    /// Write, create, remove or rename.
    FileWrite,
    /// Execute.
    FileExec,
    /// A system call of Linux by name, with the arguments its group is about.
    Syscall,
    /// Connect. On Linux to anything but the job's own loopback, and the target is for the reader only.
    Network,
    /// An operation of macOS by its own name, `mach-lookup` for example.
    #[serde(untagged)]
    Sbpl(String),
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The kernel lets it happen, as far as the sandbox is concerned; file modes still apply.
    Allow,
    /// The kernel refuses, or there is nothing there.
    Deny,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(self))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(self))
    }
}

/// A verdict with the part of the policy that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ruling {
    /// Yes or no.
    pub verdict: Verdict,
    /// The deciding rule, as `path /usr: read` or `view = "listed"`.
    pub rule: String,
}

/// Decides whether `policy` lets a job do `operation` on `target`. Paths must be resolved, without
/// symbolic links, as the kernel has them when it decides.
pub fn decide(policy: &Policy, operation: &Operation, target: &str) -> Ruling {
    match operation {
        Operation::FileRead | Operation::FileWrite | Operation::FileExec => {
            decide_path(policy, operation, Utf8Path::new(target))
        }
        Operation::Syscall => {
            let group = SyscallGroup::ALL
                .into_iter()
                .find(|group| group.names().contains(&target));
            match group.filter(|group| policy.deny_syscalls.contains(group)) {
                Some(group) => ruling(Verdict::Deny, format!("deny-syscalls: {}", name_of(&group))),
                None => ruling(Verdict::Allow, format!("deny-syscalls: no group with `{target}`")),
            }
        }
        Operation::Network => match policy.network {
            Network::None => ruling(Verdict::Deny, "network = \"none\"".into()),
            Network::Host => ruling(Verdict::Allow, "network = \"host\"".into()),
        },
        Operation::Sbpl(name) => ruling(Verdict::Deny, format!("Linux has no operation `{name}`")),
    }
}

fn decide_path(policy: &Policy, operation: &Operation, path: &Utf8Path) -> Ruling {
    let Some(rule) = policy.rule_for(path) else {
        let view = format!("view = {}", name_of(&policy.view));
        return match (policy.view, operation) {
            (View::Host, Operation::FileRead | Operation::FileExec) => ruling(Verdict::Allow, view),
            _ => ruling(Verdict::Deny, view),
        };
    };
    let allowed = match rule.access {
        Access::Read => matches!(operation, Operation::FileRead | Operation::FileExec),
        Access::Write | Access::Scratch => true,
        Access::Device | Access::Pts => matches!(operation, Operation::FileRead | Operation::FileWrite),
        Access::Proc => *operation == Operation::FileRead,
        // A link decides nothing itself; whoever asks has resolved it.
        Access::Hide | Access::Link => false,
        // Below it is what other rules show; folders on the way to that hold nothing of anybody else's.
        Access::List => *operation == Operation::FileRead && path == rule.path,
    };
    let verdict = if allowed { Verdict::Allow } else { Verdict::Deny };
    ruling(verdict, format!("path {}: {}", rule.path, name_of(&rule.access)))
}

fn ruling(verdict: Verdict, rule: String) -> Ruling {
    Ruling { verdict, rule }
}

/// The name a value has in the policy's text.
fn name_of<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = r#"
        version = 1
        posture = "strict"
        view = "listed"
        network = "none"
        deny-syscalls = ["trace", "namespace"]
        [[path]]
        path = "/usr"
        access = "read"
        why = "programs"
        [[path]]
        path = "/data/native/job"
        access = "write"
        why = "workspace"
        [[path]]
        path = "/data"
        access = "hide"
        why = "daemon state"
    "#;

    fn verdict(operation: Operation, target: &str) -> Verdict {
        decide(&Policy::parse(TEXT).unwrap(), &operation, target).verdict
    }

    #[test]
    fn what_is_listed_may_be_read_but_not_written() {
        assert_eq!(verdict(Operation::FileRead, "/usr/bin/cc"), Verdict::Allow);
        assert_eq!(verdict(Operation::FileExec, "/usr/bin/cc"), Verdict::Allow);
        assert_eq!(verdict(Operation::FileWrite, "/usr/bin/cc"), Verdict::Deny);
    }

    #[test]
    fn the_workspace_is_writable_and_its_siblings_do_not_exist() {
        assert_eq!(
            verdict(Operation::FileWrite, "/data/native/job/work/x"),
            Verdict::Allow
        );
        assert_eq!(
            verdict(Operation::FileRead, "/data/native/other/home/secret"),
            Verdict::Deny
        );
        assert_eq!(verdict(Operation::FileRead, "/home/somebody"), Verdict::Deny);
    }

    #[test]
    fn the_deciding_rule_is_named() {
        let policy = Policy::parse(TEXT).unwrap();
        assert_eq!(
            decide(&policy, &Operation::FileRead, "/data/ledger.db").rule,
            "path /data: hide"
        );
        assert_eq!(
            decide(&policy, &Operation::FileRead, "/etc").rule,
            "view = listed"
        );
        assert_eq!(
            decide(&policy, &Operation::Syscall, "ptrace").rule,
            "deny-syscalls: trace"
        );
    }

    #[test]
    fn system_calls_outside_the_denied_groups_are_allowed() {
        assert_eq!(verdict(Operation::Syscall, "keyctl"), Verdict::Allow);
        assert_eq!(verdict(Operation::Syscall, "unshare"), Verdict::Deny);
    }

    proptest! {
        #[test]
        fn nothing_is_writable_outside_the_workspace(path in "(/[a-z.]{1,8}){1,6}") {
            prop_assume!(!path.starts_with("/data/native/job/") && path != "/data/native/job");
            prop_assert_eq!(verdict(Operation::FileWrite, &path), Verdict::Deny);
        }
    }
}
