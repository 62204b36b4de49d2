use proptest::prelude::*;

use super::*;

const OLD: RunnerVersion = version(335);
const USED: RunnerVersion = version(336);
const NEWER: RunnerVersion = version(337);

const fn version(minor: u32) -> RunnerVersion {
    RunnerVersion {
        major: 2,
        minor,
        patch: 0,
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// A watchdog and a clock.
struct Watch {
    dog: Watchdog,
    now: Instant,
}

impl Watch {
    /// Over `USED`, after it has asked for the latest release for the first time.
    fn new() -> Self {
        let mut watch = Self {
            dog: Watchdog::new(USED),
            now: Instant::now(),
        };
        assert_eq!(watch.on(Event::Tick), [Decision::AskLatest]);
        assert_eq!(watch.on(Event::Latest(USED)), []);
        watch
    }

    fn on(&mut self, event: Event) -> Vec<Decision> {
        self.dog.on(&event, self.now)
    }

    fn admit(&mut self) -> Result<RunnerVersion, Refusal> {
        self.dog.admit(self.now)
    }

    fn pass(&mut self, minutes: u32) {
        self.now += MINUTE * minutes;
    }
}

#[test]
fn versions_compare_by_number_and_are_read_as_releases_are_named() {
    let parse = |text: &str| text.parse::<RunnerVersion>();
    assert!(parse("2.99.10").unwrap() < parse("v2.336.0").unwrap());
    assert_eq!(parse("v2.336.0").unwrap().to_string(), "2.336.0");
    for wrong in [
        "",
        "2",
        "2.1",
        "2.1.2.3",
        "2.1.",
        "2.+1.0",
        "vv2.1.0",
        "2.1.99999999999",
        "2.1.0-x",
        " 2.1.0",
    ] {
        assert!(
            parse(wrong)
                .unwrap_err()
                .to_string()
                .contains("\nhint: three numbers"),
            "{wrong}"
        );
    }
}

#[test]
fn a_refused_version_is_replaced_where_a_newer_one_exists() {
    let mut watch = Watch::new();
    assert_eq!(watch.admit(), Ok(USED));
    assert_eq!(watch.on(Event::Refused(USED)), [Decision::AskLatest]);
    assert!(matches!(watch.admit(), Err(Refusal::Paused { .. })));
    let outdated = Alert::Outdated {
        used: USED,
        newer: NEWER,
    };
    assert_eq!(
        watch.on(Event::Latest(NEWER)),
        [Decision::Alert(outdated), Decision::Stage(NEWER)]
    );
    assert!(watch.admit().is_err(), "not before it is there");
    assert_eq!(watch.on(Event::Staged(NEWER)), [Decision::Use(NEWER)]);
    assert_eq!(watch.admit(), Ok(NEWER));
    // What is left of the old version changes nothing.
    assert_eq!(watch.on(Event::Refused(USED)), []);
    assert_eq!(watch.admit(), Ok(NEWER));
}

/// See: actions/runner#4613, where an outage reported the latest version as deprecated.
#[test]
fn an_outage_that_refuses_the_latest_version_is_waited_out_with_one_runner_at_a_time() {
    let mut watch = Watch::new();
    watch.on(Event::Refused(USED));
    let outage = Alert::Outage {
        used: USED,
        latest: USED,
    };
    assert_eq!(watch.on(Event::Latest(USED)), [Decision::Alert(outage)]);
    assert_eq!(watch.on(Event::Latest(USED)), [], "said once");
    watch.pass(9);
    let left = MINUTE;
    assert_eq!(watch.admit(), Err(Refusal::Paused { version: USED, left }));
    watch.pass(1);
    assert_eq!(watch.admit(), Ok(USED));
    assert_eq!(watch.admit(), Err(Refusal::Probing { version: USED }));
    watch.on(Event::Refused(USED));
    watch.pass(19);
    assert!(watch.admit().is_err(), "twice as long");
    watch.pass(1);
    assert_eq!(watch.admit(), Ok(USED));
    assert_eq!(watch.on(Event::TookJob(USED)), []);
    assert_eq!((watch.admit(), watch.admit()), (Ok(USED), Ok(USED)));
    // All forgotten.
    watch.on(Event::Refused(USED));
    assert_eq!(watch.on(Event::Latest(USED)), [Decision::Alert(outage)]);
    watch.pass(10);
    assert_eq!(watch.admit(), Ok(USED));
}

#[test]
fn many_runners_refused_at_once_are_one_refusal() {
    let mut watch = Watch::new();
    let asked: usize = (0..50).map(|_| watch.on(Event::Refused(USED)).len()).sum();
    assert_eq!(asked, 1);
    watch.pass(10);
    assert_eq!(watch.admit(), Ok(USED));
}

#[test]
fn a_newer_version_that_is_refused_as_well_is_not_replaced_in_circles() {
    let mut watch = Watch::new();
    watch.on(Event::Refused(USED));
    watch.on(Event::Latest(NEWER));
    watch.on(Event::Staged(NEWER));
    assert_eq!(watch.on(Event::Refused(NEWER)), [Decision::AskLatest]);
    let outage = Alert::Outage {
        used: NEWER,
        latest: NEWER,
    };
    assert_eq!(watch.on(Event::Latest(NEWER)), [Decision::Alert(outage)]);
    watch.pass(19);
    assert!(watch.admit().is_err(), "the second refusal without a job between");
    // An answer from before, or a cache, does not lead back.
    assert_eq!(watch.on(Event::Staged(OLD)), []);
    assert_eq!(watch.dog.used(), NEWER);
}

#[test]
fn a_release_is_staged_once_a_day_while_all_is_well_and_used_from_the_next_runner_on() {
    let mut watch = Watch::new();
    for _ in 0..23 {
        watch.pass(60);
        assert_eq!(watch.on(Event::Tick), []);
    }
    watch.pass(60);
    assert_eq!(watch.on(Event::Tick), [Decision::AskLatest]);
    assert_eq!(watch.on(Event::Latest(NEWER)), [Decision::Stage(NEWER)]);
    assert_eq!(watch.admit(), Ok(USED), "until it is there");
    assert_eq!(watch.on(Event::Staged(NEWER)), [Decision::Use(NEWER)]);
    assert_eq!(watch.admit(), Ok(NEWER));
}

#[test]
fn a_release_that_cannot_be_staged_is_left_alone_for_a_while() {
    let mut watch = Watch::new();
    watch.on(Event::Refused(USED));
    watch.on(Event::Latest(NEWER));
    let alert = Decision::Alert(Alert::NotStaged { version: NEWER });
    assert_eq!(watch.on(Event::NotStaged(NEWER)), [alert]);
    watch.pass(9);
    assert_eq!(watch.on(Event::Latest(NEWER)), []);
    watch.pass(1);
    assert_eq!(watch.on(Event::Tick), [Decision::AskLatest]);
    assert!(watch.on(Event::Latest(NEWER)).contains(&Decision::Stage(NEWER)));
}

#[test]
fn without_an_answer_about_the_latest_release_it_is_asked_for_again() {
    let mut watch = Watch::new();
    watch.on(Event::Refused(USED));
    let alert = Decision::Alert(Alert::Unknown { used: USED });
    assert_eq!(watch.on(Event::LatestUnknown), [alert]);
    watch.pass(9);
    assert_eq!(watch.on(Event::Tick), []);
    watch.pass(1);
    assert_eq!(watch.on(Event::Tick), [Decision::AskLatest]);
    // Lost altogether.
    watch.pass(89);
    assert_eq!(watch.on(Event::Tick), []);
    watch.pass(1);
    assert_eq!(watch.on(Event::Tick), [Decision::AskLatest]);
}

#[test]
fn a_probe_that_finds_no_job_or_is_lost_makes_room_for_the_next() {
    let mut watch = Watch::new();
    watch.on(Event::Refused(USED));
    watch.pass(10);
    assert_eq!(watch.admit(), Ok(USED));
    watch.on(Event::Idle(USED));
    assert_eq!(watch.admit(), Ok(USED));
    watch.pass(14);
    assert!(watch.admit().is_err());
    watch.pass(1);
    assert_eq!(watch.admit(), Ok(USED));
}

#[test]
fn refusals_tell_people_how_long_it_takes() {
    let mut watch = Watch::new();
    watch.on(Event::Refused(USED));
    watch.now += Duration::from_secs(61);
    assert_eq!(
        watch.admit().unwrap_err().to_string(),
        "GitHub refuses runner 2.336.0; the next try is in 9 min"
    );
}

fn event() -> impl Strategy<Value = Event> {
    let version = (334u32..339).prop_map(version);
    prop_oneof![
        Just(Event::Tick),
        Just(Event::LatestUnknown),
        version.clone().prop_map(Event::Refused),
        version.clone().prop_map(Event::TookJob),
        version.clone().prop_map(Event::Idle),
        version.clone().prop_map(Event::Latest),
        version.clone().prop_map(Event::Staged),
        version.prop_map(Event::NotStaged),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_versions_only_go_up_and_errands_do_not_pile_up(
        steps in prop::collection::vec((event(), 0u32..30, any::<bool>()), 0..200)
    ) {
        let mut watch = Watch::new();
        let (mut errands, mut minutes) = (0, 0);
        for (event, passed, admits) in steps {
            watch.pass(passed);
            minutes += passed;
            let before = watch.dog.used();
            let answers = matches!(
                event,
                Event::Latest(_) | Event::LatestUnknown | Event::Staged(_) | Event::NotStaged(_)
            );
            let decisions = watch.on(event.clone());
            prop_assert!(watch.dog.used() >= before);
            prop_assert_eq!(watch.dog.used() > before, decisions.contains(&Decision::Use(watch.dog.used())));
            let starts = decisions.iter().filter(|it| matches!(it, Decision::AskLatest | Decision::Stage(_)));
            let starts = starts.count();
            prop_assert!(starts <= 1);
            // Without an answer, only time brings a second one.
            errands += if answers { 0 } else { starts };
            prop_assert!(u64::try_from(errands).unwrap() <= u64::from(minutes) / 10 + 1 + 200);
            if admits && event == Event::Refused(before) {
                prop_assert!(watch.admit().is_err(), "no runner right after a refusal");
            }
        }
    }

    #[test]
    fn however_often_a_version_is_refused_runners_become_rarer(minutes in 60u32..2000) {
        let mut watch = Watch::new();
        let mut made = 0;
        for _ in 0..minutes {
            watch.pass(1);
            watch.on(Event::Tick);
            if watch.admit().is_ok() {
                made += 1;
                watch.on(Event::Refused(USED));
                watch.on(Event::Latest(USED));
            }
        }
        // 1 at once, then after 10, 20, 40, 80 and from then on every 120 minutes.
        prop_assert!(made <= 6 + minutes / 120, "{} in {} minutes", made, minutes);
    }
}
