//! Runs, jobs, runners and pull requests as JSON. Members that matter are written here, the rest of each object is
//! what GitHub's description demands, so that no object can lack a part.

use serde_json::{Value, json};

use super::clock::iso;
use super::schema::sample;
use super::state::{Job, Phase, PullRequest, Runner, State};

impl State {
    /// A user; the same name always has the same id.
    pub(super) fn user(login: &str) -> Value {
        let id = login
            .bytes()
            .fold(7_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 1_000_003);
        let kind = if login.ends_with("[bot]") { "Bot" } else { "User" };
        sample("simple-user", json!({"login": login, "id": id, "type": kind}))
    }

    /// A repository as in a run, or null for a fork that is deleted.
    pub(super) fn minimal_repository(&self, name: Option<&str>) -> Value {
        let Some((full_name, known)) = name.and_then(|it| Some((it, self.repositories.get(it)?))) else {
            return Value::Null;
        };
        let (owner, name) = full_name.split_once('/').expect("owner/name");
        sample(
            "minimal-repository",
            json!({
                "id": known.id, "name": name, "full_name": full_name, "private": known.private, "fork": known.fork,
                "owner": Self::user(owner), "url": format!("{}/repos/{full_name}", self.url),
            }),
        )
    }

    /// A repository as one of the description's longer forms.
    pub(super) fn repository_json(&self, schema: &str, full_name: &str) -> Value {
        let known = &self.repositories[full_name];
        let (owner, name) = full_name.split_once('/').expect("owner/name");
        sample(
            schema,
            json!({
                "id": known.id, "name": name, "full_name": full_name, "private": known.private, "fork": known.fork,
                "owner": Self::user(owner), "url": format!("{}/repos/{full_name}", self.url), "archived": false,
            }),
        )
    }

    pub(super) fn run_json(&self, id: u64) -> Value {
        let run = &self.runs[&id];
        let (status, conclusion) = self.outcome(id);
        let url = format!("{}/repos/{}/actions/runs/{id}", self.url, run.repository);
        let at = iso(run.created_s);
        // GitHub leaves this empty for pull requests of forks.
        let same = run.head_repository.as_ref() == Some(&run.repository);
        let pulls: Vec<_> = run
            .pull_request
            .filter(|_| same)
            .iter()
            .map(|number| self.pull_request_minimal(*number, id))
            .collect();
        sample(
            "workflow-run",
            json!({
                "id": id, "name": "CI", "display_title": "CI", "event": run.event, "status": status,
                "conclusion": conclusion, "head_branch": run.head_branch, "head_sha": run.head_sha,
                "path": ".github/workflows/ci.yml", "run_number": 1, "run_attempt": run.attempt,
                "workflow_id": 5, "created_at": at, "updated_at": at, "run_started_at": at,
                "actor": Self::user(&run.actor), "triggering_actor": Self::user(&run.triggering_actor),
                "pull_requests": pulls, "repository": self.minimal_repository(Some(&run.repository)),
                "head_repository": self.minimal_repository(run.head_repository.as_deref()),
                "url": url, "jobs_url": format!("{url}/jobs"),
                "html_url": format!("{}/{}/actions/runs/{id}", self.url, run.repository),
            }),
        )
    }

    fn pull_request_minimal(&self, number: u64, run: u64) -> Value {
        let run = &self.runs[&run];
        let repository = json!({"id": self.repositories[&run.repository].id, "url": "https://api.github.com/", "name": run.repository});
        json!({
            "id": number, "number": number, "url": format!("{}/repos/{}/pulls/{number}", self.url, run.repository),
            "head": {"ref": run.head_branch, "sha": run.head_sha, "repo": repository},
            "base": {"ref": "main", "sha": run.head_sha, "repo": repository},
        })
    }

    pub(super) fn job_json(&self, job: &Job) -> Value {
        let run = &self.runs[&job.run];
        let base = format!("{}/repos/{}", self.url, run.repository);
        let runner = job.runner.as_ref();
        sample(
            "job",
            json!({
                "id": job.id, "run_id": job.run, "run_attempt": job.attempt, "name": job.spec.name,
                "run_url": format!("{base}/actions/runs/{}", job.run), "url": format!("{base}/actions/jobs/{}", job.id),
                "html_url": format!("{}/{}/actions/runs/{}/job/{}", self.url, run.repository, job.run, job.id),
                "check_run_url": format!("{base}/check-runs/{}", job.id), "workflow_name": "CI",
                "head_branch": run.head_branch, "head_sha": run.head_sha, "labels": job.spec.labels, "steps": [],
                "status": job.phase.word(), "conclusion": job.conclusion, "created_at": iso(job.created_s),
                "started_at": iso(job.started_s.unwrap_or(job.created_s)), "completed_at": job.completed_s.map(iso),
                // GitHub says null while a job is queued, and 0 and "" for one that ended without a runner.
                "runner_id": runner.map(|it| json!(it.0)).unwrap_or(if job.phase == Phase::Completed { json!(0) } else { Value::Null }),
                "runner_name": runner.map(|it| json!(it.1)).unwrap_or(if job.phase == Phase::Completed { json!("") } else { Value::Null }),
                "runner_group_id": runner.map(|_| 1), "runner_group_name": runner.map(|_| "Default"),
            }),
        )
    }

    pub(super) fn runner_json(runner: &Runner) -> Value {
        let labels: Vec<_> = runner
            .labels
            .iter()
            .map(|name| json!({"id": 1, "name": name, "type": "custom"}))
            .collect();
        json!({
            "id": runner.id, "name": runner.name, "os": "unknown", "busy": runner.busy, "labels": labels,
            "status": if runner.session.is_some() { "online" } else { "offline" },
            "runner_group_id": runner.group, "ephemeral": true,
        })
    }

    pub(super) fn pull_request_json(&self, repository: &str, number: u64, pull: &PullRequest) -> Value {
        let labels: Vec<_> = pull.labels.iter().map(|name| {
            json!({"id": 1, "node_id": "", "url": "https://api.github.com/", "name": name, "description": null, "color": "ededed", "default": false})
        }).collect();
        let side = |name: Option<&str>, branch: &str| {
            let (owner, known) = name.map_or(("ghost", None), |it| {
                (
                    it.split('/').next().unwrap_or_default(),
                    self.repositories.get(it),
                )
            });
            let repo = known.zip(name).map(|(known, full_name)| {
                let name = full_name.split('/').nth(1).unwrap_or_default();
                let given = json!({"id": known.id, "name": name, "full_name": full_name, "private": known.private, "fork": known.fork, "owner": Self::user(owner)});
                sample("repository", given)
            });
            json!({"label": format!("{owner}:{branch}"), "ref": branch, "sha": pull.head_sha, "user": Self::user(owner), "repo": repo})
        };
        sample(
            "pull-request",
            json!({
                "id": number, "number": number, "state": "open", "title": "A change", "mergeable_state": "clean", "labels": labels,
                "user": Self::user(&pull.author), "head": side(pull.head_repository.as_deref(), &pull.head_branch),
                "base": side(Some(repository), "main"),
            }),
        )
    }
}

impl Phase {
    /// The API's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}
