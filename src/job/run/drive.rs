//! One job on its way: the effects of the [state machine](crate::job::state), performed, and what happens, fed back.

mod again;
mod limits;
mod wait;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::runner::{self, Order, RunnerOrder, Said};
use super::status::Lines;
use super::{Ended, Pipeline, RunError};
use crate::daemon::egress::Leave;
use crate::egress::EgressReport;
use crate::github::runner::jit::Packed;
use crate::github::runner::listener::Exit;
use crate::job::ledger::{AcquisitionId, Usage};
use crate::job::output::{Copies, Pipes, Stream};
use crate::job::plan::{Planned, Planner, RunnerPlan};
use crate::job::state::{Effect, Event, State, StopWhy, step};
use crate::job::{Acquisition, JobId, JobSpec, Outcome};
use crate::sandbox::launch::{Confinement, LaunchPlan, Status};
use crate::slot::Slot;
use crate::warden::client::WardenError;
use crate::warden::{Reply, Request, RunnerSetup};
use crate::workspace::Workspace;

/// Every how many samples a running job's disk is measured as well, which takes longer.
const DISK_EVERY: u32 = 10;

/// How long room for a line in the ledger is waited for.
const ROOM_WITHIN: Duration = Duration::from_secs(10);

/// Between two tries.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// How long the sandbox may take from the launch to its readiness.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// One job on its way.
pub(super) struct Drive<'a> {
    pipeline: &'a Pipeline,
    /// As it was when the job began: another configuration is for other jobs.
    planner: Arc<Planner>,
    pub(super) id: &'a JobId,
    spec: &'a JobSpec,
    pub(super) slot: &'a Slot,
    stream: Stream,
    /// Whether another dispatcher is to find it when this one is killed.
    goes_on: bool,
    /// Newest last.
    held: Vec<(AcquisitionId, Acquisition)>,
    plan: Option<LaunchPlan>,
    copies: Copies,
    status: Option<Lines>,
    deadline: Option<Instant>,
    grace: Option<Instant>,
    /// Why it was told to end, once it was, and whether that left it no choice.
    stopping: Option<(StopWhy, bool)>,
    memory_peak_byte: Option<u64>,
    leftovers: Vec<String>,
    /// Its leave to use the network, where a packet filter gives it.
    leave: Option<Leave>,
    egress: Option<EgressReport>,
    /// What makes it GitHub's runner, what that is ordered to do, and how often it was started again.
    runner: Option<RunnerOrder>,
    ordered: Option<UnboundedReceiver<Order>>,
    relaunches: u32,
}

impl<'a> Drive<'a> {
    /// A job that has its slot and nothing else.
    pub(super) fn new(
        pipeline: &'a Pipeline,
        (id, spec): (&'a JobId, &'a JobSpec),
        slot: &'a Slot,
        stream: Stream,
    ) -> Self {
        Self {
            pipeline,
            planner: pipeline.planner(),
            id,
            spec,
            slot,
            stream,
            goes_on: false,
            held: vec![],
            plan: None,
            copies: Copies::default(),
            status: None,
            deadline: None,
            grace: None,
            stopping: None,
            memory_peak_byte: None,
            leftovers: vec![],
            leave: None,
            egress: None,
            runner: None,
            ordered: None,
            relaunches: 0,
        }
    }

    /// The same, with what another dispatcher needs to go on with it.
    pub(super) fn that_goes_on(self) -> Self {
        Self {
            goes_on: true,
            ..self
        }
    }

    /// The same, as GitHub's runner.
    pub(super) fn with_runner(self, runner: Option<(RunnerOrder, UnboundedReceiver<Order>)>) -> Self {
        let (runner, ordered) = runner.unzip();
        Self {
            runner,
            ordered,
            ..self
        }
    }
}

impl Drive<'_> {
    /// What there is to tell of a job that is done.
    pub(super) fn ended(self, outcome: Outcome) -> Ended {
        info!(job = %self.id, slot = self.slot.index, %outcome, "job ended");
        Ended {
            outcome,
            leftovers: self.leftovers,
            egress: self.egress,
        }
    }

    /// Feeds the state machine, which is in a state and is to be told of events, until the job is done.
    pub(super) async fn until_done(
        &mut self,
        (mut state, mut events): (State, VecDeque<Event>),
        cancel: &CancellationToken,
    ) -> Result<Outcome, RunError> {
        let mut samples = 0;
        loop {
            let event = match events.pop_front() {
                Some(event) => event,
                None => self.next_event(&state, cancel, &mut samples).await,
            };
            let Some(event) = self.translate(event, &state).await else {
                continue;
            };
            if matches!(event, Event::LimitExceeded { .. }) {
                // At once, and above all before the ledger needs room that it may be filling. What is killed twice is dead.
                events.extend(self.signal(false).await);
            }
            let (next, effects) = match step(&state, event) {
                Ok(taken) => taken,
                Err(rejected) => {
                    warn!(job = %self.id, %rejected);
                    continue;
                }
            };
            if let State::Stopping { why, killed } = &next
                && self.stopping.as_ref().is_none_or(|(_, before)| before != killed)
            {
                self.stopping = Some((why.clone(), *killed));
                self.remember();
            }
            if next.name() != state.name() && !matches!(next, State::Done { .. }) {
                self.enter(&next).await?;
            }
            state = next;
            for effect in effects {
                if let Effect::Report(outcome) = effect {
                    return Ok(outcome);
                }
                events.extend(self.perform(effect, &state).await?);
            }
        }
    }

    /// Writes down that a state is entered. Where there is no room for that, processes that are being killed may still take
    /// what is given for it, so it is tried for a while.
    async fn enter(&self, next: &State) -> Result<(), RunError> {
        let give_up = Instant::now() + ROOM_WITHIN;
        loop {
            let ledger = &self.pipeline.ledger;
            let now = SystemTime::now();
            let entered = match next {
                State::Scrubbing { outcome } => ledger.ending(self.id, outcome, now),
                _ => ledger.enter(self.id, next.name(), reason_of(next).as_deref(), now),
            };
            match entered {
                Err(error) if error.is_full() && Instant::now() < give_up => {
                    tokio::time::sleep(ROOM_PAUSE).await;
                }
                entered => return Ok(entered?),
            }
        }
    }

    /// Performs one effect; returns the event that answers it, where one does.
    async fn perform(&mut self, effect: Effect, state: &State) -> Result<Option<Event>, RunError> {
        match effect {
            Effect::AcquireWorkspace => self.acquire_workspace().await.map(Some),
            Effect::Launch => self.launch().await.map(Some),
            Effect::StopPolitely => Ok(self.signal(true).await),
            Effect::Kill => Ok(self.signal(false).await),
            Effect::ArmGrace => {
                self.grace = Some(Instant::now() + self.grace());
                Ok(None)
            }
            Effect::Scrub => {
                let newest_first: Vec<_> = self.held.drain(..).rev().collect();
                self.status = None;
                let leftovers = self
                    .pipeline
                    .undo(self.id, Some(&self.slot.account), &newest_first)
                    .await?;
                Ok(Some(Event::Scrubbed { leftovers }))
            }
            Effect::ReleaseSlot => self.settle(state, vec![]).await,
            Effect::QuarantineSlot { leftovers } => self.settle(state, leftovers).await,
            Effect::Report(_) => Ok(None),
        }
    }

    async fn settle(&mut self, state: &State, leftovers: Vec<String>) -> Result<Option<Event>, RunError> {
        let output_byte = if leftovers.is_empty() {
            std::mem::take(&mut self.copies).finish().await
        } else {
            // Somebody may still hold the pipe.
            0
        };
        self.pipeline.pressure.forget(self.id);
        if let State::Done { outcome, .. } = state {
            let usage = Usage {
                memory_peak_byte: self.memory_peak_byte,
                output_byte,
            };
            if let Some(leave) = self.leave.take() {
                self.egress = Some(leave.report().await);
            }
            self.pipeline.settle(
                self.id,
                Some(self.slot),
                (outcome, &leftovers),
                usage,
                self.egress.as_ref(),
            )?;
        }
        self.leftovers = leftovers;
        Ok(None)
    }

    async fn acquire_workspace(&mut self) -> Result<Event, RunError> {
        let pipeline = self.pipeline;
        let runner = self.runner.as_ref().map(|runner| RunnerPlan {
            build: runner.build,
            hook: runner.hook.as_deref(),
        });
        let planned = self
            .planner
            .plan((self.id, self.spec), runner, self.slot, pipeline.root);
        let Planned { launch, homebrew, .. } = match planned {
            Ok(planned) => planned,
            Err(error) => return Ok(Event::Refused(crate::chain(&error))),
        };
        if let Some(keeper) = &pipeline.egress {
            match keeper.admit(self.slot, &pipeline.warden).await {
                Ok(leave) => self.leave = Some(leave),
                Err(error) => return Ok(Event::Refused(crate::chain(&error))),
            }
        }
        let account = launch.account.clone();
        self.plan = Some(launch);
        self.acquire(Acquisition::Workspace)?;
        if let Some(order) = &homebrew {
            let workspace = Workspace::new(self.planner.data_dir(), self.id);
            if !self.planner.prefix(&workspace, order.slot).is_in(&workspace) {
                self.acquire(Acquisition::Homebrew { slot: order.slot })?;
            }
        }
        if self.runner.is_some() {
            let workspace = Workspace::new(self.planner.data_dir(), self.id);
            let slot = self.slot.index;
            if !self.planner.runner_place(&workspace, slot).is_in(&workspace) {
                self.acquire(Acquisition::Runner { slot })?;
            }
        }
        let request = Request::Prepare {
            job: self.id.clone(),
            account,
            homebrew,
            runner: self.runner.as_ref().map(|runner| {
                Box::new(RunnerSetup {
                    slot: self.slot.index,
                    build: runner.build.to_string(),
                    config: Packed::from(&runner.config),
                })
            }),
        };
        Ok(match pipeline.warden.ask(request, &[]).await {
            Ok(Reply::Prepared { note }) => {
                if let Some(note) = note {
                    warn!(job = %self.id, note, "Homebrew prefix not as configured");
                }
                Event::Prepared
            }
            Ok(other) => Event::FailedToStart(WardenError::Unexpected(Box::new(other)).to_string()),
            Err(error) => Event::FailedToStart(crate::chain(&error)),
        })
    }

    async fn launch(&mut self) -> Result<Event, RunError> {
        let Some(plan) = self.plan.clone() else {
            return Ok(Event::FailedToStart("there is no plan".into()));
        };
        let exclusive = self.pipeline.is_exclusive();
        if matches!(plan.confinement, Confinement::Seatbelt(_)) {
            self.acquire(Acquisition::Profile)?;
            if exclusive {
                let account = self.slot.account.clone();
                self.acquire(Acquisition::UserDomain { account })?;
            }
        }
        if plan.group.is_some() {
            self.acquire(Acquisition::Group)?;
        }
        self.acquire(Acquisition::Processes {
            uid: self.slot.account.uid,
            exclusive,
        })?;
        let launched = match self.start(plan).await {
            Ok(()) => tokio::time::timeout(READY_WITHIN, self.said()).await,
            Err(error) => return Ok(Event::FailedToStart(error)),
        };
        // A runner's time begins when it has a job.
        if self.runner.is_none() {
            self.deadline = self.limit();
            self.remember();
        }
        Ok(launched.unwrap_or_else(|_| Event::FailedToStart(not_ready())))
    }

    /// Makes the pipes and asks the warden for the process.
    async fn start(&mut self, plan: LaunchPlan) -> Result<(), String> {
        let failed = |error: io::Error| format!("could not make the job's pipes: {error}");
        let heard = self
            .runner
            .as_ref()
            .map(|runner| runner::heard(runner.said.clone()));
        let pipes = Pipes::open(&self.stream, heard).map_err(failed)?;
        let (said, status) = UnixStream::pair().map_err(failed)?;
        // Before anything of it runs, so that whoever follows finds all that there is.
        self.leave(&said, pipes.output.as_ref());
        self.status = Some(Lines::new(said.into()).map_err(failed)?);
        let [stdin, stdout, stderr] = &pipes.job;
        let descriptors = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), status.as_fd()];
        let launched = self
            .pipeline
            .warden
            .ask(Request::Launch(Box::new(plan)), &descriptors)
            .await;
        self.copies = pipes.hand_over();
        if let (Ok(Reply::Launched { pid }), Some(runner)) = (&launched, &self.runner) {
            // Nobody listens any more when the job is over.
            let _ = runner.said.send(Said::Launched { pid: *pid });
        }
        launched
            .map(|_| ())
            .map_err(|error| format!("could not start the sandbox: {}", crate::chain(&error)))
    }

    /// Until when the job may run, from now on.
    fn limit(&self) -> Option<Instant> {
        let own = self.spec.timeout_s.map_or(Duration::MAX, Duration::from_secs);
        Instant::now().checked_add(own.min(self.job_timeout()))
    }

    /// How long it may take to end that is asked to.
    fn grace(&self) -> Duration {
        let own = self.runner.as_ref().map(|runner| runner.grace);
        own.unwrap_or(self.planner.config().native.stop_grace)
    }

    fn job_timeout(&self) -> Duration {
        let config = self.planner.config();
        let own = config
            .repos
            .get(&self.spec.origin.repo)
            .and_then(|repo| repo.job_timeout);
        own.unwrap_or(config.native.job_timeout)
    }

    fn acquire(&mut self, what: Acquisition) -> Result<(), RunError> {
        let id = self.pipeline.ledger.acquire(self.id, &what, SystemTime::now())?;
        self.held.push((id, what));
        Ok(())
    }

    /// Signals the job's processes; a warden that cannot be asked has taken them with it.
    async fn signal(&mut self, politely: bool) -> Option<Event> {
        let request = Request::Signal {
            job: self.id.clone(),
            politely,
        };
        self.pipeline
            .warden
            .ask(request, &[])
            .await
            .err()
            .map(|error| Event::Lost(error.to_string()))
    }

    /// The next thing init says, as an event.
    async fn said(&mut self) -> Event {
        let line = match &mut self.status {
            Some(lines) => lines.next().await.ok().flatten(),
            None => std::future::pending().await,
        };
        let Some(line) = line else {
            self.status = None;
            return Event::Lost("the job's first process was killed from outside".into());
        };
        match serde_json::from_str(&line) {
            Ok(Status::Ready) => Event::Started,
            Ok(Status::StepFailed { step, detail }) => {
                Event::FailedToStart(format!("sandbox step `{step}` failed: {detail}"))
            }
            Ok(Status::NotExecuted { code, detail }) => {
                self.tell_not_executed(&detail);
                Event::Exited { code }
            }
            Ok(Status::Exited { code }) => Event::Exited { code },
            Ok(Status::Signalled { signal }) => Event::Signalled { signal },
            Err(error) => Event::Lost(format!("the sandbox said `{line}`: {error}")),
        }
    }

    /// What an event means for a runner, whose exit code says more than that of a command; `None` when the runner was
    /// started again, and goes on.
    async fn translate(&mut self, event: Event, state: &State) -> Option<Event> {
        let event = self.or_out_of_memory(event, state).await;
        let runs = matches!(state, State::Running | State::Stopping { .. });
        let Some(runner) = self.runner.as_ref().filter(|_| runs) else {
            return Some(event);
        };
        let exit = match event {
            Event::Exited { code } => Exit::Code(code.into()),
            Event::Signalled { signal } => Exit::Signal(signal),
            other => return Some(other),
        };
        let has_job = runner.has.borrow().is_some();
        let again = matches!(state, State::Running).then_some(self.relaunches);
        match runner::outcome(exit, has_job, again.unwrap_or(u32::MAX)) {
            Some(outcome) => Some(Event::RunnerEnded(outcome)),
            None => {
                self.relaunches += 1;
                info!(job = %self.id, relaunches = self.relaunches, "the runner is started again");
                let failed = self.relaunch().await.err();
                failed.map(|reason| Event::RunnerEnded(Outcome::Failed { reason }))
            }
        }
    }

    /// Starts the sandbox once more. The warden waits for the end of the last one.
    async fn relaunch(&mut self) -> Result<(), String> {
        let plan = self.plan.clone().ok_or("there is no plan")?;
        std::mem::take(&mut self.copies).finish().await;
        self.start(plan).await?;
        match tokio::time::timeout(READY_WITHIN, self.said()).await {
            Ok(Event::Started) => Ok(()),
            Ok(Event::FailedToStart(why) | Event::Lost(why)) => Err(why),
            Ok(_) => Err("the sandbox ended before it was ready".to_owned()),
            Err(_) => Err(not_ready()),
        }
    }

    /// Says in the job's own output why its command did not start.
    fn tell_not_executed(&self, detail: &str) {
        let program = self.spec.command.first().map(String::as_str).unwrap_or_default();
        let text = format!("ephemerd: cannot execute `{program}`: {detail}\n");
        let written = match &self.stream {
            Stream::Log { file, .. } => std::fs::File::options()
                .append(true)
                .open(file)
                .and_then(|mut log| io::Write::write_all(&mut log, text.as_bytes())),
            Stream::Own => io::Write::write_all(&mut io::stderr(), text.as_bytes()),
        };
        if let Err(error) = written {
            warn!(job = %self.id, %error, text);
        }
    }
}

/// Why a job did not start whose sandbox hangs.
fn not_ready() -> String {
    format!("the sandbox was not ready within {READY_WITHIN:?}")
}

/// What the ledger notes beside a state.
fn reason_of(state: &State) -> Option<String> {
    match state {
        State::Stopping { why, .. } => Some(Outcome::from(why.clone()).to_string()),
        State::Queued
        | State::Preparing
        | State::Launching
        | State::Running
        | State::Scrubbing { .. }
        | State::Done { .. } => None,
    }
}
