//! `ephemerd jobs`, `status`, `logs`, `cancel`, `drain` and `resume`: questions for the daemon.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};

use super::Format;
use super::denials;
use super::exec::report;
use super::table::{fit_terminal, table};
use crate::config::Config;
use crate::control::client::ask;
use crate::control::{Answer, Ask, SlotNow, SlotReport, StatusReport, Story};
use crate::daemon::github::GitHubReport;
use crate::daemon::reload::{ConfigReport, FailedReload};
use crate::daemon::vm::report::{KindReport, VmReport};
use crate::egress::EgressReport;
use crate::github::ticket::{AtGitHub, Ticket};
use crate::host::{Host, Os};
use crate::job::ledger::JobRow;
use crate::job::{JobId, Outcome};
use crate::page::moment;
use crate::profile::denials::exit_hint;

/// Arguments of `jobs`.
#[derive(Debug, Args)]
pub struct JobsArgs {
    /// Finished jobs too.
    #[arg(long)]
    all: bool,
    /// How to answer.
    #[arg(long, value_enum, default_value_t, global = true)]
    format: Format,
    /// One job instead of the list.
    #[command(subcommand)]
    one: Option<OneJob>,
}

/// One job instead of the list.
#[derive(Debug, Subcommand)]
pub enum OneJob {
    /// Tell everything about one job: every state with time and reason, what protected it, what it used.
    Show {
        /// The job.
        job: JobId,
    },
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show it again every second, until interrupted.
    #[arg(long)]
    watch: bool,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on until the job has ended.
    #[arg(short, long)]
    follow: bool,
    /// The job.
    job: JobId,
}

/// Arguments of `cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The job.
    job: JobId,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Take this slot out of quarantine instead, after you have looked at what was left there.
    #[arg(long, value_name = "N")]
    slot: Option<u32>,
}

/// Prints jobs, or one job's story.
///
/// # Errors
/// The daemon cannot be reached or does not know the job.
pub fn jobs(
    args: &JobsArgs,
    config: &Config,
    (host, config_file): (&Host, Utf8PathBuf),
) -> anyhow::Result<ExitCode> {
    let question = match &args.one {
        Some(OneJob::Show { job }) => Ask::Show { job: job.clone() },
        None => Ask::Jobs { all: args.all },
    };
    let (answer, _) = ask(&config.control.socket, &question)?;
    match (answer, args.format) {
        (Answer::Jobs { jobs }, Format::Json) => println!("{}", serde_json::to_string_pretty(&jobs)?),
        (Answer::Jobs { jobs }, Format::Text) => print!("{}", fit_terminal(&job_table(&jobs))),
        (Answer::Story(story), Format::Json) => println!("{}", serde_json::to_string_pretty(&story)?),
        (Answer::Story(story), Format::Text) => {
            let denials = denials::of_job(&story.job, (config, config_file), host, SystemTime::now());
            print!("{}{denials}", fit_terminal(&tell(&story)));
        }
        (other, _) => anyhow::bail!("the daemon answered {other:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints how the daemon is.
///
/// # Errors
/// The daemon cannot be reached.
pub fn status(args: &StatusArgs, socket: &Utf8Path) -> anyhow::Result<ExitCode> {
    loop {
        let (answer, _) = ask(socket, &Ask::Status {})?;
        let Answer::Status(status) = answer else {
            anyhow::bail!("the daemon answered {answer:?}")
        };
        let text = match args.format {
            Format::Json => serde_json::to_string_pretty(&status)? + "\n",
            Format::Text => fit_terminal(&status_text(&status)),
        };
        if args.watch && io::stdout().is_terminal() {
            // Cursor home and clear to the end of the screen (ECMA-48).
            print!("\x1b[H\x1b[J");
        }
        print!("{text}");
        io::stdout().flush()?;
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Prints a job's output.
///
/// # Errors
/// The daemon cannot be reached or does not know the job.
pub fn logs(args: &LogsArgs, socket: &Utf8Path) -> anyhow::Result<ExitCode> {
    let (_, mut output) = ask(
        socket,
        &Ask::Logs {
            job: args.job.clone(),
            follow: args.follow,
        },
    )?;
    io::copy(&mut output, &mut io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

/// Ends a job.
///
/// # Errors
/// The daemon cannot be reached, or the job has ended already.
pub fn cancel(args: &CancelArgs, socket: &Utf8Path) -> anyhow::Result<ExitCode> {
    ask(
        socket,
        &Ask::Cancel {
            job: args.job.clone(),
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the daemon start no more jobs.
///
/// # Errors
/// The daemon cannot be reached.
pub fn drain(socket: &Utf8Path) -> anyhow::Result<ExitCode> {
    ask(socket, &Ask::Drain {})?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the daemon start jobs again, or use a slot again.
///
/// # Errors
/// The daemon cannot be reached, or the slot is not in quarantine.
pub fn resume(args: &ResumeArgs, socket: &Utf8Path) -> anyhow::Result<ExitCode> {
    ask(socket, &Ask::Resume { slot: args.slot })?;
    Ok(ExitCode::SUCCESS)
}

/// Milliseconds between two moments of a job; a dash while there is none.
fn between(from: Option<u64>, to: Option<u64>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => format!("{} ms", to.saturating_sub(from)),
        _ => "-".into(),
    }
}

/// Jobs as a table, the newest last, where a terminal shows it.
fn job_table(jobs: &[JobRow]) -> String {
    let head = [
        "JOB",
        "REPO",
        "EVENT",
        "ROUTE",
        "ISOLATION",
        "SLOT",
        "ACCOUNT",
        "STATE",
        "QUEUE",
        "PREPARE",
        "RUN",
        "SCRUB",
        "LEFT",
        "GITHUB",
        "REASON",
    ];
    let row = |job: &JobRow| {
        // A long reason stands in the last column, whoever gave it.
        let (state, reason) = match &job.outcome {
            Some(Outcome::Refused { reason }) => ("refused".into(), reason),
            Some(Outcome::Failed { reason }) => ("failed".into(), reason),
            Some(outcome) => (outcome.to_string(), &job.reason),
            None => (job.state.clone(), &job.reason),
        };
        let left = match job.clean {
            Some(true) => "0",
            Some(false) => "see status",
            None => "-",
        };
        [
            job.id.to_string(),
            job.repo.to_string(),
            job.event.clone(),
            job.route.as_str().into(),
            fence_of(job),
            job.slot.map_or("-".into(), |slot| slot.to_string()),
            job.account.clone().unwrap_or_else(|| "-".into()),
            state,
            between(Some(job.queued_ms), job.claimed_ms),
            between(job.claimed_ms, job.started_ms),
            between(job.started_ms, job.exited_ms),
            between(job.exited_ms, job.finished_ms),
            left.into(),
            job.github.as_ref().map_or("-".into(), run_of),
            reason.lines().next().unwrap_or_default().into(),
        ]
    };
    table(head, &jobs.iter().rev().map(row).collect::<Vec<_>>())
}

/// How strong the fence was that a job had, and whose it was.
fn fence_of(job: &JobRow) -> String {
    match (job.isolation, &job.backend) {
        (Some(isolation), Some(backend)) => format!("{} ({backend})", isolation.as_str()),
        (Some(isolation), None) => isolation.as_str().into(),
        (None, _) => "-".into(),
    }
}

/// The run of the job that ran, with its pull request.
fn run_of(at: &AtGitHub) -> String {
    let ticket = at.taken.as_ref().unwrap_or(&at.ticket);
    let pull = ticket
        .pull
        .map(|number| format!(" #{number}"))
        .unwrap_or_default();
    format!("{}{pull}", ticket.run)
}

fn tell(story: &Story) -> String {
    let job = &story.job;
    let mut lines = vec![
        format!("job      {}", job.id),
        format!("repo     {} ({})", job.repo, job.event),
        format!("command  {}", job.command.join(" ")),
        format!("route    {}: {}", job.route.as_str(), job.reason),
        format!("fence    {}", fence_of(job)),
        format!(
            "slot     {}",
            job.slot.map_or("-".into(), |slot| slot.to_string())
        ),
        format!("account  {}", job.account.as_deref().unwrap_or("-")),
        format!("state    {}", job.state),
        format!(
            "outcome  {}",
            job.outcome.as_ref().map_or("-".into(), ToString::to_string)
        ),
        format!(
            "memory   {}",
            job.memory_peak_byte
                .map_or("not measured".into(), |b| format!("{} MiB at most", b >> 20))
        ),
        format!(
            "output   {}",
            job.output_byte.map_or("-".into(), |b| format!("{b} bytes"))
        ),
    ];
    if let Some(at) = &job.github {
        lines.extend(at_github(at));
    }
    if let Some(EgressReport { blocked, incidents }) = &job.egress {
        lines.push(format!("blocked  {blocked}"));
        lines.extend(incidents.iter().map(|incident| format!("network  {incident}")));
    }
    let hint = |outcome| exit_hint(Os::host(), &job.id, outcome);
    if let Some(hint) = job.outcome.as_ref().and_then(hint) {
        lines.push(format!("hint     {hint}"));
    }
    lines.extend(story.left.iter().map(|left| format!("left     {left}")));
    let start = job.queued_ms;
    lines.push("states".into());
    lines.extend(story.transitions.iter().map(|step| {
        let reason = step.reason.as_deref().unwrap_or_default();
        format!(
            "  {} UTC  {:>8} ms  {:<10} {reason}",
            moment(step.at_ms),
            step.at_ms.saturating_sub(start),
            step.state
        )
        .trim_end()
        .to_owned()
    }));
    let axes = job
        .axes
        .clone()
        .and_then(|axes| serde_json::from_value::<Vec<_>>(axes).ok())
        .unwrap_or_default();
    let axes = if axes.is_empty() {
        String::new()
    } else {
        report(&axes)
    };
    lines.join("\n") + "\n" + &axes
}

/// What a job is at GitHub. Its name there is somebody else's text.
fn at_github(at: &AtGitHub) -> Vec<String> {
    let AtGitHub {
        ticket,
        runner,
        runner_id,
        taken,
    } = at;
    let page = |ticket: &Ticket| {
        let pull = ticket.pull.map(|number| format!(" of pull request {number}"));
        let Ticket {
            run,
            attempt,
            name,
            url,
            ..
        } = ticket;
        let pull = pull.unwrap_or_default();
        format!(
            "run {run}, attempt {attempt}{pull}, `{}`, {url}",
            name.escape_debug()
        )
    };
    let mut lines = vec![format!("github   {}", page(ticket))];
    if let Some(runner) = runner {
        let id = runner_id.map_or("number not known".to_owned(), |id| id.to_string());
        lines.push(format!("runner   {} ({id}) at {}", runner.name, runner.scope));
    }
    match taken {
        Some(taken) if taken.key() != ticket.key() => lines.push(format!("ran      {}", page(taken))),
        Some(_) | None => {}
    }
    lines
}

/// How things stand with GitHub.
fn github_text(report: &GitHubReport) -> String {
    let GitHubReport {
        asked_ms,
        held,
        failing,
        runner_version,
        runner_notice,
        stopped,
        requests,
        unchanged,
        remaining,
        clock_ahead_s,
    } = report;
    let asked = match asked_ms {
        Some(_) => format!("{requests} requests, {unchanged} of them unchanged"),
        None => "not asked yet".to_owned(),
    };
    let left = remaining.map_or(String::new(), |left| format!(", {left} left in this hour"));
    let version = runner_version.as_deref().unwrap_or("none yet");
    let mut lines = vec![format!("github: {asked}{left}; runner {version}")];
    lines.extend(runner_notice.iter().map(|notice| format!("  runner: {notice}")));
    lines.extend(
        clock_ahead_s
            .iter()
            .map(|seconds| format!("  clock: this host's is {seconds} s ahead of GitHub's; set it")),
    );
    if *stopped > 0 {
        lines.push(format!("  stopped before their first step: {stopped}"));
    }
    lines.extend(held.iter().map(|held| {
        let ticket = &held.ticket;
        let name = ticket.name.escape_debug();
        format!(
            "  held: {} run {} `{name}`: {}",
            ticket.repo, ticket.run, held.why
        )
    }));
    lines.extend(
        failing
            .iter()
            .map(|(repo, why)| format!("  not answering: {repo}: {why}")),
    );
    lines.join("\n") + "\n"
}

/// How things stand with guests.
fn vm_text(report: &VmReport) -> String {
    let mut lines = vec![];
    for kind in &report.kinds {
        let KindReport {
            guest,
            permits,
            running,
            queued,
            blocked,
            lost,
        } = kind;
        let (running, queued) = (running.len(), queued.len());
        lines.push(format!(
            "guests {guest}: {running} of {permits} running, {queued} queued\n"
        ));
        lines.extend(blocked.iter().map(|why| format!("  blocked: {why}\n")));
        lines.extend(
            lost.iter()
                .map(|what| format!("  not removed, its permit is held: {what}\n")),
        );
    }
    lines.concat()
}

/// What somebody should know about the configuration.
fn config_text(config: &ConfigReport) -> String {
    let ConfigReport {
        read_ms: _,
        failed,
        restart_needed,
    } = config;
    let failed = failed
        .iter()
        .map(|FailedReload { at_ms, why }| format!("not reloaded at {} UTC: {why}\n", moment(*at_ms)));
    let mut lines: Vec<String> = failed.collect();
    if !restart_needed.is_empty() {
        lines.push(format!("waits for a restart: {}\n", restart_needed.join(", ")));
    }
    lines.concat()
}

fn status_text(status: &StatusReport) -> String {
    let StatusReport {
        version,
        pid,
        data_dir,
        draining,
        queued,
        slots,
        axes,
        shut,
        full,
        github,
        vm,
        listen,
        fence,
        killed,
        config,
    } = status;
    let row = |slot: &SlotReport| {
        let now = match &slot.now {
            SlotNow::Free => "free".into(),
            SlotNow::Busy { job } => format!("running {job}"),
            SlotNow::Looking {} => "looking what a job would see".into(),
            SlotNow::Quarantined { reason } => format!("in quarantine: {reason}"),
        };
        [slot.index.to_string(), slot.account.clone(), now]
    };
    let draining = if *draining { ", draining" } else { "" };
    let shut = shut
        .as_ref()
        .map(|why| format!("no job is let through: {why}\n"))
        .unwrap_or_default();
    let full = full
        .as_ref()
        .map(|why| format!("no job starts: {why}\n"))
        .unwrap_or_default();
    let github = github.as_ref().map(github_text).unwrap_or_default();
    let vm = vm.as_ref().map(vm_text).unwrap_or_default();
    let fence = fence
        .as_ref()
        .map(|fence| match killed {
            0 => format!("dispatcher: {fence}\n"),
            killed => format!(
                "dispatcher: {fence}; {killed} before it were killed, and it went on with their jobs\n"
            ),
        })
        .unwrap_or_default();
    let page = match listen.as_deref() {
        None => String::new(),
        Some(at) if at.starts_with("unix:") => format!("page: {at}\n"),
        Some(at) => format!("page: http://{at}/\n"),
    };
    format!(
        "ephemerd {version}, pid {pid}, {data_dir}{draining}\n{fence}{page}{}{shut}{full}{}queued: {}\n{vm}{github}{}",
        config_text(config),
        table(
            ["SLOT", "ACCOUNT", "NOW"],
            &slots.iter().map(row).collect::<Vec<_>>()
        ),
        queued.len(),
        report(axes)
    )
}
