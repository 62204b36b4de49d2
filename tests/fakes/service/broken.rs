//! A program that passes for a newer ephemerd until it is to run: then it spoils the ledger, as a newer version may in the
//! eyes of an older one, and ends.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--version") {
        println!("ephemerd 9.0.0");
        return ExitCode::SUCCESS;
    }
    if words.iter().any(|word| word == "run") {
        let spoilt = std::fs::write(ledger(&words), "of version 9");
        eprintln!("this version does not run: {spoilt:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Where the ledger is, by the configuration that is named.
fn ledger(words: &[String]) -> String {
    let file = words.iter().skip_while(|word| *word != "--config").nth(1);
    let text = file
        .and_then(|file| std::fs::read_to_string(file).ok())
        .unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("data_dir = "));
    format!(
        "{}/state/ledger.db",
        named.unwrap_or("/var/lib/ephemerd").trim_matches('"')
    )
}
