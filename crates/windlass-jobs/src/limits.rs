//! How much of a queue may run, and start, at once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::Violation;
use crate::time::Timestamp;
use crate::unique::check_key;

/// A queue's limits. Whatever is absent is not limited.
///
/// *Shape as JSON*: `{"concurrency": 10, "rate": {"count": 100, "per_ms": 1000, "burst": 20},
/// "key_concurrency": 2, "key_concurrencies": {"stripe": 5}, "key_rate": {...}, "key_rates":
/// {"stripe": {...}}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Jobs of the queue that run at once: 1 to [`Limits::MOST`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Starts of the queue's jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Jobs of each concurrency key that run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_concurrency: Option<u32>,
    /// The same for certain keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub key_concurrencies: BTreeMap<String, u32>,
    /// Starts of the jobs of each rate key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_rate: Option<Rate>,
    /// The same for certain keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub key_rates: BTreeMap<String, Rate>,
}

/// So many starts per span, held evenly, with a burst after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many: 1 to [`Limits::MOST`].
    pub count: u32,
    /// Per so many ms: 1 to a day; not less than 1 µs for each.
    pub per_ms: u64,
    /// How many may start at once after a rest: 1 to [`Limits::MOST`]; default `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

impl Limits {
    /// The largest count.
    pub const MOST: u32 = 100_000;
    /// The most keys with limits of their own, of each sort.
    pub const MOST_KEYS: usize = 1_000;

    /// Everything wrong with them.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut wrong = Vec::new();
        let counts = [("/concurrency", self.concurrency), ("/key_concurrency", self.key_concurrency)];
        let mut check = |path: String, right: bool, allowed: &str| {
            if !right {
                wrong.push(Violation::new(path, "out_of_range", format!("{allowed} is allowed")));
            }
        };
        let is_count = |n: u32| (1..=Self::MOST).contains(&n);
        for (path, n) in counts {
            check(path.into(), n.is_none_or(is_count), "1 to 100000");
        }
        let rates = [("/rate", self.rate), ("/key_rate", self.key_rate)];
        let allowed = "count 1 to 100000, per_ms 1 to 86400000, burst 1 to 100000, at most 1000 in 1 ms";
        for (path, rate) in rates {
            check(path.into(), rate.is_none_or(Rate::is_right), allowed);
        }
        for (key, n) in &self.key_concurrencies {
            check("/key_concurrencies".into(), is_count(*n) && check_key(key).is_ok(), "a key, and 1 to 100000");
        }
        for (key, rate) in &self.key_rates {
            check("/key_rates".into(), rate.is_right() && check_key(key).is_ok(), allowed);
        }
        let most = self.key_concurrencies.len().max(self.key_rates.len());
        check(String::new(), most <= Self::MOST_KEYS, "1000 keys with limits of their own");
        wrong
    }

    /// Jobs of a concurrency key that may run at once.
    #[must_use]
    pub fn concurrency_of(&self, key: &str) -> Option<u32> {
        self.key_concurrencies.get(key).copied().or(self.key_concurrency)
    }

    /// Starts of a rate key's jobs.
    #[must_use]
    pub fn rate_of(&self, key: &str) -> Option<Rate> {
        self.key_rates.get(key).copied().or(self.key_rate)
    }
}

impl Rate {
    fn is_right(self) -> bool {
        let is_count = |n: u32| (1..=Limits::MOST).contains(&n);
        is_count(self.count)
            && self.burst.is_none_or(is_count)
            && (1..=86_400_000).contains(&self.per_ms)
            && self.per_ms * 1_000 >= u64::from(self.count)
    }

    /// The time one start takes, in µs.
    #[must_use]
    pub fn interval_us(self) -> i64 {
        i64::try_from(self.per_ms.saturating_mul(1_000) / u64::from(self.count.max(1))).unwrap_or(i64::MAX).max(1)
    }

    /// Starts at once after a rest.
    #[must_use]
    pub fn burst(self) -> i64 {
        i64::from(self.burst.unwrap_or(self.count))
    }

    /// How many may start now, when `tat` (µs) is when all starts so far are paid for.
    #[must_use]
    pub fn available(self, tat: i64, now: Timestamp) -> usize {
        let now = us(now);
        let left = self.burst() * self.interval_us() - (tat.max(now) - now);
        usize::try_from(left.div_euclid(self.interval_us())).unwrap_or(0)
    }

    /// `tat` after `n` starts more.
    #[must_use]
    pub fn after(self, tat: i64, now: Timestamp, n: usize) -> i64 {
        tat.max(us(now)) + i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(self.interval_us())
    }

    /// When the next may start.
    #[must_use]
    pub fn next_at(self, tat: i64) -> Timestamp {
        let at = tat - (self.burst() - 1) * self.interval_us();
        Timestamp(at.div_euclid(1_000) + i64::from(at.rem_euclid(1_000) > 0))
    }

    /// So many a second.
    #[must_use]
    pub fn per(count: u32, per: Duration) -> Self {
        Self { count, per_ms: u64::try_from(per.as_millis()).unwrap_or(u64::MAX), burst: None }
    }
}

const fn us(at: Timestamp) -> i64 {
    at.0.saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generic cell rate: a burst after a rest, then one per interval.
    #[test]
    fn a_rate_gives_its_burst_and_then_its_interval() {
        let rate = Rate { count: 10, per_ms: 1_000, burst: Some(3) };
        let (mut tat, start) = (0, Timestamp(1_000_000));
        assert_eq!(rate.available(tat, start), 3);
        tat = rate.after(tat, start, 3);
        assert_eq!((rate.available(tat, start), rate.next_at(tat)), (0, Timestamp(1_000_100)));
        assert_eq!(rate.available(tat, Timestamp(1_000_099)), 0);
        assert_eq!(rate.available(tat, Timestamp(1_000_100)), 1);
        assert_eq!(rate.available(tat, Timestamp(1_000_299)), 2);
        assert_eq!(rate.available(tat, Timestamp(9_000_000)), 3);
        // Ten seconds of asking every 7 ms start a burst and 100.
        let (mut tat, mut started) = (0, 0);
        for ms in (0..10_000).step_by(7) {
            let n = rate.available(tat, start.plus(Duration::from_millis(ms)));
            tat = rate.after(tat, start.plus(Duration::from_millis(ms)), n);
            started += n;
        }
        assert!((100..=103).contains(&started), "{started}");
    }

    #[test]
    fn wrong_limits_are_named() {
        let check = |limits: Limits, path: &str| {
            assert_eq!(limits.check().first().map(|v| v.path.as_str()), Some(path));
        };
        let rate = Rate { count: 1, per_ms: 1, burst: None };
        assert!(Limits { rate: Some(rate), concurrency: Some(1), ..Limits::default() }.check().is_empty());
        check(Limits { concurrency: Some(0), ..Limits::default() }, "/concurrency");
        check(Limits { rate: Some(Rate { count: 0, ..rate }), ..Limits::default() }, "/rate");
        check(Limits { rate: Some(Rate { count: 2_000, ..rate }), ..Limits::default() }, "/rate");
        check(Limits { key_rate: Some(Rate { burst: Some(0), ..rate }), ..Limits::default() }, "/key_rate");
        check(Limits { key_concurrencies: [(String::new(), 1)].into(), ..Limits::default() }, "/key_concurrencies");
    }
}
