//! Times and sizes in words.

use chrono::{DateTime, Utc};

/// A moment in milliseconds since 1970 as date and time of day, in UTC.
pub(crate) fn moment(ms: u64) -> String {
    at(ms, "%Y-%m-%d %H:%M:%S")
}

/// Its time of day, in UTC.
pub(super) fn clock(ms: u64) -> String {
    at(ms, "%H:%M:%S")
}

/// Its hour, in UTC.
pub(super) fn hour(ms: u64) -> String {
    at(ms, "%H:%M")
}

fn at(ms: u64, format: &str) -> String {
    let moment = i64::try_from(ms)
        .ok()
        .and_then(DateTime::<Utc>::from_timestamp_millis);
    moment.map_or_else(|| "-".to_owned(), |moment| moment.format(format).to_string())
}

/// How long something took, with as much detail as one cares for.
pub(super) fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms} ms"),
        1..10 => format!("{s}.{} s", ms % 1000 / 100),
        10..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86400, s % 86400 / 3600),
    }
}

/// The time between two moments, a dash while one is missing.
pub(super) fn between(from: Option<u64>, to: Option<u64>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => span(to.saturating_sub(from)),
        _ => "–".to_owned(),
    }
}

/// A size in bytes.
pub(super) fn size(byte: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if byte < 1024 {
        return format!("{byte} B");
    }
    let (mut whole, mut rest, mut unit) = (byte / 1024, byte % 1024, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        (whole, rest, unit) = (whole / 1024, whole % 1024, unit + 1);
    }
    match whole {
        0..10 => format!("{whole}.{} {}", rest * 10 / 1024, UNITS[unit]),
        _ => format!("{whole} {}", UNITS[unit]),
    }
}

/// The first line of a reason, without its hint.
pub(super) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_with_as_much_detail_as_one_cares_for() {
        let told = [0, 999, 1_000, 9_999, 59_999, 61_000, 3_600_000, 90_000_000].map(span);
        assert_eq!(
            told,
            [
                "0 ms",
                "999 ms",
                "1.0 s",
                "9.9 s",
                "59 s",
                "1 min 1 s",
                "1 h 0 min",
                "1 d 1 h"
            ]
        );
        assert_eq!(between(Some(5), None), "–");
        assert_eq!(between(Some(5), Some(3)), "0 ms", "a clock that was set back");
    }

    #[test]
    fn moments_are_in_utc() {
        assert_eq!(moment(1_795_713_601_000), "2026-11-26 17:20:01");
        assert_eq!(hour(1_795_713_601_000), "17:20");
        assert_eq!(clock(u64::MAX), "-");
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        let told = [0, 1023, 1024, 1536, 20 << 20, 5 << 30, 3 << 40, u64::MAX].map(size);
        assert_eq!(
            told,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "20 MiB",
                "5.0 GiB",
                "3.0 TiB",
                "16777215 TiB"
            ]
        );
    }
}
