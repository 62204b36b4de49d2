//! GitHub's runner in its sandbox: what it is shown, how it is stopped and started again, what of it is kept, and who can
//! read what it must keep secret.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use camino::Utf8PathBuf;
use ephemerd::github::runner::listener::RELAUNCHES;
use ephemerd::job::Outcome;
use ephemerd::job::ledger::JobRow;

use super::forge::{Forge, push};
use super::hub::faults::Fault;
use crate::harness::{said, wait_for};

/// Most bytes that are kept of what a runner logged, as docs/operation.md says.
const KEPT_BYTE: u64 = 5 * 1024 * 1024;

/// The files of a configuration.
const FILES: [&str; 3] = [".runner", ".credentials", ".credentials_rsaparams"];

/// Waits until a job has made the file `begun`; the runner that runs it.
#[track_caller]
fn begun(forge: &Forge, job: u64) -> JobRow {
    wait_for("a job that has begun", || {
        let row = forge.made_for(job).into_iter().next()?;
        let begun = forge.daemon().work(&row.id).join("job/begun");
        (row.state == "running" && begun.exists()).then_some(row)
    })
}

/// Where the logs of a job's runner are kept.
fn kept(forge: &Forge, row: &JobRow) -> Utf8PathBuf {
    let logs = forge.daemon().site().data_dir.join("logs");
    logs.join(format!("{}-diag", row.id))
}

/// What a job's runner has logged.
fn logged(forge: &Forge, row: &JobRow) -> String {
    let files = kept(forge, row).read_dir_utf8().unwrap();
    files
        .map(|file| String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap()).into_owned())
        .collect()
}

/// Lets the stand-in of every runner from now on have these faults. Only root can, and no job.
fn spoil(forge: &Forge, faults: &str) {
    // A tree is fetched for the first job.
    let first = push(&forge.hub, &["true"]);
    assert_eq!(forge.conclusion(first), "success");
    forge.settled();
    let trees = forge.daemon().site().data_dir.join("runners");
    let tree = trees.read_dir_utf8().unwrap().next().unwrap().unwrap();
    fs::write(tree.path().join("bin/faults.json"), faults).unwrap();
}

/// Cancels a job here; how it ended.
#[track_caller]
fn cancel(forge: &Forge, row: &JobRow) -> Outcome {
    let asked = forge.daemon().cli(&["cancel", row.id.as_str()]);
    assert!(asked.status.success(), "{}", said(&asked));
    forge.daemon().outcome(&row.id)
}

#[test]
fn the_files_of_a_runner_are_its_accounts_alone_and_no_process_is_started_with_what_they_hold() {
    let forge = Forge::start("", "");
    let first = push(&forge.hub, &["touch begun; sleep 1000"]);
    let row = begun(&forge, first);
    let site = forge.daemon().site();
    let root = site.data_dir.join(format!("native/{}/runner", row.id));
    let uid = site.family.uid(row.slot.unwrap());
    for file in FILES {
        let file = root.join(file).metadata().unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid()), (0o600, uid), "{root}");
    }
    // A sibling reads its own, so that it could read others if they were there.
    let tries = format!(
        "test -s ../../runner/.credentials; \
         if cat {root}/.credentials {root}/.credentials_rsaparams || ls {root}; then exit 7; fi"
    );
    let second = push(&forge.hub, &[&tries]);
    assert_eq!(forge.conclusion(second), "success");
    // Both at once: the first one still runs.
    assert_eq!(forge.made_for(first)[0].outcome, None);

    let secrets = forge.hub.secrets();
    let has = |text: &str| secrets.iter().any(|secret| text.contains(secret.as_str()));
    let file = fs::read_to_string(root.join(".credentials_rsaparams")).unwrap();
    assert!(has(&file), "what is looked for is what the files hold");
    let mut looked_at = 0;
    for process in fs::read_dir("/proc").unwrap() {
        for part in ["cmdline", "environ"] {
            // Some are no processes, and some have ended.
            let Ok(bytes) = fs::read(process.as_ref().unwrap().path().join(part)) else {
                continue;
            };
            looked_at += 1;
            let text = String::from_utf8_lossy(&bytes);
            assert!(!has(&text), "{part} of {:?}", process.as_ref().unwrap().path());
        }
    }
    assert!(looked_at > 4);
    cancel(&forge, &row);
    forge.settled();
}

#[test]
fn a_runner_that_is_cancelled_here_is_interrupted_and_runs_no_further_step() {
    let forge = Forge::start("", "");
    let job = push(
        &forge.hub,
        &["touch begun; sleep 1000", "always:echo this is the last word"],
    );
    let row = begun(&forge, job);
    assert_eq!(cancel(&forge, &row), Outcome::Cancelled);
    // It was left the time to say so at GitHub.
    assert_eq!(forge.conclusion(job), "failure");
    forge.settled();
    let printed = forge.daemon().output(&row.id);
    assert!(printed.contains("Exiting..."), "{printed}");
    let logged = logged(&forge, &row);
    assert!(logged.contains("touch begun"), "{logged}");
    assert!(!logged.contains("the last word"), "{logged}");
}

#[test]
fn a_runner_that_does_not_listen_is_killed_after_its_grace() {
    let forge = Forge::start("stop_grace = \"1s\"\n", "");
    spoil(&forge, r#"{"deaf": true, "poll": 0.05}"#);
    let job = push(&forge.hub, &["touch begun; sleep 1000", "always:touch always"]);
    let row = begun(&forge, job);
    assert_eq!(cancel(&forge, &row), Outcome::Cancelled);
    let printed = forge.daemon().output(&row.id);
    assert!(!printed.contains("Exiting..."), "{printed}");
    assert!(!logged(&forge, &row).contains("touch always"));
    // GitHub hears nothing of it, and notices after a while.
    forge.hub.lose(forge.hub.job(job).runner.unwrap().0);
    forge.settled();
}

#[test]
fn a_runner_that_asks_for_it_is_started_again_in_its_workspace_and_takes_its_job() {
    let forge = Forge::start("", "");
    forge.hub.inject(
        "GET /_broker/message",
        2,
        Fault::broker(400, "RunnerSessionInvalid"),
    );
    let job = push(&forge.hub, &["test -e ../../runner/_diag"]);
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let made = forge.made_for(job);
    assert_eq!(made.len(), 1, "it was the same one each time: {made:?}");
    let printed = forge.daemon().output(&made[0].id);
    assert_eq!(printed.matches("Listening for Jobs").count(), 3, "{printed}");
}

#[test]
fn a_runner_that_always_asks_to_be_started_again_is_given_up() {
    let forge = Forge::start("", "");
    spoil(&forge, r#"{"exit": 2}"#);
    let job = push(&forge.hub, &["true"]);
    let (row, reason) = wait_for("a runner that was given up", || {
        let row = forge.made_for(job).into_iter().next()?;
        match &row.outcome {
            Some(Outcome::Failed { reason }) => Some((row.clone(), reason.clone())),
            _ => None,
        }
    });
    let printed = forge.daemon().output(&row.id);
    let started = printed.matches("Listening for Jobs").count();
    assert_eq!(started, 1 + RELAUNCHES as usize, "{reason}\n{printed}");
    // It is tried again after a while; nobody waits for that here.
    forge.hub.cancel(forge.hub.job(job).run);
    forge.settled();
}

#[test]
fn of_a_runners_logs_few_are_kept_and_nothing_that_a_job_put_among_them_is_followed() {
    let forge = Forge::start("", "");
    let job = push(
        &forge.hub,
        &[
            "cd ../../runner/_diag; ln -s /etc/shadow Runner_a.log; mkfifo Runner_b.log; \
           head -c 9000000 /dev/zero > Runner_c.log; mkdir Runner_d.log; echo begun",
        ],
    );
    assert_eq!(forge.conclusion(job), "success");
    forge.settled();
    let row = &forge.made_for(job)[0];
    let folder = kept(&forge, row);
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    let mut byte = 0;
    let mut names = vec![];
    for entry in folder.read_dir_utf8().unwrap() {
        let entry = entry.unwrap();
        let found = entry.path().symlink_metadata().unwrap();
        assert!(found.is_file() && found.uid() == 0, "{}", entry.path());
        byte += found.len();
        names.push(entry.file_name().to_owned());
    }
    assert!(byte <= KEPT_BYTE, "{byte}");
    assert!(byte > KEPT_BYTE / 2, "of what is large, the end is kept: {byte}");
    assert!(names.contains(&"Runner_c.log".to_owned()), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("Worker_")), "{names:?}");
    for planted in ["Runner_a.log", "Runner_b.log", "Runner_d.log"] {
        assert!(!names.contains(&planted.to_owned()), "{names:?}");
    }
    let logged = logged(&forge, row);
    assert!(logged.contains("mkfifo"), "the worker's own log is there");
    assert!(!logged.contains("root:"), "the host's passwords are not");
}

/// The runner does not start unless it may list every folder above its own, so its job may as well.
#[test]
fn in_either_posture_a_runner_lists_the_folders_above_its_own_and_finds_nobody_elses_there() {
    for posture in ["strict", "standard"] {
        let own = format!("[repos.\"acme/app\"]\nposture = \"{posture}\"\n");
        let forge = Forge::start("", &own);
        let first = push(&forge.hub, &["touch begun; sleep 1000"]);
        let sibling = begun(&forge, first);
        let data_dir = forge.daemon().site().data_dir.clone();
        // The control: on the host there is more, and the sibling is there.
        let workspaces = forge.daemon().site().workspaces();
        assert_eq!(workspaces, [sibling.id.to_string()]);
        assert!(data_dir.read_dir_utf8().unwrap().count() > 1);
        let job = push(
            &forge.hub,
            &[
                "ls /",
                &format!("test \"$(ls -A {data_dir})\" = native"),
                &format!("test \"$(ls -A {data_dir}/native)\" = \"$(basename $(realpath ../..))\""),
                "echo x > here; if echo x > ../../runner/bin/evil; then exit 7; fi",
            ],
        );
        let conclusion = forge.conclusion(job);
        cancel(&forge, &sibling);
        forge.settled();
        let row = &forge.made_for(job)[0];
        assert_eq!(conclusion, "success", "{posture}: {}", logged(&forge, row));
    }
}
