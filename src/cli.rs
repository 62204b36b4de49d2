//! The command line: what is asked, one file per command. Answers go to standard output, talk to standard
//! error; the only errors printed are printed in `main`.

pub mod config;
pub mod denials;
pub mod doctor;
pub mod egress;
pub mod exec;
pub mod github;
pub mod host;
pub mod job_started;
pub mod jobs;
pub mod lint;
pub mod look;
pub mod origin;
pub mod probe;
pub mod profile;
pub mod provision;
pub mod prune;
pub mod reload;
pub mod route;
pub mod run;
pub mod semantics;
pub mod submit;
pub mod table;
pub mod vm;

use std::process::ExitCode;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Parser, Subcommand, ValueEnum};
use nix::sys::signal::{SigHandler, Signal, signal};

use self::host::install::NoManager;
use crate::config::ConfigError;
use crate::control::client::ControlError;
use crate::daemon::start::StartError;
use crate::host::Host;
use crate::provision::manifest::ManifestError;

/// Runs CI jobs directly on this host, each fenced in by the operating system and gone afterwards without a
/// trace.
#[derive(Debug, Parser)]
#[command(name = "ephemerd", version, max_term_width = 100)]
pub struct Cli {
    /// The configuration file, instead of the one in /etc/ephemerd; without either the defaults apply.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<Utf8PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon.
    Run(run::RunArgs),
    /// Run one command in a fenced slot, without a daemon.
    Exec(exec::ExecArgs),
    /// Hand a job to the daemon.
    Submit(submit::SubmitArgs),
    /// List jobs, or tell everything about one.
    Jobs(jobs::JobsArgs),
    /// Tell how the daemon and its slots are.
    Status(jobs::StatusArgs),
    /// Print a job's output.
    Logs(jobs::LogsArgs),
    /// End a job.
    Cancel(jobs::CancelArgs),
    /// Let the daemon read its configuration again, without disturbing jobs that run.
    Reload(reload::ReloadArgs),
    /// Start no more jobs; running ones go on.
    Drain,
    /// Start jobs again, or take a slot out of quarantine.
    Resume(jobs::ResumeArgs),
    /// Tell where a job would run, and why.
    Route(route::RouteArgs),
    /// Look at the profiles that fence jobs in.
    Profile(profile::ProfileArgs),
    /// Look at, load and try the rules that keep jobs off the LAN.
    Egress(egress::EgressArgs),
    /// Look at what guests run in, for jobs that are not trusted with this host.
    Vm(vm::VmArgs),
    /// Compare this host with what its manifest says it must have, and put it right.
    Provision(provision::ProvisionArgs),
    /// Look at GitHub as far as this host's jobs depend on it.
    Github(github::GitHubArgs),
    /// Tell what is wrong with this host, and what helps.
    Doctor(doctor::DoctorArgs),
    /// Prepare this host.
    Host(host::HostArgs),
    /// Remove old logs and what else fills the disk; the daemon does it every day.
    Prune(prune::PruneArgs),
    /// Check or show the configuration.
    Config(config::ConfigArgs),
    /// The privileged half of the daemon; started by it.
    #[command(name = "__warden", hide = true)]
    Warden {
        /// Where daemon state lives.
        #[arg(long)]
        data_dir: Utf8PathBuf,
    },
    /// The unprivileged half of the daemon; started by the other.
    #[command(name = "__dispatch", hide = true)]
    Dispatch,
    /// What tools of guests run under, so that they end with the daemon.
    #[command(name = "__attend", hide = true)]
    Attend {
        /// The user they run as.
        #[arg(long, requires = "gid")]
        uid: Option<u32>,
        /// The group likewise.
        #[arg(long, requires = "uid")]
        gid: Option<u32>,
        /// The tool and its arguments.
        #[arg(last = true, required = true)]
        words: Vec<String>,
    },
    /// A guest's serial port as standard input and output.
    #[command(name = "__channel", hide = true)]
    Channel {
        /// The socket of the port.
        socket: Utf8PathBuf,
    },
    /// The first program inside a sandbox of macOS; started by the warden.
    #[command(name = "__confined", hide = true)]
    Confined,
    /// The live probes, run inside a sandbox.
    #[command(name = "__probe", hide = true)]
    Probe(probe::ProbeArgs),
    /// Answers to questions, found inside a sandbox.
    #[command(name = "__look", hide = true)]
    Look(look::LookArgs),
    /// What a GitHub job waits in until it is admitted; started by its runner's hook.
    #[command(name = "__job-started", hide = true)]
    JobStarted(job_started::JobStartedArgs),
}

impl Command {
    /// Whether the command does nothing but answer, so that it may end when nobody reads on.
    fn only_answers(&self) -> bool {
        match self {
            Self::Jobs(_)
            | Self::Status(_)
            | Self::Logs(_)
            | Self::Route(_)
            | Self::Github(_)
            | Self::Config(_) => true,
            Self::Run(_)
            | Self::Exec(_)
            | Self::Submit(_)
            | Self::Cancel(_)
            | Self::Reload(_)
            | Self::Drain
            | Self::Resume(_) => false,
            Self::Profile(args) => args.only_answers(),
            Self::Egress(args) => args.only_answers(),
            Self::Provision(args) => args.only_answers(),
            Self::Host(_)
            | Self::Doctor(_)
            | Self::Prune(_)
            | Self::Warden { .. }
            | Self::Dispatch
            | Self::Attend { .. }
            | Self::Channel { .. }
            | Self::Vm(_)
            | Self::Confined
            | Self::Probe(_)
            | Self::Look(_)
            | Self::JobStarted(_) => false,
        }
    }
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON value.
    Json,
}

/// Does what the command line says, on `host`.
///
/// # Errors
/// Whatever kept it from being done, with a hint where there is one.
pub fn run(cli: &Cli, host: &Host) -> anyhow::Result<ExitCode> {
    if cli.command.only_answers() {
        // Whoever reads the answer may have seen enough, as `head` does.
        // SAFETY: sets a default disposition; no handler is involved.
        unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    }
    let path = cli.config.as_deref();
    let load = |path| crate::config::load_or_default(path, host.os);
    let config_file = |path| config_file(path, host);
    let socket = || Ok::<_, anyhow::Error>(load(path)?.config.control.socket);
    match &cli.command {
        Command::Run(args) => run::run(args, host, load(path)?, path),
        Command::Dispatch => run::dispatch(host, || load(path), config_file(path)),
        Command::Exec(args) => exec::run(args, host, load(path)?, config_file(path)),
        Command::Submit(args) => submit::run(args, &socket()?),
        Command::Jobs(args) => jobs::jobs(args, &load(path)?.config, (host, config_file(path))),
        Command::Status(args) => jobs::status(args, &socket()?),
        Command::Logs(args) => jobs::logs(args, &socket()?),
        Command::Cancel(args) => jobs::cancel(args, &socket()?),
        Command::Reload(args) => reload::run(args, path, host),
        Command::Drain => jobs::drain(&socket()?),
        Command::Resume(args) => jobs::resume(args, &socket()?),
        Command::Route(args) => route::run(args, &load(path)?.config),
        Command::Profile(profile::ProfileArgs {
            command: profile::ProfileCommand::Lint(args),
        }) => lint::run(args),
        Command::Profile(args) => profile::run(args, host, load(path)?, config_file(path)),
        Command::Egress(args) => egress::run(args, host, &load(path)?.config),
        Command::Provision(args) => provision::run(args, host, load(path)?, config_file(path)),
        Command::Github(args) => github::run(args, &load(path)?.config),
        Command::Doctor(args) => doctor::run(args, host, load(path), &config_file(path)),
        Command::Host(args) => host::run(args, host, &load(path)?, &config_file(path)),
        Command::Prune(args) => prune::run(args, &load(path)?.config),
        Command::Config(args) => config::run(args, path),
        Command::Warden { data_dir } => {
            crate::warden::serve::serve(data_dir, host)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Vm(args) => vm::run(args, host, load(path)?),
        Command::Attend { uid, gid, words } => {
            let code = crate::host::command::attend::attend(words, (*uid).zip(*gid))?;
            Ok(ExitCode::from(code))
        }
        Command::Channel { socket } => {
            crate::host::command::attend::channel(socket)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Confined => Ok(ExitCode::from(crate::sandbox::seatbelt::confined::run()?)),
        Command::Probe(args) => args.run(),
        Command::Look(args) => args.run(host),
        Command::JobStarted(args) => Ok(args.run()),
    }
}

/// The exit code an error ends a command with: 2 for usage and configuration, 3 when this host cannot
/// enforce what it should, 1 for everything else, 2 where 1 is an answer; `exec` ends with 125, as a failure of ours before the
/// command started (docs/exit-codes.md).
pub fn exit_code(command: &Command, error: &anyhow::Error) -> u8 {
    if matches!(command, Command::Exec(_)) {
        return 125;
    }
    // Their 1 is an answer.
    if matches!(command, Command::Profile(args) if args.compares())
        || matches!(command, Command::Provision(args) if args.compares())
        || matches!(command, Command::Egress(args) if args.compares())
    {
        return 2;
    }
    let is_control = || {
        error
            .chain()
            .any(|cause| cause.downcast_ref::<ControlError>().is_some())
    };
    if error
        .chain()
        .any(|cause| is_configuration(cause) || is_manifest(cause))
    {
        2
    } else if error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(StartError::Axes { .. } | StartError::Egress(_))
        ) || cause.downcast_ref::<NoManager>().is_some()
    }) || matches!(command, Command::Egress(_))
    {
        3
    } else if matches!(command, Command::Submit(_)) && is_control() {
        125
    } else {
        1
    }
}

/// Whether the configuration is wrong, for this command or for the daemon.
fn is_configuration(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<ConfigError>().is_some() || cause.downcast_ref::<reload::Kept>().is_some()
}

/// Whether a manifest is wrong, which is part of the configuration.
fn is_manifest(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<ManifestError>().is_some()
        || matches!(cause.downcast_ref(), Some(StartError::Manifest(_)))
}

/// The file the configuration comes from, whether it exists or not.
fn config_file(path: Option<&Utf8Path>, host: &Host) -> Utf8PathBuf {
    path.unwrap_or_else(|| crate::config::default_path(host.os))
        .to_owned()
}

/// This very program, which is also the warden and the probe.
///
/// # Errors
/// The system does not tell, or the path is not UTF-8.
fn own_program() -> anyhow::Result<Utf8PathBuf> {
    let path = std::env::current_exe()?;
    Utf8PathBuf::from_path_buf(path).map_err(|path| anyhow::anyhow!("`{}` is not UTF-8", path.display()))
}
