//! What is asked of a host, and what it answers. Both are plain values: questions are asked once however many items
//! want to know, all at the same time, and inside a job's sandbox by a process that gets them as text.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

/// Whose eyes see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Those of whoever checks, on the bare host.
    Host,
    /// Those of a job, in its sandbox and as its account.
    Job,
}

/// A program to ask.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tool {
    /// An absolute path, or a name that is looked up in `path`.
    pub program: Utf8PathBuf,
    /// Where a name is looked up; empty for the `PATH` of whoever looks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<Utf8PathBuf>,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Whether it runs as the owner of the program's file, with the owner's home, and never as root: Homebrew refuses root.
    #[serde(default)]
    pub as_owner: bool,
    /// A path that leads to the code which the program runs in turn, where it only passes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passes_on: Option<Utf8PathBuf>,
    /// Variables it gets besides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
}

/// How long one tool may take, unless its item says otherwise, in milliseconds.
pub const TIMEOUT_MS: u64 = 20_000;

impl Tool {
    /// The program at an absolute path, with arguments.
    pub fn at(program: &Utf8Path, args: &[&str]) -> Self {
        Self {
            program: program.to_owned(),
            path: vec![],
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            as_owner: false,
            passes_on: None,
            env: BTreeMap::new(),
            timeout_ms: TIMEOUT_MS,
        }
    }

    /// The same, with variables.
    #[must_use]
    pub fn with_env(mut self, variables: &[(&str, &str)]) -> Self {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.env.extend(owned);
        self
    }
}

/// One thing that is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// What does this program say? [`Answer::Ran`]
    Run(Tool),
    /// Where is a program of this name? [`Answer::At`]
    Find {
        /// The name, or a path.
        name: Utf8PathBuf,
        /// Where to look; empty for the `PATH` of whoever looks.
        path: Vec<Utf8PathBuf>,
    },
    /// What is at this path, not following a link at its end? [`Answer::Entry`]
    Look {
        /// The path.
        path: Utf8PathBuf,
        /// Whether its SHA-256 is wanted as well.
        digest: bool,
    },
    /// Where does this path lead, with every link followed? [`Answer::At`]
    Resolve(Utf8PathBuf),
    /// What does this small file say? [`Answer::Text`]
    Read(Utf8PathBuf),
    /// Which names does this folder hold? [`Answer::Names`]
    List(Utf8PathBuf),
    /// Can this library be loaded? [`Answer::At`] with its name.
    Load(String),
    /// What does this variable say? [`Answer::Text`]
    Variable(String),
    /// Can a process here write to this path, or make something in it? [`Answer::Yes`] or [`Answer::No`]
    Writable(Utf8PathBuf),
    /// How full and of which kind is the file system of this path? [`Answer::Disk`]
    Disk(Utf8PathBuf),
    /// What can this system do? [`Answer::Text`], or [`Answer::Missing`].
    Ability(Ability),
}

impl Question {
    /// The paths it is about: when none of them changes, the answer does not either, as far as files decide it.
    pub fn paths(&self) -> Vec<&Utf8Path> {
        match self {
            Self::Look { path, .. } | Self::Resolve(path) | Self::Read(path) | Self::List(path) => vec![path],
            Self::Find { name, .. } if name.is_absolute() => vec![name],
            // Another of that name can come to lie before it, or the first one.
            Self::Find { path, .. } => path.iter().map(Utf8PathBuf::as_path).collect(),
            Self::Run(tool) if tool.program.is_absolute() => vec![&tool.program],
            Self::Load(library) if library.starts_with('/') => vec![Utf8Path::new(library)],
            Self::Run(_)
            | Self::Load(_)
            | Self::Variable(_)
            | Self::Writable(_)
            | Self::Disk(_)
            | Self::Ability(_) => vec![],
        }
    }
}

/// Something a system can or cannot do that ephemerd itself finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ability {
    /// Whether a packet filter can be loaded.
    PacketFilter,
    /// The ABI of Landlock, as a number.
    Landlock,
    /// Whether namespaces of one's own can be had.
    Namespaces,
}

/// What a host answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A program ran to its end.
    Ran(Ran),
    /// It is here.
    At(Utf8PathBuf),
    /// What is at a path.
    Entry(Entry),
    /// A text.
    Text(String),
    /// Names, sorted.
    Names(Vec<String>),
    /// A file system.
    Disk(Disk),
    /// It is so.
    Yes,
    /// It is not so.
    No,
    /// There is no such thing.
    Missing,
    /// It is there, and whoever looks may not.
    Denied,
    /// A program did not end in time.
    TimedOut,
    /// It cannot be told.
    Failed(String),
}

/// How a program ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, its first MiB.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl Ran {
    /// How it ended, in words.
    pub fn ending(&self) -> String {
        let code = self
            .code
            .map_or("a signal".to_owned(), |code| format!("exit code {code}"));
        match self
            .stderr
            .lines()
            .chain(self.stdout.lines())
            .map(str::trim)
            .find(|line| !line.is_empty())
        {
            Some(line) => format!("{code}: {}", shortened(line)),
            None => code,
        }
    }
}

/// Longest quotation of what a tool said, in characters.
const QUOTED: usize = 120;

/// `text` with what makes no line, and is too long for one, taken out.
pub fn shortened(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match clean.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub is: EntryKind,
    /// The name of its owner, or the number where it has none.
    pub owner: String,
    /// The name of its group, or the number.
    pub group: String,
    /// Its permissions, as chmod(1) takes them in octal.
    pub mode: u32,
    /// SHA-256 of its content in hexadecimal, of a file that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A socket, a device or a pipe.
    Other,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Bytes an ordinary user can still write.
    pub free_byte: u64,
    /// Its kind, as mount(8) calls it: `apfs`, `ext4`.
    pub filesystem: String,
}

/// Everything that was asked, with the answers.
#[derive(Debug, Clone, Default)]
pub struct Answers(BTreeMap<(View, Question), Answer>);

impl Answers {
    /// Nothing was answered but these.
    pub fn new(answers: impl IntoIterator<Item = ((View, Question), Answer)>) -> Self {
        Self(answers.into_iter().collect())
    }

    /// The answer to a question; one that was never asked cannot be told.
    pub fn get(&self, view: View, question: &Question) -> Answer {
        let found = self.0.get(&(view, question.clone()));
        found
            .cloned()
            .unwrap_or_else(|| Answer::Failed("it was not looked at".to_owned()))
    }

    /// Adds further answers.
    pub fn extend(&mut self, more: Answers) {
        self.0.extend(more.0);
    }
}
