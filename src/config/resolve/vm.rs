//! `[vm]`: permits and backends.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;

use super::super::raw::{Entry, Raw};
use super::super::{grants, keys};
use super::reader::{Complaints, Reader};
use super::values;
use crate::trust::{TrustConfig, TrustRule};
use crate::vm::preset::{self, Commands, Preset};
use crate::vm::template::{Argv, Share, check_command, check_words};
use crate::vm::{Backend, Network, VmConfig, Window};

pub(super) fn vm(r: &mut Reader) -> Option<VmConfig> {
    let user = r.may(&["vm", "user"], |_, raw| Ok(user(values::text(raw))?));
    let macos = r.must(&["vm", "macos"], values::number);
    let linux = r.must(&["vm", "linux"], values::number);
    let host_memory_byte = r.must(&["vm", "host_memory"], values::size);
    let capacity_wait = r.must(&["vm", "capacity_wait"], values::duration);
    let backend = r.may(&["vm", "backend"], |_, raw| {
        Ok(values::filled(values::text(raw))?)
    });
    let mut backends = Some(BTreeMap::new());
    for entry in r.children(&["vm", "backends"]) {
        let read = one(r, &entry);
        backends = match (backends, read) {
            (Some(mut backends), Some(backend)) => {
                backends.insert(entry.path.last().cloned().unwrap_or_default(), backend);
                Some(backends)
            }
            _ => None,
        };
    }
    let vm = VmConfig {
        user: user?,
        macos: macos?,
        linux: linux?,
        host_memory_byte: host_memory_byte?,
        capacity_wait: capacity_wait?,
        backend: backend?,
        backends: backends?,
    };
    refuse_unfiltered(r, &vm);
    Some(vm)
}

/// An account that tools may run as: a hypervisor that a guest gets out of must not be root.
fn user(text: &str) -> Result<String, String> {
    match values::group(text) {
        Ok(name) if name == "root" => {
            Err("tools of guests do not run as root\nhint: name an account that has the tools and nothing else to lose".to_owned())
        }
        Ok(name) => Ok(name),
        Err(_) => Err(format!("`{}` cannot be an account's name", text.escape_debug())),
    }
}

/// What guests send as `vm.user` is filtered by that account.
fn refuse_unfiltered(r: &mut Reader, vm: &VmConfig) {
    for (name, backend) in &vm.backends {
        let sends = backend.network == Network::Internet && backend.commands.sends_as_user == Some(true);
        if sends && vm.user.is_none() {
            let key = keys::dotted(["vm", "backends", name, "network"]);
            r.contradiction(
                &[&key, "vm.user"],
                format!(
                    "guests of `{name}` reach the internet as the account of `vm.user`, and that is not set\n\
                     hint: set it, so that the packet filter keeps them off the LAN, or set `network = \"none\"`"
                ),
            );
        }
    }
}

/// Tells rules, and `vm.backend`, that name a backend which is not there.
pub(super) fn refuse_unknown_backends(r: &mut Reader, trust: &TrustConfig, vm: &VmConfig) {
    let names: Vec<&str> = vm.backends.keys().map(String::as_str).collect();
    let of_rule = |rule: &TrustRule| {
        let pattern = rule.pattern.to_string();
        let key = keys::dotted(["trust", "repos", &pattern, "backend"]);
        rule.vm.backend.clone().map(|backend| (key, backend))
    };
    let named = vm
        .backend
        .clone()
        .map(|backend| ("vm.backend".to_owned(), backend));
    let named: Vec<_> = trust.repos.iter().filter_map(of_rule).chain(named).collect();
    for (key, backend) in named {
        if !vm.backends.contains_key(&backend) {
            let why = values::not_among(&backend, "a backend", &names);
            let why = if names.is_empty() {
                format!("`{backend}` is not a backend\nhint: name it below `[vm.backends]`")
            } else {
                why
            };
            r.contradiction(&[&key], format!("`{key}`: {why}"));
        }
    }
}

fn one(r: &mut Reader, entry: &Entry) -> Option<Backend> {
    let path: Vec<&str> = entry.path.iter().map(String::as_str).collect();
    let name = path.last().copied().unwrap_or_default();
    let below = |key: &'static str| [path.as_slice(), &[key]].concat();
    let text = |_: &keys::Key, raw: &Raw| Ok(values::filled(values::text(raw))?);
    let named = r.may(&below("preset"), |key, raw| {
        let named = values::text(raw);
        let preset = preset::find(named);
        preset
            .map(|preset| (named.to_owned(), preset))
            .ok_or_else(|| match key.kind {
                keys::Kind::Choice(names) => values::not_among(named, "a preset", names).into(),
                _ => Complaints::from("is no preset".to_owned()),
            })
    });
    let guest = r.may(&below("guest"), values::choice);
    let isolation = r.may(&below("isolation"), values::choice);
    let network = r.may(&below("network"), values::choice);
    let tool = r.may(&below("tool"), |_, raw| Ok(grants::absolute(values::text(raw))?));
    let image = r.may(&below("image"), text);
    let cpu = r.must(&below("cpu"), values::number);
    let memory_byte = r.must(&below("memory"), values::size);
    let disk_byte = r.must(&below("disk"), values::size);
    let boot_timeout = r.must(&below("boot_timeout"), values::duration);
    let stage_timeout = r.must(&below("stage_timeout"), values::duration);
    let shares = r.must(&below("shares"), |_, raw| values::each(raw, share));
    let runner_dir = r.must(&below("runner_dir"), |_, raw| {
        Ok(grants::absolute(values::text(raw)).map(Utf8PathBuf::into_string)?)
    });
    let pull_window = r.may(&below("pull_window"), |_, raw| {
        let text = values::text(raw);
        Window::parse(text).ok_or_else(|| {
            let text = text.escape_debug();
            Complaints::from(format!(
                "`{text}` is not a part of the day\nhint: write it as \"02:00-05:00\", in UTC"
            ))
        })
    });
    let image_byte = r.must(&below("image_size"), values::size);
    let commands = commands(r, &path);
    let env = r.env(&below("env"));
    let (preset_name, preset) = named?.unzip();
    let Preset {
        dialect,
        guest: preset_guest,
        isolation: preset_isolation,
        network: preset_network,
        tool: preset_tool,
        commands: preset_commands,
        env: preset_env,
    } = preset.unwrap_or_default();
    let commands = over(commands?, preset_commands);
    let mut missing = Vec::new();
    let guest = guest?.or(preset_guest);
    let isolation = isolation?.or(preset_isolation);
    let tool = tool?.or(preset_tool);
    missing.extend(guest.is_none().then_some("guest"));
    missing.extend(isolation.is_none().then_some("isolation"));
    missing.extend(commands.start.is_none().then_some("start"));
    missing.extend(commands.exec.is_none().then_some("exec"));
    missing.extend((tool.is_none() && uses_tool(&commands)).then_some("tool"));
    let network = network?.or(preset_network).unwrap_or(Network::None);
    let words = match network {
        Network::None => (&commands.network_none, "network_none"),
        Network::Internet => (&commands.network_internet, "network_internet"),
    };
    missing.extend(words.0.is_none().then_some(words.1));
    let shares = shares?;
    missing.extend((!shares.is_empty() && commands.share.is_none()).then_some("share"));
    let detached = commands.detached == Some(true);
    missing.extend((detached && commands.delete.is_none()).then_some("delete"));
    for (words, hole) in [(words.0, "{network}"), (&commands.share, "{shares}")] {
        let is_wanted = hole != "{shares}" || !shares.is_empty();
        if is_wanted && words.as_ref().is_some_and(|words| !words.is_empty()) && !has_hole(&commands, hole) {
            r.problem(
                entry.key_place,
                format!(
                    "no command of `{}` has the word `{hole}`, so that what it stands for is never said\nhint: put it into `start` or `clone`",
                    keys::dotted(["vm", "backends", name])
                ),
            );
            return None;
        }
    }
    if !missing.is_empty() {
        let shown = keys::dotted(["vm", "backends", name]);
        let message = format!(
            "`{shown}` lacks {}\nhint: set what lacks, or `preset` to one that has it",
            keys::quoted_list(&missing)
        );
        r.problem(entry.key_place, message);
        return None;
    }
    let mut all_env = preset_env;
    all_env.extend(env?);
    Some(Backend {
        preset: preset_name,
        dialect,
        guest: guest?,
        isolation: isolation?,
        network,
        tool: tool.unwrap_or_default(),
        image: image?,
        cpu: cpu?,
        memory_byte: memory_byte?,
        disk_byte: disk_byte?,
        boot_timeout: boot_timeout?,
        stage_timeout: stage_timeout?,
        shares,
        runner_dir: runner_dir?,
        pull_window: pull_window?,
        image_byte: image_byte?,
        commands,
        env: all_env,
    })
}

/// A folder that guests may read, by the last part of its path. A comma would begin another option of QEMU's, and a
/// colon of Tart's and Podman's.
fn share(text: &str) -> Result<Share, String> {
    let path = grants::absolute(text)?;
    match path.file_name() {
        Some(name) if !path.as_str().contains([',', ':', '=']) => Ok(Share {
            name: name.to_owned(),
            path,
        }),
        Some(_) | None => Err(format!(
            "`{}` cannot be shared\nhint: name a folder whose path has no `,`, `:` or `=`",
            text.escape_debug()
        )),
    }
}

fn commands(r: &mut Reader, path: &[&str]) -> Option<Commands> {
    let mut argv = |key: &'static str| {
        r.may(&[path, &[key]].concat(), |_, raw| {
            let words: Argv = values::each(raw, str::parse)?;
            match key {
                "share" => check_words(&words, true)?,
                "network_none" | "network_internet" => check_words(&words, false)?,
                _ => check_command(&words)?,
            }
            Ok(words)
        })
    };
    let (clone, configure, start, exec) = (argv("clone"), argv("configure"), argv("start"), argv("exec"));
    let (stop, delete, list, images) = (argv("stop"), argv("delete"), argv("list"), argv("images"));
    let (pull, share) = (argv("pull"), argv("share"));
    let (network_none, network_internet) = (argv("network_none"), argv("network_internet"));
    let detached = r.may(&[path, &["detached"]].concat(), values::flag);
    let sends_as_user = r.may(&[path, &["sends_as_user"]].concat(), values::flag);
    Some(Commands {
        clone: clone?,
        configure: configure?,
        start: start?,
        detached: detached?,
        exec: exec?,
        stop: stop?,
        delete: delete?,
        list: list?,
        images: images?,
        pull: pull?,
        share: share?,
        network_none: network_none?,
        network_internet: network_internet?,
        sends_as_user: sends_as_user?,
    })
}

/// `first` where it says something, `then` elsewhere.
fn over(first: Commands, then: Commands) -> Commands {
    Commands {
        clone: first.clone.or(then.clone),
        configure: first.configure.or(then.configure),
        start: first.start.or(then.start),
        detached: first.detached.or(then.detached),
        exec: first.exec.or(then.exec),
        stop: first.stop.or(then.stop),
        delete: first.delete.or(then.delete),
        list: first.list.or(then.list),
        images: first.images.or(then.images),
        pull: first.pull.or(then.pull),
        share: first.share.or(then.share),
        network_none: first.network_none.or(then.network_none),
        network_internet: first.network_internet.or(then.network_internet),
        sends_as_user: first.sends_as_user.or(then.sends_as_user),
    }
}

/// Whether a command that makes a guest has this placeholder.
fn has_hole(commands: &Commands, hole: &str) -> bool {
    [&commands.clone, &commands.configure, &commands.start]
        .into_iter()
        .flatten()
        .flatten()
        .any(|word| word.to_string() == hole)
}

/// Whether a command names the backend's tool.
fn uses_tool(commands: &Commands) -> bool {
    let Commands {
        clone,
        configure,
        start,
        exec,
        stop,
        delete,
        list,
        images,
        pull,
        ..
    } = commands;
    [clone, configure, start, exec, stop, delete, list, images, pull]
        .into_iter()
        .flatten()
        .flatten()
        .any(|word| word.to_string().contains("{tool}"))
}
