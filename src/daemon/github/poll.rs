//! Asking GitHub what waits, and handing over what should run here.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::earlier::{is_told, wasted};
use super::sets::taken;
use super::{Life, Sight, Source};
use crate::config::Serves;
use crate::daemon::Daemon;
use crate::github::api::runs::RunStatus;
use crate::github::client::{ClientError, Retry};
use crate::github::demand::{Ours, Stage, Step, Waiting, account, account_assigned};
use crate::github::run::Run;
use crate::github::runner::version::Event as Known;
use crate::github::seen::{JobSeen, Rules, RunSeen, wants_labels};
use crate::github::ticket::{Key, Scope, Ticket};
use crate::job::{JobId, Outcome, Repo};
use crate::trust::{Decision, DefaultRoute, Route};

/// Why a job of ours is over that nobody needed before it had a runner.
pub(super) const WITHDRAWN: &str = "another runner has the job, or nobody wants it any more";

/// Why one is that had a slot when the host was drained.
pub(super) const DRAINED: &str = "the daemon was drained before the runner was made";

/// The shortest time between two questions, however much there is to look at.
const AT_LEAST: Duration = Duration::from_secs(1);

impl Daemon {
    /// Serves GitHub, where it is configured. Never returns.
    pub async fn serve_github(self: &Arc<Self>) -> Infallible {
        let Some(source) = self.source.as_ref() else {
            return std::future::pending().await;
        };
        tokio::select! {
            never = source.trees.tend(&source.releases) => never,
            never = self.reap(source) => never,
            never = source.listen() => never,
            never = self.poll(source), if source.sets.is_empty() => never,
            never = self.consume(source), if !source.sets.is_empty() => never,
        }
    }

    async fn poll(self: &Arc<Self>, source: &Source) -> Infallible {
        let mut news = source.news.subscribe();
        loop {
            let before = source.spent();
            let law = self.law(source);
            let fresh = source.look(&law.rules()).await;
            if self.overtaken(source, &law) {
                continue;
            }
            let at_least = source
                .client
                .pace(source.spent().saturating_sub(before))
                .max(AT_LEAST);
            self.observe(source);
            for scope in source.scopes_of(&fresh) {
                self.act(source, &scope).await;
            }
            source.sight().asked = Some(SystemTime::now());
            self.tell();
            tokio::time::sleep(at_least).await;
            tokio::select! {
                () = tokio::time::sleep(source.pause().saturating_sub(at_least)) => {}
                // There is a sender for as long as there is a source.
                Ok(()) = news.changed() => {}
                () = source.trees.ready() => {}
            }
        }
    }

    /// Notes which of our runners have a job.
    pub(super) fn observe(&self, source: &Source) {
        let mut sight = source.sight();
        let Sight { jobs, lives, .. } = &mut *sight;
        let running: Vec<&JobSeen> = jobs
            .values()
            .flatten()
            .filter(|job| job.runner.is_some())
            .collect();
        for (id, life) in lives.iter_mut() {
            let has = running.iter().find(|job| {
                let runner = job.runner.as_ref().map(|(id, _)| *id);
                // Numbers are an owner's own.
                life.runner.is_some() && runner == life.runner && source.scope(&job.ticket.repo) == life.scope
            });
            if let Some(job) = has {
                self.took(source, (id, life), &job.ticket);
            }
        }
    }

    /// Notes that a runner has a job. It has one and no other from then on.
    pub(super) fn took(&self, source: &Source, (id, life): (&JobId, &mut Life), ticket: &Ticket) {
        life.stage = Stage::Taken;
        let is_new = life.has.send_if_modified(|has| {
            let is_new = has.as_ref() != Some(ticket);
            *has = Some(ticket.clone());
            is_new
        });
        if is_new {
            info!(job = %id, run = ticket.run, github_job = ticket.job, "runner has a job");
            if let Some(version) = life.version {
                source.trees.note(Known::TookJob(version));
            }
            if let Err(error) = self.pipeline.ledger.taken(id, ticket) {
                warn!(job = %id, error = crate::chain(&error), "could not record which job a runner has");
            }
        }
    }

    /// Makes, withdraws and tells for one class.
    pub(super) async fn act(self: &Arc<Self>, source: &Source, scope: &Scope) {
        let (waiting, ours) = self.count(source, scope).await;
        let (steps, held) = match source.set(scope) {
            None => account(&waiting, &ours),
            Some(set) => {
                let mut held = self.acquire(source, set, (&waiting, &ours)).await;
                let (steps, later) = account_assigned(&waiting, &ours, set.wanted(taken(&ours)));
                held.extend(later);
                (steps, held)
            }
        };
        {
            let keys: BTreeSet<Key> = waiting.iter().map(|job| job.ticket.key()).collect();
            let mut sight = source.sight();
            sight.held.retain(|old| !keys.contains(&old.job));
            sight.held.extend(held);
        }
        let mut seen: BTreeMap<Key, JobSeen> = source
            .waiting(scope)
            .into_iter()
            .map(|job| (job.ticket.key(), job))
            .collect();
        for job in waiting {
            if let Some(seen) = seen.get_mut(&job.ticket.key()) {
                seen.decision = job.decision;
            }
        }
        for step in steps {
            match step {
                Step::Make(key) => {
                    if let Some(job) = seen.get(&key) {
                        self.make(source, scope, job);
                    }
                }
                Step::Withdraw(id) => self.withdraw(source, &id, WITHDRAWN),
                Step::Tell { job: key, why } => {
                    if let Some(job) = seen.get(&key) {
                        self.write_down(source, job, &why);
                    }
                }
            }
        }
    }

    /// What waits in a class, and what we have there.
    pub(super) async fn count(&self, source: &Source, scope: &Scope) -> (Vec<Waiting>, Vec<Ours>) {
        let (mut jobs, shut) = loop {
            let law = self.law(source);
            let jobs = source.waiting(scope);
            let mut shut = BTreeMap::new();
            for job in &jobs {
                let repo = &job.ticket.repo;
                if !shut.contains_key(repo) {
                    shut.insert(repo.clone(), self.why_not_native(repo).await);
                }
            }
            if self.is_still(source, &law) {
                break (jobs, shut);
            }
        };
        for job in &mut jobs {
            let not_native = shut.get(&job.ticket.repo).and_then(Option::as_deref);
            job.decision = self.placed(source, scope, (job.decision.clone(), not_native));
        }
        let now = Instant::now();
        let mut sight = source.sight();
        for job in &jobs {
            self.remember(&mut sight, &job.ticket.key(), now);
            sight.routes.insert(job.ticket.key(), job.decision.route);
        }
        let waiting = jobs.into_iter().map(|job| {
            let key = job.ticket.key();
            Waiting {
                seen_for: sight
                    .since
                    .get(&key)
                    .map_or(Duration::ZERO, |since| now.duration_since(*since)),
                standing: sight.claims.standing(&key, now),
                is_told: sight.told.contains(&key),
                shut: self.why_not_now(source, job.decision.route).or_else(|| {
                    let not_native = shut.get(&job.ticket.repo).cloned().flatten();
                    not_native.filter(|_| job.decision.route == Route::Native)
                }),
                ticket: job.ticket,
                decision: job.decision,
            }
        });
        let waiting = waiting.collect();
        drop(sight);
        (waiting, source.ours(scope))
    }

    /// Where a job goes that may go where `decision` says, as this host is now; `not_native` is why no native job of its
    /// repository is let through.
    fn placed(
        &self,
        source: &Source,
        scope: &Scope,
        (decision, not_native): (Decision, Option<&str>),
    ) -> Decision {
        let decision = match not_native {
            Some(why) if decision.route == Route::Native && decision.fallback == Some(DefaultRoute::Vm) => {
                decision.fall_back(why, self.pipeline.planner().config().has_vm_backend())
            }
            Some(_) | None => decision,
        };
        if decision.route == Route::Vm && source.set(scope).is_some() {
            let why =
                "jobs of a scale set have native runners only\nhint: `github.acquire = \"poll\"` serves both";
            return decision.but(why);
        }
        self.in_guest(decision).0
    }

    /// Why nothing that goes this way is started now, whatever repository it is of.
    fn why_not_now(&self, source: &Source, route: Route) -> Option<String> {
        if self.is_closed() {
            return Some("the daemon starts no jobs: it is drained or stopping".to_owned());
        }
        if let Some(why) = self.pipeline.why_full() {
            return Some(why);
        }
        // Guests bring their own runner.
        source.trees.why_none().filter(|_| route == Route::Native)
    }

    /// Takes up a job that is seen for the first time since the start: the ledger knows what was tried before.
    fn remember(&self, sight: &mut Sight, key: &Key, now: Instant) {
        if sight.since.contains_key(key) {
            return;
        }
        sight.since.insert(key.clone(), now);
        let attempts = match self.pipeline.ledger.made_for(key) {
            Ok(attempts) => attempts,
            Err(error) => {
                warn!(error = crate::chain(&error), "could not look up earlier attempts");
                return;
            }
        };
        if attempts.last().is_some_and(is_told) {
            sight.told.insert(key.clone());
        }
        let failed: Vec<String> = attempts
            .iter()
            .filter_map(|attempt| wasted(attempt, key))
            .collect();
        sight.claims.resume(key, &failed, now);
    }

    /// Hands over a job of ours for a job of GitHub's.
    fn make(self: &Arc<Self>, source: &Source, scope: &Scope, job: &JobSeen) {
        let (decision, wanted) = self.in_guest(job.decision.clone());
        let spec = self.runner_spec(job, wanted.as_ref());
        // It stays where it is when it cannot be taken, and the next look finds it again.
        let id = match self.enter_ticket(job, &spec, (decision.route, &decision.reason)) {
            Ok(id) => id,
            Err(error) => {
                warn!(error = crate::chain(&error), "could not take a job of GitHub");
                return;
            }
        };
        let life = Life {
            made_for: job.ticket.clone(),
            scope: scope.clone(),
            in_guest: wanted.is_some(),
            runner: None,
            stage: Stage::NoSlot,
            version: None,
            has: watch::Sender::new(None),
        };
        source.sight().lives.insert(id.clone(), life);
        match wanted {
            Some(wanted) => self.await_guest(id, spec, wanted),
            None => self.enqueue(id, spec),
        }
    }

    /// Takes back one that waits for a slot.
    pub(super) fn withdraw(&self, source: &Source, id: &JobId, reason: &str) {
        if !self.unqueue(id) {
            return;
        }
        if let Some(life) = source.sight().lives.remove(id) {
            debug!(job = %id, github_job = life.made_for.job, "withdrawn");
        }
        let reason = reason.to_owned();
        self.end_unstarted(id, Outcome::Refused { reason });
    }

    /// Writes down that a job may not run here.
    fn write_down(&self, source: &Source, job: &JobSeen, why: &str) {
        match self.refuse_ticket(job, why) {
            Ok(_) => {
                source.sight().told.insert(job.ticket.key());
            }
            Err(error) => warn!(error = crate::chain(&error), "could not record a job of GitHub"),
        }
    }
}

/// Whether an error is about what was asked and not about asking.
fn is_of_one_run(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::NotFound { .. }
            | ClientError::Unprocessable { .. }
            | ClientError::Redirected { .. }
            | ClientError::Server { .. }
            | ClientError::NotGitHub { .. }
    )
}

impl Sight {
    /// Takes in that somebody's jobs cannot be asked for, and says so the first time.
    pub(super) fn fails(&mut self, name: &str, error: &ClientError) {
        let why = crate::chain(error);
        if self.failing.insert(name.to_owned(), why.clone()).is_none() {
            warn!(name, error = why, "GitHub does not tell which jobs wait");
        }
    }

    /// Takes in that they can.
    pub(super) fn answers(&mut self, name: &str) {
        if self.failing.remove(name).is_some() {
            info!(name, "GitHub answers again");
        }
    }
}

impl Source {
    /// Asks every repository; returns those that answered.
    pub(super) async fn look(&self, rules: &Rules<'_>) -> BTreeSet<Repo> {
        let repos = match self.repos().await {
            Ok(repos) => repos,
            Err(error) => {
                if let Serves::Org { org, .. } = &self.config().serves {
                    self.sight().fails(org, &error);
                }
                return BTreeSet::new();
            }
        };
        let mut answered = BTreeSet::new();
        for repo in &repos {
            let seen = self.ask(repo, rules).await;
            let mut sight = self.sight();
            match seen {
                Ok((jobs, strange)) => {
                    sight.jobs.insert(repo.clone(), jobs);
                    answered.insert(repo.clone());
                    match strange {
                        Some(error) => sight.fails(repo.as_str(), &error),
                        None => sight.answers(repo.as_str()),
                    }
                }
                Err(error) => {
                    if error.retry() == Retry::Never {
                        // It may never be told again what became of them.
                        sight.jobs.remove(repo);
                    }
                    sight.fails(repo.as_str(), &error);
                }
            }
        }
        {
            let mut sight = self.sight();
            sight.jobs.retain(|repo, _| repos.contains(repo));
            sight
                .failing
                .retain(|name, _| repos.iter().any(|repo| repo.as_str() == name));
        }
        self.forget();
        answered
    }

    /// Forgets what was known of jobs that are gone.
    pub(super) fn forget(&self) {
        let mut sight = self.sight();
        let now: BTreeSet<Key> = sight
            .jobs
            .values()
            .flatten()
            .map(|job| job.ticket.key())
            .collect();
        // A job may be missed once, when its run changes from one list to the other in between.
        let there = &now | &std::mem::replace(&mut sight.last, now.clone());
        sight.since.retain(|key, _| there.contains(key));
        sight.routes.retain(|key, _| there.contains(key));
        sight.told.retain(|key| there.contains(key));
        sight.held.retain(|held| there.contains(&held.job));
        sight.claims.keep(&there);
    }

    /// The repositories that are asked.
    async fn repos(&self) -> Result<BTreeSet<Repo>, ClientError> {
        match &self.config().serves {
            Serves::Repos(repos) => Ok(repos.clone()),
            Serves::Org { repos, .. } if !repos.is_empty() => Ok(repos.clone()),
            Serves::Org { org, .. } => {
                let seen = self.client.repositories().await?;
                let alive = seen.items.into_iter().filter(|repo| !repo.archived);
                let names = alive.map(|repo| repo.full_name);
                Ok(names
                    .filter(|repo| repo.owner().eq_ignore_ascii_case(org))
                    .collect())
            }
        }
    }

    /// Asks one repository. Jobs that others `need` are queued while their run is in progress, so both are asked for. A run
    /// that cannot be told of hides no other: its jobs are as they were when it last could, and the error is beside them.
    async fn ask(
        &self,
        repo: &Repo,
        rules: &Rules<'_>,
    ) -> Result<(Vec<JobSeen>, Option<ClientError>), ClientError> {
        let mut runs = BTreeMap::new();
        for status in [RunStatus::Queued, RunStatus::InProgress] {
            for run in self.client.runs(repo, status).await?.items {
                runs.insert(run.id, run);
            }
        }
        let (mut found, mut strange) = (Vec::new(), None);
        for run in runs.into_values() {
            let id = run.id;
            match self.ask_jobs(repo, run, rules).await {
                Ok(jobs) => found.extend(jobs),
                Err(error) if is_of_one_run(&error) => {
                    let sight = self.sight();
                    let known = sight.jobs.get(repo).into_iter().flatten();
                    found.extend(known.filter(|job| job.ticket.run == id).cloned());
                    strange = strange.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((found, strange))
    }

    /// Asks for the jobs of a run.
    pub(super) async fn ask_jobs(
        &self,
        repo: &Repo,
        run: Run,
        rules: &Rules<'_>,
    ) -> Result<Vec<JobSeen>, ClientError> {
        let jobs = self.client.jobs(repo, run.id).await?.items;
        let labels = self.labels_of(rules, repo, &run).await?;
        Ok(rules.sort(repo, &RunSeen { run, jobs, labels }))
    }

    /// Requests so far that counted.
    pub(super) fn spent(&self) -> u64 {
        let report = self.client.report();
        // The answer to a request that was counted before may come in between.
        report.requests.saturating_sub(report.unchanged)
    }

    /// The labels that all pull requests of a run have, where trust looks at them.
    pub(super) async fn labels_of(
        &self,
        rules: &Rules<'_>,
        repo: &Repo,
        run: &Run,
    ) -> Result<Vec<String>, ClientError> {
        if !wants_labels(rules.trust, repo) {
            return Ok(vec![]);
        }
        let mut common: Option<Vec<String>> = None;
        for pull in &run.pull_requests {
            let labels = self.client.pull_request_labels(repo, pull.number).await?;
            match &mut common {
                Some(common) => common.retain(|label| labels.contains(label)),
                None => common = Some(labels),
            }
        }
        Ok(common.unwrap_or_default())
    }

    /// The classes of which everything is known as it is now.
    fn scopes_of(&self, answered: &BTreeSet<Repo>) -> BTreeSet<Scope> {
        answered.iter().map(|repo| self.scope(repo)).collect()
    }

    /// What we have in a class.
    pub(super) fn ours(&self, scope: &Scope) -> Vec<Ours> {
        let sight = self.sight();
        let of_class = sight.lives.iter().filter(|(_, life)| life.scope == *scope);
        of_class.map(|(id, life)| life.ours(id)).collect()
    }

    /// The jobs that wait in a class. One that a runner of ours has does not, whatever GitHub said a moment ago.
    fn waiting(&self, scope: &Scope) -> Vec<JobSeen> {
        let sight = self.sight();
        let had: BTreeSet<Key> = sight
            .lives
            .values()
            .filter_map(|life| life.has.borrow().as_ref().map(Ticket::key))
            .collect();
        let jobs = sight.jobs.iter().filter(|(repo, _)| self.scope(repo) == *scope);
        jobs.flat_map(|(_, jobs)| jobs)
            .filter(|job| job.runner.is_none() && !had.contains(&job.ticket.key()))
            .cloned()
            .collect()
    }

    /// How long until GitHub is asked again.
    fn pause(&self) -> Duration {
        let sight = self.sight();
        let is_idle = sight.lives.is_empty() && sight.jobs.values().all(Vec::is_empty);
        let pause = if is_idle {
            self.config().idle_poll
        } else {
            self.config().poll
        };
        match sight.claims.next(Instant::now()) {
            Some(next) => pause.min(next.saturating_duration_since(Instant::now())),
            None => pause,
        }
    }
}
