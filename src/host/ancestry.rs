//! Whose child a process is.

use std::io;

use super::os;

/// Processes that are looked at on the way up. A job's own are a few; more can only be a way that changes while it is
/// walked.
const MOST: usize = 64;

/// Whether the process `pid` was started by `ancestor`, or by a process that was. A process whose parent has ended is one
/// of whoever the system gave it to: of the job's first process in a namespace of Linux, and of nobody that counts on
/// macOS.
///
/// # Errors
/// The system does not tell, which is not the same as a process that has ended: that one descends from nobody.
pub(crate) fn descends(pid: i32, ancestor: i32) -> io::Result<bool> {
    climb(pid, ancestor, os::parent_of)
}

fn climb(pid: i32, ancestor: i32, parent_of: impl Fn(i32) -> io::Result<Option<i32>>) -> io::Result<bool> {
    let mut at = pid;
    for _ in 0..MOST {
        // Nobody's child is the job's, and neither is one of the kernel or of the system's first process.
        match parent_of(at)? {
            Some(parent) if parent > 1 => at = parent,
            Some(_) | None => return Ok(false),
        }
        if at == ancestor {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 ─ 10 ─ 11 ─ 12, 1 ─ 20 ─ 21, and 30 and 31 that are each other's parents.
    fn parent(pid: i32) -> io::Result<Option<i32>> {
        Ok(match pid {
            12 => Some(11),
            11 => Some(10),
            21 => Some(20),
            10 | 20 => Some(1),
            1 => Some(0),
            30 => Some(31),
            31 => Some(30),
            40 => return Err(io::ErrorKind::PermissionDenied.into()),
            _ => None,
        })
    }

    #[test]
    fn children_and_their_children_descend_and_nobody_else_does() {
        let descends = |pid, ancestor| climb(pid, ancestor, parent).unwrap();
        assert!(descends(11, 10) && descends(12, 10) && descends(12, 11));
        for (pid, ancestor) in [
            (10, 10),
            (10, 11),
            (21, 10),
            (12, 1),
            (12, 0),
            (99, 10),
            (0, 10),
            (-1, 10),
        ] {
            assert!(!descends(pid, ancestor), "{pid} {ancestor}");
        }
    }

    #[test]
    fn a_way_that_has_no_end_is_given_up_and_one_that_is_not_told_is_an_error() {
        assert!(!climb(30, 10, parent).unwrap());
        assert!(climb(40, 10, parent).is_err());
    }

    #[test]
    fn this_process_descends_from_its_parent_and_not_from_itself() {
        let (own, parent) = (nix::unistd::getpid(), nix::unistd::getppid());
        assert!(descends(own.as_raw(), parent.as_raw()).unwrap());
        assert!(!descends(own.as_raw(), own.as_raw()).unwrap());
        assert!(!descends(parent.as_raw(), own.as_raw()).unwrap());
    }
}
