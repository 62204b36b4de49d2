//! What becomes of a job that no runner could be had for: tried again, later each time, and not for ever.
//!
//! There is one owner of this state, the source, so that nothing starts the ladder anew by the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::ticket::Key;

/// Waits between attempts.
pub const LADDER: [Duration; 5] = [
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(2 * 60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(10 * 60),
];

/// Attempts after which a job is given up.
pub const ATTEMPTS: u32 = 5;

/// What the reason of a job that is given up begins with.
pub const BLOCKED: &str = "blocked: ";

/// How long after the first attempt a job is given up in any case.
pub const LONGEST: Duration = Duration::from_secs(90 * 60);

/// Of a wait, in per cent, that chance adds or takes away: hosts that failed together do not come back together.
const JITTER_PERCENT: u32 = 20;

/// What chance adds to a wait that GitHub named, in seconds: from here …
const AFTER_LIMIT_S: u64 = 5;
/// … and so many more.
const AFTER_LIMIT_MORE_S: u64 = 20;

/// Why an attempt came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It may be another time: GitHub out of reach, a runner that got no job.
    Passing(String),
    /// It will not be another time: GitHub says that we may not.
    Final(String),
    /// Not for so long: GitHub wants to be left alone, or takes no runner of our version. It is no attempt.
    Later {
        /// How long.
        wait: Duration,
        /// Why, in words.
        why: String,
    },
}

impl Failure {
    /// Somebody here does not want the job.
    pub fn cancelled() -> Self {
        Self::Final("somebody cancelled it here".to_owned())
    }
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It may be tried.
    Ready,
    /// Not yet.
    Later {
        /// When and why, in words.
        why: String,
    },
    /// No more.
    Blocked {
        /// Why, in words that begin with `blocked:`.
        why: String,
    },
}

#[derive(Debug, Clone)]
struct Claim {
    first: Instant,
    next: Instant,
    attempts: u32,
    last: String,
    blocked: bool,
}

/// What is known of jobs that an attempt failed for.
#[derive(Debug, Clone, Default)]
pub struct Claims(BTreeMap<Key, Claim>);

impl Claims {
    /// Notes an attempt that failed. `chance` is any number.
    pub fn failed(&mut self, key: &Key, failure: Failure, now: Instant, chance: u32) {
        let claim = self.0.entry(key.clone()).or_insert(Claim {
            first: now,
            next: now,
            attempts: 0,
            last: String::new(),
            blocked: false,
        });
        match failure {
            Failure::Later { wait, why } => {
                let jitter = AFTER_LIMIT_S + u64::from(chance) % (AFTER_LIMIT_MORE_S + 1);
                claim.next = now + wait + Duration::from_secs(jitter);
                claim.last = why;
            }
            Failure::Final(why) => {
                claim.blocked = true;
                claim.last = why;
            }
            Failure::Passing(why) => {
                claim.last = why;
                claim.attempts += 1;
                let step = usize::try_from(claim.attempts - 1).unwrap_or(usize::MAX);
                let wait = LADDER.get(step).or(LADDER.last()).copied().unwrap_or_default();
                claim.next = now + jittered(wait, chance);
                claim.blocked = claim.attempts >= ATTEMPTS || now.duration_since(claim.first) >= LONGEST;
            }
        }
    }

    /// Takes up a job that attempts of an earlier daemon `failed` for, the last one last. The next may come at once.
    pub fn resume(&mut self, key: &Key, failed: &[String], now: Instant) {
        let Some(last) = failed.last() else { return };
        let attempts = u32::try_from(failed.len()).unwrap_or(u32::MAX);
        let claim = Claim {
            first: now,
            next: now,
            attempts,
            last: last.clone(),
            blocked: attempts >= ATTEMPTS,
        };
        self.0.insert(key.clone(), claim);
    }

    /// Where a job stands.
    pub fn standing(&self, key: &Key, now: Instant) -> Standing {
        let Some(claim) = self.0.get(key) else {
            return Standing::Ready;
        };
        let last = claim.last.lines().next().unwrap_or_default();
        if claim.blocked {
            let times = match claim.attempts {
                0 => String::new(),
                1 => "after 1 attempt: ".to_owned(),
                times => format!("after {times} attempts: "),
            };
            return Standing::Blocked {
                why: format!("{BLOCKED}{times}{}", claim.last),
            };
        }
        match claim.next.checked_duration_since(now) {
            Some(left) if !left.is_zero() => Standing::Later {
                why: format!("tried again in {} s: {last}", left.as_secs_f64().ceil()),
            },
            _ => Standing::Ready,
        }
    }

    /// When the next of them may be tried.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let open = self.0.values().filter(|claim| !claim.blocked && claim.next > now);
        open.map(|claim| claim.next).min()
    }

    /// Forgets jobs that are gone.
    pub fn keep(&mut self, there: &BTreeSet<Key>) {
        self.0.retain(|key, _| there.contains(key));
    }
}

/// A wait, up to a fifth shorter or longer.
pub(super) fn jittered(wait: Duration, chance: u32) -> Duration {
    let percent = 100 - JITTER_PERCENT + chance % (2 * JITTER_PERCENT + 1);
    wait * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> Key {
        ("acme/app".to_owned(), 30)
    }

    /// Takes no time away and adds none.
    const MIDDLE: u32 = JITTER_PERCENT;

    fn passing() -> Failure {
        Failure::Passing("GitHub did not answer\nhint: wait".to_owned())
    }

    #[test]
    fn i6_waits_grow_along_the_ladder_and_the_fifth_attempt_is_the_last() {
        let (mut claims, mut now) = (Claims::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..ATTEMPTS {
            assert_eq!(claims.standing(&key(), now), Standing::Ready);
            claims.failed(&key(), passing(), now, MIDDLE);
            if let Some(next) = claims.next(now) {
                waits.push(next.duration_since(now).as_secs());
                now = next;
            }
        }
        assert_eq!(waits, [30, 60, 120, 300]);
        assert_eq!(
            claims.standing(&key(), now + LONGEST),
            Standing::Blocked {
                why: "blocked: after 5 attempts: GitHub did not answer\nhint: wait".to_owned()
            }
        );
    }

    #[test]
    fn i6_what_github_forbids_is_not_tried_again() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        claims.failed(&key(), Failure::Final("not allowed".to_owned()), now, 0);
        let blocked = Standing::Blocked {
            why: "blocked: not allowed".to_owned(),
        };
        assert_eq!(claims.standing(&key(), now + LONGEST), blocked);
        assert_eq!(claims.next(now), None);
    }

    #[test]
    fn i6_a_limit_is_waited_out_and_is_no_attempt() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        for chance in [0, 7, 20] {
            let (wait, why) = (Duration::from_secs(600), "GitHub's rate limit".to_owned());
            claims.failed(&key(), Failure::Later { wait, why }, now, chance);
            let wait = claims.next(now).unwrap().duration_since(now).as_secs();
            assert_eq!(wait, 605 + u64::from(chance));
        }
        let Standing::Later { why } = claims.standing(&key(), now) else {
            panic!("it waits");
        };
        assert_eq!(why, "tried again in 625 s: GitHub's rate limit");
        let later = claims.next(now).unwrap();
        assert_eq!(claims.standing(&key(), later), Standing::Ready);
    }

    #[test]
    fn i6_a_job_that_failed_an_hour_and_a_half_is_given_up() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        claims.failed(&key(), passing(), now, MIDDLE);
        claims.failed(&key(), passing(), now + LONGEST, MIDDLE);
        assert!(matches!(
            claims.standing(&key(), now + LONGEST),
            Standing::Blocked { .. }
        ));
    }

    #[test]
    fn i5_what_is_gone_is_forgotten_and_nothing_else() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        claims.failed(&key(), passing(), now, MIDDLE);
        claims.keep(&[key()].into());
        assert_ne!(claims.standing(&key(), now), Standing::Ready);
        claims.keep(&[].into());
        assert_eq!(claims.standing(&key(), now), Standing::Ready);
    }

    #[test]
    fn i5_a_new_daemon_goes_on_counting_where_the_last_one_stopped() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        let failed = vec!["no".to_owned(); 4];
        claims.resume(&key(), &failed, now);
        assert_eq!(claims.standing(&key(), now), Standing::Ready);
        claims.failed(&key(), passing(), now, MIDDLE);
        assert!(matches!(claims.standing(&key(), now), Standing::Blocked { .. }));
        claims.resume(&key(), &[], now);
        assert!(
            matches!(claims.standing(&key(), now), Standing::Blocked { .. }),
            "nothing is forgotten"
        );
    }

    proptest! {
        #[test]
        fn chance_changes_a_wait_by_a_fifth_at_most(chance: u32) {
            let wait = jittered(Duration::from_secs(100), chance).as_secs();
            prop_assert!((80..=120).contains(&wait));
        }
    }
}
