//! `provision capture` and `export`: manifests from hosts, and for images.

use std::process::ExitCode;

use camino::Utf8PathBuf;
use clap::Args;

use crate::config::Config;
use crate::host::provision::answer::answer_all;
use crate::host::provision::context;
use crate::host::{Host, Os};
use crate::provision::capture;
use crate::provision::context::Context;
use crate::provision::export::{self, Target};
use crate::provision::manifest::{self, Manifest};
use crate::provision::question::{Answers, Question, View};

/// `ephemerd provision capture`
#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
    /// Write it to this new file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<Utf8PathBuf>,
}

/// Captures this host.
///
/// # Errors
/// The file exists already, or cannot be written.
pub(super) fn capture(args: &CaptureArgs, host: &Host, config: &Config) -> anyhow::Result<ExitCode> {
    let context = context(host, config, &Manifest::default());
    let mut answers = ask(&context, capture::questions(&context));
    answers.extend(ask(&context, capture::more_questions(&context, &answers)));
    let text = capture::manifest(&context, &answers);
    match &args.output {
        None => print!("{text}"),
        Some(file) => {
            use std::io::Write;
            let new = std::fs::File::create_new(file);
            let written = new.and_then(|mut new| new.write_all(text.as_bytes()));
            written
                .map_err(|error| anyhow::Error::new(error).context(format!("could not write `{file}`")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(context: &Context, questions: Vec<(View, Question)>) -> Answers {
    let asked: Vec<Question> = questions.into_iter().map(|(_, question)| question).collect();
    let answers = answer_all(&context.host, View::Host, &asked, &|_| {});
    Answers::new(
        asked
            .into_iter()
            .map(|question| (View::Host, question))
            .zip(answers),
    )
}

/// `ephemerd provision export`
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// What it is written for
    #[arg(long, value_enum)]
    format: Target,
    /// This manifest instead of `host.manifest`: one that comes with the program, or a path
    #[arg(long, value_name = "NAME|FILE")]
    manifest: Option<String>,
    /// The system it is for, where the format leaves a choice; this one's otherwise
    #[arg(long)]
    os: Option<Os>,
    /// The image to begin with, instead of the usual one
    #[arg(long, value_name = "IMAGE")]
    base: Option<String>,
}

/// Prints a manifest as another tool wants it.
///
/// # Errors
/// There is no such manifest, or it is not for that system.
pub(super) fn export(args: &ExportArgs, host: &Host, config: &Config) -> anyhow::Result<ExitCode> {
    let here = Utf8PathBuf::try_from(std::env::current_dir()?)?;
    let name = args.manifest.as_deref().or_else(|| config.host.manifest(host.os));
    let name = name.unwrap_or_else(|| manifest::default_name(host.os));
    let manifest = manifest::load(name, &here)?;
    let os = args.os.unwrap_or(host.os);
    print!(
        "{}",
        export::export(&manifest, args.format, os, args.base.as_deref())?
    );
    Ok(ExitCode::SUCCESS)
}
