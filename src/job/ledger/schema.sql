-- Schema version 6. Any change here is a new version: a migration in open.rs and a fixture in tests/fixtures.
CREATE TABLE job (
    id               TEXT PRIMARY KEY NOT NULL,
    repo             TEXT NOT NULL,
    event            TEXT NOT NULL,
    route            TEXT NOT NULL,
    reason           TEXT NOT NULL,
    command          TEXT NOT NULL,             -- JSON, a list of strings
    state            TEXT NOT NULL,
    slot             TEXT,                      -- JSON, slot::Slot
    outcome          TEXT,                      -- JSON, job::Outcome
    clean            INTEGER,
    axes             TEXT CHECK (json_valid(axes)),
    memory_peak_byte INTEGER,
    output_byte      INTEGER,
    queued_ms        INTEGER NOT NULL,          -- all times: milliseconds since 1970
    claimed_ms       INTEGER,
    started_ms       INTEGER,
    exited_ms        INTEGER,
    finished_ms      INTEGER,
    egress           TEXT,                      -- JSON, egress::EgressReport
    isolation        TEXT,                      -- vm::Isolation, once it has its place
    backend          TEXT,                      -- the backend of its guest
    ending           TEXT                       -- JSON, job::Outcome: known before its scrub
) STRICT;
CREATE INDEX job_finished ON job (finished_ms);

CREATE TABLE transition (
    id     INTEGER PRIMARY KEY,                 -- counts up: the order of the transitions
    job    TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    at_ms  INTEGER NOT NULL,
    state  TEXT NOT NULL,
    reason TEXT
) STRICT;
CREATE INDEX transition_job ON transition (job);

CREATE TABLE acquisition (
    id          INTEGER PRIMARY KEY,            -- counts up: the order of acquiring
    job         TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    what        TEXT NOT NULL,                  -- JSON, job::Acquisition
    acquired_ms INTEGER NOT NULL,
    released_ms INTEGER
) STRICT;
CREATE INDEX acquisition_job ON acquisition (job);

CREATE TABLE quarantine (
    slot     INTEGER PRIMARY KEY NOT NULL,
    reason   TEXT NOT NULL,
    since_ms INTEGER NOT NULL
) STRICT;

-- What a job is at GitHub.
CREATE TABLE github (
    job       TEXT PRIMARY KEY NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    ticket    TEXT NOT NULL,                    -- JSON, github::ticket::Ticket: the job this one was made for
    runner    TEXT,                             -- JSON, github::ticket::Runner: written before it is made
    runner_id INTEGER,                          -- GitHub's number of it, once that is known
    taken     TEXT,                             -- JSON, github::ticket::Ticket: the job its runner was given
    gone_ms   INTEGER                           -- when GitHub had the runner no more
) STRICT;

-- Every job that GitHub shows is looked up by its number.
CREATE INDEX github_ticket ON github (json_extract(ticket, '$.job'));
