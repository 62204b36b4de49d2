//! What GitHub's answers say about how much more may be asked, and when: pure, from status, headers and body.
//!
//! A refusal is taken for a limit only where GitHub says so: nothing is left (`x-ratelimit-remaining: 0`), a wait is named
//! (`retry-after`), or the body names a secondary limit. Every other 403 and 404 is what it says, a missing permission or a
//! missing thing, and waiting would not help. Source: docs.github.com, "Rate limits for the REST API" and "Best practices
//! for using the REST API", 2022-11-28.

use std::time::Duration;

/// The wait after a limit that does not say how long: at least a minute, and twice as long each further time.
const SECONDARY: Duration = Duration::from_secs(60);

/// The longest wait; a primary limit lasts an hour at most.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// One part in so many of a limit is kept.
const RESERVED: u64 = 10;

/// The part of an answer that limits depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The HTTP status.
    pub status: u16,
    /// `x-ratelimit-limit`: requests in an hour.
    pub limit: Option<u64>,
    /// `x-ratelimit-remaining`: how many are left.
    pub remaining: Option<u64>,
    /// `x-ratelimit-reset`: when all are there again, in seconds since 1970 by GitHub's clock.
    pub reset_unix_s: Option<u64>,
    /// `retry-after`, in seconds.
    pub retry_after_s: Option<u64>,
    /// `date`, in seconds since 1970: GitHub's clock.
    pub date_unix_s: Option<u64>,
    /// Whether the body names a secondary limit.
    pub names_secondary: bool,
}

/// What follows for the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Free,
    /// Nothing may be asked for so long.
    Wait(Duration),
}

/// What an answer means; `before` is how many answers in a row were a limit that did not say how long.
pub fn verdict(told: &Told, before: u32) -> Verdict {
    let is_refusal = matches!(told.status, 403 | 429);
    if !is_refusal {
        return Verdict::Free;
    }
    if let Some(seconds) = told.retry_after_s {
        return Verdict::Wait(Duration::from_secs(seconds).min(LONGEST));
    }
    if told.remaining == Some(0)
        && let (Some(reset), Some(date)) = (told.reset_unix_s, told.date_unix_s)
    {
        // By GitHub's own clock: ours may be wrong. A second more, because both are whole seconds.
        let wait = Duration::from_secs(reset.saturating_sub(date) + 1);
        return Verdict::Wait(wait.min(LONGEST));
    }
    if told.remaining == Some(0) || told.names_secondary || told.status == 429 {
        let doublings = before.min(6);
        return Verdict::Wait((SECONDARY * 2_u32.pow(doublings)).min(LONGEST));
    }
    Verdict::Free
}

/// How long to wait at least after a look that cost so many requests, so that what is `remaining` of `limit` lasts until all
/// is there again, in `reset`. A tenth is never spent on looking: whoever waits to be admitted, and runners that must go,
/// need it. Nothing while more than half is there.
pub fn pace(cost: u64, limit: u64, remaining: u64, reset: Duration) -> Duration {
    if remaining > limit / 2 {
        return Duration::ZERO;
    }
    let looks = remaining.saturating_sub(limit / RESERVED) / cost.max(1);
    match u32::try_from(looks) {
        Ok(0) => reset.min(LONGEST),
        Ok(looks) => (reset / looks).min(LONGEST),
        Err(_) => Duration::ZERO,
    }
}

/// How far our clock is from GitHub's, positive when ours is ahead, in seconds; `None` when it did not say.
pub fn skew_s(told: &Told, now_unix_s: u64) -> Option<i64> {
    let date = i64::try_from(told.date_unix_s?).ok()?;
    Some(i64::try_from(now_unix_s).ok()? - date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(status: u16) -> Told {
        Told {
            status,
            date_unix_s: Some(1_000_000),
            ..Told::default()
        }
    }

    fn wait(seconds: u64) -> Verdict {
        Verdict::Wait(Duration::from_secs(seconds))
    }

    #[test]
    fn a_missing_permission_and_a_missing_thing_are_no_limits() {
        for status in [200, 304, 401, 403, 404, 422, 500, 503] {
            let answer = Told {
                remaining: Some(4000),
                ..told(status)
            };
            assert_eq!(verdict(&answer, 0), Verdict::Free, "{status}");
        }
    }

    #[test]
    fn a_primary_limit_lasts_until_githubs_clock_says_so() {
        let answer = Told {
            remaining: Some(0),
            reset_unix_s: Some(1_000_120),
            ..told(403)
        };
        assert_eq!(verdict(&answer, 0), wait(121));
        // Over already, by its own clock.
        let over = Told {
            reset_unix_s: Some(999_000),
            ..answer.clone()
        };
        assert_eq!(verdict(&over, 0), wait(1));
        // The last request that was allowed is not refused.
        assert_eq!(
            verdict(
                &Told {
                    status: 200,
                    ..answer
                },
                0
            ),
            Verdict::Free
        );
    }

    #[test]
    fn a_named_wait_counts_before_everything_else() {
        let answer = Told {
            remaining: Some(0),
            reset_unix_s: Some(1_003_000),
            retry_after_s: Some(30),
            ..told(429)
        };
        assert_eq!(verdict(&answer, 9), wait(30));
    }

    #[test]
    fn a_secondary_limit_that_names_no_wait_is_waited_for_longer_each_time() {
        let answer = Told {
            names_secondary: true,
            remaining: Some(4000),
            ..told(403)
        };
        let waits: Vec<Verdict> = (0..9).map(|before| verdict(&answer, before)).collect();
        assert_eq!(waits[..3], [wait(60), wait(120), wait(240)]);
        assert_eq!(waits[8], wait(3600));
    }

    #[test]
    fn looking_leaves_a_tenth_of_the_limit_to_whoever_waits_to_be_admitted() {
        let pace = |cost, remaining, reset| pace(cost, 5000, remaining, Duration::from_secs(reset)).as_secs();
        assert_eq!(pace(50, 2501, 3600), 0, "there is enough");
        assert_eq!(pace(50, 2500, 3600), 90, "40 looks in an hour");
        assert_eq!(pace(0, 2500, 3600), 1);
        assert_eq!(pace(50, 549, 1800), 1800, "less than another look costs");
        assert_eq!(pace(1, 500, 1800), 1800);
        assert_eq!(pace(1, 0, 99_999), 3600);
        assert_eq!(pace(1, 0, 0), 0, "all is there again");
    }

    #[test]
    fn the_clocks_difference_has_a_sign() {
        assert_eq!(skew_s(&told(200), 1_000_600), Some(600));
        assert_eq!(skew_s(&told(200), 999_400), Some(-600));
        assert_eq!(skew_s(&Told::default(), 1), None);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_an_hour_and_none_follows_success(
            status in any::<u16>(), remaining: Option<u64>, reset: Option<u64>, after: Option<u64>, date: Option<u64>, before: u32,
        ) {
            let answer = Told {
                status,
                limit: None,
                remaining,
                reset_unix_s: reset.map(|reset| reset / 2),
                retry_after_s: after,
                date_unix_s: date,
                names_secondary: true,
            };
            match verdict(&answer, before) {
                Verdict::Wait(wait) => {
                    prop_assert!(wait <= LONGEST);
                    prop_assert!(matches!(status, 403 | 429));
                }
                Verdict::Free => prop_assert!(!matches!(status, 403 | 429)),
            }
        }
    }
}
