//! How things stand with guests, for `ephemerd status`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::daemon::Daemon;
use crate::daemon::queue::Queue;
use crate::job::JobId;
use crate::vm::Guest;

/// How things stand with guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmReport {
    /// Each kind that a backend makes.
    pub kinds: Vec<KindReport>,
}

/// How things stand with guests of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// The kind.
    pub guest: Guest,
    /// How many may run at once.
    pub permits: u32,
    /// Jobs that have one.
    pub running: Vec<JobId>,
    /// Jobs that wait for one, in the order they will get it.
    pub queued: Vec<JobId>,
    /// Why none is started, while that is so.
    pub blocked: Option<String>,
    /// What could not be removed; each holds a permit.
    pub lost: Vec<String>,
}

impl Daemon {
    /// How things stand with guests.
    pub(in crate::daemon) fn vm_report(&self) -> Option<VmReport> {
        let guests = self.guests.as_ref()?;
        let state = self.state();
        let vms = &state.vms;
        let kinds: BTreeSet<Guest> = guests
            .room
            .config
            .backends
            .values()
            .map(|backend| backend.guest)
            .collect();
        let kind = |guest: Guest| KindReport {
            guest,
            permits: guests.room.config.permits(guest),
            running: vms
                .running
                .iter()
                .filter(|(_, running)| running.guest == guest)
                .map(|(id, _)| id.clone())
                .collect(),
            queued: vms
                .queues
                .get(&guest)
                .into_iter()
                .flat_map(Queue::iter)
                .cloned()
                .collect(),
            blocked: vms.cordoned.get(&guest).cloned().or_else(|| {
                let until = vms.paused.get(&guest).filter(|until| Instant::now() < **until)?;
                let s = until.duration_since(Instant::now()).as_secs();
                Some(format!(
                    "the system has no room for another; tried again in {s} s"
                ))
            }),
            lost: vms
                .lost
                .iter()
                .filter(|(of, _)| *of == guest)
                .map(|(_, what)| what.clone())
                .collect(),
        };
        Some(VmReport {
            kinds: kinds.into_iter().map(kind).collect(),
        })
    }
}
