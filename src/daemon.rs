//! The dispatcher: slots as permits, a fair queue in front of them, and answers for the control socket.
//!
//! Everything happens on one thread; a job is a task that runs [`Pipeline::run`]. The state behind the lock
//! says who waits, who runs where and which slots are out of use; the ledger says everything else.

pub mod check;
pub mod door;
pub mod egress;
pub mod gate;
pub mod github;
pub mod look;
pub mod queue;
pub mod start;
pub mod webhook;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use camino::Utf8PathBuf;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::control::{Answer, Ask, SlotNow, SlotReport, StatusReport, Story};
use crate::github::runner::listener;
use crate::github::seen::JobSeen;
use crate::job::ledger::{Ending, Entry, LedgerError, Listing, Usage};
use crate::job::output::Stream;
use crate::job::run::{DAEMON_STOPPED, Order, Pipeline, RunnerOrder};
use crate::job::{JobId, JobSpec, Origin, Outcome, Repo};
use crate::provision::question::Question;
use crate::sandbox::Axis;
use crate::sandbox::axes::{AxisReport, Standing};
use crate::slot::Slot;
use crate::trust::{self, Route};
use crate::warden::Request;
use check::NOBODY;
use egress::Keeper;
use gate::{Gate, GateError};
use github::Source;
use look::{Eyes, LookError, look};
use queue::Queue;

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
    /// This program, which looks for the gate.
    program: Utf8PathBuf,
    /// Where jobs come from besides the control socket.
    source: Option<Source>,
    /// Ends what looks when everything ends.
    ending: CancellationToken,
    state: Mutex<State>,
    /// Counts changes that somebody might wait for.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    specs: BTreeMap<JobId, JobSpec>,
    /// What goes on in each slot that is not free.
    taken: BTreeMap<u32, SlotNow>,
    running: BTreeMap<JobId, CancellationToken>,
    draining: bool,
    stopping: bool,
}

impl State {
    /// Whether a job runs, or one of ours that looks.
    fn is_at_work(&self) -> bool {
        !self.running.is_empty() || self.taken.values().any(|now| matches!(now, SlotNow::Looking {}))
    }
}

impl Daemon {
    /// A dispatcher for `slots`, none of which is in use; those in quarantine stay out of use. `program` is ephemerd
    /// itself, which looks for the gate; `source` is where jobs come from besides the control socket.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn new(
        pipeline: Pipeline,
        slots: Vec<Slot>,
        gate: Gate,
        (program, source): (Utf8PathBuf, Option<Source>),
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
            program,
            source,
            ending: CancellationToken::new(),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
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
            .planner
            .data_dir()
            .join("logs")
            .join(format!("{job}.log"))
    }

    /// Whether a job has ended.
    ///
    /// # Errors
    /// In words: there is no such job, or the ledger cannot be read.
    pub fn is_finished(&self, job: &JobId) -> Result<bool, String> {
        match self.pipeline.ledger.job(job) {
            Ok(Some(row)) => Ok(row.outcome.is_some()),
            Ok(None) => Err(no_such(job)),
            Err(error) => Err(crate::chain(&error)),
        }
    }

    /// Whether a user may ask anything here. Accounts of slots never may, whatever groups they are in.
    pub fn may_ask(&self, uid: u32, gid: u32) -> bool {
        if self.slots.values().any(|slot| slot.account.uid == uid) && self.pipeline.root {
            return false;
        }
        if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
            return true;
        }
        let group = users::get_group_by_name(&self.pipeline.planner.config().control.admin_group);
        let user = users::get_user_by_uid(uid);
        let (Some(group), Some(user)) = (group, user) else {
            return false;
        };
        let groups = users::get_user_groups(user.name(), gid).unwrap_or_default();
        groups.iter().any(|member| member.gid() == group.gid())
    }

    /// Answers a question; the output of jobs is sent by the caller.
    pub async fn answer(self: &Arc<Self>, question: Ask) -> Answer {
        let answered = match question {
            Ask::Submit { spec } => self.submit(spec).await,
            Ask::Wait { job } => self.wait(&job).await,
            Ask::Jobs { all } => {
                let listing = if all {
                    Listing::Newest(1000)
                } else {
                    Listing::Active
                };
                let jobs = self.pipeline.ledger.jobs(listing);
                jobs.map(|jobs| Answer::Jobs { jobs })
                    .map_err(|error| crate::chain(&error))
            }
            Ask::Show { job } => self.story(&job),
            Ask::Status {} => Ok(Answer::Status(Box::new(self.status().await))),
            Ask::Logs { .. } => Err("logs are sent, not answered".into()),
            Ask::Cancel { job } => self.cancel(&job),
            Ask::Look { repo, questions } => self.look(&repo, &questions).await,
            Ask::Drain {} => {
                self.state().draining = true;
                self.wake_source();
                Ok(Answer::Done {})
            }
            Ask::Resume { slot: None } => {
                self.state().draining = false;
                self.pump();
                self.wake_source();
                Ok(Answer::Done {})
            }
            Ask::Resume { slot: Some(slot) } => self.lift_quarantine(slot),
        };
        answered.unwrap_or_else(|message| Answer::Error { message })
    }

    async fn submit(self: &Arc<Self>, spec: JobSpec) -> Result<Answer, String> {
        let words = |error: LedgerError| crate::chain(&error);
        if spec.command.is_empty() {
            return Err("the job has no command".into());
        }
        if self.state().stopping {
            return Err("the daemon is stopping".into());
        }
        let config = self.pipeline.planner.config();
        let mut decision = trust::decide(&config.trust, config.has_vm_backend(), &spec.origin);
        if decision.route == Route::Native
            && let Some(why) = self.gate.why_shut(Some(&spec.origin.repo)).await
        {
            decision.route = Route::Refuse;
            decision.reason = why;
        }
        let now = SystemTime::now();
        let id = self.pipeline.ledger.fresh_id(now).map_err(words)?;
        let entry = Entry {
            id: &id,
            spec: &spec,
            route: decision.route,
            reason: &decision.reason,
            ticket: None,
        };
        self.pipeline.ledger.record(entry, now).map_err(words)?;
        info!(job = %id, repo = %spec.origin.repo, route = ?decision.route, reason = decision.reason, "job taken");
        if decision.route == Route::Native {
            let mut state = self.state();
            state.queue.push(id.clone(), spec.origin.repo.clone());
            state.specs.insert(id.clone(), spec);
        } else {
            self.end_unstarted(
                &id,
                Outcome::Refused {
                    reason: decision.reason.clone(),
                },
            );
        }
        self.pump();
        Ok(Answer::Submitted {
            job: id,
            route: decision.route,
            reason: decision.reason,
        })
    }

    /// Starts waiting jobs in free slots.
    fn pump(self: &Arc<Self>) {
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
        let unusable = match self
            .gate
            .admit(&spec.origin.repo, self.eyes(&slot, &cancel))
            .await
        {
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
                    GateError::Look(error) if error.spoils_the_slot() => Some(reason),
                    GateError::Look(_) | GateError::Shut(_) | GateError::Cancelled => None,
                }
            }
        };
        self.state().running.remove(&id);
        if let Some(source) = &self.source {
            source.over(&id);
        }
        self.free(&slot, unusable);
    }

    /// Enters a job of GitHub's that is to run here.
    fn take_ticket(&self, job: &JobSeen) -> Result<JobId, LedgerError> {
        self.enter_ticket(job, Route::Native, &job.decision.reason)
    }

    /// Enters a job of GitHub's that may not run here, and why.
    fn refuse_ticket(&self, job: &JobSeen, why: &str) -> Result<JobId, LedgerError> {
        let id = self.enter_ticket(job, job.decision.route, why)?;
        let reason = why.to_owned();
        self.end_unstarted(&id, Outcome::Refused { reason });
        Ok(id)
    }

    fn enter_ticket(&self, job: &JobSeen, route: Route, reason: &str) -> Result<JobId, LedgerError> {
        let now = SystemTime::now();
        let id = self.pipeline.ledger.fresh_id(now)?;
        let spec = runner_spec(job);
        let entry = Entry {
            id: &id,
            spec: &spec,
            route,
            reason,
            ticket: Some(&job.ticket),
        };
        self.pipeline.ledger.record(entry, now)?;
        let ticket = &job.ticket;
        info!(job = %id, repo = %ticket.repo, run = ticket.run, github_job = ticket.job, ?route, reason, "job of GitHub");
        Ok(id)
    }

    /// Puts a job of GitHub's into the queue.
    fn enqueue(self: &Arc<Self>, id: JobId, job: &JobSeen) {
        {
            let mut state = self.state();
            state.queue.push(id.clone(), job.ticket.repo.clone());
            state.specs.insert(id, runner_spec(job));
        }
        self.pump();
    }

    /// Takes a job out of the queue; false when it does not wait there.
    fn unqueue(&self, id: &JobId) -> bool {
        let mut state = self.state();
        state.specs.remove(id);
        state.queue.remove(id)
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
        let limit_byte = self.pipeline.planner.config().native.limits.output_byte;
        let stream = Stream::Log {
            file: self.log_of(id),
            limit_byte,
        };
        match self
            .pipeline
            .run_as((id, spec), runner, slot, stream, cancel)
            .await
        {
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

    /// Gives back a slot in which something was looked at.
    fn looked(self: &Arc<Self>, slot: &Slot, error: Option<&LookError>) {
        let spoilt = error.filter(|error| error.spoils_the_slot());
        self.free(slot, spoilt.map(|error| crate::chain(error)));
    }

    /// Takes a free slot for a look, if there is one and nothing waits for it.
    fn take_idle(&self) -> Option<Slot> {
        let mut state = self.state();
        if state.stopping || !state.queue.is_empty() {
            return None;
        }
        let slot = self
            .slots
            .values()
            .find(|slot| !state.taken.contains_key(&slot.index))?;
        state.taken.insert(slot.index, SlotNow::Looking {});
        Some(slot.clone())
    }

    /// Answers as a job of `repo` sees it, whose jobs must be native.
    async fn look(self: &Arc<Self>, repo: &Repo, questions: &[Question]) -> Result<Answer, String> {
        let config = self.pipeline.planner.config();
        let origin = Origin::own(repo);
        let decision = trust::decide(&config.trust, config.has_vm_backend(), &origin);
        if repo.as_str() != NOBODY && decision.route != Route::Native {
            return Err(decision.reason);
        }
        let slot = self
            .take_idle()
            .ok_or("every slot is taken, so that no job can look\nhint: ask again when one is free")?;
        let seen = look(self.eyes(&slot, &self.ending), origin, questions).await;
        self.looked(&slot, seen.as_ref().err());
        seen.map(|answers| Answer::Seen { answers })
            .map_err(|error| crate::chain(&error))
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
        if let Err(error) = self.pipeline.ledger.finish(id, &ending, SystemTime::now()) {
            error!(job = %id, error = crate::chain(&error), "could not record the end");
        }
        self.tell();
    }

    async fn wait(&self, job: &JobId) -> Result<Answer, String> {
        let mut changes = self.changes();
        while !self.is_finished(job)? {
            if changes.changed().await.is_err() {
                break;
            }
        }
        self.story(job)
    }

    fn story(&self, job: &JobId) -> Result<Answer, String> {
        let words = |error: LedgerError| crate::chain(&error);
        let row = self
            .pipeline
            .ledger
            .job(job)
            .map_err(words)?
            .ok_or_else(|| no_such(job))?;
        let transitions = self.pipeline.ledger.transitions(job).map_err(words)?;
        Ok(Answer::Story(Box::new(Story {
            job: row,
            transitions,
        })))
    }

    async fn status(&self) -> StatusReport {
        let shut = self.gate.why_shut(None).await;
        let state = self.state();
        let slots = self.slots.values().map(|slot| SlotReport {
            index: slot.index,
            account: slot.account.name.clone(),
            now: state.taken.get(&slot.index).cloned().unwrap_or(SlotNow::Free),
        });
        StatusReport {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            data_dir: self.pipeline.planner.data_dir().to_string(),
            draining: state.draining,
            queued: state.queue.iter().cloned().collect(),
            slots: slots.collect(),
            axes: self.axes_now(),
            shut,
            github: self.source.as_ref().map(Source::report),
        }
    }

    /// What this host enforces at this moment.
    fn axes_now(&self) -> Vec<AxisReport> {
        let mut axes = self.pipeline.axes.clone();
        let lost = self.pipeline.egress.as_ref().and_then(Keeper::why_lost);
        if let (Some(why), Some(network)) =
            (lost, axes.iter_mut().find(|report| report.axis == Axis::Network))
        {
            network.standing = Standing::Absent;
            network.why = why;
            network.hint = Some("`ephemerd egress status` and `egress test` tell more".to_owned());
        }
        axes
    }

    fn cancel(&self, job: &JobId) -> Result<Answer, String> {
        let waited = {
            let mut state = self.state();
            if let Some(cancel) = state.running.get(job) {
                cancel.cancel();
                return Ok(Answer::Done {});
            }
            state.specs.remove(job);
            state.queue.remove(job)
        };
        if waited {
            if let Some(source) = &self.source {
                source.cancelled(job);
            }
            self.end_unstarted(job, Outcome::Cancelled);
            return Ok(Answer::Done {});
        }
        match self.is_finished(job)? {
            true => Err(format!("job {job} has ended already")),
            false => Err(format!("job {job} is being recovered and cannot be cancelled")),
        }
    }

    fn lift_quarantine(self: &Arc<Self>, slot: u32) -> Result<Answer, String> {
        // Whoever was not torn down may still run there, as the account the next job would have.
        let unfinished = self
            .pipeline
            .ledger
            .unfinished()
            .map_err(|error| crate::chain(&error))?;
        let holds = |job: &crate::job::ledger::Unfinished| job.slot.as_ref().is_some_and(|s| s.index == slot);
        if let Some(job) = unfinished.iter().find(|job| holds(job)) {
            return Err(format!(
                "job {} of slot {slot} was not torn down\nhint: restart the daemon: it does that first",
                job.id
            ));
        }
        let lifted = self
            .pipeline
            .ledger
            .lift_quarantine(slot)
            .map_err(|error| crate::chain(&error))?;
        {
            let mut state = self.state();
            match state.taken.get(&slot) {
                Some(SlotNow::Quarantined { .. }) => state.taken.remove(&slot),
                _ if lifted => None,
                _ => return Err(format!("slot {slot} is not in quarantine")),
            };
        }
        self.pump();
        Ok(Answer::Done {})
    }

    /// Keeps the packet filter as it should be, where jobs need one. Never returns.
    pub async fn keep_egress(&self) -> Infallible {
        self.pipeline.keep_egress().await
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
            std::iter::from_fn(|| state.queue.pop()).collect()
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

/// What a job of GitHub's is here: its runner.
fn runner_spec(job: &JobSeen) -> JobSpec {
    JobSpec {
        origin: job.origin.clone(),
        command: vec![listener::PROGRAM.to_owned(), "run".to_owned()],
        env: BTreeMap::new(),
        timeout_s: None,
    }
}

fn no_such(job: &JobId) -> String {
    format!("there is no job {job}\nhint: `ephemerd jobs --all` lists them")
}
