//! Step `mounts`: builds the job's view of the file system and makes it the root.
//!
//! Sources are opened as detached mounts first, while the host's tree is still whole, and then attached in
//! order of depth, so that a rule below another one wins, just as the policy decides.

use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::{setfsgid, setfsuid};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::{Step, StepError};
use crate::profile::policy::{Access, PathRule, Policy, View};
use crate::slot::Account;

const STEP: &str = "mounts";

/// Where the new root is attached for a moment; sources are already open then, so what it covers is no loss.
const STAGE: &str = "/tmp";

/// No set-uid and no device nodes, for every tree that is not made of device nodes.
const PLAIN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// What a rule puts at its path.
enum Piece {
    /// A mount, of a folder or of a single file.
    Mount { mount: OwnedFd, is_folder: bool },
    /// A symbolic link.
    Link(String),
    /// A device node of these numbers.
    Node(u64),
    /// An empty folder or file over whatever is there.
    Cover,
}

/// The view while it is built.
struct Stage {
    root: OwnedFd,
    /// Whose job it is for, where this process is root.
    uid: Option<u32>,
    /// Device numbers of file systems that were made for it.
    ours: RefCell<Vec<u64>>,
}

impl Stage {
    /// Notes a file system that was made for the view.
    fn is_ours(&self, mount: &OwnedFd) -> Result<(), Errno> {
        let device = rustix::fs::fstat(mount)?.st_dev;
        self.ours.borrow_mut().push(device);
        Ok(())
    }

    /// Whether something may be made in a folder: in a file system of the view's own, or where the job's account could do
    /// it itself. Root makes nothing in a folder of the host's that a rule shows, whatever the rules beneath it say.
    fn may_make(&self, parent: &OwnedFd) -> Result<(), Errno> {
        let Some(uid) = self.uid else { return Ok(()) };
        let found = rustix::fs::fstat(parent)?;
        match found.st_uid == uid || self.ours.borrow().contains(&found.st_dev) {
            true => Ok(()),
            false => Err(Errno::PERM),
        }
    }
}

/// Who opens what is shown.
struct Opener<'a> {
    /// The job's account, where this process is real root.
    account: Option<&'a Account>,
    /// What root opens for it, with everything below; all of it where not set.
    openly: Option<&'a [Utf8PathBuf]>,
}

impl Opener<'_> {
    /// Opens a path of the host's as the job's account would, unless the configuration shows it to jobs all the same: what
    /// lies below a folder that is closed to the account stays closed, though its own mode may be open. No symbolic link
    /// is followed on the way.
    fn open(&self, path: &Utf8Path) -> Result<OwnedFd, Errno> {
        let open = || {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat2(
                CWD,
                path.as_str(),
                flags,
                Mode::empty(),
                ResolveFlags::NO_SYMLINKS,
            )
        };
        let (Some(account), Some(openly)) = (self.account, self.openly) else {
            return open();
        };
        if openly.iter().any(|shown| path.starts_with(shown)) {
            return open();
        }
        // These are this thread's, and take the capabilities along that are about files (capabilities(7)).
        let before = (setfsgid(account.gid.into()), setfsuid(account.uid.into()));
        let opened = open();
        setfsuid(before.1);
        setfsgid(before.0);
        opened
    }
}

/// Builds the view that `policy` describes and enters it. With an account this process is real root, which makes device
/// nodes; without it they are shown as mounts, which takes several times longer. What is in `openly` is opened as root.
pub(super) fn build(
    policy: &Policy,
    (account, openly): (Option<&Account>, Option<&[Utf8PathBuf]>),
) -> Result<(), StepError> {
    let opener = Opener { account, openly };
    let uid = account.map(|account| account.uid);
    if account.is_some() && openly.is_some() {
        // Groups of whoever started us open folders, too.
        nix::unistd::setgroups(&[]).step("account")?;
    }
    // The modes below are meant as they stand.
    rustix::process::umask(Mode::empty());
    // Nothing that happens here may reach the host's mounts, nor theirs this view.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).step(STEP)?;

    let mut pieces = Vec::with_capacity(policy.paths.len());
    for rule in &policy.paths {
        if let Some(piece) = piece(rule, &opener).map_err(|e| about(&rule.path, e))? {
            pieces.push((rule, piece));
        }
    }
    let stage = Stage {
        root: new_root(policy.view).step(STEP)?,
        uid,
        ours: RefCell::default(),
    };
    if policy.view == View::Listed {
        stage.is_ours(&stage.root).step(STEP)?;
    }
    attach(&stage.root, CWD, STAGE).map_err(|e| about(Utf8Path::new(STAGE), e))?;

    let mut covers = Vec::new();
    for (rule, piece) in pieces {
        let covered = place(policy, &stage, rule, piece).map_err(|e| about(&rule.path, e))?;
        covers.extend(covered);
    }
    // Covers hold the mount points of rules beneath them, so they become read-only only now.
    for cover in covers {
        set_attributes(cover.as_fd(), READ_ONLY, false).step(STEP)?;
    }
    if policy.view == View::Listed {
        set_attributes(stage.root.as_fd(), READ_ONLY, false).step(STEP)?;
    }
    enter(&stage.root).step(STEP)
}

fn about(path: &Utf8Path, error: Errno) -> StepError {
    StepError::new(STEP, format!("`{path}`: {error}"))
}

/// Opens what a rule puts at its path; `None` when an optional rule has nothing to put there.
fn piece(rule: &PathRule, opener: &Opener<'_>) -> Result<Option<Piece>, Errno> {
    let scratch = |kind, size: Option<u32>, mode| {
        let size = size.map(|mib| format!("{mib}m"));
        let options: Vec<(&str, &str)> = size
            .as_deref()
            .map(|size| ("size", size))
            .into_iter()
            .chain(mode)
            .collect();
        let mount = file_system(kind, &options, PLAIN)?;
        Ok(Some(Piece::Mount {
            mount,
            is_folder: true,
        }))
    };
    match rule.access {
        Access::Hide => Ok(Some(Piece::Cover)),
        // The root of a listed view is ours, and its mode lets everybody list it.
        Access::List => Ok(None),
        Access::Link => Ok(rule.target.as_ref().map(|target| Piece::Link(target.to_string()))),
        Access::Scratch => scratch("tmpfs", rule.size_mib, Some(("mode", "1777"))),
        Access::Proc => scratch("proc", None, None),
        Access::Pts => {
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            let mount = file_system("devpts", &[("ptmxmode", "0666"), ("mode", "0600")], attributes)?;
            Ok(Some(Piece::Mount {
                mount,
                is_folder: true,
            }))
        }
        Access::Read | Access::Write | Access::Device => {
            let source = rule.source.as_ref().unwrap_or(&rule.path);
            match host_tree(source, rule.access, opener) {
                // Where its account does not get, there is nothing for the job.
                Err(Errno::NOENT | Errno::ACCESS) if rule.optional => Ok(None),
                other => other.map(Some),
            }
        }
    }
}

/// Clones the host's tree at `source` as a detached mount. No symbolic link is followed on the way; one that
/// stands at the end of a `read` rule is shown as the link it is.
fn host_tree(source: &Utf8PathBuf, access: Access, opener: &Opener<'_>) -> Result<Piece, Errno> {
    let opened = opener.open(source)?;
    let found = rustix::fs::fstat(&opened)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    if kind == FileType::Symlink {
        if access != Access::Read {
            return Err(Errno::LOOP);
        }
        let target = rustix::fs::readlinkat(&opened, "", Vec::new())?;
        return target.into_string().map(Piece::Link).map_err(|_| Errno::ILSEQ);
    }
    if access == Access::Device && kind != FileType::CharacterDevice {
        return Err(Errno::NODEV);
    }
    if access == Access::Device && opener.account.is_some() {
        return Ok(Piece::Node(found.st_rdev));
    }
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let mount = rustix::mount::open_tree(&opened, "", clone)?;
    let attributes = match access {
        Access::Read => PLAIN | READ_ONLY,
        Access::Device => MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        _ => PLAIN,
    };
    set_attributes(mount.as_fd(), attributes, true)?;
    Ok(Piece::Mount {
        mount,
        is_folder: kind == FileType::Directory,
    })
}

/// A new file system of `kind`, detached.
fn file_system(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// An empty memory file system that only holds mount points, links and device nodes. Only init ever writes
/// there, so it need not be without devices.
fn skeleton() -> Result<OwnedFd, Errno> {
    file_system(
        "tmpfs",
        &[("size", "1m"), ("mode", "0755")],
        MountAttrFlags::MOUNT_ATTR_NOSUID,
    )
}

fn new_root(view: View) -> Result<OwnedFd, Errno> {
    match view {
        View::Listed => skeleton(),
        View::Host => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_RECURSIVE;
            let root = rustix::mount::open_tree(CWD, "/", flags)?;
            set_attributes(root.as_fd(), READ_ONLY | PLAIN, true)?;
            Ok(root)
        }
    }
}

/// Puts a piece at the rule's path below `root`; returns the mounts that must become read-only at the end.
fn place(policy: &Policy, stage: &Stage, rule: &PathRule, piece: Piece) -> Result<Option<OwnedFd>, Errno> {
    if rule.path.file_name().is_none() {
        // `/` itself: the root of the view is what it is.
        return Ok(None);
    }
    if let (Access::Scratch, Piece::Mount { mount, .. }) = (rule.access, &piece) {
        stage.is_ours(mount)?;
    }
    if is_ours(policy, &rule.path) {
        return place_in_skeleton(&stage.root, &rule.path, piece).map(|()| None);
    }
    match piece {
        Piece::Link(target) => {
            let parent = rule.path.parent().unwrap_or(Utf8Path::new("/"));
            let parent = folder(stage, parent)?;
            stage.may_make(&parent)?;
            rustix::fs::symlinkat(&target, parent, rule.path.file_name().unwrap_or_default())?;
            Ok(None)
        }
        Piece::Node(device) => {
            let parent = rule.path.parent().unwrap_or(Utf8Path::new("/"));
            let parent = folder(stage, parent)?;
            stage.may_make(&parent)?;
            make_node(&parent, rule.path.file_name().unwrap_or_default(), device)?;
            Ok(None)
        }
        Piece::Mount { mount, is_folder } => {
            attach(&mount, mount_point(stage, &rule.path, is_folder)?.as_fd(), "")?;
            Ok(None)
        }
        Piece::Cover => cover(policy, stage, &rule.path),
    }
}

/// Whether `path` lies in the skeleton of a listed view, where there is nothing but what was put there by the
/// rules before: no lookup there can meet a link of somebody else's.
fn is_ours(policy: &Policy, path: &Utf8Path) -> bool {
    let shows = |rule: &PathRule| {
        !matches!(rule.access, Access::Hide | Access::List)
            && rule.covers(path)
            && rule.path.as_str() != path.as_str()
    };
    policy.view == View::Listed && !policy.paths.iter().any(shows)
}

/// As [`place`], where plain lookups are safe.
fn place_in_skeleton(root: &OwnedFd, path: &Utf8Path, piece: Piece) -> Result<(), Errno> {
    let relative = path.as_str().trim_start_matches('/');
    match piece {
        // Nothing is shown there; only rules beneath it need it, and make it themselves.
        Piece::Cover => Ok(()),
        Piece::Link(target) => {
            with_parents(root, relative, || rustix::fs::symlinkat(&target, root, relative))
        }
        Piece::Node(device) => with_parents(root, relative, || make_node(root, relative, device)),
        Piece::Mount { mount, is_folder } => {
            let made = with_parents(root, relative, || match is_folder {
                true => rustix::fs::mkdirat(root, relative, Mode::from_raw_mode(0o755)),
                false => rustix::fs::mknodat(
                    root,
                    relative,
                    FileType::RegularFile,
                    Mode::from_raw_mode(0o644),
                    0,
                ),
            });
            match made {
                // A rule beneath may have made the folder already.
                Err(Errno::EXIST) if is_folder => {}
                other => other?,
            }
            attach(&mount, root.as_fd(), relative)
        }
    }
}

/// Makes a character device that anybody may open, as all that jobs get are.
fn make_node(parent: &OwnedFd, name: &str, device: u64) -> Result<(), Errno> {
    rustix::fs::mknodat(
        parent,
        name,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        device,
    )
}

/// Tries `make`, and again with the folders above made when they are missing.
fn with_parents(root: &OwnedFd, relative: &str, make: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    match make() {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    for (end, _) in relative.match_indices('/') {
        match rustix::fs::mkdirat(root, &relative[..end], Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            other => other?,
        }
    }
    make()
}

/// Hides what is at `path`. Where nothing is shown there, there is nothing to hide and no name to reveal, unless
/// a rule beneath needs the folder: then the cover keeps the job from renaming what lies above that rule.
fn cover(policy: &Policy, stage: &Stage, path: &Utf8Path) -> Result<Option<OwnedFd>, Errno> {
    let holds_rules = || {
        policy
            .paths
            .iter()
            .any(|rule| rule.path != path && rule.path.starts_with(path))
    };
    let point = match below(&stage.root, path) {
        Err(Errno::NOENT) if holds_rules() => folder(stage, path)?,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        other => other?,
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&point)?.st_mode) == FileType::Directory {
        let mount = skeleton()?;
        stage.is_ours(&mount)?;
        attach(&mount, point.as_fd(), "")?;
        return Ok(Some(mount));
    }
    // A file is covered by a device node on a mount without devices: it exists and cannot be opened.
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(CWD, "/dev/null", clone)?;
    set_attributes(mount.as_fd(), READ_ONLY | PLAIN, false)?;
    attach(&mount, point.as_fd(), "")?;
    Ok(None)
}

/// Opens `path` below `root` without following any link.
fn below(root: &OwnedFd, path: &Utf8Path) -> Result<OwnedFd, Errno> {
    let relative = path.as_str().trim_start_matches('/');
    let relative = if relative.is_empty() { "." } else { relative };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(
        root,
        relative,
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::IN_ROOT,
    )
}

/// Opens the folder `path` below `root`, making what is missing of it.
fn folder(stage: &Stage, path: &Utf8Path) -> Result<OwnedFd, Errno> {
    let root = &stage.root;
    match below(root, path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return below(root, path);
    };
    let parent = folder(stage, parent)?;
    stage.may_make(&parent)?;
    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
    below(root, path)
}

/// Opens the place for a mount, making an empty folder or file where there is none.
fn mount_point(stage: &Stage, path: &Utf8Path, is_folder: bool) -> Result<OwnedFd, Errno> {
    if is_folder {
        return folder(stage, path);
    }
    let root = &stage.root;
    match below(root, path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let parent = folder(stage, path.parent().unwrap_or(Utf8Path::new("/")))?;
    stage.may_make(&parent)?;
    let name = path.file_name().unwrap_or_default();
    rustix::fs::mknodat(
        &parent,
        name,
        FileType::RegularFile,
        Mode::from_raw_mode(0o644),
        0,
    )?;
    below(root, path)
}

fn attach(mount: &OwnedFd, at: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    rustix::mount::move_mount(mount, "", at, path, flags)
}

/// Sets attributes on a mount, and on the mounts below it, by mount_setattr(2) (Linux 5.12).
fn set_attributes(mount: BorrowedFd<'_>, set: MountAttrFlags, recursive: bool) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: u64::from(set.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let empty = CString::default();
    // SAFETY: the path is NUL-terminated, the structure has the size that is passed, and both outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&super::last()).unwrap_or(Errno::INVAL))
    }
}

/// Makes `root` the root and lets go of the old one (pivot_root(2), "pivot_root(".", ".")").
fn enter(root: &OwnedFd) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::chown;

    #[test]
    fn root_makes_nothing_in_a_folder_of_the_hosts_that_is_shown_to_a_job() {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        let keep = tempfile::tempdir().unwrap();
        let open = |path: &std::path::Path| OwnedFd::from(std::fs::File::open(path).unwrap());
        let stage = Stage {
            root: open(keep.path()),
            uid: Some(61_234),
            ours: RefCell::default(),
        };
        let at = Utf8Path::new("/mine/deeper");
        assert_eq!(folder(&stage, at).unwrap_err(), Errno::PERM);
        assert_eq!(mount_point(&stage, at, false).unwrap_err(), Errno::PERM);
        assert_eq!(std::fs::read_dir(keep.path()).unwrap().count(), 0);
        // What the account owns it could fill itself, and what was made for the view is nobody else's.
        chown(keep.path(), Some(61_234), None).unwrap();
        folder(&stage, Utf8Path::new("/mine")).unwrap();
        assert_eq!(
            folder(&stage, at).unwrap_err(),
            Errno::PERM,
            "a folder of root's again"
        );
        stage.is_ours(&open(keep.path())).unwrap();
        folder(&stage, at).unwrap();
        assert!(keep.path().join("mine/deeper").is_dir());
    }

    #[test]
    fn root_opens_for_a_job_what_its_account_can_get_at_and_what_is_granted() {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        let mode = |path: &Utf8Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        mode(&top, 0o755);
        let (closed, granted) = (top.join("closed"), top.join("closed/granted"));
        std::fs::create_dir_all(&granted).unwrap();
        for file in [top.join("open"), closed.join("file"), granted.join("file")] {
            std::fs::write(&file, "x").unwrap();
            mode(&file, 0o644);
        }
        mode(&closed, 0o700);
        let account = Account {
            name: "job".to_owned(),
            uid: 61_234,
            gid: 61_235,
        };
        let shown = [granted.clone()];
        let opener = Opener {
            account: Some(&account),
            openly: Some(&shown),
        };
        opener.open(&top.join("open")).unwrap();
        assert_eq!(opener.open(&closed.join("file")).unwrap_err(), Errno::ACCESS);
        opener.open(&granted.join("file")).unwrap();
        // The control: whoever may see it all gets it, and nothing of the account's stays with this process.
        let all = Opener {
            openly: None,
            ..opener
        };
        all.open(&closed.join("file")).unwrap();
        assert!(std::fs::read(closed.join("file")).is_ok());
    }
}
