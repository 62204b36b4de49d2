//! Jobs of GitHub: the time from the answer that shows a job to the start of its runner, with a runner's tree as large as
//! GitHub's, against a copy of that tree in the same run.
//!
//! Needs root and the accounts of `ephemerd host setup`; `scripts/bench.sh github` sees to both.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

#[path = "figures.rs"]
#[expect(dead_code, reason = "its peer is not bubblewrap")]
mod figures;
#[expect(dead_code, reason = "only some of it is needed here")]
#[path = "../github/hub/mod.rs"]
mod hub;
#[path = "../github/release.rs"]
#[expect(dead_code, reason = "its tree is a larger one")]
mod release;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use camino::Utf8Path;
use ephemerd::control::client::ask;
use ephemerd::control::{Answer, Ask};
use ephemerd::job::ledger::JobRow;
use figures::timed;
use hub::Hub;
use hub::scenario::Trigger;
use hub::state::Phase;
use release::{publish_with, steps};

const LABELS: [&str; 2] = ["self-hosted", "eph-native"];
/// What runner 2.336.0 for Linux has, about.
const FILES: usize = 5_500;
const TREE_BYTE: usize = 600_000_000;
/// Most of it is in few files.
const LARGE: usize = 50;
const SMALL_BYTE: usize = 20_000;
const JOBS: usize = 15;
const COPIES: usize = 5;

/// What one job took, in milliseconds.
struct Took {
    /// From the answer that shows it to its runner's process.
    own: u64,
    /// From that answer to the first request of its runner.
    to_listener: u64,
}

fn main() {
    let dir = tempfile::Builder::new()
        .prefix("ephbench-")
        .tempdir_in("/var/lib")
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let dir = Utf8Path::from_path(dir.path()).unwrap();
    let hub = Hub::start();
    hub.repository("acme/app", true);
    let config = configure(&hub, dir);
    let mut daemon = start(&config);
    let socket = dir.join("data/run/ephemerd.sock");
    // The first waits until the tree is there, which is not what is measured.
    let first = push(&hub);
    let end = |job: u64| wait(|| (hub.job(job).phase == Phase::Completed).then_some(()));
    end(first);
    let tree = installed(&dir.join("data/runners"));
    let took: Vec<Took> = (0..JOBS)
        .map(|_| {
            // Nothing of the one before is in the way.
            wait(|| hub.runners().is_empty().then_some(()));
            wait(|| {
                rows(&socket)
                    .iter()
                    .all(|row| row.outcome.is_some())
                    .then_some(())
            });
            one(&hub, &socket)
        })
        .collect();
    let copies = (0..COPIES).map(|_| {
        let to = dir.join("copy");
        let took = timed(&["cp", "-r", tree.as_str(), to.as_str()]);
        fs::remove_dir_all(&to).unwrap();
        u64::try_from(took.as_millis()).unwrap()
    });
    let naive = median(copies.collect());
    terminate(&mut daemon);
    let own = median(took.iter().map(|it| it.own).collect());
    let to_listener = median(took.iter().map(|it| it.to_listener).collect());
    let (files, byte) = size(&tree);
    println!("job seen to runner started    {own:6} ms, of {JOBS}");
    println!("job seen to runner's request  {to_listener:6} ms");
    println!("cp -r of its tree             {naive:6} ms, of {COPIES}");
    println!(
        "RESULT github tree_mb={} files={files} visible_to_listener_ms={to_listener} own_ms={own} naive_copy_ms={naive} ratio={:.3}",
        byte / 1_000_000,
        own as f64 / naive as f64
    );
}

/// Sends one job, and returns what it took to have its runner.
fn one(hub: &Hub, socket: &Utf8Path) -> Took {
    let known = hub.requests().len();
    let job = push(hub);
    let list = format!("/actions/runs/{}/jobs", hub.job(job).run);
    let seen_ms = when(hub, |path| path.ends_with(&list), known);
    let request_ms = when(hub, |path| path == "/_broker/session", known);
    wait(|| (hub.job(job).phase == Phase::Completed).then_some(()));
    assert_eq!(hub.job(job).conclusion.as_deref(), Some("success"));
    let started_ms = wait(|| {
        let rows = rows(socket);
        let row = rows
            .iter()
            .find(|row| row.github.as_ref().is_some_and(|at| at.ticket.job == job))?;
        row.started_ms
    });
    Took {
        own: started_ms - seen_ms,
        to_listener: request_ms - seen_ms,
    }
}

/// Waits for the first request after `known` whose path is meant; when it was answered, in milliseconds since 1970.
fn when(hub: &Hub, is_meant: impl Fn(&str) -> bool, known: usize) -> u64 {
    hub.wait("a request", |state| {
        let mut new = state.requests()[known..].iter();
        new.any(|request| is_meant(&request.path)).then_some(())
    });
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn push(hub: &Hub) -> u64 {
    let run = hub.launch(
        Trigger::push("acme/app"),
        vec![steps("build", &LABELS, &["true"])],
    );
    hub.jobs_of(run)[0]
}

/// Packs the tree, and writes what the daemon needs to serve `hub`; the configuration's file.
fn configure(hub: &Hub, dir: &Utf8Path) -> camino::Utf8PathBuf {
    let token = dir.join("token");
    fs::write(&token, hub.any_token()).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let large_byte = (TREE_BYTE - (FILES - LARGE) * SMALL_BYTE) / LARGE;
    let content: Vec<u8> = (0..large_byte)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect();
    let sha256 = publish_with(&dir.join("releases"), |add| {
        // Four files and the installation's own are there besides.
        for n in 0..FILES - 5 {
            let byte = if n < LARGE { large_byte } else { SMALL_BYTE };
            add(
                &format!("./externals/{}/file-{n}", n % 100),
                &content[..byte],
                0o644,
            );
        }
    });
    let file = dir.join("ephemerd.toml");
    let text = format!(
        "[host]\ndata_dir = \"{dir}/data\"\nmanifest = \"none\"\n[native]\nslots = 4\nhomebrew = \"none\"\n\
         allow_degraded = [\"network\"]\n[egress]\nmode = \"open\"\n[log]\nlevel = \"error\"\n\
         [trust.repos]\n\"acme/*\" = \"native\"\n\
         [github]\napi = {:?}\nrepos = [\"acme/app\"]\nlabels = [\"self-hosted\", \"eph-native\"]\ntoken_file = {token:?}\n\
         poll = \"1s\"\nidle_poll = \"1s\"\nrunner_version = \"2.336.0\"\nrunner_sha256 = \"{sha256}\"\n\
         runner_releases = \"file://{dir}/releases\"\n",
        hub.url()
    );
    fs::write(&file, text).unwrap();
    file
}

/// The one tree that is installed.
fn installed(runners: &Utf8Path) -> camino::Utf8PathBuf {
    let mut trees = runners.read_dir_utf8().unwrap();
    trees.next().unwrap().unwrap().into_path()
}

/// How many files a tree has, and how many bytes.
fn size(tree: &Utf8Path) -> (usize, u64) {
    let entries = walkdir::WalkDir::new(tree).into_iter().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.fold((0, 0), |(count, byte), file| {
        (count + 1, byte + file.metadata().unwrap().len())
    })
}

fn rows(socket: &Utf8Path) -> Vec<JobRow> {
    match ask(socket, &Ask::Jobs { all: true }).unwrap().0 {
        Answer::Jobs { jobs } => jobs,
        other => panic!("{other:?}"),
    }
}

/// Looks again until there is something; the pause only spares the processor.
fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all[all.len() / 2]
}

fn start(config: &Utf8Path) -> Child {
    #[expect(
        clippy::disallowed_methods,
        reason = "a benchmark starts the program it measures"
    )]
    let mut command = Command::new(env!("CARGO_BIN_EXE_ephemerd"));
    command
        .args(["--config", config.as_str(), "run"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn terminate(daemon: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(daemon.wait().unwrap().success());
}
