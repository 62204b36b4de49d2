//! What earlier attempts for a job of GitHub's say of it, as the ledger has them.

use crate::github::claim::BLOCKED;
use crate::github::ticket::Key;
use crate::job::Outcome;
use crate::job::ledger::Attempt;
use crate::job::run::{DAEMON_ENDED, DAEMON_STOPPED};
use crate::trust::Route;

/// Whether this is no attempt but the note that a job may not run here. A runner that was not needed, let through or made
/// is refused as well, and its job may have another.
pub(super) fn is_told(attempt: &Attempt) -> bool {
    match &attempt.outcome {
        Some(Outcome::Refused { reason }) => attempt.route == Route::Refuse || reason.starts_with(BLOCKED),
        _ => false,
    }
}

/// Why an earlier attempt was for nothing; `None` for one that ran its job, was taken back, or ended with the daemon.
pub(super) fn wasted(attempt: &Attempt, key: &Key) -> Option<String> {
    if attempt.taken.as_ref().is_some_and(|taken| taken.key() == *key) {
        return None;
    }
    match attempt.outcome.as_ref()? {
        Outcome::Failed { reason } if ![DAEMON_ENDED, DAEMON_STOPPED].contains(&reason.as_str()) => {
            Some(reason.clone())
        }
        Outcome::Idle => Some(Outcome::Idle.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::github::poll::{DRAINED, WITHDRAWN};
    use crate::job::JobId;
    use std::time::UNIX_EPOCH;

    fn attempt(route: Route, outcome: Outcome) -> Attempt {
        Attempt {
            job: JobId::new(UNIX_EPOCH, 1),
            route,
            outcome: Some(outcome),
            taken: None,
        }
    }

    fn refused(reason: &str) -> Outcome {
        let reason = reason.to_owned();
        Outcome::Refused { reason }
    }

    #[test]
    fn a_runner_that_was_not_needed_or_not_let_through_is_no_word_on_its_job() {
        assert!(is_told(&attempt(Route::Refuse, refused("a fork"))));
        let given_up = "blocked: after 5 attempts: GitHub did not answer";
        assert!(is_told(&attempt(Route::Native, refused(given_up))));
        for reason in [WITHDRAWN, DRAINED, "this host is not enabled"] {
            assert!(!is_told(&attempt(Route::Native, refused(reason))), "{reason}");
            assert!(!is_told(&attempt(Route::Vm, refused(reason))), "{reason}");
        }
        assert!(!is_told(&attempt(Route::Native, Outcome::Idle)));
    }

    #[test]
    fn an_attempt_that_a_daemon_ended_by_ending_is_not_counted() {
        let key = ("acme/app".to_owned(), 30);
        let failed = |reason: &str| {
            let reason = reason.to_owned();
            wasted(&attempt(Route::Native, Outcome::Failed { reason }), &key)
        };
        assert_eq!(failed(DAEMON_ENDED), None);
        assert_eq!(failed(DAEMON_STOPPED), None);
        assert_eq!(
            failed("GitHub did not answer").as_deref(),
            Some("GitHub did not answer")
        );
    }
}
