//! Which days a cron expression means: days of the month, days of the week, last ones, n-th ones.

use jiff::civil::Date;

use super::BadPlan;
use super::field::{DAY, WEEKDAY, list, short};

/// The two day fields. Where both are given, a day of either is meant, as in every Unix cron;
/// where one is `*`, the other alone decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Days {
    /// Bit n: day n. `None`: `*`.
    month: Option<u64>,
    /// `L-n`: n days before the last one.
    before_last: Vec<i8>,
    /// `nW`: the weekday nearest to day n, within the month.
    nearest: Vec<i8>,
    /// `LW`: the last day that is Monday to Friday.
    last_workday: bool,
    /// Bit n: weekday n, Sunday is 0. `None`: `*`.
    week: Option<u64>,
    /// `d#n`: the n-th weekday d of the month.
    nth: Vec<(i8, i8)>,
    /// Bit d: `dL`, the last weekday d of the month.
    last_week: u64,
}

impl Days {
    pub(super) fn read(month: &str, week: &str) -> Result<Self, BadPlan> {
        let mut days = Self::default();
        if !matches!(month, "*" | "?") {
            let mut set = 0;
            for item in month.split(',') {
                set |= days.read_month_item(item)?;
            }
            days.month = Some(set);
        }
        if !matches!(week, "*" | "?") {
            let mut set = 0;
            for item in week.split(',') {
                set |= days.read_week_item(item)?;
            }
            days.week = Some(set & 0x7f | set >> 7 & 1);
        }
        Ok(days)
    }

    fn read_month_item(&mut self, item: &str) -> Result<u64, BadPlan> {
        let upper = item.to_ascii_uppercase();
        if upper == "L" {
            self.before_last.push(0);
        } else if upper == "LW" || upper == "WL" {
            self.last_workday = true;
        } else if let Some(n) = upper.strip_prefix("L-") {
            let n = n.parse().ok().filter(|n| (1..=30).contains(n));
            self.before_last.push(n.ok_or_else(|| DAY.wrong(format!("{:?} is not L-1 to L-30", short(item))))?);
        } else if let Some(n) = upper.strip_suffix('W') {
            self.nearest.push(i8::try_from(DAY.value(n)?).unwrap_or(0));
        } else {
            return DAY.read_item(item);
        }
        Ok(0)
    }

    fn read_week_item(&mut self, item: &str) -> Result<u64, BadPlan> {
        let upper = item.to_ascii_uppercase();
        if upper == "L" {
            return Err(WEEKDAY.wrong("L alone names no day; write 5L for the last Friday".to_owned()));
        }
        if let Some((day, n)) = upper.split_once('#') {
            let n = n.parse().ok().filter(|n| (1..=5).contains(n));
            let n = n.ok_or_else(|| WEEKDAY.wrong(format!("{:?} does not end in #1 to #5", short(item))))?;
            self.nth.push((i8::try_from(WEEKDAY.value(day)? % 7).unwrap_or(0), n));
            return Ok(0);
        }
        match upper.strip_suffix('L') {
            Some(day) => self.last_week |= 1 << (WEEKDAY.value(day)? % 7),
            None => return WEEKDAY.read_item(item),
        }
        Ok(0)
    }

    /// The day fields for the iterator when it can decide alone: it takes a day that is in both.
    pub(super) fn plain(&self) -> Option<(String, String)> {
        let special = !self.before_last.is_empty()
            || !self.nearest.is_empty()
            || self.last_workday
            || !self.nth.is_empty()
            || self.last_week != 0;
        match (self.month, self.week) {
            _ if special => None,
            (Some(_), Some(_)) => None,
            (Some(month), None) => Some((list(month, 1, 31), "*".to_owned())),
            // The iterator counts from Sunday = 1.
            (None, Some(week)) => Some(("*".to_owned(), list(week << 1, 1, 7))),
            (None, None) => Some(("*".to_owned(), "*".to_owned())),
        }
    }

    /// Whether a day is meant.
    pub(super) fn contain(&self, date: Date) -> bool {
        match (self.month.is_some(), self.week.is_some()) {
            (true, true) => self.in_month(date) || self.in_week(date),
            (true, false) => self.in_month(date),
            (false, true) => self.in_week(date),
            (false, false) => true,
        }
    }

    fn in_month(&self, date: Date) -> bool {
        let last = date.days_in_month();
        self.month.is_some_and(|set| set >> date.day() & 1 == 1)
            || self.before_last.iter().any(|n| date.day() == last - n)
            || self.last_workday && date.day() == nearest_workday(date, last)
            || self.nearest.iter().any(|n| *n <= last && date.day() == nearest_workday(date, *n))
    }

    fn in_week(&self, date: Date) -> bool {
        let weekday = date.weekday().to_sunday_zero_offset();
        let nth = (date.day() - 1) / 7 + 1;
        self.week.is_some_and(|set| set >> weekday & 1 == 1)
            || self.nth.contains(&(weekday, nth))
            || self.last_week >> weekday & 1 == 1 && date.day() + 7 > date.days_in_month()
    }
}

/// The day of `date`'s month nearest to day `n` that is Monday to Friday; never in another month.
fn nearest_workday(date: Date, n: i8) -> i8 {
    let day = date.first_of_month().with().day(n).build().unwrap_or(date);
    match day.weekday().to_sunday_zero_offset() {
        6 if n == 1 => 3,
        6 => n - 1,
        0 if n == date.days_in_month() => n - 2,
        0 => n + 1,
        _ => n,
    }
}
