//! Names of guests. The name is the ownership: nothing is stopped, deleted or swept whose name is not ours.

use std::fmt;

use camino::Utf8Path;
use sha2::{Digest, Sha256};

use crate::job::JobId;

/// What the names of all guests of one installation begin with: `eph-`, what the installation calls itself, and some of a
/// hash of the data folder, so that two installations on one host, or two hosts that share a store of images, leave each
/// other alone. Not the host's name, which changes with the network it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(String);

impl Owner {
    /// The owner for the installation that calls itself `id` ([`crate::host::installation`]), with this data folder.
    pub fn new(id: &str, data_dir: &Utf8Path) -> Self {
        let hash = Sha256::digest(data_dir.as_str());
        let hash: String = hash.iter().take(2).map(|byte| format!("{byte:02x}")).collect();
        Self(format!("eph-{id}{hash}-"))
    }

    /// The name of a job's guest; each attempt has its own, so that what one left is never taken for the next.
    pub fn name(&self, job: &JobId, attempt: u32) -> VmName {
        VmName(format!("{}{job}-{attempt}", self.0))
    }

    /// `text` as a name of ours; `None` for everybody else's.
    pub fn own(&self, text: &str) -> Option<VmName> {
        let (job, attempt) = text.strip_prefix(&self.0)?.split_once('-')?;
        let is_own = job.parse::<JobId>().is_ok() && attempt.parse::<u32>().is_ok();
        is_own.then(|| VmName(text.to_owned()))
    }
}

/// The name of one guest of ours: lower-case letters, digits and `-` only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmName(String);

impl VmName {
    /// A name for commands that are about no guest.
    pub(super) fn nobody() -> Self {
        Self(String::new())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a program's arguments name this guest: as a whole word, or as part of a path or an option.
    pub fn is_in<'a>(&self, mut args: impl Iterator<Item = &'a str>) -> bool {
        let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '-');
        args.any(|arg| {
            arg.match_indices(&self.0).any(|(at, found)| {
                is_edge(arg[..at].chars().next_back()) && is_edge(arg[at + found.len()..].chars().next())
            })
        })
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn owner() -> Owner {
        Owner::new("0a1b2c", "/var/lib/ephemerd".into())
    }

    #[test]
    fn a_name_says_whose_guest_it_is_and_of_which_job_and_attempt() {
        let job = JobId::new(UNIX_EPOCH, 0);
        let name = owner().name(&job, 2);
        assert_eq!(name.as_str(), "eph-0a1b2cfd11-00000000000-2");
        assert_eq!(owner().own(name.as_str()), Some(name));
    }

    #[test]
    fn what_others_named_is_not_ours_however_like_it_is() {
        let job = JobId::new(UNIX_EPOCH, 0);
        let elsewhere = Owner::new("0a1b2c", "/srv/other".into()).name(&job, 1);
        for other in [
            elsewhere.as_str(),
            "eph-0a1b2cfd11-",
            "eph-0a1b2cfd11-base",
            "eph-0a1b2cfd11-00000000000",
            "eph-0a1b2cfd11-00000000000-x",
            "xeph-0a1b2cfd11-00000000000-1",
            "macos-base",
        ] {
            assert_eq!(owner().own(other), None, "{other}");
        }
    }

    #[test]
    fn a_program_names_a_guest_only_by_its_whole_name() {
        let name = owner().name(&JobId::new(UNIX_EPOCH, 0), 1);
        let full = name.as_str();
        for (arg, is_in) in [
            (full.to_owned(), true),
            (
                format!("file=/var/lib/ephemerd/vm/{full}/disk.qcow2,if=none"),
                true,
            ),
            (format!("--name={full}"), true),
            (format!("{full}0"), false),
            (format!("x{full}"), false),
            (format!("{full}-old"), false),
        ] {
            assert_eq!(name.is_in(["qemu", &arg].into_iter()), is_in, "{arg}");
        }
    }
}
