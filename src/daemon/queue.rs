//! Which job gets the next free slot: first come, first served inside a repository, and turns between
//! repositories, so that one with a hundred jobs cannot starve another.
//!
//! ```text
//!   turns ─►  acme/ios: 1 2 3    acme/web: 4    acme/api: 5 6
//!   popped:   1  4  5  2  6  3
//! ```
//!
//! The repository at the front gives its oldest job and goes to the back; one without jobs leaves, and comes
//! in again at the back. With k repositories waiting, each is therefore served within k pops. Everything is
//! a scan: the queue holds what one host will do in an hour or so, and nothing here is on a job's hot path.

use std::collections::VecDeque;

use crate::job::{JobId, Repo};

/// The jobs that wait for a slot.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// Front is next. No two entries are of the same repository, and none is empty.
    turns: VecDeque<Turn>,
}

/// One repository's waiting jobs, oldest first.
#[derive(Debug, Clone)]
struct Turn {
    repo: Repo,
    jobs: VecDeque<JobId>,
}

impl Queue {
    /// Adds a job behind the others of its repository and returns true; false, and nothing changes, when the
    /// job waits already.
    pub fn push(&mut self, id: JobId, repo: Repo) -> bool {
        if self.iter().any(|waiting| *waiting == id) {
            return false;
        }
        match self.turns.iter_mut().find(|turn| turn.repo == repo) {
            Some(turn) => turn.jobs.push_back(id),
            None => self.turns.push_back(Turn {
                repo,
                jobs: VecDeque::from([id]),
            }),
        }
        true
    }

    /// Takes out the job whose turn it is; `None` when nothing waits.
    pub fn pop(&mut self) -> Option<JobId> {
        let mut turn = self.turns.pop_front()?;
        let id = turn.jobs.pop_front();
        if !turn.jobs.is_empty() {
            self.turns.push_back(turn);
        }
        id
    }

    /// Takes a job out wherever it stands; false when it does not wait here.
    pub fn remove(&mut self, id: &JobId) -> bool {
        let before = self.len();
        for turn in &mut self.turns {
            turn.jobs.retain(|waiting| waiting != id);
        }
        self.turns.retain(|turn| !turn.jobs.is_empty());
        self.len() < before
    }

    /// The number of jobs that wait.
    pub fn len(&self) -> usize {
        self.turns.iter().map(|turn| turn.jobs.len()).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// How many jobs will be popped before this one, if none is added or removed; `None` when it does not
    /// wait here.
    pub fn position(&self, id: &JobId) -> Option<usize> {
        self.iter().position(|waiting| waiting == id)
    }

    /// The jobs in the order they would be popped.
    pub fn iter(&self) -> impl Iterator<Item = &JobId> {
        // Popping keeps the order of the repositories that stay, so the n-th jobs of all of them are one
        // round.
        let rounds = self.turns.iter().map(|turn| turn.jobs.len()).max().unwrap_or(0);
        (0..rounds).flat_map(|round| self.turns.iter().filter_map(move |turn| turn.jobs.get(round)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::UNIX_EPOCH;

    fn id(n: u32) -> JobId {
        JobId::new(UNIX_EPOCH, n)
    }

    fn repo(n: u8) -> Repo {
        format!("acme/r{n}").parse().unwrap()
    }

    fn drain(mut queue: Queue) -> Vec<JobId> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn repositories_take_turns_and_jobs_of_one_keep_their_order() {
        let mut queue = Queue::default();
        for (job, of) in [(1, 1), (2, 1), (3, 1), (4, 2), (5, 3), (6, 3)] {
            assert!(queue.push(id(job), repo(of)));
        }
        assert_eq!(drain(queue), [1, 4, 5, 2, 6, 3].map(id));
    }

    #[test]
    fn a_hundred_jobs_of_one_repository_let_another_through_at_once() {
        let mut queue = Queue::default();
        for job in 0..100 {
            queue.push(id(job), repo(1));
        }
        assert_eq!(queue.pop(), Some(id(0)));
        queue.push(id(100), repo(2));
        assert_eq!(queue.position(&id(100)), Some(1));
    }

    #[test]
    fn spelling_a_repository_differently_gains_no_extra_turn() {
        let mut queue = Queue::default();
        queue.push(id(1), "acme/ios".parse().unwrap());
        queue.push(id(2), "Acme/iOS".parse().unwrap());
        queue.push(id(3), "acme/web".parse().unwrap());
        assert_eq!(drain(queue), [1, 3, 2].map(id));
    }

    #[test]
    fn a_job_that_waits_already_is_not_added_again() {
        let mut queue = Queue::default();
        assert!(queue.push(id(1), repo(1)));
        assert!(!queue.push(id(1), repo(2)));
        assert_eq!(drain(queue), [id(1)]);
    }

    #[test]
    fn a_removed_job_is_gone_and_its_place_is_closed() {
        let mut queue = Queue::default();
        for (job, of) in [(1, 1), (2, 1), (3, 2)] {
            queue.push(id(job), repo(of));
        }
        assert!(queue.remove(&id(3)));
        assert!(!queue.remove(&id(3)));
        assert_eq!((queue.len(), queue.position(&id(3))), (2, None));
        assert_eq!(drain(queue), [id(1), id(2)]);
    }

    /// One thing done to a queue.
    #[derive(Debug, Clone)]
    enum Deed {
        Push(u8),
        Pop,
        /// Removes the job pushed as the n-th.
        Remove(u32),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            4 => (0u8..5).prop_map(Deed::Push),
            2 => Just(Deed::Pop),
            1 => (0u32..40).prop_map(Deed::Remove),
        ];
        proptest::collection::vec(deed, 0..80)
    }

    /// Pushes a job of repository `of`, whose id is the number of jobs pushed before.
    fn push_next(queue: &mut Queue, repos: &mut Vec<u8>, of: u8) {
        assert!(queue.push(id(u32::try_from(repos.len()).unwrap()), repo(of)));
        repos.push(of);
    }

    /// A queue with a past, and the repository of every job it ever had.
    fn played(deeds: Vec<Deed>) -> (Queue, Vec<u8>) {
        let (mut queue, mut repos) = (Queue::default(), Vec::new());
        for deed in deeds {
            match deed {
                Deed::Push(of) => push_next(&mut queue, &mut repos, of),
                Deed::Pop => drop(queue.pop()),
                Deed::Remove(n) => drop(queue.remove(&id(n))),
            }
        }
        (queue, repos)
    }

    proptest! {
        #[test]
        fn every_job_leaves_exactly_once_and_in_its_repositorys_order(deeds in deeds()) {
            let mut queue = Queue::default();
            let mut repos = Vec::new();
            let (mut popped, mut removed) = (Vec::new(), Vec::new());
            for deed in deeds {
                match deed {
                    Deed::Push(of) => push_next(&mut queue, &mut repos, of),
                    Deed::Pop => popped.extend(queue.pop()),
                    Deed::Remove(n) => {
                        if queue.remove(&id(n)) {
                            removed.push(id(n));
                        }
                    }
                }
                prop_assert_eq!(queue.len() + popped.len() + removed.len(), repos.len());
                prop_assert_eq!(queue.is_empty(), queue.iter().next().is_none());
            }
            popped.extend(drain(queue));
            for of in 0..5 {
                // Ids count up, so the order of pushing is the order of the ids.
                let pushed = (0u32..).zip(&repos).filter(|(_, r)| **r == of).map(|(n, _)| id(n));
                let expected: Vec<_> = pushed.filter(|job| !removed.contains(job)).collect();
                let left: Vec<_> = popped.iter().filter(|job| expected.contains(job)).cloned().collect();
                prop_assert_eq!(left, expected);
            }
            prop_assert_eq!(popped.len() + removed.len(), repos.len());
        }

        #[test]
        fn the_order_shown_is_the_order_popped(deeds in deeds()) {
            let (queue, _) = played(deeds);
            let shown: Vec<_> = queue.iter().cloned().collect();
            for (place, job) in shown.iter().enumerate() {
                prop_assert_eq!(queue.position(job), Some(place));
            }
            prop_assert_eq!(drain(queue), shown);
        }

        #[test]
        fn with_k_repositories_waiting_each_gets_a_turn_within_k_pops(
            deeds in deeds(), late in proptest::collection::vec(0u8..8, 8),
        ) {
            let (mut queue, mut repos) = played(deeds);
            let repo_of = |job: &JobId, repos: &[u8]| {
                (0u32..).zip(repos).find(|(n, _)| id(*n) == *job).map(|(_, of)| *of).unwrap()
            };
            let waiting: BTreeSet<u8> = queue.iter().map(|job| repo_of(job, &repos)).collect();
            let mut served = BTreeSet::new();
            // Jobs that arrive meanwhile, also of repositories that did not wait, must not delay anyone.
            for of in late.iter().take(waiting.len()) {
                served.extend(queue.pop().map(|job| repo_of(&job, &repos)));
                push_next(&mut queue, &mut repos, *of);
            }
            prop_assert_eq!(served, waiting);
        }
    }
}
