//! A job's folders and environment.
//!
//! ```text
//!  <data_dir>            0711 ours        jobs pass through, nobody lists it
//!  ├─ native             0711 ours
//!  │  └─ <job-id>        0700 account     root of the workspace
//!  │     ├─ home         0700 account     HOME
//!  │     ├─ runner       0700 account     GitHub's runner, of a job that is one; on macOS elsewhere, see [`place`]
//!  │     ├─ homebrew     0755 account     its own Homebrew prefix, where it has one; see [`homebrew`]
//!  │     ├─ tmp          0700 account     TMPDIR
//!  │     ├─ work         0700 account     where the command starts
//!  │     └─ shims        0755 ours        macOS: programs in place of some that bring a sandbox of their own
//!  ├─ host               0711 ours        what this host's owner decided and did: enabled.json, receipts
//!  ├─ state              0700 dispatcher  ledger
//!  ├─ logs               0700 dispatcher
//!  ├─ runners            0700 dispatcher  trees of GitHub's runner
//!  ├─ profiles           0711 ours        macOS: what sandbox-exec reads, <job-id>.sb, 0444
//!  ├─ kept               0700 ours        workspaces that `exec --keep` kept
//!  ├─ templates          0700 ours        what workspaces are made from
//!  └─ run                0711 ours        control socket
//! ```
//!
//! *Ours* is whoever starts the daemon, which is root where jobs have accounts of their own; *dispatcher* is then the
//! service's account, and us everywhere else.
//!
//! Paths and environment follow from the job's id and slot alone; making and removing the folders is left to
//! [`crate::host::files`].

pub mod homebrew;
mod mac;
pub mod place;

use std::collections::BTreeMap;
use std::fs::rename;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::stat::{Mode, lstat};
use nix::unistd::{getegid, geteuid};

use crate::config::Config;
use crate::github::runner::tree::RUNNERS;
use crate::host::Os;
use crate::host::files::{FilesError, Wiped, check_data_dir, give_dir, give_files, make_dir, wipe};
use crate::job::JobId;
use crate::slot::Slot;

pub use place::Place;

pub use mac::{add_shims, mac_environment, prepare_profiles, profiles, remove_profile, write_profile};

/// The folder of all workspaces, in the data folder.
const NATIVE: &str = "native";

/// The folder of workspaces that are kept for a look.
const KEPT: &str = "kept";

/// The folder of templates that workspaces are made from.
const TEMPLATES: &str = "templates";

/// Where programs are looked up unless the configuration says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Only the owner gets in.
const PRIVATE: Mode = Mode::S_IRWXU;

/// Others get through to what they know the name of and are allowed to, but see no names.
const PASSABLE: Mode = Mode::S_IRWXU.union(Mode::S_IXGRP).union(Mode::S_IXOTH);

/// Variables that say where a job is and who it runs as. No configuration and no job can set them.
pub const RESERVED: [&str; 7] = [
    "EPHEMERD_JOB_ID",
    "EPHEMERD_PORTS",
    "HOME",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "USER",
];

/// Why a workspace or the data folder could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// A folder of the workspace could not be made; what was made was removed again.
    #[error("could not create workspace `{root}`")]
    Create {
        /// The workspace.
        root: Utf8PathBuf,
        /// What failed.
        source: FilesError,
    },
    /// As before, and then the rest could not be removed either.
    #[error(
        "workspace `{root}` is half made, because: {create}\nhint: the next start of the daemon removes it"
    )]
    HalfMade {
        /// The workspace.
        root: Utf8PathBuf,
        /// What failed first.
        create: Box<FilesError>,
        /// What failed when undoing it.
        source: Box<FilesError>,
    },
    /// The workspace could not be removed.
    #[error("could not remove workspace `{root}`")]
    Remove {
        /// The workspace.
        root: Utf8PathBuf,
        /// What failed.
        source: FilesError,
    },
    /// The workspace could not be moved to where it is kept.
    #[error("could not keep workspace `{root}`")]
    Keep {
        /// The workspace.
        root: Utf8PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A profile or a program of a workspace could not be written or removed.
    #[error("could not {doing} `{path}`")]
    File {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To what.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The data folder or one of its parts is not as it must be.
    #[error("data folder `{data_dir}` cannot be used")]
    DataDir {
        /// The data folder.
        data_dir: Utf8PathBuf,
        /// What is wrong.
        source: FilesError,
    },
}

/// Where a job's folders are; says nothing about whether they exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    native: Utf8PathBuf,
    job: JobId,
}

impl Workspace {
    /// Whose it is.
    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// The workspace of a job.
    pub fn new(data_dir: &Utf8Path, job: &JobId) -> Self {
        Self {
            native: data_dir.join(NATIVE),
            job: job.clone(),
        }
    }

    /// The data folder that it is in.
    pub fn data_dir(&self) -> &Utf8Path {
        self.native.parent().unwrap_or(&self.native)
    }

    /// The folder that holds the others.
    pub fn root(&self) -> Utf8PathBuf {
        self.native.join(self.job.as_str())
    }

    /// The file of the job's sandbox profile, outside of the workspace (macOS).
    pub fn profile(&self) -> Utf8PathBuf {
        let file = format!("{}{}", self.job, mac::PROFILE_ENDING);
        self.native.with_file_name(mac::PROFILES).join(file)
    }

    /// The folder of programs that stand in for others (macOS).
    pub fn shims(&self) -> Utf8PathBuf {
        self.root().join("shims")
    }

    /// Where the workspace is kept when it is not removed.
    pub fn kept(&self) -> Utf8PathBuf {
        self.native.with_file_name(KEPT).join(self.job.as_str())
    }

    /// The job's home folder.
    pub fn home(&self) -> Utf8PathBuf {
        self.root().join("home")
    }

    /// The job's folder for temporary files.
    pub fn tmp(&self) -> Utf8PathBuf {
        self.root().join("tmp")
    }

    /// The folder that the runner's own logs are kept in when the workspace is removed.
    pub fn runner_logs(&self) -> Utf8PathBuf {
        self.native
            .with_file_name("logs")
            .join(format!("{}-diag", self.job))
    }

    /// The folder in which the job's command starts.
    pub fn work(&self) -> Utf8PathBuf {
        self.root().join("work")
    }
}

/// Creates the folders of a workspace for an account, all of them or none. Nobody but us gets into it before it is handed
/// over by [`hand_over`]: until then what is made in it is made where nobody else can change anything.
///
/// # Errors
///
/// When the workspace exists already or a folder cannot be made.
pub fn create(workspace: &Workspace, uid: u32, gid: u32) -> Result<(), WorkspaceError> {
    let root = workspace.root();
    make_dir(&root, PRIVATE, geteuid().as_raw(), getegid().as_raw()).map_err(|source| {
        WorkspaceError::Create {
            root: root.clone(),
            source,
        }
    })?;
    let Err(source) = [workspace.home(), workspace.tmp(), workspace.work()]
        .iter()
        .try_for_each(|folder| make_dir(folder, PRIVATE, uid, gid))
    else {
        return Ok(());
    };
    Err(match wipe(&workspace.native, workspace.job.as_str()) {
        Ok(_) => WorkspaceError::Create { root, source },
        Err(undo) => WorkspaceError::HalfMade {
            root,
            create: Box::new(source),
            source: Box::new(undo),
        },
    })
}

/// Gives a workspace that is complete to its account.
///
/// # Errors
///
/// The system refuses.
pub fn hand_over(workspace: &Workspace, uid: u32, gid: u32) -> Result<(), WorkspaceError> {
    let root = workspace.root();
    give_dir(&root, PRIVATE, uid, gid).map_err(|source| WorkspaceError::Create { root, source })
}

/// Removes a workspace with everything in it and returns how much that was; none there is zero.
///
/// # Errors
///
/// When something in it cannot be removed, a mount for example.
pub fn remove(workspace: &Workspace) -> Result<Wiped, WorkspaceError> {
    wipe(&workspace.native, workspace.job.as_str()).map_err(|source| WorkspaceError::Remove {
        root: workspace.root(),
        source,
    })
}

/// Moves a workspace with everything in it to `kept`, out of the reach of jobs; its files stay the account's.
///
/// # Errors
///
/// When it cannot be moved.
pub fn keep(workspace: &Workspace) -> Result<(), WorkspaceError> {
    let kept = workspace.kept();
    let failed = |source| WorkspaceError::Keep {
        root: workspace.root(),
        source,
    };
    rename(workspace.root().as_std_path(), kept.as_std_path()).map_err(failed)
}

/// Makes the data folder and its parts where they are missing, and checks and tightens those that exist; some are the
/// `dispatcher`'s, the rest ours. The folder above `data_dir` must exist; the mode of an existing `data_dir` is not
/// changed.
///
/// # Errors
///
/// When one of them is not a folder of its owner's alone or cannot be made.
pub fn prepare_data_dir(data_dir: &Utf8Path, dispatcher: (u32, u32)) -> Result<(), WorkspaceError> {
    let own = (geteuid().as_raw(), getegid().as_raw());
    let parts = [
        (NATIVE, PASSABLE, own),
        ("host", PASSABLE, own),
        ("state", PRIVATE, dispatcher),
        ("logs", PRIVATE, dispatcher),
        (RUNNERS, PRIVATE, dispatcher),
        ("run", PASSABLE, own),
        (KEPT, PRIVATE, own),
        (TEMPLATES, PRIVATE, own),
    ];
    make_missing(data_dir, PASSABLE, own)
        .and_then(|()| check_data_dir(data_dir, own.0))
        .and_then(|()| check_passable(data_dir, own.0))
        .and_then(|()| {
            parts.iter().try_for_each(|&(name, mode, owner)| {
                let part = data_dir.join(name);
                make_missing(&part, mode, owner)?;
                // Before there was an account for the dispatcher, it was ours.
                let before = lstat(part.as_std_path()).is_ok_and(|found| found.st_uid == own.0);
                check_data_dir(&part, if before { own.0 } else { owner.0 })?;
                give_dir(&part, mode, owner.0, owner.1)?;
                if owner == own {
                    Ok(())
                } else {
                    give_files(&part, owner)
                }
            })
        })
        .map_err(|source| WorkspaceError::DataDir {
            data_dir: data_dir.to_owned(),
            source,
        })
}

/// Makes sure that the installation with this data folder has what it calls itself.
///
/// # Errors
///
/// It cannot be read or written.
pub fn name_installation(data_dir: &Utf8Path) -> Result<(), WorkspaceError> {
    let named = crate::host::installation(data_dir);
    named.map(drop).map_err(|error| WorkspaceError::DataDir {
        data_dir: data_dir.to_owned(),
        source: FilesError::of_io("write", &data_dir.join(crate::host::INSTALLATION), &error),
    })
}

/// The folders in a data folder that the dispatcher writes.
pub fn of_dispatcher(data_dir: &Utf8Path) -> Vec<Utf8PathBuf> {
    ["state", "logs", RUNNERS].map(|name| data_dir.join(name)).into()
}

fn make_missing(path: &Utf8Path, mode: Mode, (uid, gid): (u32, u32)) -> Result<(), FilesError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(()),
        // Other reasons than absence show again, with the right words, when it is made.
        Err(_) => match make_dir(path, mode, uid, gid) {
            // Somebody else of ours was faster; what they made is checked like anything that was there before.
            Err(FilesError::Io {
                source: nix::errno::Errno::EEXIST,
                ..
            }) => Ok(()),
            made => made,
        },
    }
}

/// Checks that other accounts can get through to their workspaces, where there are other accounts: without
/// root every job runs as us.
fn check_passable(data_dir: &Utf8Path, uid: u32) -> Result<(), FilesError> {
    let mode = lstat(data_dir.as_std_path())
        .map(|status| Mode::from_bits_truncate(status.st_mode))
        .map_err(|source| FilesError::Io {
            doing: "look at",
            path: data_dir.to_owned(),
            source,
        })?;
    if uid != 0 || mode.contains(PASSABLE) {
        return Ok(());
    }
    Err(FilesError::Mode {
        path: data_dir.to_owned(),
        mode: mode.bits(),
        why: "the accounts of jobs cannot get through to their workspaces",
        remedy: "a+x",
    })
}

/// Returns the whole environment of a job: a minimal one, changed by `layers` in their order, except for the
/// [`RESERVED`] variables, which always tell the truth.
pub fn environment(
    workspace: &Workspace,
    slot: &Slot,
    job: &JobId,
    layers: &[&BTreeMap<String, String>],
) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> = [("PATH", PATH), ("LANG", "C.UTF-8"), ("CI", "true")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let extra = layers.iter().flat_map(|layer| layer.iter());
    environment.extend(extra.map(|(name, value)| (name.clone(), value.clone())));
    let reserved = RESERVED.map(|name| (name.to_owned(), reserved_value(name, workspace, slot, job)));
    environment.extend(reserved);
    environment
}

/// The folders of a job's `PATH` that are not the job's own, under a configuration and with Homebrew at `brew`.
pub fn path_of_jobs(os: Os, config: &Config, brew: Option<&Utf8Path>) -> Vec<Utf8PathBuf> {
    let usual = match os {
        Os::Linux => PATH,
        Os::MacOs => mac::PATH,
    };
    let path = config.native.env.get("PATH").map_or(usual, String::as_str);
    let brewed = brew
        .into_iter()
        .flat_map(|prefix| [prefix.join("bin"), prefix.join("sbin")]);
    let folders = path
        .split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(Utf8PathBuf::from);
    brewed.chain(folders).collect()
}

fn reserved_value(name: &str, workspace: &Workspace, slot: &Slot, job: &JobId) -> String {
    match name {
        "EPHEMERD_JOB_ID" => job.to_string(),
        "EPHEMERD_PORTS" => format!("{}-{}", slot.first_port, slot.last_port),
        "HOME" => workspace.home().into_string(),
        "TMPDIR" => workspace.tmp().into_string(),
        "SHELL" => "/bin/sh".to_owned(),
        // USER and LOGNAME.
        _ => slot.account.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use crate::slot::Account;

    fn ids() -> (u32, u32) {
        (geteuid().as_raw(), getegid().as_raw())
    }

    fn job() -> JobId {
        "0a1b2c3d4e5".parse().unwrap()
    }

    /// A prepared data folder that removes itself.
    fn data_dir() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("data")).unwrap();
        prepare_data_dir(&path, ids()).unwrap();
        (folder, path)
    }

    fn mode(path: &Utf8Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn slot() -> Slot {
        Slot {
            index: 2,
            account: Account {
                name: "_ephemerd2".into(),
                uid: 902,
                gid: 900,
            },
            first_port: 21_100,
            last_port: 21_199,
        }
    }

    #[test]
    fn prepares_the_data_folder_and_does_it_again_without_harm() {
        let (_keep, data) = data_dir();
        fs::write(data.join("state/ledger"), "x").unwrap();
        fs::set_permissions(data.join("logs"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        prepare_data_dir(&data, ids()).unwrap();
        let modes = ["native", "state", "logs", "run"].map(|name| mode(&data.join(name)));
        assert_eq!(modes, [0o711, 0o700, 0o700, 0o711]);
        assert_eq!(mode(&data), 0o755, "set by its owner");
        assert!(data.join("state/ledger").exists());
    }

    #[test]
    fn refuses_a_data_folder_with_a_part_that_leads_elsewhere() {
        let (_keep, data) = data_dir();
        fs::remove_dir(data.join("logs")).unwrap();
        symlink("/var/log", data.join("logs")).unwrap();
        let error = prepare_data_dir(&data, ids()).unwrap_err();
        let source = FilesError::Symlink {
            path: data.join("logs"),
        };
        assert_eq!(
            std::error::Error::source(&error).unwrap().to_string(),
            source.to_string()
        );
    }

    #[test]
    fn root_refuses_a_data_folder_that_jobs_cannot_get_through() {
        assert!(
            geteuid().is_root(),
            "tests named root_ need root: jobs run as others"
        );
        let (_keep, data) = data_dir();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        let error = prepare_data_dir(&data, (0, 0)).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("hint: chmod a+x"), "{source}");
    }

    #[test]
    fn creates_four_private_folders_and_removes_them_with_their_content() {
        let (_keep, data) = data_dir();
        let workspace = Workspace::new(&data, &job());
        create(&workspace, ids().0, ids().1).unwrap();
        for folder in [
            workspace.root(),
            workspace.home(),
            workspace.tmp(),
            workspace.work(),
        ] {
            assert_eq!(mode(&folder), 0o700, "{folder}");
        }
        fs::write(workspace.work().join("file"), "x").unwrap();
        assert_eq!(remove(&workspace).unwrap().entries, 5);
        assert!(!workspace.root().exists());
        assert_eq!(remove(&workspace).unwrap(), Wiped::default());
    }

    #[test]
    fn leaves_nothing_of_a_workspace_that_could_not_be_completed() {
        let (_keep, data) = data_dir();
        let workspace = Workspace::new(&data, &job());
        // No account has this id, so the first folder made for it fails.
        let error = create(&workspace, u32::MAX, ids().1).unwrap_err();
        assert!(matches!(error, WorkspaceError::Create { .. }), "{error}");
        assert!(!workspace.root().exists());
    }

    #[test]
    fn does_not_take_over_a_workspace_that_exists() {
        let (_keep, data) = data_dir();
        let workspace = Workspace::new(&data, &job());
        create(&workspace, ids().0, ids().1).unwrap();
        fs::write(workspace.home().join("file"), "x").unwrap();
        create(&workspace, ids().0, ids().1).unwrap_err();
        assert!(workspace.home().join("file").exists());
    }

    #[test]
    fn root_gives_every_folder_to_the_account() {
        assert!(
            geteuid().is_root(),
            "tests named root_ need root: changes an owner"
        );
        let (_keep, data) = data_dir();
        let workspace = Workspace::new(&data, &job());
        create(&workspace, 61_234, 61_235).unwrap();
        // Until it is complete nobody gets in.
        let root = fs::metadata(workspace.root()).unwrap();
        assert_eq!((root.uid(), root.mode() & 0o777), (0, 0o700));
        hand_over(&workspace, 61_234, 61_235).unwrap();
        for folder in [
            workspace.root(),
            workspace.home(),
            workspace.tmp(),
            workspace.work(),
        ] {
            let made = fs::metadata(&folder).unwrap();
            assert_eq!((made.uid(), made.gid()), (61_234, 61_235), "{folder}");
        }
        assert_eq!(fs::metadata(data.join("native")).unwrap().uid(), 0);
    }

    #[test]
    fn the_environment_is_minimal_and_layers_change_what_they_may() {
        let workspace = Workspace::new("/var/lib/ephemerd".into(), &job());
        let layer = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        let config = layer(&[("PATH", "/opt/bin"), ("CI", "1"), ("HOME", "/root")]);
        let repo = layer(&[("CI", "2"), ("EXTRA", "x"), ("EPHEMERD_PORTS", "1-65535")]);
        let environment = environment(&workspace, &slot(), &job(), &[&config, &repo]);
        let text: String = environment
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        insta::assert_snapshot!(text, @r"
        CI=2
        EPHEMERD_JOB_ID=0a1b2c3d4e5
        EPHEMERD_PORTS=21100-21199
        EXTRA=x
        HOME=/var/lib/ephemerd/native/0a1b2c3d4e5/home
        LANG=C.UTF-8
        LOGNAME=_ephemerd2
        PATH=/opt/bin
        SHELL=/bin/sh
        TMPDIR=/var/lib/ephemerd/native/0a1b2c3d4e5/tmp
        USER=_ephemerd2
        ");
    }
}
