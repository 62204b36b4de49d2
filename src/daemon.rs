//! The dispatcher: slots as permits and a fair queue in front of them; what the control socket asks is in `answer`.
//!
//! Everything happens on one thread; a job is a task that runs [`Pipeline::run`]. The state behind the lock
//! says who waits, who runs where and which slots are out of use; the ledger says everything else.

mod answer;
pub mod check;
pub mod door;
pub mod egress;
mod floors;
pub mod gate;
pub mod github;
pub mod ground;
mod http;
pub mod listen;
pub mod look;
mod prune;
pub mod queue;
pub mod recover;
pub mod reload;
pub mod resume;
pub mod start;
pub mod vm;
pub mod webhook;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use camino::Utf8PathBuf;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::control::SlotNow;
use crate::github::runner::listener;
use crate::github::seen::JobSeen;
use crate::job::ledger::{Ending, Entry, LedgerError, Usage};
use crate::job::output::Stream;
use crate::job::run::{DAEMON_STOPPED, Ended, Order, Pipeline, RunError, RunnerOrder};
use crate::job::{JobId, JobSpec, Outcome};
use crate::slot::Slot;
use crate::trust::Route;
use crate::vm::Wanted;
use crate::warden::{News, Request};
use gate::{Gate, GateError};
use github::Source;
use listen::Board;
use look::{Eyes, LookError};
use queue::Queue;
use reload::Reading;
use vm::{Guests, Vms};

/// How often the daemon sees whether a check gets too old.
const RECHECK_EVERY: Duration = Duration::from_secs(60);

/// How long before it is too old a check is repeated, when nothing runs.
const RECHECK_AHEAD: Duration = Duration::from_secs(30 * 60);

/// The dispatcher.
#[derive(Debug)]
pub struct Daemon {
    pipeline: Pipeline,
    slots: BTreeMap<u32, Slot>,
    gate: Gate,
    /// What is in force, and where it is read again.
    reading: Reading,
    /// This program, which looks for the gate.
    program: Utf8PathBuf,
    /// Where jobs come from besides the control socket.
    source: Option<Source>,
    /// What guests are made in, where a backend is configured.
    guests: Option<Guests>,
    /// Why no native job can run here, where that is so.
    only_guests: Option<String>,
    /// Ends what looks when everything ends.
    ending: CancellationToken,
    state: Mutex<State>,
    /// Counts changes that somebody might wait for.
    changed: watch::Sender<u64>,
    board: Board,
    /// As whom this process runs and behind what, once that is so.
    fence: OnceLock<String>,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    specs: BTreeMap<JobId, JobSpec>,
    /// What goes on in each slot that is not free.
    taken: BTreeMap<u32, SlotNow>,
    running: BTreeMap<JobId, CancellationToken>,
    /// Jobs by their slots whose end could not be written, and that are still to be torn down.
    unsettled: BTreeMap<u32, JobId>,
    vms: Vms,
    /// Why nothing starts for now, while the host has less free than it keeps.
    full: Option<String>,
    draining: bool,
    stopping: bool,
}

impl State {
    /// Whether a job runs, or one of ours that looks.
    fn is_at_work(&self) -> bool {
        !self.running.is_empty()
            || self.vms.is_at_work()
            || self.taken.values().any(|now| matches!(now, SlotNow::Looking {}))
    }
}

impl Daemon {
    /// A dispatcher for `slots`, none of which is in use; those in quarantine stay out of use. `program` is ephemerd
    /// itself, which looks for the gate; `source` is where jobs come from besides the control socket, and `reading` what the
    /// configuration was read from.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn new(
        pipeline: Pipeline,
        slots: Vec<Slot>,
        gate: Gate,
        (program, source, reading): (Utf8PathBuf, Option<Source>, Reading),
        (guests, only_guests): (Option<Guests>, Option<String>),
    ) -> Result<Arc<Self>, LedgerError> {
        let mut state = State::default();
        for quarantined in pipeline.ledger.quarantined()? {
            state.taken.insert(
                quarantined.slot,
                SlotNow::Quarantined {
                    reason: quarantined.reason,
                },
            );
        }
        let slots = slots.into_iter().map(|slot| (slot.index, slot)).collect();
        Ok(Arc::new(Self {
            pipeline,
            slots,
            gate,
            reading,
            program,
            source,
            guests,
            only_guests,
            ending: CancellationToken::new(),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            board: Board::default(),
            fence: OnceLock::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below is complete in itself, so a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Notices every change of a job or a slot.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The file of a job's output.
    pub fn log_of(&self, job: &JobId) -> Utf8PathBuf {
        self.pipeline
            .planner()
            .data_dir()
            .join("logs")
            .join(format!("{job}.log"))
    }

    /// Starts waiting jobs in free slots.
    fn pump(self: &Arc<Self>) {
        if self.state().queue.is_empty() || self.is_full() {
            self.tell();
            return;
        }
        loop {
            let mut state = self.state();
            if state.draining || state.stopping {
                break;
            }
            let Some(slot) = self
                .slots
                .values()
                .find(|slot| !state.taken.contains_key(&slot.index))
            else {
                break;
            };
            let Some(id) = state.queue.pop() else { break };
            let Some(spec) = state.specs.remove(&id) else {
                continue;
            };
            let cancel = CancellationToken::new();
            state.running.insert(id.clone(), cancel.clone());
            state.taken.insert(slot.index, SlotNow::Busy { job: id.clone() });
            drop(state);
            tokio::spawn(Arc::clone(self).run(id, spec, slot.clone(), cancel));
        }
        self.tell();
    }

    async fn run(self: Arc<Self>, id: JobId, spec: JobSpec, slot: Slot, cancel: CancellationToken) {
        let admitted = match &self.only_guests {
            Some(why) => Err(GateError::Shut(why.clone())),
            None => {
                let eyes = self.eyes(&slot, &cancel);
                match self.gate.admit(&spec.origin.repo, eyes).await {
                    // Looking may have taken a while.
                    Ok(()) => self.is_native_still(&spec).map_err(GateError::Shut),
                    refused => refused,
                }
            }
        };
        let unusable = match admitted {
            Ok(()) => match self.source.as_ref().filter(|source| source.has(&id)) {
                Some(source) => self.run_runner(source, (&id, &spec), &slot, &cancel).await,
                None => self.run_admitted((&id, &spec), None, &slot, &cancel).await,
            },
            Err(GateError::Cancelled) => {
                // A daemon that stops cancels everything, and means nobody's job.
                if let Some(source) = self.source.as_ref().filter(|_| !self.is_closed()) {
                    source.cancelled(&id);
                }
                self.end_unstarted(&id, Outcome::Cancelled);
                None
            }
            Err(GateError::Shut(why)) if !self.is_of_source(&id) && self.fall_back(&id, &spec, &why) => None,
            Err(error) => {
                let reason = crate::chain(&error);
                if let Some(source) = &self.source {
                    source.refused(&id, &reason);
                }
                self.end_unstarted(
                    &id,
                    Outcome::Refused {
                        reason: reason.clone(),
                    },
                );
                match error {
                    GateError::Look(error) if error.spoils_the_slot() => {
                        self.settle_later(&slot, &error);
                        Some(reason)
                    }
                    GateError::Look(_) | GateError::Shut(_) | GateError::Cancelled => None,
                }
            }
        };
        self.job_over(&id, &slot, unusable);
    }

    /// Takes in that nothing goes on any more with a job, and why its slot is of no use, if it is not.
    fn job_over(self: &Arc<Self>, id: &JobId, slot: &Slot, unusable: Option<String>) {
        self.state().running.remove(id);
        if let Some(source) = &self.source {
            source.over(id);
        }
        self.free(slot, unusable);
    }

    /// Whether a job came from elsewhere than the control socket.
    fn is_of_source(&self, id: &JobId) -> bool {
        self.source.as_ref().is_some_and(|source| source.has(id))
    }

    /// Enters a job of GitHub's that may not run here, and why.
    fn refuse_ticket(&self, job: &JobSeen, why: &str) -> Result<JobId, LedgerError> {
        let spec = self.runner_spec(job, None);
        let id = self.enter_ticket(job, &spec, (job.decision.route, why))?;
        let reason = why.to_owned();
        self.end_unstarted(&id, Outcome::Refused { reason });
        Ok(id)
    }

    fn enter_ticket(
        &self,
        job: &JobSeen,
        spec: &JobSpec,
        (route, reason): (Route, &str),
    ) -> Result<JobId, LedgerError> {
        let now = SystemTime::now();
        let id = self.pipeline.ledger.fresh_id(now)?;
        let entry = Entry {
            id: &id,
            spec,
            route,
            reason,
            ticket: Some(&job.ticket),
        };
        self.pipeline.ledger.record(entry, now)?;
        let ticket = &job.ticket;
        info!(job = %id, repo = %ticket.repo, run = ticket.run, github_job = ticket.job, ?route, reason, "job of GitHub");
        Ok(id)
    }

    /// What a job of GitHub's is here: its runner, which is in the image of the guest it is to have, if it is to have one.
    fn runner_spec(&self, job: &JobSeen, wanted: Option<&Wanted>) -> JobSpec {
        let (program, env) = match wanted.and_then(|wanted| self.runner_in(wanted)) {
            Some((root, os)) => (
                root.join(listener::PROGRAM).into_string(),
                listener::environment(os, &BTreeMap::new(), None),
            ),
            None => (listener::PROGRAM.to_owned(), BTreeMap::new()),
        };
        JobSpec {
            origin: job.origin.clone(),
            command: vec![program, "run".to_owned()],
            env,
            timeout_s: None,
        }
    }

    /// Puts a job of GitHub's into the queue.
    fn enqueue(self: &Arc<Self>, id: JobId, spec: JobSpec) {
        {
            let mut state = self.state();
            state.queue.push(id.clone(), spec.origin.repo.clone());
            state.specs.insert(id, spec);
        }
        self.pump();
    }

    /// Takes a job out of the queue; false when it does not wait there.
    fn unqueue(&self, id: &JobId) -> bool {
        let mut state = self.state();
        state.specs.remove(id);
        state.queue.remove(id) || state.vms.unqueue(id)
    }

    /// Lets the source of jobs know that it may look again.
    fn wake_source(&self) {
        if let Some(source) = &self.source {
            source.wake();
        }
    }

    /// How many slots can be used, and how many jobs have or wait for one.
    fn places(&self) -> (usize, usize) {
        let state = self.state();
        let quarantined = |now: &&SlotNow| matches!(now, SlotNow::Quarantined { .. });
        let lost = state.taken.values().filter(quarantined).count();
        let usable = self.slots.len().saturating_sub(lost);
        (usable, state.running.len() + state.queue.iter().count())
    }

    /// Whether no job is started any more.
    fn is_closed(&self) -> bool {
        let state = self.state();
        state.draining || state.stopping
    }

    /// Runs a job that was let through; why its slot is of no use afterwards, if it is not.
    async fn run_admitted(
        &self,
        (id, spec): (&JobId, &JobSpec),
        runner: Option<(RunnerOrder, UnboundedReceiver<Order>)>,
        slot: &Slot,
        cancel: &CancellationToken,
    ) -> Option<String> {
        let stream = self.stream_of(id);
        let ended = self.pipeline.run_as((id, spec), runner, slot, stream, cancel);
        self.after_job(id, slot, ended.await).await
    }

    /// Where a job's output goes.
    fn stream_of(&self, id: &JobId) -> Stream {
        Stream::Log {
            file: self.log_of(id),
            limit_byte: self.pipeline.planner().config().native.limits.output_byte,
        }
    }

    /// Why the slot of a job is of no use after it, if it is not.
    async fn after_job(&self, id: &JobId, slot: &Slot, ended: Result<Ended, RunError>) -> Option<String> {
        match ended {
            Ok(ended) if ended.leftovers.is_empty() => None,
            Ok(ended) => Some(format!("job {id} left {}", ended.leftovers.join(", "))),
            Err(error) => {
                error!(job = %id, slot = slot.index, error = crate::chain(&error), "slot out of use");
                // Nobody watches its limits any more.
                let kill = Request::Signal {
                    job: id.clone(),
                    politely: false,
                };
                let _ = self.pipeline.warden.ask(kill, &[]).await;
                self.pipeline.pressure.forget(id);
                self.state().unsettled.insert(slot.index, id.clone());
                Some(crate::chain(&error))
            }
        }
    }

    /// Gives a slot back, or takes it out of use.
    fn free(self: &Arc<Self>, slot: &Slot, unusable: Option<String>) {
        {
            let mut state = self.state();
            match unusable {
                None => state.taken.remove(&slot.index),
                Some(reason) => state.taken.insert(slot.index, SlotNow::Quarantined { reason }),
            };
        }
        self.pump();
    }

    /// What looks in a slot that is taken.
    fn eyes<'a>(&'a self, slot: &'a Slot, cancel: &'a CancellationToken) -> Eyes<'a> {
        Eyes {
            pipeline: &self.pipeline,
            slot,
            program: &self.program,
            alone: false,
            cancel,
        }
    }

    /// Notes what looked in a slot and could not be torn down, if that is so.
    fn settle_later(&self, slot: &Slot, error: &LookError) {
        if let Some(job) = error.unsettled() {
            self.state().unsettled.insert(slot.index, job.clone());
        }
    }

    /// Gives back a slot in which something was looked at.
    fn looked(self: &Arc<Self>, slot: &Slot, error: Option<&LookError>) {
        let spoilt = error.filter(|error| error.spoils_the_slot());
        if let Some(error) = spoilt {
            self.settle_later(slot, error);
        }
        self.free(slot, spoilt.map(|error| crate::chain(error)));
    }

    /// Takes a free slot for a look, if there is one and nothing waits for it.
    fn take_idle(&self) -> Option<Slot> {
        let mut state = self.state();
        // Not even we look where nothing is fenced in.
        if state.stopping || !state.queue.is_empty() || self.only_guests.is_some() {
            return None;
        }
        let slot = self
            .slots
            .values()
            .find(|slot| !state.taken.contains_key(&slot.index))?;
        state.taken.insert(slot.index, SlotNow::Looking {});
        Some(slot.clone())
    }

    /// Looks again, while nothing runs, before a check gets too old. Never returns.
    pub async fn recheck(self: &Arc<Self>) -> Infallible {
        loop {
            tokio::time::sleep(RECHECK_EVERY).await;
            for subject in self.gate.due(RECHECK_AHEAD).await {
                if !self.state().running.is_empty() {
                    break;
                }
                let Some(slot) = self.take_idle() else { break };
                let looked = self.gate.refresh(&subject, self.eyes(&slot, &self.ending)).await;
                if let Err(error) = &looked {
                    error!(
                        error = crate::chain(error),
                        "could not look whether this host has what it must have"
                    );
                }
                self.looked(&slot, looked.as_ref().err());
            }
        }
    }

    /// Ends a job that never got a slot.
    fn end_unstarted(&self, id: &JobId, outcome: Outcome) {
        let ending = Ending {
            outcome: &outcome,
            clean: true,
            axes: "[]",
            usage: Usage::default(),
            egress: None,
        };
        // Whatever becomes of the record, nobody goes on with it.
        self.pipeline.warden.forget(id);
        if let Err(error) = self.pipeline.ledger.finish(id, &ending, SystemTime::now()) {
            error!(job = %id, error = crate::chain(&error), "could not record the end");
        }
        self.tell();
    }

    /// Keeps the packet filter as it should be, where jobs need one. Never returns.
    pub async fn keep_egress(&self) -> Infallible {
        self.pipeline.keep_egress().await
    }

    /// Notes as whom this process runs, and behind what.
    pub fn runs_behind(&self, fence: String) {
        // It does not change.
        let _ = self.fence.set(fence);
    }

    /// Has the warden tell the service manager.
    pub fn tell_service(&self, news: News) {
        self.pipeline.warden.tell(news);
    }

    /// Waits until the warden is gone. Nothing can be started or torn down any more then; the next start can.
    pub async fn lost(&self) {
        self.pipeline.warden.ended().await;
    }

    /// Ends everything: waiting jobs are cancelled, running ones stopped and scrubbed. Returns when the last
    /// slot is settled.
    pub async fn stop(&self) {
        let waiting: Vec<JobId> = {
            let mut state = self.state();
            state.stopping = true;
            self.ending.cancel();
            for cancel in state.running.values() {
                cancel.cancel();
            }
            state.vms.cancel_all();
            let for_guests = state.vms.drain();
            std::iter::from_fn(|| state.queue.pop())
                .chain(for_guests)
                .collect()
        };
        self.wake_source();
        for job in waiting {
            self.end_unstarted(
                &job,
                Outcome::Failed {
                    reason: DAEMON_STOPPED.to_owned(),
                },
            );
        }
        let mut changes = self.changes();
        while self.state().is_at_work() {
            if changes.changed().await.is_err() {
                break;
            }
        }
    }
}
