//! Times as GitHub writes them.

/// The year, month, day, hour, minute, second and day of the week (0 is Sunday) of a moment in Unix seconds.
///
/// The calendar is Howard Hinnant's `civil_from_days`.
fn parts(unix_s: i64) -> [i64; 7] {
    let (days, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    [
        year,
        month,
        day,
        second / 3_600,
        second / 60 % 60,
        second % 60,
        (days + 4).rem_euclid(7),
    ]
}

/// A moment as in the API's JSON.
pub(super) fn iso(unix_s: i64) -> String {
    let [year, month, day, hour, minute, second, _] = parts(unix_s);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A moment as in the `Date` header.
pub(super) fn http_date(unix_s: i64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let [year, month, day, hour, minute, second, weekday] = parts(unix_s);
    let named = |names: &[&'static str], index: i64| names[usize::try_from(index).expect("in range")];
    let (weekday, month) = (named(&DAYS, weekday), named(&MONTHS, month - 1));
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[test]
fn writes_moments_as_github_does() {
    assert_eq!(iso(1_767_225_599), "2025-12-31T23:59:59Z");
    assert_eq!(iso(1_709_164_800), "2024-02-29T00:00:00Z");
    assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
}
