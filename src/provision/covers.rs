//! What a manifest promises, beside what workflows presume.

use camino::Utf8Path;

use super::kind::Kind;
use super::kind::package::Manager;
use super::manifest::Manifest;
use super::scan::commands::packages::brought;
use super::scan::{Need, What};
use crate::host::Os;

/// What Apple's command line tools bring (xcode-select(1) lists them in /Library/Developer/CommandLineTools/usr/bin).
const COMMAND_LINE_TOOLS: [&str; 24] = [
    "install_name_tool",
    "otool",
    "ar",
    "as",
    "c++",
    "cc",
    "clang",
    "clang++",
    "g++",
    "gcc",
    "git",
    "ld",
    "lldb",
    "lipo",
    "m4",
    "make",
    "nm",
    "pip3",
    "python3",
    "ranlib",
    "strip",
    "swift",
    "swiftc",
    "xcrun",
];

/// What Xcode brings besides.
const XCODE: [&str; 5] = ["actool", "agvtool", "simctl", "xcodebuild", "xctrace"];

/// Whether a host that meets `manifest` has what a workflow needs, or the need is of a system that the manifest is not
/// for.
pub fn covers(manifest: &Manifest, need: &Need) -> bool {
    if need.os.is_some_and(|os| !manifest.os.contains(&os)) {
        return true;
    }
    match &need.what {
        // What labels a runner has is not said by a manifest.
        What::RunsOn(_) => true,
        // No host has that for jobs.
        What::Root | What::Action(_) => false,
        What::Brew(name) => has_package(manifest, Manager::Brew, name),
        What::Cask(name) => has_package(manifest, Manager::Cask, name),
        What::Tap(name) => has_package(manifest, Manager::Tap, name),
        What::Apt(name) => has_package(manifest, Manager::Apt, name),
        What::Dnf(name) => has_package(manifest, Manager::Dnf, name),
        What::Pip(name) => has_package(manifest, Manager::Pip, name),
        What::Npm(name) => has_package(manifest, Manager::Npm, name),
        What::Command(name) => kinds(manifest, need).any(|kind| brings(kind, name)),
        What::Path(path) => kinds(manifest, need).any(|kind| holds(kind, Utf8Path::new(path))),
        What::Xcode(version) => kinds(manifest, need).any(|kind| match kind {
            Kind::Xcode(_, xcode) => match (&xcode.version, version) {
                (Some(range), Some(version)) => range.contains(version) != Some(false),
                _ => true,
            },
            _ => false,
        }),
        What::Simulator(runtime) => {
            let platform = runtime.split(' ').next().unwrap_or(runtime);
            kinds(manifest, need).any(|kind| matches!(kind, Kind::Simulator(name, _) if name == platform))
        }
    }
}

/// The items that count on the need's system.
fn kinds<'a>(manifest: &'a Manifest, need: &'a Need) -> impl Iterator<Item = &'a Kind> {
    let counts = |item: &&super::Item| match (item.os, need.os) {
        (Some(only), Some(wanted)) => only == wanted,
        _ => true,
    };
    manifest.items.iter().filter(counts).map(|item| &item.kind)
}

fn has_package(manifest: &Manifest, manager: Manager, name: &str) -> bool {
    let short = |name: &str| name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    manifest.items.iter().any(|item| match &item.kind {
        // A tap's user is part of its name.
        Kind::Package(found, own, _) if manager == Manager::Tap => {
            *found == manager && own.eq_ignore_ascii_case(name)
        }
        Kind::Package(found, own, _) => *found == manager && short(own) == short(name),
        _ => false,
    })
}

/// Whether an item brings a command.
fn brings(kind: &Kind, command: &str) -> bool {
    match kind {
        Kind::Command(name, _) => name == command,
        Kind::Package(manager, name, _) => {
            // A tap only tells where formulae are.
            *manager != Manager::Tap && brought(name).any(|brought| brought == command)
        }
        Kind::CommandLineTools(..) => COMMAND_LINE_TOOLS.contains(&command),
        Kind::Xcode(..) => COMMAND_LINE_TOOLS.contains(&command) || XCODE.contains(&command),
        // Homebrew is a folder that somebody has made.
        Kind::Folder(path, _) => {
            command == "brew" && (path == "/opt/homebrew" || path.ends_with("/linuxbrew"))
        }
        _ => false,
    }
}

/// Whether an item is what a path leads to, or a folder above it.
fn holds(kind: &Kind, path: &Utf8Path) -> bool {
    match kind {
        Kind::Folder(own, _) => path.starts_with(own) && *own != "/opt/homebrew",
        Kind::File(own, _) => path == own,
        Kind::Archive(_, archive) => path.starts_with(&archive.to),
        Kind::Env(_, env) => env.exists && env.value.split(':').any(|own| path.starts_with(own)),
        Kind::Package(Manager::Brew, name, _) => {
            let opt = path.as_str().split("/opt/").last().unwrap_or_default();
            path.as_str().contains("/opt/") && opt.split('/').next() == Some(name)
        }
        Kind::Xcode(..) => path.starts_with("/Applications/Xcode.app"),
        Kind::CommandLineTools(..) => path.starts_with("/Library/Developer/CommandLineTools"),
        _ => false,
    }
}

/// A line of TOML that would promise what is needed, where one does.
pub fn remedy(need: &Need) -> String {
    let section = |section: &str, name: &str| {
        let bare = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if bare {
            format!("[{section}.{name}]")
        } else {
            format!("[{section}.\"{name}\"]")
        }
    };
    match &need.what {
        What::Brew(name) => section("brew", name),
        What::Cask(name) => section("cask", name),
        What::Tap(name) => section("tap", name),
        What::Apt(name) => section("apt", name),
        What::Dnf(name) => section("dnf", name),
        What::Pip(name) => section("pip", name),
        What::Npm(name) => section("npm", name),
        What::Command(name) => section("command", name),
        What::Path(path) => section("folder", path),
        What::Xcode(_) => "[xcode.app]".to_owned(),
        What::Simulator(runtime) => section("simulator", runtime.split(' ').next().unwrap_or(runtime)),
        What::RunsOn(_) => "the labels of your runners".to_owned(),
        What::Root => "do it once, with the manifest; jobs never have root".to_owned(),
        What::Action(_) => "send the repository to a VM: its route decides".to_owned(),
    }
}

/// The systems of a manifest in words.
pub fn systems(manifest: &Manifest) -> &'static str {
    match manifest.os.as_slice() {
        [Os::MacOs] => "macOS",
        [Os::Linux] => "Linux",
        _ => "macOS and Linux",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::manifest::load;

    /// A manifest of these items.
    fn manifest(os: &str, items: &str) -> Manifest {
        let keep = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(keep.path()).unwrap().join("m.toml");
        std::fs::write(&path, format!("version = 1\nos = {os:?}\n{items}")).unwrap();
        load(path.as_str(), "/".into()).unwrap()
    }

    fn need(what: What, os: Option<Os>) -> Need {
        Need {
            what,
            file: "ci.yml".to_owned(),
            line: 1,
            because: String::new(),
            os,
        }
    }

    #[test]
    fn what_a_manifest_promises_is_covered_and_nothing_else() {
        let mac = manifest(
            "macos",
            "[brew.\"llvm@17\"]\nwhy=\"w\"\n[brew.cmake]\nwhy=\"w\"\n[command_line_tools.any]\nwhy=\"w\"\n[command.brew]\nwhy=\"w\"\n\
             [xcode.app]\nwhy=\"w\"\nversion=\">=16\"\n[simulator.iOS]\nwhy=\"w\"\n[folder.\"/opt/toolchain\"]\nwhy=\"w\"\n",
        );
        let name = |text: &str| text.to_owned();
        for (what, is_covered) in [
            (What::Brew(name("llvm@17")), true),
            (What::Brew(name("homebrew/core/cmake")), true),
            (What::Brew(name("llvm")), false),
            (What::Command(name("cmake")), true),
            (What::Command(name("ctest")), true),
            (What::Command(name("clang")), true),
            (What::Command(name("xcodebuild")), true),
            (What::Command(name("ninja")), false),
            (What::Path(name("/opt/toolchain/arm/bin/gcc")), true),
            (What::Path(name("/opt/homebrew/opt/llvm@17/lib")), true),
            (What::Path(name("/opt/homebrew/opt/llvm@18/lib")), false),
            (What::Path(name("/opt/toolchains")), false),
            (What::Xcode(None), true),
            (What::Xcode(Some(name("16.2"))), true),
            (What::Xcode(Some(name("15.4"))), false),
            (What::Simulator(name("iOS 18.0")), true),
            (What::Simulator(name("watchOS")), false),
            // No host has these, whatever it promises.
            (What::Root, false),
            (What::Action(name("docker")), false),
            (What::RunsOn(vec![name("macos-15")]), true),
        ] {
            assert_eq!(covers(&mac, &need(what.clone(), None)), is_covered, "{what}");
        }
    }

    #[test]
    fn what_another_system_needs_is_not_this_ones_business() {
        let linux = manifest("linux", "[apt.git]\nwhy=\"w\"\n");
        assert!(covers(
            &linux,
            &need(What::Command("swift".to_owned()), Some(Os::MacOs))
        ));
        assert!(!covers(
            &linux,
            &need(What::Command("swift".to_owned()), Some(Os::Linux))
        ));
        assert!(covers(
            &linux,
            &need(What::Command("git".to_owned()), Some(Os::Linux))
        ));
        let both = manifest("linux", "[command.jq]\nwhy=\"w\"\nos=\"macos\"\n");
        assert!(!covers(
            &both,
            &need(What::Command("jq".to_owned()), Some(Os::Linux))
        ));
    }
}
