//! When a dispatcher that ended without being told to is followed by another: at once the first time, later each time, and not
//! for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Ends within [`WITHIN`] after which there is no next dispatcher: what it falls over is there to stay, and whoever keeps the
/// service alive starts everything anew.
const MOST: usize = 5;

/// How long an end is held against it.
const WITHIN: Duration = Duration::from_secs(10 * 60);

/// The pause before the third; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// The ends that are held against it.
#[derive(Debug, Default)]
pub(super) struct Again {
    ends: VecDeque<Instant>,
    /// How often another was started.
    pub(super) count: u32,
}

impl Again {
    /// How long to wait before the next one, after an end at `now`; `None` when there should be none.
    pub(super) fn after(&mut self, now: Instant) -> Option<Duration> {
        self.ends.retain(|end| now.duration_since(*end) < WITHIN);
        self.ends.push_back(now);
        if self.ends.len() > MOST {
            return None;
        }
        self.count += 1;
        let doublings = u32::try_from(self.ends.len()).unwrap_or(u32::MAX).checked_sub(2);
        Some(doublings.map_or(Duration::ZERO, |times| PAUSE * 2u32.saturating_pow(times)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_comes_at_once_then_later_and_after_five_ends_in_ten_minutes_no_more() {
        let mut again = Again::default();
        let start = Instant::now();
        let pauses: Vec<_> = (0..6)
            .map(|n| {
                again
                    .after(start + Duration::from_secs(n))
                    .map(|pause| pause.as_secs())
            })
            .collect();
        assert_eq!(pauses, [Some(0), Some(1), Some(2), Some(4), Some(8), None]);
        assert_eq!(again.count, 5);
    }

    #[test]
    fn an_end_that_is_long_ago_is_forgotten() {
        let mut again = Again::default();
        let start = Instant::now();
        for n in 0..100 {
            assert_eq!(again.after(start + WITHIN * n), Some(Duration::ZERO));
        }
    }
}
