//! One guest on its way: the effects of the [machine](super::life), performed, and what happens, fed back.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::AsyncRead;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::carry::{keep_tail, scripted, told};
use super::life::{Class, Effect, End, Event, Infra, Stage, State, step};
use super::room::{Room, STOP_WITHIN, performed};
use super::script::{self, GuestFile, Nonce};
use super::stage::{Tools, judge};
use super::{Wanted, image};
use crate::host::command::Output;
use crate::host::command::attend::Attended;
use crate::job::ledger::{Ledger, LedgerError};
use crate::job::output::Kept;
use crate::job::{Acquisition, JobId, JobSpec, Outcome};

/// How long one try may take to find a guest ready; a tool that waits for its guest by itself is not hurried.
const PROBE_WITHIN: Duration = Duration::from_secs(20);

/// Between two tries.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// How often the memory of a guest is measured while its job runs.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// A job and the guest it is to have.
#[derive(Debug)]
pub struct Order<'a> {
    /// The job.
    pub id: &'a JobId,
    /// What it runs.
    pub spec: &'a JobSpec,
    /// What the guest is to be.
    pub wanted: &'a Wanted,
    /// Which guest of the job it is, from 1.
    pub attempt: u32,
    /// How long its command may run.
    pub limit: Duration,
    /// What is put in the guest with it.
    pub files: &'a [GuestFile],
    /// Ends it.
    pub cancel: &'a CancellationToken,
}

/// How the life of a guest ended, and what it used.
#[derive(Debug)]
pub struct Lived {
    /// How.
    pub end: End,
    /// What of it could not be removed.
    pub leftovers: Vec<String>,
    /// The most memory its processes had, in bytes, where they can be told apart.
    pub memory_peak_byte: Option<u64>,
}

impl Lived {
    /// A guest that was never made, because that is how its job ends.
    pub fn never(outcome: Outcome) -> Self {
        Self {
            end: End::Job(outcome),
            leftovers: vec![],
            memory_peak_byte: None,
        }
    }

    /// One that was ended from outside: what that means for its job.
    pub fn ended_as(self, outcome: Outcome) -> Self {
        Self {
            end: End::Job(outcome),
            ..self
        }
    }

    /// The same, with the code of its job's command read by `read`.
    pub fn read_by(self, read: impl FnOnce(u8) -> Outcome) -> Self {
        match self.end {
            End::Job(Outcome::Exited { code }) => self.ended_as(read(code)),
            End::Job(_) | End::Infra(_) => self,
        }
    }
}

/// What goes on with one guest.
struct Live<'a> {
    room: &'a Room,
    order: &'a Order<'a>,
    tools: Tools<'a>,
    /// The tool that is the guest, while it runs, and what it said.
    guest: Option<Attended>,
    said: Arc<Mutex<Vec<u8>>>,
    memory_peak_byte: Option<u64>,
}

impl Room {
    /// Takes a job through a guest of its own, from nothing to nothing, and returns how that ended. What the job prints
    /// goes to `output`. Every state is in the ledger before it is entered, and the guest before there is anything of it.
    ///
    /// # Errors
    /// The ledger cannot be written. Then nothing more is begun, and what there is of the guest is undone at the next
    /// start.
    pub async fn live<W: Write>(
        &self,
        ledger: &Ledger,
        order: &Order<'_>,
        output: &mut Kept<W>,
    ) -> Result<Lived, LedgerError> {
        let name = self.hands.owner.name(order.id, order.attempt);
        let dir = self.dir(&name);
        let Some(backend) = self.config.backends.get(&order.wanted.backend) else {
            let why = format!(
                "the backend `{}` is not configured any more",
                order.wanted.backend
            );
            return Ok(Lived {
                end: End::Infra(Infra::new(Class::Setup, Stage::Clone, why)),
                leftovers: vec![],
                memory_peak_byte: None,
            });
        };
        let held = ledger.acquire(
            order.id,
            &Acquisition::Vm {
                backend: order.wanted.backend.clone(),
                name: name.to_string(),
            },
            SystemTime::now(),
        )?;
        let mut live = Live {
            room: self,
            order,
            tools: Tools {
                backend,
                wanted: order.wanted,
                name: &name,
                dir: &dir,
                program: &self.hands.attendant.program,
            },
            guest: None,
            said: Arc::default(),
            memory_peak_byte: None,
        };
        let (end, leftovers) = live.until_done(ledger, output).await?;
        if leftovers.is_empty() {
            ledger.released(held, SystemTime::now())?;
        }
        Ok(Lived {
            end,
            leftovers,
            memory_peak_byte: live.memory_peak_byte,
        })
    }
}

impl Live<'_> {
    /// Feeds the machine until the guest is done.
    async fn until_done<W: Write>(
        &mut self,
        ledger: &Ledger,
        output: &mut Kept<W>,
    ) -> Result<(End, Vec<String>), LedgerError> {
        let mut state = State::Queued;
        let mut events = VecDeque::from([Event::Permitted]);
        loop {
            let Some(event) = events.pop_front() else {
                // Every effect below answers; this is never reached, and ends nobody's job wrongly if it is.
                events.push_back(Event::CancelAsked);
                continue;
            };
            let (next, effects) = match step(&state, event) {
                Ok(taken) => taken,
                Err(rejected) => {
                    warn!(job = %self.order.id, %rejected);
                    continue;
                }
            };
            if next.name() != state.name() && !matches!(next, State::Done { .. }) {
                let why = match &next {
                    State::Ending { end, .. } => Some(words(end)),
                    State::At(Stage::Clone) => Some(format!("guest {}", self.tools.name)),
                    State::Queued | State::At(_) | State::Done { .. } => None,
                };
                ledger.enter(self.order.id, next.name(), why.as_deref(), SystemTime::now())?;
            }
            state = next;
            for effect in effects {
                match (effect, &state) {
                    (Effect::Perform(stage), _) => events.push_back(self.perform(stage, output).await),
                    (Effect::Report, State::Done { end, leftovers }) => {
                        info!(job = %self.order.id, guest = %self.tools.name, end = words(end), "guest gone");
                        return Ok((end.clone(), leftovers.clone()));
                    }
                    (Effect::Report, _) => {}
                }
            }
        }
    }

    /// Goes through a stage; what came of it.
    async fn perform<W: Write>(&mut self, stage: Stage, output: &mut Kept<W>) -> Event {
        match stage {
            Stage::Stop => return self.stop().await,
            Stage::Delete => {
                let leftovers = self.room.delete(&self.tools).await;
                return Event::Deleted { leftovers };
            }
            Stage::Start => return self.start().await,
            Stage::Clone | Stage::Configure | Stage::Ready | Stage::Put | Stage::Run => {}
        }
        let limit = match stage {
            Stage::Ready => self.tools.backend.boot_timeout,
            Stage::Run => self.order.limit,
            Stage::Clone | Stage::Configure | Stage::Put | Stage::Start | Stage::Stop | Stage::Delete => {
                self.tools.backend.stage_timeout
            }
        };
        let mut last_words = None;
        let mut peak = self.memory_peak_byte;
        let event = {
            let (room, order, tools) = (self.room, self.order, self.tools);
            let work = async {
                match stage {
                    Stage::Clone => clone(room, &tools).await,
                    Stage::Ready => ready(room, &tools, &mut last_words).await,
                    Stage::Put => put(room, &tools, order).await,
                    Stage::Run => return run(room, &tools, output).await,
                    _ => command(room, &tools, stage).await,
                }
                .map_or_else(Event::Failed, |()| Event::Did(stage))
            };
            let measuring = async {
                if stage == Stage::Run {
                    loop {
                        peak = peak.max(room.measure(tools.name).await);
                        sleep(SAMPLE_EVERY).await;
                    }
                }
                std::future::pending::<()>().await;
            };
            let limit_s = limit.as_secs();
            tokio::select! {
                biased;
                () = order.cancel.cancelled() => Event::CancelAsked,
                event = work => event,
                status = gone(&mut self.guest) => Event::Failed(self.why_gone(stage, status).await),
                () = sleep(limit) => Event::TimeUp { stage, limit_s },
                () = measuring => Event::CancelAsked,
            }
        };
        self.memory_peak_byte = peak;
        match (event, last_words) {
            // What the guest, or its tool, said last tells more than that time passed.
            (
                Event::TimeUp {
                    stage: Stage::Ready,
                    limit_s,
                },
                Some(why),
            ) => Event::Failed(Infra::new(
                Class::Guest,
                Stage::Ready,
                format!("the guest was not ready within {limit_s} s: {why}"),
            )),
            (event, _) => event,
        }
    }

    /// Switches the guest on.
    async fn start(&mut self) -> Event {
        let Some(spec) = self.tools.of(Stage::Start) else {
            return Event::Did(Stage::Start);
        };
        if self.tools.backend.commands.detached == Some(true) {
            let ran = tokio::select! {
                () = self.order.cancel.cancelled() => return Event::CancelAsked,
                ran = self.room.hands.attendant.run(&spec) => ran,
            };
            let done = performed(self.tools.backend, Stage::Start, &spec, ran);
            return done.map_or_else(Event::Failed, |()| Event::Did(Stage::Start));
        }
        let failed = |why| Event::Failed(Infra::new(Class::Tool, Stage::Start, why));
        let mut guest = match self.room.hands.attendant.start(&spec) {
            Ok(guest) => guest,
            Err(error) => return failed(crate::chain(&error)),
        };
        for stream in [
            guest
                .stdout
                .take()
                .map(|s| Box::new(s) as Box<dyn AsyncRead + Unpin + Send>),
            guest
                .stderr
                .take()
                .map(|s| Box::new(s) as Box<dyn AsyncRead + Unpin + Send>),
        ] {
            tokio::spawn(keep_tail(stream, Arc::clone(&self.said)));
        }
        let begun = guest.begin().await;
        self.guest = Some(guest);
        match begun {
            Ok(()) => Event::Did(Stage::Start),
            Err(error) => failed(format!("could not hand over: {error}")),
        }
    }

    /// Switches the guest off, by its tool first; then the tool that is the guest is killed, whatever came of that.
    async fn stop(&mut self) -> Event {
        let stopped = match self.tools.of(Stage::Stop) {
            Some(mut spec) => {
                spec.timeout = spec.timeout.min(STOP_WITHIN);
                let ran = self.room.hands.attendant.run(&spec).await;
                performed(self.tools.backend, Stage::Stop, &spec, ran)
            }
            None => Ok(()),
        };
        if let Some(mut guest) = self.guest.take() {
            guest.end().await;
        }
        match stopped {
            Ok(()) => Event::Did(Stage::Stop),
            Err(infra) => {
                warn!(guest = %self.tools.name, why = infra.why, "could not switch a guest off; it was killed");
                Event::Failed(infra)
            }
        }
    }

    /// Why a guest is gone whose tool ended by itself, as far as the tool says.
    async fn why_gone(&self, stage: Stage, status: std::io::Result<std::process::ExitStatus>) -> Infra {
        let late = if stage == Stage::Run {
            Class::Lost
        } else {
            Class::Guest
        };
        let Some(spec) = self.tools.of(Stage::Start) else {
            return Infra::new(late, stage, "the guest is gone".to_owned());
        };
        let status = match status {
            Ok(status) => status,
            Err(error) => return Infra::new(late, stage, format!("the guest cannot be waited for: {error}")),
        };
        // The last words may still be on their way.
        sleep(Duration::from_millis(50)).await;
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let output = Output {
            status,
            stdout: String::new(),
            stderr: String::from_utf8_lossy(&said).into_owned(),
        };
        match judge(self.tools.backend.dialect, Stage::Start, &spec, &output) {
            Ok(()) => Infra::new(late, stage, "the guest switched itself off".to_owned()),
            Err(Infra {
                class: Class::Tool,
                why,
                ..
            }) => Infra::new(late, stage, why),
            Err(Infra { why, .. }) if stage == Stage::Run => Infra::new(late, stage, why),
            Err(judged) => Infra { stage, ..judged },
        }
    }
}

/// How a life ended, in words.
pub(crate) fn words(end: &End) -> String {
    match end {
        End::Job(outcome) => outcome.to_string(),
        End::Infra(infra) => infra.to_string(),
    }
}

/// Waits until the tool that is the guest ends, if there is one.
async fn gone(guest: &mut Option<Attended>) -> std::io::Result<std::process::ExitStatus> {
    match guest {
        Some(guest) => guest.ended().await,
        None => std::future::pending().await,
    }
}

/// Runs the command of a stage, where the backend has one.
async fn command(room: &Room, tools: &Tools<'_>, stage: Stage) -> Result<(), Infra> {
    let Some(spec) = tools.of(stage) else {
        return Ok(());
    };
    let output = room.hands.attendant.run(&spec).await;
    performed(tools.backend, stage, &spec, output)
}

/// Makes the guest, from an image that is there: none is fetched on the way, for a job would wait for an hour.
async fn clone(room: &Room, tools: &Tools<'_>) -> Result<(), Infra> {
    let failed = |class| move |why| Infra::new(class, Stage::Clone, why);
    image::missing(room, tools.backend, Some(&tools.wanted.image))
        .await
        .map_err(failed(Class::Setup))?;
    room.make_folder(tools.name).await.map_err(failed(Class::Tool))?;
    command(room, tools, Stage::Clone).await
}

/// Waits until the guest runs scripts.
async fn ready(room: &Room, tools: &Tools<'_>, last_words: &mut Option<String>) -> Result<(), Infra> {
    loop {
        let nonce = nonce(Stage::Ready)?;
        let tried = scripted(room, tools, Stage::Ready, (&nonce, script::probe(&nonce)));
        match timeout(PROBE_WITHIN, tried).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(Err(infra)) if matches!(infra.class, Class::Setup) => return Err(infra),
            Ok(Err(infra)) => *last_words = Some(infra.why),
            Ok(Ok(code)) => *last_words = Some(format!("a script that does nothing ended with code {code}")),
            Err(_) => *last_words = Some("it does not answer".to_owned()),
        }
        sleep(PROBE_PAUSE).await;
    }
}

/// Hands the job over.
async fn put(room: &Room, tools: &Tools<'_>, order: &Order<'_>) -> Result<(), Infra> {
    let nonce = nonce(Stage::Put)?;
    let script = script::put(&nonce, order.spec, order.files);
    match scripted(room, tools, Stage::Put, (&nonce, script)).await? {
        0 => Ok(()),
        code => Err(Infra::new(
            Class::Guest,
            Stage::Put,
            format!("the guest could not write the job's files: code {code}"),
        )),
    }
}

/// Runs the job.
async fn run<W: Write>(room: &Room, tools: &Tools<'_>, output: &mut Kept<W>) -> Event {
    let ran = async {
        let nonce = nonce(Stage::Run)?;
        let script = script::run(&nonce);
        told(room, tools, Stage::Run, (&nonce, script), |bytes| {
            output.take(bytes)
        })
        .await
    };
    match ran.await {
        Ok(code) => Event::Ended(Outcome::Exited { code }),
        // What the tool says of a job that runs may be the job's own words.
        Err(Infra { stage, why, .. }) => Event::Failed(Infra::new(Class::Lost, stage, why)),
    }
}

fn nonce(stage: Stage) -> Result<Nonce, Infra> {
    Nonce::new().map_err(|error| Infra::new(Class::Tool, stage, format!("no random numbers: {error}")))
}
