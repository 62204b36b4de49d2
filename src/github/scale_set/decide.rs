//! What follows from what the service of scale sets says.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Offer, ScaleSet, Statistics};
use crate::github::claim::{Standing, jittered};
use crate::github::demand::{Held, Waiting, Wanted};
use crate::trust::Route;

/// The first wait after something went wrong.
const FIRST: Duration = Duration::from_secs(1);

/// The longest.
const LONGEST: Duration = Duration::from_secs(60);

/// How long an offer may be of a job that the REST API does not list: it tells of a job some seconds after the queue.
pub const UNLISTED: Duration = Duration::from_secs(60);

/// What the answer to a long poll means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// There is a message.
    Message,
    /// There is none yet.
    Nothing,
    /// The queue's token is over: another is asked for, once.
    Refresh,
    /// The session is no more.
    Reopen,
    /// It is tried again, later each time.
    Later,
}

/// What a status means; `is_fresh` is whether the queue's token was just renewed.
pub fn heard(status: u16, is_fresh: bool) -> Heard {
    match status {
        200 => Heard::Message,
        202 | 204 => Heard::Nothing,
        401 if !is_fresh => Heard::Refresh,
        401 | 404 | 409 | 410 => Heard::Reopen,
        _ => Heard::Later,
    }
}

/// What the service says went wrong, by the name of its exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// There is a runner of that name.
    AgentExists,
    /// There is no such runner.
    AgentNotFound,
    /// The runner has a job.
    JobStillRunning,
    /// There is a scale set of that name.
    SetExists,
    /// Somebody has a session.
    SessionConflict,
}

impl Trouble {
    /// The one that a `typeName` names; it is a whole class of .NET with its assembly.
    pub fn of(type_name: &str) -> Option<Self> {
        let all = [
            ("AgentExistsException", Self::AgentExists),
            ("AgentNotFoundException", Self::AgentNotFound),
            ("JobStillRunningException", Self::JobStillRunning),
            ("RunnerScaleSetExistsException", Self::SetExists),
            ("RunnerScaleSetSessionConflictException", Self::SessionConflict),
        ];
        let named = all.into_iter().find(|(name, _)| type_name.contains(name));
        named.map(|(_, trouble)| trouble)
    }
}

/// Waits between attempts: a second, twice as long each further time, and a minute at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff(u32);

impl Backoff {
    /// The wait after another failure. `chance` is any number.
    pub fn failed(&mut self, chance: u32) -> Duration {
        let wait = FIRST * 2_u32.pow(self.0.min(6));
        self.0 = self.0.saturating_add(1);
        jittered(wait, chance).clamp(FIRST, LONGEST)
    }

    /// It works again.
    pub fn worked(&mut self) {
        *self = Self::default();
    }
}

/// The labels that GitHub left out, silently, where it takes none of one's own.
pub fn dropped(wanted: &[String], set: &ScaleSet) -> Vec<String> {
    let has: BTreeSet<String> = set.labels().map(str::to_ascii_lowercase).collect();
    let missing = wanted
        .iter()
        .filter(|label| !has.contains(&label.to_ascii_lowercase()));
    missing.cloned().collect()
}

/// How many runners without a job a set needs; `taken` is how many of ours have one, or have just had it.
///
/// GitHub's word and ours are not of the same moment. A runner that has taken a job may still be counted as waited for, and
/// one that is over may still be here: neither is a reason to make another. And only where both say that a job runs, it is
/// one less that a runner could still be wanted for.
pub fn wanted(statistics: Statistics, taken: usize) -> Wanted {
    let count = |number: i64| usize::try_from(number).unwrap_or(0);
    let assigned = count(statistics.total_assigned_jobs);
    let running = count(statistics.total_running_jobs);
    Wanted {
        least: assigned.saturating_sub(running.max(taken)),
        most: assigned.saturating_sub(running.min(taken)),
    }
}

/// What becomes of offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// What is acquired, by request.
    pub acquire: Vec<i64>,
    /// What is not acquired, now or later.
    pub decline: Vec<i64>,
    /// What may be acquired later, and why not now.
    pub held: Vec<Held>,
    /// How many offers are of jobs that the REST API does not list yet.
    pub unlisted: usize,
}

/// Chooses among offers whose runs were looked at, each with how long we have had it. `waiting` is what waits there, judged,
/// and there is room for so many.
///
/// Only what is trusted for this host is acquired. What waits no more, may not run here or is given up is declined, which
/// leaves it to others.
pub fn choose<'a>(
    offers: impl IntoIterator<Item = (&'a Offer, Duration)>,
    waiting: &[Waiting],
    room: usize,
) -> Chosen {
    let mut chosen = Chosen::default();
    let mut found = BTreeSet::new();
    for (offer, age) in offers {
        let of_run = |job: &&Waiting| {
            let ticket = &job.ticket;
            ticket.repo == offer.repo && ticket.run == offer.run && !found.contains(&ticket.key())
        };
        // Trust is the same for all jobs of a run, so that the name is for people only.
        let job = waiting
            .iter()
            .filter(of_run)
            .find(|job| job.ticket.name == offer.name)
            .or_else(|| waiting.iter().find(of_run));
        let Some(job) = job else {
            if age < UNLISTED {
                chosen.unlisted += 1;
            } else {
                chosen.decline.push(offer.request);
            }
            continue;
        };
        let key = job.ticket.key();
        found.insert(key.clone());
        let why = match (&job.decision.route, &job.standing, &job.shut) {
            (Route::Vm | Route::Refuse, _, _) | (_, Standing::Blocked { .. }, _) => {
                chosen.decline.push(offer.request);
                continue;
            }
            _ if job.is_told => {
                chosen.decline.push(offer.request);
                continue;
            }
            (Route::Native, _, Some(why)) | (Route::Native, Standing::Later { why }, None) => why.clone(),
            (Route::Native, Standing::Ready, None) if chosen.acquire.len() < room => {
                chosen.acquire.push(offer.request);
                continue;
            }
            (Route::Native, Standing::Ready, None) => {
                "not acquired: every slot has a job; others may take it".to_owned()
            }
        };
        chosen.held.push(Held { job: key, why });
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::demand;
    use proptest::prelude::*;
    use serde_json::json;

    fn offer(request: i64, run: u64, name: &str) -> Offer {
        Offer {
            request,
            repo: "acme/app".parse().unwrap(),
            run,
            name: name.to_owned(),
        }
    }

    fn waiting(job: u64, run: u64, route: Route) -> Waiting {
        let mut waiting = demand::tests::waiting(job, route);
        waiting.ticket.repo = "Acme/App".parse().unwrap();
        waiting.ticket.run = run;
        waiting
    }

    /// As of a while ago.
    fn old(offers: &[Offer]) -> impl Iterator<Item = (&Offer, Duration)> {
        offers.iter().map(|offer| (offer, UNLISTED))
    }

    fn statistics(assigned: i64, running: i64) -> Statistics {
        Statistics {
            total_assigned_jobs: assigned,
            total_running_jobs: running,
            ..Statistics::default()
        }
    }

    #[test]
    fn every_status_of_a_long_poll_has_its_next_step() {
        assert_eq!(heard(200, false), Heard::Message);
        assert_eq!(heard(202, false), Heard::Nothing);
        assert_eq!(heard(401, false), Heard::Refresh);
        assert_eq!(heard(401, true), Heard::Reopen, "a new token is asked for once");
        assert_eq!(heard(404, false), Heard::Reopen);
        assert_eq!(heard(409, false), Heard::Reopen);
        for status in [400, 403, 429, 500, 502, 503] {
            assert_eq!(heard(status, false), Heard::Later, "{status}");
        }
    }

    #[test]
    fn waits_grow_from_a_second_to_a_minute_and_begin_again() {
        let mut backoff = Backoff::default();
        let middle = 20;
        let waits: Vec<u64> = (0..9).map(|_| backoff.failed(middle).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.worked();
        assert_eq!(backoff.failed(middle), FIRST);
    }

    #[test]
    fn exceptions_are_known_by_a_part_of_their_name() {
        let name =
            |kind: &str| format!("GitHub.DistributedTask.WebApi.{kind}, GitHub.DistributedTask.WebApi");
        assert_eq!(
            Trouble::of(&name("AgentExistsException")),
            Some(Trouble::AgentExists)
        );
        assert_eq!(
            Trouble::of(&name("JobStillRunningException")),
            Some(Trouble::JobStillRunning)
        );
        assert_eq!(
            Trouble::of(&name("RunnerScaleSetSessionConflictException")),
            Some(Trouble::SessionConflict)
        );
        assert_eq!(Trouble::of(&name("SomethingNewException")), None);
    }

    #[test]
    fn labels_that_were_dropped_silently_are_noticed() {
        let set: ScaleSet =
            serde_json::from_value(json!({"id": 7, "labels": [{"type": "System", "name": "EPH-native"}]}))
                .unwrap();
        let wanted = ["eph-native", "gpu"].map(str::to_owned);
        assert_eq!(dropped(&wanted, &set), ["gpu"]);
        let bare: ScaleSet = serde_json::from_value(json!({"id": 7})).unwrap();
        assert_eq!(dropped(&wanted, &bare).len(), 2);
    }

    #[test]
    fn runners_are_counted_from_what_is_assigned_and_not_from_what_was_told() {
        let exactly = |count| Wanted {
            least: count,
            most: count,
        };
        assert_eq!(wanted(statistics(3, 0), 0), exactly(3));
        assert_eq!(wanted(statistics(3, 1), 1), exactly(2));
        // A runner took its job a moment ago, and GitHub has not said so yet.
        assert_eq!(wanted(statistics(1, 0), 1), Wanted { least: 0, most: 1 });
        // GitHub has said so, and the runner has not.
        assert_eq!(wanted(statistics(2, 1), 0), Wanted { least: 1, most: 2 });
        // The runners of a daemon that was killed still have theirs, for GitHub.
        assert_eq!(wanted(statistics(2, 2), 0).least, 0);
        // More than fifty come in several messages, and are counted in the first.
        assert_eq!(wanted(statistics(60, 0), 0), exactly(60));
        assert_eq!(wanted(statistics(-1, 5), 0), exactly(0));
    }

    #[test]
    fn what_is_trusted_and_has_room_is_acquired_and_the_rest_is_not() {
        let jobs = [
            waiting(30, 7, Route::Native),
            waiting(31, 8, Route::Vm),
            waiting(32, 9, Route::Native),
        ];
        let offers = [
            offer(1, 7, "job 30"),
            offer(2, 8, "job 31"),
            offer(3, 9, "job 32"),
            offer(4, 10, "gone"),
        ];
        let chosen = choose(old(&offers), &jobs, 1);
        assert_eq!((chosen.acquire, chosen.decline), (vec![1], vec![2, 4]));
        assert_eq!(chosen.held.len(), 1);
        assert!(chosen.held[0].why.contains("every slot"), "{:?}", chosen.held);
        assert_eq!(choose(old(&offers), &jobs, 2).acquire, [1, 3]);
        // The last one may only not be listed yet.
        let fresh = choose(offers.iter().map(|offer| (offer, Duration::ZERO)), &jobs, 2);
        assert_eq!((fresh.decline, fresh.unlisted), (vec![2], 1));
    }

    #[test]
    fn what_cannot_be_run_now_stays_on_offer_and_what_never_can_does_not() {
        let mut jobs = [1, 2, 3, 4].map(|job| waiting(job, 7, Route::Native));
        jobs[0].shut = Some("drained".into());
        jobs[1].standing = Standing::Later {
            why: "in 30 s".into(),
        };
        jobs[2].standing = Standing::Blocked {
            why: "blocked".into(),
        };
        jobs[3].is_told = true;
        let offers = [1, 2, 3, 4].map(|job| offer(job, 7, &format!("job {job}")));
        let chosen = choose(old(&offers), &jobs, 9);
        assert_eq!(chosen.acquire, [0; 0]);
        assert_eq!(chosen.decline, [3, 4]);
        let why: Vec<&str> = chosen.held.iter().map(|held| held.why.as_str()).collect();
        assert_eq!(why, ["drained", "in 30 s"]);
    }

    proptest! {
        /// Whatever is offered and waits: what is acquired is of a run that is trusted, each once, and no more than fit.
        #[test]
        fn nothing_is_acquired_that_is_not_trusted(
            offers in prop::collection::vec((0..20_i64, 0..4_u64), 0..12),
            routes in prop::collection::vec(prop::sample::select(vec![Route::Native, Route::Vm, Route::Refuse]), 4),
            jobs in prop::collection::vec(0..4_usize, 0..12),
            room in 0..6_usize,
        ) {
            let offers: Vec<Offer> = offers.into_iter().map(|(request, run)| offer(request, run, "x")).collect();
            let jobs: Vec<Waiting> = (0_u64..).zip(jobs)
                .map(|(job, run)| waiting(job, u64::try_from(run).unwrap(), routes[run])).collect();
            let chosen = choose(old(&offers), &jobs, room);
            prop_assert!(chosen.acquire.len() <= room);
            prop_assert_eq!(chosen.acquire.len() + chosen.decline.len() + chosen.held.len(), offers.len());
            for request in chosen.acquire {
                let trusted = offers.iter().filter(|offer| offer.request == request)
                    .any(|offer| routes[usize::try_from(offer.run).unwrap()] == Route::Native);
                prop_assert!(trusted);
            }
        }

        #[test]
        fn no_wait_is_longer_than_a_minute(times in 0..200_u32, chance: u32) {
            let mut backoff = Backoff(times);
            let wait = backoff.failed(chance);
            prop_assert!((FIRST..=LONGEST).contains(&wait));
        }
    }
}
