//! `ephemerd submit`: hands a job to the daemon.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use camino::Utf8Path;
use clap::Args;

use super::Format;
use super::origin::OriginArgs;
use crate::config::size::parse_duration;
use crate::control::client::ask;
use crate::control::{Answer, Ask};
use crate::job::{JobSpec, Repo};

/// Arguments of `submit`.
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// The repository the job belongs to.
    #[arg(long, value_name = "OWNER/NAME")]
    repo: Repo,
    #[command(flatten)]
    origin: OriginArgs,
    /// A variable of the job's environment; may be repeated.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Stop the command after this time (90s, 10m, 2h), where that is less than the configured time.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Print the job's output as it comes, and end with its exit code.
    #[arg(long)]
    wait: bool,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if name.is_empty() || crate::workspace::RESERVED.contains(&name) {
        return Err(format!("`{name}` is set by ephemerd"));
    }
    Ok((name.into(), value.into()))
}

/// Hands over the job and prints its id.
///
/// # Errors
/// The daemon cannot be reached or does not take the job.
pub fn run(args: &SubmitArgs, socket: &Utf8Path) -> anyhow::Result<ExitCode> {
    let spec = JobSpec {
        origin: args.origin.origin(&args.repo),
        command: args.command.clone(),
        env: args.env.iter().cloned().collect::<BTreeMap<_, _>>(),
        timeout_s: args.timeout.map(|time| time.as_secs().max(1)),
    };
    let (submitted, _) = ask(socket, &Ask::Submit { spec })?;
    let Answer::Submitted { job, route, reason } = &submitted else {
        anyhow::bail!("the daemon answered {submitted:?}");
    };
    let is_refused = *route == crate::trust::Route::Refuse;
    if !args.wait {
        match args.format {
            Format::Json => println!("{}", serde_json::to_string(&submitted)?),
            Format::Text if is_refused => println!("{job} refused: {reason}"),
            Format::Text => println!("{job}"),
        }
        return Ok(ExitCode::from(u8::from(is_refused)));
    }
    // Standard output is the job's alone.
    eprintln!("job {job}");
    if !is_refused {
        let (_, mut output) = ask(
            socket,
            &Ask::Logs {
                job: job.clone(),
                follow: true,
            },
        )?;
        io::copy(&mut output, &mut io::stdout())?;
        io::stdout().flush()?;
    }
    let (ended, _) = ask(socket, &Ask::Wait { job: job.clone() })?;
    let Answer::Story(story) = &ended else {
        anyhow::bail!("the daemon answered {ended:?}")
    };
    let outcome = story.job.outcome.as_ref();
    match args.format {
        Format::Json => println!("{}", serde_json::to_string(&story.job)?),
        Format::Text if outcome.is_some_and(|outcome| outcome.is_success()) => {}
        Format::Text => eprintln!("{job} {}", outcome.map(ToString::to_string).unwrap_or_default()),
    }
    Ok(ExitCode::from(outcome.map_or(125, |outcome| outcome.exit_code())))
}
