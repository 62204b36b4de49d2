//! What every launch sequence has in common: steps with names, and the lines that tell how they went.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::sys::stat::{SFlag, fstat};

use super::launch::Status;
use crate::slot::Account;

/// A step that failed, by name.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {detail}")]
pub(crate) struct StepError {
    /// The step's name, as in the list of its sequence.
    pub(crate) step: &'static str,
    /// What the system said about what.
    pub(crate) detail: String,
}

impl StepError {
    /// The failure of `step`.
    pub(crate) fn new(step: &'static str, detail: impl std::fmt::Display) -> Self {
        Self {
            step,
            detail: detail.to_string(),
        }
    }
}

impl From<StepError> for Status {
    fn from(error: StepError) -> Self {
        Self::StepFailed {
            step: error.step.to_owned(),
            detail: error.detail,
        }
    }
}

/// Turns any error into the failure of a named step.
pub(crate) trait Step<T> {
    /// Names the step that failed.
    fn step(self, step: &'static str) -> Result<T, StepError>;
}

impl<T, E: std::fmt::Display> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, StepError> {
        self.map_err(|e| StepError::new(step, e))
    }
}

/// Makes this process and its children stand back for others, by this niceness; one that does so already stays.
pub(crate) fn be_nice(nice: u8) -> std::io::Result<()> {
    if rustix::process::getpriority_process(None)? < i32::from(nice) {
        rustix::process::setpriority_process(None, nice.into())?;
    }
    Ok(())
}

/// What a launch is given besides its plan.
#[derive(Debug)]
pub(crate) struct Given {
    /// The job's standard input, output and error.
    pub(crate) job: [OwnedFd; 3],
    /// Where [`Status`] lines go.
    pub(crate) status: OwnedFd,
    /// The control group that the first process is to begin in.
    pub(crate) group: Option<OwnedFd>,
}

/// Makes the pipes among the job's streams its account's. What is no pipe (/dev/null, say) is the host's and stays
/// so.
pub(crate) fn give_pipes(streams: &[OwnedFd; 3], account: Option<&Account>) {
    let Some(account) = account else { return };
    for stream in streams.iter().filter(|stream| is_pipe(stream)) {
        let _ = nix::unistd::fchown(stream, Some(account.uid.into()), Some(account.gid.into()));
    }
}

/// Whether a stream is a pipe without a name: one with a name may be somebody's.
fn is_pipe(stream: &OwnedFd) -> bool {
    let kind = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    let Ok((ours, _)) = std::io::pipe() else {
        return false;
    };
    match (fstat(stream), fstat(&ours)) {
        (Ok(found), Ok(pipe)) => kind(found.st_mode) == SFlag::S_IFIFO && found.st_dev == pipe.st_dev,
        (_, _) => false,
    }
}

/// Writes one status line. There is nobody to tell when that fails: the reader then sees the end of the pipe.
pub(crate) fn say(status: &mut File, what: &Status) {
    if let Ok(mut line) = serde_json::to_vec(what) {
        line.push(b'\n');
        let _ = status.write_all(&line);
    }
}
