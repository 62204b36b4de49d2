//! What a job waits for while it runs, whichever comes first.

use std::time::Instant;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::{DISK_EVERY, Drive};
use crate::daemon::egress::Keeper;
use crate::job::run::runner::{Order, RunnerOrder};
use crate::job::state::{Event, State};

impl Drive<'_> {
    /// Waits for whatever happens first.
    pub(super) async fn next_event(
        &mut self,
        state: &State,
        cancel: &CancellationToken,
        samples: &mut u32,
    ) -> Event {
        // Apart from the rest, which is waited for at the same time.
        let mut ordered = self.ordered.take();
        let event = self.first_of(&mut ordered, state, cancel, samples).await;
        self.ordered = ordered;
        event
    }

    async fn first_of(
        &mut self,
        ordered: &mut Option<UnboundedReceiver<Order>>,
        state: &State,
        cancel: &CancellationToken,
        samples: &mut u32,
    ) -> Event {
        let is_running = matches!(state, State::Running);
        let may_be_killed = is_running || matches!(state, State::Stopping { killed: false, .. });
        let egress = self.pipeline.egress.as_ref();
        loop {
            let limit_s = self
                .job_timeout()
                .as_secs()
                .min(self.spec.timeout_s.unwrap_or(u64::MAX));
            let has_job = |runner: &RunnerOrder| runner.has.borrow().is_some();
            if self.deadline.is_none() && self.runner.as_ref().is_some_and(has_job) {
                self.deadline = self.limit();
                self.remember();
            }
            let (deadline, grace) = (self.deadline, self.grace);
            // A walk through a large folder takes long, and nothing else waits for it.
            let disk = (*samples + 1).is_multiple_of(DISK_EVERY) || self.pipeline.why_full().is_some();
            let measuring = self.pipeline.measure(self.id, self.slot, disk);
            tokio::select! {
                biased;
                event = self.said() => return event,
                () = cancel.cancelled(), if is_running => return Event::CancelAsked,
                order = order(ordered), if may_be_killed => match order {
                    Order::NotAdmitted(why) => return Event::NotAdmitted(why),
                    Order::Escaped(why) => return Event::Escaped(why),
                    Order::Idle => return Event::Idle,
                    Order::Admitted { known } => {
                        if let Some(runner) = &mut self.runner {
                            runner.admitted = true;
                        }
                        self.remember();
                        let _ = known.send(());
                    }
                },
                why = lost(egress), if may_be_killed => return Event::Unprotected(why),
                () = at(deadline), if is_running => return Event::TimeLimit { limit_s },
                () = at(grace), if !is_running => return Event::GraceOver,
                usage = measuring, if is_running => {
                    *samples += 1;
                    if let Some(what) = self.exceeds(usage) {
                        return Event::LimitExceeded { what };
                    }
                }
            }
        }
    }
}

/// Why the packet filter is lost, once it is.
async fn lost(keeper: Option<&Keeper>) -> String {
    match keeper {
        Some(keeper) => keeper.lost().await,
        None => std::future::pending().await,
    }
}

/// What a runner is ordered to do next, if ever.
async fn order(ordered: &mut Option<UnboundedReceiver<Order>>) -> Order {
    let next = match ordered {
        Some(ordered) => ordered.recv().await,
        None => None,
    };
    match next {
        Some(order) => order,
        None => std::future::pending().await,
    }
}

/// Ends at `moment`, or never.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
