//! What stands in for the sandbox's init on a system that has no namespaces: it starts nothing.

use std::io;

use camino::Utf8PathBuf;

use super::launch::LaunchPlan;
use super::step::Given;
use crate::profile::Policy;

/// Starts no jobs.
#[derive(Debug)]
pub(crate) struct Launcher;

impl Launcher {
    /// Prepares nothing.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Fails: a policy of Linux means nothing here.
    pub(crate) fn spawn(
        &self,
        plan: &LaunchPlan,
        _: (&Policy, Option<&[Utf8PathBuf]>),
        _: Given,
    ) -> io::Result<i32> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "{} has a policy of Linux, which this system cannot enforce",
                plan.job
            ),
        ))
    }
}
