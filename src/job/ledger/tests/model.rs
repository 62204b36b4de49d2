//! The ledger against a model of it.

use super::*;
use proptest::prelude::*;

/// One thing done to a ledger; jobs and acquisitions by the order they were made in.
#[derive(Debug, Clone)]
enum Deed {
    Record,
    Acquire(prop::sample::Index, Acquisition),
    Release(prop::sample::Index),
    Finish(prop::sample::Index, bool),
    Prune(usize),
    Reopen,
}

fn deed() -> impl Strategy<Value = Deed> {
    let any_index = any::<prop::sample::Index>;
    prop_oneof![
        3 => Just(Deed::Record),
        5 => (any_index(), prop_oneof![Just(Acquisition::Workspace), Just(PROCESSES)])
            .prop_map(|(job, what)| Deed::Acquire(job, what)),
        4 => any_index().prop_map(Deed::Release),
        2 => (any_index(), any::<bool>()).prop_map(|(job, clean)| Deed::Finish(job, clean)),
        1 => (0usize..3).prop_map(Deed::Prune),
        1 => Just(Deed::Reopen),
    ]
}

/// What an unfinished job should hold, newest last.
type Model = BTreeMap<JobId, Vec<(AcquisitionId, Acquisition)>>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_open_is_what_was_acquired_and_not_released(deeds in proptest::collection::vec(deed(), 0..60)) {
        let (_folder, path) = folder();
        let mut ledger = Ledger::open(&path).unwrap();
        let (mut jobs, mut all, mut model) = (Vec::new(), Vec::new(), Model::new());
        for (now, deed) in (0u64..).zip(deeds) {
            match deed {
                Deed::Record => {
                    record(&ledger, &id(now), at(now)).unwrap();
                    jobs.push(id(now));
                    model.insert(id(now), vec![]);
                }
                Deed::Acquire(job, what) if !jobs.is_empty() => {
                    let job = job.get(&jobs);
                    let written = ledger.acquire(job, &what, at(now));
                    prop_assert_eq!(written.is_ok(), model.contains_key(job));
                    if let (Ok(held), Some(open)) = (written, model.get_mut(job)) {
                        open.push((held, what));
                        all.push(held);
                    }
                }
                Deed::Release(which) if !all.is_empty() => {
                    let held = *which.get(&all);
                    ledger.released(held, at(now)).unwrap();
                    model.values_mut().for_each(|open| open.retain(|(other, _)| *other != held));
                }
                Deed::Finish(job, clean) if !jobs.is_empty() => {
                    let job = job.get(&jobs);
                    let may = model.get(job).is_some_and(|open| !clean || open.is_empty());
                    prop_assert_eq!(finish(&ledger, job, clean, at(now)).is_ok(), may);
                    if may {
                        model.remove(job);
                    }
                }
                Deed::Prune(keep) => drop(ledger.prune(keep).unwrap()),
                Deed::Reopen => {
                    drop(ledger);
                    ledger = Ledger::open(&path).unwrap();
                }
                Deed::Acquire(..) | Deed::Release(_) | Deed::Finish(..) => {}
            }
        }
        let found: Vec<_> = ledger.unfinished().unwrap().into_iter().map(|job| (job.id, job.open)).collect();
        let newest_first = model.into_iter().map(|(job, open)| (job, open.into_iter().rev().collect()));
        prop_assert_eq!(found, newest_first.collect::<Vec<(JobId, Vec<_>)>>());
    }
}
