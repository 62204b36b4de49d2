//! What is wrong with this host, if anything: pure judgements of what was seen, for `ephemerd doctor`.
//!
//! What another command already judges (`provision --check`, `egress status`, `profile verify`, `github check`, `vm check`) is
//! asked of that command, so that there are no two opinions. The rest is judged here.

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::{Config, Floors};
use crate::control::{SlotNow, StatusReport};
use crate::daemon::reload::FailedReload;
use crate::finding::{self, Finding, Level};
use crate::host::Free;
use crate::job::JobId;
use crate::job::ledger::Health;
use crate::job::run::pressure;
use crate::sandbox::Axis;
use crate::sandbox::axes::{AxisReport, Standing};

/// Findings about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// What about.
    pub name: &'static str,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// How the daemon answered.
#[derive(Debug)]
pub enum DaemonSeen {
    /// It did.
    Answers(Box<StatusReport>),
    /// It did not; why, with a hint.
    Silent(String),
}

/// How a command of this program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; `None` when it was ended from outside or could not be started.
    pub code: Option<i32>,
    /// What it printed, to standard error first.
    pub said: String,
}

/// Most lines of another command, and most names of jobs, that are shown.
const SHOWN: usize = 3;

/// Each axis, as this host enforces it under `config`; without root some are less than they would be for the daemon.
pub fn axes(reports: &[AxisReport], config: &Config, is_root: bool) -> Vec<Finding> {
    let judged = |report: &AxisReport| {
        let AxisReport {
            axis,
            standing,
            why,
            hint,
        } = report;
        let is_allowed = config.native.allow_degraded.contains(axis);
        let level = match (standing, is_allowed) {
            (Standing::Enforced, _) => Level::Ok,
            (Standing::Degraded | Standing::Absent, true) => Level::Warn,
            (Standing::Degraded | Standing::Absent, false) if is_root => Level::Fail,
            (Standing::Degraded | Standing::Absent, false) => Level::Unknown,
        };
        let standing = match standing {
            Standing::Enforced => "enforced",
            Standing::Degraded => "degraded",
            Standing::Absent => "absent",
        };
        let found = Finding::of_error(level, axis.to_string(), &format!("{standing}: {why}"));
        let found = match hint {
            Some(hint) => found.hint(hint.clone()),
            None => found,
        };
        match (level, axis) {
            (Level::Fail, Axis::Accounts) => found.fix(&["host", "setup"]),
            _ => found,
        }
    };
    reports.iter().map(judged).collect()
}

/// What is free, beside what this host keeps.
pub fn room(free: Free, floors: Floors) -> Finding {
    let found = format!(
        "{} MiB of disk and {} MiB of memory are free",
        free.disk_byte >> 20,
        free.memory_byte
            .map_or("an unknown number of".to_owned(), |byte| (byte >> 20).to_string())
    );
    let twice = Floors {
        disk_byte: floors.disk_byte.saturating_mul(2),
        memory_byte: floors.memory_byte.saturating_mul(2),
    };
    if let Some(why) = pressure::why_full(free, floors) {
        Finding::of_error(Level::Fail, "room", &why)
            .hint("`ephemerd prune` removes old logs and kept workspaces; `du` tells the rest")
    } else if pressure::why_full(free, twice).is_some() {
        let found = format!("{found}, and no job starts below half of one of them");
        Finding::new(Level::Warn, "room", found)
    } else {
        Finding::new(Level::Ok, "room", found)
    }
}

/// How the daemon is.
pub fn daemon(seen: &DaemonSeen, version: &str) -> Vec<Finding> {
    let status = match seen {
        DaemonSeen::Silent(why) => return vec![Finding::of_error(Level::Warn, "daemon", why)],
        DaemonSeen::Answers(status) => status,
    };
    let mut found = vec![Finding::new(
        Level::Ok,
        "daemon",
        format!("version {}, pid {}", status.version, status.pid),
    )];
    if status.version != version {
        found.push(
            Finding::new(
                Level::Warn,
                "version",
                format!("the daemon is {}, this command {version}", status.version),
            )
            .hint("restart the daemon"),
        );
    }
    if status.draining {
        let drained = Finding::new(Level::Warn, "drain", "no job is started: the daemon is drained");
        found.push(drained.fix(&["resume"]));
    }
    if let Some(why) = &status.shut {
        let shut = Finding::of_error(Level::Fail, "gate", why);
        found.push(if why.contains("not enabled") {
            shut.fix(&["host", "enable"])
        } else {
            shut
        });
    }
    if let Some(why) = &status.full {
        found.push(Finding::of_error(Level::Fail, "room", why));
    }
    if let Some(FailedReload { why, .. }) = &status.config.failed {
        let kept = format!("not reloaded, the old one stays: {why}");
        found.push(Finding::of_error(Level::Warn, "configuration", &kept).fix(&["reload"]));
    }
    if !status.config.restart_needed.is_empty() {
        let keys = status.config.restart_needed.join(", ");
        found.push(Finding::new(
            Level::Warn,
            "restart",
            format!("new values wait for one: {keys}"),
        ));
    }
    for slot in &status.slots {
        if let SlotNow::Quarantined { reason } = &slot.now {
            let index = slot.index.to_string();
            let what = format!("slot {index}");
            let quarantined = Finding::of_error(Level::Fail, what, &format!("in quarantine: {reason}"));
            found.push(
                quarantined
                    .hint("end or remove what it names first")
                    .fix(&["resume", "--slot", &index]),
            );
        }
    }
    if let Some(github) = &status.github {
        for (name, why) in &github.failing {
            found.push(Finding::of_error(Level::Fail, name.clone(), why));
        }
        if let Some(notice) = &github.runner_notice {
            found.push(Finding::of_error(Level::Warn, "runner", notice));
        }
        if let Some(ahead_s) = github.clock_ahead_s {
            let wrong = format!("{ahead_s} s ahead of GitHub's");
            found.push(
                Finding::new(Level::Fail, "clock", wrong).hint("set the clock: GitHub refuses its tokens"),
            );
        }
    }
    for kind in status.vm.iter().flat_map(|vm| &vm.kinds) {
        let what = format!("guests with {}", kind.guest);
        if let Some(why) = &kind.blocked {
            found.push(Finding::of_error(Level::Warn, what.clone(), why));
        }
        for lost in &kind.lost {
            let lost = format!("not removed, its permit is held: {lost}");
            found.push(
                Finding::new(Level::Fail, what.clone(), lost).hint("remove it, then restart the daemon"),
            );
        }
    }
    found
}

/// How the ledger is; slots in quarantine where no daemon tells of them.
pub fn ledger(health: &Health, is_daemon_there: bool) -> Vec<Finding> {
    let Health {
        size_byte,
        problems,
        quarantined,
        unfinished,
    } = health;
    let mut found = match problems.split_first() {
        None => vec![Finding::new(
            Level::Ok,
            "ledger",
            format!("sound, {} KiB", size_byte >> 10),
        )],
        Some((first, more)) => vec![
            Finding::new(
                Level::Fail,
                "ledger",
                format!("damaged: {first}, and {} more", more.len()),
            )
            .hint("stop the daemon and move `state/ledger.db` and its `-wal` away: workspaces are swept at the next start"),
        ],
    };
    if is_daemon_there {
        return found;
    }
    for slot in quarantined {
        let what = format!("slot {}", slot.slot);
        let why = format!("in quarantine: {}", slot.reason);
        found.push(
            Finding::new(Level::Fail, what, why).hint("start the daemon, then `ephemerd resume --slot`"),
        );
    }
    if !unfinished.is_empty() {
        found.push(
            Finding::new(
                Level::Warn,
                "unfinished",
                format!(
                    "{} of a daemon that ended: {}",
                    jobs(unfinished.len()),
                    names(unfinished)
                ),
            )
            .hint("the next start of the daemon undoes what they held"),
        );
    }
    found
}

fn jobs(count: usize) -> String {
    match count {
        1 => "1 job".to_owned(),
        _ => format!("{count} jobs"),
    }
}

fn names(jobs: &[JobId]) -> String {
    let names: Vec<&str> = jobs.iter().take(SHOWN).map(JobId::as_str).collect();
    names.join(", ")
}

/// What jobs have left: folders of jobs that are over, and processes of slots in which nothing runs.
pub fn leftovers(folders: &[JobId], processes: &[(String, Vec<i32>)]) -> Vec<Finding> {
    let mut found = Vec::new();
    if !folders.is_empty() {
        found.push(
            Finding::new(
                Level::Fail,
                "workspaces",
                format!("of {} that are over: {}", jobs(folders.len()), names(folders)),
            )
            .hint("the next start of the daemon removes them"),
        );
    }
    for (account, pids) in processes {
        found.push(
            Finding::new(
                Level::Fail,
                account.clone(),
                format!("has processes although no job runs there: {pids:?}"),
            )
            .hint("nobody but jobs should run as it; the next start of the daemon ends what is of a job"),
        );
    }
    if found.is_empty() {
        found.push(Finding::new(Level::Ok, "leftovers", "none"));
    }
    found
}

/// Ports of slots that somebody listens on although no job runs there.
pub fn ports(taken: &[(u32, u16)]) -> Finding {
    match taken {
        [] => Finding::new(Level::Ok, "ports", "those of free slots are free"),
        [(slot, port), ..] => Finding::new(
            Level::Warn,
            "ports",
            format!(
                "{} of free slots are taken, the first is {port} of slot {slot}",
                taken.len()
            ),
        )
        .hint("`native.first_port` moves the ranges"),
    }
}

/// Whether the clock follows another; `None` where the system does not tell.
pub fn clock(is_set: Option<bool>) -> Option<Finding> {
    Some(match is_set? {
        true => Finding::new(Level::Ok, "clock", "follows a time server"),
        false => Finding::new(
            Level::Warn,
            "clock",
            "the kernel does not know that it follows a time server",
        )
        .hint("tokens for GitHub need it right to a minute: `timedatectl set-ntp true`, or chrony"),
    })
}

/// What another command of this program found.
pub fn of_command(what: &str, ran: &Ran) -> Finding {
    let said: Vec<&str> = ran.said.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = said
        .get(said.len().saturating_sub(SHOWN)..)
        .unwrap_or_default()
        .join("\n");
    match ran.code {
        Some(0) => Finding::new(Level::Ok, what, said.last().copied().unwrap_or("as it must be")),
        Some(3) => Finding::new(Level::Unknown, what, shown),
        Some(_) | None => {
            Finding::new(Level::Fail, what, shown).hint(format!("`ephemerd {what}` tells all of it"))
        }
    }
}

/// Everything that was found, in order.
pub fn all(sections: &[Section]) -> Vec<Finding> {
    sections
        .iter()
        .flat_map(|section| section.findings.clone())
        .collect()
}

/// For people: each section, then how it stands altogether.
pub fn text(sections: &[Section]) -> String {
    let mut text = String::new();
    for Section { name, findings } in sections {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}\n{}", finding::text(findings));
    }
    text + &verdict(&all(sections)) + "\n"
}

/// For an issue or a message to somebody: a table.
pub fn markdown(sections: &[Section]) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', "<br>");
    let mut text = format!(
        "**{}**\n\n| | | | |\n|---|---|---|---|\n",
        verdict(&all(sections))
    );
    for Section { name, findings } in sections {
        for one in findings {
            let hint = one
                .hint
                .as_deref()
                .map(|hint| format!("<br>hint: {}", cell(hint)));
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {}{} |",
                one.level,
                cell(&one.what),
                cell(&one.found),
                hint.unwrap_or_default()
            );
        }
    }
    text
}

fn verdict(found: &[Finding]) -> String {
    let count = |level| found.iter().filter(|one| one.level == level).count();
    let (fail, unknown, warn) = (count(Level::Fail), count(Level::Unknown), count(Level::Warn));
    match (fail, unknown, warn) {
        (0, 0, 0) => "nothing is wrong".to_owned(),
        (0, 0, warn) => format!("nothing is wrong, {warn} could be better"),
        (0, unknown, _) => format!("nothing is known to be wrong, {unknown} could not be looked at"),
        (fail, _, _) => format!("{fail} wrong"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn config(text: &str) -> Config {
        crate::config::parse(text, "t.toml").unwrap().config
    }

    fn report(axis: Axis, standing: Standing) -> AxisReport {
        AxisReport {
            axis,
            standing,
            why: "because".to_owned(),
            hint: Some("do this".to_owned()),
        }
    }

    fn levels(found: &[Finding]) -> Vec<Level> {
        found.iter().map(|one| one.level).collect()
    }

    #[test]
    fn an_axis_that_may_be_weak_by_configuration_is_no_failure() {
        let reports = [
            report(Axis::Filesystem, Standing::Enforced),
            report(Axis::Limits, Standing::Degraded),
            report(Axis::Accounts, Standing::Absent),
        ];
        let strict = axes(&reports, &config(""), true);
        assert_eq!(levels(&strict), [Level::Ok, Level::Fail, Level::Fail]);
        assert_eq!(
            strict[2].fix.as_deref(),
            Some(&["host".to_owned(), "setup".to_owned()][..])
        );
        let lax = config("[native]\nallow_degraded = [\"limits\"]\n");
        assert_eq!(levels(&axes(&reports, &lax, true))[1], Level::Warn);
        let as_nobody = axes(&reports, &config(""), false);
        assert_eq!(levels(&as_nobody), [Level::Ok, Level::Unknown, Level::Unknown]);
    }

    #[test]
    fn room_is_told_before_it_is_gone() {
        let floors = Floors {
            disk_byte: 100 << 20,
            memory_byte: 10 << 20,
        };
        let level = |disk: u64, memory: u64| {
            let free = Free {
                disk_byte: disk << 20,
                memory_byte: Some(memory << 20),
            };
            room(free, floors).level
        };
        assert_eq!(level(200, 20), Level::Ok);
        assert_eq!(level(199, 20), Level::Warn);
        assert_eq!(level(99, 20), Level::Fail);
        assert_eq!(level(200, 9), Level::Fail);
    }

    fn status() -> StatusReport {
        serde_json::from_value(serde_json::json!({
            "version": "1.0.0", "pid": 7, "data_dir": "/data", "draining": true, "queued": [], "axes": [],
            "shut": "this host is not enabled\nhint: `ephemerd host enable`", "full": null,
            "config": {"read_ms": 1, "failed": {"at_ms": 2, "why": "e.toml:1:1: unknown key"}, "restart_needed": ["native.slots"]},
            "slots": [
                {"index": 1, "account": "_ephemerd1", "state": "free"},
                {"index": 2, "account": "_ephemerd2", "state": "quarantined", "reason": "a process"},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn what_keeps_a_daemon_from_running_jobs_has_the_command_that_helps() {
        let found = daemon(&DaemonSeen::Answers(Box::new(status())), "1.0.1");
        insta::assert_snapshot!(finding::text(&found), @r"
        ok       daemon: version 1.0.0, pid 7
        warn     version: the daemon is 1.0.0, this command 1.0.1
                 hint: restart the daemon
        warn     drain: no job is started: the daemon is drained
                 fix: ephemerd resume
        fail     gate: this host is not enabled
                 hint: `ephemerd host enable`
                 fix: ephemerd host enable
        warn     configuration: not reloaded, the old one stays: e.toml:1:1: unknown key
                 fix: ephemerd reload
        warn     restart: new values wait for one: native.slots
        fail     slot 2: in quarantine: a process
                 hint: end or remove what it names first
                 fix: ephemerd resume --slot 2
        ");
        let silent = daemon(&DaemonSeen::Silent("nobody\nhint: start it".to_owned()), "1");
        assert_eq!(levels(&silent), [Level::Warn]);
    }

    #[test]
    fn what_a_daemon_left_is_told_where_none_runs() {
        let health = Health {
            size_byte: 4096,
            problems: vec!["row 1 missing".to_owned()],
            quarantined: vec![],
            unfinished: vec![JobId::new(UNIX_EPOCH, 1)],
        };
        assert_eq!(levels(&ledger(&health, false)), [Level::Fail, Level::Warn]);
        assert_eq!(levels(&ledger(&health, true)), [Level::Fail]);
        assert_eq!(levels(&leftovers(&[], &[])), [Level::Ok]);
        let left = leftovers(
            &[JobId::new(UNIX_EPOCH, 1)],
            &[("_ephemerd1".to_owned(), vec![4])],
        );
        assert_eq!(levels(&left), [Level::Fail, Level::Fail]);
        assert_eq!(ports(&[(2, 21_100)]).level, Level::Warn);
        assert_eq!(clock(None), None);
    }

    #[test]
    fn another_command_is_believed() {
        let ran = |code, said: &str| Ran {
            code,
            said: said.to_owned(),
        };
        let level = |code| of_command("egress status", &ran(code, "a\nb\n")).level;
        assert_eq!(level(Some(0)), Level::Ok);
        assert_eq!(level(Some(1)), Level::Fail);
        assert_eq!(level(Some(3)), Level::Unknown);
        assert_eq!(level(None), Level::Fail);
        assert_eq!(of_command("x", &ran(Some(0), "a\nb\n\n")).found, "b");
    }

    #[test]
    fn a_report_for_an_issue_is_a_table_that_nothing_found_can_break() {
        let sections = [Section {
            name: "limits",
            findings: vec![Finding::new(Level::Fail, "a|b", "c\nd").hint("e|f")],
        }];
        insta::assert_snapshot!(markdown(&sections), @r"
        **1 wrong**

        | | | | |
        |---|---|---|---|
        | limits | fail | a\|b | c<br>d<br>hint: e\|f |
        ");
        insta::assert_snapshot!(text(&sections), @r"
        limits
        fail     a|b: c
                 d
                 hint: e|f

        1 wrong
        ");
    }
}
