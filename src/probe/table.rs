//! What every probe claims: its name, what it does, and how the sandbox stops it.
//!
//! Attacks come first, by axis, then the benign ones. The order is the order of execution, and the names are
//! part of the interface of `profile verify`.

mod benign;
mod calls;
mod files;
mod processes;

use libc::{EACCES, EINVAL, ENOENT, EPERM, EROFS, ESRCH};

use super::Stop::Errno;
use super::{Class, Control, ProbeInfo, Stop};
use crate::sandbox::Axis;

/// All probes, in the order in which they run.
pub fn table() -> Vec<ProbeInfo> {
    let attacks = [
        (Axis::Accounts, files::ACCOUNTS),
        (Axis::Filesystem, files::FILESYSTEM),
        (Axis::Credentials, files::CREDENTIALS),
        (Axis::Processes, processes::PROCESSES),
        (Axis::Processes, calls::SYSTEM_CALLS),
        (Axis::Ipc, processes::IPC),
        (Axis::Network, processes::NETWORK),
        (Axis::Limits, processes::LIMITS),
    ];
    let benign = [
        (Axis::Filesystem, benign::BENIGN_FILESYSTEM),
        (Axis::Processes, benign::BENIGN_PROCESSES),
        (Axis::Ipc, benign::BENIGN_IPC),
        (Axis::Network, benign::BENIGN_NETWORK),
    ];
    let of = |class, groups: &[(Axis, &'static [Row])]| -> Vec<ProbeInfo> {
        groups
            .iter()
            .flat_map(|(axis, rows)| rows.iter().map(move |row| row.info(*axis, class)))
            .collect()
    };
    let mut all = of(Class::Attack, &attacks);
    all.extend(of(Class::Benign, &benign));
    all
}

/// One probe, without what its group says.
struct Row {
    name: &'static str,
    expected: &'static [Stop],
    control: Control,
    what: &'static str,
}

impl Row {
    fn info(&self, axis: Axis, class: Class) -> ProbeInfo {
        let Self {
            name,
            expected,
            control,
            what,
        } = *self;
        ProbeInfo {
            name,
            axis,
            class,
            what,
            expected,
            control,
        }
    }

    /// Only root can show, unconfined, that it works.
    const fn root(self) -> Self {
        Self {
            control: Control::Root,
            ..self
        }
    }

    /// Nobody can show it, because of `why`.
    const fn no_control(self, why: &'static str) -> Self {
        Self {
            control: Control::None { why },
            ..self
        }
    }
}

const fn attack(name: &'static str, expected: &'static [Stop], what: &'static str) -> Row {
    Row {
        name,
        expected,
        control: Control::Anyone,
        what,
    }
}

const fn benign(name: &'static str, what: &'static str) -> Row {
    Row {
        name,
        expected: &[],
        control: Control::Anyone,
        what,
    }
}

/// The path does not exist in there, or Landlock or the mode bits refuse it.
const HIDDEN: &[Stop] = &[Errno(ENOENT), Errno(EACCES)];
/// As `HIDDEN`, or the mount is read-only, or a capability is missing.
const UNTOUCHABLE: &[Stop] = &[Errno(ENOENT), Errno(EACCES), Errno(EPERM), Errno(EROFS)];
/// A seccomp filter or a missing capability says no.
const REFUSED: &[Stop] = &[Errno(EPERM)];
/// A device node: Landlock, with EACCES, answers before the missing capability does.
const NO_NODE: &[Stop] = &[Errno(EACCES), Errno(EPERM)];
/// Becoming root: no capability (EPERM), or no such user in the user namespace (EINVAL).
const NOT_ROOT: &[Stop] = &[Errno(EPERM), Errno(EINVAL)];
/// No such process in this pid namespace.
const NO_PROCESS: &[Stop] = &[Errno(ESRCH)];
/// No such name: an IPC namespace of its own, or a `/proc` of its own.
const NO_NAME: &[Stop] = &[Errno(ENOENT)];

const CALLER: &str = "whether it is so without a sandbox depends on who starts it";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_is_unique_and_kebab_case() {
        let mut seen = BTreeSet::new();
        for info in table() {
            assert!(seen.insert(info.name), "{} occurs twice", info.name);
            let kebab = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            assert!(info.name.bytes().all(kebab), "{}", info.name);
        }
    }

    #[test]
    fn lists_attacks_before_benign_probes_and_keeps_axes_together() {
        let order: Vec<_> = table().iter().map(|info| (info.class, info.axis)).collect();
        assert!(order.is_sorted_by_key(|(class, _)| *class));
        let mut groups = order.clone();
        groups.dedup();
        let distinct: BTreeSet<_> = order.into_iter().collect();
        assert_eq!(groups.len(), distinct.len(), "{groups:?}");
    }

    #[test]
    fn every_attack_says_how_it_is_stopped_and_no_benign_probe_does() {
        for info in table() {
            assert_eq!(
                info.expected.is_empty(),
                info.class == Class::Benign,
                "{}",
                info.name
            );
        }
    }

    #[test]
    fn every_probe_is_described_by_one_sentence() {
        for info in table() {
            assert!(
                info.what.ends_with('.') && !info.what.contains(". "),
                "{}",
                info.name
            );
        }
    }
}
