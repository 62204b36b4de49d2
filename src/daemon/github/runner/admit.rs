//! Watching over a runner: the job it was given is admitted or stopped, and one that gets none is not kept for ever.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};

use super::Made;
use crate::daemon::Daemon;
use crate::daemon::door::{Claim, Door};
use crate::daemon::github::Source;
use crate::github::admission::course::{Act, Course, Event, Why};
use crate::github::admission::{self, Evidence, Message, Verdict, pick};
use crate::github::api::runners::Deletion;
use crate::github::client::{ClientError, Retry};
use crate::github::run;
use crate::github::seen::{self, RunSeen};
use crate::github::ticket::{Scope, Ticket};
use crate::job::run::{Order, Said};
use crate::job::{JobId, Repo};
use crate::trust::{self, Route};

/// How soon GitHub is asked again which job a runner has: it tells some seconds after the runner knows.
const AGAIN: Duration = Duration::from_secs(1);

/// How soon it is asked again whether a runner without a job may go, when it did not say.
const IDLE_AGAIN: Duration = Duration::from_secs(30);

/// A job that was judged.
struct Judged {
    ticket: Option<Ticket>,
    verdict: Result<(), String>,
}

/// What happens next.
enum Next {
    Said(Said),
    Has,
    Claimed(Claim),
    Judged(Judged),
    HookGone,
    Time,
    Superseded,
    Idle,
}

impl Daemon {
    /// Watches over a runner until its job here is over, which ends this. `course` is how far its job's admission is.
    pub(super) async fn watch_over(
        &self,
        source: &Source,
        (id, made): (&JobId, &Made),
        (door, mut has): (&mut Door, watch::Receiver<Option<Ticket>>),
        (mut heard, order): (UnboundedReceiver<Said>, UnboundedSender<Order>),
        mut course: Course,
    ) -> Infallible {
        let start = Instant::now();
        // Nobody obeys any more when the job is over, and then this ends as well.
        let give = |it: Order| drop(order.send(it));
        let mut answer = None;
        let mut judging: Option<Pin<Box<dyn Future<Output = Judged> + Send + '_>>> = None;
        let mut idle_at = start + source.config().idle_timeout;
        let law = self.law(source);
        let mut is_superseded = false;
        loop {
            let due = course.due().map(|due| start + due);
            let next = tokio::select! {
                Some(said) = heard.recv() => Next::Said(said),
                Ok(()) = has.changed() => Next::Has,
                claim = door.handshake() => Next::Claimed(claim),
                judged = maybe(judging.as_mut()), if judging.is_some() => Next::Judged(judged),
                () = gone(answer.as_mut()), if answer.is_some() => Next::HookGone,
                () = at(due) => Next::Time,
                () = self.superseded(source, &made.scope, &law), if !is_superseded => Next::Superseded,
                () = tokio::time::sleep_until(idle_at.into()), if course == Course::Idle => Next::Idle,
            };
            let event = match next {
                Next::Said(Said::Launched { pid }) => {
                    door.launched(pid);
                    continue;
                }
                // What it prints is only believed where that is to its disadvantage.
                Next::Said(Said::Running) => Event::Assigned,
                Next::Has if source.expects(has.borrow_and_update().as_ref()) => Event::Expected,
                Next::Has => Event::Assigned,
                Next::Claimed(claim) => {
                    let Claim {
                        message,
                        answer: waits,
                    } = claim;
                    answer = Some(waits);
                    judging = Some(Box::pin(source.judge(self, made, message)));
                    Event::Claimed
                }
                Next::Judged(Judged { ticket, verdict }) => {
                    judging = None;
                    if let Some(ticket) = ticket {
                        self.given(source, id, &ticket);
                    }
                    match (verdict, answer.take()) {
                        // Too late: it is being ended for that.
                        _ if course == Course::Over => continue,
                        (Ok(()), Some(waits)) => {
                            // Before the hook is told: from then on it asks nobody again.
                            let (known, is_known) = oneshot::channel();
                            give(Order::Admitted { known });
                            let _ = is_known.await;
                            match waits.go().await {
                                Ok(()) => Event::Admitted,
                                Err(_) => Event::HookGone,
                            }
                        }
                        (Ok(()), None) => Event::HookGone,
                        (Err(why), waits) => {
                            self.stopped(source, id, &why);
                            if let Some(waits) = waits {
                                // It holds the job either way.
                                let _ = waits.stop(why.clone()).await;
                            }
                            give(Order::NotAdmitted(why));
                            Event::Refused
                        }
                    }
                }
                Next::HookGone => {
                    answer = None;
                    Event::HookGone
                }
                Next::Time => Event::Tick,
                Next::Superseded => {
                    is_superseded = true;
                    idle_at = Instant::now();
                    continue;
                }
                Next::Idle => {
                    idle_at = Instant::now() + IDLE_AGAIN;
                    if source.is_gone(made).await {
                        give(Order::Idle);
                    }
                    continue;
                }
            };
            let (next, act) = course.step(event, start.elapsed());
            course = next;
            if course == Course::Over {
                judging = None;
            }
            match act {
                // The verdict has said more already.
                Some(Act::Interrupt(Why::Refused)) | None => {}
                Some(Act::Interrupt(why)) => {
                    self.stopped(source, id, &why.to_string());
                    give(Order::NotAdmitted(why.to_string()));
                }
                Some(Act::Kill(why)) => {
                    self.stopped(source, id, &why.to_string());
                    give(Order::Escaped(why.to_string()));
                }
            }
        }
    }
}

impl Daemon {
    /// Notes which job a runner was given.
    fn given(&self, source: &Source, id: &JobId, ticket: &Ticket) {
        if let Some(life) = source.sight().lives.get_mut(id) {
            self.took(source, (id, life), ticket);
        }
        // GitHub's own word may come later, and another job may need a runner now.
        source.wake();
    }

    /// Counts and tells that a job was stopped before its first step.
    fn stopped(&self, source: &Source, id: &JobId, why: &str) {
        source.sight().stopped += 1;
        warn!(job = %id, why, "the runner's job is stopped before its first step");
        self.tell();
    }
}

impl Source {
    /// Finds out what a runner was given and whether it may run, for as long as somebody waits for it.
    async fn judge(&self, daemon: &Daemon, made: &Made, message: Message) -> Judged {
        let refused = |ticket, why: String| Judged {
            ticket,
            verdict: Err(why),
        };
        let repo = match &made.scope {
            Scope::Repo(repo) => repo.clone(),
            // Any repository of the organisation that is served, which GitHub then must confirm.
            Scope::Org(_) if self.config().serves.includes(&message.repository) => message.repository.clone(),
            Scope::Org(org) => {
                return refused(
                    None,
                    format!(
                        "the job says that it is of {}, and this runner of {org} does not serve it\nhint: name it in `github.repos`, or keep it out of the runner group",
                        message.repository
                    ),
                );
            }
        };
        let runner = admission::Runner {
            id: made.id,
            name: &made.name,
        };
        let mut told = false;
        loop {
            let found = self.find(daemon, &repo, message.run_id, runner).await;
            match found {
                Ok(Some((ticket, run, job, decision))) => {
                    let evidence = Evidence {
                        repo: &repo,
                        runner,
                        job: &job,
                        run: &run,
                        decision: &decision,
                    };
                    let verdict = match admission::judge(&message, &evidence) {
                        Verdict::Go => Ok(()),
                        Verdict::Stop(reason) if reason.may_pass() => {
                            debug!(runner = made.name, %reason, "asked again");
                            tokio::time::sleep(AGAIN).await;
                            continue;
                        }
                        Verdict::Stop(reason) => Err(reason.to_string()),
                    };
                    info!(
                        runner = made.name,
                        run = run.id,
                        github_job = job.id,
                        admitted = verdict.is_ok(),
                        "judged"
                    );
                    return Judged {
                        ticket: Some(ticket),
                        verdict,
                    };
                }
                // A run that has only just begun is not known everywhere.
                Ok(None) | Err(ClientError::NotFound { .. }) => {}
                Err(error) => match error.retry() {
                    Retry::Never => return refused(None, crate::chain(&error)),
                    Retry::Soon => told = tell(told, &error),
                    Retry::After(wait) => {
                        told = tell(told, &error);
                        tokio::time::sleep(wait).await;
                    }
                },
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The job of a run that a runner has, as soon as GitHub says so.
    async fn find(
        &self,
        daemon: &Daemon,
        repo: &Repo,
        run: u64,
        runner: admission::Runner<'_>,
    ) -> Result<Option<(Ticket, run::Run, run::Job, trust::Decision)>, ClientError> {
        let jobs = self.client.jobs(repo, run).await?.items;
        let Some(job) = pick(&jobs, runner).cloned() else {
            return Ok(None);
        };
        let run = self.client.run(repo, run).await?;
        let (law, labels) = loop {
            let law = daemon.law(self);
            let labels = self.labels_of(&law.rules(), repo, &run).await?;
            if daemon.is_still(self, &law) {
                break (law, labels);
            }
        };
        let ticket = seen::ticket(repo, &run, &job);
        let run = RunSeen { run, jobs, labels };
        let (_, decision) = law.rules().judge(repo, &run);
        let RunSeen { run, .. } = run;
        Ok(Some((ticket, run, job, decision)))
    }

    /// Whether a job was seen that may run here.
    fn expects(&self, ticket: Option<&Ticket>) -> bool {
        let Some(key) = ticket.map(Ticket::key) else {
            return false;
        };
        let sight = self.sight();
        let mut seen = sight.jobs.values().flatten();
        seen.any(|job| job.ticket.key() == key && job.decision.route == Route::Native)
    }

    /// Whether a runner without a job is gone at GitHub; it is deleted there, which GitHub refuses when it has one after all.
    pub(super) async fn is_gone(&self, made: &Made) -> bool {
        match self.delete_runner(&made.scope, made.id).await {
            Ok(Deletion::Gone) => true,
            Ok(Deletion::Busy) => false,
            Err(error) => {
                warn!(
                    runner = made.name,
                    error = crate::chain(&error),
                    "could not delete a runner without a job"
                );
                false
            }
        }
    }
}

/// Tells once why it is not known which job a runner has.
fn tell(told: bool, error: &ClientError) -> bool {
    if !told {
        let error = crate::chain(error);
        warn!(error, "could not ask which job a runner has; it is asked again");
    }
    true
}

/// Ends when the future does, or never without one.
async fn maybe<T>(future: Option<&mut Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Ends when the hook is gone, or never without one.
async fn gone(answer: Option<&mut crate::daemon::door::AnswerHandle>) {
    match answer {
        Some(answer) => answer.gone().await,
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
