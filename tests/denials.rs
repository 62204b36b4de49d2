//! `ephemerd profile denials` against a stand-in for log(1): from the command that asks to what people read.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant, UNIX_EPOCH};

use camino::Utf8PathBuf;
use ephemerd::cli::Format;
use ephemerd::cli::denials::{DenialsArgs, of_job, run};
use ephemerd::config::{Config, load_or_default};
use ephemerd::host::{Host, MacTools, Os};
use ephemerd::job::ledger::JobRow;
use ephemerd::profile::denials::{DenialsError, Query, ask};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/denials");

struct Stand {
    top: Utf8PathBuf,
    host: Host,
    config: Config,
    _keep: tempfile::TempDir,
}

impl Stand {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
        let fake = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fakes/log");
        symlink(fake, top.join("log")).unwrap();
        fs::copy(format!("{FIXTURES}/rows.ndjson"), top.join("rows")).unwrap();
        let system = Host::system();
        let host = Host {
            os: Os::MacOs,
            mac: MacTools {
                log: top.join("log"),
                ..system.mac
            },
            ..system
        };
        let file = top.join("ephemerd.toml");
        fs::write(
            &file,
            "[host]\ndata_dir = \"/private/var/lib/ephemerd\"\n[egress]\nmode = \"offline\"\n",
        )
        .unwrap();
        Self {
            config: load_or_default(Some(&file), Os::MacOs).unwrap().config,
            top,
            host,
            _keep: keep,
        }
    }

    fn told(&self, job: Option<&str>, limit: usize, format: Format) -> String {
        let args = DenialsArgs {
            job: job.map(|job| job.parse().unwrap()),
            last: Duration::from_mins(10),
            limit,
            format,
        };
        let mut out = Vec::new();
        run(
            &args,
            &self.config,
            "/etc/ephemerd/ephemerd.toml".into(),
            &self.host,
            &mut out,
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    fn ask(&self) -> Result<ephemerd::profile::denials::parse::Reading, DenialsError> {
        let query = Query {
            job: None,
            last: Duration::from_mins(1),
            deadline: Duration::from_secs(5),
        };
        ask(&self.host, &query)
    }
}

#[test]
fn tells_what_a_job_was_denied_and_what_would_allow_it() {
    insta::assert_snapshot!(Stand::new().told(Some("mwt2vlf2ewj"), 32, Format::Text));
}

#[test]
fn without_a_job_every_job_is_told_under_its_own_name() {
    let told = Stand::new().told(None, 32, Format::Text);
    let jobs: Vec<&str> = told.lines().filter(|line| line.starts_with("job ")).collect();
    assert_eq!(jobs, ["job mwt2vlf2ewj", "job mwt2vlf2ewk"]);
}

#[test]
fn a_tag_inside_a_path_is_nobodys() {
    let stand = Stand::new();
    let told: serde_json::Value =
        serde_json::from_str(&stand.told(Some("mwt2vlf2ewk"), 32, Format::Json)).unwrap();
    let denials = told["denials"].as_array().unwrap();
    assert_eq!(denials.len(), 1, "{told}");
    assert_eq!(denials[0]["op"], "mach-lookup");
    let told: serde_json::Value =
        serde_json::from_str(&stand.told(Some("mwt2vlf2ewj"), 32, Format::Json)).unwrap();
    assert_eq!(told["rest"]["of_others"], 1);
    assert_eq!(told["rest"]["no_row"], 1, "the banner");
    assert_eq!(told["complete"], true);
}

#[test]
fn asks_with_the_predicate_of_the_job_and_a_little_more_time() {
    let stand = Stand::new();
    stand.told(Some("mwt2vlf2ewj"), 32, Format::Text);
    let args = fs::read_to_string(stand.top.join("args")).unwrap();
    insta::assert_snapshot!(args, @r#"
    show
    --style
    ndjson
    --last
    602s
    --predicate
    process == "kernel" AND eventMessage CONTAINS "ephemerd:mwt2vlf2ewj"
    "#);
}

/// A job that had slot 1 from a moment on.
fn job_of(ms: u64) -> JobRow {
    serde_json::from_value(serde_json::json!({
        "id": "mwt2vlf2ewj", "repo": "acme/app", "event": "push", "route": "native", "reason": "", "command": ["true"],
        "state": "done", "slot": 1, "queued_ms": ms, "claimed_ms": ms,
    }))
    .unwrap()
}

#[test]
fn the_story_of_a_job_has_its_denials_while_they_are_quickly_found() {
    let stand = Stand::new();
    let told = |job: &JobRow, host: &Host| {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let config = (&stand.config, "/etc/ephemerd/ephemerd.toml".into());
        of_job(job, config, host, now)
    };
    let recent = told(&job_of(999_900_000), &stand.host);
    assert!(recent.starts_with("denials\n  job mwt2vlf2ewj\n"), "{recent}");
    assert!(recent.contains("allow it with extra_read"), "{recent}");
    let args = fs::read_to_string(stand.top.join("args")).unwrap();
    assert!(args.contains("162s"), "{args}");
    let old = told(&job_of(0), &stand.host);
    assert!(
        old.contains("`ephemerd profile denials --job mwt2vlf2ewj --last 1000060s`"),
        "{old}"
    );
    let refused = JobRow {
        slot: None,
        claimed_ms: None,
        ..job_of(999_900_000)
    };
    assert_eq!(told(&refused, &stand.host), "");
    let linux = Host {
        os: Os::Linux,
        ..stand.host.clone()
    };
    assert!(told(&job_of(999_900_000), &linux).contains("Linux keeps no record"));
}

#[test]
fn shows_no_more_than_asked_for_and_says_so() {
    let told = Stand::new().told(Some("mwt2vlf2ewj"), 2, Format::Text);
    assert_eq!(told.matches(" x  ").count(), 2, "{told}");
    assert!(told.contains("8 more are not shown"), "{told}");
}

#[test]
fn ten_megabytes_are_read_in_part_and_the_answer_says_so() {
    let stand = Stand::new();
    let mut rows = String::new();
    for number in 0..60_000 {
        let row = r#"{"processID":0,"eventMessage":"Sandbox: sh(1) deny(1) file-read-data /opt/a/NUMBER\nephemerd:mwt2vlf2ewj","messageType":"Error","threadID":100,"userID":0}"#;
        writeln!(rows, "{}", row.replace("NUMBER", &format!("{number:032}"))).unwrap();
    }
    assert!(rows.len() > 10_000_000);
    fs::write(stand.top.join("raw"), rows).unwrap();
    let reading = stand.ask().unwrap();
    assert!((1_000..10_000).contains(&reading.records.len()));
    assert_eq!(reading.rest.no_row, 1, "the row that was cut");
    assert!(!reading.complete);
    let told = stand.told(None, 3, Format::Text);
    assert!(told.contains("the log's answer has no end"), "{told}");
}

#[test]
fn garbage_is_counted_and_never_a_denial() {
    let stand = Stand::new();
    let deep = "[".repeat(100_000);
    let junk: [&[u8]; 6] = [
        b"\xff\xfe\x00",
        b"{\"eventMessage\":\"\\ud800\"}",
        b"null",
        b"{\"eventMessage\":7}",
        deep.as_bytes(),
        b"{\"eventMessage\":\"Sandbox: sh(1) deny(1) file-read-data /a\\nephemerd:mwt2vlf2ewj",
    ];
    fs::write(stand.top.join("raw"), junk.join(&b'\n')).unwrap();
    let reading = stand.ask().unwrap();
    assert_eq!(reading.records, []);
    assert_eq!(reading.rest.no_row, 6);
    let told = stand.told(None, 3, Format::Text);
    assert!(told.starts_with("no denial of a job is in the log\n"), "{told}");
}

#[test]
fn says_why_the_log_cannot_be_read() {
    let stand = Stand::new();
    fs::write(stand.top.join("sandboxed"), "").unwrap();
    let error = stand.ask().unwrap_err();
    assert!(matches!(error, DenialsError::Sandboxed(_)), "{error}");

    let stand = Stand::new();
    fs::write(
        stand.top.join("says"),
        "log: Must be admin to run 'show' command\n",
    )
    .unwrap();
    let error = stand.ask().unwrap_err();
    assert!(matches!(error, DenialsError::NotPermitted(_)), "{error}");

    fs::write(stand.top.join("says"), "log: The log store is damaged\n").unwrap();
    let error = stand.ask().unwrap_err();
    assert!(matches!(error, DenialsError::Failed(_)), "{error}");

    fs::remove_file(stand.top.join("log")).unwrap();
    assert!(matches!(stand.ask(), Err(DenialsError::Failed(_))));
}

#[test]
fn a_log_that_hangs_is_given_up() {
    let stand = Stand::new();
    fs::write(stand.top.join("hangs"), "").unwrap();
    let query = Query {
        job: None,
        last: Duration::from_mins(1),
        deadline: Duration::from_millis(300),
    };
    let began = Instant::now();
    let error = ask(&stand.host, &query).unwrap_err();
    assert!(matches!(error, DenialsError::Slow(_)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn on_linux_it_says_what_there_is_instead() {
    let mut stand = Stand::new();
    stand.host.os = Os::Linux;
    let told = stand.told(None, 32, Format::Text);
    assert!(told.starts_with("Linux keeps no record"), "{told}");
    assert!(!stand.top.join("args").exists(), "nothing was asked");
    let told: serde_json::Value = serde_json::from_str(&stand.told(None, 32, Format::Json)).unwrap();
    assert!(told["unavailable"].as_str().unwrap().contains("auditd"));
}
