//! What only the warden of a daemon is asked: the packet filter, what manifests ask of the host, guests, and the service
//! manager. A single command's dispatcher is whoever started it, and does all of that itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use camino::{Utf8Path, Utf8PathBuf};

use super::bounds::granted;
use super::kept::Kept;
use super::serve::{Numbered, Warden};
use super::{News, Reply, Request, wire};
use crate::config::Config;
use crate::daemon::check::Asked;
use crate::github::admission::hook::Place;
use crate::host::command::CommandSpec;
use crate::host::logfile::LogFile;
use crate::host::provision::answer::answer_all;
use crate::host::prune::{PruneError, Pruned};
use crate::host::secrets::{Packed, Secrets};
use crate::host::{self, Host, entrance, os};
use crate::job::{JobId, Repo};
use crate::provision::manifest;
use crate::provision::question::View;
use crate::slot::Account;
use crate::vm::Backend;
use crate::vm::hands::Hands;
use crate::vm::stage::CODES;

/// What the first process of a daemon has besides.
#[derive(Debug)]
pub(crate) struct Front {
    /// Sockets at which nobody is let in any more once the daemon stops.
    pub(super) doors: Vec<(Utf8PathBuf, OwnedFd)>,
    /// What the dispatcher logs, and where that goes, if it does not log itself.
    pub(super) log: Option<(File, LogFile)>,
    /// Where the steward takes what takes programs.
    pub(super) steward: Option<UnixStream>,
    /// The configuration file, where one was named.
    pub(super) config_file: Option<Utf8PathBuf>,
    /// What dispatchers leave for each other.
    pub(super) kept: Kept,
    /// Whether jobs are taken, so that the dispatcher has a successor when it is killed.
    pub(super) is_ready: bool,
    /// Whether the daemon ends.
    pub(super) stops: bool,
}

/// What the steward has: the process that runs programs of the host's for a daemon. The first one does not, so that nothing
/// it starts can have a capability.
#[derive(Debug)]
pub(crate) struct Post {
    /// Where requests to compare the packet filter are handed on.
    pub(super) filter: Option<UnixStream>,
    /// What guests are made with, where there may be some.
    pub(super) hands: Option<Hands>,
    /// The configuration that is in force. It changes when the dispatcher has read it anew, and not when somebody edits it.
    pub(super) config: Config,
    /// Its file, where one was named.
    pub(super) config_file: Option<Utf8PathBuf>,
}

impl Post {
    /// Whether a tool's environment is one that a backend has by the configuration. It is its attendant's, too, which is
    /// root, so that nobody else has a word in it.
    fn is_of_backend(&self, spec: &CommandSpec) -> bool {
        let own = |env: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            let mut env = env.clone();
            env.retain(|name, _| !CODES.contains(&name.as_str()));
            env
        };
        let asked = own(&spec.env);
        let is_it = |backend: &Backend| own(&backend.env) == asked;
        spec.home.is_none() && self.config.vm.backends.values().any(is_it)
    }

    /// Reads the configuration anew, as the dispatcher has. One that cannot be read is no other.
    fn read_again(&mut self, host: &Host, data_dir: &Utf8Path) -> Result<(), String> {
        let loaded = crate::config::load_or_default(self.config_file.as_deref(), host.os);
        let before = std::mem::replace(
            &mut self.config,
            loaded.map_err(|error| crate::chain(&error))?.config,
        );
        // Which wait for a restart.
        self.config.host.data_dir = data_dir.to_owned();
        self.config.vm = before.vm;
        Ok(())
    }
}

impl Warden {
    /// Answers what only the warden of a daemon is asked.
    pub(super) fn answer_daemon(
        &mut self,
        number: u64,
        message: Request,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let refused = |what: &str| Err::<Reply, _>(io::Error::other(what.to_owned()));
        if let (Request::Tell { news }, Some(front)) = (&message, &mut self.front) {
            match news {
                News::Ready => {
                    front.is_ready = true;
                    os::service_is_ready();
                }
                News::Lives => os::service_lives(),
                News::Stops => {
                    for (path, _) in front.doors.drain(..) {
                        let _ = std::fs::remove_file(path);
                    }
                    front.stops = true;
                    os::service_stops();
                }
                News::Reloaded => {
                    // One that cannot be read grants what the last one did.
                    let loaded = crate::config::load_or_default(front.config_file.as_deref(), self.host.os);
                    if let (Some(bounds), Ok(loaded)) = (&mut self.bounds, loaded) {
                        bounds.granted = granted(&loaded.config);
                    }
                }
            }
            // Only what is read anew concerns the steward.
            if *news != News::Reloaded {
                return self.reply(number, Ok::<_, io::Error>(Reply::Done));
            }
        }
        if let Some(steward) = self.front.as_ref().and_then(|front| front.steward.as_ref()) {
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            return wire::send(steward, &Numbered { number, message }, &descriptors);
        }
        let Some(post) = &mut self.post else {
            return self.reply(number, refused("this warden is no daemon's"));
        };
        match message {
            Request::Tell { .. } => {
                let read = post.read_again(&self.host, &self.data_dir);
                self.reply(number, read.map(|()| Reply::Done).map_err(io::Error::other))
            }
            Request::Compare => match &post.filter {
                Some(filter) => wire::send(filter, &Some(number), &[]),
                None => self.reply(number, refused("this daemon holds no packet filter")),
            },
            Request::Look { subject, digest } => {
                let config = post.config.clone();
                self.in_worker(number, || look(&self.host, &config, subject, &digest))
            }
            Request::Secrets => {
                let config = post.config.clone();
                self.in_worker(number, || secrets(&config))
            }
            Request::Prune { live } => {
                let config = post.config.clone();
                self.in_worker(number, || prune(&config, live))
            }
            Request::Attend { spec } => {
                let Some(hands) = &post.hands else {
                    return self.reply(number, refused("no guests are made here"));
                };
                if !post.is_of_backend(&spec) {
                    return self.reply(number, refused("this is no environment of a backend's"));
                }
                match hands.attendant.start_for(&spec, descriptors) {
                    Ok(pid) => {
                        self.tools.insert(pid, number);
                        Ok(())
                    }
                    Err(error) => self.reply(number, Err::<Reply, _>(error)),
                }
            }
            Request::Guest { name, deed } => match post.hands.clone() {
                Some(hands) => self.in_worker(number, || hands.perform(&name, deed)),
                None => self.reply(number, refused("no guests are made here")),
            },
            other => self.reply(number, refused(&format!("{other:?} is no request of a daemon's"))),
        }
    }

    /// Answers another dispatcher from now on, as the process of the packet filter does then. Whoever asked before is gone, and
    /// the answers to it with it: the next one counts anew.
    pub(super) fn link_to(&mut self, number: u64, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let (Some(post), Some(link)) = (&self.post, descriptors.into_iter().next()) else {
            let refused = io::Error::other("this is nothing that a dispatcher asks");
            return self.reply(number, Err::<Reply, _>(refused));
        };
        if let Some(filter) = &post.filter {
            wire::send(filter, &None::<u64>, &[link.as_fd()])?;
        }
        self.link = link.into();
        self.tools.clear();
        self.workers.borrow_mut().clear();
        Ok(())
    }

    pub(super) fn make_entrance(&self, slot: u32, account: &Account) -> Result<UnixListener, String> {
        let place = Place::new(&self.host.run, &self.data_dir, slot).map_err(|error| error.to_string())?;
        entrance::make(&place, &self.program, account).map_err(|error| crate::chain(&error))
    }
}

/// The secrets that the configuration names.
fn secrets(config: &Config) -> Reply {
    let read = config.github.as_ref().map(Secrets::read).transpose();
    match read {
        Ok(secrets) => Reply::Secrets(Packed::from(&secrets.unwrap_or_default())),
        Err(error) => Reply::Failed {
            reason: crate::chain(&error),
        },
    }
}

/// Removes what the configuration has no room for.
fn prune(config: &Config, mut live: BTreeSet<JobId>) -> Reply {
    let pruned = || -> Result<Reply, String> {
        // A job that has come since may have something by now.
        live.extend(super::scrub::folders(&config.host.data_dir).map_err(|error| error.to_string())?);
        let pruned = host::prune::prune(config, || Ok::<_, PruneError>(live), false);
        let Pruned { gone, failed } = pruned.map_err(|error| crate::chain(&error))?;
        let failed = failed
            .iter()
            .map(|(chosen, error)| format!("{chosen}: {}", crate::chain(error)));
        Ok(Reply::Pruned {
            gone: gone.iter().map(ToString::to_string).collect(),
            failed: failed.collect(),
        })
    };
    pruned().unwrap_or_else(|reason| Reply::Failed { reason })
}

/// What a manifest asks of the bare host, answered. The manifest is the one that the configuration names, and not one that
/// somebody else has at hand: its commands run as whoever it names, root among others.
fn look(host: &Host, config: &Config, subject: Option<Repo>, digest: &str) -> Reply {
    let answered = || -> Result<Reply, String> {
        let name = match &subject {
            None => config.host.manifest(host.os),
            Some(repo) => config.repos.get(repo).and_then(|repo| repo.manifest.as_deref()),
        };
        let name = name.ok_or("the configuration names no such manifest")?;
        let manifest = manifest::load(name, "/".into()).map_err(|error| crate::chain(&error))?;
        if manifest.digest != digest {
            return Err(format!("the manifest `{name}` has changed meanwhile"));
        }
        let asked = Asked::new(host, config, manifest);
        let answers = answer_all(host, View::Host, &asked.outside, &|_| {});
        Ok(Reply::Answers { answers })
    };
    answered().unwrap_or_else(|reason| Reply::Failed { reason })
}
