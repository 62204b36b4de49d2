//! Jobs of GitHub's in guests: those that are not trusted with this host, and those that it cannot take.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use camino::Utf8PathBuf;
use ephemerd::job::Outcome;
use ephemerd::trust::Route;
use ephemerd::vm::Isolation;

use super::forge::{Forge, prepare, push, steps};
use super::hub::Hub;
use super::hub::scenario::Trigger;
use crate::harness::{Daemon, Family, Site, out, said, wait_for, wait_within};
use crate::vm::give;

const TOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fakes/guest");

/// The stand-in's folder with an image that has a runner, and where guests have that, each its own.
fn image(site: &Site) -> (Utf8PathBuf, Utf8PathBuf) {
    let home = site.top.join("guests");
    let runner = home.join("image/runner");
    for path in [&home.join("guests"), &runner] {
        fs::create_dir_all(path).unwrap();
    }
    let mut releases = walkdir::WalkDir::new(site.top.join("releases"))
        .into_iter()
        .map(Result::unwrap);
    let release = releases.find(|entry| entry.file_type().is_file()).unwrap();
    let packed = flate2::read::GzDecoder::new(fs::File::open(release.path()).unwrap());
    tar::Archive::new(packed).unpack(runner).unwrap();
    let root = site.top.join("actions-runner");
    fs::create_dir(&root).unwrap();
    fs::write(home.join("bind"), root.as_str()).unwrap();
    give(&home, &site.family);
    // The runner wants to read every folder on the way to its own, and this is no guest's own file system.
    fs::set_permissions(&site.top, fs::Permissions::from_mode(0o755)).unwrap();
    (home, root)
}

/// GitHub and a daemon with guests of the stand-in; `rules` are more of `[trust.repos]`, and `default` is `trust.default`.
fn forge(rules: &str, default: &str) -> Forge {
    forge_with("", rules, default)
}

/// The same with `github` in `[github]`.
fn forge_with(github: &str, rules: &str, default: &str) -> Forge {
    let hub = Hub::start();
    let site = prepare(&hub, Family::take(), github, rules);
    let (home, root) = image(&site);
    let config = fs::read_to_string(&site.config).unwrap();
    let config = config.replace("default = \"refuse\"", &format!("default = \"{default}\""));
    fs::write(
        &site.config,
        format!(
            "{config}[native.limits]\nmemory = \"256MiB\"\n[vm]\nhost_memory = \"1MiB\"\n[vm.backends.plain]\nguest = \"linux\"\n\
             isolation = \"container\"\ntool = \"{TOOL}\"\nmemory = \"64MiB\"\nboot_timeout = \"10s\"\n\
             runner_dir = \"{root}\"\nclone = [\"{{tool}}\", \"clone\", \"{{name}}\"]\n\
             start = [\"{{tool}}\", \"run\", \"{{name}}\"]\ndetached = false\nexec = [\"{{tool}}\", \"exec\", \"{{name}}\"]\n\
             stop = [\"{{tool}}\", \"stop\", \"{{name}}\"]\ndelete = [\"{{tool}}\", \"delete\", \"{{name}}\"]\n\
             list = [\"{{tool}}\", \"list\"]\nnetwork_none = []\nenv = {{ GUESTS = \"{home}\" }}\n"
        ),
    )
    .unwrap();
    Forge {
        daemon: Some(Daemon::start_at(site)),
        hub,
    }
}

/// What the stand-in has of guests.
fn guests(forge: &Forge) -> Vec<String> {
    let all = forge.daemon().site().top.join("guests/guests");
    let all = all.read_dir_utf8().unwrap();
    all.map(|entry| entry.unwrap().file_name().to_owned()).collect()
}

/// GitHub keeps a runner busy until it notices that nobody is there.
fn lose_all(forge: &Forge) {
    for runner in forge.hub.runners() {
        forge.hub.lose(runner.id);
    }
}

#[test]
fn a_forks_job_runs_in_a_guest_and_a_push_in_a_slot_and_nothing_is_left_of_either() {
    let forge = forge("", "vm");
    let run = forge.hub.launch(
        Trigger::fork_pull_request("acme/app", "eve/app"),
        vec![
            steps("one", &["test -n \"$HOME\"", "pwd > \"$HOME/place\""]),
            steps("two", &["exit 3"]),
        ],
    );
    let jobs = forge.hub.jobs_of(run);
    assert_eq!(forge.conclusion(jobs[0]), "success");
    assert_eq!(forge.conclusion(jobs[1]), "failure");
    let pushed = push(&forge.hub, &["test \"$(id -un)\" != root"]);
    assert_eq!(forge.conclusion(pushed), "success");
    forge.settled();
    for job in &jobs {
        let made = forge.made_for(*job);
        assert_eq!(made.len(), 1, "{made:?}");
        let row = &made[0];
        assert_eq!((row.route, row.slot), (Route::Vm, None));
        assert_eq!(row.isolation, Some(Isolation::Container));
        assert!(matches!(row.outcome, Some(Outcome::Ran { .. })), "{row:?}");
        assert!(
            row.reason.contains("eve/app") || row.reason.contains("fork"),
            "{row:?}"
        );
        let listened = forge.daemon().cli(&["logs", row.id.as_str()]);
        assert!(
            out(&listened).contains("Listening for Jobs"),
            "{}",
            said(&listened)
        );
        let secrets = forge.hub.secrets();
        assert!(!secrets.iter().any(|secret| out(&listened).contains(secret)));
    }
    assert_eq!(forge.made_for(pushed)[0].route, Route::Native);
    assert_eq!(guests(&forge), Vec::<String>::new());
}

#[test]
fn a_job_that_no_guest_can_be_made_for_is_refused_with_its_reason() {
    let forge = forge(
        "\"acme/app\" = { route = \"vm\", memory = \"900GiB\" }\n",
        "refuse",
    );
    let job = push(&forge.hub, &["true"]);
    let reason = forge.refusal(job);
    assert!(reason.contains("900") && reason.contains("but"), "{reason}");
    forge.hub.cancel(forge.hub.job(job).run);
    forge.settled();
}

#[test]
fn a_guest_that_fails_before_its_job_is_made_again_with_the_same_runner() {
    let forge = forge("\"acme/app\" = \"vm\"\n", "refuse");
    let home = forge.daemon().site().top.join("guests");
    // The first two hand nothing over.
    fs::write(home.join("fail-exec"), "2\n2\n").unwrap();
    let job = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let made = forge.made_for(job);
    assert_eq!(made.len(), 1, "{made:?}");
    let registered = forge
        .hub
        .requests()
        .iter()
        .filter(|request| request.path.ends_with("generate-jitconfig"))
        .count();
    assert_eq!(registered, 1);
    assert_eq!(guests(&forge), Vec::<String>::new());
}

#[test]
fn a_runner_in_a_guest_that_is_given_a_refused_job_is_ended_and_the_host_takes_the_next() {
    // Nobody has enabled the host for this manifest, so that pushes fall back to guests.
    let top = tempfile::tempdir().unwrap();
    let manifest = top.path().join("wanted.toml");
    fs::write(&manifest, "version = 1\nos = \"linux\"\n").unwrap();
    let forge = forge(
        &format!("manifest = {manifest:?}\n\"acme/app\" = {{ route = \"native\", fallback = \"vm\" }}\n"),
        "refuse",
    );
    let (trusted, gate) = forge.held_runner();
    forge.hub.cancel(forge.hub.job(trusted).run);
    let stolen = forge.hub.launch(
        Trigger::fork_pull_request("acme/app", "eve/app"),
        vec![steps("steal", &["sleep 1000"])],
    );
    let stolen = forge.hub.jobs_of(stolen)[0];
    gate.open();
    let row = wait_for("the end of the runner", || {
        let row = forge.made_for(trusted).into_iter().next()?;
        row.outcome.is_some().then_some(row)
    });
    let Some(Outcome::Failed { reason }) = &row.outcome else {
        panic!("{row:?}");
    };
    assert!(reason.contains("must not run in its guest"), "{reason}");
    assert_eq!(forge.hub.job(stolen).handed_out, 1);
    lose_all(&forge);
    let next = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(next), "success");
    forge.settled();
    let row = &forge.made_for(next)[0];
    assert!(row.reason.contains("falls back to vm"), "{row:?}");
    assert_eq!(guests(&forge), Vec::<String>::new());
}

#[test]
fn a_daemon_that_is_killed_while_a_guest_runs_a_job_leaves_neither_guest_nor_runner() {
    let mut forge = forge("\"acme/app\" = \"vm\"\n", "refuse");
    let job = push(&forge.hub, &["sleep 1000"]);
    wait_for("a job that runs", || {
        let row = forge.made_for(job).into_iter().next()?;
        (row.state == "running" && row.github?.taken.is_some()).then_some(())
    });
    let site = forge.daemon.take().unwrap().kill();
    lose_all(&forge);
    forge.daemon = Some(Daemon::start_at(site));
    forge.settled();
    assert_eq!(guests(&forge), Vec::<String>::new());
    let made = forge.made_for(job);
    assert_eq!(made.len(), 1, "{made:?}");
    assert!(
        matches!(made[0].outcome, Some(Outcome::Failed { .. })),
        "{made:?}"
    );
}

#[test]
fn a_cancelled_job_ends_its_guest_and_is_made_no_other() {
    let forge = forge("\"acme/app\" = \"vm\"\n", "refuse");
    let job = push(&forge.hub, &["sleep 1000"]);
    let row = wait_for("a job that runs", || {
        let row = forge.made_for(job).into_iter().next()?;
        let has = row.github.as_ref()?.taken.is_some();
        (row.state == "running" && has).then_some(row)
    });
    let asked = forge.daemon().cli(&["cancel", row.id.as_str()]);
    assert!(asked.status.success(), "{}", said(&asked));
    assert_eq!(forge.daemon().outcome(&row.id), Outcome::Cancelled);
    lose_all(&forge);
    forge.settled();
    assert_eq!(forge.made_for(job).len(), 1);
    assert_eq!(guests(&forge), Vec::<String>::new());
}

#[test]
fn a_runner_in_a_guest_that_is_given_a_job_of_a_repository_nobody_serves_is_ended() {
    let forge = forge_with(
        "org = \"acme\"\nrepos = [\"acme/app\"]\nrunner_group = \"guests\"\n",
        "\"acme/app\" = \"vm\"\n",
        "refuse",
    );
    for repo in ["acme/app", "acme/other"] {
        forge.hub.repository(repo, true);
    }
    forge
        .hub
        .runner_group("guests", Some(&["acme/app", "acme/other"]), false);
    let (served, gate) = forge.held_runner();
    forge.hub.cancel(forge.hub.job(served).run);
    let strange = forge.hub.launch(
        Trigger::push("acme/other"),
        vec![steps("strange", &["sleep 1000"])],
    );
    let strange = forge.hub.jobs_of(strange)[0];
    gate.open();
    let row = wait_within(Duration::from_secs(60), "the end of the runner", || {
        let row = forge.made_for(served).into_iter().next()?;
        row.outcome.is_some().then_some(row)
    });
    let Some(Outcome::Failed { reason }) = &row.outcome else {
        panic!("{row:?}");
    };
    assert!(
        reason.contains("of no repository that is served here"),
        "{reason}"
    );
    assert_eq!(forge.hub.job(strange).handed_out, 1);
    lose_all(&forge);
    forge.settled();
    assert_eq!(guests(&forge), Vec::<String>::new());
}

#[test]
fn a_job_that_cannot_even_get_a_guest_is_tried_again_later_and_not_at_once() {
    let forge = forge("\"acme/app\" = \"vm\"\n", "refuse");
    let logs = forge.daemon().site().data_dir.join("logs");
    fs::remove_dir_all(&logs).unwrap();
    let job = push(&forge.hub, &["true"]);
    wait_for("a job that is tried again later", || {
        let status = out(&forge.daemon().cli(&["status"]));
        status.contains("tried again in").then_some(())
    });
    let made = forge.made_for(job);
    assert_eq!(made.len(), 1, "{made:?}");
    assert!(
        matches!(&made[0].outcome, Some(Outcome::Refused { reason }) if reason.contains("could not open")),
        "{made:?}"
    );
    fs::create_dir(&logs).unwrap();
    forge.hub.cancel(forge.hub.job(job).run);
    forge.settled();
}
