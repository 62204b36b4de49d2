use super::*;
use crate::provision::step::Place;

/// An entry of a made-up archive.
enum Made<'a> {
    File(&'a str, u32, &'a str),
    Folder(&'a str),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Device(&'a str),
}

/// A tar archive with exactly these names, whatever they are: the library would not write some of them.
fn tarred(entries: &[Made<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        let (name, kind, target, content, mode) = match entry {
            Made::File(name, mode, content) => (name, EntryType::Regular, "", *content, *mode),
            Made::Folder(name) => (name, EntryType::Directory, "", "", 0o700),
            Made::Link(name, target) => (name, EntryType::Symlink, *target, "", 0o777),
            Made::Hard(name, target) => (name, EntryType::Link, *target, "", 0o644),
            Made::Device(name) => (name, EntryType::Char, "", "", 0o666),
        };
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len().try_into().unwrap());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Shop {
    top: Utf8PathBuf,
    _keep: tempfile::TempDir,
}

impl Shop {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        fs::create_dir(top.join("opt")).unwrap();
        fs::set_permissions(top.join("opt"), Permissions::from_mode(0o755)).unwrap();
        Self { top, _keep: keep }
    }

    /// Puts `bytes` where they can be fetched.
    fn offer(&self, name: &str, bytes: &[u8]) -> Fetch {
        let packed = self.top.join(name);
        fs::write(&packed, bytes).unwrap();
        Fetch {
            url: format!("file://{packed}"),
            sha256: hash(&packed).unwrap(),
            to: Place {
                path: self.to(),
                owner: None,
                group: None,
                mode: None,
            },
            strip: 1,
        }
    }

    fn to(&self) -> Utf8PathBuf {
        self.top.join("opt/tools")
    }

    fn install(&self, fetch: &Fetch) -> Result<(), ArchiveError> {
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        install(&Host::system(), fetch, own)
    }

    /// What lies where archives are unpacked: nothing may be left there.
    fn left(&self) -> Vec<String> {
        let entries = self.top.join("opt").read_dir_utf8().unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().to_owned())
            .collect()
    }

    /// Why an archive of these entries is refused, after making sure that nothing of it is left.
    fn refused(&self, entries: &[Made<'_>]) -> String {
        let error = self
            .install(&self.offer("bad.tar", &tarred(entries)))
            .unwrap_err();
        assert_eq!(self.left(), Vec::<String>::new(), "{error}");
        error.to_string()
    }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const GOOD: [Made<'static>; 6] = [
    Made::Folder("tools-1/"),
    Made::Folder("tools-1/bin"),
    Made::File("tools-1/bin/cc", 0o4777, "program"),
    Made::File("tools-1/share/deep/text", 0o600, "text"),
    Made::Link("tools-1/bin/gcc", "cc"),
    Made::Hard("tools-1/bin/c99", "tools-1/bin/cc"),
];

#[test]
fn an_archive_is_unpacked_with_modes_that_are_safe_and_a_stamp() {
    let shop = Shop::new();
    for (name, bytes) in [
        ("good.tar", tarred(&GOOD)),
        ("good.tar.gz", gzipped(&tarred(&GOOD))),
        ("good.tgz", gzipped(&tarred(&GOOD))),
    ] {
        let fetch = shop.offer(name, &bytes);
        shop.install(&fetch).unwrap();
        let mode = |path: &str| {
            shop.to()
                .join(path)
                .symlink_metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o7777
        };
        assert_eq!(
            (mode("bin/cc"), mode("share/deep/text"), mode("bin")),
            (0o755, 0o644, 0o755)
        );
        assert_eq!(fs::read_to_string(shop.to().join("bin/gcc")).unwrap(), "program");
        assert_eq!(fs::read_to_string(shop.to().join("bin/c99")).unwrap(), "program");
        assert_eq!(
            fs::read_to_string(shop.to().join(STAMP)).unwrap().trim(),
            fetch.sha256
        );
        assert_eq!(shop.left(), ["tools"]);
    }
}

#[test]
fn an_archive_of_xz_is_unpacked() {
    let shop = Shop::new();
    // tests/fixtures/small.tar.xz: tar cJ small/text, with GNU tar 1.34 and xz 5.4.1.
    let bytes = include_bytes!("../../../../tests/fixtures/small.tar.xz");
    shop.install(&shop.offer("small.tar.xz", bytes)).unwrap();
    assert_eq!(fs::read_to_string(shop.to().join("text")).unwrap(), "small\n");
}

#[test]
fn an_archive_with_another_hash_changes_nothing() {
    let shop = Shop::new();
    shop.install(&shop.offer("good.tar", &tarred(&GOOD))).unwrap();
    let mut other = shop.offer("other.tar", &tarred(&[Made::File("x/y", 0o644, "new")]));
    other.sha256 = "0".repeat(64);
    let error = shop.install(&other).unwrap_err();
    assert!(matches!(error, ArchiveError::Hash { .. }), "{error}");
    assert!(shop.to().join("bin/cc").exists());
    assert_eq!(shop.left(), ["tools"]);
}

#[test]
fn a_newer_archive_takes_the_place_of_the_old_one_and_of_what_a_kill_has_left() {
    let shop = Shop::new();
    shop.install(&shop.offer("good.tar", &tarred(&GOOD))).unwrap();
    fs::create_dir_all(shop.top.join("opt/.ephemerd-tools/tree/half")).unwrap();
    shop.install(&shop.offer("new.tar", &tarred(&[Made::File("x/y", 0o644, "new")])))
        .unwrap();
    assert!(!shop.to().join("bin").exists());
    assert_eq!(fs::read_to_string(shop.to().join("y")).unwrap(), "new");
    assert_eq!(shop.left(), ["tools"]);
}

#[test]
fn whatever_would_lie_or_lead_outside_is_refused_and_nothing_is_left() {
    let shop = Shop::new();
    let outside = shop.top.join("outside");
    fs::create_dir(&outside).unwrap();
    let cases: [(&[Made<'_>], &str); 12] = [
        (&[Made::File("a/../../x", 0o644, "")], "contains `..`"),
        (&[Made::File("/etc/x", 0o644, "")], "is absolute"),
        (&[Made::Link("a/l", "/etc")], "absolute path"),
        (&[Made::Link("a/l", "../x")], "leads out"),
        (&[Made::Link("a/b/l", "../../x")], "leads out"),
        (&[Made::Link("a/b/l", "c/../../../x")], "down and up"),
        (
            &[
                Made::Folder("a/b"),
                Made::Link("a/l", "b"),
                Made::File("a/l/x", 0o644, ""),
            ],
            "behind a link",
        ),
        (&[Made::Hard("a/h", "a/../../etc/passwd")], "contains `..`"),
        (&[Made::Hard("a/h", "/etc/passwd")], "is absolute"),
        (
            &[Made::Link("a/l", "b"), Made::Hard("a/h", "a/l")],
            "no file before it",
        ),
        (&[Made::Device("a/null")], "neither file"),
        (
            &[Made::File("a/.ephemerd-archive", 0o644, "")],
            "where the archive came from",
        ),
    ];
    for (entries, expected) in cases {
        let said = shop.refused(entries);
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_link_inside_may_go_up_as_far_as_the_top() {
    let shop = Shop::new();
    let entries = [
        Made::File("a/lib/x", 0o644, "x"),
        Made::Link("a/b/c/l", "../../lib/x"),
    ];
    shop.install(&shop.offer("up.tar", &tarred(&entries))).unwrap();
    assert_eq!(fs::read_to_string(shop.to().join("b/c/l")).unwrap(), "x");
}

#[test]
fn garbage_a_cut_archive_and_one_that_is_not_there_are_told_apart_and_leave_nothing() {
    let shop = Shop::new();
    let long = "x".repeat(100_000);
    let whole = gzipped(&tarred(&[Made::File("a/x", 0o644, &long)]));
    for (name, bytes) in [
        (
            "bad.tar",
            b"no archive at all, and long enough to be taken for a header".repeat(20),
        ),
        ("bad.tar.gz", b"no archive".to_vec()),
        ("cut.tar.gz", whole[..whole.len() / 2].to_vec()),
        ("bad.tar.xz", b"no archive".to_vec()),
    ] {
        let error = shop.install(&shop.offer(name, &bytes)).unwrap_err();
        assert!(
            matches!(
                error,
                ArchiveError::Io {
                    doing: "read" | "write",
                    ..
                }
            ),
            "{name}: {error:?}"
        );
        assert_eq!(shop.left(), Vec::<String>::new());
    }
    let mut gone = shop.offer("gone.tar", b"x");
    fs::remove_file(shop.top.join("gone.tar")).unwrap();
    assert!(matches!(
        shop.install(&gone).unwrap_err(),
        ArchiveError::Fetch { .. }
    ));
    gone.url = "http://127.0.0.1:9/gone.tar".to_owned();
    assert!(matches!(
        shop.install(&gone).unwrap_err(),
        ArchiveError::Fetch { .. }
    ));
    assert_eq!(shop.left(), Vec::<String>::new());
    let deep = Fetch {
        strip: 9,
        ..shop.offer("good.tar", &tarred(&GOOD))
    };
    assert!(matches!(
        shop.install(&deep).unwrap_err(),
        ArchiveError::Empty { strip: 9 }
    ));
}

#[test]
fn nothing_is_unpacked_into_a_folder_that_others_can_write_to() {
    let shop = Shop::new();
    fs::set_permissions(shop.top.join("opt"), Permissions::from_mode(0o777)).unwrap();
    let error = shop.install(&shop.offer("good.tar", &tarred(&GOOD))).unwrap_err();
    assert!(matches!(error, ArchiveError::Folder(_)), "{error}");
    assert_eq!(shop.left(), Vec::<String>::new());
}
