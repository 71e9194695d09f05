//! The guards G1–G5: which quotes may decide, and which of them only inform.

use crate::rules::{Gate, Quote};

/// How careful to be with the quotes of one symbol. [`Limits::OFF`] is plain first touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// G1: an older quote decides nothing, in ms. Default 10,000; `None`: any age.
    pub max_age_ms: Option<i64>,
    /// G1: how far ahead of the clock a feed's stamp may be, in ms. Default 2,000.
    pub max_ahead_ms: i64,
    /// G2: a wider spread lets stops wait, in points. Default: none.
    pub max_spread: Option<i64>,
    /// G2: how long they wait at most while the spread stays wide, in ms. Default 3,000.
    pub spread_grace_ms: i64,
    /// G3: a bid or ask further than this from the last believed one needs a second quote, in
    /// points. Default: none.
    pub max_jump: Option<i64>,
    /// G5: a quote that is not newer than the last one decides nothing. Default true.
    pub in_order: bool,
}

impl Limits {
    /// What an instrument has unless it says otherwise; the numbers are those of the design.
    pub const DEFAULT: Self = Self {
        max_age_ms: Some(10_000),
        max_ahead_ms: 2_000,
        max_spread: None,
        spread_grace_ms: 3_000,
        max_jump: None,
        in_order: true,
    };

    /// Plain first touch.
    pub const OFF: Self = Self {
        max_age_ms: None,
        max_ahead_ms: i64::MAX,
        max_spread: None,
        spread_grace_ms: 0,
        max_jump: None,
        in_order: false,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a quote may not be what it seems. As text a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Held {
    /// G1: too old.
    Stale,
    /// G1: stamped in the future.
    Future,
    /// G3: too far from the last one.
    Jump,
    /// G5: not newer than the last one.
    Late,
}

impl Held {
    /// The word in counters, audit and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Future => "future",
            Self::Jump => "jump",
            Self::Late => "late",
        }
    }
}

/// What a quote may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Decide, within this gate. The gate's stops are closed while the spread is too wide.
    Decide(Gate),
    /// Nothing: it triggers nothing and moves no stop.
    Hold(Held),
}

/// G4: what makes a quote impossible. As text a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unsound {
    /// Bid or ask is 0 or below.
    NotPositive,
    /// The ask is below the bid.
    Crossed,
}

impl Unsound {
    /// The word in counters, audit and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotPositive => "not_positive",
            Self::Crossed => "crossed",
        }
    }
}

/// G4: says whether a quote can be.
///
/// # Errors
/// [`Unsound`].
pub const fn sound(quote: &Quote) -> Result<(), Unsound> {
    if quote.bid <= 0 || quote.ask <= 0 {
        return Err(Unsound::NotPositive);
    }
    if quote.ask < quote.bid {
        return Err(Unsound::Crossed);
    }
    Ok(())
}

/// What the guards remember of one symbol.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    last_seq: Option<i64>,
    believed: Option<(i64, i64)>,
    /// A quote that jumped and waits to be confirmed.
    jumped: Option<(i64, i64)>,
    /// Since when the spread is wide, by the quotes' stamps.
    wide_since_ms: Option<i64>,
}

impl Guard {
    /// Judges a sound quote, given now, and remembers it. `now_ms` is the receiver's clock.
    pub fn judge(&mut self, quote: &Quote, now_ms: i64, limits: &Limits, gate: Gate) -> Verdict {
        if limits.in_order && self.last_seq.is_some_and(|last| quote.seq <= last) {
            return Verdict::Hold(Held::Late);
        }
        if quote.ts_ms.saturating_sub(now_ms) > limits.max_ahead_ms {
            // Its number is not believed either: it would make all that follow late.
            return Verdict::Hold(Held::Future);
        }
        self.last_seq = Some(quote.seq);
        if limits.max_age_ms.is_some_and(|max| now_ms.saturating_sub(quote.ts_ms) > max) {
            return Verdict::Hold(Held::Stale);
        }
        if limits.max_jump.is_some_and(|max| self.jumps(quote, max)) {
            return Verdict::Hold(Held::Jump);
        }
        self.believed = Some((quote.bid, quote.ask));
        let stops = gate.stops && !self.stops_wait(quote, limits);
        Verdict::Decide(Gate { stops, ..gate })
    }

    /// The last number taken in.
    #[must_use]
    pub const fn last_seq(&self) -> Option<i64> {
        self.last_seq
    }

    /// Takes up where another left: numbers up to this one are late.
    pub fn resume_after(&mut self, seq: i64) {
        self.last_seq = Some(self.last_seq.map_or(seq, |last| last.max(seq)));
    }

    /// G3: true when the quote is far from the last believed one and not near the one that
    /// jumped before it.
    fn jumps(&mut self, quote: &Quote, max: i64) -> bool {
        let near =
            |&(bid, ask): &(i64, i64)| bid.abs_diff(quote.bid).max(ask.abs_diff(quote.ask)) <= max.unsigned_abs();
        let held = self.jumped.take();
        if self.believed.as_ref().is_none_or(near) || held.as_ref().is_some_and(near) {
            return false;
        }
        self.jumped = Some((quote.bid, quote.ask));
        true
    }

    /// G2: true while the spread is wide and has not been so for the grace.
    fn stops_wait(&mut self, quote: &Quote, limits: &Limits) -> bool {
        // Sound quotes have 0 < bid ≤ ask, so the difference exists.
        if limits.max_spread.is_none_or(|max| quote.ask - quote.bid <= max) {
            self.wide_since_ms = None;
            return false;
        }
        let since = *self.wide_since_ms.get_or_insert(quote.ts_ms);
        quote.ts_ms.saturating_sub(since) < limits.spread_grace_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(ts_ms: i64, seq: i64, bid: i64, ask: i64) -> Quote {
        Quote { ts_ms, seq, bid, ask }
    }

    /// Judges quotes in turn, each received at its own stamp, and spells the verdicts.
    fn check(limits: Limits, quotes: &[Quote], expected: &str) {
        let mut guard = Guard::default();
        let judged = quotes.iter().map(|quote| match guard.judge(quote, quote.ts_ms, &limits, Gate::OPEN) {
            Verdict::Decide(Gate { stops: true, .. }) => "ok",
            Verdict::Decide(_) => "wait",
            Verdict::Hold(held) => held.as_str(),
        });
        assert_eq!(judged.collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn g1_old_and_future_quotes_decide_nothing_f43() {
        let mut guard = Guard::default();
        let mut judge =
            |ts_ms, seq, now_ms| guard.judge(&quote(ts_ms, seq, 10, 11), now_ms, &Limits::DEFAULT, Gate::OPEN);
        assert_eq!(judge(0, 1, 10_000), Verdict::Decide(Gate::OPEN));
        assert_eq!(judge(0, 2, 10_001), Verdict::Hold(Held::Stale));
        assert_eq!(judge(22_000, 900, 20_000), Verdict::Decide(Gate::OPEN));
        assert_eq!(judge(22_001, 9_000_000, 20_000), Verdict::Hold(Held::Future));
        assert_eq!(judge(20_000, 901, 20_000), Verdict::Decide(Gate::OPEN), "a future number makes no other one late");
        assert_eq!(judge(i64::MIN, 902, i64::MAX), Verdict::Hold(Held::Stale), "no overflow");
    }

    #[test]
    fn g2_stops_wait_for_a_normal_quote_or_the_grace() {
        let limits = Limits { max_spread: Some(5), ..Limits::DEFAULT };
        let wide = |ts_ms, seq| quote(ts_ms, seq, 100, 106);
        check(limits, &[wide(0, 1), wide(2_999, 2), wide(3_000, 3)], "wait wait ok");
        check(limits, &[wide(0, 1), quote(10, 2, 100, 105), wide(2_999, 3), wide(3_100, 4)], "wait ok wait wait");
    }

    #[test]
    fn g3_a_jump_needs_a_second_quote_near_it() {
        let limits = Limits { max_jump: Some(10), ..Limits::DEFAULT };
        let at = |seq, bid| quote(seq, seq, bid, bid + 2);
        check(limits, &[at(1, 100), at(2, 110), at(3, 121), at(4, 111)], "ok ok jump ok");
        check(limits, &[at(1, 100), at(2, 200), at(3, 205), at(4, 210)], "ok jump ok ok");
        check(limits, &[at(1, 100), at(2, 200), at(3, 50), at(4, 200), at(5, 100)], "ok jump jump jump ok");
    }

    #[test]
    fn g5_late_quotes_decide_nothing() {
        check(Limits::DEFAULT, &[quote(5, 5, 1, 1), quote(5, 5, 1, 1), quote(6, 4, 1, 1)], "ok late late");
        check(Limits::OFF, &[quote(5, 5, 1, 1), quote(5, 5, 1, 1), quote(6, 4, 1, 1)], "ok ok ok");
    }

    #[test]
    fn g4_impossible_quotes_are_named_f43() {
        assert_eq!(sound(&quote(0, 0, 0, 1)), Err(Unsound::NotPositive));
        assert_eq!(sound(&quote(0, 0, -1, 1)), Err(Unsound::NotPositive));
        assert_eq!(sound(&quote(0, 0, 2, 1)), Err(Unsound::Crossed));
        assert_eq!(sound(&quote(0, 0, 1, 1)), Ok(()));
    }
}
