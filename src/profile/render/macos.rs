//! The macOS half of rendering: a sandbox profile in SBPL.
//!
//! The kernel compares paths that are resolved, so every path is brought into that spelling at the door, by text
//! alone: what cannot be is refused. A folder that holds the job's things and those of others is a `Guard`:
//! closed but for the job's own part, with a way there that can be looked at and not listed.

use std::collections::BTreeSet;
use std::io::Write;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use tera::{Context, Tera};

use super::{RenderError, RenderInput, Rendered, parsed};
use crate::profile::decide::macos::decide;
use crate::profile::decide::{Operation, Verdict};
use crate::profile::policy::{Network, fault_of};
use crate::profile::sbpl::{self, Release, Ruleset, Semantics, Settings};
use crate::profile::{Posture, Rules};

/// The templates, by the name they include each other with.
const TEMPLATES: [(&str, &str); 14] = [
    ("strict.sb", include_str!("../../../profiles/macos/strict.sb")),
    ("standard.sb", include_str!("../../../profiles/macos/standard.sb")),
    (
        "10-process.sb",
        include_str!("../../../profiles/macos/10-process.sb"),
    ),
    (
        "20-system.sb",
        include_str!("../../../profiles/macos/20-system.sb"),
    ),
    (
        "25-sysctl.sb",
        include_str!("../../../profiles/macos/25-sysctl.sb"),
    ),
    (
        "30-services.sb",
        include_str!("../../../profiles/macos/30-services.sb"),
    ),
    (
        "35-private.sb",
        include_str!("../../../profiles/macos/35-private.sb"),
    ),
    ("40-tools.sb", include_str!("../../../profiles/macos/40-tools.sb")),
    (
        "50-devices.sb",
        include_str!("../../../profiles/macos/50-devices.sb"),
    ),
    (
        "60-network.sb",
        include_str!("../../../profiles/macos/60-network.sb"),
    ),
    (
        "70-grants.sb",
        include_str!("../../../profiles/macos/70-grants.sb"),
    ),
    (
        "80-workspace.sb",
        include_str!("../../../profiles/macos/80-workspace.sb"),
    ),
    ("85-host.sb", include_str!("../../../profiles/macos/85-host.sb")),
    (
        "90-daemon.sb",
        include_str!("../../../profiles/macos/90-daemon.sb"),
    ),
];

/// Links at the root of a macOS system that lead into /private.
const LINKS: [&str; 3] = ["/etc", "/tmp", "/var"];

/// The data volume's own name for what the root shows of it.
const DATA_VOLUME: &str = "/System/Volumes/Data";

/// What only macOS has of a job and its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Whose vocabulary the profile is for.
    pub release: Release,
    /// `ephemerd` itself, the first program inside: it proves that the sandbox holds and becomes the command.
    pub program: Utf8PathBuf,
    /// Where macOS keeps a folder for temporary files and one for caches per account: `/private/var/folders`
    /// (confstr(3)).
    pub user_folders: Utf8PathBuf,
    /// The slot's account's folder in there, the one above `T` and `C`.
    pub user_folder: Utf8PathBuf,
    /// What `xcode-select -p` says.
    pub developer_dir: Utf8PathBuf,
    /// The folder of the Homebrew prefixes that jobs have of their own, closed whether this job has one or not.
    pub prefixes: Utf8PathBuf,
    /// The folder of the runners of GitHub that jobs have of their own, closed whether this job is one or not.
    pub runner_places: Utf8PathBuf,
    /// Ports of the machine itself that the job must not reach.
    pub protected_ports: Vec<u16>,
}

/// What the templates are rendered with.
#[derive(Serialize)]
struct Values {
    tag: String,
    release: String,
    program: Utf8PathBuf,
    user_folder: Utf8PathBuf,
    developer_root: Utf8PathBuf,
    homebrew: Option<Utf8PathBuf>,
    /// Folders the job may do anything in.
    own: Vec<Utf8PathBuf>,
    grants: Vec<Grant>,
    guards: Vec<Guard>,
    /// What lies on the way to a place the job may use.
    ancestors: BTreeSet<Utf8PathBuf>,
    /// What lies above GitHub's runner, of a job that is one, the root itself left out: it lists all of them.
    listed: BTreeSet<Utf8PathBuf>,
    /// The socket by which the runner's hook reports.
    door: Option<Utf8PathBuf>,
    /// What must not be renamed.
    pins: BTreeSet<Utf8PathBuf>,
    network: Network,
    protected_ports: Vec<u16>,
}

#[derive(Serialize)]
struct Grant {
    path: Utf8PathBuf,
    write: bool,
    /// Whether it only grants reading, inside of a grant to write.
    narrows: bool,
}

#[derive(Serialize)]
struct Guard {
    folder: Utf8PathBuf,
    /// What the job may use in there.
    own: Vec<Utf8PathBuf>,
    /// The folder and what lies between it and what the job may use.
    way: BTreeSet<Utf8PathBuf>,
}

/// The templates, parsed.
pub(super) fn templates() -> Result<Tera, RenderError> {
    parsed(".sb", sbpl_string, &TEMPLATES)
}

/// Renders `posture`, compiles the text and checks that every grant has an effect.
pub(super) fn render(
    tera: &Tera,
    posture: Posture,
    input: &RenderInput,
    places: &Places,
) -> Result<Rendered, RenderError> {
    let values = Values::new(input, places)?;
    let template = |source| RenderError::template(posture, source);
    let context = Context::from_serialize(&values).map_err(template)?;
    let text = tera
        .render(&format!("{posture}.sb"), &context)
        .map_err(template)?;
    let settings = Settings::new(places.release);
    let ruleset = sbpl::compile(&format!("{posture}.sb"), text.as_bytes(), &settings)
        .map_err(|source| RenderError::Sandbox { posture, source })?;
    values.grants.iter().try_for_each(|grant| grant.check(&ruleset))?;
    Ok(Rendered {
        text,
        rules: Rules::MacOs(Box::new(ruleset)),
    })
}

/// The profile that the dispatcher of a daemon runs in: it writes below `folders`, is `program`, and cannot read `proof`.
///
/// # Errors
/// A path is none that a rule could speak of.
pub fn dispatcher(
    folders: &[Utf8PathBuf],
    program: &Utf8Path,
    proof: &Utf8Path,
) -> Result<String, RenderError> {
    #[derive(Serialize)]
    struct Values {
        folders: Vec<Utf8PathBuf>,
        program: Utf8PathBuf,
        proof: Utf8PathBuf,
    }
    let values = Values {
        folders: folders
            .iter()
            .map(|folder| admitted(folder))
            .collect::<Result<_, _>>()?,
        program: admitted(program)?,
        proof: admitted(proof)?,
    };
    let failed = |source| RenderError::Dispatcher(Box::new(source));
    let context = Context::from_serialize(&values).map_err(failed)?;
    let tera = parsed(".sb", sbpl_string, &[("dispatcher.sb", DISPATCHER)])?;
    tera.render("dispatcher.sb", &context).map_err(failed)
}

/// Its template.
const DISPATCHER: &str = include_str!("../../../profiles/macos/dispatcher.sb");

impl Values {
    fn new(input: &RenderInput, places: &Places) -> Result<Self, RenderError> {
        let workspace = admitted(&input.workspace)?;
        let data_dir = admitted(&input.data_dir)?;
        let user_folders = admitted(&places.user_folders)?;
        let user_folder = admitted(&places.user_folder)?;
        if !user_folder.starts_with(&user_folders) || user_folder == user_folders {
            return Err(RenderError::Path {
                path: user_folder,
                what: "is no account's folder for temporary files",
                hint: "it is the one above what `getconf DARWIN_USER_TEMP_DIR` says, in /private/var/folders",
            });
        }
        let shown = input.homebrew.as_ref();
        let host = shown.and_then(|shown| shown.host.as_deref());
        let homebrew = host.map(admitted).transpose()?;
        let own_homebrew = shown.and_then(|shown| shown.own.as_ref());
        let own_homebrew = own_homebrew.map(|place| admitted(&place.shown)).transpose()?;
        let prefixes = closed(admitted(&places.prefixes)?, homebrew.as_deref())?;
        let runner_places = closed(admitted(&places.runner_places)?, homebrew.as_deref())?;
        let runner = input.runner.as_ref();
        let runner_root = runner.map(|runner| admitted(&runner.root)).transpose()?;
        let door = runner.and_then(|runner| runner.door.as_deref());
        let door = door.map(admitted).transpose()?;
        let developer_root = developer_root(&admitted(&places.developer_dir)?);
        let program = admitted(&places.program)?;
        let grants = grants(input)?;

        let mut own = vec![workspace.clone(), user_folder.join("T")];
        let mut folders = vec![data_dir, user_folders, prefixes, runner_places];
        own.extend(own_homebrew.filter(|prefix| !prefix.starts_with(&workspace)));
        own.extend(runner_root.clone());
        for file in &input.daemon_files {
            folders.push(admitted(file)?);
        }
        // The one part of the folder for caches that Security.framework writes, and nothing else of it.
        let usable: Vec<Utf8PathBuf> = own.iter().cloned().chain([user_folder.join("C/mds")]).collect();
        let guards: Vec<Guard> = folders
            .into_iter()
            .map(|folder| Guard::new(folder, &usable))
            .collect();

        let used = usable.iter().chain([&program, &developer_root]).chain(&homebrew);
        let ancestors = used
            .chain(grants.iter().map(|grant| &grant.path))
            .flat_map(|path| above(path))
            .collect();
        let mut pins: BTreeSet<Utf8PathBuf> = guards
            .iter()
            .flat_map(|guard| {
                above(&guard.folder)
                    .chain([guard.folder.clone()])
                    .chain(guard.way.clone())
            })
            .collect();
        pins.insert(workspace);
        pins.extend(runner_root.clone());
        Ok(Self {
            tag: format!("ephemerd:{}", input.job),
            release: places.release.to_string(),
            program,
            user_folder,
            developer_root,
            homebrew,
            own,
            grants,
            guards,
            ancestors,
            listed: runner_root.iter().flat_map(|root| above(root)).collect(),
            door,
            pins,
            network: input.network,
            protected_ports: places.protected_ports.clone(),
        })
    }
}

/// The grants in the order of their paths, so that one inside of another stands behind it.
fn grants(input: &RenderInput) -> Result<Vec<Grant>, RenderError> {
    let (read, write) = input.grants();
    let both = read
        .iter()
        .map(|path| (path, false))
        .chain(write.iter().map(|path| (path, true)));
    let mut grants = both
        .map(|(path, write)| {
            let path = admitted(path)?;
            if path == "/" {
                return Err(RenderError::Path {
                    path,
                    what: "is the whole file system",
                    hint: "grant a folder",
                });
            }
            Ok(Grant {
                path,
                write,
                narrows: false,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    // Two spellings may have become one path; the wider grant comes first and stays.
    grants.sort_by(|a, b| a.path.cmp(&b.path).then(b.write.cmp(&a.write)));
    grants.dedup_by(|a, b| a.path == b.path);
    let writable: Vec<Utf8PathBuf> = grants
        .iter()
        .filter(|g| g.write)
        .map(|g| g.path.clone())
        .collect();
    for grant in &mut grants {
        grant.narrows = !grant.write && writable.iter().any(|path| grant.path.starts_with(path));
    }
    Ok(grants)
}

impl Grant {
    /// A grant that something else denies is a mistake, and better told than found out inside the job.
    fn check(&self, ruleset: &Ruleset) -> Result<(), RenderError> {
        let name = if self.write {
            "file-write-data"
        } else {
            "file-read-data"
        };
        let semantics = Semantics::of(ruleset.vocabulary.release());
        let asked = (&Operation::Sbpl(name.to_owned()), self.path.as_str());
        let rule = match decide(ruleset, asked, Verdict::Allow, &semantics) {
            Ok(ruling) if ruling.verdict == Verdict::Allow => return Ok(()),
            Ok(ruling) => ruling.rule,
            Err(error) => error.to_string(),
        };
        Err(RenderError::Grant {
            path: self.path.clone(),
            rule,
        })
    }
}

impl Guard {
    fn new(folder: Utf8PathBuf, usable: &[Utf8PathBuf]) -> Self {
        let own: Vec<Utf8PathBuf> = usable
            .iter()
            .filter(|path| path.starts_with(&folder))
            .cloned()
            .collect();
        let way = own
            .iter()
            .flat_map(|path| above(path))
            .filter(|path| path.starts_with(&folder))
            .collect();
        Self { folder, own, way }
    }
}

/// The folders above `path` but for the root, the deepest first.
fn above(path: &Utf8Path) -> impl Iterator<Item = Utf8PathBuf> {
    let folders = path.ancestors().skip(1).take_while(|folder| *folder != "/");
    folders.map(Utf8Path::to_owned)
}

/// A folder of what jobs have of their own, if closing it closes nothing else.
fn closed(prefixes: Utf8PathBuf, host: Option<&Utf8Path>) -> Result<Utf8PathBuf, RenderError> {
    if above(&prefixes).next().is_none() || host.is_some_and(|host| host.starts_with(&prefixes)) {
        return Err(RenderError::Path {
            path: prefixes,
            what: "is no folder for the places of jobs alone",
            hint: "use a folder of its own, such as /opt/eph",
        });
    }
    Ok(prefixes)
}

/// The application that holds the developer folder, or the folder itself: Xcode's own frameworks lie beside it.
fn developer_root(developer_dir: &Utf8Path) -> Utf8PathBuf {
    let application = developer_dir
        .ancestors()
        .find(|path| path.extension() == Some("app"));
    application.unwrap_or(developer_dir).to_owned()
}

/// `path` in the spelling that the kernel compares, which is without the system's links.
pub fn resolved_spelling(path: &Utf8Path) -> Utf8PathBuf {
    let shown = match path.strip_prefix(DATA_VOLUME) {
        Ok(rest) => Utf8Path::new("/").join(rest),
        Err(_) => path.to_owned(),
    };
    match LINKS.iter().any(|link| shown.starts_with(link)) {
        true => Utf8PathBuf::from(format!("/private{shown}")),
        false => shown,
    }
}

/// `path` as rules speak of it.
///
/// Only ASCII: the kernel compares names as the volume has them, in one of several spellings of the same
/// letters, and a deny in another one would deny nothing.
fn admitted(path: &Utf8Path) -> Result<Utf8PathBuf, RenderError> {
    let what = if path.as_str().is_ascii() {
        fault_of(path)
    } else {
        Some("is not ASCII")
    };
    match what {
        None => Ok(resolved_spelling(path)),
        Some(what) => Err(RenderError::Path {
            path: path.to_owned(),
            what,
            hint: "write an absolute path in ASCII, without `.`, `..`, `//`, control characters or a slash at its end",
        }),
    }
}

/// Escapes a value for the inside of a string of SBPL: the backslash first, then the quote, each character once.
/// Nothing else has a meaning there; control characters do not get this far and are refused once more.
fn sbpl_string(value: &str, out: &mut dyn Write) -> std::io::Result<()> {
    for c in value.chars() {
        match c {
            '\\' => out.write_all(b"\\\\")?,
            '"' => out.write_all(b"\\\"")?,
            c if c.is_control() || !c.is_ascii() => {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    format!("`{}` does not belong in a profile", c.escape_debug()),
                ));
            }
            c => write!(out, "{c}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(value: &str) -> std::io::Result<String> {
        let mut out = Vec::new();
        sbpl_string(value, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_backslash_before_a_quote_does_not_end_the_string() {
        assert_eq!(escaped("/a\\\"b").unwrap(), "/a\\\\\\\"b");
    }

    #[test]
    fn what_is_refused_at_the_door_is_refused_by_the_escape_too() {
        for value in ["/a\nb", "/a\0", "/\u{e9}"] {
            assert!(escaped(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn a_value_that_is_missing_is_an_error_and_not_an_empty_path() {
        let tera = parsed(".sb", sbpl_string, &[("t.sb", "(subpath \"{{ nothing }}\")")]).unwrap();
        let error = tera.render("t.sb", &Context::new()).unwrap_err();
        assert!(error.to_string().contains("nothing"), "{error}");
    }

    #[test]
    fn the_dispatcher_writes_its_own_starts_and_signals_nobody_and_reads_all_but_the_proof() {
        let folders = ["state", "logs"].map(|part| Utf8PathBuf::from(format!("/var/lib/e/{part}")));
        let (program, proof) = ("/usr/local/bin/ephemerd", "/var/run/ephemerd/proof");
        let text = dispatcher(&folders, program.into(), proof.into()).unwrap();
        for release in [Release::MacOs14, Release::NEWEST] {
            let ruleset = sbpl::compile("dispatcher.sb", text.as_bytes(), &Settings::new(release)).unwrap();
            let ask = |operation: &str, target: &str| {
                let operation = ruleset.vocabulary.asked(operation).unwrap();
                let target = sbpl::Target::parse(ruleset.vocabulary, operation, target).unwrap();
                ruleset.verdict(operation, &target, &Semantics::of(release)).0
            };
            for (operation, target) in [
                ("file-write-data", "/private/var/lib/e/state/ledger.db"),
                ("file-write-create", "/private/var/lib/e/logs/job.log"),
                ("file-read-data", "/private/etc/hosts"),
                ("process-exec", program),
                ("network-outbound", "tcp:140.82.112.3:443"),
                ("signal", "self"),
            ] {
                assert_eq!(ask(operation, target), Verdict::Allow, "{operation} {target}");
            }
            for (operation, target) in [
                ("file-write-data", "/private/var/lib/e/host/enabled.json"),
                ("file-write-create", "/private/tmp/x"),
                ("file-write-unlink", "/private/var/lib/e/stately"),
                ("file-read-data", "/private/var/run/ephemerd/proof"),
                ("process-exec", "/bin/sh"),
                ("signal", "others"),
            ] {
                assert_eq!(ask(operation, target), Verdict::Deny, "{operation} {target}");
            }
        }
    }

    #[test]
    fn xcode_is_its_application_and_the_command_line_tools_are_their_folder() {
        let root = |path: &str| developer_root(path.into());
        assert_eq!(
            root("/Applications/Xcode_16.app/Contents/Developer"),
            "/Applications/Xcode_16.app"
        );
        let tools = "/Library/Developer/CommandLineTools";
        assert_eq!(root(tools), tools);
    }
}
