//! What systemd is told of the daemon (sd_notify(3)). Where the daemon was not started by systemd, nothing is.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells that jobs are taken from now on.
pub(crate) fn service_is_ready() {
    notify(NotifyState::Ready);
}

/// Tells that the daemon still works.
pub(crate) fn service_lives() {
    notify(NotifyState::Watchdog);
}

/// Tells that the daemon ends, and takes its time.
pub(crate) fn service_stops() {
    notify(NotifyState::Stopping);
}

/// How often [`service_lives`] is to be called: three times as often as systemd asks for, so that one late call is none too
/// many.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|within| within / 3)
}

/// Jobs go on although systemd cannot be told.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "could not tell systemd");
    }
}
