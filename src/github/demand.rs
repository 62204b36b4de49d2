//! How many runners there should be, and for which jobs: pure, from what GitHub was last seen to have and what we have.
//!
//! GitHub gives a job to any runner that has its labels. So runners are not counted per job but per **class**: all jobs
//! that any runner of a [`Scope`](super::ticket::Scope) could be given, which all have our labels.
//!
//! ```text
//!  wanted = jobs that wait            made = runners that have no job yet: waiting for a slot, starting, idle
//!           and may run here
//!  made < wanted ─► make for those that nothing was made for, oldest first
//!  made > wanted ─► withdraw those that wait for a slot, newest first; an idle one ends by itself after a while
//! ```
//!
//! That is done twice: for jobs that may be native, whose runners have slots, and for those that go to guests, whose runners
//! have guests. One of a guest's that is given a job that might have been native does no harm, and the sums come right with
//! the next look.
//!
//! Where a scale set is the source, GitHub says itself how many of its jobs need a runner ([`Wanted`]), and gives them to the
//! set's runners alone; the rest is the same.
//!
//! A runner that has a job is in neither sum: it is never ended because of what is counted here.
//!
//! A job that is not trusted and waits for the same labels could be given to a native runner. The runner would notice
//! before the first step and stop ([`super::admission`]); so that it need not come to that, none is made for a while, in
//! which somebody else, or a guest of ours, may take the job. A refused job holds runners of guests in the same way. Not for ever: otherwise everybody who can open a pull request could stop the
//! jobs of the repository, with one job after the other. So no job is held longer than [`HOLD`], whoever comes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::claim::Standing;
use super::ticket::{Key, Ticket};
use crate::job::JobId;
use crate::trust::{Decision, Route};

/// How long a job is held, and how long another one holds it, which waits for the same labels and must not run here.
pub const HOLD: Duration = Duration::from_secs(5 * 60);

/// A job that waits at GitHub and could be given to our runners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The job.
    pub ticket: Ticket,
    /// Where it may run, and why.
    pub decision: Decision,
    /// How long we have seen it wait.
    pub seen_for: Duration,
    /// What became of earlier attempts.
    pub standing: Standing,
    /// Whether it is written down that it may not run here.
    pub is_told: bool,
    /// Why nothing is started for it now, whoever asks: the host is drained, or does not have what it must.
    pub shut: Option<String>,
}

/// How far one of our runners is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// There is none yet: our job waits for a slot.
    NoSlot,
    /// It is made or being made, and nobody has seen it have a job.
    Free,
    /// It has a job, or had one.
    Taken,
}

/// One of our jobs, each of which is one runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    /// Which.
    pub job: JobId,
    /// The job of GitHub's it was made for.
    pub made_for: Key,
    /// Whether it has a guest instead of a slot.
    pub in_guest: bool,
    /// How far it is.
    pub stage: Stage,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a runner for this job.
    Make(Key),
    /// Take back the one that waits for a slot.
    Withdraw(JobId),
    /// Write down that this job may not run here, and why.
    Tell {
        /// Which.
        job: Key,
        /// Why not.
        why: String,
    },
}

/// Why nothing is made for a job that may be native, for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub job: Key,
    /// Why, in words.
    pub why: String,
}

/// How many runners without a job there should be, where GitHub says so. Between the two, which differ while its word and
/// what is seen here are not of the same moment, nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Up to this many, runners are made.
    pub least: usize,
    /// Down to this many, those without a slot are withdrawn.
    pub most: usize,
}

/// Decides for one class.
pub fn account(waiting: &[Waiting], ours: &[Ours]) -> (Vec<Step>, Vec<Held>) {
    decide(waiting, ours, None)
}

/// Decides for the runners of a scale set, which are given no other jobs than those it acquired.
pub fn account_assigned(waiting: &[Waiting], ours: &[Ours], wanted: Wanted) -> (Vec<Step>, Vec<Held>) {
    decide(waiting, ours, Some(wanted))
}

/// How many runners of a scale set are missing for jobs that are not among those that `waiting` has.
pub fn unknown(waiting: &[Waiting], ours: &[Ours], wanted: Wanted) -> usize {
    let free: Vec<&Ours> = ours.iter().filter(|one| one.stage != Stage::Taken).collect();
    let covered: BTreeSet<&Key> = free.iter().map(|one| &one.made_for).collect();
    let known = waiting.iter().filter(|job| job.decision.route == Route::Native);
    let known = known.filter(|job| !covered.contains(&job.ticket.key())).count();
    wanted.least.saturating_sub(free.len() + known)
}

fn decide(waiting: &[Waiting], ours: &[Ours], assigned: Option<Wanted>) -> (Vec<Step>, Vec<Held>) {
    let mut steps = Vec::new();
    for job in waiting.iter().filter(|job| !job.is_told) {
        let why = match (&job.decision.route, &job.standing) {
            (Route::Refuse, _) => job.decision.reason.clone(),
            (Route::Native | Route::Vm, Standing::Blocked { why }) => why.clone(),
            (Route::Native | Route::Vm, Standing::Ready | Standing::Later { .. }) => continue,
        };
        steps.push(Step::Tell {
            job: job.ticket.key(),
            why,
        });
    }
    let (native, mut held) = of_route(Route::Native, waiting, ours, assigned);
    // What a scale set acquires is native.
    let (guests, later) = of_route(Route::Vm, waiting, ours, None);
    steps.extend(native);
    steps.extend(guests);
    held.extend(later);
    (steps, held)
}

/// Decides for the jobs of a class that go one way.
fn of_route(
    route: Route,
    waiting: &[Waiting],
    ours: &[Ours],
    assigned: Option<Wanted>,
) -> (Vec<Step>, Vec<Held>) {
    let (mut steps, mut held) = (Vec::new(), Vec::new());
    let mut wanted: Vec<&Waiting> = waiting.iter().filter(|job| is_wanted(job, route)).collect();
    // GitHub numbers jobs as they come.
    wanted.sort_by_key(|job| job.ticket.job);
    let is_free = |one: &&Ours| one.stage != Stage::Taken && one.in_guest == (route == Route::Vm);
    let free: Vec<&Ours> = ours.iter().filter(is_free).collect();
    let is_strange = |job: &&Waiting| match route {
        Route::Native => job.decision.route != Route::Native,
        Route::Vm | Route::Refuse => job.decision.route == Route::Refuse,
    };
    let stranger = waiting
        .iter()
        .find(|job| assigned.is_none() && is_strange(job) && job.seen_for < HOLD);
    let count = assigned.unwrap_or(Wanted {
        least: wanted.len(),
        most: wanted.len(),
    });
    if free.len() > count.most {
        let surplus = free.len() - count.most;
        let mut idle: Vec<&JobId> = ours_without_slot(&free).collect();
        idle.sort();
        steps.extend(idle.into_iter().rev().take(surplus).cloned().map(Step::Withdraw));
    }
    let covered: BTreeSet<&Key> = free.iter().map(|one| &one.made_for).collect();
    let mut missing = count.least.saturating_sub(free.len());
    for job in wanted {
        let key = job.ticket.key();
        if missing == 0 || covered.contains(&key) {
            continue;
        }
        missing -= 1;
        let why = match (&job.shut, &job.standing, stranger) {
            (Some(why), _, _) | (None, Standing::Later { why }, _) => why.clone(),
            (None, _, Some(stranger)) if job.seen_for < HOLD => format!(
                "`{}` of run {} waits for the same labels and must not run {}: {}",
                stranger.ticket.name.escape_debug(),
                stranger.ticket.run,
                if route == Route::Native {
                    "as a native job"
                } else {
                    "here"
                },
                stranger.decision.reason
            ),
            (None, _, _) => {
                steps.push(Step::Make(key));
                continue;
            }
        };
        held.push(Held { job: key, why });
    }
    (steps, held)
}

/// Whether a runner should be there for a job that goes this way.
fn is_wanted(job: &Waiting, route: Route) -> bool {
    job.decision.route == route && !matches!(job.standing, Standing::Blocked { .. })
}

fn ours_without_slot<'a>(free: &'a [&Ours]) -> impl Iterator<Item = &'a JobId> {
    free.iter()
        .filter(|one| one.stage == Stage::NoSlot)
        .map(|one| &one.job)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    pub(in crate::github) fn waiting(job: u64, route: Route) -> Waiting {
        Waiting {
            ticket: Ticket {
                repo: "acme/app".parse().unwrap(),
                run: 7,
                attempt: 1,
                job,
                name: format!("job {job}"),
                pull: None,
                url: String::new(),
            },
            decision: Decision {
                route,
                reason: "a fork".to_owned(),
                rule: String::new(),
                chain: vec![],
                fallback: None,
                vm: crate::vm::VmChoice::default(),
            },
            seen_for: Duration::ZERO,
            standing: Standing::Ready,
            is_told: false,
            shut: None,
        }
    }

    fn ours(n: u32, made_for: u64, stage: Stage) -> Ours {
        Ours {
            job: JobId::new(UNIX_EPOCH, n),
            made_for: key(made_for),
            in_guest: false,
            stage,
        }
    }

    fn key(job: u64) -> Key {
        ("acme/app".to_owned(), job)
    }

    fn make(jobs: &[u64]) -> Vec<Step> {
        jobs.iter().map(|job| Step::Make(key(*job))).collect()
    }

    #[test]
    fn i2_there_is_a_runner_for_every_job_and_those_that_have_one_do_not_count() {
        let jobs: Vec<Waiting> = [31, 30, 32].map(|job| waiting(job, Route::Native)).into();
        assert_eq!(account(&jobs, &[]).0, make(&[30, 31, 32]));
        // Another job took the runner that was made for 30. The one made for 30 is still missing.
        let one = [ours(1, 30, Stage::Taken), ours(2, 31, Stage::Free)];
        assert_eq!(account(&jobs, &one).0, make(&[30, 32]));
    }

    #[test]
    fn i2_a_runner_made_for_a_job_that_is_gone_serves_the_next_one() {
        let jobs = [waiting(40, Route::Native)];
        assert_eq!(account(&jobs, &[ours(1, 30, Stage::Free)]).0, []);
    }

    #[test]
    fn what_is_too_many_is_withdrawn_only_where_there_is_no_runner_yet() {
        let jobs = [waiting(40, Route::Native)];
        let more = [
            ours(1, 30, Stage::Free),
            ours(2, 31, Stage::NoSlot),
            ours(3, 40, Stage::NoSlot),
            ours(4, 29, Stage::Taken),
        ];
        let withdrawn = |n: usize| Step::Withdraw(more[n].job.clone());
        assert_eq!(account(&jobs, &more).0, [withdrawn(2), withdrawn(1)]);
        assert_eq!(account(&[], &more[..1]).0, [], "it ends by itself");
    }

    #[test]
    fn a_job_that_may_not_run_here_is_told_once() {
        let mut jobs = [waiting(30, Route::Refuse)];
        let tell = Step::Tell {
            job: key(30),
            why: "a fork".to_owned(),
        };
        assert_eq!(account(&jobs, &[]).0, [tell]);
        jobs[0].is_told = true;
        assert_eq!(account(&jobs, &[]).0, []);
    }

    #[test]
    fn i5_a_blocked_job_is_told_with_its_reason_and_not_tried_again() {
        let mut jobs = [waiting(30, Route::Native)];
        jobs[0].standing = Standing::Blocked {
            why: "blocked: five times".to_owned(),
        };
        let tell = Step::Tell {
            job: key(30),
            why: "blocked: five times".to_owned(),
        };
        assert_eq!(account(&jobs, &[]).0, [tell]);
    }

    #[test]
    fn a_job_that_is_tried_again_later_keeps_nobody_else_waiting() {
        let mut jobs = [waiting(30, Route::Native), waiting(31, Route::Native)];
        jobs[0].standing = Standing::Later {
            why: "in 30 s: GitHub said no".to_owned(),
        };
        let (steps, held) = account(&jobs, &[]);
        assert_eq!(steps, make(&[31]));
        assert_eq!(held.len(), 1);
        assert_eq!(
            (&held[0].job, held[0].why.as_str()),
            (&key(30), "in 30 s: GitHub said no")
        );
    }

    #[test]
    fn an_untrusted_job_with_our_labels_holds_the_others_for_a_while() {
        let mut jobs = [waiting(30, Route::Native), waiting(31, Route::Refuse)];
        jobs[1].is_told = true;
        let (steps, held) = account(&jobs, &[]);
        assert_eq!(steps, []);
        assert!(
            held[0]
                .why
                .starts_with("`job 31` of run 7 waits for the same labels"),
            "{held:?}"
        );
        jobs[1].seen_for = HOLD;
        assert_eq!(account(&jobs, &[]).0, make(&[30]));
    }

    #[test]
    fn no_job_is_held_for_ever_however_many_untrusted_ones_come() {
        let mut jobs = [waiting(30, Route::Native), waiting(31, Route::Refuse)];
        jobs[1].is_told = true;
        jobs[0].seen_for = HOLD;
        assert_eq!(account(&jobs, &[]).0, make(&[30]));
    }

    #[test]
    fn a_job_for_a_guest_gets_a_runner_in_one_and_holds_native_ones_until_it_has_a_job() {
        let mut jobs = vec![waiting(30, Route::Native), waiting(31, Route::Vm)];
        let (steps, held) = account(&jobs, &[]);
        assert_eq!(steps, make(&[31]));
        assert!(held[0].why.contains("must not run as a native job"), "{held:?}");
        let guest = |stage| Ours {
            in_guest: true,
            ..ours(1, 31, stage)
        };
        assert_eq!(account(&jobs, &[guest(Stage::NoSlot)]).0, []);
        // The native job was given to the guest's runner: there must be another guest.
        jobs.remove(0);
        assert_eq!(account(&jobs, &[guest(Stage::Taken)]).0, make(&[31]));
        // A native runner without a job does not serve it, and one that waits for a guest is withdrawn when it is taken.
        assert_eq!(account(&jobs, &[ours(2, 30, Stage::Free)]).0, make(&[31]));
        assert_eq!(
            account(&[], &[guest(Stage::NoSlot)]).0,
            [Step::Withdraw(guest(Stage::NoSlot).job)]
        );
    }

    #[test]
    fn a_refused_job_holds_runners_of_guests_and_one_for_a_guest_does_not() {
        let mut jobs = [
            waiting(30, Route::Vm),
            waiting(31, Route::Refuse),
            waiting(32, Route::Vm),
        ];
        jobs[1].is_told = true;
        let (steps, held) = account(&jobs, &[]);
        assert_eq!((steps, held.len()), (vec![], 2));
        jobs[1].seen_for = HOLD;
        assert_eq!(account(&jobs, &[]).0, make(&[30, 32]));
    }

    #[test]
    fn i7_nothing_is_made_while_the_host_takes_no_work() {
        let mut jobs = [waiting(30, Route::Native)];
        jobs[0].shut = Some("the host is drained".to_owned());
        let (steps, held) = account(&jobs, &[]);
        assert_eq!(steps, []);
        let why = "the host is drained".to_owned();
        assert_eq!(held, [Held { job: key(30), why }]);
    }

    #[test]
    fn a_scale_sets_runners_are_as_many_as_github_says_and_no_stranger_holds_them() {
        let mut jobs: Vec<Waiting> = [30, 31, 32].map(|job| waiting(job, Route::Native)).into();
        jobs.push(waiting(33, Route::Refuse));
        jobs[3].is_told = true;
        let two = Wanted { least: 2, most: 2 };
        assert_eq!(account_assigned(&jobs, &[], two).0, make(&[30, 31]));
        let one = [ours(1, 30, Stage::Free), ours(2, 29, Stage::Taken)];
        assert_eq!(account_assigned(&jobs, &one, two).0, make(&[31]));
        // What waits here is no reason to make more, and what is not seen here is none to make less.
        let none = Wanted { least: 0, most: 0 };
        assert_eq!(account_assigned(&jobs, &[], none).0, []);
        assert_eq!(unknown(&jobs, &one, Wanted { least: 5, most: 5 }), 2);
        assert_eq!(unknown(&jobs, &one, two), 0);
    }

    #[test]
    fn a_scale_sets_runners_are_withdrawn_only_when_nobody_can_want_them() {
        let jobs = [waiting(30, Route::Native)];
        let ours = [ours(1, 30, Stage::NoSlot), ours(2, 29, Stage::Taken)];
        assert_eq!(account_assigned(&jobs, &ours, Wanted { least: 0, most: 1 }).0, []);
        let step = Step::Withdraw(ours[0].job.clone());
        assert_eq!(
            account_assigned(&jobs, &ours, Wanted { least: 0, most: 0 }).0,
            [step]
        );
    }

    proptest! {
        #[test]
        fn i2_what_is_made_and_what_is_free_never_exceed_what_is_wanted(
            routes in prop::collection::vec(prop::sample::select(vec![Route::Native, Route::Refuse]), 0..8),
            in_guest: bool,
            stages in prop::collection::vec(prop::sample::select(vec![Stage::NoSlot, Stage::Free, Stage::Taken]), 0..8),
            hold: bool,
        ) {
            let here = if in_guest { Route::Vm } else { Route::Native };
            let jobs: Vec<Waiting> = (0_u64..).zip(routes).map(|(at, route)| Waiting {
                seen_for: if hold { Duration::ZERO } else { HOLD },
                ..waiting(at, if route == Route::Native { here } else { route })
            }).collect();
            let ours: Vec<Ours> = (0_u32..).zip(stages).map(|(at, stage)| Ours {
                in_guest,
                ..ours(at, u64::from(at), stage)
            }).collect();
            let (steps, _) = account(&jobs, &ours);
            let wanted = jobs.iter().filter(|job| job.decision.route == here).count();
            let free = ours.iter().filter(|one| one.stage != Stage::Taken).count();
            let count = |test: fn(&Step) -> bool| steps.iter().filter(|step| test(step)).count();
            let made = count(|step| matches!(step, Step::Make(_)));
            let withdrawn = count(|step| matches!(step, Step::Withdraw(_)));
            prop_assert!(made == 0 || free + made <= wanted);
            prop_assert!(free - withdrawn >= wanted.min(free));
            // I1: one that has a job is never withdrawn.
            for step in &steps {
                if let Step::Withdraw(job) = step {
                    let one = ours.iter().find(|one| one.job == *job).unwrap();
                    prop_assert_eq!(one.stage, Stage::NoSlot);
                }
            }
            let may_make = !hold || jobs.iter().all(|job| job.decision.route == here);
            prop_assert!(may_make || made == 0);
        }
    }
}
