//! Whether GitHub lets us do what the configuration wants, and what stands in the way. It asks and changes nothing; for a
//! scale set it asks for a registration token, which ends by itself.
//!
//! What each answer means is decided by pure functions, so that a group that is open to the public is a test and not an
//! organisation somewhere.

mod sets;

use std::collections::{BTreeMap, BTreeSet};

use super::api::runners::{Runner, RunnerGroup};
use super::client::{Client, ClientError, Report, Retry};
use super::runner::version::RunnerVersion;
use super::seen::wants_labels;
use super::ticket::Scope;
use crate::config::{Acquire, Config, GitHub, Identity, Serves};
use crate::finding::{Finding, Level};
use crate::job::{Origin, Repo};
use crate::trust::{self, Route};

/// The policy that lets nobody from outside run anything before somebody has looked.
const STRICTEST_APPROVAL: &str = "all_external_contributors";

/// From how much of the hourly limit on it is said that little is left: a tenth.
const LITTLE_LEFT: u64 = 10;

fn finding(level: Level, what: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding::new(level, what, found)
}

impl Finding {
    /// A question that was not answered.
    pub(super) fn unanswered(what: impl Into<String>, error: &ClientError) -> Self {
        let level = match error.retry() {
            Retry::Never => Level::Fail,
            Retry::Soon | Retry::After(_) => Level::Unknown,
        };
        Self::of_error(level, what, &crate::chain(error))
    }
}

/// Asks everything; findings in the order of asking. `releases` knows the latest release of the runner.
pub async fn check(client: &Client, releases: &Client, config: &Config, github: &GitHub) -> Vec<Finding> {
    let mut found = credentials(client, config, github).await;
    let repos = repos(client, github, &mut found).await;
    for repo in &repos {
        found.extend(repository(client, config, repo).await);
    }
    let scopes: Vec<Scope> = match &github.serves {
        Serves::Repos(repos) => repos.iter().cloned().map(Scope::Repo).collect(),
        Serves::Org { org, .. } => {
            found.extend(groups(client, github, org, &repos).await);
            vec![Scope::Org(org.clone())]
        }
    };
    for scope in &scopes {
        let what = format!("runners of {scope}");
        found.push(match client.runners(scope, None).await {
            Ok(list) => collisions(what, &list.items, &github.labels),
            Err(error) => Finding::unanswered(what, &error),
        });
    }
    if github.acquire == Acquire::ScaleSet {
        found.extend(sets::check(client, github, &scopes).await);
    }
    found.push(match releases.latest_runner().await {
        Ok(release) => release_of(
            release.version,
            github.runner.as_ref().map(|(version, _)| *version),
        ),
        Err(error) => Finding::unanswered("runner", &error),
    });
    let limit = match client.rate_limit().await {
        Ok(limit) => rate(limit.remaining, limit.limit),
        Err(error) => Finding::unanswered("rate limit", &error),
    };
    found.push(limit);
    found.push(clock(&client.report()));
    found
}

async fn credentials(client: &Client, config: &Config, github: &GitHub) -> Vec<Finding> {
    match (&github.identity, client.installation().await) {
        (Identity::Token { .. }, _) => vec![finding(
            Level::Ok,
            "credential",
            "a personal token; what it may do shows below",
        )],
        (Identity::App { .. }, Err(error)) => vec![Finding::unanswered("credential", &error)],
        (Identity::App { .. }, Ok(None)) => vec![],
        (Identity::App { app_id, .. }, Ok(Some(installation))) => {
            let account = installation.account.as_deref().unwrap_or("somebody");
            let what = format!("App {app_id} at {account}");
            if installation.is_suspended {
                return vec![
                    finding(Level::Fail, what, "its installation is suspended").hint("resume it at GitHub"),
                ];
            }
            permissions(&what, &installation.permissions, &needed(config, github))
        }
    }
}

/// The permissions that the configuration takes.
fn needed(config: &Config, github: &GitHub) -> BTreeMap<&'static str, &'static str> {
    let runners = match github.serves {
        Serves::Repos(_) => "administration",
        Serves::Org { .. } => "organization_self_hosted_runners",
    };
    let mut needed = BTreeMap::from([("actions", "read"), ("metadata", "read"), (runners, "write")]);
    let asks_labels = config
        .trust
        .repos
        .iter()
        .any(|rule| rule.conditions.require_label.is_some());
    if asks_labels {
        needed.insert("pull_requests", "read");
    }
    needed
}

/// Every permission that is needed, beside what is granted.
fn permissions(
    what: &str,
    granted: &BTreeMap<String, String>,
    needed: &BTreeMap<&'static str, &'static str>,
) -> Vec<Finding> {
    let is_enough = |name: &str, wanted: &str| {
        let has = granted.get(name).map(String::as_str);
        has == Some(wanted) || has == Some("write") || has == Some("admin")
    };
    let missing: Vec<String> = needed
        .iter()
        .filter(|(name, wanted)| !is_enough(name, wanted))
        .map(|(name, wanted)| format!("{name}:{wanted}"))
        .collect();
    if missing.is_empty() {
        return vec![finding(Level::Ok, what, "it may do what it must")];
    }
    let found = format!("it lacks {}", missing.join(", "));
    vec![
        finding(Level::Fail, what, found)
            .hint("change the App's permissions, and accept the change where it is installed"),
    ]
}

/// The repositories that are asked for jobs.
async fn repos(client: &Client, github: &GitHub, found: &mut Vec<Finding>) -> BTreeSet<Repo> {
    match &github.serves {
        Serves::Repos(repos) => repos.clone(),
        Serves::Org { repos, .. } if !repos.is_empty() => repos.clone(),
        Serves::Org { org, .. } => match client.repositories().await {
            Ok(list) => {
                let names = list.items.into_iter().map(|repo| repo.full_name);
                names
                    .filter(|repo| repo.owner().eq_ignore_ascii_case(org))
                    .collect()
            }
            Err(error) => {
                found.push(Finding::unanswered("repositories", &error));
                BTreeSet::new()
            }
        },
    }
}

async fn repository(client: &Client, config: &Config, repo: &Repo) -> Vec<Finding> {
    let what = repo.to_string();
    let repository = match client.repository(repo).await {
        Ok(repository) => repository,
        Err(error) => return vec![Finding::unanswered(what, &error)],
    };
    let mut found = vec![trusted(config, repo)];
    if repository.archived {
        found.push(finding(Level::Warn, &what, "it is archived, and runs nothing"));
    }
    found.push(match client.fork_approval(repo).await {
        Ok(policy) => approval(&what, repository.private, policy.as_deref()),
        Err(error) => Finding::unanswered(format!("{what}, approval of pull requests"), &error),
    });
    if wants_labels(&config.trust, repo) {
        // A number that no pull request has: what counts is whether we are let.
        match client.pull_request_labels(repo, u64::from(u32::MAX)).await {
            Ok(_) | Err(ClientError::NotFound { .. }) => {}
            Err(error) => found.push(Finding::unanswered(
                format!("{what}, labels of pull requests"),
                &error,
            )),
        }
    }
    found
}

/// Whether anything of a repository may run here at all.
fn trusted(config: &Config, repo: &Repo) -> Finding {
    let decision = trust::decide(&config.trust, config.has_vm_backend(), &Origin::own(repo));
    match decision.route {
        Route::Native => finding(Level::Ok, repo.as_str(), "a push runs on this host"),
        Route::Vm => finding(
            Level::Ok,
            repo.as_str(),
            "a push runs in a guest, if its image has the runner",
        ),
        Route::Refuse => finding(
            Level::Warn,
            repo.as_str(),
            format!("a push does not run on this host: {}", decision.reason),
        )
        .hint("`ephemerd route` tells more; allow it in `[trust.repos]`, or do not serve it"),
    }
}

/// Who may run something in a repository by opening a pull request.
fn approval(repo: &str, private: bool, policy: Option<&str>) -> Finding {
    let what = format!("{repo}, approval of pull requests");
    match policy {
        _ if private => finding(Level::Ok, what, "it is private: nobody from outside can open one"),
        Some(STRICTEST_APPROVAL) => finding(Level::Ok, what, "those of outsiders wait for an approval"),
        Some(other) => finding(
            Level::Warn,
            what,
            format!("`{}`: some outsiders' jobs run at once", other.escape_debug()),
        )
        .hint("Settings, Actions, General: require approval for all external contributors"),
        None => finding(
            Level::Warn,
            what,
            "GitHub does not say, and the repository is public",
        )
        .hint("Settings, Actions, General: require approval for all external contributors"),
    }
}

async fn groups(client: &Client, github: &GitHub, org: &str, repos: &BTreeSet<Repo>) -> Vec<Finding> {
    let what = format!("runner group `{}` of {org}", github.runner_group.escape_debug());
    let group = match client.runner_groups(org).await {
        Ok(list) => list
            .items
            .into_iter()
            .find(|group| group.name.eq_ignore_ascii_case(&github.runner_group)),
        Err(error) => return vec![Finding::unanswered(what, &error)],
    };
    let Some(group) = group else {
        return vec![
            finding(Level::Fail, what, "there is none that we may see").hint("set `github.runner_group`"),
        ];
    };
    let mut found = judge_group(&what, &group);
    if group.visibility == "selected" {
        found.push(match client.runner_group_repositories(org, group.id).await {
            Ok(list) => {
                let may: BTreeSet<Repo> = list.items.into_iter().map(|repo| repo.full_name).collect();
                members(&what, repos, &may)
            }
            Err(error) => Finding::unanswered(what, &error),
        });
    }
    found
}

/// What a group lets in.
fn judge_group(what: &str, group: &RunnerGroup) -> Vec<Finding> {
    let mut found = Vec::new();
    if group.allows_public_repositories {
        found.push(
            finding(
                Level::Warn,
                what,
                "public repositories may use it, whose pull requests anybody can open",
            )
            .hint("take that off in the group's settings, unless it is meant"),
        );
    }
    if group.default || group.visibility != "selected" {
        found.push(
            finding(Level::Warn, what, "it is open to repositories that nobody named")
                .hint("make a group for native runners, for selected repositories"),
        );
    }
    if group.restricted_to_workflows {
        let workflows = group.selected_workflows.join(", ");
        found.push(finding(
            Level::Ok,
            what,
            format!("only for {}", workflows.escape_debug()),
        ));
    }
    if found.iter().all(|one| one.level == Level::Ok) {
        found.push(finding(
            Level::Ok,
            what,
            "for selected repositories, none of them public",
        ));
    }
    found
}

/// Whether the repositories that are served may use the group.
fn members(what: &str, served: &BTreeSet<Repo>, may: &BTreeSet<Repo>) -> Finding {
    let missing: Vec<&str> = served.difference(may).map(Repo::as_str).collect();
    if missing.is_empty() {
        return finding(Level::Ok, what, format!("{} repositories may use it", may.len()));
    }
    finding(
        Level::Fail,
        what,
        format!("{} may not use it", missing.join(", ")),
    )
    .hint("add them to the group, or take them out of `github.repos`")
}

/// Runners of others that would be given the same jobs.
fn collisions(what: String, runners: &[Runner], labels: &[String]) -> Finding {
    let has_all = |runner: &&Runner| {
        let has: Vec<&str> = runner.labels().collect();
        labels
            .iter()
            .all(|label| has.iter().any(|it| it.eq_ignore_ascii_case(label)))
    };
    // Names of our runners on any host begin so.
    let others: Vec<&str> = runners
        .iter()
        .filter(|runner| !runner.name.starts_with("eph-"))
        .filter(has_all)
        .map(|runner| runner.name.as_str())
        .collect();
    if others.is_empty() {
        return finding(
            Level::Ok,
            what,
            format!("{} there, none of another kind with our labels", runners.len()),
        );
    }
    let names: Vec<String> = others
        .iter()
        .take(5)
        .map(|name| name.escape_debug().to_string())
        .collect();
    let more = if others.len() > 5 { " and more" } else { "" };
    finding(
        Level::Warn,
        what,
        format!("{}{more} would be given the same jobs", names.join(", ")),
    )
    .hint("add a label of your own to `github.labels` and to the workflows")
}

/// The runner that is used, beside the latest.
fn release_of(latest: RunnerVersion, pinned: Option<RunnerVersion>) -> Finding {
    match pinned {
        Some(pinned) if pinned < latest => finding(
            Level::Warn,
            "runner",
            format!("{pinned} is used, and {latest} is out"),
        )
        .hint(
            "GitHub refuses old ones after a month: set `github.runner_version` and `github.runner_sha256`",
        ),
        Some(pinned) => finding(
            Level::Ok,
            "runner",
            format!("{pinned}, and {latest} is the latest"),
        ),
        None => finding(Level::Ok, "runner", format!("the latest, which is {latest}")),
    }
}

/// What is left of the hour.
fn rate(remaining: u64, limit: u64) -> Finding {
    let found = format!("{remaining} of {limit} requests are left in this hour");
    if remaining.saturating_mul(LITTLE_LEFT) < limit {
        return finding(Level::Warn, "rate limit", found).hint("who else uses this credential?");
    }
    finding(Level::Ok, "rate limit", found)
}

/// Our clock beside GitHub's.
fn clock(report: &Report) -> Finding {
    match report.clock_skew_s {
        Some(skew) if report.is_clock_wrong() => {
            finding(Level::Warn, "clock", format!("{skew} s ahead of GitHub's"))
                .hint("let this host set its clock by NTP")
        }
        Some(_) => finding(Level::Ok, "clock", "as GitHub's"),
        None => finding(Level::Unknown, "clock", "GitHub did not say what time it is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn group(more: &Value) -> RunnerGroup {
        let mut group = json!({"id": 7, "name": "native", "visibility": "selected", "default": false,
            "allows_public_repositories": false});
        for (key, value) in more.as_object().unwrap() {
            group[key] = value.clone();
        }
        serde_json::from_value(group).unwrap()
    }

    fn levels(found: &[Finding]) -> Vec<Level> {
        found.iter().map(|one| one.level).collect()
    }

    #[test]
    fn a_group_that_lets_strangers_in_is_a_warning() {
        assert_eq!(levels(&judge_group("g", &group(&json!({})))), [Level::Ok]);
        for open in [
            json!({"allows_public_repositories": true}),
            json!({"visibility": "all"}),
            json!({"default": true}),
        ] {
            assert_eq!(levels(&judge_group("g", &group(&open))), [Level::Warn], "{open}");
        }
    }

    #[test]
    fn what_is_served_must_be_let_into_the_group() {
        let repos = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let served = repos(&["acme/app"]);
        assert_eq!(
            members("g", &served, &repos(&["Acme/App", "acme/x"])).level,
            Level::Ok
        );
        let missing = members("g", &served, &repos(&["acme/x"]));
        assert_eq!(
            (missing.level, missing.found.as_str()),
            (Level::Fail, "acme/app may not use it")
        );
    }

    #[test]
    fn a_missing_permission_is_named() {
        let granted = |pairs: &[(&str, &str)]| {
            let pair = |(name, to): &(&str, &str)| ((*name).to_owned(), (*to).to_owned());
            pairs.iter().map(pair).collect()
        };
        let needed = BTreeMap::from([("actions", "read"), ("administration", "write")]);
        let enough = granted(&[("actions", "write"), ("administration", "write")]);
        assert_eq!(levels(&permissions("App", &enough, &needed)), [Level::Ok]);
        let less = granted(&[("actions", "read"), ("administration", "read")]);
        let found = permissions("App", &less, &needed);
        assert_eq!(found[0].found, "it lacks administration:write");
        assert_eq!(found[0].level, Level::Fail);
    }

    #[test]
    fn runners_of_another_kind_with_our_labels_are_named() {
        let runner = |name: &str, labels: &[&str]| -> Runner {
            let labels: Vec<_> = labels.iter().map(|label| json!({"name": label})).collect();
            serde_json::from_value(
                json!({"id": 1, "name": name, "status": "online", "busy": false, "labels": labels}),
            )
            .unwrap()
        };
        let labels = ["self-hosted", "Eph"].map(str::to_owned);
        let quiet = [
            runner("eph-1-2", &["self-hosted", "eph"]),
            runner("mac", &["self-hosted"]),
        ];
        assert_eq!(collisions("r".into(), &quiet, &labels).level, Level::Ok);
        let loud = [runner("mac", &["self-hosted", "eph", "x"])];
        let found = collisions("r".into(), &loud, &labels);
        assert_eq!(
            (found.level, found.found.as_str()),
            (Level::Warn, "mac would be given the same jobs")
        );
    }

    #[test]
    fn a_public_repository_wants_an_approval_for_every_outsider() {
        assert_eq!(
            approval("a/b", true, Some("first_time_contributors")).level,
            Level::Ok
        );
        assert_eq!(approval("a/b", false, Some(STRICTEST_APPROVAL)).level, Level::Ok);
        assert_eq!(
            approval("a/b", false, Some("first_time_contributors")).level,
            Level::Warn
        );
        assert_eq!(approval("a/b", false, None).level, Level::Warn);
    }

    #[test]
    fn an_old_runner_a_wrong_clock_and_an_empty_hour_are_warnings() {
        let version = |text: &str| text.parse::<RunnerVersion>().unwrap();
        assert_eq!(
            release_of(version("2.337.0"), Some(version("2.336.0"))).level,
            Level::Warn
        );
        assert_eq!(
            release_of(version("2.336.0"), Some(version("2.336.0"))).level,
            Level::Ok
        );
        assert_eq!(rate(499, 5000).level, Level::Warn);
        assert_eq!(rate(500, 5000).level, Level::Ok);
        let report = |skew| Report {
            clock_skew_s: skew,
            ..Report::default()
        };
        assert_eq!(clock(&report(Some(600))).level, Level::Warn);
        assert_eq!(clock(&report(Some(1))).level, Level::Ok);
        assert_eq!(clock(&report(None)).level, Level::Unknown);
    }
}
