//! Whether guests fit beside the native slots: the arithmetic, which `ephemerd vm plan` shows.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Guest, VmConfig};
use crate::config::size::show_size;

/// What there is of memory, and who gets it; bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What this host has.
    pub total_byte: u64,
    /// What is left to the host itself.
    pub host_byte: u64,
    /// Native slots.
    pub slots: u32,
    /// What each of them may use.
    pub slot_byte: u64,
    /// What is left for guests.
    pub guests_byte: u64,
    /// The backends.
    pub backends: Vec<BackendPlan>,
}

/// How many guests of a backend fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendPlan {
    /// Its name.
    pub name: String,
    /// What runs in it.
    pub guest: Guest,
    /// What one of its guests gets when no rule says otherwise.
    pub guest_byte: u64,
    /// How many may run at once.
    pub permits: u32,
    /// How many fit.
    pub fit: u32,
}

impl Plan {
    /// The plan of a host with so much memory and so many native slots.
    pub fn new(total_byte: u64, slots: u32, slot_byte: u64, vm: &VmConfig) -> Self {
        let native = slot_byte.saturating_mul(slots.into());
        let guests_byte = total_byte
            .saturating_sub(vm.host_memory_byte)
            .saturating_sub(native);
        let backends = vm.backends.iter().map(|(name, backend)| BackendPlan {
            name: name.clone(),
            guest: backend.guest,
            guest_byte: backend.memory_byte,
            permits: vm.permits(backend.guest),
            fit: u32::try_from(guests_byte / backend.memory_byte.max(1)).unwrap_or(u32::MAX),
        });
        Self {
            total_byte,
            host_byte: vm.host_memory_byte,
            slots,
            slot_byte,
            guests_byte,
            backends: backends.collect(),
        }
    }

    /// Whether a guest with so much memory fits beside guests that have `taken_byte`.
    pub fn fits(&self, memory_byte: u64, taken_byte: u64) -> bool {
        memory_byte.saturating_add(taken_byte) <= self.guests_byte
    }

    /// Why a guest with so much memory never fits, in words with a hint; `None` when it does once it is alone.
    pub fn refusal(&self, memory_byte: u64) -> Option<String> {
        (!self.fits(memory_byte, 0)).then(|| {
            format!(
                "a guest of {} does not fit: {}\nhint: lower `native.slots`, `native.limits.memory`, `vm.host_memory` or the guest's `memory`; `ephemerd vm plan` shows the arithmetic",
                show_size(memory_byte),
                self.sum()
            )
        })
    }

    /// The arithmetic on one line.
    fn sum(&self) -> String {
        let Self {
            total_byte,
            host_byte,
            slots,
            slot_byte,
            guests_byte,
            ..
        } = self;
        format!(
            "{} of this host - {} for the host - {slots} native slots x {} = {} for guests",
            mib(*total_byte),
            mib(*host_byte),
            mib(*slot_byte),
            mib(*guests_byte)
        )
    }

    /// The plan for people.
    pub fn text(&self) -> String {
        let mut text = format!("memory: {}\n", self.sum());
        for backend in &self.backends {
            let BackendPlan {
                name,
                guest,
                guest_byte,
                permits,
                fit,
            } = backend;
            let at_once = (*permits).min(*fit);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{name}: guests of {}; {fit} fit, vm.{guest} permits {permits}: {at_once} at once",
                mib(*guest_byte)
            );
        }
        text
    }
}

/// Memory in MiB, for a sum that can be checked by eye.
fn mib(byte: u64) -> String {
    format!("{} MiB", byte >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const GIB: u64 = 1 << 30;

    fn plan(total_gib: u64, slots: u32, slot_gib: u64) -> Plan {
        let text = "vm.host_memory = \"2GiB\"\nvm.linux = 4\nvm.backends.q = { preset = \"qemu\", image = \"/images/debian\", memory = \"3GiB\" }";
        let vm = config::parse(text, "e.toml").unwrap().config.vm;
        Plan::new(total_gib * GIB, slots, slot_gib * GIB, &vm)
    }

    #[test]
    fn shows_what_is_left_for_guests_beside_native_slots() {
        insta::assert_snapshot!(plan(24, 2, 8).text(), @"
        memory: 24576 MiB of this host - 2048 MiB for the host - 2 native slots x 8192 MiB = 6144 MiB for guests
        q: guests of 3072 MiB; 2 fit, vm.linux permits 4: 2 at once
        ");
    }

    #[test]
    fn a_guest_fits_up_to_the_last_byte_and_not_past_it() {
        let plan = plan(24, 2, 8);
        assert!(plan.fits(6 * GIB, 0) && !plan.fits(6 * GIB + 1, 0));
        assert!(plan.fits(3 * GIB, 3 * GIB) && !plan.fits(3 * GIB, 3 * GIB + 1));
        assert_eq!(plan.refusal(6 * GIB), None);
    }

    #[test]
    fn a_host_whose_slots_may_use_everything_has_no_room_for_guests() {
        let plan = plan(24, 4, 8);
        assert_eq!(plan.guests_byte, 0);
        insta::assert_snapshot!(plan.refusal(3 * GIB).unwrap(), @"
        a guest of 3GiB does not fit: 24576 MiB of this host - 2048 MiB for the host - 4 native slots x 8192 MiB = 0 MiB for guests
        hint: lower `native.slots`, `native.limits.memory`, `vm.host_memory` or the guest's `memory`; `ephemerd vm plan` shows the arithmetic
        ");
    }
}
