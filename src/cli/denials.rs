//! `ephemerd profile denials`: what the sandbox of macOS kept jobs from, from the unified log.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use camino::Utf8PathBuf;
use clap::Args;
use serde::Serialize;

use super::Format;
use crate::config::Config;
use crate::config::size::parse_duration;
use crate::host::{Host, Os};
use crate::job::JobId;
use crate::job::ledger::JobRow;
use crate::profile::denials::advice::Advice;
use crate::profile::denials::parse::{Reading, Rest};
use crate::profile::denials::{DEADLINE, Denial, Ground, Query, ask, summarize};

/// How many are shown unless it is asked for more.
const SHOWN: usize = 32;

/// Version of the JSON answer.
const VERSION: u32 = 1;

/// Arguments of `profile denials`.
#[derive(Debug, Args)]
pub struct DenialsArgs {
    /// Those of this job only.
    #[arg(long)]
    pub job: Option<JobId>,
    /// How far back to look.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    pub last: Duration,
    /// How many to show at most.
    #[arg(long, value_name = "N", default_value_t = SHOWN)]
    pub limit: usize,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// The JSON answer.
#[derive(Debug, Serialize)]
struct Answer {
    version: u32,
    /// Why there can be no answer on this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<&'static str>,
    denials: Vec<Denial>,
    /// How many more there are than are shown.
    left_out: usize,
    /// Whether the log was read to its end.
    complete: bool,
    rest: Rest,
}

/// What stands in for denials on Linux.
const ON_LINUX: &str = "\
Linux keeps no record of what these profiles deny, so there is none to show.
  What a job may not see does not exist for it (ENOENT) or is read-only (EROFS); nobody reports that.
  Landlock (EACCES) reports to the audit system from Linux 6.15 on (ABI 7), where auditd runs.
  The system call filter answers with errors and leaves no record; a 32-bit call ends the process by SIGSYS.
What to do instead:
  `ephemerd profile render` prints everything a job may do; what is not in it is denied.
  `ephemerd profile verify` tries it out on this host.
  strace(1), outside of jobs, shows what a command opens; compare that with the profile.
";

/// Prints what jobs were denied to `out`. Ends with 3 where the system keeps no record of it.
///
/// # Errors
/// The log cannot be read, or `out` cannot be written to.
pub fn run(
    args: &DenialsArgs,
    config: &Config,
    config_file: Utf8PathBuf,
    host: &Host,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let (answer, code) = match host.os {
        Os::Linux => (unavailable(), 3),
        Os::MacOs => {
            let query = Query {
                job: args.job.clone(),
                last: args.last,
                deadline: DEADLINE,
            };
            let ground = Ground {
                data_dir: config.host.data_dir.clone(),
                config_file,
                egress: config.egress.mode,
            };
            (answer(ask(host, &query)?, &ground, args.limit), 0)
        }
    };
    match args.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&answer)?)?,
        Format::Text => out.write_all(as_text(&answer).as_bytes())?,
    }
    Ok(ExitCode::from(code))
}

/// How long ago a job may have begun whose denials are looked for unasked: log(1) reads everything since then.
const RECENT: Duration = Duration::from_hours(1);

/// What a job was denied, for its story; nothing for one that had no slot. What keeps that from being known is said in
/// place of it.
pub fn of_job(
    job: &JobRow,
    (config, config_file): (&Config, Utf8PathBuf),
    host: &Host,
    now: SystemTime,
) -> String {
    let (Some(_), Some(since)) = (job.slot, job.claimed_ms) else {
        return String::new();
    };
    let ago = now.duration_since(UNIX_EPOCH + Duration::from_millis(since));
    let last = ago.unwrap_or_default() + Duration::from_mins(1);
    let command = format!(
        "`ephemerd profile denials --job {} --last {}s`",
        job.id,
        last.as_secs()
    );
    if host.os == Os::Linux {
        return "denials\n  Linux keeps no record of them; `ephemerd profile render` prints what is allowed\n".to_owned();
    }
    if last > RECENT {
        return format!("denials\n  not looked for, it is a while ago: {command}\n");
    }
    let query = Query {
        job: Some(job.id.clone()),
        last,
        deadline: DEADLINE,
    };
    let ground = Ground {
        data_dir: config.host.data_dir.clone(),
        config_file,
        egress: config.egress.mode,
    };
    let text = match ask(host, &query) {
        Ok(reading) => as_text(&answer(reading, &ground, SHOWN)),
        Err(error) => format!("cannot be read: {}\n", crate::chain(&error)),
    };
    let text: String = text.lines().map(|line| format!("  {line}\n")).collect();
    format!("denials\n{text}")
}

fn unavailable() -> Answer {
    Answer {
        version: VERSION,
        unavailable: Some(ON_LINUX),
        denials: Vec::new(),
        left_out: 0,
        complete: false,
        rest: Rest::default(),
    }
}

fn answer(reading: Reading, ground: &Ground, limit: usize) -> Answer {
    let mut denials = summarize(reading.records, ground);
    let left_out = denials.len().saturating_sub(limit);
    denials.truncate(limit);
    Answer {
        version: VERSION,
        unavailable: None,
        denials,
        left_out,
        complete: reading.complete,
        rest: reading.rest,
    }
}

fn as_text(answer: &Answer) -> String {
    if let Some(why) = answer.unavailable {
        return why.to_owned();
    }
    let mut lines = Vec::new();
    let mut job = None;
    for denial in &answer.denials {
        if job != Some(&denial.job) {
            lines.push(format!("job {}", denial.job));
            job = Some(&denial.job);
        }
        lines.extend(denial_lines(denial));
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines.extend(closing(answer));
    lines.join("\n") + "\n"
}

/// A denial, and below it what would allow it.
fn denial_lines(denial: &Denial) -> [String; 2] {
    let by: Vec<String> = denial.by.iter().map(|name| printable(name)).collect();
    let first = format!(
        "  {:>5} x  {}  {}  ({})",
        denial.times,
        printable(&denial.op),
        denial.target.as_deref().map_or("-".into(), printable),
        by.join(", ")
    );
    let advice = match (&denial.noise, &denial.advice) {
        (Some(why), _) => format!("noise: {why}"),
        (None, Advice::Grant { key, path }) => {
            let path = toml::Value::from(path.as_str());
            format!("allow it with {key} = [{path}], in [repos.\"OWNER/NAME\"] or in [native]")
        }
        (None, Advice::Egress) => "allow it with mode = \"block-lan\" in [egress], for every job".into(),
        (None, Advice::OnPurpose { why }) => format!("denied on purpose: {why}"),
        (None, Advice::NoGrant { why }) => format!("no grant: {why}"),
    };
    [first, format!("           {}", printable(&advice))]
}

/// What the answer is worth.
fn closing(answer: &Answer) -> Vec<String> {
    let Answer {
        denials,
        left_out,
        complete,
        rest,
        ..
    } = answer;
    let mut lines = Vec::new();
    if denials.is_empty() && *left_out == 0 {
        lines.push("no denial of a job is in the log".to_owned());
    }
    if *left_out > 0 {
        lines.push(format!("{left_out} more are not shown; `--limit` shows more"));
    }
    if !complete {
        lines.push(
            "the log's answer has no end: it was longer than what is read of it; take a shorter `--last`, or one job"
                .to_owned(),
        );
    }
    if rest.not_understood > 0 {
        lines.push(format!(
            "not shown, because their form is not known: reports of denials, {}",
            rest.not_understood
        ));
    }
    lines.push(
        "the log drops reports under load: what is not here may have been denied all the same".to_owned(),
    );
    lines
}

/// `text`, which a job had a say in, without what a terminal would obey or show as something else.
fn printable(text: &str) -> String {
    let is_mark = |c: char| {
        // Marks that change the direction of text (Unicode standard annex 9).
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let escaped = |c: char| {
        if c.is_control() || is_mark(c) {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_cannot_steer_the_terminal() {
        assert_eq!(printable("/a\x1b[2J\n\u{202e}b é"), "/a\\u{1b}[2J\\n\\u{202e}b é");
    }
}
