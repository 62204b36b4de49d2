//! Each question, and what is made of its answer.

use ephemerd::github::api::Scope;
use ephemerd::github::api::runners::{Deletion, NewRunner};
use ephemerd::github::api::runs::RunStatus;
use ephemerd::github::client::{Client, ClientError, Credentials};
use ephemerd::github::runner::jit::JitConfig;
use ephemerd::github::runner::tree::{Arch, Platform};
use ephemerd::host::Os;

use super::{client, of_app, of_person, repo, run};
use crate::checks::{LABELS, Listener};
use crate::hub::Hub;
use crate::hub::faults::Fault;
use crate::hub::scenario::Trigger;
use crate::hub::state::JobSpec;

fn new_runner(name: &str) -> NewRunner {
    NewRunner {
        name: name.to_owned(),
        labels: ["self-hosted", "Eph-Native"].map(str::to_owned).to_vec(),
        group: 1,
    }
}

/// Both kinds of credential, which must both be able to ask everything.
fn both(hub: &Hub) -> [Client; 2] {
    [of_app(hub), of_person(hub)]
}

#[test]
fn runs_and_jobs_are_found_where_they_stand() {
    let hub = Hub::start();
    let queued = hub.push("o/r", &LABELS);
    let started = hub.matrix("o/r", 3, &["other"]);
    run(async {
        for client in both(&hub) {
            let scope = Scope::Repo(repo());
            let ids = async |status| -> Vec<u64> {
                let list = client.runs(&repo(), status).await.unwrap();
                list.items.iter().map(|it| it.id).collect()
            };
            if ids(RunStatus::InProgress).await.is_empty() {
                let other = NewRunner {
                    labels: vec!["other".into()],
                    ..new_runner("a")
                };
                let made = client.generate_jit(&scope, &other).await.unwrap();
                Listener::connect(&hub, made.runner_id).job();
            }
            assert_eq!(ids(RunStatus::Queued).await, [queued]);
            assert_eq!(ids(RunStatus::InProgress).await, [started]);
            let jobs = client.jobs(&repo(), started).await.unwrap().items;
            assert_eq!(jobs.len(), 3, "jobs count, not runs");
            assert_eq!(jobs.iter().filter(|it| it.is_queued()).count(), 2);
            let taken = jobs.iter().find_map(|it| it.runner()).unwrap();
            assert_eq!(taken.1, "a");
            assert_eq!(client.job(&repo(), jobs[0].id).await.unwrap(), jobs[0]);
            let run = client.run(&repo(), queued).await.unwrap();
            assert_eq!((run.id, run.event.as_str()), (queued, "push"));
            let absent = client.run(&repo(), 1).await;
            assert!(matches!(absent, Err(ClientError::NotFound { .. })), "{absent:?}");
        }
    });
}

#[test]
fn a_run_that_is_asked_for_again_has_only_its_latest_jobs() {
    let hub = Hub::start();
    let id = hub.push("o/r", &LABELS);
    let job = hub.jobs_of(id)[0];
    run(async {
        for (client, attempt) in both(&hub).into_iter().zip(2..) {
            let latest = hub.jobs_of(id)[0];
            let early = client.rerun_job(&repo(), latest).await;
            assert!(
                matches!(early, Err(ClientError::Forbidden { .. })),
                "it is still running: {early:?}"
            );
            hub.cancel(id);
            client.rerun_job(&repo(), latest).await.unwrap();
            let jobs = client.jobs(&repo(), id).await.unwrap().items;
            assert_eq!((jobs.len(), jobs[0].run_attempt), (1, attempt));
            assert_ne!(jobs[0].id, job);
        }
    });
}

#[test]
fn a_pull_request_tells_its_labels() {
    let hub = Hub::start();
    let trigger = Trigger::pull_request("o/r", "feature", &["ci-native", "bug"]);
    let id = hub.launch(trigger, vec![JobSpec::new("build", &LABELS)]);
    run(async {
        for client in both(&hub) {
            let pull = client.run(&repo(), id).await.unwrap().pull_requests[0].number;
            let labels = client.pull_request_labels(&repo(), pull).await.unwrap();
            assert_eq!(labels, ["ci-native", "bug"]);
        }
    });
}

#[test]
fn a_runner_is_made_listed_and_removed_in_either_scope() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        for client in both(&hub) {
            for scope in [Scope::Repo(repo()), Scope::Org("o".into())] {
                let made = client.generate_jit(&scope, &new_runner("mac01-1")).await.unwrap();
                assert_eq!(made.name, "mac01-1");
                let decoded = JitConfig::decode(&made.encoded, "/tmp/work".into()).unwrap();
                assert_eq!(decoded.agent_id(), made.runner_id);
                client.generate_jit(&scope, &new_runner("mac01-2")).await.unwrap();
                assert_eq!(client.runners(&scope, None).await.unwrap().items.len(), 2);
                let named = client.runners(&scope, Some("mac01-1")).await.unwrap().items;
                assert_eq!(
                    (named.len(), named[0].id, named[0].busy),
                    (1, made.runner_id, false)
                );
                assert!(!named[0].is_online());
                let labels: Vec<_> = named[0].labels().collect();
                assert_eq!(labels, ["self-hosted", "eph-native"], "GitHub stores lower case");
                for runner in client.runners(&scope, None).await.unwrap().items {
                    assert_eq!(
                        client.delete_runner(&scope, runner.id).await.unwrap(),
                        Deletion::Gone
                    );
                    assert_eq!(
                        client.delete_runner(&scope, runner.id).await.unwrap(),
                        Deletion::Gone
                    );
                }
            }
        }
    });
    assert!(hub.runners().is_empty());
}

#[test]
fn a_name_that_is_taken_is_a_conflict() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        let (client, scope) = (of_person(&hub), Scope::Repo(repo()));
        client.generate_jit(&scope, &new_runner("a")).await.unwrap();
        let Err(ClientError::Conflict { message, .. }) = client.generate_jit(&scope, &new_runner("a")).await
        else {
            panic!("another answer");
        };
        assert_eq!(
            message,
            "Already exists - A runner with the name a already exists."
        );
        let no_group = NewRunner {
            group: 99,
            ..new_runner("b")
        };
        let absent = client.generate_jit(&scope, &no_group).await;
        assert!(matches!(absent, Err(ClientError::NotFound { .. })), "{absent:?}");
    });
    assert_eq!(hub.runners().len(), 1);
}

#[test]
fn a_runner_with_a_job_is_left_alone() {
    let hub = Hub::start();
    hub.push("o/r", &LABELS);
    run(async {
        let (client, scope) = (of_app(&hub), Scope::Repo(repo()));
        let made = client.generate_jit(&scope, &new_runner("a")).await.unwrap();
        let listener = Listener::connect(&hub, made.runner_id);
        let job = listener.job();
        let busy = &client.runners(&scope, None).await.unwrap().items[0];
        assert!(busy.busy && busy.is_online());
        assert_eq!(
            client.delete_runner(&scope, made.runner_id).await.unwrap(),
            Deletion::Busy
        );
        // GitHub takes it for busy some time longer.
        hub.set_stays_busy(true);
        listener.finish(job, "succeeded");
        assert_eq!(
            client.delete_runner(&scope, made.runner_id).await.unwrap(),
            Deletion::Busy
        );
        hub.set_stays_busy(false);
        assert_eq!(
            client.delete_runner(&scope, made.runner_id).await.unwrap(),
            Deletion::Gone
        );
    });
}

#[test]
fn runner_groups_tell_whom_they_serve() {
    let hub = Hub::start();
    hub.repository("o/r", true);
    let native = hub.runner_group("native", Some(&["o/r"]), false);
    run(async {
        for client in both(&hub) {
            let groups = client.runner_groups("o").await.unwrap().items;
            let found: Vec<_> = groups
                .iter()
                .map(|it| {
                    (
                        it.name.as_str(),
                        it.default,
                        it.visibility.as_str(),
                        it.allows_public_repositories,
                    )
                })
                .collect();
            assert_eq!(
                found,
                [
                    ("Default", true, "all", true),
                    ("native", false, "selected", false)
                ]
            );
            assert!(!groups[1].restricted_to_workflows && groups[1].selected_workflows.is_empty());
            let served = client.runner_group_repositories("o", native).await.unwrap().items;
            assert_eq!(served.len(), 1);
            assert_eq!((&served[0].full_name, served[0].private), (&repo(), true));
        }
    });
}

#[test]
fn whose_forks_need_an_approval_may_be_unknown() {
    let hub = Hub::start();
    hub.repository("o/r", true);
    run(async {
        for client in both(&hub) {
            let policy = client.fork_approval(&repo()).await.unwrap();
            assert_eq!(policy.as_deref(), Some("all_external_contributors"));
            hub.inject("GET *", 1, Fault::status(404));
            assert_eq!(client.fork_approval(&repo()).await.unwrap(), None);
            hub.inject("GET *", 1, Fault::Html(404));
            assert!(
                client.fork_approval(&repo()).await.is_err(),
                "a proxy does not know either"
            );
        }
    });
}

#[test]
fn repositories_tell_whether_strangers_see_them() {
    let hub = Hub::start();
    hub.repository("o/r", true);
    hub.repository("o/open", false);
    run(async {
        for client in both(&hub) {
            assert!(client.repository(&repo()).await.unwrap().private);
            let open = client.repository(&"o/open".parse().unwrap()).await.unwrap();
            assert!(!open.private && !open.fork && !open.archived);
        }
        let all = of_app(&hub).repositories().await.unwrap().items;
        let names: Vec<_> = all.iter().map(|it| it.full_name.as_str()).collect();
        assert_eq!(names, ["o/open", "o/r"]);
        hub.installation("metadata:read", Some(&["o/r"]));
        assert_eq!(of_app(&hub).repositories().await.unwrap().items.len(), 1);
        let refused = of_person(&hub).repositories().await;
        assert!(
            matches!(refused, Err(ClientError::Forbidden { .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn the_app_knows_what_it_may_do() {
    let hub = Hub::start();
    hub.installation("actions:read,administration:write", Some(&["o/r"]));
    run(async {
        let installation = of_app(&hub).installation().await.unwrap().unwrap();
        assert_eq!(installation.permissions["administration"], "write");
        assert_eq!(installation.permissions.len(), 2);
        assert!(!installation.is_for_all && !installation.is_suspended);
        assert_eq!(installation.account.as_deref(), Some("o"));
        assert_eq!(of_person(&hub).installation().await.unwrap(), None);
    });
    assert_eq!(
        super::mints(&hub),
        0,
        "no token that can do all of that is made to find out"
    );
}

#[test]
fn the_latest_runner_comes_with_its_hashes() {
    let hub = Hub::start();
    run(async {
        let nobody = client(&hub, Credentials::Nobody);
        for client in both(&hub).into_iter().chain([nobody]) {
            let release = client.latest_runner().await.unwrap();
            assert_eq!(release.version.to_string(), "2.336.0");
            let mac = Platform {
                os: Os::MacOs,
                arch: Arch::Arm64,
            };
            let hash = release.sha256(mac).unwrap();
            assert_eq!(hash.as_str(), hub.archive_hash("osx-arm64"));
        }
    });
}
