//! What must hold for every job, whatever happens to it and in whatever order.

use super::*;
use proptest::prelude::*;

/// What became of a job after a series of events.
struct Story {
    state: State,
    effects: Vec<Effect>,
}

/// Feeds events to a new job; one that is rejected changes nothing, as for the driver.
fn live(events: &[Event]) -> Story {
    let mut story = Story {
        state: State::Queued,
        effects: Vec::new(),
    };
    for event in events {
        if let Ok((state, effects)) = step(&story.state, event.clone()) {
            story.state = state;
            story.effects.extend(effects);
        }
    }
    story
}

const START: [Event; 3] = [Event::SlotGranted, Event::Prepared, Event::Started];

fn after_start(events: &[Event]) -> Story {
    live(&[&START, events].concat())
}

fn scrubbed() -> Event {
    Event::Scrubbed { leftovers: vec![] }
}

fn done(outcome: Outcome) -> State {
    State::Done { outcome, clean: true }
}

#[test]
fn a_job_runs_is_scrubbed_and_gives_its_slot_back() {
    let story = after_start(&[Event::Exited { code: 3 }, scrubbed()]);
    let outcome = Outcome::Exited { code: 3 };
    assert_eq!(story.state, done(outcome.clone()));
    assert_eq!(
        story.effects,
        [
            Effect::AcquireWorkspace,
            Effect::Launch,
            Effect::Scrub,
            Effect::ReleaseSlot,
            Effect::Report(outcome),
        ]
    );
}

#[test]
fn a_job_that_may_not_run_is_asked_to_end_while_it_is_held_and_killed_when_it_is_not() {
    let held = after_start(&[Event::NotAdmitted("a fork".into())]);
    assert_eq!(held.effects[2..], [Effect::StopPolitely, Effect::ArmGrace]);
    let escaped = after_start(&[Event::Escaped("a fork".into())]);
    assert_eq!(escaped.effects[2..], [Effect::Kill, Effect::ArmGrace]);
    // One that gets away while it is asked is killed all the same, and the first reason stays.
    let both = after_start(&[
        Event::NotAdmitted("a fork".into()),
        Event::Escaped("the hook is gone".into()),
        Event::RunnerEnded(Outcome::Ran { result: None }),
        scrubbed(),
    ]);
    assert!(both.effects.contains(&Effect::Kill));
    let reason = "a fork".to_owned();
    assert_eq!(both.state, done(Outcome::Refused { reason }));
}

#[test]
fn a_refused_job_acquires_nothing() {
    let story = live(&[Event::Refused("a fork".into())]);
    let outcome = Outcome::Refused {
        reason: "a fork".into(),
    };
    assert_eq!(story.state, done(outcome.clone()));
    assert_eq!(story.effects, [Effect::Report(outcome)]);
}

#[test]
fn a_job_cancelled_in_the_queue_is_not_scrubbed() {
    let story = live(&[Event::CancelAsked]);
    assert_eq!(story.state, done(Outcome::Cancelled));
    assert_eq!(story.effects, [Effect::Report(Outcome::Cancelled)]);
}

#[test]
fn a_job_cancelled_before_its_command_runs_is_scrubbed_at_once() {
    for so_far in [&START[..1], &START[..2]] {
        let story = live(&[so_far, &[Event::CancelAsked, scrubbed()]].concat());
        assert_eq!(story.state, done(Outcome::Cancelled));
        assert!(!story.effects.contains(&Effect::StopPolitely));
        assert!(story.effects.contains(&Effect::Scrub));
    }
}

#[test]
fn a_host_that_cannot_enforce_the_profile_refuses_and_scrubs() {
    let story = live(&[
        Event::SlotGranted,
        Event::Refused("no landlock".into()),
        scrubbed(),
    ]);
    let outcome = Outcome::Refused {
        reason: "no landlock".into(),
    };
    assert_eq!(story.state, done(outcome));
    assert!(!story.effects.contains(&Effect::Launch));
    assert!(story.effects.contains(&Effect::ReleaseSlot));
}

#[test]
fn a_job_without_its_protection_is_killed_at_once_even_while_it_is_asked_politely() {
    let gone = || Event::Unprotected("the egress filter is lost".into());
    let outcome = Outcome::Failed {
        reason: "the egress filter is lost".into(),
    };
    let running = after_start(&[gone(), gone(), Event::Signalled { signal: 9 }, scrubbed()]);
    assert_eq!(running.state, done(outcome));
    assert!(!running.effects.contains(&Effect::StopPolitely));
    assert_eq!(
        running
            .effects
            .iter()
            .filter(|effect| **effect == Effect::Kill)
            .count(),
        1
    );

    let stopping = after_start(&[Event::CancelAsked, gone()]);
    assert_eq!(
        stopping.effects.last_chunk(),
        Some(&[Effect::Kill, Effect::ArmGrace])
    );
    assert_eq!(
        stopping.state,
        State::Stopping {
            why: StopWhy::Cancelled,
            killed: true
        }
    );
}

#[test]
fn a_command_that_ignores_the_polite_signal_is_killed() {
    let story = after_start(&[
        Event::TimeLimit { limit_s: 60 },
        Event::GraceOver,
        Event::Signalled { signal: 9 },
        scrubbed(),
    ]);
    assert_eq!(story.state, done(Outcome::TimedOut { limit_s: 60 }));
    assert_eq!(
        story.effects[2..6],
        [
            Effect::StopPolitely,
            Effect::ArmGrace,
            Effect::Kill,
            Effect::ArmGrace
        ]
    );
}

#[test]
fn a_command_over_its_limit_is_killed_without_asking() {
    let what = "memory: 9 GiB of 8 GiB".to_owned();
    let story = after_start(&[Event::LimitExceeded { what: what.clone() }]);
    let why = StopWhy::OverLimit { what };
    assert_eq!(story.state, State::Stopping { why, killed: true });
    assert_eq!(story.effects[2..], [Effect::Kill, Effect::ArmGrace]);
}

#[test]
fn a_kill_without_effect_still_ends_in_the_scrub() {
    let story = after_start(&[Event::CancelAsked, Event::GraceOver, Event::GraceOver]);
    let outcome = Outcome::Cancelled;
    assert_eq!(story.state, State::Scrubbing { outcome });
}

#[test]
fn a_command_that_ends_well_while_it_is_stopped_was_stopped_nevertheless() {
    let story = after_start(&[Event::CancelAsked, Event::Exited { code: 0 }, scrubbed()]);
    assert_eq!(story.state, done(Outcome::Cancelled));
}

#[test]
fn a_sandbox_that_ends_before_it_is_ready_is_our_failure_not_the_commands() {
    let story = live(&[
        Event::SlotGranted,
        Event::Prepared,
        Event::Exited { code: 0 },
        scrubbed(),
    ]);
    let State::Done { outcome, clean: true } = story.state else {
        panic!("{:?}", story.state)
    };
    assert_eq!(
        outcome.to_string(),
        "failed: the sandbox ended with code 0 before it was ready"
    );
}

#[test]
fn leftovers_quarantine_the_slot_and_keep_the_outcome() {
    let leftovers = vec!["process 42".to_owned()];
    let story = after_start(&[
        Event::Exited { code: 0 },
        Event::Scrubbed {
            leftovers: leftovers.clone(),
        },
    ]);
    let outcome = Outcome::Exited { code: 0 };
    let expected = State::Done {
        outcome: outcome.clone(),
        clean: false,
    };
    assert_eq!(story.state, expected);
    assert_eq!(
        story.effects[3..],
        [Effect::QuarantineSlot { leftovers }, Effect::Report(outcome)]
    );
}

#[test]
fn a_job_whose_warden_vanished_is_scrubbed_and_failed() {
    let story = after_start(&[Event::Lost("the warden is gone".into()), scrubbed()]);
    let reason = "the warden is gone".to_owned();
    assert_eq!(story.state, done(Outcome::Failed { reason }));
}

#[test]
fn an_event_out_of_order_is_rejected_with_both_names() {
    let rejected = step(&State::Queued, Event::Started).unwrap_err();
    assert_eq!(
        rejected.to_string(),
        "a job that is queued cannot take the event `started`"
    );
}

#[test]
fn an_exit_that_comes_during_the_scrub_changes_nothing() {
    let state = State::Scrubbing {
        outcome: Outcome::Cancelled,
    };
    assert_eq!(step(&state, Event::Exited { code: 0 }), Ok((state, vec![])));
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Refused("trust".into())),
        Just(Event::SlotGranted),
        Just(Event::Prepared),
        Just(Event::Started),
        Just(Event::FailedToStart("no space".into())),
        (0u8..3).prop_map(|code| Event::Exited { code }),
        (1i32..16).prop_map(|signal| Event::Signalled { signal }),
        prop_oneof![Just(Outcome::Idle), Just(Outcome::Ran { result: None })].prop_map(Event::RunnerEnded),
        Just(Event::NotAdmitted("a fork".into())),
        Just(Event::Escaped("no hook".into())),
        Just(Event::Idle),
        Just(Event::CancelAsked),
        (1u64..9).prop_map(|limit_s| Event::TimeLimit { limit_s }),
        Just(Event::LimitExceeded { what: "disk".into() }),
        Just(Event::Unprotected("no filter".into())),
        Just(Event::GraceOver),
        Just(Event::Lost("gone".into())),
        proptest::collection::vec("[a-z]{1,4}", 0..2).prop_map(|leftovers| Event::Scrubbed { leftovers }),
    ]
}

/// Chance alone seldom gets a job past the queue, so most stories begin with part of a good start.
fn events() -> impl Strategy<Value = Vec<Event>> {
    (0usize..=3, proptest::collection::vec(event(), 0..24))
        .prop_map(|(begun, rest)| [&START[..begun], &rest].concat())
}

fn count(story: &Story, wanted: impl Fn(&Effect) -> bool) -> usize {
    story.effects.iter().filter(|effect| wanted(effect)).count()
}

fn settles(effect: &Effect) -> bool {
    matches!(effect, Effect::ReleaseSlot | Effect::QuarantineSlot { .. })
}

fn reports(effect: &Effect) -> bool {
    matches!(effect, Effect::Report(_))
}

proptest! {
    #[test]
    fn whatever_got_a_slot_is_scrubbed_once_and_its_slot_settled_once(events in events()) {
        let story = live(&events);
        let over = matches!(story.state, State::Done { .. });
        let held = count(&story, |e| *e == Effect::AcquireWorkspace);
        prop_assert!(held <= 1);
        prop_assert_eq!(count(&story, reports), usize::from(over));
        prop_assert_eq!(count(&story, settles), if over { held } else { 0 });
        let scrubs = count(&story, |e| *e == Effect::Scrub);
        let undone = over || matches!(story.state, State::Scrubbing { .. });
        prop_assert_eq!(scrubs, if undone { held } else { 0 });
    }

    #[test]
    fn effects_come_in_the_order_acquire_launch_stop_scrub_settle_report(events in events()) {
        let rank = |effect: &Effect| match effect {
            Effect::AcquireWorkspace => 0,
            Effect::Launch => 1,
            Effect::StopPolitely | Effect::ArmGrace | Effect::Kill => 2,
            Effect::Scrub => 3,
            Effect::ReleaseSlot | Effect::QuarantineSlot { .. } => 4,
            Effect::Report(_) => 5,
        };
        let story = live(&events);
        prop_assert!(story.effects.is_sorted_by_key(rank), "{:?}", story.effects);
        let launched = count(&story, |e| *e == Effect::Launch);
        prop_assert!(launched <= 1);
        if launched == 0 {
            prop_assert_eq!(count(&story, |e| rank(e) == 2), 0);
        }
        // At most one polite signal and one kill; each is followed by its grace period.
        let polite = count(&story, |e| *e == Effect::StopPolitely);
        let kills = count(&story, |e| *e == Effect::Kill);
        prop_assert!(polite <= 1 && kills <= 1);
        prop_assert_eq!(count(&story, |e| *e == Effect::ArmGrace), polite + kills);
    }

    #[test]
    fn the_slot_is_quarantined_exactly_when_something_is_left(events in events()) {
        let story = live(&events);
        if let State::Done { clean, .. } = story.state {
            let quarantined = count(&story, |e| matches!(e, Effect::QuarantineSlot { .. }));
            prop_assert_eq!(quarantined, usize::from(!clean));
        }
        for effect in &story.effects {
            if let Effect::QuarantineSlot { leftovers } = effect {
                prop_assert!(!leftovers.is_empty());
            }
        }
    }

    #[test]
    fn the_first_reason_to_stop_is_the_outcome(
        first in prop_oneof![
            Just(StopWhy::Cancelled),
            (1u64..9).prop_map(|limit_s| StopWhy::TimeLimit { limit_s }),
            Just(StopWhy::OverLimit { what: "memory".into() }),
            Just(StopWhy::Unprotected { why: "no filter".into() }),
            Just(StopWhy::NotAdmitted { why: "a fork".into() }),
            Just(StopWhy::Idle),
        ],
        rest in proptest::collection::vec(event(), 0..24),
    ) {
        let stop = match first.clone() {
            StopWhy::Cancelled => Event::CancelAsked,
            StopWhy::TimeLimit { limit_s } => Event::TimeLimit { limit_s },
            StopWhy::OverLimit { what } => Event::LimitExceeded { what },
            StopWhy::Unprotected { why } => Event::Unprotected(why),
            StopWhy::NotAdmitted { why } => Event::NotAdmitted(why),
            StopWhy::Idle => Event::Idle,
        };
        match after_start(&[&[stop], rest.as_slice()].concat()).state {
            State::Stopping { why, .. } => prop_assert_eq!(why, first),
            State::Scrubbing { outcome } | State::Done { outcome, .. } => {
                prop_assert_eq!(outcome, first.into());
            }
            state => prop_assert!(false, "a stopped job became {}", state.name()),
        }
    }

    #[test]
    fn what_is_reported_is_the_outcome_of_the_state(events in events()) {
        let story = live(&events);
        if let State::Done { outcome, .. } = &story.state {
            prop_assert_eq!(story.effects.last(), Some(&Effect::Report(outcome.clone())));
        }
    }

    #[test]
    fn nothing_happens_to_a_job_that_is_done(events in events(), late in event()) {
        let story = live(&events);
        if matches!(story.state, State::Done { .. }) {
            prop_assert!(step(&story.state, late).is_err());
        }
    }

    #[test]
    fn a_job_can_be_ended_even_if_its_processes_never_answer(events in events()) {
        let end = [Event::CancelAsked, Event::GraceOver, Event::GraceOver, scrubbed()];
        let story = live(&[events.as_slice(), &end].concat());
        prop_assert!(matches!(story.state, State::Done { .. }), "{:?}", story.state);
    }

    #[test]
    fn an_ignored_event_has_no_effects_and_an_effect_changes_the_state(events in events(), next in event()) {
        let before = live(&events).state;
        if let Ok((after, effects)) = step(&before, next.clone()) {
            // Only `Started` moves a job on without anything to do.
            prop_assert_eq!(effects.is_empty(), after == before || next == Event::Started);
        }
    }
}
