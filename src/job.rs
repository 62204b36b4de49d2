//! The nouns of a job: its id, the repository it belongs to, the event that caused it, what it runs and how
//! it ended.
//!
//! The verbs are in the submodules: `state` decides, `ledger` remembers, `run` does.

pub mod aside;
pub mod ledger;
pub mod output;
pub mod plan;
pub mod run;
pub mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::github::runner::listener::TaskResult;
use crate::slot::Account;

/// Why a piece of text is not one of this module's nouns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NounError {
    /// Not eleven characters of `0-9a-z`.
    #[error(
        "`{0}` is not a job id\nhint: a job id is eleven characters of 0-9 and a-z, as `ephemerd jobs` prints it"
    )]
    JobId(String),
    /// Not `owner/name` as GitHub spells repositories.
    #[error(
        "`{0}` is not a repository\nhint: write it as OWNER/NAME, letters, digits, `.`, `_` and `-` only"
    )]
    Repo(String),
}

/// The id of one job: eight characters of time (milliseconds, base 36) and three of chance, so that ids sort
/// by age and a workspace path stays short enough for Unix sockets inside it (108 bytes, unix(7)).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

impl JobId {
    /// Makes a new id from a time and a random number; both are parameters so that tests can fix them.
    pub fn new(now: SystemTime, chance: u32) -> Self {
        let ms = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        Self(format!("{}{}", base36(ms, 8), base36(u128::from(chance), 3)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The `width` least significant base-36 digits of `value`.
fn base36(mut value: u128, width: usize) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut out = vec![b'0'; width];
    for place in out.iter_mut().rev() {
        // The remainder is below 36, so the index is in range.
        *place = DIGITS[usize::try_from(value % 36).unwrap_or(0)];
        value /= 36;
    }
    out.into_iter().map(char::from).collect()
}

impl TryFrom<String> for JobId {
    type Error = NounError;
    fn try_from(text: String) -> Result<Self, NounError> {
        let fits = text.len() == 11 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        if fits {
            Ok(Self(text))
        } else {
            Err(NounError::JobId(text))
        }
    }
}

impl FromStr for JobId {
    type Err = NounError;
    fn from_str(text: &str) -> Result<Self, NounError> {
        Self::try_from(text.to_owned())
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository, `owner/name`. Compared without regard to case, as GitHub compares names; shown as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repo {
    text: String,
    slash: usize,
}

impl Repo {
    /// The part before the slash.
    pub fn owner(&self) -> &str {
        &self.text[..self.slash]
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        &self.text[self.slash + 1..]
    }

    /// As written by whoever named it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for Repo {
    type Error = NounError;
    fn try_from(text: String) -> Result<Self, NounError> {
        let word = |part: &str| {
            !part.is_empty()
                && part.len() <= 100
                && part != "."
                && part != ".."
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        match text.split_once('/') {
            Some((owner, name)) if word(owner) && word(name) => {
                let slash = owner.len();
                Ok(Self { text, slash })
            }
            _ => Err(NounError::Repo(text)),
        }
    }
}

impl FromStr for Repo {
    type Err = NounError;
    fn from_str(text: &str) -> Result<Self, NounError> {
        Self::try_from(text.to_owned())
    }
}

impl From<Repo> for String {
    fn from(repo: Repo) -> Self {
        repo.text
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Repo {
    fn eq(&self, other: &Self) -> bool {
        self.text.eq_ignore_ascii_case(&other.text)
    }
}

impl Eq for Repo {}

impl PartialOrd for Repo {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Repo {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text
            .to_ascii_lowercase()
            .cmp(&other.text.to_ascii_lowercase())
    }
}

/// What caused a job and from where: everything trust looks at. Field names are GitHub's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The repository whose workflow it is.
    pub repo: Repo,
    /// The event's name as GitHub writes it, for example `push`.
    pub event: String,
    /// The repository the code comes from; `None` when unknown (a deleted fork, say), which is never native.
    pub head: Option<Repo>,
    /// The branch pushed to, or a pull request's base branch.
    pub branch: Option<String>,
    /// Labels of the pull request.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The account that caused the event.
    pub actor: Option<String>,
}

impl Origin {
    /// That of a job that nobody but this host's owner caused.
    pub fn own(repo: &Repo) -> Self {
        Self {
            repo: repo.clone(),
            event: "push".into(),
            head: Some(repo.clone()),
            branch: None,
            labels: vec![],
            actor: None,
        }
    }
}

/// One job, as a source hands it over.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Where it comes from.
    pub origin: Origin,
    /// The command: program and arguments, never passed through a shell.
    pub command: Vec<String>,
    /// Variables added to the job's environment after those of the configuration.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Shorter than the configured timeout, in seconds; `None` takes the configured one.
    #[serde(default)]
    pub timeout_s: Option<u64>,
}

/// Leaves the values of variables out.
impl fmt::Debug for JobSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin,
            command,
            env,
            timeout_s,
        } = self;
        f.debug_struct("JobSpec")
            .field("origin", origin)
            .field("command", command)
            .field("env", &Names(env))
            .field("timeout_s", timeout_s)
            .finish()
    }
}

/// The variables of an environment for a debug text: their names, since values may be secrets.
pub(crate) struct Names<'a>(pub(crate) &'a BTreeMap<String, String>);

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The command ended by itself.
    Exited {
        /// Its exit code, 0 to 255.
        code: u8,
    },
    /// It was GitHub's runner, and ran a job.
    Ran {
        /// How that ended; `None` when the runner did not say, and GitHub knows.
        result: Option<TaskResult>,
    },
    /// It was GitHub's runner, and was given no job.
    Idle,
    /// It was GitHub's runner, and GitHub does not take its version any more, or says so.
    Outdated,
    /// A signal that was not ours ended the command.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// It ran longer than allowed.
    TimedOut {
        /// The limit in seconds.
        limit_s: u64,
    },
    /// It went over a limit and was stopped.
    OverLimit {
        /// Which limit, with the figures.
        what: String,
    },
    /// Somebody cancelled it.
    Cancelled,
    /// It was never started, for a reason that lies in trust or in what the host can enforce.
    Refused {
        /// The reason.
        reason: String,
    },
    /// Something of ours failed before or while it ran.
    Failed {
        /// What failed, with its hint.
        reason: String,
    },
}

impl Outcome {
    /// Whether it did what it was started for.
    pub fn is_success(&self) -> bool {
        self.exit_code() == 0
    }

    /// The code `exec` and `submit --wait` end with: the command's own, 128 + N for signal N as shells do,
    /// 124 for a timeout as timeout(1) does, and 125 for everything that is not the command's doing.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exited { code } => *code,
            Self::Ran {
                result: Some(TaskResult::Succeeded | TaskResult::SucceededWithIssues | TaskResult::Skipped),
            } => 0,
            Self::Ran { .. } => 1,
            Self::Signalled { signal } => 128u8.saturating_add(u8::try_from(*signal).unwrap_or(127)),
            Self::TimedOut { .. } => 124,
            Self::OverLimit { .. } | Self::Cancelled => 137,
            Self::Idle | Self::Outdated | Self::Refused { .. } | Self::Failed { .. } => 125,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code: 0 } => write!(f, "ok"),
            Self::Exited { code } => write!(f, "exit {code}"),
            Self::Ran { result: Some(result) } => write!(f, "{result}"),
            Self::Ran { result: None } => write!(f, "ended, GitHub knows how"),
            Self::Idle => write!(f, "no job came"),
            Self::Outdated => write!(f, "GitHub refuses the runner's version"),
            Self::Signalled { signal } => write!(f, "signal {signal}"),
            Self::TimedOut { limit_s } => write!(f, "timed out after {limit_s} s"),
            Self::OverLimit { what } => write!(f, "over limit: {what}"),
            Self::Cancelled => write!(f, "cancelled"),
            Self::Refused { reason } => write!(f, "refused: {reason}"),
            Self::Failed { reason } => write!(f, "failed: {reason}"),
        }
    }
}

/// Something a job holds on this host. Recorded in the ledger before it is acquired; undone newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Acquisition {
    /// The job's folder below `<data_dir>/native`; the path follows from the job id.
    Workspace,
    /// The job's own Homebrew prefix, where that lies outside of its folder; the path follows from the slot.
    Homebrew {
        /// The slot's number.
        slot: u32,
    },
    /// GitHub's runner, of a job that is one, where that lies outside of its folder; the path follows from the slot.
    Runner {
        /// The slot's number.
        slot: u32,
    },
    /// The job's processes: everything in its sandbox and, with an account per slot, of its uid.
    Processes {
        /// The account they run as.
        uid: u32,
        /// Whether no other job shares the account, so that everything of this uid may be killed.
        exclusive: bool,
    },
    /// What macOS keeps per account: its launchd domain, its folders for temporary files, its System V objects. Of an
    /// account that no other job shares.
    UserDomain {
        /// The account, with the name by which tools of macOS call it.
        account: Account,
    },
    /// The file of the job's sandbox profile; the path follows from the job id.
    Profile,
    /// The job's control group; the path follows from the job id.
    Group,
    /// A guest of the job's: its disk, its processes and its folder. Undone by [`crate::vm::drive`], not by the warden.
    Vm {
        /// The backend that makes and removes it.
        backend: String,
        /// Its name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn job_ids_sort_by_age_and_parse_back() {
        let old = JobId::new(UNIX_EPOCH + Duration::from_millis(1_800_000_000_000), 46_655);
        let new = JobId::new(UNIX_EPOCH + Duration::from_millis(1_800_000_000_001), 0);
        assert!(old < new);
        assert_eq!(old.to_string().parse::<JobId>().unwrap(), old);
    }

    #[test]
    fn refuses_a_job_id_that_could_leave_its_folder() {
        for bad in ["", "../../../etc", "abc", "ABCDEFGHIJK", "abcdefghij/"] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn no_debug_text_of_a_job_holds_the_value_of_a_variable() {
        let spec = JobSpec {
            origin: Origin {
                repo: "acme/ios".parse().unwrap(),
                event: "push".to_owned(),
                head: None,
                branch: None,
                labels: Vec::new(),
                actor: None,
            },
            command: vec!["make".to_owned()],
            env: [("TOKEN".to_owned(), "s3cret".to_owned())].into(),
            timeout_s: None,
        };
        let text = format!("{spec:?}{spec:#?}");
        assert!(text.contains("TOKEN") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn repositories_compare_without_case() {
        let a: Repo = "Acme/iOS".parse().unwrap();
        let b: Repo = "acme/ios".parse().unwrap();
        assert_eq!(a, b);
        assert_eq!(a.to_string(), "Acme/iOS");
    }

    #[test]
    fn refuses_repositories_that_github_could_not_have() {
        for bad in [
            "acme",
            "acme/",
            "/ios",
            "a/b/c",
            "acme/i os",
            "acme/*",
            "acme/..",
            "a\u{e9}/b",
        ] {
            assert!(bad.parse::<Repo>().is_err(), "{bad}");
        }
    }
}
