//! The course of an admission: what may take how long, and what follows.
//!
//! ```text
//!               assigned               claimed               admitted
//!  Idle ───────────────► Assigned ───────────────► Claimed ───────────► Admitted
//!    └───────────────────────┼── claimed ─────────────┘
//!                            │ 20 s, expected: 5 min  │ 60 s, refused → interrupt      hook gone → kill
//!                            └────────► Over ◄────────┘
//! ```
//!
//! An interrupt lets the listener end the job in order: it evaluates no further condition, even `always()`
//! (Runner.Worker/StepsRunner.cs), as long as the hook still holds the job. When the hook is gone before it was answered,
//! steps may run already, and only killing ends them.

use std::time::Duration;

/// How long a job may take from its assignment, as GitHub or the listener tells it, to what its hook says. The runner gets
/// the job's actions before it runs the hook (Runner.Worker/JobExtension.cs).
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(20);

/// The same, once GitHub says that the job is one that may run here: all that is waited for then is that its actions come
/// over a slow network, and nothing of the job runs before its hook does.
pub const EXPECTED_WITHIN: Duration = Duration::from_secs(5 * 60);

/// How long it may take to find out whether a job may run. GitHub may tell of a runner's job some seconds after the runner
/// has it, and may ask us to wait between questions.
pub const VERDICT_WITHIN: Duration = Duration::from_secs(60);

/// Where an admission stands. Times are since a moment that its owner chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Course {
    /// The runner has no job that we know of.
    #[default]
    Idle,
    /// It has one, which has not said anything.
    Assigned {
        /// Until when it may stay silent.
        until: Duration,
    },
    /// The hook has said what job it is.
    Claimed {
        /// Until when it must be judged.
        until: Duration,
    },
    /// The job runs.
    Admitted,
    /// The job may not run.
    Over,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// GitHub or the listener says that the runner has a job.
    Assigned,
    /// GitHub says so, and that it is one that may run here.
    Expected,
    /// The door has let a hook in.
    Claimed,
    /// The verdict is `Go`, and the hook was told so.
    Admitted,
    /// The verdict is another one.
    Refused,
    /// The hook hung up.
    HookGone,
    /// Time has passed.
    Tick,
}

/// What follows at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The listener is interrupted, and killed when it has not ended by itself in good time.
    Interrupt(Why),
    /// Everything of the job is killed.
    Kill(Why),
}

/// Why a job is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Its hook did not say anything.
    #[error(
        "the job did not report in time after it was assigned: {} s, or {} s when GitHub says that it may run here\nhint: does its runner have the job-started hook, and does the slot's profile show it and its socket?",
        HANDSHAKE_WITHIN.as_secs(),
        EXPECTED_WITHIN.as_secs()
    )]
    Silent,
    /// GitHub did not say in time what it is.
    #[error("github did not tell within {} s which job it is", VERDICT_WITHIN.as_secs())]
    Unjudged,
    /// It may not run here; the verdict has the reason.
    #[error("the job was not admitted")]
    Refused,
    /// The hook went away without an answer.
    #[error("the job's hook ended before it was answered")]
    HookGone,
}

impl Course {
    /// What the state is after an event at `now`, and what follows. Whatever does not fit leaves it as it is.
    #[must_use]
    pub fn step(self, event: Event, now: Duration) -> (Self, Option<Act>) {
        match (self, event) {
            (Self::Admitted | Self::Over, _) => (self, None),
            // A verdict that comes late is none.
            (Self::Assigned { until }, _) if now >= until => (Self::Over, Some(Act::Interrupt(Why::Silent))),
            (Self::Claimed { until }, event) if now >= until && event != Event::HookGone => {
                (Self::Over, Some(Act::Interrupt(Why::Unjudged)))
            }
            (Self::Idle, Event::Assigned) => {
                let until = now + HANDSHAKE_WITHIN;
                (Self::Assigned { until }, None)
            }
            (Self::Idle | Self::Assigned { .. }, Event::Expected) => {
                let until = now + EXPECTED_WITHIN;
                (Self::Assigned { until }, None)
            }
            (Self::Idle | Self::Assigned { .. }, Event::Claimed) => {
                let until = now + VERDICT_WITHIN;
                (Self::Claimed { until }, None)
            }
            (Self::Claimed { .. }, Event::Admitted) => (Self::Admitted, None),
            (Self::Claimed { .. }, Event::Refused) => (Self::Over, Some(Act::Interrupt(Why::Refused))),
            (Self::Claimed { .. }, Event::HookGone) => (Self::Over, Some(Act::Kill(Why::HookGone))),
            (Self::Idle | Self::Assigned { .. } | Self::Claimed { .. }, _) => (self, None),
        }
    }

    /// When to look at the clock again, if at all.
    pub fn due(self) -> Option<Duration> {
        match self {
            Self::Assigned { until } | Self::Claimed { until } => Some(until),
            Self::Idle | Self::Admitted | Self::Over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Duration = Duration::from_secs(100);

    fn after(events: &[(Event, u64)]) -> (Course, Vec<Act>) {
        let mut acts = vec![];
        let mut course = Course::default();
        for (event, seconds) in events {
            let act;
            (course, act) = course.step(*event, START + Duration::from_secs(*seconds));
            acts.extend(act);
        }
        (course, acts)
    }

    #[test]
    fn a_job_that_reports_and_is_admitted_in_time_is_left_alone() {
        use Event::*;
        let good = [
            (Assigned, 0),
            (Tick, 19),
            (Claimed, 19),
            (Tick, 78),
            (Admitted, 78),
        ];
        assert_eq!(after(&good), (Course::Admitted, vec![]));
        // The hook may be quicker than whoever tells of the assignment.
        assert_eq!(
            after(&[(Claimed, 0), (Assigned, 0), (Admitted, 1)]),
            (Course::Admitted, vec![])
        );
        // It ends after the answer, as it should, and nothing is timed any more.
        assert_eq!(
            after(&[(Claimed, 0), (Admitted, 1), (HookGone, 1), (Tick, 9999)]).1,
            []
        );
    }

    #[test]
    fn a_job_that_does_not_report_is_interrupted_after_twenty_seconds() {
        use Event::*;
        let silent = vec![Act::Interrupt(Why::Silent)];
        assert_eq!(
            after(&[(Assigned, 0), (Tick, 20)]),
            (Course::Over, silent.clone())
        );
        // Neither a second word of the assignment nor a late hook gives it more time.
        assert_eq!(after(&[(Assigned, 0), (Assigned, 19), (Tick, 20)]).1, silent);
        assert_eq!(
            after(&[(Assigned, 0), (Claimed, 20), (Admitted, 21)]),
            (Course::Over, silent)
        );
        assert_eq!(after(&[(Assigned, 0)]).0.due(), Some(START + HANDSHAKE_WITHIN));
    }

    #[test]
    fn a_job_that_may_run_has_the_time_that_its_actions_take() {
        use Event::*;
        let silent = vec![Act::Interrupt(Why::Silent)];
        let slow = [
            (Assigned, 0),
            (Expected, 10),
            (Tick, 309),
            (Claimed, 309),
            (Admitted, 310),
        ];
        assert_eq!(after(&slow), (Course::Admitted, vec![]));
        assert_eq!(after(&[(Expected, 0), (Assigned, 5), (Tick, 300)]).1, silent);
        // Too late to be expected.
        assert_eq!(after(&[(Assigned, 0), (Expected, 20)]).1, silent);
    }

    #[test]
    fn a_job_that_is_not_judged_in_time_is_interrupted_and_a_late_verdict_changes_nothing() {
        use Event::*;
        let late = vec![Act::Interrupt(Why::Unjudged)];
        assert_eq!(after(&[(Claimed, 0), (Tick, 60)]), (Course::Over, late.clone()));
        assert_eq!(after(&[(Claimed, 0), (Admitted, 60)]), (Course::Over, late));
        assert_eq!(after(&[(Claimed, 0)]).0.due(), Some(START + VERDICT_WITHIN));
    }

    #[test]
    fn a_refused_job_is_interrupted_and_one_whose_hook_is_gone_is_killed() {
        use Event::*;
        let refused = vec![Act::Interrupt(Why::Refused)];
        assert_eq!(
            after(&[(Claimed, 0), (Refused, 1), (HookGone, 2)]),
            (Course::Over, refused)
        );
        for when in [1, 60] {
            let gone = vec![Act::Kill(Why::HookGone)];
            assert_eq!(
                after(&[(Claimed, 0), (HookGone, when), (Admitted, when)]),
                (Course::Over, gone)
            );
        }
    }

    #[test]
    fn without_a_job_nothing_is_ever_due() {
        use Event::*;
        assert_eq!(Course::Idle.due(), None);
        for event in [Admitted, Refused, HookGone, Tick] {
            assert_eq!(after(&[(event, 9999)]), (Course::Idle, vec![]), "{event:?}");
        }
    }

    proptest! {
        /// Whatever happens in whatever order: only a claim leads to an admission, and a job is ended at most once and
        /// never after it was admitted.
        #[test]
        fn nothing_is_admitted_without_a_claim_and_nothing_ended_twice(
            events in proptest::collection::vec((0usize..7, 0u64..30), 0..20)
        ) {
            use Event::*;
            let mut now = START;
            let (mut course, mut acts, mut claimed) = (Course::default(), 0, false);
            for (which, pause) in events {
                now += Duration::from_secs(pause);
                let event = [Assigned, Expected, Claimed, Admitted, Refused, HookGone, Tick][which];
                claimed |= event == Claimed;
                let (next, act) = course.step(event, now);
                prop_assert!(act.is_none() || next == Course::Over);
                acts += usize::from(act.is_some());
                course = next;
            }
            prop_assert!(acts <= 1);
            prop_assert!(course != Course::Admitted || claimed && acts == 0);
        }
    }
}
