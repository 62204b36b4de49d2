//! Files, folders and disks: whose they are, what is in them, and that no job can change them.

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Deserializer};

use super::command::untold;
use crate::config::size::{parse_size, show_size};
use crate::provision::Verdict;
use crate::provision::context::{Context, changeable_by_jobs, unless_hidden};
use crate::provision::question::{Answer, Answers, Entry, EntryKind, Question, View};
use crate::provision::step::{Action, Fix, Place, Step};

/// What is wrong with a path that must be absolute and plain.
pub(super) fn absolute(path: &str) -> Option<String> {
    let path = Utf8Path::new(path);
    let is_plain = path.components().all(|part| {
        matches!(
            part,
            camino::Utf8Component::RootDir | camino::Utf8Component::Normal(_)
        )
    });
    (!path.is_absolute() || !is_plain)
        .then(|| format!("`{path}` is no absolute path without `.` and `..`\nhint: write the whole path"))
}

/// Permissions, written in octal as chmod(1) takes them.
fn octal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match mode(&text) {
        Some(mode) => Ok(Some(mode)),
        None => Err(serde::de::Error::custom(format!(
            "`{text}` is no mode; write octal digits, for example \"755\""
        ))),
    }
}

/// The permissions that octal digits say.
pub(super) fn mode(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// `[folder."/path"]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// The name of its owner.
    pub owner: Option<String>,
    /// The name of its group.
    pub group: Option<String>,
    /// Its permissions in octal.
    #[serde(default, deserialize_with = "octal")]
    pub mode: Option<u32>,
    /// Whether jobs must see it.
    #[serde(default)]
    pub visible: bool,
    /// Whether jobs may change it.
    #[serde(default)]
    pub writable: bool,
}

/// `[file."/path"]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The name of its owner.
    pub owner: Option<String>,
    /// The name of its group.
    pub group: Option<String>,
    /// Its permissions in octal.
    #[serde(default, deserialize_with = "octal")]
    pub mode: Option<u32>,
    /// SHA-256 of its content in hexadecimal.
    pub sha256: Option<String>,
    /// Its whole content, which `--apply` writes.
    pub content: Option<String>,
    /// Whether jobs must see it.
    #[serde(default)]
    pub visible: bool,
    /// Whether jobs may change it.
    #[serde(default)]
    pub writable: bool,
}

/// What folders and files have in common.
struct Wanted<'a> {
    kind: EntryKind,
    owner: Option<&'a str>,
    group: Option<&'a str>,
    mode: Option<u32>,
    sha256: Option<&'a str>,
    visible: bool,
    writable: bool,
}

impl Wanted<'_> {
    fn look(&self, path: &str) -> Question {
        Question::Look {
            path: path.into(),
            digest: self.sha256.is_some(),
        }
    }

    fn questions(&self, path: &str) -> Vec<(View, Question)> {
        let mut questions = vec![(View::Host, self.look(path))];
        if self.visible {
            questions.push((View::Job, Question::Resolve(path.into())));
        }
        questions.extend(
            self.closed(path)
                .into_iter()
                .map(|path| (View::Job, Question::Writable(path))),
        );
        questions
    }

    /// What jobs must not be able to write to: a file in a folder that they can write to can be replaced.
    fn closed(&self, path: &str) -> Vec<Utf8PathBuf> {
        let path = Utf8Path::new(path);
        let above = path.parent().filter(|_| self.kind == EntryKind::File);
        match self.writable {
            true => vec![],
            false => std::iter::once(path)
                .chain(above)
                .map(Utf8Path::to_owned)
                .collect(),
        }
    }

    /// Whether owner, group or mode are not those that are named.
    fn is_mendable(&self, path: &str, answers: &Answers) -> bool {
        match answers.get(View::Host, &self.look(path)) {
            Answer::Missing => true,
            Answer::Entry(entry) if entry.is == self.kind => !self.named(&entry).is_empty(),
            _ => false,
        }
    }

    fn judge(&self, path: &str, context: &Context, answers: &Answers) -> Verdict {
        let entry = match answers.get(View::Host, &self.look(path)) {
            Answer::Entry(entry) => entry,
            Answer::Missing => return Verdict::Missing,
            other => return untold(&other),
        };
        let wrong = self.differences(&entry, context);
        if !wrong.is_empty() {
            let (found, wanted): (Vec<_>, Vec<_>) = wrong.into_iter().unzip();
            return Verdict::wrong(found.join(", "), wanted.join(", "));
        }
        let path = Utf8Path::new(path);
        let seen = match answers.get(View::Job, &Question::Resolve(path.to_owned())) {
            _ if !self.visible => None,
            Answer::At(_) => None,
            Answer::Missing | Answer::Denied => Some("is not to be seen"),
            other => return untold(&other),
        };
        let closed = |closed: Utf8PathBuf| match answers.get(View::Job, &Question::Writable(closed.clone())) {
            Answer::Yes => Verdict::wrong(format!("a job can write to {closed}"), "no job can"),
            Answer::No | Answer::Missing | Answer::Denied => Verdict::ok(shown(&entry)),
            other => untold(&other),
        };
        let tried = self.closed(path.as_str()).into_iter().map(closed);
        let verdict = tried.fold(Verdict::ok(shown(&entry)), Verdict::and);
        unless_hidden(verdict, path, seen)
    }

    /// What was found and what is wanted, for each difference.
    fn differences(&self, entry: &Entry, context: &Context) -> Vec<(String, String)> {
        if entry.is != self.kind {
            return vec![(named(entry.is).to_owned(), named(self.kind).to_owned())];
        }
        let mut wrong = self.named(entry);
        if let (Some(wanted), Some(found)) = (self.sha256, &entry.sha256)
            && !wanted.eq_ignore_ascii_case(found)
        {
            wrong.push((
                format!("SHA-256 {}", start(found)),
                format!("SHA-256 {}", start(wanted)),
            ));
        }
        // What jobs could do about the modes that are wanted; the sandbox is asked beside.
        if let Some(why) = changeable_by_jobs(entry, context).filter(|_| !self.writable) {
            wrong.push((why, "not to be changed by jobs".to_owned()));
        }
        wrong
    }

    /// The differences of owner, group and mode.
    fn named(&self, entry: &Entry) -> Vec<(String, String)> {
        let mut wrong = vec![];
        let names = [
            (self.owner, &entry.owner, "owner"),
            (self.group, &entry.group, "group"),
        ];
        for (wanted, found, what) in names {
            if let Some(wanted) = wanted.filter(|wanted| wanted != found) {
                wrong.push((format!("{what} {found}"), format!("{what} {wanted}")));
            }
        }
        if let Some(mode) = self.mode.filter(|mode| *mode != entry.mode) {
            wrong.push((format!("mode {:03o}", entry.mode), format!("mode {mode:03o}")));
        }
        wrong
    }
}

/// The start of a hash, enough to tell two apart.
fn start(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

fn named(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "a file",
        EntryKind::Folder => "a folder",
        EntryKind::Link => "a symbolic link",
        EntryKind::Other => "neither file nor folder",
    }
}

fn shown(entry: &Entry) -> String {
    format!("{}:{} {:03o}", entry.owner, entry.group, entry.mode)
}

impl Folder {
    pub(super) fn complaint(&self) -> Option<String> {
        writable_mode(self.mode, self.writable)
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            kind: EntryKind::Folder,
            owner: self.owner.as_deref(),
            group: self.group.as_deref(),
            mode: self.mode,
            sha256: None,
            visible: self.visible,
            writable: self.writable,
        }
    }

    pub(super) fn questions(&self, path: &str) -> Vec<(View, Question)> {
        self.wanted().questions(path)
    }

    pub(super) fn judge(&self, path: &str, context: &Context, answers: &Answers) -> Verdict {
        self.wanted().judge(path, context, answers)
    }

    pub(super) fn fix(&self, path: &str, answers: &Answers, verdict: &Verdict) -> Fix {
        if !self.wanted().is_mendable(path, answers) {
            return Fix::ByHand(format!("see what is at {path}, and who may write there"));
        }
        let mode = self
            .mode
            .or_else(|| (*verdict == Verdict::Missing).then_some(0o755));
        Fix::Steps(vec![Step {
            action: Action::Folder(place(path, self.owner.as_ref(), self.group.as_ref(), mode)),
            undo: None,
        }])
    }
}

impl File {
    pub(super) fn complaint(&self) -> Option<String> {
        if let Some(sha256) = &self.sha256 {
            if self.content.is_some() {
                return Some(
                    "both `content` and `sha256` say what it holds\nhint: keep one of the two".to_owned(),
                );
            }
            if let Some(complaint) = hash_complaint(sha256) {
                return Some(complaint);
            }
        }
        writable_mode(self.mode, self.writable)
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            kind: EntryKind::File,
            owner: self.owner.as_deref(),
            group: self.group.as_deref(),
            mode: self.mode,
            sha256: self.sha256.as_deref(),
            visible: self.visible,
            writable: self.writable,
        }
    }

    pub(super) fn questions(&self, path: &str) -> Vec<(View, Question)> {
        let mut questions = self.wanted().questions(path);
        if self.content.is_some() {
            questions.push((View::Host, Question::Read(path.into())));
        }
        questions
    }

    pub(super) fn judge(&self, path: &str, context: &Context, answers: &Answers) -> Verdict {
        let verdict = self.wanted().judge(path, context, answers);
        match (
            &self.content,
            answers.get(View::Host, &Question::Read(path.into())),
        ) {
            (Some(_), _) if !verdict.is_met() => verdict,
            (Some(content), Answer::Text(found)) if *content == found => verdict,
            (Some(content), Answer::Text(found)) => Verdict::wrong(
                format!("{} bytes of other content", found.len()),
                format!("its {} bytes", content.len()),
            ),
            (Some(_), other) => untold(&other),
            (None, _) => verdict,
        }
    }

    pub(super) fn fix(&self, path: &str, answers: &Answers, verdict: &Verdict) -> Fix {
        let is_missing = *verdict == Verdict::Missing;
        let held = answers.get(View::Host, &Question::Read(path.into()));
        let is_other = match (&self.content, held) {
            (Some(content), Answer::Text(held)) => held != *content,
            _ => false,
        };
        let is_mendable = is_other || self.wanted().is_mendable(path, answers);
        if !is_mendable || (is_missing && self.content.is_none()) || (is_missing && self.sha256.is_some()) {
            return Fix::ByHand(format!("put the right file at {path}, where no job can write"));
        }
        let mode = self.mode.or_else(|| is_missing.then_some(0o644));
        Fix::Steps(vec![Step {
            action: Action::File {
                place: place(path, self.owner.as_ref(), self.group.as_ref(), mode),
                content: self.content.clone(),
            },
            undo: None,
        }])
    }
}

/// A mode that lets everybody write contradicts an item that no job may change.
fn writable_mode(mode: Option<u32>, writable: bool) -> Option<String> {
    let mode = mode.filter(|mode| mode & 0o002 != 0 && !writable)?;
    Some(format!(
        "mode {mode:03o} lets everybody write, and jobs may not change it\nhint: say `writable = true`, or take the write permission away"
    ))
}

/// What is wrong with a SHA-256 in hexadecimal.
pub(super) fn hash_complaint(hash: &str) -> Option<String> {
    let is_hash = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    (!is_hash).then(|| {
        format!(
            "a SHA-256 has 64 hexadecimal digits, and this has {} characters\nhint: `shasum -a 256 FILE` prints it",
            hash.chars().count()
        )
    })
}

fn place(path: &str, owner: Option<&String>, group: Option<&String>, mode: Option<u32>) -> Place {
    Place {
        path: path.into(),
        owner: owner.cloned(),
        group: group.cloned(),
        mode,
    }
}

/// `[disk."/path"]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// What must be free there, as text with a unit: 30GiB.
    pub free: Option<String>,
    /// The kinds of file system that will do, as mount(8) calls them.
    #[serde(default)]
    pub filesystem: Vec<String>,
}

impl Disk {
    pub(super) fn complaint(&self) -> Option<String> {
        match &self.free {
            None if self.filesystem.is_empty() => {
                Some("nothing is asked of it\nhint: give `free`, `filesystem` or both".to_owned())
            }
            None => None,
            Some(free) => parse_size(free).err().map(|error| error.to_string()),
        }
    }

    pub(super) fn questions(&self, path: &str) -> Vec<(View, Question)> {
        vec![(View::Host, Question::Disk(Utf8PathBuf::from(path)))]
    }

    pub(super) fn judge(&self, path: &str, answers: &Answers) -> Verdict {
        let disk = match answers.get(View::Host, &Question::Disk(path.into())) {
            Answer::Disk(disk) => disk,
            Answer::Missing => return Verdict::Missing,
            other => return untold(&other),
        };
        let free = format!("{} free", gibibytes(disk.free_byte));
        let wanted = self.free.as_deref().and_then(|text| parse_size(text).ok());
        if let Some(byte) = wanted.filter(|byte| disk.free_byte < *byte) {
            return Verdict::wrong(free, format!("{} free", show_size(byte)));
        }
        if !self.filesystem.is_empty() && !self.filesystem.contains(&disk.filesystem) {
            return Verdict::wrong(disk.filesystem, self.filesystem.join(" or "));
        }
        Verdict::ok(format!("{free} on {}", disk.filesystem))
    }
}

/// Bytes in a unit people read, to a tenth.
fn gibibytes(byte: u64) -> String {
    const GIB: u64 = 1 << 30;
    format!("{}.{} GiB", byte / GIB, byte % GIB * 10 / GIB)
}
