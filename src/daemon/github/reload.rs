//! Another configuration for a source that goes on: what was seen is judged by it, runners that wait for a slot are taken
//! back where nobody serves their repository any more, and idle ones go there, or where others would be fenced in otherwise.
//! One that has a job is left alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Source;
use crate::config::{GitHub, Serves};
use crate::daemon::Daemon;
use crate::github::demand::Stage;
use crate::github::seen::Rules;
use crate::github::ticket::Scope;
use crate::job::plan::Planner;
use crate::job::{JobId, Repo};
use crate::trust::{self, Route};

/// What decides where jobs go, as it was when it was asked for.
#[derive(Debug)]
pub(super) struct Law {
    planner: Arc<Planner>,
    github: Arc<GitHub>,
}

impl Law {
    /// What jobs are judged by.
    pub(super) fn rules(&self) -> Rules<'_> {
        let config = self.planner.config();
        Rules {
            trust: &config.trust,
            has_vm: config.has_vm_backend(),
            labels: &self.github.labels,
        }
    }
}

impl Daemon {
    /// What decides now where jobs of a source go.
    pub(super) fn law(&self, source: &Source) -> Law {
        Law {
            planner: self.pipeline.planner(),
            github: source.config(),
        }
    }

    /// Whether it decides still.
    pub(super) fn is_still(&self, source: &Source, law: &Law) -> bool {
        self.pipeline.planner.is_still(&law.planner) && source.config.is_still(&law.github)
    }

    /// Judges anew what was seen, where it was judged by what does not hold any more; whether that was so.
    pub(super) fn overtaken(&self, source: &Source, law: &Law) -> bool {
        let is_overtaken = !self.is_still(source, law);
        if is_overtaken {
            source.judge_anew(&self.law(source));
        }
        is_overtaken
    }

    /// Ends once a runner that began under `law` should be given no job any more: nobody serves where it is registered, or one
    /// that is made now would be fenced in otherwise.
    pub(super) async fn superseded(&self, source: &Source, scope: &Scope, law: &Law) {
        let repo = match scope {
            Scope::Repo(repo) => Some(repo),
            Scope::Org(_) => None,
        };
        let fenced_otherwise = async {
            let mut planner = self.pipeline.planner.changes();
            // There is a sender for as long as there is a pipeline.
            while planner.borrow_and_update().plans_alike(&law.planner, repo)
                && planner.changed().await.is_ok()
            {}
        };
        tokio::select! {
            () = source.serves_no_more(scope) => {}
            () = fenced_otherwise => {}
        }
    }

    /// Lets the source go by another configuration, which applies already to everything else.
    pub(in crate::daemon) fn reload_source(&self, github: &GitHub) {
        let Some(source) = &self.source else { return };
        source.config.set(github.clone());
        if let Some(heard) = &source.heard {
            heard.set(named(&github.serves));
        }
        source.judge_anew(&self.law(source));
        for (id, repo) in source.unserved() {
            let reason = format!("`github.repos` does not name {repo} any more");
            self.withdraw(source, &id, &reason);
        }
        source.wake();
    }
}

/// The repositories that are named.
pub(super) fn named(serves: &Serves) -> BTreeSet<Repo> {
    match serves {
        Serves::Repos(repos) | Serves::Org { repos, .. } => repos.clone(),
    }
}

impl Source {
    /// Judges what was seen by other rules, as far as they take something away: what they allow beyond is found by the next
    /// look, which asks for all that it takes to judge.
    pub(super) fn judge_anew(&self, law: &Law) {
        let rules = law.rules();
        let mut sight = self.sight();
        let super::Sight { jobs, routes, .. } = &mut *sight;
        jobs.retain(|repo, _| law.github.serves.includes(repo));
        for job in jobs.values_mut().flatten() {
            if job.decision.route == Route::Refuse {
                continue;
            }
            job.decision = trust::decide(rules.trust, rules.has_vm, &job.origin);
            if let Some(route) = routes.get_mut(&job.ticket.key()) {
                *route = match (*route, job.decision.route) {
                    (Route::Native, now) => now,
                    (_, Route::Refuse) => Route::Refuse,
                    (before, _) => before,
                };
            }
        }
    }

    /// Our jobs that have no slot yet and were made for a repository that is not served any more.
    fn unserved(&self) -> Vec<(JobId, Repo)> {
        let config = self.config();
        let sight = self.sight();
        let unserved = sight
            .lives
            .iter()
            .filter(|(_, life)| life.stage == Stage::NoSlot && !config.serves.includes(&life.made_for.repo));
        unserved
            .map(|(id, life)| (id.clone(), life.made_for.repo.clone()))
            .collect()
    }

    /// Ends once no runner is wanted any more where this one is registered, whatever waits.
    pub(super) async fn serves_no_more(&self, scope: &Scope) {
        let mut config = self.config.changes();
        loop {
            let serves = super::scopes(&config.borrow_and_update()).contains(scope);
            // There is a sender for as long as there is a source.
            if !serves || config.changed().await.is_err() {
                return;
            }
        }
    }
}
