//! Workflow runs and jobs as GitHub's REST API describes them, and what they mean for trust.
//!
//! GitHub's own example of a job breaks GitHub's own schema, and members are null, missing or zero depending on a job's
//! state: everything that is not needed is optional here, and nothing that trust depends on has a default that would be
//! trusted. A head repository that is null or not told is that of a stranger.

use serde::Deserialize;

use crate::job::{Origin, Repo};

/// A workflow run (`GET /repos/{owner}/{repo}/actions/runs/{run_id}`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: u64,
    /// Which attempt it is, from 1; every re-run is one more.
    #[serde(default = "first")]
    pub run_attempt: u64,
    /// The event that caused it.
    pub event: String,
    /// Where it stands: `queued`, `in_progress`, `completed`, and others.
    pub status: Option<String>,
    /// The branch it runs for.
    pub head_branch: Option<String>,
    /// The commit it runs for.
    pub head_sha: Option<String>,
    /// The workflow's file, with the ref it was taken from after an `@` where that is told.
    pub path: Option<String>,
    /// Whose workflow it is.
    pub repository: RepositoryName,
    /// Where the code comes from; null when that was deleted.
    #[serde(default)]
    pub head_repository: Option<RepositoryName>,
    /// Who caused the event.
    #[serde(default)]
    pub actor: Option<Login>,
    /// Who caused this attempt: whoever asked for a re-run.
    #[serde(default)]
    pub triggering_actor: Option<Login>,
    /// The pull requests it is of; empty for those of forks.
    #[serde(default)]
    pub pull_requests: Vec<PullRequest>,
}

fn first() -> u64 {
    1
}

/// A repository, by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RepositoryName {
    /// `owner/name`.
    pub full_name: String,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Login {
    /// Its name.
    pub login: String,
}

/// A pull request, as runs name it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PullRequest {
    /// Its number.
    pub number: u64,
    /// Where it is to be merged.
    pub base: Option<Branch>,
}

/// A branch, as pull requests name it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Branch {
    /// Its name, without `refs/heads/`.
    pub r#ref: String,
}

/// A job of a run (`GET /repos/{owner}/{repo}/actions/runs/{run_id}/jobs`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Job {
    /// Its id; a re-run has another.
    pub id: u64,
    /// The run it belongs to.
    pub run_id: u64,
    /// Which attempt of the run.
    #[serde(default = "first")]
    pub run_attempt: u64,
    /// What the workflow calls it. Anybody who can open a pull request can write it.
    #[serde(default)]
    pub name: String,
    /// Where it stands.
    pub status: String,
    /// How it ended.
    #[serde(default)]
    pub conclusion: Option<String>,
    /// The labels a runner must have.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Its page.
    #[serde(default)]
    html_url: Option<String>,
    /// The runner that has it; null and zero both mean none.
    #[serde(default)]
    runner_id: Option<u64>,
    /// That runner's name; null and empty both mean none.
    #[serde(default)]
    runner_name: Option<String>,
}

impl Job {
    /// The runner that has it, by id and name.
    pub fn runner(&self) -> Option<(u64, &str)> {
        let id = self.runner_id.filter(|id| *id != 0)?;
        Some((id, self.runner_name.as_deref().unwrap_or_default()))
    }

    /// The address of its page, or nothing when that is no address.
    pub fn url(&self) -> &str {
        let url = self.html_url.as_deref().unwrap_or_default();
        let is_page = url.starts_with("https://") || url.starts_with("http://");
        if is_page { url } else { "" }
    }

    /// Whether it waits for a runner. One that waits for an approval or for its turn does not.
    pub fn is_queued(&self) -> bool {
        self.status == "queued" && self.runner().is_none()
    }
}

/// Why a run says nothing that trust could go by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// It is of another repository than the one asked about.
    #[error(
        "run {run} is of `{found}`, not of {asked}\nhint: was the repository renamed? Name it as it is called now"
    )]
    Repository {
        /// The run.
        run: u64,
        /// The repository it says.
        found: String,
        /// The repository asked about.
        asked: Repo,
    },
}

/// Where a run's jobs come from, as trust looks at it; `labels` are those of its pull request, which the run does not
/// tell.
///
/// # Errors
/// The run is not one of `repo`.
pub fn origin(run: &Run, repo: &Repo, labels: &[String]) -> Result<Origin, RunError> {
    let is_asked = run
        .repository
        .full_name
        .parse::<Repo>()
        .is_ok_and(|found| found == *repo);
    if !is_asked {
        return Err(RunError::Repository {
            run: run.id,
            found: run.repository.full_name.clone(),
            asked: repo.clone(),
        });
    }
    // What does not parse is nobody's, and nobody is trusted.
    let head = run
        .head_repository
        .as_ref()
        .and_then(|head| head.full_name.parse().ok());
    let login = |who: &Option<Login>| who.as_ref().map(|who| who.login.clone());
    Ok(Origin {
        repo: repo.clone(),
        event: run.event.clone(),
        head,
        branch: branch(run),
        labels: labels.to_vec(),
        actor: suspicious([login(&run.actor), login(&run.triggering_actor)]),
    })
}

/// The branch pushed to, or a pull request's base branch. A run of several pull requests with different bases has none.
fn branch(run: &Run) -> Option<String> {
    if !run.event.starts_with("pull_request") {
        return run.head_branch.clone();
    }
    let mut bases = run
        .pull_requests
        .iter()
        .map(|pull| pull.base.as_ref().map(|base| &base.r#ref));
    let first = bases.next()??;
    bases.all(|base| base == Some(first)).then(|| first.clone())
}

/// Of those who caused a run, the one that trust must look at: a bot, wherever it stands, because what it does has no
/// person behind it; otherwise whoever caused it last.
fn suspicious(actors: [Option<String>; 2]) -> Option<String> {
    let is_bot = |login: &&String| login.ends_with("[bot]");
    let bot = actors.iter().flatten().find(is_bot).cloned();
    let [first, last] = actors;
    bot.or(last).or(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{self, Conditions, DefaultRoute, Route, TrustConfig, TrustRule};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn run(more: &Value) -> Run {
        let mut run = json!({
            "id": 77, "run_attempt": 1, "event": "push", "status": "queued", "head_branch": "main", "head_sha": "c0ffee",
            "path": ".github/workflows/ci.yml@main",
            "repository": {"id": 1, "full_name": "acme/app", "fork": false},
            "head_repository": {"id": 1, "full_name": "acme/app", "fork": false},
            "actor": {"login": "alice"}, "triggering_actor": {"login": "alice"}, "pull_requests": [],
        });
        for (key, value) in more.as_object().unwrap() {
            run[key] = value.clone();
        }
        serde_json::from_value(run).unwrap()
    }

    fn repo() -> Repo {
        "acme/app".parse().unwrap()
    }

    /// Where a job of this run goes on a host that trusts `acme/*`, with the defaults.
    fn route(more: &Value) -> Route {
        let config = TrustConfig {
            default: DefaultRoute::Vm,
            repos: vec![TrustRule {
                pattern: "acme/*".parse().unwrap(),
                route: Route::Native,
                conditions: Conditions::default(),
                fallback: crate::trust::DefaultRoute::Refuse,
                vm: crate::vm::VmChoice::default(),
            }],
        };
        trust::decide(&config, true, &origin(&run(more), &repo(), &[]).unwrap()).route
    }

    #[test]
    fn only_a_head_that_is_the_repository_itself_is_native() {
        let pull = |head: Value| json!({"event": "pull_request", "head_repository": head});
        assert_eq!(route(&json!({})), Route::Native);
        assert_eq!(route(&pull(json!({"full_name": "acme/app"}))), Route::Native);
        assert_eq!(route(&pull(json!({"full_name": "ACME/App"}))), Route::Native);
        for head in [
            json!({"full_name": "stranger/app"}),
            json!({"full_name": "acme/other"}),
            json!({"full_name": "not a name"}),
            json!({"full_name": ""}),
            Value::Null,
        ] {
            assert_eq!(route(&pull(head.clone())), Route::Vm, "{head}");
        }
        // Not told is not trusted either.
        let mut told =
            serde_json::to_value(json!({"id": 1, "event": "push", "repository": {"full_name": "acme/app"}}))
                .unwrap();
        told["status"] = "queued".into();
        let run: Run = serde_json::from_value(told).unwrap();
        assert_eq!(origin(&run, &repo(), &[]).unwrap().head, None);
    }

    #[test]
    fn events_that_strangers_can_cause_are_never_native() {
        for event in [
            "pull_request_target",
            "workflow_run",
            "issue_comment",
            "issues",
            "dynamic",
            "deployment",
            "something_new",
        ] {
            assert_eq!(route(&json!({"event": event})), Route::Vm, "{event}");
        }
    }

    #[test]
    fn a_bot_is_seen_whether_it_caused_the_run_or_ran_it_again() {
        let bot = json!({"login": "dependabot[bot]"});
        for key in ["actor", "triggering_actor"] {
            assert_eq!(route(&json!({key: bot})), Route::Vm, "{key}");
        }
        let again = run(&json!({"triggering_actor": {"login": "bob"}}));
        assert_eq!(
            origin(&again, &repo(), &[]).unwrap().actor.as_deref(),
            Some("bob")
        );
    }

    #[test]
    fn the_branch_of_a_pull_request_is_its_base_if_there_is_one() {
        let of = |pulls: Value| {
            let run =
                run(&json!({"event": "pull_request", "head_branch": "feature", "pull_requests": pulls}));
            origin(&run, &repo(), &[]).unwrap().branch
        };
        let pull = |base: &str| json!({"number": 1, "base": {"ref": base, "sha": "x"}});
        assert_eq!(of(json!([pull("main")])).as_deref(), Some("main"));
        assert_eq!(of(json!([pull("main"), pull("main")])).as_deref(), Some("main"));
        assert_eq!(of(json!([pull("main"), pull("release")])), None);
        assert_eq!(of(json!([])), None);
        assert_eq!(of(json!([{"number": 1}])), None);
    }

    #[test]
    fn a_run_of_another_repository_says_nothing() {
        let other = run(&json!({"repository": {"full_name": "acme/other"}}));
        assert!(matches!(
            origin(&other, &repo(), &[]),
            Err(RunError::Repository { .. })
        ));
    }

    #[test]
    fn a_job_without_a_runner_has_none_however_that_is_told() {
        let job = |runner: Value| -> Job {
            let mut job = json!({"id": 290, "run_id": 77, "status": "queued", "labels": ["self-hosted"]});
            for (key, value) in runner.as_object().unwrap() {
                job[key] = value.clone();
            }
            serde_json::from_value(job).unwrap()
        };
        for none in [
            json!({}),
            json!({"runner_id": null, "runner_name": null}),
            json!({"runner_id": 0, "runner_name": ""}),
        ] {
            assert!(job(none.clone()).is_queued(), "{none}");
        }
        let taken = job(json!({"runner_id": 3, "runner_name": "mac01"}));
        assert_eq!((taken.runner(), taken.is_queued()), (Some((3, "mac01")), false));
        assert!(!job(json!({"status": "waiting"})).is_queued());
    }

    proptest! {
        /// Whatever a stranger can choose, nothing but the repository's own code is native.
        #[test]
        fn nothing_native_comes_from_elsewhere(
            event in prop_oneof![Just("push"), Just("pull_request"), Just("merge_group"), Just("pull_request_target"), Just("x")],
            head in prop_oneof![Just(Value::Null), Just(json!({"full_name": "acme/app"})), Just(json!({"full_name": "eve/app"})), ".*".prop_map(|name| json!({"full_name": name}))],
            branch: Option<String>,
            login in ".*",
        ) {
            let more = json!({
                "event": event, "head_repository": head, "head_branch": branch, "actor": {"login": login},
            });
            if route(&more) == Route::Native {
                prop_assert!(head["full_name"].as_str().unwrap().eq_ignore_ascii_case("acme/app"));
                prop_assert!(!login.ends_with("[bot]"));
                prop_assert!(["push", "pull_request", "merge_group"].contains(&event));
            }
        }
    }
}
