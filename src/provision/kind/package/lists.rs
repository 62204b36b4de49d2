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

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(code: i32, stdout: &str, stderr: &str) -> Answer {
        Answer::Ran(Ran {
            code: Some(code),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        })
    }

    /// The version found; nothing; or an exclamation mark where nobody can tell.
    fn found(told: Result<Option<String>, Verdict>) -> String {
        match told {
            Ok(version) => version.unwrap_or_default(),
            Err(verdict) => {
                assert!(matches!(verdict, Verdict::Unknown { .. }), "{verdict:?}");
                "!".to_owned()
            }
        }
    }

    #[test]
    fn what_is_installed_is_read_from_each_managers_list() {
        let dpkg = "git\t1:2.39.5-0+deb12u2\tii \nhello\t2.10\trc \nheld\t1.0\thi \nhalf\t1.0\tiH \n";
        let rpm = "bash\t5.2.26-3.fc40\nkernel\t6.8.5-301.fc40\n";
        let pip =
            r#"[{"name": "PyYAML", "version": "6.0"}, {"name": "typing_extensions", "version": "4.9"}]"#;
        let npm = r#"{"name": "lib", "dependencies": {"npm": {"version": "9.2.0"}}}"#;
        let cargo = "cargo-deny v0.20.2:\n    cargo-deny\nown v0.1.0 (/src/own):\n    own\n";
        let cases = [
            (Manager::Apt, "git", dpkg, "1:2.39.5-0+deb12u2"),
            // Removed, with its configuration left.
            (Manager::Apt, "hello", dpkg, ""),
            (Manager::Apt, "held", dpkg, "1.0"),
            // Half installed is to be installed again.
            (Manager::Apt, "half", dpkg, ""),
            (Manager::Apt, "gi", dpkg, ""),
            (Manager::Dnf, "bash", rpm, "5.2.26-3.fc40"),
            (Manager::Dnf, "zsh", rpm, ""),
            (Manager::Pip, "pyyaml", pip, "6.0"),
            (Manager::Pip, "typing-extensions", pip, "4.9"),
            (Manager::Pip, "yaml", pip, ""),
            (Manager::Npm, "npm", npm, "9.2.0"),
            (Manager::Npm, "yarn", npm, ""),
            (Manager::Cargo, "cargo-deny", cargo, "0.20.2"),
            (Manager::Cargo, "own", cargo, "0.1.0"),
            (Manager::Cargo, "cargo", cargo, ""),
        ];
        for (manager, name, list, version) in cases {
            let told = installed(manager, name, &ran(0, list, ""));
            assert_eq!(found(told), version, "{manager:?} {name}");
        }
    }

    #[test]
    fn homebrew_is_read_from_its_folders() {
        let keg = Answer::At("/opt/homebrew/Cellar/llvm@17/17.0.6_1".into());
        assert_eq!(found(installed(Manager::Brew, "llvm@17", &keg)), "17.0.6_1");
        let versions = Answer::Names([".metadata", "2.1", "2.2"].map(str::to_owned).to_vec());
        assert_eq!(found(installed(Manager::Cask, "app", &versions)), "2.2");
        for manager in [Manager::Brew, Manager::Cask, Manager::Tap] {
            assert_eq!(
                found(installed(manager, "x", &Answer::Missing)),
                "",
                "{manager:?}"
            );
        }
        // An empty folder is none, and what is not a list is no answer.
        assert_eq!(found(installed(Manager::Cask, "app", &Answer::Names(vec![]))), "");
        assert_eq!(found(installed(Manager::Brew, "x", &ran(0, "", ""))), "!");
    }

    #[test]
    fn what_makes_no_sense_tells_nothing_and_never_that_something_is_there() {
        let managers = [
            Manager::Apt,
            Manager::Dnf,
            Manager::Pip,
            Manager::Npm,
            Manager::Cargo,
        ];
        for manager in managers {
            for answer in [
                ran(1, "", "no such database"),
                ran(0, "", "").clone(),
                Answer::TimedOut,
                Answer::Denied,
                Answer::Failed("x".to_owned()),
            ] {
                let told = found(installed(manager, "git", &answer));
                // An empty list of cargo's is one.
                let expected = if manager == Manager::Cargo && answer == ran(0, "", "") {
                    ""
                } else {
                    "!"
                };
                assert_eq!(told, expected, "{manager:?} {answer:?}");
            }
        }
        for (manager, garbage) in [
            (Manager::Apt, "git"),
            (Manager::Apt, "git\t1\t\n"),
            (Manager::Apt, "git\t1\té\n"),
            (Manager::Npm, "{\"error\": {\"code\": \"EACCES\"}}"),
            (Manager::Npm, "<html>"),
            (Manager::Pip, "{}"),
        ] {
            let told = found(installed(manager, "git", &ran(0, garbage, "")));
            assert!(
                ["", "!"].contains(&told.as_str()),
                "{manager:?} {garbage:?}: {told}"
            );
        }
        // Without the manager there are none of its packages; without the tool of the system nobody knows.
        assert_eq!(found(installed(Manager::Npm, "x", &Answer::Missing)), "");
        assert_eq!(found(installed(Manager::Apt, "x", &Answer::Missing)), "!");
        let no_pip = ran(1, "", "/usr/bin/python3: No module named pip\n");
        assert_eq!(found(installed(Manager::Pip, "x", &no_pip)), "");
    }

    #[test]
    fn updates_are_read_from_what_managers_would_do() {
        let apt = "Reading package lists...\nInst curl [7.88.1-10] (7.88.1-10+deb12u8 Debian:12.9/stable [amd64])\nConf curl (x)\n";
        let dnf = "\ncurl.x86_64    8.6.0-10.fc40    updates\n";
        let brew = r#"{"formulae":[{"name":"local/test/alpha","installed_versions":["1.0"],"current_version":"2.0","pinned":false}],"casks":[{"name":"app","current_version":"3.0"}]}"#;
        let cases = [
            (Manager::Apt, 0, "curl", apt, "7.88.1-10+deb12u8"),
            (Manager::Apt, 0, "git", apt, ""),
            (Manager::Dnf, 100, "curl", dnf, "8.6.0-10.fc40"),
            (Manager::Dnf, 0, "curl", "", ""),
            (Manager::Dnf, 1, "curl", "", "!"),
            (Manager::Apt, 100, "curl", "", "!"),
            (Manager::Brew, 0, "alpha", brew, "2.0"),
            (Manager::Brew, 0, "app", brew, ""),
            (Manager::Cask, 0, "app", brew, "3.0"),
            (Manager::Brew, 0, "alpha", "garbage", "!"),
        ];
        for (manager, code, name, list, newer) in cases {
            assert_eq!(
                found(update(manager, name, &ran(code, list, ""))),
                newer,
                "{manager:?} {name}"
            );
        }
    }
}
