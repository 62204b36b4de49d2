//! A folder with the stand-in for GitHub's runner in it, as a job has one, and a server of a few lines that it asks for
//! work. Tests include it by `#[path]`.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::github::runner::jit::JitConfig;
use ephemerd::github::runner::listener::{self, Ending, Exit};
use ephemerd::github::runner::output::{Event, Output};
use ephemerd::github::secret::Secret;
use ephemerd::host::Os;
use ephemerd::host::runner::write_files;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid};
use serde_json::{Value, json};

/// What the server has been asked, and what it will answer.
#[derive(Debug, Default)]
pub(crate) struct Script {
    requests: Vec<(String, Value)>,
    pub(crate) session: Option<(u16, Value)>,
    messages: VecDeque<(u16, Value)>,
}

/// The server of one test.
pub(crate) struct Server {
    pub(crate) script: Arc<Mutex<Script>>,
    url: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = Arc::clone(&script);
        std::thread::spawn(move || listener.incoming().for_each(|it| answer(it.unwrap(), &shared)));
        Self { script, url }
    }

    pub(crate) fn will_say(&self, status: u16, body: Value) {
        self.script.lock().unwrap().messages.push_back((status, body));
    }

    /// Offers a job of these steps, of which those that begin with `always:` always run.
    pub(crate) fn offer(&self, steps: &[&str]) {
        let steps = steps.iter().map(|step| match step.strip_prefix("always:") {
            Some(run) => json!({"run": run, "always": true}),
            None => json!({"run": step}),
        });
        let github = json!({"repository": "o/r", "run_id": 77, "run_attempt": 1, "job": "build", "event_name": "push",
            "sha": "c0ffee", "event": {"action": "queued"}});
        let job = json!({"id": 7, "name": "build (linux)", "steps": steps.collect::<Vec<_>>(),
            "env": {"OF_JOB": "x", "BASH_ENV": "/nonexistent"}, "github": github, "cancellable": true});
        self.will_say(200, json!({"job": job}));
    }

    /// The bodies of requests to `what`, method and path.
    pub(crate) fn asked(&self, what: &str) -> Vec<Value> {
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
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) root: Utf8PathBuf,
    pub(crate) work: Utf8PathBuf,
    pub(crate) hook: Option<Utf8PathBuf>,
    pub(crate) keep: tempfile::TempDir,
}

/// What a listener left behind.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) ending: Ending,
    pub(crate) events: Vec<Event>,
    pub(crate) said: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn faults(&self, mut faults: Value) {
        faults["poll"] = json!(0.02);
        fs::write(self.root.join("bin/faults.json"), faults.to_string()).unwrap();
    }

    /// Makes this the program that runs before the first step.
    pub(crate) fn hook(&mut self, script: &str) {
        let hook = self.root.with_file_name("hook.sh");
        fs::write(&hook, script).unwrap();
        self.hook = Some(hook);
    }

    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let path = ("PATH".to_owned(), std::env::var("PATH").unwrap());
        listener::environment(Os::Linux, &[path].into(), self.hook.as_deref())
    }

    pub(crate) fn start(&self) -> Started {
        Started::new(self.command(self.environment()))
    }

    #[expect(clippy::disallowed_methods, reason = "the stand-in must be started")]
    pub(crate) fn command(&self, environment: BTreeMap<String, String>) -> Command {
        let argv = listener::argv(&self.root);
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).env_clear().envs(environment);
        command
    }

    pub(crate) fn run(&self) -> Left {
        self.start().end()
    }

    /// The content of a file in the folder that jobs work in.
    pub(crate) fn wrote(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.work.join("job").join(name)).ok()
    }

    pub(crate) fn wait_for(&self, name: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.wrote(name).is_none() {
            assert!(Instant::now() < end, "no {name}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn results(&self) -> Vec<Value> {
        self.server.asked("POST /finish")
    }
}

/// A listener that runs, and the one pipe that it prints and complains to.
pub(crate) struct Started {
    pub(crate) child: Child,
    output: PipeReader,
}

impl Started {
    pub(crate) fn new(mut command: Command) -> Self {
        let (output, errors) = pipe().unwrap();
        let child = command
            .stdout(errors.try_clone().unwrap())
            .stderr(errors)
            .spawn()
            .unwrap();
        Self { child, output }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn end(mut self) -> Left {
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
