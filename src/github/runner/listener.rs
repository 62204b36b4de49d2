//! The listener: how it is started, and what its end means.
//!
//! It is started directly and not through `run.sh`, which turns most exit codes into 0. Two variables make it tell the
//! result of the job and an outdated version apart from everything else. No secret is in its arguments or environment:
//! those of other processes can be read; what it must know is in files, see [`super::jit`].

use std::collections::BTreeMap;
use std::fmt;

use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use crate::host::Os;

/// The listener, from the top of the tree.
pub const PROGRAM: &str = "bin/Runner.Listener";

/// Makes the exit code 100 and the job's result (Runner.Listener/Runner.cs:328).
const RETURN_RESULT: &str = "ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED";

/// Makes the exit code 7 when GitHub refuses the version (Runner.Common/Constants.cs).
const RETURN_DEPRECATED: &str = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE";

/// The program that runs before the first step of a job (docs/adrs/1751-runner-job-hooks.md).
pub const HOOK_STARTED: &str = "ACTIONS_RUNNER_HOOK_JOB_STARTED";

/// Variables with these beginnings are ours alone. Every argument of the listener can be given as the first kind of
/// variable (Runner.Listener/CommandSettings.cs), a hook runs before or after every job, and the last two put the runner's
/// own log and colours into the output that we read.
const OURS: [&str; 5] = [
    "ACTIONS_RUNNER_INPUT_",
    "ACTIONS_RUNNER_HOOK_",
    "ACTIONS_RUNNER_RETURN_",
    "ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT",
    "DOTNET_SYSTEM_CONSOLE_ALLOW_ANSI_COLOR_REDIRECTION",
];

/// Returns program and arguments that start the listener of the tree at `root`.
pub fn argv(root: &Utf8Path) -> Vec<String> {
    vec![root.join(PROGRAM).into_string(), "run".to_owned()]
}

/// Returns the whole environment of the listener: `job`, the environment of any job, without what would steer the
/// runner, and with what we say to it. `hook` runs before the first step of the job.
pub fn environment(
    os: Os,
    job: &BTreeMap<String, String>,
    hook: Option<&Utf8Path>,
) -> BTreeMap<String, String> {
    // The runner takes names of some of them in any case.
    let begins = |name: &str, ours: &str| {
        let start = name.get(..ours.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(ours))
    };
    let stays = |name: &str| !OURS.iter().any(|ours| begins(name, ours));
    let mut environment: BTreeMap<_, _> = job
        .iter()
        .filter(|(name, _)| stays(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    // The runner expects UTF-8; macOS has no `C.UTF-8`, and many a Linux nothing else.
    let language = match os {
        Os::MacOs => "en_US.UTF-8",
        Os::Linux => "C.UTF-8",
    };
    let said = [
        ("LANG", Some(language)),
        ("LC_ALL", Some(language)),
        (RETURN_RESULT, Some("1")),
        (RETURN_DEPRECATED, Some("1")),
        (HOOK_STARTED, hook.map(Utf8Path::as_str)),
    ];
    let said = said
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    environment.extend(said);
    environment
}

/// How GitHub calls the end of a job (Sdk/DTWebApi/WebApi/TaskResult.cs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskResult {
    /// Every step did.
    Succeeded,
    /// Every step that must.
    SucceededWithIssues,
    /// A step failed, or the job was ended from here.
    Failed,
    /// Somebody cancelled it at GitHub.
    Canceled,
    /// No step ran.
    Skipped,
    /// GitHub gave it up.
    Abandoned,
}

/// Every result in the order of its number, which the exit code is above 100.
const RESULTS: [TaskResult; 6] = [
    TaskResult::Succeeded,
    TaskResult::SucceededWithIssues,
    TaskResult::Failed,
    TaskResult::Canceled,
    TaskResult::Skipped,
    TaskResult::Abandoned,
];

impl TaskResult {
    /// The result that the listener prints as `word`.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        RESULTS.into_iter().find(|result| result.to_string() == word)
    }
}

impl fmt::Display for TaskResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "Succeeded",
            Self::SucceededWithIssues => "SucceededWithIssues",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
            Self::Skipped => "Skipped",
            Self::Abandoned => "Abandoned",
        })
    }
}

/// How the listener's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What the listener's end says (Runner.Common/Constants.cs:150, `ReturnCode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// 0: interrupted, not wanted any more, or done with a job whose result it did not say.
    Silent,
    /// 1: it could not run; configuration, credentials or GitHub refused it.
    Terminated,
    /// 2: it would like to be started again.
    Retryable,
    /// 3 and 4: it has begun to replace its own program, which it was told not to do.
    Updating,
    /// 5: GitHub says that a runner of this name is there already.
    SessionConflict,
    /// 6: its settings were replaced.
    Refreshed,
    /// 7: GitHub does not take this version any more, or says so.
    Deprecated,
    /// 100 and more: it ran a job.
    Ran(TaskResult),
    /// A signal ended it.
    Signal(i32),
    /// No code that it is known to end with.
    Unknown(i32),
}

impl From<Exit> for Ending {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Signal(number) => Self::Signal(number),
            Exit::Code(0) => Self::Silent,
            Exit::Code(1) => Self::Terminated,
            Exit::Code(2) => Self::Retryable,
            Exit::Code(3 | 4) => Self::Updating,
            Exit::Code(5) => Self::SessionConflict,
            Exit::Code(6) => Self::Refreshed,
            Exit::Code(7) => Self::Deprecated,
            Exit::Code(code) => {
                let number = code.checked_sub(100).and_then(|n| usize::try_from(n).ok());
                let result = number.and_then(|n| RESULTS.get(n).copied());
                result.map_or(Self::Unknown(code), Self::Ran)
            }
        }
    }
}

/// Whether the runner is known to have been given a job, from GitHub's answers or from the hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// None.
    NoJob,
    /// One.
    Job,
}

/// How often the same runner is started again. GitHub's own service does it ten times
/// (Misc/layoutbin/RunnerService.js); a runner for one job is cheaper made anew.
pub const RELAUNCHES: u32 = 3;

/// What follows from a listener's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The job is over. `None` when the listener did not say how: GitHub knows.
    Finished(Option<TaskResult>),
    /// It ended without a job: what jobs wait is looked at again.
    NothingRan,
    /// The same runner is started again.
    Relaunch,
    /// This version may not be taken any more: the watchdog of [`super::version`] decides. A job it was given has failed.
    UpgradeRunner,
    /// A runner of this name has a session: it is deleted by its id, and one with another name is made.
    Conflict,
    /// It failed; nothing is started again by itself.
    Failed(Why),
}

/// Why a runner failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It could not run at all.
    #[error("the runner could not start its session\nhint: see the end of its output; `_diag` has more")]
    Terminated,
    /// It would like to be started again, and must not with a job it was given.
    #[error("the runner gave up while it had a job\nhint: run the job again")]
    GaveUp,
    /// It has been started again often enough.
    #[error(
        "the runner gave up {RELAUNCHES} times\nhint: see the end of its output; GitHub may be out of reach"
    )]
    TooOften,
    /// Its program may be a mixture of two versions.
    #[error(
        "the runner began to replace its own program, which it was told not to do\nhint: update ephemerd"
    )]
    UpdatedItself,
    /// Its settings are not those we made sure of.
    #[error("the runner's settings were replaced from outside\nhint: update ephemerd")]
    SettingsReplaced,
    /// A signal ended it.
    #[error("signal {0} ended the runner")]
    Signal(i32),
    /// Nobody knows.
    #[error("the runner ended with code {0}, which means nothing known\nhint: update ephemerd")]
    Unknown(i32),
}

impl Ending {
    /// What follows, for a runner that was started again `relaunches` times already.
    pub fn next(self, observed: Observed, relaunches: u32) -> Next {
        match (self, observed) {
            // The code is the listener's own word for a job it ran, whether or not anybody else saw it.
            (Self::Ran(result), _) => Next::Finished(Some(result)),
            (Self::Silent, Observed::Job) => Next::Finished(None),
            (Self::Silent, Observed::NoJob) => Next::NothingRan,
            (Self::Deprecated, _) => Next::UpgradeRunner,
            (Self::SessionConflict, Observed::NoJob) => Next::Conflict,
            (Self::Retryable, Observed::NoJob) if relaunches < RELAUNCHES => Next::Relaunch,
            (Self::Retryable, Observed::NoJob) => Next::Failed(Why::TooOften),
            // A runner for one job that has had it finds nothing any more.
            (Self::Retryable | Self::SessionConflict, Observed::Job) => Next::Failed(Why::GaveUp),
            (Self::Terminated, _) => Next::Failed(Why::Terminated),
            (Self::Updating, _) => Next::Failed(Why::UpdatedItself),
            (Self::Refreshed, _) => Next::Failed(Why::SettingsReplaced),
            (Self::Signal(number), _) => Next::Failed(Why::Signal(number)),
            (Self::Unknown(code), _) => Next::Failed(Why::Unknown(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_run_is_an_argument() {
        assert_eq!(
            argv(Utf8Path::new("/jobs/7/runner")),
            ["/jobs/7/runner/bin/Runner.Listener", "run"]
        );
    }

    #[test]
    fn the_environment_keeps_what_is_the_jobs_and_drops_what_would_steer_the_runner() {
        let job = [
            ("PATH", "/bin"),
            ("LANG", "de_DE"),
            ("ACTIONS_RUNNER_INPUT_JITCONFIG", "x"),
            ("actions_runner_input_name", "x"),
            ("DOTNET_SYSTEM_CONSOLE_ALLOW_ANSI_COLOR_REDIRECTION", "1"),
            ("ACTIONS_RUNNER_HOOK_JOB_STARTED", "/tmp/evil"),
            ("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", "/tmp/evil"),
            ("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT", "1"),
            ("ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED", "0"),
            ("ACTIONS_RUNNER_ACTION_ARCHIVE_CACHE", "/cache"),
        ];
        let job = job
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let text = |os, hook: Option<&Utf8Path>| {
            let environment = environment(os, &job, hook);
            let lines = environment.iter().map(|(name, value)| format!("{name}={value}"));
            lines.collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(text(Os::MacOs, Some("/opt/hook.sh".into())), @r"
        ACTIONS_RUNNER_ACTION_ARCHIVE_CACHE=/cache
        ACTIONS_RUNNER_HOOK_JOB_STARTED=/opt/hook.sh
        ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED=1
        ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1
        LANG=en_US.UTF-8
        LC_ALL=en_US.UTF-8
        PATH=/bin
        ");
        insta::assert_snapshot!(text(Os::Linux, None), @r"
        ACTIONS_RUNNER_ACTION_ARCHIVE_CACHE=/cache
        ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED=1
        ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1
        LANG=C.UTF-8
        LC_ALL=C.UTF-8
        PATH=/bin
        ");
    }

    #[test]
    fn every_exit_code_has_the_meaning_the_runners_source_gives_it() {
        let table = [
            (0, Ending::Silent),
            (1, Ending::Terminated),
            (2, Ending::Retryable),
            (3, Ending::Updating),
            (4, Ending::Updating),
            (5, Ending::SessionConflict),
            (6, Ending::Refreshed),
            (7, Ending::Deprecated),
            (100, Ending::Ran(TaskResult::Succeeded)),
            (101, Ending::Ran(TaskResult::SucceededWithIssues)),
            (102, Ending::Ran(TaskResult::Failed)),
            (103, Ending::Ran(TaskResult::Canceled)),
            (104, Ending::Ran(TaskResult::Skipped)),
            (105, Ending::Ran(TaskResult::Abandoned)),
        ];
        for code in [i32::MIN, -1, 8, 99, 106, 143, 255, i32::MAX] {
            assert_eq!(Ending::from(Exit::Code(code)), Ending::Unknown(code));
        }
        for (code, ending) in table {
            assert_eq!(Ending::from(Exit::Code(code)), ending, "{code}");
        }
        assert_eq!(Ending::from(Exit::Signal(9)), Ending::Signal(9));
    }

    #[test]
    fn what_follows_depends_on_whether_there_was_a_job() {
        use Ending::*;
        let failed = Next::Failed;
        // Ending, without a job, with one.
        let table = [
            (Silent, Next::NothingRan, Next::Finished(None)),
            (Terminated, failed(Why::Terminated), failed(Why::Terminated)),
            (Retryable, Next::Relaunch, failed(Why::GaveUp)),
            (Updating, failed(Why::UpdatedItself), failed(Why::UpdatedItself)),
            (SessionConflict, Next::Conflict, failed(Why::GaveUp)),
            (
                Refreshed,
                failed(Why::SettingsReplaced),
                failed(Why::SettingsReplaced),
            ),
            (Deprecated, Next::UpgradeRunner, Next::UpgradeRunner),
            (Signal(9), failed(Why::Signal(9)), failed(Why::Signal(9))),
            (Unknown(42), failed(Why::Unknown(42)), failed(Why::Unknown(42))),
        ];
        for (ending, without, with) in table {
            assert_eq!(ending.next(Observed::NoJob, 0), without, "{ending:?}");
            assert_eq!(ending.next(Observed::Job, 0), with, "{ending:?}");
        }
        for result in RESULTS {
            for observed in [Observed::NoJob, Observed::Job] {
                assert_eq!(Ran(result).next(observed, 0), Next::Finished(Some(result)));
            }
        }
    }

    #[test]
    fn a_runner_is_not_started_again_forever() {
        let next = |relaunches| Ending::Retryable.next(Observed::NoJob, relaunches);
        assert_eq!(next(RELAUNCHES - 1), Next::Relaunch);
        assert_eq!(next(RELAUNCHES), Next::Failed(Why::TooOften));
    }
}
