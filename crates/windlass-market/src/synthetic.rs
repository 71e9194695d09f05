//! Quotes drawn from a seed, and prices made up for display: the same on every machine.
//!
//! Integers only. Nothing that comes from here may be taken for a price of a real market.

use crate::candle::{Candle, Timeframe};
use crate::price::MAX_DIGITS;
use crate::rules::Quote;

/// A random walk with a spread that changes and a jump now and then.
#[derive(Debug, Clone)]
pub struct Feed {
    state: u64,
    mid: i64,
    spread: i64,
}

impl Feed {
    /// From a seed, starting at a price, with this spread at rest; both in points, 1 or more.
    #[must_use]
    pub fn new(seed: u64, mid: i64, spread: i64) -> Self {
        Self { state: seed, mid: mid.max(1), spread: spread.max(1) }
    }

    /// The next bid and ask.
    pub fn next_quote(&mut self) -> (i64, i64) {
        // The sum of four uniform steps is near a normal one.
        let step: i64 = (0..4).map(|_| self.below(7) - 3).sum();
        let jump = if self.below(200) == 0 { (self.below(2) * 2 - 1) * self.spread * 4 } else { 0 };
        let wide = if self.below(50) == 0 { self.spread * 2 } else { self.below(3) };
        self.mid = self.mid.saturating_add(step + jump).clamp(self.spread * 4, i64::MAX / 4);
        let bid = self.mid - self.spread / 2;
        (bid, bid + self.spread + wide)
    }

    /// 0 to below `n`.
    fn below(&mut self, n: u64) -> i64 {
        // splitmix64 (Steele, Lea, Flood 2014).
        self.state = self.state.wrapping_add(GOLDEN);
        i64::try_from(mixed(self.state) % n.max(1)).unwrap_or(0)
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finisher of splitmix64.
const fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Prices of a symbol that nobody quotes: one curve over all time, told by its name.
struct Curve {
    seed: u64,
    base: i64,
    spread: i64,
}

/// Spans of the curve's waves: each four times as long as the one before, from a minute to ten weeks.
const WAVES: u32 = 9;
const SHORTEST_MS: i64 = 60_000;
/// Samples of a bar, its two ends among them.
const SAMPLES: i64 = 16;

impl Curve {
    fn new(symbol: &str, digits: u8) -> Self {
        let seed = symbol.bytes().fold(GOLDEN, |seed, byte| mixed(seed ^ u64::from(byte)).wrapping_add(GOLDEN));
        let unit = 10_i64.pow(u32::from(digits.min(MAX_DIGITS - 3)));
        let base = unit.max(1_000) * i64::try_from(1 + seed % 200).unwrap_or(1);
        Self { seed, base, spread: (base / 10_000).max(1) }
    }

    /// The bid at a moment: waves of noise around the base, within a tenth of it.
    fn bid(&self, at_ms: i64) -> i64 {
        let wave = |n: u32| {
            let span = SHORTEST_MS << (2 * n);
            let (cell, within) = (at_ms.div_euclid(span), at_ms.rem_euclid(span));
            let height = i128::from(self.base) * i128::from(n + 1) / 2_000;
            let (from, to) = (self.noise(n, cell), self.noise(n, cell + 1));
            let level = i128::from(from) * i128::from(span - within) + i128::from(to) * i128::from(within);
            level * height / i128::from(span) / 1_000
        };
        let moved: i128 = (0..WAVES).map(wave).sum();
        self.base + i64::try_from(moved).unwrap_or(0)
    }

    /// -1,000 to 1,000 at each border of a wave's spans.
    fn noise(&self, wave: u32, cell: i64) -> i64 {
        let drawn =
            mixed(self.seed ^ mixed(u64::from(wave).wrapping_add(GOLDEN)) ^ cell.cast_unsigned().wrapping_mul(GOLDEN));
        i64::try_from(drawn % 2_001).unwrap_or(0) - 1_000
    }

    fn bar(&self, start_ms: i64, end_ms: i64, now_ms: i64) -> Candle {
        let last_ms = end_ms.min(now_ms.max(start_ms));
        let at = |n: i64| self.bid(start_ms + (last_ms - start_ms) / (SAMPLES - 1) * n);
        let bids = || (0..SAMPLES - 1).map(at).chain(std::iter::once(self.bid(last_ms)));
        let (high, low) = (bids().max().unwrap_or(self.base), bids().min().unwrap_or(self.base));
        Candle {
            start_ms,
            o: self.bid(start_ms),
            h: high,
            l: low,
            c: self.bid(last_ms),
            ah: high + self.spread,
            al: low + self.spread,
            v: 0,
            n: 0,
            open_at: (start_ms, 0),
            close_at: (last_ms, 0),
            rev: 0,
            is_final: end_ms <= now_ms,
        }
    }
}

/// A price made up for display at a moment: for the same symbol and moment the same.
#[must_use]
pub fn quote(symbol: &str, digits: u8, at_ms: i64) -> Quote {
    let curve = Curve::new(symbol, digits);
    let bid = curve.bid(at_ms);
    Quote { ts_ms: at_ms, seq: 0, bid, ask: bid + curve.spread }
}

/// Candles made up for display: the newest that begin within the span and have begun, oldest first, at
/// most `limit`. Each goes on where the one before ended.
#[must_use]
pub fn bars(symbol: &str, digits: u8, frame: Timeframe, span: (i64, i64), limit: usize, now_ms: i64) -> Vec<Candle> {
    let curve = Curve::new(symbol, digits);
    let (mut bars, mut at) = (Vec::new(), span.1.min(now_ms));
    while bars.len() < limit {
        let Some((start_ms, end_ms)) = frame.period(at, None).filter(|(start, _)| *start >= span.0.max(0)) else {
            break;
        };
        bars.push(curve.bar(start_ms, end_ms, now_ms));
        at = start_ms - 1;
    }
    bars.reverse();
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_quotes_every_time_8_30() {
        let drawn = |seed| {
            let mut feed = Feed::new(seed, 107_160, 12);
            (0..1_000).map(|_| feed.next_quote()).collect::<Vec<_>>()
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        assert_eq!(drawn(7)[..2], [(107_150, 107_163), (107_150, 107_163)], "on every machine");
        assert!(drawn(7).iter().all(|(bid, ask)| 0 < *bid && bid <= ask));
    }

    #[test]
    fn made_up_bars_hang_together_and_are_the_same_every_time() {
        let now_ms = 1_700_000_012_345;
        for digits in [0, 5, 18] {
            let made = bars("EURUSD", digits, Timeframe::MINUTE, (i64::MIN, i64::MAX), 200, now_ms);
            assert_eq!(made, bars("EURUSD", digits, Timeframe::MINUTE, (i64::MIN, i64::MAX), 200, now_ms));
            assert_eq!((made.len(), made[199].is_final, made[198].is_final), (200, false, true));
            assert!(made.windows(2).all(|pair| pair[0].c == pair[1].o), "no gaps");
            assert!(made.iter().all(|bar| 0 < bar.l && bar.l <= bar.o.min(bar.c) && bar.o.max(bar.c) <= bar.h));
            let last = quote("EURUSD", digits, now_ms);
            assert_eq!((last.bid, last.ask > last.bid), (made[199].c, true), "the price is that of its bar");
            let day = bars("EURUSD", digits, Timeframe::Day, (i64::MIN, i64::MAX), 1, now_ms);
            assert_eq!(day[0].c, last.bid);
        }
        assert_ne!(quote("EURUSD", 5, now_ms).bid, quote("GBPUSD", 5, now_ms).bid);
    }
}
