//! When a market trades, and when its day begins: weekly sessions in a time zone.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

const WEEK_S: u32 = 7 * 86_400;

/// A calendar's text that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("calendar {text:?}: {why}")]
pub struct BadCalendar {
    /// The text.
    pub text: String,
    /// What is wrong, and what is allowed.
    pub why: &'static str,
}

/// The weekly sessions of a market.
///
/// *Shape as text*: `24x7`; `fx` (Sunday 17:00 to Friday 17:00 New York); or a zone and its
/// sessions, `Europe/Berlin;Mon 09:00-Mon 17:30,Tue 09:00-Tue 17:30`. A session's end is the
/// first moment outside of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar {
    /// Seconds since Sunday 00:00 of the zone; an end at or before its start lies in the next
    /// week. `None`: always open.
    weekly: Option<(TimeZone, Vec<(u32, u32)>)>,
}

impl Calendar {
    /// Always open.
    pub const ALWAYS: Self = Self { weekly: None };

    /// Reads a calendar's text.
    ///
    /// # Errors
    /// [`BadCalendar`].
    pub fn parse(text: &str) -> Result<Self, BadCalendar> {
        let fail = |why| BadCalendar { text: text.to_owned(), why };
        let (zone, sessions) = match text {
            "24x7" => return Ok(Self::ALWAYS),
            "fx" => ("America/New_York", "Sun 17:00-Fri 17:00"),
            other => other.split_once(';').ok_or_else(|| fail("24x7, fx or ZONE;DAY HH:MM-DAY HH:MM,… is allowed"))?,
        };
        let zone = TimeZone::get(zone).map_err(|_| fail("the time zone is not known; as in Europe/Berlin"))?;
        let session = |session: &str| {
            let (start, end) = session.trim().split_once('-')?;
            Some((second_of_week(start)?, second_of_week(end)?))
        };
        let weekly: Option<Vec<_>> = sessions.split(',').map(session).collect();
        let weekly = weekly.ok_or_else(|| fail("a session is DAY HH:MM-DAY HH:MM, as in Mon 09:00-Mon 17:30"))?;
        Ok(Self { weekly: Some((zone, weekly)) })
    }

    /// True while the market trades. A moment outside of the years −9999 to 9999 is outside of
    /// every session.
    #[must_use]
    pub fn is_open(&self, ts_ms: i64) -> bool {
        let Some((zone, weekly)) = &self.weekly else { return true };
        let Ok(at) = Timestamp::from_millisecond(ts_ms) else { return false };
        let local = zone.to_datetime(at);
        let second =
            u32::from(local.weekday().to_sunday_zero_offset().unsigned_abs()) * 86_400 + second_of_day(local.time());
        weekly.iter().any(
            |&(start, end)| {
                if start < end { (start..end).contains(&second) } else { second >= start || second < end }
            },
        )
    }
}

fn second_of_day(time: Time) -> u32 {
    let part = |n: i8| u32::from(n.unsigned_abs());
    part(time.hour()) * 3600 + part(time.minute()) * 60 + part(time.second())
}

/// `Sun 17:00` → 61,200.
fn second_of_week(text: &str) -> Option<u32> {
    let (day, time) = text.trim().split_once(' ')?;
    let day = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"].iter().position(|name| *name == day)?;
    let (hour, minute) = time.split_once(':')?;
    if hour.len() != 2 || minute.len() != 2 {
        return None;
    }
    let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
    if minute > 59 || hour * 60 + minute > 24 * 60 {
        return None;
    }
    Some((u32::try_from(day).ok()? * 86_400 + hour * 3600 + minute * 60) % WEEK_S)
}

/// Where days and the periods within them begin, for markets whose day is not UTC's.
#[derive(Debug, Clone, PartialEq)]
pub struct DayStart {
    zone: TimeZone,
    time: Time,
}

impl DayStart {
    /// Reads `America/New_York 17:00`.
    ///
    /// # Errors
    /// [`BadCalendar`].
    pub fn parse(text: &str) -> Result<Self, BadCalendar> {
        let fail = || BadCalendar { text: text.to_owned(), why: "ZONE HH:MM is allowed, as in America/New_York 17:00" };
        let (zone, time) = text.split_once(' ').ok_or_else(fail)?;
        let zone = TimeZone::get(zone).map_err(|_| fail())?;
        let (hour, minute) = time.split_once(':').ok_or_else(fail)?;
        let parts = (hour.parse().map_err(|_| fail())?, minute.parse().map_err(|_| fail())?);
        let time = Time::new(parts.0, parts.1, 0, 0).map_err(|_| fail())?;
        Ok(Self { zone, time })
    }

    /// The first moment of the day that a moment lies in and of the next one, in ms; a day is 23
    /// or 25 hours long when clocks are changed in it. `None` outside of the years ±9999.
    #[must_use]
    pub fn day_of(&self, ts_ms: i64) -> Option<(i64, i64)> {
        let at = Timestamp::from_millisecond(ts_ms).ok()?;
        let local: DateTime = self.zone.to_datetime(at);
        let begins = |days: i64| {
            let date = local.date().checked_add(Span::new().try_days(days).ok()?).ok()?;
            Some(self.zone.to_timestamp(date.to_datetime(self.time)).ok()?.as_millisecond())
        };
        let days = [begins(-1)?, begins(0)?, begins(1)?, begins(2)?];
        days.windows(2).find(|day| (day[0]..day[1]).contains(&ts_ms)).map(|day| (day[0], day[1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn sessions_follow_their_zone_through_clock_changes_8_18() {
        let fx = Calendar::parse("fx").unwrap();
        let check = |at: &str, open| assert_eq!(fx.is_open(ms(at)), open, "{at}");
        check("2026-01-09T21:59:59.999Z", true); // Friday, New York is 5 h behind
        check("2026-01-09T22:00:00Z", false);
        check("2026-01-11T21:59:59Z", false);
        check("2026-01-11T22:00:00Z", true);
        check("2026-07-10T20:59:59Z", true); // 4 h behind
        check("2026-07-10T21:00:00Z", false);
        check("2026-07-12T21:00:00Z", true);
        let berlin = Calendar::parse("Europe/Berlin;Mon 09:00-Mon 17:30,Sat 22:00-Sun 02:00").unwrap();
        for (at, open) in [
            ("2026-01-05T08:00:00Z", true),
            ("2026-01-05T16:30:00Z", false),
            ("2026-01-10T23:30:00Z", true),
            ("2026-01-11T00:59:59Z", true),
            ("2026-01-11T01:00:00Z", false),
        ] {
            assert_eq!(berlin.is_open(ms(at)), open, "{at}");
        }
        assert!(Calendar::ALWAYS.is_open(i64::MAX) && !fx.is_open(i64::MAX));
    }

    #[test]
    fn wrong_calendars_say_what_is_allowed() {
        for bad in
            ["", "always", "Mars/Base;Mon 09:00-Mon 10:00", "UTC;", "UTC;Mon 9:00-Mon 10:00", "UTC;Mon 09:60-Tue 00:00"]
        {
            assert!(Calendar::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "UTC", "UTC 24:00", "Mars/Base 01:00"] {
            assert!(DayStart::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_day_is_23_or_25_hours_when_clocks_change_8_19() {
        let day = DayStart::parse("America/New_York 17:00").unwrap();
        let hours = |at: &str| {
            let (start, end) = day.day_of(ms(at)).unwrap();
            assert!((start..end).contains(&ms(at)));
            (end - start) / 3_600_000
        };
        assert_eq!(hours("2026-03-08T03:00:00Z"), 23);
        assert_eq!(hours("2026-11-01T03:00:00Z"), 25);
        assert_eq!(hours("2026-06-01T03:00:00Z"), 24);
        assert_eq!(day.day_of(ms("2026-06-01T21:00:00Z")).unwrap().0, ms("2026-06-01T21:00:00Z"));
        assert_eq!(day.day_of(ms("2026-06-01T20:59:59.999Z")).unwrap().0, ms("2026-05-31T21:00:00Z"));
        assert_eq!(day.day_of(i64::MAX), None);
    }
}
