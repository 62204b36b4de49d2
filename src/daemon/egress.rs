//! The keeper of the packet filter: no job starts before it is verified for the job's account, and while jobs run it is
//! verified again and again.
//!
//! What is compared is the whole of the rules, and what is tried are packets of the account itself. On Linux the kernel
//! tells of every change to a table and to an address, so that a change is seen at once; the clock is for what no
//! system tells of. Rules that were changed are loaded again at once. If that fails, or packets get through all the
//! same, jobs are stopped, or with `on_loss = "alert"` go on and their results say so.

mod changes;
mod counts;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{Config, OnLoss};
use crate::egress::{Blocked, EgressReport, Ports};
use crate::host::egress::EgressError;
use crate::host::egress::filter::{Compared, Filter};
use crate::host::{Host, os};
use crate::slot::Slot;
use crate::warden::client::{Warden, WardenError};
use crate::warden::{Reply, Request};
use counts::Counts;

/// How often the filter is verified while jobs run, whatever the system tells.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// How often rules that somebody changes again and again are loaded again in a row before they count as lost.
const TURNS: u32 = 10;

/// How long the canary may take; what it tries takes milliseconds, and two seconds for each connection that is dropped.
const CANARY_WITHIN: Duration = Duration::from_secs(20);

/// Incidents that are remembered of one job; somebody can change the rules as often as they like.
const INCIDENTS_MAX: usize = 100;

/// Why a job cannot be let onto the network.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The rules cannot be loaded or compared.
    #[error("the egress filter is not in force")]
    Filter(#[from] EgressError),
    /// The same, as the warden tells it.
    #[error("the egress filter is not in force: {0}")]
    Told(String),
    /// They are loaded, but do not do what they should.
    #[error("the egress filter does not hold: {0}")]
    Canary(String),
    /// The warden is gone.
    #[error(transparent)]
    Warden(#[from] WardenError),
}

/// Keeps the filter.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    /// Why the filter is lost, while it is.
    lost: watch::Sender<Option<String>>,
    /// Held by whoever looks, so that what was found later is told later.
    looking: tokio::sync::Mutex<()>,
    /// What tells of changes, until it is listened to.
    changes: Mutex<Vec<OwnedFd>>,
    on_loss: OnLoss,
}

/// Who has the rules.
#[derive(Debug)]
pub enum Rules {
    /// This process, which is root.
    Ours(Arc<Mutex<Filter>>),
    /// The warden.
    Warden(Arc<Warden>),
}

#[derive(Debug)]
struct Shared {
    rules: Rules,
    /// Ports at which the rules treat loopback in a way of their own.
    avoid: Vec<Ports>,
    slots: Vec<Slot>,
    /// How many comparisons were begun.
    begun: AtomicU64,
    /// Held while the system is asked, which may take a while.
    state: tokio::sync::Mutex<State>,
    /// Held for a moment.
    jobs: Mutex<Jobs>,
}

#[derive(Debug)]
struct State {
    /// What the system counted last, by slot.
    last: BTreeMap<u32, Counts>,
    /// The last comparison that came to an end: its number, and how the rules were found.
    compared: (u64, Found),
}

/// The jobs that run.
#[derive(Debug, Default)]
struct Jobs {
    /// What was blocked of the job in each slot.
    totals: BTreeMap<u32, Counts>,
    /// The slots whose jobs run, with what happened to the filter meanwhile, oldest first.
    busy: BTreeMap<u32, Vec<String>>,
}

/// A job's leave to use the network, as long as this lives.
#[derive(Debug)]
pub struct Leave {
    shared: Arc<Shared>,
    slot: u32,
}

/// Said where no system tells of changes.
const NOT_TOLD: &str = "changes of the network are not told, so they are noticed by the clock";

impl Rules {
    async fn compare(&self) -> Result<Compared, KeeperError> {
        match self {
            Self::Ours(filter) => {
                let filter = Arc::clone(filter);
                let compare = move || filter.lock().unwrap_or_else(PoisonError::into_inner).compare();
                let compared = tokio::task::spawn_blocking(compare).await;
                Ok(compared.map_err(|panic| KeeperError::Told(panic.to_string()))??)
            }
            Self::Warden(warden) => match warden.ask(Request::Compare, &[]).await {
                Ok(Reply::Compared(compared)) => Ok(compared),
                Ok(Reply::Lost { why }) => Err(EgressError::Lost { why }.into()),
                Ok(other) => Err(WardenError::Unexpected(Box::new(other)).into()),
                Err(WardenError::Failed(why)) => Err(KeeperError::Told(why)),
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// How the rules were found; either way they are as they should be afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    AsTheyShouldBe,
    Changed,
}

impl Keeper {
    /// Loads the rules for `slots`, or joins whoever has loaded the same, in this process.
    ///
    /// # Errors
    /// They cannot be loaded, or jobs run under others.
    pub fn start(host: &Host, config: &Config, slots: &[Slot]) -> Result<Self, EgressError> {
        let filter = Filter::hold(host, config, slots)?;
        let before = filter.blocked_before().clone();
        let changes = os::network_changes().unwrap_or_else(|error| {
            warn!(%error, "{NOT_TOLD}");
            Vec::new()
        });
        let rules = Rules::Ours(Arc::new(Mutex::new(filter)));
        Ok(Self::new(config, slots, rules, (before, changes)))
    }

    /// Keeps the rules that the warden holds; `changes` is what tells of changes, and is opened by it, too.
    ///
    /// # Errors
    /// They are not in force.
    pub async fn join(
        config: &Config,
        slots: &[Slot],
        warden: &Arc<Warden>,
        changes: Vec<OwnedFd>,
    ) -> Result<Self, KeeperError> {
        let rules = Rules::Warden(Arc::clone(warden));
        let compared = rules.compare().await?;
        if changes.is_empty() {
            warn!("{NOT_TOLD}");
        }
        Ok(Self::new(config, slots, rules, (compared.blocked, changes)))
    }

    fn new(
        config: &Config,
        slots: &[Slot],
        rules: Rules,
        (blocked, changes): (BTreeMap<u32, Blocked>, Vec<OwnedFd>),
    ) -> Self {
        let last = blocked.into_iter().map(|(slot, blocked)| (slot, blocked.into()));
        let state = State {
            last: last.collect(),
            compared: (0, Found::AsTheyShouldBe),
        };
        let shared = Shared {
            rules,
            avoid: config.egress.local_ports(),
            slots: slots.to_vec(),
            begun: AtomicU64::new(0),
            state: tokio::sync::Mutex::new(state),
            jobs: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            lost: watch::Sender::new(None),
            looking: tokio::sync::Mutex::new(()),
            changes: Mutex::new(changes),
            on_loss: config.egress.on_loss,
        }
    }

    /// Verifies the filter for the account of `slot`, by comparing and by trying.
    ///
    /// # Errors
    /// It cannot be verified; the job must not start.
    pub async fn admit(&self, slot: &Slot, warden: &Warden) -> Result<Leave, KeeperError> {
        if self.why_lost().is_some() {
            // Nobody may have looked since; otherwise the job would be stopped for what is over.
            self.look(warden).await;
        }
        self.verify(warden, || vec![slot.clone()]).await?;
        Ok(self.leave(slot))
    }

    /// The leave of a job in `slot` that runs already, and whether the filter is verified for it. What happened to the filter
    /// meanwhile is in its record.
    pub async fn go_on(&self, slot: &Slot, warden: &Warden) -> (Leave, Result<(), KeeperError>) {
        let leave = self.leave(slot);
        let verified = self.verify(warden, || vec![slot.clone()]).await;
        (leave, verified)
    }

    fn leave(&self, slot: &Slot) -> Leave {
        let mut jobs = self.shared.jobs();
        // What came before is not this job's.
        jobs.busy.insert(slot.index, Vec::new());
        jobs.totals.remove(&slot.index);
        Leave {
            slot: slot.index,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Why the filter is not in force, while it is not.
    pub fn why_lost(&self) -> Option<String> {
        self.lost.borrow().clone()
    }

    /// Waits until the filter is lost and running jobs must stop; why.
    pub async fn lost(&self) -> String {
        let mut lost = self.lost.subscribe();
        loop {
            let why = lost.borrow_and_update().clone();
            match (why, self.on_loss) {
                (Some(why), OnLoss::Stop) => return why,
                (_, _) => {
                    if lost.changed().await.is_err() {
                        std::future::pending().await
                    }
                }
            }
        }
    }

    /// Verifies the filter whenever something changes and, while jobs run, every [`INTERVAL`]. Never returns.
    pub async fn watch(&self, warden: &Warden) -> Infallible {
        let told = std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut changes = changes::sockets(told);
        loop {
            let told = tokio::select! {
                () = changes::changed(&mut changes) => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            let concerns_somebody = !self.shared.jobs().busy.is_empty() || self.why_lost().is_some();
            if told || concerns_somebody {
                self.look(warden).await;
            }
        }
    }

    /// Verifies once, and tells everyone when the filter is lost or there again.
    async fn look(&self, warden: &Warden) {
        let _one_at_a_time = self.looking.lock().await;
        // What is lost is there again only if it is for every slot.
        let of_everyone = self.why_lost().is_some();
        let verified = self.verify(warden, || self.shared.slots(of_everyone)).await;
        match verified {
            Ok(()) => {
                if of_everyone {
                    let incident = "the egress filter is in force again";
                    info!("{incident}");
                    self.shared.jobs().note(incident);
                    self.lost.send_replace(None);
                }
            }
            // It kills every job itself.
            Err(KeeperError::Warden(WardenError::Gone)) => {}
            Err(failure) => {
                let why = crate::chain(&failure);
                error!(why, "the egress filter is lost");
                // It stays lost for as long as a job runs that nobody stops, and is one incident all the time.
                if self.why_lost().is_none() {
                    self.shared.jobs().note(&why);
                }
                self.lost.send_replace(Some(why));
            }
        }
    }

    /// Compares, and tries as the accounts of `slots`. Whoever changes the rules between the two, or while they are loaded again,
    /// is met at the next turn. What counts as lost is a canary that gets through rules in which nothing was wrong,
    /// twice. A canary that could not be flown says nothing: a job of its account may just be ending, which ends
    /// everything of the account.
    async fn verify(&self, warden: &Warden, slots: impl Fn() -> Vec<Slot>) -> Result<(), KeeperError> {
        let mut unexplained = 0;
        let mut turn = 1;
        loop {
            let failure = match self.shared.compare().await {
                Ok(found) => match self.fly(slots(), warden).await {
                    Err(failure @ KeeperError::Canary(_)) => {
                        unexplained += u32::from(found == Found::AsTheyShouldBe);
                        failure
                    }
                    Err(failure @ KeeperError::Warden(WardenError::Failed(_))) => failure,
                    done => return done,
                },
                Err(failure @ KeeperError::Filter(EgressError::Lost { .. })) => failure,
                Err(failure @ KeeperError::Warden(WardenError::Gone)) => return Err(failure),
                Err(failure) => {
                    unexplained += 1;
                    failure
                }
            };
            if unexplained > 1 || turn == TURNS {
                return Err(failure);
            }
            turn += 1;
        }
    }

    /// Tries the rules as the accounts of these slots.
    async fn fly(&self, slots: Vec<Slot>, warden: &Warden) -> Result<(), KeeperError> {
        if slots.is_empty() {
            return Ok(());
        }
        let avoid = self.shared.avoid.clone();
        let asked = warden.ask(Request::Canary { slots, avoid }, &[]);
        let answered = tokio::time::timeout(CANARY_WITHIN, asked).await;
        let answered =
            answered.map_err(|_| KeeperError::Canary(format!("no answer within {CANARY_WITHIN:?}")))?;
        match answered? {
            Reply::Canary { attempts } => match attempts.iter().find(|attempt| !attempt.is_met()) {
                None => Ok(()),
                Some(attempt) => Err(KeeperError::Canary(attempt.to_string())),
            },
            other => Err(WardenError::Unexpected(Box::new(other)).into()),
        }
    }
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slots whose jobs run, or every one.
    fn slots(&self, of_everyone: bool) -> Vec<Slot> {
        let jobs = self.jobs();
        let wanted = self
            .slots
            .iter()
            .filter(|slot| of_everyone || jobs.busy.contains_key(&slot.index));
        wanted.cloned().collect()
    }

    /// Compares the rules. Of several who ask at the same time, one compares: an answer that was begun after the question
    /// is one to it.
    async fn compare(&self) -> Result<Found, KeeperError> {
        let asked = self.begun.load(Ordering::SeqCst);
        let mut state = self.state.lock().await;
        if state.compared.0 > asked {
            return Ok(state.compared.1);
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let compared = self.rules.compare().await?;
        if compared.followed {
            info!("the network around this host has changed; the egress rules follow");
        }
        let found = match &compared.lost {
            None => Found::AsTheyShouldBe,
            Some(why) => {
                let incident = format!("the egress filter was lost and loaded again: {why}");
                warn!("{incident}");
                self.jobs().note(&incident);
                Found::Changed
            }
        };
        self.count(&mut state, compared.blocked);
        state.compared = (number, found);
        Ok(found)
    }

    /// Adds up what the system counts.
    fn count(&self, state: &mut State, now: BTreeMap<u32, Blocked>) {
        let now: BTreeMap<u32, Counts> = now.into_iter().map(|(slot, now)| (slot, now.into())).collect();
        let mut jobs = self.jobs();
        for (slot, now) in &now {
            let last = state.last.remove(slot).unwrap_or_default();
            jobs.totals.entry(*slot).or_default().add(&last, now);
        }
        state.last = now;
    }
}

impl Jobs {
    /// Adds what happened to the records of the jobs that run.
    fn note(&mut self, incident: &str) {
        for incidents in self.busy.values_mut() {
            if incidents.len() < INCIDENTS_MAX {
                incidents.push(incident.to_owned());
            }
        }
    }
}

impl Leave {
    /// What egress came to for the job so far. Asks the system once more.
    pub async fn report(&self) -> EgressReport {
        let asked = self.shared.compare().await;
        let mut jobs = self.shared.jobs();
        if let Err(error) = asked {
            let why = crate::chain(&error);
            warn!(why, "the egress filter could not be verified when the job ended");
            // The keeper may have seen it already, or not yet.
            if let Some(incidents) = jobs.busy.get_mut(&self.slot)
                && incidents.last() != Some(&why)
            {
                incidents.push(why);
            }
        }
        let counts = jobs.totals.remove(&self.slot).unwrap_or_default();
        EgressReport {
            blocked: counts.into(),
            incidents: jobs.busy.remove(&self.slot).unwrap_or_default(),
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.jobs().busy.remove(&self.slot);
    }
}
