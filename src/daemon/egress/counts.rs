//! What was blocked, added up: the system's counters begin anew with every loading of the rules, and forget
//! destinations after a while.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::egress::{Blocked, BlockedDestination, Transport};

/// Destinations that are remembered of one slot; jobs can make up as many as they like.
const DESTINATIONS_MAX: usize = 256;

/// What was blocked of one slot, to be added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    packets: u64,
    to: BTreeMap<(IpAddr, Transport, u16), u64>,
}

impl Counts {
    /// Adds what has come between `last` and `now`; all of `now` where the system began anew.
    pub(super) fn add(&mut self, last: &Self, now: &Self) {
        let more = |last: u64, now: u64| now.checked_sub(last).unwrap_or(now);
        self.packets += more(last.packets, now.packets);
        for (to, packets) in &now.to {
            let packets = more(last.to.get(to).copied().unwrap_or_default(), *packets);
            if packets > 0 && (self.to.contains_key(to) || self.to.len() < DESTINATIONS_MAX) {
                *self.to.entry(*to).or_default() += packets;
            }
        }
    }
}

impl From<Blocked> for Counts {
    fn from(blocked: Blocked) -> Self {
        let to = |seen: BlockedDestination| ((seen.address, seen.transport, seen.port), seen.packets);
        Self {
            packets: blocked.packets,
            to: blocked.destinations.into_iter().map(to).collect(),
        }
    }
}

impl From<Counts> for Blocked {
    fn from(counts: Counts) -> Self {
        let seen = |((address, transport, port), packets)| BlockedDestination {
            address,
            transport,
            port,
            packets,
        };
        Self {
            packets: counts.packets,
            destinations: counts.to.into_iter().map(seen).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(packets: u64, port: u16, of_it: u64) -> Counts {
        let to = (IpAddr::from([10, 0, 0, 5]), Transport::Tcp, port);
        Counts {
            packets,
            to: BTreeMap::from([(to, of_it)]),
        }
    }

    #[test]
    fn what_comes_is_added_and_a_counter_that_begins_anew_counts_whole() {
        let mut total = Counts::default();
        total.add(&Counts::default(), &seen(3, 22, 3));
        total.add(&seen(3, 22, 3), &seen(5, 22, 4));
        total.add(&seen(5, 22, 4), &seen(2, 22, 1));
        assert_eq!(total, seen(7, 22, 5));
        total.add(&seen(2, 22, 1), &seen(2, 22, 1));
        assert_eq!(total, seen(7, 22, 5), "nothing has come");
    }

    #[test]
    fn a_job_that_knocks_everywhere_is_counted_and_not_remembered_whole() {
        let mut total = Counts::default();
        for port in 0..1000 {
            total.add(&Counts::default(), &seen(1, port, 1));
        }
        assert_eq!((total.packets, total.to.len()), (1000, DESTINATIONS_MAX));
    }
}
