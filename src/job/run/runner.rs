//! A job whose command is GitHub's runner: what it takes besides, what it says, and what its end means.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use camino::Utf8PathBuf;
use tokio::sync::{mpsc, oneshot, watch};

use crate::github::runner::jit::JitConfig;
use crate::github::runner::listener::{Ending, Exit, Next, Observed};
use crate::github::runner::output::{Event, Output};
use crate::github::runner::tree::Build;
use crate::github::ticket::Ticket;
use crate::job::Outcome;
use crate::job::output::Heard;

/// What makes a job GitHub's runner.
#[derive(Debug)]
pub struct RunnerOrder {
    /// Its tree, which is in its place in the data folder.
    pub build: Build,
    /// Its configuration.
    pub config: JitConfig,
    /// What runs before the first step of its job; the folder that this is in is shown to the job.
    pub hook: Option<Utf8PathBuf>,
    /// The time between asking it to end and killing it.
    pub grace: Duration,
    /// Where its hook reports, for whoever goes on with it.
    pub door: Option<OwnedFd>,
    /// Whether its job was let through.
    pub admitted: bool,
    /// Is told what it says.
    pub said: mpsc::UnboundedSender<Said>,
    /// The job it is known to have been given.
    pub has: watch::Receiver<Option<Ticket>>,
}

/// What a runner says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Its sandbox was started, with this process of the host's as the first in it.
    Launched {
        /// Its id.
        pid: i32,
    },
    /// The listener printed, for the first time, that it has a job.
    Running,
}

/// What becomes of a runner.
#[derive(Debug)]
pub enum Order {
    /// It goes on: its job may run here.
    Admitted {
        /// Is told when whoever follows a killed dispatcher would know it.
        known: oneshot::Sender<()>,
    },
    /// It was given a job that may not run here, and holds it.
    NotAdmitted(String),
    /// It was given one that may run already.
    Escaped(String),
    /// It was given none for too long.
    Idle,
}

/// Reads what a listener prints until it says that it has a job. What comes then may be the job's own words, as many as it
/// likes: nothing of it is read, let alone kept for whoever listens.
pub(super) fn heard(said: mpsc::UnboundedSender<Said>) -> Heard {
    let output = Mutex::new(Some(Output::new()));
    Box::new(move |bytes| {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let events = output.as_mut().map(|output| output.feed(bytes));
        let is_running = |event: &Event| matches!(event, Event::Running { .. });
        if events.is_some_and(|events| events.iter().any(is_running)) {
            *output = None;
            // Nobody listens any more when the job is over.
            let _ = said.send(Said::Running);
        }
    })
}

/// What the end of a listener means, after so many relaunches; `None` when it is to be started again.
pub(crate) fn outcome(exit: Exit, has_job: bool, relaunches: u32) -> Option<Outcome> {
    let observed = if has_job { Observed::Job } else { Observed::NoJob };
    let failed = |reason: String| Some(Outcome::Failed { reason });
    match Ending::from(exit).next(observed, relaunches) {
        Next::Finished(result) => Some(Outcome::Ran { result }),
        Next::NothingRan => Some(Outcome::Idle),
        Next::Relaunch => None,
        Next::UpgradeRunner => Some(Outcome::Outdated),
        Next::Conflict => failed("GitHub says that this runner has a session already".to_owned()),
        Next::Failed(why) => failed(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::runner::listener::{RELAUNCHES, TaskResult};

    #[test]
    fn what_the_end_of_a_listener_means() {
        let ended = |code, has_job| outcome(Exit::Code(code), has_job, 0);
        let ran = |result| Some(Outcome::Ran { result });
        assert_eq!(ended(100, true), ran(Some(TaskResult::Succeeded)));
        // It says so itself, whether or not anybody saw it have a job.
        assert_eq!(ended(102, false), ran(Some(TaskResult::Failed)));
        assert_eq!(ended(0, true), ran(None));
        assert_eq!(ended(0, false), Some(Outcome::Idle));
        assert_eq!(ended(7, false), Some(Outcome::Outdated));
        assert_eq!(ended(2, false), None);
        assert!(matches!(ended(2, true), Some(Outcome::Failed { .. })));
        assert!(matches!(
            outcome(Exit::Code(2), false, RELAUNCHES),
            Some(Outcome::Failed { .. })
        ));
        assert!(matches!(ended(5, false), Some(Outcome::Failed { .. })));
        assert!(matches!(
            outcome(Exit::Signal(9), true, 0),
            Some(Outcome::Failed { .. })
        ));
    }

    #[test]
    fn that_a_listener_has_a_job_is_told_once_however_much_is_printed() {
        let (said, mut told) = mpsc::unbounded_channel();
        let heard = heard(said);
        heard(b"2026-08-17 10:00:00Z: Listening for Jobs\n2026-08-17 10:00:05Z: Running ");
        assert!(told.try_recv().is_err());
        for _ in 0..3 {
            heard(b"job: build\nExiting...\n2026-08-17 10:00:05Z: Running ");
        }
        assert_eq!(told.try_recv().unwrap(), Said::Running);
        assert!(told.try_recv().is_err());
    }
}
