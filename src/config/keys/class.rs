//! When a key that has changed applies: the one place that decides that, for every key.
//!
//! What jobs are fenced in with, whom they run as and what is listened on is made at the start, and waits for the next one.
//! A new key has no class until it is given one here, and a test fails.

use super::Key;

/// When a changed value of a key applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// When the daemon reads its configuration again.
    Reload,
    /// Likewise, as long as GitHub is asked for jobs; a scale set is made of it.
    ReloadWhilePolling,
    /// When the daemon is started anew.
    Restart,
}

impl Class {
    /// As docs/configuration.md has it.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::ReloadWhilePolling => "reload, with `poll`",
            Self::Restart => "restart",
        }
    }
}

/// Names of keys, or what those of a section begin with and a `*`.
const CLASSES: [(Class, &[&str]); 3] = [
    (
        Class::Reload,
        &[
            "host.manifest",
            "host.recheck",
            "host.min_free_disk",
            "host.min_free_memory",
            "native.posture",
            "native.job_timeout",
            "native.stop_grace",
            "native.extra_read",
            "native.extra_write",
            "native.homebrew",
            "native.homebrew_layout",
            "native.limits.processes",
            "native.limits.memory",
            "native.limits.disk",
            "native.limits.open_files",
            "native.limits.output",
            "native.limits.nice",
            "native.env.NAME",
            "trust.default",
            "trust.repos.PATTERN",
            // Conditions are shown and compared with their rule.
            "trust.repos.PATTERN.*",
            "repos.REPO",
            "repos.REPO.manifest",
            "repos.REPO.posture",
            "repos.REPO.job_timeout",
            "repos.REPO.extra_read",
            "repos.REPO.extra_write",
            "repos.REPO.homebrew",
            "repos.REPO.env.NAME",
            "github.poll",
            "github.idle_poll",
            "github.idle_timeout",
            "github.stop_grace",
            "prune.logs_max_age",
            "prune.logs_max_size",
            "prune.kept_max_age",
            "prune.kept_max_size",
            "prune.jobs",
            "prune.min_free",
        ],
    ),
    (Class::ReloadWhilePolling, &["github.repos", "github.labels"]),
    (
        Class::Restart,
        &[
            // The warden copies from no other.
            "native.homebrew_prefix",
            "host.data_dir",
            "host.account",
            "native.slots",
            "native.accounts",
            // What the host enforces is assessed at the start.
            "native.allow_degraded",
            "native.first_port",
            "native.ports_per_slot",
            "native.limits.cgroup",
            "egress.*",
            "github.api",
            "github.org",
            "github.runner_group",
            "github.app_id",
            "github.installation_id",
            "github.private_key",
            "github.token_file",
            "github.acquire",
            "github.runner_version",
            "github.runner_sha256",
            "github.runner_releases",
            // The packet filter keeps jobs from its port.
            "github.webhook_listen",
            "github.webhook_secret",
            "vm.*",
            "control.*",
            "log.*",
        ],
    ),
];

/// What the table says of a key.
fn decided(name: &str) -> impl Iterator<Item = Class> {
    CLASSES.iter().flat_map(move |(class, entries)| {
        let is_of = move |entry: &&&str| match entry.strip_suffix('*') {
            Some(section) => name.starts_with(section),
            None => name == **entry,
        };
        entries.iter().filter(is_of).map(|_| *class)
    })
}

impl Key {
    /// When a changed value of it applies.
    pub fn class(&self) -> Class {
        // What nobody has decided about waits.
        decided(self.name).next().unwrap_or(Class::Restart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    #[test]
    fn every_key_has_one_class_and_every_entry_is_of_a_key() {
        for key in &KEYS {
            let classes: Vec<Class> = decided(key.name).collect();
            assert_eq!(classes.len(), 1, "`{}` has the classes {classes:?}", key.name);
        }
        for entry in CLASSES.iter().flat_map(|(_, entries)| *entries) {
            let is_known = KEYS.iter().any(|key| match entry.strip_suffix('*') {
                Some(section) => key.name.starts_with(section),
                None => key.name == *entry,
            });
            assert!(is_known, "{entry}");
        }
    }

    #[test]
    fn nothing_that_the_packet_filter_or_the_accounts_rest_on_changes_under_jobs() {
        let rests = |name: &str| {
            let sections = ["egress.", "control.", "vm."];
            sections.iter().any(|section| name.starts_with(section))
                || ["host.data_dir", "host.account", "native.slots", "native.accounts"].contains(&name)
                || name.contains("port")
                || name.contains("listen")
        };
        for key in KEYS.iter().filter(|key| rests(key.name)) {
            assert_eq!(key.class(), Class::Restart, "{}", key.name);
        }
    }
}
