//! Homebrew prefixes made for jobs from real trees, looked at with the rules that `brew` has.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "fakes/homebrew.rs"]
mod fake;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Output};

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::host::Os;
use ephemerd::workspace::homebrew::{HomebrewError, HostBrew, Layout, Served, Shelf};
use fake::{FakeHomebrew, Repository, walk};
use nix::unistd::{getegid, geteuid};

/// A host's Homebrew, a shelf, and room for copies.
struct Bench {
    host: FakeHomebrew,
    shelf: Shelf,
    top: Utf8PathBuf,
    _keep: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::of(Repository::Prefix)
    }

    fn of(repository: Repository) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        fs::create_dir_all(top.join("data/templates")).unwrap();
        Self {
            host: FakeHomebrew::make(&top.join("opt/homebrew"), repository),
            shelf: Shelf::new(&top.join("data")),
            top,
            _keep: keep,
        }
    }

    fn serve(&self, name: &str) -> Result<Served, HomebrewError> {
        let host = HostBrew::at(&self.host.prefix)?;
        let own = (geteuid().as_raw(), getegid().as_raw());
        self.shelf.serve(&host, Layout::Links, &self.top.join(name), own)
    }

    /// A copy, which must be made.
    fn copy(&self, name: &str) -> Utf8PathBuf {
        self.serve(name).unwrap();
        self.top.join(name)
    }

    fn templates(&self) -> Vec<String> {
        let entries = fs::read_dir(self.top.join("data/templates/homebrew")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "lock").collect();
        names.sort();
        names
    }
}

/// `brew` of a prefix, with these arguments.
#[expect(clippy::disallowed_methods, reason = "the stand-in must be started")]
fn brew(prefix: &Utf8Path, args: &[&str]) -> Output {
    Command::new(prefix.join("bin/brew"))
        .args(args)
        .env("HOMEBREW_TEMP", "/nonexistent")
        .output()
        .unwrap()
}

/// What `brew` says, where it must not fail.
#[track_caller]
fn says(prefix: &Utf8Path, args: &[&str]) -> String {
    let output = brew(prefix, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Whether the file system clones, as cp(1) of the GNU coreutils finds.
#[expect(
    clippy::disallowed_methods,
    reason = "what another program can do shows what is possible"
)]
fn coreutils_clones(source: &Utf8Path, to: &Utf8Path) -> bool {
    fs::write(source, "read me").unwrap();
    let cp = Command::new("cp")
        .args(["--reflink=always", source.as_str(), to.as_str()])
        .output();
    cp.unwrap().status.success()
}

const LISTED: &str = "alpha 1.0 1.1\nbeta 2.0\ndelta 4.0_1\ngamma@3 3.0";

#[test]
fn brew_takes_the_copy_for_its_prefix_and_finds_everything_installed() {
    for repository in [Repository::Prefix, Repository::Below] {
        let bench = Bench::of(repository);
        let copy = bench.copy("copy");
        assert_eq!(says(&copy, &["--prefix"]), copy);
        assert_eq!(says(&copy, &["--repository"]), copy);
        assert_eq!(says(&copy, &["--cellar"]), copy.join("Cellar"));
        assert_eq!(says(&copy, &["list"]), LISTED);
        assert_eq!(
            says(&bench.host.prefix, &["list"]),
            LISTED,
            "the stand-in agrees on the host"
        );
        assert_eq!(says(&copy, &["linked", "alpha"]), "1.1");
        assert_eq!(says(&copy, &["opt", "gamma@3"]), "3.0");
        assert!(
            !brew(&copy, &["linked", "gamma@3"]).status.success(),
            "keg-only stays unlinked"
        );
        let core = copy.join("Library/Taps/homebrew/homebrew-core/Formula/a/alpha.rb");
        assert!(core.is_file(), "taps are there");
        assert!(
            copy.join("share/man/man1/brew.1").is_file(),
            "so is what lies beside them"
        );
    }
}

#[test]
fn racks_and_kegs_are_real_and_inside_the_copys_cellar() {
    let bench = Bench::new();
    let copy = bench.copy("copy");
    assert!(!copy.join("bin/brew").is_symlink());
    let cellar = copy.join("Cellar").canonicalize_utf8().unwrap();
    let mut kegs = 0;
    for rack in cellar.read_dir_utf8().unwrap() {
        let rack = rack.unwrap().into_path();
        assert!(!rack.is_symlink(), "{rack}");
        for keg in rack.read_dir_utf8().unwrap() {
            let keg = keg.unwrap().into_path();
            assert_eq!(
                keg.canonicalize_utf8()
                    .unwrap()
                    .parent()
                    .unwrap()
                    .parent()
                    .unwrap(),
                cellar
            );
            let receipt = keg.join("INSTALL_RECEIPT.json");
            assert!(
                receipt.symlink_metadata().unwrap().is_file(),
                "{receipt} is copied"
            );
            assert!(keg.join(".brew").symlink_metadata().unwrap().is_dir());
            kegs += 1;
        }
    }
    assert_eq!(kegs, 5);
    let programs = copy.join("Cellar/alpha/1.1");
    assert_eq!(
        fs::read_link(programs.join("bin/alpha")).unwrap(),
        bench.host.at("Cellar/alpha/1.1/bin/alpha"),
        "files are links to the host's"
    );
    assert_eq!(
        fs::read_link(programs.join("libexec")).unwrap(),
        bench.host.at("Cellar/alpha/1.1/libexec")
    );
}

#[test]
fn records_of_what_is_linked_are_relative_and_lead_into_the_copy() {
    let bench = Bench::new();
    let copy = bench.copy("copy");
    for (link, target) in [
        ("opt/alpha", "../Cellar/alpha/1.1"),
        ("opt/gamma", "../Cellar/gamma@3/3.0"),
        ("var/homebrew/linked/alpha", "../../../Cellar/alpha/1.1"),
        ("var/homebrew/pinned/delta", "../../../Cellar/delta/4.0_1"),
        ("bin/alpha", "../Cellar/alpha/1.1/bin/alpha"),
        ("include/beta", "../Cellar/beta/2.0/include/beta"),
        ("Cellar/beta/2.0/lib/libbeta.so", "libbeta.2.so"),
    ] {
        assert_eq!(
            fs::read_link(copy.join(link)).unwrap().as_os_str(),
            target,
            "{link}"
        );
        assert!(
            copy.join(link).canonicalize_utf8().is_ok(),
            "{link} leads somewhere"
        );
    }
    for program in ["alpha", "alpha-real", "beta", "delta"] {
        let real = copy.join("bin").join(program).canonicalize_utf8().unwrap();
        assert!(real.starts_with(bench.host.at("Cellar")), "{real}");
    }
}

#[test]
fn a_job_installs_upgrades_links_and_removes_in_its_copy_and_the_host_stays_byte_for_byte() {
    let bench = Bench::of(Repository::Below);
    let before = walk(bench.top.join("opt").as_std_path());
    let copy = bench.copy("copy");
    says(&copy, &["install", "zeta", "9.0"]);
    assert_eq!(
        says(&copy, &["unlink", "beta"]),
        "3",
        "a link into the keg is known for one"
    );
    says(&copy, &["upgrade", "alpha", "1.2"]);
    assert_eq!(says(&copy, &["linked", "alpha"]), "1.2");
    assert!(
        copy.join("bin/alpha")
            .canonicalize_utf8()
            .unwrap()
            .starts_with(copy.join("Cellar/alpha/1.2"))
    );
    says(&copy, &["uninstall", "delta"]);
    says(&copy, &["tap", "me/homebrew-mine"]);
    fs::write(copy.join("etc/delta.conf"), "setting = 2\n").unwrap();
    fs::write(copy.join("Cellar/alpha/1.0/INSTALL_RECEIPT.json"), "changed").unwrap();
    fs::write(copy.join("bin/brew"), "changed").unwrap();
    assert_eq!(walk(bench.top.join("opt").as_std_path()), before);

    let next = bench.copy("next");
    assert_eq!(
        says(&next, &["list"]),
        LISTED,
        "nothing of one copy is in the next"
    );
    assert_eq!(
        fs::read_to_string(next.join("etc/delta.conf")).unwrap(),
        "setting = 1\n"
    );
}

#[test]
fn what_jobs_write_is_there_to_be_written() {
    let bench = Bench::new();
    let copy = bench.copy("copy");
    for folder in [
        "",
        "Cellar",
        "Caskroom",
        "bin",
        "etc",
        "opt",
        "tmp",
        "var/homebrew/locks",
        "Library/Taps",
    ] {
        let status = copy.join(folder).symlink_metadata().unwrap();
        assert!(status.is_dir() && status.mode() & 0o777 == 0o755, "{folder}");
    }
    let cask = copy.join("Caskroom/app");
    assert!(cask.join("1.0").is_symlink() && cask.join("1.0/App.app").is_dir());
    let metadata = cask.join(".metadata/1.0/20260101000000.000/Casks/app.json");
    assert!(metadata.symlink_metadata().unwrap().is_file());
    assert_eq!(
        copy.join("var/homebrew/locks").read_dir_utf8().unwrap().count(),
        0
    );
    assert!(
        !copy.join("var/db").exists(),
        "data of the host's services is not the job's"
    );
}

#[test]
fn what_not_everybody_may_read_is_not_copied() {
    let bench = Bench::new();
    bench.host.mode("Cellar/alpha/1.0/INSTALL_RECEIPT.json", 0o640);
    bench.host.file("etc/private/key", "secret");
    bench.host.mode("etc/private", 0o700);
    let copy = bench.copy("copy");
    for path in [
        "etc/delta.secret",
        "etc/private",
        "Cellar/alpha/1.0/INSTALL_RECEIPT.json",
    ] {
        assert_eq!(
            fs::read_link(copy.join(path)).unwrap(),
            bench.host.at(path),
            "{path}"
        );
    }
}

#[test]
fn odd_entries_stay_what_they_are_and_harm_nothing() {
    let bench = Bench::new();
    let host = &bench.host;
    host.link("bin/broken", "../Cellar/nothing/1/bin/broken");
    host.link("lib/loop", "loop");
    host.link("Cellar/alias", "alpha");
    host.link("bin/outside", "../../../elsewhere/tool");
    host.link("bin/absolute", "/usr/bin/env");
    host.file("Cellar/stray", "a file where racks are");
    host.program("bin/with space\nand line", "#!/bin/sh\n");
    let name = OsStr::from_bytes(b"Cellar/alpha/1.0/bin/not-text-\xff");
    fs::write(host.prefix.as_std_path().join(name), "x").unwrap();
    nix::unistd::mkfifo(host.at("bin/fifo").as_std_path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let copy = bench.copy("copy");
    assert_eq!(says(&copy, &["list"]), LISTED, "a rack that is a link is none");
    let target = |path: &str| fs::read_link(copy.join(path)).unwrap();
    assert_eq!(target("bin/broken").as_os_str(), "../Cellar/nothing/1/bin/broken");
    assert_eq!(target("lib/loop").as_os_str(), "loop");
    assert_eq!(target("Cellar/alias").as_os_str(), "alpha");
    assert_eq!(target("bin/outside"), bench.top.join("elsewhere/tool"));
    assert_eq!(target("bin/absolute").as_os_str(), "/usr/bin/env");
    assert_eq!(
        target("bin/with space\nand line"),
        host.at("bin/with space\nand line")
    );
    let odd = copy.as_std_path().join(name);
    assert_eq!(fs::read_link(odd).unwrap(), host.prefix.as_std_path().join(name));
    assert!(copy.join("bin/fifo").symlink_metadata().is_err());
}

#[test]
fn folders_that_are_links_on_the_host_lead_no_write_out_of_the_copy() {
    let bench = Bench::new();
    let elsewhere = bench.top.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for folder in ["tmp", "etc", "bin"] {
        let path = bench.host.at(folder);
        if path.exists() {
            fs::rename(&path, elsewhere.join(folder)).unwrap();
        } else {
            fs::create_dir(elsewhere.join(folder)).unwrap();
        }
        symlink(elsewhere.join(folder), path).unwrap();
    }
    let before = walk(elsewhere.as_std_path());
    let copy = bench.copy("copy");
    for folder in ["tmp", "etc", "bin"] {
        assert!(copy.join(folder).symlink_metadata().unwrap().is_dir(), "{folder}");
    }
    assert!(copy.join("bin/brew").symlink_metadata().unwrap().is_file());
    assert_eq!(walk(elsewhere.as_std_path()), before);
}

#[test]
fn a_template_serves_until_the_host_changes_and_then_another_takes_its_place() {
    let bench = Bench::new();
    let made = |name: &str| bench.serve(name).unwrap().made;
    assert!(made("one"));
    assert!(!made("two"));
    let first = bench.templates();
    assert_eq!(first.len(), 1);
    // What `brew` touches without changing anything.
    bench.host.file("var/homebrew/locks/beta.formula.lock", "");
    bench.host.file("var/log/service.log", "line");
    assert!(!made("three"));
    let changes: [&dyn Fn(); 6] = [
        &|| bench.host.keg("new", "1", &["bin/new"]),
        &|| fs::remove_file(bench.host.at("opt/gamma")).unwrap(),
        &|| {
            bench.host.file(
                "Cellar/alpha/1.0/INSTALL_RECEIPT.json",
                "{\"installed_on_request\":true}",
            )
        },
        &|| bench.host.file("Library/Taps/me/homebrew-mine/README", ""),
        &|| bench.host.file("etc/delta.conf", "setting = 3\n"),
        &|| bench.host.file("lib/python3/site-packages/module.py", ""),
    ];
    for (number, change) in changes.iter().enumerate() {
        let before = bench.templates();
        change();
        assert!(made(&format!("after-{number}")), "change {number}");
        let after = bench.templates();
        assert_eq!(after.len(), 1, "old ones are removed");
        assert_ne!(after, before);
    }
    let last = bench.top.join("after-5");
    assert!(last.join("Library/Taps/me/homebrew-mine/README").exists());
    assert!(last.join("lib/python3/site-packages/module.py").exists());
}

#[test]
fn a_template_that_was_not_finished_is_never_used() {
    let bench = Bench::new();
    bench.copy("before");
    let shelf = bench.top.join("data/templates/homebrew");
    let finished = shelf.join(&bench.templates()[0]);
    // As a builder leaves it that is killed before the end.
    fs::rename(&finished, shelf.join("staging")).unwrap();
    fs::remove_dir_all(shelf.join("staging/prefix/Cellar")).unwrap();
    assert!(bench.serve("copy").unwrap().made);
    assert_eq!(says(&bench.top.join("copy"), &["list"]), LISTED);
    assert_eq!(bench.templates(), [finished.file_name().unwrap()]);
}

#[test]
fn builders_at_once_make_one_template_and_all_get_a_whole_copy() {
    let bench = Bench::new();
    let made = std::thread::scope(|scope| {
        let serve = |number| {
            scope.spawn({
                let bench = &bench;
                move || bench.serve(&format!("copy-{number}")).unwrap().made
            })
        };
        let threads: Vec<_> = (0..8).map(serve).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(|made| *made)
            .count()
    });
    assert_eq!(made, 1);
    for number in 0..8 {
        assert_eq!(says(&bench.top.join(format!("copy-{number}")), &["list"]), LISTED);
    }
}

#[test]
fn a_host_that_keeps_changing_gets_no_copy_that_is_half_old() {
    let bench = Bench::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                bench
                    .host
                    .file("etc/delta.conf", &format!("{}\n", "x".repeat(round % 5000)));
            }
        });
        let outcome = bench.serve("copy");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome
    });
    match outcome {
        Err(error) => {
            assert!(error.to_string().contains("keeps changing\nhint: "), "{error}");
            assert!(!bench.top.join("copy").exists());
        }
        // The writer was not scheduled in between.
        Ok(_) => assert_eq!(says(&bench.top.join("copy"), &["list"]), LISTED),
    }
    assert_eq!(
        bench.templates().iter().filter(|name| *name == "staging").count(),
        0
    );
}

#[test]
fn names_what_is_missing_or_unusual_with_a_remedy() {
    let bench = Bench::new();
    let error = |prefix: &Utf8Path| HostBrew::at(prefix).unwrap_err().to_string();
    let nothing = bench.top.join("nothing");
    assert!(error(&nothing).contains(&format!("`{nothing}` is not a Homebrew prefix\nhint: ")));
    fs::create_dir_all(nothing.join("bin")).unwrap();
    symlink("nowhere", nothing.join("bin/brew")).unwrap();
    assert!(error(&nothing).contains("is not a Homebrew prefix"));
    fs::rename(bench.host.at("Cellar"), bench.top.join("volume")).unwrap();
    symlink(bench.top.join("volume"), bench.host.at("Cellar")).unwrap();
    let text = error(&bench.host.prefix);
    assert!(
        text.contains("its Cellar is a symbolic link\nhint: set native.homebrew"),
        "{text}"
    );
}

#[test]
fn a_prefix_without_anything_installed_gives_one_to_install_into() {
    let bench = Bench::new();
    for folder in ["Cellar", "opt", "var", "Caskroom", "Library/Taps", "share", "lib"] {
        fs::remove_dir_all(bench.host.at(folder)).unwrap();
    }
    let copy = bench.copy("copy");
    assert_eq!(says(&copy, &["list"]), "");
    says(&copy, &["install", "zeta", "9.0"]);
    assert_eq!(says(&copy, &["list"]), "zeta 9.0");
}

#[test]
fn does_not_take_over_what_is_at_the_copys_place() {
    let bench = Bench::new();
    symlink(&bench.host.prefix, bench.top.join("copy")).unwrap();
    let before = walk(bench.host.prefix.as_std_path());
    bench.serve("copy").unwrap_err();
    assert_eq!(walk(bench.host.prefix.as_std_path()), before);
}

#[test]
fn clones_every_file_or_says_why_links_must_do() {
    let bench = Bench::new();
    let host = HostBrew::at(&bench.host.prefix).unwrap();
    let own = (geteuid().as_raw(), getegid().as_raw());
    let copy = bench.top.join("copy");
    let served = bench.shelf.serve(&host, Layout::Clone, &copy, own).unwrap();
    assert_eq!(says(&copy, &["list"]), LISTED);
    let can = Os::host() == Os::MacOs || coreutils_clones(&bench.host.at("README"), &bench.top.join("clone"));
    assert_eq!(served.note.is_none(), can, "{:?}", served.note);
    let program = copy.join("Cellar/alpha/1.1/libexec/real");
    match served.note {
        Some(note) => {
            assert!(note.contains("made of links, because files of"), "{note}");
            assert!(copy.join("Cellar/alpha/1.1/libexec").is_symlink());
        }
        None => {
            let status = program.symlink_metadata().unwrap();
            assert!(status.is_file() && status.permissions().mode() & 0o777 == 0o755);
            fs::write(&program, "changed").unwrap();
            assert_ne!(
                fs::read(bench.host.at("Cellar/alpha/1.1/libexec/real")).unwrap(),
                b"changed"
            );
        }
    }
    let again = bench
        .shelf
        .serve(&host, Layout::Clone, &bench.top.join("again"), own)
        .unwrap();
    assert!(!again.made);
}

#[test]
fn root_gives_every_folder_and_file_to_the_account() {
    assert!(geteuid().is_root(), "tests named root_ need root: changes owners");
    let bench = Bench::new();
    let host = HostBrew::at(&bench.host.prefix).unwrap();
    let copy = bench.top.join("copy");
    bench
        .shelf
        .serve(&host, Layout::Links, &copy, (61_234, 61_235))
        .unwrap();
    let mut seen = 0;
    for path in walk(copy.as_std_path()).keys() {
        let status = fs::symlink_metadata(path).unwrap();
        if status.is_symlink() {
            // Whose a link is makes no difference: nobody can change one, and removing takes the folder.
            continue;
        }
        assert_eq!(
            (status.uid(), status.gid()),
            (61_234, 61_235),
            "{}",
            path.display()
        );
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
    assert_eq!(fs::metadata(&bench.host.prefix).unwrap().uid(), 0);
}
