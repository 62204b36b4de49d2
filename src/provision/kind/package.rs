//! Packages, by the manager that installs them. What is installed is read from the manager's own records where those
//! are files, because that takes no time and no rights; where they are not, the manager is asked once for all items.

mod lists;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use super::command::{in_range, untold};
use crate::host::Os;
use crate::provision::Verdict;
use crate::provision::context::Context;
use crate::provision::question::{Answer, Answers, Question, Tool, View};
use crate::provision::step::{Fix, Step};
use crate::provision::version::Range;
use lists::{installed, update};

/// How long installing one package may take: formulae that have no bottle are built.
const INSTALL_MS: u64 = 60 * 60 * 1000;

/// Who installs a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// Homebrew's formulae.
    Brew,
    /// Homebrew's casks.
    Cask,
    /// Homebrew's taps.
    Tap,
    /// Debian and what descends from it.
    Apt,
    /// Fedora and what descends from it.
    Dnf,
    /// Python packages of the host's `python3`.
    Pip,
    /// Global packages of the host's `npm`.
    Npm,
    /// Programs of crates in /usr/local.
    Cargo,
}

/// What Homebrew is told each time: it asks nobody, sends nothing, and does what it is asked and no more (its manual,
/// "Environment"; 6.x asks unless it is told not to).
const BREW: [(&str, &str); 4] = [
    ("HOMEBREW_NO_ASK", "1"),
    ("HOMEBREW_NO_ANALYTICS", "1"),
    ("HOMEBREW_NO_ENV_HINTS", "1"),
    ("HOMEBREW_NO_INSTALL_CLEANUP", "1"),
];

/// What apt-get(8) is told each time: it asks nobody, keeps files of configuration that somebody has changed, and waits
/// for another that is at work, which may be one that a kill of ours has left.
const APT: [&str; 4] = [
    "--yes",
    "--quiet",
    "--option=Dpkg::Options::=--force-confold",
    "--option=DPkg::Lock::Timeout=600",
];

/// Where `cargo install` puts programs for everybody.
const CARGO_ROOT: &str = "/usr/local";

impl Manager {
    /// The manager of a section.
    pub(super) fn of_section(section: &str) -> Option<Self> {
        [
            Self::Brew,
            Self::Cask,
            Self::Tap,
            Self::Apt,
            Self::Dnf,
            Self::Pip,
            Self::Npm,
            Self::Cargo,
        ]
        .into_iter()
        .find(|manager| manager.section() == section)
    }

    /// Its section in a manifest.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Brew => "brew",
            Self::Cask => "cask",
            Self::Tap => "tap",
            Self::Apt => "apt",
            Self::Dnf => "dnf",
            Self::Pip => "pip",
            Self::Npm => "npm",
            Self::Cargo => "cargo",
        }
    }
}

impl Manager {
    /// Files and folders that change when it installs or removes something, as far as they are not asked for by name.
    pub(in crate::provision) fn databases(self, context: &Context) -> Vec<Utf8PathBuf> {
        let those = |paths: &[&str]| paths.iter().map(Utf8PathBuf::from).collect();
        match self {
            Self::Apt => those(&["/var/lib/dpkg/status"]),
            Self::Dnf => those(&["/var/lib/rpm"]),
            Self::Cargo => vec![Utf8Path::new(CARGO_ROOT).join(".crates.toml")],
            Self::Npm => {
                let mut folders: Vec<Utf8PathBuf> =
                    those(&["/usr/lib/node_modules", "/usr/local/lib/node_modules"]);
                folders.push(context.brewed("lib/node_modules"));
                folders
            }
            // Debian's, and those of every version that has them; of others the age of the check tells.
            Self::Pip => {
                let local =
                    (6..30).map(|minor| format!("/usr/local/lib/python3.{minor}/dist-packages").into());
                std::iter::once("/usr/lib/python3/dist-packages".into())
                    .chain(local)
                    .collect()
            }
            Self::Brew | Self::Cask | Self::Tap => vec![],
        }
    }
}

/// `[brew.NAME]` and the sections of the other managers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// The versions that will do.
    pub version: Option<Range>,
    /// Whether it must not be outdated, as far as the manager knows.
    #[serde(default)]
    pub current: bool,
    /// Paths below `opt/NAME` that jobs must see, of formulae that are keg-only.
    #[serde(default)]
    pub keg: Vec<Utf8PathBuf>,
}

/// The name without the tap it comes from.
fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

impl Package {
    pub(super) fn complaint(&self, manager: Manager, name: &str) -> Option<String> {
        // A name that begins like an option would be one.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"@/._+-:".contains(&b);
        if !name.bytes().all(allowed) || !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '@') {
            return Some(format!(
                "`{name}` is no name of a package\nhint: the version goes into `version`"
            ));
        }
        let section = manager.section();
        if manager != Manager::Brew && !self.keg.is_empty() {
            return Some(format!(
                "`keg` means nothing in [{section}.…]\nhint: formulae have kegs: [brew.{name}]"
            ));
        }
        if let Some(path) = self.keg.iter().find(|path| {
            path.is_absolute()
                || path
                    .components()
                    .any(|part| part == camino::Utf8Component::ParentDir)
        }) {
            return Some(format!(
                "`{path}` does not lie in the keg\nhint: write it below opt/{name}, for example bin/clang"
            ));
        }
        match manager {
            Manager::Tap if self.version.is_some() || self.current => {
                Some("a tap has no version\nhint: give it to the formula".to_owned())
            }
            Manager::Tap if name.split('/').filter(|part| !part.is_empty()).count() != 2 => Some(format!(
                "`{name}` is no tap\nhint: taps are called user/repository"
            )),
            Manager::Pip | Manager::Npm | Manager::Cargo if self.current => Some(format!(
                "`current` means nothing in [{section}.…]\nhint: give a `version`"
            )),
            _ => None,
        }
    }

    /// Where what is installed is written down.
    fn record(manager: Manager, name: &str, context: &Context) -> (View, Question) {
        let tools = &context.host.tools;
        match manager {
            // Homebrew links aliases there too, so that `python` is found whatever its formula is called.
            Manager::Brew => (
                View::Host,
                Question::Resolve(context.brewed(&format!("opt/{}", short(name)))),
            ),
            Manager::Cask => (
                View::Host,
                Question::List(context.brewed(&format!("Caskroom/{}", short(name)))),
            ),
            Manager::Tap => {
                let (user, repository) = name.split_once('/').unwrap_or((name, ""));
                let folder = format!("Library/Taps/{user}/homebrew-{repository}").to_ascii_lowercase();
                (View::Host, Question::Resolve(context.brewed(&folder)))
            }
            Manager::Apt => (
                View::Host,
                Question::Run(Tool::at(
                    &tools.dpkg_query,
                    &["-W", "-f=${Package}\\t${Version}\\t${db:Status-Abbrev}\\n"],
                )),
            ),
            Manager::Dnf => (
                View::Host,
                Question::Run(Tool::at(
                    &tools.rpm,
                    &["-qa", "--qf", "%{NAME}\\t%{VERSION}-%{RELEASE}\\n"],
                )),
            ),
            // What a job's own interpreter sees is what counts.
            Manager::Pip => (
                View::Job,
                Question::Run(Tool::at(
                    "python3".into(),
                    &[
                        "-m",
                        "pip",
                        "list",
                        "--format=json",
                        "--disable-pip-version-check",
                    ],
                )),
            ),
            Manager::Npm => (
                View::Job,
                Question::Run(Tool::at("npm".into(), &["ls", "--global", "--depth=0", "--json"])),
            ),
            Manager::Cargo => (
                View::Job,
                Question::Run(Tool::at(
                    "cargo".into(),
                    &["install", "--list", "--root", CARGO_ROOT],
                )),
            ),
        }
    }

    /// What tells which packages could be updated.
    fn updates(manager: Manager, context: &Context) -> Option<Question> {
        let tools = &context.host.tools;
        let tool = match manager {
            Manager::Brew | Manager::Cask => Tool {
                as_owner: true,
                timeout_ms: 120_000,
                ..Tool::at(&context.brewed("bin/brew"), &["outdated", "--json=v2"]).with_env(&BREW)
            },
            // Nothing is changed: it says what it would do.
            Manager::Apt => Tool::at(&tools.apt_get, &["--simulate", "--quiet", "upgrade"]),
            Manager::Dnf => Tool {
                timeout_ms: 120_000,
                ..Tool::at(&tools.dnf, &["--quiet", "check-update"])
            },
            Manager::Tap | Manager::Pip | Manager::Npm | Manager::Cargo => return None,
        };
        Some(Question::Run(tool))
    }

    fn kegs(&self, name: &str, context: &Context) -> Vec<Utf8PathBuf> {
        let keg = |path: &Utf8PathBuf| context.brewed(&format!("opt/{}", short(name))).join(path);
        self.keg.iter().map(keg).collect()
    }

    pub(super) fn questions(&self, manager: Manager, name: &str, context: &Context) -> Vec<(View, Question)> {
        let mut questions = vec![Self::record(manager, name, context)];
        if self.current {
            questions.extend(Self::updates(manager, context).map(|question| (View::Host, question)));
        }
        for path in self.kegs(name, context) {
            questions.push((View::Host, Question::Resolve(path.clone())));
            questions.push((View::Job, Question::Resolve(path)));
        }
        questions
    }

    pub(super) fn judge(
        &self,
        manager: Manager,
        name: &str,
        context: &Context,
        answers: &Answers,
    ) -> Verdict {
        let (view, question) = Self::record(manager, name, context);
        let found = match installed(manager, name, &answers.get(view, &question)) {
            Ok(Some(found)) => found,
            Ok(None) => return Verdict::Missing,
            Err(verdict) => return verdict,
        };
        let verdict = match &self.version {
            Some(wanted) => in_range(wanted, &found, ""),
            None => Verdict::ok(&found),
        };
        if !verdict.is_met() {
            return verdict;
        }
        let verdict = match Self::updates(manager, context).filter(|_| self.current) {
            Some(question) => match update(manager, name, &answers.get(View::Host, &question)) {
                Ok(None) => verdict,
                Ok(Some(newer)) => Verdict::outdated(found, newer),
                Err(verdict) => verdict,
            },
            None => verdict,
        };
        let keg = |path: Utf8PathBuf| {
            let question = Question::Resolve(path.clone());
            match (
                answers.get(View::Job, &question),
                answers.get(View::Host, &question),
            ) {
                (Answer::At(_), _) => Verdict::ok(""),
                (Answer::Missing | Answer::Denied, Answer::At(_)) => Verdict::Hidden {
                    why: format!("`{path}` is not to be seen in a job's sandbox"),
                },
                (_, Answer::Missing) => Verdict::wrong(format!("no `{path}`"), "it in the keg"),
                (other, _) => untold(&other),
            }
        };
        self.kegs(name, context)
            .into_iter()
            .map(keg)
            .fold(verdict, |all, one| match one {
                Verdict::Ok { .. } => all,
                worse => all.and(worse),
            })
    }

    pub(super) fn fix(&self, manager: Manager, name: &str, context: &Context, verdict: &Verdict) -> Fix {
        let is_missing = *verdict == Verdict::Missing;
        if !is_missing && !matches!(verdict, Verdict::Outdated { .. }) {
            return Fix::ByHand(match verdict {
                Verdict::Unknown { .. } => "see what keeps it from being asked".to_owned(),
                _ => format!("install the wanted version of {name}"),
            });
        }
        let tools = &context.host.tools;
        let tool = |program: &Utf8Path, args: &[&str]| Tool {
            timeout_ms: INSTALL_MS,
            ..Tool::at(program, args)
        };
        let brew = |args: &[&str]| Tool {
            as_owner: true,
            ..tool(&context.brewed("bin/brew"), args).with_env(&BREW)
        };
        if matches!(manager, Manager::Brew | Manager::Cask | Manager::Tap) && context.brew.is_none() {
            return Fix::ByHand("install Homebrew first: https://brew.sh".to_owned());
        }
        let exact = self.version.as_ref().and_then(Range::exact);
        Fix::Steps(match (manager, is_missing) {
            (Manager::Brew, true) => vec![Step::undone_by(
                brew(&["install", "--formula", name]),
                brew(&["uninstall", "--formula", short(name)]),
            )],
            (Manager::Brew, false) => vec![Step::run(brew(&["upgrade", "--formula", name]))],
            (Manager::Cask, true) => vec![Step::undone_by(
                brew(&["install", "--cask", name]),
                brew(&["uninstall", "--cask", short(name)]),
            )],
            (Manager::Cask, false) => vec![Step::run(brew(&["upgrade", "--cask", name]))],
            (Manager::Tap, _) => vec![Step::undone_by(brew(&["tap", name]), brew(&["untap", name]))],
            (Manager::Apt, _) => {
                let apt = |args: &[&str]| {
                    let all = [&APT[..], args].concat();
                    tool(&tools.apt_get, &all).with_env(&[("DEBIAN_FRONTEND", "noninteractive")])
                };
                let install = apt(&["install", "--no-install-recommends", name]);
                let remove = apt(&["remove", name]);
                vec![
                    // What a kill left half done; does nothing otherwise.
                    Step::run(tool(&tools.dpkg, &["--configure", "--pending"])),
                    Step::run(apt(&["update"])),
                    if is_missing {
                        Step::undone_by(install, remove)
                    } else {
                        Step::run(install)
                    },
                ]
            }
            (Manager::Dnf, true) => vec![Step::undone_by(
                tool(&tools.dnf, &["install", "--assumeyes", "--quiet", name]),
                tool(&tools.dnf, &["remove", "--assumeyes", "--quiet", name]),
            )],
            (Manager::Dnf, false) => vec![Step::run(tool(
                &tools.dnf,
                &["upgrade", "--assumeyes", "--quiet", name],
            ))],
            (Manager::Pip, _) => return pip(self, name, context, is_missing),
            (Manager::Npm, _) => {
                let wanted = self
                    .version
                    .as_ref()
                    .map_or(name.to_owned(), |range| format!("{name}@{}", npm_range(range)));
                let tool = |args: &[&str]| found_by(context, tool("npm".into(), args));
                let install = tool(&["install", "--global", &wanted]);
                if is_missing {
                    vec![Step::undone_by(install, tool(&["uninstall", "--global", name]))]
                } else {
                    vec![Step::run(install)]
                }
            }
            (Manager::Cargo, _) => {
                let mut args = vec!["install", "--locked", "--force", "--root", CARGO_ROOT, name];
                if let Some(exact) = exact {
                    args.extend(["--version", exact]);
                }
                let install = found_by(context, tool("cargo".into(), &args));
                if is_missing {
                    let remove = tool("cargo".into(), &["uninstall", "--root", CARGO_ROOT, name]);
                    vec![Step::undone_by(install, found_by(context, remove))]
                } else {
                    vec![Step::run(install)]
                }
            }
        })
    }
}

/// A tool that is looked up where jobs find it.
fn found_by(context: &Context, tool: Tool) -> Tool {
    Tool {
        path: context.job_path.clone(),
        ..tool
    }
}

/// npm(1) puts spaces where we have commas.
fn npm_range(range: &Range) -> String {
    range.to_string().replace(',', "")
}

fn pip(package: &Package, name: &str, context: &Context, is_missing: bool) -> Fix {
    // On macOS the interpreter is Homebrew's or Apple's, and neither takes packages from root.
    if context.os() == Os::MacOs {
        return Fix::ByHand(format!(
            "python3 -m pip install --break-system-packages {name}, as the owner of that python3"
        ));
    }
    let range = package
        .version
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let exact = range.strip_prefix('=').filter(|rest| !rest.starts_with('='));
    let wanted = match exact {
        Some(exact) => format!("{name}=={}", exact.trim()),
        None => format!("{name}{}", range.replace(' ', "")),
    };
    let python = |args: &[&str]| {
        let tool = Tool {
            timeout_ms: INSTALL_MS,
            ..Tool::at("python3".into(), args)
        };
        found_by(context, tool)
    };
    // Debian marks its interpreter as its own (PEP 668); whoever writes this into a manifest has decided otherwise.
    let install = python(&[
        "-m",
        "pip",
        "install",
        "--break-system-packages",
        "--root-user-action=ignore",
        &wanted,
    ]);
    Fix::Steps(vec![if is_missing {
        Step::undone_by(
            install,
            python(&[
                "-m",
                "pip",
                "uninstall",
                "--yes",
                "--break-system-packages",
                "--root-user-action=ignore",
                name,
            ]),
        )
    } else {
        Step::run(install)
    }])
}
