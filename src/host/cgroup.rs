//! Control groups of Linux, version 2: what the kernel keeps a whole job to, however many processes and sessions it makes
//! (Documentation/admin-guide/cgroup-v2.rst).
//!
//! A tree has one owner. Ours is what the service manager hands over (`Delegate=yes`, systemd.resource-control(5)), or the
//! host's own root where nobody manages it, as in a small virtual machine. Anything else is somebody's, and is left alone.
//!
//! ```text
//!  ephemerd.service        handed over            or   / of the host
//!   ├─ daemon              our own processes            └─ ephemerd
//!   └─ jobs                                                 └─ JOB
//!       └─ JOB
//! ```

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use camino::{Utf8Path, Utf8PathBuf};

use crate::job::JobId;
use crate::sandbox::launch::GroupLimits;

/// What jobs need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Our own processes, beside the jobs: a group with children has no processes itself.
const DAEMON: &str = "daemon";

/// Says that a group is handed over; the first since systemd 251, the other to root before.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// How much more of the processors our own processes get than a job, which has 100.
const DAEMON_WEIGHT: &str = "500";

/// A tree that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Its top.
    top: Utf8PathBuf,
    /// Whether that is the host's own root, in which processes stay where they are.
    is_root: bool,
}

/// The mount point of version 2 and where this process is below it, from the texts of `/proc/self/mountinfo` and
/// `/proc/self/cgroup` (cgroups(7)).
fn place(mountinfo: &str, cgroup: &str) -> Result<Utf8PathBuf, String> {
    let own = cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or("this kernel has no control groups of version 2")?;
    let mounted = mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup2 ").then_some((root, point))
    });
    let (root, point) = mounted.ok_or("control groups of version 2 are not mounted")?;
    let below = Utf8Path::new(own)
        .strip_prefix(root)
        .map_err(|_| "the control group of this process is not below what is mounted")?;
    Ok(Utf8Path::new(point).join(below))
}

/// The tree that is ours, without changing anything.
///
/// # Errors
/// There is none; why, in words.
pub fn look() -> Result<Tree, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("`{path}`: {error}"));
    let own = place(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)?;
    let tree = ours(&own).ok_or(
        "the control group of this process is not handed over to it\nhint: run it as a service with `Delegate=yes`, which `ephemerd host install` makes",
    )?;
    let there = read(tree.top.join("cgroup.controllers").as_str())?;
    let there: Vec<&str> = there.split_whitespace().collect();
    match CONTROLLERS.iter().find(|name| !there.contains(name)) {
        Some(missing) => Err(format!(
            "the controller `{missing}` is not there: version 1 may have it (cgroup_no_v1 of the kernel), or nobody hands it over"
        )),
        None => Ok(tree),
    }
}

fn ours(own: &Utf8Path) -> Option<Tree> {
    // The root alone has no type.
    if own.join("cgroup.procs").exists() && !own.join("cgroup.type").exists() {
        return Some(Tree {
            top: own.to_owned(),
            is_root: true,
        });
    }
    let is_delegated = |group: &Utf8Path| {
        let says = |name: &&str| -> bool {
            let mut value = [0_u8; 8];
            let read = rustix::fs::getxattr(group.as_std_path(), *name, &mut value[..]);
            read.is_ok_and(|length| value.get(..length) == Some(b"1"))
        };
        DELEGATED.iter().any(says)
    };
    // A daemon that was started by an earlier one is where that has put itself.
    let above = own.parent().filter(|_| own.file_name() == Some(DAEMON));
    [Some(own), above]
        .into_iter()
        .flatten()
        .find(|group| is_delegated(group))
        .map(|group| Tree {
            top: group.to_owned(),
            is_root: false,
        })
}

impl Tree {
    /// Divides the tree, so that jobs can have groups of their own. Doing so again changes nothing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn prepare(&self) -> io::Result<()> {
        if !self.is_root {
            let daemon = self.top.join(DAEMON);
            make(&daemon)?;
            // Whoever starts meanwhile is in the next list.
            while let Some(pids) = processes(&self.top)? {
                for pid in pids {
                    match fs::write(daemon.join("cgroup.procs"), &pid) {
                        // It has ended.
                        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                        written => written?,
                    }
                }
            }
        }
        let enable: String = CONTROLLERS.map(|name| format!("+{name} ")).concat();
        fs::write(self.top.join("cgroup.subtree_control"), enable.trim_end())?;
        if !self.is_root {
            fs::write(self.top.join(DAEMON).join("cpu.weight"), DAEMON_WEIGHT)?;
        }
        make(&self.jobs())?;
        fs::write(self.jobs().join("cgroup.subtree_control"), enable.trim_end())
    }

    fn jobs(&self) -> Utf8PathBuf {
        self.top.join(if self.is_root { "ephemerd" } else { "jobs" })
    }

    fn of(&self, job: &JobId) -> Utf8PathBuf {
        self.jobs().join(job.as_str())
    }

    /// Makes the group of a job, with its limits, and returns it opened, for clone3(2) to put the first process there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn make(&self, job: &JobId, limits: GroupLimits) -> io::Result<OwnedFd> {
        let group = self.of(job);
        make(&group)?;
        let GroupLimits {
            memory_byte,
            processes,
        } = limits;
        fs::write(group.join("memory.max"), memory_byte.to_string())?;
        fs::write(group.join("pids.max"), processes.to_string())?;
        // Where there is swap, a job does not get around its limit by it.
        match fs::write(group.join("memory.swap.max"), "0") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            written => written?,
        }
        Ok(File::open(&group)?.into())
    }

    /// Whether the kernel has ended a process of a job because the job had no memory left.
    pub fn has_ended_one(&self, job: &JobId) -> bool {
        let events = fs::read_to_string(self.of(job).join("memory.events")).unwrap_or_default();
        let mut counts = events.lines().filter_map(|line| line.strip_prefix("oom_kill "));
        counts.any(|count| count.trim() != "0")
    }

    /// Ends everything in the group of a job and removes it; one that is not there is removed.
    ///
    /// # Errors
    /// Something in it has not ended by `deadline`, or the kernel refuses.
    pub fn end(&self, job: &JobId, deadline: Instant) -> io::Result<()> {
        let group = self.of(job);
        loop {
            // Kernels before 5.14 have no such file; its processes are killed by their account as well.
            let _ = fs::write(group.join("cgroup.kill"), "1");
            match fs::remove_dir(&group) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    // What was killed takes a moment to go, and nothing tells when.
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("the control group `{group}` stays: {error}"),
                    ));
                }
                Ok(()) => return Ok(()),
            }
        }
    }
}

fn make(group: &Utf8Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// The processes of a group, if it has any.
fn processes(group: &Utf8Path) -> io::Result<Option<Vec<String>>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    let pids: Vec<String> = text.lines().map(str::to_owned).collect();
    Ok((!pids.is_empty()).then_some(pids))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn a_process_is_below_the_mount_of_version_2() {
        let place = |mounts: &str, own: &str| place(mounts, own);
        assert_eq!(
            place(UNIFIED, "0::/system.slice/ephemerd.service\n").unwrap(),
            "/sys/fs/cgroup/system.slice/ephemerd.service"
        );
        assert_eq!(place(UNIFIED, "0::/\n").unwrap(), "/sys/fs/cgroup/");
        let hybrid = "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      35 24 0:30 /a /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(
            place(hybrid, "4:cpu:/\n0::/a/b\n").unwrap(),
            "/sys/fs/cgroup/unified/b"
        );
    }

    #[test]
    fn where_there_is_none_it_says_why() {
        for (mounts, own, why) in [
            (UNIFIED, "4:cpu:/\n", "no control groups of version 2"),
            ("", "0::/\n", "not mounted"),
            (&UNIFIED.replace(" / /sys", " /a /sys"), "0::/b\n", "not below"),
        ] {
            let error = place(mounts, own).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_group_of_somebody_elses_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let own = Utf8Path::from_path(folder.path()).unwrap();
        for file in ["cgroup.procs", "cgroup.type"] {
            fs::write(own.join(file), "").unwrap();
        }
        assert_eq!(ours(own), None);
        fs::remove_file(own.join("cgroup.type")).unwrap();
        assert!(ours(own).unwrap().is_root);
    }
}
