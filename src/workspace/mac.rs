//! What a workspace has besides on macOS: a profile in a file, programs that stand in for others, and variables
//! that keep tools inside it.
//!
//! A sandbox does not nest there, so tools that put their own children into one fail. Where such a tool has a
//! switch, a program of the same name that comes first on `PATH` turns it. That is a convenience and protects
//! nothing, so it lies in the workspace, where every profile lets a job read and execute.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{getegid, geteuid};

use super::{PASSABLE, Workspace, WorkspaceError, make_missing};
use crate::host::files::{check_data_dir, give_dir, make_dir};
use crate::job::JobId;

/// The folder of all profiles, in the data folder.
pub(super) const PROFILES: &str = "profiles";

/// What the name of a profile ends with.
pub(super) const PROFILE_ENDING: &str = ".sb";

/// Everybody may read it: sandbox-exec does so as the job's account before it applies it.
const READABLE: Mode = Mode::S_IRUSR.union(Mode::S_IRGRP).union(Mode::S_IROTH);

/// Everybody may read and execute it.
const EXECUTABLE: Mode = READABLE
    .union(Mode::S_IXUSR)
    .union(Mode::S_IXGRP)
    .union(Mode::S_IXOTH);

/// The programs that stand in for others, by name.
const SHIMS: [(&str, &str); 3] = [
    ("swift", include_str!("../../profiles/macos/shims/swift")),
    ("swiftc", include_str!("../../profiles/macos/shims/swiftc")),
    (
        "xcodebuild",
        include_str!("../../profiles/macos/shims/xcodebuild"),
    ),
];

/// The search path without the shims: what macOS gives a login shell, without the folders of single programs.
pub(super) const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// Makes the folder of profiles where it is missing, and checks it where it exists.
///
/// # Errors
/// It is not a folder of `uid`'s alone or cannot be made.
pub fn prepare_profiles(data_dir: &Utf8Path, uid: u32, gid: u32) -> Result<(), WorkspaceError> {
    let folder = data_dir.join(PROFILES);
    make_missing(&folder, PASSABLE, (uid, gid))
        .and_then(|()| check_data_dir(&folder, uid))
        .and_then(|()| give_dir(&folder, PASSABLE, uid, gid))
        .map_err(|source| WorkspaceError::DataDir {
            data_dir: data_dir.to_owned(),
            source,
        })
}

/// Writes the file of a job's profile, which must not exist.
///
/// # Errors
/// It exists or cannot be written.
pub fn write_profile(workspace: &Workspace, text: &str) -> Result<(), WorkspaceError> {
    write(&workspace.profile(), text, READABLE)
}

/// Removes the file of a job's profile; none there is as well.
///
/// # Errors
/// It is there and stays.
pub fn remove_profile(workspace: &Workspace) -> Result<(), WorkspaceError> {
    let path = workspace.profile();
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(WorkspaceError::File {
            doing: "remove",
            path,
            source,
        }),
        _ => Ok(()),
    }
}

/// The jobs that have a profile in `data_dir`; none where there is no such folder.
///
/// # Errors
/// The folder cannot be read.
pub fn profiles(data_dir: &Utf8Path) -> io::Result<Vec<JobId>> {
    let entries = match data_dir.join(PROFILES).read_dir_utf8() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?.collect::<io::Result<Vec<_>>>()?,
    };
    let id = |name: &str| name.strip_suffix(PROFILE_ENDING)?.parse().ok();
    Ok(entries.iter().filter_map(|entry| id(entry.file_name())).collect())
}

/// Puts the programs that stand in for others into a workspace. They are ours; a job that replaces them changes
/// nothing but its own `PATH`.
///
/// # Errors
/// They exist or cannot be written.
pub fn add_shims(workspace: &Workspace) -> Result<(), WorkspaceError> {
    let folder = workspace.shims();
    let mode = EXECUTABLE.union(Mode::S_IWUSR);
    make_dir(&folder, mode, geteuid().as_raw(), getegid().as_raw()).map_err(|source| {
        WorkspaceError::Create {
            root: workspace.root(),
            source,
        }
    })?;
    SHIMS
        .iter()
        .try_for_each(|(name, text)| write(&folder.join(name), text, EXECUTABLE))
}

fn write(path: &Utf8Path, text: &str, mode: Mode) -> Result<(), WorkspaceError> {
    let made = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            // Whatever the umask is, and not before it is complete.
            Ok(fchmod(&file, mode)?)
        });
    made.map_err(|source| WorkspaceError::File {
        doing: "write",
        path: path.to_owned(),
        source,
    })
}

/// Variables of a job on macOS that come before everybody else's: where its tools are, and where those keep what
/// they would otherwise keep per account or for the whole host. That macOS 26 heeds each of them is reported by
/// users of other sandboxes and was not seen by us.
///
/// `DIRHELPER_USER_DIR_SUFFIX`, which WebKit sets to get a folder of its own from confstr(3), is not among them: a
/// folder that is not there breaks mktemp(3), and a slot's account has its folder for itself.
pub fn mac_environment(workspace: &Workspace, developer_dir: Option<&Utf8Path>) -> BTreeMap<String, String> {
    let (home, tmp) = (workspace.home(), workspace.tmp());
    let mut environment: BTreeMap<String, String> = [
        ("PATH", format!("{}:{PATH}", workspace.shims())),
        // C.UTF-8 is no locale there.
        ("LANG", "en_US.UTF-8".to_owned()),
        // Foundation asks the account for its home otherwise.
        ("CFFIXED_USER_HOME", home.to_string()),
        ("CLANG_MODULE_CACHE_PATH", tmp.join("clang-modules").into_string()),
        (
            "SWIFTPM_MODULECACHE_OVERRIDE",
            tmp.join("swiftpm-modules").into_string(),
        ),
        // What xcrun(1) found; it goes by the account and not by TMPDIR otherwise.
        ("xcrun_db", tmp.join("xcrun_db").into_string()),
        ("JAVA_TOOL_OPTIONS", java_options(&home)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(developer_dir) = developer_dir {
        environment.insert("DEVELOPER_DIR".to_owned(), developer_dir.to_string());
    }
    environment
}

/// What makes a JVM take its home from here, and not from the account, and use IPv4: the sandbox takes a loopback
/// address that is mapped into IPv6 for a foreign one. In quotes where there are blanks (JVM Tool Interface,
/// "JAVA_TOOL_OPTIONS").
fn java_options(home: &Utf8PathBuf) -> String {
    let option = format!("-Duser.home={home}");
    let option = if option.contains(char::is_whitespace) {
        format!("\"{option}\"")
    } else {
        option
    };
    format!("{option} -Djava.net.preferIPv4Stack=true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    fn stand() -> (tempfile::TempDir, Utf8PathBuf, Workspace) {
        let keep = tempfile::tempdir().unwrap();
        let data = Utf8PathBuf::from_path_buf(keep.path().join("data")).unwrap();
        let own = (geteuid().as_raw(), getegid().as_raw());
        super::super::prepare_data_dir(&data, own).unwrap();
        prepare_profiles(&data, own.0, own.1).unwrap();
        let workspace = Workspace::new(&data, &"0a1b2c3d4e5".parse().unwrap());
        super::super::create(&workspace, own.0, own.1).unwrap();
        (keep, data, workspace)
    }

    #[test]
    fn a_profile_can_be_read_by_all_and_written_by_nobody_and_goes_again() {
        let (_keep, data, workspace) = stand();
        write_profile(&workspace, "(version 1)").unwrap();
        assert_eq!(fs::metadata(workspace.profile()).unwrap().mode() & 0o7777, 0o444);
        assert_eq!(
            fs::metadata(data.join("profiles")).unwrap().mode() & 0o7777,
            0o711
        );
        assert!(
            write_profile(&workspace, "(version 2)").is_err(),
            "an existing one is somebody's"
        );
        fs::write(data.join("profiles/README"), "").unwrap();
        assert_eq!(profiles(&data).unwrap(), ["0a1b2c3d4e5".parse().unwrap()]);
        remove_profile(&workspace).unwrap();
        remove_profile(&workspace).unwrap();
        assert!(!workspace.profile().exists());
        assert_eq!(profiles(&data.join("none")).unwrap(), []);
    }

    #[test]
    fn shims_can_be_executed_and_go_with_the_workspace() {
        let (_keep, _, workspace) = stand();
        add_shims(&workspace).unwrap();
        for (name, _) in SHIMS {
            let shim = fs::metadata(workspace.shims().join(name)).unwrap();
            assert_eq!(shim.mode() & 0o7777, 0o555, "{name}");
        }
        super::super::remove(&workspace).unwrap();
        assert!(!workspace.root().exists());
    }

    #[test]
    fn the_variables_of_a_mac_keep_tools_inside_the_workspace() {
        let workspace = Workspace::new("/data".into(), &"0a1b2c3d4e5".parse().unwrap());
        let text: String = mac_environment(
            &workspace,
            Some("/Applications/Xcode.app/Contents/Developer".into()),
        )
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
        insta::assert_snapshot!(text, @r"
        CFFIXED_USER_HOME=/data/native/0a1b2c3d4e5/home
        CLANG_MODULE_CACHE_PATH=/data/native/0a1b2c3d4e5/tmp/clang-modules
        DEVELOPER_DIR=/Applications/Xcode.app/Contents/Developer
        JAVA_TOOL_OPTIONS=-Duser.home=/data/native/0a1b2c3d4e5/home -Djava.net.preferIPv4Stack=true
        LANG=en_US.UTF-8
        PATH=/data/native/0a1b2c3d4e5/shims:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
        SWIFTPM_MODULECACHE_OVERRIDE=/data/native/0a1b2c3d4e5/tmp/swiftpm-modules
        xcrun_db=/data/native/0a1b2c3d4e5/tmp/xcrun_db
        ");
        assert!(!mac_environment(&workspace, None).contains_key("DEVELOPER_DIR"));
    }

    #[test]
    fn a_home_with_blanks_is_one_option() {
        assert_eq!(
            java_options(&"/a b".into()),
            "\"-Duser.home=/a b\" -Djava.net.preferIPv4Stack=true"
        );
    }
}
