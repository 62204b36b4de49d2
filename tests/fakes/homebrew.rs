//! A tree as Homebrew leaves it on a host, with a stand-in for `brew`, and a way to see that nothing changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use camino::{Utf8Path, Utf8PathBuf};

/// The stand-in.
const BREW: &str = include_str!("brew");

/// Where the repository is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repository {
    /// The prefix is the repository, as on Apple silicon.
    Prefix,
    /// `bin/brew` is a link into `Homebrew/`, as on Linux and on Intel.
    Below,
}

/// A host's Homebrew.
#[derive(Debug)]
pub(crate) struct FakeHomebrew {
    pub(crate) prefix: Utf8PathBuf,
}

impl FakeHomebrew {
    /// Makes one in `prefix`: several kegs and versions, one keg-only, taps, a cask, configuration, links.
    pub(crate) fn make(prefix: &Utf8Path, repository: Repository) -> Self {
        let host = Self {
            prefix: prefix.to_owned(),
        };
        let root = match repository {
            Repository::Prefix => "",
            Repository::Below => "Homebrew/",
        };
        host.program(&format!("{root}bin/brew"), BREW);
        if repository == Repository::Below {
            host.link("bin/brew", "../Homebrew/bin/brew");
        }
        host.file(&format!("{root}Library/Homebrew/brew.sh"), "# the library\n");
        host.file(
            &format!("{root}Library/Taps/homebrew/homebrew-core/Formula/a/alpha.rb"),
            "class Alpha < Formula; end\n",
        );
        host.file(
            &format!("{root}Library/Taps/acme/homebrew-tools/Casks/app.rb"),
            "cask 'app'\n",
        );
        host.file(&format!("{root}manpages/brew.1"), ".TH BREW\n");
        host.link(
            "share/man/man1/brew.1",
            &format!("../../../{root}manpages/brew.1"),
        );

        host.keg("alpha", "1.0", &["bin/alpha"]);
        host.keg(
            "alpha",
            "1.1",
            &["bin/alpha", "share/man/man1/alpha.1", "libexec/real"],
        );
        host.link("Cellar/alpha/1.1/bin/alpha-real", "../libexec/real");
        host.linked(
            "alpha",
            "1.1",
            &["bin/alpha", "bin/alpha-real", "share/man/man1/alpha.1"],
        );
        host.keg(
            "beta",
            "2.0",
            &[
                "bin/beta",
                "lib/libbeta.2.so",
                "include/beta/beta.h",
                "Frameworks/B.framework/B",
            ],
        );
        host.link("Cellar/beta/2.0/lib/libbeta.so", "libbeta.2.so");
        // Where nobody else has files, a whole folder is one link (keg.rb, link_dir).
        host.linked(
            "beta",
            "2.0",
            &[
                "bin/beta",
                "lib/libbeta.2.so",
                "lib/libbeta.so",
                "include/beta",
                "Frameworks/B.framework",
            ],
        );
        host.keg("gamma@3", "3.0", &["bin/gamma", "lib/libgamma.so"]);
        host.link("opt/gamma@3", "../Cellar/gamma@3/3.0");
        host.link("opt/gamma", "../Cellar/gamma@3/3.0");
        host.keg("delta", "4.0_1", &["bin/delta", "etc/delta.conf"]);
        host.linked("delta", "4.0_1", &["bin/delta"]);
        host.link("var/homebrew/pinned/delta", "../../../Cellar/delta/4.0_1");

        host.file("etc/delta.conf", "setting = 1\n");
        host.file("etc/delta.secret", "password\n");
        host.mode("etc/delta.secret", 0o600);
        host.file("var/db/data", "a service's data\n");
        host.file("var/homebrew/locks/alpha.formula.lock", "");
        host.file("Caskroom/app/1.0/App.app/Contents/MacOS/app", "binary\n");
        host.file(
            "Caskroom/app/.metadata/1.0/20260101000000.000/Casks/app.json",
            "{}\n",
        );
        host
    }

    /// A path in the prefix.
    pub(crate) fn at(&self, path: impl AsRef<Utf8Path>) -> Utf8PathBuf {
        self.prefix.join(path)
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn file(&self, path: &str, content: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
    }

    /// Writes a program.
    pub(crate) fn program(&self, path: &str, content: &str) {
        self.file(path, content);
        self.mode(path, 0o755);
    }

    /// Sets permissions.
    pub(crate) fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Makes a symbolic link, with the folders above it.
    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// Installs a keg without linking it. Each file is a program that says which keg and file it is.
    pub(crate) fn keg(&self, name: &str, version: &str, files: &[&str]) {
        let keg = format!("Cellar/{name}/{version}");
        for file in files {
            let script = format!("#!/bin/sh\necho {name} {version} {file}\n");
            self.program(&format!("{keg}/{file}"), &script);
        }
        let receipt = format!(
            "{{\"homebrew_version\":\"6.0.18\",\"source\":{{\"versions\":{{\"stable\":\"{version}\"}}}}}}\n"
        );
        self.file(&format!("{keg}/INSTALL_RECEIPT.json"), &receipt);
        self.file(&format!("{keg}/.brew/{name}.rb"), "class F < Formula; end\n");
        self.file(&format!("{keg}/sbom.spdx.json"), "{}\n");
        self.file(&format!("{keg}/README.md"), "read me\n");
    }

    /// Links files and folders of a keg into the prefix, as `brew link` does.
    pub(crate) fn linked(&self, name: &str, version: &str, files: &[&str]) {
        for file in files {
            let up = "../".repeat(file.matches('/').count());
            self.link(file, &format!("{up}Cellar/{name}/{version}/{file}"));
        }
        self.link(&format!("opt/{name}"), &format!("../Cellar/{name}/{version}"));
        self.link(
            &format!("var/homebrew/linked/{name}"),
            &format!("../../../Cellar/{name}/{version}"),
        );
    }
}

/// Everything in a tree: kind, permissions, owner, times, content or target of each entry.
pub(crate) fn walk(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let status = fs::symlink_metadata(&path).unwrap();
            let content = if status.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if status.is_file() {
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
            } else {
                String::new()
            };
            let (mode, uid, changed) = (status.mode(), status.uid(), (status.mtime(), status.ctime_nsec()));
            seen.insert(path.clone(), format!("{mode:o} {uid} {changed:?} {content}"));
            if status.is_dir() {
                folders.push(path);
            }
        }
    }
    seen
}
