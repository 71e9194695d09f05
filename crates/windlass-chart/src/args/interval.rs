//! The time one bar covers.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The time one bar covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Interval {
    /// One minute.
    #[serde(rename = "1m")]
    Minutes1,
    /// Three minutes.
    #[serde(rename = "3m")]
    Minutes3,
    /// Five minutes.
    #[serde(rename = "5m")]
    Minutes5,
    /// A quarter of an hour.
    #[serde(rename = "15m")]
    Minutes15,
    /// Half an hour.
    #[serde(rename = "30m")]
    Minutes30,
    /// One hour.
    #[serde(rename = "1h")]
    Hours1,
    /// Two hours.
    #[serde(rename = "2h")]
    Hours2,
    /// Four hours.
    #[serde(rename = "4h")]
    Hours4,
    /// Six hours.
    #[serde(rename = "6h")]
    Hours6,
    /// Half a day.
    #[serde(rename = "12h")]
    Hours12,
    /// One day.
    #[serde(rename = "1d")]
    Day,
    /// One week.
    #[serde(rename = "1w")]
    Week,
    /// One month.
    #[serde(rename = "1mo")]
    Month,
}

impl Interval {
    const MINUTE_MS: i64 = 60_000;
    const HOUR_MS: i64 = 60 * Self::MINUTE_MS;
    const DAY_MS: i64 = 24 * Self::HOUR_MS;

    /// Every interval, shortest first, with its name on the wire, its label on the chart
    /// and its length in milliseconds (a month counts 30 days).
    const ALL: [(Self, &'static str, &'static str, i64); 13] = [
        (Self::Minutes1, "1m", "1m", Self::MINUTE_MS),
        (Self::Minutes3, "3m", "3m", 3 * Self::MINUTE_MS),
        (Self::Minutes5, "5m", "5m", 5 * Self::MINUTE_MS),
        (Self::Minutes15, "15m", "15m", 15 * Self::MINUTE_MS),
        (Self::Minutes30, "30m", "30m", 30 * Self::MINUTE_MS),
        (Self::Hours1, "1h", "1h", Self::HOUR_MS),
        (Self::Hours2, "2h", "2h", 2 * Self::HOUR_MS),
        (Self::Hours4, "4h", "4h", 4 * Self::HOUR_MS),
        (Self::Hours6, "6h", "6h", 6 * Self::HOUR_MS),
        (Self::Hours12, "12h", "12h", 12 * Self::HOUR_MS),
        (Self::Day, "1d", "1D", Self::DAY_MS),
        (Self::Week, "1w", "1W", 7 * Self::DAY_MS),
        (Self::Month, "1mo", "1M", 30 * Self::DAY_MS),
    ];

    fn row(self) -> (Self, &'static str, &'static str, i64) {
        Self::ALL[self as usize]
    }

    /// What the chart calls it: `1D` for `1d`.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.row().2
    }

    /// How long it is; a month counts 30 days.
    #[must_use]
    pub fn length_ms(self) -> i64 {
        self.row().3
    }

    /// Whether bars are stamped with a time of day rather than a date.
    #[must_use]
    pub fn is_intraday(self) -> bool {
        self.length_ms() < Self::DAY_MS
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}

/// A name that is no interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown interval {found:?}, expected one of 1m 3m 5m 15m 30m 1h 2h 4h 6h 12h 1d 1w 1mo")]
pub struct UnknownInterval {
    /// What was found.
    pub found: String,
}

impl FromStr for Interval {
    type Err = UnknownInterval;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|row| row.1 == name);
        found.map(|row| row.0).ok_or_else(|| UnknownInterval { found: name.to_owned() })
    }
}
