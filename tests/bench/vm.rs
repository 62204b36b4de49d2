//! Guests beside native jobs: how long it takes from a job's place to its command, and how much memory a job has that
//! sleeps, for the same job as a native one and in a guest of QEMU, by emulation, in the same run.
//!
//! Needs root, the accounts of `ephemerd host setup`, and the image of `scripts/vm-image.sh`; `scripts/bench.sh vm` sees
//! to all of them.

use std::process::{Child, Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::control::client::ask;
use ephemerd::control::{Answer, Ask};
use ephemerd::job::ledger::JobRow;
use ephemerd::job::{JobSpec, Origin, Repo};

/// Each side is measured this often, in turns.
const ROUNDS: usize = 3;

/// What was found of one side: the least.
struct Found {
    start_ms: u64,
    memory_mib: u64,
}

fn main() {
    let image = concat!(env!("CARGO_MANIFEST_DIR"), "/target/vm-image/debian");
    let dir = tempfile::tempdir().expect("a folder");
    let dir = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("UTF-8");
    let file = dir.join("ephemerd.toml");
    let text = format!(
        "[host]\ndata_dir = \"{dir}/data\"\nmanifest = \"none\"\n[native]\nslots = 2\n[native.limits]\nmemory = \"256MiB\"\n[egress]\nmode = \"offline\"\n[log]\nlevel = \"error\"\n\
         [trust.repos]\n\"bench/*\" = \"native\"\n\"guest/*\" = \"vm\"\n[vm]\nhost_memory = \"256MiB\"\n\
         [vm.backends.qemu]\npreset = \"qemu-tcg\"\nimage = \"{image}\"\ncpu = 1\nmemory = \"512MiB\"\ndisk = \"2GiB\"\n"
    );
    std::fs::write(&file, text).expect("a configuration");
    let mut daemon = start(&file);
    let socket = dir.join("data/run/ephemerd.sock");
    while ask(&socket, &Ask::Status {}).is_err() {
        assert!(
            daemon.try_wait().expect("a child").is_none(),
            "the daemon has ended"
        );
        std::thread::yield_now();
    }
    let mut native = Found {
        start_ms: u64::MAX,
        memory_mib: u64::MAX,
    };
    let mut guest = Found {
        start_ms: u64::MAX,
        memory_mib: u64::MAX,
    };
    for _ in 0..ROUNDS {
        measure(&socket, "bench/app", &mut native);
        measure(&socket, "guest/app", &mut guest);
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    daemon.wait().expect("the end of the daemon");
    println!("            place to command   memory of a job that sleeps");
    for (name, found) in [("native", &native), ("qemu (tcg)", &guest)] {
        println!(
            "{name:<11} {:>10} ms {:>22} MiB",
            found.start_ms, found.memory_mib
        );
    }
    println!(
        "RESULT vm n={ROUNDS} native_ms={} guest_ms={} native_mib={} guest_mib={} ratio_ms={:.0}",
        native.start_ms,
        guest.start_ms,
        native.memory_mib,
        guest.memory_mib,
        ratio(guest.start_ms, native.start_ms)
    );
}

fn ratio(one: u64, other: u64) -> f64 {
    let float = |ms: u64| f64::from(u32::try_from(ms).unwrap_or(u32::MAX));
    float(one) / float(other.max(1))
}

/// Runs a job that sleeps long enough to be measured, and takes the least of what was found.
fn measure(socket: &Utf8Path, repo: &str, found: &mut Found) {
    let repo: Repo = repo.parse().expect("a repository");
    let spec = JobSpec {
        origin: Origin::own(&repo),
        command: ["sleep", "3"].map(str::to_owned).to_vec(),
        env: std::collections::BTreeMap::new(),
        timeout_s: None,
    };
    let Answer::Submitted { job, .. } = ask(socket, &Ask::Submit { spec }).expect("an answer").0 else {
        panic!("the job was not taken");
    };
    let Answer::Story(story) = ask(socket, &Ask::Wait { job }).expect("an answer").0 else {
        panic!("no story");
    };
    let JobRow {
        outcome,
        claimed_ms,
        started_ms,
        memory_peak_byte,
        ..
    } = story.job;
    assert!(
        outcome.as_ref().is_some_and(ephemerd::job::Outcome::is_success),
        "{outcome:?}"
    );
    let (claimed, started) = (claimed_ms.expect("a place"), started_ms.expect("a start"));
    found.start_ms = found.start_ms.min(started.saturating_sub(claimed));
    found.memory_mib = found
        .memory_mib
        .min(memory_peak_byte.expect("measured memory") >> 20);
}

#[expect(
    clippy::disallowed_methods,
    reason = "the daemon must be started, and from outside"
)]
fn start(config: &Utf8Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ephemerd"))
        .args(["--config", config.as_str(), "run"])
        .stdin(Stdio::null())
        .spawn()
        .expect("a daemon")
}
