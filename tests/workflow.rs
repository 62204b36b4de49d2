//! The workflow is well-formed, asks for no more than it needs, and every command in it exists.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::fs;

use camino::Utf8Path;
use clap::Parser;
use ephemerd::cli::Cli;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The systems of the matrix.
const SYSTEMS: [&str; 2] = ["macos-15", "macos-26"];

/// A line of the file that says something: its indentation, the key, and the value that may follow.
#[derive(Debug)]
struct Line {
    number: usize,
    depth: usize,
    key: String,
    value: String,
}

/// The lines of the workflow, which keeps to one `key: value` each, as list item or not.
fn lines() -> Vec<Line> {
    let text = fs::read_to_string(Utf8Path::new(ROOT).join(".github/workflows/ci.yml")).unwrap();
    let told = (1..).zip(text.lines()).filter(|(_, line)| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with('#')
    });
    told.map(|(number, line)| {
        let content = line.trim_start_matches(' ');
        let (item, content) = match content.strip_prefix("- ") {
            Some(content) => (2, content),
            None => (0, content),
        };
        let depth = line.len() - line.trim_start_matches(' ').len() + item;
        let (key, value) = content.split_once(':').unwrap();
        Line {
            number,
            depth,
            key: key.to_owned(),
            value: value.trim_start().to_owned(),
        }
    })
    .collect()
}

/// Every command, for every system of the matrix, and without where its output goes.
fn commands() -> Vec<String> {
    let runs = lines().into_iter().filter(|line| line.key == "run");
    let commands = runs.flat_map(|line| SYSTEMS.map(|system| line.value.replace("${{ matrix.os }}", system)));
    let mut commands: Vec<String> = commands
        .map(|command| command.split(" > ").next().unwrap().to_owned())
        .collect();
    commands.sort();
    commands.dedup();
    commands
}

#[test]
fn it_is_the_yaml_that_this_test_reads() {
    let lines = lines();
    assert!(lines.len() > 40, "{}", lines.len());
    for line in &lines {
        let is_key = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        assert!(line.depth.is_multiple_of(2), "{line:?}");
        assert!(!line.key.is_empty() && line.key.chars().all(is_key), "{line:?}");
        // What YAML would read as something else than text.
        assert!(
            !line
                .value
                .starts_with(['|', '>', '&', '*', '!', '%', '@', '`', '{', '\t']),
            "{line:?}"
        );
        assert!(
            line.value.starts_with('"') || !line.value.contains(": "),
            "{line:?}"
        );
        assert!(!line.value.contains(" #"), "{line:?}");
    }
    // A value ends its line, so that what stands deeper belongs to a key without one.
    for pair in lines.windows(2) {
        let [before, after] = pair else { continue };
        assert!(
            after.depth <= before.depth || before.value.is_empty(),
            "{after:?}"
        );
        assert!(after.depth <= before.depth + 4, "{after:?}");
    }
    let systems = lines.iter().find(|line| line.key == "os").unwrap();
    assert_eq!(systems.value, format!("[{}]", SYSTEMS.join(", ")));
}

#[test]
fn it_asks_for_nothing_but_to_read() {
    let lines = lines();
    let permissions = lines.iter().position(|line| line.key == "permissions").unwrap();
    assert_eq!(lines[permissions].depth, 0);
    let granted: Vec<String> = lines[permissions + 1..]
        .iter()
        .take_while(|line| line.depth > 0)
        .map(|line| format!("{}: {}", line.key, line.value))
        .collect();
    assert_eq!(granted, ["contents: read"]);
    assert_eq!(lines.iter().filter(|line| line.key == "permissions").count(), 1);
    for line in &lines {
        assert!(!line.value.contains("secrets."), "{line:?}");
        assert!(line.key != "pull_request_target", "{line:?}");
    }
    let uses = lines.iter().filter(|line| line.key == "uses");
    for line in uses.clone() {
        let (action, version) = line.value.split_once('@').unwrap();
        assert!(action.starts_with("actions/"), "{line:?}");
        let number = version.strip_prefix('v').unwrap();
        assert!(number.chars().all(|c| c.is_ascii_digit()), "{line:?}");
    }
    let kept = lines
        .iter()
        .filter(|line| line.key == "persist-credentials" && line.value == "false");
    assert_eq!(
        kept.count(),
        uses.filter(|line| line.value.contains("checkout")).count()
    );
}

#[test]
fn every_command_in_it_exists() {
    let root = Utf8Path::new(ROOT);
    let commands = commands();
    assert!(commands.len() > 8, "{commands:?}");
    for command in &commands {
        let words: Vec<&str> = command
            .split_whitespace()
            .skip_while(|word| *word == "sudo")
            .collect();
        match words.as_slice() {
            ["./target/debug/ephemerd", ..] => {
                if let Err(error) = Cli::try_parse_from(&words) {
                    panic!("{command}\n{error}");
                }
            }
            ["cargo", "+stable", "build" | "test", rest @ ..] => {
                let tests = rest.windows(2).filter(|pair| pair[0] == "--test");
                for pair in tests {
                    let file = root.join("tests").join(pair[1]).with_extension("rs");
                    let folder = file.with_extension("").join("main.rs");
                    assert!(file.exists() || folder.exists(), "{command}: there is no {file}");
                }
            }
            ["rustup", "toolchain", "install", "stable", ..] => {}
            ["sysctl", "-w", setting] => assert!(setting.contains('=')),
            [script] if script.starts_with("./scripts/") => assert!(root.join(script).exists(), "{script}"),
            _ => panic!("this test does not know `{command}`"),
        }
    }
}

#[test]
fn what_is_kept_is_written_before() {
    let lines = lines();
    let written: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.value.split_once(" > ").map(|(_, file)| file))
        .collect();
    let kept = lines.iter().filter(|line| line.key == "path");
    for line in kept {
        let pattern = line.value.trim_matches('"');
        let ending = pattern.trim_start_matches('*');
        let fits = |file: &&str| file.ends_with(ending);
        assert!(
            written.iter().any(fits),
            "line {}: nothing writes {pattern}",
            line.number
        );
    }
    let semantics = written.iter().find(|file| file.starts_with("semantics-"));
    assert_eq!(semantics.copied(), Some("semantics-${{ matrix.os }}.json"));
}
