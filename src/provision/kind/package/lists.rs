//! What package managers say of what is installed and of what could be updated: the parsers of their lists.

use serde::Deserialize;

use super::{Manager, short};
use crate::provision::Verdict;
use crate::provision::kind::command::untold;
use crate::provision::question::{Answer, Ran};

/// The version that is installed; `None` when none is.
pub(super) fn installed(manager: Manager, name: &str, answer: &Answer) -> Result<Option<String>, Verdict> {
    match (manager, answer) {
        (Manager::Brew, Answer::At(keg)) => {
            // The keg's folder is called by its version: Cellar/cmake/3.31.6.
            Ok(Some(keg.file_name().unwrap_or_default().to_owned()))
        }
        (Manager::Tap, Answer::At(_)) => Ok(Some("tapped".to_owned())),
        (Manager::Cask, Answer::Names(versions)) => {
            Ok(versions.iter().rfind(|name| !name.starts_with('.')).cloned())
        }
        (Manager::Brew | Manager::Tap | Manager::Cask, Answer::Missing) => Ok(None),
        (Manager::Apt | Manager::Dnf, Answer::Ran(ran)) => database(manager, name, ran),
        (Manager::Pip, Answer::Ran(ran)) => pip_list(name, ran),
        (Manager::Npm, Answer::Ran(ran)) => npm_list(name, ran),
        (Manager::Cargo, Answer::Ran(ran)) => cargo_list(name, ran),
        // Without the manager there are none of its packages.
        (Manager::Pip | Manager::Npm | Manager::Cargo, Answer::Missing) => Ok(None),
        (_, other) => Err(untold(other)),
    }
}

/// The version in lines of name and version, with a status that dpkg-query(1) adds.
fn database(manager: Manager, name: &str, ran: &Ran) -> Result<Option<String>, Verdict> {
    // dpkg-query ends with 1 when there is no package at all.
    if ran.code != Some(0) || ran.stdout.is_empty() {
        return Err(Verdict::unknown(ran.ending()));
    }
    let mut lines = ran
        .stdout
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    if lines.clone().any(|fields| fields.len() < 2) {
        return Err(Verdict::unknown("the list of packages makes no sense"));
    }
    let is_installed = |fields: &Vec<&str>| {
        // "ii", or "hi" for one on hold: the second letter is how it is.
        fields[0] == name
            && (manager == Manager::Dnf
                || fields
                    .get(2)
                    .is_some_and(|status| status.chars().nth(1) == Some('i')))
    };
    Ok(lines.find(is_installed).map(|fields| fields[1].to_owned()))
}

#[derive(Deserialize)]
struct Pip {
    name: String,
    version: String,
}

fn pip_list(name: &str, ran: &Ran) -> Result<Option<String>, Verdict> {
    if ran.code == Some(1) && ran.stderr.contains("No module named pip") {
        return Ok(None);
    }
    let list: Vec<Pip> = serde_json::from_str(&ran.stdout).map_err(|_| Verdict::unknown(ran.ending()))?;
    // PEP 503: case and the kind of dash do not count.
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '.'], "-");
    Ok(list
        .into_iter()
        .find(|it| plain(&it.name) == plain(name))
        .map(|it| it.version))
}

fn npm_list(name: &str, ran: &Ran) -> Result<Option<String>, Verdict> {
    // Ends with 1 for peer dependencies that are missing, and tells the list all the same.
    let list: serde_json::Value =
        serde_json::from_str(&ran.stdout).map_err(|_| Verdict::unknown(ran.ending()))?;
    if !list["error"].is_null() {
        return Err(Verdict::unknown(ran.ending()));
    }
    Ok(list["dependencies"][name]["version"].as_str().map(str::to_owned))
}

/// Lines `name v1.2.3:`, each followed by its programs.
fn cargo_list(name: &str, ran: &Ran) -> Result<Option<String>, Verdict> {
    if ran.code != Some(0) {
        return Err(Verdict::unknown(ran.ending()));
    }
    let version = ran.stdout.lines().find_map(|line| {
        let (found, rest) = line.split_once(' ')?;
        let version = rest.trim_end_matches(':').split_whitespace().next()?;
        (found == name).then(|| version.trim_start_matches('v').to_owned())
    });
    Ok(version)
}

#[derive(Deserialize)]
struct Outdated {
    formulae: Vec<OutdatedBrew>,
    casks: Vec<OutdatedBrew>,
}

#[derive(Deserialize)]
struct OutdatedBrew {
    name: String,
    current_version: String,
}

/// The version that `name` could be updated to; `None` when it is current.
pub(super) fn update(manager: Manager, name: &str, answer: &Answer) -> Result<Option<String>, Verdict> {
    let Answer::Ran(ran) = answer else {
        return Err(untold(answer));
    };
    let unclear = || Verdict::unknown(ran.ending());
    match manager {
        Manager::Brew | Manager::Cask => {
            let list: Outdated = serde_json::from_str(&ran.stdout).map_err(|_| unclear())?;
            let all = if manager == Manager::Brew {
                list.formulae
            } else {
                list.casks
            };
            let found = all.into_iter().find(|it| short(&it.name) == short(name));
            Ok(found.map(|it| it.current_version))
        }
        Manager::Apt if ran.code == Some(0) => Ok(ran.stdout.lines().find_map(|line| {
            // Inst curl [7.88.1-10] (7.88.1-10+deb12u8 Debian:12.9/stable [amd64])
            let mut words = line.strip_prefix("Inst ")?.split_whitespace();
            let is_it = words.next()? == name;
            let newer = words.find(|word| word.starts_with('('))?;
            is_it.then(|| newer.trim_start_matches('(').to_owned())
        })),
        // 100 says that there are updates (dnf(8)).
        Manager::Dnf if matches!(ran.code, Some(0 | 100)) => Ok(ran.stdout.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (package, version) = (words.next()?, words.next()?);
            let found = package.rsplit_once('.').map_or(package, |(name, _arch)| name);
            (found == name).then(|| version.to_owned())
        })),
        Manager::Apt | Manager::Dnf | Manager::Tap | Manager::Pip | Manager::Npm | Manager::Cargo => {
            Err(unclear())
        }
    }
}
