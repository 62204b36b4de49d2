//! How long a Homebrew prefix for a job takes: the template of a host with 200 kegs, each job's copy of it, and
//! its removal.
//!
//! The figure to watch is the copy, which every job waits for. `TMPDIR` says on which file system to measure.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot measure has nothing to report"
)]

#[path = "../fakes/homebrew.rs"]
#[expect(dead_code, reason = "the benchmark makes kegs of its own")]
mod fake;

use std::time::{Duration, Instant};

use camino::Utf8Path;
use ephemerd::host::files::{usage, wipe};
use ephemerd::workspace::homebrew::{HostBrew, Layout, Shelf};
use fake::{FakeHomebrew, Repository};

const KEGS: usize = 200;

/// Files of a keg that are linked into the prefix one by one, that lie in a folder linked as one, and that are
/// in no folder of those: a middling formula's.
const PLAIN: usize = 20;
const DEEP: usize = 180;
const PRIVATE: usize = 100;

const ROUNDS: usize = 10;

fn main() {
    let keep = tempfile::tempdir().expect("a folder");
    let top = Utf8Path::from_path(keep.path()).expect("a path that is text");
    let host = FakeHomebrew::make(&top.join("opt/homebrew"), Repository::Prefix);
    for number in 0..KEGS {
        install(&host, &format!("formula{number}"));
    }
    std::fs::create_dir_all(top.join("data/templates")).expect("a data folder");
    let shelf = Shelf::new(&top.join("data"));
    let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    for layout in [Layout::Links, Layout::Clone] {
        let (mut first, mut copies, mut removals) = (Duration::ZERO, vec![], vec![]);
        let mut described = String::new();
        for round in 0..=ROUNDS {
            let begin = Instant::now();
            let brew = HostBrew::at(&host.prefix).expect("a Homebrew");
            let served = shelf
                .serve(&brew, layout, &top.join("copy"), owner)
                .expect("a copy");
            if round == 0 {
                first = begin.elapsed();
                let size = usage(&top.join("copy")).expect("a size");
                let note = served.note.map_or("as asked", |_| "links, no clones here");
                described = format!("entries={} mib={} ({note})", size.entries, size.bytes >> 20);
            } else {
                copies.push(begin.elapsed());
            }
            let begin = Instant::now();
            wipe(top, "copy").expect("removed");
            removals.push(begin.elapsed());
        }
        println!(
            "RESULT homebrew layout={layout:?} kegs={KEGS} first_ms={} copy_p50_ms={} copy_max_ms={} wipe_p50_ms={} {described}",
            first.as_millis(),
            middle(&mut copies).as_millis(),
            copies.iter().max().map_or(0, Duration::as_millis),
            middle(&mut removals).as_millis(),
        );
    }
}

/// Installs and links one formula.
fn install(host: &FakeHomebrew, name: &str) {
    let plain: Vec<String> = (0..PLAIN).map(|n| format!("bin/{name}-{n}")).collect();
    let deep = (0..DEEP).map(|n| format!("share/{name}/part{}/file{n}", n % 9));
    let private = (0..PRIVATE).map(|n| format!("libexec/part{}/file{n}", n % 9));
    let files: Vec<String> = plain.iter().cloned().chain(deep).chain(private).collect();
    host.keg(
        name,
        "1.2.3",
        &files.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let share = format!("share/{name}");
    let linked: Vec<&str> = plain.iter().map(String::as_str).chain([share.as_str()]).collect();
    host.linked(name, "1.2.3", &linked);
}

fn middle(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
