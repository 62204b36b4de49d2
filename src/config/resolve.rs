//! Entries of the key table as the resolved configuration: defaults filled in, values checked, and what
//! contradicts itself refused.
//!
//! Reading goes on after a bad value, so that all problems of a file are told at once; `None` stands for a
//! value whose problem is told already.

mod control;
mod egress;
mod github;
mod reader;
mod repos;
pub(super) mod values;
mod vm;

use camino::Utf8PathBuf;

use super::grants::{self, Grant};
use super::problem::Problem;
use super::raw::RawFile;
use super::{Accounts, Config, Control, Egress, Floors, GitHub, HostConfig, Limits, Listen, Log, Native};
use crate::prune;
use crate::sandbox::Axis;
use reader::Reader;

/// The configuration of a file, or everything wrong with it in the order of the file.
pub(super) fn resolve(raw: RawFile) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader::new(raw);
    let config = config(&mut reader);
    let mut problems = reader.into_problems();
    problems.sort_by_key(|problem| problem.place);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        Some(_) | None => Err(problems),
    }
}

/// The control socket of a file, whatever else is wrong with it.
pub(super) fn socket(raw: RawFile) -> Option<Utf8PathBuf> {
    let mut reader = Reader::new(raw);
    let host = host(&mut reader)?;
    Some(control::control(&mut reader, Some(&host))?.socket)
}

fn config(r: &mut Reader) -> Option<Config> {
    let host = host(r);
    // Grants are compared with the folder that will be used, so a bad one leaves that comparison out.
    r.data_dir = host.as_ref().map(|host| host.data_dir.clone());
    let native = native(r);
    let trust = repos::trust(r);
    let repos = repos::repos(r);
    let mut egress = egress::egress(r);
    let github = github::github(r);
    let control = control::control(r, host.as_ref());
    if let (Some(egress), Some(github), Some(control)) = (&mut egress, &github, &control) {
        control::refuse_unnamed_port(r, control, egress);
        protect(egress, github.as_ref(), control);
    }
    if let (Some(repos), Some(Some(github))) = (&repos, &github) {
        github::refuse_unlike(r, github, repos);
    }
    let vm = vm::vm(r);
    if let (Some(trust), Some(vm)) = (&trust, &vm) {
        vm::refuse_unknown_backends(r, trust, vm);
    }
    let format = r.must(&["log", "format"], values::choice);
    let level = r.must(&["log", "level"], values::choice);
    let prune = prune_limits(r);
    Some(Config {
        host: host?,
        native: native?,
        trust: trust?,
        repos: repos?,
        egress: egress?,
        github: github?,
        vm: vm?,
        control: control?,
        log: Log {
            format: format?,
            level: level?,
        },
        prune: prune?,
    })
}

fn prune_limits(r: &mut Reader) -> Option<prune::Limits> {
    let logs_max_age = r.must(&["prune", "logs_max_age"], values::duration);
    let logs_max_byte = r.must(&["prune", "logs_max_size"], values::size);
    let kept_max_age = r.must(&["prune", "kept_max_age"], values::duration);
    let kept_max_byte = r.must(&["prune", "kept_max_size"], values::size);
    let jobs = r.must(&["prune", "jobs"], values::number);
    let min_free_byte = r.must(&["prune", "min_free"], values::size);
    Some(prune::Limits {
        logs_max_age: logs_max_age?,
        logs_max_byte: logs_max_byte?,
        kept_max_age: kept_max_age?,
        kept_max_byte: kept_max_byte?,
        jobs: jobs?,
        min_free_byte: min_free_byte?,
    })
}

/// Keeps jobs away from what the daemon listens on.
fn protect(egress: &mut Egress, github: Option<&GitHub>, control: &Control) {
    let webhook = github.and_then(|github| github.webhook.as_ref());
    let page = match &control.listen {
        Some(Listen::Tcp(address)) => Some(address.port()),
        Some(Listen::Unix(_)) | None => None,
    };
    let ports = webhook
        .map(|webhook| webhook.listen.port())
        .into_iter()
        .chain(page);
    egress.protect_local_ports.extend(ports.filter(|port| *port != 0));
    egress.protect_local_ports.sort_unstable();
    egress.protect_local_ports.dedup();
}

fn host(r: &mut Reader) -> Option<HostConfig> {
    let data_dir = r.must(&["host", "data_dir"], |_, raw| {
        Ok(grants::absolute(values::text(raw))?)
    });
    let account = r.must(&["host", "account"], |_, raw| {
        Ok(values::account(values::text(raw))?)
    });
    let manifest = r.may(&["host", "manifest"], |_, raw| {
        Ok(values::manifest(values::text(raw), true)?)
    });
    let recheck = r.must(&["host", "recheck"], values::duration);
    let disk_byte = r.must(&["host", "min_free_disk"], values::size);
    let memory_byte = r.must(&["host", "min_free_memory"], values::size);
    Some(HostConfig {
        data_dir: data_dir?,
        account: account?,
        manifest: manifest?,
        recheck: recheck?,
        floors: Floors {
            disk_byte: disk_byte?,
            memory_byte: memory_byte?,
        },
    })
}

fn native(r: &mut Reader) -> Option<Native> {
    let slots = r.must(&["native", "slots"], values::number);
    let accounts = r.must(&["native", "accounts"], values::choice);
    let posture = r.must(&["native", "posture"], values::choice);
    let job_timeout = r.must(&["native", "job_timeout"], values::duration);
    let stop_grace = r.must(&["native", "stop_grace"], values::duration);
    let allow_degraded = r.must(&["native", "allow_degraded"], values::axes);
    let extra_read = r.grants(&["native", "extra_read"], Grant::Read);
    let extra_write = r.grants(&["native", "extra_write"], Grant::Write);
    let homebrew = r.must(&["native", "homebrew"], values::choice);
    let homebrew_prefix = r.may(&["native", "homebrew_prefix"], |_, raw| {
        Ok(grants::absolute(values::text(raw))?)
    });
    let homebrew_layout = r.must(&["native", "homebrew_layout"], values::choice);
    let first_port = r.must(&["native", "first_port"], values::number);
    let ports_per_slot = r.must(&["native", "ports_per_slot"], values::number);
    let limits = limits(r);
    let env = r.env(&["native", "env"]);
    let native = Native {
        slots: slots?,
        accounts: accounts?,
        posture: posture?,
        job_timeout: job_timeout?,
        stop_grace: stop_grace?,
        allow_degraded: allow_degraded?,
        extra_read: extra_read?,
        extra_write: extra_write?,
        homebrew: homebrew?,
        homebrew_prefix: homebrew_prefix?,
        homebrew_layout: homebrew_layout?,
        first_port: first_port?,
        ports_per_slot: ports_per_slot?,
        limits: limits?,
        env: env?,
    };
    refuse_ports_out_of_range(r, &native);
    refuse_shared_account(r, &native);
    Some(native)
}

fn limits(r: &mut Reader) -> Option<Limits> {
    let processes = r.must(&["native", "limits", "processes"], values::number);
    let memory_byte = r.must(&["native", "limits", "memory"], values::size);
    let disk_byte = r.must(&["native", "limits", "disk"], values::size);
    let open_files = r.must(&["native", "limits", "open_files"], values::number);
    let output_byte = r.must(&["native", "limits", "output"], values::size);
    let nice = r.must(&["native", "limits", "nice"], values::number);
    let cgroup = r.must(&["native", "limits", "cgroup"], values::choice);
    Some(Limits {
        processes: processes?,
        memory_byte: memory_byte?,
        disk_byte: disk_byte?,
        open_files: open_files?,
        output_byte: output_byte?,
        nice: nice?,
        cgroup: cgroup?,
    })
}

fn refuse_ports_out_of_range(r: &mut Reader, native: &Native) {
    let (first, each) = (u32::from(native.first_port), u32::from(native.ports_per_slot));
    let last = first + each * native.slots - 1;
    if last > u32::from(u16::MAX) {
        let keys = ["native.first_port", "native.ports_per_slot", "native.slots"];
        let slots = native.slots;
        r.contradiction(
            &keys,
            format!(
                "{slots} slots of {each} ports from {first} end at port {last}, above 65535\n\
                 hint: lower `native.first_port`, `native.ports_per_slot` or `native.slots`"
            ),
        );
    }
}

fn refuse_shared_account(r: &mut Reader, native: &Native) {
    let admitted = native.allow_degraded.contains(&Axis::Accounts);
    if native.accounts == Accounts::Single && native.slots > 1 && !admitted {
        let slots = native.slots;
        r.contradiction(
            &["native.accounts", "native.slots"],
            format!(
                "`native.accounts` is \"single\" with {slots} slots, so jobs of different slots share an account\n\
                 hint: set `native.slots` to 1, or admit it with `native.allow_degraded = [\"accounts\"]`"
            ),
        );
    }
}
