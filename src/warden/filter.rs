//! The process that holds the packet filter for a daemon: a child of the warden, so that nothing waits for the tools of the
//! packet filter but who asked. It answers straight to the dispatcher.

use std::io;
use std::os::unix::net::UnixStream;

use nix::unistd::{ForkResult, fork};

use super::serve::Warden;
use super::supervise::HEARING;
use super::{Reply, wire};
use crate::host::egress::EgressError;
use crate::host::egress::filter::Filter;

impl Warden {
    /// Starts the process, which ends when the returned end of its socket is closed. Its pid, and that end.
    ///
    /// # Errors
    /// The system refuses another process.
    pub(super) fn start_filter(&mut self, filter: &mut Filter) -> io::Result<(i32, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_write_timeout(Some(HEARING))?;
        // SAFETY: this process has one thread, so the child may do whatever it likes.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok((child.as_raw(), ours)),
            ForkResult::Child => {
                drop(ours);
                let served = self.compare_for(&theirs, filter);
                // SAFETY: ends the child without running the parent's destructors.
                unsafe { libc::_exit(i32::from(served.is_err())) }
            }
        }
    }

    fn compare_for(&mut self, asked: &UnixStream, filter: &mut Filter) -> io::Result<()> {
        while let Some((number, descriptors)) = wire::receive::<Option<u64>>(asked)? {
            let Some(number) = number else {
                // Another dispatcher is answered from now on.
                if let Some(link) = descriptors.into_iter().next() {
                    self.link = link.into();
                }
                continue;
            };
            let reply = match filter.compare() {
                Ok(compared) => Reply::Compared(compared),
                Err(EgressError::Lost { why }) => Reply::Lost { why },
                Err(error) => Reply::Failed {
                    reason: crate::chain(&error),
                },
            };
            // Who asked may be gone, and another one comes.
            let _ = self.reply_with(number, reply, &[]);
        }
        Ok(())
    }
}
