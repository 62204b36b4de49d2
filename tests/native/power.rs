//! A power cut: what was written last is gone, or only in part. The next start takes up what it can read; what it cannot it
//! refuses, with what helps, and nothing that jobs left stays either way.

use std::fs;
use std::os::unix::fs::chown;

use camino::{Utf8Path, Utf8PathBuf};

use crate::harness::{Daemon, Site, files_of_accounts, processes_of, said, wait_for};

/// Pages of SQLite here, in bytes.
const PAGE_BYTE: u64 = 4096;

/// What a cut leaves of a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// No more than this.
    Cut(u64),
    /// All of it, but this page was never written.
    Lost(u64),
}

/// A ledger as a killed daemon left it, which is damaged again and again.
struct Scene {
    /// The ledger's files, and what was in them.
    files: Vec<(Utf8PathBuf, Vec<u8>)>,
    /// The folder of a job that ran.
    workspace: Utf8PathBuf,
    uid: u32,
}

impl Scene {
    /// Puts everything back as it was, but for the damage to one file.
    fn set(&self, at: &Utf8Path, damage: Damage) {
        for (path, bytes) in &self.files {
            fs::write(path, bytes).unwrap();
        }
        let file = fs::File::options().write(true).open(at).unwrap();
        match damage {
            Damage::Cut(length) => file.set_len(length).unwrap(),
            Damage::Lost(page) => {
                use std::os::unix::fs::FileExt;
                let nothing = vec![0; usize::try_from(PAGE_BYTE).unwrap()];
                file.write_all_at(&nothing, page * PAGE_BYTE).unwrap();
            }
        }
        let work = self.workspace.join("work");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("left"), "x").unwrap();
        for path in [&self.workspace, &work, &work.join("left")] {
            chown(path, Some(self.uid), None).unwrap();
        }
    }
}

/// Starts a daemon, after what its refusal says where it refuses; whether it did.
fn started(site: Site, what: &str) -> (Daemon, bool) {
    let tried = site.run(&["jobs"]);
    assert!(!tried.status.success(), "nobody runs yet");
    let mut child = site
        .ephemerd(&["run"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let refused = wait_for(&format!("{what}: a daemon that runs or does not"), || {
        if child.try_wait().unwrap().is_some() {
            return Some(true);
        }
        site.run(&["status"]).status.success().then_some(false)
    });
    if !refused {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(child.id().try_into().unwrap()),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let told = said(&output);
    if refused {
        assert_eq!(output.status.code(), Some(1), "{what}: {told}");
        assert!(
            told.contains("hint: move it away") || told.contains("move the file away"),
            "{what}: {told}"
        );
        // Which is what the hint says.
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(site.data_dir.join(format!("state/ledger.db{end}")));
        }
    } else {
        assert!(output.status.success(), "{what}: {told}");
    }
    (Daemon::start_at(site), refused)
}

#[test]
fn heavy_wherever_a_power_cut_ends_the_ledger_the_next_start_leaves_nothing_and_runs_jobs() {
    let daemon = Daemon::start("");
    for _ in 0..3 {
        assert!(daemon.outcome(&daemon.script("true")).is_success());
    }
    let running = daemon.script("echo ready; sleep 1000");
    daemon.wait_for_output(&running, "ready");
    let uid = daemon.site().family.uid(daemon.slot_of(&running));
    let mut site = daemon.kill();
    let state = site.data_dir.join("state");
    let names = ["ledger.db", "ledger.db-wal"].map(|name| state.join(name));
    let scene = Scene {
        files: names
            .iter()
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect(),
        workspace: site.data_dir.join(format!("native/{running}")),
        uid,
    };
    let (mut runs, mut refusals) = (0, 0);
    for (path, bytes) in &scene.files {
        let length = u64::try_from(bytes.len()).unwrap();
        assert!(length > 4 * PAGE_BYTE, "{path} has what can be lost: {length}");
        let pages = length / PAGE_BYTE;
        let cuts = (0..10).map(|part| Damage::Cut(length * part / 10 + part % 3));
        let lost = (0..6).map(|part| Damage::Lost(pages * part / 6));
        for damage in cuts.chain(lost) {
            let what = format!("{damage:?} of `{}`", path.file_name().unwrap());
            // What an earlier daemon knew of the file would not survive a cut.
            let _ = fs::remove_file(state.join("ledger.db-shm"));
            scene.set(path, damage);
            let (daemon, refused) = started(site, &what);
            assert!(!scene.workspace.exists(), "{what}");
            assert_eq!(processes_of(uid), Vec::<i32>::new(), "{what}");
            assert_eq!(
                files_of_accounts(&daemon.site().family.uids()),
                Vec::<String>::new(),
                "{what}"
            );
            assert!(daemon.outcome(&daemon.script("true")).is_success(), "{what}");
            site = daemon.stop();
            println!(
                "| {what} | {} |",
                if refused {
                    "refused, with what helps"
                } else {
                    "taken up"
                }
            );
            runs += 1;
            refusals += u32::from(refused);
        }
    }
    println!("{runs} cuts, {refusals} refused");
    // Otherwise nothing was tried of one or the other.
    assert!(refusals > 0 && refusals < runs, "{refusals} of {runs}");
}
