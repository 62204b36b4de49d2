//! Where runner trees are and what they are called.
//!
//! ```text
//!  <data_dir>/runners                0700 ours
//!  └─ 2.336.0-linux-x64              0755 ours     as its archive has it; nothing is ever written into it
//!     ├─ bin/Runner.Listener
//!     └─ externals
//! ```
//!
//! A job gets a copy. The listener does not start in one unless it may list every folder above it
//! (Runner.Sdk/Util/IOUtil.cs, ValidateExecutePermission): folders that jobs only pass through must be shown to it as others.
//!
//! Names of systems and processors are those of GitHub's archives.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};

use super::version::RunnerVersion;
use crate::host::Os;

/// The folder of all trees, in the data folder.
pub const RUNNERS: &str = "runners";

/// Where GitHub keeps the archives (the releases of github.com/actions/runner).
pub const RELEASES: &str = "https://github.com/actions/runner/releases/download";

/// A processor that GitHub makes runners for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// 64 bits of Intel's and AMD's.
    X64,
    /// 64 bits of Arm's.
    Arm64,
}

impl Arch {
    /// The processor that uname(1) calls `machine`.
    pub fn of_machine(machine: &str) -> Option<Self> {
        match machine {
            "x86_64" | "amd64" => Some(Self::X64),
            "aarch64" | "arm64" => Some(Self::Arm64),
            _ => None,
        }
    }
}

/// What a tree was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    /// The system.
    pub os: Os,
    /// The processor.
    pub arch: Arch,
}

const PLATFORMS: [Platform; 4] = [
    Platform {
        os: Os::MacOs,
        arch: Arch::Arm64,
    },
    Platform {
        os: Os::MacOs,
        arch: Arch::X64,
    },
    Platform {
        os: Os::Linux,
        arch: Arch::Arm64,
    },
    Platform {
        os: Os::Linux,
        arch: Arch::X64,
    },
];

impl Platform {
    const fn name(self) -> &'static str {
        match (self.os, self.arch) {
            (Os::MacOs, Arch::Arm64) => "osx-arm64",
            (Os::MacOs, Arch::X64) => "osx-x64",
            (Os::Linux, Arch::Arm64) => "linux-arm64",
            (Os::Linux, Arch::X64) => "linux-x64",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Ord for Platform {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name().cmp(other.name())
    }
}

impl PartialOrd for Platform {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Why a text names no tree or hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is not the name of a tree.
    #[error("`{}` is no version and platform of a runner\nhint: 2.336.0-linux-x64, for example", .0.escape_debug())]
    Build(String),
    /// It is no SHA-256.
    #[error("`{}` is no SHA-256\nhint: 64 hexadecimal digits, as the notes of the release print it", .0.escape_debug())]
    Sha256(String),
}

/// One tree: a version for a platform. Its name is that of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Build {
    /// The version.
    pub version: RunnerVersion,
    /// What it runs on.
    pub platform: Platform,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.version, self.platform)
    }
}

impl FromStr for Build {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parsed = text.split_once('-').and_then(|(version, platform)| {
            let version = RunnerVersion::from_str(version).ok()?;
            let platform = PLATFORMS.into_iter().find(|known| known.name() == platform)?;
            Some(Self { version, platform })
        });
        // Written in one way only, so that no two folders are the same tree.
        parsed
            .filter(|build| build.to_string() == text)
            .ok_or_else(|| NameError::Build(text.to_owned()))
    }
}

impl Build {
    /// Its folder, in the folder of all trees.
    pub fn folder(&self, runners: &Utf8Path) -> Utf8PathBuf {
        runners.join(self.to_string())
    }

    /// Where its archive is, below `releases`, which is [`RELEASES`] unless the archives are kept elsewhere.
    pub fn url(&self, releases: &str) -> String {
        let Self { version, platform } = self;
        format!("{releases}/v{version}/actions-runner-{platform}-{version}.tar.gz")
    }
}

/// The SHA-256 of an archive.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Sha256(String);

impl Sha256 {
    /// 64 hexadecimal digits, lower-case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Sha256 {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(NameError::Sha256(text.to_owned()))
        }
    }
}

/// The trees of `installed` that nobody needs any more: neither `current`, nor being copied, nor the newest before
/// `current`, which is what there is to go back to. Newer ones stay too: they are about to be switched to.
pub fn removable(installed: &BTreeSet<Build>, current: Build, in_use: &BTreeSet<Build>) -> Vec<Build> {
    let is_ours = |build: &&Build| build.platform == current.platform;
    let before = installed.iter().filter(is_ours);
    let back = before.filter(|build| build.version < current.version).max();
    let is_needed = |build: &Build| {
        let newer = build.platform == current.platform && build.version >= current.version;
        newer || Some(build) == back || in_use.contains(build)
    };
    installed
        .iter()
        .copied()
        .filter(|build| !is_needed(build))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn build(name: &str) -> Build {
        name.parse().unwrap()
    }

    fn builds(names: &[&str]) -> BTreeSet<Build> {
        names.iter().map(|name| build(name)).collect()
    }

    #[test]
    fn folders_and_archives_are_called_as_github_calls_them() {
        let cases = [
            (
                "2.336.0-osx-arm64",
                "v2.336.0/actions-runner-osx-arm64-2.336.0.tar.gz",
            ),
            (
                "2.336.0-osx-x64",
                "v2.336.0/actions-runner-osx-x64-2.336.0.tar.gz",
            ),
            (
                "2.336.0-linux-arm64",
                "v2.336.0/actions-runner-linux-arm64-2.336.0.tar.gz",
            ),
            (
                "2.336.0-linux-x64",
                "v2.336.0/actions-runner-linux-x64-2.336.0.tar.gz",
            ),
        ];
        for (name, archive) in cases {
            let build = build(name);
            assert_eq!(build.url(RELEASES), format!("{RELEASES}/{archive}"));
            assert_eq!(
                build.folder(Utf8Path::new("/d/runners")),
                format!("/d/runners/{name}")
            );
        }
    }

    #[test]
    fn other_names_are_no_trees() {
        for name in [
            "",
            ".ephemerd-2.336.0-linux-x64",
            "2.336.0",
            "2.336.0-linux",
            "v2.336.0-linux-x64",
            "02.336.0-linux-x64",
            "2.336.0-win-x64",
            "2.336.0-linux-x64/..",
            "../2.336.0-linux-x64",
            "2.336.0-linux-x64 ",
        ] {
            let said = Build::from_str(name).unwrap_err().to_string();
            assert!(said.contains("\nhint: 2.336.0-linux-x64"), "{name}");
        }
    }

    #[test]
    fn processors_are_known_by_what_uname_calls_them() {
        assert_eq!(Arch::of_machine("x86_64"), Some(Arch::X64));
        assert_eq!(Arch::of_machine("arm64"), Some(Arch::Arm64));
        assert_eq!(Arch::of_machine("aarch64"), Some(Arch::Arm64));
        assert_eq!(Arch::of_machine("riscv64"), None);
    }

    #[test]
    fn a_hash_is_64_hexadecimal_digits() {
        let text = "AB".repeat(32);
        assert_eq!(Sha256::from_str(&text).unwrap().as_str(), "ab".repeat(32));
        for wrong in [String::new(), "a".repeat(63), "g".repeat(64), "a".repeat(65)] {
            Sha256::from_str(&wrong).unwrap_err();
        }
    }

    #[test]
    fn the_current_tree_the_one_before_and_newer_ones_stay() {
        let installed = builds(&[
            "2.330.0-linux-x64",
            "2.334.0-linux-x64",
            "2.335.0-linux-x64",
            "2.336.0-linux-x64",
            "2.337.0-linux-x64",
            "2.336.0-linux-arm64",
        ]);
        let removed = removable(
            &installed,
            build("2.336.0-linux-x64"),
            &builds(&["2.330.0-linux-x64"]),
        );
        assert_eq!(
            removed,
            [build("2.334.0-linux-x64"), build("2.336.0-linux-arm64")]
        );
    }

    proptest! {
        #[test]
        fn a_name_is_read_back_as_what_it_was(numbers in any::<[u32; 3]>(), at in 0usize..4) {
            let [major, minor, patch] = numbers;
            let build = Build { version: RunnerVersion { major, minor, patch }, platform: PLATFORMS[at] };
            prop_assert_eq!(build.to_string().parse(), Ok(build));
        }

        #[test]
        fn text_without_sense_is_refused_without_a_panic(text in "\\PC{0,40}") {
            let _ = Build::from_str(&text);
            let _ = Sha256::from_str(&text);
        }
    }
}
