//! The rows of `[prune]`.

use super::{Rows, quote, show_duration, show_size};
use crate::prune::Limits;

/// Adds them.
pub(super) fn rows_of(rows: &mut Rows<'_>, limits: &Limits) {
    let Limits {
        logs_max_age,
        logs_max_byte,
        kept_max_age,
        kept_max_byte,
        jobs,
        min_free_byte,
    } = limits;
    rows.add(&["prune", "logs_max_age"], quote(&show_duration(*logs_max_age)));
    rows.add(&["prune", "logs_max_size"], quote(&show_size(*logs_max_byte)));
    rows.add(&["prune", "kept_max_age"], quote(&show_duration(*kept_max_age)));
    rows.add(&["prune", "kept_max_size"], quote(&show_size(*kept_max_byte)));
    rows.add(&["prune", "jobs"], jobs.to_string());
    rows.add(&["prune", "min_free"], quote(&show_size(*min_free_byte)));
}
