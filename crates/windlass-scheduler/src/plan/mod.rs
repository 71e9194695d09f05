//! When something is to happen: the plan language, and the instants a plan means.
//!
//! Pure: no clock is read here. A *tick* is an instant a plan names, in whole seconds.

mod cron;
mod days;
mod field;
mod zone;

use std::fmt;
use std::time::Duration;

use jiff::civil;
use serde::{Deserialize, Serialize};
use windlass_jobs::Timestamp;

use self::cron::Cron;
use self::field::short;
use self::zone::{Resolved, Seconds, seconds_of};

pub use self::zone::Zone;

/// The longest plan, in bytes.
pub const MAX_PLAN_BYTES: usize = 256;
/// The shortest interval of [`Plan`]: one second.
pub const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// The longest interval of [`Plan`].
pub const MAX_INTERVAL: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A plan or zone that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadPlan {
    /// A stable word: `plan_invalid`, `plan_too_long`, `interval_out_of_range`, `never_fires`,
    /// `zone_unknown`.
    pub code: &'static str,
    /// What is wrong and what is allowed, for a person.
    pub message: String,
}

impl BadPlan {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What happens to a local time when clocks are changed.
///
/// An expression whose hour field allows every hour keeps the cadence of real time under any of
/// these: it fires at each instant at which a local clock shows what it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockChange {
    /// Each local time once: one that is jumped over at the end of the gap, one that comes twice
    /// the first time. The default.
    #[default]
    Once,
    /// As [`ClockChange::Once`], but one that comes twice the second time.
    Last,
    /// As clocks show it: one that is jumped over not at all, one that comes twice twice.
    Wall,
}

/// When something is to happen.
///
/// *Shape as text*, at most [`MAX_PLAN_BYTES`]:
/// - cron with 5 fields (minute hour day month weekday) or 6 (second first): `*`, numbers, names,
///   ranges, lists, steps; in days `L`, `L-3`, `15W`, `LW`; in weekdays (0 and 7 are Sunday) `5L`,
///   `5#2`. Where day and weekday are both given, a day of either is meant.
/// - `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight`, `@hourly`
/// - `@every 90s`, `@every 1h30m`: [`MIN_INTERVAL`] to [`MAX_INTERVAL`], counted from the schedule's
///   start if it has one, else from 1970: the phase never moves
/// - `@at 2026-12-24T18:00` once, in the schedule's zone, or with an offset of its own
#[derive(Debug, Clone)]
pub struct Plan {
    text: String,
    zone: Zone,
    clock_change: ClockChange,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Cron(Box<Cron>),
    Every { seconds: Seconds, anchor: Seconds },
    At(Seconds),
}

impl Plan {
    /// Reads a plan. `anchor` is where `@every` counts from.
    ///
    /// # Errors
    /// [`BadPlan`], but not for a plan that never fires: that takes a clock ([`Plan::next_after`]).
    pub fn new(text: &str, zone: Zone, clock_change: ClockChange, anchor: Option<Timestamp>) -> Result<Self, BadPlan> {
        if text.len() > MAX_PLAN_BYTES {
            let message = format!("{} bytes; at most {MAX_PLAN_BYTES} are allowed", text.len());
            return Err(BadPlan::new("plan_too_long", message));
        }
        let text = text.trim();
        let rule = match text.strip_prefix('@') {
            Some(word) => read_word(word, &zone, clock_change, anchor)?,
            None => Rule::Cron(Box::new(Cron::read(text)?)),
        };
        Ok(Self { text: text.to_owned(), zone, clock_change, rule })
    }

    /// The first tick after an instant; `None` when there is none (or none before the year 2101).
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.0.div_euclid(1000);
        let next = match &self.rule {
            Rule::Cron(cron) => cron.next(&self.zone, self.clock_change, after),
            Rule::Every { seconds, anchor } => {
                Some(anchor + ((after - anchor).div_euclid(*seconds) + 1).max(0) * seconds)
            }
            Rule::At(at) => Some(*at).filter(|at| *at > after),
        };
        next.map(|seconds| Timestamp(seconds.saturating_mul(1000)))
    }

    /// The last tick of `(after, until]`.
    #[must_use]
    pub fn last_within(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        if let Rule::Every { seconds, anchor } = &self.rule {
            let last = anchor + (until.0.div_euclid(1000) - anchor).div_euclid(*seconds) * seconds;
            return Some(Timestamp(last * 1000)).filter(|last| *last > after && last.0 >= anchor * 1000);
        }
        // Looks back twice as far each time, then walks: some ticks at most, however dense they are.
        let mut back = 1_000;
        loop {
            let from = Timestamp(until.0.saturating_sub(back).max(after.0));
            if let Some(mut tick) = self.next_after(from).filter(|tick| *tick <= until) {
                while let Some(next) = self.next_after(tick).filter(|next| *next <= until) {
                    tick = next;
                }
                return Some(tick);
            }
            if from == after {
                return None;
            }
            back *= 2;
        }
    }

    /// How many ticks lie in `(after, until]`, and whether that is all: counting stops at `most`.
    #[must_use]
    pub fn count_within(&self, after: Timestamp, until: Timestamp, most: u64) -> (u64, bool) {
        if let Rule::Every { seconds, anchor } = &self.rule {
            let index = |at: Timestamp| (at.0.div_euclid(1000) - anchor).div_euclid(*seconds).max(-1);
            return (u64::try_from(index(until) - index(after)).unwrap_or(0), true);
        }
        let (mut count, mut at) = (0, after);
        while let Some(next) = self.next_after(at).filter(|next| *next <= until) {
            if count == most {
                return (count, false);
            }
            count += 1;
            at = next;
        }
        (count, true)
    }

    /// True when it fires once at most.
    #[must_use]
    pub const fn is_once(&self) -> bool {
        matches!(self.rule, Rule::At(_))
    }

    /// The interval of `@every`.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        match self.rule {
            Rule::Every { seconds, .. } => u64::try_from(seconds).ok().map(Duration::from_secs),
            _ => None,
        }
    }

    /// Its zone.
    #[must_use]
    pub const fn zone(&self) -> &Zone {
        &self.zone
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn read_word(word: &str, zone: &Zone, clock_change: ClockChange, anchor: Option<Timestamp>) -> Result<Rule, BadPlan> {
    let (name, rest) = word.split_once(char::is_whitespace).unwrap_or((word, ""));
    let cron = match name.to_ascii_lowercase().as_str() {
        "every" => {
            let anchor = anchor.map_or(0, |at| at.0.div_euclid(1000));
            return Ok(Rule::Every { seconds: read_interval(rest.trim())?, anchor });
        }
        "at" => return read_at(rest.trim(), zone, clock_change).map(Rule::At),
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        _ => {
            let message = format!(
                "@{} is not known; @yearly, @monthly, @weekly, @daily, @hourly, @every 5s and @at are",
                short(name)
            );
            return Err(BadPlan::new("plan_invalid", message));
        }
    };
    if !rest.trim().is_empty() {
        return Err(BadPlan::new("plan_invalid", format!("nothing may follow @{name}")));
    }
    Ok(Rule::Cron(Box::new(Cron::read(cron)?)))
}

/// `5s`, `90m`, `1h30m`, `2d`: whole seconds.
fn read_interval(text: &str) -> Result<Seconds, BadPlan> {
    let wrong =
        || BadPlan::new("plan_invalid", format!("{:?} is no interval such as 5s, 90m, 1h30m or 2d", short(text)));
    let mut total_ms: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].len() - rest[digits..].trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let unit_ms: u64 = match &rest[digits..digits + unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return Err(wrong()),
        };
        total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(wrong)?;
        rest = &rest[digits + unit..];
    }
    if text.is_empty() {
        return Err(wrong());
    }
    let span = Duration::from_millis(total_ms);
    if span < MIN_INTERVAL || span > MAX_INTERVAL || span.subsec_millis() != 0 {
        let message = format!("the interval {:?} is not whole seconds, 1 s to 366 d", short(text));
        return Err(BadPlan::new("interval_out_of_range", message));
    }
    Ok(Seconds::try_from(span.as_secs()).unwrap_or(Seconds::MAX))
}

/// An instant with an offset, or a local time of the zone.
fn read_at(text: &str, zone: &Zone, clock_change: ClockChange) -> Result<Seconds, BadPlan> {
    if let Ok(at) = Timestamp::parse_rfc3339(text) {
        return Ok(at.0.div_euclid(1000));
    }
    let wrong = || {
        let message = format!("{:?} is no instant such as 2026-12-24T18:00 or 2026-12-24T18:00:00+01:00", short(text));
        BadPlan::new("plan_invalid", message)
    };
    // A zone in brackets would be ignored here: the schedule has its own.
    if text.contains('[') {
        return Err(wrong());
    }
    let civil: civil::DateTime = text.parse().map_err(|_| wrong())?;
    match zone.resolve(seconds_of(civil)) {
        Resolved::Once(at) | Resolved::Twice { first: at, .. } if clock_change != ClockChange::Last => Ok(at),
        Resolved::Once(at) | Resolved::Twice { second: at, .. } => Ok(at),
        Resolved::Never { .. } if clock_change == ClockChange::Wall => {
            let message = format!("{} does not exist in {}", short(text), zone.name());
            Err(BadPlan::new("never_fires", message))
        }
        Resolved::Never { gap_end } => Ok(gap_end),
    }
}
