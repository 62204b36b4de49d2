//! The host: the only part of the program that starts programs, looks accounts up and changes folders.
//!
//! Which system this is and where its files and tools lie is a value, [`Host`], so that a test can put a
//! stand-in behind every path and everything above decides by looking at values. System calls that differ
//! between the systems are in `os`, one file for each with the same functions.

pub mod accounts;
pub mod command;
pub mod files;
pub mod probe;

#[cfg(target_os = "linux")]
#[path = "host/linux.rs"]
pub(crate) mod os;
#[cfg(target_os = "macos")]
#[path = "host/macos.rs"]
pub(crate) mod os;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

/// An operating system ephemerd runs on. A parameter wherever a decision depends on it, so that both answers
/// are tested on either system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Os {
    /// macOS on Apple silicon.
    #[serde(rename = "macos")]
    MacOs,
    /// Linux.
    Linux,
}

impl Os {
    /// The system this program was built for.
    pub const fn host() -> Self {
        if cfg!(target_os = "macos") {
            Self::MacOs
        } else {
            Self::Linux
        }
    }
}

/// Where this host keeps its accounts and the tools that change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The system.
    pub os: Os,
    /// The account file, passwd(5).
    pub passwd: Utf8PathBuf,
    /// The group file, group(5).
    pub group: Utf8PathBuf,
    /// The password file, shadow(5).
    pub shadow: Utf8PathBuf,
    /// Folder of what running programs share until the next boot (file-hierarchy(7)).
    pub run: Utf8PathBuf,
    /// The tools.
    pub tools: Tools,
}

/// Absolute paths of the tools that are started: those that create and delete accounts (shadow-utils), and
/// log(1) and sandbox-exec(1) of macOS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// useradd(8)
    pub useradd: Utf8PathBuf,
    /// groupadd(8)
    pub groupadd: Utf8PathBuf,
    /// userdel(8)
    pub userdel: Utf8PathBuf,
    /// groupdel(8)
    pub groupdel: Utf8PathBuf,
    /// log(1), the unified log of macOS
    pub log: Utf8PathBuf,
    /// sandbox-exec(1) of macOS
    pub sandbox_exec: Utf8PathBuf,
}

impl Host {
    /// The host as it really is.
    pub fn system() -> Self {
        Self {
            os: Os::host(),
            passwd: "/etc/passwd".into(),
            group: "/etc/group".into(),
            shadow: "/etc/shadow".into(),
            run: "/run".into(),
            tools: Tools {
                useradd: "/usr/sbin/useradd".into(),
                groupadd: "/usr/sbin/groupadd".into(),
                userdel: "/usr/sbin/userdel".into(),
                groupdel: "/usr/sbin/groupdel".into(),
                log: "/usr/bin/log".into(),
                sandbox_exec: "/usr/bin/sandbox-exec".into(),
            },
        }
    }
}
