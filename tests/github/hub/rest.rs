//! The REST API: what is demanded of every request, then one function for each thing that can be asked.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::clock::iso;
use super::schema::{Operation, sample};
use super::state::{Job, Phase, Run, Runner, Scope, State, hex};
use super::wire::{Call, Reply};

/// Calls that a token has in an hour.
const HOURLY_LIMIT: u64 = 5_000;

impl State {
    /// Answers a request to the REST API, after checking it and before checking the answer.
    pub(super) fn rest(&mut self, call: &Call) -> Reply {
        let Some(operation) = Operation::of(&call.method, &call.path) else {
            self.violations.push(format!(
                "{} {}: the hub does not serve this",
                call.method, call.path
            ));
            return Reply::error(404, "Not Found");
        };
        let headers = headers_error(call);
        let wrong = operation.request_errors(&call.query(), &call.body);
        let failed = headers.is_some() || !wrong.is_empty();
        let complaints = headers
            .iter()
            .map(|it| it.1.to_owned())
            .chain(wrong.iter().cloned());
        self.violations
            .extend(complaints.map(|it| format!("{} {}: {it}", call.method, call.path)));
        let reply = match headers {
            Some((status, message)) => Reply::error(status, message),
            None if failed => Reply::json(
                422,
                &json!({"message": "Invalid request.", "documentation_url": "", "errors": wrong}),
            ),
            None => self.route(call).unwrap_or_else(|refusal| refusal),
        };
        // The answer to a request that breaks the description may break it too.
        if !failed {
            let wrong = operation.answer_errors(reply.status, &reply.body);
            self.violations.extend(
                wrong
                    .into_iter()
                    .map(|it| format!("the hub's answer to {} {}: {it}", call.method, call.path)),
            );
        }
        self.finished(call, reply)
    }

    /// Puts an ETag and the rate limit on an answer, which is empty if the client has it already.
    fn finished(&mut self, call: &Call, mut reply: Reply) -> Reply {
        if call.method == "GET" && reply.status == 200 {
            let text = [call.credential().as_bytes(), &reply.body].concat();
            let etag = format!("W/\"{}\"", hex(digest(&SHA256, &text).as_ref()));
            if call.header("if-none-match") == etag {
                reply = Reply {
                    headers: reply.headers,
                    ..Reply::empty(304)
                };
            }
            reply = reply
                .with("etag", etag)
                .with("cache-control", "private, max-age=60, s-maxage=60".into());
        }
        if counts(call, reply.status) {
            self.counted_calls += 1;
        }
        let used = self.counted_calls.min(HOURLY_LIMIT);
        reply = reply.with("x-ratelimit-limit", HOURLY_LIMIT.to_string());
        reply = reply.with("x-ratelimit-used", used.to_string());
        reply = reply.with("x-ratelimit-remaining", (HOURLY_LIMIT - used).to_string());
        reply
            .with("x-ratelimit-reset", (self.now_s() + 3_600).to_string())
            .with("x-ratelimit-resource", "core".into())
    }

    fn route(&mut self, call: &Call) -> Result<Reply, Reply> {
        let segments: Vec<_> = call.path.split('/').skip(1).collect();
        let whole = |owner: &str, name: &str| format!("{owner}/{name}");
        match (call.method.as_str(), segments.as_slice()) {
            ("POST", ["app", "installations", id, "access_tokens"]) => Ok(self.installation_token(id, call)),
            ("GET", ["app", "installations", id]) => self.installation_of(id, call),
            ("GET", ["installation", "repositories"]) => self.installed(call),
            ("GET", ["repos", owner, name]) => self.repository_of(call, &whole(owner, name)),
            (
                "GET",
                [
                    "orgs",
                    organization,
                    "actions",
                    "runner-groups",
                    id,
                    "repositories",
                ],
            ) => self.group_repositories(call, organization, id),
            ("GET", ["meta"]) => Ok(Reply::json(200, &sample("api-overview", json!({})))),
            ("GET", ["rate_limit"]) => self.rate_limit(call),
            ("GET", ["repos", "actions", "runner", "releases", "latest"]) => Ok(self.latest_runner()),
            ("GET", ["orgs", organization, "actions", "runner-groups"]) => {
                self.runner_groups(call, organization)
            }
            (_, ["orgs", organization, "actions", "runners", rest @ ..]) => {
                self.runners(call, Scope::Organization((*organization).to_owned()), rest)
            }
            (_, ["repos", owner, name, "actions", "runners", rest @ ..]) => {
                self.runners(call, Scope::Repository(whole(owner, name)), rest)
            }
            ("GET", ["repos", owner, name, "pulls", number]) => {
                self.pull_request(call, &whole(owner, name), number)
            }
            (_, ["repos", owner, name, "actions", rest @ ..]) => {
                self.actions(call, &whole(owner, name), rest)
            }
            _ => Err(Reply::error(404, "Not Found")),
        }
    }

    fn rate_limit(&self, call: &Call) -> Result<Reply, Reply> {
        self.token_of(call)?;
        let used = self.counted_calls.min(HOURLY_LIMIT);
        let core = json!({"limit": HOURLY_LIMIT, "used": used, "remaining": HOURLY_LIMIT - used, "reset": self.now_s() + 3_600});
        Ok(Reply::json(
            200,
            &sample(
                "rate-limit-overview",
                json!({"resources": {"core": core, "search": core}, "rate": core}),
            ),
        ))
    }

    fn latest_runner(&self) -> Reply {
        let version = &self.runner_version;
        // As `releaseNote.md` of actions/runner has it.
        let notes: String = ["osx-arm64", "osx-x64", "linux-arm64", "linux-x64"]
            .map(|platform| {
                let hash = archive_hash(version, platform);
                format!("- actions-runner-{platform}-{version}.tar.gz <!-- BEGIN SHA {platform} -->{hash}<!-- END SHA {platform} -->\n")
            })
            .concat();
        let given = json!({"tag_name": format!("v{version}"), "name": format!("v{version}"), "body": notes, "author": Self::user("github-actions[bot]")});
        Reply::json(200, &sample("release", given))
    }

    /// A repository, to whoever may see it.
    fn repository_of(&self, call: &Call, name: &str) -> Result<Reply, Reply> {
        self.allow(call, Some(name), "metadata", "read")?;
        Ok(Reply::json(200, &self.repository_json("full-repository", name)))
    }

    /// What an installation's token sees, which says the same whatever the token may do there.
    fn installed(&self, call: &Call) -> Result<Reply, Reply> {
        let token = self.token_of(call)?;
        if !token.app {
            let why = "You must authenticate with an installation access token in order to list repositories for an installation.";
            return Err(Reply::error(403, why));
        }
        let seen = |name: &&String| token.repositories.as_ref().is_none_or(|it| it.contains(*name));
        let all = self.repositories.keys().filter(seen);
        let all = all.map(|name| self.repository_json("repository", name));
        Ok(page(call, &self.url, "repositories", all.collect()))
    }

    fn group_repositories(&self, call: &Call, organization: &str, id: &str) -> Result<Reply, Reply> {
        self.allow(call, None, "organization_self_hosted_runners", "read")?;
        let group = id.parse().ok().and_then(|it: u64| self.groups.get(&it));
        let group = group.ok_or_else(|| Reply::error(404, "Not Found"))?;
        let selected = group.repositories.iter().flatten();
        let ours = selected.filter(|name| name.split('/').next() == Some(organization));
        let all = ours.map(|name| self.minimal_repository(Some(name)));
        Ok(page(call, &self.url, "repositories", all.collect()))
    }

    fn runner_groups(&self, call: &Call, organization: &str) -> Result<Reply, Reply> {
        self.allow(call, None, "organization_self_hosted_runners", "read")?;
        let visible = call
            .parameter("visible_to_repository")
            .map(|name| format!("{organization}/{name}"));
        let scope = Scope::Organization(organization.to_owned());
        let groups = self
            .groups
            .iter()
            .filter(|(id, _)| visible.as_ref().is_none_or(|it| self.may_use(&scope, **id, it)));
        let groups = groups.map(|(id, group)| {
            let visibility = if group.repositories.is_some() { "selected" } else { "all" };
            let given = json!({"id": id, "name": group.name, "visibility": visibility, "default": *id == 1, "inherited": false, "allows_public_repositories": group.allows_public});
            sample("runner-groups-org", given)
        });
        Ok(page(call, &self.url, "runner_groups", groups.collect()))
    }

    fn pull_request(&self, call: &Call, repository: &str, number: &str) -> Result<Reply, Reply> {
        self.allow(call, Some(repository), "pull_requests", "read")?;
        let number = number.parse().unwrap_or_default();
        let pull = self
            .pull_requests
            .get(&(repository.to_owned(), number))
            .ok_or_else(|| Reply::error(404, "Not Found"))?;
        Ok(Reply::json(
            200,
            &self.pull_request_json(repository, number, pull),
        ))
    }

    fn actions(&mut self, call: &Call, repository: &str, rest: &[&str]) -> Result<Reply, Reply> {
        let (permission, level) = match (call.method.as_str(), rest.first()) {
            (_, Some(&"permissions")) => ("administration", "read"),
            ("GET", _) => ("actions", "read"),
            _ => ("actions", "write"),
        };
        self.allow(call, Some(repository), permission, level)?;
        match (call.method.as_str(), rest) {
            ("GET", ["permissions", "fork-pr-contributor-approval"]) => {
                Ok(Reply::json(200, &json!({"approval_policy": self.fork_approval})))
            }
            ("GET", ["runs"]) => Ok(self.list_runs(call, repository)),
            ("GET", ["runs", id]) => Ok(Reply::json(
                200,
                &self.run_json(self.known_run(repository, id)?.id),
            )),
            ("GET", ["runs", id, "jobs"]) => {
                let run = self.known_run(repository, id)?.id;
                let all = call.parameter("filter").as_deref() == Some("all");
                let jobs = self
                    .jobs
                    .values()
                    .filter(|it| it.run == run && (all || it.attempt == self.runs[&run].attempt));
                Ok(page(
                    call,
                    &self.url,
                    "jobs",
                    jobs.map(|it| self.job_json(it)).collect(),
                ))
            }
            ("POST", ["runs", id, "cancel"]) => {
                let run = self.known_run(repository, id)?.id;
                if self.outcome(run).0 == "completed" {
                    return Err(Reply::error(
                        409,
                        "Cannot cancel a workflow run that is completed.",
                    ));
                }
                self.cancel_run(run);
                Ok(Reply::json(202, &json!({})))
            }
            ("GET", ["jobs", id]) => Ok(Reply::json(200, &self.job_json(self.known_job(repository, id)?))),
            ("POST", ["jobs", id, "rerun"]) => {
                let job = self.known_job(repository, id)?.id;
                self.rerun_job(job, "ephemerd[bot]")
                    .map_err(|why| Reply::error(403, why))?;
                Ok(Reply::json(201, &json!({})))
            }
            _ => Err(Reply::error(404, "Not Found")),
        }
    }

    fn list_runs(&self, call: &Call, repository: &str) -> Reply {
        let wanted = call.parameter("status");
        // GitHub lists the newest first, and no more than 1,000 of one status.
        let runs = self
            .runs
            .values()
            .rev()
            .filter(|run| run.repository == repository);
        let runs = runs
            .filter(|run| wanted.as_deref().is_none_or(|it| self.outcome(run.id).0 == it))
            .take(1_000);
        page(
            call,
            &self.url,
            "workflow_runs",
            runs.map(|run| self.run_json(run.id)).collect(),
        )
    }

    fn known_run(&self, repository: &str, id: &str) -> Result<&Run, Reply> {
        let run = id
            .parse()
            .ok()
            .and_then(|it: u64| self.runs.get(&it))
            .filter(|it| it.repository == repository);
        run.ok_or_else(|| Reply::error(404, "Not Found"))
    }

    fn known_job(&self, repository: &str, id: &str) -> Result<&Job, Reply> {
        let job = id
            .parse()
            .ok()
            .and_then(|it: u64| self.jobs.get(&it))
            .filter(|it| self.runs[&it.run].repository == repository);
        job.ok_or_else(|| Reply::error(404, "Not Found"))
    }

    fn runners(&mut self, call: &Call, scope: Scope, rest: &[&str]) -> Result<Reply, Reply> {
        let level = if call.method == "GET" { "read" } else { "write" };
        match &scope {
            Scope::Repository(name) => self.allow(call, Some(name), "administration", level)?,
            Scope::Organization(_) => self.allow(call, None, "organization_self_hosted_runners", level)?,
        }
        let known = |state: &Self, id: &str| {
            let runner = id
                .parse()
                .ok()
                .and_then(|it: u64| state.runners.get(&it))
                .filter(|it| it.scope == scope);
            runner.cloned().ok_or_else(|| Reply::error(404, "Not Found"))
        };
        match (call.method.as_str(), rest) {
            ("GET", []) => {
                let name = call.parameter("name");
                let runners = self
                    .runners
                    .values()
                    .filter(|it| it.scope == scope && name.as_ref().is_none_or(|name| it.name == *name));
                Ok(page(
                    call,
                    &self.url,
                    "runners",
                    runners.map(Self::runner_json).collect(),
                ))
            }
            ("POST", ["generate-jitconfig"]) => self.generate_jit(call, scope),
            ("POST", ["registration-token"]) => {
                let token = self.registration_token(scope);
                Ok(Reply::json(
                    201,
                    &json!({"token": token, "expires_at": iso(self.now_s() + 3_600)}),
                ))
            }
            ("GET", [id]) => Ok(Reply::json(200, &Self::runner_json(&known(self, id)?))),
            ("DELETE", [id]) => {
                let Runner { id, name, busy, .. } = known(self, id)?;
                if busy {
                    let why = format!("Runner \"{name}\" is currently running a job and cannot be deleted.");
                    return Err(Reply::error(422, &why));
                }
                self.runners.remove(&id);
                Ok(Reply::empty(204))
            }
            _ => Err(Reply::error(404, "Not Found")),
        }
    }

    /// Cancels what is queued, and lets runners know whose jobs run.
    pub(super) fn cancel_run(&mut self, run: u64) {
        self.runs.get_mut(&run).expect("the run exists").cancelled = true;
        let early = |job: &&Job| matches!(job.phase, Phase::Queued | Phase::Waiting);
        let waiting: Vec<_> = self.latest_jobs(run).filter(early).map(|job| job.id).collect();
        waiting.into_iter().for_each(|id| self.finish(id, "cancelled"));
    }

    /// Runs a job again: a new attempt, in which the other jobs are copies of what they were.
    pub(super) fn rerun_job(&mut self, id: u64, actor: &str) -> Result<u64, &'static str> {
        let run = self.jobs[&id].run;
        if self.outcome(run).0 != "completed" {
            return Err("The workflow run containing this job is already running");
        }
        let now = self.now_s();
        let old: Vec<_> = self.latest_jobs(run).cloned().collect();
        let mut again = id;
        for mut job in old {
            let same = job.id == id;
            job.id = self.next_id();
            job.attempt += 1;
            if same {
                again = job.id;
                job = Job {
                    phase: Phase::Queued,
                    conclusion: None,
                    runner: None,
                    created_s: now,
                    started_s: None,
                    completed_s: None,
                    acquired_by: None,
                    handed_out: 0,
                    ..job
                };
            }
            self.jobs.insert(job.id, job);
        }
        let run = self.runs.get_mut(&run).expect("the run exists");
        run.attempt += 1;
        run.cancelled = false;
        run.triggering_actor = actor.to_owned();
        Ok(again)
    }
}

/// The hash that the notes of a release give for an archive: any, but always the same.
pub(super) fn archive_hash(version: &str, platform: &str) -> String {
    hex(digest(&SHA256, format!("{version} {platform}").as_bytes()).as_ref())
}

/// Whether a call is taken from the rate limit.
pub(super) fn counts(call: &Call, status: u16) -> bool {
    status != 304 && call.path != "/rate_limit" && call.path != "/meta"
}

/// What GitHub says to a request without the headers that every request must have. That it wants `Accept` and a
/// version is stricter than GitHub, which guesses.
fn headers_error(call: &Call) -> Option<(u16, &'static str)> {
    let accept = call.header("accept");
    if call.header("user-agent").is_empty() {
        Some((
            403,
            "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.",
        ))
    } else if !(accept.starts_with("application/vnd.github") && accept.ends_with("+json")) {
        Some((
            415,
            "Unsupported 'Accept' header: must accept 'application/vnd.github+json'.",
        ))
    } else if call.header("x-github-api-version") != "2022-11-28" {
        Some((
            400,
            "The X-GitHub-Api-Version header is missing or names no version that is supported.",
        ))
    } else {
        None
    }
}

/// One page of a list, with links to its neighbours.
fn page(call: &Call, url: &str, name: &str, all: Vec<Value>) -> Reply {
    let number = |name: &str| call.parameter(name).and_then(|it| it.parse::<usize>().ok());
    let size = number("per_page").unwrap_or(30).clamp(1, 100);
    let page = number("page").unwrap_or(1).max(1);
    let last = all.len().div_ceil(size).max(1);
    let shown: Vec<_> = all.iter().skip((page - 1) * size).take(size).collect();
    let reply = Reply::json(200, &json!({"total_count": all.len(), name: shown}));
    let others: String = call
        .query()
        .iter()
        .filter(|it| it.0 != "page")
        .map(|(name, value)| format!("{name}={value}&"))
        .collect();
    let link = |page: usize, rel: &str| format!("<{url}{}?{others}page={page}>; rel=\"{rel}\"", call.path);
    let mut links = Vec::new();
    if page > 1 {
        links.extend([link(page - 1, "prev"), link(1, "first")]);
    }
    if page < last {
        links.extend([link(page + 1, "next"), link(last, "last")]);
    }
    if links.is_empty() {
        reply
    } else {
        reply.with("link", links.join(", "))
    }
}
