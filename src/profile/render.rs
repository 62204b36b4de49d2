//! Rendering: one template, one job, one text.
//!
//! The templates are compiled in from `profiles/`, one set per system. Every value is escaped by the engine
//! itself as it is put into a string, so a template cannot forget to; a value that is missing is an error. The
//! text is read back before anybody uses it, by the code that decides what it means.

mod linux;
pub mod macos;

use std::io::Write;

use camino::Utf8PathBuf;
use serde::Serialize;
use tera::Tera;

use super::policy::{Network, PolicyError};
use super::sbpl::Problems;
use super::{Posture, Rules};
use crate::job::JobId;
use crate::workspace::Place;

/// Why no profile came of a template.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The template does not render; the source names the line.
    #[error("could not render profile `{posture}`")]
    Template {
        /// Which template.
        posture: Posture,
        /// What is wrong.
        #[source]
        source: Box<tera::Error>,
    },
    /// The dispatcher's does not.
    #[error("could not render the dispatcher's profile")]
    Dispatcher(#[source] Box<tera::Error>),
    /// It renders to something that is not a policy of the Linux sandbox.
    #[error("profile `{posture}` does not render to a policy")]
    Policy {
        /// Which template.
        posture: Posture,
        /// What is wrong.
        #[source]
        source: PolicyError,
    },
    /// It renders to something that macOS would refuse.
    #[error("profile `{posture}` does not render to a sandbox profile of macOS")]
    Sandbox {
        /// Which template.
        posture: Posture,
        /// What is wrong.
        #[source]
        source: Problems,
    },
    /// A path that no rule of macOS could speak of, or that could mean another one.
    #[error("path `{}` {what}\nhint: {hint}", .path.as_str().escape_debug())]
    Path {
        /// The path.
        path: Utf8PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// What would be right.
        hint: &'static str,
    },
    /// A grant that the profile denies all the same.
    #[error(
        "the grant of `{path}` has no effect: {rule}\nhint: this is closed whatever is granted; grant another folder, or none"
    )]
    Grant {
        /// The granted path, as the kernel has it.
        path: Utf8PathBuf,
        /// What decides against it.
        rule: String,
    },
}

impl RenderError {
    fn template(posture: Posture, source: tera::Error) -> Self {
        Self::Template {
            posture,
            source: Box::new(source),
        }
    }
}

/// What a template is rendered with. All paths are absolute and resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderInput {
    /// Whose profile it is.
    pub job: JobId,
    /// The job's folder, with `home`, `tmp` and `work` in it.
    pub workspace: Utf8PathBuf,
    /// Where daemon state lives.
    pub data_dir: Utf8PathBuf,
    /// Files and folders of the daemon outside `data_dir`, its configuration above all.
    pub daemon_files: Vec<Utf8PathBuf>,
    /// Named grants to read.
    pub extra_read: Vec<Utf8PathBuf>,
    /// Named grants to write.
    pub extra_write: Vec<Utf8PathBuf>,
    /// Homebrew, where the job gets it.
    pub homebrew: Option<HomebrewInput>,
    /// GitHub's runner, where the job is one.
    pub runner: Option<RunnerInput>,
    /// What the job reaches.
    pub network: Network,
    /// For which system, with what only that system has.
    pub system: System,
}

/// GitHub's runner as a job gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunnerInput {
    /// Its own folder.
    pub root: Utf8PathBuf,
    /// The shared tree of the version, of which folders are shown in there on Linux.
    pub tree: Utf8PathBuf,
    /// These folders.
    pub parts: Vec<String>,
    /// The socket by which its hook reports.
    pub door: Option<Utf8PathBuf>,
}

/// Homebrew as a job gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HomebrewInput {
    /// The host's prefix.
    pub host: Option<Utf8PathBuf>,
    /// The job's own prefix.
    pub own: Option<Place>,
}

/// A system, with what only its profiles are rendered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System {
    /// Linux needs nothing more.
    Linux,
    /// macOS.
    MacOs(macos::Places),
}

impl RenderInput {
    /// The grants to read and to write: what is granted twice is granted once, the wider grant winning.
    fn grants(&self) -> (Vec<Utf8PathBuf>, Vec<Utf8PathBuf>) {
        let (mut read, mut write) = (self.extra_read.clone(), self.extra_write.clone());
        write.sort();
        write.dedup();
        read.sort();
        read.dedup();
        read.retain(|path| !write.contains(path));
        (read, write)
    }
}

/// A profile: the text for people and the kernel, and what it says.
#[derive(Debug)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The text, read back.
    pub rules: Rules,
}

/// Two sets of templates, parsed once and rendered per job.
#[derive(Debug)]
pub struct Renderer {
    linux: Tera,
    macos: Tera,
}

impl Renderer {
    /// Parses the built-in templates.
    ///
    /// # Errors
    /// A template does not parse, which the tests of this module rule out for the built-in ones.
    pub fn new() -> Result<Self, RenderError> {
        Ok(Self {
            linux: linux::templates()?,
            macos: macos::templates()?,
        })
    }

    /// Renders `posture` for one job and reads the text back.
    ///
    /// # Errors
    /// See [`RenderError`].
    pub fn render(&self, posture: Posture, input: &RenderInput) -> Result<Rendered, RenderError> {
        match &input.system {
            System::Linux => linux::render(&self.linux, posture, input),
            System::MacOs(places) => macos::render(&self.macos, posture, input, places),
        }
    }
}

/// Templates whose names end with `suffix`, in which `escape` writes every value.
fn parsed(
    suffix: &'static str,
    escape: fn(&str, &mut dyn Write) -> std::io::Result<()>,
    templates: &[(&'static str, &'static str)],
) -> Result<Tera, RenderError> {
    let mut tera = Tera::new();
    tera.autoescape_on(vec![suffix]);
    tera.set_escape_fn(escape);
    tera.add_raw_templates(templates.iter().copied())
        .map_err(|source| RenderError::template(Posture::Strict, source))?;
    Ok(tera)
}
