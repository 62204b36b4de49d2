//! The host: the only part of the program that starts programs, looks accounts up and changes folders.
//!
//! Which system this is and where its files and tools lie is a value, [`Host`], so that a test can put a
//! stand-in behind every path and everything above decides by looking at values. System calls that differ
//! between the systems are in `os`, one file for each with the same functions.

pub mod accounts;
pub(crate) mod ancestry;
pub mod cgroup;
pub mod command;
pub mod egress;
pub mod entrance;
pub mod files;
pub mod logfile;
pub mod mac;
pub mod probe;
pub mod program;
pub mod provision;
pub mod prune;
pub mod runner;
pub mod secrets;
pub mod service;

#[cfg(target_os = "linux")]
#[path = "host/linux.rs"]
pub(crate) mod os;
#[cfg(target_os = "macos")]
#[path = "host/macos.rs"]
pub(crate) mod os;

use std::time::Duration;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::workspace::homebrew;
use crate::workspace::place::RUNNER_PLACES;

/// The memory of this host, in bytes (sysconf(3), `_SC_PHYS_PAGES`); 0 when the system does not tell.
pub fn total_memory_byte() -> u64 {
    // SAFETY: takes a number and returns one.
    let asked = |name| u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or_default();
    asked(libc::_SC_PHYS_PAGES).saturating_mul(asked(libc::_SC_PAGESIZE))
}

/// What a host has free at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Bytes of disk that everybody can get where a folder is.
    pub disk_byte: u64,
    /// Bytes of memory that processes can get without others losing any; `None` where the system does not tell.
    pub memory_byte: Option<u64>,
}

/// What is free here, and on the disk that `folder` is on (statvfs(3)).
///
/// # Errors
/// The folder cannot be looked at.
pub fn free(folder: &camino::Utf8Path) -> std::io::Result<Free> {
    let disk = rustix::fs::statvfs(folder.as_std_path())?;
    Ok(Free {
        disk_byte: disk.f_bavail.saturating_mul(disk.f_frsize),
        memory_byte: os::free_memory_byte(),
    })
}

/// Where an installation keeps what it calls itself, below its data folder.
pub const INSTALLATION: &str = "host/host-id";

/// What the installation with this data folder calls itself: six digits by chance, kept in a file, because names of hosts are
/// neither unique nor fixed. Where nothing ever ran there is no folder for that, and nothing is kept.
///
/// # Errors
/// The file cannot be read or written, or there is no chance.
pub fn installation(data_dir: &camino::Utf8Path) -> std::io::Result<String> {
    let path = data_dir.join(INSTALLATION);
    let is_id = |text: &str| text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match std::fs::read_to_string(&path) {
        Ok(text) if is_id(text.trim()) => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let chance = getrandom::u32().map_err(std::io::Error::other)?;
    let id = format!("{:06x}", chance >> 8);
    // The dispatcher reads it as another account.
    let mut open = |file: &std::fs::File| {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))
            .is_ok()
    };
    match files::replace_with(&path, format!("{id}\n").as_bytes(), &mut open) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(id),
    }
}

/// An operating system ephemerd runs on. A parameter wherever a decision depends on it, so that both answers
/// are tested on either system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Os {
    /// macOS on Apple silicon.
    #[serde(rename = "macos")]
    #[value(name = "macos")]
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

/// Where this host keeps its accounts, its shared places and the tools that are started.
///
/// The program itself always uses [`Host::system`]: no option, file or variable changes it. A test builds another
/// one, with stand-ins behind every path, and a program of its own that hands it to the same code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// Places where an account without a home could still leave files.
    pub shared_places: Vec<Utf8PathBuf>,
    /// Where macOS keeps folders for temporary files and caches per account (confstr(3)).
    pub user_folders: Utf8PathBuf,
    /// Where Homebrew usually is on macOS (the default of its installer for Apple silicon).
    pub homebrew: Utf8PathBuf,
    /// What says which distribution this is, os-release(5).
    pub os_release: Utf8PathBuf,
    /// The resolvers of the system, resolv.conf(5).
    pub resolv_conf: Utf8PathBuf,
    /// The folder of the prefixes that jobs have of their own on macOS, and of nothing else.
    pub prefixes: Utf8PathBuf,
    /// The folder of the runners of GitHub that jobs have of their own on macOS, and of nothing else.
    pub runner_places: Utf8PathBuf,
    /// How long to wait before a tool that was refused for no lasting reason is asked again.
    pub retry_pause: Duration,
    /// Where the service and what belongs to it is installed.
    pub service: ServicePlaces,
    /// The tools of Linux.
    pub tools: Tools,
    /// The tools of macOS.
    pub mac: MacTools,
}

/// Where the service and what belongs to it is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePlaces {
    /// The program.
    pub program: Utf8PathBuf,
    /// Folder of its logs, where it logs to a file.
    pub logs: Utf8PathBuf,
    /// Folder of units that the administrator installs, systemd.unit(5).
    pub units: Utf8PathBuf,
    /// Folder of what logrotate(8) rotates.
    pub logrotate: Utf8PathBuf,
    /// Folder of property lists of daemons, launchd.plist(5).
    pub daemons: Utf8PathBuf,
    /// Folder of what newsyslog(8) rotates.
    pub newsyslog: Utf8PathBuf,
}

/// Absolute paths of the tools of Linux.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// apt-get(8)
    pub apt_get: Utf8PathBuf,
    /// apt-mark(8)
    pub apt_mark: Utf8PathBuf,
    /// curl(1)
    pub curl: Utf8PathBuf,
    /// dnf(8)
    pub dnf: Utf8PathBuf,
    /// dpkg(1)
    pub dpkg: Utf8PathBuf,
    /// dpkg-query(1)
    pub dpkg_query: Utf8PathBuf,
    /// ip(8), of iproute2
    pub ip: Utf8PathBuf,
    /// logrotate(8), which need not be there
    pub logrotate: Utf8PathBuf,
    /// nft(8)
    pub nft: Utf8PathBuf,
    /// rpm(8)
    pub rpm: Utf8PathBuf,
    /// systemctl(1)
    pub systemctl: Utf8PathBuf,
    /// timedatectl(1)
    pub timedatectl: Utf8PathBuf,
    /// unshare(1), of util-linux
    pub unshare: Utf8PathBuf,
    /// useradd(8), of shadow-utils like those below
    pub useradd: Utf8PathBuf,
    /// groupadd(8)
    pub groupadd: Utf8PathBuf,
    /// userdel(8)
    pub userdel: Utf8PathBuf,
    /// groupdel(8)
    pub groupdel: Utf8PathBuf,
}

/// Absolute paths of the tools of macOS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacTools {
    /// arch(1)
    pub arch: Utf8PathBuf,
    /// chmod(1), for access control lists
    pub chmod: Utf8PathBuf,
    /// csrutil(8)
    pub csrutil: Utf8PathBuf,
    /// defaults(1)
    pub defaults: Utf8PathBuf,
    /// diskutil(8)
    pub diskutil: Utf8PathBuf,
    /// dscacheutil(1)
    pub dscacheutil: Utf8PathBuf,
    /// dscl(1)
    pub dscl: Utf8PathBuf,
    /// dseditgroup(8)
    pub dseditgroup: Utf8PathBuf,
    /// fdesetup(8)
    pub fdesetup: Utf8PathBuf,
    /// getconf(1)
    pub getconf: Utf8PathBuf,
    /// id(1)
    pub id: Utf8PathBuf,
    /// ifconfig(8)
    pub ifconfig: Utf8PathBuf,
    /// ipcrm(1)
    pub ipcrm: Utf8PathBuf,
    /// ipcs(1)
    pub ipcs: Utf8PathBuf,
    /// launchctl(1)
    pub launchctl: Utf8PathBuf,
    /// log(1), the unified log
    pub log: Utf8PathBuf,
    /// mdutil(1)
    pub mdutil: Utf8PathBuf,
    /// pfctl(8)
    pub pfctl: Utf8PathBuf,
    /// pkgutil(1)
    pub pkgutil: Utf8PathBuf,
    /// pmset(1)
    pub pmset: Utf8PathBuf,
    /// sandbox-exec(1)
    pub sandbox_exec: Utf8PathBuf,
    /// security(1)
    pub security: Utf8PathBuf,
    /// softwareupdate(8)
    pub softwareupdate: Utf8PathBuf,
    /// spctl(8)
    pub spctl: Utf8PathBuf,
    /// sqlite3(1)
    pub sqlite3: Utf8PathBuf,
    /// sw_vers(1)
    pub sw_vers: Utf8PathBuf,
    /// sysctl(8)
    pub sysctl: Utf8PathBuf,
    /// systemsetup(8)
    pub systemsetup: Utf8PathBuf,
    /// true(1), for trying whether something can be started at all
    pub r#true: Utf8PathBuf,
    /// xcode-select(1)
    pub xcode_select: Utf8PathBuf,
    /// xcodebuild(1)
    pub xcodebuild: Utf8PathBuf,
    /// xcrun(1)
    pub xcrun: Utf8PathBuf,
}

impl Host {
    /// The file that anybody may read and a dispatcher in its sandbox of macOS may not.
    pub fn fence_proof(&self) -> Utf8PathBuf {
        self.run.join("ephemerd/fence-proof")
    }

    /// The machine, as `uname -m` says: `arm64`, `x86_64`, `aarch64`; nothing when the system does not tell.
    pub fn machine(&self) -> String {
        match self.os {
            Os::Linux => nix::sys::utsname::uname()
                .ok()
                .and_then(|uname| Some(uname.machine().to_str()?.to_owned()))
                .unwrap_or_default(),
            Os::MacOs => mac::arch(self).unwrap_or_default(),
        }
    }

    /// The host as it really is.
    pub fn system() -> Self {
        Self {
            os: Os::host(),
            passwd: "/etc/passwd".into(),
            group: "/etc/group".into(),
            shadow: "/etc/shadow".into(),
            run: match Os::host() {
                Os::MacOs => "/private/var/run".into(),
                Os::Linux => "/run".into(),
            },
            shared_places: Self::shared_places(Os::host()),
            user_folders: "/private/var/folders".into(),
            homebrew: "/opt/homebrew".into(),
            os_release: "/etc/os-release".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            prefixes: homebrew::PREFIXES.into(),
            runner_places: RUNNER_PLACES.into(),
            retry_pause: Duration::from_millis(500),
            service: ServicePlaces {
                program: "/usr/local/bin/ephemerd".into(),
                logs: match Os::host() {
                    Os::MacOs => "/private/var/log/ephemerd".into(),
                    Os::Linux => "/var/log/ephemerd".into(),
                },
                units: "/etc/systemd/system".into(),
                logrotate: "/etc/logrotate.d".into(),
                daemons: "/Library/LaunchDaemons".into(),
                newsyslog: "/private/etc/newsyslog.d".into(),
            },
            tools: Tools {
                apt_get: "/usr/bin/apt-get".into(),
                apt_mark: "/usr/bin/apt-mark".into(),
                curl: "/usr/bin/curl".into(),
                dnf: "/usr/bin/dnf".into(),
                dpkg: "/usr/bin/dpkg".into(),
                dpkg_query: "/usr/bin/dpkg-query".into(),
                ip: "/usr/sbin/ip".into(),
                logrotate: "/usr/sbin/logrotate".into(),
                nft: "/usr/sbin/nft".into(),
                rpm: "/usr/bin/rpm".into(),
                systemctl: "/usr/bin/systemctl".into(),
                timedatectl: "/usr/bin/timedatectl".into(),
                unshare: "/usr/bin/unshare".into(),
                useradd: "/usr/sbin/useradd".into(),
                groupadd: "/usr/sbin/groupadd".into(),
                userdel: "/usr/sbin/userdel".into(),
                groupdel: "/usr/sbin/groupdel".into(),
            },
            mac: MacTools {
                arch: "/usr/bin/arch".into(),
                chmod: "/bin/chmod".into(),
                csrutil: "/usr/bin/csrutil".into(),
                defaults: "/usr/bin/defaults".into(),
                diskutil: "/usr/sbin/diskutil".into(),
                dscacheutil: "/usr/bin/dscacheutil".into(),
                dscl: "/usr/bin/dscl".into(),
                dseditgroup: "/usr/sbin/dseditgroup".into(),
                fdesetup: "/usr/bin/fdesetup".into(),
                getconf: "/usr/bin/getconf".into(),
                id: "/usr/bin/id".into(),
                ifconfig: "/sbin/ifconfig".into(),
                ipcrm: "/usr/bin/ipcrm".into(),
                ipcs: "/usr/bin/ipcs".into(),
                launchctl: "/bin/launchctl".into(),
                log: "/usr/bin/log".into(),
                mdutil: "/usr/bin/mdutil".into(),
                pfctl: "/sbin/pfctl".into(),
                pkgutil: "/usr/sbin/pkgutil".into(),
                pmset: "/usr/bin/pmset".into(),
                sandbox_exec: "/usr/bin/sandbox-exec".into(),
                security: "/usr/bin/security".into(),
                softwareupdate: "/usr/sbin/softwareupdate".into(),
                spctl: "/usr/sbin/spctl".into(),
                sqlite3: "/usr/bin/sqlite3".into(),
                sw_vers: "/usr/bin/sw_vers".into(),
                sysctl: "/usr/sbin/sysctl".into(),
                systemsetup: "/usr/sbin/systemsetup".into(),
                r#true: "/usr/bin/true".into(),
                xcode_select: "/usr/bin/xcode-select".into(),
                xcodebuild: "/usr/bin/xcodebuild".into(),
                xcrun: "/usr/bin/xcrun".into(),
            },
        }
    }

    /// Places of `os` where an account without a home could still leave files.
    fn shared_places(os: Os) -> Vec<Utf8PathBuf> {
        let places: &[&str] = match os {
            Os::Linux => &[
                "/tmp",
                "/var/tmp",
                "/dev/shm",
                "/dev/mqueue",
                "/run/lock",
                "/var/spool/cron/crontabs",
                "/var/spool/cron/atjobs",
            ],
            // cron(8) and at(1) keep their files below /var/at there.
            Os::MacOs => &[
                "/private/tmp",
                "/private/var/tmp",
                "/Users/Shared",
                "/private/var/at/tabs",
                "/private/var/at/jobs",
            ],
        };
        places.iter().map(|place| (*place).into()).collect()
    }
}
