//! How long a candle's period is, and where it begins.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::calendar::DayStart;

/// A text that names no timeframe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "timeframe {0:?}: 1s to 30s, 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w or 1mo is allowed, or the old M1 M5 M15 M30 H1 H4 D1 W1 MN1"
)]
pub struct BadTimeframe(pub String);

/// How long a candle's period is.
///
/// *Shape as text*: a number and `s`, `m` or `h` that divides a day; `1d`, `1w`, `1mo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timeframe {
    /// This many ms, a divisor of a day, counted from the start of the day.
    Within(i64),
    /// A day: UTC's, or that of a session.
    Day,
    /// From Monday 00:00 UTC.
    Week,
    /// A month of UTC's calendar.
    Month,
}

const DAY_MS: i64 = 86_400_000;
/// 1970-01-05 was a Monday.
const MONDAY_MS: i64 = 4 * DAY_MS;

/// The old names, shortest first.
const OLD: [(&str, Timeframe); 9] = [
    ("M1", Timeframe::Within(60_000)),
    ("M5", Timeframe::Within(300_000)),
    ("M15", Timeframe::Within(900_000)),
    ("M30", Timeframe::Within(1_800_000)),
    ("H1", Timeframe::Within(3_600_000)),
    ("H4", Timeframe::Within(14_400_000)),
    ("D1", Timeframe::Day),
    ("W1", Timeframe::Week),
    ("MN1", Timeframe::Month),
];

impl Timeframe {
    /// One minute, from which longer ones are rolled up.
    pub const MINUTE: Self = Self::Within(60_000);

    /// The nine of the replaced system, shortest first.
    pub const ALL: [Self; 9] =
        [OLD[0].1, OLD[1].1, OLD[2].1, OLD[3].1, OLD[4].1, OLD[5].1, OLD[6].1, OLD[7].1, OLD[8].1];

    /// Reads a name, new or old.
    ///
    /// # Errors
    /// [`BadTimeframe`].
    pub fn parse(text: &str) -> Result<Self, BadTimeframe> {
        if let Some((_, frame)) = OLD.iter().find(|(name, _)| *name == text) {
            return Ok(*frame);
        }
        let fail = || BadTimeframe(text.to_owned());
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(fail)?;
        let (number, unit) = text.split_at(unit_at);
        let number: i64 = number.parse().map_err(|_| fail())?;
        let unit_ms = match unit {
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" if number == 1 => return Ok(Self::Day),
            "w" if number == 1 => return Ok(Self::Week),
            "mo" if number == 1 => return Ok(Self::Month),
            _ => return Err(fail()),
        };
        let ms = number.checked_mul(unit_ms).filter(|ms| *ms > 0 && *ms < DAY_MS && DAY_MS % ms == 0);
        ms.map(Self::Within).ok_or_else(fail)
    }

    /// The name of the replaced system, where it had one.
    #[must_use]
    pub fn old_name(self) -> Option<&'static str> {
        OLD.iter().find(|(_, frame)| *frame == self).map(|(name, _)| *name)
    }

    /// The first moment of the period that a moment lies in, and of the next one. `None` when the
    /// calendar cannot name it.
    #[must_use]
    pub fn period(self, ts_ms: i64, day_start: Option<&DayStart>) -> Option<(i64, i64)> {
        let (start, end) = match (self, day_start) {
            (Self::Within(ms), Some(day_start)) if ms > 3_600_000 => {
                let (start, end) = day_start.day_of(ts_ms)?;
                let start = start + (ts_ms - start).div_euclid(ms) * ms;
                return Some((start, end.min(start + ms)));
            }
            (Self::Day, Some(day_start)) => return day_start.day_of(ts_ms),
            (Self::Within(ms), _) => aligned(ts_ms, ms, 0)?,
            (Self::Day, None) => aligned(ts_ms, DAY_MS, 0)?,
            (Self::Week, _) => aligned(ts_ms, 7 * DAY_MS, MONDAY_MS)?,
            (Self::Month, _) => month(ts_ms)?,
        };
        Some((start, end))
    }
}

fn aligned(ts_ms: i64, ms: i64, offset: i64) -> Option<(i64, i64)> {
    let start = ts_ms.checked_sub(offset)?.div_euclid(ms).checked_mul(ms)?.checked_add(offset)?;
    Some((start, start.checked_add(ms)?))
}

fn month(ts_ms: i64) -> Option<(i64, i64)> {
    let date = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(ts_ms).ok()?).date();
    let first = date.first_of_month();
    let ms = |date: Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond());
    Some((ms(first)?, ms(first.checked_add(1.month()).ok()?)?))
}

impl std::fmt::Display for Timeframe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Within(ms) if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            Self::Within(ms) if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            Self::Within(ms) => write!(f, "{}s", ms / 1_000),
            Self::Day => f.write_str("1d"),
            Self::Week => f.write_str("1w"),
            Self::Month => f.write_str("1mo"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_where_the_calendar_says_8_19() {
        let ms = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        let check = |frame: &str, at: &str, start: &str, end: &str| {
            let frame = Timeframe::parse(frame).unwrap();
            assert_eq!(frame.period(ms(at), None), Some((ms(start), ms(end))), "{frame} {at}");
        };
        check("1m", "2026-03-08T06:59:59.999Z", "2026-03-08T06:59:00Z", "2026-03-08T07:00:00Z");
        check("1m", "2026-03-08T07:00:00Z", "2026-03-08T07:00:00Z", "2026-03-08T07:01:00Z");
        check("4h", "2026-03-08T07:00:00Z", "2026-03-08T04:00:00Z", "2026-03-08T08:00:00Z");
        check("1d", "1969-12-31T23:59:59.999Z", "1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z");
        check("1w", "2026-03-08T07:00:00Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z");
        check("1mo", "2024-02-29T23:59:59Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
    }

    #[test]
    fn a_sessions_day_is_cut_into_four_hours_from_its_start_8_19() {
        let ms = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        let day = DayStart::parse("America/New_York 17:00").unwrap();
        let four = Timeframe::parse("4h").unwrap();
        let check = |at: &str, start: &str, end: &str| {
            assert_eq!(four.period(ms(at), Some(&day)), Some((ms(start), ms(end))), "{at}");
        };
        check("2026-03-07T22:00:00Z", "2026-03-07T22:00:00Z", "2026-03-08T02:00:00Z");
        // The day of the change has 23 hours: its last period is an hour short.
        check("2026-03-08T20:30:00Z", "2026-03-08T18:00:00Z", "2026-03-08T21:00:00Z");
        assert_eq!(
            Timeframe::Day.period(ms("2026-03-08T20:30:00Z"), Some(&day)).unwrap().0,
            ms("2026-03-07T22:00:00Z")
        );
    }

    #[test]
    fn names_are_read_and_written() {
        for name in ["1s", "30s", "1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1mo"] {
            assert_eq!(Timeframe::parse(name).unwrap().to_string(), name);
        }
        for (name, frame) in OLD {
            assert_eq!(Timeframe::parse(name), Ok(frame));
            assert_eq!(frame.old_name(), Some(name));
        }
        for bad in ["", "m", "0m", "7m", "2d", "24h", "1y", "-1m", "1M", "99999999999999999999m"] {
            assert!(Timeframe::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Timeframe::MINUTE.period(i64::MIN, None), None);
    }
}
