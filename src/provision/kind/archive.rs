//! Archives that are fetched, compared and unpacked: toolchains, above all.
//!
//! What is installed says in a file of its own which archive it came from. The file belongs to whoever owns the
//! folder, so that it is worth as much as the folder is.

use camino::Utf8PathBuf;
use serde::Deserialize;

use super::command::untold;
use super::files::{Folder, absolute, hash_complaint};
use crate::provision::Verdict;
use crate::provision::context::Context;
use crate::provision::question::{Answer, Answers, Question, View};
use crate::provision::step::{Action, Fetch, Fix, Place, Step};

/// The file in an unpacked archive that says which it was.
pub const STAMP: &str = ".ephemerd-archive";

/// The archives that can be unpacked, by the ends of their names.
pub const ENDINGS: [&str; 5] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz"];

/// `[archive.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Where it is fetched from; its end says how it is packed.
    pub url: String,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// The folder it becomes.
    pub to: Utf8PathBuf,
    /// How many leading folders of its paths are left out.
    #[serde(default)]
    pub strip: u32,
    /// The name of the owner of everything in it; root without.
    pub owner: Option<String>,
    /// The name of the group of everything in it.
    pub group: Option<String>,
}

impl Archive {
    pub(super) fn complaint(&self) -> Option<String> {
        let schemes = ["https://", "http://", "file:///"];
        if !schemes.iter().any(|scheme| self.url.starts_with(scheme)) {
            return Some(format!(
                "`{}` is no address\nhint: begin it with https://",
                self.url
            ));
        }
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        if !ENDINGS.iter().any(|ending| path.ends_with(ending)) {
            return Some(format!(
                "`{path}` does not say how it is packed\nhint: {} can be unpacked",
                ENDINGS.join(", ")
            ));
        }
        let to = self.to.as_str();
        let complaint = hash_complaint(&self.sha256).or_else(|| absolute(to));
        complaint.or_else(|| {
            (self.to.components().count() < 3).then(|| {
                format!(
                    "`{to}` would be replaced by it\nhint: name a folder of its own, two levels deep or more"
                )
            })
        })
    }

    /// The folder it becomes, as an item of its own would say it.
    fn folder(&self) -> Folder {
        Folder {
            owner: self.owner.clone(),
            group: self.group.clone(),
            mode: None,
            visible: true,
            writable: false,
        }
    }

    fn stamp(&self) -> Question {
        Question::Read(self.to.join(STAMP))
    }

    pub(super) fn questions(&self) -> Vec<(View, Question)> {
        let mut questions = self.folder().questions(self.to.as_str());
        questions.push((View::Host, self.stamp()));
        questions
    }

    pub(super) fn judge(&self, context: &Context, answers: &Answers) -> Verdict {
        let folder = self.folder().judge(self.to.as_str(), context, answers);
        if folder == Verdict::Missing {
            return folder;
        }
        match answers.get(View::Host, &self.stamp()) {
            Answer::Text(hash) if hash.trim().eq_ignore_ascii_case(&self.sha256) => folder,
            Answer::Text(_) => Verdict::outdated("another archive", "this one"),
            Answer::Missing => Verdict::wrong("a folder that did not come from an archive", "this one"),
            other => untold(&other),
        }
    }

    pub(super) fn fix(&self, answers: &Answers, verdict: &Verdict) -> Fix {
        let is_it = match answers.get(View::Host, &self.stamp()) {
            Answer::Text(hash) => hash.trim().eq_ignore_ascii_case(&self.sha256),
            _ => false,
        };
        match verdict {
            Verdict::Unknown { .. } => Fix::ByHand(format!("see what is at {}", self.to)),
            // Fetching it again would change nothing.
            _ if is_it => Fix::ByHand(format!("see whose {} is, and who may write there", self.to)),
            _ => Fix::Steps(vec![Step {
                action: Action::Archive(Fetch {
                    url: self.url.clone(),
                    sha256: self.sha256.to_ascii_lowercase(),
                    to: Place {
                        path: self.to.clone(),
                        owner: self.owner.clone(),
                        group: self.group.clone(),
                        mode: None,
                    },
                    strip: self.strip,
                }),
                undo: None,
            }]),
        }
    }
}
