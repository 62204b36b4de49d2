//! What may be granted to jobs as `extra_read` and `extra_write`.
//!
//! Paths are compared as text and without regard to ASCII case, because a Mac's file system usually ignores
//! it. Symbolic links are not followed here: this stage touches no file.

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};

/// What a grant allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
}

/// Folders through which a job that may write them, or what they hold, would change the host itself. Those
/// of the root whose names begin with `lib` join them, macOS's `/Library` included (hier(7)).
const NEVER_WRITABLE: [&str; 13] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/system",
    "/usr",
    "/var/run",
    "/var/spool",
];

/// Folders that show other jobs' processes and the kernel's settings.
const NEVER_READABLE: [&str; 2] = ["/proc", "/sys"];

/// `path` when it is absolute, not the root, and names its place without detours.
///
/// # Errors
///
/// Says what is wrong with it.
pub(super) fn absolute(text: &str) -> Result<Utf8PathBuf, String> {
    let path = Utf8Path::new(text);
    if text.chars().any(char::is_control) {
        return Err(format!("`{}` holds a control character", text.escape_debug()));
    }
    if !path.is_absolute() {
        return Err(format!(
            "`{text}` is not an absolute path\nhint: begin it with `/`"
        ));
    }
    if path.components().any(|part| part == Utf8Component::ParentDir) {
        return Err(format!("`{text}` holds `..`\nhint: write the path that is meant"));
    }
    // Drops `.`, doubled and trailing slashes.
    let path: Utf8PathBuf = path.components().collect();
    if path == "/" {
        return Err("`/` is the whole file system\nhint: name a folder".to_owned());
    }
    Ok(path)
}

/// `path` when jobs may be granted it.
///
/// # Errors
///
/// Says why they may not.
pub(crate) fn granted(text: &str, grant: Grant, data_dir: Option<&Utf8Path>) -> Result<Utf8PathBuf, String> {
    let path = absolute(text)?;
    let plain = comparable(&path);
    if let Some(data_dir) = data_dir
        && overlap(&plain, &comparable(data_dir))
    {
        return Err(format!(
            "`{path}` overlaps `host.data_dir` (`{data_dir}`), which holds the daemon's state and other jobs\n\
             hint: keep what jobs share elsewhere"
        ));
    }
    if let Some(folder) = NEVER_READABLE.iter().find(|folder| plain.starts_with(folder)) {
        return Err(format!(
            "`{path}` cannot be granted: `{folder}` shows the host and other jobs"
        ));
    }
    let belongs_to_host = NEVER_WRITABLE
        .iter()
        .any(|folder| overlap(&plain, Utf8Path::new(folder)));
    let is_library = plain
        .components()
        .nth(1)
        .is_some_and(|first| first.as_str().starts_with("lib"));
    if grant == Grant::Write && (belongs_to_host || is_library) {
        return Err(format!(
            "`{path}` cannot be granted for writing: a job could change the host through it\n\
             hint: grant a folder that holds nothing of the system"
        ));
    }
    Ok(path)
}

/// `path` in the form in which two names of one folder are equal text.
pub(crate) fn comparable(path: &Utf8Path) -> Utf8PathBuf {
    let lower = Utf8PathBuf::from(path.as_str().to_ascii_lowercase());
    // On macOS /etc, /tmp and /var are links into /private; nobody has that folder on Linux.
    let linked =
        |rest: &Utf8Path| rest == "" || ["etc", "tmp", "var"].iter().any(|name| rest.starts_with(name));
    match lower.strip_prefix("/private") {
        Ok(rest) if linked(rest) => Utf8Path::new("/").join(rest),
        Ok(_) | Err(_) => lower,
    }
}

/// Whether one of the two is, or lies within, the other.
fn overlap(a: &Utf8Path, b: &Utf8Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = "/var/lib/ephemerd";

    fn is_granted(path: &str, grant: Grant) -> bool {
        granted(path, grant, Some(Utf8Path::new(DATA))).is_ok()
    }

    #[test]
    fn grants_folders_that_hold_nothing_of_the_system() {
        for path in [
            "/opt/toolchain",
            "/srv/cache",
            "/var/lib/other",
            "/var/lib/ephemerd2",
            "/mnt/lib",
            "/private/x",
        ] {
            assert!(is_granted(path, Grant::Read), "{path}");
            assert!(is_granted(path, Grant::Write), "{path}");
        }
    }

    #[test]
    fn grants_the_system_for_reading_only() {
        for path in [
            "/etc",
            "/etc/ssl",
            "/usr/share",
            "/lib64",
            "/dev/kvm",
            "/Library/Developer",
            "/BIN",
            "/libexec",
            "/System/Volumes",
            "/run/docker.sock",
        ] {
            assert!(is_granted(path, Grant::Read), "{path}");
            assert!(!is_granted(path, Grant::Write), "{path}");
        }
    }

    #[test]
    fn refuses_what_nobody_may_be_granted() {
        for path in [
            "",
            "opt",
            "./opt",
            "/",
            "//",
            "/.",
            "/opt/../etc",
            "/opt/..",
            "/proc",
            "/proc/1",
            "/sys/fs/cgroup",
            "/a\nb",
            DATA,
            "/var/lib/ephemerd/native/x",
            "/var/lib",
            "/var",
            "//var/./lib/",
            "/Var/Lib/Ephemerd",
            "/private/var/lib/ephemerd",
            "/private/var",
            "/private",
        ] {
            assert!(!is_granted(path, Grant::Read), "{path}");
            assert!(!is_granted(path, Grant::Write), "{path}");
        }
        assert!(!is_granted("/private/etc", Grant::Write));
        assert!(!is_granted("/private/var/spool/x", Grant::Write));
    }

    #[test]
    fn a_data_dir_under_private_is_the_same_folder() {
        let data = Utf8Path::new("/private/var/lib/ephemerd");
        assert!(granted("/var/lib/ephemerd/native", Grant::Read, Some(data)).is_err());
    }

    #[test]
    fn paths_are_kept_without_detours() {
        assert_eq!(absolute("/opt//x/./y/").unwrap(), "/opt/x/y");
    }
}
