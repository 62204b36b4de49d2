//! The decision. An exact entry beats an owner's, which beats the default; a native entry counts only when
//! the job passes every check below, and otherwise the job goes where `trust.default` says.
//!
//! ```text
//!  exact entry ─► owner's entry ─► trust.default
//!       └───────┬───────┘               ▲
//!        vm, refuse: taken              │
//!        native: checks ── one fails ───┘
//!                └─ all pass ─► native
//! ```

use super::checks::refusal;
use super::{Decision, Pattern, Route, TrustConfig, TrustRule};
use crate::job::{Origin, Repo};
use crate::vm::VmChoice;

/// Where the job of `origin` runs, and why. Without a VM backend nothing is routed to a VM: it is refused.
pub fn decide(config: &TrustConfig, vm_backend: bool, origin: &Origin) -> Decision {
    let mut chain = Vec::new();
    let mut decision = match find(&config.repos, &origin.repo, &mut chain) {
        None => {
            let why = format!("no entry of trust.repos names {}", origin.repo);
            by_default(config, &VmChoice::default(), &why, chain)
        }
        Some(rule) if rule.route == Route::Native => match refusal(rule, origin, &mut chain) {
            None => by_rule(rule, &origin.repo, chain),
            Some(failed) => {
                let why = format!("{} allows native, but {failed}", rule.name());
                by_default(config, &rule.vm, &why, chain)
            }
        },
        Some(rule) => by_rule(rule, &origin.repo, chain),
    };
    if decision.route == Route::Vm && !vm_backend {
        decision.route = Route::Refuse;
        decision.reason.push_str(", and no VM backend is configured");
        decision
            .chain
            .push("vm is not possible: no VM backend is configured".to_owned());
    }
    decision
}

/// The entry for `repo`: the exact one, else its owner's.
fn find<'a>(rules: &'a [TrustRule], repo: &Repo, chain: &mut Vec<String>) -> Option<&'a TrustRule> {
    let exact = rules
        .iter()
        .find(|rule| matches!(rule.pattern, Pattern::Exact(_)) && rule.pattern.covers(repo));
    if exact.is_none() {
        chain.push(format!("no entry names {repo} exactly"));
    }
    let found = exact.or_else(|| rules.iter().find(|rule| rule.pattern.covers(repo)));
    chain.push(match found {
        Some(rule) => format!("{} says {}", rule.name(), rule.route.as_str()),
        None => format!("no entry names all of {}", repo.owner()),
    });
    found
}

fn by_rule(rule: &TrustRule, repo: &Repo, chain: Vec<String>) -> Decision {
    let name = rule.name();
    Decision {
        route: rule.route,
        reason: format!("{name} sends {repo} to {}", rule.route.as_str()),
        rule: name,
        chain,
        fallback: (rule.route == Route::Native).then_some(rule.fallback),
        vm: rule.vm.clone(),
    }
}

fn by_default(config: &TrustConfig, vm: &VmChoice, why: &str, mut chain: Vec<String>) -> Decision {
    let route = Route::from(config.default);
    let says = format!("trust.default says {}", route.as_str());
    let reason = format!("{why}; {says}");
    chain.push(says);
    Decision {
        route,
        reason,
        rule: "trust.default".to_owned(),
        chain,
        fallback: None,
        vm: vm.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{Conditions, DefaultRoute, NATIVE_EVENTS, PullRequests};
    use proptest::prelude::*;

    const EVENTS: [&str; 11] = [
        "push",
        "pull_request",
        "merge_group",
        "schedule",
        "release",
        "pull_request_target",
        "workflow_run",
        "issue_comment",
        "discussion",
        "Push",
        "",
    ];

    fn rule(pattern: &str, route: Route, conditions: Conditions) -> TrustRule {
        TrustRule {
            pattern: pattern.parse().unwrap(),
            route,
            conditions,
            fallback: DefaultRoute::Refuse,
            vm: VmChoice::default(),
        }
    }

    fn native(pattern: &str, conditions: Conditions) -> TrustConfig {
        TrustConfig {
            default: DefaultRoute::Vm,
            repos: vec![rule(pattern, Route::Native, conditions)],
        }
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
    fn exact_beats_owner_beats_default_whatever_the_order() {
        let all = [
            rule("acme/*", Route::Native, Conditions::default()),
            rule("ACME/iOS", Route::Vm, Conditions::default()),
        ];
        for repos in [all.to_vec(), all.iter().rev().cloned().collect()] {
            let config = TrustConfig {
                default: DefaultRoute::Refuse,
                repos,
            };
            let exact = decide(&config, true, &origin("push"));
            assert_eq!(
                (exact.route, exact.rule.as_str()),
                (Route::Vm, "trust.repos.\"ACME/iOS\"")
            );
            let mut other = origin("push");
            other.repo = "Acme/web".parse().unwrap();
            other.head = Some(other.repo.clone());
            assert_eq!(decide(&config, true, &other).route, Route::Native);
            other.repo = "zeta/web".parse().unwrap();
            other.head = Some(other.repo.clone());
            let default = decide(&config, true, &other);
            assert_eq!(
                (default.route, default.rule.as_str()),
                (Route::Refuse, "trust.default")
            );
        }
    }

    #[test]
    fn shows_every_consideration_of_a_native_job() {
        let conditions = Conditions {
            branches: Some(vec!["release/*".to_owned(), "ma*".to_owned()]),
            ..Conditions::default()
        };
        let decision = decide(&native("acme/*", conditions), false, &origin("push"));
        insta::assert_snapshot!(serde_json::to_string_pretty(&decision).unwrap(), @r#"
        {
          "route": "native",
          "reason": "trust.repos.\"acme/*\" sends acme/ios to native",
          "rule": "trust.repos.\"acme/*\"",
          "chain": [
            "no entry names acme/ios exactly",
            "trust.repos.\"acme/*\" says native",
            "event `push` may be native",
            "the code comes from acme/ios itself",
            "branch `main` matches `ma*`"
          ]
        }
        "#);
    }

    #[test]
    fn refuses_what_a_failed_condition_sends_to_a_vm_that_is_not_there() {
        let config = native("acme/ios", Conditions::default());
        let mut fork = origin("pull_request");
        fork.head = "mallory/ios".parse().ok();
        assert_eq!(decide(&config, true, &fork).route, Route::Vm);
        let decision = decide(&config, false, &fork);
        insta::assert_snapshot!(serde_json::to_string_pretty(&decision).unwrap(), @r#"
        {
          "route": "refuse",
          "reason": "trust.repos.\"acme/ios\" allows native, but the code comes from mallory/ios, and a fork's code is never native; trust.default says vm, and no VM backend is configured",
          "rule": "trust.default",
          "chain": [
            "trust.repos.\"acme/ios\" says native",
            "event `pull_request` may be native",
            "not native: the code comes from mallory/ios, and a fork's code is never native",
            "trust.default says vm",
            "vm is not possible: no VM backend is configured"
          ]
        }
        "#);
    }

    fn any_repo() -> impl Strategy<Value = String> {
        ("[aA]c[mM]e|ZETA|zeta", "i[oO]s|Web|web").prop_map(|(owner, name)| format!("{owner}/{name}"))
    }

    fn any_conditions() -> impl Strategy<Value = Conditions> {
        (
            prop::option::of(prop::sample::subsequence(NATIVE_EVENTS.to_vec(), 1..=8)),
            any::<bool>(),
            prop::option::of("safe|other"),
            any::<bool>(),
            prop::option::of(prop::collection::vec("main|\\*|rel/\\*|\\*\\*", 1..3)),
        )
            .prop_map(|(events, none, require_label, allow_bots, branches)| Conditions {
                events: events.map(|e| e.into_iter().map(str::to_owned).collect()),
                pull_requests: if none {
                    PullRequests::None
                } else {
                    PullRequests::SameRepo
                },
                require_label,
                allow_bots,
                branches,
            })
    }

    fn any_config() -> impl Strategy<Value = TrustConfig> {
        let pattern = prop_oneof![
            any_repo(),
            "[aA]cme|ZETA|zeta".prop_map(|owner| format!("{owner}/*"))
        ];
        let route = prop::sample::select(vec![Route::Native, Route::Native, Route::Vm, Route::Refuse]);
        let rule =
            (pattern, route, any_conditions()).prop_map(|(p, route, conditions)| rule(&p, route, conditions));
        let default = prop::sample::select(vec![DefaultRoute::Vm, DefaultRoute::Refuse]);
        (default, prop::collection::vec(rule, 0..4))
            .prop_map(|(default, repos)| TrustConfig { default, repos })
    }

    fn any_origin() -> impl Strategy<Value = Origin> {
        (
            any_repo(),
            prop::sample::select(EVENTS.to_vec()),
            0..4,
            any_repo(),
            prop::option::of("main|rel/1|x/y/z"),
            any::<bool>(),
        )
            .prop_map(|(repo, event, head, other, branch, plain)| Origin {
                head: match head {
                    0 => None,
                    1 => other.parse().ok(),
                    _ => repo.parse().ok(),
                },
                repo: repo.parse().unwrap(),
                event: event.to_owned(),
                branch,
                labels: if plain {
                    Vec::new()
                } else {
                    vec!["safe".to_owned()]
                },
                actor: Some(if plain { "mona" } else { "mona[bot]" }.to_owned()),
            })
    }

    fn upper(text: &str) -> String {
        text.to_ascii_uppercase()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn native_needs_an_entry_naming_the_repository_and_its_own_code(config in any_config(), vm: bool, origin in any_origin()) {
            let decision = decide(&config, vm, &origin);
            if decision.route == Route::Native {
                let entry = config.repos.iter().find(|r| r.name() == decision.rule).unwrap();
                prop_assert_eq!(entry.route, Route::Native);
                prop_assert!(entry.pattern.covers(&origin.repo));
                prop_assert!(NATIVE_EVENTS.contains(&origin.event.as_str()));
                prop_assert_eq!(origin.head.as_ref(), Some(&origin.repo));
            }
        }

        #[test]
        fn without_a_native_entry_nothing_is_native(mut config in any_config(), origin in any_origin()) {
            config.repos.retain(|rule| rule.route != Route::Native);
            prop_assert_ne!(decide(&config, true, &origin).route, Route::Native);
        }

        #[test]
        fn conditions_only_ever_take_native_away(mut config in any_config(), vm: bool, origin in any_origin()) {
            let before = decide(&config, vm, &origin);
            for rule in &mut config.repos {
                rule.conditions = Conditions { allow_bots: true, ..Conditions::default() };
            }
            let after = decide(&config, vm, &origin);
            prop_assert!(before.route != Route::Native || after.route == Route::Native);
        }

        #[test]
        fn the_case_of_names_never_alters_the_route(config in any_config(), vm: bool, origin in any_origin()) {
            let expected = decide(&config, vm, &origin).route;
            let mut shouted = origin.clone();
            shouted.repo = upper(origin.repo.as_str()).parse().unwrap();
            shouted.head = origin.head.as_ref().map(|head| upper(head.as_str()).parse().unwrap());
            prop_assert_eq!(decide(&config, vm, &shouted).route, expected);
            let mut loud = config.clone();
            for rule in &mut loud.repos {
                rule.pattern = upper(&rule.pattern.to_string()).parse().unwrap();
            }
            prop_assert_eq!(decide(&loud, vm, &origin).route, expected);
        }

        #[test]
        fn without_a_vm_backend_nothing_goes_to_a_vm(config in any_config(), origin in any_origin()) {
            let without = decide(&config, false, &origin);
            let with = decide(&config, true, &origin);
            if with.route == Route::Vm {
                prop_assert_eq!(without.route, Route::Refuse);
                prop_assert!(without.reason.ends_with("no VM backend is configured"));
            } else {
                prop_assert_eq!(without, with);
            }
        }
    }
}
