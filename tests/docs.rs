//! The documents name what there is: files, commands, probes, expectations and tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read what it checks has failed"
)]

use std::collections::BTreeSet;
use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Parser;
use ephemerd::cli::Cli;
use ephemerd::probe::{self, Class};
use ephemerd::profile::expect;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Files with this ending below `folder`, in no particular order.
fn files(folder: &Utf8Path, ending: &str) -> Vec<Utf8PathBuf> {
    let entries = folder
        .read_dir_utf8()
        .unwrap()
        .map(|entry| entry.unwrap().into_path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let deeper = folders.iter().flat_map(|folder| self::files(folder, ending));
    let here = files.into_iter().filter(|path| path.extension() == Some(ending));
    here.chain(deeper).collect()
}

/// README.md and everything in docs/, with its text.
fn documents() -> Vec<(Utf8PathBuf, String)> {
    let root = Utf8Path::new(ROOT);
    let mut paths = files(&root.join("docs"), "md");
    paths.push(root.join("README.md"));
    let read = |path: Utf8PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// The lines of the blocks that are marked `sh`.
fn shell_lines(text: &str) -> Vec<&str> {
    let blocks = text.split("\n```").skip(1).step_by(2);
    let shell = blocks.filter_map(|block| block.strip_prefix("sh\n"));
    shell
        .flat_map(str::lines)
        .filter(|line| !line.is_empty())
        .collect()
}

/// The words of the `ephemerd` command in a line, if it is one; what it runs is none of our business.
fn command(line: &str) -> Option<Vec<&str>> {
    let (ours, runs) = match line.split_once(" -- ") {
        Some((ours, _)) => (ours, true),
        None => (line, false),
    };
    let is_prefix = |word: &&str| ["$", "sudo"].contains(word) || word.contains('=');
    let words = ours.split_whitespace().skip_while(is_prefix);
    let words = words.take_while(|word| !["#", "|", ">", "&"].contains(word));
    let rest: &[&str] = if runs { &["--", "true"] } else { &[] };
    let words: Vec<&str> = words.chain(rest.iter().copied()).collect();
    (words.first() == Some(&"ephemerd")).then_some(words)
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What stands between backticks in the last column of tables where that is called `title`.
fn last_column<'a>(text: &'a str, title: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in text.lines() {
        let last = line
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .unwrap_or_default();
        inside = line.starts_with('|') && (inside || last == title);
        if inside {
            found.extend(quoted(last));
        }
    }
    found
}

/// All code.
fn code() -> String {
    let root = Utf8Path::new(ROOT);
    let code = [files(&root.join("src"), "rs"), files(&root.join("tests"), "rs")].concat();
    code.iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut links = 0;
    for (path, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap();
            assert!(path.with_file_name(file).exists(), "{path} links to {target}");
            links += 1;
        }
    }
    assert!(links > 10, "found {links} links");
}

#[test]
fn every_command_in_the_documents_is_one() {
    let mut commands = 0;
    for (path, text) in documents() {
        for words in shell_lines(&text).into_iter().filter_map(command) {
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{path}: {}\n{error}", words.join(" "));
            }
            commands += 1;
        }
    }
    assert!(commands > 10, "found {commands} commands");
}

#[test]
fn the_threat_model_names_every_attack_and_nothing_that_is_not() {
    let text = fs::read_to_string(Utf8Path::new(ROOT).join("docs/threat-model.md")).unwrap();
    let shown = last_column(&text, "shown by");
    let probes = probe::table();
    let expectations = expect::built_in().unwrap();
    let code = code();
    for name in &shown {
        let exists = probes.iter().any(|probe| probe.name == *name)
            || expectations.iter().any(|expectation| expectation.id == *name)
            || code.contains(&format!("fn {name}("));
        assert!(exists, "there is no probe, expectation or test `{name}`");
    }
    let attacks = probes.iter().filter(|probe| probe.class == Class::Attack);
    let missing: Vec<&str> = attacks
        .map(|probe| probe.name)
        .filter(|name| !shown.contains(name))
        .collect();
    assert!(missing.is_empty(), "not in the threat model: {missing:?}");
}

#[test]
fn the_architecture_names_tests_that_there_are() {
    let text = fs::read_to_string(Utf8Path::new(ROOT).join("docs/architecture.md")).unwrap();
    let numbered = last_column(&text, "tests");
    let shown = last_column(&text, "shown by, among others");
    assert!(numbered.len() > 20 && shown.len() > 20);
    let code = code();
    for name in numbered.union(&shown).filter(|name| !name.contains('/')) {
        // One that ends so is the beginning of several.
        let exists = match name.strip_suffix('…') {
            Some(beginning) => code.contains(&format!("fn {beginning}")),
            None => code.contains(&format!("fn {name}(")),
        };
        assert!(exists, "there is no test `{name}`");
    }
}

#[test]
fn finds_commands_behind_prefixes_and_leaves_others_alone() {
    let words = |line| command(line).map(|words| words.join(" "));
    assert_eq!(
        words("$ sudo A=b ephemerd exec --keep -- sh -c 'a | b'").as_deref(),
        Some("ephemerd exec --keep -- true")
    );
    assert_eq!(words("ephemerd jobs | head -3").as_deref(), Some("ephemerd jobs"));
    assert_eq!(words("cargo build --release"), None);
}
