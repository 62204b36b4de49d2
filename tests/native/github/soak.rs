//! Two hosts that serve one repository with the same labels, many jobs of every kind, and a GitHub that fails in every way
//! it is known to: each job ends once, or somebody says why not, and nothing is left anywhere.
//!
//! What is sent and what fails is by chance from a number, which is printed and can be given: `EPHEMERD_SOAK_SEED`. Two
//! runs of one number are alike and not the same, because the processes are not in step.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ephemerd::job::Outcome;
use ephemerd::job::ledger::{JobRow, Ledger, Listing};

use super::forge::{prepare, steps};
use super::hub::Hub;
use super::hub::faults::{Fault, Gate};
use super::hub::scenario::Trigger;
use super::hub::state::{Job, Phase};
use crate::harness::{Daemon, Family, files_of_accounts, out, wait_within};

/// How many jobs wait or run at once.
const OPEN: usize = 20;

/// How long GitHub shows a job as running whose runner is gone.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// What a fork's step prints, which nobody may ever read.
const STOLEN: &str = "a step of a stranger";

/// Numbers by chance, the same for the same seed (SplitMix64, by Sebastiano Vigna).
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }
}

/// What a job is sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Good,
    Bad,
    /// Cancelled at GitHub when it runs, or before.
    Cancelled,
    Fork,
}

/// A host: its daemon, and its ledger as anybody may read it.
#[derive(Debug)]
struct HostOfJobs {
    daemon: Daemon,
    ledger: Ledger,
}

impl HostOfJobs {
    fn start(hub: &Hub) -> Self {
        let daemon = Daemon::start_at(prepare(hub, Family::take(), "idle_timeout = \"1s\"\n", ""));
        let ledger = Ledger::open(&daemon.site().data_dir.join("state/ledger.db")).unwrap();
        Self { daemon, ledger }
    }

    /// Everything in the ledger.
    fn rows(&self) -> Vec<JobRow> {
        self.ledger.jobs(Listing::Newest(u32::MAX)).unwrap()
    }

    /// Whether the host has said that it will not run a job: a stranger's, or one that it has given up.
    fn has_refused(&self, job: u64) -> bool {
        let made = self.ledger.made_for(&("acme/app".to_owned(), job)).unwrap();
        made.iter().any(|attempt| match &attempt.outcome {
            // Others were taken back, because the job had another runner or the queue was shorter.
            Some(Outcome::Refused { reason }) => {
                reason.starts_with("blocked: ") || reason.contains("a fork's code is never native")
            }
            _ => false,
        })
    }
}

/// What is counted.
#[derive(Debug, Default)]
struct Figures {
    faults: BTreeMap<&'static str, u32>,
    /// How jobs ended at GitHub, by kind.
    ends: BTreeMap<(Kind, String), u32>,
    /// Why a runner's job was stopped, or its runner failed, by kind.
    whys: BTreeMap<(Kind, String), u32>,
    /// Faults that no request came for.
    unused: u32,
    lost: u32,
    blocked: u32,
    stolen: u32,
}

/// Everything that goes on.
#[derive(Debug)]
struct Soak {
    hub: Hub,
    hosts: [HostOfJobs; 2],
    chance: Chance,
    sent: BTreeMap<u64, Kind>,
    /// Jobs that are not over, and since when they are there.
    open: BTreeMap<u64, Instant>,
    /// Answers that are late, and until when.
    late: Vec<(Gate, Instant)>,
    busy_until: Option<Instant>,
    figures: Figures,
}

impl Soak {
    fn start(seed: u64) -> Self {
        let hub = Hub::start();
        hub.repository("acme/app", true);
        let hosts = [HostOfJobs::start(&hub), HostOfJobs::start(&hub)];
        Self {
            hub,
            hosts,
            chance: Chance(seed),
            sent: BTreeMap::new(),
            open: BTreeMap::new(),
            late: vec![],
            busy_until: None,
            figures: Figures::default(),
        }
    }

    /// Sends a run of one or some jobs.
    fn send(&mut self, most: usize) {
        let push = || Trigger::push("acme/app");
        let one = |run: &str| vec![steps("build", &[run, "test -e ../job"])];
        let (kind, run) = match self.chance.below(100) {
            0..40 => (Kind::Good, self.hub.launch(push(), one("echo x > here"))),
            40..50 => {
                let pull = Trigger::pull_request("acme/app", "feature", &[]);
                (Kind::Good, self.hub.launch(pull, one("true")))
            }
            50..65 => {
                let count = (2 + self.chance.below(4)).min(most as u64);
                let jobs = (1..=count).map(|it| steps(&format!("build ({it})"), &["true"]));
                (Kind::Good, self.hub.launch(push(), jobs.collect()))
            }
            65..80 => (Kind::Bad, self.hub.launch(push(), one("exit 3"))),
            80..95 => (
                Kind::Cancelled,
                self.hub.launch(push(), one("(setsid sleep 1000 &); sleep 1000")),
            ),
            _ => {
                let fork = Trigger::fork_pull_request("acme/app", "eve/app");
                let step = format!("echo {STOLEN}");
                let always = format!("always:echo {STOLEN}");
                let job = steps("steal", &[step.as_str(), always.as_str()]);
                (Kind::Fork, self.hub.launch(fork, vec![job]))
            }
        };
        for job in self.hub.jobs_of(run) {
            self.sent.insert(job, kind);
            self.open.insert(job, Instant::now());
        }
    }

    /// Lets something go wrong with the next requests of some kind.
    fn spoil(&mut self) {
        let times = 1 + u32::try_from(self.chance.below(3)).unwrap();
        let lists = ["GET /repos/*/actions/runs", "GET /repos/*/jobs", "GET /repos/*"];
        let list = lists[usize::try_from(self.chance.below(3)).unwrap()];
        let (make, delete) = ("POST /repos/*/generate-jitconfig", "DELETE /repos/*");
        let taken = serde_json::json!({
            "message": "Already exists - A runner with the name x already exists.",
            "documentation_url": "", "status": "409",
        });
        let (name, pattern, times, fault) = match self.chance.below(20) {
            0 | 1 => ("502 page", list, times, Fault::Html(502)),
            2 | 3 => ("503", list, times, Fault::status(503)),
            4 => ("page instead of a list", list, times, Fault::Html(200)),
            5 => ("body cut off", list, times, Fault::Truncated),
            6 => ("connection reset", list, times, Fault::Reset),
            7 => ("403 retry-after", list, 1, Fault::SecondaryLimit(1)),
            8 => ("429 retry-after", list, 1, Fault::TooMany(1)),
            9 | 10 => {
                let gate = Gate::default();
                let until = Instant::now() + Duration::from_millis(200 + self.chance.below(1800));
                self.late.push((gate.clone(), until));
                ("late answer", list, times, Fault::Hold(gate))
            }
            11 => ("runner: 502 page", make, 1, Fault::Html(502)),
            12 => ("runner: answer lost", make, 1, Fault::LoseAnswer),
            13 => ("runner: answer cut off", make, 1, Fault::Truncated),
            14 => ("runner: name taken", make, times, Fault::Answer(409, taken)),
            15 => ("runner: 429 retry-after", make, 1, Fault::TooMany(1)),
            16 => ("deletion: busy", delete, 1, Fault::status(422)),
            17 => ("deletion: 500", delete, 1, Fault::status(500)),
            18 => ("deletion: answer lost", delete, 1, Fault::LoseAnswer),
            _ => {
                self.hub.set_stays_busy(true);
                let time = Duration::from_millis(500 + self.chance.below(3000));
                self.busy_until = Some(Instant::now() + time);
                *self.figures.faults.entry("busy after the job").or_default() += 1;
                return;
            }
        };
        // A look ends with the first question that gets no answer: if more failed than are asked, there would be no other.
        if self
            .hub
            .faults_left(|other| other.starts_with("GET") && pattern.starts_with("GET"))
            > 0
        {
            return;
        }
        self.hub.inject(pattern, times, fault);
        *self.figures.faults.entry(name).or_default() += times;
    }

    /// Ends what was to go wrong for a while only; all of it when it is over.
    fn recover(&mut self, is_over: bool) {
        let now = Instant::now();
        self.late.retain(|(gate, until)| {
            let is_late = *until > now && !is_over;
            if !is_late {
                gate.open();
            }
            is_late
        });
        if self.busy_until.is_some_and(|until| until <= now) || is_over {
            self.busy_until = None;
            self.hub.set_stays_busy(false);
        }
        if is_over {
            self.figures.unused += self.hub.faults_left(|_| true);
            self.hub.heal();
        }
    }

    /// Does for each job that is open what people and GitHub do, and notes those that are over.
    fn attend(&mut self) {
        for (id, since) in self.open.clone() {
            let job = self.hub.job(id);
            match job.phase {
                Phase::Completed => {
                    let end = job.conclusion.clone().unwrap_or_default();
                    *self.figures.ends.entry((self.sent[&id], end)).or_default() += 1;
                    self.open.remove(&id);
                }
                Phase::InProgress => self.attend_running(&job),
                Phase::Queued | Phase::Waiting => self.attend_queued(&job, since),
            }
        }
    }

    fn attend_running(&mut self, job: &Job) {
        let Some((runner, _)) = &job.runner else { return };
        if self.sent[&job.id] == Kind::Cancelled {
            self.hub.cancel(job.run);
        }
        let is_over = self.hosts.iter().any(|host| {
            let taken = host.ledger.registrations().unwrap();
            taken.iter().any(|one| one.id == Some(*runner) && one.finished)
        });
        let started = job.started_s.unwrap_or_default();
        let ran = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64 - started;
        if is_over && ran > LOST_AFTER.as_secs() as i64 {
            // Its runner ended without a word.
            self.figures.lost += 1;
            self.hub.lose(*runner);
        }
    }

    fn attend_queued(&mut self, job: &Job, since: Instant) {
        let is_refused = || self.hosts.iter().all(|host| host.has_refused(job.id));
        match self.sent[&job.id] {
            // Somebody closes it when both have said no.
            Kind::Fork if is_refused() => self.hub.cancel(job.run),
            Kind::Cancelled if since.elapsed() > Duration::from_secs(3) => self.hub.cancel(job.run),
            Kind::Good | Kind::Bad if is_refused() => {
                self.figures.blocked += 1;
                self.hub.cancel(job.run);
            }
            Kind::Good | Kind::Bad | Kind::Cancelled | Kind::Fork => {}
        }
    }

    /// Sends `count` jobs, with faults meanwhile, and waits until each is over.
    fn run(&mut self, count: usize) {
        let patience = Duration::from_secs(60 + count as u64 / 2);
        let deadline = Instant::now() + patience;
        let (mut next_look, mut next_fault) = (Instant::now(), Instant::now());
        wait_within(patience * 2, &format!("the end of {count} jobs"), || {
            // Looking is work, too, and the hosts are to have the processor.
            if Instant::now() < next_look {
                return None;
            }
            next_look = Instant::now() + Duration::from_millis(100);
            let is_sent = self.sent.len() >= count;
            if !is_sent && self.open.len() < OPEN {
                self.send(count - self.sent.len());
            }
            if !is_sent && Instant::now() >= next_fault {
                self.spoil();
                next_fault = Instant::now() + Duration::from_millis(self.chance.below(500));
            }
            self.recover(is_sent);
            self.attend();
            assert!(
                Instant::now() < deadline,
                "{count} jobs take too long: {}",
                self.standing()
            );
            (is_sent && self.open.is_empty()).then_some(())
        });
    }

    /// What is still open, and what the hosts say about it.
    fn standing(&self) -> String {
        let jobs = self.open.keys().map(|id| (self.sent[id], self.hub.job(*id)));
        let said = self
            .hosts
            .each_ref()
            .map(|host| out(&host.daemon.cli(&["status"])));
        format!(
            "{:#?}\n{:#?}\n{}",
            jobs.collect::<Vec<_>>(),
            self.hub.runners(),
            said.join("\n")
        )
    }

    /// Fails unless each job ended once and as it should, or a host says why not.
    fn assert_each_ended_once(&mut self) {
        let rows: Vec<_> = self.hosts.iter().map(HostOfJobs::rows).collect();
        for (id, kind) in &self.sent {
            let job = self.hub.job(*id);
            let end = job.conclusion.as_deref().unwrap_or_default();
            assert!(job.handed_out <= 1, "{kind:?} ran twice: {job:?}");
            let had: Vec<_> = rows
                .iter()
                .flatten()
                .filter(|row| {
                    let taken = row.github.as_ref().and_then(|at| at.taken.as_ref());
                    taken.is_some_and(|taken| taken.job == *id)
                })
                .collect();
            assert!(had.len() <= 1, "{kind:?} {id} ran on two: {had:?}");
            let of_runner = rows.iter().flatten().find(|row| {
                let made = row.github.as_ref().and_then(|at| at.runner_id);
                made.is_some() && made == job.runner.as_ref().map(|(runner, _)| *runner)
            });
            // It may have been stopped before anybody knew which job it had.
            let why = of_runner.and_then(|row| match &row.outcome {
                Some(Outcome::Refused { reason } | Outcome::Failed { reason }) => Some(reason.clone()),
                _ => None,
            });
            let is_right = match (kind, job.handed_out) {
                (Kind::Good, 1) => end == "success" || (end == "failure" && why.is_some()),
                (Kind::Bad, 1) => end == "failure",
                (Kind::Cancelled, 1) => end == "cancelled" || (end == "failure" && why.is_some()),
                (Kind::Fork, 1) => end == "failure" && why.is_some(),
                (Kind::Cancelled, 0) => end == "cancelled",
                (_, _) => end == "cancelled" && self.hosts.iter().all(|host| host.has_refused(*id)),
            };
            assert!(is_right, "{kind:?} {job:?}: {had:#?}; its runner: {of_runner:#?}");
            if let Some(why) = why {
                let why = why.lines().next().unwrap_or_default().to_owned();
                *self.figures.whys.entry((*kind, why)).or_default() += 1;
            }
            if *kind == Kind::Fork && job.handed_out == 1 {
                self.figures.stolen += 1;
            }
        }
        for host in &self.hosts {
            let logs = host.daemon.site().data_dir.join("logs");
            for entry in walkdir::WalkDir::new(&logs) {
                let entry = entry.unwrap();
                if entry.file_type().is_file() {
                    let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
                    assert!(!text.contains(STOLEN), "{}", entry.path().display());
                }
            }
        }
    }

    /// Waits until nothing is left, there and on both hosts.
    fn assert_nothing_is_left(&self, patience: Duration) {
        wait_within(patience, "GitHub without a runner", || {
            self.hub.runners().is_empty().then_some(())
        });
        for host in &self.hosts {
            wait_within(patience, "the end of every job", || {
                host.rows().iter().all(|row| row.outcome.is_some()).then_some(())
            });
            host.daemon.site().assert_clean();
            let uids = host.daemon.site().family.uids();
            assert_eq!(files_of_accounts(&uids), Vec::<String>::new());
            assert_eq!(host.ledger.unfinished().unwrap(), []);
            assert_eq!(host.ledger.quarantined().unwrap(), []);
            for row in host.rows() {
                assert!(row.clean == Some(true), "{row:?}");
            }
        }
    }

    /// Waits until both ledgers are done with every runner; those whose answer never came are looked for during two
    /// minutes, which only a long soak waits for.
    fn assert_no_runner_is_waited_for(&self, patience: Duration, is_long: bool) {
        for host in &self.hosts {
            wait_within(patience, "a ledger that waits for no runner", || {
                let left = host.ledger.registrations().unwrap();
                left.iter().all(|one| one.id.is_none() && !is_long).then_some(())
            });
        }
    }

    /// Fails when polls of idle hosts cost something. Runners whose answer was lost may still be looked for.
    fn assert_idle_costs_nothing(&self, may_look_for_runners: bool) -> usize {
        let polls = |since: usize, count: usize| {
            self.hub.wait("polls", |state| {
                let all = state.requests()[since..].iter();
                let polls = all.filter(|it| it.path.ends_with("/actions/runs"));
                (polls.count() >= count).then_some(())
            });
        };
        // What changed last is asked for once more by both.
        polls(self.hub.requests().len(), 12);
        let begin = self.hub.requests().len();
        polls(begin, 24);
        let idle = self.hub.requests().split_off(begin);
        let counted: Vec<_> = idle
            .iter()
            .filter(|it| it.counted && !(may_look_for_runners && it.path.ends_with("/actions/runners")))
            .map(|it| format!("{} {}?{} {}", it.method, it.path, it.query, it.status))
            .collect();
        assert_eq!(counted, Vec::<String>::new());
        idle.len()
    }
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Sends so many jobs, and judges; `is_long` waits until even the runners that never were are given up.
fn soak(count: usize, is_long: bool) {
    let seed = from_environment("EPHEMERD_SOAK_SEED", 20_261_126);
    println!("EPHEMERD_SOAK_SEED={seed}");
    let begin = Instant::now();
    let mut soak = Soak::start(seed);
    soak.run(count);
    let ran = begin.elapsed();
    let patience = if is_long { 600 } else { 45 };
    soak.assert_nothing_is_left(Duration::from_secs(patience));
    soak.assert_each_ended_once();
    soak.assert_no_runner_is_waited_for(Duration::from_secs(patience), is_long);
    let idle = soak.assert_idle_costs_nothing(!is_long);
    let requests = soak.hub.requests();
    let Figures {
        faults,
        ends,
        whys,
        unused,
        lost,
        blocked,
        stolen,
    } = &soak.figures;
    println!("faults, {unused} of which nothing asked for: {faults:#?}\nends: {ends:#?}\nwhys: {whys:#?}");
    println!(
        "RESULT soak seed={seed} jobs={} run_s={:.1} total_s={:.1} faults={} lost={lost} blocked={blocked} stolen={stolen} \
         requests={} counted={} idle_requests={idle} idle_counted=0 runners_left=0",
        soak.sent.len(),
        ran.as_secs_f64(),
        begin.elapsed().as_secs_f64(),
        faults.values().sum::<u32>() - unused,
        requests.iter().filter(|it| !it.path.starts_with("/_")).count(),
        soak.hub.counted_calls(),
    );
}

#[test]
fn heavy_two_hosts_and_a_github_that_fails_end_each_of_sixty_jobs_once_and_leave_nothing() {
    soak(60, false);
}

#[test]
#[ignore = "takes minutes; scripts/soak.sh runs it"]
fn two_hosts_and_a_github_that_fails_end_each_of_many_jobs_once_and_leave_nothing() {
    let count = from_environment("EPHEMERD_SOAK_JOBS", 500);
    soak(usize::try_from(count).unwrap(), true);
}
