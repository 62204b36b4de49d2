//! Guests: jobs that are not trusted with this host, in what its owner's tools make for them. Tart and the plain backend
//! run against stand-ins here.

mod faults;
mod images;
mod reload;

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::control::{Ask, Story};
use ephemerd::job::{JobId, JobSpec, Origin, Outcome};
use ephemerd::trust::Route;
use ephemerd::vm::Isolation;

use crate::harness::{Daemon, Family, PROGRAM, Site, command, out, said, wait_for};

/// What guests of these tests run under.
struct Stand {
    daemon: Daemon,
    /// Where the stand-in keeps its guests.
    home: Utf8PathBuf,
}

const FAKES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fakes");

/// Native slots take little, so that there is room for guests on any machine that runs tests.
const ROOM: &str = "[native]\nslots = 2\n[native.limits]\nmemory = \"256MiB\"\n";

fn tart(home: &Utf8Path, args: &[&str]) -> String {
    let output = command(format!("{FAKES}/tart"))
        .args(args)
        .env("TART_HOME", home)
        .output()
        .unwrap();
    assert!(output.status.success(), "tart {args:?}: {}", said(&output));
    out(&output)
}

/// A place with Tart's stand-in, which has the guest `base`, and one of somebody else's, that runs.
fn tart_site(more: &str) -> (Site, Utf8PathBuf) {
    let site = Site::new("");
    let home = site.top.join("tart");
    fs::create_dir(&home).unwrap();
    tart(&home, &["__base", "base", "darwin"]);
    give(&home, &site.family);
    site.configure(&tart_config(&home, more));
    (site, home)
}

fn tart_config(home: &Utf8Path, more: &str) -> String {
    format!(
        "\"vm/*\" = \"vm\"\n\"both/*\" = {{ route = \"native\", fallback = \"vm\" }}\n{ROOM}[vm]\nhost_memory = \"1MiB\"\ncapacity_wait = \"20s\"\n{more}\n[vm.backends.tart]\npreset = \"tart\"\ntool = \"{FAKES}/tart\"\nimage = \"base\"\nmemory = \"4GiB\"\ndisk = \"60GiB\"\nboot_timeout = \"10s\"\nstage_timeout = \"5s\"\nenv = {{ TART_HOME = \"{home}\" }}\n"
    )
}

/// The configuration of a backend that is a command: `start` is one of its two ways to be switched on.
fn plain_config(tool: &Utf8Path, home: &Utf8Path, detached: bool) -> String {
    let start = if detached { "start" } else { "run" };
    format!(
        "\"vm/*\" = \"vm\"\n{ROOM}[vm]\nhost_memory = \"1MiB\"\ncapacity_wait = \"3s\"\n[vm.backends.plain]\nguest = \"linux\"\nisolation = \"container\"\ntool = \"{tool}\"\nmemory = \"64MiB\"\nboot_timeout = \"10s\"\nstage_timeout = \"5s\"\nclone = [\"{{tool}}\", \"clone\", \"{{name}}\"]\nstart = [\"{{tool}}\", \"{start}\", \"{{name}}\"]\ndetached = {detached}\nexec = [\"{{tool}}\", \"exec\", \"{{name}}\"]\nstop = [\"{{tool}}\", \"stop\", \"{{name}}\"]\ndelete = [\"{{tool}}\", \"delete\", \"{{name}}\"]\nlist = [\"{{tool}}\", \"list\"]\nnetwork_none = []\nenv = {{ GUESTS = \"{home}\" }}\n"
    )
}

impl Stand {
    fn tart() -> Self {
        let (site, home) = tart_site("");
        Self {
            daemon: Daemon::start_at(site),
            home,
        }
    }

    /// The plain backend's stand-in; `start` is one of its two ways to be switched on.
    fn plain(detached: bool) -> Self {
        let site = Site::new("");
        let home = site.top.join("plain");
        fs::create_dir_all(home.join("guests")).unwrap();
        give(&home, &site.family);
        let tool = Utf8PathBuf::from(format!("{FAKES}/guest"));
        site.configure(&plain_config(&tool, &home, detached));
        Self {
            daemon: Daemon::start_at(site),
            home,
        }
    }

    fn faults(&self, text: &str) {
        fs::write(self.home.join("faults"), text).unwrap();
    }

    fn submit(&self, script: &str) -> JobId {
        self.daemon.submit("vm/app", &["sh", "-c", script])
    }

    /// The guests that the stand-in of Tart has.
    fn guests(&self) -> Vec<String> {
        guests(&self.home)
    }

    /// Waits until a job is in a state.
    fn wait_for_state(&self, job: &JobId, state: &str) {
        wait_for(&format!("a job that is {state}"), || {
            let row = self.daemon.story(job).job;
            assert!(row.outcome.is_none(), "{row:?}");
            (row.state == state).then_some(())
        });
    }
}

/// Gives a folder to the service's account, as which the tools of guests run.
pub(crate) fn give(folder: &Utf8Path, family: &Family) {
    let service = nix::unistd::User::from_name(family.name).unwrap().unwrap();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.unwrap();
        std::os::unix::fs::lchown(
            entry.path(),
            Some(service.uid.as_raw()),
            Some(service.gid.as_raw()),
        )
        .unwrap();
    }
}

fn guests(home: &Utf8Path) -> Vec<String> {
    let all = tart(home, &["list", "--source", "local", "--quiet"]);
    all.lines()
        .map(str::to_owned)
        .filter(|name| name.starts_with("eph-"))
        .collect()
}

/// Nothing of any guest is left on the host: no folder, and no process that names one.
#[track_caller]
fn assert_gone(site: &Site) {
    let folders: Vec<_> = site.data_dir.join("vm").read_dir_utf8().unwrap().collect();
    assert!(folders.is_empty(), "{folders:?}");
    assert_eq!(processes_naming("eph-", site), Vec::<String>::new());
}

/// Command lines that name something and this site.
fn processes_naming(what: &str, site: &Site) -> Vec<String> {
    let line = |entry: std::io::Result<fs::DirEntry>| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let environ = line.contains(what) && !line.contains("ephemerd-");
        (environ && (line.contains(site.top.as_str()) || line.contains("tart") || line.contains("guest")))
            .then_some(line)
    };
    // Guests of other tests have other names; ours begin with what our daemon calls its own.
    let own = own_prefix(site);
    let all = fs::read_dir("/proc").unwrap().filter_map(line);
    all.filter(|line| own.as_ref().is_some_and(|own| line.contains(own.as_str())))
        .collect()
}

/// What guests of this place are called at the beginning.
fn own_prefix(site: &Site) -> Option<String> {
    // A place where no daemon ever ran has no name of its own yet.
    fs::create_dir_all(site.data_dir.join("host")).unwrap();
    let id = ephemerd::host::installation(&site.data_dir).unwrap();
    let owner = ephemerd::vm::name::Owner::new(&id, &site.data_dir);
    let job = JobId::new(std::time::UNIX_EPOCH, 0);
    let name = owner.name(&job, 1).to_string();
    name.split(job.as_str()).next().map(str::to_owned)
}

fn states(story: &Story) -> Vec<&str> {
    story.transitions.iter().map(|step| step.state.as_str()).collect()
}

#[test]
fn an_untrusted_job_runs_in_a_guest_of_its_own_and_is_gone_afterwards() {
    let stand = Stand::tart();
    let job = stand.submit("echo hello from $PWD; exit 7");
    let story = stand.daemon.ended(&job);
    assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 7 }), "{story:?}");
    assert_eq!(story.job.route, Route::Vm);
    assert_eq!(story.job.isolation, Some(Isolation::Vm));
    assert_eq!(story.job.backend.as_deref(), Some("tart"));
    assert_eq!(story.job.clean, Some(true));
    let output = stand.daemon.output(&job);
    assert!(
        output.starts_with("hello from ") && output.ends_with(".ephemerd/work\n"),
        "{output}"
    );
    assert_eq!(
        states(&story),
        [
            "queued",
            "cloning",
            "configuring",
            "starting",
            "booting",
            "loading",
            "running",
            "stopping",
            "deleting",
            "done"
        ]
    );
    assert_eq!(stand.guests(), Vec::<String>::new());
    assert_gone(stand.daemon.site());
    let table = out(&stand.daemon.cli(&["jobs", "--all"]));
    assert!(table.contains("vm (tart)"), "{table}");
}

#[test]
fn what_a_job_is_given_is_in_no_argument_and_reaches_it_whole() {
    let stand = Stand::tart();
    let secret = "s3cret $(id) `x` 'y'";
    let repo: ephemerd::job::Repo = "vm/app".parse().unwrap();
    let spec = JobSpec {
        origin: Origin::own(&repo),
        command: vec!["sh".into(), "-c".into(), "printf '%s' \"$TOKEN\"".into()],
        env: [("TOKEN".to_owned(), secret.to_owned())].into(),
        timeout_s: None,
    };
    let answer = stand.daemon.site().ask(&Ask::Submit { spec }).unwrap();
    let ephemerd::control::Answer::Submitted { job, .. } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(stand.daemon.outcome(&job), Outcome::Exited { code: 0 });
    assert_eq!(stand.daemon.output(&job), secret);
    let log = fs::read_to_string(stand.home.join("log")).unwrap();
    assert!(log.contains("exec") && !log.contains("s3cret"), "{log}");
}

#[test]
fn a_job_that_is_cancelled_or_runs_too_long_takes_its_guest_along() {
    let stand = Stand::tart();
    let job = stand.submit("echo ready; sleep 1000");
    stand.daemon.wait_for_output(&job, "ready");
    assert!(stand.daemon.cli(&["cancel", job.as_str()]).status.success());
    assert_eq!(stand.daemon.outcome(&job), Outcome::Cancelled);
    let args = [
        "submit",
        "--repo",
        "vm/app",
        "--timeout",
        "1s",
        "--wait",
        "--",
        "sleep",
        "1000",
    ];
    let output = stand.daemon.cli(&args);
    assert_eq!(output.status.code(), Some(124), "{}", said(&output));
    assert_eq!(stand.guests(), Vec::<String>::new());
    assert_gone(stand.daemon.site());
}

#[test]
fn a_guest_that_dies_under_its_job_is_told_and_the_job_is_not_run_again() {
    let stand = Stand::tart();
    stand.faults("exec:gone:3\n");
    let job = stand.submit("echo once; sleep 1000");
    let Outcome::Failed { reason } = stand.daemon.outcome(&job) else {
        panic!("{:?}", stand.daemon.ended(&job))
    };
    assert!(reason.starts_with("guest of `tart`: "), "{reason}");
    assert!(stand.daemon.output(&job).matches("once").count() <= 1);
    assert_gone(stand.daemon.site());
}

#[test]
fn a_guest_that_stays_is_named_and_keeps_its_permit() {
    let stand = Stand::tart();
    stand.faults("delete:never\n");
    let job = stand.submit("true");
    let story = stand.daemon.ended(&job);
    assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 0 }));
    assert_eq!(story.job.clean, Some(false));
    let kinds = stand.daemon.status().vm.unwrap().kinds;
    assert!(kinds[0].lost[0].contains("guest eph-"), "{kinds:?}");
    // The next start removes it.
    fs::remove_file(stand.home.join("faults")).unwrap();
    let Stand { daemon, home } = stand;
    let site = daemon.stop();
    let daemon = Daemon::start_at(site);
    assert_eq!(guests(&home), Vec::<String>::new());
    assert_eq!(daemon.status().vm.unwrap().kinds[0].lost, Vec::<String>::new());
}

#[test]
fn jobs_wait_for_room_that_foreign_guests_have_and_those_are_left_alone() {
    let stand = Stand::tart();
    for name in ["theirs", "eph-other-1"] {
        tart(&stand.home, &["__foreign", name, "darwin"]);
    }
    let job = stand.submit("true");
    wait_for("a job that is blocked", || {
        let story = stand.daemon.story(&job);
        let why = story.transitions.iter().filter_map(|step| step.reason.as_deref());
        why.into_iter()
            .any(|why| why.starts_with("blocked: "))
            .then_some(())
    });
    tart(&stand.home, &["stop", "theirs"]);
    assert_eq!(stand.daemon.outcome(&job), Outcome::Exited { code: 0 });
    let all = tart(&stand.home, &["list", "--source", "local", "--quiet"]);
    assert!(all.contains("theirs") && all.contains("eph-other-1"), "{all}");
    tart(&stand.home, &["stop", "eph-other-1"]);
}

#[test]
fn a_counter_that_leaked_stops_guests_of_that_kind_and_says_what_helps() {
    let stand = Stand::tart();
    stand.faults("run:limit:always\n");
    let job = stand.submit("true");
    let blocked = wait_for("a cordon", || {
        let kinds = stand.daemon.status().vm.unwrap().kinds;
        kinds[0]
            .blocked
            .clone()
            .filter(|why| why.contains("seems to have leaked"))
    });
    assert!(blocked.contains("restart this Mac"), "{blocked}");
    assert_eq!(stand.daemon.story(&job).job.outcome, None, "it waits");
    fs::remove_file(stand.home.join("faults")).unwrap();
    assert!(stand.daemon.cli(&["resume"]).status.success());
    assert_eq!(stand.daemon.outcome(&job), Outcome::Exited { code: 0 });
}

#[test]
fn a_killed_daemon_leaves_no_guest_whatever_state_its_job_was_in() {
    let (site, home) = tart_site("");
    let mut daemon = Daemon::start_at(site);
    for (state, fault) in [
        ("cloning", "clone:hang"),
        ("configuring", "set:hang"),
        ("booting", "exec:never"),
        ("running", ""),
        ("stopping", "stop:hang"),
        ("deleting", "delete:hang"),
    ] {
        fs::write(home.join("faults"), format!("{fault}\n")).unwrap();
        let stand = Stand {
            daemon,
            home: home.clone(),
        };
        let job = stand.submit(if state == "running" { "sleep 1000" } else { "true" });
        stand.wait_for_state(&job, state);
        let site = stand.daemon.kill();
        // What the tools are ends with the daemon, and not with its next start.
        wait_for(&format!("the end of the tools, {state}"), || {
            processes_naming("eph-", &site).is_empty().then_some(())
        });
        fs::write(home.join("faults"), "").unwrap();
        daemon = Daemon::start_at(site);
        let story = daemon.ended(&job);
        assert_eq!(
            story.job.outcome,
            Some(Outcome::Failed {
                reason: "the daemon ended before the job did".into()
            }),
            "{state}"
        );
        assert_eq!(story.job.clean, Some(true), "{state}: {story:?}");
        let ends = story
            .transitions
            .iter()
            .filter(|step| step.state == "done")
            .count();
        assert_eq!(ends, 1, "{state}");
        assert_eq!(guests(&home), Vec::<String>::new(), "{state}");
        assert_gone(daemon.site());
    }
}

#[test]
fn guests_end_with_a_killed_dispatcher_and_the_daemon_goes_on_with_others() {
    let (site, home) = tart_site("");
    let mut daemon = Daemon::start_at(site);
    let native = daemon.script("echo begun; until [ -e go ]; do sleep 0.05; done");
    daemon.wait_for_output(&native, "begun");
    for (state, fault) in [
        ("cloning", "clone:hang"),
        ("running", ""),
        ("stopping", "stop:hang"),
        ("deleting", "delete:hang"),
    ] {
        fs::write(home.join("faults"), format!("{fault}\n")).unwrap();
        let mut stand = Stand {
            daemon,
            home: home.clone(),
        };
        let job = stand.submit(if state == "running" { "sleep 1000" } else { "true" });
        stand.wait_for_state(&job, state);
        stand.daemon.kill_dispatcher();
        fs::write(home.join("faults"), "").unwrap();
        let story = stand.daemon.ended(&job);
        assert!(
            matches!(story.job.outcome, Some(Outcome::Failed { .. })),
            "{state}: {story:?}"
        );
        assert_eq!(story.job.clean, Some(true), "{state}: {story:?}");
        assert_eq!(guests(&home), Vec::<String>::new(), "{state}");
        let next = stand.submit("true");
        assert!(stand.daemon.outcome(&next).is_success(), "{state}");
        daemon = stand.daemon;
    }
    fs::write(daemon.work(&native).join("go"), "").unwrap();
    assert!(daemon.outcome(&native).is_success());
}

#[test]
fn a_killed_daemon_leaves_no_guest_of_a_tool_that_runs_on_its_own() {
    let stand = Stand::plain(true);
    let Stand { mut daemon, home } = stand;
    for (state, hang) in [
        ("starting", ("hang", "start")),
        ("booting", ("hang-exec", "1")),
        ("loading", ("hang-exec", "2")),
        ("running", ("hang-exec", "3")),
    ] {
        fs::write(home.join(hang.0), hang.1).unwrap();
        let stand = Stand {
            daemon,
            home: home.clone(),
        };
        let job = stand.submit("true");
        stand.wait_for_state(&job, state);
        let site = stand.daemon.kill();
        fs::remove_file(home.join(hang.0)).unwrap();
        daemon = Daemon::start_at(site);
        let story = daemon.ended(&job);
        assert!(
            matches!(story.job.outcome, Some(Outcome::Failed { .. })),
            "{state}: {story:?}"
        );
        assert_eq!(story.job.clean, Some(true), "{state}: {story:?}");
        assert_eq!(fs::read_dir(home.join("guests")).unwrap().count(), 0, "{state}");
        assert_gone(daemon.site());
    }
}

#[test]
fn where_no_native_job_can_be_fenced_in_only_guests_run() {
    let mut site = Site::new("");
    let top = site.top.join("nobody");
    let home = top.join("plain");
    fs::create_dir_all(home.join("guests")).unwrap();
    let tool = site.copy(format!("{FAKES}/guest").as_str().into(), "guest");
    site.data_dir = top.join("data");
    site.configure(&format!(
        "\"both/*\" = {{ route = \"native\", fallback = \"vm\" }}\n{}",
        plain_config(&tool, &home, false)
    ));
    for path in [&top, &home, &home.join("guests")] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let program = site.copy(PROGRAM.into(), "ephemerd");
    let mut run = command("setpriv");
    run.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--no-new-privs",
    ])
    .args([program.as_str(), "--config", site.config.as_str(), "run"]);
    let daemon = Daemon::start_by(site, run);
    let Outcome::Refused { reason } = daemon.outcome(&daemon.script("true")) else {
        panic!()
    };
    assert!(reason.contains("axis `accounts` is absent"), "{reason}");
    let both = daemon.ended(&daemon.submit("both/app", &["true"]));
    assert_eq!(both.job.outcome, Some(Outcome::Exited { code: 0 }), "{both:?}");
    assert_eq!(both.job.isolation, Some(Isolation::Container));
    let untrusted = daemon.submit("vm/app", &["sh", "-c", "exit 3"]);
    assert_eq!(daemon.outcome(&untrusted), Outcome::Exited { code: 3 });
    let status = daemon.status();
    assert!(status.shut.is_some_and(|why| why.contains("accounts")));
}

#[test]
fn a_guest_that_no_ledger_knows_is_swept_at_the_start_and_others_are_not() {
    let (site, home) = tart_site("");
    let own = own_prefix(&site).unwrap();
    let ours = format!("{own}00000000000-1");
    for name in [
        ours.as_str(),
        "eph-elsewhere0000-00000000000-1",
        &format!("{own}base"),
    ] {
        tart(&home, &["__base", name, "linux"]);
    }
    give(&home, &site.family);
    let daemon = Daemon::start_at(site);
    let mut left = guests(&home);
    left.sort_by_key(|name| !name.starts_with("eph-elsewhere"));
    assert_eq!(left, ["eph-elsewhere0000-00000000000-1", &format!("{own}base")]);
    assert!(daemon.log().contains(&ours), "{}", daemon.log());
}

#[test]
fn reserved_codes_of_a_tool_tell_a_full_host_from_one_that_is_not_set_up() {
    let stand = Stand::plain(false);
    fs::write(stand.home.join("code"), "clone 78").unwrap();
    let Outcome::Failed { reason } = stand.daemon.outcome(&stand.submit("true")) else {
        panic!()
    };
    assert!(reason.contains("exit status: 78: told to fail"), "{reason}");
    fs::write(stand.home.join("code"), "clone 75").unwrap();
    let job = stand.submit("true");
    wait_for("a job that is blocked", || {
        let story = stand.daemon.story(&job);
        let mut why = story.transitions.iter().filter_map(|step| step.reason.clone());
        why.any(|why| why.starts_with("blocked: ")).then_some(())
    });
    fs::remove_file(stand.home.join("code")).unwrap();
    assert_eq!(stand.daemon.outcome(&job), Outcome::Exited { code: 0 });
    // One that never finds room ends, too.
    fs::write(stand.home.join("code"), "clone 75").unwrap();
    let Outcome::Failed { reason } = stand.daemon.outcome(&stand.submit("true")) else {
        panic!()
    };
    assert!(
        reason.starts_with("there was no room for a guest within"),
        "{reason}"
    );
    fs::remove_file(stand.home.join("code")).unwrap();
}

#[test]
fn jobs_that_wait_for_a_guest_hold_no_slot_and_native_ones_no_permit() {
    let stand = Stand::plain(false);
    let guests: Vec<_> = (0..4)
        .map(|n| {
            stand.submit(&format!(
                "echo ready; while [ ! -e {}/go ]; do sleep 0.1; done; exit {n}",
                stand.home
            ))
        })
        .collect();
    wait_for("two guests at once", || {
        let kind = stand.daemon.status().vm.unwrap().kinds.remove(0);
        (kind.running.len() == 2 && kind.queued.len() == 2).then_some(())
    });
    let native: Vec<_> = (0..3)
        .map(|n| stand.daemon.script(&format!("exit {n}")))
        .collect();
    for (n, job) in (0..).zip(&native) {
        assert_eq!(stand.daemon.outcome(job), Outcome::Exited { code: n });
    }
    fs::write(stand.home.join("go"), "").unwrap();
    for (n, job) in (0..).zip(&guests) {
        assert_eq!(stand.daemon.outcome(job), Outcome::Exited { code: n });
    }
}

#[test]
fn a_native_job_that_this_host_cannot_take_goes_to_a_guest_where_its_rule_says_so() {
    let (site, home) = tart_site("");
    // Nobody has enabled the host for this manifest.
    let manifest = site.top.join("wanted.toml");
    fs::write(&manifest, "version = 1\nos = \"linux\"\n").unwrap();
    site.configure(&format!("manifest = \"{manifest}\"\n{}", tart_config(&home, "")));
    let daemon = Daemon::start_at(site);
    let job = daemon.submit("both/app", &["true"]);
    let story = daemon.ended(&job);
    assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 0 }), "{story:?}");
    assert_eq!(story.job.route, Route::Vm);
    assert!(
        story
            .job
            .reason
            .contains("falls back to vm: this host is not enabled"),
        "{}",
        story.job.reason
    );
    let refused = daemon.ended(&daemon.script("true"));
    assert!(
        matches!(refused.job.outcome, Some(Outcome::Refused { .. })),
        "{refused:?}"
    );
}
