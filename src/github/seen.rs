//! What GitHub was seen to have, sorted: which jobs wait that our runners could be given, where each may run, and which
//! jobs have one of our runners.

use super::run::{self, Job, Run};
use super::ticket::Ticket;
use crate::job::{Origin, Repo};
use crate::trust::{self, Decision, Route, TrustConfig};

/// A run with its jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSeen {
    /// The run.
    pub run: Run,
    /// The jobs of its latest attempt.
    pub jobs: Vec<Job>,
    /// The labels of its pull request, where trust asks for them.
    pub labels: Vec<String>,
}

/// A job that our runners could be given, or that one of them has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSeen {
    /// The job.
    pub ticket: Ticket,
    /// Where it comes from.
    pub origin: Origin,
    /// Where it may run, and why.
    pub decision: Decision,
    /// The runner that has it, by number and name; `None` while it waits.
    pub runner: Option<(u64, String)>,
}

/// What decides where jobs go.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// `[trust]`
    pub trust: &'a TrustConfig,
    /// Whether there is anywhere else to go.
    pub has_vm: bool,
    /// The labels of our runners.
    pub labels: &'a [String],
}

impl Rules<'_> {
    /// Whether a runner with our labels could be given a job that wants these. GitHub compares without case. A job
    /// without labels is not for runners of one's own.
    pub fn fits(&self, wanted: &[String]) -> bool {
        let is_ours = |wanted: &String| self.labels.iter().any(|ours| ours.eq_ignore_ascii_case(wanted));
        !wanted.is_empty() && wanted.iter().all(is_ours)
    }

    /// Where a run of `repo` comes from, and where its jobs may run.
    pub fn judge(&self, repo: &Repo, seen: &RunSeen) -> (Origin, Decision) {
        let RunSeen { run, labels, .. } = seen;
        let judged = run::origin(run, repo, labels).map(|origin| {
            let decision = trust::decide(self.trust, self.has_vm, &origin);
            (origin, decision)
        });
        judged.unwrap_or_else(|error| nobodys(repo, run, error.to_string()))
    }

    /// The jobs of a run of `repo` that concern us. A run that says nothing trust could go by is nobody's: its jobs are
    /// refused, with the reason.
    pub fn sort(&self, repo: &Repo, seen: &RunSeen) -> Vec<JobSeen> {
        let (origin, decision) = self.judge(repo, seen);
        let RunSeen { run, jobs, .. } = seen;
        let concerns = |job: &&Job| {
            let waits = job.is_queued() && self.fits(&job.labels);
            waits || (job.status == "in_progress" && job.runner().is_some())
        };
        let seen = |job: &Job| JobSeen {
            ticket: ticket(repo, run, job),
            origin: origin.clone(),
            decision: decision.clone(),
            runner: job.runner().map(|(id, name)| (id, name.to_owned())),
        };
        jobs.iter().filter(concerns).map(seen).collect()
    }
}

/// What a job is called here.
pub fn ticket(repo: &Repo, run: &Run, job: &Job) -> Ticket {
    Ticket {
        repo: repo.clone(),
        run: job.run_id,
        attempt: job.run_attempt,
        job: job.id,
        name: job.name.clone(),
        pull: run.pull_requests.first().map(|pull| pull.number),
        url: job.url().to_owned(),
    }
}

/// The origin of a run that trust cannot look at, and the refusal.
fn nobodys(repo: &Repo, run: &Run, why: String) -> (Origin, Decision) {
    let origin = Origin {
        repo: repo.clone(),
        event: run.event.clone(),
        head: None,
        branch: None,
        labels: vec![],
        actor: None,
    };
    let decision = Decision {
        route: Route::Refuse,
        rule: "no rule".to_owned(),
        chain: vec![why.clone()],
        fallback: None,
        vm: crate::vm::VmChoice::default(),
        reason: why,
    };
    (origin, decision)
}

/// Whether trust looks at the labels of pull requests of `repo`.
pub fn wants_labels(trust: &TrustConfig, repo: &Repo) -> bool {
    let asks =
        |rule: &&trust::TrustRule| rule.pattern.covers(repo) && rule.conditions.require_label.is_some();
    trust.repos.iter().any(|rule| asks(&rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{Conditions, DefaultRoute, TrustRule};
    use serde_json::{Value, json};

    fn trust(conditions: Conditions) -> TrustConfig {
        TrustConfig {
            default: DefaultRoute::Refuse,
            repos: vec![TrustRule {
                pattern: "acme/*".parse().unwrap(),
                route: Route::Native,
                conditions,
                fallback: crate::trust::DefaultRoute::Refuse,
                vm: crate::vm::VmChoice::default(),
            }],
        }
    }

    fn seen(run: Value, jobs: Value) -> RunSeen {
        let mut whole = json!({
            "id": 77, "run_attempt": 2, "event": "push", "status": "queued", "head_branch": "main",
            "repository": {"full_name": "acme/app"}, "head_repository": {"full_name": "acme/app"},
            "actor": {"login": "alice"}, "triggering_actor": {"login": "alice"},
        });
        for (key, value) in run.as_object().unwrap() {
            whole[key] = value.clone();
        }
        RunSeen {
            run: serde_json::from_value(whole).unwrap(),
            jobs: serde_json::from_value(jobs).unwrap(),
            labels: vec![],
        }
    }

    fn sorted(seen: &RunSeen) -> Vec<JobSeen> {
        let trust = trust(Conditions::default());
        let labels = ["self-hosted", "Eph"].map(str::to_owned);
        let rules = Rules {
            trust: &trust,
            has_vm: false,
            labels: &labels,
        };
        rules.sort(&"acme/app".parse().unwrap(), seen)
    }

    fn job(id: u64, status: &str, labels: &[&str], runner: Option<u64>) -> Value {
        json!({"id": id, "run_id": 77, "run_attempt": 2, "name": "build", "status": status, "labels": labels,
            "runner_id": runner, "runner_name": runner.map(|id| format!("r{id}")),
            "html_url": format!("https://github.com/acme/app/actions/runs/77/job/{id}")})
    }

    #[test]
    fn jobs_count_that_wait_for_our_labels_or_have_a_runner() {
        let jobs = json!([
            job(1, "queued", &["self-hosted", "EPH"], None),
            job(2, "queued", &["eph"], Some(0)),
            job(3, "queued", &["self-hosted", "linux"], None),
            job(4, "queued", &[], None),
            job(5, "waiting", &["eph"], None),
            job(6, "in_progress", &["eph"], Some(9)),
            job(7, "completed", &["eph"], Some(9)),
            job(8, "in_progress", &["eph"], None),
        ]);
        let found = sorted(&seen(json!({}), jobs));
        let told: Vec<_> = found
            .iter()
            .map(|job| (job.ticket.job, job.runner.clone()))
            .collect();
        assert_eq!(told, [(1, None), (2, None), (6, Some((9, "r9".to_owned())))]);
        assert!(found.iter().all(|job| job.decision.route == Route::Native));
    }

    #[test]
    fn a_ticket_says_where_to_look() {
        let run =
            json!({"event": "pull_request", "pull_requests": [{"number": 12, "base": {"ref": "main"}}]});
        let found = sorted(&seen(run, json!([job(1, "queued", &["eph"], None)])));
        let Ticket {
            run,
            attempt,
            job,
            pull,
            url,
            ..
        } = &found[0].ticket;
        assert_eq!((*run, *attempt, *job, *pull), (77, 2, 1, Some(12)));
        assert_eq!(url, "https://github.com/acme/app/actions/runs/77/job/1");
    }

    #[test]
    fn a_page_that_is_none_is_not_passed_on() {
        let mut one = job(1, "queued", &["eph"], None);
        one["html_url"] = json!("javascript:alert(1)");
        assert_eq!(sorted(&seen(json!({}), json!([one])))[0].ticket.url, "");
    }

    #[test]
    fn jobs_of_a_fork_of_a_deleted_one_and_of_a_run_of_somebody_else_are_not_native() {
        let jobs = json!([job(1, "queued", &["eph"], None)]);
        for run in [
            json!({"event": "pull_request", "head_repository": {"full_name": "eve/app"}}),
            json!({"event": "pull_request", "head_repository": null}),
            json!({"repository": {"full_name": "eve/app"}}),
        ] {
            let found = sorted(&seen(run.clone(), jobs.clone()));
            assert_ne!(found[0].decision.route, Route::Native, "{run}");
            assert!(!found[0].decision.reason.is_empty());
        }
    }

    #[test]
    fn labels_of_a_pull_request_are_looked_at_only_where_a_rule_asks_for_one() {
        let repo = "acme/app".parse().unwrap();
        assert!(!wants_labels(&trust(Conditions::default()), &repo));
        let asking = Conditions {
            require_label: Some("ci".to_owned()),
            ..Conditions::default()
        };
        assert!(wants_labels(&trust(asking.clone()), &repo));
        assert!(!wants_labels(&trust(asking), &"other/app".parse().unwrap()));
    }
}
