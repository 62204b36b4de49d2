//! A network namespace of its own, with nothing but a loopback interface: what is filtered there is filtered for no one
//! else.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

/// It ends with this and the processes in it.
pub(crate) struct Network(File);

impl Network {
    pub(crate) fn new() -> Self {
        // Only this thread moves there.
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let up = Command::new("/usr/sbin/ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.unwrap().success());
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    /// A program that runs in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let own = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        let mut command = Command::new("/usr/bin/nsenter");
        command.arg(format!("--net={own}")).arg(program);
        command
    }

    /// What `does` does in it. Sockets that it makes stay there.
    pub(crate) fn within<T: Send>(&self, does: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                does()
            });
            inside.join().unwrap()
        })
    }
}
