//! What variables and paths in a workflow presume.

use super::What;
use super::shell::EXPRESSION;

/// Endings of names of variables that hold a file or folder.
const PATH_ENDINGS: [&str; 6] = ["PATH", "_DIR", "_HOME", "_ROOT", "_PREFIX", "_TOOLCHAIN_FILE"];
/// Other variables that do.
const PATH_NAMES: [&str; 3] = ["DEVELOPER_DIR", "SDKROOT", "SYSROOT"];
/// Variables that hold a program, by name or path.
const PROGRAM_NAMES: [&str; 10] = [
    "CC", "CXX", "CPP", "LD", "AR", "AS", "NM", "RANLIB", "STRIP", "OBJCOPY",
];
/// Endings of names of variables that hold a program.
const PROGRAM_ENDINGS: [&str; 5] = ["_CC", "_CXX", "_AR", "_LINKER", "_RUNNER"];

/// Folders that every host has, or that hold what a job makes itself.
const NOT_PRESUMED: [&str; 5] = ["/tmp", "/var/tmp", "/dev", "/proc", "/sys"];
/// Folders of the system's programs.
const PROGRAM_FOLDERS: [&str; 5] = ["/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/usr/libexec/"];
/// Where Homebrew links each formula's newest version, by its name: on Apple silicon, Intel and Linux.
const OPT_FOLDERS: [&str; 3] = [
    "/opt/homebrew/opt/",
    "/usr/local/opt/",
    "/home/linuxbrew/.linuxbrew/opt/",
];

/// What the variable `name` presumes with the value `value`, as far as that is known before the job runs.
pub(super) fn of_variable(name: &str, value: &str) -> Vec<What> {
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if PROGRAM_NAMES.contains(&name) || ends(&PROGRAM_ENDINGS) {
        // Options may follow; a wrapper such as ccache may come first.
        let program = value.split_whitespace().next().unwrap_or_default();
        return of_program(program).into_iter().collect();
    }
    if PATH_NAMES.contains(&name) || ends(&PATH_ENDINGS) {
        return value.split(':').filter_map(of_path).collect();
    }
    Vec::new()
}

/// What running `program` presumes; None for one that is known only when the job runs, or is the job's own.
pub(super) fn of_program(program: &str) -> Option<What> {
    let in_system = PROGRAM_FOLDERS
        .iter()
        .find_map(|folder| program.strip_prefix(folder));
    let name = in_system.unwrap_or(program);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.+-[:".contains(c);
    if name.chars().all(is_name) && !name.starts_with(['-', '+']) && !name.is_empty() {
        return Some(What::Command(name.to_owned()));
    }
    of_path(program)
}

/// What an absolute path presumes; None for one that is known only when the job runs, or that is no absolute path.
pub(super) fn of_path(path: &str) -> Option<What> {
    let path = path.trim_end_matches('/');
    let is_unknown = path.contains(['$', EXPRESSION, '*', '?', '~', ' ', '"', '\'']) || path.contains("//");
    let is_below = |folder: &str| {
        path.strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if !path.starts_with('/') || is_unknown || NOT_PRESUMED.iter().any(|folder| is_below(folder)) {
        return None;
    }
    if let Some(version) = xcode(path) {
        return Some(What::Xcode(version));
    }
    let in_opt = OPT_FOLDERS.iter().find_map(|folder| path.strip_prefix(folder));
    if let Some(formula) = in_opt.and_then(|rest| rest.split('/').next()) {
        return Some(What::Brew(formula.to_owned()));
    }
    // The root, and the folders of the system, are everywhere.
    let is_everywhere = [
        "",
        "/usr",
        "/usr/lib",
        "/usr/include",
        "/usr/local",
        "/etc",
        "/var",
        "/opt",
    ];
    let is_program_folder = PROGRAM_FOLDERS
        .iter()
        .any(|folder| folder.trim_end_matches('/') == path);
    if is_everywhere.contains(&path) || path == "/usr/local/bin" || is_program_folder {
        return None;
    }
    Some(What::Path(path.to_owned()))
}

/// The version of the Xcode that `path` is in, if it is in one, by the name that it has on GitHub's images:
/// `/Applications/Xcode_15.2.app`.
fn xcode(path: &str) -> Option<Option<String>> {
    let name = path.strip_prefix("/Applications/Xcode")?.split('/').next()?;
    let version = name.strip_suffix(".app")?.trim_start_matches(['_', '-']);
    Some((!version.is_empty()).then(|| version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, value: &str) -> Vec<String> {
        of_variable(name, value).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn variables_that_hold_paths_presume_them() {
        let cases: [(&str, &str, &[&str]); 8] = [
            (
                "LIBCLANG_PATH",
                "/usr/lib/llvm-14/lib",
                &["path /usr/lib/llvm-14/lib"],
            ),
            ("PATH", "/opt/a/bin:$PATH:/usr/bin", &["path /opt/a/bin"]),
            ("JAVA_HOME", "$HOME/jdk", &[]),
            ("CACHE_DIR", "/tmp/cache", &[]),
            ("API_PATH", "v1/things", &[]),
            ("GREETING", "/opt/x", &[]),
            (
                "DEVELOPER_DIR",
                "/Applications/Xcode_15.2.app/Contents/Developer",
                &["Xcode 15.2"],
            ),
            (
                "OPENSSL_DIR",
                "/opt/homebrew/opt/openssl@3",
                &["formula openssl@3"],
            ),
        ];
        for (name, value, expected) in cases {
            assert_eq!(told(name, value), expected, "{name}={value}");
        }
    }

    #[test]
    fn variables_that_hold_programs_presume_them() {
        assert_eq!(told("CC", "clang-17 -m64"), ["command clang-17"]);
        assert_eq!(told("CXX", "/usr/bin/g++-12"), ["command g++-12"]);
        let linker = "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER";
        assert_eq!(told(linker, "/opt/x/bin/ld"), ["path /opt/x/bin/ld"]);
        assert_eq!(told("CC", "$TOOLS/cc"), Vec::<String>::new());
    }
}
