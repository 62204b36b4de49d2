//! The stand-in for GitHub's runner, against a server of a few lines: it must behave as the facts say, and what the
//! library makes of it must be right.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::github::runner::jit::JitConfig;
use ephemerd::github::runner::listener::{self, Ending, Exit, Next, Observed, TaskResult};
use ephemerd::github::runner::output::{Event, Output};
use ephemerd::github::secret::Secret;
use ephemerd::host::Os;
use ephemerd::host::runner::write_files;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid};
use serde_json::{Value, json};

/// What the server has been asked, and what it will answer.
#[derive(Debug, Default)]
struct Script {
    requests: Vec<(String, Value)>,
    session: Option<(u16, Value)>,
    messages: VecDeque<(u16, Value)>,
}

/// The server of one test.
struct Server {
    script: Arc<Mutex<Script>>,
    url: String,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = Arc::clone(&script);
        std::thread::spawn(move || listener.incoming().for_each(|it| answer(it.unwrap(), &shared)));
        Self { script, url }
    }

    fn will_say(&self, status: u16, body: Value) {
        self.script.lock().unwrap().messages.push_back((status, body));
    }

    /// Offers a job of these steps, of which those that begin with `always:` always run.
    fn offer(&self, steps: &[&str]) {
        let steps = steps.iter().map(|step| match step.strip_prefix("always:") {
            Some(run) => json!({"run": run, "always": true}),
            None => json!({"run": step}),
        });
        let github = json!({"repository": "o/r", "event": {"action": "queued"}});
        let job = json!({"id": 7, "name": "build (linux)", "steps": steps.collect::<Vec<_>>(),
            "env": {"OF_JOB": "x", "BASH_ENV": "/nonexistent"}, "github": github, "cancellable": true});
        self.will_say(200, json!({"job": job}));
    }

    /// The bodies of requests to `what`, method and path.
    fn asked(&self, what: &str) -> Vec<Value> {
        let script = self.script.lock().unwrap();
        let matching = script
            .requests
            .iter()
            .filter(|(request, _)| request.starts_with(what));
        matching.map(|(_, body)| body.clone()).collect()
    }
}

/// Answers one request, and closes the connection.
fn answer(mut stream: TcpStream, script: &Mutex<Script>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let request = head.split(" HTTP").next().unwrap().to_owned();
    let mut script = script.lock().unwrap();
    let (status, reply) = match request.as_str() {
        "POST /session" => script
            .session
            .clone()
            .unwrap_or((200, json!({"sessionId": "s 1"}))),
        "GET /message?sessionId=s%201" => script.messages.pop_front().unwrap_or((202, json!({}))),
        "POST /finish" | "DELETE /session?sessionId=s%201" => (200, json!({})),
        other => (404, json!({"errorMessage": other})),
    };
    script
        .requests
        .push((request, serde_json::from_slice(&body).unwrap_or_default()));
    drop(script);
    let text = reply.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close",
        text.len()
    );
    // Whoever asked may be gone.
    let _ = write!(stream, "{head}\r\n\r\n{text}");
}

/// A runner's folder with the stand-in in it, written as a job's is.
struct Bench {
    server: Server,
    root: Utf8PathBuf,
    work: Utf8PathBuf,
    hook: Option<Utf8PathBuf>,
    keep: tempfile::TempDir,
}

/// What a listener left behind.
#[derive(Debug)]
struct Left {
    ending: Ending,
    events: Vec<Event>,
    said: String,
}

impl Bench {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        let (server, root, work) = (Server::start(), top.join("runner"), top.join("work"));
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir(&work).unwrap();
        let fake = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/runner/Runner.Listener");
        fs::copy(fake, root.join(listener::PROGRAM)).unwrap();
        let settings = json!({"agentId": 23, "AgentName": "mac01-9f2c", "Ephemeral": true, "WorkFolder": "_work",
            "ServerUrlV2": server.url});
        let credentials = json!({"Scheme": "OAuth", "Data": {"clientId": "planted-client"}});
        let members = [
            (".runner", settings),
            (".credentials", credentials),
            (".credentials_rsaparams", json!({"d": "planted-key"})),
        ];
        let members = members.map(|(name, content)| (name, STANDARD.encode(content.to_string())));
        let packed = STANDARD.encode(json!(BTreeMap::from(members)).to_string());
        let config = JitConfig::decode(&Secret::new(packed), &work).unwrap();
        write_files(&root, &config, (geteuid().as_raw(), getegid().as_raw())).unwrap();
        let bench = Self {
            server,
            root,
            work,
            hook: None,
            keep,
        };
        bench.faults(json!({}));
        bench
    }

    fn faults(&self, mut faults: Value) {
        faults["poll"] = json!(0.02);
        fs::write(self.root.join("bin/faults.json"), faults.to_string()).unwrap();
    }

    /// Makes this the program that runs before the first step.
    fn hook(&mut self, script: &str) {
        let hook = self.root.with_file_name("hook.sh");
        fs::write(&hook, script).unwrap();
        self.hook = Some(hook);
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let path = ("PATH".to_owned(), std::env::var("PATH").unwrap());
        listener::environment(Os::Linux, &[path].into(), self.hook.as_deref())
    }

    fn start(&self) -> Started {
        Started::new(self.command(self.environment()))
    }

    #[expect(clippy::disallowed_methods, reason = "the stand-in must be started")]
    fn command(&self, environment: BTreeMap<String, String>) -> Command {
        let argv = listener::argv(&self.root);
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).env_clear().envs(environment);
        command
    }

    fn run(&self) -> Left {
        self.start().end()
    }

    /// The content of a file in the folder that jobs work in.
    fn wrote(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.work.join("job").join(name)).ok()
    }

    fn wait_for(&self, name: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.wrote(name).is_none() {
            assert!(Instant::now() < end, "no {name}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn results(&self) -> Vec<Value> {
        self.server.asked("POST /finish")
    }
}

/// A listener that runs, and the one pipe that it prints and complains to.
struct Started {
    child: Child,
    output: PipeReader,
}

impl Started {
    fn new(mut command: Command) -> Self {
        let (output, errors) = pipe().unwrap();
        let child = command
            .stdout(errors.try_clone().unwrap())
            .stderr(errors)
            .spawn()
            .unwrap();
        Self { child, output }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn end(mut self) -> Left {
        let mut output = Vec::new();
        self.output.read_to_end(&mut output).unwrap();
        let mut parser = Output::new();
        let mut events = parser.feed(&output);
        events.extend(parser.finish());
        let status = self.child.wait().unwrap();
        let exit = status
            .code()
            .map_or_else(|| Exit::Signal(status.signal().unwrap()), Exit::Code);
        Left {
            ending: exit.into(),
            events,
            said: String::from_utf8(output).unwrap(),
        }
    }
}

const NAME: &str = "build (linux)";

fn completed(result: TaskResult) -> Event {
    let name = NAME.to_owned();
    Event::Completed { name, result }
}

#[test]
fn a_job_runs_from_its_message_to_its_result_and_the_credentials_are_gone() {
    let bench = Bench::new();
    bench.server.offer(&[
        "printf %s \"$OF_JOB $GITHUB_REPOSITORY $RUNNER_NAME\" > first; echo Exiting...",
        "cat \"$GITHUB_EVENT_PATH\" > second",
    ]);
    let left = bench.run();
    let name = NAME.to_owned();
    assert_eq!(
        left.events,
        [
            Event::Connected,
            Event::Version("2.336.0".parse().unwrap()),
            Event::Listening,
            Event::Running { name },
            completed(TaskResult::Succeeded),
        ]
    );
    assert_eq!(left.ending, Ending::Ran(TaskResult::Succeeded));
    assert_eq!(
        left.ending.next(Observed::Job, 0),
        Next::Finished(Some(TaskResult::Succeeded))
    );
    assert_eq!(bench.wrote("first").unwrap(), "x o/r mac01-9f2c");
    assert_eq!(bench.wrote("second").unwrap(), r#"{"action": "queued"}"#);
    assert_eq!(bench.results(), [json!({"job": 7, "result": "succeeded"})]);
    assert_eq!(bench.server.asked("DELETE /session").len(), 1);
    let session = bench.server.asked("POST /session");
    assert_eq!(
        session,
        [json!({"agentId": 23, "agentName": "mac01-9f2c", "version": "2.336.0"})]
    );
    let names = bench
        .root
        .read_dir_utf8()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["_diag", "bin"]);
}

#[test]
fn after_a_step_that_fails_only_those_that_always_run_do() {
    let bench = Bench::new();
    bench
        .server
        .offer(&["false", "touch skipped", "always:touch always"]);
    assert_eq!(bench.run().ending, Ending::Ran(TaskResult::Failed));
    assert!(bench.wrote("skipped").is_none());
    assert!(bench.wrote("always").is_some());
    assert_eq!(bench.results(), [json!({"job": 7, "result": "failed"})]);
}

#[test]
fn the_hook_comes_first_without_the_jobs_variables_and_steps_that_always_run_survive_it() {
    let mut bench = Bench::new();
    bench.hook("printf %s \"[$OF_JOB$BASH_ENV] $GITHUB_REPOSITORY\" > hook; test ! -e first; exit 3");
    bench.server.offer(&["touch first", "always:touch always"]);
    assert_eq!(bench.run().ending, Ending::Ran(TaskResult::Failed));
    assert_eq!(bench.wrote("hook").unwrap(), "[] o/r");
    assert!(bench.wrote("first").is_none());
    assert!(bench.wrote("always").is_some(), "so a hook alone stops nothing");
}

#[test]
fn an_interrupt_while_the_hook_waits_lets_no_step_run_whatever_it_says() {
    let mut bench = Bench::new();
    bench.hook("touch waiting; exec sleep 60");
    bench.server.offer(&["touch first", "always:touch always"]);
    let child = bench.start();
    bench.wait_for("waiting");
    child.signal(Signal::SIGINT);
    let left = child.end();
    assert_eq!(left.ending, Ending::Silent);
    assert_eq!(left.ending.next(Observed::Job, 0), Next::Finished(None));
    assert!(left.events.contains(&Event::Exiting));
    assert!(left.events.contains(&completed(TaskResult::Failed)));
    assert!(bench.wrote("first").is_none() && bench.wrote("always").is_none());
    assert_eq!(bench.results(), [json!({"job": 7, "result": "failed"})]);
}

#[test]
fn a_step_that_ignores_every_signal_is_killed_with_what_it_started() {
    let bench = Bench::new();
    bench.faults(json!({"grace": [0.2, 0.2]}));
    bench.server.offer(&[
        "trap '' INT TERM; touch waiting; sleep 60; touch survived",
        "always:touch always",
    ]);
    let child = bench.start();
    bench.wait_for("waiting");
    let start = Instant::now();
    child.signal(Signal::SIGINT);
    assert_eq!(child.end().ending, Ending::Silent);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(bench.wrote("survived").is_none() && bench.wrote("always").is_none());
}

#[test]
fn a_job_that_is_cancelled_at_github_still_runs_what_always_runs() {
    let bench = Bench::new();
    bench.server.offer(&[
        "touch waiting; exec sleep 60",
        "touch skipped",
        "always:touch always",
    ]);
    let child = bench.start();
    bench.wait_for("waiting");
    bench.server.will_say(200, json!({"cancel": 7}));
    assert_eq!(child.end().ending, Ending::Ran(TaskResult::Canceled));
    assert!(bench.wrote("skipped").is_none());
    assert!(bench.wrote("always").is_some());
}

#[test]
fn an_interrupt_without_a_job_ends_the_session() {
    let bench = Bench::new();
    let child = bench.start();
    while bench.server.asked("GET /message").is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.signal(Signal::SIGINT);
    let left = child.end();
    assert_eq!(left.ending.next(Observed::NoJob, 0), Next::NothingRan);
    assert!(left.events.contains(&Event::Exiting));
    assert_eq!(bench.server.asked("DELETE /session").len(), 1);
}

#[test]
fn a_version_that_is_refused_after_listening_is_told_apart_only_because_we_ask_for_it() {
    let refusal = json!({"source": "actions-broker-listener", "statusCode": 403, "errorKind": "RunnerVersionTooOld",
        "errorMessage": "Runner version v2.336.0 is deprecated and cannot receive messages."});
    let bench = Bench::new();
    bench.server.will_say(403, refusal.clone());
    let left = bench.run();
    assert_eq!(left.ending.next(Observed::NoJob, 0), Next::UpgradeRunner);
    assert!(left.events.contains(&Event::Listening), "which proves nothing");
    assert!(
        left.events
            .contains(&Event::Deprecated("2.336.0".parse().unwrap()))
    );
    bench.server.will_say(403, refusal);
    let mut plain = bench.environment();
    plain.retain(|name, _| !name.contains("RETURN"));
    assert_eq!(
        Started::new(bench.command(plain)).end().ending,
        Ending::Terminated
    );
}

#[test]
fn without_the_variable_the_result_of_a_job_is_not_told() {
    let bench = Bench::new();
    bench.server.offer(&["false"]);
    let mut plain = bench.environment();
    plain.retain(|name, _| !name.contains("RETURN"));
    assert_eq!(Started::new(bench.command(plain)).end().ending, Ending::Silent);
}

#[test]
fn a_session_that_is_refused_or_taken_and_a_runner_that_is_gone_end_as_they_do() {
    let session = |status, body| {
        let bench = Bench::new();
        bench.faults(json!({"conflict": [2, 0.01]}));
        bench.server.script.lock().unwrap().session = Some((status, body));
        let left = bench.run();
        let tries = bench.server.asked("POST /session").len();
        (left, tries)
    };
    let (left, _) = session(403, json!({"errorMessage": "no"}));
    assert_eq!(left.ending, Ending::Terminated);
    assert!(
        left.said.ends_with("Failed to create session. no\n"),
        "{}",
        left.said
    );
    assert_eq!(left.events, [Event::Connected], "said before anything works");
    let (left, tries) = session(409, json!({}));
    assert_eq!((left.ending, tries), (Ending::SessionConflict, 3));
    assert_eq!(left.ending.next(Observed::NoJob, 0), Next::Conflict);

    let bench = Bench::new();
    bench.server.will_say(403, json!({"errorKind": "RunnerNotFound"}));
    let left = bench.run();
    assert_eq!(left.ending, Ending::Silent);
    assert!(left.events.contains(&Event::Gone));
    assert!(!bench.root.join(".runner").exists());
}

#[test]
fn a_runner_without_its_files_does_not_start() {
    for (name, ending) in [
        (".runner", Ending::Terminated),
        (".credentials", Ending::Retryable),
        (".credentials_rsaparams", Ending::Retryable),
    ] {
        let bench = Bench::new();
        fs::remove_file(bench.root.join(name)).unwrap();
        let left = bench.run();
        assert_eq!((left.ending, left.events), (ending, vec![]), "{name}");
        assert!(left.said.starts_with("An error occurred: "), "{}", left.said);
    }
}

/// The folders above a workspace can be passed through but not listed, so a runner in one needs another view of them.
#[test]
fn root_a_runner_that_may_not_list_every_folder_above_its_own_does_not_start() {
    assert!(
        geteuid().is_root(),
        "tests named root_ need root: runs as another account"
    );
    let mut bench = Bench::new();
    bench.server.offer(&["true"]);
    let (uid, gid) = (61_234, 61_235);
    let own = |path: &Utf8Path| std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    own(&bench.root);
    own(&bench.work);
    for entry in bench.root.read_dir_utf8().unwrap() {
        own(entry.unwrap().path());
    }
    bench.hook("true");
    let start = |mode| {
        fs::set_permissions(bench.keep.path(), fs::Permissions::from_mode(mode)).unwrap();
        let mut command = bench.command(bench.environment());
        command.uid(uid).gid(gid);
        Started::new(command).end()
    };
    let left = start(0o711);
    assert_eq!(left.ending, Ending::Terminated);
    assert!(
        left.said.contains("each directory up the hierarchy"),
        "{}",
        left.said
    );
    let left = start(0o755);
    assert_eq!(left.ending, Ending::Ran(TaskResult::Succeeded), "{}", left.said);
}

#[test]
fn faults_are_made_as_they_are_asked_for() {
    let with = |faults: Value| {
        let bench = Bench::new();
        bench.faults(faults);
        bench.server.offer(&["true"]);
        bench.run()
    };
    assert_eq!(with(json!({"exit": 3})).ending, Ending::Updating);
    assert_eq!(
        with(json!({"exit": 2})).ending.next(Observed::NoJob, 0),
        Next::Relaunch
    );
    for place in ["session", "listening", "running", "done"] {
        assert_eq!(with(json!({"die": place})).ending, Ending::Signal(9), "{place}");
    }
    assert_eq!(with(json!({"mute": true})).events, []);
    let events = with(json!({"disconnect": 2})).events;
    let lost = Event::Reconnecting("Connection refused.".to_owned());
    let at = events.iter().position(|event| *event == lost).unwrap();
    assert_eq!(events[at + 1], Event::Reconnected, "said once");
    let lies = [
        "2026-08-17 10:00:00Z: Running job: other",
        "Current runner version: '9.0.0'",
    ];
    let events = with(json!({"says": lies})).events;
    assert_eq!(events.len(), 5, "{events:?}");
}

#[test]
fn nothing_secret_is_in_arguments_or_environment_while_a_job_runs() {
    let bench = Bench::new();
    bench.server.offer(&[
        "cat /proc/$PPID/environ /proc/$PPID/cmdline > seen 2>/dev/null || ps -E -ww -p $PPID > seen; env >> seen",
    ]);
    assert_eq!(bench.run().ending, Ending::Ran(TaskResult::Succeeded));
    let seen = fs::read(bench.work.join("job/seen")).unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("Runner.Listener"), "{seen}");
    assert!(!seen.contains("planted"), "{seen}");
    drop(bench.keep);
}
