//! What planning has to know of the host besides its configuration.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::host::Os;
use crate::profile::render::System;
use crate::profile::render::macos::{Places, resolved_spelling};
use crate::profile::sbpl::Release;
use crate::workspace::place::RUNNER_PLACES;
use crate::workspace::{self, Workspace, homebrew};

/// Where developer tools are on a Mac without Xcode, once they are installed.
const COMMAND_LINE_TOOLS: &str = "/Library/Developer/CommandLineTools";

/// The system profiles are rendered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platform {
    /// Linux.
    Linux,
    /// macOS, with what was found on the Mac.
    MacOs(MacHost),
}

/// A Mac.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacHost {
    /// What it runs.
    pub release: Release,
    /// `ephemerd` itself, which is the first program inside a sandbox.
    pub program: Utf8PathBuf,
    /// What `xcode-select -p` says; `None` when nothing is selected.
    pub developer_dir: Option<Utf8PathBuf>,
    /// Its Homebrew.
    pub homebrew: MacHomebrew,
    /// The folder of the prefixes that jobs have of their own.
    pub prefixes: Utf8PathBuf,
    /// The folder of the runners that jobs have of their own.
    pub runner_places: Utf8PathBuf,
    /// Where macOS keeps the folders of accounts: `/private/var/folders`.
    pub user_folders: Utf8PathBuf,
    /// What each slot has, by the slot's number.
    pub slots: BTreeMap<u32, MacSlot>,
}

/// A slot of a Mac.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacSlot {
    /// The account's folder in `/private/var/folders`, the one above `T` and `C`.
    pub user_folder: Utf8PathBuf,
}

/// Homebrew of a Mac.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MacHomebrew {
    /// Taken to be here, for a Mac that cannot be looked at.
    Supposed(Utf8PathBuf),
    /// Looked for here, unless the configuration names another place.
    Usually(Utf8PathBuf),
}

impl MacHost {
    /// A Mac as it may be, for rendering where there is none: Xcode and Homebrew at their usual places, and
    /// names in place of what macOS calls an account's folder.
    pub fn example(release: Release, slots: u32, account: &str) -> Self {
        let slot = |number: u32| MacSlot {
            user_folder: format!("/private/var/folders/zz/{account}{number}").into(),
        };
        Self {
            release,
            program: "/usr/local/bin/ephemerd".into(),
            developer_dir: Some("/Applications/Xcode.app/Contents/Developer".into()),
            homebrew: MacHomebrew::Supposed("/opt/homebrew".into()),
            prefixes: homebrew::PREFIXES.into(),
            runner_places: RUNNER_PLACES.into(),
            user_folders: "/private/var/folders".into(),
            slots: (1..=slots).map(|number| (number, slot(number))).collect(),
        }
    }
}

impl Platform {
    /// The system.
    pub fn os(&self) -> Os {
        match self {
            Self::Linux => Os::Linux,
            Self::MacOs(_) => Os::MacOs,
        }
    }

    /// Where Homebrew is looked for; `None` for a host that is not this one.
    pub(super) fn usual_homebrew(&self) -> Option<&Utf8Path> {
        match self {
            Self::Linux => (Os::host() == Os::Linux).then(|| Utf8Path::new(homebrew::LINUXBREW)),
            Self::MacOs(host) => match &host.homebrew {
                MacHomebrew::Usually(prefix) => Some(prefix),
                MacHomebrew::Supposed(_) => None,
            },
        }
    }

    /// Where Homebrew is supposed to be on a host that cannot be looked at.
    pub(super) fn supposed_homebrew(&self) -> Option<&Utf8PathBuf> {
        match self {
            Self::MacOs(MacHost {
                homebrew: MacHomebrew::Supposed(prefix),
                ..
            }) => Some(prefix),
            Self::MacOs(_) | Self::Linux => None,
        }
    }

    /// The folder of jobs' prefixes on macOS.
    pub(super) fn prefixes(&self) -> &Utf8Path {
        match self {
            Self::Linux => homebrew::PREFIXES.into(),
            Self::MacOs(host) => &host.prefixes,
        }
    }

    /// The folder of jobs' runners on macOS.
    pub(super) fn runner_places(&self) -> &Utf8Path {
        match self {
            Self::Linux => RUNNER_PLACES.into(),
            Self::MacOs(host) => &host.runner_places,
        }
    }

    /// What a profile for a job in slot `slot` is rendered with; `None` when the host has no such slot.
    pub(super) fn system(&self, slot: u32, protected_ports: &[u16]) -> Option<System> {
        let host = match self {
            Self::Linux => return Some(System::Linux),
            Self::MacOs(host) => host,
        };
        let found = host.slots.get(&slot)?;
        Some(System::MacOs(Places {
            release: host.release,
            program: host.program.clone(),
            user_folders: host.user_folders.clone(),
            user_folder: found.user_folder.clone(),
            developer_dir: host
                .developer_dir
                .clone()
                .unwrap_or_else(|| COMMAND_LINE_TOOLS.into()),
            prefixes: host.prefixes.clone(),
            runner_places: host.runner_places.clone(),
            protected_ports: protected_ports.to_vec(),
        }))
    }

    /// Variables that every job of this system has, unless somebody says otherwise.
    pub(super) fn environment(&self, workspace: &Workspace) -> BTreeMap<String, String> {
        match self {
            Self::Linux => BTreeMap::new(),
            Self::MacOs(host) => workspace::mac_environment(workspace, host.developer_dir.as_deref()),
        }
    }

    /// The path with links resolved; as it is while it does not exist. For another system than this host's there is
    /// nothing to look at.
    pub(super) fn resolved(&self, path: &Utf8Path) -> Utf8PathBuf {
        let found = if self.os() == Os::host() {
            path.canonicalize_utf8()
        } else {
            camino::absolute_utf8(path)
        };
        found.unwrap_or_else(|_| path.to_owned())
    }

    /// The path of something that must exist, as [`Platform::resolved`]. Where this process does not get, as below a folder
    /// of root's, it is taken as it is written: whoever shows it to the job finds out, and follows no link on the way.
    pub(super) fn existing(&self, path: &Utf8Path) -> std::io::Result<Utf8PathBuf> {
        if self.os() == Os::host() {
            match path.canonicalize_utf8() {
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(path.to_owned()),
                found => found,
            }
        } else {
            Ok(self.resolved(path))
        }
    }

    /// The path as the system's kernel compares it.
    pub(super) fn compared(&self, path: &Utf8Path) -> Utf8PathBuf {
        match self {
            Self::Linux => path.to_owned(),
            Self::MacOs(_) => resolved_spelling(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_another_system_is_taken_as_it_is_written() {
        let mac = Platform::MacOs(MacHost::example(Release::NEWEST, 1, "_ephemerd"));
        if Os::host() == Os::Linux {
            let path = Utf8Path::new("/no such/folder");
            assert_eq!(mac.resolved(path), path);
            assert_eq!(mac.existing(path).unwrap(), path);
            assert!(Platform::Linux.existing(path).is_err());
            assert!(mac.resolved("ephemerd.toml".into()).is_absolute());
        }
        assert_eq!(mac.compared("/tmp/x".into()), "/private/tmp/x");
        assert_eq!(Platform::Linux.compared("/tmp/x".into()), "/tmp/x");
    }

    #[test]
    fn a_slot_the_mac_does_not_have_has_no_profile() {
        let mac = Platform::MacOs(MacHost::example(Release::NEWEST, 2, "_ephemerd"));
        assert!(mac.system(2, &[]).is_some());
        assert_eq!(mac.system(3, &[]), None);
        assert_eq!(Platform::Linux.system(3, &[]), Some(System::Linux));
    }
}
