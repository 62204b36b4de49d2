//! The status page in a real browser, its text against other people's, and the metrics as Prometheus' own tool reads them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod browser;
mod demo;
mod metrics;
mod text;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;

use browser::{Look, dom, screenshot};
use ephemerd::page::Pages;
use ephemerd::page::request::HEADERS;

/// A server that answers with one page, with the headers of the daemon's or without. It ends with the test.
fn serve(page: String, headers: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let _ = lines
                .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
                .count();
            let mut head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", page.len());
            head += "content-type: text/html; charset=utf-8\r\nconnection: close\r\n";
            head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
            let _ = stream.write_all(format!("{head}\r\n{page}").as_bytes());
        }
    });
    url
}

/// Where pictures for the documents go: into the folder of `EPHEMERD_SCREENSHOTS`, otherwise away.
fn picture(name: &str, folder: &tempfile::TempDir) -> PathBuf {
    match std::env::var_os("EPHEMERD_SCREENSHOTS") {
        Some(kept) => PathBuf::from(kept).join(name),
        None => folder.path().join(name),
    }
}

#[test]
fn a_browser_shows_a_busy_day_in_both_schemes_and_on_a_phone() {
    let snapshot = demo::busy_day();
    let url = serve(Pages::new().unwrap().overview(&snapshot).unwrap(), &HEADERS);
    let shown = dom(&url);
    let newest = snapshot.jobs.iter().take(50);
    for job in newest.map(|job| &job.id).chain(&snapshot.status.queued) {
        assert!(shown.contains(&format!("href=\"/jobs/{job}\"")), "{job}");
    }
    let folder = tempfile::tempdir().unwrap();
    let look = |name: &str, width, height, is_dark| {
        let look = Look {
            width,
            height,
            is_dark,
        };
        let seen = screenshot(&url, look, &picture(name, &folder));
        assert_eq!((seen.width, seen.height), (width, height), "{name}");
        assert!(seen.colours > 100, "{name}: {seen:?}");
        assert_eq!(seen.corner[0] < 100, is_dark, "{name}: {seen:?}");
    };
    look("overview.png", 1280, 1264, false);
    look("overview-dark.png", 1280, 1264, true);
    look("phone.png", 500, 1400, false);
}

#[test]
fn a_browser_shows_the_story_of_a_job() {
    let story = demo::story();
    let page = Pages::new().unwrap().story(&story, demo::NOW_MS).unwrap();
    let url = serve(page, &HEADERS);
    let shown = dom(&url);
    for text in [
        "10.0.0.12:5432/tcp",
        "169.254.169.254:80/tcp",
        "scrubbing",
        "pull request 218",
    ] {
        assert!(shown.contains(text), "{text}\n{shown}");
    }
    let folder = tempfile::tempdir().unwrap();
    let look = Look {
        width: 1280,
        height: 1340,
        is_dark: false,
    };
    assert!(screenshot(&url, look, &picture("job.png", &folder)).colours > 100);
}

#[test]
fn nothing_sticks_out_at_the_width_of_a_phone() {
    let pages = Pages::new().unwrap();
    let quoted = |page: String| page.replace('&', "&amp;").replace('"', "&quot;");
    let both = [
        pages.overview(&demo::busy_day()).unwrap(),
        pages.story(&demo::story(), demo::NOW_MS).unwrap(),
    ];
    for (number, page) in both.into_iter().enumerate() {
        // A window has a least width, and a frame has none.
        let page = format!(
            "<!doctype html><title>not yet</title><iframe width=360 height=3000 srcdoc=\"{}\"></iframe><script>onload = () => \
             {{ document.title = `wide ${{document.querySelector('iframe').contentDocument.documentElement.scrollWidth}}` }}</script>",
            quoted(page)
        );
        let url = serve(page, &[]);
        let shown = dom(&url);
        assert!(shown.contains("<title>wide 360</title>"), "{number}: {shown}");
    }
}

/// What somebody may call a job, whose scripts would change the title.
const HOSTILE: &str =
    "</style></td><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";

#[test]
fn no_script_of_anybodys_runs() {
    let mut snapshot = demo::busy_day();
    HOSTILE.clone_into(&mut snapshot.jobs[0].event);
    HOSTILE.clone_into(&mut snapshot.jobs[1].reason);
    snapshot.status.shut = Some(HOSTILE.to_owned());
    let page = Pages::new().unwrap().overview(&snapshot).unwrap();
    // Escaping alone is enough, and so is the policy alone.
    let escaped = dom(&serve(page, &[]));
    assert!(escaped.contains("<title>mini-7 · ephemerd</title>"), "{escaped}");
    assert!(
        !escaped.contains("<script>") && !escaped.contains("<img"),
        "{escaped}"
    );
    let raw = format!("<!doctype html><title>untouched</title><table><td>{HOSTILE}");
    assert!(dom(&serve(raw.clone(), &HEADERS)).contains("<title>untouched</title>"));
    assert!(
        dom(&serve(raw, &[])).contains("<title>owned</title>"),
        "the control"
    );
}
