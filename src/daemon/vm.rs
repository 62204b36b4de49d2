//! Guests in the dispatcher: permits per kind of guest and a queue in front of them, apart from the slots, so that no job
//! that waits for a guest holds up a native one.

mod permits;
pub mod report;

use std::convert::Infallible;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub(super) use permits::Vms;
use permits::Waiting;

use super::Daemon;
use super::Source;
use super::egress::Leave;
use super::github::InGuest;
use crate::egress::EgressReport;
use crate::job::ledger::{Ending, Usage};
use crate::job::output::Kept;
use crate::job::{JobId, JobSpec, Outcome};
use crate::latest::Latest;
use crate::slot::Slot;
use crate::trust::{Decision, Route};
use crate::vm::drive::{Lived, Order};
use crate::vm::life::{Again, Class, End, Infra, again};
use crate::vm::plan::Plan;
use crate::vm::room::Room;
use crate::vm::{Dialect, Guest, Wanted, image};

/// Guests a job gets at most when they fail before its command runs.
pub const ATTEMPTS: u32 = 3;

/// How long nothing is tried after the system had no room for a guest, at most; a tenth of what a job waits for it
/// altogether where that is less.
const FULL_PAUSE: Duration = Duration::from_secs(15);

/// How often in a row the system must refuse a guest although there should be room, before it counts as leaked: another guest
/// may have ended between the refusal and the count.
const SUSPICIONS: u32 = 3;

/// How often the daemon sees whether it may fetch an image.
const PULL_EVERY: Duration = Duration::from_secs(60);

/// What guests are made in, and how much of it there is.
#[derive(Debug)]
pub struct Guests {
    /// Makes and removes them.
    pub room: Room,
    /// The memory there is for them.
    pub plan: Latest<Plan>,
}

/// What becomes of a job whose guest is gone.
enum Next {
    Ended(Outcome),
    Again { why: String },
    Blocked { why: String },
}

impl Daemon {
    /// What the guest of a job is to be, that trust sends to one; the job is refused when none can be made for it.
    pub(super) fn in_guest(&self, decision: Decision) -> (Decision, Option<Wanted>) {
        if decision.route != Route::Vm {
            return (decision, None);
        }
        match self.wanted(&decision) {
            Ok(wanted) => (decision, Some(wanted)),
            Err(why) => (decision.but(&why), None),
        }
    }

    /// # Errors
    /// None can be made for it, in words with a hint.
    fn wanted(&self, decision: &Decision) -> Result<Wanted, String> {
        let guests = self.guests.as_ref().ok_or("no VM backend is configured")?;
        let wanted = Wanted::new(&guests.room.config, &decision.vm)?;
        match guests.plan.get().refusal(wanted.memory_byte) {
            Some(why) => Err(why),
            None => Ok(wanted),
        }
    }

    /// Lets a job wait for a guest.
    pub(super) fn await_guest(self: &Arc<Self>, id: JobId, spec: JobSpec, wanted: Wanted) {
        {
            let mut state = self.state();
            let queue = state.vms.queues.entry(wanted.guest).or_default();
            queue.push(id.clone(), spec.origin.repo.clone());
            state.vms.waiting.insert(
                id,
                Waiting {
                    spec,
                    wanted,
                    attempt: 1,
                    failed: 0,
                    full_since: None,
                    runner: None,
                },
            );
        }
        self.pump_guests();
    }

    /// Starts guests for jobs that wait, as far as there are permits and there is memory.
    pub(super) fn pump_guests(self: &Arc<Self>) {
        let Some(guests) = &self.guests else { return };
        if self.state().vms.waiting.is_empty() || self.is_full() {
            self.tell();
            return;
        }
        for guest in Guest::ALL {
            loop {
                let next = {
                    let mut state = self.state();
                    if state.draining || state.stopping {
                        return;
                    }
                    state
                        .vms
                        .next(guest, guests.room.config.permits(guest), &guests.plan.get())
                };
                let Some((id, job, cancel, place)) = next else {
                    break;
                };
                tokio::spawn(Arc::clone(self).run_guest(id, job, cancel, place));
            }
        }
        self.tell();
    }

    /// Takes a job through one guest, and says what becomes of it.
    async fn run_guest(self: Arc<Self>, id: JobId, mut job: Waiting, cancel: CancellationToken, place: u32) {
        let Some(guests) = &self.guests else { return };
        let guest = job.wanted.guest;
        let source = self.source.as_ref().filter(|source| source.has(&id));
        let lived = self
            .through_guest((guests, source), (&id, &mut job), &cancel, place)
            .await;
        let (lost, next) = match lived {
            // The ledger says what there is of it; the next start undoes that.
            Err(why) => (vec![format!("the guest of job {id}, out of sight: {why}")], None),
            Ok((lived, usage, egress)) => {
                let next = self.after(guests, &mut job, &lived).await;
                (lived.leftovers, Some((next, usage, egress)))
            }
        };
        for what in &lost {
            error!(job = %id, what, "left of a guest; its permit is not given back");
        }
        let failed = |reason| Next::Ended(Outcome::Failed { reason });
        let next = next.map(|(next, usage, egress)| {
            let next = match next {
                // What is left of it may still run, and the ledger says that the job holds it.
                Next::Again { why } | Next::Blocked { why } if !lost.is_empty() => {
                    failed(format!("{why}; its guest could not be removed"))
                }
                Next::Again { .. } | Next::Blocked { .. } if self.state().stopping => {
                    failed(crate::job::run::DAEMON_STOPPED.to_owned())
                }
                // Somebody was told so while its last guest was removed.
                Next::Again { .. } | Next::Blocked { .. } if cancel.is_cancelled() => {
                    Next::Ended(Outcome::Cancelled)
                }
                next => next,
            };
            (next, usage, egress)
        });
        if let Some((Next::Ended(outcome), usage, egress)) = &next {
            self.end_guest_job(&id, outcome, lost.is_empty(), *usage, egress.as_ref());
            if let Some((source, runner)) = source.zip(job.runner.as_ref()) {
                self.learn_in_guest(source, runner, outcome);
            }
        }
        match (&next, source) {
            (Some((Next::Again { .. } | Next::Blocked { .. }, ..)), Some(source)) => source.waits_again(&id),
            (_, Some(source)) => source.over(&id),
            (_, None) => {}
        }
        {
            let mut state = self.state();
            let vms = &mut state.vms;
            vms.running.remove(&id);
            vms.lost.extend(lost.into_iter().map(|what| (guest, what)));
            match next {
                None | Some((Next::Ended(_), ..)) => {}
                Some((Next::Again { why }, ..)) => {
                    info!(job = %id, attempt = job.attempt, why, "another guest for the job");
                    self.requeue(vms, &id, job, &why);
                }
                Some((Next::Blocked { why }, ..)) => {
                    let pause = FULL_PAUSE.min(guests.room.config.capacity_wait / 10);
                    vms.paused.insert(guest, Instant::now() + pause);
                    self.requeue(vms, &id, job, &why);
                }
            }
        }
        self.tell();
        self.pump_guests();
        // Whatever is paused is tried again then.
        let until = self.state().vms.paused.get(&guest).copied();
        if let Some(until) = until.filter(|until| *until > Instant::now()) {
            tokio::time::sleep_until(until).await;
            self.pump_guests();
        }
    }

    /// Lets a job wait for another guest. Each has a name of its own, also one that found no room.
    fn requeue(&self, vms: &mut Vms, id: &JobId, mut job: Waiting, why: &str) {
        job.attempt += 1;
        let queued = crate::job::state::QUEUED;
        if let Err(error) = self
            .pipeline
            .ledger
            .enter(id, queued, Some(why), SystemTime::now())
        {
            error!(job = %id, error = crate::chain(&error), "could not record why it waits");
        }
        let queue = vms.queues.entry(job.wanted.guest).or_default();
        queue.push(id.clone(), job.spec.origin.repo.clone());
        vms.waiting.insert(id.clone(), job);
    }

    /// Takes a job through one guest.
    ///
    /// # Errors
    /// The ledger cannot be written, in words.
    async fn through_guest(
        &self,
        (guests, source): (&Guests, Option<&Source>),
        (id, job): (&JobId, &mut Waiting),
        cancel: &CancellationToken,
        place: u32,
    ) -> Result<(Lived, Usage, Option<EgressReport>), String> {
        let words = |error: &(dyn std::error::Error + 'static)| crate::chain(error);
        let planner = self.pipeline.planner();
        let native = &planner.config().native;
        let of_repo = planner.config().repos.get(&job.spec.origin.repo);
        let limit = of_repo
            .and_then(|repo| repo.job_timeout)
            .unwrap_or(native.job_timeout);
        let limit = limit.min(job.spec.timeout_s.map_or(Duration::MAX, Duration::from_secs));
        let Wanted {
            backend, isolation, ..
        } = &job.wanted;
        let boot = guests
            .room
            .config
            .backends
            .get(backend)
            .map_or(Duration::ZERO, |backend| backend.boot_timeout);
        let permitted = self
            .pipeline
            .ledger
            .permit(id, (backend, *isolation), SystemTime::now());
        if let Err(error) = permitted {
            // There is nothing of a guest yet.
            return Ok(self.never(source, id, words(&error)));
        }
        self.tell();
        let log = self.log_of(id);
        let mut output = match File::options().append(true).create(true).open(&log) {
            Ok(file) => Kept::new(file, native.limits.output_byte),
            Err(error) => {
                return Ok(self.never(source, id, format!("could not open `{log}`: {error}")));
            }
        };
        let leave = match self.leave(guests, &job.wanted, place).await {
            Ok(leave) => leave,
            Err(reason) => return Ok(self.never(source, id, reason)),
        };
        if let Some(source) = source {
            let made = self
                .make_in_guest(source, id, &job.wanted, job.runner.take())
                .await;
            match made {
                Ok(made) => job.runner = Some(made),
                Err(outcome) => return Ok((Lived::never(outcome), Usage::default(), None)),
            }
        }
        let runner = job.runner.as_ref();
        let files = runner.map(InGuest::files).unwrap_or_default();
        let order = Order {
            id,
            spec: &job.spec,
            wanted: &job.wanted,
            attempt: job.attempt,
            limit,
            files: &files,
            cancel,
        };
        let keeper = self.pipeline.egress.as_ref().filter(|_| leave.is_some());
        let lost = async {
            match keeper {
                Some(keeper) => keeper.lost().await,
                None => std::future::pending().await,
            }
        };
        let must_end = async {
            match source.zip(runner) {
                Some((source, runner)) => self.must_end(source, runner, boot).await,
                None => std::future::pending().await,
            }
        };
        let lived = {
            let live = guests.room.live(&self.pipeline.ledger, &order, &mut output);
            tokio::pin!(live);
            let outcome = tokio::select! {
                lived = &mut live => Err(lived),
                reason = lost => Ok(Outcome::Failed { reason }),
                outcome = must_end => Ok(outcome),
            };
            match outcome {
                Err(lived) => lived,
                Ok(outcome) => {
                    cancel.cancel();
                    live.await.map(|lived| match lived.end {
                        // It had its result, and was being removed.
                        End::Job(Outcome::Exited { .. }) => lived,
                        End::Job(_) | End::Infra(_) => lived.ended_as(outcome),
                    })
                }
            }
        };
        let lived = match runner {
            Some(runner) => lived.map(|lived| lived.read_by(|code| runner.ended(code))),
            None => lived,
        };
        let lived = lived.map_err(|error| words(&error))?;
        let usage = Usage {
            memory_peak_byte: lived.memory_peak_byte,
            output_byte: output.came,
        };
        let egress = match leave {
            Some(leave) => Some(leave.report().await),
            None => None,
        };
        Ok((lived, usage, egress))
    }

    /// A job that gets no guest, for a reason that may pass.
    fn never(
        &self,
        source: Option<&Source>,
        id: &JobId,
        reason: String,
    ) -> (Lived, Usage, Option<EgressReport>) {
        if let Some(source) = source {
            source.refused(id, &reason);
        }
        let lived = Lived::never(Outcome::Refused { reason });
        (lived, Usage::default(), None)
    }

    /// Leave to use the network, for a guest that sends as the account of `vm.user`.
    async fn leave(&self, guests: &Guests, wanted: &Wanted, place: u32) -> Result<Option<Leave>, String> {
        let backend = guests.room.config.backends.get(&wanted.backend);
        if !backend.is_some_and(crate::vm::Backend::sends_as_user) {
            return Ok(None);
        }
        let keeper = self.pipeline.egress.as_ref().ok_or("no packet filter is kept")?;
        let patron = guests.room.hands.attendant.patron.as_ref();
        let patron = patron.ok_or("`vm.user` is not set")?;
        let index = u32::try_from(self.slots.len()).unwrap_or_default() + 1 + place;
        let slot = Slot::of_guest(index, patron.account.clone());
        keeper
            .admit(&slot, &self.pipeline.warden)
            .await
            .map(Some)
            .map_err(|error| crate::chain(&error))
    }

    /// What becomes of a job after its guest.
    async fn after(&self, guests: &Guests, job: &mut Waiting, lived: &Lived) -> Next {
        let infra = match &lived.end {
            End::Job(outcome) => {
                self.state().vms.suspected.remove(&job.wanted.guest);
                return Next::Ended(outcome.clone());
            }
            End::Infra(infra) => infra,
        };
        let failed = |reason: String| Next::Ended(Outcome::Failed { reason });
        let next = again(infra, job.failed + 1, ATTEMPTS);
        if next != Again::WhenThereIsRoom {
            self.state().vms.suspected.remove(&job.wanted.guest);
        }
        match next {
            Again::Never => failed(format!("guest of `{}`: {infra}", job.wanted.backend)),
            Again::Now => {
                job.failed += 1;
                // There was room.
                job.full_since = None;
                Next::Again {
                    why: infra.to_string(),
                }
            }
            Again::WhenThereIsRoom => {
                let since = *job.full_since.get_or_insert_with(Instant::now);
                let waited = guests.room.config.capacity_wait;
                if since.elapsed() >= waited {
                    return failed(format!(
                        "there was no room for a guest within {waited:?}: {infra}"
                    ));
                }
                let leaked = self.leaked(guests, job, infra).await;
                let mut state = self.state();
                let suspected = state.vms.suspected.entry(job.wanted.guest).or_default();
                match leaked {
                    None => *suspected = 0,
                    Some(why) => {
                        *suspected += 1;
                        if *suspected >= SUSPICIONS {
                            error!(guest = %job.wanted.guest, why, "no more guests of this kind");
                            state.vms.cordoned.insert(job.wanted.guest, why);
                        }
                    }
                }
                drop(state);
                Next::Blocked {
                    why: format!("blocked: {infra}"),
                }
            }
        }
    }

    /// Whether the system counts guests that are gone: it refuses one while fewer run than it allows, of whomever. On
    /// macOS that counter is set back by nothing but a restart.
    async fn leaked(&self, guests: &Guests, job: &Waiting, infra: &Infra) -> Option<String> {
        let backend = guests.room.config.backends.get(&job.wanted.backend)?;
        if backend.dialect != Dialect::Tart
            || job.wanted.guest != Guest::MacOs
            || infra.class != Class::Capacity
        {
            return None;
        }
        match guests.room.running(backend).await {
            Ok(running) if running < APPLES_LIMIT => Some(format!(
                "the system refuses a guest although {running} of {APPLES_LIMIT} run: its counter seems to have leaked\nhint: if no other program runs guests with macOS, restart this Mac: nothing else sets it back; then, or if that was no leak, `ephemerd resume`"
            )),
            Ok(_) => None,
            Err(why) => {
                warn!(why, "could not count the guests that run");
                None
            }
        }
    }

    /// Fetches images that are not here, in their windows and while no guest runs. Never returns.
    pub async fn fetch_images(&self) -> Infallible {
        loop {
            tokio::time::sleep(PULL_EVERY).await;
            let Some(guests) = &self.guests else { continue };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            for (name, backend) in &guests.room.config.backends {
                let is_time = backend
                    .pull_window
                    .is_some_and(|window| window.holds(now.as_secs()));
                if !is_time
                    || self.state().vms.is_at_work()
                    || image::missing(&guests.room, backend, None).await.is_ok()
                {
                    continue;
                }
                info!(backend = name, "fetching the image");
                match image::pull(&guests.room, backend).await {
                    Ok(()) => info!(backend = name, "the image is here"),
                    Err(why) => error!(backend = name, why, "could not fetch the image"),
                }
            }
        }
    }

    fn end_guest_job(
        &self,
        id: &JobId,
        outcome: &Outcome,
        clean: bool,
        usage: Usage,
        egress: Option<&EgressReport>,
    ) {
        info!(job = %id, %outcome, "job ended");
        let ending = Ending {
            outcome,
            clean,
            axes: "[]",
            usage,
            egress,
        };
        // Whatever becomes of the record, nobody goes on with it.
        self.pipeline.warden.forget(id);
        if let Err(error) = self.pipeline.ledger.finish(id, &ending, SystemTime::now()) {
            error!(job = %id, error = crate::chain(&error), "could not record the end");
        }
        self.tell();
    }

    /// Sends a job that this host cannot take as a native one to a guest, where its rule says so; false when it does
    /// not. What it was sent elsewhere for is `why`.
    pub(super) fn fall_back(self: &Arc<Self>, id: &JobId, spec: &JobSpec, why: &str) -> bool {
        let planner = self.pipeline.planner();
        let config = planner.config();
        let decision = crate::trust::decide(&config.trust, config.has_vm_backend(), &spec.origin);
        let decision = decision.fall_back(why, config.has_vm_backend());
        if decision.route != Route::Vm {
            return false;
        }
        let Ok(wanted) = self.wanted(&decision) else {
            return false;
        };
        let now = SystemTime::now();
        if let Err(error) = self.pipeline.ledger.reroute(id, Route::Vm, &decision.reason, now) {
            error!(job = %id, error = crate::chain(&error), "could not record where the job goes");
            return false;
        }
        info!(job = %id, reason = decision.reason, "the job goes to a guest");
        self.await_guest(id.clone(), spec.clone(), wanted);
        true
    }
}

/// macOS guests that Apple's kernel runs at once.
const APPLES_LIMIT: usize = 2;
