//! Attacks through device nodes and the kernel's own memory.

use std::fs;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::host_files::open_to_read;
use super::{Attempt, Probes, Target, most_telling, tried};

pub(super) const PROBES: Probes = &[
    ("open-host-devices", open_devices),
    ("read-kernel-memory", |_| open_to_read("/proc/kcore")),
    ("read-kernel-addresses", kernel_addresses),
    ("make-device-node", make_node),
];

fn open_devices(_: &Target) -> Attempt {
    let memory = ["/dev/mem", "/dev/port", "/dev/kmsg"].map(str::to_owned);
    most_telling(
        memory
            .into_iter()
            .chain(first_disk())
            .map(|path| open_to_read(&path)),
    )
}

/// The first disk of /proc/partitions that is not a loop or memory disk (proc_partitions(5)).
fn first_disk() -> Option<String> {
    let table = fs::read_to_string("/proc/partitions").ok()?;
    let names = table
        .lines()
        .skip(2)
        .filter_map(|line| line.split_whitespace().nth(3));
    let disk = names
        .into_iter()
        .find(|name| !name.starts_with("loop") && !name.starts_with("ram"))?;
    Some(format!("/dev/{disk}"))
}

fn kernel_addresses(_: &Target) -> Attempt {
    let path = "/proc/kallsyms";
    match fs::read_to_string(path) {
        Err(error) => tried(Err::<(), _>(error), format!("read {path}")),
        Ok(text) => {
            let address = text.lines().find_map(|line| {
                let address = line.split(' ').next()?;
                address.bytes().any(|b| b != b'0').then_some(address)
            });
            match address {
                Some(_) => Attempt::succeeded(format!("{path} shows addresses")),
                // All zero for whoever lacks CAP_SYSLOG (proc_sys_kernel(5), kptr_restrict).
                None => Attempt::failed(libc::EPERM, format!("{path} shows zeros")),
            }
        }
    }
}

fn make_node(target: &Target) -> Attempt {
    let path = target.workspace.join("tmp").join(format!("{}.dev", target.mark));
    // Character device 1:3 is /dev/null, so even a forgotten one is harmless.
    let result = mknod(
        path.as_std_path(),
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o600),
        makedev(1, 3),
    );
    let attempt = tried(result, format!("mknod {path}"));
    let _ = fs::remove_file(path);
    attempt
}
