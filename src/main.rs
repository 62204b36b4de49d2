//! The program: parses, does, and is the one place that prints an error and decides the exit code.

use std::process::ExitCode;

use clap::Parser;
use ephemerd::cli::{self, Cli};
use ephemerd::host::Host;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli::run(&cli, &Host::system()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", ephemerd::chain(error.as_ref()));
            ExitCode::from(cli::exit_code(&cli.command, &error))
        }
    }
}
