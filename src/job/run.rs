//! The driver: performs the effects of the [state machine](super::state) for one native job, from slot to
//! clean slot, and feeds it what happens.

mod drive;
pub mod memo;
pub mod pressure;
pub mod runner;
mod status;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::ledger::{AcquisitionId, Ending, Ledger, LedgerError, Usage};
use super::output::Stream;
use super::plan::Planner;
use super::state::{Event, State};
use super::{Acquisition, JobId, JobSpec, Outcome};
use crate::config::Accounts;
use crate::daemon::egress::Keeper;
use crate::egress::EgressReport;
use crate::host::Free;
use crate::latest::Latest;
use crate::sandbox::axes::AxisReport;
use crate::slot::{Account, Slot};
use crate::warden::client::{Warden, WardenError};
use crate::warden::{Reply, Request};
use drive::Drive;
use memo::Resumed;
use pressure::Pressure;
pub use runner::{Order, RunnerOrder, Said};

/// How often a running job's memory is measured.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// The outcome of a job whose daemon ended.
pub const DAEMON_ENDED: &str = "the daemon ended before the job did";

/// The outcome of a job that had no slot yet when its daemon stopped.
pub const DAEMON_STOPPED: &str = "the daemon stopped before the job had a slot";

/// Why a job was left as it is, for the next start to take up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The ledger cannot be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The warden is gone.
    #[error(transparent)]
    Warden(#[from] WardenError),
}

/// What all jobs share.
#[derive(Debug)]
pub struct Pipeline {
    /// Makes launch plans; a job goes on with the one that it began with.
    pub planner: Latest<Planner>,
    /// Remembers.
    pub ledger: Ledger,
    /// Does.
    pub warden: Arc<Warden>,
    /// What this host enforces, recorded with every job.
    pub axes: Vec<AxisReport>,
    /// What running jobs use.
    pub pressure: Pressure,
    /// Whether jobs run as accounts of their own.
    pub root: bool,
    /// Whether workspaces are kept for a look instead of removed.
    pub keep: bool,
    /// Keeps the packet filter, where jobs need one.
    pub egress: Option<Keeper>,
}

/// How a job ended, for whoever waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The outcome.
    pub outcome: Outcome,
    /// What was left of it; the slot is in quarantine then.
    pub leftovers: Vec<String>,
    /// What it was kept from, where a packet filter does that.
    pub egress: Option<EgressReport>,
}

impl Pipeline {
    /// Runs one job that trust routed to this host, in a slot nobody else uses, and returns when the slot is
    /// clean again or in quarantine.
    ///
    /// # Errors
    /// The ledger cannot be written, or the warden is gone. Then nothing more is acquired, and what was is undone
    /// at the next start.
    pub async fn run(
        &self,
        job: (&JobId, &JobSpec),
        slot: &Slot,
        stream: Stream,
        cancel: &CancellationToken,
    ) -> Result<Ended, RunError> {
        self.begin(Drive::new(self, job, slot, stream), cancel).await
    }

    /// Runs one job as [`Pipeline::run`] does, but one that another dispatcher goes on with when this one is killed; one that is
    /// GitHub's runner with what that takes, instead of its command, and with what orders it to end.
    ///
    /// # Errors
    /// As there.
    pub async fn run_as(
        &self,
        (id, spec): (&JobId, &JobSpec),
        runner: Option<(RunnerOrder, UnboundedReceiver<Order>)>,
        slot: &Slot,
        stream: Stream,
        cancel: &CancellationToken,
    ) -> Result<Ended, RunError> {
        let drive = Drive::new(self, (id, spec), slot, stream).with_runner(runner);
        self.begin(drive.that_goes_on(), cancel).await
    }

    async fn begin(&self, mut drive: Drive<'_>, cancel: &CancellationToken) -> Result<Ended, RunError> {
        self.ledger.claim(drive.id, drive.slot, SystemTime::now())?;
        let begin = (State::Queued, [Event::SlotGranted].into());
        let outcome = drive.until_done(begin, cancel).await?;
        Ok(drive.ended(outcome))
    }

    /// Goes on with a job that an earlier dispatcher has launched, and returns as [`Pipeline::run_as`] does. One that is
    /// GitHub's runner comes with what that takes.
    ///
    /// # Errors
    /// As there.
    pub async fn resume(
        &self,
        id: &JobId,
        resumed: Resumed,
        runner: Option<(RunnerOrder, UnboundedReceiver<Order>)>,
        (stream, cancel): (Stream, &CancellationToken),
    ) -> Result<Ended, RunError> {
        let (spec, slot) = (resumed.spec.clone(), resumed.slot.clone());
        let mut drive = Drive::new(self, (id, &spec), &slot, stream).that_goes_on();
        let begin = match drive.go_on(resumed, runner).await {
            Ok(begin) => begin,
            Err(why) => (State::Launching, [Event::Lost(why)].into()),
        };
        let outcome = drive.until_done(begin, cancel).await?;
        Ok(drive.ended(outcome))
    }

    /// Tears down what an earlier process left of a job, from the ledger alone, with the code every job ends
    /// with. What is left of its guests is known already, and so may be how it ended.
    ///
    /// # Errors
    /// The ledger cannot be written, or the warden is gone.
    pub async fn recover(
        &self,
        id: &JobId,
        slot: Option<&Slot>,
        (open, of_guests): (Vec<(AcquisitionId, Acquisition)>, Vec<String>),
        ending: Option<Outcome>,
    ) -> Result<Ended, RunError> {
        let usage = Usage::default();
        let mut leftovers = self.undo(id, slot.map(|slot| &slot.account), &open).await?;
        leftovers.extend(of_guests);
        let outcome = ending.unwrap_or_else(|| Outcome::Failed {
            reason: DAEMON_ENDED.to_owned(),
        });
        self.settle(id, slot, (&outcome, &leftovers), usage, None)?;
        Ok(Ended {
            outcome,
            leftovers,
            egress: None,
        })
    }

    /// Runs one job as [`Pipeline::run`] does, where no daemon keeps the packet filter meanwhile.
    ///
    /// # Errors
    /// As there.
    pub async fn run_alone(
        &self,
        job: (&JobId, &JobSpec),
        slot: &Slot,
        stream: Stream,
        cancel: &CancellationToken,
    ) -> Result<Ended, RunError> {
        tokio::select! {
            ended = self.run(job, slot, stream, cancel) => ended,
            never = self.keep_egress() => match never {},
        }
    }

    /// Keeps the packet filter as it should be, where jobs need one. Never returns.
    pub async fn keep_egress(&self) -> Infallible {
        match &self.egress {
            Some(keeper) => keeper.watch(&self.warden).await,
            None => std::future::pending().await,
        }
    }

    /// What plans jobs that begin now, and the configuration that it goes by.
    pub fn planner(&self) -> Arc<Planner> {
        self.planner.get()
    }

    /// Whether a slot's account is nobody else's.
    fn is_exclusive(&self) -> bool {
        self.root && self.planner().config().native.accounts == Accounts::PerSlot
    }

    /// What is free where jobs are, as far as it can be told.
    pub(crate) fn free(&self) -> Option<Free> {
        match crate::host::free(self.planner().data_dir()) {
            Ok(free) => Some(free),
            Err(error) => {
                warn!(%error, "could not look what is free");
                None
            }
        }
    }

    /// Why no job should start for now: the host has less free than it keeps.
    pub(crate) fn why_full(&self) -> Option<String> {
        pressure::why_full(self.free()?, self.planner().config().host.floors)
    }

    /// What a job uses, after a while; `None` when it cannot be measured.
    async fn measure(&self, id: &JobId, slot: &Slot, disk: bool) -> Option<crate::warden::Usage> {
        tokio::time::sleep(SAMPLE_EVERY).await;
        self.usage(id, slot, disk).await
    }

    /// What a job uses; `None` when it cannot be measured.
    async fn usage(&self, id: &JobId, slot: &Slot, disk: bool) -> Option<crate::warden::Usage> {
        let request = Request::Usage {
            job: id.clone(),
            uid: self.is_exclusive().then_some(slot.account.uid),
            disk,
        };
        match self.warden.ask(request, &[]).await {
            Ok(Reply::Usage(usage)) => Some(usage),
            Ok(_) | Err(_) => None,
        }
    }

    /// Undoes acquisitions, given newest first, and verifies; returns what is left.
    pub(crate) async fn undo(
        &self,
        id: &JobId,
        account: Option<&Account>,
        newest_first: &[(AcquisitionId, Acquisition)],
    ) -> Result<Vec<String>, RunError> {
        let shared = self.planner().config().native.accounts == Accounts::Single;
        let request = Request::Scrub {
            job: id.clone(),
            account: account.filter(|_| self.root && !shared).cloned(),
            acquisitions: newest_first.iter().map(|(_, what)| what.clone()).collect(),
            keep: self.keep,
        };
        let (undone, leftovers) = match self.warden.ask(request, &[]).await {
            Ok(Reply::Scrubbed { undone, leftovers }) => (undone, leftovers),
            Ok(other) => (0, vec![WardenError::Unexpected(Box::new(other)).to_string()]),
            // What could not even be looked at is neither clean nor left: the next start takes it up.
            Err(error @ (WardenError::Gone | WardenError::Send(_))) => return Err(error.into()),
            Err(error) => (0, vec![format!("could not scrub: {}", crate::chain(&error))]),
        };
        for (acquisition, _) in &newest_first[..undone.min(newest_first.len())] {
            self.ledger.released(*acquisition, SystemTime::now())?;
        }
        Ok(leftovers)
    }

    /// Records the end of a job and, where it left something, the quarantine of its slot.
    fn settle(
        &self,
        id: &JobId,
        slot: Option<&Slot>,
        (outcome, leftovers): (&Outcome, &[String]),
        usage: Usage,
        egress: Option<&EgressReport>,
    ) -> Result<(), RunError> {
        let now = SystemTime::now();
        if let Some(slot) = slot.filter(|_| !leftovers.is_empty()) {
            let reason = format!("job {id} left {}", leftovers.join(", "));
            warn!(job = %id, slot = slot.index, reason, "slot in quarantine");
            self.ledger.quarantine(slot.index, &reason, now)?;
        }
        let axes = serde_json::to_string(&self.axes).unwrap_or_else(|_| "[]".into());
        let ending = Ending {
            outcome,
            clean: leftovers.is_empty(),
            axes: &axes,
            usage,
            egress,
        };
        self.ledger.finish(id, &ending, now)?;
        self.warden.forget(id);
        Ok(())
    }
}
