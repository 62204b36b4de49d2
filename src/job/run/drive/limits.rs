//! What a job uses, held against its own limits and against what the host keeps.

use super::Drive;
use crate::config::Limits;
use crate::job::state::{Event, State};

impl Drive<'_> {
    /// An event as it is, or what it is instead: a job whose process the kernel has ended for its memory may be over before
    /// that is seen.
    pub(super) async fn or_out_of_memory(&mut self, event: Event, state: &State) -> Event {
        let is_end = matches!(event, Event::Exited { .. } | Event::Signalled { .. });
        let has_group = self.plan.as_ref().is_some_and(|plan| plan.group.is_some());
        // What a runner's end means is said by itself.
        if !is_end || !has_group || !matches!(state, State::Running) || self.runner.is_some() {
            return event;
        }
        match self.pipeline.usage(self.id, self.slot, false).await {
            Some(usage) if usage.was_out_of_memory => Event::LimitExceeded {
                what: self.exceeds(Some(usage)).unwrap_or_default(),
            },
            Some(_) | None => event,
        }
    }

    /// Notes what the job uses; says which limit it exceeds.
    pub(super) fn exceeds(&mut self, usage: Option<crate::warden::Usage>) -> Option<String> {
        let usage = usage?;
        if self.pipeline.is_exclusive() {
            self.memory_peak_byte = self.memory_peak_byte.max(Some(usage.memory_byte));
        }
        let config = self.planner.config();
        exceeded(usage, &config.native.limits).or_else(|| {
            let free = self.pipeline.free()?;
            let pressure = &self.pipeline.pressure;
            pressure.judge(self.id, usage, free, config.host.floors)
        })
    }
}

/// Which limit `usage` exceeds, with the figures.
fn exceeded(usage: crate::warden::Usage, limits: &Limits) -> Option<String> {
    let over = |name: &str, used: u64, limit: u64| {
        (used > limit).then(|| format!("{name} {} MiB of {} MiB", used >> 20, limit >> 20))
    };
    if usage.was_out_of_memory {
        return Some(format!(
            "memory {} MiB: the kernel ended a process of it at that limit",
            limits.memory_byte >> 20
        ));
    }
    over("memory", usage.memory_byte, limits.memory_byte)
        .or_else(|| over("disk", usage.disk_byte.unwrap_or_default(), limits.disk_byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_over_its_limit_only_past_it() {
        let limits = Limits {
            processes: 1,
            memory_byte: 2 << 20,
            disk_byte: 3 << 20,
            open_files: 1,
            output_byte: 1,
            nice: 0,
            cgroup: crate::config::Groups::Auto,
        };
        let usage = |memory_byte, disk_byte| crate::warden::Usage {
            processes: 1,
            memory_byte,
            was_out_of_memory: false,
            disk_byte,
        };
        assert_eq!(exceeded(usage(2 << 20, Some(3 << 20)), &limits), None);
        assert_eq!(
            exceeded(usage(3 << 20, None), &limits).unwrap(),
            "memory 3 MiB of 2 MiB"
        );
        assert_eq!(
            exceeded(usage(0, Some(4 << 20)), &limits).unwrap(),
            "disk 4 MiB of 3 MiB"
        );
    }
}
