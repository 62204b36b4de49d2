//! docs/configuration.md says of every key what the program does, and of no other.

use std::collections::BTreeSet;

use ephemerd::config::keys::{self, KEYS};
use ephemerd::config::parse;
use ephemerd::trust::NATIVE_EVENTS;

const DOCS: &str = include_str!("../docs/configuration.md");

/// The rows of the tables that list keys.
fn rows() -> Vec<&'static str> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in DOCS.lines() {
        if line == "| key | type | default | changed by | meaning |" {
            inside = true;
        } else if !line.starts_with('|') {
            inside = false;
        } else if inside && !line.starts_with("|-") {
            rows.push(line);
        }
    }
    rows
}

/// The TOML examples, each with its line in the document.
fn examples() -> Vec<(usize, String)> {
    let mut examples = Vec::new();
    let mut current: Option<(usize, Vec<&str>)> = None;
    for (index, line) in DOCS.lines().enumerate() {
        match (&mut current, line) {
            (None, "```toml") => current = Some((index + 1, Vec::new())),
            (Some((start, lines)), "```") => {
                examples.push((*start, lines.join("\n")));
                current = None;
            }
            (Some((_, lines)), line) => lines.push(line),
            (None, _) => {}
        }
    }
    examples
}

#[test]
fn the_tables_are_the_key_table() {
    let expected: Vec<String> = KEYS.iter().map(keys::Key::markdown_row).collect();
    assert_eq!(rows().join("\n"), expected.join("\n"));
}

#[test]
fn no_text_names_a_key_that_does_not_exist() {
    let sections: BTreeSet<&str> = KEYS.iter().filter_map(|key| key.segments().next()).collect();
    let mut named = 0;
    let prose = DOCS.split("```").step_by(2);
    for code in prose.flat_map(|text| text.split('`').skip(1).step_by(2)) {
        let path: Vec<&str> = code.split('.').collect();
        let is_name = code
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b));
        if path.len() > 1 && is_name && sections.contains(path[0]) {
            let known = KEYS
                .iter()
                .any(|key| key.name == code || key.name.starts_with(&format!("{code}.")));
            assert!(known || keys::find(&path).is_some(), "`{code}`");
            named += 1;
        }
    }
    assert!(named > KEYS.len(), "{named}");
}

#[test]
fn every_example_is_a_configuration() {
    let examples = examples();
    assert_eq!(examples.len(), DOCS.matches("```toml").count());
    assert!(!examples.is_empty());
    for (line, text) in examples {
        if let Err(error) = parse(&text, "example") {
            panic!("the example in line {line} of docs/configuration.md: {error}");
        }
    }
}

#[test]
fn every_event_that_may_be_native_is_listed() {
    for event in NATIVE_EVENTS {
        assert!(DOCS.contains(&format!("`{event}`")), "{event}");
    }
}
