//! The programs that stand in for `swift`, `swiftc` and `xcodebuild`, in front of ones that record what they get.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

const SHIMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/macos/shims");

struct Tools {
    keep: tempfile::TempDir,
}

impl Tools {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let real = keep.path().join("real");
        fs::create_dir(&real).unwrap();
        for name in ["swift", "swiftc", "xcodebuild"] {
            let recorder = "#!/bin/sh\nfor word; do printf '[%s]' \"$word\"; done\nexit 7\n";
            fs::write(real.join(name), recorder).unwrap();
            fs::set_permissions(real.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { keep }
    }

    /// What the real program got, behind as many links to the shims as `path` has folders.
    fn run_behind(&self, path: &str, tool: &str, args: &[&str]) -> (Option<i32>, String, String) {
        let program = format!("{SHIMS}/{tool}");
        let output = Command::new(program)
            .args(args)
            .env("PATH", path)
            .current_dir(self.keep.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn run(&self, tool: &str, args: &[&str]) -> String {
        let path = format!("{SHIMS}:{}/real:/usr/bin:/bin", self.keep.path().display());
        let (code, said, complaint) = self.run_behind(&path, tool, args);
        assert_eq!(code, Some(7), "the real program's exit code\n{complaint}");
        said
    }
}

#[test]
fn swift_builds_without_a_sandbox_of_its_own() {
    let tools = Tools::new();
    assert_eq!(
        tools.run("swift", &["build", "-c", "release"]),
        "[build][--disable-sandbox][-Xswiftc][-disable-sandbox][-c][release]"
    );
    assert_eq!(
        tools.run("swift", &["package", "resolve"]),
        "[package][--disable-sandbox][-Xswiftc][-disable-sandbox][resolve]"
    );
    assert_eq!(tools.run("swift", &["package"]), "[package]");
}

#[test]
fn swift_gets_nothing_twice_and_leaves_a_programs_own_arguments_alone() {
    let tools = Tools::new();
    let given = ["test", "--disable-sandbox", "-Xswiftc", "-disable-sandbox"];
    assert_eq!(
        tools.run("swift", &given),
        "[test][--disable-sandbox][-Xswiftc][-disable-sandbox]"
    );
    assert_eq!(
        tools.run("swift", &["run", "tool", "--", "--disable-sandbox", "a b", ""]),
        "[run][--disable-sandbox][-Xswiftc][-disable-sandbox][tool][--][--disable-sandbox][a b][]"
    );
}

#[test]
fn swift_without_a_build_is_swift_as_it_is() {
    let tools = Tools::new();
    for args in [
        &["--version"][..],
        &["script.swift", "build"],
        &["-e", "print(1)"],
        &[],
        &["repl"],
    ] {
        let expected: String = args.iter().map(|arg| format!("[{arg}]")).collect();
        assert_eq!(tools.run("swift", args), expected);
    }
}

#[test]
fn swiftc_compiles_without_a_sandbox_for_macros_and_is_otherwise_as_it_is() {
    let tools = Tools::new();
    assert_eq!(
        tools.run("swiftc", &["-O", "a b.swift", "-o", "tool"]),
        "[-disable-sandbox][-O][a b.swift][-o][tool]"
    );
    assert_eq!(
        tools.run("swiftc", &["@files.rsp"]),
        "[-disable-sandbox][@files.rsp]"
    );
    for args in [
        &["--version"][..],
        &["-print-target-info"],
        &["-frontend", "-c", "a.swift"],
        &["a.swift", "-disable-sandbox"],
        &[],
    ] {
        let expected: String = args.iter().map(|arg| format!("[{arg}]")).collect();
        assert_eq!(tools.run("swiftc", args), expected);
    }
}

#[test]
fn xcodebuild_builds_without_sandboxes_of_its_own() {
    let tools = Tools::new();
    let flags = "[-IDEPackageSupportDisableManifestSandbox=YES][-IDEPackageSupportDisablePluginExecutionSandbox=1][ENABLE_USER_SCRIPT_SANDBOXING=NO]";
    assert_eq!(
        tools.run("xcodebuild", &["-scheme", "My App", "test"]),
        format!("[-scheme][My App][test]{flags}")
    );
    assert_eq!(
        tools.run("xcodebuild", &["build", "ENABLE_USER_SCRIPT_SANDBOXING=YES"]),
        "[build][ENABLE_USER_SCRIPT_SANDBOXING=YES][-IDEPackageSupportDisableManifestSandbox=YES][-IDEPackageSupportDisablePluginExecutionSandbox=1]",
        "what a job says itself stays"
    );
    for args in [
        &["-version"][..],
        &["-showsdks"],
        &["-exportArchive", "-archivePath", "x"],
    ] {
        let expected: String = args.iter().map(|arg| format!("[{arg}]")).collect();
        assert_eq!(tools.run("xcodebuild", args), expected);
    }
}

#[test]
fn a_shim_never_finds_itself_and_says_when_there_is_nothing_else() {
    let tools = Tools::new();
    let link = tools.keep.path().join("link");
    symlink(SHIMS, &link).unwrap();
    let path = format!("{}:{SHIMS}:/usr/bin:/bin", link.display());
    let (code, _, complaint) = tools.run_behind(&path, "xcodebuild", &["-version"]);
    assert_eq!(code, Some(127));
    assert_eq!(complaint, "xcodebuild: there is no other xcodebuild on PATH\n");
}
