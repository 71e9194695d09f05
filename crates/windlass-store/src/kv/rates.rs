//! How often something may be done.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use windlass_jobs::millis;
use windlass_redis::{Cmd, Script};

use super::names::{BadName, Names};
use super::side::{self, Answer, Side};

/// How often something may be done: `limit` times per `period`, evenly, and up to `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// 1 to 1,000,000.
    pub limit: u32,
    /// 1 ms to 30 days.
    pub period: Duration,
    /// 1 to 1,000,000; usually the limit.
    pub burst: u32,
}

impl Quota {
    /// `limit` times per `period`, all at once if need be.
    #[must_use]
    pub const fn per(period: Duration, limit: u32) -> Self {
        Self { limit, period, burst: limit }
    }

    /// Between two uses at an even pace, in µs; at least 1.
    fn interval_us(self) -> i64 {
        (micros(self.period) / i64::from(self.limit.max(1))).max(1)
    }
}

/// Whether it may be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// True: it is counted. False: it is not.
    pub allowed: bool,
    /// How often more at once.
    pub remaining: u64,
    /// When it may be tried again, in ms from now; 0 when allowed.
    pub retry_after_ms: u64,
    /// When everything is as if nothing had been done, in ms from now.
    pub reset_ms: u64,
}

/// Rate limits by the server's clock: GCRA, and the fixed window of the replaced application. While
/// Redis is away each process counts for itself.
#[derive(Debug, Clone)]
pub struct RateLimits {
    side: Side,
    names: Names,
    script: Arc<Script>,
}

impl RateLimits {
    /// The fixed window of the replaced application (`compat.md` §3).
    pub const WINDOW: Duration = Duration::from_secs(60);

    pub(super) fn new(side: Side, names: Names) -> Self {
        Self { side, names, script: Arc::new(Script::new(include_str!("lua/rate.lua"))) }
    }

    /// Uses a key `cost` times if its quota allows; a cost of 0 asks only. A cost over the burst is
    /// never allowed.
    ///
    /// # Errors
    /// [`BadName`].
    pub async fn check(&self, key: &str, quota: Quota, cost: u32) -> Result<Answer<Decision>, BadName> {
        let (key, interval, burst) = (self.names.gcra(key)?, quota.interval_us(), i64::from(quota.burst.max(1)));
        let args = |call: &mut Cmd| {
            call.arg("gcra").arg(interval).arg(burst).arg(cost);
        };
        let (numbers, degraded) = match self.ask::<4>(&key, args).await {
            Some(numbers) => (numbers, false),
            None => {
                let now = now_us();
                let numbers = self.side.memory().update(&key, |before| {
                    let tat = before.as_ref().and_then(|(tat, _)| tat.parse().ok()).unwrap_or(0);
                    let (after, numbers) = gcra(tat, now, interval, burst, i64::from(cost));
                    let keep = after.map(|tat| (tat.to_string(), span(tat - now) + Duration::from_millis(1)));
                    (keep.or(before), numbers)
                });
                (numbers, self.side.is_on_redis())
            }
        };
        let ms = |us: i64| u64::try_from(us).unwrap_or(0).div_ceil(1000);
        let [allowed, remaining, retry, reset] = numbers;
        let value = Decision {
            allowed: allowed == 1,
            remaining: u64::try_from(remaining).unwrap_or(0),
            retry_after_ms: ms(retry),
            reset_ms: ms(reset),
        };
        Ok(Answer { value, degraded })
    }

    /// Uses a key `cost` times if it was used at most `limit` times in the window, which begins with
    /// the first use. Answers the decision and the uses so far.
    ///
    /// # Errors
    /// [`BadName`].
    pub async fn window(
        &self,
        key: &str,
        limit: u32,
        window: Duration,
        cost: u32,
    ) -> Result<Answer<(Decision, u64)>, BadName> {
        let (key, window_ms) = (self.names.window(key)?, millis(window).max(1));
        let args = |call: &mut Cmd| {
            call.arg("window").arg(window_ms).arg(limit).arg(cost);
        };
        let (numbers, degraded) = match self.ask::<5>(&key, args).await {
            Some(numbers) => (numbers, false),
            None => (self.window_here(&key, i64::from(limit), window, i64::from(cost)), self.side.is_on_redis()),
        };
        let [allowed, remaining, retry, reset, count] = numbers.map(|n| u64::try_from(n).unwrap_or(0));
        let decision = Decision { allowed: allowed == 1, remaining, retry_after_ms: retry, reset_ms: reset };
        Ok(Answer { value: (decision, count), degraded })
    }

    fn window_here(&self, key: &str, limit: i64, window: Duration, cost: i64) -> [i64; 5] {
        self.side.memory().update(key, |before| {
            let (count, left) = match &before {
                Some((count, left)) => (count.parse().unwrap_or(0), *left),
                None => (0, window),
            };
            let left_ms = millis(left).max(1);
            if count + cost > limit {
                return (before, [0, (limit - count).max(0), left_ms, left_ms, count]);
            }
            let count = count + cost;
            let after = (count > 0).then(|| (count.to_string(), left));
            (after, [1, limit - count, 0, left_ms, count])
        })
    }

    async fn ask<const N: usize>(&self, key: &str, args: impl FnOnce(&mut Cmd)) -> Option<[i64; N]> {
        let reply = self.side.ask(async |link| side::run(link, &self.script, key, args).await).await?;
        Some(side::integers(&reply))
    }
}

/// What `lua/rate.lua` does, in the same order: the new arrival time if there is one, and
/// `[allowed, remaining, retry after, reset after]`, all in µs.
fn gcra(tat: i64, now: i64, interval: i64, burst: i64, cost: i64) -> (Option<i64>, [i64; 4]) {
    let tat = tat.max(now);
    let ahead = interval.saturating_mul(burst);
    let new = tat.saturating_add(interval.saturating_mul(cost));
    if new - now > ahead {
        return (None, [0, ((ahead - (tat - now)) / interval).max(0), new - now - ahead, tat - now]);
    }
    ((cost > 0).then_some(new), [1, (ahead - (new - now)) / interval, 0, new - now])
}

fn now_us() -> i64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

fn span(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten a second, three at once.
    #[test]
    fn a_burst_passes_and_then_an_even_pace() {
        let (mut tat, mut allowed) = (0, Vec::new());
        for now_ms in [0, 0, 0, 0, 50, 100, 100, 200, 1000, 1000, 1000, 1000] {
            let (after, [ok, ..]) = gcra(tat, 1_000_000_000 + now_ms * 1000, 100_000, 3, 1);
            tat = after.unwrap_or(tat);
            allowed.push(ok);
        }
        assert_eq!(allowed, [1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 0]);
    }

    #[test]
    fn a_refusal_says_when() {
        let now = 1_000_000_000;
        let (after, numbers) = gcra(now + 250_000, now, 100_000, 3, 1);
        assert_eq!((after, numbers), (None, [0, 0, 50_000, 250_000]));
        assert_eq!(gcra(0, now, 100_000, 3, 4).1, [0, 3, 100_000, 0], "more than the burst");
        assert_eq!(gcra(0, now, 100_000, 3, 0), (None, [1, 3, 0, 0]), "only asked");
    }
}
