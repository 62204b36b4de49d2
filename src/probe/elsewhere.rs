//! Live probes on an operating system that has none: everything says so.

use camino::Utf8Path;

use super::{ProbeError, Report, Target};

/// What there is to attack; never made on this operating system.
#[derive(Debug)]
pub enum Stage {}

impl Stage {
    /// Always fails: nothing can be staged here.
    ///
    /// # Errors
    /// Always [`ProbeError::LinuxOnly`].
    pub fn set(_dir: &Utf8Path, _program: &Utf8Path) -> Result<Self, ProbeError> {
        Err(ProbeError::LinuxOnly)
    }

    /// The description that a probe run needs.
    pub fn target(&self) -> &Target {
        match *self {}
    }

    /// The same, to be adapted to a real job.
    pub fn target_mut(&mut self) -> &mut Target {
        match *self {}
    }

    /// Replaces what only the outside can tell.
    pub fn settle(&self, _reports: &mut [Report]) {
        match *self {}
    }
}

/// Always fails: there is no probe to run.
///
/// # Errors
/// Always [`ProbeError::LinuxOnly`].
pub fn attempt_all(_target: &Target, _only: Option<&[String]>) -> Result<Vec<Report>, ProbeError> {
    Err(ProbeError::LinuxOnly)
}

/// Always fails: there is no stage to stand on.
///
/// # Errors
/// Always [`ProbeError::LinuxOnly`].
pub fn stand_in() -> Result<(), ProbeError> {
    Err(ProbeError::LinuxOnly)
}
