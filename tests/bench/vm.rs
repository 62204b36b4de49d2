//! Guests beside native jobs: how long it takes from a job's place to its command, and how much memory a job has that
//! sleeps, for the same job as a native one and in a guest of QEMU, by emulation, in the same run.
//!
//! Needs root, the accounts of `ephemerd host setup`, and the image of `scripts/vm-image.sh`; `scripts/bench.sh vm` sees
//! to all of them.

#[path = "daemon.rs"]
mod daemon;

use camino::Utf8PathBuf;
use daemon::Daemon;
use ephemerd::job::ledger::JobRow;

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
    let daemon = Daemon::start(
        &dir,
        &format!(
            "[native]\nslots = 2\n[native.limits]\nmemory = \"256MiB\"\n[egress]\nmode = \"offline\"\n\
             [trust.repos]\n\"bench/*\" = \"native\"\n\"guest/*\" = \"vm\"\n[vm]\nhost_memory = \"256MiB\"\n\
             [vm.backends.qemu]\npreset = \"qemu-tcg\"\nimage = \"{image}\"\ncpu = 1\nmemory = \"512MiB\"\ndisk = \"2GiB\"\n"
        ),
    );
    let mut native = Found {
        start_ms: u64::MAX,
        memory_mib: u64::MAX,
    };
    let mut guest = Found {
        start_ms: u64::MAX,
        memory_mib: u64::MAX,
    };
    for _ in 0..ROUNDS {
        measure(&daemon, "bench/app", &mut native);
        measure(&daemon, "guest/app", &mut guest);
    }
    drop(daemon);
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
fn measure(daemon: &Daemon, repo: &str, found: &mut Found) {
    let row = daemon.ended(&daemon.submit(repo, &["sleep", "3"]));
    let JobRow {
        outcome,
        claimed_ms,
        started_ms,
        memory_peak_byte,
        ..
    } = row;
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
