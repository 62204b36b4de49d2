//! Putting a host right, also when it is interrupted, and taking it back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::provision::receipt::{Before, Receipt, State, parse};

use super::manifest;
use crate::harness::{Site, command, err, out, said, wait_for};

/// A stand-in for npm(1), in the folder that the configuration puts on jobs' `PATH`: what is installed are files in a
/// folder, and with a file `kill-before` or `kill-after` it kills whoever calls it, once.
const NPM: &str = r#"#!/bin/sh
store=@STORE@
die() {
    if [ -e "$store/kill-$1" ]; then
        rm "$store/kill-$1"
        kill -9 "$PPID"
    fi
}
case $1 in
ls)
    printf '{"dependencies":{'
    comma=
    for file in "$store"/packages/*; do
        [ -e "$file" ] || continue
        printf '%s"%s":{"version":"1.0.0"}' "$comma" "${file##*/}"
        comma=,
    done
    printf '}}\n'
    ;;
install)
    die before
    shift 2
    : >"$store/packages/$1"
    die after
    ;;
uninstall)
    shift 2
    rm -f "$store/packages/$1"
    ;;
esac
"#;

/// A site with a stand-in for npm, an archive to fetch, and a manifest of steps of every kind.
struct Plot {
    site: Site,
    store: Utf8PathBuf,
    manifest: String,
}

/// Steps that the manifest takes: two packages, a folder made, a folder mended, a file, an archive.
const STEPS: usize = 6;

impl Plot {
    fn new() -> Self {
        let site = Site::new("");
        let store = site.top.join("store");
        for folder in ["store", "store/packages", "bin", "opt", "opt/old"] {
            fs::create_dir_all(site.top.join(folder)).unwrap();
        }
        fs::set_permissions(site.top.join("opt"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(site.top.join("opt/old"), fs::Permissions::from_mode(0o711)).unwrap();
        let npm = site.top.join("bin/npm");
        fs::write(&npm, NPM.replace("@STORE@", store.as_str())).unwrap();
        fs::set_permissions(&npm, fs::Permissions::from_mode(0o755)).unwrap();
        site.configure(&format!(
            "[native]\nextra_read = [{top:?}]\n[native.env]\nPATH = \"{top}/bin:/usr/bin:/bin\"\n",
            top = site.top.join("."),
        ));
        let mut plot = Self {
            store,
            manifest: String::new(),
            site,
        };
        plot.site.configure(&plot.configuration());
        plot.manifest = plot.write_manifest();
        plot
    }

    fn configuration(&self) -> String {
        let top = &self.site.top;
        format!(
            "[native]\nextra_read = [\"{top}/bin\", \"{top}/store\", \"{top}/opt\"]\n[native.env]\nPATH = \"{top}/bin:/usr/bin:/bin\"\n"
        )
    }

    fn write_manifest(&self) -> String {
        let top = &self.site.top;
        let tools = top.join("make/tools-1");
        fs::create_dir_all(tools.join("bin")).unwrap();
        // Enough files that unpacking takes a while.
        for n in 0..300 {
            fs::write(tools.join(format!("bin/tool-{n}")), "x".repeat(2000)).unwrap();
        }
        let packed = top.join("tools.tar.gz");
        let status = command("/bin/tar")
            .args([
                "-C",
                top.join("make").as_str(),
                "-czf",
                packed.as_str(),
                "tools-1",
            ])
            .status()
            .unwrap();
        assert!(status.success());
        let sum = command("/usr/bin/sha256sum").arg(&packed).output().unwrap();
        let sha256 = out(&sum).split(' ').next().unwrap().to_owned();
        manifest(
            &self.site,
            "plot.toml",
            &format!(
                "[npm.one]\nwhy = \"w\"\n[npm.two]\nwhy = \"w\"\n\
                 [folder.\"{top}/opt/new\"]\nwhy = \"w\"\nmode = \"750\"\n\
                 [folder.\"{top}/opt/old\"]\nwhy = \"w\"\nmode = \"755\"\n\
                 [file.\"{top}/opt/file\"]\nwhy = \"w\"\ncontent = \"text\\n\"\nmode = \"644\"\n\
                 [archive.tools]\nwhy = \"w\"\nurl = \"file://{packed}\"\nsha256 = \"{sha256}\"\n\
                 to = \"{top}/opt/tools\"\nstrip = 1\n"
            ),
        )
    }

    fn args(&self, verb: &'static str) -> [&str; 4] {
        ["provision", verb, "--manifest", &self.manifest]
    }

    fn receipts_file(&self) -> Utf8PathBuf {
        self.site.data_dir.join("host/receipts.jsonl")
    }

    fn receipts(&self) -> Vec<Receipt> {
        let text = fs::read_to_string(self.receipts_file()).unwrap_or_default();
        parse(&text).unwrap().0
    }

    /// Everything below `opt` and the packages, with modes.
    fn state(&self) -> Vec<String> {
        let entries = [self.site.top.join("opt"), self.store.join("packages")]
            .into_iter()
            .flat_map(|folder| walkdir::WalkDir::new(folder).sort_by_file_name());
        let shown = |entry: walkdir::DirEntry| {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            let path = entry.path().strip_prefix(&self.site.top).unwrap();
            format!("{} {mode:o}", path.display())
        };
        entries.map(|entry| shown(entry.unwrap())).collect()
    }

    /// A second run, and what must hold after it: everything is there, once, and the receipts say what was there before.
    fn finish(&self, what: &str) {
        let output = self.site.run(&self.args("--apply"));
        assert_eq!(output.status.code(), Some(0), "{what}: {}", said(&output));
        let receipts = self.receipts();
        assert_eq!(receipts.len(), STEPS, "{what}: {receipts:#?}");
        for receipt in &receipts {
            let is_done = matches!(receipt.state, State::Done | State::Found);
            assert!(is_done, "{what}: {receipt:#?}");
            match receipt.item.split(' ').next().unwrap() {
                "npm" => assert_eq!(receipt.before, Before::Untold),
                _ if receipt.item.ends_with("/opt/old") => {
                    assert!(
                        matches!(&receipt.before, Before::Present { entry, .. } if entry.mode == 0o711),
                        "{what}: {receipt:#?}"
                    );
                }
                _ => assert_eq!(receipt.before, Before::Absent, "{what}: {receipt:#?}"),
            }
        }
        let tools = fs::read_dir(self.site.top.join("opt/tools/bin")).unwrap().count();
        assert_eq!(tools, 300, "{what}");
        let left: Vec<_> = self
            .state()
            .into_iter()
            .filter(|line| line.contains(".ephemerd-tools"))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "{what}");
        // A third run does nothing.
        let text = fs::read_to_string(self.receipts_file()).unwrap();
        let output = self.site.run(&self.args("--apply"));
        assert_eq!(
            (output.status.code(), err(&output).as_str()),
            (Some(0), ""),
            "{}",
            said(&output)
        );
        assert_eq!(fs::read_to_string(self.receipts_file()).unwrap(), text, "{what}");
    }
}

#[test]
fn a_host_is_put_right_and_taken_back_to_what_it_was() {
    let plot = Plot::new();
    let before = plot.state();
    let planned = plot.site.run(&plot.args("--plan"));
    assert_eq!(planned.status.code(), Some(1), "{}", said(&planned));
    assert!(out(&planned).contains("6  fetch file://"), "{}", said(&planned));
    assert_eq!(plot.state(), before, "a plan changes nothing");
    plot.finish("undisturbed");
    let dry = plot.site.run(&["provision", "revert", "--dry-run"]);
    assert!(
        dry.status.success() && out(&dry).contains("opt/tools"),
        "{}",
        said(&dry)
    );
    let reverted = plot.site.run(&["provision", "revert"]);
    assert!(reverted.status.success(), "{}", said(&reverted));
    assert_eq!(plot.state(), before);
    assert!(
        plot.receipts()
            .iter()
            .all(|receipt| receipt.state == State::Reverted)
    );
    let again = plot.site.run(&["provision", "revert"]);
    assert!(out(&again).contains("nothing was done"), "{}", said(&again));
}

/// The process is killed as soon as its receipts have so many lines, which is before, within or after each step.
#[test]
fn whenever_it_is_killed_a_second_run_finishes_and_the_receipts_are_true() {
    for lines in 1..=2 * STEPS {
        let plot = Plot::new();
        let mut child = plot
            .site
            .ephemerd(&plot.args("--apply"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let file = plot.receipts_file();
        wait_for("receipts", || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            (text.lines().count() >= lines || child.try_wait().unwrap().is_some()).then_some(())
        });
        // It may have come to its end in between; then nothing was interrupted, and the same must hold.
        let _ = child.kill();
        child.wait().unwrap();
        plot.finish(&format!("killed after {lines} lines"));
    }
}

#[test]
fn a_step_that_was_taken_when_its_end_could_not_be_written_is_found() {
    for moment in ["before", "after"] {
        let plot = Plot::new();
        fs::write(plot.store.join(format!("kill-{moment}")), "").unwrap();
        let output = plot.site.run(&plot.args("--apply"));
        assert_eq!(output.status.code(), None, "{}", said(&output));
        assert!(plot.receipts().iter().any(|receipt| receipt.state == State::Open));
        plot.finish(moment);
    }
}

#[test]
fn a_line_that_a_power_cut_left_unfinished_is_taken_away() {
    let plot = Plot::new();
    plot.finish("first");
    let file = plot.receipts_file();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}{{\"version\":1,\"rec")).unwrap();
    let output = plot.site.run(&plot.args("--apply"));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn an_archive_that_does_not_match_leaves_nothing_and_is_told() {
    let plot = Plot::new();
    let text = fs::read_to_string(&plot.manifest).unwrap();
    let start = text.find("sha256 = \"").unwrap() + 10;
    let wrong = format!("{}{}{}", &text[..start], "0".repeat(64), &text[start + 64..]);
    fs::write(&plot.manifest, wrong).unwrap();
    let output = plot.site.run(&plot.args("--apply"));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(err(&output).contains("has SHA-256"), "{}", said(&output));
    assert!(!plot.site.top.join("opt/tools").exists());
    let receipts = plot.receipts();
    assert!(matches!(&receipts.last().unwrap().state, State::Failed(why) if why.contains("SHA-256")));
    let others = receipts
        .iter()
        .filter(|receipt| receipt.state == State::Done)
        .count();
    assert_eq!(others, STEPS - 1, "what has nothing to do with it is done");
}

#[test]
fn whoever_may_not_change_a_host_is_told_so_and_nothing_is_written_down() {
    let plot = Plot::new();
    let uid = plot.site.family.uids()[0];
    // Its own data folder, where the rest of this site's is root's.
    let home = plot.site.top.join("others");
    fs::create_dir(&home).unwrap();
    nix::unistd::chown(home.as_std_path(), Some(uid.into()), None).unwrap();
    let config = home.join("own.toml");
    fs::write(
        &config,
        format!(
            "[host]\ndata_dir = \"{home}/data\"\n[native.env]\nPATH = \"{}/bin\"\n",
            plot.site.top
        ),
    )
    .unwrap();
    let program = plot.site.copy(Utf8Path::new(crate::harness::PROGRAM), "ephemerd");
    for readable in [&plot.manifest, &config.to_string()] {
        fs::set_permissions(readable, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let text = fs::read_to_string(&plot.manifest).unwrap();
    fs::write(
        &plot.manifest,
        format!("{text}[apt.ephemerd-nosuch]\nwhy = \"w\"\n"),
    )
    .unwrap();
    let output = command("/usr/bin/setpriv")
        .args(["--reuid", &uid.to_string(), "--clear-groups", program.as_str()])
        .args(["--config", config.as_str()])
        .args(plot.args("--apply"))
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(0), "{}", said(&output));
    assert!(
        err(&output).contains("not done: it needs root"),
        "{}",
        said(&output)
    );
    assert!(err(&output).contains("hint: run it as root"), "{}", said(&output));
    let text = fs::read_to_string(home.join("data/host/receipts.jsonl")).unwrap();
    let (receipts, _) = parse(&text).unwrap();
    assert!(
        receipts
            .iter()
            .all(|receipt| matches!(&receipt.state, State::Failed(_))),
        "{receipts:#?}"
    );
    assert!(
        receipts.iter().all(|receipt| !receipt.item.starts_with("apt")),
        "{receipts:#?}"
    );
    assert!(!plot.site.top.join("opt/new").exists());
}

#[test]
fn what_somebody_else_has_done_since_a_step_failed_is_not_taken_back() {
    let plot = Plot::new();
    // The package manager fails, and somebody installs the package by hand.
    let npm = plot.site.top.join("bin/npm");
    let text = fs::read_to_string(&npm).unwrap();
    fs::write(
        &npm,
        text.replace("install)\n", "install)\n    echo no network >&2; exit 1\n"),
    )
    .unwrap();
    let output = plot.site.run(&plot.args("--apply"));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(err(&output).contains("no network"), "{}", said(&output));
    let by_hand = plot.store.join("packages/one");
    fs::write(&by_hand, "").unwrap();
    let reverted = plot.site.run(&["provision", "revert"]);
    assert!(by_hand.exists(), "{}", said(&reverted));
    assert!(
        out(&reverted).contains("it did not come to its end"),
        "{}",
        said(&reverted)
    );
    assert!(
        !plot.site.top.join("opt/new").exists(),
        "what was done is taken back"
    );
}
