//! Opening the ledger: a private file, settings of the connection, the schema and its version.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::error::{LedgerError, failed};

/// The schema version this program writes; `PRAGMA user_version` of the file.
const VERSION: i64 = 6;

const SCHEMA: &str = include_str!("schema.sql");

/// What makes each version of the one before it, from version 2 on.
const MIGRATIONS: [&str; 5] = [
    "ALTER TABLE job ADD COLUMN egress TEXT",
    "CREATE TABLE github (
        job       TEXT PRIMARY KEY NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        ticket    TEXT NOT NULL,
        runner    TEXT,
        runner_id INTEGER,
        taken     TEXT,
        gone_ms   INTEGER
    ) STRICT",
    "CREATE INDEX github_ticket ON github (json_extract(ticket, '$.job'))",
    "ALTER TABLE job ADD COLUMN isolation TEXT;
     ALTER TABLE job ADD COLUMN backend TEXT",
    "ALTER TABLE job ADD COLUMN ending TEXT",
];

/// Longer than any transaction here takes, so that only a stuck process is ever seen as busy.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// About as long as another process takes to switch the file to write-ahead logging.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// Above the number of different statements in this module, so that each is compiled once per process.
const STATEMENTS: usize = 32;

/// Only the owner reads commands and reasons.
const MODE: u32 = 0o600;

/// Returns a connection to the ledger at `path`, which is made when it does not exist.
pub(super) fn open(path: &Utf8Path) -> Result<Connection, LedgerError> {
    let unmade = |source| LedgerError::Create {
        path: path.to_owned(),
        source,
    };
    create(path).map_err(unmade)?;
    let told = |source| failed("open the database", path, source);
    // Without CREATE: the file exists, with the mode we gave it. Without URI: a path is a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(told)?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(told)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    // Looked at before anything is changed: a file that is not ours stays as it is.
    let found = recognise(&db, path)?;
    keep_private(path).map_err(unmade)?;
    // Connections that make a new file at the same time wait here for each other.
    if found < VERSION {
        migrate(&mut db).map_err(told)?;
        recognise(&db, path)?;
    }
    configure(&db, path)?;
    // Damage that shows only when a page of it is read would show in the middle of a job.
    let problems = problems(&db).map_err(|source| failed("check the database", path, source))?;
    match problems.into_iter().next() {
        None => Ok(db),
        Some(problem) => {
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            let source = rusqlite::Error::SqliteFailure(corrupt, Some(problem));
            Err(failed("check the database", path, source))
        }
    }
}

/// What SQLite finds wrong with the file; nothing when it is sound. Takes about a millisecond per thousand jobs.
pub(super) fn problems(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut asked = db.prepare("PRAGMA quick_check")?;
    let found = asked.query_map([], |row| row.get::<_, String>(0))?;
    let found = found.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(found.into_iter().filter(|line| line != "ok").collect())
}

/// Makes the file with its mode if there is none. SQLite gives its `-wal` and `-shm` the mode of the file.
fn create(path: &Utf8Path) -> io::Result<()> {
    let mut how = OpenOptions::new();
    // Never opened here when it exists: closing any descriptor of the file drops the POSIX locks SQLite holds
    // on it elsewhere in this process (sqlite.org/howtocorrupt.html, 2.2).
    match how.write(true).create_new(true).mode(MODE).open(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Takes from others what they may do with the file, should somebody have given it to them.
fn keep_private(path: &Utf8Path) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(MODE))
}

/// Returns the file's schema version, 0 for an empty file.
pub(super) fn recognise(db: &Connection, path: &Utf8Path) -> Result<i64, LedgerError> {
    let (found, empty) = look(db).map_err(|source| failed("read the schema version", path, source))?;
    let path = path.to_owned();
    let known = VERSION;
    match found {
        0 if empty => Ok(0),
        1..=VERSION => Ok(found),
        _ if found > VERSION => Err(LedgerError::Newer { path, found, known }),
        _ => Err(LedgerError::NotALedger { path }),
    }
}

/// The schema version, and whether the file has no table. Seen at one moment: another process may be writing
/// both.
fn look(db: &Connection) -> rusqlite::Result<(i64, bool)> {
    let moment = db.unchecked_transaction()?;
    let version = moment.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok((version, is_empty(&moment)?))
}

fn is_empty(db: &Connection) -> rusqlite::Result<bool> {
    let ask = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)";
    db.query_row(ask, [], |row| row.get(0))
}

/// Writes the schema into an empty file, or makes an older one this version's. IMMEDIATE, and looked at again inside:
/// another process may have been quicker.
fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if is_empty(&tx)? {
        tx.execute_batch(SCHEMA)?;
    } else if found >= VERSION {
        return Ok(());
    } else {
        let done = usize::try_from(found - 1).unwrap_or_default();
        for migration in MIGRATIONS.iter().skip(done) {
            tx.execute_batch(migration)?;
        }
    }
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()
}

fn configure(db: &Connection, path: &Utf8Path) -> Result<(), LedgerError> {
    let told = |source| failed("configure the connection", path, source);
    let mode = start_log(db).map_err(told)?;
    if mode != "wal" {
        let path = path.to_owned();
        return Err(LedgerError::NoWal { path, mode });
    }
    // A crash of our processes loses nothing. After a power cut the last commits may be missing, never half
    // there; recovery covers that, because workspaces the ledger does not know are swept. In return a
    // transaction costs no fsync (sqlite.org/pragma.html#pragma_synchronous).
    db.pragma_update(None, "synchronous", "normal").map_err(told)?;
    // The dispatcher may write nowhere else.
    db.pragma_update(None, "temp_store", "memory").map_err(told)?;
    db.pragma_update(None, "foreign_keys", true).map_err(told)
}

/// Switches to write-ahead logging, which the file remembers, and returns the journal mode it then has.
fn start_log(db: &Connection) -> rusqlite::Result<String> {
    let until = Instant::now() + BUSY_TIMEOUT;
    loop {
        match db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)) {
            // For this switch alone SQLite does not wait for others that open the file just now.
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < until => {
                std::thread::sleep(BUSY_PAUSE);
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ledger, Listing};
    use super::*;
    use crate::vm::Isolation;
    use camino::Utf8PathBuf;
    use std::sync::Barrier;

    /// A ledger as version 1 wrote it: `sqlite3 ledger.db .dump`, and its `user_version`.
    const V1: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/ledger-v1.sql"
    ));

    /// As version 2 wrote it.
    const V2: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/ledger-v2.sql"
    ));

    /// As version 3 wrote it.
    const V3: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/ledger-v3.sql"
    ));

    /// As version 4 wrote it.
    const V4: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/ledger-v4.sql"
    ));

    /// As version 5 wrote it.
    const V5: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/ledger-v5.sql"
    ));

    /// As version 6 wrote it.
    const V6: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/ledger-v6.sql"
    ));

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("ledger.db");
        (folder, path)
    }

    fn mode(path: &str) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_ledger_and_its_log_are_private_even_if_the_file_was_not() {
        let (_folder, path) = folder();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let open = Ledger::open(&path).unwrap();
        // SQLite makes the log with the first write.
        open.lift_quarantine(1).unwrap();
        for file in [path.to_string(), format!("{path}-wal"), format!("{path}-shm")] {
            assert_eq!(mode(&file), 0o600, "{file}");
        }
        let (_folder, path) = folder();
        let _open = Ledger::open(&path).unwrap();
        assert_eq!(mode(path.as_str()), 0o600);
    }

    #[test]
    fn the_connection_is_set_up_as_the_comments_claim() {
        let (_folder, path) = folder();
        let db = open(&path).unwrap();
        let asked = |pragma: &str| -> i64 {
            db.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
                .unwrap()
        };
        // 1 is NORMAL.
        assert_eq!(asked("synchronous"), 1);
        assert_eq!(asked("foreign_keys"), 1);
        assert_eq!(asked("busy_timeout"), 5000);
        assert_eq!(asked("user_version"), VERSION);
    }

    #[test]
    fn a_schema_from_the_future_is_refused_and_left_alone() {
        let (_folder, path) = folder();
        let later = Connection::open(&path).unwrap();
        later
            .execute_batch("CREATE TABLE job (x); PRAGMA user_version = 7")
            .unwrap();
        drop(later);
        let before = fs::read(&path).unwrap();
        let refused = Ledger::open(&path).unwrap_err();
        assert!(
            matches!(
                refused,
                LedgerError::Newer {
                    found: 7,
                    known: 6,
                    ..
                }
            ),
            "{refused}"
        );
        assert!(refused.to_string().contains("\nhint: use the newer ephemerd"));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_database_of_something_else_is_refused_and_left_alone() {
        let (_folder, path) = folder();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE cookies (x)").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let refused = Ledger::open(&path).unwrap_err();
        assert!(matches!(refused, LedgerError::NotALedger { .. }), "{refused}");
        assert_eq!(mode(path.as_str()), 0o640);
    }

    #[test]
    fn a_file_that_is_no_database_is_named_as_damaged() {
        let (_folder, path) = folder();
        fs::write(
            &path,
            "certainly not a database, but long enough to be read as one. ".repeat(99),
        )
        .unwrap();
        let refused = Ledger::open(&path).unwrap_err();
        assert!(matches!(refused, LedgerError::Corrupt { .. }), "{refused}");
        let text = refused.to_string();
        assert!(
            text.contains(path.as_str()) && text.contains("\nhint: move it away"),
            "{text}"
        );
    }

    #[test]
    fn a_damage_inside_is_found_before_anything_is_read_and_named_as_damage() {
        let (_folder, path) = folder();
        drop(Ledger::open(&path).unwrap());
        // The first page, with the version, stays; the tables behind it do not.
        let mut bytes = fs::read(&path).unwrap();
        bytes[4096..].fill(0xff);
        fs::write(&path, bytes).unwrap();
        let refused = Ledger::open(&path).unwrap_err();
        assert!(matches!(refused, LedgerError::Corrupt { .. }), "{refused}");
    }

    #[test]
    fn a_folder_that_is_none_is_named() {
        let (_folder, path) = folder();
        fs::write(&path, "").unwrap();
        let below = path.join("ledger.db");
        let refused = Ledger::open(&below).unwrap_err();
        assert!(matches!(refused, LedgerError::Create { .. }), "{refused}");
        assert!(refused.to_string().contains(below.as_str()));
    }

    #[test]
    fn many_may_open_a_new_ledger_at_once() {
        let (_folder, path) = folder();
        let ready = Barrier::new(8);
        std::thread::scope(|scope| {
            let openers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        ready.wait();
                        Ledger::open(&path).map(drop)
                    })
                })
                .collect();
            for opener in openers {
                opener.join().unwrap().unwrap();
            }
        });
    }

    /// Every table and index with the text that made it, without comments and layout.
    fn shape(db: &Connection) -> Vec<String> {
        let mut asked = db
            .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
            .unwrap();
        let rows = asked.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let code = |line: &str| line.split("--").next().unwrap_or_default().to_owned();
        rows.map(|sql| sql.unwrap().lines().map(code).collect::<String>())
            .map(|sql| sql.split_whitespace().collect())
            .collect()
    }

    #[test]
    fn the_schema_is_still_the_one_of_its_version() {
        let (_folder, path) = folder();
        let written = Connection::open_in_memory().unwrap();
        written.execute_batch(V6).unwrap();
        assert_eq!(shape(&open(&path).unwrap()), shape(&written));
    }

    #[test]
    fn an_older_ledger_becomes_one_of_this_version_and_keeps_what_it_knows() {
        let written = Connection::open_in_memory().unwrap();
        written.execute_batch(V6).unwrap();
        for (number, old) in [V1, V2, V3, V4, V5].into_iter().enumerate() {
            let (_folder, path) = folder();
            Connection::open(&path).unwrap().execute_batch(old).unwrap();
            let db = open(&path).unwrap();
            assert_eq!(shape(&db), shape(&written), "version {}", number + 1);
            let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
            assert_eq!(version, VERSION);
            drop(db);
            let jobs = Ledger::open(&path).unwrap().jobs(Listing::Newest(10)).unwrap();
            assert!(jobs.len() >= 3, "{jobs:?}");
        }
    }

    #[test]
    fn what_egress_came_to_is_read_back() {
        let (_folder, path) = folder();
        Connection::open(&path).unwrap().execute_batch(V2).unwrap();
        let jobs = Ledger::open(&path).unwrap().jobs(Listing::Newest(10)).unwrap();
        let told: Vec<String> = jobs
            .iter()
            .filter_map(|job| Some(job.egress.as_ref()?.blocked.to_string()))
            .collect();
        assert_eq!(told, ["3 packets: 10.0.0.5:22/tcp ×3"]);
    }

    #[test]
    fn how_a_job_ended_that_was_still_scrubbed_is_read_back() {
        let (_folder, path) = folder();
        Connection::open(&path).unwrap().execute_batch(V6).unwrap();
        let unfinished = Ledger::open(&path).unwrap().unfinished().unwrap();
        let endings = unfinished.into_iter().filter_map(|job| job.ending);
        let endings: Vec<_> = endings.collect();
        assert_eq!(endings, [crate::job::Outcome::Exited { code: 4 }]);
    }

    #[test]
    fn what_fence_a_job_had_is_read_back() {
        let (_folder, path) = folder();
        Connection::open(&path).unwrap().execute_batch(V5).unwrap();
        let jobs = Ledger::open(&path).unwrap().jobs(Listing::Newest(10)).unwrap();
        let told: Vec<_> = jobs
            .iter()
            .map(|job| (job.isolation, job.backend.as_deref()))
            .collect();
        let native = (Some(Isolation::Sandbox), None);
        assert_eq!(
            told,
            [(Some(Isolation::Vm), Some("qemu")), native, (None, None), native]
        );
    }

    #[test]
    fn what_jobs_are_at_github_is_read_back() {
        let (_folder, path) = folder();
        Connection::open(&path).unwrap().execute_batch(V3).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        let jobs = ledger.jobs(Listing::Newest(10)).unwrap();
        let told: Vec<String> = jobs
            .iter()
            .map(|job| serde_json::to_string(&job.github).unwrap())
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        {"ticket":{"repo":"acme/ios","run":78,"attempt":2,"job":31,"name":"build","url":"https://github.com/acme/ios/actions/runs/78/job/31"},"runner":{"scope":{"org":"acme"},"name":"eph-3f9a-mubbsc4w08f"}}
        null
        {"ticket":{"repo":"acme/ios","run":77,"attempt":1,"job":29,"name":"build","url":"https://github.com/acme/ios/actions/runs/77/job/29"},"runner":{"scope":{"repo":"acme/ios"},"name":"eph-3f9a-mubbs7i802t"},"runner_id":23,"taken":{"repo":"acme/ios","run":77,"attempt":1,"job":30,"name":"test","pull":7,"url":"https://github.com/acme/ios/actions/runs/77/job/30"}}
        "#);
        insta::assert_debug_snapshot!(ledger.registrations().unwrap(), @r#"
        [
            Registered {
                job: JobId(
                    "mubbsc4w08f",
                ),
                runner: Runner {
                    scope: Org(
                        "acme",
                    ),
                    name: "eph-3f9a-mubbsc4w08f",
                },
                id: None,
                finished: false,
            },
        ]
        "#);
    }

    #[test]
    fn a_ledger_of_version_1_opens_and_can_be_read() {
        let (_folder, path) = folder();
        Connection::open(&path).unwrap().execute_batch(V1).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        let mut told = Vec::new();
        for row in ledger.jobs(Listing::Newest(10)).unwrap() {
            told.push(serde_json::to_string(&row).unwrap());
        }
        let open = ledger.unfinished().unwrap();
        for to in ledger.transitions(&open[0].id).unwrap() {
            told.push(serde_json::to_string(&to).unwrap());
        }
        for slot in ledger.quarantined().unwrap() {
            told.push(serde_json::to_string(&slot).unwrap());
        }
        insta::assert_snapshot!(told.join("\n"), @r##"
        {"id":"mubbsc4w08f","repo":"acme/ios","event":"push","route":"native","reason":"acme/* is native","command":["make","a b"],"state":"stopping","slot":2,"account":"_ephemerd2","outcome":null,"clean":null,"axes":null,"memory_peak_byte":null,"output_byte":null,"queued_ms":1790000006000,"claimed_ms":1790000006001,"started_ms":1790000006014,"exited_ms":null,"finished_ms":null}
        {"id":"mubbsbd405m","repo":"acme/ios","event":"push","route":"refuse","reason":"a fork","command":["make","a b"],"state":"done","slot":null,"account":null,"outcome":{"outcome":"refused","reason":"a fork"},"clean":true,"axes":{},"memory_peak_byte":null,"output_byte":0,"queued_ms":1790000005000,"claimed_ms":null,"started_ms":null,"exited_ms":null,"finished_ms":1790000005000}
        {"id":"mubbs7i802t","repo":"acme/ios","event":"push","route":"native","reason":"acme/* is native","command":["make","a b"],"state":"done","slot":2,"account":"_ephemerd2","outcome":{"outcome":"exited","code":0},"clean":true,"axes":{"network":"enforced"},"memory_peak_byte":8589934592,"output_byte":12,"queued_ms":1790000000000,"claimed_ms":1790000000003,"started_ms":1790000000014,"exited_ms":1790000002014,"finished_ms":1790000002021}
        {"at_ms":1790000006000,"state":"queued","reason":"acme/* is native"}
        {"at_ms":1790000006001,"state":"preparing","reason":null}
        {"at_ms":1790000006009,"state":"launching","reason":null}
        {"at_ms":1790000006014,"state":"running","reason":null}
        {"at_ms":1790000007014,"state":"stopping","reason":"cancelled"}
        {"slot":1,"reason":"process 42 of uid 701 is still there","since_ms":1790000004000}
        "##);
        insta::assert_debug_snapshot!(open, @r##"
        [
            Unfinished {
                id: JobId(
                    "mubbsc4w08f",
                ),
                state: "stopping",
                slot: Some(
                    Slot {
                        index: 2,
                        account: Account {
                            name: "_ephemerd2",
                            uid: 702,
                            gid: 700,
                        },
                        first_port: 20100,
                        last_port: 20199,
                    },
                ),
                ending: None,
                open: [
                    (
                        AcquisitionId(
                            4,
                        ),
                        Processes {
                            uid: 702,
                            exclusive: true,
                        },
                    ),
                    (
                        AcquisitionId(
                            3,
                        ),
                        Workspace,
                    ),
                ],
            },
        ]
        "##);
    }
}
