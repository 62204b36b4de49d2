//! launchd is told nothing: a daemon of its that runs is taken as ready, and there is no watchdog.

use std::time::Duration;

/// Nobody is told.
pub(crate) fn service_is_ready() {}

/// Nobody is told.
pub(crate) fn service_lives() {}

/// Nobody is told.
pub(crate) fn service_stops() {}

/// Nobody waits for a sign of life.
pub(crate) fn watchdog() -> Option<Duration> {
    None
}
