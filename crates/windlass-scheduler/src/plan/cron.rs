//! Cron expressions: our front end, the `cron` crate as the iterator over local time, and our
//! resolver for what clocks do to local time.

use std::str::FromStr as _;

use chrono::{DateTime, Utc};

use super::days::Days;
use super::field::{HOUR, MINUTE, MONTH, SECOND, list};
use super::zone::{Resolved, Seconds, Zone, civil_of};
use super::{BadPlan, ClockChange};

/// How many days that are not meant are looked at before it is said that none comes: 12 years,
/// more than lie between two 29ths of February around 2100.
const DAYS_LOOKED_AT: usize = 4_500;
const DAY_SECONDS: Seconds = 86_400;

/// A cron expression, ready to iterate.
#[derive(Debug, Clone)]
pub(super) struct Cron {
    iterator: cron::Schedule,
    /// Days the iterator cannot decide about.
    days: Option<Days>,
    /// Every hour is meant: its cadence is that of real time.
    every_hour: bool,
}

impl Cron {
    /// Reads 5 fields (minute hour day month weekday) or 6 (second first).
    pub(super) fn read(text: &str) -> Result<Self, BadPlan> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [second, minute, hour, day, month, weekday] = match fields[..] {
            [minute, hour, day, month, weekday] => ["0", minute, hour, day, month, weekday],
            [second, minute, hour, day, month, weekday] => [second, minute, hour, day, month, weekday],
            _ => {
                let message = format!(
                    "{} fields; 5 (minute hour day month weekday) or 6 (second first) are allowed, @daily and the \
                     like, @every 5s, @at 2026-12-24T18:00",
                    fields.len()
                );
                return Err(BadPlan::new("plan_invalid", message));
            }
        };
        let hours = HOUR.read(hour)?;
        let days = Days::read(day, weekday)?;
        let (day, weekday) = days.plain().unwrap_or(("*".to_owned(), "*".to_owned()));
        let normal = format!(
            "{} {} {} {day} {} {weekday}",
            list(SECOND.read(second)?, 0, 59),
            list(MINUTE.read(minute)?, 0, 59),
            list(hours, 0, 23),
            list(MONTH.read(month)?, 1, 12)
        );
        let iterator = cron::Schedule::from_str(&normal).map_err(|e| BadPlan::new("plan_invalid", e.to_string()))?;
        let days = if days.plain().is_some() { None } else { Some(days) };
        Ok(Self { iterator, days, every_hour: hours == (1 << 24) - 1 })
    }

    /// The first instant after `after`.
    pub(super) fn next(&self, zone: &Zone, rule: ClockChange, after: Seconds) -> Option<Seconds> {
        if self.every_hour || rule == ClockChange::Wall {
            self.next_as_clocks_show(zone, after)
        } else {
            self.next_planned(zone, rule, after)
        }
    }

    /// Each local time is meant once, whatever clocks do to it.
    fn next_planned(&self, zone: &Zone, rule: ClockChange, after: Seconds) -> Option<Seconds> {
        let mut local = zone.local(after);
        if rule == ClockChange::Last
            && let Resolved::Twice { first, second } = zone.resolve(local)
        {
            // In the first pass all of the second is still to come.
            local -= second - first;
        }
        loop {
            local = self.local_after(local)?;
            let instant = match zone.resolve(local) {
                Resolved::Once(instant) => instant,
                Resolved::Twice { second, .. } if rule == ClockChange::Last => second,
                Resolved::Twice { first, .. } => first,
                Resolved::Never { gap_end } => gap_end,
            };
            if instant > after {
                return Some(instant);
            }
        }
    }

    /// Every instant at which a local clock shows what is meant.
    fn next_as_clocks_show(&self, zone: &Zone, after: Seconds) -> Option<Seconds> {
        let mut from = after;
        loop {
            let offset = zone.local(from) - from;
            let instant = self.local_after(from + offset)? - offset;
            match zone.change_after(from) {
                Some(change) if instant >= change => {
                    // The second before the change, as the clock after it would have shown it.
                    let offset = zone.local(change) - change;
                    if self.local_after(change - 1 + offset)? - offset == change {
                        return Some(change);
                    }
                    from = change;
                }
                _ => return Some(instant),
            }
        }
    }

    /// The first local time after `local`.
    fn local_after(&self, mut local: Seconds) -> Option<Seconds> {
        for _ in 0..DAYS_LOOKED_AT {
            let from: DateTime<Utc> = DateTime::from_timestamp(local, 0)?;
            let next = self.iterator.after(&from).next()?.timestamp();
            match &self.days {
                Some(days) if !days.contain(civil_of(next).date()) => {
                    local = next - next.rem_euclid(DAY_SECONDS) + DAY_SECONDS - 1;
                }
                _ => return Some(next),
            }
        }
        None
    }
}
