//! Rows of `[vm]`, and what a rule says of its guests.

use super::super::size::{show_duration, show_size};
use super::{Rows, list, paths, quote, word};
use crate::vm::template::Argv;
use crate::vm::{Backend, Commands, VmChoice, VmConfig};

pub(super) fn rows_of(rows: &mut Rows<'_>, vm: &VmConfig) {
    let VmConfig {
        user,
        macos,
        linux,
        host_memory_byte,
        capacity_wait,
        backend,
        backends,
    } = vm;
    if let Some(user) = user {
        rows.add(&["vm", "user"], quote(user));
    }
    rows.add(&["vm", "macos"], macos.to_string());
    rows.add(&["vm", "linux"], linux.to_string());
    rows.add(&["vm", "host_memory"], quote(&show_size(*host_memory_byte)));
    rows.add(&["vm", "capacity_wait"], quote(&show_duration(*capacity_wait)));
    if let Some(backend) = backend {
        rows.add(&["vm", "backend"], quote(backend));
    }
    for (name, backend) in backends {
        backend_rows(rows, name, backend);
    }
}

fn backend_rows(rows: &mut Rows<'_>, name: &str, backend: &Backend) {
    let Backend {
        preset,
        // The preset says it.
        dialect: _,
        guest,
        isolation,
        network,
        tool,
        image,
        cpu,
        memory_byte,
        disk_byte,
        boot_timeout,
        stage_timeout,
        shares,
        runner_dir,
        pull_window,
        image_byte,
        commands,
        env,
    } = backend;
    let mut add = |key: &str, value: String| rows.add(&["vm", "backends", name, key], value);
    if let Some(preset) = preset {
        add("preset", quote(preset));
    }
    add("guest", word(guest));
    add("isolation", word(isolation));
    add("network", word(network));
    if !tool.as_str().is_empty() {
        add("tool", quote(tool.as_str()));
    }
    if let Some(image) = image {
        add("image", quote(image));
    }
    add("cpu", cpu.to_string());
    add("memory", quote(&show_size(*memory_byte)));
    add("disk", quote(&show_size(*disk_byte)));
    add("boot_timeout", quote(&show_duration(*boot_timeout)));
    add("stage_timeout", quote(&show_duration(*stage_timeout)));
    let folders: Vec<_> = shares.iter().map(|share| share.path.clone()).collect();
    add("shares", paths(&folders));
    add("runner_dir", quote(runner_dir));
    if let Some(window) = pull_window {
        add("pull_window", quote(&window.to_string()));
    }
    add("image_size", quote(&show_size(*image_byte)));
    let Commands {
        clone,
        configure,
        start,
        detached,
        exec,
        stop,
        delete,
        list: names,
        images,
        pull,
        share,
        network_none,
        network_internet,
        sends_as_user,
    } = commands;
    let mut argv = |key: &str, argv: &Option<Argv>| {
        if let Some(argv) = argv {
            add(key, list(argv.iter().map(|word| quote(&word.to_string()))));
        }
    };
    argv("clone", clone);
    argv("configure", configure);
    argv("start", start);
    argv("exec", exec);
    argv("stop", stop);
    argv("delete", delete);
    argv("list", names);
    argv("images", images);
    argv("pull", pull);
    argv("share", share);
    argv("network_none", network_none);
    argv("network_internet", network_internet);
    if let Some(detached) = detached {
        add("detached", detached.to_string());
    }
    if let Some(sends) = sends_as_user {
        add("sends_as_user", sends.to_string());
    }
    rows.env(&["vm", "backends", name, "env"], env);
}

/// What a rule says of its guests, as `key = value`.
pub(super) fn stated(choice: &VmChoice) -> Vec<String> {
    let VmChoice {
        backend,
        image,
        cpu,
        memory_byte,
        disk_byte,
    } = choice;
    let size = |byte: &u64| quote(&show_size(*byte));
    [
        ("backend", backend.as_deref().map(quote)),
        ("image", image.as_deref().map(quote)),
        ("cpu", cpu.map(|cpu| cpu.to_string())),
        ("memory", memory_byte.as_ref().map(size)),
        ("disk", disk_byte.as_ref().map(size)),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some(format!("{key} = {}", value?)))
    .collect()
}
