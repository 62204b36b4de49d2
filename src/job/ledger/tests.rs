//! The ledger from outside: what was written is what is read, whatever happens in between.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use rusqlite::ErrorCode;

use super::*;
use crate::job::Origin;
use crate::slot::Account;

mod model;

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap().join("ledger.db");
    (folder, path)
}

fn new() -> (tempfile::TempDir, Ledger) {
    let (folder, path) = folder();
    let ledger = Ledger::open(&path).unwrap();
    (folder, ledger)
}

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn id(n: u64) -> JobId {
    JobId::new(at(n), 0)
}

fn spec() -> JobSpec {
    JobSpec {
        origin: Origin {
            repo: "acme/ios".parse().unwrap(),
            event: "push".to_owned(),
            head: None,
            branch: None,
            labels: vec![],
            actor: None,
        },
        command: vec!["make".to_owned(), "a b".to_owned()],
        env: BTreeMap::from([("TOKEN".to_owned(), "s3cr3t".to_owned())]),
        timeout_s: None,
    }
}

fn slot() -> Slot {
    let account = Account {
        name: "_ephemerd2".to_owned(),
        uid: 702,
        gid: 700,
    };
    Slot {
        index: 2,
        account,
        first_port: 20_100,
        last_port: 20_199,
    }
}

fn record(ledger: &Ledger, id: &JobId, now: SystemTime) -> Result<(), LedgerError> {
    let spec = spec();
    let entry = Entry {
        id,
        spec: &spec,
        route: Route::Native,
        reason: "acme/* is native",
        ticket: None,
    };
    ledger.record(entry, now)
}

fn finish(ledger: &Ledger, id: &JobId, clean: bool, now: SystemTime) -> Result<(), LedgerError> {
    let ending = Ending {
        outcome: &Outcome::Exited { code: 0 },
        clean,
        axes: r#"{"network":"enforced"}"#,
        usage: Usage {
            memory_peak_byte: Some(1 << 33),
            output_byte: 12,
        },
        egress: None,
    };
    ledger.finish(id, &ending, now)
}

const PROCESSES: Acquisition = Acquisition::Processes {
    uid: 702,
    exclusive: true,
};

#[test]
fn a_job_reads_back_as_it_went_through_even_after_a_reopen() {
    let (_folder, path) = folder();
    let ledger = Ledger::open(&path).unwrap();
    let job = id(1);
    record(&ledger, &job, at(1000)).unwrap();
    ledger.claim(&job, &slot(), at(1010)).unwrap();
    ledger.enter(&job, "preparing", None, at(1011)).unwrap();
    ledger.enter(&job, "running", None, at(1020)).unwrap();
    ledger
        .enter(&job, "stopping", Some("cancelled by root"), at(1900))
        .unwrap();
    ledger.enter(&job, "scrubbing", None, at(2020)).unwrap();
    finish(&ledger, &job, true, at(2025)).unwrap();
    drop(ledger);

    let ledger = Ledger::open(&path).unwrap();
    let row = ledger.job(&job).unwrap().unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&row).unwrap(), @r#"
    {
      "id": "00000001000",
      "repo": "acme/ios",
      "event": "push",
      "route": "native",
      "reason": "acme/* is native",
      "command": [
        "make",
        "a b"
      ],
      "state": "done",
      "slot": 2,
      "account": "_ephemerd2",
      "outcome": {
        "outcome": "exited",
        "code": 0
      },
      "clean": true,
      "axes": {
        "network": "enforced"
      },
      "memory_peak_byte": 8589934592,
      "output_byte": 12,
      "queued_ms": 1000,
      "claimed_ms": 1010,
      "started_ms": 1020,
      "exited_ms": 2020,
      "finished_ms": 2025,
      "isolation": "sandbox"
    }
    "#);
    let told: Vec<_> = ledger
        .transitions(&job)
        .unwrap()
        .into_iter()
        .map(|to| format!("{} {} {}", to.at_ms, to.state, to.reason.unwrap_or_default()))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r##"
    1000 queued acme/* is native
    1011 preparing 
    1020 running 
    1900 stopping cancelled by root
    2020 scrubbing 
    2025 done ok
    "##);
}

#[test]
fn a_job_that_is_queued_has_no_other_times_yet() {
    let (_folder, ledger) = new();
    record(&ledger, &id(1), at(1000)).unwrap();
    let row = ledger.job(&id(1)).unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.queued_ms), ("queued", 1000));
    assert_eq!(
        [row.claimed_ms, row.started_ms, row.exited_ms, row.finished_ms],
        [None; 4]
    );
    assert_eq!(
        (row.outcome, row.clean, row.slot, row.axes),
        (None, None, None, None)
    );
}

#[test]
fn a_state_entered_twice_keeps_its_first_time() {
    let (_folder, ledger) = new();
    record(&ledger, &id(1), at(1)).unwrap();
    for now in [5, 6] {
        ledger.enter(&id(1), "running", None, at(now)).unwrap();
        ledger.enter(&id(1), "scrubbing", None, at(now + 2)).unwrap();
    }
    let row = ledger.job(&id(1)).unwrap().unwrap();
    assert_eq!((row.started_ms, row.exited_ms), (Some(5), Some(7)));
}

#[test]
fn a_jobs_environment_is_not_written_down() {
    let (folder, ledger) = new();
    record(&ledger, &id(1), at(1)).unwrap();
    drop(ledger);
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|text| text == b"s3cr3t"));
    }
}

#[test]
fn what_a_crash_leaves_is_named_newest_first_with_its_slot() {
    let (_folder, path) = folder();
    let ledger = Ledger::open(&path).unwrap();
    for n in 1..=3 {
        record(&ledger, &id(n), at(n)).unwrap();
    }
    ledger.claim(&id(2), &slot(), at(4)).unwrap();
    let workspace = ledger.acquire(&id(2), &Acquisition::Workspace, at(5)).unwrap();
    let first = ledger.acquire(&id(2), &PROCESSES, at(6)).unwrap();
    let second = ledger.acquire(&id(2), &PROCESSES, at(7)).unwrap();
    ledger.released(first, at(8)).unwrap();
    finish(&ledger, &id(3), true, at(9)).unwrap();
    drop(ledger);

    let ledger = Ledger::open(&path).unwrap();
    let waiting = Unfinished {
        id: id(1),
        state: "queued".to_owned(),
        slot: None,
        ending: None,
        open: vec![],
    };
    let running = Unfinished {
        id: id(2),
        state: "queued".to_owned(),
        slot: Some(slot()),
        ending: None,
        open: vec![(second, PROCESSES), (workspace, Acquisition::Workspace)],
    };
    assert_eq!(ledger.unfinished().unwrap(), [waiting, running]);
}

#[test]
fn how_a_job_ended_is_known_before_its_end_is_recorded() {
    let (_folder, ledger) = new();
    record(&ledger, &id(1), at(1)).unwrap();
    let outcome = Outcome::Exited { code: 4 };
    ledger.ending(&id(1), &outcome, at(2)).unwrap();
    let left = ledger.unfinished().unwrap().remove(0);
    assert_eq!((left.state.as_str(), left.ending), ("scrubbing", Some(outcome)));
    // It has not ended yet, and has once it is said so.
    assert_eq!(ledger.job(&id(1)).unwrap().unwrap().outcome, None);
    finish(&ledger, &id(1), true, at(3)).unwrap();
    let refused = ledger.ending(&id(1), &Outcome::Cancelled, at(4)).unwrap_err();
    assert!(matches!(refused, LedgerError::NotOpen(_)), "{refused}");
}

#[test]
fn a_job_that_holds_something_cannot_be_finished_as_clean() {
    let (_folder, ledger) = new();
    record(&ledger, &id(1), at(1)).unwrap();
    let held = ledger.acquire(&id(1), &Acquisition::Workspace, at(2)).unwrap();
    let refused = finish(&ledger, &id(1), true, at(3)).unwrap_err();
    assert!(matches!(refused, LedgerError::StillHeld(_)), "{refused}");
    assert_eq!(ledger.unfinished().unwrap().len(), 1);
    ledger.released(held, at(4)).unwrap();
    finish(&ledger, &id(1), true, at(5)).unwrap();
}

#[test]
fn a_finished_or_unknown_job_takes_nothing_more() {
    let (_folder, ledger) = new();
    record(&ledger, &id(1), at(1)).unwrap();
    finish(&ledger, &id(1), true, at(2)).unwrap();
    let before = ledger.job(&id(1)).unwrap();
    for job in [id(1), id(2)] {
        let refused = [
            ledger.enter(&job, "running", None, at(3)),
            ledger.claim(&job, &slot(), at(3)),
            ledger.acquire(&job, &Acquisition::Workspace, at(3)).map(drop),
            finish(&ledger, &job, false, at(3)),
        ];
        for refusal in refused {
            assert!(matches!(refusal, Err(LedgerError::NotOpen(_))), "{refusal:?}");
        }
    }
    assert_eq!(ledger.job(&id(1)).unwrap(), before);
    assert_eq!(ledger.transitions(&id(1)).unwrap().len(), 2);
    assert_eq!(ledger.transitions(&id(2)).unwrap(), []);
}

#[test]
fn axes_that_are_not_json_are_refused_and_the_job_stays_unfinished() {
    let (_folder, ledger) = new();
    record(&ledger, &id(1), at(1)).unwrap();
    let ending = Ending {
        outcome: &Outcome::Cancelled,
        clean: true,
        axes: "{",
        usage: Usage::default(),
        egress: None,
    };
    assert!(ledger.finish(&id(1), &ending, at(2)).is_err());
    assert_eq!(ledger.unfinished().unwrap().len(), 1);
}

#[test]
fn an_id_is_recorded_once() {
    let (_folder, ledger) = new();
    record(&ledger, &id(1), at(1)).unwrap();
    assert!(record(&ledger, &id(1), at(2)).is_err());
    assert_eq!(ledger.transitions(&id(1)).unwrap().len(), 1);
}

#[test]
fn a_fresh_id_is_one_the_ledger_does_not_have() {
    let (_folder, ledger) = new();
    // Chance that always says the same: only moving on in time gets away from the ids that exist.
    let stuck = || ledger.fresh_id_by(at(7), || Ok(0)).unwrap();
    assert_eq!(stuck(), id(7));
    record(&ledger, &id(7), at(7)).unwrap();
    record(&ledger, &id(8), at(7)).unwrap();
    assert_eq!(stuck(), id(9));
    let fresh = ledger.fresh_id(at(7)).unwrap();
    assert!(ledger.job(&fresh).unwrap().is_none());
}

#[test]
fn jobs_are_listed_newest_first_up_to_a_limit_or_only_the_active() {
    let (_folder, ledger) = new();
    for n in 1..=4 {
        record(&ledger, &id(n), at(n)).unwrap();
    }
    finish(&ledger, &id(3), true, at(9)).unwrap();
    let listed = |listing| -> Vec<JobId> {
        let rows = ledger.jobs(listing).unwrap();
        rows.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(listed(Listing::Newest(2)), [id(4), id(3)]);
    assert_eq!(listed(Listing::Active), [id(4), id(2), id(1)]);
    let since = |ms, newest| listed(Listing::Since { ms, newest });
    assert_eq!(since(9, 9), [id(4), id(3), id(2), id(1)]);
    assert_eq!(since(10, 9), [id(4), id(2), id(1)]);
    assert_eq!(since(10, 3), [id(4), id(2)]);
}

#[test]
fn pruning_keeps_the_last_finished_the_unfinished_and_whatever_still_holds_something() {
    let (_folder, ledger) = new();
    for n in 1..=6 {
        record(&ledger, &id(n), at(n)).unwrap();
    }
    ledger.acquire(&id(1), &Acquisition::Workspace, at(7)).unwrap();
    let gone = ledger.acquire(&id(2), &Acquisition::Workspace, at(7)).unwrap();
    ledger.released(gone, at(8)).unwrap();
    finish(&ledger, &id(1), false, at(9)).unwrap();
    // Job 3 finishes last, so it stays although others are newer.
    for (n, now) in [(2, 10), (5, 11), (4, 12), (3, 13)] {
        finish(&ledger, &id(n), true, at(now)).unwrap();
    }
    let mut pruned = ledger.prune(2).unwrap();
    pruned.sort();
    assert_eq!(pruned, [id(2), id(5)]);
    assert_eq!(ledger.transitions(&id(2)).unwrap(), []);
    let left: Vec<_> = ledger.jobs(Listing::Newest(9)).unwrap();
    let left: Vec<_> = left.into_iter().map(|row| row.id).collect();
    assert_eq!(left, [id(6), id(4), id(3), id(1)]);
}

#[test]
fn a_quarantine_keeps_its_first_time_and_its_last_reason_until_lifted() {
    let (_folder, ledger) = new();
    ledger.quarantine(3, "process 42", at(5)).unwrap();
    ledger.quarantine(1, "mount", at(6)).unwrap();
    ledger.quarantine(3, "process 43", at(7)).unwrap();
    let (slot, reason, since_ms) = (3, "process 43".to_owned(), 5);
    let third = Quarantined {
        slot,
        reason,
        since_ms,
    };
    assert_eq!(ledger.quarantined().unwrap()[1], third);
    assert!(ledger.lift_quarantine(1).unwrap());
    assert!(!ledger.lift_quarantine(1).unwrap());
    assert_eq!(ledger.quarantined().unwrap(), [third]);
}

#[test]
fn two_processes_may_write_at_once() {
    let (_folder, path) = folder();
    // One handle each, as two processes have; SQLite does not tell them apart.
    std::thread::scope(|scope| {
        let writers: Vec<_> = [0, 1000]
            .map(|base| {
                let path = &path;
                scope.spawn(move || {
                    let ledger = Ledger::open(path)?;
                    for n in base..base + 50 {
                        record(&ledger, &id(n), at(n))?;
                        let held = ledger.acquire(&id(n), &Acquisition::Workspace, at(n))?;
                        ledger.released(held, at(n))?;
                        finish(&ledger, &id(n), true, at(n))?;
                    }
                    Ok::<_, LedgerError>(())
                })
            })
            .into();
        for writer in writers {
            writer.join().unwrap().unwrap();
        }
    });
    let ledger = Ledger::open(&path).unwrap();
    assert_eq!(ledger.jobs(Listing::Newest(500)).unwrap().len(), 100);
    assert_eq!(ledger.unfinished().unwrap(), []);
}

/// What is told when SQLite refuses a write after `setting`.
fn told_after(setting: &str) -> (String, Option<ErrorCode>) {
    let (_folder, ledger) = new();
    ledger.db.lock().unwrap().execute_batch(setting).unwrap();
    // Long enough to need a page more.
    let reason = "x".repeat(100_000);
    let refused = ledger.quarantine(1, &reason, at(1)).unwrap_err();
    assert_eq!(ledger.quarantined().unwrap(), []);
    let LedgerError::Database { source, .. } = &refused else {
        panic!("{refused:?}")
    };
    (
        refused.to_string().replace(ledger.path.as_str(), "PATH"),
        source.sqlite_error_code(),
    )
}

#[test]
fn a_full_disk_is_told_as_such() {
    // As many pages as the schema needs; SQLite then reports what it reports for ENOSPC.
    let (told, code) = told_after("PRAGMA max_page_count = 1");
    assert_eq!(code, Some(ErrorCode::DiskFull));
    insta::assert_snapshot!(told, @r##"
    could not record a quarantine in the ledger `PATH`
    hint: the disk is full: free some space
    "##);
}

#[test]
fn a_ledger_that_may_only_be_read_is_told_as_such() {
    let (told, code) = told_after("PRAGMA query_only = on");
    assert_eq!(code, Some(ErrorCode::ReadOnly));
    insta::assert_snapshot!(told, @r##"
    could not record a quarantine in the ledger `PATH`
    hint: this account must be able to write the file and its folder, and the disk must not be read-only
    "##);
}

#[test]
fn a_ledger_another_process_holds_for_too_long_is_told_as_such() {
    let (_folder, ledger) = new();
    let other = Ledger::open(&ledger.path).unwrap();
    let other = other.db.lock().unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    ledger.db.lock().unwrap().busy_timeout(Duration::ZERO).unwrap();
    let refused = record(&ledger, &id(1), at(1)).unwrap_err();
    assert!(
        refused.to_string().contains("hint: another process has held it"),
        "{refused}"
    );
    other.execute_batch("ROLLBACK").unwrap();
    record(&ledger, &id(1), at(1)).unwrap();
}

#[test]
fn nobody_writes_between_what_a_transaction_reads_and_what_it_writes() {
    let (_folder, ledger) = new();
    let other = Ledger::open(&ledger.path).unwrap();
    other.db.lock().unwrap().busy_timeout(Duration::ZERO).unwrap();
    let meanwhile = ledger.write("look", |tx| {
        let jobs: u32 = tx.query_row("SELECT count(*) FROM job", [], |row| row.get(0))?;
        Ok((jobs, record(&other, &id(1), at(1)).is_ok()))
    });
    assert_eq!(meanwhile.unwrap(), (0, false));
}

#[test]
fn whoever_counts_is_told_once_of_every_job_that_is_sent_somewhere_and_ends() {
    let (_folder, ledger) = new();
    record(&ledger, &id(1), at(1)).unwrap();
    let mut notes = ledger.notes().unwrap();
    assert!(ledger.notes().is_none(), "one counts");
    record(&ledger, &id(2), at(2)).unwrap();
    assert!(record(&ledger, &id(2), at(2)).is_err());
    ledger.reroute(&id(2), Route::Vm, "elsewhere", at(3)).unwrap();
    finish(&ledger, &id(2), true, at(4)).unwrap();
    assert!(finish(&ledger, &id(2), true, at(5)).is_err());
    let told: Vec<Noted> = std::iter::from_fn(|| notes.try_recv().ok()).collect();
    assert_eq!(
        told,
        [
            Noted::Sent(Route::Native),
            Noted::Sent(Route::Vm),
            Noted::Over(id(2))
        ]
    );
}
