//! The Linux policy: a TOML text that lists paths, network and system-call groups, and nothing implied.
//!
//! One rule decides about a path: the one whose path is its longest prefix. The sandbox realises exactly
//! that by mounting the rules in order of depth, and states the same once more as Landlock rules, so that
//! two mechanisms of the kernel have to fail before a job gets out.

use std::collections::BTreeSet;

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::Posture;

/// The version of the text this program reads and writes.
pub const VERSION: u32 = 1;

/// Why a text is not a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, an unknown key or a wrong type; the source names line and column.
    #[error("could not read the policy")]
    Text(#[source] Box<toml::de::Error>),
    /// Made for another version of this program.
    #[error("policy version {0} is not {VERSION}\nhint: render the profile with this version of ephemerd")]
    Version(u32),
    /// A path that would not match what the kernel compares, or would match more than it says.
    #[error(
        "policy path `{path}` {what}\nhint: write an absolute path without `.`, `..`, `//` or a trailing slash"
    )]
    Path {
        /// The path as written.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Two rules for one path.
    #[error("policy has two rules for `{0}`\nhint: keep the one that is meant")]
    Twice(Utf8PathBuf),
    /// A key that does not go with the rule's access.
    #[error("policy rule for `{path}`: `{key}` {what}")]
    Key {
        /// The rule's path.
        path: Utf8PathBuf,
        /// The key.
        key: &'static str,
        /// Why it does not fit.
        what: &'static str,
    },
}

/// What a job may do on Linux.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Policy {
    /// Always [`VERSION`].
    pub version: u32,
    /// The template it came from.
    pub posture: Posture,
    /// What exists where no rule says anything.
    pub view: View,
    /// What the job reaches over the network.
    pub network: Network,
    /// System calls that fail for the job.
    pub deny_syscalls: BTreeSet<SyscallGroup>,
    /// Rules by path; after [`Policy::parse`] sorted, so that a rule stands behind those it lies in.
    #[serde(rename = "path")]
    pub paths: Vec<PathRule>,
}

/// What exists where no rule says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Nothing: the root is empty but for the listed paths.
    Listed,
    /// The host's files, read-only and without set-uid.
    Host,
}

/// What the job reaches over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A loopback of its own and nothing else.
    None,
    /// The host's network.
    Host,
}

/// One rule: what there is at a path and below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PathRule {
    /// Absolute path as the job sees it.
    pub path: Utf8PathBuf,
    /// What the job may do there.
    pub access: Access,
    /// The host's path that is shown at `path`, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Utf8PathBuf>,
    /// Where a `link` points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Utf8PathBuf>,
    /// The size of a `scratch` in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_mib: Option<u32>,
    /// Left out when the host has no such path, instead of refusing the job.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Why the rule is there.
    pub why: String,
}

/// What the job may do at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read, list and execute.
    Read,
    /// And write, create, remove, rename.
    Write,
    /// Nothing: an empty folder, or an empty file, that only holds the rules beneath it.
    Hide,
    /// Read, write and ioctl of one device node.
    Device,
    /// An empty memory file system of its own, gone with the job.
    Scratch,
    /// A procfs that shows only the job's own processes.
    Proc,
    /// A devpts instance of its own.
    Pts,
    /// A symbolic link.
    Link,
    /// The root of a listed view, which may be listed itself: the names of what is shown, and nothing more.
    List,
}

/// System calls that fail for a job, by what they would be used for. The members are in
/// [`SyscallGroup::names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyscallGroup {
    /// Reading or steering another process.
    Trace,
    /// The kernel's key rings, which are shared by uid and not by namespace.
    Keys,
    /// Changing what is mounted where.
    Mount,
    /// Making or entering namespaces.
    Namespace,
    /// Ways into the kernel itself, and what only an administrator needs.
    Kernel,
    /// Submission of system calls past the filter.
    IoUring,
    /// Typing into a terminal somebody else reads.
    Terminal,
    /// Sockets of other families than Unix, IPv4, IPv6 and netlink, vsock (which reaches a hypervisor) above all; and
    /// of other protocols of the internet than TCP, UDP and ICMP: for MPTCP and SMC the kernel opens sockets of its
    /// own that no packet filter knows for the job's.
    Sockets,
}

impl SyscallGroup {
    /// Every group, in the order of their names.
    pub const ALL: [Self; 8] = [
        Self::Trace,
        Self::Keys,
        Self::Mount,
        Self::Namespace,
        Self::Kernel,
        Self::IoUring,
        Self::Terminal,
        Self::Sockets,
    ];

    /// The system calls of the group, as the kernel's tables name them. `clone`, `ioctl` and `socket` fail
    /// only for the arguments the group is about; `setrlimit` and `prlimit64` succeed without effect where they
    /// would change the limit of core dumps; `clone3` fails with `ENOSYS`, because its flags lie in
    /// memory where a filter cannot see them, and libc then falls back to `clone`.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Trace => &[
                "ptrace",
                "process_vm_readv",
                "process_vm_writev",
                "pidfd_getfd",
                "kcmp",
            ],
            Self::Keys => &["add_key", "request_key", "keyctl"],
            Self::Mount => &[
                "mount",
                "umount2",
                "move_mount",
                "open_tree",
                "fsopen",
                "fsconfig",
                "fsmount",
                "fspick",
                "mount_setattr",
                "pivot_root",
                "chroot",
            ],
            Self::Namespace => &["unshare", "setns", "clone", "clone3"],
            Self::Kernel => &[
                "bpf",
                "perf_event_open",
                "userfaultfd",
                "kexec_load",
                "kexec_file_load",
                "init_module",
                "finit_module",
                "delete_module",
                "reboot",
                "swapon",
                "swapoff",
                "syslog",
                "acct",
                "quotactl",
                "quotactl_fd",
                "settimeofday",
                "clock_settime",
                "clock_adjtime",
                "adjtimex",
                "open_by_handle_at",
                "lookup_dcookie",
                "iopl",
                "ioperm",
                "nfsservctl",
                "setrlimit",
                "prlimit64",
            ],
            Self::IoUring => &["io_uring_setup", "io_uring_enter", "io_uring_register"],
            Self::Terminal => &["ioctl", "vhangup"],
            Self::Sockets => &["socket"],
        }
    }
}

impl Policy {
    /// Reads a policy and checks it: version, paths, keys that go with each access, one rule per path.
    ///
    /// # Errors
    /// The first thing that is wrong; see [`PolicyError`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut policy: Self = toml::from_str(text).map_err(|e| PolicyError::Text(Box::new(e)))?;
        if policy.version != VERSION {
            return Err(PolicyError::Version(policy.version));
        }
        policy.paths.sort_by(|a, b| a.path.cmp(&b.path));
        for rule in &policy.paths {
            rule.check()?;
        }
        if let Some(pair) = policy.paths.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(PolicyError::Twice(pair[0].path.clone()));
        }
        Ok(policy)
    }

    /// The rule that decides about `path`: the one whose path is its longest prefix.
    pub fn rule_for(&self, path: &Utf8Path) -> Option<&PathRule> {
        self.paths
            .iter()
            .filter(|rule| rule.covers(path))
            .max_by_key(|rule| rule.path.as_str().len())
    }
}

impl PathRule {
    /// Whether `path` is the rule's path or lies below it. Both are in their simplest spelling, so comparing the
    /// text is comparing the path, in a fraction of the time.
    pub fn covers(&self, path: &Utf8Path) -> bool {
        match path.as_str().strip_prefix(self.path.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || self.path.as_str().ends_with('/'),
            None => false,
        }
    }

    fn check(&self) -> Result<(), PolicyError> {
        for path in [Some(&self.path), self.source.as_ref()].into_iter().flatten() {
            check_path(path)?;
        }
        let key = |key, what| {
            Err(PolicyError::Key {
                path: self.path.clone(),
                key,
                what,
            })
        };
        match self.access {
            Access::Link if self.target.is_none() => key("target", "is needed by a link"),
            Access::Scratch if self.size_mib.is_none_or(|size| size == 0) => {
                key("size-mib", "is needed by a scratch")
            }
            Access::List if self.path != "/" => key("access", "is for the root alone"),
            Access::Read
            | Access::Write
            | Access::Hide
            | Access::Device
            | Access::Proc
            | Access::Pts
            | Access::List
                if self.target.is_some() || self.size_mib.is_some() =>
            {
                key("access", "takes neither `target` nor `size-mib`")
            }
            Access::Hide | Access::Scratch | Access::Proc | Access::Pts | Access::Link | Access::List
                if self.source.is_some() =>
            {
                key("source", "goes only with read, write and device")
            }
            _ => Ok(()),
        }
    }
}

/// Accepts a path only in the one spelling that the kernel's lookup would arrive at.
fn check_path(path: &Utf8Path) -> Result<(), PolicyError> {
    match fault_of(path) {
        None => Ok(()),
        Some(what) => Err(PolicyError::Path {
            path: path.to_string(),
            what,
        }),
    }
}

/// What keeps `path` from being in the one spelling that the kernel's lookup would arrive at.
pub(super) fn fault_of(path: &Utf8Path) -> Option<&'static str> {
    if !path.is_absolute() {
        return Some("is not absolute");
    }
    if path.as_str().chars().any(char::is_control) {
        return Some("contains a control character");
    }
    let spelled: Utf8PathBuf = path.components().collect();
    let is_plain = spelled.as_str() == path.as_str();
    if !is_plain || path.components().any(|c| c == Utf8Component::ParentDir) {
        return Some("is not in its simplest spelling");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Result<Policy, PolicyError> {
        Policy::parse(&format!(
            "version = 1\nposture = \"strict\"\nview = \"listed\"\nnetwork = \"none\"\ndeny-syscalls = [\"trace\"]\n{rules}"
        ))
    }

    fn rule(path: &str, access: &str) -> String {
        format!("[[path]]\npath = {path:?}\naccess = {access:?}\nwhy = \"test\"\n")
    }

    #[test]
    fn the_longest_prefix_decides() {
        let policy =
            policy(&(rule("/var", "hide") + &rule("/", "read") + &rule("/var/lib/dpkg", "read"))).unwrap();
        let access = |path: &str| policy.rule_for(Utf8Path::new(path)).unwrap().access;
        assert_eq!(access("/usr/bin/cc"), Access::Read);
        assert_eq!(access("/var/lib"), Access::Hide);
        assert_eq!(access("/var/lib/dpkg/status"), Access::Read);
        assert_eq!(
            access("/var/lib/dpkg-old"),
            Access::Hide,
            "a prefix is made of whole names"
        );
    }

    #[test]
    fn refuses_paths_that_would_match_something_else() {
        for bad in [
            "usr",
            "/usr/",
            "/usr//lib",
            "/usr/../etc",
            "/a/./b",
            "/a\\u0007b",
            "/a\\nb",
        ] {
            let text = rule("X", "read").replace("\"X\"", &format!("\"{bad}\""));
            assert!(matches!(policy(&text), Err(PolicyError::Path { .. })), "{bad}");
        }
    }

    #[test]
    fn refuses_two_rules_for_one_path() {
        let twice = rule("/usr", "read") + &rule("/usr", "hide");
        assert!(matches!(policy(&twice), Err(PolicyError::Twice(path)) if path == "/usr"));
    }

    #[test]
    fn refuses_unknown_keys_groups_and_versions() {
        assert!(matches!(
            policy("[[path]]\npath = \"/a\"\naccess = \"read\"\nwhy = \"\"\nwhen = 1"),
            Err(PolicyError::Text(_))
        ));
        assert!(matches!(policy(&rule("/a", "append")), Err(PolicyError::Text(_))));
        assert!(matches!(
            Policy::parse("version = 1\ndeny-syscalls = [\"all\"]"),
            Err(PolicyError::Text(_))
        ));
    }

    #[test]
    fn refuses_keys_that_do_not_go_with_the_access() {
        assert!(matches!(
            policy(&rule("/a", "link")),
            Err(PolicyError::Key { key: "target", .. })
        ));
        assert!(matches!(
            policy(&rule("/a", "scratch")),
            Err(PolicyError::Key { key: "size-mib", .. })
        ));
        let source = rule("/a", "hide") + "source = \"/b\"\n";
        assert!(matches!(
            policy(&source),
            Err(PolicyError::Key { key: "source", .. })
        ));
    }
}
