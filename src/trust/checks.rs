//! What must hold for a job to be native under a rule that allows it: first what holds for every rule, then
//! the rule's own conditions. One function per check, in the order in which they are made.

use super::{Conditions, NATIVE_EVENTS, PullRequests, TrustRule, branch_matches};
use crate::job::Origin;

/// What a check found: a note when it passed, nothing when it does not concern this job, or why it failed.
type Check = Result<Option<String>, String>;

/// Why `origin` may not be native under `rule`; `None` when it may. Checks after a failed one are not made.
pub(super) fn refusal(rule: &TrustRule, origin: &Origin, chain: &mut Vec<String>) -> Option<String> {
    let conditions = &rule.conditions;
    let checks: [&dyn Fn() -> Check; 7] = [
        &|| event_may_be_native(origin),
        &|| head_is_the_repository(origin),
        &|| event_is_listed(conditions, origin),
        &|| pull_request_is_wanted(conditions, origin),
        &|| label_is_there(conditions, origin),
        &|| actor_is_no_bot(conditions, origin),
        &|| branch_is_listed(conditions, origin),
    ];
    for check in checks {
        match check() {
            Ok(note) => chain.extend(note),
            Err(failed) => {
                chain.push(format!("not native: {failed}"));
                return Some(failed);
            }
        }
    }
    None
}

/// Text chosen by strangers, made harmless for a terminal and a log.
fn quoted(text: &str) -> String {
    format!("`{}`", text.escape_debug())
}

fn event_may_be_native(origin: &Origin) -> Check {
    let event = quoted(&origin.event);
    match origin.event.as_str() {
        known if NATIVE_EVENTS.contains(&known) => Ok(Some(format!("event {event} may be native"))),
        "pull_request_target" | "workflow_run" | "issue_comment" => Err(format!(
            "event {event} can be caused by strangers and is never native"
        )),
        _ => Err(format!("event {event} is not known and so never native")),
    }
}

fn head_is_the_repository(origin: &Origin) -> Check {
    match &origin.head {
        Some(head) if *head == origin.repo => Ok(Some(format!("the code comes from {} itself", origin.repo))),
        Some(head) => Err(format!(
            "the code comes from {head}, and a fork's code is never native"
        )),
        None => Err("the repository the code comes from is unknown, which is never native".to_owned()),
    }
}

fn event_is_listed(conditions: &Conditions, origin: &Origin) -> Check {
    let event = quoted(&origin.event);
    match &conditions.events {
        None => Ok(None),
        Some(events) if events.contains(&origin.event) => Ok(Some(format!("`events` lists {event}"))),
        Some(_) => Err(format!("`events` does not list {event}")),
    }
}

fn is_pull_request(origin: &Origin) -> bool {
    origin.event == "pull_request"
}

fn pull_request_is_wanted(conditions: &Conditions, origin: &Origin) -> Check {
    match conditions.pull_requests {
        PullRequests::None if is_pull_request(origin) => Err("`pull_requests` is `none`".to_owned()),
        // That the head is the repository itself was checked for every event.
        PullRequests::SameRepo | PullRequests::None => Ok(None),
    }
}

fn label_is_there(conditions: &Conditions, origin: &Origin) -> Check {
    match &conditions.require_label {
        // GitHub keeps one label per name whatever its case.
        Some(label) if is_pull_request(origin) => {
            let there = origin.labels.iter().any(|l| l.eq_ignore_ascii_case(label));
            let label = quoted(label);
            if there {
                Ok(Some(format!("the pull request carries label {label}")))
            } else {
                Err(format!(
                    "`require_label` wants label {label}, which the pull request lacks"
                ))
            }
        }
        Some(_) | None => Ok(None),
    }
}

fn actor_is_no_bot(conditions: &Conditions, origin: &Origin) -> Check {
    match &origin.actor {
        Some(actor) if actor.to_ascii_lowercase().ends_with("[bot]") => {
            let actor = quoted(actor);
            if conditions.allow_bots {
                Ok(Some(format!("`allow_bots` admits {actor}")))
            } else {
                Err(format!("{actor} is a bot and `allow_bots` is false"))
            }
        }
        Some(_) | None => Ok(None),
    }
}

fn branch_is_listed(conditions: &Conditions, origin: &Origin) -> Check {
    let Some(patterns) = &conditions.branches else {
        return Ok(None);
    };
    let Some(branch) = &origin.branch else {
        return Err("`branches` is set and the branch is unknown".to_owned());
    };
    let shown = quoted(branch);
    match patterns.iter().find(|pattern| branch_matches(pattern, branch)) {
        Some(pattern) => Ok(Some(format!("branch {shown} matches {}", quoted(pattern)))),
        None => Err(format!("branch {shown} matches none of `branches`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Repo;
    use crate::trust::Route;

    /// Why `origin` is not native under a rule of these conditions.
    fn refused(conditions: Conditions, origin: &Origin) -> Option<String> {
        let rule = TrustRule {
            pattern: "acme/*".parse().unwrap(),
            route: Route::Native,
            conditions,
            fallback: crate::trust::DefaultRoute::Refuse,
            vm: crate::vm::VmChoice::default(),
        };
        refusal(&rule, origin, &mut Vec::new())
    }

    fn origin(event: &str) -> Origin {
        let repo: Repo = "acme/ios".parse().unwrap();
        Origin {
            repo: repo.clone(),
            event: event.to_owned(),
            head: Some(repo),
            branch: Some("main".to_owned()),
            labels: vec!["CI-native".to_owned()],
            actor: Some("mona".to_owned()),
        }
    }

    #[test]
    fn every_event_that_may_be_native_is() {
        for event in NATIVE_EVENTS {
            assert_eq!(refused(Conditions::default(), &origin(event)), None, "{event}");
        }
    }

    #[test]
    fn never_runs_other_events_natively() {
        for event in ["pull_request_target", "workflow_run", "issue_comment"] {
            let reason = refused(Conditions::default(), &origin(event)).unwrap();
            assert!(reason.contains("can be caused by strangers"), "{reason}");
        }
        for event in ["discussion", "workflow_call", "Push", "push ", ""] {
            let reason = refused(Conditions::default(), &origin(event)).unwrap();
            assert!(reason.contains("is not known"), "{reason}");
        }
    }

    #[test]
    fn a_fork_and_an_unknown_head_are_never_native() {
        for event in NATIVE_EVENTS {
            let mut job = origin(event);
            job.head = "acme/ios-fork".parse().ok();
            let reason = refused(Conditions::default(), &job).unwrap();
            assert!(reason.contains("comes from acme/ios-fork"), "{reason}");
            job.head = None;
            let reason = refused(Conditions::default(), &job).unwrap();
            assert!(reason.contains("is unknown"), "{reason}");
        }
    }

    #[test]
    fn a_failed_condition_is_named() {
        type Change = fn(&mut Conditions, &mut Origin);
        let cases: [(Change, &str); 7] = [
            (
                |c, _| c.events = Some(["schedule".to_owned()].into()),
                "`events` does not list `pull_request`",
            ),
            (
                |c, _| c.pull_requests = PullRequests::None,
                "`pull_requests` is `none`",
            ),
            (
                |c, _| c.require_label = Some("safe".to_owned()),
                "wants label `safe`",
            ),
            (
                |_, o| o.actor = Some("dependabot[Bot]".to_owned()),
                "`dependabot[Bot]` is a bot",
            ),
            (
                |c, _| c.branches = Some(vec!["rel/*".to_owned()]),
                "branch `main` matches none",
            ),
            (
                |c, o| (c.branches, o.branch) = (Some(vec!["**".to_owned()]), None),
                "the branch is unknown",
            ),
            (
                |c, o| {
                    c.branches = Some(vec!["x".to_owned()]);
                    o.branch = Some("\u{1b}[2J".to_owned());
                },
                "branch `\\u{1b}[2J`",
            ),
        ];
        for (change, expected) in cases {
            let (mut conditions, mut job) = (Conditions::default(), origin("pull_request"));
            assert_eq!(refused(conditions.clone(), &job), None);
            change(&mut conditions, &mut job);
            let reason = refused(conditions, &job).unwrap_or_default();
            assert!(reason.contains(expected), "{reason:?} lacks {expected:?}");
        }
    }

    #[test]
    fn a_job_that_meets_every_condition_is_native() {
        let conditions = Conditions {
            events: Some(["pull_request".to_owned()].into()),
            pull_requests: PullRequests::SameRepo,
            require_label: Some("ci-Native".to_owned()),
            allow_bots: true,
            branches: Some(vec!["main".to_owned()]),
        };
        let mut job = origin("pull_request");
        job.actor = Some("renovate[bot]".to_owned());
        assert_eq!(refused(conditions, &job), None);
    }

    #[test]
    fn conditions_on_pull_requests_do_not_concern_a_push() {
        let conditions = Conditions {
            pull_requests: PullRequests::None,
            require_label: Some("absent".to_owned()),
            ..Conditions::default()
        };
        assert_eq!(refused(conditions, &origin("push")), None);
    }
}
