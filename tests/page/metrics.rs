//! The metrics, as Prometheus' own tool reads them and as the documents name them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Output, Stdio};

use ephemerd::job::Outcome;
use ephemerd::metrics::{Now, Tally, render};
use ephemerd::page::Snapshot;
use ephemerd::trust::Route;

use crate::demo::busy_day;

const DOCS: &str = include_str!("../../docs/metrics.md");

/// Everything there is to tell of a busy day.
fn text() -> String {
    let snapshot = busy_day();
    let tally = Tally::default();
    for job in &snapshot.jobs {
        tally.decided(job.route);
        if job.outcome.is_some() {
            tally.ended(job);
        }
    }
    of(&tally, &snapshot)
}

fn of(tally: &Tally, snapshot: &Snapshot) -> String {
    let now = Now {
        status: &snapshot.status,
        oldest_wait_ms: Some(95_000),
        disk_free_byte: snapshot.disk.map(|disk| disk.free_byte),
    };
    render(tally, &now).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "Prometheus' own tool judges")]
fn promtool(args: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(args)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; scripts/test.sh installs it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Every metric with its type.
fn types(text: &str) -> BTreeMap<&str, &str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split_once(' ').unwrap()).collect()
}

/// The values of a series, by its whole name.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

#[test]
fn promtool_finds_nothing_to_say() {
    let checked = promtool(&["check", "metrics"], &text());
    assert!(checked.status.success(), "{checked:?}");
    assert!(
        checked.stdout.is_empty() && checked.stderr.is_empty(),
        "{checked:?}"
    );
    // The control: it does say something where there is something.
    let bad = promtool(&["check", "metrics"], "# TYPE jobs counter\njobs 1\n");
    assert!(!bad.status.success(), "{bad:?}");
}

#[test]
fn the_documents_list_every_metric_with_its_type_and_no_other() {
    let text = text();
    let rows = DOCS.lines().filter_map(|line| line.strip_prefix("| `ephemerd_"));
    let listed: BTreeSet<(String, &str, String)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split(" | ").collect();
            let name = cells[0].trim_end_matches('`');
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            (
                format!("ephemerd_{name}"),
                cells[1],
                labels.trim_end_matches('}').to_owned(),
            )
        })
        .collect();
    let shown: BTreeSet<(String, &str, String)> = types(&text)
        .into_iter()
        .map(|(name, kind)| (name.to_owned(), kind, labels(&text, name)))
        .collect();
    assert_eq!(listed, shown);
}

/// The labels of a metric but that of buckets.
fn labels(text: &str, name: &str) -> String {
    let sample = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = rest
            .strip_prefix("_bucket")
            .or_else(|| rest.strip_prefix("_count"))
            .unwrap_or(rest);
        rest.strip_prefix('{')?.split_once('}')
    });
    let names = sample.map_or("", |(inside, _)| inside).split(',');
    let names = names
        .filter_map(|label| label.split_once('='))
        .map(|(name, _)| name);
    names.filter(|name| *name != "le").collect::<Vec<_>>().join(",")
}

#[test]
fn no_label_names_what_strangers_choose() {
    let text = text();
    for chosen in ["acme", "stranger", "push", "pull_request"] {
        assert!(!text.contains(chosen), "{chosen}");
    }
}

#[test]
fn what_jobs_come_to_is_counted() {
    let snapshot = busy_day();
    let text = text();
    let ended = |route, succeeded: bool| {
        let jobs = snapshot.jobs.iter().filter(|job| job.route == route);
        let outcomes = jobs.filter_map(|job| job.outcome.as_ref());
        outcomes
            .filter(|outcome| outcome.is_success() == succeeded)
            .count()
    };
    let of = |series: &str| value(&text, series).unwrap_or_else(|| panic!("{series}\n{text}"));
    let whole = |count: usize| f64::from(u32::try_from(count).unwrap());
    assert_eq!(
        of("ephemerd_jobs_total{mode=\"native\",result=\"ok\"}"),
        whole(ended(Route::Native, true))
    );
    assert_eq!(of("ephemerd_jobs_total{mode=\"vm\",result=\"ok\"}"), 4.0);
    assert_eq!(
        of("ephemerd_jobs_total{mode=\"refuse\",result=\"refused\"}"),
        whole(ended(Route::Refuse, false))
    );
    assert_eq!(of("ephemerd_jobs_active{mode=\"native\"}"), 4.0);
    assert_eq!(of("ephemerd_jobs_active{mode=\"vm\"}"), 1.0);
    assert_eq!(
        of("ephemerd_jobs_queued{mode=\"native\"}"),
        whole(snapshot.status.queued.len())
    );
    assert_eq!(of("ephemerd_slots{state=\"busy\"}"), 4.0);
    assert_eq!(of("ephemerd_slots{state=\"quarantined\"}"), 0.0);
    assert_eq!(of("ephemerd_queue_oldest_seconds"), 95.0);
    assert_eq!(of("ephemerd_axis_enforced{axis=\"network\"}"), 1.0);
    assert_eq!(of("ephemerd_github_rate_remaining"), 4712.0);
    assert_eq!(of("ephemerd_scrub_seconds_count{mode=\"vm\"}"), 4.0);
    let scrubs = of("ephemerd_scrub_seconds_bucket{mode=\"native\",le=\"0.1\"}");
    assert_eq!(scrubs, of("ephemerd_scrub_seconds_count{mode=\"native\"}"));
}

#[test]
fn a_job_that_leaves_something_is_counted_as_that() {
    let (snapshot, tally) = (busy_day(), Tally::default());
    let series = "ephemerd_scrub_failures_total";
    assert_eq!(value(&of(&tally, &snapshot), series), Some(0.0));
    let mut job = snapshot
        .jobs
        .iter()
        .find(|job| job.outcome.is_some())
        .unwrap()
        .clone();
    job.clean = Some(false);
    job.outcome = Some(Outcome::Idle);
    tally.ended(&job);
    let text = of(&tally, &snapshot);
    assert_eq!(value(&text, series), Some(1.0));
    assert_eq!(
        value(&text, "ephemerd_jobs_total{mode=\"native\",result=\"idle\"}"),
        Some(1.0)
    );
}

#[test]
fn without_github_and_guests_nothing_is_said_of_them() {
    let mut snapshot = busy_day();
    snapshot.status.github = None;
    snapshot.status.vm = None;
    let text = of(&Tally::default(), &snapshot);
    assert!(!text.contains("github") && !text.contains("vm_guests"), "{text}");
}

#[test]
fn the_alerts_are_rules_and_fire_when_they_should() {
    for args in [
        &["check", "rules", "prometheus/alerts.yml"][..],
        &["test", "rules", "prometheus/alerts_test.yml"],
    ] {
        let checked = promtool(args, "");
        assert!(checked.status.success(), "{args:?} {checked:?}");
    }
}

/// Names of metrics in a text, with what histograms and counters add to them.
fn named(text: &str) -> BTreeSet<String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text
        .split(|letter| !is_name(letter))
        .filter(|word| word.starts_with("ephemerd_"));
    words.map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alerts_name_metrics_that_there_are() {
    let text = text();
    let types = types(&text);
    let exists = |name: &str| {
        let histogram = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        types.contains_key(name) || histogram.is_some_and(|name| types.get(name) == Some(&"histogram"))
    };
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples");
    for file in ["grafana/ephemerd.json", "prometheus/alerts.yml"] {
        let text = std::fs::read_to_string(format!("{root}/{file}")).unwrap();
        let names = named(&text);
        assert!(names.len() > 5, "{file}: {names:?}");
        for name in names {
            assert!(exists(&name), "{file}: {name}");
        }
    }
}

/// Every query of the dashboard as a rule, which is what `promtool` can judge.
#[test]
fn every_query_of_the_dashboard_is_one() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/grafana/ephemerd.json");
    let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(root).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 10, "{queries:?}");
    let rule = |(number, query): (usize, &&str)| {
        let query = query.replace("$__rate_interval", "5m").replace("$instance", "x");
        let expr = serde_json::to_string(&query).unwrap();
        format!("  - record: query:number{number}\n    expr: {expr}\n")
    };
    let rules: String = queries.iter().enumerate().map(rule).collect();
    let rules = format!("groups:\n- name: dashboard\n  rules:\n{rules}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    let checked = promtool(&["check", "rules", file.to_str().unwrap()], "");
    assert!(checked.status.success(), "{checked:?}");
}
