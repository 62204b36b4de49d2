//! Denials: what the macOS sandbox kept jobs from, and which named grant would allow it.
//!
//! The kernel reports a denial to the unified log, and nowhere else; every deny rule of a job's profile carries
//! the message `ephemerd:<job>`, which the kernel appends as the last line of its report:
//!
//! ```text
//!  log show ─► parse ─► Record ─► summarize ─► Denial with Advice
//! ```
//!
//! All of this is best effort and never a verdict. The log drops reports under load, and any sandboxed program
//! of the host can have a report written that ends in such a line, by asking for a path that does. None of it
//! has been run on a Mac: the forms of the reports are those that other projects parse, and whether a
//! `duplicate report` repeats the message is open.

pub mod advice;
pub mod parse;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use camino::Utf8PathBuf;
use serde::Serialize;

use crate::config::EgressMode;
use crate::host::command::{self, CommandError, CommandSpec};
use crate::host::{Host, Os};
use crate::job::{JobId, Outcome};
use advice::Advice;
use parse::{Reading, Record};

/// What every deny rule's message begins with; the job's id follows.
pub(crate) const TAG: &str = "ephemerd:";

/// How long the log may take to answer; another project allows as much, and had its answers within about a second.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Added to the time asked for, because reports are written a little after what they report.
const SLACK: Duration = Duration::from_secs(2);

/// EX_USAGE (sysexits.h): what `log` ends with inside a sandbox.
const EX_USAGE: i32 = 64;

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DenialsError {
    /// It refuses to run inside a sandbox.
    #[error(
        "the log cannot be read from inside a sandbox\nhint: run this outside of jobs, from a terminal of the host"
    )]
    Sandboxed(#[source] CommandError),
    /// It gives nothing to this account.
    #[error("this account may not read the log\nhint: run this as root or as an administrator")]
    NotPermitted(#[source] CommandError),
    /// It took too long.
    #[error("the log took too long to answer\nhint: ask for less, as with `--last 2m`")]
    Slow(#[source] CommandError),
    /// It failed otherwise.
    #[error("could not read the log")]
    Failed(#[source] CommandError),
}

/// Which reports to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Those of this job; otherwise of any.
    pub job: Option<JobId>,
    /// How far back.
    pub last: Duration,
    /// How long to wait for the answer.
    pub deadline: Duration,
}

impl Query {
    /// The command that prints the reports, one JSON object a line.
    ///
    /// A job's id is eleven letters and digits, so that nothing in the predicate can end its string.
    pub fn command(&self, host: &Host) -> CommandSpec {
        let tag = match &self.job {
            Some(job) => tag(job),
            None => TAG.to_owned(),
        };
        let last = (self.last + SLACK).as_secs();
        let last = format!("{last}s");
        let predicate = format!("process == \"kernel\" AND eventMessage CONTAINS \"{tag}\"");
        let args = [
            "show",
            "--style",
            "ndjson",
            "--last",
            &last,
            "--predicate",
            &predicate,
        ];
        CommandSpec::new(&host.mac.log, &args, self.deadline)
    }
}

/// The message of a job's deny rules.
pub(crate) fn tag(job: &JobId) -> String {
    format!("{TAG}{job}")
}

/// Asks the log of this host.
///
/// # Errors
/// The log cannot be asked, or does not answer in time.
pub fn ask(host: &Host, query: &Query) -> Result<Reading, DenialsError> {
    let spec = query.command(host);
    let output = command::run(&spec).map_err(|error| match error {
        CommandError::TimedOut { .. } => DenialsError::Slow(error),
        _ => DenialsError::Failed(error),
    })?;
    let code = output.status.code();
    let refuses = {
        let said = output.stderr.to_ascii_lowercase();
        ["admin", "not permitted", "permission"]
            .iter()
            .any(|word| said.contains(word))
    };
    let output = output.require_success(&spec).map_err(|error| match code {
        Some(EX_USAGE) => DenialsError::Sandboxed(error),
        _ if refuses => DenialsError::NotPermitted(error),
        _ => DenialsError::Failed(error),
    })?;
    let mut reading = parse::read(&output.stdout);
    if let Some(job) = &query.job {
        reading.records.retain(|record| record.job == *job);
    }
    Ok(reading)
}

/// What advice depends on besides the denial itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// Where daemon state and all jobs are.
    pub data_dir: Utf8PathBuf,
    /// The configuration file.
    pub config_file: Utf8PathBuf,
    /// What jobs reach already.
    pub egress: EgressMode,
}

/// Everything a job was denied of one kind: one operation on one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// The job.
    pub job: JobId,
    /// The operation, as the kernel names it.
    pub op: String,
    /// What it was tried on, where the kernel says.
    pub target: Option<String>,
    /// How often, as far as was reported.
    pub times: u64,
    /// The names of the programs that tried.
    pub by: BTreeSet<String>,
    /// When it was reported last, as the log writes it.
    pub last: Option<String>,
    /// Why it need not worry anybody, if it is of that kind.
    pub noise: Option<&'static str>,
    /// What would allow it.
    pub advice: Advice,
}

/// The denials among `records`: what matters first, the most frequent first.
pub fn summarize(records: Vec<Record>, ground: &Ground) -> Vec<Denial> {
    let mut denials: BTreeMap<(JobId, String, Option<String>), Denial> = BTreeMap::new();
    for record in records {
        let Record {
            job,
            times,
            process,
            op,
            target,
            at,
        } = record;
        let key = (job.clone(), op.clone(), target.clone());
        let denial = denials.entry(key).or_insert_with(|| Denial {
            noise: advice::noise(&op, target.as_deref()),
            advice: advice::advise(&job, &op, target.as_deref(), ground),
            job,
            op,
            target,
            times: 0,
            by: BTreeSet::new(),
            last: None,
        });
        denial.times = denial.times.saturating_add(times);
        denial.by.insert(process);
        denial.last = at.or(denial.last.take());
    }
    let mut denials: Vec<Denial> = denials.into_values().collect();
    denials.sort_by_key(|denial| (denial.job.clone(), denial.noise.is_some(), Reverse(denial.times)));
    denials
}

/// What to say about a job that ended as programs end when the sandbox keeps them from what they cannot do
/// without, a library for example: by SIGTRAP, SIGABRT or SIGKILL, without a word.
pub fn exit_hint(os: Os, job: &JobId, outcome: &Outcome) -> Option<String> {
    let signal = match (os, outcome) {
        (Os::Linux, _) => return None,
        (Os::MacOs, Outcome::Exited { code: 133 } | Outcome::Signalled { signal: 5 }) => "SIGTRAP",
        (Os::MacOs, Outcome::Exited { code: 134 } | Outcome::Signalled { signal: 6 }) => "SIGABRT",
        (Os::MacOs, Outcome::Exited { code: 137 } | Outcome::Signalled { signal: 9 }) => "SIGKILL",
        (Os::MacOs, _) => return None,
    };
    Some(format!(
        "{signal} is how programs often end that the sandbox denies something; see `ephemerd profile denials --job {job}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: &str) -> JobId {
        id.parse().unwrap()
    }

    fn ground() -> Ground {
        Ground {
            data_dir: "/private/var/lib/ephemerd".into(),
            config_file: "/private/etc/ephemerd/ephemerd.toml".into(),
            egress: EgressMode::Offline,
        }
    }

    fn record(op: &str, target: &str, times: u64, process: &str) -> Record {
        Record {
            job: job("00000000001"),
            times,
            process: process.into(),
            op: op.into(),
            target: Some(target.into()),
            at: Some(format!("2026-10-03 09:16:59.00000{times}+0000")),
        }
    }

    #[test]
    fn asks_for_the_tag_of_one_job_or_of_any() {
        let mut query = Query {
            job: Some(job("mwt2vlf2ewj")),
            last: Duration::from_mins(10),
            deadline: DEADLINE,
        };
        let host = Host::system();
        insta::assert_snapshot!(query.command(&host), @r#"/usr/bin/log show --style ndjson --last 602s --predicate 'process == "kernel" AND eventMessage CONTAINS "ephemerd:mwt2vlf2ewj"'"#);
        query.job = None;
        assert!(
            query
                .command(&host)
                .to_string()
                .ends_with(r#"CONTAINS "ephemerd:"'"#)
        );
    }

    #[test]
    fn no_job_id_can_end_the_string_of_the_predicate() {
        for id in ["abcdefghij\"", "a\" OR TRUE", "abcdefghij\\", "ABCDEFGHIJK"] {
            assert!(id.parse::<JobId>().is_err(), "{id}");
        }
    }

    #[test]
    fn counts_what_is_the_same_and_puts_noise_last() {
        let denials = summarize(
            vec![
                record("file-read-data", "/dev/dtracehelper", 9, "node"),
                record("file-read-data", "/opt/a/x", 1, "cc"),
                record("file-read-data", "/opt/b/x", 2, "cc"),
                record("file-read-data", "/opt/a/x", 6, "ld"),
            ],
            &ground(),
        );
        let told: Vec<_> = denials
            .iter()
            .map(|denial| (denial.target.as_deref().unwrap(), denial.times))
            .collect();
        assert_eq!(told, [("/opt/a/x", 7), ("/opt/b/x", 2), ("/dev/dtracehelper", 9)]);
        assert_eq!(denials[0].by, ["cc", "ld"].map(str::to_owned).into());
        assert_eq!(
            denials[0].last.as_deref(),
            Some("2026-10-03 09:16:59.000006+0000")
        );
        assert!(denials[2].noise.is_some());
    }

    #[test]
    fn points_from_silent_ends_to_the_denials_on_a_mac_only() {
        let id = job("00000000001");
        for outcome in [
            Outcome::Exited { code: 133 },
            Outcome::Exited { code: 134 },
            Outcome::Exited { code: 137 },
            Outcome::Signalled { signal: 5 },
        ] {
            assert!(exit_hint(Os::MacOs, &id, &outcome).is_some(), "{outcome}");
            assert_eq!(exit_hint(Os::Linux, &id, &outcome), None);
        }
        for outcome in [
            Outcome::Exited { code: 1 },
            Outcome::Signalled { signal: 15 },
            Outcome::Cancelled,
        ] {
            assert_eq!(exit_hint(Os::MacOs, &id, &outcome), None);
        }
    }
}
