//! Consuming a scale set: what is offered is looked at and acquired, and there are as many runners as GitHub says.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::{Set, SetError};
use crate::daemon::Daemon;
use crate::daemon::github::Source;
use crate::github::client::{ClientError, Refused, Retry};
use crate::github::demand::{Held, Ours, Stage, Waiting, unknown};
use crate::github::scale_set::{Backoff, Heard, Message, Session, choose, heard};
use crate::github::seen::{JobSeen, Rules};
use crate::github::ticket::Scope;
use crate::job::Repo;

/// The shortest time from one long poll that told nothing to the next, whatever its server takes for long.
const AT_LEAST: Duration = Duration::from_secs(1);

/// How soon offers are looked at again that something was in the way of.
const SOON: Duration = Duration::from_secs(2);

impl Daemon {
    /// Consumes every scale set, each for itself. Never returns.
    pub(in crate::daemon::github) async fn consume(self: &Arc<Self>, source: &Source) -> Infallible {
        let mut all = JoinSet::new();
        for scope in source.sets.keys() {
            all.spawn(Arc::clone(self).consume_one(scope.clone()));
        }
        let ready = async {
            loop {
                source.trees.ready().await;
                source.wake();
            }
        };
        tokio::select! {
            never = ready => never,
            ended = all.join_next() => match ended {
                Some(Ok(never)) => match never {},
                Some(Err(error)) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            },
        }
    }

    async fn consume_one(self: Arc<Self>, scope: Scope) -> Infallible {
        let Some((source, set)) = self
            .source
            .as_ref()
            .and_then(|source| Some((source, source.set(&scope)?)))
        else {
            return std::future::pending().await;
        };
        let mut backoff = Backoff::default();
        loop {
            let error = match set.attach(&source.config().runner_group).await {
                Ok(()) => self.attend(source, set, &mut backoff).await,
                Err(error) => error,
            };
            let why = crate::chain(&error);
            if set.now().trouble.replace(why.clone()).as_ref() != Some(&why) {
                warn!(%scope, error = why, "the scale set cannot be consumed");
            }
            self.tell();
            tokio::time::sleep(backoff.failed(chance())).await;
        }
    }

    /// Consumes messages for as long as the session lasts; why it does not.
    async fn attend(self: &Arc<Self>, source: &Source, set: &Set, backoff: &mut Backoff) -> SetError {
        let mut news = source.news.subscribe();
        let mut last = 0;
        loop {
            self.settle(source, set).await;
            let begun = Instant::now();
            let heard = match self.hear(source, set, (last, &mut news)).await {
                Ok(heard) => heard,
                Err(Refused { status, error, .. }) => {
                    // The token was renewed already, where that was all.
                    if heard(status.unwrap_or(0), true) == Heard::Reopen {
                        return SetError::Lost(error);
                    }
                    self.failing(set, &error);
                    tokio::time::sleep(backoff.failed(chance())).await;
                    continue;
                }
            };
            backoff.worked();
            if set.now().trouble.take().is_some() {
                info!(scope = %set.scope, "the scale set is consumed again");
            }
            source.sight().asked = Some(SystemTime::now());
            match heard {
                Some(message) => {
                    last = message.message_id;
                    if let Err(error) = set.take(source, &message).await {
                        return error;
                    }
                }
                None => tokio::time::sleep(AT_LEAST.saturating_sub(begun.elapsed())).await,
            }
        }
    }

    fn failing(&self, set: &Set, error: &ClientError) {
        let why = crate::chain(error);
        if set.now().trouble.replace(why.clone()).as_ref() != Some(&why) {
            warn!(scope = %set.scope, error = why, "the queue of the scale set does not answer");
        }
        self.tell();
    }

    /// Waits for a message, and meanwhile does what follows from what happens here. `None` when there is none yet.
    async fn hear(
        self: &Arc<Self>,
        source: &Source,
        set: &Set,
        (last, news): (i64, &mut watch::Receiver<()>),
    ) -> Result<Option<Message>, Refused> {
        loop {
            let capacity = self.capacity(source);
            let mut message =
                pin!(set.with_session(async |session| {
                    set.tenant.next_message(&session, last, capacity).await
                }));
            // Asked anew when there is another number to state; a message that is on its way comes again.
            while self.capacity(source) == capacity {
                let again = source.again(set);
                tokio::select! {
                    message = &mut message => return message,
                    // There is a sender for as long as there is a source.
                    Ok(()) = news.changed() => {}
                    () = at(again) => {}
                }
                self.settle(source, set).await;
            }
        }
    }

    /// How many runners a set may have.
    fn capacity(&self, source: &Source) -> u32 {
        if self.is_closed() || source.trees.why_none().is_some() {
            return 0;
        }
        u32::try_from(self.places().0).unwrap_or(u32::MAX)
    }

    /// Makes things as they should be, from how they stand: what is offered is acquired or not, and runners are made or
    /// withdrawn.
    async fn settle(self: &Arc<Self>, source: &Source, set: &Set) {
        let before = source.spent();
        let law = self.law(source);
        source.look_at_runs(set, &law.rules()).await;
        self.overtaken(source, &law);
        self.observe(source);
        self.act(source, &set.scope).await;
        if self.is_one_missing(source, set).await {
            // Jobs of an earlier session, of which no message tells any more.
            set.now().looked = Some(Instant::now());
            let law = self.law(source);
            source.look(&law.rules()).await;
            self.overtaken(source, &law);
            source.follow(set);
            self.observe(source);
            self.act(source, &set.scope).await;
        } else {
            source.forget();
        }
        let spent = source.spent().saturating_sub(before);
        set.now().pace = source.client.pace(spent);
        self.tell();
    }

    /// Whether the set has jobs that nobody knows here, and it is time to look for them.
    async fn is_one_missing(&self, source: &Source, set: &Set) -> bool {
        let (waiting, ours) = self.count(source, &set.scope).await;
        let missing = unknown(&waiting, &ours, set.wanted(taken(&ours)));
        let mut now = set.now();
        now.missing = missing > 0;
        let wait = source.config().poll.max(now.pace);
        now.missing && now.looked.is_none_or(|at| at.elapsed() >= wait)
    }

    /// Acquires what is offered, trusted and has a place; gives what has not.
    pub(in crate::daemon::github) async fn acquire(
        &self,
        source: &Source,
        set: &Set,
        (waiting, ours): (&[Waiting], &[Ours]),
    ) -> Vec<Held> {
        let offers: Vec<_> = set.now().offers.values().cloned().collect();
        if offers.is_empty() {
            set.now().is_open = false;
            return vec![];
        }
        let unmade = set.unmade(ours);
        let elsewhere: usize = source
            .sets
            .values()
            .filter(|other| other.scope != set.scope)
            .map(|other| other.unmade(&source.ours(&other.scope)))
            .sum();
        let (usable, at_work) = self.places();
        let room = usable.saturating_sub(at_work + unmade + elsewhere);
        // What could not be looked at is neither acquired nor declined.
        let unseen = set.now().unseen.clone();
        let seen = offers
            .iter()
            .filter(|(offer, _)| !unseen.contains(&(offer.repo.clone(), offer.run)))
            .map(|(offer, since)| (offer, since.elapsed()));
        let mut chosen = choose(seen, waiting, room);
        let mut over = std::mem::take(&mut chosen.decline);
        let mut is_open = chosen.unlisted > 0;
        if !chosen.acquire.is_empty() {
            match set.acquire(&chosen.acquire).await {
                Ok(acquired) => {
                    info!(scope = %set.scope, offered = chosen.acquire.len(), acquired, "jobs acquired");
                    over.append(&mut chosen.acquire);
                }
                // They stay on offer, and are asked for again.
                Err(Refused { error, .. }) => {
                    is_open = true;
                    warn!(scope = %set.scope, error = crate::chain(&error), "could not acquire jobs");
                }
            }
        }
        set.now().is_open = is_open;
        if !over.is_empty() {
            set.now().offers.retain(|request, _| !over.contains(request));
            if let Err(error) = set.save() {
                warn!(
                    error = crate::chain(&error),
                    "could not write down what is on offer"
                );
            }
        }
        chosen.held
    }
}

impl Set {
    /// Takes in a message and then deletes it: whatever happens between, it comes again, and changes nothing then.
    async fn take(&self, source: &Source, message: &Message) -> Result<(), SetError> {
        let news = message.read();
        if news.unreadable > 0 {
            warn!(scope = %self.scope, message = message.message_id, unreadable = news.unreadable,
                "a message of the scale set cannot be read; jobs that it offers stay for others");
        }
        if !news.unknown.is_empty() {
            debug!(scope = %self.scope, types = ?news.unknown, "unknown messages of the scale set");
        }
        let is_served =
            |repo: &Repo| source.config().serves.includes(repo) && source.scope(repo) == self.scope;
        let is_offered = {
            let mut now = self.now();
            if let Some(statistics) = message.statistics {
                now.statistics = statistics;
                now.acquired = 0;
            }
            let told: Vec<_> = news
                .runs
                .into_iter()
                .filter(|(repo, _)| is_served(repo))
                .collect();
            now.runs.extend(told.iter().cloned());
            now.fresh.extend(told);
            let offers: Vec<_> = news
                .offers
                .into_iter()
                .filter(|offer| is_served(&offer.repo))
                .collect();
            let is_offered = !offers.is_empty();
            for offer in offers {
                now.offers.entry(offer.request).or_insert((offer, Instant::now()));
            }
            is_offered
        };
        if is_offered {
            self.save()?;
        }
        let deleted = self
            .with_session(async |session| self.tenant.delete_message(&session, message.message_id).await)
            .await;
        if let Err(Refused { error, .. }) = deleted {
            // It comes again with another session, and changes nothing.
            debug!(scope = %self.scope, error = crate::chain(&error), "could not delete a message");
        }
        Ok(())
    }

    /// Acquires jobs; how many.
    async fn acquire(&self, requests: &[i64]) -> Result<usize, Refused> {
        let id = self.now().id.unwrap_or_default();
        let acquired = self
            .with_session(async |session| self.tenant.acquire_jobs(id, &session, requests).await)
            .await?
            .len();
        self.now().acquired += acquired;
        Ok(acquired)
    }

    /// Asks with the session, and once more with another token when its token is over.
    async fn with_session<T, F>(&self, ask: impl Fn(Session) -> F) -> Result<T, Refused>
    where
        F: Future<Output = Result<T, Refused>>,
    {
        let (id, session) = {
            let now = self.now();
            (now.id.unwrap_or_default(), now.session.clone())
        };
        let Some(session) = session else {
            return Err(ClientError::NotFound {
                asked: format!("session of the scale set {}", self.name),
                message: "there is none".to_owned(),
            }
            .into());
        };
        let refused = match ask(session.clone()).await {
            Err(refused) if heard(refused.status.unwrap_or(0), false) == Heard::Refresh => refused,
            answered => return answered,
        };
        debug!(scope = %self.scope, error = %refused.error, "the queue wants another token");
        let used = &session.message_queue_access_token;
        let newer = self.now().session.clone();
        let newer = newer.filter(|it| it.message_queue_access_token.expose() != used.expose());
        let fresh = match newer {
            // Somebody else was told the same, a moment ago.
            Some(newer) => newer,
            None => {
                let fresh = self.tenant.refresh_session(id, &session.session_id).await?;
                self.now().session = Some(fresh.clone());
                fresh
            }
        };
        ask(fresh).await
    }

    /// How many of its jobs have no runner here yet, not even one that waits for a slot.
    fn unmade(&self, ours: &[Ours]) -> usize {
        let taken = taken(ours);
        let acquired = self.now().acquired;
        (self.wanted(taken).least + acquired).saturating_sub(ours.len() - taken)
    }
}

impl Source {
    /// Looks at the runs that a message has just told of, or that something is on offer of; at all that messages told of as
    /// often as the poller looks.
    async fn look_at_runs(&self, set: &Set, rules: &Rules<'_>) {
        let runs: BTreeSet<(Repo, u64)> = {
            let mut now = set.now();
            let wait = self.config().poll.max(now.pace);
            let fresh = std::mem::take(&mut now.fresh);
            let mut runs = if now.asked.is_none_or(|at| at.elapsed() >= wait) {
                now.asked = Some(Instant::now());
                now.runs.clone()
            } else {
                fresh
            };
            let offered = now.offers.values();
            runs.extend(offered.map(|(offer, _)| (offer.repo.clone(), offer.run)));
            now.unseen.retain(|at| !runs.contains(at));
            runs
        };
        for at in runs {
            let (repo, run) = &at;
            let found = self.ask_run(repo, *run, rules).await;
            let mut sight = self.sight();
            match found {
                Ok(jobs) => {
                    sight.answers(repo.as_str());
                    if jobs.is_empty() {
                        set.now().runs.remove(&at);
                    }
                    let all = sight.jobs.entry(repo.clone()).or_default();
                    all.retain(|job| job.ticket.run != *run);
                    all.extend(jobs);
                }
                Err(error) if error.retry() == Retry::Never => {
                    // It may never be told of again, and what it offers stays for others.
                    sight.fails(repo.as_str(), &error);
                    if let Some(jobs) = sight.jobs.get_mut(repo) {
                        jobs.retain(|job| job.ticket.run != *run);
                    }
                    let mut now = set.now();
                    now.offers
                        .retain(|_, (offer, _)| (&offer.repo, offer.run) != (repo, *run));
                    now.runs.remove(&at);
                }
                Err(error) => {
                    sight.fails(repo.as_str(), &error);
                    set.now().unseen.insert(at);
                }
            }
        }
    }

    /// Asks for the jobs of a run, which there may be none of any more.
    async fn ask_run(&self, repo: &Repo, run: u64, rules: &Rules<'_>) -> Result<Vec<JobSeen>, ClientError> {
        match self.client.run(repo, run).await {
            Ok(run) => self.ask_jobs(repo, run, rules).await,
            Err(ClientError::NotFound { .. }) => Ok(vec![]),
            Err(error) => Err(error),
        }
    }

    /// Looks from now on at the runs that were found by looking through all.
    fn follow(&self, set: &Set) {
        let sight = self.sight();
        let found = sight
            .jobs
            .iter()
            .filter(|(repo, _)| self.scope(repo) == set.scope);
        let runs = found.flat_map(|(repo, jobs)| jobs.iter().map(|job| (repo.clone(), job.ticket.run)));
        set.now().runs.extend(runs);
    }

    /// When something must be done that nobody tells of: an attempt is due, GitHub did not tell of a run, or a job is
    /// looked for.
    fn again(&self, set: &Set) -> Option<Instant> {
        let now = Instant::now();
        let due = self.sight().claims.next(now);
        let state = set.now();
        let is_due = state.missing || !state.unseen.is_empty() || !state.runs.is_empty();
        let look = is_due.then_some(self.config().poll.max(state.pace));
        let offers = state.is_open.then_some(SOON.min(self.config().poll));
        let waits = look.into_iter().chain(offers);
        due.into_iter().chain(waits.map(|wait| now + wait)).min()
    }
}

/// How many of ours have a job, or have just had it.
pub(in crate::daemon::github) fn taken(ours: &[Ours]) -> usize {
    ours.iter().filter(|one| one.stage == Stage::Taken).count()
}

fn chance() -> u32 {
    getrandom::u32().unwrap_or_default()
}

/// Ends at `moment`, or never.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
