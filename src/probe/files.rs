//! Attacks on a sibling's files, from its workspace to what it leaves in shared folders.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};

use camino::{Utf8Path, Utf8PathBuf};

use super::{Attempt, Probes, Target, tried};

pub(super) const PROBES: Probes = &[
    ("read-sibling-file", |t| read(&secret(t))),
    ("list-sibling-folder", |t| {
        let home = t.sibling_workspace.join("home");
        tried(fs::read_dir(&home), format!("list {home}"))
    }),
    ("find-siblings", find_siblings),
    ("stat-sibling-file", |t| {
        tried(fs::metadata(secret(t)), format!("stat {}", secret(t)))
    }),
    ("write-sibling-file", |t| append(&secret(t))),
    ("truncate-sibling-file", truncate),
    ("chmod-sibling-file", |t| {
        tried(
            fs::set_permissions(secret(t), Permissions::from_mode(0o666)),
            format!("chmod {}", secret(t)),
        )
    }),
    ("plant-file-in-sibling", plant_file),
    ("plant-symlink-in-sibling", plant_symlink),
    ("rename-sibling-file", |t| {
        rename_and_back(&secret(t), &t.sibling_workspace.join("home").join(&t.mark))
    }),
    ("hardlink-sibling-file", hardlink),
    ("follow-symlink-to-sibling", follow_symlink),
    ("follow-proc-root-to-sibling", |t| {
        read(&Utf8PathBuf::from(format!("/proc/self/root{}", secret(t))))
    }),
    ("rename-own-workspace", |t| {
        rename_and_back(&t.workspace, &beside(&t.workspace, &format!("{}.moved", t.mark)))
    }),
    ("rename-workspaces-folder", |t| {
        let native = t.workspace.parent().unwrap_or(&t.workspace);
        rename_and_back(native, &beside(native, &format!("{}.moved", t.mark)))
    }),
    ("read-host-tmp", |t| read(&t.host_tmp_file)),
    ("write-host-tmp", |t| append(&t.host_tmp_file)),
    ("read-host-var-tmp", |t| read(&t.host_var_tmp_file)),
];

/// The sibling's file that any account may read and write, so that only the sandbox can be in the way.
fn secret(target: &Target) -> Utf8PathBuf {
    target.sibling_workspace.join("home/secret")
}

/// A path beside `path`, called `name`.
fn beside(path: &Utf8Path, name: &str) -> Utf8PathBuf {
    path.parent().unwrap_or(path).join(name)
}

fn read(path: &Utf8Path) -> Attempt {
    tried(fs::read(path), format!("read {path}"))
}

fn append(path: &Utf8Path) -> Attempt {
    let result = OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(b"x"));
    tried(result, format!("write {path}"))
}

fn find_siblings(target: &Target) -> Attempt {
    let (Some(native), Some(name)) = (target.workspace.parent(), target.sibling_workspace.file_name()) else {
        return Attempt::not_applicable("the workspace is the root folder");
    };
    let found = fs::read_dir(native).and_then(|entries| {
        for entry in entries {
            if entry?.file_name() == name {
                return Ok(());
            }
        }
        // The folder may be listed as long as it holds no sibling.
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    });
    tried(found, format!("list {native} for {name}"))
}

fn truncate(target: &Target) -> Attempt {
    let path = secret(target);
    let Ok(name) = std::ffi::CString::new(path.as_str()) else {
        return Attempt::not_applicable("the path holds a NUL");
    };
    // SAFETY: `name` is NUL-terminated and outlives the call.
    let done = nix::errno::Errno::result(unsafe { libc::truncate(name.as_ptr(), 4096) });
    tried(done, format!("truncate {path}"))
}

fn plant_file(target: &Target) -> Attempt {
    let path = target.sibling_workspace.join("work").join(&target.mark);
    let result = OpenOptions::new().write(true).create_new(true).open(&path);
    let attempt = tried(result, format!("create {path}"));
    // Not there unless just created.
    let _ = fs::remove_file(path);
    attempt
}

fn plant_symlink(target: &Target) -> Attempt {
    let path = target
        .sibling_workspace
        .join("work")
        .join(format!("{}.link", target.mark));
    let attempt = tried(symlink("/etc/passwd", &path), format!("symlink {path}"));
    let _ = fs::remove_file(path);
    attempt
}

/// Renames `from` to `to` and, if that went well, back at once.
fn rename_and_back(from: &Utf8Path, to: &Utf8Path) -> Attempt {
    let result = fs::rename(from, to);
    if result.is_ok() {
        // Whoever could rename it can rename it back.
        let _ = fs::rename(to, from);
    }
    tried(result, format!("rename {from} to {to}"))
}

fn hardlink(target: &Target) -> Attempt {
    let link = target.workspace.join("tmp").join(format!("{}.hard", target.mark));
    let attempt = tried(
        fs::hard_link(secret(target), &link),
        format!("link {}", secret(target)),
    );
    let _ = fs::remove_file(link);
    attempt
}

fn follow_symlink(target: &Target) -> Attempt {
    let link = target.workspace.join("tmp").join(format!("{}.soft", target.mark));
    if let Err(error) = symlink(secret(target), &link) {
        return Attempt::not_applicable(format!(
            "could not make a symbolic link in its own folder: {error}"
        ));
    }
    let attempt = read(&link);
    let _ = fs::remove_file(link);
    attempt
}
