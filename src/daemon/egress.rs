//! The keeper of the packet filter: no job starts before it is verified for the job's account, and while jobs run it is
//! verified again and again.
//!
//! What is compared is the whole of the rules, and what is tried are packets of the account itself. On Linux the kernel
//! tells of every change to a table and to an address, so that a change is seen at once; the clock is for what no
//! system tells of. Rules that were changed are loaded again at once. If that fails, or packets get through all the
//! same, jobs are stopped, or with `on_loss = "alert"` go on and their results say so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{Config, OnLoss};
use crate::egress::{Blocked, BlockedDestination, EgressReport, Policy, Transport};
use crate::host::egress::hold::{Held, hold};
use crate::host::egress::{self, EgressError, Expected};
use crate::host::{Host, os};
use crate::slot::{Account, Slot};
use crate::warden::client::{Warden, WardenError};
use crate::warden::{Reply, Request};

/// How often the filter is verified while jobs run, whatever the system tells.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// How often rules that somebody changes again and again are loaded again in a row before they count as lost.
const TURNS: u32 = 10;

/// Incidents that are remembered of one job; somebody can change the rules as often as they like.
const INCIDENTS_MAX: usize = 100;

/// Destinations that are remembered of one slot; jobs can make up as many as they like.
const DESTINATIONS_MAX: usize = 256;

/// Why a job cannot be let onto the network.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The rules cannot be loaded or compared.
    #[error("the egress filter is not in force")]
    Filter(#[from] EgressError),
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
    on_loss: OnLoss,
}

#[derive(Debug)]
struct Shared {
    host: Host,
    config: Config,
    slots: Vec<Slot>,
    /// How many comparisons were begun.
    begun: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    expected: Expected,
    _held: Held,
    /// What was blocked of the job in each slot, and what the system said last.
    totals: BTreeMap<u32, Counts>,
    last: BTreeMap<u32, Counts>,
    /// The slots whose jobs run, with what happened to the filter meanwhile, oldest first.
    busy: BTreeMap<u32, Vec<String>>,
    /// The last comparison that came to an end: its number, and how the rules were found.
    compared: (u64, Found),
}

/// A job's leave to use the network, as long as this lives.
#[derive(Debug)]
pub struct Leave {
    shared: Arc<Shared>,
    slot: u32,
}

/// How the rules were found; either way they are as they should be afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    AsTheyShouldBe,
    Changed,
}

impl Keeper {
    /// Loads the rules for `slots`, or joins whoever has loaded the same.
    ///
    /// # Errors
    /// They cannot be loaded, or jobs run under others.
    pub fn start(host: &Host, config: &Config, slots: &[Slot]) -> Result<Self, EgressError> {
        let policy = Policy::new(
            &config.egress,
            &config.host.account,
            slots,
            &egress::surroundings(host)?,
        );
        let expected = egress::expected(host, &policy)?;
        let held = hold(host, &expected)?;
        let state = State {
            policy,
            expected,
            last: held
                .blocked
                .iter()
                .map(|(slot, blocked)| (*slot, blocked.clone().into()))
                .collect(),
            _held: held,
            totals: BTreeMap::new(),
            busy: BTreeMap::new(),
            compared: (0, Found::AsTheyShouldBe),
        };
        let shared = Shared {
            host: host.clone(),
            config: config.clone(),
            slots: slots.to_vec(),
            begun: AtomicU64::new(0),
            state: Mutex::new(state),
        };
        Ok(Self {
            shared: Arc::new(shared),
            lost: watch::Sender::new(None),
            on_loss: config.egress.on_loss,
        })
    }

    /// Verifies the filter for the account of `slot`, by comparing and by trying.
    ///
    /// # Errors
    /// It cannot be verified; the job must not start.
    pub async fn admit(&self, slot: &Slot, warden: &Warden) -> Result<Leave, KeeperError> {
        let mut accounts = vec![slot.account.clone()];
        let was_lost = self.why_lost().is_some();
        if was_lost {
            accounts.extend(self.shared.busy_accounts());
        }
        self.verify(accounts, warden).await?;
        if was_lost {
            // Nobody has looked since; otherwise the job would be stopped for what is over.
            self.found();
        }
        let mut state = self.shared.state();
        // What came before is not this job's.
        state.busy.insert(slot.index, Vec::new());
        state.totals.remove(&slot.index);
        Ok(Leave {
            slot: slot.index,
            shared: Arc::clone(&self.shared),
        })
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
    pub async fn watch(&self, warden: &Warden) {
        let mut changes = match os::network_changes() {
            Ok(sockets) => sockets.into_iter().filter_map(watched).collect(),
            Err(error) => {
                warn!(%error, "changes of the network are not told, so they are noticed by the clock");
                Vec::new()
            }
        };
        loop {
            let told = tokio::select! {
                () = changed(&mut changes) => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            let concerns_somebody = !self.shared.state().busy.is_empty() || self.why_lost().is_some();
            if told || concerns_somebody {
                self.look(warden).await;
            }
        }
    }

    /// Verifies once, and tells everyone when the filter is lost or there again.
    async fn look(&self, warden: &Warden) {
        let accounts = self.shared.busy_accounts();
        match self.verify(accounts, warden).await {
            Ok(()) => {
                if self.why_lost().is_some() {
                    self.found();
                }
            }
            // It kills every job itself.
            Err(KeeperError::Warden(WardenError::Gone)) => {}
            Err(failure) => {
                let why = crate::chain(&failure);
                error!(why, "the egress filter is lost");
                // It stays lost for as long as a job runs that nobody stops, and is one incident all the time.
                if self.why_lost().is_none() {
                    self.shared.state().note(&why);
                }
                self.lost.send_replace(Some(why));
            }
        }
    }

    /// Tells everyone that the filter is no longer lost.
    fn found(&self) {
        let incident = "the egress filter is in force again";
        info!("{incident}");
        self.shared.state().note(incident);
        self.lost.send_replace(None);
    }

    /// Compares and tries. Whoever changes the rules between the two, or while they are loaded again, is met at the
    /// next turn. What counts as lost is a canary that gets through rules in which nothing was wrong, twice.
    async fn verify(&self, accounts: Vec<Account>, warden: &Warden) -> Result<(), KeeperError> {
        let mut unexplained = 0;
        let mut turn = 1;
        loop {
            let shared = Arc::clone(&self.shared);
            let compared = tokio::task::spawn_blocking(move || shared.compare()).await;
            let compared = compared.map_err(|error| KeeperError::Canary(error.to_string()))?;
            let failure = match compared {
                Ok(found) => match self.fly(accounts.clone(), warden).await {
                    Err(failure @ KeeperError::Canary(_)) => {
                        unexplained += u32::from(found == Found::AsTheyShouldBe);
                        failure
                    }
                    done => return done,
                },
                Err(failure @ EgressError::Lost { .. }) => failure.into(),
                Err(failure) => return Err(failure.into()),
            };
            if unexplained > 1 || turn == TURNS {
                return Err(failure);
            }
            turn += 1;
        }
    }

    /// Tries the rules as these accounts.
    async fn fly(&self, accounts: Vec<Account>, warden: &Warden) -> Result<(), KeeperError> {
        if accounts.is_empty() {
            return Ok(());
        }
        match warden.ask(Request::Canary { accounts }, &[]).await? {
            Reply::Canary { attempts } => match attempts.iter().find(|attempt| !attempt.is_met()) {
                None => Ok(()),
                Some(attempt) => Err(KeeperError::Canary(format!(
                    "`{}` sends to {}/{} and gets {} instead of {} {}",
                    attempt.account,
                    attempt.to,
                    attempt.transport,
                    attempt.found,
                    attempt.wanted,
                    attempt.said
                ))),
            },
            other => Err(WardenError::Unexpected(Box::new(other)).into()),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy_accounts(&self) -> Vec<Account> {
        let state = self.state();
        let busy = self
            .slots
            .iter()
            .filter(|slot| state.busy.contains_key(&slot.index));
        busy.map(|slot| slot.account.clone()).collect()
    }

    /// Follows the network around this host, compares the rules and loads them again where they were changed. Of
    /// several who ask at the same time, one compares: an answer that was begun after the question is one to it.
    fn compare(&self) -> Result<Found, EgressError> {
        let asked = self.begun.load(Ordering::SeqCst);
        let mut state = self.state();
        if state.compared.0 > asked {
            return Ok(state.compared.1);
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let found = self.compare_now(&mut state)?;
        state.compared = (number, found);
        Ok(found)
    }

    fn compare_now(&self, state: &mut State) -> Result<Found, EgressError> {
        let around = egress::surroundings(&self.host)?;
        let policy = Policy::new(
            &self.config.egress,
            &self.config.host.account,
            &self.slots,
            &around,
        );
        if policy != state.policy {
            info!("the network around this host has changed; the egress rules follow");
            state.expected = egress::expected(&self.host, &policy)?;
            state.policy = policy;
            egress::load(&self.host, &state.expected)?;
        }
        match egress::verify(&self.host, &state.expected) {
            Ok(blocked) => {
                state.count(blocked);
                Ok(Found::AsTheyShouldBe)
            }
            Err(EgressError::Lost { why }) => {
                egress::load(&self.host, &state.expected)?;
                let blocked = egress::verify(&self.host, &state.expected)?;
                let incident = format!("the egress filter was lost and loaded again: {why}");
                warn!("{incident}");
                state.note(&incident);
                state.count(blocked);
                Ok(Found::Changed)
            }
            Err(error) => Err(error),
        }
    }
}

impl State {
    /// Adds what happened to the records of the jobs that run.
    fn note(&mut self, incident: &str) {
        for incidents in self.busy.values_mut() {
            if incidents.len() < INCIDENTS_MAX {
                incidents.push(incident.to_owned());
            }
        }
    }

    /// Adds up what the system counts. It starts anew with every loading, and forgets destinations after a while.
    fn count(&mut self, now: BTreeMap<u32, Blocked>) {
        let now: BTreeMap<u32, Counts> = now.into_iter().map(|(slot, now)| (slot, now.into())).collect();
        for (slot, now) in &now {
            let last = self.last.remove(slot).unwrap_or_default();
            self.totals.entry(*slot).or_default().add(&last, now);
        }
        self.last = now;
    }
}

/// What was blocked of one slot, to be added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counts {
    packets: u64,
    to: BTreeMap<(IpAddr, Transport, u16), u64>,
}

impl Counts {
    /// Adds what has come between `last` and `now`; all of `now` where the system began anew.
    fn add(&mut self, last: &Self, now: &Self) {
        let more = |last: u64, now: u64| now.checked_sub(last).unwrap_or(now);
        self.packets += more(last.packets, now.packets);
        for (to, packets) in &now.to {
            let packets = more(last.to.get(to).copied().unwrap_or_default(), *packets);
            if packets > 0 && (self.to.contains_key(to) || self.to.len() < DESTINATIONS_MAX) {
                *self.to.entry(*to).or_default() += packets;
            }
        }
    }
}

impl From<Blocked> for Counts {
    fn from(blocked: Blocked) -> Self {
        let to = |seen: BlockedDestination| ((seen.address, seen.transport, seen.port), seen.packets);
        Self {
            packets: blocked.packets,
            to: blocked.destinations.into_iter().map(to).collect(),
        }
    }
}

impl From<Counts> for Blocked {
    fn from(counts: Counts) -> Self {
        let seen = |((address, transport, port), packets)| BlockedDestination {
            address,
            transport,
            port,
            packets,
        };
        Self {
            packets: counts.packets,
            destinations: counts.to.into_iter().map(seen).collect(),
        }
    }
}

impl Leave {
    /// What egress came to for the job so far. Asks the system once more.
    pub async fn report(&self) -> EgressReport {
        let shared = Arc::clone(&self.shared);
        let asked = tokio::task::spawn_blocking(move || shared.compare()).await;
        let mut state = self.shared.state();
        if let Ok(Err(error)) = asked {
            let why = crate::chain(&KeeperError::from(error));
            warn!(why, "the egress filter could not be verified when the job ended");
            // The keeper may have seen it already, or not yet.
            if let Some(incidents) = state.busy.get_mut(&self.slot)
                && incidents.last() != Some(&why)
            {
                incidents.push(why);
            }
        }
        let counts = state.totals.remove(&self.slot).unwrap_or_default();
        EgressReport {
            blocked: counts.into(),
            incidents: state.busy.remove(&self.slot).unwrap_or_default(),
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.state().busy.remove(&self.slot);
    }
}

fn watched(socket: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has one descriptor all its life, and the `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.ok()
}

/// Waits until one of the sockets has something to say, and takes all of it.
async fn changed(sockets: &mut [AsyncFd<OwnedFd>]) {
    let waiting = sockets.iter_mut().map(|socket| Box::pin(drained(socket)));
    let mut waiting: Vec<_> = waiting.collect();
    std::future::poll_fn(|context| {
        let ready = waiting
            .iter_mut()
            .any(|one| one.as_mut().poll(context).is_ready());
        if ready {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// Waits until there is something to read, and reads everything.
async fn drained(socket: &mut AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return std::future::pending().await;
        };
        let mut buffer = [0; 8192];
        let mut got = false;
        // Too much at once is an error that is read like a message, and means a change as well.
        loop {
            match nix::unistd::read(ready.get_inner(), &mut buffer) {
                Ok(0) | Err(nix::errno::Errno::EAGAIN) => break,
                Ok(_) | Err(_) => got = true,
            }
        }
        ready.clear_ready();
        if got {
            return;
        }
    }
}
