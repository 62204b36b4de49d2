use std::os::unix::fs::{MetadataExt, symlink};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest;

use super::*;
use crate::github::secret::Secret;

/// A place with a made-up release, and room for trees and jobs.
struct Bench {
    top: Utf8PathBuf,
    build: Build,
    sha256: Sha256,
    _keep: tempfile::TempDir,
}

fn own() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

fn hash(bytes: &[u8]) -> String {
    let digits = sha2::Sha256::digest(bytes);
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An archive as GitHub's are: no folder around everything.
fn packed(program: &str) -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    let mut add = |path: &str, mode, content: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len().try_into().unwrap());
        builder
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    };
    add(program, 0o777, "program");
    add("./externals/node24/lib/deep.js", 0o666, "text");
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    link.set_mode(0o777);
    builder
        .append_link(&mut link, "./externals/node", "node24")
        .unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}

impl Bench {
    fn new() -> Self {
        Self::of("./bin/Runner.Listener")
    }

    fn of(program: &str) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        let build = Build::from_str("2.336.0-linux-x64").unwrap();
        let archive = top.join("v2.336.0/actions-runner-linux-x64-2.336.0.tar.gz");
        fs::create_dir(archive.parent().unwrap()).unwrap();
        fs::write(&archive, packed(program)).unwrap();
        let sha256 = hash(&packed(program)).parse().unwrap();
        Self {
            top,
            build,
            sha256,
            _keep: keep,
        }
    }

    fn runners(&self) -> Utf8PathBuf {
        self.top.join("runners")
    }

    fn tree(&self) -> Utf8PathBuf {
        self.build.folder(&self.runners())
    }

    fn install(&self) -> Result<bool, RunnerError> {
        let releases = format!("file://{}", self.top);
        install(
            &Host::system(),
            &self.runners(),
            self.build,
            (&releases, &self.sha256),
        )
    }

    /// A copy of an installed tree.
    fn copy(&self) -> Utf8PathBuf {
        self.install().unwrap();
        let to = self.top.join("copy");
        copy(&self.runners(), self.build, &to, own()).unwrap();
        to
    }
}

fn mode(path: &Utf8Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn config() -> JitConfig {
    let members = [
        (".runner", r#"{"AgentId":1,"AgentName":"n","Ephemeral":true}"#),
        (".credentials", "{}"),
        (".credentials_rsaparams", r#"{"d":"planted"}"#),
    ];
    let members = members.map(|(name, text)| (name, STANDARD.encode(text)));
    let members = std::collections::BTreeMap::from(members);
    let text = serde_json::to_string(&members).unwrap();
    JitConfig::decode(&Secret::new(STANDARD.encode(text)), Utf8Path::new("/w")).unwrap()
}

#[test]
fn a_release_is_fetched_once_and_nobody_else_can_write_to_its_tree() {
    let bench = Bench::new();
    assert!(bench.install().unwrap());
    assert!(!bench.install().unwrap(), "it is there");
    assert_eq!(mode(&bench.runners()), 0o700);
    for (path, expected) in [
        ("", 0o755),
        (PROGRAM, 0o755),
        ("externals/node24/lib", 0o755),
        ("externals/node24/lib/deep.js", 0o644),
    ] {
        assert_eq!(mode(&bench.tree().join(path)), expected, "{path}");
    }
    assert_eq!(
        installed(&bench.runners()).unwrap(),
        BTreeSet::from([bench.build])
    );
}

#[test]
fn a_release_with_another_hash_or_without_the_program_leaves_nothing() {
    let mut bench = Bench::new();
    bench.sha256 = "0".repeat(64).parse().unwrap();
    let error = bench.install().unwrap_err();
    assert!(matches!(
        error,
        RunnerError::Install {
            source: ArchiveError::Hash { .. },
            ..
        }
    ));
    let bench = Bench::of("./bin/Other");
    let said = bench.install().unwrap_err().to_string();
    assert!(said.contains("holds no bin/Runner.Listener\nhint: "), "{said}");
    assert_eq!(fs::read_dir(bench.runners()).unwrap().count(), 0);
}

#[test]
fn a_tree_from_another_archive_is_replaced() {
    let bench = Bench::new();
    bench.install().unwrap();
    fs::write(bench.tree().join(STAMP), "another\n").unwrap();
    fs::write(bench.tree().join("old"), "").unwrap();
    assert!(bench.install().unwrap());
    assert!(!bench.tree().join("old").exists());
}

#[test]
fn what_is_no_whole_tree_is_not_listed() {
    let bench = Bench::new();
    assert_eq!(
        installed(&bench.runners()).unwrap(),
        BTreeSet::new(),
        "no folder yet"
    );
    bench.install().unwrap();
    let runners = bench.runners();
    fs::create_dir_all(runners.join("2.337.0-linux-x64/bin")).unwrap();
    fs::create_dir(runners.join(".ephemerd-2.338.0-linux-x64")).unwrap();
    symlink(bench.tree(), runners.join("2.339.0-linux-x64")).unwrap();
    fs::write(runners.join("2.340.0-linux-x64"), "").unwrap();
    assert_eq!(installed(&runners).unwrap(), BTreeSet::from([bench.build]));
    assert!(remove(&runners, bench.build).unwrap().entries > 0);
    assert_eq!(
        remove(&runners, bench.build).unwrap().entries,
        0,
        "nothing there is nothing"
    );
    assert_eq!(installed(&runners).unwrap(), BTreeSet::new());
}

#[test]
fn what_a_job_does_to_its_copy_the_tree_never_sees() {
    let bench = Bench::new();
    let copy = bench.copy();
    let inode = |path: &Utf8Path| path.symlink_metadata().unwrap().ino();
    for path in [PROGRAM, "externals/node24/lib/deep.js", "externals/node"] {
        assert_ne!(inode(&copy.join(path)), inode(&bench.tree().join(path)), "{path}");
    }
    fs::write(copy.join(PROGRAM), "changed").unwrap();
    assert_eq!(fs::read_to_string(bench.tree().join(PROGRAM)).unwrap(), "program");
    assert_eq!(mode(&copy.join(PROGRAM)), 0o755);
    assert_eq!(
        fs::read_link(copy.join("externals/node")).unwrap(),
        std::path::Path::new("node24")
    );
    assert!(!copy.join(STAMP).exists());
}

#[test]
fn a_copy_is_whole_or_not_there_and_replaces_nothing() {
    let bench = Bench::new();
    let to = bench.copy();
    fs::write(to.join("precious"), "").unwrap();
    let again = || copy(&bench.runners(), bench.build, &to, own());
    assert!(
        again()
            .unwrap_err()
            .to_string()
            .contains("could not copy runner 2.336.0-linux-x64")
    );
    assert!(to.join("precious").exists());
    fs::remove_dir_all(&to).unwrap();
    // A file that not everybody may read is not handed out.
    fs::set_permissions(bench.tree().join(PROGRAM), fs::Permissions::from_mode(0o700)).unwrap();
    again().unwrap_err();
    assert!(!to.exists());
}

#[test]
fn the_files_of_a_runner_are_closed_to_everybody_else() {
    let bench = Bench::new();
    let copy = bench.copy();
    write_files(&copy, &config(), own()).unwrap();
    for file in config().files() {
        let path = copy.join(file.name);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_to_string(path).unwrap(), file.content.expose());
    }
}

#[test]
fn files_are_written_through_no_link_and_over_nothing() {
    let bench = Bench::new();
    let copy = bench.copy();
    let outside = bench.top.join("outside");
    for name in [".runner", ".credentials", ".credentials_rsaparams"] {
        symlink(&outside, copy.join(name)).unwrap();
        let error = write_files(&copy, &config(), own()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(!format!("{error:?}{}", crate::chain(&error)).contains("planted"));
        assert!(!outside.exists());
        // What was there is still there, and nothing else.
        let left = config()
            .files()
            .iter()
            .filter(|file| copy.join(file.name).symlink_metadata().is_ok())
            .count();
        assert_eq!(left, 1);
        fs::remove_file(copy.join(name)).unwrap();
    }
    symlink(&copy, bench.top.join("way")).unwrap();
    write_files(&bench.top.join("way"), &config(), own()).unwrap_err();
    assert!(!copy.join(".runner").exists());
}

#[test]
fn root_gives_copy_and_files_to_the_account_of_the_slot() {
    assert!(
        geteuid().is_root(),
        "tests named root_ need root: changes an owner"
    );
    let bench = Bench::new();
    bench.install().unwrap();
    let (to, owner) = (bench.top.join("copy"), (61_234, 61_235));
    copy(&bench.runners(), bench.build, &to, owner).unwrap();
    write_files(&to, &config(), owner).unwrap();
    for path in ["", PROGRAM, "externals/node", ".runner", ".credentials_rsaparams"] {
        let status = to.join(path).symlink_metadata().unwrap();
        assert_eq!((status.uid(), status.gid()), owner, "{path}");
    }
}
