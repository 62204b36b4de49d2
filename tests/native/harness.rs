//! What the tests share: a place of their own on the host, a running daemon in it, and the counting of what is
//! there before and after.

mod census;
mod daemon;
mod family;
pub(crate) mod journal;
pub(crate) mod net;
mod site;
pub(crate) mod small;

pub(crate) use census::{Census, files_of_accounts, processes_of, status_field};
pub(crate) use daemon::Daemon;
pub(crate) use family::Family;
pub(crate) use site::Site;

use std::ffi::OsStr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_ephemerd");

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A command that is not started yet.
#[expect(
    clippy::disallowed_methods,
    reason = "the program under test must be started, and from outside"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Looks again and again until `look` finds something; the pause only spares the processor.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, look)
}

/// The same with another patience.
#[track_caller]
pub(crate) fn wait_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not come about within {patience:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Standard output as text.
pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Everything a command said, for messages of failed assertions.
pub(crate) fn said(output: &Output) -> String {
    format!(
        "{:?}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        out(output),
        err(output)
    )
}
