//! Step `mounts`: builds the job's view of the file system and makes it the root.
//!
//! Sources are opened as detached mounts first, while the host's tree is still whole, and then attached in
//! order of depth, so that a rule below another one wins, just as the policy decides.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::{Step, StepError};
use crate::profile::policy::{Access, PathRule, Policy, View};

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
    /// An empty folder or file over whatever is there.
    Cover,
}

/// Builds the view that `policy` describes and enters it.
pub(super) fn build(policy: &Policy) -> Result<(), StepError> {
    // Nothing that happens here may reach the host's mounts, nor theirs this view.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).step(STEP)?;

    let mut pieces = Vec::with_capacity(policy.paths.len());
    for rule in &policy.paths {
        if let Some(piece) = piece(rule).map_err(|e| about(&rule.path, e))? {
            pieces.push((rule, piece));
        }
    }
    let root = new_root(policy.view).step(STEP)?;
    attach(&root, CWD, STAGE).map_err(|e| about(Utf8Path::new(STAGE), e))?;

    let mut covers = Vec::new();
    for (rule, piece) in pieces {
        let covered = place(policy, &root, rule, piece).map_err(|e| about(&rule.path, e))?;
        covers.extend(covered);
    }
    // Covers hold the mount points of rules beneath them, so they become read-only only now.
    for cover in covers {
        set_attributes(cover.as_fd(), READ_ONLY, false).step(STEP)?;
    }
    if policy.view == View::Listed {
        set_attributes(root.as_fd(), READ_ONLY, false).step(STEP)?;
    }
    enter(&root).step(STEP)
}

fn about(path: &Utf8Path, error: Errno) -> StepError {
    StepError::new(STEP, format!("`{path}`: {error}"))
}

/// Opens what a rule puts at its path; `None` when an optional rule has nothing to put there.
fn piece(rule: &PathRule) -> Result<Option<Piece>, Errno> {
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
            match host_tree(source, rule.access) {
                Err(Errno::NOENT) if rule.optional => Ok(None),
                other => other.map(Some),
            }
        }
    }
}

/// Clones the host's tree at `source` as a detached mount. No symbolic link is followed on the way; one that
/// stands at the end of a `read` rule is shown as the link it is.
fn host_tree(source: &Utf8PathBuf, access: Access) -> Result<Piece, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(
        CWD,
        source.as_str(),
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
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

/// An empty memory file system that only holds mount points and links.
fn skeleton() -> Result<OwnedFd, Errno> {
    file_system("tmpfs", &[("size", "1m"), ("mode", "0755")], PLAIN)
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
fn place(policy: &Policy, root: &OwnedFd, rule: &PathRule, piece: Piece) -> Result<Option<OwnedFd>, Errno> {
    let (Some(parent), Some(name)) = (rule.path.parent(), rule.path.file_name()) else {
        // `/` itself: the root of the view is what it is.
        return Ok(None);
    };
    match piece {
        Piece::Link(target) => {
            let parent = folder(root, parent)?;
            rustix::fs::symlinkat(&target, &parent, name)?;
            Ok(None)
        }
        Piece::Mount { mount, is_folder } => {
            let point = mount_point(root, parent, name, is_folder)?;
            attach(&mount, point.as_fd(), "")?;
            Ok(None)
        }
        Piece::Cover => cover(policy, root, &rule.path),
    }
}

/// Hides what is at `path`. Where nothing is shown there, there is nothing to hide, and no name to reveal.
fn cover(policy: &Policy, root: &OwnedFd, path: &Utf8Path) -> Result<Option<OwnedFd>, Errno> {
    let point = match below(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => {
            let holds_rules = policy
                .paths
                .iter()
                .any(|rule| rule.path != path && rule.path.starts_with(path));
            let shown_above = path
                .parent()
                .is_some_and(|parent| policy.rule_for(parent).is_some());
            if !holds_rules || shown_above {
                return Ok(None);
            }
            folder(root, path)?
        }
        other => other?,
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&point)?.st_mode) == FileType::Directory {
        let mount = skeleton()?;
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
fn folder(root: &OwnedFd, path: &Utf8Path) -> Result<OwnedFd, Errno> {
    match below(root, path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return below(root, path);
    };
    let parent = folder(root, parent)?;
    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
    below(root, path)
}

/// Opens the place for a mount, making an empty folder or file where there is none.
fn mount_point(root: &OwnedFd, parent: &Utf8Path, name: &str, is_folder: bool) -> Result<OwnedFd, Errno> {
    let path = parent.join(name);
    match below(root, &path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    if is_folder {
        return folder(root, &path);
    }
    let parent = folder(root, parent)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
    below(root, &path)
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
