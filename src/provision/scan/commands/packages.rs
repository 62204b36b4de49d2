//! Package managers: what they are asked for is presumed where it takes root or changes the host, and provided
//! where a job puts it into folders of its own.

use super::{Reader, Word, has_any, operands};
use crate::provision::scan::What;

/// The commands that rustup brings.
pub(in crate::provision::scan) const RUST: [&str; 5] = ["cargo", "rustc", "rustup", "rustdoc", "rustfmt"];

/// Subcommands of cargo that are programs of their own, as far as workflows use them often.
const CARGO_PROGRAMS: [&str; 12] = [
    "audit",
    "deny",
    "fuzz",
    "hack",
    "llvm-cov",
    "machete",
    "make",
    "ndk",
    "nextest",
    "semver-checks",
    "tarpaulin",
    "zigbuild",
];

/// Options of pip that have a value.
const PIP_VALUED: [&str; 12] = [
    "-c",
    "-e",
    "-f",
    "-i",
    "-r",
    "-t",
    "--constraint",
    "--editable",
    "--extra-index-url",
    "--index-url",
    "--requirement",
    "--target",
];

/// Packages and the commands they bring, where these have other names.
const BROUGHT: [(&str, &str); 19] = [
    ("@angular/cli", "ng"),
    ("awscli", "aws"),
    (
        "binutils-arm-none-eabi",
        "arm-none-eabi-objcopy arm-none-eabi-objdump arm-none-eabi-size",
    ),
    ("build-essential", "c++ cc g++ gcc make"),
    ("cmake", "cpack ctest"),
    ("firebase-tools", "firebase"),
    ("gcc-arm-none-eabi", "arm-none-eabi-g++ arm-none-eabi-gcc"),
    ("golang", "go gofmt"),
    ("go", "gofmt"),
    ("imagemagick", "convert identify magick"),
    ("llvm", "clang clang++ llvm-config"),
    ("ninja-build", "ninja"),
    ("node", "npm npx"),
    ("nodejs", "node npm npx"),
    ("pkgconf", "pkg-config"),
    ("postgresql-client", "pg_dump pg_isready psql"),
    ("python", "pip3 python3"),
    (
        "qemu",
        "qemu-system-aarch64 qemu-system-arm qemu-system-riscv64 qemu-system-x86_64",
    ),
    ("typescript", "tsc"),
];

impl Reader {
    /// What the package manager `name` is asked for; false if it is none.
    pub(super) fn packages(&mut self, name: &str, arguments: &[Word]) -> bool {
        match name {
            "brew" => self.brew(arguments),
            "apt" | "apt-get" | "aptitude" => {
                let operands = operands(arguments, &["-t", "-o", "-c", "--target-release", "--option"]);
                self.of_system(name, &operands, What::Apt);
            }
            "dnf" | "microdnf" | "yum" => {
                let operands = operands(arguments, &["-c", "--repo", "--enablerepo", "--disablerepo"]);
                self.of_system(name, &operands, What::Dnf);
            }
            "pip" | "pip3" => self.pip(name, arguments),
            "python" | "python3" if arguments.starts_with(&["-m", "pip"].map(Word::plain)) => {
                self.pip(name, &arguments[2..]);
            }
            "npm" | "pnpm" | "yarn" => self.npm(name, arguments),
            "cargo" | "gem" | "go" | "corepack" | "curl" => self.of_job(name, arguments),
            _ => return false,
        }
        true
    }

    fn brew(&mut self, arguments: &[Word]) {
        let operands = operands(arguments, &[]);
        let is_cask = has_any(arguments, &["--cask", "--casks"]);
        let is_prefix = has_any(arguments, &["--prefix"]);
        let before = self.effect.needs.len();
        match operands.as_slice() {
            ["cask", "install" | "reinstall" | "upgrade", names @ ..] => self.formulae(names, What::Cask),
            ["install" | "reinstall" | "upgrade", names @ ..] if is_cask => self.formulae(names, What::Cask),
            ["install" | "reinstall" | "upgrade", names @ ..] => self.formulae(names, What::Brew),
            ["tap", name, ..] => self.need(What::Tap((*name).to_owned())),
            names if is_prefix => self.formulae(names, What::Brew),
            _ => {}
        }
        // Whoever has a formula has Homebrew.
        if self.effect.needs.len() == before {
            self.need_command("brew");
        }
    }

    fn formulae(&mut self, names: &[&str], what: fn(String) -> What) {
        // A formula can also be a file or an address.
        let is_name = |name: &&&str| !name.starts_with(['.', '/']) && !name.contains(':');
        for name in names.iter().filter(is_name) {
            self.need(what((*name).to_owned()));
            self.bring(name.split('@').next().unwrap_or(name));
        }
    }

    /// `install` of a package manager that only root can use.
    fn of_system(&mut self, name: &str, operands: &[&str], what: fn(String) -> What) {
        let names = match operands {
            ["install" | "reinstall" | "upgrade", names @ ..] => names,
            _ => &[],
        };
        // A package can also be a file.
        let names = names.iter().filter(|name| !name.starts_with(['.', '/']));
        let mut names = names.filter_map(|name| name.split(['=', '/']).next()).peekable();
        if names.peek().is_none() {
            self.need_command(name);
        }
        for name in names {
            self.need(what(name.to_owned()));
            self.bring(name);
        }
    }

    /// `pip`, by whichever program it is called. As the job's account it falls back to the account's home where
    /// the host's folder cannot be written.
    fn pip(&mut self, program: &str, arguments: &[Word]) {
        let operands = operands(arguments, &PIP_VALUED);
        let requirements = match operands.as_slice() {
            ["install", requirements @ ..] => requirements,
            _ => &[],
        };
        if requirements.is_empty() || !self.is_root {
            self.need_command(program);
        }
        for requirement in requirements
            .iter()
            .filter(|name| !name.starts_with('.') && !name.contains('/'))
        {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let name = requirement.split(|c| !is_name(c)).next().unwrap_or_default();
            if self.is_root {
                self.need(What::Pip(name.to_owned()));
            }
            self.bring(name);
        }
    }

    fn npm(&mut self, program: &str, arguments: &[Word]) {
        let is_global = has_any(arguments, &["-g", "--global", "global"]);
        let operands = operands(arguments, &["--prefix", "--registry"]);
        let names = match operands.as_slice() {
            ["install" | "i" | "add" | "ci", names @ ..] | ["global", "add", names @ ..] if is_global => {
                names
            }
            _ => &[],
        };
        if names.is_empty() {
            self.need_command(program);
        }
        for name in names {
            // The scope of a package begins with the sign that its version does.
            let version = name.rfind('@').filter(|at| *at > 0);
            let name = &name[..version.unwrap_or(name.len())];
            self.need(What::Npm(name.to_owned()));
            self.bring(name);
        }
    }

    /// Tools that only ever install into the home of their account.
    fn of_job(&mut self, program: &str, arguments: &[Word]) {
        self.need_command(program);
        let valued: &[&str] = match program {
            "gem" => &["-v", "--version"],
            _ => &[
                "--bin",
                "--branch",
                "--features",
                "--git",
                "--path",
                "--rev",
                "--root",
                "--tag",
                "--version",
            ],
        };
        let operands = operands(arguments, valued);
        match (program, operands.as_slice()) {
            ("corepack", ["enable", ..]) => self.provide(["pnpm", "yarn"]),
            // The address that rust-lang.org tells to pipe into a shell.
            ("curl", [..]) if operands.iter().any(|url| url.contains("sh.rustup.rs")) => self.provide(RUST),
            ("cargo", ["install", names @ ..]) | ("gem", ["install", names @ ..]) => {
                let names = names.iter().filter_map(|name| name.split('@').next());
                names.for_each(|name| self.bring(name));
            }
            ("go", ["install", packages @ ..]) => {
                self.provide(packages.iter().filter_map(|package| go_program(package)));
            }
            ("cargo", [subcommand, ..]) if CARGO_PROGRAMS.contains(subcommand) => {
                self.need_command(&format!("cargo-{subcommand}"));
            }
            _ => {}
        }
    }

    /// Provides the commands of a package.
    fn bring(&mut self, package: &str) {
        self.provide(brought(package));
    }
}

/// The commands that a package brings, as far as that is known: one of its own name, and those of the table.
pub(in crate::provision) fn brought(package: &str) -> impl Iterator<Item = &str> {
    // A formula of a certain version brings what the formula does: node@22.
    let plain = package.split_once('@').map_or(package, |(name, _)| name);
    let listed = BROUGHT
        .iter()
        .filter(move |(name, _)| *name == package || *name == plain);
    let own = package.rsplit('/').next().into_iter();
    own.chain(Some(plain).filter(|plain| !plain.is_empty() && *plain != package))
        .chain(listed.flat_map(|(_, commands)| commands.split(' ')))
}

/// The name of the program that Go builds from a package: its last folder that is no major version.
fn go_program(package: &str) -> Option<&str> {
    let path = package.split('@').next()?;
    let is_version = |folder: &&str| {
        let digits = folder.strip_prefix('v');
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    path.rsplit('/').find(|folder| !is_version(folder))
}
