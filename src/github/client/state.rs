//! What the answers so far have told: limits, clocks, counts.

use std::time::{Duration, Instant};

use super::error::ClientError;
use crate::github::limits::{Told, Verdict, skew_s, verdict};

/// From how far on it is said that our clock is wrong, in seconds. An App's token begins a minute early, so that less than
/// that would not be noticed otherwise.
pub const WRONG_CLOCK_S: i64 = 60;

/// How things stand between us and GitHub, for reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests in an hour, as GitHub said last.
    pub limit: Option<u64>,
    /// How many of them are left.
    pub remaining: Option<u64>,
    /// When all are there again, in seconds since 1970 by GitHub's clock.
    pub reset_unix_s: Option<u64>,
    /// How far our clock is ahead of GitHub's, in seconds; negative when it is behind.
    pub clock_skew_s: Option<i64>,
    /// Until when nothing is asked, because a limit is reached.
    pub limited_until: Option<Instant>,
    /// How many requests were sent.
    pub requests: u64,
    /// How many of them were answered with 304, and cost nothing.
    pub unchanged: u64,
    /// How many were refused because of a limit.
    pub limited: u64,
    /// How many calls were not even sent, because of one.
    pub held_back: u64,
    /// How many tokens the App was given.
    pub minted: u64,
    /// How many entries of lists were left out because they could not be read.
    pub unreadable: u64,
    /// How many calls failed, refusals included.
    pub failed: u64,
    /// The last failure.
    pub last_error: Option<String>,
}

impl Report {
    /// Whether our clock is so far off that somebody should set it.
    pub fn is_clock_wrong(&self) -> bool {
        self.clock_skew_s.is_some_and(|skew| skew.abs() >= WRONG_CLOCK_S)
    }
}

/// The report, and how many answers in a row were a limit that did not say how long.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) report: Report,
    unnamed: u32,
}

impl State {
    /// How long nothing may be asked.
    pub(super) fn wait(&mut self, now: Instant) -> Option<(Instant, Duration)> {
        let until = self.report.limited_until.filter(|until| *until > now);
        self.report.limited_until = until;
        until.map(|until| (until, until - now))
    }

    /// Takes note of an answer; gives the wait that it asks for.
    pub(super) fn hear(
        &mut self,
        told: &Told,
        is_core: bool,
        now: Instant,
        now_unix_s: u64,
    ) -> Option<(Instant, Duration)> {
        let was_wrong = self.report.is_clock_wrong();
        if let Some(skew) = skew_s(told, now_unix_s) {
            self.report.clock_skew_s = Some(skew);
            if self.report.is_clock_wrong() && !was_wrong {
                tracing::warn!(skew_s = skew, "the clock of this host is wrong: GitHub's differs");
            }
        }
        if is_core {
            let report = &mut self.report;
            report.limit = told.limit.or(report.limit);
            report.remaining = told.remaining.or(report.remaining);
            report.reset_unix_s = told.reset_unix_s.or(report.reset_unix_s);
        }
        self.report.unchanged += u64::from(told.status == 304);
        let Verdict::Wait(wait) = verdict(told, self.unnamed) else {
            self.unnamed = 0;
            return None;
        };
        // Answers to requests that were under way together count once.
        if self.wait(now).is_none() {
            let is_named = told.retry_after_s.is_some() || told.remaining == Some(0);
            self.unnamed = if is_named { 0 } else { self.unnamed + 1 };
        }
        let until = (now + wait).max(self.report.limited_until.unwrap_or(now));
        self.report.limited += 1;
        self.report.limited_until = Some(until);
        tracing::warn!(wait_s = (until - now).as_secs(), "GitHub's limit is reached");
        Some((until, until - now))
    }

    /// Takes note of a failure.
    pub(super) fn failed(&mut self, error: &ClientError) {
        self.report.failed += 1;
        self.report.last_error = Some(error.to_string());
    }

    /// The time by GitHub's clock, as far as it is known.
    pub(super) fn github_unix_s(&self, now_unix_s: u64) -> u64 {
        now_unix_s.saturating_add_signed(-self.report.clock_skew_s.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_000_000;

    fn told(status: u16) -> Told {
        Told {
            status,
            date_unix_s: Some(NOW_S),
            ..Told::default()
        }
    }

    fn hear(state: &mut State, told: &Told, now: Instant) -> Option<u64> {
        state.hear(told, true, now, NOW_S).map(|(_, wait)| wait.as_secs())
    }

    #[test]
    fn a_wait_holds_until_it_is_over_and_no_shorter_one_ends_it() {
        let (mut state, now) = (State::default(), Instant::now());
        let after = |seconds| Told {
            retry_after_s: Some(seconds),
            ..told(429)
        };
        assert_eq!(hear(&mut state, &after(100), now), Some(100));
        assert_eq!(hear(&mut state, &after(5), now), Some(100));
        assert_eq!(hear(&mut state, &told(200), now), None);
        let later = now + Duration::from_secs(99);
        assert_eq!(state.wait(later).map(|(_, wait)| wait.as_secs()), Some(1));
        assert_eq!(state.wait(now + Duration::from_secs(100)), None);
        assert_eq!(state.report.limited_until, None);
        assert_eq!(state.report.limited, 2);
    }

    #[test]
    fn waits_that_nobody_names_grow_once_for_each_time_that_was_waited() {
        let (mut state, now) = (State::default(), Instant::now());
        let secondary = Told {
            names_secondary: true,
            ..told(403)
        };
        assert_eq!(hear(&mut state, &secondary, now), Some(60));
        let then = now + Duration::from_secs(61);
        assert_eq!(hear(&mut state, &secondary, then), Some(120));
        assert_eq!(hear(&mut state, &told(200), then), None);
        let at_last = then + Duration::from_secs(121);
        assert_eq!(hear(&mut state, &secondary, at_last), Some(60));
    }

    #[test]
    fn githubs_clock_is_known_from_its_answers() {
        let mut state = State::default();
        assert_eq!(state.github_unix_s(5), 5);
        for (ours, is_wrong) in [(NOW_S + 600, true), (NOW_S - 600, true), (NOW_S + 5, false)] {
            state.hear(&told(200), true, Instant::now(), ours);
            assert_eq!(state.github_unix_s(ours), NOW_S);
            assert_eq!(state.report.is_clock_wrong(), is_wrong);
        }
    }

    #[test]
    fn limits_of_other_kinds_are_not_reported_as_ours() {
        let mut state = State::default();
        let now = Instant::now();
        let core = Told {
            limit: Some(5000),
            remaining: Some(4999),
            reset_unix_s: Some(9),
            ..told(200)
        };
        state.hear(&core, true, now, NOW_S);
        state.hear(
            &Told {
                limit: Some(10),
                remaining: Some(1),
                ..told(200)
            },
            false,
            now,
            NOW_S,
        );
        state.hear(&told(304), true, now, NOW_S);
        let report = &state.report;
        assert_eq!(
            (
                report.limit,
                report.remaining,
                report.reset_unix_s,
                report.unchanged
            ),
            (Some(5000), Some(4999), Some(9), 1)
        );
    }
}
