//! Sizes and durations as people write them: a whole number and a unit, `"8GiB"`, `"2h"`.
//!
//! A bare number is an error, because nobody can tell its unit; so are zero and negative ones, because no
//! key means anything by them.

use std::time::Duration;

/// Bytes per unit, largest first. `KiB` to `TiB` are powers of 1024, `KB` to `TB` of 1000 (IEC 80000-13).
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Milliseconds per unit, largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The largest size in bytes: file sizes are signed 64-bit numbers (`off_t`, POSIX `<sys/types.h>`).
const MAX_BYTE: u64 = i64::MAX.unsigned_abs();

/// The longest duration in milliseconds, 365 days: far above any use, far below what overflows a clock.
const MAX_MS: u64 = 365 * 86_400_000;

/// Why a piece of text is not a size or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a whole number followed by a unit.
    #[error("`{text}` is not a {what}\nhint: write a whole number and a unit, for example \"{example}\"")]
    Malformed {
        /// The text.
        text: String,
        /// `size` or `duration`.
        what: &'static str,
        /// A good one.
        example: &'static str,
    },
    /// A number alone.
    #[error("`{text}` has no unit\nhint: write the unit as well, for example \"{example}\"")]
    Bare {
        /// The text.
        text: String,
        /// A good one.
        example: &'static str,
    },
    /// Zero or less.
    #[error("`{text}` is not above zero\nhint: for example \"{example}\"")]
    NotPositive {
        /// The text.
        text: String,
        /// A good one.
        example: &'static str,
    },
    /// A number followed by something else.
    #[error("`{text}` has an unknown unit `{unit}`\nhint: units are {known}")]
    Unit {
        /// The text.
        text: String,
        /// What follows the number.
        unit: String,
        /// The known units.
        known: String,
    },
    /// More than there is a use for.
    #[error("`{text}` is too large\nhint: the largest is \"{largest}\"")]
    TooLarge {
        /// The text.
        text: String,
        /// The largest that is accepted.
        largest: String,
    },
}

/// One family of units and the words its errors use.
struct Scale {
    what: &'static str,
    example: &'static str,
    units: &'static [(&'static str, u64)],
    max: u64,
}

const SIZE: Scale = Scale {
    what: "size",
    example: "8GiB",
    units: &SIZE_UNITS,
    max: MAX_BYTE,
};

const DURATION: Scale = Scale {
    what: "duration",
    example: "30m",
    units: &DURATION_UNITS,
    max: MAX_MS,
};

/// The size that `text` states, in bytes, above zero.
///
/// # Errors
///
/// When `text` is not a whole number and a unit, or is zero, negative or above 2^63 - 1 bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    SIZE.parse(text)
}

/// The duration that `text` states, above zero.
///
/// # Errors
///
/// When `text` is not a whole number and a unit, or is zero, negative or above 365 days.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    DURATION.parse(text).map(Duration::from_millis)
}

/// The size of `byte` bytes as text in the largest unit that states it exactly.
pub fn show_size(byte: u64) -> String {
    SIZE.show(byte)
}

/// The duration as text in the largest unit that states it exactly; less than a millisecond is dropped.
pub fn show_duration(duration: Duration) -> String {
    DURATION.show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl Scale {
    fn parse(&self, text: &str) -> Result<u64, UnitError> {
        let example = self.example;
        let owned = text.to_owned();
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(unsigned.len());
        let (digits, unit) = unsigned.split_at(end);
        if digits.is_empty() || unit.starts_with(['.', ',', '_']) {
            let what = self.what;
            return Err(UnitError::Malformed {
                text: owned,
                what,
                example,
            });
        }
        if unsigned != text || digits.bytes().all(|b| b == b'0') {
            return Err(UnitError::NotPositive { text: owned, example });
        }
        if unit.is_empty() {
            return Err(UnitError::Bare { text: owned, example });
        }
        let Some((_, factor)) = self.units.iter().find(|(name, _)| *name == unit) else {
            let names: Vec<&str> = self.units.iter().rev().map(|(name, _)| *name).collect();
            return Err(UnitError::Unit {
                text: owned,
                unit: unit.to_owned(),
                known: names.join(", "),
            });
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*factor))
            .filter(|total| *total <= self.max)
            .ok_or_else(|| UnitError::TooLarge {
                text: owned,
                largest: self.show(self.max),
            })
    }

    fn show(&self, total: u64) -> String {
        let exact = self
            .units
            .iter()
            .find(|(_, factor)| total.is_multiple_of(*factor));
        // The smallest factor is one, so there always is an exact unit.
        exact.map_or_else(String::new, |(name, factor)| format!("{}{name}", total / factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_unit() {
        let sizes = [
            ("1024B", 1024),
            ("512KiB", 524_288),
            ("100MiB", 104_857_600),
            ("8GiB", 8_589_934_592),
            ("1TiB", 1_099_511_627_776),
            ("2KB", 2_000),
            ("3MB", 3_000_000),
            ("4GB", 4_000_000_000),
            ("5TB", 5_000_000_000_000),
        ];
        for (text, byte) in sizes {
            assert_eq!(parse_size(text), Ok(byte));
            assert_eq!(parse_size(&show_size(byte)), Ok(byte));
        }
        let durations = [
            ("500ms", 500),
            ("10s", 10_000),
            ("30m", 1_800_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ];
        for (text, ms) in durations {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn every_refusal_says_what_to_write_instead() {
        let sizes = [
            "", "GiB", "8", "0", "0GiB", "-1GiB", "-1", "8 GiB", "8gib", "8G", "1.5GiB", "+1GiB", "1_000B",
        ];
        let sizes = sizes.iter().filter_map(|text| parse_size(text).err());
        let durations = [
            "5",
            "0s",
            "-2h",
            "2hours",
            "1h30m",
            "366d",
            "99999999999999999999s",
        ];
        let durations = durations.iter().filter_map(|text| parse_duration(text).err());
        let all: Vec<String> = sizes.chain(durations).map(|e| e.to_string()).collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        `` is not a size
        hint: write a whole number and a unit, for example "8GiB"
        `GiB` is not a size
        hint: write a whole number and a unit, for example "8GiB"
        `8` has no unit
        hint: write the unit as well, for example "8GiB"
        `0` is not above zero
        hint: for example "8GiB"
        `0GiB` is not above zero
        hint: for example "8GiB"
        `-1GiB` is not above zero
        hint: for example "8GiB"
        `-1` is not above zero
        hint: for example "8GiB"
        `8 GiB` has an unknown unit ` GiB`
        hint: units are B, KB, KiB, MB, MiB, GB, GiB, TB, TiB
        `8gib` has an unknown unit `gib`
        hint: units are B, KB, KiB, MB, MiB, GB, GiB, TB, TiB
        `8G` has an unknown unit `G`
        hint: units are B, KB, KiB, MB, MiB, GB, GiB, TB, TiB
        `1.5GiB` is not a size
        hint: write a whole number and a unit, for example "8GiB"
        `+1GiB` is not a size
        hint: write a whole number and a unit, for example "8GiB"
        `1_000B` is not a size
        hint: write a whole number and a unit, for example "8GiB"
        `5` has no unit
        hint: write the unit as well, for example "30m"
        `0s` is not above zero
        hint: for example "30m"
        `-2h` is not above zero
        hint: for example "30m"
        `2hours` has an unknown unit `hours`
        hint: units are ms, s, m, h, d
        `1h30m` has an unknown unit `h30m`
        hint: units are ms, s, m, h, d
        `366d` is too large
        hint: the largest is "365d"
        `99999999999999999999s` is too large
        hint: the largest is "365d"
        "#);
    }

    #[test]
    fn the_largest_size_is_accepted_and_one_byte_more_is_not() {
        assert_eq!(parse_size("9223372036854775807B"), Ok(MAX_BYTE));
        assert!(matches!(
            parse_size("9223372036854775808B"),
            Err(UnitError::TooLarge { .. })
        ));
        assert!(matches!(
            parse_size("16777216TiB"),
            Err(UnitError::TooLarge { .. })
        ));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(byte in 1..=MAX_BYTE, ms in 1..=MAX_MS) {
            prop_assert_eq!(parse_size(&show_size(byte)), Ok(byte));
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_answered(text in ".*") {
            if let Ok(byte) = parse_size(&text) {
                prop_assert!(byte > 0);
            }
            if let Ok(duration) = parse_duration(&text) {
                prop_assert!(!duration.is_zero());
            }
        }
    }
}
