//! Who runs and who waits: permits per kind of guest, a queue in front of each, and why nothing of a kind is started.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::daemon::github::InGuest;
use crate::daemon::queue::Queue;
use crate::job::{JobId, JobSpec};
use crate::vm::plan::Plan;
use crate::vm::{Guest, Wanted};

/// The guests that run and the jobs that wait for one.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Vms {
    pub(super) queues: BTreeMap<Guest, Queue>,
    pub(super) waiting: BTreeMap<JobId, Waiting>,
    pub(super) running: BTreeMap<JobId, Running>,
    /// Until when nothing of a kind is tried.
    pub(super) paused: BTreeMap<Guest, Instant>,
    /// How often in a row the system refused a guest of a kind although there should be room.
    pub(super) suspected: BTreeMap<Guest, u32>,
    /// Kinds of which nothing is started any more, and why.
    pub(super) cordoned: BTreeMap<Guest, String>,
    /// Guests that could not be removed; each holds its permit.
    pub(super) lost: Vec<(Guest, String)>,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) spec: JobSpec,
    pub(super) wanted: Wanted,
    /// Which of its guests it is, from 1.
    pub(super) attempt: u32,
    /// How many of them failed.
    pub(super) failed: u32,
    /// Since when there is no room for it.
    pub(super) full_since: Option<Instant>,
    /// Its runner, once a job of GitHub's has one.
    pub(super) runner: Option<InGuest>,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) guest: Guest,
    pub(super) memory_byte: u64,
    pub(super) cancel: CancellationToken,
    /// Which of the packet filter's places for guests it has.
    pub(super) place: u32,
}

impl Vms {
    pub(in crate::daemon) fn is_at_work(&self) -> bool {
        !self.running.is_empty()
    }

    /// Every job that waits.
    pub(in crate::daemon) fn waiting(&self) -> impl Iterator<Item = &JobId> {
        self.waiting.keys()
    }

    /// Takes out every job that waits.
    pub(in crate::daemon) fn drain(&mut self) -> Vec<JobId> {
        self.queues.clear();
        std::mem::take(&mut self.waiting).into_keys().collect()
    }

    /// Ends a job if it has a guest; false when it has none.
    pub(in crate::daemon) fn cancel_running(&self, id: &JobId) -> bool {
        let running = self.running.get(id);
        if let Some(running) = running {
            running.cancel.cancel();
        }
        running.is_some()
    }

    pub(in crate::daemon) fn cancel_all(&self) {
        for running in self.running.values() {
            running.cancel.cancel();
        }
    }

    /// Takes a job out of its queue; false when it does not wait.
    pub(in crate::daemon) fn unqueue(&mut self, id: &JobId) -> bool {
        self.waiting.remove(id);
        self.queues.values_mut().any(|queue| queue.remove(id))
    }

    /// Lets guests of every kind be started again.
    pub(in crate::daemon) fn lift_cordons(&mut self) {
        self.cordoned.clear();
        self.paused.clear();
        self.suspected.clear();
    }

    fn used(&self, guest: Guest) -> usize {
        let running = self
            .running
            .values()
            .filter(|running| running.guest == guest)
            .count();
        running + self.lost.iter().filter(|(of, _)| *of == guest).count()
    }

    fn taken_byte(&self) -> u64 {
        self.running.values().map(|running| running.memory_byte).sum()
    }

    /// The jobs that wait, and what they are.
    pub(in crate::daemon) fn specs(&self) -> impl Iterator<Item = (&JobId, &JobSpec)> {
        self.waiting.iter().map(|(id, job)| (id, &job.spec))
    }

    /// Takes the next job of a kind that may start now, with its permit.
    pub(super) fn next(
        &mut self,
        guest: Guest,
        permits: u32,
        plan: &Plan,
    ) -> Option<(JobId, Waiting, CancellationToken, u32)> {
        let permits = usize::try_from(permits).unwrap_or(usize::MAX);
        let is_paused = self
            .paused
            .get(&guest)
            .is_some_and(|until| Instant::now() < *until);
        if self.used(guest) >= permits || is_paused || self.cordoned.contains_key(&guest) {
            return None;
        }
        let taken = self.taken_byte();
        let queue = self.queues.get_mut(&guest)?;
        let first = queue.iter().next()?;
        let fits = self
            .waiting
            .get(first)
            .is_none_or(|job| plan.fits(job.wanted.memory_byte, taken));
        if !fits {
            return None;
        }
        let id = queue.pop()?;
        let job = self.waiting.remove(&id)?;
        let cancel = CancellationToken::new();
        let places: BTreeSet<u32> = self.running.values().map(|running| running.place).collect();
        let place = (0..).find(|place| !places.contains(place)).unwrap_or_default();
        self.running.insert(
            id.clone(),
            Running {
                guest,
                memory_byte: job.wanted.memory_byte,
                cancel: cancel.clone(),
                place,
            },
        );
        Some((id, job, cancel, place))
    }
}
