//! What the next dispatcher finds of a job, and a job that this one has found.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedReceiver;

use super::{Drive, READY_WITHIN, not_ready};
use crate::github::runner::jit::Packed;
use crate::job::output::{Copies, Stream};
use crate::job::run::memo::{Launched, Memo, Resumed, RunnerMemo, as_ms, at_ms};
use crate::job::run::runner;
use crate::job::run::runner::{Order, RunnerOrder};
use crate::job::run::status::Lines;
use crate::job::state::{Event, State};

impl Drive<'_> {
    /// Leaves what there is to know of the job with the warden, and what the last such word did not have.
    pub(super) fn remember(&self) {
        self.keep(&[]);
    }

    /// The same, with what the job is heard by.
    pub(super) fn leave(&self, status: &UnixStream, output: Option<&OwnedFd>) {
        let Some(output) = output else { return };
        let door = self.runner.as_ref().and_then(|runner| runner.door.as_ref());
        let own = [status.as_fd(), output.as_fd()];
        let all: Vec<BorrowedFd<'_>> = own.into_iter().chain(door.map(AsFd::as_fd)).collect();
        self.keep(&all);
    }

    fn keep(&self, descriptors: &[BorrowedFd<'_>]) {
        let Some(plan) = self.plan.clone().filter(|_| self.goes_on) else {
            return;
        };
        let runner = self.runner.as_ref().map(|runner| RunnerMemo {
            build: runner.build.to_string(),
            config: Packed::from(&runner.config),
            hook: runner.hook.clone(),
            grace: runner.grace,
            admitted: runner.admitted,
        });
        let memo = Memo {
            spec: self.spec.clone(),
            launched: Some(Launched {
                plan,
                until_ms: self.deadline.map(as_ms),
                stopping: self.stopping.clone(),
                memory_peak_byte: self.memory_peak_byte,
                relaunches: self.relaunches,
                runner,
            }),
        };
        self.pipeline.warden.keep(Some(self.id), &memo, descriptors);
    }

    /// Takes a job up that an earlier dispatcher has launched: the state that it is in, and what is to be told first.
    ///
    /// # Errors
    /// It cannot be heard, in words; then nothing is known of its processes.
    pub(in crate::job::run) async fn go_on(
        &mut self,
        resumed: Resumed,
        runner: Option<(RunnerOrder, UnboundedReceiver<Order>)>,
    ) -> Result<(State, VecDeque<Event>), String> {
        let Launched {
            plan,
            until_ms,
            stopping,
            memory_peak_byte,
            relaunches,
            runner: _,
        } = resumed.launched;
        (self.runner, self.ordered) = runner.unzip();
        self.plan = Some(plan);
        self.held = resumed.held;
        self.memory_peak_byte = memory_peak_byte;
        self.relaunches = relaunches;
        self.deadline = until_ms.and_then(at_ms);
        self.stopping = stopping.clone();
        let heard = self
            .runner
            .as_ref()
            .map(|runner| runner::heard(runner.said.clone()));
        let words = |error: std::io::Error| format!("what the job says cannot be read: {error}");
        if let Stream::Log { file, limit_byte } = &self.stream {
            self.copies = Copies::go_on((file, *limit_byte), resumed.output, heard).map_err(words)?;
        }
        self.status = Some(Lines::new(resumed.status).map_err(words)?);
        let mut events: VecDeque<Event> = resumed.unfit.map(Event::Unprotected).into_iter().collect();
        if let Some(keeper) = &self.pipeline.egress {
            let (leave, verified) = keeper.go_on(self.slot, &self.pipeline.warden).await;
            self.leave = Some(leave);
            if let Err(error) = verified {
                events.push_back(Event::Unprotected(crate::chain(&error)));
            }
        }
        let state = match (stopping, resumed.is_running) {
            // It is told once more: nobody knows how long ago that was.
            (Some((why, killed)), _) => {
                events.extend(self.signal(!killed).await);
                self.grace = Some(Instant::now() + self.grace());
                State::Stopping { why, killed }
            }
            (None, true) => State::Running,
            (None, false) => {
                let said = tokio::time::timeout(READY_WITHIN, self.said()).await;
                let said = said.unwrap_or_else(|_| Event::FailedToStart(not_ready()));
                if matches!(said, Event::Lost(_)) && resumed.pid.is_none() {
                    // The last dispatcher did not come to it, or nothing came of it; nothing of the job ran.
                    events.push_back(Event::Prepared);
                    return Ok((State::Preparing, events));
                }
                events.push_back(said);
                if self.runner.is_none() && self.deadline.is_none() {
                    self.deadline = self.limit();
                    self.remember();
                }
                State::Launching
            }
        };
        Ok((state, events))
    }
}
