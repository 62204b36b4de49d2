//! ephemerd runs CI jobs directly on a host its owner controls, each fenced in by the operating system
//! and gone afterwards without a trace.
//!
//! ```text
//!  source ─► JobSpec ─► trust ─► Route ─┬─ Refuse → reason, shown in `jobs`
//!                                       ├─ Vm     → refused while no VM backend is configured
//!                                       └─ Native → slot
//!    → ledger       every acquisition is recorded before it happens
//!    → workspace    folders of the slot's account
//!    → profile      render → parse back → check expectations
//!    → sandbox      launch plan → warden → confined process
//!    → supervise    output by pipe, limits, timeout, cancel
//!    → scrub        ledger backwards: kill → remove → verify clean
//! ```
//!
//! Three stages are kept apart. **Decide** is pure: [`trust`], [`job::state`], [`profile`]. **Describe** is
//! pure too and yields commands, policies and plans as data. **Do** is [`host`], [`warden`] and the
//! sandbox's init, which alone start programs and change the system.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod host;
pub mod job;
pub mod probe;
pub mod profile;
pub mod sandbox;
pub mod slot;
pub mod trust;
pub mod warden;
pub mod workspace;

/// An error with everything that caused it, outermost first, separated by colons. A `hint:` line stays last.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let (mut text, mut hints) = (Vec::new(), Vec::new());
    for cause in causes {
        let whole = cause.to_string();
        let mut lines = whole.lines();
        let said: Vec<&str> = lines
            .by_ref()
            .take_while(|line| !line.starts_with("hint: "))
            .collect();
        let hint = whole
            .lines()
            .filter(|line| line.starts_with("hint: "))
            .map(str::to_owned);
        hints.extend(hint);
        let said = said.join("\n");
        // A transparent error says the same as its cause.
        if text.last() != Some(&said) {
            text.push(said);
        }
    }
    hints.dedup();
    [vec![text.join(": ")], hints].concat().join("\n")
}
