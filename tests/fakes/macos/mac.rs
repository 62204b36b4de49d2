//! ephemerd on a Mac made of stand-ins: the same program as `main.rs`, but for the host, which it reads from
//! `host.json` beside itself. The program that users get has no such way in.

use std::process::ExitCode;

use clap::Parser;
use ephemerd::cli::{self, Cli};
use ephemerd::host::Host;

fn main() -> ExitCode {
    let host: Host = std::env::current_exe()
        .and_then(|own| std::fs::read(own.with_file_name("host.json")))
        .map(|text| serde_json::from_slice(&text).expect("host.json is a host"))
        .expect("host.json lies beside this program");
    let cli = Cli::parse();
    match cli::run(&cli, &host) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", ephemerd::chain(error.as_ref()));
            ExitCode::from(cli::exit_code(&cli.command, &error))
        }
    }
}
