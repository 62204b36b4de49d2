//! Checks of manifests: what is asked, of whom, and what is kept of the answers.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use camino::{Utf8Path, Utf8PathBuf};

use crate::config::Config;
use crate::host::Host;
use crate::host::provision::context;
use crate::provision::context::Context;
use crate::provision::enabled::{self, Enabled};
use crate::provision::manifest::Manifest;
use crate::provision::question::{Answer, Answers, Question, View};
use crate::provision::report::{self, Report};

/// Whose jobs look, where no repository is named: it has no grants but those of every job.
pub const NOBODY: &str = "local/provision";

/// What is asked about a manifest.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The manifest.
    pub manifest: Manifest,
    /// The host.
    pub context: Context,
    /// What is asked of the bare host.
    pub outside: Vec<Question>,
    /// What is asked in a job's sandbox.
    pub inside: Vec<Question>,
}

impl Asked {
    /// Everything that `manifest` wants to know of `host`. Asks a few tools already, so that it may block for a moment.
    pub fn new(host: &Host, config: &Config, manifest: Manifest) -> Self {
        let context = context(host, config, &manifest);
        let (mut outside, mut inside) = (vec![], vec![]);
        for (view, question) in report::questions(&manifest, &context) {
            match view {
                View::Host => outside.push(question),
                View::Job => inside.push(question),
            }
        }
        Self {
            manifest,
            context,
            outside,
            inside,
        }
    }

    /// With the answers, in the order of the questions; what kept a job from looking is the answer to all it was asked.
    pub fn answered(self, outside: Vec<Answer>, inside: Result<Vec<Answer>, String>) -> Looked {
        let Self {
            manifest,
            context,
            outside: asked_outside,
            inside: asked_inside,
        } = self;
        let inside = inside.unwrap_or_else(|why| {
            // Reports have one line per item.
            let why = why.lines().next().unwrap_or_default().to_owned();
            vec![Answer::Failed(why); asked_inside.len()]
        });
        let keyed =
            |view, questions: Vec<Question>| questions.into_iter().map(move |question| (view, question));
        let outside = keyed(View::Host, asked_outside).zip(outside);
        let inside = keyed(View::Job, asked_inside).zip(inside);
        Looked {
            manifest,
            context,
            answers: Answers::new(outside.chain(inside)),
        }
    }
}

/// A manifest beside a host, with everything that led there.
#[derive(Debug, Clone)]
pub struct Looked {
    /// The manifest.
    pub manifest: Manifest,
    /// The host.
    pub context: Context,
    /// What was found.
    pub answers: Answers,
}

impl Looked {
    /// What it means.
    pub fn report(&self) -> Report {
        report::report(&self.manifest, &self.context, &self.answers)
    }
}

/// Seconds since 1970.
pub fn now_unix_s() -> u64 {
    // A clock before 1970 is as good as one at its beginning.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Milliseconds since 1970.
pub fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The file in the data folder that says that this host is enabled.
pub fn record_file(data_dir: &Utf8Path) -> Utf8PathBuf {
    data_dir.join("host/enabled.json")
}

/// The record of this host; `None` when it is not enabled.
///
/// # Errors
/// The record cannot be read, or makes no sense.
pub fn read_record(data_dir: &Utf8Path) -> io::Result<Option<Enabled>> {
    let text = match std::fs::read_to_string(record_file(data_dir)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let record: Enabled = serde_json::from_str(&text)?;
    if record.version == enabled::VERSION {
        Ok(Some(record))
    } else {
        Err(io::Error::other(format!(
            "version {} of the record is not known",
            record.version
        )))
    }
}

/// Writes the record, whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn write_record(data_dir: &Utf8Path, record: &Enabled) -> io::Result<()> {
    // The dispatcher reads it as another account.
    let mut open = |file: &std::fs::File| {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))
            .is_ok()
    };
    let bytes = serde_json::to_vec_pretty(record)?;
    crate::host::files::replace_with(&record_file(data_dir), &bytes, &mut open)
}
