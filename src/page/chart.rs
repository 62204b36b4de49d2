//! Where the bars of charts stand: the timeline of the last day, and how long jobs waited and ran.

use serde::Serialize;

use super::words;

const HOUR_MS: u64 = 3_600_000;

/// A place on the timeline, in per cent of its width.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Stretch {
    pub(super) left: String,
    pub(super) width: String,
}

/// The part of `first..last` that `from..to` takes; `None` when it lies outside.
pub(super) fn stretch((first, last): (u64, u64), (from, to): (u64, u64)) -> Option<Stretch> {
    let (from, to) = (from.max(first), to.min(last));
    if from > to || first >= last {
        return None;
    }
    let part = |ms: u64| percent(ms, last - first);
    Some(Stretch {
        left: part(from - first),
        width: part(to - from),
    })
}

/// A part of a whole with two decimals, exactly.
fn percent(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// A full hour on the timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Tick {
    pub(super) left: String,
    /// Its time of day, every third hour.
    pub(super) label: Option<String>,
    /// Whether it is also labelled where there is little room.
    pub(super) is_major: bool,
}

/// The full hours of UTC between two moments. Labels that would stand over the edge are left out.
pub(super) fn hours((first, last): (u64, u64)) -> Vec<Tick> {
    let mut ticks = Vec::new();
    let mut at = first.div_ceil(HOUR_MS) * HOUR_MS;
    while at <= last {
        let hour = at / HOUR_MS % 24;
        let has_room = at - first >= HOUR_MS / 2 && last - at >= HOUR_MS / 2;
        ticks.push(Tick {
            left: percent(at - first, last - first),
            label: (hour.is_multiple_of(3) && has_room).then(|| words::hour(at)),
            is_major: hour.is_multiple_of(6),
        });
        at += HOUR_MS;
    }
    ticks
}

/// Width of a chart, in the units of its `viewBox`.
const WIDTH: u64 = 480;
/// The line that bars stand on.
const FLOOR: u64 = 104;
/// Height of the highest bar; its figure stands above.
const HIGHEST: u64 = 82;
/// Between two bars.
const GAP: u64 = 10;

/// Upper bounds of buckets with their labels. The last bucket has what is more.
const BUCKETS: [(u64, &str); 8] = [
    (10, "≤ 10 ms"),
    (100, "≤ 100 ms"),
    (1_000, "≤ 1 s"),
    (10_000, "≤ 10 s"),
    (60_000, "≤ 1 min"),
    (600_000, "≤ 10 min"),
    (3_600_000, "≤ 1 h"),
    (u64::MAX, "> 1 h"),
];

/// How long something took, of many jobs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Histogram {
    pub(super) title: &'static str,
    /// How many jobs, and what half and nearly all of them took at most.
    pub(super) jobs: usize,
    pub(super) median: String,
    pub(super) p95: String,
    pub(super) most: String,
    pub(super) bars: Vec<Bar>,
}

/// A bar, in the units of the chart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Bar {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) middle: u64,
    /// Where the figure stands.
    pub(super) above: u64,
    pub(super) count: usize,
    pub(super) label: &'static str,
}

/// A histogram of times in milliseconds.
pub(super) fn histogram(title: &'static str, mut all_ms: Vec<u64>) -> Histogram {
    all_ms.sort_unstable();
    let mut counts = [0; BUCKETS.len()];
    for ms in &all_ms {
        let bucket = BUCKETS.iter().position(|(bound, _)| ms <= bound);
        counts[bucket.unwrap_or(BUCKETS.len() - 1)] += 1;
    }
    let highest = counts.iter().copied().max().unwrap_or_default();
    let pitch = WIDTH / 8;
    let bars = (0..)
        .zip(BUCKETS)
        .zip(counts)
        .map(|((place, (_, label)), count)| {
            // One job among thousands is still seen.
            let height = match count {
                0 => 0,
                _ => (count_of(count) * HIGHEST / count_of(highest)).max(2),
            };
            let x = place * pitch + GAP / 2;
            Bar {
                x,
                y: FLOOR - height,
                width: pitch - GAP,
                height,
                middle: place * pitch + pitch / 2,
                above: FLOOR - height - 4,
                count,
                label,
            }
        });
    let bars = bars.collect();
    Histogram {
        title,
        jobs: all_ms.len(),
        median: rank(&all_ms, 50),
        p95: rank(&all_ms, 95),
        most: rank(&all_ms, 100),
        bars,
    }
}

fn count_of(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// What so many per cent of the sorted times are at most, by nearest rank.
fn rank(sorted: &[u64], per_cent: usize) -> String {
    let place = (sorted.len() * per_cent).div_ceil(100).saturating_sub(1);
    sorted
        .get(place)
        .map_or_else(|| "–".to_owned(), |ms| words::span(*ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: (u64, u64) = (1_800_000_000_000, 1_800_086_400_000);

    #[test]
    fn a_stretch_lies_within_the_day_or_is_none() {
        let part = |from, to| stretch(DAY, (from, to)).map(|it| format!("{} {}", it.left, it.width));
        assert_eq!(part(DAY.0, DAY.1).as_deref(), Some("0.00 100.00"));
        assert_eq!(part(0, DAY.0 + 43_200_000).as_deref(), Some("0.00 50.00"));
        assert_eq!(part(DAY.0 + 86_391_360, u64::MAX).as_deref(), Some("99.99 0.01"));
        assert_eq!(part(0, 5), None);
        assert_eq!(part(DAY.1 + 1, DAY.1 + 2), None);
        assert_eq!(stretch((5, 5), (5, 5)), None);
    }

    #[test]
    fn a_day_has_twenty_four_full_hours_and_a_label_for_every_third() {
        let ticks = hours((DAY.0 + 1, DAY.1 + 1));
        assert_eq!(ticks.len(), 24);
        let labels: Vec<_> = ticks.iter().filter_map(|tick| tick.label.clone()).collect();
        assert_eq!(
            labels,
            [
                "09:00", "12:00", "15:00", "18:00", "21:00", "00:00", "03:00", "06:00"
            ]
        );
    }

    #[test]
    fn every_time_is_in_one_bucket_and_the_ranks_are_the_nearest() {
        let times = (1..=100).map(|n| n * 20).collect();
        let chart = histogram("Waiting", times);
        let counts: Vec<usize> = chart.bars.iter().map(|bar| bar.count).collect();
        assert_eq!(counts, [0, 5, 45, 50, 0, 0, 0, 0]);
        assert_eq!(
            (chart.median.as_str(), chart.p95.as_str(), chart.most.as_str()),
            ("1.0 s", "1.9 s", "2.0 s")
        );
        assert!(chart.bars.iter().all(|bar| bar.y + bar.height == FLOOR));
        let lonely = histogram("Running", [vec![5; 5000], vec![u64::MAX]].concat());
        assert_eq!(lonely.bars[7].height, 2);
        assert_eq!(histogram("Running", vec![]).median, "–");
    }
}
