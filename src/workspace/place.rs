//! What a job has of its own outside of its workspace, on macOS: one place per slot, because there a job sees files where
//! they lie. On Linux the same is in the workspace.

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{PASSABLE, Workspace, make_missing};
use crate::host::Os;
use crate::host::files::{FilesError, check_data_dir, give_dir, wipe};

/// Others may look who has a place, and nothing more.
const LISTED: Mode = Mode::S_IRWXU
    .union(Mode::S_IRGRP)
    .union(Mode::S_IXGRP)
    .union(Mode::S_IROTH)
    .union(Mode::S_IXOTH);

/// The folder of the runners that jobs have of their own on macOS. GitHub's runner lists every folder above its own before
/// it starts (Runner.Sdk/Util/IOUtil.cs, ValidateExecutePermission), so it cannot lie in a workspace: who lists the folder
/// of those sees which other jobs there are. Who lists this one sees which slots have a runner.
pub const RUNNER_PLACES: &str = "/opt/eph-runner";

/// Where something of a job's own is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Where the job sees it.
    pub shown: Utf8PathBuf,
    /// Where it lies.
    pub real: Utf8PathBuf,
}

impl Place {
    /// The place of the Homebrew prefix of a job of slot `slot`.
    ///
    /// It is short, because a bottle that is bound to its prefix can be put into a shorter one only (13 bytes on
    /// Apple silicon, `/opt/homebrew`); not a link, because `brew` resolves where it lies; and not below
    /// `TMPDIR`, which `brew` refuses. On Linux it lies in the workspace and is shown at one place for every
    /// job, in a folder that every posture hides otherwise, so that nothing has to exist there on the host. On
    /// macOS there is no showing, so each slot has a real folder in `prefixes`, which is
    /// [`PREFIXES`](super::homebrew::PREFIXES) but on a Mac made of stand-ins.
    pub fn of_homebrew(os: Os, prefixes: &Utf8Path, workspace: &Workspace, slot: u32) -> Self {
        match os {
            Os::Linux => Self {
                shown: "/var/eph/brew".into(),
                real: workspace.root().join("homebrew"),
            },
            Os::MacOs => Self::at(prefixes.join(slot.to_string())),
        }
    }

    /// The place of GitHub's runner, of a job of slot `slot` that is one; on macOS in `places`, which is [`RUNNER_PLACES`]
    /// but on a Mac made of stand-ins.
    pub fn of_runner(os: Os, places: &Utf8Path, workspace: &Workspace, slot: u32) -> Self {
        Self::at(match os {
            Os::Linux => workspace.root().join("runner"),
            Os::MacOs => places.join(format!("{}-{slot}", tag(workspace))),
        })
    }

    fn at(path: Utf8PathBuf) -> Self {
        Self {
            shown: path.clone(),
            real: path,
        }
    }

    /// Whether it is removed with the workspace.
    pub fn is_in(&self, workspace: &Workspace) -> bool {
        self.real.starts_with(workspace.root())
    }

    /// Makes what it lies in where that is missing, listed by others or not, and removes what an earlier job left there,
    /// which the ledger may have forgotten in a power cut.
    pub(crate) fn make_room(&self, workspace: &Workspace, is_listed: bool) -> Result<(), FilesError> {
        let (false, Some(root)) = (self.is_in(workspace), self.real.parent()) else {
            return Ok(());
        };
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let mode = if is_listed { LISTED } else { PASSABLE };
        make_missing(root, mode, (uid, gid))?;
        check_data_dir(root, uid)?;
        give_dir(root, mode, uid, gid)?;
        self.remove()
    }

    /// Removes it with everything in it; none there is no error.
    pub(crate) fn remove(&self) -> Result<(), FilesError> {
        let (Some(root), Some(name)) = (self.real.parent(), self.real.file_name()) else {
            return Ok(());
        };
        // Without the folder above there is nothing in it.
        if root.symlink_metadata().is_err() {
            return Ok(());
        }
        wipe(root, name).map(drop)
    }
}

/// Eight digits that tell one data folder from another: each has slots from 1 on.
fn tag(workspace: &Workspace) -> String {
    let hash = Sha256::digest(workspace.data_dir().as_str());
    hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::homebrew::PREFIXES;
    use std::os::unix::fs::PermissionsExt;

    fn workspace() -> Workspace {
        Workspace::new("/var/lib/ephemerd".into(), &"0a1b2c3d4e5".parse().unwrap())
    }

    #[test]
    fn every_place_is_short_and_outside_of_temporary_folders() {
        let workspace = workspace();
        for os in [Os::Linux, Os::MacOs] {
            for slot in [1, 64] {
                let place = Place::of_homebrew(os, PREFIXES.into(), &workspace, slot);
                assert!(
                    place.shown.as_str().len() <= "/opt/homebrew".len(),
                    "{}",
                    place.shown
                );
                let temporary = [
                    workspace.tmp(),
                    "/tmp".into(),
                    "/private/tmp".into(),
                    "/var/tmp".into(),
                ];
                assert!(
                    temporary
                        .iter()
                        .all(|folder| !place.shown.as_str().starts_with(folder.as_str()))
                );
                assert_eq!(place.is_in(&workspace), os == Os::Linux);
            }
        }
    }

    #[test]
    fn room_is_made_by_removing_what_an_earlier_job_left() {
        let top = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(top.path()).unwrap().join("eph");
        let place = Place::at(root.join("3"));
        place.remove().unwrap();
        place.make_room(&workspace(), false).unwrap();
        std::fs::create_dir_all(place.real.join("Cellar/left")).unwrap();
        std::fs::create_dir(root.join("4")).unwrap();
        place.make_room(&workspace(), false).unwrap();
        assert!(
            !place.real.exists() && root.join("4").exists(),
            "nothing of another slot's"
        );
    }

    #[test]
    fn only_what_is_asked_to_be_listed_is() {
        let top = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(top.path()).unwrap().join("eph");
        let place = Place::at(root.join("1"));
        for (is_listed, mode) in [(false, 0o711), (true, 0o755), (false, 0o711)] {
            place.make_room(&workspace(), is_listed).unwrap();
            assert_eq!(root.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn a_runner_lies_where_every_folder_above_it_may_be_listed() {
        let place = |os, workspace: &Workspace| Place::of_runner(os, RUNNER_PLACES.into(), workspace, 2);
        let mac = place(Os::MacOs, &workspace());
        assert_eq!(mac.real.parent().unwrap(), RUNNER_PLACES);
        assert!(mac.real.as_str().ends_with("-2"), "{}", mac.real);
        assert!(place(Os::Linux, &workspace()).is_in(&workspace()));
        let other = Workspace::new("/srv/ephemerd".into(), &"0a1b2c3d4e5".parse().unwrap());
        assert_ne!(place(Os::MacOs, &other), mac, "a slot of another daemon's");
    }
}
