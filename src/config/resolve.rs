//! Entries of the key table as the resolved configuration: defaults filled in, values checked, and what
//! contradicts itself refused.
//!
//! Reading goes on after a bad value, so that all problems of a file are told at once; `None` stands for a
//! value whose problem is told already.

mod egress;
mod github;
mod reader;
mod repos;
pub(super) mod values;
mod vm;

use camino::{Utf8Path, Utf8PathBuf};

use super::grants::{self, Grant};
use super::problem::Problem;
use super::raw::RawFile;
use super::{Accounts, Config, Control, Egress, GitHub, HostConfig, Limits, Log, Native};
use crate::prune;
use crate::sandbox::Axis;
use reader::{Complaint, Reader};

/// Longest path of a Unix socket in bytes, its final NUL not counted: 103 on macOS (unix(4)), 107 on Linux
/// (unix(7)).
const MAX_SOCKET_PATH: usize = 103;

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

fn config(r: &mut Reader) -> Option<Config> {
    let host = host(r);
    // Grants are compared with the folder that will be used, so a bad one leaves that comparison out.
    r.data_dir = host.as_ref().map(|host| host.data_dir.clone());
    let native = native(r);
    let trust = repos::trust(r);
    let repos = repos::repos(r);
    let mut egress = egress::egress(r);
    let github = github::github(r);
    if let (Some(egress), Some(Some(github))) = (&mut egress, &github) {
        protect(egress, github);
    }
    if let (Some(repos), Some(Some(github))) = (&repos, &github) {
        github::refuse_unlike(r, github, repos);
    }
    let vm = vm::vm(r);
    if let (Some(trust), Some(vm)) = (&trust, &vm) {
        vm::refuse_unknown_backends(r, trust, vm);
    }
    let control = control(r, host.as_ref());
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
fn protect(egress: &mut Egress, github: &GitHub) {
    if let Some(webhook) = &github.webhook {
        egress.protect_local_ports.push(webhook.listen.port());
        egress.protect_local_ports.sort_unstable();
        egress.protect_local_ports.dedup();
    }
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
    Some(HostConfig {
        data_dir: data_dir?,
        account: account?,
        manifest: manifest?,
        recheck: recheck?,
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
    Some(Limits {
        processes: processes?,
        memory_byte: memory_byte?,
        disk_byte: disk_byte?,
        open_files: open_files?,
        output_byte: output_byte?,
    })
}

fn control(r: &mut Reader, host: Option<&HostConfig>) -> Option<Control> {
    let data_dir = host.map(|host| host.data_dir.as_path());
    let socket = r.must(&["control", "socket"], |_, raw| {
        Ok(socket_path(values::text(raw), data_dir)?)
    });
    let admin_group = r.must(&["control", "admin_group"], |_, raw| {
        let group = values::group(values::text(raw))?;
        match host {
            Some(host) if is_job_group(&group, &host.account) => Err(Complaint::from(format!(
                "`{group}` is a group of the accounts that jobs run as, so jobs could control the daemon\n\
                 hint: name a group of people"
            )))?,
            Some(_) | None => Ok(group),
        }
    });
    Some(Control {
        socket: socket?,
        admin_group: admin_group?,
    })
}

/// The absolute path of the control socket that `text` names, relative to `data_dir` when it is relative.
fn socket_path(text: &str, data_dir: Option<&Utf8Path>) -> Result<Utf8PathBuf, Complaint> {
    let joined = match data_dir {
        Some(data_dir) => data_dir.join(text),
        None => Utf8Path::new("/").join(text),
    };
    let path = grants::absolute(joined.as_str())?;
    if data_dir == Some(&path) {
        return Err(format!("`{text}` is `host.data_dir` itself\nhint: name a file in it").into());
    }
    if path.as_str().len() > MAX_SOCKET_PATH {
        return Err(format!(
            "`{path}` is longer than the {MAX_SOCKET_PATH} bytes a socket's path may have\n\
             hint: name a shorter one, for example \"/run/ephemerd.sock\""
        )
        .into());
    }
    Ok(path)
}

/// Whether jobs' accounts belong to `group`: slots are members of the service group, and the group of an
/// account may bear the account's name.
fn is_job_group(group: &str, account: &str) -> bool {
    group
        .strip_prefix(account)
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
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
