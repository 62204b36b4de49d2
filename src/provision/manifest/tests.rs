use super::*;

use crate::provision::kind::Kind;

struct Shelf {
    top: Utf8PathBuf,
    _keep: tempfile::TempDir,
}

/// A folder with these manifests in it.
fn shelf(manifests: &[(&str, &str)]) -> Shelf {
    let keep = tempfile::tempdir().unwrap();
    let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
    for (name, text) in manifests {
        std::fs::write(top.join(name), text).unwrap();
    }
    Shelf { top, _keep: keep }
}

impl Shelf {
    fn load(&self, name: &str) -> Result<Manifest, ManifestError> {
        load(name, &self.top)
    }

    /// What is wrong with a manifest, without the folder's name.
    fn wrong(&self, name: &str) -> String {
        let error = self.load(name).unwrap_err().to_string();
        error.replace(&format!("{}/", self.top), "")
    }
}

/// A host of that system, of which nothing else is known.
fn context(os: Os) -> Context {
    Context {
        host: crate::host::Host {
            os,
            ..crate::host::Host::system()
        },
        arch: "arm64".to_owned(),
        release: String::new(),
        distribution: vec![],
        distribution_version: String::new(),
        brew: None,
        job_path: vec![],
        accounts: vec![],
        group: String::new(),
        data_dir: "/var/lib/ephemerd".into(),
        present: vec![],
        root: true,
    }
}

const HEAD: &str = "version = 1\nos = \"linux\"\n";

/// What is wrong with a manifest of this text, after its head.
fn wrong(text: &str) -> String {
    shelf(&[("m.toml", &format!("{HEAD}{text}"))]).wrong("m.toml")
}

#[test]
fn every_manifest_that_comes_with_the_program_is_right_and_says_what_it_is_for() {
    for name in built_in() {
        let manifest = load(name, "/".into()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!manifest.description.is_empty(), "{name}");
        assert!(manifest.files.is_empty(), "{name}");
    }
}

#[test]
fn items_come_in_the_order_in_which_they_need_each_other() {
    let text = format!(
        "{HEAD}[check.a]\nwhy=\"w\"\ncommand=[\"x\"]\n[command.b]\nwhy=\"w\"\n[apt.z]\nwhy=\"w\"\n[apt.c]\nwhy=\"w\"\nversion=\">=1\"\n"
    );
    let manifest = shelf(&[("m.toml", &text)]).load("m.toml").unwrap();
    let ids: Vec<String> = manifest.items.iter().map(Item::id).collect();
    assert_eq!(ids, ["apt c", "apt z", "command b", "check a"]);
    assert_eq!(manifest.items[2].origin.line, 6);
}

#[test]
fn everything_that_is_wrong_is_told_with_its_place() {
    let text = r#"
[comand.git]
why = "typo"
[command.git]
why = "unknown key"
verison = ">=2"
[command.jq]
version = ">=1"
[command.cmake]
why = " "
[apt.curl]
why = "bad range"
version = ">=4, <3"
[dnf.curl]
why = "no range"
version = "latest"
[archive.gcc]
why = "short hash"
url = "https://example.org/gcc.tar.xz"
sha256 = "abc"
to = "/opt/gcc"
[folder."/opt/../etc"]
why = "climbs"
[file."/etc/x"]
why = "no octal"
mode = "rw-r--r--"
[disk."/"]
why = "nothing asked"
[check.empty]
why = "no command"
command = []
[env.HOME]
why = "reserved"
value = "/x"
"#;
    insta::assert_snapshot!(wrong(text), @r#"
    m.toml:4:2: `comand` is no kind of item
    hint: did you mean `command`?
    m.toml:8:1: unknown field `verison`, expected one of `version`, `args`, `pattern`, `exit`, `path`
    hint: did you mean `version`?
    m.toml:9:1: missing field `why`
    m.toml:11:10: `command cmake` does not say why
    hint: why = "…"
    m.toml:15:11: no version is both >=4 and <3
    hint: write the lower bound first: ">=17, <18"
    m.toml:18:11: `latest` is no comparison of versions
    hint: write an operator and a version, and commas between several: ">=17, <18"
    m.toml:19:10: a SHA-256 has 64 hexadecimal digits, and this has 3 characters
    hint: `shasum -a 256 FILE` prints it
    m.toml:24:9: `/opt/../etc` is no absolute path without `.` and `..`
    hint: write the whole path
    m.toml:28:8: `rw-r--r--` is no mode; write octal digits, for example "755"
    m.toml:29:7: nothing is asked of it
    hint: give `free`, `filesystem` or both
    m.toml:31:8: the command is empty
    hint: command = ["/bin/sh", "-c", "…"]
    m.toml:34:6: `HOME` is reserved: every job gets its own
    hint: remove it
    "#);
}

#[test]
fn a_manifest_says_its_version_and_its_systems() {
    let cases = [
        ("os = \"linux\"\n", "there is no version"),
        ("version = 2\nos = \"linux\"\n", "version 2 of the format"),
        ("version = 1\n", "which systems"),
        ("version = 1\nos = []\n", "which systems"),
        ("version = 1\nos = \"windows\"\n", "m.toml:2:6"),
        ("version = 1\nos = \"linux\"\n[apt]\njq = 1\n", "is no table"),
        (
            "version = 1\nos = \"linux\"\napt = 1\n",
            "holds items by their names",
        ),
        ("version = \n", "m.toml:1:"),
    ];
    for (text, expected) in cases {
        let said = shelf(&[("m.toml", text)]).wrong("m.toml");
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn what_a_manifest_says_itself_wins_over_what_it_includes() {
    let shelf = shelf(&[
        (
            "base.toml",
            &format!("{HEAD}[apt.jq]\nwhy=\"base\"\n[apt.git]\nwhy=\"base\"\n"),
        ),
        (
            "top.toml",
            &format!("{HEAD}include = [\"base.toml\"]\n[apt.jq]\nwhy=\"top\"\nversion=\">=1.7\"\n"),
        ),
    ]);
    let manifest = shelf.load("top.toml").unwrap();
    let whys: Vec<(String, &str)> = manifest
        .items
        .iter()
        .map(|item| (item.id(), item.why.as_str()))
        .collect();
    assert_eq!(
        whys,
        [("apt git".to_owned(), "base"), ("apt jq".to_owned(), "top")]
    );
    assert_eq!(
        manifest.files,
        ["top.toml", "base.toml"].map(|name| shelf.top.join(name))
    );
}

#[test]
fn two_that_are_included_must_agree_unless_it_is_said_what_holds() {
    let one = format!("{HEAD}[apt.jq]\nwhy=\"one\"\nversion=\">=1\"\n");
    let other = format!("{HEAD}[apt.jq]\nwhy=\"other\"\nversion=\">=2\"\n");
    let top = |more: &str| format!("{HEAD}include = [\"one.toml\", \"other.toml\"]\n{more}");
    let plain = top("");
    let files = [
        ("one.toml", one.as_str()),
        ("other.toml", &other),
        ("top.toml", &plain),
    ];
    insta::assert_snapshot!(shelf(&files).wrong("top.toml"), @r"
    top.toml:3:24: what is included says two things of `apt jq`: one.toml:3 and other.toml:3
    hint: say here what holds
    ");
    let settled = top("[apt.jq]\nwhy=\"top\"\nversion=\">=3\"\n");
    shelf(&[files[0], files[1], ("top.toml", &settled)])
        .load("top.toml")
        .unwrap();
    // The same in other words is no contradiction.
    let same = one.replace("\"one\"", "\"in other words\"");
    shelf(&[files[0], ("other.toml", &same), files[2]])
        .load("top.toml")
        .unwrap();
}

#[test]
fn a_cycle_of_includes_is_told_as_one() {
    let include = |name: &str| format!("{HEAD}include = [\"{name}\"]\n");
    let (a, b, c) = (include("b.toml"), include("./c.toml"), include("b.toml"));
    let said = shelf(&[("a.toml", &a), ("b.toml", &b), ("c.toml", &c)]).wrong("a.toml");
    insta::assert_snapshot!(said, @r"
    manifests include each other: b.toml → c.toml → b.toml
    hint: take one of the includes out
    ");
    let own = include("own.toml");
    assert!(
        shelf(&[("own.toml", &own)])
            .wrong("own.toml")
            .contains("own.toml → own.toml")
    );
}

#[test]
fn one_that_is_included_twice_is_no_cycle() {
    let base = format!("{HEAD}[apt.jq]\nwhy=\"base\"\n");
    let side = |name: &str| format!("{HEAD}include = [\"base.toml\"]\n[apt.{name}]\nwhy=\"w\"\n");
    let (left, right) = (side("left"), side("right"));
    let top = format!("{HEAD}include = [\"left.toml\", \"right.toml\"]\n");
    let files = [
        ("base.toml", base.as_str()),
        ("left.toml", &left),
        ("right.toml", &right),
        ("top.toml", &top),
    ];
    assert_eq!(shelf(&files).load("top.toml").unwrap().items.len(), 3);
}

#[test]
fn a_name_that_there_is_not_is_told_with_the_nearest() {
    let said = shelf(&[]).wrong("linux-bse");
    assert!(said.contains("did you mean `linux-base`?"), "{said}");
    let include = format!("{HEAD}include = [\"nosuch\", \"gone.toml\"]\n");
    let said = shelf(&[("m.toml", &include)]).wrong("m.toml");
    assert!(said.contains("`nosuch`, which `m.toml` includes"), "{said}");
    assert!(matches!(
        shelf(&[]).load("gone.toml"),
        Err(ManifestError::Read { .. })
    ));
}

#[test]
fn items_that_cannot_all_be_met_contradict_each_other() {
    let text = r#"
[folder."/opt/a"]
why = "w"
[file."/opt/a"]
why = "w"
[file."/opt/b"]
why = "w"
[file."/opt/b/c"]
why = "w"
[archive.one]
why = "w"
url = "https://example.org/x.tar"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
to = "/opt/tools"
[archive.two]
why = "w"
url = "https://example.org/y.tar"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
to = "/opt/tools/inner"
[folder."/opt/open"]
why = "w"
mode = "777"
"#;
    insta::assert_snapshot!(wrong(text), @r"
    m.toml:6:1: `file /opt/a` contradicts `folder /opt/a` of m.toml:4: one path cannot be both
    hint: keep one of the two
    m.toml:10:1: `file /opt/b/c` contradicts `file /opt/b` of m.toml:8: the second lies in the first
    hint: keep one of the two
    m.toml:17:1: `archive two` contradicts `archive one` of m.toml:12: one would be unpacked into the other
    hint: keep one of the two
    m.toml:22:9: mode 777 lets everybody write, and jobs may not change it
    hint: say `writable = true`, or take the write permission away
    ");
}

#[test]
fn the_digest_tells_every_change_and_nothing_else() {
    let text = format!("{HEAD}[apt.jq]\nwhy=\"w\"\n");
    let shelf = shelf(&[("m.toml", &text)]);
    let first = shelf.load("m.toml").unwrap().digest;
    assert_eq!(shelf.load("m.toml").unwrap().digest, first);
    std::fs::write(shelf.top.join("m.toml"), text.replace("jq", "jp")).unwrap();
    assert_ne!(shelf.load("m.toml").unwrap().digest, first);
}

#[test]
fn variables_of_another_system_are_not_for_jobs_here() {
    let text = format!(
        "{}[env.A]\nwhy=\"w\"\nvalue=\"1\"\n[env.B]\nwhy=\"w\"\nos=\"macos\"\nvalue=\"2\"\n",
        HEAD.replace("\"linux\"", "[\"linux\", \"macos\"]")
    );
    let manifest = shelf(&[("m.toml", &text)]).load("m.toml").unwrap();
    assert!(matches!(manifest.items[0].kind, Kind::Env(..)));
    assert_eq!(
        manifest.environment(&context(Os::Linux)),
        [("A".to_owned(), "1".to_owned())].into()
    );
    assert_eq!(manifest.environment(&context(Os::MacOs)).len(), 2);
}

#[test]
fn what_is_included_from_a_manifest_for_one_system_stays_for_that_system() {
    let mac = "version = 1\nos = \"macos\"\n[arch.m]\nwhy = \"w\"\nany = [\"arm64\"]\n";
    let both =
        "version = 1\nos = [\"macos\", \"linux\"]\ninclude = [\"mac.toml\"]\n[command.git]\nwhy = \"w\"\n";
    let manifest = shelf(&[("mac.toml", mac), ("both.toml", both)])
        .load("both.toml")
        .unwrap();
    let systems: Vec<(String, Option<Os>)> = manifest.items.iter().map(|item| (item.id(), item.os)).collect();
    let expected = [
        ("arch m".to_owned(), Some(Os::MacOs)),
        ("command git".to_owned(), None),
    ];
    assert_eq!(systems, expected);
}

#[test]
fn what_cannot_count_on_one_machine_contradicts_nothing_there() {
    let archive = |name: &str, arch: &str, owner: &str| {
        format!(
            "[archive.{name}]\nwhy = \"w\"\nurl = \"https://example.org/{name}.tar\"\nto = \"/opt/tools/it\"\nowner = \"{owner}\"\n\
             sha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\nonly_if = {{ arch = [\"{arch}\"] }}\n"
        )
    };
    let folder = "[folder.\"/opt/tools/it\"]\nwhy = \"w\"\nowner = \"root\"\n";
    let load = |text: &str| {
        shelf(&[("m.toml", &format!("{HEAD}{text}"))])
            .load("m.toml")
            .map(|_| ())
    };
    load(&(archive("a", "arm64", "root") + &archive("b", "x86_64", "root") + folder)).unwrap();
    assert!(load(&(archive("a", "arm64", "root") + &archive("b", "arm64", "root"))).is_err());
    let said = load(&(archive("a", "arm64", "daemon") + folder))
        .unwrap_err()
        .to_string();
    assert!(said.contains("one path has one owner"), "{said}");
}

#[test]
fn variables_that_the_loader_obeys_or_ephemerd_sets_are_refused() {
    for name in [
        "LD_PRELOAD",
        "DYLD_INSERT_LIBRARIES",
        "EPHEMERD_JOB_ID",
        "HOME",
        "1A",
        "A-B",
    ] {
        let said = wrong(&format!("[env.{name:?}]\nwhy = \"w\"\nvalue = \"x\"\n"));
        assert!(said.contains(name), "{said}");
    }
}
