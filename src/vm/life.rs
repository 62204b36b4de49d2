//! What happens next to a guest. Pure: [`step`] takes a state and an event and returns the next state with the
//! effects that the driver must perform, in order; it reads no clock and touches nothing. One machine for every
//! backend.
//!
//! ```text
//!   Queued ─► Clone ─► Configure ─► Start ─► Ready ─► Put ─► Run ─► Stop ─► Delete ─► Done
//!     │         └──────────┴── ends ──────────────────────────────────────────▲          ▲
//!     │                             └─────────┴────────┴── ends ────────► Stop ┘          │
//!     └── cancelled ──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! - A guest whose cloning was begun passes `Delete` exactly once, and one whose start was begun passes `Stop` before;
//!   neither is skipped because an earlier stage failed, for a failed stage may have done half of its work.
//! - The first reason to end is the end. A job ends by [`End::Job`] when its own command decided that, was cancelled or
//!   ran too long; everything else is [`End::Infra`], and says what kind, which decides whether it is tried again.
//! - A stop that fails or takes too long is followed by the deletion all the same; what that leaves is named.
//! - Events race. One that comes too late to matter is ignored; one that cannot happen is [`Rejected`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::job::Outcome;

/// One step in the life of a guest, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its disk is made from the image.
    Clone,
    /// It gets its processors, memory and addresses.
    Configure,
    /// It is switched on.
    Start,
    /// It is waited for until it runs commands.
    Ready,
    /// The job's files, its credential among them, are handed over.
    Put,
    /// The job's command runs.
    Run,
    /// It is switched off.
    Stop,
    /// Everything of it is removed.
    Delete,
}

impl Stage {
    /// The name of the state in which a job is meanwhile, as the ledger and `ephemerd jobs` show it.
    pub const fn state(self) -> &'static str {
        match self {
            Self::Clone => "cloning",
            Self::Configure => "configuring",
            Self::Start => "starting",
            Self::Ready => "booting",
            Self::Put => "loading",
            Self::Run => crate::job::state::RUNNING,
            Self::Stop => "stopping",
            Self::Delete => DELETING,
        }
    }

    /// The next stage of a guest for which everything goes well.
    const fn next(self) -> Option<Self> {
        match self {
            Self::Clone => Some(Self::Configure),
            Self::Configure => Some(Self::Start),
            Self::Start => Some(Self::Ready),
            Self::Ready => Some(Self::Put),
            Self::Put => Some(Self::Run),
            Self::Run => Some(Self::Stop),
            Self::Stop => Some(Self::Delete),
            Self::Delete => None,
        }
    }
}

/// The name of the state of a guest that is being removed.
pub(crate) const DELETING: &str = "deleting";

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clone => "clone",
            Self::Configure => "configure",
            Self::Start => "start",
            Self::Ready => "ready",
            Self::Put => "put",
            Self::Run => "run",
            Self::Stop => "stop",
            Self::Delete => "delete",
        })
    }
}

/// What kind of failure of ours kept a job from its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// There is no room for a guest now: a limit of the host, reached by whomever.
    Capacity,
    /// A tool, an image or the configuration is not as it must be; trying again changes nothing.
    Setup,
    /// A tool failed, or took too long.
    Tool,
    /// The guest did not become ready, or went away before the job's command ran.
    Guest,
    /// The guest went away while the job's command ran.
    Lost,
}

/// A failure of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{stage}: {why}")]
pub struct Infra {
    /// What kind.
    pub class: Class,
    /// Where in its life the guest was.
    pub stage: Stage,
    /// What failed, with a hint where there is one.
    pub why: String,
}

impl Infra {
    /// A failure of this kind in this stage.
    pub fn new(class: Class, stage: Stage, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { class, stage, why }
    }
}

/// How the life of a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The job has its result.
    Job(Outcome),
    /// The job has none, for a reason that is not its own.
    Infra(Infra),
}

/// What becomes of a job whose guest ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It gets another guest at once.
    Now,
    /// It waits for room; that costs it no attempt.
    WhenThereIsRoom,
    /// It has failed.
    Never,
}

/// What becomes of a job after `attempt`, counted from 1, of at most `attempts`. A job whose command ran is never run
/// again by us: nobody knows what it did outside of its guest.
pub fn again(infra: &Infra, attempt: u32, attempts: u32) -> Again {
    match infra.class {
        _ if infra.stage >= Stage::Run => Again::Never,
        Class::Capacity => Again::WhenThereIsRoom,
        Class::Tool | Class::Guest if attempt < attempts => Again::Now,
        Class::Tool | Class::Guest | Class::Setup | Class::Lost => Again::Never,
    }
}

/// Where a guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There is nothing of it yet.
    Queued,
    /// It is on its way to its job's end.
    At(Stage),
    /// It is being switched off or removed.
    Ending {
        /// Which of the two.
        stage: Stage,
        /// How its life ended.
        end: End,
    },
    /// There is nothing of it any more, but for what is named.
    Done {
        /// How its life ended.
        end: End,
        /// What of it could not be removed.
        leftovers: Vec<String>,
    },
}

impl State {
    /// The state's name, as the ledger shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => crate::job::state::QUEUED,
            Self::At(stage) | Self::Ending { stage, .. } => stage.state(),
            Self::Done { .. } => crate::job::state::DONE,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The job has a permit.
    Permitted,
    /// A stage was done; of `Delete` see [`Event::Deleted`], of `Run` see [`Event::Ended`].
    Did(Stage),
    /// A stage failed.
    Failed(Infra),
    /// The job's command ended.
    Ended(Outcome),
    /// Nothing of the guest is left but this.
    Deleted {
        /// What could not be removed or verified.
        leftovers: Vec<String>,
    },
    /// The guest went away by itself.
    Gone(String),
    /// Somebody wants the job to end.
    CancelAsked,
    /// A stage took longer than it may; for `Run`, that is the job's own limit.
    TimeUp {
        /// The stage.
        stage: Stage,
        /// The limit in seconds.
        limit_s: u64,
    },
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Permitted => "permitted",
            Self::Did(_) => "stage done",
            Self::Failed(_) => "stage failed",
            Self::Ended(_) => "command ended",
            Self::Deleted { .. } => "deleted",
            Self::Gone(_) => "guest gone",
            Self::CancelAsked => "cancel asked",
            Self::TimeUp { .. } => "time up",
        }
    }
}

/// Something the driver must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Go through a stage; it answers with an event.
    Perform(Stage),
    /// Tell how it ended.
    Report,
}

/// Why an event was not taken; the guest's state stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a guest that is {state} cannot take the event `{event}`")]
pub struct Rejected {
    /// The state's name.
    pub state: &'static str,
    /// The event's name.
    pub event: &'static str,
}

type Step = Result<(State, Vec<Effect>), Rejected>;

/// Returns what becomes of a guest in `state` when `event` happens, and the effects to perform in order. An event that
/// comes too late to matter returns the same state and no effects.
///
/// # Errors
///
/// When the event cannot happen in this state, and for every event after `Done`.
pub fn step(state: &State, event: Event) -> Result<(State, Vec<Effect>), Rejected> {
    match state {
        State::Queued => queued(state, &event),
        State::At(stage) => living(state, *stage, event),
        State::Ending { stage, end } => ending(state, *stage, end, event),
        State::Done { .. } => reject(state, &event),
    }
}

fn queued(state: &State, event: &Event) -> Step {
    match event {
        Event::Permitted => enter(Stage::Clone),
        Event::CancelAsked => Ok((
            State::Done {
                end: End::Job(Outcome::Cancelled),
                leftovers: vec![],
            },
            vec![Effect::Report],
        )),
        Event::Did(_)
        | Event::Failed(_)
        | Event::Ended(_)
        | Event::Deleted { .. }
        | Event::Gone(_)
        | Event::TimeUp { .. } => reject(state, event),
    }
}

fn living(state: &State, stage: Stage, event: Event) -> Step {
    match event {
        Event::Did(done) if done == stage && stage != Stage::Run => match stage.next() {
            Some(next) => enter(next),
            None => reject(state, &event),
        },
        // The answer of a stage that is over.
        Event::Did(done) if done < stage => ignore(state),
        Event::Ended(outcome) if stage == Stage::Run => end(stage, End::Job(outcome)),
        Event::Failed(infra) => end(stage, End::Infra(infra)),
        Event::Gone(why) => {
            let class = if stage == Stage::Run {
                Class::Lost
            } else {
                Class::Guest
            };
            end(stage, End::Infra(Infra { class, stage, why }))
        }
        Event::CancelAsked => end(stage, End::Job(Outcome::Cancelled)),
        Event::TimeUp { stage: of, limit_s } if of == stage => end(
            stage,
            match stage {
                Stage::Run => End::Job(Outcome::TimedOut { limit_s }),
                Stage::Ready => End::Infra(Infra {
                    class: Class::Guest,
                    stage,
                    why: format!("the guest was not ready within {limit_s} s"),
                }),
                _ => End::Infra(Infra {
                    class: Class::Tool,
                    stage,
                    why: format!("not done within {limit_s} s"),
                }),
            },
        ),
        Event::TimeUp { stage: of, .. } if of < stage => ignore(state),
        Event::Permitted | Event::Did(_) | Event::Ended(_) | Event::Deleted { .. } | Event::TimeUp { .. } => {
            reject(state, &event)
        }
    }
}

fn ending(state: &State, stage: Stage, end: &End, event: Event) -> Step {
    match (stage, event) {
        (
            Stage::Stop,
            Event::Did(Stage::Stop)
            | Event::TimeUp {
                stage: Stage::Stop, ..
            },
        )
        | (
            Stage::Stop,
            Event::Failed(Infra {
                stage: Stage::Stop, ..
            }),
        ) => Ok((
            State::Ending {
                stage: Stage::Delete,
                end: end.clone(),
            },
            vec![Effect::Perform(Stage::Delete)],
        )),
        (Stage::Delete, Event::Deleted { leftovers }) => Ok((
            State::Done {
                end: end.clone(),
                leftovers,
            },
            vec![Effect::Report],
        )),
        (_, event @ (Event::Permitted | Event::Deleted { .. })) => reject(state, &event),
        // Whatever was on its way when the end began.
        (
            _,
            Event::Did(_)
            | Event::Failed(_)
            | Event::Ended(_)
            | Event::Gone(_)
            | Event::CancelAsked
            | Event::TimeUp { .. },
        ) => ignore(state),
    }
}

fn enter(stage: Stage) -> Step {
    Ok((State::At(stage), vec![Effect::Perform(stage)]))
}

/// Begins the end of a guest that is at `stage`.
fn end(stage: Stage, end: End) -> Step {
    let first = if stage < Stage::Start {
        Stage::Delete
    } else {
        Stage::Stop
    };
    Ok((State::Ending { stage: first, end }, vec![Effect::Perform(first)]))
}

fn ignore(state: &State) -> Step {
    Ok((state.clone(), vec![]))
}

fn reject(state: &State, event: &Event) -> Step {
    Err(Rejected {
        state: state.name(),
        event: event.name(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAGES: [Stage; 8] = [
        Stage::Clone,
        Stage::Configure,
        Stage::Start,
        Stage::Ready,
        Stage::Put,
        Stage::Run,
        Stage::Stop,
        Stage::Delete,
    ];

    fn infra(class: Class, stage: Stage) -> Infra {
        Infra::new(class, stage, "x")
    }

    /// Feeds events; returns the last state and every effect.
    fn live(events: impl IntoIterator<Item = Event>) -> (State, Vec<Effect>) {
        let (mut state, mut effects) = (State::Queued, vec![]);
        for event in events {
            if let Ok((next, more)) = step(&state, event) {
                state = next;
                effects.extend(more);
            }
        }
        (state, effects)
    }

    /// The events that bring a guest to `stage`.
    fn up_to(stage: Stage) -> Vec<Event> {
        let before = STAGES.into_iter().filter(|s| *s < stage).map(Event::Did);
        std::iter::once(Event::Permitted).chain(before).collect()
    }

    #[test]
    fn a_job_goes_through_every_stage_once_and_in_order() {
        let mut events = up_to(Stage::Run);
        events.extend([
            Event::Ended(Outcome::Exited { code: 3 }),
            Event::Did(Stage::Stop),
            Event::Deleted { leftovers: vec![] },
        ]);
        let (state, effects) = live(events);
        let expected: Vec<Effect> = STAGES
            .into_iter()
            .map(Effect::Perform)
            .chain([Effect::Report])
            .collect();
        assert_eq!(effects, expected);
        let end = End::Job(Outcome::Exited { code: 3 });
        assert_eq!(
            state,
            State::Done {
                end,
                leftovers: vec![]
            }
        );
    }

    #[test]
    fn what_was_started_is_stopped_and_what_was_cloned_is_deleted() {
        for stage in &STAGES[..6] {
            for event in [
                Event::CancelAsked,
                Event::Failed(infra(Class::Tool, *stage)),
                Event::Gone("x".to_owned()),
                Event::TimeUp {
                    stage: *stage,
                    limit_s: 1,
                },
            ] {
                let mut events = up_to(*stage);
                events.push(event.clone());
                let (state, _) = live(events);
                let State::Ending { stage: first, .. } = state else {
                    panic!("{stage} {event:?}: {state:?}");
                };
                let expected = if *stage < Stage::Start {
                    Stage::Delete
                } else {
                    Stage::Stop
                };
                assert_eq!(first, expected, "{stage} {event:?}");
            }
        }
    }

    #[test]
    fn a_stop_that_hangs_does_not_keep_the_guest() {
        let mut events = up_to(Stage::Run);
        events.extend([
            Event::CancelAsked,
            Event::TimeUp {
                stage: Stage::Stop,
                limit_s: 30,
            },
        ]);
        let (state, effects) = live(events);
        assert_eq!(state.name(), DELETING);
        assert_eq!(effects.last(), Some(&Effect::Perform(Stage::Delete)));
    }

    #[test]
    fn only_a_guest_that_failed_before_its_command_ran_is_tried_again() {
        let cases = [
            (Class::Tool, Stage::Clone, 1, Again::Now),
            (Class::Guest, Stage::Ready, 2, Again::Now),
            (Class::Guest, Stage::Ready, 3, Again::Never),
            (Class::Tool, Stage::Run, 1, Again::Never),
            (Class::Lost, Stage::Run, 1, Again::Never),
            (Class::Setup, Stage::Clone, 1, Again::Never),
            (Class::Capacity, Stage::Start, 9, Again::WhenThereIsRoom),
            (Class::Capacity, Stage::Run, 1, Again::Never),
        ];
        for (class, stage, attempt, expected) in cases {
            assert_eq!(
                again(&infra(class, stage), attempt, 3),
                expected,
                "{class:?} {stage}"
            );
        }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let stage = prop::sample::select(STAGES.to_vec());
        prop_oneof![
            Just(Event::Permitted),
            stage.clone().prop_map(Event::Did),
            stage
                .clone()
                .prop_map(|stage| Event::Failed(infra(Class::Tool, stage))),
            Just(Event::Ended(Outcome::Exited { code: 0 })),
            Just(Event::Deleted { leftovers: vec![] }),
            Just(Event::Gone("x".to_owned())),
            Just(Event::CancelAsked),
            stage.prop_map(|stage| Event::TimeUp { stage, limit_s: 1 }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_a_guest_is_deleted_once_after_it_was_stopped_and_told_once(
            events in prop::collection::vec(any_event(), 0..60)
        ) {
            let (state, effects) = live(events);
            let count = |wanted: Effect| effects.iter().filter(|effect| **effect == wanted).count();
            prop_assert!(count(Effect::Report) <= 1);
            for stage in STAGES {
                prop_assert!(count(Effect::Perform(stage)) <= 1, "{}", stage);
            }
            let done = matches!(state, State::Done { .. });
            prop_assert_eq!(done, count(Effect::Report) == 1);
            if done {
                prop_assert_eq!(count(Effect::Perform(Stage::Clone)), count(Effect::Perform(Stage::Delete)));
                prop_assert_eq!(count(Effect::Perform(Stage::Start)), count(Effect::Perform(Stage::Stop)));
            }
        }
    }
}
