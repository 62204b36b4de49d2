//! A manifest as other tools want it, so that an image of a virtual machine or a container gets the same as a host.
//!
//! What such a tool cannot express stays in as a comment: nothing of a manifest is lost without a word.

use std::fmt::Write as _;

use super::Item;
use super::kind::Kind;
use super::kind::archive::{Archive, ENDINGS, STAMP};
use super::kind::files::{File, Folder};
use super::kind::package::{Manager, Package};
use super::manifest::Manifest;
use super::version::Range;
use crate::host::Os;
use crate::host::command::shell_line;

/// What a manifest is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// A Brewfile, for `brew bundle`.
    Brewfile,
    /// A template of Packer's, with Tart for macOS and Docker for Linux.
    Packer,
    /// A script for sh.
    Script,
    /// A Dockerfile; for Linux only.
    Dockerfile,
}

/// Why a manifest cannot be written so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// It is not for that system.
    #[error("`{manifest}` is not for {os}\nhint: choose another format, or another --os")]
    Os {
        /// The manifest.
        manifest: String,
        /// The system.
        os: &'static str,
    },
}

/// `manifest` for `target`, on `os` where the target leaves a choice. `base` is the image to start from.
///
/// # Errors
/// The manifest is not for that system.
pub fn export(
    manifest: &Manifest,
    target: Target,
    os: Os,
    base: Option<&str>,
) -> Result<String, ExportError> {
    let os = match target {
        Target::Brewfile | Target::Packer | Target::Script => os,
        Target::Dockerfile => Os::Linux,
    };
    if !manifest.os.contains(&os) {
        return Err(ExportError::Os {
            manifest: manifest.name.clone(),
            os: match os {
                Os::MacOs => "macOS",
                Os::Linux => "Linux",
            },
        });
    }
    let items: Vec<&Item> = manifest
        .items
        .iter()
        .filter(|item| item.os.is_none_or(|only| only == os))
        .collect();
    let head = format!("# {} {}\n", manifest.name, &manifest.digest[..12]);
    Ok(match target {
        Target::Brewfile => head + &brewfile(&items),
        Target::Script => format!("#!/bin/sh\n{head}{}", script(&items, os)),
        Target::Packer => head + &packer(&items, os, base),
        Target::Dockerfile => head + &dockerfile(&items, base.unwrap_or("debian:stable-slim")),
    })
}

/// An item in one line of comment.
fn remark(item: &Item) -> String {
    let why = item.why.split_whitespace().collect::<Vec<_>>().join(" ");
    let only = item.only_if.distribution.join(", ");
    let only = if only.is_empty() {
        only
    } else {
        format!(" (only on {only})")
    };
    let version = match &item.kind {
        Kind::Package(_, _, it) => it.version.as_ref(),
        Kind::Command(_, it) => it.version.as_ref(),
        _ => None,
    };
    let version = version.map(|range| format!(" {range}")).unwrap_or_default();
    format!("# {}{version}{only}: {why}", item.id())
}

/// Names as Ruby's strings: names of packages hold nothing that Ruby would take for more.
fn brewfile(items: &[&Item]) -> String {
    let mut text = String::new();
    for item in items {
        let line = match &item.kind {
            Kind::Package(Manager::Tap, name, _) => format!("tap \"{name}\""),
            Kind::Package(Manager::Brew, name, _) => format!("brew \"{name}\""),
            Kind::Package(Manager::Cask, name, _) => format!("cask \"{name}\""),
            _ => {
                let _ = writeln!(text, "# not expressed: {}", item.id());
                continue;
            }
        };
        let _ = writeln!(text, "{}\n{line}", remark(item));
    }
    text
}

/// A line for a shell.
fn line(program: &str, args: &[&str]) -> String {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    shell_line(program, &args)
}

/// A line for a shell that only root can run: on macOS the script runs as the owner of Homebrew, which refuses root.
fn rooted(os: Os, program: &str, args: &[&str]) -> String {
    let line = line(program, args);
    match os {
        Os::MacOs => format!("sudo {line}"),
        Os::Linux => line,
    }
}

/// Commands for a shell, by item; `None` where only a person or a check can tell.
fn commands(item: &Item, os: Os) -> Option<Vec<String>> {
    Some(match &item.kind {
        Kind::Package(manager, name, package) => package_commands(*manager, name, package),
        Kind::Folder(path, folder) => {
            let mut lines = vec![rooted(os, "mkdir", &["-p", path])];
            lines.extend(settled(os, path, folder));
            lines
        }
        Kind::File(
            path,
            File {
                content: Some(content),
                owner,
                group,
                mode,
                ..
            },
        ) => {
            let folder = Folder {
                owner: owner.clone(),
                group: group.clone(),
                mode: *mode,
                visible: false,
                writable: false,
            };
            let print = line("printf", &["%s", content]);
            let mut lines = vec![format!("{print} | {} > /dev/null", rooted(os, "tee", &[path]))];
            lines.extend(settled(os, path, &folder));
            lines
        }
        Kind::Archive(_, archive) => unpacking(archive, os),
        Kind::Rosetta(..) if os == Os::MacOs => {
            vec![rooted(
                os,
                "softwareupdate",
                &["--install-rosetta", "--agree-to-license"],
            )]
        }
        Kind::Xcode(_, xcode) if xcode.licence || xcode.first_launch => [
            (xcode.licence, rooted(os, "xcodebuild", &["-license", "accept"])),
            (xcode.first_launch, rooted(os, "xcodebuild", &["-runFirstLaunch"])),
        ]
        .into_iter()
        .filter_map(|(wanted, command)| wanted.then_some(command))
        .collect(),
        Kind::Command(name, it) if it.path.is_empty() => vec![line("command", &["-v", name])],
        Kind::Env(name, env) => vec![line("export", &[&format!("{name}={}", env.value)])],
        Kind::Arch(..)
        | Kind::Release(..)
        | Kind::CommandLineTools(..)
        | Kind::Xcode(..)
        | Kind::Simulator(..)
        | Kind::Rosetta(..)
        | Kind::Account(..)
        | Kind::File(..)
        | Kind::Disk(..)
        | Kind::Service(..)
        | Kind::Posture(..)
        | Kind::Command(..)
        | Kind::Library(..)
        | Kind::Check(..) => return None,
    })
}

fn package_commands(manager: Manager, name: &str, package: &Package) -> Vec<String> {
    let exact = package.version.as_ref().and_then(Range::exact);
    vec![match manager {
        Manager::Brew => line("brew", &["install", "--formula", name]),
        Manager::Cask => line("brew", &["install", "--cask", name]),
        Manager::Tap => line("brew", &["tap", name]),
        Manager::Apt => line("apt-get", &["install", "--yes", "--no-install-recommends", name]),
        Manager::Dnf => line("dnf", &["install", "--assumeyes", name]),
        Manager::Pip => {
            let wanted = exact.map_or(name.to_owned(), |version| format!("{name}=={version}"));
            line(
                "python3",
                &["-m", "pip", "install", "--break-system-packages", &wanted],
            )
        }
        Manager::Npm => {
            let wanted = exact.map_or(name.to_owned(), |version| format!("{name}@{version}"));
            line("npm", &["install", "--global", &wanted])
        }
        Manager::Cargo => {
            let mut args = vec!["install", "--locked", "--root", "/usr/local", name];
            if let Some(version) = exact {
                args.extend(["--version", version]);
            }
            line("cargo", &args)
        }
    }]
}

fn settled(os: Os, path: &str, folder: &Folder) -> Vec<String> {
    let mut lines = vec![];
    let owner = match (&folder.owner, &folder.group) {
        (None, None) => None,
        (owner, group) => {
            let of = |name: &Option<String>| name.clone().unwrap_or_default();
            let group = if group.is_some() {
                format!(":{}", of(group))
            } else {
                String::new()
            };
            Some(of(owner) + &group)
        }
    };
    if let Some(owner) = owner {
        lines.push(rooted(os, "chown", &[&owner, path]));
    }
    if let Some(mode) = folder.mode {
        lines.push(rooted(os, "chmod", &[&format!("{mode:03o}"), path]));
    }
    lines
}

/// Fetches, compares and unpacks, with the tools that every system has, and leaves the same mark as `--apply`.
fn unpacking(archive: &Archive, os: Os) -> Vec<String> {
    let name = archive.url.split(['?', '#']).next().unwrap_or_default();
    let ending = ENDINGS
        .iter()
        .rfind(|ending| name.ends_with(**ending))
        .copied()
        .unwrap_or(".tar");
    let sum = match os {
        Os::MacOs => "shasum -a 256 --check",
        Os::Linux => "sha256sum --check",
    };
    let (to, sha256) = (archive.to.as_str(), &archive.sha256);
    // In a folder of our own: a name that somebody could guess could be a link of theirs.
    let packed = format!("\"$new\"/packed{ending}");
    let fetch = ["--fail", "--location", "--silent", "--show-error", "--output"];
    let strip = format!("--strip-components={}", archive.strip);
    let mut lines = vec![
        "new=$(mktemp -d)".to_owned(),
        format!("{} {packed} {}", line("curl", &fetch), line(&archive.url, &[])),
        format!("echo '{sha256}  '{packed} | {sum}"),
        rooted(os, "mkdir", &["-p", to]),
        format!("{} {packed}", rooted(os, "tar", &["-C", to, &strip, "-xf"])),
        format!(
            "echo {sha256} | {} > /dev/null",
            rooted(os, "tee", &[archive.to.join(STAMP).as_str()])
        ),
        "rm -r \"$new\"".to_owned(),
    ];
    let named = [archive.owner.as_deref(), archive.group.as_deref()];
    if named.iter().any(Option::is_some) {
        let [owner, group] = named.map(Option::unwrap_or_default);
        let colon = if group.is_empty() { "" } else { ":" };
        lines.push(rooted(
            os,
            "chown",
            &["-R", &format!("{owner}{colon}{group}"), to],
        ));
    }
    lines
}

fn script(items: &[&Item], os: Os) -> String {
    let who = match os {
        Os::MacOs => "the owner of Homebrew, who may use sudo",
        Os::Linux => "root",
    };
    let mut text = format!("# Run as {who}.\nset -eu\n");
    if os == Os::Linux && items.iter().any(|item| item.kind.section() == "apt") {
        text.push_str("export DEBIAN_FRONTEND=noninteractive\napt-get update\n");
    }
    for item in items {
        match commands(item, os) {
            Some(lines) => {
                let _ = writeln!(text, "\n{}", remark(item));
                let lines = lines.join("\n");
                let _ = match guard(item) {
                    Some(guard) => writeln!(text, "if {guard}; then\n{lines}\nfi"),
                    None => writeln!(text, "{lines}"),
                };
            }
            None => {
                let _ = writeln!(text, "\n# not expressed: {}", item.id());
            }
        }
    }
    text
}

/// What a shell asks before it does something for a distribution or a machine only.
fn guard(item: &Item) -> Option<String> {
    let mut tests = vec![];
    let one_of = |names: &[String]| names.join("|");
    if !item.only_if.distribution.is_empty() {
        tests.push(format!(
            "grep -qE '^(ID|ID_LIKE)=.*\\b({})\\b' /etc/os-release",
            one_of(&item.only_if.distribution)
        ));
    }
    if !item.only_if.arch.is_empty() {
        tests.push(format!(
            "uname -m | grep -qE '^({})$'",
            one_of(&item.only_if.arch)
        ));
    }
    if let Some(path) = &item.only_if.exists {
        tests.push(shell_line("test", &["-e".to_owned(), path.to_string()]));
    }
    (!tests.is_empty()).then(|| tests.join(" && "))
}

fn dockerfile(items: &[&Item], base: &str) -> String {
    let mut text = format!("FROM {base}\n");
    let _ = writeln!(
        text,
        "COPY <<'EPHEMERD' /tmp/provision.sh\n{}EPHEMERD",
        script(items, Os::Linux)
    );
    text.push_str("RUN sh /tmp/provision.sh && rm /tmp/provision.sh\n");
    for item in items {
        if let (Kind::Env(name, env), None) = (&item.kind, guard(item)) {
            // Docker takes JSON's strings, apart from the dollar.
            let value = serde_json::Value::from(env.value.as_str())
                .to_string()
                .replace('$', "\\$");
            let _ = writeln!(text, "ENV {name}={value}");
        }
    }
    text
}

/// HCL: a source and a build that runs the script.
fn packer(items: &[&Item], os: Os, base: Option<&str>) -> String {
    let (plugin, source, block) = match os {
        Os::MacOs => (
            "tart",
            "github.com/cirruslabs/tart",
            format!(
                "source \"tart-cli\" \"ephemerd\" {{\n  vm_base_name = {}\n  vm_name      = \"ephemerd\"\n  ssh_username = \"admin\"\n  ssh_password = \"admin\"\n}}\n",
                hcl(base.unwrap_or("ghcr.io/cirruslabs/macos-tahoe-base:latest"))
            ),
        ),
        Os::Linux => (
            "docker",
            "github.com/hashicorp/docker",
            format!(
                "source \"docker\" \"ephemerd\" {{\n  image  = {}\n  commit = true\n}}\n",
                hcl(base.unwrap_or("debian:stable-slim"))
            ),
        ),
    };
    let name = match os {
        Os::MacOs => "tart-cli.ephemerd",
        Os::Linux => "docker.ephemerd",
    };
    let lines: Vec<String> = script(items, os)
        .lines()
        .map(|line| format!("      {},", hcl(line)))
        .collect();
    format!(
        "packer {{\n  required_plugins {{\n    {plugin} = {{\n      source  = \"{source}\"\n      version = \">= 1.0.0\"\n    }}\n  }}\n}}\n\n{block}\nbuild {{\n  sources = [\"source.{name}\"]\n  provisioner \"shell\" {{\n    inline = [\n{}\n    ]\n  }}\n}}\n",
        lines.join("\n")
    )
}

/// A string of HCL's.
fn hcl(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.replace("${", "$${").replace("%{", "%%{")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::manifest::load;

    const ITEMS: &str = r#"version = 1
os = ["macos", "linux"]
[brew."llvm@17"]
why = "libclang"
os = "macos"
version = ">=17, <18"
[apt.git]
why = "checkout"
os = "linux"
only_if = { distribution = ["debian"] }
[folder."/opt/it's"]
why = "quoted"
owner = "root"
mode = "755"
[archive.gcc]
why = "cross"
os = "linux"
url = "https://example.org/gcc.tar.xz"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
to = "/opt/toolchain/gcc"
strip = 1
owner = "root"
[command.cmake]
why = "builds"
version = ">=3.20"
[env.DOLLAR]
why = "escaped"
value = "a$b"
[env.ONLY]
why = "elsewhere"
value = "x"
only_if = { arch = ["arm64"] }
[posture.sleep]
why = "no command"
want = false
"#;

    fn exported(target: Target, os: Os) -> String {
        let keep = tempfile::tempdir().unwrap();
        let path = keep.path().join("m.toml");
        std::fs::write(&path, ITEMS).unwrap();
        let mut manifest = load(path.to_str().unwrap(), "/".into()).unwrap();
        manifest.name = "m".to_owned();
        manifest.digest = "0".repeat(64);
        export(&manifest, target, os, None).unwrap()
    }

    #[test]
    fn a_script_does_what_it_can_and_says_what_it_cannot() {
        insta::assert_snapshot!(exported(Target::Script, Os::Linux), @r#"
        #!/bin/sh
        # m 000000000000
        # Run as root.
        set -eu
        export DEBIAN_FRONTEND=noninteractive
        apt-get update

        # apt git (only on debian): checkout
        if grep -qE '^(ID|ID_LIKE)=.*\b(debian)\b' /etc/os-release; then
        apt-get install --yes --no-install-recommends git
        fi

        # folder /opt/it's: quoted
        mkdir -p '/opt/it'\''s'
        chown root '/opt/it'\''s'
        chmod 755 '/opt/it'\''s'

        # archive gcc: cross
        new=$(mktemp -d)
        curl --fail --location --silent --show-error --output "$new"/packed.tar.xz https://example.org/gcc.tar.xz
        echo 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  '"$new"/packed.tar.xz | sha256sum --check
        mkdir -p /opt/toolchain/gcc
        tar -C /opt/toolchain/gcc --strip-components=1 -xf "$new"/packed.tar.xz
        echo ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad | tee /opt/toolchain/gcc/.ephemerd-archive > /dev/null
        rm -r "$new"
        chown -R root /opt/toolchain/gcc

        # not expressed: posture sleep

        # command cmake >=3.20: builds
        command -v cmake

        # env DOLLAR: escaped
        export 'DOLLAR=a$b'

        # env ONLY: elsewhere
        if uname -m | grep -qE '^(arm64)$'; then
        export ONLY=x
        fi
        "#);
    }

    #[test]
    fn a_script_for_macos_is_not_run_by_root() {
        let script = exported(Target::Script, Os::MacOs);
        assert!(script.contains("\nbrew install --formula llvm@17\n"), "{script}");
        assert!(script.contains("\nsudo mkdir -p "), "{script}");
        assert!(!script.contains("apt-get"), "{script}");
    }

    #[test]
    fn every_script_is_one_that_sh_reads() {
        for (target, os) in [(Target::Script, Os::Linux), (Target::Script, Os::MacOs)] {
            let spec = crate::host::command::CommandSpec {
                stdin: Some(exported(target, os)),
                ..crate::host::command::CommandSpec::new(
                    "/bin/sh".into(),
                    &["-n"],
                    std::time::Duration::from_secs(20),
                )
            };
            let output = crate::host::command::run(&spec).unwrap();
            assert!(output.status.success(), "{}", output.stderr);
        }
    }

    #[test]
    fn variables_of_a_dockerfile_are_escaped_and_those_with_a_condition_left_to_the_script() {
        let text = exported(Target::Dockerfile, Os::Linux);
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("ENV ")).collect();
        assert_eq!(lines, ["ENV DOLLAR=\"a\\$b\""], "{text}");
    }

    #[test]
    fn a_brewfile_holds_what_homebrew_installs_and_packer_the_whole_script() {
        assert!(exported(Target::Brewfile, Os::MacOs).contains("\nbrew \"llvm@17\"\n"));
        let packer = exported(Target::Packer, Os::Linux);
        assert!(
            packer.contains("      \"apt-get install --yes --no-install-recommends git\",\n"),
            "{packer}"
        );
    }
}
