//! Starts jobs, each by the means its plan names.

use std::fs::File;
use std::io::{self, Write};

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::launch::{Confinement, LaunchPlan};
use super::seatbelt;
use super::step::Given;
use crate::host::{Host, Os};

/// Starts jobs on one kind of system. Holds what is prepared once and inherited by every launch.
#[derive(Debug)]
pub(crate) enum Launcher {
    /// Linux: a clone into namespaces of its own.
    Linux(super::init::Launcher),
    /// macOS: a guard outside, sandbox-exec inside.
    MacOs(Box<seatbelt::Launcher>),
}

impl Launcher {
    /// Prepares launches on `host` with `program` (ephemerd itself).
    ///
    /// # Errors
    /// What is to be given up for good cannot be given up.
    pub(crate) fn new(host: &Host, program: Utf8PathBuf) -> io::Result<Self> {
        Ok(match host.os {
            Os::Linux => Self::Linux(super::init::Launcher::new()?),
            Os::MacOs => Self::MacOs(Box::new(seatbelt::Launcher::new(host, program))),
        })
    }

    /// Starts the first process of a job; `profile` is the file of its profile, where its system takes one. What is in `openly`
    /// may be shown to it although its account does not get there, with everything below; anything, where not set. How the
    /// launch went is said on the status pipe. The caller must have one thread.
    ///
    /// # Errors
    /// The plan is for another system, or the system refuses the process.
    pub(crate) fn spawn(
        &self,
        plan: &LaunchPlan,
        profile: &Utf8Path,
        (given, openly): (Given, Option<&[Utf8PathBuf]>),
    ) -> io::Result<First> {
        match (self, &plan.confinement) {
            (Self::Linux(launcher), Confinement::Linux(policy)) => {
                let pid = launcher.spawn(plan, (policy, openly), given)?;
                Ok(First {
                    pid: Pid::from_raw(pid),
                    leash: None,
                })
            }
            (Self::MacOs(_), Confinement::Seatbelt(_)) if given.group.is_some() => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the launch plan of {} is for a system with control groups",
                    plan.job
                ),
            )),
            (Self::MacOs(launcher), Confinement::Seatbelt(seatbelt)) => {
                launcher.spawn(plan, (seatbelt, profile), given)
            }
            (Self::Linux(_), Confinement::Seatbelt(_)) | (Self::MacOs(_), Confinement::Linux(_)) => {
                Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("the launch plan of {} is for another system", plan.job),
                ))
            }
        }
    }
}

/// The first process of a job, as the warden knows it.
#[derive(Debug)]
pub(crate) struct First {
    /// Its pid.
    pub(crate) pid: Pid,
    /// How to tell it something, where that is not by signal: see [`seatbelt::guard`].
    pub(crate) leash: Option<File>,
}

impl First {
    /// Asks every process of the job to end, or ends them.
    ///
    /// # Errors
    /// The process cannot be signalled.
    pub(crate) fn signal(&mut self, politely: bool) -> io::Result<()> {
        match &mut self.leash {
            // A guard that does not listen any more has ended, and the job with it.
            Some(leash) => {
                let _ = leash.write_all(if politely {
                    seatbelt::guard::ASK
                } else {
                    seatbelt::guard::KILL
                });
                Ok(())
            }
            None => {
                let signal = if politely {
                    Signal::SIGTERM
                } else {
                    Signal::SIGKILL
                };
                Ok(kill(self.pid, signal)?)
            }
        }
    }
}
