//! Jobs that leave things behind, take more than their share or try to take others with them, each beside a
//! neighbour that must not notice.

use std::fs;
use std::os::unix::fs::MetadataExt;

use ephemerd::control::SlotNow;
use ephemerd::job::{JobId, Outcome};

use crate::harness::{Daemon, out, processes_of, wait_for};

/// A job that goes on until its workspace has a file `go`.
fn neighbour(daemon: &Daemon) -> JobId {
    let job = daemon.submit(
        "other/app",
        &[
            "sh",
            "-c",
            "echo ready; until [ -e go ]; do sleep 0.05; done; echo fine",
        ],
    );
    daemon.wait_for_output(&job, "ready");
    job
}

/// Lets the neighbour finish and checks that nothing has happened to it.
#[track_caller]
fn finish(daemon: &Daemon, neighbour: &JobId) {
    fs::write(daemon.work(neighbour).join("go"), "").unwrap();
    assert_eq!(
        daemon.outcome(neighbour),
        Outcome::Exited { code: 0 },
        "the neighbour"
    );
    assert_eq!(daemon.output(neighbour), "ready\nfine\n");
}

/// Checks that a job left nothing and its slot is free.
#[track_caller]
fn assert_clean(daemon: &Daemon, job: &JobId) {
    let story = daemon.ended(job);
    assert_eq!(story.job.clean, Some(true), "{story:?}");
    let slot = story.job.slot.unwrap();
    wait_for("a free slot", || {
        let status = daemon.status();
        let now = &status
            .slots
            .iter()
            .find(|report| report.index == slot)
            .unwrap()
            .now;
        assert!(!matches!(now, SlotNow::Quarantined { .. }), "{now:?}");
        (*now == SlotNow::Free).then_some(())
    });
    assert!(!daemon.site().workspaces().contains(&job.to_string()));
    assert_eq!(processes_of(daemon.site().family.uid(slot)), Vec::<i32>::new());
}

#[test]
fn a_process_that_forked_twice_into_a_session_of_its_own_is_gone() {
    let daemon = Daemon::start("");
    let beside = neighbour(&daemon);
    let job = daemon.script("(setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000 & sleep 1000' >/dev/null 2>&1 &) & until grep -qs sleep /proc/[0-9]*/comm; do :; done");
    assert!(daemon.outcome(&job).is_success());
    assert_clean(&daemon, &job);
    finish(&daemon, &beside);
}

#[test]
fn a_survivor_that_holds_the_output_open_does_not_hold_up_the_end() {
    let daemon = Daemon::start("");
    let job = daemon.script("setsid sleep 1000 & echo done");
    assert!(daemon.outcome(&job).is_success());
    assert_eq!(daemon.output(&job), "done\n");
    assert_clean(&daemon, &job);
}

#[test]
fn whatever_a_job_leaves_in_its_workspace_is_removed() {
    let daemon = Daemon::start("");
    let beside = neighbour(&daemon);
    let trees = [
        (
            "a read-only tree",
            "mkdir -p a/b/c && touch a/b/c/f && chmod -R a-w a && find a -depth -exec chmod 0 {} +",
        ),
        (
            "a workspace nobody may enter",
            "chmod 0 ../home ../tmp . .. || true",
        ),
        (
            "a deep nest",
            "i=0; while [ $i -lt 600 ]; do mkdir d && cd -P d || break; i=$((i+1)); done; touch end",
        ),
        (
            "a fifo and links",
            "mkfifo pipe; ln -s /etc etc; ln -s / root; ln -s loop loop; touch x; ln x y",
        ),
        (
            "odd names",
            "touch -- -rf '$(reboot)' \"$(printf 'new\\nline')\" \"$(printf '\\377')\"; mkdir ' '; touch ' /..x'",
        ),
        (
            "many files",
            "seq 5000 | xargs touch; seq 500 | (cd ../tmp && xargs mkdir)",
        ),
        ("a sparse file larger than the disk", "truncate -s 20G big"),
    ];
    let sentinel = daemon.site().top.join("sentinel");
    fs::write(&sentinel, "stays").unwrap();
    for (what, script) in trees {
        let job = daemon.script(script);
        assert!(
            daemon.outcome(&job).is_success(),
            "{what}: {:?}\n{}",
            daemon.outcome(&job),
            daemon.output(&job)
        );
        assert_clean(&daemon, &job);
    }
    assert_eq!(fs::read_to_string(sentinel).unwrap(), "stays");
    finish(&daemon, &beside);
}

#[test]
fn a_socket_and_an_open_deleted_file_leave_nothing() {
    let daemon = Daemon::start("");
    let job = daemon.script(
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"s\", Listen => 1) or die $!; print -S \"s\" ? \"socket\\n\" : \"none\\n\"; $$ = 0' && exec 9>gone && rm gone && echo x >&9",
    );
    assert!(daemon.outcome(&job).is_success(), "{}", daemon.output(&job));
    assert_clean(&daemon, &job);
}

#[test]
fn files_in_shared_places_are_the_jobs_own_and_go_with_it() {
    let daemon = Daemon::start("");
    let script = "for d in /tmp /var/tmp /dev/shm; do echo mine > $d/epht-left && chmod 666 $d/epht-left || exit 1; done; ls -A /tmp | grep -v epht-; true";
    let first = daemon.script(script);
    assert!(daemon.outcome(&first).is_success(), "{}", daemon.output(&first));
    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        assert!(!fs::exists(format!("{place}/epht-left")).unwrap(), "{place}");
    }
    let second = daemon.script("cat /tmp/epht-left /var/tmp/epht-left /dev/shm/epht-left && exit 1; true");
    assert!(daemon.outcome(&second).is_success(), "{}", daemon.output(&second));
    assert_clean(&daemon, &first);
}

#[test]
fn what_the_host_lends_a_job_stays_the_hosts() {
    let daemon = Daemon::start("");
    let owner = || {
        fs::metadata("/dev/null")
            .map(|meta| (meta.uid(), meta.mode()))
            .unwrap()
    };
    let before = owner();
    // The input of a job is the host's /dev/null.
    let job = daemon.script("chmod 600 /dev/null /proc/self/fd/0; chown $(id -u) /proc/self/fd/0; cat");
    assert!(daemon.outcome(&job).is_success(), "{}", daemon.output(&job));
    assert_eq!(owner(), before);
    assert_clean(&daemon, &job);
}

#[test]
fn a_job_that_eats_memory_is_stopped_and_its_neighbour_is_not() {
    let daemon = Daemon::start("[native.limits]\nmemory = \"100MiB\"\n");
    let beside = neighbour(&daemon);
    let job = daemon.script("perl -e '$x = \"x\" x (300 << 20); sleep 1000'");
    let Outcome::OverLimit { what } = daemon.outcome(&job) else {
        panic!("{:?}\n{}", daemon.outcome(&job), daemon.output(&job));
    };
    // By measuring, or by the kernel where jobs have control groups.
    let is_told = what.ends_with("of 100 MiB") || what.starts_with("memory 100 MiB: the kernel");
    assert!(what.starts_with("memory ") && is_told, "{what}");
    assert_clean(&daemon, &job);
    finish(&daemon, &beside);
}

#[test]
fn a_fork_bomb_stays_inside_its_limit_while_a_neighbour_works() {
    let daemon = Daemon::start("[native]\nstop_grace = \"1s\"\n[native.limits]\nprocesses = 200\n");
    let beside = neighbour(&daemon);
    let bomb =
        daemon.script("echo ready; exec perl -e 'while (1) { fork // select undef, undef, undef, 0.01 }'");
    daemon.wait_for_output(&bomb, "ready");
    let slot = daemon.slot_of(&bomb);
    let uid = daemon.site().family.uid(slot);
    let most = wait_for("many processes", || {
        let count = processes_of(uid).len();
        (count > 150).then_some(count)
    });
    assert!(most <= 201, "{most} processes of 200");
    assert!(
        daemon
            .run("for i in 1 2 3 4 5; do sh -c 'exit 0' || exit 1; done")
            .status
            .success(),
        "another job works"
    );
    assert!(daemon.cli(&["cancel", bomb.as_str()]).status.success());
    assert_eq!(daemon.outcome(&bomb), Outcome::Cancelled);
    assert_clean(&daemon, &bomb);
    finish(&daemon, &beside);
}

#[test]
fn killing_everything_kills_only_the_job_itself() {
    let daemon = Daemon::start("");
    let beside = neighbour(&daemon);
    let job = daemon.script("sleep 1000 & kill -9 -1; echo still here; kill -9 1; exit 5");
    assert_eq!(
        daemon.outcome(&job),
        Outcome::Exited { code: 5 },
        "{}",
        daemon.output(&job)
    );
    assert_eq!(daemon.output(&job), "still here\n");
    assert_clean(&daemon, &job);
    finish(&daemon, &beside);
}

#[test]
fn a_crash_leaves_no_core_dump() {
    let daemon = Daemon::start("");
    let job = daemon.script("ulimit -c unlimited 2>/dev/null; cd /tmp; sh -c 'kill -SEGV $$'; cd ~; sh -c 'kill -ABRT $$'; ls -A /tmp ~ ../work | grep core; exec sh -c 'kill -SEGV $$'");
    assert_eq!(
        daemon.outcome(&job),
        Outcome::Signalled {
            signal: libc::SIGSEGV
        }
    );
    let output = daemon.output(&job);
    assert!(!output.lines().any(|line| line.starts_with("core")), "{output}");
    assert_clean(&daemon, &job);
    // One byte is too few for a file, and forbids handing the dump to a program of the host's, which zero
    // does not (core(5), "Piping core dumps to a program").
    let limits = daemon.run("grep core /proc/self/limits");
    let words: Vec<_> = out(&limits).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words[4..6], ["1", "1"], "{limits:?}");
}

#[test]
fn a_job_that_ends_the_process_that_watches_it_gets_nowhere() {
    let daemon = Daemon::start("");
    let beside = neighbour(&daemon);
    let job = daemon.script("kill -9 1; kill -STOP 1; kill -SEGV $PPID; kill -9 $PPID; exit 3");
    assert_eq!(
        daemon.outcome(&job),
        Outcome::Exited { code: 3 },
        "{}",
        daemon.output(&job)
    );
    assert_clean(&daemon, &job);
    finish(&daemon, &beside);
}

#[test]
fn a_job_whose_process_is_killed_from_outside_has_failed_and_is_cleaned_up() {
    let daemon = Daemon::start("");
    let job = daemon.script("echo ready; sleep 1000");
    daemon.wait_for_output(&job, "ready");
    let slot = daemon.slot_of(&job);
    for pid in processes_of(daemon.site().family.uid(slot)) {
        // The first ends the others.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    let outcome = daemon.outcome(&job);
    assert!(
        matches!(outcome, Outcome::Failed { .. } | Outcome::Signalled { .. }),
        "{outcome:?}"
    );
    assert_clean(&daemon, &job);
}

#[test]
fn a_real_time_signal_ends_a_job_like_any_other() {
    let daemon = Daemon::start("");
    let job = daemon.script("kill -34 $$; sleep 1000");
    assert_eq!(daemon.outcome(&job), Outcome::Signalled { signal: 34 });
    assert_clean(&daemon, &job);
}
