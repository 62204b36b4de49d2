//! What a copy of a prefix consists of: entries from what was found in the host's, without touching either.
//!
//! `brew` looks at the names of racks and versions, which must be folders and no links; at the receipts in
//! kegs; and, when it unlinks, at whether a link in the prefix leads to a file of the keg. So folders are real,
//! receipts are copied, links that lead to another part of the prefix stay as they are, since they are relative
//! and the copy has that part too, and the files themselves are links to the host's.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::{HostBrew, Layout};
use crate::host::files::{Entry, Found, Kind, What};

/// Folders of a keg that are linked into the prefix, and of the prefix they are linked into (keg.rb).
const LINKED: [&str; 7] = ["Frameworks", "bin", "etc", "include", "lib", "sbin", "share"];

/// Folders that exist in every copy, so that `brew` can lock, install and write there.
const ALWAYS: [&str; 12] = [
    "Caskroom",
    "Cellar",
    "Library",
    "Library/Taps",
    "bin",
    "etc",
    "opt",
    "tmp",
    "var",
    "var/homebrew",
    "var/homebrew/linked",
    "var/homebrew/locks",
];

/// Bytes up to which a configuration file is copied, so that a job can change it.
const MOST_COPIED: u64 = 1 << 20;

/// What becomes of an entry of the host's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// A folder is a folder; a file is a link to the host's.
    Shown,
    /// A folder is a folder; a file is copied.
    Copied,
    /// Both are a link to the host's.
    Whole,
    /// It is not in the copy.
    Absent,
}

fn fate(layout: Layout, path: &Path) -> Fate {
    // A name that is not text is none of those below.
    let names: Vec<&str> = path.iter().map(|name| name.to_str().unwrap_or("\0")).collect();
    let files = match layout {
        Layout::Links => Fate::Shown,
        Layout::Clone => Fate::Copied,
    };
    match names.as_slice() {
        // Made anew, whatever it is on the host.
        ["bin", "brew"] => Fate::Absent,
        ["Cellar"] | ["Cellar", _] | ["Cellar", _, _] => Fate::Shown,
        [
            "Cellar",
            _,
            _,
            "INSTALL_RECEIPT.json" | "sbom.spdx.json" | ".brew",
            ..,
        ] => Fate::Copied,
        ["Cellar", _, _, top, ..] if LINKED.contains(top) => files,
        ["Cellar", ..] if layout == Layout::Clone => Fate::Copied,
        ["Cellar", ..] => Fate::Whole,
        ["Caskroom"] | ["Caskroom", _] => Fate::Shown,
        ["Caskroom", _, ".metadata", ..] => Fate::Copied,
        // Versions of casks: what they install lies in /Applications, and what lies here may be large.
        ["Caskroom", ..] => Fate::Whole,
        ["etc", ..] => Fate::Copied,
        ["opt", ..] | ["var"] | ["var", "homebrew"] => Fate::Shown,
        ["var", "homebrew", "linked" | "pinned", ..] => Fate::Shown,
        [top, ..] if LINKED.contains(top) => files,
        _ => Fate::Absent,
    }
}

/// Whether what is in this folder of the host's prefix decides about the copy.
pub(super) fn is_entered(layout: Layout, folder: &Found) -> bool {
    folder.kind == Kind::Folder
        && folder.is_public()
        && matches!(fate(layout, &folder.path), Fate::Shown | Fate::Copied)
}

/// Whether this entry of the host's prefix has a part in the copy.
pub(super) fn concerns(layout: Layout, path: &Path) -> bool {
    fate(layout, path) != Fate::Absent
}

/// Whether this folder is inside a keg.
pub(super) fn is_in_keg(path: &Path) -> bool {
    path.starts_with("Cellar") && path.iter().count() > 3
}

/// Returns what a copy of `host` consists of, each folder before what is in it. `prefix` is what was found in
/// the host's prefix, `taps` what was found in its `Library/Taps`.
pub(super) fn describe(host: &HostBrew, prefix: &[Found], taps: &[Found], layout: Layout) -> Vec<Entry> {
    let of_prefix = prefix.iter().filter_map(|found| {
        let what = what(host, found, fate(layout, &found.path), layout)?;
        Some((found.path.clone(), what))
    });
    let mut entries: BTreeMap<PathBuf, What> = of_prefix.collect();
    // These must be folders even where the host has links, since something is made in them.
    entries.extend(ALWAYS.map(|name| (name.into(), What::Folder)));
    let library = host.repository.join("Library").into_std_path_buf();
    entries.insert("bin/brew".into(), What::Copy(host.program.clone().into()));
    entries.insert("Library/Homebrew".into(), What::Link(library.join("Homebrew")));
    for found in taps {
        let is_user = found.path.iter().count() == 1;
        let what = match found.kind {
            Kind::Folder if is_user && found.is_public() => What::Folder,
            Kind::Folder | Kind::Closed | Kind::Link(_) => What::Link(library.join("Taps").join(&found.path)),
            Kind::File | Kind::Other => continue,
        };
        entries.insert(Path::new("Library/Taps").join(&found.path), what);
    }
    // What lies in something that is no folder after all was replaced while the host was being read.
    let is_inside = |path: &Path| {
        let mut above = path.ancestors().skip(1).filter(|above| *above != Path::new(""));
        above.all(|above| entries.get(above) == Some(&What::Folder))
    };
    let inside = entries.iter().filter(|(path, _)| is_inside(path));
    inside
        .map(|(path, what)| Entry {
            path: path.clone(),
            what: what.clone(),
        })
        .collect()
}

fn what(host: &HostBrew, found: &Found, fate: Fate, layout: Layout) -> Option<What> {
    let hosts = || What::Link(host.prefix.as_std_path().join(&found.path));
    let is_small = layout == Layout::Clone || found.size <= MOST_COPIED;
    match (&found.kind, fate) {
        (_, Fate::Absent) => None,
        (Kind::Link(target), _) => Some(What::Link(relink(host, &found.path, target))),
        (Kind::Other, Fate::Shown | Fate::Copied) => None,
        (Kind::Folder, Fate::Shown | Fate::Copied) if found.is_public() => Some(What::Folder),
        // What not everybody may read stays where only those get at it who may.
        (Kind::File, Fate::Copied) if found.is_public() && is_small => {
            Some(What::Copy(host.prefix.as_std_path().join(&found.path)))
        }
        (Kind::Folder | Kind::Closed | Kind::File | Kind::Other, _) => Some(hosts()),
    }
}

/// The target of the link `path` in the copy: as it is, unless it is relative and leads to something that the
/// copy does not have; then the host's.
fn relink(host: &HostBrew, path: &Path, target: &Path) -> PathBuf {
    let mut place = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut rest = target.components().peekable();
    let mut outside = 0;
    while let Some(part) = rest.peek() {
        match part {
            Component::ParentDir if !place.pop() => outside += 1,
            Component::ParentDir | Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return target.to_owned(),
            Component::Normal(_) => break,
        }
        rest.next();
    }
    place.extend(rest);
    let first = place
        .iter()
        .next()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let has = ["Caskroom", "Cellar", "opt"].contains(&first) || LINKED.contains(&first);
    if outside == 0 && has {
        return target.to_owned();
    }
    let mut absolute = host.prefix.clone().into_std_path_buf();
    for _ in 0..outside {
        absolute.pop();
    }
    absolute.join(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;

    fn host() -> HostBrew {
        HostBrew {
            prefix: "/opt/homebrew".into(),
            program: "/opt/homebrew/bin/brew".into(),
            repository: "/opt/homebrew".into(),
        }
    }

    fn found(path: &str, kind: Kind) -> Found {
        Found {
            path: path.into(),
            kind,
            mode: Mode::from_bits_truncate(0o755),
            size: 10,
            modified: (0, 0),
        }
    }

    /// What becomes of one entry.
    fn entry(path: &str, kind: Kind, layout: Layout) -> Option<What> {
        what(&host(), &found(path, kind), fate(layout, Path::new(path)), layout)
    }

    fn hosts(path: &str) -> Option<What> {
        Some(What::Link(Path::new("/opt/homebrew").join(path)))
    }

    fn copied(path: &str) -> Option<What> {
        Some(What::Copy(Path::new("/opt/homebrew").join(path)))
    }

    #[test]
    fn a_keg_is_real_down_to_its_files_and_keeps_its_records() {
        let folder = |path| entry(path, Kind::Folder, Layout::Links);
        let file = |path| entry(path, Kind::File, Layout::Links);
        for path in [
            "Cellar/a",
            "Cellar/a/1.0",
            "Cellar/a/1.0/bin",
            "Cellar/a/1.0/lib/deep",
            "Cellar/a/1.0/.brew",
        ] {
            assert_eq!(folder(path), Some(What::Folder), "{path}");
        }
        for path in ["Cellar/a/1.0/libexec", "Cellar/a/1.0/Formula", "Cellar/a/1.0/var"] {
            assert_eq!(folder(path), hosts(path), "{path}");
        }
        for path in [
            "Cellar/a/1.0/bin/a",
            "Cellar/a/1.0/README.md",
            "Cellar/a/1.0/lib/deep/a.so",
        ] {
            assert_eq!(file(path), hosts(path), "{path}");
        }
        for path in [
            "Cellar/a/1.0/INSTALL_RECEIPT.json",
            "Cellar/a/1.0/sbom.spdx.json",
            "Cellar/a/1.0/.brew/a.rb",
        ] {
            assert_eq!(file(path), copied(path), "{path}");
        }
    }

    #[test]
    fn a_clone_has_the_files_themselves() {
        for path in [
            "Cellar/a/1.0/bin/a",
            "Cellar/a/1.0/libexec/deep/a",
            "lib/python3/module.py",
        ] {
            assert_eq!(entry(path, Kind::File, Layout::Clone), copied(path), "{path}");
        }
        assert_eq!(
            entry("Cellar/a/1.0/libexec", Kind::Folder, Layout::Clone),
            Some(What::Folder)
        );
    }

    #[test]
    fn what_is_not_homebrews_or_the_services_is_not_in_the_copy() {
        for path in [
            "var/db",
            "var/log",
            "manpages",
            ".git",
            "Library",
            "bin/brew",
            "Homebrew",
            "var/homebrew/locks",
        ] {
            for layout in [Layout::Links, Layout::Clone] {
                assert_eq!(entry(path, Kind::Folder, layout), None, "{path}");
                assert_eq!(entry(path, Kind::Link("x".into()), layout), None, "{path}");
            }
        }
    }

    #[test]
    fn what_is_closed_stays_with_the_host() {
        for kind in [Kind::File, Kind::Folder] {
            let mut secret = found("etc/x", kind);
            secret.mode = Mode::from_bits_truncate(0o750);
            assert_eq!(
                what(&host(), &secret, Fate::Copied, Layout::Clone),
                hosts("etc/x")
            );
        }
        assert_eq!(entry("Cellar/a", Kind::Closed, Layout::Links), hosts("Cellar/a"));
        let mut large = found("etc/x", Kind::File);
        large.size = MOST_COPIED + 1;
        assert_eq!(what(&host(), &large, Fate::Copied, Layout::Links), hosts("etc/x"));
    }

    #[test]
    fn a_relative_link_stays_unless_it_leads_to_what_the_copy_does_not_have() {
        let cases = [
            ("bin/a", "../Cellar/a/1.0/bin/a", "../Cellar/a/1.0/bin/a"),
            ("opt/a", "../Cellar/a/1.0", "../Cellar/a/1.0"),
            ("lib/pkg", "../opt/a/lib/../lib/pkg", "../opt/a/lib/../lib/pkg"),
            ("Cellar/a/1.0/bin/a", "../libexec/a", "../libexec/a"),
            ("Cellar/a/1.0/etc/a", "../../../../etc/a", "../../../../etc/a"),
            ("Cellar/a/latest", "1.0", "1.0"),
            (
                "bin/a",
                "/opt/homebrew/Cellar/a/1.0/bin/a",
                "/opt/homebrew/Cellar/a/1.0/bin/a",
            ),
            (
                "share/man/man1/brew.1",
                "../../../manpages/brew.1",
                "/opt/homebrew/manpages/brew.1",
            ),
            ("Cellar/a/1.0/share/a", "../../../../var/a", "/opt/homebrew/var/a"),
            ("bin/x", "../../other/x", "/opt/other/x"),
            ("bin/x", "../../../../../../x", "/x"),
            ("bin/x", "..", "/opt/homebrew/"),
        ];
        for (path, target, expected) in cases {
            let relinked = relink(&host(), Path::new(path), Path::new(target));
            assert_eq!(relinked, Path::new(expected), "{path} -> {target}");
        }
    }

    #[test]
    fn every_entry_lies_in_a_folder_of_the_list() {
        let odd = [
            found("bin", Kind::Link("/elsewhere".into())),
            found("etc", Kind::Folder),
            found("etc/x", Kind::File),
            found("lib", Kind::Link("/elsewhere".into())),
            found("lib/x", Kind::File),
        ];
        let entries = describe(
            &host(),
            &odd,
            &[
                found("acme", Kind::Folder),
                found("acme/homebrew-x", Kind::Folder),
            ],
            Layout::Links,
        );
        let what = |path: &str| {
            entries
                .iter()
                .find(|entry| entry.path == Path::new(path))
                .map(|entry| &entry.what)
        };
        assert_eq!(what("bin"), Some(&What::Folder));
        assert_eq!(what("etc/x"), Some(&What::Copy("/opt/homebrew/etc/x".into())));
        assert_eq!(what("lib/x"), None);
        assert_eq!(what("Library/Taps/acme"), Some(&What::Folder));
        let tap = What::Link("/opt/homebrew/Library/Taps/acme/homebrew-x".into());
        assert_eq!(what("Library/Taps/acme/homebrew-x"), Some(&tap));
        for (number, entry) in entries.iter().enumerate() {
            let parent = entry.path.parent().unwrap();
            let before = entries[..number]
                .iter()
                .any(|above| above.path == parent && above.what == What::Folder);
            assert!(before || parent == Path::new(""), "{}", entry.path.display());
        }
    }
}
