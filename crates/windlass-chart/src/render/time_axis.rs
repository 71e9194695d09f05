//! Which bars get a label on the time axis, and what it says.
//!
//! Bars stand by index, so nights, weekends and holidays take no room and no calendar is
//! needed. A bar is a candidate when it crosses a boundary of the calendar its predecessor
//! did not; candidates are placed by falling weight of that boundary, and one that would
//! come too close to a placed label is left out. When less than two thirds of all labels
//! so far would fit, no finer boundary is added, which keeps the labels evenly spaced.

use jiff::civil::DateTime;

use super::format;

/// Boundaries, heaviest first. The finer divisions of year, month, day and hour make the
/// labels between two heavy ones fall on the same places everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Boundary {
    Year,
    HalfYear,
    Quarter,
    Month,
    HalfMonth,
    QuarterMonth,
    Day,
    Hours12,
    Hours6,
    Hours3,
    Hour,
    Minutes30,
    Minutes15,
    Minutes5,
    Minute,
}

/// Each boundary with the number that changes when it is crossed.
type Bucket = (Boundary, fn(DateTime) -> i32);

const BUCKETS: [Bucket; 15] = [
    (Boundary::Year, |at| i32::from(at.year())),
    (Boundary::HalfYear, |at| i32::from((at.month() - 1) / 6)),
    (Boundary::Quarter, |at| i32::from((at.month() - 1) / 3)),
    (Boundary::Month, |at| i32::from(at.month())),
    (Boundary::HalfMonth, |at| i32::from(at.day() >= 15)),
    (Boundary::QuarterMonth, |at| i32::from(at.day() >= 8) + i32::from(at.day() >= 22)),
    (Boundary::Day, |at| i32::from(at.day())),
    (Boundary::Hours12, |at| i32::from(at.hour() / 12)),
    (Boundary::Hours6, |at| i32::from(at.hour() / 6)),
    (Boundary::Hours3, |at| i32::from(at.hour() / 3)),
    (Boundary::Hour, |at| i32::from(at.hour())),
    (Boundary::Minutes30, |at| i32::from(at.minute() / 30)),
    (Boundary::Minutes15, |at| i32::from(at.minute() / 15)),
    (Boundary::Minutes5, |at| i32::from(at.minute() / 5)),
    (Boundary::Minute, |at| i32::from(at.minute())),
];

impl Boundary {
    /// The heaviest boundary between two bars; `None` when they read alike.
    fn between(before: DateTime, at: DateTime) -> Option<Self> {
        let crossed = BUCKETS.iter().find(|(_, bucket)| bucket(before) != bucket(at));
        crossed.map(|(boundary, _)| *boundary)
    }

    /// Only what changed: `2013`, `Feb`, `14`, `09:30`.
    fn label(self, at: DateTime) -> String {
        match self {
            Self::Year => at.year().to_string(),
            Self::HalfYear | Self::Quarter | Self::Month => format::month(at.month()).to_owned(),
            Self::HalfMonth | Self::QuarterMonth | Self::Day => at.day().to_string(),
            _ => format::clock(at),
        }
    }
}

/// A label of the time axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Label {
    /// The bar it belongs to.
    pub(super) bar: usize,
    /// What it says.
    pub(super) text: String,
    /// Whether it names a year, which is set bold.
    pub(super) is_year: bool,
    /// The left end of its box.
    pub(super) left: f32,
    /// The right end of its box.
    pub(super) right: f32,
}

/// Where labels may stand.
pub(super) struct Room<X, W> {
    /// The centre of each bar.
    pub(super) bar_x: X,
    /// How wide a text is; the flag says bold.
    pub(super) width: W,
    /// Nothing left of this.
    pub(super) left: f32,
    /// Nothing right of this.
    pub(super) right: f32,
    /// The least blank between two labels.
    pub(super) gap: f32,
}

/// The labels of bars at `times`, in order of the bars. `before` is the time of the bar
/// ahead of the first.
pub(super) fn labels<X, W>(times: &[DateTime], before: DateTime, room: &Room<X, W>) -> Vec<Label>
where
    X: Fn(usize) -> f32,
    W: Fn(&str, bool) -> f32,
{
    let previous = std::iter::once(&before).chain(times);
    let pairs = previous.zip(times).enumerate();
    let mut candidates: Vec<(Boundary, usize)> =
        pairs.filter_map(|(bar, (before, at))| Some((Boundary::between(*before, *at)?, bar))).collect();
    candidates.sort_unstable();
    let (mut placed, mut crowded) = (Vec::new(), 0);
    for group in candidates.chunk_by(|a, b| a.0 == b.0) {
        let mut tried = placed.clone();
        for &(boundary, bar) in group {
            let at = times[bar];
            let text = boundary.label(at);
            let is_year = boundary == Boundary::Year;
            let half = (room.width)(&text, is_year) / 2.0;
            let center = (room.bar_x)(bar);
            let (left, right) = (center - half, center + half);
            if left >= room.left && right <= room.right {
                crowded += usize::from(!place(&mut tried, Label { bar, text, is_year, left, right }, room.gap));
            }
        }
        // Boundaries that fit only here and there would make the axis uneven.
        if placed.len() >= ENOUGH && tried.len() < 2 * crowded {
            break;
        }
        placed = tried;
    }
    placed
}

/// With so many labels an axis reads well; fewer are added to, evenly or not.
const ENOUGH: usize = 3;

/// Adds a label unless it comes too near to another; tells whether it was added.
fn place(placed: &mut Vec<Label>, label: Label, gap: f32) -> bool {
    // Sorted by place, so only the two neighbours can be too near.
    let next = placed.partition_point(|other| other.left < label.left);
    let clear_left = next.checked_sub(1).is_none_or(|i| placed[i].right + gap <= label.left);
    let clear_right = placed.get(next).is_none_or(|other| label.right + gap <= other.left);
    if clear_left && clear_right {
        placed.insert(next, label);
    }
    clear_left && clear_right
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan;
    use jiff::civil::date;

    /// Labels of bars `step_px` apart, six pixels a character, written bar by bar; a year
    /// has a star.
    #[track_caller]
    fn check(times: &[DateTime], before: DateTime, step_px: f32, expected: &str) {
        let room = Room {
            bar_x: |bar| bar as f32 * step_px + 20.0,
            width: |text: &str, _| text.len() as f32 * 6.0,
            left: 0.0,
            right: times.len() as f32 * step_px + 40.0,
            gap: 24.0,
        };
        let found = labels(times, before, &room);
        for pair in found.windows(2) {
            assert!(pair[0].right + 24.0 <= pair[1].left, "{pair:?}");
        }
        let words = found.iter().map(|l| if l.is_year { format!("{}*", l.text) } else { l.text.clone() });
        assert_eq!(words.collect::<Vec<_>>().join(" "), expected);
    }

    fn hours(from: DateTime, count: i64) -> Vec<DateTime> {
        (0..count).map(|hour| from + hour.hours()).collect()
    }

    fn days(from: DateTime, count: i64) -> Vec<DateTime> {
        (0..count).map(|day| from + day.days()).collect()
    }

    #[test]
    fn only_what_changed_is_named() {
        let start = date(2012, 12, 20).at(0, 0, 0, 0);
        check(&days(start, 30), start - 1.day(), 12.0, "22 2013* 8 15");
        check(&hours(start, 30), start - 1.hour(), 20.0, "20 03:00 06:00 09:00 12:00 15:00 18:00 21:00 21 03:00");
        check(&days(start, 1), start - 1.day(), 40.0, "20");
    }

    #[test]
    fn labels_between_months_stand_alike() {
        let start = date(2013, 1, 31).at(0, 0, 0, 0);
        check(&days(start, 70), start - 1.day(), 5.0, "Feb 15 Mar 15 Apr");
        check(&days(start, 70), start - 1.day(), 10.0, "Feb 8 15 22 Mar 8 15 22 Apr 8");
    }

    #[test]
    fn weekends_take_no_room() {
        let friday = date(2017, 1, 6).at(20, 0, 0, 0);
        let mut times = hours(friday, 2);
        times.extend(hours(date(2017, 1, 8).at(22, 0, 0, 0), 6));
        check(&times, friday - 1.hour(), 60.0, "20:00 21:00 8 23:00 9 01:00 02:00 03:00");
    }
}
