//! A job's own Homebrew prefix: a copy of the host's that the job may write, made so that `brew` takes what is
//! installed on the host for installed in the copy.
//!
//! ```text
//!  host's prefix ─► state ─► hash ─► <data_dir>/templates/homebrew/<hash>     once per state of the host
//!        └────────► layout ─► entries ────────────┘ │
//!                                                   └─► the job's copy        once per job, gone with it
//! ```
//!
//! What is here says where prefixes are and what a job's environment tells `brew`; `layout` decides what a copy
//! consists of, `state` when a template still fits, `template` makes both. The host's prefix is only ever read,
//! and nothing is ever read from a job's copy.
//!
//! That `brew` itself works with such a copy was found by experiment with toy formulae on Linux (5.0.16 and
//! 6.0.18). Nothing here has run on a Mac: bottles, casks and `install_name_tool` in a prefix of this kind are
//! unproven.

pub(crate) mod layout;
pub(crate) mod state;
pub(crate) mod template;

use std::collections::BTreeMap;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::{PATH, Workspace, mac};
use crate::host::Os;
use crate::host::files::FilesError;

pub use template::{Served, Shelf};

/// What a job gets of the host's Homebrew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A prefix of its own that it may write.
    Own,
    /// The host's prefix, to read and execute.
    SharedReadOnly,
    /// Nothing on its `PATH`.
    None,
}

/// What a copy consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Real kegs of symbolic links to the host's files.
    Links,
    /// Every file, sharing blocks with the host's; [`Layout::Links`] where the file system cannot do that.
    Clone,
}

/// Why a job gets no prefix of its own.
#[derive(Debug, thiserror::Error)]
pub enum HomebrewError {
    /// There is no Homebrew where one was named.
    #[error(
        "`{prefix}` is not a Homebrew prefix\nhint: name one in native.homebrew_prefix, as `brew --prefix` prints it"
    )]
    NotThere {
        /// The place.
        prefix: Utf8PathBuf,
        /// What the system said about what.
        source: io::Error,
    },
    /// A Homebrew of which no copy would work.
    #[error(
        "Homebrew in `{prefix}` cannot be copied: {why}\nhint: set native.homebrew to \"shared-read-only\" or \"none\""
    )]
    Unusual {
        /// The place.
        prefix: Utf8PathBuf,
        /// What is unusual about it.
        why: &'static str,
    },
    /// Somebody was changing it all the time.
    #[error(
        "Homebrew in `{prefix}` keeps changing\nhint: wait until `brew` has ended on the host, then run the job again"
    )]
    Changing {
        /// The place.
        prefix: Utf8PathBuf,
    },
    /// A folder or file could not be read or made.
    #[error("could not make the job's Homebrew prefix")]
    Files(#[from] FilesError),
    /// A lock, a note or a finished template could not be put in its place.
    #[error("could not {doing} `{path}`")]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To what.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Homebrew as the host has it, derived as `brew` does it (bin/brew): the repository is the prefix, or, where
/// `bin/brew` is a link, what its target lies in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostBrew {
    /// The prefix, without links on the way.
    pub(crate) prefix: Utf8PathBuf,
    /// The program `brew` itself, no link.
    pub(crate) program: Utf8PathBuf,
    /// The folder of `Library`.
    pub(crate) repository: Utf8PathBuf,
}

impl HostBrew {
    /// Homebrew in this prefix.
    ///
    /// # Errors
    ///
    /// When there is none, or one whose Cellar is elsewhere.
    pub fn at(prefix: &Utf8Path) -> Result<Self, HomebrewError> {
        let missing = |source| HomebrewError::NotThere {
            prefix: prefix.to_owned(),
            source,
        };
        let prefix = prefix.canonicalize_utf8().map_err(missing)?;
        let named = prefix.join("bin/brew");
        let program = named.canonicalize_utf8().map_err(missing)?;
        let repository = match named.is_symlink() {
            true => program.parent().and_then(Utf8Path::parent).unwrap_or(&prefix),
            false => &prefix,
        };
        let repository = repository.to_owned();
        repository
            .join("Library/Homebrew")
            .read_dir_utf8()
            .map_err(missing)?;
        let unusual = |why| {
            let prefix = prefix.clone();
            Err(HomebrewError::Unusual { prefix, why })
        };
        if prefix.join("Cellar").is_symlink() {
            return unusual("its Cellar is a symbolic link");
        }
        if repository != prefix && repository.join("Cellar").exists() {
            return unusual("its Cellar lies in its repository");
        }
        Ok(Self {
            prefix,
            program,
            repository,
        })
    }

    /// Homebrew of this host: that in the prefix `configured`, which must be there, or the one where it is `usual`;
    /// `None` on a host without.
    ///
    /// # Errors
    ///
    /// As [`HostBrew::at`].
    pub fn locate(usual: &Utf8Path, configured: Option<&Utf8Path>) -> Result<Option<Self>, HomebrewError> {
        let found = || usual.join("bin/brew").is_file().then_some(usual);
        configured.or_else(found).map(Self::at).transpose()
    }

    /// The prefix.
    pub fn prefix(&self) -> &Utf8Path {
        &self.prefix
    }
}

/// The folder of all jobs' prefixes on macOS, where a job sees files where they lie.
pub const PREFIXES: &str = "/opt/eph";

/// What the warden is told about a job's own prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The host's prefix.
    pub host: Utf8PathBuf,
    /// What the copy consists of.
    pub layout: Layout,
    /// The job's slot.
    pub slot: u32,
}

/// Where Homebrew usually is on Linux (the default of its installer).
pub const LINUXBREW: &str = "/home/linuxbrew/.linuxbrew";

/// Variables that make `brew` do nothing a job did not ask for.
const QUIET: [&str; 7] = [
    "HOMEBREW_NO_ANALYTICS",
    "HOMEBREW_NO_ASK",
    "HOMEBREW_NO_AUTO_UPDATE",
    "HOMEBREW_NO_ENV_HINTS",
    "HOMEBREW_NO_INSTALLED_DEPENDENTS_CHECK",
    "HOMEBREW_NO_INSTALL_CLEANUP",
    "HOMEBREW_NO_INSTALL_UPGRADE",
];

/// Returns what a job's environment says about Homebrew: the prefix first on its `PATH`, and where `brew` keeps
/// what it downloads and writes down.
pub fn environment(os: Os, workspace: &Workspace, mode: Mode, prefix: &Utf8Path) -> BTreeMap<String, String> {
    if mode == Mode::None {
        return BTreeMap::new();
    }
    let cache = match os {
        Os::MacOs => workspace.home().join("Library/Caches/Homebrew"),
        Os::Linux => workspace.home().join(".cache/Homebrew"),
    };
    let path = match os {
        // What keeps other programs from bringing a sandbox of their own stays in front.
        Os::MacOs => format!("{}:{prefix}/bin:{prefix}/sbin:{}", workspace.shims(), mac::PATH),
        Os::Linux => format!("{prefix}/bin:{prefix}/sbin:{PATH}"),
    };
    let mut variables = BTreeMap::from([
        ("PATH".to_owned(), path),
        ("HOMEBREW_LOGS".to_owned(), cache.join("Logs").into_string()),
        ("HOMEBREW_CACHE".to_owned(), cache.into_string()),
        ("HOMEBREW_TEMP".to_owned(), workspace.tmp().into_string()),
    ]);
    variables.extend(QUIET.map(|name| (name.to_owned(), "1".to_owned())));
    // `brew` ends with an error when it finds this in the default prefix (Library/Homebrew/sandbox.rb), and
    // knows it on macOS only.
    if mode == Mode::Own && os == Os::MacOs {
        variables.insert("HOMEBREW_AVOID_NESTED_SANDBOXING".to_owned(), "1".to_owned());
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> Workspace {
        Workspace::new("/var/lib/ephemerd".into(), &"0a1b2c3d4e5".parse().unwrap())
    }

    fn text(os: Os, mode: Mode, prefix: &str) -> String {
        let environment = environment(os, &workspace(), mode, prefix.into());
        environment
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect()
    }

    #[test]
    fn an_own_prefix_comes_first_and_writes_in_the_workspace() {
        insta::assert_snapshot!(text(Os::MacOs, Mode::Own, "/opt/eph/2"), @r"
        HOMEBREW_AVOID_NESTED_SANDBOXING=1
        HOMEBREW_CACHE=/var/lib/ephemerd/native/0a1b2c3d4e5/home/Library/Caches/Homebrew
        HOMEBREW_LOGS=/var/lib/ephemerd/native/0a1b2c3d4e5/home/Library/Caches/Homebrew/Logs
        HOMEBREW_NO_ANALYTICS=1
        HOMEBREW_NO_ASK=1
        HOMEBREW_NO_AUTO_UPDATE=1
        HOMEBREW_NO_ENV_HINTS=1
        HOMEBREW_NO_INSTALLED_DEPENDENTS_CHECK=1
        HOMEBREW_NO_INSTALL_CLEANUP=1
        HOMEBREW_NO_INSTALL_UPGRADE=1
        HOMEBREW_TEMP=/var/lib/ephemerd/native/0a1b2c3d4e5/tmp
        PATH=/var/lib/ephemerd/native/0a1b2c3d4e5/shims:/opt/eph/2/bin:/opt/eph/2/sbin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
        ");
    }

    #[test]
    fn the_hosts_prefix_gets_no_variable_that_it_would_refuse() {
        let shared = text(Os::MacOs, Mode::SharedReadOnly, "/opt/homebrew");
        assert!(
            shared.contains("/shims:/opt/homebrew/bin:/opt/homebrew/sbin:/usr/local/bin:"),
            "{shared}"
        );
        assert!(!shared.contains("SANDBOXING"), "{shared}");
        assert!(!text(Os::Linux, Mode::Own, "/var/eph/brew").contains("SANDBOXING"));
        assert_eq!(text(Os::Linux, Mode::None, "/var/eph/brew"), "");
    }

    #[test]
    fn finds_nothing_on_a_host_without_and_insists_on_what_is_named() {
        let missing = Utf8Path::new("/nonexistent/brew");
        let error = HostBrew::locate(LINUXBREW.into(), Some(missing)).unwrap_err();
        assert!(matches!(error, HomebrewError::NotThere { .. }), "{error}");
    }
}
