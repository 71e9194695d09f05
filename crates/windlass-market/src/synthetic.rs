//! Quotes drawn from a seed: the same seed gives the same quotes, on every machine.
//!
//! Integers only. Nothing that comes from here may be taken for a price of a real market.

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
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        i64::try_from((z ^ (z >> 31)) % n.max(1)).unwrap_or(0)
    }
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
}
