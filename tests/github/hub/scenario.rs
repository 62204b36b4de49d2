//! What tests do to a hub, and what they can see of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Hub;
use super::auth::permissions;
use super::rest::archive_hash;
use super::scale_sets::{MessageFault, ScaleSet};
use super::state::{
    Installation, Job, JobSpec, Phase, PullRequest, Repository, Run, Runner, RunnerGroup, Scope, State, Step,
    Token, random_hex,
};

/// What the App of the tests may do; enough for everything that ephemerd asks.
const ENOUGH: &str = "actions:write,administration:write,organization_self_hosted_runners:write,pull_requests:read,metadata:read";

/// What makes a run.
#[derive(Debug, Clone)]
pub(crate) struct Trigger {
    /// The repository, `owner/name`; it is made if it does not exist.
    pub(crate) repository: String,
    /// The event, such as `push`.
    pub(crate) event: String,
    /// Where the commit is from; `None` is a fork that is deleted.
    pub(crate) head_repository: Option<String>,
    pub(crate) head_branch: String,
    pub(crate) actor: String,
    /// The labels of the pull request, if it is about one.
    pub(crate) pull_request: Option<Vec<String>>,
}

impl Trigger {
    /// A push to the main branch.
    pub(crate) fn push(repository: &str) -> Self {
        let (repository, text) = (repository.to_owned(), str::to_owned);
        Self {
            head_repository: Some(repository.clone()),
            repository,
            event: text("push"),
            head_branch: text("main"),
            actor: text("alice"),
            pull_request: None,
        }
    }

    /// A pull request from a branch of the same repository.
    pub(crate) fn pull_request(repository: &str, head: &str, labels: &[&str]) -> Self {
        let labels = labels.iter().map(|it| (*it).to_owned()).collect();
        Self {
            event: "pull_request".into(),
            head_branch: head.to_owned(),
            pull_request: Some(labels),
            ..Self::push(repository)
        }
    }

    /// A pull request from a fork, by the owner of the fork.
    pub(crate) fn fork_pull_request(repository: &str, fork: &str) -> Self {
        let actor = fork.split('/').next().unwrap_or_default().to_owned();
        Self {
            head_repository: Some(fork.to_owned()),
            actor,
            ..Self::pull_request(repository, "patch-1", &[])
        }
    }
}

impl JobSpec {
    /// A job with one step that succeeds.
    pub(crate) fn new(name: &str, labels: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            labels: labels.iter().map(|it| (*it).to_owned()).collect(),
            steps: vec![Step {
                run: "true".into(),
                always: false,
            }],
            env: BTreeMap::new(),
            waiting: false,
        }
    }
}

impl State {
    /// A fresh hub: the default runner group, and an installation of the App for every repository.
    pub(super) fn begin(&mut self, url: String) {
        self.url = url;
        self.last_id = 1_000;
        self.admin_life_s = 3_600;
        self.token_life_s = 3_600;
        self.long_poll = Duration::from_secs(1);
        self.runner_version = "2.336.0".into();
        self.fork_approval = "all_external_contributors".into();
        self.groups.insert(
            1,
            RunnerGroup {
                name: "Default".into(),
                repositories: None,
                allows_public: true,
            },
        );
        self.installations.insert(
            9,
            Installation {
                repositories: None,
                permissions: permissions(ENOUGH),
            },
        );
    }

    fn ensure_repository(&mut self, name: &str, fork: bool) {
        if !self.repositories.contains_key(name) {
            let id = self.next_id();
            self.repositories.insert(
                name.to_owned(),
                Repository {
                    id,
                    private: !fork,
                    fork,
                },
            );
        }
    }

    fn start(&mut self, trigger: Trigger, specs: Vec<JobSpec>) -> u64 {
        let Trigger {
            repository,
            event,
            head_repository,
            head_branch,
            actor,
            pull_request,
        } = trigger;
        self.ensure_repository(&repository, false);
        if let Some(head) = head_repository.as_ref().filter(|it| **it != repository) {
            self.ensure_repository(head, true);
        }
        let head_sha = format!("{}00000000", random_hex());
        let number = pull_request.map(|labels| {
            let number = self.next_id();
            let pull = PullRequest {
                labels,
                author: actor.clone(),
                head_repository: head_repository.clone(),
                head_branch: head_branch.clone(),
                head_sha: head_sha.clone(),
            };
            self.pull_requests.insert((repository.clone(), number), pull);
            number
        });
        let (id, created_s, triggering_actor) = (self.next_id(), self.now_s(), actor.clone());
        // `pull_request_target` runs the base's workflow on the base's commit.
        let on_base = event == "pull_request_target";
        let head_branch = if on_base { "main".to_owned() } else { head_branch };
        self.runs.insert(
            id,
            Run {
                id,
                repository,
                event,
                head_repository,
                head_branch,
                head_sha,
                actor,
                triggering_actor,
                attempt: 1,
                pull_request: number,
                created_s,
                cancelled: false,
            },
        );
        for spec in specs {
            self.add_job(id, spec);
        }
        id
    }

    fn add_job(&mut self, run: u64, spec: JobSpec) -> u64 {
        let (id, created_s, attempt) = (self.next_id(), self.now_s(), self.runs[&run].attempt);
        let phase = if spec.waiting {
            Phase::Waiting
        } else {
            Phase::Queued
        };
        self.jobs.insert(
            id,
            Job {
                id,
                run,
                attempt,
                spec,
                phase,
                conclusion: None,
                runner: None,
                created_s,
                started_s: None,
                completed_s: None,
                acquired_by: None,
                handed_out: 0,
            },
        );
        id
    }
}

/// What people and GitHub do.
impl Hub {
    /// Makes a repository; those that a run needs are made by themselves, private unless they are forks.
    pub(crate) fn repository(&self, name: &str, private: bool) {
        self.inner.change(|state| {
            state.ensure_repository(name, false);
            state.repositories.get_mut(name).expect("it was made").private = private;
        });
    }

    /// Starts a run with any jobs; gives its id.
    pub(crate) fn launch(&self, trigger: Trigger, jobs: Vec<JobSpec>) -> u64 {
        self.inner.change(|state| state.start(trigger, jobs))
    }

    /// A push whose one job wants these labels.
    pub(crate) fn push(&self, repository: &str, labels: &[&str]) -> u64 {
        self.launch(Trigger::push(repository), vec![JobSpec::new("build", labels)])
    }

    /// A push with a matrix of `count` jobs.
    pub(crate) fn matrix(&self, repository: &str, count: u32, labels: &[&str]) -> u64 {
        let jobs = (1..=count).map(|it| JobSpec::new(&format!("build ({it})"), labels));
        self.launch(Trigger::push(repository), jobs.collect())
    }

    /// A pull request from the same repository; `marks` are its own labels.
    pub(crate) fn pull_request(&self, repository: &str, head: &str, labels: &[&str], marks: &[&str]) -> u64 {
        self.launch(
            Trigger::pull_request(repository, head, marks),
            vec![JobSpec::new("build", labels)],
        )
    }

    /// A pull request from a fork.
    pub(crate) fn fork_pull_request(&self, repository: &str, fork: &str, labels: &[&str]) -> u64 {
        self.launch(
            Trigger::fork_pull_request(repository, fork),
            vec![JobSpec::new("build", labels)],
        )
    }

    /// The same for a workflow that runs on `pull_request_target`.
    pub(crate) fn pull_request_target(&self, repository: &str, fork: &str, labels: &[&str]) -> u64 {
        let trigger = Trigger {
            event: "pull_request_target".into(),
            ..Trigger::fork_pull_request(repository, fork)
        };
        self.launch(trigger, vec![JobSpec::new("build", labels)])
    }

    /// Adds a job to a run, as when the job that it `needs` has ended.
    pub(crate) fn add_job(&self, run: u64, spec: JobSpec) -> u64 {
        self.inner.change(|state| state.add_job(run, spec))
    }

    /// Approves a job that waits.
    pub(crate) fn approve(&self, job: u64) {
        self.inner
            .change(|state| state.jobs.get_mut(&job).expect("the job exists").phase = Phase::Queued);
    }

    /// Cancels a run.
    pub(crate) fn cancel(&self, run: u64) {
        self.inner.change(|state| state.cancel_run(run));
    }

    /// Runs a job again in somebody's name; gives the new job.
    pub(crate) fn rerun(&self, job: u64, actor: &str) -> u64 {
        self.inner
            .change(|state| state.rerun_job(job, actor))
            .expect("its run has ended")
    }

    /// Deletes a fork: runs from it no longer say where they are from.
    pub(crate) fn delete_fork(&self, fork: &str) {
        self.inner.change(|state| {
            state.repositories.remove(fork);
        });
    }

    /// A personal token with permissions such as `actions:read,administration:write`, for some repositories or all.
    pub(crate) fn personal_token(&self, granted: &str, repositories: Option<&[&str]>) -> String {
        let repositories: Option<BTreeSet<_>> =
            repositories.map(|all| all.iter().map(|it| (*it).to_owned()).collect());
        self.inner.change(|state| {
            let (text, expires_s) = (state.secret("github_pat_"), i64::MAX);
            state.tokens.insert(
                text.clone(),
                Token {
                    app: false,
                    repositories,
                    permissions: permissions(granted),
                    expires_s,
                    revoked: false,
                },
            );
            text
        })
    }

    /// A personal token that may do everything.
    pub(crate) fn any_token(&self) -> String {
        self.personal_token(ENOUGH, None)
    }

    /// Changes what installation 9 of the App may do.
    pub(crate) fn installation(&self, granted: &str, repositories: Option<&[&str]>) {
        let repositories = repositories.map(|all| all.iter().map(|it| (*it).to_owned()).collect());
        self.inner.change(|state| {
            state.installations.insert(
                9,
                Installation {
                    repositories,
                    permissions: permissions(granted),
                },
            )
        });
    }

    /// Revokes every token that was given out.
    pub(crate) fn revoke_tokens(&self) {
        self.inner
            .change(|state| state.tokens.values_mut().for_each(|it| it.revoked = true));
    }

    /// Adds a runner group for some repositories, or all; gives its id.
    pub(crate) fn runner_group(&self, name: &str, repositories: Option<&[&str]>, allows_public: bool) -> u64 {
        let repositories = repositories.map(|all| all.iter().map(|it| (*it).to_owned()).collect());
        self.inner.change(|state| {
            let id = state.next_id();
            state.groups.insert(
                id,
                RunnerGroup {
                    name: name.to_owned(),
                    repositories,
                    allows_public,
                },
            );
            id
        })
    }

    /// Sets the hub's clock ahead of the host's.
    pub(crate) fn set_clock_ahead_s(&self, seconds: i64) {
        self.inner.change(|state| state.clock_ahead_s = seconds);
    }

    /// How long polls are held when there is nothing to say: a second, unless a test wants less.
    pub(crate) fn set_long_poll(&self, longest: Duration) {
        self.inner.change(|state| state.long_poll = longest);
    }

    /// How long tokens of installations are good that are given out from now on: an hour, unless a test wants less.
    pub(crate) fn set_token_life_s(&self, seconds: i64) {
        self.inner.change(|state| state.token_life_s = seconds);
    }

    /// How long the administrators' tokens of scale sets are good.
    pub(crate) fn set_admin_life_s(&self, seconds: i64) {
        self.inner.change(|state| state.admin_life_s = seconds);
    }

    /// Whether runners stay registered and busy after their job, as GitHub lets them for tens of seconds. Turning it
    /// off ends it for those that are.
    pub(crate) fn set_stays_busy(&self, stays: bool) {
        self.inner.change(|state| {
            state.stays_busy = stays;
            if !stays {
                state.runners.retain(|_, it| !it.spent || it.job.is_some());
            }
        });
    }

    /// GitHub notices that a runner is gone: its job fails, and it is registered no more.
    pub(crate) fn lose(&self, runner: u64) {
        self.inner.change(|state| {
            if let Some(job) = state.runners.get(&runner).and_then(|it| it.job) {
                state.finish(job, "failure");
            }
            state.runners.remove(&runner);
        });
    }

    /// GitHub takes a job back from the scale set that acquired it and ran it on no runner: for the set it is over and
    /// canceled, for everybody it is queued again.
    pub(crate) fn take_back(&self, job: u64) {
        self.inner.change(|state| state.take_back(job));
    }

    /// Spoils the next message of every scale set.
    pub(crate) fn spoil_message(&self, fault: MessageFault) {
        self.inner
            .change(|state| state.scale_sets.values_mut().for_each(|it| it.faults.push(fault)));
    }
}

/// What a test can see.
impl Hub {
    /// A job.
    pub(crate) fn job(&self, id: u64) -> Job {
        self.inner.lock().jobs.get(&id).expect("the job exists").clone()
    }

    /// A run.
    pub(crate) fn run(&self, id: u64) -> Run {
        self.inner.lock().runs.get(&id).expect("the run exists").clone()
    }

    /// The jobs of a run's latest attempt.
    pub(crate) fn jobs_of(&self, run: u64) -> Vec<u64> {
        self.inner.lock().latest_jobs(run).map(|job| job.id).collect()
    }

    /// Every registered runner.
    pub(crate) fn runners(&self) -> Vec<Runner> {
        self.inner.lock().runners.values().cloned().collect()
    }

    /// The registered runners that no listener stands behind: what a daemon must not leave.
    pub(crate) fn ghosts(&self) -> Vec<Runner> {
        self.runners()
            .into_iter()
            .filter(|it| it.session.is_none())
            .collect()
    }

    /// The scale sets.
    pub(crate) fn scale_sets(&self) -> BTreeMap<u64, ScaleSet> {
        self.inner.lock().scale_sets.clone()
    }

    /// The hash of a runner's archive, as the notes of its release give it.
    pub(crate) fn archive_hash(&self, platform: &str) -> String {
        archive_hash(&self.inner.lock().runner_version, platform)
    }

    /// Whether jobs of a repository may go to runners of a scope and group.
    pub(crate) fn may_use(&self, scope: &Scope, group: u64, repository: &str) -> bool {
        self.inner.lock().may_use(scope, group, repository)
    }
}

impl State {
    /// A job, if there is one of that id.
    pub(crate) fn job(&self, id: u64) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// The requests that were answered.
    pub(crate) fn requests(&self) -> &[super::state::Logged] {
        &self.requests
    }

    /// Whether a request is held at a gate.
    pub(crate) fn held(&self) -> bool {
        self.held > 0
    }
}
