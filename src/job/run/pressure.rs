//! What jobs and the host have of what they share, and whom that costs his job.
//!
//! Each job is measured against its own limits. That is not enough where all of them together may use more than there is: so
//! whoever finds the host below one of its floors looks whether it is his own job that has most, and only that one is
//! stopped. Until it is gone nobody else is: what it had comes back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::Floors;
use crate::host::Free;
use crate::job::JobId;
use crate::warden::Usage;

/// Why no job should start: the host has less free than it keeps.
pub fn why_full(free: Free, floors: Floors) -> Option<String> {
    let Floors {
        disk_byte,
        memory_byte,
    } = floors;
    let short = |what: &str, key: &str, free: u64, floor: u64| {
        (free < floor).then(|| {
            format!(
                "{what}: {} MiB are free, and this host keeps {} MiB\nhint: `host.{key}` says how much; `ephemerd doctor` says who has it",
                free >> 20,
                floor >> 20
            )
        })
    };
    short("disk", "min_free_disk", free.disk_byte, disk_byte).or_else(|| {
        let free_byte = free.memory_byte?;
        short("memory", "min_free_memory", free_byte, memory_byte)
    })
}

/// Less than this share of a floor is nobody's fault: the host was filled by somebody else.
const WORTH: u64 = 10;

/// What running jobs use, for those who find that the host is short.
#[derive(Debug, Default)]
pub struct Pressure(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    usage: BTreeMap<JobId, Usage>,
    /// Who is being stopped.
    condemned: Option<JobId>,
}

impl Pressure {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a job uses, and returns why it must be stopped, if it must be for the host's sake.
    pub fn judge(&self, job: &JobId, usage: Usage, free: Free, floors: Floors) -> Option<String> {
        let mut noted = self.noted();
        let known_disk = noted.usage.get(job).and_then(|old| old.disk_byte);
        let usage = Usage {
            // It is not measured every time.
            disk_byte: usage.disk_byte.or(known_disk),
            ..usage
        };
        noted.usage.insert(job.clone(), usage);
        if noted.condemned.is_some() {
            return None;
        }
        let why = noted.why_condemned(job, free, floors)?;
        noted.condemned = Some(job.clone());
        Some(why)
    }

    /// Forgets a job that is gone.
    pub fn forget(&self, job: &JobId) {
        let mut noted = self.noted();
        noted.usage.remove(job);
        noted.condemned.take_if(|condemned| condemned == job);
    }
}

impl Noted {
    fn why_condemned(&self, job: &JobId, free: Free, floors: Floors) -> Option<String> {
        let has_most = |what: &str, free: u64, floor: u64, of: fn(&Usage) -> u64| {
            let most = self.usage.iter().max_by_key(|(_, usage)| of(usage))?;
            let used = of(most.1);
            (free < floor && most.0 == job && used >= floor / WORTH).then(|| {
                format!(
                    "{what} of this host: {} MiB are free of the {} MiB it keeps, and this job has most, {} MiB",
                    free >> 20,
                    floor >> 20,
                    used >> 20
                )
            })
        };
        has_most("disk", free.disk_byte, floors.disk_byte, |usage| {
            usage.disk_byte.unwrap_or_default()
        })
        .or_else(|| {
            has_most("memory", free.memory_byte?, floors.memory_byte, |usage| {
                usage.memory_byte
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const FLOORS: Floors = Floors {
        disk_byte: 100 << 20,
        memory_byte: 50 << 20,
    };

    fn free(disk_mib: u64, memory_mib: u64) -> Free {
        Free {
            disk_byte: disk_mib << 20,
            memory_byte: Some(memory_mib << 20),
        }
    }

    fn usage(memory_mib: u64, disk_mib: Option<u64>) -> Usage {
        Usage {
            processes: 1,
            memory_byte: memory_mib << 20,
            was_out_of_memory: false,
            disk_byte: disk_mib.map(|mib| mib << 20),
        }
    }

    fn jobs() -> [JobId; 2] {
        [1, 2].map(|n| JobId::new(UNIX_EPOCH, n))
    }

    #[test]
    fn a_host_is_full_below_either_floor_and_says_which() {
        assert_eq!(why_full(free(100, 50), FLOORS), None);
        let disk = why_full(free(99, 50), FLOORS).unwrap();
        assert!(
            disk.starts_with("disk: 99 MiB are free, and this host keeps 100 MiB"),
            "{disk}"
        );
        assert!(why_full(free(100, 49), FLOORS).unwrap().starts_with("memory: 49"));
        let untold = Free {
            memory_byte: None,
            ..free(100, 0)
        };
        assert_eq!(why_full(untold, FLOORS), None);
    }

    #[test]
    fn only_the_job_that_has_most_is_stopped_and_nobody_else_until_it_is_gone() {
        let ([small, large], pressure) = (jobs(), Pressure::default());
        let judge = |job, usage, free| pressure.judge(job, usage, free, FLOORS);
        assert_eq!(judge(&small, usage(1, Some(20)), free(200, 99)), None);
        assert_eq!(judge(&large, usage(1, Some(90)), free(200, 99)), None);
        assert_eq!(
            judge(&small, usage(1, None), free(10, 99)),
            None,
            "another has more"
        );
        let why = judge(&large, usage(1, None), free(10, 99)).unwrap();
        assert_eq!(
            why,
            "disk of this host: 10 MiB are free of the 100 MiB it keeps, and this job has most, 90 MiB"
        );
        assert_eq!(judge(&small, usage(1, Some(500)), free(10, 99)), None);
        pressure.forget(&large);
        assert!(judge(&small, usage(1, None), free(10, 99)).is_some());
    }

    #[test]
    fn memory_is_judged_apart_from_disk_and_who_has_next_to_nothing_is_left_alone() {
        let ([one, _], pressure) = (jobs(), Pressure::default());
        let judge = |usage, free| pressure.judge(&one, usage, free, FLOORS);
        assert_eq!(judge(usage(4, Some(9)), free(1, 1)), None);
        assert!(
            judge(usage(30, Some(9)), free(1, 1))
                .unwrap()
                .starts_with("memory of this host")
        );
    }
}
