//! What the consumer of a scale set hears of jobs: messages with offers and news, statistics, and how it acquires.

use serde_json::{Value, json};

use super::clock::iso;
use super::scale_sets::{MessageFault, list};
use super::state::{Phase, State, covers};
use super::wire::{Call, Reply};

/// What .NET writes for no time.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// The most items that a message holds; what is beyond waits for the next.
const MESSAGE_ITEMS: usize = 50;

impl State {
    /// The counts that a consumer scales by.
    pub(super) fn statistics(&self, id: u64) -> Value {
        let acquired = || self.jobs.values().filter(|it| it.acquired_by == Some(id));
        let in_phase = |phase| acquired().filter(|it| it.phase == phase).count();
        let (waiting, running) = (in_phase(Phase::Queued), in_phase(Phase::InProgress));
        let runners = || self.runners.values().filter(|it| it.scale_set == Some(id));
        let busy = runners().filter(|it| it.busy).count();
        json!({
            "totalAvailableJobs": self.available(id).len(), "totalAcquiredJobs": waiting + running,
            "totalAssignedJobs": waiting + running, "totalRunningJobs": running, "totalRegisteredRunners": runners().count(),
            "totalBusyRunners": busy, "totalIdleRunners": runners().filter(|it| !it.busy && it.session.is_some()).count(),
        })
    }

    /// The queued jobs that a set may acquire.
    fn available(&self, id: u64) -> Vec<u64> {
        let set = &self.scale_sets[&id];
        let fits = self.jobs.values().filter(|job| {
            job.phase == Phase::Queued
                && job.acquired_by.is_none()
                && covers(&set.labels, &job.spec.labels)
                && self.may_use(&set.scope, set.group, &self.runs[&job.run].repository)
        });
        fits.map(|job| job.id).collect()
    }

    pub(super) fn acquire(&mut self, id: u64, asked: &Value) -> Reply {
        let available = self.available(id);
        let wanted = asked.as_array().into_iter().flatten().filter_map(Value::as_u64);
        let got: Vec<_> = wanted.filter(|it| available.contains(it)).collect();
        for job in &got {
            self.jobs.get_mut(job).expect("available").acquired_by = Some(id);
            self.tell_scale_set(*job, "JobAssigned");
        }
        list(got.into_iter().map(|it| json!(it)).collect())
    }

    /// Queues a message about a job for the set that acquired it.
    pub(super) fn tell_scale_set(&mut self, job: u64, kind: &str) {
        let item = self.item(job, kind);
        if let Some(set) = self.jobs[&job]
            .acquired_by
            .and_then(|it| self.scale_sets.get_mut(&it))
        {
            set.pending.push(item);
        }
    }

    /// Ends a job for the set that acquired it, and queues it again.
    pub(super) fn take_back(&mut self, id: u64) {
        let mut item = self.item(id, "JobCompleted");
        item["result"] = json!("canceled");
        let set = self.jobs.get_mut(&id).and_then(|job| job.acquired_by.take());
        if let Some(set) = set.and_then(|it| self.scale_sets.get_mut(&it)) {
            set.pending.push(item);
            set.offered.remove(&id);
        }
    }

    fn item(&self, id: u64, kind: &str) -> Value {
        let job = &self.jobs[&id];
        let run = &self.runs[&job.run];
        let (owner, name) = run.repository.split_once('/').expect("owner/name");
        let at = |time: Option<i64>| time.map_or_else(|| NEVER.to_owned(), iso);
        let mut item = json!({
            "messageType": kind, "runnerRequestId": id, "repositoryName": name, "ownerName": owner, "jobId": id.to_string(),
            "jobWorkflowRef": format!("{}/.github/workflows/ci.yml@refs/heads/{}", run.repository, run.head_branch),
            "jobDisplayName": job.spec.name, "workflowRunId": run.id, "eventName": run.event, "requestLabels": job.spec.labels,
            "queueTime": iso(job.created_s), "scaleSetAssignTime": NEVER, "runnerAssignTime": at(job.started_s), "finishTime": at(job.completed_s),
        });
        if kind == "JobAvailable" {
            item["acquireJobUrl"] = json!(format!("{}/_tenant/_apis/runtime/acquirejob", self.url));
        }
        if let Some((id, name)) = job
            .runner
            .as_ref()
            .filter(|_| matches!(kind, "JobStarted" | "JobCompleted"))
        {
            item["runnerId"] = json!(id);
            item["runnerName"] = json!(name);
        }
        if kind == "JobCompleted" {
            item["result"] = json!(match job.conclusion.as_deref() {
                Some("success") => "succeeded",
                Some("cancelled") => "canceled",
                _ => "failed",
            });
        }
        item
    }

    /// The queue of a session: its next message, or the removal of one.
    pub(super) fn queue(&mut self, call: &Call, remove: Option<&str>) -> Option<Reply> {
        let session = call.parameter("sessionId");
        let id = self
            .scale_sets
            .iter()
            .find(|(_, it)| {
                it.session
                    .as_ref()
                    .is_some_and(|it| Some(&it.id) == session.as_ref())
            })
            .map(|it| *it.0);
        let Some(id) = id else {
            return Some(Reply::empty(404));
        };
        let set = self.scale_sets.get_mut(&id)?;
        if set.session.as_ref()?.queue_token != call.credential() {
            return Some(Reply::empty(401));
        }
        if let Some(message) = remove {
            if !std::mem::take(&mut set.kept) {
                message.parse().ok().and_then(|it: u64| set.messages.remove(&it));
            }
            return Some(Reply::empty(204));
        }
        set.capacity = call.header("x-scalesetmaxcapacity").parse().ok();
        let capacity = usize::try_from(set.capacity.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        self.offer(id, capacity);
        let last = call
            .parameter("lastMessageId")
            .and_then(|it| it.parse::<u64>().ok())
            .unwrap_or(0);
        let set = self.scale_sets.get_mut(&id)?;
        // One that was to come twice comes whatever the consumer says it has.
        let waiting = set
            .messages
            .iter()
            .find(|it| *it.0 > last || set.faults.contains(&MessageFault::Twice))
            .map(|it| *it.0);
        let message = match waiting {
            Some(message) => {
                set.faults.retain(|it| *it != MessageFault::Twice);
                message
            }
            None => self.pack(id)?,
        };
        let body = self.scale_sets[&id].messages[&message].clone();
        Some(Reply::json(
            200,
            &json!({"messageId": message, "messageType": "RunnerScaleSetJobMessages", "statistics": self.statistics(id), "body": body}),
        ))
    }

    /// Offers jobs as long as the stated capacity has room for them.
    fn offer(&mut self, id: u64, capacity: usize) {
        let assigned = self
            .jobs
            .values()
            .filter(|it| it.acquired_by == Some(id) && it.phase != Phase::Completed)
            .count();
        let offered = &self.scale_sets[&id].offered;
        let open = offered
            .iter()
            .filter(|it| self.jobs[it].phase == Phase::Queued && self.jobs[it].acquired_by.is_none())
            .count();
        let fresh = self.available(id).into_iter().filter(|it| !offered.contains(it));
        let chosen: Vec<_> = fresh.take(capacity.saturating_sub(assigned + open)).collect();
        for job in chosen {
            let item = self.item(job, "JobAvailable");
            let set = self.scale_sets.get_mut(&id).expect("known");
            set.offered.insert(job);
            set.pending.push(item);
        }
    }

    /// Makes a message of what is pending.
    fn pack(&mut self, id: u64) -> Option<u64> {
        let message = self.last_id + 1;
        let set = self.scale_sets.get_mut(&id)?;
        if set.pending.is_empty() {
            return None;
        }
        let count = set.pending.len().min(MESSAGE_ITEMS);
        let mut items: Vec<_> = set.pending.drain(..count).collect();
        let mut body = None;
        for fault in set.faults.extract_if(.., |it| *it != MessageFault::Twice) {
            match fault {
                MessageFault::Reversed => items.reverse(),
                MessageFault::UnknownType => {
                    items.insert(0, json!({"messageType": "JobTeleported", "runnerRequestId": 1}))
                }
                MessageFault::BrokenBody => body = Some("[{\"messageType\":\"JobAvail".to_owned()),
                MessageFault::Twice => {}
            }
        }
        set.kept = set.faults.contains(&MessageFault::Twice);
        set.messages
            .insert(message, body.unwrap_or_else(|| json!(items).to_string()));
        self.last_id = message;
        Some(message)
    }
}
