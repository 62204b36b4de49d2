//! Which version of the runner is used, and what happens when GitHub does not take it any more.
//!
//! GitHub refuses a version some time after a newer one is out. It has also refused the newest one, during an outage
//! (actions/runner#4613). The two look the same to a runner, so a refusal first stops new runners, then the latest release
//! is asked for: a newer one is the remedy, and where there is none, waiting is.
//!
//! ```text
//!            refused                     newer release            staged
//!  Serving ─────────► Paused, asks ────────────────────► Staging ────────► Serving the newer one
//!     ▲                  │  ▲                               │ failed
//!     │ took a job       │  └───────────────────────────────┘
//!     │                  ▼ pause over
//!     └────────────── Probing: one runner at a time
//!                        │ refused
//!                        └─────────► Paused, twice as long
//! ```
//!
//! Outside of a pause, the latest release is asked for once a day, staged, and used from the next job on; runners that
//! are running keep theirs. Nothing here loops: every refusal of the version in use costs at least [`PAUSE`], more each
//! time until a runner takes a job, and a release that could not be staged is left alone for as long.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// A version of the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunnerVersion {
    /// 2, since 2018.
    pub major: u32,
    /// Counts releases.
    pub minor: u32,
    /// Counts repairs of a release.
    pub patch: u32,
}

/// A text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no version of the runner\nhint: three numbers with dots between: 2.336.0", .0.escape_debug())]
pub struct VersionError(String);

impl FromStr for RunnerVersion {
    type Err = VersionError;

    /// Takes the name of a release (`v2.336.0`) as well.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError(text.chars().take(60).collect());
        let numbers = text.strip_prefix('v').unwrap_or(text).split('.').map(|part| {
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| is_number).ok_or_else(wrong)
        });
        let numbers: Vec<u32> = numbers.take(4).collect::<Result<_, _>>()?;
        let &[major, minor, patch] = numbers.as_slice() else {
            return Err(wrong());
        };
        Ok(Self { major, minor, patch })
    }
}

impl serde::Serialize for RunnerVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for RunnerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// How long no runner is made after a first refusal. Outages of GitHub last hours, not minutes; asking more often than this
/// makes runners that are refused.
pub const PAUSE: Duration = Duration::from_secs(10 * 60);

/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 60 * 60);

/// How long a question for the latest release, or a tree that is being staged, is waited for before it counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(90 * 60);

/// How often the latest release is asked for while all is well. A version is taken for 30 days after the next is out
/// (docs.github.com, "Self-hosted runners reference"), though there were exceptions (actions/runner#3405, #3651).
pub const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the one runner that tries whether the version is taken again is waited for.
pub const PROBE: Duration = Duration::from_secs(15 * 60);

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed. Comes every minute or so.
    Tick,
    /// A runner of this version was refused: exit code 7, or `RunnerVersionTooOld`.
    Refused(RunnerVersion),
    /// A runner of this version was given a job.
    TookJob(RunnerVersion),
    /// A runner ended, neither refused nor given a job.
    Idle(RunnerVersion),
    /// The latest release is this one.
    Latest(RunnerVersion),
    /// What the latest release is could not be found out.
    LatestUnknown,
    /// The tree of this version is in its place.
    Staged(RunnerVersion),
    /// It could not be put there.
    NotStaged(RunnerVersion),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Ask for the latest release.
    AskLatest,
    /// Fetch this version and put it beside the one in use.
    Stage(RunnerVersion),
    /// The next runner is of this version.
    Use(RunnerVersion),
    /// Tell whoever looks after the host.
    Alert(Alert),
}

/// What somebody should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Alert {
    /// There is a newer version, and it is on its way.
    #[error(
        "GitHub takes runner {used} no more; {newer} is being fetched, and no runner starts until it is here"
    )]
    Outdated {
        /// What was refused.
        used: RunnerVersion,
        /// What is fetched.
        newer: RunnerVersion,
    },
    /// The newest version is refused.
    #[error(
        "GitHub refuses runner {used}, and {latest} is the latest\nhint: this looks like an outage, see https://www.githubstatus.com; it is tried again by itself"
    )]
    Outage {
        /// What was refused.
        used: RunnerVersion,
        /// What is the latest.
        latest: RunnerVersion,
    },
    /// Nobody knows whether there is a newer one.
    #[error(
        "GitHub refuses runner {used}, and the latest release could not be found out\nhint: it is asked for again with the next try"
    )]
    Unknown {
        /// What was refused.
        used: RunnerVersion,
    },
    /// A newer version could not be fetched.
    #[error(
        "runner {version} could not be put in its place\nhint: it is tried again later; see the log for why"
    )]
    NotStaged {
        /// Which.
        version: RunnerVersion,
    },
}

/// Why no runner may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// GitHub has refused the version in use.
    #[error("GitHub refuses runner {version}; the next try is in {} min", .left.as_secs().div_ceil(60))]
    Paused {
        /// The version in use.
        version: RunnerVersion,
        /// Until the next try.
        left: Duration,
    },
    /// One runner tries whether the version is taken again.
    #[error("one runner tries whether GitHub takes version {version} again")]
    Probing {
        /// The version in use.
        version: RunnerVersion,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    /// Nothing before this.
    Paused(Instant),
    /// One runner at a time, made then.
    Probing(Option<Instant>),
}

/// What was asked for and has not been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    Asking,
    Staging(RunnerVersion),
}

/// The watchdog over the version in use.
#[derive(Debug, Clone)]
pub struct Watchdog {
    used: RunnerVersion,
    state: State,
    /// Refusals since a runner took a job.
    refusals: u32,
    errand: Option<(Errand, Instant)>,
    asked: Option<Instant>,
    /// A version that could not be staged, and until when it is left alone.
    failed: Option<(RunnerVersion, Instant)>,
    /// What has been told since a runner took a job or the version changed: once is enough.
    told: Vec<Alert>,
}

impl Watchdog {
    /// All is well with `used`, as far as anybody knows.
    pub fn new(used: RunnerVersion) -> Self {
        Self {
            used,
            state: State::Serving,
            refusals: 0,
            errand: None,
            asked: None,
            failed: None,
            told: vec![],
        }
    }

    /// The version of the next runner.
    pub fn used(&self) -> RunnerVersion {
        self.used
    }

    /// Lets a runner be made now, of this version, or says why not. Whoever asks makes one: while GitHub's mind is not
    /// known, the next one has to wait for what becomes of it.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn admit(&mut self, now: Instant) -> Result<RunnerVersion, Refusal> {
        let version = self.used;
        match self.state {
            State::Serving => Ok(version),
            State::Paused(until) if until > now => Err(Refusal::Paused {
                version,
                left: until.duration_since(now),
            }),
            State::Probing(Some(made)) if now < made + PROBE => Err(Refusal::Probing { version }),
            State::Paused(_) | State::Probing(_) => {
                self.state = State::Probing(Some(now));
                Ok(version)
            }
        }
    }

    /// Takes in what has happened, and says what is to be done.
    pub fn on(&mut self, event: &Event, now: Instant) -> Vec<Decision> {
        match *event {
            Event::Tick => self.tick(now),
            Event::Refused(version) => self.refused(version, now),
            Event::TookJob(version) => {
                if version == self.used {
                    self.state = State::Serving;
                    self.refusals = 0;
                    self.told.clear();
                }
                vec![]
            }
            Event::Idle(version) => {
                if version == self.used && matches!(self.state, State::Probing(_)) {
                    self.state = State::Probing(None);
                }
                vec![]
            }
            Event::Latest(version) => {
                self.end(Errand::Asking);
                self.latest(version, now)
            }
            Event::LatestUnknown => {
                self.end(Errand::Asking);
                let used = self.used;
                self.explain(Alert::Unknown { used })
            }
            Event::Staged(version) => {
                self.end(Errand::Staging(version));
                // Never back by itself: an older version is refused sooner.
                if version <= self.used {
                    return vec![];
                }
                self.used = version;
                // What was refused was another version. If this one is refused as well, the pause is longer.
                self.state = State::Serving;
                self.told.clear();
                vec![Decision::Use(version)]
            }
            Event::NotStaged(version) => {
                self.end(Errand::Staging(version));
                self.failed = Some((version, now + self.pause().max(PAUSE)));
                self.tell(Alert::NotStaged { version })
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.state != State::Serving
    }

    /// As long as there were refusals: 10, 20, 40 minutes and so on.
    fn pause(&self) -> Duration {
        let doubled = 1u32
            .checked_shl(self.refusals.saturating_sub(1))
            .unwrap_or(u32::MAX);
        PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
    }

    fn refused(&mut self, version: RunnerVersion, now: Instant) -> Vec<Decision> {
        // Another version's runner that was on its way, or one more of those that were refused already.
        if version != self.used || matches!(self.state, State::Paused(until) if until > now) {
            return vec![];
        }
        self.refusals = self.refusals.saturating_add(1);
        self.state = State::Paused(now + self.pause());
        self.ask(now)
    }

    fn tick(&mut self, now: Instant) -> Vec<Decision> {
        if self.errand.is_some_and(|(_, since)| now >= since + PATIENCE) {
            self.errand = None;
        }
        let every = if self.is_paused() { PAUSE } else { EVERY };
        if self.asked.is_none_or(|asked| now >= asked + every) {
            return self.ask(now);
        }
        vec![]
    }

    /// One errand at a time.
    fn ask(&mut self, now: Instant) -> Vec<Decision> {
        if self.errand.is_some() {
            return vec![];
        }
        self.errand = Some((Errand::Asking, now));
        self.asked = Some(now);
        vec![Decision::AskLatest]
    }

    fn end(&mut self, errand: Errand) {
        if self.errand.is_some_and(|(running, _)| running == errand) {
            self.errand = None;
        }
    }

    fn latest(&mut self, latest: RunnerVersion, now: Instant) -> Vec<Decision> {
        let used = self.used;
        if latest <= used {
            let outage = Alert::Outage { used, latest };
            return self.explain(outage);
        }
        let is_left_alone = |(version, until): (RunnerVersion, Instant)| version == latest && now < until;
        if self.errand.is_some() || self.failed.is_some_and(is_left_alone) {
            return vec![];
        }
        self.errand = Some((Errand::Staging(latest), now));
        let outdated = Alert::Outdated { used, newer: latest };
        let mut decisions = self.explain(outdated);
        decisions.push(Decision::Stage(latest));
        decisions
    }

    /// Tells why no runner is made, while none is.
    fn explain(&mut self, alert: Alert) -> Vec<Decision> {
        if self.is_paused() {
            self.tell(alert)
        } else {
            vec![]
        }
    }

    fn tell(&mut self, alert: Alert) -> Vec<Decision> {
        if self.told.contains(&alert) {
            return vec![];
        }
        self.told.push(alert);
        vec![Decision::Alert(alert)]
    }
}

#[cfg(test)]
#[path = "version/tests.rs"]
mod tests;
