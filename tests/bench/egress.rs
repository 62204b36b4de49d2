//! Egress: what the rules cost a confined account over a veth pair, with the rules and without them in turns, and how
//! long it takes to refuse, to load, to verify and to load again.
//!
//! Needs root and the accounts of `ephemerd host setup`; `scripts/bench.sh egress` sees to both. Everything is sent
//! between two network namespaces of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ephemerd::daemon::start::survey;
use ephemerd::host::Host;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ephemerd");
const HOST: &str = "eph-bench-host";
const WORLD: &str = "eph-bench-world";

/// Turns with the rules and without.
const ROUNDS: usize = 12;

/// How long bytes flow in one turn.
const FLOW: Duration = Duration::from_millis(600);

/// Connections in one turn.
const CONNECTIONS: usize = 1500;

/// Where bytes flow to, and what connections are made to: an address of the internet.
const SINK: &str = "203.0.113.10:9001";
const GREETER: &str = "203.0.113.10:9002";

/// What is refused, by each family.
const REFUSED: [&str; 2] = ["10.9.8.7:9002", "[fd12::1]:9002"];

/// Sends to the LAN every millisecond and prints the longest time in which that worked, in milliseconds.
const KNOCK: &str = r#"
import socket, time
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
longest, since, end = 0.0, None, time.monotonic() + 4
print("knocking", flush=True)
while time.monotonic() < end:
    try:
        one.sendto(b"x", ("10.9.8.7", 9))
        since = since or time.monotonic()
        longest = max(longest, time.monotonic() - since)
    except PermissionError:
        since = None
    time.sleep(0.001)
print(longest * 1000)
"#;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("flow") => println!("{}", flow()),
        Some("connect") => println!("{}", connect(&args[2])),
        Some("serve") => serve(),
        _ => measure(),
    }
}

/// Bytes a second that this process sends.
fn flow() -> f64 {
    let mut stream = TcpStream::connect(SINK).expect("the sink");
    let buffer = vec![0; 128 * 1024];
    let (begin, mut sent) = (Instant::now(), 0usize);
    while begin.elapsed() < FLOW {
        sent += stream.write(&buffer).expect("a write");
    }
    sent as f64 / begin.elapsed().as_secs_f64()
}

/// Microseconds that a connection takes in the middle, made or refused.
fn connect(to: &str) -> f64 {
    let to: SocketAddr = to.parse().expect("an address");
    let mut each: Vec<f64> = (0..CONNECTIONS)
        .map(|_| {
            let begin = Instant::now();
            let _ = TcpStream::connect_timeout(&to, Duration::from_secs(2));
            begin.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    middle(&mut each)
}

/// Takes bytes, and connections.
fn serve() {
    let sink = TcpListener::bind(SINK).expect("the sink's port");
    std::thread::spawn(move || {
        for stream in sink.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                let mut buffer = vec![0; 256 * 1024];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
            });
        }
    });
    let greeter = TcpListener::bind(GREETER).expect("the greeter's port");
    println!("serving");
    for stream in greeter.incoming() {
        drop(stream);
    }
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn command(program: &str) -> Command {
    #[expect(clippy::disallowed_methods, reason = "a benchmark starts what it measures")]
    Command::new(program)
}

fn ip(args: &str) {
    let status = command("/usr/sbin/ip")
        .args(args.split(' '))
        .status()
        .expect("ip starts");
    assert!(status.success(), "ip {args}");
}

/// A program in a namespace.
fn inside(space: &str, program: &str) -> Command {
    let mut nsenter = command("/usr/bin/nsenter");
    nsenter.arg(format!("--net=/run/netns/{space}")).arg(program);
    nsenter
}

fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().expect("it starts");
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// This very benchmark, a copy of it, as an account on the host; the figure that it prints.
fn as_account(own: &Path, uid: u32, args: &[&str]) -> f64 {
    let id = uid.to_string();
    let mut command = inside(HOST, "/usr/bin/setpriv");
    command
        .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .arg(own)
        .args(args);
    output(&mut command).trim().parse().expect("a figure")
}

/// The two namespaces; dropped, they are gone.
struct Net;

impl Net {
    fn new() -> Self {
        drop(Self);
        ip(&format!("netns add {HOST}"));
        ip(&format!("netns add {WORLD}"));
        ip(&format!(
            "link add name lan netns {HOST} type veth peer name lan netns {WORLD}"
        ));
        for (space, address) in [(HOST, "192.168.77.1/24"), (WORLD, "192.168.77.2/24")] {
            ip(&format!("-n {space} link set lo up"));
            ip(&format!("-n {space} address add {address} dev lan"));
            ip(&format!("-n {space} link set lan up"));
        }
        ip(&format!("-n {HOST} route add default via 192.168.77.2"));
        ip(&format!("-n {HOST} -6 route add default dev lan"));
        ip(&format!("-n {WORLD} address add 203.0.113.10/32 dev lo"));
        Self
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for space in [HOST, WORLD] {
            let _ = command("/usr/sbin/ip")
                .args(["netns", "delete", space])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn measure() {
    let folder = tempfile::tempdir_in("/var/lib").expect("a folder");
    // Jobs' accounts pass through to their workspaces, and to this program.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).expect("a mode");
    let own = folder.path().join("bench");
    std::fs::copy(std::env::current_exe().expect("a path"), &own).expect("a copy");
    let [config, open] = ["bench.toml", "open.toml"].map(|name| folder.path().join(name));
    let text = format!(
        "[host]\ndata_dir = \"{}/data\"\n[native]\nhomebrew = \"none\"\n",
        folder.path().display()
    );
    std::fs::write(&config, &text).expect("a configuration");
    std::fs::write(&open, format!("{text}[egress]\nmode = \"open\"\n")).expect("a configuration");
    let parsed = ephemerd::config::parse(&text, "bench.toml")
        .expect("a configuration")
        .config;
    let accounts = survey(&Host::system(), &parsed)
        .1
        .expect("accounts: run `ephemerd host setup`");
    let uid = accounts[0].uid;
    let _net = Net::new();
    let mut server = inside(WORLD, own.to_str().expect("UTF-8"))
        .arg("serve")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut first = [0; 7];
    server
        .stdout
        .as_mut()
        .expect("a pipe")
        .read_exact(&mut first)
        .expect("a server");

    let timed = |config: &Path, args: &[&str]| {
        let begin = Instant::now();
        output(inside(HOST, PROGRAM).arg("--config").arg(config).args(args));
        begin.elapsed().as_secs_f64() * 1e3
    };
    let as_account = |args: &[&str]| as_account(&own, uid, args);
    let (mut flows, mut connects) = ([vec![], vec![]], [vec![], vec![]]);
    let (mut applies, mut verifies) = (vec![], vec![]);
    let mut ratios = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (turn, verb) in ["remove", "apply"].into_iter().enumerate() {
            let took = timed(&config, &["egress", verb]);
            if turn == 1 {
                applies.push(took);
                verifies.push(timed(&config, &["egress", "status"]));
            }
            flows[turn].push(as_account(&["flow"]));
            connects[turn].push(as_account(&["connect", GREETER]));
        }
        let last = |of: &[Vec<f64>; 2], turn: usize| of[turn][of[turn].len() - 1];
        ratios[0].push(last(&flows, 1) / last(&flows, 0));
        ratios[1].push(last(&connects, 1) / last(&connects, 0));
    }
    let refused = REFUSED.map(|to| as_account(&["connect", to]));
    let mut jobs = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (times, config) in jobs.iter_mut().zip([&open, &config]) {
            times.push(timed(config, &["exec", "--", "/bin/true"]));
        }
    }
    let [mut plain, mut filtered] = jobs;
    let open = reopened(&config);
    let [mut none, mut rules] = flows;
    let [mut none_us, mut rules_us] = connects;
    let [mut flow_ratio, mut connect_ratio] = ratios;
    println!(
        "RESULT egress n={ROUNDS} flow_none_gbit={:.1} flow_rules_gbit={:.1} flow_ratio={:.2} connect_none_us={:.1} \
         connect_rules_us={:.1} connect_ratio={:.2} refused_v4_us={:.0} refused_v6_us={:.0} apply_ms={:.0} status_ms={:.0} \
         exec_open_ms={:.0} exec_block_lan_ms={:.0} open_at_most_ms={open:.0}",
        middle(&mut none) * 8e-9,
        middle(&mut rules) * 8e-9,
        middle(&mut flow_ratio),
        middle(&mut none_us),
        middle(&mut rules_us),
        middle(&mut connect_ratio),
        refused[0],
        refused[1],
        middle(&mut applies),
        middle(&mut verifies),
        middle(&mut plain),
        middle(&mut filtered),
    );
    server.kill().expect("the server lives");
    server.wait().expect("an end");
}

/// The longest time, in milliseconds, in which a running job reached the LAN while somebody flushed all rules again and
/// again.
fn reopened(config: &Path) -> f64 {
    let mut job = inside(HOST, PROGRAM)
        .arg("--config")
        .arg(config)
        .args(["exec", "--", "/usr/bin/python3", "-c", KNOCK])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a job starts");
    let mut stdout = job.stdout.take().expect("a pipe");
    let mut line = [0; 9];
    stdout.read_exact(&mut line).expect("a job that knocks");
    while job.try_wait().expect("a job").is_none() {
        output(inside(HOST, "/usr/sbin/nft").args(["flush", "ruleset"]));
        std::thread::sleep(Duration::from_millis(250));
    }
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("its output");
    rest.trim().parse().expect("a figure")
}
