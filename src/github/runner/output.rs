//! What the listener prints, line by line: how far it is, for people and never for decisions about trust.
//!
//! Standard output and error are read as one stream: a lost connection and a refused version are errors, what it is doing
//! is not (Runner.Listener/BrokerMessageListener.cs, Program.cs).
//!
//! The name of a job is whatever its author wrote, and a job may write to the listener's output itself, which belongs to
//! its account. So everything from the first `Running job:` on is hostile. Before it, a line is the listener's own. After
//! it, only what does no harm when it is made up is still passed on: that the connection is lost or back, that the
//! listener is on its way out, and the result of the job of that name, once. How a runner ended is its exit code, see
//! [`super::listener`]; which job it has is known from GitHub.
//!
//! Memory is bounded: a line is cut at [`LINE_BYTE`], and its rest is skipped.

use std::str::FromStr;

use super::listener::TaskResult;
use super::version::RunnerVersion;

/// Bytes of a line that are kept. GitHub cuts names of jobs far below.
pub const LINE_BYTE: usize = 4096;

/// Characters of a hostile text that are passed on.
const SHOWN: usize = 200;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is about to open its session, and says that it is connected. Nothing is known to work yet.
    Connected,
    /// The version of the runner.
    Version(RunnerVersion),
    /// It asks for a job. GitHub may still refuse the version after that.
    Listening,
    /// It has a job.
    Running {
        /// As its author calls it, cut, without what a terminal would obey.
        name: String,
    },
    /// The job is over.
    Completed {
        /// As with [`Event::Running`].
        name: String,
        /// How.
        result: TaskResult,
    },
    /// The connection is lost.
    Reconnecting(String),
    /// The connection is back.
    Reconnected,
    /// GitHub does not know the runner any more.
    Gone,
    /// It was interrupted.
    Exiting,
    /// GitHub does not take this version any more, or says so.
    Deprecated(RunnerVersion),
}

/// A listener's output so far.
#[derive(Debug, Default)]
pub struct Output {
    line: Vec<u8>,
    /// The name of the job, as it was printed.
    job: Option<String>,
    completed: bool,
}

impl Output {
    /// Nothing so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the listener said that it has a job.
    pub fn has_job(&self) -> bool {
        self.job.is_some()
    }

    /// Reads on, and returns what the lines that are complete now say.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let room = LINE_BYTE - self.line.len();
            self.line.extend_from_slice(text.get(..room).unwrap_or(text));
            if ends {
                events.extend(self.end_line());
            }
        }
        events
    }

    /// Returns what the last line says, which nothing ended.
    pub fn finish(&mut self) -> Option<Event> {
        self.end_line()
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches('\r');
        match &self.job {
            None => {
                let event = before_a_job(text);
                if let Some(Event::Running { .. }) = event {
                    self.job = running(text).map(str::to_owned);
                }
                event
            }
            Some(job) => {
                let result = completed(text, job).filter(|_| !self.completed);
                if let Some(result) = result {
                    self.completed = true;
                    let name = printable(job);
                    return Some(Event::Completed { name, result });
                }
                at_any_time(text)
            }
        }
    }
}

fn before_a_job(text: &str) -> Option<Event> {
    let said = after_time(text);
    if let Some(name) = running(text) {
        let name = printable(name);
        return Some(Event::Running { name });
    }
    if let Some(version) = between(text, "Current runner version: '", "'") {
        return RunnerVersion::from_str(version).ok().map(Event::Version);
    }
    // With the time in front or without, as it is an error of the session or of a message.
    let refused = between(
        said.unwrap_or(text),
        "An error occurred: Runner version v",
        " is deprecated and cannot receive messages.",
    );
    if let Some(version) = refused {
        return RunnerVersion::from_str(version).ok().map(Event::Deprecated);
    }
    // The mark is another one where the language has none.
    if text
        .strip_suffix("Connected to GitHub")
        .is_some_and(|mark| mark.chars().count() <= 2)
    {
        return Some(Event::Connected);
    }
    if said == Some("Listening for Jobs") {
        return Some(Event::Listening);
    }
    if text == "The runner no longer exists on the server. Cleaning up local configuration." {
        return Some(Event::Gone);
    }
    at_any_time(text)
}

fn at_any_time(text: &str) -> Option<Event> {
    if text == "Exiting..." {
        return Some(Event::Exiting);
    }
    let said = after_time(text)?;
    if said == "Runner reconnected." {
        return Some(Event::Reconnected);
    }
    let why = between(said, "Runner connect error: ", " Retrying until reconnected.")?;
    Some(Event::Reconnecting(printable(why)))
}

/// The name of the job in a line that says which is run.
fn running(text: &str) -> Option<&str> {
    after_time(text)?.strip_prefix("Running job: ")
}

/// The result in a line that says how `job` ended.
fn completed(text: &str, job: &str) -> Option<TaskResult> {
    let rest = after_time(text)?.strip_prefix("Job ")?.strip_prefix(job)?;
    TaskResult::from_word(rest.strip_prefix(" completed with result: ")?)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.strip_suffix(after)
}

/// What follows the time that the listener puts before its lines: `2026-08-17 10:00:00Z: `.
fn after_time(text: &str) -> Option<&str> {
    const SHAPE: &str = "0000-00-00 00:00:00Z: ";
    let (time, rest) = text.split_at_checked(SHAPE.len())?;
    let fits = |(found, shape): (u8, u8)| match shape {
        b'0' => found.is_ascii_digit(),
        _ => found == shape,
    };
    time.bytes().zip(SHAPE.bytes()).all(fits).then_some(rest)
}

/// `text` cut, and without what a terminal would obey or show as something else.
fn printable(text: &str) -> String {
    let is_mark = |c: char| {
        // What has no width or changes the direction of text (Unicode standard annex 9), and ends of lines.
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let harmless = |c: char| {
        if c.is_control() || is_mark(c) {
            '\u{fffd}'
        } else {
            c
        }
    };
    let mut shown: String = text.chars().take(SHOWN).map(harmless).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: impl AsRef<[u8]>) -> Vec<Event> {
        let mut output = Output::new();
        let mut events = output.feed(text.as_ref());
        events.extend(output.finish());
        events
    }

    fn version(text: &str) -> RunnerVersion {
        text.parse().unwrap()
    }

    fn running(name: &str) -> Event {
        let name = name.to_owned();
        Event::Running { name }
    }

    fn completed(name: &str, result: TaskResult) -> Event {
        let name = name.to_owned();
        Event::Completed { name, result }
    }

    #[test]
    fn the_output_of_a_whole_job_is_read() {
        let text = "\n√ Connected to GitHub\n\nCurrent runner version: '2.336.0'\n\
            2026-08-17 10:00:00Z: Listening for Jobs\n\
            2026-08-17 10:00:03Z: Runner connect error: No route to host. Retrying until reconnected.\r\n\
            2026-08-17 10:00:04Z: Runner reconnected.\r\n\
            2026-08-17 10:00:05Z: Running job: build (macos)\n\
            2026-08-17 10:03:05Z: Job build (macos) completed with result: SucceededWithIssues\n\
            Exiting...";
        assert_eq!(
            read(text),
            [
                Event::Connected,
                Event::Version(version("2.336.0")),
                Event::Listening,
                Event::Reconnecting("No route to host.".to_owned()),
                Event::Reconnected,
                running("build (macos)"),
                completed("build (macos)", TaskResult::SucceededWithIssues),
                Event::Exiting,
            ]
        );
    }

    #[test]
    fn a_refused_version_and_a_runner_that_is_gone_are_told_with_the_time_and_without() {
        let said = "An error occurred: Runner version v2.320.0 is deprecated and cannot receive messages.";
        for text in [said.to_owned(), format!("2026-08-17 10:00:00Z: {said}")] {
            assert_eq!(read(text), [Event::Deprecated(version("2.320.0"))]);
        }
        let gone = "The runner no longer exists on the server. Cleaning up local configuration.\n";
        assert_eq!(read(gone), [Event::Gone]);
    }

    #[test]
    fn a_line_counts_only_from_its_beginning_and_with_a_whole_time() {
        for text in [
            "x2026-08-17 10:00:00Z: Listening for Jobs",
            "2026-08-17 10:00:00: Listening for Jobs",
            "2026-08-17 1O:00:00Z: Listening for Jobs",
            "Listening for Jobs",
            " Exiting...",
            "Exiting.... ",
            "Running job: x",
            "Current runner version: '2.336'",
            "Current runner version: '2.336.0",
            "Current runner version: ''; rm",
            "never Connected to GitHub",
        ] {
            assert_eq!(read(text), [], "{text}");
        }
    }

    #[test]
    fn after_the_first_job_no_line_can_pass_for_another_job_a_version_or_a_refusal() {
        let text = "2026-08-17 10:00:05Z: Running job: evil\n\
            2026-08-17 10:00:05Z: Running job: other\n\
            2026-08-17 10:00:05Z: Job other completed with result: Succeeded\n\
            Current runner version: '9.9.9'\n\
            An error occurred: Runner version v2.336.0 is deprecated and cannot receive messages.\n\
            The runner no longer exists on the server. Cleaning up local configuration.\n\
            2026-08-17 10:00:05Z: Listening for Jobs\n\
            √ Connected to GitHub\n\
            2026-08-17 10:00:06Z: Job evil completed with result: Failed\n\
            2026-08-17 10:00:07Z: Job evil completed with result: Succeeded\n";
        assert_eq!(
            read(text),
            [running("evil"), completed("evil", TaskResult::Failed)]
        );
    }

    #[test]
    fn a_name_that_imitates_the_end_of_its_own_line_ends_where_the_listener_says() {
        let name = "x completed with result: Succeeded";
        let text = format!(
            "2026-08-17 10:00:05Z: Running job: {name}\n\
             2026-08-17 10:00:06Z: Job x completed with result: Succeeded\n\
             2026-08-17 10:00:06Z: Job {name} completed with result: Canceled\n"
        );
        assert_eq!(read(text), [running(name), completed(name, TaskResult::Canceled)]);
    }

    #[test]
    fn names_are_shown_without_what_a_terminal_obeys_and_not_longer_than_a_line() {
        let text = "2026-08-17 10:00:05Z: Running job: a\u{1b}[2J\u{202e}\u{200b}b\tc\n";
        assert_eq!(read(text), [running("a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}c")]);
        let long = format!("2026-08-17 10:00:05Z: Running job: {}", "é".repeat(10_000));
        assert_eq!(read(long), [running(&format!("{}…", "é".repeat(SHOWN)))]);
        let mut broken = b"2026-08-17 10:00:05Z: Running job: ".to_vec();
        broken.extend([0xff, b'a', 0xc3]);
        assert_eq!(read(broken), [running("\u{fffd}a\u{fffd}")]);
    }

    #[test]
    fn the_rest_of_a_line_that_was_cut_is_no_line_of_its_own() {
        let mut output = Output::new();
        assert_eq!(output.feed(&[b'x'; LINE_BYTE]), []);
        assert_eq!(output.feed(b"Exiting...\nExiting...\n"), [Event::Exiting]);
    }

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let known = prop::sample::select(vec![
            "√ Connected to GitHub",
            "Current runner version: '2.336.0'",
            "2026-08-17 10:00:00Z: Listening for Jobs",
            "2026-08-17 10:00:05Z: Running job: a",
            "2026-08-17 10:00:05Z: Job a completed with result: Succeeded",
            "Exiting...",
        ]);
        let line = prop_oneof![
            known.prop_map(|line| line.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..60),
            "2026-08-17 10:00:05Z: (Running job: |Job |Runner )?\\PC{0,20}".prop_map(String::into_bytes),
            (0usize..3 * LINE_BYTE).prop_map(|length| vec![b'a'; length]),
        ];
        prop::collection::vec(line, 0..12).prop_map(|lines| lines.join(&b'\n'))
    }

    proptest! {
        #[test]
        fn however_the_bytes_come_memory_is_bounded_and_the_events_are_the_same(bytes in lines(), size in 1usize..5000) {
            let mut output = Output::new();
            let mut events = Vec::new();
            for chunk in bytes.chunks(size) {
                events.extend(output.feed(chunk));
                prop_assert!(output.line.len() <= LINE_BYTE);
                prop_assert!(output.job.as_ref().is_none_or(|job| job.len() <= 3 * LINE_BYTE));
            }
            events.extend(output.finish());
            let jobs = events.iter().filter(|event| matches!(event, Event::Running { .. })).count();
            let ends = events.iter().filter(|event| matches!(event, Event::Completed { .. })).count();
            prop_assert!(jobs <= 1 && ends <= jobs);
            prop_assert_eq!(events, read(bytes));
        }
    }
}
