//! The text of pages, against whatever other people write.

use ephemerd::control::SlotNow;
use ephemerd::daemon::reload::FailedReload;
use ephemerd::github::ticket::AtGitHub;
use ephemerd::job::Outcome;
use ephemerd::page::Pages;
use proptest::prelude::*;

use crate::demo::{NOW_MS, busy_day, story};

/// Text that would break out of where it stands, if it could.
fn anything() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just("<script>".to_owned()),
        Just("</style>".to_owned()),
        Just("\" onmouseover=\"x".to_owned()),
        Just("' onload='x".to_owned()),
        Just("{{ 7 * 7 }}".to_owned()),
        Just("{% raw %}".to_owned()),
        Just("<!--".to_owned()),
        Just("&lt;".to_owned()),
        Just("\u{202e}".to_owned()),
        any::<String>(),
    ];
    proptest::collection::vec(pieces, 1..5).prop_map(|pieces| pieces.concat())
}

/// The names of tags and attributes of a page: what a browser would act on.
fn skeleton(page: &str) -> Vec<String> {
    let mut tags = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or((tag, ""));
        // Values stand in double quotes, and hold none.
        let outside: Vec<&str> = tag.split('"').step_by(2).collect();
        tags.push(outside.join("\"\""));
    }
    tags
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_jobs_are_called_the_tags_of_the_page_stay_the_same(
        event in anything(), reason in anything(), command in anything(), name in anything(), shut in anything(),
    ) {
        let pages = Pages::new().unwrap();
        let page = |[event, reason, command, name, shut]: [&str; 5]| {
            let mut snapshot = busy_day();
            let (queued, held) = (snapshot.status.queued[0].clone(), &mut snapshot.status.github.as_mut().unwrap().held[0]);
            name.clone_into(&mut held.ticket.name);
            name.clone_into(&mut held.why);
            snapshot.status.shut = Some(shut.to_owned());
            snapshot.status.slots[0].now = SlotNow::Quarantined { reason: reason.to_owned() };
            let waiting = snapshot.jobs.iter().position(|job| job.id == queued).unwrap();
            for place in [0, 30, waiting] {
                let job = &mut snapshot.jobs[place];
                event.clone_into(&mut job.event);
                reason.clone_into(&mut job.reason);
                job.command = vec![command.to_owned()];
            }
            snapshot.jobs[30].outcome = Some(Outcome::Failed { reason: reason.to_owned() });
            pages.overview(&snapshot).unwrap()
        };
        prop_assert_eq!(
            skeleton(&page([&event, &reason, &command, &name, &shut])),
            skeleton(&page(["a"; 5]))
        );
    }

    #[test]
    fn whatever_a_job_is_called_the_tags_of_its_story_stay_the_same(event in anything(), name in anything(), reason in anything()) {
        let pages = Pages::new().unwrap();
        let page = |event: &str, name: &str, reason: &str| {
            let mut story = story();
            event.clone_into(&mut story.job.event);
            let AtGitHub { ticket, .. } = story.job.github.as_mut().unwrap();
            name.clone_into(&mut ticket.name);
            ticket.url = format!("https://github.com/{name}");
            story.transitions[3].reason = Some(reason.to_owned());
            story.left = Some(reason.to_owned());
            pages.story(&story, NOW_MS).unwrap()
        };
        prop_assert_eq!(skeleton(&page(&event, &name, &reason)), skeleton(&page("a", "a", "a")));
    }
}

#[test]
fn a_page_of_a_job_at_github_is_a_link_only_where_it_is_one() {
    let linked = |url: &str| {
        let mut story = story();
        url.clone_into(&mut story.job.github.as_mut().unwrap().ticket.url);
        Pages::new()
            .unwrap()
            .story(&story, NOW_MS)
            .unwrap()
            .contains("rel=\"noreferrer")
    };
    assert!(linked("https://github.com/acme/api"));
    for url in [
        "javascript:alert(1)",
        "http://github.com/",
        "data:text/html,x",
        "",
    ] {
        assert!(!linked(url), "{url}");
    }
}

#[test]
fn commands_are_not_shown() {
    let mut snapshot = busy_day();
    let mut story = story();
    let secret = "--token=hunter2".to_owned();
    for job in &mut snapshot.jobs {
        job.command.push(secret.clone());
    }
    story.job.command.push(secret.clone());
    let pages = Pages::new().unwrap();
    assert!(!pages.overview(&snapshot).unwrap().contains(&secret));
    assert!(!pages.story(&story, NOW_MS).unwrap().contains(&secret));
}

#[test]
fn a_day_on_which_nothing_happened_is_told_as_well() {
    let mut snapshot = busy_day();
    snapshot.jobs.clear();
    snapshot.status.queued.clear();
    snapshot.status.github = None;
    snapshot.status.vm = None;
    snapshot.disk = None;
    for slot in &mut snapshot.status.slots {
        slot.now = SlotNow::Free;
    }
    let page = Pages::new().unwrap().overview(&snapshot).unwrap();
    assert!(page.contains("Nobody waits.") && page.contains("None in the last 24 hours."));
}

#[test]
fn a_reload_that_failed_is_told_without_what_stands_in_the_file_and_so_is_what_waits() {
    let mut snapshot = busy_day();
    let page = |snapshot: &ephemerd::page::Snapshot| Pages::new().unwrap().overview(snapshot).unwrap();
    assert!(!page(&snapshot).contains("not reloaded"));
    snapshot.status.config.failed = Some(FailedReload {
        at_ms: NOW_MS,
        why: "the configuration has an error\n/etc/e.toml:3:9: expected a value at `hunter2`".to_owned(),
    });
    snapshot.status.config.restart_needed = vec!["native.slots".to_owned(), "vm.linux".to_owned()];
    let page = page(&snapshot);
    assert!(
        page.contains("the configuration has an error; `ephemerd status`"),
        "{page}"
    );
    assert!(page.contains("<dd>native.slots, vm.linux</dd>"), "{page}");
    assert!(!page.contains("hunter2"));
}

#[test]
fn the_queue_says_why_it_waits() {
    let why = |change: &dyn Fn(&mut ephemerd::page::Snapshot)| {
        let mut snapshot = busy_day();
        change(&mut snapshot);
        let page = Pages::new().unwrap().overview(&snapshot).unwrap();
        let (_, queue) = page.split_once("id=\"queue\"").unwrap();
        queue.split_once("</table>").unwrap().0.to_owned()
    };
    assert!(why(&|_| {}).contains("all 4 slots are taken"));
    assert!(why(&|snapshot| snapshot.status.draining = true).contains("the daemon drains"));
    let shut = why(&|snapshot| snapshot.status.shut = Some("this host is not enabled\nhint: x".to_owned()));
    assert!(
        shut.contains("no job is let through: this host is not enabled<"),
        "{shut}"
    );
    let quarantined = why(&|snapshot| {
        let reason = "a process".to_owned();
        snapshot.status.slots[3].now = SlotNow::Quarantined { reason };
    });
    assert!(quarantined.contains("all 3 slots are taken, 1 more in quarantine"));
    assert!(quarantined.contains("held") && quarantined.contains("GitHub answers 503"));
}

#[test]
fn no_two_jobs_of_the_busy_day_are_one() {
    let jobs = busy_day().jobs;
    let ids: std::collections::BTreeSet<_> = jobs.iter().map(|job| &job.id).collect();
    assert_eq!(ids.len(), jobs.len());
}
