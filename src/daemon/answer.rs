//! Answers for the control socket: who may ask, and what each question does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tracing::info;

use super::check::NOBODY;
use super::egress::Keeper;
use super::look::look;
use super::{Daemon, Source};
use crate::control::{Answer, Ask, SlotNow, SlotReport, StatusReport, Story};
use crate::job::ledger::{Entry, LedgerError, Listing};
use crate::job::run::memo::Memo;
use crate::job::{JobId, JobSpec, Origin, Outcome, Repo};
use crate::provision::question::Question;
use crate::sandbox::Axis;
use crate::sandbox::axes::{AxisReport, Standing};
use crate::trust::{self, Route};
use crate::vm::Wanted;

impl Daemon {
    /// Whether a job has ended.
    ///
    /// # Errors
    /// In words: there is no such job, or the ledger cannot be read.
    pub fn is_finished(&self, job: &JobId) -> Result<bool, String> {
        match self.pipeline.ledger.job(job) {
            Ok(Some(row)) => Ok(row.outcome.is_some()),
            Ok(None) => Err(no_such(job)),
            Err(error) => Err(crate::chain(&error)),
        }
    }

    /// Whether a user may ask anything here. Accounts of slots never may, whatever groups they are in.
    pub fn may_ask(&self, uid: u32, gid: u32) -> bool {
        if self.slots.values().any(|slot| slot.account.uid == uid) && self.pipeline.root {
            return false;
        }
        if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
            return true;
        }
        let group = users::get_group_by_name(&self.pipeline.planner().config().control.admin_group);
        let user = users::get_user_by_uid(uid);
        let (Some(group), Some(user)) = (group, user) else {
            return false;
        };
        let groups = users::get_user_groups(user.name(), gid).unwrap_or_default();
        groups.iter().any(|member| member.gid() == group.gid())
    }

    /// Answers a question; the output of jobs is sent by the caller.
    pub async fn answer(self: &Arc<Self>, question: Ask) -> Answer {
        let answered = match question {
            Ask::Submit { spec } => self.submit(spec).await,
            Ask::Wait { job } => self.wait(&job).await,
            Ask::Jobs { all } => {
                let listing = if all {
                    Listing::Newest(1000)
                } else {
                    Listing::Active
                };
                let jobs = self.pipeline.ledger.jobs(listing);
                jobs.map(|jobs| Answer::Jobs { jobs })
                    .map_err(|error| crate::chain(&error))
            }
            Ask::Show { job } => self.story(&job).map(|story| Answer::Story(Box::new(story))),
            Ask::Status {} => Ok(Answer::Status(Box::new(self.status().await))),
            Ask::Logs { .. } => Err("logs are sent, not answered".into()),
            Ask::Cancel { job } => self.cancel(&job),
            Ask::Look { repo, questions } => self.look(&repo, &questions).await,
            Ask::Drain {} => {
                self.state().draining = true;
                self.leave_word();
                self.wake_source();
                Ok(Answer::Done {})
            }
            Ask::Reload { dry_run } => Ok(self.answer_reload(dry_run).await),
            Ask::Resume { slot: None } => {
                {
                    let mut state = self.state();
                    state.draining = false;
                    state.vms.lift_cordons();
                }
                self.leave_word();
                self.pump();
                self.pump_guests();
                self.wake_source();
                Ok(Answer::Done {})
            }
            Ask::Resume { slot: Some(slot) } => self.lift_quarantine(slot),
        };
        answered.unwrap_or_else(|message| Answer::Error { message })
    }

    async fn submit(self: &Arc<Self>, spec: JobSpec) -> Result<Answer, String> {
        let words = |error: LedgerError| crate::chain(&error);
        if spec.command.is_empty() {
            return Err("the job has no command".into());
        }
        if self.state().stopping {
            return Err("the daemon is stopping".into());
        }
        let (decision, wanted) = self.decide(&spec.origin).await;
        let now = SystemTime::now();
        let id = self.pipeline.ledger.fresh_id(now).map_err(words)?;
        let entry = Entry {
            id: &id,
            spec: &spec,
            route: decision.route,
            reason: &decision.reason,
            ticket: None,
        };
        // Before it is recorded: a job that the ledger has can always go on.
        let memo = Memo {
            spec: spec.clone(),
            launched: None,
        };
        self.pipeline.warden.keep(Some(&id), &memo, &[]);
        let recorded = self.pipeline.ledger.record(entry, now);
        recorded
            .inspect_err(|_| self.pipeline.warden.forget(&id))
            .map_err(words)?;
        info!(job = %id, repo = %spec.origin.repo, route = ?decision.route, reason = decision.reason, "job taken");
        self.send(&id, spec, (&decision, wanted));
        if decision.route != Route::Refuse {
            self.note_if_full(&id);
        }
        Ok(Answer::Submitted {
            job: id,
            route: decision.route,
            reason: decision.reason,
        })
    }

    /// Where a job from somewhere goes, as this host is now, and what its guest is to be, if it is to have one.
    pub(super) async fn decide(&self, origin: &Origin) -> (trust::Decision, Option<Wanted>) {
        let planner = self.pipeline.planner();
        let config = planner.config();
        let mut decision = trust::decide(&config.trust, config.has_vm_backend(), origin);
        if decision.route == Route::Native
            && let Some(why) = self.why_not_native(&origin.repo).await
        {
            decision = decision.fall_back(&why, config.has_vm_backend());
        }
        self.in_guest(decision)
    }

    /// Sends a recorded job where it was decided.
    pub(super) fn send(
        self: &Arc<Self>,
        id: &JobId,
        spec: JobSpec,
        (decision, wanted): (&trust::Decision, Option<Wanted>),
    ) {
        match (decision.route, wanted) {
            (Route::Native, _) => {
                let mut state = self.state();
                state.queue.push(id.clone(), spec.origin.repo.clone());
                state.specs.insert(id.clone(), spec);
            }
            (Route::Vm, Some(wanted)) => self.await_guest(id.clone(), spec, wanted),
            (Route::Vm | Route::Refuse, _) => {
                let reason = decision.reason.clone();
                self.end_unstarted(id, Outcome::Refused { reason });
            }
        }
        self.pump();
    }

    /// Why no native job of `repo` would be let through, as far as that is known without looking.
    pub(super) async fn why_not_native(&self, repo: &Repo) -> Option<String> {
        match &self.only_guests {
            Some(why) => Some(why.clone()),
            None => self.gate.why_shut(Some(repo)).await,
        }
    }

    /// Answers as a job of `repo` sees it, whose jobs must be native.
    async fn look(self: &Arc<Self>, repo: &Repo, questions: &[Question]) -> Result<Answer, String> {
        let planner = self.pipeline.planner();
        let config = planner.config();
        let origin = Origin::own(repo);
        let decision = trust::decide(&config.trust, config.has_vm_backend(), &origin);
        if repo.as_str() != NOBODY && decision.route != Route::Native {
            return Err(decision.reason);
        }
        if let Some(why) = &self.only_guests {
            return Err(why.clone());
        }
        let slot = self
            .take_idle()
            .ok_or("every slot is taken, so that no job can look\nhint: ask again when one is free")?;
        let seen = look(self.eyes(&slot, &self.ending), origin, questions).await;
        self.looked(&slot, seen.as_ref().err());
        seen.map(|answers| Answer::Seen { answers })
            .map_err(|error| crate::chain(&error))
    }

    async fn wait(&self, job: &JobId) -> Result<Answer, String> {
        let mut changes = self.changes();
        while !self.is_finished(job)? {
            if changes.changed().await.is_err() {
                break;
            }
        }
        self.story(job).map(|story| Answer::Story(Box::new(story)))
    }

    /// Everything about a job.
    ///
    /// # Errors
    /// In words: there is no such job, or the ledger cannot be read.
    pub(super) fn story(&self, job: &JobId) -> Result<Story, String> {
        let words = |error: LedgerError| crate::chain(&error);
        let row = self
            .pipeline
            .ledger
            .job(job)
            .map_err(words)?
            .ok_or_else(|| no_such(job))?;
        let transitions = self.pipeline.ledger.transitions(job).map_err(words)?;
        // The reason of a quarantine begins with whose it is; see `Pipeline::settle`.
        let beginning = format!("job {job} left ");
        let quarantined = self.pipeline.ledger.quarantined().map_err(words)?;
        let left = quarantined
            .iter()
            .find_map(|slot| slot.reason.strip_prefix(&beginning).map(str::to_owned));
        Ok(Story {
            job: row,
            transitions,
            left,
        })
    }

    /// How the daemon is.
    pub(super) async fn status(&self) -> StatusReport {
        let shut = match &self.only_guests {
            Some(why) => Some(why.clone()),
            None => self.gate.why_shut(None).await,
        };
        let vm = self.vm_report();
        let state = self.state();
        let slots = self.slots.values().map(|slot| SlotReport {
            index: slot.index,
            account: slot.account.name.clone(),
            now: state.taken.get(&slot.index).cloned().unwrap_or(SlotNow::Free),
        });
        StatusReport {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            data_dir: self.pipeline.planner().data_dir().to_string(),
            draining: state.draining,
            queued: state.queue.iter().cloned().collect(),
            slots: slots.collect(),
            axes: self.axes_now(),
            shut,
            full: state.full.clone(),
            github: self.source.as_ref().map(Source::report),
            vm,
            listen: self.board.at.get().map(ToString::to_string),
            fence: self.fence.get().cloned(),
            killed: self.board.killed.load(Ordering::Relaxed),
            config: self.reading.report(),
        }
    }

    /// What this host enforces at this moment.
    fn axes_now(&self) -> Vec<AxisReport> {
        let mut axes = self.pipeline.axes.clone();
        let lost = self.pipeline.egress.as_ref().and_then(Keeper::why_lost);
        if let (Some(why), Some(network)) =
            (lost, axes.iter_mut().find(|report| report.axis == Axis::Network))
        {
            network.standing = Standing::Absent;
            network.why = why;
            network.hint = Some("`ephemerd egress status` and `egress test` tell more".to_owned());
        }
        axes
    }

    fn cancel(&self, job: &JobId) -> Result<Answer, String> {
        let waited = {
            let mut state = self.state();
            if let Some(cancel) = state.running.get(job) {
                cancel.cancel();
                return Ok(Answer::Done {});
            }
            if state.vms.cancel_running(job) {
                return Ok(Answer::Done {});
            }
            state.specs.remove(job);
            state.queue.remove(job) || state.vms.unqueue(job)
        };
        if waited {
            if let Some(source) = &self.source {
                source.cancelled(job);
            }
            self.end_unstarted(job, Outcome::Cancelled);
            return Ok(Answer::Done {});
        }
        match self.is_finished(job)? {
            true => Err(format!("job {job} has ended already")),
            false => Err(format!("job {job} is being recovered and cannot be cancelled")),
        }
    }

    fn lift_quarantine(self: &Arc<Self>, slot: u32) -> Result<Answer, String> {
        // Whoever was not torn down may still run there, as the account the next job would have.
        let unfinished = self
            .pipeline
            .ledger
            .unfinished()
            .map_err(|error| crate::chain(&error))?;
        let holds = |job: &crate::job::ledger::Unfinished| job.slot.as_ref().is_some_and(|s| s.index == slot);
        if let Some(job) = unfinished.iter().find(|job| holds(job)) {
            return Err(not_torn_down(&job.id, slot));
        }
        if let Some(job) = self.state().unsettled.get(&slot) {
            return Err(not_torn_down(job, slot));
        }
        let lifted = self
            .pipeline
            .ledger
            .lift_quarantine(slot)
            .map_err(|error| crate::chain(&error))?;
        {
            let mut state = self.state();
            match state.taken.get(&slot) {
                Some(SlotNow::Quarantined { .. }) => state.taken.remove(&slot),
                _ if lifted => None,
                _ => return Err(format!("slot {slot} is not in quarantine")),
            };
        }
        self.pump();
        Ok(Answer::Done {})
    }
}

fn not_torn_down(job: &JobId, slot: u32) -> String {
    format!(
        "job {job} of slot {slot} was not torn down\nhint: that is tried every few seconds, and works once the ledger can be written"
    )
}

fn no_such(job: &JobId) -> String {
    format!("there is no job {job}\nhint: `ephemerd jobs --all` lists them")
}
