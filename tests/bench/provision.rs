//! Provisioning: a check of a hundred items, each with a tool of its own, against its slowest probe alone in the same run;
//! and what the gate compares before each job.
//!
//! Needs root and the accounts of `ephemerd host setup`; `scripts/bench.sh provision` sees to both.

#[path = "figures.rs"]
#[expect(dead_code, reason = "its peer is not bubblewrap")]
mod figures;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use camino::Utf8Path;
use ephemerd::host::provision::stamp::stamps;
use figures::timed;

const ITEMS: usize = 100;
/// What the slowest probe takes, in seconds; the others take next to nothing.
const SLOWEST: &str = "1";
const ROUNDS: usize = 5;

fn main() {
    let dir = tempfile::Builder::new()
        .prefix("ephbench-")
        .tempdir_in("/var/lib")
        .expect("a folder");
    let dir = Utf8Path::from_path(dir.path()).expect("UTF-8");
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).expect("a folder that jobs pass");
    let bin = dir.join("bin");
    fs::create_dir(&bin).expect("a folder");
    let mut items = String::from("version = 1\nos = \"linux\"\n");
    for n in 0..ITEMS {
        let tool = bin.join(format!("tool-{n}"));
        let wait = if n == 0 {
            format!("sleep {SLOWEST}; ")
        } else {
            String::new()
        };
        fs::write(&tool, format!("#!/bin/sh\n{wait}echo tool {n}.1\n")).expect("a tool");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("a tool");
        let range = format!(">={n}");
        writeln!(
            items,
            "[command.tool-{n}]\nwhy = \"w\"\npath = [{bin:?}]\nversion = {range:?}"
        )
        .expect("text");
    }
    let (manifest, config) = (dir.join("m.toml"), dir.join("ephemerd.toml"));
    fs::write(&manifest, items).expect("a manifest");
    fs::write(
        &config,
        format!("[host]\ndata_dir = \"{dir}/data\"\n[native]\nextra_read = [{bin:?}]\n[egress]\nmode = \"offline\"\n"),
    )
    .expect("a configuration");
    let slowest = bin.join("tool-0");
    let check = [
        env!("CARGO_BIN_EXE_ephemerd"),
        "--config",
        config.as_str(),
        "provision",
        "--manifest",
        manifest.as_str(),
    ];
    let (mut ours, mut alone) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        ours = ours.min(timed(&check).as_secs_f64());
        alone = alone.min(timed(&[slowest.as_str()]).as_secs_f64());
    }
    let files: Vec<_> = (0..ITEMS).map(|n| bin.join(format!("tool-{n}"))).collect();
    let begin = Instant::now();
    for _ in 0..100 {
        assert!(stamps(files.clone()).values().all(Option::is_some));
    }
    let gate_us = begin.elapsed().as_secs_f64() * 1e6 / 100.0;
    println!(
        "RESULT provision items={ITEMS} check_ms={:.0} slowest_ms={:.0} over_ms={:.0} ratio={:.2} gate_us={gate_us:.0}",
        ours * 1e3,
        alone * 1e3,
        (ours - alone) * 1e3,
        ours / alone
    );
}
