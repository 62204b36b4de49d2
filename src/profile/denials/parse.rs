//! From the text that `log show --style ndjson` prints to records.
//!
//! A row's `eventMessage` has one of these forms, where NAME may hold spaces and TARGET spaces and newlines:
//!
//! ```text
//!  Sandbox: NAME(PID) deny(1) OPERATION
//!  Sandbox: NAME(PID) deny(1) OPERATION TARGET
//!  5 duplicate reports for Sandbox: NAME(PID) deny(1) OPERATION TARGET
//! ```
//!
//! followed by the deny rule's message on a line of its own. A path may hold a newline and a text that looks
//! like such a message, so that only the very last line counts.

use serde::{Deserialize, Serialize};

use super::TAG;
use crate::job::JobId;

/// One report about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The job, as the deny rule's message says.
    pub job: JobId,
    /// How many denials it stands for.
    pub times: u64,
    /// The program's name.
    pub process: String,
    /// The operation.
    pub op: String,
    /// What it was tried on.
    pub target: Option<String>,
    /// When it was reported, as the log writes it.
    pub at: Option<String>,
}

/// What a text holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The reports about jobs, in their order.
    pub records: Vec<Record>,
    /// What else there is.
    pub rest: Rest,
    /// Whether the last row, which says that there are no more, is there.
    pub complete: bool,
}

/// Lines that are no reports about jobs, by what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rest {
    /// Denials whose last line is no job's message: of other programs' sandboxes.
    pub of_others: u64,
    /// Rows that are no denial or do not come from the kernel's sandbox.
    pub no_denial: u64,
    /// Rows that speak of a denial in a form that is not known.
    pub not_understood: u64,
    /// Lines that are no row: banners, and rows that were cut off.
    pub no_row: u64,
}

/// A row, with the names that log(1) gives its fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    event_message: Option<String>,
    timestamp: Option<String>,
    #[serde(rename = "processID")]
    process_id: Option<i64>,
    sender_image_path: Option<String>,
    finished: Option<serde_json::Value>,
}

impl Row {
    /// Whether the kernel's sandbox wrote it, as far as it says who did.
    fn is_of_the_sandbox(&self) -> bool {
        self.process_id.is_none_or(|pid| pid == 0)
            && self
                .sender_image_path
                .as_ref()
                .is_none_or(|path| path.ends_with("/Sandbox"))
    }
}

/// The records in the output of `log show`.
pub fn read(text: &str) -> Reading {
    let mut reading = Reading::default();
    let rest = &mut reading.rest;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let Ok(row) = serde_json::from_str::<Row>(line) else {
            rest.no_row += 1;
            continue;
        };
        if row.finished.is_some() {
            reading.complete = true;
            continue;
        }
        let message = match &row.event_message {
            Some(message) if row.is_of_the_sandbox() => message,
            _ => {
                rest.no_denial += 1;
                continue;
            }
        };
        let (report, job) = tagged(message);
        match (denied(report), job) {
            (Some(denied), Some(job)) => reading.records.push(Record {
                job,
                times: denied.times,
                process: denied.process.to_owned(),
                op: denied.op.to_owned(),
                target: denied.target.map(str::to_owned),
                at: row.timestamp,
            }),
            (Some(_), None) => rest.of_others += 1,
            (None, _) if report.contains(" deny(") => rest.not_understood += 1,
            (None, _) => rest.no_denial += 1,
        }
    }
    reading
}

/// A report without its last line, and the job that line names; the whole report when it names none.
fn tagged(message: &str) -> (&str, Option<JobId>) {
    let message = message.strip_suffix('\n').unwrap_or(message);
    let named = message.rsplit_once('\n').and_then(|(report, last)| {
        let job = last.strip_prefix(TAG)?.parse().ok()?;
        Some((report, job))
    });
    match named {
        Some((report, job)) => (report, Some(job)),
        None => (message, None),
    }
}

/// The parts of a report.
#[derive(Debug, PartialEq, Eq)]
struct Denied<'a> {
    times: u64,
    process: &'a str,
    op: &'a str,
    target: Option<&'a str>,
}

/// The parts of a report, when it is one of the known forms.
fn denied(report: &str) -> Option<Denied<'_>> {
    let (times, report) = match report.strip_prefix("Sandbox: ") {
        Some(report) => (1, report),
        None => duplicates(report)?,
    };
    let (process, what) = report.match_indices(") deny(").find_map(|(at, between)| {
        let (process, pid) = report[..at].rsplit_once('(')?;
        let (errno, what) = report[at + between.len()..].split_once(") ")?;
        let is_report = !process.is_empty() && is_number(pid) && is_number(errno);
        is_report.then_some((process, what))
    })?;
    let (op, target) = match what.split_once(' ') {
        Some((op, target)) => (op, Some(target)),
        None => (what, None),
    };
    (!op.is_empty() && !op.contains(char::is_whitespace)).then_some(Denied {
        times,
        process,
        op,
        target: target.filter(|target| !target.is_empty()),
    })
}

/// How often a report repeats, and the report.
fn duplicates(report: &str) -> Option<(u64, &str)> {
    let (times, report) = report.split_once(" duplicate report")?;
    let report = report.strip_prefix('s').unwrap_or(report);
    let report = report.strip_prefix(" for Sandbox: ")?;
    Some((times.parse().ok()?, report))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "mwt2vlf2ewj";

    /// A row as the kernel's sandbox would have it, with this message.
    fn row(message: &str) -> String {
        serde_json::json!({
            "timestamp": "2026-10-03 09:16:59.318613+0400",
            "processID": 0,
            "senderImagePath": "/System/Library/Extensions/Sandbox.kext/Contents/MacOS/Sandbox",
            "eventMessage": message,
        })
        .to_string()
    }

    /// The only record of a message with the job's tag.
    fn only(message: &str) -> Record {
        let reading = read(&row(&format!("{message}\nephemerd:{JOB}")));
        assert_eq!(reading.records.len(), 1, "{message}: {reading:?}");
        reading.records.into_iter().next().unwrap()
    }

    #[test]
    fn reads_every_form_of_a_report() {
        let cases: [(&str, u64, &str, &str, Option<&str>); 8] = [
            (
                "Sandbox: curl(13590) deny(1) network-outbound remote:*:443",
                1,
                "curl",
                "network-outbound",
                Some("remote:*:443"),
            ),
            (
                "Sandbox: Gradle Worker(10) deny(1) signal",
                1,
                "Gradle Worker",
                "signal",
                None,
            ),
            (
                "Sandbox: a (b) c.d(7) deny(22) file-read-data /a b/c",
                1,
                "a (b) c.d",
                "file-read-data",
                Some("/a b/c"),
            ),
            (
                "Sandbox: sh(1) deny(1) file-read-data /a\nb c\n",
                1,
                "sh",
                "file-read-data",
                Some("/a\nb c\n"),
            ),
            (
                "Sandbox: sh(1) deny(1) file-read-data /x(2) deny(1) y",
                1,
                "sh",
                "file-read-data",
                Some("/x(2) deny(1) y"),
            ),
            (
                "5 duplicate reports for Sandbox: bash(13486) deny(1) file-write-create /o",
                5,
                "bash",
                "file-write-create",
                Some("/o"),
            ),
            (
                "1 duplicate report for Sandbox: bash(13486) deny(1) process-fork",
                1,
                "bash",
                "process-fork",
                None,
            ),
            (
                "Sandbox: sh(1) deny(1) mach-lookup ",
                1,
                "sh",
                "mach-lookup",
                None,
            ),
        ];
        for (message, times, process, op, target) in cases {
            let record = only(message);
            assert_eq!(
                (record.times, record.process.as_str(), record.op.as_str()),
                (times, process, op),
                "{message}"
            );
            assert_eq!(record.target.as_deref(), target, "{message}");
            assert_eq!(record.at.as_deref(), Some("2026-10-03 09:16:59.318613+0400"));
        }
    }

    #[test]
    fn only_the_very_last_line_names_the_job() {
        let report = "Sandbox: sh(1) deny(1) file-read-data /a\nephemerd:0000000000b";
        assert_eq!(
            only(report).target.as_deref(),
            Some("/a\nephemerd:0000000000b"),
            "a tag inside a path is part of the path"
        );
        for last in [
            "ephemerd:mwt2vlf2ewj ",
            " ephemerd:mwt2vlf2ewj",
            "xephemerd:mwt2vlf2ewj",
            "ephemerd:mwt2vlf2ewjx",
            "ephemerd:MWT2VLF2EWJ",
            "ephemerd:",
            "ephemerd:mwt2vlf2ewj\n\n",
        ] {
            let reading = read(&row(&format!("Sandbox: sh(1) deny(1) file-read-data /a\n{last}")));
            assert_eq!(reading.records, [], "{last:?}");
            assert_eq!(reading.rest.of_others, 1, "{last:?}");
        }
        let one_line = read(&row("Sandbox: sh(1) deny(1) x ephemerd:mwt2vlf2ewj"));
        assert_eq!((one_line.records.len(), one_line.rest.of_others), (0, 1));
    }

    #[test]
    fn a_row_that_does_not_come_from_the_sandbox_is_no_denial() {
        let message = format!("Sandbox: sh(1) deny(1) file-read-data /a\\nephemerd:{JOB}");
        for fields in [
            r#""processID":501"#,
            r#""processID":0,"senderImagePath":"/usr/lib/libfoo.dylib""#,
        ] {
            let reading = read(&format!(r#"{{"eventMessage":"{message}",{fields}}}"#));
            assert_eq!(
                (reading.records.len(), reading.rest.no_denial),
                (0, 1),
                "{fields}"
            );
        }
        assert_eq!(
            read(&format!(r#"{{"eventMessage":"{message}"}}"#)).records.len(),
            1
        );
    }

    #[test]
    fn counts_what_it_leaves_out_and_sees_the_end() {
        let cut = row("Sandbox: sh(1) deny(1) file-read-data /a");
        let text = [
            "Filtering the log data using \"process == \\\"kernel\\\"\"",
            "",
            &row("Sandbox: sh(1) allow file-read-data /a"),
            &row("Sandbox: deny(1) what"),
            &row("x duplicate reports for Sandbox: sh(1) deny(1) y"),
            &row("Sandbox: sh(1) deny(1) file-read-data <private>"),
            &cut[..cut.len() - 9],
        ]
        .join("\n");
        let reading = read(&text);
        assert_eq!(
            reading.rest,
            Rest {
                of_others: 1,
                no_denial: 1,
                not_understood: 2,
                no_row: 2,
            }
        );
        assert!(!reading.complete);
        assert!(read("{\"count\":0,\"finished\":1}\n").complete);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_fail(text in "(?s).{0,200}") {
            read(&text);
            read(&row(&text));
        }

        #[test]
        fn any_target_comes_back(target in "(?s)[^\0]{1,60}") {
            let record = only(&format!("Sandbox: sh(1) deny(1) file-read-data {target}"));
            proptest::prop_assert_eq!(record.target.as_deref(), Some(target.as_str()));
        }
    }
}
