//! The resolved configuration as rows of key, value and origin. The text form is itself a configuration
//! file: reading it gives the same configuration.

mod control;
mod prune;
mod vm;

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use serde::Serialize;

use super::keys::{dotted, quote};
use super::size::{show_duration, show_size};
use super::{
    Config, Egress, GitHub, HostConfig, Identity, KeyOrigin, Limits, Loaded, Log, Native, RepoConfig, Serves,
    Webhook,
};
use crate::egress::Destination;
use crate::trust::{Conditions, DefaultRoute, Route, TrustConfig, TrustRule};

/// One key of the resolved configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The dotted key.
    pub key: String,
    /// Its segments, without quotes.
    #[serde(skip)]
    pub path: Vec<String>,
    /// The value as TOML.
    pub value: String,
    /// `default`, or file and line.
    pub origin: String,
}

/// The configuration as text, one `key = value  # origin` a line.
pub fn show(loaded: &Loaded) -> String {
    let line = |row: Row| format!("{} = {}  # {}\n", row.key, row.value, row.origin);
    rows(loaded).into_iter().map(line).collect()
}

/// The configuration as rows, in the order of the documentation.
pub fn rows(loaded: &Loaded) -> Vec<Row> {
    // Destructured, so that a new field does not compile until it is shown.
    let Config {
        host,
        native,
        trust,
        repos,
        egress,
        github,
        vm,
        control,
        log,
        prune: limits,
    } = &loaded.config;
    let mut rows = Rows {
        loaded,
        rows: Vec::new(),
    };
    let HostConfig {
        data_dir,
        account,
        manifest,
        recheck,
        floors,
    } = host;
    rows.add(&["host", "data_dir"], quote(data_dir.as_str()));
    rows.add(&["host", "account"], quote(account));
    if let Some(manifest) = manifest {
        rows.add(&["host", "manifest"], quote(manifest));
    }
    rows.add(&["host", "recheck"], quote(&show_duration(*recheck)));
    rows.add(&["host", "min_free_disk"], quote(&show_size(floors.disk_byte)));
    rows.add(
        &["host", "min_free_memory"],
        quote(&show_size(floors.memory_byte)),
    );
    rows.native(native);
    rows.trust(trust);
    for (name, repo) in repos {
        rows.repo(name.as_str(), repo);
    }
    rows.egress(egress);
    if let Some(github) = github {
        rows.github(github);
    }
    vm::rows_of(&mut rows, vm);
    control::rows_of(&mut rows, control);
    let Log { format, level } = log;
    rows.add(&["log", "format"], word(format));
    rows.add(&["log", "level"], word(level));
    prune::rows_of(&mut rows, limits);
    rows.rows
}

struct Rows<'a> {
    loaded: &'a Loaded,
    rows: Vec<Row>,
}

impl Rows<'_> {
    fn add(&mut self, path: &[&str], value: String) {
        let key = dotted(path.iter().copied());
        let origin = match self.loaded.origins.get(&key) {
            Some(KeyOrigin::File { line }) => format!("{}:{line}", self.loaded.file.escape_debug()),
            Some(KeyOrigin::Default) | None => "default".to_owned(),
        };
        let path = path.iter().map(|&segment| segment.to_owned()).collect();
        self.rows.push(Row {
            key,
            path,
            value,
            origin,
        });
    }

    fn native(&mut self, native: &Native) {
        let Native {
            slots,
            accounts,
            posture,
            job_timeout,
            stop_grace,
            allow_degraded,
            extra_read,
            extra_write,
            homebrew,
            homebrew_prefix,
            homebrew_layout,
            first_port,
            ports_per_slot,
            limits,
            env,
        } = native;
        self.add(&["native", "slots"], slots.to_string());
        self.add(&["native", "accounts"], word(accounts));
        self.add(&["native", "posture"], word(posture));
        self.add(&["native", "job_timeout"], quote(&show_duration(*job_timeout)));
        self.add(&["native", "stop_grace"], quote(&show_duration(*stop_grace)));
        self.add(
            &["native", "allow_degraded"],
            list(allow_degraded.iter().map(word)),
        );
        self.add(&["native", "extra_read"], paths(extra_read));
        self.add(&["native", "extra_write"], paths(extra_write));
        self.add(&["native", "homebrew"], word(homebrew));
        if let Some(prefix) = homebrew_prefix {
            self.add(&["native", "homebrew_prefix"], quote(prefix.as_str()));
        }
        self.add(&["native", "homebrew_layout"], word(homebrew_layout));
        self.add(&["native", "first_port"], first_port.to_string());
        self.add(&["native", "ports_per_slot"], ports_per_slot.to_string());
        let Limits {
            processes,
            memory_byte,
            disk_byte,
            open_files,
            output_byte,
            nice,
            cgroup,
        } = limits;
        self.add(&["native", "limits", "processes"], processes.to_string());
        self.add(&["native", "limits", "memory"], quote(&show_size(*memory_byte)));
        self.add(&["native", "limits", "disk"], quote(&show_size(*disk_byte)));
        self.add(&["native", "limits", "open_files"], open_files.to_string());
        self.add(&["native", "limits", "output"], quote(&show_size(*output_byte)));
        self.add(&["native", "limits", "nice"], nice.to_string());
        self.add(&["native", "limits", "cgroup"], word(cgroup));
        self.env(&["native", "env"], env);
    }

    fn trust(&mut self, trust: &TrustConfig) {
        let TrustConfig { default, repos } = trust;
        self.add(&["trust", "default"], quote(Route::from(*default).as_str()));
        for rule in repos {
            let TrustRule {
                pattern,
                route,
                conditions,
                fallback,
                vm,
            } = rule;
            let route = quote(route.as_str());
            let mut conditions = stated(conditions);
            if *fallback != DefaultRoute::Refuse {
                conditions.push(format!("fallback = {}", word(fallback)));
            }
            conditions.extend(vm::stated(vm));
            let value = if conditions.is_empty() {
                route
            } else {
                format!("{{ route = {route}, {} }}", conditions.join(", "))
            };
            self.add(&["trust", "repos", &pattern.to_string()], value);
        }
    }

    fn egress(&mut self, egress: &Egress) {
        let Egress {
            mode,
            allow,
            deny,
            dns,
            dns_ports,
            protect_local_ports,
            loopback,
            log,
            on_loss,
        } = egress;
        let quoted = |destination: &Destination| quote(&destination.to_string());
        let forced = |destination: &Destination| {
            let force = if destination.is_single() { "" } else { " force" };
            quote(&format!("{destination}{force}"))
        };
        self.add(&["egress", "mode"], word(mode));
        self.add(&["egress", "allow"], list(allow.iter().map(forced)));
        self.add(&["egress", "deny"], list(deny.iter().map(quoted)));
        let resolvers = dns
            .as_ref()
            .map(|dns| list(dns.iter().map(|address| quote(&address.to_string()))));
        self.add(&["egress", "dns"], resolvers.unwrap_or_else(|| quote("system")));
        self.add(
            &["egress", "dns_ports"],
            list(dns_ports.iter().map(u16::to_string)),
        );
        let protected = protect_local_ports.iter().map(u16::to_string);
        self.add(&["egress", "protect_local_ports"], list(protected));
        self.add(&["egress", "loopback"], word(loopback));
        self.add(&["egress", "log"], log.to_string());
        self.add(&["egress", "on_loss"], word(on_loss));
    }

    fn github(&mut self, github: &GitHub) {
        let GitHub {
            api,
            serves,
            runner_group,
            labels,
            identity,
            acquire,
            poll,
            idle_poll,
            idle_timeout,
            stop_grace,
            runner,
            runner_releases,
            webhook,
        } = github;
        self.add(&["github", "api"], quote(api));
        let (org, repos) = match serves {
            Serves::Repos(repos) => (None, repos),
            Serves::Org { org, repos } => (Some(org), repos),
        };
        self.add(
            &["github", "repos"],
            list(repos.iter().map(|repo| quote(repo.as_str()))),
        );
        if let Some(org) = org {
            self.add(&["github", "org"], quote(org));
        }
        self.add(&["github", "runner_group"], quote(runner_group));
        self.add(
            &["github", "labels"],
            list(labels.iter().map(|label| quote(label))),
        );
        match identity {
            Identity::App {
                app_id,
                installation_id,
                private_key,
            } => {
                self.add(&["github", "app_id"], app_id.to_string());
                self.add(&["github", "installation_id"], installation_id.to_string());
                self.add(&["github", "private_key"], quote(private_key.as_str()));
            }
            Identity::Token { file } => self.add(&["github", "token_file"], quote(file.as_str())),
        }
        self.add(&["github", "acquire"], word(acquire));
        self.add(&["github", "poll"], quote(&show_duration(*poll)));
        self.add(&["github", "idle_poll"], quote(&show_duration(*idle_poll)));
        self.add(&["github", "idle_timeout"], quote(&show_duration(*idle_timeout)));
        self.add(&["github", "stop_grace"], quote(&show_duration(*stop_grace)));
        if let Some((version, sha256)) = runner {
            self.add(&["github", "runner_version"], quote(&version.to_string()));
            self.add(&["github", "runner_sha256"], quote(sha256.as_str()));
        }
        self.add(&["github", "runner_releases"], quote(runner_releases));
        if let Some(Webhook { listen, secret }) = webhook {
            self.add(&["github", "webhook_listen"], quote(&listen.to_string()));
            self.add(&["github", "webhook_secret"], quote(secret.as_str()));
        }
    }

    fn repo(&mut self, name: &str, repo: &RepoConfig) {
        let RepoConfig {
            manifest,
            posture,
            job_timeout,
            extra_read,
            extra_write,
            homebrew,
            env,
        } = repo;
        let before = self.rows.len();
        if let Some(manifest) = manifest {
            self.add(&["repos", name, "manifest"], quote(manifest));
        }
        if let Some(posture) = posture {
            self.add(&["repos", name, "posture"], word(posture));
        }
        if let Some(timeout) = job_timeout {
            self.add(&["repos", name, "job_timeout"], quote(&show_duration(*timeout)));
        }
        if !extra_read.is_empty() {
            self.add(&["repos", name, "extra_read"], paths(extra_read));
        }
        if !extra_write.is_empty() {
            self.add(&["repos", name, "extra_write"], paths(extra_write));
        }
        if let Some(homebrew) = homebrew {
            self.add(&["repos", name, "homebrew"], word(homebrew));
        }
        self.env(&["repos", name, "env"], env);
        if self.rows.len() == before {
            self.add(&["repos", name], "{}".to_owned());
        }
    }

    fn env(&mut self, section: &[&str], env: &BTreeMap<String, String>) {
        for (name, value) in env {
            self.add(&[section, &[name.as_str()]].concat(), quote(value));
        }
    }
}

/// The conditions that differ from the default, as `key = value`.
fn stated(conditions: &Conditions) -> Vec<String> {
    let plain = Conditions::default();
    let Conditions {
        events,
        pull_requests,
        require_label,
        allow_bots,
        branches,
    } = conditions;
    let mut stated = Vec::new();
    if let Some(events) = events {
        stated.push(format!(
            "events = {}",
            list(events.iter().map(|event| quote(event)))
        ));
    }
    if *pull_requests != plain.pull_requests {
        stated.push(format!("pull_requests = {}", word(pull_requests)));
    }
    if let Some(label) = require_label {
        stated.push(format!("require_label = {}", quote(label)));
    }
    if *allow_bots != plain.allow_bots {
        stated.push(format!("allow_bots = {allow_bots}"));
    }
    if let Some(branches) = branches {
        stated.push(format!(
            "branches = {}",
            list(branches.iter().map(|branch| quote(branch)))
        ));
    }
    stated
}

/// The name that serde gives a variant without fields; JSON and TOML write such a word alike.
fn word(variant: &impl Serialize) -> String {
    serde_json::to_string(variant).unwrap_or_default()
}

fn paths(paths: &[Utf8PathBuf]) -> String {
    list(paths.iter().map(|path| quote(path.as_str())))
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;
    use crate::config::{defaults, parse};

    const FULL: &str = r#"
[native]
slots = 2
stop_grace = "1500ms"
homebrew_prefix = "/opt/brew"
allow_degraded = ["network", "limits"]
extra_read = ["/opt/it's \"here\"", "/opt/b"]
[native.env]
GREETING = "tab\tquote\" back\\slash é"
[trust]
default = "refuse"
[trust.repos]
"acme/*" = "native"
"acme/ios" = { route = "native", events = ["push", "pull_request"], pull_requests = "none", require_label = "ci", allow_bots = true, branches = ["main", "release/*"] }
"acme/old" = { route = "refuse" }
[repos."acme/ios"]
posture = "standard"
job_timeout = "90m"
extra_read = ["/opt/x"]
extra_write = ["/srv/x"]
homebrew = "none"
env = { A = "1" }
[repos."acme/plain"]
"#;

    #[test]
    fn shows_every_key_that_has_a_name_of_its_own() {
        let shown: Vec<String> = rows(&defaults().unwrap())
            .into_iter()
            .map(|row| row.key)
            .collect();
        let known: Vec<&str> = KEYS
            .iter()
            .filter(|key| key.is_fixed() && key.default.is_some())
            .map(|key| key.name)
            // Nothing is asked of GitHub unless the file says so.
            .filter(|name| !name.starts_with("github."))
            .collect();
        assert_eq!(shown, known);
    }

    #[test]
    fn shows_how_github_is_asked_where_it_is() {
        let text =
            "[github]\nrepos = [\"acme/ios\"]\nlabels = [\"eph\"]\ntoken_file = \"/etc/ephemerd/token\"\n";
        let shown = show(&parse(text, "e.toml").unwrap());
        let lines: Vec<&str> = shown.lines().filter(|line| line.starts_with("github.")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        github.api = "https://api.github.com"  # default
        github.repos = ["acme/ios"]  # e.toml:2
        github.runner_group = "Default"  # default
        github.labels = ["eph"]  # e.toml:3
        github.token_file = "/etc/ephemerd/token"  # e.toml:4
        github.acquire = "poll"  # default
        github.poll = "10s"  # default
        github.idle_poll = "30s"  # default
        github.idle_timeout = "5m"  # default
        github.stop_grace = "30s"  # default
        github.runner_releases = "https://github.com/actions/runner/releases/download"  # default
        "#);
    }

    #[test]
    fn shows_values_with_their_origins() {
        insta::assert_snapshot!(show(&parse(FULL, "ephemerd.toml").unwrap()), @r#"
        host.data_dir = "/var/lib/ephemerd"  # default
        host.account = "_ephemerd"  # default
        host.recheck = "1d"  # default
        host.min_free_disk = "5GiB"  # default
        host.min_free_memory = "512MiB"  # default
        native.slots = 2  # ephemerd.toml:3
        native.accounts = "per-slot"  # default
        native.posture = "strict"  # default
        native.job_timeout = "2h"  # default
        native.stop_grace = "1500ms"  # ephemerd.toml:4
        native.allow_degraded = ["network", "limits"]  # ephemerd.toml:6
        native.extra_read = ["/opt/it's \"here\"", "/opt/b"]  # ephemerd.toml:7
        native.extra_write = []  # default
        native.homebrew = "own"  # default
        native.homebrew_prefix = "/opt/brew"  # ephemerd.toml:5
        native.homebrew_layout = "links"  # default
        native.first_port = 21000  # default
        native.ports_per_slot = 100  # default
        native.limits.processes = 2048  # default
        native.limits.memory = "8GiB"  # default
        native.limits.disk = "30GiB"  # default
        native.limits.open_files = 65536  # default
        native.limits.output = "100MiB"  # default
        native.limits.nice = 5  # default
        native.limits.cgroup = "auto"  # default
        native.env.GREETING = "tab\u0009quote\" back\\slash é"  # ephemerd.toml:9
        trust.default = "refuse"  # ephemerd.toml:11
        trust.repos."acme/*" = "native"  # ephemerd.toml:13
        trust.repos."acme/ios" = { route = "native", events = ["pull_request", "push"], pull_requests = "none", require_label = "ci", allow_bots = true, branches = ["main", "release/*"] }  # ephemerd.toml:14
        trust.repos."acme/old" = "refuse"  # ephemerd.toml:15
        repos."acme/ios".posture = "standard"  # ephemerd.toml:17
        repos."acme/ios".job_timeout = "90m"  # ephemerd.toml:18
        repos."acme/ios".extra_read = ["/opt/x"]  # ephemerd.toml:19
        repos."acme/ios".extra_write = ["/srv/x"]  # ephemerd.toml:20
        repos."acme/ios".homebrew = "none"  # ephemerd.toml:21
        repos."acme/ios".env.A = "1"  # ephemerd.toml:22
        repos."acme/plain" = {}  # ephemerd.toml:23
        egress.mode = "block-lan"  # default
        egress.allow = []  # default
        egress.deny = []  # default
        egress.dns = "system"  # default
        egress.dns_ports = [53]  # default
        egress.protect_local_ports = [22, 88, 445, 548, 3283, 5900]  # default
        egress.loopback = "shared"  # default
        egress.log = false  # default
        egress.on_loss = "stop"  # default
        vm.macos = 2  # default
        vm.linux = 2  # default
        vm.host_memory = "2GiB"  # default
        vm.capacity_wait = "30m"  # default
        control.socket = "/var/lib/ephemerd/run/ephemerd.sock"  # default
        control.admin_group = "_ephemerd-admin"  # default
        log.format = "text"  # default
        log.level = "info"  # default
        prune.logs_max_age = "30d"  # default
        prune.logs_max_size = "4GiB"  # default
        prune.kept_max_age = "14d"  # default
        prune.kept_max_size = "20GiB"  # default
        prune.jobs = 20000  # default
        prune.min_free = "10GiB"  # default
        "#);
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same_configuration() {
        for text in ["", FULL] {
            let loaded = parse(text, "a.toml").unwrap();
            let again = parse(&show(&loaded), "b.toml").unwrap();
            assert_eq!(again.config, loaded.config);
        }
    }
}
