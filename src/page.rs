//! The status page and a job's story, as HTML. Pure: a snapshot in, text out; the daemon serves it (`daemon::listen`).
//!
//! ```text
//!  Snapshot ─► view (what is said, in words) ─► templates ─► HTML
//!                └─ chart (where bars stand)
//! ```
//!
//! There is no script and nothing is fetched. Repositories, events, names of jobs and reasons are other people's text: the
//! template engine escapes every value it writes. What a job ran and what it printed is not shown at all, since both may
//! hold what only administrators should read.

mod chart;
mod places;
pub mod request;
mod story;
mod view;
mod words;

use std::io::{self, Write};

use serde::Serialize;
use tera::{Context, Tera};

use crate::control::{StatusReport, Story};
use crate::job::ledger::JobRow;
pub(crate) use words::moment;

/// How far back the page looks.
pub const SPAN_MS: u64 = 24 * 60 * 60 * 1000;

/// How many jobs the page looks at, so that a busy day costs no more than this.
pub const NEWEST: u32 = 2000;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A template is wrong, which the tests of this module rule out for the built-in ones.
    #[error("could not render the page")]
    Template(#[source] Box<tera::Error>),
}

/// What the page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When, in milliseconds since 1970.
    pub now_ms: u64,
    /// The host's name.
    pub host: String,
    /// How the daemon is.
    pub status: StatusReport,
    /// Jobs of the last [`SPAN_MS`], newest first; at most [`NEWEST`].
    pub jobs: Vec<JobRow>,
    /// The file system of the daemon's state, where it can be asked.
    pub disk: Option<Disk>,
}

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// What is free for us, in bytes.
    pub free_byte: u64,
    /// All of it, in bytes.
    pub total_byte: u64,
}

/// The templates, parsed once.
#[derive(Debug)]
pub struct Pages {
    tera: Tera,
}

impl Pages {
    /// Parses the built-in templates.
    ///
    /// # Errors
    /// See [`PageError`].
    pub fn new() -> Result<Self, PageError> {
        let mut tera = Tera::new();
        tera.autoescape_on(vec![".html"]);
        tera.set_escape_fn(escape);
        tera.add_raw_templates([
            ("style.css", include_str!("page/style.css")),
            ("jobs.html", include_str!("page/jobs.html")),
            ("overview.html", include_str!("page/overview.html")),
            ("story.html", include_str!("page/story.html")),
        ])
        .map_err(|source| PageError::Template(Box::new(source)))?;
        Ok(Self { tera })
    }

    /// The page of everything.
    ///
    /// # Errors
    /// See [`PageError`].
    pub fn overview(&self, snapshot: &Snapshot) -> Result<String, PageError> {
        self.render("overview.html", &view::overview(snapshot))
    }

    /// The page of one job, as of a moment in milliseconds since 1970.
    ///
    /// # Errors
    /// See [`PageError`].
    pub fn story(&self, story: &Story, now_ms: u64) -> Result<String, PageError> {
        self.render("story.html", &story::view(story, now_ms))
    }

    fn render(&self, template: &str, view: &impl Serialize) -> Result<String, PageError> {
        Context::from_serialize(view)
            .and_then(|context| self.tera.render(template, &context))
            .map_err(|source| PageError::Template(Box::new(source)))
    }
}

/// Writes other people's text so that a browser takes it for text, between tags and in quoted attributes. What would turn
/// the order of its letters around, or could not be seen, is spelled out.
fn escape(text: &str, out: &mut dyn Write) -> io::Result<()> {
    for letter in text.chars() {
        match letter {
            '&' => out.write_all(b"&amp;")?,
            '<' => out.write_all(b"&lt;")?,
            '>' => out.write_all(b"&gt;")?,
            '"' => out.write_all(b"&quot;")?,
            '\'' => out.write_all(b"&#39;")?,
            '\n' => out.write_all(b"\n")?,
            hidden if is_hidden(hidden) => write!(out, "{}", hidden.escape_unicode())?,
            plain => write!(out, "{plain}")?,
        }
    }
    Ok(())
}

/// Whether a letter is a control character or one of those that order or hide others (Unicode Standard Annex 9).
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = Vec::new();
        escape(text, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_that_a_browser_acts_on_is_left_of_a_text() {
        assert_eq!(
            escaped("<a href=\"x\" onclick='y'>&amp;"),
            "&lt;a href=&quot;x&quot; onclick=&#39;y&#39;&gt;&amp;amp;"
        );
        assert_eq!(escaped("a\nb ✓ ü"), "a\nb ✓ ü");
    }

    #[test]
    fn what_hides_or_turns_letters_around_is_spelled_out() {
        assert_eq!(
            escaped("nib\u{202e}gpj\u{200b}\u{1b}\0"),
            "nib\\u{202e}gpj\\u{200b}\\u{1b}\\u{0}"
        );
    }

    #[test]
    fn the_built_in_templates_parse() {
        Pages::new().unwrap();
    }
}
